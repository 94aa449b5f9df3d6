//! The bundle that answers a search: each resource's stored bytes go into it unchanged.

use super::http::BASE;
use super::shape::Shape;
use crate::clock;
use crate::store::{Page, Resource, StoreError};
use serde_json::{Value, json};

/// What a search was asked with, for the bundle's links.
pub struct Asked<'a> {
    /// `https://host`, or nothing: then links are relative.
    pub base: &'a str,
    pub kind: &'a str,
    /// The query string as it was sent.
    pub raw: &'a str,
    pub shape: &'a Shape,
    /// Parameters that were left out because nobody here knows them.
    pub ignored: &'a [String],
}

/// The bundle as text.
pub fn bundle(asked: &Asked<'_>, page: &Page) -> Result<String, StoreError> {
    let mut links = format!(r#"{{"relation":"self","url":{}}}"#, asked.address(&asked.used(&["_cursor"], None)));
    if let Some(next) = &page.next {
        let query = asked.used(&[], Some(&format!("_cursor={next}")));
        links += &format!(r#",{{"relation":"next","url":{}}}"#, asked.address(&query));
    }
    let mut entries = Vec::with_capacity(page.resources.len() + page.included.len());
    for (mode, resources) in [("match", &page.resources), ("include", &page.included)] {
        for resource in resources {
            entries.push(asked.entry(mode, resource)?);
        }
    }
    entries.extend(asked.remark(page));
    let entries = if entries.is_empty() { String::new() } else { format!(r#","entry":[{}]"#, entries.join(",")) };
    let total = page.total.map(|total| format!(r#""total":{total},"#)).unwrap_or_default();
    let newest = page.resources.iter().map(|resource| resource.updated_ms).max();
    let meta = newest.map(|ms| format!(r#""meta":{{"lastUpdated":"{}"}},"#, clock::instant(ms))).unwrap_or_default();
    Ok(format!(r#"{{"resourceType":"Bundle",{meta}"type":"searchset",{total}"link":[{links}]{entries}}}"#))
}

impl Asked<'_> {
    /// The query without what was ignored: the self link says what was searched for.
    fn used(&self, keep: &[&str], more: Option<&str>) -> String {
        let name = |part: &str| part.split(['=', ':', '.']).next().unwrap_or_default().to_owned();
        let kept = |part: &&str| {
            let name = name(part);
            !part.is_empty() && (name != "_cursor" || keep.contains(&"_cursor")) && !self.ignored.contains(&name)
        };
        self.raw.split('&').filter(kept).chain(more).collect::<Vec<_>>().join("&")
    }

    fn address(&self, query: &str) -> Value {
        let divider = if query.is_empty() { "" } else { "?" };
        format!("{}{BASE}/{}{divider}{query}", self.base, self.kind).into()
    }

    fn entry(&self, mode: &str, resource: &Resource) -> Result<String, StoreError> {
        let url = Value::from(format!("{}{BASE}/{}", self.base, resource.reference()));
        let body = self.shape.body(&resource.kind, &resource.body)?;
        Ok(format!(r#"{{"fullUrl":{url},"resource":{body},"search":{{"mode":"{mode}"}}}}"#))
    }

    /// What the client should know about this answer.
    fn remark(&self, page: &Page) -> Option<String> {
        let issue = |code: &str, text: String| json!({ "severity": "warning", "code": code, "diagnostics": text });
        let mut issues = Vec::new();
        if !self.ignored.is_empty() {
            let text = format!("not known here, so left out: {}", self.ignored.join(", "));
            issues.push(issue("not-supported", text));
        }
        if page.cut {
            issues
                .push(issue("incomplete", "there is more to include than one page holds: ask for less a page".into()));
        }
        let outcome = json!({ "resourceType": "OperationOutcome", "issue": issues });
        (!issues.is_empty()).then(|| json!({ "resource": outcome, "search": { "mode": "outcome" } }).to_string())
    }
}
