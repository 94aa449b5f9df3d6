//! The patient list with its search, and registration.

use super::fields::{self, Field, Problems};
use super::form::{Form, percent_encode};
use super::gate::{UrlQuery, Visit};
use super::layout::{self, Section};
use super::login::redirect;
use super::merge::Merge;
use super::reading::{PatientFacts, RECORD_NUMBER, list, reference_id, text};
use super::registration::{self, Part};
use super::{Method, PageError, Policy, Route, Target, Web, chart, dates, duplicates};
use crate::access::{Action, Object, authorize};
use crate::store::{Expect, Query, Resource, StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chrono::NaiveDate;
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Patients on one page of the list.
const PAGE_PATIENTS: usize = 25;
/// Patients that a search looks at; more means that it should be narrowed.
const FOUND_MAX: u32 = 200;
/// The first record number that this practice gives.
const FIRST_NUMBER: u64 = 100_001;
/// Words of one search that count.
const WORDS_MAX: usize = 8;
const NUMBER_KEY: &str = "next-record-number";
const GENDERS: [(&str, &str); 4] = [("female", "Female"), ("male", "Male"), ("other", "Other"), ("unknown", "Unknown")];

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Patient"));
    vec![
        Route::new(Method::Get, "/patients", may(Action::Search), patient_list, w()),
        Route::new(Method::Get, "/patients/new", may(Action::Create), new_patient, w()),
        Route::new(Method::Post, "/patients/new", may(Action::Create), register, w()),
        Route::new(Method::Get, "/patients/{patient}/edit", may(Action::Update), edit_patient, w()),
        Route::new(Method::Post, "/patients/{patient}/edit", may(Action::Update), save_patient, w()),
    ]
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    page: usize,
}

/// What a person typed into the search field: dates are birth dates, words with digits numbers of the person, the rest are parts
/// of names, all of which must fit. A number may be written in groups, with spaces or dashes.
pub fn query(typed: &str) -> Result<Query, StoreError> {
    let (pairs, numbers) = understood(typed);
    let query = Query::parse("Patient", &pairs)?;
    Ok(numbers.iter().fold(query, |query, number| query.with_number(number)))
}

fn understood(typed: &str) -> (Vec<(String, String)>, Vec<String>) {
    let (mut pairs, mut numbers): (Vec<(String, String)>, Vec<String>) = Default::default();
    for part in typed.split([',', ';']) {
        let mut number = String::new();
        for word in part.split(' ').filter(|word| !word.is_empty()) {
            let pair = match birth_date(word) {
                Some(day) => ("birthdate", day.to_string()),
                None if word.chars().any(|c| c.is_ascii_digit()) => {
                    number.push_str(word);
                    continue;
                }
                // "neil" finds O'Neil; one or two letters would find nearly everybody, so they are a beginning.
                None if word.chars().count() > 2 => ("name:contains", word.to_owned()),
                None => ("name", word.to_owned()),
            };
            numbers.extend(Some(std::mem::take(&mut number)).filter(|number| !number.is_empty()));
            pairs.push((pair.0.to_owned(), pair.1.replace(['\\', '|', '$'], "")));
        }
        numbers.extend(Some(number).filter(|number| !number.is_empty()));
    }
    pairs.retain(|(_, value)| !value.is_empty());
    pairs.truncate(WORDS_MAX);
    numbers.truncate(WORDS_MAX);
    (pairs, numbers)
}

/// A birth date as people type it: `1960-05-06`, `6.5.1960` or `5/6/1960` (month first).
fn birth_date(word: &str) -> Option<NaiveDate> {
    let plausible = |d: &NaiveDate| (1850..2200).contains(&chrono::Datelike::year(d));
    ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y"]
        .iter()
        .find_map(|format| NaiveDate::parse_from_str(word, format).ok())
        .filter(plausible)
}

