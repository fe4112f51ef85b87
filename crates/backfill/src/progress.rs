//! How far a backfill is.

use pgshadow_model::QualifiedName;
use pgshadow_verify::Pace;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What is waited for is named after so long.
const NAMED_AFTER: Duration = Duration::from_secs(1);

/// What a backfill is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Both schemas are looked at.
    #[default]
    Looking,
    /// A snapshot of the primary is taken.
    Snapshot,
    /// The target's schema is made.
    Schema,
    /// Rows are copied, and indexes made.
    Loading,
    /// Foreign keys, sequences and what else comes last.
    Finishing,
}

impl Stage {
    /// The word in the JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Looking => "looking",
            Self::Snapshot => "snapshot",
            Self::Schema => "schema",
            Self::Loading => "loading",
            Self::Finishing => "finishing",
        }
    }
}

/// A table's load.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableLoad {
    /// `schema.name`.
    pub table: String,
    /// Rows that are on the shadow.
    pub rows: u64,
    /// Bytes of its file that were read, about.
    pub bytes_done: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// What it is at: waiting, copying, indexes, done.
    pub state: String,
    /// Since it was begun, or how long it took.
    pub elapsed_ms: u64,
}

/// What a backfill shows of itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Shown {
    /// What it is at.
    pub stage: Stage,
    /// What it waits for, if it does.
    pub waiting: Option<String>,
    /// Tables that are done.
    pub tables_done: u64,
    /// Tables in all.
    pub tables: u64,
    /// Rows that are on the shadow.
    pub rows: u64,
    /// Bytes of the primary's tables that were read.
    pub bytes_done: u64,
    /// Bytes of the primary's tables.
    pub bytes: u64,
    /// Age of the snapshot that is open.
    pub snapshot_age_ms: u64,
    /// Since the start.
    pub elapsed_ms: u64,
    /// What is left at the rate so far, indexes left out.
    pub left_ms: Option<u64>,
    /// Each table.
    pub each: Vec<TableLoad>,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    waiting: Option<String>,
    pace: Option<Arc<Pace>>,
    started: Instant,
    loading_since: Option<Instant>,
    /// Read when the loading began.
    read_before: u64,
    snapshot: Option<Instant>,
    tables: BTreeMap<QualifiedName, (TableLoad, Option<Instant>)>,
}

/// Kept by the backfill, shown to others.
#[derive(Debug)]
pub struct Progress {
    state: Mutex<State>,
}

impl Default for Progress {
    fn default() -> Self {
        let state = State {
            stage: Stage::Looking,
            waiting: None,
            pace: None,
            started: Instant::now(),
            loading_since: None,
            read_before: 0,
            snapshot: None,
            tables: BTreeMap::new(),
        };
        Self { state: Mutex::new(state) }
    }
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    #[must_use]
    pub fn show(&self) -> Shown {
        let state = self.lock();
        let each = state.tables.values().map(|(load, since)| TableLoad {
            elapsed_ms: since.map_or(load.elapsed_ms, |since| millis(since.elapsed())),
            ..load.clone()
        });
        let mut shown = Shown {
            stage: state.stage,
            waiting: state.waiting.clone().or_else(|| state.pace.as_ref()?.waits_for()),
            tables: state.tables.len() as u64,
            snapshot_age_ms: state.snapshot.map_or(0, |since| millis(since.elapsed())),
            elapsed_ms: millis(state.started.elapsed()),
            each: each.collect(),
            ..Shown::default()
        };
        for load in &shown.each {
            shown.tables_done += u64::from(load.state == DONE);
            shown.rows += load.rows;
            shown.bytes_done += load.bytes_done.min(load.bytes);
            shown.bytes += load.bytes;
        }
        let (left, now) = (shown.bytes - shown.bytes_done, shown.bytes_done.saturating_sub(state.read_before));
        shown.left_ms = state
            .loading_since
            .and_then(|since| left.checked_mul(millis(since.elapsed())).and_then(|all| all.checked_div(now)));
        shown
    }

    pub(crate) fn stage(&self, stage: Stage) {
        let mut state = self.lock();
        if stage == Stage::Loading && state.stage != Stage::Loading {
            let read = state.tables.values().map(|(load, _)| load.bytes_done).sum();
            (state.loading_since, state.read_before) = (Some(Instant::now()), read);
        }
        state.stage = stage;
    }

    pub(crate) fn snapshot(&self, since: Option<Instant>) {
        self.lock().snapshot = since;
    }

    pub(crate) fn paced(&self, pace: Arc<Pace>) {
        self.lock().pace = Some(pace);
    }

    pub(crate) fn waits(&self, why: Option<String>) {
        self.lock().waiting = why;
    }

    /// Names what is waited for, once it takes a moment.
    pub(crate) async fn named<T>(&self, what: &str, waited_for: impl Future<Output = T>) -> T {
        let mut waited_for = std::pin::pin!(waited_for);
        if let Ok(done) = tokio::time::timeout(NAMED_AFTER, waited_for.as_mut()).await {
            return done;
        }
        self.waits(Some(what.to_owned()));
        let done = waited_for.await;
        self.waits(None);
        done
    }

    /// A table is to be loaded.
    pub(crate) fn table(&self, name: &QualifiedName, bytes: u64) {
        let load = TableLoad { table: name.to_string(), bytes, state: "waiting".to_owned(), ..TableLoad::default() };
        self.lock().tables.insert(name.clone(), (load, None));
    }

    /// It is no more.
    pub(crate) fn forget(&self, name: &QualifiedName) {
        self.lock().tables.remove(name);
    }

    pub(crate) fn is_at(&self, name: &QualifiedName, what: &str) {
        if let Some((load, since)) = self.lock().tables.get_mut(name) {
            what.clone_into(&mut load.state);
            let since = since.get_or_insert_with(Instant::now);
            load.elapsed_ms = millis(since.elapsed());
        }
    }

    /// It is loaded.
    pub(crate) fn done(&self, name: &QualifiedName) {
        if let Some((load, since)) = self.lock().tables.get_mut(name) {
            DONE.clone_into(&mut load.state);
            load.bytes_done = load.bytes;
            load.elapsed_ms = since.take().map_or(0, |since| millis(since.elapsed()));
        }
    }

    /// So many rows of it are on the shadow, from so many bytes of its file.
    pub(crate) fn copied(&self, name: &QualifiedName, rows: u64, bytes: u64) {
        if let Some((load, _)) = self.lock().tables.get_mut(name) {
            load.rows += rows;
            load.bytes_done += bytes;
        }
    }

    /// It begins again.
    pub(crate) fn restart(&self, name: &QualifiedName) {
        if let Some((load, since)) = self.lock().tables.get_mut(name) {
            (load.rows, load.bytes_done) = (0, 0);
            *since = None;
        }
    }
}

const DONE: &str = "done";
