//! One fuzz target for every parser of the repository format. A target tells whether the bytes were taken; whatever is
//! taken must say the same when it is written and parsed again.

use backup_format::condemned::{Plan, PlanName};
use backup_format::head::{Head, HeadName};
use backup_format::index::{CatalogPack, parse_catalog, parse_open};
use backup_format::keyring::Keyring;
use backup_format::manifest::{InnerManifest, OuterManifest};
use backup_format::pack::{open_pack, parse_directory};
use backup_format::retirement::{Retirement, RetirementName};
use backup_format::sealed::{PartsKind, open_parts};
use backup_format::segment::SegmentDecoder;
use backup_format::tombstone::{Tombstone, TombstoneName};
use backup_format::tree::Page;
use backup_format::{
    CatalogKey, ChunkId, ChunkKind, MachineKey, ObjectHash, OpenKey, PaperKey, PrunerCredential, RepositoryId, Share,
    Unlock, WriterCredential,
};
use std::sync::OnceLock;

/// Name of a target and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// Every target. Its corpus is the test vector of its name, and the further vectors given here.
pub const TARGETS: &[Target] = &[
    ("keyring", keyring),
    ("pack", |bytes| open_pack(bytes, open_key().repository(), open_key().open_seed()).is_ok()),
    ("index", |bytes| parts(PartsKind::Index, bytes)),
    ("snapshot", |bytes| parts(PartsKind::Snapshot, bytes)),
    ("head", |bytes| Head::open(bytes, open_key().catalog()).is_ok()),
    ("tombstone", |bytes| Tombstone::open(bytes, open_key().catalog()).is_ok()),
    ("plan", |bytes| Plan::open(bytes, open_key().catalog()).is_ok()),
    ("retirement", |bytes| Retirement::open(bytes, open_key().catalog()).is_ok()),
    ("catalog-part", |bytes| parse_catalog(bytes).is_ok()),
    ("open-part", |bytes| parse_open(&wide_catalog(), bytes).is_ok()),
    ("pack-directory", |bytes| parse_directory(bytes).is_ok()),
    ("outer-manifest", outer_manifest),
    ("inner-manifest", inner_manifest),
    ("directory-page", |bytes| Page::parse(bytes).is_ok()),
    ("segment", segment),
    ("open-key", |bytes| OpenKey::from_bytes(bytes).is_ok_and(|key| key.to_bytes().as_slice() == bytes)),
    ("writer", |bytes| WriterCredential::from_bytes(bytes).is_ok_and(|key| key.to_bytes().as_slice() == bytes)),
    ("pruner", |bytes| PrunerCredential::from_bytes(bytes).is_ok_and(|key| key.to_bytes().as_slice() == bytes)),
    ("paper-key", |bytes| typed(bytes, |text| PaperKey::from_text(text).is_ok())),
    ("share", |bytes| typed(bytes, |text| Share::from_text(text).is_ok())),
    ("machine-key", |bytes| typed(bytes, |text| MachineKey::from_text(text).is_ok())),
    ("head-name", |bytes| typed(bytes, name::<HeadName>)),
    ("tombstone-name", |bytes| typed(bytes, name::<TombstoneName>)),
    ("plan-name", |bytes| typed(bytes, name::<PlanName>)),
    ("retirement-name", |bytes| typed(bytes, name::<RetirementName>)),
    ("ids", |bytes| typed(bytes, |text| name::<RepositoryId>(text) | name::<ObjectHash>(text))),
];

/// More vectors for a target than that of its name.
pub const FURTHER_VECTORS: &[(&str, &[&str])] = &[
    ("tombstone", &["tombstone-run"]),
    ("plan", &["order"]),
    ("tombstone-name", &["run-name"]),
    ("directory-page", &["index-page", "link-page", "extents-page", "extent-index-page"]),
    ("share", &["second-share"]),
    ("ids", &["head-name"]),
];

/// The keys of the test vectors.
fn open_key() -> &'static OpenKey {
    static KEY: OnceLock<OpenKey> = OnceLock::new();
    KEY.get_or_init(|| OpenKey::from_bytes(&body(include_str!("../../backupd/format/vectors/open-key.txt"))).unwrap())
}

/// The hex digits below a vector's head.
pub fn body(vector: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        vector.split_once("\n\n").map_or("", |(_, body)| body).bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
    digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
}

fn keyring(bytes: &[u8]) -> bool {
    let Ok(ring) = Keyring::parse(bytes) else { return false };
    let machine = MachineKey::from_text(&format!("holdfast-machine-key-1-{}", "00".repeat(32)));
    let catalog: &CatalogKey = open_key().catalog();
    ring.check(catalog).is_ok() | machine.is_ok_and(|machine| ring.open(&Unlock::Machine(&machine)).is_ok())
}

fn parts(kind: PartsKind, bytes: &[u8]) -> bool {
    open_parts(kind, open_key().catalog(), bytes).is_ok_and(|parts| parts.open_part(open_key().open_seed()).is_ok())
}

/// A catalog of some packs with some segments, so that the open part has something to be parsed against.
fn wide_catalog() -> Vec<CatalogPack> {
    let segments: Vec<Vec<ChunkId>> = (0..3u8).map(|at| vec![ChunkId([at; 32]); 1]).collect();
    let pack = CatalogPack { name: ObjectHash([1; 32]), kind: ChunkKind::Data, epoch: 1, bytes: 1 << 16, segments };
    vec![pack; 1]
}

fn outer_manifest(bytes: &[u8]) -> bool {
    let Ok(found) = OuterManifest::parse(bytes) else { return false };
    let again = found.encode().map(|bytes| OuterManifest::parse(&bytes));
    assert_eq!(again, Ok(Ok(found)), "a manifest says the same when it is written again");
    true
}

fn inner_manifest(bytes: &[u8]) -> bool {
    let Ok(found) = InnerManifest::parse(bytes) else { return false };
    let again = found.encode().map(|bytes| InnerManifest::parse(&bytes));
    assert_eq!(again, Ok(Ok(found)), "a manifest says the same when it is written again");
    true
}

/// The first two bytes say how long the plain bytes should be.
fn segment(bytes: &[u8]) -> bool {
    let Some((length, body)) = bytes.split_first_chunk::<2>() else { return false };
    let length = usize::from(u16::from_le_bytes(*length));
    let plain = SegmentDecoder::new().and_then(|mut decoder| decoder.decode(true, body.to_vec(), length));
    plain.is_ok_and(|plain| {
        assert_eq!(plain.len(), length, "a segment has exactly the length that was asked for");
        true
    })
}

fn typed(bytes: &[u8], parse: impl Fn(&str) -> bool) -> bool {
    std::str::from_utf8(bytes).is_ok_and(parse)
}

/// A name has one form only.
fn name<T: std::str::FromStr + std::fmt::Display>(text: &str) -> bool {
    let Ok(found) = text.parse::<T>() else { return false };
    assert_eq!(found.to_string(), text.to_ascii_lowercase(), "a name has one form");
    true
}
