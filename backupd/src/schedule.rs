//! When a job runs: a cron expression in the practice's time zone, with a rule of our own for the two odd days a year.
//!
//! The `cron` crate is used as a parser and evaluated on wall-clock time without a zone, where it is exact; in a zone it
//! skips a job that falls into the spring gap and doubles one in the autumn fold. Our rule:
//! - a time that does not exist fires once, at the end of the gap;
//! - a time that exists twice fires once, the first time, **unless** the hour field is a wildcard: a job that runs
//!   "every five minutes" goes on through both hours, so that no hour of records stays unprotected.

use chrono::{DateTime, Duration, MappedLocalTime, NaiveDateTime, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use std::str::FromStr;

/// A repeated hour is at most this long anywhere; candidates this far back are considered.
const FOLD_MAX: Duration = Duration::hours(3);
const WEEKDAYS: [&str; 8] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScheduleError {
    #[error("a schedule has 5 fields (minute hour day month weekday) or 6 (second first), for example \"30 2 * * *\"")]
    Fields,
    #[error("restrict the day of the month or the weekday, not both")]
    BothDays,
    #[error(
        "a field is not understood: use numbers, `*`, `a-b`, `a,b`, `*/n`; weekdays 0-7 or SUN-SAT, lists instead of ranges over Sunday"
    )]
    Field,
    #[error("the schedule never fires")]
    Never,
}

/// A cron expression bound to a zone.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    cron: cron::Schedule,
    zone: Tz,
    /// The hour field is a wildcard: the job runs through a repeated hour twice.
    frequent: bool,
}

impl Schedule {
    /// Parses 5 fields (`minute hour day month weekday`) or 6 (`second` first); weekdays as in Unix cron (0 and 7 Sunday).
    pub fn parse(text: &str, zone: Tz) -> Result<Self, ScheduleError> {
        let mut fields: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if fields.len() == 5 {
            fields.insert(0, "0".to_owned());
        }
        let [_, _, hour, day, _, weekday] = fields.as_mut_slice() else { return Err(ScheduleError::Fields) };
        let any = |field: &str| field == "*" || field == "?";
        if !any(day) && !any(weekday) {
            return Err(ScheduleError::BothDays);
        }
        let frequent = hour.starts_with('*');
        *weekday = unix_weekdays(weekday).ok_or(ScheduleError::Field)?;
        let cron = cron::Schedule::from_str(&fields.join(" ")).map_err(|_| ScheduleError::Field)?;
        let schedule = Self { text: text.to_owned(), cron, zone, frequent };
        let probe = DateTime::from_timestamp(1_700_000_000, 0).unwrap_or_default();
        schedule.next_after(probe).map(|_| ()).ok_or(ScheduleError::Never)?;
        Ok(schedule)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first time strictly after `t`, or `None` when there is none.
    pub fn next_after(&self, t: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = t.with_timezone(&self.zone).naive_local();
        let mut best: Option<(DateTime<Utc>, NaiveDateTime)> = None;
        for wall in self.cron.after(&(local - FOLD_MAX).and_utc()) {
            let wall = wall.naive_utc();
            if best.is_some_and(|(_, at)| wall > at + FOLD_MAX) {
                break;
            }
            for instant in self.instants(wall).into_iter().flatten() {
                if instant > t && best.is_none_or(|(b, _)| instant < b) {
                    best = Some((instant, wall));
                }
            }
        }
        best.map(|(instant, _)| instant)
    }

    /// [`Self::next_after`] in Unix milliseconds.
    pub fn next_after_ms(&self, unix_ms: i64) -> Option<i64> {
        self.next_after(DateTime::from_timestamp_millis(unix_ms)?).map(|t| t.timestamp_millis())
    }

    fn instants(&self, wall: NaiveDateTime) -> [Option<DateTime<Utc>>; 2] {
        match self.zone.from_local_datetime(&wall) {
            MappedLocalTime::Single(t) => [Some(t.to_utc()), None],
            MappedLocalTime::Ambiguous(first, second) => [Some(first.to_utc()), self.frequent.then(|| second.to_utc())],
            MappedLocalTime::None => [self.gap_end(wall), None],
        }
    }

    /// The first minute that exists after a wall-clock time that does not.
    fn gap_end(&self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        let minute = wall.with_second(0)?;
        (1..=25 * 60)
            .find_map(|k| self.zone.from_local_datetime(&(minute + Duration::minutes(k))).earliest())
            .map(|t| t.to_utc())
    }
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Schedule({} {})", self.text, self.zone)
    }
}

