//! What is measured and followed, over the whole router.

use crate::access::Role;
use crate::web::tests::Site;
use http::StatusCode;
use serde_json::{Value, json};

#[tokio::test]
async fn vital_signs_become_observations_and_a_curve() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let patient = site.patient("Doe").await;
    let path = format!("/patients/{patient}/vitals");
    for (systolic, weight) in [("142", "80.5"), ("131", "79")] {
        let fields = [
            ("patient", patient.as_str()),
            ("systolic", systolic),
            ("diastolic", "85"),
            ("weight", weight),
            ("height", "180"),
        ];
        assert_eq!(site.post(&doctor, &path, &fields).await.status, StatusCode::SEE_OTHER);
        site.later(60);
    }
    let found = site.get(&doctor, &format!("/fhir/R4/Observation?patient={patient}&code=39156-5")).await.body;
    assert!(found.contains("24.8") && found.contains("24.4"), "{found}");
    let page = site.get(&doctor, &path).await.body;
    assert!(
        page.contains("<svg class=\"curve\"") && page.contains("Systolic last 131") && !page.contains(" style="),
        "{page}"
    );
    for (field, bad) in [("systolic", "1420"), ("weight", "heavy"), ("systolic", "120")] {
        let answer = site.post(&doctor, &path, &[("patient", &patient), (field, bad)]).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{field}={bad}");
    }
    let wrong = site.post(&doctor, &path, &[("patient", "other"), ("pulse", "70")]).await;
    assert_eq!(wrong.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn results_show_the_newest_value_and_the_laboratorys_mark() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let patient = site.patient("Doe").await;
    for (at, value, mark) in [("2026-01-01T08:00:00Z", 5.1, "N"), ("2026-05-01T08:00:00Z", 7.9, "H")] {
        site.store("Observation", json!({"resourceType": "Observation", "status": "final", "subject": {"reference": format!("Patient/{patient}")},
            "category": [{"coding": [{"code": "laboratory"}]}], "effectiveDateTime": at, "valueQuantity": {"value": value, "unit": "%"},
            "interpretation": [{"coding": [{"code": mark}]}], "code": {"coding": [{"code": "4548-4"}], "text": "HbA1c"}})).await;
    }
    let page = site.get(&doctor, &format!("/patients/{patient}/results")).await.body;
    assert!(page.contains("<b>7.9 %</b>") && page.contains(">H<") && page.contains("1 earlier"), "{page}");
}

