//! What the writer's secrets give away: no content, no name, no size, before and after a rotation.

use crate::practice::{Practice, settle};
use backup_engine::env::OwnerNames;
use backup_engine::{NoProgress, OpenKey, UnlockWith, WriterCredential, rotate, snapshot};
use backup_format::aead::{SlotCipher, SlotKey};
use backup_format::ids::RepositoryId;
use backup_format::index::parse_catalog;
use backup_format::keyring::Keyring;
use backup_format::keys::IdKey;
use backup_format::manifest::OuterManifest;
use backup_format::pack::open_pack;
use backup_format::seal::OpenSeeds;
use backup_format::sealed::{CLASSES, PartsKind, open_parts};
use backup_format::{MachineKey, PaperKey, Unlock};
use std::fs;
use std::sync::Arc;

const CONTENT: &[u8] = b"Erika Mustermann, born 1964-08-12, allergic to penicillin";
const NAME: &str = "mustermann-erika-1964.txt";
const OWNER: &[u8] = b"dr-mustermann";
const UNUSUAL_SIZE: usize = 123_457;

/// Calls every user and group by one unusual name.
struct OneOwner;

impl OwnerNames for OneOwner {
    fn user(&self, _uid: u32) -> Option<Vec<u8>> {
        Some(OWNER.to_vec())
    }

    fn group(&self, _gid: u32) -> Option<Vec<u8>> {
        Some(OWNER.to_vec())
    }

    fn uid(&self, _name: &[u8]) -> Option<u32> {
        None
    }

    fn gid(&self, _name: &[u8]) -> Option<u32> {
        None
    }
}

