//! Long records and busy practices: what was stored last, is due first or holds now is on the page, however much came before.

use crate::access::{Actor, Program, Role};
use crate::store::{StoreError, Tx};
use crate::web::tests::{Browser, Site};
use http::StatusCode;
use serde_json::{Value, json};

/// More than any page or search of the database gives at once.
const MANY: usize = 520;

async fn fill(site: &Site, kind: &'static str, bodies: impl IntoIterator<Item = Value>) {
    let bodies: Vec<Value> = bodies.into_iter().collect();
    let create = move |tx: &mut Tx<'_>| bodies.into_iter().try_for_each(|body| tx.create(kind, body).map(drop));
    site.web.store().write::<_, StoreError, _>(&Actor::program(Program::Seed), create).await.unwrap();
}

fn of(patient: &str) -> Value {
    json!({"reference": format!("Patient/{patient}")})
}

fn observation(
    patient: &str,
    (category, code, name): (&str, &str, &str),
    (value, unit): (f64, &str),
    at: &str,
) -> Value {
    json!({"resourceType": "Observation", "status": "final", "subject": of(patient), "effectiveDateTime": at,
        "category": [{"coding": [{"code": category}]}], "code": {"coding": [{"system": "http://loinc.org", "code": code}], "text": name},
        "valueQuantity": {"value": value, "unit": unit}})
}

const POTASSIUM: (&str, &str, &str) = ("laboratory", "2823-3", "Potassium");
const WEIGHT: (&str, &str, &str) = ("vital-signs", "29463-7", "Body weight");

/// A moment of the years before, one a day.
fn before(number: usize) -> String {
    let first = chrono::NaiveDate::from_ymd_opt(2020, 1, 1).unwrap();
    format!("{}T08:00:00Z", first + chrono::Days::new(number as u64))
}

async fn page(site: &Site, browser: &Browser, path: &str) -> String {
    let answer = site.get(browser, path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}");
    answer.body
}

/// How often something is said on all pages of a list, from its first page on by its links.
async fn on_all_pages(site: &Site, browser: &Browser, path: &str, said: &str) -> usize {
    let (mut path, mut found) = (path.to_owned(), 0);
    for _ in 0..100 {
        let body = page(site, browser, &path).await;
        found += body.matches(said).count();
        let more = body
            .split("<a class=\"button\" href=\"")
            .find(|link| link.split("</a>").next().unwrap().ends_with(" more"));
        match more {
            Some(link) => path = link.split('"').next().unwrap().replace("&amp;", "&"),
            None => return found,
        }
    }
    panic!("the pages never end");
}

#[tokio::test]
async fn the_newest_value_is_shown_after_any_number_of_others() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let patient = site.patient("Doe").await;
    for code in [POTASSIUM, WEIGHT] {
        fill(&site, "Observation", (0..MANY).map(|n| observation(&patient, code, (4.1, "u"), &before(n)))).await;
        fill(&site, "Observation", [observation(&patient, code, (77.5, "u"), "2026-05-27T08:00:00Z")]).await;
    }
    let results = page(&site, &doctor, &format!("/patients/{patient}/results")).await;
    assert!(
        results.contains("<b>77.5 u</b>") && results.contains("520 earlier") && results.contains("500 more"),
        "{results}"
    );
    let test = format!("/patients/{patient}/results?test=Potassium");
    assert_eq!(on_all_pages(&site, &doctor, &test, "<span class=\"what\">4.1 u</span>").await, MANY);
    let vitals = page(&site, &doctor, &format!("/patients/{patient}/vitals")).await;
    assert!(vitals.contains("Weight last 77.5") && vitals.contains("The newest 200 of 521 are drawn"), "{vitals}");
    assert_eq!(on_all_pages(&site, &doctor, &format!("/patients/{patient}/vitals"), "Weight 4.1 kg").await, MANY);
    let timeline = page(&site, &doctor, &format!("/patients/{patient}/timeline")).await;
    assert!(timeline.contains("1042 entries") && timeline.matches("77.5").count() == 2, "{timeline}");
    let all =
        on_all_pages(&site, &doctor, &format!("/patients/{patient}/timeline?kind=Observation"), "class=\"when\"").await;
    assert_eq!(all, 2 * (MANY + 1));
}

