//! Where the server is: only where nobody on a network reads along, because the connection is not encrypted.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// A database of a PostgreSQL server on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) database: String,
    /// A file with the user's password; `None` where the server knows this process's user.
    pub(super) password: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// The folder of the server's Unix socket.
    Socket(PathBuf),
    Loopback(IpAddr),
}

const SCHEME: &str = "postgresql://";
const PORT: u16 = 5432;
/// Where Debian's server has its socket.
const SOCKET_FOLDER: &str = "/run/postgresql";

impl Server {
    /// `postgresql://USER@/DATABASE?host=/FOLDER`, or `postgresql://USER@127.0.0.1:PORT/DATABASE`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Server, &'static str> {
        let rest = text.strip_prefix(SCHEME).ok_or("does not begin with postgresql://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').ok_or("names no database")?;
        let (user, place) = authority.split_once('@').ok_or("names no user")?;
        if user.contains(':') {
            return Err("holds a password, which everybody reads who reads the settings");
        }
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if !plain(user) || !plain(database) {
            return Err("names a user or a database in other signs than letters, digits, dot, dash and underscore");
        }
        let (name, port) = match place.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().map_err(|_| "names no port")?),
            _ => (place, PORT),
        };
        let folder = match query.split_once('=') {
            None if query.is_empty() => None,
            Some(("host", folder)) if folder.starts_with('/') && !folder.contains(['&', '%']) => Some(folder),
            _ => return Err("has something else after the question mark than host=/FOLDER"),
        };
        let host = match (name, folder) {
            ("", folder) => Host::Socket(folder.unwrap_or(SOCKET_FOLDER).into()),
            (_, Some(_)) => return Err("names both an address and a folder"),
            ("localhost", None) => Host::Loopback(Ipv4Addr::LOCALHOST.into()),
            (name, None) => {
                let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
                let address = bare.parse().ok().filter(IpAddr::is_loopback);
                Host::Loopback(address.ok_or("is not on this machine, and the connection would not be encrypted")?)
            }
        };
        Ok(Server { host, port, user: user.to_owned(), database: database.to_owned(), password: None })
    }

    /// The same server, with a password from a file.
    pub fn with_password(self, file: Option<PathBuf>) -> Server {
        Server { password: file, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_on_this_machine_is_an_address() {
        let socket = Server::parse("postgresql://holdfast@/records?host=/run/pg").unwrap();
        assert_eq!((socket.host, socket.port), (Host::Socket("/run/pg".into()), 5432));
        let debian = Server::parse("postgresql://holdfast@/records").unwrap();
        assert_eq!(debian.host, Host::Socket("/run/postgresql".into()));
        for (address, port) in [("127.0.0.1:5433", 5433), ("localhost", 5432), ("[::1]:6000", 6000), ("[::1]", 5432)] {
            let server = Server::parse(&format!("postgresql://holdfast@{address}/records")).unwrap();
            assert!(matches!(server.host, Host::Loopback(_)) && server.port == port, "{address}");
        }
        for (wrong, why) in [
            ("postgresql://holdfast@db.example.org/records", "not on this machine"),
            ("postgresql://holdfast@192.0.2.1/records", "not on this machine"),
            ("postgresql://holdfast:secret@/records", "password"),
            ("postgresql:///records", "names no user"),
            ("postgresql://holdfast@/", "other signs"),
            ("postgresql://holdfast@", "names no database"),
            ("postgresql://holdfast@/re'cords", "other signs"),
            ("postgresql://holdfast@/records?host=run", "question mark"),
            ("postgresql://holdfast@127.0.0.1/records?host=/run", "both"),
            ("mysql://holdfast@/records", "postgresql://"),
        ] {
            let error = Server::parse(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
