//! The index rows of a resource: drawn from its JSON by the table of search parameters.

use super::StoreError;
use crate::fhir::date::{self, Interval};
use crate::fhir::params::{Form, PARAMS, Param};
use crate::fhir::types::TYPES;
use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// Longest indexed text, bytes: longer values are cut (a search for more than this finds nothing more precise).
const TEXT_BYTES_MAX: usize = 200;

/// The numbers that this database gave to types and parameters.
pub struct ParamIds {
    types: HashMap<&'static str, i64>,
    params: HashMap<(&'static str, &'static str), i64>,
}

impl ParamIds {
    /// Reads the numbers, adding those of types and parameters that this release has and the file has not.
    pub fn load(connection: &Connection) -> Result<ParamIds, StoreError> {
        let transaction = connection.unchecked_transaction()?;
        for (number, name) in (1i64..).zip(TYPES) {
            transaction.execute("INSERT OR IGNORE INTO resource_type (id, name) VALUES (?1, ?2)", (number, name))?;
        }
        for param in PARAMS {
            transaction
                .execute("INSERT OR IGNORE INTO param (type, name) VALUES (?1, ?2)", (param.kind, param.name))?;
        }
        transaction.commit()?;
        Self::read(connection)
    }

    /// Reads the numbers of a file that this release has opened for writing before.
    fn read(connection: &Connection) -> Result<ParamIds, StoreError> {
        let mut ids = ParamIds { types: HashMap::new(), params: HashMap::new() };
        for name in TYPES {
            let id = connection.query_row("SELECT id FROM resource_type WHERE name = ?1", [name], |row| row.get(0))?;
            ids.types.insert(name, id);
        }
        for param in PARAMS {
            let sql = "SELECT id FROM param WHERE type = ?1 AND name = ?2";
            let id = connection.query_row(sql, (param.kind, param.name), |row| row.get(0))?;
            ids.params.insert((param.kind, param.name), id);
        }
        Ok(ids)
    }

    pub fn type_id(&self, kind: &str) -> Option<i64> {
        self.types.get(kind).copied()
    }

    pub fn param_id(&self, kind: &str, name: &str) -> Option<i64> {
        self.params.get(&(kind, name)).copied()
    }
}

/// Rebuilds all index rows when they were drawn by another table of parameters: a release that adds one finds with it what
/// older releases stored.
pub fn rebuild_if_outdated(connection: &Connection, ids: &ParamIds) -> Result<(), StoreError> {
    const KEY: &str = "index-parameters";
    let table = blake3::hash(format!("{PARAMS:?}").as_bytes()).to_hex().to_string();
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let found: Option<String> = connection.query_row(sql, [KEY], |row| row.get(0)).optional()?;
    if found.as_deref() == Some(table.as_str()) {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    transaction
        .execute_batch("DELETE FROM ix_token; DELETE FROM ix_string; DELETE FROM ix_date; DELETE FROM ix_ref;")?;
    let sql = "SELECT t.name, r.rid, r.patient, r.body FROM resource r JOIN resource_type t ON t.id = r.type";
    let mut statement = transaction.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, body): (String, String) = (row.get(0)?, row.get(3)?);
        let body = serde_json::from_str(&body).map_err(|_| StoreError::Damaged("resource body"))?;
        insert(&transaction, ids, &kind, row.get(1)?, row.get(2)?, &body)?;
    }
    drop(rows);
    drop(statement);
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    transaction.execute(sql, (KEY, &table))?;
    transaction.commit()?;
    Ok(())
}

/// Removes the index rows of a resource.
pub fn remove(connection: &Connection, rid: i64) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM ix_token WHERE rid = ?1",
        "DELETE FROM ix_string WHERE rid = ?1",
        "DELETE FROM ix_date WHERE rid = ?1",
        "DELETE FROM ix_ref WHERE rid = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([rid])?;
    }
    Ok(())
}

/// Adds the index rows of a resource.
pub fn insert(
    connection: &Connection,
    ids: &ParamIds,
    kind: &str,
    rid: i64,
    patient: i64,
    body: &Value,
) -> Result<(), StoreError> {
    for param in PARAMS.iter().filter(|param| param.kind == kind) {
        let Some(id) = ids.param_id(param.kind, param.name) else { continue };
        let values = param.paths.iter().flat_map(|path| at_path(body, path));
        match param.form {
            Form::Token => {
                let sql =
                    "INSERT OR IGNORE INTO ix_token (param, code, patient, rid, system) VALUES (?1, ?2, ?3, ?4, ?5)";
                for (system, code) in values.flat_map(tokens).collect::<BTreeSet<_>>() {
                    connection.prepare_cached(sql)?.execute((id, code, patient, rid, system))?;
                }
            }
            Form::String => {
                let sql = "INSERT OR IGNORE INTO ix_string (param, value, patient, rid) VALUES (?1, ?2, ?3, ?4)";
                for text in values.flat_map(strings).collect::<BTreeSet<_>>() {
                    connection.prepare_cached(sql)?.execute((id, text, patient, rid))?;
                }
            }
            Form::Date => {
                let sql = "INSERT OR IGNORE INTO ix_date (param, patient, lo, hi, rid) VALUES (?1, ?2, ?3, ?4, ?5)";
                for interval in values.filter_map(interval) {
                    connection.prepare_cached(sql)?.execute((id, patient, interval.lo, interval.hi, rid))?;
                }
            }
            Form::Reference => {
                let sql = "INSERT OR IGNORE INTO ix_ref (param, target, rid) VALUES (?1, ?2, ?3)";
                for target in values.filter_map(target) {
                    connection.prepare_cached(sql)?.execute((id, target, rid))?;
                }
            }
        }
    }
    Ok(())
}

