//! Faults on a running practice: damaged objects, a stopped or stuck backup, a silent store, and what must not leak.

use anyhow::{Context, Result, ensure};
use holdfast_tests::disk::SmallDisk;
use holdfast_tests::http::Visitor;
use holdfast_tests::{Practice, files, pause, program, wait_for};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// One flipped byte in an object of one store is noticed and named, and the restore succeeds from another store.
#[test]
fn a_flipped_byte_is_named_and_another_store_restores() -> Result<()> {
    let practice = Practice::start(8)?;
    let store = practice.dir.join("stores/local-folder");
    let objects = files(&store);
    ensure!(objects.len() >= 5, "{objects:?}");
    let verify = || practice.backupd_output(&["verify", "--store", "local-folder", "--read-data"]);
    ensure!(verify()?.status.success(), "an undamaged store verifies");
    let mut kinds = BTreeSet::new();
    for object in &objects {
        let name = object.strip_prefix(&store)?.to_string_lossy().into_owned();
        let kind = name.split('/').next().unwrap_or_default().to_owned();
        // Every kind of object is tried; the engine's own tests try every object.
        if !kinds.insert(kind) {
            continue;
        }
        let good = std::fs::read(object)?;
        let mut bad = good.clone();
        let at = bad.len() / 3;
        bad[at] ^= 0x40;
        std::fs::write(object, &bad)?;
        let out = verify()?;
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        std::fs::write(object, &good)?;
        let leaf = object.file_name().context("name")?.to_string_lossy().into_owned();
        ensure!(!out.status.success(), "{name} is damaged, yet verify is content: {said}");
        ensure!(said.contains(&leaf), "{name} is damaged; verify must name it: {said}");
    }
    let victim = objects.iter().find(|o| o.components().any(|c| c.as_os_str() == "packs")).unwrap_or(&objects[0]);
    let mut bad = std::fs::read(victim)?;
    bad[100] ^= 1;
    std::fs::write(victim, bad)?;
    let into = tempfile::tempdir()?;
    let target = into.path().join("restored");
    let target = target.to_str().context("path")?;
    practice.backupd(&["restore", "--store", "provider-north", "--into", target])?;
    ensure!(Path::new(target).join("records.sqlite").metadata()?.len() > 100_000);
    // What came back is the EMR's data: the real probe opens it and answers.
    let socket = into.path().join("probe.sock");
    let mut probe = Command::new(program("appliance"))
        .args(["probe", target, "--socket"])
        .arg(&socket)
        .stderr(Stdio::null())
        .spawn()?;
    let answered = wait_for("the probe's socket", 60, || socket.exists().then_some(()));
    probe.kill()?;
    probe.wait()?;
    answered
}

/// As long as a write may stall while the records are copied; nothing else of a backup may hold up a page at all.
const STALL: Duration = Duration::from_secs(1);
/// By itself a quiesce ends after this: a page that waits for a stuck backup is let go then.
const LEASE: Duration = Duration::from_secs(30);

/// The slowest of the same pages, without and with the fault.
struct Slowest {
    quiet: Duration,
    fault: Duration,
}

/// A page that waits for the backup waits whenever the fault is there, and the machine's own hiccups come and go: the fault
/// is made anew, three times at most, until the pages take what they take without it, give or take what a write may stall.
fn undelayed(what: &str, mut again: impl FnMut() -> Result<Slowest>) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let Slowest { quiet, fault } = again()?;
        ensure!(fault < LEASE / 2, "{what}: a page took {fault:?}, as if it waited for the lease to end");
        if fault <= STALL.max(quiet * 3) {
            return Ok(());
        }
        seen.push(format!("{fault:?} (without: {quiet:?})"));
    }
    anyhow::bail!("{what}: pages were held up each time: {}", seen.join(", "))
}

