//! What was used last, up to a number of bytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values by key; the least recently used go first.
pub(crate) struct Recent<K, V> {
    held: HashMap<K, Held<V>>,
    /// Use number to key, oldest first.
    order: BTreeMap<u64, K>,
    uses: u64,
    bytes: usize,
    bytes_max: usize,
}

struct Held<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> Recent<K, V> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { held: HashMap::new(), order: BTreeMap::new(), uses: 0, bytes: 0, bytes_max }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        self.uses += 1;
        let held = self.held.get_mut(key)?;
        self.order.remove(&held.used);
        held.used = self.uses;
        self.order.insert(self.uses, *key);
        Some(held.value.clone())
    }

    /// Keeps a value that takes about `bytes`; one that is larger than everything together is not kept.
    pub(crate) fn put(&mut self, key: K, value: V, bytes: usize) {
        if bytes > self.bytes_max {
            return;
        }
        self.uses += 1;
        if let Some(before) = self.held.insert(key, Held { value, bytes, used: self.uses }) {
            self.order.remove(&before.used);
            self.bytes -= before.bytes;
        }
        self.order.insert(self.uses, key);
        self.bytes += bytes;
        while self.bytes > self.bytes_max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.bytes -= self.held.remove(&oldest).map_or(0, |held| held.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn what_was_used_last_stays_within_the_limit() {
        let mut recent = Recent::new(30);
        for key in 0..3u8 {
            recent.put(key, key, 10);
        }
        assert_eq!(recent.get(&0), Some(0));
        recent.put(3, 3, 10);
        assert_eq!((recent.get(&1), recent.get(&0), recent.bytes), (None, Some(0), 30));
        recent.put(0, 9, 5);
        recent.put(4, 4, 31);
        assert_eq!((recent.get(&0), recent.get(&4), recent.bytes, recent.order.len()), (Some(9), None, 25, 3));
    }
}
