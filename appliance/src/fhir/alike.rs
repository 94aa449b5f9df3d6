//! How much two people's names and birth dates agree, however they were typed: for the search of doubles and for `$match`.

use chrono::NaiveDate;

/// Percent of letters that two names share, by the fewest changes from one to the other.
pub fn names(a: &str, b: &str) -> u32 {
    let plain =
        |name: &str| -> Vec<char> { name.to_lowercase().chars().filter(|c| c.is_alphabetic()).take(40).collect() };
    let (a, b) = (plain(a), plain(b));
    let longest = a.len().max(b.len());
    if a.is_empty() || b.is_empty() {
        return 0;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.iter().zip(row.iter().skip(1)) {
            let changed = corner + usize::from(x != y);
            corner = *above;
            left = changed.min(left + 1).min(above + 1);
            next.push(left);
        }
        row = next;
    }
    let changes = row.last().copied().unwrap_or(longest);
    u32::try_from(100 - changes.min(longest) * 100 / longest).unwrap_or(0)
}

/// Percent that two birth dates share: a mistyped digit, or day and month in each other's place.
pub fn births(a: Option<NaiveDate>, b: Option<NaiveDate>) -> u32 {
    use chrono::Datelike;
    let (Some(a), Some(b)) = (a, b) else { return 0 };
    let digits = |d: NaiveDate| d.format("%Y%m%d").to_string();
    let differing = digits(a).chars().zip(digits(b).chars()).filter(|(x, y)| x != y).count();
    match differing {
        0 => 100,
        _ if a.year() == b.year() && a.month() == b.day() && a.day() == b.month() => 80,
        1 => 70,
        _ => 0,
    }
}
