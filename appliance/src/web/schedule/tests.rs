//! The calendar as its people use it, over the whole router.

use crate::access::Role;
use crate::web::tests::{Answer, Browser, Site, hidden};
use http::StatusCode;
use serde_json::{Value, json};

struct Practice {
    site: Site,
    desk: Browser,
    admin: Browser,
    doctor: String,
}

impl Practice {
    /// One practitioner who works Mondays to Sundays from 09:00 to 12:00, New York time.
    async fn new() -> Practice {
        let site = Site::new();
        let (desk, admin) = (site.session(Role::FrontDesk).await, site.session(Role::PracticeAdmin).await);
        let doctor =
            site.store("Practitioner", json!({"resourceType": "Practitioner", "name": [{"family": "Weiss"}]})).await;
        let practice = Practice { site, desk, admin, doctor: format!("Practitioner/{doctor}") };
        let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].map(|d| format!("day-{d}"));
        let mut fields: Vec<(&str, &str)> = days.iter().map(|d| (d.as_str(), "yes")).collect();
        fields.extend([("do", "add-rule"), ("from", "09:00"), ("until", "12:00"), ("weeks", "1")]);
        let answer = practice.hours(&practice.doctor.clone(), &fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        practice
    }

    /// One press in the page of hours of `actor`.
    async fn hours(&self, actor: &str, fields: &[(&str, &str)]) -> Answer {
        let page = self.site.get(&self.desk, &format!("/schedule/hours/of?actor={}", actor.replace('/', "%2F"))).await;
        let version = hidden(&page.body, "version").to_owned();
        let all: Vec<(&str, &str)> = fields.iter().copied().chain([("actor", actor), ("version", &version)]).collect();
        self.site.post(&self.desk, "/schedule/hours/of", &all).await
    }

    async fn free(&self, day: &str, minutes: &str) -> Vec<String> {
        let query = format!("practitioner={}&day={day}&minutes={minutes}", self.doctor.replace('/', "%2F"));
        let page = self.site.get(&self.desk, &format!("/schedule/free?{query}")).await;
        assert_eq!(page.status, StatusCode::OK);
        let chips = page.body.split("<span>").skip(1).filter_map(|part| part.split("</span>").next());
        chips.map(str::to_owned).collect()
    }

    async fn book(&self, patient: &str, day: &str, time: &str, more: &[(&str, &str)]) -> Answer {
        let given: Vec<&str> = more.iter().map(|(n, _)| *n).collect();
        let usual = [("practitioner", self.doctor.as_str()), ("minutes", "30")];
        let usual = usual.into_iter().filter(|(n, _)| !given.contains(n));
        let own = [("patient", patient), ("day", day), ("time", time)];
        let fields: Vec<(&str, &str)> = own.into_iter().chain(usual).chain(more.iter().copied()).collect();
        self.site.post(&self.desk, "/schedule/book", &fields).await
    }

    /// What another program sends.
    async fn send(&self, body: &Value) -> Answer {
        let request = http::Request::post("/fhir/R4/Appointment")
            .header("cookie", &self.desk.cookie)
            .header("x-csrf-token", &self.desk.csrf)
            .header("content-type", "application/fhir+json")
            .body(axum::body::Body::from(body.to_string()));
        self.site.send(request.unwrap()).await
    }

    /// The appointments of a patient, as FHIR gives them.
    async fn appointments(&self, patient: &str) -> Vec<Value> {
        let found = self.site.get(&self.desk, &format!("/fhir/R4/Appointment?patient={patient}")).await;
        let bundle: Value = serde_json::from_str(&found.body).unwrap();
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        entries.into_iter().map(|e| e["resource"].clone()).collect()
    }
}

