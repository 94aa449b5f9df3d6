//! Keys as a second factor: who is let in by one, and who is not.

use super::gate::FORM_COOKIE;
use super::tests::{Answer, Browser, Site, hidden};
use crate::access::Role;
use crate::access::webauthn::encoded;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const PASSWORD: &str = "correct horse battery staple";

/// A key in software.
struct Key {
    pair: Ed25519KeyPair,
    id: [u8; 16],
    counter: u32,
}

impl Key {
    fn new(byte: u8) -> Key {
        Key { pair: Ed25519KeyPair::from_seed_unchecked(&[byte; 32]).unwrap(), id: [byte; 16], counter: 0 }
    }

    fn data(&self, flags: u8) -> Vec<u8> {
        [Sha256::digest(b"emr.example").as_slice(), &[flags], &self.counter.to_be_bytes()].concat()
    }

    fn client(kind: &str, options: &Value) -> String {
        json!({"type": kind, "challenge": options["challenge"], "origin": "https://emr.example"}).to_string()
    }

    fn register(&self, options: &Value) -> String {
        let cose = [&[0xa4, 1, 1, 3, 0x27, 0x20, 6, 0x21, 0x58, 32], self.pair.public_key().as_ref()].concat();
        let data = [&self.data(0x41)[..], &[0; 16], &[0, 16], &self.id, &cose].concat();
        let head =
            [&[0xa3, 0x63][..], b"fmt", &[0x64], b"none", &[0x67], b"attStmt", &[0xa0, 0x68], b"authData", &[0x58]];
        let attestation = [&head.concat()[..], &[u8::try_from(data.len()).unwrap()], &data].concat();
        let client = Key::client("webauthn.create", options);
        json!({"client_data": encoded(client.as_bytes()), "attestation": encoded(&attestation)}).to_string()
    }

    fn answer(&mut self, options: &Value) -> String {
        self.counter += 1;
        let (client, data) = (Key::client("webauthn.get", options), self.data(1));
        let signature = self.pair.sign(&[&data[..], Sha256::digest(client.as_bytes()).as_slice()].concat());
        json!({"id": encoded(&self.id), "client_data": encoded(client.as_bytes()), "authenticator_data": encoded(&data),
            "signature": encoded(signature.as_ref())})
        .to_string()
    }
}

/// The question in a page.
fn options(page: &str) -> Value {
    let (_, rest) = page.split_once("data-options=\"").unwrap_or_else(|| panic!("no question: {page}"));
    serde_json::from_str(&rest.split_once('"').unwrap().0.replace("&quot;", "\"").replace("&amp;", "&")).unwrap()
}

struct Door {
    site: Site,
    inside: Browser,
}

impl Door {
    /// A clinician with a password that is known here, and an open session.
    async fn new() -> Door {
        let site = Site::new();
        let hash = service::auth::hash_password(PASSWORD);
        site.add_user("keller", Role::Clinician, &hash, "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP").await;
        let inside = site.session_of("keller").await;
        Door { site, inside }
    }

    async fn add(&self, key: &Key) -> Answer {
        let fields = [("label", "spare from the drawer"), ("key-password", PASSWORD)];
        let page = self.site.post(&self.inside, "/account/keys/new", &fields).await.body;
        let (question, answer) = (hidden(&page, "question").to_owned(), key.register(&options(&page)));
        self.site.post(&self.inside, "/account/keys", &[("question", &question), ("answer", &answer)]).await
    }

    async fn ask(&self, name: &str, password: &str) -> Answer {
        let fields = [("name", name), ("password", password), ("code", ""), ("to", "/patients")];
        self.site.post(&Site::nobody(), "/login/key", &fields).await
    }

    async fn answer(&self, question: &str, answer: &str) -> Answer {
        let fields = [("question", question), ("answer", answer)];
        self.site.post(&Site::nobody(), "/login/key/answer", &fields).await
    }
}

fn is_in(answer: &Answer) -> bool {
    answer.status == StatusCode::SEE_OTHER && answer.location() == "/patients"
}

