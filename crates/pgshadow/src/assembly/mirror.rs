//! Where sessions write down what they do: the log, and the applier's book behind it.
mod journal;
mod reread;

use self::reread::payload;
use super::definitions::Looks;
use super::guard::Guard;
use super::history::History;
use super::prepared::PreparedTransactions;
use super::spilled::SpilledFiles;
use super::suspects::Unwritten;
use super::unsynced::Unsynced;
use super::watch::Watch;
use dashmap::DashMap;
use pgshadow_apply::{BeganLate, Entry, Had, LogExtent, OrderBook, Payload, Vast};
use pgshadow_capture::{Backends, Journal, Settled, Unsettled};
use pgshadow_catalog::Catalog;
use pgshadow_divergence::{LapseOf, Store};
use pgshadow_mirror_log::{AppendError, Log, Record};
use pgshadow_model::{
    Change, Changes, DdlStatement, Epoch, Lsn, Order, Outcome, QualifiedName, Sequence, Suspect, Xid,
};
use pgshadow_telemetry::{Counter, Gauge};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Transactions that may wait to be looked up.
const LOST_MAX: usize = 10_000;

/// A committed entry whose flush on the primary isn't known yet (`synchronous_commit = off`).
#[derive(Debug)]
pub(super) struct Unflushed {
    pub barrier: Sequence,
    pub entry: Entry,
}

/// An intent without its outcome.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlight {
    pub pid: i32,
    /// Where it is known.
    pub xid: Option<Xid>,
    since: Instant,
}

pub(super) struct Mirror {
    pub log: Log,
    pub book: Arc<OrderBook>,
    pub store: Arc<Store>,
    pub catalog: Arc<Catalog>,
    /// Of sessions that are captured.
    pub backends: Arc<Backends>,
    lost: mpsc::Sender<Unsettled>,
    lost_receiver: Mutex<Option<mpsc::Receiver<Unsettled>>>,
    /// Held while a number is drawn and entered in the book, so that the book sees them in order.
    numbering: Mutex<()>,
    /// Where the outcome of a committed, unapplied intent stands.
    outcomes: DashMap<Sequence, Sequence>,
    in_flight: DashMap<Sequence, InFlight>,
    unflushed: Mutex<Vec<Unflushed>>,
    /// The last insert position that was read for such entries.
    gate: Mutex<Option<(Epoch, Lsn)>>,
    gate_wanted: AtomicBool,
    pub prepared: PreparedTransactions,
    pub spilled: Arc<SpilledFiles>,
    /// With `durability = "os"`.
    unsynced: Option<Unsynced>,
    epoch: AtomicU32,
    /// Held while it is found out whether the primary lives another life.
    pub life: Mutex<()>,
    replies: AtomicU64,
    /// Which log it is; set once it was read.
    pub extent: OnceLock<LogExtent>,
    /// Sessions that wait for room in the log.
    blocked: AtomicUsize,
    stopped: AtomicBool,
    /// Whether the stop is written down.
    stop_marked: Mutex<bool>,
    /// Suspect tables that the log has and the store doesn't.
    pub unwritten: Unwritten,
    pub history: History,
    pub watch: Watch,
    /// At what the primary's catalog holds.
    pub looks: Looks,
    /// The shadow says that it has all of the log below this number.
    shadow_has: AtomicU64,
    shadow_mark: AtomicU64,
    /// Of definitions that clients change.
    pub guard: OnceLock<Guard>,
    /// The shadow is too far behind for statements of the clients to be run on it as well.
    pub behind: AtomicBool,
}

