//! One's own account: password, recovery codes, emergency access; and the administrator's review of emergency access.

use super::fields::{Field, Problems};
use super::form::Form;
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::{self, redirect};
use super::{Method, PageError, Policy, Route, Target, Web};
use crate::access::accounts::{self, AccountError};
use crate::access::{Action, Capacity, emergency, smart};
use crate::audit::{self, Event};
use crate::dates;
use crate::messages::{self, Channel, Message};
use crate::store::{StoreError, Tx};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};

/// Recovery codes that one gets at once.
const CODES: usize = 10;
/// Letters that are not mistaken for each other.
const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789w";

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    vec![
        Route::new(Method::Get, "/account", Policy::LoggedIn, page, w()),
        Route::new(Method::Post, "/account/password", Policy::LoggedIn, change_password, w()),
        Route::new(Method::Post, "/account/recovery", Policy::LoggedIn, make_codes, w()),
        Route::new(Method::Get, "/emergency", Policy::LoggedIn, emergency_page, w()),
        Route::new(Method::Post, "/emergency", Policy::LoggedIn, break_glass, w()),
        Route::new(
            Method::Get,
            "/emergency/review",
            Policy::Permits(Action::Search, Target::AuditLog),
            review_page,
            w(),
        ),
        Route::new(Method::Post, "/emergency/review", Policy::Permits(Action::Update, Target::Users), review, w()),
    ]
}

async fn page(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    show(&web, &visit, &Problems::default(), &[]).await
}

pub async fn show(web: &Web, visit: &Visit, problems: &Problems, codes: &[String]) -> Result<Markup, PageError> {
    let account = visit.actor.id.clone();
    let left = web.store().internal(move |db| emergency::recovery_codes_left(db, &account)).await?;
    let keys = super::keys::section(web, visit, problems).await?;
    Ok(layout::page(
        web,
        visit,
        Section::Account,
        "Your account",
        None,
        &html! {
            div.head { h1 { "Your account" } div.tools {
                a.button href="/account/sessions" { "Your sessions" } a.button href="/account/apps" { "Apps that act for you" } a.button href="/emergency" { "Emergency access" } } }
            (problems.summary())
            div.grid {
                section.panel { h2 { "Change the password" }
                    form method="post" action="/account/password" { (layout::csrf(visit))
                        (Field::new("Password now", "now", "").kind("password").required().autocomplete("current-password").show(problems))
                        (Field::new("New password", "new", "").kind("password").required().autocomplete("new-password")
                            .hint("At least 12 characters; several words make a good one").show(problems))
                        (Field::new("New password again", "again", "").kind("password").required().autocomplete("new-password").show(problems))
                        p.actions { button.primary type="submit" { "Change" } }
                        p.hint { "Your other sessions end, and apps that act for you have to ask again." }
                    }
                }
                section.panel { h2 { "Recovery codes" }
                    @if codes.is_empty() {
                        p { "For the day when your authenticator is lost: enter one instead of the six digits. " b { (left) } " are left." }
                    } @else {
                        div.notice.warn { p { "Shown only once. Print them or write them down, and keep them apart from your phone." } }
                        ul.codes { @for code in codes { li { code { (code) } } } }
                        p { button type="button" data-print="" { "Print" } }
                    }
                    form method="post" action="/account/recovery" { (layout::csrf(visit))
                        (Field::new("Password", "password", "").kind("password").required().autocomplete("current-password").show(problems))
                        p.actions { button type="submit" { "Make new codes" } }
                        p.hint { "Older codes end." }
                    }
                }
                (keys)
            }
        },
    ))
}

/// What a page says whose password was not right.
pub const NOT_OWN: &str = "The password is not right, or there were too many attempts.";

/// Whether this is the visitor's password; a wrong one counts towards the lockout of this session.
pub async fn is_own_password(web: &Web, visit: &Visit, typed: &str) -> Result<bool, PageError> {
    let session = visit.session.as_ref().ok_or(PageError::Forbidden)?;
    let again = login::password_again(web, &visit.actor, session, typed, "password").await?;
    Ok(again == login::Again::Right)
}

