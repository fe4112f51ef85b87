//! What a session does, wholly drawn before anything runs.
use crate::statement::Statement;
use crate::value::literal;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// One exchange with the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// One Query message; several statements in it are one string.
    Simple(Vec<Statement>),
    /// Parse, Bind, Execute with parameters.
    Extended {
        /// What runs.
        statement: Statement,
        /// Under a name, parsed once in a session.
        named: bool,
        /// Rows fetched at a time; 0 is all.
        page: i32,
    },
    /// Several by extended protocol before any answer is read.
    Pipeline {
        /// What runs.
        statements: Vec<Statement>,
        /// A Sync behind each, or one at the end: then they are one transaction.
        sync_each: bool,
    },
    /// COPY FROM STDIN.
    Copy(Statement),
    /// A statement that is cancelled after so many milliseconds if it still runs.
    Cancelled(Statement, u64),
    /// SAVEPOINT s.
    Savepoint,
    /// ROLLBACK TO s.
    RollbackTo,
    /// RELEASE s.
    Release,
    /// So many milliseconds.
    Pause(u64),
    /// The connection is dropped while this runs, or right before it is answered.
    HangUp(Statement),
}

impl Step {
    /// Its statements.
    pub fn statements(&self) -> &[Statement] {
        match self {
            Step::Simple(statements) | Step::Pipeline { statements, .. } => statements,
            Step::Extended { statement, .. }
            | Step::Copy(statement)
            | Step::Cancelled(statement, _)
            | Step::HangUp(statement) => std::slice::from_ref(statement),
            _ => &[],
        }
    }
}

/// How a unit ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Each step by itself.
    None,
    /// COMMIT.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// PREPARE TRANSACTION; another session ends it.
    Prepare {
        /// Its name.
        gid: String,
        /// By COMMIT PREPARED, else by ROLLBACK PREPARED.
        commit: bool,
    },
}

/// What is done from one idle moment to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// `BEGIN ...`, if it is a block.
    pub begin: Option<&'static str>,
    /// What it does.
    pub steps: Vec<Step>,
    /// How it ends.
    pub end: End,
    /// `SET LOCAL` has been given a timeout: statements may end by it.
    pub timed: bool,
}

/// What carries a session's statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Frames as this program makes them.
    Raw,
    /// tokio-postgres.
    Tokio,
    /// psycopg 3.
    Psycopg,
    /// node `pg`.
    Node,
}

/// All that one session does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its number; part of the names of prepared transactions.
    pub number: u64,
    /// What carries it.
    pub carrier: Carrier,
    /// Its client_encoding, if it isn't UTF8.
    pub encoding: Option<&'static str>,
    /// What it does.
    pub units: Vec<Unit>,
}

impl Unit {
    /// Relations that it may write or read.
    pub fn tables(&self) -> BTreeSet<&str> {
        let statements = self.steps.iter().flat_map(Step::statements);
        statements.flat_map(|statement| statement.tables.iter().map(String::as_str)).collect()
    }

    /// As SQL, with what the protocol adds in comments.
    pub fn sql(&self) -> String {
        let mut text = String::new();
        if let Some(begin) = self.begin {
            let _ = writeln!(text, "{begin};");
        }
        self.steps.iter().for_each(|step| step_sql(step, &mut text));
        match &self.end {
            End::None => {}
            End::Commit => text += "COMMIT;\n",
            End::Rollback => text += "ROLLBACK;\n",
            End::Prepare { gid, commit } => {
                let word = if *commit { "COMMIT" } else { "ROLLBACK" };
                let _ = writeln!(text, "PREPARE TRANSACTION '{gid}'; -- another session: {word} PREPARED '{gid}'");
            }
        }
        text
    }
}

impl Script {
    /// As SQL, with what the protocol adds in comments.
    pub fn sql(&self) -> String {
        let mut text = format!("-- session {} ({:?})\n", self.number, self.carrier);
        if let Some(encoding) = self.encoding {
            let _ = writeln!(text, "SET client_encoding = '{encoding}';");
        }
        self.units.iter().for_each(|unit| text += &unit.sql());
        text
    }
}

fn step_sql(step: &Step, text: &mut String) {
    let joined = |statements: &[Statement]| {
        statements.iter().map(|statement| literal(&statement.sql)).collect::<Vec<_>>().join("; ")
    };
    let _ = match step {
        Step::Simple(statements) if statements.len() > 1 => writeln!(text, "{}; -- one string", joined(statements)),
        Step::Simple(statements) => writeln!(text, "{};", joined(statements)),
        Step::Extended { statement, named, page } => {
            let named = if *named { ", named" } else { "" };
            writeln!(text, "{}; -- extended{named}, page {page}", literal(&statement.sql))
        }
        Step::Pipeline { statements, sync_each } => {
            let sync = if *sync_each { "Sync behind each" } else { "one Sync" };
            writeln!(text, "{}; -- pipeline, {sync}", joined(statements))
        }
        Step::Copy(statement) => {
            let data = String::from_utf8_lossy(statement.copy.as_deref().unwrap_or_default()).into_owned();
            writeln!(text, "{};\n{data}\\.", statement.sql)
        }
        Step::Cancelled(statement, after) => {
            writeln!(text, "{}; -- cancelled after {after} ms", literal(&statement.sql))
        }
        Step::Savepoint => writeln!(text, "SAVEPOINT s;"),
        Step::RollbackTo => writeln!(text, "ROLLBACK TO s;"),
        Step::Release => writeln!(text, "RELEASE s;"),
        Step::Pause(ms) => writeln!(text, "SELECT pg_sleep({}); -- a pause of the client", *ms as f64 / 1000.0),
        Step::HangUp(statement) => writeln!(text, "{}; -- and the client goes", literal(&statement.sql)),
    };
}
