//! Signed heads by their names: what a store shows of a source's chains without opening anything.

use backup_engine::NamedStore;
use backup_report::{Digest, HeadsSeen, Label, OtherHeads};
use std::collections::BTreeMap;

const HEADS: &str = "heads/";

/// One head: `heads/<source>/<incarnation>/<counter>-<hash>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    pub incarnation: String,
    pub counter: u64,
    pub hash: String,
}

/// The heads of one source (by its keyed id) in one store.
pub async fn of_source(store: &NamedStore, source_id: &str) -> backup_engine::Result<Vec<Head>> {
    let listed = store.store.list(&format!("{HEADS}{source_id}/")).await?;
    Ok(listed.iter().filter_map(|object| parse(&object.name)).collect())
}

fn parse(name: &str) -> Option<Head> {
    let mut words = name.strip_prefix(HEADS)?.split('/').skip(1);
    let incarnation = words.next()?.to_owned();
    let (counter, hash) = words.next()?.split_once('-')?;
    Digest::parse(hash).ok()?;
    Some(Head { incarnation, counter: u64::from_str_radix(counter, 16).ok()?, hash: hash.to_owned() })
}

/// What another store shows: its newest head of the drilled chain, or that it is forked or does not answer.
pub fn seen(store: &str, incarnation: &str, heads: &backup_engine::Result<Vec<Head>>) -> Option<OtherHeads> {
    let store = Label::parse(store).ok()?;
    let Ok(heads) = heads else {
        return Some(OtherHeads { store, seen: HeadsSeen::Unreachable, newest_counter: None, newest_hash: None });
    };
    let mut by_counter: BTreeMap<(&str, u64), &str> = BTreeMap::new();
    let mut forked = false;
    for head in heads {
        let before = by_counter.insert((&head.incarnation, head.counter), &head.hash);
        forked |= before.is_some_and(|hash| hash != head.hash);
    }
    let newest = heads.iter().filter(|h| h.incarnation == incarnation).max();
    Some(OtherHeads {
        store,
        seen: if forked { HeadsSeen::Forked } else { HeadsSeen::Read },
        newest_counter: newest.map(|h| h.counter),
        newest_hash: newest.and_then(|h| Digest::parse(&h.hash).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(incarnation: &str, counter: u64, fill: &str) -> Head {
        Head { incarnation: incarnation.to_owned(), counter, hash: fill.repeat(64) }
    }

    #[test]
    fn names_are_read_and_others_passed_over() {
        let hash = "a".repeat(64);
        let name = format!("heads/5e/9f/{:016x}-{hash}", 31);
        assert_eq!(parse(&name), Some(Head { incarnation: "9f".to_owned(), counter: 31, hash }));
        for odd in ["", "heads/", "heads/5e/9f/zz-aa", "packs/x", "heads/5e/9f/0000000000000001-short"] {
            assert_eq!(parse(odd), None);
        }
    }

    #[test]
    fn two_heads_with_one_number_are_a_fork() {
        let other = seen("west", "9f", &Ok(vec![head("9f", 1, "a"), head("9f", 2, "b"), head("00", 7, "c")])).unwrap();
        assert_eq!((other.seen, other.newest_counter), (HeadsSeen::Read, Some(2)));
        let forked = seen("west", "9f", &Ok(vec![head("9f", 1, "a"), head("9f", 1, "b")])).unwrap();
        assert_eq!(forked.seen, HeadsSeen::Forked);
        let silent = backup_engine::Error::new(backup_engine::ErrorKind::Unreachable, "x");
        assert_eq!(seen("west", "9f", &Err(silent)).unwrap().seen, HeadsSeen::Unreachable);
    }
}
