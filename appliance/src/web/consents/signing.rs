//! A consent is signed, shown, withdrawn and handed out the same way wherever that happens: at the practice, or by the patient in
//! the portal.

use crate::access::{Actor, Governs};
use crate::audit::{self, Event};
use crate::consents::{self, Decision, Mark, POINTS_MAX, Record, Sealed, State as Standing, Text};
use crate::dates;
use crate::store::{Expect, StoreError, Tx, View};
use crate::web::assets::ASSETS;
use crate::web::fields::{Field, Problems};
use crate::web::form::{Form, FormError};
use crate::web::gate::Visit;
use crate::web::reading::{PatientFacts, text};
use crate::web::{PageError, Web, chart};
use axum::response::{IntoResponse, Response};
use chrono::Months;
use chrono_tz::Tz;
use http::{HeaderMap, header};
use maud::{Markup, html};
use serde_json::{Value, json};

/// Who signs at the practice. The portal says of who acts for a patient what the practice entered.
pub const RELATIONS: [(&str, &str); 4] = [
    ("patient", "The patient"),
    ("parent", "A parent"),
    ("guardian", "A guardian"),
    ("proxy", "Somebody with power of attorney"),
];
const WITHDRAWN: &str = "urn:holdfast:withdrawn";

/// Where somebody decides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Practice,
    /// In the portal, by the patient or by somebody who acts for them.
    Portal {
        by_proxy: bool,
    },
}

impl Where {
    /// Who acts for a patient does not decide whether anybody may.
    pub fn may_decide(self, governs: Option<Governs>) -> bool {
        !(governs == Some(Governs::Proxies) && self == Where::Portal { by_proxy: true })
    }

    fn check(self, governs: Option<Governs>) -> Result<(), StoreError> {
        let sentence = "who acts for a patient cannot decide this: the patient does, or the practice with the patient";
        if self.may_decide(governs) { Ok(()) } else { Err(StoreError::invalid(sentence, "Consent")) }
    }
}

/// A decision about to be signed.
pub struct Signing {
    pub patient: String,
    pub text: String,
    /// As the form says it: what was shown is what is signed.
    pub text_version: String,
    pub signer: String,
    pub relation: String,
    /// Who decides, as a reference and a name, where the record holds them.
    pub performer: Option<(String, String)>,
    pub mark: Mark,
    pub decision: Decision,
    pub circumstances: String,
    pub witness: String,
    pub address: String,
    pub device: String,
    pub now: String,
    pub zone: Tz,
    pub place: Where,
}

impl Signing {
    /// What the form and its request say; who signs is the caller's to say.
    pub fn of(web: &Web, visit: &Visit, headers: &HeaderMap, form: &Form) -> Signing {
        let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Signing {
            patient: String::new(),
            text: form.text("text").to_owned(),
            text_version: form.text("text_version").to_owned(),
            signer: String::new(),
            relation: String::new(),
            performer: None,
            mark: Mark::Drawn(Vec::new()),
            decision: if form.text("decision") == "refuse" { Decision::Refused } else { Decision::Agreed },
            circumstances: String::new(),
            witness: String::new(),
            address: visit.address.map(|address| address.to_string()).unwrap_or_default(),
            device: agent.chars().take(300).collect(),
            now: web.now_fhir(),
            zone: web.settings().zone,
            place: Where::Practice,
        }
    }

    /// Stores the consent with its sealed record; gives its id.
    pub fn seal(self, tx: &mut Tx<'_>) -> Result<String, StoreError> {
        let asked = |text: &Text| text.in_use && (text.portal || self.place == Where::Practice);
        let text = consents::text(tx.connection(), &self.text)?.filter(asked).ok_or(StoreError::NotFound)?;
        if self.text_version.parse() != Ok(text.version) {
            return Err(StoreError::VersionConflict { current: u32::try_from(text.version).unwrap_or(0) });
        }
        self.place.check(text.governs)?;
        let facts = PatientFacts::read(&tx.read("Patient", &self.patient)?.json()?);
        let today = dates::today(tx.now_ms() / 1000, self.zone);
        let stored = tx.create("Consent", self.consent(&text, today))?;
        let witness_account = if self.witness.is_empty() { String::new() } else { tx.actor().id.clone() };
        let record = Record {
            consent: stored.id.clone(),
            text_id: text.id,
            text_version: text.version,
            title: text.title,
            body: text.body,
            patient: self.patient.clone(),
            patient_name: facts.full_name(),
            patient_birth: facts.birth.map(|day| day.to_string()).unwrap_or_default(),
            signer: self.signer,
            relation: self.relation,
            mark: self.mark,
            signed_at: self.now,
            address: self.address,
            device: self.device,
            witness: self.witness,
            witness_account,
            decision: self.decision,
            circumstances: self.circumstances,
        };
        consents::seal(tx.connection(), &record)?;
        tx.note(Event::new(audit::Action::Sign, "Consent", &stored.id).of_patient(&self.patient));
        Ok(stored.id)
    }