async fn patient_list(
    State(web): State<Web>,
    visit: Visit,
    UrlQuery(asked): UrlQuery<ListQuery>,
) -> Result<Markup, PageError> {
    let typed: String = asked.q.chars().take(100).collect();
    let asked_for = query(&typed)?.first(FOUND_MAX, "-_lastUpdated")?;
    let search = move |view: &View<'_>| view.search(&asked_for);
    let found = web.store().view::<_, StoreError, _>(&visit.actor, search).await?;
    let mut patients = facts(&found.resources)?;
    patients.sort_by_cached_key(|p| (p.family.to_lowercase(), p.given.to_lowercase(), p.birth));
    let listing =
        Listing { typed: &typed, page: asked.page.min(patients.len() / PAGE_PATIENTS), more: found.next.is_some() };
    let results = results(&web, &patients, &listing);
    if visit.fragment {
        return Ok(results);
    }
    let may_register = authorize(&visit.actor, Action::Create, Object::resource("Patient")).is_ok();
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        "Patients",
        None,
        &html! {
            div.head {
                h1 { "Patients" }
                @if may_register { a.button.primary href="/patients/new" { "Register a patient" } }
            }
            form.search role="search" method="get" action="/patients" {
                label for="q" { "Find a patient" }
                div.row {
                    input #q type="search" name="q" value=(typed) autofocus autocomplete="off" spellcheck="false"
                        maxlength="100"
                        aria-describedby="q-hint"
                        hx-get="/patients" hx-trigger="input changed delay:200ms, search" hx-target="#results"
                        hx-sync="this:replace";
                    button type="submit" { "Search" }
                }
                p.hint #q-hint { "Name, birth date (1960-05-06), record number or another number of the person; several together narrow the list." }
            }
            div #results aria-live="polite" { (results) }
        },
    ))
}

fn facts(resources: &[Resource]) -> Result<Vec<PatientFacts>, PageError> {
    resources.iter().map(|r| Ok(PatientFacts::read(&r.json()?))).collect()
}

/// What part of a search's result is shown.
struct Listing<'a> {
    typed: &'a str,
    page: usize,
    /// There were more than [`FOUND_MAX`].
    more: bool,
}

fn results(web: &Web, patients: &[PatientFacts], listing: &Listing<'_>) -> Markup {
    let today = dates::today(web.now(), web.settings().zone);
    let typed = listing.typed;
    let link = |page: usize| format!("/patients?q={}&page={page}", percent_encode(typed));
    let shown = patients.iter().skip(listing.page * PAGE_PATIENTS).take(PAGE_PATIENTS);
    let pages = patients.len().div_ceil(PAGE_PATIENTS);
    html! {
        @if patients.is_empty() {
            p.empty {
                @if typed.is_empty() { "No patients are registered yet." }
                @else { "Nobody found. Try fewer letters, or the birth date." }
            }
        } @else {
            table.list {
                caption.quiet {
                    @if listing.more { "More than " (FOUND_MAX) " patients fit; type more to narrow the list." }
                    @else if patients.len() == 1 { "1 patient" } @else { (patients.len()) " patients" }
                }
                (layout::columns(&["Name", "Born", "Sex", "No.", "Phone"]))
                tbody {
                    @for patient in shown {
                        tr {
                            th scope="row" { a href={ "/patients/" (patient.id) } { (patient.full_name()) }
                                @if patient.deceased.is_some() { " " span.tag.dark { "Deceased" } } }
                            td {
                                @if let Some(birth) = patient.birth {
                                    (dates::long_day(birth))
                                    @if patient.deceased.is_none() { span.soft { " (" (dates::age(birth, today)) ")" } }
                                }
                            }
                            td { (patient.gender_word()) }
                            td.number title=(patient.number) { (patient.short_number()) }
                            td { (patient.phone) }
                        }
                    }
                }
            }
        }
        @if pages > 1 {
            nav.pages aria-label="Pages" {
                @if listing.page > 0 { a.button href=(link(listing.page - 1)) { "Previous" } }
                span { "Page " (listing.page + 1) " of " (pages) }
                @if listing.page + 1 < pages { a.button href=(link(listing.page + 1)) { "Next" } }
            }
        }
    }
}

