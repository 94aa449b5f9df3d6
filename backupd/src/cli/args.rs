//! What can be typed. Every verb shows an example line.

use crate::recover;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Parser)]
#[command(
    name = "backupd",
    version,
    about = "Backups that prove themselves: snapshots to several stores, restores, signed restore reports",
    after_help = "One repository, no daemon: add --repo DIR, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix. The\n\
                  passphrase is asked for, or stands in BACKUPD_PASSPHRASE; local state is in BACKUPD_STATE (else\n\
                  ~/.local/state/backupd). Credentials: s3:// takes AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,\n\
                  AWS_REGION, AWS_ENDPOINT_URL or AWS_PROFILE; az:// AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_SAS_TOKEN or\n\
                  AZURE_STORAGE_KEY; gs:// GOOGLE_APPLICATION_CREDENTIALS, a service account's key.\n\
                  Where the daemons are: --config cli.toml (or serve.toml, verifier.toml), BACKUPD_CONFIG, or --serve / --verifier /\n\
                  --maintain.\n\
                  Exit codes: 0 done; 1 failed, damaged or not proved; 2 wrong usage or settings; 3 a snapshot is partial or of damaged\n\
                  records, or what came back lacks something that is told; 130 stopped.\n\
                  Example: backupd snapshot --repo /mnt/backup --tag monday ~/documents"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the daemon that takes snapshots and sends them to the stores
    #[command(after_help = "Example: backupd serve --config /etc/holdfast/serve.toml")]
    Serve {
        /// Settings, serve.toml
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run the daemon that restores, drills and signs reports
    #[command(after_help = "Example: backupd verifier --config /etc/holdfast/verifier.toml")]
    Verifier {
        /// Settings, verifier.toml
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run the daemon that looks for damage in the stores and heals it, extends locks, and deletes what two persons signed
    #[command(after_help = "Example: backupd maintain --config /etc/holdfast/maintain.toml")]
    Maintain {
        /// Settings, maintain.toml
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make a repository in every store, its keys and the recovery kit (asks no daemon)
    #[command(after_help = "Example: backupd init --repo /mnt/backup\n\
                            Example: backupd init --config serve.toml --kit /media/usb/kit.json")]
    Init(recover::InitArgs),
    /// Take a snapshot now (asks `backupd serve`; with --repo, no daemon)
    #[command(after_help = "Example: backupd snapshot --repo /mnt/backup --tag monday --exclude '*.tmp' ~/documents")]
    Snapshot(SnapshotArgs),
    /// List snapshots and the stores that hold them (asks `backupd serve`, or the verifier; with --repo, no daemon)
    #[command(after_help = "Example: backupd snapshots --repo /mnt/backup")]
    Snapshots(ListArgs),
    /// List names in a snapshot (asks `backupd verifier` on its own machine; with --repo, no daemon)
    #[command(after_help = "Example: backupd ls --repo /mnt/backup --long letters/2026")]
    Ls(LsArgs),
    /// Show what differs between two snapshots (asks `backupd verifier` on its own machine; with --repo, no daemon)
    #[command(
        after_help = "Marks: + added, - removed, M modified, T of another type, P other permissions, owners or attributes.\n\
                            Example: backupd diff --repo /mnt/backup 3f9a2c latest letters"
    )]
    Diff(DiffArgs),
    /// Find names in one or all snapshots (asks `backupd verifier` on its own machine; with --repo, no daemon)
    #[command(after_help = "Example: backupd find --repo /mnt/backup '*.pdf' --larger 1M --newer 7d")]
    Find(FindArgs),
    /// Restore a snapshot or parts of it (asks `backupd verifier` on its own machine; with --repo, no daemon)
    #[command(after_help = "Example: backupd restore --repo /mnt/backup --tag monday --into /tmp/back letters/2026")]
    Restore(RestoreArgs),
    /// Check that the stores hold what they should (asks `backupd verifier`; with --repo, no daemon)
    #[command(after_help = "Example: backupd verify --repo /mnt/backup --read-data")]
    Verify(VerifyArgs),
    /// Show a repository's size, chunks, and what compression and sharing save (asks no daemon)
    #[command(after_help = "Example: backupd stats --repo /mnt/backup")]
    Stats(StatsArgs),
    /// Show all snapshots as read-only folders, until Ctrl-C (asks no daemon)
    #[command(after_help = "Example: backupd mount --repo /mnt/backup /mnt/snapshots")]
    Mount(MountArgs),
    /// Restore from one store alone, start the EMR on it, sign a report (asks `backupd verifier`)
    #[command(after_help = "Example: backupd drill --config cli.toml --store provider-north")]
    Drill(DrillArgs),
    /// List reports, save one with its evidence, or hand in an approval (asks `backupd verifier`)
    #[command(
        after_help = "Example: backupd report --config cli.toml 01a219e4-7e41-7c3d-9b52-0c8e5f1d2a34 --out /media/usb/evidence"
    )]
    Report(ReportArgs),
    /// List the keys of a practice, or prove that each unlocks (asks no daemon)
    #[command(after_help = "Example: backupd keys --help")]
    Keys(recover::KeysArgs),
    /// Show every store: condition, what it holds, when it was proved (asks `backupd serve`)
    #[command(after_help = "Example: backupd stores --config cli.toml")]
    Stores(StoresArgs),
    /// Show the practice's backup at a glance (asks `backupd serve`, and the verifier and maintenance where they are named)
    #[command(after_help = "Example: backupd status --config cli.toml")]
    Status(Plain),
    /// Bring a practice back on an empty machine from its recovery kit and one store (asks no daemon)
    #[command(
        after_help = "Example: backupd recover --kit /media/usb/kit.json --store provider-south --into /srv/practice"
    )]
    Recover(recover::RecoverArgs),
    /// Look for damaged and missing objects now, and bring them back from another store (asks `backupd maintain`)
    #[command(after_help = "Example: backupd heal --store provider-north --all")]
    Heal(HealArgs),
    /// Say that an alert `source-set-back`, `head-gap`, `store-missing` or `store-healed` was looked into, which closes it (asks `backupd serve`, and maintenance)
    #[command(
        after_help = "After `source-set-back` first bring the snapshot back into another folder (`backupd recover --snapshot ID`) and compare: it holds what was entered\n\
                      after the state that this server or its EMR was set back to. The running EMR lacks that.\n\
                      After `head-gap` first find out who took the snapshots away: `backupd verify` shows what is left.\n\
                      After `store-missing` and `store-healed` first find out who could delete at that store: `backupd status` and the journal name what went.\n\
                      After `prune-failed` first look for what is lost: said of a store, it gives up the snapshots that no store has whole any more.\n\
                      Example: backupd looked-into ID-OF-THE-ALERT --config cli.toml"
    )]
    LookedInto(LookedIntoArgs),
    /// Delete snapshots that no rule keeps, and what only they need (asks `backupd maintain`; with --repo, no daemon)
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "A practice: `plan`, `show`, `approve` by two persons with a key of their own each; the rules stand in [prune] of maintain.toml.\n\
                      One repository with --repo: a first run says what goes and why and announces it, a later one deletes: backups that run\n\
                      meanwhile lose nothing. Days begin at midnight UTC. A practice's store (one that holds restore reports) is only shown\n\
                      with --dry-run: one person alone does not shrink its history.\n\
                      Example: backupd prune show --config cli.toml\n\
                      Example: backupd prune --repo /mnt/backup --keep-daily 14 --keep-monthly 12 --dry-run"
    )]
    Prune(PruneArgs),
}

