//! Scrub: every object of a store against the hash in its name, without a key, least recently verified first, within a
//! budget. What was seen is remembered by object; a lost memory is begun anew and costs a fresh round.

use crate::beside::Listings;
use crate::damage::Damage;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Phase, Progress, ProgressEvent};
use crate::state::State;
use crate::store::NamedStore;
use crate::survey::{FETCHES, by_object, fetch, hash_in_name};
use backup_format::condemned::PlanName;
use backup_format::wire::{Reader, put_varint};
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How much of a store one run looks at.
#[derive(Debug, Clone)]
pub struct ScrubRequest {
    /// Where what was seen is remembered.
    pub state_dir: PathBuf,
    /// Everything is read at least so often, as far as the budget lets it.
    pub max_age: Duration,
    /// Bytes read from one store in one run at most.
    pub bytes_max: u64,
    /// Time for one store in one run at most.
    pub time_max: Duration,
    /// Objects that are gone on purpose: deletion plans name them.
    pub condemned: BTreeSet<String>,
    /// What all stores list: what others hold and a store lacks is missing there, whether it was ever seen there or not.
    pub others: Listings,
    pub stop: crate::Stop,
}

/// What a run saw at one store. Names are opaque ids.
#[derive(Debug, Default)]
pub struct StoreScrub {
    pub store: String,
    /// Objects that the store lists, and their bytes.
    pub objects: u64,
    pub bytes: u64,
    /// Objects read in this run, and their bytes.
    pub checked: u64,
    pub bytes_read: u64,
    /// Objects that were here before, or that another store holds and this one must have had, and that are not listed.
    pub missing: Vec<String>,
    /// Those that were never seen here: only the other store says that they were.
    pub by_others: BTreeSet<String>,
    /// Another store holds a newer snapshot.
    pub late: bool,
    pub corrupt: Vec<String>,
    /// Objects whose last look is older than `max_age`: the budget is too small.
    pub overdue: u64,
    /// The least recent look at any object of the store; `None` while some were never read.
    pub verified_since_unix_ms: Option<i64>,
    /// Why the store could not be looked at, or not to the end.
    pub error: Option<Error>,
}

/// Looks at each store in turn. A store that does not answer is told, and stops no other.
pub async fn scrub(
    env: &Env,
    stores: &[NamedStore],
    request: &ScrubRequest,
    progress: &dyn Progress,
) -> Result<Vec<StoreScrub>> {
    let state = Arc::new(env.open_state(&request.state_dir)?);
    let damage = Damage::load(&state);
    let mut all = Vec::new();
    for store in stores {
        let mut seen = StoreScrub { store: store.name.clone(), ..StoreScrub::default() };
        let mut memory = Seen::load(&state, &store.name);
        let looked = look(env, store, request, (&mut memory, &damage, &mut seen), progress).await;
        memory.keep(&state, &store.name);
        seen.error = looked.err();
        all.push(seen);
    }
    Ok(all)
}

/// A run at one store: the listing first, then objects in the order of their last look.
async fn look(
    env: &Env,
    store: &NamedStore,
    request: &ScrubRequest,
    (memory, damage, seen): (&mut Seen, &Damage, &mut StoreScrub),
    progress: &dyn Progress,
) -> Result<()> {
    let (now, began) = (env.now_unix_ms(), env.steady_ms());
    let listed = by_object(store.store.list("").await?);
    let ours: BTreeMap<String, u64> = listed.into_iter().filter(|(name, _)| hash_in_name(name).is_some()).collect();
    (seen.objects, seen.bytes) = (ours.len() as u64, ours.values().sum());
    let lacking = request.others.lacking(&store.name, &ours, &request.condemned, |other, name| damage.is(other, name));
    seen.late = lacking.late;
    // What was found damaged and is gone is missing, no longer damaged. One that nobody ever saw whole here was perhaps never here:
    // whether it is missing the other stores tell.
    for name in damage.names_at(&store.name).iter().filter(|name| !ours.contains_key(*name)) {
        damage.clear(&store.name, name);
        memory.forget_unread(name);
    }
    let gone = memory.audit(&ours, &request.condemned, now);
    seen.by_others = lacking.missing.iter().filter(|name| !memory.objects.contains_key(*name)).cloned().collect();
    let missing: BTreeSet<String> = lacking.missing.into_iter().chain(gone).collect();
    seen.missing = missing.into_iter().collect();
    let max_age = i64::try_from(request.max_age.as_millis()).unwrap_or(i64::MAX).max(1);
    // What was found damaged is looked at first, in every run; then what was looked at longest ago.
    let mut order: Vec<(bool, i64, &String, u64)> =
        ours.iter().map(|(name, size)| (!damage.is(&store.name, name), memory.look(name).whole, name, *size)).collect();
    order.sort();
    let share = memory.share(seen.bytes, max_age, now);
    let due = order.into_iter().scan(0u64, |bytes, (undamaged, _, name, size)| {
        let before = *bytes;
        *bytes = bytes.saturating_add(size);
        let wanted = !undamaged || before < share || now.saturating_sub(memory.look(name).last()) >= max_age;
        (wanted && (before == 0 || *bytes <= request.bytes_max)).then_some(name)
    });
    let read = |name: &String| {
        let name = name.clone();
        async move { (fetch(store, &name).await.map(|bytes| bytes.len() as u64), name) }.boxed()
    };
    let due: Vec<_> = due.map(read).collect();
    let mut reads = futures::stream::iter(due).buffered(FETCHES / 2);
    while let Some((read, name)) = reads.next().await {
        match read {
            Ok(bytes) => {
                seen.bytes_read += bytes;
                damage.clear(&store.name, &name);
                memory.whole(&name, now);
            }
            Err(error) => match damage.note_unread(store, &name, error).await {
                error if error.kind() == ErrorKind::Damaged => seen.corrupt.push(name),
                // It went between the listing and now; the next listing tells.
                error if error.kind() == ErrorKind::NotFound => {}
                error => return Err(error),
            },
        }
        seen.checked += 1;
        progress.report(ProgressEvent {
            phase: Phase::Fetch,
            done_bytes: seen.bytes_read,
            total_bytes: None,
            files: 0,
            store: Some(&store.name),
        });
        let spent = Duration::from_millis(env.steady_ms().saturating_sub(began));
        if spent > request.time_max || request.stop.is_stopped() {
            break;
        }
    }
    drop(reads);
    (seen.overdue, seen.verified_since_unix_ms) = memory.oldest(now, max_age);
    memory.last_run = now;
    Ok(())
}

