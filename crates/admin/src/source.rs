use crate::{
    AcknowledgeRequest, Acknowledged, BackfillRequest, BackfillStarted, BackfillState, CertificateRecord, FinishReport,
    FinishRequest, FlipReport, FlipRequest, PauseReport, PauseRequest, RepairReport, RepairRequest, Status,
    VerifyRequest, VerifyStarted, VerifyState,
};
use pgshadow_model::Finding;
use std::time::Duration;

/// What the windows look at; the assembly implements it.
pub trait Source: Send + Sync + 'static {
    /// The state now. Cheap: it is asked for every second by `status --watch`.
    fn status(&self) -> Status;

    /// Everything in the store of findings, in order of `id`. May read from disk.
    fn findings(&self) -> Vec<Finding>;

    /// Waits until the shadow has applied all that was committed when this was called, and rows that did not fit are
    /// healed. `false`: not within `timeout`.
    fn drained(&self, timeout: Duration) -> impl Future<Output = bool> + Send;

    /// Begins a backfill.
    ///
    /// # Errors
    /// Why it can't: another one or a verify runs, nothing is mirrored, a table's name can't be read.
    fn backfill(&self, request: BackfillRequest) -> Result<BackfillStarted, String>;

    /// How the backfill fares.
    fn backfill_state(&self) -> BackfillState;

    /// Ends the backfill that runs, to be gone on with later; false if none does.
    fn stop_backfill(&self) -> bool;

    /// Begins a verify.
    ///
    /// # Errors
    /// Why it can't: another one runs, nothing is mirrored, a table's name can't be read.
    fn verify(&self, request: VerifyRequest) -> Result<VerifyStarted, String>;

    /// How the verify fares.
    fn verify_state(&self) -> VerifyState;

    /// Ends the verify that runs; false if none does.
    fn stop_verify(&self) -> bool;

    /// Has what the last verify found mended on the shadow, or tells what would be.
    ///
    /// # Errors
    /// There is nothing to go by, or the applier can't.
    fn repair(&self, request: RepairRequest) -> impl Future<Output = Result<RepairReport, String>> + Send;

    /// Findings that a DBA has seen, and that are to stay as they are. Writes to disk.
    ///
    /// # Errors
    /// Nothing is mirrored, or the store can't be written.
    fn acknowledge(&self, request: &AcknowledgeRequest) -> Result<Acknowledged, String>;

    /// What is proven, to be kept. May read from disk.
    ///
    /// # Errors
    /// Nothing is mirrored, or the store can't be read.
    fn certificate(&self) -> Result<CertificateRecord, String>;

    /// Holds new transactions, and waits until none is open; given up, it ends the pause.
    ///
    /// # Errors
    /// Another command holds them.
    fn pause(&self, request: PauseRequest) -> impl Future<Output = Result<PauseReport, String>> + Send;

    /// Lets new transactions begin; false if they aren't held.
    fn resume(&self) -> bool;

    /// Makes another database the primary; given up before the point of no return, it is undone.
    ///
    /// # Errors
    /// It can't be begun: nothing is mirrored, that is the primary already, another one runs.
    fn flip(&self, request: FlipRequest) -> impl Future<Output = Result<FlipReport, String>> + Send;

    /// A flip and the way back.
    ///
    /// # Errors
    /// As [`Source::flip`].
    fn rehearse(&self, request: FlipRequest) -> impl Future<Output = Result<Vec<FlipReport>, String>> + Send;

    /// Ends the migration: nothing is mirrored from then on, and what pgshadow made is removed.
    ///
    /// # Errors
    /// The primary isn't where it must be, or a flip is under way.
    fn finish(&self, request: FinishRequest) -> impl Future<Output = Result<FinishReport, String>> + Send;

    /// All flips that there were, oldest first. May read from disk.
    fn flips(&self) -> Vec<FlipReport>;

    /// Whether clients can be served; if not, why.
    ///
    /// # Errors
    /// The one reason for not being ready.
    fn ready(&self) -> Result<(), String>;
}
