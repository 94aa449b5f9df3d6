//! What a client sends and wants to have: JSON both ways. The gate asks before any handler of the API.

use super::http::BASE;
use super::outcome::Outcome;
use super::query_pairs;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};

/// The search parameter that outranks the header `Accept`.
pub const FORMAT: &str = "_format";
const JSON: [&str; 4] = ["application/fhir+json", "application/json", "text/json", "json"];
const PATCH: &str = "application/json-patch+json";
const FORM: &str = "application/x-www-form-urlencoded";

/// 415 for a body that is not JSON, 406 for a client that wants something else than JSON.
pub fn refusal(request: &Request) -> Option<Outcome> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    // An attachment has whatever type it has; the files of an export are NDJSON.
    let below = |rest: &str| rest == "/Binary" || rest.starts_with("/Binary/") || rest.starts_with("/$export/");
    let binary = path.strip_prefix(BASE).is_some_and(below);
    let has_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    // Search by form, and the endpoints of OAuth.
    let form = path.ends_with("/_search") || path.starts_with("/oauth/");
    if !binary && has_body && !sends(request.headers(), form) {
        let wanted = if form { FORM } else { "application/fhir+json" };
        let text = format!("the body's content type must be {wanted}");
        return Some(Outcome::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-supported", text));
    }
    if !binary && !wants_json(request.headers(), query) {
        let text = "answers are JSON: ask for application/fhir+json";
        return Some(Outcome::new(StatusCode::NOT_ACCEPTABLE, "not-supported", text));
    }
    None
}

/// A body without a type is taken for what it has to be.
fn sends(headers: &HeaderMap, form: bool) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let sent = value.to_str().map(media_type).unwrap_or_default();
    if form { sent == FORM } else { JSON.contains(&sent.as_str()) || sent == PATCH }
}

fn wants_json(headers: &HeaderMap, query: &str) -> bool {
    let pairs = query_pairs(query).unwrap_or_default();
    if let Some((_, format)) = pairs.iter().find(|(name, _)| name == FORMAT) {
        // A `+` that was not escaped arrives as a space.
        return JSON.contains(&media_type(&format.replace(' ', "+")).as_str());
    }
    let mut accepted = headers.get_all(header::ACCEPT).iter().peekable();
    if accepted.peek().is_none() {
        return true;
    }
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(media_type)
        .any(|kind| kind == "*/*" || kind == "application/*" || JSON.contains(&kind.as_str()))
}

/// Whether the header `Prefer` names a wish, such as `handling=lenient`.
pub fn prefers(headers: &HeaderMap, wish: &str) -> bool {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).any(|part| part.trim().eq_ignore_ascii_case(wish))
}

/// The type without its parameters.
fn media_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::response::IntoResponse;

    fn asked(method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let refusal = refusal(&request.body(Body::empty()).unwrap());
        refusal.map_or(200, |outcome| outcome.into_response().status().as_u16())
    }

    #[test]
    fn bodies_are_json_and_so_are_answers() {
        let (read, create) = ("/fhir/R4/Patient/x", "/fhir/R4/Patient");
        for (method, path, headers, expected) in [
            ("POST", create, &[("content-type", "application/fhir+json; charset=utf-8")][..], 200),
            ("POST", create, &[("content-type", "application/json")], 200),
            ("POST", create, &[], 200),
            ("POST", create, &[("content-type", "text/plain")], 415),
            ("PUT", read, &[("content-type", "text/html")], 415),
            ("POST", create, &[("content-type", "application/x-www-form-urlencoded")], 415),
            ("POST", "/fhir/R4/Patient/_search", &[("content-type", "application/x-www-form-urlencoded")], 200),
            ("POST", "/fhir/R4/Patient/_search", &[("content-type", "application/fhir+json")], 415),
            ("POST", "/fhir/R4/Binary", &[("content-type", "image/png")], 200),
            ("GET", "/fhir/R4/Binary/x", &[("accept", "image/png")], 200),
            ("GET", read, &[("accept", "application/fhir+xml")], 406),
            ("GET", read, &[("accept", "application/fhir+xml, application/fhir+json;q=0.5")], 200),
            ("GET", read, &[("accept", "text/html,application/xml;q=0.9,*/*;q=0.8")], 200),
            ("GET", "/fhir/R4/Patient?_format=json", &[("accept", "text/html")], 200),
            ("GET", "/fhir/R4/Patient?_format=application/fhir+json", &[], 200),
            ("GET", "/fhir/R4/Patient?_format=xml", &[], 406),
        ] {
            assert_eq!(asked(method, path, headers), expected, "{method} {path} {headers:?}");
        }
    }
}
