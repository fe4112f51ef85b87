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

/// Connects, so that a dead line is noticed. `whom` names the server in errors.
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
    Ok(Connected { client, work: tokio::spawn(work) })
}
