//! The log on disk and in stores: crashes, damage, rebuilding, and views that disagree.

mod sample;

use backup_report::*;
use sample::{origin, report, signer};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

fn filled(dir: &Path, entries: u32) -> Log {
    let mut log = Log::open(dir, origin(), &signer()).unwrap();
    for n in 0..entries {
        assert_eq!(log.append(&signer(), &report(n).to_bytes()).unwrap(), u64::from(n));
    }
    log
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target)
        } else {
            drop(fs::copy(file.path(), target))
        }
    }
}

fn entry_file(dir: &Path, index: usize) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(dir.join("entries")).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files[index].clone()
}

/// Every entry is proved by the newest checkpoint, and each shorter log is the beginning of this one.
fn assert_sound(log: &Log) {
    let key = signer().public_key();
    for index in 0..log.size() {
        let bytes = log.entry(index).unwrap();
        let proof = Proof::parse(&log.inclusion_proof(index).unwrap().to_bytes()).unwrap();
        let head = proof.verify(&bytes, &key).unwrap();
        assert_eq!((head.size, head.origin), (log.size(), origin()));
        let (old, new) = (root_of(&log.leaves()[..index as usize + 1]), root_of(log.leaves()));
        let path = log.consistency_proof(index + 1).unwrap();
        assert!(verify_consistency(index + 1, &old, log.size(), &new, &path));
    }
    assert_eq!(log.checkpoint().is_some(), log.size() > 0);
}

#[test]
fn entries_survive_reopening_and_keep_their_places() {
    let dir = TempDir::new().unwrap();
    for size in 1..=12 {
        let mut log = filled(dir.path(), size);
        assert_sound(&log);
        assert_eq!(log.append(&signer(), &report(0).to_bytes()).unwrap(), 0, "the same bytes keep their place");
        assert_eq!(log.size(), u64::from(size));
    }
    let log = Log::open(dir.path(), origin(), &signer()).unwrap();
    assert!(matches!(Log::open(dir.path(), origin(), &signer()), Err(LogError::Busy)));
    assert!(log.entries().all(|e| matches!(e, Ok((_, Entry::Report(_), _)))));
    drop(log);
    let other = Origin::parse("holdfast/log/other").unwrap();
    assert!(matches!(Log::open(dir.path(), other, &signer()), Err(LogError::Checkpoint(_))));
    let stranger = ReportSigner::from_seed(&[5; 32]);
    assert!(matches!(Log::open(dir.path(), origin(), &stranger), Err(LogError::Checkpoint(_))));
}

/// Each of them inherits the lock for as long as it takes to be loaded.
#[test]
fn programs_that_are_started_meanwhile_keep_no_log_from_being_opened() {
    let dir = TempDir::new().unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                assert!(Command::new("true").status().unwrap().success());
            }
        });
        let opened: Vec<_> = (0..2000).filter_map(|_| Log::open(dir.path(), origin(), &signer()).err()).collect();
        ended.store(true, Ordering::Relaxed);
        assert!(opened.is_empty(), "{} of 2000 times: {:?}", opened.len(), opened[0]);
    });
}

#[test]
fn only_entries_of_known_kinds_get_in() {
    let dir = TempDir::new().unwrap();
    let mut log = filled(dir.path(), 1);
    for bytes in [b"".as_slice(), b"{}", b"{\"schema\":\"restore-report/1\"}", b"Jane Doe"] {
        assert!(matches!(log.append(&signer(), bytes), Err(LogError::Entry(_))));
    }
    let report_bytes = report(0).to_bytes();
    let owner = ReportSigner::from_seed(&[8; 32]);
    let approval =
        Approval::create(&owner, &report_bytes, Decision::CertifiedWithActions, OwnerRole::Owner, 5).unwrap();
    assert_eq!(log.append(&signer(), &approval).unwrap(), 1);
    let action = CorrectiveAction {
        schema: ActionSchema::V1,
        id: report(7).report_id,
        report_id: report(0).report_id,
        report_sha256: Digest::sha256(&report_bytes),
        opened_unix_ms: 6,
        owner_role: OwnerRole::PracticeIt,
        closed_unix_ms: None,
        closing_report_sha256: None,
    };
    assert_eq!(log.append(&signer(), &action.to_bytes()).unwrap(), 2);
    let half_closed = CorrectiveAction { closed_unix_ms: Some(7), ..action };
    assert!(matches!(log.append(&signer(), &half_closed.to_bytes()), Err(LogError::Entry(_))));
    assert_eq!(approvals_of(&log, &report_bytes).unwrap(), [1]);
    assert_sound(&log);
}

