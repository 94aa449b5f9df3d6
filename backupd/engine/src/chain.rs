//! Where a writer's chain of heads stands.
//!
//! Before a head is written its link is recorded in the local state. A link that was recorded and never seen again may
//! still lie at a store that does not answer: then a new incarnation is begun, so that one counter never gets two heads.

use crate::env::Env;
use crate::error::Result;
use crate::heads::SnapshotInfo;
use crate::state::State;
use crate::survey::Union;
use backup_format::head::{HeadName, SEEN_MAX};
use backup_format::wire::Reader;
use backup_format::{IncarnationId, ObjectHash, SnapshotId, SourceId};
use rand_core::Rng;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// The link that the next head will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) incarnation: IncarnationId,
    pub(crate) counter: u64,
    pub(crate) predecessor: Option<(ObjectHash, SnapshotId)>,
    pub(crate) seen: Vec<ObjectHash>,
}

/// The last link that this state knows of.
struct Record {
    incarnation: IncarnationId,
    counter: u64,
    standing: Standing,
    head: (ObjectHash, SnapshotId),
    before: Option<(ObjectHash, SnapshotId)>,
    /// When the snapshot was taken; earlier releases did not say.
    taken_unix_ms: Option<i64>,
}

/// The chain that a machine writes of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnChain {
    pub incarnation: IncarnationId,
    /// When the newest snapshot was taken whose head was to go on with it, which may lie nowhere.
    pub taken_unix_ms: Option<i64>,
}

/// How much is known of a recorded head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may lie somewhere or nowhere.
    Unknown,
    /// Some store took it.
    Stored,
    /// Only the spool took it, which may be lost and found again.
    Spooled,
}

/// The chain that each of these sources has in the local state; a source that has none there is left out.
pub fn own_chains(env: &Env, state_dir: &Path, sources: &[SourceId]) -> Result<BTreeMap<SourceId, OwnChain>> {
    let state = env.open_state(state_dir)?;
    state.require_unlocked()?;
    let own = |source: &SourceId| {
        let Record { incarnation, taken_unix_ms, .. } = parse(&state.load(source.as_bytes())?)?;
        Some((*source, OwnChain { incarnation, taken_unix_ms }))
    };
    Ok(sources.iter().filter_map(own).collect())
}

/// The snapshots of one source that another machine wrote beside the chain `own`: no head of that chain follows them,
/// directly or over others, and they are from after its beginning. What had been there at the beginning of a chain is its
/// past, whether it was seen then or lay at a store that was silent. Where none of its heads is seen, it began when the
/// newest was to be written, and where that is not known, at `since`.
pub fn foreign<'a>(
    snapshots: impl Iterator<Item = &'a SnapshotInfo> + Clone,
    own: Option<OwnChain>,
    since: i64,
) -> BTreeSet<HeadName> {
    let is_own = |info: &SnapshotInfo| own.is_some_and(|own| own.incarnation == info.incarnation);
    let first = snapshots.clone().filter(|info| is_own(info)).map(|info| info.taken_unix_ms).min();
    let since = first.or(own.and_then(|own| own.taken_unix_ms)).unwrap_or(since);
    let by_hash: HashMap<ObjectHash, &SnapshotInfo> = snapshots.clone().map(|info| (info.head.hash, info)).collect();
    // How far each chain is the past of ours: a chain has no gaps, so a counter tells of all before it.
    let mut past: HashMap<IncarnationId, u64> = HashMap::new();
    let mut open: Vec<&SnapshotInfo> = snapshots.clone().filter(|info| is_own(info)).collect();
    while let Some(info) = open.pop() {
        for before in info.follows.iter().filter_map(|hash| by_hash.get(hash)) {
            let reached = past.entry(before.incarnation).or_insert(0);
            if *reached < before.counter {
                *reached = before.counter;
                open.push(before);
            }
        }
    }
    let follows_from = |info: &&SnapshotInfo| past.get(&info.incarnation).is_some_and(|upto| info.counter <= *upto);
    let foreign = snapshots.filter(|info| !is_own(info) && !follows_from(info) && info.taken_unix_ms > since);
    foreign.map(|info| info.head).collect()
}

/// The next link of the chain.
pub(crate) fn next(env: &Env, state: &State, source: SourceId, union: &Union) -> Link {
    continued(state, source, union).unwrap_or_else(|| begin(env, union))
}

