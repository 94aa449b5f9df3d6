//! One made-up patient's chart.

use super::choose::Chooser;
use super::{Staff, pdf, words};
use crate::store::{LedgerEntry, Posting};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{Days, NaiveDate};
use serde_json::{Value, json};

/// The system of record numbers that this practice gives; the pages show it.
const RECORD_NUMBER: &str = "urn:holdfast:record-number";
const PROBLEM_LIST: &str = "http://terminology.hl7.org/CodeSystem/condition-category";
const ACT: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
/// The first record number.
const FIRST_NUMBER: u32 = 1001;

pub struct Chart {
    pub patient: String,
    pub display: String,
    /// Id and body, the patient first.
    pub resources: Vec<(String, Value)>,
    pub documents: Vec<Document>,
    pub postings: Vec<Posting>,
}

/// A `DocumentReference` without its content, and the bytes that become its attachment.
pub struct Document {
    pub id: String,
    pub binary: String,
    pub title: String,
    pub bytes: Vec<u8>,
    pub body: Value,
}

impl Chart {
    pub fn make(chooser: &mut Chooser, number: u32, today: NaiveDate, staff: &[Staff]) -> Chart {
        let mut chart = Chart {
            patient: chooser.id(),
            display: String::new(),
            resources: Vec::new(),
            documents: Vec::new(),
            postings: Vec::new(),
        };
        chart.register(chooser, number, today);
        chart.add_problems(chooser, today);
        chart.add_allergies(chooser, today);
        for _ in 0..chooser.between(1, 4) {
            chart.add_encounter(chooser, today, staff);
        }
        if chooser.chance(60) {
            chart.add_document(chooser, today);
        }
        chart
    }

    fn subject(&self) -> Value {
        json!({ "reference": format!("Patient/{}", self.patient), "display": self.display })
    }

