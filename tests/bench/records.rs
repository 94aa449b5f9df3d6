//! How fast a FHIR server answers, ours and another beside it, by the same driver over plain HTTP: with eight connections
//! read by id, `Observation?patient&code`, and create. Before it transaction bundles are imported one by one: into ours by
//! what `appliance import` does, into another over one connection. Our audit is on throughout (it cannot be turned off)
//! and a create is on the disk before it is answered.
//!
//! usage: records FOLDER_OF_BUNDLES [SECONDS]                        ours, in a process of its own
//!        records FOLDER_OF_BUNDLES SECONDS BASE PID DATABASE        another server that listens at BASE, e.g. http://127.0.0.1:8080
//!        records --cold FOLDER_OF_BUNDLES RESOURCES                 how long ours takes from its start to its first answer with so
//!                                                                   many; as root also with nothing of it in the page cache

use anyhow::{Context, Result, bail, ensure};
use appliance::access::accounts::{self, AccountError, NewAccount};
use appliance::access::{Actor, Role, sessions};
use appliance::clock::Clock;
use appliance::import::bundles::{self, FileOutcome};
use appliance::store::{DATABASE_FILE, Mode, Store, StoreError, Tx};
use appliance::web::{self, Web};
use client::{Client, Question};
use holdfast_tests::cpu_s;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

mod client;

const CONNECTIONS: usize = 8;
/// Starts that are measured.
const STARTS: usize = 5;
const TOKEN: &str = "token-of-the-bench";
const CSRF: &str = "csrf-of-the-bench";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--serve", dir] => tokio::runtime::Runtime::new()?.block_on(serve(Path::new(dir))),
        ["--cold", folder, resources] => cold(Path::new(folder), resources.parse()?),
        [folder] => ours(Path::new(folder), 10),
        [folder, seconds] => ours(Path::new(folder), seconds.parse()?),
        [folder, seconds, base, pid, database] => {
            let server =
                Server { base: (*base).to_owned(), pid: pid.parse()?, database: database.into(), cookie: false };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let seen = tokio::task::LocalSet::new().block_on(&runtime, import(&server, Path::new(folder)))?;
            drive(server, seen, seconds.parse()?)
        }
        _ => {
            bail!("usage: records FOLDER_OF_BUNDLES [SECONDS [BASE PID DATABASE]] | --cold FOLDER_OF_BUNDLES RESOURCES")
        }
    }
}

/// Who is asked.
#[derive(Clone)]
struct Server {
    base: String,
    pid: u32,
    database: PathBuf,
    cookie: bool,
}

impl Server {
    fn authority(&self) -> &str {
        self.base.trim_start_matches("http://").split('/').next().unwrap_or_default()
    }

    /// Asks for what is below the base; with a body it is stored there.
    fn question(&self, path: &str, body: Option<&[u8]>, holds: &str) -> Question {
        let below = self.base.trim_start_matches("http://").split_once('/').map_or("", |(_, below)| below);
        let slashes = if below.is_empty() || path.is_empty() { "" } else { "/" };
        let (authority, method) = (self.authority(), if body.is_some() { "POST" } else { "GET" });
        let mut head = format!("{method} /{below}{slashes}{path} HTTP/1.1\r\nhost: {authority}\r\n");
        if self.cookie {
            head += &format!("cookie: {}={TOKEN}\r\nx-csrf-token: {CSRF}\r\n", sessions::COOKIE);
        }
        if let Some(body) = body {
            head += &format!("content-type: application/fhir+json\r\ncontent-length: {}\r\n", body.len());
        }
        let request = [head.as_bytes(), b"\r\n", body.unwrap_or_default()].concat();
        Question { request, holds: holds.to_owned() }
    }

    /// `Type/id`; the answer holds the id.
    fn read(&self, address: &str) -> Question {
        self.question(address, None, address.rsplit('/').next().unwrap_or_default())
    }
}

