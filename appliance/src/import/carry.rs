//! Carrying a plan out, or telling what that would do.

use super::rows::{Content, Entry};
use super::{Flaw, Known, Plan, Table};
use crate::access::Actor;
use crate::attachments::{AttachmentRow, Staged};
use crate::audit::{Action, Event};
use crate::db::Connection;
use crate::store::{Expect, Store, StoreError, Tx, load_resource};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Rows in one transaction: one flush to the disk for all of them.
const BATCH_ROWS: usize = 100;

/// What became, or would become, of the rows of one table.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Rows of the table.
    pub rows: u64,
    pub new: u64,
    /// Brought in before, and changed in the table since.
    pub changed: u64,
    /// Brought in before, and the same.
    pub same: u64,
    /// Changed in the table and by a person here: left as it is here.
    pub kept: u64,
    /// Left out because something is wrong with them.
    pub refused: u64,
}

/// What became, or would become, of an import.
#[derive(Debug, Default)]
pub struct Report {
    pub tables: BTreeMap<Table, Counts>,
    pub flaws: Vec<(Table, Flaw)>,
    pub doubts: Vec<(Table, Flaw)>,
}

/// Where a row stands.
enum Standing {
    New,
    Same,
    Changed(Known),
    Kept,
    /// The number came in before with somebody of another name and another birth date.
    Another,
}

impl Report {
    fn begin(plan: &Plan) -> Report {
        let rows = |(table, rows): (&Table, &u64)| (*table, Counts { rows: *rows, ..Counts::default() });
        let tables = plan.rows.iter().map(rows).collect();
        Report { tables, flaws: plan.flaws.clone(), doubts: plan.doubts.clone() }
    }

    fn count(&mut self, entry: &Entry, standing: &Standing) {
        let counts = self.tables.entry(entry.table).or_default();
        match standing {
            Standing::New => counts.new += 1,
            Standing::Same => counts.same += 1,
            Standing::Changed(_) => counts.changed += 1,
            Standing::Another => {
                self.flaws.push((entry.table, another(entry.line)));
            }
            Standing::Kept => {
                counts.kept += 1;
                let sentence =
                    "was changed or removed here since it was brought in: it stays so; enter the difference by hand";
                self.doubts.push((entry.table, Flaw::new(entry.line, "", sentence)));
            }
        }
    }

    fn finish(mut self) -> Report {
        for (table, counts) in &mut self.tables {
            let lines = self.flaws.iter().filter(|(of, _)| of == table).map(|(_, flaw)| flaw.line);
            counts.refused = lines.collect::<HashSet<_>>().len() as u64;
        }
        self.flaws.sort_by_key(|(table, flaw)| (*table, flaw.line));
        self.doubts.sort_by_key(|(table, flaw)| (*table, flaw.line));
        self
    }

    /// Whether every row of every table is accounted for and none was refused.
    pub fn is_whole(&self) -> bool {
        self.flaws.is_empty()
    }
}

impl Plan {
    /// What [`Plan::carry_out`] would do.
    pub fn dry_run(&self, store: &Store) -> Result<Report, StoreError> {
        let mut report = Report::begin(self);
        store.internal_blocking(|db| {
            for entry in &self.entries {
                let standing = standing(db, &self.source, entry)?;
                report.count(entry, &standing);
            }
            Ok::<_, StoreError>(())
        })?;
        Ok(report.finish())
    }

