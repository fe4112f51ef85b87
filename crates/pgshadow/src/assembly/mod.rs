//! Joins the rooms: log, book, catalog, relay, applier, windows.
//!
//! A session writes intents and outcomes through [`mirror::Mirror`]; the mirror keeps them in the log and in the
//! applier's book. [`recovery`] reads what the last process left there. [`control`] watches the primary on a connection of
//! its own, [`settle`] looks up transactions whose outcome no session saw, and [`windows`] shows it all.
mod backfilling;
mod bypass;
mod concurrent_index;
mod control;
mod definitions;
mod direction;
mod error;
mod excluded;
mod fitness;
mod history;
mod mirror;
mod pausing;
mod prepared;
mod primary;
mod recovery;
mod repairing;
mod secrets;
mod settle;
mod spilled;
mod suspects;
mod task;
#[cfg(test)]
mod tests;
mod unsynced;
mod unwatched;
mod verifying;
mod watch;
mod windows;

pub use error::AssemblyError;

use crate::config::{self, Config, Server};
use direction::Direction;
use pausing::Pausing;
use pgshadow_admin::Phase;
use pgshadow_model::Place;
use pgshadow_proxy::{Authentication, OtherDatabases, Proxy, Route, Routes, Upstream};
use pgshadow_telemetry::Gauge;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windows::Windows;

/// Clients at once.
const CLIENTS_MAX: usize = 10_000;
/// How long sessions have to end their transactions at shutdown.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the proxy until `shutdown`.
///
/// # Errors
/// When it can't start, or can't go on.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), AssemblyError> {
    let metrics = pgshadow_telemetry::install().map_err(|e| AssemblyError::Start(e.to_string()))?;
    let admin = bind(&config.admin.address, "[admin] address").await?;
    let direction = match config.mirror.enabled {
        true => Some(Direction::open(&config, 0, Place::Source)?),
        false => None,
    };
    let shared = direction.as_ref().map(|direction| Arc::clone(&direction.shared));
    let route = Route { number: 0, upstream: upstream(&config.source), database: None, settings: Vec::new(), shared };
    let proxy = Proxy::bind(relay_config(&config).await?, Arc::new(Routes::new(route))).await?;
    let pausing = Pausing::new(proxy.sessions(), config.source.postgres.clone());
    let windows = Arc::new(Windows::new(direction.clone(), proxy.clients(), pausing));
    let gauges = tokio::spawn(Arc::clone(&windows).keep_gauges(shutdown.clone()));
    let serving = tokio::spawn(pgshadow_admin::serve(admin, Arc::clone(&windows), metrics, shutdown.clone()));
    Gauge::Mirroring.set(u64::from(direction.is_some()));
    match &direction {
        Some(direction) => {
            tokio::select! {
                started = direction.start() => started?,
                () = shutdown.cancelled() => return Err(AssemblyError::Primary("it was not reached before the shutdown".to_owned())),
            }
            windows.set_phase(Phase::Mirroring);
        }
        None => windows.set_phase(Phase::Forwarding),
    }
    tracing::info!(listen = %config.listen.address, admin = %config.admin.address, mirroring = direction.is_some(), "pgshadow is ready");

    let pids = async {
        shutdown.cancelled().await;
        direction.as_ref().map(|direction| direction.mirror.backends.pids()).unwrap_or_default()
    };
    let ((), pids) = tokio::join!(proxy.run(shutdown.clone(), GRACE), pids);
    windows.set_phase(Phase::Stopping);
    if let Some(direction) = &direction {
        direction.close(&pids).await;
    }
    let _ = tokio::join!(serving, gauges);
    Ok(())
}

async fn bind(address: &str, key: &'static str) -> Result<TcpListener, AssemblyError> {
    TcpListener::bind(address).await.map_err(|source| AssemblyError::Listen {
        key,
        address: address.to_owned(),
        source,
    })
}

fn upstream(database: &config::Database) -> Upstream {
    match &database.server {
        Server::Tcp { host, port } => Upstream::Tcp { host: host.clone(), port: *port },
        Server::Unix { directory, port } => Upstream::Unix(directory.join(format!(".s.PGSQL.{port}"))),
    }
}

async fn relay_config(config: &Config) -> Result<pgshadow_proxy::Config, AssemblyError> {
    Ok(pgshadow_proxy::Config {
        listen: resolve(&config.listen.address).await?,
        database: config.source.name.clone(),
        other_databases: match config.listen.other_databases {
            config::OtherDatabases::Refuse => OtherDatabases::Refuse,
            config::OtherDatabases::Pass => OtherDatabases::Pass,
        },
        authentication: authentication(config)?,
        connect_timeout: Duration::from_secs(10),
        startup_timeout: Duration::from_secs(60),
        clients_max: CLIENTS_MAX,
    })
}

fn authentication(config: &Config) -> Result<Authentication, AssemblyError> {
    let config::Auth::Scram { users_file, query } = &config.auth else { return Ok(Authentication::Relay) };
    let known = secrets::Known::new(users_file.clone(), query.clone(), &config.source.postgres);
    Ok(Authentication::Scram(Arc::new(known.map_err(AssemblyError::Start)?)))
}

async fn resolve(address: &str) -> Result<SocketAddr, AssemblyError> {
    let wrong = |source| AssemblyError::Listen { key: "[listen] address", address: address.to_owned(), source };
    let mut found = tokio::net::lookup_host(address).await.map_err(wrong)?;
    found.next().ok_or_else(|| wrong(std::io::ErrorKind::NotFound.into()))
}
