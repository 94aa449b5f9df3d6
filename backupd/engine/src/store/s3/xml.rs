//! The few answers of S3 that are XML. Total: any bytes give a value or `None`, in time and memory that the length of the
//! answer bounds.

use super::super::versions::{BucketSettings, Lock, LockMode, Version};
use chrono::DateTime;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, Event};
use quick_xml::reader::Reader;

/// Answers nest five deep; anything deeper is none.
const DEPTH_MAX: usize = 16;

/// One thing that an answer says.
enum Piece<'a> {
    /// An element begins; the names of all that are open.
    Open(&'a [String]),
    /// An element ends; its text, without that of the elements in it.
    Close(&'a [String], &'a str),
}

/// Walks over an answer. `None`: it is no well-formed XML of one element.
fn walk(xml: &[u8], mut visit: impl FnMut(Piece<'_>) -> Option<()>) -> Option<()> {
    let mut reader = Reader::from_reader(xml);
    let mut open: Vec<String> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    let mut roots = 0;
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) => {
                roots += usize::from(open.is_empty());
                if open.len() == DEPTH_MAX || roots > 1 {
                    return None;
                }
                open.push(String::from_utf8(tag.local_name().as_ref().to_vec()).ok()?);
                texts.push(String::new());
                visit(Piece::Open(&open))?;
            }
            Event::Empty(tag) => {
                roots += usize::from(open.is_empty());
                open.push(String::from_utf8(tag.local_name().as_ref().to_vec()).ok()?);
                visit(Piece::Open(&open))?;
                visit(Piece::Close(&open, ""))?;
                open.pop();
            }
            Event::End(_) => {
                let text = texts.pop()?;
                visit(Piece::Close(&open, &text))?;
                open.pop();
            }
            Event::Text(text) => append(&mut texts, &text.decode().ok()?),
            Event::CData(text) => append(&mut texts, &text.decode().ok()?),
            Event::GeneralRef(reference) => append(&mut texts, &resolve(&reference)?),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            // Nothing that S3 says needs a document type, and hostile ones are made of them.
            Event::DocType(_) => return None,
            Event::Eof => return (open.is_empty() && roots == 1).then_some(()),
        }
    }
}

fn append(texts: &mut [String], text: &str) {
    if let Some(last) = texts.last_mut() {
        last.push_str(text);
    }
}

fn resolve(reference: &BytesRef<'_>) -> Option<String> {
    match reference.resolve_char_ref().ok()? {
        Some(character) => Some(character.to_string()),
        None => resolve_predefined_entity(&reference.decode().ok()?).map(str::to_owned),
    }
}

/// The texts of an answer's elements by their path below the root, such as `["Rule", "DefaultRetention", "Mode"]`.
fn texts(xml: &[u8], mut visit: impl FnMut(&[&str], &str)) -> Option<()> {
    walk(xml, |piece| {
        if let Piece::Close([_, path @ ..], text) = piece {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            visit(&path, text.trim());
        }
        Some(())
    })
}

fn unix_ms(text: &str) -> Option<i64> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis())
}

fn mode(text: &str) -> Option<LockMode> {
    match text {
        "COMPLIANCE" => Some(LockMode::Compliance),
        "GOVERNANCE" => Some(LockMode::Governance),
        _ => None,
    }
}

/// The code of an error, such as `NoSuchKey`.
pub fn error_code(xml: &[u8]) -> Option<String> {
    let mut code = None;
    texts(xml, |path, text| {
        if path == ["Code"] && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            code = Some(text.to_owned());
        }
    })?;
    code
}

/// Whether a bucket keeps versions.
pub fn versioning(xml: &[u8]) -> Option<bool> {
    let mut enabled = false;
    texts(xml, |path, text| enabled |= path == ["Status"] && text == "Enabled")?;
    Some(enabled)
}

