//! Nothing is saved for the wrong patient, and nothing that somebody saved is overwritten in silence.

use super::tests::{Browser, Site, hidden};
use super::{Method, Surface, routes};
use crate::access::{Actor, Role};
use http::StatusCode;
use serde_json::json;

/// Forms whose address names something of a patient, and what they need to be read.
const BOUND: [(&str, &[(&str, &str)]); 7] = [
    ("/schedule/{appointment}", &[("to", "arrived")]),
    ("/schedule/{appointment}/move", &[("day", "2027-03-01"), ("time", "10:00"), ("all_the_same", "urgent")]),
    ("/schedule/{appointment}/cancel", &[("reason", "x")]),
    ("/schedule/inbox/{appointment}", &[("answer", "booked")]),
    ("/schedule/waiting/{appointment}/remove", &[]),
    ("/tasks/{task}", &[("status", "completed")]),
    ("/schedule/waiting/new", &[("reason", "x"), ("back", "x")]),
];
/// Forms that are about no patient, or in which the patient is what is entered.
const FREE: [&str; 40] = [
    "/oauth/authorize",
    "/login",
    "/login/key",
    "/login/key/answer",
    "/account/keys",
    "/account/keys/new",
    "/account/keys/end",
    "/unlock",
    "/lock",
    "/logout",
    "/invite/{token}",
    "/patients/new",
    "/users/invite",
    "/users/access",
    "/account/password",
    "/account/recovery",
    "/account/apps",
    "/apps/new",
    "/apps/end",
    "/emergency",
    "/emergency/review",
    "/practice",
    "/practice/import",
    "/practice/export",
    "/practice/downtime",
    "/consents/{text}",
    "/users/role",
    "/users/sessions",
    "/account/sessions",
    "/schedule/book",
    "/schedule/hold",
    "/schedule/feeds",
    "/schedule/feeds/end",
    "/schedule/visits/{visit}",
    "/schedule/hours/of",
    "/schedule/hours/places",
    "/phrases",
    "/templates/preview",
    "/templates/{template}",
    "/tasks/new",
];

async fn appointment(site: &Site, patient: &str, status: &str, hour: u32) -> String {
    let actor = json!({"actor": {"reference": format!("Patient/{patient}")}, "status": "accepted"});
    let body = json!({"resourceType": "Appointment", "status": status, "start": format!("2027-03-01T{hour}:00:00Z"),
        "end": format!("2027-03-01T{hour}:20:00Z"), "minutesDuration": 20, "participant": [actor]});
    site.store("Appointment", body).await
}

#[tokio::test]
async fn a_form_opened_for_one_patient_never_saves_to_another() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let admin = site.session(Role::PracticeAdmin).await;
    let (opened_for, other) = (site.patient("Abel").await, site.patient("Brandt").await);
    let visit = appointment(&site, &other, "booked", 14).await;
    let request = appointment(&site, &other, "pending", 15).await;
    let waiting = appointment(&site, &other, "waitlist", 16).await;
    let task = json!({"resourceType": "Task", "status": "requested", "intent": "order", "for": {"reference": format!("Patient/{other}")}});
    let task = site.store("Task", task).await;
    let mut seen = 0;
    for route in routes(&site.web) {
        if route.method != Method::Post || route.surface != Surface::Page {
            continue;
        }
        let bound = BOUND.iter().find(|(path, _)| *path == route.path);
        let in_chart = route.path.starts_with("/patients/{patient}");
        let known = in_chart || bound.is_some() || FREE.contains(&route.path);
        assert!(known, "{}: say in this test whether this form is about a patient", route.path);
        if !in_chart && bound.is_none() || route.path == "/schedule/waiting/new" {
            continue;
        }
        let id = match route.path {
            "/schedule/inbox/{appointment}" => &request,
            "/schedule/waiting/{appointment}/remove" => &waiting,
            "/tasks/{task}" => &task,
            _ => &visit,
        };
        let path = route.path.replace("{patient}", &other);
        let path: Vec<&str> = path.split('/').map(|s| if s.starts_with('{') { id.as_str() } else { s }).collect();
        let path = path.join("/");
        let fields: Vec<(&str, &str)> = [("patient", opened_for.as_str()), ("version", "1")]
            .into_iter()
            .chain(bound.map_or(&[][..], |(_, fields)| fields).iter().copied())
            .collect();
        // What is an administrator's alone is refused to everybody else before the form is read.
        let may = route.policy.check(&Actor::staff("x", "x", Role::Clinician)).is_ok();
        let answer = site.post(if may { &doctor } else { &admin }, &path, &fields).await;
        let told = answer.status == StatusCode::CONFLICT && answer.body.contains("belongs to another patient");
        assert!(told, "{}: {} {}", route.path, answer.status, answer.body);
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
    for (kind, id) in [("Appointment", &visit), ("Appointment", &request), ("Appointment", &waiting), ("Task", &task)] {
        assert_eq!(site.read(kind, id).await["meta"]["versionId"], "1", "{kind}");
    }
    assert_eq!(site.read("Patient", &other).await["meta"]["versionId"], "1");
}

