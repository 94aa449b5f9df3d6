//! Snapshots mounted as read-only folders, with the real program and the kernel's own FUSE.

use anyhow::{Context, Result, ensure};
use holdfast_tests::place::{Place, awkward, describe, fails, noise, signal};
use holdfast_tests::wait_for;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A mounted repository; the folder is free again when it is dropped.
struct Mounted {
    child: Child,
    dir: PathBuf,
}

impl Mounted {
    fn start(place: &Place) -> Result<Self> {
        let dir = place.path("mounted");
        fs::create_dir_all(&dir)?;
        let child = place.backupd(&["mount"]).arg(&dir).stdout(Stdio::null()).spawn()?;
        let mounted = Self { child, dir };
        wait_for("the mount", 60, || mounted.dir.join("snapshots").is_dir().then_some(()))?;
        Ok(mounted)
    }

    fn end(mut self, with: Signal) -> Result<i32> {
        signal(&self.child, with)?;
        Ok(self.child.wait()?.code().unwrap_or(-1))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.dir).stderr(Stdio::null()).status();
    }
}

fn fuse() -> bool {
    let there = fs::File::options().read(true).write(true).open("/dev/fuse");
    if let Err(error) = &there {
        holdfast_tests::skip("mounted snapshots", &format!("/dev/fuse cannot be opened: {error}"));
    }
    there.is_ok()
}

#[test]
fn a_mounted_snapshot_is_the_tree_that_was_taken() -> Result<()> {
    if !fuse() {
        return Ok(());
    }
    let place = Place::made()?;
    let source = place.source();
    awkward(&source)?;
    let large = noise(77, 12_000_000);
    fs::write(source.join("large"), &large)?;
    place.snapshot("a/tag")?;
    let before = describe(&source, false)?;
    fs::write(source.join("later"), b"later")?;
    let second = place.snapshot("later")?;
    let mounted = Mounted::start(&place)?;
    let names: Vec<String> = fs::read_dir(mounted.dir.join("snapshots"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    let id = second["id"].as_str().context("id")?;
    ensure!(names.len() == 2 && names.iter().any(|name| name.ends_with(&id[..8])), "{names:?}");

    let tagged = mounted.dir.join("tags/a_tag");
    ensure!(describe(&fs::canonicalize(&tagged)?, false)? == before, "the mounted tree is another one");
    ensure!(fs::read(mounted.dir.join("latest/later"))? == b"later");
    let inode = |name: &str| Ok::<_, anyhow::Error>(tagged.join(name).metadata()?.ino());
    ensure!(inode("scan.bin")? == inode("letters/same-scan.bin")? && inode("scan.bin")? != inode("large")?);

    // Anywhere in a file, in any order.
    let file = fs::File::open(tagged.join("large"))?;
    let mut state = 5u64;
    for _ in 0..200 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (offset, len) = ((state >> 24) as usize % large.len(), (state >> 10) as usize % 300_000);
        let expected = &large[offset..(offset + len).min(large.len())];
        let mut buffer = vec![0; expected.len()];
        file.read_exact_at(&mut buffer, offset as u64)?;
        ensure!(buffer == expected, "{len} bytes at {offset}");
    }
    ensure!(file.read_at(&mut [0; 10], large.len() as u64)? == 0);
    let refused = fs::write(tagged.join("new"), b"x").err().context("writing must be refused")?;
    ensure!(refused.raw_os_error() == Some(rustix::io::Errno::ROFS.raw_os_error()), "{refused}");
    ensure!(tagged.join("letters/none").symlink_metadata().is_err());
    drop(file);
    let dir = mounted.dir.clone();
    ensure!(mounted.end(Signal::INT)? == 0);
    ensure!(fs::read_dir(&dir)?.next().is_none(), "the folder is free again");

    // A program that still has a file open keeps nobody from ending it.
    let mounted = Mounted::start(&place)?;
    let open = fs::File::open(mounted.dir.join("latest/large"))?;
    ensure!(mounted.end(Signal::TERM)? == 0);
    ensure!(fs::read_dir(&dir)?.next().is_none());
    drop(open);
    // `umount` from elsewhere ends it as well.
    let mut mounted = Mounted::start(&place)?;
    ensure!(Command::new("umount").arg(&dir).status()?.success());
    ensure!(mounted.child.wait()?.code() == Some(0));
    fails_to_mount_over_something(&place)
}

fn fails_to_mount_over_something(place: &Place) -> Result<()> {
    let mut command = place.backupd(&["mount"]);
    command.arg(place.source());
    fails(command, 2, &["not empty"])?;
    let mut command = place.backupd(&["mount"]);
    command.arg(place.path("not-there"));
    fails(command, 2, &["make it first"])?;
    Ok(())
}

#[test]
fn a_folder_of_100_000_entries_is_listed_whole_through_the_mount() -> Result<()> {
    if !fuse() {
        return Ok(());
    }
    let place = Place::made()?;
    let crowd = place.source().join("crowd");
    fs::create_dir(&crowd)?;
    for at in 0..100_000 {
        fs::write(crowd.join(format!("entry-{at:06}")), b"")?;
    }
    fs::write(crowd.join("entry-077777"), b"this one has words")?;
    place.snapshot("crowd")?;
    let mounted = Mounted::start(&place)?;
    let crowd = mounted.dir.join("latest/crowd");
    let mut names: Vec<String> = fs::read_dir(&crowd)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    names.dedup();
    ensure!(names.len() == 100_000, "{}", names.len());
    ensure!(names.first().is_some_and(|n| n == "entry-000000") && names.last().is_some_and(|n| n == "entry-099999"));
    ensure!(fs::read(crowd.join("entry-077777"))? == b"this one has words");
    // Every second one with its attributes, in another order than the folder's.
    for at in (0..100_000).rev().step_by(2) {
        let meta = crowd.join(format!("entry-{at:06}")).metadata()?;
        ensure!(meta.len() == if at == 77_777 { 18 } else { 0 });
    }
    ensure!(mounted.end(Signal::INT)? == 0);
    Ok(())
}
