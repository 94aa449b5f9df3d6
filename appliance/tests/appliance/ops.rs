//! The operations socket and the probe: what the backup takes away is what a restore brings back.

use crate::support;
use appliance::access::{Actor, Role};
use appliance::audit;
use appliance::clock::Clock;
use appliance::ops::{Operations, wire};
use appliance::probe::{self, Restored};
use appliance::seed;
use appliance::settings::Settings;
use appliance::store::{DATABASE_FILE, Mode, Store, StoreError, Tx};
use appliance_api::{AuditHead, Client, ClientError, Quiesced, Refusal, Request, Response};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

struct Practice {
    dir: tempfile::TempDir,
    settings: Settings,
    store: Store,
    socket_task: tokio::task::JoinHandle<()>,
}

impl Practice {
    async fn open() -> Practice {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("appliance.toml");
        let text = "data_dir = \"data\"\ntls_cert = \"tls/c.pem\"\ntls_key = \"tls/k.pem\"\nops_socket = \"ops.sock\"\n\
                    staging_dir = \"staging\"\ntime_zone = \"Europe/Berlin\"\n";
        fs::write(&file, text).unwrap();
        fs::create_dir(dir.path().join("tls")).unwrap();
        fs::write(dir.path().join("tls/c.pem"), "certificate").unwrap();
        fs::write(dir.path().join("tls/k.pem"), "key").unwrap();
        let settings = Settings::load(&file).unwrap();
        let leftover = settings.staging_dir.join("0190c5a0-0000-7000-8000-000000000000");
        fs::create_dir_all(&leftover).unwrap();
        let store = Store::open(support::place(&settings.data_dir), Clock::system(), Mode::New).unwrap();
        let (filled, zone) = (store.clone(), settings.time_zone);
        let plan = seed::Plan { patients: 40, seed: 3, zone, practice_name: "Practice".into() };
        let seeded = tokio::task::spawn_blocking(move || seed::run(&filled, &plan, |_| ())).await.unwrap().unwrap();
        assert!(seeded.attachments > 0);
        let operations = Arc::new(Operations::new(store.clone(), &settings).unwrap());
        assert!(!leftover.exists(), "what an earlier run left is removed at start");
        let listener = wire::bind(&settings.ops_socket).unwrap();
        let socket_task = tokio::spawn(operations.serve(listener));
        Practice { dir, settings, store, socket_task }
    }

    async fn quiesce(&self) -> (Client, Quiesced) {
        self.quiesce_after(None).await
    }

    async fn quiesce_after(&self, follows: Option<AuditHead>) -> (Client, Quiesced) {
        let mut client = Client::connect(&self.settings.ops_socket).await.unwrap();
        match client.ask(&Request::Quiesce { follows }).await.unwrap() {
            Response::Quiesced(quiesced) => (client, *quiesced),
            other => panic!("{other:?}"),
        }
    }

    /// Copies the parts as a backup would, under their names.
    fn restore(&self, quiesced: &Quiesced, name: &str) -> PathBuf {
        let into = self.dir.path().join(name);
        fs::create_dir(&into).unwrap();
        quiesced.parts.iter().for_each(|part| copy(&part.path, &into.join(&part.name)));
        into
    }
}

