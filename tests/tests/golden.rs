//! Repositories of released format versions, frozen under tests/golden: every later release must read them.

use anyhow::{Context, Result, ensure};
use backup_engine::{
    Env, InitOptions, NamedStore, NoProgress, OpenKey, PaperKey, Part, PartKind, Passphrase, RestoreRequest,
    SnapshotInfo, SnapshotRequest, SourceLease, Stop, StoreLocation, UnlockWith, VerifyRequest, add_shares, add_slot,
    epochs, heads_with_tags, init, restore, rotate, snapshot, unlock, verify,
};
use backup_engine::{MachineKey, Share};
use holdfast_tests::golden::{Golden, expected_of};
use holdfast_tests::{files, root};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

fn store(folder: &Path) -> Result<NamedStore> {
    Ok(NamedStore::new("golden", StoreLocation::Folder { path: folder.to_owned() }.open()?, true))
}

/// Every secret that opens the repository.
fn secrets(golden: &Golden) -> Result<Vec<UnlockWith>> {
    let shares = ["share-1", "share-3"].map(|name| golden.key(name).and_then(|text| Ok(Share::from_text(&text)?)));
    Ok(vec![
        UnlockWith::Passphrase(Passphrase::new(golden.key("passphrase")?)),
        UnlockWith::PaperKey(PaperKey::from_text(&golden.key("paper-key")?)?),
        UnlockWith::Machine(MachineKey::from_text(&golden.key("machine-key")?)?),
        UnlockWith::Shares(shares.into_iter().collect::<Result<_>>()?),
        UnlockWith::OpenKeyFile(zeroize::Zeroizing::new(golden.open_key()?)),
    ])
}

