//! Prune of one repository without a daemon: say what would go and why, announce it, and at a later run delete it.

use super::args::PruneArgs;
use super::listing;
use super::location::location;
use super::render::{Usage, table, table_time};
use super::repo::{REPO, Repository};
use crate::settings::span;
use anyhow::ensure;
use backup_engine::prune::{
    Announced, Approved, Execution, GivenUp, Proposal, PruneRequest, Retire, Trip, TripKind, Waiting, announce,
    execute, propose, retire_writers, withdraw,
};
use backup_engine::retain::{Keep, Policy, Reason, Rule, Verdict};
use backup_engine::{ErrorKind, NamedMaintenanceStore, OpenKey, PrunerCredential, SnapshotInfo, StoreLimits};
use indicatif::HumanBytes;
use serde_json::json;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

struct Run<'r> {
    repository: &'r Repository,
    open: OpenKey,
    pruner: PrunerCredential,
    store: NamedMaintenanceStore,
    json: bool,
}

pub async fn prune(args: PruneArgs) -> anyhow::Result<ExitCode> {
    let place = args.repo.as_deref().ok_or_else(|| {
        Usage(
            "say which: `plan`, `show`, `approve`, `refuse`, `decide` or `execute` ask `backupd maintain`; --repo is one \
             repository without a daemon"
                .to_owned(),
        )
    })?;
    let request = request(&args)?;
    let agreed: BTreeSet<&String> = args.agreed_by.iter().collect();
    let repository = Repository::open(place).await?;
    let (open, pruner) = repository.unlock_to_prune().await?;
    let store = location(place)?.open_for_maintenance(StoreLimits::default())?;
    let store = NamedMaintenanceStore::new(REPO, store, true);
    if !args.dry_run {
        refuse_a_practice(&store).await?;
    }
    let run = Run { repository: &repository, open, pruner, store, json: args.json };
    if args.withdraw {
        return run.withdraw(&request).await;
    }
    if !args.dry_run && !run.execute(&request, args.now).await? {
        return Ok(ExitCode::SUCCESS);
    }
    let stores = [run.store.as_store()];
    let proposal = propose(&repository.env, &run.open, &stores, &request).await.map_err(|error| {
        let lost = matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound);
        if lost { error.context("what is lost for good, --give-up-lost gives up") } else { error }
    })?;
    run.show(&proposal, &request);
    if args.dry_run || proposal.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !proposal.trips.is_empty() && agreed.len() < 2 {
        let message = "nothing is deleted: look at the newest snapshots first; if they are right, two persons say so with --agreed-by NAME --agreed-by NAME";
        anyhow::bail!(message);
    }
    let approved = Approved { snapshots: proposal.approval(), trips: proposal.trips.clone() };
    let stores = std::slice::from_ref(&run.store);
    let announced = announce(&repository.env, &run.open, &run.pruner, stores, &request, &approved).await?;
    let Some(announced) = announced else { return Ok(ExitCode::SUCCESS) };
    run.show_announced(&announced, args.now);
    if args.now {
        run.execute(&request, true).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One person alone must not shrink a practice's history, and its maintenance, which holds no key and so reads no plan,
/// would bring back from the other stores what was deleted here. Restore reports lie only in the stores of a practice.
async fn refuse_a_practice(store: &NamedMaintenanceStore) -> anyhow::Result<()> {
    ensure!(
        store.as_store().store.list("log/").await?.is_empty(),
        Usage(
            "this is a store of a practice (it holds restore reports), whose history two persons prune together with \
             `backupd prune plan` and `approve`: --dry-run shows what would go"
                .to_owned()
        )
    );
    Ok(())
}

fn request(args: &PruneArgs) -> anyhow::Result<PruneRequest<'static>> {
    let counted = [
        (args.keep_last, Keep::Last as fn(u32) -> Keep),
        (args.keep_hourly, Keep::Hourly),
        (args.keep_daily, Keep::Daily),
        (args.keep_weekly, Keep::Weekly),
        (args.keep_monthly, Keep::Monthly),
        (args.keep_yearly, Keep::Yearly),
    ];
    let mut keeps: Vec<Keep> = counted.into_iter().filter_map(|(count, keep)| count.map(keep)).collect();
    if let Some(text) = &args.keep_within {
        keeps.push(Keep::Within(u64::try_from(duration(text)?.as_millis())?));
    }
    keeps.extend(args.keep_tag.iter().cloned().map(Keep::Tagged));
    let grace = if args.now { Duration::ZERO } else { duration(&args.grace)? };
    Ok(PruneRequest {
        policy: Policy { rules: keeps.into_iter().map(Rule::new).collect(), holds: Vec::new() },
        grace,
        rewrite_bytes_max: listing::size(&args.rewrite_max)?,
        given_up: if args.give_up_lost { GivenUp::All } else { GivenUp::Nothing },
        ..PruneRequest::default()
    })
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    Ok(span::parse(text).ok_or_else(|| Usage(format!("{text} is no length of time: {}", span::REMEDY)))?)
}

