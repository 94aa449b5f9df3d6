//! The questions that keep the practice's owner awake, answered in plain words from what the daemons last said.

use crate::alerts::state::{self, AlertRow};
use crate::app::App;
use crate::daemons::{Picture, ServeView, VerifierView};
use crate::pages::layout::Column::{Number, Text};
use crate::pages::layout::{Column, Mood, badge, columns, csrf, live, page as frame, silence, when, when_or};
use crate::pages::{activity, alerts, snapshots};
use crate::roles::Action;
use crate::web::{Answer, Call, Refusal, page};
use crate::words::{bytes, count, duration, future, span};
use backupd_api::{
    Baa, Duty, DutyKind, MaintainStore, ReportRow, SnapshotState, StoreCondition, StoreProtection, StoreRole,
    StoreStatus,
};
use maud::{Markup, html};

const STORE_COLUMNS: &[Column] = &[
    Text("Store"),
    Text("Site"),
    Text("Provider"),
    Text("Apart from the server"),
    Text("State"),
    Text("Complete up to"),
    Text("Counts"),
    Number("Size"),
];
const MAINTAIN_COLUMNS: &[Column] = &[
    Text("Store"),
    Text("State"),
    Text("Looked at"),
    Text("All read since"),
    Number("Overdue"),
    Number("Missing"),
    Number("Corrupt"),
    Number("Healed"),
];
const DRILL_COLUMNS: &[Column] = &[
    Text("Restored from"),
    Text("Last drill"),
    Text("Verdict"),
    Number("Time to recover"),
    Number("Work lost"),
    Text("Report"),
];

/// Refresh while something runs, and otherwise.
const BUSY_EVERY_S: u32 = 2;
const IDLE_EVERY_S: u32 = 10;

pub async fn show(call: Call) -> Answer {
    let app = &call.app;
    let picture = app.pictures.now();
    let open = app.db.read(|db| Ok::<_, Refusal>(state::open(db)?))?;
    let busy = activity::busy(app, &picture);
    let caller = call.caller()?;
    let (serve, verifier) = (picture.serve.value(), picture.verifier.value());
    let body = html! {
        @if caller.role.may(Action::StartBackup) || caller.role.may(Action::StartDrill) { (buttons(&call, serve)?) }
        (live("posture", "/", if busy { BUSY_EVERY_S } else { IDLE_EVERY_S }, html! {
            (verdict(app, &picture, &open))
            (silence(app, &picture.serve, "backupd serve", "No backup is taken while it is down."))
            (silence(app, &picture.verifier, "backupd verifier", "No drill runs while it is down."))
            @if app.settings.maintain.is_some() {
                (silence(app, &picture.maintain, "backupd maintain", "Damage is not looked for while it is down."))
            }
            div.questions {
                (building(app, serve))
                section.card #activity { h2 { "What is running?" } (activity::block(app, &picture)) }
                section.card.wide #alerts { h2 { "What is wrong now?" } (alerts::brief(app, &open)) }
                (plan(app, serve, verifier))
                (baskets(app, serve))
                (whole(app, &picture))
                (responsible(serve))
            }
        }))
    };
    page(frame(app, caller, "/", "Posture", body))
}

/// The answer in one sentence.
fn verdict(app: &App, picture: &Picture, open: &[AlertRow]) -> Markup {
    let worst = open.iter().map(|alert| Mood::from(alert.severity)).max();
    let Some(serve) = picture.serve.value() else {
        return html! {
            div.verdict.warn { p.big { "Not known: backupd serve has not answered yet." } }
        };
    };
    let status = &serve.status;
    let durable = status.last_durable_unix_ms;
    let (mood, text) = match (durable, status.sites_apart, picture.serve.silent.is_some(), worst) {
        (None, ..) => (Mood::Bad, "Not protected: no backup is complete off this server yet."),
        (_, 0, ..) => (
            Mood::Bad,
            "Not protected against loss of the building: every complete copy stands where the server stands.",
        ),
        (_, _, true, _) => (Mood::Bad, "Not known: the backup program does not answer."),
        (_, _, _, Some(Mood::Bad)) => (Mood::Bad, "Needs you now: something critical is open."),
        (_, _, _, Some(_)) => (Mood::Warn, "Protected, with something to look after."),
        _ => (Mood::Good, "Protected."),
    };
    html! {
        div.verdict.(mood.class()) {
            p.big { (text) }
            p {
                "Newest safe backup: " strong { (when_or(app, durable, "none")) } ". "
                "Sites apart from the server that hold it: " strong { (status.sites_apart) } ". "
                @if let Some(newest) = status.last_snapshot.as_ref().filter(|row| row.state < SnapshotState::Durable) {
                    "The newest backup of " (when(app, newest.taken_unix_ms)) " is not safe yet: " (snapshots::state(newest)) ". "
                }
                @if let Some(spool) = status.spool.as_ref().filter(|spool| spool.bytes > 0) {
                    (bytes(spool.bytes)) " of " (bytes(spool.bytes_max)) " wait on the server's own disk for a store"
                    @if let Some(since) = spool.since_unix_ms { ", the oldest backup since " (when(app, since)) }
                    ". "
                }
                @if !open.is_empty() {
                    a href="/alerts" { (count(open.len() as u64, "alert is", "alerts are")) " open" } "."
                }
            }
        }
    }
}

