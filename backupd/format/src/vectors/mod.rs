//! The test vectors of `vectors/`: whole objects, and cases that edit them and name the expected answer.
//!
//! `cargo test -p backup-format write_vectors -- --ignored` writes them anew; a changed vector is a changed format.

mod answers;
mod cases;

use crate::ChunkId;
use crate::aead::{SlotCipher, SlotKey};
use crate::credential::WriterCredential;
use crate::samples::{Sample, nodes, sample};
use crate::sealed::{PartsKind, open_parts};
use crate::tree::{Node, NodeKind, put_node};
use answers::answer;
use cases::CASES;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

struct Vector {
    head: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// Reads a vector. Its body is hex digits; a line `zeros N key K slot S binding B` stands for the sealed padding, which
/// follows from the key, so that a vector of 64 KiB stays small.
fn read(name: &str) -> Vector {
    let text = fs::read_to_string(folder().join(name)).unwrap();
    let (head, lines) = text.split_once("\n\n").unwrap_or((&text, ""));
    let head = head.lines().filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_owned(), v.to_owned()));
    let mut body = Vec::new();
    for line in lines.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["zeros", count, "key", key, "slot", slot, "binding", binding] => {
                let key: [u8; 32] = hex::decode(key).unwrap().try_into().unwrap();
                let binding = hex::decode(binding).unwrap();
                let from = body.len();
                body.resize(from + count.parse::<usize>().unwrap(), 0);
                let cipher = SlotCipher::new(&SlotKey::from_bytes(key), &binding);
                cipher.seal_tail(slot.parse().unwrap(), &mut body, from).unwrap();
            }
            [digits] => body.extend(hex::decode(digits).unwrap()),
            _ => panic!("{name}: {line}"),
        }
    }
    Vector { head: head.collect(), body }
}

/// Where the padding of an object lies, and what sealed it.
struct Padding {
    at: usize,
    zeros: usize,
    key: [u8; 32],
    slot: u32,
    binding: Vec<u8>,
}

fn pack_padding(sample: &Sample) -> Padding {
    let (record, bytes) = (&sample.pack.record, &sample.pack.bytes);
    let (segment, cipher) = (record.segments.last().unwrap(), record.opener(sample.open.repository()));
    let at = (segment.offset + segment.sealed_len) as usize;
    let footer = cipher.open(u32::MAX, &bytes[bytes.len() - 24..]).unwrap();
    let directory = u32::from_le_bytes(footer[..4].try_into().unwrap()) as usize;
    let binding = crate::pack::binding(sample.open.repository(), record.kind, record.epoch, &record.id);
    Padding { at, zeros: directory - at - 16, key: *record.key.expose(), slot: u32::MAX - 2, binding }
}

/// Both parts of an index or snapshot object, and its padding.
fn parts_of(kind: PartsKind, sample: &Sample, bytes: &[u8]) -> (Vec<u8>, Vec<u8>, Padding) {
    let parts = open_parts(kind, sample.open.catalog(), bytes).unwrap();
    let open = parts.open_part(sample.open.open_seed()).unwrap();
    let at = 1236 + parts.catalog_part.len() + open.len() + 2 * 16;
    let (key, binding) = crate::sealed::padding_key(kind, sample.open.catalog(), bytes).unwrap();
    let padding = Padding { at, zeros: bytes.len() - at - 16, key: *key.expose(), slot: 2, binding };
    (parts.catalog_part, open, padding)
}

