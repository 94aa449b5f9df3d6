//! The EMR's data folder alone is put back to an older copy: the backup's state and the stores are those of today.

use crate::clinic::Clinic;
use anyhow::{Context, Result, ensure};
use holdfast_tests::http::Visitor;
use holdfast_tests::place::last;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Command;

/// Takes a snapshot that must be whole, and gives its id.
fn snapshot(clinic: &Clinic) -> Result<String> {
    let done = last(clinic.backupd(&["snapshot"])?, "snapshot-done")?;
    ensure!(done["state"] == "full" && done["partial"] == false, "{done}");
    Ok(done["id"].as_str().context("an id")?.to_owned())
}

/// What the open alerts `source-set-back` name.
fn set_back(clinic: &Clinic) -> Result<Vec<String>> {
    let status = last(clinic.backupd(&["status"])?, "status")?;
    let alerts = status["alerts"].as_array().context("alerts")?.iter();
    let named = alerts.filter(|alert| alert["kind"] == "source-set-back");
    Ok(named.filter_map(|alert| alert["subject"].as_str().map(str::to_owned)).collect())
}

fn doubts(clinic: &Clinic) -> Result<Value> {
    let mut text = String::new();
    UnixStream::connect(clinic.dir.join("h.sock"))?.read_to_string(&mut text)?;
    Ok(serde_json::from_str::<Value>(&text)?["doubts"].clone())
}

#[test]
fn records_that_alone_were_put_back_to_an_older_copy_are_told_until_somebody_has_looked() -> Result<()> {
    let clinic = Clinic::make()?;
    let serve = clinic.dir.join("serve.toml");
    let text = fs::read_to_string(&serve)?;
    fs::write(&serve, text.replace("quorum = 2\n", "quorum = 2\nhealth_socket = \"h.sock\"\n"))?;
    clinic.run(&["init"])?;
    let desk = clinic.user("desk", "front-desk")?;
    let daemons = clinic.backup()?;
    let emr = clinic.serve()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let ca = fs::read(clinic.dir.join("cert.pem"))?;
    runtime.block_on(async { Visitor::sign_in(&ca, &desk).await?.register("Okonkwa", "Marguerite").await })?;
    snapshot(&clinic)?;
    drop(emr);
    let older = clinic.dir.join("older");
    ensure!(Command::new("cp").arg("-a").args([&clinic.data(), &older]).status()?.success());

    let emr = clinic.serve()?;
    runtime.block_on(async {
        let front = Visitor::sign_in(&ca, &desk).await?;
        for given in ["Ada", "Berta", "Clara", "Dora", "Emma"] {
            front.register("Somebody", given).await?;
        }
        anyhow::Ok(())
    })?;
    let whole = snapshot(&clinic)?;
    ensure!(set_back(&clinic)?.is_empty(), "a restart of the EMR is nothing");
    drop(emr);
    fs::rename(clinic.data(), clinic.dir.join("today"))?;
    fs::rename(&older, clinic.data())?;

    let emr = clinic.serve()?;
    let without = snapshot(&clinic)?;
    ensure!(set_back(&clinic)? == [whole.as_str()] && without != whole);
    ensure!(doubts(&clinic)? == json!(["source-set-back"]), "no power-off is safe");
    // The records go on from what was put back, and that is no reason to tell it again or to be silent.
    snapshot(&clinic)?;
    ensure!(set_back(&clinic)? == [whole.as_str()]);
    let closed = clinic.backupd(&["looked-into", &whole])?;
    ensure!(closed.iter().any(|line| line["event"] == "alert-closed"), "{closed:?}");
    ensure!(set_back(&clinic)?.is_empty() && doubts(&clinic)? == json!([]));
    let newest = snapshot(&clinic)?;
    ensure!(set_back(&clinic)?.is_empty());

    // Today's records come back: what was entered beside them since is in the newest snapshot alone.
    drop(emr);
    fs::remove_dir_all(clinic.data())?;
    fs::rename(clinic.dir.join("today"), clinic.data())?;
    let emr = clinic.serve()?;
    snapshot(&clinic)?;
    ensure!(set_back(&clinic)? == [newest.as_str()]);
    drop((emr, daemons));
    Ok(())
}
