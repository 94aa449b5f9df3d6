//! Reading: one consistent point, every access authorized here and told to the audit.

use super::bound::Bounds;
use super::everything::{self, Everything};
use super::history::{self, Before, Version, Versions};
use super::index::ParamIds;
use super::query::Query;
use super::search::Page;
use super::tx::CARD;
use super::{Chart, Resource, StoreError, canonical, chart, include, resource, search};
use crate::access::{self, Actor, Governs, Object};
use crate::attachments::{AttachmentRow, Attachments};
use crate::audit::{self, Action, Event, Outcome};
use crate::db::Connection;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// One consistent read point on behalf of one actor. What it returns is audited before the caller of
/// [`super::Store::view`] sees it; a refusal is audited too.
pub struct View<'a> {
    pub(super) connection: &'a Connection,
    pub(super) params: &'a ParamIds,
    pub(super) actor: &'a Actor,
    now_ms: i64,
    events: RefCell<Vec<Event>>,
}

/// A file that is gone or rotten, for whoever has to bring it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedAttachment {
    /// Logical id; empty where it belongs to nobody yet.
    pub patient: String,
    pub media_type: String,
    pub bytes: u64,
    pub created_ms: i64,
}

/// Resources that [`View::each`] holds at once.
const EACH_PAGE: u32 = 500;

impl<'a> View<'a> {
    pub(super) fn new(connection: &'a Connection, params: &'a ParamIds, actor: &'a Actor, now_ms: i64) -> View<'a> {
        View { connection, params, actor, now_ms, events: RefCell::new(Vec::new()) }
    }

    pub(super) fn bounds(&self) -> Bounds<'_> {
        Bounds { connection: self.connection, actor: self.actor, now_ms: self.now_ms }
    }

    /// Whether the actor may read this resource; tells the audit of whoever keeps the actor out.
    fn reach(&self, found: &Resource) -> Result<(), StoreError> {
        self.within(access::Action::Read, (&found.kind, &found.id), found.patient)?;
        let checked = self.bounds().may_read(found);
        if let Err(StoreError::Denied(_)) = checked {
            let row = self.bounds().kept_beside(&found.kind, found.patient, &found.json()?)?;
            let patient = resource::patient_id(self.connection, row.unwrap_or_default())?;
            self.note(Event::new(Action::Read, &found.kind, &found.id).of_patient(&patient).outcome(Outcome::Denied));
        }
        checked
    }

    /// Whether this resource is within the actor's bounds; tells the audit of a patient who keeps the actor out.
    fn within(&self, action: access::Action, (kind, id): (&str, &str), compartment: i64) -> Result<(), StoreError> {
        let checked = self.bounds().check(action, kind, compartment);
        if let Err(StoreError::Denied(_)) = checked {
            let patient = resource::patient_id(self.connection, compartment)?;
            let action = if action == access::Action::Search { Action::Search } else { Action::Read };
            self.note(Event::new(action, kind, id).of_patient(&patient).outcome(Outcome::Denied));
        }
        checked
    }

    pub(super) fn into_events(self) -> Vec<Event> {
        self.events.into_inner()
    }

    /// The read point itself, for tables that hold no records (accounts, sessions).
    pub fn connection(&self) -> &Connection {
        self.connection
    }

    /// The current version of a resource.
    pub fn read(&self, kind: &str, id: &str) -> Result<Resource, StoreError> {
        self.permit(access::Action::Read, kind, id)?;
        let Version { resource: found, deleted } =
            history::current(self.connection, self.params, kind, id)?.ok_or(StoreError::NotFound)?;
        self.reach(&found)?;
        self.note(Event::new(Action::Read, kind, id).of_patient(&self.patient_of(&found)?));
        if deleted { Err(StoreError::Gone { version: found.version }) } else { Ok(found) }
    }

    /// What a canonical address means here, if anything.
    pub fn canonical(&self, kind: &str, written: &str) -> Result<Option<Resource>, StoreError> {
        let found = canonical::resolve(self.connection, self.params, kind, written)?;
        found.map(|found| self.read(kind, &found.id)).transpose()
    }

