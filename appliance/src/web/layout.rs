//! The frame of every page, and the patient banner.

use super::assets::ASSETS;
use super::dates;
use super::gate::Visit;
use super::reading::{self, PatientFacts};
use super::{Settings, Web};
use crate::access::sessions::State;
use crate::access::{Action, Object, Reach, authorize};
use maud::{DOCTYPE, Markup, html};

/// The sections of the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Schedule,
    Patients,
    Tasks,
    Templates,
    Users,
    Audit,
    Account,
}

/// htmx: no eval, no inline style, and only our own host.
const HTMX_CONFIG: &str = r#"{"allowEval":false,"includeIndicatorStyles":false,"selfRequestsOnly":true,
    "historyCacheSize":0,"refreshOnHistoryMiss":true}"#;

/// A page for a person who has logged in.
pub fn page(web: &Web, visit: &Visit, section: Section, title: &str, banner: Option<&Markup>, body: &Markup) -> Markup {
    let settings = web.settings();
    let idle_s = visit.session.as_ref().map(|_| settings.idle_lock_s);
    document(
        &format!("{title} · {}", settings.practice_name),
        idle_s.map(|s| (s, visit.csrf.as_str())),
        &html! {
            a.skip href="#main" { "Skip to content" }
            (top_bar(settings, visit, section))
            @if super::account::in_emergency(visit) {
                p.glass { "Emergency access: everything that you look at is recorded and reviewed. " a href="/emergency" { "End it" } }
            }
            @if let Some(banner) = banner { (banner) }
            main #main tabindex="-1" { (body) }
        },
    )
}

/// A page with one card and no navigation: login, unlock, invitation.
pub fn card(practice: &str, title: &str, body: &Markup) -> Markup {
    document(
        &format!("{title} · {practice}"),
        None,
        &html! {
            main.lone #main {
                div.card {
                    p.brand { (logo()) span { (practice) } }
                    h1 { (title) }
                    (body)
                }
            }
        },
    )
}

/// A page that leads on by itself, to an address of ours.
pub fn hop(practice: &str, to: &str, body: &Markup) -> Markup {
    let title = format!("One moment · {practice}");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content={ "0; url=" (to) };
                title { (title) }
                link rel="stylesheet" href=(ASSETS.css.path);
            }
            body { main.lone #main { div.card { p.brand { (logo()) span { (practice) } } h1 { "One moment" } (body) } } }
        }
    }
}

/// A page for patients and strangers: the practice's name, and nothing of the staff's navigation.
pub fn public(web: &Web, title: &str, body: &Markup) -> Markup {
    let practice = &web.settings().practice_name;
    document(
        &format!("{title} · {practice}"),
        None,
        &html! {
            a.skip href="#main" { "Skip to content" }
            header.top { span.brand { (logo()) span { (practice) } } }
            main.public #main tabindex="-1" { (body) }
        },
    )
}

/// The sections of the portal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Portal {
    Start,
    Record,
    Documents,
    Appointments,
    Forms,
    Consents,
    Messages,
    Access,
    /// For whom one acts.
    People,
}

/// A page for somebody who has logged in, with what they reach of the record.
pub fn portal(web: &Web, visit: &Visit, section: Portal, title: &str, body: &Markup) -> Markup {
    const SECTIONS: [(Portal, &str, &str, &str); 8] = [
        (Portal::Start, "/", "Start", "Appointment"),
        (Portal::Record, "/record", "My record", "Condition"),
        (Portal::Documents, "/documents", "Documents", "DocumentReference"),
        (Portal::Appointments, "/appointments", "Appointments", "Appointment"),
        (Portal::Forms, "/forms", "Forms", "QuestionnaireResponse"),
        (Portal::Consents, "/consents", "Consents", "Consent"),
        (Portal::Messages, "/messages", "Messages", "Communication"),
        // Whoever sees the record sees who looked at it.
        (Portal::Access, "/access", "Who looked", "Condition"),
    ];
    let reached = |kind: &str| authorize(&visit.actor, Action::Search, Object::resource(kind)).is_ok();
    let practice = &web.settings().practice_name;
    let display = visit.session.as_ref().map_or("", |s| s.display.as_str());
    document(
        &format!("{title} · {practice}"),
        None,
        &html! {
            a.skip href="#main" { "Skip to content" }
            header.top {
                a.brand href="/" { (logo()) span { (practice) } }
                nav aria-label="Main" { @for (to, href, label, kind) in SECTIONS { @if reached(kind) {
                    a href=(href) aria-current=[(section == to).then_some("page")] {
                        @if to == Portal::Record && visit.whom.is_some() { "Record" } @else { (label) } }
                } } }
                div.who { span.me { (display) } form method="post" action="/logout" { (csrf(visit)) button.quiet type="submit" { "Log out" } } }
            }
            @if section != Portal::People { (for_whom(visit)) }
            main #main tabindex="-1" { (body) }
        },
    )
}

