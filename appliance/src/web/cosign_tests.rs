//! Co-signatures over the whole router: asked for, found in the inbox, given by who was asked.

use super::tests::{Answer, Browser, Site, hidden};
use crate::access::Role;
use http::StatusCode;
use serde_json::json;

struct Ward {
    site: Site,
    patient: String,
    resident: Browser,
    chief: Browser,
    other: Browser,
}

impl Ward {
    async fn new() -> Ward {
        let site = Site::new();
        for (name, role) in [
            ("resident", Role::Clinician),
            ("chief", Role::Clinician),
            ("other", Role::Clinician),
            ("desk", Role::FrontDesk),
        ] {
            site.add_user(name, role, "!", "x").await;
        }
        let patient = site.patient("Doe").await;
        let [resident, chief, other] =
            [site.session_of("resident").await, site.session_of("chief").await, site.session_of("other").await];
        Ward { site, patient, resident, chief, other }
    }

    async fn press(&self, who: &Browser, path: &str, version: &str, more: &[(&str, &str)]) -> Answer {
        let own = [("patient", self.patient.as_str()), ("version", version)];
        let all: Vec<(&str, &str)> = own.into_iter().chain(more.iter().copied()).collect();
        self.site.post(who, path, &all).await
    }

    /// A form that the resident signed; its address. Its version is 2.
    async fn form(&self) -> String {
        let fields = [("title", "Check-up"), ("lines", "weight: Weight | decimal\n"), ("active", "yes")];
        self.site.post(&self.resident, "/templates/new", &fields).await;
        let path = format!("/patients/{}/forms/new", self.patient);
        let choices = self.site.get(&self.resident, &path).await.body;
        let begun = self.press(&self.resident, &path, "", &[("template", hidden(&choices, "template"))]).await;
        let form = begun.location().to_owned();
        let signed = self.press(&self.resident, &form, "1", &[("do", "sign"), ("a.weight", "80")]).await;
        assert_eq!(signed.status, StatusCode::SEE_OTHER, "{}", signed.body);
        form
    }

    /// A note that the resident signed; the addresses of its encounter and of itself. Its version is 2.
    async fn note(&self) -> (String, String) {
        let begun = self
            .press(
                &self.resident,
                &format!("/patients/{}/encounters/new", self.patient),
                "",
                &[("reason", "Cough"), ("class", "AMB")],
            )
            .await;
        let encounter = begun.location().to_owned();
        let draft = self.press(&self.resident, &format!("{encounter}/notes"), "", &[("note", "Lungs clear.")]).await;
        let note = draft.location().to_owned();
        let signed = self.press(&self.resident, &format!("{note}/sign"), "1", &[("note", "Lungs clear.")]).await;
        assert_eq!(signed.status, StatusCode::SEE_OTHER, "{}", signed.body);
        (encounter, note)
    }

    /// The one task in somebody's inbox.
    async fn task(&self, who: &Browser) -> Option<String> {
        let inbox = self.site.get(who, "/tasks").await.body;
        let mut found =
            inbox.split("href=\"/tasks/").filter_map(|part| part.split('"').next()).filter(|id| id.len() == 36);
        found.next().map(|id| format!("/tasks/{id}"))
    }
}

