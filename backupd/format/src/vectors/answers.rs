//! What the parsers say of a vector, in one line.

use super::read;
use crate::condemned::{Plan, PlanName};
use crate::credential::{OpenKey, PrunerCredential, WriterCredential};
use crate::features::Purpose;
use crate::head::{Head, HeadName};
use crate::index::{parse_catalog, parse_open};
use crate::keyring::Keyring;
use crate::manifest::{InnerManifest, OuterManifest};
use crate::pack::{PackRecord, open_pack, parse_directory};
use crate::retirement::{Retirement, RetirementName};
use crate::sealed::{PartsKind, open_parts};
use crate::segment::SegmentDecoder;
use crate::slot::Unlock;
use crate::tombstone::{Tombstone, TombstoneName};
use crate::tree::Page;
use crate::{FormatError, MachineKey, ObjectHash, PaperKey, Result, Share};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Opens an object with the vectors' keys and says in one line what it holds.
pub fn answer(kind: &str, bytes: &[u8]) -> String {
    let said = match kind {
        "keyring" => keyring(bytes),
        "pack" => pack(bytes),
        "index" => parts(PartsKind::Index, bytes)
            .map(|(catalog, inner)| format!("catalog {} open {}", ObjectHash::of(&catalog), ObjectHash::of(&inner))),
        "snapshot" => parts(PartsKind::Snapshot, bytes)
            .map(|(outer, inner)| format!("outer {} inner {}", ObjectHash::of(&outer), ObjectHash::of(&inner))),
        "head" => Head::open(bytes, open_key().catalog())
            .map(|head| format!("counter {} snapshot {} {}", head.counter, head.snapshot, head.name(bytes))),
        "tombstone" => Tombstone::open(bytes, open_key().catalog())
            .map(|stone| format!("counter {} head {} {}", stone.last, stone.head, stone.name(bytes))),
        "tombstone-run" => Tombstone::open(bytes, open_key().catalog())
            .map(|run| format!("counters {} to {} head {} {}", run.first, run.last, run.head, run.name(bytes))),
        "order" => Plan::open(bytes, open_key().catalog())
            .map(|order| format!("tombstones {} {}", order.tombstones.len(), order.name(bytes))),
        "plan" => Plan::open(bytes, open_key().catalog()).map(|plan| {
            format!(
                "{} heads {} indexes {} packs {}",
                plan.heads.len(),
                plan.indexes.len(),
                plan.packs.len(),
                plan.name(bytes)
            )
        }),
        "retirement" => Retirement::open(bytes, open_key().catalog())
            .map(|retired| format!("counter {} {}", retired.counter, retired.name(bytes))),
        "catalog-part" => parse_catalog(bytes).map(|packs| {
            format!("{} packs, epoch {}, {} segments", packs.len(), packs[0].epoch, packs[0].segments.len())
        }),
        "open-part" => parse_catalog(&read("catalog-part.txt").body)
            .and_then(|catalog| parse_open(&catalog, bytes))
            .map(|packs| format!("{:?}", spans(&packs[0]))),
        "pack-directory" => parse_directory(bytes).map(|segments| format!("{} segments", segments.len())),
        "outer-manifest" => OuterManifest::parse(bytes)
            .map(|outer| format!("source {} counter {} root {}", outer.source, outer.counter, outer.root)),
        "inner-manifest" => InnerManifest::parse(bytes).map(|inner| {
            format!(
                "{} parts, {} users, {} groups",
                inner.parts.len(),
                inner.owners.users.len(),
                inner.owners.groups.len()
            )
        }),
        "directory-page" | "index-page" | "link-page" | "extents-page" | "extent-index-page" => page(bytes),
        "head-name" => text(bytes).parse::<HeadName>().map(|name| format!("counter {}", name.counter)),
        "tombstone-name" => text(bytes).parse::<TombstoneName>().map(|name| format!("counter {}", name.last)),
        "run-name" => {
            text(bytes).parse::<TombstoneName>().map(|name| format!("counters {} to {}", name.first, name.last))
        }
        "plan-name" => text(bytes).parse::<PlanName>().map(|name| format!("number {}", name.number)),
        "retirement-name" => text(bytes).parse::<RetirementName>().map(|name| format!("counter {}", name.counter)),
        other => key_file(other, bytes),
    };
    said.map_or_else(|error| error.to_string(), |said| format!("ok: {said}"))
}

