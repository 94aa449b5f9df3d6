//! Users of the practice: who they are, inviting one, their role, ending or restoring their access.

use super::fields::{self, Problems};
use super::form::{Form, FormError};
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::redirect;
use super::{Method, PageError, Policy, Route, Target, Web, dates};
use crate::access::accounts::{self, AccountError};
use crate::access::webauthn::keys;
use crate::access::{Action, Role};
use crate::audit;
use crate::db::Connection;
use crate::store::Tx;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use maud::{Markup, html};
use service::auth::Totp;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Users);
    vec![
        Route::new(Method::Get, "/users", may(Action::Search), list, w()),
        Route::new(Method::Post, "/users/invite", may(Action::Create), invite, w()),
        Route::new(Method::Post, "/users/access", may(Action::Update), set_access, w()),
        Route::new(Method::Post, "/users/role", may(Action::Update), set_role, w()),
    ]
}

async fn list(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let read = |db: &Connection| Ok::<_, AccountError>((accounts::list(db)?, keys::accounts_with_copies(db)?));
    let (all, copied) = web.store().internal(read).await?;
    let zone = web.settings().zone;
    let roles: Vec<&str> = Role::ALL.iter().map(|r| r.as_str()).collect();
    Ok(layout::page(
        &web,
        &visit,
        Section::Users,
        "Users",
        None,
        &html! {
            div.head { h1 { "Users" } div.tools { a.button href="/practice" { "Practice" } a.button href="/apps" { "Apps" } a.button href="/users/sessions" { "Sessions" } a.button href="/emergency/review" { "Emergency access" } } }
            @for user in all.iter().filter(|user| copied.contains(&user.id)) { div.notice.error role="alert" { p {
                "There may be a copy of a key of " b { (user.display) } ": its count went back. Have it removed under Your account, Passkeys \
                 and security keys, and another one added; end the access here until then if this person did not log in at that time. The \
                 access record tells when: " a href={ "/audit?who=" (user.id) "&outcome=failed" } { "failed logins" } "." } } }
            table.list {
                (layout::columns(&["Name", "User name", "Role", "Since", "Access"]))
                tbody { @for user in &all {
                    tr.past[user.disabled] {
                        th scope="row" { (user.display) }
                        td { (user.name) }
                        td { (role_form(&visit, user)) }
                        td { (dates::long_day(dates::local(user.created, zone).date_naive())) }
                        td {
                            @if user.id == visit.actor.id { span.soft { "you" } }
                            @else {
                                form.inline method="post" action="/users/access" {
                                    (layout::csrf(&visit)) input type="hidden" name="user" value=(user.name);
                                    @if user.disabled {
                                        span.tag { "ended" }
                                        button.small type="submit" name="disabled" value="no" { "Restore" }
                                    } @else {
                                        button.small type="submit" name="disabled" value="yes" { "End access" }
                                    }
                                }
                            }
                        }
                    }
                } }
            }
            section.panel {
                h2 { "Invite somebody" }
                p {
                    "You get a link that works once, for " (accounts::INVITE_S / 3600) " hours. Hand it over in person or by \
                     a channel that only this person reads."
                }
                form.inline method="post" action="/users/invite" {
                    (layout::csrf(&visit))
                    (fields::select("Role", "role", "", &fields::same(&roles), true, &Problems::default()))
                    button.primary type="submit" { "Make a link" }
                }
            }
        },
    ))
}

/// The role, and the way to another one.
fn role_form(visit: &Visit, user: &accounts::Account) -> Markup {
    html! {
        details { summary aria-label={ (user.role) ", the role of " (user.display) } { (user.role) }
            form method="post" action="/users/role" {
                (layout::csrf(visit)) input type="hidden" name="user" value=(user.name);
                div.field { label for={ "role-" (user.id) } { "Role of " (user.display) }
                    select id={ "role-" (user.id) } name="role" { @for role in Role::ALL { option value=(role) selected[role == user.role] { (role) } } } }
                p.hint { @if user.id == visit.actor.id { "Your own: you are logged out, and may not come back to this page." }
                    @else { "This person is logged out at once, and apps that act for them have to ask again." } }
                p.actions { button.small type="submit" { "Change the role" } }
            }
        }
    }
}

async fn invite(State(web): State<Web>, visit: Visit, headers: HeaderMap, form: Form) -> Result<Markup, PageError> {
    let role: Role = form.text("role").parse().map_err(|_| PageError::Form(FormError::Malformed))?;
    let (token, secret, now) = (service::auth::random_token(), Totp::generate_secret(), web.now());
    let stored = token.clone();
    let store = move |tx: &mut Tx<'_>| {
        accounts::insert_invite(tx.connection(), &stored, role, &secret, now)?;
        tx.note(audit::Event::new(audit::Action::UserChange, "invite", role.as_str()));
        Ok::<_, AccountError>(())
    };
    web.store().write(&visit.actor, store).await?;
    // The host by which this administrator reached us is the one that the invited person can use too.
    let host = headers.get(http::header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
    let plain_host = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
    let link = format!("https://{}/invite/{token}", if plain_host { host } else { "" });
    Ok(layout::page(
        &web,
        &visit,
        Section::Users,
        "Invitation",
        None,
        &html! {
            div.head { h1 { "Invitation for a " (role) } }
            div.notice.warn { p { "This link is shown only once. Whoever opens it first gets the account." } }
            p { code.copy { (link) } }
            p.actions { a.button href="/users" { "Done" } }
        },
    ))
}

async fn set_access(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let (name, disabled, now) = (form.text("user").to_owned(), form.text("disabled") == "yes", web.now());
    if name == visit.actor.name {
        // Nobody locks the last administrator out by a slip.
        return Err(PageError::Forbidden);
    }
    let store = move |tx: &mut Tx<'_>| {
        accounts::set_disabled(tx.connection(), &name, disabled, now)?;
        let id = accounts::credentials(tx.connection(), &name)?.map(|c| c.account.id).unwrap_or_default();
        tx.note(audit::Event::new(audit::Action::UserChange, "user", &id));
        Ok::<_, AccountError>(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/users"))
}

async fn set_role(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let role: Role = form.text("role").parse().map_err(|_| PageError::Form(FormError::Malformed))?;
    let (name, now) = (form.text("user").to_owned(), web.now());
    let store = move |tx: &mut Tx<'_>| {
        if let Some(id) = accounts::set_role(tx.connection(), &name, role, now)? {
            tx.note(audit::Event::new(audit::Action::UserChange, "role", &id));
        }
        Ok::<_, AccountError>(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/users"))
}
