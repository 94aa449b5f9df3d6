//! Deletions: what the rules keep, the plan of what goes, and the owner's decision about it.
//!
//! As with reports the owner signs on a computer of their own. Whose keys count is set in maintenance's own settings, which
//! this console cannot change: whoever breaks into it approves nothing.

use crate::accounts;
use crate::app::App;
use crate::audit::{self, Act};
use crate::daemons::{self, Daemon};
use crate::jobs::JobKind;
use crate::pages::activity;
use crate::pages::layout::Column::{Number, Text};
use crate::pages::layout::{
    Column, Mood, badge, columns, csrf, live, page as frame, sentence, when, when_exactly, when_or,
};
use crate::pages::reports::attachment;
use crate::roles::Action;
use crate::web::{Answer, Call, Refusal, page, see};
use crate::words::{bytes, count, moment, word};
use backup_report::{DeletionPlan, SignedDecision};
use backupd_api::{ClientError, Event, PrunePlan, PruneRow, PruneState, PruneStatus, Request};
use maud::{Markup, html};

const COLUMNS: &[Column] = &[Text("Snapshot"), Text("Source"), Text("Taken"), Text("Came"), Text("Why it stays")];
const GOING: &[Column] = &[Text("Snapshot"), Text("Source"), Text("Taken"), Text("Came")];
const OUTCOME: &[Column] =
    &[Text("Store"), Number("Objects deleted"), Number("Freed"), Number("Kept by locks for now"), Text("Problem")];
const SHOWN_MAX: usize = 200;
const PLANNING_EVERY_S: u32 = 3;

/// What maintenance says now; `Err`: in words, why it says nothing.
async fn ask(app: &App) -> Result<PruneStatus, String> {
    if app.settings.maintain.is_none() {
        return Err(
            "this console is not told where backupd maintain listens: set `maintain` in console.toml".to_owned()
        );
    }
    match app.daemons.ask(Daemon::Maintain, &Request::PruneStatus).await {
        Ok(Event::Prune(status)) => Ok(*status),
        Ok(_) => Err(ClientError::Malformed.to_string()),
        Err(error) => Err(daemons::reason(&error)),
    }
}

pub async fn show(call: Call) -> Answer {
    let status = ask(&call.app).await;
    let caller = call.caller()?;
    let body = html! {
        p.lead {
            "Backups are only deleted by a plan that shows what goes and why the rest stays, and that "
            strong { "two different persons" } " have signed. The newest proved backup of each store always stays."
        }
        @match &status {
            Err(reason) => {
                div.notice.bad role="alert" {
                    p { strong { "Nothing is known of deletions now." } " " (sentence(reason)) }
                    p.small { "Nothing is deleted while maintenance does not run." }
                }
            }
            Ok(status) if !status.enabled => {
                p.empty { "This practice deletes no backup: the settings of maintenance have no [prune]." }
            }
            Ok(status) => {
                // Only this part refreshes itself: a file that was chosen below stays chosen.
                (live("plan-job", "/deletions", PLANNING_EVERY_S, activity::of_kind(&call.app, JobKind::Plan)))
                @match &status.plan {
                    Some(plan) => { (plan_block(&call, status, plan)?) }
                    None => {
                        p.empty {
                            "There is no plan yet. "
                            @if let Some(at) = status.next_plan_unix_ms {
                                "The next one is made by the schedule on " (moment(at, call.app.settings.time_zone)) "."
                            }
                        }
                    }
                }
                @if caller.role.may(Action::PlanDeletion) {
                    form method="post" action="/deletions/plan" {
                        (csrf(caller))
                        button { "Make a new plan now" }
                        " " span.small { "A plan changes nothing; it takes the place of one that is not approved yet." }
                    }
                }
                (policy(status))
            }
        }
    };
    page(frame(&call.app, caller, "/deletions", "Deletions", body))
}

