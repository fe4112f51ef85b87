//! The flip: runs the effects of [`pgshadow_cutover::transition`] on the real servers, and tells what was measured.
//!
//! One at a time. What is done to a server's rights stands in the journal before. The commanding client may go away: before the point of no return the
//! flip is undone then, after it it goes on.
mod ahead;
mod canary;
mod fence;
mod finish;
mod gates;
mod hooks;
mod recover;
mod report;
mod run;
mod sequences;

use super::direction::Direction;
use super::mirror::Mirror;
use super::own;
use super::pausing::Pausing;
use super::present::Present;
use super::secrets::Known;
use super::upstream;
use crate::config::{Config, Database};
use pgshadow_admin::{FlipOutcome, FlipReport, FlipRequest};
use pgshadow_cutover::{Journal, Kept, Rehearsed, State};
use pgshadow_model::Place;
use pgshadow_proxy::{Route, Routes};
use run::Run;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Pause between two looks at what is nearly there.
const LOOK: Duration = Duration::from_millis(1);
/// Attempts at the way back of a rehearsal.
const BACK_MAX: u32 = 5;
/// Pause between two attempts at what must succeed.
const AGAIN: Duration = Duration::from_millis(500);
/// Flips, one at a time.
pub(super) struct Flipping {
    config: Config,
    journal: Journal,
    routes: Arc<Routes<Mirror>>,
    pausing: Arc<Pausing>,
    present: Arc<Present>,
    /// In mode `scram`: whom the primary's users are asked of.
    secrets: Option<Arc<Known>>,
    /// Of one.
    leaves: Arc<Semaphore>,
    reports: PathBuf,
}

/// What all parts of it are for.
pub(super) struct Parts {
    pub config: Config,
    pub journal: Journal,
    pub routes: Arc<Routes<Mirror>>,
    pub pausing: Arc<Pausing>,
    pub present: Arc<Present>,
    pub secrets: Option<Arc<Known>>,
}

