//! What the daemon last saw of its stores and snapshots, and the answers made from it.

use super::{Daemon, duties, spool};
use crate::clock;
use crate::recover::Fit;
use crate::settings::domains;
use crate::stores::StoreView;
use agent_api::Pause;
use backup_engine::{ErrorKind, HeadName, Heads, OwnChain, Rejected, SPOOL, SetBack, SnapshotInfo};
use backupd_api::{
    AlertKind, Baa, KeptGone, ScheduledJob, SnapshotRow, SnapshotState, SpoolStatus, Status, StoreStatus,
};
use std::collections::{BTreeMap, BTreeSet};

/// Everything in here can be seen again by looking at the stores.
#[derive(Default)]
pub struct View {
    /// The union over the stores, newest first.
    pub snapshots: Vec<SnapshotInfo>,
    pub stores: BTreeMap<String, StoreView>,
    pub paused: Option<Pause>,
    /// Sources whose last capture failed.
    pub sources_unreachable: BTreeSet<String>,
    /// Sources that said so of their original at the last capture.
    pub sources_damaged: BTreeSet<String>,
    /// Sources whose last capture is known.
    pub sources_seen: BTreeSet<String>,
    /// What no store has any more: it is told as that, and not as missing at each store anew.
    pub gone: BTreeSet<String>,
    /// Files that every snapshot has to carry and that are gone from their places.
    pub kept_gone: Vec<KeptGone>,
    /// How far the recovery kit fits; `None` where no kit was noted here.
    pub kit: Option<Fit>,
    /// Names of keyrings that stood in the stores' listings when it was last looked which is in force.
    pub keyrings: BTreeSet<String>,
    /// The number of the one in force.
    pub keyring: Option<u64>,
    /// This machine's chain of each source, as far as it is known.
    pub own_chains: BTreeMap<String, OwnChain>,
    /// When this machine was found set back, as far as nobody has looked into it.
    pub set_back: Vec<SetBack>,
    /// A snapshot is under way.
    pub taking: bool,
    /// Heads that another machine wrote beside these.
    pub foreign: BTreeSet<HeadName>,
    /// Links that a chain of heads misses without a signed deletion, as far as nobody has looked into it; judged when every
    /// store answers.
    pub gaps: Vec<String>,
    pub spool: spool::SpoolView,
    /// The last snapshot that was tried did not reach the quorum.
    pub quorum_missed: bool,
    /// Since when each alert is open.
    pub alerts_since: BTreeMap<(AlertKind, Option<String>), i64>,
    /// The stores were looked at since the start.
    pub looked: bool,
    /// What was last kept of the stores, as it is written.
    pub remembered: String,
    /// What was last kept of why backups wait.
    pub remembered_waits: String,
    /// Tags are sealed; those of this process's own snapshots are known.
    pub tags: BTreeMap<String, String>,
}

/// Looks at the stores overlap, and one takes as long as the slowest store: what a look saw counts unless one that began after it has
/// ended, or something was done since that it cannot have seen.
#[derive(Default)]
pub struct Looks {
    begun: u64,
    /// The newest that counts.
    ended: u64,
}

impl Looks {
    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    fn ends(&mut self, look: u64) -> bool {
        let counts = look > self.ended;
        self.ended = self.ended.max(look);
        counts
    }

    /// Whatever look is under way does not count.
    pub fn outdate(&mut self) {
        self.ended = self.begun;
    }
}

impl View {
    /// Which snapshots a damaged object belongs to only a holder of the open key can tell, so a store with damage counts
    /// for none until it is healed, but for those that were taken with the damage known.
    fn counts_at(&self, info: &SnapshotInfo, daemon: &Daemon) -> usize {
        let whole = info.stores.iter().filter(|name| !self.is_in_doubt(info, name));
        domains(whole.filter_map(|name| daemon.settings.store(name)))
    }

    /// What is known to be missing or corrupt at a store makes it no protection, whatever heads it holds.
    fn is_in_doubt(&self, info: &SnapshotInfo, store: &str) -> bool {
        self.stores.get(store).is_some_and(|seen| seen.is_in_doubt(info))
    }

    /// Until it is captured the first time, a source is as the newest drills found it.
    pub fn is_source_damaged(&self, source: &str) -> bool {
        let found_by_drill = || {
            let mut proofs = self.stores.values().filter_map(|store| store.proof.as_ref());
            proofs.any(|proof| proof.source_damaged.as_deref() == Some(source))
        };
        self.sources_damaged.contains(source) || (!self.sources_seen.contains(source) && found_by_drill())
    }

    pub fn is_durable(&self, info: &SnapshotInfo, daemon: &Daemon) -> bool {
        self.counts_at(info, daemon) >= daemon.settings.quorum as usize
    }

