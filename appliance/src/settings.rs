//! `appliance.toml`: every key, its default, and errors that name file, key and remedy.

use crate::db::Place;
use crate::db::postgres::Server;
use crate::downtime;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The settings of `appliance serve`, paths resolved against the file's folder.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file they came from.
    pub file: PathBuf,
    pub data_dir: PathBuf,
    /// The PostgreSQL database of the records; `None` for a file in the data folder.
    pub database: Option<Server>,
    pub listen: SocketAddr,
    /// Names and addresses under which browsers reach the service.
    pub public_names: Vec<String>,
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
    pub ops_socket: PathBuf,
    /// Users besides the service's own who may use the operations socket.
    pub ops_allowed_uids: Vec<u32>,
    pub staging_dir: PathBuf,
    pub time_zone: chrono_tz::Tz,
    pub practice_name: String,
    /// Lines that stand below the name on letters; empty for none.
    pub practice_address: String,
    pub practice_phone: String,
    /// Seconds without a request after which a session locks.
    pub idle_lock_s: i64,
    /// Where strangers book appointments; `None` for nowhere.
    pub booking_listen: Option<SocketAddr>,
    /// Where patients see their record; `None` for nowhere.
    pub portal_listen: Option<SocketAddr>,
    /// How mail leaves; `None` for not at all.
    pub mail: Option<MailSettings>,
    /// The program that turns requests into short messages, and the one that hears of reminders.
    pub sms: Option<GatewaySettings>,
    pub webhook: Option<GatewaySettings>,
    /// Hours before an appointment at which a reminder leaves; 0 for none.
    pub reminder_hours: i64,
    /// What the office works with while it is cut off; `None` for nothing.
    pub downtime: Option<downtime::Plan>,
    /// The daemons of the backup on this machine.
    pub backup: BackupSettings,
    /// The TLS files as written, for their place in a snapshot's `config` part.
    pub(crate) tls_as_written: [PathBuf; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// TLS from the first byte, usually port 465.
    Tls,
    /// Upgraded, usually port 587.
    Starttls,
    /// Only to a server on this machine.
    None,
}

/// `[mail]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSettings {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    pub from: String,
    /// User name and password, a line each.
    pub credentials: Option<PathBuf>,
    /// The authority of the mail server's certificate, where it is not a public one.
    pub ca: Option<PathBuf>,
}

/// `[sms]`, `[webhook]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySettings {
    pub url: String,
    /// A file with the secret that signs each request.
    pub secret: PathBuf,
}

/// `[backup]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupSettings {
    /// Where `backupd serve` is asked for a snapshot before an upgrade.
    pub serve_socket: Option<PathBuf>,
    /// Where `backupd verifier` is asked for records as they were.
    pub verifier_socket: Option<PathBuf>,
    /// Whether an upgrade goes on where there is no snapshot.
    #[serde(default)]
    pub upgrade_without_snapshot: bool,
}

/// `[downtime]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct DowntimeSettings {
    #[serde(default = "default_every_minutes")]
    every_minutes: u32,
    #[serde(default)]
    patients: DowntimePatients,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DowntimePatients {
    /// Those on the schedule of the next days.
    #[default]
    Scheduled,
    All,
}

