//! Which snapshot is the newest: by the links between heads first, by the writers' clocks only where no link decides.
//!
//! A clock that was set back must not make an older snapshot look like the latest one. So a head is never older than the
//! heads that it follows: its predecessor in the chain, and for the first head of an incarnation those that it saw.

use crate::heads::SnapshotInfo;
use backup_format::ObjectHash;
use backup_format::head::Head;
use std::cmp::Reverse;
use std::collections::HashMap;

/// A snapshot with its head and the head's own hash.
pub(crate) struct Linked {
    pub(crate) info: SnapshotInfo,
    pub(crate) head: Head,
    pub(crate) hash: ObjectHash,
}

/// Time not before that of any head that it follows, and how many heads stand before it on the longest way.
type Rank = (i64, u64);

/// Sorts, newest first.
pub(crate) fn newest_first(mut linked: Vec<Linked>) -> Vec<Linked> {
    let at: HashMap<ObjectHash, usize> = linked.iter().enumerate().map(|(at, link)| (link.hash, at)).collect();
    let mut ranks: Vec<Option<Rank>> = linked.iter().map(|_| None).collect();
    for start in 0..linked.len() {
        // A chain may be long: no recursion.
        let mut open = vec![start];
        while let Some(here) = open.last().copied() {
            let Some(link) = linked.get(here) else { break };
            let before: Vec<usize> = follows(&link.head).filter_map(|hash| at.get(hash).copied()).collect();
            let unknown = before.iter().copied().find(|at| matches!(ranks.get(*at), Some(None)) && !open.contains(at));
            if let Some(unknown) = unknown {
                open.push(unknown);
                continue;
            }
            let known = before.iter().filter_map(|at| ranks.get(*at).copied().flatten());
            let (time, depth) = known.fold((link.info.taken_unix_ms, 0), |(time, depth), before| {
                (time.max(before.0), depth.max(before.1 + 1))
            });
            if let Some(rank) = ranks.get_mut(here) {
                *rank = Some((time, depth));
            }
            open.pop();
        }
    }
    let mut ranked: Vec<(Option<Rank>, Linked)> = ranks.into_iter().zip(linked.drain(..)).collect();
    ranked.sort_by_key(|(rank, link)| Reverse((*rank, link.info.counter, link.info.id)));
    ranked.into_iter().map(|(_, link)| link).collect()
}

fn follows(head: &Head) -> impl Iterator<Item = &ObjectHash> {
    head.predecessor.iter().chain(&head.seen)
}
