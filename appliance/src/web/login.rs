//! Login, lock and unlock, logout, and the page where an invited user sets password and authenticator.

use super::fields::{Field, Problems};
use super::form::{Form, percent_encode};
use super::gate::{self, FORM_COOKIE, UrlQuery, Visit};
use super::{Method, PageError, Policy, Route, Web, keys, layout};
use crate::access::accounts::{self, Account, AccountError, Credentials, NewAccount};
use crate::access::lockout::{self, Counted};
use crate::access::{Actor, emergency, sessions};
use crate::audit::{Action, Event, Outcome};
use crate::clock;
use crate::store::StoreError;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use maud::{Markup, PreEscaped, html};
use serde::Deserialize;
use service::auth::Totp;

/// One sentence for every reason, so that an answer does not tell which part was wrong.
const REFUSED: &str = "Name, password or code is not right. A code can be used once; wait for the next one.";
pub const LOCKED_OUT: &str = "Too many failed attempts. Wait 15 minutes, or use a browser in which you have logged in before. If \
                              somebody else keeps trying your name, the server's administrator can let you in (appliance user unlock).";
const LOCKED_AGAIN: &str = "Too many failed attempts. Log out and log in again, or wait 15 minutes.";

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    vec![
        Route::new(Method::Get, "/", Policy::LoggedIn, start, ()),
        Route::new(Method::Get, "/login", Policy::Public, login_page, w()),
        Route::new(Method::Post, "/login", Policy::Public, login, w()),
        Route::new(Method::Get, "/unlock", Policy::AnySession, unlock_page, w()),
        Route::new(Method::Post, "/unlock", Policy::AnySession, unlock, w()),
        Route::new(Method::Post, "/lock", Policy::AnySession, lock, w()),
        Route::new(Method::Post, "/logout", Policy::AnySession, logout, w()),
        Route::new(Method::Get, "/alive", Policy::LoggedIn, alive, ()),
        Route::new(Method::Get, "/invite/{token}", Policy::Public, invite_page, w()),
        Route::new(Method::Post, "/invite/{token}", Policy::Public, accept_invite, w()),
    ]
}

#[derive(Deserialize)]
struct Destination {
    #[serde(default)]
    to: String,
}

/// A page of ours to go to; anything else becomes the start page, so that no link to us leads elsewhere.
pub fn own_path(to: &str) -> &str {
    let plain = to.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let inside = to.starts_with('/') && !to.starts_with("//");
    let login = ["/login", "/unlock", "/lock", "/logout", "/alive"].iter().any(|p| to.starts_with(p));
    if plain && inside && !login { to } else { "/" }
}

/// Sends the browser to `page`, which afterwards leads back to `here`.
pub fn go_to(page: &str, here: &str, fragment: bool) -> Response {
    let target = match own_path(here) {
        "/" => page.to_owned(),
        here => format!("{page}?to={}", percent_encode(here)),
    };
    if fragment {
        // htmx would swap the answer into the page; this header makes the browser go there instead.
        return (StatusCode::UNAUTHORIZED, [("hx-redirect", target)]).into_response();
    }
    redirect(&target)
}

/// `303 See Other`: the browser asks with GET, a reload repeats nothing.
pub fn redirect(target: &str) -> Response {
    match HeaderValue::from_str(target) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(_) => PageError::Internal("redirect").into_response(),
    }
}

async fn start() -> Response {
    redirect("/schedule")
}

/// Tells the session that somebody is at the keyboard; the page asks while a person types.
async fn alive() -> StatusCode {
    StatusCode::NO_CONTENT
}

async fn login_page(State(web): State<Web>, visit: Visit, UrlQuery(to): UrlQuery<Destination>) -> Response {
    if visit.session.is_some() {
        return redirect(own_path(&to.to));
    }
    login_form(&web, &visit, own_path(&to.to), "", &Problems::default()).into_response()
}

fn login_form(web: &Web, visit: &Visit, to: &str, name: &str, problems: &Problems) -> Markup {
    layout::card(
        &web.settings().practice_name,
        "Log in",
        &html! {
            (problems.summary())
            form method="post" action="/login" data-no-guard="" {
                (layout::csrf(visit))
                input type="hidden" name="to" value=(to);
                (Field::new("User name", "name", name).required().autocomplete("username").show(problems))
                (Field::new("Password", "password", "").kind("password").required()
                    .autocomplete("current-password").show(problems))
                (Field::new("Code", "code", "").required().autocomplete("one-time-code")
                    .hint("Six digits from your authenticator app, or a recovery code").show(problems))
                p.actions { button.primary type="submit" { "Log in" }
                    @if keys::are_possible(web) { button type="submit" formaction="/login/key" formnovalidate { "Use a key instead of a code" } } }
            }
        },
    )
}

