//! Writing past the page cache: a pack is written once and read much later, if ever. Its copy in the cache would push out
//! what the machine's other programs work with, and making it costs more than sealing the pack.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What file systems ask of addresses, offsets and lengths at most.
const ALIGNMENT: usize = 4096;
/// One write. More at once gains nothing.
const PIECE_BYTES: usize = 1 << 20;
/// Shorter files go through the cache: the disk would be waited for twice.
const DIRECT_BYTES_MIN: usize = 256 << 10;
/// Pieces kept for the next writes: fresh memory costs as much as the copy.
const PIECES_KEPT: usize = 4;

/// Aligned memory to write from.
#[derive(Default)]
pub(super) struct Pieces(Mutex<Vec<Vec<u8>>>);

impl Pieces {
    /// Writes to an empty new file past the cache. `false`: not done, and the file is to be written from its beginning.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<bool> {
        if bytes.len() < DIRECT_BYTES_MIN || !bytes.len().is_multiple_of(ALIGNMENT) {
            return Ok(false);
        }
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        // A file system that knows no such thing says so here, or at the first write.
        let Ok(mut file) = OpenOptions::new().write(true).custom_flags(flags).open(path) else { return Ok(false) };
        let mut piece = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        piece.resize(PIECE_BYTES + ALIGNMENT, 0);
        let written = write_pieces(&mut file, &mut piece, bytes);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < PIECES_KEPT {
            kept.push(piece);
        }
        match written {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => file.set_len(0).map(|()| false),
            written => written.map(|()| true),
        }
    }
}

fn write_pieces(file: &mut File, piece: &mut [u8], bytes: &[u8]) -> io::Result<()> {
    let start = piece.as_ptr().align_offset(ALIGNMENT);
    for part in bytes.chunks(PIECE_BYTES) {
        let aligned = piece.get_mut(start..start.saturating_add(part.len())).ok_or(io::ErrorKind::InvalidInput)?;
        aligned.copy_from_slice(part);
        file.write_all(aligned)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_past_the_cache_is_what_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let pieces = Pieces::default();
        let bytes: Vec<u8> =
            (0..(3 << 20) + ALIGNMENT as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for len in [bytes.len(), DIRECT_BYTES_MIN, 1 << 20] {
            let path = dir.path().join(len.to_string());
            File::create_new(&path).unwrap();
            if pieces.write(&path, &bytes[..len]).unwrap() {
                assert_eq!(std::fs::read(&path).unwrap(), &bytes[..len]);
            } else {
                assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "left to the other way");
            }
        }
        for len in [0, ALIGNMENT, bytes.len() - 1] {
            let path = dir.path().join("other");
            File::create(&path).unwrap();
            assert!(!pieces.write(&path, &bytes[..len]).unwrap(), "too short, or of an odd length");
        }
    }
}