#[derive(Args)]
pub struct PruneArgs {
    #[command(subcommand)]
    pub action: Option<PlanAction>,
    /// The repository: a folder, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix; passphrase in BACKUPD_PASSPHRASE
    #[arg(long, value_name = "DIR|URL")]
    pub repo: Option<String>,
    /// Keep the newest N snapshots. Rules add up; without any, every snapshot stays
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keep the last snapshot of each of N hours
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// Keep the last snapshot of each of N days
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// Keep the last snapshot of each of N weeks
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// Keep the last snapshot of each of N months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// Keep the last snapshot of each of N years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u32>,
    /// Keep what is at most so much older than the newest: 90m, 12h, 7d, 3w
    #[arg(long, value_name = "TIME")]
    pub keep_within: Option<String>,
    /// Keep every snapshot with this tag; may be given often
    #[arg(long, value_name = "TAG")]
    pub keep_tag: Vec<String>,
    /// Only say what would go and why
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Time between announcing and deleting
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub grace: String,
    /// Announce without a grace and delete at once: a backup or restore that runs now has to begin again
    #[arg(long)]
    pub now: bool,
    /// Write at most so much anew to free half-empty packs
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub rewrite_max: String,
    /// Give up what cannot be read any more: a snapshot that is lost, or has lost part of its tree, goes as a whole
    #[arg(long)]
    pub give_up_lost: bool,
    /// End the plan that is announced: nothing of it is deleted
    #[arg(long, conflicts_with_all = ["now", "dry_run"])]
    pub withdraw: bool,
    /// Where new snapshots look like an attack: who has looked and says they are right; two are needed
    #[arg(long, value_name = "NAME")]
    pub agreed_by: Vec<String>,
    /// Answer in lines of JSON
    #[arg(long)]
    pub json: bool,
}

