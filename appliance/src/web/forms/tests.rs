//! Forms as clinicians use them, over the whole router.

use crate::access::Role;
use crate::web::tests::{Browser, Site, hidden};
use http::StatusCode;
use serde_json::{Value, json};

const LINES: &str = "## Body\nweight: Weight in kg | decimal | required | from weight\nheight: Height in cm | decimal\n\
bmi: Body mass index | decimal | = weight / (height / 100) ^ 2\nmedication: Medication | text | from medications\n\
## Operations (repeats)\nwhat: Operation | string\n";

struct Room {
    site: Site,
    doctor: Browser,
    patient: String,
}

impl Room {
    async fn new() -> Room {
        let site = Site::new();
        let doctor = site.session(Role::Clinician).await;
        let patient = site.patient("Doe").await;
        let of = json!({"reference": format!("Patient/{patient}")});
        site.store("Observation", json!({"resourceType": "Observation", "status": "final", "subject": of, "effectiveDateTime": "2026-05-01T08:00:00Z",
            "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]}, "valueQuantity": {"value": 81.5}})).await;
        site.store(
            "MedicationRequest",
            json!({"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": of,
            "medicationCodeableConcept": {"text": "Lisinopril 10 mg"}}),
        )
        .await;
        Room { site, doctor, patient }
    }

    /// Writes the template and begins a form; gives its address.
    async fn begin(&self) -> String {
        let fields = [("title", "Check-up"), ("lines", LINES), ("active", "yes")];
        let answer = self.site.post(&self.doctor, "/templates/new", &fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        let choices = self.site.get(&self.doctor, &format!("/patients/{}/forms/new", self.patient)).await.body;
        let fields = [("patient", self.patient.as_str()), ("template", hidden(&choices, "template"))];
        let begun = self.site.post(&self.doctor, &format!("/patients/{}/forms/new", self.patient), &fields).await;
        assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.body);
        begun.location().to_owned()
    }

    async fn press(
        &self,
        who: &Browser,
        form: &str,
        version: &str,
        fields: &[(&str, &str)],
    ) -> crate::web::tests::Answer {
        let own = [("patient", self.patient.as_str()), ("version", version)];
        let all: Vec<(&str, &str)> = own.into_iter().chain(fields.iter().copied()).collect();
        self.site.post(who, form, &all).await
    }

    async fn stored(&self, form: &str) -> Value {
        let id = form.rsplit('/').next().unwrap().to_owned();
        self.site.read("QuestionnaireResponse", &id).await
    }
}

#[tokio::test]
async fn a_form_is_prefilled_with_the_newest_weight_that_is_valid() {
    let room = Room::new().await;
    let weight = |value: f64, at: &str, status: &str| {
        json!({"resourceType": "Observation", "status": status, "subject": {"reference": format!("Patient/{}", room.patient)},
            "effectiveDateTime": at, "valueQuantity": {"value": value},
            "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]}})
    };
    let old: Vec<Value> =
        (0..520).map(|n| weight(90.0, &format!("2020-01-01T08:{:02}:{:02}Z", n / 60, n % 60), "final")).collect();
    let newest = [weight(44.4, "2026-05-27", "final"), weight(12.0, "2026-05-28", "entered-in-error")];
    let create = move |tx: &mut crate::store::Tx<'_>| {
        old.into_iter().chain(newest).try_for_each(|body| tx.create("Observation", body).map(drop))
    };
    let seed = crate::access::Actor::program(crate::access::Program::Seed);
    room.site.web.store().write::<_, crate::store::StoreError, _>(&seed, create).await.unwrap();
    let form = room.begin().await;
    let shown = room.site.get(&room.doctor, &form).await.body;
    assert!(shown.contains("value=\"44.4\""), "{shown}");
}

#[tokio::test]
async fn a_form_is_prefilled_saved_while_written_signed_and_then_final() {
    let room = Room::new().await;
    let form = room.begin().await;
    let page = room.site.get(&room.doctor, &form).await.body;
    assert!(page.contains("value=\"81.5\"") && page.contains("Lisinopril 10 mg"), "{page}");
    let saved =
        room.press(&room.doctor, &format!("{form}/autosave"), "1", &[("a.weight", "80"), ("a.height", "200")]).await;
    let said: Value = serde_json::from_str(&saved.body).unwrap();
    assert_eq!((&said["version"], &said["values"]["a.bmi"]), (&json!(2), &json!("20.0")));
    let again =
        room.press(&room.doctor, &format!("{form}/autosave"), "2", &[("a.weight", "80"), ("a.height", "200")]).await;
    assert!(again.body.contains("\"version\":2"), "nothing new, no new version");
    let refused = room.press(&room.doctor, &form, "2", &[("do", "sign"), ("a.height", "tall")]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("must be answered") && refused.body.contains("enter a number"));
    let signed = room
        .press(
            &room.doctor,
            &form,
            "2",
            &[("do", "sign"), ("a.weight", "80"), ("a.height", "200"), ("n.section-6", "1"), ("a.what.0", "Appendix")],
        )
        .await;
    assert_eq!(signed.status, StatusCode::SEE_OTHER, "{}", signed.body);
    let stored = room.stored(&form).await;
    assert_eq!(stored["status"], "completed");
    let late = room.press(&room.doctor, &form, "3", &[("do", "save"), ("a.weight", "70")]).await;
    assert_eq!(late.status, StatusCode::BAD_REQUEST, "a signed form is final");
    // Through FHIR too.
    let mut body = stored.clone();
    body["item"] = json!([]);
    let request = http::Request::put(format!("/fhir/R4/QuestionnaireResponse/{}", stored["id"].as_str().unwrap()))
        .header("cookie", &room.doctor.cookie)
        .header("x-csrf-token", &room.doctor.csrf)
        .header("content-type", "application/fhir+json")
        .header("if-match", "W/\"3\"")
        .body(axum::body::Body::from(body.to_string()));
    assert_eq!(room.site.send(request.unwrap()).await.status, StatusCode::BAD_REQUEST);
    let shown = room.site.get(&room.doctor, &form).await.body;
    assert!(
        shown.contains("Appendix") && shown.contains("Signed by") && !shown.contains("name=\"a.weight\""),
        "{shown}"
    );
}

#[tokio::test]
async fn two_writers_put_their_words_together() {
    let room = Room::new().await;
    let form = room.begin().await;
    let colleague = room.site.session(Role::Clinician).await;
    assert_eq!(
        room.press(&colleague, &form, "1", &[("do", "save"), ("a.weight", "77"), ("a.height", "180")]).await.status,
        StatusCode::SEE_OTHER
    );
    let met = room.press(&room.doctor, &form, "1", &[("do", "save"), ("a.weight", "80"), ("a.height", "180")]).await;
    assert_eq!(met.status, StatusCode::CONFLICT);
    assert!(met.body.contains("Meanwhile saved here: 77") && met.body.contains("value=\"80\""), "{}", met.body);
    assert_eq!(met.body.matches("Meanwhile saved here").count(), 2, "weight, and the index that follows from it");
    assert_eq!(hidden(&met.body, "version"), "2");
    assert_eq!(
        room.press(&room.doctor, &form, "2", &[("do", "save"), ("a.weight", "80")]).await.status,
        StatusCode::SEE_OTHER
    );
    let other = room.site.patient("Roe").await;
    let wrong = room.site.post(&room.doctor, &form, &[("patient", &other), ("version", "3"), ("do", "save")]).await;
    assert_eq!(wrong.status, StatusCode::CONFLICT, "a form of one patient is never saved to another");
}

#[tokio::test]
async fn a_colleague_cosigns_and_an_amendment_keeps_the_first_version() {
    let room = Room::new().await;
    let form = room.begin().await;
    room.press(&room.doctor, &form, "1", &[("do", "sign"), ("a.weight", "80")]).await;
    let own = room.press(&room.doctor, &format!("{form}/cosign"), "2", &[]).await;
    assert_eq!(own.status, StatusCode::BAD_REQUEST, "nobody co-signs oneself");
    let colleague = room.site.session(Role::Clinician).await;
    assert_eq!(room.press(&colleague, &format!("{form}/cosign"), "2", &[]).await.status, StatusCode::SEE_OTHER);
    assert!(room.site.get(&room.doctor, &form).await.body.contains("Co-signed by"));
    let amended = room.site.post(&room.doctor, &format!("{form}/amend"), &[("patient", &room.patient)]).await;
    let fresh = amended.location().to_owned();
    assert_ne!(fresh, form);
    room.press(&room.doctor, &fresh, "1", &[("do", "sign"), ("a.weight", "79")]).await;
    assert_eq!(room.stored(&fresh).await["status"], "amended");
    assert!(room.site.get(&room.doctor, &fresh).await.body.contains("an earlier version"));
    assert!(room.stored(&form).await.to_string().contains("\"valueDecimal\":80"));
}

#[tokio::test]
async fn a_section_repeats_and_a_template_says_where_it_is_wrong() {
    let room = Room::new().await;
    let form = room.begin().await;
    let section = room.stored(&form).await;
    assert!(section.to_string().contains("81.5"));
    let page = room.site.get(&room.doctor, &form).await.body;
    let name = page.split("value=\"add ").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let (count, add) = (format!("n.{name}"), format!("add {name}"));
    room.press(&room.doctor, &form, "1", &[("do", &add), (&count, "1"), ("a.what.0", "Knee"), ("a.weight", "80")])
        .await;
    assert!(room.site.get(&room.doctor, &form).await.body.contains("name=\"a.what.1\""));
    let wrong = room.site.post(&room.doctor, "/templates/new", &[("title", "T"), ("lines", "a: A | colour")]).await;
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.body.contains("Line 1"));
    let preview = room.site.post(&room.doctor, "/templates/preview", &[("lines", "a: <b>A</b> | boolean")]).await.body;
    assert!(preview.contains("&lt;b&gt;A"), "{preview}");
    let desk = room.site.session(Role::FrontDesk).await;
    assert_eq!(room.site.get(&desk, &form).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn phrases_are_ones_own() {
    let room = Room::new().await;
    let saved =
        room.site.post(&room.doctor, "/phrases", &[("name", "lungs"), ("text", "Lungs clear."), ("do", "save")]).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER);
    assert_eq!(room.site.get(&room.doctor, "/phrases.json").await.body, "{\"lungs\":\"Lungs clear.\"}");
    let colleague = room.site.session(Role::Clinician).await;
    assert_eq!(room.site.get(&colleague, "/phrases.json").await.body, "{}");
    let bad = room.site.post(&room.doctor, "/phrases", &[("name", "Lungs!"), ("text", "x"), ("do", "save")]).await;
    assert_eq!(bad.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_questionnaire_of_another_program_is_filled_in_and_its_answers_keep_their_types() {
    let room = Room::new().await;
    let id = room.site.store("Questionnaire", crate::forms::tests::foreign()).await;
    let odd = json!({"resourceType": "Questionnaire", "status": "active", "title": "Odd",
        "item": [{"linkId": "1", "type": "attachment", "text": "Your picture"}]});
    let odd = room.site.store("Questionnaire", odd).await;
    let list = room.site.get(&room.doctor, "/templates").await.body;
    assert!(list.contains("“Your picture” asks for an answer of type attachment"), "{list}");
    let new = format!("/patients/{}/forms/new", room.patient);
    let choices = room.site.get(&room.doctor, &new).await.body;
    assert!(choices.contains("It cannot be filled in here") && !choices.contains(&odd), "{choices}");
    let begin = |template: String| {
        let (site, doctor, new, patient) = (&room.site, &room.doctor, new.clone(), room.patient.clone());
        async move { site.post(doctor, &new, &[("patient", &patient), ("template", &template)]).await }
    };
    assert_eq!(begin(odd).await.status, StatusCode::BAD_REQUEST);
    let form = begin(id.clone()).await.location().to_owned();
    let page = room.site.get(&room.doctor, &form).await.body;
    for shown in [
        "name=\"a.1~2e1\"",
        "type=\"datetime-local\"",
        "<datalist",
        "pound",
        "value=\"0.5\"",
        "Add another: Drug",
        "data-if",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let fields = [
        ("a.1~2e1", "yes"),
        ("a.1~2e2", "many"),
        ("a.1~2e4~2fa", "r"),
        ("a.1~2e4~2fd", "hidden"),
        ("a.2~2e1.0", "2026-07-01T10:00"),
        ("a.2~2e2.0", "80"),
    ];
    let sign: Vec<(&str, &str)> = [("do", "sign")].into_iter().chain(fields).collect();
    let refused = room.press(&room.doctor, &form, "1", &sign).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("enter a whole number") && refused.body.contains("and its unit"), "{}", refused.body);
    let more: Vec<(&str, &str)> = [("do", "add 2~2e3.0"), ("n.2", "1")].into_iter().chain(fields).collect();
    assert_eq!(room.press(&room.doctor, &form, "1", &more).await.status, StatusCode::SEE_OTHER);
    assert!(
        room.site.get(&room.doctor, &form).await.body.contains("name=\"a.2~2e3~2e1.0.1\""),
        "a section in a section repeats"
    );
    let whole = [
        ("do", "sign"),
        ("a.1~2e1", "yes"),
        ("a.1~2e2", "12"),
        ("a.1~2e4~2fa", "r"),
        ("a.2~2e1.0", "2026-07-01T10:00"),
        ("a.2~2e2.0", "80"),
        ("u.2~2e2.0", "kg"),
    ];
    let signed = room.press(&room.doctor, &form, "2", &whole).await;
    assert_eq!(signed.status, StatusCode::SEE_OTHER, "{}", signed.body);
    let stored = room.stored(&form).await;
    assert_eq!(stored.pointer("/item/0/item/2/item/0/answer/0/valueCoding/code"), Some(&json!("r")), "{stored}");
    assert_eq!(stored.pointer("/item/1/item/0/answer/0/valueDateTime"), Some(&json!("2026-07-01T14:00:00Z")));
    assert_eq!(stored.pointer("/item/1/item/1/answer/0/valueQuantity/code"), Some(&json!("kg")));
    assert!(stored.to_string().contains("\"valueDecimal\":0.5") && !stored.to_string().contains("hidden"), "{stored}");
    let read = room.site.get(&room.doctor, &form).await.body;
    assert!(read.contains("Red") && read.contains("80 kilogram") && read.contains("2026-07-01 10:00"), "{read}");
    // The editor of lines would say less than it does: it is taken out of use, and else stays as it is.
    let before = room.site.read("Questionnaire", &id).await;
    assert!(
        room.site
            .get(&room.doctor, &format!("/templates/{id}"))
            .await
            .body
            .contains("Another program made this template")
    );
    let saved =
        room.site.post(&room.doctor, &format!("/templates/{id}"), &[("foreign", "yes"), ("version", "1")]).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let after = room.site.read("Questionnaire", &id).await;
    assert_eq!((&after["status"], &after["item"]), (&json!("retired"), &before["item"]));
}

fn core(name: &str) -> String {
    format!("http://hl7.org/fhir/StructureDefinition/{name}")
}

#[tokio::test]
async fn a_form_is_found_by_the_canonical_address_of_its_questionnaire() {
    let room = Room::new().await;
    let body = |version: &str| {
        json!({"resourceType": "Questionnaire", "status": "active", "title": "Intake", "url": "http://far.example/q", "version": version,
            "item": [{"linkId": "1", "type": "string", "text": "Why"}]})
    };
    let id = room.site.store("Questionnaire", body("3.1")).await;
    let new = format!("/patients/{}/forms/new", room.patient);
    let begin = |template: &str| {
        let fields = [("patient".to_owned(), room.patient.clone()), ("template".to_owned(), template.to_owned())];
        let (site, doctor, new) = (&room.site, &room.doctor, new.clone());
        async move {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let begun = site.post(doctor, &new, &fields).await;
            begun.location().rsplit('/').next().unwrap().to_owned()
        }
    };
    let form = begin(&id).await;
    let stored = room.site.read("QuestionnaireResponse", &form).await;
    assert_eq!(stored["questionnaire"], "http://far.example/q|3.1");
    // As an earlier release wrote it, and as another program does.
    let response = |named: String| {
        json!({"resourceType": "QuestionnaireResponse", "status": "completed", "questionnaire": named,
            "subject": {"reference": format!("Patient/{}", room.patient)}, "item": [{"linkId": "1", "answer": [{"valueString": "x"}]}]})
    };
    let old = room.site.store("QuestionnaireResponse", response(format!("Questionnaire/{id}|1"))).await;
    let far = room.site.store("QuestionnaireResponse", response("http://far.example/q".into())).await;
    let other = room.site.store("QuestionnaireResponse", response("http://far.example/q|9".into())).await;
    let find = |query: String| {
        let (site, doctor) = (&room.site, &room.doctor);
        async move {
            let answer = site.get(doctor, &format!("/fhir/R4/{query}")).await;
            let bundle: Value = serde_json::from_str(&answer.body).unwrap();
            let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
            let mut found: Vec<String> =
                entries.iter().map(|e| e["resource"]["id"].as_str().unwrap().to_owned()).collect();
            found.sort();
            found
        }
    };
    let sorted = |all: &[&String]| {
        let mut all: Vec<String> = all.iter().map(|id| (*id).clone()).collect();
        all.sort();
        all
    };
    let by = |value: &str| format!("QuestionnaireResponse?questionnaire={value}");
    assert_eq!(find(by("http://far.example/q")).await, sorted(&[&form, &far, &other]));
    assert_eq!(find(by("http://far.example/q%7C3.1")).await, sorted(&[&form]));
    assert_eq!(find(by(&format!("Questionnaire/{id}%7C1"))).await, sorted(&[&old]));
    // The only one with its address has had every version.
    assert_eq!(find(by(&format!("Questionnaire/{id}"))).await, sorted(&[&form, &old, &far, &other]));
    let included =
        find(format!("QuestionnaireResponse?_id={form},{old}&_include=QuestionnaireResponse:questionnaire")).await;
    assert_eq!(included, sorted(&[&form, &old, &id]));
    let back = find(format!("Questionnaire?_id={id}&_revinclude=QuestionnaireResponse:questionnaire")).await;
    assert_eq!(back, sorted(&[&id, &form, &old, &far, &other]));
    assert_eq!(
        find("QuestionnaireResponse?questionnaire.title=Intake".into()).await,
        sorted(&[&form, &old, &far, &other])
    );
    // With a second one each means its own version, and what names none.
    let newer = room.site.store("Questionnaire", body("9")).await;
    assert_eq!(find(by(&format!("Questionnaire/{id}"))).await, sorted(&[&form, &old, &far]));
    assert_eq!(find(by(&format!("Questionnaire/{newer}"))).await, sorted(&[&far, &other]));
    let included =
        find(format!("QuestionnaireResponse?_id={other}&_include=QuestionnaireResponse:questionnaire")).await;
    assert_eq!(included, sorted(&[&other, &newer]));
    // The form goes on with the template that it was begun with, and one of another program is read with its own.
    let page = room.site.get(&room.doctor, &format!("/patients/{}/forms/{form}", room.patient)).await.body;
    assert!(page.contains("name=\"a.1\"") && page.contains("Why"), "{page}");
    let page = room.site.get(&room.doctor, &format!("/patients/{}/forms/{far}", room.patient)).await.body;
    assert!(page.contains("Why"), "{page}");
    let seed = crate::access::Actor::program(crate::access::Program::Seed);
    let delete = move |tx: &mut crate::store::Tx<'_>| tx.delete("Questionnaire", &newer, None);
    let refused = room.site.web.store().write(&seed, delete).await;
    assert!(matches!(refused, Err(crate::store::StoreError::Referred)), "answers refer to it: {refused:?}");
}

#[tokio::test]
async fn several_answers_are_given_one_by_one_and_what_is_hidden_stays_so() {
    let room = Room::new().await;
    let hidden_item = json!([{"url": core("questionnaire-hidden"), "valueBoolean": true}]);
    let body = json!({"resourceType": "Questionnaire", "status": "active", "title": "Drugs", "item": [
        {"linkId": "d", "type": "string", "text": "Drug", "repeats": true},
        {"linkId": "n", "type": "integer", "text": "How many", "extension": [{"url": core("maxValue"), "valueInteger": 10}]},
        {"linkId": "h", "type": "string", "text": "Unseen words", "extension": hidden_item, "initial": [{"valueString": "Unseen value"}]}]});
    let id = room.site.store("Questionnaire", body).await;
    let new = format!("/patients/{}/forms/new", room.patient);
    let begun = room.site.post(&room.doctor, &new, &[("patient", &room.patient), ("template", &id)]).await;
    let form = begun.location().to_owned();
    let add = [("do", "add d"), ("a.d", "Aspirin"), ("a.h", "Changed")];
    assert_eq!(room.press(&room.doctor, &form, "1", &add).await.status, StatusCode::SEE_OTHER);
    let page = room.site.get(&room.doctor, &form).await.body;
    assert_eq!(page.matches("name=\"a.d\"").count(), 2, "the answer, and a field for another one: {page}");
    assert!(page.contains("value=\"Aspirin\"") && page.contains("value=\"add d\""), "{page}");
    let too_many = [("do", "sign"), ("a.d", "Aspirin"), ("a.n", "11")];
    let refused = room.press(&room.doctor, &form, "2", &too_many).await;
    assert!(
        refused.status == StatusCode::UNPROCESSABLE_ENTITY && refused.body.contains("at most 10"),
        "{}",
        refused.body
    );
    let sign = [("do", "sign"), ("a.d", "Aspirin"), ("a.d", "Insulin"), ("a.d", ""), ("a.n", "10")];
    assert_eq!(room.press(&room.doctor, &form, "2", &sign).await.status, StatusCode::SEE_OTHER);
    let stored = room.stored(&form).await;
    assert_eq!(stored["item"][0]["answer"], json!([{"valueString": "Aspirin"}, {"valueString": "Insulin"}]));
    assert_eq!(stored["item"][2]["answer"], json!([{"valueString": "Unseen value"}]), "{stored}");
    let read = room.site.get(&room.doctor, &form).await.body;
    assert!(read.contains("Aspirin, Insulin"), "{read}");
    for shown in [page, read, room.site.get(&room.doctor, &format!("/templates/{id}")).await.body] {
        assert!(!shown.contains("Unseen"), "{shown}");
    }
}
