//! Randomness for tests: a BLAKE3 stream from a seed.

use core::convert::Infallible;
use rand_core::{TryCryptoRng, TryRng};

/// A seeded generator.
pub struct SeededRng(blake3::OutputReader);

/// The generator of one seed.
pub fn rng(seed: u64) -> SeededRng {
    SeededRng(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
}

impl TryRng for SeededRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(dst);
        Ok(())
    }
}

impl TryCryptoRng for SeededRng {}
