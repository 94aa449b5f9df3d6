# Sourced by inside.sh: a snapshot and a drill through the real units.

asks() { python3 - "$@" <<'PY'
import ssl, sys, urllib.request
url, words = sys.argv[1:3]
context = ssl.create_default_context(cafile="/etc/holdfast/tls/ca.pem") if url.startswith("https") else None
body = urllib.request.urlopen(url, context=context, timeout=20).read().decode()
assert words in body, f"{words!r} is not in {body[:2000]}"
PY
}

check "the EMR answers over TLS" asks https://localhost:8443/ ""
check "the console answers over TLS" asks https://localhost:8444/ ""
check "the wall page knows that the backup is late" asks http://127.0.0.1:8445/ "backup: late"
check "a snapshot is durable in both stores" backupd snapshot --config /etc/holdfast/cli.toml
check "the wall page says when power-off is safe" asks http://127.0.0.1:8445/health.json '"power_off_safe":"safe"'
for store in east west; do
    check "a drill from $store passes in its own unit" backupd drill --config /etc/holdfast/cli.toml --store $store
done
drilled() {
    journalctl --no-pager -u holdfast-drilled-emr | grep -q Started || { echo "the drilled EMR's unit never started"; return 1; }
    ! systemctl -q is-active holdfast-drilled-emr || { echo "the drilled EMR still runs after the drill"; return 1; }
    [ -z "$(ls -A /var/lib/holdfast/drill)" ] || { echo "restored records were left behind"; ls -la /var/lib/holdfast/drill; return 1; }
}
check "the drilled EMR ran in its unit and left nothing" drilled
