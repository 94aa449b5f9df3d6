//! The remote admin console: what the practice's owner, its IT, auditors and data-center staff see of the backup.
//!
//! It holds sessions and accounts of its own, and neither a repository key nor a record. It asks `backupd serve`,
//! `backupd verifier` and the agents, and stays useful when some of them do not answer.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod accounts;
mod alerts;
mod app;
mod audit;
mod clock;
pub mod command;
mod daemons;
mod db;
mod fetch;
mod heartbeat;
mod jobs;
mod lockout;
mod pages;
mod poll;
mod roles;
mod routes;
mod settings;
mod tar;
mod throttle;
mod web;
mod words;

#[cfg(test)]
mod approval_tests;
#[cfg(test)]
mod channel_tests;
#[cfg(test)]
mod deletion_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod web_tests;
