//! Weekly hours and their exceptions, kept in a FHIR `Schedule`: a `Timing` for each rule, a period for each exception.
//! All are wall-clock times of the practice's zone; they become instants only for a certain day.

use super::slots::Span;
use crate::dates;
use chrono::{Datelike, Duration, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Weekday};
use chrono_tz::Tz;
use serde_json::{Map, Value, json};

const RULE: &str = "urn:holdfast:weekly-hours";
const EXCEPTION: &str = "urn:holdfast:schedule-exception";
/// Days of the week, Monday first: FHIR's code and ours for people.
pub const DAYS: [(&str, &str, Weekday); 7] = [
    ("mon", "Monday", Weekday::Mon),
    ("tue", "Tuesday", Weekday::Tue),
    ("wed", "Wednesday", Weekday::Wed),
    ("thu", "Thursday", Weekday::Thu),
    ("fri", "Friday", Weekday::Fri),
    ("sat", "Saturday", Weekday::Sat),
    ("sun", "Sunday", Weekday::Sun),
];
/// Rules and exceptions of one calendar at most; more is not a week that people keep in mind.
pub const ENTRIES_MAX: usize = 400;
const FORMAT: &str = "%Y-%m-%dT%H:%M:%S";

/// Open at these times of these days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub days: Vec<Weekday>,
    pub from: NaiveTime,
    pub until: NaiveTime,
    /// 1 for every week, 2 for every second; counted from the week of `first`.
    pub every_weeks: u32,
    pub first: Option<NaiveDate>,
    pub last: Option<NaiveDate>,
}

/// Open or closed apart from the rules, in wall-clock time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    pub open: bool,
    pub from: NaiveDateTime,
    pub until: NaiveDateTime,
    pub reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hours {
    pub rules: Vec<Rule>,
    pub exceptions: Vec<Exception>,
}

impl Rule {
    fn applies(&self, day: NaiveDate) -> bool {
        let weeks = || {
            let Some(first) = self.first.filter(|_| self.every_weeks > 1) else { return true };
            let monday = |d: NaiveDate| d - Duration::days(i64::from(d.weekday().num_days_from_monday()));
            (monday(day) - monday(first)).num_weeks().rem_euclid(i64::from(self.every_weeks)) == 0
        };
        self.days.contains(&day.weekday())
            && self.first.is_none_or(|first| day >= first)
            && self.last.is_none_or(|last| day <= last)
            && weeks()
    }

    fn read(timing: &Value) -> Option<Rule> {
        let repeat = timing.get("repeat")?;
        let text = |pointer: &str| repeat.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let days = repeat.get("dayOfWeek")?.as_array()?.iter().filter_map(Value::as_str);
        let days: Vec<Weekday> = days.filter_map(|code| Some(DAYS.iter().find(|(c, ..)| *c == code)?.2)).collect();
        let from = NaiveTime::parse_from_str(text("/timeOfDay/0"), "%H:%M:%S").ok()?;
        let minutes = repeat.get("duration").and_then(Value::as_i64).filter(|m| (1..1440).contains(m))?;
        let (until, carry) = from.overflowing_add_signed(Duration::minutes(minutes));
        if carry != 0 || days.is_empty() {
            return None;
        }
        let every_weeks = repeat.get("period").and_then(Value::as_u64).and_then(|p| u32::try_from(p).ok()).unwrap_or(1);
        let first = dates::parse_day(text("/boundsPeriod/start"));
        let last = dates::parse_day(text("/boundsPeriod/end"));
        Some(Rule { days, from, until, every_weeks: every_weeks.clamp(1, 52), first, last })
    }

    fn write(&self) -> Value {
        let codes: Vec<&str> =
            DAYS.iter().filter(|(.., day)| self.days.contains(day)).map(|(code, ..)| *code).collect();
        let mut repeat = json!({
            "duration": (self.until - self.from).num_minutes(), "durationUnit": "min",
            "frequency": 1, "period": self.every_weeks, "periodUnit": "wk",
            "dayOfWeek": codes, "timeOfDay": [self.from.format("%H:%M:%S").to_string()],
        });
        let mut bounds = Map::new();
        for (name, day) in [("start", self.first), ("end", self.last)] {
            if let Some(day) = day {
                bounds.insert(name.into(), day.to_string().into());
            }
        }
        if !bounds.is_empty() {
            repeat["boundsPeriod"] = bounds.into();
        }
        json!({"url": RULE, "valueTiming": {"repeat": repeat}})
    }
}

