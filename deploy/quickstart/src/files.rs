//! Files and folders that only their owner can read, written so that a crash leaves the old or the new one.

use anyhow::Context;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes a folder and its parents with mode 0700; an existing one keeps its contents and gets that mode.
pub fn private_folder(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o700)))
        .with_context(|| format!("the folder {} cannot be made: choose another with --dir", path.display()))
}

/// A path as a shell takes it for one word, for commands that a person pastes.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Writes a 0600 file under another name, syncs it and renames it into place.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    let done = write();
    if done.is_err() {
        std::fs::remove_file(&temporary).ok();
    }
    done.with_context(|| format!("{} cannot be written: free some room or correct the folder's rights", path.display()))
}

/// Reads a text file that must be there.
pub fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Bytes of all files below `path`; what vanishes meanwhile counts nothing.
pub fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_can_read_and_a_second_write_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        private_folder(&inner).unwrap();
        assert_eq!(inner.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let file = inner.join("secret");
        write_private(&file, b"one").unwrap();
        write_private(&file, b"two!").unwrap();
        assert_eq!(read(&file).unwrap(), "two!");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bytes_below(folder.path()), 4);
    }

    #[test]
    fn a_shell_reads_a_quoted_path_as_one_word() {
        for path in ["/plain/p-1_2.x", "/tmp/Praxis Dr. X", "/it's \"here\" $HOME `x`", "/ünï/*"] {
            let script = format!("printf %s {}", quoted(Path::new(path)));
            let told = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(told.stdout).unwrap(), path);
        }
        assert_eq!(quoted(Path::new("/plain/p-1_2.x")), "/plain/p-1_2.x");
    }
}
