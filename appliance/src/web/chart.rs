//! A patient's chart: banner, problems, medications, allergies, encounters, documents; and the forms that add to it.

use super::current;
use super::dates;
use super::fields::{self, Field, Problems};
use super::form::{Form, FormError};
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::redirect;
use super::merge::Merge;
use super::merged;
use super::reading::{self, PatientFacts, code, concept, subject, text, version};
use super::registration::Part;
use super::{Method, PageError, Policy, Route, Target, Web};
use crate::access::{Action, Object, authorize};
use crate::store::{Chart, Expect, LISTED_MAX, Query, Resource, StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};

const CONDITION_STATUS: &str = "http://terminology.hl7.org/CodeSystem/condition-clinical";
const CONDITION_VERIFIED: &str = "http://terminology.hl7.org/CodeSystem/condition-ver-status";
const CONDITION_CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/condition-category";
const ALLERGY_STATUS: &str = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical";
const ALLERGY_VERIFIED: &str = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification";
/// Rows of a section before the rest is folded away.
const ROWS_SHOWN: usize = 8;

/// Pages of a chart, with what a role must be permitted to see them.
const PARTS: [(&str, &str, Action, &str); 10] = [
    ("timeline", "Timeline", Action::Search, "DocumentReference"),
    ("vitals", "Vital signs", Action::Search, "Observation"),
    ("results", "Results", Action::Search, "DiagnosticReport"),
    ("immunizations", "Immunizations", Action::Search, "Immunization"),
    ("referrals/new", "Refer", Action::Create, "ServiceRequest"),
    ("consents", "Consents", Action::Search, "Consent"),
    ("messages", "Messages", Action::Search, "Communication"),
    ("portal", "Portal", Action::Update, "Patient"),
    ("apps", "Apps", Action::Read, "Patient"),
    ("coverage", "Coverage", Action::Search, "Coverage"),
];

/// One kind of entry that is added from the chart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Problem,
    Medication,
    Allergy,
}

impl Entry {
    const ALL: [Entry; 3] = [Entry::Allergy, Entry::Problem, Entry::Medication];

    fn kind(self) -> &'static str {
        match self {
            Entry::Problem => "Condition",
            Entry::Medication => "MedicationRequest",
            Entry::Allergy => "AllergyIntolerance",
        }
    }

    fn segment(self) -> &'static str {
        match self {
            Entry::Problem => "problems",
            Entry::Medication => "medications",
            Entry::Allergy => "allergies",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Entry::Problem => "problem",
            Entry::Medication => "medication",
            Entry::Allergy => "allergy",
        }
    }

    /// The stored states and their words; the first is that of a new entry.
    fn states(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Entry::Problem => &[("active", "Active"), ("inactive", "Inactive"), ("resolved", "Resolved")],
            Entry::Medication => {
                &[("active", "Active"), ("on-hold", "On hold"), ("stopped", "Stopped"), ("completed", "Completed")]
            }
            Entry::Allergy => &[("active", "Active"), ("inactive", "Inactive"), ("resolved", "Resolved")],
        }
    }

    fn state(self, resource: &Value) -> &str {
        match self {
            Entry::Medication => code(resource, "status"),
            Entry::Problem | Entry::Allergy => code(resource, "clinicalStatus"),
        }
    }
}

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action, kind| Policy::Permits(action, Target::Resource(kind));
    let mut table = vec![Route::new(Method::Get, "/patients/{patient}", may(Action::Read, "Patient"), chart_page, w())];
    let paths = [
        ("/patients/{patient}/allergies/new", "/patients/{patient}/allergies/{entry}"),
        ("/patients/{patient}/problems/new", "/patients/{patient}/problems/{entry}"),
        ("/patients/{patient}/medications/new", "/patients/{patient}/medications/{entry}"),
    ];
    for (entry, (new, existing)) in Entry::ALL.into_iter().zip(paths) {
        let state = || (web.clone(), entry);
        let (create, update) = (may(Action::Create, entry.kind()), may(Action::Update, entry.kind()));
        table.push(Route::new(Method::Get, new, create, new_entry, state()));
        table.push(Route::new(Method::Post, new, create, add_entry, state()));
        table.push(Route::new(Method::Get, existing, update, edit_entry, state()));
        table.push(Route::new(Method::Post, existing, update, save_entry, state()));
    }
    table
}

