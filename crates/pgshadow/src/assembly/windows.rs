//! What the admin room shows.
use super::backfilling::Backfilling;
use super::direction::Direction;
use super::flip::Flipping;
use super::mirror::Mirror;
use super::pausing::Pausing;
use super::present::Present;
use super::verifying::Verifying;
use pgshadow_admin::{
    AcknowledgeRequest, Acknowledged, BackfillRequest, BackfillStarted, BackfillState, Certificate, CertificateRecord,
    Counters, EQUAL_AT_START_NOTE, FinishReport, FinishRequest, FlipReport, FlipRequest, Lag, LogState, PROVEN_NOTE,
    PauseReport, PauseRequest, Phase, RepairReport, RepairRequest, Source, Status, SuspectTable, VERSION,
    VerifyRequest, VerifyStarted, VerifyState,
};
use pgshadow_cutover::{Kept, Standing};
use pgshadow_divergence::Certificates;
use pgshadow_model::Finding;
use pgshadow_telemetry::Gauge;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the gauges are set.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Windows {
    present: Arc<Present>,
    /// `None`: nothing was mirrored when the process began.
    flipping: Option<Arc<Flipping>>,
    /// What the journal of flips held then.
    kept: Kept,
    clients: Arc<AtomicUsize>,
    pausing: Arc<Pausing>,
    phase: Mutex<Phase>,
}

impl Windows {
    pub fn new(
        present: Arc<Present>,
        clients: Arc<AtomicUsize>,
        pausing: Arc<Pausing>,
        (flipping, kept): (Option<Arc<Flipping>>, Kept),
    ) -> Self {
        Self { present, flipping, kept, clients, pausing, phase: Mutex::new(Phase::Starting) }
    }

    pub fn set_phase(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    fn direction(&self) -> Option<Arc<Direction>> {
        self.present.get()
    }

    fn mirror(&self) -> Option<Arc<Mirror>> {
        self.direction().map(|direction| Arc::clone(&direction.mirror))
    }

    fn verifying(&self) -> Option<Arc<Verifying>> {
        self.direction()?.verifying()
    }

    fn backfilling(&self) -> Option<Arc<Backfilling>> {
        self.direction()?.backfilling()
    }

    fn ask<T>(&self, ask: impl FnOnce(&pgshadow_apply::Handle) -> T) -> Option<T> {
        self.direction()?.ask(ask)
    }

    /// What writes to the shadow, or reads it for long, must know which one that is.
    fn unless_flipping(&self) -> Result<(), String> {
        match self.flipping.as_ref().is_some_and(|flipping| flipping.is_under_way()) {
            true => Err("a flip is under way: wait until it is over".to_owned()),
            false => Ok(()),
        }
    }

    fn is_backfilling(&self) -> bool {
        self.backfilling().is_some_and(|backfilling| backfilling.is_running())
    }

    /// Keeps the gauges of `/metrics` fresh: they are set whenever the state is read.
    pub async fn keep_gauges(self: Arc<Self>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let _ = self.status();
            tokio::select! { () = shutdown.cancelled() => {}, () = tokio::time::sleep(GAUGES_EVERY) => {} }
        }
    }

    fn phase(&self) -> Phase {
        match self.kept_phase() {
            Phase::Mirroring if self.is_backfilling() => Phase::Backfill,
            phase => phase,
        }
    }

    fn kept_phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn applier(&self) -> pgshadow_admin::Applier {
        self.ask(pgshadow_apply::Handle::status).map_or_else(Default::default, |status| pgshadow_admin::Applier {
            connected: status.connected,
            last_error: status.last_error,
            rows_applied: status.rows_applied,
            rows_to_heal: status.to_heal,
        })
    }

    fn short_certificate(&self) -> Certificate {
        let Some(mirror) = self.mirror() else { return Certificate::none("nothing is mirrored") };
        match mirror.store.certificates() {
            Ok(kept) => certificate(&kept),
            Err(error) => Certificate::none(format!("the store can't be read: {error}")),
        }
    }

    fn suspect_tables(&self) -> Vec<SuspectTable> {
        let Some(mirror) = self.mirror() else { return Vec::new() };
        let suspects = mirror.store.suspects().unwrap_or_default();
        let lifted = mirror.store.lifted_tables().len();
        let every = match lifted {
            0 => "every table".to_owned(),
            n => format!("every table but {n}"),
        };
        suspects
            .into_iter()
            .map(|s| SuspectTable {
                table: s.table.map_or_else(|| every.clone(), |t| t.to_string()),
                reason: s.reason,
                since: s.since,
            })
            .collect()
    }

    fn awaiting_load(&self) -> Vec<String> {
        let awaited = self.ask(pgshadow_apply::Handle::awaited).unwrap_or_default();
        let mut names: Vec<String> = awaited.iter().map(ToString::to_string).collect();
        names.sort();
        names
    }

