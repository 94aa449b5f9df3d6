//! Co-signatures of forms and notes: asked of a colleague by whoever signed, given by who was asked. What is asked is a `Task`, so
//! that it stands in the colleague's inbox; where nobody was asked, any other clinician may co-sign.

use super::forms::{ACCOUNT, COSIGNED, SIGNED, push_extension, signature, signed};
use super::gate::Visit;
use super::layout;
use super::login::redirect;
use super::reading::{code, list, reference_id, text, version};
use super::{Method, PageError, Policy, Route, Target, Web, chart, dates};
use crate::access::accounts::{self, Account, AccountError};
use crate::access::{Action, Object, Role, authorize};
use crate::audit;
use crate::store::{Expect, Query, StoreError, Tx, View};
use crate::web::form::Form;
use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// R4's codes of what a task asks for; `approve` is to approve the record that it points to.
const TASK_CODE: &str = "http://hl7.org/fhir/CodeSystem/task-code";
const APPROVE: &str = "approve";
/// States of a request that waits.
const WAITING: &str = "requested,received,accepted,ready,in-progress,on-hold,draft";

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let form = || Policy::Permits(Action::Update, Target::Resource("QuestionnaireResponse"));
    let note = || Policy::Permits(Action::Sign, Target::Resource("DocumentReference"));
    const NOTE: &str = "/patients/{patient}/encounters/{encounter}/notes/{note}/cosign";
    const NOTE_ASK: &str = "/patients/{patient}/encounters/{encounter}/notes/{note}/cosign/ask";
    vec![
        Route::new(Method::Post, "/patients/{patient}/forms/{form}/cosign", form(), give_form, w()),
        Route::new(Method::Post, "/patients/{patient}/forms/{form}/cosign/ask", form(), ask_form, w()),
        Route::new(Method::Post, NOTE, note(), give_note, w()),
        Route::new(Method::Post, NOTE_ASK, note(), ask_note, w()),
    ]
}

/// Whether a task asks for a co-signature.
pub fn is_request(task: &Value) -> bool {
    list(&task["code"], "coding").iter().any(|c| text(c, "/system") == TASK_CODE && text(c, "/code") == APPROVE)
}

/// What pages show of co-signatures in one record.
#[derive(Default)]
pub struct Requests {
    /// Who was asked (account and name), by what is to be signed.
    asked: BTreeMap<String, (String, String)>,
    colleagues: Vec<Account>,
}

impl Requests {
    /// The open requests of a patient's record, as far as the visitor sees tasks.
    pub fn read(view: &View<'_>, patient: &str) -> Result<Requests, StoreError> {
        let mut asked = BTreeMap::new();
        if view.may(Action::Search, "Task") {
            for task in chart::jsons(&view.search(&waiting(&[])?.of_patient(patient))?.resources)? {
                let owner = (text(&task, "/owner/identifier/value"), text(&task, "/owner/display"));
                asked.insert(text(&task, "/focus/reference").to_owned(), (owner.0.to_owned(), owner.1.to_owned()));
            }
        }
        let mut colleagues = accounts::list(view.connection()).map_err(|error| match error {
            AccountError::Database(error) => error.into(),
            _ => StoreError::Damaged("accounts"),
        })?;
        colleagues.retain(|account| !account.disabled && account.role == Role::Clinician);
        Ok(Requests { asked, colleagues })
    }

    /// What stands below a signed record: who co-signed it or was asked to, and what the visitor may do about that. `action` is the
    /// address of the record.
    pub fn shown(&self, web: &Web, visit: &Visit, (patient, action): (&str, &str), record: &Value) -> Markup {
        let zone = web.settings().zone;
        if let Some((who, _, when)) = signed(record, COSIGNED) {
            return html! { p.soft { "Co-signed by " b { (who) } ", " (dates::show(&when, zone)) } };
        }
        let Some(signer) = signer(record) else { return html! {} };
        let asked = self.asked.get(&reference(record));
        let may = authorize(&visit.actor, Action::Update, Object::resource(text(record, "/resourceType"))).is_ok();
        let own = signer == visit.actor.id;
        let is_asked = asked.is_none_or(|(account, _)| *account == visit.actor.id);
        let identity = chart::form_identity(patient, &version(record).to_string());
        html! {
            @if let Some((_, name)) = asked { p { span.tag.warn { "waiting for co-signature of " (name) } } }
            @if may && !own && is_asked { form.inline method="post" action={ (action) "/cosign" } {
                (layout::csrf(visit)) (identity) button type="submit" { "Co-sign" } } }
            @if may && own { (self.question(visit, (action, &identity), record, asked.is_some())) }
        }
    }