/// Hidden fields that say for whom and on which version a form was opened.
pub fn form_identity(patient: &str, version: &str) -> Markup {
    html! {
        input type="hidden" name="patient" value=(patient);
        @if !version.is_empty() { input type="hidden" name="version" value=(version); }
    }
}

/// Refuses a form that was opened for another patient than the address says.
pub fn check_patient(form: &Form, patient: &str) -> Result<(), PageError> {
    if form.text("patient") == patient { Ok(()) } else { Err(PageError::WrongPatient) }
}

/// [`check_patient`], and the version on which the form was opened.
pub fn checked_version(form: &Form, patient: &str) -> Result<u32, PageError> {
    check_patient(form, patient)?;
    form.text("version").parse().map_err(|_| PageError::Form(FormError::Malformed))
}

/// Reads a resource that must belong to `patient`: an address that mixes two records finds nothing.
pub fn read_of(view: &View<'_>, kind: &str, id: &str, patient: &str) -> Result<Value, StoreError> {
    belongs(view.read(kind, id)?.json()?, patient)
}

/// [`read_of`] inside a write.
pub fn read_of_tx(tx: &Tx<'_>, kind: &str, id: &str, patient: &str) -> Result<Value, StoreError> {
    belongs(tx.read(kind, id)?.json()?, patient)
}

fn belongs(resource: Value, patient: &str) -> Result<Value, StoreError> {
    if subject(&resource) == Some(patient) { Ok(resource) } else { Err(StoreError::NotFound) }
}

/// The banner of a patient, as far as the visitor's role may see it, and the facts in it.
pub async fn banner(web: &Web, visit: &Visit, patient: &str) -> Result<(Markup, PatientFacts), PageError> {
    let (id, site) = (patient.to_owned(), web.clone());
    let read = move |view: &View<'_>| banner_in(&site, view, &id);
    Ok(web.store().view(&visit.actor, read).await?)
}

/// [`banner`] at the read point of a page, so that banner and page tell of the same moment.
pub fn banner_in(web: &Web, view: &View<'_>, patient: &str) -> Result<(Markup, PatientFacts), StoreError> {
    let facts = merged::facts(view, &view.read("Patient", patient)?.json()?)?;
    let allergies = if view.may(Action::Search, "AllergyIntolerance") {
        // Whoever has one record open must not miss what stands in the same person's others.
        Some(current::allergies(view, &merged::people(view, &facts)?)?)
    } else {
        None
    };
    Ok((layout::patient_banner(web, &facts, allergies.as_deref()), facts))
}

