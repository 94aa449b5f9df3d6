//! The machine key: a random secret for a file that systemd keeps encrypted (`systemd-creds`, bound to a TPM or not).

use crate::error::{FormatError, Result};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const PREFIX: &str = "holdfast-machine-key-1-";
const WHAT: &str = "machine key";

/// Opens the keyring on one machine. What protects it is whatever protects the file.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MachineKey([u8; 32]);

impl MachineKey {
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut secret = [0u8; 32];
        rng.fill_bytes(&mut secret);
        Self(secret)
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// One line of text.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(hex::encode(self.0));
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + digits.len()));
        text.push_str(PREFIX);
        text.push_str(&digits);
        text
    }

    pub fn from_text(text: &str) -> Result<Self> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(FormatError::NotThis { what: WHAT })?;
        let mut key = Self([0; 32]);
        hex::decode_to_slice(digits, &mut key.0).map_err(|_| FormatError::Invalid { what: WHAT })?;
        Ok(key)
    }
}
