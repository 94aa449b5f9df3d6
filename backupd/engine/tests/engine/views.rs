//! Looking into snapshots: by path, by what differs, by what fits, by range of bytes.

use crate::practice::{Practice, fill, noise, settle};
use backup_engine::{
    Change, DiffSummary, EntryKind, ErrorKind, Glob, Page, SnapshotId, Tree, View, Wanted, diff, find, list, stats,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

async fn view(practice: &Practice) -> View<'_> {
    View::open(&practice.env, &practice.made.open, &practice.stores[0]).await.unwrap()
}

async fn tree(view: &View<'_>, id: SnapshotId) -> Tree {
    view.tree(id, b"files").await.unwrap()
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

async fn paths(view: &View<'_>, tree: &Tree, path: &str, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut visit = |path: &[u8], _: &backup_engine::Node| {
        found.push(text(path));
        Ok(())
    };
    list(view, tree, path.as_bytes(), depth, &mut visit).await.unwrap();
    found
}

async fn differences(view: &View<'_>, before: &Tree, after: &Tree) -> (BTreeMap<String, Change>, DiffSummary) {
    let mut found = BTreeMap::new();
    let mut visit = |difference: &backup_engine::Difference<'_>| {
        assert!(found.insert(text(difference.path), difference.change).is_none(), "each path once");
        Ok(())
    };
    let summary = diff(view, (before, after), b"", &mut visit).await.unwrap();
    (found, summary)
}

