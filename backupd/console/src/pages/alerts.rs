//! Open and past alerts, and whether the channels work.

use crate::alerts::deliver::{ChannelHealth, health};
use crate::alerts::state::{self, AlertRow, Channel};
use crate::alerts::text::{remedy, severity_word, title};
use crate::app::App;
use crate::heartbeat::HeartbeatState;
use crate::pages::layout::Column::{Number, Text};
use crate::pages::layout::{Column, Mood, badge, columns, csrf, lasting, live, page as frame, sentence, when, when_or};
use crate::roles::Action;
use crate::web::{Answer, Call, Refusal, page, see};
use crate::words::{count, span};
use backupd_api::AlertKind;
use maud::{Markup, html};

const CHANNEL_COLUMNS: &[Column] =
    &[Text("Channel"), Text("State"), Text("Last success"), Number("Sent"), Number("Waiting"), Number("Given up")];
const PAST_COLUMNS: &[Column] =
    &[Text("Alert"), Text("Concerns"), Text("Opened"), Text("Acknowledged"), Text("Closed"), Text("Open for")];

const PAST_MAX: u32 = 100;

pub async fn show(call: Call) -> Answer {
    let app = &call.app;
    let (open, closed, mail, hook) = app.db.read(|db| {
        let open = state::open(db)?;
        let closed = state::closed(db, PAST_MAX)?;
        Ok::<_, Refusal>((open, closed, health(db, Channel::Mail)?, health(db, Channel::Webhook)?))
    })?;
    let caller = call.caller()?;
    let body = html! {
        (live("open", "/alerts", 10, html! {
            h2 { "Open" }
            @if open.is_empty() { p.empty.good { (badge(Mood::Good, "Nothing is open")) } }
            div.cards { @for alert in &open { (open_card(&call, alert)?) } }
        }))
        h2 { "How alerts reach you" }
        (channels(&call, &mail, &hook))
        @if caller.role.may(Action::TestAlert) {
            form.after method="post" action="/alerts/test" {
                (csrf(caller))
                button { "Send a test alert" }
                " " span.small { "It goes through every channel, and closes when somebody acknowledges it." }
            }
        }
        h2 { "Closed" }
        @if closed.is_empty() { p.empty { "No alert has been closed yet." } } @else { (past(app, &closed)) }
    };
    page(frame(app, caller, "/alerts", "Alerts", body))
}

fn open_card(call: &Call, alert: &AlertRow) -> Result<Markup, Refusal> {
    let caller = call.caller()?;
    let mood = Mood::from(alert.severity);
    Ok(html! {
        article.card.alert.(mood.class()) {
            h3 { (badge(mood, severity_word(alert.severity))) " " (title(alert.kind)) }
            p {
                @if !alert.subject.is_empty() { "Concerns " strong { (alert.subject) } ". " }
                "For " (lasting(&call.app, alert.since_ms)) "."
                @if alert.repeats > 0 {
                    " Sent again " (count(u64::try_from(alert.repeats).unwrap_or(0), "time", "times")) "."
                }
            }
            p { strong { "What to do: " } (remedy(alert.kind)) }
            @match (&alert.acknowledged_by, alert.acknowledged_ms) {
                (Some(who), Some(at)) => p {
                    (badge(Mood::Plain, "Acknowledged")) " by " strong { (who) } " " (when(&call.app, at))
                    "; it is not sent again until it closes."
                }
                _ => {
                    @if caller.role.may(Action::AcknowledgeAlert) {
                        form method="post" action={ "/alerts/" (alert.id) "/acknowledge" } {
                            (csrf(caller))
                            button { "I have it in hand" span.unseen { ": " (title(alert.kind)) } }
                        }
                    } @else { p.small { "Nobody has acknowledged it yet." } }
                }
            }
        }
    })
}

fn channels(call: &Call, mail: &ChannelHealth, hook: &ChannelHealth) -> Markup {
    let app = &call.app;
    html! {
        table.tight {
            (columns(CHANNEL_COLUMNS))
            tbody {
                (channel(app, "Mail", app.settings.mail.is_some(), mail))
                (channel(app, "Webhook", app.settings.webhook.is_some(), hook))
                (heartbeat(app))
            }
        }
        @if app.settings.mail.is_none() && app.settings.webhook.is_none() {
            p.notice.bad role="alert" {
                strong { "No alert leaves this console." } " Set " code { "[mail]" } " or " code { "[webhook]" }
                " in console.toml."
            }
        }
    }
}

