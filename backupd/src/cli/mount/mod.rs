//! `backupd mount`: all snapshots as read-only folders, until a signal or `umount`.

mod door;
mod inodes;
mod tree;

use super::args::MountArgs;
use super::render::Usage;
use super::repo::Repository;
use super::stop::Signals;
use anyhow::{Context, ensure};
use backup_engine::View;
use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use tokio::sync::mpsc;
use tree::Mounted;

/// Questions of the kernel that wait, and those that are being answered at one time.
const QUEUE: usize = 64;
const ANSWERS_AT_ONCE: usize = 32;

pub async fn mount(args: MountArgs, signals: &Signals) -> anyhow::Result<ExitCode> {
    let mut entries = std::fs::read_dir(&args.dir)
        .map_err(|error| Usage(format!("the folder to mount on cannot be opened ({}): make it first", error.kind())))?;
    ensure!(
        entries.next().is_none(),
        Usage("the folder to mount on is not empty: what is in it would be hidden".to_owned())
    );
    let repository = Repository::open(&args.repo).await?;
    let open = repository.unlock().await?;
    let snapshots = repository.snapshots(&open).await?;
    let view = View::open(&repository.env, &open, &repository.store).await?;
    let mounted = Mounted::new(&view, snapshots);
    let (door, mut questions) = mpsc::channel(QUEUE);
    let session = attach(door::Door::new(door), &args)?;
    if args.json {
        say!("{}", serde_json::json!({"event": "mounted", "snapshots": mounted.count()}));
    } else {
        say!("Snapshots readable below {}: {}. Ctrl-C ends it.", args.dir.display(), mounted.count());
    }
    signals.handled_here();
    let mut answers = FuturesUnordered::new();
    let ended_by_signal = loop {
        tokio::select! {
            _ = signals.first() => break true,
            Some(()) = answers.next(), if !answers.is_empty() => {}
            question = questions.recv(), if answers.len() < ANSWERS_AT_ONCE => match question {
                Some(question) => answers.push(mounted.answer(question)),
                // `umount` from elsewhere.
                None => break false,
            },
        }
    };
    drop(questions);
    drop(answers);
    if ended_by_signal {
        detach(session, &args.dir)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn attach(door: door::Door, args: &MountArgs) -> anyhow::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::FSName("backupd".to_owned()),
        MountOption::Subtype("backupd".to_owned()),
    ];
    if args.allow_other {
        config.acl = SessionACL::All;
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    fuser::spawn_mount(door, &args.dir, &config).with_context(|| {
        let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
        match device {
            Err(error) => {
                format!("/dev/fuse cannot be opened ({}): load the module `fuse`, or run as root", error.kind())
            }
            Ok(_) => {
                "the folder cannot be mounted on: install `fusermount3` (package fuse3) or run as root; --allow-other \
                      needs `user_allow_other` in /etc/fuse.conf"
                    .to_owned()
            }
        }
    })
}

/// Ends the mount. Where a program still has a file open, the folder is taken away at once and the rest when it closes it.
fn detach(session: BackgroundSession, dir: &Path) -> anyhow::Result<()> {
    let Err(error) = session.umount_and_join() else { return Ok(()) };
    let lazily = nix::mount::umount2(dir, nix::mount::MntFlags::MNT_DETACH).is_ok()
        || Command::new("fusermount3")
            .args(["-u", "-z", "-q", "--"])
            .arg(dir)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    ensure!(lazily, "the folder is still mounted ({error}): run `fusermount3 -uz {}`", dir.display());
    tell!("backupd: a program still had a file open below the folder: it is taken away all the same");
    Ok(())
}
