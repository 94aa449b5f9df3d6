//! A snapshot: read once, seal once, send to every store, commit when the quorum holds it.

use crate::catalog::{Catalog, Gathered, Known};
use crate::chain::{self, Standing};
use crate::chunker::{PAGE_BYTES_MAX, PAGE_BYTES_MIN};
use crate::commit::{Commit, commit};
use crate::damage::Damage;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::require;
use crate::lease::SourceLease;
use crate::manifest::Sealing;
use crate::pack::{Sealer, run};
use crate::progress::{Phase, Progress, ProgressEvent};
use crate::remembered::{Memo, Memory};
use crate::room::{Permitted, Room};
use crate::scout::Excludes;
use crate::send::{Fleet, Lane, packs_in_memory};
use crate::set_back;
use crate::spool::{self, SPOOL};
use crate::state::State;
use crate::store::{NamedStore, domains};
use crate::survey::{View, index_name, note_losses, pack_name, snapshot_name, union};
use crate::walk::{Counters, Walk, Walked, is_part_name};
use backup_format::features::Purpose;
use backup_format::manifest::{NAME_BYTES_MAX, UnreadableReason};
use backup_format::pack::PackRecord;
use backup_format::sealed::{OBJECT_BYTES_MAX, PartsKind, class_for, seal_parts};
use backup_format::{
    CatalogKey, FormatError, IncarnationId, ObjectHash, SealKey, SnapshotId, SourceId, WriterCredential,
};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// How a part's files are cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// Content-defined chunks.
    Files,
    /// Fixed chunks of this many bytes, for databases and images.
    Pages { page_bytes: u32 },
}

/// One tree of a snapshot.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its top-level name in the snapshot.
    pub name: String,
    /// A directory or a single file.
    pub path: PathBuf,
    pub kind: PartKind,
}

/// What to take.
#[derive(Debug, Clone)]
pub struct SnapshotRequest {
    /// The source's name, e.g. `emr`. Part of the catalog, not sealed.
    pub source: String,
    pub parts: Vec<Part>,
    /// Paths below a part, `PART/dir/file`, or bare names without a slash, either with `*`, `?`, `[a-z]`, `**`:
    /// neither they nor what is in them is taken.
    pub excludes: Vec<String>,
    /// Sealed in the inner manifest.
    pub tag: Option<String>,
    /// Sealed in the inner manifest.
    pub facts: Option<Vec<u8>>,
    /// In how many failure domains counting stores must hold the snapshot before it is durable.
    pub quorum: u32,
    /// Something that belongs to the source could not be had: the snapshot counts as partial even when every file of the
    /// parts was read.
    pub incomplete: bool,
    /// Asked when everything was read and nothing is signed yet.
    pub lease: SourceLease,
    /// Rebuildable local state; `None`: none is kept, and every source file is read.
    pub state_dir: Option<PathBuf>,
    /// Ends the backup early; what was sent is indexed first.
    pub stop: Stop,
}

/// A wish that can be made from elsewhere: end early and cleanly.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What came of a snapshot at one store.
#[derive(Debug)]
pub struct StoreOutcome {
    pub store: String,
    pub counts_for_quorum: bool,
    /// The store holds everything that the snapshot reaches, and its head.
    pub durable: bool,
    pub bytes_sent: u64,
    pub duration_ms: u64,
    pub error: Option<Error>,
}

/// How many files could not be taken as they were, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnreadableCounts {
    pub denied: u64,
    pub vanished: u64,
    pub changed: u64,
    pub input_output: u64,
}

impl UnreadableCounts {
    pub(crate) fn count(&mut self, reason: UnreadableReason) {
        *match reason {
            UnreadableReason::Denied => &mut self.denied,
            UnreadableReason::Vanished => &mut self.vanished,
            UnreadableReason::Changed => &mut self.changed,
            UnreadableReason::Io => &mut self.input_output,
        } += 1;
    }
}

