//! One snapshot: room, a consistent point, seal and send, thaw, and what came of it; and bringing stores up to date.

use super::Daemon;
use super::schedule::{CATCH_UP, snapshot_job};
use crate::settings::Source;
use crate::sources::{self, Captured};
use crate::{clock, failure, names};
use agent_api::Pause;
use backup_engine::{ErrorKind, NamedStore, OwnChain, SnapshotOutcome, SnapshotRequest, Stop, StoreCatchUp};
use backupd_api::{Failure, FailureKind, KeptGone, Phase, SnapshotDone, SnapshotState, StoreOutcome};

/// Why there is no snapshot where the source went away before it was read.
const SOURCE_GONE: &str = "the EMR ended, or was started again, before its copy was read: take the snapshot again, or leave it to the \
                           schedule";

impl Daemon {
    /// Takes a snapshot of one source and records how it ended. Waits while something else uses the engine.
    pub async fn take_snapshot(&self, source: &Source, tag: Option<String>) -> Result<SnapshotDone, Failure> {
        // A store that is being filled makes way for the next backup.
        self.catching_up().stop();
        let _engine = self.engine.lock().await;
        let _busy = self.activity.begin("snapshot");
        let started = clock::unix_ms();
        self.view().taking = true;
        let damage = self.read_damage();
        let result = self.snapshot_now(source, tag).await;
        match &result {
            Ok(done) => self.note_sound(done, &damage),
            Err(_) => drop(self.read_damage()),
        }
        self.read_losses();
        self.read_set_back();
        if result.is_err() {
            // It may have begun a chain all the same, and a store may hold its head.
            self.read_chains();
        }
        self.view().taking = false;
        self.remember_waits();
        let ok = result.as_ref().is_ok_and(|done| done.state >= SnapshotState::Durable && !done.partial);
        if let Err(error) = self.jobs().finished(&snapshot_job(&source.name), started, ok) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
        if let Err(error) = self.refresh().await {
            log::warn!(reason:% = error; "stores.not-seen");
        }
        result
    }

