//! A verify: rounds of tables, each round in two snapshots that hold the same.

use crate::Error;
use crate::outcome::TableOutcome;
use crate::pace::{Limits, Pace};
use crate::progress::Progress;
use crate::round::{AllParts, Ended, Round, Told};
use futures::future::BoxFuture;
use pgshadow_apply::{Dial, PairError, SnapshotPair};
use pgshadow_model::QualifiedName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

/// So often a table begins again, because it was redefined, before it is given up.
const ATTEMPTS: u32 = 10;
/// So many rounds in a row may be lost with their connections.
const LOST_MAX: u32 = 20;
/// Pause before two snapshots are asked for again.
const PAIR_AGAIN: Duration = Duration::from_millis(100);
const PAIR_AGAIN_MAX: Duration = Duration::from_secs(10);
/// Pause after connections were lost, doubled each time.
const LOST_AGAIN: Duration = Duration::from_millis(50);
const LOST_AGAIN_MAX: Duration = Duration::from_secs(5);

/// Bytes of differences that are kept of all tables together; what is beyond is counted, and told of, but not shown at the end.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// What to compare.
pub struct Job {
    /// The primary, with pgshadow's own role.
    pub primary: tokio_postgres::Config,
    /// The shadow, likewise.
    pub shadow: tokio_postgres::Config,
    /// Makes the connections.
    pub dial: Arc<dyn Dial>,
    /// Connections to each side.
    pub connections: usize,
    /// How fast both may be read.
    pub limits: Limits,
    /// Only these; empty: all.
    pub only: Vec<QualifiedName>,
    /// Not these.
    pub excluded: Vec<QualifiedName>,
    /// When two snapshots are so old, what is left is compared in other ones.
    pub snapshot_age_max: Option<Duration>,
    /// Tables that needn't be compared.
    pub known: Vec<TableOutcome>,
}

/// Told of each table that is over, with the pair that it, or its first part, was read in.
pub type Done = dyn Fn(&TableOutcome, &PairOutcome) + Send + Sync;

/// Gives two snapshots that hold the same, or says why there are none now.
pub type Pairs = dyn Fn() -> BoxFuture<'static, Result<SnapshotPair, PairError>> + Send + Sync;

/// A pair of snapshots that was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairOutcome {
    /// How long no lane could apply for it.
    pub held: Duration,
    /// What the primary's saw, as `txid_current_snapshot()` writes it.
    pub sees: String,
}

/// How a verify ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Each table.
    pub tables: Vec<TableOutcome>,
    /// Each pair of snapshots.
    pub pairs: Vec<PairOutcome>,
}

/// Compares. Dropped, it ends at once.
///
/// # Errors
/// A server stays away.
pub async fn verify(job: &Job, pair: &Pairs, done: &Done, progress: &Progress) -> Result<Outcome, Error> {
    let pace = Arc::new(Pace::new(job.limits));
    progress.paced(Arc::clone(&pace));
    tokio::select! {
        ended = compare(job, pair, done, &pace, progress) => ended,
        never = pace.govern() => match never {},
    }
}

async fn compare(job: &Job, pair: &Pairs, done: &Done, pace: &Pace, progress: &Progress) -> Result<Outcome, Error> {
    let mut work = Work::new(done, progress);
    let parts = AllParts::default();
    while work.left.as_ref().is_none_or(|left| !left.is_empty()) {
        let pair = work.take(pair).await;
        progress.snapshot(Some(Instant::now()));
        let round = Round::new(job, &pair, work.pairs.len() - 1, &parts, pace, progress);
        let (left, mut lost) = (work.left.clone(), None);
        let ended = round.run(left, &mut |told| lost = work.settle(told).or(lost.take())).await;
        progress.snapshot(None);
        drop(pair);
        match ended {
            // a table that somebody has for himself since a moment ago
            Err(error) if !error.is_lost() && error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) => return Err(error),
            Err(error) => lost = Some(error),
            Ok(()) => {}
        }
        work.end_round(lost).await?;
    }
    Ok(Outcome { tables: work.done.into_values().collect(), pairs: work.pairs })
}

/// What is done and what is left.
struct Work<'a> {
    done_with: &'a Done,
    progress: &'a Progress,
    done: BTreeMap<QualifiedName, TableOutcome>,
    /// Not known before the first round.
    left: Option<BTreeSet<QualifiedName>>,
    /// How often a table began again.
    attempts: BTreeMap<QualifiedName, u32>,
    pairs: Vec<PairOutcome>,
    /// Rounds in a row that lost their connections.
    lost: u32,
    /// Bytes of the differences that are kept to be shown at the end.
    kept_bytes: usize,
}