#[tokio::test]
async fn a_value_that_names_a_day_a_month_or_a_year_has_its_place() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    for newest in ["2026-05-27", "2026-05", "2026"] {
        let patient = site.patient("Doe").await;
        for code in [POTASSIUM, WEIGHT] {
            let values = [(4.1, "2025-11-01T08:00:00Z"), (44.4, newest), (5.2, "2025-12-01"), (99.0, "1999")];
            fill(&site, "Observation", values.map(|(value, at)| observation(&patient, code, (value, "u"), at))).await;
        }
        let results = page(&site, &doctor, &format!("/patients/{patient}/results")).await;
        assert!(results.contains("<b>44.4 u</b>") && results.contains("3 earlier"), "{newest}: {results}");
        let vitals = page(&site, &doctor, &format!("/patients/{patient}/vitals")).await;
        assert!(vitals.contains("Weight last 44.4") && vitals.contains("Weight 99 kg"), "{newest}: {vitals}");
        let timeline = page(&site, &doctor, &format!("/patients/{patient}/timeline")).await;
        let place = |value: &str| timeline.find(&format!(": {value} u<")).unwrap();
        assert!(
            place("44.4") < place("5.2") && place("5.2") < place("4.1") && place("4.1") < place("99.0"),
            "{timeline}"
        );
    }
}

#[tokio::test]
async fn what_holds_now_is_on_the_banner_the_letter_and_the_form() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let patient = site.patient("Doe").await;
    let allergy = |name: &str, status: &str| {
        json!({"resourceType": "AllergyIntolerance", "patient": of(&patient), "code": {"text": name}, "criticality": "high",
            "clinicalStatus": {"coding": [{"code": status}]}})
    };
    let medication = |name: &str, status: &str| {
        json!({"resourceType": "MedicationRequest", "status": status, "intent": "order", "subject": of(&patient),
            "medicationCodeableConcept": {"text": name}})
    };
    let problem = |name: &str, status: &str| {
        json!({"resourceType": "Condition", "subject": of(&patient), "code": {"text": name},
            "clinicalStatus": {"coding": [{"code": status}]}})
    };
    fill(&site, "AllergyIntolerance", (0..MANY).map(|_| allergy("Dust", "resolved"))).await;
    fill(&site, "MedicationRequest", (0..MANY).map(|_| medication("Old pill", "stopped"))).await;
    fill(&site, "Condition", (0..MANY).map(|_| problem("Old cold", "resolved"))).await;
    fill(&site, "AllergyIntolerance", [allergy("Penicillin", "active")]).await;
    fill(&site, "MedicationRequest", [medication("Warfarin", "active")]).await;
    fill(&site, "Condition", [problem("Asthma", "active")]).await;
    // Newer ones do not push the active ones out of the chart either.
    fill(&site, "AllergyIntolerance", (0..MANY).map(|_| allergy("Dust", "resolved"))).await;
    for path in ["", "/vitals", "/allergies/new"] {
        let shown = page(&site, &doctor, &format!("/patients/{patient}{path}")).await;
        assert!(shown.contains("Penicillin"), "{path}");
    }
    let chart = page(&site, &doctor, &format!("/patients/{patient}")).await;
    assert!(chart.matches("Penicillin").count() == 2, "on the banner and in its section");
    let letter = page(&site, &doctor, &format!("/patients/{patient}/referrals/new")).await;
    for said in ["- Penicillin", "- Warfarin", "- Asthma"] {
        assert!(letter.contains(said), "{letter}");
    }
    assert!(!letter.contains("Old") && !letter.contains("Dust"), "{letter}");
}

#[tokio::test]
async fn open_tasks_are_there_after_any_number_that_are_done() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let task = |what: String, status: &str, due: &str, priority: &str| {
        json!({"resourceType": "Task", "status": status, "intent": "order", "description": what, "authoredOn": "2026-05-01T08:00:00Z",
            "priority": priority, "restriction": {"period": {"end": due}},
            "owner": {"identifier": {"system": "urn:holdfast:role", "value": "clinician"}}})
    };
    let done = (0..MANY).map(|n| task(format!("Done {n}."), "completed", "2026-01-01", "routine"));
    fill(&site, "Task", done).await;
    let new = [("patient", ""), ("what", "Call back at once"), ("owner", "role clinician"), ("due", "2026-05-02")];
    assert_eq!(site.post(&doctor, "/tasks/new", &new).await.status, StatusCode::SEE_OTHER);
    for show in ["mine", "all"] {
        let shown = page(&site, &doctor, &format!("/tasks?show={show}")).await;
        assert!(shown.contains("Call back at once") && !shown.contains("Done 1."), "{show}");
    }
    let later = (0..150).map(|n| task(format!("Later {n}."), "requested", "2027-01-01", "routine"));
    fill(&site, "Task", later).await;
    fill(
        &site,
        "Task",
        [
            task("Most urgent".into(), "requested", "2028-01-01", "stat"),
            task("On hold.".into(), "on-hold", "2026-05-03", "routine"),
        ],
    )
    .await;
    let first = page(&site, &doctor, "/tasks").await;
    let place = |said: &str| first.find(said).unwrap();
    assert!(place("Most urgent") < place("Call back") && place("Call back") < place("On hold."), "{first}");
    assert!(first.contains("53 more") && first.contains("1 to 100 of 153"), "{first}");
    assert_eq!(on_all_pages(&site, &doctor, "/tasks", "Later ").await, 150);
    let latest = page(&site, &doctor, "/tasks?show=done").await;
    assert!(latest.matches("Done ").count() >= 100 && latest.contains("Older ones"), "{latest}");
    let older = latest.split("href=\"/tasks?show=done&amp;after=").nth(1).unwrap().split('"').next().unwrap();
    let next = page(&site, &doctor, &format!("/tasks?show=done&after={older}")).await;
    assert!(next.contains("Done ") && next != latest);
    assert!(!site.get(&doctor, "/tasks?show=done&after=nonsense").await.status.is_success());
}