/// A bucket's lock configuration, into `settings`.
pub fn lock_configuration(xml: &[u8], settings: &mut BucketSettings) -> Option<()> {
    let (mut rule_mode, mut days) = (None, None);
    texts(xml, |path, text| match path {
        ["ObjectLockEnabled"] => settings.locks = text == "Enabled",
        ["Rule", "DefaultRetention", "Mode"] => rule_mode = mode(text),
        ["Rule", "DefaultRetention", "Days"] => days = text.parse::<u32>().ok(),
        ["Rule", "DefaultRetention", "Years"] => {
            days = text.parse::<u32>().ok().and_then(|years| years.checked_mul(365))
        }
        _ => {}
    })?;
    settings.new_objects = rule_mode.zip(days);
    Some(())
}

/// A version's retention.
pub fn retention(xml: &[u8]) -> Option<Lock> {
    let (mut lock_mode, mut until) = (None, None);
    texts(xml, |path, text| match path {
        ["Mode"] => lock_mode = mode(text),
        ["RetainUntilDate"] => until = unix_ms(text),
        _ => {}
    })?;
    Some(Lock { mode: lock_mode?, until_unix_ms: until? })
}

/// Whether a version is on legal hold.
pub fn legal_hold(xml: &[u8]) -> Option<bool> {
    let mut status = None;
    texts(xml, |path, text| {
        if path == ["Status"] {
            status = match text {
                "ON" => Some(true),
                "OFF" => Some(false),
                _ => None,
            };
        }
    })?;
    status
}

/// One page of a listing of versions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct VersionPage {
    pub versions: Vec<Version>,
    /// Where the next page begins: name and version. `None`: this was the last.
    pub next: Option<(String, String)>,
}

#[derive(Default)]
struct Draft {
    name: Option<String>,
    id: Option<String>,
    written: Option<i64>,
    latest: Option<bool>,
    size: Option<u64>,
}

impl Draft {
    fn set(&mut self, field: &str, text: &str) {
        match field {
            "Key" => self.name = Some(text.to_owned()),
            "VersionId" => self.id = Some(text.to_owned()),
            "LastModified" => self.written = unix_ms(text.trim()),
            "IsLatest" => self.latest = Some(text.trim() == "true"),
            "Size" => self.size = text.trim().parse().ok(),
            _ => {}
        }
    }

    /// `None`: the store left out what every version has.
    fn finish(self, is_delete_marker: bool) -> Option<Version> {
        Some(Version {
            name: self.name?,
            id: self.id?,
            written_unix_ms: self.written?,
            is_latest: self.latest?,
            is_delete_marker,
            size: if is_delete_marker { 0 } else { self.size? },
        })
    }
}

/// One page of a listing of versions, names as the store encoded them.
pub fn version_page(xml: &[u8]) -> Option<VersionPage> {
    let mut page = VersionPage::default();
    let (mut encoded, mut truncated) = (false, false);
    let (mut key_marker, mut version_marker) = (None, None);
    let mut draft = Draft::default();
    walk(xml, |piece| {
        let names = |open: &[String]| open.iter().skip(1).cloned().collect::<Vec<_>>();
        match piece {
            Piece::Open(open) if open.len() == 2 => draft = Draft::default(),
            Piece::Open(_) => {}
            Piece::Close(open, text) => match names(open).iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["Version" | "DeleteMarker", field] => draft.set(field, text),
                ["Version"] => page.versions.push(std::mem::take(&mut draft).finish(false)?),
                ["DeleteMarker"] => page.versions.push(std::mem::take(&mut draft).finish(true)?),
                ["EncodingType"] => encoded = text.trim() == "url",
                ["IsTruncated"] => truncated = text.trim() == "true",
                ["NextKeyMarker"] => key_marker = Some(text.to_owned()),
                ["NextVersionIdMarker"] => version_marker = Some(text.trim().to_owned()),
                _ => {}
            },
        }
        Some(())
    })?;
    if encoded {
        for version in &mut page.versions {
            version.name = percent_decoded(&version.name)?;
        }
        key_marker = key_marker.map(|name| percent_decoded(&name)).map_or(Some(None), |name| name.map(Some))?;
    }
    page.next = if truncated { Some((key_marker?, version_marker.unwrap_or_default())) } else { None };
    Some(page)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix></Prefix><IsTruncated>true</IsTruncated>