fn registration<'a>(patient: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let fixed = [
        ("patient", patient),
        ("version", "1"),
        ("family", "Doe"),
        ("given", "Jo"),
        ("birth", "1960-05-06"),
        ("gender", "female"),
    ];
    fixed.into_iter().filter(|(name, _)| !more.iter().any(|(n, _)| n == name)).chain(more.iter().copied()).collect()
}

#[tokio::test]
async fn a_character_that_cannot_be_stored_costs_nothing_of_what_was_typed() {
    let site = Site::new();
    let desk = site.session(Role::FrontDesk).await;
    let patient = site.patient("Doe").await;
    let path = format!("/patients/{patient}/edit");
    let sent = registration(&patient, &[("phone", "555\u{b}0001"), ("city", "Bern")]);
    let refused = site.post(&desk, &path, &sent).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);
    assert!(refused.body.contains("control characters") && refused.body.contains(&path), "{}", refused.body);
    assert_eq!(site.read("Patient", &patient).await["meta"]["versionId"], "1");
    // The button sends the page's hidden fields.
    let kept: Vec<(&str, &str)> = sent.iter().map(|(name, _)| (*name, hidden(&refused.body, name))).collect();
    assert!(kept.contains(&("phone", "5550001")) && kept.contains(&("city", "Bern")), "{kept:?}");
    assert_eq!(site.post(&desk, &path, &kept).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn two_who_edit_a_registration_decide_together() {
    let site = Site::new();
    let (one, two) = (site.session(Role::FrontDesk).await, site.session(Role::FrontDesk).await);
    let patient = site.patient("Doe").await;
    let path = format!("/patients/{patient}/edit");
    let first = registration(&patient, &[("phone", "555-0001"), ("city", "Bern")]);
    assert_eq!(site.post(&one, &path, &first).await.status, StatusCode::SEE_OTHER);
    // The same once more, as after a lost connection: saved once.
    assert_eq!(site.post(&one, &path, &first).await.status, StatusCode::SEE_OTHER);
    assert_eq!(site.read("Patient", &patient).await["meta"]["versionId"], "2");
    let second = registration(&patient, &[("family", "Roe"), ("city", "Basel")]);
    let merge = site.post(&two, &path, &second).await;
    assert_eq!(merge.status, StatusCode::CONFLICT);
    for shown in ["Changed by two people", "Roe", "Basel", "Bern", "555-0001", "Both of you changed this"] {
        assert!(merge.body.contains(shown), "{shown}: {}", merge.body);
    }
    assert_eq!(merge.body.matches(" checked").count(), 2, "what one alone changed is chosen: {}", merge.body);
    assert_eq!(site.read("Patient", &patient).await["meta"]["versionId"], "2", "nothing was overwritten");
    let version = hidden(&merge.body, "version").to_owned();
    let chosen =
        registration(&patient, &[("version", &version), ("family", "Roe"), ("city", "Bern"), ("phone", "555-0001")]);
    assert_eq!(site.post(&two, &path, &chosen).await.status, StatusCode::SEE_OTHER);
    let stored = site.read("Patient", &patient).await;
    assert_eq!((&stored["name"][0]["family"], &stored["address"][0]["city"]), (&json!("Roe"), &json!("Bern")));
    assert_eq!(stored["telecom"][0]["value"], "555-0001");
}

async fn entry(site: &Site, browser: &Browser, patient: &str, segment: &str, fields: &[(&str, &str)]) -> String {
    let all: Vec<(&str, &str)> = fields.iter().copied().chain([("patient", patient)]).collect();
    let answer = site.post(browser, &format!("/patients/{patient}/{segment}/new"), &all).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let chart = site.get(browser, &format!("/patients/{patient}")).await.body;
    let link = format!("/patients/{patient}/{segment}/");
    chart.split(&link).skip(1).filter_map(|p| p.split('"').next()).find(|p| p.len() == 36).unwrap().to_owned()
}

#[tokio::test]
async fn two_who_change_an_entry_decide_together() {
    let site = Site::new();
    let (one, two) = (site.session(Role::Clinician).await, site.session(Role::Clinician).await);
    let patient = site.patient("Doe").await;
    for (segment, kind, fields, mine, theirs) in [
        ("problems", "Condition", &[("what", "Asthma")][..], "resolved", "inactive"),
        ("medications", "MedicationRequest", &[("what", "Aspirin"), ("detail", "one a day")], "stopped", "on-hold"),
        ("allergies", "AllergyIntolerance", &[("what", "Latex"), ("risk", "high")], "entered-in-error", "inactive"),
    ] {
        let id = entry(&site, &one, &patient, segment, fields).await;
        let path = format!("/patients/{patient}/{segment}/{id}");
        let send = |status: &'static str, version: &'static str| {
            [("patient", patient.clone()), ("version", version.to_owned()), ("status", status.to_owned())]
        };
        let post = async |browser: &Browser, fields: &[(&str, String)]| {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            site.post(browser, &path, &fields).await
        };
        assert_eq!(post(&one, &send(theirs, "1")).await.status, StatusCode::SEE_OTHER);
        assert_eq!(post(&one, &send(theirs, "1")).await.status, StatusCode::SEE_OTHER, "sent twice, saved once");
        let merge = post(&two, &send(mine, "1")).await;
        assert_eq!(merge.status, StatusCode::CONFLICT);
        assert!(
            merge.body.contains("Changed by two people") && merge.body.contains("Saved meanwhile"),
            "{}",
            merge.body
        );
        assert_eq!(site.read(kind, &id).await["meta"]["versionId"], "2", "{kind}");
        assert_eq!(post(&two, &send(mine, "2")).await.status, StatusCode::SEE_OTHER);
    }
}

#[tokio::test]
async fn two_who_move_an_appointment_decide_together() {
    let site = Site::new();
    let (one, two) = (site.session(Role::FrontDesk).await, site.session(Role::FrontDesk).await);
    let patient = site.patient("Doe").await;
    let id = appointment(&site, &patient, "booked", 14).await;
    let path = format!("/schedule/{id}/move");
    let to = |time: &'static str| {
        [
            ("patient", patient.as_str()),
            ("version", "1"),
            ("day", "2027-03-01"),
            ("time", time),
            ("all_the_same", "urgent"),
        ]
    };
    assert_eq!(site.post(&one, &path, &to("10:00")).await.status, StatusCode::SEE_OTHER);
    let merge = site.post(&two, &path, &to("11:00")).await;
    assert_eq!(merge.status, StatusCode::CONFLICT);
    assert!(
        merge.body.contains("Changed by two people") && merge.body.contains("10:00") && merge.body.contains("11:00"),
        "{}",
        merge.body
    );
    let cancel = [("patient", patient.as_str()), ("version", "1"), ("reason", "x")];
    let again = site.post(&two, &format!("/schedule/{id}/cancel"), &cancel).await;
    assert!(again.status == StatusCode::CONFLICT && again.body.contains("Somebody else changed"), "{}", again.body);
    let stored = site.read("Appointment", &id).await;
    assert_eq!((&stored["meta"]["versionId"], &stored["status"]), (&json!("2"), &json!("booked")));
}

