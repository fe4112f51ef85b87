//! Throw-away PostgreSQL servers.
//!
//! Each has the superuser `postgres` (let in without a password), the application's role `app` with its database `app`,
//! and `pgshadow`, the role without superuser rights that pgshadow logs in with. Passwords are the roles' names.
use crate::client::{Endpoint, LIMIT};
use crate::installation::{Installation, profile_directory};
use crate::port;
use crate::process::{self, Reaper, eventually, signal};
use crate::raw::RawClient;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use tempfile::TempDir;

/// How roles other than `postgres` prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    Trust,
    /// A password in clear.
    Password,
    /// The old hash.
    Md5,
    /// SCRAM-SHA-256, as servers ask for by default.
    Scram,
}

/// A server to be started.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    installation: Installation,
    auth: Auth,
    settings: Vec<(String, String)>,
}

impl ClusterBuilder {
    /// How roles log in; without this by SCRAM.
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Writes that reach the disk, for tests that crash more than a process and for benchmarks. Off without this.
    pub fn with_fsync(self) -> Self {
        self.set("fsync", "on").set("full_page_writes", "on")
    }

    /// A setting of `postgresql.conf`.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Makes the data directory and starts the server.
    pub fn start(self) -> Cluster {
        // Writable by the server's account, and it may pass through.
        let directory = server_directory();
        let data = directory.path().join("data");
        copy_template(&self.installation, &data);
        let method = match self.auth {
            Auth::Trust => "trust",
            Auth::Password => "password",
            Auth::Md5 => "md5",
            Auth::Scram => "scram-sha-256",
        };
        let access = format!(
            "host all postgres 127.0.0.1/32 trust\nhost replication postgres 127.0.0.1/32 trust\n\
             host all all 127.0.0.1/32 {method}\n"
        );
        fs::write(data.join("pg_hba.conf"), access).expect("pg_hba.conf");
        let mut cluster = Cluster {
            reaper: Some(Reaper::of(directory.path())),
            builder: self,
            directory,
            data,
            port: port::free(),
            server: None,
        };
        cluster.start();
        if cluster.builder.auth == Auth::Md5 {
            let hash = "SET password_encryption = 'md5'; SET client_min_messages = error; ";
            cluster
                .superuser()
                .psql(&format!("{hash} ALTER ROLE app PASSWORD 'app'; ALTER ROLE pgshadow PASSWORD 'pgshadow';"));
        }
        cluster
    }
}

/// A running server with its own data directory; both go with the value.
#[derive(Debug)]
pub struct Cluster {
    builder: ClusterBuilder,
    data: PathBuf,
    port: u16,
    server: Option<Child>,
    // Before the directory: fields are dropped in this order, and the reaper must not outlive what it watches.
    reaper: Option<Reaper>,
    directory: TempDir,
}

impl Cluster {
    /// The older version, started.
    pub fn old() -> Cluster {
        Cluster::of(Installation::old()).start()
    }

    /// The newest version, started.
    pub fn newest() -> Cluster {
        Cluster::of(Installation::newest()).start()
    }

