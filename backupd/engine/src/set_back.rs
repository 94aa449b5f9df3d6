//! A machine that was set back to an earlier state: its own chain stands further in the stores than it knows, so what was
//! entered since then is in the stores and not in the running records. The chain's record lies with the records on this
//! machine and is written before each head, so neither a crash nor a lost state looks like that.
//!
//! It is noted, durably, before the new chain begins, as that is the last time it can be seen; a person closes it. Until then
//! every snapshot says it too, so that it outlives this machine's state, and the machine itself. What a caller finds by other
//! means, as that the records alone were set back, goes into the same list ([`note_set_back`]).

use crate::chain;
use crate::env::Env;
use crate::error::Result;
use crate::heads::{SnapshotInfo, read_head};
use crate::state::State;
use crate::store::NamedStore;
use crate::survey::Union;
use backup_format::head::HeadName;
use backup_format::wire::{Reader, put_varint};
use backup_format::{SnapshotId, SourceId};
use std::path::Path;

/// Where it is noted, beside the chains' records, whose keys are longer.
const KEY: &[u8] = b"set-back";

/// So many heads of a chain are tried from its end.
const READ_MAX: usize = 64;

/// A time at which a source was found set back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetBack {
    pub source: SourceId,
    /// The newest snapshot that the stores held then: it has what this machine lacks. `None` where none could be read.
    pub snapshot: Option<SnapshotId>,
    pub at_unix_ms: i64,
}

/// Whatever was found and not closed yet, from the local state.
pub fn set_back(env: &Env, state_dir: &Path) -> Result<Vec<SetBack>> {
    Ok(noted(&env.open_state(state_dir)?))
}

/// Closes those that `is_closed` says of, because somebody has looked into them. Whether there were any.
pub fn close_set_back(env: &Env, state_dir: &Path, is_closed: impl Fn(&SetBack) -> bool) -> Result<bool> {
    let state = env.open_state(state_dir)?;
    let all = noted(&state);
    let open: Vec<SetBack> = all.iter().filter(|found| !is_closed(found)).cloned().collect();
    let any = open.len() < all.len();
    if any {
        keep(&state, &open)?;
    }
    Ok(any)
}

/// Notes, durably, what the caller has found: the source lacks what `snapshot` holds. Once, while it is open.
pub fn note_set_back(env: &Env, state_dir: &Path, source: SourceId, snapshot: SnapshotId) -> Result<()> {
    let found = SetBack { source, snapshot: Some(snapshot), at_unix_ms: env.now_unix_ms() };
    add(&env.open_state(state_dir)?, found)
}

/// The snapshots that hold what the source lacks, as far as nobody has looked into it.
pub(crate) fn open_of(state: &State, source: SourceId) -> Vec<Option<SnapshotId>> {
    noted(state).into_iter().filter(|found| found.source == source).map(|found| found.snapshot).collect()
}

/// Notes it when the stores hold newer heads of the source's own chain than its record knows; and what the newest snapshot says of
/// it, where the record is gone.
pub(crate) async fn look(
    env: &Env,
    catalog: &backup_format::CatalogKey,
    (source, state): (SourceId, &State),
    (stores, union): (&[NamedStore], &Union),
) {
    let (behind, unknown) = (chain::is_behind(state, source, union), chain::is_unknown(state, source));
    if !behind && !unknown {
        return;
    }
    let mut newest: Option<SnapshotInfo> = None;
    let mut unread = false;
    for chain in chains(source, union) {
        // One that cannot be read, such as one of a later epoch than this state knows, hides no earlier one.
        for name in chain.into_iter().rev().take(READ_MAX) {
            let text = name.to_string();
            let holders = stores.iter().zip(&union.views).filter(|(_, view)| view.holds(&text)).map(|(store, _)| store);
            let (Some((info, _)), _) = read_head(catalog, None, name, holders.collect()).await else {
                unread = true;
                continue;
            };
            if newest.as_ref().is_none_or(|newest| (newest.taken_unix_ms, newest.id) < (info.taken_unix_ms, info.id)) {
                newest = Some(info);
            }
            break;
        }
    }
    let mut lacking = newest.as_ref().map(|newest| newest.set_back.clone()).unwrap_or_default();
    if behind {
        let newest = newest.map(|newest| newest.id);
        // The source's own name, beside the newest that could be read: there are newer ones.
        lacking.extend((unread && newest.is_some()).then_some(None));
        lacking.push(newest);
    }
    let at_unix_ms = env.now_unix_ms();
    let add = |snapshot| add(state, SetBack { source, snapshot, at_unix_ms });
    if let Err(error) = lacking.into_iter().try_for_each(add) {
        // Then the new chain cannot be recorded either, and the next snapshot finds the same.
        log::error!(error:% = error; "state.write-failed");
    }
}

