//! A mixed load: many clients, each in a session of its own through pgshadow, that do what a shop's clients do.
mod chance;
mod session;
mod work;

use super::cluster::Endpoint;
use super::error::DemoError;
use session::Session;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What was sent and how it ended.
#[derive(Debug, Default)]
pub struct Tally {
    /// Statements.
    pub statements: AtomicU64,
    /// Transactions that were committed, autocommit ones too.
    pub committed: AtomicU64,
    /// Transactions that the client rolled back.
    pub rolled_back: AtomicU64,
    /// Transactions that the database refused, as it should: duplicate keys, deadlocks.
    pub refused: AtomicU64,
}

impl Tally {
    /// Adds to one of its numbers.
    pub fn add(number: &AtomicU64, more: u64) {
        number.fetch_add(more, Ordering::Relaxed);
    }

    /// One of its numbers.
    pub fn read(number: &AtomicU64) -> u64 {
        number.load(Ordering::Relaxed)
    }
}

/// Clients at work, until [`finish`](Self::finish).
#[derive(Debug)]
pub struct Load {
    /// Counted while it goes on.
    pub tally: Arc<Tally>,
    clients: JoinSet<Result<(), DemoError>>,
    stop: CancellationToken,
}

impl Load {
    /// Connects all clients, then lets them begin together.
    ///
    /// # Errors
    /// When one can't connect.
    pub async fn start(place: &Endpoint, clients: u32) -> Result<Self, DemoError> {
        let (tally, stop) = (Arc::new(Tally::default()), CancellationToken::new());
        let mut sessions = Vec::new();
        for number in 0..clients {
            let session = Session::open(place, number, Arc::clone(&tally)).await;
            sessions.push(session.map_err(DemoError::database(format!("client {number} can't begin")))?);
        }
        let mut clients = JoinSet::new();
        for session in sessions {
            clients.spawn(run(session, stop.clone()));
        }
        Ok(Self { tally, clients, stop })
    }

    /// Returns only when a client has failed.
    pub async fn failure(&mut self) -> DemoError {
        match self.clients.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => DemoError::Failed(format!("a client of the load: {error}")),
            // Clients go on until they are asked to stop.
            Some(Ok(Ok(()))) | None => std::future::pending().await,
        }
    }

    /// Lets every client finish what it is at.
    ///
    /// # Errors
    /// When one has failed.
    pub async fn finish(mut self) -> Result<Arc<Tally>, DemoError> {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.map_err(|error| DemoError::Failed(format!("a client of the load: {error}")))??;
        }
        Ok(self.tally)
    }
}

async fn run(mut session: Session, stop: CancellationToken) -> Result<(), DemoError> {
    while !stop.is_cancelled() {
        let activity = session.next_activity();
        if let Err(error) = session.perform(activity).await {
            session.recover(activity, error).await?;
        }
    }
    Ok(())
}
