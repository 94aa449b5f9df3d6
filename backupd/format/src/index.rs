//! Index objects: which chunk lies in which pack.

use crate::aead::SlotKey;
use crate::error::{FormatError, Result};
use crate::ids::{ChunkId, ObjectHash};
use crate::keys::ChunkKind;
use crate::pack::{
    PACK_SEGMENTS_MAX, PackRecord, SegmentRecord, check_plain_len, lengths_len, parse_placement, placement_len,
    put_placement,
};
use crate::sealed::CLASSES;
use crate::segment::{SEGMENT_CHUNKS_MAX, SEGMENT_PLAIN_BYTES_MAX};
use crate::wire::{Reader, put_no_extensions, put_varint, varint_len};

/// The most packs that one index object may list.
pub const INDEX_PACKS_MAX: usize = 4096;
const WHAT: &str = "index";

/// What the catalog key sees of a pack: nothing about lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogPack {
    pub name: ObjectHash,
    pub kind: ChunkKind,
    /// The epoch that the pack was sealed to; a merged index object lists packs of several.
    pub epoch: u32,
    /// The pack's size, one of the classes.
    pub bytes: u32,
    /// The chunks of each segment.
    pub segments: Vec<Vec<ChunkId>>,
}

/// The catalog part and the open part of an index object.
pub fn encode(packs: &[PackRecord]) -> Result<(Vec<u8>, Vec<u8>)> {
    if packs.len() > INDEX_PACKS_MAX {
        return Err(FormatError::Limit { what: WHAT });
    }
    let (mut catalog, mut open) = (Vec::new(), Vec::new());
    // Grown step by step they would take twice as much.
    catalog.reserve_exact(varint_len(packs.len() as u64) + packs.iter().map(|pack| lens(pack).0).sum::<usize>());
    open.reserve_exact(packs.iter().map(|pack| lens(pack).1).sum());
    put_varint(&mut catalog, packs.len() as u64);
    for pack in packs {
        let class = CLASSES.iter().position(|class| *class == pack.bytes as usize);
        catalog.extend_from_slice(pack.name.as_bytes());
        catalog.push(pack.kind.code());
        catalog.push(class.ok_or(FormatError::Invalid { what: WHAT })? as u8);
        put_varint(&mut catalog, u64::from(pack.epoch));
        put_no_extensions(&mut catalog);
        put_varint(&mut catalog, pack.segments.len() as u64);
        open.extend_from_slice(&pack.id);
        open.extend_from_slice(pack.key.expose());
        put_no_extensions(&mut open);
        for segment in &pack.segments {
            put_varint(&mut catalog, segment.chunks.len() as u64);
            put_placement(&mut open, segment);
            for (id, len) in &segment.chunks {
                catalog.extend_from_slice(id.as_bytes());
                put_varint(&mut open, u64::from(*len));
            }
        }
    }
    Ok((catalog, open))
}

/// How many bytes a pack takes of the catalog part and of the open part.
fn lens(pack: &PackRecord) -> (usize, usize) {
    let numbers = varint_len(u64::from(pack.epoch)) + varint_len(pack.segments.len() as u64);
    let chunks =
        |segment: &SegmentRecord| varint_len(segment.chunks.len() as u64) + segment.chunks.len() * ChunkId::BYTES;
    let lengths = |segment: &SegmentRecord| placement_len(segment) + lengths_len(segment);
    (
        ObjectHash::BYTES + 3 + numbers + pack.segments.iter().map(chunks).sum::<usize>(),
        pack.id.len() + pack.key.expose().len() + 1 + pack.segments.iter().map(lengths).sum::<usize>(),
    )
}

/// About how many bytes of an index object a pack takes.
pub fn cost(pack: &PackRecord) -> usize {
    let (catalog, open) = lens(pack);
    catalog + open
}

/// Parses the catalog part.
pub fn parse_catalog(bytes: &[u8]) -> Result<Vec<CatalogPack>> {
    let mut reader = Reader::new(bytes, WHAT);
    let count = reader.count(INDEX_PACKS_MAX)?;
    let mut packs = Vec::new();
    for _ in 0..count {
        let name = ObjectHash(reader.array()?);
        let kind = ChunkKind::from_code(reader.u8()?)?;
        let class = *CLASSES.get(usize::from(reader.u8()?)).ok_or(FormatError::Invalid { what: WHAT })?;
        let epoch = reader.number32()?;
        reader.extensions()?;
        let segment_count = reader.count(PACK_SEGMENTS_MAX)?;
        let mut segments = Vec::new();
        for _ in 0..segment_count {
            let chunks = reader.count(SEGMENT_CHUNKS_MAX)?;
            let mut ids = Vec::with_capacity(chunks.min(reader.remaining() / ChunkId::BYTES));
            for _ in 0..chunks {
                ids.push(ChunkId(reader.array()?));
            }
            segments.push(ids);
        }
        packs.push(CatalogPack { name, kind, epoch, bytes: class as u32, segments });
    }
    reader.end()?;
    Ok(packs)
}

/// Joins the catalog part with the open part.
pub fn parse_open(catalog: &[CatalogPack], bytes: &[u8]) -> Result<Vec<PackRecord>> {
    let mut reader = Reader::new(bytes, WHAT);
    let mut packs = Vec::new();
    for pack in catalog {
        let id = reader.array()?;
        let key = SlotKey::from_bytes(reader.array()?);
        reader.extensions()?;
        let mut segments = Vec::with_capacity(pack.segments.len());
        let mut free = 0;
        for ids in &pack.segments {
            let (offset, sealed_len, compressed) = parse_placement(&mut reader, &mut free)?;
            let mut record = SegmentRecord { offset, sealed_len, compressed, chunks: Vec::with_capacity(ids.len()) };
            for id in ids {
                record.chunks.push((*id, reader.count(SEGMENT_PLAIN_BYTES_MAX)? as u32));
            }
            check_plain_len(&record)?;
            if u64::from(offset) + u64::from(sealed_len) > u64::from(pack.bytes) {
                return Err(FormatError::Invalid { what: WHAT });
            }
            segments.push(record);
        }
        let (name, kind, epoch, bytes) = (pack.name, pack.kind, pack.epoch, pack.bytes);
        packs.push(PackRecord { name, kind, epoch, bytes, id, key, segments });
    }
    reader.end()?;
    Ok(packs)
}
