//! Search: what was understood becomes fixed SQL with bound values; no text of a client reaches the database otherwise.

use super::index::ParamIds;
use super::order::{Cursor, Key};
use super::query::{Clause, Compare, Prefix, Quantity, Query, Test, Token};
use super::resource::{self, Resource};
use super::{StoreError, canonical};
use crate::consents::decisions::Withheld;
use crate::db::Connection;
use crate::db::Value as Sql;
use crate::fhir::date::Interval;
use crate::fhir::params::{Form, Param};

/// One page of a search.
#[derive(Debug, Clone)]
pub struct Page {
    pub resources: Vec<Resource>,
    pub next: Option<Cursor>,
    /// All matches, where the search asked for it (`_total=accurate`).
    pub total: Option<u64>,
    /// What `_include` and `_revinclude` added.
    pub included: Vec<Resource>,
    /// There was more to include than a page holds.
    pub cut: bool,
}

/// Conditions of one statement with their bound values.
struct Where<'i> {
    ids: &'i ParamIds,
    /// The one patient of the search: in the key of every index row.
    patient: Option<i64>,
    withheld: Option<&'i Withheld>,
    values: Vec<Sql>,
}

impl Where<'_> {
    /// Leaves out what belongs to patients who keep the actor out.
    fn permitted(&mut self, r: &str, kind: &str) -> String {
        let Some(withheld) = self.withheld else { return String::new() };
        let beside = self.ids.beside_id(kind);
        format!(" AND {}", withheld.of_resource(r, beside, &mut |value| self.bind(value)))
    }

    fn bind(&mut self, value: impl Into<Sql>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }
}

pub(super) fn run(connection: &Connection, ids: &ParamIds, query: &Query) -> Result<Page, StoreError> {
    let widened = canonical::widened(connection, ids, query)?;
    let query = widened.as_ref().unwrap_or(query);
    let mut page = Page { resources: Vec::new(), next: None, total: None, included: Vec::new(), cut: false };
    let patient = match &query.patient {
        None => None,
        Some(id) => match resource::patient_rid(connection, id)? {
            Some(rid) => Some(rid),
            None => return Ok(Page { total: query.total.then_some(0), ..page }),
        },
    };
    let mut out = Where { ids, patient, withheld: query.withheld.as_ref(), values: Vec::new() };
    let conditions = conditions(&mut out, query)?;
    if query.total {
        let sql = format!("SELECT count(*) FROM resource r WHERE {conditions}");
        let values = crate::db::params_from_iter(&out.values);
        let total: i64 = connection.prepare_cached(&sql)?.query_row(values, |row| row.get(0))?;
        page.total = Some(total.cast_unsigned());
    }
    if query.counts_alone() {
        return Ok(page);
    }
    let (sql, values) = statement(out, query, &conditions);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(crate::db::params_from_iter(values))?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        if query.count.is_some_and(|count| page.resources.len() >= count as usize) {
            page.next = last;
            break;
        }
        let rid: i64 = row.get(0)?;
        let keys = (1..=query.order.len()).map(|at| Key::read(row.get_ref(at)?)).collect::<Result<_, _>>()?;
        page.resources.push(resource::load_row(connection, &query.kind, rid)?);
        last = Some(Cursor::new(keys, rid));
    }
    Ok(page)
}

/// The statement that gives the page's rows with their sort keys; bodies are read afterwards, so that sorting moves none.
fn statement(mut out: Where<'_>, query: &Query, conditions: &str) -> (String, Vec<Sql>) {
    let (ids, patient) = (out.ids, out.patient);
    let (mut joins, mut selected, mut ordered) = (String::new(), String::new(), String::new());
    let mut keys = Vec::new();
    for (number, order) in query.order.iter().enumerate() {
        let (expression, join) = order.expression(number, ids, patient, &mut |value| out.bind(value));
        joins += &join;
        selected += &format!(", {expression}");
        ordered += &format!("{expression} {}, ", order.direction());
        keys.push((expression, order.beyond()));
    }
    let after = query.after.as_ref().map(|after| beyond(&mut out, &keys, after)).unwrap_or_default();
    let limit = query.count.map(|count| format!(" LIMIT {}", out.bind(i64::from(count) + 1))).unwrap_or_default();
    let sql = format!(
        "SELECT r.rid{selected} FROM resource r{joins} WHERE {conditions}{after} ORDER BY {ordered}r.rid{limit}"
    );
    (sql, out.values)
}

