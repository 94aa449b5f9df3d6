//! The test vectors of `vectors/`: whole objects, and cases that edit them and name the expected answer.
//!
//! `cargo test -p backup-format write_vectors -- --ignored` writes them anew; a changed vector is a changed format.

use crate::aead::{SlotCipher, SlotKey};
use crate::credential::{OpenKey, WriterCredential};
use crate::features::Purpose;
use crate::head::Head;
use crate::keyring::Keyring;
use crate::manifest::{InnerManifest, OuterManifest};
use crate::pack::open_pack;
use crate::paper::PaperKey;
use crate::samples::{Sample, sample};
use crate::sealed::{PartsKind, open_parts};
use crate::slot::Unlock;
use crate::tombstone::Tombstone;
use crate::{FormatError, ObjectHash};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// Malformed forms of each object: name, edits, the start of the expected answer.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("keyring", "cut-in-slot", "truncate 200", "keyring ends too early"),
    ("keyring", "newer-version", "set 4 0002", "keyring has version 2.0, and this release reads version 1.0"),
    ("keyring", "never-released", "set 4 0100", "keyring has version 0.1 (never released)"),
    ("keyring", "no-slots", "set 90 00", "keyring is larger than the format allows"),
    ("keyring", "unknown-read-feature", "set 30 0001", "the repository uses read feature 8,"),
    ("keyring", "flipped-salt", "flip 60 01", "wrapped key does not open with this key"),
    ("keyring", "flipped-number", "flip 22 01", "keyring does not open with this key"),
    ("keyring", "flipped-signature", "flip -1 01", "the signature of keyring is not valid"),
    ("pack", "wrong-magic", "set 0 00", "this is not a pack"),
    ("pack", "newer-version", "set 4 0002", "pack has version 2.0, and this release reads version 1.0"),
    ("pack", "not-a-class", "truncate 65535", "pack is malformed"),
    ("pack", "stream", "set 6 03", "chunk is of kind 3, which this release does not know"),
    ("pack", "unknown-epoch", "set 8 09", "pack is sealed to epoch 9, which this key does not hold"),
    ("pack", "other-epoch", "set 8 01", "wrapped key does not open with this key"),
    ("pack", "flipped-wrapped-key", "flip 700 80", "wrapped key does not open with this key"),
    ("pack", "flipped-footer", "flip 65530 01", "pack does not open with this key"),
    ("index", "newer-version", "set 4 00ff", "index object has version 255.0, and this release reads version 1.0"),
    ("index", "flipped-padding", "flip 40000 01", "index object does not open with this key"),
    ("index", "flipped-lengths", "flip 1214 01", "index object does not open with this key"),
    ("snapshot", "is-an-index", "set 0 48466978", "this is not a snapshot object"),
    ("snapshot", "flipped-salt", "flip 13 01", "snapshot object does not open with this key"),
    ("snapshot", "unknown-epoch", "set 8 09", "snapshot object is sealed to epoch 9"),
    ("snapshot", "empty", "truncate 0", "snapshot object ends too early"),
    ("head", "other-repository", "flip 6 01", "head belongs to another repository"),
    ("head", "counter-without-predecessor", "set 54 0100000000000000", "head is malformed"),
    ("head", "flipped-snapshot", "flip 70 01", "the signature of head is not valid"),
    ("head", "flipped-certificate", "flip 150 01", "the signature of head is not valid"),
    ("head", "cut", "truncate 90", "head ends too early"),
    ("tombstone", "flipped-reason", "flip 166 02", "the signature of tombstone is not valid"),
    ("tombstone", "no-reason", "set 166 00", "tombstone is malformed"),
    ("tombstone", "cut", "truncate 300", "tombstone ends too early"),
];

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

fn padding_of(kind: &str, sample: &Sample, bytes: &[u8]) -> Option<Padding> {
    match kind {
        "pack" => {
            let record = &sample.pack.record;
            let (segment, cipher) = (record.segments.last().unwrap(), record.opener(sample.open.repository()));
            let at = (segment.offset + segment.sealed_len) as usize;
            let footer = cipher.open(u32::MAX, &bytes[bytes.len() - 24..]).unwrap();
            let directory = u32::from_le_bytes(footer[..4].try_into().unwrap()) as usize;
            let binding = crate::pack::binding(sample.open.repository(), record.kind, record.epoch, &record.id);
            Some(Padding { at, zeros: directory - at - 16, key: *record.key.expose(), slot: u32::MAX - 2, binding })
        }
        "index" | "snapshot" => {
            let kind = if kind == "index" { PartsKind::Index } else { PartsKind::Snapshot };
            let parts = open_parts(kind, sample.open.catalog(), bytes).unwrap();
            let open = parts.open_part(sample.open.open_seed()).unwrap();
            let at = 1236 + parts.catalog_part.len() + open.len() + 2 * 16;
            let (key, binding) = crate::sealed::padding_key(kind, sample.open.catalog(), bytes).unwrap();
            Some(Padding { at, zeros: bytes.len() - at - 16, key: *key.expose(), slot: 2, binding })
        }
        _ => None,
    }
}

