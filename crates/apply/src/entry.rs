use pgshadow_model::{Change, Lsn, Order, Sequence, Values};
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
}

impl Payload {
    /// Changes with their estimated size.
    #[must_use]
    pub fn memory(changes: Vec<Change>) -> Self {
        let bytes = changes.iter().map(estimate).sum();
        Self::Memory { changes, bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Memory { bytes, .. } => *bytes,
            Self::Spilled => 0,
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
}

fn estimate(change: &Change) -> usize {
    const FIXED: usize = 64;
    match change {
        Change::Row(image) => {
            FIXED + estimate_values(&image.values) + image.old_key.as_ref().map_or(0, estimate_values)
        }
        Change::Copy(copy) => FIXED + copy.sql.len() + copy.data.iter().map(|d| d.len() + 32).sum::<usize>(),
        Change::Truncate(truncate) => FIXED + truncate.sql.len(),
        Change::Ddl(ddl) => FIXED + ddl.sql.len(),
        Change::Statement(statement) => {
            let bound = statement.bound.iter().flat_map(|b| &b.parameters);
            let values: usize = bound.map(|p| 48 + p.value.as_ref().map_or(0, bytes::Bytes::len)).sum();
            8 * FIXED + statement.sql.len() + values
        }
    }
}

fn estimate_values(values: &Values) -> usize {
    values.iter().map(|v| 40 + v.as_ref().map_or(0, bytes::Bytes::len)).sum()
}
