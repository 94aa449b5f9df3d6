//! All rows of one database in another one of the same schema: how a snapshot of a PostgreSQL database becomes a file of
//! SQLite's, and how a practice moves from one database to the other.

use super::{
    Backend, Binder, Connection, OneOf, Params, Result, Row, Rows, Statement, Value, ValueRef, params_from_iter,
};
use std::cmp::Ordering;

/// Rows between two questions whether to go on.
const STEP_ROWS: u64 = 500;

/// How many rows a table had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub table: String,
    pub rows: u64,
}

struct Table {
    name: String,
    columns: Vec<String>,
    /// The places of the columns that tell its rows apart; none where equal rows may be there twice.
    key: Vec<usize>,
}

/// The cells of a row, as values for another statement.
struct Cells<'r>(&'r Row<'r>, usize);

impl Params for Cells<'_> {
    fn bind(self, each: &mut Binder<'_>) -> Result<()> {
        (0..self.1).try_for_each(|column| each(self.0.get_ref(column)?))
    }
}

/// Copies every row. Both have the same schema, one of them is SQLite's, `to` holds no rows, and both stand in a transaction.
/// `goes_on` is asked again and again; `None` where it said no.
pub fn copy(from: &Connection, to: &Connection, goes_on: &dyn Fn() -> bool) -> Result<Option<Vec<Copied>>> {
    let sqlite = if from.as_sqlite().is_some() { from } else { to };
    let mut copied = Vec::new();
    for table in tables(sqlite)? {
        let Some(rows) = copy_table(from, to, &table, goes_on)? else { return Ok(None) };
        copied.push(Copied { table: table.name, rows });
    }
    Ok(Some(copied))
}

/// Counts the rows of every table of a SQLite database's schema in `db`.
pub fn count(sqlite: &Connection, db: &Connection) -> Result<Vec<Copied>> {
    let rows = |table: Table| {
        let rows: u64 = db.query_row(&format!("SELECT count(*) FROM {}", table.name), [], |row| row.get(0))?;
        Ok(Copied { table: table.name, rows })
    };
    tables(sqlite)?.into_iter().map(rows).collect()
}

fn tables(sqlite: &Connection) -> Result<Vec<Table>> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name";
    let names = sqlite.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>>>()?;
    let mut found = Vec::new();
    for name in names {
        let sql = "SELECT name, pk FROM pragma_table_info(?1) ORDER BY cid";
        let column = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?));
        let columns = sqlite.prepare(sql)?.query_map([&name], column)?.collect::<Result<Vec<_>>>()?;
        let mut key: Vec<usize> = (0..columns.len()).filter(|at| columns.get(*at).is_some_and(|c| c.1 > 0)).collect();
        key.sort_by_key(|at| columns.get(*at).map(|column| column.1));
        found.push(Table { name, columns: columns.into_iter().map(|(name, _)| name).collect(), key });
    }
    Ok(found)
}

impl Table {
    /// All rows, in an order that equal rows have in every database.
    fn select(&self) -> String {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let order = self.named(if self.key.is_empty() { &all } else { &self.key }, ", ", |name, _| name.to_owned());
        format!("SELECT {} FROM {} ORDER BY {order}", self.columns.join(", "), self.name)
    }

    fn insert(&self) -> String {
        let places = (1..=self.columns.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
        format!("INSERT INTO {} ({}) VALUES ({places})", self.name, self.columns.join(", "))
    }

    /// Of a row with all its columns: puts it in place of the one with the same key. `None` where all columns are the key.
    fn update(&self) -> Option<String> {
        let others: Vec<usize> = (0..self.columns.len()).filter(|at| !self.key.contains(at)).collect();
        let equals = |name: &str, at: usize| format!("{name} = ?{}", at + 1);
        let (set, key) = (self.named(&others, ", ", equals), self.named(&self.key, " AND ", equals));
        (!others.is_empty()).then(|| format!("UPDATE {} SET {set} WHERE {key}", self.name))
    }

    /// Of a row's key, in the order of the key.
    fn delete(&self) -> String {
        let place = |at: usize| self.key.iter().position(|key| *key == at).map_or(0, |place| place + 1);
        let key = self.named(&self.key, " AND ", |name, at| format!("{name} = ?{}", place(at)));
        format!("DELETE FROM {} WHERE {key}", self.name)
    }

    /// Some columns, each written with its place among all.
    fn named(&self, columns: &[usize], between: &str, write: impl Fn(&str, usize) -> String) -> String {
        let named = columns.iter().filter_map(|at| self.columns.get(*at).map(|name| write(name, *at)));
        named.collect::<Vec<_>>().join(between)
    }
}

fn copy_table(from: &Connection, to: &Connection, table: &Table, goes_on: &dyn Fn() -> bool) -> Result<Option<u64>> {
    let mut read = from.prepare(&table.select())?;
    let mut write = to.prepare(&table.insert())?;
    let mut rows = read.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        write.send(Cells(&row, table.columns.len()))?;
        count += 1;
        if count % STEP_ROWS == 0 {
            to.settle()?;
            if !goes_on() {
                return Ok(None);
            }
        }
    }
    to.settle()?;
    Ok(Some(count))
}

