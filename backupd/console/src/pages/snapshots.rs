//! Every snapshot and how far it has come. Counts and ids only: tags and paths are record content.

use crate::daemons;
use crate::pages::activity;
use crate::pages::layout::Column::{Number, Text};
use crate::pages::layout::{Column, Mood, badge, columns, page as frame, silence, when_exactly};
use crate::web::{Answer, Call, page};
use crate::words::bytes;
use backupd_api::{ClientError, SnapshotRow, SnapshotState};
use maud::{Markup, html};
use std::time::Duration;

const COLUMNS: &[Column] = &[
    Text("Taken"),
    Text("Source"),
    Text("Number"),
    Text("State"),
    Number("Files"),
    Number("Size"),
    Number("New"),
    Text("Complete at"),
    Text("Id"),
];

const SHOWN_MAX: usize = 200;
/// A page does not wait longer for a daemon that hangs: it shows what was last known.
const PATIENCE: Duration = Duration::from_secs(4);

pub async fn show(call: Call) -> Answer {
    let asked = tokio::time::timeout(PATIENCE, daemons::look_at_snapshots(&call.app.daemons)).await;
    let answer = asked.unwrap_or(Err(ClientError::Timeout));
    let now_ms = call.app.now_ms();
    let (seen, stores) = call.app.pictures.change(|picture| {
        match answer {
            Ok(rows) => picture.snapshots.answered(now_ms, rows),
            Err(error) => picture.snapshots.failed(now_ms, daemons::reason(&error)),
        }
        (picture.snapshots.clone(), picture.serve.value().map_or(0, |view| view.status.stores.len()))
    });
    let rows = seen.value().map(Vec::as_slice).unwrap_or_default();
    let body = html! {
        p.lead {
            "Each snapshot is a complete copy of the records at one moment. It is only worth something where it is "
            strong { "durable" } ", and only sure where it is " strong { "proved" } "."
        }
        (silence(&call.app, &seen, "backupd serve", "No backup is taken while it is down. This list may be old."))
        @if seen.last.is_none() {
            p.empty { "Not known until backupd serve answers." }
        } @else if rows.is_empty() {
            p.empty { "No snapshot is known yet. Start the first backup from the posture page." }
        } @else {
            (table(&call, rows, stores))
        }
        (legend())
    };
    page(frame(&call.app, call.caller()?, "/snapshots", "Snapshots", body))
}

fn table(call: &Call, rows: &[SnapshotRow], stores: usize) -> Markup {
    html! {
        div.scroll {
            table {
                caption {
                    (rows.len()) " snapshots, newest first" @if rows.len() > SHOWN_MAX {
                        "; the newest " (SHOWN_MAX) " are shown"
                    }
                }
                (columns(COLUMNS))
                tbody {
                    @for row in rows.iter().take(SHOWN_MAX) {
                        tr {
                            td { (when_exactly(&call.app, row.taken_unix_ms)) }
                            td { (row.source) }
                            td { (row.counter) }
                            td { (state(row)) }
                            td.number { (row.files) }
                            td.number { (bytes(row.bytes_source)) }
                            td.number { (bytes(row.bytes_added)) }
                            td {
                                @if row.stores.is_empty() { "no store yet" } @else { (row.stores.join(", ")) }
                                @if stores > 0 && row.stores.len() < stores {
                                    span.small { " (" (row.stores.len()) " of " (stores) ")" }
                                }
                            }
                            td { (activity::id(&row.id)) }
                        }
                    }
                }
            }
        }
    }
}

pub fn state(row: &SnapshotRow) -> Markup {
    let (mood, word) = match row.state {
        SnapshotState::Captured => (Mood::Warn, "Captured"),
        SnapshotState::Sealed => (Mood::Warn, "Sealed"),
        SnapshotState::Durable => (Mood::Good, "Durable"),
        SnapshotState::Full => (Mood::Good, "Full"),
        SnapshotState::Proved => (Mood::Good, "Proved"),
    };
    html! {
        (badge(mood, word))
        @if row.partial { " " (badge(Mood::Bad, "Incomplete")) }
        @if row.other_machine { " " (badge(Mood::Bad, "Another machine's")) }
    }
}

fn legend() -> Markup {
    html! {
        details.legend {
            summary { "What the words mean" }
            dl {
                dt { "Captured" } dd { "Read from the EMR at one consistent moment; still on the server only." }
                dt { "Sealed" } dd {
                    "Encrypted so that the server itself cannot read it again; still on the server only."
                }
                dt { "Durable" } dd { "Complete in as many stores as the practice's rule asks for." }
                dt { "Full" } dd { "Complete in every store." }
                dt { "Proved" } dd { "A drill restored it from one store alone and the real EMR ran on it." }
                dt { "Incomplete" } dd { "Some files could not be read: it does not count." }
                dt { "Another machine's" } dd {
                    "Written beside this server's by a copy of it, or by an old one: it holds nothing of what is entered here."
                }
                dt { "New" } dd { "Sealed bytes that this snapshot added to each store; the rest was there already." }
            }
        }
    }
}