/// Leads on from a closed record, in which nothing new is entered: before somebody fills in a form.
pub async fn require_open(web: &Web, visit: &Visit, patient: &str) -> Result<(), PageError> {
    let id = patient.to_owned();
    let person = web.store().view::<_, StoreError, _>(&visit.actor, move |view: &View<'_>| view.person(&id)).await?;
    match person.merged_into() {
        Some(goes_on) => Err(StoreError::Merged { goes_on: goes_on.to_owned() }.into()),
        None => Ok(()),
    }
}

/// Whether somebody may add something of a type to this record: nobody to one that was closed.
pub fn may_add(visit: &Visit, patient: &PatientFacts, kind: &str) -> bool {
    patient.goes_on.is_none() && authorize(&visit.actor, Action::Create, Object::resource(kind)).is_ok()
}

pub fn jsons(resources: &[Resource]) -> Result<Vec<Value>, StoreError> {
    resources.iter().map(Resource::json).collect()
}

async fn chart_page(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    let read = move |view: &View<'_>| {
        let mut chart = view.chart(&patient)?;
        let facts = merged::facts(view, &chart.patient.json()?)?;
        let (people, mut others) = (merged::people(view, &facts)?, Vec::new());
        for other in people.iter().skip(1) {
            let other = view.chart(other)?;
            others.push(PatientFacts::read(&other.patient.json()?));
            chart.append(other);
        }
        let forms = match view.may(Action::Search, "QuestionnaireResponse") {
            true => merged::search(view, &Query::all("QuestionnaireResponse")?, &people)?,
            false => Vec::new(),
        };
        Ok::<_, StoreError>((chart, forms, facts, others))
    };
    let (chart, forms, facts, others): (Chart, Vec<Value>, _, Vec<PatientFacts>) =
        web.store().view(&visit.actor, read).await?;
    let allergies = jsons(&chart.allergies)?;
    let whole = chart.patient.json()?;
    let may = |action, kind: &'static str| match action {
        Action::Create => may_add(&visit, &facts, kind),
        action => authorize(&visit.actor, action, Object::resource(kind)).is_ok(),
    };
    let shown = may(Action::Search, "AllergyIntolerance").then(|| reading::active_allergies(&allergies));
    let banner = layout::patient_banner(&web, &facts, shown.as_deref());
    let clinical = may(Action::Search, "Condition");
    let problems = jsons(&chart.problems)?;
    let medications = jsons(&chart.medications)?;
    let (notes, files): (Vec<Value>, Vec<Value>) = jsons(&chart.documents)?.into_iter().partition(reading::is_note);
    let body = html! {
        div.head {
            h1 { "Chart" }
            div.tools {
                @if may(Action::Create, "Appointment") {
                    a.button href={ "/schedule/book?patient=" (facts.id) } { "Book an appointment" }
                    a.button href={ "/schedule/waiting/new?patient=" (facts.id) } { "Waiting list" }
                }
                @if may(Action::Create, "DocumentReference") {
                    a.button href={ "/patients/" (facts.id) "/export" } { "Export" }
                }
                (super::look_back::button(&web, &visit, &facts.id))
                @if may(Action::Update, "Patient") {
                    @if facts.goes_on.is_none() { a.button href={ "/patients/" (facts.id) "/merge" } { "Merge" } }
                    a.button href={ "/patients/" (facts.id) "/edit" } { "Edit registration" }
                }
            }
        }
        (super::duplicates::notice(&visit, &whole))
        (super::look_back::notice(&web, &facts.id))
        nav.days.parts aria-label="Parts of the chart" {
            @for (path, label, action, kind) in PARTS {
                @if may(action, kind) { a.button.small href={ "/patients/" (facts.id) "/" (path) } { (label) } }
            }
            @if may(Action::Create, "Task") { a.button.small href={ "/tasks/new?patient=" (facts.id) } { "Give a task" } }
        }
        div.grid {
            @if clinical {
                (entries(&web, &visit, &facts, Entry::Problem, &problems))
                (entries(&web, &visit, &facts, Entry::Medication, &medications))
            }
            @if shown.is_some() { (entries(&web, &visit, &facts, Entry::Allergy, &allergies)) }
            (appointments(&web, &facts, &jsons(&chart.appointments)?))
            @if clinical {
                (super::encounters::section(&web, &visit, &facts, &jsons(&chart.encounters)?, &notes))
                (super::forms::section(&web, &visit, &facts, &forms))
                (super::documents::section(&web, &visit, &facts, &files))
            }
            (contact(&facts, &others))
        }
        @if chart.cut { p.hint {
            "This record is long: of encounters, documents and appointments the newest " (LISTED_MAX) " each are listed here. "
            a href={ "/patients/" (facts.id) "/timeline" } { "The timeline has all of them." }
        } }
    };
    Ok(layout::page(&web, &visit, Section::Patients, "Chart", Some(&banner), &body))
}

/// A section of the chart with a heading and a way to add.
pub fn section(title: &str, add: Option<(&str, &str)>, body: &Markup) -> Markup {
    html! {
        section.panel {
            div.head { h2 { (title) } @if let Some((href, label)) = add { a.button.small href=(href) { (label) } } }
            (body)
        }
    }
}

/// The first rows, the rest folded away.
pub fn folded(rows: &[Markup], empty: &str) -> Markup {
    html! {
        @if rows.is_empty() { p.empty { (empty) } }
        @else {
            ul.rows { @for row in rows.iter().take(ROWS_SHOWN) { li { (row) } } }
            @if rows.len() > ROWS_SHOWN {
                details { summary { "Show " (rows.len() - ROWS_SHOWN) " more" }
                    ul.rows { @for row in rows.iter().skip(ROWS_SHOWN) { li { (row) } } } }
            }
        }
    }
}