/// What came of a snapshot.
#[derive(Debug)]
pub struct SnapshotOutcome {
    pub id: SnapshotId,
    /// The chain that its head stands in.
    pub incarnation: IncarnationId,
    pub counter: u64,
    pub taken_unix_ms: i64,
    /// Counting stores in at least `quorum` failure domains are durable.
    pub durable: bool,
    /// It lies in the spool until more stores answer.
    pub spooled: bool,
    /// Some file could not be read, vanished or changed, or the source moved on: the snapshot is incomplete.
    pub partial: bool,
    pub unreadable_files: u64,
    /// The same by reason.
    pub unreadable: UnreadableCounts,
    pub files: u64,
    pub bytes_source: u64,
    /// Bytes of source files that had to be read (the others were known by their state).
    pub bytes_read: u64,
    /// Sealed bytes of packs and index objects that this snapshot added to each store.
    pub bytes_added: u64,
    pub duration_ms: u64,
    pub stores: Vec<StoreOutcome>,
}

/// An index object is written after so many packs, or so much time.
const INDEX_PACKS: usize = 16;
const INDEX_EVERY_MS: u64 = 10_000;
/// What an index object takes beside the packs it lists, bytes, rounded up.
const INDEX_ROOM: usize = 4 << 10;
/// Attempts of one snapshot, the first included, when what it rests on turns out to be damaged, or a deletion plan comes.
const ATTEMPTS_MAX: u32 = 3;
/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Takes a snapshot. `Err` only when no store at all could take it or the request is wrong; a missed quorum is
/// `Ok` with `durable == false`, and `replicate` or the next snapshot completes it. A spool among the stores takes part
/// when too few of them answer.
pub async fn snapshot(
    env: &Env,
    writer: &WriterCredential,
    stores: &[NamedStore],
    request: SnapshotRequest,
    progress: &dyn Progress,
) -> Result<SnapshotOutcome> {
    check(stores, &request)?;
    let state = Arc::new(open_state(env, &request)?);
    state.prepare();
    let (mut attempt, mut spool) = (1, false);
    loop {
        let known = Damage::load(&state).count();
        let taken = take(env, (writer, stores, &state), (&request, spool), progress).await;
        let missed = match &taken {
            Ok(outcome) => outcome.stores.iter().any(|store| !store.durable),
            Err(error) => error.kind() == ErrorKind::Damaged,
        };
        // What this attempt rested on and found damaged counts as absent in the next.
        let found = missed && Damage::load(&state).count() > known;
        let by_a_plan = |error: &Error| error.kind() == ErrorKind::Fenced;
        let planned = match &taken {
            Ok(outcome) => !outcome.durable && outcome.stores.iter().filter_map(|at| at.error.as_ref()).any(by_a_plan),
            Err(error) => by_a_plan(error),
        };
        // Stores that answered at first and then took nothing.
        let refused = |error: &Error| !matches!(error.kind(), ErrorKind::Misconfigured | ErrorKind::Stopped);
        let unheard = !spool && stores.iter().any(|store| store.is_spool()) && taken.as_ref().is_err_and(refused);
        spool |= unheard;
        if !(found || planned || unheard) || attempt == ATTEMPTS_MAX || request.stop.is_stopped() {
            return taken;
        }
        log::warn!(attempt = attempt, damage = found, plan = planned, spool = spool; "snapshot.begins-again");
        attempt += 1;
    }
}

