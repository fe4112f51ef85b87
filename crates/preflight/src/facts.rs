use pgshadow_model::QualifiedName;
use std::time::Duration;

/// What comes from pgshadow itself: its settings and its limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// How programs such as pg_dump reach the source: a connection string without a password.
    pub source: String,
    /// How they reach the target.
    pub target: String,
    /// Tables that aren't mirrored.
    pub excluded: Vec<QualifiedName>,
    /// Connections that apply.
    pub lanes: usize,
    /// Connections to each side that a backfill or a verify reads on, whichever has more.
    pub readers: usize,
    /// Only these tables are loaded; empty: all. Whether pgshadow may read and write is asked of no others.
    pub tables: Vec<QualifiedName>,
    /// How large the mirror log may grow.
    pub log_bytes_max: u64,
    /// pgshadow checks clients' passwords itself, by the servers' verifiers.
    pub scram: bool,
    /// Older transactions are findings.
    pub transaction_age_max: Duration,
    /// Tables of so many bytes are large: what is slow on them is felt.
    pub large_bytes: u64,
    /// Whether a flip and its way back were rehearsed; `None`: nobody was asked.
    pub rehearsed: Option<bool>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            source: String::new(),
            target: String::new(),
            excluded: Vec::new(),
            lanes: 4,
            readers: 2,
            tables: Vec::new(),
            log_bytes_max: 10 << 30,
            scram: false,
            transaction_age_max: Duration::from_secs(60),
            large_bytes: 100 << 20,
            rehearsed: None,
        }
    }
}
