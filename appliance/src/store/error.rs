//! What can go wrong in the store. No variant carries record content.

use crate::db;

/// An error of the store; the variant says what the caller does next.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Denied(#[from] crate::access::Denied),
    #[error("there is no such record")]
    NotFound,
    #[error("the record was deleted; its history is kept")]
    Gone { version: u32 },
    #[error("other records refer to this one: it stays")]
    Referred,
    #[error("more than one record meets the condition: name one by its id")]
    Several,
    #[error("the record was changed by somebody else: read version {current} and apply the change to it")]
    VersionConflict { current: u32 },
    #[error("an update must name the version that it replaces")]
    VersionRequired,
    #[error(
        "somebody in this appointment is busy at that time: choose another, or give the reason for booking all the same"
    )]
    Taken,
    /// `goes_on` is the logical id of the record to write in.
    #[error("this record was merged into another one, which goes on: write it there")]
    Merged { goes_on: String },
    #[error("this was sent twice and is saved once")]
    Repeated,
    #[error("{what}")]
    Invalid { what: Reason },
    #[error("the data folder is in use by another appliance: stop `appliance serve` first")]
    InUse,
    #[error(
        "the PostgreSQL database that appliance.toml names is in use by another appliance, perhaps on another data folder: stop \
         that `appliance serve` first"
    )]
    Held,
    #[error("the PostgreSQL server does not answer; nothing was changed. The service goes on as soon as it does")]
    Unreachable,
    #[error("the PostgreSQL database that appliance.toml names cannot be used: {0}")]
    Server(&'static str),
    #[error(
        "records.sqlite is in the data folder, and `database` in appliance.toml names a PostgreSQL database: which of the two holds \
         the newer records is not known here. To go on with the file (after a restore it is what came back), copy it with \
         `appliance database copy to-server`, or take `database` out of appliance.toml; to go on with the server, move the file \
         away"
    )]
    TwoDatabases,
    #[error(
        "the PostgreSQL database that appliance.toml names holds a practice's records, and the data folder is not theirs: it holds \
         no attachments of them. Mount the disk that does, or set data_dir; where they are lost, bring them back with `backupd \
         restore`"
    )]
    NotItsFolder,
    #[error(
        "the records were written by a newer release (schema {found}, this one reads up to {known}): install that release"
    )]
    Newer { found: u32, known: u32 },
    #[error(
        "the records were written by an older release (schema {found}, this one writes {known}): `appliance serve` upgrades \
         them at its start, after a snapshot"
    )]
    Older { found: u32, known: u32 },
    #[error("the records are damaged: restore them from a snapshot ({0})")]
    Damaged(&'static str),
    #[error(
        "the database is gone or empty (records.sqlite, or the one that `database` in appliance.toml names), and this folder held \
         a practice's records: nothing was touched. Bring it back from a snapshot (`backupd restore`, or `backupd recover` when \
         all is lost; where `database` is set, then `appliance database copy to-server`); to begin a new practice, take an empty \
         data folder"
    )]
    Lost,
    #[error(
        "there is no database of a practice (records.sqlite in data_dir, or the one that `database` in appliance.toml names), \
         and nothing was made. If the practice has records, mount the disk that holds them, or bring them back with `backupd \
         recover`. For a new practice: `appliance init`"
    )]
    NoDatabase,
    #[error("the disk is full: free some room; nothing was changed")]
    Full,
    #[error("the records are busy for longer than expected: try again")]
    Busy,
    #[error("the audit could not be written, so the request was not carried out")]
    Audit,
    #[error("the appliance is stopping")]
    Closed,
    #[error("the data folder cannot be used ({context}: {kind})")]
    Io { context: &'static str, kind: std::io::ErrorKind },
    /// The code of the database's error; its text may quote content, so it is left out.
    #[error("the database refused the request ({0})")]
    Database(db::Code),
}

/// Why input was refused: a fixed sentence, with an element's path where that helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub sentence: &'static str,
    /// A path of element names such as `Patient.name`, or the name of a parameter; never a value.
    pub path: String,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() { f.write_str(self.sentence) } else { write!(f, "{}: {}", self.path, self.sentence) }
    }
}

impl StoreError {
    pub fn invalid(sentence: &'static str, path: impl Into<String>) -> StoreError {
        StoreError::Invalid { what: Reason { sentence, path: path.into() } }
    }

    pub(crate) fn io(context: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
        move |error| match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full,
            kind => StoreError::Io { context, kind },
        }
    }
}

impl From<db::Error> for StoreError {
    fn from(error: db::Error) -> StoreError {
        match error {
            db::Error::NoRows => StoreError::NotFound,
            db::Error::Full => StoreError::Full,
            db::Error::Busy => StoreError::Busy,
            db::Error::Damaged => StoreError::Damaged("database"),
            // The file was not written by this program.
            db::Error::Column => StoreError::Damaged("column"),
            db::Error::Unreachable => StoreError::Unreachable,
            db::Error::Server(what) => StoreError::Server(what),
            db::Error::Held => StoreError::Held,
            db::Error::TooLong => StoreError::invalid("a reference or a name is longer than this database keeps", ""),
            db::Error::ZeroCharacter => StoreError::invalid("a text holds a zero character, which cannot be kept", ""),
            db::Error::Constraint(code) | db::Error::Refused(code) => StoreError::Database(code),
        }
    }
}
