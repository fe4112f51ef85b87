//! Where sessions write down what they do: the log, and the applier's book behind it.
use super::history::History;
use super::prepared::PreparedTransactions;
use super::spilled::{self, SpilledFiles};
use super::suspects::Unwritten;
use super::unsynced::Unsynced;
use super::watch::Watch;
use dashmap::DashMap;
use pgshadow_apply::{BeganLate, Entry, LogError, LogExtent, OrderBook, Payload, Vast};
use pgshadow_capture::{Journal, Settled, Spill, SpillRefused, Stopped, Unsettled};
use pgshadow_catalog::Catalog;
use pgshadow_divergence::Store;
use pgshadow_mirror_log::{AppendError, Log, ReadError, Record};
use pgshadow_model::{
    Cause, Change, Changes, DdlStatement, Epoch, Finding, Intent, Kind, Lsn, Order, Outcome, QualifiedName, Sequence,
    Severity, Suspect,
};
use pgshadow_proxy::Gate;
use pgshadow_telemetry::{Counter, Gauge};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Sessions that may wait for room in the log at once (`on_full = "block_writes"`).
const BLOCKED_MAX: usize = 256;
/// How often one of them looks whether there is room.
const ROOM_POLL: Duration = Duration::from_millis(5);
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
struct InFlight {
    pid: i32,
    since: Instant,
}

pub(super) struct Mirror {
    pub log: Log,
    pub book: Arc<OrderBook>,
    pub store: Arc<Store>,
    pub catalog: Arc<Catalog>,
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
            behind: AtomicBool::new(false),
        }
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
        Gauge::Mirroring.set(0);
        tracing::error!(reason, "mirroring has stopped; tables written from now on are suspect");
        match self.log.mark_stopped(reason) {
            Ok(()) => *marked = true,
            Err(error) => tracing::error!(%error, "the stop could not be marked in the log's directory"),
        }
        self.stopped.store(true, Ordering::Release);
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

    /// What has been in flight for `age` or longer, by sequence and backend, one for each backend that has just one.
    pub fn long_in_flight(&self, age: Duration) -> Vec<(Sequence, i32)> {
        let all: Vec<(Sequence, i32, Duration)> =
            self.in_flight.iter().map(|i| (*i.key(), i.pid, i.since.elapsed())).collect();
        let alone = |pid: i32| all.iter().filter(|(_, other, _)| *other == pid).count() == 1;
        all.iter().filter(|(_, pid, since)| *since >= age && alone(*pid)).map(|(s, pid, _)| (*s, *pid)).collect()
    }

    fn read_record(&self, at: Sequence) -> Result<Record, LogError> {
        match self.log.read(at) {
            Err(ReadError::NotWritten(_)) if self.log.status().poisoned.is_none() => Err(LogError::NotYet),
            read => read.map_err(|error| LogError::Failed(Box::new(error))),
        }
    }

    /// The changes of an intent and of its outcome, read again.
    fn logged(&self, sequence: Sequence) -> Result<(Changes, Changes), LogError> {
        let failed = |error: &str| LogError::from(error.to_owned());
        let Record::Intent(intent) = self.read_record(sequence)? else { return Err(failed("not an intent")) };
        let at = self.outcomes.get(&sequence).map(|o| *o);
        match self.read_record(at.ok_or_else(|| failed("its outcome isn't known"))?)? {
            Record::Outcome { of, outcome: Outcome::Committed { changes, .. }, .. } if of == sequence => {
                Ok((intent.changes, changes))
            }
            _ => Err(failed("its outcome can't be read")),
        }
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

    /// A position that lies above a commit of this process's time or before it, which was not known to be flushed. `known`: one that
    /// was read for it.
    fn gate_for(&self, order: Order, known: Option<Lsn>) -> Option<Lsn> {
        if order.epoch != self.epoch() {
            // The life that could have said so is over: any gate of it is one that will never be known to be passed.
            return Some(Lsn(0));
        }
        let read = self.gate.lock().unwrap_or_else(PoisonError::into_inner).filter(|(epoch, _)| *epoch == order.epoch);
        let gate = known.or(read.map(|(_, lsn)| lsn));
        if gate.is_none() {
            self.gate_wanted.store(true, Ordering::Release);
        }
        gate
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
                tracing::warn!(
                    sequence = lost.sequence,
                    reason,
                    "a lost transaction had written nothing that is known of"
                );
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

/// All changes of a transaction, or what is known of them where they are too many to be held.
fn payload(first: Changes, more: Changes) -> Payload {
    if first.spilled.is_none() && more.spilled.is_none() {
        let mut all = first.rest;
        all.extend(more.rest);
        return Payload::memory(all);
    }
    let mut vast = Vast { tables: first.tables().into_iter().chain(more.tables()).collect(), ..Vast::default() };
    for changes in [first, more] {
        vast.bytes += changes.bytes();
        vast.changes += changes.rest.len() as u64;
        if let Some(spilled) = changes.spilled {
            vast.defines |= spilled.defines;
            vast.changes += spilled.changes();
        }
        vast.defines |= changes.rest.iter().any(|change| matches!(change, Change::Ddl(_) | Change::Truncate(_)));
    }
    Payload::Vast(Arc::new(vast))
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("stopped", &self.is_stopped()).finish_non_exhaustive()
    }
}

/// One session among those that wait for room, until it is dropped.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    number: usize,
}

