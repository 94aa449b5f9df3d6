//! Mail by SMTP: implicit TLS, STARTTLS, or plain to a server on this machine.

use super::Message;
use crate::settings::{MailSettings, MailTls};
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use std::time::Duration;
use zeroize::Zeroizing;

const TIMEOUT: Duration = Duration::from_secs(20);

pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Mailer {
    /// # Errors
    /// What in `[mail]` cannot be used, and what to write instead.
    pub fn new(settings: &MailSettings, practice: &str) -> Result<Mailer, String> {
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host)
            .port(settings.port)
            .timeout(Some(TIMEOUT))
            .tls(tls(settings)?);
        if let Some(path) = &settings.credentials {
            let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|e| {
                format!(
                    "mail.credentials cannot be read ({}): make a 0600 file, user name and password on a line each",
                    e.kind()
                )
            })?;
            let mut lines = text.lines();
            let (Some(user), Some(password)) = (lines.next(), lines.next()) else {
                return Err("mail.credentials does not hold two lines: user name, then password".into());
            };
            builder = builder.credentials(Credentials::new(user.trim().to_owned(), password.to_owned()));
        }
        let address =
            settings.from.parse().map_err(|_| "mail.from is not a mail address: write name@example.org".to_owned())?;
        Ok(Mailer { transport: builder.build(), from: Mailbox::new(Some(practice.to_owned()), address) })
    }

    pub async fn send(&self, message: &Message) -> Result<(), &'static str> {
        let to: Mailbox = message.to.parse().map_err(|_| "the address is not a mail address")?;
        let mail = lettre::Message::builder()
            .from(self.from.clone())
            .to(to)
            .message_id(None)
            .subject(message.subject.clone())
            .body(message.text.clone())
            .map_err(|_| "the mail could not be written")?;
        match self.transport.send(mail).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_timeout() => Err("the mail server did not answer in time"),
            Err(error) if error.is_tls() => Err("no trusted TLS connection to the mail server"),
            Err(error) if error.status().is_some() => Err("the mail server refused it"),
            Err(_) => Err("the mail server cannot be reached"),
        }
    }
}

fn tls(settings: &MailSettings) -> Result<Tls, String> {
    if settings.tls == MailTls::None {
        return Ok(Tls::None);
    }
    let mut builder = TlsParameters::builder(settings.host.clone());
    if let Some(path) = &settings.ca {
        let pem = std::fs::read(path).map_err(|e| format!("mail.ca cannot be read ({})", e.kind()))?;
        let authority = Certificate::from_pem(&pem)
            .map_err(|_| "mail.ca is not PEM: name the authority's certificate".to_owned())?;
        builder = builder.add_root_certificate(authority);
    }
    let parameters = builder.build().map_err(|_| "mail.host cannot be used for TLS".to_owned())?;
    Ok(if settings.tls == MailTls::Tls { Tls::Wrapper(parameters) } else { Tls::Required(parameters) })
}
