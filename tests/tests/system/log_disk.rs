//! The disk behind a verifier's log of reports is full, at each page of an entry and its checkpoint.

use crate::sample::{origin, report, signer};
use anyhow::{Context, Result, ensure};
use backup_report::{Log, leaf_hash};
use holdfast_tests::disk::SmallDisk;

/// Whatever was acknowledged stands, wherever in an entry or its checkpoint the disk ended; with room again the same log goes on.
#[test]
fn a_full_disk_behind_the_log_of_reports_loses_nothing_that_was_acknowledged() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let disk = SmallDisk::mount(&temp.path().join("disk"), "size=256k")?;
    let folder = temp.path().join("disk/log");
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for room in (0..16u64).map(|pages| pages * 4096) {
        let mut log = Log::open(&folder, origin(), &signer())?;
        let filler = disk.fill(room)?;
        loop {
            let bytes = report(acknowledged.len() as u32 + refused).to_bytes();
            if log.append(&signer(), &bytes).is_err() {
                refused += 1;
                break;
            }
            acknowledged.push(leaf_hash(&bytes));
            ensure!(acknowledged.len() < 2000, "the disk is never full");
        }
        drop(log);
        std::fs::remove_file(filler)?;
        let log = Log::open(&folder, origin(), &signer()).context("with room again")?;
        ensure!(log.entries().all(|entry| entry.is_ok()), "an entry is torn");
        ensure!(acknowledged.iter().all(|leaf| log.leaves().contains(leaf)), "an acknowledged entry is gone");
        if log.size() * 8192 > 200 * 1024 {
            break;
        }
    }
    ensure!(refused > 2 && !acknowledged.is_empty(), "{refused} refused");
    Ok(())
}
