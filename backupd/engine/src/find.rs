//! Finding entries by name, size, time and kind, in one snapshot or in many. A directory that several snapshots share is
//! read once, whatever their number.

use crate::error::Result;
use crate::glob::Glob;
use crate::list::{PATH_BYTES_MAX, join, kind_and_size};
use crate::read::EntryKind;
use crate::view::{Tree, View, malformed};
use backup_format::ChunkId;
use backup_format::tree::{Node, NodeKind, PAGE_LEVELS_MAX, Page};
use std::collections::BTreeMap;

/// What an entry must be; every part that is set must fit.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub name: Option<Glob>,
    /// Any of them; empty: all.
    pub kinds: Vec<EntryKind>,
    pub size_min: Option<u64>,
    pub size_max: Option<u64>,
    /// Changed at or after this time.
    pub since_unix_ns: Option<i128>,
    /// Changed before this time.
    pub until_unix_ns: Option<i128>,
}

/// An entry that fits, the same in all these trees.
#[derive(Debug)]
pub struct Found<'f> {
    pub path: &'f [u8],
    pub node: &'f Node,
    /// Which of the given trees hold it, ascending.
    pub trees: &'f [usize],
}

/// What is called for everything that fits.
pub type VisitFound<'v> = dyn FnMut(&Found<'_>) -> Result<()> + Send + 'v;

impl Wanted {
    fn fits(&self, path: &[u8], node: &Node) -> bool {
        let (kind, size) = kind_and_size(node);
        let changed = i128::from(node.mtime_s) * 1_000_000_000 + i128::from(node.mtime_ns);
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && self.size_min.is_none_or(|min| size >= min)
            && self.size_max.is_none_or(|max| size <= max)
            && self.since_unix_ns.is_none_or(|since| changed >= since)
            && self.until_unix_ns.is_none_or(|until| changed < until)
            && self.name.as_ref().is_none_or(|glob| glob.fits(path))
    }
}

/// The trees that have a thing in common.
type Holders = Vec<usize>;

/// Visits what fits, in the order of directories; the same entry of several trees once.
pub async fn find(view: &View<'_>, trees: &[Tree], wanted: &Wanted, visit: &mut VisitFound<'_>) -> Result<()> {
    let mut roots = Vec::new();
    for (at, tree) in trees.iter().enumerate() {
        if let NodeKind::Directory { root } = tree.root.kind {
            hold(&mut roots, &root, &[at]);
        }
    }
    let mut stack = vec![(Vec::new(), roots)];
    while let Some((path, roots)) = stack.pop() {
        if path.len() > PATH_BYTES_MAX {
            return Err(malformed());
        }
        let entries = entries(view, roots, &path, wanted).await?;
        let mut below = Vec::new();
        for (name, mut entries) in entries {
            entries.sort_by(|a, b| a.1.cmp(&b.1));
            let path = join(&path, &name)?;
            let mut directories = Vec::new();
            for (node, holders) in entries {
                if wanted.fits(&path, &node) {
                    visit(&Found { path: &path, node: &node, trees: &holders })?;
                }
                if let NodeKind::Directory { root } = node.kind {
                    hold(&mut directories, &root, &holders);
                }
            }
            if !directories.is_empty() {
                below.push((path, directories));
            }
        }
        stack.extend(below.into_iter().rev());
    }
    Ok(())
}

/// Adds holders to a thing that is in the list or comes into it.
fn hold<T: PartialEq + Clone>(list: &mut Vec<(T, Holders)>, thing: &T, more: &[usize]) {
    match list.iter_mut().find(|(known, _)| known == thing) {
        Some((_, holders)) => join_holders(holders, more),
        None => list.push((thing.clone(), more.to_vec())),
    }
}

fn join_holders(holders: &mut Holders, more: &[usize]) {
    holders.extend(more);
    holders.sort_unstable();
    holders.dedup();
}

type Entries = BTreeMap<Vec<u8>, Vec<(Node, Holders)>>;

/// Directories, and what fits, of one path in all trees. Each page is read once; other entries are not kept.
async fn entries(view: &View<'_>, roots: Vec<(ChunkId, Holders)>, path: &[u8], wanted: &Wanted) -> Result<Entries> {
    let mut entries = Entries::new();
    let mut level: Vec<(ChunkId, Holders)> = roots;
    for _ in 0..=PAGE_LEVELS_MAX {
        let mut below: BTreeMap<ChunkId, Holders> = BTreeMap::new();
        for (id, holders) in &level {
            match &*view.page(id).await? {
                Page::DirectoryIndex(pages) => {
                    for (_, page) in pages {
                        join_holders(below.entry(*page).or_default(), holders);
                    }
                }
                Page::Directory(nodes) => {
                    for node in nodes {
                        if matches!(node.kind, NodeKind::Directory { .. })
                            || wanted.fits(&join(path, &node.name)?, node)
                        {
                            let same = entries.entry(node.name.clone()).or_default();
                            hold(same, node, holders);
                        }
                    }
                }
                Page::Extents(_) | Page::ExtentIndex(_) => return Err(malformed()),
            }
        }
        if below.is_empty() {
            return Ok(entries);
        }
        level = below.into_iter().collect();
    }
    Err(malformed())
}
