//! Connections of pgshadow's own to either database, for what is asked or done there once: a flip, a preflight.
use super::primary::{answered, told};
use crate::config::Database;
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// How long it may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a statement may wait.
const LIMITS: &str = "SET default_transaction_read_only = off; SET statement_timeout = '10s'; SET lock_timeout = '5s'";

/// A connection of pgshadow's own, which may write whatever the database's default is. Its work ends with it.
pub(super) struct Own {
    pub client: Client,
    work: tokio::task::JoinHandle<()>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// Connects.
///
/// # Errors
/// For people.
pub(super) async fn connect(database: &Database) -> Result<Own, String> {
    let failed = |why: String| format!("no connection to {}/{}: {why}", database.server, database.name);
    let connected = tokio::time::timeout(CONNECT_MAX, database.postgres.connect(NoTls)).await;
    let (client, connection) =
        connected.map_err(|_| failed("not in time".to_owned()))?.map_err(|error| failed(told(&error)))?;
    let work = tokio::spawn(async move {
        let _ = connection.await;
    });
    let own = Own { client, work };
    answered(own.client.batch_execute(LIMITS)).await.map_err(|error| failed(error.to_string()))?;
    Ok(own)
}
