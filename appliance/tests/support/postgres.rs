//! Where a test's records are. With `HOLDFAST_TEST_DATABASE=postgres` that is a database of its own in a PostgreSQL server
//! which the test's process starts, with a socket and no address; it ends with the process, however that ends.

use appliance::db::postgres::{Server, Task};
use appliance::db::{Connection, Place};
use appliance::probe::Restored;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

/// Whether the records are on a PostgreSQL server.
pub fn is_postgres() -> bool {
    match std::env::var("HOLDFAST_TEST_DATABASE").as_deref() {
        Ok("postgres") => true,
        Ok("sqlite") | Err(_) => false,
        Ok(other) => panic!("HOLDFAST_TEST_DATABASE is {other}: sqlite or postgres"),
    }
}

/// The place of a data folder, the same for the same folder.
pub fn place(data_dir: impl AsRef<Path>) -> Place {
    let data_dir = data_dir.as_ref();
    Place::new(data_dir, is_postgres().then(|| Cluster::shared().database(data_dir)))
}

/// What a restore of a snapshot of these records would be, taken now.
pub fn restored(data_dir: impl AsRef<Path>) -> Restored {
    let data_dir = data_dir.as_ref();
    if !is_postgres() {
        return Restored::open(data_dir);
    }
    Restored::open(&as_file(data_dir))
}

/// A folder in which these records are a file. On SQLite it is their own.
pub fn as_file(data_dir: impl AsRef<Path>) -> PathBuf {
    let data_dir = data_dir.as_ref();
    if !is_postgres() {
        return data_dir.to_owned();
    }
    let number = std::fs::read_dir(data_dir).unwrap().count();
    let folder = data_dir.join(format!("restored-{number}"));
    std::fs::create_dir(&folder).unwrap();
    symlink(data_dir.join("attachments"), folder.join("attachments")).unwrap();
    let source = raw(data_dir);
    source.begin_read().unwrap();
    assert!(appliance::relocate::into_file(&source, &folder.join("records.sqlite"), &|| true).unwrap());
    folder
}

/// The database itself, past this program's rules.
pub fn raw(data_dir: impl AsRef<Path>) -> Connection {
    let place = place(data_dir);
    match place.server() {
        None => Connection::open(place.file()).unwrap(),
        Some(server) => Connection::connect(server, Task::Write).unwrap(),
    }
}

/// A PostgreSQL server with a data folder of its own.
pub struct Cluster {
    folder: PathBuf,
    binaries: PathBuf,
    user: Option<u32>,
    /// Databases that were made, by the folder that they belong to.
    made: Mutex<Vec<(PathBuf, String)>>,
    /// While this is open the server runs: it ends when a write end of this pipe does.
    running: Mutex<Option<(Child, ChildStdin, u32)>>,
}

/// Starts the server, tells when it answers, waits for the end of standard input, ends the server by its number.
const KEEPER: &str = r#"cd /
"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c fsync="$3" -c max_connections=300 -c shared_buffers=64MB \
    -c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=256MB >>"$2/log" 2>&1 </dev/null & pid=$!
until "$1/pg_isready" -q -h "$2" -U holdfast -d postgres; do kill -0 $pid || exit 1; sleep 0.05; done
echo $pid
read -r _
kill -QUIT $pid 2>/dev/null
wait $pid
[ "$4" = keep ] || rm -rf "$2""#;

