//! Local states in memory: one for each folder that a simulated machine would keep its state in.
//!
//! The fault model is the caller's: it may alter what is held as a broken disk would, take back what was never synced, or
//! have every write refused.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What one state holds.
#[derive(Clone, Default)]
pub struct Held {
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The records as they were when they were last synced: what a power cut leaves.
    pub synced: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Files are never synced.
    pub files: BTreeMap<String, Arc<Vec<u8>>>,
    /// Every write fails so: a full disk, or one that became read-only.
    pub refuses: Option<io::ErrorKind>,
    /// Every sync fails so; what was to be synced is written all the same.
    pub refuses_sync: Option<io::ErrorKind>,
    in_use: bool,
}

/// The states of a simulated machine, by folder. They outlive the runs that use them.
#[derive(Clone, Default)]
pub struct MemoryStates(Arc<Mutex<BTreeMap<PathBuf, MemoryState>>>);

impl MemoryStates {
    /// Looks at a state, or alters it. One that was never used is empty.
    pub fn with<T>(&self, dir: &Path, look: impl FnOnce(&mut Held) -> T) -> T {
        self.of(dir).with(look)
    }

    pub(crate) fn of(&self, dir: &Path) -> MemoryState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(dir.to_owned()).or_default().clone()
    }
}

/// One state.
#[derive(Clone, Default)]
pub(crate) struct MemoryState(Arc<Mutex<Held>>);

impl MemoryState {
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the state for one run; `None` while another has it.
    pub(crate) fn take(&self) -> Option<Taken> {
        let free = self.with(|held| !std::mem::replace(&mut held.in_use, true));
        free.then(|| Taken(self.clone()))
    }

    pub(crate) fn load(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.with(|held| held.records.get(key).cloned())
    }

    pub(crate) fn store(&self, key: &[u8], value: Vec<u8>, durably: bool) -> io::Result<()> {
        self.with(|held| {
            held.refuses.map_or(Ok(()), |kind| Err(io::Error::from(kind)))?;
            held.records.insert(key.to_vec(), value);
            if durably {
                held.refuses_sync.map_or(Ok(()), |kind| Err(io::Error::from(kind)))?;
                held.synced = held.records.clone();
            }
            Ok(())
        })
    }

    pub(crate) fn file_names(&self) -> Vec<String> {
        self.with(|held| held.files.keys().cloned().collect())
    }

    pub(crate) fn file(&self, name: &str) -> io::Result<Arc<Vec<u8>>> {
        self.with(|held| held.files.get(name).cloned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn put_file(&self, name: String, bytes: Vec<u8>) -> io::Result<()> {
        self.with(|held| {
            held.refuses.map_or(Ok(()), |kind| Err(io::Error::from(kind)))?;
            held.files.insert(name, Arc::new(bytes));
            Ok(())
        })
    }

    pub(crate) fn remove_file(&self, name: &str) {
        self.with(|held| held.files.remove(name));
    }
}

/// A state is one run's until this is dropped.
pub(crate) struct Taken(MemoryState);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.with(|held| held.in_use = false);
    }
}
