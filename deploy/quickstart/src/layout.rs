//! Where everything lies in the practice folder.

use std::path::{Path, PathBuf};

/// A store of the practice: two providers and one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreName {
    North,
    South,
    Local,
}

impl StoreName {
    pub const ALL: [Self; 3] = [Self::North, Self::South, Self::Local];
    pub const PROVIDERS: [Self; 2] = [Self::North, Self::South];

    pub fn id(self) -> &'static str {
        match self {
            Self::North => "provider-north",
            Self::South => "provider-south",
            Self::Local => "local-folder",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|store| store.id() == text)
    }
}

#[derive(Debug, Clone)]
pub struct Layout(PathBuf);

impl Layout {
    /// `dir` becomes absolute; it need not exist yet.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self(std::path::absolute(dir)?))
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    pub fn at(&self, relative: &str) -> PathBuf {
        self.0.join(relative)
    }

    pub fn settings(&self) -> PathBuf {
        self.at("quickstart.toml")
    }

    pub fn lock(&self) -> PathBuf {
        self.at("quickstart.lock")
    }

    /// The processes that run now.
    pub fn running(&self) -> PathBuf {
        self.at("run.json")
    }

    pub fn users(&self) -> PathBuf {
        self.at("users.toml")
    }

    /// Where a new account's second factor lies until it is in `users.toml`.
    pub fn second_factor(&self, user: &str) -> PathBuf {
        self.at(&format!("{user}.totp.json"))
    }

    /// The folder of the recovery kit: print it, or carry it away on a stick.
    pub fn kit(&self) -> PathBuf {
        self.at("recovery-kit")
    }

    /// What `backupd serve` keeps beside the stores; made at its first start.
    pub fn serve_state(&self) -> PathBuf {
        self.at("backupd/state/serve")
    }

    /// The EMR's database.
    pub fn records(&self) -> PathBuf {
        self.at("appliance/data/records.sqlite")
    }

    /// The console's database, with its accounts.
    pub fn console_database(&self) -> PathBuf {
        self.at("console/data/console.db")
    }

    pub fn logs(&self) -> PathBuf {
        self.at("logs")
    }

    /// The folder that a store keeps its objects in: of a provider its server's root, else the store itself.
    pub fn store(&self, store: StoreName) -> PathBuf {
        self.at("stores").join(store.id())
    }

    /// The access keys of a provider's server.
    pub fn store_keys(&self, store: StoreName) -> PathBuf {
        self.at("stores").join(format!("{}.keys.toml", store.id()))
    }

    /// Every folder to make at the start, all of them 0700.
    pub fn folders(&self) -> Vec<PathBuf> {
        let names = ["ca", "tls", "appliance", "appliance/staging", "backupd", "console", "agent", "logs", "stores"];
        names.iter().map(|name| self.at(name)).chain(StoreName::ALL.map(|store| self.store(store))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_lies_inside_the_folder() {
        let layout = Layout::new(Path::new("/srv/practice")).unwrap();
        assert!(layout.folders().iter().all(|folder| folder.starts_with("/srv/practice")));
        for store in StoreName::ALL {
            assert_eq!(StoreName::parse(store.id()), Some(store));
        }
        assert!(Layout::new(Path::new("relative")).unwrap().dir().is_absolute());
    }
}