impl Exception {
    fn read(entry: &Value) -> Option<Exception> {
        let part = |name: &str| {
            let parts = entry.get("extension")?.as_array()?.iter();
            parts.into_iter().find(|p| p.get("url").and_then(Value::as_str) == Some(name))
        };
        let at = |name: &str| {
            let text = part("wall-clock")?.pointer(&format!("/valuePeriod/{name}"))?.as_str()?;
            NaiveDateTime::parse_from_str(text.get(..19)?, FORMAT).ok()
        };
        let (from, until) = (at("start")?, at("end")?);
        let open = part("open")?.get("valueBoolean")?.as_bool()?;
        let reason = part("reason").and_then(|p| p.get("valueString")?.as_str()).unwrap_or_default().to_owned();
        (from < until).then_some(Exception { open, from, until, reason })
    }

    /// The period is stored with a zone because FHIR asks for one; only its wall-clock part counts.
    fn write(&self) -> Value {
        let at = |at: NaiveDateTime| format!("{}Z", at.format(FORMAT));
        let mut parts = vec![
            json!({"url": "open", "valueBoolean": self.open}),
            json!({"url": "wall-clock", "valuePeriod": {"start": at(self.from), "end": at(self.until)}}),
        ];
        if !self.reason.is_empty() {
            parts.push(json!({"url": "reason", "valueString": self.reason}));
        }
        json!({"url": EXCEPTION, "extension": parts})
    }
}

impl Hours {
    /// What a `Schedule` says; entries that make no sense are left out.
    pub fn read(schedule: &Value) -> Hours {
        let mut hours = Hours::default();
        let all = schedule.get("extension").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for entry in all.iter().take(ENTRIES_MAX) {
            match entry.get("url").and_then(Value::as_str) {
                Some(RULE) => hours.rules.extend(entry.get("valueTiming").and_then(Rule::read)),
                Some(EXCEPTION) => hours.exceptions.extend(Exception::read(entry)),
                _ => {}
            }
        }
        hours.exceptions.sort_by_key(|e| (e.from, e.until));
        hours
    }

    /// Writes them into a `Schedule`, leaving its other extensions as they were.
    pub fn write(&self, schedule: &mut Value) {
        let Some(object) = schedule.as_object_mut() else { return };
        let mut all = match object.remove("extension") {
            Some(Value::Array(all)) => all,
            _ => Vec::new(),
        };
        all.retain(|e| !matches!(e.get("url").and_then(Value::as_str), Some(RULE | EXCEPTION)));
        all.extend(self.rules.iter().map(Rule::write));
        all.extend(self.exceptions.iter().map(Exception::write));
        if !all.is_empty() {
            object.insert("extension".into(), all.into());
        }
    }

    /// When it is open on `day`, as instants, in order and without overlap. `practice` holds the exceptions of everybody:
    /// holidays close, and what somebody opens for oneself on a holiday stays open.
    pub fn windows(&self, practice: &Hours, day: NaiveDate, zone: Tz) -> Vec<Span> {
        let mut open: Vec<Span> = self
            .rules
            .iter()
            .filter(|rule| rule.applies(day))
            .filter_map(|rule| span(day.and_time(rule.from), day.and_time(rule.until), zone))
            .collect();
        let whole = Span {
            from: dates::day_start(day, zone).timestamp(),
            until: dates::day_start(dates::day_after(day), zone).timestamp(),
        };
        for exceptions in [&practice.exceptions, &self.exceptions] {
            for exception in exceptions {
                let Some(span) = span(exception.from, exception.until, zone).and_then(|s| s.within(whole)) else {
                    continue;
                };
                if exception.open { open.push(span) } else { open = Span::without(&open, span) }
            }
        }
        Span::joined(open)
    }

    /// Whether any hours are known: without, every time is as good as another and none is offered.
    pub fn is_known(&self) -> bool {
        !self.rules.is_empty() || self.exceptions.iter().any(|e| e.open)
    }
}

/// The instants of a wall-clock span. A time that the clocks jump over is the moment of the jump; of a time that comes
/// twice the first counts.
fn span(from: NaiveDateTime, until: NaiveDateTime, zone: Tz) -> Option<Span> {
    let span = Span { from: instant(from, zone)?, until: instant(until, zone)? };
    (span.from < span.until).then_some(span)
}

