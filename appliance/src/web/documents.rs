//! Files of a patient: scans, letters, pictures. A file's bytes are looked at, its name and declared type never trusted.

use super::fields::{Field, Problems};
use super::form::{Form, UPLOAD_BYTES_MAX, Upload, percent_encode};
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::redirect;
use super::reading::{PatientFacts, concept, reference_id, text};
use super::{Method, PageError, Policy, Route, Target, Web, chart, dates, merged, reading};
use crate::access::{Action, Actor};
use crate::attachments::Staged;
use crate::store::{StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use maud::{Markup, html};
use serde_json::{Value, json};

const NAME_CHARS_MAX: usize = 120;
/// What is longer after the last full stop is no extension.
const EXTENSION_MAX: usize = 16;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("DocumentReference"));
    const NEW: &str = "/patients/{patient}/documents/new";
    vec![
        Route::new(Method::Get, NEW, may(Action::Create), upload_page, w()),
        Route::new(Method::Post, NEW, may(Action::Create), upload, w()),
        Route::new(Method::Get, "/patients/{patient}/documents/{document}/file", may(Action::Read), download, w()),
    ]
}

/// The documents on the chart that are files.
pub fn section(web: &Web, visit: &Visit, patient: &PatientFacts, files: &[Value]) -> Markup {
    let zone = web.settings().zone;
    let base = |document| format!("/patients/{}/documents", merged::owner(document, &patient.id));
    let mut ordered: Vec<&Value> = files.iter().collect();
    ordered.sort_by_key(|d| std::cmp::Reverse(text(d, "/date").to_owned()));
    let rows: Vec<Markup> = ordered
        .iter()
        .map(|document| {
            let kind = text(document, "/content/0/attachment/contentType");
            html! {
                span.what {
                    a href={ (base(document)) "/" (text(document, "/id")) "/file" } { (title(document)) }
                    span.soft { " · " (kind_word(kind)) }
                    (merged::mark(document, &patient.id))
                }
                span.when { (dates::show_day(text(document, "/date"), zone)) }
            }
        })
        .collect();
    let may = chart::may_add(visit, patient, "DocumentReference");
    let add = format!("/patients/{}/documents/new", patient.id);
    chart::section("Documents", may.then_some((add.as_str(), "Upload")), &chart::folded(&rows, "No documents."))
}

pub fn title(document: &Value) -> &str {
    ["/description", "/content/0/attachment/title"]
        .into_iter()
        .map(|pointer| text(document, pointer))
        .chain([concept(document.get("type"))])
        .find(|t| !t.is_empty())
        .unwrap_or("Document")
}

pub fn kind_word(media_type: &str) -> &str {
    match media_type.split(';').next().unwrap_or("") {
        "application/pdf" => "PDF",
        "image/png" | "image/jpeg" | "image/tiff" => "image",
        "application/dicom" => "DICOM",
        "text/plain" => "text",
        kind if kind.starts_with("audio/") => "audio",
        _ => "file",
    }
}

async fn upload_page(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    chart::require_open(&web, &visit, &patient).await?;
    let (banner, facts) = chart::banner(&web, &visit, &patient).await?;
    Ok(upload_form(&web, &visit, &banner, &facts, &Form::default(), &Problems::default()))
}

fn upload_form(
    web: &Web,
    visit: &Visit,
    banner: &Markup,
    patient: &PatientFacts,
    form: &Form,
    problems: &Problems,
) -> Markup {
    let hint = format!("PDF, picture (PNG, JPEG, TIFF), DICOM, audio or text, at most {} MB", UPLOAD_BYTES_MAX >> 20);
    layout::page(
        web,
        visit,
        Section::Patients,
        "Upload a document",
        Some(banner),
        &html! {
            div.head { h1 { "Upload a document" } }
            (problems.summary())
            form.sheet method="post" enctype="multipart/form-data" action={ "/patients/" (patient.id) "/documents/new" } {
                (layout::csrf(visit)) (chart::form_identity(&patient.id, ""))
                (Field::new("Description", "description", form.text("description")).required()
                    .hint("For example: Letter from cardiology, 6 May 2024").show(problems))
                (Field::new("File", "file", "").kind("file").required().hint(&hint).show(problems))
                (layout::save_or_cancel("Upload", &format!("/patients/{}", patient.id)))
            }
        },
    )
}