    fn next_step(&self, status: &Status) -> String {
        if self.direction().is_none() {
            return match self.flipping.is_some() || self.kept.standing != Standing::UnderWay {
                true => {
                    format!("the migration has ended: have the application connect to the {} itself", status.primary)
                }
                false => "set [mirror] enabled = true and restart to begin mirroring".to_owned(),
            };
        }
        if status.paused {
            return "new transactions are held: pgshadow resume lets them go on".to_owned();
        }
        if self.flipping.as_ref().is_some_and(|flipping| flipping.is_rehearsing()) {
            return "a rehearsal was cut off behind its cutover: pgshadow rollback goes back".to_owned();
        }
        if !status.mirroring {
            return "find out why mirroring stopped (see the log), make room, restart; then reload the suspect tables"
                .to_owned();
        }
        if !status.applier.connected {
            return "bring the target back: writes wait for it in the mirror log".to_owned();
        }
        if self.is_backfilling() {
            return "wait until the target is loaded: pgshadow backfill shows how far it is".to_owned();
        }
        if status.awaiting_load.is_empty() && self.ask(pgshadow_apply::Handle::is_bare).unwrap_or(false) {
            return "load the target, which has no tables: pgshadow backfill --create-schema".to_owned();
        }
        if !status.awaiting_load.is_empty() {
            let tables = status.awaiting_load.len();
            return format!("load the target to its end: pgshadow backfill ({tables} tables are left)");
        }
        if !status.suspect_tables.is_empty() {
            return "look whether the suspect tables are equal (pgshadow verify), and load again what isn't (pgshadow backfill --table)"
                .to_owned();
        }
        if status.findings_open > 0 {
            return "look at the findings: pgshadow report".to_owned();
        }
        if !status.certificate.valid {
            return "prove that both databases are equal: pgshadow verify".to_owned();
        }
        "let it run; all that was committed is mirrored, and both databases were proven equal".to_owned()
    }
}

/// Valid for every table, or the first reason why not.
pub(super) fn certificate(kept: &Certificates) -> Certificate {
    if kept.tables.is_empty() {
        return Certificate::none("no table was verified: run `pgshadow verify`");
    }
    let lapsed: Vec<_> = kept.tables.iter().filter_map(|t| Some((&t.table, t.lapsed.as_ref()?))).collect();
    let reason = match lapsed.as_slice() {
        [] => kept.not_whole.clone(),
        [(table, reason)] => Some(format!("{table}: {reason}")),
        [(table, reason), more @ ..] => Some(format!("{table}: {reason}; and {} more tables", more.len())),
    };
    Certificate { valid: reason.is_none(), tables: (kept.tables.len() - lapsed.len()) as u64, reason }
}

impl Source for Windows {
    fn status(&self) -> Status {
        let direction = self.direction();
        let mirror = direction.as_ref().map(|direction| &*direction.mirror);
        let lag = mirror.map(|m| m.book.lag());
        let log = mirror.map(|m| m.log.status());
        let findings_open = mirror.and_then(|m| m.store.open_count().ok()).unwrap_or(0);
        let mut status = Status {
            version: VERSION.to_owned(),
            primary: self.flipping.as_ref().map_or(self.kept.primary, |flipping| flipping.primary()),
            phase: self.phase(),
            mirroring: mirror.is_some_and(|m| !m.is_stopped()),
            flipping: self.flipping.as_ref().is_some_and(|flipping| flipping.is_under_way()),
            paused: self.pausing.sessions.pause.holds(),
            lag: lag.map_or_else(Lag::default, |l| Lag { entries: l.entries, bytes: l.bytes, ms: l.ms }),
            log: log.as_ref().map_or_else(LogState::default, |l| LogState {
                bytes: l.bytes,
                bytes_max: l.bytes_max,
                poisoned: l.poisoned.is_some(),
            }),
            suspect_tables: self.suspect_tables(),
            awaiting_load: self.awaiting_load(),
            findings_open,
            healed_rows: mirror.and_then(|m| m.store.healed_rows().ok()).unwrap_or(0),
            certificate: self.short_certificate(),
            clients: self.clients.load(Ordering::Relaxed) as u64,
            next_step: String::new(),
            note: EQUAL_AT_START_NOTE.to_owned(),
            applier: self.applier(),
            counters: Counters::now(),
        };
        if status.certificate.valid {
            status.note = PROVEN_NOTE.to_owned();
        }
        status.next_step = self.next_step(&status);
        Gauge::LagEntries.set(status.lag.entries);
        Gauge::LagBytes.set(status.lag.bytes);
        Gauge::LagMs.set(status.lag.ms);
        Gauge::LogBytes.set(status.log.bytes);
        Gauge::LogBytesMax.set(status.log.bytes_max);
        Gauge::LogPoisoned.set(u64::from(status.log.poisoned));
        Gauge::FindingsOpen.set(status.findings_open);
        Gauge::SuspectTables.set(status.suspect_tables.len() as u64);
        Gauge::ApplierConnected.set(u64::from(status.applier.connected));
        status
    }

    fn findings(&self) -> Vec<Finding> {
        self.mirror().and_then(|mirror| mirror.store.list().ok()).unwrap_or_default()
    }