fn instant(at: NaiveDateTime, zone: Tz) -> Option<i64> {
    // No zone jumps by more than a few hours at once, and all jump at whole quarters.
    let quarter = at.time().with_second(0)?.with_minute(at.minute() / 15 * 15)?;
    let ahead = (1..=16).map(|n| at.date().and_time(quarter) + Duration::minutes(15 * n));
    std::iter::once(at).chain(ahead).find_map(|t| dates::instant(t.date(), t.time(), zone)).map(|t| t.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        dates::parse_day(text).unwrap()
    }

    fn time(text: &str) -> NaiveTime {
        dates::parse_time(text).unwrap()
    }

    fn rule(days: &[Weekday], from: &str, until: &str) -> Rule {
        Rule { days: days.to_vec(), from: time(from), until: time(until), every_weeks: 1, first: None, last: None }
    }

    fn closed(from: &str, until: &str) -> Exception {
        let at = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap();
        Exception { open: false, from: at(from), until: at(until), reason: "away".into() }
    }

    fn shown(spans: &[Span], zone: Tz) -> Vec<String> {
        let at = |s: i64| dates::local(s, zone).format("%H:%M").to_string();
        spans.iter().map(|s| format!("{}-{}", at(s.from), at(s.until))).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut hours = Hours {
            rules: vec![
                rule(&[Weekday::Mon, Weekday::Wed], "08:00", "12:00"),
                Rule {
                    every_weeks: 2,
                    first: Some(day("2026-01-05")),
                    last: Some(day("2026-12-31")),
                    ..rule(&[Weekday::Fri], "13:00", "17:30")
                },
            ],
            exceptions: vec![closed("2026-03-02 00:00", "2026-03-07 00:00")],
        };
        let mut schedule = json!({"resourceType": "Schedule", "extension": [{"url": "other", "valueString": "kept"}]});
        hours.write(&mut schedule);
        assert_eq!(Hours::read(&schedule), hours);
        hours.rules.clear();
        hours.write(&mut schedule);
        assert_eq!(Hours::read(&schedule), hours);
        assert!(schedule.to_string().contains("kept"));
    }

    #[test]
    fn every_second_week_is_counted_from_the_first() {
        let rule = Rule { every_weeks: 2, first: Some(day("2026-01-07")), ..rule(&[Weekday::Mon], "08:00", "09:00") };
        let hours = Hours { rules: vec![rule], exceptions: vec![] };
        let open = |d: &str| !hours.windows(&Hours::default(), day(d), chrono_tz::UTC).is_empty();
        // The first Monday of its own week lies before the first day.
        assert_eq!(
            [open("2026-01-05"), open("2026-01-12"), open("2026-01-19"), open("2026-02-02")],
            [false, false, true, true]
        );
    }

    #[test]
    fn exceptions_cut_and_add_and_holidays_are_everybodys() {
        let zone = chrono_tz::Europe::Berlin;
        let mut hours = Hours {
            rules: vec![rule(&[Weekday::Mon], "08:00", "12:00")],
            exceptions: vec![closed("2026-06-01 09:00", "2026-06-01 10:00")],
        };
        assert_eq!(
            shown(&hours.windows(&Hours::default(), day("2026-06-01"), zone), zone),
            ["08:00-09:00", "10:00-12:00"]
        );
        let holiday = Hours { rules: vec![], exceptions: vec![closed("2026-06-01 00:00", "2026-06-02 00:00")] };
        assert!(hours.windows(&holiday, day("2026-06-01"), zone).is_empty());
        hours.exceptions = vec![Exception { open: true, ..closed("2026-06-01 14:00", "2026-06-01 15:00") }];
        assert_eq!(shown(&hours.windows(&holiday, day("2026-06-01"), zone), zone), ["14:00-15:00"]);
    }

    /// Berlin, 29 March 2026: 02:00 becomes 03:00. 25 October 2026: 03:00 becomes 02:00.
    #[test]
    fn hours_are_right_on_the_days_when_the_clocks_change() {
        let zone = chrono_tz::Europe::Berlin;
        let night = Hours {
            rules: vec![rule(&[Weekday::Sun], "01:00", "05:00"), rule(&[Weekday::Sun], "09:00", "12:00")],
            exceptions: vec![],
        };
        let lengths = |d: &str| -> Vec<i64> {
            night.windows(&Hours::default(), day(d), zone).iter().map(|s| (s.until - s.from) / 60).collect()
        };
        assert_eq!(lengths("2026-03-22"), [240, 180]);
        assert_eq!(lengths("2026-03-29"), [180, 180], "an hour is missing in spring");
        assert_eq!(lengths("2026-10-25"), [300, 180], "an hour comes twice in autumn");
        let gap = Hours { rules: vec![rule(&[Weekday::Sun], "02:10", "02:50")], exceptions: vec![] };
        assert!(gap.windows(&Hours::default(), day("2026-03-29"), zone).is_empty(), "this time does not exist");
        let into = Hours { rules: vec![rule(&[Weekday::Sun], "02:30", "04:00")], exceptions: vec![] };
        assert_eq!(shown(&into.windows(&Hours::default(), day("2026-03-29"), zone), zone), ["03:00-04:00"]);
        // The day itself has 23 and 25 hours, and an exception for the whole day closes all of them.
        let mut whole = night.clone();
        whole.exceptions = vec![closed("2026-10-25 00:00", "2026-10-26 00:00")];
        assert!(whole.windows(&Hours::default(), day("2026-10-25"), zone).is_empty());
    }
}
