//! The patient to whom a program's grant is bound: what lies outside that compartment is not there for it.

use super::StoreError;
use super::query::Query;
use super::resource::{self, Resource};
use crate::access::{Action, Actor, Denied, policy};
use crate::db::Connection;

/// The patient to whom `actor` is bound in doing this; `None` for everybody who is not bound. What is the same for all
/// patients (the directory, definitions, medications) is read by whoever may read it.
pub(super) fn patient<'a>(actor: &'a Actor, action: Action, kind: &str) -> Option<&'a str> {
    let shared = matches!(action, Action::Read | Action::Search) && policy::is_shared(kind);
    actor.grant.as_ref().filter(|_| !shared)?.bound(action, kind)
}

/// Refuses a resource in another compartment as one that does not exist.
pub(super) fn check(
    connection: &Connection,
    actor: &Actor,
    action: Action,
    kind: &str,
    compartment: i64,
) -> Result<(), StoreError> {
    let Some(id) = patient(actor, action, kind) else { return Ok(()) };
    let own = resource::patient_rid(connection, id)?.filter(|own| *own == compartment && *own != 0);
    own.map(drop).ok_or(StoreError::NotFound)
}

/// [`check`] for reading a resource.
pub(super) fn may_read(connection: &Connection, actor: &Actor, found: &Resource) -> Result<(), StoreError> {
    check(connection, actor, Action::Read, &found.kind, found.patient)
}

/// The search within the bounds of the actor's grant, where it has any.
///
/// # Errors
/// [`Denied::NotPermitted`] for a chain into records of patients other than through the patient: it would tell what they hold.
pub(super) fn search(actor: &Actor, query: &Query) -> Result<Option<Query>, StoreError> {
    let chained =
        query.chained_kinds().find(|kind| *kind != "Patient" && patient(actor, Action::Search, kind).is_some());
    if chained.is_some() {
        return Err(Denied::NotPermitted.into());
    }
    Ok(patient(actor, Action::Search, query.kind()).map(|id| query.clone().of_patient(id)))
}
