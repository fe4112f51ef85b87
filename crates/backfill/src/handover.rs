use futures::future::BoxFuture;
use pgshadow_apply::{Connected, Hold, HoldOf, LoadSnapshot, PairError};
use pgshadow_model::QualifiedName;

/// The applier and the store of suspect tables, as a load needs them.
pub trait Handover: Send + Sync {
    /// What is written to these tables isn't applied until they are loaded.
    fn await_load(&self, tables: Vec<QualifiedName>) -> BoxFuture<'static, Result<(), PairError>>;

    /// The primary at one moment; what comes after it and reaches these is held.
    fn snapshot(&self, held: HoldOf) -> BoxFuture<'static, Result<LoadSnapshot, PairError>>;

    /// Holds more, as long as a snapshot's own hold lasts.
    fn hold(&self, held: HoldOf) -> Hold;

    /// Holds these, and nothing of it is being applied any more.
    fn hold_still(&self, held: HoldOf) -> BoxFuture<'static, Result<Hold, PairError>>;

    /// These tables hold what the snapshot held; definitions are looked at anew.
    /// The hold lasts until that is noted, whatever becomes of the one who asks, and comes back.
    fn loaded(
        &self,
        tables: Vec<QualifiedName>,
        hold: Option<Hold>,
    ) -> BoxFuture<'static, Result<Option<Hold>, PairError>>;

    /// A connection that may write to the shadow.
    fn writer(&self) -> BoxFuture<'static, Result<Connected, PairError>>;

    /// These tables are suspect, since they are being loaded. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// It could not be written down.
    fn suspect(&self, tables: &[QualifiedName]) -> Result<(), String>;

    /// These tables were equal at a snapshot with this mark of doubts; `whole`: so was every one. Gives those that stay suspect.
    /// Blocks on the disk for a moment.
    ///
    /// # Errors
    /// It could not be written down.
    fn lift(&self, tables: &[QualifiedName], doubts: u64, whole: bool) -> Result<Vec<QualifiedName>, String>;
}
