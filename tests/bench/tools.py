"""One entry for each tool: what to run for every step.

Commands are bash lines; `backup` runs in the live tree, `restore` in an empty folder.
Placeholders: {repo} the repository (a folder, or an S3 prefix), {work} a private scratch
folder for caches, keys and state, {tag} the snapshot's name, {live} the live tree, and in
S3 commands and environments also {endpoint} {bucket} {key} {secret}.
"""
from dataclasses import dataclass, field, replace

PASS = "correct-horse"


@dataclass
class Tool:
    name: str
    version: str
    backup: str                                  # makes snapshot {tag} of the current folder
    init: str = "mkdir -p {repo}"
    restore: str = ""                            # brings snapshot {tag} into the current folder
    check: str = ""                              # reads back and authenticates everything
    env: dict = field(default_factory=dict)
    s3: dict = field(default_factory=dict)       # the fields that differ on S3; empty: local only
    bound: bool = False                          # a bound, no encrypted backup program: never "the fastest peer"
    note: str = ""

    def on_s3(self):
        """The same tool with its S3 fields put over the local ones."""
        fields = {k: v for k, v in self.s3.items() if k != "env"}
        return replace(self, **fields, env={**self.env, **self.s3.get("env", {})})


AWS = {"AWS_ACCESS_KEY_ID": "{key}", "AWS_SECRET_ACCESS_KEY": "{secret}", "AWS_DEFAULT_REGION": "us-east-1"}

BACKUPD = Tool(
    "backupd", "backupd --version", note="ours",
    init="backupd init --repo {repo}",
    backup="backupd snapshot --repo {repo} --tag {tag} .",
    restore="backupd restore --repo {repo} --tag {tag} --into .",
    check="backupd verify --repo {repo} --read-data",
    env={"BACKUPD_PASSPHRASE": PASS, "BACKUPD_STATE": "{work}/state"},
    s3={"init": "backupd init --repo s3://{bucket}/{repo}",
        "backup": "backupd snapshot --repo s3://{bucket}/{repo} --tag {tag} .",
        "restore": "backupd restore --repo s3://{bucket}/{repo} --tag {tag} --into .",
        "check": "backupd verify --repo s3://{bucket}/{repo} --read-data",
        "env": {"AWS_ENDPOINT_URL": "{endpoint}", **AWS}})

RESTIC = Tool(
    "restic", "restic version", note="zstd (auto) is its default",
    init="restic init -q --repository-version 2",
    backup="restic backup -q --tag {tag} .",
    restore="restic restore -q latest --target .",
    check="restic check -q --read-data",
    env={"RESTIC_REPOSITORY": "{repo}", "RESTIC_PASSWORD": PASS, "RESTIC_CACHE_DIR": "{work}/cache"},
    s3={"env": {"RESTIC_REPOSITORY": "s3:{endpoint}/{bucket}/{repo}", **AWS}})

RUSTIC_S3_PROFILE = """cat >{work}/rustic.toml <<X
[repository]
repository = "opendal:s3"
[repository.options]
endpoint = "{endpoint}"
bucket = "{bucket}"
root = "/{repo}"
region = "us-east-1"
access_key_id = "{key}"
secret_access_key = "{secret}"
X
rustic -P {work}/rustic init"""

RUSTIC = Tool(
    "rustic", "rustic --version", note="zstd 3 is its default",
    init="rustic init",
    backup="rustic backup --tag {tag} .",
    restore="rustic restore latest .",
    check="rustic check --read-data",
    env={"RUSTIC_REPOSITORY": "{repo}", "RUSTIC_PASSWORD": PASS, "RUSTIC_CACHE_DIR": "{work}/cache",
         "RUSTIC_NO_PROGRESS": "true", "RUSTIC_LOG_LEVEL": "error", "HOME": "{work}"},
    s3={"init": RUSTIC_S3_PROFILE,
        "backup": "rustic -P {work}/rustic backup --tag {tag} .",
        "restore": "rustic -P {work}/rustic restore latest .",
        "check": "rustic -P {work}/rustic check --read-data",
        "env": {"RUSTIC_REPOSITORY": ""}})

BORG = Tool(
    "borg", "borg --version", note="zstd 3 (lz4, its default, is larger); ids keyed with BLAKE2b",
    init="borg init -e repokey-blake2",
    backup="borg create -C zstd,3 ::{tag} .",
    restore="borg extract ::{tag}",
    check="borg check --verify-data",
    env={"BORG_REPO": "{repo}", "BORG_PASSPHRASE": PASS, "BORG_BASE_DIR": "{work}"})

BUPSTASH = Tool(
    "bupstash", "bupstash --version", note="zstd 3 is its default; check = read all of the newest item, it has none",
    init="bupstash init && bupstash new-key -o {work}/key",
    backup="bupstash put -q --send-log {work}/sendlog name={tag} .",
    restore="bupstash restore -q --into . name={tag}",
    check="bupstash get -q name={tag} >/dev/null",
    env={"BUPSTASH_REPOSITORY": "{repo}", "BUPSTASH_KEY": "{work}/key", "HOME": "{work}"})

# It does not flush by itself, so the flush of its output is part of the command: durable on both sides.
TAR_ZSTD = Tool(
    "tar-zstd", "zstd --version", bound=True, note="tar | zstd -T0 -3, not encrypted, a full copy each time, flushed",
    backup="tar -c . | zstd -q -T0 -3 -o {repo}/{tag}.tar.zst && sync {repo}/{tag}.tar.zst {repo}",
    restore="zstd -dcq {repo}/{tag}.tar.zst | tar -x",
    check="zstd -tq {repo}/{tag}.tar.zst")

TOOLS = {t.name: t for t in (BACKUPD, RESTIC, RUSTIC, BORG, BUPSTASH, TAR_ZSTD)}
