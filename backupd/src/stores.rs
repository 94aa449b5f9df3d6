//! From settings to open stores, and what is known of each.

use crate::settings::{AzureAccessFile, StoreKind, StoreSetting};
use backup_engine::store::versions::VersionedStore;
use backup_engine::store::{AsOfStore, RenewStore, Store};
use backup_engine::{
    AzureAccess, Env, ErrorKind, LockWish, Loss, NamedMaintenanceStore, NamedStore, Protection, SnapshotInfo,
    StoreLimits, StoreLocation,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// An access or secret key longer than this is none.
const KEY_FILE_BYTES_MAX: u64 = 4096;
const SERVICE_ACCOUNT_BYTES_MAX: u64 = 16 << 10;

/// Opens a store of the settings; reads its key files, makes no request. Key files that are replaced later are taken when
/// the store refuses the old ones.
pub fn open(setting: &StoreSetting) -> backup_engine::Result<NamedStore> {
    // A mistake in the settings says by itself which store it is about.
    location(setting)?;
    let again = setting.clone();
    let store = RenewStore::open(move || location(&again), limits(setting))
        .map_err(|e| e.context(format!("store {}", setting.name)))?;
    Ok(named(setting, Arc::new(store)))
}

fn named(setting: &StoreSetting, store: Arc<dyn Store>) -> NamedStore {
    let (site, provider) = setting.domain();
    NamedStore::new(setting.name.clone(), store, setting.counts()).in_domain(format!("{site}/{provider}"))
}

fn limits(setting: &StoreSetting) -> StoreLimits {
    StoreLimits { upload_bytes_per_s: setting.upload_bytes_per_s, lock: setting.lock, ..StoreLimits::default() }
}

/// A store whose objects are locked.
pub struct Locking {
    pub store: NamedStore,
    pub versions: Arc<dyn VersionedStore>,
    /// How long these have to stay locked.
    pub wish: LockWish,
}

/// The store's locks; `None`: it has none.
pub fn locks(setting: &StoreSetting) -> backup_engine::Result<Option<Locking>> {
    let Some(rule) = setting.lock else { return Ok(None) };
    let Some(versions) = location(setting)?.open_versions(limits(setting))? else { return Ok(None) };
    // Half of the time is left for runs that fail.
    Ok(Some(Locking { store: open(setting)?, versions, wish: LockWish { rule, slack_ms: rule.ms / 2 } }))
}

/// The store as it was at a time, for reading; `None`: it keeps no versions that could be asked for.
pub async fn as_of(setting: &StoreSetting, unix_ms: i64) -> backup_engine::Result<Option<NamedStore>> {
    let Some(versions) = location(setting)?.open_versions(limits(setting))? else { return Ok(None) };
    let past = AsOfStore::open(versions, unix_ms).await.map_err(|e| e.context(format!("store {}", setting.name)))?;
    Ok(Some(named(setting, Arc::new(past))))
}

/// What whoever has these credentials can do to what the store holds.
pub async fn probe(setting: &StoreSetting, env: &Env) -> backup_engine::Result<Protection> {
    location(setting)?.probe(env, limits(setting)).await
}

/// Opens all for maintenance, which may replace objects.
pub fn open_all_for_maintenance(settings: &[StoreSetting]) -> backup_engine::Result<Vec<NamedMaintenanceStore>> {
    let open = |setting: &StoreSetting| {
        let store = location(setting)?.open_for_maintenance(limits(setting));
        let store = store.map_err(|e| e.context(format!("store {}", setting.name)))?;
        Ok(NamedMaintenanceStore::new(setting.name.clone(), store, setting.counts()))
    };
    settings.iter().map(open).collect()
}

/// Opens all; one that cannot be opened is a mistake in the settings.
pub fn open_all(settings: &[StoreSetting]) -> backup_engine::Result<Vec<NamedStore>> {
    settings.iter().map(open).collect()
}

/// Marks what is mounted now as this store. `None`: the store is not removable; `false`: it was marked before.
pub fn mark(setting: &StoreSetting) -> backup_engine::Result<Option<bool>> {
    match &setting.kind {
        StoreKind::Folder { path, removable: true } => backup_engine::mark_removable(path, &setting.name).map(Some),
        _ => Ok(None),
    }
}

fn location(setting: &StoreSetting) -> backup_engine::Result<StoreLocation> {
    match &setting.kind {
        StoreKind::Folder { path, removable: false } => Ok(StoreLocation::Folder { path: path.clone() }),
        StoreKind::Folder { path, removable: true } => {
            Ok(StoreLocation::Removable { path: path.clone(), name: setting.name.clone() })
        }
        StoreKind::S3 { endpoint, bucket, prefix, region, access_key_file, secret_key_file } => Ok(StoreLocation::S3 {
            allow_http: endpoint.as_deref().is_some_and(|e| e.starts_with("http://")),
            endpoint: endpoint.clone(),
            bucket: bucket.clone(),
            prefix: prefix.clone(),
            region: region.clone(),
            access_key: key_file(&setting.name, access_key_file)?,
            secret_key: key_file(&setting.name, secret_key_file)?,
            session_token: None,
        }),
        StoreKind::Azure { endpoint, account, container, prefix, access } => Ok(StoreLocation::Azure {
            endpoint: endpoint.clone(),
            account: account.clone(),
            container: container.clone(),
            prefix: prefix.clone(),
            access: match access {
                AzureAccessFile::AccountKey(file) => AzureAccess::AccountKey(key_file(&setting.name, file)?),
                AzureAccessFile::Signature(file) => AzureAccess::Signature(key_file(&setting.name, file)?),
            },
        }),
        StoreKind::Gcs { endpoint, bucket, prefix, service_account_file } => Ok(StoreLocation::Gcs {
            endpoint: endpoint.clone(),
            bucket: bucket.clone(),
            prefix: prefix.clone(),
            service_account: Some(service_account(&setting.name, service_account_file)?),
        }),
    }
}

/// The text of a service account's key as the provider gave it.
pub fn service_account(store: &str, path: &Path) -> backup_engine::Result<String> {
    let text = key_text(store, path, SERVICE_ACCOUNT_BYTES_MAX, "it must be a service account's key in JSON")?;
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(key) if key.get("type").is_some_and(|word| word == "service_account") => Ok(text),
        _ => Err(wrong_key(store, path, "is no service account's key", "make one for a service account, in JSON")),
    }
}

