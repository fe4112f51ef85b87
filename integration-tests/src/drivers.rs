//! Programs in `drivers/` that use PostgreSQL as applications do: each with its driver's default settings, against
//! whatever place it is told of. `ok` and exit code 0, or a message of what went wrong.
use crate::client::Endpoint;
use crate::installation::{Installation, repository, setting};
use crate::postgres::Cluster;
use crate::proxy::Pgshadow;
use crate::{equal, process};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A driver program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// psycopg 3, Python, libpq 18.
    Psycopg3,
    /// psycopg2, Python, values put into the SQL by the client.
    Psycopg2,
    /// asyncpg, Python, binary formats, named statements.
    Asyncpg,
    /// pg8000, pure Python.
    Pg8000,
    /// node `pg`.
    NodePg,
    /// pgjdbc, prepared on the server after five executions.
    Jdbc,
    /// psql of the older installation.
    PsqlOld,
    /// psql of the newest installation.
    PsqlNewest,
}

impl Driver {
    /// All of them.
    pub const ALL: [Driver; 8] = [
        Driver::Psycopg3,
        Driver::Psycopg2,
        Driver::Asyncpg,
        Driver::Pg8000,
        Driver::NodePg,
        Driver::Jdbc,
        Driver::PsqlOld,
        Driver::PsqlNewest,
    ];

    /// Runs it as this role in this database; fails the test with what it said where it isn't content.
    #[track_caller]
    pub fn run(self, place: &Endpoint) {
        let output = process::run(self.command().envs(place.environment()), LIMIT).success();
        assert_eq!(output.lines().last(), Some("ok"), "{self:?} said:\n{output}");
    }

    /// Runs it through a pgshadow that mirrors, between two servers of its own. Then the tables of both are equal, but for
    /// those that pgshadow itself calls suspect, and these must be among `unmirrored`.
    pub fn run_mirrored(self, unmirrored: &[&str]) {
        let (source, target) = (Cluster::old(), Cluster::newest());
        let pgshadow = Pgshadow::between(&source, &target).start();
        self.run(&pgshadow.app());
        pgshadow.wait_drained(LIMIT);
        let suspects = pgshadow.suspect_tables();
        let unexpected: Vec<_> = suspects.iter().filter(|table| !unmirrored.contains(&table.as_str())).collect();
        assert!(unexpected.is_empty(), "suspect: {:#}", pgshadow.status()["suspect_tables"]);
        let different: Vec<_> = equal::differences(&source.app(), &target.app())
            .into_iter()
            .filter(|difference| !suspects.contains(&difference.table))
            .map(|difference| difference.to_string())
            .collect();
        assert!(different.is_empty(), "source and target differ\n{}", different.join("\n"));
        let status = pgshadow.status();
        assert_eq!(
            (&status["findings_open"], &status["healed_rows"]),
            (&0.into(), &0.into()),
            "{:#}",
            pgshadow.report()
        );
        pgshadow.expect_clean_log(if suspects.is_empty() { &[] } else { &["table is suspect"] });
    }

    /// The program that plays steps of `make torture`, as lines of JSON; only psycopg 3 and node `pg` have one.
    pub fn player(self) -> Command {
        match self {
            Driver::NodePg => node("torture_node.js"),
            _ => python("torture_psycopg.py"),
        }
    }

    /// The program that writes as TPC-C does and keeps a ledger; only psycopg 3, node `pg` and pgjdbc have one.
    pub fn ledger(self) -> Command {
        match self {
            Driver::NodePg => node("ledger_node.js"),
            Driver::Jdbc => java("LedgerJdbc.java"),
            _ => python("ledger_psycopg.py"),
        }
    }

    fn command(self) -> Command {
        match self {
            Driver::Psycopg3 => python("psycopg3.py"),
            Driver::Psycopg2 => python("psycopg2_driver.py"),
            Driver::Asyncpg => python("asyncpg_driver.py"),
            Driver::Pg8000 => python("pg8000_driver.py"),
            Driver::NodePg => node("node_pg.js"),
            Driver::Jdbc => java("Jdbc.java"),
            Driver::PsqlOld => psql(Installation::old()),
            Driver::PsqlNewest => psql(Installation::newest()),
        }
    }
}

fn python(name: &str) -> Command {
    program(&found("PGSHADOW_PYTHON"), name)
}

fn node(name: &str) -> Command {
    let mut command = program("node", name);
    command.env("NODE_PATH", found("PGSHADOW_NODE_PATH"));
    command
}

fn java(name: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &found("PGSHADOW_JDBC_JAR")]);
    command.arg(script(name));
    command
}

fn psql(installation: &Installation) -> Command {
    let mut command = program("sh", "psql.sh");
    command.env("PSQL", installation.program("psql"));
    command
}

fn program(interpreter: &str, name: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(script(name));
    command
}

fn script(name: &str) -> std::path::PathBuf {
    repository().join("integration-tests/drivers").join(name)
}

fn found(name: &str) -> String {
    setting(name).unwrap_or_else(|| panic!("{name} is not set; run: make deps"))
}
