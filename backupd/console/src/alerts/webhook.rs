//! The webhook: one JSON object by POST, signed with HMAC-SHA256 over the exact body in `X-Holdfast-Signature`.

use crate::alerts::state::{AlertRow, What};
use crate::alerts::text;
use crate::settings::{SettingsError, Webhook};
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

pub const SIGNATURE_HEADER: &str = "x-holdfast-signature";
const TIMEOUT: Duration = Duration::from_secs(10);

pub struct Hook {
    url: reqwest::Url,
    secret: Zeroizing<Vec<u8>>,
    client: reqwest::Client,
}

/// The body. `delivery` is unique and `sent_unix_ms` tells a replay from news.
#[derive(Debug, Serialize)]
struct Message<'a> {
    schema: u32,
    delivery: i64,
    sent_unix_ms: i64,
    event: &'static str,
    alert: i64,
    kind: backupd_api::AlertKind,
    severity: backupd_api::Severity,
    subject: &'a str,
    since_unix_ms: i64,
    acknowledged_by: Option<&'a str>,
    title: &'static str,
    remedy: &'static str,
}

impl Hook {
    pub fn new(settings: &Webhook, file: &Path) -> Result<Self, SettingsError> {
        let error = |key: &str, problem: String, remedy: &str| SettingsError {
            file: file.display().to_string(),
            key: key.into(),
            problem,
            remedy: remedy.into(),
        };
        let mut secret = Zeroizing::new(std::fs::read(&settings.secret).map_err(|e| {
            error("webhook.secret", format!("cannot be read ({})", e.kind()), "make a 0600 file with a random text")
        })?);
        while secret.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            secret.pop();
        }
        if secret.len() < 16 {
            let problem = "holds fewer than 16 bytes".to_owned();
            return Err(error(
                "webhook.secret",
                problem,
                "write a random text, for example from `openssl rand -hex 32`",
            ));
        }
        let client = crate::fetch::client(TIMEOUT, settings.ca.as_deref())
            .map_err(|e| error("webhook.ca", e.to_string(), "name a PEM file with the authority's certificate"))?;
        Ok(Self { url: settings.url.clone(), secret, client })
    }

    /// Sends one event; the error says what went wrong without naming the address.
    pub async fn send(&self, delivery: i64, now_ms: i64, alert: &AlertRow, what: What) -> Result<(), String> {
        let message = Message {
            schema: 1,
            delivery,
            sent_unix_ms: now_ms,
            event: what.word(),
            alert: alert.id,
            kind: alert.kind,
            severity: alert.severity,
            subject: &alert.subject,
            since_unix_ms: alert.since_ms,
            acknowledged_by: alert.acknowledged_by.as_deref(),
            title: text::title(alert.kind),
            remedy: text::remedy(alert.kind),
        };
        let body = serde_json::to_vec(&message).map_err(|_| "the message could not be written".to_owned())?;
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header(SIGNATURE_HEADER, signature(&self.secret, &body))
            .body(body);
        let answer = request.send().await.map_err(|e| crate::fetch::reason(&e))?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status().as_u16())) }
    }
}

/// `sha256=` and the HMAC in hexadecimal digits, as widely understood.
fn signature(secret: &[u8], body: &[u8]) -> String {
    // HMAC takes keys of any length: the error case does not exist, and an empty signature would be refused.
    Hmac::<Sha256>::new_from_slice(secret).map_or_else(
        |_| String::new(),
        |mut mac| {
            mac.update(body);
            format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_rfc_4231() {
        // Test case 2.
        assert_eq!(
            signature(b"Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