/// One attempt.
async fn take(
    env: &Env,
    (writer, stores, state): (&WriterCredential, &[NamedStore], &Arc<State>),
    (request, spool): (&SnapshotRequest, bool),
    progress: &dyn Progress,
) -> Result<SnapshotOutcome> {
    let (started, taken_unix_ms) = (env.steady_ms(), env.now_unix_ms());
    let (union, catalog) = union(writer.catalog(), stores, state).await?;
    note_losses(stores, state, &union, taken_unix_ms).await;
    if !union.offline {
        let keyring = require(stores, &union.views, writer.catalog(), Purpose::Write).await?;
        if keyring.newest_epoch > writer.seal_key().epoch() {
            log::warn!(epoch = writer.seal_key().epoch(), newest = keyring.newest_epoch; "writer.epoch_behind");
        }
    }
    let spool = spool || union.counting(stores) < request.quorum as usize;
    if spool {
        spool::sweep(stores, &union).await;
    }
    let open = |(store, view): (&NamedStore, &View)| {
        (view.listing.is_ok() && (spool || !store.is_spool())).then(|| Lane::open(store))
    };
    let lanes = stores.iter().zip(&union.views).map(open);
    let mut sending = Sending {
        env,
        writer,
        fleet: Fleet::new(lanes.collect(), request.quorum),
        unindexed: Vec::new(),
        packs: Vec::new(),
        indexes: Vec::new(),
        gathered: Gathered::default(),
        written: Vec::new(),
        bytes_added: 0,
        indexed_ms: started,
    };
    let source = writer.catalog().source_id(&request.source);
    let read = read_and_send(&mut sending, state, request, (source, Known::new(catalog)), progress).await;
    sending.index(true).await?;
    let (mut walked, memo, mut catalog) = match read {
        Ok(read) => read,
        Err(error) => {
            sending.keep_what_was_sent().await;
            return Err(error);
        }
    };
    for part in request.lease.lost() {
        walked.note(part.as_bytes().to_vec(), UnreadableReason::Changed);
    }
    let partial = walked.unreadable_count > 0 || request.incomplete;
    progress.report(event(Phase::Commit, &walked));
    let has_spool = stores.iter().any(|store| store.is_spool());
    if has_spool {
        spool::note(state, &sending.packs);
    }
    catalog.add(std::mem::take(&mut sending.gathered))?;
    let mut indexes = catalog.indexes();
    indexes.extend(sending.written.iter().copied());
    indexes.sort_unstable();
    indexes.dedup();
    memo.finish(&indexes);

    let (added, plan_seen) = (sending.bytes_added, union.condemned.plan_seen());
    set_back::look(env, writer.catalog(), (source, state), (stores, &union)).await;
    let set_back = set_back::open_of(state, source);
    let sealing = Sealing { env, writer, request, walked: &walked, partial, taken_unix_ms, added, plan_seen, set_back };
    state.require_unlocked()?;
    let before = chain::recorded(state, source);
    let mut link = chain::next(env, state, source, &union);
    let mut sealed = sealing.seal(source, &link)?;
    let head = (sealed.head_name.hash, sealed.id);
    let recorded = chain::record(state, source, &link, (head, taken_unix_ms), Standing::Unknown);
    if let Err(error) = &recorded {
        // A link that cannot be recorded must not continue the chain: after a crash its counter might be used again.
        log::warn!(error:% = error; "state.write-failed");
        link = chain::begin(env, &union);
        sealed = sealing.seal(source, &link)?;
    }
    if spool {
        spool::note_rests(state, (stores, &union), sealed.head_name, &indexes);
    }
    let plan = Commit {
        env,
        catalog: writer.catalog(),
        stores,
        union: &union,
        fleet: &sending.fleet,
        packs: &sending.packs,
        indexes: &sending.indexes,
        snapshot: (snapshot_name(&sealed.id.0), sealed.manifest),
        head: (sealed.head_name.to_string(), sealed.head),
        head_sent: AtomicBool::new(false),
        quorum: request.quorum,
        started_ms: started,
    };
    let outcomes = commit(&plan).await;
    plan.keep_held(state, &outcomes);
    let head_sent = plan.head_sent.load(Ordering::SeqCst);
    let (outcomes, at_spool): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|at| at.store != SPOOL);
    let spooled = at_spool.iter().any(|spool| spool.durable);
    let planned = outcomes.iter().filter_map(|outcome| outcome.error.as_ref()).any(|e| e.kind() == ErrorKind::Fenced);
    // What a plan took out while this attempt ran must not be named again.
    let stored = outcomes.iter().any(|outcome| outcome.durable);
    let left = if spool && !spooled { sending.names() } else { Vec::new() };
    if !planned && !stored && !spooled {
        sending.keep_what_was_sent().await;
    }
    spool::take_back(stores, left).await;
    let holds = |store: &&NamedStore| outcomes.iter().any(|outcome| outcome.durable && outcome.store == store.name);
    let counting = domains(stores.iter().filter(holds));
    if !stored && !spooled {
        // A record of a head that may lie somewhere would begin a new chain while a store is silent.
        if recorded.is_ok()
            && !head_sent
            && let Err(error) = chain::take_back(state, source, before)
        {
            log::warn!(error:% = error; "state.write-failed");
        }
        return Err(nobody_took_it(at_spool.into_iter().filter(|_| spool).chain(outcomes)));
    }
    if has_spool && !spooled {
        spool::forget(state, &sending.packs);
    }
    let standing = if stored { Standing::Stored } else { Standing::Spooled };
    if recorded.is_ok()
        && let Err(error) = chain::record(state, source, &link, (head, taken_unix_ms), standing)
    {
        // The next run sees in the stores that it is there.
        log::warn!(error:% = error; "state.write-failed");
    }
    Ok(SnapshotOutcome {
        id: sealed.id,
        incarnation: link.incarnation,
        counter: link.counter,
        taken_unix_ms,
        durable: counting >= request.quorum as usize,
        spooled,
        partial,
        unreadable_files: walked.unreadable_count,
        unreadable: walked.reasons,
        files: walked.files,
        bytes_source: walked.bytes_source,
        bytes_read: walked.bytes_read,
        bytes_added: sending.bytes_added,
        duration_ms: env.steady_ms().saturating_sub(started),
        stores: outcomes,
    })
}

