//! Transaction bundles: all entries or none, references between entries rewritten to the ids they receive.

use super::types;
use crate::clock;
use crate::store::{Expect, Query, Resource, StoreError, Tx};
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

/// Entries of one bundle at most. A transaction holds the one writer, and every page writes its audit entry: more would keep
/// the clinicians waiting for seconds.
const ENTRIES_MAX: usize = 5_000;
/// What all conditions of one bundle may take together, for the same reason: each is a search.
const CONDITIONS_TIME_MAX: Duration = Duration::from_secs(1);

/// Answers the conditions of one bundle.
#[derive(Default)]
struct Conditions(Cell<Duration>);

/// What an entry asks for.
enum Intent {
    Create,
    /// Conditional create that found this.
    Exists(Resource),
    Update(Option<u32>),
    Delete(Option<u32>),
}

struct Planned {
    index: usize,
    kind: String,
    id: String,
    intent: Intent,
    body: Value,
}

/// Carries out `bundle` inside the open transaction.
pub fn run(tx: &mut Tx<'_>, bundle: Value) -> Result<Value, StoreError> {
    let entries = entries(bundle)?;
    let count = entries.len();
    let (mut ids, conditions) = (HashMap::new(), Conditions::default());
    let mut planned = Vec::with_capacity(count);
    for (index, entry) in entries.into_iter().enumerate() {
        planned.push(plan(tx, &conditions, (index, entry), &mut ids)?);
    }
    // Who is referred to is stored first: patients (their row is in every index key), then the directory.
    // What is to go goes first, as R4 orders it.
    planned.sort_by_key(|entry| (!matches!(entry.intent, Intent::Delete(_)), rank(&entry.kind), entry.index));
    let mut answers = vec![Value::Null; count];
    for mut entry in planned {
        rewrite((tx, &conditions), &mut entry.body, &ids, entry.index)?;
        let index = entry.index;
        let answer = carry_out(tx, entry)?;
        if let Some(slot) = answers.get_mut(index) {
            *slot = answer;
        }
    }
    Ok(json!({ "resourceType": "Bundle", "type": "transaction-response", "entry": answers }))
}

fn entries(bundle: Value) -> Result<Vec<Value>, StoreError> {
    let Value::Object(mut bundle) = bundle else {
        return Err(StoreError::invalid("must be a JSON object", "Bundle"));
    };
    if bundle.get("resourceType").and_then(Value::as_str) != Some("Bundle") {
        return Err(StoreError::invalid("must be Bundle", "Bundle.resourceType"));
    }
    if bundle.get("type").and_then(Value::as_str) != Some("transaction") {
        return Err(StoreError::invalid("only transactions are carried out here", "Bundle.type"));
    }
    match bundle.remove("entry") {
        None => Ok(Vec::new()),
        Some(Value::Array(entries)) if entries.len() <= ENTRIES_MAX => Ok(entries),
        Some(Value::Array(_)) => {
            Err(StoreError::invalid("has more than 5000 entries: send them in several bundles", "Bundle.entry"))
        }
        Some(_) => Err(StoreError::invalid("must be an array", "Bundle.entry")),
    }
}

/// Decides what becomes of an entry and under which id, and notes that id for the references of others.
fn plan(
    tx: &Tx<'_>,
    conditions: &Conditions,
    (index, entry): (usize, Value),
    ids: &mut HashMap<String, String>,
) -> Result<Planned, StoreError> {
    let path = |rest: &str| format!("Bundle.entry[{index}].{rest}");
    let Value::Object(mut entry) = entry else {
        return Err(StoreError::invalid("must be an object", format!("Bundle.entry[{index}]")));
    };
    let request = entry.remove("request").unwrap_or_default();
    let text = |name: &str| request.get(name).and_then(Value::as_str);
    let url = text("url").ok_or_else(|| StoreError::invalid("is required", path("request.url")))?;
    let version = text("ifMatch").map(|tag| super::etag_version(tag).ok_or(tag)).transpose();
    let version = version.map_err(|_| StoreError::invalid("must be W/\"version\"", path("request.ifMatch")))?;
    if text("method") == Some("DELETE") {
        let (kind, id) =
            url.split_once('/').ok_or_else(|| StoreError::invalid("must be Type/id", path("request.url")))?;
        let intent = Intent::Delete(version);
        return Ok(Planned { index, kind: kind.to_owned(), id: id.to_owned(), intent, body: Value::Null });
    }
    if !matches!(text("method"), Some("POST" | "PUT")) {
        return Err(StoreError::invalid("only POST, PUT and DELETE are carried out here", path("request.method")));
    }
    let body = entry.remove("resource").ok_or_else(|| StoreError::invalid("is required", path("resource")))?;
    let (kind, intent, id) = match text("method") {
        Some("POST") => {
            let intent = match text("ifNoneExist") {
                Some(condition) => match conditions.matching(tx, url, condition, &path("request.ifNoneExist"))? {
                    Some(found) => Intent::Exists(found),
                    None => Intent::Create,
                },
                None => Intent::Create,
            };
            let id = match &intent {
                Intent::Exists(found) => found.id.clone(),
                _ => clock::new_id().map_err(StoreError::io("randomness"))?,
            };
            (url.to_owned(), intent, id)
        }
        _ => match url.split_once('?') {
            Some((kind, condition)) => match conditions.matching(tx, kind, condition, &path("request.url"))? {
                Some(found) => (kind.to_owned(), Intent::Update(version.or(Some(found.version))), found.id),
                None => (kind.to_owned(), Intent::Create, clock::new_id().map_err(StoreError::io("randomness"))?),
            },
            None => {
                let (kind, id) =
                    url.split_once('/').ok_or_else(|| StoreError::invalid("must be Type/id", path("request.url")))?;
                (kind.to_owned(), Intent::Update(version), id.to_owned())
            }
        },
    };
    if !types::is_kept(&kind) {
        return Err(StoreError::invalid("this type is not kept here", path("request.url")));
    }
    super::check_id(&id)?;
    if let Some(full_url) = entry.get("fullUrl").and_then(Value::as_str)
        && ids.insert(full_url.to_owned(), format!("{kind}/{id}")).is_some()
    {
        return Err(StoreError::invalid("is used twice in this bundle", path("fullUrl")));
    }
    Ok(Planned { index, kind, id, intent, body })
}

