//! `backupd`: the daemons `serve` and `verifier`, and the command line that asks them.

mod cli;
mod clock;
mod disk;
mod failure;
mod jobs;
mod listen;
mod lock;
mod offload;
mod progress;
mod recover;
mod schedule;
mod secret;
mod serve;
mod settings;
mod sources;
mod stores;
mod verifier;

fn main() -> std::process::ExitCode {
    cli::run()
}