/// Why, as the first says.
fn nobody_took_it(outcomes: impl Iterator<Item = StoreOutcome>) -> Error {
    let mut errors = outcomes.filter_map(|outcome| Some(outcome.error?.context(outcome.store)));
    errors.next().unwrap_or_else(|| Error::new(ErrorKind::Retry, "no store took the snapshot"))
}

/// A state that cannot be written is no reason to go without a backup: it then reads everything, on a chain of its own.
fn open_state(env: &Env, request: &SnapshotRequest) -> Result<State> {
    let Some(dir) = &request.state_dir else { return Ok(State::memory()) };
    match env.open_state(dir) {
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NoSpace) => {
            log::warn!(error:% = error; "state.unusable");
            Ok(State::memory())
        }
        state => state,
    }
}

fn check(stores: &[NamedStore], request: &SnapshotRequest) -> Result<()> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Misconfigured, message));
    let counting = domains(stores.iter());
    if stores.is_empty() {
        return wrong("no store is given: name at least one".to_owned());
    }
    if request.quorum as usize > counting {
        return wrong(format!(
            "the quorum is {}, but only {counting} stores apart from each other count for it",
            request.quorum
        ));
    }
    if request.source.is_empty() || request.source.len() > NAME_BYTES_MAX {
        return wrong(format!("the source's name must have 1 to {NAME_BYTES_MAX} bytes"));
    }
    if request.parts.is_empty() {
        return wrong("the source has no parts: name at least one path".to_owned());
    }
    for (at, part) in request.parts.iter().enumerate() {
        let again = request.parts.iter().take(at).any(|other| other.name == part.name);
        if again || !is_part_name(&part.name) {
            return wrong("a part's name is empty, used twice or contains a slash".to_owned());
        }
        if let PartKind::Pages { page_bytes } = part.kind
            && (!(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes) || !page_bytes.is_power_of_two())
        {
            return wrong(format!("a page must have a power of two from {PAGE_BYTES_MIN} to {PAGE_BYTES_MAX} bytes"));
        }
    }
    if request.tag.as_ref().is_some_and(|tag| tag.len() > NAME_BYTES_MAX) {
        return wrong(format!("a tag may have {NAME_BYTES_MAX} bytes at most"));
    }
    // It would change how lists of snapshots are shown.
    if request.tag.as_ref().is_some_and(|tag| tag.chars().any(char::is_control)) {
        return wrong("the tag has a line break or a control character: give one line of plain text".to_owned());
    }
    Ok(())
}

