//! `quickstart recover`: the practice is gone; its recovery kit and one store are left.
//!
//! The work is done by `backupd recover`; this gives it what the quickstart's world lacks after the loss: a server in front
//! of the store that is left, empty ones in the place of the others, and the start of the programs afterwards.

use crate::Binaries;
use crate::chain::{self, Chain, arguments};
use crate::configure;
use crate::files;
use crate::layout::{Layout, StoreName};
use crate::lock::Lock;
use crate::output;
use crate::place;
use crate::ports::Chosen;
use crate::practice::{Practice, Wishes};
use crate::programs::Programs;
use crate::steps::Steps;
use crate::supervise::{self, Daemon, Supervisor};
use crate::users::Users;
use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The access keys of the server in front of the store that is left.
const KEYS: &str = "keys.toml";
/// What `backupd recover` ends with when something that it tells did not come back.
const PARTIAL: u8 = 3;

#[derive(Debug, Args)]
pub struct Recover {
    /// The recovery kit: its file, or the folder that holds it.
    #[arg(long, value_name = "FILE")]
    kit: PathBuf,
    /// The paper key that opens the kit; by default paper-key.txt beside it.
    #[arg(long, value_name = "FILE")]
    paper_key_file: Option<PathBuf>,
    /// The store that is left: provider-north, provider-south or local-folder.
    #[arg(long, value_name = "NAME")]
    store: String,
    /// Where that store's folder is now.
    #[arg(long, value_name = "DIR")]
    store_folder: PathBuf,
}

/// The part of the kit that is needed here.
#[derive(Deserialize)]
struct Kit {
    stores: Vec<KitStore>,
}

#[derive(Deserialize)]
struct KitStore {
    name: String,
    s3: Option<KitS3>,
}

#[derive(Deserialize)]
struct KitS3 {
    bucket: String,
    access_key: String,
    secret_key: String,
}

pub fn run(dir: &Path, recover: &Recover, binaries: &Binaries) -> anyhow::Result<ExitCode> {
    let steps = Steps::new();
    let store = StoreName::parse(&recover.store)
        .with_context(|| format!("--store {}: it is provider-north, provider-south or local-folder", recover.store))?;
    anyhow::ensure!(
        recover.store_folder.is_dir(),
        "--store-folder {}: there is no such folder",
        recover.store_folder.display()
    );
    let layout = Layout::new(dir)?;
    let reached = Reached::of(&layout)?;
    let programs = chain::obtain_programs(binaries, steps)?;
    let mut missing = None;
    if reached == Reached::Nothing {
        let brought = chain::runtime()?.block_on(bring_back(&layout, recover, store, programs.clone(), steps))?;
        missing = brought.missing();
        if let Some(missing) = &missing {
            output::note(&format!("  !! {missing}"));
        }
    }

    let _lock = Lock::take(&layout.lock())?;
    take_over_store(&layout, store, &recover.store_folder)?;
    let practice = Practice::prepare(&layout, Wishes::default())?;
    anyhow::ensure!(practice.done.backup, "the recovered folder lacks quickstart.toml: it was not made by quickstart");
    let code = chain::supervised(&layout, practice, programs, steps, async |chain| {
        into_service(chain, missing.as_deref()).await
    })?;
    // As `backupd recover`: in service, and not all that there was.
    let lacks = code == ExitCode::SUCCESS && missing.is_some();
    Ok(if lacks { ExitCode::from(PARTIAL) } else { code })
}

/// What `backupd recover --json` says at its end.
#[derive(Deserialize)]
struct Recovered {
    taken_unix_ms: i64,
    /// Snapshots that came back and whose original was damaged when they were taken.
    damaged_originals: Vec<String>,
    /// Snapshots that came back without records that could not be read when they were taken: the store has no whole one.
    #[serde(default)]
    partial: Vec<String>,
    /// Settings and keys that no snapshot brought back.
    #[serde(default)]
    kept_absent: Vec<String>,
    /// Snapshots that came back and were taken by a server that had been set back.
    #[serde(default)]
    set_back: Vec<SetBack>,
    /// Objects of snapshots that may be newer, which the store does not have whole.
    #[serde(default)]
    unread: Vec<String>,
    /// Snapshots of other machines.
    #[serde(default)]
    beside: Vec<Beside>,
    /// Newer snapshots that the store no longer has whole.
    skipped: Vec<Skipped>,
}

