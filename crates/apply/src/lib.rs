//! From committed transactions to the shadow, in an order that is exact, each exactly once.
//!
//! From: sessions, which tell the [`OrderBook`] when something that may commit is in flight and what became of it; the
//! mirror log, from which large or old payloads are read again ([`Log`]). To: the shadow, row by row, by lanes that have a
//! connection each ([`Applier`]); the store of findings; the log, which may be trimmed below what is applied.
//!
//! Invariants:
//! 1. An entry is released only when nothing that it may depend on can still turn up (see [`OrderBook`]), and to a lane only
//!    when nothing that conflicts with it is in another one's hands: what conflicts goes in order, in one batch or one after
//!    the other.
//! 2. The applied position is written to the shadow in the transaction that applies, by each lane for itself: exactly once, over
//!    crashes of both sides. Locks on the shadow keep every older connection of the same stream out (`lock.rs`).
//!    A position that can't be one in this log makes every table suspect, and counts no more ([`LogExtent`]).
//! 3. The application never waits: sessions only touch the book, whose calls are short and never do I/O. The shadow
//!    may be away or frozen for hours; entries then wait in the log, and in memory only their order and units remain.
//! 4. Applying is comparing: every row that did not do on the shadow what it did on the primary is a finding, recorded
//!    before the shadow's transaction commits and keyed by its origin, so that a crash neither loses nor doubles it.
//!    Its row is then read again on the primary under a fence and written as it is there ([`Config::primary`]).
//! 5. What can't be applied exactly makes its table suspect. Nothing is skipped silently, nothing stops the lanes for
//!    ever.
//!
//! It does not know sessions, the log's format or what is compared beyond rows it applies; of a statement's syntax only which
//! tables it reaches (`reach.rs`).
//!
//! Reading order: `order.rs`, `release.rs` (part (a)), `choice.rs` and `units.rs` (part (b)), `passed.rs`; then `crew.rs`,
//! `lane.rs`, `batch.rs`, `careful.rs`.
#![warn(missing_docs)]

mod alike;
mod applier;
mod asked;
mod backlog;
mod batch;
mod beside;
mod careful;
mod choice;
mod common;
mod config;
mod copying;
mod crew;
mod dial;
mod entry;
mod error;
mod failure;
mod fence;
mod heal;
#[cfg(test)]
mod history_tests;
mod hold;
mod lane;
mod load;
mod loader;
mod lock;
#[cfg(test)]
mod model_tests;
mod needing;
mod order;
#[cfg(test)]
mod order_tests;
mod own;
mod pair;
mod passed;
mod pieces;
mod plan;
mod position;
mod queues;
mod ranges;
mod raw;
mod reach;
mod rehearsal;
mod release;
mod report;
mod reread;
mod rows;
mod session;
mod shadow_table;
mod statement;
mod target;
mod tie;
mod together;
mod trace;
mod units;
#[cfg(test)]
mod units_tests;
mod waiting;

pub use applier::{Applier, Handle, Status};
pub use config::Config;
pub use dial::{Connected, Dial, Dialed, Plain, connect};
pub use entry::{Entry, Payload, Vast};
pub use error::{Error, LogError};
pub use hold::{Hold, HoldOf};
pub use load::LoadSnapshot;
pub use loader::Loaded;
pub use order::{BeganLate, Lag, OrderBook};
pub use pair::{Exported, PairError, SnapshotPair};
pub use position::{AppliedPosition, Fence, ParseSnapshotError, Snapshot};
pub use rehearsal::SHED_BEHIND;
pub use reread::Reread;
pub use session::{LIFE, UNLOGGED};
pub use tie::{Had, LogExtent, keep_had};

use pgshadow_model::{Change, Lsn, QualifiedName, Sequence};

/// The mirror log, as the applier sees it.
pub trait Log: Send + Sync + 'static {
    /// The changes of a committed transaction, read again. May block on the disk.
    ///
    /// # Errors
    /// The log can't be read, or no longer has it.
    fn read(&self, sequence: Sequence) -> Result<Vec<Change>, LogError>;

    /// A part of a transaction's changes that are too many to be held, counted from 0; `None` behind the last one. May block on
    /// the disk.
    ///
    /// # Errors
    /// As there.
    fn read_part(&self, sequence: Sequence, part: usize) -> Result<Option<Vec<Change>>, LogError>;

    /// The committed entry whose outcome has this number; `None` if it isn't `wanted`, by the number of its intent. `gate`: one
    /// that is right for it, if its commit was not flushed. May block on the disk.
    ///
    /// # Errors
    /// As there.
    fn read_left(
        &self,
        outcome: Sequence,
        gate: Option<Lsn>,
        wanted: &dyn Fn(Sequence) -> bool,
    ) -> Result<Option<Entry>, LogError>;

    /// Which log it is, and what it held when it was opened.
    fn extent(&self) -> LogExtent;

    /// A transaction that was read part by part is on the shadow for good.
    fn let_go(&self, sequence: Sequence);

    /// Everything below is on the shadow for good: the log may be trimmed. Must not block.
    fn applied(&self, below: Sequence);

    /// The shadow has this mark, for good ([`Had::mark`]). Must not block.
    fn marked(&self, mark: u64);
}

/// Which tables can't be taken as equal: their rows are applied tolerantly and give no findings.
pub trait Suspects: Send + Sync + 'static {
    /// The reason, if the table is suspect. Asked for every row: must not block.
    fn is_suspect(&self, table: &QualifiedName) -> Option<String>;

    /// As [`Suspects::suspect`], of what is suspect already: it isn't known to be equal any more if a snapshot of before showed it so.
    /// Must not block for long.
    fn doubt(&self, table: Option<&QualifiedName>);

    /// Makes a table (`None`: every table) suspect, durably. May block on the disk.
    ///
    /// # Errors
    /// It could not be written down: what makes the table suspect must not be passed over yet.
    fn suspect(&self, table: Option<&QualifiedName>, reason: &str) -> Result<(), pgshadow_divergence::Error>;
}

impl Suspects for pgshadow_divergence::Store {
    fn is_suspect(&self, table: &QualifiedName) -> Option<String> {
        Self::is_suspect(self, table)
    }

    fn doubt(&self, table: Option<&QualifiedName>) {
        Self::doubt(self, table);
    }

    fn suspect(&self, table: Option<&QualifiedName>, reason: &str) -> Result<(), pgshadow_divergence::Error> {
        Self::suspect(self, table, reason, None).map(|_| ())
    }
}