impl<'a> Work<'a> {
    fn new(done_with: &'a Done, progress: &'a Progress) -> Self {
        let (done, attempts) = (BTreeMap::new(), BTreeMap::new());
        Self { done_with, progress, done, left: None, attempts, pairs: Vec::new(), lost: 0, kept_bytes: 0 }
    }

    async fn take(&mut self, pair: &Pairs) -> SnapshotPair {
        loop {
            let begun = Instant::now();
            match self.named("the applier, which brings the shadow to a snapshot", pair()).await {
                Ok(pair) => {
                    self.pairs.push(PairOutcome { held: pair.held, sees: pair.sees.clone() });
                    return pair;
                }
                // for as long as lanes may have been held in vain they go on at least
                Err(error) => self.wait(&error.to_string(), begun.elapsed().clamp(PAIR_AGAIN, PAIR_AGAIN_MAX)).await,
            }
        }
    }

    /// What became of a table; an error if connections were lost.
    fn settle(&mut self, told: Told) -> Option<Error> {
        match told {
            Told::All(all) => {
                self.progress.update(|shown| shown.tables = all.len() as u64);
                self.left = Some(all);
            }
            Told::Ended(_, Ended::Done(outcome)) => self.finish(*outcome),
            Told::Ended(_, Ended::Known(outcome)) => self.keep(*outcome),
            Told::Ended(name, Ended::Again(why)) => self.again(&name, why),
            Told::Ended(_, Ended::Later) => {}
            Told::Ended(_, Ended::Lost(error)) => return Some(error),
        }
        None
    }

    async fn end_round(&mut self, lost: Option<Error>) -> Result<(), Error> {
        let Some(error) = lost else {
            self.lost = 0;
            return Ok(());
        };
        tracing::info!(%error, "verify: tables begin again");
        self.lost += 1;
        if self.lost > LOST_MAX {
            return Err(error);
        }
        let pause = (LOST_AGAIN * 2_u32.pow(self.lost.min(10))).min(LOST_AGAIN_MAX);
        self.wait(&error.to_string(), pause).await;
        Ok(())
    }

    fn again(&mut self, name: &QualifiedName, why: String) {
        let attempt = self.attempts.entry(name.clone()).or_default();
        *attempt += 1;
        tracing::info!(table = %name, why, attempt, "verify: a table begins again");
        if *attempt >= ATTEMPTS {
            let pair = self.pairs.len().saturating_sub(1);
            self.finish(TableOutcome { pair, ..TableOutcome::not_compared(name, why) });
        }
    }

    fn finish(&mut self, outcome: TableOutcome) {
        if let Some(pair) = self.pairs.get(outcome.pair) {
            (self.done_with)(&outcome, pair);
        }
        self.keep(outcome);
    }

    fn keep(&mut self, mut outcome: TableOutcome) {
        outcome.differences.retain(|difference| {
            self.kept_bytes = self.kept_bytes.saturating_add(difference.bytes());
            self.kept_bytes <= KEPT_BYTES_MAX
        });
        self.progress.update(|shown| {
            shown.tables_done += 1;
            shown.rows += outcome.rows;
            shown.tables_unequal += u64::from(!outcome.is_equal());
        });
        if let Some(left) = &mut self.left {
            left.remove(&outcome.table);
        }
        self.done.insert(outcome.table.clone(), outcome);
    }

    /// Says what it waits for meanwhile.
    async fn named<T>(&self, why: &str, what: impl Future<Output = T>) -> T {
        self.progress.update(|shown| shown.waiting = Some(why.to_owned()));
        let done = what.await;
        self.progress.update(|shown| shown.waiting = None);
        done
    }

    async fn wait(&self, why: &str, pause: Duration) {
        self.named(why, tokio::time::sleep(pause)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Difference;
    use pgshadow_model::Kind;

    #[test]
    fn what_is_shown_of_all_tables_together_is_bounded() {
        let difference = |bytes: usize| Difference {
            key: String::new(),
            key_columns: Vec::new(),
            kind: Kind::MissingRow,
            columns: Vec::new(),
            row: Some("x".repeat(bytes)),
        };
        let progress = Progress::default();
        let mut work = Work::new(&|_, _| (), &progress);
        for (table, shown) in [("a", 3), ("b", 1), ("c", 0)] {
            let name = QualifiedName::new("public", table);
            let differences = vec![difference(KEPT_BYTES_MAX / 4); 3];
            let outcome = TableOutcome::not_compared(&name, String::new());
            work.keep(TableOutcome { missing: 3, differences, ..outcome });
            let kept = &work.done[&name];
            assert_eq!((kept.missing, kept.differences.len()), (3, shown), "{table}");
        }
    }
}
