//! The life of an alert, kept in the database so that a restart neither forgets nor repeats one.
//!
//! Every daemon is a *source*. A source that answers says all that is wrong with it: what it no longer names is closed.
//! A source that does not answer closes nothing, because silence is not health.

use crate::audit::{self, Act};
use crate::words::{from_word, future, word};
use backupd_api::{AlertKind, Severity};
use rusqlite::{Connection, OptionalExtension, Row};

/// Where an alert is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Mail,
    Webhook,
}

impl Channel {
    pub fn word(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Webhook => "webhook",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Opened,
    Repeated,
    Acknowledged,
    Closed,
}

impl What {
    pub fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Repeated => "repeated",
            Self::Acknowledged => "acknowledged",
            Self::Closed => "closed",
        }
    }

    pub fn from_word(text: &str) -> Option<Self> {
        [Self::Opened, Self::Repeated, Self::Acknowledged, Self::Closed].into_iter().find(|what| what.word() == text)
    }
}

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub kind: AlertKind,
    pub severity: Severity,
    pub subject: String,
    pub since_ms: i64,
}

impl Fact {
    /// `subject` is an id of a store, host, object, duty or daemon; anything else is withheld.
    pub fn new(kind: AlertKind, severity: Severity, subject: Option<&str>, since_ms: i64) -> Self {
        let subject = subject.unwrap_or_default();
        let id = subject.len() <= 128
            && subject.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':' | b'/'));
        let subject = if id { subject.to_owned() } else { "withheld".to_owned() };
        Self { kind, severity, subject, since_ms }
    }
}

