//! One pair of snapshots at work.

use crate::Error;
use crate::Job;
use crate::expression::{Common, Hashing, PROBE, SETTINGS};
use crate::locate::{Located, Place};
use crate::outcome::TableOutcome;
use crate::pace::Pace;
use crate::parts::{Parts, can_be_cut, cut};
use crate::pool::Pool;
use crate::progress::Progress;
use crate::table::{Table, columns_differ, foreign_keys_differ, tables};
use crate::totals::{Side, Totals};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use pgshadow_apply::SnapshotPair;
use pgshadow_model::QualifiedName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

/// From here pages can be asked for.
const READS_PAGES: u32 = 140_000;
/// From here floats are written with as many digits as they need.
const WRITES_FLOATS: u32 = 120_000;
/// From here there are hashes of 64 bits.
const HASHES: u32 = 110_000;
/// Tables at once.
const TABLES_AT_ONCE: usize = 4;

/// What became of a table in a round.
pub(crate) enum Ended {
    Done(Box<TableOutcome>),
    /// It needn't be.
    Known(Box<TableOutcome>),
    /// To be compared again in new snapshots, and why.
    Again(String),
    /// To be gone on with in new snapshots: these are too old.
    Later,
    Lost(Error),
}

/// What a round tells of.
pub(crate) enum Told {
    /// These are all tables.
    All(BTreeSet<QualifiedName>),
    Ended(QualifiedName, Ended),
}

/// Tables that are compared in parts.
pub(crate) type AllParts = Mutex<BTreeMap<QualifiedName, Parts>>;

/// One pair of snapshots at work.
pub(crate) struct Round<'a> {
    job: &'a Job,
    /// The pair's number, and when it was taken.
    number: usize,
    taken: Instant,
    parts: &'a AllParts,
    /// Tables that were begun, or would have been.
    begun: AtomicUsize,
    pace: &'a Pace,
    progress: &'a Progress,
    counting: tokio::sync::Mutex<()>,
    primary: Pool,
    shadow: Pool,
}

/// What a side is, besides its tables.
struct Server {
    version: u32,
    encoding: String,
    hashes: Option<String>,
}

impl<'a> Round<'a> {
    pub(crate) fn new(
        job: &'a Job,
        pair: &SnapshotPair,
        number: usize,
        parts: &'a AllParts,
        pace: &'a Pace,
        progress: &'a Progress,
    ) -> Self {
        let pool = |whom, config: &tokio_postgres::Config, snapshot: &str| {
            Pool::new(whom, config.clone(), Arc::clone(&job.dial), snapshot, job.connections.max(1), SETTINGS)
        };
        let primary = pool("primary", &job.primary, pair.primary.name());
        let shadow = pool("shadow", &job.shadow, pair.shadow.name());
        let (taken, begun) = (Instant::now(), AtomicUsize::new(0));
        let counting = tokio::sync::Mutex::default();
        Self { job, number, taken, parts, begun, pace, progress, counting, primary, shadow }
    }

    /// Compares what is left, or, the first time, finds out what there is. Tells of each table as it is over.
    pub(crate) async fn run(
        &self,
        left: Option<BTreeSet<QualifiedName>>,
        tell: &mut (dyn FnMut(Told) + Send),
    ) -> Result<(), Error> {
        tokio::select! {
            ended = self.compare(left, tell) => ended,
            lost = self.primary.give_way() => lost.map(|never| match never {}),
            lost = self.shadow.give_way() => lost.map(|never| match never {}),
        }
    }

