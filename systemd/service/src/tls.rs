//! TLS for servers: one provider in the process, TLS 1.2 and newer, HTTP/1.1. And a connection to a server of this machine
//! whose certificate lies in a file here.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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

/// Connects to a server of this machine. It has to show the first certificate of the PEM file that it is configured with;
/// names and dates do not matter, because nobody else could have the key to it.
pub async fn connect_to_own(address: SocketAddr, cert_pem_path: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    install_provider();
    let chain = certificates(cert_pem_path).map_err(std::io::Error::other)?;
    let own = chain.into_iter().next().ok_or(std::io::ErrorKind::InvalidData)?;
    let builder = ClientConfig::builder_with_protocol_versions(&[&TLS13, &TLS12]);
    let provider = Arc::clone(builder.crypto_provider());
    let verifier = Arc::new(Own { certificate: own, provider });
    let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await
}

/// Takes exactly one certificate.
#[derive(Debug)]
struct Own {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let same = *shown == self.certificate;
        same.then(ServerCertVerified::assertion).ok_or(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
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

    #[tokio::test]
    async fn a_server_of_this_machine_is_known_by_the_certificate_in_its_file() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let pair = rcgen::generate_simple_self_signed(vec!["emr.example".into()]).unwrap();
            let (cert, key) = (folder.path().join(format!("{name}.pem")), folder.path().join(format!("{name}.key")));
            std::fs::write(&cert, pair.cert.pem()).unwrap();
            std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
            (cert, key)
        };
        let (cert, key) = write("own");
        let (other, _) = write("other");
        let acceptor = tokio_rustls::TlsAcceptor::from(server_config(&cert, &key, None).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.write_all(b"well").await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        let mut said = String::new();
        connect_to_own(address, &cert).await.unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "well");
        assert!(connect_to_own(address, &other).await.is_err(), "another certificate than the server's");
    }

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
