//! How often a password may be tried, and from which browsers.
//!
//! A lock on a name alone hands the keys of the building to whoever knows that name: five wrong passwords every quarter of
//! an hour, and the real person never comes in. So failures are counted apart for who has shown before that they are that
//! person and for who has not (OWASP's device cookies):
//!
//! - A browser in which somebody has logged in holds a signed cookie ([`Devices`]) that says so for this name. Its tries
//!   count against it alone, whatever strangers do and wherever it is. When it has used them up, it is a stranger.
//! - A stranger's tries count against the name from this address, against the address, and against the name.
//! - Who asks for the password again inside of a session counts against that session.
//!
//! **The bound.** All strangers of the world together try a name [`NAME_A_DAY`] times a day; each browser in which that
//! person has logged in tries it 20 times a day, and so does each of their sessions. No password of twelve characters is
//! found so, and every login needs a second factor besides. Who spends the name's tries of the day, from five networks or
//! more, still keeps that person from logging in on a browser that is new to them; those they have used stay open, and an
//! administrator lifts the count.
//!
//! A try is counted before the password is looked at, and taken back when it was right: tries made at once do not pass the
//! bound. Here are the rules; the program keeps the counts ([`Tally`]).

use crate::auth;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::net::IpAddr;

/// In seconds.
const SHORT: i64 = 15 * 60;
const DAY: i64 = 24 * 3600;
/// A failure that lies further ahead than this was noted while the clock was wrong. It would lock until the time caught up.
const SKEW: i64 = 60;

/// Tries of one name by strangers within a day.
pub const NAME_A_DAY: u32 = 100;
/// Tries within a quarter of an hour and within a day: of a name from one address, of a device, of a session.
const FEW: Limit = Limit { short: 5, day: 20 };
/// Of an address. A practice shares one.
const ADDRESS: Limit = Limit { short: 20, day: 100 };
const NAME: Limit = Limit { short: NAME_A_DAY, day: NAME_A_DAY };

/// The age of a device's cookie in the browser; every login renews it. Browsers keep none longer than 400 days.
pub const DEVICE_COOKIE_S: u32 = 400 * 24 * 3600;
/// People who share one browser and stay known in it.
const TAGS_MAX: usize = 8;
const NONCE_CHARS: usize = 22;
const TAG_BYTES: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Limit {
    short: u32,
    day: u32,
}

/// What failures are counted by.
#[derive(Debug, Clone)]
struct Counter {
    subject: String,
    limit: Limit,
    /// A success shows that the failures were this person's own. Not of an address or a name: others share these.
    ends_with_success: bool,
}

impl Counter {
    fn new(subject: String, limit: Limit, ends_with_success: bool) -> Self {
        Self { subject, limit, ends_with_success }
    }
}

/// Where the program keeps failures: a subject and a time in Unix seconds each. All calls of one [`Attempt::admit`] stand in
/// one transaction.
pub trait Tally {
    type Error;
    /// How many failures of `subject` lie between the two times, both included.
    fn count(&self, subject: &str, from: i64, to: i64) -> Result<u32, Self::Error>;
    fn add(&self, subject: &str, at: i64) -> Result<(), Self::Error>;
    /// Removes one failure of this time.
    fn take_back(&self, subject: &str, at: i64) -> Result<(), Self::Error>;
    fn clear(&self, subject: &str) -> Result<(), Self::Error>;
    /// Removes every failure before the one time and after the other.
    fn forget(&self, before: i64, after: i64) -> Result<(), Self::Error>;
}

/// Somebody is about to try a password.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Each is what this try may be counted by; the first that is not used up is taken.
    ways: Vec<Vec<Counter>>,
}

impl Attempt {
    /// At the login page. `device` is what [`Devices::known`] found.
    pub fn at_login(name: &str, address: Option<IpAddr>, device: Option<&str>) -> Self {
        let (name, address) = (hidden(name), network(address));
        let known = device.map(|device| vec![Counter::new(format!("device:{device}:{name}"), FEW, true)]);
        let stranger = vec![
            Counter::new(format!("from:{name}:{address}"), FEW, true),
            Counter::new(format!("address:{address}"), ADDRESS, false),
            Counter::new(format!("user:{name}"), NAME, false),
        ];
        Self { ways: known.into_iter().chain([stranger]).collect() }
    }