impl Mirror {
    pub fn new(
        log: Log,
        book: Arc<OrderBook>,
        store: Arc<Store>,
        catalog: Arc<Catalog>,
        unsynced: Option<Unsynced>,
    ) -> Self {
        let (lost, receiver) = mpsc::channel(LOST_MAX);
        Self {
            log,
            book,
            history: History::of(&store),
            store,
            catalog,
            backends: Arc::default(),
            lost,
            lost_receiver: Mutex::new(Some(receiver)),
            numbering: Mutex::new(()),
            outcomes: DashMap::new(),
            in_flight: DashMap::new(),
            unflushed: Mutex::new(Vec::new()),
            gate: Mutex::new(None),
            gate_wanted: AtomicBool::new(false),
            prepared: PreparedTransactions::default(),
            spilled: Arc::default(),
            unsynced,
            epoch: AtomicU32::new(0),
            life: Mutex::new(()),
            replies: AtomicU64::new(0),
            extent: OnceLock::new(),
            blocked: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            stop_marked: Mutex::new(false),
            unwritten: Unwritten::default(),
            watch: Watch::default(),
            looks: Looks::default(),
            shadow_has: AtomicU64::new(0),
            shadow_mark: AtomicU64::new(0),
            guard: OnceLock::new(),
            behind: AtomicBool::new(false),
        }
    }

    /// Keeps how far the shadow is, when something is proven or loaded there: a target at an older state doesn't have it any more.
    pub fn keep_shadow_had(&self) -> Result<(), pgshadow_divergence::Error> {
        let Some(log) = self.extent.get() else { return Ok(()) };
        let [below, mark] = [&self.shadow_has, &self.shadow_mark].map(|number| number.load(Ordering::SeqCst));
        pgshadow_apply::keep_had(&self.store, log, Had { below, mark })
    }

