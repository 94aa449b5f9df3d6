//! Who is responsible for what: every duty that must exist, with what the settings say about it.

use crate::settings::{DutySetting, ServeSettings};
use backup_report::Digest;
use backupd_api::{Duty, DutyKind};
use chrono::{DateTime, NaiveDate};

const OF_THE_PRACTICE: [DutyKind; 5] =
    [DutyKind::Backup, DutyKind::Restore, DutyKind::Keys, DutyKind::Hardware, DutyKind::ReportApproval];

/// Every duty: five of the practice, one for each store's contract. One that nobody holds is there, unassigned.
pub fn all(settings: &ServeSettings, now_unix_ms: i64) -> Vec<Duty> {
    let today = today(settings, now_unix_ms);
    let contracts = settings.stores.iter().map(|s| (DutyKind::StoreContract, Some(s.name.clone())));
    let wanted = OF_THE_PRACTICE.into_iter().map(|kind| (kind, None)).chain(contracts);
    wanted
        .map(|(kind, store)| {
            let held = settings.duties.iter().find(|d| d.kind == kind && d.store == store);
            duty(kind, store, held, today)
        })
        .collect()
}

/// The day in the practice's zone.
pub fn today(settings: &ServeSettings, now_unix_ms: i64) -> NaiveDate {
    DateTime::from_timestamp_millis(now_unix_ms).unwrap_or_default().with_timezone(&settings.zone).date_naive()
}

fn duty(kind: DutyKind, store: Option<String>, held: Option<&DutySetting>, today: NaiveDate) -> Duty {
    let Some(held) = held else {
        let empty = String::new;
        return Duty {
            kind,
            store,
            party: empty(),
            deputy: empty(),
            phone: empty(),
            review: empty(),
            unassigned: true,
            overdue: false,
        };
    };
    let blank = |text: &str| text.trim().is_empty();
    Duty {
        kind,
        store,
        party: held.party.clone(),
        deputy: held.deputy.clone(),
        phone: held.phone.clone(),
        review: held.review.clone(),
        unassigned: blank(&held.party) || blank(&held.deputy) || blank(&held.phone),
        overdue: held.review.parse::<NaiveDate>().is_ok_and(|day| day < today) || blank(&held.review),
    }
}

/// SHA-256 over the duties without what depends on today, as a report names them.
pub fn sha256(duties: &[Duty]) -> String {
    let mut text = String::new();
    for duty in duties {
        let fields = (duty.kind, &duty.store, &duty.party, &duty.deputy, &duty.phone, &duty.review);
        text.push_str(&serde_json::to_string(&fields).unwrap_or_default());
        text.push('\n');
    }
    Digest::sha256(text.as_bytes()).as_str().to_owned()
}
