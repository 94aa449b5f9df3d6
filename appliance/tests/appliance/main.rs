//! The appliance's integration tests: one program, because linking one for each file costs more than running them.

#[path = "../support/postgres.rs"]
mod support;

mod booking;
mod interactions;
mod migrations;
mod moving;
mod ops;
mod oracle;
mod postgres;
mod search;
mod smart;
mod store;
mod taking;
