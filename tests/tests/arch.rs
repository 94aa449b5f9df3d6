//! The dependency table of ARCHITECTURE.md and the rules of the tree, asserted over `cargo metadata` and the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who may import whom. Equality, not inclusion: an import that is no longer used must leave this table too.
const IMPORTS: &[(&str, &[&str])] = &[
    ("backup-format", &[]),
    ("service", &[]),
    ("local-socket", &[]),
    ("agent-api", &["local-socket"]),
    ("appliance-api", &["local-socket"]),
    ("backup-report", &[]),
    ("backup-engine", &["backup-format"]),
    ("backupd-api", &["backup-report", "local-socket"]),
    ("agent", &["agent-api", "service"]),
    ("appliance", &["appliance-api", "backupd-api", "local-socket", "service"]),
    (
        "backupd",
        &["agent-api", "appliance-api", "backup-engine", "backup-report", "backupd-api", "local-socket", "service"],
    ),
    ("console", &["agent-api", "backup-report", "backupd-api", "service"]),
    ("quickstart", &[]),
    ("s3-server", &[]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn metadata() -> cargo_metadata::Metadata {
    cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(vec!["--locked".into(), "--filter-platform".into(), "x86_64-unknown-linux-gnu".into()])
        .exec()
        .expect("cargo metadata")
}

#[test]
fn imports_are_exactly_the_table() {
    let metadata = metadata();
    let ours: BTreeSet<String> = metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
    let found: BTreeMap<String, BTreeSet<String>> = metadata
        .workspace_packages()
        .iter()
        .filter(|p| p.name.as_str() != "holdfast-tests")
        .map(|p| {
            let normal = p.dependencies.iter().filter(|d| d.kind == cargo_metadata::DependencyKind::Normal);
            (p.name.to_string(), normal.map(|d| d.name.clone()).filter(|n| ours.contains(n)).collect())
        })
        .collect();
    let table: BTreeMap<String, BTreeSet<String>> =
        IMPORTS.iter().map(|(n, d)| (n.to_string(), d.iter().map(|d| d.to_string()).collect())).collect();
    assert_eq!(found, table, "change the table in ARCHITECTURE.md and here together, or take the import out");
}

#[test]
fn architecture_prints_the_same_table() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for (name, imports) in IMPORTS {
        let list = if imports.is_empty() { "none of ours".to_owned() } else { imports.join(", ") };
        let row = format!("| `{name}` | {list} |");
        assert!(text.contains(&row), "ARCHITECTURE.md lacks the row {row}");
    }
}

#[test]
fn one_crypto_provider_and_no_openssl() {
    // `cargo tree` resolves features as a build does; `cargo metadata` also lists what no feature turns on.
    let out = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--workspace", "--edges", "normal,build", "--prefix", "none"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo tree");
    let text = String::from_utf8_lossy(&out.stdout);
    let linked: BTreeSet<&str> = text.lines().filter_map(|l| l.split(' ').next()).collect();
    assert!(linked.contains("aws-lc-rs"), "{}", String::from_utf8_lossy(&out.stderr));
    for banned in ["ring", "openssl-sys", "native-tls", "bindgen", "sharks"] {
        assert!(
            !linked.contains(banned),
            "{banned} is in the graph: two TLS providers panic, the rest need more than a C compiler"
        );
    }
}

fn sources() -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut todo: Vec<PathBuf> =
        ["appliance", "agent", "backupd", "deploy", "systemd", "tests"].iter().map(|d| root().join(d)).collect();
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).expect("folder").flatten() {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.') || entry.file_name() == "target";
            if path.is_dir() && !hidden && !path.is_symlink() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).expect("below root").display().to_string();
                out.push((name, std::fs::read_to_string(&path).expect("source")));
            }
        }
    }
    assert!(out.len() > 50, "the walk found the tree");
    out
}

#[test]
fn files_are_short() {
    let long: Vec<String> = sources()
        .iter()
        .filter_map(|(name, text)| {
            let code = text.lines().take_while(|l| !l.starts_with("#[cfg(test)]")).count();
            (code > 800).then(|| format!("{name}: {code} lines"))
        })
        .collect();
    assert!(long.is_empty(), "split these by what they do: {long:#?}");
}

#[test]
fn every_crate_forbids_unsafe_code() {
    for package in metadata().workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} does not take the workspace's lints", package.name);
    }
    let root = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    assert!(root.contains("unsafe_code = \"forbid\""));
}

#[test]
fn the_engine_takes_time_and_chance_through_env_alone() {
    for (name, text) in sources() {
        let engine = name.starts_with("backupd/engine/src") || name.starts_with("backupd/format/src");
        if !engine || name.ends_with("env.rs") || name.contains("/env/") {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for ambient in ["SystemTime::now", "Instant::now", "getrandom::fill", "rand::rng", "OsRng", "thread::sleep"] {
            assert!(!code.contains(ambient), "{name} uses {ambient}: take it through env");
        }
    }
}

#[test]
fn one_clippy_configuration() {
    let found: Vec<_> = sources().into_iter().filter(|(n, _)| n.ends_with("clippy.toml")).collect();
    assert!(found.is_empty());
    assert!(root().join("clippy.toml").exists());
}
