//! The whole chain: from a folder that is not there yet to a table of proven restores.

use crate::bundles;
use crate::configure;
use crate::files;
use crate::layout::{Layout, StoreName};
use crate::lock::Lock;
use crate::login;
use crate::output;
use crate::place;
use crate::practice::{Practice, Wishes};
use crate::programs::{self, Programs};
use crate::steps::{Step, Steps};
use crate::supervise::{self, Daemon, Supervisor};
use crate::table::{self, Drill, Verdict};
use crate::users::{Program, User, Users};
use crate::{Binaries, Start, answers, running};
use anyhow::Context;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often and how far apart a busy daemon is asked.
const ASK_TIMES: u64 = 60;
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How often the room on the disk is looked at.
const LOOK_AT_ROOM: Duration = Duration::from_secs(30);

/// Everything that a step needs.
pub struct Chain<'a> {
    pub layout: &'a Layout,
    pub practice: Practice,
    pub supervisor: &'a Supervisor,
    pub steps: Steps,
}

/// Starts everything; returns when all programs have ended.
pub fn run(dir: &Path, start: Start) -> anyhow::Result<ExitCode> {
    let steps = Steps::new();
    if let Some(folder) = &start.import {
        bundles::require(folder)?;
    }
    let layout = Layout::new(dir)?;
    place::require(&layout)?;
    let programs = obtain_programs(&start.binaries, steps)?;
    files::private_folder(layout.dir())?;
    let _lock = Lock::take(&layout.lock())?;
    supervise::require_room(layout.dir())?;
    runtime()?.block_on(running::wait_for_earlier(&layout.running(), layout.dir()))?;
    let wishes = Wishes {
        practice_name: start.practice_name.clone(),
        time_zone: start.time_zone.clone(),
        listen: start.listen,
        names: start.names.clone(),
    };
    let practice = Practice::prepare(&layout, wishes)?;
    supervised(&layout, practice, programs, steps, async |chain| chain.work(&start).await)
}

/// One thread: see [`supervise`].
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime cannot start")
}

/// Builds the programs unless told not to, and finds them.
pub fn obtain_programs(binaries: &Binaries, steps: Steps) -> anyhow::Result<Programs> {
    if !binaries.no_build
        && binaries.bin_dir.is_none()
        && let Some(tree) = programs::source_tree()
    {
        let step = steps.begin("building the programs (some minutes the first time)");
        programs::build(&tree, step.bar())?;
        step.done("the programs are built");
    }
    Programs::find(binaries.bin_dir.as_deref())
}

/// Runs `work` until it ends, a program ends by itself, or somebody asks for the end; then ends every program.
///
/// `work` says whether all went well.
pub fn supervised(
    layout: &Layout,
    practice: Practice,
    programs: Programs,
    steps: Steps,
    work: impl AsyncFnOnce(&mut Chain<'_>) -> anyhow::Result<bool>,
) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let run_dir = practice.run_dir.clone();
        let supervisor = Supervisor::new(programs, run_dir.clone(), layout);
        let mut asked = Asked::listen()?;
        let mut chain = Chain { layout, practice, supervisor: &supervisor, steps };
        let end = tokio::select! {
            well = work(&mut chain) => well.map(|well| if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            ended = supervisor.first_end() => Err(anyhow::anyhow!(supervisor.explain(&ended))),
            code = asked.any() => Ok(code),
        };
        let step = steps.begin("ending the programs");
        let killed = supervisor.stop_all().await;
        step.done("every program has ended; the data is kept");
        // The next start makes it again. Where it does not go, nothing depends on it.
        let _ = supervise::clear_sockets(&run_dir).and_then(|()| Ok(std::fs::remove_dir(&run_dir)?));
        for name in &killed {
            output::note(&format!("  !! {name} did not end in time and was killed"));
        }
        if !killed.is_empty() && end.is_ok() {
            return Ok(ExitCode::FAILURE);
        }
        end
    })
}

/// The signals that ask for the end.
struct Asked {
    int: Signal,
    term: Signal,
    /// `None` when whoever started this wants it to outlive the terminal (nohup).
    hup: Option<Signal>,
}

impl Asked {
    fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("signals cannot be handled");
        Ok(Self {
            int: on(SignalKind::interrupt())?,
            term: on(SignalKind::terminate())?,
            hup: if ignores_hangup() { None } else { Some(on(SignalKind::hangup())?) },
        })
    }

    /// The exit code: an end that was asked for is no failure.
    async fn any(&mut self) -> ExitCode {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
            _ = hangup(self.hup.as_mut()) => {}
        }
        output::note("");
        ExitCode::SUCCESS
    }
}

