//! One flip, effect by effect.
use super::super::bypass;
use super::super::direction::Direction;
use super::super::own::{self, Own};
use super::super::pausing::drain;
use super::super::primary::answered;
use super::super::upstream;
use super::fence;
use super::report::Telling;
use super::{AGAIN, Flipping, LOOK, Stop, ahead, canary, gates, hooks, recover, sequences};
use crate::config::Unmovable as UnmovablePolicy;
use pgshadow_admin::{FlipRequest, Unmovable};
use pgshadow_catalog::Redefined;
use pgshadow_cutover::{Effect, Event, Rights, State, transition};
use pgshadow_divergence::LapseOf;
use pgshadow_proxy::Lease;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the pause may last beyond the time that open transactions have, before it ends by itself.
const LEASE_BEYOND: Duration = Duration::from_secs(15);
/// How long listening sessions are waited for while all is held, and all sessions afterwards.
const LISTENERS_MAX: Duration = Duration::from_secs(2);
const MOVED_MAX: Duration = Duration::from_secs(60);
/// How long sessions have to look at themselves: those in a transaction do so behind it.
const SURVEY_MAX: Duration = Duration::from_secs(10);
/// What is little to be applied, by the age of the oldest, and how long such a moment is waited for.
const LITTLE_MS: u64 = 20;
const CATCHES_UP_IN: Duration = Duration::from_secs(5);
const GIVEN_UP: &str = "the command was given up";
/// Settings of the application's own that functions, views and policies name: the server lists none of them.
const NAMED_SETTINGS: &str = "
SELECT DISTINCT m[1] FROM (
  SELECT p.prosrc AS text FROM pg_catalog.pg_proc p WHERE p.oid OPERATOR(pg_catalog.>=) 16384 AND p.prosrc IS NOT NULL
  UNION ALL SELECT pg_catalog.pg_get_expr(polqual, polrelid) FROM pg_catalog.pg_policy
  UNION ALL SELECT pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c WHERE c.relkind OPERATOR(pg_catalog.=) 'v' AND c.oid OPERATOR(pg_catalog.>=) 16384) AS t,
  pg_catalog.regexp_matches(t.text, '(?:set_config|current_setting)\\s*\\(\\s*''([A-Za-z_][A-Za-z0-9_$]*(?:\\.[A-Za-z_][A-Za-z0-9_$]*)+)''', 'gi') AS m";

/// One flip.
pub(super) struct Run<'a> {
    flipping: &'a Flipping,
    pub request: FlipRequest,
    rehearsal: bool,
    pub telling: Telling,
    forward: Arc<Direction>,
    reverse: Option<Arc<Direction>>,
    /// Connections to the present primary and to its shadow.
    own: Option<[Own; 2]>,
    settings: Vec<String>,
    /// The epoch of the old primary's catalog for which what was looked up ahead holds.
    looked_up: Option<u64>,
    lease: Option<Lease>,
    rights: Option<Rights>,
    number: u64,
    given_up: CancellationToken,
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

impl<'a> Run<'a> {
    pub fn new(
        flipping: &'a Flipping,
        request: FlipRequest,
        rehearsal: bool,
        forward: Arc<Direction>,
        given_up: CancellationToken,
    ) -> Self {
        let telling = Telling::new(forward.primary, request.to, flipping.pausing.sessions.moved());
        Self {
            flipping,
            request,
            rehearsal,
            telling,
            forward,
            reverse: None,
            own: None,
            settings: Vec::new(),
            looked_up: None,
            lease: None,
            rights: None,
            number: 0,
            given_up,
        }
    }

