//! Limits by address how often invitations are tried, each of which costs a slow hash.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

const ATTEMPTS_MAX: u32 = 30;
const WINDOW_MS: i64 = 10 * 60_000;
/// More addresses than this are forgotten together: the table stays small whoever knocks.
const ADDRESSES_MAX: usize = 10_000;

#[derive(Default)]
pub struct Throttle(Mutex<HashMap<IpAddr, (i64, u32)>>);

impl Throttle {
    /// Counts an attempt; false when this address has made too many in ten minutes.
    pub fn admit(&self, address: IpAddr, now_ms: i64) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= ADDRESSES_MAX {
            seen.retain(|_, (since_ms, _)| (0..WINDOW_MS).contains(&(now_ms - *since_ms)));
            if seen.len() >= ADDRESSES_MAX {
                seen.clear();
            }
        }
        let entry = seen.entry(address).or_insert((now_ms, 0));
        // A window that begins in the future was opened while the clock was ahead.
        if !(0..WINDOW_MS).contains(&(now_ms - entry.0)) {
            *entry = (now_ms, 0);
        }
        entry.1 += 1;
        entry.1 <= ATTEMPTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_thirty_attempts_in_ten_minutes() {
        let throttle = Throttle::default();
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert!((0..ATTEMPTS_MAX).all(|_| throttle.admit(one, 0)));
        assert!(!throttle.admit(one, 1));
        assert!(throttle.admit(two, 1));
        assert!(throttle.admit(one, WINDOW_MS));
        assert!((1..ATTEMPTS_MAX).all(|_| throttle.admit(one, WINDOW_MS)) && !throttle.admit(one, WINDOW_MS));
        assert!(throttle.admit(one, 0), "the clock was ahead");
    }
}
