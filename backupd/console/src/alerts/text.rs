//! What an alert says. Everything is chosen from closed fields: kind, the id of a store, host or daemon, and times.

use crate::alerts::state::{AlertRow, What};
use crate::words::moment;
use backupd_api::{AlertKind, Severity};
use chrono_tz::Tz;

/// Width of a mail's text.
const LINE_CHARS_MAX: usize = 72;

/// What happened, in one line.
pub fn title(kind: AlertKind) -> &'static str {
    use AlertKind::*;
    match kind {
        BackupLate => "The newest safe backup is too old",
        QuorumUnreachable => "Too few stores can be reached: new backups are not safe off-site",
        StoreUnreachable => "A store does not answer",
        StoreLate => "A store has not yet received the newest backups",
        StoreMissing => "A store has lost an object that it should hold",
        StoreCorrupt => "A store returned an object with changed bytes",
        DrillFailed => "A restore drill failed",
        DrillLate => "A restore drill is overdue",
        DiskAlmostFull => "The server's disk is almost full: backups wait",
        SpoolFull => "Too few stores answer and the server's spool is full: no new backup can be taken",
        SpoolLost => "Backups that waited on the server's own disk for a store are gone",
        SourceUnreachable => "The EMR gives no copy to the backup: no new backup can be taken",
        SourceShrunk => "The newest backup is much smaller than those before it",
        SourceDamaged => "The EMR's own records are damaged: the newest backup holds what is left",
        SnapshotPartial => "The newest backup is incomplete: some files could not be read",
        KeptMissing => "A file that the backup has to carry for a recovery is gone from the server",
        SecondWriter => "Another machine writes backups as this practice",
        SourceSetBack => "The server or its EMR was set back: the stores hold newer records",
        KitStale => "The recovery kit is out of date",
        DutyUnassigned => "Nobody is named for a duty",
        DutyOverdue => "A duty's review date has passed",
        StoreUnprotected => "A store does not keep backups from whoever gets the server's credentials",
        LocksShort => "A store keeps something for a shorter time than it should",
        StoreHealed => "A store had lost or damaged objects, which were put back",
        LockModeShort => "A store still holds objects whose locks somebody can lift",
        PruneStopped => "Nothing is deleted: new backups look like an attack",
        PruneFailed => "Nothing is deleted: the history of backups could not be pruned",
        BaaExpired => "The agreement with a store's provider has run out",
        HeadFork => "Two different histories of the backup exist",
        HeadGap => "A backup is missing from the history, and nobody signed for it",
        DaemonUnreachable => "A program of the backup system does not answer",
        ConsoleUnwritable => "The console cannot write to its disk: it records and sends no other alerts",
        HostCritical => "A server reports a critical state",
        Test => "Test of the alert channels",
    }
}

