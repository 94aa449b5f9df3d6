//! Segments: many chunks compressed together. The unit of random read.

use crate::error::{FormatError, Result};
use crate::ids::ChunkId;

/// The most plain bytes in one segment.
pub const SEGMENT_PLAIN_BYTES_MAX: usize = 4 << 20;
/// The most bytes in one chunk.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The most chunks in one segment.
pub const SEGMENT_CHUNKS_MAX: usize = 1 << 16;
const WHAT: &str = "segment";

/// A segment ready to be sealed.
pub struct EncodedSegment {
    /// Id and length of each chunk, in order.
    pub chunks: Vec<(ChunkId, u32)>,
    /// Whether `body` is one zstd frame; otherwise it is the chunks themselves.
    pub compressed: bool,
    pub body: Vec<u8>,
}

impl EncodedSegment {
    /// Chunks that are kept as they are.
    pub fn raw(chunks: Vec<(ChunkId, u32)>, plain: Vec<u8>) -> Result<Self> {
        check(&chunks, &plain)?;
        Ok(Self { chunks, compressed: false, body: plain })
    }
}

fn check(chunks: &[(ChunkId, u32)], plain: &[u8]) -> Result<()> {
    let total: usize = chunks.iter().map(|(_, len)| *len as usize).sum();
    if total != plain.len() || total > SEGMENT_PLAIN_BYTES_MAX || chunks.len() > SEGMENT_CHUNKS_MAX {
        return Err(FormatError::Limit { what: WHAT });
    }
    Ok(())
}

/// Compresses segments with one reused context.
pub struct SegmentEncoder(zstd::bulk::Compressor<'static>);

impl SegmentEncoder {
    pub fn new(level: i32) -> Result<Self> {
        let compressor = zstd::bulk::Compressor::new(level).map_err(|_| FormatError::Compression { what: WHAT })?;
        Ok(Self(compressor))
    }

    /// Keeps the bytes as they are where compression saves less than a thirty-second.
    pub fn encode(&mut self, chunks: Vec<(ChunkId, u32)>, plain: Vec<u8>) -> Result<EncodedSegment> {
        check(&chunks, &plain)?;
        let packed = self.0.compress(&plain).map_err(|_| FormatError::Compression { what: WHAT })?;
        if packed.len() + plain.len() / 32 < plain.len() {
            Ok(EncodedSegment { chunks, compressed: true, body: packed })
        } else {
            Ok(EncodedSegment { chunks, compressed: false, body: plain })
        }
    }
}

/// Decompresses segments with one reused context.
pub struct SegmentDecoder(zstd::bulk::Decompressor<'static>);

impl SegmentDecoder {
    pub fn new() -> Result<Self> {
        Ok(Self(zstd::bulk::Decompressor::new().map_err(|_| FormatError::Compression { what: WHAT })?))
    }

    /// The plain bytes; exactly `plain_len` of them, never more memory than that.
    pub fn decode(&mut self, compressed: bool, body: Vec<u8>, plain_len: usize) -> Result<Vec<u8>> {
        if plain_len > SEGMENT_PLAIN_BYTES_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        let plain = if compressed {
            self.0.decompress(&body, plain_len).map_err(|_| FormatError::Compression { what: WHAT })?
        } else {
            body
        };
        if plain.len() == plain_len { Ok(plain) } else { Err(FormatError::Invalid { what: WHAT }) }
    }
}
