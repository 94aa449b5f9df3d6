//! Passkeys and security keys in the pages: added on one's own account, used at the login in place of the six digits.

use super::fields::{Field, Problems};
use super::form::Form;
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::{self, redirect};
use super::{Method, PageError, Policy, Route, Web, account, assets};
use crate::access::Actor;
use crate::access::accounts::AccountError;
use crate::access::lockout;
use crate::access::webauthn::keys::{self, Purpose, Question, StaffKey};
use crate::access::webauthn::{self, ALGORITHMS, Assertion, Registration, RelyingParty, WebauthnError, encoded};
use crate::audit::{Action, Event, Outcome};
use crate::clock;
use crate::dates;
use crate::store::Tx;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use serde_json::json;

const LABEL_CHARS_MAX: usize = 60;
const NOT_TAKEN: &str = "The key's answer was not accepted. Try again, or use a code.";

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    vec![
        Route::new(Method::Post, "/login/key", Policy::Public, ask_at_login, w()),
        Route::new(Method::Post, "/login/key/answer", Policy::Public, answer_at_login, w()),
        Route::new(Method::Post, "/account/keys/new", Policy::LoggedIn, ask_to_add, w()),
        Route::new(Method::Post, "/account/keys", Policy::LoggedIn, add, w()),
        Route::new(Method::Post, "/account/keys/end", Policy::LoggedIn, remove, w()),
    ]
}

fn party(web: &Web) -> Result<RelyingParty, PageError> {
    RelyingParty::of(&web.settings().bases).ok_or(PageError::NotFound)
}

/// Whether browsers make keys for the address of this service.
pub fn are_possible(web: &Web) -> bool {
    RelyingParty::of(&web.settings().bases).is_some()
}

/// The part of one's own account.
pub async fn section(web: &Web, visit: &Visit, problems: &Problems) -> Result<Markup, PageError> {
    if !are_possible(web) {
        return Ok(html! {});
    }
    let own = visit.actor.id.clone();
    let held = web.store().internal(move |db| keys::of_account(db, &own)).await?;
    let zone = web.settings().zone;
    let day = |s: i64| dates::long_day(dates::local(s, zone).date_naive());
    Ok(html! {
        section.panel { h2 { "Passkeys and security keys" }
            p { "A key of your computer, phone or USB port in place of the six digits. The codes of your authenticator stay good." }
            @if !held.is_empty() { ul.plain { @for key in &held { li {
                b { (key.label) } " " span.soft { "added " (day(key.created)) @if let Some(used) = key.used { ", last used " (day(used)) } }
                @if let Some(at) = key.copied { div.notice.error role="alert" { p {
                    "On " (day(at)) " somebody answered with this key and an older count than it had reached: there may be a copy of it. "
                    b { "Remove it, and add another key." } " If you did not log in on that day, tell your practice's administrator." } } }
                form.inline method="post" action="/account/keys/end" { (layout::csrf(visit)) input type="hidden" name="key" value=(key.id);
                    button.small type="submit" aria-label={ "Remove " (key.label) } { "Remove" } }
            } } } }
            form method="post" action="/account/keys/new" { (layout::csrf(visit))
                (Field::new("Name of the key", "label", "").required().hint("For example: blue key on my key ring").show(problems))
                (Field::new("Password for this", "key-password", "").kind("password").required().autocomplete("current-password").show(problems))
                p.actions { button type="submit" { "Add a key" } }
            }
        }
    })
}

