//! Answers of three kinds of key, made with another implementation (Python's `cryptography`), and everything that must not pass.

use super::*;
use serde_json::json;

const VECTORS: &str = include_str!("vectors.json");

fn party() -> RelyingParty {
    RelyingParty::of(&["https://emr.example:8443".to_owned(), "https://10.0.0.1:8443".to_owned()]).unwrap()
}

struct Vector {
    name: String,
    registration: serde_json::Value,
    assertion: serde_json::Value,
}

fn vectors() -> (Vec<Vec<u8>>, Vec<Vector>) {
    let all: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    let challenges = all["challenges"].as_array().unwrap().iter().map(|c| hex::decode(c.as_str().unwrap()).unwrap());
    let keys = all["keys"].as_array().unwrap().iter().map(|key| Vector {
        name: key["name"].as_str().unwrap().to_owned(),
        registration: key["registration"].clone(),
        assertion: key["assertion"].clone(),
    });
    (challenges.collect(), keys.collect())
}

fn registered(vector: &Vector, challenge: &[u8]) -> Credential {
    register(&party(), challenge, &serde_json::from_value(vector.registration.clone()).unwrap()).unwrap()
}

fn answer(value: &serde_json::Value) -> Assertion {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn keys_of_every_kind_are_registered_and_used() {
    let (challenges, keys) = vectors();
    assert_eq!(keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["ES256", "EdDSA", "RS256"]);
    for vector in &keys {
        let key = registered(vector, &challenges[0]);
        assert!(key.user_verified, "{}", vector.name);
        let used = answer(&vector.assertion);
        assert_eq!(used.credential_id().unwrap(), key.id);
        let counter = assert(&party(), &challenges[1], &key, &used).unwrap();
        assert_eq!(counter, if key.counter == 0 { 0 } else { key.counter + 1 }, "{}", vector.name);
        // The same answer again, or one of a copy that has not counted so far.
        let later = Credential { counter, ..key.clone() };
        let again = assert(&party(), &challenges[1], &later, &used);
        assert_eq!(again, if counter == 0 { Ok(0) } else { Err(WebauthnError::Counter) }, "{}", vector.name);
    }
}

#[test]
fn an_answer_to_another_question_or_made_elsewhere_is_refused() {
    let (challenges, keys) = vectors();
    let vector = &keys[0];
    let key = registered(vector, &challenges[0]);
    let used = answer(&vector.assertion);
    let make: Registration = serde_json::from_value(vector.registration.clone()).unwrap();
    let other = |base: &str| RelyingParty::of(&[base.to_owned()]).unwrap();
    assert_eq!(assert(&party(), &challenges[0], &key, &used), Err(WebauthnError::Challenge));
    assert_eq!(assert(&party(), &[], &key, &used), Err(WebauthnError::Challenge));
    assert_eq!(register(&party(), &challenges[1], &make), Err(WebauthnError::Challenge));
    assert_eq!(assert(&other("https://emr.example"), &challenges[1], &key, &used), Err(WebauthnError::Origin));
    assert_eq!(register(&other("https://evil.example:8443"), &challenges[0], &make), Err(WebauthnError::Origin));
    let elsewhere = RelyingParty { id: "other.example".into(), origins: party().origins };
    assert_eq!(assert(&elsewhere, &challenges[1], &key, &used), Err(WebauthnError::RelyingParty));
    // What was made for adding a key logs nobody in, and the other way round.
    let crossed = Assertion { client_data: make.client_data.clone(), ..answer(&vector.assertion) };
    assert_eq!(assert(&party(), &challenges[0], &key, &crossed), Err(WebauthnError::Kind));
    let crossed = Registration { client_data: used.client_data.clone(), attestation: make.attestation.clone() };
    assert_eq!(register(&party(), &challenges[1], &crossed), Err(WebauthnError::Kind));
    let framed = json!({"type": "webauthn.get", "challenge": encoded(&challenges[1]), "origin": party().origins[0], "crossOrigin": true});
    let framed = Assertion { client_data: encoded(framed.to_string().as_bytes()), ..answer(&vector.assertion) };
    assert_eq!(assert(&party(), &challenges[1], &key, &framed), Err(WebauthnError::Origin));
}

#[test]
fn no_byte_of_an_answer_can_be_changed() {
    let (challenges, keys) = vectors();
    for vector in &keys {
        let key = registered(vector, &challenges[0]);
        for field in ["client_data", "authenticator_data", "signature"] {
            let whole = decoded(vector.assertion[field].as_str().unwrap()).unwrap();
            for at in 0..whole.len() {
                let mut changed = whole.clone();
                changed[at] ^= 1;
                let mut value = vector.assertion.clone();
                value[field] = json!(encoded(&changed));
                let told = assert(&party(), &challenges[1], &key, &answer(&value));
                assert!(told.is_err(), "{} {field} {at}", vector.name);
            }
            for len in [0, 1, whole.len() / 2, whole.len() - 1] {
                let mut value = vector.assertion.clone();
                value[field] = json!(encoded(&whole[..len]));
                assert!(assert(&party(), &challenges[1], &key, &answer(&value)).is_err(), "{field} {len}");
            }
        }
        // Somebody else's key does not answer for this one.
        for other in keys.iter().filter(|other| other.name != vector.name) {
            let told = assert(&party(), &challenges[1], &key, &answer(&other.assertion));
            assert_eq!(told, Err(WebauthnError::Signature), "{} for {}", other.name, vector.name);
        }
    }
}

#[test]
fn nobody_at_the_key_and_unknown_kinds_of_key_are_refused() {
    let (challenges, keys) = vectors();
    let make: Registration = serde_json::from_value(keys[0].registration.clone()).unwrap();
    let attestation = decoded(&make.attestation).unwrap();
    let from = attestation.windows(32).position(|w| w == Sha256::digest(b"emr.example").as_slice()).unwrap();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = attestation.clone();
        change(&mut changed);
        let made = Registration { client_data: make.client_data.clone(), attestation: encoded(&changed) };
        register(&party(), &challenges[0], &made)
    };
    assert_eq!(with(&|a| a[from + 32] &= !USER_PRESENT), Err(WebauthnError::Absent));
    assert!(!with(&|a| a[from + 32] &= !USER_VERIFIED).unwrap().user_verified);
    assert_eq!(with(&|a| a[from + 32] &= !CREDENTIAL_INCLUDED), Err(WebauthnError::Malformed));
    assert_eq!(with(&|a| a[from] ^= 1), Err(WebauthnError::RelyingParty));
    // {1: 2, 3: -7, ...} of the key: another algorithm under the same type.
    let key_at = from + 32 + 5 + 16 + 2 + 20;
    assert_eq!(&attestation[key_at..key_at + 5], [0xa5, 1, 2, 3, 0x26]);
    assert_eq!(with(&|a| a[key_at + 4] = 0x27), Err(WebauthnError::Algorithm));
    assert_eq!(with(&|a| a.truncate(a.len() - 1)), Err(WebauthnError::Malformed));
    assert_eq!(with(&|a| a.push(0)), Err(WebauthnError::Malformed));
}

#[test]
fn keys_are_for_names_and_not_for_numbers() {
    let of = |bases: &[&str]| RelyingParty::of(&bases.iter().map(|b| (*b).to_owned()).collect::<Vec<_>>());
    let found = of(&["https://emr.example", "https://emr.example:8443", "https://other.example"]).unwrap();
    assert_eq!((found.id.as_str(), found.origins.len()), ("emr.example", 2));
    assert_eq!(of(&["https://localhost:8443"]).unwrap().id, "localhost");
    for none in [&["https://127.0.0.1:8443"][..], &["https://[::1]:8443"], &["http://emr.example"], &[]] {
        assert!(of(none).is_none(), "{none:?}");
    }
}
