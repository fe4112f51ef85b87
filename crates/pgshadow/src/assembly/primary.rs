//! Connections of pgshadow's own to the primary. None waits for ever: a primary that is cut off without a word looks like one
//! that is slow.
use super::control;
use super::fitness::{self, Unfit};
use super::history::{self, Standing};
use super::mirror::Mirror;
use pgshadow_apply::LIFE;
use pgshadow_model::Epoch;
use std::ops::Deref;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, Row};
use tokio_util::sync::CancellationToken;

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long one answer may take; what is asked is answered from memory.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Why the primary gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("{}", told(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error("it did not answer in time")]
    Timeout,
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("it was restarted")]
    Restarted,
    #[error("its WAL position can't be read")]
    Unreadable,
}

/// What a server, or the line to it, says.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
}

/// A client whose connection's work ends with it.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    work: JoinHandle<()>,
    /// Cancelled when the connection has ended.
    pub ended: CancellationToken,
    /// The life of the primary that it reaches: never another one.
    pub epoch: Epoch,
    /// The primary's system identifier, where the role may ask for it.
    pub system: Option<String>,
}

impl Deref for Connection {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// Connects, and sees in which life of the primary.
pub(super) async fn connect(config: &tokio_postgres::Config, mirror: &Mirror) -> Result<Connection, Unanswered> {
    let mut config = config.clone();
    config.keepalives(true).keepalives_idle(Duration::from_secs(10)).keepalives_interval(Duration::from_secs(5));
    config.keepalives_retries(3).tcp_user_timeout(Duration::from_secs(30)).connect_timeout(CONNECT_MAX);
    let connected = tokio::time::timeout(CONNECT_MAX, config.connect(NoTls)).await;
    let (client, connection) = connected.map_err(|_| Unanswered::Timeout)??;
    let version = connection.parameter("server_version").unwrap_or_default();
    if fitness::is_too_old(version) {
        return Err(Unfit::TooOld(version.to_owned()).into());
    }
    let ended = CancellationToken::new();
    let ending = ended.clone().drop_guard();
    let work = tokio::spawn(async move {
        let _ = connection.await;
        drop(ending);
    });
    let mut connection = Connection { client, work, ended, epoch: Epoch::default(), system: None };
    if fitness::is_pooled(&connection).await? {
        return Err(Unfit::Pooled.into());
    }
    let life = [LIFE, history::STANDING].join(",");
    let row = answered(connection.query_one(&life, &[])).await?;
    if row.get::<_, bool>(1) {
        return Err(Unfit::Standby.into());
    }
    let mut standing = Standing::read(&row, 3).ok_or(Unanswered::Unreadable)?;
    if let Some(row) = controlled(&connection).await {
        standing.system = row.get(0);
        standing.checkpoint = row.get::<_, String>(1).parse().ok();
    }
    if mirror.history.is_other_timeline(standing.timeline) {
        standing.switched_at = history::switch_point(&connection, standing.timeline).await;
    }
    connection.system.clone_from(&standing.system);
    connection.epoch = control::settle_epoch(mirror, &row.get::<_, String>(0), standing);
    Ok(connection)
}

/// System identifier and last checkpoint, where the role may ask for them.
async fn controlled(client: &Client) -> Option<Row> {
    let sql = "SELECT s.system_identifier::pg_catalog.text, c.checkpoint_lsn::pg_catalog.text
      FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c";
    let row = answered(client.query_one(sql, &[])).await;
    row.inspect_err(|error| tracing::debug!(%error, "the primary doesn't tell what its control file says")).ok()
}

/// Gives an answer up that doesn't come.
pub(super) async fn answered<T>(
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Unanswered> {
    Ok(tokio::time::timeout(ANSWER_MAX, question).await.map_err(|_| Unanswered::Timeout)??)
}
