//! Security keys with the real program and a browser that has one.

use crate::clinic::{Clinic, browser_modules};
use anyhow::{Context, Result, ensure};
use holdfast_tests::root;
use serde_json::json;
use std::fs;
use std::process::Command;

#[test]
fn a_key_takes_the_place_of_the_code() -> Result<()> {
    let modules = browser_modules()?;
    let clinic = Clinic::make()?;
    clinic.run(&["init"])?;
    let doctor = clinic.user("doctor", "clinician")?;
    let _emr = clinic.serve()?;
    let shots = root().join("target/screenshots");
    fs::create_dir_all(&shots)?;
    let input = json!({
        "name": "keys", "url": clinic.url(), "shots": shots, "modules": modules,
        "doctor": {"name": doctor.name, "password": doctor.password, "secret": doctor.totp_secret},
    });
    let file = clinic.dir.join("browser.json");
    fs::write(&file, serde_json::to_vec(&input)?)?;
    let out = Command::new("node").arg(root().join("tests/browser/keys.mjs")).arg(&file).output().context("node")?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success() && said.contains("the keys are put away"), "{said}");
    Ok(())
}