async fn new_patient(State(web): State<Web>, visit: Visit) -> Markup {
    registration_page(&web, &visit, &Form::default(), &Problems::default(), &[])
}

fn registration_page(web: &Web, visit: &Visit, form: &Form, problems: &Problems, alike: &[PatientFacts]) -> Markup {
    layout::page(
        web,
        visit,
        Section::Patients,
        "Register a patient",
        None,
        &html! {
            div.head { h1 { "Register a patient" } }
            (problems.summary())
            form.sheet method="post" action="/patients/new" {
                (layout::csrf(visit))
                @if !alike.is_empty() { (duplicate_hint(alike)) }
                // Who is there already, by a score, while the names are typed.
                div #alike aria-live="polite" hx-get="/patients/alike" hx-include="#family, #given, #birth, #phone, #identifiers"
                    hx-trigger="change from:#family, change from:#given, change from:#birth, change from:#phone, change from:#identifiers" {}
                (demographics(form, problems))
                p.actions { button.primary type="submit" { "Register" } a.button href="/patients" { "Cancel" } }
            }
        },
    )
}

fn duplicate_hint(alike: &[PatientFacts]) -> Markup {
    html! {
        div.notice.warn role="alert" {
            p { b { "This may be somebody who is registered already:" } }
            ul { @for patient in alike { li {
                a href={ "/patients/" (patient.id) } { (patient.full_name()) }
                @if let Some(birth) = patient.birth { ", born " (dates::long_day(birth)) }
                ", no. " (patient.short_number())
                @if !patient.phone.is_empty() { ", phone " (patient.phone) }
            } } }
            label.check { input type="checkbox" name="another" value="yes"; " I have checked: this is another person" }
        }
    }
}

fn demographics(form: &Form, problems: &Problems) -> Markup {
    let field = |label, name| Field::new(label, name, form.text(name));
    html! {
        fieldset {
            legend { "Person" }
            div.columns {
                (field("Family name", "family").required().show(problems))
                (field("Given names", "given").required().show(problems))
                (field("Birth date", "birth").kind("date").required().show(problems))
                (fields::select("Sex", "gender", form.text("gender"), &fields::pairs(&GENDERS), true, problems))
            }
        }
        fieldset {
            legend { "Contact" }
            div.columns {
                (field("Phone", "phone").kind("tel").show(problems))
                (field("E-mail", "email").kind("email").show(problems))
                (field("Street and number", "line").show(problems))
                (field("City", "city").show(problems))
                (field("State or region", "state").show(problems))
                (field("Postal code", "postal").show(problems))
            }
        }
        (Part::Identifiers.show(form, problems))
        (Part::Contacts.show(form, problems))
    }
}

/// What is wrong with a form; what stands in the record as it was opened is nobody's mistake of now.
fn check(form: &Form, opened: &PatientFacts, today: NaiveDate) -> (Problems, Option<NaiveDate>) {
    let mut problems = Problems::default();
    for (name, what) in [("family", "the family name"), ("given", "the given name")] {
        if form.text(name).is_empty() {
            problems.add(name, format!("Please enter {what}."));
        }
    }
    for name in ["family", "given", "phone", "email", "line", "city", "state", "postal"] {
        if form.text(name).chars().count() > 200 {
            problems.add(name, "Please shorten this to 200 characters.");
        }
    }
    let birth = dates::parse_day(form.text("birth"));
    match birth {
        None => problems.add("birth", "Please enter the birth date as year-month-day, for example 1960-05-06."),
        Some(day) if day > today => problems.add("birth", "A birth date cannot be in the future."),
        Some(day) if birth == opened.birth && day <= today => {}
        Some(day) if today.years_since(day).unwrap_or(0) > 125 => {
            problems.add("birth", "This is more than 125 years ago.")
        }
        Some(_) => {}
    }
    if !GENDERS.iter().any(|(key, _)| *key == form.text("gender")) {
        problems.add("gender", "Please choose one.");
    }
    let email = form.text("email");
    if email != opened.email
        && !email.is_empty()
        && !email.split_once('@').is_some_and(|(a, b)| !a.is_empty() && b.contains('.'))
    {
        problems.add("email", "This is not an e-mail address.");
    }
    let phone = form.text("phone");
    if phone != opened.phone && !phone.is_empty() && phone.chars().filter(char::is_ascii_digit).count() < 5 {
        problems.add("phone", "A phone number has at least five digits.");
    }
    Part::Identifiers.check(form, &opened.identifiers, &mut problems);
    Part::Contacts.check(form, &opened.contacts, &mut problems);
    (problems, birth)
}

