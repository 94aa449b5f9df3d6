//! Restore from one store, in batches: what comes next in the tree, then its content in pack order.

mod batch;
mod inspect;
mod plan;
mod write;

use crate::ahead::{Ahead, Window, run, split};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::locations::CopyNumber;
use crate::progress::{Phase, Progress, ProgressEvent};
use crate::read::Reader;
use crate::store::NamedStore;
use crate::target::{Directories, Handles, Special, Target};
use crate::unfinished::{Earlier, Note, earlier};
use backup_format::manifest::Owners;
use backup_format::tree::{Node, NodeKind};
use backup_format::{ChunkId, OpenKey, SnapshotId};
use batch::{Batch, Leaf, LeafKind, Wanted, state};
use futures::FutureExt;
use inspect::{Inspector, Kept};
use plan::{Piece, Planner, Renumbered, piece_at};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use write::{Fetched, OpenFiles, Shared, Tally, Writer, make_empty};

/// What to restore, and where to.
#[derive(Clone, Default)]
pub struct RestoreRequest {
    /// The target directory; made when absent. Nothing outside of it is written.
    pub into: PathBuf,
    /// Paths from the snapshot's root (`PART/dir/file`), or below `top`; empty: everything.
    pub paths: Vec<Vec<u8>>,
    /// Whether files that exist may be replaced; otherwise one existing entry refuses the restore before it starts.
    pub overwrite: bool,
    /// Name of a part that stands for the whole snapshot where it is a directory: its content goes to the top of the
    /// target, its attributes to the target itself, and `paths` begin below it. Empty: none.
    pub top: Vec<u8>,
    /// Whether owners are given back by number or by name.
    pub owners: OwnersBy,
    /// Stores to fall back on, object by object, where the first has something not whole or does not answer; best first.
    /// A drill names none: it proves one store alone.
    pub others: Vec<NamedStore>,
}

/// How owners are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnersBy {
    /// The numbers of the source machine.
    #[default]
    Numbers,
    /// The numbers that this machine has for the names; where it has none, those of the source.
    Names,
}

/// What was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOutcome {
    pub files: u64,
    pub directories: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Bytes that stood in the target already and were left alone.
    pub bytes_kept: u64,
    /// Bytes read from the store.
    pub bytes_fetched: u64,
    /// Attributes (owner, device, extended attribute) that this user or file system could not set.
    pub attributes_refused: u64,
    pub duration_ms: u64,
}

/// Pieces of packs under way at once.
const PIECES: Window = Window { requests_max: 12, bytes_max: 24 << 20 };
/// Entries that a thread takes at once.
const STEP: usize = 64;

/// Restores from this store, and from the request's others what it does not have whole. Every chunk's id is recomputed before its bytes are written.
pub async fn restore(
    env: &Env,
    open: &OpenKey,
    store: &NamedStore,
    id: SnapshotId,
    request: RestoreRequest,
    progress: &dyn Progress,
) -> Result<RestoreOutcome> {
    let started = env.steady_ms();
    let (reader, manifest, inner) = Reader::open_with(env, open, (store, &request.others), id).await?;
    let owners = match request.owners {
        OwnersBy::Numbers => Owners::default(),
        OwnersBy::Names => inner.owners,
    };
    let (root, itself) = top(&reader, manifest.root, &request).await?;
    let (mut planner, mut batch) = planner(&reader, root, &request.paths, &owners).await?;
    if let Some(itself) = &itself {
        let meta = batch.meta(itself, planner.owners.of(itself))?;
        batch.directories.push((0, meta));
    }
    let into = request.into.clone();
    let target = Arc::new(env.blocking(move || target_result(Target::open(&into))).await??);
    let looked = Arc::clone(&target);
    let earlier = env.blocking(move || earlier(&looked)).await??;
    // A restore of this very snapshot was killed: what stands there is what it made.
    let overwrite = request.overwrite || earlier == Earlier::Unfinished(Some(id));
    if !overwrite {
        refuse_existing(&reader, root, &request.paths, &target).await?;
    }
    let noted = Arc::clone(&target);
    let note = env.blocking(move || Note::write(&noted, id)).await??;
    let mut restore = Restore {
        reader: &reader,
        target,
        overwrite,
        trust_times: earlier == Earlier::Finished,
        progress,
        total: manifest.bytes_source,
        outcome: RestoreOutcome::default(),
        lost: None,
    };
    loop {
        let mut plan = Vec::new();
        let more = match planner.fill(&mut batch, &mut plan).await {
            Ok(more) => more,
            Err(error) => {
                let target = Arc::clone(&restore.target);
                env.blocking(move || remove_unfinished(&target, &batch, true)).await??;
                return Err(error);
            }
        };
        let mut done = restore.batch(batch, plan).await?;
        let next = planner.turn_over(&mut done)?;
        batch = restore.finish(done, next).await?;
        if !more {
            break;
        }
    }
    let lost = restore.lost(planner.counts.unknown_chunks);
    let itself = itself.map(|node| (planner.owners.of(&node), node));
    let target = Arc::clone(&restore.target);
    env.blocking(move || end(&target, note, lost, itself)).await??;
    let mut outcome = restore.outcome;
    (outcome.files, outcome.directories) = (planner.counts.files, planner.counts.directories);
    outcome.duration_ms = env.steady_ms().saturating_sub(started);
    Ok(outcome)
}

