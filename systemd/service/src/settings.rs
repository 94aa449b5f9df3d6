//! Where a settings file is wrong.

/// What the parser's error says of a TOML text. Each program words its own remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub line: usize,
    /// The key that is missing, unknown, or has a wrong value; `None` where the text is no TOML.
    pub key: Option<String>,
    /// One line, as the parser words it.
    pub problem: String,
}

impl Wrong {
    pub fn new(text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let problem = error.message().trim().replace('\n', " ");
        // A missing or unknown key stands in the message itself; a wrong value stands behind its key.
        let named = ["unknown field", "missing field"].iter().any(|begin| problem.starts_with(begin));
        let key = match named {
            true => problem.split('`').nth(1),
            false => text.lines().nth(line - 1).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim()),
        };
        Self { line, key: key.map(str::to_owned), problem }
    }

    /// The key, or a word that stands for none.
    #[must_use]
    pub fn key_or_syntax(&self) -> String {
        self.key.clone().unwrap_or_else(|| "(syntax)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_and_key_are_found() {
        let wrong = |text: &str| Wrong::new(text, &toml::from_str::<toml::Table>(text).unwrap_err());
        let broken = wrong("a = 1\nb = = 2\n");
        assert_eq!((broken.line, broken.key.as_deref()), (2, Some("b")));
        assert_eq!(wrong("a = 1\n[[[\n").key, None);
        assert_eq!(wrong("[[[").key_or_syntax(), "(syntax)");
    }
}
