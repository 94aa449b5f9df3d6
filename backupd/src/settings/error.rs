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
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let key = key_named_in(error.message()).or_else(|| key_of_line(text, line)).unwrap_or_default();
        let problem = format!("line {line}: {}", error.message().trim().replace('\n', " "));
        let remedy = if error.message().contains("unknown field") {
            "remove the key or correct its spelling"
        } else if error.message().contains("missing field") {
            "add the key"
        } else {
            "correct the value"
        };
        Self::new(file, key, problem, remedy)
    }
}

/// `unknown field `x`` and `missing field `x`` name the key themselves.
fn key_named_in(message: &str) -> Option<String> {
    if !message.starts_with("unknown field") && !message.starts_with("missing field") {
        return None;
    }
    message.split('`').nth(1).map(str::to_owned)
}

fn key_of_line(text: &str, line: usize) -> Option<String> {
    let (key, _) = text.lines().nth(line - 1)?.split_once('=')?;
    Some(key.trim().to_owned())
}
