//! Whole-system tests: one program, because linking one for each file costs more than running them.

mod browser;
mod chain;
mod cli;
mod clinic;
#[path = "../../../backupd/engine/tests/engine/conformance/mod.rs"]
mod conformance;
mod contract;
mod downtime;
mod faults;
mod fhir;
mod fidelity;
mod keys;
mod kill;
mod kills;
mod letters;
mod lock_screen;
mod locks;
mod log_disk;
mod look_back;
mod maintain;
mod mount;
mod netns;
mod netns_stores;
#[path = "../../../backupd/engine/tests/engine/practice/mod.rs"]
mod practice;
mod proxies;
mod prune;
mod prune_practice;
mod reader;
mod recover;
#[path = "../../../backupd/report/tests/sample/mod.rs"]
mod sample;
mod set_back;
mod source_damage;
mod spool;
mod store_faults;
mod store_kinds;
mod stores;
mod upgrade;
