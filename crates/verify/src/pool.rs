//! Connections to one server that read in one snapshot.
//!
//! Each question is a transaction of its own that takes the snapshot over, so that no lock is held from one to the next. A statement
//! that somebody waits for gives way: it is cancelled, and asked again once the other one is done.

use crate::Error;
use pgshadow_apply::{Connected, Dial, connect};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{CancelToken, Client, NoTls, Row, SimpleQueryMessage};

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether somebody waits.
const LOOKS_EVERY: Duration = Duration::from_millis(100);
/// How long whoever waited has before the statement is asked again.
const GIVES_WAY: Duration = Duration::from_millis(200);

/// Those of our statements (`$1`: processes) that somebody waits for, cancelled. A look into `pg_locks` comes first: it is
/// cheap. A process that has ours' number since is another's: it is left alone.
const CANCEL: &str = "
SELECT pid FROM (SELECT DISTINCT b.pid FROM pg_catalog.pg_locks l
    CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) AS b (pid)
    WHERE NOT l.granted AND l.locktype = 'relation') AS blocking WHERE pid = ANY ($1)
    AND pid IN (SELECT a.pid FROM pg_catalog.pg_stat_activity a WHERE a.usename = CURRENT_USER AND a.application_name LIKE 'pgshadow%')
    AND pg_catalog.pg_cancel_backend(pid)";

struct Worker {
    connected: Connected,
    pid: i32,
}

/// One server's connections, which read in one snapshot.
pub struct Pool {
    whom: &'static str,
    /// Sent once to each.
    settings: String,
    config: tokio_postgres::Config,
    dial: Arc<dyn Dial>,
    snapshot: String,
    permits: Semaphore,
    idle: Mutex<Vec<Worker>>,
    busy: Mutex<Vec<(i32, Arc<Notify>)>>,
    gave_way: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// At most so many, made when they are needed. `settings`: sent once to each; its `application_name` begins with `pgshadow`.
    #[must_use]
    pub fn new(
        whom: &'static str,
        config: tokio_postgres::Config,
        dial: Arc<dyn Dial>,
        snapshot: &str,
        most: usize,
        settings: &str,
    ) -> Self {
        Self {
            whom,
            settings: settings.to_owned(),
            config,
            dial,
            snapshot: snapshot.to_owned(),
            permits: Semaphore::new(most),
            idle: Mutex::default(),
            busy: Mutex::default(),
            gave_way: AtomicU64::new(0),
        }
    }

    /// "primary" or "shadow".
    #[must_use]
    pub fn whom(&self) -> &'static str {
        self.whom
    }

    /// How often a statement gave way.
    pub(crate) fn gave_way(&self) -> u64 {
        self.gave_way.load(Ordering::Relaxed)
    }

    async fn worker(&self) -> Result<Worker, Error> {
        if let Some(worker) = lock(&self.idle).pop() {
            return Ok(worker);
        }
        let connected = connect(&*self.dial, &self.config, CONNECT_MAX, self.whom).await?;
        let prepare = async {
            connected.client.batch_execute(&self.settings).await?;
            connected.client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.try_get(0)
        };
        let prepared = tokio::time::timeout(CONNECT_MAX, prepare).await.map_err(|_| Error::Timeout(self.whom))?;
        Ok(Worker { pid: prepared.map_err(Error::of(self.whom))?, connected })
    }

    /// The rows that the snapshot gives. Waits for a free connection.
    ///
    /// # Errors
    /// The server refused, or was lost.
    pub async fn ask(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        Ok(self.ask_if(sql, parameters, None).await?.unwrap_or_default())
    }

    /// As [`Pool::ask`], if that is true as long as the locks are held which the statement has taken; else `None`.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn ask_if(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
        is_so: Option<&str>,
    ) -> Result<Option<Vec<Row>>, Error> {
        loop {
            let turn = self.turn().await?;
            let answer = async {
                let rows = turn.client().query(sql, parameters).await?;
                let Some(is_so) = is_so else { return Ok(Some(rows)) };
                let said = turn.client().simple_query(is_so).await?;
                let is_true =
                    |m: &SimpleQueryMessage| matches!(m, SimpleQueryMessage::Row(row) if row.get(0) == Some("t"));
                Ok(said.iter().any(is_true).then_some(rows))
            };
            let answer = answer.await;
            if let Some(rows) = turn.end(answer).await? {
                return Ok(rows);
            }
        }
    }

    /// A transaction in the snapshot. Waits for a free connection.
    ///
    /// # Errors
    /// The server refused, or was lost.
    pub async fn turn(&self) -> Result<Turn<'_>, Error> {
        let permit = self.permits.acquire().await.map_err(|_| Error::Timeout(self.whom))?;
        let worker = self.worker().await?;
        let busy = Busy::new(&self.busy, worker.pid);
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'",
            self.snapshot.replace('\'', "''")
        );
        worker.connected.client.batch_execute(&begin).await.map_err(Error::of(self.whom))?;
        let unfinished = Unfinished(Some(worker.connected.client.cancel_token()));
        Ok(Turn { pool: self, worker, unfinished, busy, _permit: permit })
    }

    /// Cancels statements that somebody waits for, until it is dropped.
    ///
    /// # Errors
    /// The server refused, or was lost.
    pub async fn give_way(&self) -> Result<std::convert::Infallible, Error> {
        let watcher = self.worker().await?;
        loop {
            tokio::time::sleep(LOOKS_EVERY).await;
            let busy: Vec<i32> = lock(&self.busy).iter().map(|(pid, _)| *pid).collect();
            if busy.is_empty() {
                continue;
            }
            let failed = Error::of(self.whom);
            for row in watcher.connected.client.query(CANCEL, &[&busy]).await.map_err(failed)? {
                let cancelled: i32 = row.try_get(0).map_err(failed)?;
                lock(&self.busy).iter().filter(|(pid, _)| *pid == cancelled).for_each(|(_, told)| told.notify_one());
            }
        }
    }
}

