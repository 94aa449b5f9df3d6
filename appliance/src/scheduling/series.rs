//! The days of a series: the same wall-clock time every so many weeks, whatever the clocks do in between.

use chrono::{Days, NaiveDate};

/// Appointments of one series at most: a year of weeks.
pub const COUNT_MAX: u32 = 52;

/// `count` days from `first`, every `weeks` weeks.
pub fn days(first: NaiveDate, weeks: u32, count: u32) -> Vec<NaiveDate> {
    let step = u64::from(weeks.clamp(1, 52)) * 7;
    (0..u64::from(count.clamp(1, COUNT_MAX))).filter_map(|n| first.checked_add_days(Days::new(n * step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dates;

    #[test]
    fn a_series_keeps_its_wall_clock_time_over_the_change_of_clocks() {
        let zone = chrono_tz::Europe::Berlin;
        let first = dates::parse_day("2026-03-22").unwrap();
        let at = |day| dates::instant(day, dates::parse_time("10:00").unwrap(), zone).unwrap();
        let instants: Vec<String> = days(first, 1, 3).into_iter().map(|d| dates::to_fhir(at(d))).collect();
        assert_eq!(instants, ["2026-03-22T09:00:00Z", "2026-03-29T08:00:00Z", "2026-04-05T08:00:00Z"]);
        assert_eq!((days(first, 2, 100).len(), days(first, 4, 2)[1].to_string()), (52, "2026-04-19".to_owned()));
    }
}
