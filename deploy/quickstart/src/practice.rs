//! `quickstart.toml`: what must stay the same from one start to the next.

use crate::ambient;
use crate::authority;
use crate::files;
use crate::layout::{Layout, StoreName};
use crate::login;
use crate::ports::Chosen;
use crate::supervise;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

const HEAD: &str = "# Written by quickstart at every start. Ports, addresses and names may be edited while it is stopped;\n\
                    # the configuration files of the programs are made from this one. [alerts.mail] and\n\
                    # [alerts.webhook] take the keys of [mail] and [webhook] in console.toml, with absolute paths. Each [[approver]],\n\
                    # with name and fingerprint, may approve deletions: two different persons are needed.\n";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Practice {
    pub practice_name: String,
    pub time_zone: String,
    /// The address that EMR, console and health page listen on.
    pub listen: IpAddr,
    /// Host names and addresses in the certificates.
    pub names: Vec<String>,
    /// Folder of the sockets.
    pub run_dir: PathBuf,
    /// The bucket of both providers.
    #[serde(default = "older_bucket")]
    pub bucket: String,
    pub ports: Ports,
    #[serde(skip)]
    chosen: Chosen,
    pub done: Done,
    /// How the console sends alerts: copied into console.toml, whose program checks it.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub alerts: toml::Table,
    /// Who may approve deletions: copied into maintain.toml, whose program checks it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approver: Vec<toml::Table>,
}

const BUCKET: &str = "practice";

/// That of practices which do not say.
fn older_bucket() -> String {
    "practice-backup".to_owned()
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    pub appliance: u16,
    pub console: u16,
    pub agent: u16,
    /// Later than the others: a folder of an earlier release has none yet.
    #[serde(default = "portal_port")]
    pub portal: u16,
    pub provider_north: u16,
    pub provider_south: u16,
}

fn portal_port() -> u16 {
    8446
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            appliance: 8443,
            console: 8444,
            agent: 8445,
            portal: portal_port(),
            provider_north: 9001,
            provider_south: 9002,
        }
    }
}

/// The steps that are made once. A step that was interrupted is made anew.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// The EMR holds its first records.
    pub records: bool,
    /// Keys, stores and recovery kit exist.
    pub backup: bool,
    /// When the certificates were signed, Unix seconds, and for which names.
    pub certificates_unix_s: u64,
    pub certificates_for: Vec<String>,
}

/// What the command line may change.
#[derive(Debug, Default)]
pub struct Wishes {
    pub practice_name: Option<String>,
    pub time_zone: Option<String>,
    pub listen: Option<IpAddr>,
    pub names: Vec<String>,
}

impl Practice {
    /// `None` when there is no practice in the folder yet.
    pub fn load(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let path = layout.settings();
        if !path.exists() {
            return Ok(None);
        }
        let text = files::read(&path)?;
        toml::from_str(&text)
            .map(Some)
            .with_context(|| format!("{}: correct it, or choose another folder with --dir", path.display()))
    }

    pub fn save(&self, layout: &Layout) -> anyhow::Result<()> {
        let text = format!("{HEAD}{}", toml::to_string(self).context("the settings cannot be written as TOML")?);
        files::write_private(&layout.settings(), text.as_bytes())
    }

    /// The practice of the folder, or a new one, with ports that are free now, a run folder and valid certificates.
    pub fn prepare(layout: &Layout, wishes: Wishes) -> anyhow::Result<Self> {
        refuse_orphans(layout)?;
        let kept = Self::load(layout)?;
        if kept.as_ref().is_some_and(|kept| kept.done.records) {
            require_records(layout)?;
        }
        for folder in layout.folders() {
            files::private_folder(&folder)?;
        }
        let run_dir = supervise::run_folder(kept.as_ref().map(|kept| kept.run_dir.as_path()))?;
        supervise::clear_sockets(&run_dir)?;
        let mut practice = kept.unwrap_or_else(|| Self {
            practice_name: "Practice on Elm Street".into(),
            time_zone: "America/New_York".into(),
            listen: Ipv4Addr::LOCALHOST.into(),
            names: Vec::new(),
            run_dir: PathBuf::new(),
            bucket: BUCKET.to_owned(),
            ports: Ports::default(),
            chosen: Chosen::default(),
            done: Done::default(),
            alerts: toml::Table::new(),
            approver: Vec::new(),
        });
        practice.run_dir = run_dir;
        practice.apply(wishes);
        practice.choose_ports()?;
        practice.save(layout)?;
        practice.certify(layout)?;
        Ok(practice)
    }