    async fn compare(
        &self,
        left: Option<BTreeSet<QualifiedName>>,
        tell: &mut (dyn FnMut(Told) + Send),
    ) -> Result<(), Error> {
        let (here, there) = futures::try_join!(tables(&self.primary), tables(&self.shadow))?;
        let servers = futures::try_join!(server(&self.primary), server(&self.shadow))?;
        let common = common(&servers.0, &servers.1);
        let wanted = left.unwrap_or_else(|| {
            let all: BTreeSet<QualifiedName> = if self.job.only.is_empty() {
                here.keys().chain(there.keys()).filter(|name| !self.job.excluded.contains(name)).cloned().collect()
            } else {
                self.job.only.iter().cloned().collect()
            };
            tell(Told::All(all.clone()));
            all
        });
        let size = |name: &QualifiedName| {
            let of = |side: &BTreeMap<QualifiedName, Table>| side.get(name).map_or(0, Table::bytes);
            of(&here) + of(&there)
        };
        let mut names: Vec<QualifiedName> = wanted.into_iter().collect();
        // the largest first, so that none is left alone at the end
        names.sort_by_key(|name| std::cmp::Reverse(size(name)));
        let known = |name: &QualifiedName| self.job.known.iter().find(|known| known.table == *name);
        let to_read: u64 = names.iter().filter(|name| known(name).is_none()).map(size).sum();
        self.progress.update(|shown| shown.bytes = shown.bytes_done + to_read);
        let pages = [servers.0.version, servers.1.version].map(|version| version >= READS_PAGES);
        let mut compared: Vec<BoxFuture<'_, (QualifiedName, Ended)>> = Vec::with_capacity(names.len());
        for name in names {
            let (ours, theirs) = (here.get(&name), there.get(&name));
            if let Some(known) = known(&name) {
                compared.push(Box::pin(std::future::ready((name, Ended::Known(Box::new(known.clone()))))));
                continue;
            }
            compared.push(Box::pin(async move {
                let ended = match (ours, theirs) {
                    (Some(ours), Some(theirs)) => self.table(common, pages, ours, theirs).await,
                    (None, None) => {
                        Ended::Done(Box::new(TableOutcome::not_compared(&name, "there is no such table".to_owned())))
                    }
                    (None, _) => Ended::Done(Box::new(TableOutcome::not_compared(
                        &name,
                        "only the shadow has this table".to_owned(),
                    ))),
                    (_, None) => Ended::Done(Box::new(TableOutcome::not_compared(
                        &name,
                        "the shadow has no such table".to_owned(),
                    ))),
                };
                let ended = match ended {
                    Ended::Done(outcome) if outcome.snapshots <= 1 => {
                        Ended::Done(Box::new(TableOutcome { pair: self.number, ..*outcome }))
                    }
                    ended => ended,
                };
                self.progress.update(|shown| shown.gave_way = self.primary.gave_way() + self.shadow.gave_way());
                (name, ended)
            }));
        }
        let mut compared = stream::iter(compared).buffer_unordered(TABLES_AT_ONCE);
        while let Some((name, ended)) = compared.next().await {
            tell(Told::Ended(name, ended));
        }
        Ok(())
    }

    fn is_old(&self) -> bool {
        self.job.snapshot_age_max.is_some_and(|most| self.taken.elapsed() > most)
    }

