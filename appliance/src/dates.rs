//! Dates and times as the practice sees them: everything is shown and entered in the practice's zone.

use chrono::{DateTime, Datelike, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

/// Today in the practice.
pub fn today(now_s: i64, zone: Tz) -> NaiveDate {
    local(now_s, zone).date_naive()
}

pub fn local(unix_s: i64, zone: Tz) -> DateTime<Tz> {
    DateTime::from_timestamp(unix_s, 0).unwrap_or(DateTime::UNIX_EPOCH).with_timezone(&zone)
}

/// The instant of a wall-clock time. `None` when the clock was put forward over it; the earlier one when it comes twice.
pub fn instant(day: NaiveDate, time: NaiveTime, zone: Tz) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&NaiveDateTime::new(day, time)) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(at.with_timezone(&Utc)),
        LocalResult::None => None,
    }
}

/// The first instant of a day; some zones begin a day at 01:00.
pub fn day_start(day: NaiveDate, zone: Tz) -> DateTime<Utc> {
    (0..4)
        .filter_map(|hour| NaiveTime::from_hms_opt(hour, 0, 0))
        .find_map(|time| instant(day, time, zone))
        .unwrap_or_else(|| NaiveDateTime::new(day, NaiveTime::MIN).and_utc())
}

pub fn day_after(day: NaiveDate) -> NaiveDate {
    day.checked_add_days(Days::new(1)).unwrap_or(day)
}

pub fn day_before(day: NaiveDate) -> NaiveDate {
    day.checked_sub_days(Days::new(1)).unwrap_or(day)
}

/// `2024-05-06`, within the years that a practice deals with.
pub fn parse_day(text: &str) -> Option<NaiveDate> {
    let day = NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").ok()?;
    (1850..2200).contains(&day.year()).then_some(day)
}

/// `14:30`.
pub fn parse_time(text: &str) -> Option<NaiveTime> {
    NaiveTime::parse_from_str(text.trim(), "%H:%M").ok()
}

/// `6 May 2024`: unambiguous in every country.
pub fn long_day(day: NaiveDate) -> String {
    day.format("%-d %B %Y").to_string()
}

/// `Mon 6 May 2024`.
pub fn week_day(day: NaiveDate) -> String {
    day.format("%A %-d %B %Y").to_string()
}

/// A FHIR `date`, `dateTime` or `instant` as people read it: as precise as it was given.
pub fn show(fhir: &str, zone: Tz) -> String {
    match timed(fhir, zone) {
        Some(at) => at.format("%-d %b %Y %H:%M").to_string(),
        None => show_day(fhir, zone),
    }
}

/// The day of a FHIR date or instant.
pub fn show_day(fhir: &str, zone: Tz) -> String {
    if let Some(at) = timed(fhir, zone) {
        return at.format("%-d %b %Y").to_string();
    }
    match fhir.len() {
        10 => {
            NaiveDate::parse_from_str(fhir, "%Y-%m-%d").map(|d| d.format("%-d %b %Y").to_string()).unwrap_or_default()
        }
        7 => NaiveDate::parse_from_str(&format!("{fhir}-01"), "%Y-%m-%d")
            .map(|d| d.format("%b %Y").to_string())
            .unwrap_or_default(),
        4 => fhir.to_owned(),
        _ => String::new(),
    }
}

/// What says a time of day, in the practice's zone.
fn timed(fhir: &str, zone: Tz) -> Option<DateTime<Tz>> {
    if fhir.contains('T') { Some(local(moment_s(fhir, zone)?, zone)) } else { None }
}

/// `14:30` of an instant.
pub fn clock_time(fhir: &str, zone: Tz) -> Option<NaiveTime> {
    let at = timed(fhir, zone)?;
    NaiveTime::from_hms_opt(at.hour(), at.minute(), 0)
}

/// The moment of a FHIR `instant`, which says its zone: of appointments, and of what is written here. What may say less has a
/// [`moment_s`].
pub fn unix_s(instant: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(instant).ok().map(|at| at.timestamp())
}