#[derive(Deserialize)]
struct Beside {
    id: String,
}

#[derive(Deserialize)]
struct SetBack {
    lacks: Vec<String>,
}

#[derive(Deserialize)]
struct Skipped {
    taken_unix_ms: i64,
}

impl Recovered {
    fn of(output: &[u8]) -> anyhow::Result<Self> {
        let lines = output.split(|byte| *byte == b'\n').rev();
        let last = lines.into_iter().find_map(|line| serde_json::from_slice(line).ok());
        last.context("backupd recover did not say what came back")
    }

    /// What the person who recovers has to know before anybody works with these records.
    fn missing(&self) -> Option<String> {
        let damaged = (!self.damaged_originals.is_empty()).then(|| {
            "The records were damaged already when this snapshot was taken (the alert source-damaged): an older one may hold what \
             it lacks. `backupd recover --snapshot ID` brings it back into another folder; compare before anybody works with \
             this one."
                .to_owned()
        });
        let partial = (!self.partial.is_empty()).then(|| {
            "This store has no whole snapshot: what came back lacks records that could not be read when it was taken. If another \
             store is left, recover from it into another folder, and compare, before anybody works with this one."
                .to_owned()
        });
        let kept = (!self.kept_absent.is_empty()).then(|| {
            format!(
                "These settings or keys were gone when the snapshot was taken, and did not come back: {}. Another store may have \
                 them in an older snapshot.",
                self.kept_absent.join(", ")
            )
        });
        let set_back = (!self.set_back.is_empty()).then(|| {
            let lacks: Vec<&str> = self.set_back.iter().flat_map(|one| &one.lacks).map(String::as_str).collect();
            format!(
                "The server had been set back to an earlier state when this snapshot was taken (the alert source-set-back), and nobody \
                 had looked into it: an older snapshot holds records that are not here. `backupd recover --snapshot ID` brings it \
                 back into another folder; compare before anybody works with this one. {}",
                lacks.join(", ")
            )
        });
        let unread = (!self.unread.is_empty()).then(|| {
            format!(
                "This store has {} snapshots that cannot be read and may be newer than {}: what was entered since may be missing. If \
                 another store is left, recover from it into another folder, and compare, before anybody works with this one.",
                self.unread.len(),
                output::time(self.taken_unix_ms)
            )
        });
        let beside = (!self.beside.is_empty()).then(|| {
            let ids: Vec<&str> = self.beside.iter().map(|one| one.id.as_str()).collect();
            format!(
                "Another machine wrote snapshots beside this one, and what was entered there is not here. `backupd recover --snapshot \
                 ID` brings it back into another folder; compare before anybody works with this one. {}",
                ids.join(", ")
            )
        });
        let said = [self.skipped_words(), unread, partial, kept, set_back, beside, damaged];
        let told: Vec<String> = said.into_iter().flatten().collect();
        (!told.is_empty()).then(|| told.join("\n  !! "))
    }

    fn skipped_words(&self) -> Option<String> {
        let newest = self.skipped.iter().map(|skipped| skipped.taken_unix_ms).max()?;
        Some(format!(
            "The records are those of {}. This store no longer has {} newer snapshot{} whole (the newest of {}): what was \
             entered in between is not there. If another store is left, recover from it into another folder, and compare, \
             before anybody works with this one.",
            output::time(self.taken_unix_ms),
            self.skipped.len(),
            if self.skipped.len() == 1 { "" } else { "s" },
            output::time(newest)
        ))
    }
}

/// How far an attempt that was interrupted came: the same command goes on from there.
#[derive(Debug, PartialEq, Eq)]
enum Reached {
    /// An empty folder, or one in which `backupd recover` goes on, or says once more what it has brought back.
    Nothing,
    /// Settings, keys and records are back, and no daemon has run on them yet.
    Back,
}

