//! Open sessions, and what a changed role does to them; the access record as FHIR tells it.

use crate::access::{Actor, Program, Role, accounts};
use crate::fhir::validate;
use crate::store::Tx;
use crate::web::CSRF_HEADER;
use crate::web::tests::{Browser, NOW_S, Site, hidden};
use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::{Value, json};

/// The session in the row of a button of this label.
fn session_of(page: &str, label: &str) -> String {
    let row = page.split("<tr>").find(|row| row.contains(label)).unwrap_or_else(|| panic!("{page}"));
    let from = row.split("name=\"session\" value=\"").nth(1).unwrap_or_else(|| panic!("{row}"));
    from.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn sessions_are_seen_and_ended_one_by_one() {
    let site = Site::new();
    site.add_user("anna", Role::Clinician, "!", "x").await;
    let (here, there) = (site.session_of("anna").await, site.session_of("anna").await);
    let other = site.session(Role::FrontDesk).await;
    let page = site.get(&here, "/account/sessions").await.body;
    assert!(
        page.contains("this one") && page.contains("Firefox on Linux") && page.matches("<tr>").count() == 3,
        "{page}"
    );
    let id = session_of(&page, "End session");
    // Nobody ends another one's.
    site.post(&other, "/account/sessions", &[("session", &id)]).await;
    assert_eq!(site.get(&there, "/account").await.status, StatusCode::OK);
    assert_eq!(site.post(&other, "/users/sessions", &[("session", &id)]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(site.post(&here, "/account/sessions", &[("session", &id)]).await.status, StatusCode::SEE_OTHER);
    assert!(site.get(&there, "/account").await.location().starts_with("/login"));
    assert_eq!(site.get(&here, "/account").await.status, StatusCode::OK);
    // An administrator sees and ends all.
    let admin = site.session(Role::PracticeAdmin).await;
    let all = site.get(&admin, "/users/sessions").await.body;
    assert!(all.matches("<tr>").count() == 4 && all.contains("clinician") && all.contains("front-desk"), "{all}");
    let id = session_of(&all, "clinician");
    assert_eq!(site.post(&admin, "/users/sessions", &[("session", &id)]).await.status, StatusCode::SEE_OTHER);
    assert!(site.get(&here, "/account").await.location().starts_with("/login"));
    assert_eq!(
        site.post(&admin, "/users/sessions", &[("session", &id)]).await.status,
        StatusCode::SEE_OTHER,
        "it is over"
    );
    let record = site.get(&admin, "/audit?action=user-change").await.body;
    assert_eq!(record.matches("<td>session<span").count(), 2, "{record}");
}

#[tokio::test]
async fn a_session_that_another_process_ends_is_over_when_it_says_so() {
    let site = Site::new();
    site.add_user("anna", Role::Clinician, "!", "x").await;
    let beside = site.beside();
    let anna = site.session_of("anna").await;
    // The clock stands still: what was looked up is believed because nothing was changed here.
    for _ in 0..2 {
        assert_eq!(site.get(&anna, "/account").await.status, StatusCode::OK);
    }
    let disable = |tx: &mut Tx<'_>| accounts::set_disabled(tx.connection(), "anna", true, NOW_S);
    beside.write(&Actor::program(Program::CommandLine), disable).await.unwrap();
    assert!(site.get(&anna, "/account").await.location().starts_with("/login"));
}

#[tokio::test]
async fn a_role_changes_at_once_and_never_the_last_administrators() {
    let site = Site::new();
    site.add_user("anna", Role::Clinician, "!", "x").await;
    site.add_user("berta", Role::PracticeAdmin, "!", "x").await;
    let (anna, berta) = (site.session_of("anna").await, site.session_of("berta").await);
    let change = |browser: &Browser, user: &'static str, role: &'static str| {
        let browser = browser.clone();
        let site = &site;
        async move { site.post(&browser, "/users/role", &[("user", user), ("role", role)]).await }
    };
    assert_eq!(change(&anna, "anna", "practice-admin").await.status, StatusCode::FORBIDDEN);
    let refused = change(&berta, "berta", "clinician").await;
    assert!(refused.status == StatusCode::BAD_REQUEST && refused.body.contains("make another user an administrator"));
    assert_eq!(change(&berta, "anna", "owner").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(change(&berta, "nobody", "clinician").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(site.get(&anna, "/templates").await.status, StatusCode::OK);
    assert_eq!(change(&berta, "anna", "front-desk").await.status, StatusCode::SEE_OTHER);
    assert!(
        site.get(&anna, "/templates").await.location().starts_with("/login"),
        "the session in the old role is over"
    );
    let anna = site.session_of("anna").await;
    assert_eq!(site.get(&anna, "/templates").await.status, StatusCode::FORBIDDEN);
    assert!(site.get(&berta, "/audit?action=user-change").await.body.contains("<td>role<span"));
    // With a second administrator the first may step down.
    change(&berta, "anna", "practice-admin").await;
    assert_eq!(change(&berta, "berta", "clinician").await.status, StatusCode::SEE_OTHER);
    assert!(site.get(&berta, "/users").await.location().starts_with("/login"));
}

async fn json_of(site: &Site, browser: &Browser, path: &str) -> (StatusCode, Value) {
    let answer = site.get(browser, &format!("/fhir/R4/{path}")).await;
    (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
}

fn events(bundle: &Value) -> Vec<&Value> {
    bundle["entry"].as_array().into_iter().flatten().map(|entry| &entry["resource"]).collect()
}

#[tokio::test]
async fn the_access_record_is_told_as_audit_events_to_who_may_see_it() {
    let site = Site::new();
    let (admin, doctor) = (site.session(Role::PracticeAdmin).await, site.session(Role::Clinician).await);
    let (patient, other) = (site.patient("Doe").await, site.patient("Roe").await);
    for id in [&patient, &other] {
        site.get(&doctor, &format!("/patients/{id}")).await;
        site.later(30);
    }
    for browser in [&doctor, &site.session(Role::FrontDesk).await] {
        for path in ["AuditEvent", "AuditEvent/1"] {
            assert_eq!(json_of(&site, browser, path).await.0, StatusCode::FORBIDDEN, "{path}");
        }
    }
    let (status, all) = json_of(&site, &admin, "AuditEvent?_count=500").await;
    assert_eq!(status, StatusCode::OK, "{all}");
    assert!(events(&all).len() > 10);
    for event in events(&all) {
        assert_eq!(validate::issues("AuditEvent", event), [], "{event}");
    }
    let numbers: Vec<u64> = events(&all).iter().map(|event| event["id"].as_str().unwrap().parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|two| two[0] > two[1]), "the newest first: {numbers:?}");
    // Of one patient, in a span of time, by whom, and what.
    let (_, of_one) = json_of(&site, &admin, &format!("AuditEvent?patient=Patient/{patient}&date=ge2020")).await;
    assert!(!events(&of_one).is_empty());
    for event in events(&of_one) {
        assert_eq!(event["entity"][0]["what"]["reference"], json!(format!("Patient/{patient}")), "{event}");
    }
    assert!(events(&json_of(&site, &admin, &format!("AuditEvent?patient={patient}&date=lt2020")).await.1).is_empty());
    let (_, read) = json_of(&site, &admin, &format!("AuditEvent?entity=Patient/{patient}&subtype=read")).await;
    assert!(!events(&read).is_empty());
    assert!(
        events(&read)
            .iter()
            .all(|event| event["entity"][1]["what"]["reference"] == json!(format!("Patient/{patient}")))
    );
    let by = events(&read)[0]["agent"][0]["altId"].as_str().unwrap().to_owned();
    let (_, by_her) = json_of(&site, &admin, &format!("AuditEvent?altid={by}&agent-role=clinician&outcome=0")).await;
    assert!(events(&by_her).iter().all(|event| event["agent"][0]["altId"] == json!(by)) && !events(&by_her).is_empty());
    // By the name with which she signs in, as far as somebody remembers it.
    let name = events(&read)[0]["agent"][0]["name"].as_str().unwrap().to_uppercase();
    let (_, by_name) = json_of(&site, &admin, &format!("AuditEvent?agent-name={}&_count=500", &name[..15])).await;
    assert!(events(&by_name).len() >= events(&by_her).len(), "{by_name}");
    assert!(events(&by_name).iter().all(|event| event["agent"][0]["altId"] == json!(by)));
    assert!(events(&json_of(&site, &admin, "AuditEvent?agent-name=nobody").await.1).is_empty());
    // None at all, only how many there are.
    for asked in ["_count=0", "_summary=count"] {
        let (status, counted) = json_of(&site, &admin, &format!("AuditEvent?patient={patient}&{asked}")).await;
        assert_eq!((status, events(&counted).len()), (StatusCode::OK, 0), "{counted}");
        assert_eq!(counted["total"], json!(events(&of_one).len()), "{asked}");
    }
    // Page by page there is everything, once.
    let (mut path, mut paged) = (format!("AuditEvent?patient={patient}&_count=2"), Vec::new());
    loop {
        let (_, page) = json_of(&site, &admin, &path).await;
        paged.extend(events(&page).iter().map(|event| event["id"].clone()));
        let links = page["link"].as_array().unwrap();
        let Some(next) = links.iter().find(|link| link["relation"] == "next") else { break };
        path = next["url"].as_str().unwrap().split("/fhir/R4/").nth(1).unwrap().to_owned();
    }
    let whole: Vec<Value> = events(&of_one).iter().map(|event| event["id"].clone()).collect();
    assert_eq!(paged, whole);
    // One entry, as in the search; what is not there, and what is not asked for so.
    let number = numbers[3];
    let (_, one) = json_of(&site, &admin, &format!("AuditEvent/{number}")).await;
    assert_eq!(&one, events(&all)[3]);
    assert_eq!(json_of(&site, &admin, "AuditEvent/999999").await.0, StatusCode::NOT_FOUND);
    assert_eq!(json_of(&site, &admin, "AuditEvent/x").await.0, StatusCode::NOT_FOUND);
    for bad in ["AuditEvent?nonsense=1", "AuditEvent?date=soon", "AuditEvent?agent-name="] {
        assert_eq!(json_of(&site, &admin, bad).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
    // By form and in a batch the same; nobody writes it.
    let send = |method: &str, path: &str, kind: &str, body: String| {
        let request = Request::builder()
            .method(method)
            .uri(format!("/fhir/R4{path}"))
            .header(header::COOKIE, &admin.cookie)
            .header(CSRF_HEADER, &admin.csrf)
            .header(header::CONTENT_TYPE, kind);
        site.send(request.body(Body::from(body)).unwrap())
    };
    let form =
        send("POST", "/AuditEvent/_search", "application/x-www-form-urlencoded", format!("patient={patient}")).await;
    assert!(form.status == StatusCode::OK && form.body.contains("\"match\""), "{}", form.body);
    let get = |url: String| json!({"request": {"method": "GET", "url": url}});
    let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [get(format!("AuditEvent/{number}")), get("AuditEvent?_count=1".into())]});
    let batch = send("POST", "", "application/fhir+json", batch.to_string()).await;
    assert!(batch.body.matches("200 OK").count() == 2 && batch.body.contains("audit-hash"), "{}", batch.body);
    for (method, path) in [("POST", "/AuditEvent"), ("PUT", "/AuditEvent/1"), ("DELETE", "/AuditEvent/1")] {
        let answer = send(method, path, "application/fhir+json", one.to_string()).await;
        assert!(answer.status.is_client_error(), "{method} {path}: {}", answer.status);
    }
    let (_, statement) = json_of(&site, &admin, "metadata").await;
    let told =
        statement["rest"][0]["resource"].as_array().unwrap().iter().find(|one| one["type"] == "AuditEvent").unwrap();
    assert_eq!(told["interaction"], json!([{"code": "read"}, {"code": "search-type"}]));
    // The look itself stands in the record.
    let page = site.get(&admin, "/audit").await.body;
    assert!(page.contains("AuditEvent") && page.contains("Unbroken"), "{page}");
    assert!(!hidden(&page, "csrf").is_empty());
}