    /// A server to be set up.
    pub fn of(installation: &Installation) -> ClusterBuilder {
        let settings = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("max_connections", "300"),
            ("max_prepared_transactions", "64"),
            ("wal_level", "logical"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        ClusterBuilder { installation: installation.clone(), auth: Auth::Scram, settings }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it runs from.
    pub fn installation(&self) -> &Installation {
        &self.builder.installation
    }

    /// The application's role in its database.
    pub fn app(&self) -> Endpoint {
        Endpoint::app(self.port)
    }

    /// `postgres` in the application's database.
    pub fn superuser(&self) -> Endpoint {
        self.app().as_user("postgres", "postgres")
    }

    /// The role that pgshadow logs in with, in the application's database.
    pub fn pgshadow(&self) -> Endpoint {
        self.app().as_user("pgshadow", "pgshadow")
    }

    /// Makes another database that belongs to `app`; returns it with `app` as the role.
    pub fn create_database(&self, name: &str) -> Endpoint {
        self.superuser().psql(&format!("CREATE DATABASE {name} OWNER app"));
        self.app().in_database(name)
    }

    /// A hot standby that follows this server, on a copy of its data directory. For that the server is stopped for a moment.
    pub fn standby(&mut self) -> Cluster {
        self.stop();
        let directory = server_directory();
        let data = directory.path().join("data");
        copy_directory(&self.data, &data);
        self.start();
        let primary = format!("host=127.0.0.1 port={} user=postgres", self.port);
        let mut standby = Cluster {
            builder: self.builder.clone().set("primary_conninfo", &primary),
            data,
            port: port::free(),
            server: None,
            reaper: Some(Reaper::of(directory.path())),
            directory,
        };
        standby.write_in_data("standby.signal", "");
        standby.start();
        standby
    }

    /// Moves this stopped server to the port of another one that is gone, as a failover does with an address.
    pub fn take_port_of(&mut self, gone: &Cluster) {
        assert!(self.server.is_none() && gone.server.is_none(), "both must be stopped");
        self.port = gone.port;
    }

    /// Keeps a copy of the stopped server's data directory under this name.
    pub fn save(&self, name: &str) {
        assert!(self.server.is_none(), "the server must be stopped");
        copy_directory(&self.data, &self.directory.path().join(name));
    }

    /// Puts a copy that [`save`](Self::save) made in the place of the stopped server's data.
    pub fn restore(&mut self, name: &str) {
        assert!(self.server.is_none(), "the server must be stopped");
        fs::remove_dir_all(&self.data).expect("own directory");
        copy_directory(&self.directory.path().join(name), &self.data);
    }

    /// Writes a file into the data directory.
    fn write_in_data(&self, name: &str, text: &str) {
        fs::write(self.data.join(name), text).expect("own directory");
        if let Some(account) = server_account() {
            let owner = format!("{}:{}", account.uid, account.gid);
            process::run(Command::new("chown").arg(owner).arg(self.data.join(name)), LIMIT).success();
        }
    }

    /// Process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().map(Child::id).expect("the server runs")
    }

    /// Starts it again on its port after [`stop`](Self::stop) or [`kill9`](Self::kill9); waits until it takes
    /// connections.
    pub fn start(&mut self) {
        assert!(self.server.is_none(), "the server runs already");
        // After a kill -9 its children may hold the shared memory for a moment: the server then refuses to start.
        for attempt in 0.. {
            let mut server = self.spawn();
            let version = self.wait_until_ready(&mut server);
            match version {
                Ok(version) => {
                    fs::write(self.directory.path().join("pid"), format!("{}\n", server.id())).expect("own directory");
                    self.server = Some(server);
                    // Past the test's capture of output, so that every log shows what was tested.
                    let line = format!("postgresql {version} on 127.0.0.1:{}\n", self.port);
                    drop(std::io::stderr().write_all(line.as_bytes()));
                    return;
                }
                Err(reason) if attempt == 20 => panic!("PostgreSQL did not start: {reason}\n{}", self.log_tail()),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn spawn(&self) -> Child {
        let log = fs::File::options().create(true).append(true).open(self.log_path()).expect("own directory");
        let mut command = as_server_account(&self.builder.installation.program("postgres"));
        command.arg("-D").arg(&self.data).args(["-p", &self.port.to_string()]);
        for (name, value) in &self.builder.settings {
            command.args(["-c", &format!("{name}={value}")]);
        }
        command.current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        command.spawn().expect("postgres can be run")
    }

    fn wait_until_ready(&self, server: &mut Child) -> Result<String, String> {
        eventually("PostgreSQL takes connections", LIMIT, || {
            if let Some(status) = server.try_wait().expect("own child") {
                return Some(Err(format!("it ended with {status}")));
            }
            let version = RawClient::login(self.port, "postgres", "", "postgres").and_then(|(mut client, _)| {
                // The port could have been taken by another server in the meantime.
                let data = client.value("SHOW data_directory")?;
                let version = client.value("SHOW server_version")?;
                if Path::new(&data) == self.data { Ok(version) } else { Err(std::io::Error::other(data)) }
            });
            version.ok().map(Ok)
        })
    }

    /// A shutdown that ends sessions and leaves a clean data directory.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Kills it as a crash would.
    pub fn kill9(&mut self) {
        self.end("KILL");
    }

    /// [`stop`](Self::stop) and [`start`](Self::start).
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    fn end(&mut self, name: &str) {
        let Some(mut server) = self.server.take() else { return };
        signal(server.id(), name);
        if process::wait(&mut server, Duration::from_secs(20)).is_none() {
            signal(server.id(), "KILL");
            drop(server.wait());
            panic!("PostgreSQL did not end on SIG{name}\n{}", self.log_tail());
        }
        drop(fs::remove_file(self.directory.path().join("pid")));
    }

    /// Stops the server with all its sessions, as a machine that hangs: connections stay open, nothing answers.
    pub fn freeze(&self) {
        let postmaster = self.pid();
        signal(postmaster, "STOP");
        for child in process::children(postmaster) {
            signal(child, "STOP");
        }
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        let postmaster = self.pid();
        for child in process::children(postmaster) {
            signal(child, "CONT");
        }
        signal(postmaster, "CONT");
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        tail(&self.log_path(), usize::MAX)
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.log_path(), 40)
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("postgresql.log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- PostgreSQL {} log\n{}", self.builder.installation.version, self.log_tail());
        }
        if let Some(mut server) = self.server.take() {
            for child in process::children(server.id()) {
                signal(child, "CONT");
            }
            signal(server.id(), "CONT");
            signal(server.id(), "QUIT");
            if process::wait(&mut server, Duration::from_secs(10)).is_none() {
                signal(server.id(), "KILL");
                drop(server.wait());
            }
        }
        drop(self.reaper.take());
    }
}

/// A directory that the servers' account may pass through.
fn server_directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("pgshadow-pg-").tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    directory
}

fn copy_directory(from: &Path, to: &Path) {
    process::run(Command::new("cp").arg("-a").arg(from).arg(to), LIMIT).success();
}

/// The last lines of a text file.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let skipped = text.lines().count().saturating_sub(lines);
    text.lines().skip(skipped).collect::<Vec<_>>().join("\n")
}

