//! Putting restored parts where the settings want them.

use crate::secret;
use anyhow::{Context, ensure};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
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

/// Takes out of `from` what `in_place` has too; the files that are left, relative to it.
pub fn leave_new(from: &Path, in_place: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut left, mut work) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = work.pop() {
        for entry in fs::read_dir(from.join(&below)).context("what was restored cannot be read")? {
            let entry = entry?;
            let place = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                work.push(place);
            } else if in_place.join(&place).symlink_metadata().is_ok() {
                fs::remove_file(entry.path()).context("the staging folder")?;
            } else {
                left.push(place);
            }
        }
    }
    left.sort();
    Ok(left)
}

/// Moves a file or folder to a place that must be free.
pub fn shift(from: &Path, to: &Path) -> anyhow::Result<()> {
    ensure!(to.symlink_metadata().is_err(), "{} exists already", to.display());
    if let Some(parent) = to.parent() {
        secret::make_private_dir(parent)?;
    }
    let moved = match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => carry(from, to),
        moved => moved,
    };
    moved.with_context(|| format!("{} cannot be moved into place", to.display()))
}

/// Moves to another file system: everything is copied and on disk before the first is removed. What a killed run left
/// half-copied is not at its final name.
fn carry(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".arriving");
    let arriving = to.with_file_name(name);
    if arriving.is_dir() {
        fs::remove_dir_all(&arriving)?;
    }
    copy(from, &arriving)?;
    fs::rename(&arriving, to)?;
    if let Some(folder) = to.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    if from.is_dir() { fs::remove_dir_all(from) } else { fs::remove_file(from) }
}

/// Files and folders with modes, owners and times: what a practice's own files have.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let about = fs::symlink_metadata(from)?;
    if about.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if about.is_dir() {
        fs::DirBuilder::new().mode(0o700).create(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        fs::copy(from, to)?;
    }
    std::os::unix::fs::chown(to, Some(about.uid()), Some(about.gid()))?;
    fs::set_permissions(to, about.permissions())?;
    let written = fs::File::open(to)?;
    written.set_times(fs::FileTimes::new().set_modified(about.modified()?).set_accessed(about.accessed()?))?;
    written.sync_all()
}

/// Where the EMR of an operations socket keeps its data, from the EMR's own settings among the kept files.
pub fn data_dir_of(dir: &Path, ops_socket: &Path) -> Option<PathBuf> {
    let mut work = vec![dir.to_owned()];
    while let Some(folder) = work.pop() {
        // One folder that cannot be read, such as the file system's lost+found, hides no other.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
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
    fn another_file_system_is_reached_by_copying() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/f"), "text").unwrap();
        fs::set_permissions(from.join("a/b/f"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("b/f", from.join("a/link")).unwrap();
        let before = fs::metadata(from.join("a/b/f")).unwrap();
        let to = dir.path().join("to");
        fs::create_dir_all(dir.path().join("to.arriving/half")).unwrap();
        carry(&from, &to).unwrap();
        let after = fs::metadata(to.join("a/link")).unwrap();
        assert_eq!((before.modified().unwrap(), before.mode()), (after.modified().unwrap(), after.mode()));
        assert_eq!(fs::read(to.join("a/b/f")).unwrap(), b"text");
        assert!(!from.exists() && !to.join("half").exists() && !dir.path().join("to.arriving").exists());
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
