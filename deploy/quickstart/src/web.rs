//! Turning an invitation into an account, through the page that a person would use.

use crate::files;
use crate::login;
use crate::users::{Program, User};
use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const PAGE_BYTES_MAX: usize = 4 << 20;
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// A browser as far as an invitation needs one: it trusts the practice's authority and nothing else.
pub struct Browser {
    tls: Arc<ClientConfig>,
}

struct Page {
    status: StatusCode,
    cookies: Vec<String>,
    text: String,
}

impl Browser {
    pub fn new(ca: &Path) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(rustls_pki_types::CertificateDer::from_pem_slice(files::read(ca)?.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls) })
    }

    /// Opens the invitation, fills the form with the user's name and password and the code of the secret that the page
    /// shows; returns that secret.
    pub async fn accept(&self, listen: IpAddr, port: u16, token: &str, user: &User) -> anyhow::Result<String> {
        let at = (reachable(listen), port);
        let path = format!("/invite/{token}");
        let page = self.ask(at, Method::GET, &path, &[], String::new()).await?;
        anyhow::ensure!(page.status == StatusCode::OK, "the invitation's page answered {}", page.status);
        let secret = between(&page.text, "<code", "</code>")
            .and_then(|text| text.split_once('>'))
            .map(|(_, text)| text.split_whitespace().collect::<String>())
            .context("the invitation's page shows no secret for an authenticator")?;
        let (code, _) = login::code_now(&secret)?;
        let mut fields = vec![
            ("name", user.name.as_str()),
            ("password", &user.password),
            ("again", &user.password),
            ("code", &code),
        ];
        let csrf = between(&page.text, "name=\"csrf\" value=\"", "\"");
        if user.program == Program::Emr {
            fields.push(("display", &user.display));
            fields.push(("csrf", csrf.context("the invitation's form has no token")?));
        }
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", login::percent(value))).collect();
        let answer = self.ask(at, Method::POST, &path, &page.cookies, body.join("&")).await?;
        anyhow::ensure!(
            answer.status == StatusCode::SEE_OTHER,
            "the account {} was not made: the page answered {}",
            user.name,
            answer.status
        );
        Ok(secret)
    }

    async fn ask(
        &self,
        at: (IpAddr, u16),
        method: Method,
        path: &str,
        cookies: &[String],
        body: String,
    ) -> anyhow::Result<Page> {
        let asked = self.ask_unbounded(at, method, path, cookies, body);
        tokio::time::timeout(ANSWER_TIME, asked).await.context("the page did not answer in time")?
    }

    async fn ask_unbounded(
        &self,
        at: (IpAddr, u16),
        method: Method,
        path: &str,
        cookies: &[String],
        body: String,
    ) -> anyhow::Result<Page> {
        let stream = tokio::net::TcpStream::connect(at).await.context("the page cannot be reached")?;
        let name = ServerName::try_from("localhost")?;
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .context("the page's certificate is not the one that was made for it")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("localhost:{}", at.1))
            .header(ORIGIN, format!("https://localhost:{}", at.1))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let status = answer.status();
        let cookies = answer
            .headers()
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok()?.split(';').next().map(str::to_owned))
            .collect();
        let body = Limited::new(answer.into_body(), PAGE_BYTES_MAX).collect().await;
        connection.abort();
        let bytes = body.map_err(|_| anyhow::anyhow!("the page is too long or broke off"))?.to_bytes();
        Ok(Page { status, cookies, text: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

/// An address that reaches what listens on `listen`.
fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let start = text.find(from)? + from.len();
    let rest = text.get(start..)?;
    rest.get(..rest.find(to)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_stands_between() {
        assert_eq!(between("a name=\"csrf\" value=\"xyz\" b", "value=\"", "\""), Some("xyz"));
        assert_eq!(between("<code class=\"w\">AB CD</code>", "<code", "</code>"), Some(" class=\"w\">AB CD"));
        assert_eq!(between("open <code", "<code", "</code>"), None);
    }
}
