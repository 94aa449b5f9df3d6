//! Inode numbers: the same for the same path of the same snapshot whenever it is asked, one for all names of a hard link.
//! What the kernel has forgotten is not kept.

use backup_engine::Node;
use std::collections::HashMap;
use std::sync::Arc;

/// The mount's root, as the kernel counts.
pub const ROOT: u64 = 1;
/// Numbers below are for what does not come from a snapshot.
const RESERVED: u64 = 1 << 10;

/// What stands behind a number.
#[derive(Clone)]
pub enum What {
    Top,
    Snapshots,
    Tags,
    /// A symbolic link of the mount's own.
    Link(Arc<[u8]>),
    /// The root of a snapshot, by its number.
    Snapshot(usize),
    /// An entry of a snapshot.
    Entry {
        snapshot: usize,
        node: Arc<Node>,
    },
}

/// What the kernel knows.
struct Known {
    identity: [u8; 32],
    parent: u64,
    what: What,
    lookups: u64,
}

pub struct Inodes(HashMap<u64, Known>);

impl Inodes {
    pub fn new() -> Self {
        let top = Known { identity: [0; 32], parent: ROOT, what: What::Top, lookups: 1 };
        Self(HashMap::from([(ROOT, top)]))
    }

    pub fn what(&self, ino: u64) -> Option<What> {
        self.0.get(&ino).map(|known| known.what.clone())
    }

    pub fn parent(&self, ino: u64) -> u64 {
        self.0.get(&ino).map_or(ROOT, |known| known.parent)
    }

    /// The number that an entry has or would have.
    pub fn number(&self, parent: u64, name: &[u8], what: &What) -> u64 {
        self.place(&identity(parent, name, what))
    }

    /// Counts one more look-up of an entry; the kernel gives each back with [`Self::forget`].
    pub fn look_up(&mut self, parent: u64, name: &[u8], what: &What) -> u64 {
        let identity = identity(parent, name, what);
        let ino = self.place(&identity);
        let known = self.0.entry(ino).or_insert_with(|| Known { identity, parent, what: what.clone(), lookups: 0 });
        known.lookups += 1;
        ino
    }

    pub fn forget(&mut self, ino: u64, count: u64) {
        let Some(known) = self.0.get_mut(&ino).filter(|_| ino != ROOT) else { return };
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups == 0 {
            self.0.remove(&ino);
        }
    }

    /// Two entries never share a number while the kernel knows both, even if their digests begin alike.
    fn place(&self, identity: &[u8; 32]) -> u64 {
        let mut first = [0; 8];
        first.iter_mut().zip(identity).for_each(|(to, from)| *to = *from);
        let mut ino = u64::from_le_bytes(first).max(RESERVED);
        while self.0.get(&ino).is_some_and(|known| known.identity != *identity) {
            ino = ino.wrapping_add(1).max(RESERVED);
        }
        ino
    }
}

fn identity(parent: u64, name: &[u8], what: &What) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    match what {
        What::Entry { snapshot, node } if node.hard_link.is_some() => {
            let (device, inode) = node.hard_link.unwrap_or_default();
            hasher.update(b"link").update(&snapshot.to_le_bytes());
            hasher.update(&device.to_le_bytes()).update(&inode.to_le_bytes());
        }
        _ => {
            hasher.update(b"name").update(&parent.to_le_bytes()).update(name);
        }
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_engine::NodeKind;

    fn entry(hard_link: Option<(u64, u64)>) -> What {
        let node = Node {
            name: b"n".to_vec(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime_s: 0,
            mtime_ns: 0,
            xattrs: Vec::new(),
            hard_link,
            kind: NodeKind::Fifo,
        };
        What::Entry { snapshot: 0, node: Arc::new(node) }
    }

    #[test]
    fn numbers_stay_and_are_forgotten() {
        let mut inodes = Inodes::new();
        let first = inodes.look_up(ROOT, b"a", &entry(None));
        assert_eq!(inodes.look_up(ROOT, b"a", &entry(None)), first);
        assert_ne!(inodes.look_up(ROOT, b"b", &entry(None)), first);
        assert_ne!(inodes.number(first, b"a", &entry(None)), first);
        inodes.forget(first, 1);
        assert!(inodes.what(first).is_some());
        inodes.forget(first, 1);
        assert!(inodes.what(first).is_none());
        assert_eq!(inodes.number(ROOT, b"a", &entry(None)), first);
        inodes.forget(ROOT, 1000);
        assert!(inodes.what(ROOT).is_some());
    }

    #[test]
    fn names_of_one_file_share_a_number() {
        let mut inodes = Inodes::new();
        let one = inodes.look_up(ROOT, b"a", &entry(Some((7, 8))));
        assert_eq!(inodes.look_up(99, b"b", &entry(Some((7, 8)))), one);
        assert_ne!(inodes.look_up(99, b"b", &entry(Some((7, 9)))), one);
    }

    #[test]
    fn digests_that_begin_alike_get_numbers_of_their_own() {
        let mut inodes = Inodes::new();
        let ino = inodes.look_up(ROOT, b"a", &entry(None));
        if let Some(known) = inodes.0.get_mut(&ino) {
            known.identity = [9; 32];
        }
        assert_eq!(inodes.look_up(ROOT, b"a", &entry(None)), ino + 1);
        assert_eq!(inodes.look_up(ROOT, b"a", &entry(None)), ino + 1);
    }
}
