//! The engine's entries, differences and finds as the messages tell them. Names of records: for a holder of the read key.

use anyhow::Context;
use backup_engine::{
    Change, DiffSummary, Difference, EntryKind, Found, Node, NodeKind, Owners, Tree, UnreadableCounts,
    UnreadableReason, kind_and_size,
};
use backupd_api::{DiffDone, DiffRow, FindWanted, FoundRow, LsRow, Name, Unreadable, UnreadableRow};
use std::path::Path;
use std::sync::Arc;

/// A path as a shell takes it for one word, for commands that a person pastes.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

pub fn kind_word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharDevice => "char-device",
        EntryKind::BlockDevice => "block-device",
    }
}

fn kind_of_word(word: &str) -> Option<EntryKind> {
    use EntryKind::{BlockDevice, CharDevice, Directory, Fifo, File, Socket, Symlink};
    [File, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice].into_iter().find(|kind| kind_word(*kind) == word)
}

pub fn ls_row(path: &[u8], node: &Node, owners: &Owners) -> LsRow {
    let (kind, bytes) = kind_and_size(node);
    let target = if let NodeKind::Symlink { target } = &node.kind { Some(Name::of(target)) } else { None };
    LsRow {
        name: Name::of(path),
        kind: kind_word(kind).to_owned(),
        bytes,
        modified_unix_ms: node.mtime_s.saturating_mul(1000).saturating_add(i64::from(node.mtime_ns) / 1_000_000),
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        user: owners.users.get(&node.uid).map(|name| Name::of(name)),
        group: owners.groups.get(&node.gid).map(|name| Name::of(name)),
        target,
    }
}

fn reason_word(reason: UnreadableReason) -> &'static str {
    match reason {
        UnreadableReason::Denied => "denied",
        UnreadableReason::Vanished => "vanished",
        UnreadableReason::Changed => "changed",
        UnreadableReason::Io => "input-output",
    }
}

pub fn unreadable_counts(counts: &UnreadableCounts) -> Unreadable {
    let UnreadableCounts { denied, vanished, changed, input_output } = *counts;
    Unreadable { denied, vanished, changed, input_output }
}

pub fn unreadable_row(path: &[u8], reason: UnreadableReason) -> UnreadableRow {
    UnreadableRow { name: Name::of(path), reason: reason_word(reason).to_owned() }
}

pub fn diff_row(difference: &Difference<'_>) -> DiffRow {
    let size = |node: Option<&Node>| {
        node.and_then(|node| if let NodeKind::File { size, .. } = node.kind { Some(size) } else { None })
    };
    let kind = difference.after.or(difference.before).map(|node| kind_word(kind_and_size(node).0)).unwrap_or_default();
    DiffRow {
        name: Name::of(difference.path),
        mark: mark(difference.change),
        kind: kind.to_owned(),
        bytes_before: size(difference.before),
        bytes_after: size(difference.after),
        bytes_new: difference.new_bytes,
    }
}

fn mark(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Modified => 'M',
        Change::Type => 'T',
        Change::Attributes => 'P',
        Change::Time => 't',
    }
}

pub fn diff_done(summary: &DiffSummary) -> DiffDone {
    DiffDone {
        added: summary.added,
        removed: summary.removed,
        modified: summary.modified,
        retyped: summary.retyped,
        attributes: summary.attributes,
        times: summary.times,
        bytes_added: summary.bytes_added,
        bytes_removed: summary.bytes_removed,
        bytes_modified: summary.bytes_modified,
    }
}

/// A found entry; `trees` are those that were searched.
pub fn found_row(found: &Found<'_>, trees: &[Tree]) -> FoundRow {
    let holders = found.trees.iter().filter_map(|at| trees.get(*at));
    let owners = holders.clone().next().map(|tree| Arc::clone(&tree.owners)).unwrap_or_default();
    let snapshots = holders.map(|tree| tree.id.to_string()).collect();
    FoundRow { entry: ls_row(found.path, found.node, &owners), snapshots }
}

/// The engine's form of what to find.
pub fn wanted(wanted: &FindWanted) -> anyhow::Result<backup_engine::Wanted> {
    let name = wanted.name.as_ref().map(|name| backup_engine::Glob::parse(name.as_bytes(), wanted.ignore_case));
    let kinds: Option<Vec<EntryKind>> = wanted.kinds.iter().map(|word| kind_of_word(word)).collect();
    let ns = |ms: Option<i64>| ms.map(|ms| i128::from(ms) * 1_000_000);
    Ok(backup_engine::Wanted {
        name: name.transpose()?,
        kinds: kinds.context("a kind of entry is not known")?,
        size_min: wanted.bytes_min,
        size_max: wanted.bytes_max,
        since_unix_ns: ns(wanted.since_unix_ms),
        until_unix_ns: ns(wanted.until_unix_ms),
    })
}
