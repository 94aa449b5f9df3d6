//! What a store lacks beside the others, told without a key. A memory of what was seen at a store knows nothing of what went
//! before it began; the other stores do.
//!
//! Not everything that another store holds is missing here: a snapshot under way, or one that this store has yet to receive,
//! makes it late. What came to the other store no later than a head that both hold belongs to what this store had in full.
//! Without a key, an index cannot be asked which packs count, so one that an interrupted snapshot left is copied, too; with
//! the catalog key such packs are left out.

use crate::condemned::CONDEMNED;
use crate::env::Env;
use crate::error::Result;
use crate::store::{ListedObject, NamedStore};
use crate::survey::{FETCHES, HEADS, INDEXES, PACKS, SNAPSHOTS, TOMBSTONES, View, hash_in_name, union};
use backup_format::CatalogKey;
use backup_format::head::HeadName;
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Kinds of objects that are judged. What one store made up under `keyring/` is not handed on, and what lies under `condemned/`
/// says itself which of it counts.
const JUDGED: [&str; 5] = [PACKS, INDEXES, SNAPSHOTS, HEADS, TOMBSTONES];

/// What all stores list, to judge each of them by the others. The default knows nothing and judges nothing.
#[derive(Debug, Clone, Default)]
pub struct Listings(Arc<Vec<(String, Vec<ListedObject>)>>);

/// What one store lacks beside the others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lacking {
    /// Gone: it belongs to what the store held in full.
    pub(crate) missing: BTreeSet<String>,
    /// Another store holds a head of a chain that comes after all that this store has of it.
    pub(crate) late: bool,
}

/// Lists every store that answers.
pub async fn list_all(stores: &[NamedStore]) -> Listings {
    let list = |store: NamedStore| async move { (store.name.clone(), store.store.list("").await) }.boxed();
    let all: Vec<_> = stores.iter().cloned().map(list).collect();
    let listed: Vec<_> = futures::stream::iter(all).buffered(FETCHES).collect().await;
    Listings(Arc::new(listed.into_iter().filter_map(|(name, listed)| Some((name, listed.ok()?))).collect()))
}

/// Packs that stores hold and no index names: an interrupted snapshot left them, or a store made them up. No snapshot
/// reaches them. None is known while an index cannot be read.
pub async fn unnamed_packs(
    env: &Env,
    key: &CatalogKey,
    stores: &[NamedStore],
    state_dir: &Path,
) -> Result<BTreeSet<String>> {
    let (union, catalog) = union(key, stores, &Arc::new(env.open_state(state_dir)?)).await?;
    if !catalog.unread().is_empty() {
        return Ok(BTreeSet::new());
    }
    let named = catalog.pack_names();
    let listed = union.views.iter().filter_map(View::objects).flat_map(BTreeMap::keys);
    Ok(listed.filter(|name| name.starts_with(PACKS) && !named.contains(*name)).cloned().collect())
}

impl Listings {
    /// Whether some store lacks a pack that another holds.
    #[must_use]
    pub fn packs_differ(&self) -> bool {
        let packs = |listed: &Vec<ListedObject>| -> BTreeSet<String> {
            listed.iter().map(|object| &object.name).filter(|name| name.starts_with(PACKS)).cloned().collect()
        };
        let mut all = self.0.iter().map(|(_, listed)| packs(listed));
        let first = all.next();
        all.any(|packs| Some(packs) != first)
    }

    /// The same without these objects.
    #[must_use]
    pub fn without(&self, names: &BTreeSet<String>) -> Self {
        let rest = |listed: &Vec<ListedObject>| -> Vec<ListedObject> {
            listed.iter().filter(|object| !names.contains(&object.name)).cloned().collect()
        };
        Self(Arc::new(self.0.iter().map(|(store, listed)| (store.clone(), rest(listed))).collect()))
    }

    /// Whether some store lists an object.
    #[must_use]
    pub fn hold(&self, name: &str) -> bool {
        self.0.iter().flat_map(|(_, listed)| listed).any(|object| object.name == name)
    }

    /// Whether a store names deletions: what they took out is lacking on purpose, and only a holder of a key can tell what.
    #[must_use]
    pub fn name_deletions(&self) -> bool {
        self.0.iter().flat_map(|(_, listed)| listed).any(|object| object.name.starts_with(CONDEMNED))
    }