/// Whether hangups were ignored when this program was started: a handler would undo that.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let hangup = 1 << (SignalKind::hangup().as_raw_value() - 1);
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & hangup != 0)
}

/// Resolves at a hangup; never when hangups are ignored.
async fn hangup(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Arguments of a command, from strings and paths.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { &[$(std::ffi::OsString::from($argument)),*] };
}
pub(crate) use arguments;

impl Chain<'_> {
    async fn work(&mut self, start: &Start) -> anyhow::Result<bool> {
        let mut users = Users::prepare(self.layout)?;
        if !self.layout.console_database().exists() && users.forget_console(self.layout)? {
            output::note(
                "  !! the console's data is gone: its accounts are made anew with new second factors; see them with \
                 `quickstart login NAME`",
            );
        }
        configure::write(self.layout, &self.practice, self.supervisor.programs())?;
        self.start_providers().await?;
        self.fill(start).await?;
        self.make_backup().await?;
        self.start_daemons(&mut users).await?;
        let well = self.prove().await?;
        output::say(&format!("\n{}", login::all(self.layout, &self.practice, &users)?))?;
        if start.once {
            return Ok(well);
        }
        output::say(
            "\nholdfast is running\n\
             It keeps going: a backup every 5 minutes, a restore drill every 30, from one store after the other.\n\
             Ctrl-C ends every program and keeps the data; the same command continues with it.",
        )?;
        self.watch_room().await
    }

    /// Says in this terminal when backups pause for want of room, and when they go on. Never ends.
    async fn watch_room(&self) -> ! {
        let mut short = false;
        loop {
            tokio::time::sleep(LOOK_AT_ROOM).await;
            let Ok(free) = supervise::free_bytes(self.layout.dir()) else { continue };
            let now = free < supervise::RESERVE_BYTES;
            let (mb, dir) = (free / 1_000_000, self.layout.dir().display());
            match (short, now) {
                (false, true) => output::note(&format!(
                    "  !! only {mb} MB are free at {dir}: backups pause until 2 GB are free again"
                )),
                (true, false) => output::note(&format!("{mb} MB are free at {dir}: backups go on")),
                _ => {}
            }
            short = now;
        }
    }

    /// Everything that a practice with records and keys needs to run.
    pub async fn start_programs(&mut self, users: &mut Users) -> anyhow::Result<()> {
        configure::write(self.layout, &self.practice, self.supervisor.programs())?;
        self.start_providers().await?;
        self.start_daemons(users).await
    }

    /// Two servers that stand for two off-site providers.
    pub async fn start_providers(&self) -> anyhow::Result<()> {
        let step = self.steps.begin("starting two S3 servers that stand for two off-site providers");
        for store in StoreName::PROVIDERS {
            let root = self.layout.store(store);
            self.start_provider(store, &root, &self.layout.store_keys(store)).await?;
        }
        step.done("two S3 servers stand for two off-site providers; the third store is a folder");
        Ok(())
    }

    pub async fn start_provider(&self, store: StoreName, root: &Path, keys: &Path) -> anyhow::Result<()> {
        let endpoint = configure::endpoint(&self.practice, store).context("a folder has no server")?;
        let listen = endpoint.trim_start_matches("http://");
        let arguments = arguments![
            "--listen",
            listen,
            "--bucket",
            &self.practice.bucket,
            "--root",
            root,
            "--access-key-file",
            keys
        ]
        .to_vec();
        self.daemon(store.id(), "s3-server", arguments).await
    }

    async fn daemon(&self, name: &'static str, program: &str, arguments: Vec<OsString>) -> anyhow::Result<()> {
        self.supervisor.start(Daemon { name, program: self.supervisor.programs().path(program), arguments }).await
    }

    /// The first records: made up, or loaded from bundles. An attempt that was interrupted is begun anew.
    async fn fill(&mut self, start: &Start) -> anyhow::Result<()> {
        if self.practice.done.records {
            return Ok(());
        }
        remove_folder(&self.layout.at("appliance/data"))?;
        let config = self.layout.at("appliance/appliance.toml");
        self.supervisor.run("appliance-init", "appliance", arguments!["init", "--config", &config]).await?;
        match &start.import {
            Some(folder) => {
                let folder = std::path::absolute(folder)?;
                let step = self.steps.begin("loading the bundles into the EMR");
                self.supervisor
                    .run("appliance-import", "appliance", arguments!["import", "fhir", "--config", config, folder])
                    .await?;
                step.done("the EMR holds the records of the bundles");
            }
            None => {
                let step = self.steps.begin("filling the EMR with a made-up practice");
                let (patients, seed) = (start.patients.to_string(), start.seed.to_string());
                let arguments = arguments!["seed", "--config", config, "--patients", patients, "--seed", seed];
                self.supervisor.run("appliance-seed", "appliance", arguments).await?;
                step.done(&format!("the EMR holds a made-up practice with {} patients", start.patients));
            }
        }
        self.practice.done.records = true;
        self.practice.save(self.layout)
    }

    /// Keys, stores and recovery kit. An attempt that was interrupted is begun anew: nothing was backed up with it.
    async fn make_backup(&mut self) -> anyhow::Result<()> {
        if self.practice.done.backup {
            return Ok(());
        }
        let step = self.steps.begin("making the backup's keys, the stores and the recovery kit");
        for store in StoreName::PROVIDERS {
            remove_folder(&self.layout.store(store).join(&self.practice.bucket))?;
            files::private_folder(&self.layout.store(store).join(&self.practice.bucket))?;
        }
        remove_folder(&self.layout.store(StoreName::Local))?;
        files::private_folder(&self.layout.store(StoreName::Local))?;
        remove_folder(&self.layout.kit())?;
        for key in ["writer.cred", "open.key", "report.key", "report.pub"] {
            std::fs::remove_file(self.layout.at("backupd").join(key)).ok();
        }
        let config = self.layout.at("backupd/serve.toml");
        let arguments = arguments!["init", "--config", config, "--kit", self.layout.kit()];
        self.supervisor.run("backupd-init", "backupd", arguments).await?;
        self.practice.done.backup = true;
        self.practice.save(self.layout)?;
        step.done(&format!("the recovery kit lies in {}: keep a copy elsewhere", self.layout.kit().display()));
        Ok(())
    }

    async fn start_daemons(&self, users: &mut Users) -> anyhow::Result<()> {
        let step = self.steps.begin("starting EMR, backup, verifier, maintenance, health agent and console");
        let config = |file: &str| arguments!["--config", self.layout.at(file)].to_vec();
        let command = |name: &str, file: &str| {
            let mut all = vec![OsString::from(name)];
            all.extend(config(file));
            all
        };
        self.daemon("appliance", "appliance", command("serve", "appliance/appliance.toml")).await?;
        self.daemon("backupd-serve", "backupd", command("serve", "backupd/serve.toml")).await?;
        self.daemon("backupd-verifier", "backupd", command("verifier", "backupd/verifier.toml")).await?;
        self.daemon("backupd-maintain", "backupd", command("maintain", "backupd/maintain.toml")).await?;
        self.daemon("agent", "agent", config("agent/agent.toml")).await?;
        self.daemon("console", "console", config("console/console.toml")).await?;
        step.done("EMR, backup, verifier, maintenance, health agent and console run, each as a process of its own");
        self.enrol(users).await
    }

    /// Makes the accounts that are not there yet. Passwords and second factors travel in files, never on a command line.
    async fn enrol(&self, users: &mut Users) -> anyhow::Result<()> {
        if users.all.iter().all(User::enrolled) {
            return Ok(());
        }
        let step = self.steps.begin("making the users' accounts");
        for index in 0..users.all.len() {
            if !users.all[index].enrolled() {
                users.all[index].totp_secret = self.create_account(&users.all[index]).await?;
                users.save(self.layout)?;
                std::fs::remove_file(self.layout.second_factor(&users.all[index].name)).ok();
            }
        }
        step.done(&format!("the users' passwords are in {} (only you can read it)", self.layout.users().display()));
        Ok(())
    }

    /// The new account's second factor, base32.
    async fn create_account(&self, user: &User) -> anyhow::Result<String> {
        let (log, program, config) = match user.program {
            Program::Emr | Program::Portal => {
                ("appliance-user", "appliance", self.layout.at("appliance/appliance.toml"))
            }
            Program::Console => ("console-user", "console", self.layout.at("console/console.toml")),
        };
        let password = self.practice.run_dir.join("password");
        // It lies beside users.toml until its secret is in there, so that a kill between the two loses no account.
        let totp = self.layout.second_factor(&user.name);
        if let Some(secret) = second_factor(&totp) {
            return Ok(secret);
        }
        std::fs::remove_file(&totp).ok();
        files::write_private(&password, user.password.as_bytes())?;
        let mut arguments = match user.program {
            // Of the first patient.
            Program::Portal => arguments!["portal", "create", "--config", config, "--mail", &user.name].to_vec(),
            Program::Emr | Program::Console => {
                arguments!["user", "create", "--config", config, "--name", &user.name, "--role", &user.role].to_vec()
            }
        };
        arguments.extend(arguments!["--password-file", &password, "--totp-out", &totp].to_vec());
        if user.program == Program::Emr {
            arguments.extend(arguments!["--display", &user.display].to_vec());
        }
        let made = self.supervisor.run(log, program, &arguments).await;
        std::fs::remove_file(&password).ok();
        made?;
        second_factor(&totp).context("the account was made without a second factor")
    }

    /// A snapshot, then a drill from each store alone; whether every verdict is pass.
    pub async fn prove(&self) -> anyhow::Result<bool> {
        self.snapshot().await?;
        let mut rows = Vec::new();
        for store in StoreName::ALL {
            let drill = self.drill(store).await?;
            rows.push((files::bytes_below(&self.layout.store(store)), drill));
        }
        let evidence = self.layout.at("reports");
        for (_, drill) in &rows {
            let config = self.layout.at("backupd/cli.toml");
            let into = evidence.join(&drill.report_id);
            files::private_folder(&evidence)?;
            let arguments = arguments!["report", "--config", config, &drill.report_id, "--out", into];
            self.supervisor.run("backupd-report", "backupd", arguments).await?;
        }
        let key = self.layout.at("backupd/report.pub");
        let verify = answers::how_to_verify(&evidence, &rows[0].1.report_id, &key)?;
        output::say(&format!("\n{}\n\n{verify}", table::render(&rows)))?;
        Ok(rows.iter().all(|(_, drill)| drill.verdict == Verdict::Pass))
    }

    pub async fn snapshot(&self) -> anyhow::Result<()> {
        let text = "taking a snapshot and sending it to all three stores";
        let step = self.steps.begin(text);
        let arguments = arguments!["snapshot", "--config", self.layout.at("backupd/cli.toml"), "--json"];
        let done: answers::Snapshot = self.ask("backupd-snapshot", arguments, "bytes_source", &step, text).await?;
        let missing: Vec<&str> =
            done.stores.iter().filter(|store| !store.durable).map(|store| store.store.as_str()).collect();
        anyhow::ensure!(missing.is_empty(), "the snapshot is not in every store: {} lacks it", missing.join(", "));
        step.done(&format!(
            "a snapshot of {} is in all three stores ({} sent to each, writers waited {} ms)",
            table::size(done.bytes_source),
            table::size(done.bytes_added),
            done.write_stall_us / 1000
        ));
        Ok(())
    }

    pub async fn drill(&self, store: StoreName) -> anyhow::Result<Drill> {
        let text = format!("restoring from {} alone and starting the EMR on what came back", store.id());
        let step = self.steps.begin(&text);
        let config = self.layout.at("backupd/cli.toml");
        let arguments = arguments!["drill", "--config", config, "--store", store.id(), "--json"];
        let drill: Drill = self.ask("backupd-drill", arguments, "report_id", &step, &text).await?;
        step.done(&format!("{} restored alone: {}, report signed", store.id(), drill.verdict.word()));
        Ok(drill)
    }

    /// Asks a daemon through `backupd ... --json` for an answer with the field `key`. One that is busy with its own
    /// schedule is asked again.
    async fn ask<T: DeserializeOwned>(
        &self,
        log: &'static str,
        arguments: &[OsString],
        key: &str,
        step: &Step,
        text: &str,
    ) -> anyhow::Result<T> {
        for _ in 0..ASK_TIMES {
            let show = |line: &str| {
                if let Some((done, total)) = answers::progress(line) {
                    step.bytes(text, done, total);
                }
            };
            let finished = self.supervisor.run_with(log, "backupd", arguments, show).await?;
            if let Ok(answer) = answers::find(&finished.output, key) {
                return Ok(answer);
            }
            anyhow::ensure!(answers::is_busy(&finished.output), "{}", finished.problem);
            tokio::time::sleep(ASK_AGAIN).await;
        }
        anyhow::bail!("the backup was busy for {} s: look at the log of {log}", ASK_TIMES * ASK_AGAIN.as_secs())
    }
}

/// What `user create` wrote for a new account; `None` when there is no such file or it is not complete.
fn second_factor(file: &Path) -> Option<String> {
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    told.get("totp_secret")?.as_str().map(str::to_owned)
}

/// Removes a folder of the practice with all that is in it; not being there is fine.
fn remove_folder(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}
