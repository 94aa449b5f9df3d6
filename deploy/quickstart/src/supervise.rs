//! Starting, watching and ending the programs.
//!
//! Everything runs on one thread: the kernel sends the parent-death signal when the *thread* that started a child ends.

use crate::ambient;
use crate::files;
use crate::layout::Layout;
use crate::programs::Programs;
use crate::running;
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// How long a program may take until it says that it is ready; a cold disk and a busy machine are slow.
const READY_TIME: Duration = Duration::from_secs(90);
/// How long a program may take to end after SIGTERM, before SIGKILL.
const STOP_TIME: Duration = Duration::from_secs(20);
const TAIL_LINES: usize = 15;
const TAIL_BYTES: u64 = 16 << 10;
/// A log that has grown beyond this starts anew at the next start, the old one kept beside it.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// One long-running program.
pub struct Daemon {
    /// The name of its log and in messages.
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

struct Running {
    name: &'static str,
    child: Child,
    pid: u32,
}

/// A command that ran to its end.
pub struct Finished {
    pub success: bool,
    /// `None`: ended by a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub output: Vec<u8>,
    /// What to tell about it when it did not do what was wanted.
    pub problem: String,
}

/// A program that ended although nobody asked it to.
#[derive(Debug)]
pub struct Ended {
    pub name: &'static str,
    pub status: ExitStatus,
}

pub struct Supervisor {
    programs: Programs,
    run_dir: PathBuf,
    logs: PathBuf,
    /// Where the processes that run now are written down.
    record: PathBuf,
    running: RefCell<Vec<Running>>,
}

impl Supervisor {
    pub fn new(programs: Programs, run_dir: PathBuf, layout: &Layout) -> Self {
        let (logs, record) = (layout.logs(), layout.running());
        Self { programs, run_dir, logs, record, running: RefCell::default() }
    }

    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Starts a daemon and returns when it has said that it is ready. Await [`Self::first_end`] beside it.
    pub async fn start(&self, daemon: Daemon) -> anyhow::Result<()> {
        let notify = self.run_dir.join(format!("{}.notify", daemon.name));
        std::fs::remove_file(&notify).ok();
        let socket =
            UnixDatagram::bind(&notify).with_context(|| format!("the socket {} cannot be made", notify.display()))?;
        let log = self.log_file(daemon.name);
        rotate(&log);
        let mut command = self.command(&log, &daemon.program, &daemon.arguments)?;
        command.env("NOTIFY_SOCKET", &notify);
        let child = command.spawn().with_context(|| format!("{} cannot be started", daemon.name))?;
        let pid = child.id().with_context(|| format!("{} ended at once", daemon.name))?;
        self.running.borrow_mut().push(Running { name: daemon.name, child, pid });
        running::save(&self.record, &self.pids())?;
        let mut ready = listen(socket);
        let waited = tokio::time::timeout(READY_TIME, ready.wait_for(|told| *told)).await;
        anyhow::ensure!(
            matches!(waited, Ok(Ok(_))),
            "{} was not ready after {} s; {}",
            daemon.name,
            READY_TIME.as_secs(),
            self.tail(daemon.name)
        );
        Ok(())
    }

    /// Runs a command to its end; it must succeed. What it wrote to standard error is in its log.
    pub async fn run(&self, name: &'static str, program: &str, arguments: &[OsString]) -> anyhow::Result<()> {
        let finished = self.run_with(name, program, arguments, |_| {}).await?;
        anyhow::ensure!(finished.success, "{}", finished.problem);
        Ok(())
    }

