//! What every daemon of Holdfast needs from the machine that it runs on: the journal, readiness and watchdog of the
//! service manager, credentials, TLS settings, the HTTP loop and the mechanisms of signing in. No policy and no storage:
//! who may sign in, and where that is kept, belongs to the program.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod addresses;
pub mod auth;
mod clock;
pub mod http;
mod linger;
pub mod lockout;
pub mod log;
mod manager;
pub mod settings;
pub mod terminal;
pub mod tls;

pub use manager::{credential, ready, shutdown, spawn_watchdog, status, stopping};
