//! A report in plain words, for the practice's owner: as text, and as one HTML page without anything from outside.

use crate::report::*;
use crate::verdict::{Finding, findings, verdict};
use std::fmt::Write;

/// The report as plain text.
pub fn render_text(report: &Report) -> String {
    let mut text = format!("RESTORE REPORT: {}\n\n{}\n", headline(report).to_uppercase(), summary(report));
    for (title, rows) in sections(report) {
        let _ = writeln!(text, "\n{title}");
        for (name, value) in rows {
            let _ = writeln!(text, "  {name:<34} {value}");
        }
    }
    text
}

/// The report as one HTML page: no script, no font, image or style from elsewhere.
pub fn render_html(report: &Report) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Restore report {}</title><style>{STYLE}</style></head><body>\n\
         <h1 class=\"{}\">Restore report: {}</h1>\n<p>{}</p>\n",
        escape(report.report_id.as_str()),
        verdict(report),
        escape(headline(report)),
        escape(&summary(report)),
    );
    for (title, rows) in sections(report) {
        let _ = writeln!(html, "<h2>{}</h2><table>", escape(title));
        for (name, value) in rows {
            let _ = writeln!(html, "<tr><th>{}</th><td>{}</td></tr>", escape(&name), escape(&value));
        }
        html.push_str("</table>\n");
    }
    html.push_str("</body></html>\n");
    html
}

