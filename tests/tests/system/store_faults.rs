//! Faults of networks and services, injected before a real gateway. Each ends in a whole snapshot or in one of the four
//! words, never in wrong bytes, a fork or a hang.

use crate::practice::{Practice, describe, fill, noise};
use crate::stores;
use crate::stores::proxy::{Act, Proxy, Seen};
use anyhow::{Context, Result};
use backup_engine::store::RenewStore;
use backup_engine::{
    Env, ErrorKind, InitOptions, NamedStore, NoProgress, RestoreRequest, Store, StoreLimits, StoreLocation,
    VerifyRequest, heads, init, replicate, restore, snapshot, verify,
};
use bytes::Bytes;
use http::Method;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A bucket of its own on the one gateway, behind a proxy.
async fn behind_proxy(test: &str, bucket: &str) -> Result<Option<(Proxy, StoreLocation)>> {
    let Some(url) = stores::ceph(test) else { return Ok(None) };
    stores::bucket(url, bucket, &[]).await?;
    let proxy = Proxy::before(url).await;
    let location = stores::s3_location(&proxy.url, bucket, stores::OWNER);
    Ok(Some((proxy, location)))
}

async fn practice_with(named: Vec<NamedStore>) -> Result<Practice> {
    let dir = tempfile::tempdir()?;
    std::fs::create_dir(dir.path().join("source"))?;
    let env = Env::real();
    let made = init(&env, &named, InitOptions::default()).await?;
    let practice = Practice { dir, env, made, stores: named };
    fill(&practice.source());
    Ok(practice)
}

async fn one(location: &StoreLocation) -> Result<Practice> {
    practice_with(vec![NamedStore::new("gateway", location.open()?, true)]).await
}

