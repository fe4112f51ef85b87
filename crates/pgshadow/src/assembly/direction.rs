//! One direction of mirroring: from the database that is the primary to the one that is its shadow, with all that belongs to it.
//!
//! A migration begins with source to target; each flip begins another one, whose log, store and place on the shadow are its own
//! ([`Config::towards`]).
use super::backfilling::{Backfilling, WithApplier};
use super::error::AssemblyError;
use super::mirror::Mirror;
use super::unsynced::Unsynced;
use super::unwatched::Unwatched;
use super::verifying::Verifying;
use super::{control, excluded, fitness, guard, recovery, settle};
use crate::config::{self, Config};
use futures::future::BoxFuture;
use pgshadow_apply::{Applier, Handle, OrderBook, PairError, Plain, SnapshotPair};
use pgshadow_capture::Shared;
use pgshadow_catalog::Catalog;
use pgshadow_divergence::Store;
use pgshadow_mirror_log::{Durability, Log, OnFull, Options, RealDisk, Recovery};
use pgshadow_model::Place;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Bytes of changes that may wait for the shadow in memory; beyond, they are read again from the log.
const BOOK_BYTES_MAX: usize = 32 << 20;

/// A direction: its log is open from the beginning; the rest follows once the primary was reached.
pub(super) struct Direction {
    /// Which one: 0 is the first, each flip begins the next.
    pub era: u64,
    /// Where the primary is.
    pub primary: Place,
    /// The configuration, in which `source` is the primary and `target` the shadow.
    pub config: Config,
    pub mirror: Arc<Mirror>,
    pub shared: Arc<Shared<Mirror>>,
    applier: Arc<Slot>,
    running: OnceLock<Running>,
    recovered: Mutex<Option<Recovery>>,
    /// Its sessions have ended.
    ended: CancellationToken,
    /// Its work ends.
    shutdown: CancellationToken,
    tasks: Mutex<Option<Tasks>>,
}

/// What can be asked for once it runs.
struct Running {
    verifying: Arc<Verifying>,
    backfilling: Arc<Backfilling>,
}

struct Tasks {
    watch: JoinHandle<Unwatched>,
    settler: JoinHandle<()>,
}

/// Where the applier is, as long as there is one.
#[derive(Default)]
struct Slot(Mutex<Option<Handle>>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot_pair(&self) -> BoxFuture<'static, Result<SnapshotPair, PairError>> {
        match self.lock().as_ref() {
            Some(applier) => Box::pin(applier.snapshot_pair()),
            None => Box::pin(std::future::ready(Err(PairError::Lost))),
        }
    }
}

impl WithApplier for Slot {
    fn applier(&self, ask: &mut dyn FnMut(&Handle)) {
        self.lock().as_ref().into_iter().for_each(ask);
    }
}

impl Direction {
    /// Opens its log and its store.
    ///
    /// # Errors
    /// These can't be opened, or another process has them.
    pub fn open(config: &Config, era: u64, primary: Place) -> Result<Arc<Self>, AssemblyError> {
        let config = config.towards(era, primary);
        let (mirror, recovery) = open_mirror(&config)?;
        let _ =
            mirror.guard.set(guard::Guard::new(config.source.postgres.clone(), config.ddl, Arc::downgrade(&mirror)));
        let shared = Arc::new(Shared {
            journal: Arc::clone(&mirror),
            catalog: Arc::clone(&mirror.catalog),
            excluded: config.mirror.exclude.iter().cloned().collect(),
            backends: Arc::clone(&mirror.backends),
            statements: config.compare.statements,
            guard: guard::of(&config.ddl),
        });
        Ok(Arc::new(Self {
            era,
            primary,
            config,
            mirror,
            shared,
            applier: Arc::default(),
            running: OnceLock::new(),
            recovered: Mutex::new(Some(recovery)),
            ended: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            tasks: Mutex::default(),
        }))
    }

    /// Contacts both servers, reads what the log held, and begins to watch and to apply: before any session may write.
    ///
    /// # Errors
    /// A server refuses, or can't be used.
    pub async fn start(&self) -> Result<(), AssemblyError> {
        let (config, mirror) = (&self.config, &self.mirror);
        let recovered = self.recovered.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(recovered) = recovered else { return Ok(()) };
        // the primary is asked before any session may write: what a crash left open belongs to its present life or not
        let primary = control::first_contact(&config.source, mirror, &self.shutdown);
        let ((primary, source), ()) = tokio::try_join!(primary, fitness::check_shadow(&config.target))?;
        let lost = recovery::restore(mirror, recovered, source)?;
        let settler = settle::start(config.source.postgres.clone(), Arc::clone(mirror), lost, self.shutdown.clone());
        let unwatched = Unwatched::begin(&primary, mirror).await;
        let primary = (primary, unwatched);
        let watch = control::start(config.source.postgres.clone(), primary, Arc::clone(mirror), self.ended.clone());
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tasks { watch, settler });
        let mut apply = pgshadow_apply::Config::new(
            config.target.postgres.clone(),
            config.source.postgres.clone(),
            stream(self.era, self.primary),
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
        *self.applier.lock() = Some(handle);
        let slot = Arc::clone(&self.applier);
        let pair = Box::new(move || slot.snapshot_pair());
        let slot = Arc::clone(&self.applier) as Arc<dyn WithApplier>;
        let _ = self.running.set(Running {
            verifying: Arc::new(Verifying::new(config, Arc::clone(mirror), pair)),
            backfilling: Arc::new(Backfilling::new((config, self.primary), Arc::clone(mirror), slot)),
        });
        Ok(())
    }

    /// Ends it: its sessions have ended, or are another one's now, and these were their processes.
    pub async fn close(&self, pids: &[i32]) {
        self.ended.cancel();
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Tasks { watch, settler }) = tasks {
            if let Ok(unwatched) = watch.await {
                unwatched.end(&self.config.source.postgres, &self.mirror, pids).await;
            }
            self.shutdown.cancel();
            let _ = settler.await;
        }
        self.shutdown.cancel();
        let handle = self.applier.lock().take();
        if let Some(handle) = handle {
            handle.stop().await;
        }
        self.mirror.close();
    }

    pub fn verifying(&self) -> Option<Arc<Verifying>> {
        self.running.get().map(|running| Arc::clone(&running.verifying))
    }

    pub fn backfilling(&self) -> Option<Arc<Backfilling>> {
        self.running.get().map(|running| Arc::clone(&running.backfilling))
    }

    /// Asks the applier; `None` without one.
    pub fn ask<T>(&self, ask: impl FnOnce(&Handle) -> T) -> Option<T> {
        self.applier.lock().as_ref().map(ask)
    }
}

/// The applied position's key on the shadow.
pub(super) fn stream(era: u64, primary: Place) -> String {
    let shadow = primary.other();
    match era {
        0 => format!("{primary}-{shadow}"),
        era => format!("{primary}-{shadow}-{era}"),
    }
}

fn open_mirror(config: &Config) -> Result<(Arc<Mirror>, Recovery), AssemblyError> {
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
