//! Restoring over what is there: only what differs is written, and a restore that was killed is simply run again.

use crate::practice::{Practice, describe, fill, noise};
use backup_engine::{ErrorKind, NoProgress, RestoreOutcome, RestoreRequest, Result, SnapshotId, restore};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

const NOTE: &str = ".holdfast-restore-unfinished";

async fn taken() -> (Practice, SnapshotId) {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    let source = practice.source();
    fs::write(source.join("large"), noise(3, 5_000_000)).unwrap();
    fs::write(source.join("one"), b"shared").unwrap();
    fs::hard_link(source.join("one"), source.join("letters/two")).unwrap();
    std::os::unix::fs::symlink("one", source.join("link")).unwrap();
    let sparse = File::create(source.join("sparse")).unwrap();
    sparse.write_all_at(b"ends", 3_000_000).unwrap();
    sparse.set_len(40_000_005).unwrap();
    let id = practice.snapshot().await.id;
    (practice, id)
}

fn into(practice: &Practice) -> PathBuf {
    practice.dir.path().join("into")
}

async fn run(practice: &Practice, id: SnapshotId, overwrite: bool) -> Result<RestoreOutcome> {
    let request = RestoreRequest { into: into(practice), overwrite, ..RestoreRequest::default() };
    restore(&practice.env, &practice.made.open, &practice.stores[0], id, request, &NoProgress).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_is_written_and_nothing_else_is_removed() {
    let (practice, id) = taken().await;
    let back = into(&practice).join("files");
    let first = run(&practice, id, false).await.unwrap();
    let wanted = describe(&practice.source());
    let inode = |name: &str| fs::metadata(back.join(name)).unwrap().ino();
    let kept = (inode("scan.bin"), inode("large"));
    let again = run(&practice, id, true).await.unwrap();
    assert_eq!((again.bytes, again.bytes_kept), (0, first.bytes), "what is right is not written again");

    let large = File::options().write(true).open(back.join("large")).unwrap();
    large.write_all_at(b"changed", 2_000_000).unwrap();
    fs::write(back.join("scan.bin"), noise(7, 700_000)).unwrap();
    fs::remove_file(back.join("empty")).unwrap();
    fs::create_dir(back.join("empty")).unwrap();
    fs::remove_file(back.join("link")).unwrap();
    fs::write(back.join("link"), b"a file now").unwrap();
    fs::remove_file(back.join("letters/two")).unwrap();
    fs::write(back.join("letters/two"), b"shared no more").unwrap();
    fs::write(back.join("not in the snapshot"), b"stays").unwrap();
    // Another name, outside of the restored tree, must keep what it has.
    let elsewhere = practice.dir.path().join("elsewhere");
    fs::hard_link(back.join("letters/2026/letter-3.txt"), &elsewhere).unwrap();
    fs::write(&elsewhere, b"theirs").unwrap();
    let sparse = File::options().write(true).open(back.join("sparse")).unwrap();
    sparse.write_all_at(b"in the hole", 10_000_000).unwrap();
    sparse.set_len(1 << 26).unwrap();
    rustix::fs::setxattr(back.join("large"), "user.extra", b"x", rustix::fs::XattrFlags::empty()).unwrap();

    let repaired = run(&practice, id, true).await.unwrap();
    assert!(repaired.bytes < 1_500_000, "{repaired:?}");
    assert_eq!(repaired.bytes + repaired.bytes_kept, first.bytes);
    assert_eq!(fs::read(back.join("not in the snapshot")).unwrap(), b"stays");
    assert_eq!(fs::read(&elsewhere).unwrap(), b"theirs");
    fs::remove_file(back.join("not in the snapshot")).unwrap();
    let meta = fs::metadata(back.join("sparse")).unwrap();
    assert_eq!((meta.len(), meta.blocks() * 512 < 1 << 20), (40_000_005, true), "holes are holes again");
    // Removing a name changed the time of its directory.
    run(&practice, id, true).await.unwrap();
    assert_eq!(describe(&back), wanted);
    assert_eq!((inode("scan.bin"), inode("large")), kept, "files are repaired where they are");
    assert!(!into(&practice).join(NOTE).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_restore_is_run_again_and_trusts_no_time() {
    let (practice, id) = taken().await;
    run(&practice, id, false).await.unwrap();
    let back = into(&practice).join("files");
    let wanted = describe(&practice.source().join("letters"));
    // A power cut may keep size and time of a file and lose its content.
    let letter = back.join("letters/2026/letter-5.txt");
    let meta = fs::metadata(&letter).unwrap();
    let file = File::options().write(true).open(&letter).unwrap();
    file.write_all_at(&vec![0; meta.len() as usize], 0).unwrap();
    file.set_modified(meta.modified().unwrap()).unwrap();
    fs::remove_file(back.join("large")).unwrap();
    let refused = run(&practice, id, false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Misconfigured, "without a note somebody else's files stand there");
    assert!(!into(&practice).join(NOTE).exists(), "a refused restore leaves nothing");
    fs::write(into(&practice).join(NOTE), format!("holdfast restore 1\n{}\n", SnapshotId([7; 32]))).unwrap();
    assert!(run(&practice, id, false).await.is_err(), "the note of another snapshot allows nothing");
    fs::write(into(&practice).join(NOTE), format!("holdfast restore 1\n{id}\n")).unwrap();
    let done = run(&practice, id, false).await.unwrap();
    assert_eq!(done.bytes, meta.len() + 5_000_000);
    assert_eq!(describe(&back.join("letters")), wanted);
    assert!(!into(&practice).join(NOTE).exists());
}