fn ours(folder: &Path, seconds: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), Clock::system(), Mode::New)?;
    log_in(&store)?;
    let seen = load(&store, folder)?;
    drop(store);
    let (mut child, server) = start(&std::env::current_exe()?, dir.path())?;
    let driven = drive(server, seen, seconds);
    child.kill()?;
    child.wait()?;
    driven
}

/// Loads copies of the bundles until there are so many resources, and starts the server on them.
fn cold(folder: &Path, resources: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), Clock::system(), Mode::New)?;
    log_in(&store)?;
    let mut seen = load(&store, folder)?;
    for number in 1.. {
        if seen.resources as u64 >= resources {
            break;
        }
        let copies = tempfile::tempdir()?;
        for file in bundles::files(folder)? {
            // The same bundle again is known by its bytes; a copy becomes resources of its own.
            let copy = [std::fs::read(&file)?, vec![b'\n'; number]].concat();
            std::fs::write(copies.path().join(file.file_name().context("a file")?), copy)?;
        }
        seen.resources += load(&store, copies.path())?.resources;
    }
    drop(store);
    let copies = tempfile::tempdir()?;
    let address = seen.reads.first().context("the bundles hold no observations")?.clone();
    println!("{} resources", seen.resources);
    // The pages of a program that runs stay in the cache.
    let program = copies.path().join("server");
    std::fs::copy(std::env::current_exe()?, &program)?;
    let warm = (0..STARTS).map(|_| first_answer(&program, dir.path(), &address)).collect::<Result<Vec<_>>>()?;
    println!("to the first answer: {warm:.0?} ms");
    let forget = || {
        rustix::fs::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "3")
    };
    if let Err(error) = forget() {
        println!("nothing in the page cache: not measured, {error}");
        return Ok(());
    }
    let cold = (0..STARTS).map(|_| {
        forget()?;
        first_answer(&program, dir.path(), &address)
    });
    println!("to the first answer, nothing in the page cache: {:.0?} ms", cold.collect::<Result<Vec<_>>>()?);
    Ok(())
}

/// Milliseconds from the start of the process until it has answered one read.
fn first_answer(program: &Path, dir: &Path, address: &str) -> Result<f64> {
    let began = now();
    let (mut child, server) = start(program, dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async {
        let mut client = Client::connect(server.authority()).await?;
        client.ask(&server.read(address)).await.map(drop)
    });
    let taken = began.elapsed();
    child.kill()?;
    child.wait()?;
    asked.map(|()| taken.as_secs_f64() * 1e3)
}

/// Our server as a child process; it says where it listens.
fn start(program: &Path, dir: &Path) -> Result<(Child, Server)> {
    let mut child = Command::new(program).arg("--serve").arg(dir).stdout(Stdio::piped()).spawn()?;
    let mut base = String::new();
    BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut base)?;
    ensure!(!base.is_empty(), "the server did not start");
    let (base, pid) = (base.trim().to_owned(), child.id());
    Ok((child, Server { base, pid, database: dir.join(DATABASE_FILE), cookie: true }))
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

async fn serve(dir: &Path) -> Result<()> {
    let store = Store::open(dir, Clock::system(), Mode::Exclusive)?;
    let settings = web::Settings {
        practice_name: "Bench".into(),
        practice_address: String::new(),
        practice_phone: String::new(),
        zone: chrono_tz::UTC,
        idle_lock_s: 40_000,
        bases: Vec::new(),
        portal: None,
        has_mail: true,
        downtime: None,
        look_back: None,
    };
    let app = web::app(&Web::new(store.clone(), settings), appliance::fhir::http::routes(&store));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/fhir/R4", listener.local_addr()?);
    std::io::stdout().flush()?;
    service::http::serve(listener, None, app, service::http::Limits::default(), std::future::pending()).await;
    Ok(())
}

