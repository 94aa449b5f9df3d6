//! One's own account, emergency access, the access record's filters, and the export of a patient.

use crate::access::{Role, emergency};
use crate::web::tests::Site;
use http::StatusCode;
use serde_json::json;

#[tokio::test]
async fn emergency_access_opens_the_record_for_an_hour_and_is_reviewed() {
    let site = Site::new();
    let (desk, admin) = (site.session(Role::FrontDesk).await, site.session(Role::PracticeAdmin).await);
    let patient = site.patient("Doe").await;
    site.store(
        "Condition",
        json!({"resourceType": "Condition", "subject": {"reference": format!("Patient/{patient}")},
        "clinicalStatus": {"coding": [{"code": "active"}]}, "code": {"text": "Hemophilia"}}),
    )
    .await;
    let chart = format!("/patients/{patient}");
    assert!(!site.get(&desk, &chart).await.body.contains("Hemophilia"));
    assert_eq!(
        site.post(&desk, "/emergency", &[("do", "begin"), ("reason", "short")]).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    site.post(&admin, "/practice", &[("alert-mail", "owner@example.org")]).await;
    let begun = site.post(&desk, "/emergency", &[("do", "begin"), ("reason", "Collapsed in the waiting room")]).await;
    assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.body);
    let page = site.get(&desk, &chart).await.body;
    assert!(page.contains("Hemophilia") && page.contains("everything that you look at is recorded"), "{page}");
    let write = [("patient", patient.as_str()), ("what", "Asthma")];
    assert_eq!(
        site.post(&desk, &format!("{chart}/problems/new"), &write).await.status,
        StatusCode::FORBIDDEN,
        "reading only"
    );
    assert_eq!(site.get(&desk, &format!("{chart}/export")).await.status, StatusCode::FORBIDDEN);
    assert_eq!(site.get(&desk, "/fhir/R4/Group/none").await.status, StatusCode::NOT_FOUND, "a group may be read");
    let many = site.get(&desk, "/fhir/R4/Group/none/$export").await;
    assert_eq!(many.status, StatusCode::FORBIDDEN, "the records of many may not: {}", many.body);
    let mail: String = site
        .web
        .store()
        .internal_blocking(|db| {
            Ok::<_, crate::store::StoreError>(db.query_row("SELECT payload FROM outbox", [], |r| r.get(0))?)
        })
        .unwrap();
    assert!(mail.contains("owner@example.org") && !mail.contains("Doe"), "{mail}");
    let queue = site.get(&admin, "/emergency/review").await.body;
    assert!(queue.contains("Collapsed in the waiting room") && queue.contains("of 1 patients"), "{queue}");
    let id = crate::web::tests::hidden(&queue, "id").to_owned();
    assert_eq!(
        site.post(&admin, "/emergency/review", &[("id", &id), ("verdict", "justified")]).await.status,
        StatusCode::SEE_OTHER
    );
    assert!(site.get(&admin, "/emergency/review").await.body.contains("justified"));
    site.post(&desk, "/emergency", &[("do", "end")]).await;
    assert!(!site.get(&desk, &chart).await.body.contains("Hemophilia"), "ended");
}

#[tokio::test]
async fn the_access_record_is_filtered_and_exported() {
    let site = Site::new();
    let (doctor, admin) = (site.session(Role::Clinician).await, site.session(Role::PracticeAdmin).await);
    let (first, second) = (site.patient("Abel").await, site.patient("Brandt").await);
    for patient in [&first, &second] {
        site.get(&doctor, &format!("/patients/{patient}")).await;
    }
    let csv = site.get(&admin, &format!("/audit/export?patient={first}&action=read")).await;
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    assert!(csv.body.lines().count() >= 2 && csv.body.contains(&first) && !csv.body.contains(&second), "{}", csv.body);
    assert!(site.get(&admin, "/audit?from=2030-01-01").await.body.contains("No entry fits"));
    assert!(site.get(&admin, "/audit").await.body.contains("Unbroken"));
    let log = site.get(&admin, "/audit?action=export").await.body;
    assert!(log.contains("AuditEvent"), "an export is in the record too");
    assert_eq!(site.get(&doctor, "/audit/export").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_patients_export_holds_the_whole_record_and_nobody_elses() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let (patient, other) = (site.patient("Abel").await, site.patient("Brandt").await);
    for owner in [&patient, &other] {
        for n in 0..3 {
            site.store("Condition", json!({"resourceType": "Condition", "subject": {"reference": format!("Patient/{owner}")}, "code": {"text": format!("Problem {n}")}})).await;
        }
    }
    let answer = site.get(&doctor, &format!("/patients/{patient}/export")).await;
    // Members are stored as they are.
    assert!(answer.body.contains("record.html") && answer.body.contains("Problem 2"));
    let bundle =
        answer.body.split_once("{\"entry\"").or(answer.body.split_once("{\"resourceType\":\"Bundle\"")).unwrap().1;
    assert_eq!(bundle.matches("\"resource\":").count(), 4);
    assert!(!answer.body.contains(&other));
    let desk = site.session(Role::FrontDesk).await;
    assert_eq!(site.get(&desk, &format!("/patients/{patient}/export")).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_recovery_code_logs_in_once_and_a_new_password_ends_other_sessions() {
    let site = Site::new();
    let hash = service::auth::hash_password("correct horse battery staple");
    let id = site.add_user("anna", Role::Clinician, &hash, &service::auth::Totp::generate_secret()).await;
    let kept = id.clone();
    let set = move |tx: &mut crate::store::Tx<'_>| {
        emergency::set_recovery_codes(tx.connection(), &kept, &["abcd-efgh-jkmn".to_owned()])
    };
    site.web
        .store()
        .write::<_, crate::access::accounts::AccountError, _>(&crate::access::Actor::anonymous(), set)
        .await
        .unwrap();
    let fields =
        |code| [("name", "anna"), ("password", "correct horse battery staple"), ("code", code), ("to", "/patients")];
    assert_eq!(
        site.post(&Site::nobody(), "/login", &fields("zzzz-zzzz-zzzz")).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let inside = site.post(&Site::nobody(), "/login", &fields("abcd-efgh-jkmn")).await;
    assert_eq!(inside.status, StatusCode::SEE_OTHER, "{}", inside.body);
    assert_eq!(
        site.post(&Site::nobody(), "/login", &fields("abcd-efgh-jkmn")).await.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "once"
    );
    let doctor = site.session(Role::Clinician).await;
    let wrong = [("now", "not it"), ("new", "another good long password"), ("again", "another good long password")];
    assert_eq!(site.post(&doctor, "/account/password", &wrong).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(site.get(&doctor, "/account").await.status, StatusCode::OK);
}
