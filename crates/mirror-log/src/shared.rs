//! What the handle, the writer and the keeper share.

use crate::disk::Disk;
use crate::state::State;
use pgshadow_model::Sequence;
use pgshadow_telemetry::Gauge;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What waiters look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub durable: Sequence,
    pub synced: Sequence,
    pub poisoned: Option<String>,
    pub closed: bool,
    /// Raised whenever an append that was refused may succeed.
    pub room: u64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    state: Mutex<State>,
    pub progress: watch::Sender<Progress>,
    /// Wakes the writer.
    pub work: Condvar,
    /// Wakes the keeper.
    pub chores: Condvar,
}

impl Shared {
    pub fn new(disk: Arc<dyn Disk>, state: State) -> Self {
        let progress = Progress { durable: state.durable(), synced: state.synced, ..Progress::default() };
        Gauge::LogBytes.set(state.allocated);
        Gauge::LogBytesMax.set(state.options.size_max);
        Gauge::LogPoisoned.set(0);
        let (progress, _) = watch::channel(progress);
        Self { disk, state: Mutex::new(state), progress, work: Condvar::new(), chores: Condvar::new() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the guard; if something did, poisoning below is what matters.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything after `written` and `synced` fail, for ever.
    pub fn poison(&self, reason: String) {
        let mut state = self.state();
        if state.poisoned.is_none() {
            tracing::error!(reason, "the mirror log is poisoned: nothing is durable any more");
            state.poisoned = Some(reason.clone());
            state.queue.clear();
            Gauge::LogPoisoned.set(1);
            self.progress.send_modify(|p| p.poisoned = Some(reason));
        }
        drop(state);
        self.work.notify_all();
        self.chores.notify_all();
    }

    /// Tells waiters how far the log is.
    pub fn publish(&self, state: &State) {
        Gauge::LogBytes.set(state.allocated);
        self.progress.send_modify(|p| {
            p.durable = state.durable();
            p.synced = state.synced;
            p.room += 1;
        });
    }
}

/// Poisons the log if a thread ends otherwise than it should, so that nobody waits for it.
pub(crate) struct Watchdog<'a> {
    pub shared: &'a Shared,
    pub thread: &'static str,
}

impl Drop for Watchdog<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.poison(format!("the {} thread panicked", self.thread));
        }
    }
}
