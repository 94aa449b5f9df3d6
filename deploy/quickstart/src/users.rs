//! `users.toml` (0600): the people of the practice with their passwords, for a demonstration. A real practice has no such
//! file: everybody is invited and chooses a password.

use crate::files;
use crate::layout::Layout;
use crate::secrets;
use anyhow::Context;
use serde::{Deserialize, Serialize};

const HEAD: &str =
    "# Passwords and second factors of the demonstration's users. Show one with: quickstart login NAME\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    Emr,
    Console,
    /// The patients' own pages.
    Portal,
}

/// Who is made at the first start: program, role, login name, display name.
const PEOPLE: [(Program, &str, &str, &str); 8] = [
    (Program::Emr, "practice-admin", "admin", "Alex Admin"),
    (Program::Emr, "clinician", "doctor", "Dana Doctor"),
    (Program::Emr, "front-desk", "desk", "Devon Desk"),
    (Program::Portal, "patient", "patient@example.org", "A patient"),
    (Program::Console, "owner", "owner", "Oakley Owner"),
    (Program::Console, "practice-it", "it", "Ira Tech"),
    (Program::Console, "data-center", "hands", "Harper Hands"),
    (Program::Console, "auditor", "auditor", "Aubrey Auditor"),
];

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub program: Program,
    pub role: String,
    pub name: String,
    pub display: String,
    pub password: String,
    /// Base32; empty until the account exists.
    pub totp_secret: String,
}

impl User {
    pub fn enrolled(&self) -> bool {
        !self.totp_secret.is_empty()
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Users {
    #[serde(rename = "user")]
    pub all: Vec<User>,
}

impl Users {
    /// The users of the folder, or the first ones with fresh passwords; written before any account is made, so that no
    /// password can be lost.
    pub fn prepare(layout: &Layout) -> anyhow::Result<Self> {
        if let Some(kept) = Self::load(layout)? {
            return Ok(kept);
        }
        let mut users = Self::default();
        for (program, role, name, display) in PEOPLE {
            users.all.push(User {
                program,
                role: role.into(),
                name: name.into(),
                display: display.into(),
                password: secrets::password()?,
                totp_secret: String::new(),
            });
        }
        users.save(layout)?;
        Ok(users)
    }

    pub fn load(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let path = layout.users();
        if !path.exists() {
            return Ok(None);
        }
        // The parser's message could quote a password.
        toml::from_str(&files::read(&path)?)
            .map(Some)
            .map_err(|_| anyhow::anyhow!("{} is damaged: restore it, or remove it to make new users", path.display()))
    }

    /// Forgets the second factors of the console's users, so that their accounts are made anew; whether there was one.
    pub fn forget_console(&mut self, layout: &Layout) -> anyhow::Result<bool> {
        let mut forgotten = false;
        for user in self.all.iter_mut().filter(|user| user.program == Program::Console) {
            forgotten |= user.enrolled();
            user.totp_secret.clear();
            // That of an account that is gone, too.
            std::fs::remove_file(layout.second_factor(&user.name)).ok();
        }
        if forgotten {
            self.save(layout)?;
        }
        Ok(forgotten)
    }

    pub fn save(&self, layout: &Layout) -> anyhow::Result<()> {
        let text = format!("{HEAD}{}", toml::to_string(self).context("the users cannot be written as TOML")?);
        files::write_private(&layout.users(), text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn users_are_made_once_and_only_their_owner_can_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        let first = Users::prepare(&layout).unwrap();
        let second = Users::prepare(&layout).unwrap();
        assert_eq!(first.all.len(), PEOPLE.len());
        assert!(first.all.iter().zip(&second.all).all(|(a, b)| a.password == b.password && !a.enrolled()));
        assert_eq!(layout.users().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_consoles_users_are_made_anew_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        let mut users = Users::prepare(&layout).unwrap();
        assert!(!users.forget_console(&layout).unwrap(), "there was nothing to forget");
        users.all.iter_mut().for_each(|user| user.totp_secret = "SECRET".into());
        std::fs::write(layout.second_factor("owner"), "{}").unwrap();
        assert!(users.forget_console(&layout).unwrap());
        let kept = Users::load(&layout).unwrap().unwrap();
        assert!(kept.all.iter().all(|user| user.enrolled() == (user.program != Program::Console)));
        assert!(!layout.second_factor("owner").exists());
    }

    #[test]
    fn a_damaged_file_does_not_show_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        std::fs::write(layout.users(), "[[user]]\npassword = \"hunter2\" oops").unwrap();
        let message = format!("{:#}", Users::load(&layout).err().unwrap());
        assert!(!message.contains("hunter2") && message.contains("users.toml"), "{message}");
    }
}
