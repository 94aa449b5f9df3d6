//! Golden questions: chosen and answered at snapshot time, asked again of what was restored.

use crate::attachments::{AttachmentRow, Attachments, Kept};
use crate::db::{Connection, OptionalExtension, sqlite};
use crate::store::{DATABASE_FILE, StoreError, load_resource, schema_version};
use crate::{audit, clock};
use appliance_api::{GoldenKey, GoldenQuery, GoldenQuestion, answer_hash};
use chrono::{DateTime, Days, NaiveDate, TimeZone};
use std::collections::BTreeSet;
use std::path::Path;

/// Where the practice's time zone is kept in the data, so that a restored day begins when it did.
pub const TIME_ZONE_KEY: &str = "time-zone";

/// Questions that one request may ask.
const QUESTIONS_MAX: usize = 1000;
/// Patients, notes and attachments asked about in one drill. Each costs a look-up, or hashing one file.
const ASKED_OF_A_KIND: u64 = 8;

/// Opens `DIR/records.sqlite` of restored data.
pub fn open_restored(dir: &Path) -> Result<Connection, StoreError> {
    let database = dir.join(DATABASE_FILE);
    if !database.is_file() {
        return Err(StoreError::Damaged("database missing"));
    }
    Ok(sqlite::open_immutable(&database)?)
}

/// Chooses questions at random and answers them, under a fresh key.
pub fn choose(db: &Connection, attachments: &Attachments) -> Result<(GoldenKey, Vec<GoldenQuery>), StoreError> {
    let key = clock::random::<32>().map_err(StoreError::io("randomness"))?;
    let pick = u64::from_le_bytes(clock::random::<8>().map_err(StoreError::io("randomness"))?);
    let mut questions = vec![GoldenQuestion::AuditHead];
    for id in distinct(|at| random_resource(db, "Patient", picked(pick, at)))? {
        questions.push(GoldenQuestion::PatientById { id });
    }
    for kind in ["DocumentReference", "Composition"] {
        let ids = distinct(|at| random_resource(db, kind, picked(pick, at)))?;
        if !ids.is_empty() {
            questions.extend(ids.into_iter().map(|id| GoldenQuestion::Note { kind: kind.to_owned(), id }));
            break;
        }
    }
    if let Some(day) = day_with_appointments(db)? {
        questions.push(GoldenQuestion::AppointmentsOn { day: day.to_string() });
    }
    for id in distinct(|at| random_attachment(db, picked(pick, at)))? {
        questions.push(GoldenQuestion::AttachmentDigest { id });
    }
    let mut golden = Vec::with_capacity(questions.len());
    for question in questions {
        // An attachment that is already damaged is no golden answer; its absence shows in the facts of the restore.
        if let Ok(Some(answer)) = answer(db, attachments, &question) {
            golden.push(GoldenQuery { question, expected: answer_hash(&key, &answer) });
        }
    }
    Ok((GoldenKey::new(key), golden))
}

