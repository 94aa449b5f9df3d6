//! Programs that act for a person (SMART on FHIR), as people meet them: the page that asks, the list in the chart, what one
//! allowed, and the administrator's registration.

mod authorize;
mod launch;
mod register;

#[cfg(test)]
mod tests;

use super::form::Form;
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::redirect;
use super::{Method, PageError, Policy, Route, Target, Web, dates};
use crate::access::smart;
use crate::access::{Action, grant::Scope};
use crate::audit::{self, Event};
use crate::fhir;
use crate::store::{StoreError, Tx};
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let users = |action| Policy::Permits(action, Target::Users);
    let patient = Policy::Permits(Action::Read, Target::Resource("Patient"));
    let (get, post) = (Method::Get, Method::Post);
    vec![
        // Whoever comes from a program's site has to be asked for a login by this very page: see `authorize::ask`.
        Route::new(get, fhir::smart::AUTHORIZE_PATH, Policy::Public, authorize::ask, w()),
        Route::new(post, fhir::smart::AUTHORIZE_PATH, Policy::LoggedIn, authorize::decide, w()),
        Route::new(get, "/patients/{patient}/apps", patient, launch::page, w()),
        Route::new(post, "/patients/{patient}/apps", patient, launch::start, w()),
        Route::new(get, "/account/apps", Policy::LoggedIn, allowed, w()),
        Route::new(post, "/account/apps", Policy::LoggedIn, end, w()),
        Route::new(get, "/apps", users(Action::Search), register::list, w()),
        Route::new(get, "/apps/new", users(Action::Create), register::new, w()),
        Route::new(post, "/apps/new", users(Action::Create), register::add, w()),
        Route::new(post, "/apps/end", users(Action::Update), register::end, w()),
    ]
}

/// A scope in words.
fn words(scope: &Scope) -> String {
    let verbs: Vec<&str> = [('c', "add"), ('r', "read"), ('u', "change"), ('d', "delete"), ('s', "search")]
        .iter()
        .filter(|(letter, _)| scope.letters().contains(*letter))
        .map(|(_, verb)| *verb)
        .collect();
    let what = scope.kind().unwrap_or("all kinds of records");
    let whose = if scope.is_patient() { "this patient" } else { "all patients" };
    format!("{}: {what} of {whose}", verbs.join(", "))
}

/// What this person allowed, with a way to end it.
async fn allowed(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let (account, now_ms) = (visit.actor.id.clone(), web.now() * 1000);
    let all = web.store().internal(move |db| smart::given_by(db, &account, now_ms)).await?;
    let zone = web.settings().zone;
    let day = |ms: i64| dates::local(ms / 1000, zone).format("%-d %b %Y %H:%M").to_string();
    Ok(layout::page(
        &web,
        &visit,
        Section::Account,
        "Apps that act for you",
        None,
        &html! {
            p.crumbs { a href="/account" { "Your account" } }
            div.head { h1 { "Apps that act for you" } }
            @if all.is_empty() { p.empty { "No app acts for you." } }
            @else { table.list {
                (layout::columns(&["App", "Patient", "May", "Since", "Ends", "Access"]))
                tbody { @for given in &all { tr {
                    th scope="row" { (given.program) @if given.offline { " " span.tag.warn { "also while you are away" } } }
                    td { @if let Some(patient) = &given.patient { a href={ "/patients/" (patient) } { "Chart" } } }
                    td { (given.scopes) }
                    td { (day(given.began_ms)) }
                    td { (day(given.ends_ms)) }
                    td { form.inline method="post" action="/account/apps" { (layout::csrf(&visit))
                        input type="hidden" name="grant" value=(given.id);
                        button.small type="submit" aria-label={ "End " (given.program) } { "End" } } }
                } } }
            } }
        },
    ))
}

async fn end(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let (account, grant) = (visit.actor.id.clone(), form.text("grant").to_owned());
    let store = move |tx: &mut Tx<'_>| {
        smart::end(tx.connection(), &account, &grant, tx.now_ms())?;
        tx.note(Event::new(audit::Action::Delete, "app-grant", &grant));
        Ok::<_, StoreError>(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/account/apps"))
}
