//! Who is busy when. [`settle`] runs inside every transaction that stores an appointment and is the one place that refuses
//! a double booking.

use super::slots::Span;
use super::{OVERRIDE, extension};
use crate::access::{Capacity, Program};
use crate::audit::{Action, Event};
use crate::dates;
use crate::db::{Connection, OptionalExtension};
use crate::store::{StoreError, Tx};
use serde_json::Value;

/// The longest appointment, seconds: how far back an overlap can begin.
pub const LENGTH_S_MAX: i64 = 24 * 3600;
/// A time that is held stays so for this long, seconds.
pub const HOLD_S: i64 = 300;
/// What can be in one place only.
const EXCLUSIVE: [&str; 5] = ["Patient/", "Practitioner/", "Location/", "Device/", "PractitionerRole/"];
/// Times that one visitor may hold at once.
const HOLDS_MAX: i64 = 4;

/// Who is busy at a wished time, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    pub actor: String,
    pub span: Span,
    /// Somebody is about to book it, nobody has yet.
    pub held: bool,
}

/// Whether an appointment in this state takes up its time. A request that waits for approval does.
pub fn takes_time(appointment: &Value) -> bool {
    let status = appointment.get("status").and_then(Value::as_str).unwrap_or_default();
    matches!(status, "pending" | "booked" | "arrived" | "checked-in" | "fulfilled")
}

/// Begin and end; an appointment without an end lasts `minutesDuration`.
pub fn span(appointment: &Value) -> Option<Span> {
    let at = |name: &str| appointment.get(name).and_then(Value::as_str).and_then(dates::unix_s);
    let from = at("start")?;
    let minutes = appointment.get("minutesDuration").and_then(Value::as_i64).unwrap_or(0).clamp(0, 1440);
    Some(Span { from, until: at("end").unwrap_or(from + minutes * 60).max(from) })
}