/// The number of the `at`-th choice from one random number: far apart, whatever the count.
fn picked(pick: u64, at: u64) -> u64 {
    pick.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Up to [`ASKED_OF_A_KIND`] different ones.
fn distinct(mut choose: impl FnMut(u64) -> Result<Option<String>, StoreError>) -> Result<BTreeSet<String>, StoreError> {
    let mut ids = BTreeSet::new();
    for at in 0..ASKED_OF_A_KIND {
        ids.extend(choose(at)?);
    }
    Ok(ids)
}

/// One hash a question, in order; `None` where this data has no answer.
pub fn answers(
    db: &Connection,
    attachments: &Attachments,
    key: &GoldenKey,
    questions: &[GoldenQuestion],
) -> Result<Vec<Option<String>>, StoreError> {
    let key = key.bytes().ok_or_else(|| StoreError::invalid("is not a key", "key"))?;
    if questions.len() > QUESTIONS_MAX {
        return Err(StoreError::invalid("has too many entries", "questions"));
    }
    let hash = |question| match answer(db, attachments, question) {
        Ok(answer) => Ok(answer.map(|answer| answer_hash(&key, &answer))),
        // Damaged: an answer that differs, not a reason to leave the other questions unanswered.
        Err(StoreError::Damaged(_) | StoreError::Invalid { .. }) => Ok(None),
        Err(other) => Err(other),
    };
    questions.iter().map(hash).collect()
}

fn answer(
    db: &Connection,
    attachments: &Attachments,
    question: &GoldenQuestion,
) -> Result<Option<Vec<u8>>, StoreError> {
    match question {
        GoldenQuestion::PatientById { id } => body(db, "Patient", id),
        GoldenQuestion::Note { kind, id } if matches!(kind.as_str(), "DocumentReference" | "Composition") => {
            body(db, kind, id)
        }
        GoldenQuestion::Note { .. } => Ok(None),
        GoldenQuestion::AppointmentsOn { day } => {
            let day = day.parse().map_err(|_| StoreError::invalid("is not a day", "day"))?;
            appointments(db, day)
        }
        GoldenQuestion::AttachmentDigest { id } => match AttachmentRow::load_of(db, id, schema_version(db)?)? {
            Some(row) if row.kept != Kept::Ended => {
                Ok(Some(blake3::hash(&attachments.read(&row)?).as_bytes().to_vec()))
            }
            _ => Ok(None),
        },
        GoldenQuestion::AuditHead => Ok(Some(audit::head(db)?.hash.to_vec())),
    }
}

fn body(db: &Connection, kind: &str, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(load_resource(db, kind, id)?.map(|found| found.body.into_bytes()))
}

/// A line for each appointment of the day: id, start, state.
fn appointments(db: &Connection, day: NaiveDate) -> Result<Option<Vec<u8>>, StoreError> {
    let zone = time_zone(db)?;
    let (Some(from), Some(until)) = (midnight(zone, Some(day)), midnight(zone, day.checked_add_days(Days::new(1))))
    else {
        return Ok(None);
    };
    let sql = "SELECT r.id, d.lo, coalesce(json_extract(r.body, '$.status'), '') FROM ix_date d \
               JOIN param p ON p.id = d.param JOIN resource r ON r.rid = d.rid \
               WHERE p.type = 'Appointment' AND p.name = 'date' AND d.lo >= ?1 AND d.lo < ?2 AND r.deleted = 0 \
               ORDER BY d.lo, r.id";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query((from, until))?;
    let mut lines = String::new();
    while let Some(row) = rows.next()? {
        let (id, at, state): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        lines.push_str(&format!("{id}\t{at}\t{state}\n"));
    }
    Ok((!lines.is_empty()).then(|| lines.into_bytes()))
}

/// Today if it has appointments, else the next day that has, else the last that had.
fn day_with_appointments(db: &Connection) -> Result<Option<NaiveDate>, StoreError> {
    let zone = time_zone(db)?;
    let now = db
        .query_row("SELECT at_ms FROM canary ORDER BY sequence DESC LIMIT 1", [], |row| row.get::<_, i64>(0))
        .optional()?
        .unwrap_or(0);
    let today = midnight(zone, local_day(zone, now)).unwrap_or(now);
    let of = "FROM ix_date d JOIN param p ON p.id = d.param WHERE p.type = 'Appointment' AND p.name = 'date'";
    let next: Option<i64> =
        db.query_row(&format!("SELECT min(d.lo) {of} AND d.lo >= ?1"), [today], |row| row.get(0))?;
    let last: Option<i64> = db.query_row(&format!("SELECT max(d.lo) {of}"), [], |row| row.get(0))?;
    Ok(next.or(last).and_then(|at| local_day(zone, at)))
}

/// The practice's time zone, as the service that wrote the records last had it.
pub fn time_zone(db: &Connection) -> Result<chrono_tz::Tz, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let name: Option<String> = db.query_row(sql, [TIME_ZONE_KEY], |row| row.get(0)).optional()?;
    name.map_or(Ok(chrono_tz::UTC), |name| name.parse().map_err(|_| StoreError::Damaged("time zone")))
}

fn local_day(zone: chrono_tz::Tz, unix_ms: i64) -> Option<NaiveDate> {
    DateTime::from_timestamp_millis(unix_ms).map(|at| at.with_timezone(&zone).date_naive())
}

/// The first moment of a day, Unix milliseconds; where a zone skips midnight, the first moment after it.
fn midnight(zone: chrono_tz::Tz, day: Option<NaiveDate>) -> Option<i64> {
    let day = day?;
    (0..4).find_map(|hour| {
        let at = zone.from_local_datetime(&day.and_hms_opt(hour, 0, 0)?).earliest()?;
        Some(at.timestamp_millis())
    })
}

fn random_resource(db: &Connection, kind: &str, pick: u64) -> Result<Option<String>, StoreError> {
    let of = "FROM resource r JOIN resource_type t ON t.id = r.type WHERE t.name = ?1 AND r.deleted = 0";
    let count: i64 = db.query_row(&format!("SELECT count(*) {of}"), [kind], |row| row.get(0))?;
    let Some(at) = pick.checked_rem(count.cast_unsigned()) else { return Ok(None) };
    let sql = format!("SELECT r.id {of} ORDER BY r.rid LIMIT 1 OFFSET ?2");
    Ok(db.query_row(&sql, (kind, at.cast_signed()), |row| row.get(0)).optional()?)
}

fn random_attachment(db: &Connection, pick: u64) -> Result<Option<String>, StoreError> {
    let count: i64 = db.query_row("SELECT count(*) FROM attachment", [], |row| row.get(0))?;
    let Some(at) = pick.checked_rem(count.cast_unsigned()) else { return Ok(None) };
    let sql = "SELECT id FROM attachment ORDER BY id LIMIT 1 OFFSET ?1";
    Ok(db.query_row(sql, [at.cast_signed()], |row| row.get(0)).optional()?)
}
