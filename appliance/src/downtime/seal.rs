//! One HTML file that decrypts itself: PBKDF2 gives the key that wraps the pack's own (AES key wrap), which seals the content
//! (AES-256-GCM). A browser has all three without a line of cryptography of ours.

use crate::clock;
use crate::dates;
use crate::store::StoreError;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use aws_lc_rs::pbkdf2;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono_tz::Tz;
use maud::{DOCTYPE, PreEscaped, html};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// OWASP's figure for PBKDF2 with HMAC-SHA-256; the password has 100 bits by itself.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(599_999);
/// Groups of five letters in a password.
pub const PASSWORD_GROUPS: usize = 4;
/// 32 letters that people do not confuse: five bits each.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const SCRIPT: &str = include_str!("../../assets/downtime.js");
const STYLE: &str = include_str!("../../assets/downtime.css");

/// What a password gives. Not shown, not logged; wiped when it is dropped.
pub struct Key {
    bytes: Zeroizing<[u8; 32]>,
    salt: [u8; 16],
}

impl Key {
    pub fn derive(password: &str) -> Result<Key, StoreError> {
        let salt = clock::random::<16>().map_err(StoreError::io("randomness"))?;
        Ok(Key { bytes: stretched(password, &salt), salt })
    }

    pub fn stored(key: &str, salt: &str) -> Option<Key> {
        let bytes = Zeroizing::new(hex::decode(key).ok()?);
        let salt = hex::decode(salt).ok()?.try_into().ok()?;
        Some(Key { bytes: Zeroizing::new(bytes.as_slice().try_into().ok()?), salt })
    }

    pub fn to_stored(&self) -> (Zeroizing<String>, String) {
        (Zeroizing::new(hex::encode(*self.bytes)), hex::encode(self.salt))
    }
}

fn stretched(password: &str, salt: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt, password.as_bytes(), &mut *bytes);
    bytes
}

/// A password that nobody chose: 100 bits, in groups that are read out and typed.
pub fn new_password() -> Result<String, StoreError> {
    let bytes = clock::random::<{ PASSWORD_GROUPS * 5 }>().map_err(StoreError::io("randomness"))?;
    let letter = |byte: &u8| LETTERS.get(usize::from(byte & 31)).copied().map_or('x', char::from);
    Ok(bytes.chunks(5).map(|group| group.iter().map(letter).collect::<String>()).collect::<Vec<_>>().join("-"))
}

/// When a pack was made. It is told in the practice's zone: a computer in the office may be set to another.
pub struct Taken {
    instant: String,
    shown: String,
}

impl Taken {
    pub fn new(unix_ms: i64, zone: Tz) -> Taken {
        let local = dates::local(unix_ms / 1000, zone);
        Taken { instant: clock::instant(unix_ms), shown: format!("{} ({zone})", local.format("%A %-d %B %Y %H:%M")) }
    }
}