/// Where the restore begins; and the directory whose attributes the target gets, when all of it is wanted.
async fn top(reader: &Reader<'_>, root: ChunkId, request: &RestoreRequest) -> Result<(ChunkId, Option<Node>)> {
    if request.top.is_empty() {
        return Ok((root, None));
    }
    Ok(match reader.look_up(root, &request.top).await? {
        Some(node) => match node.kind {
            NodeKind::Directory { root } => (root, request.paths.is_empty().then_some(node)),
            _ => (root, None),
        },
        None => (root, None),
    })
}

pub(crate) fn target_error(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Error::new(
            ErrorKind::Misconfigured,
            "the target already holds an entry of this snapshot: choose an empty folder, or replace what differs with --overwrite",
        ),
        io::ErrorKind::DirectoryNotEmpty => Error::new(
            ErrorKind::Misconfigured,
            "a directory stands in the target where the snapshot has a file, and is not empty: move it away",
        ),
        _ => Error::io("writing the target", error),
    }
}

pub(crate) fn target_result<T>(result: io::Result<T>) -> Result<T> {
    result.map_err(|error| target_error(&error))
}

/// Makes everything durable. The note stays when something is lost; when it goes, the target's own time is set again.
fn end(target: &Target, note: Note, lost: Option<Error>, itself: Option<((u32, u32), Node)>) -> Result<()> {
    target_result(target.sync())?;
    if let Some(error) = lost {
        return Err(error);
    }
    note.remove(target)?;
    if let Some((owner, node)) = itself {
        let mut batch = Batch::default();
        let meta = batch.meta(&node, owner)?;
        let mut handles = target_result(Handles::new(target))?;
        target_result(handles.get(&batch.table, 0).and_then(|handle| handle.set_own(batch.attributes(&meta))))?;
    }
    target_result(rustix::fs::fsync(target.fd()).map_err(io::Error::from))
}

/// Refuses before anything is written when the target holds something of the snapshot already.
async fn refuse_existing(reader: &Reader<'_>, root: ChunkId, paths: &[Vec<u8>], target: &Arc<Target>) -> Result<()> {
    let looked = Arc::clone(target);
    if reader.env.blocking(move || target_result(looked.is_empty())).await?? {
        return Ok(());
    }
    let (mut planner, mut batch) = planner(reader, root, paths, &Owners::default()).await?;
    loop {
        let more = planner.fill(&mut batch, &mut Vec::new()).await?;
        let looked = Arc::clone(target);
        let mut done = reader.env.blocking(move || look_for_existing(&looked, batch)).await??;
        if !more {
            return Ok(());
        }
        batch = planner.turn_over(&mut done)?;
    }
}

fn look_for_existing(target: &Target, batch: Batch) -> Result<Batch> {
    let mut handles = target_result(Handles::new(target))?;
    let items = batch.items.iter().map(|item| (item.directory, item.name));
    let leaves = batch.leaves.iter().map(|leaf| (leaf.directory, leaf.name));
    let links = batch.links.iter().map(|link| (link.directory, link.name));
    for (directory, name) in items.chain(leaves).chain(links) {
        let handle = match handles.get(&batch.table, directory) {
            Ok(handle) => handle,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // Something else stands where a directory of the snapshot will be.
            Err(_) => return Err(target_error(&io::ErrorKind::AlreadyExists.into())),
        };
        if target_result(handle.stat(batch.strings.name(name)))?.is_some() {
            return Err(target_error(&io::ErrorKind::AlreadyExists.into()));
        }
    }
    Ok(batch)
}