/// The first link of a new chain.
pub(crate) fn begin(env: &Env, union: &Union) -> Link {
    let mut incarnation = [0; 16];
    env.rng().fill_bytes(&mut incarnation);
    Link { incarnation: IncarnationId(incarnation), counter: 1, predecessor: None, seen: latest(&union.heads) }
}

/// Whether the state has no record of the source: it is new, or was lost.
pub(crate) fn is_unknown(state: &State, source: SourceId) -> bool {
    state.load(source.as_bytes()).and_then(|bytes| parse(&bytes)).is_none()
}

/// Whether the stores hold newer heads of the source's chain than its record knows: another copy of this machine went on.
pub(crate) fn is_behind(state: &State, source: SourceId, union: &Union) -> bool {
    let record = state.load(source.as_bytes()).and_then(|bytes| parse(&bytes));
    record.is_some_and(|record| newest_of(&record, source, union) > record.counter)
}

/// The counter of the newest head that the stores hold of a recorded chain.
fn newest_of(record: &Record, source: SourceId, union: &Union) -> u64 {
    let mine = |name: &&HeadName| name.source == source && name.incarnation == record.incarnation;
    union.heads.iter().filter(mine).map(|name| name.counter).max().unwrap_or(0)
}

fn continued(state: &State, source: SourceId, union: &Union) -> Option<Link> {
    let record = parse(&state.load(source.as_bytes())?)?;
    if union.condemned.retired_at(source, record.incarnation).is_some() {
        return None;
    }
    let mine = |name: &&HeadName| name.source == source && name.incarnation == record.incarnation;
    let newest = newest_of(&record, source, union);
    if newest > record.counter {
        // The state is older than the stores (`set_back.rs`).
        return None;
    }
    let seen = union.heads.iter().filter(mine).any(|name| name.hash == record.head.0);
    let link = |counter, predecessor| Link { incarnation: record.incarnation, counter, predecessor, seen: Vec::new() };
    let nowhere = union.all_reachable() && newest < record.counter;
    if record.standing == Standing::Stored || seen {
        Some(link(record.counter + 1, Some(record.head)))
    } else if nowhere && record.standing == Standing::Unknown {
        let mut again = link(record.counter, record.before);
        if again.counter == 1 {
            again.seen = latest(&union.heads);
        }
        Some(again)
    } else {
        None
    }
}

/// The latest head of every chain.
fn latest(heads: &[HeadName]) -> Vec<ObjectHash> {
    let mut heads = heads.to_vec();
    heads.sort();
    let mut latest: Vec<ObjectHash> = heads
        .chunk_by(|a, b| (a.source, a.incarnation) == (b.source, b.incarnation))
        .filter_map(|chain| chain.last().map(|head| head.hash))
        .collect();
    latest.truncate(SEEN_MAX);
    latest
}

/// Records a link, durably, before its head is written, and again when it is known where it lies.
pub(crate) fn record(
    state: &State,
    source: SourceId,
    link: &Link,
    (head, taken_unix_ms): ((ObjectHash, SnapshotId), i64),
    standing: Standing,
) -> Result<()> {
    let mut out = Vec::new();
    out.extend_from_slice(link.incarnation.as_bytes());
    out.extend_from_slice(&link.counter.to_le_bytes());
    out.push(standing as u8);
    out.extend_from_slice(head.0.as_bytes());
    out.extend_from_slice(head.1.as_bytes());
    out.push(u8::from(link.predecessor.is_some()));
    if let Some((hash, snapshot)) = &link.predecessor {
        out.extend_from_slice(hash.as_bytes());
        out.extend_from_slice(snapshot.as_bytes());
    }
    out.extend_from_slice(&taken_unix_ms.to_le_bytes());
    // Of a head in a store only time is lost: that it is there shows.
    state.store(source.as_bytes(), &out, standing != Standing::Stored)
}

/// The record as it stands, for [`take_back`].
pub(crate) fn recorded(state: &State, source: SourceId) -> Option<Vec<u8>> {
    state.load(source.as_bytes())
}

