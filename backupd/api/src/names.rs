//! Rows that hold names of records: only for a holder of the read key, on the verifier's own machine.

use serde::{Deserialize, Serialize};

/// A path of a snapshot. Names need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    pub path: String,
    /// The bytes, where `path` could not say them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
}

impl Name {
    #[must_use]
    pub fn of(path: &[u8]) -> Self {
        let text = String::from_utf8_lossy(path).into_owned();
        let path_hex = (text.as_bytes() != path).then(|| hex(path));
        Self { path: text, path_hex }
    }

    /// The path's bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.path_hex.as_deref().and_then(unhex).unwrap_or_else(|| self.path.clone().into_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// One entry of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LsRow {
    #[serde(flatten)]
    pub name: Name,
    pub kind: String,
    pub bytes: u64,
    pub modified_unix_ms: i64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// What the source machine called them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// Of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Name>,
}

/// A file that a snapshot could not take as it was: denied, vanished, changed, input-output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnreadableRow {
    #[serde(flatten)]
    pub name: Name,
    pub reason: String,
}

/// One entry that differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffRow {
    #[serde(flatten)]
    pub name: Name,
    /// `+` added, `-` removed, `M` modified, `T` of another type, `P` other permissions, owners or attributes, `t` another time only.
    pub mark: char,
    pub kind: String,
    pub bytes_before: Option<u64>,
    pub bytes_after: Option<u64>,
    /// Bytes of a modified file that it did not have before.
    pub bytes_new: u64,
}

/// How many entries differ, and by how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffDone {
    pub added: u64,
    pub removed: u64,
    pub modified: u64,
    pub retyped: u64,
    pub attributes: u64,
    pub times: u64,
    pub bytes_added: u64,
    pub bytes_removed: u64,
    pub bytes_modified: u64,
}

/// What to find; every part that is set must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindWanted {
    /// A pattern; with a slash in it, of the whole path.
    pub name: Option<String>,
    pub ignore_case: bool,
    /// Kinds as in [`LsRow::kind`]; empty: all.
    pub kinds: Vec<String>,
    pub bytes_min: Option<u64>,
    pub bytes_max: Option<u64>,
    pub since_unix_ms: Option<i64>,
    pub until_unix_ms: Option<i64>,
}

/// An entry that fits, and the snapshots that hold it so, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundRow {
    #[serde(flatten)]
    pub entry: LsRow,
    pub snapshots: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn a_name_travels_whatever_its_bytes_are() {
        for bytes in [b"plain".as_slice(), "m\u{fc}ller".as_bytes(), b"not-\xff-utf8/\n", "\u{fffd}".as_bytes()] {
            let name = Name::of(bytes);
            let line = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&line).unwrap().bytes(), bytes, "{line}");
        }
        assert_eq!(Name::of(b"plain").path_hex, None);
    }
}