/// For whom one acts, on every page of it: nothing is sent for the wrong person unseen.
fn for_whom(visit: &Visit) -> Markup {
    let Some(acting) = visit.session.as_ref().and_then(|session| session.acting.as_ref()) else { return html! {} };
    let switch = html! { a.button.small href="/people" { "Switch person" } };
    html! {
        @match (&acting.proxy, &visit.whom) {
            (Some(proxy), Some(whom)) => div.acting role="note" {
                p { "You act for " b { (whom.given) " " (whom.family) }
                    @if let Some(birth) = whom.birth { ", born " (super::dates::long_day(birth)) }
                    span.soft { " · as " (proxy.relation) @if proxy.reach == Reach::Appointments { ", for appointments only" } } }
                (switch)
            },
            _ => @if acting.own.is_some() && !acting.choices.is_empty() { div.acting.own role="note" { p { "You see your own record." } (switch) } },
        }
    }
}

/// A page that says what happened and what to do, and leads there.
pub fn message(title: &str, text: &str, (href, label): (&str, &str)) -> Markup {
    document(
        title,
        None,
        &html! {
            main.lone #main {
                div.card {
                    h1 { (title) }
                    p { (text) }
                    p.actions { a.button href=(href) { (label) } }
                }
            }
        },
    )
}

fn document(title: &str, idle: Option<(i64, &str)>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="htmx-config" content=(HTMX_CONFIG);
                title { (title) }
                link rel="icon" href=(ASSETS.icon.path) type="image/svg+xml";
                link rel="stylesheet" href=(ASSETS.css.path);
                script src=(ASSETS.htmx.path) defer {}
                script src=(ASSETS.app.path) defer {}
            }
            @match idle {
                Some((seconds, csrf)) => body data-idle-s=(seconds) data-csrf=(csrf) { (body) },
                None => body { (body) },
            }
        }
    }
}

fn top_bar(settings: &Settings, visit: &Visit, section: Section) -> Markup {
    let Some(session) = visit.session.as_ref().filter(|s| s.state == State::Open) else { return html! {} };
    let may = |action, object| authorize(&visit.actor, action, object).is_ok();
    let link = |to: Section, href: &str, label: &str| {
        html! { a href=(href) aria-current=[(section == to).then_some("page")] { (label) } }
    };
    html! {
        header.top {
            a.brand href="/" { (logo()) span { (settings.practice_name) } }
            nav aria-label="Main" {
                (link(Section::Schedule, "/schedule", "Schedule"))
                (link(Section::Patients, "/patients", "Patients"))
                @if may(Action::Search, Object::resource("Task")) { (link(Section::Tasks, "/tasks", "Tasks")) }
                @if may(Action::Search, Object::resource("Questionnaire")) { (link(Section::Templates, "/templates", "Templates")) }
                @if may(Action::Search, Object::Users) { (link(Section::Users, "/users", "Users")) }
                @if may(Action::Search, Object::AuditLog) { (link(Section::Audit, "/audit", "Access record")) }
            }
            div.who {
                a.me href="/account" { b { (session.display) } span.role { (visit.actor.capacity_str()) } }
                form method="post" action="/lock" data-no-guard {
                    (csrf(visit)) input type="hidden" name="to" value=(visit.here);
                    button.quiet type="submit" title="Lock the screen; your password unlocks it" { "Lock" }
                }
                form method="post" action="/logout" data-no-guard { (csrf(visit)) button.quiet type="submit" { "Log out" } }
            }
        }
    }
}

fn logo() -> Markup {
    html! { img.logo src=(ASSETS.icon.path) alt="" width="28" height="28"; }
}

/// The head row of a table.
pub fn columns(names: &[&str]) -> Markup {
    html! { thead { tr { @for name in names { th scope="col" { (name) } } } } }
}

/// The last row of a form: what it does, and the way out.
pub fn save_or_cancel(save: &str, back: &str) -> Markup {
    html! { p.actions { button.primary type="submit" { (save) } a.button href=(back) { "Cancel" } } }
}

/// The hidden field that every form carries.
pub fn csrf(visit: &Visit) -> Markup {
    html! { input type="hidden" name="csrf" value=(visit.csrf); }
}

/// Who the chart is about: on every page of a patient, so that nobody writes into the wrong record.
pub fn patient_banner(web: &Web, patient: &PatientFacts, allergies: Option<&[reading::Allergy]>) -> Markup {
    let zone = web.settings().zone;
    let today = dates::today(web.now(), zone);
    html! {
        section.banner aria-label="Patient" {
            div.name {
                a href={ "/patients/" (patient.id) } { (patient.full_name()) }
                @if let Some(day) = &patient.deceased { span.tag.dark { "Deceased " (dates::show_day(day, zone)) } }
                @if !patient.active && patient.goes_on.is_none() { span.tag.dark { "Inactive" } }
            }
            @if let Some(kept) = &patient.goes_on { p.merged { span.tag.dark { "Merged" } " Closed: "
                a href={ "/patients/" (kept) } { "go on in the record that this one was merged into" } } }
            dl {
                div { dt { "Born" } dd {
                    @match patient.birth {
                        Some(birth) => {
                            (dates::long_day(birth))
                            @if patient.deceased.is_none() { " (" (dates::age(birth, today)) ")" }
                        },
                        None => "not recorded",
                    }
                } }
                div { dt { "Sex" } dd { (patient.gender_word()) } }
                div { dt { "No." } dd { span title=(patient.number) { (patient.short_number()) } } }
                div.allergies { dt { "Allergies" } dd {
                    @match allergies {
                        None => span { "not visible to your role" },
                        Some([]) => span.none { "none recorded" },
                        Some(list) => @for allergy in list {
                            span class={ "tag " (allergy.weight()) } { (allergy.text) }
                        },
                    }
                } }
            }
        }
    }
}
