//! `console.toml`. Unknown keys are refused; every error names the file, the key and what to do.

use chrono_tz::Tz;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error("{file}: {key}: {problem}; {remedy}")]
pub struct SettingsError {
    pub file: String,
    pub key: String,
    pub problem: String,
    pub remedy: String,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub listen: SocketAddr,
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
    pub data_dir: PathBuf,
    pub serve: DaemonAddress,
    pub verifier: DaemonAddress,
    /// Shown when it is set.
    pub maintain: Option<DaemonAddress>,
    pub agents: Vec<reqwest::Url>,
    pub agents_ca: Option<PathBuf>,
    pub time_zone: Tz,
    /// Seconds without a click after which a session ends.
    pub idle_s: u32,
    /// Seconds between two looks at every daemon.
    pub poll_s: u32,
    /// Seconds after which an alert that nobody acknowledged is sent again.
    pub repeat_s: u32,
    pub public_url: Option<reqwest::Url>,
    pub mail: Option<Mail>,
    pub webhook: Option<Webhook>,
    pub heartbeat_url: Option<reqwest::Url>,
}

#[derive(Debug, Clone)]
pub enum DaemonAddress {
    Unix(PathBuf),
    Tls { host: String, port: u16, ca: PathBuf, cert: PathBuf, key: PathBuf },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailTls {
    /// Plain SMTP: only to a server on this machine.
    None,
    Starttls,
    Tls,
}

#[derive(Debug, Clone)]
pub struct Mail {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    pub ca: Option<PathBuf>,
    pub from: String,
    pub to: Vec<String>,
    /// A 0600 file: the user name on the first line, the password on the second.
    pub credentials: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Webhook {
    pub url: reqwest::Url,
    /// A 0600 file whose bytes (without a final newline) are the HMAC-SHA256 key.
    pub secret: PathBuf,
    pub ca: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: String,
    tls_cert: PathBuf,
    tls_key: PathBuf,
    data_dir: PathBuf,
    serve: String,
    verifier: String,
    maintain: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    #[serde(default)]
    agents: Vec<String>,
    agents_ca: Option<PathBuf>,
    time_zone: String,
    idle_s: Option<u32>,
    poll_s: Option<u32>,
    repeat_s: Option<u32>,
    public_url: Option<String>,
    heartbeat_url: Option<String>,
    mail: Option<MailFile>,
    webhook: Option<WebhookFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MailFile {
    host: String,
    port: u16,
    tls: MailTls,
    ca: Option<PathBuf>,
    from: String,
    to: Vec<String>,
    credentials: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookFile {
    url: String,
    secret: PathBuf,
    ca: Option<PathBuf>,
}

impl Settings {
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|e| SettingsError {
            file: path.display().to_string(),
            key: "(file)".into(),
            problem: format!("cannot be read ({})", e.kind()),
            remedy: "pass the path of an existing console.toml with --config".into(),
        })?;
        Self::parse(path, &text)
    }

    /// `path` names the file in errors, and its folder resolves relative paths.
    pub fn parse(path: &Path, text: &str) -> Result<Self, SettingsError> {
        let reader = Reader { file: path.display().to_string(), folder: folder_of(path) };
        let file: File = toml::from_str(text).map_err(|e| reader.syntax(text, &e))?;
        reader.settings(file)
    }
}

fn folder_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.parent().map(Path::to_path_buf).unwrap_or_default()
}

struct Reader {
    file: String,
    folder: PathBuf,
}

impl Reader {
    fn error(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> SettingsError {
        SettingsError { file: self.file.clone(), key: key.into(), problem: problem.into(), remedy: remedy.into() }
    }

    fn syntax(&self, text: &str, error: &toml::de::Error) -> SettingsError {
        let wrong = service::settings::Wrong::new(text, error);
        let problem = format!("{} (line {})", wrong.problem, wrong.line);
        self.error(&wrong.key_or_syntax(), problem, "correct or remove it")
    }

    fn path(&self, path: PathBuf) -> PathBuf {
        self.folder.join(path)
    }

    fn settings(&self, file: File) -> Result<Settings, SettingsError> {
        let listen = file
            .listen
            .parse()
            .map_err(|_| self.error("listen", "is not an address and port", "write for example \"127.0.0.1:8444\""))?;
        let time_zone = file.time_zone.parse().map_err(|_| {
            self.error("time_zone", "is not an IANA time zone", "write for example \"America/New_York\"")
        })?;
        let tls = Identity { ca: file.ca, cert: file.cert, key: file.key };
        let agents = file.agents.iter().map(|text| self.url("agents", text)).collect::<Result<_, _>>()?;
        Ok(Settings {
            listen,
            tls_cert: self.path(file.tls_cert),
            tls_key: self.path(file.tls_key),
            data_dir: self.path(file.data_dir),
            serve: self.daemon("serve", &file.serve, &tls)?,
            verifier: self.daemon("verifier", &file.verifier, &tls)?,
            maintain: file.maintain.map(|text| self.daemon("maintain", &text, &tls)).transpose()?,
            agents,
            agents_ca: file.agents_ca.map(|path| self.path(path)),
            time_zone,
            idle_s: self.seconds("idle_s", file.idle_s, 900, 60..=43_200)?,
            poll_s: self.seconds("poll_s", file.poll_s, 10, 1..=300)?,
            repeat_s: self.seconds("repeat_s", file.repeat_s, 14_400, 10..=604_800)?,
            public_url: file.public_url.map(|text| self.url("public_url", &text)).transpose()?,
            mail: file.mail.map(|mail| self.mail(mail)).transpose()?,
            webhook: file.webhook.map(|hook| self.webhook(hook)).transpose()?,
            heartbeat_url: file.heartbeat_url.map(|text| self.url("heartbeat_url", &text)).transpose()?,
        })
    }

    fn seconds(
        &self,
        key: &str,
        value: Option<u32>,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, SettingsError> {
        let value = value.unwrap_or(default);
        if range.contains(&value) {
            return Ok(value);
        }
        Err(self.error(key, "is out of range", format!("write {} to {} seconds", range.start(), range.end())))
    }

    /// Plain HTTP is for this machine only: what leaves it is encrypted.
    fn url(&self, key: &str, text: &str) -> Result<reqwest::Url, SettingsError> {
        let url: reqwest::Url = text.parse().map_err(|_| self.error(key, "is not a URL", "write https://host/path"))?;
        let loopback = url.host_str().is_some_and(is_loopback);
        match url.scheme() {
            "https" => Ok(url),
            "http" if loopback => Ok(url),
            "http" => Err(self.error(key, "is plain HTTP to another machine", "use https://")),
            _ => Err(self.error(key, "is neither http nor https", "write https://host/path")),
        }
    }

    fn daemon(&self, key: &str, text: &str, identity: &Identity) -> Result<DaemonAddress, SettingsError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(DaemonAddress::Unix(self.path(path.into())));
        }
        let remedy = "write \"unix:/path/to.sock\" or \"tls://host:port\"";
        let rest = text.strip_prefix("tls://").ok_or_else(|| self.error(key, "is not an address", remedy))?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| self.error(key, "has no port", remedy))?;
        let port = port.parse().map_err(|_| self.error(key, "has no valid port", remedy))?;
        let file = |name: &str, path: &Option<PathBuf>| {
            let path = path.clone().ok_or_else(|| {
                let remedy = "tls:// needs ca, cert and key: the console's own client certificate of the practice's CA";
                self.error(name, "is missing", remedy)
            })?;
            Ok(self.path(path))
        };
        Ok(DaemonAddress::Tls {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            ca: file("ca", &identity.ca)?,
            cert: file("cert", &identity.cert)?,
            key: file("key", &identity.key)?,
        })
    }

