//! What a search asks for: names and values are understood against the table of parameters, or refused by name.

use super::StoreError;
use super::index;
use super::order::{Cursor, Order};
use crate::consents::decisions::Withheld;
use crate::fhir::date::{self, Interval};
use crate::fhir::params::{self, Form, Param};
use crate::fhir::types;

/// Resources on a page unless `_count` says otherwise.
pub const COUNT_DEFAULT: u32 = 50;
/// Resources on a page at most.
pub const COUNT_MAX: u32 = 500;
/// Parameters, and alternatives of one parameter, in one search.
const TERMS_MAX: usize = 32;
/// A search by many ids is how a client reads a list in one request.
const IDS_MAX: usize = COUNT_MAX as usize;
const DAY_MS: i64 = 86_400_000;

const UNKNOWN: &str =
    "this search parameter is not supported for this type; the capability statement lists those that are";
const NO_MODIFIER: &str = "this modifier is not supported";

/// A search that was understood.
#[derive(Debug, Clone)]
pub struct Query {
    pub(super) kind: String,
    pub(super) patient: Option<String>,
    pub(super) clauses: Vec<Clause>,
    pub(super) order: Vec<Order>,
    /// Resources on a page; `None` for all that match.
    pub(super) count: Option<u32>,
    pub(super) after: Option<Cursor>,
    pub(super) total: bool,
    pub(super) includes: Vec<Include>,
    /// Whose records are left out: those of patients who keep the actor out.
    pub(super) withheld: Option<Withheld>,
}

/// `_include` and `_revinclude`.
#[derive(Debug, Clone)]
pub struct Include {
    /// The reference that is followed.
    pub(super) param: &'static Param,
    /// Only targets of this type.
    pub(super) target: Option<String>,
    /// From the found resource to what it refers to, or from what refers to it.
    pub(super) forward: bool,
}

/// One condition. Its alternatives are joined by "or", clauses by "and".
#[derive(Debug, Clone)]
pub(super) enum Clause {
    Id(Vec<String>),
    Updated(Vec<(Prefix, Interval)>),
    /// In the compartment of one of these patients.
    Patients(Vec<String>),
    Param(&'static Param, Test),
    /// What the reference points to meets a condition, which depends on the type that it points to.
    Chain(&'static Param, Vec<(&'static str, Clause)>),
}

#[derive(Debug, Clone)]
pub(super) enum Test {
    Missing(bool),
    Token(Vec<Token>),
    NotToken(Vec<Token>),
    Text(Compare, Vec<String>),
    Date(Vec<(Prefix, Interval)>),
    Quantity(Vec<Quantity>),
    Reference(Vec<String>),
    /// An identifier without its punctuation.
    Number(String),
}

/// A missing side matches anything; an empty system asks for codes without one.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub system: Option<String>,
    pub code: Option<String>,
}

/// The search's value as the interval of what rounds to it, in units where it names one.
#[derive(Debug, Clone)]
pub(super) struct Quantity {
    pub prefix: Prefix,
    pub lo: f64,
    pub hi: f64,
    pub system: String,
    pub code: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Prefix,
    Contains,
    Exact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    Eq,
    Ne,
    Lt,
    Gt,
    Le,
    Ge,
    Sa,
    Eb,
    Ap,
}

impl Query {
    /// Everything of one type. A search gives all that match, unless [`Query::first`] says how many, and in which order: a limit alone
    /// would leave out what was stored last, which is what people look for.
    pub fn all(kind: &str) -> Result<Query, StoreError> {
        if !types::is_kept(kind) {
            return Err(StoreError::invalid("this type is not kept here", index::cut(kind)));
        }
        Ok(Query {
            kind: kind.to_owned(),
            patient: None,
            clauses: Vec::new(),
            order: Vec::new(),
            count: None,
            after: None,
            total: false,
            includes: Vec::new(),
            withheld: None,
        })
    }

    /// Understands decoded name/value pairs of a query string.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] names the parameter that is unknown or malformed: an ignored one would widen the result.
    pub fn parse(kind: &str, pairs: &[(String, String)]) -> Result<Query, StoreError> {
        let (query, ignored) = Query::parse_lenient(kind, pairs)?;
        match ignored.first() {
            Some(name) => Err(StoreError::invalid(UNKNOWN, name.as_str())),
            None => Ok(query),
        }
    }

