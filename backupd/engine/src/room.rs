//! The room in memory that sealed packs take until every store has them.

use backup_format::pack::{PackRecord, SealedPack};
use bytes::Bytes;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Room for so many sealed packs: their bytes in memory are bounded, however slow the stores are. Buffers are used
/// again: fresh memory costs as much as sealing.
pub(crate) struct Room {
    free: Mutex<(usize, Vec<Vec<u8>>)>,
    changed: Condvar,
}

impl Room {
    pub(crate) fn new(packs: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new((packs.max(1), Vec::new())), changed: Condvar::new() })
    }

    /// Waits for room; a buffer comes with it.
    pub(crate) fn enter(room: &Arc<Self>) -> Permit {
        let free = room.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = room.changed.wait_while(free, |free| free.0 == 0).unwrap_or_else(PoisonError::into_inner);
        free.0 -= 1;
        Permit { room: Arc::clone(room), buffer: free.1.pop().unwrap_or_default() }
    }
}

/// The room that one pack takes until it is dropped; its buffer goes back with it.
pub(crate) struct Permit {
    room: Arc<Room>,
    pub(crate) buffer: Vec<u8>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut free = self.room.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.0 += 1;
        free.1.push(std::mem::take(&mut self.buffer));
        self.room.changed.notify_one();
    }
}

/// A sealed pack with its room.
pub(crate) struct Permitted {
    pub(crate) pack: SealedPack,
    pub(crate) permit: Permit,
}

impl Permitted {
    /// What the index says of it, and its bytes; the room is free again when the last store has let go of them.
    pub(crate) fn into_parts(mut self) -> (PackRecord, Bytes) {
        self.permit.buffer = self.pack.bytes;
        (self.pack.record, Bytes::from_owner(self.permit))
    }
}

impl AsRef<[u8]> for Permit {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}
