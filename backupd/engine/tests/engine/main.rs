//! The engine's integration tests: one program, because linking one for each file costs more than running them.

mod broken;
mod conformance;
mod damage;
mod extremes;
mod fences;
mod fidelity;
mod folders;
mod heal;
mod hostile;
mod in_place;
mod keys;
mod phantom;
mod posix;
mod practice;
mod prune;
mod prune_attack;
mod prune_locks;
mod prune_lost;
mod prune_withdraw;
mod secrecy;
mod sources;
mod spool;
mod stores;
mod views;
