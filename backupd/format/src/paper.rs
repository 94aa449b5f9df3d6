//! The paper recovery key: 160 random bits and a checksum, in letters that survive handwriting.

use crate::error::{FormatError, Result};
use crate::letters;
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const SECRET_BYTES: usize = 20;
const CHECK_BYTES: usize = 5;
pub(crate) const CONTEXT_CHECK: &str = "holdfast paper key v1 2026-11 checksum";

/// A key to be printed and locked away. It opens the keyring as a passphrase does.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PaperKey([u8; SECRET_BYTES]);

impl PaperKey {
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut secret = [0u8; SECRET_BYTES];
        rng.fill_bytes(&mut secret);
        Self(secret)
    }

    pub(crate) fn expose(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// Eight groups of five letters. A checksum of 40 bits catches typing errors.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        letters::to_text(&self.0, &checksum(&self.0))
    }

    /// Reads what a person typed: any case, spaces and dashes ignored, O read as 0, I and L as 1.
    pub fn from_text(text: &str) -> Result<Self> {
        const BAD: FormatError = FormatError::Invalid { what: "paper key (a letter is missing or mistyped)" };
        let bytes = letters::from_text(text, SECRET_BYTES + CHECK_BYTES).ok_or(BAD)?;
        let (secret, check) = bytes.split_first_chunk::<SECRET_BYTES>().ok_or(BAD)?;
        if check != checksum(secret) {
            return Err(BAD);
        }
        Ok(Self(*secret))
    }
}

fn checksum(secret: &[u8; SECRET_BYTES]) -> [u8; CHECK_BYTES] {
    letters::checksum(CONTEXT_CHECK, secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letters::ALPHABET;
    use crate::testing::rng;

    #[test]
    fn every_single_mistyped_letter_is_noticed() {
        let key = PaperKey::generate(&mut rng(1));
        let text = key.to_text();
        assert_eq!(text.len(), 40 + 7);
        assert!(PaperKey::from_text(&text).is_ok_and(|back| back.0 == key.0));
        let forgiving = text.to_lowercase().replace('0', "o").replace('1', "l").replace('-', " ");
        assert!(PaperKey::from_text(&forgiving).is_ok_and(|back| back.0 == key.0));
        for at in (0..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
            for letter in ALPHABET.iter().filter(|letter| **letter != text.as_bytes()[at]) {
                let mut wrong = text.as_bytes().to_vec();
                wrong[at] = *letter;
                assert!(PaperKey::from_text(std::str::from_utf8(&wrong).unwrap()).is_err());
            }
        }
        assert!(PaperKey::from_text(&text[..text.len() - 1]).is_err());
        assert!(PaperKey::from_text(&format!("{}7", text.as_str())).is_err());
    }
}
