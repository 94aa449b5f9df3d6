//! What patients decided about the texts that govern something: what holds of each text, in each of a person's records, in a table
//! of its own, so that every request asks for it.
//!
//! A refusal or withdrawal keeps out, whatever else was signed, until the text is agreed to anew. A text in use that is `needed` keeps out as well whoever has not
//! agreed to one of those that are. Where no text governs a thing, nobody's consent is asked for.

use super::{Decision, Record};
use crate::access::Governs;
use crate::clock;
use crate::db::{Connection, OptionalExtension, Value as Sql, params};
use crate::store::{Person, StoreError};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Counted up whenever the same consents decide something else than before.
const DRAWN_BY: &str = "2";

/// Whose records are kept from somebody at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Withheld {
    governs: Governs,
    now: String,
    /// Texts of which one has to be agreed to; empty where none has.
    needed: Vec<String>,
}

impl Withheld {
    pub fn load(db: &Connection, governs: Governs, now_ms: i64) -> Result<Withheld, StoreError> {
        let sql = "SELECT id FROM consent_text t WHERE governs = ?1 AND in_use = 1 AND needed = 1 \
                   AND version = (SELECT max(version) FROM consent_text x WHERE x.id = t.id)";
        let mut statement = db.prepare_cached(sql)?;
        let needed = statement.query_map([governs.as_str()], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(Withheld { governs, now: moment(now_ms), needed })
    }

    /// The condition under which what belongs to the patient in `column` (0: to none) may be reached.
    pub fn condition(&self, column: &str, bind: &mut dyn FnMut(Sql) -> String) -> String {
        let mut reached = format!("NOT EXISTS ({})", self.said(column, false, bind));
        if !self.needed.is_empty() {
            let agreed = self.said(column, true, bind);
            let texts: Vec<String> = self.needed.iter().map(|text| bind(text.clone().into())).collect();
            reached += &format!(" AND EXISTS ({agreed} AND d.text IN ({}))", texts.join(", "));
        }
        format!("({column} = 0 OR {reached})")
    }

    /// The decisions of the patient in `column` that say yes, or no.
    fn said(&self, column: &str, permits: bool, bind: &mut dyn FnMut(Sql) -> String) -> String {
        let governs = bind(self.governs.as_str().to_owned().into());
        let now = bind(self.now.clone().into());
        let permits = i64::from(permits);
        format!(
            "SELECT 1 FROM patient_decision d WHERE d.patient = {column} AND d.governs = {governs} \
             AND (d.ends = '' OR d.ends > {now}) AND d.permits = {permits}"
        )
    }

    /// [`Withheld::condition`] for a resource in row `r`, which may belong to further patients than the one in its column: `beside`
    /// is the parameter under which the index holds those. They are few, so that the database looks at them once for a search.
    pub fn of_resource(&self, r: &str, beside: Option<i64>, bind: &mut dyn FnMut(Sql) -> String) -> String {
        let own = self.condition(&format!("{r}.patient"), bind);
        let Some(beside) = beside.filter(|_| self.heeds_all()) else { return own };
        let beside = bind(beside.into());
        let theirs = self.condition("o.rid", bind);
        format!(
            "{own} AND {r}.rid NOT IN (SELECT x.rid FROM ix_ref x JOIN resource o ON o.id = substr(x.target, 9) \
             AND o.type = (SELECT id FROM resource_type WHERE name = 'Patient') WHERE x.param = {beside} AND NOT {theirs})"
        )
    }

    /// Whether the consent of everybody counts to whom a resource belongs. Somebody who acts for one patient does not act for the
    /// others who are named there.
    pub fn heeds_all(&self) -> bool {
        self.governs == Governs::Sharing
    }

    /// Whether the patient in this row has not let it happen.
    pub fn of(&self, db: &Connection, patient: i64) -> Result<bool, StoreError> {
        let mut values: Vec<Sql> = vec![patient.into()];
        let condition = self.condition("r.patient", &mut |value| {
            values.push(value);
            format!("?{}", values.len())
        });
        let sql = format!("SELECT {condition} FROM (SELECT rid AS patient FROM resource WHERE rid = ?1) r");
        let may: Option<bool> =
            db.prepare_cached(&sql)?.query_row(crate::db::params_from_iter(values), |row| row.get(0)).optional()?;
        Ok(may == Some(false))
    }
}

/// Whether what a consent governs may happen for a patient.
pub fn permits(db: &Connection, governs: Governs, patient: &str, now_ms: i64) -> Result<bool, StoreError> {
    Ok(effect(db, governs, patient, now_ms)? == Effect::Permitted)
}

/// What a patient's decisions make of something that a consent governs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Permitted,
    /// They said no.
    Refused,
    /// It happens only with a consent, which nobody gave.
    NotAgreed,
}

pub fn effect(db: &Connection, governs: Governs, patient: &str, now_ms: i64) -> Result<Effect, StoreError> {
    let Some(row) = crate::store::patient_row(db, patient)? else { return Ok(Effect::NotAgreed) };
    let withheld = Withheld::load(db, governs, now_ms)?;
    let unasked = Withheld { needed: Vec::new(), ..withheld.clone() };
    Ok(match (withheld.of(db, row)?, unasked.of(db, row)?) {
        (false, _) => Effect::Permitted,
        (true, true) => Effect::Refused,
        (true, false) => Effect::NotAgreed,
    })
}

