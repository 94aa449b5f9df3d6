//! Pruning one repository with the real program: what no rule keeps goes, the rest restores, and a practice is refused.

use anyhow::{Result, ensure};
use holdfast_tests::files;
use holdfast_tests::place::{Place, describe, fails, noise, ok};
use holdfast_tests::servers::{S3_KEY, S3Server};
use std::fs;

const LAST: [&str; 3] = ["prune", "--keep-last", "1"];

/// Four snapshots with much of their own each.
fn history() -> Result<Place> {
    let place = Place::made()?;
    for n in 1..=4 {
        fs::write(place.source().join("changes"), noise(n, 2_000_000))?;
        fs::write(place.source().join(format!("stays-{n}")), noise(100 + n, 100_000))?;
        place.snapshot(&format!("t{n}"))?;
    }
    Ok(place)
}

fn bytes(place: &Place) -> Result<u64> {
    files(&place.repo()).iter().map(|file| Ok(file.metadata()?.len())).sum()
}

fn tags(place: &Place) -> Result<Vec<String>> {
    let listed = place.json(&["snapshots"])?;
    let rows = listed[0]["snapshots"].as_array().cloned().unwrap_or_default();
    Ok(rows.iter().filter_map(|row| row["tag"].as_str().map(str::to_owned)).collect())
}

#[test]
fn what_no_rule_keeps_goes_and_the_rest_restores() -> Result<()> {
    let place = history()?;
    let (before, whole) = (bytes(&place)?, describe(&place.source(), true)?);
    let shown = ok(place.backupd(&[&LAST[..], &["--dry-run"]].concat()))?;
    ensure!(shown.matches("GOES").count() == 3 && shown.contains("--keep-last 1; newest"), "{shown}");
    ensure!(bytes(&place)? == before, "a dry run has changed something");
    // Announced, with a day of grace that nothing shortens; a further run says what it waits for.
    let waiting = history()?;
    ensure!(ok(waiting.backupd(&LAST))?.contains("nothing is deleted yet"));
    waiting.snapshot("t5")?;
    for more in [&[][..], &["--now"]] {
        ensure!(ok(waiting.backupd(&[&LAST[..], more].concat()))?.contains("waits until"));
    }
    ensure!(tags(&waiting)?.len() == 5);
    // Whoever knows that no other machine writes here announces without a grace.
    let done = ok(place.backupd(&[&LAST[..], &["--now"]].concat()))?;
    ensure!(done.contains("objects deleted"), "{done}");
    ensure!(tags(&place)? == ["t4"], "{:?}", tags(&place)?);
    ensure!(bytes(&place)? < before / 2, "{} of {before} bytes are left", bytes(&place)?);
    ok(place.backupd(&["verify", "--read-data"]))?;
    let into = place.path("back");
    ok(place.backupd(&["restore", "--tag", "t4", "--into", into.to_str().unwrap_or_default()]))?;
    ensure!(describe(&into, true)? == whole, "what came back is not what was taken");
    place.snapshot("t5")?;
    ok(place.backupd(&["verify", "--read-data"]))?;
    ensure!(ok(place.backupd(&["prune"]))?.contains("nothing to delete"), "without rules everything stays");
    Ok(())
}

/// One tombstone stands for the three snapshots, under a name that this server keeps.
#[test]
fn a_run_of_snapshots_goes_from_a_bucket_too() -> Result<()> {
    let (place, server) = (Place::new()?, S3Server::start("practice")?);
    let run = |args: &[&str]| {
        let mut command = place.bare(&args[..1]);
        command.args(["--repo", "s3://practice"]).args(&args[1..]).env("AWS_ENDPOINT_URL", &server.url);
        command.env("AWS_ACCESS_KEY_ID", S3_KEY.0).env("AWS_SECRET_ACCESS_KEY", S3_KEY.1).env("AWS_REGION", "test");
        ok(command)
    };
    run(&["init"])?;
    for (n, tag) in (1..).zip(["t1", "t2", "t3", "t4"]) {
        fs::write(place.source().join("changes"), noise(n, 200_000))?;
        run(&["snapshot", "--tag", tag, "."])?;
    }
    let done = run(&[&LAST[..], &["--now"]].concat())?;
    ensure!(done.contains("objects deleted"), "{done}");
    let listed = run(&["snapshots"])?;
    ensure!(listed.contains("t4") && !["t1", "t2", "t3"].iter().any(|tag| listed.contains(tag)), "{listed}");
    run(&["snapshot", "--tag", "t5", "."])?;
    run(&["verify", "--read-data"])?;
    Ok(())
}

#[test]
fn one_person_alone_shrinks_no_practices_history() -> Result<()> {
    let place = history()?;
    fs::create_dir(place.repo().join("log"))?;
    fs::write(place.repo().join("log/checkpoint-000000000001"), "a practice's restore reports")?;
    let before = bytes(&place)?;
    fails(place.backupd(&[&LAST[..], &["--now"]].concat()), 2, &["a store of a practice", "--dry-run"])?;
    ok(place.backupd(&[&LAST[..], &["--dry-run"]].concat()))?;
    ensure!(bytes(&place)? == before && tags(&place)?.len() == 4);
    Ok(())
}