/// How a rule is typed.
fn flag(keep: &Keep) -> String {
    match keep {
        Keep::Last(n) => format!("--keep-last {n}"),
        Keep::Hourly(n) => format!("--keep-hourly {n}"),
        Keep::Daily(n) => format!("--keep-daily {n}"),
        Keep::Weekly(n) => format!("--keep-weekly {n}"),
        Keep::Monthly(n) => format!("--keep-monthly {n}"),
        Keep::Yearly(n) => format!("--keep-yearly {n}"),
        Keep::Within(_) => "--keep-within".to_owned(),
        Keep::Tagged(_) => "--keep-tag".to_owned(),
    }
}

fn reason(reason: &Reason, policy: &Policy) -> String {
    let rule = |number: &usize| policy.rules.get(*number).map(|rule| flag(&rule.keep)).unwrap_or_default();
    match reason {
        Reason::Rule(number) => rule(number),
        Reason::PartialRule(number) => format!("{}, among partial ones", rule(number)),
        Reason::NoRule => "no rule is given".to_owned(),
        Reason::Newest => "newest".to_owned(),
        Reason::Proved(store) => format!("proved of {store}"),
        Reason::Hold(hold) => format!("hold {hold}"),
        Reason::Forked => "forked: look first".to_owned(),
        Reason::DoubtfulDate => "doubtful date: look first".to_owned(),
        Reason::NextPlan => "next plan".to_owned(),
        Reason::NotApproved => "not approved".to_owned(),
    }
}

fn trip(trip: &Trip) -> String {
    let (what, unit) = match trip.kind {
        TripKind::SizeDrop => ("the source is much smaller", "bytes"),
        TripKind::Entropy => ("what is new does not compress as it did", "of 1000 bytes left"),
        TripKind::MassRemoval => ("many files are gone", "files"),
        TripKind::MassRename => ("many files are gone and as many came", "files"),
        TripKind::MassChange => ("many files have other content", "files"),
        TripKind::HeadGap => {
            return format!(
                "snapshots {} to {} of {} are gone without a tombstone",
                trip.before, trip.after, trip.source
            );
        }
    };
    format!("{what}: {} before, {} {unit} now", trip.before, trip.after)
}

