//! The kept files: settings, keys and certificates that travel with every snapshot, so that `recover` can put them back.
//!
//! One that is gone stops no backup of the records. Its last known copy goes on travelling, so that a recovery from the newest
//! snapshot still has it, and somebody is told until it is back or no longer named under `keep`. Where there is no copy either,
//! the snapshot is partial: the practice could not be brought back from it alone.

use super::Daemon;
use crate::recover::KitNote;
use crate::secret;
use crate::sources::PRACTICE_PART;
use anyhow::Context;
use backup_engine::{Part, PartKind};
use backupd_api::{KeptGone, KeptKind};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// In the state folder: what travels, at its places below the practice's folder.
const COPY: &str = "kept";
/// The next one while it is made.
const NEXT: &str = "kept.next";

impl Daemon {
    /// Copies the kept files to a folder of the state, so that they travel as one part; and what of them is gone.
    pub(super) fn keep_part(&self) -> anyhow::Result<(Part, BTreeSet<KeptGone>)> {
        let (dir, next) = (self.settings.state_dir.join(COPY), self.settings.state_dir.join(NEXT));
        if dir.exists() {
            remove(&next)?;
        } else if next.exists() {
            // A run was killed between the two steps at the end of this function: it is whole.
            fs::rename(&next, &dir).context("the kept files")?;
        }
        secret::make_private_dir(&next)?;
        for (from, place) in self.kept_places()? {
            // Not to be had: its last copy is taken below.
            if let Err(error) = copy(&from, &next.join(&place)) {
                log::error!(kind:? = kind_of(&place), reason:% = error.kind(); "keep.file-gone");
            }
        }
        for place in self.carried(&dir)? {
            copy(&dir.join(&place), &next.join(&place)).context("the last copy of a kept file")?;
        }
        remove(&dir)?;
        fs::rename(&next, &dir).context("the kept files")?;
        let gone = self.kept_gone()?;
        Ok((Part { name: PRACTICE_PART.to_owned(), path: dir, kind: PartKind::Files }, gone))
    }

    /// Notes which kept files are gone, between two snapshots.
    pub(super) fn look_at_kept(&self) {
        match self.kept_gone() {
            Ok(gone) => self.view().kept_gone = gone.into_iter().collect(),
            Err(error) => log::warn!(reason:% = error; "keep.not-looked-at"),
        }
    }

    /// Notes whether the recovery kit still opens every store as it is reached now.
    pub(super) fn look_at_kit(&self) {
        let writer = self.writer();
        let note = KitNote::read(&self.settings.file);
        let fit = note.and_then(|note| note.map(|note| note.fit(&self.settings, writer.catalog())).transpose());
        match fit {
            Ok(fit) => self.view().kit = fit,
            Err(error) => log::warn!(reason:% = format!("{error:#}"); "kit.not-compared"),
        }
    }

    /// Kept files that cannot be read at their places now.
    pub(super) fn kept_gone(&self) -> anyhow::Result<BTreeSet<KeptGone>> {
        let dir = self.settings.state_dir.join(COPY);
        let carried = self.carried(&dir)?;
        let mut gone: BTreeSet<KeptGone> =
            carried.iter().map(|place| KeptGone { kind: kind_of(place), carried: true }).collect();
        for (from, place) in self.kept_places()? {
            let is_carried = |at: &Path| carried.iter().any(|carried| carried.starts_with(at));
            if !is_there(&from) && !is_carried(&place) {
                gone.insert(KeptGone { kind: kind_of(&place), carried: false });
            }
            // In a folder, what is seen and cannot be read.
            for below in files_below(&from).unwrap_or_default() {
                let at = place.join(&below);
                if !is_there(&from.join(&below)) && !is_carried(&at) {
                    gone.insert(KeptGone { kind: kind_of(&at), carried: false });
                }
            }
        }
        Ok(gone)
    }

