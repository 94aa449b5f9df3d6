//! Sends what waits in `deliveries`, one worker for each channel, so that a channel that fails never holds up another.

use crate::alerts::mail::Mailer;
use crate::alerts::state::{AlertRow, Channel, What, by_id};
use crate::alerts::unwritten::Told;
use crate::alerts::webhook::Hook;
use crate::app::App;
use rusqlite::{Connection, OptionalExtension};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const RETRY_MS: i64 = 15_000;
const RETRY_MS_MAX: i64 = 15 * 60_000;
/// After this time a message is old news; the alert itself is repeated while it is open.
const GIVE_UP_MS: i64 = 24 * 3_600_000;

pub enum Sender {
    Mail(Mailer),
    Webhook(Hook),
}

impl Sender {
    fn channel(&self) -> Channel {
        match self {
            Self::Mail(_) => Channel::Mail,
            Self::Webhook(_) => Channel::Webhook,
        }
    }

    /// `delivery` is the message's number, which no other has.
    pub(super) async fn tell(&self, delivery: i64, now_ms: i64, alert: &AlertRow, what: What) -> Result<(), String> {
        match self {
            Self::Mail(mailer) => mailer.send(alert, what).await,
            Self::Webhook(hook) => hook.send(delivery, now_ms, alert, what).await,
        }
    }
}

#[derive(Clone)]
struct Waiting {
    id: i64,
    what: What,
    alert: AlertRow,
    created_ms: i64,
    attempts: i64,
}

/// What was tried and could not be written down, on a full disk for example, by its id: passed over, so that nobody gets one
/// message again and again, and the others have their turn.
#[derive(Default)]
struct Unrecorded(BTreeMap<i64, (Waiting, Result<(), String>)>);

impl Unrecorded {
    fn record(&mut self, app: &App, channel: Channel) -> rusqlite::Result<()> {
        while let Some(first) = self.0.first_entry() {
            let (waiting, result) = first.get();
            let (now_ms, result) = (app.now_ms(), result.clone());
            app.db.write(|tx| settle(tx, now_ms, channel, waiting, result))?;
            let _ = first.remove();
        }
        Ok(())
    }
}

