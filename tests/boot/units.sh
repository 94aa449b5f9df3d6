#!/usr/bin/env bash
# Checks the unit files without starting anything: exposure at most 1.5 each, syntax without a complaint.
# Needs systemd-analyze 252 or newer; no root, no running systemd.
set -uo pipefail
cd "$(dirname "$0")/../.."
EXPOSURE_MAX_TENTHS=15
units=$PWD/systemd
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# The programs need not be installed to check how they are started: empty ones stand in their places.
programs=$work/programs
for program in appliance backupd console agent; do
    install -D -m 755 /dev/null "$programs/$program"
done

for unit in "$units"/*.service; do
    name=$(basename "$unit")
    if said=$(systemd-analyze security --offline=true --no-pager --threshold=$EXPOSURE_MAX_TENTHS "$unit" 2>&1); then
        echo "ok    $name: exposure $(sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p' <<<"$said")"
    else
        echo "$said" | grep -v '✓'
        echo "FAIL  $name: exposure above $((EXPOSURE_MAX_TENTHS / 10)).$((EXPOSURE_MAX_TENTHS % 10))"
        failed=1
    fi
done

# Every unit in one call: they refer to each other.
mkdir -p "$work/units"
cp "$units"/*.service "$units"/*.socket "$work/units/"
sed -i "s#/usr/lib/holdfast/#$programs/#" "$work"/units/*.service
if said=$(systemd-analyze verify --recursive-errors=yes --man=no "$work"/units/*.service "$work"/units/*.socket 2>&1) &&
    [ -z "$said" ]; then
    echo "ok    systemd-analyze verify"
else
    echo "$said"
    echo "FAIL  systemd-analyze verify"
    failed=1
fi

# A unit that nobody asked about must not slip through.
[ "$(ls "$units"/*.service | wc -l)" -ge 7 ] || { echo "FAIL  units are missing"; failed=1; }
[ $failed = 0 ] && echo "units: all passed" || echo "units: FAILED"
exit $failed
