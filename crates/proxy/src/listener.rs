use crate::cancel::Cancels;
use crate::config::{Config, Upstream};
use crate::route::Routes;
use crate::session;
use crate::sessions::Sessions;
use pgshadow_capture::{Journal, Question, Verdict};
use pgshadow_telemetry::{Counter, Gauge};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why the relay can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}; choose another [listen] address, or end what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// What a session waits for before bytes that may commit something go to the primary.
pub trait Gate: Journal {
    /// Returns once the record is durable, or once it never will be (mirroring has stopped: the application goes on).
    fn durable(&self, sequence: u64) -> impl Future<Output = ()> + Send;
    /// Returns once it is known in which life the primary is, or once that can't be found out soon: a session whose connection to
    /// the primary has just been made belongs to that one.
    fn known_life(&self) -> impl Future<Output = ()> + Send;
    /// Whether statements may take locks that keep others from tables. Soon: their client waits.
    fn judge(&self, question: Question) -> impl Future<Output = Verdict> + Send;
}

/// The listening relay.
#[derive(Debug)]
pub struct Proxy<J: Gate> {
    listener: TcpListener,
    config: Arc<Config>,
    routes: Arc<Routes<J>>,
    cancels: Arc<Cancels>,
    clients: Arc<AtomicUsize>,
    sessions: Arc<Sessions>,
}

impl<J: Gate> Proxy<J> {
    /// Binds the listening socket.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn bind(config: Config, routes: Arc<Routes<J>>) -> Result<Self, Error> {
        let address = config.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        Ok(Self {
            listener,
            config: Arc::new(config),
            routes,
            cancels: Arc::default(),
            clients: Arc::default(),
            sessions: Arc::default(),
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The number of clients at present, for `status`.
    #[must_use]
    pub fn clients(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.clients)
    }

    /// The sessions of the migrated database, and their pause.
    #[must_use]
    pub fn sessions(&self) -> Arc<Sessions> {
        Arc::clone(&self.sessions)
    }

    /// Accepts clients until `shutdown`; returns when the last session has ended or `grace` is over.
    pub async fn run(self, shutdown: CancellationToken, grace: Duration) {
        let sessions = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // out of file descriptors, most likely: sessions that run are not disturbed
                    tracing::warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            Counter::ClientConnections.add(1);
            tune(&stream);
            let guard = ClientGuard::new(&self.clients);
            let (config, routes, shutdown) = (Arc::clone(&self.config), Arc::clone(&self.routes), shutdown.clone());
            let (sessions_known, cancels) = (Arc::clone(&self.sessions), Arc::clone(&self.cancels));
            sessions.spawn(async move {
                let full = guard.number > config.clients_max;
                if let Err(error) =
                    session::run(stream, &config, (&routes, &sessions_known, &cancels), shutdown, full).await
                {
                    tracing::debug!(%address, %error, "session ended");
                }
                drop(guard);
            });
        }
        drop(self.listener);
        sessions.close();
        if tokio::time::timeout(grace, sessions.wait()).await.is_err() {
            tracing::info!(sessions = sessions.len(), "sessions were still open at shutdown");
        }
    }
}

struct ClientGuard {
    clients: Arc<AtomicUsize>,
    number: usize,
}

impl ClientGuard {
    fn new(clients: &Arc<AtomicUsize>) -> Self {
        let number = clients.fetch_add(1, Ordering::Relaxed) + 1;
        Gauge::Clients.set(number as u64);
        Self { clients: Arc::clone(clients), number }
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        let left = self.clients.fetch_sub(1, Ordering::Relaxed) - 1;
        Gauge::Clients.set(left as u64);
    }
}

/// No delay for small packets, and a dead peer is noticed: as PostgreSQL's own sockets have it.
pub(crate) fn tune(stream: &TcpStream) {
    let keepalive =
        socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));
    let socket = socket2::SockRef::from(stream);
    if let Err(error) = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive)) {
        tracing::debug!(%error, "socket options");
    }
}

impl Upstream {
    /// For log lines.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(path) => path.display().to_string(),
        }
    }
}