#[tokio::test]
async fn a_key_logs_in_where_the_code_would() {
    assert!(FORM_COOKIE.starts_with("__Host-"));
    let (door, mut key) = (Door::new().await, Key::new(1));
    assert_eq!(door.add(&key).await.location(), "/account");
    assert!(door.site.get(&door.inside, "/account").await.body.contains("spare from the drawer"));
    let page = door.ask("keller", PASSWORD).await;
    assert_eq!(page.status, StatusCode::OK);
    let (question, asked) = (hidden(&page.body, "question").to_owned(), options(&page.body));
    assert_eq!(asked["allowCredentials"][0]["id"], encoded(&key.id));
    let answer = key.answer(&asked);
    assert!(is_in(&door.answer(&question, &answer).await));
    assert!(!is_in(&door.answer(&question, &answer).await), "an answer is good once");
    // A copy of the key that has not counted as far is refused, whatever it knows.
    let mut copy = Key { counter: 0, ..Key::new(1) };
    let page = door.ask("keller", PASSWORD).await.body;
    assert!(!is_in(&door.answer(hidden(&page, "question"), &copy.answer(&options(&page))).await));
    // It is told, to whoever owns the key and to whoever gives access, until the key is removed.
    let admin = door.site.session(Role::PracticeAdmin).await;
    let own = door.site.get(&door.inside, "/account").await.body;
    assert!(own.contains("there may be a copy of it") && own.contains("Remove it, and add another key"), "{own}");
    let users = door.site.get(&admin, "/users").await.body;
    assert!(users.contains("There may be a copy of a key of <b>Test Person"), "{users}");
    let audit = door.site.get(&admin, "/audit?outcome=failed").await.body;
    assert!(audit.contains("key-copied"), "{audit}");
    // The same key on two accounts, or twice on one, is none.
    assert_eq!(door.add(&key).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let id = hidden(&own, "key").to_owned();
    door.site.post(&door.inside, "/account/keys/end", &[("key", &id)]).await;
    assert!(!door.site.get(&admin, "/users").await.body.contains("There may be a copy"));
    // Who answers with another key's signature, or without one, raises no alarm.
    assert_eq!(door.add(&key).await.location(), "/account");
    let page = door.ask("keller", PASSWORD).await.body;
    let mut stranger = Key { id: key.id, ..Key::new(2) };
    assert!(!is_in(&door.answer(hidden(&page, "question"), &stranger.answer(&options(&page))).await));
    assert!(!door.site.get(&admin, "/users").await.body.contains("There may be a copy"));
}

#[tokio::test]
async fn neither_password_nor_key_is_enough_alone() {
    let (door, mut key) = (Door::new().await, Key::new(1));
    assert!(door.ask("keller", PASSWORD).await.body.contains("No key was added"), "the code is the way then");
    door.add(&key).await;
    for (name, password) in [("keller", "a guess at it"), ("nobody", PASSWORD)] {
        let refused = door.ask(name, password).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(!refused.body.contains("data-options") && refused.body.contains("Name or password is not right"));
    }
    let page = door.ask("keller", PASSWORD).await.body;
    let (question, asked) = (hidden(&page, "question").to_owned(), options(&page));
    let mut stranger = Key { id: key.id, ..Key::new(2) };
    assert!(!is_in(&door.answer(&question, &stranger.answer(&asked)).await), "another key under the same id");
    assert!(!is_in(&door.answer(&question, &key.answer(&asked)).await), "a question is answered once, also wrongly");
    assert!(!is_in(&door.answer("made up", &key.answer(&asked)).await));
    // One that waits too long, and one for adding a key.
    let page = door.ask("keller", PASSWORD).await.body;
    door.site.later(crate::access::webauthn::keys::QUESTION_S + 1);
    assert!(!is_in(&door.answer(hidden(&page, "question"), &key.answer(&options(&page))).await));
    let fields = [("label", "second"), ("key-password", PASSWORD)];
    let page = door.site.post(&door.inside, "/account/keys/new", &fields).await.body;
    let crossed = door.answer(hidden(&page, "question"), &key.answer(&options(&page))).await;
    assert_eq!(crossed.status, StatusCode::FORBIDDEN);
    // Whoever was let go is let in by no key.
    let page = door.ask("keller", PASSWORD).await.body;
    let end = |db: &crate::db::Connection| crate::access::accounts::set_disabled(db, "keller", true, 1);
    let actor = crate::access::Actor::program(crate::access::Program::CommandLine);
    door.site.web.write_accounts(&actor, end).await.unwrap();
    assert!(!is_in(&door.answer(hidden(&page, "question"), &key.answer(&options(&page))).await));
}

#[tokio::test]
async fn guessing_at_the_key_door_locks_out_like_at_the_other() {
    let door = Door::new().await;
    door.add(&Key::new(1)).await;
    for _ in 0..5 {
        door.ask("keller", "a guess at it").await;
    }
    assert!(door.ask("keller", PASSWORD).await.body.contains("Too many failed attempts"));
}

#[tokio::test]
async fn keys_are_added_with_the_password_and_removed_by_their_owner() {
    let (door, key) = (Door::new().await, Key::new(1));
    let fields = [("label", "spare from the drawer"), ("key-password", "a guess at it")];
    let refused = door.site.post(&door.inside, "/account/keys/new", &fields).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    door.add(&key).await;
    let page = door.site.get(&door.inside, "/account").await.body;
    let id = hidden(&page, "key").to_owned();
    let other = door.site.session(Role::Clinician).await;
    assert_eq!(door.site.post(&other, "/account/keys/end", &[("key", &id)]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(door.site.post(&door.inside, "/account/keys/end", &[("key", &id)]).await.location(), "/account");
    assert!(!door.site.get(&door.inside, "/account").await.body.contains("spare from the drawer"));
    assert!(door.ask("keller", PASSWORD).await.body.contains("No key was added"));
}