/// The moment of a FHIR `date`, `dateTime` or `instant` of every precision, Unix seconds: where a day, a month or a year is all that
/// is known, its beginning in the practice's zone. What stands without a zone is read in the practice's.
pub fn moment_s(fhir: &str, zone: Tz) -> Option<i64> {
    if let Some(at) = unix_s(fhir) {
        return Some(at);
    }
    let whole = match fhir.len() {
        4 => format!("{fhir}-01-01"),
        7 => format!("{fhir}-01"),
        _ => fhir.to_owned(),
    };
    if let Ok(day) = NaiveDate::parse_from_str(&whole, "%Y-%m-%d") {
        return Some(day_start(day, zone).timestamp());
    }
    let at =
        ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"].iter().find_map(|f| NaiveDateTime::parse_from_str(fhir, f).ok())?;
    Some(instant(at.date(), at.time(), zone).unwrap_or_else(|| at.and_utc()).timestamp())
}

/// An instant as stored: UTC with seconds.
pub fn to_fhir(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// Age as a clinician says it: days, weeks, months, then years.
pub fn age(birth: NaiveDate, on: NaiveDate) -> String {
    let days = (on - birth).num_days();
    let years = on.years_since(birth).unwrap_or(0);
    let months = (i64::from(on.year()) - i64::from(birth.year())) * 12 + i64::from(on.month())
        - i64::from(birth.month())
        - i64::from(on.day() < birth.day());
    match (days, months, years) {
        (d, ..) if d < 0 => "not yet born".to_owned(),
        (d, ..) if d < 28 => format!("{d} d"),
        (d, m, _) if m < 3 => format!("{} wk", d / 7),
        (_, m, y) if y < 2 => format!("{m} mo"),
        (_, _, y) => format!("{y} y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        parse_day(text).unwrap()
    }

    #[test]
    fn ages_are_said_as_clinicians_do() {
        let on = day("2024-03-01");
        for (birth, said) in [
            ("2024-02-29", "1 d"),
            ("2024-01-20", "5 wk"),
            ("2023-10-15", "4 mo"),
            ("2022-03-02", "23 mo"),
            ("2022-03-01", "2 y"),
            ("1960-03-02", "63 y"),
            ("2024-03-02", "not yet born"),
        ] {
            assert_eq!(age(day(birth), on), said, "{birth}");
        }
    }

    #[test]
    fn days_begin_in_the_practices_zone() {
        let zone = chrono_tz::Europe::Berlin;
        assert_eq!(to_fhir(day_start(day("2024-07-01"), zone)), "2024-06-30T22:00:00Z");
        // The clock jumps at midnight in Beirut: the day begins at 01:00.
        let beirut = chrono_tz::Asia::Beirut;
        assert_eq!(to_fhir(day_start(day("2024-03-31"), beirut)), "2024-03-30T22:00:00Z");
        assert_eq!(instant(day("2024-03-31"), parse_time("02:30").unwrap(), zone), None);
        assert_eq!(show("2024-01-31T23:30:00Z", zone), "1 Feb 2024 00:30");
        assert_eq!((show("1987-05", zone).as_str(), show("1987", zone).as_str()), ("May 1987", "1987"));
    }

    #[test]
    fn every_precision_has_a_moment_in_the_practices_zone() {
        let zone = chrono_tz::Europe::Berlin;
        for (written, begins) in [
            ("2026-11-27T08:00:00Z", "2026-11-27T08:00:00Z"),
            ("2026-11-27T08:00:00.5+01:00", "2026-11-27T07:00:00Z"),
            ("2026-11-27", "2026-11-26T23:00:00Z"),
            ("2026-07", "2026-06-30T22:00:00Z"),
            ("2026", "2025-12-31T23:00:00Z"),
            ("2026-11-27T08:00:00", "2026-11-27T07:00:00Z"),
            ("2026-11-27T08:00", "2026-11-27T07:00:00Z"),
        ] {
            let at = DateTime::from_timestamp(moment_s(written, zone).unwrap(), 0).unwrap();
            assert_eq!(to_fhir(at), begins, "{written}");
        }
        for nonsense in ["", "x", "20é", "2026-13", "2026-02-30", "2026-11-27T", "99999-01-01", "2026-11-27T25:00:00Z"]
        {
            assert_eq!(moment_s(nonsense, zone), None, "{nonsense}");
        }
    }
}
