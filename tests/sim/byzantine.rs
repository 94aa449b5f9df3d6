//! Stores that lie: they alter, swap, cut, withhold and roll back what they hold. Nothing wrong is delivered, everything is
//! named, and everything is repaired while one honest store is left.

use crate::auditor::{Auditor, Verdict};
use crate::machine::Machine;
use crate::shelf::{Direct, Keeping, Shelf};
use crate::world::{BEGIN_UNIX_MS, World};
use backup_engine::{
    Env, InitOptions, MemoryStates, NamedStore, NoProgress, heads, init, note_damage, replicate, snapshot,
    verify_keyless,
};
use std::path::Path;
use std::sync::Arc;

/// How many manipulations; the nightly run asks for more.
fn manipulations() -> u64 {
    std::env::var("HOLDFAST_MANIPULATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

struct Practice {
    world: Arc<World>,
    auditor: Auditor,
    shelves: Vec<Arc<Shelf>>,
    machine: Machine,
}

impl Practice {
    async fn new(seed: u64, stores: usize, snapshots: u64) -> Verdict<Self> {
        let world = World::new(seed, false);
        world.calm();
        let env = Env::seeded(seed, BEGIN_UNIX_MS).0.with_states(MemoryStates::default());
        let shelves: Vec<Arc<Shelf>> = (0..stores)
            .map(|at| Arc::new(Shelf::new(format!("store-{at}"), false, (Keeping::Plain, 0), &world)))
            .collect();
        let direct: Vec<NamedStore> = shelves.iter().map(Direct::to).collect();
        let made = init(&env, &direct, InitOptions::default()).await.map_err(|error| error.to_string())?;
        let machine = Machine::new(&world, seed, "writer".to_owned(), "emr".to_owned(), &Arc::new(made.writer));
        let practice = Self { auditor: Auditor::new(env, made.open, &shelves), world, shelves, machine };
        for at in 0..snapshots {
            practice.shelves.iter().for_each(|shelf| shelf.end_day());
            practice.take(&format!("tag-{at}")).await?;
        }
        Ok(practice)
    }

    async fn take(&self, tag: &str) -> Verdict<()> {
        self.machine.source.change();
        self.machine.source.write_large(0);
        self.auditor.begins(tag, self.machine.source.tree());
        let request = self.machine.request(tag, self.shelves.len() as u32);
        let stores = self.auditor.direct();
        let taken = snapshot(&self.machine.env, &self.machine.writer, &stores, request, &NoProgress).await;
        let taken = taken.map_err(|error| error.to_string())?;
        self.auditor.ended(tag, self.machine.source.hurt(), true, Some(&taken))?;
        if taken.durable { Ok(()) } else { Err(format!("{tag} is not durable: {taken:?}")) }
    }

    /// One lie of one store.
    fn manipulate(&self, shelf: &Shelf) -> &'static str {
        let names = shelf.names();
        let some = || self.world.with_rng(|rng| rng.pick(&names).cloned()).unwrap_or_default();
        let (name, other) = (some(), some());
        let Some(bytes) = shelf.get(&name) else { return "nothing" };
        match self.world.below(6) {
            0 | 1 => {
                let mut altered = bytes.to_vec();
                let at = self.world.below(altered.len().max(1) as u64) as usize;
                if let Some(byte) = altered.get_mut(at) {
                    *byte = byte.wrapping_add(1 + self.world.below(255) as u8);
                }
                shelf.alter(&name, Some(altered.into()));
                "alter"
            }
            2 => {
                let there = shelf.get(&other);
                shelf.alter(&other, Some(bytes));
                shelf.alter(&name, there);
                "swap"
            }
            3 => {
                let left = self.world.below(bytes.len() as u64) as usize;
                shelf.alter(&name, Some(bytes.slice(..left)));
                "truncate"
            }
            4 => {
                shelf.alter(&name, None);
                "omit"
            }
            _ if self.world.chance(100) => {
                shelf.roll_back(1 + self.world.below(4) as usize);
                "roll back"
            }
            _ => "nothing",
        }
    }

    /// Names what is damaged as a scrub does, and heals it.
    async fn scrub_and_heal(&self) -> Verdict<()> {
        let (env, state) = (&self.auditor.env, Path::new("/maintain"));
        let text = |error: backup_engine::Error| error.to_string();
        for store in self.auditor.direct() {
            let found = verify_keyless(env, &store, &NoProgress).await.map_err(text)?;
            note_damage(env, state, &store.name, &found.corrupt, &[]).map_err(text)?;
        }
        let done = replicate(env, &self.machine.writer, &self.auditor.direct(), Some(state)).await.map_err(text)?;
        match done.iter().find(|store| !store.complete) {
            Some(store) => Err(format!("not repaired: {store:?}")),
            None => Ok(()),
        }
    }
}

fn in_virtual_time(work: impl Future<Output = Verdict<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let told = runtime.expect("a runtime").block_on(work);
    assert!(told.is_ok(), "{}", told.unwrap_err());
}

#[test]
fn lying_stores_deliver_nothing_wrong_are_named_and_repaired() {
    in_virtual_time(async {
        let practice = Practice::new(20_261_125, 4, 5).await?;
        let (mut done, mut kinds) = (0, std::collections::BTreeMap::new());
        while done < manipulations() {
            let honest = practice.world.below(practice.shelves.len() as u64) as usize;
            for (_, shelf) in practice.shelves.iter().enumerate().filter(|(at, _)| *at != honest) {
                for _ in 0..practice.world.below(12) {
                    let kind = practice.manipulate(shelf);
                    *kinds.entry(kind).or_insert(0u64) += 1;
                    done += u64::from(kind != "nothing");
                }
            }
            practice.auditor.check_stores().await?;
            practice.scrub_and_heal().await?;
            if let Some(shelf) = practice.shelves.iter().find(|shelf| !shelf.is_clean()) {
                return Err(format!("after {done} manipulations {} is not repaired", shelf.name));
            }
        }
        println!("extra: {done} manipulations: {kinds:?}");
        practice.auditor.check_stores().await.map(drop)
    });
}

#[test]
fn rolled_back_stores_are_noticed_unless_every_store_lies() {
    const STORES: usize = 4;
    in_virtual_time(async {
        for subset in 1u32..1 << STORES {
            let practice = Practice::new(u64::from(subset), STORES, 4).await?;
            let lies = |at: usize| subset >> at & 1 == 1;
            for (_, shelf) in practice.shelves.iter().enumerate().filter(|(at, _)| lies(*at)) {
                shelf.roll_back(1);
            }
            let stores = practice.auditor.direct();
            let seen = heads(&practice.auditor.env, practice.auditor.open.catalog(), &stores).await;
            let seen = seen.map_err(|error| error.to_string())?;
            let Some(newest) = seen.snapshots.first() else { return Err("no snapshot".to_owned()) };
            let honest: Vec<&String> = practice
                .shelves
                .iter()
                .enumerate()
                .filter(|(at, _)| !lies(*at))
                .map(|(_, shelf)| &shelf.name)
                .collect();
            if honest.is_empty() {
                // Nobody is left who could tell.
                assert_eq!((newest.counter, seen.snapshots.len()), (3, 3));
                continue;
            }
            assert_eq!(newest.counter, 4, "subset {subset:b}");
            assert_eq!(newest.stores.iter().collect::<Vec<_>>(), honest, "the others are seen to lag");
            practice.scrub_and_heal().await?;
            practice.auditor.check_stores().await?;

            let seen = heads(&practice.auditor.env, practice.auditor.open.catalog(), &stores).await;
            let seen = seen.map_err(|error| error.to_string())?;
            assert!(seen.snapshots.iter().all(|snapshot| snapshot.stores.len() == STORES), "all caught up");
        }
        Ok(())
    });
}
