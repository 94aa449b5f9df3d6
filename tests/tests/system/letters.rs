//! Letters, PDFs and co-signatures with the real program and a real browser.

use crate::clinic::{Clinic, browser_modules};
use anyhow::{Context, Result, ensure};
use holdfast_tests::root;
use serde_json::json;
use std::fs;
use std::process::Command;

#[test]
fn what_leaves_the_practice_is_whole_and_named() -> Result<()> {
    let modules = browser_modules()?;
    let clinic = Clinic::make()?;
    let settings = clinic.dir.join("appliance.toml");
    let head = "practice_name = \"Clinic on Elm Street\"\npractice_address = \"Elm Street 1\\nSpringfield\"\n\
                practice_phone = \"+1 555 010 2000\"\n";
    fs::write(&settings, format!("{head}{}", fs::read_to_string(&settings)?))?;
    clinic.run(&["init"])?;
    let people =
        [("doctor", "clinician"), ("senior", "clinician"), ("desk", "front-desk"), ("admin", "practice-admin")];
    let users = people.map(|(name, role)| clinic.user(name, role));
    let _emr = clinic.serve()?;
    let shots = root().join("target/screenshots");
    fs::create_dir_all(&shots)?;
    let pdf = clinic.dir.join("consent.pdf");
    let mut input = json!({"name": "letters", "url": clinic.url(), "shots": shots, "modules": modules, "pdf": pdf});
    for user in users {
        let user = user?;
        // The name that is shown is the login name, where no other was given.
        let told =
            json!({"name": user.name, "display": user.name, "password": user.password, "secret": user.totp_secret});
        input[user.name.as_str()] = told;
    }
    let file = clinic.dir.join("browser.json");
    fs::write(&file, serde_json::to_vec(&input)?)?;
    let out = Command::new("node").arg(root().join("tests/browser/letters.mjs")).arg(&file).output().context("node")?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success() && said.contains("the letters are out"), "{said}");
    let bytes = fs::read(&pdf)?;
    let printed = lopdf::Document::load_mem(&bytes)?;
    let words = printed.extract_text(&printed.get_pages().keys().copied().collect::<Vec<_>>())?;
    for said in
        ["Clinic on Elm Street", "Zgoda na zdjęcia", "Zgadzam się na zdjęcia.", "Съёмка.", "Ναι.", "Żółkiewska", "□"]
    {
        ensure!(words.contains(said), "the PDF says {said}: {words}");
    }
    ensure!(bytes.len() < 100_000, "{} bytes", bytes.len());
    Ok(())
}
