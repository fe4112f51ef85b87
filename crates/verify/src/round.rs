//! One pair of snapshots at work.

use crate::Error;
use crate::Job;
use crate::expression::{Common, Hashing, PROBE, Pages, SETTINGS};
use crate::locate::{Located, Place};
use crate::outcome::TableOutcome;
use crate::pool::Pool;
use crate::progress::Progress;
use crate::table::{Table, columns_differ, tables};
use crate::totals::Side;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use pgshadow_apply::SnapshotPair;
use pgshadow_model::QualifiedName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
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
    /// To be compared again in new snapshots, and why.
    Again(String),
    Lost(Error),
}

/// One pair of snapshots at work.
pub(crate) struct Round<'a> {
    job: &'a Job,
    progress: &'a Progress,
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
    pub(crate) fn new(job: &'a Job, pair: &SnapshotPair, progress: &'a Progress) -> Self {
        let pool = |whom, config: &tokio_postgres::Config, snapshot: &str| {
            Pool::new(whom, config.clone(), Arc::clone(&job.dial), snapshot, job.connections.max(1), SETTINGS)
        };
        let primary = pool("primary", &job.primary, pair.primary.name());
        Self { job, progress, primary, shadow: pool("shadow", &job.shadow, pair.shadow.name()) }
    }

    /// Compares what is left, or, the first time, finds out what there is.
    pub(crate) async fn run(
        &self,
        left: &mut Option<BTreeSet<QualifiedName>>,
    ) -> Result<Vec<(QualifiedName, Ended)>, Error> {
        tokio::select! {
            ended = self.compare(left) => ended,
            lost = self.primary.give_way() => lost.map(|never| match never {}),
            lost = self.shadow.give_way() => lost.map(|never| match never {}),
        }
    }

    async fn compare(&self, left: &mut Option<BTreeSet<QualifiedName>>) -> Result<Vec<(QualifiedName, Ended)>, Error> {
        let (here, there) = futures::try_join!(tables(&self.primary), tables(&self.shadow))?;
        let servers = futures::try_join!(server(&self.primary), server(&self.shadow))?;
        let common = common(&servers.0, &servers.1);
        let wanted = left.get_or_insert_with(|| {
            let all: BTreeSet<QualifiedName> = if self.job.only.is_empty() {
                here.keys().chain(there.keys()).filter(|name| !self.job.excluded.contains(name)).cloned().collect()
            } else {
                self.job.only.iter().cloned().collect()
            };
            self.progress.update(|shown| shown.tables = all.len() as u64);
            all
        });
        let size = |name: &QualifiedName| {
            let of = |side: &BTreeMap<QualifiedName, Table>| side.get(name).map_or(0, |table| table.size);
            of(&here) + of(&there)
        };
        let mut names: Vec<QualifiedName> = wanted.iter().cloned().collect();
        // the largest first, so that none is left alone at the end
        names.sort_by_key(|name| std::cmp::Reverse(size(name)));
        let to_read: u64 = names.iter().map(size).sum();
        self.progress.update(|shown| shown.bytes = shown.bytes_done + to_read);
        let pages = [servers.0.version, servers.1.version].map(|version| version >= READS_PAGES);
        let mut compared: Vec<BoxFuture<'_, (QualifiedName, Ended)>> = Vec::with_capacity(names.len());
        for name in names {
            let (ours, theirs) = (here.get(&name), there.get(&name));
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
                self.progress.update(|shown| shown.gave_way = self.primary.gave_way() + self.shadow.gave_way());
                (name, ended)
            }));
        }
        Ok(stream::iter(compared).buffer_unordered(TABLES_AT_ONCE).collect().await)
    }

    async fn table(&self, common: Common, pages: [bool; 2], ours: &Table, theirs: &Table) -> Ended {
        let started = Instant::now();
        if let Some(why) = columns_differ(ours, theirs) {
            return Ended::Done(Box::new(TableOutcome::not_compared(&ours.name, why)));
        }
        match self.rows(common, pages, ours, theirs).await {
            Ok(Ok(mut outcome)) => {
                outcome.seconds = started.elapsed().as_secs_f64();
                Ended::Done(Box::new(outcome))
            }
            Ok(Err(why)) => Ended::Again(why),
            Err(error) if error.is_lost() => Ended::Lost(error),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                Ended::Done(Box::new(TableOutcome::not_compared(&ours.name, error.to_string())))
            }
            // a definition may just have changed
            Err(error) => Ended::Again(error.to_string()),
        }
    }

    /// The rows, or why they are to be compared again.
    async fn rows(
        &self,
        common: Common,
        by_pages: [bool; 2],
        ours: &Table,
        theirs: &Table,
    ) -> Result<Result<TableOutcome, String>, Error> {
        let (columns, at_once) = (&ours.columns, self.job.connections.max(1));
        let primary = Side::new(&self.primary, ours, by_pages[0]);
        let shadow = Side::new(&self.shadow, theirs, by_pages[1]);
        let sql = |pages: Option<&Pages>| common.totals(ours, columns, pages);
        let [here, there] = [&primary, &shadow].map(|side| side.totals(at_once, &sql, self.progress));
        let (here, there) = futures::try_join!(here, there)?;
        let located = if here == there {
            Located::default()
        } else {
            let place = Place { common, table: ours, columns, at_once, primary: &primary, shadow: &shadow };
            place.locate(here.rows.max(there.rows)).await?
        };
        for side in [&primary, &shadow] {
            if !side.is_as_it_was().await? {
                let whom = side.pool.whom();
                return Ok(Err(format!("it was truncated, rewritten or dropped on the {whom} meanwhile")));
            }
        }
        let Located { missing, extra, different, differences, not_located } = located;
        if here != there && missing + extra + different + not_located == 0 {
            return Ok(Err("its sums differ, but none of its rows".to_owned()));
        }
        Ok(Ok(TableOutcome {
            table: ours.name.clone(),
            pair: 0,
            rows: u64::try_from(here.rows).unwrap_or(0),
            bytes: u64::try_from(here.bytes).unwrap_or(0),
            hash: here.hash(),
            missing,
            extra,
            different,
            differences,
            not_located,
            not_compared: None,
            seconds: 0.0,
        }))
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
