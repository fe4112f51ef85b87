//! The backfill that was asked for: one at a time, beside everything else.
use super::mirror::Mirror;
use super::own;
use super::task::{Begun, Task, now};
use super::verifying::tables;
use crate::config::Config;
use crate::facts::facts;
use futures::future::BoxFuture;
use pgshadow_admin::{BackfillReport, BackfillRequest, BackfillRunning, BackfillStarted, BackfillState};
use pgshadow_apply::{Connected, Handle, Hold, HoldOf, LoadSnapshot, PairError, Plain};
use pgshadow_backfill::{Handover, Job, Progress};
use pgshadow_model::{Place, QualifiedName, Suspect};
use pgshadow_preflight::{Facts, Finding};
use pgshadow_verify::Limits;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Why a table is suspect meanwhile.
const LOADING: &str = "it is being loaded: until that is done it doesn't hold what the primary does";

/// Runs backfills.
pub(super) struct Backfilling {
    config: Config,
    primary: Place,
    mirror: Arc<Mirror>,
    applier: Arc<dyn WithApplier>,
    task: Arc<Task<Progress, BackfillReport>>,
}

/// Gives the applier, as long as there is one.
pub(super) trait WithApplier: Send + Sync {
    fn applier(&self, ask: &mut dyn FnMut(&Handle));
}

/// The applier and the store of one backfill.
struct Hands {
    mirror: Arc<Mirror>,
    applier: Arc<dyn WithApplier>,
    /// Open findings of tables, as they were when the snapshot was that these are loaded from: the load mends them.
    findings: Arc<Mutex<HashMap<QualifiedName, BTreeSet<u64>>>>,
}

impl Backfilling {
    pub fn new((config, primary): (&Config, Place), mirror: Arc<Mirror>, applier: Arc<dyn WithApplier>) -> Self {
        let task = Arc::new(Task::new(failed));
        Self { config: config.clone(), primary, mirror, applier, task }
    }

    /// Begins one.
    ///
    /// # Errors
    /// Another one runs, or a name can't be read.
    pub fn start(self: &Arc<Self>, request: &BackfillRequest) -> Result<BackfillStarted, String> {
        let only = tables(&request.tables)?;
        if let Some(name) = only.iter().find(|name| self.config.mirror.exclude.contains(name)) {
            return Err(format!("{name} isn't mirrored ([mirror] exclude): what is loaded of it would soon be old"));
        }
        if !only.is_empty() && (request.create_schema || request.again) {
            return Err(
                "single tables are loaded as they are: neither create_schema nor again goes with them".to_owned()
            );
        }
        if self.mirror.is_stopped() {
            return Err("mirroring has stopped: what is loaded would soon be old; see `pgshadow status`".to_owned());
        }
        let reading = self.config.backfill.reading;
        let rate_max = request.rate_max_bytes.or(reading.limits.rate_max);
        let job = Job {
            primary: self.config.source.postgres.clone(),
            shadow: self.config.target.postgres.clone(),
            dial: Arc::new(Plain),
            connections: reading.connections,
            only,
            excluded: self.config.mirror.exclude.clone(),
            create_schema: request.create_schema,
            again: request.again,
            limits: Limits { rate_max, ..reading.limits },
            snapshot_age_max: reading.snapshot_age_max,
            bindir: self.config.backfill.bindir.clone(),
            directory: self.config.mirror_log.directory.clone(),
        };
        // Behind a flip both databases have proven what they can.
        let asks = self.primary == Place::Source && !request.skip_preflight;
        let config = asks.then(|| self.config.clone());
        let hands =
            Hands { mirror: Arc::clone(&self.mirror), applier: Arc::clone(&self.applier), findings: Arc::default() };
        let started = self.task.start(|begun| run(begun, job, hands, config));
        let taken = || "a backfill runs already; `pgshadow backfill --stop` ends it".to_owned();
        started.map(|number| BackfillStarted { number }).ok_or_else(taken)
    }

    /// How it fares.
    pub fn state(&self) -> BackfillState {
        let running = self.task.running();
        let running = running.map(|(number, progress)| BackfillRunning { number, progress: progress.show() });
        BackfillState { running, last: self.task.last() }
    }

    pub fn is_running(&self) -> bool {
        self.task.running().is_some()
    }

    /// Ends the one that runs; false if none does.
    pub fn stop(&self) -> bool {
        self.task.stop()
    }
}

/// `asks`: the configuration, where preflight is asked first.
async fn run(begun: Begun<Progress>, job: Job, hands: Hands, asks: Option<Config>) -> BackfillReport {
    let Begun { number, progress, started } = begun;
    if let Some(config) = asks {
        let in_its_way = in_its_way(&config, &job).await;
        if let Some(first) = in_its_way.first() {
            let mend = first.mend.as_ref().map(|mend| format!(" (mended by: {mend})")).unwrap_or_default();
            let many = in_its_way.len();
            let why = format!("preflight found {many} in its way: {}: {}{mend}", first.subject, first.happens);
            tracing::warn!(number, why, "a backfill is refused");
            return BackfillReport { blocked_by: in_its_way, ..failed(number, started, why, &progress) };
        }
    }
    tracing::info!(number, "a backfill begins");
    let ended = pgshadow_backfill::backfill(&job, &hands, &progress).await;
    let mut report = failed(number, started, String::new(), &progress);
    match ended {
        Ok(outcome) => {
            let suspect = outcome.tables.iter().filter(|table| table.suspect).map(|table| table.table.to_string());
            report.failed = None;
            report.suspect = suspect.collect();
            (report.not_made, report.differences) = (outcome.failed, outcome.differences);
        }
        Err(error) => report.failed = Some(error.to_string()),
    }
    tracing::info!(number, failed = report.failed, tables = report.tables.len(), "a backfill has ended");
    report
}

