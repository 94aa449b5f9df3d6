//! Acting for a patient: who is let in, how far, until when; and every way from there to somebody else's record.

use super::tests::{PASSWORD, Practice};
use crate::access::accounts::AccountError;
use crate::access::proxy::{self, Proxy};
use crate::access::{Action, Actor, Capacity, Program, Reach, Role, authorize, portal};
use crate::store::{StoreError, View};
use crate::web::portal_routes;
use crate::web::tests::{Answer, Browser, Site, hidden};
use crate::web::{Method, Policy};
use http::{StatusCode, header};
use serde_json::json;

const BIRTH: &str = "1985-01-02";
const EVA: &str = "eva@example.org";

impl Practice {
    /// The desk lets Eva Berg act for a patient.
    pub(super) async fn let_eva_act(&self, patient: &str, scope: &str, until: &str) -> Answer {
        self.let_act(patient, &[("scope", scope), ("until", until)]).await
    }

    async fn let_act(&self, patient: &str, changes: &[(&str, &str)]) -> Answer {
        let desk = self.site.session(Role::FrontDesk).await;
        let mut fields = vec![
            ("patient", patient),
            ("given", "Eva"),
            ("family", "Berg"),
            ("birth", BIRTH),
            ("proxy-mail", EVA),
            ("relation", "mother"),
            ("scope", "all"),
            ("until", "2040-01-01"),
        ];
        for (name, value) in changes {
            fields.retain(|(own, _)| own != name);
            fields.push((name, value));
        }
        self.site.post(&desk, &format!("/patients/{patient}/portal/people"), &fields).await
    }

    pub(super) async fn grants(&self, patient: &str) -> Vec<Proxy> {
        let patient = patient.to_owned();
        let read = move |db: &crate::db::Connection| proxy::of_patient(db, &patient);
        self.site.web.store().internal::<_, AccountError, _>(read).await.unwrap()
    }

    async fn change_grant(&self, patient: &str, id: &str, what: &str) -> Answer {
        let desk = self.site.session(Role::FrontDesk).await;
        let path = format!("/patients/{patient}/portal/people/{id}");
        self.site.post(&desk, &path, &[("patient", patient), ("do", what)]).await
    }

    /// A session of Eva's, whose account is made where there is none: the login itself has its own test.
    pub(super) async fn eva(&self) -> Browser {
        let (token, csrf) = (service::auth::random_token(), service::auth::random_token());
        let (fresh, form, now) = (token.clone(), csrf.clone(), self.site.web.now());
        let open = move |db: &crate::db::Connection| {
            let account = match portal::credentials(db, EVA)? {
                Some(found) => found.account.id,
                None => {
                    let sql = "SELECT id FROM portal_proxy WHERE mail = ?1";
                    let id: String = db.query_row(sql, [EVA], |row| row.get(0))?;
                    let waiting = proxy::invited(db, &id, now)?.unwrap();
                    let new = portal::Secrets { id: "eva", password_hash: "!", totp_secret: None, totp_step: None };
                    proxy::set_up(db, &waiting, &new, now)?;
                    "eva".to_owned()
                }
            };
            portal::open(db, &account, &fresh, &form, now)
        };
        self.site.web.write_accounts(&Actor::anonymous(), open).await.unwrap();
        Browser { cookie: format!("{}={token}", portal::COOKIE), csrf }
    }

    /// Chooses for whom a session acts, and takes the new token of its forms.
    pub(super) async fn act_for(&self, browser: &Browser, id: &str) -> Browser {
        let answer = self.post(browser, "/people", &[("for", id)]).await;
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/"), "{}", answer.body);
        let page = self.get(browser, "/").await.body;
        Browser { cookie: browser.cookie.clone(), csrf: hidden(&page, "csrf").to_owned() }
    }