#[tokio::test]
async fn an_immunization_is_recorded_and_the_timeline_finds_words() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let patient = site.patient("Doe").await;
    let path = format!("/patients/{patient}/immunizations");
    let fields =
        [("patient", patient.as_str()), ("what", "Tetanus"), ("day", "2026-05-20"), ("dose", "2"), ("lot", "L42")];
    assert_eq!(site.post(&doctor, &path, &fields).await.status, StatusCode::SEE_OTHER);
    let future = [("patient", patient.as_str()), ("what", "Tetanus"), ("day", "2030-01-01")];
    assert_eq!(site.post(&doctor, &path, &future).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let note = "Cough since <b>Tuesday</b>, lungs clear.";
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, note);
    site.store("DocumentReference", json!({"resourceType": "DocumentReference", "status": "current", "docStatus": "final", "date": "2026-05-21T08:00:00Z",
        "subject": {"reference": format!("Patient/{patient}")}, "content": [{"attachment": {"contentType": "text/plain", "data": data}}]})).await;
    let all = site.get(&doctor, &format!("/patients/{patient}/timeline")).await.body;
    assert!(all.contains("Tetanus") && all.contains("2 entries"), "{all}");
    let found = site.get(&doctor, &format!("/patients/{patient}/timeline?q=LUNGS")).await.body;
    assert!(found.contains("1 entries") && found.contains("&lt;b&gt;Tuesday"), "{found}");
    let desk = site.session(Role::FrontDesk).await;
    assert_eq!(site.get(&desk, &format!("/patients/{patient}/timeline")).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_task_goes_to_the_front_desk_and_comes_back_with_an_answer() {
    let site = Site::new();
    let (doctor, desk) = (site.session(Role::Clinician).await, site.session(Role::FrontDesk).await);
    let patient = site.patient("Doe").await;
    let fields = [
        ("patient", patient.as_str()),
        ("what", "Call about the result"),
        ("owner", "role front-desk"),
        ("due", "2026-05-01"),
    ];
    assert_eq!(site.post(&doctor, "/tasks/new", &fields).await.status, StatusCode::SEE_OTHER);
    let mine = site.get(&desk, "/tasks").await.body;
    assert!(mine.contains("Call about the result") && mine.contains("late") && mine.contains("Doe, Jo"), "{mine}");
    assert!(!site.get(&doctor, "/tasks").await.body.contains("Call about the result"), "it is not the doctor's");
    let id = mine.split("/tasks/").filter_map(|p| p.split('"').next()).find(|p| p.len() == 36).unwrap().to_owned();
    let answer =
        [("patient", patient.as_str()), ("version", "1"), ("status", "completed"), ("say", "She will come on Monday.")];
    assert_eq!(site.post(&desk, &format!("/tasks/{id}"), &answer).await.status, StatusCode::SEE_OTHER);
    assert!(site.get(&doctor, &format!("/tasks/{id}")).await.body.contains("She will come on Monday."));
    assert_eq!(
        site.post(&desk, &format!("/tasks/{id}"), &answer).await.status,
        StatusCode::CONFLICT,
        "the version is old"
    );
    let admin = site.session(Role::PracticeAdmin).await;
    assert_eq!(site.get(&admin, "/tasks").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_referral_is_followed_until_the_answer_is_back() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let patient = site
        .store(
            "Patient",
            json!({"resourceType": "Patient", "name": [{"family": "Doe", "given": ["Jo"]}], "birthDate": "1960-05-06",
            "address": [{"line": ["12 Oak Lane"], "city": "Springfield", "postalCode": "01101"}]}),
        )
        .await;
    site.store(
        "Condition",
        json!({"resourceType": "Condition", "subject": {"reference": format!("Patient/{patient}")},
        "clinicalStatus": {"coding": [{"code": "active"}]}, "code": {"text": "Hypertension"}}),
    )
    .await;
    let form = site.get(&doctor, &format!("/patients/{patient}/referrals/new")).await.body;
    assert!(form.contains("- Hypertension"), "{form}");
    let fields = [
        ("patient", patient.as_str()),
        ("to", "Dr. Herz"),
        ("what", "Cardiology"),
        ("urgency", "urgent"),
        ("due", "2026-05-20"),
        ("letter", "Dear colleague"),
    ];
    let made = site.post(&doctor, &format!("/patients/{patient}/referrals/new"), &fields).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.body);
    let open = site.get(&doctor, "/referrals").await.body;
    assert!(open.contains("Dr. Herz") && open.contains("overdue"), "{open}");
    let path = made.location().to_owned();
    for (number, step) in [("1", "sent"), ("2", "answered"), ("3", "closed")] {
        let fields = [
            ("patient", patient.as_str()),
            ("version", number),
            ("step", step),
            ("say", "by fax"),
            ("report", if step == "answered" { "Letter of 12 May, in the paper folder" } else { "" }),
        ];
        assert_eq!(site.post(&doctor, &path, &fields).await.status, StatusCode::SEE_OTHER, "{step}");
    }
    assert!(site.get(&doctor, "/referrals").await.body.contains("Every referral is answered"));
    let stored: Value = site.read("ServiceRequest", path.rsplit('/').next().unwrap()).await;
    assert_eq!((&stored["status"], stored["note"].as_array().unwrap().len()), (&json!("completed"), 4));
    let page = site.get(&doctor, &path).await.body;
    assert!(page.contains("Report: Letter of 12 May"), "{page}");
    // The letter has a head, an address and a sender; what is said on the way is no part of it.
    let letter = page.split("class=\"sheet letter\"").nth(1).and_then(|rest| rest.split("<section").next()).unwrap();
    for said in [
        "Test practice",
        "1 Elm Street",
        "Springfield",
        "+1 555 010 2000",
        "Dr. Herz",
        "Doe, Jo",
        "12 Oak Lane",
        "Test Person",
    ] {
        assert!(letter.contains(said), "{said}: {letter}");
    }
    assert!(!letter.contains("by fax") && !letter.contains("Closed") && !letter.contains("Sent"), "{letter}");
    let way = page.split("class=\"sheet letter\"").nth(1).unwrap().split_once("<section").unwrap().1;
    assert!(way.starts_with(" class=\"foot screen-only\"") && way.contains("by fax"), "{way}");
}

#[tokio::test]
async fn a_report_is_one_of_the_persons_documents_and_a_closed_referral_is_opened_again_with_a_reason() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let (patient, other) = (site.patient("Doe").await, site.patient("Roe").await);
    let fields =
        [("patient", patient.as_str()), ("to", "Dr. Herz"), ("what", "Cardiology"), ("letter", "Dear\n\nTest Person")];
    let made = site.post(&doctor, &format!("/patients/{patient}/referrals/new"), &fields).await;
    let path = made.location().to_owned();
    let file = |of: &str, named: &str| {
        json!({"resourceType": "DocumentReference", "status": "current", "description": named, "date": "2026-05-12T08:00:00Z",
            "subject": {"reference": format!("Patient/{of}")}, "content": [{"attachment": {"contentType": "application/pdf"}}]})
    };
    let own = site.store("DocumentReference", file(&patient, "Letter of Dr. Herz")).await;
    let foreign = site.store("DocumentReference", file(&other, "Letter of somebody else")).await;
    let page = site.get(&doctor, &path).await.body;
    assert!(page.contains("Letter of Dr. Herz") && !page.contains("somebody else"), "{page}");
    assert_eq!(page.matches("Test Person").count() - page.matches("class=\"me\"").count(), 1, "named once: {page}");
    let press = async |to: &str, number: &str, more: &[(&'static str, &str)]| {
        let all: Vec<_> =
            [("patient", patient.as_str()), ("version", number)].into_iter().chain(more.iter().copied()).collect();
        site.post(&doctor, to, &all).await
    };
    let unnamed = press(&path, "1", &[("step", "answered"), ("say", "it came")]).await;
    assert_eq!(unnamed.status, StatusCode::UNPROCESSABLE_ENTITY, "a report that is received is named");
    assert!(unnamed.body.contains("Please choose the report") && unnamed.body.contains("it came"), "{}", unnamed.body);
    let wrong = press(&path, "1", &[("step", "answered"), ("document", &foreign)]).await;
    assert_eq!(wrong.status, StatusCode::NOT_FOUND, "a document of another patient is no report");
    assert_eq!(press(&path, "1", &[("step", "answered"), ("document", &own)]).await.status, StatusCode::SEE_OTHER);
    let page = site.get(&doctor, &path).await.body;
    assert!(page.contains(&format!("href=\"/patients/{patient}/documents/{own}/file\"")), "{page}");
    let early = press(&format!("{path}/reopen"), "2", &[("say", "too soon")]).await;
    assert_eq!(early.status, StatusCode::BAD_REQUEST, "only what is closed is opened again");
    assert_eq!(press(&path, "2", &[("step", "closed")]).await.status, StatusCode::SEE_OTHER);
    assert!(site.get(&doctor, "/referrals").await.body.contains("Every referral is answered"));
    assert_eq!(press(&format!("{path}/reopen"), "3", &[]).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let again = press(&format!("{path}/reopen"), "3", &[("say", "The ECG is missing")]).await;
    assert_eq!(again.status, StatusCode::SEE_OTHER, "{}", again.body);
    assert!(site.get(&doctor, "/referrals").await.body.contains("Dr. Herz"));
    let page = site.get(&doctor, &path).await.body;
    assert!(page.contains("Reopened: The ECG is missing") && page.contains("Report received"), "{page}");
    let long = "x".repeat(1001);
    assert_eq!(press(&path, "4", &[("step", "sent"), ("say", &long)]).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}