/// Every vector that is right: its kind, bytes, and padding that need not be written out.
fn whole_vectors(sample: &Sample) -> Vec<(&'static str, Vec<u8>, Option<Padding>)> {
    let (catalog_part, open_part, index_padding) = parts_of(PartsKind::Index, sample, &sample.index);
    let (outer, inner, snapshot_padding) = parts_of(PartsKind::Snapshot, sample, &sample.snapshot);
    let text = |text: &str| text.as_bytes().to_vec();
    let name = sample.head.name(&sample.head_bytes).to_string();
    let stone = sample.tombstone.name(&sample.tombstone_bytes).to_string();
    let run = sample.run.name(&sample.run_bytes).to_string();
    let plan = sample.plan.name(&sample.plan_bytes).to_string();
    let retired = sample.retirement.name(&sample.retirement_bytes).to_string();
    let page = |kind: u8, items: &[&[u8]]| {
        let mut page = vec![1, kind, items.len() as u8];
        items.iter().for_each(|item| page.extend_from_slice(item));
        page
    };
    let (a, m) = ([b"\x01a".as_slice(), &[7; 32]].concat(), [b"\x01m".as_slice(), &[8; 32]].concat());
    let mut link = Vec::new();
    let target = NodeKind::Symlink { target: b"../e".to_vec() };
    put_node(&mut link, &Node { kind: target, ..nodes(ChunkId([1; 32])).swap_remove(4) }).unwrap();
    let mut directory = Vec::new();
    crate::pack::put_directory(&mut directory, &sample.pack.record.segments);
    let extent = [[110u8].as_slice(), &[9; 32]].concat();
    let plain: Vec<(&'static str, Vec<u8>)> = vec![
        ("keyring", sample.keyring.clone()),
        ("head", sample.head_bytes.clone()),
        ("tombstone", sample.tombstone_bytes.clone()),
        ("tombstone-run", sample.run_bytes.clone()),
        ("plan", sample.plan_bytes.clone()),
        ("order", sample.order_bytes.clone()),
        ("retirement", sample.retirement_bytes.clone()),
        ("catalog-part", catalog_part),
        ("open-part", open_part),
        ("pack-directory", directory),
        ("outer-manifest", outer),
        ("inner-manifest", inner),
        ("directory-page", sample.pages[0].clone()),
        ("index-page", page(2, &[&a, &m])),
        ("link-page", page(1, &[&link])),
        ("extents-page", page(3, &[&extent, &[1, 9]])),
        ("extent-index-page", page(4, &[&a[1..], &m[1..]])),
        ("open-key", sample.open.to_bytes().to_vec()),
        ("writer", sample.writer.to_bytes().to_vec()),
        ("pruner", sample.pruner.to_bytes().to_vec()),
        ("paper-key", text(&sample.paper.to_text())),
        ("share", text(&sample.shares[0].to_text())),
        ("second-share", text(&sample.shares[2].to_text())),
        ("machine-key", text(&sample.machine.to_text())),
        ("head-name", text(&name)),
        ("tombstone-name", text(&stone)),
        ("run-name", text(&run)),
        ("plan-name", text(&plan)),
        ("retirement-name", text(&retired)),
    ];
    let sealed = [
        ("pack", sample.pack.bytes.clone(), Some(pack_padding(sample))),
        ("index", sample.index.clone(), Some(index_padding)),
        ("snapshot", sample.snapshot.clone(), Some(snapshot_padding)),
    ];
    plain.into_iter().map(|(kind, bytes)| (kind, bytes, None)).chain(sealed).collect()
}

/// The body of a vector's file.
fn written(bytes: &[u8], padding: Option<&Padding>) -> String {
    let lines = |bytes: &[u8]| bytes.chunks(60).map(|line| hex::encode(line) + "\n").collect::<String>();
    let Some(padding) = padding else { return lines(bytes) };
    let (key, binding) = (hex::encode(padding.key), hex::encode(&padding.binding));
    let zeros = format!("zeros {} key {key} slot {} binding {binding}\n", padding.zeros, padding.slot);
    lines(&bytes[..padding.at]) + &zeros + &lines(&bytes[padding.at + padding.zeros + 16..])
}

fn edited(mut bytes: Vec<u8>, edits: &str) -> Vec<u8> {
    for edit in edits.split(';') {
        let words: Vec<&str> = edit.split(' ').collect();
        // Positions below 0 count from the end.
        let position = |word: &str| {
            let at: isize = word.parse().unwrap();
            if at < 0 { bytes.len() - at.unsigned_abs() } else { at.unsigned_abs() }
        };
        let value = |word: &str| hex::decode(word).unwrap();
        match words.as_slice() {
            ["truncate", at] => bytes.truncate(position(at)),
            ["append", more] => bytes.extend(value(more)),
            ["set", at, new] => {
                let (at, new) = (position(at), value(new));
                bytes[at..at + new.len()].copy_from_slice(&new);
            }
            ["insert", at, new] => {
                let at = position(at);
                drop(bytes.splice(at..at, value(new)).collect::<Vec<u8>>());
            }
            ["fill", at, count, with] => {
                let (at, count) = (position(at), count.parse::<usize>().unwrap());
                bytes[at..at + count].fill(value(with)[0]);
            }
            ["swap", a, b, count] => {
                let (a, b, count) = (position(a), position(b), count.parse::<usize>().unwrap());
                for at in 0..count {
                    bytes.swap(a + at, b + at);
                }
            }
            ["flip", at, with] => {
                let at = position(at);
                bytes[at] ^= value(with)[0];
            }
            _ => panic!("no such edit: {edit}"),
        }
    }
    bytes
}

