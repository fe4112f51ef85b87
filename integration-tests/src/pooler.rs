//! PgBouncer, as it stands between many an application and its database.
use crate::client::{Endpoint, LIMIT};
use crate::installation::setting;
use crate::port;
use crate::postgres::{as_server_account, tail};
use crate::process::{self, Reaper, eventually, signal};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// What clients share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A server session belongs to one client until that leaves.
    Session,
    /// Until the end of its transaction.
    Transaction,
}

/// A PgBouncer to be started: few server sessions, looked at before each use and soon given up, so that clients meet all that it
/// does with them.
#[derive(Debug)]
pub struct PgbouncerBuilder {
    server: u16,
    settings: Vec<(String, String)>,
    prepared: bool,
}

impl PgbouncerBuilder {
    /// A setting of `pgbouncer.ini`; the last one of a name counts.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.into(), value.into()));
        self
    }

    /// One that follows prepared statements from one server session to the next (1.21 or newer, which `make conform` has).
    pub fn with_prepared_statements(mut self) -> Self {
        self.prepared = true;
        self.set("max_prepared_statements", "100")
    }

    /// Starts it and waits until it takes connections.
    pub fn start(self) -> Pgbouncer {
        let name = if self.prepared { "PGSHADOW_PREPARED_PGBOUNCER" } else { "PGSHADOW_PGBOUNCER" };
        let program = setting(name).unwrap_or_else(|| panic!("no PgBouncer ({name}); run: make deps"));
        let directory = tempfile::Builder::new().prefix("pgshadow-pool-").tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("own directory");
        let port = port::free();
        let path = |name: &str| directory.path().join(name);
        let mut text = format!("[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\n", self.server);
        text.push_str(&format!("listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"));
        text.push_str(&format!("auth_file = {}\nlogfile = {}\n", path("users").display(), path("log").display()));
        for (name, value) in &self.settings {
            text.push_str(&format!("{name} = {value}\n"));
        }
        fs::write(path("users"), "\"app\" \"app\"\n\"pgshadow\" \"pgshadow\"\n").expect("own directory");
        fs::write(path("pgbouncer.ini"), text).expect("own directory");
        let mut command = as_server_account(&PathBuf::from(&program));
        command.arg("-q").arg(path("pgbouncer.ini")).current_dir(directory.path());
        let program = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let program = program.unwrap_or_else(|error| panic!("can't start PgBouncer: {error}"));
        fs::write(path("pid"), format!("{}\n", program.id())).expect("own directory");
        let reaper = Some(Reaper::of(directory.path()));
        let mut pool = Pgbouncer { port, program, reaper, directory };
        eventually("PgBouncer listens", LIMIT, || {
            let ended = pool.program.try_wait().expect("own child");
            assert!(ended.is_none(), "PgBouncer ended: {}", pool.log_tail());
            std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
        });
        pool
    }
}

/// A running PgBouncer.
#[derive(Debug)]
pub struct Pgbouncer {
    port: u16,
    program: Child,
    reaper: Option<Reaper>,
    directory: TempDir,
}

impl Pgbouncer {
    /// In front of this port of 127.0.0.1, whose users have their names as passwords.
    pub fn before(server: u16, mode: Mode) -> PgbouncerBuilder {
        let mode = match mode {
            Mode::Session => "session",
            Mode::Transaction => "transaction",
        };
        let settings = [
            ("pool_mode", mode),
            ("auth_type", "scram-sha-256"),
            ("default_pool_size", "4"),
            ("max_client_conn", "200"),
            ("server_reset_query", "DISCARD ALL"),
            ("server_check_query", "select 1"),
            ("server_check_delay", "0"),
            ("server_lifetime", "2"),
            ("application_name_add_host", "1"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        PgbouncerBuilder { server, settings, prepared: false }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same database and role, through it.
    pub fn place(&self, of: &Endpoint) -> Endpoint {
        Endpoint { port: self.port, ..of.clone() }
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.directory.path().join("log"), 30)
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- PgBouncer log\n{}", self.log_tail());
        }
        signal(self.program.id(), "TERM");
        if process::wait(&mut self.program, Duration::from_secs(5)).is_none() {
            signal(self.program.id(), "KILL");
            drop(self.program.wait());
        }
        drop(self.reaper.take());
    }
}
