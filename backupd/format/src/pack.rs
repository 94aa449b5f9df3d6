//! Packs: constant-size objects of sealed segments. Nothing in them is readable, not even lengths.
//!
//! Layout: header, wrapped key, sealed segments (slots 0..n), sealed padding, sealed directory, sealed footer.

use crate::aead::{SlotCipher, SlotKey, TAG_BYTES};
use crate::error::{FormatError, Result};
use crate::ids::{ChunkId, ObjectHash, RepositoryId};
use crate::keys::ChunkKind;
use crate::seal::{OpenSeeds, SealKey, WRAPPED_KEY_BYTES};
use crate::sealed::{CLASSES, OBJECT_BYTES_MAX, class_for};
use crate::segment::{EncodedSegment, SEGMENT_CHUNKS_MAX, SEGMENT_PLAIN_BYTES_MAX};
use crate::wire::{Reader, put_preamble, put_varint, varint_len};
use crate::{FORMAT_VERSION, MAGIC_PACK};
use rand_core::CryptoRng;

/// The most segments in one pack.
pub const PACK_SEGMENTS_MAX: usize = 1 << 16;
const PACK_ID_BYTES: usize = 16;
const HEADER_BYTES: usize = 4 + 2 + 1 + 1 + 4 + PACK_ID_BYTES;
const FOOTER_BYTES: usize = 8 + TAG_BYTES;
const FIXED_BYTES: usize = HEADER_BYTES + WRAPPED_KEY_BYTES + 2 * TAG_BYTES + FOOTER_BYTES;
/// Reserved slot numbers, above every segment's.
const SLOT_PADDING: u32 = u32::MAX - 2;
const SLOT_DIRECTORY: u32 = u32::MAX - 1;
const SLOT_FOOTER: u32 = u32::MAX;
const WHAT: &str = "pack";
/// Directory bytes of one chunk and of one segment at most, for planning.
pub const CHUNK_RECORD_BYTES: usize = ChunkId::BYTES + 4;
const SEGMENT_RECORD_BYTES: usize = 16;

/// Where a segment lies in its pack, and what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentRecord {
    pub offset: u32,
    /// Ciphertext and tag.
    pub sealed_len: u32,
    pub compressed: bool,
    pub chunks: Vec<(ChunkId, u32)>,
}

impl SegmentRecord {
    /// Bytes of all chunks together.
    #[must_use]
    pub fn plain_len(&self) -> usize {
        self.chunks.iter().map(|(_, len)| *len as usize).sum()
    }
}

/// All that the open key's side of an index says about a pack.
#[derive(Clone)]
pub struct PackRecord {
    pub name: ObjectHash,
    pub kind: ChunkKind,
    /// The epoch that the pack was sealed to.
    pub epoch: u32,
    /// The pack's size, one of the classes.
    pub bytes: u32,
    pub id: [u8; PACK_ID_BYTES],
    pub key: SlotKey,
    pub segments: Vec<SegmentRecord>,
}

/// A sealed pack.
pub struct SealedPack {
    pub bytes: Vec<u8>,
    pub record: PackRecord,
}

pub(crate) fn binding(repository: RepositoryId, kind: ChunkKind, epoch: u32, id: &[u8; PACK_ID_BYTES]) -> Vec<u8> {
    let mut binding = b"holdfast.pack\0".to_vec();
    binding.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    binding.push(kind.code());
    binding.extend_from_slice(&epoch.to_le_bytes());
    binding.extend_from_slice(repository.as_bytes());
    binding.extend_from_slice(id);
    binding
}

/// Bytes that a segment takes in a pack.
#[must_use]
pub fn segment_cost(segment: &EncodedSegment) -> usize {
    segment.body.len() + TAG_BYTES + SEGMENT_RECORD_BYTES + segment.chunks.len() * CHUNK_RECORD_BYTES
}

/// What the segments of a pack of this class may cost together; see [`segment_cost`].
#[must_use]
pub const fn capacity(class: usize) -> usize {
    class.saturating_sub(FIXED_BYTES + SEGMENT_RECORD_BYTES)
}

