//! Writing: one transaction on behalf of one actor.

use super::bound::Bounds;
use super::index::{self, ParamIds};
use super::ledger::{self, Posting};
use super::query::Query;
use super::resource::{self, Expect, Resource};
use super::search::{self, Page};
use super::{StoreError, Version, everything, history, outbox, person};
use crate::access::{self, Actor, Object};
use crate::attachments::{AttachmentRow, Staged};
use crate::audit::{self, Action, Event};
use crate::consents::decisions;
use crate::db::{Connection, OptionalExtension};
use crate::scheduling::occupancy;
use crate::{clock, fhir};
use serde_json::{Map, Value};

/// How the ids of insurance cards begin. By it registration reads them and nothing else of a record's files, whatever a
/// coverage says that it points to.
pub(super) const CARD: &str = "card-";

/// One transaction. Everything done through it commits together with its audit entries, or not at all.
pub struct Tx<'a> {
    pub(super) connection: &'a Connection,
    pub(super) params: &'a ParamIds,
    actor: &'a Actor,
    now_ms: i64,
    events: Vec<Event>,
    /// What is written came over the API.
    outside: bool,
}

impl<'a> Tx<'a> {
    pub(super) fn new(connection: &'a Connection, params: &'a ParamIds, actor: &'a Actor, now_ms: i64) -> Tx<'a> {
        Tx { connection, params, actor, now_ms, events: Vec::new(), outside: false }
    }

    /// Appends the audit entries; the transaction may commit only after this succeeded.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        self.events.iter().try_for_each(|event| audit::append(self.connection, self.actor, event, self.now_ms))
    }

    /// The open transaction, for tables that hold no records (accounts, sessions).
    pub fn connection(&self) -> &Connection {
        self.connection
    }