    /// A certain version of a resource, the current or a superseded one.
    pub fn version(&self, kind: &str, id: &str, version: u32) -> Result<Resource, StoreError> {
        self.permit(access::Action::Read, kind, id)?;
        let current = history::current(self.connection, self.params, kind, id)?.ok_or(StoreError::NotFound)?.resource;
        self.reach(&current)?;
        self.note(Event::new(Action::Read, kind, id).of_patient(&self.patient_of(&current)?));
        let found = match current.version == version {
            true => current,
            false => resource::load_version(current, self.connection, version)?.ok_or(StoreError::NotFound)?,
        };
        self.reach(&found)?;
        if found.body.is_empty() { Err(StoreError::Gone { version }) } else { Ok(found) }
    }

    /// A page of the versions of one resource or of a type, newest first.
    pub fn history(&self, asked: &Versions) -> Result<(Vec<Version>, Option<Before>), StoreError> {
        let id = asked.id.as_deref().unwrap_or_default();
        self.permit(access::Action::Search, &asked.kind, id)?;
        let patient = match &asked.id {
            Some(id) => {
                let current =
                    history::current(self.connection, self.params, &asked.kind, id)?.ok_or(StoreError::NotFound)?;
                self.reach(&current.resource)?;
                self.patient_of(&current.resource)?
            }
            // Versions of all patients together are not for who is bound to one.
            None if self.bounds().patient(access::Action::Search, &asked.kind).is_some() => {
                return Err(access::Denied::NotPermitted.into());
            }
            None => String::new(),
        };
        let withheld = self.bounds().withheld()?;
        let kept = withheld.as_ref().map(|withheld| (withheld, self.params.beside_id(&asked.kind)));
        let mut found = history::page(self.connection, asked, kept)?;
        if withheld.is_some() {
            // Whom an earlier version named, no index tells.
            found.0.retain(|version| self.bounds().may_read(&version.resource).is_ok());
        }
        let matches = found.0.len() as u64;
        self.note(Event::new(Action::Search, &asked.kind, id).of_patient(&patient).matches(matches));
        Ok(found)
    }

    /// A page of a patient's whole record, as far as the actor may see it, with the directory entries that it refers to. What
    /// stands in the same person's other records belongs to it; who is bound to one record has that one alone.
    pub fn everything(&self, patient: &str, asked: &Everything) -> Result<Page, StoreError> {
        self.read("Patient", patient)?;
        let person = self.person(patient)?;
        let people: BTreeMap<i64, String> = person.rows().zip(person.ids()).collect();
        let may = |kind: &str| self.may(access::Action::Read, kind);
        let rids: Vec<i64> = people.keys().copied().collect();
        let mut page = everything::page(self.connection, &rids, asked, &may)?;
        if Governs::of(self.actor).is_some() {
            page.resources.retain(|found| self.bounds().may_read(found).is_ok());
        }
        page.included.retain(|found| self.bounds().may_read(found).is_ok());
        let mut matches = BTreeMap::<(&str, &str), u64>::new();
        for found in page.resources.iter().chain(&page.included) {
            let whose = people.get(&found.patient).map_or(patient, String::as_str);
            *matches.entry((&found.kind, whose)).or_default() += 1;
        }
        for ((kind, whose), count) in matches {
            self.note(Event::new(Action::Export, kind, "").of_patient(whose).matches(count));
        }
        Ok(page)
    }

    /// A group whose members are exported. Whoever of them keeps the actor out is left out of what is given, where reading the
    /// group itself, which belongs to each, is refused.
    pub fn cohort(&self, id: &str) -> Result<Resource, StoreError> {
        self.permit(access::Action::Read, "Group", id)?;
        access::authorize(self.actor, access::Action::Read, Object::Cohort)?;
        let found = resource::load(self.connection, "Group", id)?.ok_or(StoreError::NotFound)?;
        self.within(access::Action::Read, ("Group", id), found.patient)?;
        self.note(Event::new(Action::Read, "Group", id));
        Ok(found)
    }