/// What a crash can leave of one file: it is there under a temporary name or its own, cut at any length.
#[test]
fn a_crash_at_any_byte_of_an_append_leaves_a_sound_log() {
    let whole = TempDir::new().unwrap();
    drop(filled(whole.path(), 4));
    let entry = entry_file(whole.path(), 3);
    let entry_bytes = fs::read(&entry).unwrap();
    let note = whole.path().join("checkpoint-000000000004");
    let note_bytes = fs::read(&note).unwrap();
    let relative = |path: &Path| path.strip_prefix(whole.path()).unwrap().to_owned();

    let before = TempDir::new().unwrap();
    copy(whole.path(), before.path());
    fs::remove_file(before.path().join(relative(&entry))).unwrap();
    fs::remove_file(before.path().join(relative(&note))).unwrap();

    let reopened = |leave: &dyn Fn(&Path), size: u64| {
        let dir = TempDir::new().unwrap();
        copy(before.path(), dir.path());
        leave(dir.path());
        let mut log = Log::open(dir.path(), origin(), &signer()).unwrap();
        assert_eq!(log.size(), size);
        assert_sound(&log);
        assert_eq!(log.append(&signer(), &entry_bytes).unwrap(), 3, "the append can be repeated");
        assert_sound(&log);
        drop(log);
        let left: Vec<_> = fs::read_dir(dir.path().join("entries")).unwrap().collect();
        assert_eq!(left.len(), 4, "nothing else is left");
        assert_eq!(fs::read(dir.path().join("checkpoint-000000000004")).unwrap(), note_bytes);
    };
    for cut in 0..entry_bytes.len() {
        fs::write(before.path().join(relative(&entry)), &entry_bytes[..cut]).unwrap();
        assert_eq!(Log::open(before.path(), origin(), &signer()).unwrap().size(), 3);
        assert!(!before.path().join(relative(&entry)).exists(), "cut at {cut}");
    }
    for cut in (0..entry_bytes.len()).step_by(97).chain([entry_bytes.len() - 1]) {
        reopened(&|dir| fs::write(dir.join(relative(&entry)), &entry_bytes[..cut]).unwrap(), 3);
    }
    reopened(&|dir| fs::write(dir.join("entries/.tmp-000000000003-x.json"), &entry_bytes[..100]).unwrap(), 3);
    reopened(&|dir| fs::write(dir.join(relative(&entry)), &entry_bytes).unwrap(), 4);
    for cut in 0..=note_bytes.len() {
        reopened(
            &|dir| {
                fs::write(dir.join(relative(&entry)), &entry_bytes).unwrap();
                fs::write(dir.join(relative(&note)), &note_bytes[..cut]).unwrap();
            },
            4,
        );
    }
}

