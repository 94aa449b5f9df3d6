//! The staff's side of acting for a patient: who may, how far and until when; granted, invited, withdrawn.

use super::super::fields::{Field, Problems, pairs, select};
use super::super::form::Form;
use super::super::gate::Visit;
use super::super::layout;
use super::super::login::redirect;
use super::super::reading::PatientFacts;
use super::super::{Method, PageError, Policy, Route, Target, Web, chart, dates};
use super::desk;
use crate::access::accounts::AccountError;
use crate::access::proxy::{self, Owner, Proxy, RELATIONS};
use crate::access::{Action, Governs, Reach, lockout, portal};
use crate::audit::{self, Event};
use crate::consents::{self, Effect};
use crate::messages::{self, Channel, Message};
use crate::store::{Expect, StoreError, Tx};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chrono::{Datelike, NaiveDate};
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};

/// From this birthday on a patient decides alone.
const ADULT_YEARS: i32 = 18;
const NAME_CHARS_MAX: usize = 80;

pub fn routes(web: &Web) -> Vec<Route> {
    let may = |action| Policy::Permits(action, Target::Resource("RelatedPerson"));
    let post = Method::Post;
    vec![
        Route::new(post, "/patients/{patient}/portal/people", may(Action::Create), grant, web.clone()),
        Route::new(post, "/patients/{patient}/portal/people/{proxy}", may(Action::Update), change, web.clone()),
    ]
}

/// A grant as the page shows it.
pub struct Shown {
    pub proxy: Proxy,
    pub invited_until: Option<i64>,
    /// The account is a patient's own: its password is none of this page's business.
    pub is_patient: bool,
    /// Failed logins that are counted of it.
    pub failed: u32,
}

/// Who may act for a patient.
pub fn of_patient(db: &crate::db::Connection, patient: &str, now: i64) -> Result<Vec<Shown>, AccountError> {
    let shown = |proxy: Proxy| {
        let invited_until = portal::invited_until(db, patient, Some(&proxy.id), now)?;
        let account = portal::credentials(db, &proxy.mail)?.map(|found| found.account);
        let failed = lockout::counted(db, &portal::counted_name(&proxy.mail))?;
        let is_patient = account.is_some_and(|account| account.patient.is_some());
        Ok(Shown { proxy, invited_until, is_patient, failed })
    };
    proxy::of_patient(db, patient)?.into_iter().map(shown).collect()
}

/// The last day of a grant where nobody says another one: of a minor the day before the birthday at which they decide
/// themselves, of an adult a year from now.
fn last_day(birth: Option<NaiveDate>, today: NaiveDate) -> NaiveDate {
    let later = |day: NaiveDate, years: i32| {
        // Who was born on 29 February has the birthday on 1 March.
        day.with_year(day.year() + years).or_else(|| NaiveDate::from_ymd_opt(day.year() + years, 3, 1)).unwrap_or(day)
    };
    let adult = birth.map(|birth| later(birth, ADULT_YEARS)).filter(|day| *day > today);
    dates::day_before(adult.unwrap_or_else(|| later(today, 1)))
}

