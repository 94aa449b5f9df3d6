//! The pages, and the task that looks at the host again and again.

use crate::settings::Settings;
use crate::{clock, collect::Collector, metrics, verdict, wall};
use agent_api::{BackupHealth, HostHealth, Level, PowerOff, read_backup_health};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(10);
/// Values older than this are no longer about now.
const AGE_S_MAX: i64 = 60;
/// backupd answers from memory; later than this it is stuck.
const HEALTH_SOCKET_TIMEOUT: Duration = Duration::from_secs(3);

/// What the handlers share: settings and the newest look.
#[derive(Clone)]
pub struct Pages {
    settings: Arc<Settings>,
    newest: watch::Receiver<HostHealth>,
}

/// Looks once, then keeps looking in a task of its own; gives the pages.
pub async fn pages(settings: Settings) -> anyhow::Result<Pages> {
    let collector = Arc::new(Mutex::new(Collector::new(Path::new("/"), settings.clone())));
    let settings = Arc::new(settings);
    let first = look(&collector, &settings).await?;
    let (sender, newest) = watch::channel(first);
    let watched = settings.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            match look(&collector, &watched).await {
                Ok(health) => drop(sender.send(health)),
                // The pages say by themselves that their values have become old.
                Err(_) => log::error!("health.collect-failed"),
            }
        }
    });
    Ok(Pages { settings, newest })
}

/// One look, with backupd's message when its socket answers.
pub async fn look(collector: &Arc<Mutex<Collector>>, settings: &Settings) -> anyhow::Result<HostHealth> {
    let backup = backup(settings).await;
    let collector = collector.clone();
    let look = move || collector.lock().unwrap_or_else(PoisonError::into_inner).collect(clock::unix_s(), backup);
    Ok(tokio::task::spawn_blocking(look).await?)
}

async fn backup(settings: &Settings) -> Option<BackupHealth> {
    match read_backup_health(settings.health_socket.as_deref()?, HEALTH_SOCKET_TIMEOUT).await {
        Ok(health) => Some(health),
        Err(error) => {
            log::warn!(error:%; "backup.health-unknown");
            None
        }
    }
}

pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(async |State(pages): State<Pages>| wall::page(&pages.now(), &pages.settings)))
        .route("/wall.css", get(async || ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], wall::STYLE)))
        .route("/metrics", get(metrics_text))
        .route("/health.json", get(async |State(pages): State<Pages>| axum::Json(pages.now())))
        .with_state(pages)
        .layer(map_response(with_headers))
}

async fn metrics_text(State(pages): State<Pages>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics::render(&pages.now())).into_response()
}

async fn with_headers(mut response: Response) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Pages {
    /// The newest values; when they are too old, with a verdict that says so.
    fn now(&self) -> HostHealth {
        judged_by_age(self.newest.borrow().clone(), clock::unix_s())
    }
}

fn judged_by_age(mut health: HostHealth, now_unix_s: i64) -> HostHealth {
    if now_unix_s.saturating_sub(health.at_unix_s).saturating_abs() > AGE_S_MAX {
        health.verdict = Level::Unknown;
        health.power_off_safe = PowerOff::CallFirst;
        health.backup = health.backup.filter(|backup| verdict::is_current(backup, now_unix_s));
    }
    health
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::{NOW, collector, fresh_backup, healthy_root, settings};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn values_that_no_longer_come_are_unknown() {
        let health = collector(healthy_root().path(), settings("")).collect(NOW, Some(fresh_backup(NOW)));
        assert_eq!(judged_by_age(health.clone(), NOW + 30).power_off_safe, PowerOff::Safe);
        let old = judged_by_age(health, NOW + 61);
        assert_eq!((old.verdict, old.power_off_safe), (Level::Unknown, PowerOff::CallFirst));
    }

    #[tokio::test]
    async fn reads_backupds_socket_and_serves_all_pages() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("health.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let message = serde_json::to_vec(&fresh_backup(clock::unix_s())).unwrap();
                let _ = stream.write_all(&message).await;
            }
        });
        let mut settings = settings("host = 'h1'");
        settings.health_socket = Some(socket);
        let router = router(pages(settings).await.unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(service::http::serve(
            listener,
            None,
            router,
            service::http::Limits::default(),
            std::future::pending(),
        ));
        for (path, words) in [
            ("/", "SAFE now"),
            ("/wall.css", ".verdict"),
            ("/metrics", "holdfast_backup_known 1"),
            ("/health.json", "\"host\":\"h1\""),
        ] {
            let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(words), "{path}: {answer}");
            assert!(answer.contains("content-security-policy: default-src 'none'"));
            if let Some(body) = answer.split("\r\n\r\n").nth(1).filter(|_| path == "/health.json") {
                assert!(serde_json::from_str::<HostHealth>(body).unwrap().backup.is_some());
            }
        }
    }
}