/// The participants that are busy during an appointment, as references.
pub fn actors(appointment: &Value) -> Vec<&str> {
    let participants = appointment.get("participant").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut found: Vec<&str> = participants
        .iter()
        .filter(|p| p.get("status").and_then(Value::as_str) != Some("declined"))
        .filter_map(|p| p.pointer("/actor/reference")?.as_str())
        .filter(|reference| EXCLUSIVE.iter().any(|kind| reference.starts_with(kind)))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Draws the rows of an appointment that was just stored, and refuses it when somebody in it is busy.
///
/// # Errors
/// [`StoreError::Taken`], which undoes the transaction.
pub fn settle(tx: &mut Tx<'_>, rid: i64, id: &str, appointment: &Value) -> Result<(), StoreError> {
    let db = tx.connection();
    let before = rows_of(db, rid)?;
    let span = span(appointment).filter(|s| takes_time(appointment) && s.from < s.until);
    let Some(span) = span else { return clear(db, rid) };
    if span.until - span.from > LENGTH_S_MAX {
        return Err(StoreError::invalid("an appointment has at most 24 hours", "Appointment.end"));
    }
    let actors = actors(appointment);
    let after: Vec<(String, Span)> = actors.iter().map(|actor| ((*actor).to_owned(), span)).collect();
    if before == after {
        return Ok(()); // Another state, the same time: checked when it was taken.
    }
    let overridden = is_overridden(appointment);
    // What moves in from another system happened, clash or not.
    let imported = matches!(tx.actor().capacity, Capacity::Program(Program::Import));
    if !imported && let Some(clash) = clash(db, &actors, span, rid, "", tx.now_ms() / 1000)?.filter(|c| !c.held) {
        if !overridden {
            return Err(StoreError::Taken);
        }
        log::debug!(held = clash.held; "schedule.overridden");
        tx.note(Event::new(Action::Override, "Appointment", id));
    }
    let db = tx.connection();
    clear(db, rid)?;
    let sql = "INSERT INTO occupied (actor, start_s, end_s, rid) VALUES (?1, ?2, ?3, ?4)";
    for actor in actors {
        db.prepare_cached(sql)?.execute((actor, span.from, span.until, rid))?;
    }
    Ok(())
}

/// Refuses an appointment that says what its time is in a way that would keep nobody busy: R4 demands begin and end of all that
/// is not merely wished for or called off (app-3). What was a mistake can be marked as one in any case.
pub fn check_times(appointment: &Value) -> Result<(), StoreError> {
    let text = |name: &str| appointment.get(name).and_then(Value::as_str);
    if matches!(text("status"), Some("proposed" | "cancelled" | "waitlist" | "entered-in-error")) {
        return Ok(());
    }
    for (name, element) in [("start", "Appointment.start"), ("end", "Appointment.end")] {
        if text(name).and_then(dates::unix_s).is_none() {
            let told = "is needed with its day, time and zone, unless the status is proposed, waitlist or cancelled";
            return Err(StoreError::invalid(told, element));
        }
    }
    match span(appointment) {
        Some(span) if span.from < span.until => Ok(()),
        _ => Err(StoreError::invalid("must be later than the start", "Appointment.end")),
    }
}

/// Refuses a time that is still to come and in which somebody or something in it is not there, unless a reason says why it is
/// booked all the same. Pages ask for that reason before they come here; a program gives it in the same element.
pub fn check_hours(tx: &mut Tx<'_>, id: &str, before: &Value, appointment: &Value) -> Result<(), StoreError> {
    let Some(time) = span(appointment).filter(|time| time.until > tx.now_ms() / 1000) else { return Ok(()) };
    let same = takes_time(before) && span(before) == Some(time) && actors(before) == actors(appointment);
    if same || !takes_time(appointment) || matches!(tx.actor().capacity, Capacity::Program(Program::Import)) {
        return Ok(());
    }
    if !super::book::is_closed(tx.connection(), &actors(appointment), time)? {
        return Ok(());
    }
    if !is_overridden(appointment) {
        return Err(StoreError::invalid(CLOSED, "Appointment.start"));
    }
    tx.note(Event::new(Action::Override, "Appointment", id));
    Ok(())
}

const CLOSED: &str = "lies outside of the hours of whom or what is booked; choose another time, or say in the extension \
                      urn:holdfast:booked-all-the-same (valueString) why it is booked all the same";

/// Whether somebody gave a reason for booking although the calendar refuses.
fn is_overridden(appointment: &Value) -> bool {
    let reason = extension(appointment, OVERRIDE, "valueString").and_then(Value::as_str);
    reason.is_some_and(|reason| !reason.trim().is_empty())
}

/// Refuses a time in a record that was merged into another one: nothing new belongs into it. What was booked before may still
/// end or be cancelled.
pub fn check_open(tx: &Tx<'_>, before: &Value, appointment: &Value) -> Result<(), StoreError> {
    let waits = |appointment: &Value| {
        let status = appointment.get("status").and_then(Value::as_str).unwrap_or_default();
        matches!(status, "proposed" | "waitlist") || takes_time(appointment) && status != "fulfilled"
    };
    let same = waits(before) && span(before) == span(appointment) && actors(before) == actors(appointment);
    // What moves in from another system happened there.
    if !waits(appointment) || same || matches!(tx.actor().capacity, Capacity::Program(Program::Import)) {
        return Ok(());
    }
    for patient in actors(appointment).into_iter().filter_map(|actor| actor.strip_prefix("Patient/")) {
        // Whether there is such a patient at all is asked elsewhere.
        let merged = match tx.person(patient) {
            Ok(person) => person.merged_into().is_some(),
            Err(StoreError::NotFound) => false,
            Err(error) => return Err(error),
        };
        if merged {
            let told = "names a record that was merged into another one: book there";
            return Err(StoreError::invalid(told, "Appointment.participant.actor"));
        }
    }
    Ok(())
}

fn clear(db: &Connection, rid: i64) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM occupied WHERE rid = ?1")?.execute([rid])?;
    Ok(())
}

fn rows_of(db: &Connection, rid: i64) -> Result<Vec<(String, Span)>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT actor, start_s, end_s FROM occupied WHERE rid = ?1 ORDER BY actor")?;
    let rows = statement.query_map([rid], |row| Ok((row.get(0)?, Span { from: row.get(1)?, until: row.get(2)? })))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The first of `actors` that is busy in `span`, apart from the appointment in row `but`, or whose time somebody else than
/// `holder` holds.
pub fn clash(
    db: &Connection,
    actors: &[&str],
    span: Span,
    but: i64,
    holder: &str,
    now_s: i64,
) -> Result<Option<Clash>, StoreError> {
    let booked = "SELECT start_s, end_s FROM occupied WHERE actor = ?1 AND start_s < ?2 AND start_s > ?3 AND end_s > ?4 \
                  AND rid <> ?5 LIMIT 1";
    let held = "SELECT start_s, end_s FROM slot_hold WHERE actor = ?1 AND start_s < ?2 AND end_s > ?3 AND expires_s > ?4 \
                AND holder <> ?5 LIMIT 1";
    let found = |row: &crate::db::Row<'_>| Ok(Span { from: row.get(0)?, until: row.get(1)? });
    for actor in actors {
        let parameters = (actor, span.until, span.from - LENGTH_S_MAX, span.from, but);
        if let Some(span) = db.prepare_cached(booked)?.query_row(parameters, found).optional()? {
            return Ok(Some(Clash { actor: (*actor).to_owned(), span, held: false }));
        }
    }
    for actor in actors {
        let parameters = (actor, span.until, span.from, now_s, hash(holder));
        if let Some(span) = db.prepare_cached(held)?.query_row(parameters, found).optional()? {
            return Ok(Some(Clash { actor: (*actor).to_owned(), span, held: true }));
        }
    }
    Ok(None)
}