#[test]
fn a_changed_or_lost_entry_under_a_checkpoint_is_never_repaired_in_silence() {
    let whole = TempDir::new().unwrap();
    drop(filled(whole.path(), 5));
    let damage = |change: &dyn Fn(&Path)| {
        let dir = TempDir::new().unwrap();
        copy(whole.path(), dir.path());
        change(dir.path());
        let opened = Log::open(dir.path(), origin(), &signer());
        match opened {
            Ok(log) => log.entries().find_map(Result::err).expect("damage goes unnoticed"),
            Err(e) => e,
        }
    };
    for index in 0..5 {
        let lost = damage(&|dir| fs::remove_file(entry_file(dir, index)).unwrap());
        assert!(matches!(lost, LogError::Damaged { .. }), "{lost}");
        let changed = damage(&|dir| {
            let mut bytes = fs::read(entry_file(dir, index)).unwrap();
            bytes[50] ^= 1;
            fs::write(entry_file(dir, index), bytes).unwrap();
        });
        assert!(matches!(changed, LogError::Damaged { .. }), "{changed}");
        // Replaced by another sound report under its right name: only the checkpoint notices.
        let replaced = damage(&|dir| {
            let bytes = report(1000).to_bytes();
            fs::remove_file(entry_file(dir, index)).unwrap();
            let name = format!("entries/{index:012}-{}.json", Digest::of(&leaf_hash(&bytes)));
            fs::write(dir.join(name), bytes).unwrap();
        });
        assert!(matches!(replaced, LogError::Damaged { .. }), "{replaced}");
    }
}

#[test]
fn a_log_is_rebuilt_from_any_one_store() {
    let dir = TempDir::new().unwrap();
    let mut log = filled(dir.path(), 3);
    let mut store: BTreeMap<String, Vec<u8>> = log.objects_since(0).unwrap().into_iter().collect();
    assert_eq!(store.len(), 4);
    for n in 3..6 {
        log.append(&signer(), &report(n).to_bytes()).unwrap();
    }
    let missing = log.objects_missing(|name| store.contains_key(name)).unwrap();
    assert_eq!(missing, log.objects_since(3).unwrap());
    assert_eq!(missing.len(), 4, "three entries and the newest checkpoint");
    assert!(missing.last().unwrap().0.starts_with("log/checkpoint-"), "the checkpoint comes last");
    assert!(log.is_ahead_of(|name| store.contains_key(name)), "it has the first ones and none of the rest");
    store.extend(missing);
    assert!(!log.is_ahead_of(|name| store.contains_key(name)));
    let first = store.keys().find(|name| name.contains("entries/000000000000")).unwrap().clone();
    let second = store.keys().find(|name| name.contains("entries/000000000001")).unwrap().clone();
    for lost in [&first, &second] {
        assert!(!log.is_ahead_of(|name| name != lost && store.contains_key(name)), "what lay before others is lost");
    }
    assert!(!log.is_ahead_of(|_| false), "all of it is lost");
    store.insert("heads/emr/0191dd00/17".into(), b"something else".to_vec());

    let again = TempDir::new().unwrap();
    let rebuilt = Log::rebuild(again.path(), origin(), &signer(), store.clone()).unwrap();
    assert_eq!(rebuilt.leaves(), log.leaves());
    assert_eq!(rebuilt.checkpoint(), log.checkpoint());
    assert_sound(&rebuilt);
    drop(rebuilt);
    assert!(matches!(Log::rebuild(again.path(), origin(), &signer(), store.clone()), Err(LogError::NotEmpty)));

    // A store may invent an entry; without a checkpoint over it, it is not in the log.
    let invented = report(666).to_bytes();
    let mut lying = store.clone();
    lying.insert(format!("log/entries/000000000006-{}.json", Digest::of(&leaf_hash(&invented))), invented);
    assert_eq!(View::of_objects(lying, &signer().public_key(), &origin()).unwrap().leaves(), log.leaves());

    for name in store.keys().filter(|n| n.starts_with("log/")) {
        let mut bent = store.clone();
        bent.get_mut(name).unwrap()[20] ^= 1;
        assert!(View::of_objects(bent, &signer().public_key(), &origin()).is_err(), "{name} changed");
        let mut lost = store.clone();
        lost.remove(name);
        let view = View::of_objects(lost, &signer().public_key(), &origin());
        match name.strip_prefix("log/checkpoint-") {
            Some("000000000006") => assert_eq!(view.unwrap().leaves(), &log.leaves()[..3], "the older one still holds"),
            Some(_) => assert_eq!(view.unwrap().leaves(), log.leaves()),
            None => assert!(matches!(view, Err(LogError::Damaged { .. })), "{name} lost"),
        }
    }
}

