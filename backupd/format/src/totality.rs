//! Every parser on whole, cut, changed and random bytes: it answers, and it never panics.

use crate::condemned::{Plan, PlanName};
use crate::credential::{OpenKey, PrunerCredential, WriterCredential};
use crate::head::{Head, HeadName};
use crate::index::{parse_catalog, parse_open};
use crate::keyring::Keyring;
use crate::manifest::{InnerManifest, OuterManifest};
use crate::pack::open_pack;
use crate::pages::{build_content, build_directory};
use crate::retirement::{Retirement, RetirementName};
use crate::samples::{Sample, nodes, sample};
use crate::sealed::{PartsKind, class_for, open_parts};
use crate::segment::SegmentDecoder;
use crate::slot::Unlock;
use crate::testing::rng;
use crate::tombstone::{Tombstone, TombstoneName};
use crate::tree::{Content, Extent, Page};
use crate::{ChunkId, ChunkKind, FormatError, ObjectHash};
use rand_core::Rng;
use std::collections::HashMap;

type Parser<'a> = Box<dyn Fn(&[u8]) -> Result<(), FormatError> + 'a>;

/// Name, a valid input, the parser, and whether every changed byte must be refused.
fn parsers(sample: &Sample) -> Vec<(&'static str, Vec<u8>, Parser<'_>, bool)> {
    let open_both = |kind, bytes: &[u8]| {
        let parts = open_parts(kind, sample.open.catalog(), bytes)?;
        parts.open_part(sample.open.open_seed()).map(|open| (parts.catalog_part, open))
    };
    let index_parts = open_both(PartsKind::Index, &sample.index).unwrap();
    let catalog = parse_catalog(&index_parts.0).unwrap();
    let plain = |text: &str| String::from_utf8(text.as_bytes().to_vec()).unwrap();
    let head_name = plain(&sample.head.name(&sample.head_bytes).to_string());
    vec![
        (
            "keyring",
            sample.keyring.clone(),
            Box::new(|bytes| Keyring::parse(bytes)?.open(&Unlock::Paper(&sample.paper)).map(drop)),
            true,
        ),
        (
            "pack",
            sample.pack.bytes.clone(),
            Box::new(|bytes| {
                // The name is part of the check: it covers the segments, which are not opened here.
                let found = open_pack(bytes, sample.open.repository(), sample.open.open_seed())?;
                if found.name == sample.pack.record.name { Ok(()) } else { Err(FormatError::Sealed { what: "pack" }) }
            }),
            true,
        ),
        ("index", sample.index.clone(), Box::new(move |bytes| open_both(PartsKind::Index, bytes).map(drop)), true),
        (
            "snapshot",
            sample.snapshot.clone(),
            Box::new(move |bytes| open_both(PartsKind::Snapshot, bytes).map(drop)),
            true,
        ),
        ("head", sample.head_bytes.clone(), Box::new(|bytes| Head::open(bytes, sample.open.catalog()).map(drop)), true),
        (
            "tombstone",
            sample.tombstone_bytes.clone(),
            Box::new(|bytes| Tombstone::open(bytes, sample.open.catalog()).map(drop)),
            true,
        ),
        (
            "tombstone of a run",
            sample.run_bytes.clone(),
            Box::new(|bytes| Tombstone::open(bytes, sample.open.catalog()).map(drop)),
            true,
        ),
        (
            "order",
            sample.order_bytes.clone(),
            Box::new(|bytes| Plan::open(bytes, sample.open.catalog()).map(drop)),
            true,
        ),
        (
            "name of a run",
            sample.run.name(&sample.run_bytes).to_string().into_bytes(),
            Box::new(|bytes| String::from_utf8_lossy(bytes).parse::<TombstoneName>().map(drop)),
            false,
        ),
        ("plan", sample.plan_bytes.clone(), Box::new(|bytes| Plan::open(bytes, sample.open.catalog()).map(drop)), true),
        (
            "retirement",
            sample.retirement_bytes.clone(),
            Box::new(|bytes| Retirement::open(bytes, sample.open.catalog()).map(drop)),
            true,
        ),
        (
            "plan name",
            sample.plan.name(&sample.plan_bytes).to_string().into_bytes(),
            Box::new(|bytes| String::from_utf8_lossy(bytes).parse::<PlanName>().map(drop)),
            false,
        ),
        (
            "retirement name",
            sample.retirement.name(&sample.retirement_bytes).to_string().into_bytes(),
            Box::new(|bytes| String::from_utf8_lossy(bytes).parse::<RetirementName>().map(drop)),
            false,
        ),
        (
            "pruner credential",
            sample.pruner.to_bytes().to_vec(),
            Box::new(|bytes| PrunerCredential::from_bytes(bytes).map(drop)),
            false,
        ),
        (
            "tombstone name",
            sample.tombstone.name(&sample.tombstone_bytes).to_string().into_bytes(),
            Box::new(|bytes| String::from_utf8_lossy(bytes).parse::<TombstoneName>().map(drop)),
            false,
        ),
        (
            "writer credential",
            sample.writer.to_bytes().to_vec(),
            Box::new(|bytes| WriterCredential::from_bytes(bytes).map(drop)),
            false,
        ),
        ("open key", sample.open.to_bytes().to_vec(), Box::new(|bytes| OpenKey::from_bytes(bytes).map(drop)), false),
        ("catalog part", index_parts.0, Box::new(|bytes| parse_catalog(bytes).map(drop)), false),
        ("open part", index_parts.1, Box::new(move |bytes| parse_open(&catalog, bytes).map(drop)), false),
        (
            "outer manifest",
            sample.outer.encode().unwrap(),
            Box::new(|bytes| OuterManifest::parse(bytes).map(drop)),
            false,
        ),
        (
            "inner manifest",
            sample.inner.encode().unwrap(),
            Box::new(|bytes| InnerManifest::parse(bytes).map(drop)),
            false,
        ),
        ("tree page", sample.pages[0].clone(), Box::new(|bytes| Page::parse(bytes).map(drop)), false),
        (
            "head name",
            head_name.into_bytes(),
            Box::new(|bytes| String::from_utf8_lossy(bytes).parse::<HeadName>().map(drop)),
            false,
        ),
    ]
}

