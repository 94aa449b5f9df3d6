//! Open sessions of the staff: one's own, and for an administrator all of them; ending one.

use super::form::Form;
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::redirect;
use super::{Method, PageError, Policy, Route, Target, Web, dates};
use crate::access::Action;
use crate::access::accounts::AccountError;
use crate::access::sessions::{self, Listed};
use crate::audit::{self, Event};
use crate::store::Tx;
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

const OWN: &str = "/account/sessions";
const ALL: &str = "/users/sessions";

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Users);
    vec![
        Route::new(Method::Get, OWN, Policy::LoggedIn, own, w()),
        Route::new(Method::Post, OWN, Policy::LoggedIn, end_own, w()),
        Route::new(Method::Get, ALL, may(Action::Search), all, w()),
        Route::new(Method::Post, ALL, may(Action::Update), end_any, w()),
    ]
}

async fn listed(web: &Web, account: Option<String>) -> Result<Vec<Listed>, PageError> {
    let (idle_s, now) = (web.settings().idle_lock_s, web.now());
    Ok(web.store().internal(move |db| sessions::list(db, account.as_deref(), idle_s, now)).await?)
}

async fn own(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let found = listed(&web, Some(visit.actor.id.clone())).await?;
    let body = html! {
        p.crumbs { a href="/account" { "Your account" } " › Sessions" }
        div.head { h1 { "Your sessions" } }
        p.soft { "Where you are logged in. If one surprises you, end it and change your password." }
        (table(&web, &visit, &found, OWN))
    };
    Ok(layout::page(&web, &visit, Section::Account, "Your sessions", None, &body))
}

async fn all(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let found = listed(&web, None).await?;
    let body = html! {
        p.crumbs { a href="/users" { "Users" } " › Sessions" }
        div.head { h1 { "Open sessions" } }
        p.soft { "Who of the practice is logged in. What somebody had open and did not save is lost when their session is ended." }
        (table(&web, &visit, &found, ALL))
    };
    Ok(layout::page(&web, &visit, Section::Users, "Open sessions", None, &body))
}

fn table(web: &Web, visit: &Visit, found: &[Listed], action: &str) -> Markup {
    let zone = web.settings().zone;
    let at = |s: i64| dates::local(s, zone).format("%-d %b %Y %H:%M").to_string();
    let here = visit.session.as_ref().map(|session| sessions::listed_id(session));
    html! { table.list {
        (layout::columns(&["Who", "Since", "Last seen", "With", "State", "End"]))
        tbody { @for one in found { tr {
            th scope="row" { (one.display) span.soft { " " (one.role) } }
            td { (at(one.created)) }
            td { (at(one.seen)) }
            td { (if one.device.is_empty() { "not known" } else { &one.device }) }
            td { @if one.locked { span.tag { "locked" } } @else { span.tag.calm { "open" } } }
            td { @if here.as_ref() == Some(&one.id) { span.soft { "this one" } } @else {
                form.inline method="post" action=(action) {
                    (layout::csrf(visit))
                    button.small type="submit" name="session" value=(one.id) aria-label={ "End session of " (one.display) " since " (at(one.created)) } { "End session" }
                }
            } }
        } } }
    } }
}

async fn end_own(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let account = visit.actor.id.clone();
    end(&web, &visit, &form, Some(account)).await?;
    Ok(redirect(OWN))
}

async fn end_any(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    end(&web, &visit, &form, None).await?;
    Ok(redirect(ALL))
}

/// Ends a session; one that ended meanwhile is what was wanted.
async fn end(web: &Web, visit: &Visit, form: &Form, account: Option<String>) -> Result<(), PageError> {
    let id = form.text("session").to_owned();
    let store = move |tx: &mut Tx<'_>| {
        if let Some(owner) = sessions::end(tx.connection(), &id, account.as_deref())? {
            tx.note(Event::new(audit::Action::UserChange, "session", &owner));
        }
        Ok::<_, AccountError>(())
    };
    Ok(web.store().write(&visit.actor, store).await?)
}
