//! One valid object of every kind, from a seed.

use crate::FormatError;
use crate::condemned::{ChainMark, CondemnedHead, Plan};
use crate::credential::{OpenKey, PrunerCredential, RepositorySecrets, WriterCredential};
use crate::features::Features;
use crate::head::{Head, HeadName};
use crate::index;
use crate::keyring;
use crate::keys::ChunkKind;
use crate::machine::MachineKey;
use crate::manifest::{InnerManifest, OuterManifest, Owners, PartRecord, UnreadableReason};
use crate::pack::{SealedPack, seal_pack};
use crate::pages::build_directory;
use crate::paper::PaperKey;
use crate::retirement::Retirement;
use crate::sealed::{PartsKind, seal_parts};
use crate::segment::EncodedSegment;
use crate::share::Share;
use crate::slot::{Slot, Unlock};
use crate::testing::rng;
use crate::tombstone::{Tombstone, TombstoneReason};
use crate::tree::{Content, Extent, Node, NodeKind};
use crate::{ChunkId, IncarnationId, ObjectHash, SnapshotId};
use std::collections::BTreeMap;

/// A tiny repository.
pub struct Sample {
    pub paper: PaperKey,
    pub machine: MachineKey,
    pub shares: Vec<Share>,
    pub keyring: Vec<u8>,
    pub writer: WriterCredential,
    pub open: OpenKey,
    pub pack: SealedPack,
    pub index: Vec<u8>,
    pub outer: OuterManifest,
    pub inner: InnerManifest,
    pub snapshot: Vec<u8>,
    pub head: Head,
    pub head_bytes: Vec<u8>,
    pub pruner: PrunerCredential,
    pub tombstone: Tombstone,
    pub tombstone_bytes: Vec<u8>,
    /// A tombstone of a run.
    pub run: Tombstone,
    pub run_bytes: Vec<u8>,
    pub plan: Plan,
    pub plan_bytes: Vec<u8>,
    /// An order in which tombstones go.
    pub order: Plan,
    pub order_bytes: Vec<u8>,
    pub retirement: Retirement,
    pub retirement_bytes: Vec<u8>,
    pub pages: Vec<Vec<u8>>,
}

const MADE_UNIX_MS: i64 = 1_780_000_000_000;
pub const CONTENT: &[u8] = b"a chunk of a file, a chunk of a file, a chunk of a file";
/// A zstd frame of it: another release of the compressor may write other bytes.
const CONTENT_FRAME: &str = "28b52ffd2037cd00009861206368756e6b206f6620612066696c652c2001001b39c3";

pub fn nodes(id: ChunkId) -> Vec<Node> {
    let node = |name: &[u8], kind| Node {
        name: name.to_vec(),
        mode: 0o640,
        uid: 1000,
        gid: 100,
        mtime_s: -5,
        mtime_ns: 999_999_999,
        xattrs: vec![(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), Vec::new())],
        hard_link: None,
        kind,
    };
    let data = Extent::Data { id, len: CONTENT.len() as u32 };
    let size = CONTENT.len() as u64;
    let mut linked = node(b"b\xff\n", NodeKind::File { size, content: Content::Inline(vec![data]) });
    linked.hard_link = Some((7, 8));
    vec![
        node(b"a", NodeKind::File { size: size + 9, content: Content::Inline(vec![data, Extent::Hole { len: 9 }]) }),
        linked,
        node(b"c", NodeKind::Directory { root: ChunkId([3; 32]) }),
        node(b"d", NodeKind::Symlink { target: b"../elsewhere".to_vec() }),
        node(b"e", NodeKind::Fifo),
        node(b"f", NodeKind::Socket),
        node(b"g", NodeKind::CharDevice { major: 1, minor: 3 }),
        node(b"h", NodeKind::BlockDevice { major: 8, minor: 0 }),
        node(b"i", NodeKind::File { size: 1 << 40, content: Content::Paged(ChunkId([4; 32])) }),
    ]
}

/// One compressed segment, its frame as it was once made, and two raw ones of one length.
fn segments(writer: &WriterCredential) -> Vec<EncodedSegment> {
    let chunk = |content: &[u8]| vec![(writer.id_key().chunk_id(ChunkKind::Data, content), content.len() as u32)];
    let reversed: Vec<u8> = CONTENT.iter().rev().copied().collect();
    let capitals = CONTENT.to_ascii_uppercase();
    let frame = hex::decode(CONTENT_FRAME).unwrap();
    vec![
        EncodedSegment { chunks: chunk(CONTENT), compressed: true, body: frame },
        EncodedSegment::raw(chunk(&reversed), reversed).unwrap(),
        EncodedSegment::raw(chunk(&capitals), capitals).unwrap(),
    ]
}

