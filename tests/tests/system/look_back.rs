//! "As it was yesterday", with the real programs and a browser: the EMR, the writer, and the verifier that lends.

use crate::clinic::Clinic;
use anyhow::{Context, Result, bail, ensure};
use holdfast_tests::http::Visitor;
use holdfast_tests::{files, root};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_record_as_it_was_is_compared_and_copied_back() -> Result<()> {
    let modules = crate::clinic::browser_modules()?;
    let clinic = Clinic::make()?;
    clinic.settings(true, "verifier_socket = \"v.sock\"\n")?;
    clinic.run(&["init"])?;
    let [doctor, admin, desk] = [("doctor", "clinician"), ("admin", "practice-admin"), ("desk", "front-desk")]
        .map(|(name, role)| clinic.user(name, role));
    let (doctor, admin, desk) = (doctor?, admin?, desk?);
    let daemons = clinic.backup()?;
    let emr = clinic.serve()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let ca = fs::read(clinic.dir.join("cert.pem"))?;
    let front = runtime.block_on(Visitor::sign_in(&ca, &desk))?;
    let chart = runtime.block_on(front.register("Okonkwa-Lindqvist", "Marguerite"))?;
    runtime.block_on(front.register("Somebody", "Else"))?;
    drop(front);
    let shots = root().join("target/screenshots");
    fs::create_dir_all(&shots)?;
    let person =
        |user: &holdfast_tests::User| json!({"name": user.name, "password": user.password, "secret": user.totp_secret});
    let input = json!({
        "name": "look-back", "url": clinic.url(), "chart": chart, "shots": shots, "modules": modules,
        "doctor": person(&doctor), "admin": person(&admin), "desk": person(&desk),
    });
    let file = clinic.dir.join("browser.json");
    fs::write(&file, serde_json::to_vec(&input)?)?;
    let script = root().join("tests/browser/look_back.mjs");
    let mut child = Command::new("node").arg(script).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut tell = child.stdin.take().context("stdin")?;
    let mut over = false;
    for line in BufReader::new(child.stdout.take().context("stdout")?).lines() {
        match line?.as_str() {
            "snapshot" => drop(clinic.backupd(&["snapshot"])?),
            "lose-file" => {
                let attachments = files(&clinic.data().join("attachments"));
                ensure!(attachments.len() == 1, "{attachments:?}");
                fs::remove_file(&attachments[0])?;
            }
            "the look is over" => over = true,
            other => bail!("{other}"),
        }
        // At its end it listens no more.
        let _ = writeln!(tell, "done");
    }
    ensure!(child.wait()?.success() && over, "the browser's look ended early");

    // Nothing that was lent is left, neither here nor there; and what was copied back is in the next snapshot's proof.
    ensure!(!clinic.data().join("look-back").exists(), "the EMR keeps no borrowed database");
    ensure!(is_empty(&clinic.dir.join("state/verifier/lent"))?, "the verifier keeps nothing that it lent");
    clinic.backupd(&["snapshot"])?;
    let drill = clinic.backupd(&["drill", "--store", "two"])?;
    ensure!(drill.iter().any(|line| line["verdict"] == "pass"), "{drill:?}");
    drop((emr, daemons));
    Ok(())
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(!dir.exists() || fs::read_dir(dir)?.next().is_none())
}
