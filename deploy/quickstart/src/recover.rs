//! `quickstart recover`: the practice is gone; its recovery kit and one store are left.

use crate::Start;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct Recover {
    /// The recovery kit.
    #[arg(long, value_name = "FILE")]
    kit: PathBuf,
    /// The store that is left: provider-north, provider-south or local-folder.
    #[arg(long, value_name = "NAME")]
    store: String,
}

pub fn run(_dir: &Path, _recover: Recover, _start: Start) -> anyhow::Result<ExitCode> {
    anyhow::bail!("recover")
}