fn entries(web: &Web, visit: &Visit, patient: &PatientFacts, entry: Entry, resources: &[Value]) -> Markup {
    let zone = web.settings().zone;
    let may = |action| authorize(&visit.actor, action, Object::resource(entry.kind())).is_ok();
    // An entry is changed in the record in which it stands.
    let base = |resource| format!("/patients/{}/{}", merged::owner(resource, &patient.id), entry.segment());
    let mut ordered: Vec<&Value> = resources
        .iter()
        .filter(|r| code(r, "verificationStatus") != "entered-in-error" && code(r, "status") != "entered-in-error")
        .collect();
    ordered.sort_by_key(|r| (entry.state(r) != "active", std::cmp::Reverse(entry_date(r).to_owned())));
    let rows: Vec<Markup> = ordered
        .iter()
        .map(|resource| {
            let state = entry.state(resource);
            let label = entry_label(resource);
            html! {
                span.what.past[state != "active"] {
                    @if may(Action::Update) { a href={ (base(resource)) "/" (text(resource, "/id")) } { (label) } }
                    @else { (label) }
                    @if let Some(detail) = entry_detail(entry, resource) { span.soft { " · " (detail) } }
                    (merged::mark(resource, &patient.id))
                }
                span.when {
                    @if state != "active" && !state.is_empty() { span.tag { (state) } " " }
                    (dates::show_day(entry_date(resource), zone))
                }
            }
        })
        .collect();
    let (title, empty) = match entry {
        Entry::Problem => ("Problems", "No problems recorded."),
        Entry::Medication => ("Medications", "No medications recorded."),
        Entry::Allergy if may_add(visit, patient, entry.kind()) => {
            ("Allergies", "No allergies recorded. If the patient has none, add “No known allergies”.")
        }
        Entry::Allergy => ("Allergies", "No allergies recorded."),
    };
    let add = format!("/patients/{}/{}/new", patient.id, entry.segment());
    section(title, may_add(visit, patient, entry.kind()).then_some((add.as_str(), "Add")), &folded(&rows, empty))
}

fn entry_label(resource: &Value) -> &str {
    let coded = ["code", "medicationCodeableConcept"].into_iter().map(|name| concept(resource.get(name)));
    let referred = text(resource, "/medicationReference/display");
    coded.into_iter().chain([referred]).find(|label| !label.is_empty()).unwrap_or("(no description)")
}

fn entry_detail(entry: Entry, resource: &Value) -> Option<&str> {
    let detail = match entry {
        Entry::Problem => "",
        Entry::Medication => text(resource, "/dosageInstruction/0/text"),
        Entry::Allergy => concept(resource.pointer("/reaction/0/manifestation/0")),
    };
    (!detail.is_empty()).then_some(detail)
}

fn entry_date(resource: &Value) -> &str {
    ["/onsetDateTime", "/authoredOn", "/recordedDate"]
        .into_iter()
        .map(|pointer| text(resource, pointer))
        .find(|date| !date.is_empty())
        .unwrap_or("")
}

fn appointments(web: &Web, patient: &PatientFacts, resources: &[Value]) -> Markup {
    let zone = web.settings().zone;
    let now = web.now();
    let mut all: Vec<&Value> = resources.iter().collect();
    all.sort_by_key(|a| {
        dates::moment_s(text(a, "/start"), zone).map_or(i64::MAX, |at| if at >= now { at - now } else { i64::MAX - at })
    });
    let rows: Vec<Markup> = all
        .iter()
        .map(|appointment| {
            let start = text(appointment, "/start");
            let day = dates::moment_s(start, zone)
                .map(|at| dates::local(at, zone).date_naive().to_string())
                .unwrap_or_default();
            let reason = text(appointment, "/description");
            html! {
                span.what {
                    a href={ "/schedule?day=" (day) } { (dates::show(start, zone)) }
                    @if !reason.is_empty() { span.soft { " · " (reason) } }
                    (merged::mark(appointment, &patient.id))
                }
                span.when { span.tag { (code(appointment, "status")) } }
            }
        })
        .collect();
    section("Appointments", None, &folded(&rows, "No appointments."))
}