    /// [`Query::parse`] that leaves out parameters that are not known for this type, and gives their names. A known one with
    /// a value or modifier that is not understood is refused all the same.
    pub fn parse_lenient(kind: &str, pairs: &[(String, String)]) -> Result<(Query, Vec<String>), StoreError> {
        let mut query = Query::all(kind)?;
        if pairs.len() > TERMS_MAX {
            return Err(StoreError::invalid("too many search parameters", kind));
        }
        let mut ignored = Vec::new();
        for (name, value) in pairs {
            let base = name.split([':', '.']).next().unwrap_or(name);
            match query.add(name, value) {
                Ok(true) => {}
                Ok(false) => ignored.push(index::cut(base).to_owned()),
                Err(sentence) => return Err(StoreError::invalid(sentence, index::cut(base))),
            }
        }
        if query.after.as_ref().is_some_and(|after| !after.fits(&query.order)) {
            return Err(StoreError::invalid("is not a cursor of this search", "_cursor"));
        }
        Ok((query, ignored))
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The patient to whom the search is restricted.
    pub fn patient(&self) -> Option<&str> {
        self.patient.as_deref()
    }

    /// Whether the number of matches alone is asked for.
    pub fn counts_alone(&self) -> bool {
        self.count == Some(0)
    }

    /// Types other than its own that the search looks into: the targets of chains.
    pub fn chained_kinds(&self) -> impl Iterator<Item = &'static str> {
        self.clauses.iter().flat_map(|clause| match clause {
            Clause::Chain(_, targets) => targets.iter().map(|(kind, _)| *kind).collect(),
            _ => Vec::new(),
        })
    }

    /// The same search from another place.
    pub fn after(self, after: Cursor) -> Query {
        Query { after: Some(after), ..self }
    }

    /// Restricts to resources in a patient's compartment, beside whatever patient the search names.
    pub fn of_patient(mut self, patient_id: &str) -> Query {
        match &self.patient {
            Some(named) if named == patient_id => {}
            Some(_) => self.clauses.push(Clause::Patients(vec![patient_id.to_owned()])),
            None => self.patient = Some(patient_id.to_owned()),
        }
        self
    }

    /// Only patients who have this number, however it is punctuated; a text without a digit is none.
    pub fn with_number(mut self, number: &str) -> Query {
        let plain = index::plain_number(number);
        match params::find(&self.kind, "identifier").filter(|_| !plain.is_empty()) {
            Some(param) => self.clauses.push(Clause::Param(param, Test::Number(plain))),
            None => self.clauses.push(Clause::Id(vec![String::new()])),
        }
        self
    }

    /// Leaves out what patients withhold.
    pub(super) fn without(self, withheld: Option<Withheld>) -> Query {
        Query { withheld, ..self }
    }

    /// The first `count`, at most [`COUNT_MAX`], in the order of these keys of `_sort`, e.g. `-date`.
    pub fn first(self, count: u32, order: &str) -> Result<Query, StoreError> {
        let sentence = |sentence| StoreError::invalid(sentence, index::cut(order));
        let order =
            order.split(',').map(|key| Order::parse(&self.kind, key)).collect::<Result<_, _>>().map_err(sentence)?;
        Ok(Query { count: Some(count.min(COUNT_MAX)), order, ..self })
    }

    /// So many at a time, at most [`COUNT_MAX`], in the order that the query names or else that of storing: for who goes on to the
    /// last with [`Query::after`].
    pub(super) fn in_pages(self, count: u32) -> Query {
        Query { count: Some(count.min(COUNT_MAX)), ..self }
    }

    /// What a client of the API asked for, who goes on by the links of the pages: as many as it said, or [`COUNT_DEFAULT`].
    pub fn of_client(self) -> Query {
        let count = self.count.unwrap_or(COUNT_DEFAULT);
        self.in_pages(count)
    }

