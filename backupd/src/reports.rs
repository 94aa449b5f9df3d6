//! The log of reports in the stores: opened here or found again there, added to, copied to every store, healed.

use crate::failure;
use backup_engine::{ErrorKind, NamedStore};
use backup_report::{Entry, Hash, Log, Origin, PublicKey, Reach, ReportSigner};
use backupd_api::{Failure, FailureKind};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tokio::sync::{Mutex, MutexGuard};

/// Where the log lies in every store.
pub const PREFIX: &str = "log/";
/// Where the detached signatures lie, beside the log's own objects.
const SIGNATURES: &str = "log/signatures/";

/// So many checkpoints of a store are read in a look for another history: a store may keep any number.
const HEADS_MAX: usize = 64;

/// Objects of a store's log by name.
pub type Objects = Vec<(String, Vec<u8>)>;

#[derive(Default)]
struct LogsInStores {
    /// The longest log that one store holds whole, and its leaves.
    whole: Option<(Vec<Hash>, Objects)>,
    /// The objects of all stores together.
    all: Objects,
    /// How far any of them went.
    reach: Reach,
    /// Stores that answer and hold nothing of a log.
    without: usize,
}

/// What a look at the log in one store found.
pub struct Seen {
    pub objects: u64,
    pub bytes: u64,
    /// Names of objects that do not hold what they must.
    pub corrupt: Vec<String>,
    /// Of those that the log has and the store has not.
    pub missing: Vec<String>,
    /// It lacks the newest ones alone, as a store that did not answer when they were written.
    pub is_behind: bool,
}

/// The log of one verifier.
pub struct Reports {
    state_dir: PathBuf,
    origin: Origin,
    signer: ReportSigner,
    stores: Vec<NamedStore>,
    /// Opened when first needed: an empty one is first looked for in the stores.
    log: Mutex<Option<Log>>,
}

impl LogsInStores {
    /// Whether the longest log that a store holds whole and these leaves are one history. What stands in the folder alone,
    /// because it was set back to a day on which its newest entry had reached no store, is nobody's history.
    fn fits(&self, leaves: &[Hash]) -> bool {
        let theirs = self.whole.as_ref().map_or(&[][..], |(theirs, _)| theirs);
        theirs.iter().zip(leaves).all(|(theirs, own)| theirs == own)
    }

    fn whole_size(&self) -> u64 {
        self.whole.as_ref().map_or(0, |(leaves, _)| leaves.len() as u64)
    }
}

impl Reports {
    pub fn new(state_dir: &Path, origin: Origin, signer: ReportSigner, stores: Vec<NamedStore>) -> Self {
        Self { state_dir: state_dir.to_owned(), origin, signer, stores, log: Mutex::new(None) }
    }

    pub fn key(&self) -> PublicKey {
        self.signer.public_key()
    }

    /// The detached signature of a report.
    pub fn sign(&self, report: &[u8]) -> [u8; backup_report::SIGNATURE_BYTES] {
        self.signer.sign(report)
    }