async fn change_password(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let mut problems = Problems::default();
    if let Err(error) = accounts::check_password_form(form.raw("new")) {
        problems.add("new", error.to_string());
    }
    if form.raw("new") != form.raw("again") {
        problems.add("again", "The two passwords differ.");
    }
    if problems.is_empty() && !is_own_password(&web, &visit, form.raw("now")).await? {
        problems.add("now", NOT_OWN);
    }
    if !problems.is_empty() {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&web, &visit, &problems, &[]).await?).into_response());
    }
    let hash = web.hash_password(form.raw("new").to_owned()).await.ok_or(PageError::Internal("password"))?;
    let (id, kept) = (visit.actor.id.clone(), visit.session.as_ref().map(|s| s.token_hash).unwrap_or_default());
    let store = move |tx: &mut Tx<'_>| {
        tx.connection().execute("UPDATE account SET password = ?2 WHERE id = ?1", (&id, hash))?;
        // Whoever knew the old password is out everywhere else.
        tx.connection()
            .execute("DELETE FROM session WHERE account = ?1 AND token_hash <> ?2", (&id, kept.as_slice()))?;
        smart::end_of_account(tx.connection(), &id, tx.now_ms())?;
        tx.note(Event::new(audit::Action::UserChange, "password", &id));
        Ok::<_, AccountError>(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/account"))
}

fn new_codes() -> Result<Vec<String>, PageError> {
    (0..CODES)
        .map(|_| {
            let bytes: [u8; 12] = crate::clock::random().map_err(|_| PageError::Internal("randomness"))?;
            let letters: Vec<char> =
                bytes.iter().filter_map(|b| LETTERS.get(usize::from(b % 32))).map(|b| char::from(*b)).collect();
            Ok(letters.chunks(4).map(|c| c.iter().collect::<String>()).collect::<Vec<_>>().join("-"))
        })
        .collect()
}

async fn make_codes(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let mut problems = Problems::default();
    if !is_own_password(&web, &visit, form.raw("password")).await? {
        problems.add("password", NOT_OWN);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&web, &visit, &problems, &[]).await?).into_response());
    }
    let codes = new_codes()?;
    let (id, kept) = (visit.actor.id.clone(), codes.clone());
    let store = move |tx: &mut Tx<'_>| {
        emergency::set_recovery_codes(tx.connection(), &id, &kept)?;
        tx.note(Event::new(audit::Action::UserChange, "recovery-codes", &id));
        Ok::<_, AccountError>(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(show(&web, &visit, &problems, &codes).await?.into_response())
}

async fn emergency_page(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    emergency_form(&web, &visit, "", &Problems::default()).await
}

async fn emergency_form(web: &Web, visit: &Visit, reason: &str, problems: &Problems) -> Result<Markup, PageError> {
    let (account, now) = (visit.actor.id.clone(), web.now());
    let until = web.store().internal(move |db| emergency::until(db, &account, now)).await?;
    let clock = |s: i64| dates::local(s, web.settings().zone).format("%H:%M").to_string();
    Ok(layout::page(
        web,
        visit,
        Section::Account,
        "Emergency access",
        None,
        &html! {
            div.head { h1 { "Emergency access" } }
            (problems.summary())
            @if let Some(until) = until {
                div.notice.warn { p { "You can read the clinical record until " b { (clock(until)) } ". Everything that you look at is recorded and will be reviewed." } }
                form method="post" action="/emergency" { (layout::csrf(visit)) button type="submit" name="do" value="end" { "End it now" } }
            } @else {
                form.sheet method="post" action="/emergency" { (layout::csrf(visit))
                    p { "Where a life or health is at stake, you can read the clinical record for an hour although your role does not permit it. "
                        "The practice's administrator is told at once and reviews what you looked at." }
                    (Field::new("Why", "reason", reason).required().hint("At least ten characters, for example: Patient collapsed in the waiting room").show(problems))
                    p.actions { button.primary type="submit" name="do" value="begin" { "I need it now" } }
                }
            }
        },
    ))
}