    /// Asks for the number of all matches, and for nothing else.
    pub fn counted(self) -> Query {
        Query { total: true, count: Some(0), ..self }
    }

    /// `false`: there is no such parameter.
    fn add(&mut self, name: &str, value: &str) -> Result<bool, &'static str> {
        match name {
            "_count" => {
                let count: u32 = value.parse().map_err(|_| "must be a whole number")?;
                self.count = Some(count.min(COUNT_MAX));
            }
            "_cursor" => self.after = Some(Cursor::parse(value).ok_or("is not a cursor of this server")?),
            "_total" => {
                self.total = match value {
                    "accurate" => true,
                    // An estimate would cost as much as the number itself.
                    "estimate" => true,
                    "none" => false,
                    _ => return Err("must be none, estimate or accurate"),
                };
            }
            "_sort" => {
                self.order = value.split(',').map(|key| Order::parse(&self.kind, key)).collect::<Result<_, _>>()?;
                if self.order.len() > 4 {
                    return Err("sorts by at most four parameters");
                }
            }
            "_include" | "_revinclude" => {
                if self.includes.len() >= TERMS_MAX {
                    return Err("there are too many of these");
                }
                let found = Include::parse(&self.kind, value, name == "_include")?;
                self.includes.extend(found);
            }
            "_include:iterate" | "_revinclude:iterate" => return Err("includes are followed by one step only"),
            _ => return self.add_condition(name, value),
        }
        Ok(true)
    }

    fn add_condition(&mut self, name: &str, value: &str) -> Result<bool, &'static str> {
        if let Some((base, rest)) = name.split_once('.') {
            let Some(clause) = chain(&self.kind, base, rest, value)? else { return Ok(false) };
            self.clauses.push(clause);
            return Ok(true);
        }
        let Some(clause) = clause(&self.kind, name, value)? else { return Ok(false) };
        match clause {
            Clause::Patients(mut ids) if ids.len() == 1 && self.patient.is_none() => self.patient = ids.pop(),
            clause => self.clauses.push(clause),
        }
        Ok(true)
    }
}

impl Include {
    /// `Type:param`, `Type:param:Target`, `Type:*`, `*`.
    fn parse(kind: &str, value: &str, forward: bool) -> Result<Vec<Include>, &'static str> {
        const SHAPE: &str = "must be Type:parameter or Type:parameter:TargetType";
        let mut parts = value.splitn(3, ':');
        let (source, name, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("*"), parts.next());
        let source = if source == "*" && forward { kind } else { source };
        if !types::is_kept(source) || target.is_some_and(|target| !types::is_kept(target)) {
            return Err(SHAPE);
        }
        if forward && source != kind {
            return Err("the type in _include must be the type that is searched");
        }
        let wanted = |param: &&Param| {
            param.form.refers() && (name == "*" || param.name == name) && (forward || param.points_to(kind))
        };
        let found: Vec<_> = params::of(source)
            .iter()
            .filter(wanted)
            .map(|param| Include { param, target: target.map(str::to_owned), forward })
            .collect();
        if found.is_empty() { Err("there is no such reference to follow") } else { Ok(found) }
    }
}

