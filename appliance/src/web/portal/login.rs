//! Invitation, login in two steps, logout.

use super::super::fields::{Field, Problems};
use super::super::form::Form;
use super::super::gate::{self, FORM_COOKIE, Visit};
use super::super::login::{qr_svg, redirect};
use super::super::{Method, PageError, Policy, Route, Web, dates, layout};
use crate::access::accounts::{self, AccountError};
use crate::access::lockout::{self, Counted};
use crate::access::proxy::{self, Proxy};
use crate::access::{Actor, portal};
use crate::audit::{Action, Event, Outcome};
use crate::messages::{self, Channel, Message};
use crate::store::{StoreError, Tx, View};
use crate::web::reading::PatientFacts;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode};
use maud::{Markup, html};
use service::auth::Totp;

/// One sentence for every reason, so that an answer does not tell which part was wrong.
const REFUSED: &str = "E-mail address or password is not right.";
const WRONG_CODE: &str = "This is not the right code. A code can be used once.";
const TOO_OFTEN: &str = "There were too many attempts. Please wait 15 minutes, or call us.";
const BEGIN_AGAIN: &str = "The code is too old or was entered wrongly too often. Please log in again.";

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    vec![
        Route::new(Method::Get, "/login", Policy::Public, login_page, w()),
        Route::new(Method::Post, "/login", Policy::Public, login, w()),
        Route::new(Method::Post, "/login/code", Policy::Public, second_step, w()),
        Route::new(Method::Post, "/logout", Policy::AnySession, logout, w()),
        Route::new(Method::Get, "/invite/{token}", Policy::Public, invite_page, w()),
        Route::new(Method::Post, "/invite/{token}", Policy::Public, accept, w()),
    ]
}

async fn login_page(State(web): State<Web>, visit: Visit) -> Response {
    match visit.session {
        Some(_) => redirect("/"),
        None => login_form(&web, &visit, "", &Problems::default()).into_response(),
    }
}

fn login_form(web: &Web, visit: &Visit, mail: &str, problems: &Problems) -> Markup {
    layout::card(
        &web.settings().practice_name,
        "Your record",
        &html! {
            (problems.summary())
            form method="post" action="/login" data-no-guard="" {
                (layout::csrf(visit))
                (Field::new("E-mail", "mail", mail).kind("email").required().autocomplete("username").show(problems))
                (Field::new("Password", "password", "").kind("password").required().autocomplete("current-password").show(problems))
                p.actions { button.primary type="submit" { "Continue" } }
            }
            p.hint { "No account yet, or the password is lost? We send you an invitation: please call us or ask at the desk." }
        },
    )
}

fn code_form(web: &Web, visit: &Visit, token: &str, by_mail: bool, problems: &Problems) -> Markup {
    layout::card(
        &web.settings().practice_name,
        "Enter the code",
        &html! {
            p { @if by_mail { "We sent six digits to your e-mail address." } @else { "Please enter the six digits that your authenticator app shows." } }
            (problems.summary())
            form method="post" action="/login/code" data-no-guard="" {
                (layout::csrf(visit)) input type="hidden" name="token" value=(token);
                (Field::new("Code", "code", "").required().autocomplete("one-time-code").show(problems))
                p.actions { button.primary type="submit" { "Log in" } a.button.quiet href="/login" { "Back" } }
            }
        },
    )
}

/// Counts a try of a patient, apart from those of the staff; `None` when it may not be made.
async fn admit(web: &Web, visit: &Visit, mail: &str) -> Result<Option<Counted>, PageError> {
    let (now, name, address, device) = (web.now(), portal::counted_name(mail), visit.address, visit.device.clone());
    let admit = move |db: &crate::db::Connection| lockout::admit(db, &name, address, device.as_deref(), now);
    let admitted = web.write_accounts(&Actor::anonymous(), admit).await?;
    if admitted.is_none() {
        log::warn!("portal.locked-out");
    }
    Ok(admitted)
}

/// Whose account it is, before it is known for whom they act.
fn actor_of(account: &portal::Account) -> Actor {
    match &account.patient {
        Some(patient) => Actor::of_patient(&account.id, patient),
        None => Actor::of_nobody(&account.id),
    }
}

