//! The record of actions, and the accounts.

use crate::accounts;
use crate::audit::{self, Chain};
use crate::pages::layout::Column::{Number, Text};
use crate::pages::layout::{Mood, badge, columns, page as frame, when};
use crate::web::{Answer, Call, Refusal, page};
use crate::words::moment_short;
use maud::html;

const PAGE: u32 = 100;

pub async fn show(call: Call) -> Answer {
    let before = call.query("before").and_then(|text| text.parse().ok()).unwrap_or(i64::MAX);
    let (chain, entries) =
        call.app.db.read(|db| Ok::<_, Refusal>((audit::check(db)?, audit::page(db, before, PAGE)?)))?;
    let zone = call.app.settings.time_zone;
    let older = entries.last().map(|entry| entry.seq).filter(|seq| *seq > 1);
    let body = html! {
        p.lead {
            "Who did what in this console. Entries are only ever added; each carries a hash over the one before it. \
             Times are those of "
            (zone.name()) "."
        }
        @match &chain {
            Chain::Whole { entries, head } => {
                p {
                    (badge(Mood::Good, "Unbroken")) " All " (entries)
                    " entries follow from one another. Newest hash: " code.wrap { (hex::encode(head)) }
                }
            }
            Chain::BrokenAt(seq) => {
                p.notice.bad role="alert" {
                    strong { "Entry " (seq) " was changed or removed." }
                    " Keep a copy of the console's data folder and find out who had access to it."
                }
            }
        }
        div.scroll { table {
            (columns(&[Number("Entry"), Text("When"), Text("Who"), Text("Did"), Text("Concerns"), Text("Hash")]))
            tbody { @for entry in &entries {
                tr {
                    td.number { (entry.seq) }
                    td { (moment_short(entry.at_ms, zone)) }
                    td { (entry.who) }
                    td { (entry.act) }
                    td.wrap { @if entry.subject.is_empty() { "–" } @else { (entry.subject) } }
                    td {
                        @let hash = hex::encode(&entry.hash); code title=(hash) {
                            (hash.get(..12).unwrap_or_default())
                        }
                    }
                }
            } }
        } }
        @if let Some(seq) = older { p { a href={ "/record?before=" (seq) } { "Older entries" } } }
    };
    page(frame(&call.app, call.caller()?, "/record", "Record of actions", body))
}

pub async fn accounts(call: Call) -> Answer {
    let now_ms = call.app.now_ms();
    let (accounts, keys) =
        call.app.db.read(|db| Ok::<_, Refusal>((accounts::list(db, now_ms)?, accounts::approval_keys(db)?)))?;
    let body = html! {
        p.lead {
            "Who can sign in here. Accounts are made and disabled on the server only, so that a stolen session \
             cannot make one."
        }
        div.scroll { table {
            (columns(&[Text("Name"), Text("Role"), Text("State"), Text("Made"), Text("Approval key")]))
            tbody { @for account in &accounts {
                tr {
                    td { (account.name) }
                    td { (account.role.title()) }
                    td {
                        @if account.disabled { (badge(Mood::Plain, "Disabled")) }
                        @else if account.besieged { (badge(Mood::Warn, "Tried too often: known browsers only")) }
                        @else { (badge(Mood::Good, "Active")) }
                    }
                    td { (when(&call.app, account.created_ms)) }
                    td {
                        @match keys.iter().find(|(name, _)| *name == account.name) {
                            Some((_, key)) => { code.wrap { (key) } }, None => "–"
                        }
                    }
                }
            } }
        } }
        h2 { "On the server" }
        pre {
            code {
                "console --config console.toml user invite --role auditor\nconsole --config console.toml user \
                 disable --name NAME\nconsole --config console.toml user unlock --name NAME"
            }
        }
    };
    page(frame(&call.app, call.caller()?, "/accounts", "Accounts", body))
}
