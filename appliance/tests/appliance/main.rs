//! The appliance's integration tests: one program, because linking one for each file costs more than running them.

mod booking;
mod interactions;
mod migrations;
mod moving;
mod ops;
mod oracle;
mod search;
mod smart;
mod store;
mod taking;
