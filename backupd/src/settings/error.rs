//! What is wrong with a settings file, so that the reader can mend it: the file, the key, the remedy.

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error("{}: {}{problem}: {remedy}", file.display(), key_colon(.key))]
pub struct SettingsError {
    pub file: PathBuf,
    /// The key, dotted, or empty when the file as a whole is meant.
    pub key: String,
    pub problem: String,
    pub remedy: String,
}

fn key_colon(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("`{key}`: ") }
}

impl SettingsError {
    pub fn new(file: &Path, key: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file: file.to_owned(), key: key.into(), problem: problem.into(), remedy: remedy.into() }
    }

    /// From the parser's error: its message names what was expected; the line tells where.
    pub fn from_toml(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let wrong = service::settings::Wrong::new(text, error);
        let problem = format!("line {}: {}", wrong.line, wrong.problem);
        let remedy = if error.message().contains("unknown field") {
            "remove the key or correct its spelling"
        } else if error.message().contains("missing field") {
            "add the key"
        } else {
            "correct the value"
        };
        Self::new(file, wrong.key.unwrap_or_default(), problem, remedy)
    }
}
