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
use backfilling::{Backfilling, WithApplier};
use mirror::Mirror;
use pausing::Pausing;
use pgshadow_admin::Phase;
use pgshadow_apply::{Applier, OrderBook, Plain};
use pgshadow_capture::Shared;
use pgshadow_catalog::Catalog;
use pgshadow_divergence::Store;
use pgshadow_mirror_log::{Durability, Log, OnFull, Options, RealDisk};
use pgshadow_model::Place;
use pgshadow_proxy::{Authentication, OtherDatabases, Proxy, Route, Routes, Upstream};
use pgshadow_telemetry::Gauge;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use unsynced::Unsynced;
use unwatched::Unwatched;
use verifying::Verifying;
use windows::Windows;

/// Bytes of changes that may wait for the shadow in memory; beyond, they are read again from the log.
const BOOK_BYTES_MAX: usize = 32 << 20;
/// Clients at once.
pub(crate) const CLIENTS_MAX: usize = 10_000;
/// How long sessions have to end their transactions at shutdown.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the proxy until `shutdown`.
///
/// # Errors
/// When it can't start, or can't go on.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), AssemblyError> {
    let metrics = pgshadow_telemetry::install().map_err(|e| AssemblyError::Start(e.to_string()))?;
    let admin = bind(&config.admin.address, "[admin] address").await?;
    let (mirror, recovered) = if config.mirror.enabled {
        let (mirror, recovered) = open_mirror(&config)?;
        (Some(mirror), Some(recovered))
    } else {
        (None, None)
    };
    let shared = mirror.as_ref().map(|mirror| {
        Arc::new(Shared {
            journal: Arc::clone(mirror),
            catalog: Arc::clone(&mirror.catalog),
            excluded: config.mirror.exclude.iter().cloned().collect(),
            backends: Arc::clone(&mirror.backends),
            statements: config.compare.statements,
        })
    });
    let route = Route { number: 0, upstream: upstream(&config.source), database: None, settings: Vec::new(), shared };
    let proxy = Proxy::bind(relay_config(&config).await?, Arc::new(Routes::new(route))).await?;
    let pausing = Pausing::new(proxy.sessions(), config.source.postgres.clone());
    let windows = Arc::new(Windows::new(Place::Source, mirror.clone(), proxy.clients(), pausing));
    let gauges = tokio::spawn(Arc::clone(&windows).keep_gauges(shutdown.clone()));
    let serving = tokio::spawn(pgshadow_admin::serve(admin, Arc::clone(&windows), metrics, shutdown.clone()));
    Gauge::Mirroring.set(u64::from(mirror.is_some()));

    let (mut background, mut watch, sessions_ended) = (Vec::new(), None, CancellationToken::new());
    if let (Some(mirror), Some(recovered)) = (&mirror, recovered) {
        // the primary is asked before any session may write: what a crash left open belongs to its present life or not
        let primary = control::first_contact(&config.source, mirror, &shutdown);
        let ((primary, source), ()) = tokio::try_join!(primary, fitness::check_shadow(&config.target))?;
        let lost = recovery::restore(mirror, recovered, source)?;
        let settler = settle::start(config.source.postgres.clone(), Arc::clone(mirror), lost, shutdown.clone());
        background.push(settler);
        let unwatched = Unwatched::begin(&primary, mirror).await;
        let primary = (primary, unwatched);
        let token = sessions_ended.clone();
        watch = Some(control::start(config.source.postgres.clone(), primary, Arc::clone(mirror), token));
        let mut apply = pgshadow_apply::Config::new(
            config.target.postgres.clone(),
            config.source.postgres.clone(),
            format!("{}-{}", Place::Source, Place::Target),
        );
        apply.lanes = config.apply.lanes;
        apply.trace.clone_from(&config.test.trace);
        let handle = Applier::spawn(
            apply,
            Arc::new(Plain),
            Arc::clone(&mirror.book),
            Arc::clone(mirror) as Arc<dyn pgshadow_apply::Log>,
            Arc::clone(&mirror.store),
            Arc::clone(mirror) as Arc<dyn pgshadow_apply::Suspects>,
        );
        windows.applier_started(handle);
        let of_applier = Arc::clone(&windows);
        let pair = Box::new(move || of_applier.snapshot_pair());
        windows.verifies(Verifying::new(&config, Arc::clone(mirror), pair));
        windows.backfills(Backfilling::new(&config, Arc::clone(mirror), Arc::clone(&windows) as Arc<dyn WithApplier>));
        windows.set_phase(Phase::Mirroring);
    } else {
        windows.set_phase(Phase::Forwarding);
    }
    tracing::info!(listen = %config.listen.address, admin = %config.admin.address, mirroring = mirror.is_some(), "pgshadow is ready");

    let pids = async {
        shutdown.cancelled().await;
        mirror.as_ref().map(|mirror| mirror.backends.pids()).unwrap_or_default()
    };
    let ((), pids) = tokio::join!(proxy.run(shutdown.clone(), GRACE), pids);
    sessions_ended.cancel();
    windows.set_phase(Phase::Stopping);
    if let (Some(mirror), Some(watch)) = (&mirror, watch)
        && let Ok(unwatched) = watch.await
    {
        unwatched.end(&config.source.postgres, mirror, &pids).await;
    }
    for task in background {
        let _ = task.await;
    }
    windows.stop_applier().await;
    if let Some(mirror) = &mirror {
        mirror.close();
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

fn open_mirror(config: &Config) -> Result<(Arc<Mirror>, pgshadow_mirror_log::Recovery), AssemblyError> {
    let directory = &config.mirror_log.directory;
    std::fs::create_dir_all(directory)
        .map_err(|source| AssemblyError::Directory { directory: directory.clone(), source })?;
    let mut options = Options::new(directory.join("log"));
    options.durability = match config.mirror_log.durability {
        config::Durability::Fsync => Durability::Fsync,
        config::Durability::Os => Durability::Os,
    };
    options.size_max = config.mirror_log.size_max_bytes;
    options.on_full = match config.mirror_log.on_full {
        config::OnFull::StopMirroring => OnFull::StopMirroring,
        config::OnFull::BlockWrites => OnFull::BlockWrites,
    };
    // the log's lock keeps a second process out, so it is opened before the store
    let (log, recovery) = Log::open(options, Arc::new(RealDisk))?;
    let store = Arc::new(Store::open(directory.join("findings.redb"))?);
    let book = Arc::new(OrderBook::new(BOOK_BYTES_MAX));
    if let Some(entries) = config.test.held_entries {
        book.set_held_max(entries);
    }
    let (unsynced, suspects) = Unsynced::open(&store)?;
    let unsynced = (config.mirror_log.durability == config::Durability::Os).then_some(unsynced);
    let mirror = Mirror::new(log, book, store, Arc::new(Catalog::default()), unsynced);
    mirror.keep_suspects(&suspects);
    excluded::compare(&mirror, &config.mirror.exclude)?;
    Ok((Arc::new(mirror), recovery))
}