impl Reached {
    fn of(layout: &Layout) -> anyhow::Result<Self> {
        let ended = layout.at(".recovered").is_file() && !layout.serve_state().exists();
        if ended || layout.at(".recovering").is_dir() {
            return Ok(Self::Nothing);
        }
        let dir = layout.dir().display();
        if !layout.settings().is_file() {
            place::require(layout)?;
            let empty = !layout.dir().exists() || place::is_empty(layout.dir())?;
            anyhow::ensure!(empty, "--dir {dir}: it is not empty, and no recovery has begun in it: name a new folder");
            return Ok(Self::Nothing);
        }
        anyhow::ensure!(
            !layout.serve_state().exists(),
            "--dir {dir}: a practice is in it already, this one or another. Start it with: quickstart --dir {dir}; to recover \
             it anew, name a new folder"
        );
        Ok(Self::Back)
    }
}

/// Runs `backupd recover` with the store that is left. Its server and its log live in a short-lived folder, because the
/// practice's own folder has to be empty until it is done.
async fn bring_back(
    layout: &Layout,
    recover: &Recover,
    store: StoreName,
    programs: Programs,
    steps: Steps,
) -> anyhow::Result<Recovered> {
    let work = supervise::run_folder(None)?;
    let step = steps.begin("bringing configuration, keys and records back from one store");
    let supervisor = Supervisor::new(programs, work.clone(), &Layout::new(&work)?);
    files::private_folder(&work.join("logs"))?;
    let brought = tokio::select! {
        brought = ask_backupd(&supervisor, layout, recover, store, &work) => brought,
        ended = supervisor.first_end() => Err(anyhow::anyhow!(supervisor.explain(&ended))),
    };
    supervisor.stop_all().await;
    match &brought {
        Ok(_) => std::fs::remove_dir_all(&work).ok(),
        // The message names the log.
        Err(_) => std::fs::remove_file(work.join(KEYS)).ok(),
    };
    let brought = brought?;
    step.done(&format!("configuration, keys and records are back, as of {}", output::time(brought.taken_unix_ms)));
    Ok(brought)
}

async fn ask_backupd(
    supervisor: &Supervisor,
    layout: &Layout,
    recover: &Recover,
    store: StoreName,
    work: &Path,
) -> anyhow::Result<Recovered> {
    let (folder, kit) = (std::path::absolute(&recover.store_folder)?, std::path::absolute(&recover.kit)?);
    let paper_key = paper_key(&kit, recover.paper_key_file.as_deref())?;
    let mut arguments =
        arguments!["recover", "--json", "--kit", &kit, "--store", store.id(), "--into", layout.dir()].to_vec();
    arguments.extend(arguments!["--paper-key-file", &paper_key].to_vec());
    // Lives as long as the server.
    let mut chosen = Chosen::default();
    match credentials(&kit, store)? {
        None => arguments.extend(arguments!["--path", folder].to_vec()),
        Some(s3) => {
            let keys = work.join(KEYS);
            files::write_private(
                &keys,
                configure::server_key(&s3.access_key, &s3.secret_key, configure::BACKUP_MAY).as_bytes(),
            )?;
            let port = chosen.free_port(Ipv4Addr::LOCALHOST.into(), 9001)?;
            let listen = format!("127.0.0.1:{port}");
            arguments.extend(arguments!["--endpoint", format!("http://{listen}")].to_vec());
            let server =
                arguments!["--listen", listen, "--bucket", &s3.bucket, "--root", folder, "--access-key-file", keys]
                    .to_vec();
            let program = supervisor.programs().path("s3-server");
            supervisor.start(Daemon { name: store.id(), program, arguments: server }).await?;
            // It has read them: they lie nowhere while the work goes on, which may be killed.
            std::fs::remove_file(work.join(KEYS)).ok();
        }
    }
    let finished = supervisor.run_with("backupd-recover", "backupd", &arguments, |_| {}).await?;
    // What came back and lacks something is in its place; what it lacks is told at the end.
    anyhow::ensure!(finished.success || finished.code == Some(PARTIAL.into()), "{}", finished.problem);
    warn_of_readable(&paper_key);
    Recovered::of(&finished.output)
}

