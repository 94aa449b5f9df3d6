//! Bounded reading and plain writing of little-endian fields.

use crate::error::{FormatError, Result};

/// Reads fields front to back; every read is checked, nothing is indexed.
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(FormatError::Truncated { what: self.what })?;
        self.rest = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(FormatError::Truncated { what: self.what })?;
        self.rest = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// LEB128 in its shortest form; any other form is refused, so that one value has one encoding.
    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 || shift > 0 && byte == 0 {
                return Err(FormatError::Invalid { what: self.what });
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FormatError::Invalid { what: self.what })
    }

    /// A varint that must not pass `max`.
    pub fn count(&mut self, max: usize) -> Result<usize> {
        let value = usize::try_from(self.varint()?).map_err(|_| FormatError::Limit { what: self.what })?;
        if value > max { Err(FormatError::Limit { what: self.what }) } else { Ok(value) }
    }

    /// A varint of 32 bits.
    pub fn number32(&mut self) -> Result<u32> {
        u32::try_from(self.varint()?).map_err(|_| FormatError::Limit { what: self.what })
    }

    /// A byte string with its length in front, at most `max` bytes.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8]> {
        let len = self.count(max)?;
        self.take(len)
    }

    /// UTF-8 text with its length in front, at most `max` bytes.
    pub fn text(&mut self, max: usize) -> Result<String> {
        let bytes = self.bytes(max)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| FormatError::Invalid { what: self.what })
    }

    /// A flag byte: 0 or 1.
    pub fn flag(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.invalid()),
        }
    }

    #[must_use]
    pub fn invalid(&self) -> FormatError {
        FormatError::Invalid { what: self.what }
    }

    /// Everything must have been read.
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Trailing { what: self.what }) }
    }

    /// Magic and version in front of every object and key file.
    pub fn preamble(&mut self, magic: &[u8; 4], known: u16) -> Result<()> {
        let found: [u8; 4] = self.array()?;
        if &found != magic {
            return Err(FormatError::NotThis { what: self.what });
        }
        let version = self.u16()?;
        if version != known {
            return Err(FormatError::UnknownVersion { what: self.what, version, known });
        }
        Ok(())
    }
}

/// The most entries of one extension map, and the most bytes of one value.
pub const EXTENSIONS_MAX: usize = 64;
pub const EXTENSION_BYTES_MAX: usize = 1 << 20;

impl<'a> Reader<'a> {
    /// An extension map: room for what later releases add. Keys ascend; an even one may be ignored, an odd one must be
    /// understood, and this release understands none.
    pub fn extensions(&mut self) -> Result<()> {
        self.extension(None).map(drop)
    }

    /// The value of the one key of an extension map that the caller understands.
    pub fn extension(&mut self, understood: Option<u64>) -> Result<Option<&'a [u8]>> {
        let (mut before, mut found) = (None, None);
        for _ in 0..self.count(EXTENSIONS_MAX)? {
            let key = self.varint()?;
            let value = self.bytes(EXTENSION_BYTES_MAX)?;
            if before.is_some_and(|before| before >= key) {
                return Err(self.invalid());
            }
            if understood == Some(key) {
                found = Some(value);
            } else if key % 2 == 1 {
                return Err(FormatError::UnknownExtension { what: self.what, key });
            }
            before = Some(key);
        }
        Ok(found)
    }
}

/// Appends the extension map of this release, which is empty.
pub fn put_no_extensions(out: &mut Vec<u8>) {
    out.push(0);
}

/// Appends an extension map with one key.
pub fn put_extension(out: &mut Vec<u8>, key: u64, value: &[u8]) {
    out.push(1);
    put_varint(out, key);
    put_bytes(out, value);
}

/// Appends a canonical LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`put_varint`] appends.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Appends a byte string with its length in front.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends magic and version.
pub fn put_preamble(out: &mut Vec<u8>, magic: &[u8; 4], version: u16) {
    out.extend_from_slice(magic);
    out.extend_from_slice(&version.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_exactly_one_encoding() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_len(value));
            let mut reader = Reader::new(&bytes, "number");
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.end().is_ok());
        }
        assert!(Reader::new(&[0x80, 0x00], "number").varint().is_err());
        assert!(Reader::new(&[0xff; 10], "number").varint().is_err());
    }

    #[test]
    fn even_extensions_are_passed_over_and_odd_ones_are_named() {
        let read = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes, "thing");
            reader.extensions().and_then(|()| reader.end())
        };
        assert_eq!(read(&[0]), Ok(()));
        assert_eq!(read(&[2, 2, 1, 9, 4, 0]), Ok(()));
        let odd = FormatError::UnknownExtension { what: "thing", key: 3 };
        assert_eq!(read(&[2, 2, 1, 9, 3, 0]), Err(odd.clone()));
        assert!(odd.is_not_damage() && odd.to_string().contains("extension 3"));
        assert!(read(&[2, 4, 0, 2, 0]).is_err_and(|error| !error.is_not_damage()), "keys must ascend");
        assert!(read(&[2, 4, 0, 4, 0]).is_err());
        assert!(read(&[65]).is_err());
    }
}