    async fn snapshot_now(&self, source: &Source, tag: Option<String>) -> Result<SnapshotDone, Failure> {
        let watch = clock::Stopwatch::start();
        self.check_room()?;
        self.activity.phase(Phase::Quiesce, None);
        let last = self.last_audit(&source.name);
        let mut captured = match sources::capture(source, last.as_ref().map(|last| last.audit.clone())).await {
            Ok(captured) => captured,
            Err(error) => {
                self.note_capture(&source.name, Err(&error));
                return Err(error.failure());
            }
        };
        self.note_capture(&source.name, Ok(captured.damaged));
        // Records that were set back are backed up all the same.
        let lacking = last.filter(|_| captured.follows == Some(false));
        let is_noted = lacking.is_none_or(|last| self.note_records_set_back(&source.name, &last));
        let kept = self.keep_part().map_err(|e| failure::new(FailureKind::Misconfigured, format!("{e:#}")))?;
        let (part, kept_gone) = kept;
        captured.parts.push(part);
        // Records are backed up whatever else is gone; without a file that a recovery needs, as a partial snapshot.
        captured.incomplete = kept_gone.iter().any(|gone| !gone.carried);
        let kept_gone: Vec<KeptGone> = kept_gone.into_iter().collect();
        self.view().kept_gone = kept_gone.clone();
        let (stall, source_damaged) = (captured.write_stall_us, captured.damaged);
        let outcome = self.send(source, &captured, tag.clone()).await;
        self.note_spool_full(outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::NoSpace)).await;
        let audit = captured.audit.take();
        let gone = outcome.is_err() && !captured.is_held();
        captured.thaw().await;
        let outcome = outcome.map_err(|e| match (failure::from_engine(&e), gone) {
            (failure, false) => failure,
            (failure, true) => failure::new(FailureKind::Retry, format!("{SOURCE_GONE} ({})", failure.message)),
        })?;
        if outcome.spooled {
            self.note_spooled(&outcome.id.to_string());
        }
        let chain = OwnChain { incarnation: outcome.incarnation, taken_unix_ms: Some(outcome.taken_unix_ms) };
        self.view().own_chains.insert(source.name.clone(), chain);
        if let Some(audit) = audit.filter(|_| is_noted) {
            self.remember_audit(&source.name, audit, outcome.id);
        }
        let mut done = self.note_outcome(outcome, tag, stall, watch);
        (done.kept_gone, done.source_damaged) = (kept_gone, source_damaged);
        Ok(done)
    }

    /// Backups wait rather than fill the disk that the records may live on.
    fn check_room(&self) -> Result<(), Failure> {
        let full = self.disks_almost_full();
        if full.is_empty() {
            self.view().paused = None;
            return Ok(());
        }
        self.view().paused = Some(Pause::DiskAlmostFull);
        let folders: Vec<String> = full.iter().map(|p| p.display().to_string()).collect();
        Err(failure::new(
            FailureKind::NoSpace,
            format!(
                "backups wait: less than {} bytes are free at {}: free some room, or lower `disk_reserve_bytes`",
                self.settings.disk_reserve_bytes,
                folders.join(", ")
            ),
        ))
    }

    async fn send(
        &self,
        source: &Source,
        captured: &Captured,
        tag: Option<String>,
    ) -> backup_engine::Result<SnapshotOutcome> {
        let request = SnapshotRequest {
            source: source.name.clone(),
            parts: captured.parts.clone(),
            excludes: captured.excludes.clone(),
            tag,
            facts: captured.facts.clone(),
            quorum: self.settings.quorum,
            incomplete: captured.incomplete,
            lease: captured.held(),
            state_dir: Some(self.engine_state()),
            stop: Stop::default(),
        };
        let stores = self.with_spool(self.stores_to_send_to());
        backup_engine::snapshot(&self.env, &self.writer(), &stores, request, &self.activity).await
    }

    /// Takes over what the engine has noted of losses. Only while the engine is held.
    pub(super) fn read_losses(&self) {
        match backup_engine::losses(&self.env, &self.engine_state()) {
            Ok(losses) => {
                let mut view = self.view();
                for (store, loss) in losses {
                    view.stores.entry(store).or_default().lost = Some(loss);
                }
            }
            Err(error) => log::warn!(reason:% = error; "state.not-read"),
        }
    }

    fn note_outcome(
        &self,
        outcome: SnapshotOutcome,
        tag: Option<String>,
        write_stall_us: u64,
        watch: clock::Stopwatch,
    ) -> SnapshotDone {
        let id = outcome.id.to_string();
        {
            let mut view = self.view();
            view.quorum_missed = !outcome.durable;
            view.paused = (!outcome.durable && !outcome.spooled).then_some(Pause::QuorumUnreachable);
            for store in &outcome.stores {
                // Until the next full listing.
                if let Some(bytes) = view.stores.get_mut(&store.store).and_then(|s| s.bytes.as_mut()) {
                    *bytes = bytes.saturating_add(store.bytes_sent);
                }
            }
            if let Some(tag) = tag {
                view.tags.insert(id.clone(), tag);
            }
        }
        let all = outcome.stores.iter().all(|s| s.durable);
        let state = match outcome.durable {
            true if all => SnapshotState::Full,
            true => SnapshotState::Durable,
            false => SnapshotState::Sealed,
        };
        outcome.stores.iter().filter(|s| s.durable).for_each(|store| self.note_behind(&store.store, None));
        for store in outcome.stores.iter().filter(|s| !s.durable) {
            let reason = store.error.as_ref().map_or_else(|| "not durable".to_owned(), ToString::to_string);
            log::warn!(store = store.store.as_str(), reason = reason.as_str(); "snapshot.store-missed");
            self.note_behind(&store.store, Some(reason));
        }
        let done = SnapshotDone {
            counter: outcome.counter,
            state,
            spooled: outcome.spooled,
            partial: outcome.partial,
            unreadable: names::unreadable_counts(&outcome.unreadable),
            kept_gone: Vec::new(),
            source_damaged: false,
            files: outcome.files,
            bytes_source: outcome.bytes_source,
            bytes_added: outcome.bytes_added,
            write_stall_us,
            duration_ms: watch.elapsed_ms(),
            stores: outcome.stores.into_iter().map(store_outcome).collect(),
            id,
        };
        log::info!(
            snapshot = done.id.as_str(), counter = done.counter, state:? = done.state, partial = done.partial, unreadable = outcome.unreadable_files,
            files = done.files, bytes_added = done.bytes_added, duration_ms = done.duration_ms;
            "snapshot.committed"
        );
        done
    }

    /// All but those that are sent to at another time of the day: these catch up then.
    fn stores_to_send_to(&self) -> Vec<NamedStore> {
        let now = clock::unix_ms();
        let open = |name: &str| self.settings.store(name).is_none_or(|s| s.takes_uploads(now, self.settings.zone));
        self.stores.iter().filter(|store| open(&store.name)).cloned().collect()
    }

    /// Brings every reachable store up to what the others hold. Whether anything was tried.
    pub async fn catch_up(&self) -> bool {
        let Ok(_engine) = self.engine.try_lock() else { return false };
        self.bring_up_to_date().await;
        true
    }

    /// The same for whoever holds the engine already. The stores that now hold all that the others hold.
    pub(super) async fn bring_up_to_date(&self) -> Vec<String> {
        let _busy = self.activity.begin(CATCH_UP);
        let state = self.engine_state();
        let stop = Stop::default();
        *self.catching_up() = stop.clone();
        let (writer, stores) = (self.writer(), self.with_spool(self.stores_to_send_to()));
        let caught_up = backup_engine::replicate_until(&self.env, &writer, &stores, Some(&state), &stop).await;
        self.read_losses();
        self.read_damage();
        match caught_up {
            Ok(stores) => {
                self.note_catch_up(&stores);
                stores.iter().filter(|s| s.objects_healed > 0).for_each(|s| self.note_healed(&s.store));
                for store in stores.iter().filter(|s| s.objects_copied > 0) {
                    log::info!(
                        store = store.store.as_str(), objects = store.objects_copied, bytes = store.bytes_copied,
                        healed = store.objects_healed, complete = store.complete; "store.caught-up"
                    );
                }
                let complete: Vec<String> = stores.into_iter().filter(|s| s.complete).map(|s| s.store).collect();
                self.empty_spool(&complete).await;
                complete
            }
            Err(error) => {
                log::warn!(reason:% = error; "store.catch-up-failed");
                Vec::new()
            }
        }
    }

    /// Why a store is not up to date. That this was ended early, because something else waits, is no reason.
    fn note_catch_up(&self, stores: &[StoreCatchUp]) {
        for store in stores {
            let name = store.store.as_str();
            match &store.error {
                Some(error) if error.kind() == ErrorKind::Stopped => {}
                Some(error) => {
                    log::warn!(store = name, reason:% = error; "store.not-caught-up");
                    self.note_behind(name, Some(error.to_string()));
                }
                None => self.note_behind(name, None),
            }
        }
    }

    fn note_behind(&self, store: &str, reason: Option<String>) {
        if let Some(seen) = self.view().stores.get_mut(store) {
            seen.behind_because = reason;
        }
    }
}

fn store_outcome(outcome: backup_engine::StoreOutcome) -> StoreOutcome {
    StoreOutcome {
        store: outcome.store,
        durable: outcome.durable,
        bytes_sent: outcome.bytes_sent,
        duration_ms: outcome.duration_ms,
        error: outcome.error.map(|e| e.to_string()),
    }
}