    /// The types that some of these patients' compartments hold or held.
    pub fn kinds_of(&self, patients: &[String]) -> Result<Vec<String>, StoreError> {
        self.permit(access::Action::Search, "Patient", "")?;
        let sql = "SELECT DISTINCT t.name FROM resource p JOIN resource r ON r.patient = p.rid \
                   JOIN resource_type t ON t.id = r.type \
                   WHERE p.type = (SELECT id FROM resource_type WHERE name = 'Patient') AND p.id = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut kinds = BTreeSet::new();
        for patient in patients {
            if self.is_withheld(patient)? {
                continue;
            }
            for kind in statement.query_map([patient], |row| row.get::<_, String>(0))? {
                kinds.insert(kind?);
            }
        }
        Ok(kinds.into_iter().collect())
    }

    /// Whether a patient's consent keeps the actor out.
    fn is_withheld(&self, patient: &str) -> Result<bool, StoreError> {
        match resource::patient_rid(self.connection, patient)? {
            Some(rid) => self.bounds().keeps_out(rid),
            None => Ok(false),
        }
    }

    /// Resources of a type in a patient's compartment as they were at a moment, none of a patient who keeps the actor out; `after` is the row of the last one before.
    pub fn as_of(
        &self,
        kind: &str,
        (patient, after): (&str, i64),
        between: (i64, i64),
        count: u32,
    ) -> Result<Vec<Resource>, StoreError> {
        self.permit(access::Action::Search, kind, "")?;
        let Some(current) = history::current(self.connection, self.params, "Patient", patient)? else {
            return Ok(Vec::new());
        };
        if self.bounds().keeps_out(current.resource.rid)? {
            return Ok(Vec::new());
        }
        self.within(access::Action::Search, (kind, ""), current.resource.rid)?;
        let keep = |found: &Resource| self.bounds().may_read(found).is_ok();
        let found = history::as_of(self.connection, kind, (current.resource.rid, after), between, (count, &keep))?;
        if !found.is_empty() {
            self.note(Event::new(Action::Export, kind, "").of_patient(patient).matches(found.len() as u64));
        }
        Ok(found)
    }

    /// One page of the resources that match.
    pub fn search(&self, query: &Query) -> Result<Page, StoreError> {
        self.permit(access::Action::Search, query.kind(), "")?;
        // A condition on another type's content tells as much as reading it.
        query.chained_kinds().try_for_each(|kind| self.permit(access::Action::Search, kind, ""))?;
        let narrowed = self.bounds().search(query)?;
        let query = narrowed.as_ref().unwrap_or(query);
        let mut page = search::run(self.connection, self.params, query)?;
        self.bounds().keep_readable(query.kind(), &mut page.resources, |found| found);
        let may =
            |found: &Resource| self.may(access::Action::Read, &found.kind) && self.bounds().may_read(found).is_ok();
        include::add(self.connection, self.params, query, &mut page, &may)?;
        let patient = query.patient().unwrap_or_default();
        let mut matches = BTreeMap::from([(query.kind(), page.resources.len() as u64)]);
        page.included.iter().for_each(|found| *matches.entry(&found.kind).or_default() += 1);
        for (kind, count) in matches {
            self.note(Event::new(Action::Search, kind, "").of_patient(patient).matches(count));
        }
        Ok(page)
    }

    /// Gives `each` all that match, in the order of storing: for what may be too much to hold at once. One look for the audit.
    pub fn each<E: From<StoreError>>(
        &self,
        query: &Query,
        mut each: impl FnMut(Resource) -> Result<(), E>,
    ) -> Result<(), E> {
        self.permit(access::Action::Search, query.kind(), "")?;
        query.chained_kinds().try_for_each(|kind| self.permit(access::Action::Search, kind, ""))?;
        let narrowed = self.bounds().search(query)?;
        let mut query = narrowed.unwrap_or_else(|| query.clone()).in_pages(EACH_PAGE);
        let mut matches = 0;
        loop {
            let mut page = search::run(self.connection, self.params, &query)?;
            self.bounds().keep_readable(query.kind(), &mut page.resources, |found| found);
            matches += page.resources.len() as u64;
            page.resources.into_iter().try_for_each(&mut each)?;
            match page.next {
                Some(next) => query = query.after(next),
                None => break,
            }
        }
        let patient = query.patient().unwrap_or_default();
        self.note(Event::new(Action::Search, query.kind(), "").of_patient(patient).matches(matches));
        Ok(())
    }