    /// Where each kept file or folder lies, and its place below the practice's folder. A link that is named is followed.
    fn kept_places(&self) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
        let place = |path: &PathBuf| {
            let place = path.strip_prefix(&self.settings.practice_dir).context("`keep`")?;
            Ok((fs::canonicalize(path).unwrap_or_else(|_| path.clone()), place.to_owned()))
        };
        self.settings.keep.iter().map(place).collect()
    }

    /// Files of the last copy that are still to be kept and cannot be read at their places.
    fn carried(&self, dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let kept = self.kept_places()?;
        let missing = |file: &PathBuf| {
            let named = kept.iter().find(|(_, place)| file.starts_with(place));
            named.is_some_and(|(from, place)| match file.strip_prefix(place) {
                Ok(below) if !below.as_os_str().is_empty() => !is_there(&from.join(below)),
                _ => !is_there(from),
            })
        };
        let files = files_below(dir).context("the last copy of the kept files")?;
        Ok(files.into_iter().filter(missing).collect())
    }
}

fn remove(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("the kept files"),
        _ => Ok(()),
    }
}

/// Whether it can be read, not only seen.
fn is_there(path: &Path) -> bool {
    match path.is_dir() {
        true => fs::read_dir(path).is_ok(),
        false => fs::File::open(path).is_ok(),
    }
}

/// Every plain file below a folder, relative to it; none where the folder is not there yet.
fn files_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut work = vec![PathBuf::new()];
    while let Some(place) = work.pop() {
        let entries = match fs::read_dir(dir.join(&place)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let below = place.join(entry.file_name());
            match entry.file_type()? {
                kind if kind.is_dir() => work.push(below),
                kind if kind.is_file() => files.push(below),
                _ => {}
            }
        }
    }
    Ok(files)
}

/// What a kept file is, in closed words: its name and place are nobody's business in an alert.
fn kind_of(place: &Path) -> KeptKind {
    let name = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ending = place.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match (name, ending) {
        ("serve.toml", _) => KeptKind::ServeSettings,
        ("verifier.toml", _) => KeptKind::VerifierSettings,
        ("maintain.toml", _) => KeptKind::MaintainSettings,
        ("cli.toml", _) => KeptKind::CommandLineSettings,
        ("appliance.toml", _) => KeptKind::EmrSettings,
        ("console.toml", _) => KeptKind::ConsoleSettings,
        ("agent.toml", _) => KeptKind::AgentSettings,
        (_, "toml") => KeptKind::OtherSettings,
        (_, "key") => KeptKind::Key,
        (name, _) if name.contains("key") => KeptKind::Key,
        (_, "pem" | "crt" | "cer" | "der" | "pub") => KeptKind::Certificate,
        ("ca" | "tls", _) => KeptKind::CertificateFolder,
        _ => KeptKind::Other,
    }
}

/// Copies a file, or a folder with what is in it and can be read; the first error is told at the end. Symbolic links are not
/// followed out of the practice's folder.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut failed = Ok(());
    let mut work: Vec<(PathBuf, PathBuf)> = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = work.pop() {
        if let Err(error) = copy_one(&from, &to, &mut work) {
            failed = failed.and(Err(error));
        }
    }
    failed
}

fn copy_one(from: &Path, to: &Path, work: &mut Vec<(PathBuf, PathBuf)>) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            work.push((entry.path(), to.join(entry.file_name())));
        }
    } else if kind.is_file() {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        if let Err(error) = fs::copy(from, to) {
            // No half of a file travels; its last copy does.
            let _ = fs::remove_file(to);
            return Err(error);
        }
        // The time stays, so that an unchanged file is known as such.
        let modified = fs::metadata(from)?.modified()?;
        fs::File::options().write(true).open(to)?.set_modified(modified)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_file_has_a_word_and_no_name() {
        for (place, kind) in [
            ("serve.toml", KeptKind::ServeSettings),
            ("ca/ca.key", KeptKind::Key),
            ("ca/ca-key.pem", KeptKind::Key),
            ("tls/server.pem", KeptKind::Certificate),
            ("ca", KeptKind::CertificateFolder),
            ("Jane-Doe", KeptKind::Other),
        ] {
            assert_eq!(kind_of(Path::new(place)), kind, "{place}");
        }
    }
}
