//! Which repository the `keys` commands work on: one place, or a practice with its stores, key files and kit.

use super::super::kit::Kit;
use super::super::kit::Place;
use super::super::note::KitNote;
use crate::cli::{Repository, Usage};
use crate::secret;
use crate::settings::{ClientSettings, MaintainSettings, ServeSettings, VerifierSettings};
use crate::stores;
use anyhow::{Context, ensure};
use backup_engine::{CatalogKey, Env, FormatError, NamedStore, OpenKey, Rewritten, WriterCredential};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct TargetArgs {
    /// One repository without a daemon: a folder or s3://bucket/prefix
    #[arg(long, value_name = "DIR|URL", conflicts_with_all = ["config", "kit"])]
    pub repo: Option<String>,
    /// A practice: its serve.toml (verifier.toml beside it is found), a verifier.toml, or the folder that holds them
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// The recovery kit of the practice; a command that changes the keyring makes it current
    #[arg(long, value_name = "PATH")]
    pub kit: Option<PathBuf>,
}

/// What was meant.
pub struct Target {
    pub env: Env,
    pub stores: Vec<NamedStore>,
    pub kit: Option<(PathBuf, Kit)>,
    /// The one repository's own state folder holds the writer credential.
    repository: Option<Repository>,
    pub writer: Option<PathBuf>,
    pub open: Option<PathBuf>,
    /// That of `backupd maintain`, where it prunes.
    maintain_open: Option<PathBuf>,
    /// serve.toml, where this machine has it: what the kit holds is noted beside it.
    serve: Option<PathBuf>,
}

impl TargetArgs {
    pub async fn find(&self) -> anyhow::Result<Target> {
        let kit = match &self.kit {
            Some(path) => Some((Place::of(&std::path::absolute(path)?).file, Kit::read(path)?)),
            None => None,
        };
        let mut target = Target {
            env: Env::real(),
            stores: Vec::new(),
            kit,
            repository: None,
            writer: None,
            open: None,
            maintain_open: None,
            serve: None,
        };
        if let Some(repo) = &self.repo {
            let repository = Repository::open(repo).await?;
            target.stores.push(repository.store.clone());
            target.writer = repository.writer_file();
            target.repository = Some(repository);
        } else if let Some(config) = &self.config {
            target.practice(&settings_file(config)?)?;
        } else if let Some((_, kit)) = &target.kit {
            let opened: anyhow::Result<Vec<_>> = kit.stores.iter().map(|store| store.open(None, None)).collect();
            target.stores = opened?;
        } else {
            return Err(Usage("name the repository: --repo DIR, --config serve.toml or --kit PATH".to_owned()).into());
        }
        Ok(target)
    }
}

/// A folder stands for the settings in it, and so does the cli.toml of a folder, which itself names no store or key.
fn settings_file(path: &Path) -> anyhow::Result<PathBuf> {
    let path = match ClientSettings::is(path) {
        true => &std::path::absolute(path)?.with_file_name(""),
        false => path,
    };
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    ["serve.toml", "backupd/serve.toml", "verifier.toml", "backupd/verifier.toml", "maintain.toml"]
        .into_iter()
        .map(|name| path.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| Usage(format!("{} holds no serve.toml, verifier.toml or maintain.toml", path.display())).into())
}

impl Target {
    fn practice(&mut self, file: &Path) -> anyhow::Result<()> {
        let beside = |name: &str| Some(file.with_file_name(name)).filter(|beside| beside.is_file());
        let maintain_file = beside("maintain.toml");
        self.serve = beside("serve.toml");
        if let Some(maintain) = maintain_file.as_deref().map(MaintainSettings::load).transpose()? {
            self.maintain_open = maintain.prune.and_then(|prune| prune.open_key);
            if file.ends_with("maintain.toml") {
                self.stores = stores::open_all(&maintain.stores)?;
                return Ok(());
            }
        }
        let verifier_file = if file.ends_with("verifier.toml") {
            Some(file.to_owned())
        } else {
            let serve = ServeSettings::load(file)?;
            self.stores = stores::open_all(&serve.stores)?;
            self.writer = serve.writer_credential;
            self.serve = Some(serve.file);
            beside("verifier.toml")
        };
        if let Some(file) = verifier_file {
            let verifier = VerifierSettings::load(&file)?;
            self.open = verifier.open_key;
            if self.stores.is_empty() {
                self.stores = stores::open_all(&verifier.stores)?;
            }
        }
        Ok(())
    }

