//! The staff's side of the portal: inviting a patient, ending the access, giving a form, answering a message.

use super::super::fields::{Field, Problems, area};
use super::super::form::Form;
use super::super::forms::templates;
use super::super::gate::{UrlQuery, Visit};
use super::super::layout::{self, Section};
use super::super::login::redirect;
use super::super::reading::{PatientFacts, text};
use super::super::{Method, PageError, Policy, Route, Target, Web, chart, dates, forms};
use super::messages::{self as conversation, TEXT_CHARS_MAX};
use super::proxies;
use crate::access::accounts::AccountError;
use crate::access::{Action, Governs, lockout, portal};
use crate::audit::{self, Event};
use crate::consents::{self, Effect};
use crate::forms::Template;
use crate::messages::{self, Channel, Message};
use crate::store::{Expect, Query, StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};
use service::auth::Totp;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let mut routes = proxies::routes(web);
    let may = |action, kind| Policy::Permits(action, Target::Resource(kind));
    let (get, post) = (Method::Get, Method::Post);
    routes.extend([
        Route::new(get, "/patients/{patient}/portal", may(Action::Update, "Patient"), page, w()),
        Route::new(post, "/patients/{patient}/portal", may(Action::Update, "Patient"), change, w()),
        Route::new(
            post,
            "/patients/{patient}/portal/form",
            may(Action::Create, "QuestionnaireResponse"),
            give_form,
            w(),
        ),
        Route::new(get, "/patients/{patient}/messages", may(Action::Search, "Communication"), thread, w()),
        Route::new(post, "/patients/{patient}/messages", may(Action::Create, "Communication"), answer, w()),
    ]);
    routes
}

async fn page(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    show(&web, &visit, &patient, &Form::default(), &Problems::default()).await
}

/// What the page says of a patient's access.
struct Standing {
    banner: Markup,
    facts: PatientFacts,
    account: Option<portal::Account>,
    /// Failed logins that are counted of it.
    failed: u32,
    invited_until: Option<i64>,
    people: Vec<proxies::Shown>,
    /// What the patient's consents make of acting for them.
    acting: Effect,
    templates: Vec<Value>,
}

async fn standing(web: &Web, visit: &Visit, patient: &str) -> Result<Standing, PageError> {
    let (site, id, now) = (web.clone(), patient.to_owned(), web.now());
    let read = move |view: &View<'_>| {
        let (banner, facts) = chart::banner_in(&site, view, &id)?;
        let templates =
            if view.may(Action::Create, "QuestionnaireResponse") { templates::all(view)? } else { Vec::new() };
        let account = portal::of_patient(view.connection(), &id)?;
        let failed = match &account {
            Some(account) => lockout::counted(view.connection(), &portal::counted_name(&account.mail))?,
            None => 0,
        };
        let invited_until = portal::invited_until(view.connection(), &id, None, now)?;
        let people = proxies::of_patient(view.connection(), &id, now)?;
        let acting = consents::effect(view.connection(), Governs::Proxies, &id, now * 1000)?;
        Ok::<_, AccountError>(Standing { banner, facts, account, failed, invited_until, people, acting, templates })
    };
    Ok(web.store().view(&visit.actor, read).await?)
}