/// The login once more, with what was wrong.
pub fn again(web: &Web, visit: &Visit, to: &str, name: &str, sentence: &'static str) -> Response {
    let mut problems = Problems::default();
    problems.add("", sentence);
    (StatusCode::UNPROCESSABLE_ENTITY, login_form(web, visit, to, name, &problems)).into_response()
}

async fn login(State(web): State<Web>, visit: Visit, headers: HeaderMap, form: Form) -> Result<Response, PageError> {
    let to = own_path(form.text("to")).to_owned();
    match prove(&web, &visit, &form).await? {
        Ok(account) => open_session(&web, &headers, account, &to).await,
        Err(sentence) => Ok(again(&web, &visit, &to, form.text("name"), sentence)),
    }
}

/// Opens a session for somebody who has proved both factors, and leads on.
pub async fn open_session(web: &Web, headers: &HeaderMap, account: Account, to: &str) -> Result<Response, PageError> {
    // Whatever session this browser had ends here.
    let old = gate::cookie(headers, sessions::COOKIE).map(service::auth::token_hash);
    let device = gate::cookie(headers, lockout::DEVICE_COOKIE).map(str::to_owned);
    let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
    let kind = sessions::device(agent.unwrap_or_default());
    let token = service::auth::random_token();
    let (now, fresh, csrf) = (web.now(), token.clone(), service::auth::random_token());
    let actor = Actor::staff(&account.id, &account.name, account.role);
    let device = web
        .store()
        .write(&actor, move |tx| {
            if let Some(old) = old {
                sessions::close(tx.connection(), &old)?;
            }
            sessions::open(tx.connection(), &account, (&fresh, &csrf), &kind, now)?;
            tx.note(Event::new(Action::Login, "session", ""));
            lockout::welcome(tx.connection(), device.as_deref(), &account.name)
        })
        .await?;
    log::info!("session.opened");
    let mut response = redirect(to);
    gate::set_cookie(response.headers_mut(), sessions::COOKIE, &token, None);
    gate::set_cookie(response.headers_mut(), FORM_COOKIE, "", Some(0));
    if let Some(device) = device {
        gate::set_cookie(
            response.headers_mut(),
            lockout::DEVICE_COOKIE,
            &device,
            Some(lockout::DEVICE_COOKIE_S.into()),
        );
    }
    Ok(response)
}

/// Counts a try of `name` before it is made, with what is kept of it; `None` when it may not be made.
pub async fn admit(web: &Web, visit: &Visit, name: &str) -> Result<Option<(Counted, Option<Credentials>)>, PageError> {
    let (now, name, address, device) = (web.now(), name.to_owned(), visit.address, visit.device.clone());
    let admit = move |db: &crate::db::Connection| match lockout::admit(db, &name, address, device.as_deref(), now)? {
        Some(counted) => Ok(Some((counted, accounts::credentials(db, &name)?))),
        None => Ok(None),
    };
    let admitted = web.write_accounts(&Actor::anonymous(), admit).await?;
    if admitted.is_none() {
        log::warn!("login.locked-out");
    }
    Ok(admitted)
}

/// Checks name, password and code. `Ok(Err(sentence))` is what the person is told.
async fn prove(web: &Web, visit: &Visit, form: &Form) -> Result<Result<Account, &'static str>, PageError> {
    let now = web.now();
    let Some((counted, found)) = admit(web, visit, form.text("name")).await? else { return Ok(Err(LOCKED_OUT)) };
    let (password_fits, step) = verified_step(web, form, found.as_ref()).await;
    let code = form.text("code").to_owned();
    let account = found.map(|c| c.account);
    let actor = account.as_ref().map_or_else(Actor::anonymous, |a| Actor::staff(&a.id, &a.name, a.role));
    let known = account.as_ref().map(|a| a.id.clone()).unwrap_or_default();
    let taken = web
        .store()
        .write(&actor, move |tx| {
            let taken = match step {
                Some(step) => accounts::take_totp_step(tx.connection(), &known, step)?,
                None if password_fits => emergency::take_recovery_code(tx.connection(), &known, &code, now)?,
                None => false,
            };
            if taken {
                lockout::succeeded(tx.connection(), &counted)?;
            } else {
                tx.note(Event::new(Action::Login, "session", "").outcome(Outcome::Failed));
            }
            Ok::<_, AccountError>(taken)
        })
        .await?;
    match account {
        Some(account) if taken => Ok(Ok(account)),
        _ => {
            log::warn!("login.failed");
            Ok(Err(REFUSED))
        }
    }
}