    /// Why it was not done, if it wasn't.
    pub async fn drive(&mut self) -> Option<Stop> {
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
        let own = match tokio::try_join!(own::connect(&forward.config.source), own::connect(&forward.config.target)) {
            Ok((primary, shadow)) => [primary, shadow],
            Err(why) => {
                self.telling.report.gates = gates::unreachable(&forward, &why);
                return Err(Stop::Refused(gates::closed(&self.telling.report.gates).unwrap_or(why)));
            }
        };
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
        self.ask_sessions(&reverse, kept.rehearsing).await?;
        self.look_up(&reverse).await;
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
            self.ask_sessions(&reverse, kept.rehearsing).await?;
            self.look_up(&reverse).await;
            self.own = Some([own::connect(&forward.config.source).await?, own::connect(&forward.config.target).await?]);
        }
        self.has_caught_up().await;
        Ok(())
    }

    /// Whether there are sessions that can't be taken along, and that keeps the flip from being done.
    async fn ask_sessions(&mut self, reverse: &Direction, rehearsing: bool) -> Result<(), Stop> {
        let unasked = self.survey(reverse).await;
        let policy = match self.flipping.config.cutover.unmovable {
            // the way back was promised
            _ if self.rehearsal && rehearsing => UnmovablePolicy::End,
            policy => policy,
        };
        let gate = gates::unmovable(policy, &self.telling.report.unmovable, unasked);
        let closed = gates::closed(std::slice::from_ref(&gate));
        self.telling.report.gates.retain(|known| known.name != gate.name);
        self.telling.report.gates.push(gate);
        closed.map_or(Ok(()), |closed| Err(Stop::Refused(closed)))
    }

    /// Tables of the new primary, as sessions will want to know them.
    async fn look_up(&mut self, reverse: &Direction) {
        // also what was looked up before a flag file was waited for
        reverse.mirror.catalog.changed(&Redefined::Nothing);
        let looked_up = ahead::look_up(&self.forward, reverse).await;
        self.looked_up = looked_up.map(|(epoch, _)| epoch);
        self.telling.at(&format!("{} names were looked up there", looked_up.map_or(0, |(_, names)| names)));
    }

    /// What was looked up there before something was defined anew here holds no more. Once all is applied nothing else comes.
    fn forget_what_is_old(&self, reverse: &Direction) {
        if self.looked_up != Some(self.forward.mirror.catalog.epoch()) {
            reverse.mirror.catalog.changed(&Redefined::Nothing);
        }
    }

    /// Sessions look whether they can be taken along, and log in to the new primary ahead, where they may.
    async fn survey(&mut self, reverse: &Direction) -> usize {
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
        let quiet = tokio::time::timeout(SURVEY_MAX, self.flipping.routes.is_quiet()).await.is_ok();
        let ahead = if ahead && quiet { ", and are logged in there as far as they are used" } else { "" };
        self.telling.at(&format!("sessions were asked{ahead}; {unasked} have not answered"));
        unasked
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
        let own = own::connect(&self.forward.config.source).await?;
        fence::unfence(&own.client, &self.forward.config.source, rights).await?;
        self.telling.at("clients are let in again");
        Ok(())
    }

    async fn lift(&mut self) -> Result<(), Stop> {
        let place = self.request.to;
        let Some(rights) = self.flipping.journal.kept().rights(place).clone() else { return Ok(()) };
        let own = own::connect(self.flipping.database(place)).await?;
        fence::unfence(&own.client, self.flipping.database(place), &rights).await?;
        self.telling.at("clients are let in at the new primary");
        Ok(())
    }

    async fn swap(&mut self) -> Result<(), Stop> {
        let Some(reverse) = self.reverse.clone() else { return Err(Stop::Failed("no other direction".to_owned())) };
        let flipping = self.flipping;
        if flipping.present.get().is_none_or(|present| present.era != reverse.era) {
            recover::carry_certificates(&self.forward, &reverse);
            self.forget_what_is_old(&reverse);
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
        if let Some(reverse) = &self.reverse {
            recover::carry_acknowledged(&self.forward, reverse);
        }
        let pids = self.forward.mirror.backends.pids();
        self.forward.close(&pids).await;
        // of the direction before that one nothing is asked any more
        if let Some(earlier) = self.forward.era.checked_sub(1).filter(|era| *era > 0) {
            recover::remove(&self.flipping.config.towards(earlier, self.request.to));
        }
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