    /// Asks every route of the portal, with these ids in the addresses.
    pub(super) async fn ask_all(
        &self,
        browser: &Browser,
        ids: &[(&str, &str)],
    ) -> Vec<(&'static str, &'static str, Answer)> {
        let mut answers = Vec::new();
        for route in portal_routes(&self.site.web) {
            if route.policy == Policy::Public || route.path == "/logout" {
                continue;
            }
            let path = super::tests::address(&route, ids);
            let fields = [("version", "1"), ("text", "hello"), ("do", "send"), ("a.why", "SECRET")];
            let answer = match route.method {
                Method::Get => self.get(browser, &path).await,
                _ => self.post(browser, &path, &fields).await,
            };
            answers.push((route.method.as_str(), route.path, answer));
        }
        answers
    }
}

#[tokio::test]
async fn a_mother_is_invited_logs_in_and_acts_under_her_own_name() {
    let practice = Practice::open().await;
    let answer = practice.let_eva_act(&practice.ada, "all", "2040-01-01").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let related = practice.newest("RelatedPerson").await;
    assert_eq!(
        (&related["patient"]["reference"], &related["relationship"][0]["coding"][0]["code"], &related["period"]["end"]),
        (&json!(format!("Patient/{}", practice.ada)), &json!("MTH"), &json!("2040-01-01"))
    );
    let mail = practice.mails().await.pop().unwrap();
    assert!(mail.contains(EVA) && !mail.contains("Adams"), "the mail names no patient: {mail}");
    let from = mail.find("/invite/").unwrap();
    let link: String =
        mail[from..].chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_')).collect();
    let nobody = Site::nobody();
    let page = practice.get(&nobody, &link).await.body;
    assert!(page.contains("Act for somebody") && !page.contains("Adams"), "{page}");
    let fields =
        |birth: &'static str| [("birth", birth), ("password", PASSWORD), ("again", PASSWORD), ("factor", "mail")];
    let wrong = practice.post(&nobody, &link, &fields("1960-05-06")).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY, "the patient's birth date is not hers");
    let made = practice.post(&nobody, &link, &fields(BIRTH)).await;
    assert_eq!((made.status, made.location()), (StatusCode::SEE_OTHER, "/login"), "{}", made.body);
    let step = practice.post(&nobody, "/login", &[("mail", EVA), ("password", PASSWORD)]).await;
    let mail = practice.mails().await.pop().unwrap();
    let code: String = mail.split("code ").nth(1).unwrap().chars().filter(char::is_ascii_digit).take(6).collect();
    let token = hidden(&step.body, "token").to_owned();
    let entered = practice.post(&nobody, "/login/code", &[("token", &token), ("code", &code)]).await;
    assert_eq!((entered.status, entered.location()), (StatusCode::SEE_OTHER, "/"), "{}", entered.body);
    let line = entered.headers.get_all(header::SET_COOKIE).iter().next().unwrap().to_str().unwrap();
    let eva = Browser { cookie: line.split(';').next().unwrap().to_owned(), csrf: String::new() };
    let start = practice.get(&eva, "/").await.body;
    assert!(start.contains("You act for <b>Jo Adams</b>, born 6 May 1960") && start.contains("as mother"), "{start}");
    let eva = Browser { csrf: hidden(&start, "csrf").to_owned(), ..eva };
    assert!(practice.get(&eva, "/record").await.body.contains("of Ada"));
    assert_eq!(practice.post(&eva, "/messages", &[("text", "She coughs")]).await.status, StatusCode::SEE_OTHER);
    // The practice sees who wrote, and so does the patient; and who looked, by name.
    let doctor = practice.site.session(Role::Clinician).await;
    let thread = practice.site.get(&doctor, &format!("/patients/{}/messages", practice.ada)).await.body;
    assert!(thread.contains("Eva Berg (mother)") && thread.contains("She coughs"), "{thread}");
    assert!(practice.get(&eva, "/messages").await.body.contains("<b>You</b>"));
    let ada = practice.session(&practice.ada).await;
    let messages = practice.get(&ada, "/messages").await.body;
    assert!(messages.contains("<b>Eva Berg (mother)</b>"), "{messages}");
    practice.get(&ada, "/record").await;
    let told = practice.get(&ada, "/access").await.body;
    assert!(told.contains("Eva Berg (mother)") && told.contains("acts for you") && told.contains(">You<"), "{told}");
    let told = practice.get(&eva, "/access").await.body;
    assert!(told.contains(">You<") && told.contains("The patient") && !told.contains("Eva Berg"), "{told}");
    // Who and for whom, in the access record.
    let entries = practice.site.web.store().internal(|db| crate::audit::search(db, &Default::default(), 500)).await;
    let of_eva: Vec<_> = entries.unwrap().into_iter().filter(|entry| entry.capacity == "proxy").collect();
    let read = of_eva.iter().find(|entry| entry.action == "search" && entry.kind == "Condition").unwrap();
    assert_eq!((read.actor_name.as_str(), &read.patient), ("Eva Berg (mother)", &practice.ada));
    assert!(of_eva.iter().all(|entry| entry.patient.is_empty() || entry.patient == practice.ada));
}

