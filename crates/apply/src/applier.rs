use crate::asked::{Asked, Request};
use crate::common::{Common, Hurry};
use crate::crew::Crew;
use crate::hold::{Hold, HoldOf};
use crate::load::LoadSnapshot;
use crate::pair::{PairError, SnapshotPair};
use crate::reread::Reread;
use crate::{Config, Connected, Dial, Log, OrderBook, Suspects};
use pgshadow_divergence::Store;
use pgshadow_model::{QualifiedName, Sequence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// So many entries are brought to the shadow by one lane, while the others are held: first all of them do the rest.
const NEARLY: u64 = 20;
/// If it hasn't become less in so long, it never will.
const LESS_WITHIN: Duration = Duration::from_secs(3);

/// How the applier fares.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    /// Connected to the shadow, its position read.
    pub connected: bool,
    /// The one thing that it waits for or works on, in words.
    pub doing: String,
    /// The last error, kept until the next success.
    pub last_error: Option<String>,
    /// Rows applied since the start.
    pub rows_applied: u64,
    /// Entries applied since the start.
    pub entries_applied: u64,
    /// Rows a second, over the last seconds.
    pub rows_per_second: f64,
    /// Rows of suspect tables that did not fit and gave no finding.
    pub tolerated: u64,
    /// Rows that wait to be read again on the primary.
    pub to_heal: u64,
}

/// The task that brings the book's entries to the shadow.
pub struct Applier;

/// A running applier.
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    asked: Arc<Asked>,
    common: Arc<Common>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

/// What the task shows of itself.
#[derive(Debug)]
pub(crate) struct Shared {
    status: Mutex<Status>,
    /// The oldest entry of which a row waits to be healed; 0 until that has been read from the shadow.
    heals_from: watch::Sender<Sequence>,
}

impl Shared {
    fn new() -> Self {
        Self { status: Mutex::default(), heals_from: watch::Sender::new(0) }
    }

