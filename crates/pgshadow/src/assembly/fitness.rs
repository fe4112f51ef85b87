//! Whether a server can be mirrored from, or to, at all. Asked on connections of pgshadow's own, before the first session.
use super::error::AssemblyError;
use super::primary::{Unanswered, answered};
use crate::config::Database;
use pgshadow_model::Lsn;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio_postgres::{Client, NoTls};

/// The oldest major whose functions and catalogs pgshadow knows.
const OLDEST_MAJOR: u32 = 10;
/// How long the start waits for a shadow; one that doesn't answer is waited for later, while the application works.
const SHADOW_MAX: Duration = Duration::from_secs(5);

/// Why a server can't be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it is a standby, which takes no writes: give the address of the primary server")]
    Standby,
    #[error(
        "a connection pool answers in its place, and pgshadow must see the server's own sessions: give the server's own \
         address (a pool's place is between the application and pgshadow)"
    )]
    Pooled,
    #[error("it is version {0}, and pgshadow needs PostgreSQL {OLDEST_MAJOR} or newer")]
    TooOld(String),
    #[error(
        "its WAL insert position stays at {0} when something is written (as on servers with a storage of their own, such as \
         Aurora), and without it the order of writes can't be told: only PostgreSQL's own WAL can be mirrored"
    )]
    StandsStill(Lsn),
}

/// Whether the version that a server reports at login is old enough to be refused.
pub(super) fn is_too_old(version: &str) -> bool {
    let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major < OLDEST_MAJOR)
}

/// Whether somebody else's process answers than the one that the login named: a pool, which hands sessions out.
pub(super) async fn is_pooled(client: &Client) -> Result<bool, Unanswered> {
    let Some(named) = login_pid(client).await else { return Ok(false) };
    let row = answered(client.query_one("SELECT pg_catalog.pg_backend_pid()", &[])).await?;
    Ok(row.get::<_, i32>(0) != named)
}

/// The process that the login named. The driver tells it only in a request to cancel, which is made here and sent nowhere.
async fn login_pid(client: &Client) -> Option<i32> {
    let (near, mut far) = tokio::io::duplex(512);
    client.cancel_token().cancel_query_raw(near, NoTls).await.ok()?;
    // length, code, process
    let mut request = [0; 12];
    far.read_exact(&mut request).await.ok()?;
    request.last_chunk::<4>().map(|pid| i32::from_be_bytes(*pid))
}

/// Refuses a server whose insert position doesn't advance with a write. What is written is the end of a transaction that did
/// nothing and is rolled back: no table, and nothing for those that decode the WAL.
pub(super) async fn expect_positions(client: &Client) -> Result<(), Unanswered> {
    let before = position(client).await?;
    answered(client.batch_execute("BEGIN READ ONLY; SELECT pg_catalog.txid_current(); ROLLBACK")).await?;
    let after = position(client).await?;
    if after > before { Ok(()) } else { Err(Unfit::StandsStill(after).into()) }
}

async fn position(client: &Client) -> Result<Lsn, Unanswered> {
    let sql = "SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text";
    let row = answered(client.query_one(sql, &[])).await?;
    Ok(row.get::<_, String>(0).parse().unwrap_or_default())
}

/// Refuses a shadow that can't become one. One that isn't there is no reason not to start.
///
/// # Errors
/// [`AssemblyError::Shadow`] with the reason.
pub(super) async fn check_shadow(target: &Database) -> Result<(), AssemblyError> {
    match tokio::time::timeout(SHADOW_MAX, shadow_unfit(&target.postgres)).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(unfit))) => Err(AssemblyError::Shadow(unfit.to_string())),
        Ok(Err(error)) => {
            tracing::info!(server = %target.server, %error, "the shadow was not looked at before the start");
            Ok(())
        }
        Err(_) => {
            tracing::info!(server = %target.server, "the shadow was not looked at before the start: it doesn't answer");
            Ok(())
        }
    }
}

async fn shadow_unfit(config: &tokio_postgres::Config) -> Result<Option<Unfit>, Unanswered> {
    let (client, connection) = config.connect(NoTls).await?;
    let version = connection.parameter("server_version").unwrap_or_default().to_owned();
    let work = async {
        if is_too_old(&version) {
            return Ok(Some(Unfit::TooOld(version)));
        }
        if is_pooled(&client).await? {
            return Ok(Some(Unfit::Pooled));
        }
        let standby = answered(client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[])).await?;
        Ok(standby.get::<_, bool>(0).then_some(Unfit::Standby))
    };
    tokio::select! {
        found = work => found,
        ended = connection => Err(ended.err().map_or(Unanswered::Timeout, Unanswered::Postgres)),
    }
}

#[cfg(test)]
mod tests {
    use super::is_too_old;

    #[test]
    fn versions_before_10_are_refused() {
        for (version, refused) in [
            ("9.6.24", true),
            ("8.0.2", true),
            ("10.23", false),
            ("18.6 (Debian 18.6-1)", false),
            ("19devel", false),
            ("", false),
        ] {
            assert_eq!(is_too_old(version), refused, "{version}");
        }
    }
}
