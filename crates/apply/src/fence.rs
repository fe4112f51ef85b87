//! The fence: a snapshot of the primary, the rows that it holds, and the shadow brought to exactly it.

use crate::dial::{Connected, connect};
use crate::lane::Lane;
use crate::position::{Fence, Snapshot};
use crate::raw::{Raw, RawOwned};
use crate::session::Session;
use crate::target::Target;
use crate::{Error, plan};
use futures::TryStreamExt;
use pgshadow_model::{Lsn, RelationKind, Values};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Row;

/// How long the primary may take for one fence.
const READ_MAX: Duration = Duration::from_secs(20);
/// How often it is looked whether a fence is reached.
const LOOKS_EVERY: Duration = Duration::from_millis(5);

/// On the primary nothing is written, no lock is waited for, and no policy may hide a row.
const SETTINGS: &str = "
SET application_name = 'pgshadow heal'; SET client_encoding = 'UTF8'; SET search_path = pg_catalog;
SET row_security = off; SET statement_timeout = '10s'; SET lock_timeout = '2s'; SET extra_float_digits = 1;
SET default_transaction_read_only = on";

/// The control connection to the primary, made when it is needed. For the lane that heals.
#[derive(Default)]
pub(crate) struct Primary {
    connected: Mutex<Option<Connected>>,
}

impl Primary {
    fn take(&self) -> Option<Connected> {
        let kept = self.connected.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.filter(|connected| !connected.client.is_closed())
    }

    fn keep(&self, connected: Connected) {
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(connected);
    }
}

/// A target with what the primary's snapshot holds of it: its row, none, or why it can't be read.
pub(crate) type Held = (Target, Result<Option<Values>, String>);

/// What is asked of the primary.
struct Question {
    /// The table, as `FROM` names its own rows.
    rows: String,
    sql: String,
    target: Target,
}

/// Ends a savepoint. What the primary refuses for good is a reason; anything else fails.
async fn over<T, E: Into<Error>>(
    client: &tokio_postgres::Client,
    result: Result<T, E>,
) -> Result<Result<T, String>, Error> {
    match result.map_err(Into::into) {
        Ok(value) => {
            client.batch_execute("RELEASE SAVEPOINT one").await?;
            Ok(Ok(value))
        }
        Err(Error::Postgres(e)) if is_refusal(&e) => {
            client.batch_execute("ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one").await?;
            Ok(Err(Error::Postgres(e).to_string()))
        }
        Err(e) => Err(e),
    }
}

impl Lane {
    /// Takes a snapshot of the primary and reads the targets' rows in it.
    pub(crate) async fn read_behind_fence(
        &mut self,
        session: &mut Session,
        targets: Vec<Target>,
    ) -> Result<(Fence, Vec<Held>), Error> {
        let connected = match self.primary.take() {
            Some(connected) => connected,
            None => {
                let within = self.config.connect_timeout;
                let made = connect(&*self.dial, &self.config.primary, within, "primary").await?;
                let settled = tokio::time::timeout(within, made.client.batch_execute(SETTINGS)).await;
                settled.map_err(|_| Error::Timeout("primary"))??;
                made
            }
        };
        let mut questions = Vec::with_capacity(targets.len());
        for target in targets {
            let table = session.table(&target.relation.name).await?;
            let relation = &target.relation;
            let all: Vec<u16> = (0..u16::try_from(relation.columns.len()).unwrap_or(u16::MAX)).collect();
            let partitioned = relation.kind == RelationKind::Partitioned;
            let sql = plan::read_by(relation, table.as_deref(), partitioned, &all, &relation.key);
            questions.push(Question { rows: plan::own_rows(relation, partitioned), sql, target });
        }
        let read = tokio::time::timeout(READ_MAX, self.read_snapshot(&connected, questions)).await;
        let answer = read.map_err(|_| Error::Timeout("primary"))??;
        // Kept only after a success: after anything else its state isn't known.
        self.primary.keep(connected);
        Ok(answer)
    }

