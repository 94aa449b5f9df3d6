//! Appointments over the coming weeks: whole slots in opening hours, no practitioner twice at the same time.

use super::chart::Chart;
use super::choose::Chooser;
use super::{Staff, words};
use chrono::{Datelike, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Weekday};
use std::collections::HashSet;

/// Slots of 20 minutes from 8:00 to noon and from 13:00 to 17:00.
const SLOT_MINUTES: i64 = 20;
const SLOTS: [(u32, i64); 2] = [(8, 12), (13, 12)];
/// Days ahead on which appointments lie.
const DAYS_AHEAD: i64 = 28;

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
        for _ in 0..wanted {
            let free = (0..8).find_map(|_| self.slot(chooser));
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