/// Seals segments into one pack of the smallest class that holds them, under a key of its own.
pub fn seal_pack<R: CryptoRng + ?Sized>(
    rng: &mut R,
    seal: &SealKey,
    repository: RepositoryId,
    kind: ChunkKind,
    segments: Vec<EncodedSegment>,
) -> Result<SealedPack> {
    seal_pack_into(Vec::new(), rng, (seal, repository), kind, segments)
}

/// The same into a buffer that has been used before.
pub fn seal_pack_into<R: CryptoRng + ?Sized>(
    mut out: Vec<u8>,
    rng: &mut R,
    (seal, repository): (&SealKey, RepositoryId),
    kind: ChunkKind,
    segments: Vec<EncodedSegment>,
) -> Result<SealedPack> {
    if segments.len() > PACK_SEGMENTS_MAX {
        return Err(FormatError::Limit { what: WHAT });
    }
    let mut id = [0u8; PACK_ID_BYTES];
    rng.fill_bytes(&mut id);
    let mut key = [0u8; 32];
    rng.fill_bytes(&mut key);
    let key = SlotKey::from_bytes(key);
    let epoch = seal.epoch();
    let binding = binding(repository, kind, epoch, &id);
    let cipher = SlotCipher::new(&key, &binding);
    let estimate: usize = FIXED_BYTES + segments.iter().map(segment_cost).sum::<usize>();
    out.clear();
    out.reserve_exact(class_for(estimate).unwrap_or(OBJECT_BYTES_MAX));
    put_preamble(&mut out, MAGIC_PACK, FORMAT_VERSION);
    out.extend_from_slice(&[kind.code(), 0]);
    out.extend_from_slice(&epoch.to_le_bytes());
    out.extend_from_slice(&id);
    out.extend_from_slice(&seal.wrap(rng, &key, &binding)?);
    let mut records = Vec::with_capacity(segments.len());
    for (slot, segment) in segments.into_iter().enumerate() {
        let offset = out.len();
        out.extend_from_slice(&segment.body);
        cipher.seal_tail(slot as u32, &mut out, offset)?;
        records.push(SegmentRecord {
            offset: offset as u32,
            sealed_len: (out.len() - offset) as u32,
            compressed: segment.compressed,
            chunks: segment.chunks,
        });
    }
    // Straight to its place: of very many tiny chunks the directory is the larger part of a pack.
    let directory = directory_len(&records);
    let used = out.len() + directory + 2 * TAG_BYTES + FOOTER_BYTES;
    let class = class_for(used).ok_or(FormatError::Limit { what: WHAT })?;
    let mut put = |slot, write: &dyn Fn(&mut Vec<u8>)| {
        let from = out.len();
        write(&mut out);
        cipher.seal_tail(slot, &mut out, from).map(|()| from as u32)
    };
    put(SLOT_PADDING, &|out| out.resize(out.len() + class - used, 0))?;
    let at = put(SLOT_DIRECTORY, &|out| put_directory(out, &records))?;
    put(SLOT_FOOTER, &|out| out.extend([at, directory as u32].map(u32::to_le_bytes).as_flattened()))?;
    let (name, bytes) = (ObjectHash::of(&out), out.len() as u32);
    let record = PackRecord { name, kind, epoch, bytes, id, key, segments: records };
    Ok(SealedPack { bytes: out, record })
}

/// Appends the directory, from which [`parse_directory`] makes the records again.
pub(crate) fn put_directory(out: &mut Vec<u8>, segments: &[SegmentRecord]) {
    put_varint(out, segments.len() as u64);
    for segment in segments {
        put_placement(out, segment);
        put_varint(out, segment.chunks.len() as u64);
        for (id, len) in &segment.chunks {
            out.extend_from_slice(id.as_bytes());
            put_varint(out, u64::from(*len));
        }
    }
}

