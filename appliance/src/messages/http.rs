//! Webhook and SMS: a signed JSON request to an address that the practice's IT has set. Providers differ in their words;
//! a small program of the provider's, or of the practice's, translates.

use super::Message;
use crate::settings::GatewaySettings;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::time::Duration;
use zeroize::Zeroizing;

const TIMEOUT: Duration = Duration::from_secs(20);
/// `HMAC-SHA256(secret, body)` in hex, so that the receiver knows who asks.
const SIGNATURE: &str = "x-holdfast-signature";

pub struct Gateway {
    url: String,
    secret: Zeroizing<String>,
    client: reqwest::Client,
}

impl Gateway {
    /// # Errors
    /// What in the section cannot be used, and what to write instead.
    pub fn new(settings: &GatewaySettings) -> Result<Gateway, String> {
        let host = settings
            .url
            .split_once("://")
            .map(|(scheme, rest)| (scheme, rest.split(['/', ':']).next().unwrap_or_default()));
        match host {
            Some(("https", host)) if !host.is_empty() => {}
            Some(("http", "127.0.0.1" | "localhost")) => {}
            _ => return Err("url must begin with https:// (http:// only for 127.0.0.1)".into()),
        }
        let secret = std::fs::read_to_string(&settings.secret)
            .map_err(|e| format!("secret cannot be read ({}): make a 0600 file with the shared secret", e.kind()))?;
        let client =
            reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build().map_err(
                |_| "needs the certificate authorities of this machine: install its package ca-certificates".to_owned(),
            )?;
        Ok(Gateway { url: settings.url.clone(), secret: Zeroizing::new(secret.trim().to_owned()), client })
    }

    pub async fn send(&self, message: &Message) -> Result<(), &'static str> {
        let body = serde_json::to_vec(message).map_err(|_| "it cannot be written as JSON")?;
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).map_err(|_| "the secret cannot be used")?;
        mac.update(&body);
        let signature = hex::encode(mac.finalize().into_bytes());
        let request =
            self.client.post(&self.url).header("content-type", "application/json").header(SIGNATURE, signature);
        match request.body(body).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(_) => Err("the receiver refused it"),
            Err(error) if error.is_timeout() => Err("the receiver did not answer in time"),
            Err(_) => Err("the receiver cannot be reached"),
        }
    }
}
