//! When a snapshot came, and in which hour, day, week, month or year that was.

use super::Zone;

const SECOND_MS: i64 = 1000;
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
/// A writer's clock may be wrong by so much before its date is doubted.
const EARLY_MS: i64 = DAY_S * SECOND_MS;
/// A first backup over a slow line, or a store that was down, may bring a snapshot so much later than it was taken.
const LATE_MS: i64 = 60 * DAY_S * SECOND_MS;

/// When a snapshot came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub unix_ms: i64,
    /// What is known of it does not agree.
    pub doubtful: bool,
}

/// From the writer's date, the time at which the log first named the snapshot, and the dates that stores give its head.
/// A store that was added or healed later shows a later date, so the earliest that fits counts.
#[must_use]
pub fn received(taken_unix_ms: i64, first_seen_unix_ms: Option<i64>, store_dates_unix_ms: &[i64]) -> Received {
    let fits = |date: i64| {
        let late = date.saturating_sub(taken_unix_ms);
        (-EARLY_MS..=LATE_MS).contains(&late)
    };
    let dates = || first_seen_unix_ms.into_iter().chain(store_dates_unix_ms.iter().copied());
    match dates().filter(|date| fits(*date)).min() {
        // The log is signed; a store that says something much earlier is not believed.
        Some(date) => {
            let doubtful = first_seen_unix_ms.is_some_and(|seen| !fits(seen));
            Received { unix_ms: date, doubtful }
        }
        None => match dates().min() {
            Some(date) => Received { unix_ms: first_seen_unix_ms.unwrap_or(date), doubtful: true },
            None => Received { unix_ms: taken_unix_ms, doubtful: false },
        },
    }
}

/// What a rule counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    /// A number that is the same for all times of one period, and larger for later ones.
    pub(super) fn of(self, unix_ms: i64, zone: Zone<'_>) -> i64 {
        let local = unix_ms.div_euclid(SECOND_MS).saturating_add(i64::from(zone(unix_ms)));
        let day = local.div_euclid(DAY_S);
        match self {
            Self::Hour => local.div_euclid(HOUR_S),
            Self::Day => day,
            // Day 0 was a Thursday; weeks begin on Monday.
            Self::Week => (day + 3).div_euclid(7),
            Self::Month => {
                let (year, month) = year_and_month(day);
                year * 12 + month
            }
            Self::Year => year_and_month(day).0,
        }
    }
}

/// Year and month (0 to 11) of a day counted from 1970-01-01, in the Gregorian calendar: 400 years have 146,097 days, and
/// with March as the first month leap days come last.
fn year_and_month(day: i64) -> (i64, i64) {
    let day = day.saturating_add(719_468);
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let year = era * 400 + year;
    if from_march < 10 { (year, from_march + 2) } else { (year + 1, from_march - 10) }
}

#[cfg(test)]
mod tests {
    use super::super::utc;
    use super::*;

    const DAY_MS: i64 = DAY_S * SECOND_MS;

    #[test]
    fn months_and_years_follow_the_calendar() {
        // Days from 1970-01-01, by `date -d ... +%s`.
        for (day, year, month) in [
            (0, 1970, 0),
            (58, 1970, 1),
            (59, 1970, 2),
            (11_016, 2000, 1),
            (11_017, 2000, 2),
            (20_788, 2026, 11),
            (20_819, 2027, 0),
            (-1, 1969, 11),
            (47_540, 2100, 1),
            (47_541, 2100, 2),
        ] {
            assert_eq!(year_and_month(day), (year, month), "day {day}");
        }
    }

    #[test]
    fn weeks_begin_on_monday_and_a_zone_moves_midnight() {
        let of = |period: Period, day: i64| period.of(day * DAY_MS, &utc);
        // 2026-11-23 was a Monday: day 20780.
        assert_eq!(of(Period::Week, 20_780), of(Period::Week, 20_786));
        assert_ne!(of(Period::Week, 20_779), of(Period::Week, 20_780));
        let east = |_: i64| 2 * 3600;
        let late = 20_780 * DAY_MS - 1000;
        assert_eq!(Period::Day.of(late, &utc), 20_779);
        assert_eq!(Period::Day.of(late, &east), 20_780);
    }

    #[test]
    fn the_writer_alone_does_not_say_when_a_snapshot_came() {
        let taken = 20_000 * DAY_MS;
        let believed = |unix_ms| Received { unix_ms, doubtful: false };
        assert_eq!(received(taken, None, &[]), believed(taken));
        assert_eq!(received(taken, None, &[taken + 5000]), believed(taken + 5000));
        let seeded = taken + 40 * DAY_MS;
        assert_eq!(received(taken, None, &[seeded, taken + 9000]), believed(taken + 9000), "a store seeded later");
        assert_eq!(received(taken, Some(taken + 7), &[0]), believed(taken + 7), "a store that lies");
        // A writer that dates its snapshots into the past, or into the future.
        let now = 21_000 * DAY_MS;
        assert_eq!(received(taken, Some(now), &[now]), Received { unix_ms: now, doubtful: true });
        assert_eq!(received(now + 2 * DAY_MS, None, &[now]), Received { unix_ms: now, doubtful: true });
        // The log says one thing and a store another that suits the writer.
        assert!(received(taken, Some(now), &[taken]).doubtful);
    }
}
