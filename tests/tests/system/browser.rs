//! A day in the practice in a real browser: log in, register, book, write and sign a note, take a backup from the console,
//! open the report, and look at every page.

use anyhow::{Context, Result, ensure};
use holdfast_tests::{Practice, root};
use serde_json::json;
use std::process::Command;

#[test]
fn a_day_in_the_practice() -> Result<()> {
    let tools = std::env::var_os("HOLDFAST_TOOLS").map_or_else(|| root().join(".tools"), Into::into);
    let modules = tools.join("browser/node_modules");
    for tool in ["playwright-core", "axe-core"] {
        ensure!(modules.join(tool).exists(), "{tool} is missing: run `./tests/run system`");
    }
    let practice = Practice::start(10)?;
    let user = |name: &str| -> Result<serde_json::Value> {
        let user = practice.user(name)?;
        Ok(json!({"name": user.name, "password": user.password, "secret": user.totp_secret, "url": user.url}))
    };
    let shots = root().join("target/screenshots");
    std::fs::create_dir_all(&shots)?;
    let input = json!({
        "desk": user("desk")?, "doctor": user("doctor")?, "admin": user("admin")?,
        "patient": user("patient@example.org")?, "owner": user("owner")?, "it": user("it")?, "hands": user("hands")?, "auditor": user("auditor")?,
        "health": format!("https://localhost:{}", practice.port("agent")?),
        "shots": shots, "modules": modules,
    });
    let file = practice.dir.join("browser.json");
    std::fs::write(&file, serde_json::to_vec(&input)?)?;
    let out = Command::new("node").arg(root().join("tests/browser/day.mjs")).arg(&file).output().context("node")?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success() && said.contains("the day is over"), "{said}");
    Ok(())
}
