//! Search: parameters are parsed against the table, then only fixed SQL with bound values reaches the database.

use super::StoreError;
use super::index::{self, ParamIds};
use super::resource::{self, Resource};
use crate::fhir::date::{self, Interval};
use crate::fhir::params::Form;
use crate::fhir::types;
use rusqlite::Connection;
use rusqlite::types::Value as Sql;

/// Resources on a page unless `_count` says otherwise.
pub const COUNT_DEFAULT: u32 = 50;
/// Resources on a page at most.
pub const COUNT_MAX: u32 = 500;
/// Parameters, and alternatives of one parameter, in one search.
const TERMS_MAX: usize = 32;

/// Where a page begins: after this row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor(i64);

impl Cursor {
    pub fn parse(text: &str) -> Option<Cursor> {
        text.parse().ok().filter(|rid| *rid >= 0).map(Cursor)
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A search that was understood.
#[derive(Debug, Clone)]
pub struct Query {
    kind: String,
    patient: Option<String>,
    clauses: Vec<Clause>,
    count: u32,
    after: Cursor,
    total: bool,
}

/// One page of a search, in the order in which the resources were created.
#[derive(Debug, Clone)]
pub struct Page {
    pub resources: Vec<Resource>,
    pub next: Option<Cursor>,
    /// All matches, where the search asked for it (`_total=accurate`).
    pub total: Option<u64>,
}

#[derive(Debug, Clone)]
enum Clause {
    Id(Vec<String>),
    Updated(Prefix, Interval),
    /// `(system, code)`; a missing side matches anything.
    Token(&'static str, Vec<(Option<String>, Option<String>)>),
    Text(&'static str, Compare, Vec<String>),
    Date(&'static str, Vec<(Prefix, Interval)>),
    Reference(&'static str, Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Prefix,
    Contains,
    Exact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Eq,
    Ne,
    Lt,
    Gt,
    Le,
    Ge,
}

impl Query {
    /// Everything of one type.
    pub fn all(kind: &str) -> Result<Query, StoreError> {
        if !types::is_kept(kind) {
            return Err(StoreError::invalid("this type is not kept here", kind));
        }
        let (kind, count) = (kind.to_owned(), COUNT_DEFAULT);
        Ok(Query { kind, patient: None, clauses: Vec::new(), count, after: Cursor::default(), total: false })
    }

    /// Understands decoded name/value pairs of a query string.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] names the parameter that is unknown or malformed: an ignored one would widen the result.
    pub fn parse(kind: &str, pairs: &[(String, String)]) -> Result<Query, StoreError> {
        let mut query = Query::all(kind)?;
        if pairs.len() > TERMS_MAX {
            return Err(StoreError::invalid("too many search parameters", kind));
        }
        for (name, value) in pairs {
            query.add(name, value)?;
        }
        Ok(query)
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The patient to whom the search is restricted.
    pub fn patient(&self) -> Option<&str> {
        self.patient.as_deref()
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// The same search from another place.
    pub fn after(self, after: Cursor) -> Query {
        Query { after, ..self }
    }

    /// Restricts to resources in a patient's compartment.
    pub fn of_patient(self, patient_id: &str) -> Query {
        Query { patient: Some(patient_id.to_owned()), ..self }
    }

    /// `count` resources a page, at most [`COUNT_MAX`].
    pub fn limit(self, count: u32) -> Query {
        Query { count: count.min(COUNT_MAX), ..self }
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        let (base, modifier) = name.split_once(':').unwrap_or((name, ""));
        let wrong = |sentence| StoreError::invalid(sentence, index::cut(base));
        match base {
            "_count" => {
                let count: u32 = value.parse().map_err(|_| wrong("must be a whole number"))?;
                self.count = count.min(COUNT_MAX);
            }
            "_cursor" => self.after = Cursor::parse(value).ok_or_else(|| wrong("is not a cursor of this server"))?,
            "_total" => self.total = value == "accurate",
            "_format" if value.contains("json") => {}
            "_id" => self.clauses.push(Clause::Id(alternatives(value).map_err(wrong)?)),
            "_lastUpdated" => {
                let (prefix, interval) = dated(value).ok_or_else(|| wrong("must be a date"))?;
                self.clauses.push(Clause::Updated(prefix, interval));
            }
            "patient" | "subject" if self.kind != "Patient" => {
                let id = value.strip_prefix("Patient/").unwrap_or(value);
                if self.patient.as_deref().is_some_and(|other| other != id) {
                    return Err(wrong("a search can be restricted to one patient only"));
                }
                self.patient = Some(id.to_owned());
            }
            _ => {
                let clause = clause(&self.kind, base, modifier, value).map_err(wrong)?;
                self.clauses.push(clause);
                return Ok(());
            }
        }
        if modifier.is_empty() { Ok(()) } else { Err(wrong("this modifier is not supported")) }
    }
}

fn clause(kind: &str, name: &str, modifier: &str, value: &str) -> Result<Clause, &'static str> {
    let param = index::find(kind, name)
        .ok_or("this search parameter is not supported for this type; the capability statement lists those that are")?;
    let values = alternatives(value)?;
    Ok(match (param.form, modifier) {
        (Form::Token, "") => Clause::Token(param.name, values.iter().map(|value| token(value)).collect()),
        (Form::String, "" | "contains" | "exact") => {
            let compare = match modifier {
                "contains" => Compare::Contains,
                "exact" => Compare::Exact,
                _ => Compare::Prefix,
            };
            Clause::Text(param.name, compare, values.iter().map(|value| index::fold(value)).collect())
        }
        (Form::Date, "") => {
            let dates = values.iter().map(|value| dated(value)).collect::<Option<_>>();
            Clause::Date(param.name, dates.ok_or("must be a date, with eq, ne, lt, gt, le or ge before it if need be")?)
        }
        (Form::Reference, "") => {
            let targets = values.iter().map(|value| referred(param.name, value)).collect::<Option<_>>();
            Clause::Reference(param.name, targets.ok_or("must be written as Type/id")?)
        }
        _ => return Err("this modifier is not supported"),
    })
}

/// The alternatives of a value, divided by commas; `\,` is a comma.
fn alternatives(value: &str) -> Result<Vec<String>, &'static str> {
    let mut all = vec![String::new()];
    let mut escaped = false;
    for c in value.chars() {
        match (c, escaped) {
            ('\\', false) => escaped = true,
            (',', false) => all.push(String::new()),
            (c, _) => {
                escaped = false;
                if let Some(last) = all.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    if all.len() > TERMS_MAX {
        return Err("has too many alternatives");
    }
    if all.iter().any(String::is_empty) {
        return Err("has an empty value");
    }
    Ok(all)
}

fn token(value: &str) -> (Option<String>, Option<String>) {
    let side = |text: &str| (!text.is_empty()).then(|| index::cut(text).to_owned());
    match value.split_once('|') {
        // `|code` asks for a code without a system.
        Some(("", code)) => (Some(String::new()), side(code)),
        Some((system, code)) => (side(system), side(code)),
        None => (None, side(value)),
    }
}

fn dated(value: &str) -> Option<(Prefix, Interval)> {
    let (prefix, rest) = match value.get(..2) {
        Some("eq") => (Prefix::Eq, value.get(2..)?),
        Some("ne") => (Prefix::Ne, value.get(2..)?),
        Some("lt" | "eb") => (Prefix::Lt, value.get(2..)?),
        Some("gt" | "sa") => (Prefix::Gt, value.get(2..)?),
        Some("le") => (Prefix::Le, value.get(2..)?),
        Some("ge") => (Prefix::Ge, value.get(2..)?),
        _ => (Prefix::Eq, value),
    };
    // In a query string an unescaped `+` of a zone arrives as a space.
    Some((prefix, date::parse(&rest.replace(' ', "+"))?))
}

fn referred(name: &str, value: &str) -> Option<String> {
    let kind = match name {
        "encounter" => "Encounter",
        "practitioner" | "requester" => "Practitioner",
        "organization" => "Organization",
        "appointment" => "Appointment",
        "schedule" => "Schedule",
        "claim" | "request" => "Claim",
        _ => "",
    };
    match (value.contains('/'), kind) {
        (true, _) => Some(value.to_owned()),
        (false, "") => None,
        (false, kind) => Some(format!("{kind}/{value}")),
    }
}

/// Conditions of one statement with their bound values.
struct Where {
    sql: String,
    values: Vec<Sql>,
}

impl Where {
    fn bind(&mut self, value: impl Into<Sql>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }

    fn and(&mut self, condition: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
    }
}

pub(super) fn run(connection: &Connection, ids: &ParamIds, query: &Query) -> Result<Page, StoreError> {
    let patient = match &query.patient {
        None => None,
        Some(id) => match resource::patient_rid(connection, id)? {
            Some(rid) => Some(rid),
            None => return Ok(Page { resources: Vec::new(), next: None, total: query.total.then_some(0) }),
        },
    };
    let conditions = conditions(ids, query, patient)?;
    let total = if query.total { Some(total(connection, &conditions)?) } else { None };
    let Where { sql, mut values } = conditions;
    values.push(query.after.0.into());
    let after = values.len();
    values.push((i64::from(query.count) + 1).into());
    let sql = format!(
        "SELECT {} FROM {} WHERE {sql} AND r.rid > ?{after} ORDER BY r.rid LIMIT ?{}",
        resource::COLUMNS,
        resource::TABLES,
        values.len()
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), resource::from_row)?;
    let mut resources = rows.collect::<Result<Vec<_>, _>>()?;
    let more = resources.len() > query.count as usize;
    resources.truncate(query.count as usize);
    let next = resources.last().filter(|_| more).map(|last| Cursor(last.rid));
    Ok(Page { resources, next, total })
}

fn total(connection: &Connection, conditions: &Where) -> Result<u64, StoreError> {
    let sql = format!("SELECT count(*) FROM {} WHERE {}", resource::TABLES, conditions.sql);
    let values = rusqlite::params_from_iter(&conditions.values);
    let total: i64 = connection.prepare_cached(&sql)?.query_row(values, |row| row.get(0))?;
    Ok(total.cast_unsigned())
}

fn conditions(ids: &ParamIds, query: &Query, patient: Option<i64>) -> Result<Where, StoreError> {
    let type_id = ids
        .type_id(&query.kind)
        .ok_or_else(|| StoreError::invalid("this type is not kept here", query.kind.as_str()))?;
    let mut out = Where { sql: "r.deleted = 0".into(), values: Vec::new() };
    let bound = out.bind(type_id);
    // A unary plus keeps SQLite from choosing the index over all of a type where a narrower way exists.
    let narrow = patient.is_some() || query.clauses.iter().any(|clause| !matches!(clause, Clause::Updated(..)));
    out.and(&format!("{}r.type = {bound}", if narrow && patient.is_none() { "+" } else { "" }));
    if let Some(rid) = patient {
        let bound = out.bind(rid);
        out.and(&format!("r.patient = {bound}"));
    }
    for clause in &query.clauses {
        add_clause(&mut out, ids, &query.kind, clause, patient);
    }
    Ok(out)
}

fn add_clause(out: &mut Where, ids: &ParamIds, kind: &str, clause: &Clause, patient: Option<i64>) {
    let param = |name: &str| ids.param_id(kind, name).unwrap_or(-1);
    let of_patient = |out: &mut Where| match patient {
        Some(rid) => {
            let bound = out.bind(rid);
            format!(" AND patient = {bound}")
        }
        None => String::new(),
    };
    let mut any = Vec::new();
    match clause {
        Clause::Id(all) => {
            any.extend(all.iter().map(|id| format!("r.id = {}", out.bind(id.clone()))));
        }
        Clause::Updated(prefix, interval) => {
            any.push(compared(out, *prefix, *interval, "r.updated_ms", "r.updated_ms + 1"));
        }
        Clause::Token(name, all) => {
            for (system, code) in all {
                let mut inner = format!("param = {}", out.bind(param(name)));
                if let Some(code) = code {
                    inner += &format!(" AND code = {}", out.bind(code.clone()));
                }
                inner += &of_patient(out);
                if let Some(system) = system {
                    inner += &format!(" AND system = {}", out.bind(system.clone()));
                }
                any.push(format!("r.rid IN (SELECT rid FROM ix_token WHERE {inner})"));
            }
        }
        Clause::Text(name, compare, all) => {
            for text in all {
                let mut inner = format!("param = {}", out.bind(param(name)));
                inner += &match compare {
                    Compare::Exact => format!(" AND value = {}", out.bind(text.clone())),
                    Compare::Contains => format!(" AND instr(value, {}) > 0", out.bind(text.clone())),
                    Compare::Prefix => {
                        let (low, high) = (out.bind(text.clone()), out.bind(format!("{text}\u{10ffff}")));
                        format!(" AND value >= {low} AND value < {high}")
                    }
                };
                inner += &of_patient(out);
                any.push(format!("r.rid IN (SELECT rid FROM ix_string WHERE {inner})"));
            }
        }
        Clause::Date(name, all) => {
            for (prefix, interval) in all {
                let mut inner = format!("param = {}", out.bind(param(name)));
                inner += &of_patient(out);
                inner += &format!(" AND {}", compared(out, *prefix, *interval, "lo", "hi"));
                any.push(format!("r.rid IN (SELECT rid FROM ix_date WHERE {inner})"));
            }
        }
        Clause::Reference(name, all) => {
            for target in all {
                let (param, target) = (out.bind(param(name)), out.bind(target.clone()));
                any.push(format!("r.rid IN (SELECT rid FROM ix_ref WHERE param = {param} AND target = {target})"));
            }
        }
    }
    out.and(&format!("({})", any.join(" OR ")));
}

/// The comparison of FHIR between a resource's interval `[lo, hi)` and the search's.
fn compared(out: &mut Where, prefix: Prefix, interval: Interval, lo: &str, hi: &str) -> String {
    let (from, until) = (out.bind(interval.lo), out.bind(interval.hi));
    match prefix {
        Prefix::Eq => format!("({lo} >= {from} AND {hi} <= {until})"),
        Prefix::Ne => format!("({lo} < {from} OR {hi} > {until})"),
        Prefix::Lt => format!("({lo} < {from} AND {until} > 0 + {from})"),
        Prefix::Gt => format!("({hi} > {until} AND {from} < 0 + {until})"),
        Prefix::Le => format!("({lo} < {until} AND {from} < 0 + {until})"),
        Prefix::Ge => format!("({hi} > {from} AND {until} > 0 + {from})"),
    }
}
