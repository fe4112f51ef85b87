//! New transactions held back, as PgBouncer's PAUSE does it: what is open goes on to its end, what would begin waits in its socket.
//!
//! A pause is a lease: it ends by itself where its holder doesn't renew it in time, so that one that hangs can't hold the application.
//! A lease that has ended can't be renewed, since transactions may have begun.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until};

/// Whether, and until when, transactions are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Hold {
    #[default]
    No,
    Until(Instant),
    /// Until its holder ends it.
    Committed,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    hold: Hold,
    /// Of the lease.
    number: u64,
}

impl State {
    fn holds(&self) -> bool {
        match self.hold {
            Hold::No => false,
            Hold::Until(end) => Instant::now() < end,
            Hold::Committed => true,
        }
    }
}

/// The pause that all sessions of the migrated database obey.
#[derive(Debug, Default)]
pub struct Pause {
    /// False: nothing is held. True: the state tells. Asked ahead of each transaction.
    wanted: AtomicBool,
    state: watch::Sender<State>,
}

/// The lease has ended by itself, and what waited has gone on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pause has ended by itself: it was not renewed in time")]
pub struct Expired;

/// A pause's holder; with it the pause ends.
#[derive(Debug)]
pub struct Lease {
    pause: Arc<Pause>,
    number: u64,
}

impl Pause {
    /// Holds new transactions for `lease` from now on; `None` if they are held already.
    #[must_use]
    pub fn begin(self: &Arc<Self>, lease: Duration) -> Option<Lease> {
        let mut number = None;
        self.state.send_modify(|state| {
            if !state.holds() {
                *state = State { hold: Hold::Until(Instant::now() + lease), number: state.number + 1 };
                number = Some(state.number);
            }
        });
        let number = number?;
        self.wanted.store(true, Ordering::SeqCst);
        Some(Lease { pause: Arc::clone(self), number })
    }

    /// Whether new transactions are held now.
    #[must_use]
    pub fn holds(&self) -> bool {
        // the time is asked under the state's lock: either all see that a lease has ended, or it can still be renewed
        self.wanted.load(Ordering::SeqCst) && self.state.borrow().holds()
    }

    /// Until nothing is held.
    pub(crate) async fn over(&self) {
        let mut state = self.state.subscribe();
        loop {
            let now = *state.borrow_and_update();
            if !now.holds() {
                return;
            }
            let changed = state.changed();
            match now.hold {
                Hold::Until(end) => {
                    tokio::select! { _ = changed => {}, () = sleep_until(end) => {} }
                }
                _ => {
                    let _ = changed.await;
                }
            }
        }
    }
}

impl Lease {
    fn prolong(&self, hold: Hold) -> Result<(), Expired> {
        let mut held = false;
        self.pause.state.send_if_modified(|state| {
            held = state.number == self.number && state.holds();
            if held {
                state.hold = hold;
            }
            held
        });
        if held { Ok(()) } else { Err(Expired) }
    }

    /// Goes on for `lease` from now on.
    ///
    /// # Errors
    /// [`Expired`].
    pub fn renew(&self, lease: Duration) -> Result<(), Expired> {
        self.prolong(Hold::Until(Instant::now() + lease))
    }

    /// Makes it last until it is dropped: for what can't be taken back.
    ///
    /// # Errors
    /// [`Expired`].
    pub fn commit(&self) -> Result<(), Expired> {
        self.prolong(Hold::Committed)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let own = |state: &State| state.number == self.number;
        // what is asked first is cleared first: nobody may find it set, and nothing behind it, for longer than this
        self.pause.state.send_if_modified(|state| {
            if own(state) {
                self.pause.wanted.store(false, Ordering::SeqCst);
                state.hold = Hold::No;
            }
            own(state)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_ends_by_itself_and_can_not_be_renewed_then() {
        let pause = Arc::new(Pause::default());
        assert!(!pause.holds());
        pause.over().await;
        let lease = pause.begin(LEASE).unwrap();
        assert!(pause.holds() && pause.begin(LEASE).is_none());
        tokio::time::advance(LEASE / 2).await;
        lease.renew(LEASE).unwrap();
        tokio::time::advance(LEASE * 9 / 10).await;
        assert!(pause.holds());
        pause.over().await;
        assert_eq!((pause.holds(), lease.renew(LEASE), lease.commit()), (false, Err(Expired), Err(Expired)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_committed_lasts_until_it_is_dropped() {
        let pause = Arc::new(Pause::default());
        let lease = pause.begin(LEASE).unwrap();
        lease.commit().unwrap();
        tokio::time::advance(LEASE * 100).await;
        assert!(pause.holds());
        let waiting = tokio::spawn({
            let pause = Arc::clone(&pause);
            async move { pause.over().await }
        });
        tokio::task::yield_now().await;
        drop(lease);
        waiting.await.unwrap();
        assert!(!pause.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_lease_ends_nobody_else_s() {
        let pause = Arc::new(Pause::default());
        let first = pause.begin(LEASE).unwrap();
        tokio::time::advance(LEASE).await;
        let second = pause.begin(LEASE).unwrap();
        assert_eq!(first.renew(LEASE), Err(Expired));
        drop(first);
        assert!(pause.holds());
        drop(second);
        assert!(!pause.holds());
    }
}
