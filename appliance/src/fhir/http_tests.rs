//! The wire: statuses, headers and bundles, from the handlers themselves.

use super::*;
use crate::access::Role;
use crate::clock::Clock;
use crate::store::Mode;
use serde_json::json;

struct Api {
    _dir: tempfile::TempDir,
    store: Store,
    actor: Actor,
}

impl Api {
    fn open() -> Api {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(crate::support::place(dir.path()), Clock::manual(1_700_000_000_000), Mode::New).unwrap();
        Api { _dir: dir, store, actor: Actor::staff("u", "u", Role::Clinician) }
    }

    async fn create(&self, kind: &str, body: Value) -> (StatusCode, HeaderMap, Value) {
        let (kind, body) = (Path(kind.to_owned()), Body::from(body.to_string()));
        told(create(State(self.store.clone()), self.actor.clone(), kind, HeaderMap::new(), body).await).await
    }

    async fn update(&self, kind: &str, id: &str, tag: Option<&str>, body: &Value) -> (StatusCode, HeaderMap, Value) {
        let mut headers = HeaderMap::new();
        tag.map(|tag| headers.insert(header::IF_MATCH, tag.parse().unwrap()));
        let path = Path((kind.to_owned(), id.to_owned()));
        told(update(State(self.store.clone()), self.actor.clone(), path, headers, Body::from(body.to_string())).await)
            .await
    }

    async fn search(&self, kind: &str, query: &str) -> (StatusCode, HeaderMap, Value) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "emr.example:8443".parse().unwrap());
        let (kind, query) = (Path(kind.to_owned()), RawQuery(Some(query.to_owned())));
        told(search(State(self.store.clone()), self.actor.clone(), kind, query, headers).await).await
    }
}