/// How the patient is reached, and through whom; of contact persons also those that stand in `others`, the person's other records.
fn contact(facts: &PatientFacts, others: &[PatientFacts]) -> Markup {
    let row = |label: &str, value: &str| html! { @if !value.is_empty() { div { dt { (label) } dd { (value) } } } };
    let place = [facts.city.as_str(), &facts.state, &facts.postal].into_iter().filter(|p| !p.is_empty());
    section(
        "Contact",
        None,
        &html! {
            dl.facts {
                (row("Phone", &facts.phone)) (row("E-mail", &facts.email)) (row("Street", &facts.line))
                (row("Place", &place.collect::<Vec<_>>().join(", "))) (row("Record number", &facts.number))
                @for (part, rows) in [(Part::Identifiers, &facts.identifiers), (Part::Contacts, &facts.contacts)] {
                    @for (label, value) in rows.iter().map(|entry| entry.shown(part)) { (row(&label, &value)) }
                }
                @for (label, value) in others.iter().flat_map(|other| &other.contacts).map(|entry| entry.shown(Part::Contacts)) {
                    div { dt { (label) } dd { (value) " " (merged::tag()) } }
                }
            }
        },
    )
}

type EntryState = State<(Web, Entry)>;

async fn new_entry(
    State((web, entry)): EntryState,
    visit: Visit,
    Path(patient): Path<String>,
) -> Result<Markup, PageError> {
    require_open(&web, &visit, &patient).await?;
    let (banner, facts) = banner(&web, &visit, &patient).await?;
    Ok(entry_form(&web, &visit, entry, &banner, &facts, &Form::default(), &Problems::default()))
}

fn entry_form(
    web: &Web,
    visit: &Visit,
    entry: Entry,
    banner: &Markup,
    patient: &PatientFacts,
    form: &Form,
    problems: &Problems,
) -> Markup {
    let title = format!("Add {} {}", if entry == Entry::Allergy { "an" } else { "a" }, entry.noun());
    let field = |label, name| Field::new(label, name, form.text(name));
    layout::page(
        web,
        visit,
        Section::Patients,
        &title,
        Some(banner),
        &html! {
            div.head { h1 { (title) } }
            (problems.summary())
            form.sheet method="post" action={ "/patients/" (patient.id) "/" (entry.segment()) "/new" } {
                (layout::csrf(visit)) (form_identity(&patient.id, ""))
                @match entry {
                    Entry::Problem => {
                        (field("Problem", "what").required().hint("For example: Essential hypertension").show(problems))
                        (field("Since", "since").kind("date").show(problems))
                    }
                    Entry::Medication => {
                        (field("Medication", "what").required()
                            .hint("Name, strength and form, for example: Lisinopril 10 mg tablet").show(problems))
                        (field("Dosage", "detail").required()
                            .hint("For example: 1 tablet by mouth every morning").show(problems))
                    }
                    Entry::Allergy => {
                        (field("Substance", "what").required()
                            .hint("For example: Penicillin. If the patient has none: No known allergies").show(problems))
                        (field("Reaction", "detail").hint("For example: hives").show(problems))
                        (fields::select("Risk", "risk", form.text("risk"), &fields::pairs(&RISKS), true, problems))
                    }
                }
                (layout::save_or_cancel("Save", &format!("/patients/{}", patient.id)))
            }
        },
    )
}

const RISKS: [(&str, &str); 3] =
    [("high", "High: may be life-threatening"), ("low", "Low"), ("unable-to-assess", "Not known")];

fn check_entry(entry: Entry, form: &Form, today: chrono::NaiveDate) -> Problems {
    let mut problems = Problems::default();
    if form.text("what").is_empty() {
        problems.add("what", format!("Please say which {}.", entry.noun()));
    }
    for name in ["what", "detail"] {
        if form.text(name).chars().count() > 500 {
            problems.add(if name == "what" { "what" } else { "detail" }, "Please shorten this to 500 characters.");
        }
    }
    match entry {
        Entry::Problem => match (form.text("since"), dates::parse_day(form.text("since"))) {
            ("", _) => {}
            (_, None) => problems.add("since", "Please enter the date as year-month-day."),
            (_, Some(day)) if day > today => problems.add("since", "This date is in the future."),
            _ => {}
        },
        Entry::Medication if form.text("detail").is_empty() => problems.add("detail", "Please enter how it is taken."),
        Entry::Allergy if !RISKS.iter().any(|(key, _)| *key == form.text("risk")) => {
            problems.add("risk", "Please choose one.");
        }
        _ => {}
    }
    problems
}

