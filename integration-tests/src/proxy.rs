//! The program under test, run as its users run it: a configuration file, the command line, HTTP.
use crate::client::{Endpoint, LIMIT};
use crate::installation::Installation;
use crate::installation::{profile_directory, repository, setting};
use crate::port;
use crate::postgres::{Cluster, tail};
use crate::process::{self, Finished, Reaper, signal};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TRACE: &str = "trace";
const USERS: &str = "users.txt";
const FLIP_STOPS: &str = "flip.stop";
const FLIP_STOPPED: &str = "flip.there";

/// The configuration of a pgshadow to be started.
#[derive(Debug)]
pub struct PgshadowBuilder {
    /// Section -> key -> value as TOML.
    sections: BTreeMap<String, BTreeMap<String, String>>,
    source: Endpoint,
    target: Endpoint,
    environment: Vec<(String, String)>,
    trace: bool,
    users: Option<String>,
}

impl PgshadowBuilder {
    /// A key of the configuration, its value written as in TOML: `.set("mirror_log", "size_max", "\"1MiB\"")`.
    pub fn set(mut self, section: &str, key: &str, value: &str) -> Self {
        self.sections.entry(section.into()).or_default().insert(key.into(), value.into());
        self
    }

    /// A plain proxy: `[mirror] enabled = false`.
    pub fn without_mirroring(self) -> Self {
        self.set("mirror", "enabled", "false")
    }

    /// `[mirror_log] durability`: `"fsync"` or `"os"`.
    pub fn durability(self, word: &str) -> Self {
        self.set("mirror_log", "durability", &format!("\"{word}\""))
    }

    /// The database to migrate, on both sides, instead of `app`.
    pub fn database(mut self, name: &str) -> Self {
        self.source = self.source.in_database(name);
        self.target = self.target.in_database(name);
        self
    }

    /// What pgshadow logs in with on both sides, instead of its own role without superuser rights.
    pub fn as_user(mut self, user: &str, password: &str) -> Self {
        self.source = self.source.as_user(user, password);
        self.target = self.target.as_user(user, password);
        self
    }

    /// Authentication mode `scram`, with these lines as `[auth] users_file`.
    pub fn users(mut self, lines: &str) -> Self {
        self.users = Some(lines.to_owned());
        self.set("auth", "mode", "\"scram\"")
    }

    /// Reaches the target through another port, as a [`Link`](crate::fault::Link) has one.
    pub fn target_port(mut self, port: u16) -> Self {
        self.target.port = port;
        self
    }

    /// Reaches the source through another port.
    pub fn source_port(mut self, port: u16) -> Self {
        self.source.port = port;
        self
    }

    /// One line for each row: epoch, token, xid, order of reply and of apply; see [`Pgshadow::trace`].
    pub fn with_trace(mut self) -> Self {
        self.trace = true;
        self
    }

    /// A variable of the program's environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts it and waits until it says that it is ready.
    pub fn start(self) -> Pgshadow {
        let mut pgshadow = self.written();
        pgshadow.start();
        pgshadow
    }

    /// Starts it and waits for its end: it must refuse to run (exit code 1). What it says.
    #[track_caller]
    pub fn refused(self) -> String {
        let pgshadow = self.written();
        let finished = pgshadow.run(&["run"], LIMIT);
        assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
        finished.stderr
    }

