//! Where a practice's records are.

use super::postgres::{Server, Task};
use super::{Connection, Result, sqlite};
use crate::store::DATABASE_FILE;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A data folder, and the database of its records: a file in it, or one of a PostgreSQL server.
#[derive(Debug, Clone)]
pub struct Place {
    data_dir: PathBuf,
    server: Option<Arc<Server>>,
}

impl Place {
    pub fn new(data_dir: &Path, server: Option<Server>) -> Place {
        Place { data_dir: data_dir.to_owned(), server: server.map(Arc::new) }
    }

    /// The same folder, with its database in a file.
    pub fn in_file(&self) -> Place {
        Place { server: None, ..self.clone() }
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn server(&self) -> Option<&Arc<Server>> {
        self.server.as_ref()
    }

    /// Where SQLite's database is, or would be.
    pub fn file(&self) -> PathBuf {
        self.data_dir.join(DATABASE_FILE)
    }

    /// Whether there is a file that may hold records; a server has to be asked.
    pub(crate) fn has_file(&self) -> bool {
        std::fs::metadata(self.file()).is_ok_and(|found| found.len() > 0)
    }

    /// The connection that writes the records. `exclusively`: as long as it stands, no other does so.
    pub(crate) fn open_to_write(&self, exclusively: bool) -> Result<Connection> {
        match &self.server {
            // Whoever opens the file exclusively holds a lock of its folder.
            None => sqlite::open_to_write(&self.file()),
            Some(server) => Connection::connect(server, if exclusively { Task::WriteExclusively } else { Task::Write }),
        }
    }

    pub(crate) fn open_to_read(&self) -> Result<Connection> {
        match &self.server {
            None => sqlite::open_to_read(&self.file()),
            Some(server) => Connection::connect(server, Task::Read),
        }
    }

    /// A database that is there, of whatever schema.
    pub(crate) fn open_existing(&self) -> Result<Connection> {
        match &self.server {
            None => sqlite::open_existing(&self.file()),
            Some(server) => Connection::connect(server, Task::Read),
        }
    }
}

impl From<&Path> for Place {
    fn from(data_dir: &Path) -> Place {
        Place::new(data_dir, None)
    }
}

impl From<&PathBuf> for Place {
    fn from(data_dir: &PathBuf) -> Place {
        Place::new(data_dir, None)
    }
}

impl From<&Place> for Place {
    fn from(place: &Place) -> Place {
        place.clone()
    }
}