/// Writes the form's demographics into a `Patient`, leaving what the form does not show as it was.
fn apply(patient: &mut Map<String, Value>, form: &Form, birth: NaiveDate) {
    let given: Vec<&str> = form.text("given").split_whitespace().collect();
    let mut names = take_list(patient, "name");
    let at = names.iter().position(|n| text(n, "/use") == "official").unwrap_or(0);
    let name = json!({"use": "official", "family": form.text("family"), "given": given});
    merge_at(&mut names, at, name, &["text"]);
    patient.insert("name".into(), names.into());
    patient.insert("gender".into(), form.text("gender").into());
    patient.insert("birthDate".into(), birth.to_string().into());
    let mut telecom = take_list(patient, "telecom");
    for (system, name) in [("phone", "phone"), ("email", "email")] {
        let at = telecom.iter().position(|t| text(t, "/system") == system);
        match (at, form.text(name)) {
            (Some(at), "") => drop(telecom.remove(at)),
            (None, "") => {}
            (at, value) => {
                let at = at.unwrap_or(telecom.len());
                merge_at(&mut telecom, at, json!({"system": system, "value": value}), &[]);
            }
        }
    }
    put_list(patient, "telecom", telecom);
    let mut addresses = take_list(patient, "address");
    let mut address = Map::new();
    if !form.text("line").is_empty() {
        address.insert("line".into(), json!([form.text("line")]));
    }
    for (element, name) in [("city", "city"), ("state", "state"), ("postalCode", "postal")] {
        if !form.text(name).is_empty() {
            address.insert(element.into(), form.text(name).into());
        }
    }
    match (address.is_empty(), addresses.is_empty()) {
        (true, true) => {}
        (true, false) => drop(addresses.remove(0)),
        (false, _) => merge_at(&mut addresses, 0, address.into(), &["text", "line", "city", "state", "postalCode"]),
    }
    put_list(patient, "address", addresses);
    Part::Identifiers.apply(patient, form);
    Part::Contacts.apply(patient, form);
}

fn take_list(object: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match object.remove(name) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn put_list(object: &mut Map<String, Value>, name: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.insert(name.into(), list.into());
    }
}

/// Lays `value` over the element at `at`, after removing from it what `value` replaces; appends when there is none.
fn merge_at(list: &mut Vec<Value>, at: usize, value: Value, replaced: &[&str]) {
    match (list.get_mut(at), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            old.retain(|name, _| !replaced.contains(&name.as_str()));
            old.extend(new);
        }
        (Some(other), value) => *other = value,
        (None, value) => list.push(value),
    }
}

async fn register(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let (problems, birth) = check(&form, &PatientFacts::default(), dates::today(web.now(), web.settings().zone));
    let (Some(birth), true) = (birth, problems.is_empty()) else {
        return Ok(again(registration_page(&web, &visit, &form, &problems, &[])));
    };
    let checked = form.text("another") == "yes";
    let filled = form.clone();
    // Looked for and stored in one transaction: two desks cannot register the same person at the same moment.
    let store = move |tx: &mut Tx<'_>| {
        let alike = if checked { Vec::new() } else { alike(tx, &filled, birth)? };
        if !alike.is_empty() {
            return Ok::<_, StoreError>(Err(alike));
        }
        let number = next_number(tx)?;
        let mut patient = Map::new();
        patient.insert("resourceType".into(), "Patient".into());
        patient.insert("active".into(), true.into());
        let kind = json!({"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]});
        let identifier = json!([{"use": "usual", "type": kind, "system": RECORD_NUMBER, "value": number.to_string()}]);
        patient.insert("identifier".into(), identifier);
        apply(&mut patient, &filled, birth);
        Ok(Ok(tx.create("Patient", patient.into())?.id))
    };
    match web.store().write(&visit.actor, store).await? {
        Ok(id) => Ok(redirect(&format!("/patients/{id}"))),
        Err(alike) => Ok(again(registration_page(&web, &visit, &form, &problems, &alike))),
    }
}

fn again(page: Markup) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, page).into_response()
}

