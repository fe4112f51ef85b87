//! Connections to one server that read in one snapshot.
//!
//! Each question is a transaction of its own that takes the snapshot over, so that no lock is held from one to the next. A statement
//! that somebody waits for gives way: it is cancelled, and asked again once the other one is done.

use crate::Error;
use crate::expression::SETTINGS;
use pgshadow_apply::{Connected, Dial, connect};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether somebody waits.
const LOOKS_EVERY: Duration = Duration::from_millis(100);
/// How long whoever waited has before the statement is asked again.
const GIVES_WAY: Duration = Duration::from_millis(200);

/// Those of our statements (`$1`: processes) that somebody waits for, cancelled. A look into `pg_locks` comes first: it is
/// cheap. A process that has ours' number since is another's: it is left alone.
const CANCEL: &str = "
SELECT pg_catalog.pg_cancel_backend(pid) FROM (SELECT DISTINCT b.pid FROM pg_catalog.pg_locks l
    CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) AS b (pid)
    WHERE NOT l.granted AND l.locktype = 'relation') AS blocking WHERE pid = ANY ($1)
    AND pid IN (SELECT a.pid FROM pg_catalog.pg_stat_activity a WHERE a.usename = CURRENT_USER AND a.application_name = 'pgshadow verify')";

struct Worker {
    connected: Connected,
    pid: i32,
}

/// One server's connections.
pub(crate) struct Pool {
    whom: &'static str,
    config: tokio_postgres::Config,
    dial: Arc<dyn Dial>,
    snapshot: String,
    permits: Semaphore,
    idle: Mutex<Vec<Worker>>,
    busy: Mutex<Vec<i32>>,
    gave_way: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(crate) fn new(
        whom: &'static str,
        config: tokio_postgres::Config,
        dial: Arc<dyn Dial>,
        snapshot: &str,
        most: usize,
    ) -> Self {
        Self {
            whom,
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
    pub(crate) fn whom(&self) -> &'static str {
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
            connected.client.batch_execute(SETTINGS).await?;
            connected.client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.try_get(0)
        };
        let prepared = tokio::time::timeout(CONNECT_MAX, prepare).await.map_err(|_| Error::Timeout(self.whom))?;
        Ok(Worker { pid: prepared.map_err(Error::of(self.whom))?, connected })
    }

    /// The rows that the snapshot gives. Waits for a free connection.
    pub(crate) async fn ask(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        loop {
            let Ok(_permit) = self.permits.acquire().await else { return Err(Error::Timeout(self.whom)) };
            let worker = self.worker().await?;
            let _busy = Busy::new(&self.busy, worker.pid);
            let answer = self.ask_one(&worker, sql, parameters).await;
            match answer {
                Ok(rows) => {
                    lock(&self.idle).push(worker);
                    return Ok(rows);
                }
                Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
                    self.gave_way.fetch_add(1, Ordering::Relaxed);
                    worker.connected.client.batch_execute("ROLLBACK").await.map_err(Error::of(self.whom))?;
                    lock(&self.idle).push(worker);
                }
                // its connection goes with it
                Err(error) => return Err(error),
            }
            tokio::time::sleep(GIVES_WAY).await;
        }
    }

    async fn ask_one(&self, worker: &Worker, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let client = &worker.connected.client;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'",
            self.snapshot.replace('\'', "''")
        );
        let ask = async {
            client.batch_execute(&begin).await?;
            let rows = client.query(sql, parameters).await?;
            client.batch_execute("COMMIT").await?;
            Ok(rows)
        };
        ask.await.map_err(Error::of(self.whom))
    }

    /// Cancels statements that somebody waits for, until it is dropped.
    pub(crate) async fn give_way(&self) -> Result<std::convert::Infallible, Error> {
        let watcher = self.worker().await?;
        loop {
            tokio::time::sleep(LOOKS_EVERY).await;
            let busy = lock(&self.busy).clone();
            if !busy.is_empty() {
                watcher.connected.client.execute(CANCEL, &[&busy]).await.map_err(Error::of(self.whom))?;
            }
        }
    }
}

/// A process that is at work.
struct Busy<'a> {
    of: &'a Mutex<Vec<i32>>,
    pid: i32,
}

impl<'a> Busy<'a> {
    fn new(of: &'a Mutex<Vec<i32>>, pid: i32) -> Self {
        lock(of).push(pid);
        Self { of, pid }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(self.of).retain(|pid| *pid != self.pid);
    }
}
