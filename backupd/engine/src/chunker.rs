//! Cutting files into chunks.

use crate::source::SourceFile;
use backup_format::tree::Extent;
use fastcdc::v2020::{FastCDC, Normalization};
use std::io;

/// Sizes of content-defined chunks, bytes.
const CHUNK_BYTES_MIN: usize = 64 << 10;
const CHUNK_BYTES_AVERAGE: usize = 128 << 10;
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Read at once, bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// Bounds of the page size, bytes.
pub(crate) const PAGE_BYTES_MIN: u32 = 512;
pub(crate) const PAGE_BYTES_MAX: u32 = 1 << 20;

/// How to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Content,
    /// At multiples of so many bytes from the file's start.
    Fixed(usize),
}

/// Reads files with one reused buffer.
pub(crate) struct Chunker {
    buffer: Vec<u8>,
}

impl Chunker {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES] }
    }

    /// Cuts a whole file; `take` gets each piece of data in order and returns its extent. Errors of the file are the
    /// inner result; an error of `take` ends everything.
    pub(crate) fn cut_file<E>(
        &mut self,
        file: &dyn SourceFile,
        sparse: bool,
        cut: Cut,
        take: &mut dyn FnMut(&[u8]) -> Result<Extent, E>,
    ) -> Result<io::Result<Vec<Extent>>, E> {
        let mut extents = Vec::new();
        if !sparse {
            return Ok(self.cut_range(file, 0..u64::MAX, cut, &mut extents, take)?.map(|_| extents));
        }
        let (mut at, size) = match file.stat() {
            Ok(stat) => (0, stat.size),
            Err(error) => return Ok(Err(error)),
        };
        while at < size {
            let (start, end) = match file.next_data(at) {
                Ok(Some(range)) => range,
                Ok(None) => (size, size),
                Err(error) => return Ok(Err(error)),
            };
            // Pages stay aligned: a hole begins and ends at a page.
            let align = |offset: u64| match cut {
                Cut::Fixed(page) => offset - offset % page as u64,
                Cut::Content => offset,
            };
            let start = align(start.min(size)).max(at);
            if start > at {
                extents.push(Extent::Hole { len: start - at });
            }
            let end = match cut {
                Cut::Fixed(page) => end.min(size).next_multiple_of(page as u64).min(size),
                Cut::Content => end.min(size),
            };
            if end <= start {
                break;
            }
            match self.cut_range(file, start..end, cut, &mut extents, take)? {
                // Shorter than it was: what follows is gone.
                Ok(reached) if reached < end => return Ok(Ok(extents)),
                Ok(reached) => at = reached,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(extents))
    }

    /// Cuts one range with data; returns where it ended.
    fn cut_range<E>(
        &mut self,
        file: &dyn SourceFile,
        range: std::ops::Range<u64>,
        cut: Cut,
        extents: &mut Vec<Extent>,
        take: &mut dyn FnMut(&[u8]) -> Result<Extent, E>,
    ) -> Result<io::Result<u64>, E> {
        let (mut filled, mut at) = (0usize, range.start);
        let mut ended = false;
        loop {
            while !ended && filled < self.buffer.len() {
                let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
                let Some(free) = self.buffer.get_mut(filled..) else { break };
                let want = free.len().min(left);
                match file.read_at(free.get_mut(..want).unwrap_or_default(), at) {
                    Ok(0) => ended = true,
                    Ok(n) => (filled, at) = (filled + n, at + n as u64),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Ok(Err(error)),
                }
            }
            let full = self.buffer.get(..filled).unwrap_or_default();
            let used = cut_buffer(full, ended, cut, extents, take)?;
            self.buffer.copy_within(used..filled, 0);
            filled -= used;
            if ended && filled == 0 {
                return Ok(Ok(at));
            }
        }
    }
}

/// Cuts as much of `bytes` as may be cut before more is read; returns the bytes used.
fn cut_buffer<E>(
    bytes: &[u8],
    ended: bool,
    cut: Cut,
    extents: &mut Vec<Extent>,
    take: &mut dyn FnMut(&[u8]) -> Result<Extent, E>,
) -> Result<usize, E> {
    let mut used = 0;
    let need = match cut {
        Cut::Content => CHUNK_BYTES_MAX,
        Cut::Fixed(page) => page,
    };
    let cdc = FastCDC::with_level(bytes, CHUNK_BYTES_MIN, CHUNK_BYTES_AVERAGE, CHUNK_BYTES_MAX, Normalization::Level2);
    while let Some(rest) = bytes.get(used..) {
        if rest.is_empty() || (!ended && rest.len() < need) {
            break;
        }
        let end = match cut {
            Cut::Content => cdc.cut(used, rest.len()).1,
            Cut::Fixed(page) => used + rest.len().min(page),
        };
        let Some(piece) = bytes.get(used..end) else { break };
        extents.push(take(piece)?);
        used = end;
    }
    Ok(used)
}