/// The heads of each chain of the source that nobody takes out, in their order.
fn chains(source: SourceId, union: &Union) -> Vec<Vec<HeadName>> {
    let of_source = |name: &&HeadName| name.source == source && !union.condemned.takes_out(name);
    let mut heads: Vec<HeadName> = union.heads.iter().filter(of_source).copied().collect();
    heads.sort();
    heads.chunk_by(|a, b| a.incarnation == b.incarnation).map(<[HeadName]>::to_vec).collect()
}

/// Adds to the list what is not open there yet.
fn add(state: &State, found: SetBack) -> Result<()> {
    log::error!(snapshot = found.snapshot.map(|id| id.to_string()).unwrap_or_default().as_str(); "source.set-back");
    let mut all = noted(state);
    if all.iter().any(|known| (known.source, known.snapshot) == (found.source, found.snapshot)) {
        return Ok(());
    }
    all.push(found);
    keep(state, &all)
}

fn noted(state: &State) -> Vec<SetBack> {
    state.load(KEY).and_then(|bytes| parse(&bytes)).unwrap_or_default()
}

fn keep(state: &State, all: &[SetBack]) -> Result<()> {
    let mut out = Vec::new();
    put_varint(&mut out, all.len() as u64);
    for found in all {
        out.extend_from_slice(found.source.as_bytes());
        put_varint(&mut out, u64::try_from(found.at_unix_ms).unwrap_or(0));
        out.push(u8::from(found.snapshot.is_some()));
        out.extend(found.snapshot.iter().flat_map(|id| id.as_bytes()));
    }
    state.store(KEY, &out, true)
}

fn parse(bytes: &[u8]) -> Option<Vec<SetBack>> {
    let mut reader = Reader::new(bytes, "notes of machines that were set back");
    let mut all = Vec::new();
    for _ in 0..reader.varint().ok()? {
        let source = SourceId(reader.array().ok()?);
        let at_unix_ms = i64::try_from(reader.varint().ok()?).ok()?;
        let snapshot = match reader.flag().ok()? {
            true => Some(SnapshotId(reader.array().ok()?)),
            false => None,
        };
        all.push(SetBack { source, snapshot, at_unix_ms });
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_as_they_were() {
        let state = State::memory();
        assert_eq!(noted(&state), []);
        let all = [Some(SnapshotId([3; 32])), None].map(|snapshot| SetBack {
            source: SourceId([1; 16]),
            snapshot,
            at_unix_ms: 77,
        });
        keep(&state, &all).unwrap();
        assert_eq!(noted(&state), all);
        assert_eq!(parse(&[9, 1]), None);
    }

    #[test]
    fn what_is_open_is_noted_once() {
        let state = State::memory();
        let found = |id: u8, at_unix_ms| SetBack {
            source: SourceId([1; 16]),
            snapshot: Some(SnapshotId([id; 32])),
            at_unix_ms,
        };
        for (id, at) in [(3, 77), (3, 78), (4, 79)] {
            add(&state, found(id, at)).unwrap();
        }
        assert_eq!(noted(&state), [found(3, 77), found(4, 79)]);
    }
}
