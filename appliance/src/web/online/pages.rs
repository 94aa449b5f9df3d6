//! What strangers see.

use crate::dates;
use crate::scheduling::book::{Book, Free};
use crate::scheduling::visit::{Online, VisitType};
use crate::web::fields::{Field, Problems};
use crate::web::form::{Form, percent_encode};
use crate::web::gate::Visit;
use crate::web::reading::{concept, text};
use crate::web::{Web, layout};
use chrono::{Duration, NaiveDate};
use maud::{Markup, html};
use serde_json::Value;

pub struct Times<'a> {
    pub book: &'a Book,
    pub offer: &'a VisitType,
    pub days: &'a [(NaiveDate, Vec<Free>)],
    /// The first day that may be booked, the first shown, the last that may be booked.
    pub reach: (NaiveDate, NaiveDate, NaiveDate),
    pub with: &'a str,
}

pub struct Chosen<'a> {
    pub book: &'a Book,
    pub offer: &'a VisitType,
    pub start_s: i64,
}

pub fn offers(web: &Web, _: &Visit, book: &Book) -> Markup {
    let all: Vec<&VisitType> = book.visits.iter().filter(|v| v.active && v.online != Online::Off).collect();
    layout::public(
        web,
        "Appointments",
        &html! {
            h1 { "What would you like to come for?" }
            @if all.is_empty() { p { "Appointments cannot be booked online at the moment. Please call us." } }
            ul.offers { @for offer in all { li { a href={ "/book/" (offer.id) } {
                b { (offer.name) } span.soft { (offer.minutes) " minutes" }
                span { @match offer.online {
                    Online::Direct => "Book a time",
                    Online::Request => "Ask for a time",
                    Online::View | Online::Off => "See free times",
                } }
            } } } }
        },
    )
}

pub fn times(web: &Web, _: &Visit, times: &Times<'_>) -> Markup {
    let Times { book, offer, days, reach: (begin, first, end), with } = times;
    let href = |day: NaiveDate, with: &str| format!("/book/{}?day={day}&with={}", offer.id, percent_encode(with));
    let shown = |s: i64| dates::local(s, book.zone).format("%H:%M").to_string();
    let week = Duration::days(super::PAGE_DAYS);
    layout::public(
        web,
        &offer.name,
        &html! {
            p.crumbs { a href="/book" { "All visits" } }
            h1 { (offer.name) }
            @if !offer.comment.is_empty() { p { (offer.comment) } }
            @if offer.online == Online::View { p.notice.warn { "These times are free. To book one, please call us." } }
            @let practitioners: Vec<_> = book.offering(offer).collect();
            @if practitioners.len() > 1 {
                nav.days aria-label="With whom" {
                    a.button href=(href(*first, "")) aria-current=[with.is_empty().then_some("true")] { "Anybody" }
                    @for c in &practitioners { a.button href=(href(*first, &c.actor)) aria-current=[(c.actor == *with).then_some("true")] { (c.name) } }
                }
            }
            @for (day, free) in days.iter() {
                @if !free.is_empty() {
                    h2 { (dates::week_day(*day)) }
                    div.choose { @for f in free {
                        @if offer.online == Online::View { span.button.still { (shown(f.start_s)) } }
                        @else { a.button href={ "/book/" (offer.id) "/" (f.start_s) "?with=" (percent_encode(&f.practitioner)) } { (shown(f.start_s)) } }
                    } }
                }
            }
            @if days.iter().all(|(_, free)| free.is_empty()) { p.empty { "Nothing is free in this week." } }
            nav.pages aria-label="Weeks" {
                @if first > begin { a.button href=(href((*first - week).max(*begin), with)) { "‹ Earlier" } }
                @if *first + week <= *end { a.button href=(href(*first + week, with)) { "Later ›" } }
            }
            p.hint { "All times are in " (book.zone.name()) "." }
        },
    )
}

fn when(chosen: &Chosen<'_>, with: &str) -> Markup {
    let at = dates::local(chosen.start_s, chosen.book.zone);
    let name = chosen.book.calendar(with).map_or("", |c| c.name.as_str());
    html! { p.chosen { b { (chosen.offer.name) } br; (dates::week_day(at.date_naive())) ", " (at.format("%H:%M")) br; (name) } }
}

pub fn details(web: &Web, visit: &Visit, chosen: &Chosen<'_>, form: &Form, problems: &Problems) -> Markup {
    let field = |label, name| Field::new(label, name, form.text(name));
    layout::public(
        web,
        "Your details",
        &html! {
            p.crumbs { a href={ "/book/" (chosen.offer.id) } { "Other times" } }
            h1 { "Your details" }
            (when(chosen, form.text("with")))
            (problems.summary())
            form.sheet method="post" action={ "/book/" (chosen.offer.id) "/" (chosen.start_s) } {
                (layout::csrf(visit)) input type="hidden" name="with" value=(form.text("with"));
                div.columns {
                    (field("Family name", "family").required().autocomplete("family-name").show(problems))
                    (field("Given name", "given").required().autocomplete("given-name").show(problems))
                    (field("Birth date", "birth").kind("date").required().autocomplete("bday").show(problems))
                    (field("Phone", "phone").kind("tel").required().autocomplete("tel").show(problems))
                }
                (field("E-mail", "email").kind("email").required().autocomplete("email")
                    .hint("We send a code there, to see that it is you.").show(problems))
                (field("Reason", "reason").hint("A few words, if you like").show(problems))
                p.actions { button.primary type="submit" { "Send me the code" } }
            }
        },
    )
}

pub fn code(web: &Web, visit: &Visit, token: &str, problems: &Problems) -> Markup {
    layout::public(
        web,
        "Enter the code",
        &html! {
            h1 { "Enter the code" }
            p { "We sent six digits to your e-mail address. The time is kept for you for five minutes." }
            (problems.summary())
            form.sheet method="post" action="/book/code" {
                (layout::csrf(visit)) input type="hidden" name="token" value=(token);
                (Field::new("Code", "code", "").required().autocomplete("one-time-code").show(problems))
                p.actions { button.primary type="submit" { "Confirm" } }
            }
        },
    )
}

pub fn done(web: &Web, start_s: i64, direct: bool) -> Markup {
    let at = dates::local(start_s, web.settings().zone);
    let title = if direct { "Booked" } else { "We received your request" };
    layout::public(
        web,
        title,
        &html! {
            h1 { (title) }
            p.chosen { (dates::week_day(at.date_naive())) ", " (at.format("%H:%M")) }
            @if direct { p { "We look forward to seeing you. The mail that we sent holds a link to cancel." } }
            @else { p { "The time is kept for you. We will answer by mail." } }
        },
    )
}

pub fn cancel(web: &Web, visit: &Visit, appointment: &Value) -> Markup {
    let at = dates::show(text(appointment, "/start"), web.settings().zone);
    let open = matches!(text(appointment, "/status"), "booked" | "pending");
    layout::public(
        web,
        "Cancel an appointment",
        &html! {
            h1 { "Cancel an appointment" }
            p.chosen { b { (concept(appointment.pointer("/serviceType/0"))) } br; (at) }
            @if open {
                form method="post" action=(visit.here) { (layout::csrf(visit))
                    p.actions { button.primary type="submit" { "Cancel this appointment" } } }
            } @else { p { "This appointment is not booked any more." } }
        },
    )
}

pub fn said(web: &Web, title: &str, sentence: &str) -> Markup {
    layout::public(
        web,
        title,
        &html! { h1 { (title) } p { (sentence) } p.actions { a.button href="/book" { "To the appointments" } } },
    )
}
