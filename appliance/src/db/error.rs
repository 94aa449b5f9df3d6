//! What a database says when it does not do as it was asked. A database's own text may quote content, so none is kept.

/// An error of a database; the variant says what it means, not which of the databases said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such row")]
    NoRows,
    #[error("the disk is full")]
    Full,
    #[error("the database is busy")]
    Busy,
    #[error("the database is damaged")]
    Damaged,
    #[error("the database server does not answer")]
    Unreachable,
    /// What is wrong with the server's database, as the end of a sentence.
    #[error("the PostgreSQL database cannot be used: {0}")]
    Server(&'static str),
    #[error("another program holds the database")]
    Held,
    /// PostgreSQL keeps none, so SQLite is not given any either.
    #[error("a text holds a zero character")]
    ZeroCharacter,
    /// PostgreSQL keeps no text of more than 2.7 KB in an index.
    #[error("a text is too long to be found again")]
    TooLong,
    /// The data were not written by this program.
    #[error("a column holds something else than the schema says")]
    Column,
    #[error("a rule of the schema forbids it ({0})")]
    Constraint(Code),
    #[error("the database refused the request ({0})")]
    Refused(Code),
}

/// What a database calls its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// SQLite's extended result code.
    Sqlite(i32),
    /// PostgreSQL's SQLSTATE.
    Postgres([u8; 5]),
    /// The statement or its values do not fit: a mistake of this program.
    Misuse,
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Code::Sqlite(code) => write!(f, "SQLite code {code}"),
            Code::Postgres(code) => write!(f, "PostgreSQL {}", code.escape_ascii()),
            Code::Misuse => f.write_str("misuse"),
        }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode;
        match &error {
            rusqlite::Error::QueryReturnedNoRows => Error::NoRows,
            rusqlite::Error::SqliteFailure(code, _) => match code.code {
                ErrorCode::DiskFull => Error::Full,
                // The file that readers and writer share cannot grow: what a full disk says first at a start.
                _ if code.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => Error::Full,
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Error::Busy,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Error::Damaged,
                ErrorCode::ConstraintViolation => Error::Constraint(Code::Sqlite(code.extended_code)),
                _ => Error::Refused(Code::Sqlite(code.extended_code)),
            },
            rusqlite::Error::SqlInputError { error, .. } => Error::Refused(Code::Sqlite(error.extended_code)),
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..) => Error::Column,
            _ => Error::Refused(Code::Misuse),
        }
    }
}

/// Turns the absence of a row into `None`.
pub trait OptionalExtension<T> {
    fn optional(self) -> Result<Option<T>>;
}

impl<T> OptionalExtension<T> for Result<T> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(Error::NoRows) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
