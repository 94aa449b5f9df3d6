//! Why bytes were refused.

use std::fmt;

/// Why a byte string is not what it should be. No variant carries record content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("{what} ends too early")]
    Truncated { what: &'static str },
    #[error("{what} is followed by bytes that do not belong to it")]
    Trailing { what: &'static str },
    #[error("this is no {what}")]
    NotThis { what: &'static str },
    /// The bytes may be whole: another release wrote them. Never to be called damage.
    #[error("{what} has version {}, and this release reads version {}: use the release that wrote it", Dotted(*version), Dotted(*known))]
    UnknownVersion { what: &'static str, version: u16, known: u16 },
    /// The repository uses something that this release does not know. Never to be called damage.
    #[error(
        "the repository uses {purpose} feature {flag}, which this release does not know: nothing is damaged, use a newer release"
    )]
    UnknownFeature { purpose: &'static str, flag: u32 },
    #[error(
        "{what} carries extension {key}, which this release does not know: nothing is damaged, use a newer release"
    )]
    UnknownExtension { what: &'static str, key: u64 },
    /// A kind that later releases will use. Never to be called damage.
    #[error("{what} is of kind {kind}, which this release does not know: nothing is damaged, use a newer release")]
    UnknownKind { what: &'static str, kind: u8 },
    /// The key is older than the object.
    #[error(
        "{what} is sealed to epoch {epoch}, which this key does not hold: use the key file that `backupd keys rotate` wrote, or unlock the keyring"
    )]
    UnknownEpoch { what: &'static str, epoch: u32 },
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

impl FormatError {
    /// Whether the bytes may be whole, and it is this release or this key that cannot read them.
    #[must_use]
    pub fn is_not_damage(&self) -> bool {
        matches!(
            self,
            Self::UnknownVersion { .. }
                | Self::UnknownFeature { .. }
                | Self::UnknownExtension { .. }
                | Self::UnknownKind { .. }
                | Self::UnknownEpoch { .. }
                | Self::OtherRepository { .. }
        )
    }
}

/// A version as people write it: the high byte is the format's version, the low byte is 0 since the first release.
struct Dotted(u16);

impl fmt::Display for Dotted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [minor, major] = self.0.to_le_bytes();
        write!(f, "{major}.{minor}")?;
        if major == 0 { f.write_str(" (never released)") } else { Ok(()) }
    }
}

/// The result of parsing or opening.
pub type Result<T> = std::result::Result<T, FormatError>;
