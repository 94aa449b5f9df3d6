//! Records to take along, as a ZIP: one patient's from the chart, everything by an administrator.

use super::fields::{Field, Problems};
use super::form::Form;
use super::gate::Visit;
use super::layout::{self, Section};
use super::{Method, PageError, Policy, Route, Target, Web, account, practice};
use crate::access::{self, Action};
use crate::export::{self, Zip, patient};
use crate::messages::{self, Channel, Message};
use crate::store::{StoreError, Tx, View};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use maud::{Markup, html};
use tokio::sync::mpsc;

/// Pieces on their way to a browser; a slow one makes the reader wait.
const PIECES: usize = 4;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    // Who may write the record may hand it on; who broke the glass may only read it.
    let may = Policy::Permits(Action::Create, Target::Resource("DocumentReference"));
    let all = Policy::Permits(Action::Read, Target::Practice);
    vec![
        Route::new(Method::Get, "/patients/{patient}/export", may, of_patient, w()),
        Route::new(Method::Get, "/practice/export", all, page, w()),
        Route::new(Method::Post, "/practice/export", all, everything, w()),
    ]
}

async fn of_patient(State(web): State<Web>, visit: Visit, Path(id): Path<String>) -> Result<Response, PageError> {
    let (own, now_ms) = (id.clone(), web.store().clock().unix_ms());
    let gather = move |view: &View<'_>| patient::gather(view, &own);
    let record = web.store().view::<_, StoreError, _>(&visit.actor, gather).await?;
    let attachments = web.store().attachments().clone();
    let (practice, zone) = (web.settings().practice_name.clone(), web.settings().zone);
    Ok(streamed(&format!("patient-{id}.zip"), move |zip| {
        patient::write(&record, &attachments, (&practice, zone, now_ms), zip)
    }))
}

/// An archive that a thread writes while the browser reads. An error ends the connection before the archive's directory, so
/// that nobody takes a piece for the whole.
fn streamed(
    name: &str,
    job: impl FnOnce(&mut dyn export::Sink) -> Result<(), StoreError> + Send + 'static,
) -> Response {
    let (pieces, out) = mpsc::channel::<Result<Bytes, std::io::Error>>(PIECES);
    tokio::task::spawn_blocking(move || {
        let to = pieces.clone();
        let mut zip = Zip::new(move |bytes| to.blocking_send(Ok(bytes)).map_err(|_| StoreError::Closed));
        if let Err(error) = job(&mut zip).and_then(|()| zip.finish()) {
            if !matches!(error, StoreError::Closed) {
                log::error!(error = error.to_string().as_str(); "export.failed");
            }
            let _ = pieces.blocking_send(Err(std::io::Error::other("the export failed")));
        }
    });
    let pieces = futures::stream::unfold(out, |mut out| async move { out.recv().await.map(|piece| (piece, out)) });
    let headers = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

async fn page(State(web): State<Web>, visit: Visit) -> Markup {
    show(&web, &visit, &Problems::default())
}

fn show(web: &Web, visit: &Visit, problems: &Problems) -> Markup {
    layout::page(
        web,
        visit,
        Section::Users,
        "Export everything",
        None,
        &html! {
            div.head { h1 { "Export everything" } }
            (problems.summary())
            div.notice.warn { p { "The file holds every record of every patient and is not encrypted. That it was made stands in the \
                access record and is told to whom alerts go. Keep it as you keep the records." } }
            form.sheet method="post" action="/practice/export" data-no-guard { (layout::csrf(visit))
                (Field::new("Your password", "password", "").kind("password").required().autocomplete("current-password").show(problems))
                (layout::save_or_cancel("Export", "/practice"))
            }
            p.soft.foot { "A ZIP of FHIR resources (a line each), earlier versions, files, money, consents and the access record, with a \
                manifest of hashes. " code { "appliance export" } " does the same on the server, " code { "appliance import export" } " reads it into an empty practice." }
        },
    )
}

async fn everything(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    if !account::is_own_password(&web, &visit, form.raw("password")).await? {
        let mut problems = Problems::default();
        problems.add("password", account::NOT_OWN);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&web, &visit, &problems)).into_response());
    }
    access::authorize(&visit.actor, Action::Read, access::Object::Practice)?;
    let named = web.settings().practice_name.clone();
    let who = visit.session.as_ref().map(|session| session.display.clone()).unwrap_or_default();
    let tell = move |tx: &mut Tx<'_>| {
        if let Some(to) = practice::setting(tx.connection(), practice::ALERTS)? {
            let text = format!(
                "{who} has exported everything that the practice has. If you did not expect this, ask at once."
            );
            let message = Message { to, subject: format!("{named}: export of all records"), text };
            messages::queue(tx, Channel::Mail, "", &message, tx.now_ms())?;
        }
        Ok::<_, StoreError>(())
    };
    web.store().write(&visit.actor, tell).await?;
    let (store, actor, practice) = (web.store().clone(), visit.actor.clone(), web.settings().practice_name.clone());
    Ok(streamed("practice.zip", move |zip| export::everything(&store, &actor, &practice, zip, |_| ()).map(drop)))
}
