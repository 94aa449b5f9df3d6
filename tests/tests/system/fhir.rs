//! The FHIR side against things that were not written here: R4's own examples, and other people's clients.

use anyhow::{Context, Result, ensure};
use appliance::access::accounts::{self, AccountError, NewAccount};
use appliance::access::{Actor, Program, Role, sessions, smart};
use appliance::clock::Clock;
use appliance::store::{Expect, Mode, Store, StoreError, Tx, View};
use appliance::web::{self, Web};
use holdfast_tests::root;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Types of the examples that are written by the service alone, or are no records.
const NOT_KEPT: [&str; 4] = ["AuditEvent", "Binary", "OperationOutcome", "Parameters"];

/// Examples that R4's own definitions refuse: an element that is required is missing, an id has more than 64 characters, a
/// reference points to a type that the element does not allow.
const DEFECTIVE: [&str; 18] = [
    "DeviceMetric/example",
    "DeviceUseStatement/example",
    "ExampleScenario/example",
    "ImplementationGuide/fhir",
    "MedicationRequest/medrx0301",
    "Observation/clinical-gender",
    "Questionnaire/qs1",
    "SearchParameter/codesystem-extensions-CodeSystem-author",
    "SearchParameter/codesystem-extensions-CodeSystem-effective",
    "SearchParameter/codesystem-extensions-CodeSystem-end",
    "SearchParameter/codesystem-extensions-CodeSystem-keyword",
    "SearchParameter/codesystem-extensions-CodeSystem-workflow",
    "SearchParameter/questionnaireresponse-extensions-QuestionnaireResponse-item-subject",
    "SearchParameter/valueset-extensions-ValueSet-author",
    "SearchParameter/valueset-extensions-ValueSet-effective",
    "SearchParameter/valueset-extensions-ValueSet-end",
    "SearchParameter/valueset-extensions-ValueSet-keyword",
    "SearchParameter/valueset-extensions-ValueSet-workflow",
];

/// A tool that `tests/run` installs.
pub fn tools(name: &str) -> Result<PathBuf> {
    let tools = std::env::var_os("HOLDFAST_TOOLS").map_or_else(|| root().join(".tools"), Into::into);
    let folder = tools.join(name);
    ensure!(folder.exists(), "{} is missing: `./tests/run system` installs it", folder.display());
    Ok(folder)
}

/// The examples of R4, by type and id. The package holds R4's definitions as well: they are resources like others.
fn examples() -> Result<BTreeMap<(String, String), Value>> {
    let mut found = BTreeMap::new();
    for file in std::fs::read_dir(tools("fhir-r4/package")?)? {
        let path = file?.path();
        let text = std::fs::read_to_string(&path)?;
        let Ok(body) = serde_json::from_str::<Value>(&text) else { continue };
        if let (Some(kind), Some(id)) = (body["resourceType"].as_str(), body["id"].as_str()) {
            found.insert((kind.to_owned(), id.to_owned()), body);
        }
    }
    Ok(found)
}

/// Every patient that something refers to.
fn patients(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| patients(item, found)),
        Value::Object(element) => {
            let id = element.get("reference").and_then(Value::as_str).and_then(|text| text.strip_prefix("Patient/"));
            found.extend(id.map(|id| id.split('/').next().unwrap_or(id).to_owned()));
            element.values().for_each(|value| patients(value, found));
        }
        _ => {}
    }
}

/// Without what the server sets: the version and the time.
fn plain(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(meta) = body.get_mut("meta").and_then(Value::as_object_mut) {
        meta.remove("versionId");
        meta.remove("lastUpdated");
    }
    if body["meta"] == json!({}) {
        body.as_object_mut().map(|body| body.remove("meta"));
    }
    body
}