    fn apply(&mut self, wishes: Wishes) {
        if let Some(name) = wishes.practice_name {
            self.practice_name = name;
        }
        if let Some(zone) = wishes.time_zone {
            self.time_zone = zone;
        }
        if let Some(listen) = wishes.listen {
            self.listen = listen;
        }
        let mut names: BTreeSet<String> = self.names.drain(..).chain(wishes.names).collect();
        names.extend(["localhost".into(), Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()]);
        if let Ok(host) = rustix::system::uname().nodename().to_str()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        {
            names.insert(host.to_ascii_lowercase());
        }
        names.extend(own_address(self.listen).map(|address| address.to_string()));
        self.names = names.into_iter().filter(|name| !name.is_empty()).collect();
    }

    fn choose_ports(&mut self) -> anyhow::Result<()> {
        let (listen, local) = (self.listen, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (ports, chosen) = (&mut self.ports, &mut self.chosen);
        ports.appliance = chosen.free_port(listen, ports.appliance)?;
        ports.console = chosen.free_port(listen, ports.console)?;
        ports.agent = chosen.free_port(listen, ports.agent)?;
        ports.portal = chosen.free_port(listen, ports.portal)?;
        ports.provider_north = chosen.free_port(local, ports.provider_north)?;
        ports.provider_south = chosen.free_port(local, ports.provider_south)?;
        Ok(())
    }

    fn certify(&mut self, layout: &Layout) -> anyhow::Result<()> {
        authority::ensure_ca(layout, &self.practice_name)?;
        // Certificates that were signed while the clock was ahead are not valid yet.
        let age_days = ambient::unix_s().checked_sub(self.done.certificates_unix_s).map(|age| age / 86_400);
        let complete = authority::LEAVES.iter().all(|(stem, _)| {
            let (cert, key) = authority::leaf_files(layout, stem);
            cert.exists() && key.exists()
        });
        let young = age_days.is_some_and(|age| age < authority::LEAF_RENEW_DAYS);
        if complete && young && self.done.certificates_for == self.names {
            return Ok(());
        }
        authority::issue_leaves(layout, &self.names)?;
        self.done.certificates_unix_s = ambient::unix_s();
        self.done.certificates_for.clone_from(&self.names);
        self.save(layout)
    }

    /// The host to write into URLs: the address that is listened on, or one that reaches this machine.
    pub fn host(&self) -> String {
        let address = own_address(self.listen).unwrap_or(self.listen);
        match address {
            // Only there does every machine's `localhost` lead.
            address if address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST => "localhost".into(),
            IpAddr::V6(address) => format!("[{address}]"),
            IpAddr::V4(address) => address.to_string(),
        }
    }

    pub fn url(&self, port: u16) -> String {
        format!("https://{}:{port}/", self.host())
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.run_dir.join(format!("{name}.sock"))
    }

    pub fn listen_on(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.listen, port)
    }
}