/// What comes after a cursor: a greater first key, or the same and a greater second, and so on; the row decides last.
fn beyond(out: &mut Where<'_>, keys: &[(String, &str)], after: &Cursor) -> String {
    let mut condition = format!("r.rid > {}", out.bind(after.rid()));
    for ((expression, beyond), key) in keys.iter().zip(after.keys()).rev() {
        let bound = out.bind(key.clone());
        condition = format!("({expression} {beyond} {bound} OR ({expression} = {bound} AND {condition}))");
    }
    format!(" AND {condition}")
}

fn conditions(out: &mut Where<'_>, query: &Query) -> Result<String, StoreError> {
    let type_id = out
        .ids
        .type_id(&query.kind)
        .ok_or_else(|| StoreError::invalid("this type is not kept here", query.kind.as_str()))?;
    let bound = out.bind(type_id);
    // A unary plus keeps SQLite from choosing the index over all of a type, or of a patient, where a narrower way exists.
    let narrow = query.clauses.iter().any(Clause::is_narrow);
    let plus = if narrow { "+" } else { "" };
    let mut sql = format!("r.deleted = 0 AND {}r.type = {bound}", if out.patient.is_some() { "" } else { plus });
    if let Some(rid) = out.patient {
        sql += &format!(" AND {plus}r.patient = {}", out.bind(rid));
    }
    sql += &out.permitted("r", &query.kind);
    for clause in &query.clauses {
        sql += &format!(" AND {}", condition(out, &query.kind, clause));
    }
    Ok(sql)
}

impl Clause {
    /// Whether the clause alone names few rows by an index.
    fn is_narrow(&self) -> bool {
        match self {
            Clause::Updated(_) | Clause::Patients(_) => false,
            Clause::Param(_, test) => !matches!(test, Test::Missing(_) | Test::NotToken(_)),
            Clause::Id(_) | Clause::Chain(..) => true,
        }
    }
}

fn condition(out: &mut Where<'_>, kind: &str, clause: &Clause) -> String {
    match clause {
        Clause::Id(all) => {
            let ids: Vec<_> = all.iter().map(|id| out.bind(id.clone())).collect();
            let type_id = out.bind(out.ids.type_id(kind).unwrap_or(-1));
            format!("r.rid IN (SELECT rid FROM resource WHERE type = {type_id} AND id IN ({}))", ids.join(", "))
        }
        Clause::Updated(all) => {
            any(all, |(prefix, interval)| compared(out, *prefix, *interval, "r.updated_ms", "(r.updated_ms + 1)"))
        }
        Clause::Patients(all) => {
            let ids: Vec<_> = all.iter().map(|id| out.bind(id.clone())).collect();
            let type_id = out.bind(out.ids.type_id("Patient").unwrap_or(-1));
            let ids = ids.join(", ");
            format!("r.patient IN (SELECT rid FROM resource WHERE type = {type_id} AND deleted = 0 AND id IN ({ids}))")
        }
        Clause::Param(param, test) => tested(out, param, test),
        Clause::Chain(param, targets) => any(targets, |(target, inner)| chained(out, param, target, inner)),
    }
}

/// Alternatives joined by "or".
fn any<T>(all: &[T], one: impl FnMut(&T) -> String) -> String {
    format!("({})", all.iter().map(one).collect::<Vec<_>>().join(" OR "))
}

