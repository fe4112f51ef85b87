//! What waits to be healed. It is on the shadow as well, in `pgshadow.heal`.

use crate::Error;
use crate::applier::Shared;
use crate::report::{Report, Reports};
use crate::session::Session;
use crate::target::Target;
use pgshadow_divergence::Origin;
use pgshadow_model::{QualifiedName, Relation, RowImage, Sequence};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Rows that wait, with the findings of each; shared by all lanes.
pub(crate) struct Healing {
    inner: Mutex<Waiting>,
    /// How many there are, for a look without the lock: there hardly ever are any.
    rows: AtomicUsize,
    more: Notify,
}

struct Waiting {
    rows: HashMap<Target, BTreeSet<Origin>>,
    due: Instant,
    put_off: u32,
}

/// Whether other rows than its own decide if a row is refused: `foreign_key_violation`, `unique_violation`,
/// `exclusion_violation`, `restrict_violation` (PostgreSQL manual, appendix A).
pub(crate) fn is_of_several_rows(sqlstate: &str) -> bool {
    matches!(sqlstate, "23503" | "23505" | "23P01" | "23001")
}

impl Default for Healing {
    fn default() -> Self {
        let inner = Waiting { rows: HashMap::new(), due: Instant::now(), put_off: 0 };
        Self { inner: Mutex::new(inner), rows: AtomicUsize::new(0), more: Notify::new() }
    }
}

impl Healing {
    /// Reads what an earlier connection or process left.
    pub(crate) async fn load(&self, session: &Session, stream: &str) -> Result<(), Error> {
        let mut rows: HashMap<Target, BTreeSet<Origin>> = HashMap::new();
        let sql = "SELECT sequence, change, target FROM pgshadow.heal WHERE stream = $1";
        for row in session.client().query(sql, &[&stream]).await? {
            let (sequence, change): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
            let target: Target = postcard::from_bytes(row.try_get(2)?)?;
            let origin = (sequence.cast_unsigned(), change.cast_unsigned());
            rows.entry(target).or_default().insert(origin);
        }
        self.change(|waiting| *waiting = Waiting { rows, due: Instant::now(), put_off: 0 });
        Ok(())
    }

    /// The first number of a change that nothing of this origin has on the shadow.
    pub(crate) async fn next(session: &Session, stream: &str, sequence: Sequence) -> Result<u32, Error> {
        let sql = "SELECT coalesce(max(change) + 1, 0) FROM pgshadow.heal WHERE stream = $1 AND sequence = $2";
        let next: i32 = session.client().query_one(sql, &[&stream, &sequence.cast_signed()]).await?.try_get(0)?;
        Ok(next.cast_unsigned())
    }

    /// Writes what a report wants healed, in the transaction that is open.
    pub(crate) async fn write(session: &Session, stream: &str, report: &Report) -> Result<(), Error> {
        let sql = "INSERT INTO pgshadow.heal (stream, sequence, change, part, target) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT DO NOTHING";
        let (sequence, change) = (report.origin.0.cast_signed(), report.origin.1.cast_signed());
        for (part, target) in (0_i32..).zip(&report.heal) {
            let target = postcard::to_stdvec(target)?;
            session.client().execute(sql, &[&stream, &sequence, &change, &part, &target]).await?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut waiting = self.lock();
        let result = change(&mut waiting);
        self.rows.store(waiting.rows.len(), Ordering::SeqCst);
        result
    }

    pub(crate) fn add(&self, reports: &Reports) {
        if reports.list.iter().all(|report| report.heal.is_empty()) {
            return;
        }
        self.change(|waiting| {
            for report in &reports.list {
                for target in &report.heal {
                    waiting.rows.entry(target.clone()).or_default().insert(report.origin);
                }
            }
        });
        self.more.notify_one();
    }

    /// Returns once rows were added.
    pub(crate) async fn wait_for_more(&self) {
        self.more.notified().await;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn waits_for(&self, image: &RowImage) -> bool {
        if self.is_empty() {
            return false;
        }
        let waiting = self.lock();
        Target::of(image).iter().any(|target| waiting.rows.contains_key(target))
    }

    /// Whether what a constraint says of this row may come from rows that wait: of its own table, of one that it refers to, or of
    /// one that refers to it.
    pub(crate) fn may_explain(&self, image: &RowImage, sqlstate: &str) -> bool {
        self.may_explain_in(&image.relation, sqlstate)
    }

    /// The same of any row of a table.
    pub(crate) fn may_explain_in(&self, relation: &Relation, sqlstate: &str) -> bool {
        if self.is_empty() || !is_of_several_rows(sqlstate) {
            return false;
        }
        let waiting = self.lock();
        let refers = |table: &QualifiedName| relation.foreign_keys.iter().any(|key| key.parent == *table);
        let referred = |target: &Target| target.relation.foreign_keys.iter().any(|k| k.parent == relation.name);
        let mut all = waiting.rows.keys();
        all.any(|t| t.relation.name == relation.name || refers(&t.relation.name) || referred(t))
    }

    /// Tells how many wait, and the oldest entry of which one does.
    pub(crate) fn show(&self, shared: &Shared) {
        let waiting = self.lock();
        let oldest = waiting.rows.values().filter_map(|origins| origins.first()).map(|origin| origin.0).min();
        shared.heals(waiting.rows.len() as u64, oldest.unwrap_or(Sequence::MAX));
    }

    pub(crate) fn is_due(&self) -> bool {
        !self.is_empty() && Instant::now() >= self.lock().due
    }

    pub(crate) fn until_due(&self) -> Duration {
        if self.is_empty() { Duration::MAX } else { self.lock().due.saturating_duration_since(Instant::now()) }
    }

    /// Longer each time: behind a fence that can't be reached the lanes are held in vain.
    pub(crate) fn put_off(&self, retry: Duration) {
        let mut waiting = self.lock();
        waiting.due = Instant::now() + retry * 2_u32.pow(waiting.put_off.min(5));
        waiting.put_off += 1;
    }

    pub(crate) fn goes_well(&self) {
        self.lock().put_off = 0;
    }

    pub(crate) fn some(&self, most: usize) -> Vec<Target> {
        self.lock().rows.keys().take(most).cloned().collect()
    }

    /// The findings of a row that waits.
    pub(crate) fn origins(&self, target: &Target) -> BTreeSet<Origin> {
        self.lock().rows.get(target).cloned().unwrap_or_default()
    }

    /// Takes a target off; its origins that wait for no other one come back.
    pub(crate) fn done(&self, target: &Target) -> Vec<Origin> {
        self.change(|waiting| {
            let origins = waiting.rows.remove(target).unwrap_or_default();
            origins.into_iter().filter(|o| !waiting.rows.values().any(|w| w.contains(o))).collect()
        })
    }
}
