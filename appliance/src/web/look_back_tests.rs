//! Who may ask for a record as it was, who sees what of it, and what is copied back.

use super::tests::{Site, hidden};
use crate::access::Role;
use crate::look_back::{Desk, Look, Old, State, Then};
use crate::store::StoreError;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const LOOK: &str = "0e3f4a52-5d0f-4f6e-9f0a-0a6f4f2f7b11";

fn old(kind: &str, id: &str, body: &Value) -> Old {
    let body = body.to_string();
    Old { kind: kind.into(), id: id.into(), version: 1, updated_ms: 1_779_000_000_000, body, damaged: false }
}

fn condition(patient: &str, what: &str) -> Value {
    json!({"resourceType": "Condition", "subject": {"reference": format!("Patient/{patient}")}, "code": {"text": what}})
}

/// A practice in which a patient's record of then is held: other than today's in each of several ways.
async fn site() -> (Site, String, [String; 2]) {
    let mut site = Site::new();
    let patient = site.patient("Abel").await;
    let changed = site.store("Condition", condition(&patient, "Migraine")).await;
    let added = site.store("Condition", condition(&patient, "Gout")).await;
    let mut registered = site.read("Patient", &patient).await;
    registered["birthDate"] = json!("1960-05-07");
    let broken = Old { damaged: true, ..old("Condition", "broken", &condition(&patient, "Unreadable")) };
    let resources = vec![
        old("Patient", &patient, &registered),
        old("Condition", &changed, &condition(&patient, "Tension headache")),
        old("Condition", "gone", &condition(&patient, "Asthma")),
        broken,
    ];
    let look = Look {
        id: LOOK.into(),
        patient: patient.clone(),
        snapshot: "5n4p".into(),
        taken_ms: 1_779_900_000_000,
        asked_by: "Test Person".into(),
        state: State::Ready(Arc::new(Then { resources, files: Vec::new() })),
    };
    site.give_desk(|dir| Desk::holding(dir, look));
    (site, patient, [changed, added])
}

#[tokio::test]
async fn each_role_sees_of_then_what_it_sees_of_today() {
    let (site, patient, _) = site().await;
    let path = format!("/patients/{patient}/as-it-was/{LOOK}");
    let doctor = site.get(&site.session(Role::Clinician).await, &path).await;
    assert_eq!(doctor.status, StatusCode::OK);
    let words = ["Tension headache", "Migraine", "Asthma", "gone today", "Gout", "new since", "1960-05-07", "damaged"];
    for shown in words.into_iter().chain([">Birth date<", ">What: text<"]) {
        assert!(doctor.body.contains(shown), "{shown}");
    }
    for role in [Role::FrontDesk, Role::PracticeAdmin] {
        let told = site.get(&site.session(role).await, &path).await;
        assert!(
            told.body.contains("1960-05-07") && told.body.contains("your role does not read: <b>3</b>"),
            "{}",
            told.body
        );
        for hidden in ["Tension headache", "Migraine", "Asthma"] {
            assert!(!told.body.contains(hidden), "{role}: {hidden}");
        }
    }
    let other = site.patient("Brandt").await;
    let mixed = site.get(&site.session(Role::Clinician).await, &format!("/patients/{other}/as-it-was/{LOOK}")).await;
    assert_eq!(mixed.status, StatusCode::NOT_FOUND, "a look is found under its own patient alone");
}