/// Patients with the same birth date, and a family or given name that begins alike; and those who have a number of one person
/// alone, whatever they are called.
fn alike(tx: &Tx<'_>, form: &Form, birth: NaiveDate) -> Result<Vec<PatientFacts>, StoreError> {
    let same_day = Query::parse("Patient", &[("birthdate".to_owned(), birth.to_string())])?;
    let begins = |typed: &str, stored: &str| {
        let head = |s: &str| s.to_lowercase().chars().filter(|c| c.is_alphabetic()).take(3).collect::<String>();
        !head(typed).is_empty() && head(typed) == head(stored)
    };
    let own = registration::identifiers_of(form);
    let mut found = Vec::new();
    for stored in duplicates::with_identifiers(&|query| tx.search(query), &own)? {
        let facts = PatientFacts::read(&stored.json()?);
        if registration::shared(&own, &facts.identifiers) == Some(true) {
            found.push(facts);
        }
    }
    for stored in tx.search(&same_day)?.resources {
        let Ok(json) = stored.json() else { continue };
        let facts = PatientFacts::read(&json);
        let like = begins(form.text("family"), &facts.family) || begins(form.text("given"), &facts.given);
        if like && !found.iter().any(|other| other.id == facts.id) {
            found.push(facts);
        }
    }
    found.truncate(5);
    Ok(found)
}

/// The next free record number; numbers that came with imported records are stepped over.
fn next_number(tx: &mut Tx<'_>) -> Result<u64, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let stored = tx.connection().query_row(sql, [NUMBER_KEY], |row| row.get::<_, String>(0));
    let mut number = match stored {
        Ok(text) => text.parse().map_err(|_| StoreError::Damaged("record number"))?,
        Err(crate::db::Error::NoRows) => FIRST_NUMBER,
        Err(error) => return Err(error.into()),
    };
    loop {
        let taken = ("identifier".to_owned(), format!("{RECORD_NUMBER}|{number}"));
        if tx.search(&Query::parse("Patient", &[taken])?.first(1, "_id")?)?.resources.is_empty() {
            break;
        }
        number += 1;
    }
    tx.remember(NUMBER_KEY, &(number + 1).to_string())?;
    Ok(number)
}

async fn edit_patient(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
) -> Result<Response, PageError> {
    let (banner, facts) = chart::banner(&web, &visit, &patient).await?;
    let version = ("version".to_owned(), facts.version.to_string());
    let fields = demographics_of(&facts).map(|(name, _, value)| (name.to_owned(), value));
    let rows = [Part::Identifiers.fields(&facts.identifiers), Part::Contacts.fields(&facts.contacts)].concat();
    let form = Form::from_fields(fields.into_iter().chain(rows).chain([version]));
    Ok(edit_page(&web, &visit, &banner, &facts, &form, &Problems::default()).into_response())
}

/// The form's fields with their labels and what is stored.
fn demographics_of(facts: &PatientFacts) -> [(&'static str, &'static str, String); 10] {
    [
        ("family", "Family name", facts.family.clone()),
        ("given", "Given names", facts.given.clone()),
        ("birth", "Birth date", facts.birth.map(|d| d.to_string()).unwrap_or_default()),
        ("gender", "Sex", facts.gender.clone()),
        ("phone", "Phone", facts.phone.clone()),
        ("email", "E-mail", facts.email.clone()),
        ("line", "Street and number", facts.line.clone()),
        ("city", "City", facts.city.clone()),
        ("state", "State or region", facts.state.clone()),
        ("postal", "Postal code", facts.postal.clone()),
    ]
}

