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
    assert_eq!(needed(&pruning).await, BTreeSet::from([manifest(&taken[1])]));
    // That another one is given up does not help.
    refused(&pruning, &PruneRequest { given_up: these(&[manifest(&taken[0])]), ..last(3) }).await;
    let request = PruneRequest { given_up: these(&[manifest(&taken[1])]), ..last(3) };
    let practice = &pruning.practice;
    let proposal = propose(&practice.env, &practice.made.open, &practice.stores, &request).await.unwrap();
    assert_eq!(proposal.lost, BTreeSet::from([taken[1].id]));
    assert_eq!(proposal.approval(), BTreeSet::from([taken[1].id]), "the rule keeps the other three");
    // Nobody approved: its head stays, and so does what the others reach.
    let nobody = Approved::default();
    let none = announce(&practice.env, &practice.made.open, &pruning.pruner, &pruning.stores, &request, &nobody).await;
    assert!(none.unwrap().is_none_or(|plan| plan.snapshots == 0));
    pruning.practice.snapshot().await;
    pruning.execute(&request).await;
    carry_out(&pruning, &PruneRequest { given_up: these(&[manifest(&taken[1])]), ..last(4) }).await;
    pruning.assert_whole().await;
    let left = pruning.snapshots().await;
    assert!(left.contains(&taken[3].id) && !left.contains(&taken[1].id));
    let back = pruning.practice.restore_from(&pruning.practice.stores[1], taken[3].id).await;
    assert_eq!(fs::read(back.join("now")).unwrap(), noise(3, NOW_BYTES));
    // What is gone on purpose stops the next one no longer.
    propose(&pruning.practice.env, &pruning.practice.made.open, &pruning.practice.stores, &last(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_lost_part_nothing_is_followed_once_two_persons_have_given_it_up() {
    let pruning = Pruning::new(2).await;
    let taken = pruning.history(3).await;
    let practice = &pruning.practice;
    let packs: Vec<String> =
        practice.objects("store-0").into_keys().filter(|name| name.starts_with("packs/")).collect();
    let mut lost = None;
    for pack in packs {
        let bytes: Vec<Vec<u8>> =
            practice.stores.iter().map(|store| fs::read(&practice.objects(&store.name)[&pack]).unwrap()).collect();
        let paths: Vec<_> = practice.stores.iter().map(|store| practice.objects(&store.name)[&pack].clone()).collect();
        lose(&pruning, &pack);
        if propose(&practice.env, &practice.made.open, &practice.stores, &last(9)).await.is_err() {
            lost = Some(pack);
            break;
        }
        paths.iter().zip(bytes).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }
    let lost = lost.expect("some pack holds pages of a tree");
    refused(&pruning, &PruneRequest { given_up: these(&["packs/aa/other".to_owned()]), ..last(9) }).await;
    assert_eq!(needed(&pruning).await, BTreeSet::from([lost.clone()]));
    let request = PruneRequest { given_up: these(std::slice::from_ref(&lost)), ..last(9) };
    let proposal = propose(&practice.env, &practice.made.open, &practice.stores, &request).await.unwrap();
    assert!(proposal.going().next().is_none());
    assert!(
        proposal.trips.iter().any(|trip| trip.kind == TripKind::PartLost && trip.after > 0),
        "{:?}",
        proposal.trips
    );
    let unseen = Approved { snapshots: proposal.approval(), trips: Vec::new() };
    let refused =
        announce(&practice.env, &practice.made.open, &pruning.pruner, &pruning.stores, &request, &unseen).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied);
    // The next snapshot reads the source again, and rests on nothing that is lost.
    practice.snapshot().await;
    let request = PruneRequest { given_up: these(&[lost]), ..last(2) };
    carry_out(&pruning, &request).await;
    let newest = pruning.snapshots().await[0];
    for store in &practice.stores {
        let back = practice.restore_from(store, newest).await;
        assert_eq!(fs::read(back.join("now")).unwrap(), noise(2, NOW_BYTES));
    }
    assert!(!pruning.snapshots().await.contains(&taken[0].id));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_object_that_is_given_up_takes_no_pack_along_and_excuses_no_further_loss() {
    let pruning = Pruning::new(2).await;
    let taken = pruning.history(5).await;
    let practice = &pruning.practice;
    let indexes: Vec<String> =
        practice.objects("store-0").into_keys().filter(|name| name.starts_with("index/")).collect();
    let keep = |name: &String| -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let paths = practice.stores.iter().map(|store| practice.objects(&store.name)[name].clone());
        paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    };
    let (first, second) = (keep(&indexes[0]), keep(&indexes[1]));
    lose(&pruning, &indexes[0]);
    refused(&pruning, &last(9)).await;
    refused(&pruning, &PruneRequest { given_up: these(&indexes), ..last(9) }).await;
    let given_up = needed(&pruning).await;
    let request = PruneRequest { given_up: GivenUp::These(given_up.clone()), ..last(9) };
    let proposal = propose(&practice.env, &practice.made.open, &practice.stores, &request).await.unwrap();
    assert!(proposal.trips.iter().any(|trip| trip.kind == TripKind::PartLost), "two persons are asked");
    assert_eq!(proposal.packs, 0, "what the lost object named may be named again");
    // A further one is not given up with it.
    lose(&pruning, &indexes[1]);
    refused(&pruning, &request).await;
    second.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let packs = pruning.count("store-0", "packs/");
    pruning.announce(&request).await;
    practice.snapshot().await;
    pruning.execute(&request).await;
    assert!(pruning.count("store-0", "packs/") >= packs, "no pack went");
    first.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    for (at, taken) in taken.iter().enumerate() {
        let back = practice.restore_from(&practice.stores[1], taken.id).await;
        assert_eq!(fs::read(back.join("now")).unwrap(), noise(at as u64, NOW_BYTES), "the object was found again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_repository_whatever_is_damaged_for_good_is_given_up() {
    for kind in ["snapshots/", "index/"] {
        let pruning = Pruning::new(1).await;
        let taken = pruning.history(3).await;
        let practice = &pruning.practice;
        let old = match kind {
            "index/" => practice.objects("store-0").into_keys().find(|name| name.starts_with(kind)).unwrap(),
            _ => manifest(&taken[0]),
        };
        damage(&pruning, &old);
        refused(&pruning, &last(2)).await;
        practice.snapshot().await;
        let request = PruneRequest { given_up: GivenUp::All, ..last(2) };
        carry_out(&pruning, &request).await;
        // Of what an index object named that had been damaged without anybody's knowledge the next one takes nothing for granted.
        let newest = practice.snapshot().await.id;
        let back = practice.restore_from(&practice.stores[0], newest).await;
        assert_eq!(fs::read(back.join("now")).unwrap(), noise(2, NOW_BYTES), "{kind}");
        assert!(!practice.objects("store-0").contains_key(&old), "{kind}");
    }
}
