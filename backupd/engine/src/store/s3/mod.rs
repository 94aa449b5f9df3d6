//! A small signed S3 client for what `object_store` lacks: versions, locks and legal holds. It signs and sends with
//! `object_store`'s own parts, so there is one HTTP stack and one implementation of SigV4.

mod request;
mod xml;

use super::versions::{BucketSettings, Lock, LockMode, Version, VersionedStore};
use super::{StoreLimits, StoreLocation};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use futures::future::BoxFuture;
use http::Method;
use request::{Answer, Client, Question};
use std::ops::Range;

/// The largest object that the format knows.
const OBJECT_BYTES_MAX: usize = 16 << 20;
/// A page of 1000 versions takes less than 1 MiB; what is not an object is never larger than this.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Versions in one listing: a store that sends more pages is not believed.
const VERSIONS_MAX: usize = 50_000_000;

/// The header by which somebody who may bypass governance locks does.
const BYPASS: &str = "x-amz-bypass-governance-retention";

/// How AWS and Ceph say that a version has neither lock nor hold.
const NO_LOCK: [&str; 2] = ["NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"];

/// A bucket and a prefix in it.
pub(super) struct S3Versions {
    client: Client,
    prefix: String,
}

impl S3Versions {
    pub(super) fn open(location: &StoreLocation, limits: StoreLimits) -> Result<Self> {
        let StoreLocation::S3 { prefix, .. } = location else {
            return Err(Error::new(ErrorKind::Misconfigured, "only S3 stores have versions and locks"));
        };
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { client: Client::new(location, limits)?, prefix })
    }

    fn about<'a>(&self, method: Method, name: &'a str) -> Question<'a> {
        Question::new(method, Some(format!("{}{name}", self.prefix)), name)
    }

    async fn page(&self, prefix: &str, from: Option<&(String, String)>) -> Result<xml::VersionPage> {
        let under = format!("{}{prefix}", self.prefix);
        let mut question = Question::new(Method::GET, None, "the listing of versions")
            .query("versions", "")
            .query("encoding-type", "url")
            .query("prefix", &under);
        if let Some((name, version)) = from {
            question = question.query("key-marker", name);
            if !version.is_empty() {
                question = question.query("version-id-marker", version);
            }
        }
        let answer = self.client.ask(question, ANSWER_BYTES_MAX).await?;
        xml::version_page(&answer.body).ok_or_else(|| unreadable("the listing of versions"))
    }

    async fn list_versions(&self, prefix: &str) -> Result<Vec<Version>> {
        let mut found: Vec<Version> = Vec::new();
        let mut from = None;
        loop {
            let page = self.page(prefix, from.as_ref()).await?;
            if page.next.is_some() && (page.next == from || found.len() > VERSIONS_MAX) {
                return Err(unreadable("the listing of versions does not end"));
            }
            found.extend(page.versions.into_iter().filter_map(|mut version| {
                version.name = version.name.strip_prefix(&self.prefix)?.to_owned();
                Some(version)
            }));
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        // The newest of a name first; where two have the same time, the latest is known by its mark.
        found.sort_by(|a, b| {
            let newest = |v: &Version| (v.is_latest, v.written_unix_ms);
            a.name.cmp(&b.name).then_with(|| newest(b).cmp(&newest(a)))
        });
        Ok(found)
    }

    async fn get(&self, name: &str, version: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let mut question = self.about(Method::GET, name).query("versionId", version);
        if let Some(range) = &range {
            question = question.header("range", &format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        }
        let answer = self.client.ask(question, OBJECT_BYTES_MAX).await?;
        match range {
            Some(range) if answer.body.len() as u64 != range.end.saturating_sub(range.start) => {
                Err(Error::new(ErrorKind::Damaged, format!("object {name} is shorter than its index says")))
            }
            _ => Ok(answer.body),
        }
    }

    /// The answer about a part of a version; `None`: it has no such part.
    async fn part(&self, name: &str, version: Option<&str>, part: &'static str) -> Result<Option<Answer>> {
        let question = self.about(Method::GET, name).query(part, "").version(version);
        match self.client.ask(question, ANSWER_BYTES_MAX).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if request::code(&error).is_some_and(|code| NO_LOCK.contains(&code)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put_part<'a>(&self, name: &'a str, version: Option<&str>, part: &'static str, body: String) -> Question<'a> {
        self.about(Method::PUT, name).query(part, "").version(version).body(body.into())
    }

    fn put_lock<'a>(&self, name: &'a str, version: Option<&str>, lock: Lock) -> Result<Question<'a>> {
        let (mode, until) = (mode_word(lock.mode), date(lock.until_unix_ms)?);
        let body = format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>");
        Ok(self.put_part(name, version, "retention", body))
    }

    async fn change(&self, question: Question<'_>) -> Result<()> {
        self.client.ask(question, ANSWER_BYTES_MAX).await.map(|_| ())
    }

    async fn bucket(&self, part: &'static str) -> Result<Option<Answer>> {
        let question = Question::new(Method::GET, None, "the bucket's settings").query(part, "");
        match self.client.ask(question, ANSWER_BYTES_MAX).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Misconfigured) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn unreadable(what: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("{what}: the store's answer cannot be read"))
}

fn mode_word(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Compliance => "COMPLIANCE",
        LockMode::Governance => "GOVERNANCE",
    }
}

