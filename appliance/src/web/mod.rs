//! The pages, and the gate in front of everything that the service answers over HTTPS.
//!
//! [`app`] builds the whole router from tables of [`Route`]s: the pages' own and those of the FHIR API.

mod account;
mod apps;
mod assets;
mod audit;
mod chart;
mod clinical;
mod consents;
mod cosign;
mod coverage;
pub mod current;

mod documents;
mod downtime;
mod duplicates;
mod encounters;
mod error;
mod export;
mod fields;
pub mod form;
mod forms;
mod gate;
mod keys;
mod known;
mod layout;
mod login;
mod look_back;
mod merge;
pub mod merged;
mod moving;
mod online;
pub mod paging;
mod patients;
mod portal;
mod practice;
pub(crate) mod reading;
pub(crate) mod registration;
pub mod route;
mod schedule;
mod sessions;
mod users;

#[cfg(test)]
mod account_tests;
#[cfg(test)]
mod cosign_tests;
#[cfg(test)]
mod keys_tests;
#[cfg(test)]
mod login_tests;
#[cfg(test)]
mod look_back_tests;
#[cfg(test)]
mod moving_tests;
#[cfg(test)]
mod person_tests;
#[cfg(test)]
mod safety_tests;
#[cfg(test)]
mod sessions_tests;
#[cfg(test)]
mod tests;

pub use error::PageError;
pub use gate::{CSRF_HEADER, Visit};
pub use route::{Method, Policy, Route, Surface, Target};

use crate::access::Actor;
use crate::access::accounts::AccountError;
use crate::access::webauthn::keys::Questions;
use crate::dates;
use crate::fhir::outcome::Outcome;
use crate::store::Store;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use gate::Door;
use http::{StatusCode, Uri};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// argon2id takes 64 MiB and 0.1 s: more at once would let a stranger exhaust the machine.
const PASSWORD_CHECKS_MAX: usize = 2;

/// What the pages need from the settings file.
#[derive(Clone, Debug)]
pub struct Settings {
    pub practice_name: String,
    /// What stands below the name on letters; lines, or empty.
    pub practice_address: String,
    pub practice_phone: String,
    /// All dates are shown and entered in this zone.
    pub zone: chrono_tz::Tz,
    /// Seconds without a request after which a session locks.
    pub idle_lock_s: i64,
    /// The addresses (`https://name:port`) under which the service is reached, the first in links.
    pub bases: Vec<String>,
    /// The address of the patient portal; `None` where it is off.
    pub portal: Option<String>,
    /// Whether mail can leave.
    pub has_mail: bool,
    /// The downtime pack; `None` for none.
    pub downtime: Option<crate::downtime::Plan>,
    /// Records as they were in snapshots; `None` where there is no way to ask for them.
    pub look_back: Option<crate::look_back::Desk>,
}

/// The state of the pages. Cheap to clone.
#[derive(Clone)]
pub struct Web(Arc<Inner>);

struct Inner {
    store: Store,
    settings: Settings,
    password_checks: Semaphore,
    /// What people with keys were asked and have not answered.
    questions: Questions,
    known: known::Known,
    /// Verified against when the user does not exist, so that the time of an answer does not tell.
    decoy_hash: String,
}

impl Web {
    /// Hashes one password: takes about 0.1 s.
    pub fn new(store: Store, settings: Settings) -> Self {
        let decoy_hash = service::auth::hash_password(&service::auth::random_token());
        let (password_checks, questions) = (Semaphore::new(PASSWORD_CHECKS_MAX), Questions::default());
        let known = known::Known::default();
        Self(Arc::new(Inner { store, settings, password_checks, questions, known, decoy_hash }))
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn known(&self) -> &known::Known {
        &self.0.known
    }

    fn questions(&self) -> &Questions {
        &self.0.questions
    }

    /// Unix seconds.
    pub fn now(&self) -> i64 {
        self.0.store.clock().unix_ms() / 1000
    }

    /// This moment as a FHIR instant.
    fn now_fhir(&self) -> String {
        crate::clock::instant(self.0.store.clock().unix_ms())
    }

    /// Writes to the tables of accounts and sessions.
    async fn write_accounts<T: Send + 'static>(
        &self,
        actor: &Actor,
        job: impl FnOnce(&crate::db::Connection) -> Result<T, AccountError> + Send + 'static,
    ) -> Result<T, AccountError> {
        self.0.store.write(actor, move |tx| job(tx.connection())).await
    }

