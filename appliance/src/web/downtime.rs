//! The downtime pack: its password, the office computers that may pull it, and the pull itself.

use super::fields::{Field, Problems};
use super::form::Form;
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::redirect;
use super::{Method, PageError, Policy, Route, Target, Web, dates};
use crate::access::{Action, Actor, Program};
use crate::audit::{self, Event};
use crate::downtime::{self, Access};
use crate::fhir::smart::bearer;
use crate::store::{StoreError, Tx};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use maud::{Markup, html};

/// A computer that has had no pack for this long is told of.
const LATE_S: i64 = 2 * 3600;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Users);
    vec![
        Route::new(Method::Get, "/practice/downtime", may(Action::Search), page, w()),
        Route::new(Method::Post, "/practice/downtime", may(Action::Update), change, w()),
        // A computer without a person in front of it: its token is looked at by the handler.
        Route::new(Method::Get, "/downtime/pack", Policy::Public, pull, w()),
    ]
}

/// What is shown once and never again.
#[derive(Default)]
struct Fresh {
    password: Option<String>,
    token: Option<String>,
}

async fn page(State(web): State<Web>, visit: Visit, headers: HeaderMap) -> Result<Markup, PageError> {
    show(&web, &visit, &headers, &Problems::default(), &Fresh::default()).await
}

async fn show(
    web: &Web,
    visit: &Visit,
    headers: &HeaderMap,
    problems: &Problems,
    fresh: &Fresh,
) -> Result<Markup, PageError> {
    let read = |db: &crate::db::Connection| Ok::<_, StoreError>((downtime::password_set(db)?, downtime::admitted(db)?));
    let (set, admitted) = web.store().internal(read).await?;
    let plan = web.settings().downtime.as_ref();
    let made = plan.and_then(downtime::made_s);
    Ok(layout::page(
        web,
        visit,
        Section::Users,
        "Downtime pack",
        None,
        &html! {
            div.head { h1 { "Downtime pack" } }
            (problems.summary())
            p { "One file with the schedule of today and the next three days and, for each patient in it, allergies, medications, problems and \
                phone. An office computer pulls it again and again; while the line to the data center is down it opens without a network, with the password." }
            @match plan {
                None => div.notice.warn { p { "Off: appliance.toml has no section [downtime]." } },
                Some(plan) => p { "Made every " (plan.every_minutes) " minutes; last made: " b { (at(web, made)) } "." },
            }
            (secrets(headers, fresh))
            section.panel {
                div.head { h2 { "Password" } }
                p { @match set {
                    Some(set) => { "Set " (at(web, Some(set))) ". It opens every pack that was made since. A new one replaces it, and the old packs keep the old one." },
                    None => "None yet: without one no pack is made.",
                } }
                form.inline method="post" action="/practice/downtime" { (layout::csrf(visit))
                    button.primary type="submit" name="do" value="password" { "Make a new password" }
                }
            }
            section.panel {
                div.head { h2 { "Office computers" } }
                (computers(web, visit, &admitted))
                form.inline method="post" action="/practice/downtime" { (layout::csrf(visit))
                    (Field::new("Name of the computer", "name", "").required().show(problems))
                    button.primary type="submit" name="do" value="admit" { "Let it pull the pack" }
                }
            }
        },
    ))
}

fn at(web: &Web, unix_s: Option<i64>) -> String {
    unix_s.map_or("never".to_owned(), |s| dates::local(s, web.settings().zone).format("%-d %b %Y %H:%M").to_string())
}

fn computers(web: &Web, visit: &Visit, admitted: &[Access]) -> Markup {
    let late = |access: &Access| web.now() - access.pulled_s.unwrap_or(access.created_s) > LATE_S;
    html! {
        @if admitted.is_empty() { p.empty { "None may pull the pack." } }
        @else { table.list {
            (layout::columns(&["Computer", "Since", "Last pulled", ""]))
            tbody { @for access in admitted { tr {
                th scope="row" { (access.name) }
                td { (at(web, Some(access.created_s))) }
                td { (at(web, access.pulled_s)) @if late(access) { " " span.tag.alert { "late" } } }
                td { form.inline method="post" action="/practice/downtime" { (layout::csrf(visit))
                    input type="hidden" name="computer" value=(access.id);
                    button.small type="submit" name="do" value="dismiss" { "End" }
                } }
            } } }
        } }
    }
}

