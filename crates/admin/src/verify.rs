use pgshadow_divergence::TableCertificate;
use pgshadow_verify::{Difference, Shown, TableOutcome};
use serde::{Deserialize, Serialize};

/// Body of `POST /api/verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Only these tables, as `schema.name`; empty: all.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Compare everything anew, also what an interrupted one has found to be equal.
    #[serde(default)]
    pub again: bool,
}

/// Answer of `POST /api/verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyStarted {
    /// Its number, from 1.
    pub number: u64,
}

/// Answer of `GET /api/verify`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyState {
    /// The one that runs.
    pub running: Option<Running>,
    /// The last one that ended in this process.
    pub last: Option<VerifyReport>,
}

/// A verify that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Its number.
    pub number: u64,
    /// How far it is.
    pub progress: Shown,
}

/// A verify that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Its number.
    pub number: u64,
    /// Why it ended without a result.
    pub failed: Option<String>,
    /// When it began, RFC 3339 UTC.
    pub started: String,
    /// When it ended.
    pub ended: String,
    /// Each table.
    pub tables: Vec<TableOutcome>,
    /// Tables that aren't mirrored, and so weren't compared.
    pub excluded: Vec<String>,
    /// How long no lane could apply, for each pair of snapshots, in milliseconds.
    pub held_ms: Vec<f64>,
}

impl VerifyReport {
    /// Whether all that was compared is equal, and all could be.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.failed.is_none() && self.tables.iter().all(TableOutcome::is_equal)
    }
}

/// Body of `POST /api/repair`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairRequest {
    /// Only these tables, as `schema.name`; empty: all in which the last verify found something.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Tell what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer of `POST /api/repair`: the rows are in the list of what the applier mends (without `dry_run`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairReport {
    /// Each table in which the last verify found something.
    pub tables: Vec<RepairedTable>,
}

/// What is mended of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairedTable {
    /// `schema.name`.
    pub table: String,
    /// The rows, as the verify found them. They are read again on the primary, and written as they are there by then.
    pub rows: Vec<Difference>,
    /// Rows that differ besides: to be found by the next verify.
    pub left: u64,
    /// Why it can't be mended row by row.
    pub not_repaired: Option<String>,
}

/// Answer of `/api/certificate`, to be kept with a change's record: what is proven, of which databases, and what isn't.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// Version of pgshadow.
    pub version: String,
    /// When this was written, RFC 3339 UTC.
    pub written: String,
    /// Whether every table is proven equal, and has been applied exactly since.
    pub valid: bool,
    /// Why not.
    pub reason: Option<String>,
    /// The source, as `host:port/database`.
    pub source: String,
    /// The target, likewise.
    pub target: String,
    /// Tables that aren't mirrored, and of which nothing is said.
    pub excluded: Vec<String>,
    /// Each table that was verified.
    pub tables: Vec<TableCertificate>,
}
