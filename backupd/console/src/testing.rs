//! A console on a folder of its own for tests, with daemons that do not exist unless a test makes them.

use crate::accounts;
use crate::alerts::deliver::Sender;
use crate::app::App;
use crate::clock::Clock;
use crate::roles::Role;
use crate::routes;
use crate::settings::Settings;
use crate::web::COOKIE;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, header};
use service::auth::Totp;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use tower::ServiceExt;

pub const PASSWORD: &str = "a calm long password";

pub struct Console {
    pub folder: tempfile::TempDir,
    pub app: Arc<App>,
    pub router: Router,
    pub clock: Arc<AtomicI64>,
    pub senders: Vec<Sender>,
}

/// Somebody signed in.
pub struct Person {
    pub cookie: String,
    pub csrf: String,
}

impl Console {
    pub fn new(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "listen = \"127.0.0.1:0\"\ntls_cert = \"c\"\ntls_key = \"k\"\ndata_dir = \"data\"\n\
             serve = \"unix:serve.sock\"\nverifier = \"unix:verifier.sock\"\ntime_zone = \"Europe/Berlin\"\n{extra}"
        );
        let file = folder.path().join("console.toml");
        let settings = Settings::parse(&file, &text).unwrap();
        let clock = Arc::new(AtomicI64::new(Clock::Real.now_ms()));
        let (app, senders) = App::new(settings, Path::new(&file), Clock::Set(clock.clone())).unwrap();
        let router = routes::router(app.clone());
        Self { folder, app, router, clock, senders }
    }

    /// Makes the account and signs in through the page.
    pub async fn person(&self, name: &str, role: Role) -> Person {
        let secret = accounts::create(&self.app.db, self.app.now_ms(), name, role, PASSWORD).unwrap();
        let body = format!(
            "name={name}&password={}&code={}",
            PASSWORD.replace(' ', "+"),
            Totp::current_code(&secret).unwrap()
        );
        let answer = self.post("/sign-in", None, &body).await;
        assert_eq!(answer.status(), 303, "{name}");
        let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
        let token = cookie.split(';').next().unwrap().split_once('=').unwrap().1;
        let caller = self.app.db.write(|tx| accounts::session(tx, self.app.now_ms(), 900_000, token, false));
        Person { cookie: format!("{COOKIE}={token}"), csrf: caller.unwrap().unwrap().csrf }
    }

    pub async fn get(&self, path: &str, person: Option<&Person>) -> Response<Body> {
        let mut request = Request::get(path);
        if let Some(person) = person {
            request = request.header(header::COOKIE, &person.cookie);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// A form post; with a person the right CSRF token goes along.
    pub async fn post(&self, path: &str, person: Option<&Person>, body: &str) -> Response<Body> {
        let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(person) = person {
            request = request.header(header::COOKIE, &person.cookie).header("x-csrf-token", &person.csrf);
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// A form with a file, as a browser sends it.
    pub async fn upload(&self, person: &Person, path: &str, field: &str, bytes: &[u8]) -> Response<Body> {
        let mut body = format!(
            "--b\r\ncontent-disposition: form-data; name=\"_csrf\"\r\n\r\n{}\r\n\
             --b\r\ncontent-disposition: form-data; name=\"{field}\"; filename=\"f\"\r\n\r\n",
            person.csrf
        )
        .into_bytes();
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n--b--\r\n");
        let request = Request::post(path)
            .header(header::COOKIE, &person.cookie)
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=b");
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }
}

pub async fn text(answer: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(answer.into_body(), 8 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}
