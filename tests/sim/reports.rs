//! I7: the log of reports is append-only, and whatever any store ever showed of it fits together. The daemon's own code adds
//! reports, copies, looks and heals over stores that fail; it is killed between any two requests; its folder is lost, set
//! back, torn, or stands on two machines.
//!
//! The auditor keeps every checkpoint that any store was ever given and every report whose leaf was acknowledged. One history
//! may part in two only where nobody could have known better: the folder did not hold the newest of it, and no store that
//! showed it answered as it should. Then whoever looks at that store is told.

use crate::auditor::Verdict;
use crate::faults::Fault;
use crate::sample::{origin, report, signer};
use crate::scenario::shelves;
use crate::shelf::{Direct, Shelf};
use crate::wire::Process;
use crate::world::{BEGIN_UNIX_MS, World};
use backup_engine::{Env, NamedStore};
use backup_report::{
    Checkpoint, Hash, Label, Log, Seen, View, compare_checkpoints, leaf_hash, root_of, verify_consistency,
};
use backupd::reports::{Reports, objects};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const SEEDS: u64 = 200;

/// A machine that holds the report key and a folder of the log.
struct Verifier {
    folder: PathBuf,
    /// Its folder as it was on earlier days.
    days: Vec<PathBuf>,
}

struct Practice {
    world: Arc<World>,
    env: Env,
    shelves: Vec<Arc<Shelf>>,
    verifiers: Vec<Verifier>,
    temp: TempDir,
    /// The history, as far as any folder or store ever held it.
    truth: Vec<Hash>,
    /// Reports that were tried.
    tried: AtomicU32,
    /// The leaves of those that were acknowledged.
    acknowledged: std::sync::Mutex<BTreeSet<Hash>>,
}

#[derive(Default)]
struct Told {
    reports: u64,
    /// Runs that began with a folder that did not hold the newest.
    behind: u64,
    parted: bool,
    trace: String,
}

/// How a run of the verifier stands to what is known of the log.
struct Before {
    faults: u64,
    /// Something ails a store already.
    ailing: bool,
    /// Its own folder does not hold all that was ever written.
    behind: bool,
    /// Entries that were ever written, and that any store shows now.
    known: u64,
    shown: u64,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        let target = to.join(file.file_name());
        if file.file_type()?.is_dir() {
            copy(&file.path(), &target)?
        } else {
            fs::copy(file.path(), target).map(drop)?
        }
    }
    Ok(())
}

fn replace(folder: &Path, by: &Path) -> std::io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    copy(by, folder)
}

impl Practice {
    fn new(seed: u64) -> Verdict<Self> {
        let world = World::new(seed ^ 0x5eed << 32, std::env::var_os("HOLDFAST_SIM_SEED").is_some());
        // Memory where there is some: nothing here outlives the test, and it syncs often.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let temp = tempfile::tempdir_in(root).map_err(text)?;
        let verifier = Verifier { folder: temp.path().join("verifier-0"), days: Vec::new() };
        Ok(Self {
            env: Env::seeded(seed, BEGIN_UNIX_MS).0,
            shelves: shelves(&world),
            world,
            verifiers: vec![verifier],
            temp,
            truth: Vec::new(),
            tried: AtomicU32::new(0),
            acknowledged: std::sync::Mutex::default(),
        })
    }

    fn reports(&self, verifier: &Verifier, stores: Vec<NamedStore>) -> Reports {
        Reports::new(&verifier.folder, origin(), signer(), stores)
    }

