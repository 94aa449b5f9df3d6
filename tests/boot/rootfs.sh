#!/usr/bin/env bash
# Prints the folder of a Debian root for the boot tests; makes it once (about three minutes) in the ignored tools folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=${HOLDFAST_TOOLS:-$PWD/.tools}
root=$tools/rootfs
# python3 is for Ansible, which works on the container as on any other machine.
packages=systemd,systemd-sysv,dbus,python3,libpam-systemd,iproute2,netbase,ca-certificates,procps
if [ ! -x "$root/lib/systemd/systemd" ]; then
    mkdir -p "$tools"
    rm -rf "$root.new"
    echo "making $root with debootstrap (once, about three minutes)" >&2
    debootstrap --variant=minbase --include="$packages" bookworm "$root.new" >"$tools/debootstrap.log" 2>&1 ||
        { tail -n 20 "$tools/debootstrap.log" >&2; exit 1; }
    rm -rf "$root.new"/var/cache/apt/archives/*.deb
    mv "$root.new" "$root"
fi
echo "$root"
