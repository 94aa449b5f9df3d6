//! The pages, one file for each, with their handlers. Every page works while daemons are down and says so in words.

pub mod activity;
pub mod alerts;
pub mod assets;
pub mod deletions;
pub mod hosts;
pub mod invite;
pub mod layout;
pub mod posture;
pub mod record;
pub mod reports;
pub mod sign_in;
pub mod snapshots;
pub mod start;