/// What to do with a practice's deletion plan.
#[derive(Subcommand)]
pub enum PlanAction {
    /// Make a new plan by the rules of maintain.toml, and show it; changes no store
    #[command(after_help = "Example: backupd prune plan --config cli.toml")]
    Plan(Plain),
    /// Show the plan: what goes, why the rest stays, what it costs, who has approved, how far it has come
    #[command(after_help = "Example: backupd prune show --config cli.toml --out plan.json")]
    Show(ShowPlan),
    /// Approve the plan with your own key, which stays on this machine
    #[command(after_help = "Example: backupd prune approve 019ab3f2-77c1 --key owner.pem --config cli.toml")]
    Approve(SignPlan),
    /// Refuse the plan with your own key: it ends, also when it was approved or announced, until it is carried out
    #[command(after_help = "Example: backupd prune refuse 019ab3f2-77c1 --key owner.pem --config cli.toml")]
    Refuse(SignPlan),
    /// Hand in a decision that was signed elsewhere with `report-verify decide`
    #[command(after_help = "Example: backupd prune decide decision.json --config cli.toml")]
    Decide(Decide),
    /// Go on with the approved plan now, as far as its grace and the writers let it
    #[command(after_help = "Example: backupd prune execute --config cli.toml")]
    Execute(Plain),
}

