//! Prepared transactions: PREPARE TRANSACTION was seen to go through, COMMIT PREPARED or ROLLBACK PREPARED not yet.
//!
//! They may stay for hours. Meanwhile they hold nothing back (the heartbeat raises them), and nobody who waits for what was committed
//! waits for them. Their end is seen by the session that brings it, or by the settler, if it came past pgshadow.
use pgshadow_capture::Unsettled;
use pgshadow_model::{Sequence, Xid};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// After this the end that a session announced is not taken to be on its way any more.
const END_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Prepared {
    open: Unsettled,
    /// Its end was sent.
    ending: Option<Instant>,
}

/// By gid.
#[derive(Debug, Default)]
pub(super) struct PreparedTransactions {
    all: Mutex<HashMap<String, Prepared>>,
    /// One came.
    pub added: Notify,
    /// How often the settler has looked at all of them.
    pub looks: watch::Sender<u64>,
}

impl PreparedTransactions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Prepared>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another one with the same gid, which must have ended unseen.
    pub fn add(&self, gid: String, mut open: Unsettled) -> Option<Unsettled> {
        // no backend runs it any more, and the gid may be another one's later
        open.backend.pid = 0;
        open.prepared = None;
        let before = self.lock().insert(gid, Prepared { open, ending: None });
        self.added.notify_one();
        before.map(|prepared| prepared.open)
    }

    /// Its end is on the way; the number of its intent.
    pub fn ending(&self, gid: &str) -> Option<Sequence> {
        let mut all = self.lock();
        let prepared = all.get_mut(gid)?;
        prepared.ending = Some(Instant::now());
        Some(prepared.open.sequence)
    }

    pub fn take(&self, gid: &str) -> Option<Unsettled> {
        self.lock().remove(gid).map(|prepared| prepared.open)
    }

    pub fn gids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Those whose end nobody has announced, with their transaction ids.
    pub fn quiet(&self) -> Vec<(Sequence, Option<Xid>)> {
        let is_quiet = |p: &&Prepared| p.ending.is_none_or(|since| since.elapsed() > END_MAX);
        self.lock().values().filter(is_quiet).map(|p| (p.open.sequence, p.open.order.map(|o| o.xid))).collect()
    }

    /// All of them, with their transaction ids.
    pub fn all(&self) -> Vec<(Sequence, Xid)> {
        self.lock().values().filter_map(|p| Some((p.open.sequence, p.open.order?.xid))).collect()
    }

    /// Returns once the settler has looked at all that are here now.
    pub async fn looked_at(&self) {
        if self.lock().is_empty() {
            return;
        }
        let mut looks = self.looks.subscribe();
        let seen = *looks.borrow();
        // the look that is under way may have begun before
        let _ = looks.wait_for(|n| *n >= seen + 2).await;
    }
}