    /// Checks a password away from the async threads; `hash` of `None` takes as long and is always wrong.
    async fn check_password(&self, password: String, hash: Option<String>) -> bool {
        let Ok(_place) = self.0.password_checks.acquire().await else { return false };
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.0.decoy_hash.clone());
        let check = move || service::auth::verify_password(&password, &hash);
        tokio::task::spawn_blocking(check).await.unwrap_or(false) && known
    }

    async fn hash_password(&self, password: String) -> Option<String> {
        let _place = self.0.password_checks.acquire().await.ok()?;
        tokio::task::spawn_blocking(move || service::auth::hash_password(&password)).await.ok()
    }
}

/// The pages' route table.
pub fn routes(web: &Web) -> Vec<Route> {
    [
        assets::routes(web),
        login::routes(web),
        patients::routes(web),
        portal::desk::routes(web),
        duplicates::routes(web),
        chart::routes(web),
        encounters::routes(web),
        documents::routes(web),
        schedule::routes(web),
        clinical::routes(web),
        forms::routes(web),
        cosign::routes(web),
        consents::routes(web),
        users::routes(web),
        sessions::routes(web),
        account::routes(web),
        keys::routes(web),
        apps::routes(web),
        practice::routes(web),
        moving::routes(web),
        coverage::routes(web),
        downtime::routes(web),
        export::routes(web),
        audit::routes(web),
        look_back::routes(web),
    ]
    .concat()
}

/// The service's whole router: the pages and `more` (the FHIR API), every handler behind the gate of its policy.
pub fn app(web: &Web, more: Vec<Route>) -> Router {
    let table = [routes(web), more].concat();
    route::router(web, Door::Staff, table)
        .fallback(|uri: Uri| async move { lost(&uri, PageError::NotFound) })
        .method_not_allowed_fallback(|uri: Uri| async move { lost(&uri, PageError::Method) })
        .layer(from_fn_with_state(web.store().clone(), crate::fhir::cors::allow))
}

/// The public pages' route table.
pub fn public_routes(web: &Web) -> Vec<Route> {
    [assets::routes(web), online::routes(web)].concat()
}

/// The router of the public listener: online booking and static files, nothing of the staff's.
pub fn public_app(web: &Web) -> Router {
    route::router(web, Door::Public, public_routes(web))
        .route("/", axum::routing::get(|| async { login::redirect("/book") }))
        .fallback(|uri: Uri| async move { lost(&uri, PageError::NotFound) })
        .method_not_allowed_fallback(|uri: Uri| async move { lost(&uri, PageError::Method) })
}

/// The portal's route table.
pub fn portal_routes(web: &Web) -> Vec<Route> {
    [assets::routes(web), portal::routes(web)].concat()
}

/// The router of the patients' listener.
pub fn portal_app(web: &Web) -> Router {
    route::router(web, Door::Patients, portal_routes(web))
        .fallback(|uri: Uri| async move { lost(&uri, PageError::NotFound) })
        .method_not_allowed_fallback(|uri: Uri| async move { lost(&uri, PageError::Method) })
}

/// What no route answers: a program gets an outcome, a person a page.
fn lost(uri: &Uri, page: PageError) -> Response {
    let below = uri.path().strip_prefix(crate::fhir::http::BASE);
    if !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return gate::finish(page.into_response());
    }
    let outcome = match page {
        PageError::Method => {
            Outcome::new(StatusCode::METHOD_NOT_ALLOWED, "not-supported", "this address does not answer this method")
        }
        _ => Outcome::new(StatusCode::NOT_FOUND, "not-found", "there is nothing at this address"),
    };
    gate::finish(outcome.into_response())
}