#[tokio::test]
async fn what_is_copied_back_is_a_new_version_and_is_in_the_access_record() {
    let (site, patient, [changed, _]) = site().await;
    let doctor = site.session(Role::Clinician).await;
    let path = format!("/patients/{patient}/as-it-was/{LOOK}");
    let page = site.get(&doctor, &path).await.body;
    assert!(page.contains("version: Problem Tension headache") && !page.contains("version: Problem Unreadable"));
    let copy = |kind: &'static str, entry: String, version: &'static str| {
        let (site, doctor, path, patient) = (&site, doctor.clone(), format!("{path}/copy"), patient.clone());
        async move {
            let fields =
                [("patient", patient.as_str()), ("version", version), ("kind", kind), ("entry", entry.as_str())];
            site.post(&doctor, &path, &fields).await.status
        }
    };
    assert_eq!(copy("Condition", changed.clone(), "7").await, StatusCode::CONFLICT, "it was opened on another version");
    assert_eq!(copy("Condition", changed.clone(), "1").await, StatusCode::SEE_OTHER);
    assert_eq!(copy("Condition", "gone".into(), "0").await, StatusCode::SEE_OTHER);
    assert_eq!(copy("Condition", "broken".into(), "0").await, StatusCode::NOT_FOUND);
    assert_eq!(copy("Condition", "never".into(), "0").await, StatusCode::NOT_FOUND);
    let now = site.read("Condition", &changed).await;
    assert_eq!(
        (now["code"]["text"].as_str(), now["meta"]["versionId"].as_str()),
        (Some("Tension headache"), Some("2"))
    );
    assert_eq!(site.read("Condition", "gone").await["code"]["text"], "Asthma");
    let admin = site.session(Role::PracticeAdmin).await;
    let record = site.get(&admin, "/audit?action=look-back").await.body;
    assert!(record.matches("5n4p").count() >= 3, "looking and each copy: {record}");
}

#[tokio::test]
async fn a_role_copies_back_only_what_it_may_write() {
    let (site, patient, [changed, _]) = site().await;
    let path = format!("/patients/{patient}/as-it-was/{LOOK}/copy");
    for role in [Role::FrontDesk, Role::PracticeAdmin] {
        let browser = site.session(role).await;
        let fields =
            [("patient", patient.as_str()), ("version", "1"), ("kind", "Condition"), ("entry", changed.as_str())];
        assert_eq!(site.post(&browser, &path, &fields).await.status, StatusCode::FORBIDDEN, "{role}");
        let own = [("patient", patient.as_str()), ("version", "1"), ("kind", "Patient"), ("entry", patient.as_str())];
        let expected = if role == Role::FrontDesk { StatusCode::SEE_OTHER } else { StatusCode::CONFLICT };
        assert_eq!(site.post(&browser, &path, &own).await.status, expected, "{role}");
    }
    assert_eq!(site.read("Condition", &changed).await["code"]["text"], "Migraine");
    assert_eq!(site.read("Patient", &patient).await["birthDate"], "1960-05-07");
}

#[tokio::test]
async fn only_an_administrator_asks_and_ends_and_a_silent_verifier_is_told() {
    let (site, patient, _) = site().await;
    let ask = format!("/patients/{patient}/as-it-was");
    let end = format!("{ask}/{LOOK}/end");
    for role in [Role::FrontDesk, Role::Clinician] {
        let browser = site.session(role).await;
        assert_eq!(site.get(&browser, &ask).await.status, StatusCode::FORBIDDEN);
        for path in [&ask, &end] {
            assert_eq!(site.post(&browser, path, &[("patient", &patient)]).await.status, StatusCode::FORBIDDEN);
        }
    }
    let admin = site.session(Role::PracticeAdmin).await;
    let page = site.get(&admin, &ask).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("does not answer") && page.body.contains(LOOK), "{}", page.body);
    assert_eq!(hidden(&site.get(&admin, &format!("{ask}/{LOOK}")).await.body, "patient"), patient);
    assert_eq!(site.post(&admin, &end, &[("patient", &patient)]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(site.get(&admin, &format!("{ask}/{LOOK}")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn guesses_at_the_password_of_an_open_session_are_counted() {
    let (site, patient, _) = site().await;
    let admin = site.session(Role::PracticeAdmin).await;
    for _ in 0..7 {
        let fields = [("patient", patient.as_str()), ("snapshot", LOOK), ("password", "a guess at it")];
        site.post(&admin, &format!("/patients/{patient}/as-it-was"), &fields).await;
    }
    let sql = "SELECT count(*) FROM login_failure WHERE subject LIKE 'session:%'";
    let counted = |db: &crate::db::Connection| Ok::<_, StoreError>(db.query_row(sql, [], |row| row.get::<_, u32>(0))?);
    assert_eq!(site.web.store().internal_blocking(counted).unwrap(), 5, "after five none is looked at");
}