/// The resource of a new entry. `author` is the practitioner, where the user is one.
fn entry_body(entry: Entry, form: &Form, patient: &str, now: &str, author: Option<&str>) -> Value {
    let status = |system: &str, code: &str| json!({"coding": [{"system": system, "code": code}]});
    let reference = json!({"reference": format!("Patient/{patient}")});
    let what = form.text("what");
    let mut body = match entry {
        Entry::Problem => json!({
            "resourceType": "Condition",
            "clinicalStatus": status(CONDITION_STATUS, "active"),
            "verificationStatus": status(CONDITION_VERIFIED, "confirmed"),
            "category": [status(CONDITION_CATEGORY, "problem-list-item")],
            "code": {"text": what}, "subject": reference, "recordedDate": now,
        }),
        Entry::Medication => json!({
            "resourceType": "MedicationRequest", "status": "active", "intent": "order",
            "medicationCodeableConcept": {"text": what}, "subject": reference, "authoredOn": now,
            "dosageInstruction": [{"text": form.text("detail")}],
        }),
        Entry::Allergy => json!({
            "resourceType": "AllergyIntolerance",
            "clinicalStatus": status(ALLERGY_STATUS, "active"),
            "verificationStatus": status(ALLERGY_VERIFIED, "confirmed"),
            "criticality": form.text("risk"), "code": allergy_code(what), "patient": reference, "recordedDate": now,
        }),
    };
    if let (Entry::Problem, Some(since)) = (entry, dates::parse_day(form.text("since"))) {
        body["onsetDateTime"] = since.to_string().into();
    }
    if entry == Entry::Allergy && !form.text("detail").is_empty() {
        body["reaction"] = json!([{"manifestation": [{"text": form.text("detail")}]}]);
    }
    if let Some(author) = author {
        let name = if entry == Entry::Medication { "requester" } else { "recorder" };
        body[name] = json!({"reference": format!("Practitioner/{author}")});
    }
    body
}

/// "No known allergies" is a coded statement, so that it is never taken for a substance.
fn allergy_code(what: &str) -> Value {
    let plain = what.to_lowercase();
    if matches!(plain.trim_end_matches('.'), "no known allergies" | "no known allergy" | "nka" | "none known") {
        let coding = json!({"system": "http://snomed.info/sct", "code": "716186003", "display": "No known allergy"});
        return json!({"coding": [coding],
            "text": "No known allergies"});
    }
    json!({"text": what})
}

async fn add_entry(
    State((web, entry)): EntryState,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    check_patient(&form, &patient)?;
    let problems = check_entry(entry, &form, dates::today(web.now(), web.settings().zone));
    if !problems.is_empty() {
        let (banner, facts) = banner(&web, &visit, &patient).await?;
        let page = entry_form(&web, &visit, entry, &banner, &facts, &form, &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let author = visit.session.as_ref().and_then(|s| s.practitioner.clone());
    let body = entry_body(entry, &form, &patient, &web.now_fhir(), author.as_deref());
    let store = move |tx: &mut Tx<'_>| tx.create(entry.kind(), body);
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}")))
}

async fn edit_entry(
    State((web, entry)): EntryState,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
) -> Result<Markup, PageError> {
    let (site, kind) = (web.clone(), entry.kind());
    let read = move |view: &View<'_>| {
        let resource = read_of(view, kind, &id, &patient)?;
        Ok::<_, StoreError>((banner_in(&site, view, &patient)?, resource))
    };
    let ((banner, facts), resource) = web.store().view(&visit.actor, read).await?;
    let mut states = fields::pairs(entry.states());
    states.push(("entered-in-error".into(), "Entered in error".into()));
    let title = format!("Change {}", entry.noun());
    let back = format!("/patients/{}", facts.id);
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        &title,
        Some(&banner),
        &html! {
            div.head { h1 { (entry_label(&resource)) } }
            @if let Some(detail) = entry_detail(entry, &resource) { p { (detail) } }
            form.sheet method="post" action={ (back) "/" (entry.segment()) "/" (text(&resource, "/id")) } {
                (layout::csrf(&visit)) (form_identity(&facts.id, &version(&resource).to_string()))
                (fields::select("Status", "status", entry.state(&resource), &states, true, &Problems::default()))
                p.hint {
                    "Nothing is deleted: the earlier state stays in the history. For another text, mark this one “Entered in \
                     error” and add a new one."
                }
                p.actions { button.primary type="submit" { "Save" } a.button href=(back) { "Cancel" } }
            }
        },
    ))
}