#[test]
fn no_parser_panics_and_no_changed_sealed_byte_passes() {
    let sample = sample(1);
    let mut rng = rng(2);
    for (name, valid, parse, sealed) in parsers(&sample) {
        assert_eq!(parse(&valid), Ok(()), "{name}");
        let steps = valid.len().div_ceil(300);
        for len in (0..valid.len()).step_by(steps) {
            assert!(parse(&valid[..len]).is_err(), "{name} cut to {len}");
        }
        let longer = [valid.as_slice(), b"x"].concat();
        assert!(parse(&longer).is_err(), "{name} with a further byte");
        for round in 0..400 {
            let mut changed = valid.clone();
            let at = if round < 200 { round % valid.len() } else { rng.next_u32() as usize % valid.len() };
            changed[at] ^= 1 << (rng.next_u32() % 8);
            let result = parse(&changed);
            assert!(!sealed || result.is_err(), "{name} changed at {at}");
        }
        for len in [0, 1, 5, 6, 7, 40, 300, 5000, 1 << 16] {
            let mut random = vec![0; len];
            rng.fill_bytes(&mut random);
            let _ = parse(&random);
            // Behind a valid beginning, random bytes get further in.
            let from = valid.len().min(len) / 2;
            random[..from].copy_from_slice(&valid[..from]);
            let _ = parse(&random);
        }
    }
}

#[test]
fn an_unknown_version_is_refused_by_name_and_is_not_damage() {
    let sample = sample(1);
    for (name, valid, parse, _) in parsers(&sample) {
        let has_preamble = valid.starts_with(b"HF");
        if has_preamble {
            let mut newer = valid.clone();
            newer[5] = 9;
            assert!(matches!(parse(&newer), Err(FormatError::UnknownVersion { version: 0x900, .. })), "{name}");
            let mut unreleased = valid.clone();
            unreleased[4..6].copy_from_slice(&[1, 0]);
            let said = parse(&unreleased).unwrap_err().to_string();
            assert!(said.contains("0.1 (never released)") && said.contains("use the release that wrote it"), "{said}");
            let mut other = valid.clone();
            other[0] = b'X';
            assert!(matches!(parse(&other), Err(FormatError::NotThis { .. })), "{name}");
        }
    }
    let mut page = sample.pages[0].clone();
    page[0] = 2;
    assert!(matches!(Page::parse(&page), Err(FormatError::UnknownVersion { version: 0x200, .. })));
}

#[test]
fn keys_of_another_repository_open_nothing() {
    let (mine, other) = (sample(1), sample(3));
    for (name, valid, _, sealed) in parsers(&mine) {
        let theirs = parsers(&other).into_iter().find(|(same, ..)| *same == name);
        assert!(theirs.is_some_and(|(_, _, parse, _)| !sealed || parse(&valid).is_err()), "{name}");
    }
}

