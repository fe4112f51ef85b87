use crate::{Change, QualifiedName, RowImage, Values};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Changes of one transaction, in order: first those that were written out to a file, then those at hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Where the first of them are.
    pub spilled: Option<Spilled>,
    /// Those behind.
    pub rest: Vec<Change>,
}

/// Changes in a file of their own beside the log, in parts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spilled {
    /// Its number; no other file of the log ever has it.
    pub file: u64,
    /// The parts, in order. At least one.
    pub parts: Vec<SpilledPart>,
    /// Tables that they write, as [`Change::tables`] names them.
    pub tables: BTreeSet<Option<QualifiedName>>,
    /// There are definitions or TRUNCATEs among them.
    pub defines: bool,
}

/// A piece of such a file, read as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpilledPart {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u32,
    /// Changes that it holds.
    pub changes: u32,
}

impl Changes {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spilled.is_none() && self.rest.is_empty()
    }

    /// What they take, roughly, wherever they are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let rest: usize = self.rest.iter().map(Change::memory_bytes).sum();
        rest as u64 + self.spilled.as_ref().map_or(0, Spilled::bytes)
    }

    /// Tables that they write, some of them perhaps several times; `None` stands for every table.
    #[must_use]
    pub fn tables(&self) -> Vec<Option<QualifiedName>> {
        let mut tables: Vec<_> = self.spilled.iter().flat_map(|spilled| spilled.tables.iter().cloned()).collect();
        let mut last = None;
        for change in &self.rest {
            let row = if let Change::Row(row) = change { Some(Arc::as_ptr(&row.relation)) } else { None };
            // many rows of one table come one after the other
            if row.is_none() || row != last {
                tables.append(&mut change.tables());
            }
            last = row;
        }
        tables
    }
}

impl From<Vec<Change>> for Changes {
    fn from(rest: Vec<Change>) -> Self {
        Self { spilled: None, rest }
    }
}

impl Spilled {
    /// How many changes they are.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.changes)).sum()
    }

    /// What they take in the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.length)).sum()
    }
}

impl Change {
    /// What it takes in memory, roughly, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Row(image) => image.memory_bytes(),
            Self::Copy(copy) => FIXED + copy.sql.len() + copy.data.iter().map(|d| d.len() + 32).sum::<usize>(),
            Self::Truncate(truncate) => FIXED + truncate.sql.len(),
            Self::Ddl(ddl) => FIXED + ddl.sql.len(),
            Self::Statement(statement) => {
                let bound = statement.bound.iter().flat_map(|b| &b.parameters);
                let values: usize = bound.map(|p| 48 + p.value.as_ref().map_or(0, Bytes::len)).sum();
                6 * FIXED + statement.sql.len() + values
            }
        }
    }

    /// Tables that it writes. `None` stands for every table.
    #[must_use]
    pub fn tables(&self) -> Vec<Option<QualifiedName>> {
        match self {
            Self::Row(row) => vec![Some(row.relation.name.clone())],
            Self::Copy(copy) => vec![Some(copy.relation.name.clone())],
            Self::Truncate(truncate) => truncate.tables.iter().cloned().map(Some).collect(),
            Self::Ddl(ddl) if ddl.in_transaction => vec![None],
            Self::Ddl(_) | Self::Statement(_) => Vec::new(),
        }
    }
}

impl RowImage {
    /// What it takes in memory as a change, roughly, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        FIXED + values_bytes(&self.values) + self.old_key.as_ref().map_or(0, values_bytes)
    }
}

/// A change's place in a list, and what goes with the buffers of its values.
const FIXED: usize = size_of::<Change>() + 80;

fn values_bytes(values: &Values) -> usize {
    values.iter().map(|v| 60 + v.as_ref().map_or(0, Bytes::len)).sum()
}
