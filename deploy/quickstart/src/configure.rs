//! The configuration files of the programs, made from the practice at every start.

use crate::files;
use crate::layout::{Layout, StoreName};
use crate::practice::Practice;
use crate::programs::Programs;
use crate::secrets;
use std::fmt::Write;
use std::path::Path;

const HEAD: &str = "# Written by quickstart at every start from ../quickstart.toml.\n";

/// How often the daemons work while the quickstart keeps running.
const BACKUP_SCHEDULE: &str = "*/5 * * * *";
const DRILL_SCHEDULE: &str = "*/30 * * * *";
const MAINTAIN_SCHEDULE: &str = "17 * * * *";
const PLAN_SCHEDULE: &str = "41 * * * *";
/// A snapshot is late after three missed ones.
const LATE_AFTER_S: u32 = 20 * 60;
/// Room for snapshots while too few stores answer.
const SPOOL_BYTES_MAX: u64 = 2_000_000_000;

/// What travels with every snapshot, beside serve.toml, so that a lost practice comes back whole.
const KEPT: [&str; 10] = [
    "verifier.toml",
    "maintain.toml",
    "cli.toml",
    "../appliance/appliance.toml",
    "../console/console.toml",
    "../agent/agent.toml",
    "../quickstart.toml",
    "../users.toml",
    "../ca",
    "../tls",
];

/// The site of this machine and of the folder store.
const SITE: &str = "this-machine";

/// Writes every configuration file; store credentials are made once.
pub fn write(layout: &Layout, practice: &Practice, programs: &Programs) -> anyhow::Result<()> {
    for store in StoreName::PROVIDERS {
        credentials(layout, store)?;
    }
    let put = |name: &str, text: String| files::write_private(&layout.at(name), text.as_bytes());
    put("appliance/appliance.toml", appliance(practice))?;
    put("backupd/serve.toml", serve(practice))?;
    put("backupd/verifier.toml", verifier(practice, &programs.path("appliance")))?;
    // A practice that was begun before maintenance could prune has no credential for it: `backupd keys pruner` makes one.
    let prunes = layout.at("backupd/pruner.cred").exists() || !layout.at("backupd/writer.cred").exists();
    put("backupd/maintain.toml", maintain(practice, prunes))?;
    put("backupd/cli.toml", cli(practice))?;
    put("console/console.toml", console(practice))?;
    put("agent/agent.toml", agent(practice))
}

fn appliance(practice: &Practice) -> String {
    // The first name is the one in links.
    let host = practice.host();
    let others = practice.names.iter().filter(|name| **name != host);
    let names: Vec<String> = std::iter::once(&host).chain(others).map(|name| text(name)).collect();
    format!(
        "{HEAD}\
         practice_name = {}\n\
         time_zone = {}\n\
         listen = {}\n\
         portal_listen = {}\n\
         public_names = [{}]\n\
         data_dir = \"data\"\n\
         staging_dir = \"staging\"\n\
         tls_cert = \"../tls/appliance.pem\"\n\
         tls_key = \"../tls/appliance.key.pem\"\n\
         ops_socket = {}\n\
         ops_allowed_uids = [{}]\n\
         idle_lock_s = 600\n\
         \n[downtime]\n\
         every_minutes = 30\n\
         \n[backup]\n\
         serve_socket = {}\n\
         verifier_socket = {}\n",
        text(&practice.practice_name),
        text(&practice.time_zone),
        text(&practice.listen_on(practice.ports.appliance).to_string()),
        text(&practice.listen_on(practice.ports.portal).to_string()),
        names.join(", "),
        path(&practice.socket("ops")),
        rustix::process::geteuid().as_raw(),
        path(&practice.socket("serve")),
        path(&practice.socket("verifier")),
    )
}

