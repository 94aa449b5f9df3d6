//! Booking, moving and cancelling inside a transaction: what was wished for is checked, named when it cannot be, and stored.

use super::book::{Asker, Book, Kind};
use super::occupancy::{self, Clash};
use super::slots::Span;
use super::visit::VisitType;
use super::{OVERRIDE, SERIES, set_extension};
use crate::dates;
use crate::store::{Expect, Resource, StoreError, Tx};
use chrono::DateTime;
use serde_json::{Value, json};

/// A room or a piece of equipment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// One that the visit type names and that is free.
    Suitable,
    None,
    One(String),
}

#[derive(Debug, Clone)]
pub struct Wish {
    /// `Patient/...` and how the calendar calls the patient.
    pub patient: (String, String),
    pub visit: Option<VisitType>,
    /// `Practitioner/...`
    pub practitioner: String,
    pub room: Choice,
    pub equipment: Choice,
    pub span: Span,
    /// `booked`, or `pending` for a request that waits for approval.
    pub status: &'static str,
    pub reason: String,
    /// Why it is booked although the calendar refuses; empty for not at all.
    pub all_the_same: String,
    pub series: Option<String>,
    /// The waiting list's entry that this fulfils, with its version.
    pub waiting: Option<(String, u32)>,
    /// Who held the time, if anybody.
    pub holder: String,
}

/// Why the calendar refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Busy(Clash),
    /// Outside of the practitioner's hours.
    Closed,
    /// No suitable room or equipment is free.
    NoPlace(Kind),
}

pub type Told<T> = Result<Result<T, Refusal>, StoreError>;

/// Books, or says why not. Nothing is stored then.
pub fn book(tx: &mut Tx<'_>, book: &Book, wish: &Wish) -> Told<Resource> {
    let places = match places(tx, book, wish)? {
        Ok(places) => places,
        Err(_) if overridden(&wish.all_the_same) => Vec::new(),
        Err(kind) => return Ok(Err(Refusal::NoPlace(kind))),
    };
    let mut actors = vec![wish.patient.0.as_str(), wish.practitioner.as_str()];
    actors.extend(places.iter().map(String::as_str));
    if let Some(refusal) = refusal(tx, book, &actors, (wish.span, 0), (&wish.holder, &wish.all_the_same))? {
        return Ok(Err(refusal));
    }
    let body = appointment(book, wish, &places);
    let stored = match &wish.waiting {
        Some((id, version)) => {
            let mut waiting = tx.read("Appointment", id)?.json()?;
            if let (Some(old), Value::Object(new)) = (waiting.as_object_mut(), body) {
                old.remove("requestedPeriod");
                old.extend(new);
            }
            tx.update("Appointment", id, waiting, Expect::Version(*version))?
        }
        None => tx.create("Appointment", body)?,
    };
    if !wish.holder.is_empty() {
        occupancy::release(tx.connection(), &wish.holder)?;
    }
    Ok(Ok(stored))
}

fn overridden(reason: &str) -> bool {
    !reason.trim().is_empty()
}

fn refusal(
    tx: &Tx<'_>,
    book: &Book,
    actors: &[&str],
    (span, but): (Span, i64),
    (holder, all_the_same): (&str, &str),
) -> Result<Option<Refusal>, StoreError> {
    if overridden(all_the_same) {
        return Ok(None);
    }
    let now_s = tx.now_ms() / 1000;
    if let Some(clash) = occupancy::clash(tx.connection(), actors, span, but, holder, now_s)? {
        return Ok(Some(Refusal::Busy(clash)));
    }
    let closed = actors.iter().filter_map(|a| book.calendar(a)).any(|c| !book.is_open(c, span));
    Ok(closed.then_some(Refusal::Closed))
}

fn places(tx: &Tx<'_>, book: &Book, wish: &Wish) -> Result<Result<Vec<String>, Kind>, StoreError> {
    let asker = Asker { holder: &wish.holder, now_s: tx.now_ms() / 1000 };
    let mut suitable = wish.visit.clone().unwrap_or_else(VisitType::plain);
    // What was chosen by hand is not looked for.
    if wish.room != Choice::Suitable {
        suitable.rooms.clear();
    }
    if wish.equipment != Choice::Suitable {
        suitable.equipment.clear();
    }
    let found = match book.place(tx.connection(), &suitable, wish.span, asker)? {
        Ok(found) => found,
        Err(kind) => return Ok(Err(kind)),
    };
    let chosen = [&wish.room, &wish.equipment].into_iter().filter_map(|choice| match choice {
        Choice::One(actor) => Some(actor.clone()),
        Choice::Suitable | Choice::None => None,
    });
    Ok(Ok(found.into_iter().flatten().chain(chosen).collect()))
}

