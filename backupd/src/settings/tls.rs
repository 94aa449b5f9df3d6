//! `[tls]` of both daemons.

use super::File;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// `[tls]` as written: a listener for clients of other machines.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsListen {
    /// `None`: nobody connects; the certificate is only shown to other daemons.
    pub listen: Option<SocketAddr>,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients have to show a certificate that this authority signed.
    pub ca: PathBuf,
}

impl TlsListen {
    pub(super) fn resolve(self, file: &File) -> Self {
        Self { listen: self.listen, cert: file.path(&self.cert), key: file.path(&self.key), ca: file.path(&self.ca) }
    }
}