fn tested(out: &mut Where<'_>, param: &'static Param, test: &Test) -> String {
    match test {
        Test::Missing(missing) => {
            let not = if *missing { "NOT " } else { "" };
            match param.form {
                Form::Patient => format!("{not}r.patient <> 0"),
                Form::Subject => {
                    let rows = rows(out, param, "ix_ref", "");
                    format!("{not}(r.patient <> 0 OR r.rid IN ({rows}))")
                }
                form => format!("r.rid {not}IN ({})", rows(out, param, table(form), "")),
            }
        }
        Test::Token(all) => any(all, |token| {
            let inner = token_condition(out, token);
            format!("r.rid IN ({})", rows(out, param, "ix_token", &inner))
        }),
        // None of them: a resource without any is among the results.
        Test::NotToken(all) => {
            let inner = any(all, |token| format!("true{}", token_condition(out, token)));
            format!("r.rid NOT IN ({})", rows(out, param, "ix_token", &format!(" AND {inner}")))
        }
        Test::Text(compare, all) => any(all, |text| {
            let inner = text_condition(out, *compare, text);
            format!("r.rid IN ({})", rows(out, param, "ix_string", &inner))
        }),
        Test::Number(plain) => {
            let inner = text_condition(out, Compare::Exact, plain);
            format!("r.rid IN ({})", rows(out, param, "ix_string", &inner))
        }
        Test::Date(all) => any(all, |(prefix, interval)| {
            let inner = format!(" AND {}", compared(out, *prefix, *interval, "lo", "hi"));
            format!("r.rid IN ({})", rows(out, param, "ix_date", &inner))
        }),
        Test::Quantity(all) => any(all, |quantity| {
            let inner = quantity_condition(out, quantity);
            format!("r.rid IN ({})", rows(out, param, "ix_quantity", &inner))
        }),
        Test::Reference(all) => {
            let targets: Vec<_> = all.iter().map(|target| out.bind(target.clone())).collect();
            let inner = format!(" AND target IN ({})", targets.join(", "));
            format!("r.rid IN ({})", rows(out, param, "ix_ref", &inner))
        }
    }
}

fn table(form: Form) -> &'static str {
    match form {
        Form::Token | Form::Uri => "ix_token",
        Form::String => "ix_string",
        Form::Date => "ix_date",
        Form::Quantity => "ix_quantity",
        Form::Reference | Form::Patient | Form::Subject => "ix_ref",
    }
}

/// The rows of an index table that a parameter has, for the search's patient where there is one.
fn rows(out: &mut Where<'_>, param: &Param, table: &str, inner: &str) -> String {
    let id = out.bind(out.ids.param_id(param.kind, param.name).unwrap_or(-1));
    let of_patient = match out.patient {
        Some(rid) => format!(" AND patient = {}", out.bind(rid)),
        None => String::new(),
    };
    format!("SELECT rid FROM {table} WHERE param = {id}{of_patient}{inner}")
}

fn token_condition(out: &mut Where<'_>, token: &Token) -> String {
    let mut inner = String::new();
    if let Some(code) = &token.code {
        inner += &format!(" AND code = {}", out.bind(code.clone()));
    }
    if let Some(system) = &token.system {
        inner += &format!(" AND system = {}", out.bind(system.clone()));
    }
    inner
}

fn text_condition(out: &mut Where<'_>, compare: Compare, text: &str) -> String {
    match compare {
        Compare::Exact => {
            let folded = out.bind(super::index::fold(text));
            let exact = out.bind(text.to_owned());
            format!(" AND value = {folded} AND (exact = {exact} OR (exact = '' AND value = {exact}))")
        }
        Compare::Contains => format!(" AND instr(value, {}) > 0", out.bind(text.to_owned())),
        Compare::Prefix => {
            let (low, high) = (out.bind(text.to_owned()), out.bind(format!("{text}\u{10ffff}")));
            format!(" AND value >= {low} AND value < {high}")
        }
    }
}