    /// Runs a command to its end and hands every line of its standard output to `line` as it comes.
    pub async fn run_with(
        &self,
        name: &'static str,
        program: &str,
        arguments: &[OsString],
        mut line: impl FnMut(&str),
    ) -> anyhow::Result<Finished> {
        use tokio::io::{AsyncBufReadExt, BufReader};
        let log = self.log_file(name);
        rotate(&log);
        let from = std::fs::metadata(&log).map_or(0, |meta| meta.len());
        let mut command = self.command(&log, &self.programs.path(program), arguments)?;
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{program} cannot be started"))?;
        let mut output = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().context("the command has no output")?).lines();
        while let Some(text) = lines.next_line().await.with_context(|| format!("{program}'s output is not text"))? {
            line(&text);
            output.extend_from_slice(text.as_bytes());
            output.push(b'\n');
        }
        let status = child.wait().await?;
        let problem = format!("{name} failed ({}); {}", describe(status), tail_from(&log, from));
        Ok(Finished { success: status.success(), code: status.code(), output, problem })
    }

    fn command(&self, log: &Path, program: &Path, arguments: &[OsString]) -> anyhow::Result<Command> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(log)
            .with_context(|| format!("the log {} cannot be written", log.display()))?;
        let mut command = Command::new(self.programs.own());
        command
            .args(["run-child", "--parent", &std::process::id().to_string(), "--"])
            .arg(program)
            .args(arguments)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .env_remove("CREDENTIALS_DIRECTORY")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C in the terminal reaches only the quickstart, which then ends the others in order.
            .process_group(0);
        Ok(command)
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// The end of a program's log, for a message.
    pub fn tail(&self, name: &str) -> String {
        tail_from(&self.log_file(name), 0)
    }

    /// Resolves when a program ends by itself.
    pub async fn first_end(&self) -> Ended {
        loop {
            for running in self.running.borrow_mut().iter_mut() {
                if let Ok(Some(status)) = running.child.try_wait() {
                    return Ended { name: running.name, status };
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What to tell about a program that ended by itself.
    pub fn explain(&self, ended: &Ended) -> String {
        format!("{} ended unexpectedly ({}); {}", ended.name, describe(ended.status), self.tail(ended.name))
    }

    fn pids(&self) -> running::Running {
        self.running.borrow().iter().map(|running| (running.name.to_owned(), running.pid)).collect()
    }

    /// Ends every program, the last started first; returns the names of those that had to be killed.
    pub async fn stop_all(&self) -> Vec<&'static str> {
        let mut killed = Vec::new();
        loop {
            // The borrow ends before the wait.
            let Some(mut running) = self.running.borrow_mut().pop() else { break };
            if !stop(&mut running).await {
                killed.push(running.name);
            }
            std::fs::remove_file(self.run_dir.join(format!("{}.notify", running.name))).ok();
        }
        std::fs::remove_file(&self.record).ok();
        killed
    }
}

/// An early return must not leave programs behind: what `stop_all` has not ended is asked to end here.
impl Drop for Supervisor {
    fn drop(&mut self) {
        for running in self.running.borrow().iter().rev() {
            signal(running, Signal::TERM);
        }
    }
}

/// Whether the program ended by itself within the time.
async fn stop(running: &mut Running) -> bool {
    if matches!(running.child.try_wait(), Ok(Some(_))) {
        return true;
    }
    signal(running, Signal::TERM);
    if tokio::time::timeout(STOP_TIME, running.child.wait()).await.is_ok() {
        return true;
    }
    running.child.kill().await.ok();
    false
}

/// The child has not been waited for, so its process id cannot belong to another process.
fn signal(running: &Running, signal: Signal) {
    if let Some(pid) = i32::try_from(running.pid).ok().and_then(Pid::from_raw) {
        kill_process(pid, signal).ok();
    }
}

/// Reads a program's notifications for as long as it lives: a full queue would block it.
fn listen(socket: UnixDatagram) -> watch::Receiver<bool> {
    let (tell, told) = watch::channel(false);
    tokio::spawn(async move {
        let mut message = [0; 4096];
        while let Ok(length) = socket.recv(&mut message).await {
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                tell.send_replace(true);
            }
        }
    });
    told
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => format!("signal {number}"),
        (None, None) => "unknown end".into(),
    }
}

fn rotate(log: &Path) {
    if std::fs::metadata(log).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        std::fs::rename(log, log.with_extension("log.1")).ok();
    }
}

