//! Versions, locks and the way back to a time, on a gateway that enforces them.

use crate::practice::{Practice, describe, fill, noise};
use crate::stores;
use anyhow::{Context, Result};
use backup_engine::store::versions::{Lock, LockMode, VersionedStore};
use backup_engine::store::{AsOfStore, LockRule, Protection};
use backup_engine::{
    Env, ErrorKind, InitOptions, LockWish, NamedStore, NoProgress, Store, StoreLimits, StoreLocation, VerifyRequest,
    extend_locks, heads, init, snapshot, verify,
};
use bytes::Bytes;
use holdfast_tests::daemons;
use holdfast_tests::place::{Place, awkward, describe as tree, fails, ok};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LOCKS: (&str, &str) = ("x-amz-bucket-object-lock-enabled", "true");

fn now_unix_ms() -> i64 {
    Env::real().now_unix_ms()
}

fn versions(location: &StoreLocation) -> Arc<dyn VersionedStore> {
    location.open_versions(StoreLimits::default()).expect("it opens").expect("S3 has versions")
}

async fn locked_bucket(url: &str, name: &str) -> Result<StoreLocation> {
    stores::bucket(url, name, &[LOCKS]).await?;
    Ok(stores::s3_location(url, name, stores::OWNER))
}

fn denied<T: std::fmt::Debug>(result: backup_engine::Result<T>, what: &str) {
    assert_eq!(result.expect_err(what).kind(), ErrorKind::Denied, "{what}");
}

