//! Numbered, forward-only migrations. The number that a file has reached is its `user_version`.

use super::StoreError;
use crate::attachments::older;
use crate::db::Connection;
use crate::{access, consents, downtime, forms, scheduling};

/// The schema that this release writes.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// Marks a file as ours ("HfEM"), so that a foreign SQLite file is refused by name instead of being migrated.
const APPLICATION_ID: i64 = 0x4866_454d;

/// Step `n` brings a file from schema `n` to `n + 1`. A released step is never changed.
const MIGRATIONS: [&[&str]; 14] = [
    &[include_str!("schema-1.sql"), access::SCHEMA],
    &[include_str!("schema-2.sql")],
    &[include_str!("schema-3.sql")],
    &[include_str!("schema-4.sql")],
    &[scheduling::SCHEMA],
    &[forms::SCHEMA, consents::SCHEMA, access::SCHEMA_2],
    &[include_str!("schema-5.sql")],
    &[access::SCHEMA_3],
    &[access::SCHEMA_4],
    &[include_str!("schema-10.sql")],
    &[downtime::SCHEMA, include_str!("schema-11.sql")],
    &[include_str!("schema-12.sql")],
    &[access::SCHEMA_5],
    &[access::SCHEMA_6, access::SCHEMA_7],
];

/// Makes the tables in an empty file; any other file has to be one that [`require`] admits.
pub fn make(connection: &Connection, now_ms: i64) -> Result<(), StoreError> {
    if schema_version(connection)? > 0 {
        return require(connection);
    }
    upgrade(connection, now_ms)?;
    // Nothing lies plain where nothing ever was.
    let sql = "INSERT INTO meta (key, value) VALUES (?1, '1') ON CONFLICT DO NOTHING";
    Ok(connection.execute(sql, [older::DONE_KEY]).map(drop)?)
}

/// Whether the file has this release's schema. One of an older schema is left as it is: [`upgrade`] brings it here, once
/// there is a way back.
pub fn require(connection: &Connection) -> Result<(), StoreError> {
    match schema_version(connection)? {
        // `appliance init` was cut off before it had made anything.
        0 => Err(StoreError::NoDatabase),
        SCHEMA_VERSION => Ok(()),
        found if found > SCHEMA_VERSION => Err(StoreError::Newer { found, known: SCHEMA_VERSION }),
        found => Err(StoreError::Older { found, known: SCHEMA_VERSION }),
    }
}

/// Brings the file to [`SCHEMA_VERSION`], all steps in one transaction: whatever fails, the file is what it was.
pub fn upgrade(connection: &Connection, now_ms: i64) -> Result<(), StoreError> {
    let transaction = connection.transaction_to_write()?;
    // Read under the lock: another process may have been faster.
    let found = schema_version(&transaction)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::Newer { found, known: SCHEMA_VERSION });
    }
    for (number, step) in (1u32..).zip(MIGRATIONS).skip(found as usize) {
        for sql in step {
            transaction.execute_batch(sql)?;
        }
        transaction.sqlite().set_number("application_id", APPLICATION_ID)?;
        transaction.sqlite().set_number("user_version", number.into())?;
        let key = format!("migrated-to-{number}-ms");
        transaction.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", (key, now_ms.to_string()))?;
    }
    Ok(transaction.commit()?)
}

/// The schema number of an open file; 0 for an empty one.
///
/// # Errors
/// [`StoreError::Damaged`] for a database that another program made.
pub fn schema_version(connection: &Connection) -> Result<u32, StoreError> {
    let version = connection.sqlite().number("user_version")?;
    let version = u32::try_from(version).map_err(|_| StoreError::Damaged("schema number"))?;
    let application = connection.sqlite().number("application_id")?;
    let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if (version > 0 || tables > 0) && application != APPLICATION_ID {
        return Err(StoreError::Damaged("not a file of this program"));
    }
    Ok(version)
}