#[tokio::test]
async fn who_acts_for_one_never_reaches_another() {
    let practice = Practice::open().await;
    let note = practice.note(&practice.bob, "SECRET", "final").await;
    let appointment = practice.appointment(&practice.bob, "2030-05-06T10:00:00Z").await;
    let form = practice.form(&practice.bob).await;
    practice.let_eva_act(&practice.ada, "all", "2040-01-01").await;
    // A grant of somebody else's for the other patient.
    practice.let_act(&practice.bob, &[("proxy-mail", "x@example.org"), ("given", "Xaver")]).await;
    let foreign = practice.grants(&practice.bob).await.remove(0).id;
    let eva = practice.eva().await;
    assert_eq!(practice.get(&eva, "/record").await.status, StatusCode::OK);
    let ids = [("document", note.as_str()), ("appointment", &appointment), ("form", &form)];
    for (method, path, answer) in practice.ask_all(&eva, &ids).await {
        assert!(!answer.body.contains("SECRET") && !answer.body.contains(&practice.bob), "{method} {path}");
        if path.contains('{') {
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
        }
    }
    for id in [foreign.as_str(), "own", "", "nothing"] {
        let answer = practice.post(&eva, "/people", &[("for", id)]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{id}");
    }
    assert!(practice.get(&eva, "/").await.body.contains("Jo Adams"), "and acts for whom she acted");
    assert_eq!(practice.site.read("Appointment", &appointment).await["status"], "booked");
    assert_eq!(practice.site.read("QuestionnaireResponse", &form).await["status"], "in-progress");
    let grant = practice.grants(&practice.ada).await.remove(0);
    let (actor, other) = (Actor::of_proxy("eva", &grant), practice.bob.clone());
    let everything = move |view: &View<'_>| {
        assert!(view.read("Patient", &other).is_err() && view.read("DocumentReference", &note).is_err());
        assert!(view.everything(&other, &Default::default()).is_err() && view.access_record(&other, 10).is_err());
        for kind in ["Patient", "Condition", "DocumentReference", "Appointment", "QuestionnaireResponse"] {
            let found = view.search(&crate::store::Query::all(kind)?)?;
            assert!(found.resources.iter().all(|found| !found.body.contains(&other)), "{kind}");
        }
        Ok::<_, StoreError>(())
    };
    practice.site.web.store().view(&actor, everything).await.unwrap();
    // The desk's address for one patient changes nothing of another's.
    let id = grant.id;
    assert_ne!(practice.change_grant(&practice.bob, &id, "withdraw").await.status, StatusCode::SEE_OTHER);
    assert!(!practice.grants(&practice.ada).await.is_empty());
}