    async fn table(&self, common: Common, pages: [bool; 2], ours: &Table, theirs: &Table) -> Ended {
        // each pair serves for one at least
        if self.begun.fetch_add(1, Ordering::SeqCst) > 0 && self.is_old() {
            return Ended::Later;
        }
        if let Some(why) = columns_differ(ours, theirs).or_else(|| foreign_keys_differ(ours, theirs)) {
            return Ended::Done(Box::new(TableOutcome::not_compared(&ours.name, why)));
        }
        let sides = [
            Side::new(&self.primary, ours, pages[0], self.pace),
            // the shadow too: it may share a machine with the primary, and is behind while it is read
            Side::new(&self.shadow, theirs, pages[1], self.pace),
        ];
        match self.rows(common, ours, sides).await {
            Ok(ended) => ended,
            Err(error) if error.is_lost() => Ended::Lost(error),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                Ended::Done(Box::new(TableOutcome::not_compared(&ours.name, error.to_string())))
            }
            // a definition may just have changed
            Err(error) => Ended::Again(error.to_string()),
        }
    }

    fn lock_parts(&self) -> MutexGuard<'_, BTreeMap<QualifiedName, Parts>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows: all of them, or in parts, if there are to be some.
    async fn rows(&self, common: Common, ours: &Table, sides: [Side<'_>; 2]) -> Result<Ended, Error> {
        let is_cut = {
            let mut parts = self.lock_parts();
            if parts.get(&ours.name).is_some_and(|parts| !parts.is_of(ours)) {
                parts.remove(&ours.name);
            }
            parts.contains_key(&ours.name)
        };
        if is_cut {
            return self.in_parts(common, ours, sides).await;
        }
        let started = Instant::now();
        let [primary, shadow] = &sides;
        let whole = self.compare_rows(common, ours, primary, shadow);
        let compared = match self.job.snapshot_age_max.filter(|_| can_be_cut(ours)) {
            Some(most) => tokio::time::timeout_at(self.taken + most, whole).await,
            None => Ok(whole.await),
        };
        let Ok(compared) = compared else { return self.cut(ours).await };
        let (here, located) = match compared? {
            Ok(compared) => compared,
            Err(why) => return Ok(Ended::Again(why)),
        };
        let seconds = started.elapsed().as_secs_f64();
        Ok(Ended::Done(Box::new(TableOutcome::compared(&ours.name, here, located, seconds))))
    }

    /// The snapshots don't last for it: parts of it are compared from now on.
    async fn cut(&self, table: &Table) -> Result<Ended, Error> {
        let shown = self.progress.show();
        let most = self.job.snapshot_age_max.unwrap_or_default();
        // of both sides, in a quarter of the time
        let in_time =
            shown.bytes_done.max(1) as f64 / (shown.elapsed_ms.max(1) as f64 / 1000.0) * most.as_secs_f64() / 4.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "about")]
        let wanted = (2.0 * table.bytes() as f64 / in_time.max(1.0)).ceil() as u64;
        let parts = cut(&self.primary, table, wanted).await?;
        tracing::info!(table = %table.name, parts = parts.count(), "verify: a table is compared in parts: it takes longer than snapshots may be kept");
        self.lock_parts().insert(table.name.clone(), parts);
        Ok(Ended::Later)
    }

    /// Part after part, until the snapshots are too old.
    async fn in_parts(&self, common: Common, ours: &Table, sides: [Side<'_>; 2]) -> Result<Ended, Error> {
        let mut sides = sides;
        let mut done = 0;
        loop {
            let (condition, count) = {
                let mut all = self.lock_parts();
                let Some(parts) = all.get_mut(&ours.name) else { return Ok(Ended::Later) };
                let Some(condition) = parts.next() else {
                    let Some(parts) = all.remove(&ours.name) else { return Ok(Ended::Later) };
                    let mut outcome = TableOutcome::compared(&ours.name, parts.here, parts.located, parts.seconds);
                    (outcome.pair, outcome.snapshots) = (parts.pair.unwrap_or(self.number), parts.snapshots);
                    return Ok(Ended::Done(Box::new(outcome)));
                };
                (condition, parts.count())
            };
            if done > 0 && self.is_old() {
                return Ok(Ended::Later);
            }
            let started = Instant::now();
            sides.iter_mut().for_each(|side| side.part(&condition, count));
            let [primary, shadow] = &sides;
            let (here, located) = match self.compare_rows(common, ours, primary, shadow).await? {
                Ok(compared) => compared,
                Err(why) => {
                    self.lock_parts().remove(&ours.name);
                    return Ok(Ended::Again(why));
                }
            };
            if let Some(parts) = self.lock_parts().get_mut(&ours.name) {
                parts.add(here, located);
                parts.pair.get_or_insert(self.number);
                parts.snapshots += usize::from(done == 0);
                parts.seconds += started.elapsed().as_secs_f64();
            }
            done += 1;
        }
    }

    /// The primary's sums and what differs, or why they are to be compared again.
    async fn compare_rows(
        &self,
        common: Common,
        ours: &Table,
        primary: &Side<'_>,
        shadow: &Side<'_>,
    ) -> Result<Result<(Totals, Located), String>, Error> {
        let (columns, at_once) = (&ours.columns, self.job.connections.max(1));
        let sql = |condition: &str| common.totals(ours, columns, condition);
        let [here, there] = [primary, shadow].map(|side| side.totals(at_once, &sql, self.progress));
        let (here, there) = futures::try_join!(here, there)?;
        let located = if here == there {
            Located::default()
        } else {
            let _shown = self.progress.locates(&ours.name);
            let counting = &self.counting;
            let place = Place { common, table: ours, columns, at_once, primary, shadow, counting };
            place.locate(here.rows.max(there.rows)).await?
        };
        if here != there {
            if located.count() == 0 {
                return Ok(Err("its sums differ, but none of its rows".to_owned()));
            }
            for side in [primary, shadow] {
                if !side.has_its_columns().await? {
                    return Ok(Err(format!("its columns were redefined on the {} meanwhile", side.pool.whom())));
                }
            }
        }
        Ok(Ok((here, located)))
    }
}

async fn server(pool: &Pool) -> Result<Server, Error> {
    let whom = pool.whom();
    let sql =
        "SELECT pg_catalog.current_setting('server_version_num')::int4, pg_catalog.current_setting('server_encoding')";
    let rows = pool.ask(sql, &[]).await?;
    let row = rows.first().ok_or_else(|| Error::Answer { whom, what: "no row".to_owned() })?;
    let failed = Error::of(whom);
    let version = row.try_get::<_, i32>(0).map_err(failed)?.unsigned_abs();
    let encoding = row.try_get(1).map_err(failed)?;
    let hashes = if version >= HASHES {
        let rows = pool.ask(PROBE, &[]).await?;
        rows.first().map(|row| row.try_get(0)).transpose().map_err(failed)?
    } else {
        None
    };
    Ok(Server { version, encoding, hashes })
}

fn common(here: &Server, there: &Server) -> Common {
    let same = here.hashes.is_some() && here.hashes == there.hashes && here.encoding == there.encoding;
    Common {
        hashing: if same { Hashing::Own } else { Hashing::Md5 },
        rounds_floats: here.version.min(there.version) < WRITES_FLOATS,
    }
}
