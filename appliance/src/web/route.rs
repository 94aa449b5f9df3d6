//! The route table. A handler reaches the network only inside a [`Route`], and a [`Route`] needs a [`Policy`]: there is no
//! constructor without one, and [`super::app`] accepts nothing else.

use super::{Web, gate};
use crate::access::{Action, Actor, Denied, Object, authorize};
use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};

/// The methods that the service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Patch => MethodFilter::PATCH,
            Method::Delete => MethodFilter::DELETE,
        }
    }
}

/// What a route is about, for [`Policy::Permits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Resource(&'static str),
    AuditLog,
    Users,
    /// All that the practice has.
    Practice,
}

impl Target {
    fn object(self) -> Object<'static> {
        match self {
            Target::Resource(kind) => Object::resource(kind),
            Target::AuditLog => Object::AuditLog,
            Target::Users => Object::Users,
            Target::Practice => Object::Practice,
        }
    }
}

/// Who may reach a handler. The store decides again for the very resource and its patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Anybody: login, invitation, static files, capability statement.
    Public,
    /// Whoever has a session, locked or not: unlock, lock, log out.
    AnySession,
    /// Every member of staff with an open session.
    LoggedIn,
    /// Roles that may do this.
    Permits(Action, Target),
    /// FHIR: any open session; the handler authorizes each resource type that a request names.
    PerResource,
}

impl Policy {
    /// Decides before the handler runs.
    ///
    /// # Errors
    /// As [`authorize`].
    pub fn check(self, actor: &Actor) -> Result<(), Denied> {
        match self {
            Policy::Public => authorize(actor, Action::Read, Object::Public),
            Policy::AnySession | Policy::LoggedIn | Policy::PerResource => {
                authorize(actor, Action::Read, Object::OwnSession)
            }
            Policy::Permits(action, target) => authorize(actor, action, target.object()),
        }
    }
}

/// How a route's requests are protected against forgery, and what a refusal looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Surface {
    /// HTML: the CSRF token travels in the form or a header; the gate reads the form; refusals are pages.
    Page,
    /// FHIR JSON: the CSRF token travels in the header `x-csrf-token`; refusals are `OperationOutcome`s.
    Fhir,
}

/// A handler with its method, path and policy.
#[derive(Clone)]
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub policy: Policy,
    pub surface: Surface,
    handler: MethodRouter,
}

impl Route {
    /// A page.
    pub fn new<H, T, S>(method: Method, path: &'static str, policy: Policy, handler: H, state: S) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
        S: Clone + Send + Sync + 'static,
    {
        Self { method, path, policy, surface: Surface::Page, handler: on(method.filter(), handler).with_state(state) }
    }

    /// An endpoint of the FHIR API.
    pub fn fhir<H, T, S>(method: Method, path: &'static str, policy: Policy, handler: H, state: S) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
        S: Clone + Send + Sync + 'static,
    {
        Self { surface: Surface::Fhir, ..Self::new(method, path, policy, handler, state) }
    }
}

/// The router of a table on one listener: every handler behind its own gate.
pub(super) fn router(web: &Web, door: gate::Door, routes: Vec<Route>) -> Router {
    routes.into_iter().fold(Router::new(), |router, route| {
        let rule = gate::Rule { web: web.clone(), door, policy: route.policy, surface: route.surface };
        router.route(route.path, route.handler.layer(from_fn_with_state(rule, gate::gate)))
    })
}