#[derive(Args)]
pub struct ShowPlan {
    #[command(flatten)]
    pub ask: Ask,
    /// Also write the exact text that is signed here, for `report-verify decide`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
pub struct SignPlan {
    #[command(flatten)]
    pub ask: Ask,
    /// The plan's id, or its beginning
    #[arg(value_name = "PLAN")]
    pub plan: String,
    /// Your private key: a file of `openssl genpkey -algorithm ed25519`, readable by you alone
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}

#[derive(Args)]
pub struct Decide {
    #[command(flatten)]
    pub ask: Ask,
    /// The file that `report-verify decide` wrote
    #[arg(value_name = "FILE")]
    pub decision: PathBuf,
}

/// Where to ask, and how to answer.
#[derive(Args, Clone)]
pub struct Ask {
    /// cli.toml, or the daemon's own serve.toml, verifier.toml or maintain.toml
    #[arg(long, value_name = "FILE", env = "BACKUPD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where `backupd serve` listens: unix:/path
    #[arg(long, value_name = "ENDPOINT")]
    pub serve: Option<String>,
    /// Where `backupd verifier` listens: unix:/path
    #[arg(long, value_name = "ENDPOINT")]
    pub verifier: Option<String>,
    /// Where `backupd maintain` listens: unix:/path
    #[arg(long, value_name = "ENDPOINT")]
    pub maintain: Option<String>,
    /// Answer in lines of JSON, progress included
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Plain {
    #[command(flatten)]
    pub ask: Ask,
}

#[derive(Args)]
pub struct StoresArgs {
    #[command(flatten)]
    pub ask: Ask,
    /// Make the disk or share that is mounted now this removable store of serve.toml, once (asks no daemon)
    #[arg(long, value_name = "NAME", requires = "config")]
    pub mark: Option<String>,
    /// Move the locks of every store with `lock_days` to their full length again, in the mode of the settings (asks no daemon;
    /// needs a key that may)
    #[arg(long, requires = "config", conflicts_with = "mark")]
    pub extend_locks: bool,
}

/// A repository without a daemon.
#[derive(Args, Clone)]
pub struct Repo {
    /// Work on this repository without a daemon: a folder, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix; passphrase in BACKUPD_PASSPHRASE
    #[arg(long, value_name = "DIR|URL")]
    pub repo: Option<String>,
}

#[derive(Args)]
pub struct SnapshotArgs {
    #[command(flatten)]
    pub ask: Ask,
    #[command(flatten)]
    pub repo: Repo,
    /// A word to find the snapshot by
    #[arg(long)]
    pub tag: Option<String>,
    /// With --repo: leave out what has this name or stands at this path, `*`, `?`, `[a-z]` and `**` allowed; may be given often
    #[arg(long, value_name = "NAME")]
    pub exclude: Vec<String>,
    /// With --repo: the folder or file to back up
    pub path: Option<PathBuf>,
}

#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub ask: Ask,
    #[command(flatten)]
    pub repo: Repo,
    /// Those that S3 stores with versions held then, past overwrites and deletions: 2026-11-25, `2026-11-25 14:30` (UTC), 12h
    #[arg(long, value_name = "WHEN")]
    pub as_of: Option<String>,
}

/// Which snapshot.
#[derive(Args, Clone)]
pub struct Which {
    /// A snapshot's id, its beginning, or `latest`
    #[arg(long, value_name = "ID", default_value = "latest")]
    pub snapshot: String,
    /// The newest snapshot with this tag
    #[arg(long, conflicts_with = "snapshot")]
    pub tag: Option<String>,
}

#[derive(Args)]
pub struct LsArgs {
    #[command(flatten)]
    pub ask: Ask,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub which: Which,
    /// Show permissions, owners, size and time as `ls -l` does
    #[arg(long, short)]
    pub long: bool,
    /// Only so many levels below the path
    #[arg(long, value_name = "LEVELS")]
    pub depth: Option<u32>,
    /// Instead, show the files that the snapshot could not take as they were, and why
    #[arg(long, conflicts_with_all = ["path", "depth", "long"])]
    pub unreadable: bool,
    /// Only what is at or below this path
    pub path: Option<OsString>,
}

#[derive(Args)]
pub struct DiffArgs {
    #[command(flatten)]
    pub ask: Ask,
    #[command(flatten)]
    pub repo: Repo,
    /// The older one: a snapshot's id, its beginning, `latest`, or with --repo a tag
    #[arg(value_name = "BEFORE")]
    pub before: String,
    /// The newer one
    #[arg(value_name = "AFTER")]
    pub after: String,
    /// Only what is at or below this path
    pub path: Option<OsString>,
    /// Show also entries of which only the time differs (mark t)
    #[arg(long)]
    pub times: bool,
}

#[derive(Args)]
pub struct FindArgs {
    #[command(flatten)]
    pub ask: Ask,
    #[command(flatten)]
    pub repo: Repo,
    /// Only in this snapshot: its id, its beginning, or `latest`; otherwise in all
    #[arg(long, value_name = "ID")]
    pub snapshot: Option<String>,
    /// Only in the newest snapshot with this tag
    #[arg(long, conflicts_with = "snapshot")]
    pub tag: Option<String>,
    /// A name with `*`, `?`, `[a-z]`; with a slash in it the whole path, where `**` stands for any folders
    #[arg(value_name = "NAME")]
    pub name: Option<OsString>,
    /// Letters fit whatever their case (ASCII)
    #[arg(long, short)]
    pub ignore_case: bool,
    /// Only files (f), folders (d), links (l), fifos (p), sockets (s), devices (c, b); several as in `fl`
    #[arg(long = "type", value_name = "TYPE")]
    pub kinds: Option<String>,
    /// At least so large: 4096, 10k, 5M, 2G
    #[arg(long, value_name = "SIZE")]
    pub larger: Option<String>,
    /// At most so large
    #[arg(long, value_name = "SIZE")]
    pub smaller: Option<String>,
    /// Changed since: 2026-11-25, `2026-11-25 14:30` (UTC), or so long ago: 90m, 12h, 7d, 3w
    #[arg(long, value_name = "WHEN")]
    pub newer: Option<String>,
    /// Changed before
    #[arg(long, value_name = "WHEN")]
    pub older: Option<String>,
}

#[derive(Args)]
pub struct StatsArgs {
    /// The repository: a folder, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix; passphrase in BACKUPD_PASSPHRASE
    #[arg(long, value_name = "DIR|URL")]
    pub repo: String,
    /// Answer in lines of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct MountArgs {
    /// The repository: a folder, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix; passphrase in BACKUPD_PASSPHRASE
    #[arg(long, value_name = "DIR|URL")]
    pub repo: String,
    /// Let other users in, by the permissions that the files had; otherwise the folders are for you alone
    #[arg(long)]
    pub allow_other: bool,
    /// Stay until Ctrl-C or `umount` (always so)
    #[arg(long, hide = true)]
    pub foreground: bool,
    /// Answer in lines of JSON
    #[arg(long)]
    pub json: bool,
    /// An empty folder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub ask: Ask,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub which: Which,
    /// From an S3 store with versions as it was then, past overwrites and deletions: 2026-11-25, `2026-11-25 14:30` (UTC), 12h
    #[arg(long, value_name = "WHEN")]
    pub as_of: Option<String>,
    /// From this store alone; otherwise from the first that gives it whole
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// Write over what differs in the target; otherwise an entry that is there already refuses the restore
    #[arg(long)]
    pub overwrite: bool,
    /// The folder to restore into, `.` for this one
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// Only these paths, as `backupd ls` shows them
    pub paths: Vec<OsString>,
}

#[derive(Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub ask: Ask,
    #[command(flatten)]
    pub repo: Repo,
    /// Only this store
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// Read every byte back instead of checking that everything is there
    #[arg(long)]
    pub read_data: bool,
}

#[derive(Args)]
pub struct LookedIntoArgs {
    #[command(flatten)]
    pub ask: Ask,
    /// What the alert names: a snapshot's id, a source, a store, or missing numbers
    #[arg(value_name = "ID")]
    pub subject: String,
}

#[derive(Args)]
pub struct HealArgs {
    #[command(flatten)]
    pub ask: Ask,
    /// Only this store
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// Read every object, not only what is due: this may cost egress
    #[arg(long)]
    pub all: bool,
}

#[derive(Args)]
pub struct DrillArgs {
    #[command(flatten)]
    pub ask: Ask,
    /// This store; otherwise the one that was proved longest ago
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
}

#[derive(Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub ask: Ask,
    /// A report's id; without one, all are listed
    pub id: Option<String>,
    /// Save the report with everything that an auditor needs in this folder
    #[arg(long, value_name = "DIR", requires = "id")]
    pub out: Option<PathBuf>,
    /// Hand in an approval file made with `report-verify approve`
    #[arg(long, value_name = "FILE", requires = "id")]
    pub approval: Option<PathBuf>,
}
