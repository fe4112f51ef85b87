//! Which server is the primary, and how sessions to it are watched: changed while they are held, at a flip.
use crate::config::Upstream;
use bytes::Bytes;
use pgshadow_capture::Shared;
use pgshadow_wire::startup::Startup;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Sessions that nobody uses and that are taken along at the same time.
const MOVED_AT_ONCE: usize = 16;

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

/// What all sessions are asked, ahead of a change.
struct Survey<J> {
    /// Goes up with each.
    number: u64,
    /// The way that is to come: who can be taken along logs in there already. `None`: it isn't to come after all.
    next: Option<Arc<Route<J>>>,
}

impl<J> Clone for Survey<J> {
    fn clone(&self) -> Self {
        Self { number: self.number, next: self.next.clone() }
    }
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
}

impl<J> Routes<J> {
    /// The first one. `others`: where databases are that aren't migrated.
    #[must_use]
    pub fn new(first: Route<J>, others: Upstream) -> Self {
        let (number, changes) = (AtomicU64::new(first.number), watch::Sender::new(first.number));
        let others =
            Route { number: first.number, upstream: others, database: None, settings: Vec::new(), shared: None };
        let moving = Arc::new(Semaphore::new(MOVED_AT_ONCE));
        let survey = watch::Sender::new(Survey { number: 0, next: None });
        Self { first: Arc::new(others), now: RwLock::new(Arc::new(first)), number, changes, survey, moving }
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

    /// Has all sessions look whether they can be taken along (see [`crate::Sessions::unmovable`]), and log in to where they are to go: the survey's
    /// number. A session is asked once nothing is under way in it.
    pub fn prepare(&self, next: Route<J>) -> u64 {
        self.ask(Some(Arc::new(next)))
    }

    /// It isn't to come after all.
    pub fn prepare_nothing(&self) {
        self.ask(None);
    }

    fn ask(&self, next: Option<Arc<Route<J>>>) -> u64 {
        let mut number = 0;
        self.survey.send_modify(|survey| {
            survey.number += 1;
            survey.next = next;
            number = survey.number;
        });
        number
    }

    /// The next survey behind this one.
    pub(crate) async fn surveyed(&self, number: u64) -> (u64, Option<Arc<Route<J>>>) {
        let mut survey = self.survey.subscribe();
        let newer = survey.wait_for(|survey| survey.number > number).await;
        let found = newer.ok().map(|survey| (survey.number, survey.next.clone()));
        match found {
            Some(found) => found,
            None => std::future::pending().await,
        }
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
        Leave(Arc::clone(&self.moving).acquire_owned().await.ok())
    }
}
