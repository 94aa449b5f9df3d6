//! Appointments over the coming weeks: whole slots in opening hours, no practitioner twice at the same time.

use super::chart::Chart;
use super::choose::Chooser;
use super::{Staff, words};
use crate::scheduling::book::{self, Kind};
use crate::scheduling::hours::{Hours, Rule};
use crate::scheduling::visit::{Online, VisitType};
use chrono::{Datelike, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Weekday};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Slots of 20 minutes from 8:00 to noon and from 13:00 to 17:00.
const SLOT_MINUTES: i64 = 20;
const SLOTS: [(u32, i64); 2] = [(8, 12), (13, 12)];
/// Days ahead on which appointments lie.
const DAYS_AHEAD: i64 = 28;

/// Hours of everybody, rooms, and what the practice offers.
pub fn practice(chooser: &mut Chooser, staff: &[Staff]) -> Vec<(String, Value)> {
    let weekdays = vec![Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri];
    let rule = |(hour, slots): (u32, i64)| {
        let from = NaiveTime::from_hms_opt(hour, 0, 0)?;
        let until = from + TimeDelta::minutes(slots * SLOT_MINUTES);
        Some(Rule { days: weekdays.clone(), from, until, every_weeks: 1, first: None, last: None })
    };
    let hours = Hours { rules: SLOTS.into_iter().filter_map(rule).collect(), exceptions: Vec::new() };
    let mut made = Vec::new();
    for who in staff {
        let mut schedule = book::schedule(&format!("Practitioner/{}", who.id), &who.display);
        hours.write(&mut schedule);
        book::set_step(&mut schedule, SLOT_MINUTES);
        made.push((chooser.id(), schedule));
    }
    let mut place = |kind, name: &str| {
        let id = chooser.id();
        made.push((id.clone(), book::location(kind, name)));
        format!("Location/{id}")
    };
    let rooms = vec![place(Kind::Room, "Room 1"), place(Kind::Room, "Room 2"), place(Kind::Room, "Treatment room")];
    let ultrasound = place(Kind::Equipment, "Ultrasound");
    for (name, minutes, equipment, online) in [
        ("Follow-up", 20, Vec::new(), Online::Direct),
        ("New patient", 40, Vec::new(), Online::Request),
        ("Ultrasound", 40, vec![ultrasound], Online::View),
    ] {
        let visit = VisitType {
            name: name.into(),
            minutes,
            rooms: rooms.clone(),
            equipment,
            online,
            active: true,
            ..VisitType::plain()
        };
        let mut service = json!({});
        visit.write(&mut service);
        made.push((chooser.id(), service));
    }
    made
}

pub struct Calendar {
    zone: chrono_tz::Tz,
    today: NaiveDate,
    practitioners: usize,
    taken: HashSet<(usize, NaiveDate, i64)>,
}

impl Calendar {
    pub fn new(zone: chrono_tz::Tz, today: NaiveDate, practitioners: usize) -> Calendar {
        Calendar { zone, today, practitioners, taken: HashSet::new() }
    }

    /// Gives most patients an appointment or two; one that finds no free slot gets none.
    pub fn book(&mut self, chooser: &mut Chooser, chart: &mut Chart, staff: &[Staff]) {
        let wanted = chooser.below(3);
        let mut own = HashSet::new();
        for _ in 0..wanted {
            let free = (0..8).find_map(|_| self.slot(chooser)).filter(|(_, day, slot)| own.insert((*day, *slot)));
            let Some((who, day, slot)) = free else { continue };
            let (Some(start), Some(who)) = (self.start(day, slot), staff.get(who)) else { continue };
            let end = start + TimeDelta::minutes(SLOT_MINUTES);
            let participant = |reference: String, display: &str| {
                let actor = serde_json::json!({ "reference": reference, "display": display });
                serde_json::json!({ "actor": actor, "status": "accepted" })
            };
            let body = serde_json::json!({
                "resourceType": "Appointment", "status": "booked",
                "start": start.to_rfc3339(), "end": end.to_rfc3339(), "minutesDuration": SLOT_MINUTES,
                "description": chooser.one(&words::REASONS),
                "participant": [
                    participant(format!("Patient/{}", chart.patient), &chart.display),
                    participant(format!("Practitioner/{}", who.id), &who.display),
                ],
            });
            chart.resources.push((chooser.id(), body));
        }
    }

    /// A free slot, taken.
    fn slot(&mut self, chooser: &mut Chooser) -> Option<(usize, NaiveDate, i64)> {
        let ahead = chooser.between(0, DAYS_AHEAD - 1).cast_unsigned();
        let day = working_day(self.today.checked_add_days(Days::new(ahead))?)?;
        let slots: i64 = SLOTS.iter().map(|(_, count)| count).sum();
        let who = usize::try_from(chooser.below(self.practitioners as u64)).ok()?;
        let slot = (who, day, chooser.between(0, slots - 1));
        self.taken.insert(slot).then_some(slot)
    }

    fn start(&self, day: NaiveDate, slot: i64) -> Option<chrono::DateTime<chrono_tz::Tz>> {
        let [(morning, in_morning), (afternoon, _)] = SLOTS;
        let (hour, slot) = if slot < in_morning { (morning, slot) } else { (afternoon, slot - in_morning) };
        let time = NaiveTime::from_hms_opt(hour, 0, 0)? + TimeDelta::minutes(slot * SLOT_MINUTES);
        self.zone.from_local_datetime(&day.and_time(time)).earliest()
    }
}

/// The day itself, or the Monday after a weekend.
fn working_day(day: NaiveDate) -> Option<NaiveDate> {
    match day.weekday() {
        Weekday::Sat => day.checked_add_days(Days::new(2)),
        Weekday::Sun => day.checked_add_days(Days::new(1)),
        _ => Some(day),
    }
}
