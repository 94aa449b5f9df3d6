//! One repository without a daemon: where it is, its keys, its local state.

use super::listing;
use super::location::{location, variable};
use super::render::Usage;
use crate::clock;
use crate::recover::UnlockArgs;
use crate::secret;
use anyhow::{Context, ensure};
use backup_engine::store::AsOfStore;
use backup_engine::{
    Env, Error, ErrorKind, NamedStore, OpenKey, Passphrase, PrunerCredential, RepositoryId, SnapshotInfo, StoreLimits,
    UnlockWith, WriterCredential,
};
use bytes::Bytes;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The one store's and source's name.
pub const REPO: &str = "repo";
pub const SOURCE: &str = "files";
/// Name of the folder in the snapshot: paths that a person types and sees begin below it.
pub const TOP: &str = "files";
const WRITER_FILE: &str = "writer.cred";
const ENGINE_STATE: &str = "engine";
/// The file that the engine locks.
const LOCK_FILE: &str = "lock";

/// A shorter passphrase is guessed.
const PASSPHRASE_CHARS_MIN: usize = 8;

/// A repository that is there.
pub struct Repository {
    pub env: Env,
    pub store: NamedStore,
    pub id: RepositoryId,
    state: Option<PathBuf>,
}

impl Repository {
    /// Opens a repository that has to be there.
    pub async fn open(repo: &str) -> anyhow::Result<Self> {
        Self::open_at(repo, store(repo)?).await
    }

    /// Opens it as it was at a time, for reading.
    pub async fn open_as_of(repo: &str, time: Option<&str>) -> anyhow::Result<Self> {
        let Some(time) = time else { return Self::open(repo).await };
        let at = listing::past(time, clock::unix_ms())?;
        let versions = location(repo)?.open_versions(StoreLimits::default())?;
        let versions = versions.ok_or_else(|| Usage("--as-of needs a store with versions: s3://".to_owned()))?;
        let past = AsOfStore::open(versions, at).await?;
        Self::open_at(repo, NamedStore::new(REPO, Arc::new(past), true)).await
    }

    async fn open_at(repo: &str, store: NamedStore) -> anyhow::Result<Self> {
        let env = Env::real();
        let keyring = backup_engine::keyring(&env, &store).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow::Error::from(Usage(format!(
                "there is no repository at {repo}: check the place, or make one with `backupd init --repo {repo}`"
            ))),
            _ => error.into(),
        })?;
        let id = backup_engine::repository_of(&keyring)?;
        let digits = id.to_string();
        let state = state_root().map(|root| root.join(digits.get(..STATE_DIGITS).unwrap_or(&digits)));
        Ok(Self { env, store, id, state })
    }

    /// Opens the read key with what the environment gives, else asks.
    pub async fn unlock(&self) -> anyhow::Result<OpenKey> {
        let with = UnlockArgs::default().find(None)?;
        Ok(backup_engine::unlock(&self.env, &self.store, &with).await?)
    }

    /// The read key, and a new pruner of the repository: both come from the keyring, so an open key file is not enough.
    pub async fn unlock_to_prune(&self) -> anyhow::Result<(OpenKey, PrunerCredential)> {
        let with = UnlockArgs::default().find(None)?;
        let keyring = self.keyring_for(&with).await?;
        let open = backup_engine::unlock_by(&self.env, keyring.clone(), &with).await?;
        Ok((open, backup_engine::issue_pruner(&self.env, keyring, &with).await?))
    }

    async fn keyring_for(&self, with: &UnlockWith) -> backup_engine::Result<Bytes> {
        backup_engine::keyring_for(&self.env, std::slice::from_ref(&self.store), with).await
    }

    /// The writer's keys from the state folder, so that a snapshot derives nothing slowly; made anew when they are gone.
    pub async fn writer(&self) -> anyhow::Result<WriterCredential> {
        if let Some(kept) = self.kept_writer()? {
            return Ok(kept);
        }
        let with = UnlockArgs::default().find(None)?;
        let keyring = self.keyring_for(&with).await?;
        let writer = backup_engine::recover_writer(&self.env, keyring, &with).await?;
        self.keep_writer(&writer);
        Ok(writer)
    }

    /// The kept keys, if they are this repository's and whole. Damaged ones are only local state: others are made.
    fn kept_writer(&self) -> anyhow::Result<Option<WriterCredential>> {
        let Some(path) = self.writer_file().filter(|path| path.exists()) else { return Ok(None) };
        match WriterCredential::from_bytes(&secret::read(&path)?) {
            Ok(writer) => Ok((writer.repository() == self.id).then_some(writer)),
            Err(error) => {
                tell!(
                    "backupd: the writer's keys in {} are damaged ({error}): new ones are made with the passphrase",
                    path.display()
                );
                Ok(None)
            }
        }
    }

    /// Where the writer's keys are kept.
    pub fn writer_file(&self) -> Option<PathBuf> {
        self.state.as_ref().map(|state| state.join(WRITER_FILE))
    }

    /// Keeps the writer's keys for the next snapshot; without them it asks for the passphrase again.
    pub fn keep_writer(&self, writer: &WriterCredential) {
        let kept = match &self.state {
            Some(state) => secret::replace(&state.join(WRITER_FILE), &writer.to_bytes()),
            None => Err(anyhow::anyhow!("there is no state folder")),
        };
        if let Err(error) = kept {
            tell!(
                "backupd: the writer's keys are not kept ({error:#}): the next snapshot asks for the passphrase again"
            );
        }
    }

    /// Where the engine keeps what it can rebuild. A place that cannot be written costs time, not the snapshot.
    pub fn engine_state(&self) -> Option<PathBuf> {
        let usable = |dir: PathBuf| -> anyhow::Result<PathBuf> {
            std::fs::create_dir_all(&dir)?;
            std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(LOCK_FILE))?;
            Ok(dir)
        };
        let state =
            self.state.as_ref().context("set BACKUPD_STATE to a folder").and_then(|dir| usable(dir.join(ENGINE_STATE)));
        state
            .inspect_err(|error| {
                tell!(
                    "backupd: the state folder cannot be written ({error:#}): going on without it, every file is read again; \
                     set BACKUPD_STATE to a folder that can be written"
                );
            })
            .ok()
    }

    pub async fn snapshots(&self, open: &OpenKey) -> anyhow::Result<Vec<SnapshotInfo>> {
        let heads = backup_engine::heads_with_tags(&self.env, open, std::slice::from_ref(&self.store)).await?;
        for rejected in &heads.rejected {
            let what = if rejected.missing { "missing" } else { "damaged" };
            tell!("backupd: {} is {what}, its snapshot is left out: `backupd verify` tells more", rejected.object);
        }
        Ok(heads.snapshots)
    }
}