/// What a person should do now.
pub fn remedy(kind: AlertKind) -> &'static str {
    use AlertKind::*;
    match kind {
        BackupLate => {
            "Open the posture page: if a backup is running, wait for it. If not, start one. If it fails, its message \
             says why."
        }
        QuorumUnreachable => {
            "Check the server's internet connection first, then the providers' status pages. Until enough of them \
             answer, what was entered since the newest durable backup exists only on this server (and in the stores that do \
             answer). When they return, the next backup brings them up to date."
        }
        StoreUnreachable => {
            "Check the provider's status page, the network, and whether the store's access key was changed or has \
             expired. The other stores go on; this one catches up by itself."
        }
        StoreLate => {
            "Nothing, if the store has just come back: it catches up by itself. If it stays late, check its speed."
        }
        StoreMissing => {
            "Treat it as possible tampering or loss at the provider: call the contract's responsible party. Restores \
             still work from the other stores; heal this store before you rely on it. The alert closes when a drill from it, or \
             a look through all of it (`backupd looked-into` with its name), finds everything. What no store has any more is told until \
             somebody says `backupd looked-into`: `backupd verify` names the snapshots that need it."
        }
        StoreCorrupt => {
            "Do not delete anything. Restores refuse the damaged object and use another store. Call the contract's \
             responsible party, then heal this store from a healthy one."
        }
        DrillFailed => {
            "Open the report: it says which fact or answer differed or which target was missed. Run a drill from \
             another store now, so that you know that one good copy exists."
        }
        DrillLate => "Start a drill from the posture page. Check that the verifier is running.",
        DiskAlmostFull => "Free or add space on the server's disk. The EMR goes on; backups resume by themselves.",
        SpoolFull => {
            "Bring the stores back: check the server's internet connection, then the providers' status pages. Or give the \
             spool more room in the settings of backupd serve."
        }
        SpoolLost => {
            "Start a backup now and see that it becomes durable. What the lost ones held and no later one holds is gone; \
             everything that was ever shown as durable is still in the stores. Find out what happened to the spool's folder."
        }
        SourceUnreachable => "Check that the EMR is running and that clinicians can work; then start a backup by hand.",
        SourceShrunk => {
            "Less than half of the records that an earlier backup held were there at the newest one: the EMR may have begun \
             anew, a disk may not be mounted, or somebody deleted a great deal. Look at the EMR now; the earlier backups are \
             kept. `backupd diff` shows what is gone."
        }
        SourceDamaged => {
            "No store is to blame: it was damaged on the server before the backup read it. A practice administrator sees in the EMR, on \
             the page Access record, which files it is about; the journal of appliance says what else is broken. Keep every older \
             snapshot, find the newest whose drill passed, and call your EMR engineer before anything is restored over the records."
        }
        SnapshotPartial => {
            "Look at the journal of backupd serve for the reason of the unread files, then take a new backup."
        }
        KeptMissing => {
            "Settings, keys or certificates named under `keep` in serve.toml are gone. The records are backed up all the same, with \
             the last known copy of the file where there is one. Put the file back from a snapshot (`backupd restore --into DIR \
             practice` on the verifier's machine), or take it out of `keep` if it is no longer used. Of a folder: the log of \
             `backupd serve` names the file (keep.file-gone); one that is rightly gone ends with its copy below `kept` in the state folder."
        }
        SecondWriter => {
            "A copy of this server, or the old one switched on again after a recovery, sends its own backups into the same \
             stores. Find it, stop its EMR and backupd, and compare what was entered there before anything is thrown away: its \
             snapshots stay (`backupd snapshots`). They do not count as this server's. The alert ends a week after the last one."
        }
        SourceSetBack => {
            "This server, or the EMR's data folder alone, runs on an earlier state (an image, a copy or an old disk), and what was \
             entered after it is missing here. Do not go on entering. Bring the named snapshot back into another folder (`backupd recover \
             --snapshot ID`), compare it with the running EMR and decide which of the two goes on. Then close the alert with `backupd \
             looked-into ID` on the server: acknowledging it here does not. If no snapshot is named, `backupd snapshots` shows the newest."
        }
        KitStale => {
            "The kit in the safe could not open the store that is named: its key or address was changed, or the store is new. Where \
             none is named, the backup's own keys were changed and the kit holds those before. Make the kit \
             current with `backupd keys kit --config serve.toml --kit PATH`, and put the new copy in the place of every old one."
        }
        DutyUnassigned => "Name a party, a deputy, a phone number and a review date in the settings of backupd serve.",
        DutyOverdue => "Confirm with the named party that the duty is still theirs, and set the next review date.",
        StoreUnprotected => {
            "Deleting or overwriting a trial object with the server's own credentials worked. Give the server a key that \
             cannot overwrite and delete, or use a bucket with object lock and set `lock_days` for this store; the key must then \
             be allowed to list and read versions, and not to bypass locks."
        }
        LocksShort => {
            "The journal of backupd maintain names the objects. Check that its key may extend locks (PutObjectRetention) and \
             that the bucket was made with object lock."
        }
        StoreHealed => {
            "Nothing is lost: what was missing or damaged there came back from another store. Find out why: `backupd status` on the \
             server and the journal of backupd maintain (store.object-healed) name the objects. Damage is for the provider to explain; \
             objects that had gone were deleted by somebody who can: look through the provider's access log, and change the keys. \
             When it was looked into, `backupd looked-into NAME` on the server closes it (NAME as this alert shows it): acknowledging \
             it here does not."
        }
        LockModeShort => {
            "The settings ask for the lock mode compliance, and older objects are still in governance: they are locked long enough, \
             but whoever may bypass such a lock can delete them. The journal of backupd maintain names them (locks.mode-short). Give \
             the key of backupd maintain the right to raise the mode (s3:BypassGovernanceRetention, besides PutObjectRetention), run \
             `backupd stores --extend-locks` with its settings, and take the right away again. The server's own key never needs it."
        }
        PruneStopped => {
            "Look at what changed in the EMR before anything else: much was encrypted, renamed or removed. Keep every older \
             snapshot: refuse the plan on the deletions page unless two persons know the reason and approve it."
        }
        PruneFailed => {
            "Backups go on, and the stores fill. The deletions page, or `backupd prune plan` on the server, says why. Where every store \
             has lost a snapshot, or part of one, `backupd looked-into NAME` on the server (NAME of any store) gives that snapshot up: \
             the next plan says that it goes, and two persons approve it. Look for the lost objects first: what is found again stays."
        }
        BaaExpired => {
            "Records may lie at the provider only under a business associate agreement that is in force. Call the \
             contract's responsible party, renew it, and set its new last day in the settings of backupd serve."
        }
        HeadFork => {
            "Keep everything. Two machines may be writing with the same key, or a store was set back: stop the second \
             writer, then call your backup engineer."
        }
        HeadGap => {
            "Keep everything. A link of the backup's chain is gone from every store without a signed deletion: somebody \
             may have taken it away, or a store was set back. Run `backupd verify`, then call your backup engineer. Once that is \
             looked into, `backupd looked-into NAME` on the server closes it (NAME as this alert shows it): acknowledging it here does not."
        }
        DaemonUnreachable => {
            "On the server, look at the state of the named program (systemctl status) and start it. While it is \
             silent its part of this console is out of date."
        }
        ConsoleUnwritable => {
            "Free or add space on the disk that holds the console's `data_dir`, or mend it. The backups go on, but what is wrong \
             with them is told to nobody until the console can write: look at `backupd status` on the server meanwhile."
        }
        HostCritical => "Open the hosts page: it names the server, its rack and bay, and what is wrong.",
        Test => "Nothing: if you read this, the channel works. Acknowledge it in the console to close it.",
    }
}

