//! Patterns of names: `*` and `?` stay within a name, `**` crosses slashes, `[a-z]` and `[!a-z]` are one byte of a set.

use crate::error::{Error, ErrorKind, Result};

/// A longer pattern is a mistake.
const PATTERN_BYTES_MAX: usize = 4096;

/// A pattern over bytes: names need not be UTF-8.
#[derive(Debug, Clone)]
pub struct Glob {
    parts: Vec<Part>,
    fold: bool,
    whole_path: bool,
}

#[derive(Debug, Clone)]
enum Part {
    Byte(u8),
    One,
    Set { ranges: Vec<(u8, u8)>, negated: bool },
    Many(Reach),
}

/// What a star stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Bytes of one name.
    Name,
    /// Whole directories with their slashes, or none.
    Directories,
    Anything,
}

impl Glob {
    /// Reads a pattern. One with a slash is held against the whole path, one without against the last name.
    pub fn parse(pattern: &[u8], ignore_case: bool) -> Result<Self> {
        let wrong = |what: &str| Error::new(ErrorKind::Misconfigured, format!("the pattern {what}"));
        if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
            return Err(wrong("is empty or too long"));
        }
        let (mut parts, mut rest) = (Vec::new(), pattern);
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            parts.push(match (byte, after) {
                (b'*', [b'*', after @ ..]) => {
                    let begins = matches!(parts.last(), None | Some(Part::Byte(b'/')));
                    match after.strip_prefix(b"/").filter(|_| begins) {
                        Some(after) => {
                            rest = after;
                            Part::Many(Reach::Directories)
                        }
                        None => {
                            rest = after;
                            Part::Many(Reach::Anything)
                        }
                    }
                }
                (b'*', _) => Part::Many(Reach::Name),
                (b'?', _) => Part::One,
                (b'\\', [literal, after @ ..]) => {
                    rest = after;
                    Part::Byte(*literal)
                }
                (b'\\', []) => return Err(wrong("ends with a backslash that escapes nothing")),
                (b'[', _) => {
                    let (set, after) = set(after).ok_or_else(|| wrong("has a `[` without its `]`"))?;
                    rest = after;
                    set
                }
                (byte, _) => Part::Byte(*byte),
            });
        }
        Ok(Self { parts, fold: ignore_case, whole_path: pattern.contains(&b'/') })
    }

    /// Whether a path, or its last name, fits.
    #[must_use]
    pub fn fits(&self, path: &[u8]) -> bool {
        let text = if self.whole_path { path } else { path.rsplit(|byte| *byte == b'/').next().unwrap_or(path) };
        self.matches(text)
    }

    /// Two steps back suffice: a later star makes an earlier choice of the same or a shorter reach irrelevant.
    fn matches(&self, text: &[u8]) -> bool {
        let (mut part, mut at) = (0, 0);
        let mut retry: Vec<(usize, usize, Reach)> = Vec::new();
        loop {
            let byte = text.get(at);
            let goes_on = match (self.parts.get(part), byte) {
                (None, None) => return true,
                (Some(Part::Many(reach)), _) => {
                    retry.retain(|(_, _, before)| *reach == Reach::Name && *before != Reach::Name);
                    retry.push((part, at, *reach));
                    part += 1;
                    true
                }
                (Some(one), Some(byte)) if self.takes(one, *byte) => {
                    part += 1;
                    at += 1;
                    true
                }
                _ => false,
            };
            if goes_on {
                continue;
            }
            // The nearest star takes more.
            loop {
                let Some((star, from, reach)) = retry.pop() else { return false };
                let rest = text.get(from..).unwrap_or_default();
                let more = match reach {
                    Reach::Name => rest.first().is_some_and(|byte| *byte != b'/').then_some(1),
                    Reach::Anything => (!rest.is_empty()).then_some(1),
                    Reach::Directories => rest.iter().position(|byte| *byte == b'/').map(|slash| slash + 1),
                };
                if let Some(more) = more {
                    retry.push((star, from + more, reach));
                    (part, at) = (star + 1, from + more);
                    break;
                }
            }
        }
    }

    fn takes(&self, part: &Part, byte: u8) -> bool {
        let fold = |byte: u8| if self.fold { byte.to_ascii_lowercase() } else { byte };
        match part {
            Part::Byte(wanted) => fold(*wanted) == fold(byte),
            Part::One => byte != b'/',
            Part::Set { ranges, negated } => {
                let within = |byte: u8| ranges.iter().any(|(from, to)| (*from..=*to).contains(&byte));
                let found = within(byte)
                    || self.fold && (within(byte.to_ascii_lowercase()) || within(byte.to_ascii_uppercase()));
                byte != b'/' && found != *negated
            }
            Part::Many(_) => false,
        }
    }
}

/// A set after its `[`, and what follows its `]`.
fn set(text: &[u8]) -> Option<(Part, &[u8])> {
    let (negated, mut rest) = match text {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut ranges = Vec::new();
    loop {
        rest = match rest {
            [b']', rest @ ..] if !ranges.is_empty() => return Some((Part::Set { ranges, negated }, rest)),
            [from, b'-', to, rest @ ..] if *to != b']' => {
                ranges.push((*from, *to));
                rest
            }
            [byte, rest @ ..] => {
                ranges.push((*byte, *byte));
                rest
            }
            [] => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;

    fn fits(pattern: &str, path: &str) -> bool {
        Glob::parse(pattern.as_bytes(), false).unwrap().fits(path.as_bytes())
    }

    #[test]
    fn patterns_mean_what_a_shell_means() {
        for (pattern, path) in [
            ("*.pdf", "a/b/letter.pdf"),
            ("letter-?.txt", "letter-7.txt"),
            ("a/*/c", "a/b/c"),
            ("a/**/c", "a/c"),
            ("a/**/c", "a/x/y/c"),
            ("**/c", "c"),
            ("**/*.txt", "a/b/x.txt"),
            ("*a*b*", "xxaxxbxx"),
            ("[a-c]x[!0-9]", "bxz"),
            ("[]]", "]"),
            ("\\*", "*"),
            ("**", "any/thing"),
            ("a/*b*/**/x*y", "a/1b2/3/4/xxy"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.pdf", "a.pdf/b"),
            ("a/*/c", "a/b/d/c"),
            ("a?c", "a/c"),
            ("[!a]", "a"),
            ("\\*", "x"),
            ("a/**/c", "a/b/cd"),
            ("a/**/c", "a/bc"),
            ("**/c", "bc"),
            ("letter", "letters"),
            ("a/[!x]", "a//"),
        ] {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
        assert!(Glob::parse(b"*.PDF", true).unwrap().fits(b"scan.pdf"));
        assert!(Glob::parse(b"[A-C]*", true).unwrap().fits(b"b"));
        for broken in ["", "[a", "x\\", "[!"] {
            assert!(Glob::parse(broken.as_bytes(), false).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        let name = [b"a".repeat(2000), b"c".to_vec()].concat();
        assert!(!Glob::parse(&b"*a".repeat(500), false).unwrap().fits(&[&name[..], b"/"].concat()));
        assert!(!Glob::parse(&[b"*a".repeat(200), b"*b".to_vec()].concat(), false).unwrap().fits(&name));
    }
}
