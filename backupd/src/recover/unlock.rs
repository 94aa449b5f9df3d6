//! What opens a keyring: the paper key or the passphrase, from a file, the environment or a person.

use super::kit::Place;
use crate::secret;
use anyhow::{Context, bail};
use backup_engine::{PaperKey, Passphrase, UnlockWith};
use clap::Args;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

pub const PASSPHRASE_VARIABLE: &str = "BACKUPD_PASSPHRASE";
const PAPER_KEY_VARIABLE: &str = "BACKUPD_PAPER_KEY";

#[derive(Args, Clone)]
pub struct UnlockArgs {
    /// The paper key in a file (else BACKUPD_PAPER_KEY, else it is asked for)
    #[arg(long, value_name = "FILE")]
    pub paper_key_file: Option<PathBuf>,
    /// A passphrase in a file (else BACKUPD_PASSPHRASE)
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl UnlockArgs {
    /// The first that is there: named files, environment, the kit's own folder, a question at the terminal.
    pub fn find(&self, kit: &Path) -> anyhow::Result<UnlockWith> {
        if let Some(passphrase) = self.passphrase()? {
            return Ok(UnlockWith::Passphrase(passphrase));
        }
        self.paper_key(kit)?
            .map(UnlockWith::PaperKey)
            .context("the paper key is needed: --paper-key-file FILE, BACKUPD_PAPER_KEY, or type it at a terminal")
    }

    pub fn passphrase(&self) -> anyhow::Result<Option<Passphrase>> {
        if let Some(file) = &self.passphrase_file {
            return Ok(Some(Passphrase::new(text_of(file)?.trim_end_matches(['\r', '\n']).to_owned())));
        }
        Ok(passphrase_variable())
    }

    pub fn paper_key(&self, kit: &Path) -> anyhow::Result<Option<PaperKey>> {
        let beside = Place::of(kit).paper_key.filter(|file| file.is_file());
        let text = match (&self.paper_key_file, std::env::var(PAPER_KEY_VARIABLE)) {
            (Some(file), _) => text_of(file)?,
            (None, Ok(text)) => Zeroizing::new(text),
            (None, Err(_)) => match beside {
                Some(file) => text_of(&file)?,
                None if std::io::stdin().is_terminal() => {
                    Zeroizing::new(rpassword::prompt_password("Paper key: ").context("the paper key was not typed")?)
                }
                None => return Ok(None),
            },
        };
        Ok(Some(PaperKey::from_text(text.trim()).context("the paper key is mistyped")?))
    }
}

/// The passphrase of the environment.
pub fn passphrase_variable() -> Option<Passphrase> {
    std::env::var(PASSPHRASE_VARIABLE).ok().filter(|p| !p.is_empty()).map(Passphrase::new)
}

/// The passphrase of the environment, or typed at a terminal.
pub fn passphrase_or_ask(prompt: &str) -> anyhow::Result<Passphrase> {
    if let Some(passphrase) = passphrase_variable() {
        return Ok(passphrase);
    }
    if !std::io::stdin().is_terminal() {
        bail!(crate::cli::Usage(format!("no passphrase: set {PASSPHRASE_VARIABLE}, or type it at a terminal")));
    }
    let typed = rpassword::prompt_password(prompt).context("the passphrase was not typed")?;
    if typed.is_empty() {
        bail!(crate::cli::Usage("an empty passphrase protects nothing".to_owned()));
    }
    Ok(Passphrase::new(typed))
}

fn text_of(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let bytes = secret::read(file)?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is no text", file.display()))?;
    Ok(Zeroizing::new(text.to_owned()))
}
