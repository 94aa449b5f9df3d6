//! Every route of the console with the rule for who may use it. A [`Route`] cannot be written without a [`Policy`], and
//! nothing else in this crate adds a handler to the server.

use crate::app::App;
use crate::pages::{alerts, assets, deletions, hosts, invite, posture, record, reports, sign_in, snapshots, start};
use crate::roles::Action;
use crate::web::{Answer, Call, dispatch, not_found};
use axum::Router;
use axum::extract::Request;
use axum::routing::{MethodFilter, on};
use futures::future::BoxFuture;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Anybody, and why.
    Public(&'static str),
    SignedIn,
    May(Action),
}

pub type Handler = fn(Call) -> BoxFuture<'static, Answer>;

pub struct Route {
    pub verb: Verb,
    pub path: &'static str,
    pub policy: Policy,
    pub handler: Handler,
}

macro_rules! routes {
    ($($verb:ident $path:literal $policy:expr => $($handler:ident)::+;)*) => {
        &[$(Route {
            verb: Verb::$verb,
            path: $path,
            policy: $policy,
            handler: |call| Box::pin($($handler)::+(call)),
        }),*]
    };
}

use Action::*;
use Policy::{May, Public, SignedIn};

pub const ROUTES: &[Route] = routes! {
    Get "/assets/{name}" Public("style sheet and script hold nothing of the practice") => assets::show;
    Get "/sign-in" Public("who is not signed in yet") => sign_in::show;
    Post "/sign-in" Public("who is not signed in yet") => sign_in::enter;
    Get "/invite/{token}" Public("the token is the permission") => invite::show;
    Post "/invite/{token}" Public("the token is the permission") => invite::accept;
    Post "/sign-out" SignedIn => sign_in::leave;
    Get "/" May(SeePosture) => posture::show;
    Post "/start/backup" May(StartBackup) => start::backup;
    Post "/start/drill" May(StartDrill) => start::drill;
    Get "/snapshots" May(SeeSnapshots) => snapshots::show;
    Get "/reports" May(SeeReports) => reports::list;
    Get "/reports/{id}" May(SeeReports) => reports::show;
    Get "/reports/{id}/file/{name}" May(DownloadEvidence) => reports::file;
    Get "/reports/{id}/evidence.tar" May(DownloadEvidence) => reports::tar;
    Post "/reports/{id}/approval" May(ApproveReport) => reports::approve;
    Post "/approval-key" May(ApproveReport) => reports::enrol;
    Get "/deletions" May(SeeDeletions) => deletions::show;
    Get "/deletions/plan.json" May(SeeDeletions) => deletions::document;
    Post "/deletions/plan" May(PlanDeletion) => start::plan;
    Post "/deletions/decision" May(DecideDeletion) => deletions::decide;
    Get "/hosts" May(SeeHealth) => hosts::show;
    Get "/alerts" May(SeeAlerts) => alerts::show;
    Post "/alerts/{id}/acknowledge" May(AcknowledgeAlert) => alerts::acknowledge;
    Post "/alerts/test" May(TestAlert) => alerts::test;
    Get "/record" May(SeeAudit) => record::show;
    Get "/accounts" May(SeeAccounts) => record::accounts;
};

pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let filter = match route.verb {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
        };
        let app = app.clone();
        router = router.route(route.path, on(filter, move |request: Request| dispatch(app, route, request)));
    }
    router.fallback(move |request: Request| not_found(app, request))
}