    /// The catalog key, where a key file of this machine holds it: it tells the repository's own keyrings from others.
    pub fn catalog(&self) -> Option<CatalogKey> {
        let read = |path: &Option<PathBuf>| secret::read(path.as_ref().filter(|path| path.exists())?).ok();
        let writer = read(&self.writer).and_then(|bytes| WriterCredential::from_bytes(&bytes).ok());
        let open = || read(&self.open).and_then(|bytes| OpenKey::from_bytes(&bytes).ok());
        writer.map(|writer| writer.catalog().clone()).or_else(|| open().map(|open| open.catalog().clone()))
    }

    pub fn kit_path(&self) -> Option<&Path> {
        self.kit.as_ref().map(|(path, _)| path.as_path())
    }

    /// Writes the key files that this machine has, each by an atomic replace; says what it wrote.
    pub fn write_keys(&self, written: &Rewritten) -> anyhow::Result<Vec<String>> {
        let mut done = Vec::new();
        if let Some(path) = self.writer.as_ref().filter(|path| path.exists()) {
            match WriterCredential::from_bytes(&secret::read(path)?) {
                // A state folder may have served another repository before.
                Ok(old) if self.repository.as_ref().is_some_and(|repository| repository.id != old.repository()) => {}
                Ok(old) => {
                    secret::replace(path, &written.renew(&old)?.to_bytes())?;
                    done.push(format!("writer credential {}", path.display()));
                }
                Err(error) if error.is_not_damage() || matches!(error, FormatError::NotThis { .. }) => {
                    return Err(error).with_context(|| format!("{} holds no writer credential", path.display()));
                }
                Err(_) => {
                    secret::replace(path, &written.new_writer(&self.env).to_bytes())?;
                    done.push(format!("writer credential {} (it was damaged: a new writer)", path.display()));
                }
            }
        }
        let maintain_open = self.maintain_open.as_ref().filter(|path| Some(*path) != self.open.as_ref());
        for path in [self.open.as_ref(), maintain_open].into_iter().flatten().filter(|path| path.exists()) {
            secret::replace(path, &written.open_key().to_bytes())?;
            done.push(format!("open key {}", path.display()));
        }
        if let Some((path, kit)) = &self.kit {
            let repository = written.header.repository.to_string();
            ensure!(kit.repository == repository, "{} is the kit of another repository", path.display());
            let kit = kit.with_keyring(&written.keyring)?;
            kit.replace(path)?;
            if let Some(serve) = &self.serve {
                KitNote::write(&kit, written.open_key().catalog(), serve)?;
            }
            done.push(format!("recovery kit {}", path.display()));
        }
        Ok(done)
    }

    /// What is left to do for the kit after a keyring was written.
    pub fn tell_kit(&self) {
        match (&self.kit, &self.serve) {
            _ if self.repository.is_some() => {}
            (None, _) => say!(
                "The recovery kit still holds the keyring before: `backupd keys kit --config serve.toml --kit PATH` makes it current."
            ),
            (Some(_), None) => say!(
                "`backupd serve` calls the kit out of date until `backupd keys kit --config serve.toml --kit PATH` has noted it."
            ),
            (Some(_), Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_toml_stands_for_the_settings_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (cli, serve) = (dir.path().join("cli.toml"), dir.path().join("serve.toml"));
        std::fs::write(&cli, "serve = \"unix:/s\"\nmaintain = \"unix:/m\"\n").unwrap();
        assert!(settings_file(&cli).unwrap_err().to_string().contains("holds no serve.toml"));
        std::fs::write(&serve, "quorum = 2\n").unwrap();
        assert_eq!(settings_file(&cli).unwrap(), serve);
        assert_eq!(settings_file(dir.path()).unwrap(), serve);
        assert_eq!(settings_file(&serve).unwrap(), serve);
    }
}