/// A directory of many small files, so that it takes several levels of pages.
fn crowd(dir: &Path, count: usize) {
    fs::create_dir_all(dir).unwrap();
    for at in 0..count {
        fs::write(dir.join(format!("entry-{at:06}")), format!("{at}")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_goes_by_path_and_by_level() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    fs::create_dir(practice.source().join("letters/2026/a-folder")).unwrap();
    fs::write(practice.source().join("letters/2026/a-folder/z"), b"z").unwrap();
    let taken = practice.snapshot().await;
    let view = view(&practice).await;
    let tree = tree(&view, taken.id).await;
    assert_eq!(paths(&view, &tree, "", 1).await, ["empty", "letters", "scan.bin"]);
    let below = paths(&view, &tree, "letters", usize::MAX).await;
    assert_eq!(below[..4], ["letters", "letters/2026", "letters/2026/a-folder", "letters/2026/a-folder/z"]);
    assert_eq!(below.len(), 34);
    assert!(below.is_sorted(), "in the order of paths");
    assert_eq!(paths(&view, &tree, "empty", 9).await, ["empty"]);
    let absent = list(&view, &tree, b"letters/no", 1, &mut |_, _| Ok(())).await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert!(!absent.to_string().contains("letters"), "an error names no record: {absent}");
    // Without a top, paths begin with the part.
    let whole = view.tree(taken.id, b"").await.unwrap();
    assert_eq!(paths(&view, &whole, "", 1).await, ["files"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_has_its_mark() {
    let practice = Practice::new(1).await;
    let source = practice.source();
    fill(&source);
    fs::create_dir(source.join("gone")).unwrap();
    fs::write(source.join("gone/file"), noise(1, 5000)).unwrap();
    std::os::unix::fs::symlink("scan.bin", source.join("link")).unwrap();
    let first = practice.snapshot().await;
    fs::remove_dir_all(source.join("gone")).unwrap();
    fs::create_dir(source.join("come")).unwrap();
    fs::write(source.join("come/file"), noise(2, 7000)).unwrap();
    fs::remove_file(source.join("link")).unwrap();
    std::os::unix::fs::symlink("empty", source.join("link")).unwrap();
    fs::write(source.join("letters/2026/letter-3.txt"), b"other words").unwrap();
    fs::set_permissions(source.join("letters/2026/letter-4.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(source.join("letters/2026/letter-5.txt")).unwrap();
    fs::create_dir(source.join("letters/2026/letter-5.txt")).unwrap();
    let touched = fs::File::options().write(true).open(source.join("letters/2026/letter-6.txt")).unwrap();
    touched.set_modified(std::time::UNIX_EPOCH).unwrap();
    let second = practice.snapshot().await;
    let view = view(&practice).await;
    let (before, after) = (tree(&view, first.id).await, tree(&view, second.id).await);
    let (mut found, summary) = differences(&view, &before, &after).await;
    found.retain(|_, change| *change != Change::Time);
    let expected: BTreeMap<String, Change> = [
        ("gone", Change::Removed),
        ("gone/file", Change::Removed),
        ("come", Change::Added),
        ("come/file", Change::Added),
        ("link", Change::Modified),
        ("letters/2026/letter-3.txt", Change::Modified),
        ("letters/2026/letter-4.txt", Change::Attributes),
        ("letters/2026/letter-5.txt", Change::Type),
    ]
    .into_iter()
    .map(|(path, change)| (path.to_owned(), change))
    .collect();
    assert_eq!(found, expected);
    assert_eq!((summary.added, summary.removed, summary.modified), (2, 2, 2));
    assert!(summary.times >= 1, "the touched file: {summary:?}");
    assert_eq!(summary.bytes_modified, b"other words".len() as u64);
    assert!(summary.bytes_added == 7000 && summary.bytes_removed > 5000, "{summary:?}");
    // The other way round, and one path alone.
    let (back, _) = differences(&view, &after, &before).await;
    assert_eq!((back["gone/file"], back["come"]), (Change::Added, Change::Removed));
    let mut one = Vec::new();
    let mut visit = |difference: &backup_engine::Difference<'_>| {
        one.push(text(difference.path));
        Ok(())
    };
    diff(&view, (&before, &after), b"gone", &mut visit).await.unwrap();
    assert_eq!(one, ["gone", "gone/file"]);
    let absent = diff(&view, (&before, &after), b"never", &mut |_| Ok(())).await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert_eq!(differences(&view, &after, &after).await, (BTreeMap::new(), DiffSummary::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_diff_follows_the_difference_not_the_size() {
    let practice = Practice::new(1).await;
    let crowded = practice.source().join("crowd");
    crowd(&crowded, 20_000);
    let mut large = fs::File::create(practice.source().join("large")).unwrap();
    large.write_all(&noise(5, 40 << 20)).unwrap();
    let first = practice.snapshot().await;
    let view_before = view(&practice).await;
    let leaves = {
        let tree = tree(&view_before, first.id).await;
        let node = view_before.look_up(&tree, b"crowd").await.unwrap().unwrap();
        let backup_engine::NodeKind::Directory { root } = node.kind else { panic!("a directory") };
        view_before.leaves(root).await.unwrap().len()
    };
    assert!(leaves > 50, "the directory takes many pages: {leaves}");
    fs::write(crowded.join("entry-010000"), b"changed").unwrap();
    fs::remove_file(crowded.join("entry-000777")).unwrap();
    fs::write(crowded.join("entry-015000-between"), b"new").unwrap();
    large.seek(SeekFrom::Start(20 << 20)).unwrap();
    large.write_all(b"a few other bytes").unwrap();
    let second = practice.snapshot().await;
    let view = view(&practice).await;
    let (before, after) = (tree(&view, first.id).await, tree(&view, second.id).await);
    let (mut found, summary) = differences(&view, &before, &after).await;
    found.retain(|_, change| *change != Change::Time);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["crowd/entry-000777", "crowd/entry-010000", "crowd/entry-015000-between", "large"]
    );
    assert!(summary.pages < 30, "{} pages were opened of {leaves} on each side", summary.pages);
    assert!(summary.bytes_modified < 2 << 20, "only the chunks around the change are new: {summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_say_which_snapshots_hold_what_fits() {
    let practice = Practice::new(1).await;
    let source = practice.source();
    fill(&source);
    let first = practice.snapshot().await;
    fs::write(source.join("letters/2026/letter-3.txt"), b"short").unwrap();
    fs::write(source.join("letters/late.TXT"), noise(9, 300_000)).unwrap();
    settle().await;
    let second = practice.snapshot().await;
    let view = view(&practice).await;
    let trees = [tree(&view, first.id).await, tree(&view, second.id).await];
    let look = async |wanted: Wanted| {
        let mut found: BTreeSet<(String, Vec<usize>)> = BTreeSet::new();
        let mut visit = |one: &backup_engine::Found<'_>| {
            assert!(found.insert((text(one.path), one.trees.to_vec())), "each entry once");
            Ok(())
        };
        find(&view, &trees, &wanted, &mut visit).await.unwrap();
        found
    };
    let glob = |pattern: &str, fold| Some(Glob::parse(pattern.as_bytes(), fold).unwrap());
    let letters = look(Wanted { name: glob("letter-3*.txt", false), ..Wanted::default() }).await;
    let three = "letters/2026/letter-3.txt".to_owned();
    assert_eq!(letters, BTreeSet::from([(three.clone(), vec![0]), (three, vec![1])]));
    let all = look(Wanted { name: glob("*.txt", true), ..Wanted::default() }).await;
    assert_eq!(all.len(), 32);
    assert!(all.contains(&("letters/late.TXT".to_owned(), vec![1])));
    assert!(all.contains(&("letters/2026/letter-9.txt".to_owned(), vec![0, 1])));
    let large = look(Wanted { size_min: Some(200_000), ..Wanted::default() }).await;
    assert_eq!(large.len(), 2);
    let folders = look(Wanted { kinds: vec![EntryKind::Directory], name: glob("2026", false), ..Wanted::default() });
    assert!(folders.await.iter().all(|(path, _)| path == "letters/2026"));
    let nothing = look(Wanted { until_unix_ns: Some(0), ..Wanted::default() }).await;
    assert!(nothing.is_empty());
    let path = look(Wanted { name: glob("**/letter-1?.txt", false), size_max: Some(4000), ..Wanted::default() }).await;
    assert!(!path.is_empty() && path.iter().all(|(path, _)| path.starts_with("letters/2026/letter-1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_range_of_a_file_reads_as_it_was() {
    let practice = Practice::new(1).await;
    let content = noise(21, 9_000_000);
    fs::write(practice.source().join("large"), &content).unwrap();
    let mut sparse = fs::File::create(practice.source().join("sparse")).unwrap();
    sparse.seek(SeekFrom::Start(5_000_000)).unwrap();
    sparse.write_all(b"in the middle").unwrap();
    sparse.set_len(12_000_000).unwrap();
    let sparse = fs::read(practice.source().join("sparse")).unwrap();
    crowd(&practice.source().join("crowd"), 3000);
    let taken = practice.snapshot().await;
    let view = view(&practice).await;
    let tree = tree(&view, taken.id).await;
    let mut state = 77u64;
    for (name, content) in [("large", &content), ("sparse", &sparse)] {
        let node = view.look_up(&tree, name.as_bytes()).await.unwrap().unwrap();
        for _ in 0..60 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let offset = (state >> 20) as usize % (content.len() + 1000);
            let len = (state >> 8) as usize % 400_000;
            let expected = content.get(offset..(offset + len).min(content.len())).unwrap_or_default();
            assert!(view.read(&node, offset as u64, len).await.unwrap() == expected, "{name} {offset} {len}");
        }
    }
    let directory = view.look_up(&tree, b"crowd").await.unwrap().unwrap();
    assert_eq!(view.read(&directory, 0, 1).await.unwrap_err().kind(), ErrorKind::Misconfigured);
    for at in [0, 1, 1499, 2999] {
        let path = format!("crowd/entry-{at:06}");
        let node = view.look_up(&tree, path.as_bytes()).await.unwrap().unwrap();
        assert_eq!(view.read(&node, 0, 100).await.unwrap(), at.to_string().as_bytes());
    }
    for absent in ["crowd/", "crowd/entry-", "crowd/zzz", "crowd/a", "large/x"] {
        let found = view.look_up(&tree, absent.as_bytes()).await.unwrap();
        assert!(found.is_none() || absent == "crowd/", "{absent}");
    }
    let backup_engine::NodeKind::Directory { root } = directory.kind else { panic!("a directory") };
    let leaves = view.leaves(root).await.unwrap();
    let mut names = Vec::new();
    for at in 0..leaves.len() {
        let page = view.leaf(&leaves, at).await.unwrap().unwrap();
        let Page::Directory(nodes) = &*page else { panic!("a page of entries") };
        names.extend(nodes.iter().map(|node| text(&node.name)));
    }
    assert!(names.len() == 3000 && names.is_sorted() && leaves.len() > 1);
    assert!(view.leaf(&leaves, leaves.len()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_a_repository_add_up() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    let first = practice.snapshot().await;
    fs::write(practice.source().join("again.bin"), noise(7, 1_500_000)).unwrap();
    let second = practice.snapshot().await;
    let stats = stats(&practice.env, &practice.made.open, &practice.stores[0]).await.unwrap();
    let objects = practice.objects("store-0");
    let bytes: u64 = objects.values().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!((stats.objects, stats.bytes), (objects.len() as u64, bytes));
    assert_eq!(stats.classes.values().sum::<u64>(), stats.packs);
    assert_eq!(stats.snapshots.iter().map(|info| info.id).collect::<Vec<_>>(), [second.id, first.id]);
    assert_eq!(stats.source_bytes, first.bytes_source + second.bytes_source);
    assert!(stats.dedup_ratio().unwrap() > 2.0, "the same scan four times: {stats:?}");
    assert!(stats.compression_ratio().unwrap() > 1.0 && stats.padding_share().unwrap() < 1.0);
    assert_eq!((stats.unnamed_packs, stats.chunks_twice), (0, 0));
    assert!(stats.data_bytes < first.bytes_source + 100_000);
}
