//! Long work that was asked for: one at a time, beside everything else, with its progress and the report of the last one.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::task::JoinHandle;

/// Makes the report of one that ended without its own: its number, when it began, why, and how far it was.
type Failed<P, R> = Box<dyn Fn(u64, String, String, &P) -> R + Send + Sync>;

/// Work of one kind: `P` shows its progress, `R` tells how it ended.
pub(super) struct Task<P, R> {
    state: Mutex<State<P, R>>,
    failed: Failed<P, R>,
}

struct State<P, R> {
    number: u64,
    running: Option<Work<P>>,
    last: Option<R>,
}

struct Work<P> {
    progress: Arc<P>,
    started: String,
    task: JoinHandle<()>,
}

/// What a piece of work is told.
pub(super) struct Begun<P> {
    pub number: u64,
    pub progress: Arc<P>,
    /// RFC 3339 UTC.
    pub started: String,
}

/// RFC 3339 UTC.
pub(super) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

impl<P: Default + Send + Sync + 'static, R: Clone + Send + 'static> Task<P, R> {
    pub fn new(failed: impl Fn(u64, String, String, &P) -> R + Send + Sync + 'static) -> Self {
        Self { state: Mutex::new(State { number: 0, running: None, last: None }), failed: Box::new(failed) }
    }

    /// The state; one that has panicked has ended.
    fn lock(&self) -> MutexGuard<'_, State<P, R>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = state.running.take_if(|work| work.task.is_finished()) {
            let why = "it ended unexpectedly; see the log".to_owned();
            state.last = Some((self.failed)(state.number, work.started, why, &work.progress));
        }
        state
    }

    /// Begins one; gives its number. `None`: another one runs.
    pub fn start<F>(self: &Arc<Self>, work: impl FnOnce(Begun<P>) -> F) -> Option<u64>
    where
        F: Future<Output = R> + Send + 'static,
    {
        let mut state = self.lock();
        if state.running.is_some() {
            return None;
        }
        state.number += 1;
        let number = state.number;
        let (progress, started) = (Arc::<P>::default(), now());
        let work = work(Begun { number, progress: Arc::clone(&progress), started: started.clone() });
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let report = work.await;
            let mut state = this.lock();
            // it may have been stopped meanwhile, and another one begun
            if state.number == number {
                state.running = None;
                state.last = Some(report);
            }
        });
        state.running = Some(Work { progress, started, task });
        Some(number)
    }

    /// The one that runs: its number and progress.
    pub fn running(&self) -> Option<(u64, Arc<P>)> {
        let state = self.lock();
        state.running.as_ref().map(|work| (state.number, Arc::clone(&work.progress)))
    }

    /// How the last one ended.
    pub fn last(&self) -> Option<R> {
        self.lock().last.clone()
    }

    /// Ends the one that runs; false if none does.
    pub fn stop(&self) -> bool {
        let mut state = self.lock();
        let Some(work) = state.running.take() else { return false };
        work.task.abort();
        state.last = Some((self.failed)(state.number, work.started, "it was stopped".to_owned(), &work.progress));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Arc<Task<(), String>> {
        Arc::new(Task::new(|number, _, why, ()| format!("{number}: {why}")))
    }

    #[tokio::test]
    async fn one_runs_at_a_time_and_its_report_stays() {
        let task = task();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let first = task.start(|begun| async move {
            let _ = ended.await;
            format!("{} is done", begun.number)
        });
        assert_eq!(first, Some(1));
        assert_eq!(task.start(|_| async { String::new() }), None);
        end.send(()).unwrap();
        while task.running().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(task.last().as_deref(), Some("1 is done"));
    }

    #[tokio::test]
    async fn one_that_is_stopped_or_panics_has_ended() {
        let task = task();
        assert!(!task.stop());
        assert_eq!(task.start(|_| std::future::pending()), Some(1));
        assert!(task.stop());
        assert_eq!(task.last().as_deref(), Some("1: it was stopped"));
        assert_eq!(task.start(|_| async { panic!("on purpose") }), Some(2));
        while task.running().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(task.last().as_deref(), Some("2: it ended unexpectedly; see the log"));
    }
}
