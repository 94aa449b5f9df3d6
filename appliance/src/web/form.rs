//! Submitted forms: read once, with limits, by the gate, which checks the CSRF token before a handler sees anything.

use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Largest form without a file, bytes. A long note has some 20 KB.
pub const FORM_BYTES_MAX: usize = 512 << 10;
/// Largest upload, bytes: a scanned letter has 1 to 10 MB.
pub const UPLOAD_BYTES_MAX: usize = 25 << 20;
const FIELDS_MAX: usize = 400;
/// Fields of passwords and one-time codes: nothing of them is sent back to be looked at.
pub const SECRETS: [&str; 6] = ["password", "again", "now", "new", "key-password", "code"];
/// Files that one form sends: the documents of a table.
const FILES_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("what was sent is too large: at most {} MB", UPLOAD_BYTES_MAX >> 20)]
    TooLarge,
    #[error("the form could not be read; open the page again and repeat")]
    Malformed,
}

/// A file that was sent with a form. The name is the client's word: it is shown, never used as a path.
#[derive(Clone, Default)]
pub struct Upload {
    /// The field of the form.
    pub field: String,
    pub name: String,
    pub bytes: Bytes,
}

/// The fields of a form, decoded.
#[derive(Clone, Default)]
pub struct Form {
    fields: Vec<(String, String)>,
    uploads: Vec<Upload>,
    cleaned: bool,
}