fn building(app: &App, serve: Option<&ServeView>) -> Markup {
    html! {
        section.card #building {
            h2 { "What if the building burns?" }
            @match serve {
                None => p { "Not known until backupd serve answers." }
                Some(view) => {
                    @let apart: Vec<&StoreStatus> = view.status.stores.iter().filter(|store| store.apart).collect();
                    @match apart.iter().filter_map(|store| store.complete_unix_ms).max() {
                        Some(at) if future(at, app.now_ms()) => {
                            p.answer {
                                (badge(Mood::Warn, "Not known"))
                                " The newest complete copy away from this building carries a time "
                                (when(app, at)) "."
                            }
                        }
                        Some(at) => {
                            p.answer {
                                "You would lose at most the last " strong { (span(app.now_ms() - at)) } " of work."
                            }
                            p { "The newest complete copy away from this building is from " (when(app, at)) "." }
                        }
                        None => p.answer {
                            (badge(Mood::Bad, "Everything would be lost"))
                            " No complete copy stands away from this building."
                        }
                    }
                    @match view.status.sites_apart {
                        0 => {}
                        sites => p {
                            (count(sites.into(), "site", "sites")) " apart from the server " @if sites == 1 {
                                "holds"
                            } @else { "hold" } " the newest safe backup."
                        }
                    }
                    p.small {
                        "A backup counts as safe when it is complete in at least "
                        (count(view.status.quorum_needed.into(), "store that counts", "stores that count")) "."
                    }
                }
            }
        }
    }
}

fn baskets(app: &App, serve: Option<&ServeView>) -> Markup {
    html! {
        section.card.wide #baskets {
            h2 { "Are all eggs in one basket?" }
            @match serve {
                None => p { "Not known until backupd serve answers." }
                Some(view) => {
                    (spread(&view.status.stores))
                    div.scroll { table {
                        (columns(STORE_COLUMNS))
                        tbody { @for store in &view.status.stores { (store_row(app, store)) } }
                    } }
                }
            }
        }
    }
}

/// What maintenance saw of the sealed objects, and what it put right.
fn whole(app: &App, picture: &Picture) -> Markup {
    let Some(status) = picture.maintain.value() else { return html! {} };
    html! {
        section.card.wide #whole {
            h2 { "Is what lies there still whole?" }
            div.scroll { table {
                (columns(MAINTAIN_COLUMNS))
                tbody { @for store in &status.stores { (maintain_row(app, store)) } }
            } }
            @if let Some(last) = status.healed.first() {
                p.small {
                    "Last healed: object " (activity::id(&last.object)) " at " (last.store) ", from " (last.from) ", "
                    (when(app, last.at_unix_ms))
                }
            }
        }
    }
}

fn maintain_row(app: &App, store: &MaintainStore) -> Markup {
    html! {
        tr {
            th scope="row" { (store.store) }
            td {
                @match store.condition {
                    StoreCondition::Unknown => (badge(Mood::Warn, "Not looked at yet")),
                    StoreCondition::Ok if store.looked_unix_ms.is_none() => (badge(Mood::Warn, "Not looked at yet")),
                    StoreCondition::Ok => (badge(Mood::Good, "OK")),
                    StoreCondition::Unreachable => (badge(Mood::Bad, "Unreachable")),
                    StoreCondition::Late => (badge(Mood::Warn, "Late")),
                    StoreCondition::Missing => (badge(Mood::Bad, "An object is missing")),
                    StoreCondition::Corrupt => (badge(Mood::Bad, "An object is corrupt")),
                }
                @if let Some(object) = store.left.first() { br; span.small { "object " (activity::id(object)) } }
            }
            td { (when_or(app, store.looked_unix_ms, "never")) }
            td { (when_or(app, store.verified_since_unix_ms, "not all yet")) }
            td.number { (store.overdue) }
            td.number { (store.missing) }
            td.number { (store.corrupt) }
            td.number { (store.healed_ever) }
        }
    }
}

