//! Segments: many chunks compressed together. The unit of random read.

use crate::error::{FormatError, Result};
use crate::ids::ChunkId;
use zstd::zstd_safe::CParameter;

/// The most plain bytes in one segment.
pub const SEGMENT_PLAIN_BYTES_MAX: usize = 4 << 20;
/// The most bytes in one chunk.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The most chunks in one segment.
pub const SEGMENT_CHUNKS_MAX: usize = 1 << 16;
const WHAT: &str = "segment";
/// Two to this power are the bytes of the longest segment.
const WINDOW_LOG: u32 = SEGMENT_PLAIN_BYTES_MAX.ilog2();

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

/// Compresses segments with one reused context and buffer.
pub struct SegmentEncoder {
    compressor: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
}

impl SegmentEncoder {
    pub fn new(level: i32) -> Result<Self> {
        let failed = |_| FormatError::Compression { what: WHAT };
        let mut compressor = zstd::bulk::Compressor::new(level).map_err(failed)?;
        // At the fast levels matches of 6 bytes cost a tenth of the time and save a hundredth of the bytes. A larger table
        // costs about as much and saves twice that; it still fits the second cache of a core. Matches over the whole of a
        // segment cost nothing.
        if level <= 2 {
            for parameter in [CParameter::MinMatch(7), CParameter::HashLog(17), CParameter::WindowLog(WINDOW_LOG)] {
                compressor.set_parameter(parameter).map_err(failed)?;
            }
        }
        Ok(Self { compressor, packed: Vec::new() })
    }

    /// Keeps the bytes as they are where compression saves less than a thirty-second, and takes their buffer; else the
    /// buffer can be used again.
    pub fn encode(&mut self, chunks: Vec<(ChunkId, u32)>, plain: &mut Vec<u8>) -> Result<EncodedSegment> {
        check(&chunks, plain)?;
        // Memory that is never written to costs nothing.
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        let done = self.compressor.compress_to_buffer(plain.as_slice(), &mut self.packed);
        done.map_err(|_| FormatError::Compression { what: WHAT })?;
        // A copy of the exact size: many bodies wait for their pack, and none should hold room that it does not use.
        if self.packed.len() + plain.len() / 32 < plain.len() {
            Ok(EncodedSegment { chunks, compressed: true, body: self.packed.as_slice().to_vec() })
        } else {
            Ok(EncodedSegment { chunks, compressed: false, body: std::mem::take(plain) })
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

    /// The same without a new buffer: the plain bytes are the body itself, or lie in `buffer`, which is used again.
    pub fn decode_in<'b>(
        &mut self,
        compressed: bool,
        body: &'b [u8],
        plain_len: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8]> {
        if plain_len > SEGMENT_PLAIN_BYTES_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        let plain = if compressed {
            buffer.clear();
            buffer.reserve(plain_len);
            self.0.decompress_to_buffer(body, buffer).map_err(|_| FormatError::Compression { what: WHAT })?;
            buffer.as_slice()
        } else {
            body
        };
        if plain.len() == plain_len { Ok(plain) } else { Err(FormatError::Invalid { what: WHAT }) }
    }
}
