//! What the writer's secrets give away: no content, no name, no size.

mod practice;

use backup_engine::{OpenKey, WriterCredential};
use backup_format::aead::{SlotCipher, SlotKey};
use backup_format::ids::RepositoryId;
use backup_format::index::parse_catalog;
use backup_format::keys::IdKey;
use backup_format::manifest::OuterManifest;
use backup_format::pack::open_pack;
use backup_format::seal::OpenSeeds;
use backup_format::sealed::{CLASSES, PartsKind, open_parts};
use practice::Practice;
use std::fs;

const CONTENT: &[u8] = b"Erika Mustermann, born 1964-08-12, allergic to penicillin";
const NAME: &str = "mustermann-erika-1964.txt";
const UNUSUAL_SIZE: usize = 123_457;

/// Every 32-byte string in the writer's file: whatever is a key there is among them.
fn windows(writer: &WriterCredential) -> Vec<[u8; 32]> {
    writer.to_bytes().windows(32).map(|window| window.try_into().unwrap()).collect()
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_secrets_of_a_writer_open_no_pack_and_find_no_name_content_or_size() {
    let practice = Practice::new(1).await;
    fs::write(practice.source().join(NAME), CONTENT).unwrap();
    fs::write(practice.source().join("size"), vec![b'x'; UNUSUAL_SIZE]).unwrap();
    practice.snapshot().await;
    let writer = &practice.made.writer;
    let repository: RepositoryId = writer.repository();
    let secrets = windows(writer);
    let sizes: Vec<Vec<u8>> = vec![
        (UNUSUAL_SIZE as u32).to_le_bytes().to_vec(),
        (UNUSUAL_SIZE as u32).to_be_bytes().to_vec(),
        UNUSUAL_SIZE.to_string().into_bytes(),
        vec![0xc1, 0xc4, 0x07],
    ];
    assert_eq!(0xc1 & 0x7f | (0xc4 & 0x7f) << 7 | 0x07 << 14, UNUSUAL_SIZE, "the size as a varint");
    let mut packs = 0;
    for (name, path) in practice.objects("store-0") {
        let bytes = fs::read(path).unwrap();
        let mut readable = vec![bytes.clone(), name.clone().into_bytes()];
        let kind = match name.split('/').next().unwrap() {
            "packs" => {
                packs += 1;
                assert!(open_pack(&bytes, repository, practice.made.open.open_seed()).is_ok());
                for secret in secrets.iter().step_by(7) {
                    assert!(open_pack(&bytes, repository, &OpenSeeds::single(1, *secret)).is_err());
                }
                for secret in &secrets {
                    // As the pack's own key, on the first segment.
                    let cipher = SlotCipher::new(&SlotKey::from_bytes(*secret), b"");
                    assert!(cipher.open(0, &bytes[1196..1296], "segment").is_err());
                }
                None
            }
            "index" => Some(PartsKind::Index),
            "snapshots" => Some(PartsKind::Snapshot),
            _ => None,
        };
        if let Some(kind) = kind {
            assert!(CLASSES.contains(&bytes.len()));
            let parts = open_parts(kind, writer.catalog(), &bytes).unwrap();
            for secret in secrets.iter().step_by(7) {
                assert!(parts.open_part(&OpenSeeds::single(1, *secret)).is_err());
            }
            match kind {
                PartsKind::Index => assert!(parse_catalog(&parts.catalog_part).is_ok()),
                PartsKind::Snapshot => {
                    let outer = OuterManifest::parse(&parts.catalog_part).unwrap();
                    assert_eq!(outer.files, 2, "counts are what the catalog may know");
                }
            }
            readable.push(parts.catalog_part);
        }
        for text in &readable {
            for hidden in [CONTENT, NAME.as_bytes(), b"tag-of-the-test", b"facts-of-the-test"] {
                assert!(!holds(text, hidden), "{name}");
            }
        }
        if let Some(catalog_part) = readable.get(2) {
            assert!(sizes.iter().filter(|size| size.len() > 3).all(|size| !holds(catalog_part, size)), "{name}");
        }
    }
    assert_eq!(packs, 2, "data and tree are kept apart");
    assert!(OpenKey::from_bytes(&writer.to_bytes()).is_err());
    // The stated limit: who holds the id key can confirm a guess, no more.
    let id = writer.id_key().chunk_id(backup_format::ChunkKind::Data, CONTENT);
    assert_eq!(IdKey::chunk_id(practice.made.open.id_key(), backup_format::ChunkKind::Data, CONTENT), id);
}
