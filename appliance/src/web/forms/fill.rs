//! A form in a chart: chosen, prefilled, saved while it is written, signed, co-signed, amended, printed.

use super::asked::{new_response, template_of, title};
use super::questions::{Told, answered, questions};
use super::{ACCOUNT, AMENDS, SIGNED, is_draft, prefill, signature, signed, templates};
use crate::access::{Action, Object, authorize};
use crate::audit;
use crate::dates;
use crate::forms::{Answers, Template, field_name};
use crate::scheduling::extension;
use crate::store::{Expect, StoreError, Tx, View};
use crate::web::assets::ASSETS;
use crate::web::cosign::Requests;
use crate::web::fields::Problems;
use crate::web::form::{Form, FormError};
use crate::web::gate::Visit;
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::reading::{PatientFacts, text, version};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, merged};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use maud::{Markup, html};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("QuestionnaireResponse"));
    vec![
        Route::new(Method::Get, "/patients/{patient}/forms/new", may(Action::Create), choose, w()),
        Route::new(Method::Post, "/patients/{patient}/forms/new", may(Action::Create), begin, w()),
        Route::new(Method::Get, "/patients/{patient}/forms/{form}", may(Action::Read), show, w()),
        Route::new(Method::Post, "/patients/{patient}/forms/{form}", may(Action::Update), save, w()),
        Route::new(Method::Post, "/patients/{patient}/forms/{form}/autosave", may(Action::Update), autosave, w()),
        Route::new(Method::Post, "/patients/{patient}/forms/{form}/amend", may(Action::Create), amend, w()),
    ]
}

/// The forms on the chart, newest first.
pub fn section(web: &Web, visit: &Visit, patient: &PatientFacts, forms: &[Value]) -> Markup {
    let zone = web.settings().zone;
    let mut ordered: Vec<&Value> = forms.iter().filter(|f| text(f, "/status") != "entered-in-error").collect();
    ordered.sort_by_key(|f| std::cmp::Reverse(text(f, "/authored").to_owned()));
    let rows: Vec<Markup> = ordered
        .iter()
        .map(|form| {
            html! {
                span.what { a href={ "/patients/" (merged::owner(form, &patient.id)) "/forms/" (text(form, "/id")) } { (title(form)) }
                    @if is_draft(form) { " " span.tag.warn { (if text(form, "/source/reference").is_empty() { "draft" } else { "with the patient" }) } }
                    (merged::mark(form, &patient.id)) }
                span.when { (dates::show_day(text(form, "/authored"), zone)) }
            }
        })
        .collect();
    let may = chart::may_add(visit, patient, "QuestionnaireResponse");
    let add = format!("/patients/{}/forms/new", patient.id);
    chart::section("Forms", may.then_some((add.as_str(), "Fill in")), &chart::folded(&rows, "No forms yet."))
}

async fn choose(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    chart::require_open(&web, &visit, &patient).await?;
    let (site, id) = (web.clone(), patient);
    let read = move |view: &View<'_>| Ok::<_, StoreError>((chart::banner_in(&site, view, &id)?, templates::all(view)?));
    let ((banner, facts), all) = web.store().view(&visit.actor, read).await?;
    let active: Vec<&Value> = all.iter().filter(|t| text(t, "/status") == "active").collect();
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        "Fill in a form",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Form" }
            div.head { h1 { "Fill in a form" } a.button href="/templates" { "Templates" } }
            @if active.is_empty() { p.empty { "There is no template in use yet." } }
            ul.rows.choices { @for template in active { li {
                @let why = Template::unsupported(template);
                span.what { b { (text(template, "/title")) } @if let Some(why) = &why { br; span.soft { "It cannot be filled in here: " (why) } } }
                @if why.is_none() { form.inline method="post" action={ "/patients/" (facts.id) "/forms/new" } {
                    (layout::csrf(&visit)) (chart::form_identity(&facts.id, ""))
                    input type="hidden" name="template" value=(text(template, "/id"));
                    button.small type="submit" aria-label={ "Begin " (text(template, "/title")) } { "Begin" }
                } }
            } } }
        },
    ))
}

