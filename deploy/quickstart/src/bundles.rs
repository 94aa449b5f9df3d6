//! The folder of `--import`, looked at before the programs are built and a practice is made.

use anyhow::{Context, ensure};
use std::path::Path;

/// Every bundle can be read. The programs' own messages number the files, because a name may be a patient's; here only
/// who named the folder reads it.
pub fn require(folder: &Path) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| {
        format!("--import {}: the folder cannot be read: name a folder with *.json bundles", folder.display())
    })?;
    for entry in entries {
        let path = entry.with_context(|| format!("--import {}: it cannot be read", folder.display()))?.path();
        if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) || path.is_dir() {
            continue;
        }
        let remedy =
            || format!("--import: {} cannot be read: correct it, or take it out of the folder", path.display());
        // Looked at first: opening a pipe would wait for its other end.
        ensure!(std::fs::metadata(&path).with_context(remedy)?.is_file(), "{}", remedy());
        std::fs::File::open(&path).with_context(remedy)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("one.json"), "{}").unwrap();
        std::fs::create_dir(folder.path().join("older.json")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", folder.path().join("notes.txt")).unwrap();
        require(folder.path()).unwrap();
        std::os::unix::fs::symlink("/nonexistent", folder.path().join("two.JSON")).unwrap();
        let message = format!("{:#}", require(folder.path()).unwrap_err());
        assert!(message.contains("two.JSON") && message.contains("cannot be read"), "{message}");
        assert!(require(Path::new("/nonexistent")).unwrap_err().to_string().contains("*.json"));
    }
}
