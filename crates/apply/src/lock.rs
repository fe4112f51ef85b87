//! Which connections may write to the shadow: those of the stream's present life.
//!
//! A life begins when a connection gets the stream's first lock, which it holds to its end: no two lead. It raises the life's
//! number, then waits until no other connection holds the second lock. Each further connection of a life shares the second
//! lock to its end, and goes on only if the number is still its own. So whoever was there before is gone when a new life has
//! begun, and whoever comes late finds another number: of an older life nothing can commit any more.

use crate::Error;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Number of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life(i64);

fn key(stream: &str, which: &str) -> i64 {
    let key = pgshadow_compare::fingerprint(pgshadow_model::Kind::Schema, None, &[stream.to_owned()], Some(which));
    u64::from_str_radix(&key, 16).unwrap_or_default().cast_signed()
}

/// Keeps other leads out, once older ones are gone. `own_pids` are ended.
pub(crate) async fn take_lead(client: &Client, stream: &str, own_pids: &[i32]) -> Result<(), Error> {
    if !own_pids.is_empty() {
        client.execute("SELECT pg_catalog.pg_terminate_backend(p) FROM unnest($1::int4[]) p", &[&own_pids]).await?;
    }
    wait_for(client, "SELECT pg_catalog.pg_advisory_lock($1)", key(stream, "lock")).await
}

/// Begins a life, once all connections of the one before are gone.
pub(crate) async fn begin_life(client: &Client, stream: &str) -> Result<Life, Error> {
    let sql = "INSERT INTO pgshadow.life (stream, number) VALUES ($1, 1) \
               ON CONFLICT (stream) DO UPDATE SET number = life.number + 1 RETURNING number";
    let life = Life(client.query_one(sql, &[&stream]).await?.try_get(0)?);
    let others = key(stream, "lanes");
    // They may be at something that takes hours. Where they may not be ended, they are waited for.
    let end = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND objsubid = 1
        AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
        AND (classid::int8 << 32 | objid::int8) = $1";
    if let Err(error) = client.execute(end, &[&others]).await {
        tracing::warn!(error = %Error::Postgres(error), "connections of an earlier pgshadow can't be ended; they are waited for");
    }
    wait_for(client, "SELECT pg_catalog.pg_advisory_lock($1)", others).await?;
    client.execute("SELECT pg_catalog.pg_advisory_unlock($1)", &[&others]).await?;
    Ok(life)
}

/// Becomes one of a life's connections, if that is still the present one.
pub(crate) async fn join_life(client: &Client, stream: &str, life: Life) -> Result<(), Error> {
    wait_for(client, "SELECT pg_catalog.pg_advisory_lock_shared($1)", key(stream, "lanes")).await?;
    let sql = "SELECT number FROM pgshadow.life WHERE stream = $1";
    let present = client.query_opt(sql, &[&stream]).await?.map(|row| row.try_get(0)).transpose()?;
    if present == Some(life.0) { Ok(()) } else { Err(Error::Busy) }
}

async fn wait_for(client: &Client, sql: &str, key: i64) -> Result<(), Error> {
    match client.execute(sql, &[&key]).await {
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Err(Error::Busy),
        done => done.map(|_| ()).map_err(Into::into),
    }
}