/// Everything that keeps an actor busy in `within`, holds of others than `holder` included.
pub fn busy(db: &Connection, actor: &str, within: Span, holder: &str, now_s: i64) -> Result<Vec<Span>, StoreError> {
    let sql = "SELECT start_s, end_s FROM occupied WHERE actor = ?1 AND start_s < ?2 AND start_s > ?3 AND end_s > ?4 \
               UNION ALL SELECT start_s, end_s FROM slot_hold WHERE actor = ?1 AND start_s < ?2 AND end_s > ?4 \
               AND expires_s > ?5 AND holder <> ?6";
    let mut statement = db.prepare_cached(sql)?;
    let parameters = (actor, within.until, within.from - LENGTH_S_MAX, within.from, now_s, hash(holder));
    let rows = statement.query_map(parameters, |row| Ok(Span { from: row.get(0)?, until: row.get(1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn hash(holder: &str) -> String {
    if holder.is_empty() { String::new() } else { hex::encode(service::auth::token_hash(holder)) }
}

/// Keeps a time free for `holder` for [`HOLD_S`], unless somebody is busy. What the holder held before is let go.
pub fn hold(
    db: &Connection,
    actors: &[&str],
    span: Span,
    holder: &str,
    now_s: i64,
) -> Result<Option<Clash>, StoreError> {
    db.prepare_cached("DELETE FROM slot_hold WHERE expires_s <= ?1")?.execute([now_s])?;
    if let Some(clash) = clash(db, actors, span, 0, holder, now_s)? {
        return Ok(Some(clash));
    }
    release(db, holder)?;
    for actor in actors.iter().take(HOLDS_MAX.unsigned_abs() as usize) {
        let sql = "INSERT INTO slot_hold (actor, start_s, end_s, holder, expires_s) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (actor, start_s, holder) DO UPDATE SET end_s = excluded.end_s, expires_s = excluded.expires_s";
        db.prepare_cached(sql)?.execute((actor, span.from, span.until, hash(holder), now_s + HOLD_S))?;
    }
    Ok(None)
}

pub fn release(db: &Connection, holder: &str) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM slot_hold WHERE holder = ?1")?.execute([hash(holder)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_cancelled_takes_no_time() {
        let all = [
            ("booked", true),
            ("pending", true),
            ("arrived", true),
            ("cancelled", false),
            ("noshow", false),
            ("waitlist", false),
        ];
        for (status, takes) in all {
            assert_eq!(takes_time(&json!({"status": status})), takes, "{status}");
        }
    }

    #[test]
    fn the_span_of_an_appointment_needs_no_end() {
        let length = |body: Value| span(&body).map(|s| s.until - s.from);
        assert_eq!(length(json!({"start": "2024-05-06T10:00:00Z", "end": "2024-05-06T10:30:00Z"})), Some(1800));
        assert_eq!(length(json!({"start": "2024-05-06T10:00:00+02:00", "minutesDuration": 20})), Some(1200));
        assert_eq!(length(json!({"start": "2024-05-06T10:00:00Z", "end": "2024-05-06T09:00:00Z"})), Some(0));
        assert_eq!(length(json!({"start": "nonsense"})), None);
    }

    #[test]
    fn what_keeps_people_busy_says_from_when_until_when() {
        let (start, end) = ("2024-05-06T10:00:00Z", "2024-05-06T10:30:00+00:00");
        let element = |body: Value| match check_times(&body) {
            Err(StoreError::Invalid { what }) => what.path,
            told => format!("{told:?}"),
        };
        for status in ["booked", "pending", "arrived", "fulfilled", "noshow", "checked-in"] {
            assert!(check_times(&json!({"status": status, "start": start, "end": end})).is_ok());
            assert_eq!(element(json!({"status": status, "end": end})), "Appointment.start");
            assert_eq!(element(json!({"status": status, "start": start, "minutesDuration": 20})), "Appointment.end");
            assert_eq!(element(json!({"status": status, "start": start, "end": start})), "Appointment.end");
            assert_eq!(element(json!({"status": status, "start": end, "end": start})), "Appointment.end");
        }
        for status in ["proposed", "waitlist", "cancelled", "entered-in-error"] {
            assert!(check_times(&json!({"status": status})).is_ok(), "{status}");
        }
    }

    #[test]
    fn only_those_who_come_are_busy() {
        let appointment = json!({"participant": [
            {"actor": {"reference": "Patient/a"}, "status": "accepted"},
            {"actor": {"reference": "Practitioner/b"}, "status": "declined"},
            {"actor": {"reference": "HealthcareService/c"}, "status": "accepted"},
            {"actor": {"display": "somebody"}, "status": "accepted"}]});
        assert_eq!(actors(&appointment), ["Patient/a"]);
    }
}