/// A stopped, stuck or killed backup never delays a page of the EMR.
#[test]
fn a_stuck_backup_never_delays_a_page() -> Result<()> {
    let practice = Practice::start(8)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let desk = runtime.block_on(Visitor::sign_in(&practice.ca()?, &practice.user("desk")?))?;
    let mut names = 0..;
    // Pages that read and, since every page is a write to the audit, that write; and a registration between them.
    let mut slowest = |pages: u32| -> Result<Duration> {
        let mut slowest = Duration::ZERO;
        for n in 0..pages {
            let (taken, done) = timed(|| runtime.block_on(desk.page("/patients?q=a")));
            done?;
            slowest = slowest.max(taken);
            if n % 5 == 0 {
                let unique = letters(names.next().unwrap_or(0));
                let name = format!("Slowcheck{unique}");
                let (taken, done) = timed(|| runtime.block_on(desk.register(&name, &format!("N{unique}"))));
                done?;
                slowest = slowest.max(taken);
            }
        }
        Ok(slowest)
    };
    undelayed("while a snapshot is taken", || {
        let quiet = slowest(20)?;
        let mut asked = ask_for_snapshot(&practice)?;
        let mut fault = Duration::ZERO;
        while asked.try_wait()?.is_none() {
            fault = fault.max(slowest(1)?);
        }
        Ok(Slowest { quiet, fault })
    })?;
    undelayed("with the backup stuck while it holds the lease", || {
        let quiet = slowest(20)?;
        let mut asked = ask_for_snapshot(&practice)?;
        // The copy is there from the quiesce to the end of the lease.
        let staging = practice.dir.join("appliance/staging");
        let held = wait_until_soon(|| std::fs::read_dir(&staging).is_ok_and(|mut entries| entries.next().is_some()));
        practice.signal("backupd serve", Signal::STOP)?;
        let fault = slowest(20);
        practice.signal("backupd serve", Signal::CONT)?;
        asked.wait()?;
        ensure!(held, "the backup never held the records");
        Ok(Slowest { quiet, fault: fault? })
    })?;
    practice.backupd(&["snapshot"])?;
    Ok(())
}