/// The condition of one parameter; `None` when the type has no such parameter.
fn clause(kind: &str, name: &str, value: &str) -> Result<Option<Clause>, &'static str> {
    let (base, modifier) = name.split_once(':').unwrap_or((name, ""));
    let plain = |clause| if modifier.is_empty() { Ok(Some(clause)) } else { Err(NO_MODIFIER) };
    match base {
        "_id" => return plain(Clause::Id(alternatives(value, IDS_MAX)?.iter().map(|id| unescaped(id)).collect())),
        "_lastUpdated" => return plain(Clause::Updated(dates(value)?)),
        _ => {}
    }
    let Some(param) = params::find(kind, base) else { return Ok(None) };
    if modifier == "missing" {
        let missing = value.parse().map_err(|_| "must be true or false")?;
        return Ok(Some(Clause::Param(param, Test::Missing(missing))));
    }
    let test = match (param.form, modifier) {
        (Form::Token, "" | "not") => {
            let tokens = alternatives(value, TERMS_MAX)?.iter().map(|value| token(param, value)).collect();
            if modifier.is_empty() { Test::Token(tokens) } else { Test::NotToken(tokens) }
        }
        (Form::Uri, "") => {
            let uris = alternatives(value, TERMS_MAX)?;
            Test::Token(uris.iter().map(|uri| Token { system: None, code: Some(shortened(uri)) }).collect())
        }
        (Form::String, "" | "contains" | "exact") => {
            let (compare, folds) = match modifier {
                "contains" => (Compare::Contains, true),
                "exact" => (Compare::Exact, false),
                _ => (Compare::Prefix, true),
            };
            let texts = alternatives(value, TERMS_MAX)?;
            let written = |text: &String| if folds { index::fold(&unescaped(text)) } else { shortened(text) };
            Test::Text(compare, texts.iter().map(written).collect())
        }
        (Form::Date, "") => Test::Date(dates(value)?),
        (Form::Quantity, "") => {
            let all = alternatives(value, TERMS_MAX)?;
            let all = all.iter().map(|value| quantity(value)).collect::<Option<_>>();
            Test::Quantity(all.ok_or("must be a number, with a prefix before it and |system|code after it if need be")?)
        }
        (Form::Reference | Form::Patient | Form::Subject, only) => return reference(param, only, value).map(Some),
        _ => return Err(NO_MODIFIER),
    };
    Ok(Some(Clause::Param(param, test)))
}

/// `only` is the modifier: the type that a bare id means.
fn reference(param: &'static Param, only: &str, value: &str) -> Result<Clause, &'static str> {
    let known = types::is_kept(only) && param.points_to(only);
    if !only.is_empty() && !known {
        return Err(NO_MODIFIER);
    }
    let (mut patients, mut targets) = (Vec::new(), Vec::new());
    for text in alternatives(value, TERMS_MAX)? {
        let text = unescaped(&text);
        let full = text.contains('/') || text.contains(':');
        let written: Vec<String> = match (full, only) {
            (true, _) => vec![text],
            (false, "") if param.form == Form::Patient => vec![format!("Patient/{text}")],
            (false, "") if param.targets == ["*"] => match param.form {
                Form::Subject => vec![format!("Patient/{text}")],
                _ => return Err("must be written as Type/id"),
            },
            (false, "") => param.targets.iter().map(|target| format!("{target}/{text}")).collect(),
            (false, only) => vec![format!("{only}/{text}")],
        };
        for target in written {
            match target.strip_prefix("Patient/").filter(|_| param.form != Form::Reference) {
                Some(patient) => patients.push(patient.to_owned()),
                None => targets.push(target),
            }
        }
    }
    Ok(match (param.form, patients.is_empty(), targets.is_empty()) {
        // A bare id of a subject: the patient, unless only another type can be meant.
        (Form::Subject, false, false) if !value.contains('/') => Clause::Patients(patients),
        (_, false, true) => Clause::Patients(patients),
        (_, true, _) => Clause::Param(param, Test::Reference(targets)),
        _ => return Err("must name either patients or others"),
    })
}

/// `base` is the reference, perhaps with the type that it points to; `rest` the parameter of that type.
fn chain(kind: &str, base: &str, rest: &str, value: &str) -> Result<Option<Clause>, &'static str> {
    let (name, only) = base.split_once(':').unwrap_or((base, ""));
    let Some(param) = params::find(kind, name).filter(|param| param.form.refers()) else { return Ok(None) };
    if rest.contains('.') {
        return Err("chains are followed by one step only");
    }
    let targets: Vec<&'static str> = match only {
        "" if param.form == Form::Patient => vec!["Patient"],
        "" if param.targets == ["*"] => return Err("must name the type that is meant, as in subject:Patient.name"),
        "" => param.targets.clone(),
        only => types::TYPES.into_iter().filter(|target| *target == only && param.points_to(target)).collect(),
    };
    let mut found = Vec::new();
    for target in targets {
        if let Some(inner) = clause(target, rest, value)? {
            found.push((target, inner));
        }
    }
    if found.is_empty() { Err(UNKNOWN) } else { Ok(Some(Clause::Chain(param, found))) }
}