/// Who writes, as FHIR says it.
fn author(visit: &Visit) -> Value {
    let session = visit.session.as_ref();
    let mut author = json!({
        "identifier": {"system": ACCOUNT, "value": visit.actor.id},
        "display": session.map_or(visit.actor.name.as_str(), |s| s.display.as_str()),
    });
    if let Some(practitioner) = session.and_then(|s| s.practitioner.as_ref()) {
        author["reference"] = format!("Practitioner/{practitioner}").into();
    }
    author
}

/// The template that a form names, and what the chart knows of its answers already.
pub async fn chosen_template(
    web: &Web,
    visit: &Visit,
    patient: &str,
    form: &Form,
) -> Result<(Value, Answers), PageError> {
    let zone = web.settings().zone;
    let (id, owner, today) = (form.text("template").to_owned(), patient.to_owned(), dates::today(web.now(), zone));
    let read = move |view: &View<'_>| {
        let template = view.read("Questionnaire", &id)?.json()?;
        if Template::unsupported(&template).is_some() {
            let told = "this template asks for what cannot be filled in here; the list of templates says what";
            return Err(StoreError::invalid(told, "Questionnaire.item"));
        }
        let answers = prefill::answers(view, &Template::read(&template), &owner, (today, zone))?;
        Ok::<_, StoreError>((template, answers))
    };
    Ok(web.store().view(&visit.actor, read).await?)
}

async fn begin(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let (template, answers) = chosen_template(&web, &visit, &patient, &form).await?;
    let mut body = new_response(&template, &patient, author(&visit), &web.now_fhir());
    answers.put(&Template::read(&template), &mut body);
    let store = move |tx: &mut Tx<'_>| tx.create("QuestionnaireResponse", body);
    let stored = web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}/forms/{}", stored.id)))
}

/// A form with the template that it was begun with.
struct Opened {
    banner: Markup,
    patient: PatientFacts,
    response: Value,
    template: Template,
    requests: Requests,
}

async fn open(web: &Web, visit: &Visit, patient: &str, id: &str) -> Result<Opened, PageError> {
    let (site, owner, id) = (web.clone(), patient.to_owned(), id.to_owned());
    let read = move |view: &View<'_>| {
        let response = chart::read_of(view, "QuestionnaireResponse", &id, &owner)?;
        let template = template_of(view, &response)?;
        let (banner, patient) = chart::banner_in(&site, view, &owner)?;
        let requests = if is_draft(&response) { Requests::default() } else { Requests::read(view, &owner)? };
        Ok::<_, StoreError>(Opened { banner, patient, response, template, requests })
    };
    Ok(web.store().view(&visit.actor, read).await?)
}

async fn show(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
) -> Result<Markup, PageError> {
    let opened = open(&web, &visit, &patient, &id).await?;
    let answers = Answers::read(&opened.template, &opened.response, web.settings().zone);
    if is_draft(&opened.response) {
        let number = version(&opened.response);
        return Ok(editable(&web, &visit, &opened, &answers, number, &Told::new(), &Problems::default()));
    }
    Ok(read_only(&web, &visit, &opened, &answers))
}

fn editable(
    web: &Web,
    visit: &Visit,
    opened: &Opened,
    answers: &Answers,
    number: u32,
    told: &Told,
    problems: &Problems,
) -> Markup {
    let Opened { banner, patient, response, template, .. } = opened;
    let action = format!("/patients/{}/forms/{}", patient.id, text(response, "/id"));
    layout::page(
        web,
        visit,
        Section::Patients,
        title(response),
        Some(banner),
        &html! {
            p.crumbs { a href={ "/patients/" (patient.id) } { "Chart" } " › Form" }
            div.head { h1 { (title(response)) } span.tag.warn { "Draft, not signed" } }
            (problems.summary())
            form.sheet method="post" action=(action) data-autosave={ (action) "/autosave" } {
                (layout::csrf(visit)) (chart::form_identity(&patient.id, &number.to_string()))
                (questions(template, answers, told, false))
                p.actions {
                    button type="submit" name="do" value="save" { "Save draft" }
                    button.primary type="submit" name="do" value="sign" { "Save and sign" }
                    a.button.quiet href={ "/patients/" (patient.id) } { "Back to the chart" }
                    span.hint #autosaved role="status" {}
                }
                p.hint { "Saved while you write. Signing makes it final; afterwards it can be amended, and the first version stays." }
            }
            script src=(ASSETS.forms.path) defer {}
        },
    )
}

