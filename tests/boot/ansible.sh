#!/usr/bin/env bash
# Lints the playbook, runs it twice on a freshly booted machine (systemd-nspawn): the second run must change nothing,
# and every service must be active after each. The console reaches the daemons over TLS and sends a mail. Then settings
# and records are lost, `backupd recover` brings them back from one store, and a third run puts them into service.
# usage: tests/boot/ansible.sh FOLDER_OF_BINARIES      (root; systemd-container, debootstrap, openssl, ansible, ansible-lint)
set -uo pipefail
boot=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$boot/../.." && pwd)
bin=$(cd "${1:?usage: tests/boot/ansible.sh FOLDER_OF_BINARIES}" && pwd) || exit 2
export LC_ALL=C.UTF-8 ANSIBLE_NOCOLOR=1 ANSIBLE_PIPELINING=1 ANSIBLE_CONFIG=$repository/ansible/ansible.cfg
[ "$(id -u)" = 0 ] || { echo "systemd-nspawn needs root"; exit 2; }
root=$("$boot/rootfs.sh") || exit 2

passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok    $1"; }
bad() { failed=$((failed + 1)); echo "FAIL  $1"; }
work=$(mktemp -d)
container=
finish() {
    # The container's own first process: asked to power off, then given ten seconds.
    if [ -n "${HOLDFAST_LEADER:-}" ]; then
        kill -s RTMIN+4 "$HOLDFAST_LEADER" 2>/dev/null
        for _ in $(seq 50); do kill -0 "$container" 2>/dev/null || break; sleep 0.2; done
    fi
    [ -n "$container" ] && kill -KILL "$container" 2>/dev/null
    rm -rf "$work"
    echo "ansible: $passed passed, $failed failed"
}
trap 'finish; [ $failed = 0 ] || exit 1' EXIT

if said=$(cd "$repository/ansible" && HOME=$work /usr/bin/ansible-lint --offline 2>&1); then
    ok "ansible-lint"
else
    echo "$said"; bad "ansible-lint"
fi

# An administrator's folder of secrets: certificates, the stores' access keys, the backup's keys.
secrets=$work/secrets
mkdir -p "$secrets/stores/serve" "$secrets/stores/verifier" "$secrets/stores/maintain" "$work/bin" "$work/providers"
cp "$bin"/{appliance,backupd,console,agent,s3-server} "$work/bin/"
"$boot/certificates.sh" "$secrets" || exit 2
for name in east west; do
    : >"$work/providers/$name.keys"
    for who in serve verifier maintain; do
        printf 'AK%s%s' "$name" "$who" >"$secrets/stores/$who/$name.access"
        head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$secrets/stores/$who/$name.secret"
        printf '[[key]]\naccess_key = "%s"\nsecret_key = "%s"\nmay = ["read", "create", "overwrite"]\n' \
            "$(cat "$secrets/stores/$who/$name.access")" "$(cat "$secrets/stores/$who/$name.secret")" >>"$work/providers/$name.keys"
    done
done
chmod -R go= "$secrets" "$work/providers"

unshare -m --propagation private bash -c '
    mount -t tmpfs run /run
    exec systemd-nspawn -q -b --volatile=overlay -D "$1" --register=no --keep-unit --private-network \
        --bind-ro="$2/bin:/mnt/bin" --bind-ro="$2/secrets:/mnt/secrets" --bind="$2/providers:/mnt/providers" \
        --bind-ro="$3/tests/boot:/mnt/boot"
' bash "$root" "$work" "$repository" </dev/null >"$work/console.log" 2>&1 &
container=$!
export HOLDFAST_LEADER=
for _ in $(seq 100); do
    sleep 0.2
    # unshare and bash have become systemd-nspawn, whose child is the container's first process.
    leader=$(tr -d ' \n' <"/proc/$container/task/$container/children" 2>/dev/null)
    [ -n "$leader" ] && [ "$(cat "/proc/$leader/comm" 2>/dev/null)" = systemd ] && HOLDFAST_LEADER=$leader && break
done
[ -n "$HOLDFAST_LEADER" ] || { tail -n 20 "$work/console.log"; bad "the container boots"; exit 1; }
inside() { "$boot/enter.sh" / "$@"; }
for _ in $(seq 100); do
    inside systemctl is-active -q multi-user.target 2>/dev/null && break
    sleep 0.2
done
inside systemctl is-active -q multi-user.target && ok "the container boots" || { bad "the container boots"; exit 1; }

