//! Verbs that ask a daemon.

use super::args::{
    Ask, DiffArgs, DrillArgs, FindArgs, HealArgs, ListArgs, LookedIntoArgs, LsArgs, Plain, ReportArgs, RestoreArgs,
    SnapshotArgs, StoresArgs, VerifyArgs, Which,
};
use super::bars::Bars;
use super::failed::failure;
use super::render::{self, Usage};
use super::{EXIT_PARTIAL, listing, plan, standalone, views};
use crate::clock;
use crate::settings::{ClientSettings, Endpoints};
use anyhow::{Context, bail};
use backupd_api::{
    Client, DrillVerdict, Endpoint, Event, FailureKind, Request, SnapshotRow, SnapshotState, StoreCondition,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// A daemon to ask.
#[derive(Clone, Copy)]
pub enum Daemon {
    Serve,
    Verifier,
    Maintain,
}

impl Ask {
    fn endpoints(&self) -> anyhow::Result<Endpoints> {
        let mut found = match &self.config {
            Some(path) => ClientSettings::endpoints(path)?,
            None => Endpoints::default(),
        };
        if let Some(text) = &self.serve {
            found.serve = Some(Endpoint::parse(text).context("--serve")?);
        }
        if let Some(text) = &self.verifier {
            found.verifier = Some(Endpoint::parse(text).context("--verifier")?);
        }
        if let Some(text) = &self.maintain {
            found.maintain = Some(Endpoint::parse(text).context("--maintain")?);
        }
        Ok(found)
    }

    fn endpoint(&self, daemon: Daemon) -> anyhow::Result<Endpoint> {
        let found = self.endpoints()?;
        let (endpoint, what, option) = match daemon {
            Daemon::Serve => (found.serve, "`backupd serve`", "--serve"),
            Daemon::Verifier => (found.verifier, "`backupd verifier`", "--verifier"),
            Daemon::Maintain => (found.maintain, "`backupd maintain`", "--maintain"),
        };
        Ok(endpoint.ok_or_else(|| {
            Usage(format!("this asks {what}: say where it listens with --config cli.toml or {option} unix:/path"))
        })?)
    }

    /// Asks and shows progress; with --json every event is a line.
    pub async fn request(&self, daemon: Daemon, request: &Request) -> anyhow::Result<Event> {
        let endpoint = self.endpoint(daemon)?;
        let mut client = Client::connect(&endpoint).await?;
        let bars = Bars::new(self.json);
        let answer = client.request(request, |progress| bars.show(&progress)).await;
        bars.finish();
        let event = answer?;
        if self.json {
            render::json(&event)?;
        }
        Ok(event)
    }
}

pub fn unexpected() -> anyhow::Error {
    anyhow::anyhow!("the daemon answered something else: install the same release on both sides")
}

pub async fn snapshot(args: SnapshotArgs) -> anyhow::Result<ExitCode> {
    if args.path.is_some() || !args.exclude.is_empty() {
        bail!(Usage("a path or --exclude belongs to --repo: the daemon backs up the sources of serve.toml".to_owned()));
    }
    let event = args.ask.request(Daemon::Serve, &Request::Snapshot { tag: args.tag }).await?;
    let Event::SnapshotDone(done) = event else { return Err(unexpected()) };
    if !args.ask.json {
        render::snapshot_done(&done);
    }
    Ok(match done {
        done if done.partial || done.source_damaged => ExitCode::from(EXIT_PARTIAL),
        done if done.state < SnapshotState::Durable => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

pub async fn snapshots(args: ListArgs) -> anyhow::Result<ExitCode> {
    let daemon = if args.ask.endpoints()?.serve.is_some() { Daemon::Serve } else { Daemon::Verifier };
    let (daemon, request) = match as_of(args.as_of.as_deref())? {
        Some(unix_ms) => (Daemon::Verifier, Request::SnapshotsAsOf { unix_ms, store: None }),
        None => (daemon, Request::Snapshots),
    };
    let Event::Snapshots { snapshots } = args.ask.request(daemon, &request).await? else {
        return Err(unexpected());
    };
    if !args.ask.json {
        render::snapshots(&snapshots);
    }
    Ok(ExitCode::SUCCESS)
}

fn as_of(time: Option<&str>) -> anyhow::Result<Option<i64>> {
    time.map(|time| listing::past(time, clock::unix_ms())).transpose()
}

/// The id that a tag stands for: of the newest snapshot that carries it.
async fn resolve(ask: &Ask, which: &Which) -> anyhow::Result<String> {
    resolve_in(ask, which, &Request::Snapshots).await
}

async fn resolve_in(ask: &Ask, which: &Which, listing: &Request) -> anyhow::Result<String> {
    let Some(tag) = &which.tag else { return Ok(which.snapshot.clone()) };
    let quiet = Ask { json: false, ..ask.clone() };
    let Event::Snapshots { snapshots } = quiet.request(Daemon::Verifier, listing).await? else {
        return Err(unexpected());
    };
    newest_tagged(&snapshots, tag)
}

fn newest_tagged(snapshots: &[SnapshotRow], tag: &str) -> anyhow::Result<String> {
    let tagged = snapshots.iter().find(|s| s.tag.as_deref() == Some(tag));
    tagged.map(|s| s.id.clone()).context("no snapshot carries this tag: `backupd snapshots` lists them")
}

pub async fn ls(args: LsArgs) -> anyhow::Result<ExitCode> {
    let snapshot = resolve(&args.ask, &args.which).await?;
    if args.unreadable {
        let event = args.ask.request(Daemon::Verifier, &Request::Unreadable { snapshot }).await?;
        let Event::Unreadable { count, files } = event else { return Err(unexpected()) };
        if !args.ask.json {
            listing::show_unreadable(count, &files);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let request = Request::Ls { snapshot, path: path(args.path.as_deref())?, depth: args.depth };
    let Event::Ls { entries } = args.ask.request(Daemon::Verifier, &request).await? else { return Err(unexpected()) };
    if !args.ask.json {
        entries.iter().for_each(|entry| listing::show_entry(entry, args.long));
    }
    Ok(ExitCode::SUCCESS)
}

fn path(typed: Option<&OsStr>) -> anyhow::Result<Option<String>> {
    typed.map(listing::text).transpose()
}

pub async fn diff(args: DiffArgs) -> anyhow::Result<ExitCode> {
    let request = Request::Diff { before: args.before, after: args.after, path: path(args.path.as_deref())? };
    let Event::Diff { changes, done } = args.ask.request(Daemon::Verifier, &request).await? else {
        return Err(unexpected());
    };
    if !args.ask.json {
        changes.iter().filter(|row| args.times || row.mark != 't').for_each(listing::show_difference);
        listing::show_diff_done(&done.ok_or_else(unexpected)?);
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn find(args: FindArgs) -> anyhow::Result<ExitCode> {
    let wanted = views::find_wanted(&args)?;
    let snapshot = match args.tag {
        Some(tag) => Some(resolve(&args.ask, &Which { snapshot: String::new(), tag: Some(tag) }).await?),
        None => args.snapshot,
    };
    let event = args.ask.request(Daemon::Verifier, &Request::Find { snapshot, wanted }).await?;
    let Event::Found { entries } = event else { return Err(unexpected()) };
    if !args.ask.json {
        entries.iter().for_each(listing::show_found);
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn restore(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let into = listing::target(&args.into)?;
    let as_of_unix_ms = as_of(args.as_of.as_deref())?;
    let listed = match as_of_unix_ms {
        Some(unix_ms) => Request::SnapshotsAsOf { unix_ms, store: args.store.clone() },
        None => Request::Snapshots,
    };
    let snapshot = resolve_in(&args.ask, &args.which, &listed).await?;
    let paths = args.paths.iter().map(|path| listing::text(path)).collect::<anyhow::Result<_>>()?;
    let (store, overwrite) = (args.store, args.overwrite);
    let request = Request::Restore { snapshot, store, into, paths, overwrite, as_of_unix_ms };
    let Event::RestoreDone(done) = args.ask.request(Daemon::Verifier, &request).await? else {
        return Err(unexpected());
    };
    if !args.ask.json {
        render::restore_done(&done);
    }
    Ok(standalone::restore_code(&done))
}

pub async fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let request = Request::Verify { store: args.store, read_data: args.read_data };
    let Event::VerifyDone(done) = args.ask.request(Daemon::Verifier, &request).await? else {
        return Err(unexpected());
    };
    if !args.ask.json {
        render::verify_done(&done);
    }
    let ok = done.gaps.is_empty() && done.stores.iter().all(|s| s.condition == StoreCondition::Ok);
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub async fn drill(args: DrillArgs) -> anyhow::Result<ExitCode> {
    let event = args.ask.request(Daemon::Verifier, &Request::Drill { store: args.store }).await?;
    let Event::DrillDone(done) = event else { return Err(unexpected()) };
    if !args.ask.json {
        render::drill_done(&done);
    }
    Ok(if done.verdict == DrillVerdict::Pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub async fn report(args: ReportArgs) -> anyhow::Result<ExitCode> {
    let Some(id) = args.id else {
        let Event::Reports { reports } = args.ask.request(Daemon::Verifier, &Request::Reports).await? else {
            return Err(unexpected());
        };
        if !args.ask.json {
            render::reports(&reports);
        }
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(file) = args.approval {
        let approval = std::fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let event = args.ask.request(Daemon::Verifier, &Request::Approve { id, approval }).await?;
        let Event::Approved = event else { return Err(unexpected()) };
        if !args.ask.json {
            say!("The approval stands in the log of reports.");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let request =
        if args.out.is_some() { Request::Evidence { id: id.clone() } } else { Request::Report { id: id.clone() } };
    let quiet = Ask { json: args.ask.json && args.out.is_none(), ..args.ask.clone() };
    let Event::Evidence { files } = quiet.request(Daemon::Verifier, &request).await? else { return Err(unexpected()) };
    match args.out {
        Some(dir) => {
            save(&dir, &files)?;
            if !args.ask.json {
                say!(
                    "{} files for an auditor lie in {}; README.txt says how to check them.",
                    files.len(),
                    dir.display()
                );
            }
        }
        None if !args.ask.json => {
            let report = files.iter().find(|f| f.name == format!("{id}.json")).ok_or_else(unexpected)?;
            say!("{}", String::from_utf8_lossy(&STANDARD.decode(&report.base64)?).trim_end());
        }
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes evidence files; a name that would leave the folder is refused.
fn save(dir: &Path, files: &[backupd_api::EvidenceFile]) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    for file in files {
        let plain = !file.name.is_empty() && !file.name.starts_with('.') && !file.name.contains(['/', '\0']);
        if !plain {
            return Err(unexpected());
        }
        let bytes = STANDARD.decode(&file.base64).map_err(|_| unexpected())?;
        std::fs::write(dir.join(&file.name), bytes).with_context(|| format!("{} cannot be written", dir.display()))?;
    }
    Ok(())
}

pub async fn stores(args: StoresArgs) -> anyhow::Result<ExitCode> {
    let Event::Stores { stores } = args.ask.request(Daemon::Serve, &Request::Stores).await? else {
        return Err(unexpected());
    };
    if !args.ask.json {
        render::stores(&stores);
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn status(args: Plain) -> anyhow::Result<ExitCode> {
    let Event::Status(status) = args.ask.request(Daemon::Serve, &Request::Status).await? else {
        return Err(unexpected());
    };
    if !args.ask.json {
        render::status(&status);
    }
    let endpoints = args.ask.endpoints()?;
    let mut alerts = status.alerts;
    // In JSON one line for each daemon.
    if endpoints.verifier.is_some() {
        match args.ask.request(Daemon::Verifier, &Request::VerifierStatus).await {
            Ok(Event::VerifierStatus(status)) => alerts.extend(status.alerts),
            Ok(_) => return Err(unexpected()),
            Err(error) => tell!("backupd verifier does not answer: {error}"),
        }
    }
    if endpoints.maintain.is_some() {
        match args.ask.request(Daemon::Maintain, &Request::MaintainStatus).await {
            Ok(Event::MaintainStatus(status)) => {
                if !args.ask.json {
                    render::maintain_status(&status);
                }
                alerts.extend(status.alerts);
            }
            Ok(_) => return Err(unexpected()),
            // What serve says stands, whatever becomes of this.
            Err(error) => tell!("backupd maintain does not answer: {error}"),
        }
        if let Ok(Event::Prune(status)) = args.ask.request(Daemon::Maintain, &Request::PruneStatus).await
            && !args.ask.json
        {
            plan::in_one_line(&status);
        }
    }
    if !args.ask.json {
        render::alerts(&alerts);
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn looked_into(args: LookedIntoArgs) -> anyhow::Result<ExitCode> {
    let request = Request::LookedInto { subject: args.subject };
    let by_serve = args.ask.request(Daemon::Serve, &request).await;
    let is_gap = names_a_gap(&request);
    // What was healed, or every store has lost, is an alert of maintenance. It does not know whose a gap is: of that `serve` must have
    // heard first.
    if is_gap && by_serve.is_err() {
        return by_serve.map(|_| ExitCode::SUCCESS);
    }
    let by_maintain = match args.ask.endpoints()?.maintain {
        Some(_) => Some(args.ask.request(Daemon::Maintain, &request).await),
        None => None,
    };
    match (by_serve, by_maintain) {
        // Maintenance misses what a gap took away until it hears of it, too.
        (Ok(_), Some(Err(error))) if !is_not_found(&error) => {
            return Err(error.context("`backupd serve` has closed the alert, maintenance has not: say it once more"));
        }
        (Err(error), Some(Ok(_))) if !is_not_found(&error) => {
            return Err(error.context("maintenance has closed its alert, `backupd serve` has not"));
        }
        (Ok(_), _) | (Err(_), Some(Ok(_))) => {}
        (Err(_), Some(Err(error))) if !is_not_found(&error) => return Err(error),
        (Err(error), _) => return Err(error),
    }
    if !args.ask.json {
        say!("Closed. What the verifier tells closes with its next `backupd verify` or drill that finds everything.");
    }
    Ok(ExitCode::SUCCESS)
}

/// A gap is named by source, chain and numbers.
fn names_a_gap(request: &Request) -> bool {
    matches!(request, Request::LookedInto { subject } if subject.contains('/'))
}

fn is_not_found(error: &anyhow::Error) -> bool {
    failure(error).is_some_and(|failure| failure.kind == FailureKind::NotFound)
}

pub async fn heal(args: HealArgs) -> anyhow::Result<ExitCode> {
    let request = Request::Heal { store: args.store, all: args.all };
    let Event::HealDone { stores } = args.ask.request(Daemon::Maintain, &request).await? else {
        return Err(unexpected());
    };
    if !args.ask.json {
        render::maintained(&stores);
    }
    let ok = stores.iter().all(|store| crate::maintain::is_in_order(store.condition));
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
