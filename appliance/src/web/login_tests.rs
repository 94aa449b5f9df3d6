//! Logging in and out: codes, lock-outs, idle sessions, invitations.

use super::gate::FORM_COOKIE;
use super::*;
use crate::access::{Role, emergency, lockout, sessions};
use crate::web::tests::{Answer, Browser, IDLE_S, NOW_S, PASSWORD, Site, hidden};
use http::{StatusCode, header};
use service::auth::Totp;

async fn with_login(site: &Site) -> String {
    let secret = Totp::generate_secret();
    site.add_user("anna", Role::Clinician, &service::auth::hash_password(PASSWORD), &secret).await;
    secret
}

async fn log_in(site: &Site, browser: &Browser, password: &str, code: &str) -> Answer {
    site.post(browser, "/login", &[("name", "anna"), ("password", password), ("code", code), ("to", "/patients")]).await
}

#[tokio::test]
async fn login_gives_a_new_session_and_takes_a_code_once() {
    let site = Site::new();
    let secret = with_login(&site).await;
    let code = Totp::current_code(&secret).unwrap();
    // Fixation: a token planted before the login never becomes a session.
    let planted = "planted-token-planted-token-planted-token";
    let victim = Browser { cookie: format!("{FORM_COOKIE}=f; {}={planted}", sessions::COOKIE), csrf: "f".into() };
    let answer = log_in(&site, &victim, PASSWORD, &code).await;
    assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/patients"), "{}", answer.body);
    let token = answer.cookie(sessions::COOKIE).unwrap();
    assert_ne!(token, planted);
    let with = |token: &str| Browser { cookie: format!("{}={token}", sessions::COOKIE), csrf: String::new() };
    assert_eq!(site.get(&with(&token), "/patients").await.status, StatusCode::OK);
    assert_eq!(site.get(&with(planted), "/patients").await.status, StatusCode::SEE_OTHER);
    // Replay of the code, from elsewhere.
    let replay = log_in(&site, &Site::nobody(), PASSWORD, &code).await;
    assert_eq!(replay.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(replay.cookie(sessions::COOKIE).is_none());
}

#[tokio::test]
async fn wrong_logins_all_look_alike_and_lock_the_name_out() {
    let site = Site::new();
    let secret = with_login(&site).await;
    let code = Totp::current_code(&secret).unwrap();
    let nobody = Site::nobody();
    let wrong_password = log_in(&site, &nobody, "wrong password wrong", &code).await;
    let wrong_code = log_in(&site, &nobody, PASSWORD, "000000").await;
    let no_user = site.post(&nobody, "/login", &[("name", "bert"), ("password", PASSWORD), ("code", &code)]).await;
    let message = |page: &str| page[page.find("role=\"alert\"").unwrap()..].split("</div>").next().unwrap().to_owned();
    assert_eq!(message(&wrong_password.body), message(&wrong_code.body));
    assert_eq!(message(&wrong_password.body), message(&no_user.body));
    assert!(!wrong_password.body.contains("wrong password wrong"), "the page repeats the password");
    for _ in 0..3 {
        log_in(&site, &nobody, "wrong password wrong", "000000").await;
    }
    let right = log_in(&site, &nobody, PASSWORD, &code).await;
    assert_eq!(right.status, StatusCode::UNPROCESSABLE_ENTITY, "a locked-out name logged in");
    assert!(right.body.contains("15 minutes"));
    site.later(15 * 60 + 1);
    let code = Totp::current_code(&secret).unwrap();
    assert_eq!(log_in(&site, &nobody, PASSWORD, &code).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn whoever_keeps_guessing_keeps_nobody_out_of_their_own_browser() {
    let site = Site::new();
    let secret = with_login(&site).await;
    let first = log_in(&site, &Site::nobody(), PASSWORD, &Totp::current_code(&secret).unwrap()).await;
    let device = first.cookie(lockout::DEVICE_COOKIE).unwrap();
    let line = first.headers.get_all(header::SET_COOKIE).iter().map(|l| l.to_str().unwrap());
    let line = line.into_iter().find(|l| l.starts_with(lockout::DEVICE_COOKIE)).unwrap();
    assert!(line.contains("HttpOnly") && line.contains("Secure") && line.contains("Max-Age="), "{line}");
    let wrong = "wrong password wrong";
    for _ in 0..8 {
        log_in(&site, &Site::nobody(), wrong, "000000").await;
    }
    // The code of this half minute is spent; a recovery code is the second factor here.
    let recovery =
        |db: &crate::db::Connection| emergency::set_recovery_codes(db, "id-anna", &["ABCD-EFGH-JKLM".to_owned()]);
    site.web.write_accounts(&Actor::anonymous(), recovery).await.unwrap();
    let code = "ABCD-EFGH-JKLM";
    let elsewhere = log_in(&site, &Site::nobody(), PASSWORD, code).await;
    assert!(elsewhere.body.contains("Too many failed attempts"), "a stranger's tries are used up");
    let with = |device: &str| Browser {
        cookie: format!("{FORM_COOKIE}=f; {}={device}", lockout::DEVICE_COOKIE),
        csrf: "f".into(),
    };
    let forged = format!("{}x", &device[..device.len() - 1]);
    assert_eq!(log_in(&site, &with(&forged), PASSWORD, code).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let other = site.post(&with(&device), "/login", &[("name", "bert"), ("password", wrong), ("code", code)]).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    let own = log_in(&site, &with(&device), PASSWORD, code).await;
    assert_eq!(own.status, StatusCode::SEE_OTHER, "{}", own.body);
    assert_eq!(own.cookie(lockout::DEVICE_COOKIE).as_ref(), Some(&device));
    // The cookie gives a few tries and nothing else.
    for _ in 0..8 {
        log_in(&site, &with(&device), wrong, "000000").await;
    }
    assert!(log_in(&site, &with(&device), PASSWORD, code).await.body.contains("Too many failed attempts"));
    let store = site.web.store().clone();
    tokio::task::spawn_blocking(move || crate::access::cli::unlock(&store, "anna")).await.unwrap().unwrap();
    assert!(!log_in(&site, &Site::nobody(), wrong, "1").await.body.contains("Too many"), "an administrator lifts it");
}

#[tokio::test]
async fn tries_made_at_once_do_not_pass_the_bound() {
    let site = Site::new();
    with_login(&site).await;
    let nobody = Site::nobody();
    let tries = (0..12).map(|_| log_in(&site, &nobody, "wrong password wrong", "000000"));
    let answers = futures::future::join_all(tries).await;
    let tried = answers.iter().filter(|answer| !answer.body.contains("Too many failed attempts")).count();
    assert_eq!(tried, 5);
}

/// Somebody who is signed in, has a form of a patient open, and whose session has locked since.
async fn locked() -> (Site, Browser, String) {
    let site = Site::new();
    let secret = with_login(&site).await;
    let answer = log_in(&site, &Site::nobody(), PASSWORD, &Totp::current_code(&secret).unwrap()).await;
    let cookie = format!("{}={}", sessions::COOKIE, answer.cookie(sessions::COOKIE).unwrap());
    let mut browser = Browser { cookie, csrf: String::new() };
    let patient = site.patient("Doe").await;
    let page = site.get(&browser, &format!("/patients/{patient}/problems/new")).await.body;
    browser.csrf = hidden(&page, "csrf").to_owned();
    site.later(IDLE_S + 1);
    (site, browser, patient)
}

#[tokio::test]
async fn an_idle_session_locks_and_keeps_what_was_typed() {
    let (site, browser, patient) = locked().await;
    let path = format!("/patients/{patient}");
    let locked = site.get(&browser, &path).await;
    assert_eq!(locked.location(), format!("/unlock?to={}", form::percent_encode(&path)));
    let fhir = site.get(&browser, "/fhir/R4/Patient").await;
    assert_eq!(fhir.status, StatusCode::UNAUTHORIZED);
    let add = format!("{path}/problems/new");
    let kept = site.post(&browser, &add, &[("patient", &patient), ("what", "Typed before the lock")]).await;
    assert_eq!(kept.status, StatusCode::UNAUTHORIZED);
    assert!(kept.body.contains("Typed before the lock"));
    let wrong = site.post(&browser, "/unlock", &[("password", "wrong password wrong"), ("to", &add)]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields =
        [("password", PASSWORD), ("to", &add), ("kept.patient", &patient), ("kept.what", "Typed before the lock")];
    let unlocked = site.post(&browser, "/unlock", &fields).await;
    assert_eq!(unlocked.status, StatusCode::OK, "{}", unlocked.body);
    let fresh = Browser {
        cookie: format!("{}={}", sessions::COOKIE, unlocked.cookie(sessions::COOKIE).unwrap()),
        ..browser.clone()
    };
    assert_eq!(site.get(&browser, &path).await.status, StatusCode::SEE_OTHER, "the old token still works");
    let saved = site.post(&fresh, &add, &[("patient", &patient), ("what", hidden(&unlocked.body, "what"))]).await;
    assert_eq!(saved.location(), path);
    assert!(site.get(&fresh, &path).await.body.contains("Typed before the lock"));
}

#[tokio::test]
async fn a_locked_session_says_what_it_does_not_keep_and_gives_no_secret_back() {
    let (site, browser, patient) = locked().await;
    // Passwords and codes are in no page.
    let words = "a password of somebody's";
    for (path, fields) in [
        ("/account/keys/new", vec![("label", "My key"), ("key-password", words)]),
        ("/account/password", vec![("now", words), ("new", words), ("again", words)]),
        (&format!("/patients/{patient}/problems/new"), vec![("patient", &patient), ("code", words)]),
    ] {
        let locked = site.post(&browser, path, &fields).await;
        assert_eq!(locked.status, StatusCode::UNAUTHORIZED);
        assert!(
            !locked.body.contains(words) && locked.body.contains("Passwords and codes are not"),
            "{path}: {}",
            locked.body
        );
        let unlock = [("password", PASSWORD), ("to", path), ("lost-secret", hidden(&locked.body, "lost-secret"))];
        let wrong = site.post(&browser, "/unlock", &[("password", "wrong password wrong"), unlock[1], unlock[2]]).await;
        assert!(wrong.body.contains("Passwords and codes are not"), "it is said again: {}", wrong.body);
    }
    // A file is in no page either, and that is said before and after.
    let path = format!("/patients/{patient}/documents/new");
    let head = "content-disposition: form-data; name=";
    let body = format!(
        "--XX\r\n{head}\"csrf\"\r\n\r\n{}\r\n--XX\r\n{head}\"patient\"\r\n\r\n{patient}\r\n--XX\r\n{head}\"description\"\r\n\r\n\
         Scan of today\r\n--XX\r\n{head}\"file\"; filename=\"a.txt\"\r\ncontent-type: text/plain\r\n\r\nimportant\r\n--XX--\r\n",
        browser.csrf
    );
    let request = http::Request::post(&path)
        .header(http::header::COOKIE, &browser.cookie)
        .header(http::header::CONTENT_TYPE, "multipart/form-data; boundary=XX");
    let locked = site.send(request.body(body.into()).unwrap()).await;
    assert_eq!(locked.status, StatusCode::UNAUTHORIZED);
    assert!(
        locked.body.contains("Scan of today") && locked.body.contains("it must be chosen again"),
        "{}",
        locked.body
    );
    let fields = [
        ("password", PASSWORD),
        ("to", &path),
        ("kept.description", "Scan of today"),
        ("lost-file", hidden(&locked.body, "lost-file")),
    ];
    let unlocked = site.post(&browser, "/unlock", &fields).await;
    assert!(unlocked.status.is_success() && unlocked.body.contains("it must be chosen again"), "{}", unlocked.body);
}

#[tokio::test]
async fn a_session_ends_with_logout_and_after_twelve_hours() {
    let site = Site::new();
    let browser = site.session(Role::FrontDesk).await;
    assert_eq!(site.post(&browser, "/logout", &[]).await.location(), "/login");
    assert!(site.get(&browser, "/patients").await.location().starts_with("/login"));
    let browser = site.session(Role::FrontDesk).await;
    for _ in 0..(sessions::ABSOLUTE_S / 500) {
        site.later(500);
        if site.web.now() < NOW_S + sessions::ABSOLUTE_S {
            assert_eq!(site.get(&browser, "/patients").await.status, StatusCode::OK);
        }
    }
    site.later(500);
    assert!(site.get(&browser, "/patients").await.location().starts_with("/login"));
}

#[tokio::test]
async fn an_invited_user_sets_up_and_the_link_is_used_up() {
    let site = Site::new();
    let store = site.web.store().clone();
    let token = tokio::task::spawn_blocking(move || crate::access::cli::invite(&store, Role::PracticeAdmin))
        .await
        .unwrap()
        .unwrap();
    let path = format!("/invite/{token}");
    let page = site.get(&Site::nobody(), &path).await;
    assert!(page.body.contains("<svg"), "no QR code");
    let from = page.body.find("<code>").unwrap() + 6;
    let secret: String = page.body[from..].chars().take_while(|c| *c != '<').filter(|c| *c != ' ').collect();
    let code = Totp::current_code(&secret).unwrap();
    let fields = |password| {
        [("display", "Ada L."), ("name", "ada"), ("password", password), ("again", password), ("code", code.as_str())]
    };
    let weak = site.post(&Site::nobody(), &path, &fields("short")).await;
    assert_eq!(weak.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!weak.body.contains("value=\"short\""));
    assert_eq!(site.post(&Site::nobody(), &path, &fields(PASSWORD)).await.location(), "/login");
    assert_eq!(site.get(&Site::nobody(), &path).await.status, StatusCode::BAD_REQUEST);
    let again = site.post(&Site::nobody(), "/login", &[("name", "ada"), ("password", PASSWORD), ("code", &code)]).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY, "the code of the enrolment logged in");
}
