//! The log of reports over folder stores that come and go.

#[path = "../report/tests/sample/mod.rs"]
mod sample;

use backup_engine::{NamedStore, StoreLocation};
use backup_report::{Approval, Decision, OwnerRole, ReportSigner, leaf_hash};
use backupd::reports::Reports;
use sample::{origin, report, signer};
use std::fs;
use std::path::Path;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path() {
            folder if folder.is_dir() => copy(&folder, &target),
            file => fs::write(target, fs::read(file).unwrap()).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_report_that_only_an_absent_store_knew_when_its_verifier_was_set_back_is_taken_up_when_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let store = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        NamedStore::new(name, StoreLocation::Folder { path }.open().unwrap(), true)
    };
    let state = dir.path().join("state");
    let add = async |stores: Vec<NamedStore>, numbers: &[u32]| {
        let reports = Reports::new(&state, origin(), signer(), stores);
        for n in numbers {
            reports.append(&report(*n).to_bytes()).await.unwrap();
        }
        reports.open().await.unwrap().as_ref().unwrap().leaves().to_vec()
    };
    let (one, two) = (store("one"), store("two"));
    add(vec![one.clone(), two.clone()], &[0, 1]).await;
    copy(&state, &dir.path().join("older"));
    // Told to somebody, and known to the first store alone: a report, and what its owner says of it.
    add(vec![one.clone()], &[2]).await;
    let told = report(2).to_bytes();
    let approval =
        Approval::create(&ReportSigner::from_seed(&[7; 32]), &told, Decision::Certified, OwnerRole::Owner, 1).unwrap();
    Reports::new(&state, origin(), signer(), vec![one.clone()]).append(&approval).await.unwrap();
    fs::remove_dir_all(&state).unwrap();
    copy(&dir.path().join("older"), &state);
    add(vec![two.clone()], &[3, 4]).await;
    // What no checkpoint shows is no entry, whatever its name says; however many there are.
    let made_up = report(9).to_bytes();
    for place in [3, 4] {
        let name = format!("log/entries/{place:012}-{}.json", hex(&leaf_hash(&made_up)));
        one.store.put(&name, made_up.clone().into()).await.unwrap();
    }
    for n in 100..200u32 {
        let name = format!("log/entries/000000000000-{}.json", hex(&leaf_hash(&n.to_le_bytes())));
        one.store.put(&name, made_up.clone().into()).await.unwrap();
    }
    let leaves = add(vec![one, two], &[5]).await;
    for n in 0..6 {
        assert!(leaves.contains(&leaf_hash(&report(n).to_bytes())), "report {n} is gone");
    }
    let at = |bytes: &[u8]| leaves.iter().position(|leaf| *leaf == leaf_hash(bytes));
    assert!(at(&approval) > at(&told), "the approval is gone, or stands before its report");
    assert!(at(&made_up).is_none() && leaves.len() == 7, "{}", leaves.len());
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