    fn register(&mut self, chooser: &mut Chooser, number: u32, today: NaiveDate) {
        let (given, family) = (chooser.one(&words::GIVEN), chooser.one(&words::FAMILY));
        self.display = format!("{family}, {given}");
        let born = before(today, chooser.between(200, 33_000));
        let (city, postal) = chooser.one(&words::CITIES);
        let line = format!("{} {}", chooser.between(1, 180), chooser.one(&words::STREETS));
        let kind = json!({ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR" }] });
        let phone = format!("555-{:04}", chooser.between(0, 9999));
        let value = FIRST_NUMBER.saturating_add(number).to_string();
        self.resources.push((
            self.patient.clone(),
            json!({
                "resourceType": "Patient", "active": true,
                "identifier": [{ "use": "usual", "type": kind, "system": RECORD_NUMBER, "value": value }],
                "name": [{ "use": "official", "family": family, "given": [given] }],
                "gender": if words::MALE.contains(&given) { "male" } else { "female" }, "birthDate": born.to_string(),
                "telecom": [{ "system": "phone", "value": phone, "use": chooser.one(&["home", "mobile"]) }],
                "address": [{ "line": [line], "city": city, "postalCode": postal }],
            }),
        ));
    }

    fn add_problems(&mut self, chooser: &mut Chooser, today: NaiveDate) {
        let mut problems = words::PROBLEMS.to_vec();
        for _ in 0..chooser.below(4) {
            let (code, text, treatment) = chooser.take(&mut problems);
            let onset = before(today, chooser.between(30, 3000));
            let problem = chooser.id();
            self.resources.push((problem.clone(), json!({
                "resourceType": "Condition",
                "clinicalStatus": concept("http://terminology.hl7.org/CodeSystem/condition-clinical", "active", "Active"),
                "verificationStatus":
                    concept("http://terminology.hl7.org/CodeSystem/condition-ver-status", "confirmed", "Confirmed"),
                "category": [concept(PROBLEM_LIST, "problem-list-item", "Problem")],
                "code": concept("http://snomed.info/sct", code, text),
                "subject": self.subject(), "onsetDateTime": onset.to_string(), "recordedDate": onset.to_string(),
            })));
            let Some((code, text, directions)) = words::MEDICATIONS.get(treatment) else { continue };
            self.resources.push((
                chooser.id(),
                json!({
                    "resourceType": "MedicationRequest", "status": "active", "intent": "order",
                    "medicationCodeableConcept": concept("http://www.nlm.nih.gov/research/umls/rxnorm", code, text),
                    "subject": self.subject(), "authoredOn": onset.to_string(),
                    "reasonReference": [{ "reference": format!("Condition/{problem}") }],
                    "dosageInstruction": [{ "text": directions }],
                }),
            ));
        }
    }

    fn add_allergies(&mut self, chooser: &mut Chooser, today: NaiveDate) {
        let mut allergies = words::ALLERGIES.to_vec();
        let count = if chooser.chance(40) { chooser.between(1, 2) } else { 0 };
        for _ in 0..count {
            let (code, text, criticality, reaction) = chooser.take(&mut allergies);
            let recorded = before(today, chooser.between(30, 3000));
            self.resources.push((chooser.id(), json!({
                "resourceType": "AllergyIntolerance",
                "clinicalStatus":
                    concept("http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "active", "Active"),
                "criticality": criticality, "code": concept("http://snomed.info/sct", code, text),
                "patient": self.subject(), "recordedDate": recorded.to_string(),
                "reaction": [{ "manifestation": [{ "text": reaction }] }],
            })));
        }
    }

    /// An encounter in the past with vital signs, a signed note, a charge and perhaps its payment.
    fn add_encounter(&mut self, chooser: &mut Chooser, today: NaiveDate, staff: &[Staff]) {
        let day = before(today, chooser.between(1, 900));
        let (start, end) = (format!("{day}T09:00:00Z"), format!("{day}T09:20:00Z"));
        let who = usize::try_from(chooser.below(staff.len() as u64)).ok().and_then(|at| staff.get(at));
        let practitioner =
            who.map(|who| json!({ "reference": format!("Practitioner/{}", who.id), "display": who.display }));
        let practitioner = practitioner.unwrap_or_else(|| json!({ "display": "unknown" }));
        let (encounter, reason) = (chooser.id(), chooser.one(&words::REASONS));
        self.resources.push((
            encounter.clone(),
            json!({
                "resourceType": "Encounter", "status": "finished",
                "class": { "system": ACT, "code": "AMB", "display": "ambulatory" },
                "subject": self.subject(), "participant": [{ "individual": practitioner }],
                "period": { "start": start, "end": end }, "reasonCode": [{ "text": reason }],
            }),
        ));
        let (systolic, diastolic) = (chooser.between(105, 165), chooser.between(60, 98));
        self.add_vital(chooser, &encounter, &start, ("8480-6", "Systolic blood pressure", systolic, "mm[Hg]"));
        self.add_vital(chooser, &encounter, &start, ("8462-4", "Diastolic blood pressure", diastolic, "mm[Hg]"));
        let pulse = chooser.between(55, 95);
        self.add_vital(chooser, &encounter, &start, ("8867-4", "Heart rate", pulse, "/min"));
        let (finding, plan) = (chooser.one(&words::FINDINGS), chooser.one(&words::PLANS));
        let note = format!(
            "Reason: {reason}.\n\nFindings: {finding} Blood pressure {systolic}/{diastolic} mmHg, pulse {pulse}/min.\n\n\
             Plan: {plan}"
        );
        let loinc = json!({ "system": "http://loinc.org", "code": "11506-3", "display": "Progress note" });
        let category = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category";
        self.resources.push((chooser.id(), json!({
            "resourceType": "DocumentReference", "status": "current", "docStatus": "final",
            "type": { "coding": [loinc], "text": "Progress note" },
            "category": [{ "coding": [{ "system": category, "code": "clinical-note" }] }],
            "subject": self.subject(), "date": end, "author": [practitioner], "authenticator": practitioner,
            "content": [{ "attachment": { "contentType": "text/plain; charset=utf-8", "data": STANDARD.encode(note) } }],
            "context": { "encounter": [{ "reference": format!("Encounter/{encounter}") }] },
        })));
        self.charge(chooser, &encounter);
    }

    fn add_vital(&mut self, chooser: &mut Chooser, encounter: &str, at: &str, sign: (&str, &str, i64, &str)) {
        let (code, text, value, unit) = sign;
        let category = "http://terminology.hl7.org/CodeSystem/observation-category";
        self.resources.push((
            chooser.id(),
            json!({
                "resourceType": "Observation", "status": "final",
                "category": [concept(category, "vital-signs", "Vital signs")],
                "code": concept("http://loinc.org", code, text), "subject": self.subject(),
                "encounter": { "reference": format!("Encounter/{encounter}") }, "effectiveDateTime": at,
                "valueQuantity": { "value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit },
            }),
        ));
    }

    fn charge(&mut self, chooser: &mut Chooser, encounter: &str) {
        let cents = chooser.between(40, 180) * 100;
        let mut post = |kind: &str, debit: &str, credit: &str| {
            let entry = |account: &str, cents| LedgerEntry { account: account.to_owned(), cents };
            self.postings.push(Posting {
                kind: kind.to_owned(),
                reference: format!("Encounter/{encounter}"),
                patient: self.patient.clone(),
                entries: vec![entry(debit, cents), entry(credit, -cents)],
            });
        };
        post("charge", "receivable", "revenue");
        if chooser.chance(70) {
            post("payment", "cash", "receivable");
        }
    }

    fn add_document(&mut self, chooser: &mut Chooser, today: NaiveDate) {
        let day = before(today, chooser.between(1, 900));
        let mut lines = vec![
            "Letter of the hospital".to_owned(),
            String::new(),
            format!("Date: {day}"),
            format!("Patient: {}", self.display),
            String::new(),
            "Dear colleague,".to_owned(),
            "we report on the stay of your patient in our department.".to_owned(),
        ];
        lines.extend((0..chooser.between(4, 12)).map(|_| chooser.one(&words::FINDINGS).to_owned()));
        lines.push(chooser.one(&words::PLANS).to_owned());
        let (title, bytes) = if chooser.chance(70) {
            ("Hospital letter.pdf", pdf::page(&lines))
        } else {
            ("Hospital letter.txt", lines.join("\n").into_bytes())
        };
        self.documents.push(Document {
            id: chooser.id(),
            binary: chooser.id(),
            title: title.to_owned(),
            bytes,
            body: json!({
                "resourceType": "DocumentReference", "status": "current", "description": "Hospital letter",
                "type": { "coding": [{ "system": "http://loinc.org", "code": "18842-5", "display": "Discharge summary" }],
                          "text": "Hospital letter" },
                "subject": self.subject(), "date": format!("{day}T12:00:00Z"),
                "author": [{ "display": "General hospital" }],
            }),
        });
    }
}

fn before(today: NaiveDate, days: i64) -> NaiveDate {
    today.checked_sub_days(Days::new(days.unsigned_abs())).unwrap_or(today)
}

fn concept(system: &str, code: &str, text: &str) -> Value {
    json!({ "coding": [{ "system": system, "code": code, "display": text }], "text": text })
}