const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}\
    h1{border-left:.5rem solid;padding-left:1rem}h1.pass{border-color:#1b7f3b}h1.fail{border-color:#b3261e}\
    h1.inconclusive{border-color:#b26a00}table{border-collapse:collapse;width:100%}\
    th,td{text-align:left;vertical-align:top;padding:.25rem .5rem;border-bottom:1px solid #ddd}\
    th{font-weight:normal;width:45%}td{overflow-wrap:anywhere}";

type Rows = Vec<(String, String)>;

fn headline(report: &Report) -> &'static str {
    match verdict(report) {
        Verdict::Pass => "passed",
        Verdict::Fail => "failed",
        Verdict::Inconclusive => "inconclusive",
    }
}

fn summary(report: &Report) -> String {
    let store = &report.store.name;
    match verdict(report) {
        Verdict::Pass => format!(
            "The records were restored from the store {store} alone, the EMR was started on them, and everything that \
             was compared was as it was when the snapshot was taken. Both targets were met."
        ),
        Verdict::Fail => format!(
            "The restore from the store {store} did NOT give back what was saved, or not in time. See \"What is \
             wrong\". Until this is remedied, do not count on this store."
        ),
        Verdict::Inconclusive => format!(
            "Nothing wrong was found, but the drill of the store {store} did not do everything that a proof needs. \
             See \"What was not done\"."
        ),
    }
}

fn sections(report: &Report) -> Vec<(&'static str, Rows)> {
    let found = findings(report);
    let (wrong, open): (Vec<_>, Vec<_>) = found.iter().partition(|f| f.fails());
    let list = |f: Vec<&Finding>| f.into_iter().map(finding_row).collect::<Rows>();
    let mut sections = vec![
        ("What is wrong", list(wrong)),
        ("What was not done", list(open)),
        ("Times", times(report)),
        ("What was restored", restored(report)),
        ("What was compared", compared(report)),
        ("Resources by type (stated, restored)", resources(report)),
        ("Where and with what", environment(report)),
        ("Ids", ids(report)),
    ];
    sections.retain(|(_, rows)| !rows.is_empty());
    sections
}

fn row(name: impl Into<String>, value: impl Into<String>) -> (String, String) {
    (name.into(), value.into())
}

fn times(report: &Report) -> Rows {
    let t = &report.timing;
    let after = |at: Option<i64>| match at {
        Some(at) => format!("{} after", duration(u64::try_from(at.saturating_sub(t.declared_unix_ms)).unwrap_or(0))),
        None => "not reached".to_owned(),
    };
    let against = |measured: Option<u64>, objective| match measured {
        Some(ms) => format!("{} (target {})", duration(ms), duration(objective)),
        None => format!("not measured (target {})", duration(objective)),
    };
    vec![
        row("Time until the EMR was usable", against(report.rto.measured_ms, report.rto.objective_ms)),
        row("Work that would be lost", against(report.rpo.measured_ms, report.rpo.objective_ms)),
        row("Loss declared (drill began)", time_text(t.declared_unix_ms)),
        row("Restore began", after(t.restore_started_unix_ms)),
        row("All files restored", after(t.data_done_unix_ms)),
        row("EMR started", after(t.service_started_unix_ms)),
        row("First question answered", after(t.first_golden_unix_ms)),
        row("Drill ended", after(Some(t.ended_unix_ms))),
    ]
}

fn restored(report: &Report) -> Rows {
    let apart = if report.store.apart { "apart from the server" } else { "NOT apart from the server" };
    let store = &report.store;
    let mut rows = vec![
        row("Store", format!("{} ({})", store.name, word(&store.kind))),
        row("Site", format!("{}, {apart}", store.site)),
        row("Provider", store.provider.to_string()),
        row("Snapshot", format!("number {} of {}", report.snapshot.counter, report.snapshot.source)),
        row("Snapshot taken", time_text(report.snapshot.taken_unix_ms)),
        row("Files", report.restored.files.to_string()),
        row("Size", size(report.restored.bytes)),
        row("Fetched from the store", size(report.restored.bytes_fetched)),
    ];
    for other in &report.other_heads {
        let seen = match (other.seen, other.newest_counter) {
            (HeadsSeen::Read, Some(n)) => format!("newest snapshot is number {n}"),
            (HeadsSeen::Read, None) => "no snapshot".to_owned(),
            (HeadsSeen::Forked, _) => "TWO HISTORIES".to_owned(),
            (HeadsSeen::Unreachable, _) => "did not answer".to_owned(),
        };
        rows.push(row(format!("Other store {}", other.store), seen));
    }
    rows
}

fn compared(report: &Report) -> Rows {
    let mut rows = Rows::new();
    for check in &report.checks {
        let reason = check.reason.map(|r| format!(" ({})", words_of(&r))).unwrap_or_default();
        rows.push(row(format!("Check: {}", words_of(&check.check)), format!("{}{reason}", words_of(&check.result))));
    }
    let equal = report.facts.iter().filter(|f| f.equal).count();
    rows.push(row("Facts", format!("{equal} of {} equal", Fact::ALL.len())));
    for g in &report.golden {
        let value = format!("{} of {} equal ({} asked)", g.equal, g.sealed, g.asked);
        rows.push(row(format!("Questions: {}", words_of(&g.kind)), value));
    }
    if let Some(i) = &report.integrity {
        let value = format!("{} looked at, {} missing, {} corrupt", i.objects, i.missing, i.corrupt);
        rows.push(row("Stored objects", value));
    }
    if let Some(chain) = &report.audit_chain {
        let state = if chain.ok { "unbroken" } else { "BROKEN" };
        rows.push(row("Audit trail", format!("{} entries, {state}", chain.entries)));
    }
    rows
}

fn resources(report: &Report) -> Rows {
    let counts = report.resources.iter();
    counts.map(|r| row(r.resource.as_str(), format!("{}, {}", r.stated, r.restored))).collect()
}

fn environment(report: &Report) -> Rows {
    let e = &report.environment;
    let host = if e.same_host_as_writer {
        "the same machine that makes the backups: weaker evidence than another machine would give"
    } else {
        "another machine than the one that makes the backups"
    };
    let network = if e.network_isolated { "without network" } else { "WITH network" };
    let program = |p: &Program| {
        let hash = p.sha256.as_ref().map_or("not read", |d| d.as_str());
        format!("{}, SHA-256 {hash}", p.version)
    };
    vec![
        row("Drilled on", host),
        row("The drilled EMR ran", network),
        row("backupd", program(&e.backupd)),
        row("appliance", program(&e.appliance)),
    ]
}

fn ids(report: &Report) -> Rows {
    let duties = report.duties_sha256.as_ref().map_or("none kept", |d| d.as_str());
    vec![
        row("Report", report.report_id.as_str()),
        row("Practice", report.practice.as_str()),
        row("Repository", report.repository.as_str()),
        row("Snapshot", report.snapshot.id.as_str()),
        row("Writer incarnation", report.snapshot.incarnation.as_str()),
        row("Head", report.snapshot.head_hash.as_str()),
        row("List of duties, SHA-256", duties),
    ]
}

fn finding_row(finding: &Finding) -> (String, String) {
    let because = |reason: &Option<Reason>| reason.map_or_else(String::new, |r| words_of(&r));
    match finding {
        Finding::CheckFailed(check, why) => row(format!("Failed: {}", words_of(check)), because(why)),
        Finding::CheckNotRun(check, why) => row(format!("Not run: {}", words_of(check)), because(why)),
        Finding::FactDiffers(fact) => row("A fact differs", words_of(fact)),
        Finding::FactNotCompared(fact) => row("A fact was not compared", words_of(fact)),
        Finding::ResourcesDiffer(resource) => row("Number of resources differs", resource.as_str()),
        Finding::GoldenDiffers(kind) => row("Answered otherwise", words_of(kind)),
        Finding::GoldenNotAsked(kind) => row("Not all asked", words_of(kind)),
        Finding::NoGoldenAsked => row("No question was asked", ""),
        Finding::ObjectsMissing(n) => row("Objects missing in the store", n.to_string()),
        Finding::ObjectsCorrupt(n) => row("Objects corrupt in the store", n.to_string()),
        Finding::IntegrityUnknown => row("Stored objects were not re-hashed", ""),
        Finding::AuditChainBroken => row("The audit trail is broken", ""),
        Finding::AuditChainUnknown => row("The audit trail was not walked", ""),
        Finding::HistoryForked(store) => row("Two histories", format!("store {store}")),
        Finding::RtoMissed => row("Too slow", "the target for the time until the EMR was usable was missed"),
        Finding::RpoMissed => row("Too old", "the target for work that would be lost was missed"),
        Finding::RtoUnknown => row("Time until the EMR was usable", "not measured"),
        Finding::RpoUnknown => row("Work that would be lost", "not measured"),
    }
}

/// A closed word as the report writes it.
fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn words_of<T: serde::Serialize>(value: &T) -> String {
    word(value).replace('-', " ")
}

/// Decimal units with one digit behind the point, cut, not rounded.
fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} bytes"),
    }
}

/// Hours, minutes, seconds; what is below a minute with tenths.
fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}.{} s", ms % 1000 / 100),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// Unix milliseconds as `2026-11-22 07:01:30 UTC`; days to dates after Howard Hinnant's `civil_from_days`.
pub fn time_text(unix_ms: i64) -> String {
    let (days, s) = (unix_ms.div_euclid(86_400_000), unix_ms.rem_euclid(86_400_000) / 1000);
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", s / 3600, s % 3600 / 60, s % 60)
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(time_text(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(time_text(951_782_399_999), "2000-02-28 23:59:59 UTC");
        assert_eq!(time_text(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(time_text(1_795_330_890_000), "2026-11-22 07:01:30 UTC");
        assert_eq!(time_text(-1), "1969-12-31 23:59:59 UTC");
    }

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!([size(0), size(999), size(1_950), size(31_700_000)], ["0 bytes", "999 bytes", "1.9 kB", "31.7 MB"]);
        assert!(size(u64::MAX).ends_with(" GB"));
        assert_eq!([duration(0), duration(2_650), duration(150_000)], ["0.0 s", "2.6 s", "2 min 30 s"]);
        assert_eq!(duration(4 * 3_600_000), "4 h 0 min");
    }

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