/// Somebody else saved the registration meanwhile.
async fn merge_patient(
    web: &Web,
    visit: &Visit,
    patient: &str,
    (form, opened): (&Form, u32),
) -> Result<Response, PageError> {
    let (site, id) = (web.clone(), patient.to_owned());
    let read = move |view: &View<'_>| {
        let (banner, _) = chart::banner_in(&site, view, &id)?;
        Ok::<_, StoreError>((banner, view.version("Patient", &id, opened)?.json()?, view.read("Patient", &id)?.json()?))
    };
    let (banner, base, current) = web.store().view(&visit.actor, read).await?;
    let (base, now) = (PatientFacts::read(&base), PatientFacts::read(&current));
    let fields = demographics_of(&base).into_iter().zip(demographics_of(&now));
    let fields: Vec<super::merge::Field> = fields
        .map(|((name, label, base), (_, _, theirs))| {
            let words = if name == "gender" { fields::pairs(&GENDERS) } else { Vec::new() };
            super::merge::Field::new(name, label, &base, form.text(name), &theirs).words(words)
        })
        .chain(Part::Identifiers.merged(&base.identifiers, form, &now.identifiers))
        .chain(Part::Contacts.merged(&base.contacts, form, &now.contacts))
        .collect();
    let (action, back) = (format!("/patients/{patient}/edit"), format!("/patients/{patient}"));
    let merge = Merge {
        section: Section::Patients,
        banner: Some(&banner),
        what: "this registration",
        action: &action,
        back: &back,
        patient,
        version: now.version,
        saved: text(&current, "/meta/lastUpdated"),
        fields,
        hidden: Vec::new(),
    };
    Ok(if merge.is_same() { redirect(&back) } else { merge.page(web, visit) })
}

fn edit_page(
    web: &Web,
    visit: &Visit,
    banner: &Markup,
    facts: &PatientFacts,
    form: &Form,
    problems: &Problems,
) -> Markup {
    layout::page(
        web,
        visit,
        Section::Patients,
        "Edit registration",
        Some(banner),
        &html! {
            div.head { h1 { "Edit registration" } }
            (problems.summary())
            form.sheet method="post" action={ "/patients/" (facts.id) "/edit" } {
                (layout::csrf(visit))
                (chart::form_identity(&facts.id, form.text("version")))
                (demographics(form, problems))
                (layout::save_or_cancel("Save", &format!("/patients/{}", facts.id)))
            }
        },
    )
}

async fn save_patient(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let version = chart::checked_version(&form, &patient)?;
    let own = patient.clone();
    let read = move |view: &View<'_>| Ok(PatientFacts::read(&view.version("Patient", &own, version)?.json()?));
    let opened = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    let (problems, birth) = check(&form, &opened, dates::today(web.now(), web.settings().zone));
    let (Some(birth), true) = (birth, problems.is_empty()) else {
        let (banner, facts) = chart::banner(&web, &visit, &patient).await?;
        return Ok(again(edit_page(&web, &visit, &banner, &facts, &form, &problems)));
    };
    let (filled, id) = (form.clone(), patient.clone());
    let save = move |tx: &mut Tx<'_>| {
        let Value::Object(mut body) = tx.read("Patient", &id)?.json()? else {
            return Err(StoreError::Damaged("resource body"));
        };
        apply(&mut body, &filled, birth);
        tx.update("Patient", &id, body.into(), Expect::Version(version))
    };
    match web.store().write(&visit.actor, save).await {
        Ok(_) => Ok(redirect(&format!("/patients/{patient}"))),
        Err(StoreError::VersionConflict { .. }) => merge_patient(&web, &visit, &patient, (&form, version)).await,
        Err(error) => Err(error.into()),
    }
}