async fn ask_to_add(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let party = party(&web)?;
    let mut problems = Problems::default();
    let label = form.text("label").to_owned();
    if label.is_empty() || label.chars().count() > LABEL_CHARS_MAX {
        problems.add("label", "Please name the key in at most 60 characters.");
    }
    if problems.is_empty() && !account::is_own_password(&web, &visit, form.raw("key-password")).await? {
        problems.add("key-password", account::NOT_OWN);
    }
    if !problems.is_empty() {
        let page = account::show(&web, &visit, &problems, &[]).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let own = visit.actor.id.clone();
    let held = web.store().internal(move |db| keys::of_account(db, &own)).await?;
    let (token, challenge) = web.questions().ask(&visit.actor.id, Purpose::Register { label }, web.now())?;
    let display = visit.session.as_ref().map_or("", |session| session.display.as_str());
    let options = json!({
        "challenge": encoded(&challenge),
        "rp": {"id": party.id, "name": web.settings().practice_name},
        // The handle names the account, which a key may show to whoever holds it: a hash, no name of ours.
        "user": {"id": encoded(blake3::hash(visit.actor.id.as_bytes()).as_bytes()), "name": visit.actor.name, "displayName": display},
        "pubKeyCredParams": ALGORITHMS.map(|alg| json!({"type": "public-key", "alg": alg})),
        "excludeCredentials": descriptors(&held),
        "attestation": "none",
        "authenticatorSelection": {"residentKey": "discouraged", "userVerification": "preferred"},
        "timeout": keys::QUESTION_S * 1000,
    });
    let body = html! {
        div.head { h1 { "Add a key" } }
        (dialog(&visit, ("create", "/account/keys"), &token, &options.to_string(), "/account"))
    };
    Ok(layout::page(&web, &visit, Section::Account, "Add a key", None, &body).into_response())
}

/// What the script of the page needs; without one, the page says so.
fn dialog(visit: &Visit, (what, action): (&str, &str), token: &str, options: &str, back: &str) -> Markup {
    html! {
        form.sheet #key method="post" action=(action) data-no-guard="" data-key=(what) data-options=(options) {
            (layout::csrf(visit))
            input type="hidden" name="question" value=(token);
            input type="hidden" name="answer" value="";
            p role="status" data-key-status="" { "Your browser asks for the key now. Touch it, or follow what the screen says." }
            noscript { p { "Keys need JavaScript." } }
            p.actions { button.primary type="button" data-key-again="" { "Ask again" } a.button href=(back) { "Cancel" } }
        }
        script src=(assets::ASSETS.keys.path) defer {}
    }
}

fn descriptors(held: &[StaffKey]) -> Vec<serde_json::Value> {
    held.iter().map(|key| json!({"type": "public-key", "id": encoded(&key.credential.id)})).collect()
}

async fn add(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let party = party(&web)?;
    let question = web.questions().take(form.raw("question"), web.now());
    let question = question.filter(|question| question.account == visit.actor.id);
    let made = question.and_then(|Question { purpose, challenge, .. }| {
        let Purpose::Register { label } = purpose else { return None };
        let answer: Registration = serde_json::from_str(form.raw("answer")).ok()?;
        let made = webauthn::register(&party, &challenge, &answer);
        made.inspect_err(|error| log::warn!(reason = error.to_string().as_str(); "key.not-added")).ok().zip(Some(label))
    });
    let Some((credential, label)) = made else { return refused(&web, &visit).await };
    let id = clock::new_id().map_err(|_| PageError::Internal("randomness"))?;
    let (own, now) = (visit.actor.id.clone(), web.now());
    let store = move |tx: &mut Tx<'_>| {
        let added = keys::insert(tx.connection(), &own, (&id, &label), &credential, now)?;
        if added {
            tx.note(Event::new(Action::UserChange, "key", &id));
        }
        Ok::<_, AccountError>(added)
    };
    match web.store().write(&visit.actor, store).await? {
        true => Ok(redirect("/account")),
        false => refused(&web, &visit).await,
    }
}

async fn refused(web: &Web, visit: &Visit) -> Result<Response, PageError> {
    let mut problems = Problems::default();
    problems
        .add("label", "The key was not added: its answer was not accepted, it is known already, or you have ten keys.");
    let page = account::show(web, visit, &problems, &[]).await?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

async fn remove(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let (own, id) = (visit.actor.id.clone(), form.text("key").to_owned());
    let store = move |tx: &mut Tx<'_>| {
        let removed = keys::remove(tx.connection(), &own, &id)?;
        if removed {
            tx.note(Event::new(Action::UserChange, "key", &id));
        }
        Ok::<_, AccountError>(removed)
    };
    if !web.store().write(&visit.actor, store).await? {
        return Err(PageError::NotFound);
    }
    Ok(redirect("/account"))
}

