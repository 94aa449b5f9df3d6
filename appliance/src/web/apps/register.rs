//! The administrator's list of programs: registering one, ending one.

use crate::access::smart::{self, Kind, Registration, identity};
use crate::audit::{self, Event};
use crate::store::{StoreError, Tx};
use crate::web::fields::{self, Field, Problems};
use crate::web::form::Form;
use crate::web::gate::Visit;
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::{PageError, Web};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};

/// A key set larger than this is something else.
const JWKS_BYTES_MAX: usize = 64 << 10;

fn kind_words(kind: Kind) -> &'static str {
    match kind {
        Kind::Public => "For a person, in the browser or on a phone (public)",
        Kind::Symmetric => "For a person, on a server with a secret (confidential)",
        Kind::Asymmetric => "For a person, on a server with a key of its own (confidential)",
        Kind::Backend => "By itself, with a key of its own (backend service)",
    }
}

pub async fn list(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let all = web.store().internal(smart::list).await?;
    Ok(layout::page(
        &web,
        &visit,
        Section::Users,
        "Apps",
        None,
        &html! {
            p.crumbs { a href="/users" { "Users" } }
            div.head { h1 { "Apps" } a.button.primary href="/apps/new" { "Register an app" } }
            p.soft { "Programs of others that may ask for access, within the scopes written here and never beyond the role of the person they act for." }
            @if all.is_empty() { p.empty { "No app is registered." } }
            @else { table.list {
                (layout::columns(&["Name", "Client id", "Kind", "May at most", "Access"]))
                tbody { @for app in &all { tr.past[app.disabled] {
                    th scope="row" { (app.name) }
                    td { code { (app.id) } }
                    td { (app.kind.as_str()) }
                    td { (smart::scopes_text(&app.scopes)) @if app.offline { " " (smart::OFFLINE) } @for word in app.identity.words() { " " (word) } }
                    td { @if app.disabled { span.tag { "ended" } } @else {
                        form.inline method="post" action="/apps/end" { (layout::csrf(&visit)) input type="hidden" name="app" value=(app.id);
                            button.small type="submit" aria-label={ "End " (app.name) } { "End access" } } } }
                } } }
            } }
        },
    ))
}

pub async fn new(State(web): State<Web>, visit: Visit) -> Markup {
    let form = Form::from_fields([("scopes".to_owned(), "patient/*.rs".to_owned())]);
    form_page(&web, &visit, &form, &Problems::default())
}

fn form_page(web: &Web, visit: &Visit, form: &Form, problems: &Problems) -> Markup {
    let kinds: Vec<(String, String)> =
        Kind::ALL.iter().map(|kind| (kind.as_str().to_owned(), kind_words(*kind).to_owned())).collect();
    let lines = |label: &str, name: &'static str, hint: &str| {
        html! { div.field { label for=(name) { (label) span.optional { " optional" } }
        textarea id=(name) name=(name) rows="3" spellcheck="false" aria-describedby={ (name) "-hint" } { "\n" (form.raw(name)) }
        p.hint id={ (name) "-hint" } { (hint) } } }
    };
    layout::page(
        web,
        visit,
        Section::Users,
        "Register an app",
        None,
        &html! {
            p.crumbs { a href="/apps" { "Apps" } }
            div.head { h1 { "Register an app" } }
            (problems.summary())
            form.sheet method="post" action="/apps/new" { (layout::csrf(visit))
                (Field::new("Name", "name", form.text("name")).required().hint("As people are asked: “NAME asks to act for you”").show(problems))
                (fields::select("Kind", "kind", form.text("kind"), &kinds, true, problems))
                (Field::new("May at most", "scopes", form.text("scopes")).required()
                    .hint("Scopes of SMART, divided by spaces: patient/*.rs user/Appointment.rs; system/... for a backend service").show(problems))
                label.check { input type="checkbox" name="offline" value="yes" checked[form.text("offline") == "yes"]; " May stay connected while the person is away" }
                label.check { input type="checkbox" name="identity" value="yes" checked[form.text("identity") == "yes"]; " May be told who the person is (openid, fhirUser)" }
                (lines("Answers go to", "redirects", "One address on each line, exactly as the app sends it; not for a backend service"))
                (Field::new("Starts from a chart at", "launch", form.text("launch")).hint("The app's launch address, where it has one").show(problems))
                (lines("Its public keys", "jwks", "A JSON Web Key Set with RSA or P-384 keys, for an app with a key of its own"))
                (layout::save_or_cancel("Register", "/apps"))
            }
        },
    )
}

pub async fn add(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let mut problems = Problems::default();
    let kind = Kind::parse(form.text("kind"));
    if kind.is_none() {
        problems.add("kind", "Please choose what kind of program it is.");
    }
    if form.raw("jwks").len() > JWKS_BYTES_MAX {
        problems.add("", "The key set is larger than 64 KiB.");
    }
    let (Some(kind), true) = (kind, problems.is_empty()) else {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, form_page(&web, &visit, &form, &problems)).into_response());
    };
    let id = crate::clock::new_id().map_err(|_| PageError::Internal("randomness"))?;
    let secret = service::auth::random_token();
    let (own, key, filled) = (id.clone(), secret.clone(), form.clone());
    let store = move |tx: &mut Tx<'_>| {
        let offline = if filled.text("offline") == "yes" { smart::OFFLINE } else { "" };
        let identity = if filled.text("identity") == "yes" {
            [identity::OPENID, identity::FHIR_USER].join(" ")
        } else {
            String::new()
        };
        let scopes = format!("{} {offline} {identity}", filled.text("scopes"));
        let new = Registration {
            id: &own,
            name: filled.text("name"),
            kind,
            jwks: filled.raw("jwks"),
            secret: &key,
            scopes: &scopes,
            redirects: filled.raw("redirects"),
            launch_url: filled.text("launch"),
        };
        smart::register(tx.connection(), &new, tx.now_ms())?;
        tx.note(Event::new(audit::Action::UserChange, "app", &own));
        Ok::<_, StoreError>(())
    };
    match web.store().write(&visit.actor, store).await {
        Ok(()) => Ok(registered(&web, &visit, &id, (kind == Kind::Symmetric).then_some(&secret)).into_response()),
        Err(error @ StoreError::Invalid { .. }) => {
            problems.add("", format!("{error}."));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, form_page(&web, &visit, &form, &problems)).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

fn registered(web: &Web, visit: &Visit, id: &str, secret: Option<&String>) -> Markup {
    let base = web.settings().bases.first().map(String::as_str).unwrap_or_default();
    layout::page(
        web,
        visit,
        Section::Users,
        "Registered",
        None,
        &html! {
            div.head { h1 { "Registered" } }
            p { "Give the maker of the app:" }
            dl.facts {
                div { dt { "FHIR server" } dd { code.copy { (base) (crate::fhir::http::BASE) } } }
                div { dt { "Client id" } dd { code.copy { (id) } } }
                @if let Some(secret) = secret { div { dt { "Client secret" } dd { code.copy { (secret) } } } }
            }
            @if secret.is_some() { div.notice.warn { p { "The secret is shown only once." } } }
            p.actions { a.button href="/apps" { "Done" } }
        },
    )
}

pub async fn end(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let id = form.text("app").to_owned();
    let store = move |tx: &mut Tx<'_>| {
        smart::disable(tx.connection(), &id, tx.now_ms())?;
        tx.note(Event::new(audit::Action::UserChange, "app", &id));
        Ok::<_, StoreError>(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/apps"))
}
