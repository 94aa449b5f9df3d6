//! What the index objects of all stores say: sorted runs in the local state, brought up to date from the stores.
//!
//! A chunk counts as present only while its pack is held, in full, by some reachable store.

use crate::condemned::Condemned;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::run::{Run, RunPack, RunWriter, Spot, Tables, merge};
use crate::state::State;
use crate::store::NamedStore;
use crate::survey::{FETCHES, IdSet, View, fetch_noting, index_name, pack_name};
use backup_format::index::{CatalogPack, parse_catalog};
use backup_format::pack::PackRecord;
use backup_format::sealed::{PartsKind, open_parts};
use backup_format::{CatalogKey, ChunkId, FormatError, ObjectHash};
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;

/// Chunks gathered before a run is written: bounds the memory of a rebuild.
const GATHERED_MAX: usize = 256 << 10;
/// More runs than this are merged.
const RUNS_MAX: usize = 8;
const RUN_FILE: &str = "run-";

/// The runs, and which of their packs are held.
pub(crate) struct Catalog {
    state: Arc<State>,
    runs: Vec<OpenRun>,
    next_name: u64,
    lacking: BTreeSet<String>,
    unread: Vec<ObjectHash>,
}

struct OpenRun {
    name: String,
    run: Run,
    /// For each pack of the run's table whether some store holds it.
    held: Vec<bool>,
}

impl Catalog {
    /// Opens the runs of the state. What is not whole is dropped: its index objects are read again.
    pub(crate) fn open(state: &Arc<State>) -> Self {
        let mut catalog = Self {
            state: Arc::clone(state),
            runs: Vec::new(),
            next_name: 0,
            lacking: BTreeSet::new(),
            unread: Vec::new(),
        };
        for name in state.file_names().into_iter().filter(|name| name.starts_with(RUN_FILE)) {
            let number = name.strip_prefix(RUN_FILE).and_then(|hex| u64::from_str_radix(hex, 16).ok());
            catalog.next_name = catalog.next_name.max(number.unwrap_or(0) + 1);
            match state.open_file(&name).and_then(Run::open) {
                Ok(run) => catalog.runs.push(OpenRun { name, run, held: Vec::new() }),
                Err(error) => {
                    log::warn!(error:% = error; "index.run-dropped");
                    state.remove_file(&name);
                }
            }
        }
        catalog
    }

    fn covered(&self) -> HashSet<ObjectHash> {
        self.runs.iter().flat_map(|open| open.run.tables().indexes.iter().copied()).collect()
    }

    /// Brings the runs up to date with the index objects that the stores list; where no store can be asked
    /// (`offline`), all stay but those of packs that the spool has lost.
    pub(crate) async fn update(
        &mut self,
        key: &CatalogKey,
        (stores, views, damage): (&[NamedStore], &[View], &Damage),
        (listed, offline): (&HashSet<ObjectHash>, Option<&BTreeSet<ObjectHash>>),
    ) -> Result<()> {
        // An index object that no reachable store holds was merged, pruned or damaged, or its store is away: a snapshot
        // that relies on it could not be read at the others.
        let gone = |open: &OpenRun| match offline {
            None => open.run.tables().indexes.iter().any(|index| !listed.contains(index)),
            Some(lost) => open.run.tables().packs.iter().any(|pack| lost.contains(&pack.name)),
        };
        let (old, kept): (Vec<OpenRun>, Vec<OpenRun>) = std::mem::take(&mut self.runs).into_iter().partition(gone);
        self.runs = kept;
        old.iter().for_each(|open| self.state.remove_file(&open.name));
        let mut foreign = HashSet::new();
        self.read_missing(key, (stores, views, damage), listed, &mut foreign).await?;
        if !self.merge_runs() {
            // Without them this backup would send everything once more.
            self.read_missing(key, (stores, views, damage), listed, &mut foreign).await?;
        }
        let covered = self.covered();
        let unread = listed.iter().filter(|hash| !covered.contains(*hash) && !foreign.contains(*hash));
        self.unread = unread.copied().collect();
        Ok(())
    }

