//! A backfill: what is to be loaded, in rounds, each out of one snapshot; then what comes last.

use crate::Error;
use crate::archive::{Archive, Entry};
use crate::finish;
use crate::handover::Handover;
use crate::progress::{Progress, Stage};
use crate::round::{Ended, Round};
use crate::schema::{self, Definitions, Difference};
use crate::shadow::{Shadow, Step};
use crate::source::NAMES;
use crate::tools::Tools;
use pgshadow_apply::{Connected, Dial, Hold, HoldOf, connect};
use pgshadow_model::QualifiedName;
use pgshadow_verify::{Limits, Pace};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// So many rounds may end with tables that begin again, because they were redefined, before the backfill gives up.
const ATTEMPTS: u32 = 20;
/// Pause before a snapshot is asked for again.
pub(crate) const SNAPSHOT_AGAIN: Duration = Duration::from_millis(100);
/// Pause after connections were lost.
const LOST_AGAIN: Duration = Duration::from_secs(1);
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Things named of what the two schemas have otherwise.
const TOLD_MAX: usize = 20;

/// What to load.
pub struct Job {
    /// The primary, with pgshadow's own role.
    pub primary: tokio_postgres::Config,
    /// The shadow, likewise.
    pub shadow: tokio_postgres::Config,
    /// Makes the connections.
    pub dial: Arc<dyn Dial>,
    /// Ranges at once, and indexes.
    pub connections: usize,
    /// Only these; empty: all, or what an earlier backfill has left.
    pub only: Vec<QualifiedName>,
    /// Not these.
    pub excluded: Vec<QualifiedName>,
    /// Make the shadow's schema from the primary's.
    pub create_schema: bool,
    /// Load everything, though it is loaded already.
    pub again: bool,
    /// How fast the primary may be read.
    pub limits: Limits,
    /// Tables that aren't begun when the snapshot is so old are loaded from another one.
    pub snapshot_age_max: Option<Duration>,
    /// Where `pg_dump` and `pg_restore` are; else they are looked for.
    pub bindir: Option<PathBuf>,
    /// Where the schema's archive is kept meanwhile.
    pub directory: PathBuf,
}

/// A table that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The table.
    pub table: QualifiedName,
    /// Why it is suspect all the same: something was done since the snapshot that isn't known.
    pub suspect: bool,
}

/// How a backfill ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Each table.
    pub tables: Vec<Loaded>,
    /// What of the schema could not be made, or filled.
    pub failed: Vec<String>,
    /// What is defined otherwise in the end.
    pub differences: Vec<Difference>,
}

/// A backfill at work.
pub(crate) struct Work<'a> {
    pub(crate) job: &'a Job,
    /// Only these tables; empty: all.
    only: Vec<QualifiedName>,
    /// The schema was half made, and is taken as it is.
    by_hand: bool,
    pub(crate) handover: &'a dyn Handover,
    pub(crate) progress: &'a Progress,
    pub(crate) pace: Arc<Pace>,
    pub(crate) shadow: Shadow<'a>,
    /// Where the target's schema is made.
    pub(crate) archive: Option<Archive>,
    /// The primary's major version, as `server_version_num` has it.
    pub(crate) version: u32,
    pub(crate) encoding: String,
    pub(crate) outcome: Outcome,
    /// The shadow's tables are to be made first; true: that was begun before.
    pub(crate) makes_tables: Option<bool>,
    /// Tables that are done, by OID on the primary.
    pub(crate) done: Mutex<Vec<(u32, Loaded)>>,
    /// Tables to load, by OID on the primary, with the names that they had when they were looked at last.
    pub(crate) left: BTreeMap<u32, QualifiedName>,
    /// Large objects are there.
    pub(crate) has_objects: AtomicBool,
    /// What comes last isn't made yet.
    pub(crate) definitions: Option<Hold>,
    attempts: u32,
    /// Some tables were loaded by an earlier one, out of other snapshots.
    resumed: bool,
    /// The lowest mark of doubts of a snapshot.
    doubts: Option<u64>,
}