    fn mail(&self, mail: MailFile) -> Result<Mail, SettingsError> {
        if mail.tls == MailTls::None && !is_loopback(&mail.host) {
            return Err(self.error(
                "mail.tls",
                "is \"none\" for a server on another machine",
                "write \"starttls\" or \"tls\"",
            ));
        }
        if mail.to.is_empty() {
            return Err(self.error("mail.to", "is empty", "name at least one address"));
        }
        for (key, address) in
            std::iter::once(("mail.from", &mail.from)).chain(mail.to.iter().map(|address| ("mail.to", address)))
        {
            address
                .parse::<lettre::message::Mailbox>()
                .map_err(|_| self.error(key, "is not a mail address", "write name@example.org"))?;
        }
        Ok(Mail {
            host: mail.host,
            port: mail.port,
            tls: mail.tls,
            ca: mail.ca.map(|path| self.path(path)),
            from: mail.from,
            to: mail.to,
            credentials: mail.credentials.map(|path| self.path(path)),
        })
    }

    fn webhook(&self, hook: WebhookFile) -> Result<Webhook, SettingsError> {
        Ok(Webhook {
            url: self.url("webhook.url", &hook.url)?,
            secret: self.path(hook.secret),
            ca: hook.ca.map(|path| self.path(path)),
        })
    }
}

