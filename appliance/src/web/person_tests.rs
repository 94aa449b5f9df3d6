//! One person in several records: what everybody must know of them is known in each, and nothing new is entered where nobody
//! looks any more.

use super::consents::tests::text;
use super::tests::{Answer, Browser, Site};
use crate::access::{Actor, Governs, Program, Role};
use crate::consents;
use crate::db::Connection;
use crate::messages::reminders::{self, Plan};
use crate::messages::{Channel, Channels};
use crate::store::{Query, StoreError, View};
use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::{Value, json};

fn of(patient: &str) -> Value {
    json!({"reference": format!("Patient/{patient}")})
}

fn active() -> Value {
    json!({"coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}]})
}

/// A practice in which one person has three records: `older` was merged into `closed`, and that into `kept`.
struct People {
    site: Site,
    desk: Browser,
    doctor: Browser,
    kept: String,
    closed: String,
    older: String,
}

impl People {
    async fn begin() -> People {
        let site = Site::new();
        let (desk, doctor) = (site.session(Role::FrontDesk).await, site.session(Role::Clinician).await);
        let (kept, closed, older) = (site.patient("Doe").await, site.patient("Doee").await, site.patient("Do").await);
        People { site, desk, doctor, kept, closed, older }
    }

    async fn merge(&self, kept: &str, closed: &str) {
        let fields = [("patient", kept), ("other", closed)];
        let merged = self.site.post(&self.desk, &format!("/patients/{kept}/merge"), &fields).await;
        assert_eq!(merged.status, StatusCode::SEE_OTHER, "{}", merged.body);
    }

    async fn merge_all(&self) {
        self.merge(&self.closed, &self.older).await;
        self.merge(&self.kept, &self.closed).await;
    }

    async fn unmerge(&self, closed: &str) {
        let path = format!("/patients/{closed}/unmerge");
        let undone = self.site.post(&self.desk, &path, &[("patient", closed)]).await;
        assert_eq!(undone.status, StatusCode::SEE_OTHER, "{}", undone.body);
    }

    async fn allergy(&self, patient: &str, name: &str) {
        let body = json!({"resourceType": "AllergyIntolerance", "patient": of(patient), "code": {"text": name},
            "clinicalStatus": active()});
        self.site.store("AllergyIntolerance", body).await;
    }

    async fn visit(&self, patient: &str) -> String {
        let start = chrono::DateTime::from_timestamp(self.site.web.now() + 7200, 0).unwrap();
        let body = json!({"resourceType": "Appointment", "status": "booked", "start": start.to_rfc3339(),
            "end": (start + chrono::Duration::minutes(20)).to_rfc3339(), "minutesDuration": 20,
            "participant": [{"actor": of(patient), "status": "accepted"}]});
        self.site.store("Appointment", body).await
    }

    async fn decide(&self, patient: &str, text: &str, decision: &str) -> Answer {
        let fields = [
            ("patient", patient),
            ("text", text),
            ("text_version", "1"),
            ("signer", "Jo"),
            ("relation", "patient"),
            ("typed", "Jo"),
            ("decision", decision),
        ];
        self.site.later(1);
        self.site.post(&self.desk, &format!("/patients/{patient}/consents/new"), &fields).await
    }

    /// What the decisions let happen in each of the three records.
    async fn permits(&self, governs: Governs) -> [bool; 3] {
        let now = self.site.web.now() * 1000;
        let ids = [self.kept.clone(), self.closed.clone(), self.older.clone()];
        let read = move |db: &Connection| {
            let [kept, closed, older] = ids.map(|id| consents::permits(db, governs, &id, now));
            Ok::<_, StoreError>([kept?, closed?, older?])
        };
        self.site.web.store().internal(read).await.unwrap()
    }

    async fn fhir(&self, method: &str, path: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/fhir/R4/{path}"))
            .header(header::COOKIE, &self.doctor.cookie)
            .header("x-csrf-token", &self.doctor.csrf)
            .header(header::CONTENT_TYPE, "application/fhir+json");
        self.site.send(request.body(Body::from(body.to_string())).unwrap()).await
    }
}

#[tokio::test]
async fn what_was_decided_in_one_record_holds_in_all_of_the_person_and_ends_with_the_merge() {
    let people = People::begin().await;
    let admin = people.site.session(Role::PracticeAdmin).await;
    let free = text(&people.site, &admin, &[("months", "0"), ("governs", "sharing"), ("needed", "no")]).await;
    // Said in the surviving record, after the merges and before them.
    people.merge_all().await;
    let refused = people.decide(&people.kept, &free, "refuse").await;
    assert_eq!(refused.status, StatusCode::SEE_OTHER, "{}", refused.body);
    assert_eq!(people.permits(Governs::Sharing).await, [false; 3]);
    people.unmerge(&people.closed).await;
    assert_eq!(people.permits(Governs::Sharing).await, [false, true, true], "each has its own again");
    people.merge(&people.kept, &people.closed).await;
    assert_eq!(people.permits(Governs::Sharing).await, [false; 3], "by way of another one");
    // The undoing at the far end leaves the rest together.
    people.unmerge(&people.older).await;
    assert_eq!(people.permits(Governs::Sharing).await, [false, false, true]);
    people.merge(&people.kept, &people.older).await;
    assert_eq!(people.permits(Governs::Sharing).await, [false; 3]);
}

#[tokio::test]
async fn a_needed_text_is_agreed_to_and_refused_by_the_person_in_whichever_record() {
    let people = People::begin().await;
    let admin = people.site.session(Role::PracticeAdmin).await;
    let needed = text(&people.site, &admin, &[("months", "0"), ("governs", "proxies"), ("needed", "yes")]).await;
    assert_eq!(people.decide(&people.older, &needed, "agree").await.status, StatusCode::SEE_OTHER);
    assert_eq!(people.permits(Governs::Proxies).await, [false, false, true]);
    people.merge_all().await;
    assert_eq!(people.permits(Governs::Proxies).await, [true; 3]);
    assert_eq!(people.decide(&people.kept, &needed, "refuse").await.status, StatusCode::SEE_OTHER);
    assert_eq!(people.permits(Governs::Proxies).await, [false; 3]);
    // The page says the same: the earlier agreement holds no more, and stands in the record in which it was signed.
    let page = people.site.get(&people.desk, &format!("/patients/{}/consents", people.kept)).await.body;
    for words in ["replaced by a later decision", "from another record", "not permitted: refused or withdrawn"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(page.contains(&format!("/patients/{}/consents/", people.older)), "{page}");
    people.unmerge(&people.closed).await;
    assert_eq!(people.permits(Governs::Proxies).await, [false, true, true]);
}

#[tokio::test]
async fn of_two_refusals_the_one_that_stands_keeps_out_and_an_agreement_begins_anew() {
    let people = People::begin().await;
    let admin = people.site.session(Role::PracticeAdmin).await;
    let id = text(&people.site, &admin, &[("months", "0"), ("governs", "sharing"), ("needed", "no")]).await;
    let (page, patient) = (format!("/patients/{}/consents", people.kept), people.kept.as_str());
    let nobody = people.site.get(&people.desk, &page).await.body;
    assert!(nobody.contains("permitted") && !nobody.contains("not permitted"), "{nobody}");
    let first = people.decide(patient, &id, "refuse").await.location().to_owned();
    let second = people.decide(patient, &id, "refuse").await.location().to_owned();
    let back = [("patient", patient), ("version", "1")];
    people.site.post(&people.desk, &second, &back).await;
    assert!(!people.permits(Governs::Sharing).await[0], "the first one stands");
    let told = people.site.get(&people.desk, &page).await.body;
    assert!(
        told.contains("not permitted: refused") && told.contains(">refused<") && told.contains("taken back"),
        "{told}"
    );
    people.site.post(&people.desk, &first, &back).await;
    assert!(people.permits(Governs::Sharing).await[0]);
    // A no after a yes, taken back, leaves nothing decided; a yes after a no begins anew.
    let agreed = people.decide(patient, &id, "agree").await.location().to_owned();
    people.decide(patient, &id, "refuse").await;
    assert!(!people.permits(Governs::Sharing).await[0]);
    assert!(people.site.get(&people.desk, &agreed).await.body.contains("replaced by a later decision"));
    people.decide(patient, &id, "agree").await;
    assert!(people.permits(Governs::Sharing).await[0]);
    let told = people.site.get(&people.desk, &page).await.body;
    assert!(!told.contains(">refused<") && told.contains(">valid<"), "{told}");
}

#[tokio::test]
async fn the_downtime_pack_has_one_sheet_for_one_person_with_what_stands_in_all_their_records() {
    let people = People::begin().await;
    for (patient, name) in [(&people.kept, "Latex"), (&people.closed, "Penicillin"), (&people.older, "Peanut")] {
        people.allergy(patient, name).await;
    }
    let taken = json!({"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": of(&people.kept),
        "medicationCodeableConcept": {"text": "Lisinopril"}});
    people.site.store("MedicationRequest", taken).await;
    people.visit(&people.older).await;
    people.merge_all().await;
    let zone = people.site.web.settings().zone;
    for all in [false, true] {
        let now = people.site.web.now();
        let gather = move |view: &View<'_>| crate::downtime::gather(view, (zone, now), all);
        let pack = Actor::program(Program::Downtime);
        let sheet = people.site.web.store().view::<_, StoreError, _>(&pack, gather).await.unwrap();
        let html = sheet.html("Test practice");
        assert_eq!(html.matches("<article").count(), 1, "{html}");
        let pdf = crate::pdf::tests::read(&sheet.pdf("Test practice").unwrap());
        for words in ["Latex", "Penicillin", "Peanut", "Lisinopril", "Doe, Jo"] {
            assert!(html.contains(words) && pdf.contains(words), "{words}: {html}");
        }
        assert!(html.matches("Doe, Jo").count() >= 2, "on the schedule as well: {html}");
    }
}

#[tokio::test]
async fn a_booking_in_a_closed_record_leads_to_the_one_that_goes_on() {
    let people = People::begin().await;
    people.allergy(&people.kept, "Penicillin").await;
    let visit = people.visit(&people.older).await;
    people.merge_all().await;
    let kept = format!("href=\"/patients/{}\"", people.kept);
    let day = crate::dates::today(people.site.web.now(), people.site.web.settings().zone);
    for path in ["/schedule".to_owned(), format!("/schedule?day={day}"), format!("/schedule/{visit}")] {
        let page = people.site.get(&people.doctor, &path).await.body;
        assert!(page.contains(&kept), "{path}: {page}");
        assert!(!page.contains(&format!("/patients/{}", people.older)), "{path}: {page}");
    }
    let page = people.site.get(&people.doctor, &format!("/schedule/{visit}")).await.body;
    assert!(page.contains("Penicillin"), "{page}");
    // What was booked there may still end.
    let fields = [("patient", people.older.as_str()), ("version", "1"), ("to", "arrived")];
    let arrived = people.site.post(&people.doctor, &format!("/schedule/{visit}"), &fields).await;
    assert_eq!(arrived.status, StatusCode::SEE_OTHER, "{}", arrived.body);
}

#[tokio::test]
async fn every_page_of_a_closed_record_says_what_must_be_known_and_where_to_go_on() {
    let people = People::begin().await;
    people.allergy(&people.kept, "Penicillin").await;
    people.merge_all().await;
    let (kept, base) = (format!("/patients/{}", people.kept), format!("/patients/{}", people.older));
    let parts = [
        "",
        "/timeline",
        "/vitals",
        "/results",
        "/immunizations",
        "/consents",
        "/messages",
        "/portal",
        "/coverage",
        "/edit",
    ];
    for part in parts {
        let page = people.site.get(&people.doctor, &format!("{base}{part}")).await;
        assert_eq!(page.status, StatusCode::OK, "{part}");
        for words in ["Penicillin", "go on in the record that this one was merged into", kept.as_str()] {
            assert!(page.body.contains(words), "{part} {words}: {}", page.body);
        }
        assert!(!page.body.contains("none recorded"), "{part}: {}", page.body);
    }
    let chart = people.site.get(&people.doctor, &base).await.body;
    for offered in
        ["/medications/new", "/encounters/new", "/allergies/new", "/documents/new", "/forms/new", "/schedule/book"]
    {
        assert!(!chart.contains(offered), "{offered}: {chart}");
    }
    for part in [
        "/medications/new",
        "/encounters/new",
        "/allergies/new",
        "/problems/new",
        "/documents/new",
        "/forms/new",
        "/referrals/new",
    ] {
        let refused = people.site.get(&people.doctor, &format!("{base}{part}")).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{part}");
        assert!(refused.body.contains(&format!("href=\"{kept}\"")), "{part}: {}", refused.body);
    }
    // A form that was open meanwhile saves nothing, and leads on.
    let typed = [("patient", people.older.as_str()), ("what", "Lisinopril"), ("detail", "daily")];
    let late = people.site.post(&people.doctor, &format!("{base}/medications/new"), &typed).await;
    assert_eq!(late.status, StatusCode::CONFLICT, "{}", late.body);
    assert!(late.body.contains(&kept) && late.body.contains("Nothing was saved"), "{}", late.body);
    people.unmerge(&people.older).await;
    let saved = people.site.post(&people.doctor, &format!("{base}/medications/new"), &typed).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
}

#[tokio::test]
async fn nothing_clinical_is_created_in_a_closed_record_over_the_api_and_what_stands_there_is_changed() {
    let people = People::begin().await;
    let problem = json!({"resourceType": "Condition", "subject": of(&people.older), "code": {"text": "Gout"}});
    let id = people.site.store("Condition", problem.clone()).await;
    people.merge_all().await;
    let refused = people.fhir("POST", "Condition", &problem).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);
    let outcome: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(outcome["issue"][0]["code"], "business-rule");
    assert!(refused.body.contains(&format!("Patient/{}", people.kept)), "{}", refused.body);
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"resource": problem, "request": {"method": "POST", "url": "Condition"}}]});
    assert_eq!(people.fhir("POST", "", &bundle).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    // An entry that stands there is changed there, and none is moved there.
    let patch = json!([{"op": "add", "path": "/note", "value": [{"text": "better"}]}]);
    let request = Request::patch(format!("/fhir/R4/Condition/{id}"))
        .header(header::COOKIE, &people.doctor.cookie)
        .header("x-csrf-token", &people.doctor.csrf)
        .header(header::CONTENT_TYPE, "application/json-patch+json");
    let patched = people.site.send(request.body(Body::from(patch.to_string())).unwrap()).await;
    assert_eq!(patched.status, StatusCode::OK, "{}", patched.body);
    let own =
        people.fhir("POST", "Condition", &json!({"resourceType": "Condition", "subject": of(&people.kept)})).await;
    assert_eq!(own.status, StatusCode::CREATED, "{}", own.body);
    let mut moved: Value = serde_json::from_str(&own.body).unwrap();
    moved["subject"] = of(&people.older);
    let store = people.site.web.store();
    let move_it = move |tx: &mut crate::store::Tx<'_>| {
        let id = moved["id"].as_str().unwrap().to_owned();
        tx.update("Condition", &id, moved, crate::store::Expect::Version(1))
    };
    let doctor = Actor::staff("d", "d", Role::Clinician);
    let refused = store.write::<_, StoreError, _>(&doctor, move_it).await;
    assert!(matches!(refused, Err(StoreError::Merged { .. })), "{refused:?}");
    // What moves in from another system happened there.
    let moves_in = json!({"resourceType": "Condition", "subject": of(&people.older), "code": {"text": "Cough"}});
    let import = move |tx: &mut crate::store::Tx<'_>| tx.create("Condition", moves_in);
    assert!(store.write::<_, StoreError, _>(&Actor::program(Program::Import), import).await.is_ok());
}

