//! Reminders of appointments: planned ahead, one for each time, and dropped when the appointment is over or elsewhere.

use super::{Channel, Channels, Message, queue};
use crate::access::{Actor, Governs, Program};
use crate::consents;
use crate::dates;
use crate::scheduling::extension;
use crate::store::{Store, StoreError, Tx, View, load_resource};
use chrono_tz::Tz;
use serde_json::{Value, json};

/// How a patient wants to be reminded: `mail`, `sms` or `none`; absent means whatever there is.
pub const PREFERENCE: &str = "urn:holdfast:reminders";
const PREFIX: &str = "reminder:";

/// When reminders leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    /// Hours before the appointment; 0 for no reminders.
    pub hours: i64,
}

/// One appointment that is due for a reminder.
struct Due {
    reference: String,
    start_s: i64,
    patient: String,
}

/// Queues reminders for what begins within the plan's hours. One that was queued for the same time is not queued again.
pub async fn plan(store: &Store, channels: &Channels, zone: Tz, practice: &str, plan: &Plan) -> Result<(), StoreError> {
    if plan.hours == 0 {
        return Ok(());
    }
    let now_s = store.clock().unix_ms() / 1000;
    let until_s = now_s + plan.hours * 3600;
    // The table of who is busy is asked, not the records: a look every few seconds would fill the audit with nothing.
    let find = move |db: &crate::db::Connection| {
        let sql = "SELECT o.actor, o.start_s, r.id FROM occupied o JOIN resource r ON r.rid = o.rid \
                   WHERE o.actor >= 'Patient/' AND o.actor < 'Patient0' AND o.start_s > ?1 AND o.start_s <= ?2 \
                   AND NOT EXISTS (SELECT 1 FROM outbox x WHERE x.reference = ?3 || r.id || '@' || o.start_s) LIMIT 100";
        let mut statement = db.prepare_cached(sql)?;
        let due = |row: &crate::db::Row<'_>| {
            let (patient, start_s, id): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Due {
                reference: format!("{PREFIX}{id}@{start_s}"),
                start_s,
                patient: patient.replacen("Patient/", "", 1),
            })
        };
        Ok::<_, StoreError>(statement.query_map((now_s, until_s, PREFIX), due)?.collect::<Result<Vec<_>, _>>()?)
    };
    let actor = Actor::program(Program::Messages);
    for due in store.internal(find).await? {
        let id = due.patient.clone();
        let read = move |view: &View<'_>| all_records(view, &id);
        let records = store.view::<_, StoreError, _>(&actor, read).await?;
        let (who, now_ms) = (due.patient.clone(), now_s * 1000);
        let permitted = store.internal(move |db| consents::permits(db, Governs::Reminders, &who, now_ms)).await?;
        let wanted = channel(&records, channels).filter(|_| permitted);
        let when = dates::local(due.start_s, zone);
        let text = format!(
            "Your appointment at {practice}: {} at {}.\n\nIf you cannot come, please call us, so that somebody else can have this time.\n",
            dates::week_day(when.date_naive()),
            when.format("%H:%M")
        );
        let message = wanted.as_ref().map(|(channel, to)| {
            (*channel, Message { to: to.clone(), subject: format!("Your appointment at {practice}"), text })
        });
        let store_it = move |tx: &mut Tx<'_>| match message {
            Some((channel, message)) => queue(tx, channel, &due.reference, &message, tx.now_ms()),
            None => skip(tx, &due.reference),
        };
        store.write::<_, StoreError, _>(&actor, store_it).await?;
    }
    Ok(())
}

/// Notes that nothing is sent, so that it is not looked at again.
fn skip(tx: &mut Tx<'_>, reference: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO outbox (created_ms, channel, payload, state, tries, due_ms, reference, problem) \
               VALUES (?1, 'mail', '', 'failed', 0, ?1, ?2, 'the patient gave no address, or wants no reminder')";
    tx.connection().prepare_cached(sql)?.execute((tx.now_ms(), reference))?;
    Ok(())
}

/// The person's registration in each of their records, that of the record which goes on first: there it is kept up to date.
fn all_records(view: &View<'_>, patient: &str) -> Result<Vec<Value>, StoreError> {
    let person = view.person(patient)?;
    let closed = person.ids().into_iter().filter(|id| *id != person.goes_on());
    let ids = std::iter::once(person.goes_on().to_owned()).chain(closed);
    ids.map(|id| view.read("Patient", &id)?.json()).collect()
}

/// By what a patient is reminded, and where. Who wants none in any record wants none.
fn channel(records: &[Value], channels: &Channels) -> Option<(Channel, String)> {
    let preference = |patient: &'_ Value| -> String {
        extension(patient, PREFERENCE, "valueCode").and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let preferences: Vec<String> = records.iter().map(preference).filter(|word| !word.is_empty()).collect();
    if preferences.iter().any(|word| word == "none") {
        return None;
    }
    let telecom = |system: &str| {
        let all = records.iter().filter_map(|patient| patient.get("telecom")?.as_array()).flatten();
        let mut of_system = all.filter(|t| t.get("system").and_then(Value::as_str) == Some(system));
        of_system.find_map(|t| t.get("value")?.as_str()).map(str::to_owned)
    };
    let by = |channel: Channel, system: &str| Some(channel).filter(|c| channels.has(*c)).zip(telecom(system));
    match preferences.first().map(String::as_str) {
        Some("sms") => by(Channel::Sms, "phone"),
        Some("mail") => by(Channel::Mail, "email"),
        _ => by(Channel::Mail, "email").or_else(|| by(Channel::Sms, "phone")),
    }
}

/// Whether a waiting reminder speaks of a time at which nobody comes any more.
pub async fn is_over(store: &Store, reference: &str) -> Result<bool, StoreError> {
    let Some((id, start)) = reference.strip_prefix(PREFIX).and_then(|r| r.split_once('@')) else { return Ok(false) };
    let (id, start) = (id.to_owned(), start.to_owned());
    let look = move |db: &crate::db::Connection| {
        let Some(stored) = load_resource(db, "Appointment", &id)? else { return Ok(true) };
        let body = stored.json()?;
        let begins = body.get("start").and_then(Value::as_str).and_then(dates::unix_s).map(|s| s.to_string());
        Ok::<_, StoreError>(begins.as_deref() != Some(start.as_str()) || body.get("status") != Some(&json!("booked")))
    };
    store.internal(look).await
}
