//! Secrets in letters that survive handwriting: Crockford's base 32 with a checksum, in groups of five.

use zeroize::Zeroizing;

/// Crockford's base 32: no I, L, O, U.
pub(crate) const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUP: usize = 5;

/// `secret` and its checksum; together they must be a multiple of five bytes.
pub(crate) fn to_text(secret: &[u8], check: &[u8]) -> Zeroizing<String> {
    let letters = (secret.len() + check.len()) * 8 / 5;
    let mut text = Zeroizing::new(String::with_capacity(letters + letters / GROUP));
    let (mut buffer, mut bits, mut count) = (0u32, 0u32, 0usize);
    for byte in secret.iter().chain(check) {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            if count > 0 && count.is_multiple_of(GROUP) {
                text.push('-');
            }
            let letter = ALPHABET.get((buffer >> bits & 31) as usize).copied().unwrap_or(b'0');
            text.push(char::from(letter));
            count += 1;
        }
        buffer &= (1 << bits) - 1;
    }
    text
}

/// The bytes that a person typed: any case, spaces and dashes ignored, O read as 0, I and L as 1. `None` when there are
/// not exactly `bytes` of them or a letter is none of the alphabet.
pub(crate) fn from_text(text: &str, bytes: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(bytes));
    let (mut buffer, mut bits) = (0u32, 0u32);
    for letter in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let letter = match letter.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let value = ALPHABET.iter().position(|known| char::from(*known) == letter)?;
        buffer = (buffer << 5) | value as u32;
        bits += 5;
        if bits >= 8 {
            if out.len() == bytes {
                return None;
            }
            bits -= 8;
            out.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    (out.len() == bytes && bits == 0).then_some(out)
}

/// The first `N` bytes of a hash that tells mistyped letters.
pub(crate) fn checksum<const N: usize>(context: &str, secret: &[u8]) -> [u8; N] {
    let mut check = [0u8; N];
    blake3::Hasher::new_derive_key(context).update(secret).finalize_xof().fill(&mut check);
    check
}