for name in east west; do
    port=$([ $name = east ] && echo 9001 || echo 9002)
    inside systemd-run --quiet --unit "provider-$name" --service-type=notify /mnt/bin/s3-server --listen 127.0.0.1:$port \
        --root "/mnt/providers/$name" --bucket practice --access-key-file "/mnt/providers/$name.keys" || bad "provider $name starts"
done
printf 'made-up-user\nmade-up-password\n' >"$secrets/mail"
head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$secrets/webhook"
chmod 600 "$secrets"/{mail,webhook}
# Prints every mail to the journal.
inside systemd-run --quiet --unit mail-server python3 -u -W ignore -m smtpd -n -c DebuggingServer 127.0.0.1:2525 ||
    bad "the mail server starts"
inside /mnt/boot/secrets.sh >"$work/init.log" 2>&1 && ok "the backup's keys are made" ||
    { bad "the backup's keys are made"; tail -n 20 "$work/init.log"; }
inside tar -C /root/secrets -cf - . | tar -C "$secrets" -xf -

cat >"$work/inventory.yml" <<YML
all:
  hosts:
    boot-test:
      ansible_connection: community.general.chroot
      ansible_host: $root
      ansible_chroot_exe: $boot/enter.sh
      ansible_python_interpreter: /usr/bin/python3
  children:
    holdfast: {hosts: {boot-test: {}}}
    emr: {hosts: {boot-test: {}}}
    backup: {hosts: {boot-test: {}}}
    verifier: {hosts: {boot-test: {}}}
    maintain: {hosts: {boot-test: {}}}
    console: {hosts: {boot-test: {}}}
YML
cat >"$work/vars.yml" <<YML
ansible_become: false
holdfast_binaries: $work/bin
holdfast_secrets: $secrets
holdfast_rack: r1
holdfast_serve_listen: 127.0.0.1:9441
holdfast_verifier_listen: 127.0.0.1:9442
holdfast_verifier_serve: tls://127.0.0.1:9441
holdfast_agent_listen: 0.0.0.0:8445
holdfast_agent_readers: [127.0.0.1]
holdfast_console_serve: tls://127.0.0.1:9441
holdfast_console_verifier: tls://127.0.0.1:9442
holdfast_console_agents: ["https://127.0.0.1:8445"]
holdfast_console_public_url: https://console.practice.example
holdfast_console_heartbeat_url: http://127.0.0.1:9/heartbeat
holdfast_mail: {host: 127.0.0.1, port: 2525, tls: none, from: holdfast@practice.example, to: [it@practice.example]}
holdfast_webhook_url: http://127.0.0.1:9/alerts
# Four duties are held by nobody, on purpose: the console has to hear of them.
holdfast_duties:
  - {kind: backup, party: A. Name, deputy: B. Name, phone: "+1 555 0100", review: "2030-01-01"}
  - {kind: store-contract, store: east, party: A. Name, review: "2030-01-01"}
  - {kind: keys}
holdfast_snapshot_schedule: "0 3 1 1 *"
holdfast_drill_schedule: "0 4 1 1 *"
holdfast_stores:
  - {name: east, endpoint: "http://127.0.0.1:9001", bucket: practice, site: east, provider: provider-a}
  - {name: west, endpoint: "http://127.0.0.1:9002", bucket: practice, site: west, provider: provider-b}
YML

