//! What others ask of the applier: a lane does it between two batches.

use crate::Error;
use crate::dial::Connected;
use crate::hold::{Hold, HoldOf};
use crate::lane::Lane;
use crate::load::LoadSnapshot;
use crate::pair::{PairError, SnapshotPair};
use crate::reread::Reread;
use crate::session::Session;
use pgshadow_model::QualifiedName;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Notify, oneshot};

/// So many may wait; more are told at once that the applier can't.
const WAITING_MAX: usize = 16;

type Answer<T> = oneshot::Sender<Result<T, PairError>>;

/// One request, with where the answer goes.
pub(crate) enum Request {
    /// Two snapshots that hold the same.
    Pair(Answer<SnapshotPair>),
    /// Tables that await their load.
    Await(Vec<QualifiedName>, Answer<()>),
    /// A snapshot to load from.
    Load(HoldOf, Answer<LoadSnapshot>),
    /// Something to be held that no lane has in its hands any more.
    Still(HoldOf, Answer<Hold>),
    /// Tables that are loaded, with what holds them until that is noted.
    Loaded(Vec<QualifiedName>, Option<Hold>, Answer<Option<Hold>>),
    /// A connection that may write to the shadow.
    Writer(Answer<Connected>),
    /// Rows to be read again on the primary and written as they are there.
    Reread(Vec<Reread>, Answer<()>),
}

impl Request {
    fn is_given_up(&self) -> bool {
        match self {
            Self::Pair(answer) => answer.is_closed(),
            Self::Load(_, answer) => answer.is_closed(),
            Self::Still(_, answer) => answer.is_closed(),
            Self::Writer(answer) => answer.is_closed(),
            Self::Loaded(_, _, answer) => answer.is_closed(),
            Self::Await(_, answer) | Self::Reread(_, answer) => answer.is_closed(),
        }
    }
}

/// Who waits for an answer.
#[derive(Default)]
pub(crate) struct Asked {
    queue: Mutex<VecDeque<Request>>,
    more: Notify,
}

impl Asked {
    pub(crate) fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.retain(|request| !request.is_given_up());
        if queue.len() < WAITING_MAX {
            queue.push_back(request(answer));
        }
        drop(queue);
        self.more.notify_one();
        answered
    }

    /// Returns once somebody has asked.
    pub(crate) async fn wait(&self) {
        self.more.notified().await;
    }

    /// The next one who still waits.
    pub(crate) fn next(&self) -> Option<Request> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| queue.pop_front()).find(|request| !request.is_given_up())
    }
}

impl Lane {
    /// Does what was asked. Fails only for the sake of the lane's own connection.
    pub(crate) async fn answer(&mut self, session: &mut Session, request: Request) -> Result<(), Error> {
        match request {
            Request::Pair(answer) => {
                let made = self.pair(session).await;
                reply(session, answer, made)
            }
            Request::Await(tables, answer) => {
                let done = self.await_load(session, &tables).await.map_err(PairError::from);
                reply(session, answer, done)
            }
            Request::Load(held, answer) => {
                let made = self.load_snapshot(session, &held).await;
                reply(session, answer, made)
            }
            Request::Still(held, answer) => {
                let made = self.still(&held).await;
                reply(session, answer, made)
            }
            Request::Loaded(tables, hold, answer) => {
                let done = self.end_load(session, &tables).await.map_err(PairError::from);
                let done = match done {
                    Ok(()) => Ok(hold),
                    Err(error) => {
                        // where the answer was lost it may be noted all the same: nothing goes on before the shadow was asked
                        self.awaited.keep_until_read(hold.filter(|_| session.client().is_closed()));
                        Err(error)
                    }
                };
                reply(session, answer, done)
            }
            Request::Writer(answer) => {
                let made = self.writer().await.map_err(PairError::from);
                reply(session, answer, made)
            }
            Request::Reread(rows, answer) => {
                let added = self.add_rereads(session, rows).await.map_err(PairError::from);
                reply(session, answer, added)
            }
        }
    }
}

fn reply<T>(session: &Session, answer: Answer<T>, made: Result<T, PairError>) -> Result<(), Error> {
    match made {
        Err(PairError::Failed(error)) if session.client().is_closed() => {
            let _ = answer.send(Err(PairError::Lost));
            Err(error)
        }
        made => {
            let _ = answer.send(made);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_wait_than_are_let() {
        let asked = Asked::default();
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| asked.ask(Request::Pair)).collect();
        assert!(asked.ask(Request::Pair).await.is_err(), "it is told at once");
        waiting.pop();
        let late = asked.ask(Request::Pair);
        assert_eq!(std::iter::from_fn(|| asked.next()).count(), WAITING_MAX);
        assert!(late.await.is_err() && asked.next().is_none());
    }
}
