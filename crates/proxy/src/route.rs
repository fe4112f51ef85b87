//! Which server is the primary, and how sessions to it are watched: changed while they are held, at a flip.
use crate::config::Upstream;
use bytes::Bytes;
use pgshadow_capture::Shared;
use pgshadow_wire::startup::Startup;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};

/// When they begin to be, behind a change: those that are used come by themselves.
const IDLE_AFTER: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(5);
/// Sessions that nobody uses and that are taken along at the same time, at least and at most: one for each processor. They shall not be felt by those that
/// are used.
const MOVED_AT_ONCE: [usize; 2] = [2, 16];

/// The way to a primary.
pub struct Route<J> {
    /// Goes up with each change.
    pub number: u64,
    /// Its server.
    pub upstream: Upstream,
    /// The database's name there, where that isn't what clients ask for.
    pub database: Option<String>,
    /// Names of settings of the application's own (`app.tenant`) that functions may set: the server doesn't list those.
    pub settings: Vec<String>,
    /// `None`: mirroring is off, frames are only counted.
    pub shared: Option<Arc<Shared<J>>>,
}

impl<J> Route<J> {
    /// The client's startup packet, as this server is to get it.
    pub(crate) fn packet(&self, startup: &Startup) -> Bytes {
        match &self.database {
            Some(name) => startup.with_database(name.as_bytes()),
            None => startup.bytes.clone(),
        }
    }
}

/// Without what is shared.
impl<J> fmt::Debug for Route<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("number", &self.number).field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

/// Leave to take another way; few have it at the same time.
#[derive(Debug)]
pub(crate) struct Leave(#[allow(dead_code, reason = "given back with it")] Option<OwnedSemaphorePermit>);

/// A session that is used is being taken along.
#[derive(Debug)]
pub(crate) struct Urgent(Arc<AtomicUsize>);

impl Drop for Urgent {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What all sessions are asked, ahead of a change.
struct Survey<J> {
    /// Goes up with each.
    number: u64,
    /// The way that is to come: who can be taken along logs in there already. `None`: it isn't to come after all.
    next: Option<Arc<Route<J>>>,
    ahead: bool,
    begun: Instant,
}

impl<J> Clone for Survey<J> {
    fn clone(&self) -> Self {
        Self { number: self.number, next: self.next.clone(), ahead: self.ahead, begun: self.begun }
    }
}

/// A session's part in a survey.
pub(crate) struct Asked<J> {
    pub number: u64,
    /// When it was begun.
    pub begun: Instant,
    /// `None`: nothing is to come after all.
    pub next: Option<Arc<Route<J>>>,
    /// It may log in there.
    pub ahead: bool,
    pub leave: Leave,
}

/// Without what is shared.
impl<J> fmt::Debug for Survey<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survey").field("number", &self.number).field("next", &self.next).finish()
    }
}

/// The present way, and its changes.
#[derive(Debug)]
pub struct Routes<J> {
    /// Where databases are that aren't migrated.
    first: Arc<Route<J>>,
    now: RwLock<Arc<Route<J>>>,
    /// Of the present one: asked ahead of each transaction.
    number: AtomicU64,
    changes: watch::Sender<u64>,
    survey: watch::Sender<Survey<J>>,
    /// Sessions that nobody uses are taken along a few at a time; those that are used at once.
    moving: Arc<Semaphore>,
    at_once: usize,
    /// So many that are used are being taken along now: the others wait for them.
    urgent: Arc<AtomicUsize>,
}

