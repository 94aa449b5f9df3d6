//! The one error of the engine: its kind says what the caller does next.

use backup_format::FormatError;
use std::fmt;

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Try again later; nothing is wrong with the stored bytes.
    Retry,
    /// Another writer has taken over, or something else excludes this.
    Fenced,
    /// Stored bytes are wrong or gone. The message names objects, never files.
    Damaged,
    /// A setting, key, version or argument is wrong; the message says which.
    Misconfigured,
    /// The credentials do not allow it.
    Denied,
    NotFound,
    NoSpace,
    /// The store does not answer.
    Unreachable,
    /// The store answers, and asks for fewer requests.
    Busy,
    /// The caller wished it to end early.
    Stopped,
}

/// An error without record content: no path, no file name, no tag.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of the engine's operations.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Keeps the cause for `source()`; its text is not part of the message.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Why bytes were refused, when that was the cause.
    #[must_use]
    pub(crate) fn source_format(&self) -> Option<&FormatError> {
        self.source.as_ref()?.downcast_ref()
    }

    /// Puts words in front of the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Local input or output. `doing` must not name a record's file.
    #[must_use]
    pub fn io(doing: &str, error: &std::io::Error) -> Self {
        Self::new(io_kind(error), format!("{doing}: {error}"))
    }

    /// The same error again, for a second place that must report it.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::new(self.kind, self.message.clone())
    }
}

/// The kind of an operating system error.
#[must_use]
pub fn io_kind(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::NoSpace,
        Io::InvalidInput | Io::NotADirectory | Io::IsADirectory | Io::AlreadyExists => ErrorKind::Misconfigured,
        _ => ErrorKind::Retry,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        let kind = match error {
            FormatError::NotThis { .. } | FormatError::Derivation => ErrorKind::Misconfigured,
            _ if error.is_not_damage() => ErrorKind::Misconfigured,
            _ => ErrorKind::Damaged,
        };
        Self::new(kind, error.to_string()).because(error)
    }
}