/// After a head that was sent to nobody: the chain stands where it stood before. Without a record there was no chain.
pub(crate) fn take_back(state: &State, source: SourceId, before: Option<Vec<u8>>) -> Result<()> {
    before.map_or(Ok(()), |record| state.store(source.as_bytes(), &record, true))
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let mut reader = Reader::new(bytes, "chain record");
    let mut read = || {
        let incarnation = IncarnationId(reader.array()?);
        let counter = reader.u64()?;
        let standing = match reader.array()? {
            [0] => Standing::Unknown,
            [1] => Standing::Stored,
            [2] => Standing::Spooled,
            _ => return Err(backup_format::FormatError::Invalid { what: "chain record" }),
        };
        let head = (ObjectHash(reader.array()?), SnapshotId(reader.array()?));
        let before =
            if reader.flag()? { Some((ObjectHash(reader.array()?), SnapshotId(reader.array()?))) } else { None };
        let taken_unix_ms = reader.array().ok().map(i64::from_le_bytes);
        Ok::<_, backup_format::FormatError>(Record { incarnation, counter, standing, head, before, taken_unix_ms })
    };
    read().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a chain (by its letter) with a counter, taken at a time, that follows others.
    fn head(chain: u8, counter: u64, taken_unix_ms: i64, follows: &[(u8, u64)]) -> SnapshotInfo {
        let hash = |(chain, counter): (u8, u64)| {
            let mut hash = [chain; 32];
            hash[..8].copy_from_slice(&counter.to_le_bytes());
            ObjectHash(hash)
        };
        let (source, incarnation) = (SourceId([0; 16]), IncarnationId([chain; 16]));
        SnapshotInfo {
            id: SnapshotId(hash((chain, counter)).0),
            source: "emr".to_owned(),
            incarnation,
            counter,
            taken_unix_ms,
            partial: false,
            files: 1,
            bytes_source: 1,
            bytes_added: 1,
            tag: None,
            stores: Vec::new(),
            forked: false,
            head: HeadName { source, incarnation, counter, hash: hash((chain, counter)) },
            follows: follows.iter().copied().map(hash).collect(),
            plan_seen: None,
            set_back: Vec::new(),
        }
    }

    fn others(heads: &[SnapshotInfo], own: u8, since: i64) -> Vec<(u8, u64)> {
        let own = (own != 0).then_some(OwnChain { incarnation: IncarnationId([own; 16]), taken_unix_ms: None });
        others_of(heads, own, since)
    }

    fn others_of(heads: &[SnapshotInfo], own: Option<OwnChain>, since: i64) -> Vec<(u8, u64)> {
        let found = foreign(heads.iter(), own, since);
        found.into_iter().map(|head| (head.incarnation.0[0], head.counter)).collect()
    }

    #[test]
    fn what_the_own_chain_follows_is_its_past_and_what_came_beside_it_is_anothers() {
        let (a1, a2) = (head(b'a', 1, 10, &[]), head(b'a', 2, 20, &[(b'a', 1)]));
        let (b1, b2) = (head(b'b', 1, 30, &[(b'a', 2)]), head(b'b', 2, 40, &[(b'b', 1)]));
        let mut heads = vec![a1, a2, b1, b2];
        assert_eq!(others(&heads, b'b', 0), []);
        assert_eq!(others(&heads, b'a', 0), [(b'b', 1), (b'b', 2)], "the old machine sees that another went on");
        heads.push(head(b'a', 3, 50, &[(b'a', 2)]));
        assert_eq!(others(&heads, b'b', 0), [(b'a', 3)], "the old machine woke up");
        // Its own state was lost after that: what it sees then is its past, and what comes later is not.
        heads.push(head(b'c', 1, 60, &[(b'a', 3), (b'b', 2)]));
        assert_eq!(others(&heads, b'c', 0), []);
        heads.push(head(b'a', 4, 70, &[(b'a', 3)]));
        assert_eq!(others(&heads, b'c', 0), [(b'a', 4)]);
    }

    #[test]
    fn what_lay_at_a_silent_store_or_was_pruned_is_no_other_machine() {
        let heads = [
            head(b'a', 1, 10, &[]),
            // Written to a store that went silent before its writer knew: the chain was begun anew without it.
            head(b'a', 3, 30, &[(b'a', 2)]),
            head(b'b', 1, 40, &[(b'a', 2)]),
        ];
        assert_eq!(others(&heads, b'b', 0), []);
        // Before the first own head, the start of the daemon divides.
        assert_eq!(others(&heads, 0, 50), []);
        assert_eq!(others(&heads, 0, 35), [(b'b', 1)]);
        // A chain was begun whose head no store took: what is older than that is its past, whenever the daemon was started.
        let begun = |taken| Some(OwnChain { incarnation: IncarnationId([b'n'; 16]), taken_unix_ms: Some(taken) });
        assert_eq!(others_of(&heads, begun(50), 0), []);
        assert_eq!(others_of(&heads, begun(35), 0), [(b'b', 1)]);
    }
}