fn serve(practice: &Practice) -> String {
    let mut toml = format!(
        "{HEAD}\
         practice = {}\n\
         time_zone = {}\n\
         site = \"{SITE}\"\n\
         writer_credential = \"writer.cred\"\n\
         state_dir = \"state/serve\"\n\
         socket = {}\n\
         health_socket = {}\n\
         quorum = 2\n\
         late_after_s = {LATE_AFTER_S}\n\
         report_key = \"report.pub\"\n\
         practice_dir = \"..\"\n\
         keep = [{}]\n\n\
         [spool]\n\
         path = \"spool\"\n\
         bytes_max = {SPOOL_BYTES_MAX}\n\n\
         [[source]]\n\
         name = \"emr\"\n\
         kind = \"appliance\"\n\
         ops_socket = {}\n\
         data_dir = \"../appliance/data\"\n\
         schedule = \"{BACKUP_SCHEDULE}\"\n",
        text(&practice.practice_name),
        text(&practice.time_zone),
        path(&practice.socket("serve")),
        path(&practice.socket("health")),
        KEPT.map(text).join(", "),
        path(&practice.socket("ops")),
    );
    stores(&mut toml, practice, "");
    duties(&mut toml);
    toml
}

fn verifier(practice: &Practice, appliance: &Path) -> String {
    let mut toml = format!(
        "{HEAD}\
         practice = {}\n\
         time_zone = {}\n\
         host = \"quickstart\"\n\
         site = \"{SITE}\"\n\
         open_key = \"open.key\"\n\
         report_key = \"report.key\"\n\
         state_dir = \"state/verifier\"\n\
         socket = {}\n\
         drill_schedule = \"{DRILL_SCHEDULE}\"\n\
         sandbox_dir = \"sandbox\"\n\
         same_host_as_writer = true\n\
         serve = {}\n\n\
         [probe]\n\
         mode = \"spawn\"\n\
         program = {}\n",
        text(&practice.practice_name),
        text(&practice.time_zone),
        path(&practice.socket("verifier")),
        text(&format!("unix:{}", practice.socket("serve").display())),
        path(appliance),
    );
    stores(&mut toml, practice, "");
    toml
}

fn maintain(practice: &Practice, prunes: bool) -> String {
    let mut toml = format!(
        "{HEAD}\
         practice = {}\n\
         time_zone = {}\n\
         state_dir = \"state/maintain\"\n\
         socket = {}\n\
         serve = {}\n\
         maintain_schedule = \"{MAINTAIN_SCHEDULE}\"\n",
        text(&practice.practice_name),
        text(&practice.time_zone),
        path(&practice.socket("maintain")),
        text(&format!("unix:{}", practice.socket("serve").display())),
    );
    stores(&mut toml, practice, MAINTAIN);
    if prunes {
        toml += &prune(practice);
    }
    toml
}

/// What the demonstration keeps: with a backup every five minutes a plan has something to show after an hour. Nothing goes
/// before two persons are named as approvers in quickstart.toml and have signed.
fn prune(practice: &Practice) -> String {
    let mut toml = format!(
        "\n[prune]\n\
         open_key = \"open.key\"\n\
         pruner_credential = \"pruner.cred\"\n\
         report_key = \"report.pub\"\n\
         verifier = {}\n\
         plan_schedule = \"{PLAN_SCHEDULE}\"\n\
         grace = \"1h\"\n\n\
         [[prune.keep]]\n\
         last = 12\n\
         hourly = 24\n\
         daily = 35\n\
         monthly = 13\n\n\
         [[prune.keep]]\n\
         source = \"emr\"\n\
         record_class = \"medicare-advantage\"\n",
        text(&format!("unix:{}", practice.socket("verifier").display())),
    );
    for approver in &practice.approver {
        // A table of TOML can always be written as TOML.
        toml += &format!("\n[[prune.approver]]\n{}", toml::to_string(approver).unwrap_or_default());
    }
    toml
}

/// Behind a store's name in the names of maintenance's key files.
const MAINTAIN: &str = "-maintain";

/// The stores, with the access keys of whoever it is.
fn stores(toml: &mut String, practice: &Practice, who: &str) {
    for store in StoreName::ALL {
        let id = store.id();
        let _ = match endpoint(practice, store) {
            Some(endpoint) => write!(
                toml,
                "\n[[store]]\n\
                 name = \"{id}\"\n\
                 kind = \"s3\"\n\
                 endpoint = \"{endpoint}\"\n\
                 bucket = {}\n\
                 access_key_file = \"../stores/{id}{who}.access\"\n\
                 secret_key_file = \"../stores/{id}{who}.secret\"\n\
                 site = \"demo-{id}\"\n\
                 provider = \"demo-{id}\"\n",
                text(&practice.bucket)
            ),
            None => write!(
                toml,
                "\n[[store]]\n\
                 name = \"{id}\"\n\
                 kind = \"folder\"\n\
                 path = \"../stores/{id}\"\n\
                 role = \"convenience\"\n\
                 site = \"{SITE}\"\n\
                 provider = \"own\"\n"
            ),
        };
    }
}