    async fn read_snapshot(
        &self,
        connected: &Connected,
        questions: Vec<Question>,
    ) -> Result<(Fence, Vec<Held>), Error> {
        let client = &connected.client;
        let epoch = self.book.epoch();
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // Locks come before the snapshot (LOCK doesn't take it): in one from before, a table that is rewritten meanwhile has no rows, and its name may
        // be another one's by the time it is read. None is waited for while others are held: of a deadlock the application could be the victim.
        let mut refused = HashMap::new();
        for Question { rows, .. } in &questions {
            if !refused.contains_key(rows) {
                let lock = client
                    .batch_execute(&format!("SAVEPOINT one; LOCK TABLE {rows} IN ACCESS SHARE MODE NOWAIT"))
                    .await;
                refused.insert(rows.clone(), over(client, lock).await?.err());
            }
        }
        let text: String =
            client.query_one("SELECT pg_catalog.txid_current_snapshot()::text", &[]).await?.try_get(0)?;
        // After the snapshot: whatever it sees had begun before it could commit.
        let (mark, after) = (self.book.barrier(), insert_position(client).await?);
        let mut held = Vec::with_capacity(questions.len());
        for Question { rows, sql, target } in questions {
            let row = match refused.get(&rows).cloned().flatten() {
                Some(reason) => Err(reason),
                None => {
                    client.batch_execute("SAVEPOINT one").await?;
                    over(client, read_row(client, &sql, &target).await).await?
                }
            };
            held.push((target, row));
        }
        client.batch_execute("COMMIT").await?;
        if self.book.epoch() != epoch {
            return Err(Error::EpochChanged);
        }
        Ok((Fence { snapshot: Snapshot::parse(epoch, &text)?, mark, after }, held))
    }

    /// Applies all that the fence contains and nothing else. False if something in flight took too long; then the lane
    /// had better go on, and another fence be taken later.
    pub(crate) async fn bring_to(&mut self, session: &mut Session, fence: &Fence) -> Result<bool, Error> {
        let _fenced = self.book.fenced();
        let mut deadline = Instant::now() + self.config.fence_wait_max;
        loop {
            if self.book.reached(fence) {
                return Ok(true);
            }
            let (entries, rows) = (self.config.batch_entries_max, self.config.batch_rows_max);
            let batch = self.book.take_batch(entries, rows, Some(fence));
            if !batch.is_empty() {
                let (entries, begun) = (batch.len(), Instant::now());
                self.take(batch);
                self.load().await?;
                self.apply_in_hand(session).await?;
                tracing::debug!(entries, took = ?begun.elapsed(), "applied up to a fence");
                deadline = Instant::now() + self.config.fence_wait_max;
                continue;
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            // not for work: what the fence doesn't contain may be ready all the time
            tokio::time::sleep(LOOKS_EVERY).await;
        }
    }
}

/// The position at present, whatever the transaction's snapshot is.
pub(crate) async fn insert_position(client: &tokio_postgres::Client) -> Result<Lsn, Error> {
    let row = client.query_one("SELECT pg_catalog.pg_current_wal_insert_lsn()::text", &[]).await?;
    let text: String = row.try_get(0)?;
    text.parse().map_err(|_| Error::Position(text))
}

async fn read_row(client: &tokio_postgres::Client, sql: &str, target: &Target) -> Result<Option<Values>, Error> {
    let statement = client.prepare(sql).await?;
    let key: Vec<Raw> = target.key.iter().cloned().map(Raw).collect();
    let rows: Vec<Row> = client.query_raw(&statement, key).await?.try_collect().await?;
    rows.first().map(values_of).transpose()
}

/// Whether the primary will never give this row: no such table or column, no right to it.
fn is_refusal(e: &tokio_postgres::Error) -> bool {
    e.code().is_some_and(|c| c.code().starts_with("42") || c.code().starts_with("3F") || c.code().starts_with("22"))
}

/// A row's values as they came.
pub(crate) fn values_of(row: &Row) -> Result<Values, Error> {
    let value = |i| Ok(row.try_get::<_, Option<RawOwned>>(i)?.map(|raw| raw.0));
    (0..row.len()).map(value).collect()
}