    fn acknowledged(&self) -> std::sync::MutexGuard<'_, BTreeSet<Hash>> {
        self.acknowledged.lock().expect("nobody panics with it")
    }

    fn faults(&self) -> u64 {
        Fault::ALL.iter().map(|fault| self.world.count(*fault)).sum()
    }

    /// Every checkpoint that any store ever showed, with where.
    fn shown(&self) -> Verdict<Vec<Seen>> {
        let of = |shelf: &Arc<Shelf>| {
            let place = Label::parse(&shelf.name).map_err(text)?;
            let seen = shelf
                .checkpoints()
                .into_iter()
                .map(move |note| Seen { place: place.clone(), checkpoint: note.to_vec() });
            Ok::<_, String>(seen.collect::<Vec<_>>())
        };
        Ok(self.shelves.iter().map(of).collect::<Verdict<Vec<_>>>()?.concat())
    }

    /// The root of each size that was ever shown; an error where one size has two.
    fn roots(&self) -> Verdict<BTreeMap<u64, Hash>> {
        let mut roots = BTreeMap::new();
        for seen in self.shown()? {
            let head = Checkpoint::verify_of(&seen.checkpoint, &signer().public_key(), &origin()).map_err(text)?;
            if roots.insert(head.size, head.root).is_some_and(|root| root != head.root) {
                return Err(format!("I7: two histories of {} entries are signed", head.size));
            }
        }
        Ok(roots)
    }

    /// How far the log goes that stands in a store now.
    fn shown_by(&self, shelf: &Shelf) -> u64 {
        let sizes = shelf.list("log/checkpoint-").into_iter().filter_map(|(name, _)| shelf.get(&name));
        let heads = sizes.filter_map(|note| Checkpoint::verify_of(&note, &signer().public_key(), &origin()).ok());
        heads.map(|head| head.size).max().unwrap_or(0)
    }

    fn before(&self, verifier: &Verifier) -> Before {
        let behind = !self.own(verifier).starts_with(&self.truth);
        let shown = self.shelves.iter().map(|shelf| self.shown_by(shelf)).max().unwrap_or(0);
        let ailing = self.shelves.iter().any(|shelf| shelf.ails());
        Before { faults: self.faults(), ailing, behind, known: self.truth.len() as u64, shown }
    }

    /// A program's run: some work of a verifier, until it is killed.
    async fn run(&self, verifier: &Verifier) {
        let kill = self.world.is_enabled(Fault::Kill) && self.world.chance(400);
        let kill = kill.then(|| self.world.below(60));
        let parted = self.world.is_enabled(Fault::Diverged) && self.world.chance(250);
        let blind = self.shelves.iter().filter(|_| parted && self.world.chance(600));
        let blind: BTreeSet<String> = blind.map(|shelf| shelf.name.clone()).collect();
        let process = Process::new("verifier".to_owned(), kill, blind);
        let stores = process.stores(&self.env, &self.world, &self.shelves);
        let reports = self.reports(verifier, stores.clone());
        let work = async {
            for _ in 0..1 + self.world.below(3) {
                match self.world.below(5) {
                    0 => {
                        let store = self.world.with_rng(|rng| rng.pick(&stores).cloned());
                        let Some(store) = store else { continue };
                        let _ = reports.look(&store).await;
                        let _ = reports.heal(&store).await;
                    }
                    _ => self.add(&reports).await,
                }
            }
        };
        let _ = process.run(work, None).await;
    }

    async fn add(&self, reports: &Reports) {
        let bytes = report(self.tried.fetch_add(1, Ordering::SeqCst)).to_bytes();
        match reports.append(&bytes).await {
            Ok(()) => {
                self.world.note(format_args!("acknowledged {}", self.acknowledged().len()));
                self.acknowledged().insert(leaf_hash(&bytes));
            }
            Err(failure) => self.world.note(format_args!("not acknowledged: {}", failure.message)),
        }
    }

    /// What happens to the folders between two runs.
    fn hurt(&mut self) -> std::io::Result<()> {
        let world = Arc::clone(&self.world);
        for (at, verifier) in self.verifiers.iter_mut().enumerate() {
            let log = verifier.folder.join("log");
            if world.strikes(Fault::PowerCut, 150) {
                let cut = cut_off(&world, &log, &self.truth, self.tried.fetch_add(1, Ordering::SeqCst));
                self.truth = cut.unwrap_or(std::mem::take(&mut self.truth));
            }
            if world.strikes(Fault::TornState, 60) {
                with_a_file(&world, &log, |bytes| bytes.truncate(bytes.len() / 2))?;
            }
            if world.strikes(Fault::BitFlip, 60) {
                with_a_file(&world, &log, |bytes| {
                    if let Some(byte) = bytes.first_mut() {
                        *byte ^= 1;
                    }
                })?;
            }
            if world.strikes(Fault::LostWrite, 80)
                && let Some(day) = world.with_rng(|rng| rng.pick(&verifier.days).cloned())
            {
                replace(&verifier.folder, &day)?;
            }
            if world.strikes(Fault::StateLost, 100) && log.exists() {
                fs::remove_dir_all(if world.chance(500) { &log } else { &verifier.folder })?;
            }
            if verifier.folder.exists() && world.chance(500) {
                let day = self.temp.path().join(format!("day-{at}-{}", verifier.days.len()));
                copy(&verifier.folder, &day)?;
                verifier.days.push(day);
            }
        }
        if self.verifiers.len() == 1 && world.strikes(Fault::MachineCopied, 100) {
            let copied = Verifier { folder: self.temp.path().join("verifier-1"), days: Vec::new() };
            if let Some(first) = self.verifiers.first().filter(|first| first.folder.exists()) {
                copy(&first.folder, &copied.folder)?;
                self.verifiers.push(copied);
            }
        }
        Ok(())
    }

    /// The leaves in a verifier's folder.
    fn own(&self, verifier: &Verifier) -> Vec<Hash> {
        Log::open(&verifier.folder.join("log"), origin(), &signer()).map_or(Vec::new(), |log| log.leaves().to_vec())
    }

    /// Takes over what a verifier's folder holds now. An error: this is another history than the one that is known.
    fn learn(&mut self, at: usize) -> Verdict<()> {
        let roots = self.roots()?;
        let own = self.own(&self.verifiers[at]);
        if !fit(&own, &self.truth) {
            // What stood in one folder alone, reached no store and is gone from there was never a history.
            let shown = roots.keys().all(|size| *size <= own.len() as u64);
            let others = self.verifiers.iter().all(|other| fit(&self.own(other), &own));
            let lost = self.acknowledged().iter().any(|leaf| !own.contains(leaf));
            if !shown || !others || lost {
                return Err(format!("I7: {} entries are no continuation of {}", own.len(), self.truth.len()));
            }
            self.truth.clear();
        }
        if own.len() > self.truth.len() {
            self.truth = own;
        }
        let is_shown = |(size, root): &(&u64, &Hash)| {
            self.truth.get(..**size as usize).is_some_and(|leaves| root_of(leaves) == **root)
        };
        match roots.iter().find(|root| !is_shown(root)) {
            Some((size, _)) => Err(format!("I7: a store shows {size} entries that are not the beginning of the log")),
            None => Ok(()),
        }
    }

    /// Nothing goes wrong any more: every store by itself shows the whole log to whoever has nothing else.
    async fn calm(&self, parted: bool) -> Verdict<u64> {
        self.world.calm();
        self.shelves.iter().for_each(|shelf| shelf.ail(None));
        tokio::time::sleep(Duration::from_secs(120)).await;
        let process = Process::new("verifier".to_owned(), None, BTreeSet::new());
        let stores = process.stores(&self.env, &self.world, &self.shelves);
        let verifier = self.verifiers.first().ok_or("a verifier")?;
        let before = self.before(verifier);
        let reports = self.reports(verifier, stores.clone());
        let last = report(self.tried.fetch_add(1, Ordering::SeqCst)).to_bytes();
        // What stands in no store and not in the folder, nobody can know.
        let parted = parted || (before.behind && before.shown < before.known);
        // Where nothing proves the whole history any more, none is begun.
        let whole = self.shelves.iter().any(|shelf| shelf.safe && self.shown_by(shelf) == before.known);
        match reports.append(&last).await {
            Err(failure) if before.behind && !whole => {
                self.world.note(format_args!("refused: {}", failure.message));
                return Ok(0);
            }
            // Whoever asks hears of it.
            Err(_) if parted => return Ok(0),
            Err(failure) => return Err(format!("I7: in peace: {}", failure.message)),
            Ok(()) => self.acknowledged().insert(leaf_hash(&last)),
        };
        for store in &stores {
            reports.heal(store).await.map_err(|failure| format!("I7: {}: {}", store.name, failure.message))?;
        }
        let guard = reports.open().await.map_err(|failure| failure.message)?;
        let log = guard.as_ref().ok_or("a log")?;
        let other_histories =
            compare_checkpoints(&self.shown()?, Some(log.leaves()), &signer().public_key(), &origin());
        let leaves: Vec<Hash> = log.leaves().to_vec();
        let (size, lost) = (log.size(), log.unreadable());
        if !parted {
            if let Some(what) = other_histories.first() {
                return Err(format!("I7: {what}"));
            }
            self.check_proofs(log)?;
            if let Some(gone) = self.acknowledged().iter().find(|leaf| !leaves.contains(leaf)) {
                return Err(format!("I7: {} was acknowledged and is not in the log", hex(gone)));
            }
        }
        drop(guard);
        for (shelf, store) in self.shelves.iter().zip(&stores) {
            let seen = reports.look(store).await.map_err(text)?;
            let told = !seen.corrupt.is_empty();
            let stands = objects(&Direct::to(shelf), &reports.key(), &origin()).await.map_err(text)?;
            let view = View::of_objects(stands, &reports.key(), &origin());
            match view {
                _ if parted => {
                    let fits = view.as_ref().is_ok_and(|view| view.leaves() == leaves);
                    if !fits && !told {
                        return Err(format!("I7: {} shows another history, and nobody is told", shelf.name));
                    }
                }
                // What is whole nowhere is named.
                Err(_) if !lost.is_empty() && told => {}
                Err(error) => return Err(format!("I7: {} alone shows no log: {error}", shelf.name)),
                Ok(view) if view.leaves() != leaves => {
                    return Err(format!("I7: {} alone shows {} entries of {size}", shelf.name, view.leaves().len()));
                }
                Ok(_) if (told && lost.is_empty()) || !seen.missing.is_empty() => {
                    return Err(format!(
                        "I7: {} is whole, and {:?}, {:?} are named",
                        shelf.name, seen.corrupt, seen.missing
                    ));
                }
                Ok(_) => {}
            }
        }
        Ok(size)
    }

    /// Whoever kept any checkpoint can prove that the newest log continues it.
    fn check_proofs(&self, log: &Log) -> Verdict<()> {
        let newest = root_of(log.leaves());
        for (size, root) in self.roots()? {
            let path = log.consistency_proof(size).map_err(|error| format!("I7: {error}"))?;
            if !verify_consistency(size, &root, log.size(), &newest, &path) {
                return Err(format!("I7: {size} entries that were shown are not the beginning of {}", log.size()));
            }
        }
        Ok(())
    }
}