    /// Says how many rows wait to be healed, and the oldest entry among them.
    pub(crate) fn heals(&self, rows: u64, from: Sequence) {
        self.update(|s| s.to_heal = rows);
        self.heals_from.send_replace(from);
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Applier {
    /// Starts the task. It runs until [`Handle::stop`]; neither a dead shadow nor a dead primary ends it.
    pub fn spawn(
        config: Config,
        dial: Arc<dyn Dial>,
        book: Arc<OrderBook>,
        log: Arc<dyn Log>,
        store: Arc<Store>,
        suspects: Arc<dyn Suspects>,
    ) -> Handle {
        let shared = Arc::new(Shared::new());
        let (stop, stopped) = watch::channel(false);
        let common = Common::new(config, dial, book, log, store, suspects, Arc::clone(&shared));
        let asked = Arc::clone(&common.asked);
        let common = Arc::new(common);
        let task = tokio::spawn(Crew::new(Arc::clone(&common)).run(stopped));
        Handle { shared, asked, common, stop, task }
    }
}

/// Returns once nearly nothing is left, or when what is left doesn't become less.
async fn catch_up(book: &OrderBook) {
    loop {
        let left = book.lag().entries;
        let caught_up = tokio::time::timeout(LESS_WITHIN, book.wait_caught_up(NEARLY)).await;
        if caught_up.is_ok() || book.lag().entries >= left {
            return;
        }
    }
}

impl Handle {
    /// How it fares.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What clients' own statements took lately on both sides.
    #[must_use]
    pub fn p99(&self) -> pgshadow_compare::P99 {
        self.common.rehearsals.p99()
    }

    /// Returns once no row of an entry below `mark` waits to be healed. To be called once these are applied
    /// ([`OrderBook::wait_applied`]): the shadow then holds them as the primary does.
    pub fn healed(&self, mark: Sequence) -> impl Future<Output = ()> + Send + use<> {
        let mut heals_from = self.shared.heals_from.subscribe();
        async move {
            // an applier that was stopped heals no more
            if heals_from.wait_for(|from| *from >= mark).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Two snapshots that hold the same, opened while no lane applies (for milliseconds, where nothing takes long).
    ///
    /// # Errors
    /// There are none now. While no lane is connected to the shadow it waits.
    pub fn snapshot_pair(&self) -> impl Future<Output = Result<SnapshotPair, PairError>> + Send + use<> {
        self.caught_up(Request::Pair)
    }

    /// These tables are to be loaded: until [`Handle::loaded`] what is written to them isn't applied, over restarts too.
    ///
    /// # Errors
    /// The shadow does not take it; some of them may be marked then.
    pub fn await_load(&self, tables: Vec<QualifiedName>) -> impl Future<Output = Result<(), PairError>> + Send + use<> {
        let done = self.asked.ask(|answer| Request::Await(tables, answer));
        async move { done.await.unwrap_or(Err(PairError::Lost)) }
    }

    /// The primary at one moment, to load from: what it contains is applied then, and what it doesn't contain and reaches `held` waits
    /// until the hold is dropped.
    ///
    /// # Errors
    /// There is none now. While no lane is connected to the shadow it waits.
    pub fn load_snapshot(&self, held: HoldOf) -> impl Future<Output = Result<LoadSnapshot, PairError>> + Send + use<> {
        self.caught_up(|answer| Request::Load(held, answer))
    }

    /// Keeps what reaches these from being applied until the hold is dropped; nothing of it is being applied when this returns.
    ///
    /// # Errors
    /// A lane is at something that takes long.
    pub fn hold_still(&self, held: HoldOf) -> impl Future<Output = Result<Hold, PairError>> + Send + use<> {
        let made = self.asked.ask(|answer| Request::Still(held, answer));
        async move { made.await.unwrap_or(Err(PairError::Lost)) }
    }

    /// These tables hold what their snapshot held: what comes behind it may be applied once its hold is dropped. Lanes look at all
    /// definitions anew. Whatever becomes of the one who asks, the hold lasts until it is noted, and then comes back.
    ///
    /// # Errors
    /// The shadow does not take it.
    pub fn loaded(
        &self,
        tables: Vec<QualifiedName>,
        hold: Option<Hold>,
    ) -> impl Future<Output = Result<Option<Hold>, PairError>> + Send + use<> {
        let done = self.asked.ask(|answer| Request::Loaded(tables, hold, answer));
        async move { done.await.unwrap_or(Err(PairError::Lost)) }
    }

    /// A connection that may write to the shadow: it is ended when this process, or another one, begins anew there.
    ///
    /// # Errors
    /// There is none now.
    pub fn writer(&self) -> impl Future<Output = Result<Connected, PairError>> + Send + use<> {
        let made = self.asked.ask(Request::Writer);
        async move { made.await.unwrap_or(Err(PairError::Lost)) }
    }

    /// Tables that await their load, as far as the shadow was asked.
    #[must_use]
    pub fn awaited(&self) -> Vec<QualifiedName> {
        self.common.awaited.all()
    }

    /// Whether the shadow had no table at all when it was asked, and nothing was loaded since.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.common.awaited.is_bare()
    }

    /// Asks once the lanes, all together, have nearly caught up; they hurry from now on until it is answered.
    fn caught_up<T, F>(&self, request: F) -> impl Future<Output = Result<T, PairError>> + Send + use<T, F>
    where
        T: Send,
        F: FnOnce(oneshot::Sender<Result<T, PairError>>) -> Request + Send,
    {
        let (common, asked) = (Arc::clone(&self.common), Arc::clone(&self.asked));
        async move {
            let hurry = Hurry::new(Arc::clone(&common));
            catch_up(&common.book).await;
            let answer = asked.ask(request).await.unwrap_or(Err(PairError::Lost));
            drop(hurry);
            answer
        }
    }

    /// Has these rows read again on the primary and written as they are there, in order with all else. Returns once they are in the
    /// list of what waits for that, on the shadow too; [`Handle::healed`] waits for them.
    ///
    /// # Errors
    /// The list could not be written.
    pub fn reread(&self, rows: Vec<Reread>) -> impl Future<Output = Result<(), PairError>> + Send + use<> {
        let added = self.asked.ask(|answer| Request::Reread(rows, answer));
        async move { added.await.unwrap_or(Err(PairError::Lost)) }
    }

    /// Ends the task, at once: what was not committed on the shadow is applied at the next start.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order_tests::{book, entry};
    use tokio::time::{Instant, sleep};

    /// Entries in a book; one more, or one less, each 100 ms. How long catching up takes.
    async fn catches_up_after(entries: u64, more: bool) -> Duration {
        let book = Arc::new(book());
        let add = |n: u64| {
            book.begin(n).unwrap();
            book.settle(n, book.barrier(), Some(entry(n, n, &[])));
        };
        (1..=entries).for_each(add);
        let begun = Instant::now();
        let catching = tokio::spawn({
            let book = Arc::clone(&book);
            async move { catch_up(&book).await }
        });
        let mut next = entries;
        while !catching.is_finished() {
            sleep(Duration::from_millis(100)).await;
            if more {
                next += 1;
                add(next);
            } else {
                let taken: Vec<_> = book.take_batch(1, usize::MAX, None).iter().map(|entry| entry.sequence).collect();
                book.applied(&taken);
            }
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_becomes_less_is_waited_for_and_what_doesnt_isnt() {
        let seconds = |duration: Duration| duration.as_secs();
        assert_eq!(seconds(catches_up_after(NEARLY, true).await), 0, "there already");
        assert_eq!(seconds(catches_up_after(NEARLY + 200, false).await), 20, "as long as it takes");
        assert_eq!(seconds(catches_up_after(NEARLY + 200, true).await), LESS_WITHIN.as_secs(), "it never will");
    }
}
