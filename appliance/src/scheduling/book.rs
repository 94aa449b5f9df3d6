//! The practice's calendars at one moment, and the free times in them.

use super::extension;
use super::hours::Hours;
use super::occupancy;
use super::slots::{self, Span};
use super::visit::VisitType;
use crate::dates;
use crate::db::{Connection, OptionalExtension};
use crate::ops::golden;
use crate::store::{Query, Resource, StoreError, Tx, View};
use chrono::NaiveDate;
use chrono_tz::Tz;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The id of the `Schedule` that holds the exceptions of everybody.
pub const PRACTICE: &str = "practice";
/// How far apart the times lie that a calendar offers, unless it says otherwise, minutes.
const STEP_MINUTES: i64 = 10;
const STEP: &str = "urn:holdfast:slot-step";

/// What can be booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Practitioner,
    Room,
    /// Kept as a `Location` too: `Device` is the class of implants, which not everybody who books may see.
    Equipment,
}

#[derive(Debug, Clone)]
pub struct Calendar {
    /// `Practitioner/...` or `Location/...`.
    pub actor: String,
    pub name: String,
    pub kind: Kind,
    pub hours: Hours,
    pub step_minutes: i64,
    /// Id and version of its `Schedule`, once it has one.
    pub schedule: Option<(String, u32)>,
}

/// A free time: with whom, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Free {
    pub start_s: i64,
    pub practitioner: String,
    pub room: Option<String>,
    pub equipment: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Book {
    pub zone: Tz,
    pub practice: Hours,
    pub practice_version: Option<u32>,
    pub calendars: Vec<Calendar>,
    pub visits: Vec<VisitType>,
}

/// Rooms or equipment of which one is needed, each with when it is free; `None` when none is needed.
type Needed = Option<Vec<(String, Vec<Span>)>>;

/// Who asks for free times: what they hold themselves is free to them.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub holder: &'a str,
    pub now_s: i64,
}

/// Where calendars are read: a page's read point, a booking's transaction, and the public pages.
pub trait Source {
    /// All resources of one type.
    fn all(&self, kind: &str) -> Result<Vec<Value>, StoreError>;
}

impl Source for View<'_> {
    fn all(&self, kind: &str) -> Result<Vec<Value>, StoreError> {
        self.search(&Query::all(kind)?)?.resources.iter().map(Resource::json).collect()
    }
}

impl Source for Tx<'_> {
    fn all(&self, kind: &str) -> Result<Vec<Value>, StoreError> {
        self.search(&Query::all(kind)?)?.resources.iter().map(Resource::json).collect()
    }
}

/// What the door shows: hours, rooms and what is offered. Strangers look at it without end, and none of it is a record of
/// somebody, so that it is read without the audit.
pub struct Door<'a>(pub &'a Connection);

impl Source for Door<'_> {
    fn all(&self, kind: &str) -> Result<Vec<Value>, StoreError> {
        if !matches!(kind, "Schedule" | "Practitioner" | "Location" | "HealthcareService") {
            return Err(StoreError::NotFound);
        }
        let sql = "SELECT r.body FROM resource r JOIN resource_type t ON t.id = r.type \
                   WHERE t.name = ?1 AND r.deleted = 0 ORDER BY r.rid";
        let mut statement = self.0.prepare_cached(sql)?;
        let bodies = statement.query_map([kind], |row| row.get::<_, String>(0))?;
        bodies.map(|body| serde_json::from_str(&body?).map_err(|_| StoreError::Damaged("resource body"))).collect()
    }
}