play() {
    (cd "$repository/ansible" && HOME=$work timeout 600 /usr/bin/ansible-playbook -i "$work/inventory.yml" \
        -e "@$work/vars.yml" "${@:2}" site.yml) >"$work/$1.log" 2>&1
}
active() {
    local service
    for service in appliance backupd-serve backupd-verifier backupd-maintain console agent; do
        inside systemctl is-active -q "holdfast-$service" && ok "holdfast-$service is active after the $1 run" ||
            { bad "holdfast-$service is active after the $1 run"; inside journalctl --no-pager -n 8 -u "holdfast-$service"; }
    done
}
# soon COMMAND...: until it succeeds, for a minute at most.
soon() { local n; for n in $(seq 60); do "$@" && return; sleep 1; done; return 1; }
check() { if soon "${@:2}" >"$work/said" 2>&1; then ok "$1"; else bad "$1"; tail -n 8 "$work/said"; fi; }
# alert SOURCE KIND SUBJECT: the console heard this from that daemon.
alert() {
    inside python3 -c '
import sqlite3, sys
db = sqlite3.connect("file:/var/lib/holdfast/console/console.db?mode=ro", uri=True)
rows = db.execute("SELECT source, kind, subject FROM alerts WHERE closed_ms IS NULL").fetchall()
sys.exit(0 if tuple(sys.argv[1:]) in rows else f"only {rows}")' "$@"
}
duties_named() {
    inside python3 -c '
import json, pathlib, shutil, subprocess, sys
def ask(*words):
    done = subprocess.run(["backupd", "report", *words, "--json", "--config", "/etc/holdfast/cli.toml"], capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
newest = next(line["reports"] for line in ask() if "reports" in line)[0]["id"]
out = pathlib.Path("/root/evidence")
shutil.rmtree(out, ignore_errors=True)
ask(newest, "--out", str(out))
report = json.loads((out / f"{newest}.json").read_text())
sys.exit(0 if report.get("duties_sha256") else "no duties")'
}
mailed() { inside journalctl --no-pager -o cat -u mail-server | grep -q "https://console.practice.example"; }
# Asks both daemons as the console does.
remote() {
    printf '%s = "%s"\n' serve tls://127.0.0.1:9441 verifier tls://127.0.0.1:9442 ca /etc/holdfast/tls/ca.pem \
        cert /etc/holdfast/tls/console-client.pem key /etc/holdfast/keys/console-client.key |
        inside sh -c 'cat >/root/remote.toml && backupd '"$1"' --config /root/remote.toml'
}
recovered() {
    # The machine is lost: its settings, its keys and its records.
    inside sh -c 'systemctl stop "holdfast-*" && mkdir /root/lost && cp -a /etc/holdfast /root/lost &&
        rm -rf /etc/holdfast /var/lib/holdfast/appliance &&
        backupd recover --kit /root/kit --store west --into /etc/holdfast &&
        for name in serve verifier appliance console agent cli; do
            cmp /root/lost/holdfast/$name.toml /etc/holdfast/$name.toml || exit 1
        done && cmp /root/lost/holdfast/tls/appliance.pem /etc/holdfast/tls/appliance.pem &&
        test -s /var/lib/holdfast/appliance/records.sqlite &&
        rm /etc/holdfast/writer.cred /etc/holdfast/open.key /etc/holdfast/report.key && systemd-tmpfiles --create holdfast.conf'
}

started=$(date +%s)
if play first; then ok "first run ($(($(date +%s) - started)) s)"; else bad "first run"; tail -n 40 "$work/first.log"; fi
active first
started=$(date +%s)
if play second && grep -qE '^boot-test +: .*changed=0 .*unreachable=0 .*failed=0 ' "$work/second.log"; then
    ok "second run changes nothing ($(($(date +%s) - started)) s)"
else
    bad "second run changes nothing"; grep -B 3 -E '^(changed|fatal|failed)' "$work/second.log" | tail -n 40; tail -n 4 "$work/second.log"
fi
active second
if play drift --check && grep -qE '^boot-test +: .*changed=0 ' "$work/drift.log"; then ok "check mode reports no drift"; else
    bad "check mode reports no drift"; tail -n 20 "$work/drift.log"
fi
# The disk of the records is not there: the EMR does not start empty, and the playbook does not make it.
missing() {
    inside sh -c 'systemctl stop holdfast-appliance && mkdir /root/disk && mv /var/lib/holdfast/appliance/* /root/disk/'
    play missing
    inside sh -c '! systemctl is-active -q holdfast-appliance && journalctl --no-pager -u holdfast-appliance | grep -q "appliance init" &&
        test -z "$(ls -A /var/lib/holdfast/appliance)"'
}
back() { inside sh -c 'systemctl stop holdfast-appliance; mv /root/disk/* /var/lib/holdfast/appliance/ && systemctl start holdfast-appliance'; }
if missing; then ok "records that are missing are not begun anew"; else
    bad "records that are missing are not begun anew"; tail -n 10 "$work/missing.log"
fi
if back; then ok "with the records back the EMR starts"; else bad "with the records back the EMR starts"; fi
check "the writer and the verifier answer over TLS" remote status
check "the console hears the writer over TLS: a duty is held by nobody" alert serve duty-unassigned keys
check "the console's mail arrives" mailed
check "a snapshot is durable" inside backupd snapshot --config /etc/holdfast/cli.toml
check "a drill passes" inside backupd drill --store west --config /etc/holdfast/cli.toml
check "its report names the duties in force" duties_named
if recovered >"$work/recover.log" 2>&1; then ok "settings and records come back from one store"; else
    bad "settings and records come back from one store"; tail -n 20 "$work/recover.log"
fi
if play third; then ok "a run after the recovery"; else bad "a run after the recovery"; tail -n 40 "$work/third.log"; fi
active third
check "the history continues" inside backupd snapshot --config /etc/holdfast/cli.toml
exit $((failed > 0))