fn event<'a>(phase: Phase, walked: &Walked) -> ProgressEvent<'a> {
    ProgressEvent {
        phase,
        done_bytes: walked.bytes_source,
        total_bytes: Some(walked.bytes_source),
        files: walked.files,
        store: None,
    }
}

/// What goes to the stores while the sources are read.
struct Sending<'a> {
    env: &'a Env,
    writer: &'a WriterCredential,
    fleet: Fleet,
    unindexed: Vec<PackRecord>,
    /// Names of packs and index objects, in order.
    packs: Vec<String>,
    /// The last index object comes with its bytes: it is put only when the quorum holds its packs.
    indexes: Vec<(String, Option<Bytes>)>,
    gathered: Gathered,
    written: Vec<ObjectHash>,
    bytes_added: u64,
    indexed_ms: u64,
}

impl Sending<'_> {
    async fn pack(&mut self, pack: Permitted) -> Result<()> {
        let (record, bytes) = pack.into_parts();
        let name = pack_name(&record.name);
        self.bytes_added += bytes.len() as u64;
        self.fleet.send(&name, &bytes, false).await;
        drop(bytes);
        self.packs.push(name);
        self.unindexed.push(record);
        self.index(false).await
    }

    /// Writes an index object when it is time. The last one is not queued: it waits for the packs' quorum.
    async fn index(&mut self, last: bool) -> Result<()> {
        let now = self.env.steady_ms();
        let due = self.unindexed.len() >= INDEX_PACKS || now.saturating_sub(self.indexed_ms) > INDEX_EVERY_MS;
        if self.unindexed.is_empty() || !(last || due) {
            return Ok(());
        }
        self.indexed_ms = now;
        let mut records = std::mem::take(&mut self.unindexed);
        for count in index_groups(&records) {
            let group: Vec<PackRecord> = records.drain(..count).collect();
            self.index_of(group, last).await?;
        }
        Ok(())
    }

    /// Of very many tiny chunks the records take the most memory of a backup: they go as they are written.
    async fn index_of(&mut self, group: Vec<PackRecord>, last: bool) -> Result<()> {
        let keys = (self.writer.catalog(), self.writer.seal_key());
        let (mut left, sealed) = (group.as_slice(), seal_index(self.env, keys, &group)?);
        for (name, bytes, count) in sealed {
            let (packs, others) = left.split_at_checked(count).unwrap_or((left, &[]));
            left = others;
            self.bytes_added += bytes.len() as u64;
            let hash = ObjectHash::of(&bytes);
            if !self.gathered.is_full() {
                self.gathered.add_written(hash, packs);
            }
            self.written.push(hash);
            if last {
                self.indexes.push((name, Some(bytes)));
            } else {
                self.fleet.send(&name, &bytes, true).await;
                self.indexes.push((name, None));
            }
        }
        Ok(())
    }

    /// Names of the packs and index objects that this backup made.
    fn names(&self) -> Vec<String> {
        self.indexes.iter().map(|(name, _)| name).chain(&self.packs).cloned().collect()
    }

    /// After a stop, or where no store took the snapshot: the index of what every lane has taken, so that the next backup need not send it again.
    async fn keep_what_was_sent(&mut self) {
        for (name, bytes) in std::mem::take(&mut self.indexes) {
            if let Some(bytes) = bytes {
                self.fleet.send(&name, &bytes, true).await;
            }
        }
        for lane in self.fleet.lanes.iter().flatten() {
            // What fails here is only sent again next time.
            let _ = lane.drained().await;
        }
    }
}

/// How many packs at a time share an index object: one class up is four times as large, so what would half-fill it is cut to
/// fill the class below.
fn index_groups(records: &[PackRecord]) -> Vec<usize> {
    let costs: Vec<usize> = records.iter().map(backup_format::index::cost).collect();
    let (mut groups, mut costs) = (Vec::new(), costs.as_slice());
    loop {
        let total = costs.iter().sum::<usize>() + INDEX_ROOM;
        let class = class_for(total).unwrap_or(OBJECT_BYTES_MAX);
        if costs.len() < 2 || class <= 1 << 20 || total * 4 >= class * 3 {
            groups.push(costs.len());
            return groups;
        }
        let mut room = class / 4 - INDEX_ROOM;
        let fits = |cost: &&usize| room.checked_sub(**cost).map(|left| room = left).is_some();
        let taken = costs.iter().take_while(fits).count().max(1);
        groups.push(taken);
        costs = costs.split_at(taken).1;
    }
}