/// The address of a provider's server; `None` for the folder.
pub fn endpoint(practice: &Practice, store: StoreName) -> Option<String> {
    let port = match store {
        StoreName::North => practice.ports.provider_north,
        StoreName::South => practice.ports.provider_south,
        StoreName::Local => return None,
    };
    Some(format!("http://127.0.0.1:{port}"))
}

/// In the demonstration one person holds every duty; a practice names two and their phones.
fn duties(toml: &mut String) {
    let review = "2030-01-01";
    for kind in ["backup", "restore", "keys", "hardware", "report-approval"] {
        let _ = write!(toml, "\n[[duty]]\nkind = \"{kind}\"\n{}", holder(review));
    }
    for store in StoreName::ALL {
        let _ = write!(toml, "\n[[duty]]\nkind = \"store-contract\"\nstore = \"{}\"\n{}", store.id(), holder(review));
    }
}

fn holder(review: &str) -> String {
    format!(
        "party = \"Oakley Owner (demonstration)\"\ndeputy = \"Ira Tech (demonstration)\"\nphone = \"+1 555 0100\"\n\
         review = \"{review}\"\n"
    )
}

fn cli(practice: &Practice) -> String {
    format!(
        "{HEAD}serve = {}\nverifier = {}\nmaintain = {}\n",
        text(&format!("unix:{}", practice.socket("serve").display())),
        text(&format!("unix:{}", practice.socket("verifier").display())),
        text(&format!("unix:{}", practice.socket("maintain").display())),
    )
}

fn console(practice: &Practice) -> String {
    // A table of TOML can always be written as TOML.
    let alerts = toml::to_string(&practice.alerts).unwrap_or_default();
    format!(
        "{HEAD}\
         # Mail and webhook are set there, in [alerts.mail] and [alerts.webhook].\n\
         listen = {}\n\
         tls_cert = \"../tls/console.pem\"\n\
         tls_key = \"../tls/console.key.pem\"\n\
         data_dir = \"data\"\n\
         serve = {}\n\
         verifier = {}\n\
         maintain = {}\n\
         agents = [\"https://localhost:{}\"]\n\
         agents_ca = \"../ca/ca.pem\"\n\
         public_url = {}\n\
         time_zone = {}\n\
         {alerts}",
        text(&practice.listen_on(practice.ports.console).to_string()),
        text(&format!("unix:{}", practice.socket("serve").display())),
        text(&format!("unix:{}", practice.socket("verifier").display())),
        text(&format!("unix:{}", practice.socket("maintain").display())),
        practice.ports.agent,
        text(&practice.url(practice.ports.console)),
        text(&practice.time_zone),
    )
}

fn agent(practice: &Practice) -> String {
    format!(
        "{HEAD}\
         listen = {}\n\
         tls_cert = \"../tls/agent.pem\"\n\
         tls_key = \"../tls/agent.key.pem\"\n\
         host = \"quickstart\"\n\
         asset = \"demo-0001\"\n\
         rack = \"demo-rack\"\n\
         unit = \"1\"\n\
         health_socket = {}\n\n\
         [filesystems]\n\
         records = \"../appliance\"\n\
         backup = \"../stores\"\n",
        text(&practice.listen_on(practice.ports.agent).to_string()),
        path(&practice.socket("health")),
    )
}

/// Two access keys per provider. That of the backup can neither delete nor overwrite: what the backup cannot do, malware on
/// its machine cannot do either. That of maintenance may put a new version over a damaged object, and delete what two persons
/// agreed on.
///
/// The pairs of files that backupd reads are made once, or come back from the recovery kit; the file of the provider's
/// server follows from them.
fn credentials(layout: &Layout, store: StoreName) -> anyhow::Result<()> {
    let mut keys = String::from("# Who may ask this provider's server, and for what.\n");
    for (who, may) in [("", BACKUP_MAY), (MAINTAIN, MAINTAIN_MAY)] {
        let file = |what: &str| layout.at("stores").join(format!("{}{who}.{what}", store.id()));
        if !file("access").exists() || !file("secret").exists() {
            files::write_private(&file("access"), format!("HF{}", secrets::hex_key(9)?.to_uppercase()).as_bytes())?;
            files::write_private(&file("secret"), secrets::hex_key(24)?.as_bytes())?;
        }
        keys += &server_key(files::read(&file("access"))?.trim(), files::read(&file("secret"))?.trim(), may);
    }
    files::write_private(&layout.store_keys(store), keys.as_bytes())
}

