//! The API over HTTP as a program uses it: what the capability statement names is there, and does what R4 says.

use crate::support;
use appliance::access::accounts::{self, AccountError, NewAccount};
use appliance::access::{Actor, Role, sessions};
use appliance::clock::Clock;
use appliance::fhir::http;
use appliance::store::{Mode, Store, Tx};
use appliance::web::{self, CSRF_HEADER, Web};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

const CSRF: &str = "the-form-token";

struct Api {
    _dir: tempfile::TempDir,
    clock: Clock,
    store: Store,
    app: Router,
    role: Role,
}

type Answer = (StatusCode, HeaderMap, Value);

impl Api {
    /// The service's own router, gate included, and an open session for every role.
    async fn open() -> Api {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_700_000_000_000);
        let store = Store::open(support::place(dir.path()), clock.clone(), Mode::New).unwrap();
        for role in Role::ALL {
            let job = move |tx: &mut Tx<'_>| log_in(tx.connection(), role);
            store.write(&Actor::anonymous(), job).await.unwrap();
        }
        let settings = web::Settings {
            practice_name: "x".into(),
            practice_address: String::new(),
            practice_phone: String::new(),
            zone: chrono_tz::UTC,
            idle_lock_s: 40_000,
            bases: Vec::new(),
            portal: None,
            has_mail: true,
            downtime: None,
            look_back: None,
        };
        let app = web::app(&Web::new(store.clone(), settings), http::routes(&store));
        Api { _dir: dir, clock, store, app, role: Role::Clinician }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let (status, headers, text) = self.send(method, path, headers, body).await;
        (status, headers, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn text(&self, path: &str) -> (StatusCode, HeaderMap, String) {
        self.send("GET", path, &[("accept", "application/fhir+ndjson")], None).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> (StatusCode, HeaderMap, String) {
        self.clock.set(self.clock.unix_ms() + 1);
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("/fhir/R4{path}"))
            .header(header::HOST, "emr.example")
            .header(header::COOKIE, format!("{}=token-{}", sessions::COOKIE, self.role))
            .header(CSRF_HEADER, CSRF);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let (parts, body) = self.app.clone().oneshot(request.body(body).unwrap()).await.unwrap().into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, parts.headers, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.ask("GET", path, &[], None).await;
        (status, body)
    }

    async fn create(&self, body: Value) -> Value {
        let path = format!("/{}", body["resourceType"].as_str().unwrap());
        let (status, _, stored) = self.ask("POST", &path, &[], Some(&body)).await;
        assert_eq!(status, StatusCode::CREATED, "{stored}");
        stored
    }
}

fn log_in(db: &appliance::db::Connection, role: Role) -> Result<(), AccountError> {
    let new = NewAccount {
        id: role.as_str(),
        name: role.as_str(),
        display: "Test Person",
        role,
        practitioner: None,
        password_hash: "!",
        totp_secret: "x",
        totp_step: None,
    };
    accounts::insert(db, &new, 1_700_000_000)?;
    let account = accounts::credentials(db, role.as_str())?.unwrap().account;
    sessions::open(db, &account, (&format!("token-{role}"), CSRF), "", 1_700_000_000)
}

fn patient(family: &str) -> Value {
    json!({ "resourceType": "Patient", "name": [{ "family": family, "given": ["Ada"] }], "birthDate": "1980-02-03",
            "gender": "female", "identifier": [{ "system": "urn:x", "value": family }] })
}

fn reference(stored: &Value) -> String {
    format!("{}/{}", stored["resourceType"].as_str().unwrap(), stored["id"].as_str().unwrap())
}

#[tokio::test]
async fn everything_that_the_capability_statement_names_is_there() {
    let mut api = Api::open().await;
    let (_, statement) = api.get("/metadata").await;
    let rest = &statement["rest"][0];
    let mut called = 0;
    for kind in rest["resource"].as_array().unwrap() {
        let name = kind["type"].as_str().unwrap();
        // The audit is an administrator's to see.
        let is_audit = name == "AuditEvent";
        api.role = if is_audit { Role::PracticeAdmin } else { Role::Clinician };
        for interaction in kind["interaction"].as_array().unwrap() {
            let (method, path, body) = match interaction["code"].as_str().unwrap() {
                "read" => ("GET", format!("/{name}/none"), None),
                "vread" => ("GET", format!("/{name}/none/_history/1"), None),
                "history-instance" => ("GET", format!("/{name}/none/_history"), None),
                "history-type" => ("GET", format!("/{name}/_history"), None),
                "search-type" => ("GET", format!("/{name}"), None),
                "create" => ("POST", format!("/{name}"), Some(json!({ "resourceType": "Nonsense" }))),
                "update" => ("PUT", format!("/{name}/none"), Some(json!({ "resourceType": name, "id": "other" }))),
                "patch" => ("PATCH", format!("/{name}/none"), Some(json!([]))),
                "delete" => ("DELETE", format!("/{name}/none"), None),
                other => panic!("{other} is not known to this test"),
            };
            called += 1;
            let (status, _, answer) = api.ask(method, &path, &[], body.as_ref()).await;
            let expected: &[u16] = match interaction["code"].as_str().unwrap() {
                "history-type" | "search-type" => &[200],
                "create" | "update" => &[400, 403],
                // There is no such record, or this role may not.
                _ => &[403, 404],
            };
            assert!(expected.contains(&status.as_u16()), "{method} {path}: {status} {answer}");
            assert_ne!(answer["issue"][0]["diagnostics"], "there is nothing at this address");
        }
        for param in kind["searchParam"].as_array().unwrap() {
            let value = match param["type"].as_str().unwrap() {
                "date" => "2020",
                "token" if is_audit => "0",
                "quantity" => "5",
                "reference" => "Patient/x",
                _ => "x",
            };
            let param = param["name"].as_str().unwrap();
            let queries = [format!("{param}={value}"), format!("{param}:missing=true"), format!("_sort=-{param}")];
            for query in queries.iter().take(if is_audit { 1 } else { 3 }) {
                let (status, answer) = api.get(&format!("/{name}?{query}")).await;
                assert_eq!(status, StatusCode::OK, "{name}?{query}: {answer}");
                called += 1;
            }
        }
        if is_audit {
            assert_eq!((&kind["operation"], &kind["searchInclude"]), (&Value::Null, &Value::Null));
            for query in ["_id=1", "_count=1", "_sort=-date", "_summary=true", "_elements=action"] {
                assert_eq!(api.get(&format!("/{name}?{query}")).await.0, StatusCode::OK, "{query}");
            }
            continue;
        }
        for (list, word) in [("searchInclude", "_include"), ("searchRevInclude", "_revinclude")] {
            for value in kind[list].as_array().unwrap() {
                let path = format!("/{name}?{word}={}", value.as_str().unwrap());
                assert_eq!(api.get(&path).await.0, StatusCode::OK, "{path}");
                called += 1;
            }
        }
        for operation in kind["operation"].as_array().unwrap() {
            let operation = operation["name"].as_str().unwrap();
            let (method, path, body) = match operation {
                "validate" => ("POST", format!("/{name}/$validate"), Some(json!({ "resourceType": name }))),
                "export" => ("GET", format!("/{name}/none/$export"), None),
                "everything" => ("GET", format!("/{name}/none/$everything"), None),
                "match" => ("POST", format!("/{name}/$match"), Some(patient("Abel"))),
                other => panic!("{other} is not known to this test"),
            };
            let (status, _, answer) = api.ask(method, &path, &[("prefer", "respond-async")], body.as_ref()).await;
            let expected =
                if ["everything", "export"].contains(&operation) { StatusCode::NOT_FOUND } else { StatusCode::OK };
            assert_eq!(status, expected, "{path}: {answer}");
        }
    }
    api.role = Role::Clinician;
    for param in rest["searchParam"].as_array().unwrap() {
        let value = match param["name"].as_str().unwrap() {
            "_sort" => "_id",
            "_include" => "Patient:general-practitioner",
            "_revinclude" => "Observation:patient",
            "_summary" => "true",
            "_total" => "accurate",
            _ => "1970",
        };
        let path = format!("/Patient?{}={value}", param["name"].as_str().unwrap());
        assert_eq!(api.get(&path).await.0, StatusCode::OK, "{path}");
    }
    assert!(called > 2_000, "{called}");
}

#[tokio::test]
async fn a_deleted_record_is_gone_its_versions_are_not_and_it_can_come_back() {
    let mut api = Api::open().await;
    api.role = Role::PracticeAdmin;
    let stored = api.create(json!({ "resourceType": "Location", "name": "Room 1", "status": "active" })).await;
    let path = format!("/{}", reference(&stored));
    let (status, ..) = api.ask("DELETE", &path, &[("if-match", "W/\"7\"")], None).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let (status, headers, _) = api.ask("DELETE", &path, &[("if-match", "W/\"1\"")], None).await;
    assert_eq!((status, headers["etag"].to_str().unwrap()), (StatusCode::NO_CONTENT, "W/\"2\""));
    assert_eq!(api.ask("DELETE", &path, &[], None).await.0, StatusCode::NO_CONTENT, "again changes nothing");
    assert_eq!(api.get(&path).await.0, StatusCode::GONE);
    assert_eq!(api.get(&format!("{path}/_history/2")).await.0, StatusCode::GONE);
    assert_eq!(api.get(&format!("{path}/_history/1")).await.1["name"], "Room 1");
    assert_eq!(api.get("/Location?name=room&_total=accurate").await.1["total"], 0);
    let (_, history) = api.get(&format!("{path}/_history")).await;
    let methods: Vec<_> = history["entry"].as_array().unwrap().iter().map(|e| e["request"]["method"].clone()).collect();
    assert_eq!(methods, ["DELETE", "POST"]);
    let mut again = stored.clone();
    again["name"] = "Room 2".into();
    let (status, _, back) = api.ask("PUT", &path, &[], Some(&again)).await;
    assert_eq!((status, &back["meta"]["versionId"]), (StatusCode::OK, &json!("3")));
    assert_eq!(api.get("/Location?name=room").await.1["entry"][0]["resource"]["name"], "Room 2");
    assert_eq!(api.get(&format!("{path}/_history")).await.1["entry"].as_array().unwrap().len(), 3);
    let Api { _dir: dir, app, store, .. } = api;
    drop((app, store));
    let facts = support::restored(dir.path()).facts().unwrap();
    assert_eq!((facts.resources["Location"], facts.history_rows), (1, 2));
}

#[tokio::test]
async fn nothing_clinical_and_nothing_that_is_referred_to_is_deleted() {
    let mut api = Api::open().await;
    let abel = reference(&api.create(patient("Abel")).await);
    let kinds = [
        json!({ "resourceType": "Condition", "subject": { "reference": abel } }),
        json!({ "resourceType": "AllergyIntolerance", "patient": { "reference": abel } }),
        json!({ "resourceType": "DocumentReference", "status": "current", "subject": { "reference": abel },
                "content": [{ "attachment": { "title": "x" } }] }),
    ];
    for body in kinds {
        let path = format!("/{}", reference(&api.create(body).await));
        for role in [Role::Clinician, Role::FrontDesk, Role::PracticeAdmin] {
            api.role = role;
            let (status, _, outcome) = api.ask("DELETE", &path, &[], None).await;
            assert_eq!(
                (status, &outcome["resourceType"]),
                (StatusCode::FORBIDDEN, &json!("OperationOutcome")),
                "{path}"
            );
        }
        let batch = json!({ "resourceType": "Bundle", "type": "transaction",
                            "entry": [{ "request": { "method": "DELETE", "url": path.trim_start_matches('/') } }] });
        assert_eq!(api.ask("POST", "", &[], Some(&batch)).await.0, StatusCode::FORBIDDEN);
        api.role = Role::Clinician;
        assert_eq!(api.get(&path).await.0, StatusCode::OK);
    }
    api.role = Role::PracticeAdmin;
    assert_eq!(api.ask("DELETE", &format!("/{abel}"), &[], None).await.0, StatusCode::CONFLICT);
    let organization = reference(&api.create(json!({ "resourceType": "Organization", "name": "Lab" })).await);
    api.create(
        json!({ "resourceType": "Location", "name": "Desk", "managingOrganization": { "reference": organization } }),
    )
    .await;
    assert_eq!(api.ask("DELETE", &format!("/{organization}"), &[], None).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn conditions_create_once_and_update_the_one_they_find() {
    let api = Api::open().await;
    let header = [("if-none-exist", "identifier=urn:x|Abel")];
    let (first, _, stored) = api.ask("POST", "/Patient", &header, Some(&patient("Abel"))).await;
    let (second, _, found) = api.ask("POST", "/Patient", &header, Some(&patient("Abel"))).await;
    assert_eq!((first, second, &stored["id"]), (StatusCode::CREATED, StatusCode::OK, &found["id"]));
    let mut changed = patient("Abel");
    changed["gender"] = "other".into();
    let (status, _, updated) = api.ask("PUT", "/Patient?identifier=urn:x%7CAbel", &[], Some(&changed)).await;
    assert_eq!((status, &updated["meta"]["versionId"], &updated["id"]), (StatusCode::OK, &json!("2"), &stored["id"]));
    let (status, ..) = api.ask("PUT", "/Patient?identifier=urn:x%7CBrandt", &[], Some(&patient("Brandt"))).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, ..) = api.ask("PUT", "/Patient?birthdate=1980-02-03", &[], Some(&patient("Brandt"))).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "two meet this condition");
    let (status, ..) = api.ask("PUT", "/Patient", &[], Some(&patient("Brandt"))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "no condition is none that all meet");
}

#[tokio::test]
async fn a_patch_is_carried_out_whole_or_not_at_all() {
    let api = Api::open().await;
    let path = format!("/{}", reference(&api.create(patient("Abel")).await));
    let json_patch = [("content-type", "application/json-patch+json")];
    let operations = json!([
        { "op": "test", "path": "/gender", "value": "female" },
        { "op": "replace", "path": "/gender", "value": "other" },
        { "op": "add", "path": "/name/0/given/-", "value": "Bea" },
    ]);
    let (status, _, patched) = api.ask("PATCH", &path, &json_patch, Some(&operations)).await;
    assert_eq!(
        (status, &patched["gender"], &patched["name"][0]["given"][1]),
        (StatusCode::OK, &json!("other"), &json!("Bea"))
    );
    for (operations, expected) in [
        (json!([{ "op": "replace", "path": "/gender", "value": "blue" }]), "Patient.gender"),
        (
            json!([{ "op": "remove", "path": "/birthDate" }, { "op": "test", "path": "/gender", "value": "male" }]),
            "[1]",
        ),
        (json!([{ "op": "replace", "path": "/id", "value": "x" }]), "Patient.id"),
    ] {
        let (status, _, outcome) = api.ask("PATCH", &path, &json_patch, Some(&operations)).await;
        assert_eq!((status, &outcome["issue"][0]["expression"][0]), (StatusCode::BAD_REQUEST, &json!(expected)));
    }
    assert_eq!(api.get(&path).await.1["birthDate"], "1980-02-03");
    let (status, ..) = api.ask("PATCH", &path, &[("if-match", "W/\"1\"")], Some(&json!([]))).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_batch_answers_each_entry_by_itself() {
    let api = Api::open().await;
    let stored = api.create(patient("Abel")).await;
    let entry = |method: &str, url: &str, body: Option<Value>| {
        let mut entry = json!({ "request": { "method": method, "url": url } });
        if let Some(body) = body {
            entry["resource"] = body;
        }
        entry
    };
    let batch = json!({ "resourceType": "Bundle", "type": "batch", "entry": [
        entry("GET", &reference(&stored), None),
        entry("POST", "Patient", Some(patient("Brandt"))),
        entry("POST", "Patient", Some(json!({ "resourceType": "Patient", "gender": "blue" }))),
        entry("GET", "Patient?family=bra", None),
        entry("DELETE", &reference(&stored), None),
        entry("GET", "Nonsense/1", None),
    ]});
    let (status, _, answer) = api.ask("POST", "", &[], Some(&batch)).await;
    assert_eq!((status, &answer["type"]), (StatusCode::OK, &json!("batch-response")));
    let statuses: Vec<_> =
        answer["entry"].as_array().unwrap().iter().map(|e| e["response"]["status"].clone()).collect();
    assert_eq!(statuses, ["200 OK", "201 Created", "400 Bad Request", "200 OK", "403 Forbidden", "403 Forbidden"]);
    assert_eq!(answer["entry"][0]["resource"]["id"], stored["id"]);
    assert_eq!(answer["entry"][2]["response"]["outcome"]["issue"][0]["expression"][0], "Patient.gender");
    assert_eq!(answer["entry"][3]["resource"]["entry"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn histories_page_and_everything_is_one_patient_alone() {
    let api = Api::open().await;
    let (abel, other) = (api.create(patient("Abel")).await, api.create(patient("Other")).await);
    for number in 0..7 {
        for whose in [&abel, &other] {
            api.create(json!({ "resourceType": "Condition", "subject": { "reference": reference(whose) },
                               "note": [{ "text": format!("n{number}") }] }))
                .await;
        }
    }
    let mut seen = Vec::new();
    let mut path = "/Condition/_history?_count=4".to_owned();
    loop {
        let (_, page) = api.get(&path).await;
        seen.extend(page["entry"].as_array().unwrap().iter().map(|e| e["resource"]["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["link"].as_array().unwrap().iter().find(|link| link["relation"] == "next") else { break };
        path = next["url"].as_str().unwrap().strip_prefix("https://emr.example/fhir/R4").unwrap().to_owned();
    }
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (14, 14));
    let mut path = format!("/{}/$everything?_count=3", reference(&abel));
    let mut found = Vec::new();
    loop {
        let (status, page) = api.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        found.extend(page["entry"].as_array().unwrap().iter().map(|e| e["resource"].clone()));
        let Some(next) = page["link"].as_array().unwrap().iter().find(|link| link["relation"] == "next") else { break };
        path = next["url"].as_str().unwrap().strip_prefix("https://emr.example/fhir/R4").unwrap().to_owned();
    }
    assert_eq!(found.len(), 8);
    let own = reference(&abel);
    assert!(found.iter().all(|r| r["id"] == abel["id"] || r["subject"]["reference"] == own.as_str()));
}

#[tokio::test]
async fn a_match_is_graded_by_what_agrees() {
    let api = Api::open().await;
    let mut one = patient("Mejía");
    one["identifier"] = json!([{ "system": "urn:mrn", "value": "42" }]);
    one["telecom"] = json!([{ "system": "phone", "value": "030 1234567" }]);
    api.create(one).await;
    api.create(patient("Brandt")).await;
    let grade = async |sought: Value| {
        let (status, _, bundle) = api.ask("POST", "/Patient/$match", &[], Some(&sought)).await;
        assert_eq!(status, StatusCode::OK, "{bundle}");
        let first = &bundle["entry"][0];
        (first["resource"]["name"][0]["family"].clone(), first["search"]["extension"][0]["valueCode"].clone())
    };
    let name = json!([{ "family": "Mejia", "given": ["Ada"] }]);
    let by_name = json!({ "resourceType": "Patient", "name": name, "birthDate": "1980-02-03", "gender": "female" });
    // Many share a name and a birth date.
    assert_eq!(grade(by_name.clone()).await, (json!("Mejía"), json!("probable")));
    let mut sure = by_name;
    sure["telecom"] = json!([{ "system": "phone", "value": "030-1234567" }]);
    assert_eq!(grade(sure).await, (json!("Mejía"), json!("certain")));
    let by_number = json!({ "resourceType": "Patient", "identifier": [{ "system": "urn:mrn", "value": "42" }] });
    let wrapped = json!({ "resourceType": "Parameters", "parameter": [
        { "name": "resource", "resource": by_number }, { "name": "onlyCertainMatches", "valueBoolean": true } ]});
    assert_eq!(grade(wrapped).await, (json!("Mejía"), json!("certain")));
    let changed = |name: Value, birth: &str| json!({ "resourceType": "Patient", "name": [name], "birthDate": birth, "gender": "female" });
    for alike in [
        changed(json!({ "family": "Mejias", "given": ["Aida"] }), "1980-02-03"),
        changed(json!({ "family": "Ada", "given": ["Mejia"] }), "1980-02-03"),
        changed(json!({ "family": "Mejia", "given": ["Ada"] }), "1980-02-04"),
        changed(json!({ "family": "Mejia", "given": ["Ada"] }), "1980-03-02"),
    ] {
        let found = grade(alike.clone()).await;
        assert!(
            found.0 == "Mejía" && ["probable", "possible"].iter().any(|grade| found.1 == *grade),
            "{alike} {found:?}"
        );
    }
    let other = changed(json!({ "family": "Mejia", "given": ["Ada"] }), "1991-12-24");
    assert_eq!(grade(other).await, (Value::Null, Value::Null), "another birth date is another person");
}

#[tokio::test]
async fn an_export_is_the_group_as_it_was_when_it_was_asked_for() {
    let mut api = Api::open().await;
    let (abel, brandt, other) =
        (api.create(patient("Abel")).await, api.create(patient("Brandt")).await, api.create(patient("Other")).await);
    let condition = |whose: &Value, text: &str| json!({ "resourceType": "Condition", "subject": { "reference": reference(whose) }, "code": { "text": text } });
    let mut first = api.create(condition(&abel, "before")).await;
    for whose in [&brandt, &other] {
        api.create(condition(whose, "before")).await;
    }
    let member = |whose: &Value| json!({ "entity": { "reference": reference(whose) } });
    let group = json!({ "resourceType": "Group", "type": "person", "actual": true, "member": [member(&abel), member(&brandt)] });
    let place = format!("/{}/$export", reference(&api.create(group).await));
    assert_eq!(api.get(&place).await.0, StatusCode::BAD_REQUEST, "an export is not waited for");
    let place = format!("{place}?_type=Condition,Patient");
    let (status, headers, _) = api.ask("GET", &place, &[("prefer", "respond-async")], None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let job =
        headers["content-location"].to_str().unwrap().strip_prefix("https://emr.example/fhir/R4").unwrap().to_owned();
    // What changes afterwards is no part of it.
    first["code"]["text"] = "after".into();
    let path = format!("/{}", reference(&first));
    assert_eq!(api.ask("PUT", &path, &[("if-match", "W/\"1\"")], Some(&first)).await.0, StatusCode::OK);
    api.create(condition(&abel, "after")).await;
    let (status, manifest) = api.get(&job).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(manifest["request"], format!("https://emr.example/fhir/R4{place}"), "what was asked");
    let files = manifest["output"].as_array().unwrap();
    let mut seen = Vec::new();
    for file in files {
        let path = file["url"].as_str().unwrap().strip_prefix("https://emr.example/fhir/R4").unwrap();
        let (status, headers, text) = api.text(path).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, "application/fhir+ndjson"));
        for line in text.lines() {
            let resource: Value = serde_json::from_str(line).unwrap();
            seen.push((resource["resourceType"].to_string(), resource["code"]["text"].to_string()));
        }
    }
    seen.sort();
    let told = |kind: &str, text: Value| (json!(kind).to_string(), text.to_string());
    let expected = [
        told("Condition", json!("before")),
        told("Condition", json!("before")),
        told("Patient", Value::Null),
        told("Patient", Value::Null),
    ];
    assert_eq!(seen, expected);
    api.role = Role::FrontDesk;
    assert_eq!(api.get(&job).await.0, StatusCode::NOT_FOUND, "an export is its owner's");
    assert_eq!(api.ask("GET", &place, &[("prefer", "respond-async")], None).await.0, StatusCode::FORBIDDEN);
    api.role = Role::Clinician;
    assert_eq!(api.ask("DELETE", &job, &[], None).await.0, StatusCode::ACCEPTED);
    assert_eq!(api.get(&job).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_openapi_description_is_the_route_table() {
    let api = Api::open().await;
    let (_, description) = api.get("/openapi.json").await;
    let mut described = 0;
    for route in http::routes(&api.store) {
        let operation = &description["paths"][route.path][route.method.as_str().to_lowercase()];
        let named = operation["parameters"].as_array().unwrap().iter().filter(|told| told["in"] == "path").count();
        assert_eq!(named, route.path.matches('{').count(), "{} {}", route.method.as_str(), route.path);
        described += 1;
    }
    let methods = description["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len());
    assert_eq!(methods.sum::<usize>(), described, "no route is described that is not there");
}

/// What Schemathesis found: it was let through unread.
#[tokio::test]
async fn whose_a_file_is_and_what_is_validated_must_be_said_rightly() {
    let api = Api::open().await;
    let words = json!("a note of plain text");
    for (context, status) in
        [("", 400), ("Patient", 400), ("Patient/", 400), ("Patient/a b", 400), ("Observation/1", 400)]
    {
        let asked = api.ask("POST", "/Binary", &[("x-security-context", context)], Some(&words)).await;
        assert_eq!((asked.0.as_u16(), &asked.2["issue"][0]["expression"][0]), (status, &json!("X-Security-Context")));
    }
    assert_eq!(api.ask("POST", "/Binary", &[], Some(&words)).await.0, StatusCode::CREATED);
    let patient = json!({ "resourceType": "Patient" });
    for (path, status) in [
        ("/Patient/$validate", 200),
        ("/Patient/one/$validate", 200),
        ("/Nonsense/$validate", 404),
        ("/Nonsense/one/$validate", 404),
        ("/Patient/no_id/$validate", 400),
    ] {
        assert_eq!(api.ask("POST", path, &[], Some(&patient)).await.0.as_u16(), status, "{path}");
    }
}
