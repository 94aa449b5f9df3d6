//! `appliance import fhir DIR`: FHIR R4 transaction bundles from files, each carried out as one transaction.

use crate::access::{Actor, Program};
use crate::audit::{Action, Event};
use crate::fhir::json::{self, Unread};
use crate::store::{Store, StoreError, Tx};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The largest bundle file, bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What became of one file. Files are told apart by their place in the sorted list: a name may be a patient's.
#[derive(Debug)]
pub enum FileOutcome {
    /// Resources by type.
    Loaded(BTreeMap<String, u64>),
    /// An earlier import loaded the same bytes.
    AlreadyLoaded,
    Failed(ImportError),
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the folder cannot be read ({0})")]
    Folder(std::io::ErrorKind),
    #[error("the file cannot be read ({0})")]
    Read(std::io::ErrorKind),
    #[error("it is a pipe, socket or device and no file: take it out of the folder")]
    NoFile,
    #[error("the file is larger than 256 MiB: divide it")]
    TooLarge,
    #[error("the file is not JSON (line {line})")]
    Json { line: usize },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The bundle files of a folder (`*.json`), sorted by name.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let failed = |error: std::io::Error| ImportError::Folder(error.kind());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // What is no file is a failure of its own, not passed over: a link that leads nowhere stands for records.
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Loads one file; its failure changes nothing in the store.
pub fn load(store: &Store, file: &Path) -> FileOutcome {
    match try_load(store, file) {
        Ok(Some(counts)) => FileOutcome::Loaded(counts),
        Ok(None) => FileOutcome::AlreadyLoaded,
        Err(error) => FileOutcome::Failed(error),
    }
}

fn try_load(store: &Store, file: &Path) -> Result<Option<BTreeMap<String, u64>>, ImportError> {
    let failed = |error: std::io::Error| ImportError::Read(error.kind());
    let meta = fs::metadata(file).map_err(failed)?;
    if !meta.is_file() {
        return Err(ImportError::NoFile);
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(ImportError::TooLarge);
    }
    let bytes = fs::read(file).map_err(failed)?;
    let digest = *blake3::hash(&bytes).as_bytes();
    let bundle = json::read(&bytes).map_err(|error| match error {
        Unread::Syntax { line } => ImportError::Json { line },
        Unread::Refused(error) => error.into(),
    })?;
    let counts = count(&bundle);
    let resources = counts.values().sum::<u64>();
    let actor = Actor::program(Program::Import);
    let loaded = store.write_blocking(&actor, move |tx: &mut Tx<'_>| {
        if !remember(tx, &digest, resources)? {
            return Ok::<_, StoreError>(false);
        }
        tx.transaction(bundle)?;
        tx.note(Event::new(Action::Import, "Bundle", "").matches(resources));
        Ok(true)
    })?;
    Ok(loaded.then_some(counts))
}

/// Notes that these bytes were loaded; `false` when they were before.
fn remember(tx: &Tx<'_>, digest: &[u8; 32], resources: u64) -> Result<bool, StoreError> {
    let sql = "INSERT INTO imported (digest, at_ms, resources) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    let added = tx.connection().execute(sql, (digest, tx.now_ms(), resources.cast_signed()))?;
    Ok(added == 1)
}

fn count(bundle: &Value) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for entry in bundle.get("entry").and_then(Value::as_array).into_iter().flatten() {
        if let Some(kind) = entry.pointer("/resource/resourceType").and_then(Value::as_str) {
            *counts.entry(kind.to_owned()).or_default() += 1;
        }
    }
    counts
}