impl<J> Routes<J> {
    /// The first one. `others`: where databases are that aren't migrated.
    #[must_use]
    pub fn new(first: Route<J>, others: Upstream) -> Self {
        let (number, changes) = (AtomicU64::new(first.number), watch::Sender::new(first.number));
        let others =
            Route { number: first.number, upstream: others, database: None, settings: Vec::new(), shared: None };
        let [least, most] = MOVED_AT_ONCE;
        let at_once = std::thread::available_parallelism().map_or(least, |n| n.get().clamp(least, most));
        let moving = Arc::new(Semaphore::new(at_once));
        let survey = watch::Sender::new(Survey { number: 0, next: None, ahead: false, begun: Instant::now() });
        Self {
            at_once,
            first: Arc::new(others),
            now: RwLock::new(Arc::new(first)),
            number,
            changes,
            survey,
            moving,
            urgent: Arc::default(),
        }
    }

    /// The present one.
    #[must_use]
    pub fn now(&self) -> Arc<Route<J>> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The way to where databases are that aren't migrated.
    pub(crate) fn first(&self) -> Arc<Route<J>> {
        Arc::clone(&self.first)
    }

    /// Another one from now on; its number, which is given here. Sessions must be held.
    pub fn change(&self, mut route: Route<J>) -> u64 {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        route.number = now.number + 1;
        let number = route.number;
        *now = Arc::new(route);
        self.number.store(number, Ordering::SeqCst);
        drop(now);
        self.changes.send_replace(number);
        number
    }

    /// Has all sessions look whether they can be taken along (see [`crate::Sessions::unmovable`]): the survey's number. `ahead`: they log in to where
    /// they are to go, as what they will be there. A session is asked once nothing is under way in it.
    pub fn prepare(&self, next: Route<J>, ahead: bool) -> u64 {
        self.ask(Some(Arc::new(next)), ahead)
    }

    /// It isn't to come any more.
    pub fn prepare_nothing(&self) {
        self.ask(None, false);
    }

    /// The number of the last survey: whoever comes now has no part in it.
    pub(crate) fn last_survey(&self) -> u64 {
        self.survey.borrow().number
    }

    fn ask(&self, next: Option<Arc<Route<J>>>, ahead: bool) -> u64 {
        let mut number = 0;
        self.survey.send_modify(|survey| {
            survey.number += 1;
            (survey.next, survey.ahead, survey.begun) = (next, ahead, Instant::now());
            number = survey.number;
        });
        number
    }

    /// The next survey behind this one, and leave to take part: few do at the same time.
    pub(crate) async fn surveyed(&self, number: u64, is_used: bool) -> Asked<J> {
        let mut survey = self.survey.subscribe();
        let _ = survey.wait_for(|survey| survey.number > number).await;
        if !is_used {
            sleep(IDLE_AFTER).await;
        }
        let leave = Leave(Arc::clone(&self.moving).acquire_owned().await.ok());
        let Survey { number, next, ahead, begun } = survey.borrow().clone();
        Asked { number, begun, next, ahead, leave }
    }

    /// Waits until nobody takes part in a survey at this moment, nor logs in ahead.
    pub async fn is_quiet(&self) {
        let all = u32::try_from(self.at_once).unwrap_or(u32::MAX);
        let _ = self.moving.acquire_many(all).await;
    }

    /// What whoever logs in from now on is given, at the end of the same way.
    pub fn give(&self, mut route: Route<J>) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        route.number = now.number;
        *now = Arc::new(route);
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// Once another than this is the present one, leave to take it. A session that is used needs none, nor one that listens.
    pub(crate) async fn leave_to_move(&self, number: u64, listens: bool) -> Leave {
        let mut changes = self.changes.subscribe();
        let _ = changes.wait_for(|now| *now != number).await;
        if listens {
            return Leave(None);
        }
        sleep(IDLE_AFTER).await;
        let leave = Leave(Arc::clone(&self.moving).acquire_owned().await.ok());
        while self.urgent.load(Ordering::SeqCst) > 0 {
            sleep(LOOK).await;
        }
        leave
    }

    /// One that is used is being taken along, for as long as this is held.
    pub(crate) fn urgent(&self) -> Urgent {
        self.urgent.fetch_add(1, Ordering::SeqCst);
        Urgent(Arc::clone(&self.urgent))
    }
}
