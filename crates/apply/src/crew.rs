//! The lanes together: connects them, finds out where the shadow stands, and starts again after every loss.

use crate::beside::Beside;
use crate::common::Common;
use crate::lane::Lane;
use crate::loader;
use crate::lock::Life;
use crate::session::Session;
use crate::tie::{Had, Standing, had, keep_had, standing};
use crate::{AppliedPosition, Error, LogExtent};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pgshadow_model::Sequence;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Name of the store's text that keeps which life of the shadow was seen last.
const LIFE_KEPT: &str = "shadow_life";

const PAUSE_MIN: Duration = Duration::from_millis(100);

/// All lanes of the stream, and what runs beside them.
pub(crate) struct Crew {
    common: Arc<Common>,
    lanes: Vec<Lane>,
    beside: Beside,
    /// Whether the position was read, since the log was opened.
    resumed: bool,
}

impl Crew {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        let lanes = (0..common.config.lanes.max(1)).map(|_| Lane::new(Arc::clone(&common))).collect();
        Self { beside: Beside::new(Arc::clone(&common)), common, lanes, resumed: false }
    }

    pub(crate) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let (shared, common) = (Arc::clone(&self.common.shared), Arc::clone(&self.common));
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => {}
            () = self.live() => {}
            never = loader::run(&common) => match never {},
        }
        shared.update(|s| (s.connected, s.doing) = (false, "stopped".to_owned()));
    }

    async fn live(&mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let before = self.common.entries_applied();
            self.common.doing("connecting to the shadow");
            let error = match self.one_life().await {
                Ok(never) => match never {},
                Err(e) => e,
            };
            tracing::warn!(error = %error, "the applier lost the shadow and tries again");
            self.common.shared.update(|s| (s.connected, s.last_error) = (false, Some(error.to_string())));
            let worked = self.common.entries_applied() > before;
            pause = if worked { PAUSE_MIN } else { (pause * 2).min(self.common.config.backoff_max) };
            self.common.doing("waiting before the next attempt to reach the shadow");
            tokio::time::sleep(pause).await;
        }
    }

    /// Works until one of the connections is lost: then all of them are made anew.
    async fn one_life(&mut self) -> Result<Infallible, Error> {
        let (common, stream) = (Arc::clone(&self.common), &self.common.config.stream.clone());
        let own_pids = common.take_pids();
        let lead = Session::lead(&*common.dial, &common.config, common.log.extent(), &own_pids).await;
        let (lead, life) = lead.inspect_err(|_| common.remember_pids(own_pids))?;
        common.remember_pids([lead.pid]);
        common.begin_life(life);
        let position = self.resume(&lead).await?;
        lead.forget_started(stream, position.below).await?;
        common.healing.load(&lead, stream).await?;
        common.awaited.read(lead.client(), stream).await?;
        common.open_trace()?;
        common.healing.show(&common.shared);
        let mut sessions = vec![lead];
        sessions.extend(self.followers(life).await);
        common.remember_pids(sessions.iter().skip(1).map(|session| session.pid));
        common.shared.update(|s| (s.connected, s.last_error) = (true, None));
        let lanes = self.lanes.iter_mut().zip(&mut sessions).map(|(lane, session)| lane.serve(session));
        let mut working: FuturesUnordered<_> = lanes.collect();
        tokio::select! {
            Some(lost) = working.next() => lost,
            lost = self.beside.serve(life) => lost,
        }
    }

    /// The other lanes' connections, as many as the shadow gives.
    async fn followers(&self, life: Life) -> Vec<Session> {
        let common = &self.common;
        let follow = |lane| Session::follow(&*common.dial, &common.config, common.log.extent(), life, lane);
        let numbers = (1..).take(self.lanes.len() - 1);
        let connected = futures::future::join_all(numbers.map(follow)).await;
        let failed =
            |error: &Error| tracing::warn!(%error, "a lane has no connection to the shadow; the others work on");
        connected.into_iter().filter_map(|session| session.inspect_err(failed).ok()).collect()
    }

    /// Finds out where the shadow stands. What it doesn't have and nobody can bring any more makes every table suspect.
    async fn resume(&mut self, session: &Session) -> Result<AppliedPosition, Error> {
        let (common, log) = (Arc::clone(&self.common), self.common.log.extent());
        let stream = &common.config.stream;
        self.doubt_what_a_crash_empties(session).await?;
        let (stored, had) = (session.stored(stream).await?, had(&common.store, &log)?);
        let is_new = stored.is_none();
        let position = match standing(stored, &log, !self.resumed, had) {
            Standing::Follows(position) => position,
            Standing::Gap(position, reason) => {
                common.suspect(None, reason).await?;
                position
            }
            Standing::Foreign(reason) => {
                let known = had.map_or(0, |had| had.mark);
                return self.start_anew(session, &log, known, reason).await;
            }
        };
        if is_new || session.count_positions(stream).await? > 1 {
            session.join_positions(stream, &position).await?;
        }
        if position.below < common.below() {
            let reason = "the shadow is back at an older state: transactions that were applied are gone from it";
            common.suspect(None, reason.to_owned()).await?;
        }
        // once all is doubted that it hasn't got any more
        if let Some(had) = had {
            self.keep_had(session, &log, had.mark, position.below).await?;
        }
        self.resumed = true;
        common.resumed_at(position.below);
        common.book.restore(&position);
        common.log.applied(position.below);
        self.gather(&position);
        Ok(position)
    }

    /// Unlogged tables are empty after a crash: those of the shadow are suspect once it has another life.
    async fn doubt_what_a_crash_empties(&self, session: &Session) -> Result<(), Error> {
        let store = &self.common.store;
        let (life, unlogged) = session.life().await?;
        let known = store.meta_get(LIFE_KEPT)?;
        if known.as_ref() == Some(&life) {
            return Ok(());
        }
        if known.is_some() {
            let excluded = store.excluded()?.unwrap_or_default();
            for table in unlogged.iter().filter(|table| !excluded.contains(table)) {
                let reason = "it is unlogged, and the shadow was started again: a crash would have emptied it";
                self.common.suspect(Some(table), reason.to_owned()).await?;
            }
        }
        let store = Arc::clone(store);
        Ok(tokio::task::spawn_blocking(move || store.meta_set(LIFE_KEPT, &life)).await??)
    }

    /// [`keep_had`], which waits for the disk. What it had before is doubted by now, if it hasn't got it any more. `known`: the mark of then.
    async fn keep_had(&self, session: &Session, log: &LogExtent, known: u64, below: Sequence) -> Result<(), Error> {
        let mark = session.mark(&self.common.config.stream, known).await?;
        self.common.log.marked(mark);
        let (store, log) = (Arc::clone(&self.common.store), log.clone());
        Ok(tokio::task::spawn_blocking(move || keep_had(&store, &log, Had { below, mark })).await??)
    }

    /// What lanes had in hand goes to the first one: there may be fewer of them now.
    fn gather(&mut self, position: &AppliedPosition) {
        let lanes = std::mem::take(&mut self.lanes);
        self.lanes = lanes.iter().map(|_| Lane::new(Arc::clone(&self.common))).collect();
        if let Some(first) = self.lanes.first_mut() {
            first.take_over(lanes, |sequence| position.contains(sequence));
        }
        self.beside.keep(|sequence| !position.contains(sequence));
    }

    /// The shadow's numbers aren't this log's: every table is to be reloaded, and this log's own numbers count from here on.
    async fn start_anew(
        &mut self,
        session: &Session,
        log: &LogExtent,
        known: u64,
        reason: String,
    ) -> Result<AppliedPosition, Error> {
        let common = Arc::clone(&self.common);
        common.suspect(None, reason).await?;
        if !self.resumed {
            // Nobody knows what of it the shadow has; and a statement must not be run there twice.
            common.book.skip(log.last);
            common.book.restore(&AppliedPosition::default());
        }
        session.forget_numbers(&common.config.stream).await?;
        let store = Arc::clone(&common.store);
        tokio::task::spawn_blocking(move || store.forget_all_origins()).await??;
        let position = common.book.applied_position();
        session.join_positions(&common.config.stream, &position).await?;
        self.keep_had(session, log, known, position.below).await?;
        self.resumed = true;
        common.resumed_at(position.below);
        common.log.applied(position.below);
        self.gather(&position);
        Ok(position)
    }
}
