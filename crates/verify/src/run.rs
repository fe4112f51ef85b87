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
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

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

/// How a verify ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Each table.
    pub tables: Vec<TableOutcome>,
    /// How long no lane could apply, for each pair of snapshots.
    pub held: Vec<Duration>,
    /// How long it took.
    pub took: Duration,
}

/// Compares. Dropped, it ends at once.
///
/// # Errors
/// A server stays away.
pub async fn verify(job: &Job, pair: &Pairs, progress: &Progress) -> Result<Outcome, Error> {
    let started = Instant::now();
    let (mut done, mut held) = (BTreeMap::new(), Vec::new());
    let (mut left, mut attempts): (Option<BTreeSet<QualifiedName>>, BTreeMap<QualifiedName, u32>) =
        (None, BTreeMap::new());
    let mut lost = 0;
    while left.as_ref().is_none_or(|left| !left.is_empty()) {
        let pair = take(pair, progress).await;
        held.push(pair.held);
        progress.snapshot(Some(Instant::now()));
        let round = Round::new(job, &pair, progress);
        let ended = round.run(&mut left).await;
        progress.snapshot(None);
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_lost() && lost < LOST_MAX => {
                lost += 1;
                pause(progress, &error.to_string(), lost).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut worked = false;
        for (name, ended) in ended {
            let why = match ended {
                Ended::Done(outcome) => {
                    worked = true;
                    finish(&mut done, &mut left, progress, *outcome);
                    continue;
                }
                Ended::Lost(error) if lost >= LOST_MAX => return Err(error),
                Ended::Lost(error) => {
                    tracing::info!(table = %name, %error, "verify: a table begins again");
                    continue;
                }
                Ended::Again(why) => why,
            };
            let attempt = attempts.entry(name.clone()).or_default();
            *attempt += 1;
            tracing::info!(table = %name, why, attempt, "verify: a table begins again");
            if *attempt >= ATTEMPTS {
                finish(&mut done, &mut left, progress, TableOutcome::not_compared(&name, why));
            }
        }
        lost = if worked { 0 } else { lost + 1 };
        if !worked && left.as_ref().is_some_and(|left| !left.is_empty()) {
            pause(progress, "tables are to be compared again", lost).await;
        }
    }
    Ok(Outcome { tables: done.into_values().collect(), held, took: started.elapsed() })
}

async fn take(pair: &Pairs, progress: &Progress) -> SnapshotPair {
    progress.update(|shown| shown.waiting = Some("two snapshots".to_owned()));
    let mut attempt = 0;
    loop {
        match pair().await {
            Ok(pair) => {
                progress.update(|shown| shown.waiting = None);
                return pair;
            }
            Err(error) => pause(progress, &error.to_string(), attempt).await,
        }
        attempt += 1;
    }
}

async fn pause(progress: &Progress, why: &str, attempt: u32) {
    progress.update(|shown| shown.waiting = Some(why.to_owned()));
    tokio::time::sleep((PAUSE_MIN * 2_u32.pow(attempt.min(10))).min(PAUSE_MAX)).await;
    progress.update(|shown| shown.waiting = None);
}

fn finish(
    done: &mut BTreeMap<QualifiedName, TableOutcome>,
    left: &mut Option<BTreeSet<QualifiedName>>,
    progress: &Progress,
    outcome: TableOutcome,
) {
    progress.update(|shown| {
        shown.tables_done += 1;
        shown.rows += outcome.rows;
        shown.tables_unequal += u64::from(!outcome.is_equal());
    });
    if let Some(left) = left {
        left.remove(&outcome.table);
    }
    done.insert(outcome.table.clone(), outcome);
}
