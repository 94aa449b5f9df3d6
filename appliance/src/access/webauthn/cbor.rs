//! The part of CBOR (RFC 8949) that authenticators write: definite lengths, integers, bytes, texts, lists, maps.

/// Levels of lists and maps in each other; an attestation has four.
const DEPTH_MAX: u32 = 8;
/// Entries of one list or map.
const ENTRIES_MAX: u64 = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Int(i64),
    Bytes(Vec<u8>),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// `false`, `true`, `null`: nothing here looks at which.
    Simple,
}

impl Value {
    pub fn bytes(&self) -> Option<&[u8]> {
        if let Value::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    pub fn int(&self) -> Option<i64> {
        if let Value::Int(number) = self { Some(*number) } else { None }
    }

    /// The value of a key of a map.
    pub fn of(&self, key: &Value) -> Option<&Value> {
        let Value::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

/// The first value of `input`, and what follows it. `None` for anything that is not the above.
pub fn first(input: &[u8]) -> Option<(Value, &[u8])> {
    value(input, DEPTH_MAX)
}

fn value(input: &[u8], depth: u32) -> Option<(Value, &[u8])> {
    let depth = depth.checked_sub(1)?;
    let (major, argument, rest) = head(input)?;
    let take = |rest: &'_ [u8]| -> Option<(usize, usize)> {
        let len = usize::try_from(argument).ok()?;
        (len <= rest.len()).then_some((len, rest.len()))
    };
    Some(match major {
        0 => (Value::Int(i64::try_from(argument).ok()?), rest),
        1 => (Value::Int((-1i64).checked_sub(i64::try_from(argument).ok()?)?), rest),
        2 | 3 => {
            let (bytes, rest) = rest.split_at_checked(take(rest)?.0)?;
            let found = match major {
                2 => Value::Bytes(bytes.to_vec()),
                _ => Value::Text(std::str::from_utf8(bytes).ok()?.to_owned()),
            };
            (found, rest)
        }
        4 | 5 if argument <= ENTRIES_MAX => entries(major, argument, rest, depth)?,
        7 if (20..=22).contains(&argument) => (Value::Simple, rest),
        _ => return None,
    })
}

fn entries(major: u8, count: u64, mut rest: &[u8], depth: u32) -> Option<(Value, &[u8])> {
    let (mut list, mut map) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (first, after) = value(rest, depth)?;
        rest = after;
        if major == 4 {
            list.push(first);
            continue;
        }
        // A key that comes twice could mean one thing to us and another to somebody else.
        if map.iter().any(|(key, _)| *key == first) {
            return None;
        }
        let (second, after) = value(rest, depth)?;
        rest = after;
        map.push((first, second));
    }
    Some((if major == 4 { Value::List(list) } else { Value::Map(map) }, rest))
}

/// Major type, argument and what follows.
fn head(input: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (first, rest) = input.split_first()?;
    let (major, short) = (first >> 5, first & 31);
    let bytes = match short {
        0..=23 => return Some((major, u64::from(short), rest)),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return None,
    };
    // Simple values and floating point have no such arguments here.
    let (argument, rest) = rest.split_at_checked(bytes).filter(|_| major != 7)?;
    Some((major, argument.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Option<Value> {
        first(&hex::decode(text).unwrap()).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
    }

    /// From appendix A of RFC 8949.
    #[test]
    fn reads_the_examples_of_the_standard() {
        for (text, expected) in [
            ("00", Value::Int(0)),
            ("1864", Value::Int(100)),
            ("1a000f4240", Value::Int(1_000_000)),
            ("20", Value::Int(-1)),
            ("3903e7", Value::Int(-1000)),
            ("4401020304", Value::Bytes(vec![1, 2, 3, 4])),
            ("6161", Value::Text("a".into())),
            ("62c3bc", Value::Text("ü".into())),
            ("f4", Value::Simple),
            ("83010203", Value::List(vec![Value::Int(1), Value::Int(2), Value::Int(3)])),
            ("a201020304", Value::Map(vec![(Value::Int(1), Value::Int(2)), (Value::Int(3), Value::Int(4))])),
        ] {
            assert_eq!(of(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        // No end, floats, tags, a double key, no UTF-8, a number beyond i64, and more than there is.
        for text in
            ["5f42010243030405ff", "f93c00", "c074", "a201020103", "61ff", "1bffffffffffffffff", "4401", "18", ""]
        {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(of(&format!("{}00", "81".repeat(7))), of(&format!("{}00", "81".repeat(7))));
        assert_eq!(of(&format!("{}00", "81".repeat(100))), None, "lists in lists without end");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = first(&bytes);
        }
    }
}
