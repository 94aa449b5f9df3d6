//! A plan that somebody ends after it was announced: nothing of it goes, nobody who was told that a snapshot is durable was told
//! wrong, and the next plan goes on.

use crate::practice::noise;
use crate::prune::{NOW_BYTES, Pruning, last};
use backup_engine::prune::{PruneRequest, StorePruned, Waiting, propose, withdraw};
use backup_engine::{condemned_objects, heads};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

async fn end(pruning: &Pruning) -> Option<u64> {
    let practice = &pruning.practice;
    withdraw(&practice.env, &practice.made.open, &pruning.pruner, &pruning.stores).await.unwrap()
}

fn is_plan(name: &str) -> bool {
    name.starts_with("condemned/")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_withdrawn_takes_nothing_and_holds_up_nothing() {
    let pruning = Pruning::new(2).await;
    let taken = pruning.history(4).await;
    let practice = &pruning.practice;
    assert_eq!(end(&pruning).await, None, "none is announced");
    // As by a clock that was a year ahead.
    let request = PruneRequest { grace: Duration::from_secs(365 * 86_400), ..last(2) };
    let plan = pruning.announce(&request).await.unwrap().name;
    let beside = practice.snapshot().await;
    assert!(matches!(pruning.execute(&request).await.waiting, Some(Waiting::Grace { .. })));
    let proposed = async || propose(&practice.env, &practice.made.open, &practice.stores, &request).await.unwrap();
    assert_eq!(proposed().await.announced, Some(plan));
    assert_eq!(end(&pruning).await, Some(plan.number));
    assert_eq!((proposed().await.announced, end(&pruning).await), (None, None));
    let done = pruning.execute(&request).await;
    assert!(done.waiting.is_none() && done.stores.iter().all(StorePruned::is_done), "{done:?}");
    let left = pruning.snapshots().await;
    assert!(taken.iter().chain([&beside]).all(|taken| left.contains(&taken.id)));
    assert!(practice.objects("store-0").keys().filter(|name| is_plan(name)).count() == 1, "the plan itself goes");
    // A writer builds on what the plan had named, and the next plan takes out what the first would have.
    practice.snapshot().await;
    pruning.announce(&last(1)).await.unwrap();
    let newest = practice.snapshot().await;
    let done = pruning.execute(&last(1)).await;
    assert!(done.waiting.is_none() && done.snapshots == 5, "{done:?}");
    pruning.assert_whole().await;
    let back = practice.restore_from(&practice.stores[1], newest.id).await;
    assert_eq!(fs::read(back.join("now")).unwrap(), noise(3, NOW_BYTES));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_durable_before_a_plan_lay_everywhere_counts_after_its_end() {
    let pruning = Pruning::new(2).await;
    pruning.history(3).await;
    let practice = &pruning.practice;
    pruning.announce(&last(1)).await.unwrap();
    // It was put to one store before maintenance was killed.
    let objects = practice.objects("store-1");
    let (plan, path) = objects.iter().find(|(name, _)| is_plan(name)).unwrap();
    fs::remove_file(path).unwrap();
    let one = std::slice::from_ref(&practice.stores[1]);
    let told = pruning.other_writer_at(one, "other", 7).await.unwrap();
    assert!(told.durable);
    assert!(end(&pruning).await.is_some());
    assert!(practice.objects("store-1").contains_key(plan), "it lies everywhere now");
    let known = heads(&practice.env, practice.made.open.catalog(), &practice.stores).await.unwrap();
    assert!(known.uncommitted.is_empty() && known.snapshots.iter().any(|info| info.id == told.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_order_before_has_left_still_goes() {
    let pruning = Pruning::new(2).await;
    pruning.history(4).await;
    let practice = &pruning.practice;
    let before: Vec<(PathBuf, Vec<u8>)> =
        practice.objects("store-0").into_values().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    pruning.announce(&last(1)).await.unwrap();
    practice.snapshot().await;
    pruning.execute(&last(1)).await;
    let gone: Vec<&(PathBuf, Vec<u8>)> = before.iter().filter(|(path, _)| !path.exists()).collect();
    assert!(!gone.is_empty());
    // As a lock would have kept it at one store.
    gone.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    fs::write(practice.source().join("now"), noise(50, NOW_BYTES)).unwrap();
    practice.snapshot().await;
    assert!(pruning.announce(&last(1)).await.is_some());
    assert!(end(&pruning).await.is_some());
    // Nobody brings it to the other store, or misses it there.
    let going = condemned_objects(practice.made.open.catalog(), &practice.stores).await.unwrap();
    let objects = practice.objects("store-0");
    let left = objects.iter().filter(|(_, path)| gone.iter().any(|(gone, _)| gone == *path));
    assert_eq!(left.filter(|(name, _)| !going.contains(*name)).count(), 0);
    let done = pruning.execute(&last(1)).await;
    assert!(done.stores.iter().all(StorePruned::is_done), "{done:?}");
    assert!(gone.iter().all(|(path, _)| !path.exists()));
    pruning.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_by_the_order_before_is_missed_by_nobody() {
    let pruning = Pruning::new(2).await;
    pruning.history(3).await;
    let practice = &pruning.practice;
    pruning.announce(&last(1)).await.unwrap();
    practice.snapshot().await;
    pruning.execute(&last(1)).await;
    let gone = condemned_objects(practice.made.open.catalog(), &practice.stores).await.unwrap();
    assert!(gone.iter().any(|name| name.starts_with("packs/")));
    fs::write(practice.source().join("now"), noise(50, NOW_BYTES)).unwrap();
    practice.snapshot().await;
    pruning.announce(&last(1)).await.unwrap();
    assert!(end(&pruning).await.is_some());
    let still = condemned_objects(practice.made.open.catalog(), &practice.stores).await.unwrap();
    let packs =
        |names: &std::collections::BTreeSet<String>| names.iter().filter(|name| name.starts_with("packs/")).count();
    assert_eq!(packs(&still), packs(&gone), "an index object that stays may name them");
    pruning.assert_whole().await;
}
