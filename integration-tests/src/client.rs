//! Where to connect as whom, and the clients that do it: tokio-postgres, psql, pgbench.
use crate::installation::Installation;
use crate::process::{self, Finished};
use std::future::Future;
use std::process::Command;
use std::time::Duration;

/// How long one statement, connection or small program may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A database on 127.0.0.1, and who logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Port of a server or of pgshadow.
    pub port: u16,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The database.
    pub database: String,
}

impl Endpoint {
    /// The role and database that the application has on every [`Cluster`](crate::postgres::Cluster).
    pub fn app(port: u16) -> Endpoint {
        Endpoint { port, user: "app".into(), password: "app".into(), database: "app".into() }
    }

    /// Another database, the same place and role.
    pub fn in_database(&self, database: &str) -> Endpoint {
        Endpoint { database: database.into(), ..self.clone() }
    }

    /// Another role, the same place and database.
    pub fn as_user(&self, user: &str, password: &str) -> Endpoint {
        Endpoint { user: user.into(), password: password.into(), ..self.clone() }
    }

    /// As pgshadow's configuration wants it.
    pub fn url(&self) -> String {
        let Endpoint { port, user, password, database } = self;
        format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
    }

    /// The environment that libpq, and by their own reading the other driver programs, take all of this from.
    pub fn environment(&self) -> [(&'static str, String); 6] {
        [
            ("PGHOST", "127.0.0.1".into()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.user.clone()),
            ("PGPASSWORD", self.password.clone()),
            ("PGDATABASE", self.database.clone()),
            ("PGCONNECT_TIMEOUT", "10".into()),
        ]
    }

    /// A tokio-postgres client; its connection ends with it.
    pub async fn connect(&self) -> tokio_postgres::Client {
        self.try_connect().await.unwrap_or_else(|error| panic!("can't connect to {}: {error:?}", self.url()))
    }

    /// [`connect`](Self::connect), for tests that expect a refusal.
    pub async fn try_connect(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user(&self.user).password(&self.password).dbname(&self.database);
        let (client, connection) = within(LIMIT, "a connection", config.connect(tokio_postgres::NoTls)).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    /// Runs SQL with psql, stops at the first error and fails the test; returns unaligned rows, `|` between columns.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        self.psql_within(sql, LIMIT)
    }

    /// [`psql`](Self::psql) with another time limit.
    #[track_caller]
    pub fn psql_within(&self, sql: &str, limit: Duration) -> String {
        let output = process::run_with_input(&mut self.psql_command(), sql, limit).success();
        output.strip_suffix('\n').unwrap_or(&output).to_owned()
    }

    /// Runs SQL with psql; what it says of an error is returned.
    #[track_caller]
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        let finished = process::run_with_input(&mut self.psql_command(), sql, LIMIT);
        if finished.status.success() { Ok(finished.stdout) } else { Err(finished.stderr) }
    }

    fn psql_command(&self) -> Command {
        let mut command = Command::new(Installation::newest().program("psql"));
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-f", "-"]).envs(self.environment());
        command
    }

    /// Runs pgbench with these arguments.
    ///
    /// # Errors
    /// It ended otherwise than with 0: a client was lost, say.
    #[track_caller]
    pub fn pgbench(&self, arguments: &[&str], limit: Duration) -> Result<Bench, Finished> {
        let mut command = Command::new(Installation::newest().program("pgbench"));
        command.args(arguments).envs(self.environment());
        let finished = process::run(&mut command, limit);
        if finished.status.success() { Ok(Bench::read(finished.stdout)) } else { Err(finished) }
    }
}

/// What pgbench measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Bench {
    /// Transactions done.
    pub transactions: u64,
    /// Transactions that failed.
    pub failed: u64,
    /// Per second, without connecting.
    pub transactions_per_second: f64,
    /// Average.
    pub latency_ms: f64,
    /// All that it printed.
    pub output: String,
}

impl Bench {
    fn read(output: String) -> Bench {
        let number = |label: &str| -> Option<f64> {
            let rest = output.lines().find_map(|line| line.strip_prefix(label))?;
            rest.split(|c: char| !(c.is_ascii_digit() || c == '.')).find(|word| !word.is_empty())?.parse().ok()
        };
        Bench {
            transactions: number("number of transactions actually processed:").unwrap_or_default() as u64,
            failed: number("number of failed transactions:").unwrap_or_default() as u64,
            transactions_per_second: number("tps =").unwrap_or_default(),
            latency_ms: number("latency average =").unwrap_or_default(),
            output,
        }
    }
}

/// Waits for `work` and fails the test with `what` at the limit.
pub async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, work).await {
        Ok(value) => value,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}
