//! What a caller sees while an operation runs.

/// The phase that an operation is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading and sealing the sources.
    Read,
    /// Waiting for stores to take what is left.
    Send,
    /// Writing index, snapshot and heads.
    Commit,
    /// Reading from a store.
    Fetch,
}

/// Counts only: no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressEvent<'a> {
    pub phase: Phase,
    pub done_bytes: u64,
    pub total_bytes: Option<u64>,
    pub files: u64,
    /// The store concerned, if one.
    pub store: Option<&'a str>,
}

/// Receives progress; called from several threads, must not block.
pub trait Progress: Send + Sync {
    fn report(&self, event: ProgressEvent<'_>);
}

/// Drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn report(&self, _event: ProgressEvent<'_>) {}
}

impl<F: Fn(ProgressEvent<'_>) + Send + Sync> Progress for F {
    fn report(&self, event: ProgressEvent<'_>) {
        self(event);
    }
}
