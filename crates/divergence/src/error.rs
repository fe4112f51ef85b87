use std::path::PathBuf;

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the file.
    #[error(
        "{path}: the store of findings is in use by another process; only one pgshadow may run on a data directory"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be read as what it should be.
    #[error(
        "{path}: the store of findings is damaged or not one ({reason}). Move the file away and start again: its \
         findings and its list of suspect tables are then lost, so verify every table before a cutover"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// The disk, or the file's directory.
    #[error("{path}: cannot open the store of findings: {reason}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A read or write failed after the file was opened.
    #[error("the store of findings failed: {0}")]
    Storage(Box<redb::Error>),
    /// A stored value is not what this version writes.
    #[error("the store of findings holds a value that can't be read: {0}")]
    Value(#[from] serde_json::Error),
}

macro_rules! from_redb {
    ($($t:ty),*) => {
        $(impl From<$t> for Error {
            fn from(e: $t) -> Self {
                Self::Storage(Box::new(e.into()))
            }
        })*
    };
}
from_redb!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

impl Error {
    pub(crate) fn opening(path: &std::path::Path, e: &redb::DatabaseError) -> Self {
        let (path, reason) = (path.to_owned(), e.to_string());
        match e {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::InUse { path },
            redb::DatabaseError::Storage(redb::StorageError::Io(io))
                if io.kind() != std::io::ErrorKind::InvalidData =>
            {
                Self::Open { path, reason }
            }
            _ => Self::Damaged { path, reason },
        }
    }
}
