//! Lengths of time as people write them.

use std::time::Duration;

pub const REMEDY: &str = "write it as 90s, 90m, 12h, 7d or 3w";
const UNITS: [(&str, u64); 5] = [("w", 7 * 86_400), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
/// More is a slip of the pen.
const NUMBER_MAX: u64 = 1_000_000;

/// `90m`, `12h`, `7d`, `3w`; `None`: it is no length of time.
pub fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number: u64 = number.parse().ok().filter(|number| *number <= NUMBER_MAX)?;
    Some(Duration::from_secs(number * seconds))
}

/// In the largest unit that gives a whole number.
pub fn text(length: Duration) -> String {
    let seconds = length.as_secs();
    let fits = UNITS.iter().find(|(_, unit)| seconds > 0 && seconds.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{seconds}s"), |(name, unit)| format!("{}{name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        assert_eq!(parse("90m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse("3w"), Some(Duration::from_secs(21 * 86_400)));
        for wrong in ["", "d", "7", "7y", "-1d", "+7d ", "9999999d", "é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for same in ["0s", "90m", "1d", "30d", "2w", "61s"] {
            assert_eq!(parse(&text(parse(same).unwrap())), parse(same), "{same}");
        }
    }
}
