//! Transactions whose outcome no session saw: the primary is asked, once nobody can change the answer any more.
use super::concurrent_index::{self, Definition};
use super::mirror::Mirror;
use super::primary::{Connection, Unanswered, answered, connect};
use pgshadow_capture::{Journal, Unsettled};
use pgshadow_telemetry::Counter;
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
        let mut connection: Option<Connection> = None;
        loop {
            if waiting.is_empty() && mirror.prepared.gids().is_empty() {
                connection = None;
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = mirror.prepared.added.notified() => {}
                    next = lost.recv() => match next {
                        Some(open) => waiting.push(open),
                        None => return,
                    }
                }
            }
            while let Ok(open) = lost.try_recv() {
                waiting.push(open);
            }
            connection = match connection.filter(|c| !c.is_closed() && c.epoch == mirror.epoch()) {
                Some(client) => Some(client),
                None => match connect(&primary, &mirror).await {
                    Ok(client) => Some(client),
                    Err(error) => {
                        tracing::debug!(%error, "the primary can't be asked about lost transactions");
                        None
                    }
                },
            };
            if let Some(client) = &connection {
                waiting = look_up(client, &mirror, waiting).await;
                if let Err(error) = look_at_prepared(client, &mirror, &mut waiting).await {
                    tracing::debug!(%error, "prepared transactions could not be looked up");
                    connection = None;
                }
            }
            tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(POLL) => {} }
        }
    })
}

/// Prepared transactions that are gone are to be looked up; the others are known to be uncommitted.
async fn look_at_prepared(
    client: &Connection,
    mirror: &Mirror,
    waiting: &mut Vec<Unsettled>,
) -> Result<(), Unanswered> {
    let gids = mirror.prepared.gids();
    let quiet = mirror.prepared.quiet();
    if !gids.is_empty() {
        let there = "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE gid OPERATOR(pg_catalog.=) ANY ($1)";
        let rows = answered(client.query(there, &[&gids])).await?;
        let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        for gid in gids.iter().filter(|gid| !there.contains(gid)) {
            if let Some(open) = mirror.prepared.take(gid) {
                mirror.book.park(open.sequence, None);
                waiting.push(open);
            }
        }
        let left = mirror.prepared.all();
        for (sequence, xid) in quiet.into_iter().filter(|(s, _)| left.iter().any(|(l, _)| l == s)) {
            mirror.book.park(sequence, xid);
        }
    }
    mirror.prepared.looks.send_modify(|looks| *looks += 1);
    Ok(())
}

/// Looks every one of them up; returns those that must wait.
async fn look_up(client: &Connection, mirror: &Mirror, waiting: Vec<Unsettled>) -> Vec<Unsettled> {
    let mut left = Vec::new();
    let mut waiting = waiting.into_iter();
    while let Some(open) = waiting.next() {
        let verdict = verdict(client, &open).await;
        if matches!(verdict, Ok(Verdict::Committed | Verdict::Aborted | Verdict::Unknown(_))) {
            Counter::TransactionsInDoubt.add(1);
        }
        match verdict {
            Ok(Verdict::Wait) => left.push(open),
            Ok(Verdict::Prepared(gid)) => mirror.prepared(gid, open),
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
    Prepared(String),
    Committed,
    Aborted,
    Unknown(&'static str),
}

/// `txid_status` decides, but only in the same life of the primary, and only when the backend is gone: a backend whose
/// client was killed goes on, and commits when the lock that it waits for comes free. What an index that is made or dropped
/// concurrently has come to can be seen in any life.
async fn verdict(client: &Connection, open: &Unsettled) -> Result<Verdict, Unanswered> {
    if let Some(definition) = Definition::of(&open.intent_changes.rest) {
        if open.epoch == client.epoch && is_alive(client, open).await? {
            return Ok(Verdict::Wait);
        }
        match concurrent_index::is_done(client, &definition).await? {
            Some(true) => return Ok(Verdict::Committed),
            Some(false) => return Ok(Verdict::Aborted),
            None => {}
        }
    }
    if open.epoch != client.epoch {
        return Ok(Verdict::Unknown(
            "the primary was restarted before the outcome of a transaction that wrote it was known",
        ));
    }
    let Unsettled { order, prepared, .. } = open;
    if let Some(gid) = prepared {
        let there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts WHERE gid OPERATOR(pg_catalog.=) $1)";
        if answered(client.query_one(there, &[gid])).await?.get::<_, bool>(0) {
            return Ok(Verdict::Prepared(gid.clone()));
        }
    }
    // one that is prepared needs no backend
    if is_alive(client, open).await? {
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

/// Whether its backend is still there.
async fn is_alive(client: &Connection, open: &Unsettled) -> Result<bool, Unanswered> {
    let alive = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) $1)";
    Ok(answered(client.query_one(alive, &[&open.backend.pid])).await?.get(0))
}