fn open_key() -> OpenKey {
    OpenKey::from_bytes(&read("open-key.txt").body).unwrap()
}

fn key_file(kind: &str, bytes: &[u8]) -> Result<String> {
    Ok(match kind {
        "open-key" => {
            let key = OpenKey::from_bytes(bytes)?;
            format!("repository {} epochs {:?}", key.repository(), key.epochs())
        }
        "writer" => {
            let key = WriterCredential::from_bytes(bytes)?;
            format!(
                "repository {} epoch {} source emr {}",
                key.repository(),
                key.seal_key().epoch(),
                key.catalog().source_id("emr")
            )
        }
        "pruner" => format!("repository {}", PrunerCredential::from_bytes(bytes)?.repository()),
        "paper-key" => PaperKey::from_text(&text(bytes)).map(|_| "forty letters".to_owned())?,
        "machine-key" => MachineKey::from_text(&text(bytes)).map(|_| "64 digits".to_owned())?,
        "share" | "second-share" => {
            let share = Share::from_text(&text(bytes))?;
            format!("share {} of {}, {} needed, slot {}", share.number, share.total, share.threshold, share.slot)
        }
        other => panic!("no such kind: {other}"),
    })
}

/// Opened by each of its slots, it gives the open key of the vectors.
fn keyring(bytes: &[u8]) -> Result<String> {
    let ring = Keyring::parse(bytes)?;
    ring.header().features.require(Purpose::Read)?;
    let paper = PaperKey::from_text(&text(&read("paper-key.txt").body)).unwrap();
    let machine = MachineKey::from_text(&text(&read("machine-key.txt").body)).unwrap();
    let shares = ["share.txt", "second-share.txt"].map(|name| Share::from_text(&text(&read(name).body)).unwrap());
    for unlock in [Unlock::Paper(&paper), Unlock::Machine(&machine), Unlock::Shares(&shares)] {
        assert!(ring.open(&unlock)?.open_key().to_bytes() == open_key().to_bytes());
    }
    ring.check(open_key().catalog())?;
    Ok(format!("repository {} number {} epoch {}", ring.repository(), ring.header().number, ring.header().newest_epoch))
}

fn spans(pack: &PackRecord) -> Vec<(u32, u32, bool, usize)> {
    pack.segments.iter().map(|s| (s.offset, s.sealed_len, s.compressed, s.plain_len())).collect()
}

/// Opens every segment and recomputes every id.
fn pack(bytes: &[u8]) -> Result<String> {
    let open = open_key();
    let pack = open_pack(bytes, open.repository(), open.open_seed())?;
    let (opener, mut decoder) = (pack.opener(open.repository()), SegmentDecoder::new()?);
    for (slot, segment) in pack.segments.iter().enumerate() {
        let sealed = &bytes[segment.offset as usize..(segment.offset + segment.sealed_len) as usize];
        let plain = decoder.decode(segment.compressed, opener.open(slot as u32, sealed)?, segment.plain_len())?;
        let [(id, _)] = segment.chunks.as_slice() else { panic!("one chunk in each segment") };
        assert_eq!(open.id_key().chunk_id(pack.kind, &plain), *id);
    }
    Ok(format!("{} epoch {} {:?}", pack.name, pack.epoch, spans(&pack)))
}

fn parts(kind: PartsKind, bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let open = open_key();
    let parts = open_parts(kind, open.catalog(), bytes)?;
    let inner = parts.open_part(open.open_seed())?;
    Ok::<_, FormatError>((parts.catalog_part, inner))
}

fn page(bytes: &[u8]) -> Result<String> {
    Ok(match Page::parse(bytes)? {
        Page::Directory(nodes) => format!("{} entries", nodes.len()),
        Page::DirectoryIndex(pages) => format!("{} pages of entries", pages.len()),
        Page::Extents(extents) => format!("{} extents", extents.len()),
        Page::ExtentIndex(pages) => format!("{} pages of extents", pages.len()),
    })
}