/// The body of a vector's file.
fn written(bytes: &[u8], padding: Option<Padding>) -> String {
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
        let at: isize = words[1].parse().unwrap();
        let at = if at < 0 { bytes.len() - at.unsigned_abs() } else { at.unsigned_abs() };
        let value = || hex::decode(words[2]).unwrap();
        match words[0] {
            "truncate" => bytes.truncate(at),
            "set" => bytes[at..at + value().len()].copy_from_slice(&value()),
            "insert" => drop(bytes.splice(at..at, value()).collect::<Vec<u8>>()),
            "flip" => bytes[at] ^= value()[0],
            other => panic!("no such edit: {other}"),
        }
    }
    bytes
}

/// Opens an object with the vectors' keys and says in one line what it holds.
fn answer(kind: &str, bytes: &[u8]) -> String {
    let keys = read("keys.txt");
    let open = OpenKey::from_bytes(&hex::decode(&keys.head["open-key"]).unwrap()).unwrap();
    let parts = |kind| {
        let parts = open_parts(kind, open.catalog(), bytes)?;
        let inner = parts.open_part(open.open_seed())?;
        Ok::<_, FormatError>((parts.catalog_part, inner))
    };
    let said = match kind {
        "keyring" => {
            let paper = PaperKey::from_text(&keys.head["paper-key"]).unwrap();
            let opened = Keyring::parse(bytes).and_then(|ring| {
                ring.header().features.require(Purpose::Read)?;
                ring.open(&Unlock::Paper(&paper))
            });
            opened.map(|secrets| {
                let same = secrets.open_key().to_bytes() == open.to_bytes();
                format!("ok: repository {} open key {same}", secrets.repository())
            })
        }
        "pack" => open_pack(bytes, open.repository(), open.open_seed()).map(|pack| {
            let segment = &pack.segments[0];
            format!("ok: {} segment {}+{} chunk {}", pack.name, segment.offset, segment.sealed_len, segment.chunks[0].0)
        }),
        "index" => parts(PartsKind::Index).map(|(catalog, inner)| {
            format!("ok: catalog {} open {}", ObjectHash::of(&catalog), ObjectHash::of(&inner))
        }),
        "snapshot" => parts(PartsKind::Snapshot).map(|(outer, inner)| {
            let (outer, inner) = (OuterManifest::parse(&outer).unwrap(), InnerManifest::parse(&inner).unwrap());
            format!(
                "ok: source {} counter {} root {} parts {}",
                outer.source,
                outer.counter,
                outer.root,
                inner.parts.len()
            )
        }),
        "head" => Head::open(bytes, open.catalog())
            .map(|head| format!("ok: counter {} snapshot {} {}", head.counter, head.snapshot, head.name(bytes))),
        "tombstone" => Tombstone::open(bytes, open.catalog())
            .map(|stone| format!("ok: counter {} head {} {}", stone.counter, stone.head, stone.name(bytes))),
        other => panic!("no such kind: {other}"),
    };
    said.unwrap_or_else(|error| error.to_string())
}

#[test]
fn every_vector_gets_its_answer() {
    let mut seen = 0;
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
        seen += 1;
    }
    assert_eq!(seen, CASES.len() + 6);
}

#[test]
fn this_release_writes_the_bytes_of_the_vectors() {
    let sample = sample(2026);
    assert!(read("keyring.txt").body == sample.keyring);
    assert!(read("index.txt").body == sample.index);
    assert!(read("pack.txt").body == sample.pack.bytes);
    assert!(read("snapshot.txt").body == sample.snapshot);
    assert!(read("head.txt").body == sample.head_bytes);
    assert!(read("tombstone.txt").body == sample.tombstone_bytes);
    let keys = read("keys.txt");
    let writer = WriterCredential::from_bytes(&hex::decode(&keys.head["writer-credential"]).unwrap()).unwrap();
    assert!(sample.head.sign(&writer).unwrap() == sample.head_bytes);
}