/// Whether one is the beginning of the other.
fn fit(a: &[Hash], b: &[Hash]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

fn hex(hash: &Hash) -> String {
    data_encoding::HEXLOWER.encode(&hash[..8])
}

/// The power goes in the middle of an append: an entry stands there whose checkpoint does not, or half of it. Gives the
/// leaves. A verifier that is behind would have looked at the stores first.
fn cut_off(world: &World, log: &Path, truth: &[Hash], n: u32) -> Option<Vec<Hash>> {
    let mut opened = Log::open(log, origin(), &signer()).ok()?;
    if !opened.leaves().starts_with(truth) || opened.append(&signer(), &report(n).to_bytes()).is_err() {
        return None;
    }
    let (leaves, checkpoint) = (opened.leaves().to_vec(), log.join(format!("checkpoint-{:012}", opened.size())));
    drop(opened);
    let kept = fs::read(&checkpoint).unwrap_or_default();
    let left = world.below(kept.len() as u64) as usize;
    let _ = if world.chance(500) { fs::remove_file(&checkpoint) } else { fs::write(&checkpoint, &kept[..left]) };
    Some(leaves)
}

fn with_a_file(world: &World, log: &Path, hurt: impl FnOnce(&mut Vec<u8>)) -> std::io::Result<()> {
    let mut files = Vec::new();
    for folder in [log.to_owned(), log.join("entries")].into_iter().filter(|folder| folder.is_dir()) {
        for file in fs::read_dir(folder)? {
            files.push(file?.path());
        }
    }
    files.retain(|path| path.is_file());
    files.sort();
    let Some(file) = world.with_rng(|rng| rng.pick(&files).cloned()) else { return Ok(()) };
    let mut bytes = fs::read(&file)?;
    hurt(&mut bytes);
    fs::write(file, bytes)
}

async fn play(practice: &mut Practice) -> Verdict<Told> {
    let mut told = Told::default();
    for round in 0..practice.world.with_rng(|rng| rng.within(4..12)) {
        practice.world.note(format_args!("round {round}"));
        let both = practice.verifiers.len() > 1 && practice.world.strikes(Fault::TwoDaemons, 150);
        let at = practice.world.below(practice.verifiers.len() as u64) as usize;
        let before = practice.before(&practice.verifiers[at]);
        if both {
            let [first, second] = practice.verifiers.as_slice() else { return Err("two verifiers".to_owned()) };
            futures::join!(practice.run(first), practice.run(second));
        } else {
            practice.run(&practice.verifiers[at]).await;
        }
        told.behind += u64::from(before.behind);
        let troubled = before.ailing || practice.faults() > before.faults;
        // Of two that write at once neither sees what the other is about to sign.
        let excused = both || (before.behind && (troubled || before.shown < before.known));
        for at in if both { 0..2 } else { at..at + 1 } {
            match practice.learn(at) {
                Err(_) if excused || told.parted => told.parted = true,
                learned => learned?,
            }
        }
        practice.shelves.iter().for_each(|shelf| {
            shelf.end_day();
            shelf.decay(&practice.world);
        });
        practice.hurt().map_err(text)?;
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    told.reports = practice.calm(told.parted).await?;
    told.trace = practice.world.end().1;
    Ok(told)
}

fn run(seed: u64) -> Verdict<Told> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(text)?.block_on(async { play(&mut Practice::new(seed)?).await })
}

#[test]
fn whatever_goes_wrong_the_log_of_reports_has_one_history() {
    let told: Vec<(u64, Verdict<Told>)> = crate::each(
        match crate::setting("HOLDFAST_SIM_SEED") {
            Some(seed) => seed..seed + 1,
            None => 0..SEEDS,
        },
        run,
    );
    let failures: Vec<String> =
        told.iter().filter_map(|(seed, told)| Some(format!("seed {seed}: {}", told.as_ref().err()?))).collect();
    let sum = |of: fn(&Told) -> u64| told.iter().filter_map(|(_, told)| told.as_ref().ok().map(of)).sum::<u64>();
    let (reports, behind, parted) =
        (sum(|told| told.reports), sum(|told| told.behind), sum(|told| u64::from(told.parted)));
    println!(
        "extra: {SEEDS} logs of {reports} reports, {behind} runs on an old folder, {parted} histories parted where nobody could know"
    );
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n"));
    assert!(behind > SEEDS / 4 && reports > SEEDS * 4, "hardly anything happened to the logs");
    assert!(parted < SEEDS / 5, "too much is excused");
}