#[tokio::test]
async fn what_is_over_or_withdrawn_opens_nothing() {
    let practice = Practice::open().await;
    let note = practice.note(&practice.ada, "of Ada", "final").await;
    let closed = async |browser: &Browser, why: &str| {
        for (method, path, answer) in practice.ask_all(browser, &[("document", &note)]).await {
            assert!(!answer.body.contains("of Ada") && !answer.body.contains("Adams"), "{why}: {method} {path}");
            let open = path == "/people" && method == "GET" || path == "/" && answer.location() == "/people";
            assert!(open || answer.status.is_client_error(), "{why}: {method} {path} {}", answer.status);
        }
        assert!(practice.get(browser, "/people").await.body.contains("no access to anybody"), "{why}");
    };
    // Withdrawn while she is logged in.
    practice.let_eva_act(&practice.ada, "all", "2040-01-01").await;
    let eva = practice.eva().await;
    assert!(practice.get(&eva, "/record").await.body.contains("of Ada"));
    let grant = practice.grants(&practice.ada).await.remove(0);
    assert_eq!(practice.change_grant(&practice.ada, &grant.id, "withdraw").await.status, StatusCode::SEE_OTHER);
    closed(&eva, "withdrawn").await;
    assert_eq!(practice.post(&eva, "/people", &[("for", &grant.id)]).await.status, StatusCode::NOT_FOUND);
    closed(&practice.eva().await, "withdrawn, and logged in again").await;
    assert_eq!(practice.site.read("RelatedPerson", &grant.related).await["active"], false);
    // Granted again, to an account that is there: no invitation, until the last day.
    let (zone, now) = (practice.site.web.settings().zone, practice.site.web.now());
    let today = crate::dates::today(now, zone).to_string();
    let again = practice.let_eva_act(&practice.ada, "all", &today).await;
    assert_eq!(again.status, StatusCode::SEE_OTHER, "{}", again.body);
    let ends = practice.grants(&practice.ada).await.remove(0).ends;
    let eva = practice.eva().await;
    assert!(practice.get(&eva, "/record").await.body.contains("of Ada"));
    practice.site.later(ends - 1 - practice.site.web.now());
    let eva = practice.eva().await;
    assert!(practice.get(&eva, "/record").await.body.contains("of Ada"), "the last second");
    practice.site.later(1);
    closed(&eva, "over").await;
    closed(&practice.eva().await, "over, and logged in again").await;
    let past = practice.let_act(&practice.ada, &[("until", "2020-01-01")]).await;
    assert_eq!(past.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn an_invitation_ends_with_what_it_was_for() {
    let practice = Practice::open().await;
    practice.let_eva_act(&practice.ada, "all", "2040-01-01").await;
    let grant = practice.grants(&practice.ada).await.remove(0);
    assert_eq!(practice.change_grant(&practice.ada, &grant.id, "invite").await.status, StatusCode::OK);
    let mail = practice.mails().await.pop().unwrap();
    let from = mail.find("/invite/").unwrap();
    let link: String =
        mail[from..].chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_')).collect();
    assert_eq!(practice.get(&Site::nobody(), &link).await.status, StatusCode::OK);
    practice.change_grant(&practice.ada, &grant.id, "withdraw").await;
    assert_eq!(practice.get(&Site::nobody(), &link).await.status, StatusCode::BAD_REQUEST);
    assert_ne!(practice.change_grant(&practice.ada, &grant.id, "invite").await.status, StatusCode::OK);
}

#[tokio::test]
async fn for_appointments_means_nothing_of_the_record() {
    let practice = Practice::open().await;
    let note = practice.note(&practice.ada, "of Ada", "final").await;
    let form = practice.form(&practice.ada).await;
    let appointment = practice.appointment(&practice.ada, "2030-05-06T09:00:00Z").await;
    practice.let_eva_act(&practice.ada, "appointments", "2040-01-01").await;
    let eva = practice.eva().await;
    let ids = [("document", note.as_str()), ("form", &form), ("appointment", "nothing")];
    for (method, path, answer) in practice.ask_all(&eva, &ids).await {
        for told in ["of Ada", "Before the visit", "Who looked", "waits for you", "/record", "/messages", "SECRET"] {
            assert!(!answer.body.contains(told), "{method} {path} tells {told}");
        }
        let open = method == "GET" && ["/", "/appointments", "/people"].contains(&path);
        assert_eq!(answer.status.is_success(), open, "{method} {path} {}", answer.status);
    }
    assert!(practice.get(&eva, "/").await.body.contains("for appointments only"));
    assert!(practice.get(&eva, "/appointments").await.body.contains("Check-up"));
    let cancel = format!("/appointments/{appointment}/cancel");
    assert_eq!(practice.post(&eva, &cancel, &[("version", "1")]).await.status, StatusCode::SEE_OTHER);
    let cancelled = practice.site.read("Appointment", &appointment).await;
    assert_eq!(cancelled["cancelationReason"]["text"], "Cancelled by Eva Berg (mother) in the portal");
    // And the store says the same, whatever a handler might ask.
    let actor = Actor::of_proxy("eva", &practice.grants(&practice.ada).await[0]);
    assert_eq!(actor.capacity, Capacity::Proxy(Reach::Appointments));
    for kind in ["Condition", "DocumentReference", "Observation", "Communication", "QuestionnaireResponse"] {
        for action in Action::ALL {
            assert!(authorize(&actor, action, crate::access::Object::resource(kind)).is_err(), "{kind}");
        }
    }
    let read = move |view: &View<'_>| view.read("DocumentReference", &note).map(drop);
    assert!(practice.site.web.store().view::<_, StoreError, _>(&actor, read).await.is_err());
}

#[tokio::test]
async fn a_form_that_was_drawn_for_one_is_never_sent_for_another() {
    let practice = Practice::open().await;
    let note = practice.note(&practice.ada, "of Ada", "final").await;
    practice.let_eva_act(&practice.ada, "all", "2040-01-01").await;
    practice.let_eva_act(&practice.bob, "all", "2040-01-01").await;
    let eva = practice.eva().await;
    // Several people, none chosen: nothing is open.
    assert_eq!(practice.get(&eva, "/").await.location(), "/people");
    assert_eq!(practice.get(&eva, "/record").await.status, StatusCode::FORBIDDEN);
    let page = practice.get(&eva, "/people").await.body;
    assert!(page.contains("Adams") && page.contains("SECRETperson"), "{page}");
    let (ada, bob) = (practice.grants(&practice.ada).await.remove(0), practice.grants(&practice.bob).await.remove(0));
    let for_ada = practice.act_for(&eva, &ada.id).await;
    assert_eq!(practice.get(&eva, &format!("/documents/{note}/file")).await.status, StatusCode::OK);
    let for_bob = practice.act_for(&for_ada, &bob.id).await;
    assert_eq!(practice.get(&eva, &format!("/documents/{note}/file")).await.status, StatusCode::NOT_FOUND);
    let old = practice.post(&for_ada, "/messages", &[("text", "about Ada")]).await;
    assert_eq!(old.status, StatusCode::FORBIDDEN, "a form of the other tab");
    assert!(practice.all("Communication").await.is_empty());
    assert_eq!(practice.post(&for_bob, "/messages", &[("text", "about Bob")]).await.status, StatusCode::SEE_OTHER);
    let sent = practice.newest("Communication").await;
    assert_eq!(sent["subject"]["reference"], format!("Patient/{}", practice.bob));
}

#[tokio::test]
async fn an_address_opens_records_for_its_own_person_alone() {
    let practice = Practice::open().await;
    // Bob has a record and a login of his own; he is the father.
    practice.session(&practice.bob).await;
    let own = format!("{}@example.org", practice.bob);
    let wrong = practice.let_act(&practice.ada, &[("proxy-mail", &own), ("birth", "1985-01-02")]).await;
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.body.contains("another birth date"));
    let same = practice.let_act(&practice.bob, &[("proxy-mail", &own), ("birth", "1960-05-06")]).await;
    assert!(same.status == StatusCode::UNPROCESSABLE_ENTITY && same.body.contains("own address"));
    assert!(practice.all("RelatedPerson").await.is_empty(), "nothing is left of what was refused");
    let given = practice.let_act(&practice.ada, &[("proxy-mail", &own), ("birth", "1960-05-06")]).await;
    assert_eq!(given.status, StatusCode::SEE_OTHER, "{}", given.body);
    let bob = practice.session(&practice.bob).await;
    assert!(practice.get(&bob, "/").await.body.contains("You see your own record"), "and not another one unasked");
    let grant = practice.grants(&practice.ada).await.remove(0);
    let for_ada = practice.act_for(&bob, &grant.id).await;
    assert!(practice.get(&for_ada, "/record").await.body.contains("of Ada"));
    let back = practice.act_for(&for_ada, "own").await;
    let record = practice.get(&back, "/record").await.body;
    assert!(record.contains("SECRET") && !record.contains("of Ada"));
    // Somebody with an account of this kind is not taken for somebody else either, and is not let in twice.
    practice.let_eva_act(&practice.bob, "all", "2040-01-01").await;
    practice.eva().await;
    let other = practice.let_act(&practice.ada, &[("birth", "1986-01-02")]).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    let twice = practice.let_eva_act(&practice.bob, "all", "2040-01-01").await;
    assert!(twice.status == StatusCode::UNPROCESSABLE_ENTITY && twice.body.contains("already"));
    // The patient whose address it is ends nothing of others' by logging in anew; the desk that ends his access does.
    let desk = practice.site.session(Role::FrontDesk).await;
    let fields = [("patient", practice.bob.as_str()), ("do", "end")];
    practice.site.post(&desk, &format!("/patients/{}/portal", practice.bob), &fields).await;
    assert!(practice.get(&back, "/").await.location().starts_with("/login"));
}

#[tokio::test]
async fn somebody_who_acts_becomes_a_patient_with_the_same_login() {
    let practice = Practice::open().await;
    practice.let_act(&practice.ada, &[("birth", "1960-05-06")]).await;
    practice.eva().await;
    let secrets = |birth| portal::NewAccount {
        id: "new",
        patient: "the-patient",
        mail: EVA,
        password_hash: "!",
        totp_secret: None,
        totp_step: None,
        birth,
    };
    let own = practice.bob.clone();
    let join = move |db: &crate::db::Connection| {
        for birth in [None, Some("1961-05-06")] {
            let refused = portal::set_up(db, &portal::NewAccount { patient: &own, ..secrets(birth) }, 1000);
            assert!(matches!(refused, Err(AccountError::MailTaken)), "{birth:?}");
        }
        portal::set_up(db, &portal::NewAccount { patient: &own, ..secrets(Some("1960-05-06")) }, 1000)?;
        let account = portal::of_patient(db, &own)?.unwrap();
        assert_eq!((account.id.as_str(), account.mail.as_str()), ("eva", EVA));
        assert_eq!(proxy::of_account(db, "eva", 1000)?.len(), 1);
        Ok::<_, AccountError>(())
    };
    practice.site.web.write_accounts(&Actor::program(Program::CommandLine), join).await.unwrap();
}

#[tokio::test]
async fn a_grant_is_withdrawn_whatever_became_of_its_resource() {
    let practice = Practice::open().await;
    practice.let_eva_act(&practice.ada, "all", "2040-01-01").await;
    let eva = practice.eva().await;
    let grant = practice.grants(&practice.ada).await.remove(0);
    let related = grant.related.clone();
    let admin = Actor::staff("u", "u", Role::PracticeAdmin);
    let delete = move |tx: &mut crate::store::Tx<'_>| tx.delete("RelatedPerson", &related, None);
    practice.site.web.store().write::<_, StoreError, _>(&admin, delete).await.unwrap();
    assert_eq!(practice.change_grant(&practice.ada, &grant.id, "withdraw").await.status, StatusCode::SEE_OTHER);
    assert_eq!(practice.get(&eva, "/record").await.status, StatusCode::FORBIDDEN);
}
