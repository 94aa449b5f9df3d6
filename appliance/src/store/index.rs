//! The index rows of a resource: drawn from its JSON by the table of search parameters.

use super::{StoreError, canonical};
use crate::db::{Connection, OptionalExtension};
use crate::fhir::compartment;
use crate::fhir::date::{self, Interval};
use crate::fhir::params::{self, Form, Param};
use crate::fhir::types::TYPES;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;

/// Longest indexed text, bytes: longer values are cut (a search for more than this finds nothing more precise).
const TEXT_BYTES_MAX: usize = 200;
/// Codings of one concept that are indexed.
const CODINGS_MAX: usize = 64;
/// Counted up whenever the same parameter draws other rows than before.
const DRAWN_BY: u32 = 4;
/// Under this name the index holds the patients to whom a resource belongs beside the one in whose compartment it is. It is no
/// parameter of a search: it is asked for whoever is kept from what belongs to somebody.
const BESIDE: &str = "_compartment";

/// The numbers that this database gave to types and parameters.
pub struct ParamIds {
    types: HashMap<&'static str, i64>,
    params: HashMap<(&'static str, &'static str), i64>,
}

impl ParamIds {
    /// Reads the numbers, adding those of types and parameters that this release has and the file has not.
    pub fn load(connection: &Connection) -> Result<ParamIds, StoreError> {
        let transaction = connection.transaction()?;
        for (number, name) in (1i64..).zip(TYPES) {
            transaction.execute(
                "INSERT INTO resource_type (id, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                (number, name),
            )?;
        }
        for param in params::all() {
            transaction.execute(
                "INSERT INTO param (type, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                (param.kind, param.name),
            )?;
        }
        for kind in compartment::kinds() {
            let sql = "INSERT INTO param (type, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            transaction.execute(sql, (kind, BESIDE))?;
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
        let named = params::all().map(|param| (param.kind, param.name));
        for (kind, name) in named.chain(compartment::kinds().map(|kind| (kind, BESIDE))) {
            let sql = "SELECT id FROM param WHERE type = ?1 AND name = ?2";
            let id = connection.query_row(sql, (kind, name), |row| row.get(0))?;
            ids.params.insert((kind, name), id);
        }
        Ok(ids)
    }

    /// Of a file in which nothing is stored or searched.
    pub fn none() -> ParamIds {
        ParamIds { types: HashMap::new(), params: HashMap::new() }
    }

    pub fn type_id(&self, kind: &str) -> Option<i64> {
        self.types.get(kind).copied()
    }

    pub fn param_id(&self, kind: &str, name: &str) -> Option<i64> {
        self.params.get(&(kind, name)).copied()
    }

    /// Under which number the index holds to whom else resources of a type belong; `None` where they belong to nobody.
    pub fn beside_id(&self, kind: &str) -> Option<i64> {
        self.param_id(kind, BESIDE)
    }
}

/// Rebuilds all index rows when they were drawn by another table of parameters: a release that adds one finds with it what
/// older releases stored.
pub fn rebuild_if_outdated(connection: &Connection, ids: &ParamIds) -> Result<(), StoreError> {
    const KEY: &str = "index-parameters";
    let table = blake3::hash(format!("{DRAWN_BY} {}", params::TABLE).as_bytes()).to_hex().to_string();
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let found: Option<String> = connection.query_row(sql, [KEY], |row| row.get(0)).optional()?;
    if found.as_deref() == Some(table.as_str()) {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "DELETE FROM ix_token; DELETE FROM ix_string; DELETE FROM ix_date; DELETE FROM ix_ref; DELETE FROM ix_quantity;",
    )?;
    let sql = "SELECT t.name, r.rid, r.patient, r.body FROM resource r JOIN resource_type t ON t.id = r.type \
               WHERE r.deleted = 0";
    let mut statement = transaction.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, body): (String, String) = (row.get(0)?, row.get(3)?);
        let body = serde_json::from_str(&body).map_err(|_| StoreError::Damaged("resource body"))?;
        insert(&transaction, ids, &kind, (row.get(1)?, row.get(2)?), &body)?;
    }
    drop(rows);
    drop(statement);
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    transaction.execute(sql, (KEY, &table))?;
    transaction.commit()?;
    Ok(())
}