#[test]
fn every_vector_gets_its_answer() {
    let (mut whole, mut malformed) = (0, 0);
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let vector = read(&name);
        let Some(kind) = vector.head.get("kind") else { continue };
        let bytes = match vector.head.get("from") {
            Some(from) => edited(read(from).body, &vector.head["edit"]),
            None => vector.body,
        };
        let (said, expected) = (answer(kind, &bytes), &vector.head["expect"]);
        assert!(said.starts_with(expected.as_str()), "{name}: {said}");
        if expected.starts_with("ok") { whole += 1 } else { malformed += 1 }
    }
    assert_eq!(whole + malformed, CASES.len() + whole_vectors(&sample(2026)).len());
    assert!(malformed > 3 * whole, "{malformed} malformed beside {whole} whole ones");
}

#[test]
fn this_release_writes_the_bytes_of_the_vectors() {
    let sample = sample(2026);
    for (kind, bytes, _) in whole_vectors(&sample) {
        assert!(read(&format!("{kind}.txt")).body == bytes, "{kind}");
    }
    let writer = WriterCredential::from_bytes(&read("writer.txt").body).unwrap();
    assert!(sample.head.sign(&writer).unwrap() == sample.head_bytes);
}

#[test]
#[ignore = "writes the vectors anew: only when the format's version changes"]
fn write_vectors() {
    fs::create_dir_all(folder()).unwrap();
    let sample = sample(2026);
    let write = |name: &str, text: String| fs::write(folder().join(name), text).unwrap();
    let whole = whole_vectors(&sample);
    // All bodies first: an answer needs the keys among them.
    for (kind, bytes, padding) in &whole {
        write(&format!("{kind}.txt"), format!("kind: {kind}\n\n{}", written(bytes, padding.as_ref())));
    }
    for (kind, bytes, padding) in &whole {
        let head = format!("kind: {kind}\nexpect: {}", answer(kind, bytes));
        write(&format!("{kind}.txt"), format!("{head}\n\n{}", written(bytes, padding.as_ref())));
    }
    for (kind, name, edit, expect) in CASES {
        let text = format!("kind: {kind}\nfrom: {kind}.txt\nedit: {edit}\nexpect: {expect}\n");
        write(&format!("{kind}-{name}.txt"), text);
    }
}

const CONSTANTS: &[(&str, u64)] = &[
    ("OBJECT_BYTES_MAX", crate::sealed::OBJECT_BYTES_MAX as u64),
    ("CHUNK_BYTES_MAX", crate::segment::CHUNK_BYTES_MAX as u64),
    ("SEGMENT_PLAIN_BYTES_MAX", crate::segment::SEGMENT_PLAIN_BYTES_MAX as u64),
    ("SEGMENT_CHUNKS_MAX", crate::segment::SEGMENT_CHUNKS_MAX as u64),
    ("PACK_SEGMENTS_MAX", crate::pack::PACK_SEGMENTS_MAX as u64),
    ("INDEX_PACKS_MAX", crate::index::INDEX_PACKS_MAX as u64),
    ("NAME_BYTES_MAX", crate::manifest::NAME_BYTES_MAX as u64),
    ("FACTS_BYTES_MAX", crate::manifest::FACTS_BYTES_MAX as u64),
    ("PATH_BYTES_MAX", crate::manifest::PATH_BYTES_MAX as u64),
    ("PARTS_MAX", crate::manifest::PARTS_MAX as u64),
    ("UNREADABLE_LISTED_MAX", crate::manifest::UNREADABLE_LISTED_MAX as u64),
    ("OWNERS_MAX", crate::manifest::OWNERS_MAX as u64),
    ("ENTRY_NAME_BYTES_MAX", crate::tree::ENTRY_NAME_BYTES_MAX as u64),
    ("LINK_TARGET_BYTES_MAX", crate::tree::LINK_TARGET_BYTES_MAX as u64),
    ("XATTRS_MAX", crate::tree::XATTRS_MAX as u64),
    ("XATTR_VALUE_BYTES_MAX", crate::tree::XATTR_VALUE_BYTES_MAX as u64),
    ("INLINE_EXTENTS_MAX", crate::tree::INLINE_EXTENTS_MAX as u64),
    ("PAGE_LEVELS_MAX", crate::tree::PAGE_LEVELS_MAX as u64),
    ("SEEN_MAX", crate::head::SEEN_MAX as u64),
    ("HEAD_BYTES_MAX", crate::head::HEAD_BYTES_MAX as u64),
    ("TOMBSTONE_BYTES_MAX", crate::tombstone::TOMBSTONE_BYTES_MAX as u64),
    ("PLAN_BYTES_MAX", crate::condemned::PLAN_BYTES_MAX as u64),
    ("PLAN_CHAINS_MAX", crate::condemned::PLAN_CHAINS_MAX as u64),
    ("PLAN_HEADS_MAX", crate::condemned::PLAN_HEADS_MAX as u64),
    ("PLAN_INDEXES_MAX", crate::condemned::PLAN_INDEXES_MAX as u64),
    ("PLAN_PACKS_MAX", crate::condemned::PLAN_PACKS_MAX as u64),
    ("PLAN_TOMBSTONES_MAX", crate::condemned::PLAN_TOMBSTONES_MAX as u64),
    ("RETIREMENT_BYTES_MAX", crate::retirement::RETIREMENT_BYTES_MAX as u64),
    ("KEYRING_BYTES_MAX", crate::keyring::KEYRING_BYTES_MAX as u64),
    ("SLOTS_MAX", crate::slot::SLOTS_MAX as u64),
    ("SHARES_MAX", crate::share::SHARES_MAX as u64),
    ("EPOCHS_MAX", crate::keys::EPOCHS_MAX as u64),
    ("EXTENSIONS_MAX", crate::wire::EXTENSIONS_MAX as u64),
    ("EXTENSION_BYTES_MAX", crate::wire::EXTENSION_BYTES_MAX as u64),
    ("SEAL_KEY_BYTES", crate::seal::SEAL_KEY_BYTES as u64),
    ("WRAPPED_KEY_BYTES", crate::seal::WRAPPED_KEY_BYTES as u64),
    ("ARGON2_MEMORY_KIB", crate::slot::ARGON2_MEMORY_KIB as u64),
    ("ARGON2_PASSES", crate::slot::ARGON2_PASSES as u64),
    ("ARGON2_MEMORY_KIB_MAX", crate::slot::ARGON2_MEMORY_KIB_MAX as u64),
    ("ARGON2_PASSES_MAX", crate::slot::ARGON2_PASSES_MAX as u64),
    ("ARGON2_LANES_MAX", crate::slot::ARGON2_LANES_MAX as u64),
    ("FORMAT_VERSION", crate::FORMAT_VERSION as u64),
    ("KEYRING_VERSION", crate::KEYRING_VERSION as u64),
    ("KEY_FILE_VERSION", crate::KEY_FILE_VERSION as u64),
    ("PAGE_VERSION", crate::tree::PAGE_VERSION as u64),
];

