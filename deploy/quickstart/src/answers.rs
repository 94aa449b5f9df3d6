//! What the programs answer on standard output.

use crate::files;
use anyhow::Context;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;

/// The part of a snapshot's answer that is shown.
#[derive(Debug, Deserialize)]
pub struct Snapshot {
    pub bytes_source: u64,
    pub bytes_added: u64,
    pub write_stall_us: u64,
    pub stores: Vec<StoreOutcome>,
}

#[derive(Debug, Deserialize)]
pub struct StoreOutcome {
    pub store: String,
    pub durable: bool,
}

/// The first object that has `key` in what a command with `--json` wrote: one document, or one a line.
pub fn find<T: DeserializeOwned>(output: &[u8], key: &str) -> anyhow::Result<T> {
    let whole = serde_json::Deserializer::from_slice(output).into_iter::<Value>();
    let object = whole.flatten().find_map(|value| object_with(&value, key).cloned());
    let object = object.context("the program's answer is not understood: build all programs from one source")?;
    serde_json::from_value(object).context("the program's answer lacks a field: build all programs from one source")
}

fn object_with<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) if map.contains_key(key) => Some(value),
        Value::Object(map) => map.values().find_map(|value| object_with(value, key)),
        Value::Array(list) => list.iter().find_map(|value| object_with(value, key)),
        _ => None,
    }
}

/// Whether a daemon refused because something else runs.
pub fn is_busy(output: &[u8]) -> bool {
    let values = serde_json::Deserializer::from_slice(output).into_iter::<Value>();
    values.flatten().any(|value| {
        let kind = object_with(&value, "kind").and_then(|failure| failure.get("kind")).and_then(Value::as_str);
        matches!(kind, Some("busy" | "retry"))
    })
}

/// Bytes done and total of a line of progress.
pub fn progress(line: &str) -> Option<(u64, Option<u64>)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let progress = object_with(&value, "done_bytes")?;
    Some((progress.get("done_bytes")?.as_u64()?, progress.get("total_bytes").and_then(Value::as_u64)))
}

/// The one command that verifies a report with stock tools, and where the others lie. The key's fingerprint comes from
/// the practice's own copy of the key, not from beside the report.
pub fn how_to_verify(reports: &Path, id: &str, key: &Path) -> anyhow::Result<String> {
    let (script, report) = (reports.join(id).join("verify.sh"), reports.join(id).join(format!("{id}.json")));
    Ok(format!(
        "The signed reports lie in {}.\nAn auditor verifies one with bash and openssl alone:\n  \
         bash {} {} --key-fingerprint {}",
        reports.display(),
        files::quoted(&script),
        files::quoted(&report),
        key_fingerprint(key)?
    ))
}

/// SHA-256 of the public key (SubjectPublicKeyInfo), hex.
fn key_fingerprint(pem: &Path) -> anyhow::Result<String> {
    let key = SubjectPublicKeyInfoDer::from_pem_file(pem)
        .with_context(|| format!("{} holds no public key", pem.display()))?;
    Ok(hex::encode(Sha256::digest(&key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_answer_among_progress() {
        let output = b"{\"event\":\"progress\",\"done_bytes\":1,\"total_bytes\":null}\n\
            {\"event\":\"snapshot-done\",\"bytes_source\":5,\"bytes_added\":4,\"write_stall_us\":3,\
            \"stores\":[{\"store\":\"a\",\"durable\":true}]}\n";
        let done: Snapshot = find(output, "bytes_source").unwrap();
        assert!(done.bytes_added == 4 && done.stores[0].durable);
        assert!(find::<Snapshot>(b"{\"x\":1}", "bytes_source").is_err());
        assert!(find::<Snapshot>(b"not json", "bytes_source").is_err());
        assert!(is_busy(b"{\"event\":\"failed\",\"kind\":\"busy\",\"message\":\"a snapshot runs\"}"));
        assert!(!is_busy(b"{\"event\":\"failed\",\"kind\":\"damaged\",\"message\":\"m\"}") && !is_busy(output));
    }

    #[test]
    fn progress_may_lack_a_total() {
        assert_eq!(progress("{\"done_bytes\":7,\"total_bytes\":9}"), Some((7, Some(9))));
        assert_eq!(progress("{\"event\":{\"done_bytes\":7,\"total_bytes\":null}}"), Some((7, None)));
        assert_eq!(progress("words"), None);
    }

    #[test]
    fn the_command_names_the_fingerprint_that_openssl_computes() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("report.pub");
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        std::fs::write(&key, pem).unwrap();
        let text = how_to_verify(Path::new("/p/reports"), "r1", &key).unwrap();
        assert!(text.contains("bash /p/reports/r1/verify.sh /p/reports/r1/r1.json --key-fingerprint a1e9156054e04fac899ae9f275132cdc07a5dbc4ea2c2ad3a1ffc6e0d253681f"), "{text}");
    }
}
