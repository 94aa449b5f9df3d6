//! Identifiers. All are opaque: none is derived from a name or content without a key.

use crate::error::{FormatError, Result};
use std::fmt;
use std::str::FromStr;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Length of the id, bytes.
            pub const BYTES: usize = $bytes;

            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = FormatError;

            fn from_str(text: &str) -> Result<Self> {
                let mut bytes = [0u8; $bytes];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| FormatError::Invalid { what: $what })?;
                Ok(Self(bytes))
            }
        }
    };
}

id!(
    /// One repository, random, made by `init`.
    RepositoryId, 16, "repository id"
);
id!(
    /// Keyed BLAKE3 of a chunk's content.
    ChunkId, 32, "chunk id"
);
id!(
    /// BLAKE3 of an object's sealed bytes; the object's name ends with it.
    ObjectHash, 32, "object name"
);
id!(
    /// A snapshot: the hash of its manifest object.
    SnapshotId, 32, "snapshot id"
);
id!(
    /// Keyed BLAKE3 of a source's name: what object names show instead of it.
    SourceId, 16, "source id"
);
id!(
    /// A slot of the keyring, random.
    SlotId, 8, "slot id"
);
id!(
    /// One life of a writer's local state, random.
    IncarnationId, 16, "incarnation id"
);

impl ObjectHash {
    /// The hash of an object's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}
