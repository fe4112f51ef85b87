//! Transactions whose outcome no session saw: the primary is asked, once nobody can change the answer any more.
use super::mirror::Mirror;
use super::primary::{Connection, Unanswered, answered, connect};
use pgshadow_capture::Unsettled;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Pause between two looks at a backend that still runs.
const POLL: Duration = Duration::from_millis(100);

/// Starts the task; `open` is what the log held without an outcome.
pub(super) fn start(
    primary: tokio_postgres::Config,
    mirror: Arc<Mirror>,
    open: Vec<Unsettled>,
    shutdown: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut waiting: Vec<Unsettled> = open;
        let Some(mut lost) = mirror.take_lost() else { return };
        loop {
            if waiting.is_empty() {
                let next = tokio::select! { () = shutdown.cancelled() => return, next = lost.recv() => next };
                let Some(open) = next else { return };
                waiting.push(open);
            }
            while let Ok(open) = lost.try_recv() {
                waiting.push(open);
            }
            match connect(&primary, &mirror).await {
                Ok(client) => waiting = look_up(&client, &mirror, waiting).await,
                Err(error) => tracing::debug!(%error, "the primary can't be asked about lost transactions"),
            }
            if !waiting.is_empty() {
                tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(POLL) => {} }
            }
        }
    })
}

/// Looks every one of them up; returns those that must wait.
async fn look_up(client: &Connection, mirror: &Mirror, waiting: Vec<Unsettled>) -> Vec<Unsettled> {
    let mut left = Vec::new();
    let mut waiting = waiting.into_iter();
    while let Some(open) = waiting.next() {
        match verdict(client, &open).await {
            Ok(Verdict::Wait) => left.push(open),
            Ok(Verdict::Committed) => mirror.found_out(open, true, None),
            Ok(Verdict::Aborted) => mirror.found_out(open, false, None),
            Ok(Verdict::Unknown(reason)) => mirror.found_out(open, false, Some(reason)),
            Err(error) => {
                tracing::debug!(%error, "a lost transaction could not be looked up");
                // of this connection nothing more is to be had
                left.push(open);
                left.extend(waiting.by_ref());
            }
        }
    }
    left
}

enum Verdict {
    Wait,
    Committed,
    Aborted,
    Unknown(&'static str),
}

/// `txid_status` decides, but only in the same life of the primary, and only when the backend is gone: a backend whose
/// client was killed goes on, and commits when the lock that it waits for comes free.
async fn verdict(client: &Connection, open: &Unsettled) -> Result<Verdict, Unanswered> {
    if open.epoch != client.epoch {
        return Ok(Verdict::Unknown(
            "the primary was restarted before the outcome of a transaction that wrote it was known",
        ));
    }
    let Unsettled { backend, order, .. } = open;
    let alive = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) $1)";
    if answered(client.query_one(alive, &[&backend.pid])).await?.get::<_, bool>(0) {
        return Ok(Verdict::Wait);
    }
    let Some(order) = order else {
        return Ok(Verdict::Unknown(
            "its writer was lost before its outcome was known, and its transaction can't be named",
        ));
    };
    let status = "SELECT pg_catalog.txid_status($1::pg_catalog.text::pg_catalog.int8)";
    match answered(client.query_one(status, &[&order.xid.to_string()])).await {
        Ok(row) => Ok(match row.get::<_, Option<String>>(0).as_deref() {
            Some("committed") => Verdict::Committed,
            Some("aborted") => Verdict::Aborted,
            Some(_) => Verdict::Wait,
            None => Verdict::Unknown("its transaction is too old for the primary to tell its outcome"),
        }),
        Err(Unanswered::Postgres(error)) if error.as_db_error().is_some() => {
            Ok(Verdict::Unknown("the primary can't tell the outcome of its transaction"))
        }
        Err(error) => Err(error),
    }
}
