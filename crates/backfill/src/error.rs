use pgshadow_model::QualifiedName;
use std::path::PathBuf;
use tokio_postgres::error::SqlState;

/// Why a backfill can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server refused, or was lost.
    #[error(transparent)]
    Server(#[from] pgshadow_verify::Error),
    /// The applier can't do its part now.
    #[error(transparent)]
    Applier(#[from] pgshadow_apply::PairError),
    /// Both schemas don't allow it.
    #[error("{0}")]
    Schema(String),
    /// A tool of PostgreSQL's is missing, or too old.
    #[error("{0}")]
    Tool(String),
    /// The primary's schema can't be read now.
    #[error("pg_dump can't read the primary's schema: {0}")]
    Dump(String),
    /// A tool can't be run.
    #[error("{} can't be run: {error}", path.display())]
    Run {
        /// The program.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It was truncated, rewritten, renamed or dropped since the snapshot.
    #[error("{0} was truncated, rewritten, renamed or dropped meanwhile")]
    Redefined(QualifiedName),
    /// Somebody waited for what was looked at.
    #[error("the primary's schema is being changed")]
    Busy,
    /// What is known of suspect tables can't be read or written.
    #[error("{0}")]
    Store(String),
}

impl Error {
    /// On the shadow.
    pub(crate) fn shadow(error: tokio_postgres::Error) -> Self {
        Self::Server(pgshadow_verify::Error::Postgres { whom: "shadow", error })
    }

    /// On the primary.
    pub(crate) fn primary(error: tokio_postgres::Error) -> Self {
        Self::Server(pgshadow_verify::Error::Postgres { whom: "primary", error })
    }

    /// Whether with new connections, or a new snapshot, it may be tried again.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            // a missing object of the shadow's is no lost snapshot
            Self::Server(pgshadow_verify::Error::Postgres { whom: "shadow", error }) => error
                .code()
                .is_none_or(|code| matches!(code.code().get(..2).unwrap_or_default(), "08" | "53" | "57" | "58")),
            Self::Server(error) => error.is_lost(),
            Self::Applier(_) | Self::Busy => true,
            Self::Schema(_)
            | Self::Tool(_)
            | Self::Dump(_)
            | Self::Redefined(_)
            | Self::Run { .. }
            | Self::Store(_) => false,
        }
    }

    /// Whether somebody has a table for himself: it is no attempt of ours that fails by that.
    pub(crate) fn is_locked(&self) -> bool {
        self.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether it may come from a definition that has just changed.
    pub(crate) fn may_be_redefined(&self) -> bool {
        let of_definition =
            |code: &SqlState| code.code().starts_with("42") && *code != SqlState::INSUFFICIENT_PRIVILEGE;
        matches!(self, Self::Redefined(_)) || self.code().is_some_and(of_definition)
    }

    pub(crate) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Server(error) => error.code(),
            _ => None,
        }
    }
}
