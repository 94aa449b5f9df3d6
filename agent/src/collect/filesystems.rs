//! How full the filesystems are, and when they will be full.

use crate::settings;
use agent_api::{Filesystem, FilesystemRole};
use std::collections::VecDeque;
use std::path::Path;

/// The forecast follows the rate of the last hour.
const HISTORY_S: i64 = 3600;
/// A shorter past than this says nothing about a rate.
const HISTORY_S_MIN: i64 = 120;
/// No more samples than one every five seconds.
const SAMPLES_MAX: usize = 720;

/// Free bytes over the past hour, for each filesystem.
#[derive(Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
}

struct Sample {
    at_unix_s: i64,
    role: FilesystemRole,
    bytes_available: u64,
}

/// How much a filesystem holds and has left.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) bytes_total: u64,
    pub(super) bytes_available: u64,
    pub(super) inodes_total: u64,
    pub(super) inodes_available: u64,
}

/// Asks the kernel; `None` where the folder cannot be looked at.
pub(super) fn room(path: &Path) -> Option<Room> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(Room {
        bytes_total: stat.f_blocks.saturating_mul(stat.f_frsize),
        bytes_available: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes_total: stat.f_files,
        inodes_available: stat.f_favail,
    })
}

pub(super) fn filesystems(
    (root, room): (&Path, fn(&Path) -> Option<Room>),
    settings: &settings::Filesystems,
    history: &mut History,
    now_unix_s: i64,
) -> Vec<Filesystem> {
    let roles = [
        (FilesystemRole::Root, Some(root)),
        (FilesystemRole::Records, settings.records.as_deref()),
        (FilesystemRole::Backup, settings.backup.as_deref()),
    ];
    let mut found = Vec::new();
    for (role, path) in roles {
        // A folder that cannot be looked at is left out here; `verdict` knows that it should be there.
        let Some(room) = path.and_then(room) else { continue };
        found.push(Filesystem {
            role,
            bytes_total: room.bytes_total,
            bytes_available: room.bytes_available,
            inodes_total: room.inodes_total,
            inodes_available: room.inodes_available,
            full_in_s: history.add(role, room.bytes_available, now_unix_s),
        });
    }
    found
}

impl History {
    /// Remembers a sample and gives the seconds until nothing is free, at the rate since the oldest sample kept.
    fn add(&mut self, role: FilesystemRole, bytes_available: u64, now_unix_s: i64) -> Option<u64> {
        self.samples.retain(|s| (0..=HISTORY_S).contains(&now_unix_s.saturating_sub(s.at_unix_s)));
        while self.samples.len() >= SAMPLES_MAX * 3 {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at_unix_s: now_unix_s, role, bytes_available });
        let oldest = self.samples.iter().find(|s| s.role == role)?;
        let elapsed_s = now_unix_s.saturating_sub(oldest.at_unix_s);
        let filled = oldest.bytes_available.checked_sub(bytes_available).filter(|filled| *filled > 0)?;
        if elapsed_s < HISTORY_S_MIN {
            return None;
        }
        let in_s = u128::from(bytes_available) * u128::try_from(elapsed_s).ok()? / u128::from(filled);
        u64::try_from(in_s).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foresees_a_disk_that_fills() {
        let mut history = History::default();
        let role = FilesystemRole::Records;
        assert_eq!(history.add(role, 10_000, 0), None, "one sample is no rate");
        assert_eq!(history.add(role, 9_000, 600), Some(5_400));
        assert_eq!(history.add(FilesystemRole::Root, 5_000, 600), None, "another filesystem has its own past");
        assert_eq!(history.add(role, 10_000, 1_200), None, "it no longer fills");
        assert_eq!(history.add(role, 9_999, 50_000), None, "the past is forgotten after an hour");
    }
}
