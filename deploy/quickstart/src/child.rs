//! `quickstart run-child --parent PID -- PROGRAM ARGUMENTS`: becomes PROGRAM, with the kernel's promise that it is asked
//! to end when the quickstart ends, however that ends (kill -9 too).
//!
//! The promise (`PR_SET_PDEATHSIG`) is made by the child about itself, which needs no unsafe code between fork and exec,
//! and it survives exec. A parent that died before it was made is noticed by comparing the parent's process id.

use anyhow::Context;
use rustix::fs::Mode;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Returns only when PROGRAM cannot be started.
pub fn run(parent: u32, command: &[OsString]) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("the kernel refuses to watch the parent")?;
    let parent = i32::try_from(parent).ok().and_then(Pid::from_raw);
    anyhow::ensure!(getppid() == parent, "the quickstart that started this has ended");
    // Whatever a program writes, only its owner can read.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let (program, arguments) = command.split_first().context("no program is named after --")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("{} cannot be started", program.display()))
}
