//! Signed requests, byte for byte as they are written.

use crate::support::Server;
use s3s::crypto::{Checksum, Sha256};
use s3s::dto::{Timestamp, TimestampFormat};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::SystemTime;

/// Status and body of an answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// What stands in an element of the answer, or nothing.
    pub fn element(&self, name: &str) -> &str {
        let from = self.body.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
        from.split_once("</").map_or("", |(text, _)| text)
    }
}

impl Server {
    /// A signed request whose path is sent as it stands here: every client library would tidy up its dots and slashes.
    /// `query` is sorted and encoded already.
    pub fn ask(&self, key: (&str, &str), method: &str, path: &str, query: &str, extra: &str, body: &str) -> Answer {
        let host = self.url.strip_prefix("http://").unwrap();
        let (time, authorization) = sign(key, method, host, path, query);
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\nx-amz-date: {time}\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n\
             authorization: {authorization}\r\ncontent-length: {}\r\nconnection: close\r\n{extra}\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(&answer);
        Answer { status, body: body.to_owned() }
    }
}

#[expect(clippy::disallowed_methods, reason = "the server compares a signature's time with its own clock")]
fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// The time and the header of a signature (SigV4) over a request without its body.
fn sign(key: (&str, &str), method: &str, host: &str, path: &str, query: &str) -> (String, String) {
    let mut text = Vec::new();
    now().format(TimestampFormat::DateTime, &mut text).unwrap();
    let digits: String = String::from_utf8(text).unwrap().chars().filter(|c| c.is_ascii_digit() || *c == 'T').collect();
    let (day, time) = (&digits[..8], format!("{}Z", &digits[..15]));
    // What is signed is the path as it is understood.
    let path = path.replace("%2e", ".").replace("%2E", ".");
    let names = "host;x-amz-content-sha256;x-amz-date";
    let canonical = format!(
        "{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:{time}\n\n{names}\n\
         UNSIGNED-PAYLOAD"
    );
    let scope = format!("{day}/us-east-1/s3/aws4_request");
    let what = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::checksum(canonical.as_bytes())));
    let secret = format!("AWS4{}", key.1).into_bytes();
    let signing = [day, "us-east-1", "s3", "aws4_request"].iter().fold(secret, |key, part| hmac(&key, part.as_bytes()));
    let signature = hex(&hmac(&signing, what.as_bytes()));
    let credential = format!("AWS4-HMAC-SHA256 Credential={}/{scope}", key.0);
    (time, format!("{credential}, SignedHeaders={names}, Signature={signature}"))
}

/// HMAC-SHA256 with a key of at most a block.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let pad = |with: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::checksum(&[pad(0x36).as_slice(), text].concat());
    Sha256::checksum(&[pad(0x5c).as_slice(), inner.as_ref()].concat()).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
