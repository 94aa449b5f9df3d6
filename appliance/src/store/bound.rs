//! Within what an actor acts: the patient to whom a grant is bound, beside whom nobody is there for it; and the patients whose
//! consent keeps it out.

use super::StoreError;
use super::query::Query;
use super::resource::{self, Resource};
use crate::access::{Action, Actor, Denied, Governs, Object, authorize, policy};
use crate::consents::decisions::Withheld;
use crate::db::Connection;
use crate::fhir::compartment;
use serde_json::Value;

/// An actor at a moment, before the records.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub connection: &'a Connection,
    pub actor: &'a Actor,
    pub now_ms: i64,
}

impl<'a> Bounds<'a> {
    /// The patient to whom the actor is bound in doing this; `None` for everybody who is not bound. What is the same for all
    /// patients (the directory, definitions, medications) is read by whoever may read it.
    pub fn patient(&self, action: Action, kind: &str) -> Option<&'a str> {
        let shared = matches!(action, Action::Read | Action::Search) && policy::is_shared(kind);
        self.actor.grant.as_ref().filter(|_| !shared)?.bound(action, kind)
    }

    /// Whose records are kept from the actor; `None` for whom no consent holds.
    pub fn withheld(&self) -> Result<Option<Withheld>, StoreError> {
        Governs::of(self.actor).map(|governs| Withheld::load(self.connection, governs, self.now_ms)).transpose()
    }

    /// Refuses a resource in another compartment as one that does not exist, and one of a patient who keeps the actor out by
    /// saying so.
    pub fn check(&self, action: Action, kind: &str, compartment: i64) -> Result<(), StoreError> {
        if let Some(id) = self.patient(action, kind) {
            let own = resource::patient_rid(self.connection, id)?.filter(|own| *own == compartment && *own != 0);
            own.map(drop).ok_or(StoreError::NotFound)?;
        }
        // Somebody who is entered this moment was not asked yet.
        let fresh = kind == "Patient" && action == Action::Create;
        match Governs::of(self.actor) {
            Some(governs) if !fresh && self.keeps_out(compartment)? => {
                Ok(authorize(self.actor, action, Object::withheld(kind, governs))?)
            }
            _ => Ok(()),
        }
    }

    /// Whether the patient in this row keeps the actor out.
    pub fn keeps_out(&self, compartment: i64) -> Result<bool, StoreError> {
        match self.withheld()? {
            Some(withheld) if compartment != 0 => withheld.of(self.connection, compartment),
            _ => Ok(false),
        }
    }

    /// [`Bounds::check`] for a resource with this body, and refuses one that belongs to somebody else as well who keeps the actor out.
    pub fn check_all(&self, action: Action, kind: &str, compartment: i64, body: &Value) -> Result<(), StoreError> {
        self.check(action, kind, compartment)?;
        match (Governs::of(self.actor), self.kept_beside(kind, compartment, body)?) {
            (Some(governs), Some(_)) => Ok(authorize(self.actor, action, Object::withheld(kind, governs))?),
            _ => Ok(()),
        }
    }

    /// Who keeps the actor out of a resource beside the patient in whose compartment it is, of all to whom it belongs or of whom it
    /// tells: their row.
    pub fn kept_beside(&self, kind: &str, compartment: i64, body: &Value) -> Result<Option<i64>, StoreError> {
        let Some(withheld) = self.withheld()? else { return Ok(None) };
        let mut whose = Vec::new();
        if withheld.heeds_all() {
            for reference in compartment::patients(kind, body) {
                let id = reference.strip_prefix("Patient/").unwrap_or(reference);
                whose.extend(resource::patient_rid(self.connection, id)?);
            }
        }
        if kind == "Provenance" {
            whose.extend(self.told_of(body)?);
        }
        for row in whose.into_iter().filter(|row| *row != 0 && *row != compartment) {
            if withheld.of(self.connection, row)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// In whose compartments stands what a provenance is about: it is in none of its own, and tells of that.
    fn told_of(&self, provenance: &Value) -> Result<Vec<i64>, StoreError> {
        let targets = provenance.get("target").and_then(Value::as_array).into_iter().flatten();
        let references = targets.filter_map(|target| target.get("reference")?.as_str()?.split_once('/'));
        let mut rows = Vec::new();
        for (kind, id) in references {
            let id = id.split('/').next().unwrap_or(id);
            rows.extend(resource::load(self.connection, kind, id)?.map(|target| target.patient));
        }
        Ok(rows)
    }

    /// [`Bounds::check_all`] for a resource as it is.
    pub fn may_reach(&self, action: Action, found: &Resource) -> Result<(), StoreError> {
        if found.body.is_empty() || Governs::of(self.actor).is_none() {
            return self.check(action, &found.kind, found.patient);
        }
        self.check_all(action, &found.kind, found.patient, &found.json()?)
    }

    /// [`Bounds::may_reach`] for reading.
    pub fn may_read(&self, found: &Resource) -> Result<(), StoreError> {
        self.may_reach(Action::Read, found)
    }

    /// Takes out what [`Bounds::may_read`] refuses and the index does not tell.
    pub fn keep_readable<T>(&self, kind: &str, all: &mut Vec<T>, of: impl Fn(&T) -> &Resource) {
        if kind == "Provenance" && Governs::of(self.actor).is_some() {
            all.retain(|one| self.may_read(of(one)).is_ok());
        }
    }

    /// The search within these bounds; `None` where there are none.
    ///
    /// # Errors
    /// [`Denied::NotPermitted`] for a chain into records of patients other than through the patient: it would tell what they hold.
    pub fn search(&self, query: &Query) -> Result<Option<Query>, StoreError> {
        let chained =
            query.chained_kinds().find(|kind| *kind != "Patient" && self.patient(Action::Search, kind).is_some());
        if chained.is_some() {
            return Err(Denied::NotPermitted.into());
        }
        let bound = self.patient(Action::Search, query.kind());
        let withheld = self.withheld()?;
        if bound.is_none() && withheld.is_none() {
            return Ok(None);
        }
        let narrowed = query.clone().without(withheld);
        Ok(Some(match bound {
            Some(id) => narrowed.of_patient(id),
            None => narrowed,
        }))
    }
}
