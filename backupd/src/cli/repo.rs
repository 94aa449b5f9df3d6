//! One repository without a daemon: where it is, its keys, its local state.

use super::render::Usage;
use crate::recover::UnlockArgs;
use crate::secret;
use anyhow::{Context, ensure};
use backup_engine::{
    Env, Error, ErrorKind, NamedStore, OpenKey, Passphrase, RepositoryId, SnapshotInfo, StoreLocation, WriterCredential,
};
use std::io::IsTerminal;
use std::path::PathBuf;
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
        let (env, store) = (Env::real(), store(repo)?);
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

    /// The writer's keys from the state folder, so that a snapshot derives nothing slowly; made anew when they are gone.
    pub async fn writer(&self) -> anyhow::Result<WriterCredential> {
        if let Some(kept) = self.kept_writer()? {
            return Ok(kept);
        }
        let with = UnlockArgs::default().find(None)?;
        let keyring = backup_engine::keyring(&self.env, &self.store).await?;
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
                eprintln!(
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
            eprintln!(
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
                eprintln!(
                    "backupd: the state folder cannot be written ({error:#}): going on without it, every file is read again; \
                     set BACKUPD_STATE to a folder that can be written"
                );
            })
            .ok()
    }

    pub async fn snapshots(&self, open: &OpenKey) -> anyhow::Result<Vec<SnapshotInfo>> {
        let heads = backup_engine::heads_with_tags(&self.env, open, std::slice::from_ref(&self.store)).await?;
        for (_, object) in &heads.rejected {
            eprintln!("backupd: {object} is damaged and left out: `backupd verify` tells more");
        }
        Ok(heads.snapshots)
    }
}

/// Digits of the repository's id that name its state folder.
const STATE_DIGITS: usize = 16;

/// Opens a store; makes no request.
pub fn store(repo: &str) -> anyhow::Result<NamedStore> {
    Ok(NamedStore::new(REPO, location(repo)?.open()?, true))
}

