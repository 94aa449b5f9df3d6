//! Which template a form answers: the canonical address by which every program knows it, and the version that was opened here.

use crate::forms::Template;
use crate::store::{StoreError, View};
use crate::web::reading::{list, text, version};
use serde_json::{Value, json};

const TITLE: &str = "http://hl7.org/fhir/StructureDefinition/display";
/// The version of the template in this store: a later change of the template changes no form.
const OPENED: &str = "urn:holdfast:template";

/// A form that was begun with this template.
pub fn new_response(template: &Value, patient: &str, author: Value, now: &str) -> Value {
    let stored = format!("Questionnaire/{}", text(template, "/id"));
    let number = version(template);
    let asked = match (text(template, "/url"), text(template, "/version")) {
        ("", _) => format!("{stored}|{number}"),
        (url, "") => url.to_owned(),
        (url, version) => format!("{url}|{version}"),
    };
    let about = json!({"extension": [
        {"url": TITLE, "valueString": text(template, "/title")},
        {"url": OPENED, "valueReference": {"reference": format!("{stored}/_history/{number}")}},
    ]});
    json!({
        "resourceType": "QuestionnaireResponse", "questionnaire": asked, "_questionnaire": about, "status": "in-progress",
        "subject": {"reference": format!("Patient/{patient}")}, "authored": now, "author": author,
    })
}

pub fn title(response: &Value) -> &str {
    match about(response, TITLE).map_or("", |one| text(one, "/valueString")) {
        "" => "Form",
        title => title,
    }
}

fn about<'v>(response: &'v Value, url: &str) -> Option<&'v Value> {
    list(response.get("_questionnaire")?, "extension").iter().find(|one| text(one, "/url") == url)
}

/// The template with which a form was begun; of a form of another program the one that it names, where that is here.
pub fn template_of(view: &View<'_>, response: &Value) -> Result<Template, StoreError> {
    let asked = text(response, "/questionnaire");
    let opened = about(response, OPENED).map_or("", |one| text(one, "/valueReference/reference"));
    let named = opened.split_once("/_history/").or_else(|| asked.split_once('|')).unwrap_or((asked, ""));
    let found = match (named.0.strip_prefix("Questionnaire/"), named.1.parse()) {
        (Some(id), Ok(version)) => view.version("Questionnaire", id, version),
        (Some(id), Err(_)) => view.read("Questionnaire", id),
        (None, _) => view.canonical("Questionnaire", asked).and_then(|found| found.ok_or(StoreError::NotFound)),
    };
    match found {
        Ok(found) => Ok(Template::read(&found.json()?)),
        // A form of another system: its answers are shown all the same.
        Err(StoreError::NotFound) => Ok(Template::of_response(response)),
        Err(error) => Err(error),
    }
}
