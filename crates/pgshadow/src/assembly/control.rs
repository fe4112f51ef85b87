//! The primary, watched on a connection of pgshadow's own: its life (epoch), its functions, its flush position.
use super::bypass::Bypass;
use super::definitions::Definitions;
use super::error::AssemblyError;
use super::fitness;
use super::history::Standing;
use super::mirror::Mirror;
use super::primary::{self, Connection, Unanswered, answered};
use super::unwatched::Unwatched;
use crate::config::Database;
use pgshadow_apply::{SHED_BEHIND, UNLOGGED};
use pgshadow_capture::Journal;
use pgshadow_catalog::Functions;
use pgshadow_model::{Epoch, Lsn, QualifiedName, Suspect};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// Name of the text that keeps in which life of the primary its unlogged tables were looked at.
const UNLOGGED_KEPT: &str = "unlogged_epoch";
/// Pause between two looks.
const BEAT: Duration = Duration::from_millis(100);
/// How long something must be in flight to be looked at as blocked.
const BLOCKED: Duration = Duration::from_millis(200);
/// Pause between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);
/// So many attempts follow each other like looks: clients come back as soon as the primary does, and what they write before its
/// new life is known counts as written before it.
const HASTY: u32 = 100;

/// Connects, sees whether the server can be a primary, and settles the epoch and the functions before anyone writes.
///
/// Waits for a server that isn't there yet; a server that refuses pgshadow's role is an error. Also gives the primary's system
/// identifier, where the role may ask for it.
pub(super) async fn first_contact(
    source: &Database,
    mirror: &Mirror,
    shutdown: &CancellationToken,
) -> Result<(Connection, Option<String>), AssemblyError> {
    let mut told = false;
    loop {
        match first(&source.postgres, mirror).await {
            Ok(client) => {
                if client.system.is_none() {
                    tracing::info!(
                        "the primary doesn't tell its system identifier; another one in its place is not noticed"
                    );
                }
                let source = client.system.clone();
                return Ok((client, source));
            }
            Err(Refusal::ForGood(reason)) => return Err(AssemblyError::Primary(reason)),
            Err(Refusal::ForNow(reason)) if !told => {
                told = true;
                tracing::warn!(server = %source.server, reason, "the primary can't be reached; waiting for it");
            }
            Err(Refusal::ForNow(_)) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return Err(AssemblyError::Primary("it was not reached before the shutdown".to_owned())),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

enum Refusal {
    ForNow(String),
    ForGood(String),
}

impl From<Unanswered> for Refusal {
    fn from(error: Unanswered) -> Self {
        let db = match &error {
            Unanswered::Postgres(error) => error.as_db_error(),
            Unanswered::Unfit(unfit) => return Self::ForGood(format!("{unfit}; [source] url names it")),
            Unanswered::Timeout | Unanswered::Restarted | Unanswered::Unreadable => None,
        };
        match db {
            // invalid authorisation, unknown database, no right: nothing that waiting mends
            Some(db) if ["28", "3D", "42"].iter().any(|class| db.code().code().starts_with(class)) => {
                Self::ForGood(format!("{} (SQLSTATE {}); check [source] url", db.message(), db.code().code()))
            }
            Some(db) => Self::ForNow(db.message().to_owned()),
            None => Self::ForNow(error.to_string()),
        }
    }
}

async fn first(config: &tokio_postgres::Config, mirror: &Mirror) -> Result<Connection, Refusal> {
    let client = contact(config, mirror).await?;
    fitness::expect_positions(&client).await?;
    Ok(client)
}

async fn contact(config: &tokio_postgres::Config, mirror: &Mirror) -> Result<Connection, Refusal> {
    let attempt = mirror.watch.attempt();
    let client = primary::connect(config, mirror).await?;
    attempt.holds(&client.ended);
    doubt_what_a_crash_empties(&client, mirror).await?;
    load_functions(&client, mirror).await?;
    Ok(client)
}

/// Unlogged tables are empty after a crash: those of the primary are suspect once it has another life.
async fn doubt_what_a_crash_empties(client: &Connection, mirror: &Mirror) -> Result<(), Unanswered> {
    let (known, epoch) = (mirror.store.meta_get(UNLOGGED_KEPT).ok().flatten(), client.epoch.0.to_string());
    if known.as_ref() == Some(&epoch) {
        return Ok(());
    }
    if known.is_some() {
        let excluded = mirror.store.excluded().ok().flatten().unwrap_or_default();
        let unlogged = answered(client.query(UNLOGGED, &[])).await?.into_iter();
        let unlogged = unlogged.map(|row| QualifiedName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)));
        let doubted = unlogged.filter(|table| !excluded.contains(table)).map(|table| Suspect {
            table: Some(table),
            reason: "it is unlogged, and the primary was started again: a crash would have emptied it".to_owned(),
        });
        let doubted: Vec<Suspect> = doubted.collect();
        tokio::task::block_in_place(|| mirror.keep_suspects(&doubted));
    }
    // the disk is waited for: sessions go on meanwhile
    if let Err(error) = tokio::task::block_in_place(|| mirror.store.meta_set(UNLOGGED_KEPT, &epoch)) {
        tracing::warn!(%error, "that unlogged tables were looked at could not be kept: they may be suspect once more");
    }
    Ok(())
}

/// The life of the primary with this fingerprint; a new one if it isn't the last one known. What its history has lost is suspect.
pub(super) fn settle_epoch(mirror: &Mirror, fingerprint: &str, standing: Standing) -> Epoch {
    let _one_at_a_time = mirror.life.lock().unwrap_or_else(PoisonError::into_inner);
    let meta = |name| mirror.store.meta_get(name).ok().flatten();
    let known: u32 = meta("epoch").and_then(|e| e.parse().ok()).unwrap_or(0);
    let epoch = if meta("epoch_fingerprint").as_deref() == Some(fingerprint) { known } else { known + 1 };
    if epoch != known {
        let kept = mirror
            .store
            .meta_set("epoch", &epoch.to_string())
            .and_then(|()| mirror.store.meta_set("epoch_fingerprint", fingerprint));
        if let Err(error) = kept {
            // the next process would give its number to another life
            mirror.stop(&format!("a new life of the primary could not be written down: {error}"));
        }
    }
    if mirror.extent.get().is_none() {
        mirror.history.contacted(standing, Epoch(epoch), epoch != known);
    } else {
        mirror.keep_suspects(&mirror.history.goes_on(&standing, Epoch(epoch), epoch != known));
        mirror.history.keep(&mirror.store, true);
    }
    mirror.set_epoch(Epoch(epoch));
    if epoch != known {
        tracing::info!(epoch, fingerprint, "a new life of the primary");
    }
    Epoch(epoch)
}

pub(super) async fn load_functions(client: &Client, mirror: &Mirror) -> Result<u64, Unanswered> {
    let definitions = mirror.catalog.definitions();
    mirror.catalog.set_functions(answered(Functions::load(client, definitions)).await?);
    Ok(definitions)
}

/// What is looked at again and again.
struct Looks {
    definitions: Definitions,
    bypass: Bypass,
    unwatched: Unwatched,
    functions_at: u64,
}

/// Starts the watch, on the connection of the first contact.
pub(super) fn start(
    config: tokio_postgres::Config,
    (client, unwatched): (Connection, Unwatched),
    mirror: Arc<Mirror>,
    shutdown: CancellationToken,
) -> JoinHandle<Unwatched> {
    tokio::spawn(async move {
        let mut client = Some(client);
        let (mut told, mut attempts) = (None, 0);
        let mut looks = Looks {
            definitions: Definitions::default(),
            bypass: Bypass::default(),
            unwatched,
            functions_at: mirror.catalog.definitions(),
        };
        while !shutdown.is_cancelled() {
            client = match client.filter(|c| !c.is_closed()) {
                None => match contact(&config, &mirror).await {
                    Ok(client) => {
                        (told, attempts) = (None, 0);
                        Some(client)
                    }
                    Err(Refusal::ForGood(reason)) if told.as_ref() != Some(&reason) => {
                        tracing::warn!(reason, "the primary can't be used now; the watch on it waits");
                        told = Some(reason);
                        None
                    }
                    Err(_) => None,
                },
                Some(client) => match beat(&client, &mirror, &mut looks).await {
                    Ok(()) => Some(client),
                    Err(error) => {
                        tracing::warn!(%error, "the watch on the primary was interrupted");
                        None
                    }
                },
            };
            if client.is_none() {
                mirror.looks.given_up();
            }
            attempts += u32::from(client.is_none());
            let pause = if client.is_some() || attempts <= HASTY { BEAT } else { RETRY };
            let needed = async {
                match &client {
                    Some(client) => {
                        tokio::select! {
                            () = mirror.catalog.defined() => {},
                            () = mirror.looks.wanted() => {},
                            () = client.ended.cancelled() => {},
                        }
                    }
                    None => mirror.watch.wanted().await,
                }
            };
            tokio::select! { () = shutdown.cancelled() => {}, () = tokio::time::sleep(pause) => {}, () = needed => {} }
        }
        looks.unwatched
    })
}

async fn beat(client: &Connection, mirror: &Mirror, looks: &mut Looks) -> Result<(), Unanswered> {
    looks.definitions.look(client, mirror).await?;
    looks.bypass.look(client, mirror).await?;
    looks.unwatched.look(client, mirror).await?;
    if looks.functions_at != mirror.catalog.definitions() {
        looks.functions_at = load_functions(client, mirror).await?;
    }
    let lag = mirror.book.lag();
    mirror.behind.store(u128::from(lag.ms) > SHED_BEHIND.as_millis(), Ordering::Relaxed);
    // counted before the position is read: it says nothing about those that come later
    let waiting = mirror.unflushed();
    let reading = mirror.history.begins_to_read();
    if waiting > 0 || reading || lag.entries > 0 {
        let positions = "SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text, pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text";
        if waiting > 0 || mirror.gate_wanted() {
            // the insert position after their replies: beyond it lies none of their commit records
            let row = answered(client.query_one(positions, &[])).await?;
            still_in(client, mirror)?;
            if let Ok(lsn) = row.get::<_, String>(0).parse::<Lsn>() {
                mirror.gate_unflushed(waiting, lsn);
            }
        }
        let row = answered(client.query_one(positions, &[])).await?;
        still_in(client, mirror)?;
        if let (Ok(insert), Ok(flush)) = (row.get::<_, String>(0).parse(), row.get::<_, String>(1).parse()) {
            mirror.book.flushed(flush);
            mirror.history.read(client.epoch, insert, flush);
            mirror.history.keep(&mirror.store, false);
        }
    }
    raise_blocked(client, mirror).await
}

/// Positions of a life that is over say nothing about the present one.
fn still_in(client: &Connection, mirror: &Mirror) -> Result<(), Unanswered> {
    if client.epoch == mirror.epoch() { Ok(()) } else { Err(Unanswered::Restarted) }
}

/// A statement that is blocked for long would hold every later entry. Its place can't be below a position that was read while it
/// was still in progress: position first, then who runs what, then the snapshot, in separate statements. One that waits for a
/// table's lock has no transaction id yet, so it has drawn no token either.
async fn raise_blocked(client: &Connection, mirror: &Mirror) -> Result<(), Unanswered> {
    let (blocked, prepared) = (mirror.long_in_flight(BLOCKED), mirror.prepared.all());
    let nobody_waits = mirror.book.lag().entries == 0 && !mirror.book.is_fenced();
    if blocked.is_empty() && prepared.is_empty() || nobody_waits {
        return Ok(());
    }
    let position = "SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text";
    let position = answered(client.query_one(position, &[])).await?;
    let pids: Vec<i32> = blocked.iter().map(|(_, one)| one.pid).collect();
    let running = "SELECT pid, backend_xid::pg_catalog.text FROM pg_catalog.pg_stat_activity
         WHERE pid OPERATOR(pg_catalog.=) ANY ($1) AND (backend_xid IS NOT NULL
           OR state OPERATOR(pg_catalog.=) 'active' AND wait_event_type OPERATOR(pg_catalog.=) 'Lock')";
    let running = answered(client.query(running, &[&pids])).await?;
    let snapshot = "SELECT pg_catalog.txid_current_snapshot()::pg_catalog.text";
    let snapshot = answered(client.query_one(snapshot, &[])).await?;
    let (Ok(lsn), Some(in_progress)) =
        (position.get::<_, String>(0).parse::<Lsn>(), in_progress(&snapshot.get::<_, String>(0)))
    else {
        return Ok(());
    };
    for (sequence, xid) in prepared {
        if in_progress.contains(&xid.0) {
            mirror.book.raise(sequence, client.epoch, lsn);
        }
    }
    for row in running {
        let (pid, xid): (i32, Option<String>) = (row.get(0), row.get(1));
        let Some((sequence, one)) = blocked.iter().find(|(_, one)| one.pid == pid) else { continue };
        // the view shows the low 32 bits, the snapshot all 64; within one snapshot no two share them
        let seen = |xid: String| xid.parse::<u32>().is_ok_and(|xid| in_progress.iter().any(|full| *full as u32 == xid));
        // it may be at its next transaction already, while the answer to its COMMIT waits to be read
        if one.xid.map_or_else(|| xid.is_none_or(seen), |own| in_progress.contains(&own.0)) {
            mirror.book.raise(*sequence, client.epoch, lsn);
        }
    }
    Ok(())
}

/// The transactions in progress of a snapshot's text, `xmin:xmax:xip,xip`.
fn in_progress(snapshot: &str) -> Option<Vec<u64>> {
    let list = snapshot.rsplit(':').next()?;
    list.split(',').filter(|x| !x.is_empty()).map(|x| x.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_what_is_in_progress() {
        assert_eq!(super::in_progress("10:20:12,4294967310"), Some(vec![12, 4_294_967_310]));
        assert_eq!(super::in_progress("10:20:"), Some(vec![]));
    }
}