pub fn sample(seed: u64) -> Sample {
    let mut rng = rng(seed);
    let mut secrets = RepositorySecrets::generate(&mut rng, MADE_UNIX_MS);
    assert_eq!(secrets.begin_epoch(&mut rng, MADE_UNIX_MS + 1), Ok(2));
    let paper = PaperKey::generate(&mut rng);
    let machine = MachineKey::generate(&mut rng);
    let on_paper = Slot::new(&mut rng, &Unlock::Paper(&paper), MADE_UNIX_MS).unwrap();
    let on_machine = Slot::new(&mut rng, &Unlock::Machine(&machine), MADE_UNIX_MS).unwrap();
    let (shared, shares) = Slot::new_shares(&mut rng, 2, 3, MADE_UNIX_MS).unwrap();
    let slots = [on_paper, on_machine, shared];
    let keyring = keyring::seal(&mut rng, &secrets, 2, Features::default(), &slots).unwrap();
    let writer = WriterCredential::issue(&mut rng, &secrets);
    let open = secrets.open_key();
    let id = writer.id_key().chunk_id(ChunkKind::Data, CONTENT);
    let segments = segments(&writer);
    let pack = seal_pack(&mut rng, writer.seal_key(), writer.repository(), ChunkKind::Data, segments).unwrap();
    let keys = (writer.catalog(), writer.seal_key());
    let (catalog_part, open_part) = index::encode(std::slice::from_ref(&pack.record)).unwrap();
    let index = seal_parts(&mut rng, PartsKind::Index, keys, &catalog_part, &open_part).unwrap();
    let mut pages = Vec::new();
    let root = build_directory(&nodes(id), &mut |page| {
        pages.push(page.to_vec());
        Ok::<_, FormatError>(writer.id_key().chunk_id(ChunkKind::Tree, page))
    });
    let outer = OuterManifest {
        source: "emr".to_owned(),
        incarnation: IncarnationId([9; 16]),
        counter: 2,
        predecessor: Some(SnapshotId([5; 32])),
        taken_unix_ms: 1_780_000_000_000,
        root: root.unwrap(),
        partial: true,
        files: 9,
        bytes_source: 119,
        bytes_added: 131_072,
        plan_seen: Some([6; 32]),
        set_back: Vec::new(),
    };
    let inner = InnerManifest {
        tag: Some("before the move".to_owned()),
        facts: Some(b"{}".to_vec()),
        parts: vec![PartRecord { name: b"files".to_vec(), page_bytes: 0, path: b"/srv/emr".to_vec() }],
        unreadable_count: 1,
        unreadable: vec![(b"files/x".to_vec(), UnreadableReason::Changed)],
        owners: Owners {
            users: BTreeMap::from([(0, b"root".to_vec()), (1000, b"emr".to_vec())]),
            groups: BTreeMap::from([(100, b"users".to_vec())]),
        },
    };
    let (outer_bytes, inner_bytes) = (outer.encode().unwrap(), inner.encode().unwrap());
    let snapshot = seal_parts(&mut rng, PartsKind::Snapshot, keys, &outer_bytes, &inner_bytes).unwrap();
    let head = Head {
        source: writer.catalog().source_id("emr"),
        incarnation: IncarnationId([9; 16]),
        counter: 2,
        snapshot: SnapshotId(ObjectHash::of(&snapshot).0),
        predecessor: Some(ObjectHash([8; 32])),
        seen: Vec::new(),
    };
    let head_bytes = head.sign(&writer).unwrap();
    let pruner = PrunerCredential::issue(&mut rng, &secrets);
    let tombstone = Tombstone {
        source: head.source,
        incarnation: head.incarnation,
        first: 1,
        last: 1,
        head: ObjectHash([8; 32]),
        snapshot: SnapshotId([5; 32]),
        plan: [6; 32],
        time_unix_ms: MADE_UNIX_MS + 2,
        reason: TombstoneReason::Retention,
    };
    let tombstone_bytes = tombstone.sign(&pruner).unwrap();
    let plan = plan(&head, &tombstone);
    let plan_bytes = plan.sign(&pruner).unwrap();
    let run = Tombstone { first: 2, last: 9, head: ObjectHash([14; 32]), ..tombstone.clone() };
    let run_bytes = run.sign(&pruner).unwrap();
    let mut tombstones = vec![run.name(&run_bytes), tombstone.name(&tombstone_bytes)];
    tombstones.sort_unstable();
    let order = Plan { number: 4, tombstones, ..plan.clone() };
    let order_bytes = order.sign(&pruner).unwrap();
    let (source, incarnation) = (head.source, IncarnationId([7; 16]));
    let retirement = Retirement { source, incarnation, counter: 4, time_unix_ms: MADE_UNIX_MS + 3 };
    let retirement_bytes = retirement.sign(&pruner).unwrap();
    Sample {
        paper,
        machine,
        shares,
        keyring,
        writer,
        open,
        pack,
        index,
        outer,
        inner,
        snapshot,
        head,
        head_bytes,
        pruner,
        tombstone,
        tombstone_bytes,
        run,
        run_bytes,
        plan,
        plan_bytes,
        order,
        order_bytes,
        retirement,
        retirement_bytes,
        pages,
    }
}

/// An order to execute a plan that takes out the tombstone's snapshot and two packs.
fn plan(head: &Head, tombstone: &Tombstone) -> Plan {
    let (source, incarnation) = (head.source, head.incarnation);
    let condemned = HeadName { source, incarnation, counter: tombstone.last, hash: tombstone.head };
    Plan {
        number: 3,
        executes: Some(ObjectHash([6; 32])),
        time_unix_ms: MADE_UNIX_MS + 2,
        grace_ms: 86_400_000,
        chains: vec![
            ChainMark { source, incarnation: IncarnationId([7; 16]), counter: 4 },
            ChainMark { source, incarnation, counter: head.counter },
        ],
        heads: vec![CondemnedHead { head: condemned, snapshot: tombstone.snapshot, reason: tombstone.reason }],
        indexes: vec![ObjectHash([10; 32])],
        replacements: vec![ObjectHash([11; 32])],
        packs: vec![ObjectHash([12; 32]), ObjectHash([13; 32])],
        tombstones: Vec::new(),
    }
}