/// The day as S3 takes it, in whole seconds, never earlier than asked for.
fn date(unix_ms: i64) -> Result<String> {
    let up = unix_ms.saturating_add(999);
    let date = DateTime::from_timestamp(up.div_euclid(1000), 0)
        .ok_or_else(|| Error::new(ErrorKind::Misconfigured, "the day of a lock is no day"))?;
    Ok(date.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// Takes bytes for every answer that this client reads; whether any of them was one. For tests that feed it any bytes.
#[must_use]
pub fn reads(answer: &[u8]) -> bool {
    let mut settings = BucketSettings::default();
    xml::version_page(answer).is_some()
        | xml::retention(answer).is_some()
        | xml::legal_hold(answer).is_some()
        | xml::versioning(answer).is_some()
        | xml::lock_configuration(answer, &mut settings).is_some()
        | xml::error_code(answer).is_some()
}

impl VersionedStore for S3Versions {
    fn settings(&self) -> BoxFuture<'_, Result<BucketSettings>> {
        Box::pin(async move {
            let mut settings = BucketSettings::default();
            if let Some(answer) = self.bucket("versioning").await? {
                settings.versions =
                    xml::versioning(&answer.body).ok_or_else(|| unreadable("the bucket's versioning"))?;
            }
            if let Some(answer) = self.bucket("object-lock").await? {
                xml::lock_configuration(&answer.body, &mut settings)
                    .ok_or_else(|| unreadable("the bucket's lock configuration"))?;
            }
            Ok(settings)
        })
    }

    fn versions<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Version>>> {
        Box::pin(self.list_versions(prefix))
    }

    fn get_version<'a>(&'a self, name: &'a str, version: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(self.get(name, version, None))
    }

    fn get_version_range<'a>(
        &'a self,
        name: &'a str,
        version: &'a str,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(self.get(name, version, Some(range)))
    }

    fn put_locked<'a>(&'a self, name: &'a str, bytes: Bytes, lock: Lock) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let question = self
                .about(Method::PUT, name)
                .header("x-amz-object-lock-mode", mode_word(lock.mode))
                .header("x-amz-object-lock-retain-until-date", &date(lock.until_unix_ms)?)
                .body(bytes);
            self.change(question).await
        })
    }

    fn lock<'a>(&'a self, name: &'a str, version: Option<&'a str>) -> BoxFuture<'a, Result<Option<Lock>>> {
        Box::pin(async move {
            match self.part(name, version, "retention").await? {
                None => Ok(None),
                Some(answer) => {
                    xml::retention(&answer.body).map(Some).ok_or_else(|| unreadable("the lock of an object"))
                }
            }
        })
    }

    fn set_lock<'a>(&'a self, name: &'a str, version: Option<&'a str>, lock: Lock) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.change(self.put_lock(name, version, lock)?).await })
    }

    fn raise_lock<'a>(
        &'a self,
        name: &'a str,
        version: Option<&'a str>,
        until_unix_ms: i64,
    ) -> BoxFuture<'a, Result<()>> {
        let raised = Lock { mode: LockMode::Compliance, until_unix_ms };
        Box::pin(async move { self.change(self.put_lock(name, version, raised)?.header(BYPASS, "true")).await })
    }

    fn legal_hold<'a>(&'a self, name: &'a str, version: Option<&'a str>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            match self.part(name, version, "legal-hold").await? {
                None => Ok(false),
                Some(answer) => xml::legal_hold(&answer.body).ok_or_else(|| unreadable("the hold of an object")),
            }
        })
    }

    fn set_legal_hold<'a>(&'a self, name: &'a str, version: Option<&'a str>, held: bool) -> BoxFuture<'a, Result<()>> {
        let status = if held { "ON" } else { "OFF" };
        let body = format!("<LegalHold><Status>{status}</Status></LegalHold>");
        Box::pin(async move { self.change(self.put_part(name, version, "legal-hold", body)).await })
    }

    fn delete_version<'a>(
        &'a self,
        name: &'a str,
        version: Option<&'a str>,
        bypass: bool,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut question = self.about(Method::DELETE, name).version(version);
            if bypass {
                question = question.header(BYPASS, "true");
            }
            self.change(question).await
        })
    }
}
