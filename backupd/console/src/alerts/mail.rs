//! Mail by SMTP: implicit TLS, STARTTLS, or plain to a server on this machine.

use crate::alerts::state::{AlertRow, What};
use crate::alerts::text;
use crate::settings::{Mail, MailTls, SettingsError};
use chrono_tz::Tz;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

const TIMEOUT: Duration = Duration::from_secs(20);

pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    zone: Tz,
    console: Option<String>,
}

impl Mailer {
    pub fn new(settings: &Mail, zone: Tz, console: Option<String>, file: &Path) -> Result<Self, SettingsError> {
        let error = |key: &str, problem: String, remedy: &str| SettingsError {
            file: file.display().to_string(),
            key: key.into(),
            problem,
            remedy: remedy.into(),
        };
        let tls = tls(settings).map_err(|e| error("mail.ca", e, "name a PEM file with the authority's certificate"))?;
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host)
            .port(settings.port)
            .timeout(Some(TIMEOUT))
            .tls(tls);
        if let Some(path) = &settings.credentials {
            let remedy = "make a 0600 file: the user name on the first line, the password on the second";
            let text = std::fs::read_to_string(path)
                .map(Zeroizing::new)
                .map_err(|e| error("mail.credentials", format!("cannot be read ({})", e.kind()), remedy))?;
            let mut lines = text.lines();
            let (Some(user), Some(password)) = (lines.next(), lines.next()) else {
                return Err(error("mail.credentials", "does not hold two lines".into(), remedy));
            };
            builder = builder.credentials(Credentials::new(user.trim().to_owned(), password.to_owned()));
        }
        let mailbox = |key: &str, address: &str| {
            address.parse().map_err(|_| error(key, "is not a mail address".into(), "write name@example.org"))
        };
        Ok(Self {
            transport: builder.build(),
            from: mailbox("mail.from", &settings.from)?,
            to: settings.to.iter().map(|to| mailbox("mail.to", to)).collect::<Result<_, _>>()?,
            zone,
            console,
        })
    }

    /// One mail to all addresses.
    pub async fn send(&self, alert: &AlertRow, what: What) -> Result<(), String> {
        let mut message =
            Message::builder().from(self.from.clone()).message_id(None).subject(text::subject_line(alert, what));
        for to in &self.to {
            message = message.to(to.clone());
        }
        let message = message
            .body(text::body(alert, what, self.zone, self.console.as_deref()))
            .map_err(|_| "the mail could not be written".to_owned())?;
        match self.transport.send(message).await {
            Ok(_) => Ok(()),
            Err(error) => Err(reason(&error)),
        }
    }
}

fn tls(settings: &Mail) -> Result<Tls, String> {
    if settings.tls == MailTls::None {
        return Ok(Tls::None);
    }
    let mut builder = TlsParameters::builder(settings.host.clone());
    if let Some(path) = &settings.ca {
        let pem = std::fs::read(path).map_err(|e| format!("cannot be read ({})", e.kind()))?;
        builder = builder.add_root_certificate(Certificate::from_pem(&pem).map_err(|_| "is not PEM".to_owned())?);
    }
    let parameters = builder.build().map_err(|_| "cannot be used".to_owned())?;
    Ok(if settings.tls == MailTls::Tls { Tls::Wrapper(parameters) } else { Tls::Required(parameters) })
}

/// In our own words: a server's reply could repeat anything.
fn reason(error: &lettre::transport::smtp::Error) -> String {
    match error.status() {
        Some(code) => format!("the mail server answered {code}"),
        None if error.is_timeout() => "the mail server did not answer in time".to_owned(),
        None if error.is_tls() => "no trusted TLS connection to the mail server".to_owned(),
        None => "the mail server cannot be reached".to_owned(),
    }
}