#[test]
fn rollback_and_split_views_are_found() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let log = filled(a.path(), 5);
    let mut fork = filled(b.path(), 3);
    fork.append(&signer(), &report(100).to_bytes()).unwrap();
    let note = |dir: &TempDir, size: u32| fs::read(dir.path().join(format!("checkpoint-{size:012}"))).unwrap();
    let seen = |place: &str, checkpoint| Seen { place: Label::parse(place).unwrap(), checkpoint };
    let key = signer().public_key();
    let compare = |seen: &[Seen], leaves: Option<&[Hash]>| compare_checkpoints(seen, leaves, &key, &origin());
    let place = |text| Label::parse(text).unwrap();

    let honest = [seen("a", note(&a, 2)), seen("b", note(&b, 3)), seen("c", note(&a, 5))];
    assert_eq!(compare(&honest, Some(log.leaves())), []);
    let split = [seen("a", note(&a, 4)), seen("b", note(&b, 4))];
    assert_eq!(compare(&split, Some(log.leaves())), [Disagreement::SplitView { place: place("b"), size: 4 }]);
    assert_eq!(compare(&split, None), [Disagreement::SplitView { place: place("b"), size: 4 }]);
    let ahead = [seen("a", note(&a, 5))];
    assert_eq!(compare(&ahead, Some(&log.leaves()[..3])), [Disagreement::RolledBack { place: place("a"), size: 5 }]);
    let mut bent = note(&a, 2);
    bent[30] ^= 1;
    assert_eq!(compare(&[seen("a", bent)], Some(log.leaves())), [Disagreement::NotSigned(place("a"))]);
}

/// The objects of a store that holds all of a log, with the reports' signatures.
fn in_store(log: &Log) -> BTreeMap<String, Vec<u8>> {
    let mut objects: BTreeMap<String, Vec<u8>> = log.objects_missing(|_| false).unwrap().into_iter().collect();
    for (_, entry, bytes) in log.entries().map(Result::unwrap) {
        if let Entry::Report(report) = entry {
            let name = format!("log/signatures/{}.sig", report.report_id);
            objects.insert(name, signer().sign(&bytes).to_vec());
        }
    }
    objects
}

/// A recovery from a store whose log has one damaged or missing object goes on with the same history, or refuses.
#[test]
fn whole_bytes_beside_damaged_ones_stand_in_for_them() {
    let dir = TempDir::new().unwrap();
    let whole = in_store(&filled(dir.path(), 3));
    let key = signer().public_key();
    for name in whole.keys() {
        let mut held: Vec<(String, Vec<u8>)> = whole.clone().into_iter().collect();
        let at = held.iter().position(|(held, _)| held == name).unwrap();
        held[at].1[0] ^= 1;
        let named = damaged(&first_whole(held.clone(), &key, &origin()), &key, &origin());
        assert!(named.len() == 1 && named[0] == *name, "{name}: {named:?}");
        held.push((format!("{name}.1"), b"damaged too".to_vec()));
        held.push((format!("{name}.2"), whole[name].clone()));
        let settled = first_whole(held, &key, &origin());
        assert_eq!(settled, whole.clone().into_iter().collect::<Vec<_>>());
        assert!(View::of_objects(settled, &key, &origin()).is_ok_and(|view| view.leaves().len() == 3));
    }
}