/// The strings of section 3.1 and where the code has them.
const STRINGS: &[(&str, &str)] = &[
    ("DATA_ID", crate::keys::CONTEXT_DATA_ID),
    ("TREE_ID", crate::keys::CONTEXT_TREE_ID),
    ("SOURCE_ID", crate::keys::CONTEXT_SOURCE_ID),
    ("CATALOG_PART", crate::sealed::CONTEXT_CATALOG_PART),
    ("WRAPPED", crate::seal::CONTEXT),
    ("SECRETS", crate::keyring::CONTEXT_SECRETS),
    ("SLOT_PASSPHRASE", crate::slot::CONTEXT_PASSPHRASE),
    ("SLOT_PAPER", crate::slot::CONTEXT_PAPER),
    ("SLOT_SHARES", crate::slot::CONTEXT_SHARES),
    ("SLOT_MACHINE", crate::slot::CONTEXT_MACHINE),
    ("PAPER_CHECK", crate::paper::CONTEXT_CHECK),
    ("SHARE_CHECK", crate::share::CONTEXT_CHECK),
    ("WRITER_CHECK", crate::credential::CONTEXT_WRITER_CHECK),
];

#[test]
fn the_specification_and_the_code_name_the_same_strings() {
    let text = include_str!("../../SPEC.md");
    let strings = text.split("### 3.1 Strings").nth(1).and_then(|rest| rest.split("\n### ").next()).unwrap();
    let spec: Vec<(&str, &str)> = strings
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            Some((cells.next()?, cells.next()?.strip_prefix('`')?.strip_suffix('`')?))
        })
        .collect();
    assert_eq!(spec, STRINGS);
    for magic in [
        crate::MAGIC_KEYRING,
        crate::MAGIC_WRITER,
        crate::MAGIC_OPEN_KEY,
        crate::MAGIC_PRUNER,
        crate::MAGIC_PACK,
        crate::MAGIC_INDEX,
        crate::MAGIC_SNAPSHOT,
        crate::MAGIC_HEAD,
        crate::MAGIC_TOMBSTONE,
        crate::MAGIC_PLAN,
        crate::MAGIC_RETIREMENT,
    ] {
        assert!(text.contains(&format!("`\"{}\"", std::str::from_utf8(magic).unwrap())));
    }
}

#[test]
fn the_specification_and_the_code_name_the_same_constants() {
    let code: BTreeMap<&str, u64> = CONSTANTS.iter().copied().collect();
    let text = include_str!("../../SPEC.md");
    let limits = text.split("## 9. Limits").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let spec: BTreeMap<&str, u64> = limits
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            Some((cells.next()?, cells.next()?.parse().ok()?))
        })
        .collect();
    assert_eq!(spec, code);
}