fn policy(status: &PruneStatus) -> Markup {
    html! {
        section.policy {
            h2 { "What is kept" }
            @if status.rules.is_empty() { p { "No rule is set: every snapshot stays." } }
            @else {
                p { "A snapshot goes only when none of these keeps it:" }
                ul { @for rule in &status.rules { li { (rule) } } }
            }
            @if !status.holds.is_empty() {
                h3 { "Holds" }
                ul { @for hold in &status.holds { li { (hold) } } }
            }
            h3 { "Who may approve" }
            @if status.approvers.len() < 2 {
                p {
                    (badge(Mood::Warn, "Too few"))
                    " Two persons are needed, and maintenance knows " (count(status.approvers.len() as u64, "key", "keys"))
                    ". Whoever keeps the settings of maintenance adds [[prune.approver]] with a name and a fingerprint."
                }
            }
            ul {
                @for approver in &status.approvers {
                    li { strong { (approver.name) } ", key " code.wrap { (approver.fingerprint) } }
                }
            }
        }
    }
}

fn state(plan: &PrunePlan) -> (Mood, &'static str) {
    match plan.state {
        PruneState::Proposed => (Mood::Warn, "Waits for approval"),
        PruneState::Approved => (Mood::Good, "Approved"),
        PruneState::Announced => (Mood::Good, "Announced"),
        PruneState::Deleting => (Mood::Warn, "Carried out, locks keep something"),
        PruneState::Done => (Mood::Good, "Carried out"),
        PruneState::Refused => (Mood::Bad, "Refused"),
        PruneState::Empty => (Mood::Plain, "Nothing to delete"),
    }
}

fn plan_block(call: &Call, status: &PruneStatus, plan: &PrunePlan) -> Result<Markup, Refusal> {
    let app = &call.app;
    let (mood, state_word) = state(plan);
    let Ok(document) = DeletionPlan::parse(plan.document.as_bytes()) else {
        return Ok(html! {
            div.notice.bad role="alert" { p { "The plan's text cannot be read: install the same release everywhere." } }
        });
    };
    let (going, kept): (Vec<&PruneRow>, Vec<&PruneRow>) = plan.rows.iter().partition(|row| row.goes);
    Ok(html! {
        section.plan {
            h2 { "The plan" }
            p { (badge(mood, state_word)) " made " (when(app, plan.made_unix_ms)) ", id " code { (plan.id) } }
            @for trip in &document.trips {
                div.notice.bad role="alert" {
                    p {
                        strong { "This looks like an attack: " } (word(&trip.kind)) " in " (trip.source) ", "
                        (trip.before) " before, " (trip.after) " now."
                    }
                    p.small { "Look at the newest snapshots first. As long as two persons have not approved, every old one stays." }
                }
            }
            @for note in &plan.notes {
                div.notice.warn role="status" { p { strong { (sentence(note)) } " Is it spelled right?" } }
            }
            @if let Some(problem) = &plan.problem {
                div.notice.warn role="status" { p { strong { "The last step did not work." } " " (sentence(problem)) } }
            }
            (figures(&document))
            (progress(app, plan))
            (decisions(app, plan))
            @if call.caller()?.role.may(Action::DecideDeletion) && may_be_decided(plan) {
                (decide_form(call, status, plan)?)
            }
            @if !going.is_empty() { (table(app, "go", GOING, &going)) }
            @if !kept.is_empty() {
                details {
                    summary { (plan.kept) " stay, and why" }
                    (table(app, "stay", COLUMNS, &kept))
                }
            }
        }
    })
}

/// Until a plan is carried out, one refusal ends it.
fn may_be_decided(plan: &PrunePlan) -> bool {
    plan.needed > 0 && (plan.state == PruneState::Proposed || is_under_way(plan))
}

fn is_under_way(plan: &PrunePlan) -> bool {
    matches!(plan.state, PruneState::Approved | PruneState::Announced)
}

fn figures(document: &DeletionPlan) -> Markup {
    let figures = &document.figures;
    let dollars = |millionths: u64| format!("${:.2}", millionths as f64 / 1e6);
    html! {
        dl.facts {
            dt { "Snapshots" } dd { (document.going.len()) " of " (document.snapshots) " go" }
            dt { "Freed" } dd { (bytes(figures.bytes_freed)) " over all stores" }
            dt { "Packs" } dd {
                (figures.packs) " (" (bytes(figures.pack_bytes)) " in each store), " (figures.packs_rewritten)
                " of them written anew for " (bytes(figures.rewritten_bytes)) " that is still used"
            }
            dt { "Requests" } dd {
                (figures.puts) " writes, " (figures.gets) " reads, " (figures.lists) " listings, " (figures.deletes)
                " deletions"
            }
            dt { "Cost at a large provider" } dd {
                (dollars(figures.cost_millionths)) " once, " (dollars(figures.saved_millionths_per_month)) " a month less"
            }
        }
    }
}

