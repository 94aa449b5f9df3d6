//! The EMR service: a practice's records behind pages and FHIR R4, with a door for the backup.
//!
//! ```text
//! browser, FHIR client -> web (pages, sessions) -> access (one authorization function)
//!                                               -> fhir (R4 wire)    -> store (database, audit, search, history)
//! backup               -> ops (quiesce, facts)                       -> attachments (content-addressed files)
//! ```
//!
//! Every read and write of a record goes through [`store::Store`], which authorizes and audits it: there is no other door.

#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg(test)]
extern crate self as appliance;
#[cfg(test)]
#[allow(dead_code, reason = "the unit tests use a part of what the integration tests do")]
#[path = "../tests/support/postgres.rs"]
mod support;

pub mod access;
pub mod attachments;
pub mod audit;
pub mod clock;
pub mod consents;
mod dates;
pub mod db;
pub mod downtime;
pub mod export;
pub mod fhir;
pub mod forms;
pub mod import;
pub mod look_back;
pub mod messages;
pub mod ops;
mod pdf;
pub mod probe;
pub mod relocate;
pub mod scheduling;
pub mod seed;
pub mod serve;
pub mod settings;
pub mod store;
pub mod upgrade;
pub mod web;
