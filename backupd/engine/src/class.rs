//! What shares a segment: which class a chunk is of, and how long the segments of a class are.

use backup_format::ChunkKind;

/// Plain bytes of a segment of content that compresses: longer ones compress better, shorter ones read faster alone and take
/// less memory.
pub(crate) const SEGMENT_BYTES: usize = 3 << 20;
/// Of one that does not compress: nothing is gained by length, and small ones leave little room at the end of a pack.
const RAW_SEGMENT_BYTES: usize = 320 << 10;
/// Of tree pages, and of the last ones: even one that does not compress fits a pack of 1 MiB.
pub(crate) const SMALL_SEGMENT_BYTES: usize = 960 << 10;

/// What a segment collects: they are kept apart because one kind of neighbour spoils the other's compression. Of small
/// documents in one folder, kept apart by their first byte, a twenty-fifth is saved and no time is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// What begins as JSON does.
    Json,
    /// What begins as XML and HTML do.
    Markup,
    Other,
    Raw,
    Tree,
}

impl Class {
    pub(crate) const ALL: [Self; 5] = [Self::Json, Self::Markup, Self::Other, Self::Raw, Self::Tree];

    pub(crate) fn of(kind: ChunkKind, bytes: &[u8]) -> Self {
        match (kind, bytes.first()) {
            (ChunkKind::Tree, _) => Self::Tree,
            (ChunkKind::Data, _) if is_raw(bytes) => Self::Raw,
            (ChunkKind::Data, Some(b'{' | b'[')) => Self::Json,
            (ChunkKind::Data, Some(b'<')) => Self::Markup,
            (ChunkKind::Data, _) => Self::Other,
        }
    }

    pub(crate) fn kind(self) -> ChunkKind {
        match self {
            Self::Json | Self::Markup | Self::Other | Self::Raw => ChunkKind::Data,
            Self::Tree => ChunkKind::Tree,
        }
    }

    /// Of the segment of a number. Those that compress alike would all be of one size, and no choice of them would fill the end
    /// of a pack: so they are up to a quarter shorter, spread evenly.
    pub(crate) fn bytes_of(self, number: u32) -> usize {
        let spread = if self.bytes_max() == SEGMENT_BYTES { SEGMENT_BYTES / 4 } else { 0 };
        let share = u64::from(number.wrapping_mul(GOLDEN));
        self.bytes_max() - ((spread as u64 * share) >> u32::BITS) as usize
    }

    pub(crate) fn bytes_max(self) -> usize {
        match self {
            Self::Json | Self::Markup | Self::Other => SEGMENT_BYTES,
            Self::Raw => RAW_SEGMENT_BYTES,
            Self::Tree => SMALL_SEGMENT_BYTES,
        }
    }
}

/// The golden ratio as a part of 2^32: its multiples spread evenly, however many there are.
const GOLDEN: u32 = 0x9e37_79b9;

/// Bytes looked at to tell whether a chunk compresses, in so many places.
const SAMPLE_BYTES: usize = 1024;
const SAMPLES: usize = 4;
/// Shorter chunks are not looked at: documents and pages of databases, where looking costs more than it saves.
const RAW_BYTES_MIN: usize = 32 << 10;
/// Bits per byte above which a sample does not compress; random bytes come to 7.95 in a sample of this size.
const RAW_BITS: f32 = 7.85;

/// Whether compression would gain nothing, by the entropy of a few samples.
fn is_raw(bytes: &[u8]) -> bool {
    if bytes.len() < RAW_BYTES_MIN {
        return false;
    }
    let mut counts = [0u16; 256];
    let step = (bytes.len() - SAMPLE_BYTES) / (SAMPLES - 1);
    for at in 0..SAMPLES {
        for byte in bytes.get(at * step..at * step + SAMPLE_BYTES).unwrap_or_default() {
            if let Some(count) = counts.get_mut(usize::from(*byte)) {
                *count += 1;
            }
        }
    }
    let total = (SAMPLE_BYTES * SAMPLES) as f32;
    let bits: f32 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f32::from(*count) / total;
            -share * share.log2()
        })
        .sum();
    bits > RAW_BITS
}