/// Index objects of these packs, each with how many of the packs it names. Very many tiny chunks make one object too large:
/// then it is halved.
pub(crate) fn seal_index(
    env: &Env,
    keys: (&CatalogKey, &SealKey),
    records: &[PackRecord],
) -> Result<Vec<(String, Bytes, usize)>> {
    let sealed = backup_format::index::encode(records)
        .and_then(|(catalog, open)| seal_parts(&mut env.rng(), PartsKind::Index, keys, &catalog, &open));
    match sealed {
        Ok(bytes) => Ok(vec![(index_name(&ObjectHash::of(&bytes)), Bytes::from(bytes), records.len())]),
        Err(FormatError::Limit { .. }) if records.len() > 1 => {
            let (first, second) = records.split_at(records.len() / 2);
            let mut both = seal_index(env, keys, first)?;
            both.extend(seal_index(env, keys, second)?);
            Ok(both)
        }
        Err(error) => Err(error.into()),
    }
}

async fn read_and_send(
    sending: &mut Sending<'_>,
    state: &Arc<State>,
    request: &SnapshotRequest,
    (source, known): (SourceId, Known),
    progress: &dyn Progress,
) -> Result<(Walked, Memo, Catalog)> {
    let (packs, mut sealed) = mpsc::unbounded_channel();
    let room = match sending.env.workers() {
        // Nobody could make room while the caller's own thread waits for it.
        0 => Room::new(usize::MAX),
        _ => Room::new(packs_in_memory(sending.fleet.lanes.len())),
    };
    let counters = Arc::new(Counters::default());
    let env = sending.env.clone();
    let sealer =
        Sealer::new(env.clone(), sending.writer.seal_key().clone(), sending.writer.repository(), (packs, room));
    let id_key = sending.writer.id_key().clone();
    let (request, state, counted) = (request.clone(), Arc::clone(state), Arc::clone(&counters));
    let stop = request.stop.clone();
    let reading = sending.env.blocking(move || {
        let file = format!("walk-{source}");
        let (memory, indexes) = state.open_file(&file).map_or_else(|_| (Memory::none(), Vec::new()), Memory::open);
        let trusted = known.catalog().holds_all(&indexes);
        let memo = Memo::new(state.create_file(&file));
        let ((walked, memo), known) = run(&sealer, &id_key, known, |intake| {
            let walk = Walk::new(intake, (memory, trusted), memo, &counted, env.now_unix_ms());
            walk.run(&env, &request.parts, &Excludes::new(&request.excludes))
        })?;
        // What was held to know chunks again makes room for the index.
        Ok::<_, Error>((walked, memo, known.into_catalog()))
    });
    tokio::pin!(reading);
    let mut walked = None;
    loop {
        counters.stop.store(stop.is_stopped(), Ordering::Relaxed);
        progress.report(ProgressEvent {
            phase: if walked.is_some() { Phase::Send } else { Phase::Read },
            done_bytes: counters.bytes.load(Ordering::Relaxed),
            total_bytes: None,
            files: counters.files.load(Ordering::Relaxed),
            store: None,
        });
        tokio::select! {
            biased;
            pack = sealed.recv() => match pack {
                Some(pack) => sending.pack(pack).await?,
                None if walked.is_some() => break,
                None => walked = Some((&mut reading).await??),
            },
            result = &mut reading, if walked.is_none() => walked = Some(result??),
            () = tokio::time::sleep(REPORT_EVERY), if walked.is_none() => {}
        }
    }
    walked.ok_or_else(|| Error::new(ErrorKind::Retry, "reading the source ended early"))
}
