use dashmap::DashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The primary's processes that serve sessions which are captured.
#[derive(Debug, Default)]
pub struct Backends {
    live: DashMap<i32, u32>,
    /// Of their sessions, so many can't be followed any more: what they write isn't seen.
    unfollowed: AtomicUsize,
}

/// One of them, for as long as this lives.
#[derive(Debug)]
pub struct Registered {
    of: Arc<Backends>,
    pid: i32,
    followed: bool,
}

impl Registered {
    /// Its session can't be followed any more.
    pub(crate) fn unfollow(&mut self) {
        if std::mem::take(&mut self.followed) {
            self.of.unfollowed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Backends {
    /// A process that belongs to a session, for as long as this is held.
    #[must_use]
    pub fn register(self: &Arc<Self>, pid: i32) -> Registered {
        *self.live.entry(pid).or_default() += 1;
        Registered { of: Arc::clone(self), pid, followed: true }
    }

    /// Sessions that are still there and of which it isn't seen what they write.
    #[must_use]
    pub fn unfollowed(&self) -> usize {
        self.unfollowed.load(Ordering::SeqCst)
    }

    /// Their process ids.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        self.live.iter().map(|entry| *entry.key()).collect()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if !self.followed {
            self.of.unfollowed.fetch_sub(1, Ordering::SeqCst);
        }
        self.of.live.alter(&self.pid, |_, sessions| sessions.saturating_sub(1));
        self.of.live.remove_if(&self.pid, |_, sessions| *sessions == 0);
    }
}
