//! Consents as they are signed, over the whole router.

use crate::access::Role;
use crate::consents;
use crate::web::tests::{Browser, Site};
use http::StatusCode;

async fn text(site: &Site, admin: &Browser, more: &[(&str, &str)]) -> String {
    let fields: Vec<(&str, &str)> =
        [("title", "Photographs"), ("body", "I agree to photographs."), ("in_use", "yes"), ("version", "0")]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
    let answer = site.post(admin, "/consents/new", &fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let list = site.get(admin, "/consents").await.body;
    list.split("/consents/").filter_map(|p| p.split('"').next()).find(|p| p.len() == 36).unwrap().to_owned()
}

#[tokio::test]
async fn what_was_signed_stays_as_it_was_shown_and_can_be_withdrawn() {
    let site = Site::new();
    let (admin, desk) = (site.session(Role::PracticeAdmin).await, site.session(Role::FrontDesk).await);
    let patient = site.patient("Doe").await;
    let id = text(&site, &admin, &[("months", "12")]).await;
    let path = format!("/patients/{patient}/consents/new");
    let page = site.get(&desk, &format!("{path}?text={id}")).await.body;
    assert!(page.contains("I agree to photographs.") && page.contains("id=\"pad\""), "{page}");
    let unsigned = [
        ("patient", patient.as_str()),
        ("text", &id),
        ("text_version", "1"),
        ("signer", "Jo Doe"),
        ("relation", "patient"),
        ("strokes", "[[[1,1]]]"),
    ];
    assert_eq!(
        site.post(&desk, &path, &unsigned).await.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "a dot is no signature"
    );
    let strokes = "[[[10,10],[20,30],[30,10],[40,30],[50,10],[60,30],[70,10],[80,30]]]";
    let fields = [
        ("patient", patient.as_str()),
        ("text", &id),
        ("text_version", "1"),
        ("signer", "Jo Doe"),
        ("relation", "patient"),
        ("strokes", strokes),
    ];
    let signed = site.post(&desk, &path, &fields).await;
    assert_eq!(signed.status, StatusCode::SEE_OTHER, "{}", signed.body);
    // The text changes afterwards; what was signed does not, and the old text is signed no more.
    let change = [
        ("title", "Photographs"),
        ("body", "I agree to photographs and films."),
        ("in_use", "yes"),
        ("months", "12"),
        ("version", "1"),
    ];
    assert_eq!(site.post(&admin, &format!("/consents/{id}"), &change).await.status, StatusCode::SEE_OTHER);
    assert_eq!(site.post(&desk, &path, &fields).await.status, StatusCode::CONFLICT);
    let shown = site.get(&desk, signed.location()).await.body;
    assert!(
        shown.contains("I agree to photographs.")
            && !shown.contains("films")
            && shown.contains("polyline")
            && shown.contains("valid"),
        "{shown}"
    );
    let pdf = site.get(&desk, &format!("{}/pdf", signed.location())).await;
    assert!(pdf.body.starts_with("%PDF-1.4") && pdf.body.contains("Photographs"));
    assert_eq!(site.web.store().internal(consents::broken_at).await.unwrap(), None);
    site.later(400 * 86_400);
    let desk = site.session(Role::FrontDesk).await;
    assert!(site.get(&desk, &format!("/patients/{patient}/consents")).await.body.contains("expired"));
    let withdraw = [("patient", patient.as_str()), ("version", "1"), ("reason", "changed my mind")];
    assert_eq!(site.post(&desk, signed.location(), &withdraw).await.status, StatusCode::SEE_OTHER);
    assert!(site.get(&desk, &format!("/patients/{patient}/consents")).await.body.contains("withdrawn"));
    let other = site.patient("Roe").await;
    let mixed = signed.location().replace(&patient, &other);
    assert_eq!(site.get(&desk, &mixed).await.status, StatusCode::NOT_FOUND, "another patient's address shows nothing");
}

#[tokio::test]
async fn what_a_consent_governs_happens_only_with_it() {
    let site = Site::new();
    let (admin, desk) = (site.session(Role::PracticeAdmin).await, site.session(Role::FrontDesk).await);
    let patient = site.patient("Doe").await;
    let permits = || {
        let (patient, now) = (patient.clone(), site.web.now() * 1000);
        site.web.store().internal(move |db| consents::permits(db, "reminders", &patient, now))
    };
    assert!(permits().await.unwrap(), "nobody asks for a consent");
    let id = text(&site, &admin, &[("months", "0"), ("governs", "reminders")]).await;
    assert!(!permits().await.unwrap());
    let fields = [
        ("patient", patient.as_str()),
        ("text", &id),
        ("text_version", "1"),
        ("signer", "Jo Doe"),
        ("relation", "patient"),
        ("typed", "Jo Doe"),
    ];
    let signed = site.post(&desk, &format!("/patients/{patient}/consents/new"), &fields).await;
    assert_eq!(signed.status, StatusCode::SEE_OTHER, "{}", signed.body);
    assert!(permits().await.unwrap());
    site.post(&desk, signed.location(), &[("patient", &patient), ("version", "1")]).await;
    assert!(!permits().await.unwrap(), "withdrawn");
}
