//! A patient's no to programs of others, over every route of the API: what they hold is refused or left out, and the practice's own
//! people go on.

use super::tests::text;
use crate::access::grant::Scope;
use crate::access::{Actor, Denied, Grant, Program, Role, smart};
use crate::store::{Query, StoreError, Tx, Versions, View};
use crate::web::tests::{Answer, Browser, Site};
use crate::web::{Method, Surface};
use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::{Value, json};

/// What stands in every resource of the patient who says no.
const SECRET: &str = "SECRET";
/// What stands in those of the patient who says nothing.
const OPEN: &str = "OPENLY";

struct Sharing {
    site: Site,
    token: String,
    /// Who says no, and who says nothing.
    kept: String,
    open: String,
    /// Type and id of what each has.
    kept_all: Vec<(&'static str, String)>,
    open_all: Vec<(&'static str, String)>,
    group: String,
    text: String,
    desk: Browser,
}

impl Sharing {
    async fn begin(needed: &str) -> Sharing {
        let site = Site::new();
        let token = token(&site).await;
        let (kept, kept_all) = patient(&site, SECRET).await;
        let (open, open_all) = patient(&site, OPEN).await;
        let members: Vec<Value> =
            [&kept, &open].iter().map(|id| json!({"entity": {"reference": format!("Patient/{id}")}})).collect();
        let group = json!({"resourceType": "Group", "type": "person", "actual": true, "member": members});
        let group = site.store("Group", group).await;
        let (admin, desk) = (site.session(Role::PracticeAdmin).await, site.session(Role::FrontDesk).await);
        let text = text(&site, &admin, &[("months", "0"), ("governs", "sharing"), ("needed", needed)]).await;
        Sharing { site, token, kept, open, kept_all, open_all, group, text, desk }
    }

    async fn decide(&self, patient: &str, decision: &str) {
        let fields = [
            ("patient", patient),
            ("text", self.text.as_str()),
            ("text_version", "1"),
            ("signer", "Jo"),
            ("relation", "patient"),
            ("typed", "Jo"),
            ("decision", decision),
        ];
        let answer = self.site.post(&self.desk, &format!("/patients/{patient}/consents/new"), &fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let kind =
            if path.ends_with("/_search") { "application/x-www-form-urlencoded" } else { "application/fhir+json" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, kind)
            .header("prefer", "respond-async");
        self.site.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }
}

/// A backend service that may do everything.
async fn token(site: &Site) -> String {
    let give = |tx: &mut Tx<'_>| {
        let sql = "INSERT INTO smart_client (id, name, jwks, scopes, created_ms) VALUES ('lab', 'Lab', '{}', 'system/*.cruds', ?1)";
        tx.connection().execute(sql, [tx.now_ms()])?;
        let client = smart::client(tx.connection(), "lab")?.unwrap();
        let token = service::auth::random_token();
        smart::client_credentials(tx.connection(), &client, "system/*.cruds", &token, tx.now_ms() + 86_400_000)?
            .unwrap();
        Ok::<_, StoreError>(token)
    };
    site.web.store().write(&Actor::program(Program::CommandLine), give).await.unwrap()
}

async fn patient(site: &Site, mark: &str) -> (String, Vec<(&'static str, String)>) {
    let body = json!({"resourceType": "Patient", "name": [{"family": mark}], "birthDate": "1960-05-06"});
    let id = site.store("Patient", body).await;
    let (of, code) = (json!({"reference": format!("Patient/{id}")}), json!({"text": mark}));
    let kinds = [
        ("Condition", json!({"subject": of, "code": code})),
        ("AllergyIntolerance", json!({"patient": of, "code": code})),
        ("Observation", json!({"subject": of, "status": "final", "code": code, "valueString": mark})),
        (
            "MedicationRequest",
            json!({"subject": of, "status": "active", "intent": "order", "medicationCodeableConcept": code}),
        ),
        ("Encounter", json!({"subject": of, "status": "finished", "class": {"code": "AMB", "display": mark}})),
        ("Coverage", json!({"beneficiary": of, "status": "active", "payor": [{"display": mark}]})),
        (
            "Appointment",
            json!({"status": "booked", "description": mark, "start": "2026-06-09T14:00:00Z", "end": "2026-06-09T14:30:00Z",
                "participant": [{"actor": of, "status": "accepted"}]}),
        ),
        (
            "DocumentReference",
            json!({"subject": of, "status": "current", "description": mark, "content": [{"attachment": {"title": mark}}]}),
        ),
        ("RelatedPerson", json!({"patient": of, "name": [{"family": mark}]})),
    ];
    let mut all = vec![("Patient", id.clone())];
    for (kind, mut body) in kinds {
        body["resourceType"] = kind.into();
        all.push((kind, site.store(kind, body).await));
    }
    let target: Vec<Value> = all.iter().map(|(kind, id)| json!({"reference": format!("{kind}/{id}")})).collect();
    let body = json!({"resourceType": "Provenance", "target": target, "recorded": "2026-05-01T08:00:00Z", "agent": [{"who": {"display": mark}}]});
    site.store("Provenance", body).await;
    (id, all)
}

async fn reads(sharing: &Sharing, all: &[(&'static str, String)]) -> Vec<StatusCode> {
    let mut found = Vec::new();
    for (kind, id) in all {
        found.push(sharing.call("GET", &format!("/fhir/R4/{kind}/{id}"), "").await.status);
    }
    found
}

#[tokio::test]
async fn every_route_of_the_api_leaves_out_or_refuses_who_said_no() {
    let sharing = Sharing::begin("no").await;
    assert!(
        reads(&sharing, &sharing.kept_all).await.iter().all(|status| *status == StatusCode::OK),
        "before: nobody said no"
    );
    sharing.decide(&sharing.kept, "refuse").await;
    assert!(reads(&sharing, &sharing.kept_all).await.iter().all(|status| *status == StatusCode::FORBIDDEN));
    assert!(reads(&sharing, &sharing.open_all).await.iter().all(|status| *status == StatusCode::OK));
    // Every route, with every type and id of hers.
    for route in crate::fhir::http::routes(sharing.site.web.store()) {
        if route.path.contains("$export/") {
            continue; // Below.
        }
        for (kind, id) in &sharing.kept_all {
            let path = route.path.replace("{kind}", kind).replace("{id}", id).replace("{version}", "1");
            let body = match route.method {
                Method::Get | Method::Delete => String::new(),
                _ if route.path.contains("_search") => "_count=50".to_owned(),
                Method::Patch => json!([{"op": "add", "path": "/language", "value": "de"}]).to_string(),
                _ if route.path.contains("$match") => {
                    json!({"resourceType": "Patient", "name": [{"family": SECRET}], "birthDate": "1960-05-06"})
                        .to_string()
                }
                _ => json!({"resourceType": kind, "id": id, "language": "de"}).to_string(),
            };
            let answer = sharing.call(route.method.as_str(), &path, &body).await;
            let what = format!("{} {path}: {}", route.method.as_str(), answer.status);
            assert!(!answer.body.contains(SECRET), "{what}");
            if route.path.contains("{id}") && route.surface == Surface::Fhir && route.method == Method::Get {
                assert!(answer.status.is_client_error(), "{what}");
            }
        }
    }
    for (kind, id) in &sharing.kept_all {
        assert_eq!(sharing.site.read(kind, id).await["meta"]["versionId"], "1", "nothing of hers was changed: {kind}");
    }
}

#[tokio::test]
async fn searches_includes_chains_and_exports_leave_out_who_said_no() {
    let sharing = Sharing::begin("no").await;
    let searches = [
        "Condition?_count=50".to_owned(),
        "Patient?_revinclude=Observation:patient&_revinclude=Provenance:target".into(),
        "Provenance?_include=Provenance:target".into(),
        "Observation?patient.family=SECRET".into(),
        "Group?member.family=SECRET&_elements=type".into(),
        format!("Observation?patient=Patient/{}", sharing.kept),
        "Observation/_history".into(),
        "Patient/_history".into(),
    ];
    for search in &searches {
        let answer = sharing.call("GET", &format!("/fhir/R4/{search}"), "").await;
        let told = answer.body.contains(SECRET) || answer.body.contains("\"match\"");
        assert!(answer.status == StatusCode::OK && told, "before: {search} {}", answer.body);
    }
    sharing.decide(&sharing.kept, "refuse").await;
    for search in &searches {
        let answer = sharing.call("GET", &format!("/fhir/R4/{search}"), "").await;
        assert_eq!(answer.status, StatusCode::OK, "{search}");
        // What was asked for stands in the link; a condition tells as much as what meets it.
        let asks = search.contains(SECRET) || search.contains(&sharing.kept);
        let told = if asks { "\"match\"" } else { SECRET };
        assert!(!answer.body.contains(told), "{search} {}", answer.body);
    }
    let counted = sharing.call("GET", "/fhir/R4/Condition?_summary=count", "").await;
    assert!(counted.body.contains("\"total\":1"), "{}", counted.body);
    let begun = sharing.call("GET", &format!("/fhir/R4/Group/{}/$export", sharing.group), "").await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.body);
    let place = begun.headers[header::CONTENT_LOCATION].to_str().unwrap().to_owned();
    let manifest: Value = serde_json::from_str(&sharing.call("GET", &place, "").await.body).unwrap();
    let mut kinds = 0;
    for file in manifest["output"].as_array().unwrap() {
        let lines = sharing.call("GET", file["url"].as_str().unwrap(), "").await.body;
        assert!(lines.contains(OPEN) && !lines.contains(SECRET), "{lines}");
        kinds += 1;
    }
    assert!(kinds >= sharing.open_all.len(), "{manifest}");
    // The refusals stand in the access record, under her name.
    let kept = sharing.kept.clone();
    sharing.call("GET", &format!("/fhir/R4/Patient/{kept}"), "").await;
    let admin = sharing.site.session(Role::PracticeAdmin).await;
    let record = sharing.site.get(&admin, &format!("/audit?patient={kept}&outcome=denied")).await.body;
    assert!(record.contains("Lab"), "{record}");
}

#[tokio::test]
async fn a_needed_consent_opens_only_who_gave_it_and_a_new_patient_can_be_entered() {
    let sharing = Sharing::begin("yes").await;
    let found = sharing.call("GET", "/fhir/R4/Condition", "").await.body;
    assert!(!found.contains(SECRET) && !found.contains(OPEN), "{found}");
    sharing.decide(&sharing.open, "agree").await;
    let found = sharing.call("GET", "/fhir/R4/Condition", "").await.body;
    assert!(!found.contains(SECRET) && found.contains(OPEN), "{found}");
    let body = json!({"resourceType": "Patient", "name": [{"family": "New"}]}).to_string();
    assert_eq!(sharing.call("POST", "/fhir/R4/Patient", &body).await.status, StatusCode::CREATED);
    let of = json!({"reference": format!("Patient/{}", sharing.kept)});
    let body = json!({"resourceType": "Condition", "subject": of, "code": {"text": "x"}}).to_string();
    assert_eq!(sharing.call("POST", "/fhir/R4/Condition", &body).await.status, StatusCode::FORBIDDEN);
    let practitioners = sharing.call("GET", "/fhir/R4/Practitioner", "").await;
    assert_eq!(practitioners.status, StatusCode::OK, "what is nobody's stays open");
}

#[tokio::test]
async fn whoever_uses_an_app_is_held_and_whoever_treats_is_not() {
    let sharing = Sharing::begin("no").await;
    sharing.decide(&sharing.kept, "refuse").await;
    for role in Role::ALL {
        let scopes = ["patient/*.cruds", "user/*.cruds"].into_iter().filter_map(Scope::parse).collect();
        let plain = Actor::staff("u", "u", role);
        let app = plain.clone().with_grant(Grant { client: "app".into(), scopes, patient: Some(sharing.kept.clone()) });
        let (kept, all) = (sharing.kept.clone(), sharing.kept_all.clone());
        let held = move |view: &View<'_>| {
            for (kind, id) in &all {
                let refused = view.read(kind, id).err();
                assert!(matches!(refused, Some(StoreError::Denied(_))), "{role} {kind}");
                if role == Role::Clinician {
                    assert!(matches!(refused, Some(StoreError::Denied(Denied::Withheld))), "{kind}");
                    assert!(view.version(kind, id, 1).is_err(), "{kind}");
                    let one =
                        Versions { kind: (*kind).into(), id: Some(id.clone()), since_ms: 0, before: None, count: 9 };
                    assert!(view.history(&one).is_err(), "{kind}");
                }
            }
            assert!(view.everything(&kept, &Default::default()).is_err());
            Ok::<_, StoreError>(())
        };
        sharing.site.web.store().view(&app, held).await.unwrap();
        let all = sharing.kept_all.clone();
        let free = move |view: &View<'_>| {
            for (kind, id) in &all {
                let may = view.may(crate::access::Action::Read, kind);
                assert_eq!(view.read(kind, id).is_ok(), may, "{role} {kind}");
                if may {
                    assert!(!view.search(&Query::all(kind)?)?.resources.is_empty());
                }
            }
            Ok::<_, StoreError>(())
        };
        sharing.site.web.store().view(&plain, free).await.unwrap();
    }
    let doctor = sharing.site.session(Role::Clinician).await;
    let chart = sharing.site.get(&doctor, &format!("/patients/{}", sharing.kept)).await;
    assert!(chart.status == StatusCode::OK && chart.body.contains(SECRET), "the practice goes on");
    let apps = sharing.site.get(&doctor, &format!("/patients/{}/apps", sharing.kept)).await;
    assert_eq!(apps.status, StatusCode::OK);
}

#[tokio::test]
async fn a_no_in_a_record_that_was_merged_holds_for_the_one_that_goes_on() {
    let sharing = Sharing::begin("no").await;
    let kept = sharing.open.clone();
    let status = |patient: &str| {
        let path = format!("/fhir/R4/Patient/{patient}");
        let sharing = &sharing;
        async move { sharing.call("GET", &path, "").await.status }
    };
    let merge = [("patient", kept.as_str()), ("other", sharing.kept.as_str())];
    let merged = sharing.site.post(&sharing.desk, &format!("/patients/{kept}/merge"), &merge).await;
    assert_eq!(merged.status, StatusCode::SEE_OTHER, "{}", merged.body);
    assert_eq!(status(&kept).await, StatusCode::OK);
    // Said in the surviving record after the merge, and in the other one before it.
    sharing.decide(&kept, "refuse").await;
    assert_eq!((status(&kept).await, status(&sharing.kept).await), (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN));
    let closed = reads(&sharing, &sharing.kept_all).await;
    assert!(closed.iter().all(|status| *status == StatusCode::FORBIDDEN), "{closed:?}");
    let undo = [("patient", sharing.kept.as_str())];
    sharing.site.post(&sharing.desk, &format!("/patients/{}/unmerge", sharing.kept), &undo).await;
    assert_eq!((status(&kept).await, status(&sharing.kept).await), (StatusCode::FORBIDDEN, StatusCode::OK));
    sharing.decide(&kept, "agree").await;
    sharing.decide(&sharing.kept, "refuse").await;
    assert_eq!((status(&kept).await, status(&sharing.kept).await), (StatusCode::OK, StatusCode::FORBIDDEN));
    sharing.site.post(&sharing.desk, &format!("/patients/{kept}/merge"), &merge).await;
    assert_eq!(status(&kept).await, StatusCode::FORBIDDEN);
    let whole = sharing.call("GET", &format!("/fhir/R4/Patient/{kept}/$everything"), "").await;
    assert_eq!(whole.status, StatusCode::FORBIDDEN, "{}", whole.body);
    let found = sharing.call("GET", "/fhir/R4/Condition", "").await.body;
    assert!(!found.contains(SECRET) && !found.contains(OPEN), "{found}");
}

#[tokio::test]
async fn what_belongs_to_somebody_by_another_element_is_kept_with_the_rest() {
    let sharing = Sharing::begin("no").await;
    let (kept, open) = (&sharing.kept, &sharing.open);
    let of = |patient: &str| json!({"reference": format!("Patient/{patient}")});
    let taking_part = |patient: &str| json!({"actor": of(patient), "status": "accepted"});
    let money = |patient: &str| json!([{"display": "x"}, of(patient)]);
    let shared = [
        (
            "Communication",
            json!({"status": "completed", "recipient": [of(kept)], "payload": [{"contentString": SECRET}]}),
        ),
        (
            "Communication",
            json!({"status": "completed", "subject": of(open), "recipient": [of(kept)], "payload": [{"contentString": SECRET}]}),
        ),
        (
            "AppointmentResponse",
            json!({"appointment": {"display": "x"}, "actor": of(kept), "participantStatus": "accepted", "comment": SECRET}),
        ),
        (
            "Appointment",
            json!({"status": "proposed", "description": SECRET, "participant": [taking_part(open), taking_part(kept)]}),
        ),
        ("Schedule", json!({"actor": [of(kept)], "comment": SECRET})),
        ("Person", json!({"name": [{"family": SECRET}], "link": [{"target": of(kept)}]})),
        (
            "Coverage",
            json!({"status": "active", "beneficiary": of(open), "subscriber": of(kept), "payor": [{"display": SECRET}]}),
        ),
        (
            "Coverage",
            json!({"status": "active", "beneficiary": of(open), "payor": money(kept), "subscriberId": SECRET}),
        ),
        ("Account", json!({"status": "active", "subject": [of(open), of(kept)], "name": SECRET})),
        (
            "Invoice",
            json!({"status": "issued", "subject": of(open), "recipient": of(kept), "note": [{"text": SECRET}]}),
        ),
        (
            "SupplyRequest",
            json!({"quantity": {"value": 1}, "itemCodeableConcept": {"text": SECRET}, "requester": of(kept)}),
        ),
        ("EnrollmentRequest", json!({"status": "active", "candidate": of(kept), "language": SECRET.to_lowercase()})),
        (
            "Observation",
            json!({"status": "final", "subject": of(open), "performer": [of(kept)], "code": {"text": SECRET}}),
        ),
        (
            "Group",
            json!({"type": "person", "actual": true, "name": SECRET, "member": [{"entity": of(open)}, {"entity": of(kept)}]}),
        ),
        ("Patient", json!({"name": [{"family": SECRET}], "link": [{"other": of(kept), "type": "seealso"}]})),
        // No part of the compartment.
        (
            "Linkage",
            json!({"item": [{"type": "source", "resource": of(kept)}, {"type": "alternate", "resource": of(open)}]}),
        ),
    ];
    let mut all = Vec::new();
    for (kind, mut body) in shared {
        body["resourceType"] = kind.into();
        all.push((kind, sharing.site.store(kind, body).await));
    }
    assert!(reads(&sharing, &all).await.iter().all(|status| *status == StatusCode::OK), "before: nobody said no");
    let counted = |kind: &'static str| {
        let path = format!("/fhir/R4/{kind}?_summary=count");
        let sharing = &sharing;
        async move { serde_json::from_str::<Value>(&sharing.call("GET", &path, "").await.body).unwrap()["total"].as_i64() }
    };
    assert_eq!(counted("Communication").await, Some(2));
    sharing.decide(kept, "refuse").await;
    let linkage = all.pop().unwrap();
    for (kind, id) in &all {
        for (method, path, body) in [
            ("GET", format!("{kind}/{id}"), String::new()),
            ("GET", format!("{kind}/{id}/_history/1"), String::new()),
            ("GET", format!("{kind}/{id}/_history"), String::new()),
            ("PATCH", format!("{kind}/{id}"), json!([{"op": "add", "path": "/language", "value": "de"}]).to_string()),
            ("DELETE", format!("{kind}/{id}"), String::new()),
        ] {
            let answer = sharing.call(method, &format!("/fhir/R4/{path}"), &body).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path} {}", answer.body);
        }
        for query in [format!("{kind}?_count=500"), format!("{kind}?_id={id}"), format!("{kind}/_history")] {
            let answer = sharing.call("GET", &format!("/fhir/R4/{query}"), "").await;
            assert!(
                answer.status == StatusCode::OK && !answer.body.contains(&format!("\"{id}\"")),
                "{query} {}",
                answer.body
            );
        }
        assert_eq!(sharing.site.read(kind, id).await["meta"]["versionId"], "1");
    }
    assert_eq!(reads(&sharing, &[linkage]).await, [StatusCode::OK]);
    assert_eq!(counted("Communication").await, Some(0));
    for query in [
        format!(
            "Patient?_id={open}&_revinclude=Coverage:beneficiary&_revinclude=Observation:patient&_revinclude=Appointment:patient"
        ),
        format!("Patient/{open}/$everything"),
    ] {
        let answer = sharing.call("GET", &format!("/fhir/R4/{query}"), "").await;
        assert!(answer.body.contains(OPEN) && !answer.body.contains(SECRET), "{query} {}", answer.body);
    }
    // Nothing is written that would belong to her, nor made hers.
    let body = json!({"resourceType": "Communication", "status": "completed", "recipient": [of(kept)]}).to_string();
    assert_eq!(sharing.call("POST", "/fhir/R4/Communication", &body).await.status, StatusCode::FORBIDDEN);
    let own = sharing.call("POST", "/fhir/R4/Communication", &body.replace(kept.as_str(), open)).await;
    assert_eq!(own.status, StatusCode::CREATED, "{}", own.body);
    let own: Value = serde_json::from_str(&own.body).unwrap();
    let patch = json!([{"op": "add", "path": "/sender", "value": of(kept)}]).to_string();
    let path = format!("/fhir/R4/Communication/{}", own["id"].as_str().unwrap());
    assert_eq!(sharing.call("PATCH", &path, &patch).await.status, StatusCode::FORBIDDEN);
    // What once named her stays hers in its versions; the refusals stand in the record under her name.
    let admin = sharing.site.session(Role::PracticeAdmin).await;
    let record = sharing.site.get(&admin, &format!("/audit?patient={kept}&outcome=denied")).await.body;
    assert!(record.contains("AppointmentResponse"), "{record}");
    // Members who said nothing are exported all the same.
    let begun = sharing.call("GET", &format!("/fhir/R4/Group/{}/$export", sharing.group), "").await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.body);
    let place = begun.headers[header::CONTENT_LOCATION].to_str().unwrap().to_owned();
    let manifest: Value = serde_json::from_str(&sharing.call("GET", &place, "").await.body).unwrap();
    for file in manifest["output"].as_array().unwrap() {
        let lines = sharing.call("GET", file["url"].as_str().unwrap(), "").await.body;
        assert!(!lines.contains(SECRET), "{lines}");
    }
    let practice = sharing.site.session(Role::Clinician).await;
    for (kind, id) in all.iter().filter(|(kind, _)| matches!(*kind, "Appointment" | "Observation" | "Communication")) {
        let answer = sharing.site.get(&practice, &format!("/fhir/R4/{kind}/{id}")).await;
        assert_eq!(answer.status, StatusCode::OK, "the practice goes on: {kind}");
    }
}
