//! The verify that was asked for: one at a time, beside everything else.
use super::mirror::Mirror;
use super::repairing::{self, Plan};
use super::task::{Begun, Task, now};
use super::windows::certificate;
use crate::config::{Config, table};
use pgshadow_admin::{
    Certificate, CertificateRecord, RepairRequest, Running, VERSION, VerifyReport, VerifyRequest, VerifyStarted,
    VerifyState,
};
use pgshadow_apply::Plain;
use pgshadow_divergence::TableCertificate;
use pgshadow_model::{Finding, QualifiedName};
use pgshadow_verify::{Job, Outcome, Pairs, Progress, TableOutcome, is_of_verify};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections to each side.
const CONNECTIONS: usize = 2;

/// Runs verifies.
pub(super) struct Verifying {
    primary: tokio_postgres::Config,
    shadow: tokio_postgres::Config,
    excluded: Vec<QualifiedName>,
    /// Source and target, for people.
    places: [String; 2],
    mirror: Arc<Mirror>,
    pair: Box<Pairs>,
    task: Arc<Task<Progress, VerifyReport>>,
}

/// As they were before a pair of snapshots was asked for.
#[derive(Debug, Clone, Copy)]
struct Marks {
    lapses: u64,
    doubts: u64,
}

pub(super) fn tables(names: &[String]) -> Result<Vec<QualifiedName>, String> {
    names.iter().map(|name| table(name)).collect()
}

impl Verifying {
    /// `pair`: gives two snapshots that hold the same.
    pub fn new(config: &Config, mirror: Arc<Mirror>, pair: Box<Pairs>) -> Self {
        let excluded: Vec<String> = config.mirror.exclude.iter().map(ToString::to_string).collect();
        let failed = move |number, started, why, _: &Progress| failed(number, started, why, excluded.clone());
        Self {
            primary: config.source.postgres.clone(),
            shadow: config.target.postgres.clone(),
            excluded: config.mirror.exclude.clone(),
            places: [&config.source, &config.target].map(|place| format!("{}/{}", place.server, place.name)),
            mirror,
            pair,
            task: Arc::new(Task::new(failed)),
        }
    }

    /// Begins one.
    ///
    /// # Errors
    /// Another one runs, or a name can't be read.
    pub fn start(self: &Arc<Self>, request: &VerifyRequest) -> Result<VerifyStarted, String> {
        let only = tables(&request.tables)?;
        if let Some(name) = only.iter().find(|name| self.excluded.contains(name)) {
            return Err(format!("{name} isn't mirrored ([mirror] exclude), so it can't be verified"));
        }
        if self.mirror.is_stopped() {
            return Err("mirroring has stopped, so both databases go different ways; see `pgshadow status`".to_owned());
        }
        let this = Arc::clone(self);
        let started = self.task.start(|begun| async move { this.run(begun, only).await });
        let taken = || "a verify runs already; `pgshadow verify --stop` ends it".to_owned();
        started.map(|number| VerifyStarted { number }).ok_or_else(taken)
    }

    async fn run(self: &Arc<Self>, begun: Begun<Progress>, only: Vec<QualifiedName>) -> VerifyReport {
        let Begun { number, progress, started } = begun;
        let job = Job {
            primary: self.primary.clone(),
            shadow: self.shadow.clone(),
            dial: Arc::new(Plain),
            connections: CONNECTIONS,
            only,
            excluded: self.excluded.clone(),
        };
        tracing::info!(number, "a verify begins");
        let whole = job.only.is_empty();
        let marks = Arc::<Mutex<Vec<Marks>>>::default();
        let (noted, this) = (Arc::clone(&marks), Arc::clone(self));
        let pair: Box<Pairs> = Box::new(move || {
            let store = &this.mirror.store;
            let before = Marks { lapses: store.lapse_mark(), doubts: store.doubt_mark() };
            let (taken, noted) = ((this.pair)(), Arc::clone(&noted));
            Box::pin(async move {
                let pair = taken.await?;
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(before);
                Ok(pair)
            })
        });
        let ended = pgshadow_verify::verify(&job, &*pair, &progress).await;
        let report = match ended {
            Ok(outcome) => {
                let marks = marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
                self.report(number, started, outcome, marks, whole).await
            }
            Err(error) => failed(number, started, error.to_string(), self.excluded()),
        };
        tracing::info!(number, equal = report.is_equal(), failed = report.failed, "a verify has ended");
        report
    }

    /// Tables that are equal are suspect no more, but for what has been doubted since their snapshot.
    fn lift(&self, outcome: &Outcome, marks: &[Marks], whole: bool) -> Result<(), pgshadow_divergence::Error> {
        if self.mirror.backends.unfollowed() > 0 || self.mirror.store.suspects()?.is_empty() {
            return Ok(());
        }
        let whole = whole && marks.len() == 1 && outcome.tables.iter().all(TableOutcome::is_equal);
        for (number, mark) in marks.iter().enumerate() {
            let equal = outcome.tables.iter().filter(|table| table.pair == number && table.is_equal());
            let equal: Vec<QualifiedName> = equal.map(|table| table.table.clone()).collect();
            self.mirror.store.lift(&equal, mark.doubts, whole, None)?;
        }
        Ok(())
    }