async fn planner<'r, 'a>(
    reader: &'r Reader<'a>,
    root: ChunkId,
    paths: &[Vec<u8>],
    owners: &Owners,
) -> Result<(Planner<'r, 'a>, Batch)> {
    let names = reader.env.owner_names();
    let users = owners.users.iter().filter_map(|(number, name)| Some((*number, names.uid(name)?))).collect();
    let groups = owners.groups.iter().filter_map(|(number, name)| Some((*number, names.gid(name)?))).collect();
    let renumbered = Renumbered { users, groups };
    let mut batch = Batch::default();
    let planner = match paths {
        [] => Planner::whole(reader, root, renumbered),
        paths => Planner::of_paths(reader, (root, renumbered), paths, &mut batch).await?,
    };
    Ok((planner, batch))
}

/// A restore under way.
struct Restore<'r, 'a> {
    reader: &'r Reader<'a>,
    target: Arc<Target>,
    overwrite: bool,
    trust_times: bool,
    progress: &'r dyn Progress,
    total: u64,
    outcome: RestoreOutcome,
    /// A copy of the first chunk that could not be read anywhere.
    lost: Option<CopyNumber>,
}

impl Restore<'_, '_> {
    /// Makes everything of a batch but the attributes of its directories. No file that is not whole stays under its name,
    /// whatever happens.
    async fn batch(&mut self, batch: Batch, plan: Vec<Wanted>) -> Result<Batch> {
        let shared = Arc::new(Shared {
            locations: Arc::clone(&self.reader.locations),
            id_key: self.reader.open.id_key().clone(),
            repository: self.reader.open.repository(),
            target: Arc::clone(&self.target),
            batch,
            overwrite: self.overwrite,
            open_files: OpenFiles::default(),
            failed: Mutex::default(),
            tally: Tally::default(),
        });
        let filled = self.fill(&shared, plan).await;
        let (work, ended) = (Arc::clone(&shared), filled.is_err());
        let removed = self.reader.env.blocking(move || remove_unfinished(&work.target, &work.batch, ended)).await?;
        filled.and(removed)?;
        // A file that is not whole has no further names.
        let work = Arc::clone(&shared);
        self.reader.env.blocking(move || make_links(&work)).await??;
        self.outcome.bytes += shared.tally.bytes.load(Ordering::Relaxed);
        self.outcome.bytes_kept += shared.tally.kept.load(Ordering::Relaxed);
        self.outcome.attributes_refused += shared.tally.refused.load(Ordering::Relaxed);
        let shared = Arc::into_inner(shared);
        shared.map(|shared| shared.batch).ok_or_else(|| Error::new(ErrorKind::Retry, "a worker did not end"))
    }

    /// Makes directories, files and special files, with their content.
    async fn fill(&mut self, shared: &Arc<Shared>, mut plan: Vec<Wanted>) -> Result<()> {
        let work = Arc::clone(shared);
        self.reader.env.blocking(move || make_directories(&work)).await??;
        if self.overwrite {
            plan = self.differing(shared, plan).await?;
        }
        self.small(shared).await?;
        // Every copy in one place, then what is left in the next place.
        let (mut level, mut fetched) = (0, 0);
        while !plan.is_empty() {
            let mut left = Vec::new();
            while !plan.is_empty() {
                plan.sort_unstable();
                fetched += self.data(shared, plan, level).await?;
                plan = self.elsewhere(shared, &mut left);
            }
            level += 1;
            let through = level % self.reader.stores() == 0;
            if level == self.reader.levels() || through && level > self.reader.stores() && fetched == 0 {
                // No store has so many candidates.
                self.give_up(shared, &left);
                return Ok(());
            }
            if through {
                fetched = 0;
            }
            plan = left.into_iter().filter_map(|wanted| self.first_copy(wanted)).collect();
        }
        Ok(())
    }

