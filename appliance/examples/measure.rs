//! Figures of the store: import speed, read and search times, size, and what a snapshot does to writers.
//!
//! `cargo run --release -p appliance --example measure -- FOLDER_OF_BUNDLES`

use anyhow::{Context, bail};
use appliance::access::{Actor, Role};
use appliance::clock::{self, Clock};
use appliance::import::bundles::{self, FileOutcome};
use appliance::ops::{Operations, wire};
use appliance::settings::Settings;
use appliance::store::{Mode, Query, Store, StoreError, Tx, View};
use appliance_api::{Client, Request, Response};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn main() -> anyhow::Result<()> {
    let bundles = PathBuf::from(std::env::args_os().nth(1).context("give the folder of the bundles")?);
    let dir = tempfile::tempdir()?;
    let settings = settings(dir.path())?;
    let store = Store::open(&settings.data_dir, Clock::system(), Mode::New)?;
    import_all(&store, &bundles)?;
    read_and_search(&store)?;
    let bytes = std::fs::metadata(settings.data_dir.join("records.sqlite"))?.len();
    println!("database            {bytes} bytes");
    tokio::runtime::Runtime::new()?.block_on(stall(&store, &settings))
}

fn settings(dir: &Path) -> anyhow::Result<Settings> {
    let file = dir.join("appliance.toml");
    std::fs::write(
        &file,
        "data_dir='data'\ntls_cert='c'\ntls_key='k'\nops_socket='ops.sock'\nstaging_dir='staging'\n",
    )?;
    for name in ["c", "k"] {
        std::fs::write(dir.join(name), name)?;
    }
    Ok(Settings::load(&file)?)
}

fn import_all(store: &Store, bundles: &Path) -> anyhow::Result<()> {
    let files = bundles::files(bundles)?;
    let started = clock::monotonic();
    let mut resources = 0;
    for file in &files {
        match bundles::load(store, file) {
            FileOutcome::Loaded(counts) => resources += counts.values().sum::<u64>(),
            FileOutcome::AlreadyLoaded => {}
            FileOutcome::Failed(error) => bail!(error),
        }
    }
    let took = started.elapsed();
    let rate = resources as f64 / took.as_secs_f64();
    println!("import              {resources} resources in {:.1} s, {rate:.0} a second", took.as_secs_f64());
    Ok(())
}

fn read_and_search(store: &Store) -> anyhow::Result<()> {
    let actor = Actor::staff("u", "u", Role::Clinician);
    let sql = "SELECT id FROM resource r WHERE type = (SELECT id FROM resource_type WHERE name = 'Patient') LIMIT 200";
    let patients: Vec<String> = store.internal_blocking(|db| {
        let mut statement = db.prepare(sql)?;
        let ids = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok::<_, StoreError>(ids)
    })?;
    let mut times = Vec::new();
    for id in &patients {
        let started = clock::monotonic();
        store.view_blocking(&actor, |view: &View<'_>| view.read("Patient", id))?;
        times.push(started.elapsed());
    }
    report("read, audited", &mut times);
    times.clear();
    for id in &patients {
        let pairs =
            [("patient", id.as_str()), ("code", "8302-2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let query = Query::parse("Observation", &pairs)?;
        let started = clock::monotonic();
        store.view_blocking(&actor, |view: &View<'_>| view.search(&query))?;
        times.push(started.elapsed());
    }
    report("search, audited", &mut times);
    Ok(())
}

async fn stall(store: &Store, settings: &Settings) -> anyhow::Result<()> {
    let operations = Arc::new(Operations::new(store.clone(), settings)?);
    let listener = wire::bind(&settings.ops_socket)?;
    let serving = tokio::spawn(operations.serve(listener));
    let mut quiet = write_for(store, Duration::from_secs(5)).await?;
    report("write, quiet", &mut quiet);
    let (stop, socket) = (Arc::new(AtomicBool::new(false)), settings.ops_socket.clone());
    let stopped = Arc::clone(&stop);
    let snapshots = tokio::spawn(async move {
        let mut took = Vec::new();
        let mut told_us = 0;
        while !stopped.load(Ordering::Relaxed) {
            let started = clock::monotonic();
            let mut client = Client::connect(&socket).await?;
            if let Response::Quiesced(quiesced) = client.ask(&Request::Quiesce { follows: None }).await? {
                told_us = told_us.max(quiesced.write_stall_us);
                took.push(started.elapsed());
                client.ask(&Request::Thaw { lease: quiesced.lease }).await?;
            }
        }
        Ok::<_, anyhow::Error>((took, told_us))
    });
    let mut busy = write_for(store, Duration::from_secs(20)).await?;
    stop.store(true, Ordering::Relaxed);
    let (mut took, told_us) = snapshots.await??;
    report("write, quiescing", &mut busy);
    report("quiesce", &mut took);
    println!("stall told          {:.1} ms at most", told_us as f64 / 1000.0);
    serving.abort();
    Ok(())
}

/// One writer, one patient after another.
async fn write_for(store: &Store, duration: Duration) -> anyhow::Result<Vec<Duration>> {
    let actor = Actor::staff("u", "u", Role::Clinician);
    let begun = clock::monotonic();
    let mut times = Vec::new();
    while begun.elapsed() < duration {
        let started = clock::monotonic();
        let body = json!({ "resourceType": "Patient", "name": [{ "family": "Writer", "given": ["Ada"] }] });
        store.write(&actor, move |tx: &mut Tx<'_>| tx.create("Patient", body)).await?;
        times.push(started.elapsed());
    }
    Ok(times)
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| {
        let index = (times.len() * share / 1000).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    println!("{what:<20}p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms, n {}", at(500), at(990), at(1000), times.len());
}
