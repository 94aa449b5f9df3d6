//! Ids that may be shown outside the practice.

use serde::{Deserialize, Serialize};

/// An id of a host, disk or store: `[A-Za-z0-9._-]{1,64}` and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

#[derive(Debug, thiserror::Error)]
#[error("an id must be 1 to 64 letters, digits, dots, underscores or hyphens")]
pub struct LabelError;

impl Label {
    /// The id of something whose name is missing or cannot be shown.
    pub fn unnamed() -> Self {
        Self("unnamed".to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if fits { Ok(Self(text)) } else { Err(LabelError) }
    }
}

impl std::str::FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        text.to_owned().try_into()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        label.0
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_carry_a_name() {
        for bad in ["", "Jane Doe", "a/b", "é", "a\nb", &"x".repeat(65)] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?}");
        }
        assert!("rack-7.unit_3".parse::<Label>().is_ok());
        assert!(serde_json::from_str::<Label>("\"a b\"").is_err());
    }
}
