//! Backups, drills and deletion plans that people start from the console. They go on when the browser is closed.

use backupd_api::{ClientError, DrillDone, DrillVerdict, Event, Progress, SnapshotDone};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

const KEPT_MAX: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    Backup,
    Drill,
    /// A deletion plan, which changes nothing.
    Plan,
}

#[derive(Debug, Clone)]
pub struct Job {
    pub id: u64,
    pub kind: JobKind,
    pub started_by: String,
    pub started_ms: i64,
    /// The store asked for; `None`: the one whose turn it is.
    pub store: Option<String>,
    pub state: JobState,
}

#[derive(Debug, Clone)]
pub enum JobState {
    Running(Option<Progress>),
    Backup(i64, Box<SnapshotDone>),
    Drill(i64, Box<DrillDone>),
    /// When it ended, and how many snapshots would go.
    Planned(i64, u64),
    Failed(i64, String),
}

impl Job {
    pub fn running(&self) -> bool {
        matches!(self.state, JobState::Running(_))
    }

    pub fn ended_ms(&self) -> Option<i64> {
        match self.state {
            JobState::Running(_) => None,
            JobState::Backup(at, _) | JobState::Drill(at, _) | JobState::Planned(at, _) | JobState::Failed(at, _) => {
                Some(at)
            }
        }
    }
}

#[derive(Default)]
pub struct Jobs(Mutex<(u64, VecDeque<Job>)>);

impl Jobs {
    /// Registers a new job; `None` while one of its kind is running.
    pub fn start(&self, kind: JobKind, started_by: &str, started_ms: i64, store: Option<String>) -> Option<u64> {
        self.with(|(last, jobs)| {
            if jobs.iter().any(|job| job.kind == kind && job.running()) {
                return None;
            }
            *last += 1;
            let state = JobState::Running(None);
            jobs.push_front(Job { id: *last, kind, started_by: started_by.to_owned(), started_ms, store, state });
            jobs.truncate(KEPT_MAX);
            Some(*last)
        })
    }

    pub fn progress(&self, id: u64, progress: Progress) {
        self.set(id, JobState::Running(Some(progress)));
    }

    pub fn end(&self, id: u64, now_ms: i64, result: Result<Event, ClientError>) {
        let state = match result {
            Ok(Event::SnapshotDone(done)) => JobState::Backup(now_ms, Box::new(done)),
            Ok(Event::DrillDone(done)) => JobState::Drill(now_ms, Box::new(done)),
            Ok(Event::Prune(status)) => {
                let rows = status.plan.iter().flat_map(|plan| &plan.rows);
                JobState::Planned(now_ms, rows.filter(|row| row.goes).count() as u64)
            }
            Ok(_) => JobState::Failed(now_ms, ClientError::Malformed.to_string()),
            Err(error) => JobState::Failed(now_ms, error.to_string()),
        };
        self.set(id, state);
    }

    /// Newest first.
    pub fn list(&self) -> Vec<Job> {
        self.with(|(_, jobs)| jobs.iter().cloned().collect())
    }

    fn set(&self, id: u64, state: JobState) {
        self.with(|(_, jobs)| {
            if let Some(job) = jobs.iter_mut().find(|job| job.id == id) {
                job.state = state;
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut (u64, VecDeque<Job>)) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How it ended, for the record of actions.
pub fn ending(result: &Result<Event, ClientError>) -> &'static str {
    match result {
        Ok(Event::SnapshotDone(_) | Event::Prune(_)) => "done",
        Ok(Event::DrillDone(done)) => match done.verdict {
            DrillVerdict::Pass => "pass",
            DrillVerdict::Fail => "fail",
            DrillVerdict::Inconclusive => "inconclusive",
        },
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_backup_and_one_drill_at_a_time() {
        let jobs = Jobs::default();
        let backup = jobs.start(JobKind::Backup, "anna", 0, None).unwrap();
        assert!(jobs.start(JobKind::Backup, "bert", 1, None).is_none());
        assert!(jobs.start(JobKind::Drill, "bert", 1, None).is_some());
        jobs.end(backup, 2, Err(ClientError::Closed));
        assert!(jobs.start(JobKind::Backup, "bert", 3, None).is_some());
        assert_eq!(jobs.list().len(), 3);
    }
}
