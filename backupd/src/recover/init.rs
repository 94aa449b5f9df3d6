//! `backupd init`: a repository in every store, the keys where the settings want them, and the recovery kit.

use super::kit::{Kit, KitStore, Place, SavedFile};
use super::note::KitNote;
use super::unlock::UnlockArgs;
use crate::cli::Usage;
use crate::settings::{MaintainSettings, ServeSettings, VerifierSettings};
use crate::{clock, secret, stores};
use anyhow::{Context, ensure};
use backup_engine::{Env, InitOptions, Initialized, PaperKey, UnlockWith, issue_pruner};
use backup_report::ReportSigner;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

#[derive(Args)]
pub struct InitArgs {
    /// serve.toml of the new practice
    #[arg(long, value_name = "FILE", conflicts_with = "repo", required_unless_present = "repo")]
    pub config: Option<PathBuf>,
    /// verifier.toml; by default the one beside serve.toml
    #[arg(long, value_name = "FILE", requires = "config")]
    pub verifier_config: Option<PathBuf>,
    /// Where the recovery kit goes: FILE.json, or a folder, which then also gets the paper key
    #[arg(long, value_name = "PATH", requires = "config")]
    pub kit: Option<PathBuf>,
    /// Write the paper key here instead of showing it once
    #[arg(long, value_name = "FILE", requires = "config")]
    pub write_paper_key: Option<PathBuf>,
    /// A second way to open the keyring: a passphrase in a file
    #[arg(long, value_name = "FILE", requires = "config")]
    pub passphrase_file: Option<PathBuf>,
    /// Make a repository without a daemon: a folder, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix; passphrase in BACKUPD_PASSPHRASE
    #[arg(long, value_name = "DIR|URL")]
    pub repo: Option<String>,
    /// Answer in lines of JSON
    #[arg(long)]
    pub json: bool,
}

/// The files that init writes.
struct Files {
    writer: PathBuf,
    open: PathBuf,
    report: PathBuf,
    report_public: PathBuf,
    /// Where the maintain.toml beside prunes: its credential, and the open key where that is another file than the verifier's.
    pruner: Option<PathBuf>,
    maintain_open: Option<PathBuf>,
    kit: PathBuf,
    paper_key: Option<PathBuf>,
}

pub async fn init(args: InitArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.as_deref().context("--config")?;
    let kit = args.kit.as_deref().ok_or_else(|| {
        Usage(
            "--kit is missing: say where the recovery kit goes; without it a lost machine means lost records"
                .to_owned(),
        )
    })?;
    let serve = ServeSettings::load(config)?;
    let beside = config.with_file_name("verifier.toml");
    let verifier_config = args.verifier_config.clone().or_else(|| beside.is_file().then_some(beside));
    let verifier = verifier_config.as_deref().map(VerifierSettings::load).transpose()?;
    let mut files = files(&serve, verifier.as_ref(), kit, args.write_paper_key.clone())?;
    let maintain = config.with_file_name("maintain.toml");
    if let Some(prune) =
        maintain.is_file().then(|| MaintainSettings::load(&maintain)).transpose()?.and_then(|m| m.prune)
    {
        files.maintain_open = prune.open_key.filter(|path| *path != files.open);
        files.pruner = prune.pruner_credential;
    }
    files.check_absent()?;
    files.check_places()?;
    let named = stores::open_all(&serve.stores)?;
    serve.stores.iter().try_for_each(|store| stores::mark(store).map(|_| ()))?;
    let unlock = UnlockArgs { passphrase_file: args.passphrase_file.clone(), ..UnlockArgs::default() };
    let passphrase = unlock.passphrase()?;
    let mut slots = vec!["paper-key".to_owned()];
    slots.extend(passphrase.is_some().then(|| "passphrase".to_owned()));
    let seed = Zeroizing::new(clock::random::<32>()?);
    let signer = ReportSigner::from_seed(&seed);
    let seed = Zeroizing::new(hex::encode(seed.as_slice()));
    let made = backup_engine::init(&Env::real(), &named, InitOptions { passphrase }).await?;
    let kit = assemble(&serve, verifier.as_ref(), &made, slots, &seed, &files)?;
    secret::write_new(&files.writer, &made.writer.to_bytes())?;
    secret::write_new(&files.open, &made.open.to_bytes())?;
    if let Some(path) = &files.maintain_open {
        secret::write_new(path, &made.open.to_bytes())?;
    }
    if let Some(path) = &files.pruner {
        let paper = UnlockWith::PaperKey(PaperKey::from_text(&made.paper_key.to_text())?);
        let pruner = issue_pruner(&Env::real(), made.keyring.clone(), &paper).await?;
        secret::write_new(path, &pruner.to_bytes())?;
    }
    secret::write_new(&files.report, seed.as_bytes())?;
    secret::write_new(&files.report_public, signer.public_key().to_pem().as_bytes())?;
    kit.write(&files.kit)?;
    KitNote::write(&kit, made.open.catalog(), &serve.file)?;
    let paper = made.paper_key.to_text();
    if let Some(file) = &files.paper_key {
        secret::write_new(file, format!("{}\n", paper.as_str()).as_bytes())?;
    }
    tell(&args, &serve, &made, &files, &signer, &paper);
    Ok(ExitCode::SUCCESS)
}

