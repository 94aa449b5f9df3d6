//! The locked screen with the real program and a real browser.

use crate::clinic::{Clinic, browser_modules};
use anyhow::{Context, Result, ensure};
use holdfast_tests::root;
use serde_json::json;
use std::fs;
use std::process::Command;

#[test]
fn a_locked_screen_gives_nothing_away() -> Result<()> {
    let modules = browser_modules()?;
    let clinic = Clinic::make()?;
    clinic.run(&["init"])?;
    let users = [clinic.user("doctor", "clinician")?, clinic.user("desk", "front-desk")?];
    let _emr = clinic.serve()?;
    let shots = root().join("target/screenshots");
    fs::create_dir_all(&shots)?;
    let [doctor, desk] =
        users.map(|user| json!({"name": user.name, "password": user.password, "secret": user.totp_secret}));
    let input = json!({"name": "lock", "url": clinic.url(), "shots": shots, "modules": modules, "doctor": doctor, "desk": desk});
    let file = clinic.dir.join("browser.json");
    fs::write(&file, serde_json::to_vec(&input)?)?;
    let out = Command::new("node").arg(root().join("tests/browser/lock.mjs")).arg(&file).output().context("node")?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success() && said.contains("the screen stayed locked"), "{said}");
    Ok(())
}
