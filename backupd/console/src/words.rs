//! Times, sizes and durations as people read them, and closed enums as their wire words.

use chrono::DateTime;
use chrono_tz::Tz;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The wire word of a closed enum, for example `store-late`.
pub fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

pub fn from_word<T: DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}

/// `Sun 22 Nov 2026, 07:05 (CET)`.
pub fn moment(unix_ms: i64, zone: Tz) -> String {
    DateTime::from_timestamp_millis(unix_ms)
        .map(|time| time.with_timezone(&zone).format("%a %-d %b %Y, %H:%M (%Z)").to_string())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// `22 Nov 07:05:09`, for tables.
pub fn moment_short(unix_ms: i64, zone: Tz) -> String {
    DateTime::from_timestamp_millis(unix_ms)
        .map(|time| time.with_timezone(&zone).format("%-d %b %Y %H:%M:%S").to_string())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// `2026-11-22T06:05:09Z`, for the machine-readable attribute of `<time>`.
pub fn iso(unix_ms: i64) -> String {
    DateTime::from_timestamp_millis(unix_ms).map(|t| t.format("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

/// `3 minutes`, `2 days`: the largest unit that is at least two, rounded down.
pub fn span(ms: i64) -> String {
    let s = ms.max(0) / 1000;
    let of = |n: i64, unit: &str| format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
    match s {
        0..=119 => of(s, "second"),
        120..=7_199 => of(s / 60, "minute"),
        7_200..=172_799 => of(s / 3600, "hour"),
        _ => of(s / 86_400, "day"),
    }
}

/// Clocks of two machines may differ by so much that nobody needs to know.
const SKEW_MS: i64 = 60_000;

/// Whether a time lies so far ahead that a clock was wrong when it was written, or is wrong now.
pub fn future(then_ms: i64, now_ms: i64) -> bool {
    then_ms.saturating_sub(now_ms) > SKEW_MS
}

/// How long ago, or `just now`; a time in the future is called so.
pub fn ago(then_ms: i64, now_ms: i64) -> String {
    if future(then_ms, now_ms) {
        return format!("{} in the future: a clock is or was wrong", span(then_ms.saturating_sub(now_ms)));
    }
    if now_ms - then_ms < 2_000 { "just now".to_owned() } else { format!("{} ago", span(now_ms - then_ms)) }
}

/// A measured duration with one decimal where it matters: `840 ms`, `12.4 s`, `3 min 5 s`, `2 h 10 min`.
pub fn duration(ms: u64) -> String {
    match ms {
        0..=999 => format!("{ms} ms"),
        1_000..=59_999 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..=3_599_999 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// `31.7 MB`: decimal units, one decimal.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let (mut value, mut unit) = (n as f64 / 1000.0, 0);
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// The first digits of an id: enough to tell two apart on a page; the whole stands in the title.
pub fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

pub fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_round_numbers() {
        assert_eq!(span(1_000), "1 second");
        assert_eq!(span(119_999), "119 seconds");
        assert_eq!(span(120_000), "2 minutes");
        assert_eq!(span(172_800_000), "2 days");
        assert_eq!(span(-5), "0 seconds");
        assert_eq!(ago(10_000, 11_000), "just now");
        assert_eq!(ago(10_000, 9_000), "just now");
        assert_eq!(ago(180_000_000, 0), "2 days in the future: a clock is or was wrong");
        assert_eq!(duration(12_450), "12.4 s");
        assert_eq!(duration(185_000), "3 min 5 s");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(999_960), "1.0 MB");
        assert_eq!(bytes(31_700_000), "31.7 MB");
        assert_eq!(moment(0, Tz::UTC), "Thu 1 Jan 1970, 00:00 (UTC)");
        assert_eq!(moment(i64::MAX, Tz::UTC), "unknown");
        assert_eq!(short_id("äöüäöüäöü"), "äöüäöü");
    }
}