    /// Reads the index objects that no run covers; what nobody of this repository wrote goes to `foreign`.
    async fn read_missing(
        &mut self,
        key: &CatalogKey,
        (stores, views, damage): (&[NamedStore], &[View], &Damage),
        listed: &HashSet<ObjectHash>,
        foreign: &mut HashSet<ObjectHash>,
    ) -> Result<()> {
        let covered = self.covered();
        let mut names: Vec<ObjectHash> =
            listed.iter().filter(|hash| !covered.contains(*hash) && !foreign.contains(*hash)).copied().collect();
        names.sort();
        let read = |hash: ObjectHash| {
            async move {
                let name = index_name(&hash);
                let opened = fetch_noting(stores, views, &name, Some(damage)).await.and_then(|bytes| {
                    let part = open_parts(PartsKind::Index, key, &bytes)?.catalog_part;
                    Ok(parse_catalog(&part)?)
                });
                if let Err(error) = &opened {
                    log::warn!(object = name.as_str(), error:% = error; "index.unreadable");
                }
                (hash, opened)
            }
            .boxed()
        };
        let mut reads = futures::stream::iter(names.into_iter().map(read)).buffered(FETCHES);
        let mut gathered = Gathered::default();
        while let Some((hash, opened)) = reads.next().await {
            let packs = match opened {
                Ok(packs) => packs,
                Err(error) => {
                    foreign.extend(is_nobodys(&error).then_some(hash));
                    continue;
                }
            };
            gathered.add(hash, &packs);
            if gathered.chunks.len() >= GATHERED_MAX {
                self.write_run(std::mem::take(&mut gathered))?;
            }
        }
        drop(reads);
        self.write_run(gathered)
    }

    /// Index objects that stores list and that are not in the runs: which packs they name is not known.
    pub(crate) fn unread(&self) -> &[ObjectHash] {
        &self.unread
    }

    /// Every pack that the runs' index objects name.
    pub(crate) fn pack_names(&self) -> HashSet<String> {
        self.runs.iter().flat_map(|open| &open.run.tables().packs).map(|pack| pack_name(&pack.name)).collect()
    }

    /// Takes in index objects that this backup has written itself.
    pub(crate) fn add(&mut self, gathered: Gathered) -> Result<()> {
        self.write_run(gathered)
    }

    fn name(&mut self) -> String {
        self.next_name += 1;
        format!("{RUN_FILE}{:016x}", self.next_name - 1)
    }

    fn write_run(&mut self, mut gathered: Gathered) -> Result<()> {
        if gathered.tables.indexes.is_empty() {
            return Ok(());
        }
        gathered.chunks.sort_unstable_by_key(|(id, _)| *id);
        let name = self.name();
        let write = |state: &State| {
            let mut writer = RunWriter::new(state.create_file(&name)?, gathered.chunks.len() as u64);
            for (id, spot) in &gathered.chunks {
                writer.push(id, *spot)?;
            }
            writer.finish(&gathered.tables)?;
            Run::open(state.open_file(&name)?)
        };
        // A state without room is no reason to go without a backup: this run's index then stays in memory.
        let run = write(&self.state).or_else(|error| {
            log::warn!(error:% = error; "state.write-failed");
            write(&State::memory())
        });
        self.runs.push(OpenRun { name, run: run.map_err(|error| state_error(&error))?, held: Vec::new() });
        Ok(())
    }