pub(super) async fn show(
    web: &Web,
    visit: &Visit,
    patient: &str,
    form: &Form,
    problems: &Problems,
) -> Result<Markup, PageError> {
    let Standing { banner, facts, account, failed, invited_until, people, acting, templates } =
        standing(web, visit, patient).await?;
    let open = account.as_ref().filter(|account| !account.disabled);
    let day = |s: i64| dates::long_day(dates::local(s, web.settings().zone).date_naive());
    let mail = match (form.text("mail"), &account) {
        ("", Some(account)) => account.mail.clone(),
        ("", None) => facts.email.clone(),
        (typed, _) => typed.to_owned(),
    };
    let action = format!("/patients/{}/portal", facts.id);
    Ok(layout::page(
        web,
        visit,
        Section::Patients,
        "Portal",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Portal" }
            div.head { h1 { "Patient portal" } a.button href={ "/patients/" (facts.id) "/messages" } { "Messages" } }
            (problems.summary())
            @if web.settings().portal.is_none() {
                p.notice.warn { "The portal is not switched on: " code { "portal_listen" } " in appliance.toml." }
            }
            @if acting != Effect::Permitted {
                p.notice.warn { "The patient's consents keep out everybody who acts for them: "
                    (if acting == Effect::Refused { "it was refused or withdrawn. " } else { "nobody has agreed to it yet. " })
                    a href={ "/patients/" (facts.id) "/consents" } { "Consents" } }
            }
            div.grid {
                section.panel { h2 { "Access" }
                    @match open {
                        Some(account) => p { "Open since " (day(account.created)) ", with " b { (account.mail) } " and a code "
                            (if account.authenticator { "of an authenticator app." } else { "by mail." }) },
                        None => p { "The patient has no access." },
                    }
                    @if let Some(until) = invited_until { p { "An invitation is open until " (day(until)) "." } }
                    @if open.is_some() || invited_until.is_some() {
                        form method="post" action=(action) { (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                            @if open.is_some() && failed > 0 {
                                p { (failed) @if failed == 1 { " failed login is" } @else { " failed logins are" } " counted; after several the next ones wait." }
                                button type="submit" name="do" value="unlock" { "Forget failed logins" } " "
                            }
                            button type="submit" name="do" value="end" { "End the access" } }
                    }
                }
                @if facts.goes_on.is_none() { section.panel { h2 { "Invite" }
                    form method="post" action=(action) { (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                        (Field::new("E-mail", "mail", &mail).kind("email").required()
                            .hint("Ask the patient in person: who reads this address can open the record with the birth date").show(problems))
                        p.actions { button.primary type="submit" name="do" value="invite" {
                            @if open.is_some() { "Invite anew" } @else { "Invite" } } }
                        p.hint { "A link for " (portal::INVITE_S / 86_400) " days, good once. Also for a lost password: the old access ends when the link is used." }
                    }
                } }
                (proxies::panel(web, visit, (&facts, acting), &people, (form, problems)))
                @if !templates.is_empty() && facts.goes_on.is_none() {
                    section.panel { h2 { "Give a form" }
                        ul.rows.choices { @for template in templates.iter().filter(|t| text(t, "/status") == "active" && Template::unsupported(t).is_none()) { li {
                            span.what { b { (text(template, "/title")) } }
                            form.inline method="post" action={ (action) "/form" } { (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                                input type="hidden" name="template" value=(text(template, "/id"));
                                button.small type="submit" aria-label={ "Give " (text(template, "/title")) } { "Give" } }
                        } } }
                    }
                }
            }
        },
    ))
}

async fn change(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    if form.text("do") == "end" {
        let (owner, now) = (patient.clone(), web.now());
        let store = move |tx: &mut Tx<'_>| {
            tx.read("Patient", &owner)?;
            portal::end(tx.connection(), &owner, now)?;
            tx.note(Event::new(audit::Action::UserChange, "portal", "").of_patient(&owner));
            Ok::<_, AccountError>(())
        };
        web.store().write(&visit.actor, store).await?;
        return Ok(redirect(&format!("/patients/{patient}/portal")));
    }
    if form.text("do") == "unlock" {
        let owner = patient.clone();
        let store = move |tx: &mut Tx<'_>| {
            tx.read("Patient", &owner)?;
            let account = portal::of_patient(tx.connection(), &owner)?.ok_or(AccountError::UnknownMail)?;
            unlock(tx, &account, &owner)
        };
        web.store().write(&visit.actor, store).await?;
        return Ok(redirect(&format!("/patients/{patient}/portal")));
    }
    let mut problems = Problems::default();
    let Some(mail) = portal::mail_address(form.text("mail")) else {
        problems.add("mail", AccountError::BadMail.to_string());
        return Ok(
            (StatusCode::UNPROCESSABLE_ENTITY, show(&web, &visit, &patient, &form, &problems).await?).into_response()
        );
    };
    let link = Link::new(&web);
    let (owner, to, site, sent) = (patient.clone(), mail.clone(), web.clone(), link.clone());
    let store = move |tx: &mut Tx<'_>| {
        tx.read("Patient", &owner)?;
        tx.require_open(&owner)?;
        let whom = portal::Invited { patient: &owner, proxy: None, mail: &to };
        invite(tx, &site, whom, &sent)
    };
    web.store().write(&visit.actor, store).await?;
    Ok(invited(&web, &visit, &patient, &mail, &link).await?.into_response())
}