/// Logical id of the patient in whose compartment a resource is.
pub fn patient_reference(body: &Value) -> Option<String> {
    const PATHS: [&str; 9] = [
        "patient",
        "subject",
        "beneficiary",
        "participant.actor",
        "for",
        "individual",
        "policyHolder",
        "source",
        "sender",
    ];
    PATHS.iter().flat_map(|path| at_path(body, path)).filter_map(target).find_map(|target| {
        let id = target.strip_prefix("Patient/")?;
        Some(id.split('/').next().unwrap_or(id).to_owned())
    })
}

/// The values at a path of element names, arrays passed through.
pub fn at_path<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
    let mut found = vec![value];
    for name in path.split('.') {
        found = found
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(items) => items.iter().collect::<Vec<_>>(),
                one => vec![one],
            })
            .filter_map(|value| value.get(name))
            .collect();
    }
    found
        .into_iter()
        .flat_map(|value| match value {
            Value::Array(items) => items.iter().collect::<Vec<_>>(),
            one => vec![one],
        })
        .collect()
}

/// `(system, code)` of a code, boolean, Coding, CodeableConcept, Identifier or ContactPoint.
pub fn tokens(value: &Value) -> Vec<(String, String)> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(|text| cut(text).to_owned());
    match value {
        Value::String(code) => vec![(String::new(), cut(code).to_owned())],
        Value::Bool(flag) => vec![(String::new(), flag.to_string())],
        Value::Object(object) => {
            let system = text(object.get("system")).unwrap_or_default();
            match (object.get("coding"), text(object.get("code")), text(object.get("value"))) {
                (Some(Value::Array(codings)), _, _) => codings.iter().take(64).flat_map(coding).collect(),
                (_, Some(code), _) | (_, None, Some(code)) => vec![(system, code)],
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn coding(value: &Value) -> Option<(String, String)> {
    let code = value.get("code")?.as_str()?;
    let system = value.get("system").and_then(Value::as_str).unwrap_or_default();
    Some((cut(system).to_owned(), cut(code).to_owned()))
}

/// The searchable texts of a string, HumanName or Address, folded.
pub fn strings(value: &Value) -> Vec<String> {
    const PARTS: [&str; 9] = ["text", "family", "given", "line", "city", "district", "state", "postalCode", "country"];
    match value {
        Value::String(text) => vec![fold(text)],
        Value::Object(_) => {
            PARTS.iter().flat_map(|part| at_path(value, part)).filter_map(Value::as_str).map(fold).collect()
        }
        _ => Vec::new(),
    }
}

/// The interval of a date, dateTime, instant or Period.
pub fn interval(value: &Value) -> Option<Interval> {
    match value {
        Value::String(text) => date::parse(text),
        Value::Object(period) => {
            let side = |name: &str| period.get(name).and_then(Value::as_str).and_then(date::parse);
            match (side("start"), side("end")) {
                (None, None) => None,
                (start, end) => Some(Interval {
                    lo: start.map_or(date::PAST, |start| start.lo),
                    hi: end.map_or(date::FUTURE, |end| end.hi),
                }),
            }
        }
        _ => None,
    }
}

/// What a Reference points to, as written.
pub fn target(value: &Value) -> Option<String> {
    let reference = value.get("reference")?.as_str()?;
    (!reference.starts_with('#') && reference.len() <= 2 * TEXT_BYTES_MAX).then(|| reference.to_owned())
}

/// Lower case, without the marks of Latin letters, so that `Mejia` finds `Mejía`.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in cut(text).chars().flat_map(char::to_lowercase) {
        match c {
            'à'..='å' | 'ā' | 'ă' | 'ą' => folded.push('a'),
            'æ' => folded.push_str("ae"),
            'ç' | 'ć' | 'č' | 'ĉ' | 'ċ' => folded.push('c'),
            'ď' | 'đ' => folded.push('d'),
            'è'..='ë' | 'ē' | 'ė' | 'ę' | 'ě' => folded.push('e'),
            'ğ' | 'ģ' => folded.push('g'),
            'ì'..='ï' | 'ī' | 'į' | 'ı' => folded.push('i'),
            'ł' | 'ļ' | 'ľ' => folded.push('l'),
            'ñ' | 'ń' | 'ň' | 'ņ' => folded.push('n'),
            'ò'..='ö' | 'ø' | 'ō' | 'ő' => folded.push('o'),
            'œ' => folded.push_str("oe"),
            'ŕ' | 'ř' => folded.push('r'),
            'ś' | 'š' | 'ş' | 'ș' => folded.push('s'),
            'ß' => folded.push_str("ss"),
            'ť' | 'ţ' | 'ț' => folded.push('t'),
            'ù'..='ü' | 'ū' | 'ů' | 'ű' | 'ų' => folded.push('u'),
            'ý' | 'ÿ' => folded.push('y'),
            'ź' | 'ž' | 'ż' => folded.push('z'),
            // Combining marks of decomposed text.
            '\u{300}'..='\u{36f}' => {}
            other => folded.push(other),
        }
    }
    folded
}

/// The first [`TEXT_BYTES_MAX`] bytes, at a character's edge.
pub fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The parameter of a type with this name.
pub fn find(kind: &str, name: &str) -> Option<&'static Param> {
    PARAMS.iter().find(|param| param.kind == kind && param.name == name)
}