fn rank(kind: &str) -> u8 {
    match kind {
        "Organization" | "Practitioner" | "Location" => 0,
        "Patient" => 1,
        _ => 2,
    }
}

fn carry_out(tx: &mut Tx<'_>, entry: Planned) -> Result<Value, StoreError> {
    let (status, stored) = match entry.intent {
        Intent::Delete(version) => {
            let version = tx.delete(&entry.kind, &entry.id, version)?;
            return Ok(json!({ "response": { "status": "204 No Content", "etag": super::etag(version) } }));
        }
        Intent::Exists(found) => ("200 OK", found),
        Intent::Create => ("201 Created", tx.update(&entry.kind, &entry.id, entry.body, Expect::Nothing)?),
        Intent::Update(Some(version)) => {
            ("200 OK", tx.update(&entry.kind, &entry.id, entry.body, Expect::Version(version))?)
        }
        Intent::Update(None) => ("201 Created", tx.update(&entry.kind, &entry.id, entry.body, Expect::Nothing)?),
    };
    Ok(json!({ "response": {
        "status": status,
        "location": format!("{}/_history/{}", stored.reference(), stored.version),
        "etag": super::etag(stored.version),
        "lastModified": clock::instant(stored.updated_ms),
    }}))
}

impl Conditions {
    /// The one resource that a condition finds; `None` for none.
    fn matching(&self, tx: &Tx<'_>, kind: &str, condition: &str, path: &str) -> Result<Option<Resource>, StoreError> {
        let pairs = super::query_pairs(condition).ok_or_else(|| StoreError::invalid("is not a query", path))?;
        if pairs.is_empty() {
            return Err(StoreError::invalid("is not a query", path));
        }
        if self.0.get() > CONDITIONS_TIME_MAX {
            let sentence = "the conditions of this bundle take too long: ask for identifiers, or send fewer entries";
            return Err(StoreError::invalid(sentence, path));
        }
        let began = clock::monotonic();
        let page = tx.search(&Query::parse(kind, &pairs)?.first(2, "_id")?)?;
        self.0.set(self.0.get() + began.elapsed());
        let mut found = page.resources;
        match found.len() {
            0 | 1 => Ok(found.pop()),
            _ => Err(StoreError::invalid("finds more than one resource", path)),
        }
    }
}

/// Replaces the references to other entries, and conditional references, everywhere in `value`.
fn rewrite(
    tx: (&Tx<'_>, &Conditions),
    value: &mut Value,
    ids: &HashMap<String, String>,
    index: usize,
) -> Result<(), StoreError> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| rewrite(tx, item, ids, index)),
        Value::Object(element) => rewrite_element(tx, element, ids, index),
        _ => Ok(()),
    }
}

fn rewrite_element(
    tx: (&Tx<'_>, &Conditions),
    element: &mut Map<String, Value>,
    ids: &HashMap<String, String>,
    index: usize,
) -> Result<(), StoreError> {
    for (name, value) in element.iter_mut() {
        match (name.as_str(), &*value) {
            ("reference" | "url" | "uri", Value::String(text)) => {
                if let Some(target) = ids.get(text) {
                    *value = target.as_str().into();
                } else if name == "reference" {
                    let path = format!("Bundle.entry[{index}].resource...reference");
                    if text.starts_with("urn:") {
                        return Err(StoreError::invalid("points to no entry of this bundle", path));
                    }
                    if let Some((kind, condition)) = text.split_once('?') {
                        let found = (tx.1.matching(tx.0, kind, condition, &path)?)
                            .ok_or_else(|| StoreError::invalid("this conditional reference finds nothing", path))?;
                        *value = found.reference().into();
                    }
                }
            }
            _ => rewrite(tx, value, ids, index)?,
        }
    }
    Ok(())
}
