//! One snapshot at work: its tables are loaded from it, and let go as they are done.

use crate::Error;
use crate::archive::Entry;
use crate::copy::{Copying, READS_PAGES, Range, ranges};
use crate::finish;
use crate::progress::Stage;
use crate::run::{Loaded, SNAPSHOT_AGAIN, Work};
use crate::schema;
use crate::shadow::Step;
use crate::source::{Table, Unit, tables, units};
use crate::tools::Login;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use pgshadow_apply::{Hold, HoldOf, LoadSnapshot};
use pgshadow_model::QualifiedName;
use pgshadow_verify::Pool;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// No row is hidden by a policy; texts mean the same on the other side; nothing is taken from the application but what is read.
const SETTINGS: &str = "
SET application_name = 'pgshadow backfill'; SET DateStyle = 'ISO, MDY'; SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres';
SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET xmloption = 'content'; SET search_path = pg_catalog; SET row_security = off;
SET standard_conforming_strings = on; SET default_transaction_read_only = on; SET statement_timeout = 0; SET lock_timeout = '10s';
SET max_parallel_workers_per_gather = 0; SET synchronize_seqscans = off; SET extra_float_digits = 3;
SELECT pg_catalog.set_config(s.name, w.value, false) FROM pg_catalog.pg_settings s JOIN (VALUES ('jit', 'off'),
    ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'), ('transaction_timeout', '0'))
    AS w (name, value) ON w.name = s.name";

/// What became of a unit.
pub(crate) enum Ended {
    /// It is loaded.
    Done,
    /// To be loaded from another snapshot, and why.
    Again(String),
    /// It wasn't begun: the snapshot had become too old.
    Later,
    /// The same, since something was lost.
    Lost(Error),
    /// It can't be.
    Failed(Error),
    /// What could not be made of the schema, or filled.
    Told(Vec<String>),
    /// Definitions are held until what comes last is made.
    Held(Hold),
}

/// One snapshot at work.
pub(crate) struct Round<'w, 'a> {
    work: &'w mut Work<'a>,
    /// All tables are loaded, or what was left of that: definitions are held as well.
    whole: bool,
}

/// What the units of a round share.
struct Shared<'r> {
    work: &'r Work<'r>,
    primary: Pool,
    entries: Vec<Entry>,
    doubts: u64,
    /// When the snapshot was.
    taken: Instant,
    /// Units that were begun, or would have been.
    begun: AtomicUsize,
    /// Ranges at once, and indexes.
    slots: Semaphore,
    told: Mutex<Vec<String>>,
}

impl<'w, 'a> Round<'w, 'a> {
    pub(crate) fn new(work: &'w mut Work<'a>, whole: bool) -> Self {
        Self { work, whole }
    }

    pub(crate) async fn run(mut self) -> Result<Vec<Ended>, Error> {
        self.work.progress.stage(Stage::Snapshot);
        // of a round before
        self.work.definitions = None;
        let snapshot = self.snapshot().await?;
        let taken = Instant::now();
        self.work.progress.snapshot(Some(taken));
        tracing::info!(
            sees = snapshot.sees,
            held_ms = snapshot.held.as_millis(),
            "backfill: a snapshot of the primary"
        );
        self.work.doubts(snapshot.doubts);
        let (dial, config) = (Arc::clone(&self.work.job.dial), self.work.job.primary.clone());
        let settings = format!("{SETTINGS}; SET client_encoding = '{}'", self.work.encoding.replace('\'', "''"));
        // one more: catalogs are looked at beside
        let connections = self.work.job.connections.max(1) + 1;
        let primary = Pool::new("primary", config, dial, snapshot.primary.name(), connections, &settings);
        let made = match self.work.makes_tables {
            Some(again) => match self.make_tables(&snapshot, again).await {
                Err(Error::Dump(said)) => return Ok(vec![Ended::Again(said)]),
                made => Some(made?),
            },
            None => None,
        };
        let known = tables(&primary).await?;
        if let Some(failed) = made
            && self.begin_made(&primary, &known, failed).await?
        {
            return Ok(vec![Ended::Again("tables came while the schema was made".to_owned())]);
        }
        let whole = self.whole;
        let awaited = self.look(&known, snapshot.doubts).await?;
        let entries = match &self.work.archive {
            Some(archive) if archive.exists() => archive.entries().await?,
            _ => Vec::new(),
        };
        let wanted: BTreeSet<u32> = self.work.left.keys().copied().collect();
        let mirrored = |table: &Table| wanted.contains(&table.oid) || !self.work.job.excluded.contains(&table.name);
        let known: BTreeMap<u32, Table> = known.into_iter().filter(|(_, table)| mirrored(table)).collect();
        let units = units(&known, &wanted);
        for table in units.iter().flat_map(|unit| &unit.tables) {
            self.work.left.insert(table.oid, table.name.clone());
            self.work.progress.table(&table.name, table.size);
        }
        let work: &Work<'_> = self.work;
        // renamed just now, or tied to a wanted table: nothing of it may be applied any more, and then another snapshot is taken
        let more: Vec<QualifiedName> =
            units.iter().flat_map(Unit::names).filter(|name| !awaited.contains(name)).collect();
        if !more.is_empty() {
            drop(snapshot);
            work.begin(&more).await?;
            return Ok(vec![Ended::Again("tables were renamed, or are tied to others".to_owned())]);
        }
        let shared = Shared {
            work,
            primary,
            entries,
            doubts: snapshot.doubts,
            taken,
            begun: AtomicUsize::new(0),
            slots: Semaphore::new(work.job.connections.max(1)),
            told: Mutex::default(),
        };
        tokio::select! {
            ended = shared.load(snapshot, units, whole) => ended,
            lost = shared.primary.give_way() => lost.map(|never| match never {}).map_err(Error::from),
        }
    }

