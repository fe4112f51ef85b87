//! What all lanes share.

use crate::applier::Shared;
use crate::asked::Asked;
use crate::entry::Loaded;
use crate::fence::Primary;
use crate::load::Awaited;
use crate::lock::Life;
use crate::own::Rehearsals;
use crate::reach::{Reach, tags};
use crate::trace::Trace;
use crate::waiting::Healing;
use crate::{AppliedPosition, Config, Dial, Error, Log, OrderBook, Suspects};
use pgshadow_compare::ShadowError;
use pgshadow_divergence::{LapseOf, Store};
use pgshadow_model::{Change, QualifiedName, Sequence};
use pgshadow_telemetry::Counter;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::RwLock;
use tokio::time::Instant;

/// Pause between two positions that pass nothing but what wasn't to be applied.
const PASS_EVERY: Duration = Duration::from_secs(1);

/// Refusals remembered; beyond, they are found again.
const REFUSED_COPIES_MAX: usize = 1000;

pub(crate) struct Common {
    pub(crate) config: Config,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) book: Arc<OrderBook>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) store: Arc<Store>,
    pub(crate) suspects: Arc<dyn Suspects>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) healing: Healing,
    pub(crate) primary: Primary,
    /// Tables whose rows are passed over.
    pub(crate) awaited: Awaited,
    /// The present life, while there is one.
    life: Mutex<Option<Life>>,
    /// What others ask for.
    pub(crate) asked: Arc<Asked>,
    /// Held by a lane while it works, and by the one that heals alone.
    pub(crate) quiet: RwLock<()>,
    /// So many wait for all to be applied: statements are left out meanwhile.
    hurried: AtomicUsize,
    /// Rises with each change of a definition on the shadow: what lanes remember of tables is then old.
    pub(crate) definitions: AtomicU64,
    /// Rows of suspect tables that did not fit.
    pub(crate) tolerated: AtomicU64,
    pub(crate) rehearsals: Rehearsals,
    /// COPYs that the shadow refused, by entry and change.
    refused_copies: Mutex<HashMap<(Sequence, u32), ShadowError>>,
    /// The shadow's processes of our connections, of this life or the last one.
    pids: Mutex<Vec<i32>>,
    trace: Mutex<Option<Trace>>,
    progress: Mutex<Progress>,
}

/// Lanes hurry as long as it lives.
pub(crate) struct Hurry(Arc<Common>);