#[tokio::test]
async fn a_form_that_is_sent_twice_is_saved_once() {
    let site = Site::new();
    let (one, two) = (site.session(Role::Clinician).await, site.session(Role::Clinician).await);
    let patient = site.patient("Doe").await;
    let path = format!("/patients/{patient}/allergies/new");
    let send = async |browser: &Browser, what: &str, once: &str| {
        let fields = [("patient", patient.as_str()), ("what", what), ("risk", "high"), ("once", once)];
        site.post(browser, &path, &fields).await
    };
    // What was refused is not saved yet: the same form may be sent again.
    assert_eq!(send(&one, "", "drawn").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(send(&one, "Latex", "drawn").await.status, StatusCode::SEE_OTHER);
    let again = send(&one, "Latex", "drawn").await;
    assert!(again.status == StatusCode::CONFLICT && again.body.contains("This is saved already"), "{}", again.body);
    assert_eq!(send(&one, "Dust", "drawn anew").await.status, StatusCode::SEE_OTHER);
    assert_eq!(send(&two, "Pollen", "drawn").await.status, StatusCode::SEE_OTHER, "another person's form is another");
    assert_eq!(send(&one, "Bees", "").await.status, StatusCode::SEE_OTHER, "without the script as before");
    let chart = site.get(&one, &format!("/patients/{patient}")).await.body;
    let links = chart.matches(&format!("/patients/{patient}/allergies/")).count();
    assert_eq!(links, 1 + 4, "four entries, and the way to add one");
}

#[tokio::test]
async fn the_desk_sees_both_sides_of_a_card_and_no_other_file() {
    use super::moving_tests::send;
    let site = Site::new();
    let (desk, doctor) = (site.session(Role::FrontDesk).await, site.session(Role::Clinician).await);
    let (patient, other) = (site.patient("Doe").await, site.patient("Roe").await);
    let path = format!("/patients/{patient}/coverage");
    let fields = [
        ("patient", patient.as_str()),
        ("payer", "Elm Health"),
        ("number", "A-17"),
        ("group", "G1"),
        ("relation", "self"),
        ("status", "active"),
        ("from", "2024-01-01"),
    ];
    let (front, back) = (b"\x89PNG\r\n\x1a\nfront".as_slice(), b"\xff\xd8\xffback".as_slice());
    let refused = send(&site, &desk, &path, &fields, &[("front", b"%PDF-1.4")]).await;
    assert!(
        refused.status == StatusCode::UNPROCESSABLE_ENTITY && refused.body.contains("no JPEG or PNG"),
        "{}",
        refused.body
    );
    let saved = send(&site, &desk, &path, &fields, &[("front", front), ("back", back)]).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let page = site.get(&desk, &path).await.body;
    assert!(page.contains("Elm Health") && page.contains("A-17") && page.contains("/card/back"), "{page}");
    let id = page
        .split(&format!("{path}/"))
        .filter_map(|p| p.split(['"', '/']).next())
        .find(|p| p.len() == 36)
        .unwrap()
        .to_owned();
    let shown = site.get(&desk, &format!("{path}/{id}/card/front")).await;
    assert_eq!((shown.status, &shown.bytes[..]), (StatusCode::OK, front));
    assert_eq!(shown.headers["content-type"], "image/png");
    assert_eq!(
        site.get(&desk, &format!("/patients/{other}/coverage/{id}/card/front")).await.status,
        StatusCode::NOT_FOUND
    );
    // A new front; the back stays.
    let changed: Vec<(&str, &str)> = fields
        .iter()
        .copied()
        .map(|(n, v)| if n == "group" { (n, "G2") } else { (n, v) })
        .chain([("version", "1")])
        .collect();
    let newer = b"\x89PNG\r\n\x1a\nnewer".as_slice();
    assert_eq!(
        send(&site, &desk, &format!("{path}/{id}"), &changed, &[("front", newer)]).await.status,
        StatusCode::SEE_OTHER
    );
    assert_eq!(&site.get(&desk, &format!("{path}/{id}/card/front")).await.bytes[..], newer);
    assert_eq!(&site.get(&desk, &format!("{path}/{id}/card/back")).await.bytes[..], back);
    let merge = send(
        &site,
        &desk,
        &format!("{path}/{id}"),
        &fields.iter().copied().chain([("version", "1")]).collect::<Vec<_>>(),
        &[],
    )
    .await;
    assert!(merge.status == StatusCode::CONFLICT && merge.body.contains("Changed by two people"), "{}", merge.body);
    // A coverage that points to a letter shows no letter to who may not read it.
    let letter = format!("/patients/{patient}/documents/new");
    let fields = [("patient", patient.as_str()), ("description", "Letter")];
    send(&site, &doctor, &letter, &fields, &[("file", b"\x89PNG\r\n\x1a\nletter")]).await;
    let sql = "SELECT id FROM attachment WHERE id NOT LIKE 'card-%'";
    let binary = site
        .web
        .store()
        .internal_blocking(|db| Ok::<_, crate::store::StoreError>(db.query_row(sql, [], |r| r.get::<_, String>(0))?))
        .unwrap();
    let points = json!({"resourceType": "Coverage", "status": "active", "beneficiary": {"reference": format!("Patient/{patient}")},
        "payor": [{"display": "x"}], "extension": [{"url": "urn:holdfast:insurance-card-front", "valueAttachment": {"url": format!("Binary/{binary}")}}]});
    let crafted = site.store("Coverage", points).await;
    assert_eq!(site.get(&desk, &format!("{path}/{crafted}/card/front")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn looking_leaves_a_trace_that_the_administrator_sees() {
    let site = Site::new();
    let patient = site.patient("Doe").await;
    let clinician = site.session(Role::Clinician).await;
    site.get(&clinician, &format!("/patients/{patient}")).await;
    let admin = site.session(Role::PracticeAdmin).await;
    let page = site.get(&admin, "/audit").await.body;
    assert!(page.contains(&patient) && page.contains("clinician") && page.contains("Condition"));
    assert!(!page.contains("Doe"), "the record of access shows record content");
}

#[tokio::test]
async fn a_request_from_another_site_is_refused_even_with_a_token() {
    let site = Site::new();
    let browser = site.session(Role::Clinician).await;
    let request = http::Request::post("/logout")
        .header(http::header::COOKIE, &browser.cookie)
        .header(super::CSRF_HEADER, &browser.csrf)
        .header("sec-fetch-site", "cross-site");
    assert_eq!(site.send(request.body(axum::body::Body::empty()).unwrap()).await.status, StatusCode::FORBIDDEN);
    assert_eq!(site.get(&browser, "/patients").await.status, StatusCode::OK, "the session is still open");
}

#[tokio::test]
async fn a_registration_is_changed_beside_what_was_wrong_before_and_numbers_are_found_as_they_are_typed() {
    let site = Site::new();
    let desk = site.session(Role::FrontDesk).await;
    let body = json!({"resourceType": "Patient", "name": [{"family": "Doe", "given": ["Jo"]}], "birthDate": "1960-05-06", "gender": "female",
        "telecom": [{"system": "phone", "value": "12"}], "identifier": [{"system": "http://hl7.org/fhir/sid/us-ssn", "value": "123-45-6789"}],
        "contact": [{"name": {"text": "Ann"}, "telecom": [{"system": "phone", "value": "555"}]}]});
    let id = site.store("Patient", body).await;
    let edit = format!("/patients/{id}/edit");
    let stored = [
        ("patient", id.as_str()),
        ("version", "1"),
        ("family", "Doe"),
        ("given", "Jo"),
        ("birth", "1960-05-06"),
        ("gender", "female"),
        ("phone", "12"),
        ("id-1-at", "0"),
        ("id-1-kind", "SS"),
        ("id-1-value", "123-45-6789"),
        ("id-1-system", "http://hl7.org/fhir/sid/us-ssn"),
        ("contact-1-at", "0"),
        ("contact-1-role", "other"),
        ("contact-1-name", "Ann"),
        ("contact-1-phone", "555"),
    ];
    let page = site.get(&desk, &edit).await.body;
    assert!(page.contains("<option value=\"SS\" selected>"), "{page}");
    let with =
        |more: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> { stored.iter().chain(more).copied().collect() };
    let twice =
        with(&[("id-2-kind", "SS"), ("id-2-value", "123456789"), ("id-2-system", "http://hl7.org/fhir/sid/us-ssn")]);
    let refused = site.post(&desk, &edit, &twice).await;
    assert!(
        refused.status == StatusCode::UNPROCESSABLE_ENTITY && refused.body.contains("stands here already"),
        "{}",
        refused.body
    );
    let wrong = site.post(&desk, &edit, &with(&[("id-2-kind", "SS"), ("id-2-value", "abc")])).await;
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.body.contains("nine digits"), "{}", wrong.body);
    let passport = with(&[("city", "Bern"), ("id-2-kind", "PPN"), ("id-2-value", "X 12-34")]);
    let saved = site.post(&desk, &edit, &passport).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    assert_eq!(site.read("Patient", &id).await["contact"][0]["telecom"][0]["value"], "555");
    site.patient("Roe").await;
    for typed in
        ["123-45-6789", "123456789", "123 45 6789", "123%E2%80%9345%E2%80%936789", "x1234", "x12-34", "doe 123-456-789"]
    {
        let found = site.get(&desk, &format!("/patients?q={}", typed.replace(' ', "+"))).await.body;
        assert!(found.contains("1 patient") && found.contains(&id), "{typed}: {found}");
    }
    assert!(site.get(&desk, "/patients?q=12345678").await.body.contains("Nobody found"), "a part of a number is none");
    // Who is registered a second time with the same number is noticed.
    let again = [
        ("family", "Poe"),
        ("given", "Al"),
        ("birth", "1999-01-01"),
        ("gender", "male"),
        ("id-1-kind", "SS"),
        ("id-1-value", "123 45 6789"),
    ];
    let noticed = site.post(&desk, "/patients/new", &again).await;
    assert!(noticed.status == StatusCode::UNPROCESSABLE_ENTITY && noticed.body.contains(&id), "{}", noticed.body);
}
