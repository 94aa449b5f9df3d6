//! Messages to the outside: queued in the transaction that causes them, sent afterwards, tried again, and told to the audit.
//!
//! ```text
//! booking, reminder, code -> outbox (row) -> worker -> Mail | Webhook | Sms (an adapter each)
//! ```
//!
//! A message says as little as possible: when and where, never why. What was sent is erased; that it was sent stays.

pub mod http;
pub mod mail;
pub mod reminders;

use crate::access::{Actor, Program};
use crate::audit::{Action, Event, Outcome};
use crate::db::Connection;
use crate::store::{Store, StoreError, Tx};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Messages that one round sends.
const ROUND_MAX: usize = 20;
/// A message that could not be sent so many times is given up.
const TRIES_MAX: u32 = 8;
/// The first wait after a failure, milliseconds; each further one is twice as long.
const RETRY_MS: i64 = 60_000;
/// How often the worker looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Mail,
    Sms,
    Webhook,
}

impl Channel {
    pub fn as_str(self) -> &'static str {
        match self {
            Channel::Mail => "mail",
            Channel::Sms => "sms",
            Channel::Webhook => "webhook",
        }
    }

    fn parse(word: &str) -> Option<Channel> {
        [Channel::Mail, Channel::Sms, Channel::Webhook].into_iter().find(|c| c.as_str() == word)
    }
}

/// What goes out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// A mail address or a phone number; empty for the webhook.
    pub to: String,
    pub subject: String,
    pub text: String,
}

/// Where messages leave; a channel that the practice has not set up is `None`, and nothing is queued for it.
#[derive(Default)]
pub struct Channels {
    pub mail: Option<mail::Mailer>,
    pub sms: Option<http::Gateway>,
    pub webhook: Option<http::Gateway>,
}

impl Channels {
    pub fn has(&self, channel: Channel) -> bool {
        match channel {
            Channel::Mail => self.mail.is_some(),
            Channel::Sms => self.sms.is_some(),
            Channel::Webhook => self.webhook.is_some(),
        }
    }

    /// Sends one message; the error is a sentence of ours.
    async fn send(&self, channel: Channel, message: &Message) -> Result<(), &'static str> {
        const OFF: &str = "this channel is not set up";
        match channel {
            Channel::Mail => self.mail.as_ref().ok_or(OFF)?.send(message).await,
            Channel::Sms => self.sms.as_ref().ok_or(OFF)?.send(message).await,
            Channel::Webhook => self.webhook.as_ref().ok_or(OFF)?.send(message).await,
        }
    }
}

/// Six digits, without bias.
pub fn new_code() -> Result<String, std::io::Error> {
    let bytes: [u8; 8] = crate::clock::random()?;
    Ok(format!("{:06}", u64::from_le_bytes(bytes) % 1_000_000))
}

/// Queues a message inside a transaction. `reference` says what it is about; of one reference and channel only one is ever
/// queued, so that a reminder is not sent twice.
pub fn queue(
    tx: &mut Tx<'_>,
    channel: Channel,
    reference: &str,
    message: &Message,
    due_ms: i64,
) -> Result<(), StoreError> {
    let payload =
        serde_json::to_string(message).map_err(|_| StoreError::invalid("cannot be written as JSON", "message"))?;
    if !reference.is_empty() && is_queued(tx.connection(), channel, reference)? {
        return Ok(());
    }
    let sql = "INSERT INTO outbox (created_ms, channel, payload, state, tries, due_ms, reference) \
               VALUES (?1, ?2, ?3, 'waiting', 0, ?4, ?5)";
    tx.connection().prepare_cached(sql)?.execute((tx.now_ms(), channel.as_str(), payload, due_ms, reference))?;
    Ok(())
}

fn is_queued(db: &Connection, channel: Channel, reference: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM outbox WHERE reference = ?1 AND channel = ?2 AND reference <> '')";
    Ok(db.prepare_cached(sql)?.query_row((reference, channel.as_str()), |row| row.get(0))?)
}

#[derive(Clone)]
struct Waiting {
    id: i64,
    channel: String,
    payload: String,
    reference: String,
    tries: u32,
}