fn again(web: &Web, visit: &Visit, form: &Form, sentence: &str) -> Response {
    let mut problems = Problems::default();
    problems.add("", sentence);
    (StatusCode::UNPROCESSABLE_ENTITY, login_form(web, visit, form.text("mail"), &problems)).into_response()
}

async fn login(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let (now, typed) = (web.now(), form.text("mail").to_owned());
    let Some(counted) = admit(&web, &visit, &typed).await? else {
        return Ok(again(&web, &visit, &form, TOO_OFTEN));
    };
    let found = web.store().internal(move |db| portal::credentials(db, &typed)).await?;
    let usable = found.filter(|found| !found.account.disabled);
    let password = form.raw("password").chars().take(accounts::PASSWORD_CHARS_MAX + 1).collect();
    let fits = web.check_password(password, usable.as_ref().map(|found| found.password_hash.clone())).await;
    let Some(found) = usable.filter(|_| fits) else {
        let fail = move |tx: &mut Tx<'_>| {
            tx.note(Event::new(Action::Login, "portal", "").outcome(Outcome::Failed));
            Ok::<_, AccountError>(())
        };
        web.store().write(&Actor::anonymous(), fail).await?;
        return Ok(again(&web, &visit, &form, REFUSED));
    };
    let (token, account) = (service::auth::random_token(), found.account);
    let code = if account.authenticator {
        None
    } else {
        Some(messages::new_code().map_err(|_| PageError::Internal("randomness"))?)
    };
    let (by_mail, step, practice) = (code.is_some(), token.clone(), web.settings().practice_name.clone());
    let actor = actor_of(&account);
    let begin = move |tx: &mut Tx<'_>| {
        lockout::was_right(tx.connection(), &counted)?;
        portal::begin_step(tx.connection(), &account.id, &step, code.as_deref(), now)?;
        if let Some(code) = code {
            let text = format!(
                "Your code is {code}. It is good for 15 minutes.\nIf you did not log in just now, somebody knows your password: please call us.\n"
            );
            let message = Message { to: account.mail, subject: format!("{practice}: your code {code}"), text };
            messages::queue(tx, Channel::Mail, "", &message, tx.now_ms())?;
        }
        Ok::<_, AccountError>(())
    };
    web.store().write(&actor, begin).await?;
    Ok(code_form(&web, &visit, &token, by_mail, &Problems::default()).into_response())
}