    /// All that is loaded from it is held from it on: also what an earlier load has left awaited, which is loaded with the rest.
    async fn snapshot(&self) -> Result<LoadSnapshot, Error> {
        let awaited = self.work.shadow.awaited().await?;
        loop {
            let held = if self.work.makes_tables.is_some() {
                HoldOf::Everything
            } else {
                let tables: BTreeSet<QualifiedName> = self.work.left.values().chain(&awaited).cloned().collect();
                HoldOf::Tables { tables: tables.into_iter().collect(), relatives: true }
            };
            let asked = self.work.handover.snapshot(held);
            match self.work.progress.named("the applier, which brings the shadow to a snapshot", asked).await {
                Ok(snapshot) => return Ok(snapshot),
                Err(error) => self.work.wait(&error.to_string(), SNAPSHOT_AGAIN).await,
            }
        }
    }

    /// The shadow's tables as the snapshot shows the primary's. Gives what could not be made.
    async fn make_tables(&mut self, snapshot: &LoadSnapshot, again: bool) -> Result<Vec<String>, Error> {
        let Some(archive) = self.work.archive.clone() else { return Ok(Vec::new()) };
        self.work.progress.stage(Stage::Schema);
        tracing::info!(again, "backfill: the shadow's tables are made");
        archive.dump(&Login::of(&self.work.job.primary), snapshot.primary.name()).await?;
        // whatever becomes of it, some may be there the next time
        self.work.makes_tables = Some(true);
        archive.restore_tables(&self.work.shadow, again).await
    }

    /// All that was made is awaited before it is noted that it was made; also tables that came when it was begun already: lanes may have filled
    /// what was made anew, and is empty, since. Nothing is applied meanwhile. `failed`: what could not be made. Gives whether there are such:
    /// they are doubted since the snapshot, so that another one is needed.
    async fn begin_made(
        &mut self,
        primary: &Pool,
        known: &BTreeMap<u32, Table>,
        failed: Vec<String>,
    ) -> Result<bool, Error> {
        let work = &mut *self.work;
        let wanted = known.values().filter(|table| !work.job.excluded.contains(&table.name));
        work.left = wanted.map(|table| (table.oid, table.name.clone())).collect();
        let turn = primary.turn().await?;
        let here = schema::definitions(turn.client()).await;
        let here = turn.end(here).await?.ok_or(Error::Busy)?;
        work.is_fit(&here, &failed).await?;
        work.outcome.failed.extend(failed);
        let awaited = work.shadow.awaited().await?;
        let names: Vec<QualifiedName> = work.left.values().filter(|name| !awaited.contains(*name)).cloned().collect();
        work.begin(&names).await?;
        work.shadow.know_awaited().await?;
        work.shadow.set_step(Step::Load, true).await?;
        work.makes_tables = None;
        Ok(!names.is_empty())
    }