/// The ids of all patients that appointments speak of.
pub fn named_in(appointments: &[Value]) -> Vec<String> {
    let participants = appointments.iter().flat_map(|a| list(a, "participant"));
    let mut ids: Vec<String> =
        participants.filter_map(|p| reference_id(p, "/actor/reference", "Patient")).map(str::to_owned).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Patients that fit what a person typed, by name.
pub async fn find(web: &Web, visit: &Visit, typed: &str, count_max: u32) -> Result<Vec<PatientFacts>, PageError> {
    let asked = query(typed)?.first(count_max, "-_lastUpdated")?;
    let search = move |view: &View<'_>| view.search(&asked);
    let mut found = facts(&web.store().view::<_, StoreError, _>(&visit.actor, search).await?.resources)?;
    found.sort_by_cached_key(|p| (p.family.to_lowercase(), p.given.to_lowercase(), p.birth));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_what_people_type() {
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let pairs = |typed: &str| understood(typed).0;
        let numbers = |typed: &str| understood(typed).1;
        assert_eq!(pairs("doe, j"), [pair("name:contains", "doe"), pair("name", "j")]);
        assert_eq!(pairs("1960-05-06 do"), [pair("birthdate", "1960-05-06"), pair("name", "do")]);
        assert_eq!(pairs("6.5.1960"), [pair("birthdate", "1960-05-06")]);
        assert_eq!(pairs("5/6/1960"), [pair("birthdate", "1960-05-06")]);
        assert_eq!((pairs("100001"), numbers("100001")), (vec![], vec!["100001".to_owned()]));
        assert_eq!(numbers("123 45 6789 doe 7, 8"), ["123456789", "7", "8"], "groups of one number stand together");
        assert_eq!(understood(" , ;| "), Default::default());
    }

    #[test]
    fn editing_keeps_what_the_form_does_not_show() {
        let mut patient = json!({"resourceType": "Patient", "maritalStatus": {"text": "M"},
            "name": [{"use": "maiden", "family": "Old"}, {"use": "official", "family": "Doe", "prefix": ["Dr."]}],
            "telecom": [{"system": "fax", "value": "1"}, {"system": "phone", "value": "2", "use": "home"}],
            "address": [{"line": ["x"], "city": "y", "country": "US"}]});
        let fields =
            [("family", "Roe"), ("given", "Jane Ann"), ("gender", "female"), ("phone", "55555"), ("city", "Bern")];
        let form = Form::from_fields(fields.map(|(n, v)| (n.to_owned(), v.to_owned())));
        apply(patient.as_object_mut().unwrap(), &form, dates::parse_day("1960-05-06").unwrap());
        assert_eq!(patient["maritalStatus"]["text"], "M");
        assert_eq!(patient["name"][0]["family"], "Old");
        assert_eq!(
            patient["name"][1],
            json!({"use": "official", "family": "Roe", "prefix": ["Dr."], "given": ["Jane", "Ann"]})
        );
        assert_eq!(
            patient["telecom"],
            json!([{"system": "fax", "value": "1"}, {"system": "phone", "value": "55555", "use": "home"}])
        );
        assert_eq!(patient["address"], json!([{"country": "US", "city": "Bern"}]));
    }

    #[test]
    fn says_what_is_wrong_with_a_registration() {
        let today = dates::parse_day("2024-06-01").unwrap();
        let form =
            |fields: &[(&str, &str)]| Form::from_fields(fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        let good = [("family", "Doe"), ("given", "J"), ("birth", "1960-05-06"), ("gender", "female")];
        let check = |fields: &[(&str, &str)]| super::check(&form(fields), &PatientFacts::default(), today);
        assert!(check(&good).0.is_empty());
        for (name, bad) in
            [("family", ""), ("birth", "2024-06-02"), ("birth", "06.05.1960"), ("birth", "1880-01-01"), ("gender", "x")]
        {
            let mut fields = good;
            for field in &mut fields {
                if field.0 == name {
                    field.1 = bad;
                }
            }
            assert!(!check(&fields).0.is_empty(), "{name}={bad}");
        }
    }
}
