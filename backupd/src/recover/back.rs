//! `backupd recover`: an empty machine, the kit, the paper key and ONE store; afterwards everything can be started.

use super::choose::{Lack, older};
use super::ended::{self, Filled, Outcome, SetBack, Taken};
use super::kit::{Kit, KitStore, SavedFile};
use super::layout;
use super::note::KitNote;
use super::unlock::UnlockArgs;
use crate::cli::Usage;
use crate::names::quoted;
use crate::secret;
use crate::settings::{
    AzureAccessFile, MaintainSettings, ServeSettings, Source, SourceKind, StoreKind, StoreSetting, VerifierSettings,
};
use crate::sources::{PRACTICE_PART, is_original_damaged};
use anyhow::{Context, ensure};
use backup_engine::{
    Env, ErrorKind, NamedStore, OpenKey, PrunerCredential, SnapshotInfo, UnlockWith, WriterCredential,
    describe_keyring, repository_of,
};
use backup_report::ReportSigner;
use bytes::Bytes;
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Restored parts lie here, in the target, until they are put into place.
pub(super) const STAGING: &str = ".recovering";
/// In it, once parts are put into place: the snapshots that they come from.
const PLACING: &str = ".placing";
/// In it too: where they were put.
const PLACED: &str = ".placed";
const ANOTHER: &str = "the store holds another repository than the kit's";

#[derive(Args)]
pub struct RecoverArgs {
    /// The recovery kit: its file, or the folder that holds it
    #[arg(long, value_name = "PATH")]
    pub kit: PathBuf,
    /// The store to recover from; one is enough
    #[arg(long, value_name = "NAME")]
    pub store: String,
    /// The practice's folder on this machine: empty, absent, or where this command was interrupted
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// Go back to this snapshot (its id, or the beginning of it) instead of the newest
    #[arg(long, value_name = "ID")]
    pub snapshot: Option<String>,
    /// The folder store lies here now
    #[arg(long, value_name = "DIR")]
    pub path: Option<PathBuf>,
    /// The S3 store answers here now
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// Answer in lines of JSON, progress included
    #[arg(long)]
    pub json: bool,
}

pub(super) struct Recovery {
    pub(super) env: Env,
    kit: Kit,
    pub(super) store: NamedStore,
    pub(super) open: OpenKey,
    writer: WriterCredential,
    /// For a maintenance that prunes.
    pruner: PrunerCredential,
    dir: PathBuf,
    /// An earlier attempt was interrupted.
    pub(super) resumed: bool,
    /// Snapshots newer than this one are left out.
    pub(super) from: Option<String>,
    pub(super) json: bool,
}

pub async fn recover(args: RecoverArgs) -> anyhow::Result<ExitCode> {
    let dir = std::path::absolute(&args.into)?;
    let target = check_target(&dir)?;
    let kit = Kit::read(&args.kit)?;
    if target == Target::Ended {
        return ended::again(&dir, &kit, &args.store, args.snapshot.as_deref(), args.json);
    }
    let resumed = target == Target::Interrupted;
    if let Some(path) = &args.path {
        ensure!(
            path.is_dir(),
            Usage(format!("--path {}: there is no such folder: name the one that holds the store", path.display()))
        );
    }
    let store = kit.store(&args.store)?.open(args.path.as_deref(), args.endpoint.as_deref())?;
    let env = Env::real();
    let with = args.unlock.find(Some(&args.kit))?;
    let keyring = keyring(&env, &kit, &store, &with).await?;
    let open = backup_engine::unlock_by(&env, keyring.clone(), &with).await.context("the keyring")?;
    ensure!(open.repository().to_string() == kit.repository, ANOTHER);
    let pruner = backup_engine::issue_pruner(&env, keyring.clone(), &with).await?;
    let writer = backup_engine::recover_writer(&env, keyring, &with).await?;
    let recovery =
        Recovery { env, kit, store, open, writer, pruner, dir, resumed, from: args.snapshot, json: args.json };
    recovery.run().await
}

