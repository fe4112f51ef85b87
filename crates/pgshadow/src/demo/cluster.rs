//! A throw-away PostgreSQL server on loopback, with a database and roles for the demo.
use super::account::command;
use super::error::DemoError;
use super::installation::Installation;
use super::process::Program;
use super::scratch::{Scratch, free_port, secret};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, Config, NoTls};

/// The database that is migrated.
pub const DATABASE: &str = "shop";
/// The application's role: it owns the database.
pub const APP: &str = "app";
/// pgshadow's own role, without superuser rights.
pub const PGSHADOW: &str = "pgshadow";
/// The superuser.
const SUPERUSER: &str = "postgres";
/// How long a server may take to take connections, and a client to connect.
const PATIENCE: Duration = Duration::from_secs(30);
/// A port may be taken between its choice and the server's start.
const ATTEMPTS: usize = 3;

/// Nothing here outlives the demo, so nothing need survive a crash of the machine; the mirror log does sync.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "full_page_writes=off",
    "max_connections=200",
    "log_checkpoints=off",
    "log_line_prefix=%m [%p] %q%u@%d ",
];

/// A database on loopback, and who logs in.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Port of a server or of pgshadow.
    pub port: u16,
    user: &'static str,
    password: String,
    database: &'static str,
}

impl Endpoint {
    /// The same login through another port.
    pub fn through(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// As pgshadow's configuration and psql want it.
    pub fn url(&self) -> String {
        let Self { port, user, password, database } = self;
        format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
    }

    /// As a line of `[auth] users_file`.
    pub fn user_line(&self) -> String {
        format!("\"{}\" \"{}\"\n", self.user, self.password)
    }

    /// A client; its connection ends with it.
    ///
    /// # Errors
    /// When the login fails.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(self.user).password(&self.password).dbname(self.database);
        config.application_name("pgshadow-demo").connect_timeout(PATIENCE);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }
}

/// A running server; it goes with the value.
#[derive(Debug)]
pub struct Cluster {
    /// Its program.
    pub installation: Installation,
    /// `source` or `target`.
    pub name: &'static str,
    program: Program,
    port: u16,
    passwords: Passwords,
}

/// Other users of the machine reach loopback too: each role has a password that nobody can guess.
#[derive(Debug, Clone)]
pub struct Passwords {
    superuser: String,
    app: String,
    pgshadow: String,
}

impl Passwords {
    /// New ones.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> Result<Self, DemoError> {
        Ok(Self { superuser: secret(12)?, app: secret(12)?, pgshadow: secret(12)? })
    }
}

impl Cluster {
    /// Makes a data directory, starts a server on it and makes roles and database.
    ///
    /// # Errors
    /// When any of this fails; with the end of the server's log.
    pub async fn start(
        installation: &Installation,
        name: &'static str,
        passwords: &Passwords,
        scratch: &Scratch,
    ) -> Result<Self, DemoError> {
        let home = scratch.directory_for_server(name)?;
        let data = home.join("data");
        initdb(installation, &home, &data, &passwords.superuser, scratch).await?;
        let mut attempt = 1;
        loop {
            let port = free_port()?;
            let log = scratch.path().join(format!("{name}.log"));
            let mut postgres = command(&installation.program("postgres"), scratch.account());
            postgres.arg("-D").arg(&data).args(["-p", &port.to_string()]).current_dir(&home);
            for setting in SETTINGS {
                postgres.args(["-c", setting]);
            }
            let program = Program::start(&mut postgres, "QUIT", log, scratch)?;
            let passwords = passwords.clone();
            let mut cluster = Self { installation: installation.clone(), name, program, port, passwords };
            match cluster.wait_until_ready(&data).await {
                Ok(()) => return cluster.furnish().await,
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn wait_until_ready(&mut self, data: &Path) -> Result<(), DemoError> {
        let what = format!("PostgreSQL {} ({})", self.installation.version, self.name);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.program.ended() {
                return Err(DemoError::program(format!("{what} ended with {status}"), self.program.log()));
            }
            if self.is_own(data).await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(DemoError::program(format!("{what} takes no connections"), self.program.log()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Somebody else's server could have taken the port in the meantime.
    async fn is_own(&self, data: &Path) -> bool {
        let endpoint = Endpoint { database: SUPERUSER, ..self.superuser() };
        let Ok(client) = endpoint.connect().await else { return false };
        let row = client.query_one("SELECT pg_catalog.current_setting('data_directory')", &[]).await;
        row.and_then(|row| row.try_get::<_, String>(0)).is_ok_and(|directory| Path::new(&directory) == data)
    }

    /// Roles and the database, with the rights that `proxy-config/README.md` names.
    async fn furnish(self) -> Result<Self, DemoError> {
        let Passwords { app, pgshadow, .. } = &self.passwords;
        // each is the shadow at some time
        let mut statements = vec![
            format!("CREATE ROLE {APP} LOGIN PASSWORD '{app}'"),
            format!("CREATE ROLE {PGSHADOW} LOGIN PASSWORD '{pgshadow}'"),
            format!("CREATE DATABASE {DATABASE} OWNER {APP}"),
            format!("GRANT {APP}, pg_monitor, pg_signal_backend TO {PGSHADOW}"),
            format!("GRANT CREATE ON DATABASE {DATABASE} TO {PGSHADOW}"),
        ];
        if self.installation.major >= 15 {
            statements.push(format!("GRANT SET ON PARAMETER session_replication_role TO {PGSHADOW}"));
        }
        let failed = |error| DemoError::database(format!("roles on the {}", self.name))(error);
        let client = Endpoint { database: SUPERUSER, ..self.superuser() }.connect().await.map_err(failed)?;
        for statement in &statements {
            client.batch_execute(statement).await.map_err(failed)?;
        }
        Ok(self)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// The application's role.
    pub fn app(&self) -> Endpoint {
        Endpoint { port: self.port, user: APP, password: self.passwords.app.clone(), database: DATABASE }
    }

    /// pgshadow's role.
    pub fn pgshadow(&self) -> Endpoint {
        Endpoint { user: PGSHADOW, password: self.passwords.pgshadow.clone(), ..self.app() }
    }

    /// The superuser, in the same database.
    pub fn superuser(&self) -> Endpoint {
        Endpoint { user: SUPERUSER, password: self.passwords.superuser.clone(), ..self.app() }
    }

    /// For the summary: `PostgreSQL 15.18`.
    pub fn version(&self) -> String {
        format!("PostgreSQL {}", self.installation.version)
    }
}

async fn initdb(
    installation: &Installation,
    home: &Path,
    data: &Path,
    password: &str,
    scratch: &Scratch,
) -> Result<(), DemoError> {
    let secret: PathBuf = home.join("password");
    scratch.private_file(&secret, password)?;
    if let Some(account) = scratch.account() {
        account.own(&secret).map_err(DemoError::system(secret.display().to_string()))?;
    }
    let mut initdb = command(&installation.program("initdb"), scratch.account());
    initdb.arg("-D").arg(data).arg("--pwfile").arg(&secret).current_dir(home);
    initdb.args(["-U", SUPERUSER, "--auth=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"]);
    initdb.stdin(Stdio::null());
    let output = tokio::process::Command::from(initdb).kill_on_drop(true).output().await;
    let output = output.map_err(DemoError::system(format!("initdb of version {}", installation.version)))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    Err(DemoError::System { what: format!("initdb of version {}", installation.version), reason })
}