struct Identity {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
listen = "127.0.0.1:8444"
tls_cert = "c.pem"
tls_key = "/etc/k.pem"
data_dir = "data"
serve = "unix:run/serve.sock"
verifier = "unix:/run/v.sock"
time_zone = "America/New_York"
"#;

    fn parse(extra: &str) -> Result<Settings, SettingsError> {
        Settings::parse(Path::new("/p/console.toml"), &format!("{BASE}{extra}"))
    }

    #[test]
    fn relative_paths_stand_beside_the_file() {
        let settings = parse("").unwrap();
        assert_eq!(settings.tls_cert, Path::new("/p/c.pem"));
        assert_eq!(settings.tls_key, Path::new("/etc/k.pem"));
        assert!(matches!(settings.serve, DaemonAddress::Unix(p) if p == Path::new("/p/run/serve.sock")));
        assert_eq!(settings.idle_s, 900);
    }

    #[test]
    fn errors_name_file_key_and_remedy() {
        for (text, key) in [
            ("colour = 1", "colour"),
            ("poll_s = 0", "poll_s"),
            ("idle_s = \"long\"", "idle_s"),
            ("heartbeat_url = \"http://example.org/x\"", "heartbeat_url"),
            ("agents = [\"ftp://x\"]", "agents"),
            ("[mail]\nhost=\"mail.example.org\"\nport=25\ntls=\"none\"\nfrom=\"a@b.c\"\nto=[\"a@b.c\"]", "mail.tls"),
            ("[mail]\nhost=\"127.0.0.1\"\nport=25\ntls=\"none\"\nfrom=\"a@b.c\"\nto=[]", "mail.to"),
            ("[mail]\nhost=\"127.0.0.1\"\nport=25\ntls=\"none\"\nfrom=\"nobody\"\nto=[\"a@b.c\"]", "mail.from"),
            ("[webhook]\nurl=\"http://10.0.0.1/\"\nsecret=\"s\"", "webhook.url"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.key, key, "{error}");
            assert!(error.to_string().contains("/p/console.toml") && !error.remedy.is_empty());
        }
        let text = BASE.replace("unix:/run/v.sock", "tls://v:9443");
        assert_eq!(Settings::parse(Path::new("/p/c.toml"), &text).unwrap_err().key, "ca");
    }

    #[test]
    fn plain_mail_may_go_to_this_machine() {
        let settings =
            parse("[mail]\nhost=\"127.0.0.1\"\nport=2525\ntls=\"none\"\nfrom=\"a@b.c\"\nto=[\"x@y.z\"]").unwrap();
        assert_eq!(settings.mail.unwrap().tls, MailTls::None);
    }
}