/// The text of a store's key file, without surrounding white space.
pub fn key_file(store: &str, path: &Path) -> backup_engine::Result<String> {
    const REMEDY: &str = "it must hold the key as one line of text";
    let text = key_text(store, path, KEY_FILE_BYTES_MAX, REMEDY)?;
    let key = text.trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(wrong_key(store, path, "does not hold one word", REMEDY));
    }
    Ok(key.to_owned())
}

fn key_text(store: &str, path: &Path, bytes_max: u64, remedy: &str) -> backup_engine::Result<String> {
    let unreadable = |e: std::io::Error| wrong_key(store, path, &format!("cannot be read ({})", e.kind()), remedy);
    if std::fs::metadata(path).map_err(unreadable)?.len() > bytes_max {
        return Err(wrong_key(store, path, "is too large", remedy));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn wrong_key(store: &str, path: &Path, problem: &str, remedy: &str) -> backup_engine::Error {
    let message = format!("store {store}: key file {} {problem}: {remedy}", path.display());
    backup_engine::Error::new(ErrorKind::Misconfigured, message)
}

const LOSS_TOLD_MS: i64 = 7 * 24 * 3_600_000;

/// What the last looks at a store showed.
#[derive(Debug, Clone, Default)]
pub struct StoreView {
    /// The last request for its heads was answered; `None` before the first.
    pub reachable: Option<bool>,
    /// It was asked since the daemon started: before that, what it was last seen to hold is told, and not that it is well.
    pub asked: bool,
    /// It has answered once, now or before a restart: else nobody knows what it holds and how far it is behind.
    pub known: bool,
    /// Counter-wise newest snapshot whose head it holds.
    pub complete_unix_ms: Option<i64>,
    /// Durable snapshots that it lacks.
    pub lag_snapshots: u64,
    /// What these added, and how far the newest snapshot is ahead of what it has.
    pub lag_bytes: u64,
    pub lag_ms: u64,
    /// Why it did not answer the last request for its heads.
    pub silent_because: Option<String>,
    /// Why the last snapshot or catch-up did not bring it up to date.
    pub behind_because: Option<String>,
    pub bytes: Option<u64>,
    /// First object that is missing or damaged, from the last scrub or from a rejected head.
    pub missing: Option<String>,
    pub corrupt: Option<String>,
    /// First object that a snapshot or a catch-up found damaged there.
    pub damaged: Option<String>,
    /// First object that it had, or should have, and that no store has any more; nobody has looked into it.
    pub gone: Option<String>,
    /// There are such, whether somebody has looked into it or not.
    pub has_gone: bool,
    /// When the newest look began after which it lacked nothing that another store holds, whatever is damaged there.
    pub lacks_nothing_unix_ms: Option<i64>,
    /// Since when what was damaged and is whole again is to be looked into.
    pub healed_unix_ms: Option<i64>,
    pub proof: Option<Proof>,
    /// What it lost at the last time that it lost anything; made good since, or not.
    pub lost: Option<Loss>,
    /// When the newest look at every object began that found all of them whole, with nothing lacking that another store holds.
    pub looked_unix_ms: Option<i64>,
    /// What the last probe showed, and when.
    pub protection: Option<(Protection, i64)>,
    pub sound: Sound,
}

/// Snapshots that rest on nothing that is damaged at a store, though nobody can put it right: the damage was known when
/// they were taken, so what it had held was read from the source again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sound {
    /// The damage that is known now, a mark for each object.
    marks: BTreeSet<String>,
    /// What was taken, oldest first.
    taken: Vec<Taken>,
}

/// Snapshots that were taken while the same damage was known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    marks: BTreeSet<String>,
    snapshots: BTreeSet<String>,
}

