//! Whether the recovery kit still fits: beside serve.toml lies a note of what the kit says about each store, so that `serve`
//! notices when a provider's key was changed, a store came or went, or a keyring was written, and the kit in the safe is out of
//! date.
//!
//! The note holds no secret: the number of the kit's keyring, and a hash for each store, keyed with what only the practice's own
//! credentials hold.

use super::kit::{Kit, KitStore};
use crate::secret;
use crate::settings::{ServeSettings, StoreSetting};
use anyhow::Context;
use backup_engine::{CatalogKey, SourceId};
use backup_report::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

const FORM: &str = "holdfast-kit-note/1";
const FILE: &str = "kit.note";
/// Whose key is used for the hashes: the id of no source, which stands in no store.
const KEYED_BY: &str = "holdfast recovery kit\n";

/// What the newest kit says about each store, by the store's name.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KitNote {
    form: String,
    pub made_unix_ms: i64,
    /// The number of the kit's keyring. Notes of earlier builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyring: Option<u64>,
    stores: BTreeMap<String, String>,
}

/// How far the kit fits the settings in force.
pub struct Fit {
    /// Stores that it could not open, does not have, or has and should not.
    pub stale: BTreeSet<String>,
    /// Whether it still opens any of the stores.
    pub opens_any: bool,
    /// The stores hold a newer keyring, or nobody can say which one the kit holds.
    pub older_keyring: bool,
}

impl Fit {
    /// Of a note that is there and cannot be read: that the kit fits is not known, and making it current mends the note too.
    pub fn unknown() -> Self {
        Self { stale: BTreeSet::new(), opens_any: true, older_keyring: true }
    }
}

fn place(serve_toml: &Path) -> PathBuf {
    serve_toml.with_file_name(FILE)
}

/// What is needed to reach a store, whoever uses it and whatever it is called by people.
fn hash(store: &KitStore, key: SourceId) -> anyhow::Result<String> {
    let mut plain = store.clone();
    (plain.site, plain.provider) = (String::new(), String::new());
    if let Some(s3) = &mut plain.s3 {
        (s3.verifier_access_key, s3.verifier_secret_key) = (None, None);
    }
    if let Some(azure) = &mut plain.azure {
        azure.verifier_key = None;
    }
    if let Some(gcs) = &mut plain.gcs {
        gcs.verifier_service_account = None;
    }
    let mut text = Zeroizing::new(key.as_bytes().to_vec());
    text.extend(Zeroizing::new(serde_json::to_vec(&plain).context("a store of the kit")?).iter());
    plain.zeroize();
    Ok(Digest::sha256(&text).as_str().to_owned())
}

impl KitNote {
    /// Notes what a kit that was just written says.
    /// It may be read by anybody on this machine, as `serve` runs as another user than whoever makes the kit.
    pub fn write(kit: &Kit, catalog: &CatalogKey, serve_toml: &Path) -> anyhow::Result<()> {
        let key = catalog.source_id(KEYED_BY);
        let hash = |store: &KitStore| Ok((store.name.clone(), hash(store, key)?));
        let stores = kit.stores.iter().map(hash).collect::<anyhow::Result<_>>()?;
        let keyring = Some(kit.keyring_number());
        let note = Self { form: FORM.to_owned(), made_unix_ms: kit.made_unix_ms, keyring, stores };
        let mut text = serde_json::to_string_pretty(&note).context("the note of the kit")?;
        text.push('\n');
        let file = place(serve_toml);
        secret::replace(&file, text.as_bytes())
            .and_then(|()| Ok(std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644))?))
            .with_context(|| format!("{} cannot be written", file.display()))
    }

    /// `None` where no kit was noted on this machine.
    pub fn read(serve_toml: &Path) -> anyhow::Result<Option<Self>> {
        let file = place(serve_toml);
        let text = match std::fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("{} cannot be read", file.display()))?,
        };
        let note: Self =
            serde_json::from_slice(&text).map_err(|_| anyhow::anyhow!("{} is no note of a kit", file.display()))?;
        Ok(Some(note).filter(|note| note.form == FORM))
    }

    /// Compares it with the stores as they are reached now, and with the number of their newest keyring as far as that is known.
    pub fn fit(&self, settings: &ServeSettings, catalog: &CatalogKey, newest: Option<u64>) -> anyhow::Result<Fit> {
        let mut stale: BTreeSet<String> = self.stores.keys().cloned().collect();
        let (key, mut opens_any) = (catalog.source_id(KEYED_BY), false);
        for setting in &settings.stores {
            if self.stores.get(&setting.name) == Some(&current(setting, key)?) {
                stale.remove(&setting.name);
                opens_any = true;
            } else {
                stale.insert(setting.name.clone());
            }
        }
        Ok(Fit { stale, opens_any, older_keyring: self.is_older(newest) })
    }

    fn is_older(&self, newest: Option<u64>) -> bool {
        self.keyring.zip(newest).is_some_and(|(ours, newest)| ours < newest)
    }
}

