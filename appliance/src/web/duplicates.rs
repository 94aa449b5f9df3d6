//! The same person twice: found by a score while somebody registers, and put together by a link that can be undone.

use super::form::Form;
use super::gate::{UrlQuery, Visit};
use super::layout;
use super::login::redirect;
use super::patients;
use super::reading::{PatientFacts, list, reference_id, text};
use super::registration::{self, Row};
use super::{Method, PageError, Policy, Route, Target, Web, chart, dates};
use crate::access::accounts::AccountError;
use crate::access::{Action, follow};
use crate::audit::{self, Event};
use crate::fhir::alike;
use crate::store::{Expect, Page, Query, Resource, StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

/// From this score on somebody is shown.
pub const ALIKE: u32 = 55;
const SHOWN_MAX: usize = 5;
const CANDIDATES_MAX: u32 = 200;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Patient"));
    vec![
        Route::new(Method::Get, "/patients/alike", may(Action::Search), alike_page, w()),
        Route::new(Method::Get, "/patients/{patient}/merge", may(Action::Update), merge_page, w()),
        Route::new(Method::Post, "/patients/{patient}/merge", may(Action::Update), merge, w()),
        Route::new(Method::Post, "/patients/{patient}/unmerge", may(Action::Update), unmerge, w()),
    ]
}

/// How patients are looked for: at a read point, or inside of the transaction that registers one.
type Search<'a> = &'a dyn Fn(&Query) -> Result<Page, StoreError>;

/// What is known of a person who may be there already.
#[derive(Default, Clone)]
pub struct Person {
    pub family: String,
    pub given: String,
    pub birth: String,
    pub phone: String,
    pub email: String,
    pub identifiers: Vec<Row>,
}

impl Person {
    fn of(facts: &PatientFacts) -> Person {
        Person {
            family: facts.family.clone(),
            given: facts.given.clone(),
            birth: facts.birth.map(|d| d.to_string()).unwrap_or_default(),
            phone: facts.phone.clone(),
            email: facts.email.clone(),
            identifiers: facts.identifiers.clone(),
        }
    }

    fn typed(form: &Form) -> Person {
        let text = |name| form.text(name).to_owned();
        Person {
            family: text("family"),
            given: text("given"),
            birth: text("birth"),
            phone: text("phone"),
            email: text("email"),
            identifiers: registration::identifiers_of(form),
        }
    }
}

/// 0 to 100: how likely both are one person.
pub fn score(person: &Person, other: &PatientFacts) -> u32 {
    let family = alike::names(&person.family, &other.family);
    let given = alike::names(first(&person.given), first(&other.given));
    // Names that were given in each other's field.
    let crossed =
        alike::names(&person.family, first(&other.given)).min(alike::names(first(&person.given), &other.family));
    let name = ((family + given) / 2).max(crossed);
    let birth = alike::births(dates::parse_day(&person.birth), other.birth);
    let digits = |phone: &str| phone.chars().filter(char::is_ascii_digit).collect::<String>();
    let same = |a: &str, b: &str| !a.is_empty() && a.eq_ignore_ascii_case(b);
    let reached = same(&digits(&person.phone), &digits(&other.phone)) || same(&person.email, &other.email);
    match registration::shared(&person.identifiers, &other.identifiers) {
        // A number of one person alone decides; one that a family shares speaks for it, as the phone does.
        Some(true) => 100,
        family => (name * 45 / 100 + birth * 40 / 100 + if reached || family.is_some() { 15 } else { 0 }).min(100),
    }
}

fn first(names: &str) -> &str {
    names.split_whitespace().next().unwrap_or_default()
}

/// Patients who have one of these identifiers.
pub fn with_identifiers(search: Search<'_>, identifiers: &[Row]) -> Result<Vec<Resource>, StoreError> {
    let mut found: Vec<Resource> = Vec::new();
    for row in identifiers {
        let number = row.identifier().2;
        let query = match number.chars().any(|c| c.is_ascii_digit()) {
            true => Query::all("Patient")?.with_number(number),
            false => Query::parse("Patient", &[("identifier".to_owned(), crate::fhir::escape(number))])?,
        };
        found.extend(search(&query)?.resources);
    }
    Ok(found)
}

