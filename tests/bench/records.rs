//! How fast the records answer: import of transaction bundles, then over HTTP with eight connections read by id,
//! `Observation?patient&code`, and create with a durable commit. Audit is on throughout: it cannot be turned off.
//!
//! usage: records FOLDER_OF_BUNDLES [SECONDS]

use anyhow::{Context, Result, ensure};
use appliance::access::accounts::{self, AccountError, NewAccount};
use appliance::access::{Actor, Role, sessions};
use appliance::clock::Clock;
use appliance::import::bundles::{self, FileOutcome};
use appliance::store::{DATABASE_FILE, Mode, Store, StoreError, Tx};
use appliance::web::{self, Web};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 8;
const TOKEN: &str = "token-of-the-bench";
const CSRF: &str = "csrf-of-the-bench";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().context("usage: records FOLDER_OF_BUNDLES [SECONDS]")?;
    let seconds = args.next().map_or(Ok(10), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), Clock::system(), Mode::Exclusive)?;
    let resources = load(&store, Path::new(&folder))?;
    drop(store);
    let bytes = std::fs::metadata(dir.path().join(DATABASE_FILE))?.len();
    println!("database: {:.1} MB, {:.2} KB a resource", bytes as f64 / 1e6, bytes as f64 / 1e3 / resources as f64);
    let began = now();
    let store = Store::open(dir.path(), Clock::system(), Mode::Exclusive)?;
    println!("open: {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    log_in(&store)?;
    tokio::runtime::Runtime::new()?.block_on(serve(store, Duration::from_secs(seconds)))?;
    println!("resident: {:.0} MB", resident_mb()?);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn load(store: &Store, folder: &Path) -> Result<u64> {
    let (began, mut resources) = (now(), 0);
    for file in bundles::files(folder)? {
        match bundles::load(store, &file) {
            FileOutcome::Loaded(counts) => resources += counts.values().sum::<u64>(),
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(resources > 0, "the folder holds no bundles");
    println!("import: {resources} resources, {:.0} a second", resources as f64 / began.elapsed().as_secs_f64());
    Ok(resources)
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
        sessions::open(tx.connection(), &account, TOKEN, CSRF, now)
    };
    Ok(store.write_blocking::<_, AccountError, _>(&Actor::anonymous(), job)?)
}

/// `Observation/id` addresses, and searches by patient and code, of what was loaded.
fn addresses(store: &Store) -> Result<(Vec<String>, Vec<String>)> {
    let sql = "SELECT r.id, json_extract(r.body, '$.subject.reference'), json_extract(r.body, '$.code.coding[0].code') \
               FROM resource r JOIN resource_type t ON t.id = r.type WHERE t.name = 'Observation' ORDER BY r.id LIMIT 20000";
    let rows = store.internal_blocking(|db| {
        let mut statement = db.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok::<Vec<(String, String, String)>, StoreError>(rows.collect::<Result<_, _>>()?)
    })?;
    let reads = rows.iter().map(|(id, ..)| format!("Observation/{id}")).collect();
    let searches = rows.iter().map(|(_, patient, code)| format!("Observation?patient={patient}&code={code}")).collect();
    Ok((reads, searches))
}

async fn serve(store: Store, span: Duration) -> Result<()> {
    let asked = store.clone();
    let (reads, searches) = tokio::task::spawn_blocking(move || addresses(&asked)).await??;
    ensure!(!reads.is_empty(), "the bundles hold no observations");
    let settings = web::Settings {
        practice_name: "Bench".into(),
        zone: chrono_tz::UTC,
        idle_lock_s: 40_000,
        bases: Vec::new(),
        portal: None,
        has_mail: true,
        downtime: None,
    };
    let app = web::app(&Web::new(store.clone(), settings), appliance::fhir::http::routes(&store));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base: Arc<str> = format!("http://{}/fhir/R4", listener.local_addr()?).into();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    measure("read by id", &base, span, move |at| (reads[at % reads.len()].clone(), None)).await?;
    measure("Observation?patient&code", &base, span, move |at| (searches[at % searches.len()].clone(), None)).await?;
    let body = json!({ "resourceType": "Observation", "status": "final", "valueQuantity": { "value": 71.5, "unit": "kg" },
                       "code": { "coding": [{ "system": "http://loinc.org", "code": "29463-7" }] } });
    let body: Arc<str> = body.to_string().into();
    measure("create, durable", &base, span, move |_| ("Observation".to_owned(), Some(body.to_string()))).await?;
    server.abort();
    Ok(())
}

/// Asks over and over on eight connections, and prints the rate with the median and the 99th percentile.
async fn measure(
    name: &str,
    base: &Arc<str>,
    span: Duration,
    ask: impl Fn(usize) -> (String, Option<String>) + Send + Sync + 'static,
) -> Result<()> {
    let (ask, next) = (Arc::new(ask), Arc::new(AtomicUsize::new(0)));
    let began = now();
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (ask, next, base) = (Arc::clone(&ask), Arc::clone(&next), Arc::clone(base));
            tokio::spawn(async move {
                let client = reqwest::Client::builder().build()?;
                let mut taken = Vec::new();
                while began.elapsed() < span {
                    let (path, body) = ask(next.fetch_add(7919, Ordering::Relaxed));
                    let address = format!("{base}/{path}");
                    let request = match body {
                        None => client.get(address),
                        Some(body) => client.post(address).header("content-type", "application/fhir+json").body(body),
                    };
                    let request = request.header("cookie", format!("{}={TOKEN}", sessions::COOKIE));
                    let asked = now();
                    let answer = request.header("x-csrf-token", CSRF).send().await?;
                    ensure!(answer.status().is_success(), "{}", answer.status());
                    answer.bytes().await?;
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
    let at = |part: usize| taken.get(taken.len() * part / 100).map_or(0.0, |taken| taken.as_secs_f64() * 1e3);
    let rate = taken.len() as f64 / span.as_secs_f64();
    println!("{name}: {rate:.0} a second, p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
    Ok(())
}

fn resident_mb() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1e3)
}