/// Of so many different states of damage the newest are remembered.
const TAKEN_MAX: usize = 8;

impl Sound {
    /// Takes in the damage that is known now; whether anything changes.
    pub fn knows(&mut self, marks: &BTreeSet<String>) -> bool {
        let changes = self.marks != *marks;
        if changes {
            self.marks.clone_from(marks);
        }
        changes
    }

    /// A snapshot was taken; of those that are no longer listed nobody asks.
    pub fn took(&mut self, id: &str, listed: &BTreeSet<String>) {
        for taken in &mut self.taken {
            taken.snapshots.retain(|id| listed.contains(id));
        }
        self.taken.retain(|taken| !taken.snapshots.is_empty());
        // Where nothing is damaged nobody asks.
        if self.marks.is_empty() {
            return;
        }
        match self.taken.iter_mut().find(|taken| taken.marks == self.marks) {
            Some(taken) => drop(taken.snapshots.insert(id.to_owned())),
            None => self.taken.push(Taken { marks: self.marks.clone(), snapshots: BTreeSet::from([id.to_owned()]) }),
        }
        let oldest = self.taken.len().saturating_sub(TAKEN_MAX);
        self.taken.drain(..oldest);
    }

    /// Whether all damage that is known now was known when it was taken: what was put right since casts no doubt on it.
    fn has(&self, id: &str) -> bool {
        self.taken.iter().any(|taken| self.marks.is_subset(&taken.marks) && taken.snapshots.contains(id))
    }
}

/// The newest drill of a store, from a report that the verifier signed.
#[derive(Debug, Clone)]
pub struct Proof {
    pub verdict: backupd_api::DrillVerdict,
    /// The source whose own damage kept the newest drill from proving anything.
    pub source_damaged: Option<String>,
    /// What the newest drill found wrong in the store, if anything: missing or corrupt.
    pub damaged: Option<backupd_api::StoreCondition>,
    /// The newest drill brought everything back, of a source that seals nothing to compare.
    pub nothing_sealed: bool,
    /// The newest drill that passed, or would have if there were something to compare.
    pub whole_unix_ms: Option<i64>,
    /// The newest passed drill.
    pub passed_unix_ms: Option<i64>,
    /// The snapshots that passed a drill from this store.
    pub proved: Vec<String>,
}

