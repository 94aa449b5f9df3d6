//! What may stand in the address of a store. The clients of the providers build their requests from it and end the program over
//! what is no address, so it is looked at before any of them sees it.

use super::StoreLocation;
use crate::error::{Error, ErrorKind, Result};
use http::Uri;
use url::Url;

/// What is wrong with one part of an address, and what it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The name of the setting.
    pub part: &'static str,
    pub remedy: &'static str,
}

/// The server of a store.
///
/// # Errors
/// What it has to be.
pub fn check_endpoint(endpoint: &str) -> std::result::Result<(), Malformed> {
    let wrong = Malformed { part: "endpoint", remedy: "write it as https://HOST or https://HOST:PORT" };
    // The clients read it both ways, and each takes what the other refuses.
    let uri: Uri = endpoint.parse().map_err(|_| wrong)?;
    let url: Url = endpoint.parse().map_err(|_| wrong)?;
    let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(wrong)?;
    // What follows the host: a number, or nothing. `Uri` takes a port that is none.
    let after = authority.as_str().strip_prefix(authority.host()).ok_or(wrong)?;
    let port_is_right = match after.strip_prefix(':') {
        Some(port) => port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0),
        None => after.is_empty(),
    };
    let is_web = matches!(url.scheme(), "http" | "https");
    let bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if is_web && port_is_right && bare { Ok(()) } else { Err(wrong) }
}

/// A bucket, a container or an account: as its provider lets it be named, old buckets included.
///
/// # Errors
/// What it has to be.
pub fn check_name(part: &'static str, name: &str) -> std::result::Result<(), Malformed> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '$');
    let right = !name.is_empty() && name.len() <= 255 && name.chars().all(is_plain) && !name.starts_with('.');
    let remedy = "give the name alone, as the provider shows it: letters, digits, dots and hyphens";
    if right { Ok(()) } else { Err(Malformed { part, remedy }) }
}

/// What stands before every object's name.
///
/// # Errors
/// What it has to be.
pub fn check_prefix(prefix: &str) -> std::result::Result<(), Malformed> {
    let wrong = Malformed { part: "prefix", remedy: "write it as FOLDER or FOLDER/FOLDER, or leave it out" };
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() || object_store::path::Path::parse(prefix).is_ok() { Ok(()) } else { Err(wrong) }
}

/// What is sent in a header, where nothing but visible characters and blanks may stand.
fn check_header(part: &'static str, secret: &str) -> std::result::Result<(), Malformed> {
    let right = secret.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if right { Ok(()) } else { Err(Malformed { part, remedy: "give it as the provider shows it, in one line" }) }
}

/// Every part of an address. Folders have none.
pub(super) fn check(location: &StoreLocation) -> Result<()> {
    let malformed = |wrong: Malformed| {
        Error::new(ErrorKind::Misconfigured, format!("its {} is malformed: {}", wrong.part, wrong.remedy))
    };
    parts(location).map_err(malformed)
}

fn parts(location: &StoreLocation) -> std::result::Result<(), Malformed> {
    let server = |endpoint: &Option<String>| endpoint.as_deref().map_or(Ok(()), check_endpoint);
    match location {
        StoreLocation::Folder { .. } | StoreLocation::Removable { .. } => Ok(()),
        StoreLocation::S3 { endpoint, bucket, prefix, region, access_key, session_token, .. } => {
            server(endpoint)?;
            check_name("bucket", bucket)?;
            check_name("region", region)?;
            check_prefix(prefix)?;
            check_header("access key", access_key)?;
            session_token.as_deref().map_or(Ok(()), |token| check_header("session token", token))
        }
        StoreLocation::Azure { endpoint, account, container, prefix, .. } => {
            server(endpoint)?;
            check_name("account", account)?;
            check_name("container", container)?;
            check_prefix(prefix)
        }
        StoreLocation::Gcs { endpoint, bucket, prefix, .. } => {
            server(endpoint)?;
            check_name("bucket", bucket)?;
            check_prefix(prefix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_named_before_a_client_sees_it() {
        for right in [
            "https://s3.example.org",
            "http://127.0.0.1:9000",
            "https://[::1]:9000",
            "https://s3.example.org/",
            "http://127.0.0.1:10000/devstoreaccount1",
        ] {
            assert_eq!(check_endpoint(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            " ",
            "foo",
            "s3.example.org",
            "s3.example.org/",
            "localhost:9001",
            "127.0.0.1:9001",
            "https://",
            "https:///x",
            "http://:80",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:0",
            "http://127.0.0.1:",
            "http://[::1",
            "http://127.0.0.1:1 ",
            " http://127.0.0.1:1",
            "ftp://example.org",
            "s3://practice",
            "https://user:word@example.org",
            "https://example.org/?x=1",
            "https://exämple.org",
            "https://exam ple.org",
            "http://192.168.1.300:9001",
            "http://[zz]",
            "http://127.0.0.1:+9001",
            "https://example.org/#x",
            "https://xn--a",
        ] {
            assert_eq!(check_endpoint(wrong).unwrap_err().part, "endpoint", "{wrong}");
        }
        for (name, right) in
            [("practice-backup.v2", true), ("Old_Bucket", true), ("", false), ("a b", false), ("a/b", false)]
        {
            assert_eq!(check_name("bucket", name).is_ok(), right, "{name}");
        }
        for (prefix, right) in [("", true), ("/", true), ("a/b/", true), ("a//b", false), ("../a", false)] {
            assert_eq!(check_prefix(prefix).is_ok(), right, "{prefix}");
        }
    }
}