/// The newer of the store's keyring and the kit's. One that the store has damaged, or no longer, is put back into it.
async fn keyring(env: &Env, kit: &Kit, store: &NamedStore, with: &UnlockWith) -> anyhow::Result<Bytes> {
    let number = |bytes: &Bytes| describe_keyring(bytes).ok().map(|(header, _)| header.number);
    let is_ours = |bytes: &Bytes| repository_of(bytes).is_ok_and(|found| found.to_string() == kit.repository);
    let kept = kit.keyring().ok().filter(is_ours);
    // What the kit's opens tells a keyring of this repository from one that somebody else put into the store.
    let open = match &kept {
        Some(kept) => backup_engine::unlock_by(env, kept.clone(), with).await.ok(),
        None => None,
    };
    let found = match &open {
        Some(open) => backup_engine::signed_keyring(open.catalog(), std::slice::from_ref(store)).await,
        None => backup_engine::keyring_for(env, std::slice::from_ref(store), with).await,
    };
    match (found, &kept) {
        (Ok(found), Some(kept)) if is_ours(&found) && number(kept) > number(&found) => {
            tell!("backupd: store {} holds older keyrings only: going on with the keyring of the kit", store.name);
        }
        (Ok(found), _) => return Ok(found),
        (Err(error), _) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
            ensure!(!backup_engine::keyring(env, store).await.is_ok_and(|found| !is_ours(&found)), ANOTHER);
            // A folder without snapshots is another one, in which nothing may be written.
            if store.store.list("heads/").await?.is_empty() {
                let words = format!("store {} holds neither keyring nor snapshot: is it the right place?", store.name);
                return Err(backup_engine::Error::new(error.kind(), words).into());
            }
            tell!("backupd: {error}: going on with the keyring of the kit");
        }
        (Err(error), _) => return Err(error).context("the keyring"),
    }
    let kept = kit.keyring()?;
    // The last copy may lie on a medium that is mounted read-only, and should.
    if let Err(error) = backup_engine::put_back_keyring(store, &kept).await {
        tell!("backupd: the store's own keyring stays as it is: {error}");
    }
    Ok(kept)
}

/// The parts that this recovery has put where they belong, noted before each: an attempt that was interrupted knows its own
/// from what somebody else left there.
struct Placed {
    note: PathBuf,
    /// Paths, one a line, in hexadecimal digits of their bytes.
    lines: String,
}

impl Placed {
    fn load(staging: &Path) -> anyhow::Result<Self> {
        let note = staging.join(PLACED);
        let lines = match fs::read_to_string(&note) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.context("the notes of what was put into place")?,
        };
        Ok(Self { note, lines })
    }

    fn line(place: &Path) -> String {
        hex::encode(place.as_os_str().as_encoded_bytes())
    }

    fn is_ours(&self, place: &Path) -> bool {
        let line = Self::line(place);
        self.lines.lines().any(|noted| noted == line)
    }

    /// Moves every part to its place. Nothing is moved when somebody else's data lies at one of them: old records beside new
    /// files would be neither.
    fn put_all(mut self, places: &[(PathBuf, PathBuf)]) -> anyhow::Result<()> {
        let is_there = |place: &Path| place.symlink_metadata().is_ok();
        for (_, place) in places {
            ensure!(
                !is_there(place) || self.is_ours(place),
                Usage(format!(
                    "{} is there already, and this recovery did not put it there. Nothing of it was touched and nothing was put \
                     beside it. Stop what uses it, move it away (keep it until you know what it is), and give the same command \
                     again: it goes on from here",
                    place.display()
                ))
            );
        }
        for (from, place) in places {
            if is_there(place) {
                continue;
            }
            self.lines.push_str(&Self::line(place));
            self.lines.push('\n');
            secret::replace(&self.note, self.lines.as_bytes())?;
            layout::shift(from, place)?;
        }
        Ok(())
    }
}

/// What the folder to recover into is.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    New,
    /// An earlier attempt was interrupted in it.
    Interrupted,
    /// An earlier attempt has ended in it, as far as everything being in place.
    Ended,
}

