//! The kept files: settings, keys and certificates that travel with every snapshot, so that `recover` can put them back.
//!
//! One that is gone stops no backup of the records. Its last known copy goes on travelling, so that a recovery from the newest
//! snapshot still has it, and somebody is told until it is back or no longer named under `keep`. Where there is no copy either,
//! the snapshot is partial: the practice could not be brought back from it alone.

use super::Daemon;
use crate::recover::{Fit, KitNote};
use crate::secret;
use crate::sources::PRACTICE_PART;
use anyhow::Context;
use backup_engine::{Part, PartKind};
use backupd_api::{KeptGone, KeptKind};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// In the state folder: what travels, at its places below the practice's folder.
const COPY: &str = "kept";
/// The next one while it is made.
const NEXT: &str = "kept.next";
/// The one before, until the next stands in its place.
const BEFORE: &str = "kept.before";
/// The jobs' note that a kit was noted on this machine.
const KIT_NOTED: &str = "kit-noted";

impl Daemon {
    /// Copies the kept files to a folder of the state, so that they travel as one part; and what of them is gone.
    pub(super) fn keep_part(&self) -> anyhow::Result<(Part, BTreeSet<KeptGone>)> {
        let [dir, next, before] = [COPY, NEXT, BEFORE].map(|name| self.settings.state_dir.join(name));
        if !dir.exists() && next.exists() && before.exists() {
            // A run was killed between the two renames at the end of this function: the next is whole.
            fs::rename(&next, &dir).context("the kept files")?;
        }
        remove(&next)?;
        remove(&before)?;
        secret::make_private_dir(&next)?;
        let mut missing = BTreeSet::new();
        for (from, place) in self.kept_places()? {
            let (files, failed) = files_of(&from, &place, dir.join(&place).is_dir());
            missing.extend(failed);
            for (from, place) in files {
                if let Err(error) = copy(&from, &next.join(&place)) {
                    log::error!(kind:? = kind_of(&place), reason:% = error.kind(); "keep.file-unreadable");
                    missing.insert(place);
                }
            }
        }
        let mut gone = BTreeSet::new();
        for place in self.last_known(&dir)?.into_iter().filter(|place| !next.join(place).exists()) {
            // A second name needs no room on the disk and reads nothing.
            let carried = carry(&dir.join(&place), &next.join(&place)).is_ok();
            // Which one it is stands here and nowhere else: it is the practice's own settings or keys, and no record.
            log::error!(place:% = place.display(), carried; "keep.file-gone");
            gone.insert(KeptGone { kind: kind_of(&place), carried });
        }
        let lost = missing.iter().filter(|place| !next.join(place).exists());
        gone.extend(lost.map(|place| KeptGone { kind: kind_of(place), carried: false }));
        // Renamed, not removed file by file: what a killed removal left would be no last copy of the rest.
        if dir.exists() {
            fs::rename(&dir, &before).context("the kept files")?;
        }
        fs::rename(&next, &dir).context("the kept files")?;
        remove(&before)?;
        Ok((Part { name: PRACTICE_PART.to_owned(), path: dir, kind: PartKind::Files }, gone))
    }

    /// Notes which kept files are gone, between two snapshots.
    pub(super) fn look_at_kept(&self) {
        match self.kept_gone() {
            Ok(gone) => self.view().kept_gone = gone.into_iter().collect(),
            Err(error) => log::warn!(reason:% = error; "keep.not-looked-at"),
        }
    }

    /// Notes whether the recovery kit still opens every store as it is reached now, and holds their newest keyring.
    pub(super) fn look_at_kit(&self) {
        let writer = self.writer();
        let newest = self.view().keyring;
        let fit = match KitNote::read(&self.settings.file) {
            Ok(Some(note)) => {
                self.note_kit();
                note.fit(&self.settings, writer.catalog(), newest).map(Some)
            }
            Ok(None) => Ok(self.jobs().note(KIT_NOTED).ok().flatten().map(|_| Fit::unknown())),
            Err(error) => {
                log::warn!(reason:% = format!("{error:#}"); "kit.note-unreadable");
                Ok(Some(Fit::unknown()))
            }
        };
        match fit {
            Ok(fit) => self.view().kit = fit,
            Err(error) => log::warn!(reason:% = format!("{error:#}"); "kit.not-compared"),
        }
    }

