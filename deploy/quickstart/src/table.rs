//! The table at the end: what came back from each store, and how fast.

/// The result of one drill. Times are milliseconds.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Drill {
    pub report_id: String,
    pub store: String,
    pub verdict: Verdict,
    pub bytes: u64,
    pub restore_ms: u64,
    pub rto_ms: Option<u64>,
    pub rpo_ms: Option<u64>,
    pub facts_compared: u32,
    pub facts_equal: u32,
    pub golden_compared: u32,
    pub golden_equal: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Pass,
    Fail,
    Inconclusive,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        }
    }
}

pub const LAST_LINE: &str = "all stores are on this machine: a demonstration, not protection";

const HEAD: [&str; 8] = ["store", "in store", "restored", "restore", "RPO", "RTO", "facts compared", "verdict"];

/// Rows of store name, bytes in the store and drill; the last line says what this is not.
pub fn render(rows: &[(u64, Drill)]) -> String {
    let cells: Vec<[String; 8]> = rows.iter().map(|(bytes, drill)| row(*bytes, drill)).collect();
    let width = |column: usize| {
        let own = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        own.max(HEAD[column].chars().count())
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String]| {
        let mut text: Vec<String> = Vec::new();
        for (column, cell) in row.iter().enumerate() {
            // Words to the left, figures to the right.
            let left = matches!(column, 0 | 7);
            let width = widths[column];
            text.push(if left { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        }
        text.join("  ").trim_end().to_owned()
    };
    let head = line(&HEAD.map(String::from));
    let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1));
    let body: Vec<String> = cells.iter().map(|row| line(row)).collect();
    format!("{head}\n{rule}\n{}\n{LAST_LINE}", body.join("\n"))
}

fn row(bytes: u64, drill: &Drill) -> [String; 8] {
    let compared = drill.facts_compared + drill.golden_compared;
    let equal = drill.facts_equal + drill.golden_equal;
    let facts = if compared == equal { format!("{compared} equal") } else { format!("{equal} of {compared} equal") };
    [
        drill.store.clone(),
        size(bytes),
        size(drill.bytes),
        seconds(Some(drill.restore_ms)),
        seconds(drill.rpo_ms),
        seconds(drill.rto_ms),
        facts,
        drill.verdict.word().into(),
    ]
}

fn seconds(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".into(), |ms| format!("{}.{} s", ms / 1000, ms % 1000 / 100))
}

/// Bytes with three figures: `12.3 MB`.
pub fn size(bytes: u64) -> String {
    let (mut unit, mut divisor) = ("B", 1u64);
    for (name, next) in [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)] {
        if bytes >= next {
            (unit, divisor) = (name, next);
        }
    }
    if divisor == 1 {
        return format!("{bytes} B");
    }
    format!("{}.{} {unit}", bytes / divisor, bytes % divisor * 10 / divisor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill(store: &str, verdict: Verdict) -> Drill {
        Drill {
            report_id: "r".into(),
            store: store.into(),
            verdict,
            bytes: 12_345_678,
            restore_ms: 1_234,
            rto_ms: Some(2_050),
            rpo_ms: None,
            facts_compared: 30,
            facts_equal: 30,
            golden_compared: 6,
            golden_equal: if verdict == Verdict::Pass { 6 } else { 5 },
        }
    }

    #[test]
    fn columns_line_up_and_the_last_line_warns() {
        let text = render(&[(2_000, drill("provider-north", Verdict::Pass)), (3, drill("b", Verdict::Fail))]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[4], "all stores are on this machine: a demonstration, not protection");
        assert!(lines[2].contains("2.0 kB") && lines[2].contains("12.3 MB") && lines[2].contains("1.2 s"), "{text}");
        assert!(lines[2].contains("36 equal") && lines[3].contains("35 of 36 equal"), "{text}");
        assert_eq!(lines[2].find("pass"), lines[3].find("fail"), "{text}");
        assert_eq!(lines[0].find("verdict"), lines[2].find("pass"), "{text}");
    }

    #[test]
    fn sizes_have_a_unit() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (1_999_999, "1.9 MB"), (5_000_000_000, "5.0 GB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
