//! A verify: rounds of tables, each round in two snapshots that hold the same.

use crate::Error;
use crate::outcome::TableOutcome;
use crate::progress::Progress;
use crate::round::{Ended, Round};
use futures::future::BoxFuture;
use pgshadow_apply::{Dial, PairError, SnapshotPair};
use pgshadow_model::QualifiedName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// So often a table begins again, because it was redefined, before it is given up.
const ATTEMPTS: u32 = 10;
/// So many rounds in a row may be lost with their connections.
const LOST_MAX: u32 = 20;
/// Pause before two snapshots are asked for again.
const PAIR_AGAIN: Duration = Duration::from_millis(100);
/// Pause after connections were lost, doubled each time.
const LOST_AGAIN: Duration = Duration::from_millis(50);
const LOST_AGAIN_MAX: Duration = Duration::from_secs(5);

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
    /// Only these; empty: all.
    pub only: Vec<QualifiedName>,
    /// Not these.
    pub excluded: Vec<QualifiedName>,
}

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
pub async fn verify(job: &Job, pair: &Pairs, progress: &Progress) -> Result<Outcome, Error> {
    let mut work = Work::new(progress);
    while work.left.as_ref().is_none_or(|left| !left.is_empty()) {
        let pair = work.take(pair).await;
        progress.snapshot(Some(Instant::now()));
        let ended = Round::new(job, &pair, progress).run(&mut work.left).await;
        progress.snapshot(None);
        drop(pair);
        work.settle(ended).await?;
    }
    Ok(Outcome { tables: work.done.into_values().collect(), pairs: work.pairs })
}

/// What is done and what is left.
struct Work<'a> {
    progress: &'a Progress,
    done: BTreeMap<QualifiedName, TableOutcome>,
    /// Not known before the first round.
    left: Option<BTreeSet<QualifiedName>>,
    /// How often a table began again.
    attempts: BTreeMap<QualifiedName, u32>,
    pairs: Vec<PairOutcome>,
    /// Rounds in a row that lost their connections.
    lost: u32,
}

impl<'a> Work<'a> {
    fn new(progress: &'a Progress) -> Self {
        let (done, attempts) = (BTreeMap::new(), BTreeMap::new());
        Self { progress, done, left: None, attempts, pairs: Vec::new(), lost: 0 }
    }

    async fn take(&mut self, pair: &Pairs) -> SnapshotPair {
        loop {
            match pair().await {
                Ok(pair) => {
                    self.pairs.push(PairOutcome { held: pair.held, sees: pair.sees.clone() });
                    return pair;
                }
                Err(error) => self.wait(&error.to_string(), PAIR_AGAIN).await,
            }
        }
    }

    /// What became of a round's tables.
    async fn settle(&mut self, ended: Result<Vec<(QualifiedName, Ended)>, Error>) -> Result<(), Error> {
        let mut lost = None;
        match ended {
            Err(error) if !error.is_lost() => return Err(error),
            Err(error) => lost = Some(error),
            Ok(ended) => {
                for (name, ended) in ended {
                    match ended {
                        Ended::Done(outcome) => self.finish(*outcome),
                        Ended::Again(why) => self.again(&name, why),
                        Ended::Lost(error) => lost = Some(error),
                    }
                }
            }
        }
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
            self.finish(TableOutcome::not_compared(name, why));
        }
    }

    fn finish(&mut self, mut outcome: TableOutcome) {
        outcome.pair = self.pairs.len().saturating_sub(1);
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

    async fn wait(&self, why: &str, pause: Duration) {
        self.progress.update(|shown| shown.waiting = Some(why.to_owned()));
        tokio::time::sleep(pause).await;
        self.progress.update(|shown| shown.waiting = None);
    }
}