/// Checks name and password alone, before a key is asked for. `Ok(Err(sentence))` is what the person is told.
pub async fn password_of(web: &Web, visit: &Visit, form: &Form) -> Result<Result<Account, &'static str>, PageError> {
    let Some((counted, found)) = admit(web, visit, form.text("name")).await? else { return Ok(Err(LOCKED_OUT)) };
    let (fits, _) = verified_step(web, form, found.as_ref()).await;
    let account = found.map(|c| c.account).filter(|_| fits);
    let record = move |tx: &mut crate::store::Tx<'_>| {
        if fits {
            lockout::was_right(tx.connection(), &counted)?;
        } else {
            tx.note(Event::new(Action::Login, "session", "").outcome(Outcome::Failed));
        }
        Ok::<_, AccountError>(())
    };
    web.store().write(&Actor::anonymous(), record).await?;
    if account.is_none() {
        log::warn!("login.failed");
    }
    Ok(account.ok_or("Name or password is not right."))
}

/// Whether the password is right, and the TOTP step where the code is right too. The password is checked whatever the rest
/// says.
async fn verified_step(web: &Web, form: &Form, found: Option<&Credentials>) -> (bool, Option<u64>) {
    let usable = found.filter(|c| !c.account.disabled);
    let password = form.raw("password").chars().take(accounts::PASSWORD_CHARS_MAX + 1).collect();
    let password_fits = web.check_password(password, usable.map(|c| c.password_hash.clone())).await;
    let code: String = form.text("code").chars().filter(|c| !c.is_whitespace()).collect();
    let step = usable.and_then(|c| Totp::verify(&c.totp_secret, &code, c.totp_step));
    (password_fits, step.filter(|_| password_fits))
}

async fn unlock_page(State(web): State<Web>, visit: Visit, UrlQuery(to): UrlQuery<Destination>) -> Response {
    let to = own_path(&to.to);
    match &visit.session {
        Some(session) if session.state == sessions::State::Open => redirect(to),
        _ => unlock_form(&web, &visit, to, &Kept::default(), &Problems::default()).into_response(),
    }
}

/// The page for a form that was sent into a locked session: what was typed is kept and sent again after the unlock.
pub fn locked_form(web: &Web, visit: Option<&Visit>, here: &str, form: &Form) -> Response {
    let Some(visit) = visit else { return redirect("/unlock") };
    let kept = Kept { fields: form.to_carry().collect(), file: form.has_upload(), secret: form.has_secret() };
    let page = unlock_form(web, visit, own_path(here), &kept, &Problems::default());
    (StatusCode::UNAUTHORIZED, page).into_response()
}

/// Prefix of fields that wait for the unlock.
const KEPT: &str = "kept.";
/// Fields that say that something did not come along.
const FILE_LOST: &str = "lost-file";
const SECRET_LOST: &str = "lost-secret";

/// What a locked screen carries of a form.
#[derive(Default)]
struct Kept<'a> {
    fields: Vec<(&'a str, &'a str)>,
    /// A file had been chosen, which no page can hold.
    file: bool,
    /// A password or code had been entered, which is in no page.
    secret: bool,
}

impl<'a> Kept<'a> {
    /// What the form of the locked screen carried.
    fn read(form: &'a Form) -> Kept<'a> {
        let fields = form.fields().filter_map(|(name, value)| Some((name.strip_prefix(KEPT)?, value))).collect();
        let said = |name| !form.raw(name).is_empty();
        Kept { fields, file: said(FILE_LOST), secret: said(SECRET_LOST) }
    }

    fn is_empty(&self) -> bool {
        self.fields.is_empty() && !self.file && !self.secret
    }

    /// What has to be done again.
    fn lost(&self) -> &'static str {
        match (self.file, self.secret) {
            (false, false) => "",
            (true, false) => " The file that you chose is not: it must be chosen again.",
            (false, true) => " Passwords and codes are not: they must be entered again.",
            (true, true) => " The file that you chose is not, nor are passwords and codes: they must be entered again.",
        }
    }
}

