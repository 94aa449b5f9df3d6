//! PostgreSQL: a database of a server on this machine, with SQLite's meaning.
//!
//! | here | there |
//! |---|---|
//! | one writer | every transaction that writes takes an advisory lock first; `serve` holds another as long as it lives |
//! | a read point | `REPEATABLE READ READ ONLY` |
//! | a commit that is on the disk | `synchronous_commit`, which a commit of read entries does without until a second connection flushes |
//! | a file that is gone | a connection that ends: it is replaced when the next transaction begins |

mod address;
mod dialect;
mod types;
mod wire;

pub use address::Server;

use super::{Code, Error, Flush, Params, Result, ValueRef};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use wire::{Answer, Link, Prepared};

/// Rows that are fetched at a time.
const ROWS_AT_ONCE: i32 = 500;
/// The first of two numbers of this program's advisory locks ("HfEM"); the second is one of these.
const LOCKS: i32 = 0x4866_454d;
const LOCK_EXCLUSIVE: i32 = 1;
const LOCK_WRITE: i32 = 2;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Read,
    Write,
    /// [`Task::Write`], and nobody else holds the database so.
    WriteExclusively,
}

/// A connection to the server, which is made anew when it has ended.
pub struct Session {
    server: Arc<Server>,
    task: Task,
    link: RefCell<Option<Link>>,
    links: Cell<u64>,
    /// A transaction is open.
    open: Cell<bool>,
    portals: Cell<u64>,
}

pub(super) struct Statement<'c> {
    session: &'c Session,
    prepared: Arc<Prepared>,
}

/// Rows as they came; more are fetched as they are asked for.
pub(super) struct Rows<'s> {
    session: &'s Session,
    prepared: Arc<Prepared>,
    rows: std::vec::IntoIter<Bytes>,
    current: Bytes,
    portal: Option<String>,
    more: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Row<'r> {
    prepared: &'r Prepared,
    cells: &'r [u8],
}

impl Session {
    pub(super) fn open(server: &Arc<Server>, task: Task) -> Result<Session> {
        let session = Session {
            server: Arc::clone(server),
            task,
            link: RefCell::new(None),
            links: Cell::new(0),
            open: Cell::new(false),
            portals: Cell::new(0),
        };
        session.revive()?;
        Ok(session)
    }

    /// Connects where there is no connection, or none any more.
    fn revive(&self) -> Result<()> {
        let mut slot = self.link.borrow_mut();
        if slot.as_mut().is_some_and(Link::is_alive) {
            return Ok(());
        }
        *slot = None;
        self.open.set(false);
        self.links.set(self.links.get() + 1);
        let parameters = [
            ("client_encoding", "UTF8"),
            ("application_name", "holdfast-appliance"),
            ("search_path", "public"),
            ("TimeZone", "UTC"),
            // As long as SQLite waits for another process's write.
            ("lock_timeout", "5s"),
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            // A commit is on the disk when a clinician sees "saved".
            ("synchronous_commit", "on"),
            // Statements here are many and short.
            ("jit", "off"),
        ];
        let mut link = Link::connect(&self.server, self.links.get(), &parameters)?;
        if self.task == Task::WriteExclusively {
            hold(&mut link)?;
        }
        *slot = Some(link);
        Ok(())
    }

    fn with<T>(&self, job: impl FnOnce(&mut Link) -> Result<T>) -> Result<T> {
        let mut slot = self.link.borrow_mut();
        let result = job(slot.as_mut().ok_or(Error::Unreachable)?);
        if slot.as_ref().is_some_and(Link::is_broken) {
            *slot = None;
        }
        result
    }