/// How many bytes [`put_directory`] appends.
fn directory_len(segments: &[SegmentRecord]) -> usize {
    let len = |segment: &SegmentRecord| {
        let chunks = segment.chunks.len();
        placement_len(segment) + varint_len(chunks as u64) + chunks * ChunkId::BYTES + lengths_len(segment)
    };
    varint_len(segments.len() as u64) + segments.iter().map(len).sum::<usize>()
}

/// How many bytes the lengths of a segment's chunks take.
pub(crate) fn lengths_len(segment: &SegmentRecord) -> usize {
    segment.chunks.iter().map(|(_, len)| varint_len(u64::from(*len))).sum()
}

/// How many bytes [`put_placement`] appends.
pub(crate) fn placement_len(segment: &SegmentRecord) -> usize {
    varint_len(u64::from(segment.offset)) + varint_len(u64::from(segment.sealed_len)) + 1
}

/// Offset, length and form of a segment.
pub(crate) fn put_placement(out: &mut Vec<u8>, segment: &SegmentRecord) {
    put_varint(out, u64::from(segment.offset));
    put_varint(out, u64::from(segment.sealed_len));
    out.push(u8::from(segment.compressed));
}

/// The inverse of [`put_placement`], with the limits that every placement keeps. Segments ascend and do not overlap:
/// `free` is where the one before ended.
pub(crate) fn parse_placement(reader: &mut Reader<'_>, free: &mut usize) -> Result<(u32, u32, bool)> {
    let offset = reader.count(OBJECT_BYTES_MAX)?;
    let sealed_len = reader.count(OBJECT_BYTES_MAX)?;
    let lowest = (*free).max(HEADER_BYTES + WRAPPED_KEY_BYTES);
    if offset + sealed_len > OBJECT_BYTES_MAX || offset < lowest || sealed_len < TAG_BYTES {
        return Err(reader.invalid());
    }
    *free = offset + sealed_len;
    Ok((offset as u32, sealed_len as u32, reader.flag()?))
}

/// Refuses a segment that claims more plain bytes than the format allows.
pub(crate) fn check_plain_len(record: &SegmentRecord) -> Result<()> {
    if record.plain_len() > SEGMENT_PLAIN_BYTES_MAX { Err(FormatError::Limit { what: "segment" }) } else { Ok(()) }
}

/// Parses a pack's opened directory.
pub fn parse_directory(bytes: &[u8]) -> Result<Vec<SegmentRecord>> {
    Directory::new(bytes)?.collect()
}

/// The segments of an opened directory, one after the other: of very many tiny chunks all together take much memory.
struct Directory<'a> {
    reader: Reader<'a>,
    left: usize,
    free: usize,
}

impl<'a> Directory<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "pack directory");
        let left = reader.count(PACK_SEGMENTS_MAX)?;
        let directory = Self { reader, left, free: 0 };
        // A directory without segments ends here.
        if left == 0 {
            directory.reader.end()?
        }
        Ok(directory)
    }

    fn segment(&mut self) -> Result<SegmentRecord> {
        let (offset, sealed_len, compressed) = parse_placement(&mut self.reader, &mut self.free)?;
        let chunks = self.reader.count(SEGMENT_CHUNKS_MAX)?;
        let mut record = SegmentRecord { offset, sealed_len, compressed, chunks: Vec::new() };
        for _ in 0..chunks {
            let id = ChunkId(self.reader.array()?);
            record.chunks.push((id, self.reader.count(SEGMENT_PLAIN_BYTES_MAX)? as u32));
        }
        check_plain_len(&record)?;
        if self.left == 0 {
            self.reader.end()?
        }
        Ok(record)
    }
}

impl Iterator for Directory<'_> {
    type Item = Result<SegmentRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let segment = self.segment();
        // Nothing follows what does not parse.
        self.left = if segment.is_ok() { self.left } else { 0 };
        Some(segment)
    }
}

/// The clear header of a pack.
struct Header<'a> {
    kind: ChunkKind,
    epoch: u32,
    id: [u8; PACK_ID_BYTES],
    wrapped: &'a [u8],
}

