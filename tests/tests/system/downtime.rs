//! The office cut off from the data center: the downtime pack in a browser without a network, and a note that is typed while
//! the server is away.

use anyhow::{Context, Result, bail, ensure};
use holdfast_tests::{program, root, wait_for};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The EMR alone, with a few records.
struct Emr {
    dir: tempfile::TempDir,
    port: u16,
    running: Option<Child>,
}

impl Emr {
    fn make() -> Result<Emr> {
        let dir = tempfile::Builder::new().prefix("hf").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let at = |name: &str| dir.path().join(name);
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        fs::write(at("cert.pem"), key.cert.pem())?;
        fs::write(at("key.pem"), key.signing_key.serialize_pem())?;
        let settings = format!(
            "data_dir = \"data\"\nstaging_dir = \"staging\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n\
             ops_socket = \"ops.sock\"\nlisten = \"127.0.0.1:{port}\"\npublic_names = [\"localhost\"]\n\n[downtime]\n"
        );
        fs::write(at("appliance.toml"), settings)?;
        let emr = Emr { dir, port, running: None };
        emr.run(&["init"])?;
        emr.run(&["seed", "--patients", "3"])?;
        Ok(emr)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("appliance"));
        command.args(arguments).arg("--config").arg(self.dir.path().join("appliance.toml"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let done = self.command(arguments).output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    fn user(&self, name: &str, role: &str) -> Result<Value> {
        let (password, secret) = (self.dir.path().join("password"), self.dir.path().join(format!("{name}.json")));
        fs::write(&password, "correct horse battery staple\n")?;
        let (password, out) = (password.to_string_lossy(), secret.to_string_lossy());
        self.run(&[
            "user",
            "create",
            "--name",
            name,
            "--role",
            role,
            "--password-file",
            &password,
            "--totp-out",
            &out,
        ])?;
        let told: Value = serde_json::from_slice(&fs::read(&secret)?)?;
        Ok(json!({"name": name, "password": "correct horse battery staple", "secret": told["totp_secret"]}))
    }

    fn start(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "it runs already");
        self.running = Some(self.command(&["serve"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        wait_for("the EMR", 60, || TcpStream::connect(("127.0.0.1", self.port)).ok()).map(drop)
    }

    fn stop(&mut self) -> Result<()> {
        let mut child = self.running.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// A patient with an appointment tomorrow, brought in as a practice would, and what must be known of her.
    fn patient(&self) -> Result<()> {
        let folder = self.dir.path().join("in");
        fs::create_dir(&folder)?;
        fs::write(
            folder.join("patients.csv"),
            "number,family,given,birth,gender,phone\n1,Okonkwa-Lindqvist,Marguerite,1958-11-03,f,+1 555 010 4477\n",
        )?;
        let tomorrow = chrono::DateTime::from_timestamp(holdfast_tests::http::unix_s().cast_signed() + 86_400, 0);
        let tomorrow = tomorrow.context("a day")?.format("%Y-%m-%d");
        let visit = format!("number,patient,day,time,minutes,reason\n1,1,{tomorrow},10:20,20,Follow-up\n");
        fs::write(folder.join("appointments.csv"), visit)?;
        self.run(&["import", "csv", &folder.to_string_lossy()])
    }

    /// Pulls the pack as an office computer would.
    fn pull(&self, token: &str, into: &Path) -> Result<()> {
        let url = format!("https://localhost:{}/downtime/pack", self.port);
        let told = |token: &str| -> Result<(String, String)> {
            let out = Command::new("curl")
                .args(["--silent", "--show-error", "--write-out", "%{http_code}", "--cacert"])
                .arg(self.dir.path().join("cert.pem"))
                .args(["-H", &format!("Authorization: Bearer {token}"), "-o"])
                .arg(into)
                .arg(&url)
                .output()?;
            Ok((String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned()))
        };
        ensure!(told("somebody-elses-token")?.0 == "401", "a token that nobody was given opens nothing");
        let (status, problem) = told(token)?;
        ensure!(status == "200", "{status} {problem}");
        Ok(())
    }
}

impl Drop for Emr {
    fn drop(&mut self) {
        if self.running.is_some() {
            let _ = self.stop();
        }
    }
}

fn bundle(folder: &Path, patient: &str) -> Result<PathBuf> {
    let subject = json!({"reference": format!("Patient/{patient}")});
    let status = |system: &str| json!({"coding": [{"system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": "active"}]});
    let entry = |body: Value| json!({"resource": body, "request": {"method": "POST", "url": body["resourceType"]}});
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        entry(json!({"resourceType": "AllergyIntolerance", "patient": subject, "code": {"text": "Penicillin"},
            "criticality": "high", "clinicalStatus": status("allergyintolerance-clinical")})),
        entry(json!({"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": subject,
            "medicationCodeableConcept": {"text": "Lisinopril 10 mg"}, "dosageInstruction": [{"text": "1 every morning"}]})),
        entry(json!({"resourceType": "Condition", "subject": subject, "code": {"text": "Hypertension"},
            "clinicalStatus": status("condition-clinical")})),
    ]});
    fs::create_dir(folder)?;
    fs::write(folder.join("1.json"), bundle.to_string())?;
    Ok(folder.to_owned())
}

#[test]
fn the_office_works_on_without_a_connection() -> Result<()> {
    let tools = std::env::var_os("HOLDFAST_TOOLS").map_or_else(|| root().join(".tools"), Into::into);
    let modules = tools.join("browser/node_modules");
    for tool in ["playwright-core", "axe-core"] {
        ensure!(modules.join(tool).exists(), "{tool} is missing: run `./tests/run system`");
    }
    let mut emr = Emr::make()?;
    emr.patient()?;
    let export = emr.dir.path().join("export");
    emr.run(&["export", &export.to_string_lossy()])?;
    let patients = fs::read_to_string(export.join("resources/Patient-0001.ndjson"))?;
    let ours = patients.lines().find(|line| line.contains("Okonkwa-Lindqvist")).context("the patient")?;
    let id = serde_json::from_str::<Value>(ours)?["id"].as_str().context("an id")?.to_owned();
    emr.run(&["import", "fhir", &bundle(&emr.dir.path().join("bundles"), &id)?.to_string_lossy()])?;
    let (admin, doctor) = (emr.user("admin", "practice-admin")?, emr.user("doctor", "clinician")?);
    emr.start()?;
    let shots = root().join("target/screenshots");
    fs::create_dir_all(&shots)?;
    let [pack, forged, pdf] = ["pack.html", "forged.html", "pack.pdf"].map(|name| emr.dir.path().join(name));
    let input = json!({
        "url": format!("https://localhost:{}", emr.port), "admin": admin, "doctor": doctor, "id": id,
        "patient": "Okonkwa-Lindqvist", "phone": "+1 555 010 4477", "pack": pack, "forged": forged, "pdf": pdf,
        "name": "downtime", "shots": shots, "modules": modules,
    });
    let file = emr.dir.path().join("browser.json");
    fs::write(&file, serde_json::to_vec(&input)?)?;
    let mut child = Command::new("node")
        .arg(root().join("tests/browser/downtime.mjs"))
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("node")?;
    let mut tell = child.stdin.take().context("stdin")?;
    let mut over = false;
    for line in BufReader::new(child.stdout.take().context("stdout")?).lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("stop", _) => emr.stop()?,
            ("start", _) => emr.start()?,
            ("pull", token) => {
                emr.pull(token, &pack)?;
                let text = fs::read_to_string(&pack)?;
                ensure!(!text.contains("Okonkwa") && !text.contains("Penicillin"), "the pack is sealed");
                let from = text.find("\"taken\":\"20").context("when it was taken")? + "\"taken\":\"".len();
                let other = if &text[from..from + 4] == "2001" { "2002" } else { "2001" };
                fs::write(&forged, format!("{}{other}{}", &text[..from], &text[from + 4..]))?;
                writeln!(tell, "pulled")?;
                continue;
            }
            _ if line.contains("the line is back") => over = true,
            _ => bail!("{line}"),
        }
        writeln!(tell, "done")?;
    }
    ensure!(child.wait()?.success() && over, "the browser's day ended early");
    let printed = lopdf::Document::load(&pdf)?;
    let words = printed.extract_text(&printed.get_pages().keys().copied().collect::<Vec<_>>())?;
    ensure!(words.contains("Penicillin") && words.contains("Okonkwa-Lindqvist"), "the PDF holds the same: {words}");
    Ok(())
}
