use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match console::command::run(console::command::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("console: {error:#}");
            ExitCode::FAILURE
        }
    }
}
