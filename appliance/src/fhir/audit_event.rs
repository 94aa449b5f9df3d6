//! The audit as FHIR `AuditEvent`, after IHE's Basic Audit Log Patterns: drawn when it is read, for who may see the audit.
//!
//! What an entry holds is told and nothing beside it: it names no address of a network, so no profile is claimed. Every event
//! carries this program's own word as a subtype, and the hash by which the entry stands in its chain.

use super::http::{BASE, base_url, json_response};
use super::outcome::Outcome;
use super::shape::Shape;
use super::types::{self, AUDIT};
use super::{check_id, date, negotiate, query_pairs};
use crate::access::{Actor, accounts};
use crate::audit::{self, Entry, Filter};
use crate::clock;
use crate::store::{Store, StoreError, View};
use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const COUNT_DEFAULT: u32 = 50;
const COUNT_MAX: u32 = 500;
const FORM_BYTES_MAX: usize = 64 << 10;
/// Parameters of one search.
const TERMS_MAX: usize = 16;

const DICOM: &str = "http://dicom.nema.org/resources/ontology/DCM";
const REST: &str = "http://terminology.hl7.org/CodeSystem/audit-event-type";
const INTERACTION: &str = "http://hl7.org/fhir/restful-interaction";
const LIFECYCLE: &str = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle";
const OWN: &str = "urn:holdfast:audit";

/// The search parameters, as R4 names them, with their types.
pub const PARAMS: [(&str, &str); 8] = [
    ("patient", "reference"),
    ("date", "date"),
    ("altid", "token"),
    ("agent-name", "string"),
    ("agent-role", "token"),
    ("subtype", "token"),
    ("outcome", "token"),
    ("entity", "reference"),
];