#[test]
#[ignore = "writes the vectors anew: only when the format's version changes"]
fn write_vectors() {
    fs::create_dir_all(folder()).unwrap();
    let sample = sample(2026);
    let write = |name: &str, text: String| fs::write(folder().join(name), text).unwrap();
    write(
        "keys.txt",
        format!(
            "note: test keys, never used for records\npaper-key: {}\nopen-key: {}\nwriter-credential: {}\n",
            sample.paper.to_text().as_str(),
            hex::encode(sample.open.to_bytes()),
            hex::encode(sample.writer.to_bytes())
        ),
    );
    let objects = [
        ("keyring", &sample.keyring),
        ("pack", &sample.pack.bytes),
        ("index", &sample.index),
        ("snapshot", &sample.snapshot),
        ("head", &sample.head_bytes),
        ("tombstone", &sample.tombstone_bytes),
    ];
    for (kind, bytes) in objects {
        let head = format!("kind: {kind}\nexpect: {}", answer(kind, bytes));
        let body = written(bytes, padding_of(kind, &sample, bytes));
        write(&format!("{kind}.txt"), format!("{head}\n\n{body}"));
    }
    for (kind, name, edit, expect) in CASES {
        let text = format!("kind: {kind}\nfrom: {kind}.txt\nedit: {edit}\nexpect: {expect}\n");
        write(&format!("{kind}-{name}.txt"), text);
    }
}

#[test]
fn the_specification_and_the_code_name_the_same_constants() {
    let code: BTreeMap<&str, u64> = BTreeMap::from([
        ("OBJECT_BYTES_MAX", crate::sealed::OBJECT_BYTES_MAX as u64),
        ("CHUNK_BYTES_MAX", crate::segment::CHUNK_BYTES_MAX as u64),
        ("SEGMENT_PLAIN_BYTES_MAX", crate::segment::SEGMENT_PLAIN_BYTES_MAX as u64),
        ("SEGMENT_CHUNKS_MAX", crate::segment::SEGMENT_CHUNKS_MAX as u64),
        ("PACK_SEGMENTS_MAX", crate::pack::PACK_SEGMENTS_MAX as u64),
        ("INDEX_PACKS_MAX", crate::index::INDEX_PACKS_MAX as u64),
        ("NAME_BYTES_MAX", crate::manifest::NAME_BYTES_MAX as u64),
        ("FACTS_BYTES_MAX", crate::manifest::FACTS_BYTES_MAX as u64),
        ("UNREADABLE_LISTED_MAX", crate::manifest::UNREADABLE_LISTED_MAX as u64),
        ("ENTRY_NAME_BYTES_MAX", crate::tree::ENTRY_NAME_BYTES_MAX as u64),
        ("LINK_TARGET_BYTES_MAX", crate::tree::LINK_TARGET_BYTES_MAX as u64),
        ("XATTRS_MAX", crate::tree::XATTRS_MAX as u64),
        ("XATTR_VALUE_BYTES_MAX", crate::tree::XATTR_VALUE_BYTES_MAX as u64),
        ("INLINE_EXTENTS_MAX", crate::tree::INLINE_EXTENTS_MAX as u64),
        ("PAGE_LEVELS_MAX", crate::tree::PAGE_LEVELS_MAX as u64),
        ("SEEN_MAX", crate::head::SEEN_MAX as u64),
        ("HEAD_BYTES_MAX", crate::head::HEAD_BYTES_MAX as u64),
        ("SLOTS_MAX", crate::slot::SLOTS_MAX as u64),
        ("SEAL_KEY_BYTES", crate::seal::SEAL_KEY_BYTES as u64),
        ("WRAPPED_KEY_BYTES", crate::seal::WRAPPED_KEY_BYTES as u64),
        ("ARGON2_MEMORY_KIB", u64::from(crate::slot::ARGON2_MEMORY_KIB)),
        ("ARGON2_PASSES", u64::from(crate::slot::ARGON2_PASSES)),
        ("FORMAT_VERSION", u64::from(crate::FORMAT_VERSION)),
        ("KEYRING_VERSION", u64::from(crate::KEYRING_VERSION)),
        ("KEY_FILE_VERSION", u64::from(crate::KEY_FILE_VERSION)),
    ]);
    let text = include_str!("../SPEC.md");
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
