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
mod flip;
mod guard;
mod history;
mod mirror;
mod own;
mod pausing;
mod prepared;
mod present;
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
use flip::{Flipping, Parts};
use pausing::Pausing;
use pgshadow_admin::Phase;
use pgshadow_cutover::{Journal, Standing, State};
use pgshadow_model::Place;
use pgshadow_proxy::{Authentication, OtherDatabases, Proxy, Route, Routes, Upstream};
use pgshadow_telemetry::Gauge;
use present::Present;
use secrets::Known;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windows::Windows;

/// Clients at once.
pub(crate) const CLIENTS_MAX: usize = 10_000;
/// How long clients wait at the start for what an earlier process has left to be put in order.
const RECOVERED_IN: Duration = Duration::from_secs(10);
/// How long sessions have to end their transactions at shutdown.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the proxy until `shutdown`.
///
/// # Errors
/// When it can't start, or can't go on.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), AssemblyError> {
    let metrics = pgshadow_telemetry::install().map_err(|e| AssemblyError::Start(e.to_string()))?;
    let admin = bind(&config.admin.address, "[admin] address").await?;
    let directory = &config.mirror_log.directory;
    if config.mirror.enabled {
        std::fs::create_dir_all(directory)
            .map_err(|source| AssemblyError::Directory { directory: directory.clone(), source })?;
    }
    // where the primary is, also where nothing is mirrored, or no more; the lock on a log keeps a second process away from it as well
    let journal = Journal::open(directory)?;
    let kept = journal.kept();
    let mirrors = config.mirror.enabled && kept.standing == Standing::UnderWay;
    if !mirrors && kept.state != State::Idle {
        let why = "what a flip has left is still to be put in order: start with [mirror] enabled = true";
        return Err(AssemblyError::Start(why.to_owned()));
    }
    let direction = if mirrors { Some(Direction::open(&config, kept.era, kept.primary)?) } else { None };
    let shared = direction.as_ref().map(|direction| Arc::clone(&direction.shared));
    let primary = if kept.primary == Place::Target { &config.target } else { &config.source };
    let route = Route {
        number: 0,
        upstream: upstream(primary),
        database: (primary.name != config.source.name).then(|| primary.name.clone()),
        settings: Vec::new(),
        shared,
    };
    let routes = Arc::new(Routes::new(route, upstream(&config.source)));
    let secrets = secrets(&config, primary)?;
    let proxy = Proxy::bind(relay_config(&config, secrets.clone()).await?, Arc::clone(&routes)).await?;
    let pausing = Arc::new(Pausing::new(proxy.sessions(), primary.postgres.clone()));
    let present = Arc::new(Present::new(direction.clone()));
    // also where the migration has ended: its end may have been cut off
    let flipping = config.mirror.enabled.then(|| {
        let (pausing, present) = (Arc::clone(&pausing), Arc::clone(&present));
        Arc::new(Flipping::new(Parts { config: config.clone(), journal, routes, pausing, present, secrets }))
    });
    let windows =
        Arc::new(Windows::new(Arc::clone(&present), proxy.clients(), pausing, (flipping.clone(), kept.clone())));
    let gauges = tokio::spawn(Arc::clone(&windows).keep_gauges(shutdown.clone()));
    let serving = tokio::spawn(pgshadow_admin::serve(admin, Arc::clone(&windows), metrics, shutdown.clone()));
    Gauge::Mirroring.set(u64::from(direction.is_some()));
    let mut recovering = None;
    match &direction {
        Some(direction) => {
            tokio::select! {
                started = direction.start() => started?,
                () = shutdown.cancelled() => return Err(AssemblyError::Primary("it was not reached before the shutdown".to_owned())),
            }
            if let Some(flipping) = flipping {
                let mut work = tokio::spawn(async move { flipping.recover().await });
                // who is sent to the primary must be let in there; but one that can't be reached keeps nobody from what can
                let _ = tokio::time::timeout(RECOVERED_IN, &mut work).await;
                recovering = Some(work);
            }
            windows.set_phase(Phase::Mirroring);
        }
        None => windows.set_phase(Phase::Forwarding),
    }
    tracing::info!(listen = %config.listen.address, admin = %config.admin.address, mirroring = direction.is_some(), "pgshadow is ready");

    let pids = async {
        shutdown.cancelled().await;
        present.get().map(|direction| direction.mirror.backends.pids()).unwrap_or_default()
    };
    let ((), pids) = tokio::join!(proxy.run(shutdown.clone(), GRACE), pids);
    windows.set_phase(Phase::Stopping);
    if let Some(work) = recovering {
        work.abort();
    }
    if let Some(direction) = present.get() {
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

async fn relay_config(config: &Config, secrets: Option<Arc<Known>>) -> Result<pgshadow_proxy::Config, AssemblyError> {
    Ok(pgshadow_proxy::Config {
        listen: resolve(&config.listen.address).await?,
        database: config.source.name.clone(),
        other_databases: match config.listen.other_databases {
            config::OtherDatabases::Refuse => OtherDatabases::Refuse,
            config::OtherDatabases::Pass => OtherDatabases::Pass,
        },
        authentication: secrets.map_or(Authentication::Relay, |known| Authentication::Scram(known)),
        connect_timeout: Duration::from_secs(10),
        startup_timeout: Duration::from_secs(60),
        clients_max: CLIENTS_MAX,
    })
}

/// Whom clients are checked against, in mode `scram`.
fn secrets(config: &Config, primary: &config::Database) -> Result<Option<Arc<Known>>, AssemblyError> {
    let config::Auth::Scram { users_file, query } = &config.auth else { return Ok(None) };
    let known = Known::new(users_file.clone(), query.clone(), &primary.postgres);
    Ok(Some(Arc::new(known.map_err(AssemblyError::Start)?)))
}

async fn resolve(address: &str) -> Result<SocketAddr, AssemblyError> {
    let wrong = |source| AssemblyError::Listen { key: "[listen] address", address: address.to_owned(), source };
    let mut found = tokio::net::lookup_host(address).await.map_err(wrong)?;
    found.next().ok_or_else(|| wrong(std::io::ErrorKind::NotFound.into()))
}
