//! The HTTP client for agents, webhook and heartbeat.

use reqwest::{Certificate, Client, ClientBuilder};
use std::path::Path;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("cannot be read ({0})")]
    Read(std::io::ErrorKind),
    #[error("cannot be used as a certificate authority")]
    Authority,
    #[error("needs the certificate authorities of this machine: install its package ca-certificates")]
    NoAuthorities,
}

/// A client that follows no redirect; with `ca` it trusts that authority alone.
pub fn client(timeout: Duration, ca: Option<&Path>) -> Result<Client, FetchError> {
    service::tls::install_provider();
    let mut builder: ClientBuilder =
        Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none()).no_proxy();
    if let Some(path) = ca {
        let pem = std::fs::read(path).map_err(|e| FetchError::Read(e.kind()))?;
        let authorities = Certificate::from_pem_bundle(&pem).map_err(|_| FetchError::Authority)?;
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(|_| if ca.is_some() { FetchError::Authority } else { FetchError::NoAuthorities })
}

/// Why a request failed, without its address, which may hold a token.
pub fn reason(error: &reqwest::Error) -> String {
    let reason = if error.is_timeout() {
        "it did not answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    reason.to_owned()
}
