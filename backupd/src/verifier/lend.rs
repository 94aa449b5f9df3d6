//! A file of the EMR's records, lent to the EMR: restored apart, sent over the socket, gone.
//!
//! The verifier alone can read a snapshot, and it hands out two kinds of files, to whom its settings name. The EMR keeps what
//! it gets to itself; who may ask it for that, and who did, is its own affair and in its own record.

use super::Verifier;
use crate::offload::offload;
use crate::{clock, failure, progress};
use backupd_api::{Connection, Event, Failure, FailureKind, Lent, WireError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// In the state folder, which no other program sees.
const LENT_DIR: &str = "lent";
/// Bytes of a piece: with its frame it stays far below the longest line.
const PIECE_BYTES: u64 = 3 << 20;

/// Removes what a killed daemon left.
pub fn remove_leftovers(state_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(state_dir.join(LENT_DIR)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A restored file; gone when dropped.
struct Copy {
    folder: PathBuf,
    file: PathBuf,
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            log::error!(reason:% = error.kind(); "lent.not-removed");
        }
    }
}

/// Answers a request to lend a file.
pub async fn answer(
    verifier: &Arc<Verifier>,
    connection: &mut Connection,
    snapshot: String,
    file: Lent,
) -> Result<(), WireError> {
    let (worker, stop) = (verifier.clone(), verifier.stop.child_token());
    let _end = stop.clone().drop_guard();
    let work = offload(move || async move {
        tokio::select! {
            () = stop.cancelled() => Err(failure::new(FailureKind::Retry, "the daemon is stopping")),
            copy = worker.restore_apart(&snapshot, &file) => copy,
        }
    });
    let copy = match progress::follow(connection, &verifier.activity, work).await? {
        Some(Ok(copy)) => copy,
        Some(Err(failed)) => return connection.send(&Event::Failed(failed)).await,
        None => return connection.refuse(FailureKind::Retry, "it ended early: look at the daemon's log").await,
    };
    match std::fs::File::open(&copy.file) {
        Ok(file) => send(connection, file).await,
        Err(_) => connection.refuse(FailureKind::NotFound, "the snapshot does not hold this file").await,
    }
}

async fn send(connection: &mut Connection, mut file: std::fs::File) -> Result<(), WireError> {
    let mut left = file.metadata()?.len();
    loop {
        let mut piece = Vec::new();
        left -= (&mut file).take(PIECE_BYTES.min(left)).read_to_end(&mut piece)? as u64;
        // A file that is shorter than it was when it was opened is over as well.
        let last = left == 0 || piece.is_empty();
        connection.send(&Event::Lent { base64: STANDARD.encode(&piece), last }).await?;
        if last {
            return Ok(());
        }
    }
}

impl Verifier {
    async fn restore_apart(&self, snapshot: &str, file: &Lent) -> Result<Copy, Failure> {
        let path = place(file)?;
        let all = self.settings.state_dir.join(LENT_DIR);
        let name = clock::random::<16>().map_err(|e| failure::new(FailureKind::Retry, e.to_string()))?;
        let folder = all.join(hex::encode(name));
        for dir in [&all, &folder] {
            let made = crate::secret::make_private_dir(dir);
            made.map_err(|e| failure::new(FailureKind::Retry, format!("the state folder: {e:#}")))?;
        }
        let copy = Copy { file: folder.join(&path), folder: folder.clone() };
        self.restore(snapshot, (None, None), folder, (vec![path], false)).await?;
        log::info!(snapshot = snapshot; "lent");
        Ok(copy)
    }
}

/// Where the file stands in a snapshot.
fn place(file: &Lent) -> Result<String, Failure> {
    match file {
        Lent::Records => Ok("records.sqlite".to_owned()),
        Lent::Attachment { name } => {
            let is_name = name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            let refused = || failure::new(FailureKind::Misconfigured, "an attachment is named by 64 digits of hex");
            let (folder, rest) = name.split_at_checked(2).filter(|_| is_name).ok_or_else(refused)?;
            Ok(format!("attachments/{folder}/{rest}"))
        }
    }
}
