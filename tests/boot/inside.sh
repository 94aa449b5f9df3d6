#!/bin/bash
# Runs inside the booted container (by systemd.run=): installs programs, users, units, keys and settings as a practice's
# server has them, then looks at what systemd sees. Writes /out/log; its exit code becomes that of the container.
set -uo pipefail
exec >/out/log 2>&1
failed=0
ok() { echo "ok    $1"; }
bad() { echo "FAIL  $1"; failed=1; }
# check NAME COMMAND...: shows the command's output only when it fails.
check() {
    local name=$1 said; shift
    if said=$("$@" 2>&1); then ok "$name"; else bad "$name"; tail -n 15 <<<"$said"; fi
}
finish() {
    # Events with their fields; the manager's own lines between them.
    journalctl --no-pager -o json | python3 -c '
import json, sys
for line in sys.stdin:
    event = json.loads(line)
    own = {k: v for k, v in event.items() if k.isupper() and not k.startswith(("_", "CODE_", "SYSLOG_", "UNIT"))}
    fields = " ".join(f"{k.lower()}={v}" for k, v in own.items() if k not in ("MESSAGE", "PRIORITY", "PROGRAM", "TARGET", "MESSAGE_ID", "JOB_ID", "JOB_TYPE", "JOB_RESULT", "INVOCATION_ID", "TID"))
    who = event.get("SYSLOG_IDENTIFIER", "")
    print(int(event["__REALTIME_TIMESTAMP"]) // 1000 % 10**8, who, event.get("MESSAGE", ""), fields if who != "systemd" else "")
' >/out/journal 2>&1
    [ $failed = 0 ] && echo "boot: all passed" || echo "boot: FAILED"
    exit $failed
}
trap finish EXIT

services=(holdfast-appliance holdfast-backupd-serve holdfast-backupd-verifier holdfast-backupd-maintain holdfast-console
    holdfast-agent)

install_all() {
    install -D -t /usr/lib/holdfast /mnt/bin/*
    cp /mnt/systemd/*.service /mnt/systemd/*.socket /etc/systemd/system/
    cp /mnt/systemd/sysusers.d/* /usr/lib/sysusers.d/ && systemd-sysusers
    cp /mnt/systemd/tmpfiles.d/* /usr/lib/tmpfiles.d/ && systemd-tmpfiles --create holdfast.conf
    systemctl daemon-reload
    ln -s /usr/lib/holdfast/backupd /usr/local/bin/backupd
}

# Two S3 servers stand for two providers; the keys of writer, verifier and maintenance differ.
providers() {
    local name port user
    for name in east west; do
        port=$([ $name = east ] && echo 9001 || echo 9002)
        mkdir -p /srv/providers/$name
        : >/srv/providers/$name.keys
        chmod 600 /srv/providers/$name.keys
        for user in backup verifier maintain; do
            local folder=/etc/holdfast/stores/$user
            [ $user = backup ] && folder=/etc/holdfast/stores/serve
            printf 'AK%s%s' "$name" "$user" >"$folder/$name.access"
            head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$folder/$name.secret"
            chown holdfast-$user: "$folder/$name".*
            chmod 600 "$folder/$name".*
            printf '[[key]]\naccess_key = "%s"\nsecret_key = "%s"\nmay = ["read", "create", "overwrite"]\n' \
                "$(cat "$folder/$name.access")" "$(cat "$folder/$name.secret")" >>/srv/providers/$name.keys
        done
        systemd-run --quiet --unit "provider-$name" --service-type=notify /usr/lib/holdfast/s3-server \
            --listen 127.0.0.1:$port --root /srv/providers/$name --bucket practice --access-key-file /srv/providers/$name.keys
    done
}

. /mnt/boot/settings.sh

keys() {
    install -m 600 /mnt/tls/appliance.key /etc/holdfast/keys/appliance-tls.key
    install -m 600 /mnt/tls/console.key /etc/holdfast/keys/console-tls.key
    install -m 644 /mnt/tls/*.pem /etc/holdfast/tls/
    make_keys
}

# The journal has the event's fields and the manager's own, so that nobody has to parse text.
journal_fields() {
    local unit=$1 line
    line=$(journalctl --no-pager -o json -u "$unit" PROGRAM="$2" MESSAGE=ready | tail -n 1)
    [ -n "$line" ] || { echo "no event 'ready' with the field PROGRAM=$2"; return 1; }
    python3 - "$line" "$unit.service" <<'PY'
import json, sys
event = json.loads(sys.argv[1])
assert event["_SYSTEMD_UNIT"] == sys.argv[2], event
assert event["_TRANSPORT"] == "journal" and event["TARGET"] and event["CODE_FILE"], event
PY
}

# A stopped process feeds no watchdog: the manager kills it and starts another.
watchdog() {
    local unit=$1 before after n
    mkdir -p /run/systemd/system/$unit.service.d
    printf '[Service]\nWatchdogSec=3s\nTimeoutAbortSec=2s\nRestartSec=100ms\n' >/run/systemd/system/$unit.service.d/fast.conf
    systemctl daemon-reload
    systemctl restart $unit || return 1
    before=$(systemctl show -P MainPID $unit)
    kill -STOP "$before"
    for n in $(seq 100); do
        sleep 0.2
        after=$(systemctl show -P MainPID $unit)
        if [ "$after" != 0 ] && [ "$after" != "$before" ] && systemctl -q is-active $unit; then
            journalctl --no-pager -u $unit | grep -q "Watchdog timeout" && [ "$(systemctl show -P NRestarts $unit)" -ge 1 ]
            return
        fi
    done
    echo "still process $before after 20 s"
    return 1
}

# A live unit must not be able to do what its file forbids.
forbidden() {
    local unit=$1 pid allowed=0000000000000000
    pid=$(systemctl show -P MainPID "$unit")
    # The writer alone may read what is the EMR's (CAP_DAC_READ_SEARCH, bit 2); nobody may do more.
    [ "$unit" = holdfast-backupd-serve ] && allowed=0000000000000004
    grep -q "^CapBnd:\s*$allowed$" "/proc/$pid/status" || { echo "$unit has other capabilities"; return 1; }
    grep -q "^CapEff:\s*$allowed$" "/proc/$pid/status" || { echo "$unit has other capabilities"; return 1; }
    grep -q '^NoNewPrivs:\s*1$' "/proc/$pid/status" || { echo "$unit may gain privileges"; return 1; }
    grep -q '^Seccomp:\s*2$' "/proc/$pid/status" || { echo "$unit has no system call filter"; return 1; }
    [ "$(stat -c %U "/proc/$pid")" != root ] || { echo "$unit runs as root"; return 1; }
}

# unseen UNIT PATH...: what others keep there is not there for this unit, not even for root inside its view.
unseen() {
    local unit=$1 pid path; shift
    pid=$(systemctl show -P MainPID "$unit")
    for path in "$@"; do
        [ -n "$(ls -A "$path")" ] || { echo "$path is empty: nothing to hide"; return 1; }
        [ -z "$(nsenter -t "$pid" -m ls -A "$path" 2>/dev/null)" ] || { echo "$unit sees $path"; return 1; }
    done
}

check "programs, users, units and folders installed" install_all
check "two providers run" providers
check "settings written" write_settings
check "keys made" keys
# A data disk that is not mounted looks like this; to begin a practice on it is for a person to say.
unbegun() {
    local said
    said=$(runuser -u holdfast-appliance -- /usr/lib/holdfast/appliance serve --config /etc/holdfast/appliance.toml 2>&1) && return 1
    echo "$said"
    grep -q "appliance init" <<<"$said" && [ -z "$(ls -A /var/lib/holdfast/appliance)" ]
}
check "without a database the EMR refuses to start, and says what to do" unbegun
check "a new practice is begun" runuser -u holdfast-appliance -- /usr/lib/holdfast/appliance init --config /etc/holdfast/appliance.toml
check "the EMR holds a made-up practice" runuser -u holdfast-appliance -- /usr/lib/holdfast/appliance seed \
    --config /etc/holdfast/appliance.toml --patients 5 --seed 1
for service in "${services[@]}"; do
    check "$service becomes active" systemctl start "$service"
done
check "holdfast-drill.socket becomes active" systemctl start holdfast-drill.socket
for service in "${services[@]}"; do
    check "$service is active after all have started" systemctl is-active "$service"
    check "$service holds no privilege" forbidden "$service"
done
state=/var/lib/holdfast
check "the writer sees neither the verifier's state nor any key" unseen holdfast-backupd-serve $state/verifier /etc/holdfast/keys
check "the verifier sees neither records nor the writer's state" unseen holdfast-backupd-verifier $state/appliance $state/serve
check "maintenance sees neither records nor any key" unseen holdfast-backupd-maintain $state/appliance $state/serve $state/verifier /etc/holdfast/keys
check "the console sees no records and no key" unseen holdfast-console $state/appliance $state/serve /etc/holdfast/keys
check "the agent sees no records and no key" unseen holdfast-agent $state/appliance $state/serve /etc/holdfast/keys
check "the EMR sees no key of the backup" unseen holdfast-appliance $state/serve /etc/holdfast/keys /etc/holdfast/stores
check "journal fields of the EMR" journal_fields holdfast-appliance appliance
check "journal fields of the writer" journal_fields holdfast-backupd-serve backupd-serve
check "journal fields of the verifier" journal_fields holdfast-backupd-verifier backupd-verifier
check "journal fields of maintenance" journal_fields holdfast-backupd-maintain backupd-maintain
check "journal fields of the console" journal_fields holdfast-console console
check "journal fields of the agent" journal_fields holdfast-agent agent
. /mnt/boot/chain.sh
for service in "${services[@]}"; do
    check "a stuck $service is restarted by its watchdog" watchdog "$service"
done