    /// Inside of a session, whose token has this hash.
    pub fn in_session(token_hash: &[u8; 32]) -> Self {
        Self { ways: vec![vec![Counter::new(format!("session:{}", HEXLOWER.encode(token_hash)), FEW, true)]] }
    }

    /// Counts the try as failed before it is made; `None` when it may not be made.
    ///
    /// # Errors
    /// The tally's.
    pub fn admit<T: Tally>(self, tally: &T, now_s: i64) -> Result<Option<Counted>, T::Error> {
        tally.forget(now_s - DAY, now_s + SKEW)?;
        for counters in self.ways {
            if used_up(tally, &counters, now_s)? {
                continue;
            }
            for counter in &counters {
                tally.add(&counter.subject, now_s)?;
            }
            return Ok(Some(Counted { counters, at: now_s }));
        }
        Ok(None)
    }
}

fn used_up<T: Tally>(tally: &T, counters: &[Counter], now_s: i64) -> Result<bool, T::Error> {
    for Counter { subject, limit, .. } in counters {
        for (window, max) in [(SHORT, limit.short), (DAY, limit.day)] {
            if tally.count(subject, now_s - window, now_s + SKEW)? >= max {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A try that was counted as failed.
#[derive(Debug, Clone)]
#[must_use = "a try that was right has to be taken back"]
pub struct Counted {
    counters: Vec<Counter>,
    at: i64,
}

impl Counted {
    /// The person is in: this try was no failure, and those before it were their own.
    ///
    /// # Errors
    /// The tally's.
    pub fn succeeded<T: Tally>(&self, tally: &T) -> Result<(), T::Error> {
        for counter in &self.counters {
            match counter.ends_with_success {
                true => tally.clear(&counter.subject)?,
                false => tally.take_back(&counter.subject, self.at)?,
            }
        }
        Ok(())
    }

    /// This try was no failure, and more is asked before the person is in.
    ///
    /// # Errors
    /// The tally's.
    pub fn was_right<T: Tally>(&self, tally: &T) -> Result<(), T::Error> {
        self.counters.iter().try_for_each(|counter| tally.take_back(&counter.subject, self.at))
    }
}

/// Whether strangers have used up the tries of this name: its owner then gets in from browsers that know them alone.
///
/// # Errors
/// The tally's.
pub fn is_besieged<T: Tally>(tally: &T, name: &str, now_s: i64) -> Result<bool, T::Error> {
    let (subject, _) = subjects_of(name);
    used_up(tally, &[Counter::new(subject, NAME, false)], now_s)
}

/// The subjects of `name`, for whoever lets that person try again: one, and the beginning of the others.
pub fn subjects_of(name: &str) -> (String, String) {
    let name = hidden(name);
    (format!("user:{name}"), format!("from:{name}:"))
}

/// People type passwords into the name field.
fn hidden(name: &str) -> String {
    HEXLOWER.encode(&auth::token_hash(&name.trim().to_lowercase()))
}

/// An address as it is counted. Of IPv6 everybody has a whole network.
fn network(address: Option<IpAddr>) -> String {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(v6)) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Some(v4) => v4.to_string(),
        None => "unknown".to_owned(),
    }
}

/// Signs and knows the cookies of browsers in which somebody has logged in: `NONCE.TAG.TAG`, the nonce the browser's own, a
/// tag for each person. It opens nothing: who steals it has a few tries more.
pub struct Devices(Hmac<Sha256>);

impl Devices {
    /// The text of a fresh key, to be kept by the program.
    pub fn new_key() -> String {
        auth::random_token()
    }

    pub fn new(key: &str) -> Option<Self> {
        Hmac::new_from_slice(key.as_bytes()).ok().map(Self)
    }

    /// The browser's own name when `name` has logged in with it.
    pub fn known(&self, cookie: Option<&str>, name: &str) -> Option<String> {
        let (nonce, tags) = parts(cookie?)?;
        let tag = self.tag(nonce, name);
        tags.iter().any(|given| auth::constant_time_eq(given.as_bytes(), tag.as_bytes())).then(|| nonce.to_owned())
    }

    /// The cookie of a browser in which `name` has just logged in.
    pub fn welcome(&self, cookie: Option<&str>, name: &str) -> String {
        let fresh: String = auth::random_token().chars().take(NONCE_CHARS).collect();
        let (nonce, tags) = cookie.and_then(parts).unwrap_or((&fresh, Vec::new()));
        let own = self.tag(nonce, name);
        let others: Vec<&str> = tags.into_iter().filter(|tag| *tag != own).collect();
        let kept = others.len().saturating_sub(TAGS_MAX - 1);
        [nonce].into_iter().chain(others.into_iter().skip(kept)).chain([own.as_str()]).collect::<Vec<_>>().join(".")
    }

    fn tag(&self, nonce: &str, name: &str) -> String {
        let mut mac = self.0.clone();
        for part in ["holdfast known device v1", nonce, &name.trim().to_lowercase()] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        let bytes = mac.finalize().into_bytes();
        URL_SAFE_NO_PAD.encode(bytes.get(..TAG_BYTES).unwrap_or(&bytes))
    }
}

fn parts(cookie: &str) -> Option<(&str, Vec<&str>)> {
    let mut parts = cookie.split('.');
    let nonce = parts.next().filter(|nonce| nonce.len() == NONCE_CHARS)?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let tags: Vec<&str> = parts.take(TAGS_MAX).collect();
    (plain(nonce) && tags.iter().all(|tag| plain(tag) && tag.len() <= NONCE_CHARS)).then_some((nonce, tags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::convert::Infallible;

    #[derive(Default)]
    struct Memory(RefCell<Vec<(String, i64)>>);

    impl Tally for Memory {
        type Error = Infallible;
        fn count(&self, subject: &str, from: i64, to: i64) -> Result<u32, Infallible> {
            let all = self.0.borrow();
            let found = all.iter().filter(|(of, at)| of == subject && (from..=to).contains(at)).count();
            Ok(u32::try_from(found).unwrap())
        }
        fn add(&self, subject: &str, at: i64) -> Result<(), Infallible> {
            self.0.borrow_mut().push((subject.to_owned(), at));
            Ok(())
        }
        fn take_back(&self, subject: &str, at: i64) -> Result<(), Infallible> {
            let mut all = self.0.borrow_mut();
            if let Some(found) = all.iter().position(|(of, then)| of == subject && *then == at) {
                all.remove(found);
            }
            Ok(())
        }
        fn clear(&self, subject: &str) -> Result<(), Infallible> {
            self.0.borrow_mut().retain(|(of, _)| of != subject);
            Ok(())
        }
        fn forget(&self, before: i64, after: i64) -> Result<(), Infallible> {
            self.0.borrow_mut().retain(|(_, at)| (before..=after).contains(at));
            Ok(())
        }
    }

    const NOW: i64 = 1_700_000_000;

    fn from(n: u32) -> Option<IpAddr> {
        Some(IpAddr::from(0x0a00_0000_u32.saturating_add(n).to_be_bytes()))
    }

    fn try_it(tally: &Memory, name: &str, address: Option<IpAddr>, device: Option<&str>, at: i64) -> Option<Counted> {
        Attempt::at_login(name, address, device).admit(tally, at).unwrap()
    }

    #[test]
    fn whoever_guesses_keeps_nobody_out_of_a_browser_that_knows_them() {
        let tally = Memory::default();
        let mut guessed = 0;
        // A day of guessing from many networks.
        for at in (NOW..NOW + DAY).step_by(7200) {
            for network in 0..200 {
                guessed += u32::from(try_it(&tally, "anna", from(network), None, at).is_some());
            }
        }
        assert_eq!(guessed, NAME_A_DAY, "all strangers of the world together");
        assert!(try_it(&tally, "anna", from(7), None, NOW + DAY - 1).is_none());
        // Also from the very network of who guesses.
        let person = try_it(&tally, "anna", from(7), Some("browser"), NOW + DAY - 1).unwrap();
        person.succeeded(&tally).unwrap();
        assert!(try_it(&tally, "berta", from(5000), None, NOW + DAY - 1).is_some(), "nor others");
    }

    #[test]
    fn one_network_cannot_spend_the_tries_of_a_name() {
        let tally = Memory::default();
        let tries =
            (NOW..NOW + DAY).step_by(20).filter(|at| try_it(&tally, "anna", from(1), None, *at).is_some()).count();
        assert_eq!(tries, 20);
        assert!(try_it(&tally, "anna", from(2), None, NOW + DAY - 1).is_some(), "who is elsewhere still comes in");
        let quick = (0..10).filter(|_| try_it(&tally, "anna", from(3), None, NOW + DAY).is_some()).count();
        assert_eq!(quick, 5);
        let v6 = |last: u16| Some(IpAddr::from([0x2001, 0xdb8, 1, 2, 3, 4, 5, last]));
        let many = (0..200).filter(|n| try_it(&tally, "carl", v6(*n), None, NOW + DAY).is_some()).count();
        assert_eq!(many, 5, "a network of IPv6 is one address");
    }

    #[test]
    fn an_address_tries_few_names() {
        let tally = Memory::default();
        let tries = (0..100).filter(|n| try_it(&tally, &format!("n{n}"), from(1), None, NOW).is_some()).count();
        assert_eq!(tries, 20);
        assert!(try_it(&tally, "later", from(1), None, NOW + SHORT + 1).is_some());
    }

    #[test]
    fn a_stolen_cookie_is_worth_a_few_tries() {
        let tally = Memory::default();
        let tries = (NOW..NOW + DAY).step_by(20);
        let tries = tries.filter(|at| try_it(&tally, "anna", from(1), Some("stolen"), *at).is_some()).count();
        assert_eq!(tries, 20 + 20, "as that device, then as a stranger");
        assert!(try_it(&tally, "anna", from(1), Some("another"), NOW + DAY - 1).is_some());
    }

    #[test]
    fn a_session_is_worth_a_few_tries_and_costs_its_owner_no_login() {
        let tally = Memory::default();
        let again = |token: u8| Attempt::in_session(&[token; 32]).admit(&tally, NOW).unwrap();
        assert_eq!((0..10).filter(|_| again(1).is_some()).count(), 5);
        assert!(again(2).is_some() && try_it(&tally, "anna", from(1), None, NOW).is_some());
    }

    #[test]
    fn a_right_password_counts_for_nothing_and_a_login_ends_what_was_counted() {
        let tally = Memory::default();
        for _ in 0..50 {
            try_it(&tally, "anna", from(1), None, NOW).unwrap().was_right(&tally).unwrap();
        }
        for _ in 0..4 {
            let _failed = try_it(&tally, "anna", from(1), None, NOW).unwrap();
        }
        try_it(&tally, "anna", from(1), None, NOW).unwrap().succeeded(&tally).unwrap();
        let (name, _) = subjects_of("anna");
        assert_eq!(
            tally.count(&name, 0, i64::MAX).unwrap(),
            4,
            "what was counted of the name stays: the bound is the day's"
        );
        assert_eq!((0..10).filter(|_| try_it(&tally, "anna", from(1), None, NOW).is_some()).count(), 5);
    }

    #[test]
    fn failures_of_a_clock_that_was_ahead_lock_nobody_out() {
        let tally = Memory::default();
        let tries = (0..10).filter(|_| try_it(&tally, "anna", from(1), None, NOW + DAY * 9).is_some()).count();
        assert_eq!(tries, 5);
        assert!(try_it(&tally, "anna", from(1), None, NOW).is_some());
        assert!(try_it(&tally, "anna", from(1), None, NOW + DAY * 9).is_some(), "nor when their time comes");
    }

    #[test]
    fn a_browser_is_known_for_who_logged_in_with_it() {
        let devices = Devices::new("a key").unwrap();
        let cookie = devices.welcome(None, "Anna ");
        let nonce = devices.known(Some(&cookie), "anna").unwrap();
        assert_eq!(devices.known(Some(&cookie), "berta"), None);
        assert_eq!(Devices::new("another").unwrap().known(Some(&cookie), "anna"), None);
        assert_eq!(devices.known(None, "anna"), None);
        // A colleague at the same computer; both stay known, and it is still the same browser.
        let shared = devices.welcome(Some(&cookie), "berta");
        assert!(["anna", "berta"].iter().all(|name| devices.known(Some(&shared), name).as_ref() == Some(&nonce)));
        assert_eq!(devices.welcome(Some(&shared), "berta"), shared);
        let mut all = shared;
        for n in 0..TAGS_MAX {
            all = devices.welcome(Some(&all), &format!("n{n}"));
        }
        assert!(all.len() <= 256 && devices.known(Some(&all), "n0").is_some());
        assert_eq!(devices.known(Some(&all), "anna"), None, "the longest away makes room");
        for broken in ["", ".", "short.tag", "äääääääääää.x", &format!("{nonce}."), &format!("{nonce}.a;b")]
        {
            assert_eq!(devices.known(Some(broken), "anna"), None);
            assert!(devices.known(Some(&devices.welcome(Some(broken), "anna")), "anna").is_some(), "{broken}");
        }
    }
}