/// What is remembered of one store.
#[derive(Default)]
struct Seen {
    last_run: i64,
    objects: BTreeMap<String, Look>,
}

#[derive(Clone, Copy, Default)]
struct Look {
    /// When the object was first listed; it was whole then, as its writer had read it.
    first: i64,
    /// When it was last read and whole; 0: never.
    whole: i64,
}

impl Look {
    fn last(self) -> i64 {
        self.whole.max(self.first)
    }
}

/// The share of a first run, of which nobody knows how long ago the last one was.
const FIRST_SHARE_MS: i64 = 24 * 3_600_000;
const CHECK_BYTES: usize = 32;

fn file_name(store: &str) -> String {
    format!("scrub-{}", &blake3::hash(store.as_bytes()).to_hex().as_str()[..16])
}

impl Seen {
    fn load(state: &State, store: &str) -> Self {
        Self::read(state, store).unwrap_or_default()
    }

    fn read(state: &State, store: &str) -> Option<Self> {
        let file = state.open_file(&file_name(store)).ok()?;
        let bytes = file.read_at(0, usize::try_from(file.len().ok()?).ok()?).ok()?;
        let (out, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        if blake3::hash(out).as_bytes() != check {
            return None;
        }
        let mut reader = Reader::new(out, "memory of a scrub");
        let mut seen = Self { last_run: reader.i64().ok()?, objects: BTreeMap::new() };
        for _ in 0..reader.varint().ok()? {
            let name = reader.text(NAME_BYTES_MAX).ok()?;
            seen.objects.insert(name, Look { first: reader.i64().ok()?, whole: reader.i64().ok()? });
        }
        Some(seen)
    }

    fn keep(&self, state: &State, store: &str) {
        let mut out = self.last_run.to_le_bytes().to_vec();
        put_varint(&mut out, self.objects.len() as u64);
        for (name, look) in &self.objects {
            backup_format::wire::put_bytes(&mut out, name.as_bytes());
            out.extend_from_slice(&look.first.to_le_bytes());
            out.extend_from_slice(&look.whole.to_le_bytes());
        }
        let check = blake3::hash(&out);
        let kept = state.create_file(&file_name(store)).and_then(|mut file| {
            file.write(&out)?;
            file.write(check.as_bytes())?;
            file.finish()
        });
        if let Err(error) = kept {
            // The next run begins a round of its own.
            log::warn!(error:% = error; "state.write-failed");
        }
    }

    /// Takes a listing in; gives what was here before and is gone. That stays remembered until it comes back or is
    /// condemned. A deletion plan goes when a later one is executed.
    fn audit(&mut self, listed: &BTreeMap<String, u64>, condemned: &BTreeSet<String>, now: i64) -> Vec<String> {
        for name in listed.keys() {
            self.objects.entry(name.clone()).or_insert(Look { first: now, whole: 0 });
        }
        let number = |name: &String| name.parse::<PlanName>().ok().map(|plan| plan.number);
        let newest = listed.keys().filter_map(number).max();
        let gone = |name: &String| condemned.contains(name) || number(name).is_some_and(|old| Some(old) < newest);
        self.objects.retain(|name, _| listed.contains_key(name) || !gone(name));
        self.objects.keys().filter(|name| !listed.contains_key(*name)).cloned().collect()
    }

    fn forget_unread(&mut self, name: &str) {
        if self.look(name).whole == 0 {
            self.objects.remove(name);
        }
    }

    fn look(&self, name: &str) -> Look {
        self.objects.get(name).copied().unwrap_or_default()
    }

    fn whole(&mut self, name: &str, now: i64) {
        if let Some(look) = self.objects.get_mut(name) {
            look.whole = now;
        }
    }

    /// How many bytes are this run's part of a round that takes `max_age`, one tenth more than even.
    fn share(&self, bytes: u64, max_age: i64, now: i64) -> u64 {
        let since = match self.last_run {
            0 => FIRST_SHARE_MS,
            last => now.saturating_sub(last).max(0),
        };
        let part =
            u128::from(bytes) * u128::from(since.unsigned_abs()) * 11 / (u128::from(max_age.unsigned_abs()) * 10);
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// How many are overdue, and the least recent look.
    fn oldest(&self, now: i64, max_age: i64) -> (u64, Option<i64>) {
        let overdue = self.objects.values().filter(|look| now.saturating_sub(look.last()) > max_age).count() as u64;
        let never = self.objects.values().any(|look| look.whole == 0);
        let oldest = self.objects.values().map(|look| look.whole).min();
        (overdue, if never { None } else { oldest })
    }
}

const NAME_BYTES_MAX: usize = 1024;
