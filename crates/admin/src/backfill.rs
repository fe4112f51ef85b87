use pgshadow_backfill::{Difference, Shown, TableLoad};
use pgshadow_preflight::Finding;
use serde::{Deserialize, Serialize};

/// Body of `POST /api/backfill`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackfillRequest {
    /// Only these tables, as `schema.name`; empty: all, or what an earlier one has left.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Make the target's schema from the source's.
    #[serde(default)]
    pub create_schema: bool,
    /// Load everything, though it is loaded already.
    #[serde(default)]
    pub again: bool,
    /// Bytes a second that are read from the primary, in place of what the configuration says.
    #[serde(default)]
    pub rate_max_bytes: Option<u64>,
    /// Don't ask preflight first.
    #[serde(default)]
    pub skip_preflight: bool,
}

/// Answer of `POST /api/backfill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillStarted {
    /// Its number, from 1.
    pub number: u64,
}

/// Answer of `GET /api/backfill`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BackfillState {
    /// The one that runs.
    pub running: Option<BackfillRunning>,
    /// The last one that ended in this process.
    pub last: Option<BackfillReport>,
}

/// A backfill that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackfillRunning {
    /// Its number.
    pub number: u64,
    /// How far it is.
    pub progress: Shown,
}

/// A backfill that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillReport {
    /// Its number.
    pub number: u64,
    /// Why it ended before all was done.
    pub failed: Option<String>,
    /// What preflight found to be in its way: it was not begun.
    #[serde(default)]
    pub blocked_by: Vec<Finding>,
    /// When it began, RFC 3339 UTC.
    pub started: String,
    /// When it ended.
    pub ended: String,
    /// Each table that it was to load, as far as it came.
    pub tables: Vec<TableLoad>,
    /// Of these, the ones that are suspect all the same: something was done since the snapshot that isn't known.
    pub suspect: Vec<String>,
    /// What of the schema could not be made, or filled.
    pub not_made: Vec<String>,
    /// What is defined otherwise in the end.
    pub differences: Vec<Difference>,
}

impl BackfillReport {
    /// Whether nothing is left to be looked at.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.failed.is_none() && self.suspect.is_empty() && self.not_made.is_empty()
    }
}
