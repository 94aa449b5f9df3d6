//! Whether a source stood still while it was read.

use std::fmt;
use std::sync::Arc;

/// Whoever holds a source still while it is read. One that moved on may have taken files away unseen: all of what it held counts as
/// changed, and the snapshot is partial.
#[derive(Clone, Default)]
pub struct SourceLease {
    parts: Vec<String>,
    stands: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl SourceLease {
    /// Asks whether the lease on these parts stands.
    pub fn on(parts: Vec<String>, stands: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { parts, stands: Some(Arc::new(stands)) }
    }

    /// What may have changed unseen.
    pub(crate) fn lost(&self) -> &[String] {
        if self.stands.as_ref().is_none_or(|stands| stands()) { &[] } else { &self.parts }
    }
}

impl fmt::Debug for SourceLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceLease").field(&self.parts).finish()
    }
}