/// Runs until the process ends.
pub async fn run(app: Arc<App>, sender: Sender) {
    let (channel, mut unrecorded, mut told) = (sender.channel(), Unrecorded::default(), Told::default());
    loop {
        told.keep_up(&app.unwritten, &sender, app.now_ms(), app.rules.repeat_ms).await;
        let looked = app.db.read(|db| next(db, channel, app.now_ms(), &unrecorded));
        let recorded = match looked {
            Ok(Some(waiting)) => {
                let result = sender.tell(waiting.id, app.now_ms(), &waiting.alert, waiting.what).await;
                if let Err(reason) = &result {
                    log::warn!(channel = channel.word(), reason = reason.as_str(); "alert.send-failed");
                }
                unrecorded.0.insert(waiting.id, (waiting, result));
                unrecorded.record(&app, channel)
            }
            Ok(None) => {
                tokio::time::sleep(LOOK_EVERY).await;
                unrecorded.record(&app, channel)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            log::error!(error:% = error; "console.database-failed");
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    }
}

/// The oldest message that is due. A failed one does not stand before the others.
fn next(db: &Connection, channel: Channel, now_ms: i64, passed_over: &Unrecorded) -> rusqlite::Result<Option<Waiting>> {
    let mut due = db.prepare_cached(
        "SELECT id, alert, what, created_ms, attempts FROM deliveries
         WHERE channel = ?1 AND (next_ms <= ?2 OR next_ms > ?2 + ?3) AND done_ms IS NULL AND gave_up_ms IS NULL
         ORDER BY next_ms, id LIMIT ?4",
    )?;
    // No message waits longer than this: one that does was put off while the clock was ahead.
    let limits = (channel.word(), now_ms, RETRY_MS_MAX, passed_over.0.len() as i64 + 1);
    let rows = due.query_map(limits, |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, row.get(3)?, row.get(4)?))
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let found = rows.into_iter().find(|(id, ..)| !passed_over.0.contains_key(id));
    let Some((id, alert, what, created_ms, attempts)) = found else { return Ok(None) };
    let (Some(what), Some(alert)) = (What::from_word(&what), by_id(db, alert)?) else {
        // Written by a newer release: it cannot be put into words here.
        db.execute("UPDATE deliveries SET gave_up_ms = ?2, error = 'unknown kind' WHERE id = ?1", (id, now_ms))?;
        return Ok(None);
    };
    Ok(Some(Waiting { id, what, alert, created_ms, attempts }))
}

fn settle(
    db: &Connection,
    now_ms: i64,
    channel: Channel,
    waiting: &Waiting,
    result: Result<(), String>,
) -> rusqlite::Result<()> {
    let Err(reason) = result else {
        // The channel works again: what waited for it is due now.
        db.execute(
            "UPDATE deliveries SET next_ms = ?2
             WHERE channel = ?1 AND next_ms > ?2 AND done_ms IS NULL AND gave_up_ms IS NULL",
            (channel.word(), now_ms),
        )?;
        db.execute("UPDATE deliveries SET done_ms = ?2, error = NULL WHERE id = ?1", (waiting.id, now_ms))?;
        return Ok(());
    };
    let next_ms = now_ms + (RETRY_MS << waiting.attempts.clamp(0, 10)).min(RETRY_MS_MAX);
    let gave_up_ms = (next_ms - waiting.created_ms > GIVE_UP_MS).then_some(now_ms);
    db.execute(
        "UPDATE deliveries SET attempts = attempts + 1, next_ms = ?2, gave_up_ms = ?3, error = ?4 WHERE id = ?1",
        (waiting.id, next_ms, gave_up_ms, reason),
    )?;
    Ok(())
}

/// How a channel does, for the alerts page.
#[derive(Debug, Clone, Default)]
pub struct ChannelHealth {
    pub sent: i64,
    pub last_sent_ms: Option<i64>,
    pub waiting: i64,
    pub gave_up: i64,
    pub last_error: Option<String>,
}

pub fn health(db: &Connection, channel: Channel) -> rusqlite::Result<ChannelHealth> {
    let mut health = db.query_row(
        "SELECT count(done_ms), max(done_ms), count(*) - count(done_ms) - count(gave_up_ms), count(gave_up_ms)
         FROM deliveries WHERE channel = ?1",
        [channel.word()],
        |row| {
            let (sent, last_sent_ms, waiting, gave_up) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(ChannelHealth { sent, last_sent_ms, waiting, gave_up, last_error: None })
        },
    )?;
    health.last_error = db
        .query_row(
            "SELECT error FROM deliveries WHERE channel = ?1 AND error IS NOT NULL ORDER BY id DESC LIMIT 1",
            [channel.word()],
            |row| row.get(0),
        )
        .optional()?;
    Ok(health)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::state::{Fact, Look, Rules};
    use crate::db::Db;
    use backupd_api::{AlertKind, Severity};

    #[test]
    fn a_failing_channel_waits_longer_each_time_and_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path()).unwrap();
        let rules = Rules { channels: vec![Channel::Mail, Channel::Webhook], repeat_ms: i64::MAX };
        db.write_blocking(|tx| {
            let one = [
                Fact::new(AlertKind::BackupLate, Severity::Critical, None, 0),
                Fact::new(AlertKind::StoreLate, Severity::Warning, Some("west"), 0),
            ];
            rules.reconcile(tx, 0, "serve", &Look::Whole(&one))?;
            let none = Unrecorded::default();
            let first = next(tx, Channel::Mail, 0, &none)?.unwrap();
            let unrecorded = Unrecorded(BTreeMap::from([(first.id, (first.clone(), Ok(())))]));
            let behind = next(tx, Channel::Mail, 0, &unrecorded)?.unwrap();
            assert_ne!(
                behind.id, first.id,
                "what was sent and could not be written down is not sent again, nor in the way"
            );
            settle(tx, 0, Channel::Mail, &first, Err("no connection".into()))?;
            let second = next(tx, Channel::Mail, 0, &none)?.unwrap();
            assert_ne!(second.id, first.id, "the next message does not wait for the failed one");
            settle(tx, 0, Channel::Mail, &second, Err("no connection".into()))?;
            assert!(next(tx, Channel::Mail, RETRY_MS - 1, &none)?.is_none());
            let again = next(tx, Channel::Mail, RETRY_MS, &none)?.unwrap();
            assert_eq!((again.id, again.attempts), (first.id, 1));
            settle(tx, RETRY_MS, Channel::Mail, &again, Err("no connection".into()))?;
            let other = next(tx, Channel::Mail, RETRY_MS, &none)?.unwrap();
            assert_eq!(other.id, second.id);
            settle(tx, RETRY_MS, Channel::Mail, &other, Ok(()))?;
            let soon = next(tx, Channel::Mail, RETRY_MS, &none)?.unwrap();
            assert_eq!(soon.id, first.id, "a success makes what waited due at once");
            settle(tx, RETRY_MS, Channel::Mail, &soon, Err("no connection".into()))?;
            assert!(next(tx, Channel::Mail, 5 * RETRY_MS - 1, &none)?.is_none(), "15, 30, 60 seconds");
            let late = next(tx, Channel::Mail, GIVE_UP_MS, &none)?.unwrap();
            settle(tx, GIVE_UP_MS, Channel::Mail, &late, Err("no connection".into()))?;
            assert!(next(tx, Channel::Mail, i64::MAX, &none)?.is_none(), "old news is given up");
            let mail = health(tx, Channel::Mail)?;
            assert_eq!((mail.sent, mail.waiting, mail.gave_up), (1, 0, 1));
            assert_eq!(health(tx, Channel::Webhook)?.waiting, 2);
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
    }
}
