//! The service manager: readiness, status, watchdog, credentials, the signals that end a service.

use sd_notify::NotifyState;
use std::future::pending;
use std::io;
use std::path::{Component, Path};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

/// A credential is a key or a password: more than this is a mistake in the unit.
const CREDENTIAL_BYTES_MAX: u64 = 1 << 20;

/// Says that the service now listens: notifies `$NOTIFY_SOCKET` when there is one, and logs the event `ready` unless the
/// program has just logged it with fields of its own.
pub fn ready() {
    if !crate::log::said_ready() {
        ::log::info!("ready");
    }
    notify(&NotifyState::Ready);
}

/// One line that `systemctl status` shows. It must hold nothing from a record.
pub fn status(text: &str) {
    notify(&NotifyState::Status(text));
}

/// Tells `$NOTIFY_SOCKET` that the service is ending in good order.
pub fn stopping() {
    notify(&NotifyState::Stopping);
}

/// Feeds the manager's watchdog from the runtime, at a third of the time that the unit allows; does nothing without one.
///
/// It runs as a task of its own, so a runtime whose workers are all stuck stops feeding it and is restarted. Call it from
/// inside the runtime.
pub fn spawn_watchdog() {
    let Some(allowed) = sd_notify::watchdog_enabled().filter(|allowed| !allowed.is_zero()) else { return };
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(allowed / 3);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            notify(&NotifyState::Watchdog);
        }
    });
}

/// Resolves when the service is asked to end (SIGTERM or SIGINT).
pub async fn shutdown() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        // Without handlers the signals keep their default action, which ends the process just as well.
        return pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Reads the credential `name` that the unit loads (`LoadCredential=name:...`); `None` when the unit loads no such one.
///
/// # Errors
/// A name that is not a plain file name, a file that cannot be read, or one above 1 MiB.
pub fn credential(name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(folder) => credential_in(Path::new(&folder), name),
        None => Ok(None),
    }
}

fn credential_in(folder: &Path, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut parts = Path::new(name).components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a credential's name is a plain file name"));
    }
    let path = folder.join(name);
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(found) if found.len() > CREDENTIAL_BYTES_MAX => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the credential is larger than 1 MiB"))
        }
        Ok(_) => std::fs::read(&path).map(|bytes| Some(Zeroizing::new(bytes))),
    }
}

fn notify(state: &NotifyState<'_>) {
    // The manager may have gone; the service goes on.
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        ::log::debug!(kind:? = error.kind(); "notify.failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_the_named_credential() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("open-key"), b"secret").unwrap();
        assert_eq!(credential_in(folder.path(), "open-key").unwrap().unwrap().as_slice(), b"secret");
        assert!(credential_in(folder.path(), "other").unwrap().is_none());
        for outside in ["../open-key", "/etc/passwd", "", ".", "a/b"] {
            assert!(credential_in(folder.path(), outside).is_err(), "{outside:?}");
        }
    }

    #[test]
    fn refuses_a_credential_that_is_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("image")).unwrap();
        file.set_len(CREDENTIAL_BYTES_MAX + 1).unwrap();
        assert!(credential_in(folder.path(), "image").is_err());
    }
}
