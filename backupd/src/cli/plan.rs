//! Deletion plans of a practice: made, shown, decided about and carried out by `backupd maintain`.

use super::args::{Ask, Decide, PlanAction, ShowPlan, SignPlan};
use super::ask::{Daemon, unexpected};
use super::render::{Usage, table, table_time};
use crate::{clock, secret};
use anyhow::{Context, ensure};
use backup_report::{DeletionDecision, DeletionPlan, ReportSigner, SignedDecision};
use backupd_api::{Event, PrunePlan, PruneState, PruneStatus, Request};
use indicatif::HumanBytes;
use std::process::ExitCode;

/// So much of a plan's id is enough to name it.
const ID_CHARS_MIN: usize = 8;

pub async fn act(action: PlanAction) -> anyhow::Result<ExitCode> {
    match action {
        PlanAction::Plan(args) => tell(&args.ask, &ask(&args.ask, Request::PrunePlan).await?),
        PlanAction::Show(args) => return show(args).await,
        PlanAction::Approve(args) => return sign(args, DeletionDecision::Approved).await,
        PlanAction::Refuse(args) => return sign(args, DeletionDecision::Refused).await,
        PlanAction::Decide(args) => return hand_in(args).await,
        PlanAction::Execute(args) => tell(&args.ask, &ask(&args.ask, Request::PruneExecute).await?),
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(ask: &Ask, request: Request) -> anyhow::Result<PruneStatus> {
    match ask.request(Daemon::Maintain, &request).await? {
        Event::Prune(status) => Ok(*status),
        _ => Err(unexpected()),
    }
}

fn tell(ask: &Ask, status: &PruneStatus) {
    if !ask.json {
        status_text(status);
    }
}

async fn show(args: ShowPlan) -> anyhow::Result<ExitCode> {
    let status = ask(&args.ask, Request::PruneStatus).await?;
    if let Some(file) = &args.out {
        let plan = status.plan.as_ref().context("there is no plan: `backupd prune plan` makes one")?;
        std::fs::write(file, &plan.document).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    tell(&args.ask, &status);
    Ok(ExitCode::SUCCESS)
}

/// Signs on this machine: the key never leaves it.
async fn sign(args: SignPlan, decision: DeletionDecision) -> anyhow::Result<ExitCode> {
    let quiet = Ask { json: false, ..args.ask.clone() };
    let status = ask(&quiet, Request::PruneStatus).await?;
    let plan = status.plan.context("there is no plan: `backupd prune plan` makes one")?;
    let named = args.plan.len() >= ID_CHARS_MIN && plan.id.starts_with(&args.plan);
    ensure!(
        named,
        Usage(format!("the plan in force is {}: look at it with `backupd prune show`, then name it", plan.id))
    );
    let document = DeletionPlan::parse(plan.document.as_bytes()).context("the daemon's plan")?;
    let key = secret::read(&args.key)?;
    let signer = ReportSigner::from_key_file(&key).with_context(|| args.key.display().to_string())?;
    let entry = SignedDecision::create(&signer, plan.document.as_bytes(), decision, clock::unix_ms())?;
    if !args.ask.json {
        document_text(&document);
    }
    send(&args.ask, String::from_utf8(entry)?).await
}

async fn hand_in(args: Decide) -> anyhow::Result<ExitCode> {
    let shown = args.decision.display();
    let entry = std::fs::read_to_string(&args.decision).with_context(|| format!("{shown} cannot be read"))?;
    send(&args.ask, entry).await
}

async fn send(to: &Ask, decision: String) -> anyhow::Result<ExitCode> {
    let status = ask(to, Request::PruneDecide { decision }).await?;
    if let Some(plan) = status.plan.as_ref().filter(|_| !to.json) {
        decisions_text(plan);
    }
    Ok(ExitCode::SUCCESS)
}

/// What is signed, from the signed text itself.
fn document_text(document: &DeletionPlan) {
    say!("Plan {} of {}:", document.plan_id, table_time(document.made_unix_ms));
    say!("  {} of {} snapshots go.", document.going.len(), document.snapshots);
    for trip in &document.trips {
        say!(
            "  THIS LOOKS LIKE AN ATTACK: {:?} of {}: {} before, {} now.",
            trip.kind,
            trip.source,
            trip.before,
            trip.after
        );
    }
}

fn status_text(status: &PruneStatus) {
    if !status.enabled {
        say!("This maintenance never deletes anything: its maintain.toml has no [prune].");
        return;
    }
    if status.rules.is_empty() {
        say!("No rule is set in [prune]: every snapshot stays.");
    }
    status.rules.iter().for_each(|rule| say!("keep  {rule}"));
    status.holds.iter().for_each(|hold| say!("hold  {hold}"));
    let names: Vec<&str> = status.approvers.iter().map(|approver| approver.name.as_str()).collect();
    match names.len() {
        0 => say!("Nobody may approve a plan: [[prune.approver]] names two persons."),
        1 => say!("Only {} may approve a plan, and two are needed: add a second [[prune.approver]].", names.join(", ")),
        _ => say!("Two of these must approve: {}.", names.join(", ")),
    }
    let Some(plan) = &status.plan else {
        match status.next_plan_unix_ms {
            Some(next) => {
                say!("\nThere is no plan yet; the next is made {}, or by `backupd prune plan`.", table_time(next))
            }
            None => say!("\nThere is no plan: `backupd prune plan` makes one."),
        }
        return;
    };
    say!("");
    plan_text(plan);
}

/// For whoever looks at everything: whether a plan waits for somebody.
pub fn in_one_line(status: &PruneStatus) {
    let Some(plan) = &status.plan else { return };
    let going = plan.rows.iter().filter(|row| row.goes).count();
    let state = match plan.state {
        PruneState::Proposed => "waits for two persons' approval",
        PruneState::Approved => "is approved",
        PruneState::Announced => "is announced",
        PruneState::Deleting => "is carried out, locks keep something",
        PruneState::Done | PruneState::Refused | PruneState::Empty => return,
    };
    say!("Deletion plan {}: {going} snapshots, {state} (`backupd prune show`)", plan.id);
}

fn plan_text(plan: &PrunePlan) {
    let rows: Vec<Vec<String>> = plan.rows.iter().map(row).collect();
    table(&["", "SNAPSHOT", "SOURCE", "TAKEN", "CAME", "WHY"], &rows);
    let Ok(document) = DeletionPlan::parse(plan.document.as_bytes()) else {
        say!("The plan's text cannot be read: make a new one with `backupd prune plan`.");
        return;
    };
    let figures = &document.figures;
    say!("\nPlan {}, made {}:", plan.id, table_time(plan.made_unix_ms));
    say!(
        "{} of {} snapshots go; {} packs ({}), of which {} are written anew for {} that is still used; {} index objects are merged.",
        document.going.len(),
        document.snapshots,
        figures.packs,
        HumanBytes(figures.pack_bytes),
        figures.packs_rewritten,
        HumanBytes(figures.rewritten_bytes),
        figures.indexes_merged
    );
    let dollars = |millionths: u64| millionths as f64 / 1e6;
    say!(
        "About {} puts, {} gets, {} lists, {} deletions over all stores; at a large provider ${:.2} once, ${:.2} a month less; {} freed.",
        figures.puts,
        figures.gets,
        figures.lists,
        figures.deletes,
        dollars(figures.cost_millionths),
        dollars(figures.saved_millionths_per_month),
        HumanBytes(figures.bytes_freed)
    );
    for trip in &document.trips {
        say!(
            "THIS LOOKS LIKE AN ATTACK: {:?} of {}: {} before, {} now.",
            trip.kind,
            trip.source,
            trip.before,
            trip.after
        );
    }
    plan.notes.iter().for_each(|note| say!("LOOK: {note}. Is it spelled right?"));
    say!("SHA-256 of the text that is signed: {}", plan.sha256);
    decisions_text(plan);
}

fn row(row: &backupd_api::PruneRow) -> Vec<String> {
    vec![
        if row.goes { "GOES" } else { "keep" }.to_owned(),
        row.id.get(..12).unwrap_or(&row.id).to_owned(),
        row.source.clone(),
        table_time(row.taken_unix_ms),
        table_time(row.received_unix_ms),
        row.reasons.join("; "),
    ]
}

fn decisions_text(plan: &PrunePlan) {
    for decision in &plan.decisions {
        let who = decision.approver.as_deref().unwrap_or("somebody who is no approver any more");
        let what = if decision.approved { "approved" } else { "REFUSED" };
        say!("{what} by {who}, {}, key {}", table_time(decision.signed_unix_ms), decision.fingerprint);
    }
    let approvals = plan.decisions.iter().filter(|decision| decision.approved).count() as u32;
    match plan.state {
        PruneState::Empty => say!("There is nothing to delete."),
        PruneState::Proposed => say!(
            "Nothing is deleted: {} of {} persons have approved. Each signs with `backupd prune approve {} --key FILE`.",
            approvals,
            plan.needed,
            plan.id.get(..13).unwrap_or(&plan.id)
        ),
        PruneState::Approved if plan.needed == 0 => {
            say!("No snapshot goes, so nobody has to approve: it is carried out.")
        }
        PruneState::Approved => say!("Approved by {approvals} persons: it is announced in every store next."),
        PruneState::Announced => waiting_text(plan),
        PruneState::Deleting => say!("Carried out, but not everything is gone yet:"),
        PruneState::Done => say!("Carried out."),
        PruneState::Refused => say!("Refused: nothing is deleted."),
    }
    for store in &plan.stores {
        let locked = if store.locked > 0 { format!(", {} kept by locks for now", store.locked) } else { String::new() };
        say!("  {}: {} objects deleted, {}{locked}", store.store, store.objects, HumanBytes(store.bytes));
        if let Some(error) = &store.error {
            say!("  {}: ended early, and goes on: {error}", store.store);
        }
    }
    if let Some(problem) = &plan.problem {
        say!("The last step did not work, and is tried again: {problem}");
    }
}

fn waiting_text(plan: &PrunePlan) {
    match &plan.waiting {
        Some(waiting) if !waiting.writers.is_empty() => say!(
            "Announced: waits for a new snapshot of {} by every machine that wrote it, so that no running backup relies on what \
             goes. One that has gone, or went on with a new chain, is waited for until it was silent for `retire_silent`.",
            waiting.writers.join(", ")
        ),
        Some(waiting) => say!(
            "Announced: nothing is deleted before {} and a snapshot after that. Until then `backupd prune refuse` ends it.",
            waiting.until_unix_ms.map_or_else(|| "?".to_owned(), table_time)
        ),
        None => say!("Announced in every store."),
    }
}
