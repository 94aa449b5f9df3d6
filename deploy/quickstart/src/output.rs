//! What a person reads. Where it cannot be written, that is an error like any other: the macros of the standard library
//! would end this program in the middle of its work.

use anyhow::Context;
use std::io::Write;

/// Writes a paragraph to standard output.
pub fn say(text: &str) -> anyhow::Result<()> {
    say_to(&mut std::io::stdout().lock(), text)
}

fn say_to(out: &mut impl Write, text: &str) -> anyhow::Result<()> {
    writeln!(out, "{text}").and_then(|()| out.flush()).context("standard output cannot be written")
}

/// Writes a line to standard error: what cannot be written there can be told nowhere.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A moment, to the second.
pub fn time(unix_ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(unix_ms).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_an_error_and_no_panic() {
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(say_to(&mut full, "x").unwrap_err().to_string().contains("standard output"));
        let mut whole = Vec::new();
        say_to(&mut whole, "x").unwrap();
        assert_eq!(whole, b"x\n");
    }
}
