use pgshadow_model::{
    Backend, Change, Changes, Epoch, Intent, Lsn, Order, QualifiedName, Sequence, SpilledPart, Suspect,
};

/// Changes could not be written out, or read back: why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpillRefused(pub String);

/// The file of one transaction that is too large to be held in memory. Dropped, it goes, unless parts of it were kept.
pub trait Spill: std::fmt::Debug + Send + Sync {
    /// Its number.
    fn number(&self) -> u64;
    /// Writes changes behind those that are there.
    ///
    /// # Errors
    /// The disk fails, or there is no room; the parts before are as they were.
    fn write(&mut self, changes: &[Change]) -> Result<SpilledPart, SpillRefused>;
    /// Reads a part back.
    ///
    /// # Errors
    /// The disk fails.
    fn read(&self, part: SpilledPart) -> Result<Vec<Change>, SpillRefused>;
    /// Lets go of what is behind this offset.
    fn cut(&mut self, offset: u64);
    /// An intent or outcome is about to refer to it: it is durable, and stays until that transaction is over.
    ///
    /// # Errors
    /// The disk fails.
    fn keep(&mut self) -> Result<(), SpillRefused>;
}

/// Mirroring has stopped (log full or poisoned): nothing can be promised before a write any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// A transaction whose outcome the client's session has seen.
#[derive(Debug)]
pub struct Settled {
    /// Its intent.
    pub sequence: Sequence,
    /// Everything below that was in flight when its last token arrived must be settled before it is applied.
    pub barrier: Sequence,
    /// The server's reply implies that the commit is flushed (`synchronous_commit` isn't off).
    pub flushed: bool,
    /// Whether it committed.
    pub committed: bool,
    /// Its place, where anything of it is to be applied.
    pub order: Option<Order>,
    /// The changes that its intent holds.
    pub intent_changes: Changes,
    /// Changes that became known after the intent.
    pub changes: Changes,
    /// What became suspect by its commit, the intent's included.
    pub suspects: Vec<Suspect>,
}

/// A transaction whose session was lost after it may have committed.
#[derive(Debug)]
pub struct Unsettled {
    /// Its intent as logged.
    pub sequence: Sequence,
    /// Life of the primary in which it was written.
    pub epoch: Epoch,
    /// Its place as far as known.
    pub order: Option<Order>,
    /// As in [`Settled::barrier`].
    pub barrier: Sequence,
    /// Whose backend may still run it.
    pub backend: Backend,
    /// The changes that its intent holds.
    pub intent_changes: Changes,
    /// Changes that became known after the intent.
    pub changes: Changes,
    /// False: images that it may have written are missing, so its tables become suspect if it committed.
    pub complete: bool,
    /// Tables that it may have written.
    pub may_write: Vec<QualifiedName>,
    /// It may have written tables that can't be named.
    pub may_write_any: bool,
    /// What becomes suspect by its commit.
    pub suspects: Vec<Suspect>,
    /// It may be a prepared transaction with this gid.
    pub prepared: Option<String>,
}

/// Where a session writes down what it does: the mirror log and the book of what is in flight behind it.
pub trait Journal: Send + Sync + 'static {
    /// Whether writes are mirrored at present.
    fn mirroring(&self) -> bool;
    /// Whether the shadow is so far behind that only what mirroring needs is to be logged.
    fn is_behind(&self) -> bool;
    /// Life of the primary that new transactions belong to.
    fn epoch(&self) -> Epoch;
    /// Appends an intent; from here it counts as in flight. Its changes are given back in any case.
    ///
    /// # Errors
    /// [`Stopped`]: the write goes on, unmirrored.
    fn intent(&self, intent: Intent) -> (Changes, Result<Sequence, Stopped>);
    /// A file for the changes of a transaction that grows too large.
    ///
    /// # Errors
    /// The disk fails, or there is no room.
    fn spill(&self) -> Result<Box<dyn Spill>, SpillRefused>;
    /// A number above every intent that was in flight up to now.
    fn barrier(&self) -> Sequence;
    /// The highest place known of a transaction that has committed.
    fn latest(&self) -> Lsn;
    /// The outcome of an intent.
    fn settle(&self, settled: Settled);
    /// The session ended before the outcome was seen.
    fn lost(&self, unsettled: Unsettled);
    /// PREPARE TRANSACTION went through: the outcome comes later, from any session.
    fn prepared(&self, gid: String, unsettled: Unsettled);
    /// COMMIT PREPARED or ROLLBACK PREPARED is about to be sent; what must be durable before, if it is known.
    fn finishing_prepared(&self, gid: &str) -> Option<Sequence>;
    /// COMMIT PREPARED (else ROLLBACK PREPARED) went through.
    fn finished_prepared(&self, gid: &str, committed: bool);
    /// Why a table is suspect already, if it is.
    fn is_suspect(&self, table: &QualifiedName) -> Option<String>;
    /// Tables became suspect outside any intent.
    fn suspect(&self, suspects: Vec<Suspect>);
    /// A statement that isn't repeated on the shadow, for the DBA to run there.
    fn not_repeated(&self, sql: &str, reason: &str);
}
