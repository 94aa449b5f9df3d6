//! The whole chain: from a folder that is not there yet to a table of proven restores.

use crate::authority;
use crate::configure;
use crate::files;
use crate::layout::{BUCKET, Layout, StoreName};
use crate::lock::Lock;
use crate::login;
use crate::practice::{Practice, Wishes};
use crate::programs::{self, Programs};
use crate::steps::Steps;
use crate::supervise::{self, Daemon, Supervisor};
use crate::table::{self, Drill, Verdict};
use crate::users::{Program, Users};
use crate::web::Browser;
use crate::{Binaries, Start, answers};
use anyhow::Context;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

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
    let programs = obtain_programs(&start.binaries, steps)?;
    let layout = Layout::new(dir)?;
    files::private_folder(layout.dir())?;
    let _lock = Lock::take(&layout.lock())?;
    supervise::require_room(layout.dir())?;
    let wishes = Wishes {
        practice_name: start.practice_name.clone(),
        time_zone: start.time_zone.clone(),
        listen: start.listen,
        names: start.names.clone(),
    };
    let practice = Practice::prepare(&layout, wishes)?;
    supervised(&layout, practice, programs, steps, async |chain| chain.work(&start).await)
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
/// `work` says whether all went well. The runtime has one thread: see [`supervise`].
pub fn supervised(
    layout: &Layout,
    practice: Practice,
    programs: Programs,
    steps: Steps,
    work: impl AsyncFnOnce(&mut Chain<'_>) -> anyhow::Result<bool>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let supervisor = Supervisor::new(programs, practice.run_dir.clone(), layout.logs());
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
        for name in &killed {
            eprintln!("  !! {name} did not end in time and was killed");
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
    hup: Signal,
}

impl Asked {
    fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("signals cannot be handled");
        Ok(Self { int: on(SignalKind::interrupt())?, term: on(SignalKind::terminate())?, hup: on(SignalKind::hangup())? })
    }

    /// The exit code: an end that was asked for is no failure.
    async fn any(&mut self) -> ExitCode {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
            _ = self.hup.recv() => {}
        }
        eprintln!();
        ExitCode::SUCCESS
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
        configure::write(self.layout, &self.practice, self.supervisor.programs())?;
        self.start_providers().await?;
        self.fill(start).await?;
        self.make_backup().await?;
        self.start_daemons().await?;
        self.enrol(&mut users).await?;
        let well = self.prove().await?;
        println!("\n{}", login::all(self.layout, &self.practice, &users)?);
        if start.once {
            return Ok(well);
        }
        println!(
            "\nIt keeps running: a backup every 5 minutes, a restore drill every 30, from one store after the other.\n\
             Ctrl-C ends every program and keeps the data; the same command continues with it."
        );
        std::future::pending().await
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
        let arguments =
            arguments!["--listen", listen, "--bucket", BUCKET, "--root", root, "--access-key-file", keys].to_vec();
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
        match &start.import {
            Some(folder) => {
                let folder = std::path::absolute(folder)?;
                let step = self.steps.begin("loading the bundles into the EMR");
                self.supervisor
                    .run("appliance-import", "appliance", arguments!["import", "--config", config, folder])
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
            remove_folder(&self.layout.store(store).join(BUCKET))?;
            files::private_folder(&self.layout.store(store).join(BUCKET))?;
        }
        remove_folder(&self.layout.store(StoreName::Local))?;
        files::private_folder(&self.layout.store(StoreName::Local))?;
        remove_folder(&self.layout.kit())?;
        let config = self.layout.at("backupd/serve.toml");
        let arguments = arguments!["init", "--config", config, "--kit", self.layout.kit()];
        self.supervisor.run("backupd-init", "backupd", arguments).await?;
        self.practice.done.backup = true;
        self.practice.save(self.layout)?;
        step.done(&format!("the recovery kit lies in {}: keep a copy elsewhere", self.layout.kit().display()));
        Ok(())
    }

    pub async fn start_daemons(&self) -> anyhow::Result<()> {
        let step = self.steps.begin("starting EMR, backup, verifier, health agent and console");
        let config = |file: &str| arguments!["--config", self.layout.at(file)].to_vec();
        let command = |name: &str, file: &str| {
            let mut all = vec![OsString::from(name)];
            all.extend(config(file));
            all
        };
        self.daemon("appliance", "appliance", command("serve", "appliance/appliance.toml")).await?;
        self.daemon("backupd-serve", "backupd", command("serve", "backupd/serve.toml")).await?;
        self.daemon("backupd-verifier", "backupd", command("verifier", "backupd/verifier.toml")).await?;
        self.daemon("agent", "agent", config("agent/agent.toml")).await?;
        self.daemon("console", "console", config("console/console.toml")).await?;
        step.done("EMR, backup, verifier, health agent and console run, each as a process of its own");
        Ok(())
    }

    /// Makes the accounts that are not there yet, by invitation.
    async fn enrol(&self, users: &mut Users) -> anyhow::Result<()> {
        if users.all.iter().all(|user| user.enrolled()) {
            return Ok(());
        }
        let step = self.steps.begin("making the users' accounts");
        let browser = Browser::new(&authority::ca_file(self.layout))?;
        for index in 0..users.all.len() {
            let user = &users.all[index];
            if user.enrolled() {
                continue;
            }
            let (log, program, file, port) = match user.program {
                Program::Emr => ("appliance-invite", "appliance", "appliance/appliance.toml", self.practice.ports.appliance),
                Program::Console => ("console-invite", "console", "console/console.toml", self.practice.ports.console),
            };
            let arguments = arguments!["user", "invite", "--config", self.layout.at(file), "--role", &user.role];
            let output = self.supervisor.run(log, program, arguments).await?;
            let token = answers::invitation(&String::from_utf8_lossy(&output)).context("the invitation has no token")?;
            let secret = browser.accept(self.practice.listen, port, &token, user).await?;
            users.all[index].totp_secret = secret;
            users.save(self.layout)?;
        }
        step.done(&format!("the users' passwords are in {} (only you can read it)", self.layout.users().display()));
        Ok(())
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
        println!("\n{}\n", table::render(&rows));
        println!("{}", answers::how_to_verify(&evidence, &rows[0].1.report_id, &self.layout.at("backupd/report.pub"))?);
        Ok(rows.iter().all(|(_, drill)| drill.verdict == Verdict::Pass))
    }

    pub async fn snapshot(&self) -> anyhow::Result<()> {
        let text = "taking a snapshot and sending it to all three stores";
        let step = self.steps.begin(text);
        let config = self.layout.at("backupd/cli.toml");
        let arguments = arguments!["snapshot", "--config", config, "--json"];
        let output = self
            .supervisor
            .run_with("backupd-snapshot", "backupd", arguments, |line| {
                if let Some((done, total)) = answers::progress(line) {
                    step.bytes(text, done, total);
                }
            })
            .await?;
        let done: answers::Snapshot = answers::find(&output, "bytes_source")?;
        anyhow::ensure!(
            done.stores.iter().all(|store| store.durable),
            "the snapshot is not in every store: {}",
            done.stores.iter().filter(|store| !store.durable).map(|store| store.store.as_str()).collect::<Vec<_>>().join(", ")
        );
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
        let output = self
            .supervisor
            .run_with("backupd-drill", "backupd", arguments, |line| {
                if let Some((done, total)) = answers::progress(line) {
                    step.bytes(&text, done, total);
                }
            })
            .await?;
        let drill: Drill = answers::find(&output, "report_id")?;
        step.done(&format!("{} restored alone: {}, report signed", store.id(), drill.verdict.word()));
        Ok(drill)
    }
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
