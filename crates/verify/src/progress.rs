//! How far a verify is.

use crate::pace::Pace;
use pgshadow_model::QualifiedName;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a verify shows of itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Shown {
    /// What it waits for, if it does.
    pub waiting: Option<String>,
    /// Tables that are over.
    pub tables_done: u64,
    /// Tables in all.
    pub tables: u64,
    /// Bytes of both sides that were read.
    pub bytes_done: u64,
    /// Bytes of both sides to read, as far as is known.
    pub bytes: u64,
    /// Rows of the primary in tables that are over.
    pub rows: u64,
    /// Tables that differ, or can't be compared, so far.
    pub tables_unequal: u64,
    /// Age of the snapshots at work.
    pub snapshot_age_ms: u64,
    /// Statements that gave way to somebody who waited for them.
    pub gave_way: u64,
    /// Since the start.
    pub elapsed_ms: u64,
    /// What is left at the present rate.
    pub left_ms: Option<u64>,
}

/// Kept by the verify, shown to others.
#[derive(Debug)]
pub struct Progress {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    shown: Shown,
    started: Instant,
    pace: Option<Arc<Pace>>,
    snapshot: Option<Instant>,
    /// Tables of which it is found out which rows differ: they are read again for that, perhaps several times.
    located: Vec<QualifiedName>,
}

impl Default for Progress {
    fn default() -> Self {
        let state =
            State { shown: Shown::default(), started: Instant::now(), pace: None, snapshot: None, located: Vec::new() };
        Self { state: Mutex::new(state) }
    }
}

/// The rows of a table that differ are looked for.
pub(crate) struct Locating<'a>(&'a Progress, QualifiedName);

impl Drop for Locating<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let Some(place) = state.located.iter().position(|table| *table == self.1) {
            state.located.swap_remove(place);
        }
    }
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    #[must_use]
    pub fn show(&self) -> Shown {
        let state = self.lock();
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let elapsed = state.started.elapsed();
        let mut shown = state.shown.clone();
        let located =
            || state.located.first().map(|table| format!("the rows of {table} that differ, which are looked for"));
        shown.waiting = shown.waiting.or_else(|| state.pace.as_ref()?.waits_for()).or_else(located);
        shown.elapsed_ms = millis(elapsed);
        shown.snapshot_age_ms = state.snapshot.map_or(0, |since| millis(since.elapsed()));
        let left = shown.bytes.saturating_sub(shown.bytes_done);
        shown.left_ms = left.checked_mul(shown.elapsed_ms).and_then(|all| all.checked_div(shown.bytes_done));
        shown
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.lock().shown);
    }

    pub(crate) fn paced(&self, pace: Arc<Pace>) {
        self.lock().pace = Some(pace);
    }

    pub(crate) fn snapshot(&self, since: Option<Instant>) {
        self.lock().snapshot = since;
    }

    /// Rows of this table differ: shown until what it gives is dropped.
    pub(crate) fn locates(&self, table: &QualifiedName) -> Locating<'_> {
        self.lock().located.push(table.clone());
        Locating(self, table.clone())
    }

    /// So many bytes were read.
    pub(crate) fn read(&self, bytes: u64) {
        self.update(|shown| shown.bytes_done += bytes);
    }
}
