//! Checks a restore report, its place in the log and its approvals; makes an approval with the approver's own key.
//!
//! Exit codes: 0 verified; 1 wrong; 2 the signature is valid but the signer is unknown; 64 wrong usage.

use anyhow::{Context, bail};
use backup_report::*;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const WRONG: u8 = 1;
const SIGNER_UNKNOWN: u8 = 2;
const USAGE: u8 = 64;
/// No file of a bundle is longer, bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Parser)]
#[command(
    name = "report-verify",
    version,
    about = "Check a restore report: who signed it, that it is in the log, and that its verdict follows from its fields",
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 verified; 1 wrong; 2 signature valid, signer unknown; 64 wrong usage.\n\
                  A verified report can say \"fail\": verified means genuine, not good."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    check: Check,
}

#[derive(Args)]
struct Check {
    /// The report, `<id>.json`; its other files are looked for beside it.
    report: Option<PathBuf>,
    /// Fingerprint of the verifier's key, known from elsewhere than this folder.
    #[arg(long, value_name = "F")]
    key_fingerprint: Option<Fingerprint>,
    /// Fingerprint of a person's key: there must be an approval by this key.
    #[arg(long, value_name = "F")]
    approver_fingerprint: Option<Fingerprint>,
    /// The signature, when it is not `<id>.sig`.
    #[arg(long, value_name = "FILE")]
    sig: Option<PathBuf>,
    /// The verifier's public key, when it is not `<id>.pub`.
    #[arg(long = "pub", value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// The proof, when it is not `<id>.proof`.
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// Approvals, when they are not `<id>.approval-N.json`.
    #[arg(long, value_name = "FILE")]
    approval: Vec<PathBuf>,
    /// Also show the whole report in plain words.
    #[arg(long)]
    full: bool,
    /// Write the report in plain words as one HTML page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Sign a decision about a report with your own key.
    Approve(Approve),
    /// Sign a decision about a deletion plan with your own key.
    Decide(Decide),
    /// Show the fingerprint of a key file, public or private.
    Fingerprint {
        /// The key file.
        key: PathBuf,
    },
    /// Check whole logs: folders with the `log/` objects of one or more stores, compared with each other.
    Log(CheckLog),
}

#[derive(Args)]
struct Approve {
    /// The report, `<id>.json`.
    report: PathBuf,
    /// Your private key: a file of `openssl genpkey -algorithm ed25519`, readable by you alone.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[arg(long, value_enum)]
    decision: DecisionArg,
    #[arg(long, value_enum, default_value = "owner")]
    role: RoleArg,
    /// Where to write the approval; hand it to the console or to `backupd` so that it enters the log.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct Decide {
    /// The plan, as the console or `backupd prune show --out` gives it.
    plan: PathBuf,
    /// Your private key: a file of `openssl genpkey -algorithm ed25519`, readable by you alone.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[arg(long, value_enum)]
    decision: PlanDecisionArg,
    /// Where to write the decision; hand it to the console or to `backupd prune decide`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum PlanDecisionArg {
    Approved,
    Refused,
}

