//! The verify that was asked for: one at a time, beside everything else.
use super::mirror::Mirror;
use super::repairing::{self, Plan};
use super::task::{Begun, Task, now};
use super::windows::certificate;
use crate::config::{Config, Reading, table};
use pgshadow_admin::{
    Certificate, CertificateRecord, RepairRequest, Running, VERSION, VerifyReport, VerifyRequest, VerifyStarted,
    VerifyState,
};
use pgshadow_apply::Plain;
use pgshadow_divergence::TableCertificate;
use pgshadow_model::{Finding, QualifiedName};
use pgshadow_verify::{Job, Outcome, PairOutcome, Pairs, Progress, TableOutcome, is_of_verify};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};

/// Runs verifies.
pub(super) struct Verifying {
    primary: tokio_postgres::Config,
    shadow: tokio_postgres::Config,
    reading: Reading,
    excluded: Vec<QualifiedName>,
    /// Source and target, for people.
    places: [String; 2],
    mirror: Arc<Mirror>,
    pair: Box<Pairs>,
    task: Arc<Task<Progress, VerifyReport>>,
}

/// As they were before a pair of snapshots was asked for.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    lapses: u64,
    doubts: u64,
}

/// Name of the text that says which verify runs, or was interrupted.
const NOTED: &str = "verify";

