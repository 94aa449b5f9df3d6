//! What opens a keyring: passphrase, paper key, shares or machine key, from a file, the environment or a person.

use super::kit::Place;
use crate::secret;
use anyhow::{Context, bail};
use backup_engine::{MachineKey, PaperKey, Passphrase, Share, UnlockWith};
use clap::Args;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

pub const PASSPHRASE_VARIABLE: &str = "BACKUPD_PASSPHRASE";
const PAPER_KEY_VARIABLE: &str = "BACKUPD_PAPER_KEY";
const SHARES_VARIABLE: &str = "BACKUPD_SHARES";
/// The systemd credential with the machine key.
const MACHINE_CREDENTIAL: &str = "machine-key";

#[derive(Args, Clone, Default)]
pub struct UnlockArgs {
    /// The paper key in a file (else BACKUPD_PAPER_KEY, else paper-key.txt beside the kit, else it is asked for)
    #[arg(long, value_name = "FILE")]
    pub paper_key_file: Option<PathBuf>,
    /// A passphrase in a file (else BACKUPD_PASSPHRASE)
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// A share in a file; give as many as are needed (else BACKUPD_SHARES, separated by commas)
    #[arg(long, value_name = "FILE")]
    pub share_file: Vec<PathBuf>,
    /// A machine key in a file (else the systemd credential `machine-key`)
    #[arg(long, value_name = "FILE")]
    pub machine_key_file: Option<PathBuf>,
}

impl UnlockArgs {
    /// The first that is there: named files, environment, the kit's own folder, a question at the terminal.
    pub fn find(&self, kit: Option<&Path>) -> anyhow::Result<UnlockWith> {
        if let Some(found) = self.all(kit)?.into_iter().next() {
            return Ok(found);
        }
        if !std::io::stdin().is_terminal() {
            bail!(crate::cli::Usage(format!(
                "nothing to open the keyring with: set {PASSPHRASE_VARIABLE}, {PAPER_KEY_VARIABLE} or {SHARES_VARIABLE}, \
                 or name a file (see --help)"
            )));
        }
        let typed = |prompt: &str| rpassword::prompt_password(prompt).map(Zeroizing::new).context("nothing was typed");
        let passphrase = typed("Passphrase (empty: paper key): ")?;
        if !passphrase.is_empty() {
            return Ok(UnlockWith::Passphrase(Passphrase::new(passphrase.to_string())));
        }
        Ok(UnlockWith::PaperKey(paper_key(&typed("Paper key: ")?)?))
    }

    /// Everything that was given, for a rehearsal; files before the environment.
    pub fn all(&self, kit: Option<&Path>) -> anyhow::Result<Vec<UnlockWith>> {
        let mut found = Vec::new();
        found.extend(self.passphrase()?.map(UnlockWith::Passphrase));
        if self.passphrase_file.is_some() {
            found.extend(passphrase_variable().map(UnlockWith::Passphrase));
        }
        let beside = kit.and_then(|kit| Place::of(kit).paper_key).filter(|file| file.is_file());
        let paper = match (&self.paper_key_file, variable(PAPER_KEY_VARIABLE), beside) {
            (Some(file), ..) => Some(text_of(file)?),
            (None, Some(text), _) => Some(text),
            (None, None, file) => file.as_deref().map(text_of).transpose()?,
        };
        found.extend(paper.map(|text| paper_key(&text)).transpose()?.map(UnlockWith::PaperKey));
        let shares = self.shares()?;
        if !shares.is_empty() {
            found.push(UnlockWith::Shares(shares));
        }
        let machine = match &self.machine_key_file {
            Some(file) => Some(secret::read(file)?),
            None => service::credential(MACHINE_CREDENTIAL).context("the credential `machine-key` cannot be read")?,
        };
        if let Some(bytes) = machine {
            let text = std::str::from_utf8(&bytes).context("the machine key is no text")?;
            found.push(UnlockWith::Machine(MachineKey::from_text(text).context("the machine key")?));
        }
        Ok(found)
    }

    pub fn passphrase(&self) -> anyhow::Result<Option<Passphrase>> {
        if let Some(file) = &self.passphrase_file {
            return Ok(Some(Passphrase::new(text_of(file)?.trim_end_matches(['\r', '\n']).to_owned())));
        }
        Ok(passphrase_variable())
    }

    fn shares(&self) -> anyhow::Result<Vec<Share>> {
        let mut texts = self.share_file.iter().map(|file| text_of(file)).collect::<anyhow::Result<Vec<_>>>()?;
        if texts.is_empty()
            && let Some(all) = variable(SHARES_VARIABLE)
        {
            texts.extend(all.split(',').map(|text| Zeroizing::new(text.to_owned())));
        }
        let read = |(at, text): (usize, &Zeroizing<String>)| {
            Share::from_text(share_line(text)).with_context(|| format!("share {} of those given", at + 1))
        };
        texts.iter().enumerate().map(read).collect()
    }
}

/// A file of a share may say above it what it is: the share is the last line that is not empty.
fn share_line(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default()
}

fn paper_key(text: &str) -> anyhow::Result<PaperKey> {
    PaperKey::from_text(text.trim()).context("the paper key is mistyped")
}

fn variable(name: &str) -> Option<Zeroizing<String>> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(Zeroizing::new)
}

/// The passphrase of the environment.
pub fn passphrase_variable() -> Option<Passphrase> {
    variable(PASSPHRASE_VARIABLE).map(|text| Passphrase::new(text.to_string()))
}

fn text_of(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let bytes = secret::read_kept(file)?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is no text", file.display()))?;
    Ok(Zeroizing::new(text.to_owned()))
}
