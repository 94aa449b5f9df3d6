# Sourced by inside.sh: a snapshot and a drill through the real units.

asks() { python3 - "$@" <<'PY'
import ssl, sys, urllib.request
url, words = sys.argv[1:3]
context = ssl.create_default_context(cafile="/etc/holdfast/tls/ca.pem") if url.startswith("https") else None
body = urllib.request.urlopen(url, context=context, timeout=20).read().decode()
assert words in body, f"{words!r} is not in {body[:2000]}"
PY
}

# says KEY VALUE COMMAND...: the command's JSON answer must hold an object with this key and value.
says() {
    local key=$1 value=$2 said; shift 2
    said=$("$@" --json 2>&1) || { echo "$said"; return 1; }
    python3 - "$key" "$value" "$said" <<'PY'
import json, sys
key, value, said = sys.argv[1:4]
def objects(node):
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from objects(inner)
lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
found = [o[key] for line in lines for o in objects(line) if key in o]
assert found and all(str(f) == value for f in found), f"{key} is {found}, not {value}: {said}"
PY
}

check "the EMR answers over TLS" asks https://localhost:8443/ ""
check "the console answers over TLS" asks https://localhost:8444/ ""
check "the wall page knows that the backup is late" asks http://127.0.0.1:8445/ "backup: late"
check "a snapshot is durable in both stores" says durable True backupd snapshot --config /etc/holdfast/cli.toml
# The agent looks every ten seconds.
soon() { local n; for n in $(seq 30); do "$@" >/dev/null 2>&1 && return; sleep 1; done; "$@"; }
check "the wall page says when power-off is safe" soon asks http://127.0.0.1:8445/health.json '"power_off_safe":"safe"'
for store in east west; do
    check "a drill from $store passes in its own unit" says verdict pass backupd drill --config /etc/holdfast/cli.toml --store $store
done
drilled() {
    journalctl --no-pager -u holdfast-drilled-emr | grep -q Started || { echo "the drilled EMR's unit never started"; return 1; }
    ! systemctl -q is-active holdfast-drilled-emr || { echo "the drilled EMR still runs after the drill"; return 1; }
    [ -z "$(ls -A /var/lib/holdfast/drill)" ] || { echo "restored records were left behind"; ls -la /var/lib/holdfast/drill; return 1; }
}
check "the drilled EMR ran in its unit and left nothing" soon drilled
