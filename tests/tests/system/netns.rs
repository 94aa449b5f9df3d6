//! Writer and verifier on two hosts: two network namespaces joined by a cable, talking mutual TLS. A client without a
//! certificate of the practice's authority gets nothing.

use anyhow::{Context, Result, ensure};
use holdfast_tests::{json_lines, program, wait_for};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Two network namespaces with a cable between them, removed on drop. Host A is 10.99.0.1, host B 10.99.0.2.
struct Hosts {
    a: String,
    b: String,
}

impl Hosts {
    fn new() -> Result<Self> {
        let id = std::process::id();
        let hosts = Self { a: format!("hfa{id}"), b: format!("hfb{id}") };
        let (a, b) = (hosts.a.as_str(), hosts.b.as_str());
        for words in [
            vec!["netns", "add", a],
            vec!["netns", "add", b],
            vec!["-n", a, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b],
            vec!["-n", a, "addr", "add", "10.99.0.1/30", "dev", "wire"],
            vec!["-n", b, "addr", "add", "10.99.0.2/30", "dev", "wire"],
            vec!["-n", a, "link", "set", "wire", "up"],
            vec!["-n", b, "link", "set", "wire", "up"],
            vec!["-n", a, "link", "set", "lo", "up"],
            vec!["-n", b, "link", "set", "lo", "up"],
        ] {
            let out = Command::new("ip").args(&words).output().context("ip of iproute2")?;
            ensure!(out.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(hosts)
    }

    fn on(host: &str, program_name: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", host]).arg(program(program_name));
        command
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in [&self.a, &self.b] {
            let _ = Command::new("ip").args(["netns", "del", host]).status();
        }
    }
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn writer_and_verifier_talk_mutual_tls_between_hosts() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        holdfast_tests::skip("writer_and_verifier_talk_mutual_tls_between_hosts", "network namespaces need root");
        return Ok(());
    }
    let temp = tempfile::tempdir()?;
    let dir = temp.path();
    certificates(dir)?;
    settings(dir)?;
    let init = Command::new(program("backupd"))
        .args(["init", "--config"])
        .arg(dir.join("serve.toml"))
        .arg("--kit")
        .arg(dir.join("kit"))
        .output()?;
    ensure!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));

    let hosts = Hosts::new()?;
    let start = |host: &str, verb: &str, config: &str| -> Result<Daemon> {
        let mut command = Hosts::on(host, "backupd");
        command.arg(verb).arg("--config").arg(dir.join(config)).stderr(Stdio::null());
        Ok(Daemon(command.spawn()?))
    };
    let _serve = start(&hosts.a, "serve", "serve.toml")?;
    let _verifier = start(&hosts.b, "verifier", "verifier.toml")?;

    let ask = |host: &str, config: &str, words: &[&str]| -> Result<Output> {
        let mut command = Hosts::on(host, "backupd");
        command.arg(words[0]).arg("--json").arg("--config").arg(dir.join(config)).args(&words[1..]);
        Ok(command.output()?)
    };
    // From B over the wire to the writer on A, and from A to the verifier on B.
    wait_for("the writer over TLS", 30, || ask(&hosts.b, "cli.toml", &["status"]).ok().filter(|o| o.status.success()))?;
    json_lines(&ask(&hosts.b, "cli.toml", &["snapshot"])?)?;
    wait_for("the verifier over TLS", 30, || {
        ask(&hosts.a, "cli.toml", &["report"]).ok().filter(|o| o.status.success())
    })?;
    let verified = ask(&hosts.a, "cli.toml", &["verify", "--read-data"])?;
    ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    // Names are only for the Unix socket of the verifier.
    let listed = ask(&hosts.a, "cli.toml", &["ls"])?;
    ensure!(!listed.status.success(), "ls over TLS must be refused");
    ensure!(!String::from_utf8_lossy(&listed.stdout).contains("the-only-file"));
    let local = json_lines(&ask(&hosts.b, "verifier.toml", &["ls"])?)?;
    ensure!(local.iter().any(|l| l.to_string().contains("the-only-file")), "{local:?}");
    // A stranger with a certificate of another authority, and one without any.
    for config in ["stranger.toml", "nobody.toml"] {
        let out = ask(&hosts.b, config, &["status"])?;
        ensure!(!out.status.success(), "{config} must be refused");
    }
    Ok(())
}

