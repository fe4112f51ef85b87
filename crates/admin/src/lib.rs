//! The windows of pgshadow: its HTTP server, and the client that the command line uses to talk to it.
//!
//! From: whoever implements [`Source`], and the metrics of the process. To: `/api/status`, `/api/report`,
//! `/api/wait/drained`, `/api/backfill`, `/api/verify`, `/api/repair`, `/api/acknowledge`, `/api/certificate`, `/api/pause`, `/api/flip`, `/api/rehearse`, `/api/finish`, `/metrics`, `/livez`, `/readyz` ([`serve`]), and [`Client`] on the other end.
//!
//! Invariants:
//! - The words and shapes of the JSON are the types [`Status`] and [`Report`]; server and client share them.
//! - What comes in over HTTP is asked of others: a backfill and a verify read both databases, a repair has the applier write to the shadow.
//! - A window never holds anything up: what may take long is asked for on another thread.
//!
//! What it is not: no source of truth (it stores nothing), no tables for people (the program prints those).
#![warn(missing_docs)]

mod backfill;
mod client;
mod flip;
mod pause;
mod report;
mod server;
mod source;
mod status;
mod verify;

pub use backfill::{BackfillReport, BackfillRequest, BackfillRunning, BackfillStarted, BackfillState};
pub use client::{Client, ClientError, Drained};
pub use flip::{End, FinishReport, FinishRequest, FlipOutcome, FlipReport, FlipRequest, Gate, Moment, Unmovable};
pub use pause::{Offender, PauseReport, PauseRequest};
pub use report::{AcknowledgeRequest, Acknowledged, FindingView, Report};
pub use server::serve;
pub use source::Source;
pub use status::{
    Applier, Certificate, Counters, EQUAL_AT_START_NOTE, Lag, LogState, PROVEN_NOTE, Phase, Status, SuspectTable,
    VERSION,
};
pub use verify::{
    CertificateRecord, RepairReport, RepairRequest, RepairedTable, Running, VerifyReport, VerifyRequest, VerifyStarted,
    VerifyState,
};