    /// Brings what is left up to what the snapshot shows: tables by their present names, and all that has a name that is awaited, since what
    /// was written to it was passed over. What is gone is awaited no more. Gives the names that are.
    async fn look(&mut self, known: &BTreeMap<u32, Table>, doubts: u64) -> Result<BTreeSet<QualifiedName>, Error> {
        let work = &mut *self.work;
        let mut awaited = work.shadow.awaited().await?;
        let progress = work.progress;
        work.left.retain(|oid, name| match known.get(oid) {
            Some(table) if table.name == *name => true,
            now => {
                progress.forget(name);
                now.is_some()
            }
        });
        for table in known.values() {
            if awaited.contains(&table.name) || work.left.contains_key(&table.oid) {
                work.left.insert(table.oid, table.name.clone());
            }
        }
        // renamed while nobody kept its OID on the primary: the shadow has followed
        for now in work.shadow.renamed().await? {
            if let Some(table) = known.values().find(|table| table.name == now) {
                work.left.insert(table.oid, now);
            }
        }
        let names: BTreeSet<&QualifiedName> = known.values().map(|table| &table.name).collect();
        let gone: Vec<QualifiedName> = awaited.iter().filter(|name| !names.contains(name)).cloned().collect();
        // not while one that may be it by another name isn't awaited yet: its old name is what tells of it until then
        let all_awaited = work.left.values().all(|name| awaited.contains(name));
        if !gone.is_empty() && all_awaited {
            work.handover.loaded(gone.clone(), None).await?;
            work.handover.lift(&gone, doubts, false).map_err(Error::Store)?;
            awaited.retain(|name| !gone.contains(name));
        }
        Ok(awaited)
    }
}