#[tokio::test]
async fn the_chart_that_goes_on_has_contact_persons_and_insurances_of_the_closed_record() {
    let people = People::begin().await;
    let contact = json!({"resourceType": "Patient", "name": [{"family": "Do", "given": ["Jo"]}], "birthDate": "1960-05-06",
        "contact": [{"relationship": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0131", "code": "C"}]}],
            "name": {"text": "Ann Roe"}, "telecom": [{"system": "phone", "value": "555 12345"}]}]});
    let other = people.site.store("Patient", contact).await;
    let insured = json!({"resourceType": "Coverage", "status": "active", "beneficiary": of(&other), "payor": [{"display": "Acme Health"}]});
    let coverage = people.site.store("Coverage", insured).await;
    people.merge(&people.kept, &other).await;
    let chart = people.site.get(&people.doctor, &format!("/patients/{}", people.kept)).await.body;
    assert!(chart.contains("Ann Roe") && chart.contains("555 12345"), "{chart}");
    let page = people.site.get(&people.desk, &format!("/patients/{}/coverage", people.kept)).await.body;
    assert!(page.contains("Acme Health") && page.contains("from another record"), "{page}");
    let own = format!("/patients/{other}/coverage/{coverage}");
    assert!(page.contains(&own), "it is changed in its own record: {page}");
    assert_eq!(people.site.get(&people.desk, &own).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_desk_is_told_of_a_no_and_lets_nobody_new_act() {
    let people = People::begin().await;
    let admin = people.site.session(Role::PracticeAdmin).await;
    let id = text(&people.site, &admin, &[("months", "0"), ("governs", "proxies"), ("needed", "no")]).await;
    let fields = |mail: &'static str| {
        [
            ("patient", people.kept.clone()),
            ("given", "Eva".into()),
            ("family", "Berg".into()),
            ("birth", "1985-01-02".into()),
            ("proxy-mail", mail.to_owned()),
            ("relation", "mother".into()),
            ("scope", "all".into()),
            ("until", "2040-01-01".into()),
        ]
    };
    let grant = async |mail: &'static str| {
        let fields = fields(mail);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        people.site.post(&people.desk, &format!("/patients/{}/portal/people", people.kept), &fields).await
    };
    let mails = async || {
        let count =
            |db: &Connection| Ok::<i64, StoreError>(db.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))?);
        people.site.web.store().internal(count).await.unwrap()
    };
    assert_eq!(grant("eva@example.org").await.status, StatusCode::OK);
    let before = mails().await;
    // The no was said in a record that was merged into this one.
    people.merge_all().await;
    people.unmerge(&people.older).await;
    people.decide(&people.older, &id, "refuse").await;
    people.merge(&people.kept, &people.older).await;
    let page = people.site.get(&people.desk, &format!("/patients/{}/portal", people.kept)).await.body;
    assert!(page.contains("kept out by the patient") && page.contains("it was refused or withdrawn"), "{page}");
    assert!(!page.contains("Let this person act") && !page.contains("value=\"invite\" aria-label"), "{page}");
    let refused = grant("carl@example.org").await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);
    assert!(refused.body.contains("Nobody was let in"), "{}", refused.body);
    assert_eq!(mails().await, before, "nobody is invited to what opens nothing");
}