    /// What the verify proves of each table, with the mark of its snapshot.
    fn certificates(&self, outcome: &Outcome, marks: &[Marks], started: &str) -> Vec<(u64, TableCertificate)> {
        let ended = now();
        let certificate = |table: &TableOutcome| {
            let differ = table.missing + table.extra + table.different + table.not_located;
            let why = match &table.not_compared {
                Some(why) => Some(format!("not compared: {why}")),
                None if differ > 0 => Some(format!("{differ} rows differ")),
                None => self.mirror.store.is_suspect(&table.table).map(|reason| format!("suspect: {reason}")),
            };
            let certificate = TableCertificate {
                table: table.table.clone(),
                rows: table.rows,
                bytes: table.bytes,
                hash: table.hash.clone(),
                snapshot: outcome.pairs.get(table.pair).map(|pair| pair.sees.clone()).unwrap_or_default(),
                started: started.to_owned(),
                ended: ended.clone(),
                lapsed_at: why.is_some().then(|| ended.clone()),
                lapsed: why,
            };
            (marks.get(table.pair).map_or(0, |marks| marks.lapses), certificate)
        };
        outcome.tables.iter().map(certificate).collect()
    }

    async fn report(
        self: &Arc<Self>,
        number: u64,
        started: String,
        outcome: Outcome,
        marks: Vec<Marks>,
        whole: bool,
    ) -> VerifyReport {
        let findings: Vec<_> = outcome.tables.iter().flat_map(TableOutcome::findings).map(|f| (None, f)).collect();
        let compared = outcome.tables.iter().filter(|t| t.not_compared.is_none());
        let compared: HashSet<QualifiedName> = compared.map(|t| t.table.clone()).collect();
        let (this, noted, began) = (Arc::clone(self), outcome.clone(), started.clone());
        let record = move || {
            let mirror = &this.mirror;
            // what isn't found again is mended
            let is_old =
                |f: &Finding| f.table.as_ref().is_some_and(|table| compared.contains(table)) && is_of_verify(f);
            for old in mirror.store.list()?.into_iter().filter(|f| !f.healed && is_old(f)) {
                mirror.store.mark_healed(old.id)?;
            }
            mirror.store.record_all(findings)?;
            this.lift(&noted, &marks, whole)?;
            mirror.store.certify(this.certificates(&noted, &marks, &began), whole)
        };
        let recorded = tokio::task::spawn_blocking(record).await;
        if let Ok(Err(error)) = recorded {
            tracing::error!(%error, "what the verify found could not be written down");
        }
        let mut report = failed(number, started, String::new(), self.excluded());
        report.failed = None;
        report.tables = outcome.tables;
        report.held_ms = outcome.pairs.iter().map(|pair| pair.held.as_secs_f64() * 1000.0).collect();
        report
    }

    fn excluded(&self) -> Vec<String> {
        self.excluded.iter().map(ToString::to_string).collect()
    }

    /// What is to be mended of what the last verify found.
    ///
    /// # Errors
    /// There is nothing to go by, a name can't be read, or the primary can't be asked.
    pub async fn repairs(&self, request: &RepairRequest) -> Result<Plan, String> {
        let only = tables(&request.tables)?;
        if self.is_running() {
            return Err("a verify runs: wait for what it finds".to_owned());
        }
        let Some(last) = self.task.last().filter(|report| report.failed.is_none()) else {
            return Err("no verify has ended since pgshadow was started: run it first".to_owned());
        };
        let planned = repairing::plan(&self.primary, &last, &only).await;
        planned.map_err(|error| format!("the primary can't be asked for its tables: {error}"))
    }

    /// What is proven, to be kept.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn certificate(&self) -> Result<CertificateRecord, pgshadow_divergence::Error> {
        let kept = self.mirror.store.certificates()?;
        let Certificate { valid, reason, .. } = certificate(&kept);
        let [source, target] = self.places.clone();
        Ok(CertificateRecord {
            version: VERSION.to_owned(),
            written: now(),
            valid,
            reason,
            source,
            target,
            excluded: self.excluded(),
            tables: kept.tables,
        })
    }

    /// How it fares.
    pub fn state(&self) -> VerifyState {
        let running = self.task.running().map(|(number, progress)| Running { number, progress: progress.show() });
        VerifyState { running, last: self.task.last() }
    }

    pub fn is_running(&self) -> bool {
        self.task.running().is_some()
    }

    /// Ends the one that runs; false if none does.
    pub fn stop(&self) -> bool {
        self.task.stop()
    }
}

/// The report of one without a result.
fn failed(number: u64, started: String, why: String, excluded: Vec<String>) -> VerifyReport {
    VerifyReport { number, failed: Some(why), started, ended: now(), tables: Vec::new(), excluded, held_ms: Vec::new() }
}