    /// Opens the log. An empty, damaged or outdated folder is filled again from the store that holds the longest one.
    pub async fn open(&self) -> Result<MutexGuard<'_, Option<Log>>, Failure> {
        let mut guard = self.log.lock().await;
        // The state folder may be removed at any moment: what was opened then leads nowhere.
        if guard.as_ref().is_some_and(|log| !log.is_there()) {
            log::warn!("log.folder-gone");
            *guard = None;
        }
        if guard.is_none() {
            *guard = Some(self.find_log().await?);
        }
        Ok(guard)
    }

    async fn find_log(&self) -> Result<Log, Failure> {
        let failed =
            |e: &dyn std::fmt::Display| failure::new(FailureKind::Misconfigured, format!("the log of reports: {e}"));
        let found = self.logs_in_stores().await;
        let dir = self.state_dir.join("log");
        let Reach { signed, named } = found.reach;
        let mut own = Vec::new();
        match Log::open(&dir, self.origin.clone(), &self.signer) {
            Ok(log) if log.size() > 0 && log.size() >= signed && found.fits(log.leaves()) => {
                log.mend(&found.all).map_err(|e| failed(&e))?;
                return Ok(log);
            }
            // A new log is begun only where most stores show that there is none yet.
            Ok(log) if log.size() == 0 && named == 0 && found.without * 2 > self.stores.len() => return Ok(log),
            // Nothing here and nothing found while most stores are silent: a new log might begin a second history. A log
            // that one store gives back is used, as a recovery from one store must be able to go on.
            Ok(log) if log.size() == 0 && named == 0 => {
                return Err(failure::new(
                    FailureKind::Retry,
                    "the log of reports is not here and most stores do not answer: try again when they do",
                ));
            }
            Ok(log) => own.extend(log.entries().flatten().map(|(_, _, bytes)| bytes)),
            Err(error) => log::error!(reason:% = error; "log.not-readable"),
        }
        if named == 0 {
            return Err(failed(&"it is damaged here, and no store holds a copy"));
        }
        let aside = self.state_dir.join("log.aside");
        let _ = std::fs::remove_dir_all(&aside);
        if dir.exists() {
            std::fs::rename(&dir, &aside).map_err(|e| failed(&e))?;
        }
        let origin = self.origin.clone();
        let log = match found.whole.filter(|(leaves, _)| leaves.len() as u64 >= signed) {
            Some((_, objects)) => Log::rebuild(&dir, origin, &self.signer, objects),
            None => Log::salvage(&dir, origin, &self.signer, found.all),
        };
        let mut log = log.map_err(|e| {
            failed(&format!(
                "{e}. No store holds it whole, and a new one under the same key would show two histories: put the missing \
                 object back under log/ from another copy of a store"
            ))
        })?;
        log::info!(entries = log.size(), lost = log.lost().len(); "log.rebuilt");
        // What was signed into a history that is not the stores' was told to somebody: it stands in theirs from now on. What stands
        // there already keeps its place.
        for bytes in &own {
            log.append(&self.signer, bytes).map_err(|e| failed(&e))?;
        }
        Ok(log)
    }

    /// What the stores that answer hold of the log.
    async fn logs_in_stores(&self) -> LogsInStores {
        let key = self.signer.public_key();
        let mut found = LogsInStores::default();
        for store in &self.stores {
            let Ok(objects) = objects(store, &key, &self.origin).await else { continue };
            let reach = Reach::of(&objects, &key, &self.origin);
            found.without += usize::from(reach.named == 0);
            found.reach.signed = found.reach.signed.max(reach.signed);
            found.reach.named = found.reach.named.max(reach.named);
            match backup_report::View::of_objects(objects.clone(), &key, &self.origin) {
                Ok(view) if found.whole_size() < view.leaves().len() as u64 => {
                    found.whole = Some((view.leaves().to_vec(), objects.clone()));
                }
                Ok(_) => {}
                Err(error) => log::warn!(store = store.name.as_str(), reason:% = error; "store.log-not-valid"),
            }
            found.all.extend(objects);
        }
        found
    }

    /// A second verifier, or this one before its folder was set back, may have added to the log: whoever is about to add to
    /// it sees what the stores that answer tell, or one log would get two histories.
    async fn look_ahead(&self) -> Result<(), Failure> {
        let mut listed = Vec::new();
        for store in &self.stores {
            let objects = store.store.list(PREFIX).await.unwrap_or_default();
            let mut names: Vec<String> = objects.into_iter().map(|object| object.name).collect();
            names.sort_unstable();
            listed.push((store, names));
        }
        let mut guard = self.open().await?;
        let names = || listed.iter().flat_map(|(_, names)| names);
        if guard.as_ref().is_some_and(|log| names().any(|name| log.is_behind(name))) {
            *guard = None;
            *guard = Some(self.find_log().await?);
        }
        if let Some(log) = guard.as_mut()
            && let Err(error) = self.take_up(log, &listed).await
        {
            log::error!(reason:% = error; "log.not-written");
            *guard = None;
        }
        Ok(())
    }

    /// Entries of a history that came to its end: this verifier was set back while no store that answered told of them. They were
    /// told to somebody, so they stand in this history from now on. What no checkpoint of ours shows is none of them.
    async fn take_up(
        &self,
        log: &mut Log,
        listed: &[(&NamedStore, Vec<String>)],
    ) -> Result<(), backup_report::LogError> {
        for (store, names) in listed {
            if !names.iter().any(|name| log.is_foreign(name)) {
                continue;
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            // The newest first: it shows all of its history.
            for head in names.iter().rev().filter(|name| Log::is_checkpoint(name)).take(HEADS_MAX) {
                let Ok(head) = store.store.get(head).await else { continue };
                for name in log.fork(&names, &head, &self.signer.public_key()) {
                    let Ok(bytes) = store.store.get(name).await else { continue };
                    // A kind that a later version wrote stays where it is.
                    if log.lacks(name, &bytes) && Entry::parse(&bytes).is_ok() {
                        log.append(&self.signer, &bytes)?;
                        log::warn!(store = store.name.as_str(), entries = log.size(); "log.entry-taken-up");
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds an entry and copies it to every store that answers.
    pub async fn append(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.look_ahead().await?;
        let mut guard = self.open().await?;
        if let Some(log) = guard.as_mut()
            && let Err(error) = log.append(&self.signer, bytes)
        {
            // It is opened anew at the next use.
            *guard = None;
            return Err(failure::new(FailureKind::Retry, format!("the log of reports: {error}")));
        }
        if let Some(log) = guard.as_ref() {
            self.copy_log(log).await;
        }
        Ok(())
    }

    /// Puts into every store what it lacks of the log. A store that does not answer gets it next time.
    async fn copy_log(&self, log: &Log) {
        for store in &self.stores {
            let copied = async {
                let listed = store.store.list(PREFIX).await?;
                let held: BTreeSet<String> = listed.into_iter().map(|o| o.name).collect();
                let mut objects = log
                    .objects_missing(|name| held.contains(name))
                    .map_err(|e| backup_engine::Error::new(backup_engine::ErrorKind::Damaged, e.to_string()))?;
                objects.extend(self.signatures(log).filter(|(name, _)| !held.contains(name)));
                for (name, bytes) in objects {
                    store.store.put(&name, Bytes::from(bytes)).await?;
                }
                backup_engine::Result::Ok(())
            };
            if let Err(error) = copied.await {
                log::warn!(store = store.name.as_str(), reason:% = error; "store.log-not-copied");
            }
        }
    }

    /// Looks at the log in a store: every object against its name or signature, and whether all of it is there.
    pub async fn look(&self, store: &NamedStore) -> backup_engine::Result<Seen> {
        let key = self.signer.public_key();
        let objects = objects(store, &key, &self.origin).await?;
        let mut seen = Seen {
            objects: objects.len() as u64,
            bytes: objects.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
            corrupt: backup_report::damaged(&objects, &key, &self.origin),
            missing: Vec::new(),
            is_behind: false,
        };
        let _ = self.look_ahead().await;
        let held = objects.iter().filter(|(_, bytes)| !bytes.is_empty());
        let held: BTreeSet<&str> = held.map(|(name, _)| name.as_str()).collect();
        let Ok(guard) = self.open().await else { return Ok(seen) };
        let Some(log) = guard.as_ref() else { return Ok(seen) };
        seen.corrupt.extend(log.other_histories(&objects, &self.signer).into_iter().map(str::to_owned));
        seen.is_behind = log.is_ahead_of(|name| held.contains(name));
        if let Ok(missing) = log.objects_missing(|name| held.contains(name)) {
            // What is lost in the log itself is missed in no store.
            let all = missing.into_iter().chain(self.signatures(log));
            let missing = all.filter(|(name, bytes)| !bytes.is_empty() && !held.contains(name.as_str()));
            seen.missing.extend(missing.map(|(name, _)| name));
        }
        Ok(seen)
    }

    /// Puts right what is damaged or missing of the log in one store.
    pub async fn heal(&self, store: &NamedStore) -> Result<(), Failure> {
        let guard = self.open().await?;
        let Some(log) = guard.as_ref() else { return Ok(()) };
        let failed = |e: &backup_engine::Error| failure::from_engine(&e.duplicate().context(&store.name));
        let key = self.signer.public_key();
        let objects = objects(store, &key, &self.origin).await.map_err(|e| failed(&e))?;
        log.mend(&objects).map_err(|e| failure::new(FailureKind::Damaged, e.to_string()))?;
        let mut wanted =
            log.objects_missing(|_| false).map_err(|e| failure::new(FailureKind::Damaged, e.to_string()))?;
        wanted.extend(self.signatures(log));
        // Of the older checkpoints those that are there are wanted whole.
        let checkpoint = |(name, _): &(String, _)| Some((name.clone(), log.checkpoint_object(name, &self.signer)?));
        wanted.extend(objects.iter().filter_map(checkpoint));
        // What tells of another history is evidence.
        let others = log.other_histories(&objects, &self.signer);
        let held: BTreeMap<&str, &[u8]> =
            objects.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let is_held = |name: &str, bytes: &[u8]| held.get(name) == Some(&bytes);
        wanted.retain(|(name, bytes)| !is_held(name, bytes) && !others.contains(&name.as_str()));
        for (name, bytes) in wanted.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            backup_engine::put_over_damage(store, &name, Bytes::from(bytes)).await.map_err(|e| failed(&e))?;
            log::info!(store = store.name.as_str(), object = name.as_str(); "log.object-healed");
        }
        Ok(())
    }

    /// The detached signatures of all reports, as objects.
    fn signatures(&self, log: &Log) -> impl Iterator<Item = (String, Vec<u8>)> {
        log.entries().flatten().filter_map(|(_, entry, bytes)| match entry {
            Entry::Report(report) => {
                Some((format!("{SIGNATURES}{}.sig", report.report_id), self.signer.sign(&bytes).to_vec()))
            }
            _ => None,
        })
    }
}

/// Every object of the log in a store; of one that was damaged and healed, what is whole.
pub async fn objects(store: &NamedStore, key: &PublicKey, origin: &Origin) -> backup_engine::Result<Objects> {
    let mut out = Vec::new();
    for object in store.store.list(PREFIX).await? {
        let bytes = match store.store.get(&object.name).await {
            Ok(bytes) => bytes.to_vec(),
            // What cannot be read stands there as bytes that match nothing.
            Err(error) if error.kind() == ErrorKind::Damaged => b"damaged".to_vec(),
            // It went between the listing and now.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        out.push((object.name, bytes));
    }
    Ok(backup_report::first_whole(out, key, origin))
}