fn files(
    serve: &ServeSettings,
    verifier: Option<&VerifierSettings>,
    kit: &Path,
    paper_key: Option<PathBuf>,
) -> anyhow::Result<Files> {
    let file = std::path::absolute(&serve.file)?;
    let key = |set: Option<&PathBuf>, name: &str| set.cloned().unwrap_or_else(|| file.with_file_name(name));
    let paper_key = paper_key.map(std::path::absolute).transpose()?;
    let place = Place::of(&std::path::absolute(kit)?);
    Ok(Files {
        writer: key(serve.writer_credential.as_ref(), "writer.cred"),
        open: key(verifier.and_then(|v| v.open_key.as_ref()), "open.key"),
        report: key(verifier.and_then(|v| v.report_key.as_ref()), "report.key"),
        report_public: key(serve.report_key.as_ref(), "report.pub"),
        pruner: None,
        maintain_open: None,
        kit: place.file,
        paper_key: paper_key.or(place.paper_key),
    })
}

impl Files {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        let always = [&self.writer, &self.open, &self.report, &self.report_public, &self.kit];
        always.into_iter().chain(&self.paper_key).chain(&self.pruner).chain(&self.maintain_open)
    }

    /// Before anything is made: init never replaces a key.
    fn check_absent(&self) -> anyhow::Result<()> {
        for path in self.all() {
            ensure!(
                !path.exists(),
                Usage(format!(
                    "{} exists already: this practice was begun before; nothing was changed",
                    path.display()
                ))
            );
        }
        Ok(())
    }

    /// Before anything is made: a file that cannot be written would leave half a practice.
    fn check_places(&self) -> anyhow::Result<()> {
        for path in self.all() {
            secret::check_place(path).map_err(|error| {
                Usage(format!("{error:#}: choose a folder that can be written; nothing was changed"))
            })?;
        }
        Ok(())
    }
}

/// A settings file, for the kit.
pub(super) fn saved_file(serve: &ServeSettings, path: &Path) -> anyhow::Result<SavedFile> {
    let relative = path.strip_prefix(&serve.practice_dir).unwrap_or(path);
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(SavedFile { path: relative.display().to_string(), text })
}

/// What to type, in order.
pub(super) fn recover_commands(serve: &ServeSettings, kit: &Path) -> Vec<String> {
    let (kit, dir) = (kit.display(), serve.practice_dir.display());
    let recover = |store: &str| format!("backupd recover --kit {kit} --store {store} --into {dir}");
    let mut commands = vec![
        "# Install the same release of Holdfast on an empty machine. Have this file and the paper key at hand."
            .to_owned(),
        "# Any one of the stores is enough:".to_owned(),
    ];
    commands.extend(serve.stores.iter().map(|s| recover(&s.name)));
    commands.push(
        "# Then start the EMR, `backupd serve` and `backupd verifier` as the command says at its end.".to_owned(),
    );
    commands
}

fn assemble(
    serve: &ServeSettings,
    verifier: Option<&VerifierSettings>,
    made: &Initialized,
    slots: Vec<String>,
    seed: &str,
    files: &Files,
) -> anyhow::Result<Kit> {
    let find = |name: &str| verifier.and_then(|v| v.stores.iter().find(|s| s.name == name));
    let stores: anyhow::Result<Vec<_>> = serve.stores.iter().map(|s| KitStore::of(s, find(&s.name))).collect();
    Ok(Kit {
        form: Kit::form(),
        practice: serve.practice.clone(),
        repository: made.repository.to_string(),
        made_unix_ms: clock::unix_ms(),
        keyring_base64: STANDARD.encode(&made.keyring),
        slots,
        report_key: seed.to_owned(),
        serve_toml: saved_file(serve, &serve.file)?,
        verifier_toml: verifier.map(|v| saved_file(serve, &v.file)).transpose()?,
        stores: stores?,
        commands: recover_commands(serve, &files.kit),
    })
}

fn tell(
    args: &InitArgs,
    serve: &ServeSettings,
    made: &Initialized,
    files: &Files,
    signer: &ReportSigner,
    paper: &Zeroizing<String>,
) {
    let fingerprint = signer.public_key().fingerprint().to_string();
    let shown_paper = files.paper_key.is_none().then(|| paper.as_str());
    if args.json {
        let line = serde_json::json!({
            "event": "initialized",
            "repository": made.repository.to_string(),
            "stores": serve.stores.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
            "kit": files.kit.display().to_string(),
            "paper_key": shown_paper,
            "paper_key_file": files.paper_key.as_ref().map(|p| p.display().to_string()),
            "report_key_fingerprint": fingerprint,
        });
        say!("{line}");
        return;
    }
    say!("Repository {} stands in {} stores.", made.repository, serve.stores.len());
    say!("Recovery kit: {}. Copy it to a safe place outside this building.", files.kit.display());
    say!("Fingerprint of the report key (give it to your auditor): {fingerprint}");
    match (&files.paper_key, shown_paper) {
        (Some(file), _) => {
            say!("Paper key: {}. Print it, keep it apart from the kit, remove the file.", file.display())
        }
        (None, Some(paper)) => {
            say!("\nThe paper key, shown this once. Write it down and keep it apart from the kit:\n\n    {paper}\n");
        }
        (None, None) => {}
    }
}