impl<'a> Waiting<'a> {
    fn of(all: &'a AtomicUsize) -> Self {
        Self { all, number: all.fetch_add(1, Ordering::AcqRel) + 1 }
    }

    fn is_one_of(&self, most: usize) -> bool {
        self.number <= most
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Journal for Mirror {
    fn mirroring(&self) -> bool {
        !self.is_stopped()
    }

    fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    fn spill(&self) -> Result<Box<dyn Spill>, SpillRefused> {
        spilled::begin(&self.spilled, &self.log)
    }

    fn intent(&self, intent: Intent) -> (Changes, Result<Sequence, Stopped>) {
        if self.is_stopped() {
            return (intent.changes, Err(Stopped));
        }
        if let Some(unsynced) = &self.unsynced
            && let Err(error) = unsynced.note(&self.store, &intent)
        {
            self.stop(&error.to_string());
            return (intent.changes, Err(Stopped));
        }
        let pid = intent.backend.pid;
        let record = Record::Intent(intent);
        let mut waiting = None;
        let result = loop {
            let numbering = self.numbering.lock().unwrap_or_else(PoisonError::into_inner);
            let drawn = self.log.append(&record);
            let drawn = match drawn {
                Ok(sequence) => self.begin(sequence, &record).map(|()| sequence).map_err(|late| {
                    // never sent under this number
                    let aborted = Record::Outcome { of: late.0, flushed: false, outcome: Outcome::Aborted };
                    let _ = self.log.append(aborted);
                    None
                }),
                Err(error) => Err(Some(error)),
            };
            drop(numbering);
            match drawn {
                Ok(sequence) => {
                    self.in_flight.insert(sequence, InFlight { pid, since: Instant::now() });
                    break Ok(sequence);
                }
                Err(None) => {}
                Err(Some(AppendError::Busy)) => {
                    tokio::task::block_in_place(|| std::thread::sleep(std::time::Duration::from_millis(1)));
                }
                // a thread each: above the limit there would be none left to make room with
                Err(Some(AppendError::Full))
                    if self.log.blocks_writes()
                        && waiting.get_or_insert_with(|| Waiting::of(&self.blocked)).is_one_of(BLOCKED_MAX) =>
                {
                    tokio::task::block_in_place(|| std::thread::sleep(ROOM_POLL));
                }
                Err(Some(AppendError::TooLarge { .. } | AppendError::Encode(_))) => break Err(Stopped),
                Err(Some(error)) => {
                    self.stop(&error.to_string());
                    break Err(Stopped);
                }
            }
        };
        let changes = if let Record::Intent(intent) = record { intent.changes } else { Changes::default() };
        match &result {
            Ok(sequence) => self.spilled.add(*sequence, [&changes]),
            Err(_) => changes.spilled.iter().for_each(|spilled| self.log.remove_spilled(spilled.file)),
        }
        (changes, result)
    }

    fn barrier(&self) -> Sequence {
        self.book.barrier()
    }

    fn latest(&self) -> Lsn {
        self.book.latest()
    }

    fn settle(&self, settled: Settled) {
        self.conclude(settled);
    }

    fn lost(&self, unsettled: Unsettled) {
        let sequence = unsettled.sequence;
        if let Err(error) = self.lost.try_send(unsettled) {
            // the log still has its intent without an outcome: a restart looks it up
            tracing::error!(sequence, %error, "a lost transaction can't be looked up now; it waits for the next start");
        }
    }

    fn prepared(&self, gid: String, unsettled: Unsettled) {
        self.in_flight.remove(&unsettled.sequence);
        self.book.park(unsettled.sequence, unsettled.order.map(|o| o.xid));
        if let Some(ended_unseen) = self.prepared.add(gid, unsettled) {
            self.lost(ended_unseen);
        }
    }

    fn finishing_prepared(&self, gid: &str) -> Option<Sequence> {
        let sequence = self.prepared.ending(gid)?;
        self.book.park(sequence, None);
        Some(sequence)
    }

    fn finished_prepared(&self, gid: &str, committed: bool) {
        if let Some(open) = self.prepared.take(gid) {
            self.found_out(open, committed, None);
        }
    }

    fn suspect(&self, suspects: Vec<Suspect>) {
        self.keep_suspects(&suspects);
    }

    fn renamed(&self, old: &QualifiedName, new: &QualifiedName) {
        if let Some(reason) = self.store.is_suspect(old) {
            self.keep_suspects(&[Suspect { table: Some(new.clone()), reason }]);
        }
    }

    fn not_repeated(&self, sql: &str, reason: &str) {
        let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        let statement = (!sql.is_empty()).then(|| sql.to_owned());
        let finding = Finding {
            id: 0,
            kind: Kind::Schema,
            cause: Cause::Unknown,
            severity: Severity::Warning,
            table: None,
            key: statement.clone(),
            column: None,
            primary: None,
            shadow: None,
            sqlstate: None,
            message: Some(format!("a statement was not repeated on the shadow, since {reason}; run it there yourself")),
            sql: statement,
            fingerprint: "schema-not-repeated".to_owned(),
            xid: None,
            lsn: None,
            user: None,
            application: None,
            healed: false,
            count: 1,
            first_seen: now.clone(),
            last_seen: now,
            acknowledged: false,
        };
        if let Err(error) = self.store.record(finding) {
            tracing::error!(%error, "a finding could not be written down");
        }
    }
}

impl Gate for Mirror {
    async fn durable(&self, sequence: Sequence) {
        if let Err(error) = self.log.durable(sequence).await {
            self.stop(&error.to_string());
        }
    }

    async fn known_life(&self) {
        self.watch.wait().await;
    }
}

impl pgshadow_apply::Log for Mirror {
    fn extent(&self) -> LogExtent {
        self.extent.get().cloned().unwrap_or_default()
    }

    fn read(&self, sequence: Sequence) -> Result<Vec<Change>, LogError> {
        let (first, more) = self.logged(sequence)?;
        Ok(first.rest.into_iter().chain(more.rest).collect())
    }

    fn read_left(
        &self,
        outcome: Sequence,
        gate: Option<Lsn>,
        wanted: &dyn Fn(Sequence) -> bool,
    ) -> Result<Option<Entry>, LogError> {
        let committed = match self.read_record(outcome)? {
            Record::Outcome { of, flushed, outcome: Outcome::Committed { order: Some(order), changes, .. } } => {
                wanted(of).then_some((of, flushed, order, changes))
            }
            _ => return Err(LogError::from("not the outcome of a commit".to_owned())),
        };
        let Some((sequence, flushed, order, more)) = committed else { return Ok(None) };
        let Record::Intent(intent) = self.read_record(sequence)? else {
            return Err(LogError::from("not an intent".to_owned()));
        };
        let flushed = flushed || runs_beside(&intent.changes.rest);
        let flush_gate = if flushed { None } else { Some(self.gate_for(order, gate).ok_or(LogError::NotYet)?) };
        self.outcomes.insert(sequence, outcome);
        let reply_number = self.replies.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Entry { sequence, order, changes: payload(intent.changes, more), flush_gate, reply_number }))
    }

    fn read_part(&self, sequence: Sequence, mut part: usize) -> Result<Option<Vec<Change>>, LogError> {
        let (first, more) = self.logged(sequence)?;
        for changes in [first, more] {
            if let Some(spilled) = changes.spilled {
                if part < spilled.parts.len() {
                    let read = self.log.read_spilled(&spilled, part);
                    return read.map(Some).map_err(|error| LogError::Failed(Box::new(error)));
                }
                part -= spilled.parts.len();
            }
            if part == 0 {
                return Ok(Some(changes.rest));
            }
            part -= 1;
        }
        Ok(None)
    }

    fn let_go(&self, sequence: Sequence) {
        self.spilled.over(sequence, &self.log);
    }

    fn applied(&self, below: Sequence) {
        self.outcomes.retain(|sequence, _| *sequence >= below);
        self.spilled.applied(below, &self.log);
        self.log.trim(self.trimmable(below));
    }
}