/// Loads. Dropped, it ends at once; what is done stays done.
///
/// # Errors
/// A server stays away, or it can't be done at all.
pub async fn backfill(job: &Job, handover: &dyn Handover, progress: &Progress) -> Result<Outcome, Error> {
    let primary = connect_primary(job).await?;
    let (version, encoding) = of_server(&primary).await?;
    let shadow = Shadow::new(handover, progress, &encoding);
    shadow.prepare().await?;
    let noted = shadow.step().await?;
    let half_made = matches!(noted, Some((step, true)) if step != Step::Done) && !job.create_schema;
    let by_hand = half_made && job.again && matches!(noted, Some((Step::Schema, _)));
    if half_made && !by_hand && (job.again || !job.only.is_empty()) {
        let text = "a backfill that makes the target's schema has begun and isn't over: keys, indexes and triggers are still to be made. Go on with it by \
                    `pgshadow backfill`; or drop what it has made and begin again with --create-schema --again";
        return Err(Error::Schema(text.to_owned()));
    }
    let step = if job.only.is_empty() { noted } else { None };
    let resumed = step.filter(|(step, _)| *step != Step::Done).filter(|_| !job.again);
    let is_done = step.is_some() && resumed.is_none() && !job.again;
    // what a load of single tables has left
    let mut only = job.only.clone();
    if is_done {
        only.extend(shadow.awaited().await?);
    }
    if is_done && only.is_empty() {
        let text = "all tables are loaded already: name those to load again by --table, or say --again for all of them";
        return Err(Error::Schema(text.to_owned()));
    }
    let makes_schema = resumed.map_or(job.create_schema, |(_, makes)| makes);
    let archive = match makes_schema {
        true => {
            let target = of_shadow(&shadow).await?;
            let tools = Tools::find(job.bindir.as_deref(), version.max(target) / 10_000).await?;
            Some(Archive::at(tools, &job.directory))
        }
        false => None,
    };
    let makes_tables = archive.is_some() && matches!(resumed, None | Some((Step::Schema, _)));
    let pace = Arc::new(Pace::new(job.limits));
    progress.paced(Arc::clone(&pace));
    let work = Work {
        makes_tables: makes_tables.then_some(resumed.is_some()),
        done: Mutex::default(),
        job,
        only,
        by_hand,
        handover,
        progress,
        pace: Arc::clone(&pace),
        shadow,
        archive,
        version,
        encoding,
        outcome: Outcome::default(),
        left: BTreeMap::new(),
        has_objects: AtomicBool::new(false),
        definitions: None,
        attempts: 0,
        resumed: resumed.is_some(),
        doubts: None,
    };
    tokio::select! {
        ended = work.run(&primary, resumed.map(|(step, _)| step)) => ended,
        never = pace.govern() => match never {},
    }
}

async fn connect_primary(job: &Job) -> Result<Connected, Error> {
    let connected = connect(&*job.dial, &job.primary, CONNECT_MAX, "primary").await;
    let connected = connected.map_err(pgshadow_verify::Error::from)?;
    let settings = "SET application_name = 'pgshadow backfill'; SET search_path = pg_catalog; SET default_transaction_read_only = on";
    connected.client.batch_execute(settings).await.map_err(Error::primary)?;
    Ok(connected)
}

async fn of_server(connected: &Connected) -> Result<(u32, String), Error> {
    let sql =
        "SELECT pg_catalog.current_setting('server_version_num')::int4, pg_catalog.current_setting('server_encoding')";
    let row = connected.client.query_one(sql, &[]).await.map_err(Error::primary)?;
    let version: i32 = row.try_get(0).map_err(Error::primary)?;
    Ok((version.unsigned_abs(), row.try_get(1).map_err(Error::primary)?))
}

