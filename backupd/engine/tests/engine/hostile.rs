//! A holder of all keys writes what it likes: a restore fails or restores, and never writes outside of its target.

use crate::practice::Practice;
use backup_engine::{ErrorKind, NoProgress, RestoreOutcome, RestoreRequest, Result, SnapshotId, restore};
use backup_format::manifest::{InnerManifest, OuterManifest};
use backup_format::pack::seal_pack;
use backup_format::pages::build_directory;
use backup_format::sealed::{PartsKind, seal_parts};
use backup_format::segment::{EncodedSegment, SegmentEncoder};
use backup_format::tree::{Content, Extent, Node, NodeKind};
use backup_format::wire::{put_bytes, put_varint};
use backup_format::{ChunkId, ChunkKind, FormatError, IncarnationId, ObjectHash, index};
use std::fs;
use std::path::PathBuf;

/// Objects of a snapshot that no honest writer would write.
struct Forge {
    practice: Practice,
    pages: Vec<(ChunkId, Vec<u8>)>,
    data: Vec<(ChunkId, Vec<u8>)>,
}

fn node(name: &[u8], kind: NodeKind) -> Node {
    Node {
        name: name.to_vec(),
        mode: 0o700,
        uid: 0,
        gid: 0,
        mtime_s: 1_000_000_000,
        mtime_ns: 0,
        xattrs: Vec::new(),
        hard_link: None,
        kind,
    }
}

impl Forge {
    async fn new() -> Self {
        let practice = Practice::new(1).await;
        fs::create_dir(practice.dir.path().join("outside")).unwrap();
        Self { practice, pages: Vec::new(), data: Vec::new() }
    }

    fn outside(&self) -> PathBuf {
        self.practice.dir.path().join("outside")
    }

    fn page(&mut self, bytes: Vec<u8>) -> ChunkId {
        let id = self.practice.made.writer.id_key().chunk_id(ChunkKind::Tree, &bytes);
        self.pages.push((id, bytes));
        id
    }

    fn chunk(&mut self, bytes: &[u8]) -> ChunkId {
        let id = self.practice.made.writer.id_key().chunk_id(ChunkKind::Data, bytes);
        self.data.push((id, bytes.to_vec()));
        id
    }

    /// A directory as an honest writer makes it.
    fn directory(&mut self, nodes: &[Node]) -> ChunkId {
        let mut made = Vec::new();
        let id_key = self.practice.made.writer.id_key().clone();
        let root = build_directory(nodes, &mut |page| {
            made.push((id_key.chunk_id(ChunkKind::Tree, page), page.to_vec()));
            Ok::<_, FormatError>(id_key.chunk_id(ChunkKind::Tree, page))
        });
        self.pages.extend(made);
        root.unwrap()
    }

    /// A page of kind 2 or 4 from its items.
    fn index_page(&mut self, kind: u8, items: &[Vec<u8>]) -> ChunkId {
        let mut bytes = vec![1, kind];
        put_varint(&mut bytes, items.len() as u64);
        items.iter().for_each(|item| bytes.extend_from_slice(item));
        self.page(bytes)
    }

    async fn put(&self, name: &str, bytes: Vec<u8>) {
        self.practice.stores[0].store.put(name, bytes.into()).await.unwrap();
    }

    /// Seals segments into a pack that an index names; gives the pack's name.
    async fn pack(&self, kind: ChunkKind, segments: Vec<EncodedSegment>) -> String {
        let (writer, mut rng) = (&self.practice.made.writer, self.practice.env.rng());
        let pack = seal_pack(&mut rng, writer.seal_key(), writer.repository(), kind, segments).unwrap();
        let (catalog, open) = index::encode(std::slice::from_ref(&pack.record)).unwrap();
        let keys = (writer.catalog(), writer.seal_key());
        let sealed = seal_parts(&mut rng, PartsKind::Index, keys, &catalog, &open).unwrap();
        let hex = pack.record.name.to_string();
        let name = format!("packs/{}/{hex}", &hex[..2]);
        self.put(&name, pack.bytes).await;
        self.put(&format!("index/{}", ObjectHash::of(&sealed)), sealed).await;
        name
    }

    fn segment(chunks: &[(ChunkId, Vec<u8>)]) -> EncodedSegment {
        let ids = chunks.iter().map(|(id, bytes)| (*id, bytes.len() as u32)).collect();
        let mut plain = chunks.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        SegmentEncoder::new(3).unwrap().encode(ids, &mut plain).unwrap()
    }

