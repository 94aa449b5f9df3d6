//! What may be typed for a practice, checked before anything is written: programs that start later would refuse it.

use std::net::IpAddr;

const NAME_CHARS_MAX: usize = 100;
/// Of the domain name system.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// The practice's name: one line that people read.
pub fn practice_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() {
        return Err("it is empty: give the name that patients know, for example \"Practice on Elm Street\"".into());
    }
    if name.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err("it has a line break or a control character: give one line of plain text".into());
    }
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(format!("it is too long: give {NAME_CHARS_MAX} characters at most"));
    }
    Ok(name.to_owned())
}

pub fn time_zone(text: &str) -> Result<String, String> {
    let zone = text.parse::<chrono_tz::Tz>().map_err(|_| {
        "it is no time zone: give an IANA name, for example America/New_York or Europe/Berlin".to_owned()
    })?;
    Ok(zone.name().to_owned())
}

/// A name or address in certificates.
pub fn host(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_host = text.len() <= HOST_BYTES_MAX && text.split('.').all(label);
    if text.parse::<IpAddr>().is_ok() || is_host {
        return Ok(text.to_ascii_lowercase());
    }
    Err("it is no host name and no address: give letters, digits, hyphens and dots, for example emr.example.org".into())
}

#[cfg(test)]
mod tests {
    use crate::Arguments;
    use clap::Parser;

    #[test]
    fn what_no_program_can_use_is_refused_with_an_example_of_what_is_right() {
        for (option, value, right) in [
            ("--time-zone", "Foo/Bar", "America/New_York"),
            ("--time-zone", "", "America/New_York"),
            ("--practice-name", "", "Elm Street"),
            ("--practice-name", "  ", "Elm Street"),
            ("--practice-name", "two\nlines", "one line"),
            ("--practice-name", "bell\u{7}", "one line"),
            ("--practice-name", "x".repeat(101).as_str(), "100 characters"),
            ("--name", "bad name!", "emr.example.org"),
            ("--name", "", "emr.example.org"),
            ("--name", "a..b", "emr.example.org"),
            ("--name", "a-.example.org", "emr.example.org"),
        ] {
            let refusal = Arguments::try_parse_from(["quickstart", option, value]).unwrap_err().to_string();
            assert!(refusal.contains(right) && refusal.contains(option), "{option} {value:?}: {refusal}");
        }
        for (option, value) in [
            ("--time-zone", "Europe/Berlin"),
            ("--practice-name", "Praxis Dr. Müller & Söhne"),
            ("--name", "EMR.example.org"),
            ("--name", "192.0.2.7"),
            ("--name", "2001:db8::1"),
        ] {
            Arguments::try_parse_from(["quickstart", option, value]).unwrap();
        }
    }
}