async fn restored(env: &Env, open: &OpenKey, store: &NamedStore, info: &SnapshotInfo, into: &Path) -> Result<()> {
    let request = RestoreRequest { into: into.to_owned(), ..RestoreRequest::default() };
    restore(env, open, store, info.id, request, &NoProgress).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn this_release_reads_every_frozen_repository_with_each_of_its_keys() -> Result<()> {
    for golden in Golden::all()? {
        let (env, store, temp) = (Env::real(), store(&golden.store())?, tempfile::tempdir()?);
        for (at, with) in secrets(&golden)?.iter().enumerate() {
            let open = unlock(&env, &store, with).await?;
            let heads = heads_with_tags(&env, &open, std::slice::from_ref(&store)).await?;
            ensure!(heads.gaps.is_empty() && heads.rejected.is_empty());
            ensure!(heads.snapshots.len() == 2, "{}: two snapshots", golden.folder.display());
            for info in &heads.snapshots {
                let tag = info.tag.as_deref().context("a tag")?;
                let into = temp.path().join(format!("{at}-{tag}"));
                restored(&env, &open, &store, info, &into).await?;
                ensure!(expected_of(&into.join("files"))? == golden.expected(tag)?, "{tag} comes back as it was");
            }
            let outcome =
                verify(&env, &open, &store, VerifyRequest { read_data: true, snapshot: None }, &NoProgress).await?;
            ensure!(outcome.is_ok());
            let uses = epochs(&env, &open, &store).await?;
            ensure!(uses.len() == 2 && uses.iter().all(|used| used.packs > 0 && used.since_unix_ms.is_some()));
        }
    }
    Ok(())
}

/// What is wrong with a copy of a frozen repository, and what must be said of it.
const DAMAGED: &[(&str, &str, &str)] = &[
    ("one byte of a pack of the second snapshot", "second-pack flip 1300", "corrupt packs/"),
    ("an index object is gone", "second-index remove", "missing index/"),
    ("the head of the first snapshot is gone", "first-head remove", "missing heads/"),
    ("the newest keyring is cut", "newest-keyring truncate 500", "corrupt keyring/"),
];

/// The objects that the damage names: those of the first and of the second snapshot, told apart by their epoch.
fn object(folder: &Path, name: &str) -> Result<PathBuf> {
    let below = |prefix: &str| files(&folder.join(prefix));
    let sealed_to =
        |path: &PathBuf, epoch: u32| fs::read(path).is_ok_and(|bytes| bytes.get(8..12) == Some(&epoch.to_le_bytes()));
    let found = match name {
        "second-pack" => below("packs").into_iter().find(|path| sealed_to(path, 2)),
        "second-index" => below("index").into_iter().find(|path| sealed_to(path, 2)),
        "first-head" => below("heads").into_iter().min(),
        _ => below("keyring").into_iter().max(),
    };
    found.with_context(|| format!("the object {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_copies_are_named_and_the_other_snapshot_still_restores() -> Result<()> {
    for golden in Golden::all()? {
        for (what, edit, said) in DAMAGED {
            let temp = tempfile::tempdir()?;
            let folder = temp.path().join("store");
            for file in files(&golden.store()) {
                let to = folder.join(file.strip_prefix(golden.store())?);
                fs::create_dir_all(to.parent().context("a folder")?)?;
                fs::copy(&file, &to)?;
            }
            let words: Vec<&str> = edit.split(' ').collect();
            let path = object(&folder, words[0])?;
            let mut bytes = fs::read(&path)?;
            match words[1..] {
                ["remove"] => fs::remove_file(&path)?,
                ["flip", at] => {
                    bytes[at.parse::<usize>()?] ^= 1;
                    fs::write(&path, bytes)?;
                }
                ["truncate", at] => fs::write(&path, &bytes[..at.parse::<usize>()?])?,
                _ => anyhow::bail!("no such damage: {edit}"),
            }
            let (env, store) = (Env::real(), store(&folder)?);
            let open =
                unlock(&env, &store, &UnlockWith::OpenKeyFile(zeroize::Zeroizing::new(golden.open_key()?))).await?;
            let outcome =
                verify(&env, &open, &store, VerifyRequest { read_data: true, snapshot: None }, &NoProgress).await?;
            let lines: Vec<String> = outcome
                .missing
                .iter()
                .map(|name| format!("missing {name}"))
                .chain(outcome.corrupt.iter().map(|name| format!("corrupt {name}")))
                .collect();
            ensure!(lines.iter().any(|line| line.starts_with(said)), "{what}: {lines:?}");
            let heads = heads_with_tags(&env, &open, std::slice::from_ref(&store)).await?;
            let mut whole = 0;
            for info in &heads.snapshots {
                let tag = info.tag.as_deref().context("a tag")?;
                let into = temp.path().join(tag);
                if restored(&env, &open, &store, info, &into).await.is_ok() {
                    ensure!(
                        expected_of(&into.join("files"))? == golden.expected(tag)?,
                        "{what}: never wrong, only refused"
                    );
                    whole += 1;
                }
            }
            ensure!(whole >= 1, "{what}: the snapshot that is not touched restores");
        }
    }
    Ok(())
}

fn fill(source: &Path) -> Result<()> {
    fs::create_dir_all(source.join("letters"))?;
    for at in 0..6u32 {
        fs::write(source.join(format!("letters/letter-{at}.txt")), format!("Dear patient {at},\n").repeat(200))?;
    }
    fs::create_dir(source.join("empty"))?;
    fs::write(source.join("nothing"), b"")?;
    fs::write(source.join("noise"), blake3::hash(b"golden").as_bytes().repeat(40))?;
    let sparse = fs::File::create(source.join("sparse"))?;
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"an island", 1 << 20)?;
    sparse.set_len(3 << 20)?;
    fs::hard_link(source.join("noise"), source.join("letters/same"))?;
    symlink("../noise", source.join("letters/link"))?;
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, source.join("fifo"), rustix::fs::FileType::Fifo, mode, 0)?;
    let letter = source.join("letters/letter-2.txt");
    rustix::fs::setxattr(&letter, "user.kind", b"letter", rustix::fs::XattrFlags::empty())?;
    Ok(())
}

/// Every entry's time is a fixed one: the fixture should say nothing about the day that it was made.
fn age(source: &Path) -> Result<()> {
    let mut all = files(source);
    all.extend(["", "letters", "empty", "letters/link"].map(|name| source.join(name)));
    for (at, path) in all.iter().enumerate() {
        let time = rustix::fs::Timespec { tv_sec: 1_700_000_000 + at as i64, tv_nsec: 123_456_789 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Makes the frozen repository of this version; see tests/golden/README.md.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes a new frozen repository: only when the format's version changes"]
async fn make_golden() -> Result<()> {
    let folder =
        root().join("tests/golden").join(std::env::var("HOLDFAST_GOLDEN").context("HOLDFAST_GOLDEN names it")?);
    ensure!(!folder.exists(), "{} is frozen: it is never made again", folder.display());
    let (env, temp) = (Env::real(), tempfile::tempdir()?);
    fs::create_dir_all(folder.join("store"))?;
    let stores = [store(&folder.join("store"))?];
    let passphrase = "correct horse battery staple";
    let options = InitOptions { passphrase: Some(Passphrase::new(passphrase.to_owned())) };
    let made = init(&env, &stores, options).await?;
    let paper = UnlockWith::PaperKey(PaperKey::from_text(&made.paper_key.to_text())?);
    let machine = MachineKey::generate(&mut env.rng());
    let machine_text = machine.to_text();
    add_slot(&env, &stores, &paper, UnlockWith::Machine(machine)).await?;
    let (_, _, shares) = add_shares(&env, &stores, &paper, (2, 3)).await?;
    let source = temp.path().join("source");
    fs::create_dir(&source)?;
    fill(&source)?;
    let request = |tag: &str| SnapshotRequest {
        source: "emr".to_owned(),
        parts: vec![Part { name: "files".to_owned(), path: source.clone(), kind: PartKind::Files }],
        excludes: Vec::new(),
        tag: Some(tag.to_owned()),
        facts: Some(b"{}".to_vec()),
        quorum: 1,
        incomplete: false,
        lease: SourceLease::default(),
        state_dir: Some(temp.path().join("state")),
        stop: Stop::default(),
    };
    age(&source)?;
    fs::write(folder.join("first.txt"), expected_of(&source)?)?;
    snapshot(&env, &made.writer, &stores, request("first"), &NoProgress).await?;
    let rotated = rotate(&env, &stores, &paper).await?;
    fs::write(source.join("letters/letter-6.txt"), "a further letter\n".repeat(100))?;
    fs::remove_file(source.join("nothing"))?;
    age(&source)?;
    fs::write(folder.join("second.txt"), expected_of(&source)?)?;
    let writer = rotated.renew(&made.writer)?;
    snapshot(&env, &writer, &stores, request("second"), &NoProgress).await?;
    let mut keys = format!(
        "note: test keys, never used for records\npassphrase: {passphrase}\npaper-key: {}\nmachine-key: {}\nopen-key: {}\n",
        made.paper_key.to_text().as_str(),
        machine_text.as_str(),
        data_encoding::HEXLOWER.encode(&rotated.open_key().to_bytes()),
    );
    for share in &shares {
        keys += &format!("share-{}: {}\n", share.number, share.to_text().as_str());
    }
    fs::write(folder.join("keys.txt"), keys)?;
    Ok(())
}
