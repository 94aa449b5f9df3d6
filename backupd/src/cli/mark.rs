//! `backupd stores --mark`: a disk or share becomes a removable store.

use super::render::Usage;
use crate::settings::ServeSettings;
use crate::stores;
use anyhow::Context;
use std::path::Path;
use std::process::ExitCode;

pub fn mark(name: &str, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let serve = ServeSettings::load(config.context("--config")?)?;
    let store = serve.store(name).ok_or_else(|| Usage(format!("serve.toml has no store `{name}`")))?;
    match stores::mark(store)? {
        Some(true) => say!("What is mounted there is store {name} now; the next catch-up fills it."),
        Some(false) => say!("What is mounted there was store {name} already."),
        None => return Err(Usage(format!("store `{name}` is not removable: only such stores are marked")).into()),
    }
    Ok(ExitCode::SUCCESS)
}
