//! What patients decided about the texts that govern something: the newest decision of each patient about each text, in a table
//! of its own, so that every request asks for it.
//!
//! A refusal or withdrawal keeps out, whatever else was signed. A text in use that is `needed` keeps out as well whoever has not
//! agreed to one of those that are. Where no text governs a thing, nobody's consent is asked for.

use super::{Decision, Record};
use crate::access::Governs;
use crate::clock;
use crate::db::{Connection, OptionalExtension, Value as Sql, params};
use crate::store::StoreError;
use serde_json::Value;
use std::collections::BTreeMap;

/// Whose records are kept from somebody at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Withheld {
    governs: Governs,
    now: String,
    /// Texts of which one has to be agreed to; empty where none has.
    needed: Vec<String>,
}

impl Withheld {
    pub fn load(db: &Connection, governs: Governs, now_ms: i64) -> Result<Withheld, StoreError> {
        let sql = "SELECT id FROM consent_text t WHERE governs = ?1 AND in_use = 1 AND needed = 1 \
                   AND version = (SELECT max(version) FROM consent_text x WHERE x.id = t.id)";
        let mut statement = db.prepare_cached(sql)?;
        let needed = statement.query_map([governs.as_str()], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(Withheld { governs, now: moment(now_ms), needed })
    }

    /// The condition under which what belongs to the patient in `column` (0: to none) may be reached.
    pub fn condition(&self, column: &str, bind: &mut dyn FnMut(Sql) -> String) -> String {
        let governs = bind(self.governs.as_str().to_owned().into());
        let now = bind(self.now.clone().into());
        let decided = format!(
            "SELECT 1 FROM patient_decision d WHERE d.patient = {column} AND d.governs = {governs} AND (d.ends = '' OR d.ends > {now})"
        );
        let mut reached = format!("NOT EXISTS ({decided} AND d.permits = 0)");
        if !self.needed.is_empty() {
            let texts: Vec<String> = self.needed.iter().map(|text| bind(text.clone().into())).collect();
            reached += &format!(" AND EXISTS ({decided} AND d.permits = 1 AND d.text IN ({}))", texts.join(", "));
        }
        format!("({column} = 0 OR {reached})")
    }

    /// Whether the patient in this row has not let it happen.
    pub fn of(&self, db: &Connection, patient: i64) -> Result<bool, StoreError> {
        let mut values: Vec<Sql> = vec![patient.into()];
        let condition = self.condition("r.patient", &mut |value| {
            values.push(value);
            format!("?{}", values.len())
        });
        let sql = format!("SELECT {condition} FROM (SELECT rid AS patient FROM resource WHERE rid = ?1) r");
        let may: Option<bool> =
            db.prepare_cached(&sql)?.query_row(crate::db::params_from_iter(values), |row| row.get(0)).optional()?;
        Ok(may == Some(false))
    }
}

/// Whether what a consent governs may happen for a patient.
pub fn permits(db: &Connection, governs: Governs, patient: &str, now_ms: i64) -> Result<bool, StoreError> {
    match crate::store::patient_row(db, patient)? {
        Some(row) => Ok(!Withheld::load(db, governs, now_ms)?.of(db, row)?),
        None => Ok(false),
    }
}

/// As `ends` is written: both are compared as texts.
fn moment(now_ms: i64) -> String {
    clock::instant(now_ms).chars().take(19).chain(['Z']).collect()
}

/// Records merged into one another that are followed.
const MERGED_MAX: usize = 16;

/// Draws a patient's decisions anew, after one of their consents was stored or sealed; and those of the record that goes on,
/// where this one was merged into another.
pub(crate) fn redraw(db: &Connection, patient: i64) -> Result<(), StoreError> {
    linked(db, patient, "replaced-by")?.into_iter().try_for_each(|row| draw(db, row))
}

/// The row of a patient, and those to which its links of this kind lead, one after the other.
fn linked(db: &Connection, patient: i64, kind: &str) -> Result<Vec<i64>, StoreError> {
    let (mut found, mut open) = (Vec::new(), vec![patient]);
    while let Some(row) = open.pop() {
        if found.len() >= MERGED_MAX || found.contains(&row) {
            continue;
        }
        found.push(row);
        let sql = "SELECT body FROM resource WHERE rid = ?1 AND deleted = 0";
        let body: Option<String> = db.prepare_cached(sql)?.query_row([row], |row| row.get(0)).optional()?;
        let Some(body) = body else { continue };
        let body: Value = serde_json::from_str(&body).map_err(|_| StoreError::Damaged("resource body"))?;
        for link in body.get("link").and_then(Value::as_array).into_iter().flatten() {
            let other = link.pointer("/other/reference").and_then(Value::as_str).unwrap_or_default();
            let is_kind = link.get("type").and_then(Value::as_str) == Some(kind);
            if let Some(id) = other.strip_prefix("Patient/").filter(|_| is_kind) {
                open.extend(crate::store::patient_row(db, id)?);
            }
        }
    }
    Ok(found)
}

/// Draws the decisions of one record, those that were made in records merged into it among them: it is one person.
fn draw(db: &Connection, patient: i64) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM patient_decision WHERE patient = ?1")?.execute([patient])?;
    let sql = "SELECT c.seq, c.record, r.body FROM resource r JOIN resource_type t ON t.id = r.type \
               JOIN consent_record c ON c.consent = r.id WHERE r.patient = ?1 AND t.name = 'Consent' AND r.deleted = 0";
    let mut rows: Vec<(i64, String, String)> = Vec::new();
    for row in linked(db, patient, "replaces")? {
        let mut statement = db.prepare_cached(sql)?;
        let found = statement.query_map([row], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.extend(found.collect::<Result<Vec<_>, _>>()?);
    }
    rows.sort_by_key(|(seq, _, _)| *seq);
    let mut newest: BTreeMap<String, (Record, Value)> = BTreeMap::new();
    for (_, record, body) in rows {
        let record: Record = serde_json::from_str(&record).map_err(|_| StoreError::Damaged("consent record"))?;
        let body: Value = serde_json::from_str(&body).map_err(|_| StoreError::Damaged("resource body"))?;
        if super::status(&body) != "entered-in-error" {
            newest.insert(record.text_id.clone(), (record, body));
        }
    }
    let sql = "INSERT INTO patient_decision (patient, text, governs, permits, ends) \
               SELECT ?1, id, governs, ?4, ?5 FROM consent_text WHERE id = ?2 AND version = ?3 AND governs <> ''";
    for (text, (record, body)) in newest {
        let Some((permits, ends)) = decided(&record, &body) else { continue };
        db.prepare_cached(sql)?.execute(params![patient, text, record.text_version, i64::from(permits), ends])?;
    }
    Ok(())
}

/// [`redraw`] for everybody: where records were brought in as they were.
pub(crate) fn redraw_all(db: &Connection) -> Result<(), StoreError> {
    let sql = "SELECT DISTINCT r.patient FROM consent_record c JOIN resource r ON r.id = c.consent \
               JOIN resource_type t ON t.id = r.type WHERE t.name = 'Consent' AND r.patient <> 0";
    let mut statement = db.prepare(sql)?;
    let patients: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    patients.into_iter().try_for_each(|patient| redraw(db, patient))
}

/// Whether a decision permits, and until when; `None` where it decides nothing any more.
fn decided(record: &Record, body: &Value) -> Option<(bool, String)> {
    let ends = || super::end_of(body).unwrap_or_default().to_owned();
    match (record.decision, super::status(body)) {
        (Decision::Agreed, "active") => Some((true, ends())),
        // Whoever takes back what they agreed to says no, and for good.
        (Decision::Agreed, "inactive" | "rejected") => Some((false, String::new())),
        (Decision::Refused, "active") => Some((false, ends())),
        _ => None,
    }
}