fn check_target(dir: &Path) -> anyhow::Result<Target> {
    if ended::is_noted(dir) {
        return Ok(Target::Ended);
    }
    if dir.join(STAGING).is_dir() {
        return Ok(Target::Interrupted);
    }
    let empty = match fs::read_dir(dir) {
        // A file system that was just made has its own folder already.
        Ok(mut entries) => entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lost+found")),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    ensure!(
        empty,
        Usage(format!(
            "{} is not empty, and no recovery has begun in it: nothing was touched. Name an empty or a new folder; if a practice \
             lies there already, start that",
            dir.display()
        ))
    );
    secret::make_private_dir(dir)?;
    Ok(Target::New)
}

/// What a person pastes to start a daemon.
fn start_command(daemon: &str, settings: &Path) -> String {
    format!("backupd {daemon} --config {}", quoted(settings))
}

/// The key files that maintenance needs and that did not come back.
fn absent_key_files(settings: &Path) -> Vec<PathBuf> {
    let stores = MaintainSettings::load(settings).map(|settings| settings.stores).unwrap_or_default();
    let files = stores.into_iter().flat_map(|store| match store.kind {
        StoreKind::Folder { .. } => Vec::new(),
        StoreKind::S3 { access_key_file, secret_key_file, .. } => vec![access_key_file, secret_key_file],
        StoreKind::Azure { access: AzureAccessFile::AccountKey(file) | AzureAccessFile::Signature(file), .. } => {
            vec![file]
        }
        StoreKind::Gcs { service_account_file, .. } => vec![service_account_file],
    });
    files.filter(|file| !file.exists()).collect()
}

