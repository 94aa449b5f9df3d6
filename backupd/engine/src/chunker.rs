//! Cutting files into chunks.

use crate::source::SourceFile;
use fastcdc::v2020::{FastCDC, Normalization};
use std::io;

/// Sizes of content-defined chunks, bytes. No cut is looked for in the first part of a chunk: that is what cutting costs.
const CHUNK_BYTES_MIN: usize = 112 << 10;
const CHUNK_BYTES_AVERAGE: usize = 128 << 10;
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Databases change by pages: chunks of their files are so many bytes, aligned.
const DATABASE_CHUNK_BYTES: usize = 16 << 10;
/// Read at once, bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// Bounds of the page size, bytes.
pub(crate) const PAGE_BYTES_MIN: u32 = 512;
pub(crate) const PAGE_BYTES_MAX: u32 = 1 << 20;

/// How to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// By content; files that are databases by their first bytes are cut by pages all the same.
    Content,
    /// At multiples of so many bytes from the file's start.
    Fixed(usize),
}

/// A piece of a file, in order.
pub(crate) enum Piece<'a> {
    Data(&'a [u8]),
    Hole(u64),
}

/// Reads files with one reused buffer.
pub(crate) struct Chunker {
    buffer: Vec<u8>,
}

type Take<'a, E> = dyn FnMut(Piece<'_>) -> Result<(), E> + 'a;

impl Chunker {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES] }
    }

    /// Cuts a whole file of about `size` bytes. Errors of the file are the inner result; an error of `take` ends
    /// everything.
    pub(crate) fn cut_file<E>(
        &mut self,
        file: &dyn SourceFile,
        (size, sparse): (u64, bool),
        cut: Cut,
        take: &mut Take<'_, E>,
    ) -> Result<io::Result<()>, E> {
        if !sparse {
            return Ok(self.cut_range(file, 0..u64::MAX, size, cut, take)?.map(|_| ()));
        }
        let mut at = 0;
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
                take(Piece::Hole(start - at))?;
            }
            let end = match cut {
                Cut::Fixed(page) => end.min(size).next_multiple_of(page as u64).min(size),
                Cut::Content => end.min(size),
            };
            if end <= start {
                break;
            }
            match self.cut_range(file, start..end, size, cut, take)? {
                // Shorter than it was: what follows is gone.
                Ok(reached) if reached < end => return Ok(Ok(())),
                Ok(reached) => at = reached,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// Cuts one range with data; returns where it ended.
    fn cut_range<E>(
        &mut self,
        file: &dyn SourceFile,
        range: std::ops::Range<u64>,
        size: u64,
        mut cut: Cut,
        take: &mut Take<'_, E>,
    ) -> Result<io::Result<u64>, E> {
        let (mut filled, mut at, mut ended) = (0usize, range.start, false);
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
                // The size says that nothing follows: asking again costs more than reading. A file that grew meanwhile
                // shows when it is looked at afterwards.
                ended |= at == size;
            }
            let full = self.buffer.get(..filled).unwrap_or_default();
            if cut == Cut::Content && range.start == 0 && at == filled as u64 && is_database(full) {
                cut = Cut::Fixed(DATABASE_CHUNK_BYTES);
            }
            let used = cut_buffer(full, ended, cut, take)?;
            self.buffer.copy_within(used..filled, 0);
            filled -= used;
            if ended && filled == 0 {
                return Ok(Ok(at));
            }
        }
    }
}

/// SQLite by its magic, PostgreSQL by the version and size in its page headers.
fn is_database(head: &[u8]) -> bool {
    const POSTGRES_PAGE: usize = 8192;
    const POSTGRES_SIZE_AND_VERSION: [u8; 2] = (POSTGRES_PAGE as u16 | 4).to_le_bytes();
    let postgres = |page: usize| head.get(page * POSTGRES_PAGE + 18..page * POSTGRES_PAGE + 20);
    head.starts_with(b"SQLite format 3\0") || (0..2).all(|page| postgres(page) == Some(&POSTGRES_SIZE_AND_VERSION))
}

/// Cuts as much of `bytes` as may be cut before more is read; returns the bytes used.
fn cut_buffer<E>(bytes: &[u8], ended: bool, cut: Cut, take: &mut Take<'_, E>) -> Result<usize, E> {
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
            Cut::Content if rest.len() <= CHUNK_BYTES_MIN => bytes.len(),
            Cut::Content => cdc.cut(used, rest.len()).1,
            Cut::Fixed(page) => used + rest.len().min(page),
        };
        let Some(piece) = bytes.get(used..end) else { break };
        take(Piece::Data(piece))?;
        used = end;
    }
    Ok(used)
}