async fn second_step(
    State(web): State<Web>,
    visit: Visit,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, PageError> {
    let (now, token, asked) = (web.now(), form.text("token").to_owned(), form.text("token").to_owned());
    let found = web.store().internal(move |db| portal::step(db, &asked, now)).await?;
    let Some(step) = found else { return Ok(again(&web, &visit, &Form::default(), BEGIN_AGAIN)) };
    let account = &step.credentials.account;
    let Some(counted) = admit(&web, &visit, &account.mail).await? else {
        return Ok(again(&web, &visit, &Form::default(), TOO_OFTEN));
    };
    let code: String = form.text("code").chars().filter(|c| !c.is_whitespace()).collect();
    let totp = match (&step.credentials.totp_secret, step.by_mail()) {
        (Some(secret), false) => Totp::verify(secret, &code, step.credentials.totp_step),
        _ => None,
    };
    let right = step.is_mailed(&token, &code) || totp.is_some();
    let (device, name) = (visit.device.clone(), portal::counted_name(&account.mail));
    let (session, csrf, id) = (service::auth::random_token(), service::auth::random_token(), account.id.clone());
    let (fresh, old, own) =
        (session.clone(), gate::cookie(&headers, portal::COOKIE).map(service::auth::token_hash), token.clone());
    let enter = move |tx: &mut Tx<'_>| {
        let db = tx.connection();
        if !right || !portal::finish_step(db, &id, &own, totp)? {
            portal::wrong_step(db, &own)?;
            tx.note(Event::new(Action::Login, "portal", "").outcome(Outcome::Failed));
            return Ok(None);
        }
        lockout::succeeded(db, &counted)?;
        if let Some(old) = old {
            portal::close(db, &old)?;
        }
        portal::open(db, &id, &fresh, &csrf, now)?;
        tx.note(Event::new(Action::Login, "portal", ""));
        Ok::<_, AccountError>(Some(lockout::welcome(tx.connection(), device.as_deref(), &name)?))
    };
    let entered = web.store().write(&actor_of(account), enter).await?;
    let Some(device) = entered else {
        let mut problems = Problems::default();
        problems.add("code", WRONG_CODE);
        let page = code_form(&web, &visit, &token, step.by_mail(), &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    log::info!("portal.opened");
    let mut response = redirect("/");
    gate::set_cookie(response.headers_mut(), portal::COOKIE, &session, None);
    gate::set_cookie(response.headers_mut(), FORM_COOKIE, "", Some(0));
    if let Some(device) = device {
        let (cookie, age) = (lockout::PORTAL_DEVICE_COOKIE, lockout::DEVICE_COOKIE_S.into());
        gate::set_cookie(response.headers_mut(), cookie, &device, Some(age));
    }
    Ok(response)
}

async fn logout(State(web): State<Web>, visit: Visit) -> Result<Response, PageError> {
    if let Some(session) = visit.session.clone() {
        let close = move |tx: &mut Tx<'_>| {
            portal::close(tx.connection(), &session.token_hash)?;
            tx.note(Event::new(Action::Logout, "portal", ""));
            Ok::<_, AccountError>(())
        };
        web.store().write(&visit.actor, close).await?;
    }
    let mut response = redirect("/login");
    gate::set_cookie(response.headers_mut(), portal::COOKIE, "", Some(0));
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\", \"storage\""));
    Ok(response)
}

async fn open_invite(web: &Web, token: &str) -> Result<portal::Invite, PageError> {
    let (token, now) = (token.to_owned(), web.now());
    Ok(web.store().internal(move |db| portal::open_invite(db, &token, now)).await?)
}

async fn invite_page(State(web): State<Web>, visit: Visit, Path(token): Path<String>) -> Result<Markup, PageError> {
    let invite = open_invite(&web, &token).await?;
    invite_form(&web, &visit, &invite, &Form::default(), &Problems::default())
}

fn invite_form(
    web: &Web,
    visit: &Visit,
    invite: &portal::Invite,
    form: &Form,
    problems: &Problems,
) -> Result<Markup, PageError> {
    let (practice, mail) = (&web.settings().practice_name, web.settings().has_mail);
    let url = Totp::otpauth_url(&invite.totp_secret, practice, &invite.mail);
    let by_mail = mail && form.text("factor") != "app";
    let title = if invite.proxy.is_some() { "Act for somebody online" } else { "Your record online" };
    Ok(layout::card(
        practice,
        title,
        &html! {
            @if invite.proxy.is_some() { p { "The practice lets you act for somebody in its patient portal." } }
            p { "Set up your account. You log in with " b { (invite.mail) } "." }
            (problems.summary())
            form method="post" action=(visit.here) {
                (layout::csrf(visit))
                (Field::new("Your birth date", "birth", form.text("birth")).kind("date").required().autocomplete("bday")
                    .hint("To see that this mail reached the right person").show(problems))
                (Field::new("Password", "password", "").kind("password").required().autocomplete("new-password")
                    .hint("At least 12 characters; several words make a good one").show(problems))
                (Field::new("Password again", "again", "").kind("password").required().autocomplete("new-password").show(problems))
                fieldset.choice { legend { "At each login we also ask for a code" }
                    @if mail { label.check { input type="radio" name="factor" value="mail" checked[by_mail]; " Sent to my e-mail address" } }
                    label.check { input type="radio" name="factor" value="app" checked[!by_mail]; " From an authenticator app (safer)" }
                }
                details open[!by_mail] { summary { "Set up the authenticator app" }
                    div.enrol { div.qr { (qr_svg(&url)?) } p { "Scan this, or enter the key: " code { (invite.totp_secret) } } }
                    (Field::new("Code", "code", "").autocomplete("one-time-code").hint("Six digits from the app; only if you chose it").show(problems))
                }
                p.actions { button.primary type="submit" { "Open my account" } }
            }
        },
    ))
}

