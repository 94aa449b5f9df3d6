//! Shares of a slot's secret (Shamir, over GF(2^8)): any `threshold` of them open the slot, fewer say nothing.
//!
//! Each share is text with its own checksum and says its number, the threshold and the slot, so that a typing error is
//! noticed at once and shares of two slots are never mixed.

use crate::error::{FormatError, Result};
use crate::ids::SlotId;
use crate::letters;
use rand_core::CryptoRng;
use vsss_rs::Gf256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const SECRET_BYTES: usize = 32;
const BODY_BYTES: usize = SlotId::BYTES + 3 + SECRET_BYTES;
/// Body and checksum are 50 bytes, so 80 letters.
const CHECK_BYTES: usize = 7;
pub(crate) const CONTEXT_CHECK: &str = "holdfast share v1 2026-11 checksum";
const WHAT: &str = "share";

/// The most shares of one slot.
pub const SHARES_MAX: u8 = 32;

/// One share. Alone it says nothing about the secret.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Share {
    #[zeroize(skip)]
    pub slot: SlotId,
    /// How many shares open the slot.
    pub threshold: u8,
    /// How many shares there are.
    pub total: u8,
    /// Which one this is, from 1.
    pub number: u8,
    value: [u8; SECRET_BYTES],
}

/// Refuses counts that protect nothing or that nobody could hand out.
pub(crate) fn check_counts(threshold: u8, total: u8) -> Result<()> {
    if (2..=total).contains(&threshold) && total <= SHARES_MAX {
        Ok(())
    } else {
        Err(FormatError::Limit { what: "number of shares (2 to 32, at least 2 of them needed)" })
    }
}

/// Splits a new random secret.
pub(crate) fn split<R: CryptoRng + ?Sized>(rng: &mut R, slot: SlotId, threshold: u8, total: u8) -> Result<Vec<Share>> {
    check_counts(threshold, total)?;
    let mut secret = Zeroizing::new([0u8; SECRET_BYTES]);
    rng.fill_bytes(secret.as_mut_slice());
    let split = Gf256::split_bytes(usize::from(threshold), usize::from(total), secret.as_slice(), rng);
    let parts = Zeroizing::new(split.map_err(|_| FormatError::Invalid { what: WHAT })?);
    let share = |part: &Vec<u8>| {
        let (number, value) = part.split_first()?;
        Some(Share { slot, threshold, total, number: *number, value: value.try_into().ok()? })
    };
    let shares: Option<Vec<Share>> = parts.iter().map(share).collect();
    shares.ok_or(FormatError::Invalid { what: WHAT })
}

/// Joins shares; what is wrong with the set is named.
pub(crate) fn combine(shares: &[Share]) -> Result<Zeroizing<Vec<u8>>> {
    let refuse = |why| Err(FormatError::Invalid { what: why });
    let first = shares.first().ok_or(FormatError::Invalid { what: "set of shares (it is empty)" })?;
    if shares.iter().any(|share| share.slot != first.slot) {
        return refuse("set of shares (they belong to different slots)");
    }
    if shares.iter().any(|share| (share.threshold, share.total) != (first.threshold, first.total)) {
        return refuse("set of shares (they name different thresholds)");
    }
    let twice = |at: usize, share: &Share| shares.iter().skip(at + 1).any(|other| other.number == share.number);
    if shares.iter().enumerate().any(|(at, share)| twice(at, share)) {
        return refuse("set of shares (one is given twice)");
    }
    if shares.len() < usize::from(first.threshold) {
        return refuse("set of shares (more are needed)");
    }
    let parts: Zeroizing<Vec<Vec<u8>>> = Zeroizing::new(
        shares
            .iter()
            .take(usize::from(first.threshold))
            .map(|share| [&[share.number], share.value.as_slice()].concat())
            .collect(),
    );
    Gf256::combine_bytes(parts.as_slice()).map(Zeroizing::new).map_err(|_| FormatError::Invalid { what: WHAT })
}

impl Share {
    fn body(&self) -> Zeroizing<[u8; BODY_BYTES]> {
        let mut body = Zeroizing::new([0u8; BODY_BYTES]);
        let (slot, rest) = body.split_at_mut(SlotId::BYTES);
        slot.copy_from_slice(self.slot.as_bytes());
        let (counts, value) = rest.split_at_mut(3);
        counts.copy_from_slice(&[self.threshold, self.total, self.number]);
        value.copy_from_slice(&self.value);
        body
    }

