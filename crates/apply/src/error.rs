use pgshadow_model::Sequence;
use tokio_postgres::error::SqlState;

/// What a [`crate::Log`] says when it can't give a payload.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It isn't on the disk yet, and will be.
    #[error("it is not written yet")]
    NotYet,
    /// It can't be read, or is gone.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl From<String> for LogError {
    fn from(error: String) -> Self {
        Self::Failed(error.into())
    }
}

/// What can stop a piece of the applier's work. None of it stops the applier: it tries again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A connection's statement failed, or the connection did.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// No connection in time.
    #[error("the {0} did not answer in time")]
    Timeout(&'static str),
    /// The connection ended by itself.
    #[error("the shadow closed the connection")]
    Closed,
    /// The primary was another one after the snapshot was taken than before.
    #[error("the primary restarted while its rows were read")]
    EpochChanged,
    /// Another connection of the same stream is still alive on the shadow.
    #[error("another connection of pgshadow is still at work on the shadow")]
    Busy,
    /// The store of findings failed.
    #[error(transparent)]
    Store(#[from] pgshadow_divergence::Error),
    /// A snapshot that can't be read.
    #[error(transparent)]
    Snapshot(#[from] crate::ParseSnapshotError),
    /// A position of the primary's WAL that can't be read.
    #[error("the primary gave {0:?} as its position")]
    Position(String),
    /// A row of pgshadow's own tables on the shadow can't be read.
    #[error("a row of the schema pgshadow on the shadow can't be read: {0}")]
    Stored(#[from] postcard::Error),
    /// The log can't give a payload.
    #[error("the changes of intent {0} can't be read from the log: {1}")]
    Log(Sequence, LogError),
    /// The trace could not be written.
    #[error("the trace can't be written: {0}")]
    Trace(std::io::Error),
    /// A task of the applier itself panicked.
    #[error("a blocking task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The server's own words with its SQLSTATE, else what the driver says with its cause.
fn describe(e: &tokio_postgres::Error) -> String {
    match (e.as_db_error(), std::error::Error::source(e)) {
        (Some(db), _) => {
            let remedy = match *db.code() {
                SqlState::INSUFFICIENT_PRIVILEGE => "; proxy-config/README.md lists the rights of pgshadow's role",
                _ => "",
            };
            format!("{} (SQLSTATE {}){remedy}", db.message(), db.code().code())
        }
        (None, Some(source)) => format!("{e}: {source}"),
        (None, None) => e.to_string(),
    }
}