/// Digits of the repository's id that name its state folder.
const STATE_DIGITS: usize = 16;

/// Opens a store; makes no request.
pub fn store(repo: &str) -> anyhow::Result<NamedStore> {
    let opened = location(repo)?.open();
    let opened = opened.with_context(|| format!("--repo {repo}, as the provider's variables complete it"))?;
    Ok(NamedStore::new(REPO, opened, true))
}

/// A new passphrase, from the environment or typed twice, because a mistyped one would lock everything in.
pub fn new_passphrase(from: &str) -> anyhow::Result<Passphrase> {
    if let Some(passphrase) = variable(from) {
        check_passphrase(&passphrase)?;
        return Ok(Passphrase::new(passphrase));
    }
    ensure!(std::io::stdin().is_terminal(), Usage(format!("no passphrase: set {from}, or type it at a terminal")));
    let typed = |prompt| rpassword::prompt_password(prompt).map(Zeroizing::new).context("the passphrase was not typed");
    let (first, again) = (typed("New passphrase: ")?, typed("The same once more: ")?);
    check_passphrase(&first)?;
    ensure!(first == again, Usage("the two passphrases differ: nothing was made".to_owned()));
    Ok(Passphrase::new(first.as_str().to_owned()))
}

/// Whoever reads a store may try passphrases on its keyring for years, on machines of their own.
pub fn check_passphrase(passphrase: &str) -> anyhow::Result<()> {
    let long = passphrase.trim().chars().count() >= PASSPHRASE_CHARS_MIN;
    ensure!(
        long,
        Usage(format!("a passphrase needs at least {PASSPHRASE_CHARS_MIN} characters; some words are better"))
    );
    Ok(())
}

/// The snapshot that a person means: `latest` (the newest whole one), an id or its beginning, or a tag.
pub fn pick(snapshots: &[SnapshotInfo], wanted: &str) -> anyhow::Result<SnapshotInfo> {
    let tagged = snapshots.iter().find(|snapshot| snapshot.tag.as_deref() == Some(wanted));
    match crate::verifier::choose(snapshots.to_vec(), wanted) {
        Ok(info) => Ok(info),
        Err(failure) => Ok(tagged.cloned().ok_or(failure)?),
    }
}

/// The newest snapshot with a tag.
pub fn tagged(snapshots: &[SnapshotInfo], tag: &str) -> anyhow::Result<SnapshotInfo> {
    let found = snapshots.iter().find(|snapshot| snapshot.tag.as_deref() == Some(tag));
    let absent = || Error::new(ErrorKind::NotFound, "no snapshot carries this tag: `backupd snapshots` lists them");
    Ok(found.cloned().ok_or_else(absent)?)
}

/// `BACKUPD_STATE`, else the user's state folder.
fn state_root() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let usual = || variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    let root = variable("BACKUPD_STATE").or_else(|| usual().map(|state| state.join("backupd")))?;
    std::path::absolute(root).ok()
}