async fn save_entry(
    State((web, entry)): EntryState,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let version = checked_version(&form, &patient)?;
    let status = form.text("status").to_owned();
    if status != "entered-in-error" && !entry.states().iter().any(|(key, _)| *key == status) {
        return Err(PageError::Form(FormError::Malformed));
    }
    let (owner, target) = (patient.clone(), id.clone());
    let save = move |tx: &mut Tx<'_>| {
        let mut body = read_of_tx(tx, entry.kind(), &id, &owner)?;
        set_state(entry, &mut body, &status);
        tx.update(entry.kind(), &id, body, Expect::Version(version))
    };
    match web.store().write(&visit.actor, save).await {
        Ok(_) => Ok(redirect(&format!("/patients/{patient}"))),
        Err(StoreError::VersionConflict { .. }) => {
            merge_entry(&web, &visit, entry, (&patient, &target), (&form, version)).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Somebody else changed the entry meanwhile.
async fn merge_entry(
    web: &Web,
    visit: &Visit,
    entry: Entry,
    (patient, id): (&str, &str),
    (form, opened): (&Form, u32),
) -> Result<Response, PageError> {
    let (site, owner, target) = (web.clone(), patient.to_owned(), id.to_owned());
    let read = move |view: &View<'_>| {
        let current = read_of(view, entry.kind(), &target, &owner)?;
        let base = belongs(view.version(entry.kind(), &target, opened)?.json()?, &owner)?;
        Ok::<_, StoreError>((banner_in(&site, view, &owner)?.0, base, current))
    };
    let (banner, base, current) = web.store().view(&visit.actor, read).await?;
    let state = |resource: &Value| match code(resource, "verificationStatus") {
        "entered-in-error" => "entered-in-error".to_owned(),
        _ => entry.state(resource).to_owned(),
    };
    let mut words = fields::pairs(entry.states());
    words.push(("entered-in-error".into(), "Entered in error".into()));
    let status = super::merge::Field::new("status", "Status", &state(&base), form.text("status"), &state(&current));
    let (back, what) = (format!("/patients/{patient}"), format!("the {} “{}”", entry.noun(), entry_label(&current)));
    let merge = Merge {
        section: Section::Patients,
        banner: Some(&banner),
        what: &what,
        action: &format!("{back}/{}/{id}", entry.segment()),
        back: &back,
        patient,
        version: version(&current),
        saved: text(&current, "/meta/lastUpdated"),
        fields: vec![status.words(words)],
        hidden: Vec::new(),
    };
    Ok(if merge.is_same() { redirect(&back) } else { merge.page(web, visit) })
}

fn set_state(entry: Entry, body: &mut Value, status: &str) {
    let coded = |system: &str, code: &str| json!({"coding": [{"system": system, "code": code}]});
    let (clinical, verified) = match entry {
        Entry::Medication => {
            body["status"] = status.into();
            return;
        }
        Entry::Problem => (CONDITION_STATUS, CONDITION_VERIFIED),
        Entry::Allergy => (ALLERGY_STATUS, ALLERGY_VERIFIED),
    };
    if status == "entered-in-error" {
        // FHIR (con-5, ait-2): an entry in error has no clinical status.
        if let Some(object) = body.as_object_mut() {
            object.remove("clinicalStatus");
        }
        body["verificationStatus"] = coded(verified, status);
    } else {
        body["clinicalStatus"] = coded(clinical, status);
    }
}
