//! What a person reads: plain words and tables; progress bars on a terminal; lines of JSON on request.

use crate::clock;
use backup_engine::SnapshotInfo;
use backupd_api::{
    Alert, AlertKind, DrillDone, Event, MaintainStatus, MaintainStore, ReportRow, RestoreDone, SnapshotDone,
    SnapshotRow, SnapshotState, Status, StoreCondition, StoreProtection, StoreStatus, Unreadable, VerifyDone,
    VerifyStore,
};
use indicatif::HumanBytes;
use std::collections::BTreeSet;
use std::io::IsTerminal;

/// The command was typed wrongly.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// One event as one line of standard output.
pub fn json(event: &Event) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string(event)?);
    Ok(())
}

/// A moment, as every table shows it.
pub fn table_time(unix_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(unix_ms)
        .map_or_else(|| "?".to_owned(), |t| t.format("%Y-%m-%d %H:%M:%SZ").to_string())
}

fn age(unix_ms: Option<i64>) -> String {
    let Some(at) = unix_ms else { return "never".to_owned() };
    let Some(age) = clock::age_ms(at, clock::unix_ms()) else { return "unknown: a clock is or was wrong".to_owned() };
    let s = age / 1000;
    match s {
        0..120 => format!("{s} s ago"),
        120..7200 => format!("{} min ago", s / 60),
        7200..172_800 => format!("{} h ago", s / 3600),
        _ => format!("{} days ago", s / 86_400),
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The word by which a closed enum travels.
fn word<T: serde::Serialize>(value: T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Columns as wide as their widest cell.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
        cells.chain(head.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        say!("{}", padded.join("  ").trim_end());
    };
    line(head.to_vec());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
}

pub fn snapshot_done(done: &SnapshotDone) {
    say!(
        "Snapshot {} holds {} files, {}; {} were added to each store in {:.1} s.",
        short(&done.id),
        done.files,
        HumanBytes(done.bytes_source),
        HumanBytes(done.bytes_added),
        done.duration_ms as f64 / 1000.0
    );
    for store in &done.stores {
        match (&store.error, store.durable) {
            (_, true) => say!("  {}: durable", store.store),
            (Some(error), false) => say!("  {}: NOT durable: {error}", store.store),
            (None, false) => say!("  {}: NOT durable", store.store),
        }
    }
    if done.state < SnapshotState::Durable {
        let waits = if done.spooled { " It waits in the spool." } else { "" };
        say!("Too few stores hold it: it does not count yet. It is completed when they answer.{waits}");
    }
    for gone in &done.kept_gone {
        let what = if gone.carried { "its last known copy travels on" } else { "there is no copy of it" };
        say!(
            "{} a kept file is gone ({}): {what}. Its name is in the log. Put it back, or take it out of `keep`.",
            warning("GONE:"),
            word(gone.kind)
        );
    }
    if done.source_damaged {
        say!(
            "{} records are damaged on this server, and so they are in this snapshot. Older ones hold them whole; the EMR names them.",
            warning("DAMAGED:")
        );
    }
    if done.partial && done.kept_gone.iter().any(|gone| !gone.carried) && done.unreadable == NOTHING_UNREADABLE {
        say!(
            "{} the practice could not be brought back from it alone. It does not count for recovery.",
            warning("PARTIAL:")
        );
    } else if done.partial {
        say!("{} {}. It does not count for recovery.", warning("PARTIAL:"), unreadable(&done.unreadable));
        if done.unreadable != NOTHING_UNREADABLE {
            say!("`backupd ls --unreadable --snapshot {}` names them.", short(&done.id));
        }
    }
}

const NOTHING_UNREADABLE: Unreadable = Unreadable { denied: 0, vanished: 0, changed: 0, input_output: 0 };

/// The files that a snapshot could not take as they were, by reason.
fn unreadable(counts: &Unreadable) -> String {
    let reasons = [
        (counts.denied, "may not be read"),
        (counts.vanished, "vanished"),
        (counts.changed, "changed while being read"),
        (counts.input_output, "could not be read by the disk"),
    ];
    let told: Vec<String> =
        reasons.iter().filter(|(count, _)| *count > 0).map(|(count, reason)| format!("{count} {reason}")).collect();
    // The consistent point ended before everything was read.
    if told.is_empty() {
        "the source moved on while it was read".to_owned()
    } else {
        format!("files: {}", told.join(", "))
    }
}

/// Words that must not be overlooked: yellow on a terminal.
fn warning(words: &str) -> String {
    let plain = !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    if plain { words.to_owned() } else { format!("\x1b[1;33m{words}\x1b[0m") }
}

/// What each snapshot added.
pub fn added(snapshots: &[SnapshotInfo]) {
    let cells = |s: &SnapshotInfo| {
        vec![
            short(&s.id.to_string()).to_owned(),
            table_time(s.taken_unix_ms),
            s.tag.clone().unwrap_or_default(),
            s.files.to_string(),
            HumanBytes(s.bytes_source).to_string(),
            HumanBytes(s.bytes_added).to_string(),
        ]
    };
    let rows: Vec<_> = snapshots.iter().map(cells).collect();
    table(&["ID", "TAKEN", "TAG", "FILES", "SIZE", "ADDED"], &rows);
}

pub fn snapshots(rows: &[SnapshotRow]) {
    if rows.is_empty() {
        say!("There is no snapshot yet.");
        return;
    }
    let cells = |s: &SnapshotRow| {
        vec![
            short(&s.id).to_owned(),
            table_time(s.taken_unix_ms),
            s.source.clone(),
            s.tag.clone().unwrap_or_default(),
            match s {
                s if s.other_machine => "other machine".to_owned(),
                s if s.partial => "partial".to_owned(),
                s => word(s.state),
            },
            s.files.to_string(),
            HumanBytes(s.bytes_source).to_string(),
            s.stores.join(" "),
        ]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    table(&["ID", "TAKEN", "SOURCE", "TAG", "STATE", "FILES", "SIZE", "STORES"], &rows);
}

pub fn restore_done(done: &RestoreDone) {
    say!(
        "Restored {} files, {} in {:.1} s ({} read from the store).",
        done.files,
        HumanBytes(done.bytes),
        done.duration_ms as f64 / 1000.0,
        HumanBytes(done.bytes_fetched)
    );
    if done.skipped > 0 {
        say!("{} attributes (owners, devices) could not be set by this user.", done.skipped);
    }
    if done.partial {
        say!(
            "{} files that could not be read, or changed, when the snapshot was taken. `backupd ls --unreadable --snapshot ID` names them.",
            warning("PARTIAL:")
        );
    }
    if done.source_damaged {
        say!(
            "{} records were damaged on the server when this snapshot was taken, and came back as they were. An older one may hold them whole.",
            warning("DAMAGED:")
        );
    }
}

/// The condition; a store that lacks objects and holds damaged ones has both words.
fn found(store: &VerifyStore) -> String {
    match store.condition {
        StoreCondition::Corrupt if !store.missing.is_empty() => "corrupt and missing".to_owned(),
        condition => word(condition),
    }
}

pub fn verify_done(done: &VerifyDone) {
    for store in &done.stores {
        say!(
            "{}: {} ({} objects, {} read, {:.1} s)",
            store.store,
            found(store),
            store.objects,
            HumanBytes(store.bytes_read),
            store.duration_ms as f64 / 1000.0
        );
        if let Some(reason) = &store.reason {
            say!("  {reason}");
        }
        for object in &store.missing {
            say!("  missing: {object}");
        }
        for object in &store.damaged {
            say!("  corrupt: {object}");
        }
    }
    if !done.gaps.is_empty() {
        say!(
            "\nGone from the history in every store, and nobody signed for it (the number is the last part, in hexadecimal):"
        );
        for gap in &done.gaps {
            say!("  {gap}");
        }
    }
}

pub fn drill_done(done: &DrillDone) {
    let ms = |value: Option<u64>| {
        value.map_or_else(|| "not measured".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0))
    };
    say!("Drill from {} alone: {}", done.store, word(done.verdict).to_uppercase());
    say!("  restored {} in {:.1} s", HumanBytes(done.bytes), done.restore_ms as f64 / 1000.0);
    say!("  recovery time {}, recovery point {}", ms(done.rto_ms), ms(done.rpo_ms));
    say!(
        "  facts {} of {} equal, golden answers {} of {} equal",
        done.facts_equal,
        done.facts_compared,
        done.golden_equal,
        done.golden_compared
    );
    for check in &done.not_passed {
        say!("  not passed: {check}");
    }
    if done.not_passed.iter().any(|check| check.contains("object-")) {
        say!("  which objects: `backupd verify --store {} --read-data`", done.store);
    }
    if done.not_passed.iter().any(|check| check.ends_with("source-damaged")) {
        say!(
            "  The EMR's own data was damaged before this snapshot was taken: it came back as it was, and the store is not to blame."
        );
        say!("  A practice administrator sees in the EMR, on the page Access record, which files it is about.");
    }
    say!("  report {}", done.report_id);
}

pub fn reports(rows: &[ReportRow]) {
    if rows.is_empty() {
        say!("There is no report yet: `backupd drill` makes one.");
        return;
    }
    let ms = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
    let cells = |r: &ReportRow| {
        vec![
            r.id.clone(),
            table_time(r.at_unix_ms),
            r.store.clone(),
            word(r.verdict),
            ms(r.rto_ms),
            ms(r.rpo_ms),
            r.log_index.to_string(),
            if r.approved { "yes" } else { "no" }.to_owned(),
        ]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    table(&["REPORT", "AT", "STORE", "VERDICT", "RTO", "RPO", "LOG", "APPROVED"], &rows);
}

pub fn stores(rows: &[StoreStatus]) {
    let cells = |s: &StoreStatus| {
        vec![
            s.name.clone(),
            s.kind.clone(),
            s.site.clone(),
            s.provider.clone(),
            if s.apart { "yes" } else { "no" }.to_owned(),
            word(s.role),
            word(s.condition),
            lag(s),
            s.bytes.map_or_else(|| "?".to_owned(), |b| HumanBytes(b).to_string()),
            if s.known { age(s.complete_unix_ms) } else { "?".to_owned() },
            age(s.proved_unix_ms),
        ]
    };
    let table_rows: Vec<_> = rows.iter().map(cells).collect();
    table(
        &["STORE", "KIND", "SITE", "PROVIDER", "APART", "ROLE", "CONDITION", "LAG", "SIZE", "NEWEST", "PROVED"],
        &table_rows,
    );
    for store in rows {
        if let Some(baa) = store.baa.as_ref().filter(|baa| baa.expired) {
            say!("{}: its agreement {} ran out on {}", store.name, baa.reference, baa.until);
        }
        if store.protection == StoreProtection::Unprotected {
            say!("{}: UNPROTECTED: the server's own credentials can overwrite or delete what it holds", store.name);
        }
        if let Some(reason) = &store.reason {
            say!("{}: {}: {reason}", store.name, word(store.condition));
        }
        if let Some(lost) = store.lost_unix_ms {
            say!(
                "{}: LOST objects, seen {}; nobody has looked through all of it since (`backupd looked-into {0}` does)",
                store.name,
                age(Some(lost))
            );
        }
        if let Some(window) = &store.upload_window {
            say!("{}: sent to at {window} only", store.name);
        }
    }
    for store in rows.iter().filter(|s| matches!(s.condition, StoreCondition::Corrupt | StoreCondition::Missing)) {
        if let Some(object) = &store.object {
            say!("{}: {} object {object}", store.name, word(store.condition));
        }
    }
}

/// Snapshots, bytes and time; only what is behind has more than a zero.
fn lag(store: &StoreStatus) -> String {
    match store.lag_snapshots {
        _ if !store.known => "?".to_owned(),
        0 => "0".to_owned(),
        n => format!("{n}, {}, {} min", HumanBytes(store.lag_bytes), store.lag_ms / 60_000),
    }
}

pub fn status(status: &Status) {
    say!("{} (repository {})", status.practice, short(&status.repository));
    match status.last_durable_unix_ms {
        // What a store holds that never answered nobody knows.
        None if status.stores.iter().any(|store| !store.known) => say!(
            "Newest durable snapshot: not known, as not every store has answered yet; {} stores are needed.",
            status.quorum_needed
        ),
        durable => say!(
            "Newest durable snapshot: {}; {} sites apart from the server hold it; {} stores are needed.",
            age(durable),
            status.sites_apart,
            status.quorum_needed
        ),
    }
    if let Some(last) = &status.last_snapshot {
        say!("Newest snapshot: {}, {}.", age(Some(last.taken_unix_ms)), standing(last, status.stores.len()));
    }
    if let Some(spool) = status.spool.as_ref().filter(|spool| spool.bytes > 0) {
        let (bytes, most) = (HumanBytes(spool.bytes), HumanBytes(spool.bytes_max));
        let since = spool.since_unix_ms.map_or_else(String::new, |since| format!(", the oldest {}", age(Some(since))));
        say!("Spool: {} snapshots wait for stores, {bytes} of {most}{since}.", spool.snapshots);
    }
    if let Some(next) = status.next_snapshot_unix_ms {
        say!("Next snapshot: {}", table_time(next));
    }
    if let Some(running) = &status.running {
        say!("Running: {} since {}", running.what, table_time(running.since_unix_ms));
    }
    if let Some(paused) = &status.paused {
        say!("BACKUPS WAIT: {paused}");
    }
    say!();
    stores(&status.stores);
}

/// How far a snapshot has come, with how many of the stores hold it.
fn standing(row: &SnapshotRow, stores: usize) -> String {
    let partial = if row.partial { ", partial: it does not count for recovery" } else { "" };
    format!("{} ({} of {stores} stores){partial}", word(row.state), row.stores.len())
}

/// The alerts of all daemons that were asked; what two of them say is told once.
pub fn alerts(open: &[Alert]) {
    if open.is_empty() {
        say!("\nNo alert is open.");
        return;
    }
    say!("\nOpen alerts:");
    let mut told = BTreeSet::new();
    for alert in open.iter().filter(|alert| told.insert((alert.kind, alert.subject.clone()))) {
        let subject = alert.subject.as_ref().map(|s| format!(" {s}")).unwrap_or_default();
        say!("  {}: {}{subject}, since {}", word(alert.severity), word(alert.kind), table_time(alert.since_unix_ms));
        if alert.kind == AlertKind::SourceSetBack {
            say!(
                "    This server or its EMR was set back to an earlier state; the running EMR lacks what that snapshot holds. Do not go on entering:\n    \
                 `backupd recover --snapshot ID` into another folder and compare; then `backupd looked-into{subject}` closes the alert."
            );
        }
        if alert.kind == AlertKind::StoreMissing {
            say!(
                "    The store lost something that it held, or should hold. What another store has comes back, and the alert closes when a drill from it\n    \
                 or a look through all of it finds nothing lacking: at once by `backupd looked-into{subject}`. What no store has any more is told\n    \
                 until then; `backupd verify` goes on naming it for as long as a snapshot needs it."
            );
        }
        if alert.kind == AlertKind::StoreHealed {
            say!(
                "    What the store had lost or damaged was brought back from another one: the list of what maintenance healed names it. Find out\n    \
                 why, and who could delete there; then `backupd looked-into{subject}` closes the alert."
            );
        }
        if alert.kind == AlertKind::HeadGap {
            say!(
                "    Every store lacks the snapshots with these numbers (source/chain/numbers), and nobody signed for their deletion. Find out who\n    \
                 could delete there; `backupd verify` shows what is left; then `backupd looked-into{subject}` closes the alert."
            );
        }
    }
}

/// What maintenance saw and did.
pub fn maintain_status(status: &MaintainStatus) {
    say!("\nMaintenance:");
    maintained(&status.stores);
    for row in &status.healed {
        say!(
            "  healed {} at {} from {} ({}), {}",
            row.object,
            row.store,
            row.from,
            word(row.by),
            table_time(row.at_unix_ms)
        );
    }
    if let Some(next) = status.next_unix_ms {
        say!("Next look for damage: {}", table_time(next));
    }
}

pub fn maintained(rows: &[MaintainStore]) {
    let cells = |s: &MaintainStore| {
        vec![
            s.store.clone(),
            word(s.condition),
            age(s.looked_unix_ms),
            format!("{} of {}", s.checked, s.objects),
            age(s.verified_since_unix_ms),
            s.overdue.to_string(),
            s.missing.to_string(),
            s.corrupt.to_string(),
            s.healed.to_string(),
            s.healed_ever.to_string(),
        ]
    };
    let heads = ["STORE", "CONDITION", "LOOKED", "READ", "ALL READ", "OVERDUE", "MISSING", "CORRUPT", "HEALED", "EVER"];
    table(&heads, &rows.iter().map(cells).collect::<Vec<_>>());
    for store in rows {
        for object in &store.left {
            say!("{}: not healed: {object}", store.store);
        }
    }
}
