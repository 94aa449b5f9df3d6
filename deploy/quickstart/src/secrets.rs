//! Passwords and keys that a person may have to type.

use crate::ambient;

/// 32 letters and digits that cannot be taken for one another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const GROUPS: usize = 5;
const GROUP_LETTERS: usize = 4;

/// 100 random bits as five groups of four: `k3fa-9mzp-...`.
pub fn password() -> anyhow::Result<String> {
    let mut bytes = [0; GROUPS * GROUP_LETTERS];
    ambient::random(&mut bytes)?;
    let groups: Vec<String> =
        bytes.chunks(GROUP_LETTERS).map(|group| group.iter().map(|byte| letter(*byte)).collect()).collect();
    Ok(groups.join("-"))
}

/// `bytes` random bytes as hex.
pub fn hex_key(bytes: usize) -> anyhow::Result<String> {
    let mut key = vec![0; bytes];
    ambient::random(&mut key)?;
    Ok(hex::encode(key))
}

/// 256 is a multiple of 32, so every letter is equally likely.
fn letter(byte: u8) -> char {
    char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_password_has_a_hundred_bits() {
        assert_eq!(ALPHABET.iter().collect::<BTreeSet<_>>().len(), 32);
        let many: BTreeSet<String> = (0..100).map(|_| password().unwrap()).collect();
        assert_eq!(many.len(), 100);
        let one = many.first().unwrap();
        assert_eq!(one.len(), 24);
        assert!(one.bytes().all(|byte| byte == b'-' || ALPHABET.contains(&byte)), "{one}");
    }
}