fn log_in(store: &Store) -> Result<()> {
    let now = store.clock().unix_ms() / 1000;
    let job = move |tx: &mut Tx<'_>| {
        let new = NewAccount {
            id: "bench",
            name: "bench",
            display: "Bench",
            role: Role::Clinician,
            practitioner: None,
            password_hash: "!",
            totp_secret: "x",
            totp_step: None,
        };
        accounts::insert(tx.connection(), &new, now)?;
        let account = accounts::credentials(tx.connection(), "bench")?.ok_or(AccountError::UnknownUser)?.account;
        sessions::open(tx.connection(), &account, (TOKEN, CSRF), "", now)
    };
    Ok(store.write_blocking::<_, AccountError, _>(&Actor::anonymous(), job)?)
}

fn load(store: &Store, folder: &Path) -> Result<Seen> {
    let (began, mut resources) = (now(), 0);
    for file in bundles::files(folder)? {
        match bundles::load(store, &file) {
            FileOutcome::Loaded(counts) => resources += counts.values().sum::<u64>(),
            other => bail!("{other:?}"),
        }
    }
    println!("import: {resources} resources, {:.0} a second", resources as f64 / began.elapsed().as_secs_f64());
    let sql = "SELECT r.id, json_extract(r.body, '$.subject.reference'), json_extract(r.body, '$.code.coding[0].code') \
               FROM resource r JOIN resource_type t ON t.id = r.type WHERE t.name = 'Observation' ORDER BY r.id LIMIT 20000";
    let rows = store.internal_blocking(|db| {
        let mut statement = db.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok::<Vec<(String, String, String)>, StoreError>(rows.collect::<Result<_, _>>()?)
    })?;
    let reads = rows.iter().map(|(id, ..)| format!("Observation/{id}")).collect();
    let searches = rows.iter().map(|(_, patient, code)| format!("Observation?patient={patient}&code={code}")).collect();
    Ok(Seen { resources: resources as usize, reads, searches })
}

/// One thread drives, as `wrk -t1` does: the server has the other core.
fn drive(server: Server, seen: Seen, seconds: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let span = Duration::from_secs(seconds);
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let bytes: u64 = [&server.database, &server.database.with_extension("sqlite-wal")]
            .iter()
            .filter_map(|file| std::fs::metadata(file).ok())
            .map(|found| found.len())
            .sum();
        println!(
            "database: {:.1} MB, {:.2} KB a resource",
            bytes as f64 / 1e6,
            bytes as f64 / 1e3 / seen.resources as f64
        );
        println!("resident before: {:.0} MB", resident_mb(server.pid)?);
        ensure!(!seen.reads.is_empty(), "the bundles hold no observations");
        let Seen { reads, searches, .. } = seen;
        let asked = server.clone();
        measure("read by id", &server, span, Rc::new(move |at| asked.read(at_of(&reads, at)))).await?;
        let asked = server.clone();
        let search = move |at| asked.question(at_of(&searches, at), None, "\"searchset\"");
        measure("Observation?patient&code", &server, span, Rc::new(search)).await?;
        let body = json!({ "resourceType": "Observation", "status": "final",
                           "valueQuantity": { "value": 71.5, "unit": "kg" },
                           "code": { "coding": [{ "system": "http://loinc.org", "code": "29463-7" }] } });
        let (body, asked) = (body.to_string(), server.clone());
        let create = move |_| asked.question("Observation", Some(body.as_bytes()), "29463-7");
        measure("create", &server, span, Rc::new(create)).await?;
        println!("resident: {:.0} MB", resident_mb(server.pid)?);
        Ok(())
    })
}

fn at_of(addresses: &[String], at: usize) -> &str {
    addresses.get(at % addresses.len()).map_or("", String::as_str)
}

/// What was imported: how much, and addresses to ask for.
#[derive(Default)]
struct Seen {
    resources: usize,
    reads: Vec<String>,
    searches: Vec<String>,
}