<NextKeyMarker>a&amp;b%20c</NextKeyMarker><NextVersionIdMarker>v9</NextVersionIdMarker><EncodingType>url</EncodingType>
<Version><Key>a%26&#98;</Key><VersionId>v2</VersionId><IsLatest>false</IsLatest><LastModified>2026-11-25T22:54:14.250Z</LastModified>
<ETag>&quot;x&quot;</ETag><Size>7</Size><Owner><ID>o</ID><DisplayName>Key</DisplayName></Owner></Version>
<DeleteMarker><Key>a</Key><VersionId>v1</VersionId><IsLatest>true</IsLatest><LastModified>2026-11-25T22:54:15Z</LastModified></DeleteMarker>
</ListVersionsResult>"#;

    #[test]
    fn a_page_of_versions_is_read() {
        let page = version_page(PAGE.as_bytes()).unwrap();
        let version = |name: &str, id: &str, written_unix_ms, is_delete_marker, size| Version {
            name: name.to_owned(),
            id: id.to_owned(),
            written_unix_ms,
            is_latest: is_delete_marker,
            is_delete_marker,
            size,
        };
        assert_eq!(
            page.versions,
            [version("a&b", "v2", 1_795_647_254_250, false, 7), version("a", "v1", 1_795_647_255_000, true, 0)]
        );
        assert_eq!(page.next, Some(("a&b c".to_owned(), "v9".to_owned())));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let deep = format!("{}{}", "<a>".repeat(40), "</a>".repeat(40));
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\">]><a>&b;</a>";
        let cases = [
            "",
            "plain",
            "<a>",
            "<a></b>",
            "</a>",
            "<a/><a/>",
            "<a>&undefined;</a>",
            "<a>&#xd800;</a>",
            "<a>&#x110000;</a>",
            &deep,
            bomb,
        ];
        for xml in cases {
            assert_eq!(version_page(xml.as_bytes()), None, "{xml}");
            assert_eq!(error_code(xml.as_bytes()), None, "{xml}");
            assert_eq!(versioning(xml.as_bytes()), None, "{xml}");
        }
        // A page that says there is more, but not where, would be asked for again without end.
        let endless = "<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>";
        assert_eq!(version_page(endless.as_bytes()), None);
        let nameless = "<ListVersionsResult><Version><VersionId>v</VersionId></Version></ListVersionsResult>";
        assert_eq!(version_page(nameless.as_bytes()), None);
        assert_eq!(version_page(&PAGE.replace("%20", "%zz").into_bytes()), None);
    }

    #[test]
    fn locks_holds_and_settings_are_read() {
        let lock = "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2026-11-25T22:54:14.000000000Z</RetainUntilDate></Retention>";
        let expected = Lock { mode: LockMode::Compliance, until_unix_ms: 1_795_647_254_000 };
        assert_eq!(retention(lock.as_bytes()), Some(expected));
        assert_eq!(retention(b"<Retention><Mode>OTHER</Mode></Retention>"), None);
        assert_eq!(legal_hold(b"<LegalHold><Status>ON</Status></LegalHold>"), Some(true));
        assert_eq!(legal_hold(b"<LegalHold/>"), None);
        assert_eq!(versioning(b"<VersioningConfiguration/>"), Some(false));
        assert_eq!(
            versioning(b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"),
            Some(false)
        );
        assert_eq!(
            versioning(b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
            Some(true)
        );
        let mut settings = BucketSettings::default();
        let xml = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE\
                   </Mode><Years>2</Years></DefaultRetention></Rule></ObjectLockConfiguration>";
        lock_configuration(xml.as_bytes(), &mut settings).unwrap();
        let locks = BucketSettings { versions: false, locks: true, new_objects: Some((LockMode::Governance, 730)) };
        assert_eq!(settings, locks);
        assert_eq!(
            error_code(b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>").as_deref(),
            Some("NoSuchKey")
        );
    }
}
