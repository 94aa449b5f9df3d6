use super::*;

const SERVE: &str = include_str!("serve.example.toml");
const VERIFIER: &str = include_str!("verifier.example.toml");

fn load_serve(text: &str) -> Result<ServeSettings, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serve.toml");
    std::fs::write(&path, text).unwrap();
    ServeSettings::load(&path).map_err(|e| e.to_string())
}

fn load_verifier(text: &str) -> Result<VerifierSettings, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("verifier.toml");
    std::fs::write(&path, text).unwrap();
    VerifierSettings::load(&path).map_err(|e| e.to_string())
}

#[test]
fn the_examples_are_valid() {
    let serve = load_serve(SERVE).unwrap();
    assert_eq!(serve.stores.len(), 6);
    assert_eq!(serve.sources[0].schedule.text(), "*/5 * * * *");
    assert!(serve.socket.is_absolute() && serve.socket.ends_with("run/serve.sock"));
    let verifier = load_verifier(VERIFIER).unwrap();
    assert_eq!(verifier.targets.rpo_ms, 900_000);
    assert!(matches!(verifier.probe, Probe::Spawn { .. }));
}

#[test]
fn every_error_names_file_key_and_remedy() {
    let cases = [
        ("quorum = 2", "quorum = 3", "quorum", "number of stores"),
        ("quorum = 2", "quorum = 0", "quorum", "number of stores"),
        ("quorum = 2", "quorum = \"two\"", "quorum", "correct the value"),
        ("quorum = 2", "quorun = 2", "quorun", "correct its spelling"),
        ("site = \"datacenter-north\"\n#", "#", "site", "add the key"),
        ("Europe/Berlin", "Europe/Berln", "time_zone", "IANA"),
        ("\"*/5 * * * *\"", "\"*/5 * *\"", "source.schedule", "5 fields"),
        ("ops_socket = \"run/ops.sock\"", "", "source.ops_socket", "add `ops_socket"),
        ("kind = \"appliance\"", "kind = \"applience\"", "kind", "correct the value"),
        ("name = \"west\"", "name = \"east\"", "store.name", "own name"),
        ("name = \"west\"", "name = \"Jane Doe\"", "store.name", "letters"),
        ("path = \"/srv/holdfast-store\"", "", "store.path", "add `path"),
        ("path = \"/srv/holdfast-store\"", "path = \"/x\"\nbucket = \"b\"", "store.bucket", "remove"),
        ("secret_key_file = \"stores/west.secret\"", "", "store.secret_key_file", "add"),
        ("endpoint = \"https://s3.east.example\"", "endpoint = \"s3.east.example\"", "store.endpoint", "https://HOST"),
        ("endpoint = \"https://s3.east.example\"", "endpoint = \"https://\"", "store.endpoint", "https://HOST"),
        ("bucket = \"practice-backup\"", "bucket = \"practice backup\"", "store.bucket", "name alone"),
        ("prefix = \"holdfast\"", "prefix = \"a//b\"", "store.prefix", "FOLDER"),
        ("store = \"east\"", "store = \"nowhere\"", "duty.store", "[[store]]"),
        ("store = \"east\"", "", "duty.store", "name the store"),
        ("review = \"2027-06-30\"", "review = \"soon\"", "duty.review", "YYYY-MM-DD"),
    ];
    for (from, to, key, remedy) in cases {
        assert!(SERVE.contains(from), "the example lost {from}");
        let error = load_serve(&SERVE.replacen(from, to, 1)).expect_err(to);
        assert!(error.contains("serve.toml"), "no file in: {error}");
        assert!(error.contains(&format!("`{key}`")), "no key {key} in: {error}");
        assert!(error.contains(remedy), "no remedy {remedy:?} in: {error}");
    }
    let cases = [
        ("mode = \"spawn\"", "mode = \"socket\"", "probe.path"),
        ("rpo_ms = 900_000", "rpo_ms = 0", "targets"),
        ("host = \"verifier-1\"", "host = \"my host\"", "host"),
        ("sandbox_dir", "sandbox", "sandbox"),
        ("unix:run/serve.sock", "tls://emr-1:9441", "serve"),
        ("unix:run/serve.sock", "run/serve.sock", "serve"),
    ];
    for (from, to, key) in cases {
        let error = load_verifier(&VERIFIER.replacen(from, to, 1)).expect_err(to);
        assert!(error.contains("verifier.toml") && error.contains(&format!("`{key}`")), "{error}");
    }
}

#[test]
fn a_certificate_without_an_address_is_for_connecting_only() {
    let tls = "[tls]\ncert = \"c.pem\"\nkey = \"k.pem\"\nca = \"ca.pem\"\n";
    let remote = VERIFIER.replacen("unix:run/serve.sock", "tls://emr-1:9441", 1);
    let verifier = remote.replacen("[targets]", &format!("{tls}[targets]"), 1);
    assert!(load_verifier(&verifier).unwrap().tls.unwrap().listen.is_none());
    let error = load_serve(&SERVE.replacen("listen = \"127.0.0.1:8446\"", "", 1)).unwrap_err();
    assert!(error.contains("`tls.listen`"), "{error}");
}

#[test]
fn a_missing_file_and_garbage_are_explained() {
    let error = ServeSettings::load(Path::new("/nonexistent/serve.toml")).unwrap_err().to_string();
    assert!(error.contains("--config"), "{error}");
    for garbage in ["= = =", "practice = \"", "[[[", "\u{0}"] {
        assert!(load_serve(garbage).unwrap_err().contains("serve.toml"));
    }
}

#[test]
fn a_client_finds_the_daemon_in_its_own_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serve.toml");
    std::fs::write(&path, SERVE).unwrap();
    let endpoints = ClientSettings::endpoints(&path).unwrap();
    assert!(matches!(endpoints.serve, Some(backupd_api::Endpoint::Unix(p)) if p.ends_with("run/serve.sock")));
    let path = dir.path().join("cli.toml");
    std::fs::write(&path, "serve = \"unix:run/s\"\nverifier = \"tls://h:1\"\n").unwrap();
    let error = ClientSettings::endpoints(&path).unwrap_err().to_string();
    assert!(error.contains("`verifier`") && error.contains("certificate"), "{error}");
    std::fs::write(&path, "serve = \"unix:run/s\"\n").unwrap();
    assert!(ClientSettings::endpoints(&path).unwrap().verifier.is_none());
}
