//! Putting restored parts where the settings want them.

use crate::secret;
use anyhow::{Context, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Moves what is in `from` into `to`. Folders are merged; a file that is there already stays and is counted.
pub fn merge(from: &Path, to: &Path) -> anyhow::Result<u64> {
    let mut kept = 0;
    secret::make_private_dir(to)?;
    let entries = fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && target.is_dir() {
            kept += merge(&entry.path(), &target)?;
        } else if target.symlink_metadata().is_ok() {
            kept += 1;
        } else {
            shift(&entry.path(), &target)?;
        }
    }
    Ok(kept)
}

/// Moves a file or folder to a place that must be free.
pub fn shift(from: &Path, to: &Path) -> anyhow::Result<()> {
    ensure!(to.symlink_metadata().is_err(), "{} exists already", to.display());
    if let Some(parent) = to.parent() {
        secret::make_private_dir(parent)?;
    }
    fs::rename(from, to).with_context(|| format!("{} cannot be moved into place", to.display()))
}

/// Where the EMR of an operations socket keeps its data, from the EMR's own settings among the kept files.
pub fn data_dir_of(dir: &Path, ops_socket: &Path) -> Option<PathBuf> {
    let mut work = vec![dir.to_owned()];
    while let Some(folder) = work.pop() {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                work.push(path);
            } else if let Some(found) = data_dir_in(&path, ops_socket) {
                return Some(found);
            }
        }
    }
    None
}

fn data_dir_in(file: &Path, ops_socket: &Path) -> Option<PathBuf> {
    if file.extension()? != "toml" {
        return None;
    }
    let table: toml::Table = toml::from_str(&fs::read_to_string(file).ok()?).ok()?;
    let folder = file.parent()?;
    let socket = folder.join(table.get("ops_socket")?.as_str()?);
    let data = folder.join(table.get("data_dir")?.as_str()?);
    (socket == ops_socket).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_already_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for (folder, text) in [(&from, "old"), (&to, "here")] {
            fs::create_dir_all(folder.join("a")).unwrap();
            fs::write(folder.join("a/same"), text).unwrap();
        }
        fs::write(from.join("a/new"), "old").unwrap();
        assert_eq!(merge(&from, &to).unwrap(), 1);
        assert_eq!(fs::read(to.join("a/same")).unwrap(), b"here");
        assert_eq!(fs::read(to.join("a/new")).unwrap(), b"old");
    }

    #[test]
    fn the_emrs_own_settings_say_where_its_data_lies() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("appliance")).unwrap();
        fs::write(dir.path().join("other.toml"), "data_dir = \"x\"").unwrap();
        fs::write(dir.path().join("appliance/appliance.toml"), "ops_socket = \"/run/o\"\ndata_dir = \"data\"").unwrap();
        let found = data_dir_of(dir.path(), Path::new("/run/o")).unwrap();
        assert_eq!(found, dir.path().join("appliance/data"));
        assert_eq!(data_dir_of(dir.path(), Path::new("/run/p")), None);
    }
}
