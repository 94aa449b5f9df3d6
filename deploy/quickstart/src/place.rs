//! Which folder may become a practice's. It is closed to everybody else, so it must be nobody else's.

use crate::layout::Layout;
use anyhow::{Context, ensure};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;

/// Refuses a folder that holds something else, or that others use too. Changes nothing.
pub fn require(layout: &Layout) -> anyhow::Result<()> {
    let dir = layout.dir();
    let shown = dir.display();
    let meta = match std::fs::metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        meta => meta.with_context(|| format!("--dir {shown}: it cannot be looked at: name a new folder"))?,
    };
    ensure!(meta.is_dir(), "--dir {shown}: it is no folder: name a new one");
    ensure!(
        meta.mode() & STICKY == 0,
        "--dir {shown}: it is for everybody's files, and a practice's folder is closed to others: name a new folder in it"
    );
    // What an interrupted first start left is the practice's own.
    if layout.settings().exists() || layout.lock().exists() {
        return Ok(());
    }
    ensure!(is_empty(dir)?, "--dir {shown}: it is not empty, and no practice is in it: name a new folder");
    ensure!(!is_home(dir), "--dir {shown}: it is your home, which is not closed to others: name a new folder in it");
    ensure!(
        meta.uid() == rustix::process::geteuid().as_raw(),
        "--dir {shown}: it belongs to another user: name a new folder"
    );
    ensure!(
        meta.mode() & OTHERS_WRITE == 0,
        "--dir {shown}: others may write there: name a new folder, or take that right from them first (chmod go-w)"
    );
    Ok(())
}

/// A file system that was just made has its own `lost+found`.
pub fn is_empty(dir: &Path) -> anyhow::Result<bool> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("--dir {}: it cannot be read", dir.display()))?;
    for entry in entries {
        if entry?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_home(dir: &Path) -> bool {
    let home = std::env::home_dir().and_then(|home| home.canonicalize().ok());
    home.is_some_and(|home| dir.canonicalize().is_ok_and(|dir| dir == home))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_a_new_or_empty_folder_of_ones_own_is_taken() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("practice");
        let layout = Layout::new(&dir).unwrap();
        let refusal = || format!("{:#}", require(&layout).unwrap_err());
        let mode = |mode| std::fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).unwrap();
        require(&layout).unwrap();
        std::fs::write(&dir, "").unwrap();
        assert!(refusal().contains("no folder"));
        std::fs::remove_file(&dir).unwrap();
        std::fs::create_dir_all(dir.join("lost+found")).unwrap();
        mode(0o755);
        require(&layout).unwrap();
        for others in [0o1755, 0o775, 0o757] {
            mode(others);
            assert!(refusal().contains("new folder"), "{others:o}");
        }
        mode(0o755);
        std::fs::write(dir.join("letter.txt"), "x").unwrap();
        assert!(refusal().contains("not empty"));
        std::fs::write(layout.lock(), "").unwrap();
        require(&layout).unwrap();
        mode(0o1777);
        assert!(refusal().contains("everybody"));
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o7777, 0o1777);
    }
}
