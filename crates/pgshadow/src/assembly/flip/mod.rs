//! The flip: runs the effects of [`pgshadow_cutover::transition`] on the real servers, and tells what was measured.
//!
//! One at a time. What is done to a server's rights stands in the journal before. The commanding client may go away: before the point of no return the
//! flip is undone then, after it it goes on.
mod canary;
pub(super) mod fence;
mod finish;
mod gates;
mod hooks;
mod recover;
mod report;
mod sequences;

use super::bypass;
use super::direction::Direction;
use super::mirror::Mirror;
use super::pausing::{Pausing, drain};
use super::present::Present;
use super::primary::answered;
use super::secrets::Known;
use super::upstream;
use crate::config::{Config, Database};
use fence::Own;
use pgshadow_admin::{FlipOutcome, FlipReport, FlipRequest, Unmovable};
use pgshadow_cutover::{Effect, Event, Journal, Kept, Rehearsed, Rights, State, transition};
use pgshadow_divergence::LapseOf;
use pgshadow_model::Place;
use pgshadow_proxy::{Lease, Route, Routes};
use report::Telling;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the pause may last beyond the time that open transactions have, before it ends by itself.
const LEASE_BEYOND: Duration = Duration::from_secs(15);
/// How long listening sessions are waited for while all is held, and all sessions afterwards.
const LISTENERS_MAX: Duration = Duration::from_secs(2);
const MOVED_MAX: Duration = Duration::from_secs(60);
/// How long sessions have to look at themselves: those in a transaction do so behind it.
const SURVEY_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(1);
/// What is little to be applied, by the age of the oldest, and how long such a moment is waited for.
const LITTLE_MS: u64 = 20;
const CATCHES_UP_IN: Duration = Duration::from_secs(5);
/// Attempts at the way back of a rehearsal.
const BACK_MAX: u32 = 5;
/// Pause between two attempts at what must succeed.
const AGAIN: Duration = Duration::from_millis(500);
const GIVEN_UP: &str = "the command was given up";
/// Settings of the application's own that functions, views and policies name: the server lists none of them.
const NAMED_SETTINGS: &str = "
SELECT DISTINCT m[1] FROM (
  SELECT p.prosrc AS text FROM pg_catalog.pg_proc p WHERE p.oid OPERATOR(pg_catalog.>=) 16384 AND p.prosrc IS NOT NULL
  UNION ALL SELECT pg_catalog.pg_get_expr(polqual, polrelid) FROM pg_catalog.pg_policy
  UNION ALL SELECT pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c WHERE c.relkind OPERATOR(pg_catalog.=) 'v' AND c.oid OPERATOR(pg_catalog.>=) 16384) AS t,
  pg_catalog.regexp_matches(t.text, '(?:set_config|current_setting)\\s*\\(\\s*''([A-Za-z_][A-Za-z0-9_$]*(?:\\.[A-Za-z_][A-Za-z0-9_$]*)+)''', 'gi') AS m";

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

/// One flip.
struct Run<'a> {
    flipping: &'a Flipping,
    request: FlipRequest,
    rehearsal: bool,
    telling: Telling,
    forward: Arc<Direction>,
    reverse: Option<Arc<Direction>>,
    /// Connections to the present primary and to its shadow.
    own: Option<[Own; 2]>,
    settings: Vec<String>,
    lease: Option<Lease>,
    rights: Option<Rights>,
    number: u64,
    given_up: CancellationToken,
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
            [fence::connect(&present.config.source).await?, fence::connect(&present.config.target).await?];
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
        let telling = Telling::new(forward.primary, request.to, self.pausing.sessions.moved());
        let mut run = Run {
            flipping: self,
            request,
            rehearsal,
            telling,
            forward,
            reverse: None,
            own: None,
            settings: Vec::new(),
            lease: None,
            rights: None,
            number: 0,
            given_up,
        };
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

/// Behind the point of no return nothing may go on at the old primary: a flip that is cut off there, by a panic say, takes the process with it, and the
/// next one goes by the journal.
impl Drop for Run<'_> {
    fn drop(&mut self) {
        if self.lease.is_some() && self.flipping.journal.kept().state == State::Committed {
            tracing::error!(
                "a flip was cut off behind its point of no return: pgshadow ends, and begins with the new primary"
            );
            std::process::abort();
        }
    }
}

