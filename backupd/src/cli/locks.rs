//! `backupd stores --extend-locks`: the locks of every store that locks are moved further away.

use super::render::{self, Usage};
use crate::settings::ServeSettings;
use crate::{secret, stores};
use anyhow::Context;
use backup_engine::{Env, LockOutcome, WriterCredential};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

pub async fn extend(config: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let settings = ServeSettings::load(config.context("--config")?)?;
    let (env, mut locking, mut all_hold) = (Env::real(), 0, true);
    let condemned = condemned(&settings).await;
    for setting in &settings.stores {
        let Some(stores::Locking { store, versions, wish }) = stores::locks(setting)? else { continue };
        locking += 1;
        let done = backup_engine::extend_locks(&env, &store, &*versions, wish, &condemned).await;
        all_hold &= done.holds();
        if json {
            let reason = done.error.as_ref().map(ToString::to_string);
            let line = serde_json::json!({
                "event": "locks-extended", "store": done.store, "versions": done.versions, "extended": done.extended,
                "short": done.short, "short_objects": done.short_objects, "mode_short": done.mode_short,
                "mode_short_objects": done.mode_short_objects, "error": reason,
                "earliest_until_unix_ms": done.earliest_until_unix_ms,
            });
            say!("{line}");
            continue;
        }
        tell_of(&done);
    }
    if locking == 0 {
        return Err(Usage("no store of these settings has `lock_days`: there are no locks to extend".to_owned()).into());
    }
    Ok(if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell_of(done: &LockOutcome) {
    let store = &done.store;
    let until = done.earliest_until_unix_ms.map_or_else(|| "?".to_owned(), render::table_time);
    let which = if done.short == 0 && done.error.is_none() { "all" } else { "the others" };
    say!("{store}: {} versions, {} extended, {which} locked until {until}", done.versions, done.extended);
    if done.short > 0 {
        let names = done.short_objects.join(", ");
        say!("{store}: {} are not locked long enough, the store refused: {names}", done.short);
    }
    if done.mode_short > 0 {
        let names = done.mode_short_objects.join(", ");
        say!(
            "{store}: {} are locked long enough, but in governance instead of compliance: whoever may bypass such a lock can \
             delete them. The store did not raise the mode; its key needs the right to (s3:BypassGovernanceRetention): {names}",
            done.mode_short
        );
    }
    if let Some(reason) = &done.error {
        say!("{store}: {reason}");
    }
}

/// What goes on purpose needs no lock any more. Where that cannot be read, everything is locked further.
async fn condemned(settings: &ServeSettings) -> BTreeSet<String> {
    let read = async {
        let writer = secret::load(settings.writer_credential.as_deref(), "writer")?;
        let writer = WriterCredential::from_bytes(&writer)?;
        anyhow::Ok(backup_engine::condemned_objects(writer.catalog(), &stores::open_all(&settings.stores)?).await?)
    };
    read.await.unwrap_or_else(|error: anyhow::Error| {
        tell!("backupd: what is being deleted is locked further too: {error:#}");
        BTreeSet::new()
    })
}
