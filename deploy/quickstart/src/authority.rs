//! The practice's own certificate authority and the certificates that it signs.

use crate::ambient;
use crate::files;
use crate::layout::Layout;
use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_DAYS: u32 = 3650;
/// Browsers refuse server certificates that are good for more than 398 days.
const LEAF_DAYS: u32 = 397;
/// A leaf older than this is replaced at the next start, well before it ends.
pub const LEAF_RENEW_DAYS: u64 = 300;

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A browser or a client meets it.
    Server,
    /// A program shows it to another program (mutual TLS).
    Client,
}

/// Every certificate that the practice has, by file stem and use.
pub const LEAVES: [(&str, Use); 6] = [
    ("appliance", Use::Server),
    ("console", Use::Server),
    ("agent", Use::Server),
    ("serve", Use::Server),
    ("verifier", Use::Server),
    ("console-client", Use::Client),
];

/// Certificate and key file of a leaf.
pub fn leaf_files(layout: &Layout, stem: &str) -> (PathBuf, PathBuf) {
    (layout.at("tls").join(format!("{stem}.pem")), layout.at("tls").join(format!("{stem}.key.pem")))
}

pub fn ca_file(layout: &Layout) -> PathBuf {
    layout.at("ca/ca.pem")
}

/// Makes the authority when there is none.
pub fn ensure_ca(layout: &Layout, practice: &str) -> anyhow::Result<()> {
    let (cert, key) = (ca_file(layout), layout.at("ca/ca.key.pem"));
    if cert.exists() && key.exists() {
        return Ok(());
    }
    let mut params = dated(Vec::new(), CA_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, format!("{practice} certificate authority"));
    let pair = KeyPair::generate()?;
    files::write_private(&key, pair.serialize_pem().as_bytes())?;
    files::write_private(&cert, params.self_signed(&pair)?.pem().as_bytes())
}

/// Signs new certificates for every program: `names` (host names and IP addresses) for the servers.
pub fn issue_leaves(layout: &Layout, names: &[String]) -> anyhow::Result<()> {
    let ca_key = KeyPair::from_pem(&files::read(&layout.at("ca/ca.key.pem"))?).context("ca/ca.key.pem is damaged")?;
    let issuer = Issuer::from_ca_cert_pem(&files::read(&ca_file(layout))?, ca_key).context("ca/ca.pem is damaged")?;
    for (stem, purpose) in LEAVES {
        let mut subject = names.to_vec();
        subject.push(format!("{stem}.holdfast.internal"));
        let mut params = dated(subject, LEAF_DAYS)?;
        params.distinguished_name.push(DnType::CommonName, stem);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match purpose {
            Use::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Use::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let pair = KeyPair::generate()?;
        let (cert, key) = leaf_files(layout, stem);
        files::write_private(&key, pair.serialize_pem().as_bytes())?;
        files::write_private(&cert, params.signed_by(&pair, &issuer)?.pem().as_bytes())?;
    }
    Ok(())
}

/// SHA-256 of the certificate in a PEM file, as browsers show it: `AB:CD:...`.
pub fn fingerprint(pem: &Path) -> anyhow::Result<String> {
    let der = certificate(pem)?;
    let hex: Vec<String> = Sha256::digest(&der).iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(hex.join(":"))
}

pub fn certificate(pem: &Path) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(pem).with_context(|| format!("{} holds no certificate", pem.display()))
}

fn dated(names: Vec<String>, days: u32) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("a name for the certificates is not valid: see --name")?;
    // A clock that is a few minutes behind must not call the certificate not yet valid.
    params.not_before = (ambient::now() - Duration::from_secs(3600)).into();
    params.not_after = (ambient::now() + DAY * days).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::{ServerName, UnixTime};
    use std::sync::Arc;

    fn practice() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        for folder in layout.folders() {
            files::private_folder(&folder).unwrap();
        }
        ensure_ca(&layout, "Test practice").unwrap();
        issue_leaves(&layout, &["localhost".into(), "127.0.0.1".into()]).unwrap();
        (folder, layout)
    }

    fn check(layout: &Layout, stem: &str, name: &str) -> Result<(), rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&ca_file(layout)).unwrap()).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let leaf = certificate(&leaf_files(layout, stem).0).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(ambient::unix_s()));
        verifier.verify_server_cert(&leaf, &[], &name, &[], now).map(|_| ())
    }

    #[test]
    fn servers_verify_for_their_names_only() {
        let (_folder, layout) = practice();
        for name in ["localhost", "127.0.0.1", "appliance.holdfast.internal"] {
            check(&layout, "appliance", name).unwrap();
        }
        assert!(check(&layout, "appliance", "example.org").is_err());
        assert!(check(&layout, "console-client", "localhost").is_err(), "a client certificate served");
    }

    #[test]
    fn another_practice_is_not_trusted() {
        let ((_one, first), (_two, second)) = (practice(), practice());
        std::fs::copy(ca_file(&second), ca_file(&first)).unwrap();
        assert!(check(&first, "appliance", "localhost").is_err());
    }

    #[test]
    fn an_authority_is_made_once() {
        let (_folder, layout) = practice();
        let before = fingerprint(&ca_file(&layout)).unwrap();
        ensure_ca(&layout, "Other name").unwrap();
        assert_eq!(fingerprint(&ca_file(&layout)).unwrap(), before);
        assert_eq!(before.len(), 32 * 3 - 1);
    }
}