/// As `ends` is written: both are compared as texts.
fn moment(now_ms: i64) -> String {
    clock::instant(now_ms).chars().take(19).chain(['Z']).collect()
}

/// Draws a person's decisions anew in each of their records, after a consent in one of these was stored or sealed.
pub(crate) fn redraw(db: &Connection, patient: i64) -> Result<(), StoreError> {
    draw(db, &Person::load(db, patient)?)
}

/// Draws the decisions of one person: those of all their records hold in each.
fn draw(db: &Connection, person: &Person) -> Result<(), StoreError> {
    let mut by_text: BTreeMap<String, Vec<Signed>> = BTreeMap::new();
    for signed in signed(db, person)?.into_iter().filter(Signed::counts) {
        by_text.entry(signed.record.text_id.clone()).or_default().push(signed);
    }
    for row in person.rows() {
        db.prepare_cached("DELETE FROM patient_decision WHERE patient = ?1")?.execute([row])?;
        for (text, all) in &by_text {
            let newest = all.last().and_then(|signed| signed.governs);
            for governs in Governs::ALL {
                let Some((permits, ends)) = decided(all, governs) else { continue };
                // An earlier version may have governed something else, which an earlier no still keeps.
                let text = if newest == Some(governs) { text.clone() } else { format!("{text} {}", governs.as_str()) };
                let sql =
                    "INSERT INTO patient_decision (patient, text, governs, permits, ends) VALUES (?1, ?2, ?3, ?4, ?5)";
                db.prepare_cached(sql)?.execute(params![row, text, governs.as_str(), i64::from(permits), ends])?;
            }
        }
    }
    Ok(())
}

/// A consent that was signed here, with the resource that says what became of it.
struct Signed {
    record: Record,
    body: Value,
    /// By the version of the text that was signed.
    governs: Option<Governs>,
}

impl Signed {
    /// One that was entered in error was never made.
    fn counts(&self) -> bool {
        super::status(&self.body) != "entered-in-error"
    }

    /// Whether it says something yet, and until when; `None` where it decides nothing any more.
    fn says(&self) -> Option<(bool, String)> {
        // A day is over after it, as its page says; both are compared as texts.
        let ends = || super::end_of(&self.body).and_then(super::end_ms).map(moment).unwrap_or_default();
        match (self.record.decision, super::status(&self.body)) {
            (Decision::Agreed, "active") => Some((true, ends())),
            // Whoever takes back what they agreed to says no, and for good.
            (Decision::Agreed, "inactive" | "rejected") => Some((false, String::new())),
            (Decision::Refused, "active") => Some((false, ends())),
            _ => None,
        }
    }
}