    /// With its file and directories, not running.
    fn written(mut self) -> Pgshadow {
        let directory = tempfile::Builder::new().prefix("pgshadow-").tempdir().expect("a temporary directory");
        let (port, admin_port) = (port::free(), port::free());
        let quoted = |text: &str| format!("{text:?}");
        let data = directory.path().join("data");
        for (section, key, value) in [
            ("listen", "address", quoted(&format!("127.0.0.1:{port}"))),
            ("admin", "address", quoted(&format!("127.0.0.1:{admin_port}"))),
            ("source", "url", quoted(&self.source.url())),
            ("target", "url", quoted(&self.target.url())),
            ("mirror_log", "directory", quoted(&data.to_string_lossy())),
        ] {
            self.sections.entry(section.into()).or_default().entry(key.into()).or_insert(value);
        }
        if self.trace {
            self = self.set("test", "trace", &quoted(&directory.path().join(TRACE).to_string_lossy()));
        }
        if let Some(lines) = self.users.take() {
            let file = directory.path().join(USERS);
            fs::write(&file, lines).expect("own directory");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("own file");
            self = self.set("auth", "users_file", &quoted(&file.to_string_lossy()));
        }
        self = self.set("test", "flip_stops_at", &quoted(&directory.path().join(FLIP_STOPS).to_string_lossy()));
        let mut text = String::new();
        for (section, keys) in &self.sections {
            text.push_str(&format!("[{section}]\n"));
            for (key, value) in keys {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        fs::write(directory.path().join("pgshadow.toml"), text).expect("own directory");
        Pgshadow {
            port,
            admin_port,
            database: self.source.database,
            environment: self.environment,
            program: None,
            reaper: Some(Reaper::of(directory.path())),
            directory,
        }
    }
}

/// A running pgshadow; it and its directory go with the value.
#[derive(Debug)]
pub struct Pgshadow {
    port: u16,
    admin_port: u16,
    database: String,
    environment: Vec<(String, String)>,
    program: Option<Child>,
    reaper: Option<Reaper>,
    directory: TempDir,
}

impl Pgshadow {
    /// Between two servers, database `app`, mirroring on, all other settings as they come but where the newest tools are.
    pub fn between(source: &Cluster, target: &Cluster) -> PgshadowBuilder {
        let builder = PgshadowBuilder {
            sections: BTreeMap::new(),
            source: source.pgshadow(),
            target: target.pgshadow(),
            environment: Vec::new(),
            trace: false,
            users: None,
        };
        builder.set("backfill", "bindir", &format!("{:?}", Installation::newest().bindir))
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where HTTP is answered.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// The application's role in the migrated database, through pgshadow.
    pub fn app(&self) -> Endpoint {
        Endpoint::app(self.port).in_database(&self.database)
    }

    /// Writes other lines into the file of [`PgshadowBuilder::users`].
    pub fn write_users(&self, lines: &str) {
        fs::write(self.directory.path().join(USERS), lines).expect("own directory");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.program.as_ref().map(Child::id).expect("pgshadow runs")
    }

    /// From now on a flip waits in front of this step (see `flip/mod.rs`).
    pub fn stop_flip_at(&self, step: &str) {
        drop(fs::remove_file(self.directory.path().join(FLIP_STOPPED)));
        let new = self.directory.path().join("flip.new");
        fs::write(&new, step).expect("own directory");
        fs::rename(new, self.directory.path().join(FLIP_STOPS)).expect("own directory");
    }

    /// Whether it does.
    pub fn flip_has_stopped(&self) -> bool {
        let [wanted, there] = [FLIP_STOPS, FLIP_STOPPED].map(|name| fs::read(self.directory.path().join(name)).ok());
        wanted.is_some() && wanted == there
    }

    /// It goes on.
    pub fn go_on_with_flips(&self) {
        for name in [FLIP_STOPS, FLIP_STOPPED] {
            drop(fs::remove_file(self.directory.path().join(name)));
        }
    }

    /// Whether no flip is under way, and none is left to be put in order.
    pub fn flip_is_over(&self) -> bool {
        self.status()["flipping"] == false
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("pgshadow.toml")
    }

    /// The directory of its mirror log.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill9`](Self::kill9), with the same file, ports and log.
    pub fn start(&mut self) {
        assert!(self.program.is_none(), "pgshadow runs already");
        let log = fs::File::options().create(true).append(true).open(self.log_path()).expect("own directory");
        let mut command = self.command();
        command.arg("run").arg("-c").arg(self.config()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let program = command.spawn().unwrap_or_else(|error| panic!("can't start {}: {error}", binary().display()));
        fs::write(self.directory.path().join("pid"), format!("{}\n", program.id())).expect("own directory");
        self.program = Some(program);
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.program.as_mut().and_then(|program| program.try_wait().ok().flatten()) {
                panic!("pgshadow ended with {status} before it was ready\n{}", self.log_tail());
            }
            let answer = self.http("/readyz");
            if matches!(answer, Ok((200, _))) {
                return;
            }
            assert!(Instant::now() < deadline, "pgshadow is not ready after {LIMIT:?}: /readyz gives {answer:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end, as a service manager does, and waits for that.
    pub fn stop(&mut self) {
        self.end("TERM");
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
        let Some(mut program) = self.program.take() else { return };
        signal(program.id(), name);
        if process::wait(&mut program, LIMIT).is_none() {
            signal(program.id(), "KILL");
            drop(program.wait());
            panic!("pgshadow did not end within {LIMIT:?} of SIG{name}");
        }
        drop(fs::remove_file(self.directory.path().join("pid")));
    }

    /// Runs one of its commands against it: `pgshadow.run(&["findings", "list"], LIMIT)`.
    #[track_caller]
    pub fn run(&self, arguments: &[&str], limit: Duration) -> Finished {
        process::run(self.command().args(arguments).arg("-c").arg(self.config()), limit)
    }

    /// Begins one of its commands, to be waited for.
    #[track_caller]
    pub fn begin(&self, arguments: &[&str]) -> std::process::Child {
        let mut command = self.command();
        command.args(arguments).arg("-c").arg(self.config());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.spawn().expect("pgshadow can be started")
    }

    /// `pgshadow status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        json(&self.run(&["status", "--json"], LIMIT).success())
    }

    /// `pgshadow report --json`; ends with 0, or with 3 where there are findings.
    #[track_caller]
    pub fn report(&self) -> Value {
        let finished = self.run(&["report", "--json"], LIMIT);
        assert!(matches!(finished.status.code(), Some(0 | 3)), "{finished:#?}");
        json(&finished.stdout)
    }

    /// The findings of [`report`](Self::report).
    #[track_caller]
    pub fn findings(&self) -> Vec<Value> {
        self.report()["findings"].as_array().expect("report --json has findings").clone()
    }

    /// `pgshadow wait drained`: all that is committed now is on the target.
    #[track_caller]
    pub fn wait_drained(&self, limit: Duration) {
        let timeout = format!("{}s", limit.as_secs().max(1));
        let finished = self.run(&["wait", "drained", "--timeout", &timeout], limit + Duration::from_secs(5));
        assert!(finished.status.success(), "not drained: {finished:#?}\n--- log\n{}", self.log_tail());
    }

    /// Nothing was noticed and nothing had to be mended: no finding, no healed row, no suspect table.
    #[track_caller]
    pub fn expect_spotless(&self) {
        let status = self.status();
        let spotless = status["findings_open"] == 0
            && status["healed_rows"] == 0
            && status["suspect_tables"].as_array().is_some_and(Vec::is_empty);
        assert!(spotless, "{status:#}\n{:#}", self.report());
    }

    /// Names of the tables that it calls suspect.
    #[track_caller]
    pub fn suspect_tables(&self) -> Vec<String> {
        let status = self.status();
        let tables = status["suspect_tables"].as_array().expect("status --json has suspect_tables");
        tables.iter().map(|suspect| suspect["table"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// GET on the admin address: status code and body.
    pub fn http(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], self.admin_port).into(), LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let code = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        Ok((code.ok_or_else(|| std::io::Error::other(format!("no HTTP: {answer}")))?, body))
    }

    /// A metric's value, summed over its labels; `None` where it isn't exported.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, body) = self.http("/metrics").expect("/metrics answers");
        let samples = body.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with('{') || rest.starts_with(' ')).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        samples.fold(None, |sum, value| Some(sum.unwrap_or_default() + value))
    }

    /// What it wrote of each row, with [`PgshadowBuilder::with_trace`].
    pub fn trace(&self) -> String {
        fs::read_to_string(self.directory.path().join(TRACE)).expect("pgshadow writes its trace")
    }

    /// All that it has logged since its first start.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        without_colours(&String::from_utf8_lossy(&bytes))
    }

    /// Fails the test where the log has a line of level WARN or ERROR, or a panic, that holds none of `allowed`.
    #[track_caller]
    pub fn expect_clean_log(&self, allowed: &[&str]) {
        let unexpected = self.complaints(allowed);
        assert!(unexpected.is_empty(), "unexpected in pgshadow's log:\n{}", unexpected.join("\n"));
    }

    /// Lines of level WARN or ERROR, and panics, that hold none of `allowed`.
    pub fn complaints(&self, allowed: &[&str]) -> Vec<String> {
        let log = self.log();
        let unexpected = complaints(&log).into_iter().filter(|line| !allowed.iter().any(|text| line.contains(text)));
        unexpected.map(str::to_owned).collect()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        without_colours(&tail(&self.log_path(), 60))
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("pgshadow.log")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.directory.path()).env_remove("RUST_LOG");
        for (name, _) in std::env::vars_os() {
            // Keys of the configuration that are set where the tests run.
            if name.to_string_lossy().starts_with("PGSHADOW__") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Drop for Pgshadow {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- pgshadow log\n{}", self.log_tail());
        }
        if let Some(mut program) = self.program.take() {
            signal(program.id(), "CONT");
            signal(program.id(), "TERM");
            if process::wait(&mut program, Duration::from_secs(5)).is_none() {
                signal(program.id(), "KILL");
                drop(program.wait());
            }
        }
        drop(self.reaper.take());
    }
}

/// The program: `PGSHADOW_BIN` where `make` built it, else built here, so that a plain `cargo test` never runs an old one.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = setting("PGSHADOW_BIN") {
            return PathBuf::from(path);
        }
        let profile = profile_directory();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // The whole workspace's features, as the tests were built with: nothing is compiled twice.
        build.args(["build", "--quiet", "--workspace", "--bin", "pgshadow"]).current_dir(repository());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        process::run(&mut build, Duration::from_secs(900)).success();
        profile.join("pgshadow")
    })
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON: {error}\n{text}"))
}