    /// What of a plan is not in the target already.
    async fn differing(&self, shared: &Arc<Shared>, plan: Vec<Wanted>) -> Result<Vec<Wanted>> {
        let (kept, plan) = (Arc::new(Kept::none(&plan)), Arc::new(plan));
        let (work, parts, found, trust) = (Arc::clone(shared), Arc::clone(&plan), Arc::clone(&kept), self.trust_times);
        let make = move || Inspector::new(&work, &parts, &found, trust);
        let look = |inspector: &mut Inspector, range: std::ops::Range<usize>| {
            range.into_iter().try_for_each(|number| inspector.inspect(number as u32))
        };
        split(self.reader.env, shared.batch.items.len(), STEP, Arc::new(make), Arc::new(look)).await?;
        let mut plan = Arc::into_inner(plan).unwrap_or_default();
        let mut at = 0;
        plan.retain(|_| {
            at += 1;
            !kept.is(at - 1)
        });
        Ok(plan)
    }

    /// Everything that needs no segment: special files, empty files.
    async fn small(&self, shared: &Arc<Shared>) -> Result<()> {
        let (leaves, items) = (shared.batch.leaves.len(), shared.batch.items.len());
        let (work, target) = (Arc::clone(shared), Arc::clone(&self.target));
        split(
            self.reader.env,
            leaves + items,
            STEP,
            Arc::new(move || target_result(Handles::new(&target))),
            Arc::new(move |handles, range| {
                for at in range {
                    match (work.batch.leaves.get(at), at.checked_sub(leaves).and_then(|at| work.batch.items.get(at))) {
                        (Some(leaf), _) => make_leaf(handles, &work, leaf)?,
                        (None, Some(item)) if item.left.load(Ordering::Acquire) == 0 && !item.is(state::DONE) => {
                            make_empty(handles, &work, item)?;
                        }
                        _ => {}
                    }
                }
                Ok(())
            }),
        )
        .await
    }

    /// Fetches, decodes and writes what a sorted plan wants.
    async fn data(&mut self, shared: &Arc<Shared>, plan: Vec<Wanted>, level: usize) -> Result<u64> {
        let plan = Arc::new(plan);
        let fetched = Arc::new(AtomicU64::new(0));
        let (reader, count) = (self.reader, Arc::clone(&fetched));
        let (locations, pieces) = (Arc::clone(&reader.locations), Arc::clone(&plan));
        let mut at = 0;
        let jobs = std::iter::from_fn(move || {
            let piece = piece_at(&locations, &pieces, at)?;
            at = piece.plan.end;
            Some(((piece.to - piece.from) as usize, piece))
        });
        let fetch = move |piece: Piece| fetch_piece(reader, level, piece, Arc::clone(&count)).boxed();
        let (work, wanted) = (Arc::clone(shared), Arc::clone(&plan));
        let make = Arc::new(move || Writer::new(&work, &wanted));
        let (before, tally, progress) = (self.outcome.bytes, Arc::clone(shared), self.progress);
        let mut seen = || {
            progress.report(ProgressEvent {
                phase: Phase::Fetch,
                done_bytes: before + tally.tally.bytes.load(Ordering::Relaxed),
                total_bytes: Some(self.total),
                files: tally.batch.items.len() as u64,
                store: Some(&reader.store.name),
            });
        };
        run(reader.env, Ahead::new(PIECES, jobs, fetch), make, &mut seen).await?;
        let fetched = fetched.load(Ordering::Relaxed);
        self.outcome.bytes_fetched += fetched;
        Ok(fetched)
    }

    /// What could not be read in one pack may lie in another one too; `left`: what lies in no further one.
    fn elsewhere(&self, shared: &Shared, left: &mut Vec<Wanted>) -> Vec<Wanted> {
        let failed = std::mem::take(&mut *shared.failed.lock().unwrap_or_else(PoisonError::into_inner));
        let mut again = Vec::new();
        for wanted in failed {
            match self.reader.locations.next_copy(wanted.copy) {
                Some(copy) => again.push(Wanted { copy, ..wanted }),
                None => left.push(wanted),
            }
        }
        again
    }

    fn first_copy(&self, wanted: Wanted) -> Option<Wanted> {
        let locations = &self.reader.locations;
        let copy = locations.copies(&locations.id(wanted.copy)?).next()?;
        Some(Wanted { copy, ..wanted })
    }

    fn give_up(&mut self, shared: &Shared, left: &[Wanted]) {
        for wanted in left {
            self.lost.get_or_insert(wanted.copy);
            shared.batch.item(wanted.item).iter().for_each(|item| item.set(state::LOST));
        }
    }