/// For an unspecified address (0.0.0.0) the one that packets to the network leave from; connecting a UDP socket sends
/// nothing.
fn own_address(listen: IpAddr) -> Option<IpAddr> {
    if !listen.is_unspecified() {
        return Some(listen);
    }
    let (any, outside) = match listen {
        IpAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        IpAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(outside).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// A practice without `quickstart.toml` would be taken for a new one, and its records and backups for an interrupted
/// attempt to be begun anew.
fn refuse_orphans(layout: &Layout) -> anyhow::Result<()> {
    if layout.settings().exists() {
        return Ok(());
    }
    let stores = StoreName::ALL.map(|store| layout.store(store));
    for folder in [layout.at("appliance/data"), layout.kit()].into_iter().chain(stores) {
        let holds = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
        anyhow::ensure!(
            !holds,
            "{} holds something, and there is no {}: put that file back, recover the practice into an empty folder from its \
             kit and a store, or choose another folder with --dir. Nothing was touched",
            folder.display(),
            layout.settings().display()
        );
    }
    Ok(())
}

/// An EMR whose database is gone would start with an empty one, and the practice would write on into that.
fn require_records(layout: &Layout) -> anyhow::Result<()> {
    let database = layout.records();
    if std::fs::metadata(&database).is_ok_and(|meta| meta.len() > 0) {
        return Ok(());
    }
    let (dir, store) = (layout.dir(), StoreName::Local);
    let new = dir.with_file_name(format!("{}-recovered", dir.file_name().unwrap_or_default().display()));
    // A recovered practice has none in its folder: it lies where it was kept.
    let kit = Some(layout.kit()).filter(|kit| kit.exists());
    anyhow::bail!(
        "the EMR's database {} is gone, and this practice has records: nothing was touched, and the EMR is not started with \
         an empty one. Put the file back, or bring the practice back from a store into a new folder (this one stays):\n  \
         {} --dir {} recover --kit {} --store {} --store-folder {}",
        database.display(),
        login::own_program(),
        files::quoted(&new),
        kit.map_or_else(|| "PATH-OF-THE-KIT".to_owned(), |kit| files::quoted(&kit)),
        store.id(),
        files::quoted(&layout.store(store)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// A start beside another one gets other ports, so these tests start one after the other.
    fn alone() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn a_second_start_keeps_ports_names_and_certificates() {
        let _alone = alone();
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(&folder.path().join("practice")).unwrap();
        let mut first = Practice::prepare(&layout, Wishes::default()).unwrap();
        first.chosen = Chosen::default();
        let certificate = std::fs::read(layout.at("tls/appliance.pem")).unwrap();
        let second = Practice::prepare(&layout, Wishes::default()).unwrap();
        assert_eq!(second.ports.appliance, first.ports.appliance);
        assert_eq!(second.run_dir, first.run_dir);
        assert_eq!(std::fs::read(layout.at("tls/appliance.pem")).unwrap(), certificate);
        let named = Wishes { names: vec!["emr.example.org".into()], ..Default::default() };
        let third = Practice::prepare(&layout, named).unwrap();
        assert!(third.names.contains(&"emr.example.org".to_owned()));
        assert_ne!(std::fs::read(layout.at("tls/appliance.pem")).unwrap(), certificate);
        std::fs::remove_dir_all(first.run_dir).unwrap();
    }

    #[test]
    fn a_port_that_became_busy_is_replaced_and_kept() {
        let _alone = alone();
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        let first = Practice::prepare(&layout, Wishes::default()).unwrap();
        let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, first.ports.console)).unwrap();
        let second = Practice::prepare(&layout, Wishes::default()).unwrap();
        assert!(second.ports.console > first.ports.console);
        drop(busy);
        assert_eq!(Practice::load(&layout).unwrap().unwrap().ports.console, second.ports.console);
        std::fs::remove_dir_all(first.run_dir).unwrap();
    }

    #[test]
    fn a_long_folder_has_short_sockets() {
        let _alone = alone();
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(75)).join("y".repeat(75));
        let layout = Layout::new(&long).unwrap();
        let practice = Practice::prepare(&layout, Wishes::default()).unwrap();
        assert!(practice.socket("verifier-drill-probe").as_os_str().len() <= 107);
        std::fs::remove_dir_all(practice.run_dir).unwrap();
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        std::fs::write(layout.settings(), "colour = 1").unwrap();
        let message = format!("{:#}", Practice::load(&layout).unwrap_err());
        assert!(message.contains("quickstart.toml") && message.contains("--dir"), "{message}");
    }

    #[test]
    fn a_practice_that_lost_its_settings_is_not_taken_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        for kept in ["appliance/data/records.sqlite", "recovery-kit/kit.json", "stores/local-folder/heads/1"] {
            let kept = layout.at(kept);
            std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
            std::fs::write(&kept, "kept").unwrap();
            let message = format!("{:#}", Practice::prepare(&layout, Wishes::default()).unwrap_err());
            assert!(message.contains("quickstart.toml") && message.contains("--dir"), "{message}");
            assert_eq!(std::fs::read(&kept).unwrap(), b"kept");
            std::fs::remove_file(&kept).unwrap();
        }
    }

    #[test]
    fn a_practice_that_lost_its_records_does_not_start_empty() {
        let _alone = alone();
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(&folder.path().join("my practice")).unwrap();
        let mut practice = Practice::prepare(&layout, Wishes::default()).unwrap();
        practice.chosen = Chosen::default();
        practice.done.records = true;
        practice.save(&layout).unwrap();
        let before = std::fs::read(layout.settings()).unwrap();
        let refused = || {
            let message = format!("{:#}", Practice::prepare(&layout, Wishes::default()).unwrap_err());
            assert!(message.contains("gone") && message.contains("records.sqlite"), "{message}");
            assert!(message.contains("my practice-recovered' recover --kit"), "{message}");
        };
        refused();
        std::fs::create_dir_all(layout.records().parent().unwrap()).unwrap();
        std::fs::write(layout.records(), "").unwrap();
        refused();
        assert_eq!(std::fs::read(layout.settings()).unwrap(), before);
        std::fs::write(layout.records(), "records").unwrap();
        Practice::prepare(&layout, Wishes::default()).unwrap();
        std::fs::remove_dir_all(practice.run_dir).unwrap();
    }
}