async fn upload(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let mut problems = Problems::default();
    if form.text("description").is_empty() || form.text("description").chars().count() > 200 {
        problems.add("description", "Please describe the document in at most 200 characters.");
    }
    let file = form.upload("file").cloned();
    if file.is_none() {
        problems.add("file", "Please choose a file.");
    }
    let staged = match file {
        Some(file) if problems.is_empty() => match stage(&web, &file).await {
            Ok(staged) => Some((staged, safe_name(&file.name))),
            Err(StoreError::Invalid { what }) => {
                problems.add("file", format!("This file was not accepted: {}.", what.sentence));
                None
            }
            Err(error) => return Err(error.into()),
        },
        _ => None,
    };
    let Some((staged, name)) = staged else {
        let (banner, facts) = chart::banner(&web, &visit, &patient).await?;
        let page = upload_form(&web, &visit, &banner, &facts, &form, &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    let (now, owner, description) = (web.now_fhir(), patient.clone(), form.text("description").to_owned());
    let author = visit.session.as_ref().map(|s| s.display.clone()).unwrap_or_default();
    let store = move |tx: &mut Tx<'_>| {
        let row = tx.attach(&staged, Some(&owner))?;
        let url = format!("Binary/{}", row.id);
        let attachment = json!({"contentType": row.media_type, "url": url, "size": row.bytes, "title": name});
        tx.create(
            "DocumentReference",
            json!({
                "resourceType": "DocumentReference", "status": "current", "description": description,
                "subject": {"reference": format!("Patient/{owner}")}, "date": now, "author": [{"display": author}],
                "content": [{"attachment": attachment}],
            }),
        )
    };
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}")))
}

async fn stage(web: &Web, file: &Upload) -> Result<Staged, StoreError> {
    let (attachments, bytes) = (web.store().attachments().clone(), file.bytes.clone());
    tokio::task::spawn_blocking(move || attachments.stage(&bytes)).await.unwrap_or(Err(StoreError::Closed))
}

/// The name under which a file is offered for download: no folders, no control characters, nothing hidden.
fn safe_name(sent: &str) -> String {
    let last = sent.rsplit(['/', '\\']).next().unwrap_or("");
    let allowed = |c: &char| !c.is_control() && !matches!(c, '"' | '<' | '>' | ':' | '|' | '?' | '*' | '%' | ';');
    // Marks that reverse the direction of text make "exe.pdf" out of "fdp.exe".
    let visible = |c: &char| !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let name: String = last.chars().filter(allowed).filter(visible).collect();
    let name = name.trim_matches(|c: char| c == '.' || c.is_whitespace());
    if name.is_empty() { "document".to_owned() } else { shortened(name) }
}

/// A long name loses the end of its stem, not its extension: without that a computer does not know how to open it.
fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    let extension = extension.filter(|e| e.len() <= EXTENSION_MAX && e.bytes().all(|b| b.is_ascii_alphanumeric()));
    let room = NAME_CHARS_MAX - extension.map_or(0, |e| e.len() + 1);
    let stem: String = name.chars().take(room).collect();
    let stem = stem.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    extension.map_or_else(|| stem.to_owned(), |extension| format!("{stem}.{extension}"))
}

async fn download(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
) -> Result<Response, PageError> {
    send(&web, &visit.actor, (&patient, &id), |_| true).await
}

