use serde::{Deserialize, Serialize};

/// Body of `POST /api/pause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// How long open transactions have to end, milliseconds; then all goes on.
    pub timeout_ms: u64,
    /// When the pause ends by itself, milliseconds.
    pub lease_ms: u64,
}

/// Answer of `POST /api/pause`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseReport {
    /// Whether new transactions are held, and none is open.
    pub paused: bool,
    /// How long open transactions took to end, milliseconds.
    pub drain_ms: u64,
    /// Sessions whose transactions did not end in time.
    pub waited_for: Vec<Offender>,
}

/// A session that holds a pause up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offender {
    /// Pid of its server process; 0: it is logging in.
    pub pid: i32,
    /// User name.
    pub user: String,
    /// `application_name`.
    pub application: String,
    /// Where it comes from.
    pub address: String,
    /// As `pg_stat_activity` has it; what pgshadow knows where the primary doesn't tell.
    pub state: String,
    /// Age of its transaction, milliseconds; none where the primary doesn't tell.
    pub transaction_ms: Option<u64>,
    /// What it runs, or ran last.
    pub query: String,
}