/// Every 32-byte string in the writers' files: whatever is a key there is among them.
fn windows(writers: &[&WriterCredential]) -> Vec<[u8; 32]> {
    let mut found: Vec<[u8; 32]> = writers
        .iter()
        .flat_map(|writer| writer.to_bytes().windows(32).map(|w| w.try_into().unwrap()).collect::<Vec<_>>())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// None of the secrets opens a pack: not as the seed of its epoch, not as its own key.
fn check_pack(bytes: &[u8], repository: RepositoryId, open: &OpenKey, secrets: &[[u8; 32]]) {
    let record = open_pack(bytes, repository, open.open_seed()).unwrap();
    for secret in secrets.iter().step_by(7) {
        assert!(open_pack(bytes, repository, &OpenSeeds::single(record.epoch, *secret)).is_err());
    }
    let sealed = &bytes[record.segments[0].offset as usize..][..record.segments[0].sealed_len as usize];
    assert!(record.opener(repository).open(0, sealed).is_ok());
    for secret in secrets {
        let cipher = SlotCipher::new(&SlotKey::from_bytes(*secret), b"");
        assert!(cipher.open(0, sealed, "segment").is_err());
        let mut as_own = record.clone();
        as_own.key = SlotKey::from_bytes(*secret);
        assert!(as_own.opener(repository).open(0, sealed).is_err());
    }
}

/// None of the secrets opens the open part; gives what the catalog key opens, which writers may read.
fn check_parts(kind: PartsKind, bytes: &[u8], writer: &WriterCredential, secrets: &[[u8; 32]]) -> Vec<u8> {
    assert!(CLASSES.contains(&bytes.len()));
    let parts = open_parts(kind, writer.catalog(), bytes).unwrap();
    for secret in secrets.iter().step_by(7) {
        assert!(parts.open_part(&OpenSeeds::single(parts.epoch, *secret)).is_err());
    }
    match kind {
        PartsKind::Index => assert!(parse_catalog(&parts.catalog_part).is_ok()),
        PartsKind::Snapshot => {
            let outer = OuterManifest::parse(&parts.catalog_part).unwrap();
            assert!((2..=3).contains(&outer.files), "counts are what the catalog may know");
        }
    }
    parts.catalog_part
}

/// None of the secrets is the secret of a slot.
fn check_keyring(bytes: &[u8], secrets: &[[u8; 32]]) {
    let ring = Keyring::parse(bytes).unwrap();
    for secret in secrets.iter().step_by(29) {
        let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let machine = MachineKey::from_text(&format!("holdfast-machine-key-1-{digits}")).unwrap();
        assert!(ring.open(&Unlock::Machine(&machine)).is_err());
    }
    assert!(OpenKey::from_bytes(bytes).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_secrets_of_a_writer_open_no_pack_and_find_no_name_content_or_size() {
    let mut practice = Practice::new(1).await;
    practice.env = practice.env.clone().with_owner_names(Arc::new(OneOwner));
    fs::write(practice.source().join(NAME), CONTENT).unwrap();
    fs::write(practice.source().join("size"), vec![b'x'; UNUSUAL_SIZE]).unwrap();
    practice.snapshot().await;
    let paper = UnlockWith::PaperKey(PaperKey::from_text(&practice.made.paper_key.to_text()).unwrap());
    let machine = UnlockWith::Machine(MachineKey::generate(&mut practice.env.rng()));
    backup_engine::add_slot(&practice.env, &practice.stores, &paper, machine).await.unwrap();
    let rotated = rotate(&practice.env, &practice.stores, &paper).await.unwrap();
    let (old, new) = (&practice.made.writer, rotated.renew(&practice.made.writer).unwrap());
    fs::write(practice.source().join("second"), CONTENT.repeat(3)).unwrap();
    settle().await;
    snapshot(&practice.env, &new, &practice.stores, practice.request(1), &NoProgress).await.unwrap();

    let (repository, open): (RepositoryId, OpenKey) = (new.repository(), rotated.open_key());
    let secrets = windows(&[old, &new]);
    let mut size = Vec::new();
    backup_format::wire::put_varint(&mut size, UNUSUAL_SIZE as u64);
    let sizes: [Vec<u8>; 4] = [
        (UNUSUAL_SIZE as u32).to_le_bytes().to_vec(),
        (UNUSUAL_SIZE as u32).to_be_bytes().to_vec(),
        UNUSUAL_SIZE.to_string().into_bytes(),
        size,
    ];
    let (mut packs, mut keyrings, mut epochs) = (0, 0, std::collections::BTreeSet::new());
    for (name, path) in practice.objects("store-0") {
        let bytes = fs::read(path).unwrap();
        let mut readable = vec![bytes.clone(), name.clone().into_bytes()];
        match name.split('/').next().unwrap() {
            "packs" => {
                packs += 1;
                epochs.insert(bytes[8]);
                check_pack(&bytes, repository, &open, &secrets);
            }
            "keyring" => {
                keyrings += 1;
                check_keyring(&bytes, &secrets);
            }
            "index" => readable.push(check_parts(PartsKind::Index, &bytes, &new, &secrets)),
            "snapshots" => readable.push(check_parts(PartsKind::Snapshot, &bytes, &new, &secrets)),
            _ => {}
        }
        for text in &readable {
            for hidden in [CONTENT, NAME.as_bytes(), OWNER, b"tag-of-the-test", b"facts-of-the-test"] {
                assert!(!holds(text, hidden), "{name}");
            }
        }
        if let Some(catalog_part) = readable.get(2) {
            assert!(sizes.iter().filter(|size| size.len() > 3).all(|size| !holds(catalog_part, size)), "{name}");
        }
    }
    assert_eq!((packs, keyrings, epochs.len()), (4, 3, 2), "data and tree are kept apart, in both epochs");
    assert!(OpenKey::from_bytes(&new.to_bytes()).is_err());
    // The stated limit: who holds the id key can confirm a guess, no more.
    let id = new.id_key().chunk_id(backup_format::ChunkKind::Data, CONTENT);
    assert_eq!(IdKey::chunk_id(open.id_key(), backup_format::ChunkKind::Data, CONTENT), id);
}
