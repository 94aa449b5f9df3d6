//! The FHIR API keeps to its own description: Schemathesis sends the running service what openapi.json permits and what it
//! forbids, and compares every answer with it.

use crate::clinic::Clinic;
use crate::fhir;
use anyhow::{Context, Result, ensure};
use appliance::access::Role;
use appliance::clock::Clock;
use appliance::store::{Mode, Store};
use data_encoding::BASE64URL_NOPAD;
use holdfast_tests::place::ok;
use holdfast_tests::root;
use serde_json::json;
use std::fs;
use std::process::Command;

/// Requests to each operation in each of the ways in which they are made up.
const EXAMPLES: &str = "20";
/// The same requests at every run; the long form draws its own.
const SEED: &str = "1";

#[test]
fn the_api_keeps_to_its_description() -> Result<()> {
    let schemathesis = fhir::tools("schemathesis/bin/schemathesis")?;
    let clinic = Clinic::make()?;
    clinic.settings(false, "")?;
    clinic.run(&["init"])?;
    clinic.run(&["seed", "--patients", "5"])?;
    let program = register(&clinic)?;
    let (cookie, csrf) = ("session-of-an-administrator", "csrf-of-an-administrator");
    let store = Store::open(&clinic.data(), Clock::system(), Mode::Beside)?;
    fhir::log_in(&store, Role::PracticeAdmin, cookie, csrf)?;
    drop(store);
    let _emr = clinic.serve()?;
    let setting = |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    let out = Command::new(schemathesis)
        .arg("--config-file")
        .arg(root().join("tests/contract/schemathesis.toml"))
        .args(["run", "--no-color"])
        .arg(format!("{}/fhir/R4/openapi.json", clinic.url()))
        .args(["--max-examples", &setting("HOLDFAST_CONTRACT_EXAMPLES", EXAMPLES)])
        .args(["--seed", &setting("HOLDFAST_CONTRACT_SEED", SEED)])
        // Where it keeps what it needs meanwhile.
        .current_dir(&clinic.dir)
        .env("SCHEMATHESIS_HOOKS", root().join("tests/contract/hooks.py"))
        .env("CONTRACT_URL", clinic.url())
        .env("CONTRACT_CLIENT", program)
        .env("CONTRACT_KEY", clinic.dir.join("program.pem"))
        .env("CONTRACT_COOKIE", cookie)
        .env("CONTRACT_CSRF", csrf)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{said}");
    ensure!(out.status.success() && said.contains("passed"), "{said}");
    let log = fs::read_to_string(clinic.dir.join("appliance.log"))?;
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// Registers a program that acts by itself, with a key that openssl makes; gives its id.
fn register(clinic: &Clinic) -> Result<String> {
    let key = clinic.dir.join("program.pem");
    let mut make = Command::new("openssl");
    make.args(["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out"]).arg(&key);
    ok(make)?;
    let public = Command::new("openssl").args(["ec", "-pubout", "-outform", "DER", "-in"]).arg(&key).output()?.stdout;
    // The uncompressed point stands at the end.
    let point = public.len().checked_sub(96).and_then(|at| public.get(at..)).context("a public key")?;
    let (x, y) = point.split_at(48);
    let encoded = |bytes| BASE64URL_NOPAD.encode(bytes);
    let jwks = json!({ "keys": [{ "kty": "EC", "crv": "P-384", "kid": "k", "x": encoded(x), "y": encoded(y) }] });
    let file = clinic.dir.join("program.json");
    fs::write(&file, jwks.to_string())?;
    let file = file.to_string_lossy().into_owned();
    let told = clinic.run(&["app", "add", "A program", "--jwks", &file, "--scope", "system/*.cruds"])?;
    Ok(told.split_whitespace().last().context("the program's id")?.to_owned())
}
