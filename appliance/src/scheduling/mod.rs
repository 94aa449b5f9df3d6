//! When the practice can see somebody: hours, free times, and who is busy.
//!
//! ```text
//! Schedule (weekly hours, exceptions)  -> hours  ─┐
//! Appointment, hold -> occupancy (who is busy)   ─┼─> slots: free times, computed when somebody asks
//! HealthcareService -> visit (length, who, where) ┘
//! ```
//!
//! Nothing stores a free slot. That nobody is booked twice is decided where an appointment is stored, inside the one
//! writer's transaction ([`occupancy::settle`]), so that pages, online booking and FHIR clients meet the same rule.

pub mod book;
pub mod booking;
pub mod hours;
pub mod ical;
pub mod occupancy;
pub mod online;
pub mod series;
pub mod slots;
pub mod visit;

/// Tables of this module; applied by a migration of the store.
pub const SCHEMA: &str = include_str!("schema.sql");

/// Why an appointment may stand where the calendar would refuse it: who overrode writes it down.
pub const OVERRIDE: &str = "urn:holdfast:booked-all-the-same";
/// Appointments that were made together carry the same value.
pub const SERIES: &str = "urn:holdfast:series";

use serde_json::Value;

/// The value of an extension of ours, by its `value[x]` name.
pub fn extension<'v>(resource: &'v Value, url: &str, value: &str) -> Option<&'v Value> {
    let all = resource.get("extension").and_then(Value::as_array)?;
    all.iter().find(|e| e.get("url").and_then(Value::as_str) == Some(url))?.get(value)
}

/// Sets, or with `None` removes, an extension of ours.
pub fn set_extension(resource: &mut Value, url: &str, value: Option<(&str, Value)>) {
    let Some(object) = resource.as_object_mut() else { return };
    let mut all = match object.remove("extension") {
        Some(Value::Array(all)) => all,
        _ => Vec::new(),
    };
    all.retain(|e| e.get("url").and_then(Value::as_str) != Some(url));
    if let Some((name, value)) = value {
        let mut entry = serde_json::Map::new();
        entry.insert("url".into(), url.into());
        entry.insert(name.into(), value);
        all.push(entry.into());
    }
    if !all.is_empty() {
        object.insert("extension".into(), all.into());
    }
}