#[tokio::test]
async fn an_open_referral_is_there_among_any_number_of_orders() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let patient = site.patient("Doe").await;
    let order = || json!({"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": of(&patient), "code": {"text": "CBC"}});
    fill(&site, "ServiceRequest", (0..MANY).map(|_| order())).await;
    let fields = [
        ("patient", patient.as_str()),
        ("to", "Dr. Heart"),
        ("what", "Chest pain"),
        ("letter", "Please see."),
        ("due", "2026-01-01"),
    ];
    assert_eq!(
        site.post(&doctor, &format!("/patients/{patient}/referrals/new"), &fields).await.status,
        StatusCode::SEE_OTHER
    );
    let open = page(&site, &doctor, "/referrals").await;
    assert!(open.contains("Dr. Heart") && open.contains("overdue") && !open.contains("CBC"), "{open}");
}

#[tokio::test]
async fn the_most_urgent_is_first_on_the_waiting_list() {
    let site = Site::new();
    let desk = site.session(Role::FrontDesk).await;
    let patient = site.patient("Doe").await;
    let entry = |what: &str, priority: u32| {
        json!({"resourceType": "Appointment", "status": "waitlist", "created": "2026-05-01", "priority": priority, "description": what,
            "minutesDuration": 20, "participant": [{"actor": of(&patient), "status": "needs-action"}]})
    };
    fill(&site, "Appointment", (0..MANY).map(|_| entry("Whenever.", 9))).await;
    let fields = [("patient", patient.as_str()), ("priority", "1"), ("reason", "Cannot wait")];
    assert_eq!(site.post(&desk, "/schedule/waiting/new", &fields).await.status, StatusCode::SEE_OTHER);
    let first = page(&site, &desk, "/schedule/waiting").await;
    assert!(
        first.find("Cannot wait").unwrap() < first.find("Whenever.").unwrap() && first.contains("421 more"),
        "{first}"
    );
    assert_eq!(on_all_pages(&site, &desk, "/schedule/waiting", "Whenever.").await, MANY);
}

#[tokio::test]
async fn a_long_chart_lists_the_newest_encounters_and_says_that_there_are_more() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let patient = site.patient("Doe").await;
    let encounter = |why: &str, at: &str| {
        json!({"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}, "subject": of(&patient),
            "reasonCode": [{"text": why}], "period": {"start": at}})
    };
    fill(&site, "Encounter", [encounter("Yesterday", "2026-05-26T08:00:00Z")]).await;
    let chart = page(&site, &doctor, &format!("/patients/{patient}")).await;
    assert!(chart.contains("Yesterday") && !chart.contains("This record is long"), "{chart}");
    // Older ones that came in later, as by an import.
    fill(&site, "Encounter", (0..MANY).map(|n| encounter("Long ago", &before(n)))).await;
    let chart = page(&site, &doctor, &format!("/patients/{patient}")).await;
    assert!(
        chart.contains("Yesterday") && chart.contains("This record is long"),
        "the newest is listed, and the rest is told of"
    );
}

#[tokio::test]
async fn the_last_message_of_a_patient_is_shown_after_any_number_of_others() {
    let site = Site::new();
    let desk = site.session(Role::FrontDesk).await;
    let patient = site.patient("Doe").await;
    let message = |words: &str, at: &str| {
        json!({"resourceType": "Communication", "status": "completed", "subject": of(&patient), "sender": of(&patient), "sent": at,
            "payload": [{"contentString": words}]})
    };
    fill(&site, "Communication", (0..MANY).map(|n| message("Thank you.", &before(n)))).await;
    fill(&site, "Communication", [message("I feel worse", "2026-05-27T08:00:00Z")]).await;
    let path = format!("/patients/{patient}/messages");
    let newest = page(&site, &desk, &path).await;
    assert!(newest.contains("I feel worse") && newest.contains("421 earlier messages"), "{newest}");
    let earlier = page(&site, &desk, &format!("{path}?newer=100")).await;
    assert!(
        !earlier.contains("I feel worse") && earlier.contains("321 earlier") && earlier.contains("100 newer"),
        "{earlier}"
    );
    let first = page(&site, &desk, &format!("{path}?newer={}", usize::MAX)).await;
    assert!(
        !first.contains("I feel worse") && first.contains("Thank you.") && !first.contains("earlier messages"),
        "the first page"
    );
}