fn progress(app: &App, plan: &PrunePlan) -> Markup {
    html! {
        @if let Some(waiting) = &plan.waiting {
            p {
                "Nothing is deleted yet: "
                @if waiting.writers.is_empty() {
                    "the grace ends " (when_or(app, waiting.until_unix_ms, "soon")) ", and a snapshot has to follow it."
                } @else {
                    "a new snapshot of " (waiting.writers.join(", ")) " has to come first, so that no running backup relies on \
                     what goes."
                }
            }
        }
        @if !plan.stores.is_empty() {
            div.scroll {
                table {
                    (columns(OUTCOME))
                    tbody { @for store in &plan.stores {
                        tr {
                            td { (store.store) }
                            td.number { (store.objects) }
                            td.number { (bytes(store.bytes)) }
                            td.number { (store.locked) }
                            td { (store.error.as_deref().map_or_else(|| "none".to_owned(), sentence)) }
                        }
                    } }
                }
            }
        }
    }
}

fn decisions(app: &App, plan: &PrunePlan) -> Markup {
    let approvals = plan.decisions.iter().filter(|decision| decision.approved).count();
    html! {
        h3 { "Approval" }
        @if plan.needed == 0 { p { "No snapshot goes, so nobody has to approve." } }
        @else { p { (approvals) " of " (plan.needed) " persons have approved." } }
        @for decision in &plan.decisions {
            p {
                @if decision.approved { (badge(Mood::Good, "Approved")) } @else { (badge(Mood::Bad, "Refused")) }
                " by " strong { (decision.approver.as_deref().unwrap_or("somebody who is no approver any more")) } ", "
                (when(app, decision.signed_unix_ms)) ". Key " code.wrap { (decision.fingerprint) }
            }
        }
        @if plan.recorded { p.small { "Plan and decisions stand in the signed log of reports, in every store." } }
    }
}

fn table(app: &App, what: &str, heads: &[Column], rows: &[&PruneRow]) -> Markup {
    html! {
        div.scroll {
            table {
                caption {
                    "Snapshots that " (what) ", newest first"
                    @if rows.len() > SHOWN_MAX { "; " (SHOWN_MAX) " of " (rows.len()) " are shown, the plan's text has all" }
                }
                (columns(heads))
                tbody { @for row in rows.iter().take(SHOWN_MAX) {
                    tr {
                        td { (activity::id(&row.id)) }
                        td { (row.source) }
                        td { (when_exactly(app, row.taken_unix_ms)) }
                        td { (when_exactly(app, row.received_unix_ms)) }
                        @if !row.goes { td { (row.reasons.join("; ")) } }
                    }
                } }
            }
        }
    }
}

