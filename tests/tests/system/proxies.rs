//! Somebody acts for two patients in the portal, with the real program and a browser.

use crate::clinic::{Clinic, browser_modules};
use anyhow::{Context, Result, ensure};
use holdfast_tests::root;
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::process::Command;

#[test]
fn a_mother_acts_for_her_children() -> Result<()> {
    let modules = browser_modules()?;
    let clinic = Clinic::make()?;
    clinic.settings(false, "")?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let file = clinic.dir.join("appliance.toml");
    let text = format!("portal_listen = \"127.0.0.1:{port}\"\n{}", fs::read_to_string(&file)?);
    fs::write(&file, text)?;
    clinic.run(&["init"])?;
    let desk = clinic.user("desk", "front-desk")?;
    let admin = clinic.user("admin", "practice-admin")?;
    let _emr = clinic.serve()?;
    let shots = root().join("target/screenshots");
    fs::create_dir_all(&shots)?;
    let input = json!({
        "name": "proxies", "url": clinic.url(), "portal": format!("https://localhost:{port}"), "shots": shots,
        "modules": modules, "desk": {"name": desk.name, "password": desk.password, "secret": desk.totp_secret},
        "admin": {"name": admin.name, "password": admin.password, "secret": admin.totp_secret},
    });
    let file = clinic.dir.join("browser.json");
    fs::write(&file, serde_json::to_vec(&input)?)?;
    let out = Command::new("node").arg(root().join("tests/browser/proxies.mjs")).arg(&file).output().context("node")?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success() && said.contains("she acted for whom she may"), "{said}");
    Ok(())
}
