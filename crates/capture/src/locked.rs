//! Rows that were locked and read ahead of an UPDATE, and whether it wrote those.
use crate::expected::Stage;
use crate::image;
use crate::journal::Journal;
use crate::plan::{Step, WriteEffect};
use crate::rows::wrote;
use crate::session::Session;
use bytes::Bytes;
use pgshadow_model::Values;
use pgshadow_sql::LockAhead;
use std::collections::HashSet;

/// Bytes in memory of rows that must be held together until a statement is done.
pub(crate) const TOGETHER_BYTES_MAX: usize = 32 << 20;

const OTHERS: &str = "other rows were written than had been locked ahead";
const UNTOLD: &str = "whether it wrote the rows that had been locked ahead could not be told";
const UNREAD: &str = "a locked row could not be read";

/// Rows that a statement of ours gave, as they came. None of them where they are more than may be held: then their number doesn't fit.
#[derive(Debug, Default)]
pub(crate) struct LockedRows {
    rows: Vec<Bytes>,
    bytes: usize,
}

impl LockedRows {
    pub fn push(&mut self, row: Bytes) {
        self.bytes += row.len() + 2 * size_of::<Bytes>();
        if self.bytes > TOGETHER_BYTES_MAX {
            self.rows = Vec::new();
        } else {
            self.rows.push(row);
        }
    }
}

/// An UPDATE that is over, until the look behind it has told which rows it wrote.
#[derive(Debug)]
pub(crate) struct Finished {
    pub stage: Stage,
    /// As its tag counts.
    pub rows: Option<u64>,
}

/// The old rows of an UPDATE; the reason where they aren't certainly those.
pub(crate) fn old_rows(lock: &LockAhead, write: &WriteEffect, stage: &Stage) -> Result<Vec<Values>, &'static str> {
    if lock.behind.is_none() {
        let rows = stage.locked.rows.iter().map(|record| image::read_locked(record, write));
        return rows.collect::<Option<_>>().ok_or(UNREAD);
    }
    // a join finds a row as often as it has others for it
    let (mut rows, mut places, mut kept) = (Vec::new(), HashSet::new(), None);
    for record in &stage.locked.rows {
        if let Some(length) = image::read_kept(record) {
            kept = length;
        } else {
            let (place, values) = image::read_placed(record, write).ok_or(UNREAD)?;
            if places.insert(place) {
                rows.push(values);
            }
        }
    }
    let mut looked_at = None;
    for record in &stage.looked.rows {
        if let Some(length) = image::read_kept(record) {
            looked_at = length;
        } else if places.contains(&image::read_place(record).ok_or(UNREAD)?) {
            return Err(OTHERS);
        }
    }
    if kept.is_none() || kept != looked_at { Err(UNTOLD) } else { Ok(rows) }
}

impl<J: Journal> Session<J> {
    /// The look behind an UPDATE has found these.
    pub(crate) fn looked_behind(&mut self, step: &Step, looked: LockedRows) {
        let barrier = self.shared.journal.barrier();
        let Some(unit) = self.units.front_mut() else { return };
        // what was fetched in parts is declared already
        let (Some(finished), Some(write)) = (unit.finished.take(), step.effect.write()) else { return };
        unit.barrier = barrier;
        unit.outstanding = unit.outstanding.saturating_sub(1);
        let stage = Stage { looked, ..finished.stage };
        wrote(unit, write, stage, finished.rows, step.hidden_anywhere);
        unit.spill(&*self.shared.journal);
    }
}
