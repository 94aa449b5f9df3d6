//! A calendar as iCalendar (RFC 5545), for phones and other calendars: when somebody is busy and where, never with whom.

use chrono::DateTime;

/// One entry: times and place, no patient and no reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Stable from one fetch to the next; says nothing about anybody.
    pub uid: String,
    pub version: u32,
    pub changed_s: i64,
    pub from_s: i64,
    pub until_s: i64,
    pub summary: String,
    pub place: String,
}

/// The calendar's text.
pub fn calendar(name: &str, entries: &[Entry]) -> String {
    let mut out = String::new();
    let mut line = |text: String| fold(&mut out, &text);
    line("BEGIN:VCALENDAR".into());
    line("VERSION:2.0".into());
    line("PRODID:-//Holdfast//appliance//EN".into());
    line("METHOD:PUBLISH".into());
    line(format!("X-WR-CALNAME:{}", escape(name)));
    line("REFRESH-INTERVAL;VALUE=DURATION:PT15M".into());
    for entry in entries {
        line("BEGIN:VEVENT".into());
        line(format!("UID:{}", escape(&entry.uid)));
        line(format!("SEQUENCE:{}", entry.version));
        line(format!("DTSTAMP:{}", stamp(entry.changed_s)));
        line(format!("DTSTART:{}", stamp(entry.from_s)));
        line(format!("DTEND:{}", stamp(entry.until_s)));
        line(format!("SUMMARY:{}", escape(&entry.summary)));
        if !entry.place.is_empty() {
            line(format!("LOCATION:{}", escape(&entry.place)));
        }
        line("CLASS:PRIVATE".into());
        line("END:VEVENT".into());
    }
    line("END:VCALENDAR".into());
    out
}

fn stamp(unix_s: i64) -> String {
    DateTime::from_timestamp(unix_s, 0).unwrap_or(DateTime::UNIX_EPOCH).format("%Y%m%dT%H%M%SZ").to_string()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | ';' | ',' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Lines have 75 bytes at most; longer ones go on after a space.
fn fold(out: &mut String, text: &str) {
    let mut room = 75;
    for c in text.chars() {
        if c.len_utf8() > room {
            out.push_str("\r\n ");
            room = 74;
        }
        out.push(c);
        room -= c.len_utf8();
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_folded_and_text_is_escaped() {
        let entry = Entry {
            uid: "a".into(),
            version: 2,
            changed_s: 0,
            from_s: 1_780_000_000,
            until_s: 1_780_001_800,
            summary: "Busy".into(),
            place: format!("Room 1, left; {}\nEND:VEVENT", "ö".repeat(60)),
        };
        let text = calendar("Dr. Weiß", &[entry]);
        assert!(text.split("\r\n").all(|line| line.len() <= 75), "{text}");
        assert!(text.contains("DTSTART:20260528T202640Z\r\n"), "{text}");
        let unfolded = text.replace("\r\n ", "");
        assert!(unfolded.contains("LOCATION:Room 1\\, left\\; ") && unfolded.contains("\\nEND:VEVENT\r\n"));
        assert_eq!(unfolded.matches("\r\nEND:VEVENT").count(), 1, "no text ends an entry");
    }
}
