//! A visitor without a browser: cookies, forms and one-time codes, trusting the practice's own authority alone.

use crate::{User, pause};
use anyhow::{Context, Result, ensure};
use reqwest::cookie::Jar;
use std::sync::Arc;
use std::time::Duration;

/// A signed-in session with the EMR.
pub struct Visitor {
    pub client: reqwest::Client,
    pub url: String,
    ca: reqwest::Certificate,
    cookies: Arc<Jar>,
}

/// Makes the one crypto provider the default.
pub fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn builder(ca: &reqwest::Certificate, cookies: &Arc<Jar>) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_certs_only([ca.clone()])
        .cookie_provider(Arc::clone(cookies))
        .timeout(Duration::from_secs(30))
}

impl Visitor {
    pub fn new(ca_pem: &[u8], url: &str) -> Result<Self> {
        install_provider();
        let (ca, cookies) = (reqwest::Certificate::from_pem(ca_pem)?, Arc::default());
        let client = builder(&ca, &cookies).build()?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), ca, cookies })
    }

    /// Another window of the same session: a connection of its own, and a redirect is an answer.
    pub fn window(&self) -> Result<reqwest::Client> {
        let builder = builder(&self.ca, &self.cookies).redirect(reqwest::redirect::Policy::none());
        Ok(builder.pool_max_idle_per_host(1).build()?)
    }

    /// Signs in to the EMR. A one-time code is good once, so a second sign-in of one user waits for the next code.
    pub async fn sign_in(ca_pem: &[u8], user: &User) -> Result<Self> {
        let visitor = Self::new(ca_pem, &user.url)?;
        let mut last = String::new();
        for _ in 0..40 {
            let code = totp(&user.totp_secret)?;
            if code != last {
                let page = visitor.page("/login").await?;
                let token = csrf(&page).context("the sign-in form has a token")?;
                let form = [("csrf", &token), ("name", &user.name), ("password", &user.password), ("code", &code)];
                let answer = visitor.client.post(format!("{}/login", visitor.url)).form(&form).send().await?;
                if answer.status().is_success() && answer.url().path() != "/login" {
                    return Ok(visitor);
                }
                last = code;
            }
            pause(Duration::from_secs(1));
        }
        anyhow::bail!("{} could not sign in", user.name)
    }

    /// The text of a page; an error when it is not one.
    pub async fn page(&self, path: &str) -> Result<String> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await?;
        ensure!(answer.status().is_success(), "GET {path} answered {}", answer.status());
        Ok(answer.text().await?)
    }

    /// A FHIR resource or bundle.
    pub async fn fhir(&self, path: &str) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.page(&format!("/fhir/R4/{path}")).await?)?)
    }

    /// All resources of a search, page by page.
    pub async fn fhir_all(&self, query: &str) -> Result<Vec<serde_json::Value>> {
        let (mut found, mut next) = (Vec::new(), Some(query.to_owned()));
        while let Some(query) = next {
            let bundle = self.fhir(&query).await?;
            found.extend(bundle["entry"].as_array().into_iter().flatten().map(|entry| entry["resource"].clone()));
            let link = bundle["link"].as_array().into_iter().flatten().find(|link| link["relation"] == "next");
            let url = link.and_then(|link| link["url"].as_str()?.split_once("/fhir/R4/"));
            next = url.map(|(_, query)| query.to_owned());
        }
        Ok(found)
    }

    /// Registers a patient through the form that the front desk fills in; returns the chart's path.
    pub async fn register(&self, family: &str, given: &str) -> Result<String> {
        let page = self.page("/patients/new").await?;
        let token = csrf(&page).context("the form has a token")?;
        let form = [
            ("csrf", token.as_str()),
            ("family", family),
            ("given", given),
            ("birth", "1961-04-07"),
            ("gender", "female"),
            // Two people of one day and with like names are two people: this desk has checked.
            ("another", "yes"),
        ];
        let answer = self.client.post(format!("{}/patients/new", self.url)).form(&form).send().await?;
        let path = answer.url().path().to_owned();
        ensure!(answer.status().is_success() && path != "/patients/new", "registering answered {}", answer.status());
        Ok(path)
    }
}

impl Visitor {
    /// Uploads a document to a chart through its form. `bytes` follow the beginning of a PDF.
    pub async fn upload(&self, chart: &str, description: &str, bytes: &[u8]) -> Result<()> {
        let path = format!("{chart}/documents/new");
        let page = self.page(&path).await?;
        let mut body = Vec::new();
        let mut field = |name: &str, value: &[u8], more: &str| {
            let head = format!("--holdfast-part\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(value);
            body.extend_from_slice(b"\r\n");
        };
        for (name, value) in hidden(&page) {
            field(&name, value.as_bytes(), "");
        }
        field("description", description.as_bytes(), "");
        let file = [b"%PDF-1.7\n", bytes].concat();
        field("file", &file, "; filename=\"scan.pdf\"\r\nContent-Type: application/pdf");
        body.extend_from_slice(b"--holdfast-part--\r\n");
        let request = self.client.post(format!("{}{path}", self.url)).body(body);
        let answer = request.header("content-type", "multipart/form-data; boundary=holdfast-part").send().await?;
        ensure!(answer.status().is_success() && answer.url().path() != path, "the upload answered {}", answer.status());
        Ok(())
    }
}

/// Names and values of a page's hidden inputs, each once.
pub fn hidden(page: &str) -> std::collections::BTreeMap<String, String> {
    let inputs = page.split("<input").skip(1).filter_map(|rest| rest.split_once('>')).map(|(input, _)| input);
    let value = |input: &str, name: &str| {
        let (_, rest) = input.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    inputs
        .filter(|input| input.contains("type=\"hidden\""))
        .filter_map(|input| Some((value(input, " name")?, value(input, " value")?)))
        .collect()
}

/// The CSRF token in a page's form.
pub fn csrf(page: &str) -> Option<String> {
    let (_, rest) = page.split_once("name=\"csrf\"")?;
    let (_, rest) = rest.split_once("value=\"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// The current one-time code of a base32 secret.
pub fn totp(secret: &str) -> Result<String> {
    let bytes = data_encoding::BASE32_NOPAD.decode(secret.trim_end_matches('=').as_bytes())?;
    let totp = totp_rs::Builder::new().with_secret(bytes).with_step_duration(30).build();
    let totp = totp.map_err(|_| anyhow::anyhow!("the secret is too short"))?;
    Ok(totp.generate(unix_s()).to_string())
}

/// Unix seconds.
#[expect(clippy::disallowed_methods, reason = "a one-time code is of this moment")]
pub fn unix_s() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}