#[test]
fn the_examples_of_r4_are_put_and_read_back_equal() -> Result<()> {
    let examples = examples()?;
    ensure!(examples.len() > 5_000, "only {} examples", examples.len());
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), Clock::manual(1_700_000_000_000), Mode::New)?;
    let actor = Actor::program(Program::Import);
    let put = |kind: &str, id: &str, body: Value| {
        let (kind, id) = (kind.to_owned(), id.to_owned());
        store.write_blocking(&actor, move |tx: &mut Tx<'_>| tx.update(&kind, &id, body, Expect::Nothing))
    };
    // Who is referred to but not among the examples: a resource in nobody's chart is refused, so each is made first.
    let mut referred = BTreeSet::new();
    examples.values().for_each(|body| patients(body, &mut referred));
    referred.retain(|id| !examples.contains_key(&("Patient".to_owned(), id.clone())));
    for id in &referred {
        put("Patient", id, json!({ "resourceType": "Patient", "id": id, "name": [{ "text": "referred to" }] }))?;
    }
    let (mut equal, mut refused) = (0, BTreeMap::new());
    let (first, rest): (Vec<_>, Vec<_>) = examples.iter().partition(|((kind, _), _)| kind == "Patient");
    for ((kind, id), body) in first.into_iter().chain(rest) {
        if NOT_KEPT.contains(&kind.as_str()) {
            continue;
        }
        match put(kind, id, body.clone()) {
            Ok(_) => {
                let read = |view: &View<'_>| view.read(kind, id);
                let stored: Value = serde_json::from_str(&store.view_blocking::<_, StoreError, _>(&actor, read)?.body)?;
                ensure!(plain(&stored) == plain(body), "{kind}/{id} came back otherwise");
                equal += 1;
            }
            Err(StoreError::Invalid { what }) => drop(refused.insert(format!("{kind}/{id}"), what.to_string())),
            Err(other) => return Err(other).with_context(|| format!("{kind}/{id}")),
        }
    }
    println!("{equal} equal, {} patients made beside them", referred.len());
    let names: Vec<&str> = refused.keys().map(String::as_str).collect();
    ensure!(names == DEFECTIVE, "refused: {refused:#?}");
    let kept = examples.keys().filter(|(kind, _)| !NOT_KEPT.contains(&kind.as_str())).count();
    ensure!(equal + DEFECTIVE.len() == kept && equal > 5_260, "{equal} of {kept} came back");
    Ok(())
}

/// An open session: what a browser has after a login.
pub fn log_in(store: &Store, role: Role, token: &str, csrf: &str) -> Result<()> {
    let (token, csrf) = (token.to_owned(), csrf.to_owned());
    let now = store.clock().unix_ms() / 1000;
    let job = move |tx: &mut Tx<'_>| {
        let new = NewAccount {
            id: "clients",
            name: "clients",
            display: "Clients",
            role,
            practitioner: Some("clients"),
            password_hash: "!",
            totp_secret: "x",
            totp_step: None,
        };
        accounts::insert(tx.connection(), &new, now)?;
        let account = accounts::credentials(tx.connection(), "clients")?.ok_or(AccountError::UnknownUser)?.account;
        sessions::open(tx.connection(), &account, (&token, &csrf), "", now)
    };
    store.write_blocking::<_, AccountError, _>(&Actor::anonymous(), job).map_err(|error| anyhow::anyhow!("{error}"))
}

/// The program that asks for a token on somebody's behalf.
fn register(store: &Store) -> Result<()> {
    let job = |tx: &mut Tx<'_>| {
        let app = smart::Registration {
            id: "kit",
            name: "A client",
            kind: smart::Kind::Public,
            jwks: "",
            secret: "",
            scopes: "patient/*.cruds offline_access openid fhirUser",
            redirects: "https://kit.example/back",
            launch_url: "",
        };
        smart::register(tx.connection(), &app, tx.now_ms())
    };
    Ok(store.write_blocking::<_, StoreError, _>(&Actor::program(Program::CommandLine), job)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_other_people_work_with_it() -> Result<()> {
    let modules = tools("fhir-clients/node_modules")?;
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), Clock::system(), Mode::New)?;
    let (opened, token) = (store.clone(), "token-of-the-clients");
    let begin = move || log_in(&opened, Role::Clinician, token, "csrf-of-the-clients").and_then(|()| register(&opened));
    tokio::task::spawn_blocking(begin).await??;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("https://{}", listener.local_addr()?);
    let bases = vec![address.clone()];
    let settings = web::Settings {
        practice_name: "Clients".into(),
        practice_address: String::new(),
        practice_phone: String::new(),
        zone: chrono_tz::UTC,
        idle_lock_s: 40_000,
        bases: bases.clone(),
        portal: None,
        has_mail: true,
        downtime: None,
        look_back: None,
    };
    let routes = [appliance::fhir::http::routes(&store), appliance::fhir::smart::routes(&store, bases)].concat();
    let app = web::app(&Web::new(store.clone(), settings), routes);
    let base = format!("{address}/fhir/R4");
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()])?;
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, pair.cert.pem())?;
    std::fs::write(&key, pair.signing_key.serialize_pem())?;
    let tls = service::tls::server_config(&cert, &key, None)?;
    let limits = service::http::Limits::default();
    let server = tokio::spawn(service::http::serve(listener, Some(tls), app, limits, std::future::pending()));
    let out = tokio::process::Command::new("node")
        .arg(root().join("tests/fhir/clients.mjs"))
        .args([&base, &format!("{}={token}", sessions::COOKIE), "csrf-of-the-clients"])
        .arg(modules)
        // The certificate is this test's own.
        .env("NODE_TLS_REJECT_UNAUTHORIZED", "0")
        .output()
        .await
        .context("node")?;
    server.abort();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success() && said.contains("both clients are content"), "{said}");
    Ok(())
}
