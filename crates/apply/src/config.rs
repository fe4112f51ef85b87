use std::path::PathBuf;
use std::time::Duration;

/// What the applier needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The shadow. User, database and password of pgshadow's own role.
    pub shadow: tokio_postgres::Config,
    /// The primary, for reading rows again: nothing is written there.
    pub primary: tokio_postgres::Config,
    /// Names the direction (`source-target`): key of the applied position on the shadow.
    pub stream: String,
    /// Connections to the shadow that apply at the same time what doesn't conflict.
    pub lanes: usize,
    /// Entries in one transaction on the shadow.
    pub batch_entries_max: usize,
    /// Rows in one transaction on the shadow (a larger entry goes alone).
    pub batch_rows_max: usize,
    /// How long a statement waits for a lock on the shadow before the batch is tried again.
    pub lock_timeout: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// The longest pause between two attempts to reach the shadow.
    pub backoff_max: Duration,
    /// How long the lanes are held for a fence before they go on without healing and try again later.
    pub fence_wait_max: Duration,
    /// Pause between two attempts to heal.
    pub heal_retry: Duration,
    /// For tests: a file that gets one line per applied row: table, key (hex), epoch, token, xid, sequence, number of
    /// the reply, number of the application; separated by tabs.
    pub trace: Option<PathBuf>,
}

impl Config {
    /// The defaults for these two databases.
    #[must_use]
    pub fn new(shadow: tokio_postgres::Config, primary: tokio_postgres::Config, stream: impl Into<String>) -> Self {
        Self {
            shadow,
            primary,
            stream: stream.into(),
            lanes: 4,
            batch_entries_max: 256,
            batch_rows_max: 2000,
            lock_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            backoff_max: Duration::from_secs(5),
            fence_wait_max: Duration::from_secs(10),
            heal_retry: Duration::from_secs(2),
            trace: None,
        }
    }
}