/// What was tried and could not be written down, on a full disk for example. Nothing more is sent until it is: without a
/// record the same person would get the same message again every few seconds.
#[derive(Default)]
pub struct Unrecorded(Option<(Waiting, Result<(), &'static str>)>);

/// Sends what waits, for as long as the service runs.
pub async fn work(store: Store, channels: Channels, zone: chrono_tz::Tz, practice: String, reminders: reminders::Plan) {
    let mut unrecorded = Unrecorded::default();
    loop {
        if let Err(error) = round(&store, &channels, &mut unrecorded).await {
            log::error!(error = error.to_string().as_str(); "messages.failed");
        }
        if let Err(error) = reminders::plan(&store, &channels, zone, &practice, &reminders).await {
            log::error!(error = error.to_string().as_str(); "reminders.failed");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One round: at most [`ROUND_MAX`] messages that are due. Gives how many left.
pub async fn round(store: &Store, channels: &Channels, unrecorded: &mut Unrecorded) -> Result<usize, StoreError> {
    if let Some((waiting, outcome)) = unrecorded.0.clone() {
        settle(store, waiting, outcome).await?;
        unrecorded.0 = None;
    }
    let now_ms = store.clock().unix_ms();
    let due = store.internal(move |db| due(db, now_ms)).await?;
    let mut sent = 0;
    for waiting in due {
        let message = serde_json::from_str::<Message>(&waiting.payload).ok();
        let outcome = match (Channel::parse(&waiting.channel), message) {
            (Some(channel), Some(message)) => {
                if reminders::is_over(store, &waiting.reference).await? {
                    Err(OVER)
                } else {
                    channels.send(channel, &message).await
                }
            }
            _ => Err("it cannot be read"),
        };
        sent += usize::from(outcome.is_ok());
        unrecorded.0 = Some((waiting.clone(), outcome));
        settle(store, waiting, outcome).await?;
        unrecorded.0 = None;
    }
    Ok(sent)
}

/// What a reminder says of an appointment that was cancelled or moved meanwhile.
const OVER: &str = "the appointment was cancelled or moved";

fn due(db: &Connection, now_ms: i64) -> Result<Vec<Waiting>, StoreError> {
    let sql = "SELECT id, channel, payload, reference, tries FROM outbox WHERE state = 'waiting' AND due_ms <= ?1 \
               ORDER BY due_ms, id LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let row = |row: &crate::db::Row<'_>| {
        Ok(Waiting {
            id: row.get(0)?,
            channel: row.get(1)?,
            payload: row.get(2)?,
            reference: row.get(3)?,
            tries: row.get(4)?,
        })
    };
    Ok(statement.query_map((now_ms, ROUND_MAX as i64), row)?.collect::<Result<_, _>>()?)
}

async fn settle(store: &Store, waiting: Waiting, outcome: Result<(), &'static str>) -> Result<(), StoreError> {
    let note = move |tx: &mut Tx<'_>| {
        let tries = waiting.tries + 1;
        let given_up = outcome == Err(OVER) || tries >= TRIES_MAX;
        let (state, problem) = match outcome {
            Ok(()) => ("sent", ""),
            Err(problem) if given_up => ("failed", problem),
            Err(problem) => ("waiting", problem),
        };
        // What is over holds addresses and times of people no longer.
        let sql = "UPDATE outbox SET state = ?2, tries = ?3, problem = ?4, due_ms = ?5, \
                   payload = CASE ?2 WHEN 'waiting' THEN payload ELSE '' END WHERE id = ?1";
        let wait_ms = RETRY_MS << tries.min(10);
        tx.connection().prepare_cached(sql)?.execute((waiting.id, state, tries, problem, tx.now_ms() + wait_ms))?;
        let object = format!("{}/{}", waiting.channel, waiting.id);
        let result = if outcome.is_ok() { Outcome::Done } else { Outcome::Failed };
        tx.note(Event::new(Action::Send, "message", &object).outcome(result));
        Ok::<_, StoreError>(())
    };
    if let Err(problem) = outcome {
        log::warn!(problem; "message.not-sent");
    }
    store.write(&Actor::program(Program::Messages), note).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::Mode;

    async fn state(store: &Store) -> (String, u32, String, i64) {
        let read = |db: &Connection| {
            let row = |r: &crate::db::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?));
            Ok::<_, StoreError>(db.query_row("SELECT state, tries, payload, due_ms FROM outbox", [], row)?)
        };
        store.internal(read).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_sent_and_not_written_down_is_written_down_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(crate::support::place(dir.path()), Clock::manual(1_780_000_000_000), Mode::New).unwrap();
        let message = Message { to: "a@example.org".into(), subject: "s".into(), text: "t".into() };
        let queued = move |tx: &mut Tx<'_>| queue(tx, Channel::Mail, "code:1", &message, tx.now_ms());
        store.write::<_, StoreError, _>(&Actor::program(Program::Messages), queued).await.unwrap();
        let mut due = store.internal(|db| due(db, 1_780_000_000_000)).await.unwrap();
        let mut unrecorded = Unrecorded(due.pop().map(|waiting| (waiting, Ok(()))));
        // There is no channel: sending it again would fail.
        assert_eq!(round(&store, &Channels::default(), &mut unrecorded).await.unwrap(), 0);
        assert!(unrecorded.0.is_none());
        let (last, tries, ..) = state(&store).await;
        assert_eq!((last.as_str(), tries), ("sent", 1));
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_tried_again_later_and_given_up_at_last() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_780_000_000_000);
        let store = Store::open(crate::support::place(dir.path()), clock.clone(), Mode::New).unwrap();
        let actor = Actor::program(Program::Messages);
        let message = Message { to: "a@example.org".into(), subject: "s".into(), text: "t".into() };
        let twice = move |tx: &mut Tx<'_>| {
            queue(tx, Channel::Mail, "code:1", &message, tx.now_ms())?;
            queue(tx, Channel::Mail, "code:1", &message, tx.now_ms())
        };
        store.write::<_, StoreError, _>(&actor, twice).await.unwrap();
        let none = Channels::default();
        assert_eq!(round(&store, &none, &mut Unrecorded::default()).await.unwrap(), 0);
        let (first, tries, payload, due_ms) = state(&store).await;
        assert_eq!(
            (first.as_str(), tries, due_ms),
            ("waiting", 1, 1_780_000_000_000 + 120_000),
            "one row, two minutes later"
        );
        assert!(payload.contains("a@example.org"));
        assert_eq!(round(&store, &none, &mut Unrecorded::default()).await.unwrap(), 0);
        assert_eq!(state(&store).await.1, 1, "not before it is due");
        for _ in 0..TRIES_MAX {
            clock.set(clock.unix_ms() + (RETRY_MS << 11));
            round(&store, &none, &mut Unrecorded::default()).await.unwrap();
        }
        let (last, tries, payload, _) = state(&store).await;
        assert_eq!((last.as_str(), tries, payload.as_str()), ("failed", TRIES_MAX, ""), "and nothing of it is kept");
    }
}
