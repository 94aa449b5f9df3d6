//! Numbered, forward-only migrations. A database carries the number that it has reached.

use super::StoreError;
use crate::attachments::older;
use crate::db::Connection;
use crate::{access, consents, downtime, forms, scheduling};

/// The schema that this release writes.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// Step `n` brings a file from schema `n` to `n + 1`. A released step is never changed.
const MIGRATIONS: [&[&str]; 15] = [
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
    &[consents::SCHEMA_2, access::SCHEMA_8],
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
    if found == 0 {
        transaction.begin_schema()?;
    }
    for (number, step) in (1u32..).zip(MIGRATIONS).skip(found as usize) {
        run(&transaction, number, step, found > 0)
            .inspect_err(|_| log::error!(step = number; "upgrade.step-failed"))?;
        let key = format!("migrated-to-{number}-ms");
        transaction.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", (key, now_ms.to_string()))?;
    }
    Ok(transaction.commit()?)
}

/// Makes the tables of some schema in an empty database, without a row: they come from another one. Inside of the caller's
/// transaction.
pub fn make_bare(connection: &Connection, schema: u32) -> Result<(), StoreError> {
    connection.begin_schema()?;
    let steps = (1u32..).zip(MIGRATIONS).take(schema as usize);
    Ok(steps.into_iter().try_for_each(|(number, step)| run(connection, number, step, false))?)
}

fn run(connection: &Connection, number: u32, step: &[&str], moves_data: bool) -> crate::db::Result<()> {
    step.iter().try_for_each(|sql| connection.run_step(sql, moves_data))?;
    connection.set_schema_number(number)
}

/// The schema number of an open database; 0 for an empty one.
///
/// # Errors
/// [`StoreError::Damaged`] for a database that another program made.
pub fn schema_version(connection: &Connection) -> Result<u32, StoreError> {
    connection.schema_number()?.ok_or(StoreError::Damaged("not a database of this program"))
}