/// Whether one of `actors` is closed at some moment of `span`; one whose hours nobody entered never is. Looks at their calendars
/// alone, without the audit: hours are no record of somebody.
pub fn is_closed(db: &Connection, actors: &[&str], span: Span) -> Result<bool, StoreError> {
    let zone = golden::time_zone(db)?;
    let read = |sql: &str, value: &str| -> Result<Option<Hours>, StoreError> {
        let body = db.prepare_cached(sql)?.query_row([value], |row| row.get::<_, String>(0)).optional()?;
        let body = body.map(|body| serde_json::from_str(&body).map_err(|_| StoreError::Damaged("resource body")));
        Ok(body.transpose()?.as_ref().map(Hours::read))
    };
    let mut practice = None;
    for actor in actors.iter().filter(|actor| !actor.starts_with("Patient/")) {
        let Some(hours) = read(OF_ACTOR, actor)?.filter(Hours::is_known) else { continue };
        if practice.is_none() {
            practice = Some(read(OF_PRACTICE, PRACTICE)?.unwrap_or_default());
        }
        let day = dates::local(span.from, zone).date_naive();
        let windows = hours.windows(practice.as_ref().unwrap_or(&hours), day, zone);
        if !windows.iter().any(|window| window.contains(span)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The last `Schedule` of an actor, as [`Book::load`] takes it.
const OF_ACTOR: &str = "SELECT r.body FROM resource r JOIN ix_ref i ON i.rid = r.rid JOIN param p ON p.id = i.param \
                        WHERE p.type = 'Schedule' AND p.name = 'actor' AND i.target = ?1 AND r.deleted = 0 \
                        ORDER BY r.rid DESC LIMIT 1";
const OF_PRACTICE: &str = "SELECT r.body FROM resource r JOIN resource_type t ON t.id = r.type \
                           WHERE t.name = 'Schedule' AND r.id = ?1 AND r.deleted = 0";

impl Book {
    pub fn load(source: &impl Source, zone: Tz) -> Result<Book, StoreError> {
        let all = |kind: &str| source.all(kind);
        let mut schedules: BTreeMap<String, Value> = BTreeMap::new();
        let mut practice = None;
        for schedule in all("Schedule")? {
            let actor = schedule.pointer("/actor/0/reference").and_then(Value::as_str).map(str::to_owned);
            match (text(&schedule, "id"), actor) {
                (PRACTICE, _) => practice = Some(schedule),
                (_, Some(actor)) => drop(schedules.insert(actor, schedule)),
                _ => {}
            }
        }
        let mut calendars = Vec::new();
        for (kind, resource) in all("Practitioner")?
            .into_iter()
            .map(|p| (Kind::Practitioner, p))
            .chain(all("Location")?.into_iter().filter_map(|l| Some((location_kind(&l)?, l))))
        {
            if resource.get("active") == Some(&Value::Bool(false)) || text(&resource, "status") == "inactive" {
                continue;
            }
            let actor = format!("{}/{}", text(&resource, "resourceType"), text(&resource, "id"));
            let schedule = schedules.get(&actor);
            calendars.push(Calendar {
                name: name(kind, &resource),
                kind,
                hours: schedule.map(Hours::read).unwrap_or_default(),
                step_minutes: schedule
                    .and_then(|s| extension(s, STEP, "valueInteger")?.as_i64())
                    .unwrap_or(STEP_MINUTES)
                    .clamp(5, 240),
                schedule: schedule.map(|s| (text(s, "id").to_owned(), version(s))),
                actor,
            });
        }
        calendars.sort_by_cached_key(|c| (c.kind, c.name.to_lowercase()));
        let mut visits: Vec<VisitType> = all("HealthcareService")?.iter().map(VisitType::read).collect();
        visits.sort_by_cached_key(|v| (!v.active, v.name.to_lowercase()));
        Ok(Book {
            zone,
            practice: practice.as_ref().map(Hours::read).unwrap_or_default(),
            practice_version: practice.as_ref().map(version),
            calendars,
            visits,
        })
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Calendar> {
        self.calendars.iter().filter(move |c| c.kind == kind)
    }

    pub fn calendar(&self, actor: &str) -> Option<&Calendar> {
        self.calendars.iter().find(|c| c.actor == actor)
    }

    pub fn visit(&self, id: &str) -> Option<&VisitType> {
        self.visits.iter().find(|v| v.id == id)
    }

    pub fn windows(&self, calendar: &Calendar, day: NaiveDate) -> Vec<Span> {
        calendar.hours.windows(&self.practice, day, self.zone)
    }

    /// Whether a calendar is open for the whole span; one whose hours nobody entered always is.
    pub fn is_open(&self, calendar: &Calendar, span: Span) -> bool {
        let day = dates::local(span.from, self.zone).date_naive();
        !calendar.hours.is_known() || self.windows(calendar, day).iter().any(|w| w.contains(span))
    }

    /// The practitioners with whom a visit of this type is possible.
    pub fn offering<'b>(&'b self, visit: &'b VisitType) -> impl Iterator<Item = &'b Calendar> {
        let named = move |c: &&Calendar| visit.offered_by.is_empty() || visit.offered_by.contains(&c.actor);
        self.of_kind(Kind::Practitioner).filter(|c| c.hours.is_known()).filter(named)
    }

    /// Free times of a day for a visit, with one practitioner or (empty) with any, in order. A room and a piece of
    /// equipment are found for each where the visit needs one.
    pub fn free(
        &self,
        db: &Connection,
        visit: &VisitType,
        practitioner: &str,
        day: NaiveDate,
        asker: Asker<'_>,
    ) -> Result<Vec<Free>, StoreError> {
        let whole = self.day(day);
        let length_s = visit.minutes * 60;
        let rooms = self.needed(db, &visit.rooms, whole, asker)?;
        let equipment = self.needed(db, &visit.equipment, whole, asker)?;
        let mut found = Vec::new();
        for calendar in self.offering(visit).filter(|c| practitioner.is_empty() || c.actor == practitioner) {
            let busy = occupancy::busy(db, &calendar.actor, whole, asker.holder, asker.now_s)?;
            let starts = slots::free(&self.windows(calendar, day), &busy, length_s, calendar.step_minutes * 60);
            for start_s in starts.into_iter().filter(|s| *s > asker.now_s) {
                let span = Span { from: start_s, until: start_s + length_s };
                if let (Some(room), Some(equipment)) = (pick(&rooms, span), pick(&equipment, span)) {
                    found.push(Free { start_s, practitioner: calendar.actor.clone(), room, equipment });
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The rooms (or equipment) of a visit with when they are free; `None` when it needs none.
    fn needed(&self, db: &Connection, actors: &[String], whole: Span, asker: Asker<'_>) -> Result<Needed, StoreError> {
        if actors.is_empty() {
            return Ok(None);
        }
        let mut all = Vec::new();
        for calendar in actors.iter().filter_map(|a| self.calendar(a)) {
            let day = dates::local(whole.from, self.zone).date_naive();
            let open = if calendar.hours.is_known() { self.windows(calendar, day) } else { vec![whole] };
            let busy = occupancy::busy(db, &calendar.actor, whole, asker.holder, asker.now_s)?;
            let free = busy.into_iter().fold(open, |open, hole| Span::without(&open, hole));
            all.push((calendar.actor.clone(), free));
        }
        Ok(Some(all))
    }

    /// A room and a piece of equipment that are free in `span`: `Err` names what none is free of.
    pub fn place(
        &self,
        db: &Connection,
        visit: &VisitType,
        span: Span,
        asker: Asker<'_>,
    ) -> Result<Result<[Option<String>; 2], Kind>, StoreError> {
        let whole = self.day(dates::local(span.from, self.zone).date_naive());
        let rooms = self.needed(db, &visit.rooms, whole, asker)?;
        let equipment = self.needed(db, &visit.equipment, whole, asker)?;
        Ok(match (pick(&rooms, span), pick(&equipment, span)) {
            (Some(room), Some(equipment)) => Ok([room, equipment]),
            (None, _) => Err(Kind::Room),
            (_, None) => Err(Kind::Equipment),
        })
    }

    pub fn day(&self, day: NaiveDate) -> Span {
        let from = dates::day_start(day, self.zone).timestamp();
        Span { from, until: dates::day_start(dates::day_after(day), self.zone).timestamp() }
    }
}

/// The first that is free in `span`: `Some(None)` when none is needed, `None` when none is free.
fn pick(needed: &Needed, span: Span) -> Option<Option<String>> {
    let Some(needed) = needed else { return Some(None) };
    needed.iter().find(|(_, free)| free.iter().any(|f| f.contains(span))).map(|(actor, _)| Some(actor.clone()))
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn version(resource: &Value) -> u32 {
    resource.pointer("/meta/versionId").and_then(Value::as_str).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Rooms and equipment are what the practice can book of its places.
pub fn location_kind(location: &Value) -> Option<Kind> {
    match location.pointer("/physicalType/coding/0/code").and_then(Value::as_str) {
        Some("ro") => Some(Kind::Room),
        _ if location.pointer("/type/0/coding/0/code").and_then(Value::as_str) == Some("equipment") => {
            Some(Kind::Equipment)
        }
        _ => None,
    }
}

/// The `Location` of a room or a piece of equipment.
pub fn location(kind: Kind, name: &str) -> Value {
    let mut body = json!({"resourceType": "Location", "status": "active", "name": name, "mode": "instance"});
    if kind == Kind::Equipment {
        body["type"] =
            json!([{"coding": [{"system": "urn:holdfast:bookable", "code": "equipment"}], "text": "Equipment"}]);
    } else {
        let coding = json!({"system": "http://terminology.hl7.org/CodeSystem/location-physical-type", "code": "ro"});
        body["physicalType"] = json!({"coding": [coding], "text": "Room"});
    }
    body
}

/// A new `Schedule` for an actor; the whole practice's has no reference.
pub fn schedule(actor: &str, name: &str) -> Value {
    let actor = if actor.is_empty() { json!({"display": name}) } else { json!({"reference": actor, "display": name}) };
    json!({"resourceType": "Schedule", "active": true, "actor": [actor]})
}

pub fn set_step(schedule: &mut Value, minutes: i64) {
    super::set_extension(schedule, STEP, Some(("valueInteger", minutes.into())));
}

fn name(kind: Kind, resource: &Value) -> String {
    if kind != Kind::Practitioner {
        return text(resource, "name").to_owned();
    }
    let names = resource.get("name").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let Some(name) = names.iter().find(|n| text(n, "use") == "official").or(names.first()) else {
        return String::new();
    };
    let part = |key: &str| name.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice).iter();
    let words = part("prefix").take(1).chain(part("given")).filter_map(Value::as_str);
    let all: Vec<&str> = words.chain([text(name, "family")]).filter(|w| !w.is_empty()).collect();
    if all.is_empty() { text(name, "text").to_owned() } else { all.join(" ") }
}
