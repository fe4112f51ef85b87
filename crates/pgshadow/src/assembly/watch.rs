//! Whether the watch on the primary holds: as long as its connection lives, so does the primary's life that is known. A server
//! ends all its connections before it begins another life, so no session gets into that one while the watch seems to hold.
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How long a session is kept waiting at most.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Default)]
struct State {
    /// Cancelled when the connection has ended by which it holds.
    connection: Option<CancellationToken>,
    /// Attempts begun, and the last one that is over.
    begun: u64,
    over: u64,
}

impl State {
    fn holds(&self) -> bool {
        self.connection.as_ref().is_some_and(|ended| !ended.is_cancelled())
    }
}

/// The state of the watch.
#[derive(Debug, Default)]
pub(super) struct Watch {
    state: watch::Sender<State>,
    wanted: Notify,
}

/// An attempt to watch; its end without [`Attempt::holds`] is a failure.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Watch {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.state.borrow().holds()
    }

    /// Begins an attempt.
    pub fn attempt(&self) -> Attempt<'_> {
        self.state.send_modify(|state| state.begun += 1);
        Attempt { watch: self, number: self.state.borrow().begun }
    }

    /// Until a session wants it to hold.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Until it holds, or can't be made to hold now. To be called by a session that is connected to the primary already: the life
    /// known then is that of its connection.
    pub async fn wait(&self) {
        let mut state = self.state.subscribe();
        let begun = {
            let now = state.borrow_and_update();
            if now.holds() {
                return;
            }
            now.begun
        };
        self.wanted.notify_one();
        let known = state.wait_for(|state| state.holds() || state.over > begun);
        let _ = tokio::time::timeout(PATIENCE, known).await;
    }
}

impl Attempt<'_> {
    /// It holds until `ended` is cancelled, with the end of its connection.
    pub fn holds(self, ended: &CancellationToken) {
        self.watch.state.send_modify(|state| state.connection = Some(ended.clone()));
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.watch.state.send_modify(|state| state.over = state.over.max(self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    async fn waits(watch: &Arc<Watch>) -> tokio::task::JoinHandle<()> {
        let waiting = Arc::clone(watch);
        let task = tokio::spawn(async move { waiting.wait().await });
        tokio::time::timeout(PATIENCE / 2, watch.wanted()).await.expect("it asks for an attempt");
        task
    }

    #[tokio::test]
    async fn a_session_waits_for_an_attempt_that_began_after_it() {
        let watch = Arc::new(Watch::default());
        let earlier = watch.attempt();
        let session = waits(&watch).await;
        drop(earlier);
        tokio::task::yield_now().await;
        assert!(!session.is_finished());
        drop(watch.attempt());
        session.await.unwrap();
        assert!(!watch.holds());
    }

    #[tokio::test]
    async fn it_holds_until_its_connection_ends() {
        let watch = Arc::new(Watch::default());
        let session = waits(&watch).await;
        let [first, second] = [CancellationToken::new(), CancellationToken::new()];
        watch.attempt().holds(&first);
        session.await.unwrap();
        watch.wait().await;
        watch.attempt().holds(&second);
        first.cancel();
        assert!(watch.holds());
        second.cancel();
        assert!(!watch.holds());
    }

    #[tokio::test]
    async fn a_session_does_not_wait_for_ever() {
        Watch::default().wait().await;
    }
}