impl Drop for Practice {
    fn drop(&mut self) {
        self.socket_task.abort();
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

fn write_patient(store: &Store, number: u32) {
    let actor = Actor::staff("u", "u", Role::Clinician);
    let text = format!("note {number}");
    let staged = store.attachments().stage(text.as_bytes()).unwrap();
    store
        .write_blocking(&actor, move |tx: &mut Tx<'_>| {
            let body = json!({ "resourceType": "Patient", "name": [{ "family": format!("Writer{number}") }] });
            let patient = tx.create("Patient", body)?;
            tx.attach(&staged, Some(&patient.id))?;
            Ok::<_, StoreError>(())
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_taken_while_clinicians_write_is_one_moment_and_restores_equal() {
    let practice = Practice::open().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (store, stop) = (practice.store.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut number = writer;
                while !stop.load(Ordering::Relaxed) {
                    write_patient(&store, number);
                    number += 3;
                }
                number
            })
        })
        .collect();
    for round in 0..3 {
        let (mut client, quiesced) = practice.quiesce().await;
        assert!(quiesced.write_stall_us > 0 && quiesced.write_stall_us < 1_000_000, "{}", quiesced.write_stall_us);
        let restored_dir = practice.restore(&quiesced, &format!("restored-{round}"));
        let answer = client.ask(&Request::Thaw { lease: quiesced.lease.clone() }).await.unwrap();
        assert!(matches!(answer, Response::Thawed));
        assert_eq!(fs::read_dir(&practice.settings.staging_dir).unwrap().count(), 0, "thaw removes the copy");
        let restored = Restored::open(&restored_dir);
        assert_eq!(restored.facts().unwrap(), quiesced.facts);
        let kinds: std::collections::HashSet<_> =
            quiesced.golden.iter().map(|query| std::mem::discriminant(&query.question)).collect();
        assert_eq!(kinds.len(), 5, "every kind of question is asked");
        let questions: Vec<_> = quiesced.golden.iter().map(|query| query.question.clone()).collect();
        let answers = restored.golden(&quiesced.golden_key, &questions).unwrap();
        let expected: Vec<_> = quiesced.golden.iter().map(|query| Some(query.expected.clone())).collect();
        assert_eq!(answers, expected);
        for file in ["appliance.toml", "tls/c.pem", "tls/k.pem"] {
            assert!(restored_dir.join("config").join(file).is_file(), "{file}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let written: u32 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    assert!(written > 9, "the writers went on while copies were taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_on_from_an_earlier_copy_of_them_and_from_no_later_one() {
    let practice = Practice::open().await;
    let follows = async |head: &AuditHead| {
        let (mut client, quiesced) = practice.quiesce_after(Some(head.clone())).await;
        client.ask(&Request::Thaw { lease: quiesced.lease }).await.unwrap();
        quiesced.follows
    };
    let (mut client, earlier) = practice.quiesce().await;
    assert_eq!(earlier.follows, None, "nobody asked");
    let head = earlier.facts.audit().unwrap();
    let dir = practice.restore(&earlier, "earlier");
    client.ask(&Request::Thaw { lease: earlier.lease }).await.unwrap();
    assert_eq!(follows(&head).await, Some(true), "nothing was entered since");
    let store = practice.store.clone();
    tokio::task::spawn_blocking(move || write_patient(&store, 1)).await.unwrap();
    assert_eq!(follows(&head).await, Some(true));
    let (mut client, later) = practice.quiesce().await;
    client.ask(&Request::Thaw { lease: later.lease }).await.unwrap();
    let later = later.facts.audit().unwrap();
    assert!(later.sequence > head.sequence);
    // What was never its end: another hash, a number that no entry has.
    let other = AuditHead { hash: later.hash.clone(), ..head.clone() };
    let beyond = AuditHead { sequence: u64::MAX, ..head.clone() };
    let before_all = AuditHead { sequence: 0, ..head.clone() };
    for head in [other, beyond, before_all] {
        assert_eq!(follows(&head).await, Some(false), "{head:?}");
    }
    // The earlier copy in place of the records, before and after it has as many entries of its own.
    let older = Store::open(&dir, Clock::system(), Mode::New).unwrap();
    let check = move || {
        let contains = |head: &AuditHead| older.internal_blocking(|db| audit::contains(db, head)).unwrap();
        assert!(contains(&head) && !contains(&later));
        while older.internal_blocking(audit::head).unwrap().seq < later.sequence {
            write_patient(&older, 2);
        }
        assert!(contains(&head) && !contains(&later), "as many entries, and others");
        let none = blake3::hash(b"holdfast appliance audit v1").to_hex().to_string();
        assert!(contains(&AuditHead { sequence: 0, hash: none }), "every chain begins there");
    };
    tokio::task::spawn_blocking(check).await.unwrap();
}

/// A restore over the files of a killed run: the log that it left is replaced too, and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_does_not_meet_the_log_of_a_killed_run() {
    let practice = Practice::open().await;
    let (_client, quiesced) = practice.quiesce().await;
    let store = practice.store.clone();
    tokio::task::spawn_blocking(move || (0..50).for_each(|number| write_patient(&store, number))).await.unwrap();
    let dir = practice.restore(&quiesced, "restored");
    let left = dir.join(format!("{DATABASE_FILE}-wal"));
    assert_eq!(fs::metadata(&left).unwrap().len(), 0, "it is a part, and empty");
    if !support::is_postgres() {
        assert!(fs::metadata(practice.settings.data_dir.join(format!("{DATABASE_FILE}-wal"))).unwrap().len() > 0);
    }
    let store = Store::open(&dir, Clock::system(), Mode::New).unwrap();
    drop(store);
    assert_eq!(Restored::open(&dir).facts().unwrap().audit_head, quiesced.facts.audit_head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_single_and_ends_with_its_connection() {
    let practice = Practice::open().await;
    let (client, quiesced) = practice.quiesce().await;
    let mut second = Client::connect(&practice.settings.ops_socket).await.unwrap();
    let busy = second.ask(&Request::Quiesce { follows: None }).await;
    assert!(matches!(busy, Err(ClientError::Refused(Refusal::Busy))), "{busy:?}");
    let foreign = second.ask(&Request::Thaw { lease: quiesced.lease }).await;
    assert!(matches!(foreign, Err(ClientError::Refused(Refusal::NoLease))));
    // A held lease delays nobody.
    let store = practice.store.clone();
    tokio::task::spawn_blocking(move || write_patient(&store, 1)).await.unwrap();
    drop(client);
    for _ in 0..100 {
        if fs::read_dir(&practice.settings.staging_dir).unwrap().count() == 0 {
            assert!(matches!(second.ask(&Request::Quiesce { follows: None }).await.unwrap(), Response::Quiesced(_)));
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the copy of a dead backup stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_file_that_is_gone_stops_no_copy_of_the_records() {
    let practice = Practice::open().await;
    for file in ["appliance.toml", "tls/c.pem", "tls/k.pem"] {
        fs::remove_file(practice.dir.path().join(file)).unwrap();
        let (mut client, quiesced) = practice.quiesce().await;
        let into = practice.restore(&quiesced, &file.replace('/', "-"));
        assert!(into.join(DATABASE_FILE).is_file(), "{file}");
        assert!(!into.join("config").join(file).exists(), "{file}");
        client.ask(&Request::Thaw { lease: quiesced.lease }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_removed_under_the_running_emr_is_told_and_copied() {
    if support::is_postgres() {
        return; // A server keeps a database that is open.
    }
    let practice = Practice::open().await;
    fs::remove_file(practice.settings.data_dir.join(DATABASE_FILE)).unwrap();
    let (_client, quiesced) = practice.quiesce().await;
    assert_eq!(quiesced.damaged, [appliance_api::Damaged::Database]);
    let copied = practice.restore(&quiesced, "restored").join(DATABASE_FILE);
    assert!(fs::metadata(copied).unwrap().len() > 0);
}

/// A disk that dies under the database: what is left is copied, from wherever on it is lost, and the damage is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_lost_from_a_page_on_is_copied_all_the_same() {
    use std::os::unix::fs::FileExt;
    if support::is_postgres() {
        return; // What its disk loses is its server's to notice.
    }
    for first_lost in [3, 1, 0] {
        let practice = Practice::open().await;
        let database = practice.settings.data_dir.join(DATABASE_FILE);
        // Pages are read from the log where it holds them: both are lost.
        let log = practice.settings.data_dir.join(format!("{DATABASE_FILE}-wal"));
        for (file, from) in [(database, first_lost * 4096), (log, 32 + first_lost * (24 + 4096))] {
            let file = fs::OpenOptions::new().write(true).open(file).unwrap();
            let lost = file.metadata().unwrap().len().saturating_sub(from);
            file.write_all_at(&vec![0xff; usize::try_from(lost).unwrap()], from).unwrap();
        }
        let (_client, quiesced) = practice.quiesce().await;
        assert!(!quiesced.damaged.is_empty(), "lost from page {first_lost} on");
        let copied = practice.restore(&quiesced, "restored").join(DATABASE_FILE);
        assert!(fs::metadata(copied).unwrap().len() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_finds_a_flipped_byte_anywhere() {
    let practice = Practice::open().await;
    let (_client, quiesced) = practice.quiesce().await;
    let dir = practice.restore(&quiesced, "restored");
    let database = dir.join(DATABASE_FILE);
    let good = fs::read(&database).unwrap();
    assert_eq!(Restored::open(&dir).facts().unwrap(), quiesced.facts);
    let differs = || Restored::open(&dir).facts().ok().as_ref() != Some(&quiesced.facts);
    let mut unnoticed = 0;
    let step = good.len() / 60;
    for at in (0..good.len()).step_by(step) {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        fs::write(&database, &bad).unwrap();
        unnoticed += usize::from(!differs());
    }
    // Free space inside pages, tables without a row, counters of the file's header and the redundant index rows are not the
    // records' content.
    assert!(unnoticed < 30, "{unnoticed} of 60 flips were not noticed");
    let body = b"\"resourceType\":\"Condition\"";
    let at = good.windows(body.len()).position(|window| window == body).unwrap();
    let mut bad = good.clone();
    bad[at + 18] ^= 1;
    fs::write(&database, &bad).unwrap();
    assert!(differs(), "a changed record");
    fs::write(&database, &good[..good.len() - 4096]).unwrap();
    assert!(matches!(Restored::open(&dir).facts(), Err(StoreError::Damaged(_))), "a missing page");
    fs::write(&database, b"").unwrap();
    assert!(matches!(Restored::open(&dir).facts(), Err(StoreError::Damaged(_))), "an empty file");
    fs::write(&database, vec![7; 9000]).unwrap();
    assert!(matches!(Restored::open(&dir).facts(), Err(StoreError::Damaged(_))), "another file");
    fs::write(&database, &good).unwrap();
    let folder = fs::read_dir(dir.join("attachments")).unwrap().flatten().next().unwrap().path();
    let file = fs::read_dir(folder).unwrap().flatten().next().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    bytes[9] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert!(differs(), "a changed attachment");
    fs::remove_file(&file).unwrap();
    assert!(matches!(Restored::open(&dir).facts(), Err(StoreError::Damaged(_))), "a missing attachment");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_speaks_the_same_messages_and_changes_nothing() {
    let practice = Practice::open().await;
    let (_client, quiesced) = practice.quiesce().await;
    let dir = practice.restore(&quiesced, "restored");
    let socket = practice.dir.path().join("probe.sock");
    let listener = wire::bind(&socket).unwrap();
    let task = tokio::spawn(probe::serve(listener, Restored::open(&dir), Vec::new()));
    let mut client = Client::connect(&socket).await.unwrap();
    let Response::Facts(facts) = client.ask(&Request::Facts).await.unwrap() else { panic!() };
    assert_eq!(*facts, quiesced.facts);
    let questions = quiesced.golden.iter().map(|query| query.question.clone()).collect();
    let golden = client.ask(&Request::Golden { key: quiesced.golden_key, questions }).await.unwrap();
    let Response::Golden { answers } = golden else { panic!() };
    assert_eq!(answers, quiesced.golden.iter().map(|query| Some(query.expected.clone())).collect::<Vec<_>>());
    let refused = client.ask(&Request::Quiesce { follows: None }).await;
    assert!(matches!(refused, Err(ClientError::Refused(Refusal::ReadOnly))));
    let files: Vec<_> = fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(files.len(), quiesced.parts.len(), "no journal appears beside restored data: {files:?}");
    fs::write(dir.join(DATABASE_FILE), b"garbage").unwrap();
    let damaged = client.ask(&Request::Facts).await;
    assert!(matches!(damaged, Err(ClientError::Refused(Refusal::Data))), "{damaged:?}");
    task.abort();
}

/// The real program, on a server whose administrator has switched user namespaces off.
#[tokio::test(flavor = "multi_thread")]
async fn the_probe_is_cut_off_where_no_user_namespace_is_to_be_had() {
    const OFF: &str =
        "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" probe \"$1\" --socket \"$2\" --isolate";
    let practice = Practice::open().await;
    let (_client, quiesced) = practice.quiesce().await;
    let dir = practice.restore(&quiesced, "restored");
    let socket = practice.dir.path().join("probe.sock");
    let mut program = std::process::Command::new("unshare");
    program.args(["--user", "--map-root-user", "sh", "-c", OFF, env!("CARGO_BIN_EXE_appliance")]).args([&dir, &socket]);
    let mut child = program.spawn().unwrap();
    for _ in 0..200 {
        if socket.exists() || child.try_wait().unwrap().is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let of_child = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
    let networks = of_child("net/dev").lines().skip(2).map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    assert!(networks.len() == 1 && networks[0].starts_with("lo:"), "{networks:?}");
    let status = of_child("status");
    assert!(["CapEff", "CapPrm", "CapInh"].iter().all(|set| status.contains(&format!("{set}:\t0000000000000000"))));
    assert!(status.contains("NoNewPrivs:\t1"), "a program that it starts gets none back");
    let mut client = Client::connect(&socket).await.unwrap();
    let Response::Facts(facts) = client.ask(&Request::Facts).await.unwrap() else { panic!() };
    assert_eq!(*facts, quiesced.facts);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_socket_is_refused_and_the_next_peer_served() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let practice = Practice::open().await;
    for garbage in [
        &b"\n"[..],
        b"{}\n",
        b"\xff\xfe\x00\n",
        b"{\"ask\":\"quiesce\"}\n",
        b"{\"ask\":\"hello\",\"protocol\":9}\n",
        b"[",
    ] {
        let mut stream = tokio::net::UnixStream::connect(&practice.settings.ops_socket).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let text = String::from_utf8(answer).unwrap();
        assert!(text.is_empty() || text.contains("refused"), "{text}");
    }
    assert_eq!(fs::read_dir(&practice.settings.staging_dir).unwrap().count(), 0);
    practice.quiesce().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_gives_the_same_practice() {
    let (one, two) = (Practice::open().await, Practice::open().await);
    let (_, a) = one.quiesce().await;
    let (_, b) = two.quiesce().await;
    assert_eq!(
        (a.facts.resources.clone(), a.facts.attachments_digest),
        (b.facts.resources, b.facts.attachments_digest)
    );
    assert!(
        ["Patient", "Appointment", "Encounter", "DocumentReference"].iter().all(|kind| a.facts.resources[*kind] > 0)
    );
}

/// The half of the next test that runs as another user.
#[tokio::test]
async fn as_another_user() {
    let Some(socket) = std::env::var_os("OPS_TEST_SOCKET") else { return };
    let refused = Client::connect(Path::new(&socket)).await.map(|_| ());
    assert!(matches!(refused, Err(ClientError::Refused(Refusal::Peer))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        skip("another_user_is_refused", "becoming another user needs root");
        return;
    }
    let practice = Practice::open().await;
    fs::set_permissions(practice.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = practice.dir.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut child = std::process::Command::new(program);
    child.args(["--exact", "ops::as_another_user"]).env("OPS_TEST_SOCKET", &practice.settings.ops_socket);
    child.uid(65_534).gid(65_534).current_dir("/");
    let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

/// Tells `tests/run` that a test did not run here; with `CI=true` that is a failure.
fn skip(test: &str, reason: &str) {
    use std::io::Write;
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("HOLDFAST_SKIPS") {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{test}\t{reason}\n").as_bytes()).unwrap();
    }
}
