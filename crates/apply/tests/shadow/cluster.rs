//! Throw-away clusters: started here, ended when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Cluster {
    bin: PathBuf,
    _home: tempfile::TempDir,
    data: PathBuf,
    port: u16,
    postmaster: Option<Child>,
}

/// The two majors.
pub fn pair() -> (Cluster, Cluster) {
    (Cluster::start(programs("PGSHADOW_PG_OLD_BINDIR")), Cluster::start(programs("PGSHADOW_PG_NEW_BINDIR")))
}

/// Where a server's programs are: from the environment, else from what `make deps` has written down.
fn programs(name: &str) -> PathBuf {
    let written = || {
        let env = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/env");
        let text = std::fs::read_to_string(env).ok()?;
        let value = text.lines().find_map(|l| l.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_matches('\'').to_owned())
    };
    let found = std::env::var(name).ok().or_else(written);
    PathBuf::from(found.unwrap_or_else(|| panic!("{name} isn't known: run `make deps` first")))
}

impl Cluster {
    fn start(bin: PathBuf) -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        if is_root() {
            run(Command::new("chown").arg(user()).arg(home.path()));
        }
        let mut initdb = as_postgres(&bin.join("initdb"));
        run(initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut cluster = Self { bin, _home: home, data, port, postmaster: None };
        cluster.up();
        cluster
    }

    pub fn up(&mut self) {
        let mut postgres = as_postgres(&self.bin.join("postgres"));
        postgres.arg("-D").arg(&self.data).args(["-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "max_connections=60",
            "logging_collector=off",
            "log_min_messages=fatal",
            "shared_buffers=32MB",
            "max_prepared_transactions=5",
        ] {
            postgres.args(["-c", setting]);
        }
        self.postmaster = Some(postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let mut ready = Command::new(self.bin.join("pg_isready"));
        ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ready.status().unwrap().success() {
            assert!(Instant::now() < deadline, "the server did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the server at once, as a crash does.
    pub fn crash(&mut self) {
        if let Some(mut postmaster) = self.postmaster.take() {
            signal("-QUIT", postmaster.id());
            postmaster.wait().unwrap();
        }
    }

    /// Stops every process of the server in its tracks, or lets them go on.
    pub fn freeze(&self, freeze: bool) {
        let pid = self.postmaster.as_ref().unwrap().id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let what = if freeze { "-STOP" } else { "-CONT" };
        for pid in children.split_whitespace().map(|p| p.parse().unwrap()).chain([pid]) {
            signal(what, pid);
        }
    }

    pub fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname("postgres");
        config
    }

    pub async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = self.config().connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.postmaster.is_some() {
            self.freeze(false);
        }
        self.crash();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// Who the servers run as when we are root: they refuse to be.
fn user() -> &'static str {
    let known = Command::new("id").arg("postgres").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if known.is_ok_and(|s| s.success()) { "postgres" } else { "nobody" }
}

fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", user())).args(["--init-groups"]).arg(program).current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn signal(what: &str, pid: u32) {
    let _ = Command::new("kill").args([what, &pid.to_string()]).stderr(Stdio::null()).status();
}