/// A transaction in the snapshot.
pub struct Turn<'a> {
    pool: &'a Pool,
    worker: Worker,
    unfinished: Unfinished,
    busy: Busy<'a>,
    _permit: SemaphorePermit<'a>,
}

impl Turn<'_> {
    /// Its connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.worker.connected.client
    }

    /// Returns when its statement was cancelled, to give way. A server that has rows to send sees that only once they are read: whoever is slow in
    /// reading them hurries then.
    pub async fn gives_way(&self) {
        self.busy.told.notified().await;
    }

    /// Ends it. `None`: it had to give way, and is to be tried again; whoever waited has had time by then.
    ///
    /// # Errors
    /// The server refused, or was lost.
    pub async fn end<T>(self, result: Result<T, tokio_postgres::Error>) -> Result<Option<T>, Error> {
        let (pool, failed) = (self.pool, Error::of(self.pool.whom));
        let (done, sql) = match result {
            Ok(done) => (Some(done), "COMMIT"),
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
                pool.gave_way.fetch_add(1, Ordering::Relaxed);
                (None, "ROLLBACK")
            }
            // its connection goes with it
            Err(error) => return Err(failed(error)),
        };
        self.client().batch_execute(sql).await.map_err(failed)?;
        let Self { worker, mut unfinished, .. } = self;
        unfinished.0 = None;
        lock(&pool.idle).push(worker);
        if done.is_none() {
            tokio::time::sleep(GIVES_WAY).await;
        }
        Ok(done)
    }
}

/// A transaction whose statement is cancelled where nobody waits for it any more: a server that computes doesn't see that its client has
/// gone, and would hold the table's lock, which others queue for, to the end of it.
struct Unfinished(Option<CancelToken>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (Some(token), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(async move {
            let _ = tokio::time::timeout(CONNECT_MAX, token.cancel_query(NoTls)).await;
        });
    }
}

/// A process that is at work.
struct Busy<'a> {
    of: &'a Mutex<Vec<(i32, Arc<Notify>)>>,
    pid: i32,
    /// Told when it is cancelled.
    told: Arc<Notify>,
}

impl<'a> Busy<'a> {
    fn new(of: &'a Mutex<Vec<(i32, Arc<Notify>)>>, pid: i32) -> Self {
        let told = Arc::<Notify>::default();
        lock(of).push((pid, Arc::clone(&told)));
        Self { of, pid, told }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(self.of).retain(|(pid, _)| *pid != self.pid);
    }
}
