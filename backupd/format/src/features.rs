//! Feature flags: three bitmaps in the clear header of the keyring. An unknown flag is named; it is never damage.

use crate::error::{FormatError, Result};

/// What a program is about to do with the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Restore, list, compare.
    Read,
    /// Add packs, index objects, snapshots, heads.
    Write,
    /// Say that everything is there and whole.
    Check,
}

/// The flags of a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// What a reader must know.
    pub read: u64,
    /// What a writer must know.
    pub write: u64,
    /// What a check must know; a reader or writer that does not may go on.
    pub check: u64,
}

/// The flags that this release knows: none has been needed yet.
const KNOWN: Features = Features { read: 0, write: 0, check: 0 };

impl Features {
    /// Refuses with the lowest unknown flag's number. Who writes or checks must also be able to read.
    pub fn require(&self, purpose: Purpose) -> Result<()> {
        refuse_unknown("read", self.read, KNOWN.read)?;
        match purpose {
            Purpose::Read => Ok(()),
            Purpose::Write => refuse_unknown("write", self.write, KNOWN.write),
            Purpose::Check => refuse_unknown("check", self.check, KNOWN.check),
        }
    }
}

fn refuse_unknown(purpose: &'static str, flags: u64, known: u64) -> Result<()> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(FormatError::UnknownFeature { purpose, flag: unknown.trailing_zeros() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_flag_stops_only_whom_it_concerns_and_says_its_number() {
        let says = |features: Features, purpose| features.require(purpose).err().map(|error| error.to_string());
        for purpose in [Purpose::Read, Purpose::Write, Purpose::Check] {
            assert_eq!(says(Features::default(), purpose), None);
            let text = says(Features { read: 1 << 9 | 1 << 40, ..Features::default() }, purpose).unwrap();
            assert!(text.contains("read feature 9") && text.contains("newer release"), "{text}");
        }
        let write = Features { write: 1 << 63, ..Features::default() };
        assert_eq!((says(write, Purpose::Read), says(write, Purpose::Check)), (None, None));
        assert!(says(write, Purpose::Write).unwrap().contains("write feature 63"));
        let check = Features { check: 1, ..Features::default() };
        assert_eq!((says(check, Purpose::Read), says(check, Purpose::Write)), (None, None));
        assert!(says(check, Purpose::Check).unwrap().contains("check feature 0"));
    }
}