impl Cluster {
    /// The one of this process: fast, because what it holds is worth nothing after a power cut.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| {
            let cluster = Cluster::make();
            cluster.start();
            cluster
        })
    }

    /// A server that does not run yet.
    pub fn make() -> Cluster {
        let folder = tempfile::Builder::new().prefix("holdfast-pg-").tempdir().unwrap().keep();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
        // The server refuses to run as root.
        let is_root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
        let user = is_root.then(unprivileged);
        chown(&folder, user, user).unwrap();
        let cluster =
            Cluster { folder, binaries: binaries(), user, made: Mutex::new(Vec::new()), running: Mutex::new(None) };
        let data = cluster.folder.join("data");
        let told = cluster
            .command(cluster.binaries.join("initdb").to_str().unwrap())
            .args(["--auth=trust", "--username=holdfast", "--no-sync", "--locale=C", "--encoding=UTF8", "-D"])
            .arg(data)
            .output()
            .unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        cluster
    }

    /// Starts it, and gives the number of its first process.
    pub fn start(&self) -> u32 {
        let mut keeper = self
            .command("sh")
            .args(["-c", KEEPER, "keeper"])
            .args([self.binaries.as_path(), self.folder.as_path()])
            .args(["off", "remove"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let pid = line.trim().parse().unwrap_or_else(|_| panic!("the server did not start: {}", log()));
        let input = keeper.stdin.take().unwrap();
        *self.running.lock().unwrap() = Some((keeper, input, pid));
        pid
    }

    /// As a crash of the machine's memory ends it: nothing is written any more. Its data folder stays.
    pub fn kill(&self) {
        let (mut keeper, input, pid) = self.running.lock().unwrap().take().unwrap();
        keeper.kill().unwrap();
        keeper.wait().unwrap();
        drop(input);
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        // Its children notice, and end.
        let is_there = |pid: &str| Path::new("/proc").join(pid).join("stat").exists();
        let own = format!("{}/data", self.folder.display());
        let still = || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            let mut numbers = processes.filter_map(|entry| entry.file_name().into_string().ok());
            numbers.any(|number| {
                let line = std::fs::read_link(format!("/proc/{number}/cwd")).unwrap_or_default();
                line == Path::new(&own) && is_there(&number)
            })
        };
        while still() {
            std::thread::yield_now();
        }
        // Whoever inherits the dead process may not have taken note of its end yet, and these say that it lives.
        for lock in ["data/postmaster.pid", ".s.PGSQL.5432.lock"] {
            let _ = std::fs::remove_file(self.folder.join(lock));
        }
    }

    /// The database of a data folder, made when it is first asked for.
    pub fn database(&self, data_dir: &Path) -> Server {
        let mut made = self.made.lock().unwrap();
        let admin = Connection::connect(&Arc::new(self.server("postgres")), Task::Read).unwrap();
        // Those of folders that are gone are needed no more.
        made.retain(|(folder, name)| {
            let kept = root_of(folder).exists() || folder == data_dir;
            if !kept {
                admin.execute_batch(&format!("DROP DATABASE {name} WITH (FORCE)")).unwrap();
            }
            kept
        });
        let name = format!("t{}", &blake3::hash(data_dir.as_os_str().as_encoded_bytes()).to_hex()[..20]);
        if !made.iter().any(|(_, known)| *known == name) {
            admin.execute_batch(&format!("CREATE DATABASE {name} TEMPLATE template0")).unwrap();
            made.push((data_dir.to_owned(), name.clone()));
        }
        self.server(&name)
    }

    pub fn server(&self, database: &str) -> Server {
        Server::parse(&self.url(database)).unwrap()
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgresql://holdfast@/{database}?host={}", self.folder.display())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }
}

/// The temporary folder that a folder is in: the folder itself may not be made yet.
fn root_of(folder: &Path) -> PathBuf {
    let all = std::env::temp_dir();
    let first = folder.strip_prefix(&all).ok().and_then(|below| below.components().next());
    first.map_or(folder.to_owned(), |first| all.join(first))
}

/// The user that Debian makes for the server, or nobody.
fn unprivileged() -> u32 {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let id = |name: &str| users.lines().find_map(|line| line.strip_prefix(name)?.split(':').nth(1)?.parse().ok());
    id("postgres:").or_else(|| id("nobody:")).unwrap()
}

/// Where the newest server's programs are.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.max_by_key(|version| version.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    newest.expect("PostgreSQL is installed: Debian's package postgresql").path().join("bin")
}
