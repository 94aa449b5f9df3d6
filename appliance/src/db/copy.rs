//! All rows of one database in another one of the same schema: how a snapshot of a PostgreSQL database becomes a file of
//! SQLite's, and how a practice moves from one database to the other.

use super::{Backend, Binder, Connection, OneOf, Params, Result, Row, Statement};

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
    /// What orders its rows, so that equal rows make an equal copy.
    key: String,
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
        let mut key: Vec<&(String, u32)> = columns.iter().filter(|(_, place)| *place > 0).collect();
        key.sort_by_key(|(_, place)| *place);
        let key = key.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let key = if key.is_empty() { "rowid".to_owned() } else { key };
        found.push(Table { name, columns: columns.into_iter().map(|(name, _)| name).collect(), key });
    }
    Ok(found)
}

fn copy_table(from: &Connection, to: &Connection, table: &Table, goes_on: &dyn Fn() -> bool) -> Result<Option<u64>> {
    let (name, columns) = (&table.name, table.columns.join(", "));
    let places = (1..=table.columns.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
    let mut read = from.prepare(&format!("SELECT {columns} FROM {name} ORDER BY {}", table.key))?;
    let mut write = to.prepare(&format!("INSERT INTO {name} ({columns}) VALUES ({places})"))?;
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
