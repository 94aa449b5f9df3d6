//! `backupd`: the daemons `serve`, `verifier` and `maintain`, and the command line that asks them.

#![deny(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
extern crate service;

mod cli;
mod clock;
mod disk;
mod jobs;
mod listen;
mod lock;
mod maintain;
mod names;
mod offload;
mod progress;
mod recover;
mod reload;
mod schedule;
mod secret;
mod serve;
mod settings;
mod sources;
mod stores;
mod verifier;

use backupd::{course, failure, reports};

fn main() -> std::process::ExitCode {
    cli::run()
}
