//! What the pack shows: the schedule of the next days, and of each patient what must be known before treating.

use crate::dates;
use crate::pdf::{LEADING, Pages, PdfError};
use crate::scheduling::occupancy::takes_time;
use crate::store::{Query, Resource, StoreError, View};
use crate::web::reading::{self, PatientFacts, code, concept, list, reference_id, text};
use crate::web::registration::Part;
use chrono::{Days, NaiveDate};
use chrono_tz::Tz;
use maud::{Markup, html};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Days after today.
const DAYS_AHEAD: u64 = 3;

/// One line of the schedule.
struct Visit {
    day: NaiveDate,
    time: String,
    patient: String,
    with: String,
    reason: String,
}

/// One patient.
struct Person {
    facts: PatientFacts,
    age: String,
    allergies: Vec<reading::Allergy>,
    medications: Vec<String>,
    problems: Vec<String>,
}

/// The pack's content.
pub struct Sheet {
    today: NaiveDate,
    visits: Vec<Visit>,
    people: BTreeMap<String, Person>,
}

/// Reads it. Each kind of record is one entry of the access record, not one for each patient every half hour.
pub fn gather(view: &View<'_>, (zone, now_s): (Tz, i64), all: bool) -> Result<Sheet, StoreError> {
    let today = dates::today(now_s, zone);
    let end = today.checked_add_days(Days::new(DAYS_AHEAD + 1)).unwrap_or(today);
    let (from, until) = (dates::day_start(today, zone), dates::day_start(end, zone));
    let appointments = jsons(&view.appointments_between(from.timestamp_millis(), until.timestamp_millis())?)?;
    let mut visits: Vec<Visit> = appointments.iter().filter(|a| takes_time(a)).filter_map(|a| visit(a, zone)).collect();
    let mut wanted: BTreeSet<String> =
        visits.iter().map(|visit| visit.patient.clone()).filter(|id| !id.is_empty()).collect();
    if all {
        wanted.extend(active(view)?);
    }
    let owners = Owners::read(view, &wanted)?;
    for visit in &mut visits {
        visit.patient = owners.of_record(&visit.patient).to_owned();
    }
    let mut people: BTreeMap<String, Person> = BTreeMap::new();
    for patient in jsons(&view.of_patients("Patient", &owners.goes_on())?)? {
        let facts = PatientFacts::read(&patient);
        let age = facts.birth.map(|birth| dates::age(birth, today)).unwrap_or_default();
        let person = Person { facts, age, allergies: Vec::new(), medications: Vec::new(), problems: Vec::new() };
        people.insert(text(&patient, "/id").to_owned(), person);
    }
    let records = owners.records();
    for patient in jsons(&view.of_patients("Patient", &owners.closed())?)? {
        if let Some(person) = people.get_mut(owners.of_record(text(&patient, "/id"))) {
            person.facts.contacts.extend(PatientFacts::read(&patient).contacts);
        }
    }
    let mut allergies = BTreeMap::<&str, Vec<Value>>::new();
    for allergy in jsons(&view.of_patients("AllergyIntolerance", &records)?)? {
        allergies.entry(owners.of(&allergy)).or_default().push(allergy);
    }
    for (owner, found) in allergies {
        if let Some(person) = people.get_mut(owner) {
            person.allergies = reading::active_allergies(&found);
        }
    }
    for medication in jsons(&view.of_patients("MedicationRequest", &records)?)? {
        let taken = matches!(code(&medication, "status"), "active" | "on-hold");
        if let Some(person) = people.get_mut(owners.of(&medication)).filter(|_| taken) {
            let named = concept(medication.get("medicationCodeableConcept"));
            let named = if named.is_empty() { text(&medication, "/medicationReference/display") } else { named };
            let parts = [named, text(&medication, "/dosageInstruction/0/text")];
            person.medications.push(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "));
        }
    }
    for problem in jsons(&view.of_patients("Condition", &records)?)? {
        let counts = !matches!(code(&problem, "clinicalStatus"), "inactive" | "resolved" | "remission")
            && !matches!(code(&problem, "verificationStatus"), "entered-in-error" | "refuted");
        if let Some(person) = people.get_mut(owners.of(&problem)).filter(|_| counts) {
            person.problems.push(concept(problem.get("code")).to_owned());
        }
    }
    for person in people.values_mut() {
        for list in [&mut person.medications, &mut person.problems] {
            list.sort();
            list.dedup();
        }
    }
    Ok(Sheet { today, visits, people })
}

/// Which record goes on of each person in the pack: one sheet for one person, whichever of their records holds an entry.
struct Owners(BTreeMap<String, String>);

impl Owners {
    fn read(view: &View<'_>, wanted: &BTreeSet<String>) -> Result<Owners, StoreError> {
        let mut goes_on = BTreeMap::new();
        for id in wanted {
            if goes_on.contains_key(id) {
                continue;
            }
            let person = match view.person(id) {
                Ok(person) => person,
                Err(StoreError::NotFound) => continue,
                Err(error) => return Err(error),
            };
            goes_on.extend(person.ids().into_iter().map(|record| (record, person.goes_on().to_owned())));
        }
        Ok(Owners(goes_on))
    }

    /// The record that goes on of the person whose this one is.
    fn of_record<'a>(&'a self, id: &'a str) -> &'a str {
        self.0.get(id).map_or(id, String::as_str)
    }

    /// The same of an entry; empty for one of nobody here.
    fn of(&self, resource: &Value) -> &str {
        reading::subject(resource).and_then(|id| self.0.get(id)).map_or("", String::as_str)
    }

    fn records(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn goes_on(&self) -> Vec<String> {
        self.0.values().collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }

    fn closed(&self) -> Vec<String> {
        self.0.iter().filter(|(id, goes_on)| id != goes_on).map(|(id, _)| id.clone()).collect()
    }
}

fn jsons(resources: &[Resource]) -> Result<Vec<Value>, StoreError> {
    resources.iter().map(Resource::json).collect()
}

fn active(view: &View<'_>) -> Result<BTreeSet<String>, StoreError> {
    let mut ids = BTreeSet::new();
    view.each::<StoreError>(&Query::all("Patient")?, |patient| {
        let facts = PatientFacts::read(&patient.json()?);
        if facts.active && facts.deceased.is_none() {
            ids.insert(facts.id);
        }
        Ok(())
    })?;
    Ok(ids)
}

fn visit(appointment: &Value, zone: Tz) -> Option<Visit> {
    let start = text(appointment, "/start");
    let day = dates::local(dates::unix_s(start)?, zone).date_naive();
    let time = dates::clock_time(start, zone)?.format("%H:%M").to_string();
    let participants = list(appointment, "participant");
    let patient = participants.iter().find_map(|p| reference_id(p, "/actor/reference", "Patient")).unwrap_or_default();
    let with = participants.iter().find(|p| text(p, "/actor/reference").starts_with("Practitioner/"));
    let with = with.map_or("", |p| text(p, "/actor/display")).to_owned();
    let reason = text(appointment, "/description").to_owned();
    Some(Visit { day, time, patient: patient.to_owned(), with, reason })
}

impl Sheet {
    fn days(&self) -> Vec<(NaiveDate, Vec<&Visit>)> {
        let days = (0..=DAYS_AHEAD).filter_map(|ahead| self.today.checked_add_days(Days::new(ahead)));
        days.map(|day| (day, self.visits.iter().filter(|visit| visit.day == day).collect())).collect()
    }

    fn by_name(&self) -> Vec<&Person> {
        let mut people: Vec<&Person> = self.people.values().collect();
        people.sort_by_cached_key(|p| (p.facts.family.to_lowercase(), p.facts.given.to_lowercase(), p.facts.birth));
        people
    }

    pub fn html(&self, practice: &str) -> String {
        let list = |title: &str, entries: &[String], none: &str| -> Markup {
            html! { dt { (title) } dd { @if entries.is_empty() { span.soft { (none) } } @else { ul { @for entry in entries { li { (entry) } } } } } }
        };
        let born = |p: &Person| p.facts.birth.map(dates::long_day).unwrap_or_default();
        html! {
            h1 { "Schedule" }
            @for (day, visits) in self.days() {
                h2 { (dates::week_day(day)) }
                @if visits.is_empty() { p.soft { "No appointments." } }
                @else { table {
                    thead { tr { @for name in ["Time", "Patient", "Born", "Phone", "With", "Reason"] { th scope="col" { (name) } } } }
                    tbody { @for visit in visits { @let person = self.people.get(&visit.patient); tr {
                        td { (visit.time) }
                        th scope="row" { @if let Some(p) = person { (p.facts.full_name()) } }
                        td { @if let Some(p) = person { (born(p)) } }
                        td { @if let Some(p) = person { (p.facts.phone) } }
                        td { (visit.with) } td { (visit.reason) }
                    } } }
                } }
            }
            h1 { "Patients" }
            @for person in self.by_name() {
                article data-name=(person.facts.full_name().to_lowercase()) {
                    h2 { (person.facts.full_name()) }
                    p { "Born " b { (born(person)) } " (" (person.age) "), " (person.facts.gender_word()) ", no. " (person.facts.short_number()) ", phone " b { (if person.facts.phone.is_empty() { "none" } else { &person.facts.phone }) } }
                    @for (label, words) in person.facts.contacts.iter().map(|contact| contact.shown(Part::Contacts)) { p { (label) ": " (words) } }
                    dl {
                        dt { "Allergies" }
                        dd { @if person.allergies.is_empty() { span.soft { "none recorded" } } @else { ul {
                            @for allergy in &person.allergies { li class=(allergy.weight()) { (allergy.text) @if allergy.high_risk { " (high risk)" } } }
                        } } }
                        (list("Medications", &person.medications, "none recorded"))
                        (list("Problems", &person.problems, "none recorded"))
                    }
                }
            }
            p.soft { "Patients in this pack: " (self.people.len()) ", " (practice) }
        }
        .into_string()
    }

    pub fn pdf(&self, practice: &str) -> Result<Vec<u8>, PdfError> {
        let mut pages = Pages::default();
        pages.line("B", 14.0, &format!("{practice}: downtime pack of {}", dates::long_day(self.today)));
        for (day, visits) in self.days() {
            pages.space(LEADING / 2.0);
            pages.line("B", 11.0, &dates::week_day(day));
            if visits.is_empty() {
                pages.line("R", 10.0, "No appointments.");
            }
            for visit in visits {
                let (name, phone) = self
                    .people
                    .get(&visit.patient)
                    .map_or_else(Default::default, |p| (p.facts.full_name(), p.facts.phone.clone()));
                let parts = [visit.time.as_str(), &name, &phone, &visit.with, &visit.reason];
                let line = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("   ");
                pages.paragraph("R", 10.0, &line);
            }
        }
        for person in self.by_name() {
            pages.room(6.0 * LEADING);
            pages.space(LEADING / 2.0);
            let born = person.facts.birth.map(dates::long_day).unwrap_or_default();
            pages.paragraph(
                "B",
                11.0,
                &format!("{}, born {born}, {}", person.facts.full_name(), person.facts.gender_word()),
            );
            let phone = if person.facts.phone.is_empty() { "none" } else { &person.facts.phone };
            pages.paragraph("R", 10.0, &format!("No. {}   Phone {phone}", person.facts.short_number()));
            for (label, words) in person.facts.contacts.iter().map(|contact| contact.shown(Part::Contacts)) {
                pages.paragraph("R", 10.0, &format!("{label}: {words}"));
            }
            let said =
                |entries: Vec<&str>| if entries.is_empty() { "none recorded".to_owned() } else { entries.join("; ") };
            let allergies = person.allergies.iter().map(|allergy| allergy.text.as_str()).collect();
            pages.paragraph("B", 10.0, &format!("Allergies: {}", said(allergies)));
            let medications = person.medications.iter().map(String::as_str).collect();
            pages.paragraph("R", 10.0, &format!("Medications: {}", said(medications)));
            let problems = person.problems.iter().map(String::as_str).collect();
            pages.paragraph("R", 10.0, &format!("Problems: {}", said(problems)));
        }
        pages.finish("The page that holds this file shows every letter.")
    }
}