    fn state(&self, info: &SnapshotInfo, daemon: &Daemon) -> SnapshotState {
        let id = info.id.to_string();
        let proved = self.stores.values().any(|s| s.proof.as_ref().is_some_and(|p| p.proved.contains(&id)));
        if proved {
            SnapshotState::Proved
        } else if info.stores.iter().filter(|name| !self.is_in_doubt(info, name)).count()
            >= daemon.settings.stores.len()
        {
            SnapshotState::Full
        } else if self.is_durable(info, daemon) {
            SnapshotState::Durable
        } else {
            SnapshotState::Sealed
        }
    }

    /// How far the newest snapshot has come.
    pub fn newest_state(&self, daemon: &Daemon) -> Option<agent_api::SnapshotState> {
        use agent_api::SnapshotState as Word;
        Some(match self.state(self.own().next()?, daemon) {
            SnapshotState::Captured => Word::Captured,
            SnapshotState::Sealed => Word::Sealed,
            SnapshotState::Durable => Word::Durable,
            SnapshotState::Full => Word::Full,
            SnapshotState::Proved => Word::Proved,
        })
    }

    pub fn row(&self, info: &SnapshotInfo, daemon: &Daemon) -> SnapshotRow {
        let id = info.id.to_string();
        SnapshotRow {
            source: info.source.clone(),
            incarnation: info.incarnation.to_string(),
            other_machine: self.is_foreign(info),
            counter: info.counter,
            taken_unix_ms: info.taken_unix_ms,
            tag: self.tags.get(&id).cloned(),
            partial: info.partial,
            state: self.state(info, daemon),
            files: info.files,
            bytes_source: info.bytes_source,
            bytes_added: info.bytes_added,
            stores: info.stores.clone(),
            id,
        }
    }

    /// How far back the backup reaches: of each source the newest snapshot that is whole and durable at the quorum, and of
    /// these the oldest. A source that was never backed up has none, whatever the others have. What another machine wrote holds
    /// nothing of what is entered here.
    pub fn newest_durable(&self, daemon: &Daemon) -> Option<&SnapshotInfo> {
        let sources = daemon.settings.sources.iter();
        let newest = sources.map(|source| self.own_of(&source.name).find(|s| !s.partial && self.is_durable(s, daemon)));
        newest.collect::<Option<Vec<_>>>()?.into_iter().min_by_key(|s| s.taken_unix_ms)
    }
}