/// `GET AuditEvent?...`.
pub async fn search(
    State(store): State<Store>,
    actor: Actor,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Outcome> {
    found(&store, &actor, &raw.unwrap_or_default(), &headers).await
}

/// `POST AuditEvent/_search`.
pub async fn search_form(
    State(store): State<Store>,
    actor: Actor,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Outcome> {
    let form = to_bytes(body, FORM_BYTES_MAX).await.map_err(|_| Outcome::too_large())?;
    let form = std::str::from_utf8(&form).map_err(|_| StoreError::invalid("is not a query", AUDIT))?;
    let raw = [raw.as_deref().unwrap_or_default(), form].join("&");
    found(&store, &actor, raw.trim_matches('&'), &headers).await
}

/// `GET AuditEvent/number`.
pub async fn read(
    State(store): State<Store>,
    actor: Actor,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Outcome> {
    let mut pairs = query_pairs(&raw.unwrap_or_default()).unwrap_or_default();
    let shape = Shape::take(&mut pairs)?;
    let read = move |view: &View<'_>| {
        let Some(filter) = one(&id) else {
            view.audit_entries(&Filter { seq: Some(0), ..Filter::default() }, 1, audit::Action::Read)?;
            return Err(StoreError::NotFound);
        };
        let entries = view.audit_entries(&filter, 1, audit::Action::Read)?;
        let entry = entries.first().ok_or(StoreError::NotFound)?;
        Ok(event(entry, &people(view)?))
    };
    let event = store.view(&actor, read).await?;
    Ok(json_response(StatusCode::OK, shape.body(AUDIT, &event.to_string())?))
}

fn one(id: &str) -> Option<Filter> {
    id.parse().ok().map(|seq| Filter { seq: Some(seq), ..Filter::default() })
}

/// What a search asks for.
struct Asked {
    filter: Filter,
    count: u32,
    ignored: Vec<String>,
}

async fn found(store: &Store, actor: &Actor, raw: &str, headers: &HeaderMap) -> Result<Response, Outcome> {
    let mut pairs = query_pairs(raw).ok_or_else(|| StoreError::invalid("is not a query", AUDIT))?;
    let shape = Shape::take(&mut pairs)?;
    let own = format!("{}{BASE}/", base_url(headers));
    pairs.iter_mut().for_each(|(_, value)| *value = value.replace(&own, ""));
    let asked = Asked::read(&pairs, negotiate::prefers(headers, "handling=lenient"))?;
    let (filter, count, ignored) = (asked.filter, asked.count, asked.ignored);
    let counted = count == 0 || shape == Shape::Count;
    let read = move |view: &View<'_>| {
        if counted {
            return Ok((Vec::new(), People::new(), Some(view.audit_count(&Filter { before: None, ..filter })?)));
        }
        // One more than a page shows whether there is another.
        let entries = view.audit_entries(&filter, count.saturating_add(1), audit::Action::Search)?;
        Ok::<_, StoreError>((entries, people(view)?, None))
    };
    let (mut entries, people, total) = store.view(actor, read).await?;
    let more = entries.len() > count as usize;
    entries.truncate(count as usize);
    let base = format!("{}{BASE}", base_url(headers));
    let kept: Vec<&str> = raw.split('&').filter(|part| !part.is_empty() && !is_left_out(part, &ignored)).collect();
    let address = |more: Option<String>| {
        let all: Vec<&str> = kept.iter().copied().chain(more.as_deref()).collect();
        let divider = if all.is_empty() { "" } else { "?" };
        format!("{base}/{AUDIT}{divider}{}", all.join("&"))
    };
    let mut links = vec![json!({ "relation": "self", "url": address(None) })];
    if let Some(last) = entries.last().filter(|_| more) {
        links.push(json!({ "relation": "next", "url": address(Some(format!("_cursor={}", last.seq))) }));
    }
    let mut all = Vec::with_capacity(entries.len());
    for entry in &entries {
        let body = shape.body(AUDIT, &event(entry, &people).to_string())?;
        let body: Value = serde_json::from_str(&body).map_err(|_| StoreError::Damaged("audit"))?;
        let url = format!("{base}/{AUDIT}/{}", entry.seq);
        all.push(json!({ "fullUrl": url, "resource": body, "search": { "mode": "match" } }));
    }
    if !ignored.is_empty() {
        let text = format!("not known here, so left out: {}", ignored.join(", "));
        let issue = json!({ "severity": "warning", "code": "not-supported", "diagnostics": text });
        let outcome = json!({ "resourceType": "OperationOutcome", "issue": [issue] });
        all.push(json!({ "resource": outcome, "search": { "mode": "outcome" } }));
    }
    let mut bundle = json!({ "resourceType": "Bundle", "type": "searchset", "link": links });
    if let Some(total) = total {
        bundle["total"] = total.into();
    }
    if !all.is_empty() {
        bundle["entry"] = all.into();
    }
    Ok(json_response(StatusCode::OK, bundle.to_string()))
}

fn is_left_out(part: &str, ignored: &[String]) -> bool {
    let name = part.split('=').next().unwrap_or_default();
    name == "_cursor" || ignored.iter().any(|ignored| ignored == name)
}

impl Asked {
    /// Reads the parameters; an unknown one is refused, or left out where the client said that it may be.
    fn read(pairs: &[(String, String)], lenient: bool) -> Result<Asked, StoreError> {
        let mut asked = Asked { filter: Filter::default(), count: COUNT_DEFAULT, ignored: Vec::new() };
        if pairs.len() > TERMS_MAX {
            return Err(StoreError::invalid("too many search parameters", AUDIT));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (name, value) in pairs {
            // Both ends of a span are dates; of everything else one value is asked for.
            let again = !seen.insert(name.as_str()) && name != "date";
            if again || value.contains(',') {
                return Err(StoreError::invalid("takes one value", short(name)));
            }
            if let Err(sentence) = asked.add(name, value) {
                match sentence {
                    UNKNOWN if lenient => asked.ignored.push(short(name)),
                    sentence => return Err(StoreError::invalid(sentence, short(name))),
                }
            }
        }
        Ok(asked)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let filter = &mut self.filter;
        let number = |text: &str| text.parse::<u64>().map_err(|_| "must be the number of an entry");
        // A token may name the system of its code.
        let code = value.rsplit('|').next().unwrap_or(value).to_owned();
        match name {
            "_id" => filter.seq = Some(number(value)?),
            "_cursor" => filter.before = Some(number(value)?),
            "_count" => {
                let count: u32 = value.parse().map_err(|_| "must be a whole number")?;
                self.count = count.min(COUNT_MAX);
            }
            "_sort" if value == "-date" => {}
            "_sort" => return Err("the audit is told from the newest on: _sort=-date"),
            "patient" => filter.patient = reference(value, Some("Patient"))?.1,
            "entity" => (filter.kind, filter.object) = reference(value, None)?,
            "date" => span(filter, value)?,
            "altid" if !code.is_empty() => filter.actor = code,
            // Of a string the beginning fits, however it is written.
            "agent-name" if !value.is_empty() => filter.name = value.to_lowercase(),
            "agent-name" => return Err("must be the beginning of a name"),
            "agent-role" if !code.is_empty() => filter.capacity = code,
            "subtype" if !code.is_empty() => filter.action = code,
            "altid" | "agent-role" | "subtype" => return Err("must be a code"),
            "outcome" => {
                let known = OUTCOMES.iter().find(|(known, _)| *known == code);
                filter.outcome = known.map(|(_, word)| (*word).to_owned()).ok_or("must be 0, 4 or 8")?;
            }
            _ => return Err(UNKNOWN),
        }
        Ok(())
    }
}

const UNKNOWN: &str =
    "this search parameter is not supported for this type; the capability statement lists those that are";
const OUTCOMES: [(&str, &str); 3] = [("0", "done"), ("4", "denied"), ("8", "failed")];

/// A name as an error may show it.
fn short(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_:.".contains(*c)).take(40).collect()
}

/// Type and id of `Type/id`, or of a bare id where the type is known.
fn reference(value: &str, kind: Option<&str>) -> Result<(String, String), &'static str> {
    const SHAPE: &str = "must be Type/id";
    let (named, id) = match (value.split_once('/'), kind) {
        (Some((named, id)), _) => (named, id),
        (None, Some(kind)) => (kind, value),
        (None, None) => return Err(SHAPE),
    };
    let fits = kind.is_none_or(|kind| kind == named) && (types::is_told(named) || named == "Binary");
    if fits && check_id(id).is_ok() { Ok((named.to_owned(), id.to_owned())) } else { Err(SHAPE) }
}

/// Narrows the span of time by one date with its prefix.
fn span(filter: &mut Filter, value: &str) -> Result<(), &'static str> {
    let (prefix, text) = match value.get(..2) {
        Some(prefix) if prefix.bytes().all(|b| b.is_ascii_lowercase()) => (prefix, value.get(2..).unwrap_or_default()),
        _ => ("eq", value),
    };
    let at = date::parse(&text.replace(' ', "+")).ok_or("must be a date, with or without a prefix such as ge")?;
    let (from, until) = match prefix {
        "eq" => (Some(at.lo), Some(at.hi)),
        "ge" => (Some(at.lo), None),
        "gt" | "sa" => (Some(at.hi), None),
        "le" => (None, Some(at.hi)),
        "lt" | "eb" => (None, Some(at.lo)),
        _ => return Err("takes the prefixes eq, ge, gt, sa, le, lt and eb"),
    };
    filter.from_ms = filter.from_ms.max(from);
    filter.until_ms = match (filter.until_ms, until) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    };
    Ok(())
}