    /// What the chart of a patient shows, as far as the actor's role may see it.
    pub fn chart(&self, patient_id: &str) -> Result<Chart, StoreError> {
        let patient = self.read("Patient", patient_id)?;
        chart::load(self, patient)
    }

    /// Appointments that begin in `[from_ms, until_ms)`, by start, then id.
    pub fn appointments_between(&self, from_ms: i64, until_ms: i64) -> Result<Vec<Resource>, StoreError> {
        self.permit(access::Action::Search, "Appointment", "")?;
        let found = chart::appointments_between(self.connection, self.params, from_ms, until_ms)?;
        self.note(Event::new(Action::Search, "Appointment", "").matches(found.len() as u64));
        Ok(found)
    }

    /// Resources of one kind in the compartments of many patients, as one look: one entry in the access record.
    pub fn of_patients(&self, kind: &str, patients: &[String]) -> Result<Vec<Resource>, StoreError> {
        self.permit(access::Action::Search, kind, "")?;
        let mut found = Vec::new();
        for patient in patients {
            let Some(rid) = resource::patient_rid(self.connection, patient)? else { continue };
            self.within(access::Action::Search, (kind, ""), rid)?;
            found.extend(chart::all_of(self.connection, rid, kind)?);
        }
        self.note(Event::new(Action::Export, kind, "").matches(found.len() as u64));
        Ok(found)
    }

    /// The row of an attachment (`Binary/{id}`); its bytes are then read with [`crate::attachments::Attachments::read`].
    pub fn attachment(&self, id: &str) -> Result<AttachmentRow, StoreError> {
        self.permit(access::Action::Read, "Binary", id)?;
        let row = AttachmentRow::load(self.connection, id)?.ok_or(StoreError::NotFound)?;
        self.within(access::Action::Read, ("Binary", id), row.patient)?;
        let patient = resource::patient_id(self.connection, row.patient)?;
        self.note(Event::new(Action::Download, "Binary", id).of_patient(&patient));
        Ok(row)
    }

    /// The row of a side of an insurance card, which whoever may read the coverage may see.
    pub fn card(&self, id: &str, patient: &str) -> Result<AttachmentRow, StoreError> {
        self.permit(access::Action::Read, "Coverage", id)?;
        let rid = resource::patient_rid(self.connection, patient)?.ok_or(StoreError::NotFound)?;
        self.within(access::Action::Read, ("Coverage", id), rid)?;
        let row = AttachmentRow::load(self.connection, id)?.filter(|row| row.patient == rid && id.starts_with(CARD));
        self.note(Event::new(Action::Download, "Coverage", id).of_patient(patient));
        row.ok_or(StoreError::NotFound)
    }