    fn consent(&self, text: &Text, today: chrono::NaiveDate) -> Value {
        let coding = |system: &str, code: &str| json!([{"system": system, "code": code}]);
        // A decision about who sees the record, and not about a treatment.
        let scope = if matches!(text.governs, Some(Governs::Sharing | Governs::Proxies)) {
            "patient-privacy"
        } else {
            "treatment"
        };
        let kind = if self.decision == Decision::Refused { "deny" } else { "permit" };
        let mut body = json!({
            "resourceType": "Consent", "status": "active",
            "scope": {"coding": coding("http://terminology.hl7.org/CodeSystem/consentscope", scope)},
            "category": [{"coding": coding("http://loinc.org", "59284-0")}],
            "patient": {"reference": format!("Patient/{}", self.patient)}, "dateTime": self.now,
            "policyRule": {"coding": [{"system": "urn:holdfast:consent-text", "version": text.version.to_string(), "code": text.id}], "text": text.title},
            "provision": {"type": kind},
        });
        if let Some((reference, display)) = &self.performer {
            body["performer"] = json!([{"reference": reference, "display": display}]);
        }
        if let Some(governs) = text.governs {
            const ACTIONS: &str = "http://terminology.hl7.org/CodeSystem/consentaction";
            let action = if governs == Governs::Reminders { "use" } else { "access" };
            body["provision"]["action"] = json!([{"coding": coding(ACTIONS, action), "text": governs.told()}]);
        }
        let months = u32::try_from(text.months).ok().filter(|months| *months > 0);
        if let Some(end) = months.and_then(|months| today.checked_add_months(Months::new(months))) {
            body["provision"]["period"] = json!({"start": self.now, "end": format!("{end}T00:00:00Z")});
        }
        body
    }
}

/// A decision about to be taken back.
pub struct Withdrawal {
    pub patient: String,
    pub id: String,
    pub version: u32,
    pub reason: String,
    /// Who took it back, and where.
    pub by: String,
    pub now: String,
    pub place: Where,
}

impl Withdrawal {
    pub fn save(self, tx: &mut Tx<'_>) -> Result<(), PageError> {
        let mut body = chart::read_of_tx(tx, "Consent", &self.id, &self.patient)?;
        let sealed = consents::record(tx.connection(), &self.id)?.ok_or(StoreError::NotFound)?;
        self.place.check(consents::governs_of(tx.connection(), &sealed.record)?)?;
        if text(&body, "/status") != "active" {
            return Err(PageError::Form(FormError::Malformed));
        }
        body["status"] = "inactive".into();
        let reason = if self.reason.is_empty() { "none given" } else { self.reason.as_str() };
        body["extension"] = json!([{"url": WITHDRAWN, "extension": [
            {"url": "when", "valueInstant": self.now}, {"url": "by", "valueString": self.by}, {"url": "reason", "valueString": reason}]}]);
        tx.update("Consent", &self.id, body, Expect::Version(self.version))?;
        Ok(())
    }
}

/// Hidden fields of the form: what was shown is what is signed, and a version that came meanwhile is refused.
pub fn identity(text: &Text) -> Markup {
    html! {
        input type="hidden" name="text" value=(text.id);
        input type="hidden" name="text_version" value=(text.version);
        input type="hidden" name="strokes" value="" data-strokes="";
    }
}