fn unlock_form(web: &Web, visit: &Visit, to: &str, kept: &Kept<'_>, problems: &Problems) -> Markup {
    let display = visit.session.as_ref().map_or("", |s| s.display.as_str());
    layout::card(
        &web.settings().practice_name,
        "Screen locked",
        &html! {
            p { "Locked for " b { (display) } "." @if !kept.is_empty() { " What you entered is kept." (kept.lost()) } }
            (problems.summary())
            form method="post" action="/unlock" data-no-guard="" {
                (layout::csrf(visit))
                input type="hidden" name="to" value=(to);
                @for (name, value) in &kept.fields { input type="hidden" name={ (KEPT) (name) } value=(value); }
                @if kept.file { input type="hidden" name=(FILE_LOST) value="yes"; }
                @if kept.secret { input type="hidden" name=(SECRET_LOST) value="yes"; }
                (Field::new("Password", "password", "").kind("password").required()
                    .autocomplete("current-password").show(problems))
                p.actions { button.primary type="submit" { "Unlock" } }
            }
            form method="post" action="/logout" {
                (layout::csrf(visit))
                p.actions { button.quiet type="submit" { "Log out and let somebody else log in" } }
            }
        },
    )
}

async fn unlock(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let session = visit.session.clone().ok_or(PageError::Forbidden)?;
    let to = own_path(form.text("to")).to_owned();
    let kept = Kept::read(&form);
    if let Err(sentence) = unlock_session(&web, &visit, &session, &form).await? {
        let mut problems = Problems::default();
        problems.add("", sentence);
        let page = unlock_form(&web, &visit, &to, &kept, &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let token = service::auth::random_token();
    let (fresh, now, opened) = (token.clone(), web.now(), session.clone());
    web.write_accounts(&visit.actor, move |db| sessions::unlock(db, &opened, &fresh, now)).await?;
    let mut response = match (visit.fragment, kept.is_empty()) {
        (true, _) => StatusCode::NO_CONTENT.into_response(),
        (false, true) => redirect(&to),
        (false, false) => {
            let text = match kept.lost() {
                "" => "What you had entered before the screen locked is not saved yet.".to_owned(),
                lost => format!("What you had entered before the screen locked is kept, and not saved yet.{lost}"),
            };
            continue_form(&web, &visit, &to, &kept.fields, ("Unlocked", &text)).into_response()
        }
    };
    gate::set_cookie(response.headers_mut(), sessions::COOKIE, &token, None);
    Ok(response)
}

async fn unlock_session(
    web: &Web,
    visit: &Visit,
    session: &sessions::Session,
    form: &Form,
) -> Result<Result<(), &'static str>, PageError> {
    Ok(match password_again(web, &visit.actor, session, form.raw("password"), "unlock").await? {
        Again::Right => Ok(()),
        Again::Wrong => Err("The password is not right."),
        Again::TooOften => Err(LOCKED_AGAIN),
    })
}

/// What became of a password that was asked for again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Again {
    Right,
    Wrong,
    TooOften,
}

/// Asks whoever sits at an open session whether they are the one who opened it. Wrong passwords count against this session
/// alone: nobody else can spend its tries.
pub async fn password_again(
    web: &Web,
    actor: &Actor,
    session: &sessions::Session,
    typed: &str,
    what: &'static str,
) -> Result<Again, PageError> {
    let (now, name, token_hash) = (web.now(), session.actor.name.clone(), session.token_hash);
    let admit = move |db: &crate::db::Connection| match lockout::admit_again(db, &token_hash, now)? {
        Some(counted) => Ok(Some((counted, accounts::credentials(db, &name)?))),
        None => Ok(None),
    };
    let Some((counted, found)) = web.write_accounts(actor, admit).await? else {
        log::warn!("password-again.locked-out");
        return Ok(Again::TooOften);
    };
    let hash = found.filter(|c| !c.account.disabled).map(|c| c.password_hash);
    let typed = typed.chars().take(accounts::PASSWORD_CHARS_MAX + 1).collect();
    let fits = web.check_password(typed, hash).await;
    let record = move |tx: &mut crate::store::Tx<'_>| {
        let outcome = if fits { Outcome::Done } else { Outcome::Failed };
        if fits {
            lockout::succeeded(tx.connection(), &counted)?;
        }
        tx.note(Event::new(Action::Login, "session", what).outcome(outcome));
        Ok::<_, AccountError>(())
    };
    web.store().write(actor, record).await?;
    Ok(if fits { Again::Right } else { Again::Wrong })
}