fn spread(stores: &[StoreStatus]) -> Markup {
    let distinct = |of: fn(&StoreStatus) -> &str| {
        let mut found: Vec<&str> = stores.iter().filter(|store| store.apart).map(of).collect();
        found.sort_unstable();
        found.dedup();
        found.len() as u64
    };
    let (sites, providers) = (distinct(|store| &store.site), distinct(|store| &store.provider));
    html! {
        p.answer {
            @match (sites, providers) {
                (0, _) => { (badge(Mood::Bad, "Yes")) " No store stands apart from the server." }
                (1, _) => {
                    (badge(Mood::Warn, "Nearly"))
                    " Only one site apart from the server: one fire there and one here would take both."
                }
                (_, 1) => {
                    (badge(Mood::Warn, "Nearly")) " " (sites)
                    " sites apart from the server, but one provider: one closed account would take them all."
                }
                _ => {
                    (badge(Mood::Good, "No")) " " (sites) " sites and " (providers)
                    " providers apart from the server."
                }
            }
        }
    }
}

fn store_row(app: &App, store: &StoreStatus) -> Markup {
    html! {
        tr {
            th scope="row" { (store.name) br; span.small { (store.kind) } }
            td { (store.site) }
            td {
                (store.provider)
                @if let Some(region) = &store.region { br; span.small { (region) } }
                @if let Some(account) = &store.account { br; span.small { "account " (account) } }
                @if let Some(baa) = &store.baa { br; (agreement(baa)) }
            }
            td { @if store.apart { (badge(Mood::Good, "Yes")) } @else { (badge(Mood::Warn, "No")) } }
            td {
                (condition(store))
                @if store.protection == StoreProtection::Unprotected { br; (badge(Mood::Bad, "Unprotected")) }
                @if store.protection == StoreProtection::Locked { br; span.small { "locked" } }
                @if store.protection == StoreProtection::Refused { br; span.small { "cannot be overwritten or deleted" } }
                @if let Some(object) = &store.object { br; span.small { "object " (activity::id(object)) } }
            }
            td { (when_or(app, store.complete_unix_ms, "nothing yet")) }
            td {
                @if store.role == StoreRole::Quorum { (activity::role(store.role)) }
                @else { span.small { (activity::role(store.role)) } }
                @if let Some(window) = &store.upload_window { br; span.small { "sent to " (window) } }
            }
            td.number { (store.bytes.map_or_else(|| "–".to_owned(), bytes)) }
        }
    }
}

fn agreement(baa: &Baa) -> Markup {
    html! {
        @if baa.expired { (badge(Mood::Bad, "BAA expired")) } @else { span.small { "BAA until" } }
        " " span.small title=(baa.reference) { (baa.until) }
    }
}

fn condition(store: &StoreStatus) -> Markup {
    match store.condition {
        StoreCondition::Ok if store.lost_unix_ms.is_some() => badge(Mood::Warn, "Had lost objects"),
        StoreCondition::Ok => badge(Mood::Good, "OK"),
        StoreCondition::Unknown => badge(Mood::Warn, "Not asked yet"),
        StoreCondition::Unreachable => badge(Mood::Bad, "Unreachable"),
        StoreCondition::Late => {
            let behind = match store.lag_snapshots {
                0 => "Late".to_owned(),
                n => {
                    let time = i64::try_from(store.lag_ms).unwrap_or(i64::MAX);
                    format!("Late by {}, {}, {}", count(n, "snapshot", "snapshots"), bytes(store.lag_bytes), span(time))
                }
            };
            badge(Mood::Warn, &behind)
        }
        StoreCondition::Missing => badge(Mood::Bad, "An object is missing"),
        StoreCondition::Corrupt => badge(Mood::Bad, "An object is corrupt"),
    }
}

fn plan(app: &App, serve: Option<&ServeView>, verifier: Option<&VerifierView>) -> Markup {
    let reports = verifier.map(|view| view.reports.as_slice()).unwrap_or_default();
    let stores: Vec<&str> = match serve {
        Some(view) => view.status.stores.iter().map(|store| store.name.as_str()).collect(),
        None => Vec::new(),
    };
    html! {
        section.card.wide #plan {
            h2 { "Does the plan work?" }
            @if verifier.is_none() { p { "Not known until backupd verifier answers." } }
            @else {
                (proof(&stores, reports))
                div.scroll { table {
                    (columns(DRILL_COLUMNS))
                    tbody { @for store in stores { (drill_row(app, store, newest(reports, store))) } }
                } }
            }
        }
    }
}

fn newest<'a>(reports: &'a [ReportRow], store: &str) -> Option<&'a ReportRow> {
    reports.iter().find(|report| report.store == store)
}