/// Lines of level WARN or ERROR, in tracing's text or JSON, and panics.
fn complaints(log: &str) -> Vec<&str> {
    let complains = |line: &&str| {
        if let Ok(Value::Object(fields)) = serde_json::from_str(line) {
            return matches!(fields.get("level").and_then(Value::as_str), Some("ERROR" | "WARN"));
        }
        let level = line.split_whitespace().find(|word| matches!(*word, "ERROR" | "WARN" | "INFO" | "DEBUG" | "TRACE"));
        matches!(level, Some("ERROR" | "WARN")) || line.contains(" panicked at ")
    };
    log.lines().filter(complains).collect()
}

fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // ESC [ ... letter
            let _letter = characters.by_ref().find(|c| c.is_ascii_alphabetic());
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found_in_text_and_json() {
        let log = "2026-01-01T00:00:00Z  INFO start: an ERROR in words\n\
                   2026-01-01T00:00:00Z \u{1b}[33m WARN\u{1b}[0m slow\n\
                   {\"level\":\"ERROR\",\"message\":\"x\"}\n\
                   {\"level\":\"INFO\",\"message\":\"an ERROR of the client's\"}\n\
                   thread 'main' panicked at src/main.rs:1:1:\n";
        let log = without_colours(log);
        let found = complaints(&log);
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