fn tail_from(log: &Path, from: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    if last.is_empty() {
        return format!("its log {} is empty", log.display());
    }
    format!("the end of {}:\n    {}", log.display(), last.join("\n    "))
}

/// A folder with a short path for sockets (a Unix socket's path may have 107 bytes): the one of the last start if it can
/// be used, else a new one.
pub fn run_folder(kept: Option<&Path>) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let mine = |path: &Path| {
        let meta = std::fs::symlink_metadata(path)?;
        std::io::Result::Ok(
            meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0,
        )
    };
    if let Some(kept) = kept
        // A copy of the practice names the same folder: the one that runs keeps it.
        && !in_use(kept)
        && (mine(kept).unwrap_or(false) || (!kept.exists() && new_folder(kept).is_ok()))
    {
        return Ok(kept.to_path_buf());
    }
    let base = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|base| base.is_absolute() && base.as_os_str().len() < 40 && mine(base).unwrap_or(false))
        .unwrap_or_else(|| "/tmp".into());
    let mut random = [0; 6];
    ambient::random(&mut random)?;
    let folder = base.join(format!("holdfast-{}", hex::encode(random)));
    new_folder(&folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
    Ok(folder)
}

/// Whether somebody answers on a socket in the folder.
fn in_use(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| std::os::unix::net::UnixStream::connect(path).is_ok())
}

/// Fails when the folder is there already, so that nobody can have prepared it.
fn new_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

/// Free room below which nothing is started: backups pause when less than 2 GB would stay free.
const FREE_BYTES_MIN: u64 = 3_000_000_000;
/// Backups pause below this.
pub const RESERVE_BYTES: u64 = 2_000_000_000;

/// Bytes that are free where the folder lies.
pub fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    let stat = rustix::fs::statvfs(folder).with_context(|| format!("{} has no file system", folder.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

pub fn require_room(folder: &Path) -> anyhow::Result<()> {
    let free = free_bytes(folder)?;
    anyhow::ensure!(
        free >= FREE_BYTES_MIN,
        "only {} MB are free at {}: free at least 3 GB, or choose another folder with --dir; nothing was changed",
        free / 1_000_000,
        folder.display()
    );
    Ok(())
}

/// Sweeps sockets of a run that was killed.
pub fn clear_sockets(run_dir: &Path) -> anyhow::Result<()> {
    files::private_folder(run_dir)?;
    for entry in std::fs::read_dir(run_dir).context("the run folder cannot be read")?.flatten() {
        use std::os::unix::fs::FileTypeExt;
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            std::fs::remove_file(entry.path()).ok();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_run_folder_is_kept_while_it_is_ours_and_closed() {
        let first = run_folder(None).unwrap();
        assert!(first.as_os_str().len() < 80);
        assert_eq!(run_folder(Some(&first)).unwrap(), first);
        let listener = std::os::unix::net::UnixListener::bind(first.join("s.sock")).unwrap();
        let other = run_folder(Some(&first)).unwrap();
        assert_ne!(other, first, "somebody answers there");
        std::fs::remove_dir(other).unwrap();
        drop(listener);
        std::fs::remove_file(first.join("s.sock")).unwrap();
        std::fs::set_permissions(&first, PermissionsExt::from_mode(0o755)).unwrap();
        let second = run_folder(Some(&first)).unwrap();
        assert_ne!(second, first, "a folder that others can enter was used");
        std::fs::remove_dir(&first).unwrap();
        assert_eq!(run_folder(Some(&first)).unwrap(), first, "after a restart of the machine it is made again");
        std::fs::remove_dir(&first).unwrap();
        std::fs::remove_dir(&second).unwrap();
    }

    #[test]
    fn the_tail_shows_the_last_lines_only() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        let lines: Vec<String> = (0..5000).map(|n| format!("line {n}")).collect();
        std::fs::write(&log, lines.join("\n")).unwrap();
        let tail = tail_from(&log, 0);
        assert!(tail.contains("line 4999") && tail.contains("line 4985") && !tail.contains("line 4984"), "{tail}");
        assert!(tail_from(&folder.path().join("none"), 0).contains("is empty"));
    }
}
