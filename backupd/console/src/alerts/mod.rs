//! Alerts: opened, repeated, acknowledged by whom, closed; sent by mail and webhook.

pub mod deliver;
pub mod mail;
pub mod state;
pub mod text;
pub mod unwritten;
pub mod webhook;