impl Shared<'_> {
    async fn load(&self, snapshot: LoadSnapshot, units: Vec<Unit>, whole: bool) -> Result<Vec<Ended>, Error> {
        self.work.progress.stage(Stage::Loading);
        let mut held: Vec<Option<Hold>> = Vec::with_capacity(units.len());
        for unit in &units {
            let relatives = unit.tied || self.refers(unit).await?;
            held.push(Some(self.work.handover.hold(HoldOf::Tables { tables: unit.names(), relatives })));
        }
        // what is made last would be missed by definitions that come before it
        let definitions = (whole && self.work.archive.is_some()).then(|| self.work.handover.hold(HoldOf::Definitions));
        let LoadSnapshot { primary: exported, hold, .. } = snapshot;
        drop(hold);
        if whole && !self.work.has_objects.load(Ordering::SeqCst) {
            self.large_objects().await?;
            self.work.has_objects.store(true, Ordering::SeqCst);
        }
        let loads: Vec<BoxFuture<'_, Ended>> = units
            .iter()
            .zip(held)
            .map(|(unit, hold)| -> BoxFuture<'_, Ended> { Box::pin(self.unit(unit, hold)) })
            .collect();
        // one more than are copied: while one has its indexes made; so that tables are done one after the other, and stay done
        let at_once = self.work.job.connections.max(1) + 1;
        let mut ended: Vec<Ended> = stream::iter(loads).buffer_unordered(at_once).collect().await;
        drop(exported);
        ended.extend(definitions.map(Ended::Held));
        ended.push(Ended::Told(std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))));
        Ok(ended)
    }

    /// Whether the shadow's tables refer to others there, or others to them.
    async fn refers(&self, unit: &Unit) -> Result<bool, Error> {
        let names: Vec<String> = unit.tables.iter().map(|table| table.name.sql()).collect();
        let writer = self.work.shadow.writer().await?;
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.contype = 'f' AND (c.conrelid IN (SELECT pg_catalog.to_regclass(n)
            FROM unnest($1::text[]) AS t (n)) OR c.confrelid IN (SELECT pg_catalog.to_regclass(n) FROM unnest($1::text[]) AS t (n))))";
        let row = writer.client.query_one(sql, &[&names]).await.map_err(Error::shadow)?;
        let refers = row.try_get(0).map_err(Error::shadow)?;
        self.work.shadow.give_back(writer);
        Ok(refers)
    }

    async fn large_objects(&self) -> Result<(), Error> {
        let failed = finish::large_objects(&self.primary, &self.work.shadow, &self.work.pace).await?;
        if failed.is_empty() {
            let table = QualifiedName::new("pg_catalog", "pg_largeobject");
            self.work.handover.lift(&[table], self.doubts, false).map_err(Error::Store)?;
        }
        self.told.lock().unwrap_or_else(PoisonError::into_inner).extend(failed);
        Ok(())
    }

    async fn unit(&self, unit: &Unit, hold: Option<Hold>) -> Ended {
        let is_old = self.work.job.snapshot_age_max.is_some_and(|most| self.taken.elapsed() > most);
        // each snapshot serves for one at least
        if self.begun.fetch_add(1, Ordering::SeqCst) > 0 && is_old {
            return Ended::Later;
        }
        match self.load_unit(unit).await {
            Ok(()) => self.let_go(unit, hold).await,
            Err(error) if error.is_lost() || error.is_locked() => Ended::Lost(error),
            // a definition may just have changed
            Err(error) if error.may_be_redefined() => Ended::Again(error.to_string()),
            Err(error) => {
                let names: Vec<String> = unit.names().iter().map(ToString::to_string).collect();
                Ended::Failed(Error::Schema(format!("{}: {error}", names.join(", "))))
            }
        }
    }

    /// Rows and indexes of a unit.
    async fn load_unit(&self, unit: &Unit) -> Result<(), Error> {
        let own: Vec<&Table> = unit.tables.iter().filter(|table| !table.partitioned).collect();
        let by_pages = self.work.version >= READS_PAGES;
        {
            let _slot = self.slots.acquire().await;
            unit.tables.iter().for_each(|table| self.work.progress.restart(&table.name));
            self.work.shadow.empty(unit).await?;
        }
        let copying = Copying {
            primary: &self.primary,
            shadow: &self.work.shadow,
            pace: &self.work.pace,
            progress: self.work.progress,
        };
        let mut parts: Vec<BoxFuture<'_, Result<(), Error>>> = Vec::new();
        for table in &own {
            for range in ranges(table, by_pages) {
                parts.push(Box::pin(self.range(&copying, table, range)));
            }
        }
        let at_once = self.work.job.connections.max(1);
        let mut copied = stream::iter(parts).buffer_unordered(at_once);
        while let Some(done) = copied.next().await {
            done?;
        }
        self.indexes(unit).await
    }

    async fn range(&self, copying: &Copying<'_>, table: &Table, range: Range) -> Result<(), Error> {
        let _slot = self.slots.acquire().await;
        self.work.progress.is_at(&table.name, "copying");
        copying.range(table, &range).await
    }

    async fn indexes(&self, unit: &Unit) -> Result<(), Error> {
        let _slot = self.slots.acquire().await;
        unit.tables.iter().for_each(|table| self.work.progress.is_at(&table.name, "indexes"));
        if let Some(archive) = &self.work.archive {
            let these = unit.belongings(&self.primary).await?;
            let entries: Vec<Entry> = self.entries.iter().filter(|entry| entry.is_of(&these)).cloned().collect();
            let failed = archive.restore(&self.work.shadow, &entries).await?;
            self.work.shadow.note_restored(&entries).await?;
            self.told.lock().unwrap_or_else(PoisonError::into_inner).extend(failed);
        }
        let analyze: String = unit
            .tables
            .iter()
            .filter(|table| !table.partitioned)
            .map(|table| format!("ANALYZE {};", table.name.sql()))
            .collect();
        match self.work.shadow.execute(&analyze).await {
            Err(error) if !error.is_lost() => {
                self.told.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
                Ok(())
            }
            done => done,
        }
    }

    /// A unit that is loaded: what comes behind the snapshot may be applied.
    async fn let_go(&self, unit: &Unit, hold: Option<Hold>) -> Ended {
        let names = unit.names();
        let noted = self.work.handover.loaded(names.clone(), hold);
        let _hold = match self.work.progress.named("the applier, which notes that a table is loaded", noted).await {
            Ok(hold) => hold,
            Err(error) => return Ended::Lost(error.into()),
        };
        let stay = match self.work.handover.lift(&names, self.doubts, false) {
            Ok(stay) => stay,
            Err(error) => return Ended::Failed(Error::Store(error)),
        };
        for name in &names {
            tracing::info!(table = %name, "backfill: a table is loaded");
            self.work.progress.done(name);
        }
        let done = unit.tables.iter().map(|table| {
            let suspect = stay.contains(&table.name);
            (table.oid, Loaded { table: table.name.clone(), suspect })
        });
        self.work.done.lock().unwrap_or_else(PoisonError::into_inner).extend(done);
        Ended::Done
    }
}
