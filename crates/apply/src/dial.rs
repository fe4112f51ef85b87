use crate::Error;
use futures::future::BoxFuture;
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// A client and the work of its connection, which ends with it.
pub type Dialed = (Client, BoxFuture<'static, ()>);

/// Makes connections: the place where TLS comes in, and where tests can cut the line.
pub trait Dial: Send + Sync + 'static {
    /// One new connection.
    fn dial<'a>(&'a self, config: &'a tokio_postgres::Config) -> BoxFuture<'a, Result<Dialed, tokio_postgres::Error>>;
}

/// Connections without TLS.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Dial for Plain {
    fn dial<'a>(&'a self, config: &'a tokio_postgres::Config) -> BoxFuture<'a, Result<Dialed, tokio_postgres::Error>> {
        Box::pin(async move {
            let (client, connection) = config.connect(NoTls).await?;
            let work: BoxFuture<'static, ()> = Box::pin(async move {
                if let Err(e) = connection.await {
                    tracing::debug!(error = %e, "a connection of the applier ended");
                }
            });
            Ok((client, work))
        })
    }
}

/// A client whose connection's work ends when it is dropped.
pub struct Connected {
    /// Speaks to the server.
    pub client: Client,
    work: tokio::task::JoinHandle<()>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// By these a server notices that whoever asked has gone without a word, also while it computes (from 14 on, where it can): his statement ends, with
/// its locks and its snapshot.
const NOTICES_THE_END: &str = "
SELECT pg_catalog.set_config(s.name, w.value, false) FROM pg_catalog.pg_settings s JOIN (VALUES
    ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'), ('client_connection_check_interval', '5s'))
    AS w (name, value) ON w.name OPERATOR(pg_catalog.=) s.name
WHERE NOT s.name OPERATOR(pg_catalog.=) 'client_connection_check_interval' OR pg_catalog.version() OPERATOR(pg_catalog.~) 'linux'";

/// Connects, so that a dead line is noticed on both ends. `whom` names the server in errors.
///
/// # Errors
/// Refused, or not within the time.
pub async fn connect(
    dial: &dyn Dial,
    config: &tokio_postgres::Config,
    within: Duration,
    whom: &'static str,
) -> Result<Connected, Error> {
    let mut config = config.clone();
    config.keepalives(true).keepalives_idle(Duration::from_secs(10)).keepalives_interval(Duration::from_secs(5));
    config.keepalives_retries(3).tcp_user_timeout(Duration::from_secs(30)).connect_timeout(within);
    let dialed = tokio::time::timeout(within, dial.dial(&config)).await.map_err(|_| Error::Timeout(whom))?;
    let (client, work) = dialed?;
    let connected = Connected { client, work: tokio::spawn(work) };
    let set = tokio::time::timeout(within, connected.client.batch_execute(NOTICES_THE_END));
    set.await.map_err(|_| Error::Timeout(whom))??;
    Ok(connected)
}