/// The part of the portal page about them.
pub fn panel(
    web: &Web,
    visit: &Visit,
    (facts, acting): (&PatientFacts, Effect),
    people: &[Shown],
    (form, problems): (&Form, &Problems),
) -> Markup {
    let (zone, now) = (web.settings().zone, web.now());
    let action = format!("/patients/{}/portal/people", facts.id);
    let until = match form.text("until") {
        "" => last_day(facts.birth, dates::today(now, zone)).to_string(),
        typed => typed.to_owned(),
    };
    let relations: Vec<(String, String)> = RELATIONS.iter().map(|(word, _)| ((*word).into(), (*word).into())).collect();
    let scopes = pairs(&[("all", "Everything that the patient sees"), ("appointments", "Appointments only")]);
    let scope = if form.text("scope").is_empty() { "all" } else { form.text("scope") };
    html! {
        section.panel { h2 { "People who act for the patient" }
            @if people.is_empty() { p.empty { "Nobody." } }
            ul.rows { @for shown in people { li { (one(visit, (&facts.id, acting), shown, (zone, now))) } } }
            @if acting != Effect::Permitted { p.hint { "Nobody new can be let in now: " a href={ "/patients/" (facts.id) "/consents" } { "the patient's consents" } " keep them out." } }
            @else if facts.goes_on.is_none() { details open[!problems.is_empty()] { summary { "Let somebody act for the patient" }
                form method="post" action=(action) { (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                    (Field::new("Given name", "given", form.text("given")).required().show(problems))
                    (Field::new("Family name", "family", form.text("family")).required().show(problems))
                    (Field::new("Birth date of this person", "birth", form.text("birth")).kind("date").required()
                        .hint("The invitation asks for it").show(problems))
                    (Field::new("E-mail of this person", "proxy-mail", form.text("proxy-mail")).kind("email").required()
                        .hint("One address, one login: for all patients this person acts for, and the own record").show(problems))
                    (select("Relation to the patient", "relation", form.text("relation"), &relations, true, problems))
                    (select("Sees", "scope", scope, &scopes, true, problems))
                    (Field::new("Last day", "until", &until).kind("date").required()
                        .hint("Of a minor the day before the 18th birthday, unless there is a reason for another one").show(problems))
                    p.actions { button.primary type="submit" { "Let this person act" } }
                }
            } }
        }
    }
}

fn one(visit: &Visit, (patient, acting): (&str, Effect), shown: &Shown, (zone, now): (chrono_tz::Tz, i64)) -> Markup {
    let proxy = &shown.proxy;
    let day = |s: i64| dates::long_day(dates::local(s, zone).date_naive());
    let last = dates::long_day(dates::day_before(dates::local(proxy.ends, zone).date_naive()));
    let button = |what: &str, label: &str| {
        html! { button.small type="submit" name="do" value=(what) aria-label={ (label) " " (proxy.name) } { (label) } }
    };
    html! {
        span.what { b { (proxy.name) } ", " (proxy.relation) br;
            span.soft { (proxy.mail) @if proxy.reach == Reach::Appointments { " · appointments only" } @else { " · sees everything" } " · until " (last) }
            @if proxy.holds(now) && acting != Effect::Permitted { " " span.tag.warn { "kept out by the patient's consents" } }
            @if !proxy.holds(now) { " " span.tag { "over" } }
            @else if let Some(until) = shown.invited_until { " " span.tag.warn { "invited, open until " (day(until)) } }
            @else if proxy.account.is_none() { " " span.tag.warn { "the invitation is over" } }
        }
        form.inline method="post" action={ "/patients/" (patient) "/portal/people/" (proxy.id) } {
            (layout::csrf(visit)) (chart::form_identity(patient, ""))
            @if proxy.account.is_some() && shown.failed > 0 { (button("unlock", "Forget failed logins")) }
            @if proxy.holds(now) && !shown.is_patient && acting == Effect::Permitted { (button("invite", "Invite anew")) }
            (button("withdraw", "Withdraw"))
        }
    }
}

/// What was typed, and is good.
struct Wanted {
    given: String,
    family: String,
    birth: NaiveDate,
    mail: String,
    relation: (&'static str, Option<&'static str>),
    reach: Reach,
    ends: i64,
    until: NaiveDate,
}

fn read(web: &Web, form: &Form) -> Result<Wanted, Problems> {
    let (zone, mut problems) = (web.settings().zone, Problems::default());
    let today = dates::today(web.now(), zone);
    for name in ["given", "family"] {
        if form.text(name).is_empty() || form.text(name).chars().count() > NAME_CHARS_MAX {
            problems.add(name, "Please enter a name of up to 80 characters.");
        }
    }
    let birth = dates::parse_day(form.text("birth")).filter(|day| *day < today);
    if birth.is_none() {
        problems.add("birth", "Please enter the birth date of who shall act.");
    }
    let mail = portal::mail_address(form.text("proxy-mail"));
    if mail.is_none() {
        problems.add("proxy-mail", AccountError::BadMail.to_string());
    }
    let relation = RELATIONS.into_iter().find(|(word, _)| *word == form.text("relation"));
    if relation.is_none() {
        problems.add("relation", "Please choose the relation.");
    }
    let reach = Reach::parse(form.text("scope"));
    if reach.is_none() {
        problems.add("scope", "Please choose what this person sees.");
    }
    let until = dates::parse_day(form.text("until")).filter(|day| *day >= today);
    if until.is_none() {
        problems.add("until", "Please enter the last day; it cannot be past.");
    }
    match (birth, mail, relation, reach, until, problems.is_empty()) {
        (Some(birth), Some(mail), Some(relation), Some(reach), Some(until), true) => {
            let ends = dates::day_start(dates::day_after(until), zone).timestamp();
            let (given, family) = (form.text("given").to_owned(), form.text("family").to_owned());
            Ok(Wanted { given, family, birth, mail, relation, reach, ends, until })
        }
        _ => Err(problems),
    }
}

/// Why nothing was granted.
enum Refused {
    Account(AccountError),
    /// The person is the patient.
    Same,
    /// Acts for this patient already.
    Already,
}

impl From<AccountError> for Refused {
    fn from(error: AccountError) -> Self {
        Self::Account(error)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Account(error.into())
    }
}

async fn grant(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let again = async |problems: &Problems| {
        let page = desk::show(&web, &visit, &patient, &form, problems).await?;
        Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
    };
    let wanted = match read(&web, &form) {
        Ok(wanted) => wanted,
        Err(problems) => return again(&problems).await,
    };
    let id = crate::clock::new_id().map_err(|_| PageError::Internal("randomness"))?;
    let link = desk::Link::new(&web);
    let (owner, mail, site, sent, now) = (patient.clone(), wanted.mail.clone(), web.clone(), link.clone(), web.now());
    let store = move |tx: &mut Tx<'_>| {
        tx.read("Patient", &owner)?;
        require_let(tx, &owner)?;
        let account = account_of(tx, &owner, &wanted, now)?;
        let related = tx.create("RelatedPerson", resource(&owner, &wanted))?;
        let proxy = Proxy {
            id,
            patient: owner,
            related: related.id,
            account,
            name: format!("{} {}", wanted.given, wanted.family),
            birth: wanted.birth.to_string(),
            mail: wanted.mail,
            relation: wanted.relation.0.to_owned(),
            reach: wanted.reach,
            granted: now,
            ends: wanted.ends,
            withdrawn: false,
        };
        proxy::grant(tx.connection(), &proxy)?;
        tx.note(Event::new(audit::Action::UserChange, "portal-proxy", &proxy.id).of_patient(&proxy.patient));
        match &proxy.account {
            Some(_) => tell(tx, &site, &proxy)?,
            None => desk::invite(tx, &site, invitation(&proxy), &sent)?,
        }
        Ok::<_, Refused>(proxy.account.is_some())
    };
    let refused = match web.store().write(&visit.actor, store).await {
        Ok(true) => return Ok(redirect(&format!("/patients/{patient}/portal"))),
        Ok(false) => return Ok(desk::invited(&web, &visit, &patient, &mail, &link).await?.into_response()),
        Err(refused) => refused,
    };
    let mut problems = Problems::default();
    match refused {
        Refused::Account(error @ AccountError::KeptOut) => problems.add("", format!("Nobody was let in: {error}.")),
        Refused::Account(error @ AccountError::MailOfAnother) => problems.add("proxy-mail", error.to_string()),
        Refused::Same => problems.add("proxy-mail", "This is the patient's own address."),
        Refused::Already => {
            problems.add("proxy-mail", "This person acts for the patient already: withdraw that first.")
        }
        Refused::Account(error) => return Err(error.into()),
    }
    again(&problems).await
}

