//! Consents in the portal: signed by the patient or by who acts for them, told as such, taken back; and kept from who must not
//! decide.

use super::tests::Practice;
use crate::access::{Governs, Role};
use crate::consents::{self, Decision, Mark, Record};
use crate::store::StoreError;
use crate::web::consents::tests::text;
use crate::web::tests::Browser;
use http::StatusCode;
use serde_json::json;

const STROKES: &str = "[[[10,10],[20,30],[30,10],[40,30],[50,10],[60,30],[70,10],[80,30]]]";

impl Practice {
    /// A consent text that the portal asks for.
    async fn asks(&self, more: &[(&str, &str)]) -> String {
        let admin = self.site.session(Role::PracticeAdmin).await;
        let all: Vec<(&str, &str)> =
            [("months", "12"), ("portal", "yes")].into_iter().chain(more.iter().copied()).collect();
        text(&self.site, &admin, &all).await
    }

    /// A consent that was signed at the desk; gives its id.
    pub async fn signed(&self, patient: &str, title: &str) -> String {
        let (admin, desk) = (self.site.session(Role::PracticeAdmin).await, self.site.session(Role::FrontDesk).await);
        let id = text(&self.site, &admin, &[("title", title), ("months", "0")]).await;
        let fields = [
            ("patient", patient),
            ("text", &id),
            ("text_version", "1"),
            ("signer", "Jo"),
            ("relation", "patient"),
            ("typed", "Jo"),
        ];
        let answer = self.site.post(&desk, &format!("/patients/{patient}/consents/new"), &fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        answer.location().rsplit('/').next().unwrap().to_owned()
    }

    async fn record(&self, consent: &str) -> Record {
        let id = consent.to_owned();
        let read = move |db: &crate::db::Connection| Ok::<_, StoreError>(consents::record(db, &id)?.unwrap().record);
        self.site.web.store().internal(read).await.unwrap()
    }

    async fn decide(&self, browser: &Browser, text: &str, more: &[(&str, &str)]) -> crate::web::tests::Answer {
        let all: Vec<(&str, &str)> = [("patient", self.ada.as_str()), ("text", text), ("text_version", "1")]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        self.post(browser, "/consents/new", &all).await
    }

    async fn permits(&self, governs: Governs) -> bool {
        let (patient, now) = (self.ada.clone(), self.site.web.now() * 1000);
        let ask = move |db: &crate::db::Connection| consents::permits(db, governs, &patient, now);
        self.site.web.store().internal::<_, StoreError, _>(ask).await.unwrap()
    }
}

#[tokio::test]
async fn a_patient_signs_on_their_own_device_and_takes_it_back() {
    let practice = Practice::open().await;
    let id = practice.asks(&[]).await;
    let ada = practice.session(&practice.ada).await;
    assert!(practice.get(&ada, "/").await.body.contains("consent is asked of you"));
    let list = practice.get(&ada, "/consents").await.body;
    assert!(list.contains("Photographs") && list.contains("Read and decide"), "{list}");
    let page = practice.get(&ada, &format!("/consents/new?text={id}")).await.body;
    assert!(page.contains("I agree to photographs.") && page.contains("You sign as <b>Jo Adams</b>"), "{page}");
    let nothing = practice.decide(&ada, &id, &[("strokes", "[[[1,1]]]")]).await;
    assert_eq!(nothing.status, StatusCode::UNPROCESSABLE_ENTITY, "a dot is no signature");
    let other =
        practice.post(&ada, "/consents/new", &[("patient", &practice.bob), ("text", &id), ("strokes", STROKES)]).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "a form of somebody else's");
    let signed =
        practice.decide(&ada, &id, &[("strokes", STROKES), ("signer", "Somebody Else"), ("relation", "parent")]).await;
    assert_eq!(signed.status, StatusCode::SEE_OTHER, "{}", signed.body);
    let consent = signed.location().rsplit('/').next().unwrap().to_owned();
    let record = practice.record(&consent).await;
    // Who signs is who is logged in, whatever a form says.
    assert_eq!(
        (record.signer.as_str(), record.relation.as_str(), record.decision),
        ("Jo Adams", "patient", Decision::Agreed)
    );
    assert!(matches!(record.mark, Mark::Drawn(_)) && record.witness.is_empty() && record.witness_account.is_empty());
    assert!(
        record.circumstances.contains("patient portal by the patient, logged in as")
            && record.circumstances.contains("own device")
    );
    let stored = practice.site.read("Consent", &consent).await;
    assert_eq!(stored["performer"][0]["reference"], json!(format!("Patient/{}", practice.ada)));
    let shown = practice.get(&ada, signed.location()).await.body;
    assert!(shown.contains("polyline") && shown.contains("Nobody of the practice was present"), "{shown}");
    let pdf = practice.get(&ada, &format!("{}/pdf", signed.location())).await;
    let printed = crate::pdf::tests::read(&pdf.bytes);
    assert!(printed.contains("patient portal") && !printed.contains("In the presence"), "{printed}");
    // The staff sees the same.
    let desk = practice.site.session(Role::FrontDesk).await;
    let page = practice.site.get(&desk, &format!("/patients/{}/consents/{consent}", practice.ada)).await.body;
    assert!(page.contains("Nobody of the practice was present") && page.contains("valid"), "{page}");
    // Decided: it is asked no more, until it is over.
    assert!(!practice.get(&ada, "/").await.body.contains("consent is asked of you"));
    let withdrawn = practice.post(&ada, signed.location(), &[("patient", &practice.ada), ("version", "1")]).await;
    assert_eq!(withdrawn.status, StatusCode::SEE_OTHER, "{}", withdrawn.body);
    let list = practice.get(&ada, "/consents").await.body;
    assert!(list.contains("withdrawn") && list.contains("Decide anew"), "{list}");
    let page = practice.site.get(&desk, &format!("/patients/{}/consents/{consent}", practice.ada)).await.body;
    assert!(page.contains("the patient, in the portal"), "{page}");
    assert_eq!(practice.site.web.store().internal(consents::broken_at).await.unwrap(), None);
    // What is not asked in the portal is not signed there, and a signature ends with its time.
    let admin = practice.site.session(Role::PracticeAdmin).await;
    let inside = text(&practice.site, &admin, &[("title", "Operation"), ("months", "0")]).await;
    assert_eq!(practice.decide(&ada, &inside, &[("typed", "Jo")]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(practice.get(&ada, &format!("/consents/new?text={inside}")).await.status, StatusCode::NOT_FOUND);
    practice.decide(&ada, &id, &[("typed", "Jo Adams")]).await;
    practice.site.later(400 * 86_400);
    let ada = practice.session(&practice.ada).await;
    let list = practice.get(&ada, "/consents").await.body;
    assert!(list.contains("expired") && list.contains("Read and decide: Photographs"), "{list}");
}

#[tokio::test]
async fn who_acts_for_a_patient_signs_as_such_and_does_not_decide_whether_anybody_may() {
    let practice = Practice::open().await;
    let photographs = practice.asks(&[]).await;
    let acting = practice.asks(&[("title", "Who acts for me"), ("governs", "proxies"), ("needed", "no")]).await;
    practice.let_eva_act(&practice.ada, "all", "2040-01-01").await;
    let eva = practice.eva().await;
    let signed = practice.decide(&eva, &photographs, &[("typed", "Eva Berg")]).await;
    assert_eq!(signed.status, StatusCode::SEE_OTHER, "{}", signed.body);
    let consent = signed.location().rsplit('/').next().unwrap().to_owned();
    let record = practice.record(&consent).await;
    assert_eq!((record.signer.as_str(), record.relation.as_str()), ("Eva Berg", "mother"));
    assert!(
        record.circumstances.contains("Eva Berg, who acts for the patient in the portal as mother"),
        "{}",
        record.circumstances
    );
    let stored = practice.site.read("Consent", &consent).await;
    assert!(stored["performer"][0]["reference"].as_str().unwrap().starts_with("RelatedPerson/"));
    // Whether somebody may act is not theirs to decide, whichever way.
    let page = practice.get(&eva, &format!("/consents/new?text={acting}")).await.body;
    assert!(page.contains("You cannot decide it") && !page.contains("id=\"pad\""), "{page}");
    assert_eq!(practice.decide(&eva, &acting, &[("typed", "Eva Berg")]).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(practice.all("Consent").await.len(), 1);
    let ada = practice.session(&practice.ada).await;
    let agreed = practice.decide(&ada, &acting, &[("typed", "Jo Adams")]).await;
    let at = agreed.location().to_owned();
    assert_eq!(
        practice.post(&eva, &at, &[("patient", &practice.ada), ("version", "1")]).await.status,
        StatusCode::BAD_REQUEST
    );
    assert!(practice.permits(Governs::Proxies).await);
}

#[tokio::test]
async fn a_patients_no_ends_what_others_do_for_them_at_once() {
    let practice = Practice::open().await;
    let acting = practice.asks(&[("title", "Who acts for me"), ("governs", "proxies"), ("needed", "no")]).await;
    practice.let_eva_act(&practice.ada, "all", "2040-01-01").await;
    practice.let_eva_act(&practice.bob, "appointments", "2040-01-01").await;
    let eva = practice.eva().await;
    let grant = practice.grants(&practice.ada).await.remove(0).id;
    let eva = practice.act_for(&eva, &grant).await;
    assert!(practice.get(&eva, "/record").await.body.contains("of Ada"));
    let ada = practice.session(&practice.ada).await;
    let refused = practice.decide(&ada, &acting, &[("typed", "Jo Adams"), ("decision", "refuse")]).await;
    assert_eq!(refused.status, StatusCode::SEE_OTHER, "{}", refused.body);
    // Every route of the portal, in the session that was open.
    let note = practice.note(&practice.ada, "of Ada", "final").await;
    for (method, path, answer) in practice.ask_all(&eva, &[("document", &note)]).await {
        assert!(!answer.body.contains("of Ada") && !answer.body.contains("Adams"), "{method} {path}");
    }
    let people = practice.get(&eva, "/people").await.body;
    assert!(!people.contains("Adams") && people.contains("SECRETperson"), "the other one's is still there: {people}");
    let again = practice.post(&eva, "/people", &[("for", &grant)]).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    // The store says the same, whatever a session might be.
    let actor = crate::access::Actor::of_proxy("eva", &practice.grants(&practice.ada).await[0]);
    let (own, ada_id) = (note.clone(), practice.ada.clone());
    let look = move |view: &crate::store::View<'_>| {
        for refused in [view.read("Patient", &ada_id).err(), view.read("DocumentReference", &own).err()] {
            assert!(matches!(refused, Some(StoreError::Denied(crate::access::Denied::Withheld))), "{refused:?}");
        }
        assert!(view.search(&crate::store::Query::all("Condition")?)?.resources.is_empty());
        Ok::<_, StoreError>(())
    };
    practice.site.web.store().view(&actor, look).await.unwrap();
    // The patient and the practice go on.
    assert!(practice.get(&ada, "/record").await.body.contains("of Ada"));
    let doctor = practice.site.session(Role::Clinician).await;
    assert!(practice.site.get(&doctor, &format!("/patients/{}", practice.ada)).await.body.contains("of Ada"));
    let desk = practice.site.get(&doctor, &format!("/patients/{}/portal", practice.ada)).await.body;
    assert!(desk.contains("keep out everybody who acts for them"), "{desk}");
    // Taken back, it opens again.
    practice.post(&ada, refused.location(), &[("patient", &practice.ada), ("version", "1")]).await;
    let eva = practice.act_for(&eva, &grant).await;
    assert!(practice.get(&eva, "/record").await.body.contains("of Ada"));
}