pub const BACKUP_MAY: &[&str] = &["read", "create"];
const MAINTAIN_MAY: &[&str] = &["read", "create", "overwrite", "delete"];

/// One entry of the access-key file of a provider's server.
pub fn server_key(access: &str, secret: &str, may: &[&str]) -> String {
    let may: Vec<String> = may.iter().map(|right| text(right)).collect();
    format!("[[key]]\naccess_key = {}\nsecret_key = {}\nmay = [{}]\n", text(access), text(secret), may.join(", "))
}

fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

fn path(value: &Path) -> String {
    text(&value.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::practice::Wishes;

    #[test]
    fn every_file_is_toml_and_holds_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        let practice_name = Some("Dr. \"Quote\" \\ & Co".to_owned());
        let practice = Practice::prepare(&layout, Wishes { practice_name, ..Default::default() }).unwrap();
        credentials(&layout, StoreName::North).unwrap();
        let secret = files::read(&layout.at("stores/provider-north.secret")).unwrap();
        let program = Path::new("/opt/appliance");
        let all = [appliance(&practice), serve(&practice), verifier(&practice, program), maintain(&practice, true)];
        for text in all.into_iter().chain([cli(&practice), console(&practice), agent(&practice)]) {
            toml::from_str::<toml::Table>(&text).expect(&text);
            assert!(!text.contains(&secret));
        }
        let serve: toml::Table = toml::from_str(&serve(&practice)).unwrap();
        assert_eq!(serve["store"].as_array().unwrap().len(), 3);
        std::fs::remove_dir_all(practice.run_dir).unwrap();
    }

    #[test]
    fn maintenance_prunes_by_rules_and_with_the_practices_approvers() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        let mut practice = Practice::prepare(&layout, Wishes::default()).unwrap();
        practice.approver = vec![toml::from_str("name = \"A. Owner\"\nfingerprint = \"ab\"").unwrap()];
        practice.save(&layout).unwrap();
        let again = Practice::load(&layout).unwrap().unwrap();
        let with: toml::Table = toml::from_str(&maintain(&again, true)).unwrap();
        assert_eq!(with["prune"]["keep"].as_array().unwrap().len(), 2);
        assert_eq!(with["prune"]["approver"][0]["name"].as_str(), Some("A. Owner"));
        let without: toml::Table = toml::from_str(&maintain(&again, false)).unwrap();
        assert!(!without.contains_key("prune"), "an older practice has no credential for it");
        std::fs::remove_dir_all(practice.run_dir).unwrap();
    }

    #[test]
    fn alerts_of_the_practice_reach_the_console_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        let mut practice = Practice::prepare(&layout, Wishes::default()).unwrap();
        practice.alerts =
            toml::from_str("heartbeat_url = \"https://h.example/x\"\n[mail]\nhost = \"m.example\"").unwrap();
        practice.save(&layout).unwrap();
        let again = Practice::load(&layout).unwrap().unwrap();
        let console: toml::Table = toml::from_str(&console(&again)).unwrap();
        assert_eq!(console["mail"]["host"].as_str(), Some("m.example"));
        assert_eq!(console["heartbeat_url"].as_str(), Some("https://h.example/x"));
        std::fs::remove_dir_all(practice.run_dir).unwrap();
    }

    #[test]
    fn a_providers_keys_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        files::private_folder(&layout.at("stores")).unwrap();
        credentials(&layout, StoreName::South).unwrap();
        let first = files::read(&layout.store_keys(StoreName::South)).unwrap();
        std::fs::remove_file(layout.store_keys(StoreName::South)).unwrap();
        credentials(&layout, StoreName::South).unwrap();
        assert_eq!(files::read(&layout.store_keys(StoreName::South)).unwrap(), first);
    }
}