    async fn seal(&self, root: ChunkId) -> SnapshotId {
        for (kind, chunks) in [(ChunkKind::Tree, &self.pages), (ChunkKind::Data, &self.data)] {
            for chunks in chunks.chunks(1000) {
                self.pack(kind, vec![Self::segment(chunks)]).await;
            }
        }
        self.manifest(root).await
    }

    async fn manifest(&self, root: ChunkId) -> SnapshotId {
        let (writer, mut rng) = (&self.practice.made.writer, self.practice.env.rng());
        let outer = OuterManifest {
            source: "emr".to_owned(),
            incarnation: IncarnationId([9; 16]),
            counter: 1,
            predecessor: None,
            taken_unix_ms: 1_780_000_000_000,
            root,
            partial: false,
            files: 1,
            bytes_source: 1,
            bytes_added: 1,
            plan_seen: None,
            set_back: Vec::new(),
        };
        let (outer, inner) = (outer.encode().unwrap(), InnerManifest::default().encode().unwrap());
        let keys = (writer.catalog(), writer.seal_key());
        let sealed = seal_parts(&mut rng, PartsKind::Snapshot, keys, &outer, &inner).unwrap();
        let id = SnapshotId(ObjectHash::of(&sealed).0);
        self.put(&format!("snapshots/{id}"), sealed).await;
        id
    }

    fn target(&self) -> PathBuf {
        self.practice.dir.path().join("into")
    }

    async fn restore(&self, id: SnapshotId, overwrite: bool) -> Result<RestoreOutcome> {
        let request = RestoreRequest { into: self.target(), overwrite, ..RestoreRequest::default() };
        let (env, open, store) = (&self.practice.env, &self.practice.made.open, &self.practice.stores[0]);
        let done = restore(env, open, store, id, request, &NoProgress).await;
        assert_eq!(fs::read_dir(self.outside()).unwrap().count(), 0, "nothing may be written outside of the target");
        done
    }

    /// The restore must fail, into an empty target and over what it left there.
    async fn is_damage(&self, root: ChunkId) {
        let id = self.seal(root).await;
        for overwrite in [false, true, true] {
            assert_eq!(self.restore(id, overwrite).await.unwrap_err().kind(), ErrorKind::Damaged);
        }
    }
}