fn decide_form(call: &Call, status: &PruneStatus, plan: &PrunePlan) -> Result<Markup, Refusal> {
    let caller = call.caller()?;
    let keys = call.app.db.read(accounts::approval_keys)?;
    let key = keys.iter().find(|(name, _)| *name == caller.name).map(|(_, key)| key.as_str());
    let counts = |key: &str| status.approvers.iter().any(|approver| approver.fingerprint == key);
    let decided = plan.decisions.iter().any(|decision| Some(decision.fingerprint.as_str()) == key);
    Ok(html! {
        div.card #decide {
            h3 { @if is_under_way(plan) { "End this plan" } @else { "Your decision" } }
            @match key {
                None => {
                    p { strong { "First, once: enrol your key." } " On your computer:" }
                    pre {
                        code {
                            "openssl genpkey -algorithm ed25519 -out owner.pem\nopenssl pkey -in owner.pem -pubout -out \
                             owner.pub"
                        }
                    }
                    form method="post" action="/approval-key" enctype="multipart/form-data" {
                        (csrf(caller))
                        input type="hidden" name="back" value="deletions";
                        label { "Public key (owner.pub)" input type="file" name="key" required; }
                        button.primary { "Enrol this key" }
                    }
                }
                Some(key) if !counts(key) => {
                    p {
                        (badge(Mood::Warn, "Not an approver"))
                        " Maintenance does not know your key yet. Whoever keeps its settings adds this, on its own machine:"
                    }
                    pre { code { "[[prune.approver]]\nname = \"" (caller.name) "\"\nfingerprint = \"" (key) "\"" } }
                    p.small { "This console cannot do that: whoever breaks into it must not gain a vote." }
                }
                Some(key) => {
                    @if is_under_way(plan) {
                        p { "Two persons have approved it. Until it is carried out, one who refuses it ends it: nothing is deleted." }
                    } @else if decided {
                        p { "You have decided. A second, different person has to decide too. Should you think better of it, refuse it." }
                    }
                    ol {
                        li { a href="/deletions/plan.json" { "Download the plan" } ", and look at what goes." }
                        li {
                            "On your computer"
                            @if !is_under_way(plan) { ", " code { "approved" } " or " code { "refused" } }
                            ":" pre {
                                code {
                                    "report-verify decide plan.json --key owner.pem --decision "
                                    @if is_under_way(plan) || decided { "refused" } @else { "approved" }
                                    " --out decision.json"
                                }
                            }
                        }
                        li {
                            form method="post" action="/deletions/decision" enctype="multipart/form-data" {
                                (csrf(caller))
                                label { "Decision (decision.json)" input type="file" name="decision" required; }
                                button.primary { "Send the decision" }
                            }
                        }
                    }
                    p.small { "Your enrolled key: " code.wrap { (key) } }
                }
            }
        }
    })
}

fn unavailable(reason: &str) -> Refusal {
    Refusal::Unavailable(format!("maintenance did not answer: {reason}. Nothing is deleted meanwhile"))
}

/// The plan's exact text, to be signed.
pub async fn document(call: Call) -> Answer {
    let status = ask(&call.app).await.map_err(|reason| unavailable(&reason))?;
    let plan = status.plan.ok_or(Refusal::NotFound)?;
    let who = &call.caller()?.name;
    call.app.db.write(|tx| audit::append(tx, call.app.now_ms(), who, Act::EvidenceDownloaded, &plan.id))?;
    attachment("plan.json", "application/json", plan.document.into_bytes())
}

pub async fn decide(call: Call) -> Answer {
    let who = call.caller()?.name.clone();
    let decision = call.file("decision").to_vec();
    let (text, plan) = match own_decision(&call, &who, &decision)? {
        Ok(found) => found,
        Err(reason) => {
            call.app.db.write(|tx| audit::append(tx, call.app.now_ms(), &who, Act::DecisionRefused, ""))?;
            return Err(Refusal::Bad(reason));
        }
    };
    let record = |act| call.app.db.write(|tx| audit::append(tx, call.app.now_ms(), &who, act, &plan));
    match call.app.daemons.ask(Daemon::Maintain, &Request::PruneDecide { decision: text }).await {
        Ok(Event::Prune(_)) => {
            record(Act::DeletionDecided)?;
            crate::poll::maintain(&call.app).await?;
            see("/deletions")
        }
        Ok(_) => Err(unavailable(&ClientError::Malformed.to_string())),
        Err(ClientError::Failed(failure)) => {
            record(Act::DecisionRefused)?;
            Err(Refusal::Bad(failure.message))
        }
        Err(error) => Err(unavailable(&daemons::reason(&error))),
    }
}

/// Whether the decision is signed by the key that this owner has enrolled; gives its text and its plan's id.
fn own_decision(call: &Call, who: &str, bytes: &[u8]) -> Result<Result<(String, String), String>, Refusal> {
    let keys = call.app.db.read(accounts::approval_keys)?;
    let Some((_, enrolled)) = keys.iter().find(|(name, _)| name == who) else {
        return Ok(Err("enrol your key first".to_owned()));
    };
    let decision = match SignedDecision::parse(bytes) {
        Ok(decision) => decision,
        Err(error) => return Ok(Err(format!("{error}: send the file that `report-verify decide` wrote"))),
    };
    if decision.fingerprint().to_string() != *enrolled {
        return Ok(Err("this decision was not signed with the key that you enrolled".to_owned()));
    }
    let text = String::from_utf8(bytes.to_vec()).map_err(|_| Refusal::Internal)?;
    Ok(Ok((text, decision.plan_id().as_str().to_owned())))
}
