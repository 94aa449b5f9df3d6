//! Moving in and out, from a browser.

use super::tests::{Answer, Browser, Site};
use crate::access::Role;
use axum::body::Body;
use http::{Request, StatusCode, header};
use std::process::Command;

const PASSWORD: &str = "correct horse battery staple";

/// Sends a form with files.
pub(in crate::web) async fn send(
    site: &Site,
    browser: &Browser,
    path: &str,
    fields: &[(&str, &str)],
    files: &[(&str, &[u8])],
) -> Answer {
    let mut body = Vec::new();
    for (name, value) in fields.iter().copied().chain([("csrf", browser.csrf.as_str())]) {
        body.extend(format!("--x\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes());
    }
    for (name, bytes) in files {
        let head = format!("--x\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{name}.bin\"\r\n\r\n");
        body.extend(head.into_bytes());
        body.extend_from_slice(bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--x--\r\n");
    let request = Request::post(path)
        .header(header::COOKIE, &browser.cookie)
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=x");
    site.send(request.body(Body::from(body)).unwrap()).await
}

/// The text of a member of an archive, by a reader that was not written here.
pub(in crate::web) fn member(archive: &[u8], name: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), archive).unwrap();
    let script = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\n\
                  n = [n for n in z.namelist() if n.startswith(sys.argv[2])]\nsys.stdout.buffer.write(z.read(n[0]))";
    let told = Command::new("python3").args(["-c", script]).arg(file.path()).arg(name).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8_lossy(&told.stdout).into_owned()
}

#[tokio::test]
async fn an_administrator_looks_first_and_then_brings_a_table_in() {
    let site = Site::new();
    let admin = site.session(Role::PracticeAdmin).await;
    let table = "number;family;given;birth;gender\n1;Abel;Jo;06.05.1960;f\n2;Brandt;Max;1.1.70;m\n";
    let fields =
        |what| [("table", "patients"), ("source", "old"), ("encoding", "unicode"), ("dates", "dmy"), ("do", what)];
    let file = [("file", table.as_bytes())];
    let look = send(&site, &admin, "/practice/import", &fields("look"), &file).await;
    assert_eq!(look.status, StatusCode::OK, "{}", look.body);
    assert!(
        look.body.contains("Nothing was changed") && look.body.contains("patients.csv, line 3: birth"),
        "{}",
        look.body
    );
    assert!(site.get(&admin, "/patients").await.body.contains("No patients are registered yet"));
    let carry = send(&site, &admin, "/practice/import", &fields("carry"), &file).await;
    assert!(carry.body.contains("The rows named below are not in"), "{}", carry.body);
    assert!(site.get(&admin, "/patients").await.body.contains("Abel, Jo"));
    let log = site.get(&admin, "/audit?action=import").await.body;
    assert!(log.contains("import") && !log.contains("No entry fits"), "in the name of who brought it in: {log}");
    for (fields, files) in [
        (vec![("table", "everything"), ("source", "old"), ("encoding", "unicode"), ("dates", "dmy")], &file[..]),
        (vec![("table", "patients"), ("source", "Old!"), ("encoding", "unicode"), ("dates", "dmy")], &file[..]),
        (vec![("table", "patients"), ("source", "old"), ("encoding", "latin"), ("dates", "dmy")], &file[..]),
        (fields("carry").to_vec(), &[]),
    ] {
        let refused = send(&site, &admin, "/practice/import", &fields, files).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{fields:?}");
    }
    let doctor = site.session(Role::Clinician).await;
    assert_eq!(send(&site, &doctor, "/practice/import", &fields("carry"), &file).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn documents_are_brought_in_with_the_files_that_they_name() {
    let site = Site::new();
    let admin = site.session(Role::PracticeAdmin).await;
    let fields =
        |table, what| [("table", table), ("source", "old"), ("encoding", "unicode"), ("dates", "iso"), ("do", what)];
    let patients = "number,family,given,birth,gender\n1,Abel,Jo,1960-05-06,f\n";
    send(&site, &admin, "/practice/import", &fields("patients", "carry"), &[("file", patients.as_bytes())]).await;
    let table = "number,patient,day,description,file\n7,1,2024-05-06,Letter from cardiology,letters\\2024\\files.bin\n";
    let (letter, table) = (("files", &b"%PDF-1.4 a letter"[..]), ("file", table.as_bytes()));
    for (sent, told) in [(&[table][..], "was not sent with the table"), (&[table, letter, letter], "was sent twice")] {
        let look = send(&site, &admin, "/practice/import", &fields("documents", "look"), sent).await;
        assert!(look.body.contains("documents.csv, line 2: file") && look.body.contains(told), "{}", look.body);
    }
    let odd = ("files", &b"MZ\x90\x00 a program"[..]);
    let look = send(&site, &admin, "/practice/import", &fields("documents", "look"), &[table, odd]).await;
    assert!(look.body.contains("is none of PDF"), "{}", look.body);
    for told in ["Every row is in", "Every row is in"] {
        let carry = send(&site, &admin, "/practice/import", &fields("documents", "carry"), &[table, letter]).await;
        assert!(carry.body.contains(told), "{}", carry.body);
    }
    let count = |db: &crate::db::Connection| {
        Ok::<_, crate::store::StoreError>(db.query_row("SELECT count(*) FROM attachment", [], |r| r.get::<_, u32>(0))?)
    };
    assert_eq!(site.web.store().internal_blocking(count).unwrap(), 1, "a repetition adds nothing");
    let doctor = site.session(Role::Clinician).await;
    let list = site.get(&doctor, "/patients").await.body;
    let (_, rest) = list.split_once("href=\"/patients/").unwrap();
    let found = list
        .match_indices("href=\"/patients/")
        .map(|(at, _)| &list[at + 6..])
        .find(|r| !r.starts_with("/patients/new"));
    let chart = found.unwrap_or(rest).split('"').next().unwrap().to_owned();
    let page = site.get(&doctor, &chart).await.body;
    assert!(page.contains("Letter from cardiology"), "{page}");
}

#[tokio::test]
async fn everything_is_exported_by_an_administrator_who_gives_the_password() {
    let site = Site::new();
    let admin = site.session(Role::PracticeAdmin).await;
    let hash = service::auth::hash_password("correct horse battery staple");
    let set = move |db: &crate::db::Connection| {
        db.execute("UPDATE account SET password = ?1", [hash])?;
        Ok(())
    };
    site.web.write_accounts(&crate::access::Actor::anonymous(), set).await.unwrap();
    site.post(&admin, "/practice", &[("alert-mail", "owner@example.org")]).await;
    site.patient("Doe").await;
    let wrong = site.post(&admin, "/practice/export", &[("password", "guess")]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let answer = site.post(&admin, "/practice/export", &[("password", "correct horse battery staple")]).await;
    assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (StatusCode::OK, "application/zip"));
    assert!(member(&answer.bytes, "resources/Patient").contains("\"family\":\"Doe\""));
    assert!(member(&answer.bytes, "manifest.json").contains("\"holdfast-export\""));
    let people = member(&answer.bytes, "people");
    assert!(people.contains("practice-admin") && !people.contains("argon2"), "no password leaves");
    assert!(!answer.body.contains("argon2"));
    let log = site.get(&admin, "/audit?action=export").await.body;
    assert!(log.contains("Practice"), "{log}");
    let mail = |db: &crate::db::Connection| {
        Ok::<_, crate::store::StoreError>(db.query_row("SELECT payload FROM outbox", [], |r| r.get::<_, String>(0))?)
    };
    assert!(site.web.store().internal_blocking(mail).unwrap().contains("owner@example.org"));
    for role in [Role::Clinician, Role::FrontDesk] {
        let other = site.session(role).await;
        assert_eq!(site.get(&other, "/practice/export").await.status, StatusCode::FORBIDDEN);
        let asked = site.post(&other, "/practice/export", &[("password", "correct horse battery staple")]).await;
        assert_eq!(asked.status, StatusCode::FORBIDDEN);
    }
}

/// Whoever finds an open session has a few guesses at its password, and then none.
#[tokio::test]
async fn an_open_session_guesses_no_password() {
    let site = Site::new();
    let admin = site.session(Role::PracticeAdmin).await;
    let hash = site.web.hash_password(PASSWORD.to_owned()).await.unwrap();
    let set = |db: &crate::db::Connection| {
        db.execute("UPDATE account SET password = ?1", [hash])?;
        Ok(())
    };
    site.web.write_accounts(&crate::access::Actor::anonymous(), set).await.unwrap();
    for n in 0..5 {
        let guess = site.post(&admin, "/practice/export", &[("password", &format!("guess {n}"))]).await;
        assert_eq!(guess.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let right = site.post(&admin, "/practice/export", &[("password", PASSWORD)]).await;
    assert_eq!(right.status, StatusCode::UNPROCESSABLE_ENTITY, "the sixth is not looked at");
    assert!(right.body.contains("too many attempts"), "{}", right.body);
    // Nor on any other page that asks.
    let fields = [("now", PASSWORD), ("new", "another calm long one"), ("again", "another calm long one")];
    assert_eq!(site.post(&admin, "/account/password", &fields).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        site.get(&admin, "/audit?action=login").await.body.to_lowercase().contains("failed"),
        "it is in the access record"
    );
    site.later(15 * 60 + 1);
    let admin = site.session_of(&name_of(&site)).await;
    assert_eq!(site.post(&admin, "/practice/export", &[("password", PASSWORD)]).await.status, StatusCode::OK);
}

fn name_of(site: &Site) -> String {
    let name = |db: &crate::db::Connection| db.query_row("SELECT name FROM account", [], |row| row.get(0));
    site.web.store().internal_blocking(|db| Ok::<_, crate::store::StoreError>(name(db)?)).unwrap()
}

#[tokio::test]
async fn a_patients_archive_holds_page_bundle_and_files() {
    let site = Site::new();
    let doctor = site.session(Role::Clinician).await;
    let patient = site.patient("Doe").await;
    let path = format!("/patients/{patient}/documents/new");
    let fields = [("patient", patient.as_str()), ("description", "Letter")];
    let sent = send(&site, &doctor, &path, &fields, &[("file", b"%PDF-1.4 letter")]).await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.body);
    let answer = site.get(&doctor, &format!("/patients/{patient}/export")).await;
    let page = member(&answer.bytes, "record.html");
    assert!(page.contains("<h1>Doe, Jo</h1>") && page.contains("Letter") && page.contains("href=\"files/"), "{page}");
    assert!(!page.contains("http"), "nothing is fetched from anywhere");
    assert_eq!(member(&answer.bytes, "files/"), "%PDF-1.4 letter");
    assert!(member(&answer.bytes, "record.json").starts_with('{'));
}

async fn pull(site: &Site, token: &str) -> Answer {
    let request = Request::get("/downtime/pack").header(header::AUTHORIZATION, format!("Bearer {token}"));
    site.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn an_office_computer_pulls_the_pack_with_its_own_token_and_is_in_the_record() {
    let site = Site::new();
    let admin = site.session(Role::PracticeAdmin).await;
    site.patient("Kilkennydoe").await;
    let copied =
        |page: &str| page.split("<code class=\"copy\">").nth(1).unwrap().split("</code>").next().unwrap().to_owned();
    let admitted = site.post(&admin, "/practice/downtime", &[("do", "admit"), ("name", "Reception")]).await;
    let token = copied(&admitted.body).split("Bearer ").nth(1).unwrap().split('&').next().unwrap().to_owned();
    assert_eq!(pull(&site, &token).await.status, StatusCode::NOT_FOUND, "no pack without a password");
    let password = copied(&site.post(&admin, "/practice/downtime", &[("do", "password")]).await.body);
    let page = site.get(&admin, "/practice/downtime").await.body;
    assert!(!page.contains(&password) && !page.contains(&token) && page.contains("Reception"), "each is shown once");
    let pack = pull(&site, &token).await;
    assert_eq!(
        (pack.status, pack.headers["content-type"].to_str().unwrap()),
        (StatusCode::OK, "text/html; charset=utf-8")
    );
    assert!(pack.body.contains("aria-live") || pack.body.contains("id=\"age\""), "{}", pack.body);
    assert!(!pack.body.contains("Kilkennydoe") && !pack.body.contains(&password));
    assert!(pack.headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
    for wrong in ["", "x", &password] {
        assert_eq!(pull(&site, wrong).await.status, StatusCode::UNAUTHORIZED);
    }
    let log = site.get(&admin, "/audit?action=download").await.body;
    assert!(log.contains("Reception"), "{log}");
    // Its token does nothing else.
    for path in ["/patients", "/fhir/R4/Patient", "/practice/downtime"] {
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        let answer = site.send(request.body(Body::empty()).unwrap()).await;
        assert!(
            answer.status == StatusCode::UNAUTHORIZED || answer.status == StatusCode::SEE_OTHER,
            "{path}: {}",
            answer.status
        );
    }
    let id = crate::web::tests::hidden(&page, "computer").to_owned();
    site.post(&admin, "/practice/downtime", &[("do", "dismiss"), ("computer", &id)]).await;
    assert_eq!(pull(&site, &token).await.status, StatusCode::UNAUTHORIZED);
    let doctor = site.session(Role::Clinician).await;
    assert_eq!(site.post(&doctor, "/practice/downtime", &[("do", "password")]).await.status, StatusCode::FORBIDDEN);
}