impl Run<'_> {
    /// Deletes what was announced before. Whether a new plan may be made.
    async fn execute(&self, request: &PruneRequest<'_>, now: bool) -> anyhow::Result<bool> {
        let (env, stores) = (&self.repository.env, std::slice::from_ref(&self.store));
        let mut done = execute(env, &self.open, &self.pruner, stores, request).await?;
        if now && matches!(done.waiting, Some(Waiting::Writers(_))) {
            // Every writer begins a new chain, so nobody has to be waited for.
            retire_writers(env, &self.open, &self.pruner, stores, (Retire::All, &request.given_up)).await?;
            done = execute(env, &self.open, &self.pruner, stores, request).await?;
        }
        self.show_execution(&done);
        Ok(done.waiting.is_none())
    }

    async fn withdraw(&self, request: &PruneRequest<'_>) -> anyhow::Result<ExitCode> {
        let (env, stores) = (&self.repository.env, std::slice::from_ref(&self.store));
        let ended = withdraw(env, &self.open, &self.pruner, stores).await?;
        match ended {
            _ if self.json => say!("{}", json!({ "event": "prune-withdrawn", "plan": ended })),
            Some(plan) => say!("Plan {plan} is withdrawn: nothing of it is deleted."),
            None => say!("No plan is announced: there is nothing to withdraw."),
        }
        if ended.is_some() {
            // What a plan before it has left still goes.
            self.show_execution(&execute(env, &self.open, &self.pruner, stores, request).await?);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self, proposal: &Proposal, request: &PruneRequest<'_>) {
        let reasons = |verdict: &Verdict| -> Vec<String> {
            verdict.reasons.iter().map(|found| reason(found, &request.policy)).collect()
        };
        if self.json {
            let row = |(info, verdict): &(SnapshotInfo, Verdict)| {
                json!({
                    "id": info.id.to_string(), "taken_unix_ms": info.taken_unix_ms, "tag": info.tag,
                    "kept": verdict.is_kept(), "lost": proposal.lost.contains(&info.id), "reasons": reasons(verdict),
                })
            };
            let cost = &proposal.cost;
            say!(
                "{}",
                json!({
                    "event": "prune-plan",
                    "snapshots": proposal.snapshots.iter().map(row).collect::<Vec<_>>(),
                    "going": proposal.going().count(), "late": proposal.late.len(), "packs": proposal.packs,
                    "pack_bytes": proposal.pack_bytes, "packs_rewritten": proposal.packs_rewritten,
                    "rewritten_bytes": proposal.rewritten_bytes, "indexes": proposal.indexes,
                    "indexes_merged": proposal.indexes_merged, "bytes_freed": cost.bytes_freed,
                    "puts": cost.puts, "gets": cost.gets, "lists": cost.lists, "deletes": cost.deletes,
                    "dollars": cost.dollars, "dollars_saved_per_month": cost.dollars_saved_per_month,
                    "trips": proposal.trips.iter().map(trip).collect::<Vec<_>>(),
                })
            );
            return;
        }
        let row = |(info, verdict): &(SnapshotInfo, Verdict)| {
            let why = reasons(verdict);
            let (what, why) = match verdict.is_kept() {
                true => ("keep", why.join("; ")),
                false if proposal.lost.contains(&info.id) => ("GOES", "all of it, or a part, is lost".to_owned()),
                false => ("GOES", String::new()),
            };
            let id = info.id.to_string();
            vec![
                what.to_owned(),
                id.get(..8).unwrap_or(&id).to_owned(),
                table_time(info.taken_unix_ms),
                listing::shown(info.tag.as_deref().unwrap_or("").as_bytes()),
                why,
            ]
        };
        table(&["", "SNAPSHOT", "TAKEN", "TAG", "WHY"], &proposal.snapshots.iter().map(row).collect::<Vec<_>>());
        if proposal.is_empty() {
            say!("\nThere is nothing to delete.");
            return;
        }
        say!(
            "\n{} of {} snapshots go; {} packs ({}), of which {} are written anew for {} that is still used; {} of {} index objects are merged.",
            proposal.going().count(),
            proposal.snapshots.len(),
            proposal.packs,
            HumanBytes(proposal.pack_bytes),
            proposal.packs_rewritten,
            HumanBytes(proposal.rewritten_bytes),
            proposal.indexes_merged,
            proposal.indexes
        );
        let cost = &proposal.cost;
        say!(
            "About {} puts, {} gets, {} lists, {} deletions; at a large provider ${:.2} once, ${:.2} a month less; {} freed.",
            cost.puts,
            cost.gets,
            cost.lists,
            cost.deletes,
            cost.dollars,
            cost.dollars_saved_per_month,
            HumanBytes(cost.bytes_freed)
        );
        for found in &proposal.trips {
            say!("THIS LOOKS LIKE AN ATTACK: {}.", trip(found));
        }
    }

    fn show_announced(&self, announced: &Announced, now: bool) {
        if self.json {
            say!(
                "{}",
                json!({
                    "event": "prune-announced", "plan": announced.name.number, "snapshots": announced.snapshots,
                    "packs": announced.packs, "packs_written": announced.packs_written,
                    "bytes_written": announced.bytes_written, "indexes_written": announced.indexes_written,
                })
            );
        } else if !now {
            say!(
                "\nPlan {} is announced: nothing is deleted yet. After the grace, and after the next snapshot of every machine that \
                 writes here, the same command deletes it. No later --now shortens the grace of a plan that is announced.",
                announced.name.number
            );
        }
    }

    fn show_execution(&self, done: &Execution) {
        let Some(plan) = done.plan else { return };
        let store = done.stores.first();
        let (objects, bytes) = store.map_or((0, 0), |store| (store.objects, store.bytes));
        let locked = store.map_or(0, |store| store.locked);
        if self.json {
            let until = match &done.waiting {
                Some(Waiting::Grace { until_unix_ms }) => Some(*until_unix_ms),
                _ => None,
            };
            let writers = match &done.waiting {
                Some(Waiting::Writers(blind)) => blind.len(),
                _ => 0,
            };
            say!(
                "{}",
                json!({
                    "event": "prune-executed", "plan": plan, "waiting": done.waiting.is_some(), "until_unix_ms": until,
                    "writers_waited_for": writers, "snapshots": done.snapshots, "objects": objects, "bytes": bytes,
                    "locked": locked, "error": store.and_then(|store| store.error.as_ref()).map(ToString::to_string),
                })
            );
            return;
        }
        match &done.waiting {
            Some(Waiting::Grace { until_unix_ms }) => {
                say!(
                    "Plan {plan} waits until {} and for a snapshot after that. Nothing shortens the grace that was announced; --withdraw ends it.",
                    table_time(*until_unix_ms)
                );
            }
            Some(Waiting::Writers(blind)) => {
                say!(
                    "Plan {plan} waits: {} writers have made no snapshot since it was announced. When they are gone for good: --now.",
                    blind.len()
                );
            }
            Some(Waiting::Attack(trips)) => {
                trips.iter().for_each(|found| say!("THIS LOOKS LIKE AN ATTACK: {}.", trip(found)));
                say!("Plan {plan} is not carried out: look at the newest snapshots, and end it with --withdraw.");
            }
            None if objects > 0 || locked > 0 => {
                say!("Plan {plan}: {objects} objects deleted, {} freed, {locked} still locked.", HumanBytes(bytes));
            }
            None => {}
        }
        if let Some(error) = store.and_then(|store| store.error.as_ref()) {
            say!("It ended early, the same command goes on: {error}");
        }
    }
}
