use dashmap::DashMap;
use std::sync::Arc;

/// The primary's processes that serve sessions which are captured.
#[derive(Debug, Default)]
pub struct Backends {
    live: DashMap<i32, u32>,
}

/// One of them, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Registered {
    of: Arc<Backends>,
    pid: i32,
}

impl Backends {
    pub(crate) fn register(self: &Arc<Self>, pid: i32) -> Registered {
        *self.live.entry(pid).or_default() += 1;
        Registered { of: Arc::clone(self), pid }
    }

    /// Their process ids.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        self.live.iter().map(|entry| *entry.key()).collect()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.of.live.alter(&self.pid, |_, sessions| sessions.saturating_sub(1));
        self.of.live.remove_if(&self.pid, |_, sessions| *sessions == 0);
    }
}
