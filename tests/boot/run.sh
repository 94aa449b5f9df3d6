#!/usr/bin/env bash
# Boots the real units with the real programs in a real systemd (systemd-nspawn; nothing is left behind).
# usage: tests/boot/run.sh FOLDER_OF_BINARIES      (root; systemd-container, debootstrap, openssl)
set -uo pipefail
boot=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$boot/../.." && pwd)
bin=$(cd "${1:?usage: tests/boot/run.sh FOLDER_OF_BINARIES}" && pwd) || exit 2
TIMEOUT_S=300

for program in appliance backupd console agent s3-server; do
    [ -x "$bin/$program" ] || { echo "$bin/$program is missing: cargo build --release --bins"; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "systemd-nspawn needs root"; exit 2; }
root=$("$boot/rootfs.sh") || exit 2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/out" "$work/bin" "$work/tls"
cp "$bin"/{appliance,backupd,console,agent,s3-server} "$work/bin/"
"$boot/certificates.sh" "$work/tls" || exit 2

# A tmpfs on /run: nspawn keeps its own state there and refuses a disk. The overlay makes every boot start afresh.
started=$(date +%s)
timeout --kill-after=10 "$TIMEOUT_S" unshare -m --propagation private bash -c '
    mount -t tmpfs run /run
    exec systemd-nspawn -q -b --volatile=overlay -D "$1" --register=no --keep-unit --private-network \
        --bind-ro="$2/bin:/mnt/bin" --bind-ro="$2/tls:/mnt/tls" --bind-ro="$3/systemd:/mnt/systemd" \
        --bind-ro="$3/tests/boot:/mnt/boot" --bind="$2/out:/out" systemd.run=/mnt/boot/inside.sh
' bash "$root" "$work" "$repository" </dev/null >"$work/console.log" 2>&1
rc=$?

cat "$work/out/log" 2>/dev/null || tail -n 40 "$work/console.log"
[ $rc = 124 ] && echo "FAIL  it did not end within $TIMEOUT_S s"
if [ $rc != 0 ] && [ -s "$work/out/journal" ]; then
    echo "--- what the programs said"
    grep -E '^[0-9]+ (appliance|backupd-serve|backupd-verifier|backupd-maintain|console|agent|drill) ' "$work/out/journal" | tail -n 80
fi
took=$(($(date +%s) - started))
if [ $rc = 0 ] && grep -q '^boot: all passed' "$work/out/log"; then
    echo "boot test: $(grep -c '^ok ' "$work/out/log") passed, 0 failed ($took s)"
    exit 0
fi
echo "boot test: FAILED with exit code $rc ($took s)"
exit $((rc == 0 ? 1 : rc))
