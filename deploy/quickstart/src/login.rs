//! What a person needs to log in: address, name, password, the code of this moment, and what the browser will ask about.

use crate::ambient;
use crate::authority;
use crate::files;
use crate::layout::Layout;
use crate::practice::Practice;
use crate::users::{Program, User, Users};
use anyhow::Context;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use std::fmt::Write;

const STEP_S: u64 = 30;

/// The code of `totp_secret` (base32) now, and for how many seconds it is good.
pub fn code_now(totp_secret: &str) -> anyhow::Result<(String, u64)> {
    let now = ambient::unix_s();
    Ok((code_at(totp_secret, now)?, STEP_S - now % STEP_S))
}

pub fn code_at(totp_secret: &str, unix_s: u64) -> anyhow::Result<String> {
    let secret: [u8; 20] = data_encoding::BASE32_NOPAD
        .decode(totp_secret.trim_end_matches('=').as_bytes())
        .ok()
        .and_then(|secret| secret.try_into().ok())
        .context("the second factor in users.toml is not 160 bits of base32")?;
    let totp = totp_rs::Builder::new()
        .with_secret(secret)
        .with_step_duration(STEP_S)
        .build()
        .map_err(|_| anyhow::anyhow!("the second factor in users.toml cannot be used"))?;
    Ok(totp.generate(unix_s).to_string())
}

/// Everything for one user, with a QR code for an authenticator app.
pub fn one(layout: &Layout, practice: &Practice, user: &User) -> anyhow::Result<String> {
    let mut text = card(layout, practice, user)?;
    let issuer = match user.program {
        Program::Emr | Program::Portal => practice.practice_name.as_str(),
        Program::Console => "Holdfast console",
    };
    let url = otpauth(issuer, &user.name, &user.totp_secret);
    let code = QrCode::new(url.as_bytes()).context("the QR code cannot be made")?;
    let image = code.render::<Dense1x2>().quiet_zone(true).build();
    let _ = write!(text, "\n  or scan this with an authenticator app:\n{image}\n");
    Ok(text)
}

fn card(layout: &Layout, practice: &Practice, user: &User) -> anyhow::Result<String> {
    let (title, stem, port) = match user.program {
        Program::Emr => ("EMR", "appliance", practice.ports.appliance),
        Program::Console => ("Console", "console", practice.ports.console),
        Program::Portal => ("Patient portal", "appliance", practice.ports.portal),
    };
    let (code, good_s) = code_now(&user.totp_secret)?;
    Ok(format!(
        "{title}\n  URL          {}\n  user         {}  ({})\n  password     {}\n  code         {code}  (good for {good_s} s)\n  \
         certificate  SHA-256 {}",
        practice.url(port),
        user.name,
        user.role,
        user.password,
        authority::fingerprint(&authority::leaf_files(layout, stem).0)?,
    ))
}

/// EMR, patient portal, console and health page, each with one user, and the names of the others.
pub fn all(layout: &Layout, practice: &Practice, users: &Users) -> anyhow::Result<String> {
    let mut text = String::new();
    for program in [Program::Emr, Program::Portal, Program::Console] {
        let mut enrolled = users.all.iter().filter(|user| user.program == program && user.enrolled());
        let Some(first) = enrolled.next() else { continue };
        text.push_str(&one(layout, practice, first)?);
        let others: Vec<String> = enrolled.map(|user| format!("{} ({})", user.name, user.role)).collect();
        if !others.is_empty() {
            let _ = writeln!(text, "  other users: {}", others.join(", "));
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "Health page (for hands in the data center; needs no login and shows no record)\n  URL          {}\n  \
         certificate  SHA-256 {}\n\n\
         Downtime pack (what the office works with while it is cut off): as admin of the EMR under\n\
         {}practice/downtime\n\n\
         The browser will warn: the certificates are signed by this practice's own authority, {}.\n\
         Compare the fingerprint, or import that file into the browser.\n\
         To see a user's login again: {} --dir {} login NAME",
        practice.url(practice.ports.agent),
        authority::fingerprint(&authority::leaf_files(layout, "agent").0)?,
        practice.url(practice.ports.appliance),
        authority::ca_file(layout).display(),
        own_program(),
        files::quoted(layout.dir()),
    );
    Ok(text)
}

/// This program as a person at a terminal can start it again: it is on no PATH.
pub fn own_program() -> String {
    std::env::current_exe().map_or_else(|_| "quickstart".into(), |own| files::quoted(&own))
}

/// `quickstart login USER`.
pub fn again(layout: &Layout, name: &str) -> anyhow::Result<String> {
    let missing = || format!("there is no practice in {}: name its folder with --dir", layout.dir().display());
    let practice = Practice::load(layout)?.with_context(missing)?;
    let users = Users::load(layout)?.with_context(missing)?;
    let known = || users.all.iter().map(|user| user.name.as_str()).collect::<Vec<_>>().join(", ");
    let user = users
        .all
        .iter()
        .find(|user| user.name == name)
        .with_context(|| format!("no user is named {name}; there are {}", known()))?;
    anyhow::ensure!(user.enrolled(), "{name} has no account yet: the first start did not come that far; start again");
    one(layout, &practice, user)
}

fn otpauth(issuer: &str, account: &str, secret: &str) -> String {
    let (issuer, account) = (percent(issuer), percent(account));
    format!("otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}")
}

pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::practice::Wishes;

    /// RFC 6238 appendix B, SHA-1, the last six of the eight digits.
    #[test]
    fn codes_are_those_of_the_standard() {
        let secret = data_encoding::BASE32_NOPAD.encode(b"12345678901234567890");
        for (at, code) in [(59, "287082"), (1_111_111_109, "081804"), (2_000_000_000, "279037")] {
            assert_eq!(code_at(&secret, at).unwrap(), code);
        }
        assert!(code_at("not base32!", 0).is_err());
    }

    #[test]
    fn a_login_shows_all_that_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        let practice = Practice::prepare(&layout, Wishes::default()).unwrap();
        let mut users = Users::prepare(&layout).unwrap();
        assert!(again(&layout, "doctor").unwrap_err().to_string().contains("start again"));
        for user in &mut users.all {
            user.totp_secret = data_encoding::BASE32_NOPAD.encode(b"12345678901234567890");
        }
        users.save(&layout).unwrap();
        let text = again(&layout, "doctor").unwrap();
        let user = users.all.iter().find(|user| user.name == "doctor").unwrap();
        for part in [user.password.as_str(), "https://localhost:", "SHA-256 ", "code  ", "█"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(again(&layout, "nobody").unwrap_err().to_string().contains("doctor"));
        assert!(all(&layout, &practice, &users).unwrap().contains("Health page"));
        std::fs::remove_dir_all(practice.run_dir).unwrap();
    }
}