    pub(super) fn prepare(&self, sql: &str) -> Result<Statement<'_>> {
        let prepared = self.with(|link| link.prepare(sql))?;
        Ok(Statement { session: self, prepared })
    }

    pub(super) fn execute_batch(&self, sql: &str) -> Result<()> {
        self.with(|link| link.simple(sql)).map(drop)
    }

    /// The read point is that of the first statement that follows, with which this travels.
    pub(super) fn begin_read(&self) -> Result<()> {
        self.revive()?;
        self.with(|link| link.later("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))?;
        self.open.set(true);
        Ok(())
    }

    pub(super) fn begin_write(&self, flush: Flush) -> Result<()> {
        let soon = if flush == Flush::Soon { "SET LOCAL synchronous_commit TO off; " } else { "" };
        let sql = format!("BEGIN; {soon}SELECT pg_advisory_xact_lock({LOCKS}, {LOCK_WRITE})");
        let mut begun = Err(Error::Unreachable);
        for _ in 0..2 {
            self.revive()?;
            begun = self.with(|link| link.simple(&sql)).map(drop);
            // The server was restarted since the last transaction: another connection is tried, once.
            if begun != Err(Error::Unreachable) {
                break;
            }
        }
        self.open.set(true);
        if begun.is_err() {
            // Of a lock that did not come a transaction is left that does nothing.
            let _ = self.rollback();
        }
        begun
    }

    /// # Errors
    /// Whatever it is, callers are told that nothing was saved. Of a connection that ended during the commit nobody knows.
    pub(super) fn commit(&self) -> Result<()> {
        let answer = self.with(|link| link.simple("COMMIT"));
        self.end();
        // A transaction in which something failed is rolled back instead, and that is no error there.
        if answer?.tag == "COMMIT" { Ok(()) } else { Err(Error::Refused(Code::Misuse)) }
    }

    pub(super) fn rollback(&self) -> Result<()> {
        if !self.open.get() {
            return Ok(());
        }
        self.end();
        let slot_is_empty = self.link.borrow().is_none();
        // The end of the connection was the end of the transaction.
        if slot_is_empty { Ok(()) } else { self.with(|link| link.later("ROLLBACK").and_then(|()| link.flush())) }
    }

    fn end(&self) {
        self.open.set(false);
        if let Some(link) = self.link.borrow_mut().as_mut() {
            link.forget_portals();
        }
    }

    /// Sends what nobody has to wait for.
    pub(super) fn later(&self, sql: &str) -> Result<()> {
        self.with(|link| link.later(sql))
    }

    /// Waits until what was sent with [`Statement::send`] is done.
    pub(super) fn settle(&self) -> Result<()> {
        self.with(Link::settle_sent)
    }

    /// Brings to the disk what was committed without that.
    pub(super) fn flush(&self) -> Result<()> {
        self.revive()?;
        // A message into the log that nobody reads: its commit waits until the disk has it and all before it.
        self.with(|link| link.simple("SELECT pg_logical_emit_message(true, 'holdfast', 'flush')")).map(drop)
    }

    /// Runs the schema's statements of one step. See [`dialect::schema`].
    pub(super) fn make(&self, sql: &str, moves_data: bool) -> Result<()> {
        dialect::schema(sql, moves_data).iter().try_for_each(|sql| self.execute_batch(sql))
    }

    pub(super) fn make_functions(&self) -> Result<()> {
        self.execute_batch(dialect::FUNCTIONS)
    }
}

impl<'c> Statement<'c> {
    pub(super) fn execute(&mut self, params: impl Params) -> Result<usize> {
        let answer = self.session.with(|link| link.execute(&self.prepared, ("", 0), params))?;
        Ok(answer.tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0))
    }

    /// Carries it out without waiting for the answer.
    pub(super) fn send(&mut self, params: impl Params) -> Result<()> {
        self.session.with(|link| link.send(&self.prepared, params))
    }

    pub(super) fn query(&mut self, params: impl Params) -> Result<Rows<'c>> {
        if !self.session.open.get() {
            // Without a transaction a portal ends with its statement.
            return self.rows(params, None, 0);
        }
        let number = self.session.portals.get();
        self.session.portals.set(number + 1);
        self.rows(params, Some(format!("p{number}")), ROWS_AT_ONCE)
    }

    /// The first row alone.
    pub(super) fn query_first(&mut self, params: impl Params) -> Result<Rows<'c>> {
        let mut rows = self.rows(params, None, 1)?;
        rows.more = false;
        Ok(rows)
    }

    fn rows(&self, params: impl Params, portal: Option<String>, rows_max: i32) -> Result<Rows<'c>> {
        let name = portal.as_deref().unwrap_or_default();
        let answer = self.session.with(|link| link.execute(&self.prepared, (name, rows_max), params))?;
        Ok(Rows {
            session: self.session,
            prepared: Arc::clone(&self.prepared),
            rows: answer.rows.into_iter(),
            current: Bytes::new(),
            portal,
            more: answer.more,
        })
    }

    pub(super) fn column_names(&self) -> Vec<String> {
        self.prepared.columns.iter().map(|column| column.name.clone()).collect()
    }
}

impl Rows<'_> {
    pub(super) fn next(&mut self) -> Result<Option<Row<'_>>> {
        let next = match (self.rows.next(), &self.portal) {
            (None, Some(portal)) if self.more => {
                let Answer { rows, more, .. } = self.session.with(|link| link.fetch(portal, ROWS_AT_ONCE))?;
                (self.rows, self.more) = (rows.into_iter(), more);
                self.rows.next()
            }
            (next, _) => next,
        };
        let Some(cells) = next else { return Ok(None) };
        self.current = cells;
        Ok(Some(Row { prepared: &self.prepared, cells: &self.current }))
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        if let (Some(portal), Ok(mut slot)) = (self.portal.take(), self.session.link.try_borrow_mut())
            && let Some(link) = slot.as_mut()
            && self.session.open.get()
        {
            link.end(portal);
        }
    }
}

impl<'r> Row<'r> {
    /// Cells lie one after the other, each behind its length; -1 is null.
    pub(super) fn get_ref(&self, number: usize) -> Result<ValueRef<'r>> {
        let column = self.prepared.columns.get(number).ok_or(Error::Refused(Code::Misuse))?;
        let mut rest = self.cells;
        for at in 0.. {
            let (length, after) = rest.split_first_chunk::<4>().ok_or(Error::Column)?;
            let length = usize::try_from(i32::from_be_bytes(*length)).ok();
            let (cell, after) = after.split_at_checked(length.unwrap_or(0)).ok_or(Error::Column)?;
            if at == number {
                return types::decoded(column.oid, length.map(|_| cell));
            }
            rest = after;
        }
        Err(Error::Column)
    }
}

/// Takes the lock of the one process that writes. Whoever had it last may have ended a moment ago, and the server has not
/// noticed yet: so it is tried for a second.
fn hold(link: &mut Link) -> Result<()> {
    const TRIES: usize = 20;
    let prepared = link.prepare(&format!("SELECT pg_try_advisory_lock({LOCKS}, {LOCK_EXCLUSIVE})"))?;
    for _ in 0..TRIES {
        let answer = link.execute(&prepared, ("", 1), ())?;
        let cells = answer.rows.first().ok_or(Error::NoRows)?;
        if (Row { prepared: &prepared, cells }).get_ref(0)? == ValueRef::Integer(1) {
            return Ok(());
        }
        link.simple("SELECT pg_sleep(0.05)")?;
    }
    Err(Error::Held)
}