#[test]
fn one_damaged_object_never_begins_a_second_history() {
    let dir = TempDir::new().unwrap();
    let log = filled(dir.path(), 6);
    let whole = in_store(&log);
    let (leaves, head) = (log.leaves().to_vec(), log.checkpoint().unwrap().to_vec());
    let salvaged = |objects: BTreeMap<String, Vec<u8>>| {
        let place = TempDir::new().unwrap();
        let log = Log::salvage(&place.path().join("log"), origin(), &signer(), objects);
        (log, place)
    };
    for name in whole.keys() {
        let mut flipped = whole.clone();
        let bytes = flipped.get_mut(name).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let objects: Vec<_> = flipped.clone().into_iter().collect();
        let named = damaged(&objects, &signer().public_key(), &origin());
        assert!(named.contains(name), "{name}: {named:?}");
        let (log, _place) = salvaged(flipped);
        let mut log = log.unwrap();
        assert_eq!((log.leaves(), log.checkpoint()), (&leaves[..], Some(&head[..])), "{name}");
        assert_eq!(log.lost().len(), usize::from(name.contains("entries")), "{name}");
        assert_eq!(log.append(&signer(), &report(6).to_bytes()).unwrap(), 6);
        // What is copied to the stores from now on shows the same history, the lost entry without content.
        let lost = log.lost();
        let view = View::of_objects(in_store_without_lost(&log), &signer().public_key(), &origin()).unwrap();
        assert_eq!((view.leaves().len(), view.lost()), (7, lost));
        let mut missing = whole.clone();
        missing.remove(name);
        let (log, _place) = salvaged(missing);
        match log {
            Ok(log) => assert_eq!((log.leaves(), log.checkpoint()), (&leaves[..], Some(&head[..])), "{name}"),
            Err(LogError::Damaged { .. }) => assert!(name.contains("entries"), "{name}"),
            Err(other) => panic!("{name}: {other}"),
        }
    }
    // What a store invents is not taken: nothing vouches for it.
    let mut invented = whole.clone();
    let bytes = report(77).to_bytes();
    invented.insert(format!("log/entries/000000000006-{}.json", hex::encode(leaf_hash(&bytes))), bytes);
    let (log, _place) = salvaged(invented);
    assert_eq!(log.unwrap().size(), 6);
    let reach = Reach::of(&whole.into_iter().collect::<Vec<_>>(), &signer().public_key(), &origin());
    assert_eq!(reach, Reach { signed: 6, named: 6 });
}

fn in_store_without_lost(log: &Log) -> Vec<(String, Vec<u8>)> {
    log.objects_missing(|_| false).unwrap()
}

#[test]
fn what_a_checkpoint_of_another_history_shows_is_found_among_any_names_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let own = filled(&dir.path().join("own"), 4);
    copy(&dir.path().join("own"), &dir.path().join("other"));
    drop(own);
    // They part after four entries.
    let mut own = Log::open(&dir.path().join("own"), origin(), &signer()).unwrap();
    let mut other = Log::open(&dir.path().join("other"), origin(), &signer()).unwrap();
    own.append(&signer(), &report(50).to_bytes()).unwrap();
    for n in 60..63 {
        other.append(&signer(), &report(n).to_bytes()).unwrap();
    }
    let told: Vec<String> = other.objects_since(4).unwrap().into_iter().map(|(name, _)| name).collect();
    let entries: Vec<&str> = told.iter().map(String::as_str).filter(|name| !Log::is_checkpoint(name)).collect();
    let made_up = |place: u64| format!("log/entries/{place:012}-{}.json", hex::encode([place as u8; 32]));
    let junk: Vec<String> = (4..7).map(made_up).collect();
    let names: Vec<&str> = entries.iter().copied().chain(junk.iter().map(String::as_str)).collect();
    let key = signer().public_key();
    assert_eq!(own.fork(&names, other.checkpoint().unwrap(), &key), entries);
    assert_eq!(own.fork(&names, own.checkpoint().unwrap(), &key), Vec::<&str>::new(), "it is no other history");
    assert_eq!(
        own.fork(&names[1..], other.checkpoint().unwrap(), &key),
        Vec::<&str>::new(),
        "one of its entries is gone"
    );
    let forged = b"not signed".to_vec();
    assert_eq!(own.fork(&names, &forged, &key), Vec::<&str>::new());
}
