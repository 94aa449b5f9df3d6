//! The frozen repositories of tests/golden.

use crate::{root, tree};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// One frozen repository: a store folder, its keys, and what its snapshots held.
pub struct Golden {
    pub folder: PathBuf,
}

impl Golden {
    pub fn all() -> Result<Vec<Self>> {
        let entries = fs::read_dir(root().join("tests/golden"))?;
        let mut folders: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        folders.retain(|path| path.is_dir());
        folders.sort();
        ensure!(!folders.is_empty(), "tests/golden holds frozen repositories");
        Ok(folders.into_iter().map(|folder| Self { folder }).collect())
    }

    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// A line of `keys.txt`.
    pub fn key(&self, name: &str) -> Result<String> {
        let text = fs::read_to_string(self.folder.join("keys.txt"))?;
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(found.with_context(|| format!("the key {name}"))?.to_owned())
    }

    pub fn open_key(&self) -> Result<Vec<u8>> {
        Ok(data_encoding::HEXLOWER.decode(self.key("open-key")?.as_bytes())?)
    }

    /// What the snapshot with a tag held.
    pub fn expected(&self, tag: &str) -> Result<String> {
        Ok(without_owners(&fs::read_to_string(self.folder.join(format!("{tag}.txt")))?))
    }
}

/// A tree as the fixtures say it: one line for each entry, without where its holes lie (file systems differ in that).
pub fn expected_of(tree: &Path) -> Result<String> {
    let mut text = String::new();
    for (name, says) in tree::describe(tree)? {
        let says = says.split(" data [").next().unwrap_or_default();
        text += &format!("{}: {}\n", name.escape_ascii(), says.trim_end());
    }
    Ok(without_owners(&text))
}

/// Only root gives files away: for anyone else a restored tree is their own.
fn without_owners(text: &str) -> String {
    if rustix::process::geteuid().is_root() {
        return text.to_owned();
    }
    let line = |line: &str| match (line.find(" owner "), line.find(" mtime ")) {
        (Some(from), Some(to)) => format!("{}{}\n", &line[..from], &line[to..]),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}
