use tokio_postgres::error::SqlState;

/// Why a verify can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server refused, or was lost.
    #[error("{whom}: {}", describe(error))]
    Postgres {
        /// "primary" or "shadow".
        whom: &'static str,
        /// What it said.
        error: tokio_postgres::Error,
    },
    /// No connection in time.
    #[error("the {0} did not answer in time")]
    Timeout(&'static str),
    /// The applier can't be connected.
    #[error(transparent)]
    Dial(#[from] pgshadow_apply::Error),
    /// The table isn't the one any more that the snapshot shows.
    #[error("it was truncated, rewritten, renamed or dropped on the {0} meanwhile")]
    Redefined(&'static str),
    /// An answer that can't be read.
    #[error("the {whom} gave an answer that can't be read: {what}")]
    Answer {
        /// "primary" or "shadow".
        whom: &'static str,
        /// What was wrong with it.
        what: String,
    },
}

impl Error {
    pub(crate) fn of(whom: &'static str) -> impl Fn(tokio_postgres::Error) -> Self + Copy {
        move |error| Self::Postgres { whom, error }
    }

    /// What the server said it is, if it said something.
    #[must_use]
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres { error, .. } => error.code(),
            _ => None,
        }
    }

    /// Whether the connection or the snapshot is gone, and not only this statement's chance: with new ones it may be tried again.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Dial(_) => true,
            Self::Answer { .. } | Self::Redefined(_) => false,
            Self::Postgres { error, .. } => match error.code() {
                None => true,
                // connection exceptions, shutdowns, no more connections; the snapshot is no more
                Some(code) => {
                    let class = code.code().get(..2).unwrap_or_default();
                    matches!(class, "08" | "53" | "57" | "58")
                        || *code == SqlState::INVALID_PARAMETER_VALUE
                        || *code == SqlState::UNDEFINED_OBJECT
                }
            },
        }
    }
}

fn describe(e: &tokio_postgres::Error) -> String {
    match (e.as_db_error(), std::error::Error::source(e)) {
        (Some(db), _) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        (None, Some(source)) => format!("{e}: {source}"),
        (None, None) => e.to_string(),
    }
}