/// A new passphrase, from the environment or typed twice, because a mistyped one would lock everything in.
pub fn new_passphrase(from: &str) -> anyhow::Result<Passphrase> {
    if let Some(passphrase) = variable(from) {
        return Ok(Passphrase::new(passphrase));
    }
    ensure!(std::io::stdin().is_terminal(), Usage(format!("no passphrase: set {from}, or type it at a terminal")));
    let typed = |prompt| rpassword::prompt_password(prompt).map(Zeroizing::new).context("the passphrase was not typed");
    let (first, again) = (typed("New passphrase: ")?, typed("The same once more: ")?);
    ensure!(!first.is_empty(), Usage("an empty passphrase protects nothing".to_owned()));
    ensure!(first == again, Usage("the two passphrases differ: nothing was made".to_owned()));
    Ok(Passphrase::new(first.as_str().to_owned()))
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

fn location(repo: &str) -> anyhow::Result<StoreLocation> {
    for later in ["az://", "gs://"] {
        ensure!(
            !repo.starts_with(later),
            Usage(format!("{later} is not supported by this release: use a folder or s3://bucket/prefix"))
        );
    }
    let Some(rest) = repo.strip_prefix("s3://") else {
        ensure!(
            !repo.contains("://") && !repo.is_empty(),
            Usage("--repo is a folder or s3://bucket/prefix".to_owned())
        );
        return Ok(StoreLocation::Folder { path: std::path::absolute(repo)? });
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    ensure!(!bucket.is_empty(), Usage("--repo s3://bucket/prefix: the bucket is missing".to_owned()));
    let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let profile = Profile::find()?;
    let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).or(profile.region);
    let missing = |name: &str| Usage(format!("set {name} (or AWS_PROFILE) for an s3:// repository"));
    Ok(StoreLocation::S3 {
        allow_http: endpoint.as_deref().is_some_and(|e| e.starts_with("http://")),
        endpoint,
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        access_key: profile.access_key.ok_or_else(|| missing("AWS_ACCESS_KEY_ID"))?,
        secret_key: profile.secret_key.ok_or_else(|| missing("AWS_SECRET_ACCESS_KEY"))?,
        session_token: profile.session_token,
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Credentials as the usual variables give them, else the profile of `~/.aws`.
#[derive(Default)]
struct Profile {
    access_key: Option<String>,
    secret_key: Option<String>,
    session_token: Option<String>,
    region: Option<String>,
}

impl Profile {
    fn find() -> anyhow::Result<Self> {
        let (access_key, secret_key) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
        let named = variable("AWS_PROFILE");
        if named.is_none() && (access_key.is_some() || secret_key.is_some()) {
            return Ok(Self { access_key, secret_key, session_token: variable("AWS_SESSION_TOKEN"), region: None });
        }
        let file = |name: &str, usual: &str| {
            variable(name).map(PathBuf::from).or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(usual)))
        };
        let read = |path: Option<PathBuf>| path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let credentials = read(file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"));
        let config = read(file("AWS_CONFIG_FILE", ".aws/config"));
        let wanted = named.as_deref().unwrap_or("default");
        let found = Self::parse(wanted, &credentials, &config);
        ensure!(
            named.is_none() || found.access_key.is_some(),
            Usage(
                "AWS_PROFILE names a profile without aws_access_key_id in ~/.aws/credentials: check its name"
                    .to_owned()
            )
        );
        Ok(found)
    }

    /// The profile `wanted` of both files; the credentials file comes first.
    fn parse(wanted: &str, credentials: &str, config: &str) -> Self {
        let value = |key: &str| {
            let config_section = if wanted == "default" { wanted.to_owned() } else { format!("profile {wanted}") };
            setting(credentials, wanted, key).or_else(|| setting(config, &config_section, key))
        };
        Self {
            access_key: value("aws_access_key_id"),
            secret_key: value("aws_secret_access_key"),
            session_token: value("aws_session_token"),
            region: value("region"),
        }
    }
}

/// The value of a key in a section of an INI file.
fn setting(text: &str, section: &str, key: &str) -> Option<String> {
    let mut here = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            here = name.trim() == section;
        } else if here
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

/// `BACKUPD_STATE`, else the user's state folder.
fn state_root() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let usual = || variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    let root = variable("BACKUPD_STATE").or_else(|| usual().map(|state| state.join("backupd")))?;
    std::path::absolute(root).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_as_the_cloud_tools_write_it() {
        let credentials = "[default]\naws_access_key_id = A\naws_secret_access_key=B\n\n[ night ]\naws_access_key_id=C\n\
                           aws_secret_access_key = D=\naws_session_token = E\n";
        let config =
            "[default]\nregion = eu-central-1\n[profile night]\nregion=eu-west-1\naws_access_key_id=not-this\n";
        let usual = Profile::parse("default", credentials, config);
        assert_eq!((usual.access_key.as_deref(), usual.region.as_deref()), (Some("A"), Some("eu-central-1")));
        let night = Profile::parse("night", credentials, config);
        assert_eq!((night.access_key.as_deref(), night.secret_key.as_deref()), (Some("C"), Some("D=")));
        assert_eq!((night.session_token.as_deref(), night.region.as_deref()), (Some("E"), Some("eu-west-1")));
        assert_eq!(Profile::parse("nobody", credentials, config).access_key, None);
    }

    #[test]
    fn places_that_this_release_does_not_know_are_refused_in_one_sentence() {
        for place in ["az://c/p", "gs://b/p", "ftp://x", "", "s3://"] {
            let refused = location(place).err().unwrap();
            assert!(refused.is::<Usage>() && !refused.to_string().contains('\n'), "{place}: {refused}");
        }
        assert!(matches!(location("./here").unwrap(), StoreLocation::Folder { path } if path.is_absolute()));
    }
}