/// The field in which somebody draws, and the one in which they type.
pub fn pad(problems: &Problems) -> Markup {
    html! {
        div.field { label for="pad" { "Signature" } canvas.pad #pad width="600" height="200" tabindex="0" aria-describedby="pad-hint" { }
            p.hint #pad-hint { "Sign with a finger, a pen or the mouse. " button.small type="button" data-clear="" { "Clear" } } }
        (Field::new("Or type the full name", "typed", "").hint("Counts as the signature where nothing is drawn").show(problems))
    }
}

pub fn actions(back: &str) -> Markup {
    html! { p.actions {
        button.primary type="submit" name="decision" value="agree" { "I agree and sign" }
        button type="submit" name="decision" value="refuse" { "I do not agree, and sign that" }
        a.button href=(back) { "Not now" }
    } }
}

pub fn script() -> Markup {
    html! { script src=(ASSETS.sign.path) defer {} }
}

/// The strokes of the drawing field, or the typed name.
pub fn mark(form: &Form, problems: &mut Problems) -> Option<Mark> {
    let strokes: Vec<Vec<(u16, u16)>> = serde_json::from_str(form.raw("strokes")).unwrap_or_default();
    let points: usize = strokes.iter().map(Vec::len).sum();
    let inside = strokes.iter().flatten().all(|(x, y)| *x <= 600 && *y <= 200);
    match form.text("typed") {
        _ if (8..=POINTS_MAX).contains(&points) && inside => Some(Mark::Drawn(strokes)),
        "" => {
            problems.add("typed", "Please sign in the field above, or type the full name.");
            None
        }
        typed => Some(Mark::Typed(typed.chars().take(120).collect())),
    }
}

/// What holds of a decision, in a word.
pub fn tag(state: Standing, consent: &Value) -> Markup {
    html! { @match state {
        Standing::Valid => span.tag.calm { "valid" },
        Standing::Refused => span.tag.warn { "refused" },
        Standing::Expired => span.tag.warn { "expired" },
        Standing::Withdrawn => span.tag { (if consents::is_refusal(consent) { "taken back" } else { "withdrawn" }) },
        Standing::Replaced => span.tag { "replaced by a later decision" },
        Standing::Other => span.tag { (text(consent, "/status")) },
    } }
}

/// What is above of what was signed.
pub fn head(sealed: &Sealed, (state, consent): (Standing, &Value), base: &str) -> Markup {
    html! { div.head { h1 { (sealed.record.title) } (tag(state, consent))
    div.tools { a.button href={ (base) "/pdf" } { "PDF" } button type="button" data-print="" { "Print" } } } }
}

/// What was signed, as it was shown, with its signature and circumstances.
pub fn shown(sealed: &Sealed, consent: &Value, zone: Tz) -> Markup {
    let record = &sealed.record;
    let row = |label: &str, value: &str| html! { @if !value.is_empty() { div { dt { (label) } dd { (value) } } } };
    let refused = record.decision == Decision::Refused;
    let relation =
        RELATIONS.iter().find(|(key, _)| *key == record.relation).map_or(record.relation.as_str(), |(_, word)| word);
    let withdrawn =
        consent.get("extension").and_then(Value::as_array).into_iter().flatten().find(|e| text(e, "/url") == WITHDRAWN);
    let told = |name: &str, value: &str| {
        let parts = withdrawn.and_then(|found| found.get("extension")?.as_array()).into_iter().flatten();
        parts
            .filter(|part| text(part, "/url") == name)
            .map(|part| text(part, value))
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    html! {
        div.sheet { div.text { (record.body) } }
        div.sheet.foot {
            @if refused { p { b { "Not agreed to." } } }
            @match &record.mark {
                Mark::Drawn(strokes) => svg.signature viewBox="0 0 600 200" role="img" aria-label={ "Signature of " (record.signer) } {
                    @for stroke in strokes { polyline points=(stroke.iter().map(|(x, y)| format!("{x},{y}")).collect::<Vec<_>>().join(" ")) fill="none" stroke="#17262b" stroke-width="3" {} }
                },
                Mark::Typed(name) => p.typed { (name) },
            }
            dl.facts {
                (row(if refused { "Refused by" } else { "Signed by" }, &format!("{}, {relation}", record.signer)))
                (row("Patient", &format!("{}, born {}", record.patient_name, record.patient_birth)))
                (row("When", &dates::show(&record.signed_at, zone)))
                (row("In the presence of", &record.witness))
                (row("How", &record.circumstances))
                (row("Version of the text", &record.text_version.to_string()))
                (row("Device", &format!("{} {}", record.address, record.device)))
                (row("Seal", &hex::encode(sealed.hash)))
                @if withdrawn.is_some() {
                    (row("Withdrawn", &dates::show(&told("when", "/valueInstant"), zone)))
                    (row("Withdrawn by", &told("by", "/valueString")))
                    (row("Reason", &told("reason", "/valueString")))
                }
            }
        }
    }
}

/// What the button says that takes a decision back.
pub fn withdraw_word(sealed: &Sealed) -> &'static str {
    if sealed.record.decision == Decision::Refused { "Take this refusal back" } else { "Withdraw this consent" }
}

/// The sealed record as a file to take along.
pub async fn pdf(web: &Web, actor: &Actor, (patient, id): (&str, &str)) -> Result<Response, PageError> {
    let (owner, own) = (patient.to_owned(), id.to_owned());
    let read = move |view: &View<'_>| {
        chart::read_of(view, "Consent", &own, &owner)?;
        view.note(Event::new(audit::Action::Export, "Consent", &own).of_patient(&owner));
        consents::record(view.connection(), &own)?.ok_or(StoreError::NotFound)
    };
    let sealed = web.store().view::<_, StoreError, _>(actor, read).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/pdf".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"consent-{id}.pdf\"")),
    ];
    let practice = web.settings().practice_name.clone();
    // Fonts are cut to what is printed: milliseconds that no other request waits for.
    let made = tokio::task::spawn_blocking(move || consents::pdf::document(&practice, &sealed)).await;
    let bytes = made.map_err(|_| StoreError::Closed)?.map_err(|_| PageError::Internal("no PDF was made"))?;
    Ok((headers, bytes).into_response())
}