/// The grant that an invitation is for; `None` for a patient's own.
async fn granted(web: &Web, invite: &portal::Invite) -> Result<Option<Proxy>, PageError> {
    let (Some(id), now) = (invite.proxy.clone(), web.now()) else { return Ok(None) };
    let found = web.store().internal(move |db| proxy::invited(db, &id, now)).await?;
    Ok(Some(found.ok_or(AccountError::BadLink)?))
}

/// The birth date of whom an invitation is for, as the practice knows it.
async fn birth_date(web: &Web, patient: &str, granted: Option<&Proxy>) -> Result<Option<chrono::NaiveDate>, PageError> {
    if let Some(proxy) = granted {
        return Ok(dates::parse_day(&proxy.birth));
    }
    let id = patient.to_owned();
    let read =
        move |view: &View<'_>| Ok::<_, StoreError>(PatientFacts::read(&view.read("Patient", &id)?.json()?).birth);
    Ok(web.store().view(&Actor::of_patient("invited", patient), read).await?)
}

async fn accept(
    State(web): State<Web>,
    visit: Visit,
    Path(token): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let invite = open_invite(&web, &token).await?;
    let granted = granted(&web, &invite).await?;
    let mut problems = Problems::default();
    if let Err(error) = accounts::check_password_form(form.raw("password")) {
        problems.add("password", error.to_string());
    }
    if form.raw("password") != form.raw("again") {
        problems.add("again", "The two passwords differ.");
    }
    let by_mail = web.settings().has_mail && form.text("factor") != "app";
    let code: String = form.text("code").chars().filter(|c| !c.is_whitespace()).collect();
    let step = if by_mail { None } else { Totp::verify(&invite.totp_secret, &code, None) };
    if !by_mail && step.is_none() {
        problems.add("code", "This is not the current code. Check that the clock of your phone is right.");
    }
    // Asked last: every wrong date counts.
    let birth = dates::parse_day(form.text("birth"));
    if problems.is_empty() && (birth.is_none() || birth != birth_date(&web, &invite.patient, granted.as_ref()).await?) {
        let own = token.clone();
        web.write_accounts(&Actor::anonymous(), move |db| portal::wrong_invite(db, &own)).await?;
        problems.add("birth", "This is not the birth date in our records. After five attempts the link ends.");
    }
    if !problems.is_empty() {
        let page = invite_form(&web, &visit, &invite, &form, &problems)?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let hash = web.hash_password(form.raw("password").to_owned()).await.ok_or(PageError::Internal("password"))?;
    let id = crate::clock::new_id().map_err(|_| PageError::Internal("randomness"))?;
    let (now, patient, mail) = (web.now(), invite.patient.clone(), invite.mail.clone());
    let secret = (!by_mail).then(|| invite.totp_secret.clone());
    let actor = granted.as_ref().map_or_else(|| Actor::of_patient(&id, &patient), |proxy| Actor::of_proxy(&id, proxy));
    let birth = birth.map(|day| day.to_string());
    let create = move |tx: &mut Tx<'_>| {
        let db = tx.connection();
        portal::take_invite(db, &token, now)?;
        let (id, password_hash, totp_secret, totp_step) = (id.as_str(), hash.as_str(), secret.as_deref(), step);
        match &granted {
            Some(proxy) => {
                let new = portal::Secrets { id, password_hash, totp_secret, totp_step };
                proxy::set_up(db, proxy, &new, now)?;
            }
            None => {
                let (patient, mail, birth) = (patient.as_str(), mail.as_str(), birth.as_deref());
                let new = portal::NewAccount { id, patient, mail, password_hash, totp_secret, totp_step, birth };
                portal::set_up(db, &new, now)?;
            }
        }
        tx.note(Event::new(Action::UserChange, "portal", "").of_patient(&patient));
        Ok::<_, AccountError>(())
    };
    web.store().write(&actor, create).await?;
    Ok(redirect("/login"))
}
