//! The parts of the daemons that the simulation of `tests/sim` runs too, in virtual time and over stores that fail: the log
//! of reports in the stores, the times of a drill. Everything else of the program is in `main.rs`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod course;
pub mod failure;
pub mod reports;