fn ask_for_snapshot(practice: &Practice) -> Result<Child> {
    let mut asked = Command::new(program("backupd"));
    asked.arg("snapshot").arg("--config").arg(practice.dir.join("backupd/cli.toml"));
    Ok(asked.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

/// Looks every other millisecond, for half a minute at most.
fn wait_until_soon(mut done: impl FnMut() -> bool) -> bool {
    (0..15_000).any(|_| {
        pause(Duration::from_millis(2));
        done()
    })
}

/// A disk that fills up: backups wait and say why, before the EMR has no room; not one page waits; with room again both
/// go on by themselves, and nothing is lost.
#[test]
fn a_full_disk_pauses_backups_and_delays_no_page() -> Result<()> {
    let temp = tempfile::Builder::new().prefix("hf").tempdir()?;
    let disk = SmallDisk::mount(temp.path(), "size=3300m")?;
    let practice = Practice::start_in(temp, 8)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let desk = runtime.block_on(Visitor::sign_in(&practice.ca()?, &practice.user("desk")?))?;
    let (quiet, registered) = timed(|| runtime.block_on(desk.register("Early", "Nora")));
    registered?;
    let filler = disk.fill(1_500_000_000)?;
    let refused = practice.backupd_output(&["snapshot"])?;
    let said = String::from_utf8_lossy(&refused.stdout).into_owned() + &String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("free some room"), "{said}");
    wait_for("the alert of the full disk", 60, || {
        let status = practice.backupd(&["status"]).ok()?;
        serde_json::to_string(&status).ok()?.contains("disk-almost-full").then_some(())
    })?;
    let register = |name: &str| timed(|| runtime.block_on(desk.register("Roomly", name)));
    let mut names = ["Nora", "Nell", "Nina"].into_iter();
    undelayed("beside a paused backup", || {
        let (fault, registered) = register(names.next().context("a name")?);
        registered?;
        Ok(Slowest { quiet, fault })
    })?;
    // Not one byte is left: a page may be refused, since its audit cannot be written, but it does not hang.
    disk.fill(0)?;
    undelayed("on a full disk", || {
        let taken = (0..5).map(|_| timed(|| runtime.block_on(desk.page("/patients?q=Roomly"))).0);
        Ok(Slowest { quiet, fault: taken.max().unwrap_or_default() })
    })?;
    std::fs::remove_file(filler)?;
    wait_for("the page with the patient", 60, || {
        let page = runtime.block_on(desk.page("/patients?q=Roomly")).ok()?;
        page.contains("Roomly").then_some(())
    })?;
    practice.backupd(&["snapshot"])?;
    Ok(())
}

fn letters(mut n: u32) -> String {
    let mut text = String::new();
    loop {
        text.push(char::from(b'a' + u8::try_from(n % 26).unwrap_or(0)));
        n /= 26;
        if n == 0 {
            return text;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a page takes is what is asked")]
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = std::time::Instant::now();
    let done = work();
    (start.elapsed(), done)
}

/// A store falls silent: the others go on, an alert goes out by mail, and it closes when the store is back.
#[test]
fn a_silent_store_is_mailed_and_catches_up() -> Result<()> {
    let practice = Practice::start(6)?;
    let mails = tempfile::tempdir()?;
    // The mailbox's folders are made with it, so it must not be there yet.
    let smtp = Smtp::start(&mails.path().join("box"))?;
    let _console = second_console(&practice, smtp.port)?;
    practice.signal("--listen 127.0.0.1:", Signal::STOP).context("an S3 server")?;
    let out = practice.backupd_output(&["snapshot"])?;
    let said = String::from_utf8_lossy(&out.stdout);
    // The quorum is the two providers: the snapshot is in the store that answers, and is not called durable.
    ensure!(out.status.code() == Some(1) && said.contains("\"state\":\"sealed\""), "{said}");
    ensure!(said.matches("\"durable\":true").count() == 2, "a silent store does not hold back the others: {said}");
    let text = wait_for("the mail", 120, || {
        let found = mails_in(mails.path());
        found.into_iter().find(|m| m.contains("provider-") && m.to_lowercase().contains("store"))
    })?;
    ensure!(text.contains("To:") && text.contains("Subject:"), "{text}");
    practice.signal("--listen 127.0.0.1:", Signal::CONT)?;
    practice.backupd(&["snapshot"])?;
    wait_for("the closing mail", 120, || {
        let found = mails_in(mails.path());
        found.into_iter().find(|m| m.contains("provider-") && m.to_lowercase().contains("closed"))
    })?;
    let stores = practice.backupd(&["stores"])?;
    let all = stores.iter().map(ToString::to_string).collect::<String>();
    ensure!(!all.contains("unreachable") && !all.contains("\"late\""), "every store has caught up: {all}");
    Ok(())
}

/// A second console on the same daemons, with mail to `port` and quick looks.
fn second_console(practice: &Practice, port: u16) -> Result<Ended> {
    let folder = practice.dir.join("console-mail");
    std::fs::create_dir_all(folder.join("data"))?;
    let text = std::fs::read_to_string(practice.dir.join("console/console.toml"))?;
    let listen = text.lines().find(|l| l.starts_with("listen")).context("listen")?;
    let text = text.replace(listen, "listen = \"127.0.0.1:0\"\npoll_s = 2");
    let mail = format!(
        "{text}\n[mail]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nfrom = \"holdfast@practice.example\"\n\
         to = [\"it@practice.example\"]\n"
    );
    let config = folder.join("console.toml");
    std::fs::write(&config, mail)?;
    let mut console = Command::new(program("console"));
    console.arg("--config").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Ended(console.spawn()?))
}

/// Ends its program when the test does, however it does.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mails_in(folder: &Path) -> Vec<String> {
    files(folder).iter().filter_map(|f| std::fs::read_to_string(f).ok()).collect()
}

/// A real SMTP server (aiosmtpd) that keeps every mail as a file.
struct Smtp {
    child: Child,
    port: u16,
}

impl Smtp {
    fn start(folder: &Path) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("/usr/bin/python3")
            .args(["-m", "aiosmtpd", "-n", "-l", &format!("127.0.0.1:{port}"), "-c", "aiosmtpd.handlers.Mailbox"])
            .arg(folder)
            .stderr(Stdio::null())
            .spawn()
            .context("python3 with aiosmtpd")?;
        wait_for("the SMTP server", 20, || std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop))?;
        Ok(Self { child, port })
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No name, number, address or file name of a patient is in any log, report, metric, status or store.
#[test]
fn nothing_of_a_patient_leaks() -> Result<()> {
    let practice = Practice::start(8)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let doctor = runtime.block_on(Visitor::sign_in(&practice.ca()?, &practice.user("desk")?))?;
    runtime.block_on(doctor.register("Quetzalcoatlson", "Wilhelmina"))?;
    practice.backupd(&["snapshot"])?;
    practice.backupd(&["drill", "--store", "provider-south"])?;
    let mut secrets: BTreeSet<String> = ["Quetzalcoatlson", "Wilhelmina"].map(String::from).into();
    for entry in runtime.block_on(doctor.fhir("Patient?_count=50"))?["entry"].as_array().into_iter().flatten() {
        let patient = &entry["resource"];
        for name in patient["name"].as_array().into_iter().flatten() {
            secrets.extend(name["family"].as_str().map(str::to_owned));
        }
        secrets.extend(patient["id"].as_str().map(str::to_owned));
    }
    secrets.retain(|s| s.len() >= 5);
    ensure!(secrets.len() > 8, "the practice's patients are known: {secrets:?}");
    let mut looked = 0;
    for folder in ["logs", "reports", "stores", "backupd/state", "backupd/sandbox", "console", "agent"] {
        for file in files(&practice.dir.join(folder)) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            looked += 1;
            for secret in &secrets {
                let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
                ensure!(!found, "{} holds something of a patient", file.display());
            }
        }
    }
    ensure!(looked > 20, "{looked} files");
    let health = Visitor::new(&practice.ca()?, &format!("https://localhost:{}", practice.port("agent")?))?;
    for page in ["/", "/metrics", "/health.json"] {
        let text = runtime.block_on(health.page(page))?;
        ensure!(secrets.iter().all(|s| !text.contains(s.as_str())), "{page} holds something of a patient");
    }
    Ok(())
}