/// Forgets what was counted of an account, seen from this patient's page.
pub(super) fn unlock(tx: &mut Tx<'_>, account: &portal::Account, patient: &str) -> Result<(), AccountError> {
    portal::unlock(tx.connection(), account)?;
    tx.note(Event::new(audit::Action::UserChange, "unlock", &account.id).of_patient(patient));
    Ok(())
}

/// The one-time link of an invitation.
#[derive(Clone)]
pub(super) struct Link {
    token: String,
    totp_secret: String,
    url: String,
}

impl Link {
    pub fn new(web: &Web) -> Self {
        let (token, base) = (service::auth::random_token(), web.settings().portal.clone().unwrap_or_default());
        let url = format!("{base}/invite/{token}");
        Self { token, totp_secret: Totp::generate_secret(), url }
    }
}

/// Invites a patient, or who acts for one, and sends the link where mail can leave.
pub(super) fn invite(tx: &mut Tx<'_>, web: &Web, whom: portal::Invited<'_>, link: &Link) -> Result<(), AccountError> {
    portal::invite(tx.connection(), &link.token, whom, &link.totp_secret, tx.now_ms() / 1000)?;
    tx.note(Event::new(audit::Action::UserChange, "portal", "invite").of_patient(whom.patient));
    if !web.settings().has_mail {
        return Ok(());
    }
    let (practice, url) = (&web.settings().practice_name, &link.url);
    let text = format!(
        "{practice} invites you to its patient portal:\n{url}\n\nThe link works once, for 7 days. You will be asked for your birth date.\n"
    );
    let message = Message { to: whom.mail.to_owned(), subject: format!("{practice}: your invitation"), text };
    Ok(messages::queue(tx, Channel::Mail, "", &message, tx.now_ms())?)
}

pub(super) async fn invited(
    web: &Web,
    visit: &Visit,
    patient: &str,
    mail: &str,
    link: &Link,
) -> Result<Markup, PageError> {
    let (banner, facts) = chart::banner(web, visit, patient).await?;
    Ok(layout::page(
        web,
        visit,
        Section::Patients,
        "Invited",
        Some(&banner),
        &html! {
            div.head { h1 { "Invited" } }
            @if web.settings().has_mail {
                p { "A mail with the link is on its way to " b { (mail) } "." }
            } @else {
                div.notice.warn { p { "No mail is set up here, so hand this over in person. It is shown only once." } }
                p { code.copy { (link.url) } }
                p { button type="button" data-print="" { "Print" } }
            }
            p.actions { a.button href={ "/patients/" (facts.id) "/portal" } { "Done" } }
        },
    ))
}

/// Tells a patient who has an account that something is there, and not what.
fn tell(tx: &mut Tx<'_>, web: &Web, patient: &str, what: &str) -> Result<(), StoreError> {
    let account = portal::of_patient(tx.connection(), patient).map_err(|_| StoreError::Damaged("portal_account"))?;
    let (Some(account), Some(base)) = (account.filter(|a| !a.disabled), &web.settings().portal) else { return Ok(()) };
    if !web.settings().has_mail {
        return Ok(());
    }
    let practice = &web.settings().practice_name;
    let message = Message {
        to: account.mail,
        subject: format!("{practice}: {what}"),
        text: format!("{practice}: {what}. Please log in to see it:\n{base}/\n"),
    };
    messages::queue(tx, Channel::Mail, "", &message, tx.now_ms())
}

