//! An EMR with the daemons of its backup on this machine, two stores that are folders, and nothing else.

use anyhow::{Context, Result, ensure};
use holdfast_tests::daemons::{Daemon, serve_and_verify, with_config};
use holdfast_tests::place::{Place, last, ok};
use holdfast_tests::{User, json_lines, program, root, wait_for};
use serde_json::Value;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PASSWORD: &str = "correct horse battery staple";

pub struct Clinic {
    place: Place,
    pub dir: PathBuf,
    pub port: u16,
}

impl Clinic {
    /// The settings and the repository; no program runs yet.
    pub fn make() -> Result<Clinic> {
        let place = Place::new()?;
        let dir = place.path("clinic");
        fs::create_dir_all(&dir)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        fs::write(dir.join("cert.pem"), key.cert.pem())?;
        fs::write(dir.join("key.pem"), key.signing_key.serialize_pem())?;
        let clinic = Clinic { place, dir, port };
        clinic.settings(true, "")?;
        let mut stores = String::new();
        for name in ["one", "two"] {
            fs::create_dir_all(clinic.dir.join(format!("store-{name}")))?;
            stores += &format!(
                "[[store]]\nname = \"{name}\"\nkind = \"folder\"\npath = \"store-{name}\"\nsite = \"site-{name}\"\n\
                 provider = \"{name}\"\n"
            );
        }
        let serve = format!(
            "practice = \"Clinic\"\ntime_zone = \"UTC\"\nsite = \"a\"\nwriter_credential = \"writer.cred\"\n\
             state_dir = \"state/serve\"\nsocket = \"s.sock\"\nquorum = 2\ndisk_reserve_bytes = 1000000\n\
             report_key = \"report.pub\"\n[[source]]\nname = \"emr\"\nkind = \"appliance\"\nops_socket = \"ops.sock\"\n\
             schedule = \"0 3 1 1 *\"\n{stores}"
        );
        fs::write(clinic.dir.join("serve.toml"), serve)?;
        let verifier = format!(
            "practice = \"Clinic\"\ntime_zone = \"UTC\"\nhost = \"b\"\nsite = \"b\"\nopen_key = \"open.key\"\n\
             report_key = \"report.key\"\nstate_dir = \"state/verifier\"\nsocket = \"v.sock\"\n\
             drill_schedule = \"0 5 1 1 *\"\nsandbox_dir = \"sandbox\"\nsame_host_as_writer = true\n\
             [probe]\nmode = \"spawn\"\nprogram = {:?}\n{stores}",
            program("appliance"),
        );
        fs::write(clinic.dir.join("verifier.toml"), verifier)?;
        let init = ["init", "--kit", "kit.json", "--write-paper-key", "paper.txt"];
        ok(with_config(&clinic.place, &clinic.dir, &init, "serve.toml"))?;
        Ok(clinic)
    }

    /// Writes appliance.toml; `backup`: with the sockets of the backup's daemons. `more` comes behind.
    pub fn settings(&self, backup: bool, more: &str) -> Result<()> {
        let backup = if backup { "serve_socket = \"s.sock\"\n" } else { "" };
        let text = format!(
            "data_dir = \"data\"\nstaging_dir = \"staging\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n\
             ops_socket = \"ops.sock\"\nlisten = \"127.0.0.1:{}\"\npublic_names = [\"localhost\"]\n\n[backup]\n{backup}{more}",
            self.port
        );
        Ok(fs::write(self.dir.join("appliance.toml"), text)?)
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn emr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("appliance"));
        command.args(arguments).arg("--config").arg(self.dir.join("appliance.toml")).stdin(Stdio::null());
        command
    }

    /// Runs a command of the EMR that must succeed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        ok(self.emr(arguments))
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Makes a user of the EMR.
    pub fn user(&self, name: &str, role: &str) -> Result<User> {
        let (password, out) = (self.dir.join("password"), self.dir.join(format!("{name}.json")));
        fs::write(&password, format!("{PASSWORD}\n"))?;
        let [password, told] = [&password, &out].map(|path| path.to_string_lossy().into_owned());
        let names = ["--name", name, "--role", role];
        self.run(&[&["user", "create"][..], &names, &["--password-file", &password, "--totp-out", &told]].concat())?;
        let told: Value = serde_json::from_slice(&fs::read(&out)?)?;
        let totp_secret = told["totp_secret"].as_str().context("a secret")?.to_owned();
        Ok(User { name: name.to_owned(), password: PASSWORD.to_owned(), totp_secret, url: self.url() })
    }

    /// Starts the backup's daemons.
    pub fn backup(&self) -> Result<[Daemon; 2]> {
        serve_and_verify(&self.place, &self.dir)
    }

    /// Starts the EMR and waits until it answers.
    pub fn serve(&self) -> Result<Daemon> {
        let log = fs::File::create(self.dir.join("appliance.log"))?;
        let running = self.emr(&["serve"]).stdout(Stdio::null()).stderr(log).spawn()?;
        let mut running = Daemon(running);
        wait_for("the EMR", 120, || {
            let ended = running.0.try_wait().ok().flatten().is_some();
            (ended || TcpStream::connect(("127.0.0.1", self.port)).is_ok()).then_some(())
        })?;
        ensure!(running.0.try_wait()?.is_none(), "{}", fs::read_to_string(self.dir.join("appliance.log"))?);
        Ok(running)
    }

    /// Asks the daemons.
    pub fn backupd(&self, args: &[&str]) -> Result<Vec<Value>> {
        json_lines(&self.backupd_output(args)?)
    }

    pub fn backupd_output(&self, args: &[&str]) -> Result<Output> {
        let cli = format!("serve = \"unix:{0}/s.sock\"\nverifier = \"unix:{0}/v.sock\"\n", self.dir.display());
        fs::write(self.dir.join("cli.toml"), cli)?;
        let mut command = with_config(&self.place, &self.dir, args, "cli.toml");
        Ok(command.arg("--json").output()?)
    }

    /// The snapshots, newest first.
    pub fn snapshots(&self) -> Result<Vec<Value>> {
        let told = last(self.backupd(&["snapshots"])?, "snapshots")?;
        Ok(told["snapshots"].as_array().context("snapshots")?.clone())
    }

    /// Puts records there as a release of this schema left them.
    pub fn left_by(&self, schema: u32) -> Result<()> {
        let frozen = root().join(format!("appliance/tests/fixtures/frozen/schema-{schema}.sqlite"));
        fs::create_dir_all(self.data())?;
        fs::copy(frozen, self.data().join("records.sqlite"))?;
        let letter = b"%PDF-1.4 a letter of long ago\n";
        let name = blake3::hash(letter).to_hex().to_string();
        let folder = self.data().join("attachments").join(&name[..2]);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(&name[2..]), letter)?)
    }
}

/// Where the browser's libraries are.
pub fn browser_modules() -> Result<PathBuf> {
    let tools = std::env::var_os("HOLDFAST_TOOLS").map_or_else(|| root().join(".tools"), Into::into);
    let modules = tools.join("browser/node_modules");
    for tool in ["playwright-core", "axe-core"] {
        ensure!(modules.join(tool).exists(), "{tool} is missing: run `./tests/run system`");
    }
    Ok(modules)
}

/// The number in the head of a database file that says which schema it has.
pub fn schema_of(database: &Path) -> Result<u32> {
    let bytes = fs::read(database)?;
    let field = bytes.get(60..64).and_then(|field| field.try_into().ok()).context("a database file")?;
    Ok(u32::from_be_bytes(field))
}