/// The password was typed, and a key is to follow. That a question comes tells that the password was right, which the lockout
/// counts like every other try.
async fn ask_at_login(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let party = party(&web)?;
    let to = login::own_path(form.text("to")).to_owned();
    let account = match login::password_of(&web, &visit, &form).await? {
        Ok(account) => account,
        Err(sentence) => return Ok(login::again(&web, &visit, &to, form.text("name"), sentence)),
    };
    let own = account.id.clone();
    let held = web.store().internal(move |db| keys::of_account(db, &own)).await?;
    if held.is_empty() {
        let sentence = "No key was added to this account. Enter a code, then add one under Your account.";
        return Ok(login::again(&web, &visit, &to, form.text("name"), sentence));
    }
    let purpose = Purpose::Login { name: account.name, to };
    let (token, challenge) = web.questions().ask(&account.id, purpose, web.now())?;
    let options = json!({
        "challenge": encoded(&challenge), "rpId": party.id, "allowCredentials": descriptors(&held),
        "userVerification": "preferred", "timeout": keys::QUESTION_S * 1000,
    });
    let body = dialog(&visit, ("get", "/login/key/answer"), &token, &options.to_string(), "/login");
    Ok(layout::card(&web.settings().practice_name, "Use your key", &body).into_response())
}

async fn answer_at_login(
    State(web): State<Web>,
    visit: Visit,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, PageError> {
    let party = party(&web)?;
    let Some(question) = web.questions().take(form.raw("question"), web.now()) else {
        return Ok(login::again(&web, &visit, "/", "", "That took too long. Please log in again."));
    };
    let Purpose::Login { name, to } = question.purpose else { return Err(PageError::Forbidden) };
    let Some((counted, credentials)) = login::admit(&web, &visit, &name).await? else {
        return Ok(login::again(&web, &visit, &to, &name, login::LOCKED_OUT));
    };
    let found = match serde_json::from_str::<Assertion>(form.raw("answer")) {
        Ok(answer) => used(&web, &party, &question.account, &question.challenge, &answer).await?,
        Err(_) => Use::Refused,
    };
    // Asked anew: somebody may have ended the account meanwhile.
    let account = credentials.map(|found| found.account);
    let account = account.filter(|account| account.id == question.account && !account.disabled);
    let actor = account.as_ref().map_or_else(Actor::anonymous, |a| Actor::staff(&a.id, &a.name, a.role));
    let now = web.now();
    let known = account.is_some();
    let record = move |tx: &mut Tx<'_>| {
        let taken = match found {
            Use::Right(key, counter) if known => keys::take_counter(tx.connection(), &key, counter, now)?,
            Use::Behind(key) if known => {
                keys::note_copy(tx.connection(), &key.id, now)?;
                tx.note(Event::new(Action::UserChange, "key-copied", &key.id).outcome(Outcome::Failed));
                false
            }
            _ => false,
        };
        if taken {
            lockout::succeeded(tx.connection(), &counted)?;
        } else {
            tx.note(Event::new(Action::Login, "session", "key").outcome(Outcome::Failed));
        }
        Ok::<_, AccountError>(taken)
    };
    let taken = web.store().write(&actor, record).await?;
    match account.filter(|_| taken) {
        Some(account) => login::open_session(&web, &headers, account, &to).await,
        None => Ok(login::again(&web, &visit, &to, &name, NOT_TAKEN)),
    }
}

/// What an answer is worth.
enum Use {
    /// With the counter to keep.
    Right(StaffKey, u32),
    /// The key's own signature, with a counter that was used before: of two keys that are one, this is the other.
    Behind(StaffKey),
    Refused,
}

async fn used(
    web: &Web,
    party: &RelyingParty,
    account: &str,
    challenge: &[u8],
    answer: &Assertion,
) -> Result<Use, PageError> {
    let Ok(credential) = answer.credential_id() else { return Ok(Use::Refused) };
    let owner = account.to_owned();
    let Some(key) = web.store().internal(move |db| keys::find(db, &owner, &credential)).await? else {
        return Ok(Use::Refused);
    };
    Ok(match webauthn::assert(party, challenge, &key.credential, answer) {
        Ok(counter) => Use::Right(key, counter),
        Err(error) => {
            log::warn!(reason = error.to_string().as_str(); "key.refused");
            if error == WebauthnError::Counter { Use::Behind(key) } else { Use::Refused }
        }
    })
}