/// The alternatives of a value, divided by commas; `\,` is a comma, and escapes stay in place.
fn alternatives(value: &str, most: usize) -> Result<Vec<String>, &'static str> {
    let all: Vec<String> = divided(value, ',').map(str::to_owned).collect();
    if all.len() > most {
        return Err("has too many alternatives");
    }
    if all.iter().any(String::is_empty) {
        return Err("has an empty value");
    }
    Ok(all)
}

/// The parts between dividers that no backslash precedes.
fn divided(value: &str, divider: char) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    value.split(move |c| {
        let divides = c == divider && !escaped;
        escaped = c == '\\' && !escaped;
        divides
    })
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut escaped = false;
    for c in text.chars() {
        escaped = c == '\\' && !escaped;
        if !escaped {
            out.push(c);
        }
    }
    out
}

fn shortened(text: &str) -> String {
    index::cut(&unescaped(text)).to_owned()
}

fn token(param: &Param, value: &str) -> Token {
    let mut parts = divided(value, '|');
    let side = |text: &str| (!text.is_empty()).then(|| shortened(text));
    match (parts.next().unwrap_or_default(), parts.next()) {
        (code, None) => Token { system: None, code: side(code) },
        // The system of a code element is implied: it is not stored.
        (system, Some(code)) if !param.system.is_empty() && (system.is_empty() || system == param.system) => {
            Token { system: None, code: side(code) }
        }
        // `|code` asks for a code without a system.
        ("", Some(code)) => Token { system: Some(String::new()), code: side(code) },
        (system, Some(code)) => Token { system: side(system), code: side(code) },
    }
}

fn dates(value: &str) -> Result<Vec<(Prefix, Interval)>, &'static str> {
    let all = alternatives(value, TERMS_MAX)?;
    let all = all.iter().map(|value| {
        let (prefix, rest) = prefixed(value);
        // In a query string an unescaped `+` of a zone arrives as a space.
        let interval = date::parse(&rest.replace(' ', "+"))?;
        Some((prefix, if prefix == Prefix::Ap { about(interval) } else { interval }))
    });
    all.collect::<Option<_>>().ok_or("must be a date, with eq, ne, lt, gt, le, ge, sa, eb or ap before it if need be")
}

/// What passes for "about then": as long again on both sides, and a day at least.
fn about(interval: Interval) -> Interval {
    let more = (interval.hi - interval.lo).max(DAY_MS);
    Interval { lo: interval.lo.saturating_sub(more), hi: interval.hi.saturating_add(more) }
}

fn prefixed(value: &str) -> (Prefix, &str) {
    let prefix = match value.get(..2) {
        Some("eq") => Prefix::Eq,
        Some("ne") => Prefix::Ne,
        Some("lt") => Prefix::Lt,
        Some("gt") => Prefix::Gt,
        Some("le") => Prefix::Le,
        Some("ge") => Prefix::Ge,
        Some("sa") => Prefix::Sa,
        Some("eb") => Prefix::Eb,
        Some("ap") => Prefix::Ap,
        _ => return (Prefix::Eq, value),
    };
    (prefix, value.get(2..).unwrap_or_default())
}

fn quantity(value: &str) -> Option<Quantity> {
    let mut parts = divided(value, '|');
    let (prefix, text) = prefixed(parts.next()?);
    let (system, code) = (shortened(parts.next().unwrap_or_default()), shortened(parts.next().unwrap_or_default()));
    if !text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) {
        return None;
    }
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    let half = match prefix {
        // A tenth either way.
        Prefix::Ap => number.abs() / 10.0,
        _ => precision(text) / 2.0,
    };
    Some(Quantity { prefix, lo: number - half, hi: number + half, system, code })
}

/// The place of the last digit that was written: 0.1 for `5.4`, 1 for `5`, 100 for `1e2`.
fn precision(text: &str) -> f64 {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let places = digits.split_once('.').map_or(0, |(_, places)| places.len());
    let places = i32::try_from(places).unwrap_or(i32::MAX);
    10f64.powi(exponent.parse::<i32>().unwrap_or(0).saturating_sub(places))
}
