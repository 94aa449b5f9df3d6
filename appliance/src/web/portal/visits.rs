//! The patient's appointments: what is ahead, what was, and cancelling.

use super::super::form::Form;
use super::super::gate::Visit;
use super::super::layout::{self, Portal};
use super::super::login::redirect;
use super::super::reading::{concept, list, text, version};
use super::super::{Method, PageError, Policy, Route, Target, Web, chart, dates};
use super::{patient, record};
use crate::access::Action;
use crate::scheduling::booking;
use crate::store::{StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::Response;
use chrono_tz::Tz;
use maud::{Markup, html};
use serde_json::Value;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Appointment"));
    vec![
        Route::new(Method::Get, "/appointments", may(Action::Search), page, w()),
        Route::new(Method::Post, "/appointments/{appointment}/cancel", may(Action::Update), cancel, w()),
    ]
}

fn is_open(appointment: &Value) -> bool {
    matches!(text(appointment, "/status"), "booked" | "pending")
}

/// What is booked and has not begun, the next first.
pub fn ahead(all: &[Value], now: i64, zone: Tz) -> Vec<Value> {
    let begins = |a: &Value| dates::moment_s(text(a, "/start"), zone).unwrap_or(0);
    let mut ahead: Vec<Value> = all.iter().filter(|a| is_open(a) && begins(a) > now).cloned().collect();
    ahead.sort_by_key(begins);
    ahead
}

/// For what and with whom.
pub fn what(appointment: &Value) -> String {
    let named = |prefix: &str| {
        let mut all = list(appointment, "participant").iter();
        let found = all.find(|p| text(p, "/actor/reference").starts_with(prefix));
        found.map(|p| text(p, "/actor/display").to_owned()).filter(|name| !name.is_empty())
    };
    let visit = Some(concept(appointment.pointer("/serviceType/0")).to_owned()).filter(|name| !name.is_empty());
    let parts = [visit, named("Practitioner/"), named("Location/")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

async fn page(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let (id, now, zone) = (patient(&visit)?, web.now(), web.settings().zone);
    let read = move |view: &View<'_>| record::all_of(view, "Appointment", &id);
    let all = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    let ahead = ahead(&all, now, zone);
    let begun = |a: &Value| dates::moment_s(text(a, "/start"), zone).filter(|at| *at <= now);
    let mut past: Vec<&Value> = all.iter().filter(|a| begun(a).is_some()).collect();
    past.sort_by_key(|a| std::cmp::Reverse(begun(a)));
    let past: Vec<Markup> = past.into_iter().map(|a| html! {
        span.what { (what(a)) @if matches!(text(a, "/status"), "cancelled" | "noshow") { " " span.tag { (text(a, "/status")) } } }
        span.when { (dates::show_day(text(a, "/start"), zone)) }
    }).collect();
    Ok(layout::portal(
        &web,
        &visit,
        Portal::Appointments,
        "Appointments",
        &html! {
            div.head { h1 { "Appointments" } }
            @if ahead.is_empty() { p.empty { "No appointment is booked." } }
            @for appointment in &ahead {
                @let when = dates::show(text(appointment, "/start"), zone);
                section.panel {
                    h2 { (when) @if text(appointment, "/status") == "pending" { " " span.tag.warn { "requested, not confirmed yet" } } }
                    p { (what(appointment)) }
                    details { summary { "Cancel this appointment" }
                        form method="post" action={ "/appointments/" (text(appointment, "/id")) "/cancel" } { (layout::csrf(&visit))
                            input type="hidden" name="version" value=(version(appointment));
                            p { "Somebody else can have this time then." }
                            p.actions { button type="submit" aria-label={ "Cancel the appointment of " (when) } { "Cancel it" } }
                        }
                    }
                }
            }
            @if !past.is_empty() {
                h2 { "Before" }
                (chart::folded(&past, ""))
            }
        },
    ))
}

async fn cancel(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let number = form.text("version").parse().map_err(|_| PageError::Query)?;
    let (now, zone, by) = (web.now(), web.settings().zone, super::author(&visit, "").1);
    let reason = format!("Cancelled by {by} in the portal");
    let store = move |tx: &mut Tx<'_>| {
        let body = tx.read("Appointment", &id)?.json()?;
        let begins = dates::moment_s(text(&body, "/start"), zone).unwrap_or(0);
        if !is_open(&body) || begins <= now {
            return Err(StoreError::invalid("this appointment cannot be cancelled any more", "Appointment.status"));
        }
        booking::cancel(tx, &id, number, &reason)
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/appointments"))
}
