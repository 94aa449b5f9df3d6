//! FHIR dates of every precision, as the interval of time that they mean.

use chrono::{DateTime, Days, Months, NaiveDate, NaiveDateTime};

/// `[lo, hi)` in Unix milliseconds: `2024-05` is the whole of May. A date without a zone is read as UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub lo: i64,
    pub hi: i64,
}

/// Before and after everything: the open end of a period.
pub const PAST: i64 = i64::MIN / 4;
pub const FUTURE: i64 = i64::MAX / 4;

/// Reads `YYYY`, `YYYY-MM`, `YYYY-MM-DD`, `YYYY-MM-DDThh:mm[:ss[.fff]][Z|±hh:mm]`; `None` for anything else.
pub fn parse(text: &str) -> Option<Interval> {
    if !text.is_ascii() || text.len() > 40 {
        return None;
    }
    match text.len() {
        4 if digits(text) => {
            let first = NaiveDate::from_ymd_opt(text.parse().ok()?, 1, 1)?;
            days(first, first.checked_add_months(Months::new(12))?)
        }
        7 => {
            let first = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok()?;
            days(first, first.checked_add_months(Months::new(1))?)
        }
        10 => {
            let first = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            days(first, first.checked_add_days(Days::new(1))?)
        }
        _ => moment(text),
    }
}

fn digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn days(first: NaiveDate, end: NaiveDate) -> Option<Interval> {
    let ms = |day: NaiveDate| day.and_hms_opt(0, 0, 0).map(|at| at.and_utc().timestamp_millis());
    Some(Interval { lo: ms(first)?, hi: ms(end)? })
}

fn moment(text: &str) -> Option<Interval> {
    let clock = text.get(11..)?;
    let zone_at = clock.find(['Z', '+', '-']).unwrap_or(clock.len());
    let (time, zone) = (clock.get(..zone_at)?, clock.get(zone_at..)?);
    let width = match (time.len(), time.contains('.')) {
        (5, false) => 60_000,
        (8, false) => 1_000,
        (10.., true) => 1,
        _ => return None,
    };
    let full = if time.len() == 5 { format!("{}:00", text.get(..16)?) } else { text.get(..11 + zone_at)?.to_owned() };
    let lo = match zone {
        "" => NaiveDateTime::parse_from_str(&full, "%Y-%m-%dT%H:%M:%S%.f").ok()?.and_utc().timestamp_millis(),
        zone => DateTime::parse_from_rfc3339(&format!("{full}{zone}")).ok()?.timestamp_millis(),
    };
    Some(Interval { lo, hi: lo.checked_add(width)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_precision_is_the_interval_it_means() {
        let day = 86_400_000;
        assert_eq!(parse("1970"), Some(Interval { lo: 0, hi: 365 * day }));
        assert_eq!(parse("1970-02"), Some(Interval { lo: 31 * day, hi: 59 * day }));
        assert_eq!(parse("1970-01-02"), Some(Interval { lo: day, hi: 2 * day }));
        assert_eq!(parse("1970-01-01T00:01Z"), Some(Interval { lo: 60_000, hi: 120_000 }));
        assert_eq!(parse("1970-01-01T01:00:00+01:00"), Some(Interval { lo: 0, hi: 1_000 }));
        assert_eq!(parse("1970-01-01T00:00:00.250Z"), Some(Interval { lo: 250, hi: 251 }));
        assert_eq!(parse("1970-01-01T00:00:01"), Some(Interval { lo: 1_000, hi: 2_000 }));
    }

    #[test]
    fn nonsense_is_no_date() {
        for text in ["", "70", "1970-13", "1970-02-30", "1970-01-01T", "1970-01-01T25:00Z", "+970", "yesterday"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn near_dates_never_panic(text in "[0-9]{1,5}-?[0-9]{0,2}-?[0-9]{0,2}T?[0-9:.]{0,12}[Z+-]?[0-9:]{0,6}") {
            let _ = parse(&text);
        }
    }
}