fn read_only(web: &Web, visit: &Visit, opened: &Opened, answers: &Answers) -> Markup {
    let Opened { banner, patient, response, template, .. } = opened;
    let zone = web.settings().zone;
    let action = format!("/patients/{}/forms/{}", patient.id, text(response, "/id"));
    let first = signed(response, SIGNED);
    let amends = extension(response, AMENDS, "valueReference").map(|r| text(r, "/reference")).unwrap_or_default();
    layout::page(
        web,
        visit,
        Section::Patients,
        title(response),
        Some(banner),
        &html! {
            p.crumbs { a href={ "/patients/" (patient.id) } { "Chart" } " › Form" }
            div.head { h1 { (title(response)) } span.tag.calm { (if amends.is_empty() { "Signed" } else { "Amendment, signed" }) }
                div.tools { button type="button" data-print="" { "Print" } } }
            @if let Some((who, _, when)) = &first { p.soft { "Signed by " b { (who) } ", " (dates::show(when, zone)) } }
            @if let Some(id) = amends.strip_prefix("QuestionnaireResponse/") {
                p { "This replaces " a href={ "/patients/" (patient.id) "/forms/" (id) } { "an earlier version" } "." }
            }
            (opened.requests.shown(web, visit, (&patient.id, &action), response))
            div.sheet { (answered(template, answers)) }
            @if authorize(&visit.actor, Action::Update, Object::resource("QuestionnaireResponse")).is_ok() {
                div.tools.foot {
                    form method="post" action={ (action) "/amend" } {
                        (layout::csrf(visit)) (chart::form_identity(&patient.id, ""))
                        button type="submit" { "Amend" } }
                }
            }
        },
    )
}

/// The answers that a form brings: with what is calculated, without what is not asked, and those that nobody may change as they are
/// stored.
pub fn received(web: &Web, form: &Form, template: &Template, stored: &Value) -> Answers {
    let zone = web.settings().zone;
    let mut answers = Answers::from_fields(form.fields(), zone);
    answers.keep_fixed(template, &Answers::read(template, stored, zone));
    answers.settle(template);
    answers
}

/// Stores the answers of a draft, signed where asked. Gives the new version.
async fn store(
    web: &Web,
    visit: &Visit,
    (patient, id): (&str, &str),
    (answers, template, number): (&Answers, &Template, u32),
    sign: bool,
) -> Result<u32, StoreError> {
    let (owner, id, now) = (patient.to_owned(), id.to_owned(), web.now_fhir());
    let (answers, template) = (answers.clone(), template.clone());
    let (actor, display) =
        (visit.actor.clone(), visit.session.as_ref().map_or(visit.actor.name.clone(), |s| s.display.clone()));
    let save = move |tx: &mut Tx<'_>| {
        let mut body = chart::read_of_tx(tx, "QuestionnaireResponse", &id, &owner)?;
        if !is_draft(&body) {
            return Err(StoreError::invalid("a signed form is not changed: amend it", "QuestionnaireResponse.status"));
        }
        answers.put(&template, &mut body);
        body["authored"] = now.as_str().into();
        if sign {
            let amendment = extension(&body, AMENDS, "valueReference").is_some();
            body["status"] = if amendment { "amended" } else { "completed" }.into();
            push_extension(&mut body, signature(SIGNED, &actor, &display, &now));
            tx.note(audit::Event::new(audit::Action::Sign, "QuestionnaireResponse", &id).of_patient(&owner));
        }
        Ok(tx.update("QuestionnaireResponse", &id, body, Expect::Version(number))?.version)
    };
    web.store().write(&visit.actor, save).await
}

pub fn push_extension(body: &mut Value, extension: Value) {
    if !body["extension"].is_array() {
        body["extension"] = json!([]);
    }
    if let Some(all) = body["extension"].as_array_mut() {
        all.push(extension);
    }
}