/// The page for a form with characters that no record holds: nothing is saved, and what was typed is kept without them.
pub fn cleaned_form(web: &Web, visit: Option<&Visit>, here: &str, form: &Form) -> Response {
    let Some(visit) = visit else { return redirect("/") };
    let typed: Vec<(&str, &str)> = form.to_carry().collect();
    let file = if form.has_upload() { " The file that you chose must be chosen again: go back for that." } else { "" };
    let text = format!(
        "What you entered holds invisible control characters, as texts copied from other programs do. They cannot be \
         stored, and nothing is saved yet. The rest is kept, without them.{file}"
    );
    let page = continue_form(web, visit, here, &typed, ("Characters that cannot be stored", &text));
    (StatusCode::UNPROCESSABLE_ENTITY, page).into_response()
}

/// One more press sends what was typed, under the reader's eyes.
fn continue_form(web: &Web, visit: &Visit, to: &str, kept: &[(&str, &str)], (title, text): (&str, &str)) -> Markup {
    layout::card(
        &web.settings().practice_name,
        title,
        &html! {
            p { (text) }
            form method="post" action=(to) {
                (layout::csrf(visit))
                @for (name, value) in kept { input type="hidden" name=(name) value=(value); }
                p.actions { button.primary type="submit" { "Save it now" } a.button href=(to) { "Discard it" } }
            }
        },
    )
}

async fn lock(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let session = visit.session.clone().ok_or(PageError::Forbidden)?;
    let now = web.now();
    let lock = move |tx: &mut crate::store::Tx<'_>| {
        sessions::lock(tx.connection(), &session, now)?;
        tx.note(Event::new(Action::Lock, "session", ""));
        Ok::<_, AccountError>(())
    };
    web.store().write(&visit.actor, lock).await?;
    if visit.fragment {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(go_to("/unlock", form.text("to"), false))
}

async fn logout(State(web): State<Web>, visit: Visit) -> Result<Response, PageError> {
    if let Some(session) = visit.session.clone() {
        let close = move |tx: &mut crate::store::Tx<'_>| {
            sessions::close(tx.connection(), &session.token_hash)?;
            tx.note(Event::new(Action::Logout, "session", ""));
            Ok::<_, AccountError>(())
        };
        web.store().write(&visit.actor, close).await?;
    }
    let mut response = redirect("/login");
    gate::set_cookie(response.headers_mut(), sessions::COOKIE, "", Some(0));
    // Nothing of the records stays in the browser of a shared machine.
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\", \"storage\""));
    Ok(response)
}

async fn invite_page(State(web): State<Web>, visit: Visit, Path(token): Path<String>) -> Result<Response, PageError> {
    let now = web.now();
    let find = move |db: &crate::db::Connection| accounts::invite(db, &token, now);
    let invite = web.store().internal(find).await?;
    Ok(invite_form(&web, &visit, &invite, &Form::default(), &Problems::default())?.into_response())
}

fn invite_form(
    web: &Web,
    visit: &Visit,
    invite: &accounts::Invite,
    form: &Form,
    problems: &Problems,
) -> Result<Markup, PageError> {
    let practice = &web.settings().practice_name;
    let url = Totp::otpauth_url(&invite.totp_secret, practice, invite.role.as_str());
    let grouped: Vec<String> =
        invite.totp_secret.as_bytes().chunks(4).map(|c| String::from_utf8_lossy(c).into_owned()).collect();
    Ok(layout::card(
        practice,
        "Set up your account",
        &html! {
            p { "You were invited as " b { (invite.role) } "." }
            (problems.summary())
            form method="post" action=(visit.here) {
                (layout::csrf(visit))
                (Field::new("Your name", "display", form.text("display")).required().autocomplete("name")
                    .hint("As colleagues know you, for example Dr. Maria Keller").show(problems))
                (Field::new("User name", "name", form.text("name")).required().autocomplete("username")
                    .hint("For logging in, for example mkeller").show(problems))
                (Field::new("Password", "password", "").kind("password").required().autocomplete("new-password")
                    .hint("At least 12 characters; several words make a good one").show(problems))
                (Field::new("Password again", "again", "").kind("password").required()
                    .autocomplete("new-password").show(problems))
                h2 { "Authenticator" }
                p { "Scan this with an authenticator app on your phone, then enter the code that it shows." }
                div.enrol {
                    div.qr { (qr_svg(&url)?) }
                    p { "Cannot scan? Enter this key: " code { (grouped.join(" ")) } }
                }
                (Field::new("Code", "code", "").required().autocomplete("one-time-code")
                    .hint("Six digits from the app").show(problems))
                p.actions { button.primary type="submit" { "Create my account" } }
            }
        },
    ))
}

