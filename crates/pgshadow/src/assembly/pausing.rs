//! `pause` and `resume`, as an operator asks for them; and who is in the way.
use super::primary::answered;
use pgshadow_admin::{Offender, PauseReport, PauseRequest};
use pgshadow_proxy::{Client, Lease, Sessions};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::NoTls;

/// How often it is looked whether open transactions have ended.
const LOOK: Duration = Duration::from_millis(1);
/// How long the primary may take to tell what a session does.
const TOLD_MAX: Duration = Duration::from_secs(2);
/// The longest lease, and the longest wait.
const MAX: Duration = Duration::from_secs(3600);
/// Sessions named at most.
const NAMED_MAX: usize = 100;

/// The operator's pause.
#[derive(Debug)]
pub(super) struct Pausing {
    pub sessions: Arc<Sessions>,
    primary: Mutex<tokio_postgres::Config>,
    lease: Mutex<Option<Lease>>,
}

impl Pausing {
    pub fn new(sessions: Arc<Sessions>, primary: tokio_postgres::Config) -> Self {
        Self { sessions, primary: Mutex::new(primary), lease: Mutex::default() }
    }

    /// Another database is the primary.
    pub fn moved_to(&self, primary: &tokio_postgres::Config) {
        *self.primary.lock().unwrap_or_else(PoisonError::into_inner) = primary.clone();
    }

    /// Holds new transactions, and waits until none is open. One that is given up meanwhile, and one that isn't drained in time, ends
    /// there and then.
    pub async fn pause(&self, request: PauseRequest) -> Result<PauseReport, String> {
        let [timeout, lease] = [request.timeout_ms, request.lease_ms].map(|ms| Duration::from_millis(ms).min(MAX));
        let held = self.take(timeout + lease)?;
        let begun = Instant::now();
        let drained = drain(&self.sessions, begun + timeout).await;
        let drain_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if !drained {
            let waited_for = self.offenders().await;
            drop(held);
            return Ok(PauseReport { paused: false, drain_ms, waited_for });
        }
        held.renew(lease).map_err(|expired| expired.to_string())?;
        *self.lock() = Some(held);
        Ok(PauseReport { paused: true, drain_ms, waited_for: Vec::new() })
    }

    /// The operator's own lease, prolonged, or a new one.
    fn take(&self, lease: Duration) -> Result<Lease, String> {
        match self.lock().take() {
            Some(held) if held.renew(lease).is_ok() => Ok(held),
            _ => self
                .sessions
                .pause
                .begin(lease)
                .ok_or_else(|| "new transactions are held by another command".to_owned()),
        }
    }

    /// Lets all go on; false if the operator holds nothing.
    pub fn resume(&self) -> bool {
        self.lock().take().is_some_and(|held| held.renew(Duration::ZERO).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lease>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is in a transaction, oldest first.
    pub async fn offenders(&self) -> Vec<Offender> {
        let busy: Vec<Client> = self.sessions.clients().into_iter().filter(|client| client.busy).collect();
        let pids: Vec<i32> = busy.iter().map(|client| client.pid).collect();
        let primary = self.primary.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told = tokio::time::timeout(TOLD_MAX, activity(&primary, pids)).await.unwrap_or_default();
        let mut offenders: Vec<Offender> = busy.iter().map(|client| offender(client, &told)).collect();
        offenders.sort_by_key(|one| std::cmp::Reverse(one.transaction_ms));
        offenders.truncate(NAMED_MAX);
        offenders
    }
}

/// Waits until no transaction is open; false if some are at `deadline`.
pub(super) async fn drain(sessions: &Sessions, deadline: Instant) -> bool {
    while sessions.busy() > 0 {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

/// What the primary says of a process.
struct Activity {
    pid: i32,
    state: String,
    transaction_ms: Option<i64>,
    query: String,
}

/// Empty where it can't be asked.
async fn activity(primary: &tokio_postgres::Config, pids: Vec<i32>) -> Vec<Activity> {
    let Ok((client, connection)) = primary.connect(NoTls).await else { return Vec::new() };
    let work = tokio::spawn(connection);
    let sql = "SELECT pid, coalesce(state, ''), (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) xact_start)
         OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8, coalesce(pg_catalog.left(query, 200), '')
       FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) ANY ($1)";
    let rows = answered(client.query(sql, &[&pids])).await;
    work.abort();
    let rows = rows.inspect_err(|error| tracing::warn!(%error, "the primary doesn't tell what its sessions do"));
    let told = rows.unwrap_or_default().into_iter().map(|row| Activity {
        pid: row.get(0),
        state: row.get(1),
        transaction_ms: row.get(2),
        query: row.get(3),
    });
    told.collect()
}

fn offender(client: &Client, told: &[Activity]) -> Offender {
    let own = match (client.unfollowed, client.pid) {
        (true, _) => "its frames can't be told apart",
        (_, 0) => "logging in",
        _ => "in a transaction",
    };
    let activity = told.iter().find(|one| client.pid != 0 && one.pid == client.pid);
    Offender {
        pid: client.pid,
        user: client.user.clone(),
        application: client.application.clone(),
        address: client.address.to_string(),
        state: activity.map(|one| one.state.as_str()).filter(|s| !s.is_empty()).unwrap_or(own).to_owned(),
        transaction_ms: activity.and_then(|one| one.transaction_ms).and_then(|ms| ms.try_into().ok()),
        query: activity.map(|one| one.query.clone()).unwrap_or_default(),
    }
}