/// `backupd recover` refuses a paper key that others may read, but where nobody can change its mode, as on a disc or a stick.
fn warn_of_readable(key: &Path) {
    use std::os::unix::fs::MetadataExt;
    if key.metadata().is_ok_and(|meta| meta.mode() & 0o077 != 0) {
        output::note(&format!(
            "  !! {} may be read by others, and its medium keeps no modes: keep the medium locked away",
            key.display()
        ));
    }
}

fn paper_key(kit: &Path, named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let folder = if kit.is_dir() { kit } else { kit.parent().unwrap_or(kit) };
    let file = named.map_or_else(|| Ok(folder.join("paper-key.txt")), std::path::absolute)?;
    anyhow::ensure!(
        file.is_file(),
        "the paper key is not at {}: say where it is with --paper-key-file",
        file.display()
    );
    Ok(file)
}

/// What the kit knows of a provider's server; `None` for a folder.
fn credentials(kit: &Path, store: StoreName) -> anyhow::Result<Option<KitS3>> {
    let file = if kit.is_dir() { kit.join("kit.json") } else { kit.to_owned() };
    let text = files::read(&file)?;
    // The parser's message could quote a secret.
    let read: Kit =
        serde_json::from_str(&text).ok().with_context(|| format!("{} is no recovery kit", file.display()))?;
    let entry = read.stores.into_iter().find(|entry| entry.name == store.id());
    Ok(entry.with_context(|| format!("{} knows no store {}", file.display(), store.id()))?.s3)
}