impl StoreView {
    /// Takes in which snapshots the store has yet to receive.
    pub fn behind<'a>(&mut self, lacked: impl Iterator<Item = &'a SnapshotInfo>) {
        let lacked: Vec<&SnapshotInfo> = lacked.collect();
        self.lag_snapshots = lacked.len() as u64;
        self.lag_bytes = lacked.iter().map(|snapshot| snapshot.bytes_added).sum();
        let newest = lacked.iter().map(|snapshot| snapshot.taken_unix_ms).max();
        let oldest = lacked.iter().map(|snapshot| snapshot.taken_unix_ms).min();
        // A store that has something newer lacks only what lies before: it is behind by nothing.
        let ahead = newest.zip(self.complete_unix_ms.or(oldest)).map_or(0, |(newest, has)| newest.saturating_sub(has));
        self.lag_ms = u64::try_from(ahead).unwrap_or(0);
    }

    /// The same of a store that does not answer: nothing has caught it up, so what it was last seen to lack it lacks still,
    /// though it may be nowhere else any more.
    pub fn silent_behind<'a>(&mut self, lacked: impl Iterator<Item = &'a SnapshotInfo>) {
        let before = (self.lag_snapshots, self.lag_bytes, self.lag_ms);
        self.behind(lacked);
        if self.lag_snapshots < before.0 {
            (self.lag_snapshots, self.lag_bytes, self.lag_ms) = before;
        }
    }

    /// The one word for the store. What is known to be damaged outweighs that it cannot be asked now.
    pub fn condition(&self) -> backupd_api::StoreCondition {
        use backupd_api::StoreCondition::{Corrupt, Late, Missing, Ok, Unknown, Unreachable};
        let drilled = self.proof.as_ref().and_then(|p| p.damaged);
        if self.corrupt.is_some() || self.damaged.is_some() || drilled == Some(Corrupt) {
            Corrupt
        } else if self.missing.is_some() || self.gone.is_some() || drilled == Some(Missing) {
            Missing
        } else if self.reachable == Some(false) {
            Unreachable
        } else if !self.asked {
            Unknown
        } else if self.lag_snapshots > 0 {
            Late
        } else {
            Ok
        }
    }

    pub fn complete_since(&self, began: i64) -> bool {
        self.lacks_nothing_unix_ms.is_some_and(|at| at >= began)
    }

    /// Whether what is known to be lost or damaged there may belong to a snapshot.
    pub fn is_in_doubt(&self, info: &SnapshotInfo) -> bool {
        use backupd_api::StoreCondition::{Corrupt, Missing};
        let drilled = self.proof.as_ref().and_then(|proof| proof.damaged).is_some();
        let is_sound = || self.sound.has(&info.id.to_string());
        let is_wrong = matches!(self.condition(), Corrupt | Missing) || self.has_gone;
        drilled || self.missing.is_some() || is_wrong && !is_sound()
    }

    /// Why it does not answer, or is behind.
    pub fn reason(&self) -> Option<&String> {
        match self.condition() {
            backupd_api::StoreCondition::Unreachable => self.silent_because.as_ref(),
            backupd_api::StoreCondition::Late => self.behind_because.as_ref(),
            _ => None,
        }
    }

    /// A loss after which neither a drill from this store nor a look at all of it has found everything. Where nobody drills it is
    /// told for a week.
    pub fn open_loss(&self, now_ms: i64) -> Option<Loss> {
        let loss = self.lost?;
        let drilled = self.proof.as_ref().and_then(|proof| proof.whole_unix_ms);
        let answered = drilled.max(self.looked_unix_ms).is_some_and(|whole| whole > loss.at_unix_ms);
        let is_old = drilled.is_none() && now_ms.saturating_sub(loss.at_unix_ms) > LOSS_TOLD_MS;
        (!answered && !is_old).then_some(loss)
    }

    pub fn damaged_object(&self) -> Option<&String> {
        self.corrupt.as_ref().or(self.damaged.as_ref()).or(self.missing.as_ref())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Some snapshot of the source `emr`, of this age and with so many bytes, all of them new.
    pub(crate) fn snapshot(taken_unix_ms: i64, bytes: u64) -> SnapshotInfo {
        SnapshotInfo {
            id: backup_engine::SnapshotId([0; 32]),
            source: "emr".to_owned(),
            incarnation: backup_engine::IncarnationId([0; 16]),
            counter: 1,
            taken_unix_ms,
            partial: false,
            files: 1,
            bytes_source: bytes,
            bytes_added: bytes,
            tag: None,
            stores: Vec::new(),
            forked: false,
            head: backup_engine::HeadName {
                source: backup_engine::SourceId([0; 16]),
                incarnation: backup_engine::IncarnationId([0; 16]),
                counter: 1,
                hash: backup_engine::ObjectHash([0; 32]),
            },
            follows: Vec::new(),
            plan_seen: None,
            set_back: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::snapshot;
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_was_taken_in_spite_of_damage_is_sound_until_there_is_more_of_it() {
        let mut sound = Sound::default();
        assert!(!sound.knows(&set(&[])) && sound.knows(&set(&["old"])));
        let listed = set(&["1", "2", "3"]);
        sound.took("1", &listed);
        assert!(sound.has("1") && !sound.has("0"));
        assert!(sound.knows(&set(&["old", "new"])), "which snapshots rest on it nobody knows");
        assert!(!sound.has("1"));
        sound.took("2", &listed);
        assert!(sound.knows(&set(&["old"])), "it was put right");
        assert!(sound.has("1") && sound.has("2"));
        assert!(sound.knows(&set(&["new"])) && !sound.has("1") && sound.has("2"));
        let told: Sound = serde_json::from_str(&serde_json::to_string(&sound).unwrap()).unwrap();
        assert_eq!(told, sound);
        sound.took("3", &set(&["3"]));
        assert!(sound.has("3") && !sound.has("2"), "it is listed no longer");
        for damage in 0..20 {
            sound.knows(&set(&[&damage.to_string()]));
            sound.took("3", &listed);
        }
        assert_eq!(sound.taken.len(), TAKEN_MAX);
        let before: Sound = serde_json::from_str(r#"{"mark":"ab","snapshots":["1"]}"#).unwrap();
        assert_eq!(before, Sound::default(), "what an earlier release noted");
    }
    use backupd_api::StoreCondition;

    #[test]
    fn four_words_that_never_mean_each_other() {
        let mut view = StoreView { reachable: Some(true), ..StoreView::default() };
        assert_eq!(view.condition(), StoreCondition::Unknown, "nobody has asked since the start");
        view.asked = true;
        assert_eq!(view.condition(), StoreCondition::Ok);
        view.lag_snapshots = 1;
        assert_eq!(view.condition(), StoreCondition::Late);
        view.reachable = Some(false);
        assert_eq!(view.condition(), StoreCondition::Unreachable);
        view.missing = Some("packs/aa".to_owned());
        assert_eq!(view.condition(), StoreCondition::Missing);
        view.corrupt = Some("packs/bb".to_owned());
        assert_eq!(view.condition(), StoreCondition::Corrupt);
        assert_eq!(view.damaged_object().map(String::as_str), Some("packs/bb"));
    }

    #[test]
    fn a_loss_is_open_until_a_drill_or_a_look_that_came_after_it_found_everything() {
        let lost = Some(Loss { objects: 3, at_unix_ms: 1_000 });
        let mut view = StoreView { lost, looked_unix_ms: Some(900), ..StoreView::default() };
        assert_eq!(view.open_loss(2_000), lost, "it was whole before");
        let proof = Proof {
            verdict: backupd_api::DrillVerdict::Inconclusive,
            source_damaged: None,
            damaged: None,
            nothing_sealed: true,
            whole_unix_ms: Some(1_500),
            passed_unix_ms: None,
            proved: Vec::new(),
        };
        view.proof = Some(proof);
        assert_eq!(view.open_loss(2_000), None, "a folder is never proved");
        view.lost = Some(Loss { objects: 1, at_unix_ms: 1_600 });
        assert_eq!(view.open_loss(2_000), view.lost, "the next one is another");
        assert_eq!(view.open_loss(2_000 + LOSS_TOLD_MS), view.lost, "somebody drills");
        view.looked_unix_ms = Some(1_601);
        assert_eq!(view.open_loss(2_000), None);
        let never_drilled = StoreView { lost, ..StoreView::default() };
        assert_eq!((never_drilled.open_loss(2_000), never_drilled.open_loss(2_000 + LOSS_TOLD_MS)), (lost, None));
    }

    #[test]
    fn how_far_a_store_is_behind_is_a_number_of_snapshots_bytes_and_time() {
        let lacked = [snapshot(9_000, 70), snapshot(5_000, 30)];
        let mut view = StoreView { complete_unix_ms: Some(2_000), ..StoreView::default() };
        view.behind(lacked.iter());
        assert_eq!((view.lag_snapshots, view.lag_bytes, view.lag_ms), (2, 100, 7_000));
        view.complete_unix_ms = None;
        view.behind(lacked.iter());
        assert_eq!(view.lag_ms, 4_000, "an empty store: since the oldest");
        view.complete_unix_ms = Some(10_000);
        view.behind(lacked.iter());
        assert_eq!((view.lag_snapshots, view.lag_ms), (2, 0), "it has a newer one and lacks earlier ones");
        view.behind(std::iter::empty());
        assert_eq!((view.lag_snapshots, view.lag_bytes, view.lag_ms), (0, 0, 0));
    }

    #[test]
    fn a_key_file_must_hold_one_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let missing = key_file("east", &path).unwrap_err().to_string();
        assert!(missing.contains("east") && missing.contains("one line"), "{missing}");
        std::fs::write(&path, "AKIA\n").unwrap();
        assert_eq!(key_file("east", &path).unwrap(), "AKIA");
        for bad in ["", "\n", "two words\n"] {
            std::fs::write(&path, bad).unwrap();
            assert!(key_file("east", &path).is_err());
        }
    }
}