/// One row of an index table.
#[derive(Debug, PartialEq)]
enum Row<'v> {
    Token { system: &'v str, code: &'v str },
    Text { value: String, exact: &'v str },
    Date(Interval),
    Target(Cow<'v, str>),
    Quantity { value: f64, system: &'v str, code: &'v str, unit: &'v str },
}

/// Adds the index rows of a resource in row `rid`, in the compartment of `patient`.
pub fn insert(
    connection: &Connection,
    ids: &ParamIds,
    kind: &str,
    (rid, patient): (i64, i64),
    body: &Value,
) -> Result<(), StoreError> {
    each(ids, kind, body, &mut |param, row| {
        let sql = match &row {
            Row::Token { .. } => {
                "INSERT INTO ix_token (param, patient, rid, system, code) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING"
            }
            Row::Text { .. } => {
                "INSERT INTO ix_string (param, patient, rid, value, exact) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING"
            }
            Row::Date(_) => {
                "INSERT INTO ix_date (param, patient, rid, lo, hi) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING"
            }
            Row::Target(_) => {
                "INSERT INTO ix_ref (param, patient, rid, target) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING"
            }
            Row::Quantity { .. } => {
                "INSERT INTO ix_quantity (param, patient, rid, value, system, code, unit) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING"
            }
        };
        execute(connection, sql, (param, patient, rid), &row)
    })
}

/// Removes the index rows of a resource: those that its stored body draws.
pub fn remove(
    connection: &Connection,
    ids: &ParamIds,
    kind: &str,
    (rid, patient): (i64, i64),
    body: &Value,
) -> Result<(), StoreError> {
    each(ids, kind, body, &mut |param, row| {
        let sql = match &row {
            Row::Token { .. } => {
                "DELETE FROM ix_token WHERE param = ?1 AND patient = ?2 AND rid = ?3 AND system = ?4 AND code = ?5"
            }
            Row::Text { .. } => {
                "DELETE FROM ix_string WHERE param = ?1 AND patient = ?2 AND rid = ?3 AND value = ?4 AND exact = ?5"
            }
            Row::Date(_) => {
                "DELETE FROM ix_date WHERE param = ?1 AND patient = ?2 AND rid = ?3 AND lo = ?4 AND hi = ?5"
            }
            Row::Target(_) => "DELETE FROM ix_ref WHERE param = ?1 AND patient = ?2 AND rid = ?3 AND target = ?4",
            Row::Quantity { .. } => {
                "DELETE FROM ix_quantity WHERE param = ?1 AND patient = ?2 AND rid = ?3 AND value = ?4 \
                 AND system = ?5 AND code = ?6 AND unit = ?7"
            }
        };
        execute(connection, sql, (param, patient, rid), &row)
    })
}

fn execute(
    connection: &Connection,
    sql: &str,
    (param, patient, rid): (i64, i64, i64),
    row: &Row<'_>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    match row {
        Row::Token { system, code } => statement.execute((param, patient, rid, system, code))?,
        Row::Text { value, exact } => statement.execute((param, patient, rid, value, exact))?,
        Row::Date(interval) => statement.execute((param, patient, rid, interval.lo, interval.hi))?,
        Row::Target(target) => statement.execute((param, patient, rid, target.as_ref()))?,
        Row::Quantity { value, system, code, unit } => {
            statement.execute((param, patient, rid, value, system, code, unit))?
        }
    };
    Ok(())
}

/// Draws the index rows of a body.
fn each(
    ids: &ParamIds,
    kind: &str,
    body: &Value,
    found: &mut dyn FnMut(i64, Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut done = Ok(());
    for param in params::of(kind) {
        let Some(id) = ids.param_id(param.kind, param.name) else { continue };
        param.visit(body, &mut |value| {
            if done.is_ok() {
                done = draw(param, value, &mut |row| found(id, row));
            }
        });
    }
    done?;
    let Some(id) = ids.beside_id(kind) else { return Ok(()) };
    let own = patient_reference(body).map(|id| format!("Patient/{id}"));
    let beside = compartment::patients(kind, body).into_iter().filter(|named| Some(*named) != own.as_deref());
    // A longer one names nobody who is here.
    let mut known = beside.filter(|named| named.len() <= TEXT_BYTES_MAX);
    known.try_for_each(|named| found(id, Row::Target(named.into())))
}

fn draw(
    param: &Param,
    value: &Value,
    found: &mut dyn FnMut(Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    match param.form {
        Form::Token => {
            tokens(value, &mut |system, code| found(Row::Token { system: cut(system), code: cut(code) }))?;
            match value.get("value").and_then(Value::as_str).map(plain_number) {
                Some(plain) if is_number_of_person(param) && !plain.is_empty() => {
                    found(Row::Text { value: plain, exact: "" })
                }
                _ => Ok(()),
            }
        }
        Form::Uri => value.as_str().map_or(Ok(()), |uri| found(Row::Token { system: "", code: cut(uri) })),
        Form::String => strings(value, &mut |text| {
            let (folded, exact) = (fold(text), cut(text));
            if folded.is_empty() {
                return Ok(());
            }
            let exact = if folded == exact { "" } else { exact };
            found(Row::Text { value: folded, exact })
        }),
        Form::Date => interval(value).map_or(Ok(()), |interval| found(Row::Date(interval))),
        Form::Quantity => quantity(value).map_or(Ok(()), found),
        Form::Reference => match target(value) {
            Some(target) if fits(param, target) && value.is_string() => {
                canonical::rows(target).into_iter().try_for_each(|row| found(Row::Target(row)))
            }
            Some(target) if fits(param, target) => found(Row::Target(target.into())),
            _ => Ok(()),
        },
        Form::Subject => match target(value) {
            Some(target) if !target.starts_with("Patient/") => found(Row::Target(target.into())),
            _ => Ok(()),
        },
        // The resource's own column.
        Form::Patient => Ok(()),
    }
}

/// `participant.actor` is read by several parameters, each of which means some types only. What has no type in it (an
/// address elsewhere, an identifier) could be any.
fn fits(param: &Param, target: &str) -> bool {
    match target.split_once('/') {
        Some((kind, _)) if crate::fhir::types::is_kept(kind) => param.points_to(kind),
        _ => true,
    }
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
    let mut targets = PATHS.iter().flat_map(|path| at_path(body, path)).filter_map(target);
    targets.find_map(|target| target.strip_prefix("Patient/").map(str::to_owned))
}

/// The values at a path of element names, arrays passed through.
fn at_path<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
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
fn tokens(value: &Value, found: &mut dyn FnMut(&str, &str) -> Result<(), StoreError>) -> Result<(), StoreError> {
    match value {
        Value::String(code) => found("", code),
        Value::Bool(flag) => found("", if *flag { "true" } else { "false" }),
        Value::Object(object) => {
            let text = |name: &str| object.get(name).and_then(Value::as_str);
            if let Some(Value::Array(codings)) = object.get("coding") {
                return codings.iter().take(CODINGS_MAX).try_for_each(|coding| tokens(coding, found));
            }
            match text("code").or_else(|| text("value")) {
                Some(code) => found(text("system").unwrap_or_default(), code),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// The searchable texts of a string, HumanName or Address.
fn strings(value: &Value, found: &mut dyn FnMut(&str) -> Result<(), StoreError>) -> Result<(), StoreError> {
    const PARTS: [&str; 11] =
        ["text", "family", "given", "prefix", "suffix", "line", "city", "district", "state", "postalCode", "country"];
    match value {
        Value::String(text) => found(text),
        Value::Object(object) => PARTS.iter().filter_map(|part| object.get(*part)).try_for_each(|part| match part {
            Value::Array(items) => items.iter().filter_map(Value::as_str).try_for_each(&mut *found),
            Value::String(text) => found(text),
            _ => Ok(()),
        }),
        _ => Ok(()),
    }
}

fn quantity(value: &Value) -> Option<Row<'_>> {
    let text = |name: &str| cut(value.get(name).and_then(Value::as_str).unwrap_or_default());
    let number = value.get("value")?.as_f64().filter(|number| number.is_finite())?;
    Some(Row::Quantity { value: number, system: text("system"), code: text("code"), unit: text("unit") })
}

/// The interval of a date, dateTime, instant or Period.
fn interval(value: &Value) -> Option<Interval> {
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

/// What a Reference or a canonical points to, as written; a version that it names is no part of it.
pub fn target(value: &Value) -> Option<&str> {
    let reference = value.get("reference").unwrap_or(value).as_str()?;
    let reference = reference.split("/_history/").next().unwrap_or(reference);
    (!reference.starts_with('#') && reference.len() <= 2 * TEXT_BYTES_MAX).then_some(reference)
}

/// Whether the values of a parameter are numbers that people write with spaces and dashes as they like.
fn is_number_of_person(param: &Param) -> bool {
    (param.kind, param.name) == ("Patient", "identifier")
}

/// A number without its spaces and dashes, `123-45-6789` as `123456789`; empty where there is no digit in it.
pub fn plain_number(text: &str) -> String {
    let dash = |c: char| matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}');
    let plain: String = fold(text).chars().filter(|c| !c.is_whitespace() && !dash(*c)).collect();
    if plain.chars().any(|c| c.is_ascii_digit()) { plain } else { String::new() }
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
