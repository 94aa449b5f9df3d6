//! `appliance import ...`

use super::bundles::{self, FileOutcome};
use super::{Dates, Encoding, Flaw, Input, Options, Report, Table, plan};
use crate::access::{Actor, Program};
use crate::export::adopt::adopt;
use crate::store::Store;
use anyhow::bail;
use chrono_tz::Tz;
use clap::Subcommand;
use service::{say, tell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Load FHIR R4 transaction bundles (*.json); each is carried out as one transaction
    Fhir {
        /// Folder of bundles
        dir: PathBuf,
    },
    /// Read what `appliance export` wrote into an empty practice, whole or not at all
    Export {
        /// Folder of the export, unpacked
        dir: PathBuf,
        /// Leave out files that were missing or damaged where the export was made
        #[arg(long)]
        without_damaged: bool,
    },
    /// Bring in patients.csv, appointments.csv and documents.csv with the files in documents/
    Csv {
        /// Folder of the tables; the README names their columns
        dir: PathBuf,
        /// Read everything, tell what is wrong and what would be done, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Your name for the system that the rows come from: a repetition with the same name adds nothing twice
        #[arg(long, default_value = "previous", value_name = "NAME")]
        source: String,
        /// How the letters of the tables are written
        #[arg(long, value_enum, default_value_t)]
        encoding: Encoding,
        /// How the days in the tables are written
        #[arg(long, value_enum, default_value_t)]
        dates: Dates,
    },
}

/// Carries out an import; `false` when something was refused.
pub fn run(store: &Store, command: ImportCommand, zone: Tz) -> anyhow::Result<bool> {
    match command {
        ImportCommand::Fhir { dir } => import_bundles(store, &dir),
        ImportCommand::Export { dir, without_damaged } => {
            let read = adopt(store, &Actor::program(Program::Import), &dir, without_damaged)?;
            say!(
                "{} resources, {} earlier versions, {} files and {} postings: all that the export holds",
                read.resources,
                read.versions,
                read.attachments,
                read.postings
            );
            Ok(true)
        }
        ImportCommand::Csv { dir, dry_run, source, encoding, dates } => {
            import_tables(store, &dir, dry_run, &Options { source, encoding, dates, zone })
        }
    }
}

fn import_tables(store: &Store, dir: &Path, dry_run: bool, options: &Options) -> anyhow::Result<bool> {
    let plan = plan(store, &Input::folder(dir)?, options)?;
    let report = if dry_run {
        plan.dry_run(store)?
    } else {
        let progress = indicatif::ProgressBar::new(plan.rows.values().sum());
        let report = plan.carry_out(store, &Actor::program(Program::Import), |done| progress.set_position(done))?;
        progress.finish_and_clear();
        report
    };
    show(&report, dry_run);
    Ok(report.is_whole())
}

fn show(report: &Report, dry_run: bool) {
    for (table, flaw) in &report.flaws {
        tell!("{}", sentence(*table, flaw));
    }
    for (table, doubt) in &report.doubts {
        tell!("look at: {}", sentence(*table, doubt));
    }
    for (table, counts) in &report.tables {
        let (rows, new, changed, same) = (counts.rows, counts.new, counts.changed, counts.same);
        let (kept, refused) = (counts.kept, counts.refused);
        say!(
            "{}: {rows} rows: {new} new, {changed} changed, {same} as before, {kept} changed here and kept, {refused} refused",
            table.file()
        );
    }
    match (report.is_whole(), dry_run) {
        (true, true) => say!("nothing was changed; without --dry-run this is what will be done"),
        (false, true) => say!("nothing was changed; correct what is named above, or import the rest without it"),
        (true, false) => say!("done"),
        (false, false) => say!("the rows named above are not in: correct them and repeat; nothing comes in twice"),
    }
}

/// What is wrong where.
pub fn sentence(table: Table, flaw: &Flaw) -> String {
    let place = match flaw.line {
        0 => table.file().to_owned(),
        line => format!("{}, line {line}", table.file()),
    };
    match flaw.column {
        "" => format!("{place}: {}", flaw.sentence),
        column => format!("{place}: {column} {}", flaw.sentence),
    }
}

fn import_bundles(store: &Store, dir: &Path) -> anyhow::Result<bool> {
    let files = bundles::files(dir)?;
    if files.is_empty() {
        bail!("the folder holds no *.json file: give the folder of the bundles");
    }
    let progress = indicatif::ProgressBar::new(files.len() as u64);
    let mut counts = BTreeMap::<String, u64>::new();
    let (mut failed, mut known) = (0, 0);
    for (number, file) in (1..).zip(&files) {
        match bundles::load(store, file) {
            FileOutcome::Loaded(loaded) => {
                loaded.into_iter().for_each(|(kind, n)| *counts.entry(kind).or_default() += n)
            }
            FileOutcome::AlreadyLoaded => known += 1,
            FileOutcome::Failed(error) => {
                failed += 1;
                progress.suspend(|| tell!("file {number} of {}: {error}", files.len()));
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    for (kind, count) in &counts {
        say!("{count:>8}  {kind}");
    }
    let (resources, loaded) = (counts.values().sum::<u64>(), files.len() - failed - known);
    say!("{resources} resources from {loaded} bundles; {known} bundles were there before; {failed} failed");
    Ok(failed == 0)
}
