//! What was taken comes back as it was.

use crate::practice::{Practice, describe, fill, noise, settle};
use backup_engine::{
    EntryKind, ErrorKind, NoProgress, Part, PartKind, RestoreRequest, facts, heads, heads_with_tags, ls, restore,
    snapshot,
};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

fn awkward(source: &std::path::Path) {
    fs::create_dir_all(source.join("a/b/c")).unwrap();
    fs::create_dir(source.join("empty-directory")).unwrap();
    fs::write(source.join("a/first"), b"shared by two names").unwrap();
    fs::hard_link(source.join("a/first"), source.join("a/b/second")).unwrap();
    std::os::unix::fs::symlink("../outside/../first", source.join("a/link")).unwrap();
    std::os::unix::fs::symlink("/absolute/and/dangling", source.join("dangling")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        source.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    fs::write(source.join(OsStr::from_bytes(b"not-\xff-utf8")), b"bytes").unwrap();
    fs::write(source.join("new\nline"), b"newline").unwrap();
    fs::write(source.join("attributed"), b"with attributes").unwrap();
    let set = rustix::fs::setxattr(
        source.join("attributed"),
        "user.note",
        b"value \x00 with zero",
        rustix::fs::XattrFlags::empty(),
    );
    assert!(set.is_ok(), "the temporary folder must take extended attributes");
    fs::set_permissions(source.join("attributed"), Permissions::from_mode(0o4711)).unwrap();
    let mut sparse = File::create(source.join("sparse")).unwrap();
    sparse.write_all(b"begins").unwrap();
    sparse.seek(SeekFrom::Start(9_000_001)).unwrap();
    sparse.write_all(b"ends").unwrap();
    sparse.set_len(20_000_000).unwrap();
    fs::write(source.join("large"), noise(3, 5_000_000)).unwrap();
    fs::write(source.join("zeros"), vec![0; 3_000_000]).unwrap();
    let old = UNIX_EPOCH + Duration::new(1_000_000_007, 123_456_789);
    File::options().write(true).open(source.join("a/first")).unwrap().set_modified(old).unwrap();
    File::open(source.join("a/b/c")).unwrap().set_modified(old).unwrap();
    fs::set_permissions(source.join("a/b/c"), Permissions::from_mode(0o500)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_gives_back_everything_that_posix_knows() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    awkward(&practice.source());
    let before = describe(&practice.source());
    let taken = practice.snapshot().await;
    let back = practice.restore_from(&practice.stores[0], taken.id).await;
    assert_eq!(describe(&back), before);
    let sparse = fs::metadata(back.join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < sparse.len() / 10, "a sparse file comes back sparse");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_single_files_come_back_and_one_changed_page_costs_one_page() {
    let practice = Practice::new(1).await;
    let database = practice.source().join("records.sqlite");
    let mut content = noise(11, 4 << 20);
    fs::write(&database, &content).unwrap();
    let mut request = practice.request(1);
    request.parts[0] =
        Part { name: "records".to_owned(), path: database.clone(), kind: PartKind::Pages { page_bytes: 16384 } };
    let take = async |request| {
        settle().await;
        snapshot(&practice.env, &practice.made.writer, &practice.stores, request, &NoProgress).await.unwrap()
    };
    let first = take(request.clone()).await;
    assert!(first.bytes_added > 4 << 20);
    content[1_000_000] ^= 1;
    fs::write(&database, &content).unwrap();
    let second = take(request.clone()).await;
    assert!(second.bytes_added <= 3 * (64 << 10), "one page, its list, an index: {}", second.bytes_added);
    let into = practice.dir.path().join("back");
    let paths = RestoreRequest { into: into.clone(), overwrite: false, ..RestoreRequest::default() };
    restore(&practice.env, &practice.made.open, &practice.stores[0], second.id, paths, &NoProgress).await.unwrap();
    assert!(fs::read(into.join("records")).unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_paths_listing_tag_and_facts() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    let taken = practice.snapshot().await;
    let (env, open, store) = (&practice.env, &practice.made.open, &practice.stores[0]);
    assert_eq!(facts(env, open, store, taken.id).await.unwrap().as_deref(), Some(b"facts-of-the-test".as_slice()));
    let seen = heads(env, open.catalog(), &practice.stores).await.unwrap();
    assert_eq!((seen.snapshots.len(), &seen.snapshots[0].tag, seen.snapshots[0].id), (1, &None, taken.id));
    let seen = heads_with_tags(env, open, &practice.stores).await.unwrap();
    assert_eq!(seen.snapshots[0].tag.as_deref(), Some("tag-of-the-test"));
    assert_eq!((seen.snapshots[0].source.as_str(), seen.snapshots[0].files), ("emr", 32));
    let entries = ls(env, open, store, taken.id, b"files/letters").await.unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.kind == EntryKind::File).count(), 30);
    assert!(entries.iter().all(|entry| entry.path.starts_with(b"files/letters")));

    let into = practice.dir.path().join("one");
    let one = |paths: Vec<Vec<u8>>, overwrite| RestoreRequest {
        into: into.clone(),
        paths,
        overwrite,
        ..RestoreRequest::default()
    };
    let letter = b"files/letters/2026/letter-7.txt".to_vec();
    let done = restore(env, open, store, taken.id, one(vec![letter.clone()], false), &NoProgress).await.unwrap();
    assert_eq!((done.files, done.directories), (1, 3));
    let restored = into.join("files/letters/2026/letter-7.txt");
    assert_eq!(fs::read(&restored).unwrap(), fs::read(practice.source().join("letters/2026/letter-7.txt")).unwrap());
    fs::write(&restored, b"kept").unwrap();
    let refused = restore(env, open, store, taken.id, one(vec![letter.clone()], false), &NoProgress).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Misconfigured);
    assert_eq!(fs::read(&restored).unwrap(), b"kept");
    restore(env, open, store, taken.id, one(vec![letter], true), &NoProgress).await.unwrap();
    assert_ne!(fs::read(&restored).unwrap(), b"kept");
    let absent = restore(env, open, store, taken.id, one(vec![b"files/no-such".to_vec()], true), &NoProgress).await;
    assert_eq!(absent.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_folder_of_a_snapshot_comes_back_as_the_target_itself() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    awkward(&practice.source());
    fs::set_permissions(practice.source(), Permissions::from_mode(0o711)).unwrap();
    let before = describe(&practice.source());
    let taken = practice.snapshot().await;
    let into = practice.dir.path().join("back");
    let request = |paths: Vec<Vec<u8>>, into: std::path::PathBuf, top: &str| RestoreRequest {
        into,
        paths,
        top: top.into(),
        ..RestoreRequest::default()
    };
    let (env, open, store) = (&practice.env, &practice.made.open, &practice.stores[0]);
    let whole = request(Vec::new(), into.clone(), "files");
    restore(env, open, store, taken.id, whole, &NoProgress).await.unwrap();
    assert_eq!(describe(&into), before);
    // A part of it leaves the target's own attributes alone.
    let into = practice.dir.path().join("part");
    fs::create_dir(&into).unwrap();
    let part = request(vec![b"letters/2026/letter-7.txt".to_vec()], into.clone(), "files");
    assert_eq!(restore(env, open, store, taken.id, part, &NoProgress).await.unwrap().files, 1);
    assert!(into.join("letters/2026/letter-7.txt").exists());
    assert_ne!(fs::metadata(&into).unwrap().mode() & 0o777, 0o711);
    // Where there is no such folder, paths begin at the root.
    let into = practice.dir.path().join("none");
    let none = request(vec![b"files/empty".to_vec()], into.clone(), "nothing");
    restore(env, open, store, taken.id, none, &NoProgress).await.unwrap();
    assert!(into.join("files/empty").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_never_writes_through_a_link_that_stands_in_the_target() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    let taken = practice.snapshot().await;
    let (into, outside) = (practice.dir.path().join("into"), practice.dir.path().join("outside"));
    fs::create_dir_all(&into).unwrap();
    fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, into.join("files")).unwrap();
    let request = RestoreRequest { into, overwrite: false, ..RestoreRequest::default() };
    let result = restore(&practice.env, &practice.made.open, &practice.stores[0], taken.id, request, &NoProgress).await;
    assert!(result.is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn excluded_names_and_paths_are_not_taken() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    let mut request = practice.request(1);
    request.excludes = vec!["scan.bin".to_owned(), "files/letters/2026".to_owned()];
    let taken = snapshot(&practice.env, &practice.made.writer, &practice.stores, request, &NoProgress).await.unwrap();
    let back = practice.restore_from(&practice.stores[0], taken.id).await;
    assert!(back.join("empty").exists() && back.join("letters").exists());
    assert!(!back.join("scan.bin").exists() && !back.join("letters/2026").exists());
}
