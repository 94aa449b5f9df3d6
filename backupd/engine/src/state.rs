//! Local state that can be rebuilt: what index objects said, what directories looked like, where a chain stands.
//!
//! One record per directory or index object. Deleting it at any moment loses nothing: the index is read from the stores,
//! the sources are read again, and the writer begins a new chain.

use crate::error::{Error, ErrorKind, Result};
use rustix::fs::FlockOperation;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Which kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Index,
    Directory,
    Chain,
}

impl Table {
    fn prefix(self) -> u8 {
        match self {
            Self::Index => b'i',
            Self::Directory => b'd',
            Self::Chain => b'c',
        }
    }

    fn key(self, key: &[u8]) -> Vec<u8> {
        [&[self.prefix()], key].concat()
    }
}

/// The records.
pub(crate) struct State {
    backing: Backing,
    /// Held while the state is open, so that two backups never share one chain.
    _lock: Option<File>,
}

enum Backing {
    Memory(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>),
    Sled(sled::Db),
}

/// Asked of sled; it uses up to four times as much.
const CACHE_BYTES: u64 = 16 << 20;
const CHECK_BYTES: usize = 16;

impl State {
    /// State for one run only.
    pub(crate) fn memory() -> Self {
        Self { backing: Backing::Memory(Mutex::default()), _lock: None }
    }

    /// Opens the state below `dir`; what does not open is moved aside and begun anew.
    pub(crate) fn open(dir: &Path, now_unix_ms: i64) -> Result<Self> {
        let failed = |error: std::io::Error| Error::io("the state directory", &error);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::new(ErrorKind::Fenced, "another backup is using this state directory: wait for it"));
        }
        let place = dir.join("cache");
        let database = match open_sled(&place) {
            Ok(database) => database,
            Err(reason) => {
                log::warn!(reason = reason.as_str(); "state.rebuilt");
                std::fs::rename(&place, dir.join(format!("cache.damaged-{now_unix_ms}"))).map_err(failed)?;
                open_sled(&place).map_err(|reason| {
                    Error::new(ErrorKind::Retry, format!("the state directory cannot be used: {reason}"))
                })?
            }
        };
        Ok(Self { backing: Backing::Sled(database), _lock: Some(lock) })
    }

    /// A record, if it is there and whole.
    pub(crate) fn load(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        let stored = match &self.backing {
            Backing::Memory(map) => map.lock().unwrap_or_else(PoisonError::into_inner).get(&table.key(key)).cloned(),
            Backing::Sled(database) => database.get(table.key(key)).ok().flatten().map(|value| value.to_vec()),
        }?;
        let (value, check) = stored.split_last_chunk::<CHECK_BYTES>()?;
        (check == &checksum(value)).then(|| value.to_vec())
    }

    /// Keeps a record until the next [`State::flush`] makes it durable. A failure only costs time later.
    pub(crate) fn store(&self, table: Table, key: &[u8], value: &[u8]) {
        let stored = [value, &checksum(value)].concat();
        match &self.backing {
            Backing::Memory(map) => {
                map.lock().unwrap_or_else(PoisonError::into_inner).insert(table.key(key), stored);
            }
            Backing::Sled(database) => {
                if let Err(error) = database.insert(table.key(key), stored) {
                    log::warn!(error:% = error; "state.write-failed");
                }
            }
        }
    }

    /// Makes records durable.
    pub(crate) fn flush(&self) -> Result<()> {
        if let Backing::Sled(database) = &self.backing {
            database.flush().map_err(|error| match error {
                sled::Error::Io(error) => Error::io("the state directory", &error),
                other => Error::new(ErrorKind::Retry, format!("the state directory: {other}")),
            })?;
        }
        Ok(())
    }
}

fn checksum(value: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    blake3::Hasher::new().update(value).finalize_xof().fill(&mut check);
    check
}

/// sled may panic on what it finds; that counts as not opening.
fn open_sled(place: &Path) -> std::result::Result<sled::Db, String> {
    let place = place.to_owned();
    let opened = std::panic::catch_unwind(move || {
        let database = sled::Config::new()
            .path(place)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()
            .map_err(|error| error.to_string())?;
        // Touching it finds damage that opening alone does not.
        database.get(b"probe").map_err(|error| error.to_string())?;
        Ok(database)
    });
    opened.unwrap_or_else(|_| Err("the database panicked while opening".to_owned()))
}