/// What a person signed, in all their records, in the order in which it was sealed.
fn signed(db: &Connection, person: &Person) -> Result<Vec<Signed>, StoreError> {
    let sql = "SELECT c.seq, c.record, r.body FROM resource r JOIN resource_type t ON t.id = r.type \
               JOIN consent_record c ON c.consent = r.id WHERE r.patient = ?1 AND t.name = 'Consent' AND r.deleted = 0";
    let mut rows: Vec<(i64, String, String)> = Vec::new();
    for row in person.rows() {
        let mut statement = db.prepare_cached(sql)?;
        let found = statement.query_map([row], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.extend(found.collect::<Result<Vec<_>, _>>()?);
    }
    rows.sort_by_key(|(seq, _, _)| *seq);
    let read = |(_, record, body): &(i64, String, String)| {
        let record = serde_json::from_str(record).map_err(|_| StoreError::Damaged("consent record"))?;
        let body = serde_json::from_str(body).map_err(|_| StoreError::Damaged("resource body"))?;
        let governs = super::governs_of(db, &record)?;
        Ok(Signed { record, body, governs })
    };
    rows.iter().map(read).collect()
}

/// Those of one text, oldest first, that no later one has replaced. Who agrees begins anew; who refuses takes the place of what
/// was agreed to, and not of an earlier no, which holds until it is taken back itself.
fn standing(all: &[Signed]) -> impl Iterator<Item = &Signed> {
    let agrees = |signed: &Signed| signed.record.decision == Decision::Agreed && signed.says().is_some();
    let (_, since) = all.split_at(all.iter().rposition(agrees).unwrap_or(0));
    let refused = since.iter().any(|signed| signed.record.decision == Decision::Refused);
    since.iter().filter(move |signed| !(refused && matches!(signed.says(), Some((true, _)))))
}

/// The consents of a patient whose place a later decision of the same person about the same text has taken: ids.
pub fn replaced(db: &Connection, patient: &str) -> Result<BTreeSet<String>, StoreError> {
    let Some(row) = crate::store::patient_row(db, patient)? else { return Ok(BTreeSet::new()) };
    let all: Vec<Signed> = signed(db, &Person::load(db, row)?)?.into_iter().filter(Signed::counts).collect();
    let mut replaced: BTreeSet<String> = all.iter().map(|signed| signed.record.consent.clone()).collect();
    let mut by_text: BTreeMap<String, Vec<Signed>> = BTreeMap::new();
    for signed in all {
        by_text.entry(signed.record.text_id.clone()).or_default().push(signed);
    }
    for all in by_text.values() {
        for signed in standing(all) {
            replaced.remove(&signed.record.consent);
        }
    }
    Ok(replaced)
}

/// What the decisions about one text make of what it governs, and until when; `None` where nothing holds. Any no that stands wins,
/// and holds as long as the longest of them.
fn decided(all: &[Signed], governs: Governs) -> Option<(bool, String)> {
    let said = standing(all).filter(|signed| signed.governs == Some(governs)).filter_map(Signed::says);
    said.reduce(|(permits, ends), (other, until)| match (permits, other) {
        (false, true) => (permits, ends),
        (false, false) if ends.is_empty() || !until.is_empty() && ends > until => (permits, ends),
        _ => (other, until),
    })
}

/// [`redraw`] for everybody: where records were brought in as they were.
pub(crate) fn redraw_all(db: &Connection) -> Result<(), StoreError> {
    let sql = "SELECT DISTINCT r.patient FROM consent_record c JOIN resource r ON r.id = c.consent \
               JOIN resource_type t ON t.id = r.type WHERE t.name = 'Consent' AND r.patient <> 0";
    let mut statement = db.prepare(sql)?;
    let patients: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    db.execute("DELETE FROM patient_decision", [])?;
    patients.into_iter().try_for_each(|patient| redraw(db, patient))
}

/// Draws all decisions anew where an older release drew them by other rules.
pub(crate) fn redraw_if_outdated(db: &Connection) -> Result<(), StoreError> {
    const KEY: &str = "decisions-drawn-by";
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let found: Option<String> = db.prepare_cached(sql)?.query_row([KEY], |row| row.get(0)).optional()?;
    if found.as_deref() == Some(DRAWN_BY) {
        return Ok(());
    }
    let transaction = db.transaction()?;
    redraw_all(&transaction)?;
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    transaction.execute(sql, (KEY, DRAWN_BY))?;
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::super::{Text, add_text, seal};
    use super::*;
    use crate::access::{Actor, Program};
    use crate::clock::Clock;
    use crate::store::{Mode, Store, Tx};
    use serde_json::json;

    #[test]
    fn a_decision_for_a_day_holds_on_that_day_as_its_page_says() {
        for (end, told) in [
            (json!("2026-11-30"), "2026-12-01T00:00:00Z"),
            (json!("2026-11-30T02:00:00+02:00"), "2026-11-30T00:00:00Z"),
            (json!(null), ""),
        ] {
            let body = json!({"status": "active", "provision": {"period": {"end": end}}});
            let signed = Signed { record: record("c"), body, governs: None };
            assert_eq!(signed.says(), Some((true, told.to_owned())));
        }
    }

    #[tokio::test]
    async fn decisions_that_an_older_release_drew_are_drawn_anew_when_the_records_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let place = crate::support::place(dir.path());
        let clock = Clock::manual(1_780_000_000_000);
        let store = Store::open(place.clone(), clock.clone(), Mode::New).unwrap();
        let refuse = |tx: &mut Tx<'_>| {
            let kept = tx.create("Patient", json!({"resourceType": "Patient"}))?;
            let link = json!([{"other": {"reference": kept.reference()}, "type": "replaced-by"}]);
            let closed = tx.create("Patient", json!({"resourceType": "Patient", "link": link}))?;
            let (title, body) = ("Programs".to_owned(), "I agree.".to_owned());
            let governs = Some(Governs::Sharing);
            let id = "t".to_owned();
            add_text(
                tx,
                &Text { id, version: 1, title, body, months: 0, governs, needed: false, portal: false, in_use: true },
            )?;
            let consent = json!({"resourceType": "Consent", "status": "active", "scope": {"text": "x"}, "category": [{"text": "x"}],
                "patient": {"reference": kept.reference()}, "policyRule": {"text": "x"}, "provision": {"type": "deny"}});
            let stored = tx.create("Consent", consent)?;
            seal(tx.connection(), &Record { decision: Decision::Refused, ..record(&stored.id) })?;
            // As the older release had left it: of the surviving record alone.
            let db = tx.connection();
            let drawn = "SELECT count(*) FROM patient_decision WHERE permits = 0";
            assert_eq!(db.query_row::<i64>(drawn, [], |row| row.get(0))?, 2);
            db.execute("DELETE FROM patient_decision WHERE patient = ?1", [closed.rid])?;
            db.execute("UPDATE meta SET value = '1' WHERE key = 'decisions-drawn-by'", [])?;
            Ok::<_, StoreError>(closed.id)
        };
        let closed = store.write(&Actor::program(Program::Seed), refuse).await.unwrap();
        drop(store);
        let store = Store::open(place, clock, Mode::Exclusive).unwrap();
        let asked = move |db: &Connection| permits(db, Governs::Sharing, &closed, 1_780_000_000_000);
        assert!(!store.internal(asked).await.unwrap());
    }
}
