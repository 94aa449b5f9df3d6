//! What every store has lost stops every prune until people give it up, and then the rest of the history is pruned as before.

use crate::practice::noise;
use crate::prune::{NOW_BYTES, Pruning, last};
use backup_engine::prune::{self, Approved, GivenUp, PruneRequest, TripKind, announce, propose};
use backup_engine::{ErrorKind, SnapshotOutcome};
use std::collections::BTreeSet;
use std::fs;

/// Takes an object from every store.
fn lose(pruning: &Pruning, name: &str) {
    for store in &pruning.practice.stores {
        fs::remove_file(&pruning.practice.objects(&store.name)[name]).unwrap();
    }
}

fn damage(pruning: &Pruning, name: &str) {
    for store in &pruning.practice.stores {
        let path = &pruning.practice.objects(&store.name)[name];
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

/// As it is given up.
fn given(taken: &SnapshotOutcome) -> String {
    format!("lost-snapshot/{}", taken.id)
}

fn manifest(taken: &SnapshotOutcome) -> String {
    format!("snapshots/{}", taken.id)
}

fn these(names: &[String]) -> GivenUp {
    GivenUp::These(names.iter().cloned().collect())
}

async fn refused(pruning: &Pruning, request: &PruneRequest<'_>) -> String {
    let practice = &pruning.practice;
    let refused = propose(&practice.env, &practice.made.open, &practice.stores, request).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Damaged);
    refused.to_string()
}

/// What no plan can be made without giving up.
async fn needed(pruning: &Pruning) -> BTreeSet<String> {
    let practice = &pruning.practice;
    prune::lost(&practice.env, &practice.made.open, &practice.stores).await.unwrap()
}

async fn carry_out(pruning: &Pruning, request: &PruneRequest<'_>) {
    pruning.announce(request).await.unwrap();
    pruning.practice.snapshot().await;
    let done = pruning.execute(request).await;
    assert!(done.waiting.is_none() && done.stores.iter().all(backup_engine::prune::StorePruned::is_done), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_snapshot_goes_when_it_is_given_up_and_the_others_stay() {
    let pruning = Pruning::new(2).await;
    let taken = pruning.history(4).await;
    lose(&pruning, &manifest(&taken[1]));
    let said = refused(&pruning, &last(3)).await;
    assert!(said.contains("heal it before pruning"), "{said}");
    assert_eq!(needed(&pruning).await, BTreeSet::from([given(&taken[1])]));
    // That another one is given up does not help.
    refused(&pruning, &PruneRequest { given_up: these(&[given(&taken[0])]), ..last(3) }).await;
    let request = PruneRequest { given_up: these(&[given(&taken[1])]), ..last(3) };
    let practice = &pruning.practice;
    let proposal = propose(&practice.env, &practice.made.open, &practice.stores, &request).await.unwrap();
    assert_eq!(proposal.lost, BTreeSet::from([taken[1].id]));
    assert_eq!(proposal.approval(), BTreeSet::from([taken[1].id]), "the rule keeps the other three");
    // Nobody approved that it goes: then nothing does, for what it reaches is not known.
    let nobody = Approved::default();
    let none = announce(&practice.env, &practice.made.open, &pruning.pruner, &pruning.stores, &request, &nobody).await;
    assert_eq!(none.unwrap_err().kind(), ErrorKind::Damaged);
    pruning.practice.snapshot().await;
    pruning.execute(&request).await;
    carry_out(&pruning, &PruneRequest { given_up: these(&[given(&taken[1])]), ..last(4) }).await;
    pruning.assert_whole().await;
    let left = pruning.snapshots().await;
    assert!(left.contains(&taken[3].id) && !left.contains(&taken[1].id));
    let back = pruning.practice.restore_from(&pruning.practice.stores[1], taken[3].id).await;
    assert_eq!(fs::read(back.join("now")).unwrap(), noise(3, NOW_BYTES));
    // What is gone on purpose stops the next one no longer.
    propose(&pruning.practice.env, &pruning.practice.made.open, &pruning.practice.stores, &last(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_lost_part_of_its_tree_goes_as_a_whole_and_takes_nothing_of_the_others_along() {
    for kind in ["packs/", "index/"] {
        let pruning = Pruning::new(2).await;
        let taken = pruning.history(4).await;
        let practice = &pruning.practice;
        let objects: Vec<String> =
            practice.objects("store-0").into_keys().filter(|name| name.starts_with(kind)).collect();
        let keep = |name: &String| -> Vec<(std::path::PathBuf, Vec<u8>)> {
            let paths = practice.stores.iter().map(|store| practice.objects(&store.name)[name].clone());
            paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
        };
        let mut damaged = None;
        for object in objects {
            let kept = keep(&object);
            lose(&pruning, &object);
            // One of which not every snapshot needs something.
            let lost = needed(&pruning).await;
            if (1..4).contains(&lost.len()) {
                damaged = Some((kept, lost));
                break;
            }
            kept.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        }
        let (object, lost) = damaged.expect("some object holds part of one tree");
        refused(&pruning, &last(9)).await;
        let other = taken.iter().find(|taken| !lost.contains(&given(taken))).unwrap();
        refused(&pruning, &PruneRequest { given_up: these(&[given(other)]), ..last(9) }).await;
        let request = PruneRequest { given_up: GivenUp::These(lost.clone()), ..last(9) };
        let proposal = propose(&practice.env, &practice.made.open, &practice.stores, &request).await.unwrap();
        let going: BTreeSet<String> = proposal.going().map(|info| format!("lost-snapshot/{}", info.id)).collect();
        assert_eq!(going, lost, "{kind}");
        let nobody = Approved::default();
        let unapproved =
            announce(&practice.env, &practice.made.open, &pruning.pruner, &pruning.stores, &request, &nobody);
        assert_eq!(unapproved.await.unwrap_err().kind(), ErrorKind::Damaged, "nobody agreed to let it go");
        // What is found again is given up no longer.
        object.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        let proposal = propose(&practice.env, &practice.made.open, &practice.stores, &request).await.unwrap();
        assert!(proposal.going().next().is_none() && proposal.lost.is_empty(), "{kind}");
        object.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
        // Else the next snapshot would store again what the newest of them lost.
        fs::write(practice.source().join("now"), noise(9, NOW_BYTES)).unwrap();
        carry_out(&pruning, &request).await;
        let left = pruning.snapshots().await;
        for (at, taken) in taken.iter().enumerate() {
            let goes = lost.contains(&given(taken));
            assert_eq!(left.contains(&taken.id), !goes, "{kind}");
            if !goes {
                let back = practice.restore_from(&practice.stores[1], taken.id).await;
                assert_eq!(fs::read(back.join("now")).unwrap(), noise(at as u64, NOW_BYTES), "{kind}");
            }
        }
        pruning.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_the_next_one_made_whole_again_stays() {
    let pruning = Pruning::new(2).await;
    pruning.history(1).await;
    let practice = &pruning.practice;
    fs::write(practice.source().join("now"), noise(1, NOW_BYTES)).unwrap();
    let before: BTreeSet<String> = practice.objects("store-0").into_keys().collect();
    let newest = practice.snapshot().await;
    let packs: Vec<String> =
        practice.objects("store-0").into_keys().filter(|name| name.starts_with("packs/")).collect();
    packs.iter().filter(|name| !before.contains(*name)).for_each(|name| lose(&pruning, name));
    assert_eq!(needed(&pruning).await, BTreeSet::from([given(&newest)]));
    let request = PruneRequest { given_up: these(&[given(&newest)]), ..last(9) };
    pruning.announce(&request).await.unwrap();
    // The file is still there.
    practice.snapshot().await;
    pruning.execute(&request).await;
    assert!(pruning.snapshots().await.contains(&newest.id));
    let back = practice.restore_from(&practice.stores[1], newest.id).await;
    assert_eq!(fs::read(back.join("now")).unwrap(), noise(1, NOW_BYTES));
    pruning.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_meets_a_loss_when_it_is_carried_out_takes_no_pack() {
    let pruning = Pruning::new(2).await;
    let taken = pruning.history(4).await;
    let practice = &pruning.practice;
    pruning.announce(&last(1)).await.unwrap();
    practice.snapshot().await;
    let packs = pruning.count("store-0", "packs/");
    let indexes: Vec<String> =
        practice.objects("store-0").into_keys().filter(|name| name.starts_with("index/")).collect();
    let kept: Vec<(std::path::PathBuf, Vec<u8>)> = indexes
        .iter()
        .flat_map(|name| practice.stores.iter().map(|store| practice.objects(&store.name)[name].clone()))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    for name in &indexes {
        lose(&pruning, name);
    }
    for given_up in [GivenUp::Nothing, GivenUp::All] {
        // A rule keeps all of them by now.
        pruning.execute(&PruneRequest { given_up, ..last(9) }).await;
        assert_eq!(pruning.count("store-0", "packs/"), packs);
    }
    kept.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    for (at, taken) in taken.iter().enumerate() {
        let back = practice.restore_from(&practice.stores[1], taken.id).await;
        assert_eq!(fs::read(back.join("now")).unwrap(), noise(at as u64, NOW_BYTES), "they were found again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_repository_whatever_is_damaged_for_good_is_given_up() {
    for at in 0..4 {
        let pruning = Pruning::new(1).await;
        let taken = pruning.history(3).await;
        let practice = &pruning.practice;
        let indexes = practice.objects("store-0").into_keys().filter(|name| name.starts_with("index/"));
        let mut objects: Vec<String> = indexes.collect();
        assert_eq!(objects.len(), 3);
        objects.push(manifest(&taken[0]));
        let old = objects.swap_remove(at);
        damage(&pruning, &old);
        refused(&pruning, &last(2)).await;
        practice.snapshot().await;
        let request = PruneRequest { given_up: GivenUp::All, ..last(2) };
        carry_out(&pruning, &request).await;
        // Of what an index object named that had been damaged without anybody's knowledge the next one takes nothing for granted.
        let newest = practice.snapshot().await.id;
        let back = practice.restore_from(&practice.stores[0], newest).await;
        assert_eq!(fs::read(back.join("now")).unwrap(), noise(2, NOW_BYTES), "{old}");
        assert!(!practice.objects("store-0").contains_key(&old), "{old}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_approved_before_a_loss_takes_nothing_of_what_was_lost_since() {
    let pruning = Pruning::new(2).await;
    let taken = pruning.history(3).await;
    let practice = &pruning.practice;
    let before = propose(&practice.env, &practice.made.open, &practice.stores, &last(2)).await.unwrap();
    let approved = Approved { snapshots: before.approval(), trips: before.trips };
    assert_eq!(approved.snapshots, BTreeSet::from([taken[0].id]));
    lose(&pruning, &manifest(&taken[1]));
    // One person gives it up.
    let request = PruneRequest { given_up: GivenUp::These(needed(&pruning).await), ..last(2) };
    let announced =
        announce(&practice.env, &practice.made.open, &pruning.pruner, &pruning.stores, &request, &approved).await;
    assert_eq!(announced.unwrap_err().kind(), ErrorKind::Damaged);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_gone_without_a_tombstone_stop_a_plan_until_two_persons_have_looked() {
    let pruning = Pruning::new(2).await;
    pruning.history(4).await;
    let practice = &pruning.practice;
    let head = |name: &String| name.parse::<backup_engine::HeadName>().is_ok_and(|name| name.counter == 2);
    let gone = practice.objects("store-0").into_keys().find(head).unwrap();
    lose(&pruning, &gone);
    let proposal = propose(&practice.env, &practice.made.open, &practice.stores, &last(9)).await.unwrap();
    let [trip] = proposal.trips.as_slice() else { panic!("{:?}", proposal.trips) };
    assert_eq!((trip.kind, trip.before, trip.after), (TripKind::HeadGap, 2, 2));
    assert!(proposal.packs > 0, "what only the lost head reached");
    let packs = pruning.count("store-0", "packs/");
    let (open, request) = (&practice.made.open, last(9));
    let announced =
        async |approved| announce(&practice.env, open, &pruning.pruner, &pruning.stores, &request, &approved).await;
    assert_eq!(announced(Approved::default()).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(pruning.count("store-0", "packs/"), packs);
    assert!(announced(Approved { snapshots: BTreeSet::new(), trips: proposal.trips }).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_or_a_plan_that_every_store_has_damaged_is_given_up() {
    let pruning = Pruning::new(2).await;
    pruning.history(4).await;
    let practice = &pruning.practice;
    let head = |name: &String| name.parse::<backup_engine::HeadName>().is_ok_and(|name| name.counter == 2);
    let bad = practice.objects("store-0").into_keys().find(head).unwrap();
    pruning.announce(&last(3)).await.unwrap();
    damage(&pruning, &bad);
    // A plan is withdrawn whatever else is lost.
    let ended = prune::withdraw(&practice.env, &practice.made.open, &pruning.pruner, &pruning.stores).await;
    assert!(ended.unwrap().is_some());
    refused(&pruning, &last(9)).await;
    let lost = needed(&pruning).await;
    assert_eq!(lost.len(), 1);
    let request = PruneRequest { given_up: GivenUp::These(lost), ..last(9) };
    let proposal = propose(&practice.env, &practice.made.open, &practice.stores, &request).await.unwrap();
    assert_eq!((proposal.lost.len(), proposal.going().count()), (1, 1));
    carry_out(&pruning, &request).await;
    assert!(!practice.objects("store-0").contains_key(&bad));
    assert_eq!(pruning.snapshots().await.len(), 4);

    practice.snapshot().await;
    pruning.announce(&last(2)).await.unwrap();
    let plans = practice.objects("store-0").into_keys().filter(|name| name.starts_with("condemned/"));
    let newest = plans.max().unwrap();
    damage(&pruning, &newest);
    assert!(refused(&pruning, &last(2)).await.contains("plan"));
    let lost = needed(&pruning).await;
    assert_eq!(lost, BTreeSet::from([format!("lost-object/{newest}")]));
    let request = PruneRequest { given_up: GivenUp::These(lost), ..last(2) };
    carry_out(&pruning, &request).await;
    assert!(!practice.objects("store-0").contains_key(&newest), "it went with the next one");
    propose(&practice.env, &practice.made.open, &practice.stores, &last(2)).await.unwrap();
    pruning.assert_whole().await;
}
