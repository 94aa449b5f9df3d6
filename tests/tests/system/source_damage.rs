//! A document that rots on the server before the backup reads it: found when the snapshot is taken, named in the EMR to whom it
//! concerns, and blamed on no store.

use crate::clinic::Clinic;
use anyhow::{Context, Result, ensure};
use holdfast_tests::files;
use holdfast_tests::http::Visitor;
use serde_json::Value;
use std::fs;

fn kinds(status: &Value) -> Vec<&str> {
    status["alerts"].as_array().into_iter().flatten().filter_map(|alert| alert["kind"].as_str()).collect()
}

/// A drill's answer, whatever its verdict.
fn drill(clinic: &Clinic, store: &str) -> Result<Value> {
    let output = clinic.backupd_output(&["drill", "--store", store])?;
    let line = output.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).context("an answer")?;
    Ok(serde_json::from_slice(line)?)
}

#[test]
fn a_rotten_document_is_named_in_the_emr_and_blamed_on_no_store() -> Result<()> {
    let clinic = Clinic::make()?;
    clinic.run(&["init"])?;
    let doctor = clinic.user("doctor", "clinician")?;
    let admin = clinic.user("admin", "practice-admin")?;
    let desk = clinic.user("desk", "front-desk")?;
    let daemons = clinic.backup()?;
    let emr = clinic.serve()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let ca = fs::read(clinic.dir.join("cert.pem"))?;
    let chart = runtime.block_on(async {
        let chart = Visitor::sign_in(&ca, &desk).await?.register("Okonkwa", "Marguerite").await?;
        let visitor = Visitor::sign_in(&ca, &doctor).await?;
        visitor.upload(&chart, "Very private letter", b"of three lines, long enough to rot in the middle").await?;
        anyhow::Ok(chart)
    })?;
    clinic.backupd(&["snapshot"])?;
    let done = drill(&clinic, "one")?;
    ensure!(done["verdict"] == "pass", "{done}");

    let [file] = <[_; 1]>::try_from(files(&clinic.data().join("attachments"))).map_err(|f| anyhow::anyhow!("{f:?}"))?;
    let whole = fs::read(&file)?;
    let mut rotten = whole.clone();
    *rotten.last_mut().context("bytes")? ^= 1;
    fs::write(&file, rotten)?;
    let taken = clinic.backupd_output(&["snapshot"])?;
    ensure!(taken.status.code() == Some(3), "{taken:?}");
    let lines = String::from_utf8(taken.stdout)?;
    let taken: Value = serde_json::from_str(lines.lines().last().context("an event")?)?;
    ensure!(taken["partial"] == false && taken["source_damaged"] == true, "{taken}");
    let into = clinic.dir.join("back");
    let back = clinic.backupd_output(&["restore", "--into", into.to_str().context("a path")?])?;
    let told = String::from_utf8_lossy(&back.stdout);
    ensure!(back.status.code() == Some(3) && told.contains("\"source_damaged\":true"), "{back:?}");
    let done = drill(&clinic, "two")?;
    ensure!(done["verdict"] == "inconclusive", "{done}");
    let not_passed = done["not_passed"].to_string();
    ensure!(not_passed.contains("facts: not-run, source-damaged") && !not_passed.contains("object"), "{done}");
    let told = |line: &Value| line["event"] == "status" || line["event"] == "verifier-status";
    let lines: Vec<Value> = clinic.backupd(&["status"])?.into_iter().filter(told).collect();
    let open: Vec<&str> = lines.iter().flat_map(kinds).collect();
    ensure!(open.contains(&"source-damaged") && !open.contains(&"drill-failed"), "{open:?}");

    let page = runtime.block_on(async { Visitor::sign_in(&ca, &admin).await?.page("/audit").await })?;
    ensure!(page.contains("1 file is damaged on this server") && page.contains("Okonkwa"), "{page}");
    ensure!(page.contains(&chart) && !page.contains("Very private letter"), "whose it is, and not what it is: {page}");
    let log = fs::read_to_string(clinic.dir.join("appliance.log"))?;
    ensure!(!log.contains("Okonkwa") && !log.contains("Marguerite"), "{log}");

    fs::write(&file, whole)?;
    clinic.backupd(&["snapshot"])?;
    let done = drill(&clinic, "two")?;
    ensure!(done["verdict"] == "pass", "{done}");
    let page = runtime.block_on(async { Visitor::sign_in(&ca, &admin).await?.page("/audit").await })?;
    ensure!(!page.contains("damaged on this server"), "{page}");
    drop((emr, daemons));
    Ok(())
}