/// Nobody is invited whom the patient keeps out: the mail would promise what no page then opens.
fn require_let(tx: &Tx<'_>, patient: &str) -> Result<(), AccountError> {
    tx.require_open(patient)?;
    match consents::permits(tx.connection(), Governs::Proxies, patient, tx.now_ms())? {
        true => Ok(()),
        false => Err(AccountError::KeptOut),
    }
}

fn invitation(proxy: &Proxy) -> portal::Invited<'_> {
    portal::Invited { patient: &proxy.patient, proxy: Some(&proxy.id), mail: &proxy.mail }
}

/// The account that the address opens already, where it is that of the same person.
fn account_of(tx: &Tx<'_>, patient: &str, wanted: &Wanted, now: i64) -> Result<Option<String>, Refused> {
    let all = proxy::of_patient(tx.connection(), patient)?;
    if all.iter().any(|proxy| proxy.mail == wanted.mail && proxy.holds(now)) {
        return Err(Refused::Already);
    }
    match proxy::owner_of(tx.connection(), &wanted.mail, &wanted.birth.to_string())? {
        Owner::Nobody => Ok(None),
        Owner::Proxy(account) => Ok(Some(account)),
        Owner::Patient { patient: own, .. } if own == patient => Err(Refused::Same),
        Owner::Patient { account, patient: own } => {
            let facts = PatientFacts::read(&tx.read("Patient", &own)?.json()?);
            match facts.birth == Some(wanted.birth) {
                true => Ok(Some(account)),
                false => Err(AccountError::MailOfAnother.into()),
            }
        }
    }
}