/// Brings a SQLite file to what `from` holds, and touches no row that is there already: the pages of all others stay what
/// they are, so that a backup stores the difference alone. `to` stands in a transaction; `before` reads the same file as it
/// was when that began. `false` where `goes_on` said no.
pub fn follow(from: &Connection, before: &Connection, to: &Connection, goes_on: &dyn Fn() -> bool) -> Result<bool> {
    for table in tables(before)? {
        let done = match table.key.is_empty() {
            true => {
                to.execute(&format!("DELETE FROM {}", table.name), [])?;
                copy_table(from, to, &table, goes_on)?.is_some()
            }
            false => follow_table(from, before, to, &table, goes_on)?,
        };
        if !done {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Goes through both in the order of the key, as one merges two sorted lists.
fn follow_table(
    from: &Connection,
    before: &Connection,
    to: &Connection,
    table: &Table,
    goes_on: &dyn Fn() -> bool,
) -> Result<bool> {
    let all = table.columns.len();
    let (mut newer, mut older) = (from.prepare(&table.select())?, before.prepare(&table.select())?);
    let (mut newer, mut older) = (newer.query([])?, older.query([])?);
    let (mut insert, mut delete) = (to.prepare(&table.insert())?, to.prepare(&table.delete())?);
    let mut update = table.update().map(|sql| to.prepare(&sql)).transpose()?;
    let mut there = owned(&mut older, all)?;
    let mut seen = 0;
    while let Some(row) = newer.next()? {
        let mut order = compared(there.as_deref(), &row, &table.key)?;
        while let (Ordering::Less, Some(gone)) = (order, &there) {
            delete.execute(params_from_iter(table.key.iter().filter_map(|at| gone.get(*at))))?;
            there = owned(&mut older, all)?;
            order = compared(there.as_deref(), &row, &table.key)?;
        }
        if order == Ordering::Greater {
            insert.execute(Cells(&row, all))?;
        } else {
            let columns: Vec<usize> = (0..all).collect();
            if let (Some(update), true) = (&mut update, compared(there.as_deref(), &row, &columns)? != Ordering::Equal)
            {
                update.execute(Cells(&row, all))?;
            }
            there = owned(&mut older, all)?;
        }
        seen += 1;
        if seen % STEP_ROWS == 0 && !goes_on() {
            return Ok(false);
        }
    }
    while let Some(gone) = there {
        delete.execute(params_from_iter(table.key.iter().filter_map(|at| gone.get(*at))))?;
        there = owned(&mut older, all)?;
    }
    Ok(true)
}

fn owned(rows: &mut Rows<'_>, columns: usize) -> Result<Option<Vec<Value>>> {
    rows.next()?.map(|row| (0..columns).map(|column| row.get(column)).collect()).transpose()
}

/// How a row stands to another in some columns; no row stands behind all.
fn compared(there: Option<&[Value]>, row: &Row<'_>, columns: &[usize]) -> Result<Ordering> {
    let Some(there) = there else { return Ok(Ordering::Greater) };
    for column in columns {
        let value = there.get(*column).map_or(Ok(ValueRef::Null), super::ToSql::bound)?;
        let order = match (value, row.get_ref(*column)?) {
            (ValueRef::Integer(a), ValueRef::Integer(b)) => a.cmp(&b),
            (ValueRef::Real(a), ValueRef::Real(b)) => a.total_cmp(&b),
            (ValueRef::Text(a), ValueRef::Text(b)) | (ValueRef::Blob(a), ValueRef::Blob(b)) => a.cmp(b),
            (ValueRef::Null, ValueRef::Null) => Ordering::Equal,
            (ValueRef::Null, _) => Ordering::Less,
            _ => Ordering::Greater,
        };
        if order != Ordering::Equal {
            return Ok(order);
        }
    }
    Ok(Ordering::Equal)
}

impl Statement<'_> {
    /// Carries it out, perhaps only by [`Connection::settle`].
    fn send(&mut self, params: impl Params) -> Result<()> {
        match &mut self.0 {
            OneOf::Sqlite(statement) => statement.execute(params).map(drop),
            OneOf::Postgres(statement) => statement.send(params),
        }
    }
}

impl Connection {
    fn settle(&self) -> Result<()> {
        if let Backend::Postgres(session) = &self.backend { session.settle() } else { Ok(()) }
    }

    /// Leaves references to the end of the transaction, in which all rows are there.
    pub(crate) fn defer_references(&self) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(_) => self.execute_batch("PRAGMA defer_foreign_keys = 1"),
            Backend::Postgres(_) => self.execute_batch("SET CONSTRAINTS ALL DEFERRED"),
        }
    }
}
