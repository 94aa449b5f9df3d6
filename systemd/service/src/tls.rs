//! TLS for servers: one provider in the process, TLS 1.2 and newer, HTTP/1.1.

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0}: no certificate in PEM form could be read there: {1}")]
    Certificate(PathBuf, rustls_pki_types::pem::Error),
    #[error("{0}: the file holds no certificate in PEM form")]
    NoCertificate(PathBuf),
    #[error("{0}: no private key in PEM form could be read there: {1}")]
    Key(PathBuf, rustls_pki_types::pem::Error),
    #[error("{0}: the certificate authority for clients cannot be used: {1}")]
    ClientAuthority(PathBuf, String),
    #[error("{0}: certificate and key do not serve together: {1}")]
    Pair(PathBuf, rustls::Error),
}

/// Makes aws-lc-rs the process's one provider. Call it first in `main`; a second call changes nothing.
pub fn install_provider() {
    // The error only says that a provider is already there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Reads a server's certificate chain and key from PEM files. With `client_ca` every client must show a certificate that
/// one of that file's authorities signed.
///
/// # Errors
/// Each names the file that is missing, unreadable or does not fit.
pub fn server_config(
    cert_pem_path: &Path,
    key_pem_path: &Path,
    client_ca: Option<&Path>,
) -> Result<Arc<ServerConfig>, TlsError> {
    install_provider();
    let chain = certificates(cert_pem_path)?;
    let key = PrivateKeyDer::from_pem_file(key_pem_path).map_err(|e| TlsError::Key(key_pem_path.to_owned(), e))?;
    let builder = ServerConfig::builder_with_protocol_versions(&[&TLS13, &TLS12]);
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|e| TlsError::ClientAuthority(path.to_owned(), e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
                .build()
                .map_err(|e| TlsError::ClientAuthority(path.to_owned(), e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| TlsError::Pair(cert_pem_path.to_owned(), e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| TlsError::Certificate(path.to_owned(), e))?;
    if chain.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(chain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&cert, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        assert!(server_config(&cert, &key, None).is_ok());
        assert!(server_config(&cert, &key, Some(&cert)).is_ok());
        let missing = folder.path().join("nothing.pem");
        for (c, k, ca) in [(&missing, &key, None), (&cert, &missing, None), (&cert, &key, Some(missing.as_path()))] {
            let error = server_config(c, k, ca).unwrap_err().to_string();
            assert!(error.contains("nothing.pem"), "{error}");
        }
        let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        assert!(server_config(&cert, &key, None).is_err(), "a key of another certificate");
    }
}