/// The crate counts weekdays from 1 = Sunday, Unix cron from 0 = Sunday: numbers become names.
fn unix_weekdays(field: &str) -> Option<String> {
    let day = |text: &str| match text.parse::<usize>() {
        Ok(number) => WEEKDAYS.get(number).map(|name| (*name).to_owned()),
        Err(_) => Some(text.to_owned()),
    };
    let item = |item: &str| {
        let (range, step) = item.split_once('/').map_or((item, None), |(r, s)| (r, Some(s)));
        let days: Option<Vec<String>> = range.split('-').map(day).collect();
        let range = days?.join("-");
        Some(step.map_or(range.clone(), |s| format!("{range}/{s}")))
    };
    let items: Option<Vec<String>> = field.split(',').map(item).collect();
    Some(items?.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERLIN: Tz = chrono_tz::Europe::Berlin;
    const NEW_YORK: Tz = chrono_tz::America::New_York;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The next `n` times after `from`, in UTC.
    fn next(text: &str, zone: Tz, from: &str, n: usize) -> Vec<String> {
        let schedule = Schedule::parse(text, zone).unwrap();
        let mut t = utc(from);
        let mut out = Vec::new();
        for _ in 0..n {
            t = schedule.next_after(t).unwrap();
            out.push(t.format("%Y-%m-%dT%H:%MZ").to_string());
        }
        out
    }

    #[test]
    fn a_time_in_the_gap_fires_once_after_it() {
        // Berlin 2026-03-29: 02:00 CET becomes 03:00 CEST at 01:00Z.
        assert_eq!(
            next("30 2 * * *", BERLIN, "2026-03-28T00:00:00Z", 3),
            ["2026-03-28T01:30Z", "2026-03-29T01:00Z", "2026-03-30T00:30Z"]
        );
        // New York 2026-03-08: 02:00 EST becomes 03:00 EDT at 07:00Z.
        assert_eq!(
            next("30 2 * * *", NEW_YORK, "2026-03-07T00:00:00Z", 3),
            ["2026-03-07T07:30Z", "2026-03-08T07:00Z", "2026-03-09T06:30Z"]
        );
    }

    #[test]
    fn a_time_in_the_fold_fires_once() {
        // Berlin 2026-10-25: 03:00 CEST becomes 02:00 CET at 01:00Z.
        assert_eq!(next("30 2 * * *", BERLIN, "2026-10-24T01:00:00Z", 2), ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]);
        // New York 2026-11-01: 02:00 EDT becomes 01:00 EST at 06:00Z.
        assert_eq!(next("30 1 * * *", NEW_YORK, "2026-10-31T06:00:00Z", 2), ["2026-11-01T05:30Z", "2026-11-02T06:30Z"]);
    }

    #[test]
    fn a_frequent_job_goes_on_through_the_repeated_hour_in_order() {
        assert_eq!(
            next("*/30 * * * *", BERLIN, "2026-10-24T23:45:00Z", 6),
            [
                "2026-10-25T00:00Z",
                "2026-10-25T00:30Z",
                "2026-10-25T01:00Z",
                "2026-10-25T01:30Z",
                "2026-10-25T02:00Z",
                "2026-10-25T02:30Z"
            ]
        );
        assert_eq!(
            next("*/30 * * * *", NEW_YORK, "2026-03-08T06:15:00Z", 3),
            ["2026-03-08T06:30Z", "2026-03-08T07:00Z", "2026-03-08T07:30Z"]
        );
    }

    #[test]
    fn every_day_of_a_decade_has_exactly_one_nightly_run() {
        for zone in [BERLIN, NEW_YORK, chrono_tz::Australia::Lord_Howe, chrono_tz::America::Sao_Paulo] {
            let schedule = Schedule::parse("30 2 * * *", zone).unwrap();
            let mut t = utc("2020-01-01T12:00:00Z");
            let mut day = t.with_timezone(&zone).date_naive();
            for _ in 0..3650 {
                t = schedule.next_after(t).unwrap();
                let next = t.with_timezone(&zone).date_naive();
                assert_eq!(next, day.succ_opt().unwrap(), "{zone}");
                day = next;
            }
        }
    }

    #[test]
    fn weekdays_count_as_in_unix_cron() {
        // 2026-11-22 is a Sunday.
        assert_eq!(next("0 3 * * 0", Tz::UTC, "2026-11-20T00:00:00Z", 1), ["2026-11-22T03:00Z"]);
        assert_eq!(next("0 3 * * 7", Tz::UTC, "2026-11-20T00:00:00Z", 1), ["2026-11-22T03:00Z"]);
        assert_eq!(next("0 3 * * 1-5", Tz::UTC, "2026-11-20T12:00:00Z", 2), ["2026-11-23T03:00Z", "2026-11-24T03:00Z"]);
        assert_eq!(next("15 0 3 * * MON", Tz::UTC, "2026-11-20T12:00:00Z", 1), ["2026-11-23T03:00Z"]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let parse = |text| Schedule::parse(text, BERLIN).unwrap_err();
        assert_eq!(parse(""), ScheduleError::Fields);
        assert_eq!(parse("* * * *"), ScheduleError::Fields);
        assert_eq!(parse("* * * * * * *"), ScheduleError::Fields);
        assert_eq!(parse("0 3 1 * 1"), ScheduleError::BothDays);
        assert_eq!(parse("61 3 * * *"), ScheduleError::Field);
        assert_eq!(parse("0 3 * * 8"), ScheduleError::Field);
        assert_eq!(parse("0 3 * * 5-7"), ScheduleError::Field);
        assert_eq!(parse("x y * * *"), ScheduleError::Field);
        assert_eq!(parse("0 3 30 2 *"), ScheduleError::Never);
    }
}