fn parse_header(bytes: &[u8]) -> Result<Header<'_>> {
    if bytes.len() > OBJECT_BYTES_MAX {
        return Err(FormatError::Limit { what: WHAT });
    }
    let mut reader = Reader::new(bytes, WHAT);
    reader.preamble(MAGIC_PACK, FORMAT_VERSION)?;
    if !CLASSES.contains(&bytes.len()) {
        return Err(FormatError::Invalid { what: WHAT });
    }
    let kind = ChunkKind::from_code(reader.u8()?)?;
    if reader.u8()? != 0 {
        return Err(reader.invalid());
    }
    Ok(Header { kind, epoch: reader.u32()?, id: reader.array()?, wrapped: reader.take(WRAPPED_KEY_BYTES)? })
}

/// Reads a whole pack with nothing but the open key: what an index would say about it.
pub fn open_pack(bytes: &[u8], repository: RepositoryId, open: &OpenSeeds) -> Result<PackRecord> {
    let header = parse_header(bytes)?;
    let binding = binding(repository, header.kind, header.epoch, &header.id);
    let key = open.unwrap(header.epoch, header.wrapped, &binding, WHAT)?;
    let segments = parse_directory(&open_directory(bytes, &SlotCipher::new(&key, &binding))?)?;
    Ok(PackRecord {
        name: ObjectHash::of(bytes),
        kind: header.kind,
        epoch: header.epoch,
        bytes: bytes.len() as u32,
        id: header.id,
        key,
        segments,
    })
}

/// The opened directory of a pack.
fn open_directory(bytes: &[u8], cipher: &SlotCipher) -> Result<Vec<u8>> {
    let at = bytes.len().checked_sub(FOOTER_BYTES).ok_or(FormatError::Truncated { what: WHAT })?;
    let (body, footer) = bytes.split_at(at);
    let footer = cipher.open(SLOT_FOOTER, footer, WHAT)?;
    let mut footer = Reader::new(&footer, WHAT);
    let (at, len) = (footer.u32()? as usize, footer.u32()? as usize);
    let sealed = at.checked_add(len + TAG_BYTES).and_then(|end| body.get(at..end));
    cipher.open(SLOT_DIRECTORY, sealed.ok_or(FormatError::Invalid { what: WHAT })?, WHAT)
}

impl SealedPack {
    /// The writer's last look at a pack, while its key is in memory: every slot must open before an index may say that
    /// the pack exists.
    pub fn reopen(&self, repository: RepositoryId) -> Result<()> {
        let record = &self.record;
        let cipher = record.opener(repository).0;
        let directory = open_directory(&self.bytes, &cipher)?;
        let mut told = Directory::new(&directory)?;
        let mut scratch = Vec::new();
        for (slot, segment) in record.segments.iter().enumerate() {
            if told.next().transpose()?.as_ref() != Some(segment) {
                return Err(FormatError::Invalid { what: WHAT });
            }
            let (from, len) = (segment.offset as usize, segment.sealed_len as usize);
            let sealed = self.bytes.get(from..from + len).ok_or(FormatError::Invalid { what: WHAT })?;
            cipher.open_into(slot as u32, sealed, &mut scratch, WHAT)?;
        }
        if told.next().is_some() { Err(FormatError::Invalid { what: WHAT }) } else { Ok(()) }
    }
}

/// Opens single segments of one pack.
pub struct SegmentOpener(SlotCipher);

impl SegmentOpener {
    /// Opens one segment's sealed bytes; the result is still compressed if the record says so.
    pub fn open(&self, slot: u32, sealed: &[u8]) -> Result<Vec<u8>> {
        self.0.open(slot, sealed, "segment")
    }

    /// The same into a buffer that is used again.
    pub fn open_into(&self, slot: u32, sealed: &[u8], opened: &mut Vec<u8>) -> Result<()> {
        self.0.open_into(slot, sealed, opened, "segment")
    }
}

impl PackRecord {
    #[must_use]
    pub fn opener(&self, repository: RepositoryId) -> SegmentOpener {
        SegmentOpener(SlotCipher::new(&self.key, &binding(repository, self.kind, self.epoch, &self.id)))
    }
}