#[derive(Args)]
struct CheckLog {
    /// Folders that hold `entries/` and `checkpoint-*`.
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// The verifier's public key, PEM.
    #[arg(long = "pub", value_name = "FILE")]
    public_key: PathBuf,
    /// Fingerprint of the verifier's key, known from elsewhere.
    #[arg(long, value_name = "F")]
    key_fingerprint: Option<Fingerprint>,
    /// The log's origin, the first line of a checkpoint.
    #[arg(long)]
    origin: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum DecisionArg {
    Certified,
    CertifiedWithActions,
    Rejected,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleArg {
    Owner,
    PracticeIt,
    DataCenter,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let done = match (cli.command, &cli.check.report) {
        (Some(Command::Approve(args)), _) => approve(&args),
        (Some(Command::Decide(args)), _) => decide(&args),
        (Some(Command::Fingerprint { key }), _) => fingerprint(&key),
        (Some(Command::Log(args)), _) => check_log(&args),
        (None, Some(report)) => check_report(report, &cli.check),
        (None, None) => {
            let _ = Cli::command().print_help();
            return ExitCode::from(USAGE);
        }
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            say(&format!("WRONG: {e:#}"));
            ExitCode::from(WRONG)
        }
    }
}

fn check_report(path: &Path, args: &Check) -> anyhow::Result<u8> {
    let beside = |given: &Option<PathBuf>, ext: &str| given.clone().unwrap_or_else(|| sibling(path, ext));
    let approvals = if args.approval.is_empty() { approvals_beside(path) } else { args.approval.clone() };
    let bundle = Bundle {
        report: read(path)?,
        signature: read(&beside(&args.sig, "sig"))?,
        public_key: read(&beside(&args.public_key, "pub"))?,
        proof: read(&beside(&args.proof, "proof"))?,
        approvals: approvals.iter().map(|p| read_approval(p)).collect::<anyhow::Result<_>>()?,
    };
    let verified = verify(&bundle, args.key_fingerprint)?;
    // A report under another report's name would be taken for that one.
    let named = path.file_stem().and_then(|stem| ReportId::parse(&stem.to_string_lossy()).ok());
    if let Some(named) = named.filter(|named| *named != verified.report.report_id) {
        bail!("the file is named {named} and holds report {}", verified.report.report_id);
    }
    if let Some(wanted) = args.approver_fingerprint
        && !verified.approvals.iter().any(|(a, _)| a.fingerprint() == wanted)
    {
        bail!("there is no approval by the key {wanted}");
    }
    tell(&verified, args);
    if let Some(html) = &args.html {
        std::fs::write(html, render_html(&verified.report))
            .with_context(|| format!("cannot write {}", html.display()))?;
    }
    Ok(match verified.outcome {
        Outcome::Verified => {
            say("VERIFIED");
            0
        }
        Outcome::SignerUnknown => {
            say(match args.key_fingerprint {
                None => {
                    "SIGNER UNKNOWN: the signature is valid, but the key is known from this folder only. Give \
                         --key-fingerprint with the fingerprint that you know from elsewhere."
                }
                Some(_) => "SIGNER UNKNOWN: the signature is valid, but by another key than the one you named.",
            });
            SIGNER_UNKNOWN
        }
    })
}

fn tell(verified: &Verified, args: &Check) {
    let report = &verified.report;
    if args.full {
        say(&render_text(report));
    }
    say(&format!("report     {}", report.report_id));
    say(&format!("signed by  key {}", verified.fingerprint));
    let head = &verified.checkpoint;
    say(&format!("in the log {}: entry {} of {}", head.origin, verified.index, head.size));
    say(&format!("restored   snapshot {} from the store {} alone", report.snapshot.counter, report.store.name));
    for (approval, index) in &verified.approvals {
        let decision = word(approval.decision());
        let place = index.map_or("not proved to be in the log".to_owned(), |i| format!("entry {i} of the log"));
        let known = match args.approver_fingerprint {
            Some(f) if f == approval.fingerprint() => "the key you named",
            _ => "compare this key with the person's",
        };
        say(&format!("approval   {decision} by key {} ({known}), {place}", approval.fingerprint()));
        say(&format!("           signed {} by the approver's clock", time_text(approval.signed_unix_ms())));
    }
    if verified.approvals.is_empty() {
        say("approval   none");
    }
    say(&format!("verdict    {} (recomputed from the report's fields)", verdict(report)));
}

fn approve(args: &Approve) -> anyhow::Result<u8> {
    let report = read(&args.report)?;
    let key = zeroize::Zeroizing::new(read(&args.key)?);
    let signer = ReportSigner::from_key_file(&key).with_context(|| args.key.display().to_string())?;
    let decision = match args.decision {
        DecisionArg::Certified => Decision::Certified,
        DecisionArg::CertifiedWithActions => Decision::CertifiedWithActions,
        DecisionArg::Rejected => Decision::Rejected,
    };
    let role = match args.role {
        RoleArg::Owner => OwnerRole::Owner,
        RoleArg::PracticeIt => OwnerRole::PracticeIt,
        RoleArg::DataCenter => OwnerRole::DataCenter,
    };
    let approval = Approval::create(&signer, &report, decision, role, now_unix_ms())?;
    std::fs::write(&args.out, approval).with_context(|| format!("cannot write {}", args.out.display()))?;
    say(&render_text(&check(&report)?));
    say(&format!("{}: signed by key {}", args.out.display(), signer.public_key().fingerprint()));
    Ok(0)
}

fn decide(args: &Decide) -> anyhow::Result<u8> {
    let bytes = read(&args.plan)?;
    let plan = DeletionPlan::parse(&bytes).with_context(|| args.plan.display().to_string())?;
    let key = zeroize::Zeroizing::new(read(&args.key)?);
    let signer = ReportSigner::from_key_file(&key).with_context(|| args.key.display().to_string())?;
    let (decision, word) = match args.decision {
        PlanDecisionArg::Approved => (DeletionDecision::Approved, "approved"),
        PlanDecisionArg::Refused => (DeletionDecision::Refused, "refused"),
    };
    let signed = SignedDecision::create(&signer, &bytes, decision, now_unix_ms())?;
    std::fs::write(&args.out, signed).with_context(|| format!("cannot write {}", args.out.display()))?;
    let (going, all) = (plan.going.len(), plan.snapshots);
    say(&format!("plan       {}, made {}", plan.plan_id, time_text(plan.made_unix_ms)));
    say(&format!("deletes    {going} of {all} snapshots, {} bytes over all stores", plan.figures.bytes_freed));
    for trip in &plan.trips {
        say(&format!("ATTACK?    {:?} of {}: {} before, {} after", trip.kind, trip.source, trip.before, trip.after));
    }
    say(&format!("{}: {word}, signed by key {}", args.out.display(), signer.public_key().fingerprint()));
    Ok(0)
}

fn fingerprint(path: &Path) -> anyhow::Result<u8> {
    let bytes = zeroize::Zeroizing::new(read(path)?);
    let key = PublicKey::from_pem(&bytes).or_else(|_| ReportSigner::from_key_file(&bytes).map(|s| s.public_key()));
    say(&key.with_context(|| path.display().to_string())?.fingerprint().to_string());
    Ok(0)
}

fn check_log(args: &CheckLog) -> anyhow::Result<u8> {
    let key = PublicKey::from_pem(&read(&args.public_key)?)?;
    let origin = Origin::parse(&args.origin)?;
    let mut views = Vec::new();
    for folder in &args.folders {
        let view = View::of_objects(first_whole(objects_in(folder)?, &key, &origin), &key, &origin);
        views.push((folder, view.with_context(|| folder.display().to_string())?));
    }
    let longest = views.iter().max_by_key(|(_, v)| v.leaves().len()).map(|(_, v)| v.leaves()).unwrap_or_default();
    let mut disagreements = Vec::new();
    for (folder, view) in &views {
        let place = Label::slug(&folder.display().to_string());
        let seen = view.checkpoints().map(|(_, note)| Seen { place: place.clone(), checkpoint: note.to_vec() });
        disagreements.extend(compare_checkpoints(&seen.collect::<Vec<_>>(), Some(longest), &key, &origin));
        let mut counts = [0u64; 6];
        if let Some(index) = view.lost().first() {
            bail!("{}: entry {index} has no content: it was lost, or somebody has emptied it", folder.display());
        }
        for bytes in view.entries() {
            counts[Entry::parse(bytes).with_context(|| folder.display().to_string())?.kind() as usize] += 1;
        }
        let [reports, approvals, actions, plans, decisions, _] = counts;
        say(&format!(
            "{}: {reports} reports, {approvals} approvals, {actions} corrective actions, {plans} deletion plans, \
             {decisions} decisions about them, every byte checked",
            folder.display()
        ));
    }
    if !disagreements.is_empty() {
        bail!(disagreements.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    }
    say(&format!("signed by  key {}", key.fingerprint()));
    if args.key_fingerprint == Some(key.fingerprint()) {
        say("VERIFIED");
        return Ok(0);
    }
    say("SIGNER UNKNOWN: the log is consistent, but the key is not one that you named (--key-fingerprint)");
    Ok(SIGNER_UNKNOWN)
}

/// A store's log objects as a folder holds them, with the names that they have in the store.
fn objects_in(folder: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut objects = Vec::new();
    for (sub, prefix) in [(folder.join("entries"), "log/entries/"), (folder.to_owned(), "log/")] {
        let listing = std::fs::read_dir(&sub).with_context(|| format!("cannot read {}", sub.display()))?;
        for file in listing {
            let file = file?;
            if let (true, Some(name)) = (file.file_type()?.is_file(), file.file_name().to_str()) {
                objects.push((format!("{prefix}{name}"), read(&file.path())?));
            }
        }
    }
    Ok(objects)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let unreadable = || format!("cannot read {}", path.display());
    let length = std::fs::metadata(path).with_context(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        bail!("{} is too long to be part of a report", path.display());
    }
    std::fs::read(path).with_context(unreadable)
}

fn read_approval(path: &Path) -> anyhow::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let proof = sibling(path, "proof");
    Ok((read(path)?, if proof.exists() { Some(read(&proof)?) } else { None }))
}

/// `<id>.json` gives `<id>.<ext>`.
fn sibling(path: &Path, ext: &str) -> PathBuf {
    let mut name = path.file_stem().map(OsString::from).unwrap_or_default();
    name.push(".");
    name.push(ext);
    path.with_file_name(name)
}

fn approvals_beside(report: &Path) -> Vec<PathBuf> {
    (1..).map(|n| sibling(report, &format!("approval-{n}.json"))).take_while(|p| p.exists()).collect()
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Certified => "certified",
        Decision::CertifiedWithActions => "certified with actions",
        Decision::Rejected => "REJECTED",
    }
}

/// A line on standard output; a closed pipe is no reason to panic.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[expect(clippy::disallowed_methods, reason = "the one place of this program where the time comes in")]
fn now_unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
