use crate::Offender;
use pgshadow_model::Place;
use serde::{Deserialize, Serialize};

/// Body of `POST /api/flip` and `POST /api/rehearse`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlipRequest {
    /// Which database is to be the primary; a rehearsal goes there and back.
    pub to: Place,
    /// All gates are asked and the way back is proven, but nothing is held or changed.
    #[serde(default)]
    pub dry_run: bool,
    /// How long open transactions, and what is left to be applied, have to end, milliseconds.
    pub timeout_ms: u64,
    /// Though the way back was not rehearsed.
    #[serde(default)]
    pub unrehearsed: bool,
    /// As long as this file is there the flip waits, with all prepared, before it holds anything.
    #[serde(default)]
    pub postpone_flag_file: Option<String>,
}

/// What must be so before a flip, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Its name.
    pub name: String,
    /// Whether it lets the flip through.
    pub open: bool,
    /// What was measured.
    pub value: String,
    /// What it must be.
    pub threshold: String,
    /// What opens it; empty where it is open.
    pub mend: String,
}

/// How a flip ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlipOutcome {
    /// The other database is the primary.
    Flipped,
    /// It would be: nothing was changed.
    DryRun,
    /// A gate was closed: nothing was changed.
    Refused,
    /// Something failed: all was undone, and traffic goes on where it was.
    Undone,
}

/// How a migration is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The target is the primary and stays it.
    Finalize,
    /// The source is the primary and stays it.
    Abort,
}

/// Body of `POST /api/finish`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishRequest {
    /// Which of them.
    pub end: End,
}

/// What pgshadow had made, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishReport {
    /// What was removed.
    pub removed: Vec<String>,
    /// What is left, and how it is removed.
    pub left: Vec<String>,
}

/// A session that can't be taken along to another primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmovable {
    /// Pid of its server process.
    pub pid: i32,
    /// User name.
    pub user: String,
    /// `application_name` of its startup packet.
    pub application: String,
    /// Where it comes from.
    pub address: String,
    /// Why.
    pub why: String,
}

/// When something was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Microseconds since the flip began.
    pub at_us: u64,
    /// What.
    pub what: String,
}

/// A flip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlipReport {
    /// When it began, RFC 3339 UTC.
    pub started: String,
    /// From where.
    pub from: Place,
    /// To where.
    pub to: Place,
    /// How it ended.
    pub outcome: FlipOutcome,
    /// Why it wasn't done.
    pub reason: Option<String>,
    /// What had to be so.
    pub gates: Vec<Gate>,
    /// Sessions that can't be taken along, and will be ended, as far as they could be asked beforehand.
    #[serde(default)]
    pub unmovable: Vec<Unmovable>,
    /// Sessions whose transactions did not end in time.
    pub waited_for: Vec<Offender>,
    /// How long new transactions would be held, milliseconds, by what was measured beforehand.
    pub predicted_pause_ms: Option<u64>,
    /// How long they were, microseconds.
    pub pause_us: Option<u64>,
    /// Transactions that waited.
    pub held: u64,
    /// How long, microseconds: median, 99th percentile and longest.
    pub added_us: Option<[u64; 3]>,
    /// Sessions that were taken along.
    pub moved: u64,
    /// Sessions that were ended, since they could not be: drivers connect again.
    pub ended: u64,
    /// Sequences that were set.
    pub sequences: u64,
    /// What was done when.
    pub timeline: Vec<Moment>,
}