/// Why it isn't done.
enum Stop {
    /// All that would be done was looked at.
    DryRun,
    /// Gates are closed.
    Refused(String),
    Failed(String),
    /// What is on disk isn't known.
    Torn(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl Flipping {
    pub fn new(parts: Parts) -> Self {
        let Parts { config, journal, routes, pausing, present, secrets } = parts;
        let reports = config.mirror_log.directory.join("flips");
        Self { config, journal, routes, pausing, present, secrets, leaves: Arc::new(Semaphore::new(1)), reports }
    }

    /// Where the primary is.
    pub fn primary(&self) -> Place {
        self.journal.kept().primary
    }

    /// A rehearsal was cut off on the other side.
    pub fn is_rehearsing(&self) -> bool {
        self.journal.kept().rehearsing && self.leaves.available_permits() > 0
    }

    /// One is under way, or what one has left is still to be put in order.
    pub fn is_under_way(&self) -> bool {
        self.leaves.available_permits() == 0 || self.journal.kept().state != State::Idle
    }

    /// All flips that there were.
    pub fn reports(&self) -> Vec<FlipReport> {
        report::read(&self.reports)
    }

    /// Flips; given up (the future is dropped) before the point of no return, it is undone.
    pub async fn flip(self: &Arc<Self>, request: FlipRequest) -> Result<FlipReport, String> {
        let leave = self.leave()?;
        let given_up = CancellationToken::new();
        let guard = given_up.clone().drop_guard();
        let report = self.in_a_task(request, false, leave, given_up).await;
        drop(guard.disarm());
        report
    }

    /// A flip and the way back.
    pub async fn rehearse(self: &Arc<Self>, request: FlipRequest) -> Result<Vec<FlipReport>, String> {
        let leave = self.leave()?;
        let given_up = CancellationToken::new();
        let guard = given_up.clone().drop_guard();
        let this = Arc::clone(self);
        // whoever wants it may go away: the way back was promised
        let all = tokio::spawn(async move {
            let there = this.in_a_task(request.clone(), true, leave, given_up).await?;
            if there.outcome != FlipOutcome::Flipped || request.dry_run {
                return Ok(vec![there]);
            }
            let back = FlipRequest { to: request.to.other(), postpone_flag_file: None, ..request };
            let mut all = vec![there];
            for _ in 0..BACK_MAX {
                let leave = Arc::clone(&this.leaves).acquire_owned().await.map_err(|error| error.to_string())?;
                all.push(this.in_a_task(back.clone(), true, leave, CancellationToken::new()).await?);
                if all.last().is_some_and(|report| report.outcome == FlipOutcome::Flipped) {
                    this.keep_rehearsed().await?;
                    break;
                }
                tokio::time::sleep(AGAIN * 4).await;
            }
            Ok(all)
        });
        let all = all.await.map_err(|error| format!("the rehearsal has failed: {error}"));
        drop(guard.disarm());
        all?
    }

    fn leave(&self) -> Result<OwnedSemaphorePermit, String> {
        Arc::clone(&self.leaves).try_acquire_owned().map_err(|_| "another flip is under way".to_owned())
    }

    async fn keep_rehearsed(&self) -> Result<(), String> {
        let Some(present) = self.present.get() else { return Ok(()) };
        let [primary, shadow] =
            [own::connect(&present.config.source).await?, own::connect(&present.config.target).await?];
        let of = gates::shape(&primary, &shadow).await?;
        let rehearsed = Rehearsed { at: super::task::now(), of };
        self.keep(|kept| kept.rehearsed = Some(rehearsed)).map_err(|error| error.to_string())
    }

    /// In a task of its own, which the caller's end doesn't end.
    async fn in_a_task(
        self: &Arc<Self>,
        request: FlipRequest,
        rehearsal: bool,
        leave: OwnedSemaphorePermit,
        given_up: CancellationToken,
    ) -> Result<FlipReport, String> {
        let kept = self.journal.kept();
        let Some(forward) = self.present.get() else {
            return Err("nothing is mirrored: there is no other database to go to".to_owned());
        };
        if kept.primary == request.to {
            return Err(format!("the {} is the primary already", request.to));
        }
        if kept.state != State::Idle {
            return Err("what an earlier flip has left is still to be put in order; see pgshadow's log".to_owned());
        }
        let this = Arc::clone(self);
        let work = tokio::spawn(async move {
            let report = this.run(request, rehearsal, forward, given_up).await;
            drop(leave);
            report
        });
        work.await.map_err(|error| format!("the flip has failed: {error}"))
    }

    async fn run(
        &self,
        request: FlipRequest,
        rehearsal: bool,
        forward: Arc<Direction>,
        given_up: CancellationToken,
    ) -> FlipReport {
        let mut run = Run::new(self, request, rehearsal, forward, given_up);
        tracing::info!(to = %run.request.to, dry_run = run.request.dry_run, rehearsal, "a flip begins");
        let stopped = run.drive().await;
        let report = run.telling.end(stopped);
        tracing::info!(outcome = ?report.outcome, reason = report.reason, pause_us = report.pause_us, "a flip has ended");
        report::keep(&self.reports, &report);
        if !run.request.dry_run {
            hooks::after(&self.config.cutover, &report).await;
        }
        report
    }

    /// Changes the journal; where it isn't known what is on disk the process ends, since only the next one can go by it.
    fn keep(&self, change: impl FnOnce(&mut Kept)) -> Result<(), Stop> {
        tokio::task::block_in_place(|| self.journal.keep(change)).map_err(|error| match error {
            pgshadow_cutover::Error::Torn { .. } => Stop::Torn(error.to_string()),
            error => Stop::Failed(error.to_string()),
        })
    }

    /// For tests: waits in front of a step for as long as a file names it, and tells that it does by another one.
    async fn step(&self, name: &str) {
        let Some(path) = &self.config.test.flip_stops_at else { return };
        while tokio::fs::read_to_string(path).await.is_ok_and(|wanted| wanted.trim() == name) {
            let _ = tokio::fs::write(path.with_extension("there"), name).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    fn database(&self, place: Place) -> &Database {
        match place {
            Place::Source => &self.config.source,
            Place::Target => &self.config.target,
        }
    }

    /// The way to where this direction's primary is.
    fn route(&self, direction: &Direction, settings: Vec<String>) -> Route<Mirror> {
        let database = &direction.config.source;
        Route {
            number: 0,
            upstream: upstream(database),
            database: (database.name != self.config.source.name).then(|| database.name.clone()),
            settings,
            shared: Some(Arc::clone(&direction.shared)),
        }
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DryRun => "a dry run",
            Self::Refused(why) | Self::Failed(why) | Self::Torn(why) => why,
        })
    }
}
