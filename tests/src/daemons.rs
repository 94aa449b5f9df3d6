//! A practice with its daemons on this machine, without an EMR: one folder, stores that are folders.

use crate::place::{Place, ok, signal};
use crate::{program, wait_for};
use anyhow::Result;
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Settings of a practice with one folder to back up, two stores, and both daemons on this machine.
pub fn practice(dir: &Path) -> Result<()> {
    let stores = folders(dir, &["one", "two"])?;
    practice_with(dir, &stores)
}

/// `[[store]]` of each of these folders, which it makes.
pub fn folders(dir: &Path, names: &[&str]) -> Result<String> {
    let mut stores = String::new();
    for name in names {
        fs::create_dir_all(dir.join(format!("store-{name}")))?;
        stores += &format!(
            "[[store]]\nname = \"{name}\"\nkind = \"folder\"\npath = \"store-{name}\"\nsite = \"site-{name}\"\nprovider = \"{name}\"\n"
        );
    }
    Ok(stores)
}

/// Settings of maintenance for these stores.
pub fn maintain(dir: &Path, stores: &str) -> Result<()> {
    let maintain = format!(
        "practice = \"Names\"\ntime_zone = \"UTC\"\nstate_dir = \"state/maintain\"\nsocket = \"m.sock\"\n\
         maintain_schedule = \"0 6 * * *\"\n{stores}"
    );
    Ok(fs::write(dir.join("maintain.toml"), maintain)?)
}

/// The settings of serve and verifier with these stores; two must hold a snapshot.
pub fn practice_with(dir: &Path, stores: &str) -> Result<()> {
    fs::create_dir_all(dir.join("data"))?;
    let serve = format!(
        "practice = \"Names\"\ntime_zone = \"UTC\"\nsite = \"a\"\nwriter_credential = \"writer.cred\"\nstate_dir = \"state/serve\"\n\
         socket = \"s.sock\"\nquorum = 2\ndisk_reserve_bytes = 1000000\nreport_key = \"report.pub\"\n[[source]]\nname = \"files\"\n\
         kind = \"folder\"\npath = \"data\"\nschedule = \"0 4 * * *\"\n{stores}"
    );
    fs::write(dir.join("serve.toml"), serve)?;
    let verifier = format!(
        "practice = \"Names\"\ntime_zone = \"UTC\"\nhost = \"b\"\nsite = \"b\"\nopen_key = \"open.key\"\nreport_key = \"report.key\"\n\
         state_dir = \"state/verifier\"\nsocket = \"v.sock\"\ndrill_schedule = \"0 5 * * *\"\nsandbox_dir = \"sandbox\"\n\
         same_host_as_writer = true\n[probe]\nmode = \"spawn\"\nprogram = {:?}\n{stores}",
        program("appliance"),
    );
    Ok(fs::write(dir.join("verifier.toml"), verifier)?)
}

/// Ends a daemon as a power cut does.
pub fn kill(mut daemon: Child) -> Result<()> {
    daemon.kill()?;
    daemon.wait()?;
    Ok(())
}

/// A daemon of a practice, ended with the test.
pub struct Daemon(pub Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = signal(&self.0, Signal::TERM);
        let _ = self.0.wait();
    }
}

/// `backupd VERB --config CONFIG ...` in the practice's folder.
pub fn with_config(place: &Place, dir: &Path, args: &[&str], config: &str) -> Command {
    let mut command = place.bare(&args[..1]);
    command.env_remove("BACKUPD_PASSPHRASE").arg("--config").arg(dir.join(config)).args(&args[1..]);
    command.current_dir(dir);
    command
}

/// Makes the repository and starts both daemons.
pub fn start(place: &Place, dir: &Path) -> Result<[Daemon; 2]> {
    ok(with_config(place, dir, &["init", "--kit", "kit.json", "--write-paper-key", "paper.txt"], "serve.toml"))?;
    serve_and_verify(place, dir)
}

/// Starts both daemons on a repository that is made.
pub fn serve_and_verify(place: &Place, dir: &Path) -> Result<[Daemon; 2]> {
    let start = |verb: &str, config: &str| -> Result<Daemon> {
        let mut command = with_config(place, dir, &[verb], config);
        Ok(Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    };
    for socket in ["s.sock", "v.sock"] {
        let _ = fs::remove_file(dir.join(socket));
    }
    let daemons = [start("serve", "serve.toml")?, start("verifier", "verifier.toml")?];
    wait_for("the daemons", 60, || (dir.join("s.sock").exists() && dir.join("v.sock").exists()).then_some(()))?;
    Ok(daemons)
}
