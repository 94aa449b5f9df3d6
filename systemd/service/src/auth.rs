//! Mechanisms of signing in: password hashes, one-time codes, session tokens. Nothing here stores or logs anything.

use crate::clock;
use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// argon2id with 64 MiB and three passes: above the second recommendation of RFC 9106 in passes, equal in memory.
const ARGON2_KIB: u32 = 64 << 10;
const ARGON2_PASSES: u32 = 3;
const ARGON2_LANES: u32 = 1;
/// A stored hash that asks for more than this was not made here.
const ARGON2_KIB_MAX: u32 = 1 << 20;
const SALT_BYTES: usize = 16;
/// RFC 4226 recommends 160 bits.
const TOTP_SECRET_BYTES: usize = 20;
const TOTP_STEP_S: u64 = 30;
/// A code is good so many steps before and after its own.
const TOTP_SKEW_STEPS: u64 = 1;
/// The last used step lies at most this far after the step of a code that fits now: one early code, then one late. What
/// lies further ahead was stored while the clock was wrong, and locks nobody out until the time catches up.
///
/// This leaves a replay open: a code that was used while the clock was ahead is good once more when its real time comes,
/// and codes used in the minutes by which a clock was set back are good once more in those minutes. Whoever uses that
/// needs the password, must have seen the code, and must be there within its 90 seconds; only who rules the machine's
/// clock can bring it about. A practice that cannot reach its records is the greater harm.
pub const TOTP_STEPS_AHEAD_MAX: u32 = 2;
/// A stored "hash" that no password fits, like `!` in /etc/shadow.
const LOCKED: &str = "!";