fn settings(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir.join("data"))?;
    std::fs::write(dir.join("data/the-only-file"), "content ".repeat(5000))?;
    let stores: String = ["one", "two"]
        .iter()
        .map(|s| format!("[[store]]\nname = \"{s}\"\nkind = \"folder\"\npath = \"store-{s}\"\nsite = \"site-{s}\"\nprovider = \"{s}\"\n"))
        .collect();
    for s in ["one", "two"] {
        std::fs::create_dir_all(dir.join(format!("store-{s}")))?;
    }
    let tls = |listen: &str, name: &str| {
        format!("[tls]\nlisten = \"{listen}\"\ncert = \"{name}.pem\"\nkey = \"{name}.key\"\nca = \"ca.pem\"\n")
    };
    std::fs::write(
        dir.join("serve.toml"),
        format!(
            "practice = \"Two hosts\"\ntime_zone = \"UTC\"\nsite = \"a\"\nwriter_credential = \"writer.cred\"\nstate_dir = \"state/serve\"\n\
             socket = \"s.sock\"\nquorum = 2\ndisk_reserve_bytes = 1000000\nreport_key = \"report.pub\"\n{}\n[[source]]\nname = \"files\"\nkind = \"folder\"\n\
             path = \"data\"\nschedule = \"0 4 * * *\"\n{stores}",
            tls("10.99.0.1:7401", "serve")
        ),
    )?;
    std::fs::write(
        dir.join("verifier.toml"),
        format!(
            "practice = \"Two hosts\"\ntime_zone = \"UTC\"\nhost = \"b\"\nsite = \"b\"\nopen_key = \"open.key\"\nreport_key = \"report.key\"\n\
             state_dir = \"state/verifier\"\nsocket = \"v.sock\"\ndrill_schedule = \"0 5 * * *\"\nsandbox_dir = \"sandbox\"\n\
             same_host_as_writer = false\n{}\n[probe]\nmode = \"spawn\"\nprogram = {:?}\n{stores}",
            tls("10.99.0.2:7402", "verifier"),
            program("appliance"),
        ),
    )?;
    let ends = "serve = \"tls://10.99.0.1:7401\"\nverifier = \"tls://10.99.0.2:7402\"\n";
    std::fs::write(
        dir.join("cli.toml"),
        format!("{ends}ca = \"ca.pem\"\ncert = \"client.pem\"\nkey = \"client.key\"\n"),
    )?;
    std::fs::write(
        dir.join("stranger.toml"),
        format!("{ends}ca = \"ca.pem\"\ncert = \"stranger.pem\"\nkey = \"stranger.key\"\n"),
    )?;
    std::fs::write(dir.join("nobody.toml"), ends)?;
    Ok(())
}

/// Two authorities and their certificates, by openssl.
fn certificates(dir: &Path) -> Result<()> {
    let openssl = |words: &[&str]| -> Result<()> {
        let out = Command::new("openssl").args(words).current_dir(dir).output()?;
        ensure!(out.status.success(), "openssl {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
    for ca in ["ca", "other-ca"] {
        let (k, c, s) = (format!("{ca}.key"), format!("{ca}.pem"), format!("/CN={ca}"));
        openssl(&[&["req", "-x509"], &key[..], &["-keyout", &k, "-out", &c, "-subj", &s]].concat())?;
    }
    let leaves = [
        ("serve", "10.99.0.1", "ca"),
        ("verifier", "10.99.0.2", "ca"),
        ("client", "127.0.0.1", "ca"),
        ("stranger", "127.0.0.1", "other-ca"),
    ];
    for (name, address, ca) in leaves {
        let (k, c, s) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
        let san = format!("subjectAltName=IP:{address}");
        let (cac, cak) = (format!("{ca}.pem"), format!("{ca}.key"));
        let more = [
            "-CA",
            &cac,
            "-CAkey",
            &cak,
            "-keyout",
            &k,
            "-out",
            &c,
            "-subj",
            &s,
            "-addext",
            &san,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        openssl(&[&["req", "-x509"], &key[..], &more[..]].concat())?;
    }
    Ok(())
}
