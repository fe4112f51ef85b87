use pgshadow_model::{Change, Lsn, Order, QualifiedName, Sequence};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The changes of an entry, or where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Here.
    Memory {
        /// The changes, in the primary's order.
        changes: Vec<Change>,
        /// What they take, roughly.
        bytes: usize,
    },
    /// To be read again from the log by the entry's sequence.
    Spilled,
    /// Too many to be held: to be read part by part.
    Vast(Arc<Vast>),
}

/// What is known of an entry's changes that are too many to be held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vast {
    /// Tables that they write; `None` stands for every table.
    pub tables: BTreeSet<Option<QualifiedName>>,
    /// There are definitions or TRUNCATEs among them.
    pub defines: bool,
    /// How many they are.
    pub changes: u64,
    /// Their bytes in the log.
    pub bytes: u64,
}

impl Payload {
    /// Changes with their estimated size.
    #[must_use]
    pub fn memory(changes: Vec<Change>) -> Self {
        let bytes = changes.iter().map(Change::memory_bytes).sum();
        Self::Memory { changes, bytes }
    }

    /// Itself; what stays can be read again.
    pub(crate) fn take(&mut self) -> Self {
        match self {
            Self::Vast(vast) => Self::Vast(Arc::clone(vast)),
            _ => std::mem::replace(self, Self::Spilled),
        }
    }

    /// Bytes of the changes, wherever they are; 0 if that isn't known.
    pub(crate) fn log_bytes(&self) -> u64 {
        match self {
            Self::Memory { bytes, .. } => *bytes as u64,
            Self::Spilled => 0,
            Self::Vast(vast) => vast.bytes,
        }
    }

    /// Bytes that are here.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Memory { bytes, .. } => *bytes,
            Self::Spilled | Self::Vast(_) => 0,
        }
    }
}

/// A committed transaction on its way to the shadow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its intent's number in the log.
    pub sequence: Sequence,
    /// Its place among others.
    pub order: Order,
    /// Its changes.
    pub changes: Payload,
    /// It may be applied only once the primary has flushed its WAL up to here (`synchronous_commit = off`).
    pub flush_gate: Option<Lsn>,
    /// The number of its commit's reply, for the trace.
    pub reply_number: u64,
}

/// An entry with its changes.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) sequence: Sequence,
    pub(crate) order: Order,
    pub(crate) reply_number: u64,
    /// The primary may have lost it: its rows are read again instead of applied.
    pub(crate) unsure: bool,
    pub(crate) changes: Arc<Vec<Change>>,
    /// They are too many to be here.
    pub(crate) vast: Option<Arc<Vast>>,
}

impl Loaded {
    /// Changes that write, or may.
    pub(crate) fn written(&self) -> u64 {
        let here = self.changes.iter().filter(|c| !matches!(c, Change::Statement(_))).count();
        here as u64 + self.vast.as_ref().map_or(0, |vast| vast.changes)
    }

    /// Whether definitions are among them.
    pub(crate) fn defines(&self) -> bool {
        self.vast.as_ref().is_some_and(|vast| vast.defines) || self.changes.iter().any(|c| matches!(c, Change::Ddl(_)))
    }

    /// Whether it has rows of this table.
    pub(crate) fn names(&self, table: &QualifiedName) -> bool {
        self.vast.as_ref().is_some_and(|vast| vast.tables.contains(&Some(table.clone())))
            || self.changes.iter().any(|c| matches!(c, Change::Row(image) if image.relation.name == *table))
    }
}