impl Recovery {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let staging = self.dir.join(STAGING);
        let (mut chosen, mut skipped) = (Vec::new(), Vec::new());
        for candidates in self.candidates().await? {
            chosen.push(self.newest_whole(candidates, &staging, &mut skipped).await?);
        }
        chosen.sort_by_key(|chosen| std::cmp::Reverse(chosen.info.taken_unix_ms));
        let snapshots: Vec<_> = chosen.iter().map(|chosen| chosen.info.clone()).collect();
        let damaged = self.damaged_originals(&snapshots).await;
        self.note_placing(&staging, &snapshots)?;
        // Settings first: they say where the rest goes. The newest snapshot's are put down first and stay.
        let newest = snapshots.iter().map(|info| staging.join(&info.source));
        let older = chosen.iter().filter(|chosen| chosen.filled.is_some()).map(|chosen| older(&staging, &chosen.info));
        for practice in newest.chain(older).map(|restored| restored.join(PRACTICE_PART)) {
            if practice.is_dir() {
                layout::merge(&practice, &self.dir)?;
            }
        }
        let serve = self.settings_file(&self.kit.serve_toml)?;
        let serve = ServeSettings::load(&serve)?;
        let verifier = match &self.kit.verifier_toml {
            Some(saved) => Some(VerifierSettings::load(&self.settings_file(saved)?)?),
            None => None,
        };
        let mut places = Vec::new();
        for info in &snapshots {
            let source = serve.sources.iter().find(|s| s.name == info.source);
            places.extend(self.places(&staging.join(&info.source), &info.source, source)?);
        }
        Placed::load(&staging)?.put_all(&places)?;
        self.write_keys(&serve, verifier.as_ref())?;
        // What the kit does not say of the stores that the snapshot's settings have is told by `serve` from the first minute.
        KitNote::write(&self.kit, self.writer.catalog(), &serve.file)?;
        let maintain = Some(serve.file.with_file_name("maintain.toml")).filter(|file| file.is_file());
        let daemons = [
            ("serve", Some(&serve.file)),
            ("verifier", verifier.as_ref().map(|v| &v.file)),
            ("maintain", maintain.as_ref()),
        ];
        let absent = maintain.as_deref().map(absent_key_files).unwrap_or_default();
        let outcome = Outcome {
            repository: self.kit.repository.clone(),
            practice: self.kit.practice.clone(),
            store: self.store.name.clone(),
            snapshots: snapshots.iter().map(|s| s.id.to_string()).collect(),
            taken_unix_ms: snapshots.iter().map(|s| s.taken_unix_ms).max().unwrap_or(0),
            partial: chosen.iter().filter(|c| c.lack == Lack::Records).map(|c| Taken::of(&c.info)).collect(),
            filled: chosen.iter().filter_map(Filled::of).collect(),
            kept_absent: serve
                .keep
                .iter()
                .filter(|kept| !kept.exists())
                .map(|kept| kept.display().to_string())
                .collect(),
            damaged: damaged.iter().map(Taken::of).collect(),
            set_back: snapshots.iter().filter_map(SetBack::of).collect(),
            unread: chosen.iter().flat_map(|chosen| chosen.unread.iter().cloned()).collect(),
            beside: chosen.iter().flat_map(|chosen| &chosen.beside).map(Taken::of).collect(),
            skipped,
            bytes: chosen.iter().map(|chosen| chosen.bytes).sum(),
            into: self.dir.display().to_string(),
            commands: daemons.into_iter().filter_map(|(name, file)| Some(start_command(name, file?))).collect(),
            absent: absent.iter().map(|file| file.display().to_string()).collect(),
        };
        ended::end(&self.dir, &outcome, self.json)
    }

    /// Of which snapshots the original was damaged already when they were taken: whole as snapshots, and not as records.
    async fn damaged_originals(&self, snapshots: &[SnapshotInfo]) -> Vec<SnapshotInfo> {
        let mut damaged = Vec::new();
        for info in snapshots {
            if is_original_damaged(&self.env, &self.open, &self.store, info.id).await {
                damaged.push(info.clone());
            }
        }
        damaged
    }

    /// Parts of two snapshots must never lie together: an interrupted attempt goes on with its own or not at all.
    fn note_placing(&self, staging: &Path, snapshots: &[SnapshotInfo]) -> anyhow::Result<()> {
        let ids: String = snapshots.iter().map(|info| format!("{}\n", info.id)).collect();
        let note = staging.join(PLACING);
        match fs::read_to_string(&note) {
            Ok(before) => ensure!(
                before == ids,
                Usage(format!(
                    "{} holds parts of other snapshots, from an interrupted attempt: recover into an empty folder",
                    self.dir.display()
                ))
            ),
            Err(_) => secret::replace(&note, ids.as_bytes())?,
        }
        Ok(())
    }

    /// A settings file as the snapshot had it, else as the kit has it.
    fn settings_file(&self, saved: &SavedFile) -> anyhow::Result<PathBuf> {
        let path = ended::settings_path(&self.dir, &saved.path);
        if !path.exists() {
            secret::write_new(&path, saved.text.as_bytes())?;
        }
        Ok(path)
    }

    /// A source's parts, and where the source keeps them.
    fn places(&self, from: &Path, name: &str, source: Option<&Source>) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
        let unknown = || self.dir.join("restored").join(name);
        let target = match source.map(|s| &s.kind) {
            Some(SourceKind::Appliance { data_dir: Some(dir), .. }) => dir.clone(),
            Some(SourceKind::Appliance { ops_socket, data_dir: None }) => {
                layout::data_dir_of(&self.dir, ops_socket).unwrap_or_else(unknown)
            }
            _ => unknown(),
        };
        let mut places = Vec::new();
        for entry in fs::read_dir(from).context("what was restored cannot be read")? {
            let entry = entry?;
            if entry.file_name() != PRACTICE_PART {
                places.push((entry.path(), target.join(entry.file_name())));
            }
        }
        Ok(places)
    }

    fn write_keys(&self, serve: &ServeSettings, verifier: Option<&VerifierSettings>) -> anyhow::Result<()> {
        let signer = ReportSigner::from_key_file(self.kit.report_key.as_bytes()).context("the kit's report key")?;
        let beside = |name: &str| serve.file.with_file_name(name);
        let place = |set: Option<&PathBuf>, name: &str| set.cloned().unwrap_or_else(|| beside(name));
        let open = place(verifier.and_then(|v| v.open_key.as_ref()), "open.key");
        let report = place(verifier.and_then(|v| v.report_key.as_ref()), "report.key");
        secret::replace(&place(serve.writer_credential.as_ref(), "writer.cred"), &self.writer.to_bytes())?;
        secret::replace(&open, &self.open.to_bytes())?;
        secret::replace(&report, self.kit.report_key.as_bytes())?;
        let maintain = beside("maintain.toml");
        if let Some(prune) =
            maintain.is_file().then(|| MaintainSettings::load(&maintain)).transpose()?.and_then(|m| m.prune)
        {
            if let Some(path) = prune.open_key {
                secret::replace(&path, &self.open.to_bytes())?;
            }
            if let Some(path) = prune.pruner_credential {
                secret::replace(&path, &self.pruner.to_bytes())?;
            }
        }
        let public = signer.public_key().to_pem();
        secret::replace(&place(serve.report_key.as_ref(), "report.pub"), public.as_bytes())?;
        for setting in &serve.stores {
            if let Ok(kept) = self.kit.store(&setting.name) {
                self.prepare_store(setting, kept, false)?;
            }
        }
        for setting in verifier.map(|v| v.stores.as_slice()).unwrap_or_default() {
            if let Ok(kept) = self.kit.store(&setting.name) {
                self.prepare_store(setting, kept, true)?;
            }
        }
        Ok(())
    }

    /// Writes a store's credentials; makes the folder of a lost folder store, which catch-up then fills.
    fn prepare_store(&self, setting: &StoreSetting, kept: &KitStore, verifier: bool) -> anyhow::Result<()> {
        let own = |own: &Option<String>, shared: &String| match (verifier, own) {
            (true, Some(own)) => own.clone(),
            _ => shared.clone(),
        };
        match &setting.kind {
            StoreKind::Folder { path, removable: false } if path.starts_with(&self.dir) => {
                secret::make_private_dir(path)?
            }
            StoreKind::Folder { .. } => {}
            StoreKind::S3 { access_key_file, secret_key_file, .. } => {
                if let Some(s3) = &kept.s3 {
                    secret::replace(access_key_file, own(&s3.verifier_access_key, &s3.access_key).as_bytes())?;
                    secret::replace(secret_key_file, own(&s3.verifier_secret_key, &s3.secret_key).as_bytes())?;
                }
            }
            StoreKind::Azure { access, .. } => {
                let (AzureAccessFile::AccountKey(file) | AzureAccessFile::Signature(file)) = access;
                if let Some(azure) = &kept.azure {
                    secret::replace(file, own(&azure.verifier_key, &azure.key).as_bytes())?;
                }
            }
            StoreKind::Gcs { service_account_file, .. } => {
                if let Some(gcs) = &kept.gcs {
                    let key = own(&gcs.verifier_service_account, &gcs.service_account);
                    secret::replace(service_account_file, key.as_bytes())?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_new_or_empty_or_a_file_system_that_was_just_made() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check_target(&dir.path().join("new")).unwrap(), Target::New);
        let target = dir.path().join("mount");
        fs::create_dir_all(target.join("lost+found")).unwrap();
        assert_eq!(check_target(&target).unwrap(), Target::New);
        fs::write(target.join("letter"), "x").unwrap();
        let refused = check_target(&target).unwrap_err().to_string();
        assert!(refused.contains("no recovery has begun in it") && refused.contains("new folder"), "{refused}");
        fs::create_dir(target.join(STAGING)).unwrap();
        assert_eq!(check_target(&target).unwrap(), Target::Interrupted);
    }

    #[test]
    fn a_shell_takes_a_settings_file_for_one_word() {
        assert_eq!(start_command("serve", Path::new("/srv/p/serve.toml")), "backupd serve --config /srv/p/serve.toml");
        for file in ["/tmp/Praxis Dr. X/serve.toml", "/it's \"here\" $HOME `x`"] {
            let script = format!("backupd() {{ printf %s \"$3\"; }}; {}", start_command("maintain", Path::new(file)));
            let told = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(told.stdout).unwrap(), file);
        }
    }
}