fn default_every_minutes() -> u32 {
    30
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{file}: cannot be read ({kind}): give the path of appliance.toml with --config")]
    Read { file: PathBuf, kind: std::io::ErrorKind },
    #[error("{file}, line {line}: `{key}`: {message}: correct this line; the README lists every key")]
    Toml { file: PathBuf, line: usize, key: String, message: String },
    #[error("{file}: `{key}` {problem}: {remedy}")]
    Value { file: PathBuf, key: &'static str, problem: &'static str, remedy: &'static str },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    data_dir: PathBuf,
    database: Option<String>,
    database_password: Option<PathBuf>,
    #[serde(default = "default_listen")]
    listen: String,
    #[serde(default)]
    public_names: Vec<String>,
    tls_cert: PathBuf,
    tls_key: PathBuf,
    ops_socket: PathBuf,
    #[serde(default)]
    ops_allowed_uids: Vec<u32>,
    staging_dir: PathBuf,
    #[serde(default = "default_zone")]
    time_zone: String,
    #[serde(default = "default_name")]
    practice_name: String,
    #[serde(default)]
    practice_address: String,
    #[serde(default)]
    practice_phone: String,
    #[serde(default = "default_idle_lock")]
    idle_lock_s: i64,
    booking_listen: Option<String>,
    portal_listen: Option<String>,
    mail: Option<MailSettings>,
    sms: Option<GatewaySettings>,
    webhook: Option<GatewaySettings>,
    #[serde(default)]
    reminder_hours: i64,
    downtime: Option<DowntimeSettings>,
    #[serde(default)]
    backup: BackupSettings,
}

fn default_listen() -> String {
    "127.0.0.1:8443".into()
}

fn default_zone() -> String {
    "UTC".into()
}

fn default_name() -> String {
    "Medical practice".into()
}

fn default_idle_lock() -> i64 {
    600
}

/// What a letter has room for above its text.
const LETTERHEAD_LINES_MAX: usize = 5;

/// A Unix socket's path fits into this many bytes, the final zero included.
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Settings {
    pub fn load(file: &Path) -> Result<Settings, SettingsError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| SettingsError::Read { file: file.to_owned(), kind: error.kind() })?;
        Settings::parse(file, &text)
    }

    /// Where the records are.
    pub fn place(&self) -> Place {
        Place::new(&self.data_dir, self.database.clone())
    }

    /// Understands the text of `file`; relative paths are resolved against its folder.
    pub fn parse(file: &Path, text: &str) -> Result<Settings, SettingsError> {
        let written: Written = toml::from_str(text).map_err(|error| {
            let wrong = service::settings::Wrong::new(text, &error);
            let key = wrong.key_or_syntax();
            SettingsError::Toml { file: file.to_owned(), line: wrong.line, key, message: wrong.problem }
        })?;
        let wrong = |key, problem, remedy| SettingsError::Value { file: file.to_owned(), key, problem, remedy };
        // Absolute, because the backup is told these paths and runs elsewhere.
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        let listen = written
            .listen
            .parse()
            .map_err(|_| wrong("listen", "is not an address with a port", "write it like \"127.0.0.1:8443\""))?;
        let time_zone = written
            .time_zone
            .parse()
            .map_err(|_| wrong("time_zone", "is no known time zone", "write it like \"Europe/Berlin\""))?;
        if !(60..=43_200).contains(&written.idle_lock_s) {
            return Err(wrong("idle_lock_s", "is out of range", "choose 60 to 43200 seconds"));
        }
        if written.practice_address.lines().count() > LETTERHEAD_LINES_MAX {
            return Err(wrong(
                "practice_address",
                "has more than 5 lines",
                "write street and place, with \\n between lines",
            ));
        }
        let door = |key, written: &Option<String>| {
            let remedy = "write it like \"0.0.0.0:8444\", or leave it out";
            let parsed = written.as_deref().map(str::parse).transpose();
            parsed.map_err(|_| wrong(key, "is not an address with a port", remedy))
        };
        let booking_listen = door("booking_listen", &written.booking_listen)?;
        let portal_listen = door("portal_listen", &written.portal_listen)?;
        if !(0..=336).contains(&written.reminder_hours) {
            return Err(wrong("reminder_hours", "is out of range", "choose 1 to 336 hours, or 0 for no reminders"));
        }
        let data_dir = folder.join(&written.data_dir);
        let database = match (&written.database, &written.database_password) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err(wrong(
                    "database_password",
                    "stands without `database`",
                    "name the database, or leave it out",
                ));
            }
            (Some(text), file) => {
                let remedy = "write it like \"postgresql://holdfast@/records?host=/run/postgresql\" or \
                              \"postgresql://holdfast@127.0.0.1/records\", with the password's file as database_password";
                let server = Server::parse(text).map_err(|problem| wrong("database", problem, remedy))?;
                Some(server.with_password(file.as_ref().map(|file| folder.join(file))))
            }
        };
        if written.downtime.as_ref().is_some_and(|downtime| !(5..=240).contains(&downtime.every_minutes)) {
            return Err(wrong("downtime", "has every_minutes out of range", "choose 5 to 240 minutes"));
        }
        if written
            .mail
            .as_ref()
            .is_some_and(|m| m.tls == MailTls::None && !matches!(m.host.as_str(), "localhost" | "127.0.0.1" | "::1"))
        {
            return Err(wrong(
                "mail",
                "would send unencrypted to another machine",
                "set tls to \"starttls\" or \"tls\"",
            ));
        }
        let ops_socket = folder.join(&written.ops_socket);
        if ops_socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(wrong(
                "ops_socket",
                "is longer than 107 bytes",
                "choose a shorter folder, such as /run/holdfast",
            ));
        }
        Ok(Settings {
            file: absolute.clone(),
            downtime: written.downtime.map(|downtime| downtime::Plan {
                every_minutes: downtime.every_minutes,
                all_patients: downtime.patients == DowntimePatients::All,
                file: data_dir.join("downtime/pack.html"),
            }),
            data_dir,
            database,
            listen,
            public_names: written.public_names,
            tls_cert: folder.join(&written.tls_cert),
            tls_key: folder.join(&written.tls_key),
            ops_socket,
            ops_allowed_uids: written.ops_allowed_uids,
            staging_dir: folder.join(&written.staging_dir),
            time_zone,
            practice_name: written.practice_name,
            practice_address: written.practice_address,
            practice_phone: written.practice_phone,
            idle_lock_s: written.idle_lock_s,
            booking_listen,
            portal_listen,
            mail: written.mail.map(|m| MailSettings {
                credentials: m.credentials.map(|p| folder.join(p)),
                ca: m.ca.map(|p| folder.join(p)),
                ..m
            }),
            sms: written.sms.map(|s| GatewaySettings { secret: folder.join(&s.secret), ..s }),
            webhook: written.webhook.map(|s| GatewaySettings { secret: folder.join(&s.secret), ..s }),
            reminder_hours: written.reminder_hours,
            backup: BackupSettings {
                serve_socket: written.backup.serve_socket.map(|path| folder.join(path)),
                verifier_socket: written.backup.verifier_socket.map(|path| folder.join(path)),
                ..written.backup
            },
            tls_as_written: [written.tls_cert, written.tls_key],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "data_dir = \"data\"\ntls_cert = \"tls/cert.pem\"\ntls_key = \"tls/key.pem\"\n\
                         ops_socket = \"run/ops.sock\"\nstaging_dir = \"staging\"\n";

    fn parse(text: &str) -> Result<Settings, SettingsError> {
        Settings::parse(Path::new("/etc/holdfast/appliance.toml"), text)
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let settings = parse(LEAST).unwrap();
        assert_eq!(settings.data_dir, Path::new("/etc/holdfast/data"));
        let elsewhere = Settings::parse(Path::new("appliance.toml"), LEAST).unwrap();
        assert!(elsewhere.data_dir.is_absolute() && elsewhere.file.is_absolute());
        assert_eq!(settings.listen.port(), 8443);
        let absolute = LEAST.replace("\"data\"", "\"/srv/data\"");
        assert_eq!(parse(&absolute).unwrap().data_dir, Path::new("/srv/data"));
    }

    #[test]
    fn errors_name_file_key_and_remedy() {
        let unknown = parse(&format!("{LEAST}colour = 1\n")).unwrap_err().to_string();
        assert!(unknown.contains("appliance.toml, line 6") && unknown.contains("colour"), "{unknown}");
        for (key, line) in [
            ("idle_lock_s", "idle_lock_s = \"long\""),
            ("listen", "listen = \"here\""),
            ("time_zone", "time_zone = \"Mars/North\""),
            ("idle_lock_s", "idle_lock_s = 1"),
            ("practice_address", "practice_address = \"a\\nb\\nc\\nd\\ne\\nf\""),
            ("booking_listen", "booking_listen = \"everywhere\""),
            ("portal_listen", "portal_listen = \"everywhere\""),
            ("mail", "[mail]\nhost = \"mail.example.org\"\nport = 25\ntls = \"none\"\nfrom = \"a@example.org\""),
            ("reminder_hours", "reminder_hours = 1000"),
            ("downtime", "[downtime]\nevery_minutes = 1"),
            ("patients", "[downtime]\npatients = \"some\""),
        ] {
            let told = parse(&format!("{LEAST}{line}\n")).unwrap_err().to_string();
            assert!(told.contains("appliance.toml") && told.contains(&format!("`{key}`")), "{told}");
        }
        let long = LEAST.replace("run/ops.sock", &"r".repeat(120));
        assert!(parse(&long).unwrap_err().to_string().contains("`ops_socket`"));
    }
}
