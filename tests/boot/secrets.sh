#!/bin/bash
# Inside the container: what an administrator does once on a machine apart, `backupd init`. Leaves the keys in
# /root/secrets.
set -euo pipefail
umask 077
work=/root/init
mkdir -p $work/stores /root/secrets
cp -r /mnt/secrets/stores/serve $work/stores/
cat >$work/serve.toml <<TOML
practice = "Example practice"
time_zone = "Europe/Berlin"
site = "here"
state_dir = "state"
socket = "/run/init/serve.sock"
quorum = 2

[[source]]
name = "emr"
kind = "appliance"
ops_socket = "/run/holdfast-appliance/ops.sock"
schedule = "0 3 1 1 *"
TOML
for name in east west; do
    port=$([ $name = east ] && echo 9001 || echo 9002)
    cat >>$work/serve.toml <<TOML

[[store]]
name = "$name"
kind = "s3"
endpoint = "http://127.0.0.1:$port"
bucket = "practice"
access_key_file = "stores/serve/$name.access"
secret_key_file = "stores/serve/$name.secret"
site = "$name"
provider = "provider-$name"
TOML
done
/mnt/bin/backupd init --config $work/serve.toml --kit /root/kit
cp $work/writer.cred /root/secrets/writer
cp $work/open.key /root/secrets/open
cp $work/report.key /root/secrets/report
cp $work/report.pub /root/secrets/report.pub