/// The file. `taken` and the practice's name stand outside and are sealed with the content.
pub fn pack(key: &Key, taken: &Taken, practice: &str, content: &str, pdf: &[u8]) -> Result<String, StoreError> {
    let failed = |_| StoreError::Damaged("downtime seal");
    let own = Zeroizing::new(clock::random::<32>().map_err(StoreError::io("randomness"))?);
    let mut wrapped = [0; 40];
    let wrapped = AesKek::new(&AES_256, &*key.bytes).and_then(|kek| kek.wrap(&*own, &mut wrapped)).map_err(failed)?;
    let mut data = json!({"html": content, "pdf": STANDARD.encode(pdf)}).to_string().into_bytes();
    let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*own).map_err(failed)?);
    let Taken { instant, shown } = taken;
    let bound = format!("{instant}\n{shown}\n{practice}");
    // The key is this pack's alone, so that it seals once and the nonce is constant.
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    sealing.seal_in_place_append_tag(nonce, Aad::from(bound.as_bytes()), &mut data).map_err(failed)?;
    let sealed = json!({
        "taken": instant, "shown": shown, "practice": practice, "iterations": ITERATIONS.get(), "salt": STANDARD.encode(key.salt),
        "key": STANDARD.encode(wrapped), "data": STANDARD.encode(data),
    });
    // Inside of a script element nothing is escaped: a tag must not end it.
    let sealed = sealed.to_string().replace('<', "\\u003c");
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Downtime pack · " (practice) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p.practice { (practice) }
                    p #age.age role="status" { "Taken at " (shown) }
                    p.soft { "Taken " span #taken { (shown) } ". What was entered since is not in it." }
                }
                main #main {
                    h1 #title { "Downtime pack" }
                    form #open {
                        label for="password" { "Password" }
                        input #password type="password" autocomplete="off" spellcheck="false" required autofocus;
                        button type="submit" { "Open" }
                        p #problem role="alert" {}
                    }
                    div #tools hidden {
                        label for="find" { "Find a patient" }
                        input #find type="search" autocomplete="off" spellcheck="false";
                        button #pdf type="button" { "Save as PDF" }
                        button #print type="button" { "Print" }
                    }
                    div #content {}
                }
                noscript { p { "This file needs a browser with JavaScript. It opens without a network." } }
                script #pack type="application/json" { (PreEscaped(sealed)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(page.into_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn sealed(pack: &str) -> Value {
        let from = pack.split("type=\"application/json\">").nth(1).unwrap();
        serde_json::from_str(from.split("</script>").next().unwrap()).unwrap()
    }

    fn opened(pack: &str, password: &str) -> Option<Value> {
        let sealed = sealed(pack);
        let bytes = |name: &str| STANDARD.decode(sealed[name].as_str().unwrap()).unwrap();
        let key = stretched(password, &bytes("salt"));
        let mut own = [0; 32];
        AesKek::new(&AES_256, &*key).unwrap().unwrap(&bytes("key"), &mut own).ok()?;
        let opening = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &own).unwrap());
        let bound = ["taken", "shown", "practice"].map(|name| sealed[name].as_str().unwrap()).join("\n");
        let mut data = bytes("data");
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let plain = opening.open_in_place(nonce, Aad::from(bound.as_bytes()), &mut data).ok()?;
        serde_json::from_slice(plain).ok()
    }

    #[test]
    fn a_pack_opens_with_its_password_and_shows_nothing_without() {
        let password = new_password().unwrap();
        assert_eq!(password.len(), PASSWORD_GROUPS * 6 - 1);
        let key = Key::derive(&password).unwrap();
        let (kept, salt) = key.to_stored();
        let key = Key::stored(&kept, &salt).unwrap();
        let taken = Taken::new(1_767_323_045_000, chrono_tz::Europe::Berlin);
        let make = || pack(&key, &taken, "A </script> & Co", "<p>Müller</p>", b"%PDF-1.4").unwrap();
        let first = make();
        assert!(!first.contains("Müller") && !first.contains("TcO8bGxlc"), "nothing of a patient is readable");
        assert_eq!(first.matches("</script>").count(), 2, "a name ends no element");
        let plain = opened(&first, &password).unwrap();
        assert_eq!((&plain["html"], &plain["pdf"]), (&json!("<p>Müller</p>"), &json!(STANDARD.encode("%PDF-1.4"))));
        assert!(opened(&first, &new_password().unwrap()).is_none());
        // Its age cannot be changed, and no two packs share a key.
        let told = "Friday 2 January 2026 04:04 (Europe/Berlin)";
        assert_eq!(
            (&sealed(&first)["taken"], &sealed(&first)["shown"]),
            (&json!("2026-01-02T03:04:05.000Z"), &json!(told))
        );
        assert!(opened(&first.replace("2026-01-02T03", "2026-01-02T04"), &password).is_none());
        assert!(opened(&first.replace("2026 04:04", "2026 05:04"), &password).is_none());
        assert_ne!(sealed(&first)["data"], sealed(&make())["data"]);
        assert_ne!(password, new_password().unwrap());
    }
}