/// The file of a patient's document, where it is one that `may` leave.
pub async fn send(
    web: &Web,
    actor: &Actor,
    (patient, id): (&str, &str),
    may: fn(&Value) -> bool,
) -> Result<Response, PageError> {
    let (patient, id) = (patient.to_owned(), id.to_owned());
    let read = move |view: &View<'_>| {
        let resource = view.read("DocumentReference", &id)?;
        let document = resource.json()?;
        if reading::subject(&document) != Some(patient.as_str()) || !may(&document) {
            return Err(StoreError::NotFound);
        }
        let row = match reference_id(&document, "/content/0/attachment/url", "Binary") {
            // The bytes must be in the same record as the document that points to them.
            Some(binary) => {
                Some(view.attachment(binary)?).filter(|row| row.patient == 0 || row.patient == resource.patient)
            }
            None => None,
        };
        Ok((document, row))
    };
    let (document, row) = web.store().view(actor, read).await?;
    let name = safe_name(match text(&document, "/content/0/attachment/title") {
        "" => title(&document),
        name => name,
    });
    let (bytes, media_type) = match row {
        Some(row) => {
            let attachments = web.store().attachments().clone();
            let media_type = row.media_type.clone();
            let read = tokio::task::spawn_blocking(move || attachments.read(&row)).await;
            (read.unwrap_or(Err(StoreError::Closed))?, media_type)
        }
        None => inline(&document).ok_or(PageError::NotFound)?,
    };
    served(&name, &media_type, bytes)
}

/// A file to be kept by whoever asked, and run by no browser.
pub fn served(name: &str, media_type: &str, bytes: Vec<u8>) -> Result<Response, PageError> {
    let disposition = disposition(name).ok_or(PageError::Internal("file name"))?;
    let media_type = HeaderValue::from_str(media_type).map_err(|_| PageError::Internal("media type"))?;
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_DISPOSITION, disposition),
        // Should a browser show it all the same, it runs nothing.
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    ];
    Ok((headers, bytes).into_response())
}

/// A document whose bytes are inside the resource; what is not plain text or PDF leaves as unnamed bytes.
fn inline(document: &Value) -> Option<(Vec<u8>, String)> {
    use base64::Engine;
    let data = text(document, "/content/0/attachment/data");
    let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok().filter(|b| !b.is_empty())?;
    let media_type = crate::attachments::sniff(&bytes).unwrap_or("application/octet-stream");
    Some((bytes, media_type.to_owned()))
}

/// `attachment` with an ASCII name for old clients and the true one beside it (RFC 6266).
fn disposition(name: &str) -> Option<HeaderValue> {
    let ascii: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ') { c } else { '_' })
        .collect();
    HeaderValue::from_str(&format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{}", percent_encode(name))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_uploads_lead_nowhere() {
        for (sent, kept) in [
            ("../../etc/passwd", "passwd"),
            ("..\\..\\windows\\system.ini", "system.ini"),
            ("/", "document"),
            ("..", "document"),
            ("a\r\nSet-Cookie: x=1.pdf", "aSet-Cookie x=1.pdf"),
            ("\"><script>.pdf", "script.pdf"),
            ("scan\u{202e}fdp.exe", "scanfdp.exe"),
            ("Brief Müller.pdf", "Brief Müller.pdf"),
        ] {
            assert_eq!(safe_name(sent), kept, "{sent:?}");
        }
        assert!(safe_name(&"x".repeat(500)).len() <= NAME_CHARS_MAX);
        let long = safe_name(&format!("{} .PDF", "ä".repeat(500)));
        assert!(long.ends_with("ä.PDF") && long.chars().count() == NAME_CHARS_MAX, "{long}");
        let sentence = safe_name(&format!("a. {}", "b".repeat(500)));
        assert_eq!(sentence.chars().count(), NAME_CHARS_MAX, "what follows a full stop is no extension");
    }

    #[test]
    fn a_download_is_never_shown_inline() {
        let header = disposition("Brief \"Müller\".pdf").unwrap();
        let line = header.to_str().unwrap();
        assert!(line.starts_with("attachment; filename=\"Brief _M_ller_.pdf\";"), "{line}");
    }
}