/// The `Practitioner` of each account that is one, with the name that colleagues see.
type People = BTreeMap<String, (Option<String>, String)>;

fn people(view: &View<'_>) -> Result<People, StoreError> {
    let all = accounts::list(view.connection()).map_err(|error| match error {
        accounts::AccountError::Store(error) => error,
        accounts::AccountError::Database(error) => error.into(),
        _ => StoreError::Damaged("accounts"),
    })?;
    Ok(all.into_iter().map(|account| (account.id, (account.practitioner, account.display))).collect())
}

fn coding(system: &str, code: &str, display: &str) -> Value {
    match display {
        "" => json!({ "system": system, "code": code }),
        display => json!({ "system": system, "code": code, "display": display }),
    }
}

/// Type, subtypes by others' code systems, and R4's letter of what was done.
fn what(action: &str) -> (Value, Vec<Value>, &'static str) {
    let rest =
        |code: &str, letter| (coding(REST, "rest", "RESTful Operation"), vec![coding(INTERACTION, code, code)], letter);
    let dicom = |code, display, sub: Option<(&str, &str)>, letter| {
        (
            coding(DICOM, code, display),
            sub.map(|(code, display)| coding(DICOM, code, display)).into_iter().collect(),
            letter,
        )
    };
    let lifecycle = |code, display, letter| (coding(LIFECYCLE, code, display), Vec::new(), letter);
    match action {
        "read" | "download" => rest("read", "R"),
        "search" => rest("search", "E"),
        "create" | "attach" | "post" => rest("create", "C"),
        "update" => rest("update", "U"),
        "delete" => rest("delete", "D"),
        "export" => dicom("110106", "Export", None, "R"),
        "import" => dicom("110107", "Import", None, "C"),
        "login" => dicom("110114", "User Authentication", Some(("110122", "Login")), "E"),
        "logout" => dicom("110114", "User Authentication", Some(("110123", "Logout")), "E"),
        "lock" => dicom("110114", "User Authentication", None, "E"),
        "user-change" => dicom("110113", "Security Alert", Some(("110136", "User security Attributes Changed")), "U"),
        "break-glass" => dicom("110113", "Security Alert", Some(("110127", "Emergency Override Started")), "E"),
        "start" => dicom("110100", "Application Activity", Some(("110120", "Application Start")), "E"),
        "upgrade" => dicom("110100", "Application Activity", None, "U"),
        "sign" => lifecycle("attest", "Attest Record Lifecycle Event", "U"),
        "send" => lifecycle("transmit", "Transmit Record Lifecycle Event", "R"),
        "merge" => lifecycle("merge", "Merge Record Lifecycle Event", "U"),
        "look-back" => lifecycle("access", "Access/View Record Lifecycle Event", "R"),
        other => (coding(OWN, other, ""), Vec::new(), "E"),
    }
}

