use pgshadow_admin::ClientError;
use std::path::{Path, PathBuf};

/// Why the demo ended otherwise than well.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is nothing to run it with.
    #[error(
        "no PostgreSQL server of version {oldest} or newer was found{notes}; run: apt-get install -y postgresql \
         (or, in pgshadow's repository: make deps)"
    )]
    NoServer {
        /// The oldest major that will do.
        oldest: u32,
        /// What was looked at in vain.
        notes: String,
    },
    /// A variable names a directory that holds no server.
    #[error("{variable}={path} holds no PostgreSQL server that can be run here: {reason}")]
    WrongDirectory {
        /// Its name.
        variable: String,
        /// Its value.
        path: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// Root can't run a server.
    #[error("root needs an account 'postgres' or 'nobody' to run PostgreSQL as; run: useradd --system postgres")]
    NoAccount,
    /// Something of the system's failed.
    #[error("{what}: {reason}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        reason: std::io::Error,
    },
    /// A program that the demo started ended, or didn't come up.
    #[error("{what}\n--- the end of {}\n{tail}", log.display())]
    Program {
        /// Which, and how it ended.
        what: String,
        /// Where it logs.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// A database refused what it shouldn't have.
    #[error("{what}: {reason}")]
    Database {
        /// What was tried.
        what: String,
        /// The error with its causes.
        reason: String,
    },
    /// pgshadow's admin address didn't answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Something can't be written as JSON.
    #[error("can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Ctrl-C, or a signal that asks for the end.
    #[error("the demo was stopped")]
    Stopped,
    /// It could not go on.
    #[error("the demo failed: {0}")]
    Failed(String),
    /// It ran to its end, and the result is wrong.
    #[error("the demo's result is not what it should be: {0} problems, named above")]
    Wrong(usize),
}

impl DemoError {
    /// For `map_err`: names what was tried.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |reason| Self::System { what, reason }
    }

    /// For `map_err`: names what was tried, and says what the server said.
    pub fn database(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let what = what.into();
        move |error| Self::Database { what, reason: describe(&error) }
    }

    /// A program's failure with the end of its log.
    pub fn program(what: impl Into<String>, log: &Path) -> Self {
        Self::Program { what: what.into(), log: log.to_owned(), tail: tail(log) }
    }
}

/// Lines shown of a log.
const TAIL_LINES: usize = 15;

/// The last lines of a text file.
fn tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let skipped = text.lines().count().saturating_sub(TAIL_LINES);
    text.lines().skip(skipped).collect::<Vec<_>>().join("\n")
}

/// An error of tokio-postgres says little by itself: the server's words are its cause.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let more = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{} {}{more}", db.code().code(), db.message())
        }
        None => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        }
    }
}
