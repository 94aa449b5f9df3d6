//! The console over its real router and database: who may do what, and what a browser is told.

use crate::accounts;
use crate::audit;
use crate::lockout::{self, DEVICE_COOKIE, Origin};
use crate::roles::Role;
use crate::routes::{Policy, ROUTES, Verb};
use crate::testing::{Console, PASSWORD, text};
use crate::web::{CSRF_FIELD, Refusal};
use axum::body::Body;
use axum::http::{Request, header};
use service::auth::Totp;
use std::sync::atomic::Ordering;

/// A path that fits the route's pattern and names nothing that exists.
fn concrete(path: &str) -> String {
    path.replace("{id}", "1").replace("{token}", "none").replace("{name}", "none")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_do_exactly_what_the_table_says() {
    let console = Console::new("");
    for role in Role::ALL {
        let person = console.person(role.word(), role).await;
        for route in ROUTES.iter().filter(|route| route.path != "/sign-out") {
            let path = concrete(route.path);
            let answer = match route.verb {
                Verb::Get => console.get(&path, Some(&person)).await,
                Verb::Post => console.post(&path, Some(&person), "").await,
            };
            let allowed = match route.policy {
                Policy::Public(_) | Policy::SignedIn => true,
                Policy::May(action) => role.may(action),
            };
            let status = answer.status().as_u16();
            assert_eq!(status != 403, allowed, "{role:?} {:?} {path}: {status}", route.verb);
            assert!(answer.headers().get(header::LOCATION).is_none_or(|to| to != "/sign-in"), "{role:?} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_enters_without_signing_in() {
    let console = Console::new("");
    for route in ROUTES.iter().filter(|route| !matches!(route.policy, Policy::Public(_))) {
        let path = concrete(route.path);
        let answer = match route.verb {
            Verb::Get => console.get(&path, None).await,
            Verb::Post => console.post(&path, None, "").await,
        };
        assert_eq!(answer.status(), 303, "{path}");
        assert_eq!(answer.headers()[header::LOCATION], "/sign-in", "{path}");
    }
    assert_eq!(console.get("/nothing", None).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_needs_the_sessions_own_token_and_our_own_page() {
    let console = Console::new("");
    let anna = console.person("anna", Role::Owner).await;
    let bert = console.person("bert", Role::Owner).await;
    for route in ROUTES.iter().filter(|r| r.verb == Verb::Post && !matches!(r.policy, Policy::Public(_))) {
        let path = concrete(route.path);
        for body in [String::new(), format!("{CSRF_FIELD}={}", bert.csrf)] {
            let request = Request::post(&path)
                .header(header::COOKIE, &anna.cookie)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            let answer = console.send(request.body(Body::from(body)).unwrap()).await;
            assert_eq!(answer.status(), 403, "{path}");
            assert!(text(answer).await.contains("The form was not accepted"), "{path}");
        }
        for (name, value) in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
        {
            let request = Request::post(&path)
                .header(header::HOST, "console.example")
                .header(header::COOKIE, &anna.cookie)
                .header("x-csrf-token", &anna.csrf)
                .header(name, value);
            assert_eq!(console.send(request.body(Body::empty()).unwrap()).await.status(), 403, "{path} {name} {value}");
        }
    }
    let request = Request::post("/alerts/test")
        .header(header::HOST, "console.example")
        .header(header::ORIGIN, "https://console.example")
        .header(header::COOKIE, &anna.cookie)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let answer = console.send(request.body(Body::from(format!("{CSRF_FIELD}={}", anna.csrf))).unwrap()).await;
    assert_eq!(answer.status(), 303, "our own form");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_and_the_headers_protect_the_browser() {
    let console = Console::new("");
    let secret = accounts::create(&console.app.db, console.app.now_ms(), "anna", Role::Auditor, PASSWORD).unwrap();
    let body =
        format!("name=anna&password={}&code={}", PASSWORD.replace(' ', "+"), Totp::current_code(&secret).unwrap());
    let answer = console.post("/sign-in", None, &body).await;
    let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap();
    for part in ["__Host-", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let again = console.post("/sign-in", None, &body).await;
    assert_eq!(again.status(), 422, "a code opens one session only");
    for answer in [again, console.get("/sign-in", None).await, console.get("/nothing", None).await] {
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        let page = text(answer).await;
        assert!(
            !page.contains(" style=") && !page.contains("<style") && !page.contains(" onclick="),
            "the policy forbids it"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_passwords_lock_that_place_and_say_nothing_else() {
    let console = Console::new("");
    let secret = accounts::create(&console.app.db, console.app.now_ms(), "anna", Role::Auditor, PASSWORD).unwrap();
    let code = Totp::current_code(&secret).unwrap();
    let mut pages = Vec::new();
    for _ in 0..5 {
        pages.push(text(console.post("/sign-in", None, &format!("name=anna&password=wrong&code={code}")).await).await);
    }
    let right = |secret| {
        let code = Totp::current_code(secret).unwrap();
        format!("name=anna&password={}&code={code}", PASSWORD.replace(' ', "+"))
    };
    let locked = console.post("/sign-in", None, &right(&secret)).await;
    assert_eq!(locked.status(), 422);
    pages.push(text(locked).await);
    assert!(pages.iter().all(|page| *page == pages[0]), "locked and wrong look the same");
    // A browser that the person has used is not kept out with it.
    let known = console.app.db.write(|tx| {
        let from = Origin { address: [192, 0, 2, 9].into(), device: None };
        let counted = lockout::admit(tx, console.app.now_ms(), "anna", from)?.unwrap();
        lockout::succeeded(tx, &counted, "anna", from)
    });
    let device = known.unwrap().unwrap();
    let request = Request::post("/sign-in")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::COOKIE, format!("{DEVICE_COOKIE}={device}"));
    let own = console.send(request.body(Body::from(right(&secret))).unwrap()).await;
    assert_eq!(own.status(), 303);
    let cookies: Vec<_> = own.headers().get_all(header::SET_COOKIE).iter().map(|c| c.to_str().unwrap()).collect();
    assert!(cookies.iter().any(|c| c.starts_with(DEVICE_COOKIE) && c.contains("Max-Age=")), "{cookies:?}");
    let spent = |tx: &rusqlite::Transaction<'_>| tx.execute("UPDATE users SET totp_step = 0", []);
    console.app.db.write(|tx| spent(tx)).unwrap();
    console.clock.fetch_add(15 * 60_000 + 1000, Ordering::SeqCst);
    assert_eq!(console.post("/sign-in", None, &right(&secret)).await.status(), 303, "the lock ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_left_open_does_not_keep_the_session_alive() {
    let console = Console::new("idle_s = 60\n");
    let person = console.person("anna", Role::Owner).await;
    let poll = || {
        let request = Request::get("/").header(header::COOKIE, &person.cookie).header("hx-request", "true");
        console.send(request.body(Body::empty()).unwrap())
    };
    for _ in 0..5 {
        assert_eq!(poll().await.status(), 200);
        console.clock.fetch_add(10_000, Ordering::SeqCst);
    }
    assert_eq!(console.get("/", Some(&person)).await.status(), 200, "a click does");
    console.clock.fetch_add(59_000, Ordering::SeqCst);
    assert_eq!(poll().await.status(), 200);
    console.clock.fetch_add(1_000, Ordering::SeqCst);
    let ended = poll().await;
    assert_eq!(ended.headers()["hx-redirect"], "/sign-in");
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_ends_the_session() {
    let console = Console::new("");
    let person = console.person("anna", Role::Owner).await;
    assert_eq!(console.post("/sign-out", Some(&person), "").await.status(), 303);
    assert_eq!(console.get("/", Some(&person)).await.status(), 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_maintenance_healed_and_what_is_left_is_shown_and_alarmed() {
    use backupd_api::{
        Alert, AlertKind, Event, HealedBy, HealedRow, Listener, MaintainStatus, MaintainStore, Severity, StoreCondition,
    };
    let console = Console::new("maintain = \"unix:maintain.sock\"\n");
    let listener = Listener::bind_unix(&console.folder.path().join("maintain.sock")).unwrap();
    let row = |store: &str, condition, left: Vec<String>| MaintainStore {
        store: store.to_owned(),
        condition,
        since_unix_ms: 0,
        looked_unix_ms: Some(1_795_000_000_000),
        objects: 40,
        bytes: 1 << 20,
        checked: 4,
        bytes_read: 1 << 18,
        verified_since_unix_ms: None,
        overdue: 0,
        missing: 0,
        corrupt: 1,
        healed: 0,
        healed_ever: 7,
        left,
    };
    let object = format!("packs/ab/{}", "ab".repeat(32));
    let healed = HealedRow {
        at_unix_ms: 1_795_000_000_000,
        store: "north".to_owned(),
        object: object.clone(),
        from: "south".to_owned(),
        by: HealedBy::Replaced,
        bytes: 65536,
    };
    let status = MaintainStatus {
        now_unix_ms: 1_795_000_000_000,
        running: None,
        next_unix_ms: None,
        stores: vec![row("north", StoreCondition::Ok, Vec::new()), row("south", StoreCondition::Corrupt, vec![object])],
        healed: vec![healed],
        alerts: vec![Alert {
            kind: AlertKind::StoreCorrupt,
            severity: Severity::Critical,
            subject: Some("south".to_owned()),
            since_unix_ms: 1_795_000_000_000,
        }],
    };
    tokio::spawn(async move {
        while let Ok(incoming) = listener.accept().await {
            let Ok(mut connection) = incoming.greet().await else { continue };
            while let Ok(Some(_)) = connection.recv().await {
                let _ = connection.send(&Event::MaintainStatus(status.clone())).await;
            }
        }
    });
    let person = console.person("anna", Role::Owner).await;
    crate::poll::maintain(&console.app).await.unwrap();
    let page = text(console.get("/", Some(&person)).await).await;
    for words in ["Is what lies there still whole?", "An object is corrupt", "Last healed", "from south"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let alerts = text(console.get("/alerts", Some(&person)).await).await;
    assert!(alerts.contains("south"), "{alerts}");
    // Who has no maintenance sees nothing of it.
    let without = Console::new("");
    let person = without.person("anna", Role::Owner).await;
    assert!(!text(without.get("/", Some(&person)).await).await.contains("still whole"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_works_in_words_while_all_daemons_are_down() {
    let console = Console::new("agents = [\"http://127.0.0.1:9\"]\n");
    let person = console.person("anna", Role::Owner).await;
    for _ in 0..2 {
        crate::poll::serve(&console.app).await.unwrap();
        crate::poll::verifier(&console.app).await.unwrap();
        crate::poll::agent(&console.app, 0).await.unwrap();
    }
    for (path, words) in [
        ("/", "backupd serve does not answer"),
        ("/", "backupd verifier does not answer"),
        ("/snapshots", "backupd serve does not answer"),
        ("/reports", "No drill runs while it is down"),
        ("/deletions", "Nothing is known of deletions now"),
        ("/hosts", "The agent has not answered"),
        ("/alerts", "A program of the backup system does not answer"),
        ("/record", "Unbroken"),
        ("/accounts", "anna"),
    ] {
        let answer = console.get(path, Some(&person)).await;
        assert_eq!(answer.status(), 200, "{path}");
        let page = text(answer).await;
        assert!(page.contains(words), "{path}: {page}");
    }
    let report = console.get("/reports/abc", Some(&person)).await;
    assert_eq!(report.status(), 503);
    assert!(text(report).await.contains("Reports are kept"));
    assert_eq!(console.post("/start/backup", Some(&person), "").await.status(), 303);
    let mut page = String::new();
    for _ in 0..1000 {
        page = text(console.get("/", Some(&person)).await).await;
        if page.contains("Did not work") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(page.contains("Did not work") && page.contains("is the daemon running"), "{page}");
    let entries = console.app.db.read(|db| Ok::<_, Refusal>(audit::page(db, i64::MAX, 10)?)).unwrap();
    let acts: Vec<&str> = entries.iter().map(|entry| entry.act.as_str()).collect();
    assert!(acts.contains(&"backup-started") && acts.contains(&"backup-ended"), "{acts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_too_long_or_broken_is_refused_in_words() {
    let console = Console::new("");
    let person = console.person("anna", Role::Owner).await;
    let long = console.post("/alerts/test", Some(&person), &"x".repeat(300 << 10)).await;
    assert_eq!(long.status(), 422);
    assert!(text(long).await.contains("256 KiB"));
    let request = Request::post("/reports/1/approval")
        .header(header::COOKIE, &person.cookie)
        .header("x-csrf-token", &person.csrf)
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=x");
    let broken = console.send(request.body(Body::from("--x\r\nnonsense")).unwrap()).await;
    assert_eq!(broken.status(), 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_a_page_with_a_square_and_makes_one_account() {
    let console = Console::new("");
    let token = accounts::invite(&console.app.db, console.app.now_ms(), Role::Auditor).unwrap();
    let path = format!("/invite/{token}");
    let page = text(console.get(&path, None).await).await;
    assert!(page.contains("<svg") && page.contains("Auditor"), "{page}");
    let secret = page.split("<code class=\"wrap\">").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let code = Totp::current_code(&secret).unwrap();
    let good = format!("name=carl&password=a+calm+long+password&again=a+calm+long+password&code={code}");
    let differ = good.replace("again=a", "again=b");
    assert!(text(console.post(&path, None, &differ).await).await.contains("The two passwords differ"));
    assert_eq!(console.post(&path, None, &good).await.status(), 303);
    assert_eq!(console.post(&path, None, &good).await.status(), 422, "used");
    assert_eq!(console.get(&path, None).await.status(), 422, "used");
}
