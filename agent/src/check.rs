//! `agent check`: one line and an exit code, as Nagios, Icinga and their kin want it.

use crate::settings::Settings;
use crate::verdict::{findings, percent, word};
use agent_api::{HostHealth, Label, Level, PowerOff, SensorState};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the running agent may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// No answer of an agent is longer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What the running agent sees. It has looked many times and knows a trend, such as a disk that fills; one look does not,
/// and the check would say less than the wall page. `None` where it does not run.
pub async fn of_running(settings: &Settings) -> Option<HostHealth> {
    let mut address = settings.listen;
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let ask = async {
        match &settings.tls_cert {
            None => health_of(TcpStream::connect(address).await?).await,
            Some(cert) => health_of(service::tls::connect_to_own(address, cert).await?).await,
        }
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask).await.ok()?.ok()?;
    let text = std::str::from_utf8(&answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    if head.starts_with("HTTP/1.1 200 ") { serde_json::from_str(body).ok() } else { None }
}

async fn health_of(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<Vec<u8>> {
    stream.write_all(b"GET /health.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// The plugin interface's exit codes.
pub fn exit_code(level: Level) -> u8 {
    match level {
        Level::Ok => 0,
        Level::Warning => 1,
        Level::Critical => 2,
        Level::Unknown => 3,
    }
}

/// `HOLDFAST LEVEL - facts | performance data`.
pub fn line(health: &HostHealth, settings: &Settings) -> String {
    let mut text = format!("HOLDFAST {} - {}", word(&health.verdict).to_uppercase(), power_off(health.power_off_safe));
    for finding in findings(health, settings) {
        text.push_str("; ");
        text.push_str(&finding.what());
    }
    let absent: Vec<String> =
        health.sensors.iter().filter(|s| s.state == SensorState::Absent).map(|s| word(&s.kind)).collect();
    if !absent.is_empty() {
        text.push_str("; sensors absent: ");
        text.push_str(&absent.join(","));
    }
    text.push_str(" |");
    // Writing to a string cannot fail.
    let _ = write!(text, " load1={}", health.load_1m);
    let _ = write!(text, " memory_available={}B", health.memory_bytes_available);
    for filesystem in &health.filesystems {
        let used = 100 - percent(filesystem.bytes_available, filesystem.bytes_total).min(100);
        let _ = write!(text, " {}_used={used}%;90;95;0;100", word(&filesystem.role));
    }
    if let Some(backup) = &health.backup {
        if let Some(age_s) = backup.durable_age_s {
            let _ = write!(text, " backup_age={age_s}s;;{}", backup.durable_age_s_max);
        }
        for store in &backup.stores {
            let _ = write!(text, " {}_lag={}", Label::as_str(&store.store), store.lag_snapshots);
        }
    }
    text
}

/// The one question of whoever stands before the rack.
pub fn power_off(answer: PowerOff) -> &'static str {
    match answer {
        PowerOff::Safe => "power-off is safe",
        PowerOff::WaitForBackup => "power-off: wait, a backup runs",
        PowerOff::CallFirst => "no power-off: call practice IT first",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::{NOW, collector, fresh_backup, healthy_root, settings};

    #[test]
    fn one_line_with_performance_data() {
        let settings = settings("");
        let health = collector(healthy_root().path(), settings.clone()).collect(NOW, Some(fresh_backup(NOW)));
        let text = line(&health, &settings);
        assert_eq!(text.lines().count(), 1);
        let (facts, data) = text.split_once(" | ").unwrap();
        assert!(facts.starts_with("HOLDFAST OK - power-off is safe; sensors absent: temperature,smart"), "{facts}");
        assert!(data.contains("backup_age=120s;;900") && data.contains("load1=0.5"), "{data}");
    }

    #[test]
    fn every_level_has_the_code_of_the_plugin_interface() {
        let codes = [Level::Ok, Level::Warning, Level::Critical, Level::Unknown].map(exit_code);
        assert_eq!(codes, [0, 1, 2, 3]);
    }

    #[test]
    fn an_unknown_backup_is_exit_3_and_no_power_off() {
        let settings = settings("");
        let health = collector(healthy_root().path(), settings.clone()).collect(NOW, None);
        assert_eq!(exit_code(health.verdict), 3);
        assert!(line(&health, &settings).starts_with("HOLDFAST UNKNOWN - no power-off"));
    }

    #[tokio::test]
    async fn the_check_says_what_the_running_agent_sees() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = settings(&format!("listen = \"{}\"", listener.local_addr().unwrap()));
        let mut seen = collector(healthy_root().path(), settings.clone()).collect(NOW, Some(fresh_backup(NOW)));
        seen.verdict = Level::Critical;
        let answer = seen.clone();
        let router = axum::Router::new().route("/health.json", axum::routing::get(async move || axum::Json(answer)));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        assert_eq!(of_running(&settings).await, Some(seen));
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert_eq!(of_running(&settings).await, None, "nobody answers");
    }
}