/// What a look at a source found.
pub enum Look<'a> {
    /// It answered: this is all that is wrong.
    Whole(&'a [Fact]),
    /// It did not answer: this is wrong besides what was known before.
    Silent(&'a [Fact]),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRow {
    pub id: i64,
    pub source: String,
    pub kind: AlertKind,
    pub severity: Severity,
    pub subject: String,
    pub since_ms: i64,
    pub opened_ms: i64,
    pub sent_ms: i64,
    pub repeats: i64,
    pub acknowledged_ms: Option<i64>,
    pub acknowledged_by: Option<String>,
    pub closed_ms: Option<i64>,
}

/// How alerts are sent: the configured channels and the time after which an unacknowledged one is sent again.
#[derive(Debug, Clone)]
pub struct Rules {
    pub channels: Vec<Channel>,
    pub repeat_ms: i64,
}

const COLUMNS: &str = "id, source, kind, severity, subject, since_ms, opened_ms, sent_ms, repeats, acknowledged_ms, \
                       acknowledged_by, closed_ms";

impl Rules {
    /// Sent long enough ago; or in the future, by a clock that was ahead, and nobody knows when.
    fn is_due_again(&self, sent_ms: i64, now_ms: i64) -> bool {
        future(sent_ms, now_ms) || now_ms.saturating_sub(sent_ms) >= self.repeat_ms
    }

    /// Takes what a look at `source` found into account: opens, repeats, raises and closes.
    pub fn reconcile(&self, db: &Connection, now_ms: i64, source: &str, look: &Look<'_>) -> rusqlite::Result<()> {
        let (facts, whole) = match look {
            Look::Whole(facts) => (*facts, true),
            Look::Silent(facts) => (*facts, false),
        };
        let open = open_of(db, source)?;
        for (index, fact) in facts.iter().enumerate() {
            let same = |f: &Fact| f.kind == fact.kind && f.subject == fact.subject;
            if facts[..index].iter().any(same) {
                continue;
            }
            match open.iter().find(|alert| alert.kind == fact.kind && alert.subject == fact.subject) {
                // Two daemons may see one thing, such as a failed drill: whoever saw it first tells it.
                None if told_by_another(db, source, fact)? => {}
                None => self.open(db, now_ms, source, fact)?,
                Some(alert) if fact.severity > alert.severity => self.raise(db, now_ms, alert, fact.severity)?,
                Some(alert) if fact.severity < alert.severity => {
                    db.execute("UPDATE alerts SET severity = ?2 WHERE id = ?1", (alert.id, word(&fact.severity)))?;
                }
                Some(_) => {}
            }
        }
        for alert in &open {
            let named = facts.iter().any(|fact| fact.kind == alert.kind && fact.subject == alert.subject);
            if whole && !named {
                self.close(db, now_ms, alert.id)?;
            } else if alert.acknowledged_ms.is_none() && self.is_due_again(alert.sent_ms, now_ms) {
                db.execute("UPDATE alerts SET sent_ms = ?2, repeats = repeats + 1 WHERE id = ?1", (alert.id, now_ms))?;
                self.event(db, now_ms, alert.id, What::Repeated, None)?;
            }
        }
        Ok(())
    }

    fn open(&self, db: &Connection, now_ms: i64, source: &str, fact: &Fact) -> rusqlite::Result<()> {
        db.execute(
            "INSERT INTO alerts (source, kind, subject, severity, since_ms, opened_ms, sent_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
            (source, word(&fact.kind), &fact.subject, word(&fact.severity), fact.since_ms, now_ms),
        )?;
        self.event(db, now_ms, db.last_insert_rowid(), What::Opened, None)
    }

    /// A worse severity is news: an earlier acknowledgement does not cover it.
    fn raise(&self, db: &Connection, now_ms: i64, alert: &AlertRow, severity: Severity) -> rusqlite::Result<()> {
        db.execute(
            "UPDATE alerts SET severity = ?2, sent_ms = ?3, acknowledged_ms = NULL, acknowledged_by = NULL
             WHERE id = ?1",
            (alert.id, word(&severity), now_ms),
        )?;
        self.event(db, now_ms, alert.id, What::Opened, None)
    }

    fn close(&self, db: &Connection, now_ms: i64, id: i64) -> rusqlite::Result<()> {
        db.execute("UPDATE alerts SET closed_ms = ?2 WHERE id = ?1 AND closed_ms IS NULL", (id, now_ms))?;
        self.event(db, now_ms, id, What::Closed, None)
    }

    /// Somebody has it in hand: repeats stop. A test alert closes with it. Returns false when there is nothing to
    /// acknowledge.
    pub fn acknowledge(&self, db: &Connection, now_ms: i64, id: i64, who: &str) -> rusqlite::Result<bool> {
        let changed = db.execute(
            "UPDATE alerts SET acknowledged_ms = ?2, acknowledged_by = ?3
             WHERE id = ?1 AND closed_ms IS NULL AND acknowledged_ms IS NULL",
            (id, now_ms, who),
        )?;
        if changed != 1 {
            return Ok(false);
        }
        audit::append(db, now_ms, who, Act::AlertAcknowledged, &id.to_string())?;
        self.event(db, now_ms, id, What::Acknowledged, Some(who))?;
        if by_id(db, id)?.is_some_and(|alert| alert.kind == AlertKind::Test) {
            self.close(db, now_ms, id)?;
        }
        Ok(true)
    }

    /// Opens a test alert, or sends an open one again.
    pub fn test(&self, db: &Connection, now_ms: i64, who: &str) -> rusqlite::Result<()> {
        audit::append(db, now_ms, who, Act::AlertTested, "")?;
        let fact = Fact::new(AlertKind::Test, Severity::Warning, None, now_ms);
        match open_of(db, CONSOLE)?.first() {
            None => self.open(db, now_ms, CONSOLE, &fact),
            Some(alert) => {
                db.execute("UPDATE alerts SET sent_ms = ?2, repeats = repeats + 1 WHERE id = ?1", (alert.id, now_ms))?;
                self.event(db, now_ms, alert.id, What::Repeated, None)
            }
        }
    }

    /// Closes what belongs to daemons that are no longer in the settings.
    pub fn retire_sources(&self, db: &Connection, now_ms: i64, sources: &[String]) -> rusqlite::Result<()> {
        for alert in open(db)? {
            if alert.source != CONSOLE && !sources.contains(&alert.source) {
                self.close(db, now_ms, alert.id)?;
            }
        }
        Ok(())
    }

    /// Writes the event and its messages in the caller's transaction.
    fn event(&self, db: &Connection, now_ms: i64, id: i64, what: What, who: Option<&str>) -> rusqlite::Result<()> {
        db.execute(
            "INSERT INTO alert_events (alert, at_ms, what, who) VALUES (?1, ?2, ?3, ?4)",
            (id, now_ms, what.word(), who),
        )?;
        for channel in &self.channels {
            db.execute(
                "INSERT INTO deliveries (alert, what, channel, created_ms, next_ms) VALUES (?1, ?2, ?3, ?4, ?4)",
                (id, what.word(), channel.word(), now_ms),
            )?;
        }
        log::info!(alert = id, what = what.word(); "alert.event");
        Ok(())
    }
}

/// The source of alerts that the console itself opens.
pub const CONSOLE: &str = "console";

/// Whether an alert of another source says the same, at least as badly.
fn told_by_another(db: &Connection, source: &str, fact: &Fact) -> rusqlite::Result<bool> {
    let same = |alert: &AlertRow| alert.kind == fact.kind && alert.subject == fact.subject;
    Ok(open(db)?.iter().any(|alert| alert.source != source && same(alert) && alert.severity >= fact.severity))
}

fn open_of(db: &Connection, source: &str) -> rusqlite::Result<Vec<AlertRow>> {
    let sql = format!("SELECT {COLUMNS} FROM alerts WHERE closed_ms IS NULL AND source = ?1");
    rows(db.prepare_cached(&sql)?.query_map([source], row)?)
}

/// Worst first, then oldest first.
pub fn open(db: &Connection) -> rusqlite::Result<Vec<AlertRow>> {
    let sql = format!("SELECT {COLUMNS} FROM alerts WHERE closed_ms IS NULL ORDER BY severity, since_ms");
    rows(db.prepare_cached(&sql)?.query_map([], row)?)
}

/// Newest first.
pub fn closed(db: &Connection, limit: u32) -> rusqlite::Result<Vec<AlertRow>> {
    let sql =
        format!("SELECT {COLUMNS} FROM alerts WHERE closed_ms IS NOT NULL ORDER BY closed_ms DESC, id DESC LIMIT ?1");
    rows(db.prepare_cached(&sql)?.query_map([limit], row)?)
}

pub fn by_id(db: &Connection, id: i64) -> rusqlite::Result<Option<AlertRow>> {
    let sql = format!("SELECT {COLUMNS} FROM alerts WHERE id = ?1");
    Ok(db.query_row(&sql, [id], row).optional()?.flatten())
}

fn rows(found: impl Iterator<Item = rusqlite::Result<Option<AlertRow>>>) -> rusqlite::Result<Vec<AlertRow>> {
    found.filter_map(Result::transpose).collect()
}

/// `None` for a kind that only a newer release knows.
fn row(row: &Row<'_>) -> rusqlite::Result<Option<AlertRow>> {
    let (kind, severity): (String, String) = (row.get(2)?, row.get(3)?);
    let (Some(kind), Some(severity)) = (from_word(&kind), from_word(&severity)) else { return Ok(None) };
    Ok(Some(AlertRow {
        id: row.get(0)?,
        source: row.get(1)?,
        kind,
        severity,
        subject: row.get(4)?,
        since_ms: row.get(5)?,
        opened_ms: row.get(6)?,
        sent_ms: row.get(7)?,
        repeats: row.get(8)?,
        acknowledged_ms: row.get(9)?,
        acknowledged_by: row.get(10)?,
        closed_ms: row.get(11)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Db;

    const HOUR: i64 = 3_600_000;

    fn rules() -> Rules {
        Rules { channels: vec![Channel::Mail, Channel::Webhook], repeat_ms: HOUR }
    }

    fn store_down(severity: Severity) -> Fact {
        Fact::new(AlertKind::StoreUnreachable, severity, Some("west"), 5)
    }

    fn run<T>(db: &Db, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> T {
        db.write_blocking(|tx| work(tx)).unwrap()
    }

    fn events(db: &Db) -> Vec<String> {
        run(db, |db| db.prepare("SELECT what FROM alert_events ORDER BY rowid")?.query_map([], |r| r.get(0))?.collect())
    }

    fn waiting(db: &Db, channel: Channel) -> i64 {
        run(db, |db| db.query_row("SELECT count(*) FROM deliveries WHERE channel = ?1", [channel.word()], |r| r.get(0)))
    }

    #[test]
    fn opens_repeats_acknowledges_and_closes_across_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path()).unwrap();
        let facts = [store_down(Severity::Warning)];
        run(&db, |db| rules().reconcile(db, 10, "serve", &Look::Whole(&facts)));
        run(&db, |db| rules().reconcile(db, 20, "serve", &Look::Whole(&facts)));
        assert_eq!(events(&db), ["opened"], "one fact opens one alert");
        drop(db);
        let db = Db::open(folder.path()).unwrap();
        run(&db, |db| rules().reconcile(db, 9 + HOUR, "serve", &Look::Whole(&facts)));
        assert_eq!(events(&db), ["opened"], "a restart does not open or send it again");
        run(&db, |db| rules().reconcile(db, 10 + HOUR, "serve", &Look::Whole(&facts)));
        assert_eq!(events(&db), ["opened", "repeated"]);
        let id = run(&db, open)[0].id;
        assert!(run(&db, |db| rules().acknowledge(db, 11 + HOUR, id, "anna")));
        assert!(!run(&db, |db| rules().acknowledge(db, 12 + HOUR, id, "bert")), "only once");
        drop(db);
        let db = Db::open(folder.path()).unwrap();
        run(&db, |db| rules().reconcile(db, 9 * HOUR, "serve", &Look::Whole(&facts)));
        assert_eq!(events(&db), ["opened", "repeated", "acknowledged"], "an acknowledged alert is quiet");
        assert_eq!(run(&db, open)[0].acknowledged_by.as_deref(), Some("anna"));
        run(&db, |db| rules().reconcile(db, 10 * HOUR, "serve", &Look::Whole(&[])));
        assert_eq!(events(&db), ["opened", "repeated", "acknowledged", "closed"]);
        assert!(run(&db, open).is_empty());
        assert_eq!(waiting(&db, Channel::Mail), 4);
        assert_eq!(waiting(&db, Channel::Webhook), 4);
    }

    #[test]
    fn silence_closes_nothing_and_still_repeats() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path()).unwrap();
        run(&db, |db| rules().reconcile(db, 0, "serve", &Look::Whole(&[store_down(Severity::Warning)])));
        let silent = [Fact::new(AlertKind::DaemonUnreachable, Severity::Critical, Some("serve"), 1)];
        run(&db, |db| rules().reconcile(db, 1, "serve", &Look::Silent(&silent)));
        assert_eq!(run(&db, open).len(), 2);
        assert_eq!(run(&db, open)[0].kind, AlertKind::DaemonUnreachable, "the worst stands first");
        run(&db, |db| rules().reconcile(db, HOUR, "serve", &Look::Silent(&silent)));
        assert_eq!(events(&db), ["opened", "opened", "repeated"]);
        run(&db, |db| rules().reconcile(db, HOUR + 1, "serve", &Look::Whole(&[])));
        assert!(run(&db, open).is_empty(), "an answer closes both");
    }

    #[test]
    fn another_source_does_not_close_it_and_a_worse_state_needs_a_new_acknowledgement() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path()).unwrap();
        run(&db, |db| rules().reconcile(db, 0, "serve", &Look::Whole(&[store_down(Severity::Warning)])));
        run(&db, |db| rules().reconcile(db, 1, "verifier", &Look::Whole(&[])));
        let id = run(&db, open)[0].id;
        run(&db, |db| rules().acknowledge(db, 2, id, "anna"));
        run(&db, |db| rules().reconcile(db, 3, "serve", &Look::Whole(&[store_down(Severity::Critical)])));
        let alert = run(&db, open).remove(0);
        assert_eq!((alert.severity, alert.acknowledged_ms), (Severity::Critical, None));
        run(&db, |db| rules().acknowledge(db, 3, id, "anna"));
        run(&db, |db| rules().reconcile(db, 3, "serve", &Look::Whole(&[store_down(Severity::Warning)])));
        let alert = run(&db, open).remove(0);
        assert_eq!(alert.severity, Severity::Warning, "a better state is no news");
        assert!(alert.acknowledged_ms.is_some());
        run(&db, |db| rules().retire_sources(db, 4, &["verifier".into()]));
        assert!(run(&db, open).is_empty());
    }

    #[test]
    fn one_thing_that_two_daemons_see_is_told_once_and_until_both_are_content() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path()).unwrap();
        let failed = |severity| [Fact::new(AlertKind::DrillFailed, severity, Some("west"), 5)];
        run(&db, |db| rules().reconcile(db, 0, "verifier", &Look::Whole(&failed(Severity::Warning))));
        run(&db, |db| rules().reconcile(db, 1, "serve", &Look::Whole(&failed(Severity::Warning))));
        assert_eq!(events(&db), ["opened"]);
        let other = [Fact::new(AlertKind::DrillFailed, Severity::Warning, Some("east"), 5)];
        run(&db, |db| rules().reconcile(db, 2, "serve", &Look::Whole(&other)));
        assert_eq!(events(&db), ["opened", "opened"], "another store is another thing");
        run(&db, |db| rules().reconcile(db, 3, "serve", &Look::Whole(&failed(Severity::Critical))));
        assert_eq!(events(&db), ["opened", "opened", "opened", "closed"], "a worse state is told");
        run(&db, |db| rules().reconcile(db, 4, "verifier", &Look::Whole(&[])));
        assert_eq!(run(&db, open).len(), 1, "the other daemon still says it");
        run(&db, |db| rules().reconcile(db, 5, "serve", &Look::Whole(&[])));
        assert!(run(&db, open).is_empty());
    }

    #[test]
    fn a_test_alert_closes_when_it_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path()).unwrap();
        run(&db, |db| rules().test(db, 0, "anna"));
        run(&db, |db| rules().test(db, 1, "anna"));
        let open_now = run(&db, open);
        assert_eq!(open_now.len(), 1);
        run(&db, |db| rules().acknowledge(db, 2, open_now[0].id, "bert"));
        assert_eq!(events(&db), ["opened", "repeated", "acknowledged", "closed"]);
    }

    #[test]
    fn a_subject_that_is_no_id_is_withheld() {
        assert_eq!(Fact::new(AlertKind::StoreLate, Severity::Warning, Some("Jane Doe"), 0).subject, "withheld");
        assert_eq!(Fact::new(AlertKind::StoreLate, Severity::Warning, Some("west-2.b"), 0).subject, "west-2.b");
    }
}
