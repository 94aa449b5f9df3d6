//! For whom one acts: oneself, or those for whom the practice has granted it.

use super::super::form::Form;
use super::super::gate::Visit;
use super::super::layout::{self, Portal};
use super::super::login::redirect;
use super::super::reading::PatientFacts;
use super::super::{Method, PageError, Policy, Route, Web, dates};
use crate::access::accounts::AccountError;
use crate::access::portal::Acting;
use crate::access::proxy::{self, Proxy};
use crate::access::{Actor, Reach};
use crate::audit::{Action, Event};
use crate::store::{self, StoreError, Tx};
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

/// The word of the form for the account's own patient.
const OWN: &str = "own";

pub fn routes(web: &Web) -> Vec<Route> {
    vec![
        Route::new(Method::Get, "/people", Policy::LoggedIn, page, web.clone()),
        Route::new(Method::Post, "/people", Policy::LoggedIn, choose, web.clone()),
    ]
}

fn acting(visit: &Visit) -> Result<&Acting, PageError> {
    visit.session.as_ref().and_then(|session| session.acting.as_ref()).ok_or(PageError::Forbidden)
}

async fn page(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let (own, choices) = {
        let acting = acting(&visit)?;
        (acting.own.clone(), acting.choices.clone())
    };
    // Names of those whom this account was granted; their records are opened, and that noted, when one is chosen.
    let read = move |db: &crate::db::Connection| {
        let named = |id: &str| Ok::<_, StoreError>(store::patient_body(db, id)?.map(|body| PatientFacts::read(&body)));
        let own = own.map(|id| named(&id)).transpose()?.flatten();
        let people: Vec<(Proxy, PatientFacts)> = choices
            .into_iter()
            .map(|proxy| Ok(named(&proxy.patient)?.map(|facts| (proxy, facts))))
            .filter_map(Result::transpose)
            .collect::<Result<_, StoreError>>()?;
        Ok::<_, StoreError>((own, people))
    };
    let (own, people) = web.store().internal(read).await?;
    let now = acting(&visit)?;
    let zone = web.settings().zone;
    let chosen =
        |id: Option<&str>| now.proxy.as_ref().map(|proxy| proxy.id.as_str()) == id && visit.actor.patient().is_some();
    let row = |value: &str, facts: &PatientFacts, is_chosen: bool, more: Markup| {
        html! { li {
            span.what { b { (facts.given) " " (facts.family) } @if let Some(birth) = facts.birth { ", born " (dates::long_day(birth)) } (more) }
            @if is_chosen { span { span.tag.calm { "chosen" } } } @else {
                form.inline method="post" action="/people" data-no-guard="" { (layout::csrf(&visit))
                    button.small type="submit" name="for" value=(value) aria-label={ "Choose " (facts.given) " " (facts.family) } { "Choose" } }
            }
        } }
    };
    Ok(layout::portal(
        &web,
        &visit,
        Portal::People,
        "For whom",
        &html! {
            div.head { h1 { "For whom are you here?" } }
            @if own.is_none() && people.is_empty() {
                p.notice.warn { "At the moment you have no access to anybody's record: it was granted for a time, was withdrawn, or the person does not consent to it. Please call us if that surprises you." }
            }
            ul.rows.choices {
                @if let Some(own) = &own { (row(OWN, own, chosen(None), html! { span.soft { " · yourself" } })) }
                @for (proxy, facts) in &people { (row(&proxy.id, facts, chosen(Some(&proxy.id)), html! {
                    br; span.soft { "you are: " (proxy.relation)
                        @if proxy.reach == Reach::Appointments { " · appointments only" }
                        " · until " (dates::long_day(dates::day_before(dates::local(proxy.ends, zone).date_naive()))) } })) }
            }
            p.hint { "Everything that you see and do for somebody else is recorded with your name, and that person can see it." }
        },
    ))
}

async fn choose(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let session = visit.session.clone().ok_or(PageError::Forbidden)?;
    let (account, own, choices) = {
        let acting = acting(&visit)?;
        (acting.account.clone(), acting.own.clone(), acting.choices.clone())
    };
    let id = Some(form.text("for").to_owned()).filter(|id| id != OWN);
    if id.is_none() && own.is_none() {
        return Err(PageError::NotFound);
    }
    let (now, csrf) = (web.now(), service::auth::random_token());
    // Who acts for whom is known once the grant was found: it is written down as the new actor's.
    let granted = choices.into_iter().find(|proxy| Some(&proxy.id) == id.as_ref());
    let actor = match (&granted, own) {
        (Some(proxy), _) => Actor::of_proxy(&account, proxy),
        (None, Some(own)) if id.is_none() => Actor::of_patient(&account, &own),
        _ => return Err(PageError::NotFound),
    };
    let patient = actor.patient().unwrap_or_default().to_owned();
    let switch = move |tx: &mut Tx<'_>| {
        proxy::act(tx.connection(), &session.token_hash, (&account, id.as_deref()), &csrf, now)?;
        tx.note(Event::new(Action::Login, "portal", "").of_patient(&patient));
        Ok::<_, AccountError>(())
    };
    web.store().write(&actor, switch).await?;
    Ok(redirect("/"))
}