fn instant(unix_s: i64) -> String {
    dates::to_fhir(DateTime::from_timestamp(unix_s, 0).unwrap_or(DateTime::UNIX_EPOCH))
}

fn accepted(reference: &str, display: &str) -> Value {
    json!({"actor": {"reference": reference, "display": display}, "status": "accepted"})
}

fn appointment(book: &Book, wish: &Wish, places: &[String]) -> Value {
    let named = |actor: &str| accepted(actor, book.calendar(actor).map_or("", |c| c.name.as_str()));
    let mut participants = vec![accepted(&wish.patient.0, &wish.patient.1), named(&wish.practitioner)];
    participants.extend(places.iter().map(|place| named(place)));
    let mut body = json!({
        "resourceType": "Appointment", "status": wish.status,
        "start": instant(wish.span.from), "end": instant(wish.span.until),
        "minutesDuration": (wish.span.until - wish.span.from) / 60,
    });
    if let Some(visit) = &wish.visit {
        body["serviceType"] = json!([{"text": visit.name}]);
        participants.push(accepted(&format!("HealthcareService/{}", visit.id), &visit.name));
    }
    body["participant"] = participants.into();
    if !wish.reason.is_empty() {
        body["description"] = wish.reason.as_str().into();
    }
    if overridden(&wish.all_the_same) {
        set_extension(&mut body, OVERRIDE, Some(("valueString", wish.all_the_same.trim().into())));
    }
    if let Some(series) = &wish.series {
        set_extension(&mut body, SERIES, Some(("valueString", series.as_str().into())));
    }
    body
}

/// Where an appointment goes.
#[derive(Debug, Clone)]
pub struct Move {
    pub version: u32,
    pub span: Span,
    /// Instead of whom: `(Practitioner/old, Practitioner/new)`; the same for rooms.
    pub instead: Option<(String, String)>,
    pub all_the_same: String,
}

/// Moves an appointment that is still ahead, or says why not.
pub fn reschedule(tx: &mut Tx<'_>, book: &Book, id: &str, to: &Move) -> Told<Resource> {
    let stored = tx.read("Appointment", id)?;
    let mut body = stored.json()?;
    if !matches!(body.get("status").and_then(Value::as_str), Some("booked" | "pending")) {
        return Err(StoreError::invalid("only an appointment that is booked can be moved", "Appointment.status"));
    }
    if let (Some((old, new)), Some(participants)) =
        (&to.instead, body.get_mut("participant").and_then(Value::as_array_mut))
    {
        let name = book.calendar(new).map(|c| c.name.clone()).ok_or(StoreError::NotFound)?;
        let found =
            participants.iter_mut().find(|p| p.pointer("/actor/reference").and_then(Value::as_str) == Some(old));
        match found {
            Some(participant) => *participant = accepted(new, &name),
            None => participants.push(accepted(new, &name)),
        }
    }
    body["start"] = instant(to.span.from).into();
    body["end"] = instant(to.span.until).into();
    body["minutesDuration"] = ((to.span.until - to.span.from) / 60).into();
    let reason = overridden(&to.all_the_same).then(|| ("valueString", Value::from(to.all_the_same.trim())));
    set_extension(&mut body, OVERRIDE, reason);
    if let Some(refusal) = refusal(tx, book, &occupancy::actors(&body), (to.span, stored.rid), ("", &to.all_the_same))?
    {
        return Ok(Err(refusal));
    }
    Ok(Ok(tx.update("Appointment", id, body, Expect::Version(to.version))?))
}

/// Cancels, with the reason where one is given.
pub fn cancel(tx: &mut Tx<'_>, id: &str, version: u32, reason: &str) -> Result<Resource, StoreError> {
    let mut body = tx.read("Appointment", id)?.json()?;
    body["status"] = "cancelled".into();
    if !reason.is_empty() {
        body["cancelationReason"] = json!({"text": reason});
    }
    tx.update("Appointment", id, body, Expect::Version(version))
}