/// The likeliest of those who are registered.
fn find(search: Search<'_>, person: &Person, but: &str) -> Result<Vec<(u32, PatientFacts)>, StoreError> {
    let mut asked: Vec<(String, String)> = Vec::new();
    if let Some(day) = dates::parse_day(&person.birth) {
        asked.push(("birthdate".into(), day.to_string()));
    }
    let head: String = person.family.chars().filter(|c| c.is_alphabetic()).take(3).collect();
    if head.chars().count() >= 2 {
        asked.push(("name".into(), head));
    }
    let mut candidates = with_identifiers(search, &person.identifiers)?;
    for pair in asked {
        candidates
            .extend(search(&Query::parse("Patient", &[pair])?.first(CANDIDATES_MAX, "-_lastUpdated")?)?.resources);
    }
    let mut found: Vec<(u32, PatientFacts)> = Vec::new();
    for stored in candidates {
        let facts = PatientFacts::read(&stored.json()?);
        let score = score(person, &facts);
        if score >= ALIKE && facts.id != but && !found.iter().any(|(_, f)| f.id == facts.id) {
            found.push((score, facts));
        }
    }
    found.sort_by_key(|(score, facts)| (std::cmp::Reverse(*score), facts.family.clone()));
    found.truncate(SHOWN_MAX);
    Ok(found)
}

fn described(facts: &PatientFacts) -> Markup {
    html! {
        a href={ "/patients/" (facts.id) } { (facts.full_name()) }
        @if let Some(birth) = facts.birth { ", born " (dates::long_day(birth)) }
        ", no. " (facts.short_number())
        @if !facts.phone.is_empty() { ", phone " (facts.phone) }
    }
}

/// A fragment of the registration page: who is there already.
async fn alike_page(
    State(web): State<Web>,
    visit: Visit,
    UrlQuery(typed): UrlQuery<Vec<(String, String)>>,
) -> Result<Markup, PageError> {
    let person = Person::typed(&Form::from_fields(typed));
    let read = move |view: &View<'_>| find(&|q| view.search(q), &person, "");
    let found = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    Ok(html! {
        @if !found.is_empty() {
            div.notice.warn {
                p { b { "Perhaps registered already:" } }
                ul { @for (score, facts) in &found { li { (described(facts)) span.soft { " · " (score) " %" } } } }
            }
        }
    })
}

/// The other record of a link of this kind.
fn linked<'v>(patient: &'v Value, kind: &str) -> Option<&'v str> {
    let link = list(patient, "link").iter().find(|l| text(l, "/type") == kind)?;
    reference_id(link, "/other/reference", "Patient")
}

/// What a chart says of a record that belongs to another.
pub fn notice(visit: &Visit, patient: &Value) -> Markup {
    let id = text(patient, "/id");
    html! {
        @if let Some(other) = linked(patient, "replaced-by") {
            div.notice.warn role="alert" {
                p { "This record was merged: go on in " a href={ "/patients/" (other) } { "the other record" } ". What stands in either is shown here and there; nothing new is entered here." }
                form.inline method="post" action={ "/patients/" (id) "/unmerge" } {
                    (layout::csrf(visit)) (chart::form_identity(id, "")) button.small type="submit" { "Undo the merge" } }
            }
        }
        @if let Some(other) = linked(patient, "replaces") {
            div.notice.warn { p { "An older record belongs to the same person: " a href={ "/patients/" (other) } { "open it" } ". What stands in it is shown here, marked “from another record”." } }
        }
    }
}

async fn merge_page(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    UrlQuery(asked): UrlQuery<Asked>,
) -> Result<Markup, PageError> {
    let typed = asked.q.clone();
    let (site, id) = (web.clone(), patient.clone());
    let read = move |view: &View<'_>| {
        let (banner, facts) = chart::banner_in(&site, view, &id)?;
        let found = find(&|q| view.search(q), &Person::of(&facts), &id)?;
        Ok::<_, StoreError>((banner, facts, found))
    };
    let (banner, facts, mut found) = web.store().view(&visit.actor, read).await?;
    if !typed.trim().is_empty() {
        let own = Person::of(&facts);
        let others = patients::find(&web, &visit, &typed, 20).await?;
        found = others.into_iter().filter(|f| f.id != facts.id).map(|f| (score(&own, &f), f)).collect();
    }
    Ok(layout::page(
        &web,
        &visit,
        layout::Section::Patients,
        "Merge records",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Merge" }
            div.head { h1 { "Merge with another record" } }
            p { "Choose the other record of this person. This one is kept and goes on; the other is closed and linked to it. Nothing is moved or lost, and it can be undone." }
            form.search method="get" action={ "/patients/" (facts.id) "/merge" } {
                label for="q" { "Find another" }
                div.row { input #q type="search" name="q" value=(typed) maxlength="100" autocomplete="off"; button type="submit" { "Search" } }
            }
            @if found.is_empty() { p.empty { "Nobody is alike." } }
            ul.rows.choices { @for (score, other) in &found { li {
                span.what { (described(other)) span.soft { " · " (score) " %" } }
                form.inline method="post" action={ "/patients/" (facts.id) "/merge" } {
                    (layout::csrf(&visit)) (chart::form_identity(&facts.id, "")) input type="hidden" name="other" value=(other.id);
                    button.small type="submit" { "Close it and link it here" }
                }
            } } }
        },
    ))
}

