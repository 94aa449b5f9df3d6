#![deny(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use service::tell;
use std::process::ExitCode;

fn main() -> ExitCode {
    match console::command::run(console::command::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("console: {error:#}");
            ExitCode::FAILURE
        }
    }
}