/// One entry of the audit.
fn event(entry: &Entry, people: &People) -> Value {
    let (kind, mut subtypes, letter) = what(&entry.action);
    subtypes.push(coding(OWN, &entry.action, ""));
    let recorded = clock::instant(entry.at_ms);
    let outcome = OUTCOMES.iter().find(|(_, word)| *word == entry.outcome).map_or("8", |(code, _)| code);
    let mut event = json!({
        "resourceType": AUDIT,
        "id": entry.seq.to_string(),
        "meta": { "lastUpdated": recorded },
        "extension": [{ "url": "urn:holdfast:audit-hash", "valueString": hex::encode(entry.hash) }],
        "type": kind,
        "subtype": subtypes,
        "action": letter,
        "recorded": recorded,
        "outcome": outcome,
        "outcomeDesc": entry.outcome,
        "agent": [who(entry, letter, people), server()],
        "source": {
            "observer": { "display": "Holdfast appliance" },
            "type": [coding("http://terminology.hl7.org/CodeSystem/security-source-type", "4", "Application Server")],
        },
    });
    let entities = entities(entry);
    if !entities.is_empty() {
        event["entity"] = entities.into();
    }
    event
}

fn server() -> Value {
    json!({
        "type": { "coding": [coding(DICOM, "110152", "Destination Role ID")] },
        "who": { "display": "Holdfast appliance" },
        "requestor": false,
    })
}

/// Who acted: who received what was read, or is the author of what was written.
fn who(entry: &Entry, letter: &str, people: &People) -> Value {
    const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
    let part = match letter {
        "C" | "U" | "D" => coding(PARTICIPATION, "AUT", "author (originator)"),
        _ => coding(PARTICIPATION, "IRCP", "information recipient"),
    };
    let account = people.get(&entry.actor);
    let mut who = match (account.and_then(|(practitioner, _)| practitioner.as_ref()), entry.capacity.as_str()) {
        (Some(practitioner), _) => json!({ "reference": format!("Practitioner/{practitioner}") }),
        (None, "patient") if !entry.patient.is_empty() => json!({ "reference": format!("Patient/{}", entry.patient) }),
        _ => json!({ "identifier": { "system": "urn:holdfast:account", "value": entry.actor } }),
    };
    if let Some((_, display)) = account {
        who["display"] = display.as_str().into();
    }
    let mut agent = json!({
        "type": { "coding": [part] },
        "role": [{ "coding": [coding("urn:holdfast:capacity", &entry.capacity, "")] }],
        "who": who,
        "altId": entry.actor,
        "requestor": true,
    });
    if !entry.actor_name.is_empty() {
        agent["name"] = entry.actor_name.as_str().into();
    }
    agent
}

