//! Listing a tree, entry by entry, in the order of paths.

use crate::error::{Error, ErrorKind, Result};
use crate::read::EntryKind;
use crate::view::{Leaves, Tree, View, malformed};
use backup_format::ChunkId;
use backup_format::tree::{Node, NodeKind, Page};

/// Longer paths are not followed: a tree that contains itself would never end.
pub(crate) const PATH_BYTES_MAX: usize = 1 << 18;

/// What is called for every entry, with its path.
pub type Visit<'v> = dyn FnMut(&[u8], &Node) -> Result<()> + Send + 'v;

/// A directory that is being listed.
struct Open {
    path: Vec<u8>,
    leaves: Leaves,
    leaf: usize,
    entry: usize,
}

/// Visits what is at `path` (empty: the root, which itself is not visited) and at most `depth` levels below it.
pub async fn list(view: &View<'_>, tree: &Tree, path: &[u8], depth: usize, visit: &mut Visit<'_>) -> Result<()> {
    let node = view.look_up(tree, path).await?.ok_or_else(not_there)?;
    if !path.is_empty() {
        visit(path, &node)?;
    }
    let mut stack = Vec::new();
    if let NodeKind::Directory { root } = node.kind
        && depth > 0
    {
        stack.push(open(view, path.to_vec(), root).await?);
    }
    while let Some(directory) = stack.last_mut() {
        let page = view.leaf(&directory.leaves, directory.leaf).await?;
        let Some(Page::Directory(nodes)) = page.as_deref() else {
            stack.pop();
            continue;
        };
        let Some(node) = nodes.get(directory.entry) else {
            directory.leaf += 1;
            directory.entry = 0;
            continue;
        };
        directory.entry += 1;
        let path = join(&directory.path, &node.name)?;
        visit(&path, node)?;
        if let NodeKind::Directory { root } = node.kind
            && stack.len() < depth
        {
            stack.push(open(view, path, root).await?);
        }
    }
    Ok(())
}

async fn open(view: &View<'_>, path: Vec<u8>, root: ChunkId) -> Result<Open> {
    Ok(Open { path, leaves: view.leaves(root).await?, leaf: 0, entry: 0 })
}

pub(crate) fn not_there() -> Error {
    Error::new(ErrorKind::NotFound, "this path is not in the snapshot: `backupd ls` shows what is")
}

/// What an entry is, and how long.
#[must_use]
pub fn kind_and_size(node: &Node) -> (EntryKind, u64) {
    match &node.kind {
        NodeKind::File { size, .. } => (EntryKind::File, *size),
        NodeKind::Directory { .. } => (EntryKind::Directory, 0),
        NodeKind::Symlink { target } => (EntryKind::Symlink, target.len() as u64),
        NodeKind::Fifo => (EntryKind::Fifo, 0),
        NodeKind::Socket => (EntryKind::Socket, 0),
        NodeKind::CharDevice { .. } => (EntryKind::CharDevice, 0),
        NodeKind::BlockDevice { .. } => (EntryKind::BlockDevice, 0),
    }
}

/// A path and a name in it.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Result<Vec<u8>> {
    if path.len() > PATH_BYTES_MAX {
        return Err(malformed());
    }
    Ok(if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() })
}