    async fn drained(&self, timeout: Duration) -> bool {
        let Some(mirror) = self.mirror() else { return true };
        let looked_at = mirror.prepared.looked_at();
        let definitions = mirror.looks.looked();
        let mark = mirror.book.barrier();
        let healed = self.ask(|applier| applier.healed(mark));
        let all = async {
            // one that was committed past pgshadow is waited for as well
            looked_at.await;
            definitions.await;
            mirror.book.wait_applied(mark).await;
            match healed {
                Some(healed) => healed.await,
                None => std::future::pending().await,
            }
        };
        tokio::time::timeout(timeout, all).await.is_ok()
    }

    fn backfill(&self, request: BackfillRequest) -> Result<BackfillStarted, String> {
        self.unless_flipping()?;
        if self.verifying().is_some_and(|verifying| verifying.is_running()) {
            return Err("a verify runs: wait for it, or end it by `pgshadow verify --stop`".to_owned());
        }
        match self.backfilling() {
            Some(backfilling) => backfilling.start(&request),
            None => Err("nothing is mirrored, so nothing can be loaded".to_owned()),
        }
    }

    fn backfill_state(&self) -> BackfillState {
        self.backfilling().map(|backfilling| backfilling.state()).unwrap_or_default()
    }

    fn stop_backfill(&self) -> bool {
        self.backfilling().is_some_and(|backfilling| backfilling.stop())
    }

    fn verify(&self, request: VerifyRequest) -> Result<VerifyStarted, String> {
        self.unless_flipping()?;
        if self.is_backfilling() {
            return Err("a backfill runs: wait until all tables are loaded".to_owned());
        }
        let awaited = self.awaiting_load();
        if let Some(table) = awaited.iter().find(|table| request.tables.is_empty() || request.tables.contains(table)) {
            return Err(format!("{table} is still to be loaded ({} tables are): pgshadow backfill", awaited.len()));
        }
        match self.verifying() {
            Some(verifying) => verifying.start(&request),
            None => Err("nothing is mirrored, so there is nothing to verify".to_owned()),
        }
    }

    fn verify_state(&self) -> VerifyState {
        self.verifying().map(|verifying| verifying.state()).unwrap_or_default()
    }

    fn stop_verify(&self) -> bool {
        self.verifying().is_some_and(|verifying| verifying.stop())
    }

    async fn repair(&self, request: RepairRequest) -> Result<RepairReport, String> {
        self.unless_flipping()?;
        let Some(verifying) = self.verifying() else { return Err("nothing is mirrored".to_owned()) };
        let plan = verifying.repairs(&request).await?;
        if request.dry_run || plan.rows.is_empty() {
            return Ok(plan.report);
        }
        let added = self.ask(|applier| applier.reread(plan.rows));
        let Some(added) = added else { return Err("the applier is stopping".to_owned()) };
        added.await.map_err(|error| format!("the rows can't be mended now: {error}"))?;
        Ok(plan.report)
    }

    fn acknowledge(&self, request: &AcknowledgeRequest) -> Result<Acknowledged, String> {
        let Some(mirror) = self.mirror() else { return Err("nothing is mirrored".to_owned()) };
        let mut unknown = Vec::new();
        for id in &request.findings {
            match mirror.store.acknowledge(*id) {
                Ok(true) => {}
                Ok(false) => unknown.push(*id),
                Err(error) => return Err(format!("the store can't be written: {error}")),
            }
        }
        Ok(Acknowledged { unknown })
    }

    fn certificate(&self) -> Result<CertificateRecord, String> {
        match self.verifying() {
            Some(verifying) => verifying.certificate().map_err(|error| format!("the store can't be read: {error}")),
            None => Err("nothing is mirrored, so nothing is proven".to_owned()),
        }
    }

    async fn pause(&self, request: PauseRequest) -> Result<PauseReport, String> {
        self.pausing.pause(request).await
    }

    fn resume(&self) -> bool {
        self.pausing.resume()
    }

    async fn flip(&self, request: FlipRequest) -> Result<FlipReport, String> {
        match &self.flipping {
            Some(flipping) => flipping.flip(request).await,
            None => Err("nothing is mirrored: there is no other database to go to".to_owned()),
        }
    }

    async fn rehearse(&self, request: FlipRequest) -> Result<Vec<FlipReport>, String> {
        match &self.flipping {
            Some(flipping) => flipping.rehearse(request).await,
            None => Err("nothing is mirrored: there is no other database to go to".to_owned()),
        }
    }

    async fn finish(&self, request: FinishRequest) -> Result<FinishReport, String> {
        match &self.flipping {
            Some(flipping) => {
                let report = flipping.finish(request.end).await?;
                self.set_phase(Phase::Forwarding);
                Ok(report)
            }
            None => Err("nothing is mirrored: there is nothing to end".to_owned()),
        }
    }

    fn flips(&self) -> Vec<FlipReport> {
        self.flipping.as_ref().map(|flipping| flipping.reports()).unwrap_or_default()
    }

    fn ready(&self) -> Result<(), String> {
        match self.phase() {
            Phase::Starting => Err("starting".to_owned()),
            Phase::Stopping => Err("stopping".to_owned()),
            Phase::Forwarding | Phase::Mirroring | Phase::Backfill => Ok(()),
        }
    }
}