fn version(appointment: &Value) -> String {
    appointment["meta"]["versionId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn free_times_follow_hours_exceptions_and_bookings() {
    let practice = Practice::new().await;
    assert_eq!(practice.free("2026-06-09", "60").await.len(), 13, "every ten minutes from 09:00 to 11:00");
    practice.hours(&practice.doctor, &[("do", "step"), ("step", "30")]).await;
    assert_eq!(practice.free("2026-06-09", "60").await, ["09:00", "09:30", "10:00", "10:30", "11:00"]);
    let patient = practice.site.patient("Doe").await;
    assert_eq!(practice.book(&patient, "2026-06-09", "10:00", &[]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(practice.free("2026-06-09", "60").await, ["09:00", "10:30", "11:00"]);
    let away = [
        ("do", "add-exception"),
        ("kind", "closed"),
        ("from_day", "2026-06-09"),
        ("from_time", "09:00"),
        ("until_time", "11:00"),
    ];
    assert_eq!(practice.hours(&practice.doctor, &away).await.status, StatusCode::SEE_OTHER);
    assert_eq!(practice.free("2026-06-09", "60").await, ["11:00"]);
    let holiday =
        [("do", "add-exception"), ("kind", "closed"), ("from_day", "2026-06-08"), ("until_day", "2026-06-10")];
    assert_eq!(practice.hours("practice", &holiday).await.status, StatusCode::SEE_OTHER);
    assert!(practice.free("2026-06-09", "30").await.is_empty() && practice.free("2026-06-10", "30").await.is_empty());
    assert!(!practice.free("2026-06-11", "30").await.is_empty());
    let nonsense = [("do", "add-rule"), ("day-mon", "yes"), ("from", "12:00"), ("until", "09:00")];
    assert_eq!(practice.hours(&practice.doctor, &nonsense).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

/// New York: 1 November 2026, 02:00 becomes 01:00; 14 March 2027, 02:00 becomes 03:00.
#[tokio::test]
async fn the_days_when_the_clocks_change_have_their_own_times() {
    let practice = Practice::new().await;
    let night = [("do", "add-exception"), ("kind", "open"), ("from_time", "01:00"), ("until_time", "04:00")];
    for day in ["2026-11-01", "2027-03-14"] {
        let fields: Vec<(&str, &str)> = night.iter().copied().chain([("from_day", day)]).collect();
        assert_eq!(practice.hours(&practice.doctor, &fields).await.status, StatusCode::SEE_OTHER);
    }
    practice.hours(&practice.doctor, &[("do", "step"), ("step", "60")]).await;
    let nights = |times: Vec<String>| times.into_iter().filter(|t| t.as_str() < "05:00").collect::<Vec<_>>();
    assert_eq!(nights(practice.free("2026-11-01", "60").await), ["01:00", "01:00", "02:00", "03:00"]);
    assert_eq!(nights(practice.free("2027-03-14", "60").await), ["01:00", "03:00"]);
    let patient = practice.site.patient("Doe").await;
    let answer = practice.book(&patient, "2027-03-14", "02:30", &[]).await;
    assert!(answer.status == StatusCode::UNPROCESSABLE_ENTITY && answer.body.contains("clocks are put forward"));
    for (day, start) in [("2026-11-01", "2026-11-01T14:00:00Z"), ("2027-03-14", "2027-03-14T13:00:00Z")] {
        assert_eq!(practice.book(&patient, day, "09:00", &[]).await.status, StatusCode::SEE_OTHER);
        assert!(practice.appointments(&patient).await.iter().any(|a| a["start"] == start), "{day}");
    }
    let day = practice.site.get(&practice.desk, "/schedule/grid?day=2026-11-01").await.body;
    assert!(day.contains("<b>09:00 Doe, Jo</b>"), "{day}");
    // From 01:00 on a row is five minutes, and the grid says where by class alone.
    assert!(day.contains("class=\"appt gs97 gn6 ") && !day.contains("style="), "{day}");
}

#[tokio::test]
async fn a_week_shows_one_practitioner_and_nobody_elses_patients() {
    let practice = Practice::new().await;
    let other = practice
        .site
        .store("Practitioner", json!({"resourceType": "Practitioner", "name": [{"family": "Adler"}]}))
        .await;
    let other = format!("Practitioner/{other}");
    let (abel, brandt) = (practice.site.patient("Abel").await, practice.site.patient("Brandt").await);
    assert_eq!(practice.book(&abel, "2026-06-09", "10:00", &[]).await.status, StatusCode::SEE_OTHER);
    let with_other = [("practitioner", other.as_str())];
    assert_eq!(practice.book(&brandt, "2026-06-12", "11:00", &with_other).await.status, StatusCode::SEE_OTHER);
    // Who names nobody sees the first by name.
    for (who, shown, hidden) in [
        (practice.doctor.as_str(), "10:00 Abel", "Brandt"),
        (&other, "11:00 Brandt", "Abel"),
        ("", "11:00 Brandt", "Abel"),
    ] {
        let path = format!("/schedule/grid?view=week&day=2026-06-10&practitioner={}", who.replace('/', "%2F"));
        let week = practice.site.get(&practice.desk, &path).await.body;
        assert!(week.contains(shown) && !week.contains(hidden), "{who}: {week}");
    }
}

#[tokio::test]
async fn the_calendar_is_overruled_with_a_reason_only() {
    let practice = Practice::new().await;
    let (first, second) = (practice.site.patient("Abel").await, practice.site.patient("Brandt").await);
    assert_eq!(practice.book(&first, "2026-06-09", "10:00", &[]).await.status, StatusCode::SEE_OTHER);
    let refused = practice.book(&second, "2026-06-09", "10:15", &[]).await;
    assert!(
        refused.status == StatusCode::CONFLICT && refused.body.contains("Weiss has an appointment from 10:00 to 10:30")
    );
    let outside = practice.book(&second, "2026-06-09", "15:00", &[]).await;
    assert!(outside.status == StatusCode::CONFLICT && outside.body.contains("outside of the hours"));
    assert!(practice.appointments(&second).await.is_empty());
    let forced = practice.book(&second, "2026-06-09", "10:15", &[("all_the_same", "Acute pain")]).await;
    assert_eq!(forced.status, StatusCode::SEE_OTHER, "{}", forced.body);
    let stored = practice.appointments(&second).await;
    assert!(stored[0].to_string().contains("Acute pain"));
    let audit = practice.site.get(&practice.admin, "/audit").await.body;
    assert!(audit.contains("override"), "{audit}");
    // What another program sends meets the same rule.
    let body = json!({"resourceType": "Appointment", "status": "booked", "start": "2026-06-09T10:10:00-04:00", "end": "2026-06-09T10:20:00-04:00",
        "participant": [{"actor": {"reference": practice.doctor}, "status": "accepted"}]});
    assert_eq!(practice.send(&body).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_booking_of_another_program_says_from_when_until_when_and_keeps_the_hours() {
    let practice = Practice::new().await;
    let zone = |tx: &mut crate::store::Tx<'_>| tx.remember(crate::ops::golden::TIME_ZONE_KEY, "America/New_York");
    let seed = crate::access::Actor::program(crate::access::Program::Seed);
    practice.site.web.store().write::<_, crate::store::StoreError, _>(&seed, zone).await.unwrap();
    // 10:00 and 10:30 in New York.
    let (start, end) = ("2026-06-09T14:00:00Z", "2026-06-09T14:30:00Z");
    let body = |more: Value| {
        let mut body = json!({"resourceType": "Appointment", "status": "booked",
            "participant": [{"actor": {"reference": practice.doctor}, "status": "accepted"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (more, element) in [
        (json!({}), "Appointment.start"),
        (json!({"end": end}), "Appointment.start"),
        (json!({"start": start}), "Appointment.end"),
        (json!({"start": start, "minutesDuration": 30}), "Appointment.end"),
        (json!({"start": start, "end": start}), "Appointment.end"),
        (json!({"start": end, "end": start}), "Appointment.end"),
        // 08:30 to 09:30, before the hours begin.
        (json!({"start": "2026-06-09T12:30:00Z", "end": "2026-06-09T13:30:00Z"}), "Appointment.start"),
    ] {
        let answer = practice.send(&body(more.clone())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{more}: {}", answer.body);
        let told: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(told["issue"][0]["expression"], json!([element]), "{more}: {told}");
    }
    // A wish has no time yet, and what was is told as it was.
    assert_eq!(practice.send(&body(json!({"status": "proposed"}))).await.status, StatusCode::CREATED);
    let past = json!({"status": "fulfilled", "start": "2026-03-09T02:00:00Z", "end": "2026-03-09T02:30:00Z"});
    assert_eq!(practice.send(&body(past)).await.status, StatusCode::CREATED);
    let reason = json!([{"url": "urn:holdfast:booked-all-the-same", "valueString": "Acute pain"}]);
    let early = json!({"start": "2026-06-09T12:30:00Z", "end": "2026-06-09T13:30:00Z", "extension": reason});
    let answer = practice.send(&body(early)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    assert!(practice.site.get(&practice.admin, "/audit").await.body.contains("override"));
    let within = practice.send(&body(json!({"start": start, "end": end}))).await;
    assert_eq!(within.status, StatusCode::CREATED, "{}", within.body);
    let again = body(json!({"start": start, "end": end}));
    assert_eq!(practice.send(&again).await.status, StatusCode::CONFLICT, "the time is taken");
    // Nothing told how long it lasts but its begin and end.
    let id = serde_json::from_str::<Value>(&within.body).unwrap()["id"].as_str().unwrap().to_owned();
    let page = practice.site.get(&practice.desk, &format!("/schedule/{id}")).await.body;
    assert!(page.contains("30 minutes") && !page.contains(">0 minutes"), "{page}");
}

#[tokio::test]
async fn a_series_is_booked_whole_or_not_at_all() {
    let practice = Practice::new().await;
    let (first, second) = (practice.site.patient("Abel").await, practice.site.patient("Brandt").await);
    assert_eq!(practice.book(&first, "2026-06-23", "09:00", &[]).await.status, StatusCode::SEE_OTHER);
    let weekly = [("weeks", "1"), ("count", "4")];
    let refused = practice.book(&second, "2026-06-09", "09:00", &weekly).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.body.contains("09:00 to 09:30"), "{}", refused.body);
    assert!(practice.appointments(&second).await.is_empty(), "nothing of it is left");
    let skipping = [("weeks", "1"), ("count", "4"), ("skip", "yes")];
    assert_eq!(practice.book(&second, "2026-06-09", "09:00", &skipping).await.status, StatusCode::SEE_OTHER);
    let mut booked = practice.appointments(&second).await;
    booked.sort_by_key(|a| a["start"].as_str().unwrap().to_owned());
    assert_eq!(
        booked.iter().map(|a| &a["start"]).collect::<Vec<_>>(),
        ["2026-06-09T13:00:00Z", "2026-06-16T13:00:00Z", "2026-06-30T13:00:00Z"]
    );
    // From the second on: cancelled with one press.
    let id = booked[1]["id"].as_str().unwrap();
    let fields =
        [("patient", second.as_str()), ("version", &version(&booked[1])), ("rest", "yes"), ("reason", "moved away")];
    assert_eq!(
        practice.site.post(&practice.desk, &format!("/schedule/{id}/cancel"), &fields).await.status,
        StatusCode::SEE_OTHER
    );
    let states = practice.appointments(&second).await;
    assert_eq!(states.iter().filter(|a| a["status"] == "cancelled").count(), 2);
    assert_eq!(
        practice.book(&first, "2026-06-30", "09:00", &[]).await.status,
        StatusCode::SEE_OTHER,
        "the time is free again"
    );
}

#[tokio::test]
async fn a_visit_takes_the_room_and_the_equipment_that_it_needs() {
    let practice = Practice::new().await;
    for (kind, name) in [("room", "Room 1"), ("equipment", "Ultrasound")] {
        let answer =
            practice.site.post(&practice.admin, "/schedule/hours/places", &[("kind", kind), ("name", name)]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
    }
    let page = practice.site.get(&practice.admin, "/schedule/visits/new").await.body;
    let ticked = |prefix: &str| page.split('"').find(|part| part.starts_with(prefix)).unwrap().to_owned();
    let (room, device) = (ticked("in-"), ticked("eq-"));
    let fields = [
        ("name", "Scan"),
        ("minutes", "30"),
        ("notice", "24"),
        ("horizon", "60"),
        ("online", "off"),
        ("active", "yes"),
        (&room, "yes"),
        (&device, "yes"),
    ];
    assert_eq!(
        practice.site.post(&practice.admin, "/schedule/visits/new", &fields).await.status,
        StatusCode::SEE_OTHER
    );
    assert_eq!(practice.site.post(&practice.desk, "/schedule/visits/new", &fields).await.status, StatusCode::FORBIDDEN);
    let list = practice.site.get(&practice.admin, "/schedule/visits").await.body;
    let visit = list
        .split("/schedule/visits/")
        .find_map(|p| p.split('"').next().filter(|id| id.len() == 36))
        .unwrap()
        .to_owned();
    let other =
        practice.site.store("Practitioner", json!({"resourceType": "Practitioner", "name": [{"family": "Ost"}]})).await;
    let (first, second) = (practice.site.patient("Abel").await, practice.site.patient("Brandt").await);
    assert_eq!(practice.book(&first, "2026-06-09", "10:00", &[("visit", &visit)]).await.status, StatusCode::SEE_OTHER);
    let stored = practice.appointments(&first).await[0].to_string();
    assert!(
        stored.contains("Room 1") && stored.contains("Ultrasound") && stored.contains("HealthcareService/"),
        "{stored}"
    );
    let elsewhere = practice.book(&second, "2026-06-09", "10:00", &[("visit", &visit), ("practitioner", &other)]).await;
    assert!(elsewhere.status == StatusCode::CONFLICT && elsewhere.body.contains("No room"), "{}", elsewhere.body);
    let rooms = practice.site.get(&practice.desk, "/schedule/grid?view=rooms&day=2026-06-09").await.body;
    assert_eq!(rooms.matches("10:00 Abel, Jo").count(), 2, "in the room's column and the scanner's");
}

#[tokio::test]
async fn an_appointment_is_moved_by_dragging_unless_somebody_is_busy() {
    let practice = Practice::new().await;
    let (first, second) = (practice.site.patient("Abel").await, practice.site.patient("Brandt").await);
    practice.book(&first, "2026-06-09", "09:00", &[]).await;
    practice.book(&second, "2026-06-09", "10:00", &[]).await;
    let own = practice.appointments(&first).await.remove(0);
    let path = format!("/schedule/{}/move", own["id"].as_str().unwrap());
    let version = version(&own);
    let drag = |patient: String, time: &'static str| {
        let fields = [
            ("patient", patient),
            ("version", version.clone()),
            ("day", "2026-06-09".into()),
            ("time", time.into()),
            ("csrf", practice.desk.csrf.clone()),
        ];
        let body = fields.map(|(n, v)| format!("{n}={}", crate::web::form::percent_encode(&v))).join("&");
        let request = http::Request::post(&path)
            .header("cookie", &practice.desk.cookie)
            .header("hx-request", "true")
            .header("content-type", "application/x-www-form-urlencoded");
        practice.site.send(request.body(axum::body::Body::from(body)).unwrap())
    };
    let taken = drag(first.clone(), "10:10").await;
    assert!(taken.status == StatusCode::CONFLICT && taken.body.starts_with("Taken: Weiss"), "{}", taken.body);
    assert_eq!(drag(second.clone(), "11:00").await.status, StatusCode::CONFLICT, "a form of another patient");
    assert_eq!(drag(first.clone(), "09:15").await.status, StatusCode::NO_CONTENT, "over its own old time");
    assert_eq!(practice.appointments(&first).await[0]["start"], "2026-06-09T13:15:00Z");
    assert_eq!(drag(first.clone(), "11:00").await.status, StatusCode::CONFLICT, "the version that was dragged is old");
}

#[tokio::test]
async fn a_held_time_is_free_for_its_holder_only_and_for_five_minutes() {
    let practice = Practice::new().await;
    practice.hours(&practice.doctor, &[("do", "step"), ("step", "60")]).await;
    let start = "1781010000"; // 2026-06-09 09:00 in New York
    let fields = [
        ("slot", start),
        ("practitioner", practice.doctor.as_str()),
        ("minutes", "60"),
        ("holder", "a-holder-of-twenty-letters"),
    ];
    let held = practice.site.post(&practice.desk, "/schedule/hold", &fields).await;
    assert!(held.body.contains("09:00 is kept for you"), "{}", held.body);
    assert_eq!(practice.free("2026-06-09", "60").await, ["10:00", "11:00"]);
    let (first, second) = (practice.site.patient("Abel").await, practice.site.patient("Brandt").await);
    let refused = practice.book(&first, "2026-06-09", "09:00", &[]).await;
    assert!(refused.status == StatusCode::CONFLICT && refused.body.contains("just booking"), "{}", refused.body);
    practice.site.later(301);
    assert_eq!(practice.free("2026-06-09", "60").await, ["09:00", "10:00", "11:00"]);
    practice.site.post(&practice.desk, "/schedule/hold", &fields).await;
    let own = practice
        .book(
            &second,
            "2026-06-09",
            "",
            &[("slot", start), ("minutes", "60"), ("holder", "a-holder-of-twenty-letters")],
        )
        .await;
    assert_eq!(own.status, StatusCode::SEE_OTHER, "{}", own.body);
    assert_eq!(practice.free("2026-06-09", "60").await, ["10:00", "11:00"]);
}

#[tokio::test]
async fn who_waits_is_offered_the_first_time_and_leaves_the_list_by_it() {
    let practice = Practice::new().await;
    let patient = practice.site.patient("Doe").await;
    let fields =
        [("patient", patient.as_str()), ("practitioner", &practice.doctor), ("priority", "1"), ("reason", "Back pain")];
    assert_eq!(
        practice.site.post(&practice.desk, "/schedule/waiting/new", &fields).await.status,
        StatusCode::SEE_OTHER
    );
    let list = practice.site.get(&practice.desk, "/schedule/waiting").await.body;
    assert!(list.contains("Urgent") && list.contains("Back pain") && list.contains("Offer "), "{list}");
    let href = list
        .split("href=\"")
        .find(|part| part.starts_with("/schedule/book?"))
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .replace("&amp;", "&");
    let form = practice.site.get(&practice.desk, &href).await.body;
    let waiting = hidden(&form, "waiting").to_owned();
    let answer = practice.book(&patient, "2026-06-09", "09:00", &[("waiting", &waiting)]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let all = practice.appointments(&patient).await;
    assert_eq!((all.len(), &all[0]["status"]), (1, &json!("booked")), "the entry became the appointment");
    assert!(practice.site.get(&practice.desk, "/schedule/waiting").await.body.contains("Nobody is waiting"));
}

#[tokio::test]
async fn a_calendar_feed_says_when_and_never_with_whom() {
    let practice = Practice::new().await;
    let patient = practice.site.patient("Doe").await;
    practice.book(&patient, "2026-06-09", "09:00", &[("reason", "Rash")]).await;
    let page = practice.site.post(&practice.desk, "/schedule/feeds", &[("actor", &practice.doctor)]).await.body;
    let token = page.split("/calendar/").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let feed = practice.site.get(&Site::nobody(), &format!("/calendar/{token}")).await;
    assert_eq!(feed.status, StatusCode::OK);
    assert!(feed.body.contains("DTSTART:20260609T130000Z") && feed.body.contains("SUMMARY:Busy"), "{}", feed.body);
    for private in ["Doe", "Jo", "Rash", patient.as_str()] {
        assert!(!feed.body.contains(private), "{private}");
    }
    assert_eq!(practice.site.get(&Site::nobody(), "/calendar/guess").await.status, StatusCode::NOT_FOUND);
    let list = practice.site.get(&practice.desk, "/schedule/feeds").await.body;
    let own = hidden(&list, "feed").to_owned();
    practice.site.post(&practice.admin, "/schedule/feeds/end", &[("feed", &own)]).await;
    assert_eq!(
        practice.site.get(&Site::nobody(), &format!("/calendar/{token}")).await.status,
        StatusCode::OK,
        "only its maker ends it"
    );
    practice.site.post(&practice.desk, "/schedule/feeds/end", &[("feed", &own)]).await;
    assert_eq!(practice.site.get(&Site::nobody(), &format!("/calendar/{token}")).await.status, StatusCode::NOT_FOUND);
}
