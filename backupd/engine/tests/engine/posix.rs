//! What only root may make and set comes back: owners, devices, access lists, capabilities, attributes of everything.

use crate::practice::{Practice, describe, fill, is_root};
use backup_engine::env::OwnerNames;
use backup_engine::{NoProgress, OwnersBy, RestoreOutcome, RestoreRequest, SnapshotId, restore};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const CAPABILITY: &str = "security.capability";

/// An access list as the kernel keeps it: the owner, the user 1234, the owning group, the group 4321, the mask, others.
fn access_list(user: u16, mask: u16) -> Vec<u8> {
    let nobody = u32::MAX;
    let entries =
        [(1u16, 7, nobody), (2, user, 1234), (4, 5, nobody), (8, 4, 4321), (16, mask, nobody), (32, 0, nobody)];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// The capability to listen on ports below 1024, effective.
fn capability() -> Vec<u8> {
    [0x0200_0001u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn attribute(path: &Path, name: &str, value: &[u8]) {
    let set = rustix::fs::lsetxattr(path, name, value, XattrFlags::empty());
    assert!(set.is_ok(), "{name} cannot be set in the temporary folder: {set:?}");
}

fn has(path: &Path, name: &str) -> bool {
    rustix::fs::lgetxattr(path, name, &mut [0u8; 256][..]).is_ok()
}

fn give(path: &Path, (uid, gid): (u32, u32)) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn make_node(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device).unwrap();
}

fn set_time(path: &Path, seconds: i64, ns: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: ns };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One of everything, each with its own owner, mode, attributes and time.
fn everything(source: &Path) {
    let at = |name: &str| source.join(name);
    fs::create_dir_all(at("shared/inner")).unwrap();
    for (name, bits) in
        [("set-user", 0o4755), ("set-group", 0o2750), ("sticky", 0o1644), ("nothing", 0), ("all", 0o7777)]
    {
        fs::write(at(name), name).unwrap();
        give(&at(name), (1000 + bits, 2000 + bits));
        mode(&at(name), bits);
    }
    fs::write(at("shared/listed"), b"with an access list").unwrap();
    give(&at("shared/listed"), (70_001, 70_002));
    attribute(&at("shared/listed"), ACCESS, &access_list(6, 6));
    fs::write(at("daemon"), b"listens").unwrap();
    give(&at("daemon"), (70_001, 70_002));
    mode(&at("daemon"), 0o750);
    attribute(&at("daemon"), CAPABILITY, &capability());
    attribute(&at("daemon"), "user.note", b"a \0 value");
    symlink("shared/listed", at("link")).unwrap();
    make_node(&at("null"), FileType::CharacterDevice, makedev(1, 3));
    make_node(&at("disk"), FileType::BlockDevice, makedev(259, 1_000_001));
    make_node(&at("pipe"), FileType::Fifo, 0);
    drop(UnixListener::bind(at("socket")).unwrap());
    for (number, name) in ["link", "null", "disk", "pipe", "socket", "daemon", "shared/inner"].into_iter().enumerate() {
        let number = number as u32;
        attribute(&at(name), "trusted.note", name.as_bytes());
        give(&at(name), (80_000 + number, 90_000 + number));
        if name != "link" && name != "daemon" {
            mode(&at(name), 0o640 + number);
        }
        if name != "shared/inner" {
            fs::hard_link(at(name), at(&format!("shared/inner/{name}-again"))).unwrap();
        }
    }
    // A change of owner took the capability away.
    mode(&at("daemon"), 0o750);
    attribute(&at("daemon"), CAPABILITY, &capability());
    give(&at("shared"), (0, 70_002));
    attribute(&at("shared"), ACCESS, &access_list(7, 7));
    attribute(&at("shared"), DEFAULT, &access_list(5, 5));
    mode(&at("shared"), 0o3770);
    for (number, name) in ["link", "null", "disk", "pipe", "socket", "daemon", "set-user"].into_iter().enumerate() {
        set_time(&at(name), 1_000_000_000 + number as i64, 123_456_789);
    }
    set_time(&at("shared/listed"), -86_399, 999_999_999);
    set_time(&at("shared/inner"), 5_000_000_000, 1);
    set_time(&at("shared"), 0, 987_654_321);
}

async fn run(practice: &Practice, id: SnapshotId, into: &Path, request: RestoreRequest) -> RestoreOutcome {
    let request = RestoreRequest { into: into.to_owned(), ..request };
    restore(&practice.env, &practice.made.open, &practice.stores[0], id, request, &NoProgress).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_gives_back_everything_that_only_root_may_set() {
    if !is_root("a_restore_gives_back_everything_that_only_root_may_set") {
        return;
    }
    let practice = Practice::new(1).await;
    everything(&practice.source());
    let before = describe(&practice.source());
    for (name, attribute) in [
        ("shared", DEFAULT),
        ("shared/listed", ACCESS),
        ("daemon", CAPABILITY),
        ("link", "trusted.note"),
        ("disk", "trusted.note"),
        ("pipe", "trusted.note"),
        ("socket", "trusted.note"),
    ] {
        assert!(has(&practice.source().join(name), attribute), "{name} has its {attribute}");
    }
    let taken = practice.snapshot().await;
    let back = practice.restore_from(&practice.stores[0], taken.id).await;
    assert_eq!(describe(&back), before);
    // The second snapshot takes attributes from memory.
    let again = practice.snapshot().await;
    assert_eq!((again.bytes_read, again.bytes_added), (0, 0));
    let back = practice.restore_from(&practice.stores[0], again.id).await;
    assert_eq!(describe(&back), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_lists_of_the_target_are_not_handed_on() {
    if !is_root("access_lists_of_the_target_are_not_handed_on") {
        return;
    }
    let practice = Practice::new(1).await;
    fill(&practice.source());
    let source = practice.source();
    mode(&source.join("letters/2026/letter-1.txt"), 0o660);
    make_node(&source.join("pipe"), FileType::Fifo, 0);
    symlink("empty", source.join("link")).unwrap();
    let before = describe(&source);
    let id = practice.snapshot().await.id;
    let into = practice.dir.path().join("into");
    fs::create_dir(&into).unwrap();
    attribute(&into, DEFAULT, &access_list(7, 7));
    run(&practice, id, &into, RestoreRequest::default()).await;
    assert_eq!(describe(&into.join("files")), before, "what is made anew");
    // In place, below a folder that was opened to somebody meanwhile, with some of it gone.
    let letters = into.join("files/letters/2026");
    attribute(&letters, DEFAULT, &access_list(7, 7));
    attribute(&letters, ACCESS, &access_list(7, 7));
    attribute(&letters, "user.extra", b"not in the snapshot");
    attribute(&letters.join("letter-2.txt"), ACCESS, &access_list(7, 7));
    fs::remove_file(letters.join("letter-1.txt")).unwrap();
    run(&practice, id, &into, RestoreRequest { overwrite: true, ..RestoreRequest::default() }).await;
    assert_eq!(describe(&into.join("files")), before, "what is made again");
    assert!(has(&into, DEFAULT), "the target itself is not part of the snapshot");
    // As the target itself, the folder has no more rights than it had.
    let whole = RestoreRequest { top: "files".into(), ..RestoreRequest::default() };
    let into = practice.dir.path().join("as-the-target");
    fs::create_dir(&into).unwrap();
    attribute(&into, DEFAULT, &access_list(7, 7));
    run(&practice, id, &into, whole).await;
    assert_eq!(describe(&into), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_owners_modes_and_capabilities_are_as_they_were() {
    if !is_root("in_place_owners_modes_and_capabilities_are_as_they_were") {
        return;
    }
    let practice = Practice::new(1).await;
    everything(&practice.source());
    let before = describe(&practice.source());
    let id = practice.snapshot().await.id;
    let back = practice.restore_from(&practice.stores[0], id).await;
    // Somebody gave everything away; that alone takes set-id bits and capabilities.
    for name in ["set-user", "set-group", "all", "daemon", "shared", "shared/inner", "link", "disk", "pipe", "socket"] {
        give(&back.join(name), (5, 5));
    }
    for (name, bits) in [("set-user", 0o4755), ("set-group", 0o2750), ("all", 0o7777)] {
        mode(&back.join(name), bits);
    }
    attribute(&back.join("shared/inner"), "trusted.note", b"another");
    rustix::fs::removexattr(back.join("shared"), DEFAULT).unwrap();
    fs::write(back.join("nothing"), b"another").unwrap();
    fs::remove_file(back.join("null")).unwrap();
    fs::create_dir(back.join("null")).unwrap();
    let into = back.parent().unwrap();
    let outcome = run(&practice, id, into, RestoreRequest { overwrite: true, ..RestoreRequest::default() }).await;
    assert_eq!((describe(&back), outcome.attributes_refused), (before, 0));
}

/// Two machines that number the same people differently.
struct People(u32);

impl OwnerNames for People {
    fn user(&self, uid: u32) -> Option<Vec<u8>> {
        (uid == self.0 + 1).then(|| b"anna".to_vec())
    }
    fn group(&self, gid: u32) -> Option<Vec<u8>> {
        (gid == self.0 + 2).then(|| b"doctors".to_vec())
    }
    fn uid(&self, name: &[u8]) -> Option<u32> {
        (name == b"anna").then_some(self.0 + 1)
    }
    fn gid(&self, name: &[u8]) -> Option<u32> {
        (name == b"doctors").then_some(self.0 + 2)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_come_back_by_number_or_by_name() {
    if !is_root("owners_come_back_by_number_or_by_name") {
        return;
    }
    let mut practice = Practice::new(1).await;
    let old = practice.env.clone().with_owner_names(Arc::new(People(3000)));
    let new = practice.env.clone().with_owner_names(Arc::new(People(7000)));
    let source = practice.source();
    fs::create_dir(source.join("folder")).unwrap();
    fs::write(source.join("folder/known"), b"Anna's").unwrap();
    symlink("known", source.join("folder/link")).unwrap();
    fs::write(source.join("folder/stranger"), b"nobody's").unwrap();
    for name in ["folder", "folder/known", "folder/link"] {
        give(&source.join(name), (3001, 3002));
    }
    give(&source.join("folder/stranger"), (3005, 3002));
    practice.env = old;
    let id = practice.snapshot().await.id;
    practice.env = new;
    for (owners, anna, doctors) in [(OwnersBy::Numbers, 3001, 3002), (OwnersBy::Names, 7001, 7002)] {
        let into = practice.dir.path().join(format!("back-{anna}"));
        run(&practice, id, &into, RestoreRequest { owners, top: "files".into(), ..RestoreRequest::default() }).await;
        let owner = |name: &str| fs::symlink_metadata(into.join(name)).map(|meta| (meta.uid(), meta.gid())).unwrap();
        for name in ["folder", "folder/known", "folder/link"] {
            assert_eq!(owner(name), (anna, doctors), "{owners:?} {name}");
        }
        assert_eq!(owner("folder/stranger"), (3005, doctors), "who has no name here keeps the number");
    }
}