async fn import(server: &Server, folder: &Path) -> Result<Seen> {
    let files = bundles::files(folder)?;
    let mut client = Client::connect(server.authority()).await?;
    let (mut seen, mut spent) = (Seen::default(), Duration::ZERO);
    for file in files {
        let bytes = std::fs::read(&file)?;
        let question = server.question("", Some(&bytes), "\"transaction-response\"");
        let began = now();
        let answer = client.ask(&question).await?;
        spent += began.elapsed();
        note(&mut seen, &serde_json::from_slice(&bytes)?, &serde_json::from_slice(answer)?)?;
    }
    println!("import: {} resources, {:.0} a second", seen.resources, seen.resources as f64 / spent.as_secs_f64());
    Ok(seen)
}

/// Takes the addresses of the observations from a bundle and the server's answer to it.
fn note(seen: &mut Seen, bundle: &Value, answer: &Value) -> Result<()> {
    let entries = |bundle: &Value| bundle["entry"].as_array().cloned().unwrap_or_default();
    let (asked, told) = (entries(bundle), entries(answer));
    ensure!(asked.len() == told.len(), "an answer with {} entries for {}", told.len(), asked.len());
    let mut places = HashMap::new();
    for (asked, told) in asked.iter().zip(&told) {
        let status = told["response"]["status"].as_str().unwrap_or_default();
        ensure!(status.starts_with('2'), "an entry was answered with {status}");
        let place = told["response"]["location"].as_str().unwrap_or_default();
        let place: Vec<&str> = place.split("/_history").next().unwrap_or_default().rsplit('/').take(2).collect();
        if let [id, kind] = place.as_slice() {
            places.insert(asked["fullUrl"].as_str().unwrap_or_default().to_owned(), format!("{kind}/{id}"));
        }
    }
    for resource in asked.iter().map(|entry| (&entry["fullUrl"], &entry["resource"])) {
        let (Some(url), "Observation") = (resource.0.as_str(), resource.1["resourceType"].as_str().unwrap_or_default())
        else {
            continue;
        };
        let patient = resource.1["subject"]["reference"].as_str().and_then(|reference| places.get(reference));
        let code = resource.1["code"]["coding"][0]["code"].as_str();
        if let (Some(place), Some(patient), Some(code)) = (places.get(url), patient, code) {
            seen.reads.push(place.clone());
            seen.searches.push(format!("Observation?patient={patient}&code={code}"));
        }
    }
    seen.resources += asked.len();
    Ok(())
}

/// Asks over and over on eight connections, and prints the rate with the median, the 99th percentile, and what it cost.
async fn measure(name: &str, server: &Server, span: Duration, question: Rc<dyn Fn(usize) -> Question>) -> Result<()> {
    let next = Rc::new(std::cell::Cell::new(0_usize));
    let (began, cpu) = (now(), cpu_s(server.pid.cast_signed())?);
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (question, next, server) = (Rc::clone(&question), Rc::clone(&next), server.clone());
            tokio::task::spawn_local(async move {
                let mut client = Client::connect(server.authority()).await?;
                let mut taken = Vec::new();
                while began.elapsed() < span {
                    let at = next.get();
                    next.set(at.wrapping_add(7919));
                    let question = question(at);
                    let asked = now();
                    client.ask(&question).await?;
                    taken.push(asked.elapsed());
                }
                Ok::<_, anyhow::Error>(taken)
            })
        })
        .collect();
    let mut taken = Vec::new();
    for worker in workers {
        taken.extend(worker.await??);
    }
    taken.sort();
    let rate = taken.len() as f64 / began.elapsed().as_secs_f64();
    let cost_us = (cpu_s(server.pid.cast_signed())? - cpu) * 1e6 / taken.len() as f64;
    let at = |part: usize| taken.get(taken.len() * part / 100).map_or(0.0, |taken| taken.as_secs_f64() * 1e3);
    println!("{name}: {rate:.0} a second, p50 {:.2} ms, p99 {:.2} ms, {cost_us:.0} us of CPU each", at(50), at(99));
    Ok(())
}

fn resident_mb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1e3)
}