fn quantity_condition(out: &mut Where<'_>, quantity: &Quantity) -> String {
    let (lo, hi) = (out.bind(quantity.lo), out.bind(quantity.hi));
    // What was written is the middle of its interval.
    let value = out.bind((quantity.lo + quantity.hi) / 2.0);
    let mut inner = match quantity.prefix {
        Prefix::Eq => format!(" AND value >= {lo} AND value < {hi}"),
        Prefix::Ap => format!(" AND value >= {lo} AND value <= {hi}"),
        Prefix::Ne => format!(" AND (value < {lo} OR value >= {hi})"),
        Prefix::Lt | Prefix::Eb => format!(" AND value < {value}"),
        Prefix::Gt | Prefix::Sa => format!(" AND value > {value}"),
        Prefix::Le => format!(" AND value <= {value}"),
        Prefix::Ge => format!(" AND value >= {value}"),
    };
    if !quantity.system.is_empty() {
        inner += &format!(" AND system = {}", out.bind(quantity.system.clone()));
    }
    if !quantity.code.is_empty() {
        let code = out.bind(quantity.code.clone());
        // `5.4||mg`: any system, so the unit as people write it counts as well.
        inner += &match quantity.system.is_empty() {
            true => format!(" AND (code = {code} OR unit = {code})"),
            false => format!(" AND code = {code}"),
        };
    }
    inner
}

/// Resources whose reference points to a `target` that meets `inner`.
fn chained(out: &mut Where<'_>, param: &'static Param, target: &'static str, inner: &Clause) -> String {
    // The condition is one on another resource: the search's own patient is not in the key of its rows.
    let patient = out.patient.take();
    let condition = condition(out, target, inner).replace("r.", "c.");
    out.patient = patient;
    let type_id = out.bind(out.ids.type_id(target).unwrap_or(-1));
    // Whether it meets the condition tells of a record as well.
    let permitted = out.permitted("c", target);
    let found = format!("FROM resource c WHERE c.type = {type_id} AND c.deleted = 0{permitted} AND {condition}");
    if target == "Patient" && param.form != Form::Reference {
        return format!("r.patient IN (SELECT c.rid {found})");
    }
    let kind = out.bind(format!("{target}/"));
    let mut inner = format!(" AND target IN (SELECT {kind} || c.id {found})");
    if let Some(url) = canonical::url_of(target).filter(|_| canonical::names_canonicals(param)) {
        let url = out.bind(out.ids.param_id(url.kind, url.name).unwrap_or(-1));
        let named = format!("SELECT code FROM ix_token WHERE param = {url} AND rid IN (SELECT c.rid {found})");
        inner = format!(" AND (target IN (SELECT {kind} || c.id {found}) OR target IN ({named}))");
    }
    format!("r.rid IN ({})", rows(out, param, "ix_ref", &inner))
}

/// The comparison of FHIR between a resource's interval `[lo, hi)` and the search's.
fn compared(out: &mut Where<'_>, prefix: Prefix, interval: Interval, lo: &str, hi: &str) -> String {
    let (from, until) = (out.bind(interval.lo), out.bind(interval.hi));
    let within = format!("({lo} >= {from} AND {hi} <= {until})");
    match prefix {
        Prefix::Eq => within,
        Prefix::Ne => format!("NOT {within}"),
        Prefix::Lt => format!("{lo} < {from}"),
        Prefix::Gt => format!("{hi} > {until}"),
        Prefix::Le => format!("({lo} < {from} OR {within})"),
        Prefix::Ge => format!("({hi} > {until} OR {within})"),
        Prefix::Sa => format!("{lo} >= {until}"),
        Prefix::Eb => format!("{hi} <= {from}"),
        Prefix::Ap => format!("({lo} < {until} AND {hi} > {from})"),
    }
}
