//! Consents as they are signed, over the whole router.

use crate::access::{Governs, Role};
use crate::consents;
use crate::store::StoreError;
use crate::web::tests::{Browser, Site};
use http::StatusCode;

pub(in crate::web) async fn text(site: &Site, admin: &Browser, more: &[(&str, &str)]) -> String {
    let fields: Vec<(&str, &str)> =
        [("title", "Photographs"), ("body", "I agree to photographs."), ("in_use", "yes"), ("version", "0")]
            .into_iter()
            .filter(|(name, _)| more.iter().all(|(own, _)| own != name))
            .chain(more.iter().copied())
            .collect();
    let answer = site.post(admin, "/consents/new", &fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let newest = |db: &crate::db::Connection| {
        let sql = "SELECT id FROM consent_text WHERE version = 1 ORDER BY created_ms DESC, title DESC LIMIT 1";
        Ok::<_, StoreError>(db.query_row(sql, [], |row| row.get(0))?)
    };
    site.later(1);
    site.web.store().internal(newest).await.unwrap()
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
    assert!(crate::pdf::tests::read(&pdf.bytes).contains("Photographs"));
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
        site.web.store().internal(move |db| consents::permits(db, Governs::Reminders, &patient, now))
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

#[tokio::test]
async fn a_refusal_is_signed_and_holds_whatever_becomes_of_the_text() {
    let site = Site::new();
    let (admin, desk) = (site.session(Role::PracticeAdmin).await, site.session(Role::FrontDesk).await);
    let patient = site.patient("Doe").await;
    let permits = |governs| {
        let (patient, now) = (patient.clone(), site.web.now() * 1000);
        site.web.store().internal(move |db| consents::permits(db, governs, &patient, now))
    };
    let id = text(&site, &admin, &[("months", "12"), ("governs", "sharing"), ("needed", "no")]).await;
    assert!(permits(Governs::Sharing).await.unwrap(), "nobody has said no");
    let path = format!("/patients/{patient}/consents/new");
    let says = |decision: &'static str, version: &'static str| {
        vec![
            ("patient", patient.clone()),
            ("text", id.clone()),
            ("text_version", version.to_owned()),
            ("signer", "Jo Doe".to_owned()),
            ("relation", "patient".to_owned()),
            ("typed", "Jo Doe".to_owned()),
            ("decision", decision.to_owned()),
        ]
    };
    let sent = |fields: Vec<(&'static str, String)>| {
        let (site, desk, path) = (&site, &desk, &path);
        async move {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = site.post(desk, path, &fields).await;
            assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
            answer.location().to_owned()
        }
    };
    let refused = sent(says("refuse", "1")).await;
    assert!(!permits(Governs::Sharing).await.unwrap() && permits(Governs::Proxies).await.unwrap());
    let page = site.get(&desk, &refused).await.body;
    assert!(page.contains("Not agreed to") && page.contains("Refused by") && page.contains("own pages"), "{page}");
    let consent = site.read("Consent", refused.rsplit('/').next().unwrap()).await;
    assert_eq!(
        (&consent["provision"]["type"], &consent["scope"]["coding"][0]["code"], &consent["status"]),
        (&"deny".into(), &"patient-privacy".into(), &"active".into())
    );
    let list = site.get(&desk, &format!("/patients/{patient}/consents")).await.body;
    assert!(list.contains("not permitted") && list.contains("refused"), "{list}");
    // Neither a text that governs nothing any more nor one out of use undoes it.
    let change = |version: &'static str, in_use: &'static str| {
        [("title", "P"), ("body", "B"), ("months", "0"), ("governs", "none"), ("in_use", in_use), ("version", version)]
    };
    site.post(&admin, &format!("/consents/{id}"), &change("1", "")).await;
    assert!(!permits(Governs::Sharing).await.unwrap());
    // It is over when its time is, or when it is taken back.
    site.later(400 * 86_400);
    assert!(permits(Governs::Sharing).await.unwrap(), "expired");
}

#[tokio::test]
async fn what_was_agreed_and_taken_back_is_a_no_until_it_is_signed_anew() {
    let site = Site::new();
    let (admin, desk) = (site.session(Role::PracticeAdmin).await, site.session(Role::FrontDesk).await);
    let (patient, other) = (site.patient("Doe").await, site.patient("Roe").await);
    let permits = |patient: &str| {
        let (patient, now) = (patient.to_owned(), site.web.now() * 1000);
        site.web.store().internal(move |db| consents::permits(db, Governs::Sharing, &patient, now))
    };
    let id = text(&site, &admin, &[("months", "0"), ("governs", "sharing"), ("needed", "no")]).await;
    let sign = |decision: &'static str| {
        let (site, desk, patient, id) = (&site, &desk, patient.clone(), id.clone());
        async move {
            let fields = [
                ("patient", patient.as_str()),
                ("text", &id),
                ("text_version", "1"),
                ("signer", "Jo Doe"),
                ("relation", "patient"),
                ("typed", "Jo Doe"),
                ("decision", decision),
            ];
            let answer = site.post(desk, &format!("/patients/{patient}/consents/new"), &fields).await;
            site.later(1);
            answer.location().to_owned()
        }
    };
    let withdraw = |at: String| {
        let (site, desk, patient) = (&site, &desk, patient.clone());
        async move {
            let fields = [("patient", patient.as_str()), ("version", "1"), ("reason", "changed my mind")];
            assert_eq!(site.post(desk, &at, &fields).await.status, StatusCode::SEE_OTHER);
            site.get(desk, &at).await.body
        }
    };
    let agreed = sign("agree").await;
    assert!(permits(&patient).await.unwrap());
    let page = withdraw(agreed).await;
    assert!(page.contains("changed my mind") && page.contains("Withdrawn by"), "{page}");
    assert!(!permits(&patient).await.unwrap() && permits(&other).await.unwrap());
    sign("agree").await;
    assert!(permits(&patient).await.unwrap(), "signed anew");
    let refused = sign("refuse").await;
    assert!(!permits(&patient).await.unwrap());
    withdraw(refused).await;
    assert!(permits(&patient).await.unwrap(), "the refusal was taken back: nothing is decided");
    // A text that is needed keeps out who has not agreed to it.
    text(&site, &admin, &[("title", "Another"), ("months", "0"), ("governs", "sharing"), ("needed", "yes")]).await;
    assert!(!permits(&patient).await.unwrap() && !permits(&other).await.unwrap());
    assert_eq!(site.web.store().internal(consents::broken_at).await.unwrap(), None);
}