fn secrets(headers: &HeaderMap, fresh: &Fresh) -> Markup {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
    let host = if plain { host } else { "" };
    html! {
        @if let Some(password) = &fresh.password {
            div.notice.warn { p { "Write this password down now: it is shown only once and kept nowhere. Keep it in the office, not in the computer." } }
            p { code.copy { (password) } }
        }
        @if let Some(token) = &fresh.token {
            div.notice.warn { p { "This is shown only once. Let the computer run the line below every 30 minutes (Task Scheduler, cron); both \
                Windows and macOS have curl. Save the practice's CA certificate beside it as ca.pem where it is not a public one." } }
            p { code.copy { "curl --fail --cacert ca.pem -o downtime.new -H \"Authorization: Bearer " (token) "\" https://" (host) "/downtime/pack && move /y downtime.new downtime.html" } }
            p.hint { "On macOS and Linux write mv instead of move /y." }
        }
    }
}

async fn change(State(web): State<Web>, visit: Visit, headers: HeaderMap, form: Form) -> Result<Response, PageError> {
    let now = web.now();
    let (mut problems, mut fresh) = (Problems::default(), Fresh::default());
    match form.text("do") {
        "password" => {
            let password = downtime::new_password()?;
            let typed = password.clone();
            let derive = move || downtime::derive(&typed);
            let key = tokio::task::spawn_blocking(derive).await.unwrap_or(Err(StoreError::Closed))?;
            let set = move |tx: &mut Tx<'_>| {
                tx.note(Event::new(audit::Action::UserChange, "downtime", "password"));
                downtime::set_password(tx, &key, now)
            };
            web.store().write(&visit.actor, set).await?;
            make(&web).await?;
            fresh.password = Some(password);
        }
        "admit" => {
            let name = form.text("name").to_owned();
            if name.is_empty() || name.chars().count() > 60 {
                problems.add("name", "Please name the computer in at most 60 letters.");
            } else {
                let token = service::auth::random_token();
                let given = token.clone();
                let admit = move |tx: &mut Tx<'_>| {
                    tx.note(Event::new(audit::Action::UserChange, "downtime", "computer"));
                    downtime::admit(tx, &name, &given, now)
                };
                web.store().write(&visit.actor, admit).await?;
                fresh.token = Some(token);
            }
        }
        "dismiss" => {
            let id = form.text("computer").to_owned();
            let dismiss = move |tx: &mut Tx<'_>| {
                tx.note(Event::new(audit::Action::UserChange, "downtime", "computer"));
                downtime::dismiss(tx, &id)
            };
            web.store().write(&visit.actor, dismiss).await?;
            return Ok(redirect("/practice/downtime"));
        }
        _ => return Err(PageError::Form(super::form::FormError::Malformed)),
    }
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok((status, show(&web, &visit, &headers, &problems, &fresh).await?).into_response())
}

async fn make(web: &Web) -> Result<(), StoreError> {
    let settings = web.settings();
    if let Some(plan) = &settings.downtime {
        downtime::make(web.store(), plan, &settings.practice_name, settings.zone).await?;
    }
    Ok(())
}

/// `GET /downtime/pack`: for whoever has the token of an office computer, and in the access record.
async fn pull(State(web): State<Web>, headers: HeaderMap) -> Result<Response, PageError> {
    let plan = web.settings().downtime.clone().ok_or(PageError::NotFound)?;
    let refused = || {
        let told = "This needs the header Authorization: Bearer with the token of an office computer.\n";
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], told).into_response()
    };
    let Some(token) = bearer(&headers).map(str::to_owned) else { return Ok(refused()) };
    let given = token.clone();
    let Some(name) = web.store().internal(move |db| downtime::computer(db, &given)).await? else {
        log::warn!("downtime.refused");
        return Ok(refused());
    };
    let (actor, now) = (Actor { name, ..Actor::program(Program::Downtime) }, web.now());
    web.store().write(&actor, move |tx: &mut Tx<'_>| downtime::pulled(tx, &token, now)).await?;
    let read = move || downtime::newest(&plan);
    let pack = tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed))?;
    let pack = pack.ok_or(PageError::NotFound)?;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"downtime.html\""),
    ];
    Ok((headers, pack).into_response())
}