impl Daemon {
    /// Looks at every store's heads; nothing that can be damaged by a crash.
    pub async fn refresh(&self) -> backup_engine::Result<()> {
        let begun = self.looks().begin();
        let stores = self.with_spool(self.stores.clone());
        let seen = backup_engine::heads_since(&self.env, self.writer().catalog(), &stores, &self.known).await;
        let mut heads = match seen {
            Ok(heads) => heads,
            // None answered.
            Err(error) if error.kind() != ErrorKind::Misconfigured => {
                let mut view = self.view();
                for store in &self.stores {
                    let entry = view.stores.entry(store.name.clone()).or_default();
                    (entry.reachable, entry.asked) = (Some(false), true);
                }
                view.looked = true;
                drop(view);
                self.remember_stores();
                self.remember_waits();
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        for (store, error) in &heads.unreachable {
            log::warn!(store = store.as_str(), reason:% = error; "store.unreachable");
        }
        let alone = spool::set_apart(&mut heads.snapshots);
        for gap in &heads.gaps {
            log::error!(heads:% = gap; "history.gap");
        }
        if !self.take_over(heads, alone, begun) {
            return Ok(());
        }
        self.weigh_spool().await;
        self.remember_waits();
        Ok(())
    }

    /// `false`: something later is known already, by which what this look saw is out of date.
    fn take_over(&self, heads: Heads, alone: spool::Alone, begun: u64) -> bool {
        let mut looks = self.looks();
        if !looks.ends(begun) {
            return false;
        }
        if heads.unreachable.is_empty() {
            self.view().gaps = self.open_gaps(&heads.gaps);
        }
        let spool_answers = !is_silent(&heads, SPOOL);
        let known = self.take_in(heads);
        self.remember_stores();
        self.note_spool(alone, spool_answers, &known);
        true
    }

    /// Takes in what the stores said; gives the snapshots that are known now.
    fn take_in(&self, heads: Heads) -> Vec<SnapshotInfo> {
        let mut view = self.view();
        let gone = view.gone.clone();
        for store in &self.stores {
            // Snapshots stand newest first by their links: a clock that was ahead for a day decides nothing here.
            let last_held = view.snapshots.iter().find(|s| s.stores.contains(&store.name)).map(|s| s.id);
            let mut held = heads.snapshots.iter().filter(|s| s.stores.contains(&store.name));
            let entry = view.stores.entry(store.name.clone()).or_default();
            let silent = heads.unreachable.iter().find(|(name, _)| name == &store.name).map(|(_, error)| error);
            let reachable = silent.is_none();
            entry.silent_because = silent.map(ToString::to_string);
            (entry.reachable, entry.asked) = (Some(reachable), true);
            if !reachable {
                // What an unreachable store holds stays as it was last seen, but it misses what came since.
                if entry.known {
                    entry.silent_behind(heads.snapshots.iter().take_while(|s| Some(s.id) != last_held));
                }
                continue;
            }
            entry.known = true;
            entry.complete_unix_ms = held.next().map(|s| s.taken_unix_ms);
            entry.behind(heads.snapshots.iter().filter(|s| !s.stores.contains(&store.name)));
            let is_new = |rejected: &&Rejected| !(rejected.missing && gone.contains(&rejected.object));
            for rejected in heads.rejected.iter().filter(|rejected| rejected.store == store.name).filter(is_new) {
                let (store, object) = (store.name.as_str(), rejected.object.as_str());
                let known = match rejected.missing {
                    true => {
                        log::error!(store, object; "store.object-missing");
                        &mut entry.missing
                    }
                    false => {
                        log::error!(store, object; "store.object-damaged");
                        &mut entry.corrupt
                    }
                };
                *known = Some(rejected.object.clone());
            }
        }
        let all_silent = self.stores.iter().all(|store| is_silent(&heads, &store.name));
        let mut snapshots = heads.snapshots;
        // A store that does not answer has not lost what it was seen to hold: the age of the newest durable snapshot
        // goes on from there instead of starting at "never".
        let seen: BTreeMap<_, _> = view.snapshots.iter().map(|s| (s.id, &s.stores)).collect();
        for snapshot in &mut snapshots {
            let Some(stores) = seen.get(&snapshot.id) else { continue };
            let silent = heads.unreachable.iter().map(|(name, _)| name);
            let kept: Vec<String> =
                silent.filter(|n| stores.contains(n) && !snapshot.stores.contains(n)).cloned().collect();
            snapshot.stores.extend(kept);
        }
        if all_silent {
            // The spool alone answers: what stores were seen to hold is where it was. What no store held lay in the spool,
            // and is nowhere if the spool does not show it.
            let there: BTreeSet<_> = snapshots.iter().map(|s| s.id).collect();
            let in_stores = view.snapshots.iter().filter(|s| !s.stores.is_empty() && !there.contains(&s.id));
            snapshots.extend(in_stores.cloned());
        }
        view.snapshots = snapshots;
        view.looked = true;
        self.tell_apart(&mut view);
        // The snapshot that missed its quorum has been caught up since: nothing is waited for any more.
        let made_up = view.own().next().is_some_and(|newest| view.is_durable(newest, self));
        if view.quorum_missed && made_up {
            view.quorum_missed = false;
            if view.paused == Some(Pause::QuorumUnreachable) {
                view.paused = None;
            }
        }
        view.snapshots.clone()
    }

    /// Adds up what each store holds.
    pub async fn weigh_stores(&self) {
        let mut keyrings = BTreeSet::new();
        for store in &self.stores {
            if let Ok(objects) = store.store.list("").await {
                let bytes = objects.iter().map(|o| o.size).sum();
                self.view().stores.entry(store.name.clone()).or_default().bytes = Some(bytes);
                let names = objects.into_iter().map(|object| object.name);
                keyrings.extend(names.filter(|name| backup_engine::is_keyring(name)));
            }
        }
        self.remember_stores();
        self.note_keyring(keyrings).await;
    }

    /// Looks which keyring is in force where a listing names one that was not there before. What somebody else put there is read
    /// once, and hides no later one.
    async fn note_keyring(&self, listed: BTreeSet<String>) {
        if listed.is_subset(&self.view().keyrings) {
            return;
        }
        let writer = self.writer();
        let found = backup_engine::signed_keyring(writer.catalog(), &self.stores).await;
        match found.and_then(|keyring| backup_engine::describe_keyring(&keyring)) {
            Ok((header, _)) => {
                let mut view = self.view();
                view.keyrings.extend(listed);
                view.keyring = view.keyring.max(Some(header.number));
            }
            Err(error) => log::warn!(reason:% = error; "keyring.not-seen"),
        }
    }

    pub fn store_statuses(&self) -> Vec<StoreStatus> {
        let now = clock::unix_ms();
        let today = duties::today(&self.settings, now);
        let view = self.view();
        let status = |setting: &crate::settings::StoreSetting| {
            let seen = view.stores.get(&setting.name).cloned().unwrap_or_default();
            StoreStatus {
                name: setting.name.clone(),
                kind: setting.kind.word().to_owned(),
                site: setting.site.clone(),
                provider: setting.provider.clone(),
                region: setting.region.clone(),
                account: setting.account.clone(),
                baa: setting.baa.as_ref().map(|baa| Baa {
                    reference: baa.reference.clone(),
                    until: baa.until.to_string(),
                    expired: baa.until < today,
                }),
                protection: super::protect::word(seen.protection.map(|(found, _)| found)),
                upload_window: setting.upload_window.map(|window| window.to_string()),
                apart: setting.site != self.settings.site,
                role: setting.role,
                condition: seen.condition(),
                known: seen.known,
                lag_snapshots: seen.lag_snapshots,
                lag_bytes: seen.lag_bytes,
                lag_ms: seen.lag_ms,
                bytes: seen.bytes,
                complete_unix_ms: seen.complete_unix_ms,
                proved_unix_ms: seen.proof.as_ref().and_then(|p| p.passed_unix_ms),
                object: seen.damaged_object().cloned(),
                reason: seen.reason().cloned(),
                lost_unix_ms: seen.open_loss(now).map(|loss| loss.at_unix_ms),
            }
        };
        self.settings.stores.iter().map(status).collect()
    }

    pub fn status(&self) -> Status {
        let stores = self.store_statuses();
        let alerts = self.alerts();
        let next = self.schedule().into_iter().filter(|j| j.name.starts_with("snapshot:"));
        let next_snapshot_unix_ms = next.filter_map(|j| j.next_unix_ms).min();
        let view = self.view();
        let newest = view.newest_durable(self);
        let sites: BTreeSet<&str> = newest
            .map(|s| {
                s.stores.iter().filter(|name| !view.is_in_doubt(s, name)).filter_map(|name| self.settings.store(name))
            })
            .into_iter()
            .flatten()
            .map(|s| s.site.as_str())
            .filter(|site| *site != self.settings.site)
            .collect();
        Status {
            practice: self.settings.practice.clone(),
            repository: self.writer().repository().to_string(),
            now_unix_ms: clock::unix_ms(),
            started_unix_ms: self.started_unix_ms,
            last_snapshot: view.own().next().map(|s| view.row(s, self)),
            last_durable: newest.map(|s| s.id.to_string()),
            last_durable_unix_ms: newest.map(|s| s.taken_unix_ms),
            stores,
            sites_apart: u32::try_from(sites.len()).unwrap_or(u32::MAX),
            quorum_needed: self.settings.quorum,
            spool: self.spool_status(&view),
            running: self.activity.now(),
            next_snapshot_unix_ms,
            paused: view.paused.map(|p| pause_words(p).to_owned()),
            alerts,
        }
    }

    fn spool_status(&self, view: &View) -> Option<SpoolStatus> {
        let setting = self.settings.spool.as_ref()?;
        let (holds, since_unix_ms) = (view.spool.holds, view.spool.since_unix_ms);
        let (snapshots, bytes) = (holds.snapshots, holds.bytes);
        Some(SpoolStatus { snapshots, bytes, bytes_max: setting.bytes_max, since_unix_ms })
    }

    pub fn snapshot_rows(&self) -> Vec<SnapshotRow> {
        let view = self.view();
        view.snapshots.iter().map(|s| view.row(s, self)).collect()
    }

    pub fn schedule(&self) -> Vec<ScheduledJob> {
        let now = clock::unix_ms();
        let jobs = self.jobs();
        let row = |name: String, schedule: &crate::schedule::Schedule| {
            let last = jobs.last(&name).ok().flatten();
            ScheduledJob {
                cron: schedule.text().to_owned(),
                zone: schedule.zone().to_string(),
                last_unix_ms: last.map(|l| l.at_ms),
                last_ok: last.map(|l| l.ok),
                next_unix_ms: jobs.due_ms(&name, schedule, now).ok().flatten(),
                name,
            }
        };
        let snapshots = self.settings.sources.iter().map(|s| row(super::schedule::snapshot_job(&s.name), &s.schedule));
        snapshots.chain([row(super::schedule::SCRUB_JOB.to_owned(), &self.settings.scrub)]).collect()
    }

    pub fn duties(&self) -> Vec<backupd_api::Duty> {
        duties::all(&self.settings, clock::unix_ms())
    }
}

fn is_silent(heads: &Heads, store: &str) -> bool {
    heads.unreachable.iter().any(|(name, _)| name == store)
}

fn pause_words(pause: Pause) -> &'static str {
    match pause {
        Pause::DiskAlmostFull => "the disk is almost full: free some room, backups go on by themselves",
        Pause::SourceUnreachable => "the EMR gives no copy: check that it runs, and read its journal",
        Pause::QuorumUnreachable => "too few stores answer: look at the stores",
    }
}