fn resource(patient: &str, wanted: &Wanted) -> Value {
    let (word, code) = wanted.relation;
    let mut relation = json!({"text": word});
    if let Some(code) = code {
        relation["coding"] = json!([{"system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "code": code}]);
    }
    json!({
        "resourceType": "RelatedPerson", "active": true, "patient": {"reference": format!("Patient/{patient}")},
        "relationship": [relation], "name": [{"family": wanted.family, "given": [wanted.given]}],
        "telecom": [{"system": "email", "value": wanted.mail}], "birthDate": wanted.birth.to_string(),
        "period": {"end": wanted.until.to_string()},
    })
}

/// Tells somebody who logs in already that there is one more person, and not who.
fn tell(tx: &mut Tx<'_>, web: &Web, proxy: &Proxy) -> Result<(), StoreError> {
    let (Some(base), true) = (&web.settings().portal, web.settings().has_mail) else { return Ok(()) };
    let practice = &web.settings().practice_name;
    let message = Message {
        to: proxy.mail.clone(),
        subject: format!("{practice}: you may act for somebody"),
        text: format!(
            "{practice} lets you act for one more person in its patient portal. Please log in to see it:\n{base}/\n"
        ),
    };
    messages::queue(tx, Channel::Mail, "", &message, tx.now_ms())
}

async fn change(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    match form.text("do") {
        "withdraw" => {
            let (owner, now, today) = (patient.clone(), web.now(), dates::today(web.now(), web.settings().zone));
            let store = move |tx: &mut Tx<'_>| {
                let proxy = proxy::load(tx.connection(), &owner, &id)?;
                proxy::withdraw(tx.connection(), &proxy, now)?;
                // Whatever became of that resource, the access ends.
                match tx.read("RelatedPerson", &proxy.related) {
                    Ok(current) => {
                        let mut body = current.json()?;
                        body["active"] = false.into();
                        body["period"]["end"] = today.to_string().into();
                        tx.update("RelatedPerson", &proxy.related, body, Expect::Version(current.version))?;
                    }
                    Err(StoreError::NotFound) => {}
                    Err(error) => return Err(error.into()),
                }
                tx.note(Event::new(audit::Action::UserChange, "portal-proxy", &proxy.id).of_patient(&owner));
                Ok::<_, AccountError>(())
            };
            web.store().write(&visit.actor, store).await?;
            Ok(redirect(&format!("/patients/{patient}/portal")))
        }
        "invite" => {
            let link = desk::Link::new(&web);
            let (owner, site, sent, now) = (patient.clone(), web.clone(), link.clone(), web.now());
            let store = move |tx: &mut Tx<'_>| {
                let proxy = proxy::load(tx.connection(), &owner, &id)?;
                require_let(tx, &owner)?;
                let own = portal::credentials(tx.connection(), &proxy.mail)?.and_then(|found| found.account.patient);
                if !proxy.holds(now) || own.is_some() {
                    return Err(AccountError::UnknownProxy);
                }
                desk::invite(tx, &site, invitation(&proxy), &sent)?;
                Ok::<_, AccountError>(proxy.mail)
            };
            let mail = web.store().write(&visit.actor, store).await?;
            Ok(desk::invited(&web, &visit, &patient, &mail, &link).await?.into_response())
        }
        "unlock" => {
            let owner = patient.clone();
            let store = move |tx: &mut Tx<'_>| {
                let proxy = proxy::load(tx.connection(), &owner, &id)?;
                let found = portal::credentials(tx.connection(), &proxy.mail)?.ok_or(AccountError::UnknownMail)?;
                desk::unlock(tx, &found.account, &owner)
            };
            web.store().write(&visit.actor, store).await?;
            Ok(redirect(&format!("/patients/{patient}/portal")))
        }
        _ => Err(PageError::Query),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_ends_before_the_birthday_at_which_the_patient_decides() {
        let day = |text: &str| dates::parse_day(text).unwrap();
        let today = day("2024-02-29");
        for (birth, last) in [
            (Some("2016-05-06"), "2034-05-05"),
            (Some("2008-02-29"), "2026-02-28"),
            (Some("2006-03-01"), "2024-02-29"),
            // Of age today, or long since: a year.
            (Some("2006-02-28"), "2025-02-28"),
            (None, "2025-02-28"),
        ] {
            assert_eq!(last_day(birth.map(day), today), day(last), "{birth:?}");
        }
    }
}