/// Copies the store that is left to its place in the practice's folder; the original stays untouched.
fn take_over_store(layout: &Layout, store: StoreName, from: &Path) -> anyhow::Result<()> {
    let to = layout.store(store);
    let same = from.canonicalize().ok() == to.canonicalize().ok();
    if same { Ok(()) } else { copy(from, &to).with_context(|| format!("{} cannot be copied", from.display())) }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    files::private_folder(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            // The short name of a bucket: the server that is started on the copy makes it where it is not there.
            if std::fs::symlink_metadata(&target).is_err() {
                std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, target)?;
            }
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Starts everything on what came back, makes the console's accounts anew (they lived only there), takes the next snapshot
/// and proves it.
async fn into_service(chain: &mut Chain<'_>, missing: Option<&str>) -> anyhow::Result<bool> {
    let mut users = Users::prepare(chain.layout)?;
    users.forget_console(chain.layout)?;
    chain.start_programs(&mut users).await?;
    let well = chain.prove().await?;
    output::say(&format!(
        "\nThe practice is back in {}. Start it with: quickstart --dir {}\n\
         Users of the EMR keep their passwords; the console's users have new second factors: quickstart login NAME",
        chain.layout.dir().display(),
        files::quoted(chain.layout.dir())
    ))?;
    if let Some(missing) = missing {
        output::say(&format!("\n!! {missing}"))?;
    }
    Ok(well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_has_lost_is_told_with_its_time() {
        let said = br#"{"event":"progress"}
{"event":"recovered","taken_unix_ms":1000,"damaged_originals":[],"skipped":[{"id":"a","source":"emr","taken_unix_ms":61000,"why":"damaged"}]}
"#;
        let missing = Recovered::of(said).unwrap().missing().unwrap();
        assert!(
            missing.contains("1970-01-01 00:00:01 UTC") && missing.contains("1970-01-01 00:01:01 UTC"),
            "{missing}"
        );
        let whole = br#"{"event":"recovered","taken_unix_ms":1000,"damaged_originals":[],"skipped":[]}"#;
        assert_eq!(Recovered::of(whole).unwrap().missing(), None);
        let damaged = br#"{"event":"recovered","taken_unix_ms":1000,"damaged_originals":["ab"],"skipped":[]}"#;
        assert!(Recovered::of(damaged).unwrap().missing().unwrap().contains("source-damaged"));
        let partial =
            br#"{"event":"recovered","taken_unix_ms":1000,"partial":["ab"],"damaged_originals":[],"skipped":[]}"#;
        assert!(Recovered::of(partial).unwrap().missing().unwrap().contains("no whole snapshot"));
        let absent = br#"{"event":"recovered","taken_unix_ms":1000,"kept_absent":["/p/ca"],"damaged_originals":[],"skipped":[]}"#;
        assert!(Recovered::of(absent).unwrap().missing().unwrap().contains("/p/ca"));
        let set_back = br#"{"event":"recovered","taken_unix_ms":1000,"damaged_originals":[],"skipped":[],
            "set_back":[{"id":"b","source":"emr","taken_unix_ms":1,"lacks":["abc"]}]}"#;
        let set_back: Vec<u8> = set_back.iter().copied().filter(|byte| *byte != b'\n').collect();
        assert!(Recovered::of(&set_back).unwrap().missing().unwrap().contains("abc"));
        assert!(Recovered::of(b"").is_err());
    }

    #[test]
    fn a_kit_tells_the_credentials_of_a_provider() {
        let folder = tempfile::tempdir().unwrap();
        let kit = folder.path().join("kit.json");
        let text = r#"{"form":"x","stores":[{"name":"provider-north","path":null,"s3":{"endpoint":null,"bucket":"b","access_key":"AK",
            "secret_key":"SK"}},{"name":"local-folder","path":"/p","s3":null}]}"#;
        std::fs::write(&kit, text).unwrap();
        assert_eq!(credentials(&kit, StoreName::North).unwrap().unwrap().access_key, "AK");
        assert!(credentials(folder.path(), StoreName::Local).unwrap().is_none());
        assert!(credentials(&kit, StoreName::South).is_err());
        std::fs::write(&kit, "{\"secret_key\":\"hunter2\"").unwrap();
        assert!(!format!("{:#}", credentials(&kit, StoreName::North).err().unwrap()).contains("hunter2"));
    }

    #[test]
    fn the_paper_key_lies_beside_the_kit_or_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (kit, key) = (folder.path().join("kit.json"), folder.path().join("paper-key.txt"));
        assert!(paper_key(&kit, None).unwrap_err().to_string().contains("--paper-key-file"));
        std::fs::write(&key, "x").unwrap();
        assert_eq!(paper_key(&kit, None).unwrap(), key);
        assert_eq!(paper_key(folder.path(), None).unwrap(), key);
        assert!(paper_key(&kit, Some(Path::new("/nonexistent"))).is_err());
    }

    #[test]
    fn an_interrupted_attempt_goes_on_and_a_practice_is_never_recovered_over() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        assert_eq!(Reached::of(&Layout::new(&folder.path().join("new")).unwrap()).unwrap(), Reached::Nothing);
        assert_eq!(Reached::of(&layout).unwrap(), Reached::Nothing);
        std::fs::create_dir(layout.at("lost+found")).unwrap();
        assert_eq!(Reached::of(&layout).unwrap(), Reached::Nothing, "a file system that was just made");
        std::fs::write(layout.at("letter.txt"), "x").unwrap();
        assert!(Reached::of(&layout).unwrap_err().to_string().contains("not empty"));
        std::fs::create_dir(layout.at(".recovering")).unwrap();
        assert_eq!(Reached::of(&layout).unwrap(), Reached::Nothing);
        std::fs::remove_dir(layout.at(".recovering")).unwrap();
        std::fs::write(layout.settings(), "").unwrap();
        assert_eq!(Reached::of(&layout).unwrap(), Reached::Back);
        std::fs::write(layout.at(".recovered"), "").unwrap();
        assert_eq!(Reached::of(&layout).unwrap(), Reached::Nothing, "what came back is told once more");
        std::fs::create_dir_all(layout.serve_state()).unwrap();
        assert!(Reached::of(&layout).unwrap_err().to_string().contains("quickstart --dir"));
    }

    #[test]
    fn a_store_is_copied_whole() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(from.path().join("a/b")).unwrap();
        std::fs::write(from.path().join("a/b/c"), "x").unwrap();
        copy(from.path(), &to.path().join("new")).unwrap();
        assert_eq!(std::fs::read(to.path().join("new/a/b/c")).unwrap(), b"x");
    }
}