#[tokio::test]
async fn who_was_asked_finds_the_form_in_the_inbox_and_nobody_else_co_signs_it() {
    let ward = Ward::new().await;
    let form = ward.form().await;
    let page = ward.site.get(&ward.resident, &form).await.body;
    assert!(
        page.contains("Ask a colleague to co-sign") && page.contains("id-chief") && !page.contains("id-desk"),
        "{page}"
    );
    assert!(!page.contains("value=\"id-resident\"") && !page.contains("waiting for"), "nobody asks oneself: {page}");
    let ask = format!("{form}/cosign/ask");
    for wrong in ["id-resident", "id-desk", "nobody", ""] {
        let refused = ward.press(&ward.resident, &ask, "2", &[("colleague", wrong)]).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(refused.body.contains("choose a colleague"), "{}", refused.body);
    }
    let stranger = ward.press(&ward.chief, &ask, "2", &[("colleague", "id-other")]).await;
    assert_eq!(stranger.status, StatusCode::BAD_REQUEST, "who signed asks");
    assert_eq!(ward.press(&ward.resident, &ask, "2", &[("colleague", "id-other")]).await.status, StatusCode::SEE_OTHER);
    // Somebody else is asked instead: the first request is over.
    assert_eq!(ward.press(&ward.resident, &ask, "2", &[("colleague", "id-chief")]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(ward.task(&ward.other).await, None);
    for who in [&ward.resident, &ward.chief, &ward.other] {
        assert!(ward.site.get(who, &form).await.body.contains("waiting for co-signature of Test Person"));
    }
    assert!(!ward.site.get(&ward.other, &form).await.body.contains("/cosign\""), "no button for who was not asked");
    let give = format!("{form}/cosign");
    let refused = ward.press(&ward.other, &give, "2", &[]).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.body.contains("a colleague was asked"), "{}", refused.body);
    let task = ward.task(&ward.chief).await.unwrap();
    let page = ward.site.get(&ward.chief, &task).await.body;
    assert!(page.contains("Co-sign: Check-up") && page.contains(&format!("href=\"{form}\"")), "{page}");
    let early = ward.press(&ward.chief, &task, "1", &[("status", "completed")]).await;
    assert_eq!(early.status, StatusCode::BAD_REQUEST, "it is done by co-signing");
    assert!(early.body.contains("this is done by co-signing"), "{}", early.body);
    assert_eq!(ward.press(&ward.chief, &give, "2", &[]).await.status, StatusCode::SEE_OTHER);
    let page = ward.site.get(&ward.resident, &form).await.body;
    assert!(page.contains("Co-signed by") && !page.contains("waiting for") && !page.contains("Ask "), "{page}");
    assert_eq!(ward.task(&ward.chief).await, None, "the request is done");
    assert_eq!(ward.press(&ward.other, &give, "3", &[]).await.status, StatusCode::BAD_REQUEST, "once");
    assert_eq!(
        ward.press(&ward.resident, &ask, "3", &[("colleague", "id-chief")]).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_note_is_co_signed_like_a_form_and_says_what_it_waits_for() {
    let ward = Ward::new().await;
    let (encounter, note) = ward.note().await;
    let asked = ward.press(&ward.resident, &format!("{note}/cosign/ask"), "2", &[("colleague", "id-chief")]).await;
    assert_eq!(asked.location(), encounter, "{}", asked.body);
    let page = ward.site.get(&ward.other, &encounter).await.body;
    assert!(page.contains("waiting for co-signature of Test Person") && !page.contains("/cosign\""), "{page}");
    let task = ward.task(&ward.chief).await.unwrap();
    let page = ward.site.get(&ward.chief, &task).await.body;
    assert!(page.contains(&format!("href=\"{encounter}#note-")), "{page}");
    assert_eq!(ward.press(&ward.other, &format!("{note}/cosign"), "2", &[]).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(ward.press(&ward.resident, &format!("{note}/cosign"), "2", &[]).await.status, StatusCode::BAD_REQUEST);
    // Where the request is withdrawn, any other clinician may.
    let withdrawn = ward.press(&ward.resident, &task, "1", &[("status", "cancelled")]).await;
    assert_eq!(withdrawn.status, StatusCode::SEE_OTHER, "{}", withdrawn.body);
    let given = ward.press(&ward.other, &format!("{note}/cosign"), "2", &[]).await;
    assert_eq!(given.status, StatusCode::SEE_OTHER, "{}", given.body);
    let page = ward.site.get(&ward.resident, &encounter).await.body;
    assert!(page.contains("Co-signed by") && page.contains("Lungs clear."), "{page}");
    let stored = ward.site.read("DocumentReference", note.rsplit('/').next().unwrap()).await;
    assert_eq!(stored["extension"][0]["extension"][0]["valueReference"]["identifier"]["value"], json!("id-other"));
    assert_eq!(stored["docStatus"], json!("final"));
    // Neither a draft nor a note that no account signed is co-signed.
    let draft = ward.press(&ward.resident, &format!("{encounter}/notes"), "", &[("note", "Later.")]).await;
    let early = ward.press(&ward.other, &format!("{}/cosign", draft.location()), "1", &[]).await;
    assert_eq!(early.status, StatusCode::BAD_REQUEST);
    let desk = ward.site.session_of("desk").await;
    assert_eq!(ward.press(&desk, &format!("{note}/cosign"), "3", &[]).await.status, StatusCode::FORBIDDEN);
}