/// A server refuses to run as root: root runs it as `postgres` or `nobody`.
#[derive(Debug)]
struct Account {
    name: String,
    uid: String,
    gid: String,
}

fn server_account() -> Option<&'static Account> {
    static ACCOUNT: OnceLock<Option<Account>> = OnceLock::new();
    let find = || {
        let root = process::run(Command::new("id").arg("-u"), LIMIT).success().trim() == "0";
        root.then(|| {
            let accounts = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
            let find = |wanted: &str| accounts.lines().find(|line| line.split(':').next() == Some(wanted));
            let line = find("postgres").or_else(|| find("nobody")).expect("an account 'postgres' or 'nobody'");
            let mut fields = line.split(':').map(str::to_owned);
            let (name, _, uid, gid) = (fields.next(), fields.next(), fields.next(), fields.next());
            Account { name: name.expect("name"), uid: uid.expect("uid"), gid: gid.expect("gid") }
        })
    };
    ACCOUNT.get_or_init(find).as_ref()
}

pub(crate) fn as_server_account(program: &Path) -> Command {
    let mut command = match server_account() {
        None => Command::new(program),
        Some(account) => {
            let mut command = Command::new("setpriv");
            command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid));
            command.arg("--clear-groups").arg("--").arg(program);
            command
        }
    };
    command.env("HOME", "/tmp").env("LC_ALL", "C.UTF-8");
    // What the caller's environment says to libpq is no business of a test.
    for name in ["PGDATA", "PGPORT", "PGHOST", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGOPTIONS"] {
        command.env_remove(name);
    }
    command
}

const ROLES: &str = "\
CREATE ROLE app LOGIN PASSWORD 'app'
CREATE ROLE pgshadow LOGIN PASSWORD 'pgshadow'
GRANT app TO pgshadow
GRANT pg_monitor TO pgshadow
GRANT SET ON PARAMETER session_replication_role TO pgshadow
CREATE DATABASE app OWNER app
GRANT CREATE ON DATABASE app TO pgshadow
";

/// A fresh data directory. `initdb` takes seconds, so its result is kept under `target` and copied.
fn copy_template(installation: &Installation, data: &Path) {
    static USES: Mutex<Option<HashMap<String, u32>>> = Mutex::new(None);
    let mut uses = USES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let number = uses.get_or_insert_default().entry(installation.version.clone()).or_default();
    *number += 1;
    // Two servers of one version must not look like one: each template has its own system identifier.
    let number = *number % 2;
    let account = server_account().map_or("self", |account| &account.name);
    let kept = profile_directory().parent().expect("target").join("tmp/pgshadow-initdb");
    let kept = kept.join(format!("{}-{account}-{number}-3", installation.version));
    if !kept.exists() {
        make_template(installation, &kept);
    }
    drop(uses);
    copy_directory(&kept, data);
}

fn make_template(installation: &Installation, kept: &Path) {
    let scratch = tempfile::Builder::new().prefix("pgshadow-initdb-").tempdir().expect("a temporary directory");
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).expect("own directory");
    let data = scratch.path().join("data");
    let mut initdb = as_server_account(&installation.program("initdb"));
    initdb.current_dir(scratch.path()).arg("-D").arg(&data);
    initdb.args(["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync"]);
    process::run(&mut initdb, Duration::from_secs(120)).success();
    let mut single = as_server_account(&installation.program("postgres"));
    single.current_dir(scratch.path()).args(["--single", "-F", "-c", "password_encryption=scram-sha-256", "-D"]);
    single.arg(&data).arg("postgres");
    let known = |line: &&str| installation.major >= 15 || !line.contains("PARAMETER");
    let roles = ROLES.lines().filter(known).map(|line| format!("{line}\n")).collect::<String>();
    let made = process::run_with_input(&mut single, &roles, LIMIT);
    assert!(!made.stderr.contains("ERROR") && made.status.success(), "template: {}\n{}", made.stdout, made.stderr);
    // Another test program may be at the same: the first one wins.
    let parent = kept.parent().expect("a parent");
    fs::create_dir_all(parent).expect("target can be written");
    let own = parent.join(format!("new-{}", std::process::id()));
    process::run(Command::new("cp").arg("-a").arg(&data).arg(&own), LIMIT).success();
    if fs::rename(&own, kept).is_err() {
        drop(fs::remove_dir_all(&own));
    }
}