impl Form {
    /// Reads the body of a request: urlencoded, multipart, or nothing.
    ///
    /// # Errors
    /// [`FormError::TooLarge`] beyond the limits, [`FormError::Malformed`] otherwise.
    pub async fn read(request: Request) -> Result<Self, FormError> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        if kind.starts_with("multipart/form-data") {
            return Self::read_multipart(request).await;
        }
        let body = Limited::new(request.into_body(), FORM_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| if error.is::<LengthLimitError>() { FormError::TooLarge } else { FormError::Malformed })?;
        Self::parse(&body.to_bytes())
    }

    /// Decodes `application/x-www-form-urlencoded`.
    pub fn parse(body: &[u8]) -> Result<Self, FormError> {
        if body.iter().filter(|b| **b == b'&').count() >= FIELDS_MAX {
            return Err(FormError::Malformed);
        }
        let mut form = Self::default();
        for pair in body.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |b| *b == b'=');
            let name = percent_decode(halves.next().unwrap_or_default()).ok_or(FormError::Malformed)?;
            let value = percent_decode(halves.next().unwrap_or_default()).ok_or(FormError::Malformed)?;
            form.push(name, &value);
        }
        Ok(form)
    }

    async fn read_multipart(request: Request) -> Result<Self, FormError> {
        let (parts, body) = request.into_parts();
        let limited = axum::body::Body::new(Limited::new(body, UPLOAD_BYTES_MAX + FORM_BYTES_MAX));
        let mut request = Request::from_parts(parts, limited);
        // Axum's own limit of 2 MB would come first.
        DefaultBodyLimit::disable().apply(&mut request);
        let mut parts = Multipart::from_request(request, &()).await.map_err(|_| FormError::Malformed)?;
        let mut form = Self::default();
        loop {
            let part = match parts.next_field().await {
                Ok(Some(part)) => part,
                Ok(None) => return Ok(form),
                Err(error) => return Err(multipart_error(&error)),
            };
            if form.fields.len() >= FIELDS_MAX {
                return Err(FormError::Malformed);
            }
            let name = part.name().unwrap_or_default().to_owned();
            let file = part.file_name().map(str::to_owned);
            let bytes = part.bytes().await.map_err(|e| multipart_error(&e))?;
            match file {
                Some(_) if bytes.len() > UPLOAD_BYTES_MAX => return Err(FormError::TooLarge),
                Some(_) if form.uploads.len() >= FILES_MAX => return Err(FormError::Malformed),
                Some(file) => form.uploads.push(Upload { field: name, name: file, bytes }),
                None => {
                    let value = String::from_utf8(bytes.to_vec()).map_err(|_| FormError::Malformed)?;
                    form.push(name, &value);
                }
            }
        }
    }

    /// Browsers send CRLF from text areas; NUL and other controls never come from a keyboard, but from a paste.
    fn push(&mut self, name: String, value: &str) {
        let value = value.replace("\r\n", "\n").replace('\r', "\n");
        let kept: String = value.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
        self.cleaned |= kept != value && !SECRETS.contains(&name.as_str());
        self.fields.push((name, kept));
    }

    /// Whether control characters, which no record holds, were left out of a field that is not a password.
    pub fn was_cleaned(&self) -> bool {
        self.cleaned
    }

    /// Whether a file was chosen.
    pub fn has_upload(&self) -> bool {
        self.uploads.iter().any(|upload| !upload.bytes.is_empty())
    }

    /// Whether a password or a one-time code was entered.
    pub fn has_secret(&self) -> bool {
        SECRETS.iter().any(|name| !self.raw(name).is_empty())
    }

    /// What a page may carry on to be sent again: all but secrets, and the token of the page.
    pub fn to_carry(&self) -> impl Iterator<Item = (&str, &str)> {
        let carried = |name: &str| name != "csrf" && !SECRETS.contains(&name);
        self.fields.iter().filter(move |(n, _)| carried(n)).map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// The value of a field without surrounding space; empty when the field was not sent.
    pub fn text(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// The value of a field as it was typed: for passwords and notes.
    pub fn raw(&self, name: &str) -> &str {
        self.fields.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// The file that was chosen for a field; `None` where none was.
    pub fn upload(&self, field: &str) -> Option<&Upload> {
        self.uploads.iter().find(|upload| upload.field == field && !upload.bytes.is_empty())
    }

    /// All files that were chosen for a field.
    pub fn uploads<'a>(&'a self, field: &'a str) -> impl Iterator<Item = &'a Upload> {
        self.uploads.iter().filter(move |upload| upload.field == field && !upload.bytes.is_empty())
    }

    /// All fields, as they came.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// A form as it would have come from a browser.
    pub fn from_fields(fields: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { fields: fields.into_iter().collect(), ..Self::default() }
    }
}

fn multipart_error(error: &axum::extract::multipart::MultipartError) -> FormError {
    // A body that ran into the limit surfaces as a broken stream.
    if error.status() == http::StatusCode::PAYLOAD_TOO_LARGE || error.body_text().contains("length limit") {
        FormError::TooLarge
    } else {
        FormError::Malformed
    }
}

fn percent_decode(bytes: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => hex_digit(*rest.next()?)? << 4 | hex_digit(*rest.next()?)?,
            other => *other,
        });
    }
    String::from_utf8(out).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// Encodes a value for a query string or path segment of our own links.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_browsers_send() {
        let form = Form::parse(b"name=J%C3%BCrgen+O%27Neil&note=a%0D%0Ab&empty=&flag").unwrap();
        assert_eq!(form.text("name"), "Jürgen O'Neil");
        assert_eq!(form.raw("note"), "a\nb");
        assert_eq!((form.text("empty"), form.text("flag"), form.text("absent")), ("", "", ""));
    }

    #[test]
    fn refuses_broken_input_without_panicking() {
        for bad in [&b"a=%"[..], b"a=%2", b"a=%zz", b"%ff=1", b"a=\xff"] {
            assert_eq!(Form::parse(bad).err(), Some(FormError::Malformed));
        }
        assert!(Form::parse("a=1&".repeat(FIELDS_MAX + 1).as_bytes()).is_err());
        for (sent, kept, cleaned) in [
            (&b"a=x%00y"[..], "xy", true),
            (b"a=x%0by", "xy", true),
            (b"a=x%0dy%0d%0a%09", "x\ny\n\t", false),
            (b"again=x&a=", "", false),
            (b"again=x%00y&a=z", "z", false),
        ] {
            let form = Form::parse(sent).unwrap();
            assert_eq!((form.raw("a"), form.was_cleaned()), (kept, cleaned), "{sent:?}");
        }
    }

    /// A field of a password or code under a name that is not known would be carried on in clear.
    #[test]
    fn every_secret_field_of_a_page_is_known() {
        let mut pending = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/web"))];
        let mut seen = 0;
        while let Some(folder) = pending.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    pending.push(entry);
                    continue;
                }
                let source = std::fs::read_to_string(&entry).unwrap();
                let (pages, _) = source.split_once("#[cfg(test)]").unwrap_or((&source, ""));
                for field in pages.split("Field::new(").skip(1) {
                    let field = field.split(".show(").next().unwrap();
                    if !field.contains("kind(\"password\")") && !field.contains("one-time-code") {
                        continue;
                    }
                    let name = field.split('"').nth(3).unwrap();
                    assert!(SECRETS.contains(&name), "{name} in {}", entry.display());
                    seen += 1;
                }
            }
        }
        assert!(seen > 10, "{seen}");
    }

    #[test]
    fn encoding_and_decoding_are_inverse() {
        let text = "a b&c=d%ä/?#\"<";
        assert_eq!(percent_decode(percent_encode(text).as_bytes()).unwrap(), text);
    }
}