impl Run<'_> {
    /// Why it was not done, if it wasn't.
    async fn drive(&mut self) -> Option<Stop> {
        let (mut from, mut event) = (State::Idle, Event::Begin);
        let mut stopped = None;
        loop {
            let (state, effects) = transition(from, event);
            let mut next = (state, Event::Done);
            for (index, effect) in effects.iter().enumerate() {
                let Err(stop) = self.effect(*effect, (from, state)).await else { continue };
                if let Stop::Torn(why) = &stop {
                    tracing::error!(why, "pgshadow ends");
                    std::process::abort();
                }
                // what isn't on disk is not reached
                let reached = if index == 0 && *effect == Effect::Keep { from } else { state };
                if reached == State::Committed || reached == State::Undoing {
                    tracing::error!(why = %stop, "it is tried again");
                    tokio::time::sleep(AGAIN).await;
                }
                next = (reached, Event::Failed);
                stopped = stopped.or(Some(stop).filter(|_| reached != State::Committed));
                break;
            }
            if state == State::Idle && next.1 == Event::Done {
                return stopped;
            }
            (from, event) = next;
        }
    }

    async fn effect(&mut self, effect: Effect, (from, state): (State, State)) -> Result<(), Stop> {
        self.flipping.step(&format!("{effect:?} {state:?}")).await;
        match effect {
            Effect::Prepare | Effect::Hold => {
                let given_up = self.given_up.clone();
                let work = async { if effect == Effect::Prepare { self.prepare().await } else { self.hold().await } };
                tokio::select! {
                    done = work => done,
                    () = given_up.cancelled() => Err(Stop::Failed(GIVEN_UP.to_owned())),
                }
            }
            Effect::Keep => self.keep(from, state),
            Effect::Fence => self.fence().await,
            Effect::Unfence => self.unfence().await,
            Effect::Lift => self.lift().await,
            Effect::Swap => self.swap().await,
            Effect::Resume => {
                self.resume();
                Ok(())
            }
            Effect::Leave => {
                if state == State::Committed {
                    self.leave_old().await
                } else {
                    self.leave_new().await
                }
                Ok(())
            }
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.request.timeout_ms)
    }

    /// Gates, the mirror of the other direction, a row there and back; what is needed while all is held is made ready.
    async fn prepare(&mut self) -> Result<(), Stop> {
        let forward = Arc::clone(&self.forward);
        let own = [fence::connect(&forward.config.source).await?, fence::connect(&forward.config.target).await?];
        let kept = self.flipping.journal.kept();
        let unrehearsed = self.request.unrehearsed || self.rehearsal;
        let gates =
            gates::all(&forward, [&own[0], &own[1]], &self.flipping.pausing, (&kept, unrehearsed), self.timeout());
        let gates = gates.await?;
        let closed = gates::closed(&gates);
        self.telling.report.gates = gates;
        self.telling.at("gates were asked");
        if let Some(closed) = closed {
            return Err(Stop::Refused(closed));
        }
        if !self.request.dry_run {
            hooks::before(&self.flipping.config.cutover, &self.telling.report).await.map_err(Stop::Refused)?;
        }
        let (era, to) = (kept.era + 1, self.request.to);
        recover::forget(&self.flipping.config, era, to).await?;
        let reverse = Direction::open(&self.flipping.config, era, to).map_err(|error| error.to_string())?;
        self.reverse = Some(Arc::clone(&reverse));
        reverse.start().await.map_err(|error| format!("the mirror of the other direction can't be opened: {error}"))?;
        self.telling.at("the mirror of the other direction is open");
        self.flipping.step("Canary").await;
        let ways = canary::there_and_back(&forward, &reverse, upstream).await?;
        self.telling.at(&format!("a row went there in {:?} and came back in {:?}", ways[0], ways[1]));
        let rows = answered(own[0].client.query(NAMED_SETTINGS, &[])).await.map_err(|error| error.to_string())?;
        self.settings = rows.iter().map(|row| row.get(0)).collect();
        self.survey(&reverse).await;
        self.predict(&own).await?;
        self.own = Some(own);
        if self.request.dry_run {
            return Err(Stop::DryRun);
        }
        if let Some(file) = self.request.postpone_flag_file.clone() {
            while tokio::fs::try_exists(&file).await.unwrap_or(true) {
                tokio::time::sleep(AGAIN).await;
            }
            self.telling.at("the flag file is gone");
            self.own =
                Some([fence::connect(&forward.config.source).await?, fence::connect(&forward.config.target).await?]);
        }
        self.has_caught_up().await;
        Ok(())
    }

    /// Sessions look whether they can be taken along, and log in to the new primary ahead, where they may.
    async fn survey(&mut self, reverse: &Direction) {
        // whoever logs in where clients are kept off would be read-only there, if he may at all
        let ahead = self.flipping.journal.kept().rights(self.request.to).is_none();
        let number = self.flipping.routes.prepare(self.flipping.route(reverse, self.settings.clone()), ahead);
        let begun = Instant::now();
        let sessions = &self.flipping.pausing.sessions;
        let (mut unasked, mut unmovable) = sessions.unmovable(number);
        while unasked > 0 && begun.elapsed() < SURVEY_MAX {
            tokio::time::sleep(LOOK * 5).await;
            (unasked, unmovable) = sessions.unmovable(number);
        }
        self.telling.report.unmovable = unmovable
            .into_iter()
            .map(|(client, why)| Unmovable {
                pid: client.pid,
                user: client.user,
                application: client.application,
                address: client.address.to_string(),
                why,
            })
            .collect();
        self.telling.at(&format!("sessions were asked; {unasked} have not answered"));
    }

    /// A moment at which little is left to be applied, if there is one soon: what is left then is waited for while all is held.
    async fn has_caught_up(&self) {
        let begun = Instant::now();
        while self.forward.mirror.book.lag().ms > LITTLE_MS && begun.elapsed() < CATCHES_UP_IN {
            tokio::time::sleep(LOOK * 5).await;
        }
    }

    /// What the pause will take, by what the same steps take now: the drain of the log, the sequences' reading, the rights, the journal.
    async fn predict(&mut self, own: &[Own; 2]) -> Result<(), Stop> {
        let begun = Instant::now();
        sequences::wanted(&own[0].client, &self.forward.config.mirror.exclude).await?;
        fence::rights(&own[0].client).await?;
        for place in own {
            answered(place.client.simple_query("SELECT 1")).await.map_err(|error| error.to_string())?;
        }
        self.flipping.keep(|_| {})?;
        let steps = begun.elapsed() * 2;
        let lag = Duration::from_millis(self.forward.mirror.book.lag().ms);
        let predicted = u64::try_from((steps + lag).as_millis()).unwrap_or(u64::MAX);
        self.telling.report.predicted_pause_ms = Some(predicted);
        Ok(())
    }

    /// From here on new transactions wait.
    async fn hold(&mut self) -> Result<(), Stop> {
        let (sessions, forward) = (Arc::clone(&self.flipping.pausing.sessions), Arc::clone(&self.forward));
        let timeout = self.timeout();
        drop(sessions.take_waits());
        let deadline = Instant::now() + timeout;
        let lease = sessions.pause.begin(timeout + LEASE_BEYOND);
        self.lease = Some(lease.ok_or_else(|| "new transactions are held by another command".to_owned())?);
        self.telling.held();
        if !drain(&sessions, deadline).await {
            self.telling.report.waited_for = self.flipping.pausing.offenders().await;
            let open = self.telling.report.waited_for.len();
            return Err(Stop::Failed(format!("{open} transactions did not end within {timeout:?}")));
        }
        self.telling.at("open transactions have ended");
        let mirror = &forward.mirror;
        // one that was committed past pgshadow is looked up first
        if tokio::time::timeout_at(deadline, mirror.prepared.looked_at()).await.is_err() {
            return Err(Stop::Failed("prepared transactions could not be looked up".to_owned()));
        }
        let mark = mirror.book.barrier();
        let healed = forward.ask(|applier| applier.healed(mark)).ok_or_else(|| "the applier has ended".to_owned())?;
        let drained = async {
            mirror.book.wait_settled(mark).await;
            mirror.book.wait_applied(mark).await;
            healed.await;
        };
        if tokio::time::timeout_at(deadline, drained).await.is_err() {
            let left = mirror.book.lag().entries;
            return Err(Stop::Failed(format!(
                "the shadow did not get all within {timeout:?}: {left} transactions are left"
            )));
        }
        self.telling.at("the log is drained");
        self.flipping.step("Sequences").await;
        let Some([primary, shadow]) = &self.own else { return Err(Stop::Failed("no connection".to_owned())) };
        let mut again = gates::of_the_moment(&forward);
        again.push(gates::prepared(&primary.client).await?);
        again.push(gates::work(&forward));
        if let Some(reverse) = &self.reverse {
            again.push(gates::of_the_way_back(reverse));
        }
        if let Some(closed) = gates::closed(&again) {
            return Err(Stop::Failed(format!("it is not so any more: {closed}")));
        }
        let wanted = sequences::wanted(&primary.client, &forward.config.mirror.exclude).await?;
        self.telling.report.sequences = sequences::set(&shadow.client, &wanted).await?;
        self.telling.at("sequences are set");
        self.rights = Some(fence::rights(&primary.client).await?);
        Ok(())
    }

    /// The journal: at [`State::Committed`] the point of no return.
    fn keep(&mut self, from: State, state: State) -> Result<(), Stop> {
        let (was, to, rehearsal) = (self.forward.primary, self.request.to, self.rehearsal);
        let lease = self.lease.as_ref();
        match state {
            State::Fencing => {
                let rights = self.rights.clone();
                self.flipping.keep(|kept| {
                    kept.state = state;
                    *kept.rights(was) = rights;
                })
            }
            State::Committed => {
                if self.given_up.is_cancelled() {
                    return Err(Stop::Failed(GIVEN_UP.to_owned()));
                }
                // it can't end by itself any more
                lease.ok_or_else(|| "nothing is held".to_owned())?.commit().map_err(|error| error.to_string())?;
                self.flipping.keep(|kept| {
                    (kept.state, kept.primary) = (state, to);
                    kept.era += 1;
                    // there, and no more once it is back
                    kept.rehearsing = rehearsal && !kept.rehearsing;
                })?;
                self.telling.at("the journal is written");
                Ok(())
            }
            _ if from == State::Undoing => self.flipping.keep(|kept| {
                kept.state = State::Idle;
                *kept.rights(was) = None;
            }),
            _ => self.flipping.keep(|kept| {
                kept.state = State::Idle;
                *kept.rights(to) = None;
            }),
        }
    }

    async fn fence(&mut self) -> Result<(), Stop> {
        let (Some([primary, _]), Some(rights)) = (&self.own, &self.rights) else {
            return Err(Stop::Failed("no connection".to_owned()));
        };
        let lease = self.lease.as_ref().ok_or_else(|| "nothing is held".to_owned())?;
        lease.renew(LEASE_BEYOND).map_err(|error| error.to_string())?;
        fence::fence(&primary.client, &self.forward.config.source, rights).await?;
        // nobody can come any more: whoever is there may have written what was not seen
        let past = bypass::past(&primary.client, &self.forward.mirror).await.map_err(|error| error.to_string())?;
        if !past.is_empty() {
            let why = format!("clients are connected past pgshadow, and may have written: {}", past.join("; "));
            self.forward.mirror.lapse(&[LapseOf::Every], &why);
            return Err(Stop::Failed(why));
        }
        self.telling.at("clients are kept off the old primary");
        Ok(())
    }

    async fn unfence(&mut self) -> Result<(), Stop> {
        let Some(rights) = &self.rights else { return Ok(()) };
        let own = fence::connect(&self.forward.config.source).await?;
        fence::unfence(&own.client, &self.forward.config.source, rights).await?;
        self.telling.at("clients are let in again");
        Ok(())
    }

    async fn lift(&mut self) -> Result<(), Stop> {
        let place = self.request.to;
        let Some(rights) = self.flipping.journal.kept().rights(place).clone() else { return Ok(()) };
        let own = fence::connect(self.flipping.database(place)).await?;
        fence::unfence(&own.client, self.flipping.database(place), &rights).await?;
        self.telling.at("clients are let in at the new primary");
        Ok(())
    }

    async fn swap(&mut self) -> Result<(), Stop> {
        let Some(reverse) = self.reverse.clone() else { return Err(Stop::Failed("no other direction".to_owned())) };
        let flipping = self.flipping;
        if flipping.present.get().is_none_or(|present| present.era != reverse.era) {
            recover::carry_certificates(&self.forward, &reverse);
            let sessions = &flipping.pausing.sessions;
            flipping.present.set(Arc::clone(&reverse));
            flipping.pausing.moved_to(&reverse.config.source.postgres);
            if let Some(secrets) = &flipping.secrets {
                secrets.moved_to(&reverse.config.source.postgres);
            }
            self.number = flipping.routes.change(flipping.route(&reverse, std::mem::take(&mut self.settings)));
            let listeners = async {
                while sessions.listening_elsewhere(self.number) > 0 {
                    tokio::time::sleep(LOOK).await;
                }
            };
            let _ = tokio::time::timeout(LISTENERS_MAX, listeners).await;
            // those who come from now on are where they are to be
            flipping.routes.prepare_nothing();
            self.telling.at("new transactions go to the new primary");
        }
        Ok(())
    }

    fn resume(&mut self) {
        if self.lease.take().is_some() {
            self.telling.resumed();
        }
    }

    /// Sessions follow; whoever is left at the old primary is ended there.
    async fn leave_old(&mut self) {
        let sessions = Arc::clone(&self.flipping.pausing.sessions);
        let moved = async {
            while sessions.elsewhere(self.number) > 0 {
                tokio::time::sleep(LOOK * 10).await;
            }
        };
        let all = tokio::time::timeout(MOVED_MAX, moved).await.is_ok();
        self.telling.at(if all { "all sessions have followed" } else { "some sessions have not followed" });
        if let Some([primary, _]) = &self.own {
            match fence::end_others(&primary.client).await {
                Ok(0) => {}
                Ok(left) => tracing::warn!(left, "sessions at the old primary could not be ended"),
                Err(error) => tracing::warn!(error, "sessions at the old primary could not be ended"),
            }
        }
        self.telling.sessions(&sessions);
        let pids = self.forward.mirror.backends.pids();
        self.forward.close(&pids).await;
    }

    async fn leave_new(&mut self) {
        self.flipping.routes.prepare_nothing();
        self.telling.sessions(&self.flipping.pausing.sessions);
        if let Some(reverse) = self.reverse.take() {
            reverse.close(&[]).await;
            recover::remove(&reverse.config);
        }
    }
}