#[test]
fn manifests_pages_and_packs_say_the_same_after_a_round_trip() {
    let sample = sample(1);
    assert_eq!(OuterManifest::parse(&sample.outer.encode().unwrap()), Ok(sample.outer.clone()));
    assert_eq!(InnerManifest::parse(&sample.inner.encode().unwrap()), Ok(sample.inner.clone()));
    assert_eq!(Head::open(&sample.head_bytes, sample.open.catalog()), Ok(sample.head.clone()));
    assert_eq!(sample.head.name(&sample.head_bytes).to_string().parse(), Ok(sample.head.name(&sample.head_bytes)));
    let id = sample.pack.record.segments[0].chunks[0].0;
    assert_eq!(Page::parse(&sample.pages[0]), Ok(Page::Directory(nodes(id))));
    let opened = open_pack(&sample.pack.bytes, sample.open.repository(), sample.open.open_seed()).unwrap();
    assert_eq!(opened.segments, sample.pack.record.segments);
    let segment = &opened.segments[0];
    let sealed = &sample.pack.bytes[segment.offset as usize..(segment.offset + segment.sealed_len) as usize];
    let body = opened.opener(sample.open.repository()).open(0, sealed).unwrap();
    let plain = SegmentDecoder::new().unwrap().decode(segment.compressed, body, segment.plain_len()).unwrap();
    assert_eq!(plain, crate::samples::CONTENT);
    assert!(class_for(sample.pack.bytes.len()) == Some(sample.pack.bytes.len()));
}

#[test]
fn names_that_leave_the_target_are_refused_by_the_parser() {
    let sample = sample(1);
    let good = &sample.pages[0];
    // The first entry's name is the single byte `a`.
    let at = good.windows(2).position(|pair| pair == [1, b'a']).unwrap();
    for bad in [b'/', 0, b'.'] {
        let mut page = good.clone();
        page[at + 1] = bad;
        assert!(Page::parse(&page).is_err());
    }
}

/// Pages by id, as a store would keep them.
fn pages_of(nodes: &[crate::tree::Node]) -> (ChunkId, HashMap<ChunkId, Vec<u8>>) {
    let mut pages = HashMap::new();
    let root = build_directory(nodes, &mut |page| {
        let id = ChunkId(ObjectHash::of(page).0);
        pages.insert(id, page.to_vec());
        Ok::<_, crate::FormatError>(id)
    });
    (root.unwrap(), pages)
}

#[test]
fn one_changed_entry_in_a_large_directory_rewrites_few_pages() {
    let template = nodes(ChunkId([1; 32])).swap_remove(4);
    let mut entries: Vec<_> = (0..20_000u32)
        .map(|at| crate::tree::Node { name: format!("{at:08}").into_bytes(), ..template.clone() })
        .collect();
    let (_, before) = pages_of(&entries);
    entries[9_999].mtime_s += 1;
    entries.remove(5_000);
    let (_, after) = pages_of(&entries);
    let new = after.keys().filter(|id| !before.contains_key(*id)).count();
    assert!(before.len() > 40 && new <= 8, "{} pages, {new} new", before.len());
}

#[test]
fn a_long_chunk_list_is_paged_and_adds_up() {
    let extents: Vec<Extent> = (0..50_000u32)
        .map(|at| match at % 10 {
            9 => Extent::Hole { len: 77 },
            _ => Extent::Data { id: ChunkId(*blake3::hash(&at.to_le_bytes()).as_bytes()), len: 100 },
        })
        .collect();
    let mut pages = HashMap::new();
    let content = build_content(&extents, &mut |page| {
        let id = ChunkId(ObjectHash::of(page).0);
        pages.insert(id, page.to_vec());
        Ok::<_, crate::FormatError>(id)
    });
    let Ok(Content::Paged(root)) = content else { panic!("a long list has pages of its own") };
    let mut found = Vec::new();
    let mut stack = vec![root];
    while let Some(id) = stack.pop() {
        match Page::parse(&pages[&id]).unwrap() {
            Page::Extents(extents) => found.extend(extents),
            Page::ExtentIndex(below) => stack.extend(below.into_iter().rev().map(|(_, id)| id)),
            _ => panic!("a page of another kind"),
        }
    }
    assert!(found == extents);
}

#[test]
fn chunk_kinds_have_ids_of_their_own() {
    let sample = sample(1);
    let key = sample.writer.id_key();
    assert_ne!(key.chunk_id(ChunkKind::Data, b"x"), key.chunk_id(ChunkKind::Tree, b"x"));
}