/// Whose record, and what of it.
fn entities(entry: &Entry) -> Vec<Value> {
    const TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
    const ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
    let mut all = Vec::new();
    if !entry.patient.is_empty() {
        all.push(json!({
            "what": { "reference": format!("Patient/{}", entry.patient) },
            "type": coding(TYPE, "1", "Person"),
            "role": coding(ROLE, "1", "Patient"),
        }));
    }
    if entry.kind.is_empty() {
        return all;
    }
    let is_resource = types::is_told(&entry.kind) || entry.kind == "Binary";
    let mut data = match (is_resource, check_id(&entry.object).is_ok()) {
        (true, true) => json!({
            "what": { "reference": format!("{}/{}", entry.kind, entry.object) },
            "type": coding(TYPE, "2", "System Object"),
            "role": coding(ROLE, "4", "Domain Resource"),
        }),
        // Many of a kind: what was asked for is not in the audit, only how many were found.
        (true, false) => json!({ "type": coding(TYPE, "2", "System Object"), "role": coding(ROLE, "24", "Query") }),
        (false, _) => json!({ "type": coding(TYPE, "4", "Other") }),
    };
    if !is_resource && !entry.object.is_empty() {
        data["what"] = json!({ "identifier": { "system": "urn:holdfast:audit-object", "value": entry.object } });
    }
    data["detail"] = json!([
        { "type": "kind", "valueString": entry.kind },
        { "type": "records", "valueString": entry.matches.to_string() },
    ]);
    all.push(data);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::validate;

    fn entry(action: &str, kind: &str, object: &str) -> Entry {
        Entry {
            seq: 7,
            at_ms: 1_780_000_000_123,
            actor: "id-anna".into(),
            actor_name: "anna".into(),
            capacity: "clinician".into(),
            action: action.into(),
            kind: kind.into(),
            object: object.into(),
            patient: "p".into(),
            outcome: "done".into(),
            matches: 3,
            hash: [9; 32],
        }
    }

    #[test]
    fn every_action_is_told_as_r4_defines_an_audit_event() {
        let people = People::from([("id-anna".to_owned(), (Some("ada".to_owned()), "Dr. Anna".to_owned()))]);
        for action in crate::audit::Action::WORDS {
            for (kind, object) in [("Patient", "p"), ("Observation", ""), ("session", ""), ("user", "a b"), ("", "")] {
                for outcome in ["done", "denied", "failed"] {
                    let told = event(&Entry { outcome: outcome.into(), ..entry(action, kind, object) }, &people);
                    assert_eq!(validate::issues(AUDIT, &told), [], "{action} {kind}");
                    let own = json!({ "system": OWN, "code": action });
                    assert!(told["subtype"].as_array().is_some_and(|all| all.contains(&own)), "{told}");
                }
            }
        }
        let told = event(&entry("read", "Observation", "o"), &people);
        assert_eq!(told["agent"][0]["who"]["reference"], "Practitioner/ada");
        assert_eq!(told["entity"][0]["what"]["reference"], "Patient/p");
        assert_eq!(told["entity"][1]["what"]["reference"], "Observation/o");
        assert_eq!((&told["action"], &told["outcome"], &told["id"]), (&json!("R"), &json!("0"), &json!("7")));
    }

    #[test]
    fn a_search_means_what_it_says_or_is_refused() {
        let asked = |query: &str| Asked::read(&query_pairs(query).unwrap(), false);
        let filter = asked("patient=Patient/p&date=ge2024-05-06&date=lt2024-05-08&outcome=4&subtype=read&_count=900")
            .map(|asked| (asked.filter, asked.count));
        let (filter, count) = filter.unwrap();
        let day = |text: &str| date::parse(text).unwrap().lo;
        assert_eq!((filter.from_ms, filter.until_ms), (Some(day("2024-05-06")), Some(day("2024-05-08"))));
        assert_eq!((filter.patient.as_str(), filter.outcome.as_str(), filter.action.as_str()), ("p", "denied", "read"));
        assert_eq!(count, COUNT_MAX);
        let named = asked("agent-name=Anna&_count=0").unwrap();
        assert_eq!((named.filter.name.as_str(), named.count), ("anna", 0));
        let narrowed = asked("date=2024-05&date=le2024-05-03").unwrap().filter;
        assert_eq!((narrowed.from_ms, narrowed.until_ms), (Some(day("2024-05-01")), Some(day("2024-05-04"))));
        for bad in [
            "patient=a,b",
            "patient=Group/x",
            "patient=p&patient=q",
            "date=ne2024",
            "date=soon",
            "date=gé2024",
            "outcome=12",
            "entity=x",
            "entity=Nonsense/x",
            "_id=x",
            "_cursor=-1",
            "_sort=date",
            "agent=x",
            "subtype=",
            "agent-name=",
            "_count=many",
        ] {
            assert!(matches!(asked(bad), Err(StoreError::Invalid { .. })), "{bad}");
        }
        let lenient = Asked::read(&query_pairs("agent=x&patient=p").unwrap(), true).unwrap();
        assert_eq!((lenient.ignored, lenient.filter.patient.as_str()), (vec!["agent".to_owned()], "p"));
    }
}