/// What preflight finds that a load must not begin with. Where it can't ask, the load itself says why.
async fn in_its_way(config: &Config, job: &Job) -> Vec<Finding> {
    let connected = tokio::try_join!(own::connect(&config.source), own::connect(&config.target));
    let (source, target) = match connected {
        Ok(both) => both,
        Err(why) => {
            tracing::warn!(why, "preflight can't be asked before a backfill");
            return Vec::new();
        }
    };
    let facts = Facts { tables: job.only.clone(), ..facts(config) };
    // These sessions are made read-only.
    pgshadow_preflight::before_load(&source.client, &target.client, &facts).await.findings
}

fn failed(number: u64, started: String, why: String, progress: &Progress) -> BackfillReport {
    BackfillReport {
        number,
        failed: Some(why),
        blocked_by: Vec::new(),
        started,
        ended: now(),
        tables: progress.show().each,
        suspect: Vec::new(),
        not_made: Vec::new(),
        differences: Vec::new(),
    }
}

impl Hands {
    fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Handle) -> BoxFuture<'static, Result<T, PairError>>,
    ) -> BoxFuture<'static, Result<T, PairError>> {
        let (mut ask, mut asked) = (Some(ask), None);
        self.applier.applier(&mut |applier| asked = ask.take().map(|ask| ask(applier)));
        asked.unwrap_or_else(|| Box::pin(std::future::ready(Err(PairError::Lost))))
    }
}

impl Handover for Hands {
    fn await_load(&self, tables: Vec<QualifiedName>) -> BoxFuture<'static, Result<(), PairError>> {
        self.ask(|applier| Box::pin(applier.await_load(tables)))
    }

    fn snapshot(&self, held: HoldOf) -> BoxFuture<'static, Result<LoadSnapshot, PairError>> {
        let asked = self.ask(|applier| Box::pin(applier.load_snapshot(held)));
        let (mirror, findings) = (Arc::clone(&self.mirror), Arc::clone(&self.findings));
        Box::pin(async move {
            let snapshot = asked.await?;
            // what was under way when these tables began to wait has been told by now, and is in the snapshot
            if let Err(error) = tokio::task::block_in_place(|| note_open(&mirror, &findings)) {
                tracing::warn!(%error, "findings of tables that are loaded could not be read: they stay open");
            }
            Ok(snapshot)
        })
    }

    fn hold(&self, held: HoldOf) -> Hold {
        self.mirror.book.hold(&held)
    }

    fn hold_still(&self, held: HoldOf) -> BoxFuture<'static, Result<Hold, PairError>> {
        self.ask(|applier| Box::pin(applier.hold_still(held)))
    }

    fn loaded(
        &self,
        tables: Vec<QualifiedName>,
        hold: Option<Hold>,
    ) -> BoxFuture<'static, Result<Option<Hold>, PairError>> {
        self.ask(|applier| Box::pin(applier.loaded(tables, hold)))
    }

    fn writer(&self) -> BoxFuture<'static, Result<Connected, PairError>> {
        self.ask(|applier| Box::pin(applier.writer()))
    }

    fn suspect(&self, tables: &[QualifiedName]) -> Result<(), String> {
        tokio::task::block_in_place(|| self.keep_suspect(tables))
    }

    fn lift(&self, tables: &[QualifiedName], doubts: u64, whole: bool) -> Result<Vec<QualifiedName>, String> {
        tokio::task::block_in_place(|| self.keep_loaded(tables, doubts, whole))
    }
}

/// Notes the open findings of the tables that are being loaded.
fn note_open(
    mirror: &Mirror,
    findings: &Mutex<HashMap<QualifiedName, BTreeSet<u64>>>,
) -> Result<(), pgshadow_divergence::Error> {
    let all = mirror.store.list()?;
    let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
    for finding in all.into_iter().filter(|finding| !finding.healed) {
        if let Some(of) = finding.table.and_then(|table| findings.get_mut(&table)) {
            of.insert(finding.id);
        }
    }
    Ok(())
}

impl Hands {
    fn keep_suspect(&self, tables: &[QualifiedName]) -> Result<(), String> {
        let failed = |error: pgshadow_divergence::Error| format!("a suspect table can't be written down: {error}");
        for table in tables {
            self.findings.lock().unwrap_or_else(PoisonError::into_inner).entry(table.clone()).or_default();
        }
        note_open(&self.mirror, &self.findings).map_err(failed)?;
        for table in tables {
            let suspect = Suspect { table: Some(table.clone()), reason: LOADING.to_owned() };
            self.mirror.keep_suspect(&suspect).map_err(failed)?;
        }
        Ok(())
    }

    fn keep_loaded(&self, tables: &[QualifiedName], doubts: u64, whole: bool) -> Result<Vec<QualifiedName>, String> {
        let failed =
            |error: pgshadow_divergence::Error| format!("a table that is loaded can't be written down: {error}");
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        for id in tables.iter().filter_map(|table| findings.remove(table)).flatten() {
            self.mirror.store.mark_healed(id).map_err(failed)?;
        }
        drop(findings);
        // what a session writes that can't be followed isn't known of any table
        if self.mirror.backends.unfollowed() > 0 {
            return Ok(tables.to_vec());
        }
        self.mirror.keep_shadow_had().map_err(failed)?;
        self.mirror.store.lift(tables, doubts, whole, Some(LOADING)).map_err(failed)
    }
}
