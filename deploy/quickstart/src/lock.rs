//! One quickstart per practice folder.

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Held as long as this program runs; the kernel frees it whatever ends the program.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "open means locked")] File);

impl Lock {
    pub fn take(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("{} cannot be opened", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => anyhow::bail!(
                "a quickstart is running in {} already: end it with Ctrl-C first, or choose another folder with --dir",
                path.parent().unwrap_or(path).display()
            ),
            Err(error) => Err(error).with_context(|| format!("{} cannot be locked", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::take(&path).unwrap();
        let refusal = Lock::take(&path).unwrap_err().to_string();
        assert!(refusal.contains("already") && refusal.contains("Ctrl-C"), "{refusal}");
        drop(first);
        Lock::take(&path).unwrap();
    }
}