    /// Attributes of the directories that are complete, deepest first: a parent may then become unwritable.
    async fn finish(&mut self, done: Batch, next: Batch) -> Result<Batch> {
        let target = Arc::clone(&self.target);
        let work = move || {
            let (mut handles, mut refused) = (target_result(Handles::new(&target))?, 0);
            for (number, meta) in done.directories.iter().rev() {
                let handle = target_result(handles.get(&next.table, *number))?;
                refused += target_result(handle.set_own(done.attributes(meta)))?;
            }
            Ok::<_, Error>((next, refused))
        };
        let (next, refused) = self.reader.env.blocking(work).await??;
        self.outcome.attributes_refused += refused;
        Ok(next)
    }

    /// What is said when chunks could not be read anywhere.
    fn lost(&self, unknown_chunks: u64) -> Option<Error> {
        (self.lost.is_some() || unknown_chunks > 0).then(|| self.reader.lost(self.lost))
    }
}

/// Removes the files of a batch that this restore made and that have not got all their content: those of which a piece is
/// lost, and when the restore ends here, all that were begun. What stood in the target before stays where it is.
fn remove_unfinished(target: &Target, batch: &Batch, ended: bool) -> Result<()> {
    let begun = |item: &&batch::Item| item.is(state::MADE) && !item.is(state::DONE | state::IN_PLACE);
    let given_up = |item: &&batch::Item| ended || item.is(state::LOST) && !item.is(state::OPEN_ENDED);
    let mut handles = target_result(Handles::new(target))?;
    for item in batch.items.iter().filter(begun).filter(given_up) {
        let directory = handles.get(&batch.table, item.directory);
        target_result(directory.and_then(|directory| directory.clear(batch.strings.name(item.name))))?;
    }
    Ok(())
}

fn make_directories(shared: &Shared) -> Result<()> {
    let mut handles = target_result(Handles::new(&shared.target))?;
    let table = &shared.batch.table;
    for (number, _) in shared.batch.directories.iter().skip(shared.batch.new_directories) {
        let Some((parent, name)) = table.place(*number) else { continue };
        let made = handles.get(table, parent).and_then(|parent| parent.make_directory(name, shared.overwrite));
        target_result(made)?;
    }
    Ok(())
}

fn make_leaf(handles: &mut Handles, shared: &Shared, leaf: &Leaf) -> Result<()> {
    let batch = &shared.batch;
    let name = batch.strings.name(leaf.name);
    let special = match leaf.kind {
        LeafKind::Symlink { target } => Special::Symlink(batch.strings.long(target)),
        LeafKind::Node { kind, device } => Special::Node(kind, device),
    };
    let mut make = || {
        let handle = handles.get(&batch.table, leaf.directory)?;
        if shared.overwrite {
            handle.clear(name)?;
        }
        match handle.make_special(name, special) {
            // A device that this user may not make.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && special.is_device() => Ok(1),
            made => made.and_then(|()| handle.set_special(name, special, batch.attributes(&leaf.meta))),
        }
    };
    let refused = target_result(make())?;
    shared.tally.refused.fetch_add(refused, Ordering::Relaxed);
    Ok(())
}

fn make_links(shared: &Shared) -> Result<()> {
    let batch = &shared.batch;
    let mut handles = target_result(Handles::new(&shared.target))?;
    for link in &batch.links {
        let name = batch.strings.name(link.name);
        let (from, from_name) = link.first;
        let mut make = || {
            let first = handles.get(&batch.table, from)?;
            let (from, to) = (first.fd().try_clone()?, first.stat(batch.table.name(from_name))?);
            let handle = handles.get(&batch.table, link.directory)?;
            if shared.overwrite {
                let inode = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
                if to.is_some() && handle.stat(name)?.map(inode) == to.map(inode) {
                    return Ok(());
                }
                handle.clear(name)?;
            }
            handle.make_link(name, (&from, batch.table.name(from_name)))
        };
        match make() {
            // A device that could not be made has no further names either.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                shared.tally.refused.fetch_add(1, Ordering::Relaxed)
            }
            made => target_result(made).map(|()| 0)?,
        };
    }
    Ok(())
}

async fn fetch_piece(reader: &Reader<'_>, level: usize, piece: Piece, count: Arc<AtomicU64>) -> Result<Fetched> {
    let range = u64::from(piece.from)..u64::from(piece.to);
    let bytes = match reader.locations.pack(piece.pack) {
        Some(pack) => reader.range_at(level, pack, range).await?,
        None => None,
    };
    count.fetch_add(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64), Ordering::Relaxed);
    Ok(Fetched { plan: piece.plan, from: piece.from, bytes })
}
