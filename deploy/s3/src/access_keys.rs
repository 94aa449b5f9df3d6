//! The access-key file: who may ask, and for what.

use s3s::auth::SimpleAuth;
use serde::Deserialize;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// More than this is not an access-key file.
const FILE_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum AccessKeyError {
    #[error("{file}: cannot be read ({kind}): pass an existing access-key file with --access-key-file")]
    Read { file: String, kind: std::io::ErrorKind },
    #[error("{file}: others can read it: run chmod 600 on it and replace its keys if others had access")]
    Mode { file: String },
    #[error("{file}: is larger than 64 KiB: that is not an access-key file")]
    Large { file: String },
    #[error("{file}: {problem}: write [[key]] tables with access_key, secret_key (16 letters or more) and may = [...]")]
    Malformed { file: String, problem: String },
}

/// What a key may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Right {
    /// Get, head and list.
    Read,
    /// Put an object that is not there yet.
    Create,
    /// Put over an object that is there.
    Overwrite,
    Delete,
}

/// The rights of every access key.
pub type Rights = HashMap<String, Vec<Right>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    key: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    access_key: String,
    secret_key: String,
    may: Vec<Right>,
}

/// Keys with their secrets. It has no `Debug`.
pub struct AccessKeys(Vec<Key>);

impl AccessKeys {
    pub fn load(path: &Path) -> Result<Self, AccessKeyError> {
        let file = path.display().to_string();
        let read = |e: std::io::Error| AccessKeyError::Read { file: path.display().to_string(), kind: e.kind() };
        let meta = std::fs::metadata(path).map_err(read)?;
        if meta.permissions().mode() & 0o077 != 0 {
            return Err(AccessKeyError::Mode { file });
        }
        if meta.len() > FILE_BYTES_MAX {
            return Err(AccessKeyError::Large { file });
        }
        Self::parse(&file, &std::fs::read_to_string(path).map_err(read)?)
    }

    fn parse(file: &str, text: &str) -> Result<Self, AccessKeyError> {
        let malformed =
            |problem: &str| AccessKeyError::Malformed { file: file.to_owned(), problem: problem.to_owned() };
        // The parser's own message quotes the line, and the line may hold a secret: only its first part is shown.
        let parsed: File = toml::from_str(text).map_err(|e| malformed(e.message()))?;
        if parsed.key.is_empty() {
            return Err(malformed("holds no key"));
        }
        if parsed.key.iter().any(|key| key.access_key.is_empty() || key.secret_key.len() < 16) {
            return Err(malformed("a key has no name or a secret shorter than 16 letters"));
        }
        Ok(Self(parsed.key))
    }

    pub fn rights(&self) -> Rights {
        self.0.iter().map(|key| (key.access_key.clone(), key.may.clone())).collect()
    }

    pub fn into_auth(self) -> SimpleAuth {
        let mut auth = SimpleAuth::new();
        for key in self.0 {
            auth.register(key.access_key, key.secret_key.into());
        }
        auth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_secret_or_an_unknown_right_is_refused() {
        for text in [
            "key = []",
            "[[key]]\naccess_key='a'\nsecret_key='short'\nmay=['read']",
            "[[key]]\naccess_key='a'\nsecret_key='0123456789abcdef'\nmay=['everything']",
            "[[key]]\naccess_key='a'\nsecret_key='0123456789abcdef'\nmay=['read']\ncolour=1",
        ] {
            let message = AccessKeys::parse("k.toml", text).err().expect(text).to_string();
            assert!(message.contains("k.toml") && !message.contains("0123456789abcdef"), "{message}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        std::fs::write(&path, "[[key]]\naccess_key='a'\nsecret_key='0123456789abcdef'\nmay=['read']").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(AccessKeys::load(&path), Err(AccessKeyError::Mode { .. })));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(AccessKeys::load(&path).unwrap().rights()["a"], [Right::Read]);
    }
}