async fn give_form(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let (template, answers) = forms::chosen_template(&web, &visit, &patient, &form).await?;
    let mut body = forms::new_response(&template, &patient, Value::Null, &web.now_fhir());
    body = super::forms::for_patient(body, &patient);
    answers.put(&Template::read(&template), &mut body);
    let (site, owner) = (web.clone(), patient.clone());
    let store = move |tx: &mut Tx<'_>| {
        tx.create("QuestionnaireResponse", body)?;
        tell(tx, &site, &owner, "a form waits for you")
    };
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}")))
}

async fn thread(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    UrlQuery(asked): UrlQuery<conversation::Asked>,
) -> Result<Markup, PageError> {
    thread_page(&web, &visit, &patient, ("", &Problems::default()), asked.newer).await
}

async fn thread_page(
    web: &Web,
    visit: &Visit,
    patient: &str,
    (typed, problems): (&str, &Problems),
    newer: usize,
) -> Result<Markup, PageError> {
    let (site, id, now, zone) = (web.clone(), patient.to_owned(), web.now(), web.settings().zone);
    let read = move |view: &View<'_>| {
        let (banner, facts) = chart::banner_in(&site, view, &id)?;
        let told = conversation::conversation(&super::record::all_of(view, "Communication", &id)?, &id, zone);
        let account = portal::of_patient(view.connection(), &id)?.filter(|account| !account.disabled);
        let invited = portal::invited_until(view.connection(), &id, None, now)?.is_some();
        Ok::<_, AccountError>((banner, facts, told, account.is_some(), invited))
    };
    let (banner, facts, told, has_access, invited) = web.store().view(&visit.actor, read).await?;
    Ok(layout::page(
        web,
        visit,
        Section::Patients,
        "Messages",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Messages" }
            div.head { h1 { "Messages with the patient" } }
            (problems.summary())
            (conversation::shown(&told, zone, (&format!("Patient/{}", facts.id), &facts.full_name()), (&format!("/patients/{}/messages", facts.id), newer)))
            @if told.is_empty() { p.empty { "No messages yet." } }
            @if !has_access { p.notice.warn { @if invited { "The patient was invited and has not opened the account yet." } @else { "The patient has no access to the portal and will not see a message." } } }
            form.sheet method="post" action={ "/patients/" (facts.id) "/messages" } { (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                (area("Message to the patient", "text", typed, 5, problems))
                p.actions { button.primary type="submit" { "Send to the patient" } }
                p.hint { "Open tasks about messages of this patient are done with it." }
            }
        },
    ))
}

async fn answer(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let words = form.raw("text").trim().to_owned();
    if words.is_empty() || words.chars().count() > TEXT_CHARS_MAX {
        let mut problems = Problems::default();
        problems.add("text", "Please write up to 5000 characters.");
        let page = thread_page(&web, &visit, &patient, (form.raw("text"), &problems), 0).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let display = visit.session.as_ref().map_or(visit.actor.name.clone(), |s| s.display.clone());
    let reference = format!("Patient/{patient}");
    let message = json!({
        "resourceType": "Communication", "status": "completed", "subject": {"reference": reference},
        "sender": {"identifier": {"system": forms::ACCOUNT, "value": visit.actor.id}, "display": display},
        "recipient": [{"reference": reference}], "sent": web.now_fhir(), "payload": [{"contentString": words}],
    });
    let (site, owner) = (web.clone(), patient.clone());
    let store = move |tx: &mut Tx<'_>| {
        tx.read("Patient", &owner)?;
        tx.create("Communication", message)?;
        settle(tx, &owner)?;
        tell(tx, &site, &owner, "a message waits for you")
    };
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}/messages")))
}

/// What was to be done about messages of this patient is done.
fn settle(tx: &mut Tx<'_>, patient: &str) -> Result<(), StoreError> {
    let open = [("status".to_owned(), "requested,in-progress".to_owned())];
    let query = Query::parse("Task", &open)?.of_patient(patient);
    for mut task in chart::jsons(&tx.search(&query)?.resources)? {
        if !text(&task, "/focus/reference").starts_with("Communication/") {
            continue;
        }
        let (id, version) = (text(&task, "/id").to_owned(), super::super::reading::version(&task));
        task["status"] = "completed".into();
        tx.update("Task", &id, task, Expect::Version(version))?;
    }
    Ok(())
}