/// A QR code as an inline SVG element: no image request, nothing for a cache.
pub fn qr_svg(text: &str) -> Result<Markup, PageError> {
    let code = qrcode::QrCode::new(text.as_bytes()).map_err(|_| PageError::Internal("QR code"))?;
    let svg = code.render::<qrcode::render::svg::Color>().min_dimensions(200, 200).quiet_zone(true).build();
    let start = svg.find("<svg").ok_or(PageError::Internal("QR code"))?;
    Ok(PreEscaped(svg[start..].to_owned()))
}

async fn accept_invite(
    State(web): State<Web>,
    visit: Visit,
    Path(token): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let (now, asked) = (web.now(), token.clone());
    let find = move |db: &crate::db::Connection| accounts::invite(db, &asked, now);
    let invite = web.store().internal(find).await?;
    let mut problems = Problems::default();
    let step = check_enrolment(&form, &invite, &mut problems);
    let (Some(step), true) = (step, problems.is_empty()) else {
        let page = invite_form(&web, &visit, &invite, &form, &problems)?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    let hash = web.hash_password(form.raw("password").to_owned()).await.ok_or(PageError::Internal("password"))?;
    let id = clock::new_id().map_err(|_| PageError::Internal("randomness"))?;
    let actor = Actor::staff(&id, form.text("name"), invite.role);
    let (filled, role, secret) = (form.clone(), invite.role, invite.totp_secret.clone());
    let create = move |tx: &mut crate::store::Tx<'_>| {
        accounts::take_invite(tx.connection(), &token, now)?;
        let new = NewAccount {
            id: &id,
            name: filled.text("name"),
            display: filled.text("display"),
            role,
            practitioner: None,
            password_hash: &hash,
            totp_secret: &secret,
            totp_step: Some(step),
        };
        accounts::insert(tx.connection(), &new, now)?;
        tx.note(Event::new(Action::UserChange, "user", &id));
        Ok::<_, AccountError>(())
    };
    match web.store().write(&actor, create).await {
        Ok(()) => Ok(redirect("/login")),
        Err(AccountError::NameTaken) => {
            problems.add("name", AccountError::NameTaken.to_string());
            let page = invite_form(&web, &visit, &invite, &form, &problems)?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

/// Checks what an invited person entered; the step of the code when it is right.
fn check_enrolment(form: &Form, invite: &accounts::Invite, problems: &mut Problems) -> Option<u64> {
    if let Err(error) = accounts::login_name(form.text("name")) {
        problems.add("name", error.to_string());
    }
    if form.text("display").is_empty() || form.text("display").chars().count() > 80 {
        problems.add("display", AccountError::BadDisplay.to_string());
    }
    if let Err(error) = accounts::check_password_form(form.raw("password")) {
        problems.add("password", error.to_string());
    }
    if form.raw("password") != form.raw("again") {
        problems.add("again", "The two passwords differ.");
    }
    let code: String = form.text("code").chars().filter(|c| !c.is_whitespace()).collect();
    let step = Totp::verify(&invite.totp_secret, &code, None);
    if step.is_none() {
        problems.add("code", "This is not the current code. Check that the clock of your phone is right.");
    }
    step
}

impl From<StoreError> for Problems {
    fn from(error: StoreError) -> Self {
        let mut problems = Self::default();
        problems.add("", format!("{error}."));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_only_to_pages_of_ours() {
        for good in ["/schedule?day=2024-01-02", "/patients/abc"] {
            assert_eq!(own_path(good), good);
        }
        for bad in
            ["", "//evil.example", "https://evil.example", "/\\evil", "/a\nb", "/a b", "/login?to=/x", "javascript:x"]
        {
            assert_eq!(own_path(bad), "/", "{bad:?}");
        }
    }
}