    /// There was a note of the kit once: when it is gone, nobody compares any more, and that is told.
    fn note_kit(&self) {
        let jobs = self.jobs();
        if let Ok(None) = jobs.note(KIT_NOTED)
            && let Err(error) = jobs.set_note(KIT_NOTED, "")
        {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }

    /// Kept files that cannot be read at their places now.
    pub(super) fn kept_gone(&self) -> anyhow::Result<BTreeSet<KeptGone>> {
        let dir = self.settings.state_dir.join(COPY);
        let (mut there, mut missing) = (BTreeSet::new(), BTreeSet::new());
        for (from, place) in self.kept_places()? {
            let (files, failed) = files_of(&from, &place, dir.join(&place).is_dir());
            missing.extend(failed);
            let (readable, not): (Vec<_>, Vec<_>) = files.into_iter().partition(|(from, _)| is_readable(from));
            there.extend(readable.into_iter().map(|(_, place)| place));
            missing.extend(not.into_iter().map(|(_, place)| place));
        }
        let carried: Vec<_> = self.last_known(&dir)?.into_iter().filter(|place| !there.contains(place)).collect();
        missing.retain(|place| !carried.iter().any(|carried| carried.starts_with(place)));
        let told = |place: &PathBuf, carried| KeptGone { kind: kind_of(place), carried };
        Ok(carried
            .iter()
            .map(|place| told(place, true))
            .chain(missing.iter().map(|place| told(place, false)))
            .collect())
    }

    /// Where each kept file or folder lies, and its place below the practice's folder. A link that is named is followed.
    fn kept_places(&self) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
        let place = |path: &PathBuf| {
            let place = path.strip_prefix(&self.settings.practice_dir).context("`keep`")?;
            Ok((fs::canonicalize(path).unwrap_or_else(|_| path.clone()), place.to_owned()))
        };
        self.settings.keep.iter().map(place).collect()
    }

    /// Files of the last copy that are still to be kept.
    fn last_known(&self, dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let kept = self.kept_places()?;
        let files = files_below(dir).context("the last copy of the kept files")?;
        Ok(files.into_iter().filter(|file| kept.iter().any(|(_, place)| file.starts_with(place))).collect())
    }
}

fn remove(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("the kept files"),
        _ => Ok(()),
    }
}

/// As much of a kept file is read to see whether it can be: they are small.
const LOOK_BYTES: u64 = 1 << 20;

/// Whether it can be read, not only seen and opened.
fn is_readable(path: &Path) -> bool {
    fs::File::open(path).and_then(|file| io::copy(&mut file.take(LOOK_BYTES), &mut io::sink())).is_ok()
}

/// The files of a kept file or folder with their places, and the places of which nothing can be said. A link to a file
/// stands for that file; one to a folder is not followed. What was a folder and is none any more is gone.
fn files_of(from: &Path, place: &Path, was_folder: bool) -> (Vec<(PathBuf, PathBuf)>, Vec<PathBuf>) {
    let (mut files, mut failed) = (Vec::new(), Vec::new());
    if was_folder && !from.is_dir() {
        return (files, vec![place.to_owned()]);
    }
    let (named, mut work) = (place, vec![(from.to_owned(), place.to_owned())]);
    while let Some((from, place)) = work.pop() {
        let is_link = fs::symlink_metadata(&from).is_ok_and(|meta| meta.is_symlink());
        match fs::metadata(&from) {
            Ok(meta) if meta.is_dir() && is_link => {}
            Ok(meta) if meta.is_dir() => match entries(&from) {
                Ok(names) => work.extend(names.into_iter().map(|name| (from.join(&name), place.join(&name)))),
                Err(_) => failed.push(place),
            },
            // Neither a pipe nor a device is a file to keep, and reading it could wait for ever.
            Ok(meta) if meta.is_file() && is_passing(&place) && place != named => {}
            Ok(meta) if meta.is_file() => files.push((from, place)),
            _ => failed.push(place),
        }
    }
    (files, failed)
}

fn entries(dir: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
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
    files.retain(|file: &PathBuf| !is_passing(file));
    Ok(files)
}

/// Files of a moment: what a tool writes before it renames, and what editors leave.
fn is_passing(place: &Path) -> bool {
    let name = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(".#") || [".new", ".tmp", ".swp", "~"].iter().any(|ending| name.ends_with(ending))
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

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    make_parent(to)?;
    // The time stays, so that an unchanged file is known as such.
    let timed = || fs::File::options().write(true).open(to)?.set_modified(fs::metadata(from)?.modified()?);
    // No half of a file travels; its last copy does.
    fs::copy(from, to).and_then(|_| timed()).inspect_err(|_| drop(fs::remove_file(to)))
}

fn carry(from: &Path, to: &Path) -> io::Result<()> {
    make_parent(to)?;
    fs::hard_link(from, to).or_else(|_| copy(from, to))
}

fn make_parent(to: &Path) -> io::Result<()> {
    to.parent().map_or(Ok(()), fs::create_dir_all)
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