fn proof(stores: &[&str], reports: &[ReportRow]) -> Markup {
    let last: Vec<Option<Mood>> =
        stores.iter().map(|store| newest(reports, store).map(|report| activity::verdict(report.verdict).0)).collect();
    let passed = last.iter().filter(|mood| **mood == Some(Mood::Good)).count();
    html! {
        p.answer {
            @if stores.is_empty() { "No store is known yet." }
            @else if last.contains(&Some(Mood::Bad)) {
                (badge(Mood::Bad, "Not from every store"))
                " The last drill of at least one store failed: do not count on that store."
            }
            @else if passed == stores.len() {
                (badge(Mood::Good, "Yes")) " From each of the " (stores.len())
                " stores alone the EMR was brought back and gave the same answers."
            }
            @else {
                (badge(Mood::Warn, "Not fully proved")) " " (passed) " of " (stores.len())
                " stores have passed their last drill."
            }
        }
    }
}

fn drill_row(app: &App, store: &str, report: Option<&ReportRow>) -> Markup {
    html! {
        tr {
            th scope="row" { (store) }
            @match report {
                None => { td colspan="5" { (badge(Mood::Warn, "Never drilled")) } }
                Some(report) => {
                    @let (mood, word) = activity::verdict(report.verdict);
                    td { (when(app, report.at_unix_ms)) }
                    td { (badge(mood, word)) }
                    td.number { (report.rto_ms.map_or_else(|| "not measured".to_owned(), duration)) }
                    td.number { (report.rpo_ms.map_or_else(|| "not measured".to_owned(), duration)) }
                    td {
                        a href={ "/reports/" (report.id) } { "Open" span.unseen { " the report of " (store) } }
                        @if report.approved { " " span.small { "approved" } }
                    }
                }
            }
        }
    }
}

fn responsible(serve: Option<&ServeView>) -> Markup {
    html! {
        section.card.wide #duties {
            h2 { "Who is responsible for the backup?" }
            @match serve {
                None => p { "Not known until backupd serve answers." }
                Some(view) => {
                    @let gaps = view.duties.iter().filter(|duty| duty.unassigned || duty.overdue).count() as u64;
                    p.answer {
                        @if view.duties.is_empty() { (badge(Mood::Bad, "Nobody")) " No duty is named in the settings." }
                        @else if gaps == 0 { (badge(Mood::Good, "Everybody is named")) }
                        @else {
                            (badge(Mood::Bad, &count(gaps, "gap", "gaps")))
                            " A duty without a name, or past its review date, is nobody's."
                        }
                    }
                    div.scroll { table {
                        (columns(&[Text("Duty"), Text("Party"), Text("Deputy"), Text("Phone"), Text("Next review")]))
                        tbody { @for duty in &view.duties { (duty_row(duty)) } }
                    } }
                    p.small {
                        "SHA-256 of this list, as restore reports name it: " code.wrap { (view.duties_sha256) }
                    }
                }
            }
        }
    }
}

fn duty_row(duty: &Duty) -> Markup {
    let cell = |text: &str| {
        html! { td.gap[text.is_empty()] { @if text.is_empty() { (badge(Mood::Bad, "Nobody")) } @else { (text) } } }
    };
    html! {
        tr {
            th scope="row" { (duty_name(duty.kind)) @if let Some(store) = &duty.store { " " (store) } }
            (cell(&duty.party))
            (cell(&duty.deputy))
            td.phone.gap[duty.phone.is_empty()] {
                @if duty.phone.is_empty() { (badge(Mood::Bad, "Missing")) } @else { (duty.phone) }
            }
            td.gap[duty.overdue || duty.review.is_empty()] {
                @if duty.review.is_empty() { (badge(Mood::Bad, "No date")) }
                @else if duty.overdue { (badge(Mood::Bad, &format!("{}: overdue", duty.review))) }
                @else { (duty.review) }
            }
        }
    }
}

fn duty_name(kind: DutyKind) -> &'static str {
    match kind {
        DutyKind::Backup => "Backups run",
        DutyKind::Restore => "Restoring in an emergency",
        DutyKind::Keys => "Keys and recovery kit",
        DutyKind::Hardware => "Hardware in the data center",
        DutyKind::StoreContract => "Contract of the store",
        DutyKind::ReportApproval => "Approving restore reports",
    }
}

fn buttons(call: &Call, serve: Option<&ServeView>) -> Result<Markup, Refusal> {
    let caller = call.caller()?;
    let stores = serve.map(|view| view.status.stores.as_slice()).unwrap_or_default();
    Ok(html! {
        section.actions aria-label="Start something" {
            div.row {
                @if caller.role.may(Action::StartBackup) {
                    form method="post" action="/start/backup" { (csrf(caller)) button.primary { "Start a backup now" } }
                }
                @if caller.role.may(Action::StartDrill) {
                    form.row method="post" action="/start/drill" {
                        (csrf(caller))
                        label.inline {
                            span { "Restore drill from" }
                            select name="store" {
                                option value="" { "the store whose turn it is" }
                                @for store in stores { option value=(store.name) { (store.name) } }
                            }
                        }
                        button { "Start the drill" }
                    }
                }
            }
            p.small { "Neither stops the EMR, and both go on when you close this page." }
        }
    })
}
