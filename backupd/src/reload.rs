//! A key file that may be replaced while the daemon runs: it is looked at again whenever the key is wanted.

use crate::secret;
use anyhow::Context;
use backup_engine::{OpenKey, RepositoryId, WriterCredential};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A key that belongs to one repository and has a file form.
pub trait KeyFile: Sized {
    fn parse(bytes: &[u8]) -> backup_engine::Result<Self>;
    fn repository(&self) -> RepositoryId;
}

impl KeyFile for WriterCredential {
    fn parse(bytes: &[u8]) -> backup_engine::Result<Self> {
        Ok(Self::from_bytes(bytes)?)
    }

    fn repository(&self) -> RepositoryId {
        Self::repository(self)
    }
}

impl KeyFile for OpenKey {
    fn parse(bytes: &[u8]) -> backup_engine::Result<Self> {
        Ok(Self::from_bytes(bytes)?)
    }

    fn repository(&self) -> RepositoryId {
        Self::repository(self)
    }
}

/// What shows that a file was replaced: device, inode, size and both times of change.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// The newest form of a key. Without a file (a systemd credential) it stays as it was at the start.
pub struct Reloaded<K> {
    file: Option<PathBuf>,
    held: Mutex<(Option<Stamp>, Arc<K>)>,
}

impl<K: KeyFile> Reloaded<K> {
    /// Loads the key from `file`, or from the systemd credential `name` when the settings give no file.
    pub fn open(file: Option<&Path>, name: &str) -> anyhow::Result<Self> {
        let stamp = file.and_then(stamp);
        let key = K::parse(&secret::load(file, name)?).context(
            "it holds no such key: run `backupd init`, or `backupd keys refresh` where the repository is made already",
        )?;
        Ok(Self { file: file.map(Path::to_owned), held: Mutex::new((stamp, Arc::new(key))) })
    }

    /// The key, read again when its file was replaced. One that cannot be read is passed over, and that is logged.
    pub fn current(&self) -> Arc<K> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.file.as_deref().and_then(stamp);
        if let (Some(file), Some(_)) = (&self.file, now)
            && now != held.0
        {
            held.0 = now;
            let read = secret::read(file).and_then(|bytes| Ok(K::parse(&bytes)?));
            match read {
                Ok(key) if key.repository() == held.1.repository() => {
                    held.1 = Arc::new(key);
                    log::info!("key-file.reloaded");
                }
                Ok(_) => log::error!("key-file.of-another-repository"),
                Err(error) => log::error!(reason:% = error; "key-file.unreadable"),
            }
        }
        Arc::clone(&held.1)
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(file).ok()?;
    let times = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    Some((meta.dev(), meta.ino(), meta.size(), times.0, times.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for a key: two bytes name the repository, the rest is the key.
    struct Word(Vec<u8>);

    impl KeyFile for Word {
        fn parse(bytes: &[u8]) -> backup_engine::Result<Self> {
            if bytes.len() < 2 {
                return Err(backup_engine::Error::new(backup_engine::ErrorKind::Damaged, "too short"));
            }
            Ok(Self(bytes.to_vec()))
        }

        fn repository(&self) -> RepositoryId {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&self.0[..2]);
            RepositoryId(id)
        }
    }

    #[test]
    fn a_replaced_key_is_taken_and_a_wrong_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("writer.cred");
        secret::write_new(&file, b"aa-1").unwrap();
        let key = Reloaded::<Word>::open(Some(&file), "writer").unwrap();
        assert_eq!(key.current().0, b"aa-1");
        for (bytes, expected) in
            [(b"aa-2".as_slice(), b"aa-2"), (b"bb-3", b"aa-2"), (b"x", b"aa-2"), (b"aa-4", b"aa-4")]
        {
            secret::replace(&file, bytes).unwrap();
            assert_eq!(key.current().0, expected);
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(key.current().0, b"aa-4");
    }
}