    /// The way to ask, for who signed.
    fn question(&self, visit: &Visit, (action, identity): (&str, &Markup), record: &Value, again: bool) -> Markup {
        let id = format!("colleague-{}", text(record, "/id"));
        html! {
            details { summary { (if again { "Ask somebody else to co-sign" } else { "Ask a colleague to co-sign" }) }
                form method="post" action={ (action) "/cosign/ask" } {
                    (layout::csrf(visit)) (identity)
                    div.field { label for=(id) { "Colleague" }
                        select id=(id) name="colleague" required { option value="" { "Please choose" }
                            @for one in self.colleagues.iter().filter(|one| one.id != visit.actor.id) {
                                option value=(one.id) { (one.display) " (" (one.name) ")" } } } }
                    p.actions { button type="submit" { "Ask" } }
                }
            }
        }
    }
}

/// The open requests that also meet `pairs`.
fn waiting(pairs: &[(&str, &str)]) -> Result<Query, StoreError> {
    let kind = format!("{TASK_CODE}|{APPROVE}");
    let own = [("status", WAITING), ("code", kind.as_str())];
    let all: Vec<(String, String)> =
        own.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Query::parse("Task", &all)
}

fn reference(record: &Value) -> String {
    format!("{}/{}", text(record, "/resourceType"), text(record, "/id"))
}

/// The account that signed a form or a note here.
fn signer(record: &Value) -> Option<String> {
    match text(record, "/resourceType") {
        "QuestionnaireResponse" => signed(record, SIGNED).map(|(_, account, _)| account),
        _ if !matches!(code(record, "docStatus"), "final" | "amended") => None,
        _ if text(record, "/authenticator/identifier/system") != ACCOUNT => None,
        _ => Some(text(record, "/authenticator/identifier/value").to_owned()),
    }
}

/// What is said of a task when somebody would call a co-signature done that nobody gave.
pub fn check_done(tx: &Tx<'_>, task: &Value) -> Result<(), StoreError> {
    let Some((kind, id)) = text(task, "/focus/reference").split_once('/').filter(|_| is_request(task)) else {
        return Ok(());
    };
    match signed(&tx.read(kind, id)?.json()?, COSIGNED) {
        Some(_) => Ok(()),
        None => Err(StoreError::invalid(
            "this is done by co-signing: open what is to be signed from the task; where no co-signature is needed any more, say \
             \"Not needed\"",
            "Task.status",
        )),
    }
}

type FormPath = Path<(String, String)>;
type NotePath = Path<(String, String, String)>;

async fn give_form(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): FormPath,
    form: Form,
) -> Result<Response, PageError> {
    give(&web, &visit, ("QuestionnaireResponse", &id), &patient, &form).await?;
    Ok(redirect(&format!("/patients/{patient}/forms/{id}")))
}

async fn give_note(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, encounter, id)): NotePath,
    form: Form,
) -> Result<Response, PageError> {
    give(&web, &visit, ("DocumentReference", &id), &patient, &form).await?;
    Ok(redirect(&format!("/patients/{patient}/encounters/{encounter}")))
}

async fn ask_form(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): FormPath,
    form: Form,
) -> Result<Response, PageError> {
    ask(&web, &visit, ("QuestionnaireResponse", &id), &patient, &form).await?;
    Ok(redirect(&format!("/patients/{patient}/forms/{id}")))
}

async fn ask_note(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, encounter, id)): NotePath,
    form: Form,
) -> Result<Response, PageError> {
    ask(&web, &visit, ("DocumentReference", &id), &patient, &form).await?;
    Ok(redirect(&format!("/patients/{patient}/encounters/{encounter}")))
}

async fn give(
    web: &Web,
    visit: &Visit,
    (kind, id): (&'static str, &str),
    patient: &str,
    form: &Form,
) -> Result<(), PageError> {
    let number = chart::checked_version(form, patient)?;
    let (actor, now, owner, target) = (visit.actor.clone(), web.now_fhir(), patient.to_owned(), id.to_owned());
    let display = visit.session.as_ref().map_or(visit.actor.name.clone(), |s| s.display.clone());
    let save = move |tx: &mut Tx<'_>| {
        let mut body = chart::read_of_tx(tx, kind, &target, &owner)?;
        if signer(&body).is_none_or(|signer| signer == actor.id) || signed(&body, COSIGNED).is_some() {
            let sentence = "only what somebody else signed here is co-signed, and once";
            return Err(StoreError::invalid(sentence, format!("{kind}.extension")));
        }
        let requests = requests(tx, &body)?;
        if requests.iter().any(|task| text(task, "/owner/identifier/value") != actor.id) {
            let sentence =
                "a colleague was asked to co-sign this, and nobody else does: whoever signed can ask you instead";
            return Err(StoreError::invalid(sentence, format!("{kind}.extension")));
        }
        for task in requests {
            end(tx, task, "completed")?;
        }
        push_extension(&mut body, signature(COSIGNED, &actor, &display, &now));
        tx.note(audit::Event::new(audit::Action::Sign, kind, &target).of_patient(&owner));
        tx.update(kind, &target, body, Expect::Version(number))
    };
    web.store().write(&visit.actor, save).await?;
    Ok(())
}