async fn break_glass(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let (account, now) = (visit.actor.id.clone(), web.now());
    if form.text("do") == "end" {
        web.write_accounts(&visit.actor, move |db| emergency::end(db, &account, now)).await?;
        return Ok(redirect("/emergency"));
    }
    let reason = form.text("reason").to_owned();
    if !emergency::is_reason(&reason) {
        let mut problems = Problems::default();
        problems.add("reason", "Please say in 10 to 500 characters why.");
        return Ok(
            (StatusCode::UNPROCESSABLE_ENTITY, emergency_form(&web, &visit, &reason, &problems).await?).into_response()
        );
    }
    let id = crate::clock::new_id().map_err(|_| PageError::Internal("randomness"))?;
    let (practice, display) =
        (web.settings().practice_name.clone(), visit.session.as_ref().map(|s| s.display.clone()).unwrap_or_default());
    let store = move |tx: &mut Tx<'_>| {
        emergency::begin(tx.connection(), &id, &account, &reason, now)?;
        tx.note(Event::new(audit::Action::BreakGlass, "session", &id));
        if let Some(to) = super::practice::setting(tx.connection(), super::practice::ALERTS)? {
            let text = format!(
                "{display} has taken emergency access to the clinical record for one hour. Please review it under Users, Emergency access.\n"
            );
            let message = Message { to, subject: format!("{practice}: emergency access"), text };
            messages::queue(tx, Channel::Mail, "", &message, tx.now_ms())?;
        }
        Ok::<_, AccountError>(())
    };
    log::warn!("access.emergency");
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/emergency"))
}

async fn review_page(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let read = |db: &crate::db::Connection| {
        let all = emergency::list(db)?;
        let sql = "SELECT count(*), count(DISTINCT patient) FROM audit WHERE actor = ?1 AND capacity = 'break-glass' AND at_ms BETWEEN ?2 AND ?3 AND patient <> ''";
        let mut counted = Vec::new();
        for broken in all {
            let looked: (i64, i64) =
                db.query_row(sql, (&broken.account, broken.began * 1000, broken.ends * 1000), |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            counted.push((broken, looked));
        }
        Ok::<_, AccountError>(counted)
    };
    let all = web.store().internal(read).await?;
    let zone = web.settings().zone;
    Ok(layout::page(
        &web,
        &visit,
        Section::Users,
        "Emergency access",
        None,
        &html! {
            div.head { h1 { "Emergency access" } a.button href="/users" { "Users" } }
            @if all.is_empty() { p.empty { "Nobody has needed it." } }
            @else { table.list {
                (layout::columns(&["Who", "When", "Why", "Looked at", "Review"]))
                tbody { @for (broken, (entries, patients)) in &all { tr {
                    th scope="row" { (broken.name) }
                    td { (dates::local(broken.began, zone).format("%-d %b %Y %H:%M")) "–" (dates::local(broken.ends, zone).format("%H:%M")) }
                    td { (broken.reason) }
                    td { (entries) " entries of " (patients) " patients" br; a href={ "/audit?who=" (broken.account) "&capacity=break-glass" } { "Show them" } }
                    td { @match broken.reviewed {
                        Some(at) => { (broken.verdict) " " span.soft { (dates::long_day(dates::local(at, zone).date_naive())) } },
                        None if broken.account == visit.actor.id => span.soft { "somebody else reviews it" },
                        None => form.inline method="post" action="/emergency/review" { (layout::csrf(&visit)) input type="hidden" name="id" value=(broken.id);
                            button.small type="submit" name="verdict" value="justified" { "Justified" }
                            button.small type="submit" name="verdict" value="not justified" { "Not justified" } },
                    } }
                } } }
            } }
        },
    ))
}

async fn review(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let verdict = if form.text("verdict") == "justified" { "justified" } else { "not justified" };
    let (id, reviewer, now) = (form.text("id").to_owned(), visit.actor.id.clone(), web.now());
    let store = move |tx: &mut Tx<'_>| {
        if !emergency::review(tx.connection(), &id, &reviewer, verdict, now)? {
            return Err(AccountError::Store(StoreError::NotFound));
        }
        tx.note(Event::new(audit::Action::UserChange, "break-glass", &id));
        Ok(())
    };
    match web.store().write(&visit.actor, store).await {
        Err(AccountError::Store(StoreError::NotFound)) => return Err(PageError::NotFound),
        done => done?,
    }
    Ok(redirect("/emergency/review"))
}

/// Whether the visitor reads more than the role permits, for the bar on every page.
pub fn in_emergency(visit: &Visit) -> bool {
    matches!(visit.actor.capacity, Capacity::Emergency(_))
}