    fn bounds(&self) -> Bounds<'_> {
        Bounds { connection: self.connection, actor: self.actor, now_ms: self.now_ms }
    }

    /// From here on what is written came over the API: nobody was asked on a page whether they sign.
    pub fn from_outside(&mut self) {
        self.outside = true;
    }

    fn check_outside(&self, kind: &str, current: &Value, new: &Map<String, Value>) -> Result<(), StoreError> {
        if !self.outside {
            return Ok(());
        }
        let sql = "SELECT coalesce(practitioner, '') FROM account WHERE id = ?1";
        let own: Option<String> =
            self.connection.prepare_cached(sql)?.query_row([&self.actor.id], |row| row.get(0)).optional()?;
        let own = own.map(|id| format!("Practitioner/{id}"));
        fhir::signed::check_outside(kind, current, new, own.as_deref())
    }

    pub fn actor(&self) -> &Actor {
        self.actor
    }

    /// Time of this transaction, Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Stores a new resource under a new random id. `resourceType` must be `kind`; `id` and `meta` are set here.
    pub fn create(&mut self, kind: &str, body: Value) -> Result<Resource, StoreError> {
        let id = clock::new_id().map_err(StoreError::io("randomness"))?;
        self.insert(kind, &id, body)
    }

    /// Replaces a resource, or creates it under the client's id with [`Expect::Nothing`].
    ///
    /// # Errors
    /// [`StoreError::VersionConflict`] when somebody else changed it, [`StoreError::VersionRequired`] when it exists and
    /// the caller expected nothing, [`StoreError::NotFound`] when it does not exist and a version was expected.
    pub fn update(&mut self, kind: &str, id: &str, body: Value, expect: Expect) -> Result<Resource, StoreError> {
        let Some(Version { resource: current, deleted }) = history::current(self.connection, self.params, kind, id)?
        else {
            return match expect {
                Expect::Nothing => self.insert(kind, id, body),
                Expect::Version(_) => Err(StoreError::NotFound),
            };
        };
        match expect {
            // What was deleted comes back as its next version.
            Expect::Nothing if deleted => self.replace(current, body, access::Action::Create),
            Expect::Nothing => Err(StoreError::VersionRequired),
            Expect::Version(version) if current.version != version => {
                Err(StoreError::VersionConflict { current: current.version })
            }
            Expect::Version(_) => self.replace(current, body, access::Action::Update),
        }
    }

    /// Ends a resource: it is found and read no more, and its versions are kept. Gives the version that says so.
    ///
    /// # Errors
    /// [`StoreError::Referred`] while another record, a file or the ledger refers to it: nothing is left pointing nowhere.
    pub fn delete(&mut self, kind: &str, id: &str, version: Option<u32>) -> Result<u32, StoreError> {
        if let Err(denied) = access::authorize(self.actor, access::Action::Delete, Object::resource(kind)) {
            return Err(denied.into());
        }
        let Version { resource: current, deleted } =
            history::current(self.connection, self.params, kind, id)?.ok_or(StoreError::NotFound)?;
        self.bounds().check(access::Action::Delete, kind, current.patient)?;
        self.bounds().may_reach(access::Action::Delete, &current)?;
        if version.is_some_and(|version| version != current.version) {
            return Err(StoreError::VersionConflict { current: current.version });
        }
        if deleted {
            return Ok(current.version);
        }
        if everything::is_referred_to(self.connection, self.params, &current)? {
            return Err(StoreError::Referred);
        }
        let body = current.json()?;
        fhir::signed::check_delete(kind, &body)?;
        let patient = resource::patient_id(self.connection, current.patient)?;
        let next = current.version.checked_add(1).ok_or(StoreError::Damaged("version"))?;
        self.supersede(&current)?;
        index::remove(self.connection, self.params, kind, (current.rid, current.patient), &body)?;
        let sql =
            "UPDATE resource SET version = ?2, updated_ms = ?3, deleted = 1, body = '', digest = ?4 WHERE rid = ?1";
        let digest = resource::body_digest("");
        self.connection.prepare_cached(sql)?.execute((current.rid, next, self.now_ms, digest))?;
        self.note(Event::new(Action::Delete, kind, id).of_patient(&patient));
        Ok(next)
    }

    /// The one resource that a condition finds; `None` for none.
    ///
    /// # Errors
    /// [`StoreError::Several`] when there is more than one.
    pub fn matching(&mut self, kind: &str, pairs: &[(String, String)]) -> Result<Option<Resource>, StoreError> {
        if pairs.is_empty() {
            return Err(StoreError::invalid("is not a query", "condition"));
        }
        let mut found = self.search(&Query::parse(kind, pairs)?.first(2, "_id")?)?.resources;
        if found.len() > 1 {
            return Err(StoreError::Several);
        }
        let found = found.pop();
        if let Some(found) = &found {
            // Who asks by a condition is told what met it.
            self.note_change(Action::Read, found)?;
        }
        Ok(found)
    }

    /// The current version, to decide what to write; audited by the write that follows.
    pub fn read(&self, kind: &str, id: &str) -> Result<Resource, StoreError> {
        access::authorize(self.actor, access::Action::Read, Object::resource(kind))?;
        let found = resource::load(self.connection, kind, id)?.ok_or(StoreError::NotFound)?;
        self.bounds().may_read(&found)?;
        Ok(found)
    }

    /// A search to decide what to write, e.g. whether an appointment overlaps another.
    pub fn search(&self, query: &Query) -> Result<Page, StoreError> {
        let permit = |kind: &str| access::authorize(self.actor, access::Action::Search, Object::resource(kind));
        permit(query.kind())?;
        query.chained_kinds().try_for_each(permit)?;
        let narrowed = self.bounds().search(query)?;
        let mut page = search::run(self.connection, self.params, narrowed.as_ref().unwrap_or(query))?;
        self.bounds().keep_readable(query.kind(), &mut page.resources, |found| found);
        Ok(page)
    }

    /// Appointments that begin in `[from_ms, until_ms)`, by start, then id: for the overlap check of a booking.
    pub fn appointments_between(&self, from_ms: i64, until_ms: i64) -> Result<Vec<Resource>, StoreError> {
        access::authorize(self.actor, access::Action::Search, Object::resource("Appointment"))?;
        super::chart::appointments_between(self.connection, self.params, from_ms, until_ms)
    }

    /// Carries out a FHIR transaction bundle and returns the response bundle.
    pub fn transaction(&mut self, bundle: Value) -> Result<Value, StoreError> {
        fhir::transaction::run(self, bundle)
    }

    /// Makes staged bytes an attachment; its id is the id of a `Binary`. `patient` is whose record it belongs to.
    pub fn attach(&mut self, staged: &Staged, patient: Option<&str>) -> Result<AttachmentRow, StoreError> {
        let id = clock::new_id().map_err(StoreError::io("randomness"))?;
        self.attach_as(&id, staged, patient)
    }

    /// [`Tx::attach`] under an id of the caller's choice.
    pub fn attach_as(&mut self, id: &str, staged: &Staged, patient: Option<&str>) -> Result<AttachmentRow, StoreError> {
        access::authorize(self.actor, access::Action::Create, Object::resource("Binary"))?;
        let rid = match patient {
            Some(patient) => resource::patient_rid(self.connection, patient)?.ok_or(StoreError::NotFound)?,
            None => 0,
        };
        self.bounds().check(access::Action::Create, "Binary", rid)?;
        let row = AttachmentRow::insert(self.connection, id, staged, rid, self.now_ms)?;
        self.note(Event::new(Action::Attach, "Binary", id).of_patient(patient.unwrap_or_default()));
        Ok(row)
    }

    /// Makes a staged picture a side of an insurance card: for registration, which may write no other file.
    pub fn attach_card(&mut self, staged: &Staged, patient: &str) -> Result<AttachmentRow, StoreError> {
        access::authorize(self.actor, access::Action::Create, Object::resource("Coverage"))?;
        let rid = resource::patient_rid(self.connection, patient)?.ok_or(StoreError::NotFound)?;
        self.bounds().check(access::Action::Create, "Coverage", rid)?;
        let id = format!("{CARD}{}", clock::new_id().map_err(StoreError::io("randomness"))?);
        let row = AttachmentRow::insert(self.connection, &id, staged, rid, self.now_ms)?;
        self.note(Event::new(Action::Attach, "Coverage", &id).of_patient(patient));
        Ok(row)
    }

    /// Posts to the ledger.
    pub fn post(&mut self, posting: &Posting) -> Result<(), StoreError> {
        access::authorize(self.actor, access::Action::Create, Object::resource("Account"))?;
        ledger::post(self.connection, &self.actor.id, posting, self.now_ms)?;
        self.note(Event::new(Action::Post, "Account", &posting.reference).of_patient(&posting.patient));
        Ok(())
    }

    /// Queues a message that is sent after the commit.
    pub fn queue(&mut self, channel: &str, payload: &str) -> Result<(), StoreError> {
        outbox::queue(self.connection, channel, payload, self.now_ms)
    }

    /// Adds an entry of the caller's to the audit: login, logout, a changed user, a signature.
    pub fn note(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn audit_all(&mut self, events: Vec<Event>) -> Result<(), StoreError> {
        self.events = events;
        Ok(())
    }

    pub(super) fn canary(&mut self) -> Result<(), StoreError> {
        self.connection.prepare_cached("INSERT INTO canary (at_ms) VALUES (?1)")?.execute([self.now_ms])?;
        Ok(())
    }

    /// Remembers a value about the data itself, such as the practice's time zone; not for records.
    pub fn remember(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        let sql =
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.connection.prepare_cached(sql)?.execute((key, value))?;
        Ok(())
    }

    fn insert(&mut self, kind: &str, id: &str, body: Value) -> Result<Resource, StoreError> {
        access::authorize(self.actor, access::Action::Create, Object::resource(kind))?;
        let type_id =
            self.params.type_id(kind).ok_or_else(|| StoreError::invalid("this type is not kept here", kind))?;
        fhir::check_id(id)?;
        let element = fhir::check(kind, body)?;
        self.check_outside(kind, &Value::Null, &element)?;
        let body = encode(element, id, 1, self.now_ms)?;
        let value = Value::Object(body.0);
        let sql = "INSERT INTO resource (type, id, version, updated_ms, patient, body, digest) \
                   VALUES (?1, ?2, 1, ?3, 0, ?4, ?5)";
        let digest = resource::body_digest(&body.1);
        let rid = self.connection.insert("rid", sql, (type_id, id, self.now_ms, &body.1, digest))?;
        let patient = self.compartment(kind, rid, &value)?;
        self.bounds().check_all(access::Action::Create, kind, patient, &value)?;
        self.check_goes_on(kind, patient, &value)?;
        self.connection
            .prepare_cached("UPDATE resource SET patient = ?2 WHERE rid = ?1 AND patient <> ?2")?
            .execute((rid, patient))?;
        index::insert(self.connection, self.params, kind, (rid, patient), &value)?;
        self.settle(kind, (rid, patient), id, (&Value::Null, &value))?;
        let stored = Resource {
            rid,
            kind: kind.to_owned(),
            id: id.to_owned(),
            version: 1,
            updated_ms: self.now_ms,
            patient,
            body: body.1,
        };
        self.note_change(Action::Create, &stored)?;
        Ok(stored)
    }

    /// Puts the next version in place of `current`, which may be a deletion.
    fn replace(&mut self, current: Resource, body: Value, action: access::Action) -> Result<Resource, StoreError> {
        access::authorize(self.actor, action, Object::resource(&current.kind))?;
        let element = fhir::check(&current.kind, body)?;
        let replaced = if current.body.is_empty() { Value::Null } else { current.json()? };
        fhir::signed::check(&current.kind, &replaced, &element)?;
        self.check_outside(&current.kind, &replaced, &element)?;
        let version = current.version.checked_add(1).ok_or(StoreError::Damaged("version"))?;
        let body = encode(element, &current.id, version, self.now_ms)?;
        let value = Value::Object(body.0);
        let patient = self.compartment(&current.kind, current.rid, &value)?;
        // Neither out of the compartment nor into it.
        for (compartment, body) in [(current.patient, &replaced), (patient, &value)] {
            self.bounds().check_all(action, &current.kind, compartment, body)?;
        }
        if patient != current.patient || action == access::Action::Create {
            self.check_goes_on(&current.kind, patient, &value)?;
        }
        self.supersede(&current)?;
        let sql = "UPDATE resource SET version = ?2, updated_ms = ?3, patient = ?4, body = ?5, digest = ?6, deleted = 0 \
                   WHERE rid = ?1";
        let digest = resource::body_digest(&body.1);
        self.connection.prepare_cached(sql)?.execute((current.rid, version, self.now_ms, patient, &body.1, digest))?;
        index::remove(self.connection, self.params, &current.kind, (current.rid, current.patient), &replaced)?;
        index::insert(self.connection, self.params, &current.kind, (current.rid, patient), &value)?;
        self.settle(&current.kind, (current.rid, patient), &current.id, (&replaced, &value))?;
        let stored = Resource { version, updated_ms: self.now_ms, patient, body: body.1, ..current };
        self.note_change(Action::Update, &stored)?;
        Ok(stored)
    }

    /// What is drawn from a resource that was just stored, beside its index; `before` is the version that it replaced.
    fn settle(
        &mut self,
        kind: &str,
        (rid, patient): (i64, i64),
        id: &str,
        (before, value): (&Value, &Value),
    ) -> Result<(), StoreError> {
        match kind {
            "Appointment" => {
                occupancy::check_times(value)?;
                occupancy::check_open(self, before, value)?;
                occupancy::settle(self, rid, id, value)?;
                // Pages have asked already.
                if self.outside { occupancy::check_hours(self, id, before, value) } else { Ok(()) }
            }
            "Consent" => decisions::redraw(self.connection, patient),
            "Patient" if before.get("link") != value.get("link") => self.settle_links(patient, before),
            _ => Ok(()),
        }
    }

    /// What was decided in one of a person's records was decided by the same person; in one that was let go it no longer was.
    fn settle_links(&self, patient: i64, before: &Value) -> Result<(), StoreError> {
        self.check_links(patient)?;
        decisions::redraw(self.connection, patient)?;
        for (_, other) in person::merges(before) {
            if let Some(other) = resource::patient_rid(self.connection, other)? {
                decisions::redraw(self.connection, other)?;
            }
        }
        Ok(())
    }

    fn supersede(&self, current: &Resource) -> Result<(), StoreError> {
        let sql = "INSERT INTO history (rid, version, updated_ms, body) VALUES (?1, ?2, ?3, ?4)";
        let row = (current.rid, current.version, current.updated_ms, &current.body);
        self.connection.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    fn note_change(&mut self, action: Action, stored: &Resource) -> Result<(), StoreError> {
        let patient = resource::patient_id(self.connection, stored.patient)?;
        self.note(Event::new(action, &stored.kind, &stored.id).of_patient(&patient));
        Ok(())
    }

    /// Row of the patient in whose compartment `value` is. A reference to a patient who is not here is refused: the
    /// resource would be in no chart.
    fn compartment(&self, kind: &str, rid: i64, value: &Value) -> Result<i64, StoreError> {
        if kind == "Patient" {
            return Ok(rid);
        }
        match index::patient_reference(value) {
            None => Ok(0),
            Some(id) => resource::patient_rid(self.connection, &id)?
                .ok_or_else(|| StoreError::invalid("refers to a patient who is not here", kind)),
        }
    }
}

/// Sets `id`, `meta.versionId` and `meta.lastUpdated`, and gives the element with its canonical bytes.
fn encode(
    element: Map<String, Value>,
    id: &str,
    version: u32,
    now_ms: i64,
) -> Result<(Map<String, Value>, String), StoreError> {
    let mut out = Map::with_capacity(element.len() + 2);
    let mut meta = match element.get("meta") {
        Some(Value::Object(meta)) => meta.clone(),
        _ => Map::new(),
    };
    meta.insert("versionId".into(), version.to_string().into());
    meta.insert("lastUpdated".into(), clock::instant(now_ms).into());
    // resourceType, id and meta come first; the rest keeps the client's order.
    out.insert("resourceType".into(), element.get("resourceType").cloned().unwrap_or_default());
    out.insert("id".into(), id.into());
    out.insert("meta".into(), meta.into());
    for (name, value) in element {
        if !matches!(name.as_str(), "resourceType" | "id" | "meta") {
            out.insert(name, value);
        }
    }
    let body = serde_json::to_string(&out).map_err(|_| StoreError::invalid("cannot be written as JSON", ""))?;
    Ok((out, body))
}