impl Hurry {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        common.hurried.fetch_add(1, Ordering::SeqCst);
        Self(common)
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.hurried.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Progress {
    /// The applied position as it was last on the shadow.
    below: Sequence,
    /// When it was last looked whether it has moved without anything to apply.
    passed_at: Instant,
    entries: u64,
    rows: u64,
    rate_from: (Instant, u64),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Common {
    pub(crate) fn new(
        config: Config,
        dial: Arc<dyn Dial>,
        book: Arc<OrderBook>,
        log: Arc<dyn Log>,
        store: Arc<Store>,
        suspects: Arc<dyn Suspects>,
        shared: Arc<Shared>,
    ) -> Self {
        let now = Instant::now();
        Self {
            config,
            dial,
            book,
            log,
            store,
            suspects,
            shared,
            healing: Healing::default(),
            primary: Primary::default(),
            awaited: Awaited::default(),
            life: Mutex::default(),
            asked: Arc::default(),
            quiet: RwLock::default(),
            hurried: AtomicUsize::new(0),
            definitions: AtomicU64::new(0),
            tolerated: AtomicU64::new(0),
            rehearsals: Rehearsals::default(),
            refused_copies: Mutex::default(),
            pids: Mutex::default(),
            trace: Mutex::default(),
            progress: Mutex::new(Progress { below: 0, passed_at: now, entries: 0, rows: 0, rate_from: (now, 0) }),
        }
    }

    /// Whether somebody waits for all to be applied.
    pub(crate) fn hurries(&self) -> bool {
        self.hurried.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn doing(&self, what: &str) {
        self.shared.update(|s| {
            if s.doing != what {
                what.clone_into(&mut s.doing);
            }
        });
    }

    pub(crate) fn begin_life(&self, life: Life) {
        *lock(&self.life) = Some(life);
    }

    pub(crate) fn life(&self) -> Result<Life, Error> {
        lock(&self.life).ok_or(Error::Closed)
    }

    pub(crate) fn open_trace(&self) -> Result<(), Error> {
        let mut trace = lock(&self.trace);
        if let (Some(path), None) = (&self.config.trace, &*trace) {
            *trace = Some(Trace::open(path)?);
        }
        Ok(())
    }

    /// The processes of the last life's connections, which nobody needs any more.
    pub(crate) fn take_pids(&self) -> Vec<i32> {
        std::mem::take(&mut lock(&self.pids))
    }

    pub(crate) fn remember_pids(&self, pids: impl IntoIterator<Item = i32>) {
        lock(&self.pids).extend(pids);
    }

    /// A row of it, or a statement on it, did not fit, and nothing is said of that.
    pub(crate) fn tolerate(&self, table: &QualifiedName) {
        self.suspects.doubt(Some(table));
        self.tolerated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused_copy(&self, place: (Sequence, u32)) -> Option<ShadowError> {
        lock(&self.refused_copies).get(&place).cloned()
    }

    pub(crate) fn refuse_copy(&self, place: (Sequence, u32), error: ShadowError) {
        let mut refused = lock(&self.refused_copies);
        if refused.len() >= REFUSED_COPIES_MAX {
            refused.clear();
        }
        refused.insert(place, error);
    }

    /// A table that can't be mirrored exactly from here on.
    pub(crate) async fn suspect(&self, table: Option<&QualifiedName>, reason: String) -> Result<(), Error> {
        self.suspects.doubt(table);
        if table.is_some_and(|t| self.suspects.is_suspect(t).is_some()) {
            return Ok(());
        }
        let (suspects, table) = (Arc::clone(&self.suspects), table.cloned());
        Ok(tokio::task::spawn_blocking(move || suspects.suspect(table.as_ref(), &reason)).await??)
    }

    /// Definitions make the certificates of their tables lapse, before they are on the shadow.
    pub(crate) async fn lapse_by(&self, entries: &[Loaded]) -> Result<(), Error> {
        let mut lapsed = Vec::new();
        for entry in entries.iter().filter(|entry| entry.defines()) {
            if entry.vast.is_some() {
                lapsed.push((vec![LapseOf::Every], "definitions in a large transaction".to_owned()));
            }
            let texts = entry.changes.iter().filter_map(|change| match change {
                Change::Ddl(ddl) => Some(&ddl.sql),
                _ => None,
            });
            lapsed
                .extend(texts.map(|sql| (Reach::of(sql).lapses(), format!("definitions have changed: {}", tags(sql)))));
        }
        if lapsed.is_empty() {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        let lapse = move || lapsed.iter().try_for_each(|(of, reason)| store.lapse(of, reason, true));
        Ok(tokio::task::spawn_blocking(lapse).await??)
    }

    /// How many entries were applied since the start.
    pub(crate) fn entries_applied(&self) -> u64 {
        lock(&self.progress).entries
    }

    /// The applied position as it was last on the shadow.
    pub(crate) fn below(&self) -> Sequence {
        lock(&self.progress).below
    }

    /// Where the shadow stands, as it says itself.
    pub(crate) fn resumed_at(&self, below: Sequence) {
        lock(&self.progress).below = below;
    }

    /// A position is on the shadow for good.
    pub(crate) fn passed(&self, below: Sequence) {
        // One after the other, so that the log never hears of an older one after a newer one.
        let mut progress = lock(&self.progress);
        if below > progress.below {
            progress.below = below;
            self.log.applied(below);
        }
    }

    /// The position to write where nothing is to be applied: rolled back transactions still let the log be trimmed. Not for
    /// each of them.
    pub(crate) fn to_pass(&self) -> Option<AppliedPosition> {
        let mut progress = lock(&self.progress);
        if progress.passed_at.elapsed() < PASS_EVERY {
            return None;
        }
        progress.passed_at = Instant::now();
        let below = progress.below;
        drop(progress);
        Some(self.book.applied_position()).filter(|position| position.below > below)
    }

    /// These entries are on the shadow for good, with this position.
    pub(crate) fn applied(&self, entries: &[Loaded], position: &AppliedPosition) -> Result<(), Error> {
        if entries.iter().any(Loaded::defines) {
            self.definitions.fetch_add(1, Ordering::SeqCst);
        }
        // Before other lanes may go on with what waited for these.
        let traced = lock(&self.trace).as_mut().map_or(Ok(()), |trace| trace.write(entries));
        // Before the book's waiters wake: who sees the entries applied also sees what waits to be healed.
        self.healing.show(&self.shared);
        self.count(entries);
        let sequences: Vec<Sequence> = entries.iter().map(|e| e.sequence).collect();
        self.book.applied(&sequences);
        entries.iter().filter(|e| e.vast.is_some()).for_each(|e| self.log.let_go(e.sequence));
        self.passed(position.below);
        traced
    }

    fn count(&self, entries: &[Loaded]) {
        let rows_now = entries.iter().map(Loaded::written).sum::<u64>();
        Counter::TransactionsApplied.add(entries.len() as u64);
        Counter::RowsApplied.add(rows_now);
        // every applied row is compared: by its own RETURNING, or by what the careful way reads
        Counter::RowsCompared.add(rows_now);
        let mut progress = lock(&self.progress);
        progress.entries += entries.len() as u64;
        progress.rows += rows_now;
        let (entries, rows) = (progress.entries, progress.rows);
        let (since, rows_then) = progress.rate_from;
        let seconds = since.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss)] // a rate for people
        let rate = (seconds >= 1.0).then(|| (rows - rows_then) as f64 / seconds);
        if rate.is_some() {
            progress.rate_from = (Instant::now(), rows);
        }
        drop(progress);
        self.shared.update(|s| {
            (s.entries_applied, s.rows_applied) = (entries, rows);
            s.tolerated = self.tolerated.load(Ordering::Relaxed);
            s.last_error = None;
            if let Some(rate) = rate {
                s.rows_per_second = rate;
            }
        });
    }
}
