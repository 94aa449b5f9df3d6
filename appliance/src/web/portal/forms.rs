//! Forms before the visit: what the practice asks, answered by the patient with the same engine as the staff's own forms.

use super::super::fields::Problems;
use super::super::form::Form;
use super::super::forms::{self, PATIENT};
use super::super::gate::Visit;
use super::super::layout::{self, Portal};
use super::super::login::redirect;
use super::super::reading::{reference_id, text, version};
use super::super::{Method, PageError, Policy, Route, Target, Web, dates};
use super::{patient, record};
use crate::access::{Action, Role};
use crate::audit::{self, Event};
use crate::forms::{Answers, Template};
use crate::store::{Expect, StoreError, Tx, View};
use crate::web::assets::ASSETS;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("QuestionnaireResponse"));
    vec![
        Route::new(Method::Get, "/forms", may(Action::Search), page, w()),
        Route::new(Method::Get, "/forms/{form}", may(Action::Read), one, w()),
        Route::new(Method::Post, "/forms/{form}", may(Action::Update), save, w()),
    ]
}

/// Whether a form was given to the patient: the clinicians' own forms are theirs.
fn is_own(form: &Value, patient: &str) -> bool {
    reference_id(form, "/source/reference", "Patient") == Some(patient)
}

/// Whether it waits for the patient's answers.
pub fn is_waiting(form: &Value, patient: &str) -> bool {
    is_own(form, patient) && forms::is_draft(form)
}

async fn page(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let id = patient(&visit)?;
    let owner = id.clone();
    let read = move |view: &View<'_>| record::all_of(view, "QuestionnaireResponse", &owner);
    let mut all = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    all.retain(|form| is_own(form, &id) && text(form, "/status") != "entered-in-error");
    all.sort_by_key(|form| (!forms::is_draft(form), std::cmp::Reverse(text(form, "/authored").to_owned())));
    let zone = web.settings().zone;
    Ok(layout::portal(
        &web,
        &visit,
        Portal::Forms,
        "Forms",
        &html! {
            div.head { h1 { "Forms" } }
            @if all.is_empty() { p.empty { "Nothing waits for you." } }
            ul.rows { @for form in &all { li {
                span.what { a href={ "/forms/" (text(form, "/id")) } { (forms::title(form)) }
                    @if forms::is_draft(form) { " " span.tag.warn { "please fill in" } } @else { " " span.tag.calm { "sent" } } }
                span.when { (dates::show_day(text(form, "/authored"), zone)) }
            } } }
        },
    ))
}

struct Opened {
    response: Value,
    template: Template,
}

async fn open(web: &Web, visit: &Visit, id: &str) -> Result<Opened, PageError> {
    let (owner, id) = (patient(visit)?, id.to_owned());
    let read = move |view: &View<'_>| {
        let response = view.read("QuestionnaireResponse", &id)?.json()?;
        if !is_own(&response, &owner) {
            return Err(StoreError::NotFound);
        }
        let template = forms::template_of(view, &response)?;
        Ok(Opened { response, template })
    };
    Ok(web.store().view(&visit.actor, read).await?)
}

async fn one(State(web): State<Web>, visit: Visit, Path(id): Path<String>) -> Result<Markup, PageError> {
    let opened = open(&web, &visit, &id).await?;
    let answers = Answers::read(&opened.template, &opened.response, web.settings().zone);
    if forms::is_draft(&opened.response) {
        return Ok(editable(&web, &visit, &opened, &answers, &forms::Told::new(), &Problems::default()));
    }
    Ok(layout::portal(
        &web,
        &visit,
        Portal::Forms,
        forms::title(&opened.response),
        &html! {
            p.crumbs { a href="/forms" { "Forms" } }
            div.head { h1 { (forms::title(&opened.response)) } span.tag.calm { "sent" } }
            div.sheet { (forms::answered(&opened.template, &answers)) }
        },
    ))
}

fn editable(
    web: &Web,
    visit: &Visit,
    opened: &Opened,
    answers: &Answers,
    told: &forms::Told,
    problems: &Problems,
) -> Markup {
    let title = forms::title(&opened.response);
    layout::portal(
        web,
        visit,
        Portal::Forms,
        title,
        &html! {
            p.crumbs { a href="/forms" { "Forms" } }
            div.head { h1 { (title) } }
            (problems.summary())
            form.sheet method="post" action={ "/forms/" (text(&opened.response, "/id")) } data-questions="" { (layout::csrf(visit))
                input type="hidden" name="version" value=(version(&opened.response));
                (forms::questions(&opened.template, answers, told, false))
                p.actions {
                    button.primary type="submit" name="do" value="send" { "Send to the practice" }
                    button type="submit" name="do" value="save" { "Save for later" }
                }
            }
            script src=(ASSETS.forms.path) defer {}
        },
    )
}

async fn save(State(web): State<Web>, visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, PageError> {
    let number: u32 = form.text("version").parse().map_err(|_| PageError::Query)?;
    let opened = open(&web, &visit, &id).await?;
    let mut answers = forms::received(&web, &form, &opened.template, &opened.response);
    if let Some(section) = form.text("do").strip_prefix("add ") {
        answers.add_one(&opened.template, section);
    }
    let send = form.text("do") == "send";
    if send {
        let told: forms::Told = answers.problems(&opened.template);
        if !told.is_empty() {
            let mut above = Problems::default();
            above.add("", "It was not sent yet. Please look at the marked questions.");
            let page = editable(&web, &visit, &opened, &answers, &told, &above);
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
        }
    }
    let (owner, now, target) = (patient(&visit)?, web.now_fhir(), id.clone());
    let (actor, template, author) = (visit.actor.clone(), opened.template, super::author(&visit, &owner));
    let store = move |tx: &mut Tx<'_>| {
        let mut body = tx.read("QuestionnaireResponse", &target)?.json()?;
        if !is_waiting(&body, &owner) {
            return Err(StoreError::invalid("this form was sent already", "QuestionnaireResponse.status"));
        }
        answers.put(&template, &mut body);
        body["authored"] = now.as_str().into();
        body["author"] = json!({"reference": author.0, "display": author.1});
        if send {
            body["status"] = "completed".into();
            forms::push_extension(&mut body, forms::signature(forms::SIGNED, &actor, &author.1, &now));
            tx.note(Event::new(audit::Action::Sign, "QuestionnaireResponse", &target).of_patient(&owner));
            let task = format!("A form came back: {}", forms::title(&body));
            let focus = format!("QuestionnaireResponse/{target}");
            tx.create("Task", super::messages::task(&owner, &task, Role::Clinician, &focus, (&author, &now)))?;
        }
        tx.update("QuestionnaireResponse", &target, body, Expect::Version(number))
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect(&if send { "/forms".to_owned() } else { format!("/forms/{id}") }))
}

/// A form that the practice gives a patient, as it is stored.
pub fn for_patient(mut response: Value, patient: &str) -> Value {
    response["source"] = json!({"reference": format!("Patient/{patient}")});
    response["author"] = json!({"reference": format!("Patient/{patient}"), "display": PATIENT});
    response
}