    /// Keeps few runs: the small ones are merged into one, a run that outweighs them stays as it is. False: some were damaged
    /// and are gone.
    fn merge_runs(&mut self) -> bool {
        if self.runs.len() <= RUNS_MAX {
            return true;
        }
        self.runs.sort_by_key(|open| std::cmp::Reverse(open.run.records()));
        let mut keep = 0;
        let mut rest: u64 = self.runs.iter().map(|open| open.run.records()).sum();
        for open in &self.runs {
            rest -= open.run.records();
            if open.run.records() < rest * 2 {
                break;
            }
            keep += 1;
        }
        let old = self.runs.split_off(keep.min(self.runs.len().saturating_sub(2)));
        let name = self.name();
        let merged = self
            .state
            .create_file(&name)
            .and_then(|out| merge(&old.iter().map(|open| &open.run).collect::<Vec<_>>(), out))
            .and_then(|()| Run::open(self.state.open_file(&name)?));
        match merged {
            Ok(run) => {
                old.iter().for_each(|open| self.state.remove_file(&open.name));
                self.runs.push(OpenRun { name, run, held: Vec::new() });
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                // A damaged block: these runs go, and their index objects are read again.
                log::warn!("index.runs-dropped");
                old.iter().for_each(|open| self.state.remove_file(&open.name));
                return false;
            }
            Err(error) => {
                // Many runs are slow, not wrong.
                log::warn!(error:% = error; "state.write-failed");
                self.runs.extend(old);
            }
        }
        true
    }

    /// Compares every pack with what the stores hold; gives the packs that are held. A pack that is to be deleted counts
    /// as absent. Where no store can be asked (`offline`), all are taken to be where they were.
    pub(crate) fn mark_held(
        &mut self,
        held: &HashMap<&str, HashSet<u64>>,
        offline: bool,
        condemned: &Condemned,
    ) -> BTreeMap<String, u64> {
        let mut packs = BTreeMap::new();
        let absent = condemned.packs();
        self.lacking.clear();
        for open in &mut self.runs {
            open.held.clear();
            for pack in &open.run.tables().packs {
                let name = pack_name(&pack.name);
                let bytes = u64::from(pack.bytes);
                let there = held.get(name.as_str()).is_some_and(|sizes| sizes.contains(&bytes));
                let going = absent.contains(&pack.name);
                if !there && !offline && !going {
                    self.lacking.insert(name.clone());
                }
                open.held.push((there || offline) && condemned.unreadable().next().is_none() && !going);
                if there {
                    packs.insert(name, bytes);
                }
            }
        }
        packs
    }

    /// Packs of the runs that nobody holds, and not because they are to be deleted.
    pub(crate) fn lacking(&self) -> &BTreeSet<String> {
        &self.lacking
    }

    /// Whether all packs of these index objects are known and held: then every chunk that they named is present.
    pub(crate) fn holds_all(&self, indexes: &[ObjectHash]) -> bool {
        let whole = self.runs.iter().filter(|open| open.held.iter().all(|held| *held));
        let whole: HashSet<ObjectHash> = whole.flat_map(|open| open.run.tables().indexes.iter().copied()).collect();
        indexes.iter().all(|index| whole.contains(index))
    }

    /// Every index object that the runs cover.
    pub(crate) fn indexes(&self) -> Vec<ObjectHash> {
        let mut indexes: Vec<ObjectHash> = self.covered().into_iter().collect();
        indexes.sort();
        indexes
    }

    fn contains(&self, id: &ChunkId) -> bool {
        self.runs.iter().any(|open| {
            let is_held = |spot: Spot| open.held.get(spot.pack as usize).copied().unwrap_or(false);
            open.run.find_where(id, is_held).is_some()
        })
    }
}

/// Whether an index object came as its name says and was never written by anybody who has the keys: what a store makes up
/// must not hold up what others wrote. One of a later release or epoch may name packs.
fn is_nobodys(error: &Error) -> bool {
    let foreign =
        |format: &FormatError| !format.is_not_damage() || matches!(format, FormatError::OtherRepository { .. });
    error.source_format().is_some_and(foreign)
}

fn state_error(error: &io::Error) -> Error {
    Error::io("the index in the state directory", error)
}

/// Chunks of index objects on their way into a run.
#[derive(Default)]
pub(crate) struct Gathered {
    chunks: Vec<(ChunkId, Spot)>,
    tables: Tables,
}