async fn of_shadow(shadow: &Shadow<'_>) -> Result<u32, Error> {
    let writer = shadow.writer().await?;
    let sql = "SELECT pg_catalog.current_setting('server_version_num')::int4";
    let version: i32 = writer.client.query_one(sql, &[]).await.and_then(|row| row.try_get(0)).map_err(Error::shadow)?;
    shadow.give_back(writer);
    Ok(version.unsigned_abs())
}

impl Work<'_> {
    async fn run(mut self, primary: &Connected, resumed: Option<Step>) -> Result<Outcome, Error> {
        let whole = self.only.is_empty();
        self.choose(primary, resumed.is_some()).await?;
        self.check(primary, resumed.is_some()).await?;
        let names: Vec<QualifiedName> = self.left.values().cloned().collect();
        self.begin(&names).await?;
        // once all are awaited: what is gone on with is what is awaited still
        if whole && resumed.is_none() {
            let first = if self.makes_tables.is_some() { Step::Schema } else { Step::Load };
            self.shadow.set_step(first, self.archive.is_some()).await?;
        }
        // once at least: of what is awaited something may be gone
        let mut looks = true;
        while std::mem::take(&mut looks) || !self.left.is_empty() || self.makes_tables.is_some() {
            let round = Round::new(&mut self, whole).run().await;
            self.progress.snapshot(None);
            self.settle(round).await?;
        }
        let told = self.outcome.failed.len();
        while whole && let Err(error) = self.finish().await {
            if !error.is_lost() {
                return Err(error);
            }
            tracing::info!(%error, "backfill: what comes last begins again");
            self.outcome.failed.truncate(told);
            self.wait(&error.to_string(), LOST_AGAIN).await;
        }
        self.outcome.tables.sort_by(|one, two| one.table.cmp(&two.table));
        Ok(self.outcome)
    }

    /// Which tables are to be loaded.
    async fn choose(&mut self, primary: &Connected, resumed: bool) -> Result<(), Error> {
        let rows = primary.client.query(NAMES, &[]).await.map_err(Error::primary)?;
        let mut all: BTreeMap<u32, QualifiedName> = BTreeMap::new();
        for row in rows {
            let read = || -> Result<(u32, QualifiedName), tokio_postgres::Error> {
                Ok((row.try_get(2)?, QualifiedName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?)))
            };
            let (oid, name) = read().map_err(Error::primary)?;
            all.insert(oid, name);
        }
        if let Some(unknown) = self.job.only.iter().find(|name| !all.values().any(|known| known == *name)) {
            return Err(Error::Schema(format!("the primary has no table {unknown}")));
        }
        let awaited = self.shadow.awaited().await?;
        let wanted = |name: &QualifiedName| {
            if !self.only.is_empty() {
                self.only.contains(name)
            } else if resumed {
                awaited.contains(name)
            } else {
                !self.job.excluded.contains(name)
            }
        };
        self.left = all.into_iter().filter(|(_, name)| wanted(name)).collect();
        Ok(())
    }

    /// Whether both schemas allow it.
    async fn check(&self, primary: &Connected, resumed: bool) -> Result<(), Error> {
        self.progress.stage(Stage::Looking);
        let differences = self.differences(primary).await?;
        let wanted: BTreeSet<String> = self.left.values().map(ToString::to_string).collect();
        if self.makes_tables.is_some() {
            let there: Vec<&String> = wanted
                .iter()
                .filter(|name| !differences.iter().any(|d| d.kind == "table" && d.name == **name))
                .collect();
            return match there.as_slice() {
                [first, ..] if !resumed => Err(Error::Schema(format!(
                    "the target has tables already ({first}, {} in all): leave out --create-schema, or drop them",
                    there.len()
                ))),
                _ => Ok(()),
            };
        }
        self.hindered(&differences, "")?;
        if let (true, Some(first)) = (self.by_hand, differences.first()) {
            return Err(Error::Schema(format!(
                "a backfill has begun to make the target's schema, and what it has made, or somebody since, isn't all of the source's: {first}, {} differences in \
                 all. Make it whole; or go on with it by `pgshadow backfill`; or drop what it has made and begin again with --create-schema --again",
                differences.len()
            )));
        }
        let names: Vec<String> = self.left.values().map(QualifiedName::sql).collect();
        let Some(table) = self.shadow.would_act(&names).await? else { return Ok(()) };
        Err(Error::Schema(format!(
            "the target's table {table} has triggers or foreign keys, and pgshadow's role may not keep them from acting on what is loaded. To go on, \
             disable them for the load where they are ENABLE ALWAYS or REPLICA; else have a superuser run on the target: GRANT SET ON PARAMETER \
             session_replication_role TO <pgshadow's role> (before 15 only a superuser may set it: drop them for the load)"
        )))
    }

    /// Whether rows can be loaded into the tables that were just made; `failed`: what could not be.
    pub(crate) async fn is_fit(&self, primary: &Definitions, failed: &[String]) -> Result<(), Error> {
        let writer = self.shadow.writer().await?;
        let there = schema::definitions(&writer.client).await.map_err(Error::shadow)?;
        self.shadow.give_back(writer);
        let said: String = failed.iter().take(TOLD_MAX).map(|text| format!("; it said: {text}")).collect();
        self.hindered(&schema::differences(primary, &there), &said)
    }

    fn hindered(&self, differences: &[Difference], said: &str) -> Result<(), Error> {
        let wanted: BTreeSet<String> = self.left.values().map(ToString::to_string).collect();
        let hinders = schema::hinders(differences, |table| wanted.contains(table));
        if hinders.is_empty() {
            return Ok(());
        }
        let missing = hinders.iter().filter(|text| text.starts_with("table ")).count();
        let remedy = if missing == wanted.len() && self.archive.is_none() {
            "make it by `pgshadow backfill --create-schema`"
        } else {
            "change the target's tables to be like the source's, or leave them out ([mirror] exclude)"
        };
        let more = hinders.len().saturating_sub(TOLD_MAX);
        let told: Vec<String> = hinders.into_iter().take(TOLD_MAX).collect();
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(Error::Schema(format!(
            "the target's schema doesn't allow it: {}{more}{said}. To go on, {remedy}",
            told.join("; ")
        )))
    }

    async fn differences(&self, primary: &Connected) -> Result<Vec<Difference>, Error> {
        let here = schema::definitions(&primary.client).await.map_err(Error::primary)?;
        let writer = self.shadow.writer().await?;
        let there = schema::definitions(&writer.client).await.map_err(Error::shadow)?;
        self.shadow.give_back(writer);
        Ok(schema::differences(&here, &there))
    }

    /// These are passed over from now on, and suspect.
    pub(crate) async fn begin(&self, names: &[QualifiedName]) -> Result<(), Error> {
        self.handover.suspect(names).map_err(Error::Store)?;
        loop {
            let noted = self.handover.await_load(names.to_vec());
            match self.progress.named("the applier, which notes what is to be loaded", noted).await {
                Ok(()) => return Ok(()),
                Err(error) => self.wait(&error.to_string(), SNAPSHOT_AGAIN).await,
            }
        }
    }

    /// What became of a round.
    async fn settle(&mut self, ended: Result<Vec<Ended>, Error>) -> Result<(), Error> {
        for (oid, table) in std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.left.remove(&oid);
            self.outcome.tables.push(table);
        }
        let (mut lost, mut again, mut failed) = (None, None, None);
        match ended {
            Ok(ended) => {
                for unit in ended {
                    match unit {
                        Ended::Done | Ended::Later => {}
                        Ended::Again(why) => again = Some(why),
                        Ended::Lost(error) => lost = Some(error),
                        Ended::Failed(error) => failed = Some(error),
                        Ended::Held(hold) => self.definitions = Some(hold),
                        Ended::Told(told) => self.outcome.failed.extend(told),
                    }
                }
            }
            Err(error) if error.is_lost() || error.is_locked() => lost = Some(error),
            Err(error) => return Err(error),
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some(why) = again {
            self.attempts += 1;
            tracing::info!(why, attempt = self.attempts, "backfill: tables begin again");
            if self.attempts >= ATTEMPTS {
                return Err(Error::Schema(format!("given up after {ATTEMPTS} attempts: {why}")));
            }
        }
        if let Some(error) = lost {
            tracing::info!(%error, "backfill: tables begin again");
            self.wait(&error.to_string(), LOST_AGAIN).await;
        }
        Ok(())
    }

    pub(crate) fn doubts(&mut self, mark: u64) {
        self.doubts = Some(self.doubts.map_or(mark, |first| first.min(mark)));
    }

    pub(crate) async fn wait(&self, why: &str, pause: Duration) {
        self.progress.waits(Some(why.to_owned()));
        tokio::time::sleep(pause).await;
        self.progress.waits(None);
    }

    /// What an archive has left. Lanes must not write to a table that has got triggers before they have seen them: these are made while
    /// nothing is applied.
    async fn make_last(&mut self, archive: &Archive, left: Vec<Entry>) -> Result<(), Error> {
        if self.definitions.is_none() {
            self.definitions = Some(self.handover.hold(HoldOf::Definitions));
        }
        let (act, others): (Vec<_>, Vec<_>) = left.into_iter().partition(Entry::acts);
        self.outcome.failed.extend(archive.restore_beside(&self.shadow, &others, self.job.connections).await?);
        let still = loop {
            let still = self.handover.hold_still(HoldOf::Everything);
            match self.progress.named("the applier, which ends what it is at", still).await {
                Ok(hold) => break hold,
                Err(error) => self.wait(&error.to_string(), SNAPSHOT_AGAIN).await,
            }
        };
        // lanes look anew after this, and after it is cut short
        self.handover.loaded(Vec::new(), None).await?;
        self.outcome.failed.extend(archive.restore(&self.shadow, &act).await?);
        self.handover.loaded(Vec::new(), None).await?;
        drop(still);
        Ok(())
    }

    /// Foreign keys, triggers and what else an archive has left; sequences; views. What is lost with a connection is done again.
    async fn finish(&mut self) -> Result<(), Error> {
        self.progress.stage(Stage::Finishing);
        self.shadow.set_step(Step::Finish, self.archive.is_some()).await?;
        let primary = connect_primary(self.job).await?;
        if let Some(archive) = self.archive.clone() {
            if !archive.exists() {
                let text = "the archive of the source's schema is gone from [mirror_log] directory: indexes, foreign keys and triggers that \
                            the differences below name are to be made by hand";
                self.outcome.failed.push(text.to_owned());
            } else {
                let done = self.shadow.restored().await?;
                let left: Vec<_> =
                    archive.entries().await?.into_iter().filter(|entry| !done.contains(&entry.number())).collect();
                self.make_last(&archive, left).await?;
            }
        }
        self.definitions = None;
        let shadow = self.shadow.writer().await?;
        self.outcome.failed.extend(finish::sequences(&primary.client, &shadow.client).await?);
        self.outcome.failed.extend(finish::views(&primary.client, &shadow.client).await?);
        self.shadow.give_back(shadow);
        self.outcome.failed.extend(self.shadow.analyze_last().await?);
        self.outcome.differences = self.differences(&primary).await?;
        self.outcome.differences.extend(finish::of_extensions(&primary.client).await?);
        if let Some(mark) =
            self.doubts.filter(|_| !self.resumed && self.outcome.tables.iter().all(|table| !table.suspect))
        {
            self.handover.lift(&[], mark, true).map_err(Error::Store)?;
        }
        self.shadow.set_step(Step::Done, self.archive.is_some()).await?;
        if let Some(archive) = &self.archive {
            archive.remove().await;
        }
        Ok(())
    }
}