async fn save(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let number = chart::checked_version(&form, &patient)?;
    let opened = open(&web, &visit, &patient, &id).await?;
    let mut answers = received(&web, &form, &opened.template, &opened.response);
    if let Some(section) = form.text("do").strip_prefix("add ") {
        answers.add_one(&opened.template, section);
    }
    let sign = form.text("do") == "sign";
    let problems = if sign { answers.problems(&opened.template) } else { BTreeMap::new() };
    if !problems.is_empty() {
        let told: Told = problems;
        let mut above = Problems::default();
        above.add("", "It was not signed yet. Please look at the marked questions.");
        let page = editable(&web, &visit, &opened, &answers, number, &told, &above);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    match store(&web, &visit, (&patient, &id), (&answers, &opened.template, number), sign).await {
        Ok(_) => Ok(redirect(&format!("/patients/{patient}/forms/{id}"))),
        Err(StoreError::VersionConflict { current }) => {
            Ok(merge(&web, &visit, &patient, &id, &answers, current).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Two people wrote at once: the page keeps what this one typed and says beside each question what the other saved. Saving
/// again replaces the other's version knowingly.
async fn merge(
    web: &Web,
    visit: &Visit,
    patient: &str,
    id: &str,
    mine: &Answers,
    current: u32,
) -> Result<Response, PageError> {
    let opened = open(web, visit, patient, id).await?;
    let theirs = Answers::read(&opened.template, &opened.response, web.settings().zone);
    let told: Told = mine
        .differences(&opened.template, &theirs)
        .into_iter()
        .map(|(place, other)| {
            (place, format!("Meanwhile saved here: {}", if other.is_empty() { "nothing" } else { &other }))
        })
        .collect();
    let mut above = Problems::default();
    above.add("", "Somebody else changed this form meanwhile. Your words are kept below, and beside the marked questions stands what the \
                   other saved. Put together what is right, then save again.");
    let page = editable(web, visit, &opened, mine, current, &told, &above);
    Ok((StatusCode::CONFLICT, page).into_response())
}

/// Answers in JSON: the new version, and what was calculated.
async fn autosave(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let number = chart::checked_version(&form, &patient)?;
    let opened = open(&web, &visit, &patient, &id).await?;
    let answers = received(&web, &form, &opened.template, &opened.response);
    let questions = opened.template.questions();
    let calculated = questions.iter().filter(|(i, _)| i.calculation.is_some());
    let values: serde_json::Map<String, Value> =
        calculated.map(|(i, _)| (field_name('a', &i.id, &[]), answers.text(&i.id, &[]).into())).collect();
    // Nothing new: no version for every look at the form.
    let stored = opened.response.get("item").cloned().unwrap_or_else(|| json!([]));
    if answers.write(&opened.template) == stored && version(&opened.response) == number {
        return Ok(answer(StatusCode::OK, &json!({"version": number, "values": values})));
    }
    match store(&web, &visit, (&patient, &id), (&answers, &opened.template, number), false).await {
        Ok(version) => Ok(answer(StatusCode::OK, &json!({"version": version, "values": values}))),
        Err(StoreError::VersionConflict { .. }) => Ok(answer(StatusCode::CONFLICT, &json!({}))),
        Err(error) => Err(error.into()),
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// A draft that begins with what was signed, and says what it replaces.
async fn amend(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    if form.text("patient") != patient {
        return Err(PageError::WrongPatient);
    }
    let (owner, now, writer) = (patient.clone(), web.now_fhir(), author(&visit));
    let save = move |tx: &mut Tx<'_>| {
        let mut body = chart::read_of_tx(tx, "QuestionnaireResponse", &id, &owner)?;
        if is_draft(&body) {
            return Err(PageError::Form(FormError::Malformed));
        }
        body["status"] = "in-progress".into();
        body["authored"] = now.into();
        body["author"] = writer;
        body["extension"] =
            json!([{"url": AMENDS, "valueReference": {"reference": format!("QuestionnaireResponse/{id}")}}]);
        Ok(tx.create("QuestionnaireResponse", body)?.id)
    };
    let fresh = web.store().write(&visit.actor, save).await?;
    Ok(redirect(&format!("/patients/{patient}/forms/{fresh}")))
}
