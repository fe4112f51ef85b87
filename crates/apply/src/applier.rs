use crate::asked::{Asked, Request};
use crate::common::Common;
use crate::crew::Crew;
use crate::pair::{PairError, SnapshotPair};
use crate::reread::Reread;
use crate::{Config, Dial, Log, OrderBook, Suspects};
use pgshadow_divergence::Store;
use pgshadow_model::Sequence;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

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
        let task = tokio::spawn(Crew::new(Arc::new(common)).run(stopped));
        Handle { shared, asked, stop, task }
    }
}

impl Handle {
    /// How it fares.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        let pair = self.asked.ask(Request::Pair);
        async move { pair.await.unwrap_or(Err(PairError::Lost)) }
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