    /// The files of a patient; each counts as one that was downloaded.
    pub fn attachments_of(&self, patient: &str) -> Result<Vec<AttachmentRow>, StoreError> {
        self.permit(access::Action::Read, "Binary", "")?;
        let rid = resource::patient_rid(self.connection, patient)?.ok_or(StoreError::NotFound)?;
        self.within(access::Action::Read, ("Binary", ""), rid)?;
        let mut statement =
            self.connection.prepare_cached("SELECT id FROM attachment WHERE patient = ?1 ORDER BY created_ms, id")?;
        let ids = statement.query_map([rid], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        ids.iter().map(|id| self.attachment(id)).collect()
    }

    /// Up to `count` audit entries older than `before`, newest first.
    pub fn audit_page(&self, before: Option<u64>, count: u32) -> Result<Vec<audit::Entry>, StoreError> {
        self.audit_entries(&audit::Filter { before, ..audit::Filter::default() }, count, Action::Read)
    }

    /// Up to `count` audit entries that fit, newest first; `how` is what the audit is told of this look.
    pub fn audit_entries(
        &self,
        filter: &audit::Filter,
        count: u32,
        how: Action,
    ) -> Result<Vec<audit::Entry>, StoreError> {
        self.may_see_audit(how)?;
        let entries = audit::search(self.connection, filter, count)?;
        self.note(Event::new(how, "AuditEvent", "").matches(entries.len() as u64));
        Ok(entries)
    }

    /// How many audit entries fit.
    pub fn audit_count(&self, filter: &audit::Filter) -> Result<u64, StoreError> {
        self.may_see_audit(Action::Search)?;
        let count = audit::count(self.connection, filter)?;
        self.note(Event::new(Action::Search, "AuditEvent", "").matches(count));
        Ok(count)
    }

    fn may_see_audit(&self, how: Action) -> Result<(), StoreError> {
        let permitted = access::authorize(self.actor, access::Action::Read, Object::AuditLog);
        if permitted.is_err() {
            self.note(Event::new(how, "AuditEvent", "").outcome(Outcome::Denied));
        }
        Ok(permitted?)
    }

    /// Up to `count` entries of the audit about one patient, newest first: for that patient.
    pub fn access_record(&self, patient: &str, count: u32) -> Result<Vec<audit::Entry>, StoreError> {
        access::authorize(self.actor, access::Action::Read, Object::AccessRecord { patient })?;
        let filter = audit::Filter { patient: patient.to_owned(), ..audit::Filter::default() };
        let entries = audit::search(self.connection, &filter, count)?;
        self.note(Event::new(Action::Read, "AuditEvent", "").of_patient(patient).matches(entries.len() as u64));
        Ok(entries)
    }

    /// The entry where the audit's chain breaks, if it does. Walks the whole chain.
    pub fn audit_broken_at(&self) -> Result<Option<u64>, StoreError> {
        access::authorize(self.actor, access::Action::Read, Object::AuditLog)?;
        audit::broken_at(self.connection)
    }

    /// The attachments that were gone or rotten when the backup last looked and are so still, with the patients whose they are.
    /// For the practice's administrator, who sees whose they are and not what was in them.
    pub fn damaged_attachments(&self, attachments: &Attachments) -> Result<Vec<DamagedAttachment>, StoreError> {
        access::authorize(self.actor, access::Action::Read, Object::AuditLog)?;
        let mut found = Vec::new();
        for id in attachments.damaged_at_last_look() {
            let Some(row) = AttachmentRow::load(self.connection, &id)?.filter(|row| !attachments.is_whole(row)) else {
                continue;
            };
            let patient = resource::patient_id(self.connection, row.patient)?;
            found.push(DamagedAttachment {
                patient,
                media_type: row.media_type,
                bytes: row.bytes,
                created_ms: row.created_ms,
            });
        }
        Ok(found)
    }

    /// A patient's balance in cents: what is owed to the practice.
    pub fn balance_cents(&self, patient_id: &str) -> Result<i64, StoreError> {
        self.permit(access::Action::Read, "Account", patient_id)?;
        let rid = resource::patient_rid(self.connection, patient_id)?.ok_or(StoreError::NotFound)?;
        self.note(Event::new(Action::Read, "Account", "").of_patient(patient_id));
        let sql = "SELECT coalesce(sum(cents), 0) FROM ledger_entry WHERE account = 'receivable' AND patient = ?1";
        Ok(self.connection.prepare_cached(sql)?.query_row([rid], |row| row.get(0))?)
    }

    /// Tells the audit of something that this view's caller does with what it read, e.g. [`Action::Export`].
    pub fn note(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    /// Whether the actor may do this; nothing is audited.
    pub fn may(&self, action: access::Action, kind: &str) -> bool {
        access::authorize(self.actor, action, Object::resource(kind)).is_ok()
    }

    /// Authorizes, and tells the audit of a refusal.
    pub(super) fn permit(&self, action: access::Action, kind: &str, id: &str) -> Result<(), StoreError> {
        access::authorize(self.actor, action, Object::resource(kind)).map_err(|denied| {
            let action = if action == access::Action::Search { Action::Search } else { Action::Read };
            self.note(Event::new(action, kind, id).outcome(Outcome::Denied));
            denied.into()
        })
    }

    fn patient_of(&self, resource: &Resource) -> Result<String, StoreError> {
        resource::patient_id(self.connection, resource.patient)
    }
}