async fn until(unix_ms: i64) {
    while now_unix_ms() <= unix_ms {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_can_be_extended_and_neither_shortened_nor_broken() -> Result<()> {
    let Some(url) = stores::ceph("a_lock_can_be_extended_and_neither_shortened_nor_broken") else { return Ok(()) };
    let store = versions(&locked_bucket(url, "locks").await?);
    let settings = store.settings().await?;
    assert!(settings.versions && settings.locks && settings.new_objects.is_none(), "{settings:?}");
    for mode in [LockMode::Compliance, LockMode::Governance] {
        let name = &format!("packs/aa/{mode:?} lock+1");
        let lock = |seconds: i64| Lock { mode, until_unix_ms: (now_unix_ms() / 1000 + seconds) * 1000 };
        let first = lock(4);
        store.put_locked(name, Bytes::from_static(b"first"), first).await?;
        let version = store.versions("packs/").await?.into_iter().find(|v| &v.name == name).context("listed")?.id;
        assert_eq!(store.lock(name, Some(&version)).await?, Some(first));
        denied(store.delete_version(name, Some(&version), false).await, "the version is locked");
        let further = lock(7);
        store.set_lock(name, Some(&version), further).await?;
        assert_eq!(store.lock(name, None).await?, Some(further));
        // Not so short that it is past already when it arrives: that is another refusal.
        denied(store.set_lock(name, Some(&version), lock(3)).await, "a lock cannot be shortened");
        until(first.until_unix_ms).await;
        denied(store.delete_version(name, Some(&version), false).await, "the extension holds");

        store.set_legal_hold(name, Some(&version), true).await?;
        assert!(store.legal_hold(name, Some(&version)).await?);
        until(further.until_unix_ms + 1000).await;
        denied(store.delete_version(name, Some(&version), false).await, "a hold keeps it without a day");
        store.set_legal_hold(name, Some(&version), false).await?;
        assert!(!store.legal_hold(name, None).await?);
        store.delete_version(name, Some(&version), false).await?;
        assert_eq!(store.get_version(name, &version).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_outlast_overwrites_and_deletions_by_name() -> Result<()> {
    let Some(url) = stores::ceph("versions_outlast_overwrites_and_deletions_by_name") else { return Ok(()) };
    let location = locked_bucket(url, "versions").await?;
    let (store, plain) = (versions(&location), location.open()?);
    for body in ["one", "two"] {
        plain.put("index/a", Bytes::from_static(body.as_bytes())).await?;
    }
    store.delete_version("index/a", None, false).await?;
    assert_eq!(plain.get("index/a").await.unwrap_err().kind(), ErrorKind::NotFound);
    let all = store.versions("index/").await?;
    assert_eq!(all.iter().map(|v| v.is_delete_marker).collect::<Vec<_>>(), [true, false, false]);
    let mut bodies = Vec::new();
    for version in &all[1..] {
        bodies.push(store.get_version("index/a", &version.id).await?);
        assert_eq!(store.lock("index/a", Some(&version.id)).await?, None);
    }
    bodies.sort();
    assert_eq!(bodies, ["one", "two"]);
    assert_eq!(store.get_version_range("index/a", &all[1].id, 1..3).await?.len(), 2);

    // More versions than one page has.
    let puts = (0..1050).map(|n| {
        let plain = Arc::clone(&plain);
        async move { plain.put(&format!("many/{:03}", n % 350), Bytes::from(vec![0; n])).await }
    });
    for put in futures::future::join_all(puts).await {
        put?;
    }
    let many = store.versions("many/").await?;
    assert_eq!((many.len(), many.iter().filter(|v| v.is_latest).count()), (1050, 350));

    stores::bucket(url, "no-versions", &[]).await?;
    let bare = versions(&stores::s3_location(url, "no-versions", stores::OWNER));
    assert_eq!(bare.settings().await?, Default::default());
    let stranger = versions(&stores::s3_location(url, "versions", stores::WRITER));
    denied(stranger.versions("").await, "another's bucket");
    denied(stranger.settings().await, "another's bucket");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sacrificial_object_shows_what_a_store_really_keeps() -> Result<()> {
    let Some(url) = stores::ceph("a_sacrificial_object_shows_what_a_store_really_keeps") else { return Ok(()) };
    let env = Env::real();
    stores::bucket(url, "probe-plain", &[]).await?;
    let plain = stores::s3_location(url, "probe-plain", stores::OWNER);
    let limits = StoreLimits::default();
    assert_eq!(plain.probe(&env, limits).await?, Protection::LostByOverwrite);

    // Versions alone do not help: the same credentials delete them.
    let locked = locked_bucket(url, "probe-locked").await?;
    assert_eq!(locked.probe(&env, limits).await?, Protection::LostByDelete);
    let rule = LockRule { mode: LockMode::Compliance, ms: 60_000 };
    let with_locks = StoreLimits { lock: Some(rule), ..limits };
    for _ in 0..2 {
        assert_eq!(locked.probe(&env, with_locks).await?, Protection::Locked);
    }

    // Whoever may bypass a governance lock is not kept by it.
    let weaker = StoreLimits { lock: Some(LockRule { mode: LockMode::Governance, ..rule }), ..limits };
    assert_eq!(locked.probe(&env, weaker).await?, Protection::LostByDelete);

    // Credentials that may neither overwrite nor delete, by a policy that the gateway enforces.
    stores::bucket(url, "probe-policy", &[]).await?;
    let policy = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Principal":{"AWS":["arn:aws:iam:::user/writer"]},
         "Action":["s3:GetObject","s3:PutObject","s3:ListBucket","s3:ListBucketVersions"],
         "Resource":["arn:aws:s3:::probe-policy","arn:aws:s3:::probe-policy/*"]},
        {"Effect":"Deny","Principal":{"AWS":["arn:aws:iam:::user/writer"]},
         "Action":["s3:DeleteObject","s3:DeleteObjectVersion"],"Resource":["arn:aws:s3:::probe-policy/*"]}]}"#;
    let at = format!("{url}/probe-policy?policy=");
    stores::s3(stores::OWNER, http::Method::PUT, &at, &[], policy).await?;
    let writer = stores::s3_location(url, "probe-policy", stores::WRITER);
    let found = writer.probe(&env, limits).await?;
    assert_eq!(found, Protection::LostByOverwrite, "a policy against deletion leaves overwriting");

    let dir = tempfile::tempdir()?;
    let folder = StoreLocation::Folder { path: dir.path().to_owned() };
    assert_eq!(folder.probe(&env, limits).await?, Protection::LostByOverwrite);
    Ok(())
}

/// A practice whose one store is a bucket with locks.
async fn practice_at(location: &StoreLocation, rule: LockRule) -> Result<Practice> {
    let dir = tempfile::tempdir()?;
    std::fs::create_dir(dir.path().join("source"))?;
    let limits = StoreLimits { lock: Some(rule), ..StoreLimits::default() };
    let stores = vec![NamedStore::new("locked", location.open_with(limits)?, true)];
    let env = Env::real();
    let made = init(&env, &stores, InitOptions::default()).await?;
    Ok(Practice { dir, env, made, stores })
}

/// How many snapshots a day has at one every five minutes, and how long locks last; a few, and two minutes, by day.
fn day() -> (u64, i64) {
    let (count, ms) = if std::env::var_os("HOLDFAST_NIGHTLY").is_some() { (288, 600_000) } else { (12, 120_000) };
    println!("a day of {count} snapshots");
    (count, ms)
}

/// Everything that somebody with these credentials can do to a bucket, as fast as the gateway takes it.
async fn attack(store: &dyn VersionedStore, plain: &dyn Store, shorten: bool) -> Result<(u64, u64)> {
    let all = store.versions("").await?;
    let (mut refused, mut done) = (0, 0);
    let mut count = |result: backup_engine::Result<()>| match result {
        Ok(()) => done += 1,
        Err(error) if error.kind() == ErrorKind::Denied => refused += 1,
        Err(error) => panic!("the gateway answers: {error}"),
    };
    for version in &all {
        let soon = now_unix_ms() + 2_000;
        // A lock that is over would only be set anew.
        for mode in [LockMode::Compliance, LockMode::Governance].into_iter().filter(|_| shorten) {
            count(store.set_lock(&version.name, Some(&version.id), Lock { mode, until_unix_ms: soon }).await);
        }
        count(store.delete_version(&version.name, Some(&version.id), false).await);
    }
    let names: BTreeSet<&String> = all.iter().map(|version| &version.name).collect();
    for (at, name) in names.into_iter().enumerate() {
        plain.put(name, noise(at as u64 + 1, 700).into()).await?;
        store.delete_version(name, None, false).await?;
    }
    Ok((refused, done))
}

#[tokio::test(flavor = "multi_thread")]
async fn ransomware_with_all_of_the_writers_credentials_loses_nothing_that_is_locked() -> Result<()> {
    let test = "ransomware_with_all_of_the_writers_credentials_loses_nothing_that_is_locked";
    let Some(url) = stores::ceph(test) else { return Ok(()) };
    let location = locked_bucket(url, "ransomware").await?;
    let (snapshots, ms) = day();
    let rule = LockRule { mode: LockMode::Compliance, ms };
    let practice = practice_at(&location, rule).await?;
    fill(&practice.source());
    let mut last = None;
    for n in 0..snapshots {
        std::fs::write(practice.source().join("letters/today"), noise(n + 1, 20_000))?;
        last = Some(practice.snapshot().await);
    }
    let last = last.context("a snapshot")?;
    let before = describe(&practice.source());
    let store = versions(&location);

    // Maintenance comes by once: every lock is moved to its full length.
    let wish = LockWish { rule, slack_ms: rule.ms - 1_000 };
    let kept = extend_locks(&practice.env, &practice.stores[0], &*store, wish, &BTreeSet::new()).await;
    assert!(kept.holds() && kept.extended > 0, "{kept:?}");
    let held_until = kept.earliest_until_unix_ms.context("locks")?;
    let attacked_at = now_unix_ms();
    // The gateway's clock has whole seconds, and the attack begins in a later one.
    until(attacked_at + 1_100).await;

    let (refused, done) = attack(&*store, &*location.open()?, true).await?;
    assert_eq!(done, 0, "no lock was shortened and no version deleted, {refused} times refused");
    assert!(now_unix_ms() < held_until, "the attack was within the locks");
    let broken = heads(&practice.env, practice.made.open.catalog(), &practice.stores).await;
    assert!(broken.is_ok_and(|heads| heads.snapshots.is_empty()), "by name, nothing is left");

    let past = AsOfStore::open(Arc::clone(&store), attacked_at).await?;
    let past = NamedStore::new("as-of", Arc::new(past), true);
    let seen = heads(&practice.env, practice.made.open.catalog(), std::slice::from_ref(&past)).await?;
    assert_eq!((seen.snapshots[0].id, seen.snapshots.len() as u64), (last.id, last.counter));
    let whole = VerifyRequest { read_data: true, snapshot: None };
    let checked = verify(&practice.env, &practice.made.open, &past, whole, &NoProgress).await?;
    assert!(checked.is_ok(), "{checked:?}");
    assert_eq!(describe(&practice.restore_from(&past, last.id).await), before);
    // What is written to the past is refused, and says so.
    let request = practice.request(1);
    let refused =
        snapshot(&practice.env, &practice.made.writer, std::slice::from_ref(&past), request, &NoProgress).await;
    assert!(refused.is_err());

    // The alarm: where a repository was there is none, and the next snapshot says so instead of beginning anew.
    let next = snapshot(&practice.env, &practice.made.writer, &practice.stores, practice.request(1), &NoProgress).await;
    assert!(next.is_err_and(|error| error.kind() == ErrorKind::NotFound && error.to_string().contains("keyring")));

    // The locks were all that held: after their day the same attack takes everything.
    until(held_until + 5_000).await;
    let (_, done) = attack(&*store, &*location.open()?, false).await?;
    assert!(done > 0);
    let gone = AsOfStore::open(store, attacked_at).await?;
    assert!(gone.list("heads/").await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_that_a_kept_snapshot_reaches_stays_locked_and_a_condemned_one_does_not() -> Result<()> {
    let test = "every_object_that_a_kept_snapshot_reaches_stays_locked_and_a_condemned_one_does_not";
    let Some(url) = stores::ceph(test) else { return Ok(()) };
    let location = locked_bucket(url, "invariant").await?;
    let rule = LockRule { mode: LockMode::Governance, ms: 600_000 };
    let practice = practice_at(&location, rule).await?;
    fill(&practice.source());
    practice.snapshot().await;
    let store = versions(&location);
    let objects = location.open()?.list("").await?;
    let wanted = now_unix_ms() + 500_000;
    for object in &objects {
        let lock = store.lock(&object.name, None).await?;
        assert!(lock.is_some_and(|lock| lock.until_unix_ms >= wanted), "{}: locked at its put", object.name);
    }
    // An object from a time without locks.
    let odd = location.open()?;
    let name = format!("index/{}", "ab".repeat(32));
    odd.put(&name, Bytes::from_static(b"unlocked")).await?;
    let pack = objects.iter().find(|object| object.name.starts_with("packs/")).context("a pack")?.name.clone();
    let longer = LockRule { ms: 1_200_000, ..rule };
    let wish = LockWish { rule: longer, slack_ms: 900_000 };
    let condemned = BTreeSet::from([pack.clone()]);
    let done = extend_locks(&practice.env, &practice.stores[0], &*store, wish, &condemned).await;
    assert!(done.holds(), "{done:?}");
    assert_eq!((done.versions, done.extended), (objects.len() as u64, objects.len() as u64));
    let again = extend_locks(&practice.env, &practice.stores[0], &*store, wish, &condemned).await;
    assert_eq!((again.versions, again.extended), (done.versions, 0), "what is locked long enough is left alone");
    let wanted = now_unix_ms() + wish.slack_ms;
    for object in location.open()?.list("").await? {
        let until = store.lock(&object.name, None).await?.context("a lock")?.until_unix_ms;
        assert_eq!(until >= wanted, object.name != pack, "{}", object.name);
    }
    // Whoever may not move locks is told of each that is too short.
    let stranger = versions(&stores::s3_location(url, "invariant", stores::WRITER));
    let refused = extend_locks(&practice.env, &practice.stores[0], &*stranger, wish, &condemned).await;
    assert!(!refused.holds());
    // Settings that ask for the stricter mode: this gateway raises it for nobody but a key that may bypass the laxer one.
    let wish = LockWish { rule: LockRule { mode: LockMode::Compliance, ..longer }, ..wish };
    let named = store.versions("").await?.into_iter().find(|version| version.name == name).context("listed")?;
    let compliance = Lock { mode: LockMode::Compliance, until_unix_ms: now_unix_ms() + 2 * longer.ms };
    denied(store.set_lock(&name, Some(&named.id), compliance).await, "it does not do that by itself");
    let raised = extend_locks(&practice.env, &practice.stores[0], &*store, wish, &condemned).await;
    assert!(raised.holds(), "{raised:?}");
    assert_eq!((raised.extended, raised.short, raised.mode_short), (done.versions, 0, 0), "{raised:?}");
    for version in store.versions("").await? {
        let lock = store.lock(&version.name, Some(&version.id)).await?.context("a lock")?;
        let kept = version.name != pack;
        assert_eq!(lock.until_unix_ms >= wanted, kept, "{}: no lock became shorter", version.name);
        assert_eq!(lock.mode == LockMode::Compliance, kept, "{}", version.name);
        if kept {
            denied(store.delete_version(&version.name, Some(&version.id), true).await, "and nobody may bypass that");
        }
    }
    let again = extend_locks(&practice.env, &practice.stores[0], &*store, wish, &condemned).await;
    assert_eq!((again.holds(), again.extended), (true, 0), "{again:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_the_lock_and_then_leaves_no_version_behind() -> Result<()> {
    let test = "a_deletion_waits_for_the_lock_and_then_leaves_no_version_behind";
    let Some(url) = stores::ceph(test) else { return Ok(()) };
    let location = locked_bucket(url, "deletion").await?;
    let rule = LockRule { mode: LockMode::Governance, ms: 5_000 };
    let store = location.open_for_maintenance(StoreLimits { lock: Some(rule), ..StoreLimits::default() })?;
    let (name, neighbour) = (format!("packs/ab/{}", "ab".repeat(32)), format!("packs/ab/{}.1", "ab".repeat(32)));
    for name in [&name, &neighbour] {
        store.put(name, Bytes::from_static(b"first")).await?;
    }
    store.replace(&name, Bytes::from_static(b"second")).await?;
    let locked_until = now_unix_ms() + rule.ms;
    denied(store.delete(&name).await, "it is locked");
    assert_eq!(store.get(&name).await?, "second", "and nothing hides it");
    until(locked_until + 1_000).await;
    store.delete(&name).await?;
    assert_eq!(store.get(&name).await.unwrap_err().kind(), ErrorKind::NotFound);
    let left = versions(&location).versions("").await?;
    let names: Vec<&str> = left.iter().map(|version| version.name.as_str()).collect();
    assert_eq!(names, [neighbour.as_str()], "every version of the one, and no other object");
    store.delete(&name).await?;
    Ok(())
}

/// What somebody does to every object who has the writer's credentials.
async fn overwrite_and_delete(location: &StoreLocation) -> Result<()> {
    let (store, plain) = (versions(location), location.open()?);
    let names: BTreeSet<String> = store.versions("").await?.into_iter().map(|version| version.name).collect();
    for name in &names {
        plain.put(name, Bytes::from_static(b"your files are encrypted")).await?;
        store.delete_version(name, None, false).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_restores_as_of_a_time() -> Result<()> {
    let Some(url) = stores::ceph("the_command_line_restores_as_of_a_time") else { return Ok(()) };
    let location = locked_bucket(url, "as-of").await?;
    let place = Place::new()?;
    awkward(&place.source())?;
    let backupd = |args: &[&str]| {
        let mut command = place.bare(args);
        command.args(["--repo", "s3://as-of/holdfast"]).env("AWS_ENDPOINT_URL", url);
        command.env("AWS_ACCESS_KEY_ID", stores::OWNER.0).env("AWS_SECRET_ACCESS_KEY", stores::OWNER.1);
        command
    };
    ok(backupd(&["init"]))?;
    ok(backupd(&["snapshot", "--tag", "monday", "."]))?;
    let before = now_unix_ms();
    until(before + 2_100).await;
    overwrite_and_delete(&location).await?;
    let into = place.path("back").display().to_string();
    fails(backupd(&["restore", "--into", &into]), 2, &["there is no repository"])?;
    let time = chrono::DateTime::from_timestamp_millis(before + 1_000).context("a time")?;
    let time = time.format("%Y-%m-%d %H:%M:%S").to_string();
    let listed = ok(backupd(&["snapshots", "--as-of", &time]))?;
    assert!(listed.contains("monday"), "{listed}");
    ok(backupd(&["restore", "--as-of", &time, "--into", &into]))?;
    assert_eq!(tree(Path::new(&into), true)?, tree(&place.source(), true)?);
    fails(backupd(&["restore", "--as-of", "2001-01-01", "--into", &into]), 2, &["there is no repository"])?;
    fails(backupd(&["restore", "--as-of", "yesterday", "--into", &into]), 2, &["is no time"])?;
    let mut folder = place.bare(&["restore", "--repo", "here", "--as-of", "1h", "--into", &into]);
    folder.current_dir(place.dir.path());
    fails(folder, 2, &["--as-of needs a store with versions"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_practice_restores_as_of_a_time_through_its_verifier() -> Result<()> {
    let Some(url) = stores::ceph("a_practice_restores_as_of_a_time_through_its_verifier") else { return Ok(()) };
    let location = locked_bucket(url, "past").await?;
    let (place, dir) = (Place::new()?, tempfile::tempdir()?);
    let dir = dir.path();
    std::fs::write(dir.join("access"), stores::OWNER.0)?;
    std::fs::write(dir.join("secret"), stores::OWNER.1)?;
    let settings = format!(
        "{}[[store]]\nname = 'away'\nkind = 's3'\nendpoint = '{url}'\nbucket = 'past'\nprefix = 'holdfast'\n\
         access_key_file = 'access'\nsecret_key_file = 'secret'\nsite = 'away'\nprovider = 'ceph'\n",
        daemons::folders(dir, &["one"])?
    );
    daemons::practice_with(dir, &settings)?;
    std::fs::write(dir.join("data/letter"), "as it was")?;
    let _daemons = daemons::start(&place, dir)?;
    ok(daemons::with_config(&place, dir, &["snapshot", "--tag", "monday"], "serve.toml"))?;
    let before = now_unix_ms();
    until(before + 2_100).await;
    overwrite_and_delete(&location).await?;
    for file in holdfast_tests::files(&dir.join("store-one")) {
        std::fs::remove_file(file)?;
    }
    let time = chrono::DateTime::from_timestamp_millis(before + 1_000).context("a time")?;
    let time = time.format("%Y-%m-%d %H:%M:%S").to_string();
    let ask = |args: &[&str]| daemons::with_config(&place, dir, args, "verifier.toml");
    let listed = ok(ask(&["snapshots", "--as-of", &time]))?;
    assert!(listed.contains("monday"), "{listed}");
    let into = |name: &str| dir.join(name).display().to_string();
    assert!(!ask(&["restore", "--into", &into("now")]).output()?.status.success(), "nothing is left of it");
    for (name, which) in [("all", &["--store", "away"][..]), ("tagged", &["--tag", "monday"])] {
        let target = into(name);
        let args = [&["restore", "--as-of", &time, "--into", &target], which].concat();
        ok(ask(&args))?;
        let back = std::fs::read_to_string(dir.join(name).join("files/letter"))?;
        assert_eq!(back, "as it was");
    }
    let folder = ask(&["restore", "--as-of", &time, "--store", "one", "--into", &into("folder")]);
    fails(folder, 2, &["only S3 does"])?;
    fails(ask(&["restore", "--as-of", "2001-01-01", "--into", &into("early")]), 1, &["there is no whole snapshot"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_practices_objects_are_locked_at_their_put_and_its_locks_are_extended() -> Result<()> {
    let Some(url) = stores::ceph("a_practices_objects_are_locked_at_their_put_and_its_locks_are_extended") else {
        return Ok(());
    };
    let location = locked_bucket(url, "practice").await?;
    let place = Place::new()?;
    std::fs::write(place.path("access"), stores::OWNER.0)?;
    std::fs::write(place.path("secret"), stores::OWNER.1)?;
    let serve = format!(
        "practice = 'Example'\ntime_zone = 'UTC'\nsite = 'here'\nwriter_credential = 'writer.cred'\nstate_dir = 'state'\n\
         socket = 's'\nquorum = 1\n[[source]]\nname = 'files'\nkind = 'folder'\npath = 'source'\nschedule = '0 * * * *'\n\
         [[store]]\nname = 'locked'\nkind = 's3'\nendpoint = '{url}'\nbucket = 'practice'\nprefix = 'holdfast'\n\
         access_key_file = 'access'\nsecret_key_file = 'secret'\nsite = 'away'\nprovider = 'ceph'\nlock_days = 1\n\
         lock_mode = 'governance'\n"
    );
    std::fs::write(place.path("serve.toml"), serve)?;
    let config = place.path("serve.toml").display().to_string();
    let kit = place.path("kit").display().to_string();
    ok(place.bare(&["init", "--config", &config, "--kit", &kit]))?;
    let (store, plain) = (versions(&location), location.open()?);
    let keyring = plain.list("keyring/").await?.pop().context("a keyring")?.name;
    let lock = store.lock(&keyring, None).await?.context("a lock")?;
    assert!(lock.mode == LockMode::Governance && lock.until_unix_ms > now_unix_ms() + 80_000_000, "{lock:?}");

    let extend = || -> Result<(Option<i32>, serde_json::Value)> {
        let output = place.bare(&["stores", "--extend-locks", "--json", "--config", &config]).output()?;
        let line = output.stdout.split(|byte| *byte == b'\n').next().unwrap_or_default();
        Ok((output.status.code(), serde_json::from_slice(line).context("a line of JSON")?))
    };
    let (code, done) = extend()?;
    assert_eq!((code, &done["extended"], &done["short"]), (Some(0), &0.into(), &0.into()), "{done}");
    plain.put(&format!("index/{}", "cd".repeat(32)), Bytes::from_static(b"unlocked")).await?;
    let (code, done) = extend()?;
    assert_eq!((code, &done["extended"]), (Some(0), &1.into()), "{done}");
    std::fs::write(place.path("access"), stores::WRITER.0)?;
    std::fs::write(place.path("secret"), stores::WRITER.1)?;
    assert_eq!(extend()?.0, Some(1), "a key that may not is told");
    Ok(())
}