/// Everything in the store is whole, and no chain of heads has a fork or a gap.
async fn is_sound(practice: &Practice, store: &NamedStore, snapshots: usize) {
    let request = VerifyRequest { read_data: true, snapshot: None };
    let checked = verify(&practice.env, &practice.made.open, store, request, &NoProgress).await.unwrap();
    assert!(checked.is_ok(), "{checked:?}");
    let seen = heads(&practice.env, practice.made.open.catalog(), std::slice::from_ref(store)).await.unwrap();
    assert!(seen.snapshots.iter().all(|snapshot| !snapshot.forked) && seen.gaps.is_empty() && seen.rejected.is_empty());
    assert_eq!(seen.snapshots.len(), snapshots);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_429_and_503_is_waited_out_and_not_answered_with_a_storm() -> Result<()> {
    let Some((proxy, location)) = behind_proxy("a_storm_of_429_and_503", "storm").await? else { return Ok(()) };
    let practice = one(&location).await?;
    let refused = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&refused);
    // Objects are refused until ten times were. (A store that does not list within seconds is passed over for this time.)
    proxy.plan(move |request: &Seen<'_>| match request.path.contains("list-type=2") {
        true => Act::Pass,
        false => match count.fetch_add(1, Ordering::SeqCst) {
            n if n >= 10 => Act::Pass,
            n if n % 2 == 0 => Act::Refuse(503, "SlowDown"),
            _ => Act::Refuse(429, "TooManyRequests"),
        },
    });
    let taken = practice.snapshot().await;
    assert!(refused.load(Ordering::SeqCst) > 10);
    is_sound(&practice, &practice.stores[0], 1).await;
    assert_eq!(describe(&practice.restore_from(&practice.stores[0], taken.id).await), describe(&practice.source()));

    let (asked, times) = (Arc::new(AtomicU32::new(0)), location.open()?);
    let count = Arc::clone(&asked);
    proxy.plan(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Act::Refuse(503, "SlowDown")
    });
    let waited = tokio::time::timeout(Duration::from_secs(4), times.get("packs/none")).await;
    assert!(waited.is_err(), "it goes on waiting");
    assert!((2..=6).contains(&asked.load(Ordering::SeqCst)), "with growing pauses: {asked:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_whose_answer_is_lost_is_neither_lost_nor_doubled() -> Result<()> {
    let Some((proxy, location)) = behind_proxy("a_put_whose_answer_is_lost", "ambiguous").await? else { return Ok(()) };
    let practice = one(&location).await?;
    let seen: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let puts = Arc::clone(&seen);
    proxy.plan(move |request: &Seen<'_>| {
        if request.method != "PUT" {
            return Act::Pass;
        }
        let mut puts = puts.lock().unwrap();
        let times = puts.entry(request.path.to_owned()).or_default();
        *times += 1;
        if *times == 1 { Act::LoseAnswer } else { Act::Pass }
    });
    practice.snapshot().await;
    std::fs::write(practice.source().join("more"), noise(9, 400_000))?;
    let second = practice.snapshot().await;
    assert_eq!(second.counter, 2);
    assert!(seen.lock().unwrap().values().all(|times| *times == 2), "each was put again, once");
    is_sound(&practice, &practice.stores[0], 2).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_cut_short_are_asked_for_again_and_changed_ones_are_never_believed() -> Result<()> {
    let Some((proxy, location)) = behind_proxy("answers_cut_short", "bodies").await? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let other = NamedStore::new("folder", StoreLocation::Folder { path: dir.path().join("store") }.open()?, true);
    let practice = practice_with(vec![NamedStore::new("gateway", location.open()?, true), other]).await?;
    let taken = practice.snapshot().await;
    let source = describe(&practice.source());

    let cut: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let first = Arc::clone(&cut);
    proxy.plan(move |request: &Seen<'_>| {
        let new = request.method == "GET" && first.lock().unwrap().insert(request.path.to_owned());
        if new { Act::CutAnswer } else { Act::Pass }
    });
    assert_eq!(describe(&practice.restore_from(&practice.stores[0], taken.id).await), source);
    assert!(cut.lock().unwrap().len() > 3);

    proxy.plan(|request: &Seen<'_>| {
        let pack = request.method == "GET" && request.path.contains("/packs/");
        if pack { Act::FlipAnswer } else { Act::Pass }
    });
    let into = practice.dir.path().join("never");
    let request = RestoreRequest { into: into.clone(), ..RestoreRequest::default() };
    let (env, open) = (&practice.env, &practice.made.open);
    let refused = restore(env, open, &practice.stores[0], taken.id, request, &NoProgress).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Damaged);
    let request = VerifyRequest { read_data: true, snapshot: None };
    let checked = verify(env, open, &practice.stores[0], request, &NoProgress).await?;
    assert!(!checked.is_ok() && !checked.corrupt.is_empty() && checked.missing.is_empty(), "{checked:?}");
    // Damage does not spread: what comes changed is not copied to another store.
    let empty = NamedStore::new("new", StoreLocation::Folder { path: dir.path().join("new") }.open()?, true);
    std::fs::create_dir(dir.path().join("new"))?;
    let pair = [practice.stores[0].clone(), empty.clone()];
    // Whether it says so or passes them over, none of them arrives.
    drop(replicate(env, &practice.made.writer, &pair, None).await);
    for object in empty.store.list("packs/").await? {
        let bytes = empty.store.get(&object.name).await?;
        assert!(object.name.ends_with(&blake3::hash(&bytes).to_hex().to_string()), "{} came damaged", object.name);
    }
    assert_eq!(describe(&practice.restore_from(&practice.stores[1], taken.id).await), source);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_from_the_past_makes_no_fork_and_loses_no_snapshot() -> Result<()> {
    let Some((proxy, location)) = behind_proxy("a_listing_from_the_past", "stale").await? else { return Ok(()) };
    let practice = one(&location).await?;
    let store = location.open()?;
    store.list("").await?;
    let (asked, early) = proxy.last_answer("list-type=2");
    let first = practice.snapshot().await;
    // The store goes on saying what it said before the first snapshot.
    proxy.plan(move |request: &Seen<'_>| match asked.ends_with(request.path) {
        true => Act::Instead(early.clone()),
        false => Act::Pass,
    });
    std::fs::write(practice.source().join("more"), noise(11, 300_000))?;
    let second = practice.snapshot().await;
    proxy.plan(|_| Act::Pass);
    std::fs::write(practice.source().join("more"), noise(12, 300_000))?;
    let third = practice.snapshot().await;
    is_sound(&practice, &practice.stores[0], 3).await;
    for id in [first.id, second.id, third.id] {
        practice.restore_from(&practice.stores[0], id).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_credentials_are_a_refusal_and_new_ones_are_taken_without_a_restart() -> Result<()> {
    let Some((proxy, location)) = behind_proxy("expired_credentials", "expired").await? else { return Ok(()) };
    let asked = Arc::new(AtomicU32::new(0));
    for (status, code) in [(400, "ExpiredToken"), (403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch")] {
        let count = Arc::clone(&asked);
        asked.store(0, Ordering::SeqCst);
        proxy.plan(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Act::Refuse(status, code)
        });
        let refused = location.open()?.get("packs/a").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied, "{code}: {refused}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{code}: asking again helps nobody");
    }
    proxy.plan(|_| Act::Pass);
    // The key file holds a key that the gateway does not know, until somebody replaces it.
    let key = Arc::new(Mutex::new(("EXPIRED".to_owned(), "no secret".to_owned())));
    let now = Arc::clone(&key);
    let read = move || {
        let (access, secret) = now.lock().unwrap().clone();
        Ok(match location.clone() {
            StoreLocation::S3 { endpoint, bucket, prefix, region, session_token, allow_http, .. } => {
                StoreLocation::S3 {
                    endpoint,
                    bucket,
                    prefix,
                    region,
                    access_key: access,
                    secret_key: secret,
                    session_token,
                    allow_http,
                }
            }
            other => other,
        })
    };
    let store = RenewStore::open(read, StoreLimits::default())?;
    assert_eq!(store.put("index/a", Bytes::from_static(b"a")).await.unwrap_err().kind(), ErrorKind::Denied);
    *key.lock().unwrap() = (stores::OWNER.0.to_owned(), stores::OWNER.1.to_owned());
    store.put("index/a", Bytes::from_static(b"a")).await?;
    assert_eq!(store.get("index/a").await?, "a");
    assert_eq!(store.list("").await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn correctness_rests_on_no_conditional_put() -> Result<()> {
    let test = "correctness_rests_on_no_conditional_put";
    let Some((proxy, location)) = behind_proxy(test, "conditional").await? else { return Ok(()) };
    // A gateway that ignores conditions is one whose clients send none: none must be missed.
    let conditions = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&conditions);
    proxy.plan(move |request: &Seen<'_>| {
        let head = request.head.to_ascii_lowercase();
        let conditional =
            ["\nif-none-match:", "\nif-match:", "generation-match:"].iter().any(|word| head.contains(word));
        count.fetch_add(u32::from(request.method == "PUT" && conditional), Ordering::SeqCst);
        Act::Pass
    });
    // Two writers at once on such a store: both histories stay.
    let practice = one(&location).await?;
    let state = |name: &str| {
        let mut request = practice.request(1);
        request.state_dir = Some(practice.dir.path().join(name));
        request
    };
    let take =
        |name: &'static str| snapshot(&practice.env, &practice.made.writer, &practice.stores, state(name), &NoProgress);
    let (one, other) = tokio::join!(take("state-a"), take("state-b"));
    assert!(one?.durable && other?.durable);
    assert_eq!(conditions.load(Ordering::SeqCst), 0);
    is_sound(&practice, &practice.stores[0], 2).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn multipart_leftovers_disturb_nothing_and_none_is_ours() -> Result<()> {
    let Some((proxy, location)) = behind_proxy("multipart_leftovers", "multipart").await? else { return Ok(()) };
    let practice = one(&location).await?;
    std::fs::write(practice.source().join("large"), noise(21, 20 << 20))?;
    // Somebody's upload of what would be a pack stays unfinished.
    let name = format!("{}/multipart/holdfast/packs/ab/{}", proxy.url, "ab".repeat(32));
    let begun = stores::s3(stores::OWNER, Method::POST, &format!("{name}?uploads="), &[], "").await?;
    let begun = String::from_utf8(begun.to_vec())?;
    let id = begun.split("<UploadId>").nth(1).and_then(|rest| rest.split('<').next()).context("an upload")?;
    let part = format!("{name}?partNumber=1&uploadId={}", id.replace('~', "%7E"));
    stores::s3(stores::OWNER, Method::PUT, &part, &[], "half").await?;
    practice.snapshot().await;
    is_sound(&practice, &practice.stores[0], 1).await;
    let pending = format!("{}/multipart?uploads=", proxy.url);
    let pending = stores::s3(stores::OWNER, Method::GET, &pending, &[], "").await?;
    let pending = String::from_utf8(pending.to_vec())?;
    assert_eq!(pending.matches("<UploadId>").count(), 1, "every object of ours is one put: {pending}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_falls_silent_is_unreachable_and_holds_up_no_other() -> Result<()> {
    let Some((proxy, location)) = behind_proxy("a_store_that_falls_silent", "silent").await? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let folder = StoreLocation::Folder { path: dir.path().join("store") };
    let limits = StoreLimits { request: Duration::from_millis(500), ..StoreLimits::default() };
    let silent = NamedStore::new("gateway", location.open_with(limits)?, true);
    let practice = practice_with(vec![silent, NamedStore::new("folder", folder.open()?, true)]).await?;
    proxy.plan(|request: &Seen<'_>| if request.method == "PUT" { Act::Silence } else { Act::Pass });
    let request = practice.request(1);
    let taken = snapshot(&practice.env, &practice.made.writer, &practice.stores, request, &NoProgress).await?;
    assert!(taken.durable && taken.stores[1].durable && !taken.stores[0].durable);
    let error = taken.stores[0].error.as_ref().map(backup_engine::Error::kind);
    // It lists: whether it is slow or silent is not known before it was asked alone, and nobody waits so long for it.
    assert!(matches!(error, Some(ErrorKind::Unreachable | ErrorKind::Retry)), "{error:?}");
    is_sound(&practice, &practice.stores[1], 1).await;
    proxy.plan(|_| Act::Pass);
    let done = replicate(&practice.env, &practice.made.writer, &practice.stores, None).await?;
    assert!(done.iter().all(|store| store.complete), "{done:?}");
    is_sound(&practice, &practice.stores[0], 1).await;
    Ok(())
}