/// Hashes a password as an argon2id PHC string with a fresh salt. Takes about 0.1 s of one core and 64 MiB: call it
/// where blocking is allowed.
pub fn hash_password(password: &str) -> String {
    let salt: [u8; SALT_BYTES] = random();
    // The parameters are constants and the lengths are within limits, so this cannot fail; if it ever did, the account
    // would be locked rather than open.
    Params::new(ARGON2_KIB, ARGON2_PASSES, ARGON2_LANES, None)
        .map(|params| Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
        .ok()
        .and_then(|argon2| argon2.hash_password_with_salt(password.as_bytes(), &salt).ok())
        .map_or_else(|| LOCKED.to_owned(), |hash| hash.to_string())
}

/// Whether `password` fits the PHC string `hash`, with the parameters that the string names. Blocks like
/// [`hash_password`]; to hide whether an account exists, verify against some hash also when there is none.
pub fn verify_password(password: &str, hash: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(hash) else { return false };
    let modest = Params::try_from(&parsed).is_ok_and(|params| params.m_cost() <= ARGON2_KIB_MAX);
    modest && Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok()
}

/// Time-based one-time codes (RFC 6238: SHA-1, 6 digits, 30 s), which every authenticator program understands.
/// Secrets are base32 text without padding.
pub struct Totp;

impl Totp {
    /// A fresh secret of 160 bits.
    pub fn generate_secret() -> String {
        BASE32_NOPAD.encode(&random::<TOTP_SECRET_BYTES>())
    }

    /// The code of this moment; `None` when `secret` is not base32 of 160 bits.
    pub fn current_code(secret: &str) -> Option<String> {
        Self::code_at(secret, clock::unix_s())
    }

    /// Checks a code of this moment, one step early or late. Returns the step that it belongs to: store it, and pass it
    /// as `last_step` next time, so that no code is accepted twice (but see [`TOTP_STEPS_AHEAD_MAX`]).
    pub fn verify(secret: &str, code: &str, last_step: Option<u64>) -> Option<u64> {
        Self::verify_at(secret, code, last_step, clock::unix_s())
    }

    /// The address that an authenticator program scans.
    pub fn otpauth_url(secret: &str, issuer: &str, account: &str) -> String {
        let (issuer, account) = (percent_encoded(issuer), percent_encoded(account));
        format!("otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}")
    }

    fn code_at(secret: &str, unix_s: u64) -> Option<String> {
        Some(generator(secret)?.generate(unix_s).to_string())
    }

    fn verify_at(secret: &str, code: &str, last_step: Option<u64>, unix_s: u64) -> Option<u64> {
        let generator = generator(secret)?;
        let now = unix_s / TOTP_STEP_S;
        // All three are compared every time: how long it takes says nothing about which one fitted.
        let mut found = None;
        for step in now.saturating_sub(TOTP_SKEW_STEPS)..=now.saturating_add(TOTP_SKEW_STEPS) {
            let expected = Zeroizing::new(generator.generate(step.saturating_mul(TOTP_STEP_S)).to_string());
            let fresh =
                last_step.is_none_or(|last| step > last || last > step.saturating_add(TOTP_STEPS_AHEAD_MAX.into()));
            if constant_time_eq(expected.as_bytes(), code.as_bytes()) && fresh {
                found = found.or(Some(step));
            }
        }
        found
    }
}

/// 256 random bits as base64url: a session, an invitation, a CSRF token.
pub fn random_token() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

/// What is stored of a token: its SHA-256. A token has 256 random bits, so a slow hash would add nothing.
pub fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Whether both are equal, in a time that depends on their lengths only.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

fn generator(secret: &str) -> Option<totp_rs::Totp> {
    let bytes = Zeroizing::new(BASE32_NOPAD.decode(secret.trim_end_matches('=').as_bytes()).ok()?);
    let bytes: [u8; TOTP_SECRET_BYTES] = bytes.as_slice().try_into().ok()?;
    totp_rs::Builder::new().with_secret(bytes).with_step_duration(TOTP_STEP_S).build().ok()
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::disallowed_methods, reason = "the one place where this crate takes randomness")]
    let filled = getrandom::fill(&mut bytes);
    if filled.is_err() {
        // A predictable token would open every door; a kernel without randomness ends the service instead.
        log::error!("random.unavailable");
        std::process::abort();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238 appendix B, SHA-1; its codes have eight digits, of which the last six are ours.
    const RFC_SECRET: &[u8] = b"12345678901234567890";
    const RFC_VECTORS: [(u64, &str); 6] = [
        (59, "94287082"),
        (1_111_111_109, "07081804"),
        (1_111_111_111, "14050471"),
        (1_234_567_890, "89005924"),
        (2_000_000_000, "69279037"),
        (20_000_000_000, "65353130"),
    ];

    #[test]
    fn codes_are_those_of_rfc_6238() {
        let secret = BASE32_NOPAD.encode(RFC_SECRET);
        for (time, code) in RFC_VECTORS {
            assert_eq!(Totp::code_at(&secret, time).unwrap(), code[2..], "at {time}");
        }
    }

    #[test]
    fn a_code_is_good_one_step_around_and_only_once() {
        let secret = Totp::generate_secret();
        let now = 1_700_000_010;
        let step = now / TOTP_STEP_S;
        for (time, good) in [(now - 60, false), (now - 30, true), (now, true), (now + 30, true), (now + 60, false)] {
            let code = Totp::code_at(&secret, time).unwrap();
            let found = Totp::verify_at(&secret, &code, None, now);
            assert_eq!(found, good.then_some(time / TOTP_STEP_S), "code of {time}");
        }
        let code = Totp::code_at(&secret, now).unwrap();
        assert_eq!(Totp::verify_at(&secret, &code, Some(step), now), None, "a code was accepted twice");
        assert_eq!(Totp::verify_at(&secret, &code, Some(step - 1), now), Some(step));
        assert_eq!(Totp::verify_at(&secret, "+12345", None, now), None);
        assert_eq!(Totp::verify_at("not base32!", &code, None, now), None);
        assert_eq!(Totp::verify_at("", &code, None, now), None);
        let live = Totp::current_code(&secret).unwrap();
        assert!(Totp::verify(&secret, &live, None).is_some());
    }

    #[test]
    fn a_step_from_a_clock_that_was_ahead_locks_nobody_out() {
        let secret = Totp::generate_secret();
        let now = 1_700_000_010;
        let step = now / TOTP_STEP_S;
        let code = Totp::code_at(&secret, now).unwrap();
        for ahead in [3, 2_880, u64::MAX - step] {
            assert_eq!(Totp::verify_at(&secret, &code, Some(step + ahead), now), Some(step), "{ahead} steps ahead");
        }
        // What a right clock can have stored still counts: an early code, and every code of this window.
        for last in step..=step + 2 {
            assert_eq!(Totp::verify_at(&secret, &code, Some(last), now), None);
        }
    }

    #[test]
    fn an_address_survives_odd_names() {
        let url = Totp::otpauth_url("ABC", "Dr. Ä & Co", "a:b?c");
        assert_eq!(url, "otpauth://totp/Dr.%20%C3%84%20%26%20Co:a%3Ab%3Fc?secret=ABC&issuer=Dr.%20%C3%84%20%26%20Co");
    }

    #[test]
    fn a_password_fits_only_its_own_hash() {
        let hash = hash_password("correct horse");
        assert!(hash.starts_with("$argon2id$v=19$m=65536,t=3,p=1$"), "{hash}");
        assert!(verify_password("correct horse", &hash));
        assert!(!verify_password("correct hors", &hash));
        assert_ne!(hash, hash_password("correct horse"), "two hashes share a salt");
        for broken in
            ["", LOCKED, "$argon2id$", "$argon2id$v=19$m=4294967295,t=3,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"]
        {
            assert!(!verify_password("correct horse", broken), "{broken:?}");
        }
    }

    #[test]
    fn verifies_the_vector_of_the_reference_implementation() {
        // phc-winner-argon2, test.c: version 0x13, Argon2id, t=2, m=64 MiB, p=1, "password" with "somesalt".
        let vector = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(verify_password("password", vector));
        assert!(!verify_password("passwore", vector));
    }

    #[test]
    fn tokens_are_256_bits_and_differ() {
        let (one, two) = (random_token(), random_token());
        assert_eq!(URL_SAFE_NO_PAD.decode(&one).unwrap().len(), 32);
        assert_ne!(one, two);
        assert!(constant_time_eq(&token_hash(&one), &token_hash(&one)));
        assert!(!constant_time_eq(&token_hash(&one), &token_hash(&two)));
    }
}
