//! Where a writer's chain of heads stands.
//!
//! Before a head is written its link is recorded in the local state. A link that was recorded and never seen again may
//! still lie at a store that does not answer: then a new incarnation is begun, so that one counter never gets two heads.

use crate::env::Env;
use crate::error::Result;
use crate::state::State;
use crate::survey::Union;
use backup_format::head::{HeadName, SEEN_MAX};
use backup_format::wire::Reader;
use backup_format::{IncarnationId, ObjectHash, SnapshotId, SourceId};
use rand_core::Rng;

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
    /// Whether some store took the head.
    confirmed: bool,
    head: (ObjectHash, SnapshotId),
    before: Option<(ObjectHash, SnapshotId)>,
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

fn continued(state: &State, source: SourceId, union: &Union) -> Option<Link> {
    let record = parse(&state.load(source.as_bytes())?)?;
    if union.condemned.retired_at(source, record.incarnation).is_some() {
        return None;
    }
    let mine = |name: &&HeadName| name.source == source && name.incarnation == record.incarnation;
    let newest = union.heads.iter().filter(mine).map(|name| name.counter).max().unwrap_or(0);
    if newest > record.counter {
        // The state is older than the stores: another copy of this machine went on.
        return None;
    }
    let seen = union.heads.iter().filter(mine).any(|name| name.hash == record.head.0);
    let link = |counter, predecessor| Link { incarnation: record.incarnation, counter, predecessor, seen: Vec::new() };
    if record.confirmed || seen {
        Some(link(record.counter + 1, Some(record.head)))
    } else if union.all_reachable() && newest < record.counter {
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

/// Records a link, durably, before its head is written, and again (`confirmed`) when some store has it.
pub(crate) fn record(
    state: &State,
    source: SourceId,
    link: &Link,
    head: (ObjectHash, SnapshotId),
    confirmed: bool,
) -> Result<()> {
    let mut out = Vec::new();
    out.extend_from_slice(link.incarnation.as_bytes());
    out.extend_from_slice(&link.counter.to_le_bytes());
    out.push(u8::from(confirmed));
    out.extend_from_slice(head.0.as_bytes());
    out.extend_from_slice(head.1.as_bytes());
    out.push(u8::from(link.predecessor.is_some()));
    if let Some((hash, snapshot)) = &link.predecessor {
        out.extend_from_slice(hash.as_bytes());
        out.extend_from_slice(snapshot.as_bytes());
    }
    // Of the second only time is lost: whether the head is there shows in the stores.
    state.store(source.as_bytes(), &out, !confirmed)
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let mut reader = Reader::new(bytes, "chain record");
    let mut read = || {
        let incarnation = IncarnationId(reader.array()?);
        let counter = reader.u64()?;
        let confirmed = reader.flag()?;
        let head = (ObjectHash(reader.array()?), SnapshotId(reader.array()?));
        let before =
            if reader.flag()? { Some((ObjectHash(reader.array()?), SnapshotId(reader.array()?))) } else { None };
        Ok::<_, backup_format::FormatError>(Record { incarnation, counter, confirmed, head, before })
    };
    read().ok()
}