/// Asks a colleague, in place of whom was asked before.
async fn ask(
    web: &Web,
    visit: &Visit,
    (kind, id): (&'static str, &str),
    patient: &str,
    form: &Form,
) -> Result<(), PageError> {
    let number = chart::checked_version(form, patient)?;
    let all = web.store().internal(accounts::list).await?;
    let able = |one: &Account| !one.disabled && one.role == Role::Clinician && one.id != visit.actor.id;
    let Some(colleague) = all.into_iter().find(|one| one.id == form.text("colleague") && able(one)) else {
        let sentence = "choose a colleague who is a clinician and has access; nothing was asked";
        return Err(StoreError::invalid(sentence, "Task.owner").into());
    };
    let (actor, now, owner, target) = (visit.actor.clone(), web.now_fhir(), patient.to_owned(), id.to_owned());
    let display = visit.session.as_ref().map_or(visit.actor.name.clone(), |s| s.display.clone());
    let save = move |tx: &mut Tx<'_>| {
        let body = chart::read_of_tx(tx, kind, &target, &owner)?;
        if version(&body) != number {
            return Err(StoreError::VersionConflict { current: version(&body) });
        }
        if signer(&body).as_deref() != Some(actor.id.as_str()) || signed(&body, COSIGNED).is_some() {
            let sentence = "who signed asks for a co-signature, until it is given";
            return Err(StoreError::invalid(sentence, format!("{kind}.extension")));
        }
        for task in requests(tx, &body)? {
            end(tx, task, "cancelled")?;
        }
        let what = if kind == "DocumentReference" { "note" } else { super::forms::title(&body) };
        let by =
            |account: &str, name: &str| json!({"identifier": {"system": ACCOUNT, "value": account}, "display": name});
        tx.create(
            "Task",
            json!({
                "resourceType": "Task", "status": "requested", "intent": "order", "authoredOn": now,
                "code": {"coding": [{"system": TASK_CODE, "code": APPROVE}], "text": "Co-signature"},
                "description": format!("Co-sign: {what}"), "focus": {"reference": reference(&body)},
                "for": {"reference": format!("Patient/{owner}")},
                "owner": by(&colleague.id, &colleague.display), "requester": by(&actor.id, &display),
            }),
        )
    };
    web.store().write::<_, StoreError, _>(&visit.actor, save).await?;
    Ok(())
}

/// The open requests for one record.
fn requests(tx: &Tx<'_>, record: &Value) -> Result<Vec<Value>, StoreError> {
    chart::jsons(&tx.search(&waiting(&[("focus", &reference(record))])?)?.resources)
}

fn end(tx: &mut Tx<'_>, mut task: Value, status: &str) -> Result<(), StoreError> {
    let (id, number) = (text(&task, "/id").to_owned(), version(&task));
    task["status"] = status.into();
    tx.update("Task", &id, task, Expect::Version(number)).map(drop)
}

/// Where a task leads: to the form or the note that is to be co-signed.
pub fn leads(view: &View<'_>, task: &Value) -> Result<Option<String>, StoreError> {
    if !is_request(task) || !view.may(Action::Read, "DocumentReference") {
        return Ok(None);
    }
    let Some((kind, id)) = text(task, "/focus/reference").split_once('/') else { return Ok(None) };
    let record = match view.read(kind, id) {
        Ok(record) => record.json()?,
        Err(StoreError::NotFound | StoreError::Gone { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let patient = super::reading::subject(&record).unwrap_or_default();
    let encounter = record.pointer("/context/encounter/0").and_then(|to| reference_id(to, "/reference", "Encounter"));
    Ok(match (kind, encounter) {
        ("QuestionnaireResponse", _) => Some(format!("/patients/{patient}/forms/{id}")),
        ("DocumentReference", Some(encounter)) => Some(format!("/patients/{patient}/encounters/{encounter}#note-{id}")),
        _ => None,
    })
}