fn current(setting: &StoreSetting, key: SourceId) -> anyhow::Result<String> {
    hash(&KitStore::of(setting, None)?, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::StoreKind;

    fn store(dir: &Path, name: &str) -> StoreSetting {
        for (file, text) in [("access", "AKIA"), ("secret", "s3cr3t")] {
            std::fs::write(dir.join(file), text).unwrap();
        }
        let text = format!(
            "practice = \"P\"\ntime_zone = \"UTC\"\nsite = \"here\"\nstate_dir = \"state\"\nsocket = \"s\"\nquorum = 1\n\
            [[source]]\nname = \"emr\"\nkind = \"folder\"\npath = \"x\"\nschedule = \"0 0 1 1 *\"\n\
            [[store]]\nname = \"{name}\"\nkind = \"s3\"\nbucket = \"b\"\nsite = \"east\"\nprovider = \"p\"\n\
            access_key_file = \"access\"\nsecret_key_file = \"secret\"\n"
        );
        std::fs::write(dir.join("serve.toml"), text).unwrap();
        ServeSettings::load(&dir.join("serve.toml")).unwrap().stores.remove(0)
    }

    #[test]
    fn a_newer_keyring_makes_the_kit_old_and_a_note_of_an_earlier_build_says_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let serve = dir.path().join("serve.toml");
        let is_older = |keyring: &str, newest| {
            let text = format!(r#"{{"form": "{FORM}", "made_unix_ms": 1, {keyring} "stores": {{}}}}"#);
            std::fs::write(place(&serve), text).unwrap();
            KitNote::read(&serve).unwrap().unwrap().is_older(newest)
        };
        assert!(is_older(r#""keyring": 1,"#, Some(2)));
        assert!(!is_older(r#""keyring": 2,"#, Some(2)) && !is_older(r#""keyring": 3,"#, Some(2)));
        assert!(!is_older(r#""keyring": 1,"#, None) && !is_older("", Some(2)), "nobody knows");
    }

    #[test]
    fn another_key_or_address_changes_the_hash_and_a_label_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let setting = store(dir.path(), "east");
        let key = |byte: u8| SourceId([byte; 16]);
        let before = current(&setting, key(1)).unwrap();
        assert_ne!(before, current(&setting, key(2)).unwrap(), "it is keyed");
        let mut moved = setting.clone();
        moved.site = "west".to_owned();
        assert_eq!(before, current(&moved, key(1)).unwrap());
        if let StoreKind::S3 { bucket, .. } = &mut moved.kind {
            *bucket = "other".to_owned();
        }
        assert_ne!(before, current(&moved, key(1)).unwrap());
        std::fs::write(dir.path().join("secret"), "rotated").unwrap();
        assert_ne!(before, current(&setting, key(1)).unwrap());
    }
}
