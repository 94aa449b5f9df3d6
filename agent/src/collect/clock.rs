//! Whether the host's clock follows a time server.
//!
//! The kernel's own answer (`adjtimex`) is behind a system call that a unit with `ProtectClock=` may not make, so the
//! two usual programs are asked: systemd-timesyncd leaves a file at each synchronization, chrony answers on its loopback
//! port.

use agent_api::Clock;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// timesyncd touches this file whenever it has set the clock; its longest interval is 2048 s.
const TIMESYNC_MARKER: &str = "run/systemd/timesync/synchronized";
const TIMESYNC_AGE_S_MAX: i64 = 2 * 2048;

const CHRONY_PORT: u16 = 323;
const CHRONY_TIMEOUT: Duration = Duration::from_millis(300);

pub(super) fn clock(root: &Path, now_unix_s: i64) -> Clock {
    if let Some(clock) = ask_chrony(CHRONY_PORT).filter(|_| root == Path::new("/")) {
        return clock;
    }
    let touched = std::fs::metadata(root.join(TIMESYNC_MARKER)).and_then(|file| file.modified()).ok();
    let touched_s = touched.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs());
    let age_s = touched_s.and_then(|s| i64::try_from(s).ok()).map(|s| now_unix_s.saturating_sub(s));
    Clock { synchronized: age_s.is_some_and(|age| age <= TIMESYNC_AGE_S_MAX), error_us: None }
}

/// chrony's command protocol, version 6: one "tracking" request, one answer. `None` when nobody answers.
fn ask_chrony(port: u16) -> Option<Clock> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    socket.connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    socket.set_read_timeout(Some(CHRONY_TIMEOUT)).ok()?;
    socket.send(&tracking_request()).ok()?;
    let mut answer = [0; 256];
    let length = socket.recv(&mut answer).ok()?;
    parse_tracking(answer.get(..length)?)
}

const PROTOCOL_VERSION: u8 = 6;
const PACKET_REQUEST: u8 = 1;
const PACKET_REPLY: u8 = 2;
const REQUEST_TRACKING: u16 = 33;
const REPLY_TRACKING: u16 = 5;
/// A request is as long as its answer, so that nobody can use chrony to amplify traffic.
const TRACKING_BYTES: usize = 104;
/// After a head of 28 bytes: reference id (4), address (20), stratum (2), leap (2), time (12), then floats of 4 bytes.
const AT_LEAP: usize = 28 + 4 + 20 + 2;
const AT_CORRECTION: usize = AT_LEAP + 2 + 12;
const AT_ROOT_DELAY: usize = AT_CORRECTION + 6 * 4;
const AT_ROOT_DISPERSION: usize = AT_ROOT_DELAY + 4;
const LEAP_UNSYNCHRONIZED: u16 = 3;

fn tracking_request() -> [u8; TRACKING_BYTES] {
    let mut packet = [0; TRACKING_BYTES];
    let [command_high, command_low] = REQUEST_TRACKING.to_be_bytes();
    packet[..6].copy_from_slice(&[PROTOCOL_VERSION, PACKET_REQUEST, 0, 0, command_high, command_low]);
    packet
}

/// The clock's state; its error is bounded by the correction under way, half the delay and the dispersion.
fn parse_tracking(answer: &[u8]) -> Option<Clock> {
    let u16_at = |at: usize| Some(u16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let head = (*answer.first()?, *answer.get(1)?, u16_at(4)?, u16_at(6)?, u16_at(8)?);
    if head != (PROTOCOL_VERSION, PACKET_REPLY, REQUEST_TRACKING, REPLY_TRACKING, 0) {
        return None;
    }
    let float_at = |at: usize| Some(chrony_float(u32::from_be_bytes(answer.get(at..at + 4)?.try_into().ok()?)));
    let synchronized = u16_at(AT_LEAP)? != LEAP_UNSYNCHRONIZED;
    let error_s = float_at(AT_CORRECTION)?.abs() + float_at(AT_ROOT_DELAY)? / 2.0 + float_at(AT_ROOT_DISPERSION)?;
    let known = synchronized && error_s.is_finite() && (0.0..1e6).contains(&error_s);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    let error_us = known.then_some((error_s * 1e6) as u64);
    Some(Clock { synchronized, error_us })
}

/// Seven bits of signed exponent, 25 bits of signed coefficient.
fn chrony_float(bits: u32) -> f64 {
    let sign_extended = |value: u32, bits: u32| (value << (32 - bits)).cast_signed() >> (32 - bits);
    let exponent = sign_extended(bits >> 25, 7) - 25;
    f64::from(sign_extended(bits, 25)) * 2f64.powi(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::{NOW, fake_root};

    /// Coefficient 2^23 and exponent 2 - 25: one.
    const ONE: u32 = 4 << 25 | 1 << 21;

    fn answer(leap: u16) -> [u8; TRACKING_BYTES] {
        let mut packet = [0; TRACKING_BYTES];
        packet[..8].copy_from_slice(&[6, 2, 0, 0, 0, 33, 0, 5]);
        packet[AT_LEAP..AT_LEAP + 2].copy_from_slice(&leap.to_be_bytes());
        packet[AT_ROOT_DELAY..AT_ROOT_DELAY + 4].copy_from_slice(&ONE.to_be_bytes());
        packet
    }

    #[test]
    fn understands_chrony() {
        assert_eq!(parse_tracking(&answer(0)), Some(Clock { synchronized: true, error_us: Some(500_000) }));
        assert_eq!(parse_tracking(&answer(3)), Some(Clock { synchronized: false, error_us: None }));
        for cut in 0..AT_ROOT_DISPERSION + 4 {
            assert_eq!(parse_tracking(&answer(0)[..cut]), None, "{cut} bytes");
        }
        let mut refused = answer(0);
        refused[9] = 2;
        assert_eq!(parse_tracking(&refused), None);
    }

    #[test]
    fn an_old_marker_is_no_synchronization() {
        let root = fake_root(&[(TIMESYNC_MARKER, "")]);
        let file = std::fs::File::options().write(true).open(root.path().join(TIMESYNC_MARKER)).unwrap();
        for (age, good) in [(10, true), (TIMESYNC_AGE_S_MAX + 10, false)] {
            file.set_modified(UNIX_EPOCH + Duration::from_secs(u64::try_from(NOW - age).unwrap())).unwrap();
            assert_eq!(clock(root.path(), NOW).synchronized, good, "age {age} s");
        }
    }
}