    /// What `store`, which holds `ours`, lacks. `condemned` goes on purpose; what is damaged at another store is not held there.
    pub(crate) fn lacking(
        &self,
        store: &str,
        ours: &BTreeMap<String, u64>,
        condemned: &BTreeSet<String>,
        is_damaged: impl Fn(&str, &str) -> bool,
    ) -> Lacking {
        let mut newest: BTreeMap<_, u64> = BTreeMap::new();
        for head in ours.keys().filter_map(|name| name.parse::<HeadName>().ok()) {
            let counter = newest.entry((head.source, head.incarnation)).or_default();
            *counter = head.counter.max(*counter);
        }
        let is_newer = |name: &str| {
            let newer =
                |head: HeadName| newest.get(&(head.source, head.incarnation)).is_none_or(|has| *has < head.counter);
            name.parse::<HeadName>().is_ok_and(newer)
        };
        let mut late = false;
        // By name: whether every store that holds it had it before a head that this store holds as well.
        let mut lacked: BTreeMap<&String, bool> = BTreeMap::new();
        for (other, listed) in self.0.iter().filter(|(name, _)| name != store) {
            let shared =
                listed.iter().filter(|object| object.name.starts_with(HEADS) && ours.contains_key(&object.name));
            let shared = shared.filter_map(|head| head.modified_unix_ms).max();
            for object in listed {
                let name = &object.name;
                let judged = JUDGED.iter().any(|kind| name.starts_with(kind)) && hash_in_name(name).is_some();
                if !judged || ours.contains_key(name) || condemned.contains(name) || is_damaged(other, name) {
                    continue;
                }
                late |= is_newer(name);
                let before = object.modified_unix_ms.zip(shared).is_some_and(|(came, head)| came <= head);
                *lacked.entry(name).or_insert(true) &= before;
            }
        }
        // A head stands only where all that it reaches does: while some of that may be yet to come, no head is written.
        let undecided = lacked.values().any(|before| !before);
        let missing = lacked.into_iter().filter(|(name, before)| *before && !(undecided && name.starts_with(HEADS)));
        Lacking { missing: missing.map(|(name, _)| name.clone()).collect(), late }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(counter: u64) -> String {
        format!("heads/{}/{}/{counter:016x}-{}", "ab".repeat(16), "01".repeat(16), "cd".repeat(32))
    }

    fn pack(digit: &str) -> String {
        format!("packs/{0}/{1}", digit.repeat(2), digit.repeat(64))
    }

    fn listings(stores: &[(&str, &[(String, i64)])]) -> Listings {
        let object =
            |(name, at): &(String, i64)| ListedObject { name: name.clone(), size: 1, modified_unix_ms: Some(*at) };
        Listings(Arc::new(
            stores.iter().map(|(name, all)| ((*name).to_owned(), all.iter().map(object).collect())).collect(),
        ))
    }

    fn ours(names: &[String]) -> BTreeMap<String, u64> {
        names.iter().map(|name| (name.clone(), 1)).collect()
    }

    #[test]
    fn what_came_before_a_shared_head_is_missing_and_what_came_after_it_is_late() {
        assert!(head(1).parse::<HeadName>().is_ok());
        let full = [(pack("1"), 10), (head(1), 11), (pack("2"), 20), (head(2), 21), (pack("3"), 30)];
        let all = listings(&[("north", &full), ("south", &[])]);
        let none = BTreeSet::new();
        // The third pack is on its way.
        let seen = all.lacking("south", &ours(&[pack("1"), head(1), head(2)]), &none, |_, _| false);
        assert_eq!(seen, Lacking { missing: BTreeSet::from([pack("2")]), late: false });
        let seen = all.lacking("south", &ours(&[head(1)]), &none, |_, _| false);
        assert_eq!(seen, Lacking { missing: BTreeSet::from([pack("1")]), late: true });
        assert_eq!(
            all.lacking("south", &ours(&[]), &none, |_, _| false),
            Lacking { missing: BTreeSet::new(), late: true }
        );
        let seen =
            all.lacking("south", &ours(&[head(1), head(2)]), &BTreeSet::from([pack("1"), pack("2")]), |_, _| false);
        assert_eq!(seen, Lacking::default(), "what goes on purpose is not missing");
        assert_eq!(
            all.lacking("north", &ours(&[]), &none, |_, _| false),
            Lacking::default(),
            "a store is not judged by itself"
        );
        let damaged = all
            .lacking("south", &ours(&[head(1), head(2)]), &none, |store, name| store == "north" && name == pack("2"));
        assert_eq!(damaged.missing, BTreeSet::from([pack("1")]), "what is damaged there is held by nobody");
        assert_eq!(Listings::default().lacking("south", &ours(&[]), &none, |_, _| false), Lacking::default());
    }

    #[test]
    fn a_head_waits_while_something_may_be_yet_to_come_and_a_made_up_keyring_is_not_missed() {
        let keyring = format!("keyring/{:016x}-{}", 9, "ef".repeat(32));
        let full = [(pack("1"), 10), (head(1), 11), (head(2), 21), (keyring, 1)];
        let all = listings(&[("north", &full), ("south", &[])]);
        let seen = all.lacking("south", &ours(&[head(2)]), &BTreeSet::new(), |_, _| false);
        assert_eq!(seen.missing, BTreeSet::from([pack("1"), head(1)]));
        // The same pack came to another store only now: nobody knows whether it belongs to the head.
        let copied = [(pack("1"), 90), (head(2), 21)];
        let all = listings(&[("north", &full), ("west", &copied), ("south", &[])]);
        let seen = all.lacking("south", &ours(&[head(2)]), &BTreeSet::new(), |_, _| false);
        assert_eq!(seen, Lacking::default());
    }

    #[test]
    fn deletions_are_seen_in_the_listings() {
        let plan = format!("condemned/{:016x}-{}", 1, "ef".repeat(32));
        assert!(listings(&[("north", &[(plan, 1)])]).name_deletions());
        assert!(!listings(&[("north", &[(pack("1"), 1)])]).name_deletions());
    }
}
