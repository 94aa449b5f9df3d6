//! What a file of an attachment holds: its bytes under a key of its own.
//!
//! ```text
//! file      = MAGIC, segment 0, segment 1, ...
//! segment i = AES-256-GCM(key, nonce i, 64 KiB of the bytes or what is left), tag
//! nonce i   = i as 8 bytes big-endian, 1 for the last segment and 0 otherwise, three zero bytes
//! AAD       = MAGIC, how many bytes there are in all as 8 bytes big-endian
//! ```
//!
//! A key seals one file, so counted nonces never meet twice, and the same bytes under the same key give the same file. A
//! segment that is missing, moved, from another file or behind the last one does not open.

use crate::clock;
use crate::store::StoreError;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"HfAtt\0\0\x01";
const SEGMENT_BYTES: usize = 64 << 10;
const TAG_BYTES: usize = 16;

/// The key of one file. Never shown; wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct FileKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileKey")
    }
}

impl FileKey {
    pub fn new() -> Result<FileKey, StoreError> {
        Ok(FileKey(Zeroizing::new(clock::random().map_err(StoreError::io("randomness"))?)))
    }

    pub fn stored(bytes: [u8; 32]) -> FileKey {
        FileKey(Zeroizing::new(bytes))
    }

    /// For the row of the database, and nowhere else.
    pub fn to_stored(&self) -> &[u8; 32] {
        &self.0
    }

    fn cipher(&self) -> Result<LessSafeKey, StoreError> {
        let key = UnboundKey::new(&AES_256_GCM, &*self.0).map_err(|_| StoreError::Damaged("attachment key"))?;
        Ok(LessSafeKey::new(key))
    }
}

/// The size of the file that holds so many bytes.
pub fn file_bytes(bytes: u64) -> u64 {
    let segments = bytes.div_ceil(SEGMENT_BYTES as u64).max(1);
    bytes.saturating_add(MAGIC.len() as u64).saturating_add(segments.saturating_mul(TAG_BYTES as u64))
}

/// What the file holds.
pub fn seal(key: &FileKey, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    let cipher = key.cipher()?;
    let mut file = Vec::with_capacity(usize::try_from(file_bytes(bytes.len() as u64)).unwrap_or(0));
    file.extend_from_slice(MAGIC);
    let aad = aad(bytes.len() as u64);
    let count = bytes.len().div_ceil(SEGMENT_BYTES).max(1);
    for number in 0..count {
        let from = number * SEGMENT_BYTES;
        let segment = bytes.get(from..bytes.len().min(from + SEGMENT_BYTES)).unwrap_or_default();
        let mut sealed = segment.to_vec();
        let nonce = nonce(number, number + 1 == count);
        cipher
            .seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed)
            .map_err(|_| StoreError::Damaged("attachment key"))?;
        file.extend_from_slice(&sealed);
    }
    Ok(file)
}

/// The bytes that were sealed; `bytes`: how many the row says there are.
///
/// # Errors
/// [`StoreError::Damaged`] for anything but the very file that [`seal`] made.
pub fn open(key: &FileKey, bytes: u64, file: &[u8]) -> Result<Vec<u8>, StoreError> {
    let damaged = || StoreError::Damaged("attachment");
    if file.len() as u64 != file_bytes(bytes) {
        return Err(damaged());
    }
    let cipher = key.cipher()?;
    let sealed = file.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let aad = aad(bytes);
    let count = sealed.len().div_ceil(SEGMENT_BYTES + TAG_BYTES);
    let mut opened = Vec::with_capacity(sealed.len());
    for (number, segment) in sealed.chunks(SEGMENT_BYTES + TAG_BYTES).enumerate() {
        let mut segment = segment.to_vec();
        let nonce = nonce(number, number + 1 == count);
        let plain = cipher.open_in_place(nonce, Aad::from(aad), &mut segment).map_err(|_| damaged())?;
        opened.extend_from_slice(plain);
    }
    Ok(opened)
}

fn nonce(number: usize, last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    let (count, rest) = bytes.split_at_mut(8);
    count.copy_from_slice(&(number as u64).to_be_bytes());
    if let Some(flag) = rest.first_mut() {
        *flag = u8::from(last);
    }
    Nonce::assume_unique_for_key(bytes)
}

fn aad(bytes: u64) -> [u8; 16] {
    let mut aad = [0; 16];
    let (magic, total) = aad.split_at_mut(8);
    magic.copy_from_slice(MAGIC);
    total.copy_from_slice(&bytes.to_be_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> FileKey {
        FileKey::stored([byte; 32])
    }

    fn some(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
    }

    #[test]
    fn what_is_sealed_is_opened_and_tells_nothing() {
        for len in [1, 15, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES, 200_001] {
            let bytes = some(len);
            let file = seal(&key(1), &bytes).unwrap();
            assert_eq!(file.len() as u64, file_bytes(len as u64), "{len}");
            assert_eq!(open(&key(1), len as u64, &file).unwrap(), bytes, "{len}");
            assert!(len < 16 || !file.windows(16).any(|window| bytes.starts_with(window)), "{len}");
            assert_eq!(file, seal(&key(1), &bytes).unwrap(), "a snapshot finds it unchanged");
            assert!(open(&key(2), len as u64, &file).is_err(), "{len}");
        }
    }

    /// Written with another implementation (Python's `cryptography`), so that the layout stays what it is.
    #[test]
    fn the_layout_is_what_is_written_above() {
        let file = seal(&key(7), b"%PDF-1.4 vector").unwrap();
        assert_eq!(hex::encode(&file), VECTOR);
    }
    const VECTOR: &str = "48664174740000014d8190adfb54e34778924e2de321861dd6f39e0646205c8dfa3b8493a8408d";

    #[test]
    fn every_other_file_is_refused() {
        let len = 2 * SEGMENT_BYTES + 100;
        let (bytes, total) = (some(len), len as u64);
        let file = seal(&key(1), &bytes).unwrap();
        let piece = SEGMENT_BYTES + TAG_BYTES;
        let refused = |file: &[u8], total: u64| assert!(open(&key(1), total, file).is_err());
        // Each byte counts, also those of the head and of the tags.
        for at in (0..file.len()).step_by(997).chain([0, 7, 8, piece + 8, file.len() - 1]) {
            let mut changed = file.clone();
            changed[at] ^= 1;
            refused(&changed, total);
        }
        // Cut off at a segment's end, with the number of bytes that is left.
        refused(&file[..8 + piece], SEGMENT_BYTES as u64);
        refused(&file[..8 + 2 * piece], 2 * SEGMENT_BYTES as u64);
        // In another order, twice, and from another file of the same size.
        let mut swapped = file.clone();
        let (first, second) = swapped[8..].split_at_mut(piece);
        first.swap_with_slice(&mut second[..piece]);
        refused(&swapped, total);
        let mut twice = file.clone();
        twice.copy_within(8..8 + piece, 8 + piece);
        refused(&twice, total);
        refused(&[&file[..], &file[8..]].concat(), 2 * total);
        refused(b"", 0);
        refused(MAGIC, 0);
    }
}
