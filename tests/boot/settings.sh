# Sourced by inside.sh: the settings of all programs, as Ansible writes them.

uid() { id -u "holdfast-$1"; }

stores() {
    local name port
    for name in east west; do
        port=$([ $name = east ] && echo 9001 || echo 9002)
        cat <<TOML

[[store]]
name = "$name"
kind = "s3"
endpoint = "http://127.0.0.1:$port"
bucket = "practice"
access_key_file = "stores/$1/$name.access"
secret_key_file = "stores/$1/$name.secret"
site = "$name"
provider = "provider-$name"
TOML
    done
}

serve_settings() {
    cat <<TOML
practice = "Boot test"
time_zone = "Europe/Berlin"
site = "here"
state_dir = "/var/lib/holdfast/serve"
socket = "/run/holdfast-serve/serve.sock"
health_socket = "/run/holdfast-health/health.sock"
allowed_uids = [0, $(uid console)]
snapshot_uids = [$(uid appliance)]
quorum = 2
report_key = "report.pub"

[spool]
path = "/var/lib/holdfast/spool"
bytes_max = 1000000000

[[source]]
name = "emr"
kind = "appliance"
ops_socket = "/run/holdfast-appliance/ops.sock"
# Once a year: the test asks for its snapshots itself.
schedule = "0 3 1 1 *"
TOML
    stores serve
}

write_settings() {
    local etc=/etc/holdfast
    cat >$etc/appliance.toml <<TOML
practice_name = "Boot test"
time_zone = "Europe/Berlin"
listen = "127.0.0.1:8443"
public_names = ["localhost", "127.0.0.1"]
data_dir = "/var/lib/holdfast/appliance"
staging_dir = "/var/lib/holdfast/staging"
tls_cert = "tls/appliance.pem"
tls_key = "/run/credentials/holdfast-appliance.service/tls.key"
ops_socket = "/run/holdfast-appliance/ops.sock"
ops_allowed_uids = [$(uid backup)]

[backup]
serve_socket = "/run/holdfast-serve/serve.sock"
verifier_socket = "/run/holdfast-verifier/verifier.sock"
TOML
    serve_settings >$etc/serve.toml
    {
        cat <<TOML
practice = "Boot test"
time_zone = "Europe/Berlin"
host = "boot-test"
site = "here"
state_dir = "/var/lib/holdfast/verifier"
socket = "/run/holdfast-verifier/verifier.sock"
allowed_uids = [0, $(uid console)]
lend_uids = [$(uid appliance)]
drill_schedule = "0 4 1 1 *"
sandbox_dir = "/var/lib/holdfast/drill"
same_host_as_writer = true

[probe]
mode = "socket"
path = "/run/holdfast-drill.sock"
TOML
        stores verifier
    } >$etc/verifier.toml
    {
        cat <<TOML
practice = "Boot test"
time_zone = "Europe/Berlin"
state_dir = "/var/lib/holdfast/maintain"
socket = "/run/holdfast-maintain/maintain.sock"
allowed_uids = [0, $(uid console)]
maintain_schedule = "0 5 1 1 *"
TOML
        stores maintain
    } >$etc/maintain.toml
    cat >$etc/console.toml <<TOML
listen = "127.0.0.1:8444"
tls_cert = "tls/console.pem"
tls_key = "/run/credentials/holdfast-console.service/tls.key"
data_dir = "/var/lib/holdfast/console"
serve = "unix:/run/holdfast-serve/serve.sock"
verifier = "unix:/run/holdfast-verifier/verifier.sock"
maintain = "unix:/run/holdfast-maintain/maintain.sock"
agents = ["http://127.0.0.1:8445"]
time_zone = "Europe/Berlin"
TOML
    cat >$etc/agent.toml <<TOML
host = "boot-test"
rack = "r1"
unit = "u1"
health_socket = "/run/holdfast-health/health.sock"

[filesystems]
records = "/var/lib/holdfast"
TOML
    printf 'serve = "unix:/run/holdfast-serve/serve.sock"\nverifier = "unix:/run/holdfast-verifier/verifier.sock"\nmaintain = "unix:/run/holdfast-maintain/maintain.sock"\n' >$etc/cli.toml
}

make_keys() {
    local etc=/etc/holdfast
    # `init` leaves the keys beside the settings; the daemons get them as credentials.
    backupd init --config $etc/serve.toml --kit /root/kit || return 1
    mv $etc/writer.cred $etc/keys/writer && mv $etc/open.key $etc/keys/open && mv $etc/report.key $etc/keys/report || return 1
    chmod 644 $etc/report.pub
}
