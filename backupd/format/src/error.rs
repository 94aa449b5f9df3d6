//! Why bytes were refused.

/// Why a byte string is not what it should be. No variant carries record content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("{what} ends too early")]
    Truncated { what: &'static str },
    #[error("{what} is followed by bytes that do not belong to it")]
    Trailing { what: &'static str },
    #[error("this is not a {what}")]
    NotThis { what: &'static str },
    /// The bytes may be whole: another release wrote them. Never to be called damage.
    #[error("{what} has version {version}, and this release reads version {known}: use the release that wrote it")]
    UnknownVersion { what: &'static str, version: u16, known: u16 },
    #[error("{what} is larger than the format allows")]
    Limit { what: &'static str },
    #[error("{what} is malformed")]
    Invalid { what: &'static str },
    /// The key does not fit, or the bytes were changed.
    #[error("{what} does not open with this key")]
    Sealed { what: &'static str },
    #[error("{what} belongs to another repository")]
    OtherRepository { what: &'static str },
    #[error("the signature of {what} is not valid")]
    Signature { what: &'static str },
    #[error("{what} does not decompress")]
    Compression { what: &'static str },
    #[error("the key derivation refused its parameters")]
    Derivation,
}

/// The result of parsing or opening.
pub type Result<T> = std::result::Result<T, FormatError>;
