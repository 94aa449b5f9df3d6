//! How full the filesystems are, and when they will be full.

use crate::settings;
use agent_api::{Filesystem, FilesystemRole};
use std::collections::VecDeque;
use std::path::Path;

/// The forecast follows the rate of the last hour.
const HISTORY_S: i64 = 3600;
/// Pasts that are looked at, each by itself.
const WINDOWS_S: [i64; 3] = [150, 900, HISTORY_S];
/// A shorter past than this says nothing about a rate.
const HISTORY_S_MIN: i64 = 120;
/// From here on the past is long enough for any forecast.
const HISTORY_S_SURE: i64 = 900;
/// In a shorter one, only a disk that is full before so many times that past.
const NEAR: i64 = 4;
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
    /// Remembers a sample and gives the seconds until nothing is free: of the windows that end now the soonest forecast, so that
    /// a disk that begins to fill after a quiet hour is foreseen as one that fills slowly is.
    fn add(&mut self, role: FilesystemRole, bytes_available: u64, now_unix_s: i64) -> Option<u64> {
        self.samples.retain(|s| (0..=HISTORY_S).contains(&now_unix_s.saturating_sub(s.at_unix_s)));
        while self.samples.len() >= SAMPLES_MAX * 3 {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at_unix_s: now_unix_s, role, bytes_available });
        let mine: Vec<&Sample> = self.samples.iter().filter(|s| s.role == role).collect();
        WINDOWS_S.iter().filter_map(|window_s| forecast(&mine, now_unix_s, *window_s)).min()
    }
}

/// The seconds until nothing is free by the samples of one window, at the slowest rate of its thirds: a burst that is over, as
/// an update or a build leaves, fills one or two of them.
fn forecast(samples: &[&Sample], now_unix_s: i64, window_s: i64) -> Option<u64> {
    let from = samples.iter().position(|s| now_unix_s.saturating_sub(s.at_unix_s) <= window_s)?;
    let (window, now) = (samples.get(from..)?, samples.last()?);
    let oldest = window.first()?;
    let elapsed_s = now_unix_s.saturating_sub(oldest.at_unix_s);
    let after = |part_s: i64| window.iter().find(|s| s.at_unix_s.saturating_sub(oldest.at_unix_s) >= part_s);
    let cuts = [oldest, after(elapsed_s / 3)?, after(elapsed_s * 2 / 3)?, now];
    let thirds = cuts.windows(2).filter(|ends| ends[0].at_unix_s < ends[1].at_unix_s);
    let each: Option<Vec<u64>> = thirds.map(|ends| ends[0].full_in_s(ends[1], now.bytes_available)).collect();
    let in_s = each?.into_iter().max()?;
    // A short past says something of the near future alone.
    let near = u64::try_from(elapsed_s.saturating_mul(NEAR)).is_ok_and(|near| in_s <= near);
    (elapsed_s >= HISTORY_S_MIN && (elapsed_s >= HISTORY_S_SURE || near)).then_some(in_s)
}

impl Sample {
    /// How long `bytes_available` last at the rate between this sample and a later one; `None` when nothing was filled.
    fn full_in_s(&self, later: &Self, bytes_available: u64) -> Option<u64> {
        let filled = self.bytes_available.checked_sub(later.bytes_available).filter(|filled| *filled > 0)?;
        let elapsed_s = u128::try_from(later.at_unix_s.saturating_sub(self.at_unix_s)).ok()?;
        u64::try_from(u128::from(bytes_available) * elapsed_s / u128::from(filled)).ok()
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
        assert_eq!(history.add(role, 9_000, 900), Some(8_100));
        assert_eq!(history.add(FilesystemRole::Root, 5_000, 900), None, "another filesystem has its own past");
        assert_eq!(history.add(role, 10_000, 1_200), None, "it no longer fills");
        assert_eq!(history.add(role, 9_999, 50_000), None, "the past is forgotten after an hour");
    }

    #[test]
    fn a_burst_that_is_over_is_no_disk_that_fills() {
        let (mut history, role) = (History::default(), FilesystemRole::Root);
        let mut all = |from: i64, bytes: &dyn Fn(i64) -> u64| -> Vec<Option<u64>> {
            (0..40).map(|n| history.add(role, bytes(n), from + n * 30)).collect()
        };
        // Two gigabytes of forty within a minute, and nothing more.
        let burst = all(0, &|n| if n < 5 { 40_000 } else { 40_000 - 1_000 * (n.min(6) - 4) as u64 });
        assert!(burst.iter().all(Option::is_none), "{burst:?}");
        // One that goes on is foreseen, once the past is long enough.
        let steady = all(100_000, &|n| 40_000 - 100 * n as u64);
        assert!(steady[..30].iter().all(Option::is_none) && steady[30..].iter().all(Option::is_some), "{steady:?}");
        // Where the end is near nobody waits for that, nor for the end of a quiet hour.
        let near = all(200_000, &|n| 40_000 - 1_000 * n as u64);
        assert_eq!((near[3], near[8]), (None, Some(960)));
        let quiet_first = all(300_000, &|n| 40_000 - 2_000 * (n - 20).max(0) as u64);
        assert!(
            quiet_first[..24].iter().all(Option::is_none) && quiet_first[30].is_some_and(|s| s <= 300),
            "{quiet_first:?}"
        );
    }
}
