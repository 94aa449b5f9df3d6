//! What looks like an attack stops a plan: whenever it came, whatever the rules would keep, and until the last moment.

use crate::practice::noise;
use crate::prune::{Pruning, last};
use backup_engine::prune::{
    Approved, Proposal, PruneRequest, TripKind, Tripwire, Waiting, announce, propose, withdraw,
};
use backup_engine::{ErrorKind, SnapshotId};
use std::collections::BTreeSet;
use std::fs;

const FILES: u64 = 60;

fn wired(request: PruneRequest<'static>) -> PruneRequest<'static> {
    PruneRequest { tripwire: Tripwire::default(), ..request }
}

fn text(at: u64) -> String {
    format!("Dear patient {at}, your next appointment is on day {at}.\n").repeat(1000)
}

/// A practice that wrote letters, and took some snapshots of them.
async fn letters(snapshots: usize) -> (Pruning, Vec<SnapshotId>) {
    let pruning = Pruning::new(1).await;
    for at in 0..FILES {
        fs::write(pruning.practice.source().join(format!("letter-{at}.txt")), text(at)).unwrap();
    }
    let taken = some(&pruning, snapshots).await;
    (pruning, taken)
}

/// Snapshots in which little is new.
async fn some(pruning: &Pruning, count: usize) -> Vec<SnapshotId> {
    let mut taken = Vec::new();
    for at in 0..count {
        fs::write(pruning.practice.source().join("log"), format!("{at} {taken:?}")).unwrap();
        taken.push(pruning.practice.snapshot().await.id);
    }
    taken
}

/// Files are replaced by noise under another name.
fn encrypt(pruning: &Pruning, files: std::ops::Range<u64>) {
    let source = pruning.practice.source();
    for at in files {
        fs::remove_file(source.join(format!("letter-{at}.txt"))).unwrap();
        fs::write(source.join(format!("letter-{at}.locked")), noise(at, text(at).len())).unwrap();
    }
}

async fn proposed(pruning: &Pruning, request: &PruneRequest<'_>) -> Proposal {
    let practice = &pruning.practice;
    propose(&practice.env, &practice.made.open, &practice.stores, request).await.unwrap()
}

fn kinds(proposal: &Proposal) -> BTreeSet<TripKind> {
    proposal.trips.iter().map(|trip| trip.kind).collect()
}

async fn try_announce(
    pruning: &Pruning,
    request: &PruneRequest<'_>,
    approved: &Approved,
) -> backup_engine::Result<Option<backup_engine::prune::Announced>> {
    let practice = &pruning.practice;
    announce(&practice.env, &practice.made.open, &pruning.pruner, &pruning.stores, request, approved).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_an_attack_stops_it_until_people_agree() {
    let (pruning, _) = letters(3).await;
    let request = wired(last(3));
    assert_eq!(proposed(&pruning, &request).await.trips, []);
    encrypt(&pruning, 0..FILES);
    pruning.practice.snapshot().await;
    let proposal = proposed(&pruning, &request).await;
    assert_eq!(kinds(&proposal), BTreeSet::from([TripKind::Entropy, TripKind::MassRename]), "{:?}", proposal.trips);
    let none = Approved { snapshots: proposal.approval(), trips: Vec::new() };
    let refused = try_announce(&pruning, &request, &none).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Denied && refused.to_string().contains("two persons"), "{refused}");
    assert_eq!(pruning.count("store-0", "condemned/"), 0);
    // All but one are deleted: the source is small now.
    for at in 1..FILES {
        fs::remove_file(pruning.practice.source().join(format!("letter-{at}.locked"))).unwrap();
    }
    pruning.practice.snapshot().await;
    let worse = proposed(&pruning, &request).await;
    assert!(kinds(&worse).contains(&TripKind::SizeDrop));
    let seen = Approved { snapshots: proposal.approval(), trips: proposal.trips };
    assert!(try_announce(&pruning, &request, &seen).await.is_err(), "nobody has looked at what came since");
    // What people looked at is the same when more has come.
    some(&pruning, 3).await;
    let seen = Approved { snapshots: worse.approval(), trips: worse.trips.clone() };
    assert!(try_announce(&pruning, &request, &seen).await.unwrap().is_some());
    // And it stops no later plan.
    let later = PruneRequest { looked_at: worse.trips, ..wired(last(2)) };
    assert_eq!(proposed(&pruning, &later).await.trips, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attack_is_seen_after_any_number_of_snapshots_and_when_every_right_one_would_go() {
    let (pruning, right) = letters(3).await;
    // Some files at a time.
    for part in 0..10 {
        encrypt(&pruning, part * FILES / 10..(part + 1) * FILES / 10);
        some(&pruning, 2).await;
    }
    let request = wired(last(5));
    let proposal = proposed(&pruning, &request).await;
    assert!(right.iter().all(|id| proposal.approval().contains(id)));
    assert_eq!(kinds(&proposal), BTreeSet::from([TripKind::Entropy, TripKind::MassRename]), "{:?}", proposal.trips);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attack_in_the_grace_stops_the_plan() {
    let (pruning, right) = letters(3).await;
    let request = wired(last(1));
    let proposal = proposed(&pruning, &request).await;
    let approved = Approved { snapshots: proposal.approval(), trips: proposal.trips };
    assert!(try_announce(&pruning, &request, &approved).await.unwrap().is_some());
    encrypt(&pruning, 0..FILES);
    some(&pruning, 3).await;
    let packs = pruning.count("store-0", "packs/");
    let waiting = pruning.execute(&request).await.waiting;
    let Some(Waiting::Attack(trips)) = waiting else { panic!("{waiting:?}") };
    assert_eq!(
        trips.iter().map(|trip| trip.kind).collect::<BTreeSet<_>>(),
        BTreeSet::from([TripKind::Entropy, TripKind::MassRename])
    );
    assert_eq!(pruning.count("store-0", "packs/"), packs);
    let practice = &pruning.practice;
    withdraw(&practice.env, &practice.made.open, &pruning.pruner, &pruning.stores).await.unwrap().unwrap();
    assert_eq!(kinds(&proposed(&pruning, &request).await).len(), 2, "the next plan says it, too");
    let back = practice.restore_from(&practice.stores[0], right[0]).await;
    assert_eq!(fs::read_to_string(back.join("letter-7.txt")).unwrap(), text(7));
}