#[derive(Deserialize, Default)]
struct Asked {
    #[serde(default)]
    q: String,
}

/// Adds or takes away a link of a patient.
fn set_link(tx: &mut Tx<'_>, id: &str, kind: &str, other: &str, active: bool, add: bool) -> Result<(), StoreError> {
    let stored = tx.read("Patient", id)?;
    let mut body = stored.json()?;
    let reference = format!("Patient/{other}");
    let mut links: Vec<Value> = list(&body, "link").to_vec();
    links.retain(|l| text(l, "/other/reference") != reference);
    if add {
        links.push(json!({"other": {"reference": reference}, "type": kind}));
    }
    if let Some(object) = body.as_object_mut() {
        object.remove("link");
        if !links.is_empty() {
            object.insert("link".into(), links.into());
        }
        object.insert("active".into(), active.into());
    }
    tx.update("Patient", id, body, Expect::Version(stored.version)).map(drop)
}

async fn merge(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let (kept, closed) = (patient.clone(), form.text("other").to_owned());
    if kept == closed {
        return Err(StoreError::invalid("a record is not merged with itself", "Patient.link").into());
    }
    let store = move |tx: &mut Tx<'_>| {
        let (one, other) = (tx.read("Patient", &kept)?.json()?, tx.read("Patient", &closed)?.json()?);
        let was_merged = |id: &str| Ok::<_, StoreError>(tx.person(id)?.merged_into().is_some());
        if linked(&one, "replaced-by").is_some()
            || linked(&other, "replaced-by").is_some()
            || was_merged(&kept)?
            || was_merged(&closed)?
        {
            let told = "one of these records was merged already: undo that first";
            return Err(StoreError::invalid(told, "Patient.link").into());
        }
        set_link(tx, &kept, "replaces", &closed, true, true)?;
        set_link(tx, &closed, "replaced-by", &kept, false, true)?;
        tx.note(Event::new(audit::Action::Merge, "Patient", &closed).of_patient(&kept));
        if follow::follow(tx.connection(), &closed, &kept)? > 0 {
            tx.note(Event::new(audit::Action::UserChange, "portal", "merge").of_patient(&kept));
        }
        Ok::<_, AccountError>(())
    };
    web.store().write(&visit.actor, store).await.map_err(told)?;
    Ok(redirect(&format!("/patients/{patient}")))
}

fn told(error: AccountError) -> PageError {
    match error {
        AccountError::Store(error) => error.into(),
        other => other.into(),
    }
}