impl Gathered {
    /// Whether no more should be gathered: what is left out is read from the stores by the next backup.
    pub(crate) fn is_full(&self) -> bool {
        self.chunks.len() >= GATHERED_MAX
    }

    pub(crate) fn add(&mut self, index: ObjectHash, packs: &[CatalogPack]) {
        self.tables.indexes.push(index);
        for pack in packs {
            let chunks = pack.segments.iter().map(|ids| ids.iter().copied());
            self.add_pack(RunPack { name: pack.name, bytes: pack.bytes }, chunks);
        }
    }

    /// The same of packs that this backup wrote itself.
    pub(crate) fn add_written(&mut self, index: ObjectHash, packs: &[PackRecord]) {
        self.tables.indexes.push(index);
        for pack in packs {
            let chunks = pack.segments.iter().map(|segment| segment.chunks.iter().map(|(id, _)| *id));
            self.add_pack(RunPack { name: pack.name, bytes: pack.bytes }, chunks);
        }
    }

    fn add_pack(&mut self, pack: RunPack, segments: impl Iterator<Item = impl Iterator<Item = ChunkId>>) {
        let number = self.tables.packs.len() as u32;
        self.tables.packs.push(pack);
        for (segment, ids) in segments.enumerate() {
            let spot = Spot { pack: number, segment: segment as u32 };
            self.chunks.extend(ids.map(|id| (id, spot)));
        }
    }
}

/// New chunks held in memory before they are put aside in a file: one more and the set would take twice its memory.
const FRESH_MAX: usize = 7 << 16;
const FRESH_FILE: &str = "fresh-";

/// What is present already, and what this backup has taken in since: bounded memory however many chunks there are.
pub(crate) struct Known {
    catalog: Catalog,
    fresh: IdSet,
    put_aside: Vec<Run>,
}

impl Known {
    pub(crate) fn new(catalog: Catalog) -> Self {
        for name in catalog.state.file_names().iter().filter(|name| name.starts_with(FRESH_FILE)) {
            catalog.state.remove_file(name);
        }
        Self { catalog, fresh: IdSet::default(), put_aside: Vec::new() }
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        self.fresh.contains(id) || self.put_aside.iter().any(|run| run.holds(id)) || self.catalog.contains(id)
    }

    /// Notes a chunk; false when it is known already.
    pub(crate) fn insert(&mut self, id: ChunkId) -> bool {
        if self.contains(&id) {
            return false;
        }
        self.fresh.insert(id);
        if self.fresh.len() >= FRESH_MAX {
            // Without room for the file it stays in memory.
            if let Err(error) = self.put_fresh_aside() {
                log::warn!(error:% = error; "state.write-failed");
            }
        }
        true
    }

    fn put_fresh_aside(&mut self) -> io::Result<()> {
        let mut ids: Vec<ChunkId> = self.fresh.iter().copied().collect();
        ids.sort_unstable();
        let name = format!("{FRESH_FILE}{}", self.put_aside.len());
        let state = &self.catalog.state;
        let mut writer = RunWriter::new(state.create_file(&name)?, ids.len() as u64);
        for id in &ids {
            writer.push(id, Spot { pack: 0, segment: 0 })?;
        }
        writer.finish(&Tables::default())?;
        self.put_aside.push(Run::open(state.open_file(&name)?)?);
        self.fresh.clear();
        Ok(())
    }

    /// The catalog again, when the backup has ended.
    pub(crate) fn into_catalog(self) -> Catalog {
        for number in 0..self.put_aside.len() {
            self.catalog.state.remove_file(&format!("{FRESH_FILE}{number}"));
        }
        // The next backup reads these index objects again; until then what stood in the damaged blocks is sent once more.
        for open in self.catalog.runs.iter().filter(|open| open.run.is_damaged()) {
            self.catalog.state.remove_file(&open.name);
        }
        self.catalog
    }
}