    /// Brings in what is new or has changed. An error of the store ends it; what is in stays, and a repetition goes on.
    pub fn carry_out(self, store: &Store, actor: &Actor, mut progress: impl FnMut(u64)) -> Result<Report, StoreError> {
        let mut report = Report::begin(&self);
        let plan = Arc::new(self);
        let (mut batch, mut done) = (Vec::with_capacity(BATCH_ROWS), 0);
        for entry in &plan.entries {
            match plan.stage(store, entry) {
                Ok(staged) => batch.push((entry.clone(), staged)),
                Err(Refused::Row(flaw)) => report.flaws.push((entry.table, flaw)),
                Err(Refused::Store(error)) => return Err(error),
            }
            if batch.len() == BATCH_ROWS {
                done += batch.len() as u64;
                write(&plan, store, actor, std::mem::take(&mut batch), &mut report)?;
                progress(done);
            }
        }
        write(&plan, store, actor, batch, &mut report)?;
        let matches = report.tables.values().map(|counts| counts.new + counts.changed).sum();
        let note = move |tx: &mut Tx<'_>| {
            tx.note(Event::new(Action::Import, "Bundle", "").matches(matches));
            Ok::<_, StoreError>(())
        };
        store.write_blocking(actor, note)?;
        Ok(report.finish())
    }

    /// Puts a document's file where attachments are, unless it is there from before: a repetition adds nothing.
    fn stage(&self, store: &Store, entry: &Entry) -> Result<Option<Staged>, Refused> {
        let Content::Document { file, .. } = &entry.content else { return Ok(None) };
        let found = store.internal_blocking(|db| standing(db, &self.source, entry)).map_err(Refused::Store)?;
        if !matches!(found, Standing::New | Standing::Changed(_)) {
            return Ok(None);
        }
        let refused = |sentence: String| Refused::Row(Flaw::new(entry.line, "file", sentence));
        let bytes = self.documents.read(file).map_err(|sentence| refused(sentence.to_owned()))?;
        match store.attachments().stage(&bytes) {
            Ok(staged) => Ok(Some(staged)),
            Err(StoreError::Invalid { what }) => Err(refused(what.sentence.to_owned())),
            Err(error) => Err(Refused::Store(error)),
        }
    }
}

enum Refused {
    Row(Flaw),
    Store(StoreError),
}

type Batch = Vec<(Entry, Option<Staged>)>;

/// Writes rows in one transaction; where one of them is refused, each in its own, so that it costs nothing but itself.
fn write(plan: &Arc<Plan>, store: &Store, actor: &Actor, batch: Batch, report: &mut Report) -> Result<(), StoreError> {
    let (own, rows) = (Arc::clone(plan), batch.clone());
    let together = store.write_blocking(actor, move |tx: &mut Tx<'_>| {
        rows.into_iter().map(|(entry, staged)| carry(tx, &own, &entry, staged.as_ref())).collect::<Result<Vec<_>, _>>()
    });
    match together {
        Ok(standings) => {
            batch.iter().zip(&standings).for_each(|((entry, _), standing)| report.count(entry, standing));
            Ok(())
        }
        Err(error) if !of_a_row(&error) => Err(error),
        Err(error) => match batch.as_slice() {
            [] => Ok(()),
            [(entry, _)] => {
                report.flaws.push((entry.table, Flaw::new(entry.line, "", format!("{error}: correct this row"))));
                Ok(())
            }
            _ => batch.into_iter().try_for_each(|row| write(plan, store, actor, vec![row], report)),
        },
    }
}

/// Whether an error says something about a row, and not about the disk or the database.
fn of_a_row(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Invalid { .. }
            | StoreError::NotFound
            | StoreError::Gone { .. }
            | StoreError::Merged { .. }
            | StoreError::Taken
            | StoreError::Several
    )
}

fn standing(db: &Connection, source: &str, entry: &Entry) -> Result<Standing, StoreError> {
    let kind = entry.table.kind();
    let Some(known) = Known::load(db, source, kind, &entry.number)? else { return Ok(Standing::New) };
    if known.digest == entry.digest {
        return Ok(Standing::Same);
    }
    let Some(current) = load_resource(db, kind, &known.id)? else { return Ok(Standing::Kept) };
    if let Content::Patient { body } = &entry.content
        && is_another(body, &current.json()?)
    {
        return Ok(Standing::Another);
    }
    Ok(if current.version == known.version { Standing::Changed(known) } else { Standing::Kept })
}