fn channel(app: &App, name: &str, set: bool, health: &ChannelHealth) -> Markup {
    html! {
        tr {
            th scope="row" { (name) }
            td {
                @if !set { (badge(Mood::Plain, "Not set")) }
                @else if health.waiting > 0 && health.last_error.is_some() {
                    (badge(Mood::Bad, "Failing")) " " span.small {
                        (sentence(health.last_error.as_deref().unwrap_or_default()))
                    }
                }
                @else if health.sent == 0 { (badge(Mood::Plain, "Not tried yet")) }
                @else { (badge(Mood::Good, "Works")) }
            }
            td { (when_or(app, health.last_sent_ms, "never")) }
            td.number { (health.sent) } td.number { (health.waiting) } td.number { (health.gave_up) }
        }
    }
}

fn heartbeat(app: &App) -> Markup {
    let state = app.heartbeat.as_ref().map(|heartbeat| heartbeat.state());
    let HeartbeatState { sent, failed, last_sent_ms, last_error, .. } = state.clone().unwrap_or_default();
    html! {
        tr {
            th scope="row" { "Heartbeat to an outside watcher" }
            td {
                @if state.is_none() { (badge(Mood::Plain, "Not set")) }
                @else if let Some(error) = &last_error {
                    (badge(Mood::Bad, "Failing")) " " span.small { (sentence(error)) }
                }
                @else if sent == 0 { (badge(Mood::Plain, "Nothing to tell since the console started")) }
                @else { (badge(Mood::Good, "Works")) }
            }
            td { (when_or(app, last_sent_ms, "never")) }
            td.number { (sent) } td.number { "–" } td.number { (failed) }
        }
    }
}

fn past(app: &App, closed: &[AlertRow]) -> Markup {
    html! {
        div.scroll { table {
            (columns(PAST_COLUMNS))
            tbody { @for alert in closed {
                tr {
                    td { (badge(Mood::from(alert.severity), severity_word(alert.severity))) " " (title(alert.kind)) }
                    td { @if alert.subject.is_empty() { "–" } @else { (alert.subject) } }
                    td { (when(app, alert.opened_ms)) }
                    td { @match &alert.acknowledged_by { Some(who) => { (who) }, None => "nobody" } }
                    td { (when_or(app, alert.closed_ms, "–")) }
                    td { (alert.closed_ms.map_or_else(String::new, |closed| span(closed - alert.opened_ms))) }
                }
            } }
        } }
    }
}

/// Open alerts in short, for the posture page.
pub fn brief(app: &App, open: &[AlertRow]) -> Markup {
    html! {
        @if open.is_empty() { p { (badge(Mood::Good, "Nothing is open")) } }
        ul.plain { @for alert in open {
            li {
                (badge(Mood::from(alert.severity), severity_word(alert.severity))) " " (title(alert.kind))
                @if !alert.subject.is_empty() { " (" (alert.subject) ")" }
                ", for " (lasting(app, alert.since_ms))
                @if let Some(who) = &alert.acknowledged_by { "; " (who) " has it in hand" }
            }
        } }
        @if open.iter().any(|alert| alert.kind != AlertKind::Test) {
            p { a href="/alerts" { "What to do about them" } }
        }
    }
}

pub async fn acknowledge(call: Call) -> Answer {
    let id: i64 = call.path("id").parse().map_err(|_| Refusal::NotFound)?;
    let who = call.caller()?.name.clone();
    let app = &call.app;
    let done = app.db.write(|tx| app.rules.acknowledge(tx, app.now_ms(), id, &who))?;
    if done { see("/alerts") } else { Err(Refusal::Bad("somebody acknowledged it already, or it is closed".into())) }
}

pub async fn test(call: Call) -> Answer {
    let who = call.caller()?.name.clone();
    let app = &call.app;
    app.db.write(|tx| app.rules.test(tx, app.now_ms(), &who))?;
    see("/alerts")
}
