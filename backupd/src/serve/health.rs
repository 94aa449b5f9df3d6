//! The health socket: one closed message for each connection, read-only, nothing about a patient in it.

use super::Daemon;
use crate::clock;
use crate::listen::{SOCKET_LOOK_EVERY, make_run_dir};
use agent_api::{Activity, BackupHealth, Doubt, DrillResult, StoreHealth, StoreState};
use anyhow::Context;
use backupd_api::{Alert, AlertKind, DrillVerdict, StoreCondition, StoreProtection};
use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

/// Version of the message.
const SCHEMA: u32 = 1;
/// A reader that takes longer is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

pub fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    make_run_dir(path)?;
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)
        .with_context(|| format!("`health_socket` {} cannot be listened on", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

pub async fn serve(daemon: Arc<Daemon>, mut listener: UnixListener) {
    let mut lost = false;
    loop {
        let Ok(accepted) = tokio::time::timeout(SOCKET_LOOK_EVERY, listener.accept()).await else {
            match daemon.settings.health_socket.as_deref().filter(|path| !path.exists()).map(bind) {
                Some(Ok(renewed)) => {
                    log::warn!("socket.renewed");
                    listener = renewed;
                    lost = false;
                }
                Some(Err(error)) if !lost => {
                    log::error!(reason:% = format!("{error:#}"); "socket.lost");
                    lost = true;
                }
                _ => {}
            }
            continue;
        };
        let Ok((mut stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let bytes = serde_json::to_vec(&daemon.health()).unwrap_or_default();
        tokio::spawn(async move {
            let write = async {
                stream.write_all(&bytes).await?;
                stream.shutdown().await
            };
            let _ = tokio::time::timeout(WRITE_TIMEOUT, write).await;
        });
    }
}

impl Daemon {
    pub fn health(&self) -> BackupHealth {
        let now = clock::unix_ms();
        let age_s = |ms: i64| clock::age_ms(ms, now).map(|age| age / 1000);
        let activity = match self.activity.now().map(|r| r.what) {
            None => Activity::Idle,
            Some(what) if what == super::schedule::CATCH_UP => Activity::Replicate,
            Some(_) => Activity::Snapshot,
        };
        let (statuses, alerts) = (self.store_statuses(), self.alerts());
        let view = self.view();
        let store = |status: backupd_api::StoreStatus| {
            let proof = view.stores.get(&status.name).and_then(|s| s.proof.clone());
            Some(StoreHealth {
                store: status.name.parse().ok()?,
                state: state(status.condition)?,
                lag_snapshots: status.lag_snapshots,
                lag_bytes: status.lag_bytes,
                lag_s: status.lag_ms / 1000,
                protected: match status.protection {
                    StoreProtection::Unknown => None,
                    StoreProtection::Locked | StoreProtection::Refused => Some(true),
                    StoreProtection::Unprotected => Some(false),
                },
                complete_age_s: status.complete_unix_ms.and_then(age_s),
                proved_age_s: proof.as_ref().and_then(|p| p.passed_unix_ms).and_then(age_s),
                last_drill: proof.map(|p| match p.verdict {
                    DrillVerdict::Pass => DrillResult::Pass,
                    DrillVerdict::Fail => DrillResult::Fail,
                    DrillVerdict::Inconclusive => DrillResult::Inconclusive,
                }),
            })
        };
        // Without a verifier's key nobody drills.
        let drilled = self.report_key.is_some();
        BackupHealth {
            schema: SCHEMA,
            at_unix_s: now / 1000,
            activity,
            durable_age_s: view.newest_durable(self).and_then(|s| age_s(s.taken_unix_ms)),
            durable_age_s_max: u64::try_from(self.settings.late_after_ms / 1000).unwrap_or(0),
            drill_age_s_max: drilled.then(|| u64::try_from(self.settings.drill_late_after_ms / 1000).unwrap_or(0)),
            stores: statuses.into_iter().filter_map(store).collect(),
            newest_state: view.newest_state(self),
            spool_bytes: view.spool.holds.bytes,
            spool_age_s: view.spool.since_unix_ms.and_then(age_s),
            paused: view.paused,
            doubts: doubts(&alerts),
        }
    }
}

/// Open alerts that make the newest snapshot no safe copy of what is here.
fn doubts(alerts: &[Alert]) -> Vec<Doubt> {
    let doubt = |alert: &Alert| match alert.kind {
        AlertKind::SourceDamaged => Some(Doubt::SourceDamaged),
        AlertKind::SourceShrunk => Some(Doubt::SourceShrunk),
        AlertKind::SnapshotPartial => Some(Doubt::SnapshotPartial),
        AlertKind::KeptMissing => Some(Doubt::KeptMissing),
        AlertKind::SecondWriter => Some(Doubt::SecondWriter),
        AlertKind::SourceSetBack => Some(Doubt::SourceSetBack),
        AlertKind::HeadGap | AlertKind::HeadFork => Some(Doubt::HistoryBroken),
        _ => None,
    };
    let found: BTreeSet<Doubt> = alerts.iter().filter_map(doubt).collect();
    found.into_iter().collect()
}

/// `None`: nobody has asked the store yet, and nothing is said of it.
fn state(condition: StoreCondition) -> Option<StoreState> {
    Some(match condition {
        StoreCondition::Ok => StoreState::Ok,
        StoreCondition::Unreachable => StoreState::Unreachable,
        StoreCondition::Late => StoreState::Late,
        StoreCondition::Missing => StoreState::Missing,
        StoreCondition::Corrupt => StoreState::Corrupt,
        StoreCondition::Unknown => return None,
    })
}