pub(super) fn another(line: u64) -> Flaw {
    let sentence = "came in before with somebody of another name and birth date: correct the number, or give the rows of another system another name (source)";
    Flaw::new(line, "number", sentence)
}

/// Whether a patient's number came in before with somebody else.
pub(super) fn is_of_another(db: &Connection, source: &str, entry: &Entry) -> Result<bool, StoreError> {
    Ok(matches!(standing(db, source, entry)?, Standing::Another))
}

/// A row never turns one person into another: a name changes by marriage and a birth date by a correction, not both at once.
fn is_another(row: &Value, stored: &Value) -> bool {
    let family = |patient: &Value| patient["name"][0]["family"].as_str().map(str::to_lowercase);
    family(row) != family(stored) && row["birthDate"] != stored["birthDate"]
}

fn carry(tx: &mut Tx<'_>, plan: &Plan, entry: &Entry, staged: Option<&Staged>) -> Result<Standing, StoreError> {
    let kind = entry.table.kind();
    let standing = standing(tx.connection(), &plan.source, entry)?;
    if matches!(standing, Standing::Same | Standing::Kept | Standing::Another) {
        return Ok(standing);
    }
    let patient = match entry.table {
        Table::Patients => String::new(),
        _ => Known::load(tx.connection(), &plan.source, "Patient", &entry.patient)?.ok_or(StoreError::NotFound)?.id,
    };
    let attached = staged.map(|staged| tx.attach(staged, Some(&patient))).transpose()?;
    let body = body(plan, entry, &patient, attached.as_ref())?;
    let stored = match &standing {
        Standing::Changed(known) => tx.update(kind, &known.id, body, Expect::Version(known.version))?,
        _ => tx.create(kind, body)?,
    };
    let sql = "INSERT INTO imported_row (source, kind, number, id, version, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
               ON CONFLICT (source, kind, number) DO UPDATE SET version = excluded.version, digest = excluded.digest";
    let row = (&plan.source, kind, &entry.number, &stored.id, stored.version, entry.digest);
    tx.connection().prepare_cached(sql)?.execute(row)?;
    Ok(standing)
}

/// The resource of an entry.
pub(super) fn body(
    plan: &Plan,
    entry: &Entry,
    patient: &str,
    attached: Option<&AttachmentRow>,
) -> Result<Value, StoreError> {
    let system = format!("urn:holdfast:import:{}", plan.source);
    let owner = json!({"reference": format!("Patient/{patient}")});
    let mut body = match &entry.content {
        Content::Patient { body } => {
            let kind = json!({"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]});
            let mut body = body.clone();
            body["identifier"] = json!([{"use": "usual", "type": kind, "system": system, "value": entry.number}]);
            return Ok(body);
        }
        Content::Appointment { body, practitioner } => {
            let mut body = body.clone();
            let mut participants = vec![json!({"actor": owner, "status": "accepted"})];
            let found =
                plan.practitioner(practitioner).map_err(|sentence| StoreError::invalid(sentence, "practitioner"))?;
            participants.extend(found.map(|found| {
                let actor = json!({"reference": format!("Practitioner/{}", found.id), "display": found.display});
                json!({"actor": actor, "status": "accepted"})
            }));
            body["participant"] = participants.into();
            body
        }
        Content::Document { file, date, description } => {
            let name = file.rsplit('/').next().unwrap_or_default();
            let mut attachment = json!({"title": name});
            if let Some(row) = attached {
                attachment["contentType"] = row.media_type.clone().into();
                attachment["url"] = format!("Binary/{}", row.id).into();
                attachment["size"] = row.bytes.into();
            }
            json!({
                "resourceType": "DocumentReference", "status": "current", "description": description, "subject": owner,
                "date": date, "content": [{"attachment": attachment}],
            })
        }
    };
    body["identifier"] = json!([{"system": system, "value": entry.number}]);
    Ok(body)
}
