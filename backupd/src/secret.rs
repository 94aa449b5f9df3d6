//! Key files: read with care, written for their owner alone.

use anyhow::{Context, bail, ensure};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// The file systems of sticks that keep no modes, by their magic numbers: FAT, exFAT, NTFS and what a driver in user space shows.
const MODELESS: [u64; 5] = [0x4d44, 0x2011_bab0, 0x7366_746e, 0x5346_544e, 0x6573_5546];

/// No key file is longer.
const KEY_BYTES_MAX: u64 = 1 << 20;

/// A secret from a file of mode 0600, or from the systemd credential `name` when the settings give no file.
pub fn load(path: Option<&Path>, name: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    match path {
        Some(path) => read(path),
        None => service::credential(name)
            .with_context(|| format!("the credential `{name}` cannot be read"))?
            .with_context(|| format!("no file is set and there is no systemd credential `{name}`")),
    }
}

/// Reads a key file; refused when others than its owner may read it.
pub fn read(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    read_checked(path, None)
}

/// The same for what lies on a stick or disc in a safe: where nobody can change a mode, who recovers needs the key now. A
/// warning says what protects it instead.
pub fn read_kept(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    read_checked(path, fixed_modes(path))
}

/// Why nobody can change a mode where the file lies; `None` where its owner can.
fn fixed_modes(path: &Path) -> Option<&'static str> {
    let read_only = |stat: rustix::fs::StatVfs| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    if rustix::fs::statvfs(path).is_ok_and(read_only) {
        return Some("its medium is read-only");
    }
    let kind = u64::try_from(rustix::fs::statfs(path).ok()?.f_type).ok()?;
    MODELESS.contains(&kind).then_some("its medium keeps no modes")
}

fn read_checked(path: &Path, fixed: Option<&str>) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let shown = path.display();
    let meta = std::fs::metadata(path).with_context(|| format!("{shown} cannot be read"))?;
    ensure!(meta.is_file() && meta.len() <= KEY_BYTES_MAX, "{shown} is no key file");
    match (meta.mode() & 0o077, fixed) {
        (0, _) => {}
        (_, Some(why)) => {
            tell!("backupd: {shown} may be read by others, and {why}: keep the medium locked away");
        }
        (_, None) => bail!("{shown} may be read by others: chmod 600 {}", crate::names::quoted(path)),
    }
    Ok(Zeroizing::new(std::fs::read(path).with_context(|| format!("{shown} cannot be read"))?))
}

/// Writes a new file of mode 0600, durably; an existing one is never replaced.
pub fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write(path, bytes, false)
}

/// Writes a file of mode 0600, durably, in place of one that may exist.
pub fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write(path, bytes, true)
}

/// Whether a file could be written here. Makes its folder.
pub fn check_place(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let dir = path.parent().with_context(|| format!("{shown} has no folder"))?;
    make_private_dir(dir)?;
    let probe = dir.join(format!(".backupd-{}.probe", std::process::id()));
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| format!("{shown} cannot be written"))
}

fn write(path: &Path, bytes: &[u8], replace: bool) -> anyhow::Result<()> {
    let shown = path.display();
    let dir = path.parent().with_context(|| format!("{shown} has no folder"))?;
    make_private_dir(dir)?;
    if !replace {
        ensure!(!path.exists(), "{shown} exists already: it is not replaced; move it away first");
    }
    let mut name = path.file_name().with_context(|| format!("{shown} is no file name"))?.to_owned();
    name.push(".new");
    let temporary = dir.join(name);
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .with_context(|| format!("{shown} cannot be written"))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("{shown} cannot be written"))?;
    std::fs::rename(&temporary, path).with_context(|| format!("{shown} cannot be written"))?;
    std::fs::File::open(dir).and_then(|d| d.sync_all()).with_context(|| format!("{shown} cannot be written"))
}

/// A folder for its owner alone; one that exists keeps its mode.
pub fn make_private_dir(dir: &Path) -> anyhow::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("the folder {} cannot be made", dir.display()))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("the folder {} cannot be made private", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_for_its_owner_alone_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/writer.cred");
        write_new(&path, b"secret").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap().as_slice(), b"secret");
        assert!(write_new(&path, b"other").unwrap_err().to_string().contains("move it away"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chmod 600"));
        assert!(read_kept(&path).unwrap_err().to_string().contains("chmod 600"), "this medium can be written");
        assert_eq!(read_checked(&path, Some("its medium is read-only")).unwrap().as_slice(), b"secret");
        replace(&path, b"other").unwrap();
        assert_eq!(read(&path).unwrap().as_slice(), b"other");
    }
}
