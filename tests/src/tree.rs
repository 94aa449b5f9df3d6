//! What two trees must agree on, entry by entry.

use anyhow::{Context, Result};
use rustix::fs::SeekFrom;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Every entry below `root` by its path: type, mode, owners, time, attributes, links, content, and where its holes are.
pub fn describe(root: &Path) -> Result<BTreeMap<Vec<u8>, String>> {
    let (mut found, mut links) = (BTreeMap::new(), BTreeMap::new());
    below(root, root, &mut found, &mut links)?;
    Ok(found)
}

fn below(
    root: &Path,
    at: &Path,
    found: &mut BTreeMap<Vec<u8>, String>,
    links: &mut BTreeMap<u64, Vec<u8>>,
) -> Result<()> {
    let meta = fs::symlink_metadata(at).with_context(|| at.display().to_string())?;
    let name = at.strip_prefix(root)?.as_os_str().as_bytes().to_vec();
    let kind = meta.file_type();
    let mut says = format!(
        "mode {:o} owner {}:{} mtime {}.{:09} xattrs {:?} ",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
        xattrs(at)?
    );
    if !kind.is_dir() && meta.nlink() > 1 {
        let first = links.entry(meta.ino()).or_insert_with(|| name.clone());
        says += &format!("one file with {first:?} ");
    }
    if kind.is_file() {
        says +=
            &format!("size {} content {} data {:?}", meta.len(), blake3::hash(&fs::read(at)?), data(at, meta.len())?);
    } else if kind.is_symlink() {
        says += &format!("to {:?}", fs::read_link(at)?);
    } else if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(at)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        names.sort();
        for path in names {
            below(root, &path, found, links)?;
        }
    } else {
        says += &format!("fifo {} socket {} device {}", kind.is_fifo(), kind.is_socket(), meta.rdev());
    }
    found.insert(name, says);
    Ok(())
}

/// Where a file has data; the rest is holes.
fn data(at: &Path, size: u64) -> Result<Vec<(u64, u64)>> {
    let file = File::open(at)?;
    let (mut ranges, mut from) = (Vec::new(), 0);
    while from < size {
        let Ok(begin) = rustix::fs::seek(&file, SeekFrom::Data(from)) else { break };
        from = rustix::fs::seek(&file, SeekFrom::Hole(begin))?;
        ranges.push((begin, from));
    }
    Ok(ranges)
}

fn xattrs(at: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut list = vec![0u8; 1 << 16];
    let len = rustix::fs::llistxattr(at, list.as_mut_slice()).unwrap_or(0);
    let mut found = Vec::new();
    for name in list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 1 << 16];
        let len = rustix::fs::lgetxattr(at, name, value.as_mut_slice())?;
        found.push((String::from_utf8_lossy(name).into_owned(), value[..len].to_vec()));
    }
    found.sort();
    Ok(found)
}