/// The verify that runs, or was interrupted.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    started: String,
    only: Vec<QualifiedName>,
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
            reading: config.verify,
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
        let again = request.again;
        let started = self.task.start(|begun| this.run(begun, only, again));
        let taken = || "a verify runs already; `pgshadow verify --stop` ends it".to_owned();
        started.map(|number| VerifyStarted { number }).ok_or_else(taken)
    }

    async fn run(self: Arc<Self>, begun: Begun<Progress>, only: Vec<QualifiedName>, again: bool) -> VerifyReport {
        let Begun { number, progress, started } = begun;
        let (started, known) = match self.interrupted(&only).filter(|_| !again) {
            Some((earlier, known)) => (earlier, known),
            None => (started, Vec::new()),
        };
        tracing::info!(number, known = known.len(), "a verify begins");
        if let Err(error) = self.note(Some(&Noted { started: started.clone(), only: only.clone() })) {
            return failed(number, started, format!("it can't be written down: {error}"), self.excluded());
        }
        let (whole, all_anew) = (only.is_empty(), known.is_empty());
        let job = Job {
            primary: self.primary.clone(),
            shadow: self.shadow.clone(),
            dial: Arc::new(Plain),
            connections: self.reading.connections,
            limits: self.reading.limits,
            snapshot_age_max: self.reading.snapshot_age_max,
            only,
            excluded: self.excluded.clone(),
            known,
        };
        let marks = Arc::<Mutex<Vec<Marks>>>::default();
        let (noted, this) = (Arc::clone(&marks), Arc::clone(&self));
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
        let (noted, this, began) = (Arc::clone(&marks), Arc::clone(&self), started.clone());
        let done = move |table: &TableOutcome, pair: &PairOutcome| {
            let mark = noted.lock().unwrap_or_else(PoisonError::into_inner).get(table.pair).copied();
            let kept = tokio::task::block_in_place(|| this.keep(table, pair, mark.unwrap_or_default(), &began));
            if let Err(error) = kept {
                tracing::error!(%error, table = %table.table, "what the verify found could not be written down");
            }
        };
        let ended = pgshadow_verify::verify(&job, &*pair, &done, &progress).await;
        let mut report = failed(number, started, String::new(), self.excluded());
        match ended {
            Ok(outcome) => {
                let marks = marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let kept = tokio::task::block_in_place(|| self.keep_whole(&outcome, &marks, whole, all_anew));
                if let Err(error) = kept {
                    tracing::error!(%error, "the end of the verify could not be written down");
                }
                report.failed = None;
                report.tables = outcome.tables;
                report.held_ms = outcome.pairs.iter().map(|pair| pair.held.as_secs_f64() * 1000.0).collect();
            }
            Err(error) => report.failed = Some(error.to_string()),
        }
        tracing::info!(number, equal = report.is_equal(), failed = report.failed, "a verify has ended");
        report
    }

    /// What an interrupted verify of the same tables has proven: when it began, and the tables whose certificates are valid.
    fn interrupted(&self, only: &[QualifiedName]) -> Option<(String, Vec<TableOutcome>)> {
        let text = self.mirror.store.meta_get(NOTED).ok().flatten()?;
        let noted: Noted = serde_json::from_str(&text).ok().filter(|noted: &Noted| noted.only == only)?;
        let kept = self.mirror.store.certificates().ok()?.tables.into_iter();
        let kept = kept.filter(|certificate| certificate.started == noted.started && certificate.lapsed.is_none());
        let known = kept.map(|c| TableOutcome::known(c.table, c.rows, c.bytes, c.hash)).collect();
        Some((noted.started, known))
    }

    /// Notes the verify that runs, or that none does.
    fn note(&self, noted: Option<&Noted>) -> Result<(), pgshadow_divergence::Error> {
        let text = noted.map(serde_json::to_string).transpose()?.unwrap_or_default();
        tokio::task::block_in_place(|| self.mirror.store.meta_set(NOTED, &text))
    }

    /// What was found of a table. If it is equal it is suspect no more, but for what has been doubted since its snapshot.
    fn keep(
        &self,
        table: &TableOutcome,
        pair: &PairOutcome,
        mark: Marks,
        started: &str,
    ) -> Result<(), pgshadow_divergence::Error> {
        let store = &self.mirror.store;
        self.mirror.keep_shadow_had()?;
        if table.not_compared.is_none() {
            // what isn't found again is mended
            let is_old = |f: &Finding| f.table.as_ref() == Some(&table.table) && !f.healed && is_of_verify(f);
            store.list()?.into_iter().filter(is_old).try_for_each(|old| store.mark_healed(old.id).map(drop))?;
            store.forget_uncounted(Some(&table.table))?;
        }
        store.record_all(table.findings().into_iter().map(|finding| (None, finding)).collect())?;
        if table.is_equal() && self.mirror.backends.unfollowed() == 0 {
            store.lift(std::slice::from_ref(&table.table), mark.doubts, false, None)?;
        }
        store.certify(mark.lapses, self.certificate_of(table, pair, started))
    }

    /// What the verify proves of a table.
    fn certificate_of(&self, table: &TableOutcome, pair: &PairOutcome, started: &str) -> TableCertificate {
        let differ = table.differ();
        let why = match &table.not_compared {
            Some(why) => Some(format!("not compared: {why}")),
            None if differ > 0 => Some(format!("{differ} rows differ")),
            None => self.mirror.store.is_suspect(&table.table).map(|reason| format!("suspect: {reason}")),
        };
        let ended = now();
        let more = match table.snapshots {
            0 | 1 => String::new(),
            all => format!(" and {} later ones, part by part", all - 1),
        };
        TableCertificate {
            table: table.table.clone(),
            rows: table.rows,
            bytes: table.bytes,
            hash: table.hash.clone(),
            snapshot: format!("{}{more}", pair.sees),
            started: started.to_owned(),
            ended: ended.clone(),
            lapsed_at: why.is_some().then_some(ended),
            lapsed: why,
        }
    }

    /// `whole`: these are all tables; `all_anew`: and none is known from an earlier verify.
    fn keep_whole(
        &self,
        outcome: &Outcome,
        marks: &[Marks],
        whole: bool,
        all_anew: bool,
    ) -> Result<(), pgshadow_divergence::Error> {
        self.note(None)?;
        let Some(first) = marks.first().filter(|_| whole) else { return Ok(()) };
        let tables: Vec<QualifiedName> = outcome.tables.iter().map(|table| table.table.clone()).collect();
        let store = &self.mirror.store;
        let is_equal = outcome.tables.iter().all(TableOutcome::is_equal);
        if all_anew && is_equal && self.mirror.backends.unfollowed() == 0 {
            store.lift(&tables, first.doubts, true, None)?;
            store.forget_uncounted(None)?;
        }
        store.certify_whole(first.lapses, &tables)
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

    /// Ends the one that runs; false if none does. The next one begins anew.
    pub fn stop(&self) -> bool {
        let stopped = self.task.stop();
        if stopped && let Err(error) = self.note(None) {
            tracing::error!(%error, "the end of the verify could not be written down");
        }
        stopped
    }
}

/// The report of one without a result.
fn failed(number: u64, started: String, why: String, excluded: Vec<String>) -> VerifyReport {
    VerifyReport { number, failed: Some(why), started, ended: now(), tables: Vec::new(), excluded, held_ms: Vec::new() }
}
