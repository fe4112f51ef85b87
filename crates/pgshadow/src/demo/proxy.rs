//! pgshadow itself, run as its users run it: a configuration file and `pgshadow run` in a process of its own.
use super::cluster::{Cluster, Endpoint};
use super::error::DemoError;
use super::process::Program;
use super::scratch::{Scratch, free_port};
use pgshadow_admin::{
    BackfillReport, BackfillRequest, Client, Drained, Lag, Report, Status, VerifyReport, VerifyRequest,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long it may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the shadow may take to catch up after the load.
const DRAIN: Duration = Duration::from_secs(60);
/// A port may be taken between its choice and its use.
const ATTEMPTS: usize = 3;

/// A running pgshadow; it goes with the value.
#[derive(Debug)]
pub struct Proxy {
    program: Program,
    port: u16,
    /// Where it answers HTTP.
    pub admin_port: u16,
    /// Asks it.
    pub client: Client,
    /// Its configuration.
    pub config: PathBuf,
}

impl Proxy {
    /// Starts it between two servers and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it doesn't get ready; with the end of its log.
    pub async fn start(
        source: &Cluster,
        target: &Cluster,
        tools: Option<&Path>,
        scratch: &Scratch,
    ) -> Result<Self, DemoError> {
        let mut attempt = 1;
        loop {
            let (port, admin_port) = (free_port()?, free_port()?);
            let config = scratch.path().join(format!("pgshadow-{port}.toml"));
            let users = scratch.path().join("users.txt");
            scratch.private_file(&users, &source.app().user_line())?;
            scratch.private_file(&config, &configuration(source, target, tools, scratch, (port, admin_port)))?;
            let program = std::env::current_exe().map_err(DemoError::system("can't tell where this program is"))?;
            let mut command = Command::new(program);
            command.arg("run").arg("-c").arg(&config).current_dir(scratch.path());
            command.env("PGSHADOW_LOG", "text");
            for (name, _) in std::env::vars_os() {
                let name = name.to_string_lossy();
                if name.starts_with("PGSHADOW__") || name.starts_with("PGPASS") {
                    command.env_remove(&*name);
                }
            }
            let program = Program::start(&mut command, "TERM", scratch.path().join("pgshadow.log"), scratch)?;
            let client = Client::new(&format!("127.0.0.1:{admin_port}"));
            let mut proxy = Self { program, port, admin_port, client, config };
            match proxy.wait_until_ready().await {
                Ok(()) => return Ok(proxy),
                Err(_) if attempt < ATTEMPTS && proxy.program.ended().is_some() => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn wait_until_ready(&mut self) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.check_alive()?;
            let answer = ready(self.admin_port).await;
            if matches!(answer, Ok(None)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let reason = match answer {
                    Ok(reason) => reason.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                return Err(DemoError::program(format!("pgshadow is not ready: {reason}"), self.program.log()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When it doesn't; with the end of its log.
    pub fn check_alive(&mut self) -> Result<(), DemoError> {
        match self.program.ended() {
            Some(status) => Err(DemoError::program(format!("pgshadow ended with {status}"), self.program.log())),
            None => Ok(()),
        }
    }

    /// Where it logs.
    pub fn log(&self) -> &Path {
        self.program.log()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// The application's way to its database.
    pub fn app(&self, source: &Cluster) -> Endpoint {
        source.app().through(self.port)
    }

    /// Waits until the shadow has all that was committed; returns how long that took.
    ///
    /// # Errors
    /// When it doesn't come to that.
    pub async fn drain(&self) -> Result<Duration, DemoError> {
        let begun = Instant::now();
        match self.client.drained(DRAIN).await? {
            Drained::Yes => Ok(begun.elapsed()),
            Drained::TimedOut { lag: Lag { entries, .. }, applier, .. } => {
                let why = applier.last_error.map(|error| format!(" ({error})")).unwrap_or_default();
                let what = format!("{entries} transactions were not applied within {} s{why}", DRAIN.as_secs());
                Err(DemoError::program(what, self.program.log()))
            }
        }
    }

    /// Loads the target, as pgshadow does it, with its schema or without.
    ///
    /// # Errors
    /// When that fails, or something of it could not be made.
    pub async fn backfill(&self, create_schema: bool) -> Result<BackfillReport, DemoError> {
        let request = BackfillRequest { create_schema, ..BackfillRequest::default() };
        let started = self.client.backfill(&request).await?;
        loop {
            let state = self.client.backfill_state().await?;
            if let Some(last) = state.last.filter(|last| last.number == started.number) {
                if last.is_whole() && last.differences.is_empty() {
                    return Ok(last);
                }
                let why = last.failed.unwrap_or_else(|| last.not_made.join("; "));
                let differ: String = last.differences.iter().map(|difference| format!("; {difference}")).collect();
                return Err(DemoError::program(
                    format!("the target could not be loaded: {why}{differ}"),
                    self.program.log(),
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Compares both databases row by row, as pgshadow does it; the future may go to another task.
    pub fn verify(&self) -> impl Future<Output = Result<VerifyReport, DemoError>> + Send + use<> {
        let client = self.client.clone();
        async move {
            let started = client.verify(&VerifyRequest::default()).await?;
            loop {
                let state = client.verify_state().await?;
                if let Some(last) = state.last.filter(|last| last.number == started.number) {
                    return Ok(last);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn status(&self) -> Result<Status, DemoError> {
        Ok(self.client.status().await?)
    }

    /// Its findings, once all are healed or `limit` has passed.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn settled_report(&self, limit: Duration) -> Result<Report, DemoError> {
        let deadline = Instant::now() + limit;
        loop {
            let report = self.client.report(None).await?;
            let settled = !report.findings.is_empty() && report.open() == 0;
            if settled || Instant::now() >= deadline {
                return Ok(report);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A few keys are set; all others are as they come.
fn configuration(
    source: &Cluster,
    target: &Cluster,
    tools: Option<&Path>,
    scratch: &Scratch,
    (port, admin_port): (u16, u16),
) -> String {
    let directory = scratch.path().join("mirror-log");
    let text = |value: String| toml::Value::String(value).to_string();
    format!(
        "[listen]\naddress = \"127.0.0.1:{port}\"\n\n[auth]\nmode = \"scram\"\nusers_file = {}\n\n[source]\nurl = {}\n\n[target]\nurl = {}\n\n\
         [mirror_log]\ndirectory = {}\n\n[backfill]\nbindir = {}\n\n[admin]\naddress = \"127.0.0.1:{admin_port}\"\n",
        text(scratch.path().join("users.txt").to_string_lossy().into_owned()),
        text(source.pgshadow().url()),
        text(target.pgshadow().url()),
        text(directory.to_string_lossy().into_owned()),
        text(tools.map_or_else(String::new, |tools| tools.to_string_lossy().into_owned())),
    )
}

/// Asks `/readyz`: `None`, or why not yet.
async fn ready(port: u16) -> std::io::Result<Option<String>> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), exchange).await??;
    if answer.split_whitespace().nth(1) == Some("200") {
        return Ok(None);
    }
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
    Ok(Some(body.unwrap_or_default()))
}