fn file(size: u64, extents: Vec<Extent>) -> NodeKind {
    NodeKind::File { size, content: Content::Inline(extents) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_elsewhere_is_refused() {
    for evil in [b"..".as_slice(), b"./", b"a/", b"/a", b"\0a"] {
        let mut forge = Forge::new().await;
        let root = forge.directory(&[node(b"zz", NodeKind::Fifo)]);
        let (_, mut page) = forge.pages.pop().filter(|(id, _)| *id == root).unwrap();
        let at = page.windows(2).position(|two| two == b"zz").unwrap();
        page[at..at + 2].copy_from_slice(evil);
        let root = forge.page(page);
        forge.is_damage(root).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_cannot_go_through_a_link_of_the_same_name() {
    let mut forge = Forge::new().await;
    let outside = forge.outside().into_os_string().into_encoded_bytes();
    let chunk = forge.chunk(b"evil");
    let evil = file(4, vec![Extent::Data { id: chunk, len: 4 }]);
    let below = forge.directory(&[node(b"planted", evil)]);
    let first = forge.directory(&[node(b"a", NodeKind::Symlink { target: outside })]);
    let second = forge.directory(&[node(b"a", NodeKind::Directory { root: below })]);
    let item = |name: &[u8], id: ChunkId| {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, name);
        bytes.extend_from_slice(id.as_bytes());
        bytes
    };
    // The index says `b`, the page holds a second `a`.
    let root = forge.index_page(2, &[item(b"a", first), item(b"b", second)]);
    forge.is_damage(root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_link_to_a_symbolic_link_stays_a_file() {
    let mut forge = Forge::new().await;
    let target = forge.outside().join("planted").into_os_string().into_encoded_bytes();
    let chunk = forge.chunk(b"evil");
    let mut link = node(b"a", NodeKind::Symlink { target });
    let mut evil = node(b"b", file(4, vec![Extent::Data { id: chunk, len: 4 }]));
    (link.hard_link, evil.hard_link) = (Some((1, 1)), Some((1, 1)));
    let root = forge.directory(&[link, evil]);
    let id = forge.seal(root).await;
    for overwrite in [false, true] {
        forge.restore(id, overwrite).await.unwrap();
        assert!(fs::symlink_metadata(forge.target().join("b")).unwrap().is_file());
        assert_eq!(fs::read(forge.target().join("b")).unwrap(), b"evil");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn extents_that_do_not_add_up_and_trees_without_end_are_refused() {
    let extent_item = |covers: u64, id: ChunkId| {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, covers);
        bytes.extend_from_slice(id.as_bytes());
        bytes
    };
    // An index that covers less than the file; one whose pages cover nothing, a thousandfold on each level.
    for endless in [false, true] {
        let mut forge = Forge::new().await;
        let mut page = forge.page(vec![1, 3, 0]);
        for _ in 0..10 {
            let covers = if endless { 0 } else { 7 };
            page = forge.index_page(4, &vec![extent_item(covers, page); 1000]);
        }
        let kind = NodeKind::File { size: if endless { 0 } else { 1 << 30 }, content: Content::Paged(page) };
        let root = forge.directory(&[node(b"file", kind)]);
        forge.is_damage(root).await;
    }
    // Levels of pages without end, and a directory in itself as far as paths go.
    let mut forge = Forge::new().await;
    let mut page = forge.directory(&[node(b"a", NodeKind::Fifo)]);
    for _ in 0..20 {
        let mut item = Vec::new();
        put_bytes(&mut item, b"a");
        item.extend_from_slice(page.as_bytes());
        page = forge.index_page(2, &[item]);
    }
    forge.is_damage(page).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_expands_beyond_its_length_is_damage() {
    let mut forge = Forge::new().await;
    let mut zeros = vec![0; 4 << 20];
    let id = forge.practice.made.writer.id_key().chunk_id(ChunkKind::Data, &zeros[..1000]);
    let mut bomb = SegmentEncoder::new(3).unwrap().encode(vec![(id, zeros.len() as u32)], &mut zeros).unwrap();
    assert!(bomb.compressed && bomb.body.len() < 4096);
    bomb.chunks = vec![(id, 1000)];
    forge.pack(ChunkKind::Data, vec![bomb]).await;
    let root = forge.directory(&[node(b"file", file(1000, vec![Extent::Data { id, len: 1000 }]))]);
    forge.is_damage(root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_damaged_in_one_pack_is_taken_from_another() {
    let mut forge = Forge::new().await;
    let content = crate::practice::noise(5, 100_000);
    let id = forge.chunk(&content);
    let segment = || vec![Forge::segment(&[(id, content.clone())])];
    let packs = [forge.pack(ChunkKind::Data, segment()).await, forge.pack(ChunkKind::Data, segment()).await];
    forge.data.clear();
    let root = forge.directory(&[node(b"file", file(100_000, vec![Extent::Data { id, len: 100_000 }]))]);
    let taken = forge.seal(root).await;
    let at = |pack: &String| forge.practice.dir.path().join("store-0").join(pack);
    let good = fs::read(at(&packs[0])).unwrap();
    for (bad, other) in [(&packs[0], &packs[1]), (&packs[1], &packs[0])] {
        let bytes = fs::read(at(bad)).unwrap();
        let mut flipped = bytes.clone();
        flipped[5000] ^= 1;
        // Flipped, cut short, gone: each time the other pack has it.
        for damage in [Some(flipped), Some(bytes[..2000].to_vec()), None] {
            match damage {
                Some(damage) => fs::write(at(bad), damage).unwrap(),
                None => fs::remove_file(at(bad)).unwrap(),
            }
            let _ = fs::remove_dir_all(forge.target());
            forge.restore(taken, false).await.unwrap();
            assert!(fs::read(forge.target().join("file")).unwrap() == content);
        }
        let saved = fs::read(at(other)).unwrap();
        fs::remove_file(at(other)).unwrap();
        let lost = forge.restore(taken, true).await;
        // What stands in the target is kept; without it the message names an object and a remedy.
        assert_eq!(lost.unwrap().bytes_kept, 100_000);
        fs::remove_file(forge.target().join("file")).unwrap();
        let lost = forge.restore(taken, true).await.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Damaged);
        assert!(lost.to_string().contains("packs/") && lost.to_string().contains("another store"), "{lost}");
        fs::write(at(other), saved).unwrap();
        fs::write(at(bad), bytes).unwrap();
    }
    assert!(fs::read(at(&packs[0])).unwrap() == good);
}