    /// Sixteen groups of five letters. A checksum of 56 bits catches typing errors.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let body = self.body();
        letters::to_text(body.as_slice(), &letters::checksum::<CHECK_BYTES>(CONTEXT_CHECK, body.as_slice()))
    }

    /// Reads what a person typed.
    pub fn from_text(text: &str) -> Result<Self> {
        const BAD: FormatError = FormatError::Invalid { what: "share (a letter is missing or mistyped)" };
        let bytes = letters::from_text(text, BODY_BYTES + CHECK_BYTES).ok_or(BAD)?;
        let (body, check) = bytes.split_at_checked(BODY_BYTES).ok_or(BAD)?;
        if check != letters::checksum::<CHECK_BYTES>(CONTEXT_CHECK, body) {
            return Err(BAD);
        }
        let mut reader = crate::wire::Reader::new(body, WHAT);
        let slot = SlotId(reader.array()?);
        let (threshold, total, number) = (reader.u8()?, reader.u8()?, reader.u8()?);
        let share = Self { slot, threshold, total, number, value: reader.array()? };
        reader.end()?;
        check_counts(threshold, total)?;
        if (1..=total).contains(&number) { Ok(share) } else { Err(FormatError::Invalid { what: WHAT }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rng;

    const SLOT: SlotId = SlotId([7; 8]);

    fn shares(seed: u64, threshold: u8, total: u8) -> Vec<Share> {
        split(&mut rng(seed), SLOT, threshold, total).unwrap()
    }

    fn why(shares: &[&Share]) -> String {
        let owned: Vec<Share> = shares.iter().map(|share| (*share).clone()).collect();
        combine(&owned).unwrap_err().to_string()
    }

    #[test]
    fn any_threshold_of_the_shares_gives_the_secret_and_wrong_sets_are_named() {
        let all = shares(1, 3, 5);
        let secret = combine(&all).unwrap();
        for (a, b, c) in [(0, 1, 2), (4, 2, 0), (1, 3, 4)] {
            assert!(*combine(&[all[a].clone(), all[b].clone(), all[c].clone()]).unwrap() == *secret);
        }
        assert!(why(&[&all[0], &all[1]]).contains("more are needed"));
        assert!(why(&[&all[0], &all[1], &all[0]]).contains("given twice"));
        assert!(why(&[]).contains("empty"));
        let mut other = shares(2, 3, 5).swap_remove(2);
        assert!(*combine(&[all[0].clone(), all[1].clone(), other.clone()]).unwrap() != *secret);
        other.slot = SlotId([8; 8]);
        assert!(why(&[&all[0], &all[1], &other]).contains("different slots"));
        let two_of_five = shares(2, 2, 5).swap_remove(2);
        assert!(why(&[&all[0], &all[1], &two_of_five]).contains("different thresholds"));
        for (threshold, total) in [(0, 3), (1, 3), (4, 3), (2, 33)] {
            assert!(split(&mut rng(1), SLOT, threshold, total).is_err());
        }
    }

    #[test]
    fn every_mistyped_letter_of_a_share_is_noticed() {
        let share = shares(3, 2, 3).swap_remove(1);
        let text = share.to_text();
        assert_eq!(text.len(), 80 + 15);
        let back = Share::from_text(&text.to_lowercase().replace('-', "  ")).unwrap();
        assert!((back.slot, back.threshold, back.total, back.number) == (SLOT, 2, 3, 2) && back.value == share.value);
        for at in (0..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
            for letter in letters::ALPHABET.iter().filter(|letter| **letter != text.as_bytes()[at]) {
                let mut wrong = text.as_bytes().to_vec();
                wrong[at] = *letter;
                assert!(Share::from_text(std::str::from_utf8(&wrong).unwrap()).is_err());
            }
        }
        assert!(Share::from_text(&text[..text.len() - 1]).is_err());
        assert!(Share::from_text(&format!("{}7", text.as_str())).is_err());
    }

    /// Of two needed, one share must be uniform whatever the secret: biased or never-zero coefficients once broke others.
    #[test]
    fn one_share_alone_takes_every_value_alike() {
        let mut rng = rng(4);
        let mut seen = [0u32; 256];
        for _ in 0..400 {
            let all = split(&mut rng, SLOT, 2, 2).unwrap();
            let secret = combine(&all).unwrap();
            for (value, secret) in all[0].value.iter().zip(secret.iter()) {
                // At number 1 the share is secret + coefficient.
                seen[usize::from(value ^ secret)] += 1;
            }
        }
        let expected = 400.0 * 32.0 / 256.0;
        let chi: f64 = seen.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
        // 255 degrees of freedom: above 400 or below 150 is not chance.
        assert!((150.0..400.0).contains(&chi) && seen.iter().all(|n| *n > 0), "{chi}");
    }
}
