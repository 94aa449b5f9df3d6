//! Within what an actor acts: the patient to whom a grant is bound, beside whom nobody is there for it; and the patients whose
//! consent keeps it out.

use super::StoreError;
use super::query::Query;
use super::resource::{self, Resource};
use crate::access::{Action, Actor, Denied, Governs, Object, authorize, policy};
use crate::consents::decisions::Withheld;
use crate::db::Connection;

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

    /// [`Bounds::check`] for reading a resource. A provenance is in no compartment of its own, and tells of what it is about.
    pub fn may_read(&self, found: &Resource) -> Result<(), StoreError> {
        self.check(Action::Read, &found.kind, found.patient)?;
        if found.kind != "Provenance" || found.body.is_empty() || Governs::of(self.actor).is_none() {
            return Ok(());
        }
        let body = found.json()?;
        let targets = body.get("target").and_then(serde_json::Value::as_array).into_iter().flatten();
        let references = targets.filter_map(|target| target.get("reference")?.as_str()?.split_once('/'));
        for (kind, id) in references {
            let id = id.split('/').next().unwrap_or(id);
            if let Some(target) = resource::load(self.connection, kind, id)? {
                self.check(Action::Read, kind, target.patient)?;
            }
        }
        Ok(())
    }

    /// Takes out what [`Bounds::may_read`] refuses and no compartment tells.
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