pub fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "Critical",
        Severity::Warning => "Warning",
    }
}

/// A mail's subject line.
pub fn subject_line(alert: &AlertRow, what: What) -> String {
    let about = if alert.subject.is_empty() { String::new() } else { format!(" ({})", alert.subject) };
    match what {
        What::Closed => format!("[Holdfast] Closed: {}{about}", title(alert.kind)),
        What::Acknowledged => format!("[Holdfast] Acknowledged: {}{about}", title(alert.kind)),
        What::Repeated => format!("[Holdfast] Still {}: {}{about}", severity_word(alert.severity), title(alert.kind)),
        What::Opened => format!("[Holdfast] {}: {}{about}", severity_word(alert.severity), title(alert.kind)),
    }
}

pub fn body(alert: &AlertRow, what: What, zone: Tz, console: Option<&str>) -> String {
    let mut text = format!("{}.\n\n", title(alert.kind));
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<13} {value}\n"));
    line("Event:", what.word());
    line("Severity:", severity_word(alert.severity));
    if !alert.subject.is_empty() {
        line("Concerns:", &alert.subject);
    }
    line("Since:", &moment(alert.since_ms, zone));
    if let (What::Acknowledged, Some(who)) = (what, &alert.acknowledged_by) {
        line("By:", who);
    }
    if let (What::Closed, Some(closed_ms)) = (what, alert.closed_ms) {
        line("Closed:", &moment(closed_ms, zone));
    } else {
        text.push_str(&format!("\nWhat to do\n{}\n", wrapped(remedy(alert.kind))));
    }
    if let Some(url) = console {
        text.push_str(&format!("\nConsole: {}/alerts\n", url.trim_end_matches('/')));
    }
    text.push_str("\nThis message holds no patient data.\n");
    text
}

/// Lines of at most 72 characters: no mail program has to fold or encode them.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        if width > 0 && width + 1 + word.len() > LINE_CHARS_MAX {
            lines.push('\n');
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += word.len();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use backupd_api::AlertKind::*;

    fn alert(kind: AlertKind) -> AlertRow {
        AlertRow {
            id: 1,
            source: "serve".into(),
            kind,
            severity: Severity::Critical,
            subject: "provider-north".into(),
            since_ms: 0,
            opened_ms: 0,
            sent_ms: 0,
            repeats: 0,
            acknowledged_ms: None,
            acknowledged_by: None,
            closed_ms: None,
        }
    }

    #[test]
    fn every_kind_has_words_and_a_remedy_that_any_mail_program_shows() {
        for kind in [
            BackupLate,
            QuorumUnreachable,
            StoreUnreachable,
            StoreLate,
            StoreMissing,
            StoreCorrupt,
            DrillFailed,
            DrillLate,
            DiskAlmostFull,
            SourceUnreachable,
            SourceShrunk,
            SourceDamaged,
            SnapshotPartial,
            KeptMissing,
            SecondWriter,
            SourceSetBack,
            KitStale,
            DutyUnassigned,
            DutyOverdue,
            StoreUnprotected,
            LocksShort,
            LockModeShort,
            StoreHealed,
            HeadFork,
            HeadGap,
            DaemonUnreachable,
            ConsoleUnwritable,
            HostCritical,
            Test,
        ] {
            let text = body(&alert(kind), What::Opened, Tz::UTC, Some("https://console.example/"));
            assert!(text.is_ascii() && text.lines().all(|line| line.len() < 78), "{text}");
            assert!(text.contains("provider-north") && text.contains("What to do"), "{text}");
            assert!(text.contains("https://console.example/alerts"), "{text}");
        }
        assert_eq!(
            subject_line(&alert(StoreUnreachable), What::Closed),
            "[Holdfast] Closed: A store does not answer (provider-north)"
        );
    }
}