async fn unmerge(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let closed = patient.clone();
    let store = move |tx: &mut Tx<'_>| {
        let body = tx.read("Patient", &closed)?.json()?;
        let kept = linked(&body, "replaced-by").ok_or(StoreError::NotFound)?.to_owned();
        // Where its access went: the surviving record, or the one into which that was merged since.
        let survivors: Vec<String> = tx.person(&closed)?.ids().into_iter().filter(|id| *id != closed).collect();
        // Whether the surviving record is open is its own matter.
        let open = tx.person(&kept)?.merged_into().is_none();
        set_link(tx, &closed, "replaced-by", &kept, true, false)?;
        set_link(tx, &kept, "replaces", &closed, open, false)?;
        if follow::undo(tx.connection(), &closed, &survivors)? > 0 {
            tx.note(Event::new(audit::Action::UserChange, "portal", "merge").of_patient(&closed));
        }
        tx.note(Event::new(audit::Action::Merge, "Patient", &closed).of_patient(&kept));
        Ok::<_, AccountError>(())
    };
    web.store().write(&visit.actor, store).await.map_err(told)?;
    Ok(redirect(&format!("/patients/{patient}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::tests::Site;
    use http::StatusCode;

    fn facts(family: &str, given: &str, birth: &str, phone: &str) -> PatientFacts {
        PatientFacts {
            family: family.into(),
            given: given.into(),
            birth: dates::parse_day(birth),
            phone: phone.into(),
            ..PatientFacts::default()
        }
    }

    #[test]
    fn the_same_person_written_differently_scores_high_and_another_low() {
        let person = Person {
            family: "Müller".into(),
            given: "Anna Maria".into(),
            birth: "1960-05-06".into(),
            phone: "030 123456".into(),
            email: String::new(),
            identifiers: Vec::new(),
        };
        let other = |f: &str, g: &str, b: &str, p: &str| score(&person, &facts(f, g, b, p));
        assert_eq!(other("Müller", "Anna", "1960-05-06", "030-123456"), 100);
        for (f, g, b) in [
            ("Mueller", "Anna", "1960-05-06"),
            ("Müller", "Ana", "1960-06-05"),
            ("Anna", "Müller", "1960-05-06"),
            ("Müller", "Anna", "1960-05-07"),
        ] {
            assert!(other(f, g, b, "") >= ALIKE, "{f} {g} {b}: {}", other(f, g, b, ""));
        }
        for (f, g, b) in
            [("Müller", "Peter", "1985-01-01"), ("Schmidt", "Karl", "1960-05-06"), ("Müller", "Anna", "1991-12-24")]
        {
            assert!(other(f, g, b, "") < ALIKE, "{f} {g} {b}: {}", other(f, g, b, ""));
        }
    }

    #[tokio::test]
    async fn numbers_and_contact_persons_are_entered_shown_and_find_who_is_there_already() {
        let site = Site::new();
        let desk = site.session(Role::FrontDesk).await;
        let form = [
            ("family", "Doe"),
            ("given", "Jo"),
            ("birth", "1960-05-06"),
            ("gender", "female"),
            ("id-1-kind", "SS"),
            ("id-1-value", "123-45-6789"),
            ("id-2-kind", "MB"),
            ("id-2-value", "W77"),
            ("contact-1-role", "C"),
            ("contact-1-name", "Ann Roe"),
            ("contact-1-relation", "sister"),
            ("contact-1-phone", "555 12345"),
        ];
        let wrong: Vec<(&str, &str)> = form.iter().copied().filter(|(name, _)| *name != "contact-1-phone").collect();
        let refused = site.post(&desk, "/patients/new", &wrong).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(
            refused.body.contains("needs a phone number") && refused.body.contains("value=\"W77\""),
            "{}",
            refused.body
        );
        let stored = site.post(&desk, "/patients/new", &form).await;
        assert_eq!(stored.status, StatusCode::SEE_OTHER, "{}", stored.body);
        let chart = stored.location().to_owned();
        let shown = site.get(&desk, &chart).await.body;
        for words in ["Social Security number", "W77", "Emergency contact", "Ann Roe (sister), phone 555 12345"] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
        // Another name and birth date, the same number: found while typing, and asked for when it is saved.
        let typed =
            "/patients/alike?family=Smith&given=Al&birth=1999-01-01&id-1-kind=SS&id-1-value=123-45-6789&id-1-called=";
        assert!(site.get(&desk, typed).await.body.contains("Perhaps registered already"));
        let other = [
            ("family", "Smith"),
            ("given", "Al"),
            ("birth", "1999-01-01"),
            ("gender", "male"),
            ("id-1-kind", "SS"),
            ("id-1-value", "123-45-6789"),
        ];
        let asked = site.post(&desk, "/patients/new", &other).await;
        assert_eq!(asked.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(asked.body.contains("registered already"), "{}", asked.body);
        // Editing shows the rows, and saves a changed one.
        let page = site.get(&desk, &format!("{chart}/edit")).await.body;
        assert!(page.contains("name=\"id-2-value\"") && page.contains("value=\"Ann Roe\""), "{page}");
        let patient = chart.rsplit('/').next().unwrap().to_owned();
        let own = [
            ("patient", patient.as_str()),
            ("version", "1"),
            ("id-1-at", "1"),
            ("id-2-at", "2"),
            ("contact-1-at", "0"),
        ];
        let changed =
            form.iter().copied().map(|(name, value)| (name, if name == "id-2-value" { "W78" } else { value }));
        let changed: Vec<(&str, &str)> = own.into_iter().chain(changed).collect();
        assert_eq!(site.post(&desk, &format!("{chart}/edit"), &changed).await.status, StatusCode::SEE_OTHER);
        let body = site.read("Patient", &patient).await;
        assert_eq!((&body["identifier"][2]["value"], body["identifier"].as_array().unwrap().len()), (&json!("W78"), 3));
        assert_eq!(body["contact"][0]["relationship"][0]["coding"][0]["code"], "C");
        // Somebody else saved meanwhile: both are shown.
        let met =
            site.post(&desk, &format!("{chart}/edit"), &form.iter().copied().chain(own).collect::<Vec<_>>()).await;
        assert_eq!(met.status, StatusCode::CONFLICT);
        assert!(met.body.contains("Insurance member number: W78"), "{}", met.body);
    }

    #[tokio::test]
    async fn two_records_are_linked_and_the_link_is_undone() {
        let site = Site::new();
        let desk = site.session(Role::FrontDesk).await;
        let (kept, closed) = (site.patient("Doe").await, site.patient("Doee").await);
        let typed = site.get(&desk, "/patients/alike?family=Doe&given=Jo&birth=1960-05-06").await.body;
        assert!(typed.contains(&kept) && typed.contains(&closed), "{typed}");
        let page = site.get(&desk, &format!("/patients/{kept}/merge")).await.body;
        assert!(page.contains(&closed), "{page}");
        let active = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical";
        let allergy = json!({"resourceType": "AllergyIntolerance", "code": {"text": "Peanut"},
            "patient": {"reference": format!("Patient/{closed}")},
            "clinicalStatus": {"coding": [{"system": active, "code": "active"}]}});
        site.store("AllergyIntolerance", allergy).await;
        let fields = [("patient", kept.as_str()), ("other", closed.as_str())];
        assert_eq!(site.post(&desk, &format!("/patients/{kept}/merge"), &fields).await.status, StatusCode::SEE_OTHER);
        assert!(site.get(&desk, &format!("/patients/{closed}")).await.body.contains("This record was merged"));
        let chart = site.get(&desk, &format!("/patients/{kept}")).await.body;
        assert!(chart.contains("An older record") && chart.contains("Peanut"), "{chart}");
        let coverage = site.get(&desk, &format!("/patients/{kept}/coverage")).await.body;
        assert!(coverage.contains("Peanut"), "on the banner of every page");
        let booking = [("patient", closed.as_str()), ("day", "2026-06-09"), ("time", "10:00")];
        let booked = site.post(&desk, "/schedule/book", &booking).await;
        assert_eq!(booked.status, StatusCode::CONFLICT);
        let leads_on = booked.body.contains(&format!("href=\"/patients/{kept}\""));
        assert!(booked.body.contains("merged into another one") && leads_on, "{}", booked.body);
        assert_eq!(
            site.post(&desk, &format!("/patients/{kept}/merge"), &fields).await.status,
            StatusCode::BAD_REQUEST,
            "once"
        );
        let undo = [("patient", closed.as_str())];
        assert_eq!(site.post(&desk, &format!("/patients/{closed}/unmerge"), &undo).await.status, StatusCode::SEE_OTHER);
        let stored = site.read("Patient", &closed).await;
        assert!(stored.get("link").is_none() && stored["active"] == true);
        assert!(site.read("Patient", &kept).await.get("link").is_none());
    }

    #[tokio::test]
    async fn the_surviving_chart_shows_what_stands_in_merged_records() {
        let site = Site::new();
        let doctor = site.session(Role::Clinician).await;
        let (kept, closed, older) = (site.patient("Doe").await, site.patient("Doee").await, site.patient("Do").await);
        let of = |patient: &str| json!({"reference": format!("Patient/{patient}")});
        let coded = |code: &str| json!({"coding": [{"code": code}]});
        site.store(
            "MedicationRequest",
            json!({"resourceType": "MedicationRequest", "status": "active", "intent": "order",
            "subject": of(&closed), "medicationCodeableConcept": {"text": "Lisinopril"}}),
        )
        .await;
        let gout = site.store("Condition", json!({"resourceType": "Condition", "subject": of(&older), "clinicalStatus": coded("active"), "code": {"text": "Gout"}})).await;
        site.store(
            "Immunization",
            json!({"resourceType": "Immunization", "status": "completed", "patient": of(&older),
            "vaccineCode": {"text": "Tetanus"}, "occurrenceDateTime": "2020-01-02"}),
        )
        .await;
        site.store("Observation", json!({"resourceType": "Observation", "status": "final", "subject": of(&closed), "effectiveDateTime": "2026-05-01T08:00:00Z",
            "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
            "code": {"text": "Sodium"}, "valueQuantity": {"value": 140}})).await;
        site.store("DocumentReference", json!({"resourceType": "DocumentReference", "status": "current", "subject": of(&closed), "description": "Old letter",
            "content": [{"attachment": {"contentType": "application/pdf"}}]})).await;
        for (kept, closed) in [(&closed, &older), (&kept, &closed)] {
            let fields = [("patient", kept.as_str()), ("other", closed.as_str())];
            assert_eq!(
                site.post(&doctor, &format!("/patients/{kept}/merge"), &fields).await.status,
                StatusCode::SEE_OTHER
            );
        }
        let base = format!("/patients/{kept}");
        for (path, words) in [
            ("", "Lisinopril"),
            ("", "Gout"),
            ("", "Old letter"),
            ("/immunizations", "Tetanus"),
            ("/results", "Sodium"),
            ("/timeline", "Gout"),
            ("/timeline", "Sodium"),
        ] {
            let page = site.get(&doctor, &format!("{base}{path}")).await.body;
            assert!(page.contains(words) && page.contains("from another record"), "{path} {words}: {page}");
        }
        let chart = site.get(&doctor, &base).await.body;
        let own = format!("/patients/{older}/problems/{gout}");
        assert!(chart.contains(&own), "an entry is changed in its own record");
        assert_eq!(site.get(&doctor, &own).await.status, StatusCode::OK);
        assert!(
            site.get(&doctor, &format!("/patients/{older}")).await.body.contains("Lisinopril"),
            "and the other way round"
        );
        let desk = site.session(Role::FrontDesk).await;
        assert!(!site.get(&desk, &base).await.body.contains("Gout"), "each role sees what it may");
        let whole: Value =
            serde_json::from_str(&site.get(&doctor, &format!("/fhir/R4/Patient/{kept}/$everything")).await.body)
                .unwrap();
        let ids: Vec<&str> = list(&whole, "entry").iter().map(|entry| text(entry, "/resource/id")).collect();
        assert!(ids.contains(&gout.as_str()) && ids.contains(&older.as_str()) && ids.len() == 8, "{ids:?}");
        // Nothing new is booked in a record that is closed; what was booked may end.
        let put = |method: &'static str, path: String, body: Value| {
            let request = http::Request::builder()
                .method(method)
                .uri(format!("/fhir/R4{path}"))
                .header("cookie", &desk.cookie)
                .header("x-csrf-token", &desk.csrf)
                .header("content-type", "application/fhir+json")
                .header("if-match", "W/\"1\"");
            site.send(request.body(axum::body::Body::from(body.to_string())).unwrap())
        };
        let visit = |patient: &str, status: &str| {
            json!({"resourceType": "Appointment", "status": status, "start": "2026-06-09T14:00:00Z",
            "end": "2026-06-09T14:30:00Z", "participant": [{"actor": of(patient), "status": "accepted"}]})
        };
        let refused = put("POST", "/Appointment".into(), visit(&older, "booked")).await;
        assert!(refused.status == StatusCode::BAD_REQUEST && refused.body.contains("book there"), "{}", refused.body);
        let stored = put("POST", "/Appointment".into(), visit(&kept, "booked")).await;
        assert_eq!(stored.status, StatusCode::CREATED, "{}", stored.body);
        let id = serde_json::from_str::<Value>(&stored.body).unwrap()["id"].as_str().unwrap().to_owned();
        let mut moved = visit(&closed, "booked");
        moved["id"] = id.as_str().into();
        assert_eq!(put("PUT", format!("/Appointment/{id}"), moved.clone()).await.status, StatusCode::BAD_REQUEST);
        moved["status"] = "cancelled".into();
        assert_eq!(put("PUT", format!("/Appointment/{id}"), moved).await.status, StatusCode::OK);
        let admin = site.session(Role::PracticeAdmin).await;
        let looked = site.get(&admin, &format!("/audit?action=export&patient={older}")).await.body;
        let rows = looked.split("<tbody").nth(1).unwrap_or_default();
        assert!(rows.contains("Immunization"), "looked at by way of the other record: {looked}");
    }
}