#[tokio::test]
async fn a_reminder_of_a_booking_in_a_closed_record_asks_the_one_that_goes_on() {
    let people = People::begin().await;
    let reached = |more: Value| {
        let mut body = json!({"resourceType": "Patient", "name": [{"family": "Roe"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let phone = |number: &str| json!([{"system": "phone", "value": number}]);
    let wants_none = json!([{"url": reminders::PREFERENCE, "valueCode": "none"}]);
    let mut expected = Vec::new();
    for (number, (kept, closed, to)) in [
        (json!({"telecom": phone("555 1111")}), json!({"telecom": phone("555 2222")}), Some("555 1111")),
        (json!({}), json!({"telecom": phone("555 3333")}), Some("555 3333")),
        (json!({"extension": wants_none}), json!({"telecom": phone("555 4444")}), None),
        (json!({"telecom": phone("555 5555")}), json!({"extension": wants_none}), None),
    ]
    .into_iter()
    .enumerate()
    {
        let kept = people.site.store("Patient", reached(kept)).await;
        let closed = people.site.store("Patient", reached(closed)).await;
        people.visit(&closed).await;
        people.merge(&kept, &closed).await;
        expected.extend(to.map(|to| (number, to.to_owned())));
    }
    let secret = tempfile::NamedTempFile::new().unwrap();
    let settings = crate::settings::GatewaySettings { url: "http://127.0.0.1:9/".into(), secret: secret.path().into() };
    let channels =
        Channels { sms: Some(crate::messages::http::Gateway::new(&settings).unwrap()), ..Channels::default() };
    assert!(channels.has(Channel::Sms));
    let store = people.site.web.store();
    reminders::plan(store, &channels, chrono_tz::UTC, "Test practice", &Plan { hours: 24 }).await.unwrap();
    let read = |db: &Connection| {
        let mut statement = db.prepare("SELECT payload FROM outbox WHERE state = 'waiting' ORDER BY payload")?;
        let all = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        Ok::<_, StoreError>(all)
    };
    let sent = store.internal(read).await.unwrap();
    assert_eq!(sent.len(), expected.len(), "{sent:?}");
    for (number, to) in expected {
        assert!(sent.iter().any(|payload| payload.contains(&to)), "{number} {to}: {sent:?}");
    }
}

#[tokio::test]
async fn a_link_that_one_side_alone_tells_joins_both_and_more_than_are_followed_are_refused() {
    let people = People::begin().await;
    let link = |other: &str, kind: &str| json!([{"other": of(other), "type": kind}]);
    let linked =
        json!({"resourceType": "Patient", "name": [{"family": "Doe"}], "link": link(&people.kept, "replaced-by")});
    let closed = people.site.store("Patient", linked).await;
    let person = {
        let kept = people.kept.clone();
        move |view: &View<'_>| {
            Ok::<_, StoreError>((view.person(&kept)?.ids(), view.person(&closed)?.goes_on().to_owned(), closed))
        }
    };
    let doctor = Actor::staff("d", "d", Role::Clinician);
    let (ids, goes_on, closed) = people.site.web.store().view(&doctor, person).await.unwrap();
    assert_eq!((ids, goes_on.as_str()), (vec![people.kept.clone(), closed.clone()], people.kept.as_str()));
    // Whoever is bound to one record has that one alone.
    let scopes = crate::access::grant::Scope::parse("patient/*.rs").into_iter().collect();
    let grant = crate::access::Grant { client: "app".into(), scopes, patient: Some(people.kept.clone()) };
    let own = people.kept.clone();
    let bound = move |view: &View<'_>| Ok::<_, StoreError>(view.person(&own)?.ids());
    let ids = people.site.web.store().view(&doctor.clone().with_grant(grant), bound).await.unwrap();
    assert_eq!(ids, std::slice::from_ref(&people.kept));
    let mut last = Ok(String::new());
    for _ in 0..70 {
        let body =
            json!({"resourceType": "Patient", "name": [{"family": "Doe"}], "link": link(&people.kept, "replaced-by")});
        let create = move |tx: &mut crate::store::Tx<'_>| Ok(tx.create("Patient", body)?.id);
        last = people.site.web.store().write::<_, StoreError, _>(&Actor::program(Program::Seed), create).await;
    }
    assert!(matches!(last, Err(StoreError::Invalid { .. })), "{last:?}");
    let all = Query::all("Patient").unwrap();
    let count = move |view: &View<'_>| Ok::<_, StoreError>(view.search(&all)?.resources.len());
    assert_eq!(people.site.web.store().view(&doctor, count).await.unwrap(), 64 + 2, "and two who are no part of it");
}