    pub fn take_lost(&self) -> Option<mpsc::Receiver<Unsettled>> {
        self.lost_receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Release);
        self.book.set_epoch(epoch);
    }

    /// Brings the log to disk and ends it.
    pub fn close(&self) {
        self.history.keep(&self.store, true);
        self.log.close();
        if let Some(unsynced) = &self.unsynced
            && self.log.status().poisoned.is_none()
            && let Err(error) = unsynced.clear(&self.store)
        {
            tracing::warn!(%error, "the list of unsynced tables could not be cleared");
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Mirroring ends: the application goes on, and what it writes from now on is suspect. Returns once that is written down, to
    /// everyone: no write may go on unmirrored before. False if it can't be.
    pub fn stop(&self, reason: &str) -> bool {
        let mut marked = self.stop_marked.lock().unwrap_or_else(PoisonError::into_inner);
        if *marked {
            return true;
        }
        tracing::error!(reason, "mirroring has stopped; tables written from now on are suspect");
        self.mark_stopped(&mut marked, reason)
    }

    /// Nothing is to be mirrored any more.
    pub fn end(&self, reason: &str) {
        let mut marked = self.stop_marked.lock().unwrap_or_else(PoisonError::into_inner);
        self.mark_stopped(&mut marked, reason);
    }

    fn mark_stopped(&self, marked: &mut bool, reason: &str) -> bool {
        Gauge::Mirroring.set(0);
        match self.log.mark_stopped(reason) {
            Ok(()) => *marked = true,
            Err(error) => tracing::error!(%error, "the stop could not be marked in the log's directory"),
        }
        self.stopped.store(true, Ordering::Release);
        self.lapse(&[LapseOf::Every], &format!("mirroring has stopped: {reason}"));
        *marked
    }

    /// Appends where waiting is allowed for (the buffer's limit, or a full log that blocks writes).
    fn append(&self, record: &Record) -> Result<Sequence, AppendError> {
        match self.log.append(record) {
            Err(AppendError::Busy | AppendError::Full) => {
                // the thread's other tasks move to another one meanwhile
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(self.log.append_wait(record)))
            }
            result => result,
        }
    }

    /// Appends, and waits until it is on disk; but not for room in the log, which whoever makes it may be waiting for this.
    pub fn append_synced(&self, record: &Record) -> Result<(), AppendError> {
        tokio::task::block_in_place(|| {
            let at = loop {
                match self.log.append(record) {
                    Err(AppendError::Busy) => std::thread::sleep(Duration::from_millis(1)),
                    result => break result?,
                }
            };
            tokio::runtime::Handle::current().block_on(self.log.synced(at))
        })
    }

    /// Appends an outcome and enters it in the book.
    fn conclude(&self, settled: Settled) {
        let Settled { sequence, barrier, flushed, committed, order, intent_changes, changes, suspects } = settled;
        self.in_flight.remove(&sequence);
        if committed {
            self.spilled.committed(sequence, [&intent_changes, &changes]);
        } else {
            self.spilled.over(sequence, &self.log);
        }
        let outcome = if committed { Outcome::Committed { order, changes, suspects } } else { Outcome::Aborted };
        let record = Record::Outcome { of: sequence, flushed, outcome };
        let written = self.append(&record);
        let Record::Outcome { outcome: Outcome::Committed { order, changes, suspects }, .. } = record else {
            return self.book.settle(sequence, barrier, None);
        };
        self.history.written(intent_changes.tables().into_iter().chain(changes.tables()));
        // without the watch it may be that of a later life than its epoch tells
        if let Some(order) = order.filter(|_| flushed && self.watch.holds()) {
            self.history.reached(order.epoch, order.token);
        }
        Counter::TransactionsMirrored.add(1);
        let order = order.filter(|_| !(intent_changes.is_empty() && changes.is_empty()));
        self.keep_suspects(&suspects);
        match written {
            Ok(at) => {
                if order.is_some() {
                    self.outcomes.insert(sequence, at);
                }
            }
            Err(error) => {
                self.stop(&error.to_string());
            }
        }
        let Some(order) = order else { return self.book.settle(sequence, barrier, None) };
        let reply_number = self.replies.fetch_add(1, Ordering::Relaxed);
        // an index is there whether its last commit was flushed or not
        let flushed = flushed || runs_beside(&intent_changes.rest);
        let entry =
            Entry { sequence, order, changes: payload(intent_changes, changes), flush_gate: None, reply_number };
        if flushed {
            self.settle_entry(barrier, entry);
        } else {
            self.wait_for_flush(Unflushed { barrier, entry });
        }
    }

    /// Gives an entry to the book, or leaves it in the log where that has it.
    fn settle_entry(&self, barrier: Sequence, entry: Entry) {
        let sequence = entry.sequence;
        let Some(at) = self.outcomes.get(&sequence).map(|at| *at) else {
            return self.book.settle(sequence, barrier, Some(entry));
        };
        if !self.book.settle_or_leave(barrier, entry, at) {
            self.outcomes.remove(&sequence);
        }
    }

    /// What has been in flight for `age` or longer, one for each backend that has just one.
    pub fn long_in_flight(&self, age: Duration) -> Vec<(Sequence, InFlight)> {
        let all: Vec<(Sequence, InFlight)> = self.in_flight.iter().map(|i| (*i.key(), *i)).collect();
        let alone = |pid: i32| all.iter().filter(|(_, other)| other.pid == pid).count() == 1;
        all.iter().filter(|(_, one)| one.since.elapsed() >= age && alone(one.pid)).copied().collect()
    }

    fn begin(&self, sequence: Sequence, record: &Record) -> Result<(), BeganLate> {
        match record {
            Record::Intent(intent) if runs_beside(&intent.changes.rest) => self.book.begin_beside(sequence),
            _ => self.book.begin(sequence),
        }
    }

    fn wait_for_flush(&self, unflushed: Unflushed) {
        self.unflushed.lock().unwrap_or_else(PoisonError::into_inner).push(unflushed);
    }

    /// How many entries wait for a position to wait for: [`Mirror::gate_unflushed`] takes them once that was read.
    pub fn unflushed(&self) -> usize {
        self.unflushed.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether a position is wanted for what the log held at the start.
    pub fn gate_wanted(&self) -> bool {
        self.gate_wanted.load(Ordering::Acquire)
    }

    /// These first entries may be applied once the primary has flushed up to `lsn`, an insert position read after they were
    /// counted: it lies above their commit records. Those that came since then may lie above it.
    pub fn gate_unflushed(&self, counted: usize, lsn: Lsn) {
        let waiting: Vec<Unflushed> = {
            let mut unflushed = self.unflushed.lock().unwrap_or_else(PoisonError::into_inner);
            let counted = counted.min(unflushed.len());
            unflushed.drain(..counted).collect()
        };
        *self.gate.lock().unwrap_or_else(PoisonError::into_inner) = Some((self.epoch(), lsn));
        self.gate_wanted.store(false, Ordering::Release);
        for mut unflushed in waiting {
            unflushed.entry.flush_gate = Some(lsn);
            self.settle_entry(unflushed.barrier, unflushed.entry);
        }
    }

    /// What the log held at the start, committed: it is read again when its turn comes.
    pub fn reenter(&self, sequence: Sequence, outcome_at: Sequence, order: Order, changes: [&Changes; 2]) {
        self.spilled.committed(sequence, changes);
        let bytes = changes.iter().map(|changes| changes.bytes()).sum();
        let changes = Payload::Vast(Arc::new(Vast { bytes, ..Vast::default() }));
        self.book.leave(&Entry { sequence, order, changes, flush_gate: None, reply_number: 0 }, outcome_at);
    }

    /// A transaction whose outcome is now known, or never will be (`committed` is then assumed, its tables suspect).
    pub fn found_out(&self, lost: Unsettled, committed: bool, unknown: Option<&str>) {
        let mut suspects = lost.suspects;
        let mut order = lost.order;
        let (mut intent_changes, mut changes) = (lost.intent_changes, lost.changes);
        let defines = |changes: &Changes| changes.rest.iter().any(|change| matches!(change, Change::Ddl(_)));
        if (committed || unknown.is_some()) && (defines(&intent_changes) || defines(&changes)) {
            // its session could not say so
            self.catalog.redefined();
        }
        let reason = match unknown {
            Some(reason) => Some(reason),
            // without a place, but with nothing to place: it wrote nothing
            None if committed
                && (!lost.complete || order.is_none() && !(intent_changes.is_empty() && changes.is_empty())) =>
            {
                Some("its transaction committed while its session was lost, and its rows were not all seen")
            }
            None => None,
        };
        if let Some(reason) = reason {
            let written = intent_changes.tables().into_iter().chain(changes.tables());
            let mut tables: BTreeSet<Option<QualifiedName>> =
                written.chain(lost.may_write.into_iter().map(Some)).collect();
            // what is missing and can't be named may be anywhere
            if lost.may_write_any || (tables.is_empty() && !lost.complete) {
                tables.insert(None);
            }
            suspects.extend(tables.into_iter().map(|table| Suspect { table, reason: reason.to_owned() }));
            if suspects.is_empty() {
                // all of it was seen, and nothing is missing
                tracing::info!(sequence = lost.sequence, reason, "a lost transaction had written nothing");
            }
            for change in intent_changes.rest.iter().chain(&changes.rest) {
                if let Change::Ddl(DdlStatement { sql, in_transaction: false, .. }) = change {
                    pgshadow_capture::Journal::not_repeated(self, sql, "whether the source has done it isn't known");
                }
            }
            order = None;
            (intent_changes, changes) = (Changes::default(), Changes::default());
        }
        self.conclude(Settled {
            sequence: lost.sequence,
            barrier: lost.barrier.max(self.book.barrier()),
            flushed: false,
            committed: committed || unknown.is_some(),
            order,
            intent_changes,
            changes,
            suspects,
        });
    }
}

/// Whether an intent is about what changes no rows, and is repeated beside them.
pub(super) fn runs_beside(changes: &[Change]) -> bool {
    let beside = |change: &Change| matches!(change, Change::Ddl(ddl) if !ddl.in_transaction);
    !changes.is_empty() && changes.iter().all(beside)
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("stopped", &self.is_stopped()).finish_non_exhaustive()
    }
}
