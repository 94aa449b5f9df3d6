//! The second reader: a Python program written from the specification alone restores what the real program wrote.

use anyhow::{Context, Result, ensure};
use holdfast_tests::golden::{Golden, expected_of};
use holdfast_tests::tree::describe;
use holdfast_tests::{program, root};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Python with the packages of `tests/reader/requirements.txt`; `tests/run` makes it.
fn python() -> Result<PathBuf> {
    let tools = std::env::var_os("HOLDFAST_TOOLS").map_or_else(|| root().join(".tools"), PathBuf::from);
    let python = tools.join("reader/bin/python");
    ensure!(python.exists(), "{} is missing: `tests/run system` makes it", python.display());
    Ok(python)
}

fn run(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("{command:?}"))?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "{command:?}\n{said}");
    Ok(String::from_utf8(out.stdout)?)
}

fn reader(store: &Path) -> Result<Command> {
    let mut command = Command::new(python()?);
    command.arg(root().join("tests/reader/holdfast_reader.py")).arg("--store").arg(store);
    Ok(command)
}

/// One of everything that a snapshot keeps.
fn fill(source: &Path) -> Result<()> {
    fs::create_dir_all(source.join("letters/2026"))?;
    for at in 0..40u32 {
        let text = format!("Dear patient {at}, your next appointment is on day {at}.\n").repeat(20 + 7 * at as usize);
        fs::write(source.join(format!("letters/2026/letter-{at}.txt")), text)?;
    }
    fs::create_dir_all(source.join("many"))?;
    for at in 0..3000u32 {
        fs::write(source.join(format!("many/{at:05}")), at.to_le_bytes())?;
    }
    let noise: Vec<u8> =
        (0u64..700_000).flat_map(|at| blake3::hash(&at.to_le_bytes()).as_bytes()[..8].to_vec()).collect();
    fs::write(source.join("scan.bin"), &noise)?;
    fs::create_dir(source.join("empty"))?;
    fs::write(source.join("nothing"), b"")?;
    fs::write(source.join(Path::new(std::ffi::OsStr::from_bytes(b"no\xfftext\nname"))), b"odd")?;
    let mut sparse = File::create(source.join("sparse"))?;
    sparse.seek(SeekFrom::Start(6 << 20))?;
    sparse.write_all(&[7; 5000])?;
    sparse.set_len(16 << 20)?;
    fs::hard_link(source.join("scan.bin"), source.join("letters/same-scan"))?;
    std::os::unix::fs::symlink("../scan.bin", source.join("letters/link"))?;
    std::os::unix::fs::symlink("nowhere", source.join("dangling"))?;
    let mode = |bits| rustix::fs::Mode::from_raw_mode(bits);
    let at = rustix::fs::CWD;
    rustix::fs::mknodat(at, source.join("fifo"), rustix::fs::FileType::Fifo, mode(0o640), 0)?;
    drop(std::os::unix::net::UnixListener::bind(source.join("socket"))?);
    let letter = source.join("letters/2026/letter-7.txt");
    rustix::fs::setxattr(&letter, "user.kind", b"letter\0\xff", rustix::fs::XattrFlags::empty())?;
    rustix::fs::chmod(source.join("letters"), mode(0o3750))?;
    if rustix::process::geteuid().is_root() {
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(at, source.join("null"), rustix::fs::FileType::CharacterDevice, mode(0o666), device)?;
        std::os::unix::fs::lchown(&letter, Some(12345), Some(54321))?;
        std::os::unix::fs::lchown(source.join("dangling"), Some(7), Some(8))?;
    }
    let old = rustix::fs::Timespec { tv_sec: -1_000_000_000, tv_nsec: 123_456_789 };
    let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
    for path in [letter, source.join("letters/link"), source.join("letters")] {
        rustix::fs::utimensat(at, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

#[test]
fn the_second_reader_restores_every_snapshot_as_the_program_does() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let (source, store) = (temp.path().join("source"), temp.path().join("repo"));
    fill(&source)?;
    let backupd = |args: &[&str]| {
        run(Command::new(program("backupd"))
            .args(args)
            .args(["--json", "--repo"])
            .arg(&store)
            .current_dir(temp.path())
            .env("BACKUPD_STATE", temp.path().join("state"))
            .env("BACKUPD_PASSPHRASE", "correct horse"))
    };
    let made: serde_json::Value = serde_json::from_str(backupd(&["init"])?.lines().next().context("a line")?)?;
    let paper = temp.path().join("paper-key");
    fs::write(&paper, made["paper_key"].as_str().context("the paper key")?)?;
    let first = describe(&source)?;
    backupd(&["snapshot", "--tag", "one", "source"])?;
    backupd(&["keys", "rotate"])?;
    fs::write(source.join("letters/2026/letter-3.txt"), "changed\n")?;
    fs::remove_file(source.join("nothing"))?;
    fs::remove_file(source.join("scan.bin"))?;
    let second = describe(&source)?;
    backupd(&["snapshot", "--tag", "two", "source"])?;
    let listed = run(reader(&store)?.arg("--paper-key-file").arg(&paper).arg("list"))?;
    ensure!(listed.lines().count() == 2, "{listed}");
    for (tag, expected) in [("one", first), ("two", second)] {
        let (ours, theirs) = (temp.path().join(format!("ours-{tag}")), temp.path().join(format!("theirs-{tag}")));
        backupd(&["restore", "--tag", tag, "--into", ours.to_str().context("a path")?])?;
        let said = run(reader(&store)?.env("BACKUPD_PASSPHRASE", "correct horse").args(["restore", tag]).arg(&theirs))?;
        let theirs = fs::read_dir(&theirs)?.next().with_context(|| said.clone())??.path();
        for (who, tree) in [("the program", describe(&ours)?), ("the second reader", describe(&theirs)?)] {
            let differing = expected.iter().find(|(name, says)| tree.get(*name) != Some(says));
            ensure!(
                differing.is_none(),
                "{who}, {tag}: {differing:?} but {:?}",
                differing.map(|(name, _)| tree.get(name))
            );
            ensure!(tree.len() == expected.len(), "{who}, {tag}: further entries");
        }
    }
    Ok(())
}

#[test]
fn the_second_reader_refuses_what_is_not_whole() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let store = temp.path().join("repo");
    fs::create_dir(temp.path().join("source"))?;
    fs::write(temp.path().join("source/letter"), "a letter\n".repeat(100))?;
    for args in [&["init"][..], &["snapshot", "source"]] {
        run(Command::new(program("backupd"))
            .args(args)
            .arg("--repo")
            .arg(&store)
            .current_dir(temp.path())
            .env("BACKUPD_STATE", temp.path().join("state"))
            .env("BACKUPD_PASSPHRASE", "correct horse"))?;
    }
    let restore = |passphrase: &str, into: &str| -> Result<(bool, String)> {
        let target = temp.path().join(into);
        let out =
            reader(&store)?.env("BACKUPD_PASSPHRASE", passphrase).args(["restore", "latest"]).arg(target).output()?;
        Ok((out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned()))
    };
    ensure!(restore("correct horse", "good")?.0);
    let (passed, said) = restore("correct horsE", "wrong")?;
    ensure!(!passed && said.contains("does not open"), "{said}");
    for file in holdfast_tests::files(&store.join("packs")) {
        let mut bytes = fs::read(&file)?;
        bytes[1200] ^= 1;
        fs::write(&file, bytes)?;
    }
    let (passed, said) = restore("correct horse", "damaged")?;
    ensure!(!passed && said.contains("damaged or gone"), "{said}");
    Ok(())
}

#[test]
fn the_second_reader_reads_every_frozen_repository_with_each_of_its_keys() -> Result<()> {
    for golden in Golden::all()? {
        let temp = tempfile::tempdir()?;
        let file = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
            fs::write(temp.path().join(name), bytes)?;
            Ok(temp.path().join(name))
        };
        let keys = [
            ("--passphrase-file", file("passphrase", golden.key("passphrase")?.as_bytes())?),
            ("--paper-key-file", file("paper-key", golden.key("paper-key")?.as_bytes())?),
            ("--open-key", file("open-key", &golden.open_key()?)?),
        ];
        for (option, key) in keys {
            for tag in ["first", "second"] {
                let into = temp.path().join(format!("{tag}{option}"));
                run(reader(&golden.store())?.arg(option).arg(&key).args(["restore", tag]).arg(&into))?;
                ensure!(expected_of(&into.join("files"))? == golden.expected(tag)?, "{tag} comes back as it was");
            }
        }
    }
    Ok(())
}

#[test]
fn the_second_reader_answers_the_test_vectors_as_the_program_does() -> Result<()> {
    let said = run(Command::new(python()?).arg(root().join("tests/reader/check_vectors.py")))?;
    ensure!(said.contains(" 0 answered otherwise"), "{said}");
    Ok(())
}