async fn told(answer: Result<Response, Outcome>) -> (StatusCode, HeaderMap, Value) {
    let (parts, body) = answer.into_response().into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn patient(family: &str) -> Value {
    json!({ "resourceType": "Patient", "name": [{ "family": family }] })
}

#[tokio::test]
async fn an_update_needs_the_version_it_replaces() {
    let api = Api::open();
    let (status, headers, mut body) = api.create("Patient", patient("Abel")).await;
    assert_eq!((status, headers[header::ETAG].to_str().unwrap()), (StatusCode::CREATED, "W/\"1\""));
    let id = body["id"].as_str().unwrap().to_owned();
    assert!(headers[header::LOCATION].to_str().unwrap().ends_with(&format!("/fhir/R4/Patient/{id}/_history/1")));
    body["gender"] = "female".into();
    for (tag, expected) in [
        (None, StatusCode::BAD_REQUEST),
        (Some("W/\"7\""), StatusCode::PRECONDITION_FAILED),
        (Some("seven"), StatusCode::BAD_REQUEST),
        (Some("W/\"1\""), StatusCode::OK),
        (Some("W/\"1\""), StatusCode::PRECONDITION_FAILED),
    ] {
        let (status, _, answer) = api.update("Patient", &id, tag, &body).await;
        assert_eq!(status, expected, "{tag:?}: {answer}");
        assert_eq!(answer["resourceType"] == "OperationOutcome", expected != StatusCode::OK);
    }
    let (status, _, answer) = api.update("Patient", "other", Some("W/\"2\""), &body).await;
    assert_eq!((status, answer["issue"][0]["expression"][0].as_str()), (StatusCode::BAD_REQUEST, Some("Patient.id")));
}

#[tokio::test]
async fn a_key_given_twice_and_a_control_character_are_refused_by_their_path() {
    let api = Api::open();
    for (body, path) in [
        (
            r#"{"resourceType":"Patient","name":[{"family":"Abel"}],"gender":"male","gender":"female"}"#,
            "Patient.gender",
        ),
        (r#"{"resourceType":"Patient","name":[{"family":"Ab\u0001el"}]}"#, "Patient.name[0].family"),
    ] {
        let kind = Path("Patient".to_owned());
        let answer =
            create(State(api.store.clone()), api.actor.clone(), kind, HeaderMap::new(), Body::from(body)).await;
        let (status, _, outcome) = told(answer).await;
        assert_eq!((status, &outcome["resourceType"]), (StatusCode::BAD_REQUEST, &json!("OperationOutcome")));
        assert_eq!(outcome["issue"][0]["expression"][0], path);
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let api = Api::open();
    for number in 0..7 {
        api.create("Patient", patient(&format!("Abel{number}"))).await;
    }
    let (mut query, mut seen) = ("name=abel&_count=3&_total=accurate".to_owned(), Vec::new());
    loop {
        let (status, _, bundle) = api.search("Patient", &query).await;
        assert_eq!((status, &bundle["total"]), (StatusCode::OK, &json!(7)));
        let entries = bundle["entry"].as_array().unwrap();
        seen.extend(entries.iter().map(|entry| entry["resource"]["name"][0]["family"].as_str().unwrap().to_owned()));
        let links = bundle["link"].as_array().unwrap();
        let Some(next) = links.iter().find(|link| link["relation"] == "next") else { break };
        let url = next["url"].as_str().unwrap();
        query = url.strip_prefix("https://emr.example:8443/fhir/R4/Patient?").unwrap().to_owned();
    }
    assert_eq!(seen, (0..7).map(|number| format!("Abel{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn refusals_are_outcomes_without_the_values_that_were_sent() {
    let api = Api::open();
    let (status, _, outcome) = api.search("Patient", "secretname=Mejia").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(!outcome.to_string().contains("Mejia"), "{outcome}");
    for body in [json!([]), json!({}), json!({ "resourceType": "Condition" }), patient("x")] {
        let (status, _, outcome) = api.create("Condition", body).await;
        assert_eq!((status, &outcome["resourceType"]), (StatusCode::BAD_REQUEST, &json!("OperationOutcome")));
    }
    let deep = (0..100).fold(json!("leaf"), |inner, _| json!({ "extension": [inner] }));
    let (status, ..) = api.create("Patient", json!({ "resourceType": "Patient", "extension": [deep] })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let large = "x".repeat(RESOURCE_BYTES_MAX);
    let (status, ..) = api.create("Patient", patient(&large)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_signed_note_is_not_changed_through_the_api() {
    let api = Api::open();
    let note = |text: &str, state: &str| {
        json!({ "resourceType": "DocumentReference", "status": "current", "docStatus": state,
                "content": [{ "attachment": { "data": text } }] })
    };
    let (_, _, stored) = api.create("DocumentReference", note("YQ==", "final")).await;
    let id = stored["id"].as_str().unwrap();
    for (text, state, expected) in [
        ("Yg==", "final", StatusCode::BAD_REQUEST),
        ("YQ==", "preliminary", StatusCode::BAD_REQUEST),
        ("YQ==", "entered-in-error", StatusCode::OK),
    ] {
        let mut body = note(text, state);
        body["id"] = id.into();
        assert_eq!(api.update("DocumentReference", id, Some("W/\"1\""), &body).await.0, expected, "{text} {state}");
    }
    // Nor by way of the error.
    for (text, state) in [("YQ==", "final"), ("Yg==", "entered-in-error")] {
        let mut body = note(text, state);
        body["id"] = id.into();
        let (status, ..) = api.update("DocumentReference", id, Some("W/\"2\""), &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text} {state}");
    }
    let path = Path(("DocumentReference".to_owned(), id.to_owned()));
    let deleted = interact::delete(State(api.store.clone()), api.actor.clone(), path, HeaderMap::new()).await;
    assert_eq!(told(deleted).await.0, StatusCode::FORBIDDEN, "no clinician deletes a note");
}

#[tokio::test]
async fn decimals_keep_the_digits_that_were_sent() {
    let api = Api::open();
    let body = r#"{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":1.10}}"#;
    let answer = create(
        State(api.store.clone()),
        api.actor.clone(),
        Path("Observation".to_owned()),
        HeaderMap::new(),
        Body::from(body),
    );
    let bytes = to_bytes(answer.await.into_response().into_body(), usize::MAX).await.unwrap();
    assert!(String::from_utf8(bytes.to_vec()).unwrap().contains(r#""value":1.10}"#));
}

#[tokio::test]
async fn a_search_takes_its_format_and_a_form() {
    let api = Api::open();
    for family in ["Abel", "Brandt"] {
        api.create("Patient", patient(family)).await;
    }
    let (status, _, found) = api.search("Patient", "_format=json&family=Abel").await;
    assert_eq!((status, found["entry"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)), "{found}");
    let (kind, query) = (Path("Patient".to_owned()), RawQuery(Some("_count=5".to_owned())));
    let body = Body::from("family=Brandt&_format=application%2Ffhir%2Bjson");
    let found = search_form(State(api.store.clone()), api.actor.clone(), kind, query, HeaderMap::new(), body).await;
    let (status, _, found) = told(found).await;
    let family = &found["entry"][0]["resource"]["name"][0]["family"];
    assert_eq!((status, family), (StatusCode::OK, &json!("Brandt")), "{found}");
    assert_eq!(found["entry"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn what_is_no_element_or_turns_a_name_around_is_refused_by_its_place() {
    let api = Api::open();
    for (body, place) in [
        (json!({ "resourceType": "Patient", "bogusField": 1 }), "Patient.bogusField"),
        (patient("Me\u{202e}jia"), "Patient.name"),
        (json!({ "resourceType": "Patient", "name": [{ "given": ["A\u{2066}b"] }] }), "Patient.name"),
    ] {
        let (status, _, outcome) = api.create("Patient", body).await;
        let told = outcome["issue"][0]["expression"][0].as_str();
        assert_eq!((status, told), (StatusCode::BAD_REQUEST, Some(place)), "{outcome}");
    }
    let body = json!({ "resourceType": "Patient", "birthDate": "1970-01-02", "_birthDate": { "id": "x" } });
    assert_eq!(api.create("Patient", body).await.0, StatusCode::CREATED);
    // Marks that right-to-left names need in mixed text are no controls.
    assert_eq!(api.create("Patient", patient("\u{200f}\u{05d0}\u{05d1}")).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn an_answer_has_the_shape_that_was_asked_for() {
    let api = Api::open();
    for number in 0..3 {
        let body = json!({ "resourceType": "Patient", "name": [{ "family": format!("Abel{number}") }], "gender": "female",
                           "text": { "status": "generated", "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\">x</div>" } });
        assert_eq!(api.create("Patient", body).await.0, StatusCode::CREATED);
    }
    let (_, _, bundle) = api.search("Patient", "_summary=count").await;
    assert_eq!((&bundle["total"], &bundle["entry"]), (&json!(3), &Value::Null));
    let (_, _, bundle) = api.search("Patient", "_count=0").await;
    assert_eq!((&bundle["total"], &bundle["entry"]), (&json!(3), &Value::Null));
    let (_, _, bundle) = api.search("Patient", "_elements=gender&_sort=-family&_count=2").await;
    let first = &bundle["entry"][0]["resource"];
    assert_eq!((&first["gender"], &first["name"], &first["text"]), (&json!("female"), &Value::Null, &Value::Null));
    assert_eq!(first["meta"]["tag"][0]["code"], "SUBSETTED");
    let next = bundle["link"][1]["url"].as_str().unwrap().to_owned();
    assert!(next.contains("_elements=gender") && next.contains("_sort=-family"), "{next}");
    let (_, _, bundle) = api.search("Patient", "_summary=text").await;
    assert!(bundle["entry"][0]["resource"]["text"].is_object());
    let (status, _, _) = api.search("Patient", "_summary=some").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_lenient_search_says_what_it_left_out() {
    let api = Api::open();
    api.create("Patient", patient("Abel")).await;
    let mut headers = HeaderMap::new();
    headers.insert("prefer", "respond-async, handling=lenient".parse().unwrap());
    let asked = RawQuery(Some("favourite=blue&family=Abel".to_owned()));
    let state = State(api.store.clone());
    let (status, _, bundle) =
        told(search(state, api.actor.clone(), Path("Patient".to_owned()), asked, headers.clone()).await).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(bundle["link"][0]["url"], "/fhir/R4/Patient?family=Abel");
    let modes: Vec<_> = bundle["entry"].as_array().unwrap().iter().map(|e| e["search"]["mode"].clone()).collect();
    assert_eq!(modes, ["match", "outcome"]);
    assert!(bundle["entry"][1]["resource"]["issue"][0]["diagnostics"].as_str().unwrap().contains("favourite"));
    // What is known but not understood is refused all the same.
    let asked = RawQuery(Some("birthdate=yesterday".to_owned()));
    let state = State(api.store.clone());
    let answer = told(search(state, api.actor.clone(), Path("Patient".to_owned()), asked, headers).await).await;
    assert_eq!(answer.0, StatusCode::BAD_REQUEST);
}
