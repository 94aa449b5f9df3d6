//! Which snapshot is the newest: by the links between heads first, by the writers' clocks only where no link decides.
//!
//! A clock that was set back must not make an older snapshot look like the latest one. So a head is never older than the
//! heads that it follows: its predecessor in the chain, and for the first head of an incarnation those that it saw.

use crate::heads::SnapshotInfo;
use backup_format::ObjectHash;
use backup_format::head::{Head, HeadName};
use std::cmp::Reverse;
use std::collections::HashMap;

/// A snapshot with its head and the head's own hash.
pub(crate) struct Linked {
    pub(crate) info: SnapshotInfo,
    pub(crate) head: Head,
    pub(crate) hash: ObjectHash,
}

impl Linked {
    /// The name of its head.
    pub(crate) fn name(&self) -> HeadName {
        let Head { source, incarnation, counter, .. } = self.head;
        HeadName { source, incarnation, counter, hash: self.hash }
    }
}

/// Time not before that of any head that it follows, and how many heads stand before it on the longest way.
type Rank = (i64, u64);

/// Sorts, newest first.
pub(crate) fn newest_first(mut linked: Vec<Linked>) -> Vec<Linked> {
    let at: HashMap<ObjectHash, usize> = linked.iter().enumerate().map(|(at, link)| (link.hash, at)).collect();
    let mut ranks: Vec<Option<Rank>> = vec![None; linked.len()];
    let mut entered = vec![false; linked.len()];
    for start in 0..linked.len() {
        // A chain may be long: no recursion.
        let mut open = if std::mem::replace(&mut entered[start], true) { Vec::new() } else { vec![start] };
        while let Some(here) = open.last().copied() {
            let Some(link) = linked.get(here) else { break };
            let before: Vec<usize> = follows(&link.head).filter_map(|hash| at.get(hash).copied()).collect();
            // Entered once only: heads name earlier heads by their hash, so a circle could only be forged, and then ends here.
            let unknown = before.iter().copied().find(|at| entered.get(*at) == Some(&false));
            if let Some(unknown) = unknown {
                if let Some(entered) = entered.get_mut(unknown) {
                    *entered = true;
                }
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

/// The heads that one names directly.
pub(crate) fn follows(head: &Head) -> impl Iterator<Item = &ObjectHash> {
    head.predecessor.iter().chain(&head.seen)
}
