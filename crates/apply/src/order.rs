//! The release rule: which committed transactions may be applied now. Synchronous, no I/O.
//!
//! An entry goes once (a) nothing is in flight that began below its barrier, and (b) no entry with a lower order that
//! is itself held shares a conflict unit with it.

use crate::entry::{Entry, Payload};
use crate::position::{AppliedPosition, Fence};
use crate::units::{HeldUnits, Units};
use pgshadow_model::{Epoch, Lsn, Order, Sequence};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Payloads in one batch, unless one entry alone is larger.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// A transaction began so late that the position written to the shadow had already passed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("intent {0} began after the applied position had passed it; drop it and write a new intent")]
pub struct BeganLate(pub Sequence);

/// How far the shadow is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Committed transactions not yet applied.
    pub entries: u64,
    /// Their changes, roughly.
    pub bytes: u64,
    /// Of those bytes, what is held in memory.
    pub memory_bytes: u64,
    /// Age of the one that waits longest.
    pub ms: u64,
    /// Transactions whose outcome isn't known yet.
    pub in_flight: u64,
}

/// Everything between the intent of a transaction and its place on the shadow. Shared by all sessions and the applier.
pub struct OrderBook {
    highest: AtomicU64,
    epoch: AtomicU32,
    inner: Mutex<Inner>,
    work: Notify,
    progress: Notify,
}

type Key = (Order, Sequence);

struct Held {
    entry: Entry,
    units: Units,
    barrier: Sequence,
    bytes: usize,
    rows: usize,
    taken: bool,
}

#[derive(Default)]
struct Inner {
    memory_bytes_max: usize,
    memory_bytes: usize,
    bytes: usize,
    in_flight: BTreeSet<Sequence>,
    /// Settled and not yet applied.
    entries: BTreeMap<Key, Held>,
    unapplied: BTreeMap<Sequence, Order>,
    /// Not taken yet, by what each waits for: part (a), the flush gate, or only part (b).
    by_barrier: BTreeSet<(Sequence, Key)>,
    by_gate: BTreeSet<(Lsn, Key)>,
    ready: BTreeSet<Key>,
    /// Applied, at or above `below`.
    applied: BTreeSet<Sequence>,
    restored_below: Sequence,
    published_below: Sequence,
    flushed: Lsn,
    /// In the order of settling, for the age.
    arrivals: VecDeque<(Sequence, Instant)>,
    #[cfg(test)]
    without: crate::order_tests::Without,
}

impl OrderBook {
    /// An empty book that keeps at most so many bytes of changes in memory (more is read again from the log).
    #[must_use]
    pub fn new(memory_bytes_max: usize) -> Self {
        Self {
            highest: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            inner: Mutex::new(Inner { memory_bytes_max, ..Inner::default() }),
            work: Notify::new(),
            progress: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An intent is in flight: called before anything that may commit is sent. To be called in the order of sequences
    /// as near as can be (best where the log hands the number out).
    ///
    /// # Errors
    /// The applied position has passed this number, since it came later than higher ones that are applied already.
    /// Nothing may be sent under it: settle it in the log as aborted and write a new intent.
    pub fn begin(&self, sequence: Sequence) -> Result<(), BeganLate> {
        let mut inner = self.lock();
        if sequence >= inner.restored_below {
            if sequence < inner.published_below {
                return Err(BeganLate(sequence));
            }
            inner.in_flight.insert(sequence);
        }
        self.highest.fetch_max(sequence, Ordering::SeqCst);
        Ok(())
    }

    /// One above the highest sequence begun: what a token reply that arrives now has to wait for.
    #[must_use]
    pub fn barrier(&self) -> Sequence {
        self.highest.load(Ordering::SeqCst) + 1
    }

    /// The outcome is known. `entry` is what is to be applied: `None` if it rolled back or did nothing. `barrier` was
    /// read when its last token reply arrived; when in doubt, read it now.
    pub fn settle(&self, sequence: Sequence, barrier: Sequence, entry: Option<Entry>) {
        let held = entry.map(|entry| Held::new(entry, barrier));
        self.highest.fetch_max(sequence, Ordering::SeqCst);
        let mut inner = self.lock();
        inner.in_flight.remove(&sequence);
        if let Some(held) = held {
            inner.add(held);
        }
        let freed = inner.advance();
        drop(inner);
        if freed {
            self.work.notify_one();
        }
        self.progress.notify_waiters();
    }

    /// The primary has flushed its WAL up to here.
    pub fn flushed(&self, lsn: Lsn) {
        let mut inner = self.lock();
        inner.flushed = inner.flushed.max(lsn);
        let freed = inner.advance();
        drop(inner);
        if freed {
            self.work.notify_one();
        }
    }

    /// The primary's life has changed; positions of the old one say nothing about the new one.
    pub fn set_epoch(&self, epoch: Epoch) {
        if self.epoch.swap(epoch.0, Ordering::SeqCst) != epoch.0 {
            self.lock().flushed = Lsn(0);
        }
    }

    /// The primary's life at present.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    /// Entries that may be applied now, in order; at least one if there is any, whatever its size. With a fence, only
    /// what its snapshot contains, and entries that it doesn't contain hold nothing back.
    #[must_use]
    pub fn take_batch(&self, max_entries: usize, max_rows: usize, visible: Option<&Fence>) -> Vec<Entry> {
        self.lock().take_batch(max_entries, max_rows, visible)
    }

    /// These are on the shadow for good.
    pub fn applied(&self, sequences: &[Sequence]) {
        let mut inner = self.lock();
        let batch: BTreeSet<Sequence> = sequences.iter().copied().collect();
        batch.iter().for_each(|s| inner.remove(*s));
        inner.applied.extend(batch);
        let below = inner.below(&BTreeSet::new(), self.barrier());
        inner.applied = inner.applied.split_off(&below);
        drop(inner);
        // What these held back by part (b) may go now.
        self.work.notify_one();
        self.progress.notify_waiters();
    }

    /// What is applied.
    #[must_use]
    pub fn applied_position(&self) -> AppliedPosition {
        self.position_with(&[])
    }

    /// What will be applied once these are. Written to the shadow together with them.
    #[must_use]
    pub fn position_with(&self, batch: &[Sequence]) -> AppliedPosition {
        let batch = batch.iter().copied().collect();
        let mut inner = self.lock();
        let below = inner.below(&batch, self.barrier());
        inner.published_below = inner.published_below.max(below);
        let above = inner.applied.union(&batch).copied().filter(|s| *s >= below).collect();
        AppliedPosition::new(below, above)
    }

    /// What the shadow says that it holds: it is never applied again, whether it is in the book yet or not.
    pub fn restore(&self, position: &AppliedPosition) {
        let mut inner = self.lock();
        inner.restored_below = inner.restored_below.max(position.below);
        inner.published_below = inner.published_below.max(position.below);
        inner.applied.extend(position.above.iter().filter(|s| **s >= position.below));
        let gone: Vec<Sequence> = inner.unapplied.keys().filter(|s| position.contains(**s)).copied().collect();
        gone.into_iter().for_each(|s| inner.remove(s));
        let below = inner.restored_below;
        inner.in_flight = inner.in_flight.split_off(&below);
        let freed = inner.advance();
        drop(inner);
        self.highest.fetch_max(position.below.saturating_sub(1), Ordering::SeqCst);
        if freed {
            self.work.notify_one();
        }
        self.progress.notify_waiters();
    }

    /// How far the shadow is behind.
    #[must_use]
    pub fn lag(&self) -> Lag {
        let mut inner = self.lock();
        while inner.arrivals.front().is_some_and(|(s, _)| !inner.unapplied.contains_key(s)) {
            inner.arrivals.pop_front();
        }
        let oldest = inner.arrivals.front().map(|(_, at)| at.elapsed().as_millis());
        Lag {
            entries: inner.entries.len() as u64,
            bytes: inner.bytes as u64,
            memory_bytes: inner.memory_bytes as u64,
            ms: oldest.map_or(0, |ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            in_flight: inner.in_flight.len() as u64,
        }
    }

    /// Returns once everything that began below `mark` has its outcome.
    pub async fn wait_settled(&self, mark: Sequence) {
        self.wait_until(|inner, _| inner.first_in_flight() >= mark).await;
    }

    /// Returns once everything below `mark` is applied, rolled back or had nothing to apply. With
    /// [`OrderBook::barrier`] as the mark: all that was committed when it was called.
    pub async fn wait_applied(&self, mark: Sequence) {
        self.wait_until(|inner, barrier| inner.below(&BTreeSet::new(), barrier) >= mark).await;
    }

    async fn wait_until(&self, reached: impl Fn(&Inner, Sequence) -> bool) {
        loop {
            let changed = self.progress.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if reached(&self.lock(), self.barrier()) {
                return;
            }
            changed.await;
        }
    }

    /// Returns when there may be something to take. For one applier.
    pub(crate) async fn wait_for_work(&self) {
        self.work.notified().await;
    }

    /// Whether everything that began below `mark` is settled, and of it all that the fence contains is applied.
    pub(crate) fn reached(&self, fence: &Fence) -> bool {
        let inner = self.lock();
        let left = |(order, _): &Key| fence.snapshot.contains(order);
        inner.first_in_flight() >= fence.mark && !inner.entries.keys().any(left)
    }

    #[cfg(test)]
    pub(crate) fn set_without(&self, without: crate::order_tests::Without) {
        self.lock().without = without;
    }
}

impl Held {
    fn new(entry: Entry, barrier: Sequence) -> Self {
        let bytes = entry.changes.bytes();
        let (units, rows) = match &entry.changes {
            Payload::Memory { changes, .. } => (Units::of(changes), changes.len()),
            Payload::Spilled => (Units::everything(), 1),
        };
        Self { entry, units, barrier, bytes, rows, taken: false }
    }

    fn key(&self) -> Key {
        (self.entry.order, self.entry.sequence)
    }
}

impl Inner {
    fn first_in_flight(&self) -> Sequence {
        self.in_flight.first().copied().unwrap_or(Sequence::MAX)
    }

    fn add(&mut self, mut held: Held) {
        let sequence = held.entry.sequence;
        let known = self.applied.contains(&sequence) || self.unapplied.contains_key(&sequence);
        if sequence < self.restored_below || known {
            return;
        }
        self.unapplied.insert(sequence, held.entry.order);
        self.bytes += held.bytes;
        if self.memory_bytes + held.bytes > self.memory_bytes_max {
            held.entry.changes = Payload::Spilled;
        }
        self.memory_bytes += held.entry.changes.bytes();
        self.arrivals.push_back((sequence, Instant::now()));
        self.by_barrier.insert((held.barrier, held.key()));
        self.entries.insert(held.key(), held);
    }

    /// Moves on what no longer waits for part (a) or for the flush; true if something became ready.
    fn advance(&mut self) -> bool {
        let first = self.bound();
        let mut freed = false;
        while let Some((barrier, key)) = self.by_barrier.first().copied()
            && barrier <= first
        {
            self.by_barrier.pop_first();
            match self.entries.get(&key).and_then(|h| h.entry.flush_gate) {
                Some(gate) if gate > self.flushed => {
                    self.by_gate.insert((gate, key));
                }
                _ => freed |= self.ready.insert(key),
            }
        }
        while let Some((gate, key)) = self.by_gate.first().copied()
            && gate <= self.flushed
        {
            self.by_gate.pop_first();
            freed |= self.ready.insert(key);
        }
        freed
    }

    #[cfg(not(test))]
    fn bound(&self) -> Sequence {
        self.first_in_flight()
    }

    fn take_batch(&mut self, max_entries: usize, max_rows: usize, visible: Option<&Fence>) -> Vec<Entry> {
        let chosen = self.choose(max_entries, max_rows, visible);
        let mut batch = Vec::with_capacity(chosen.len());
        for key in chosen {
            let Some(held) = self.entries.get_mut(&key) else { continue };
            held.taken = true;
            self.ready.remove(&key);
            self.by_barrier.remove(&(held.barrier, key));
            self.memory_bytes -= held.entry.changes.bytes();
            let changes = std::mem::replace(&mut held.entry.changes, Payload::Spilled);
            batch.push(Entry { changes, ..held.entry.clone() });
        }
        batch
    }

    /// Walks along the order, holding what must be held, until the batch is full or nothing more can go.
    fn choose(&self, max_entries: usize, max_rows: usize, visible: Option<&Fence>) -> Vec<Key> {
        let (mut chosen, mut rows, mut bytes, mut left) = (Vec::new(), 0, 0, self.ready.len());
        let mut held_units = HeldUnits::default();
        if left == 0 && visible.is_none() {
            return chosen;
        }
        for (key, held) in &self.entries {
            if held.taken || visible.is_some_and(|f| !f.snapshot.contains(&held.entry.order)) {
                continue;
            }
            let may_go = self.ready.contains(key) || visible.is_some_and(|f| self.is_ready_for(held, f));
            left -= usize::from(self.ready.contains(key));
            if may_go && !self.conflict(&held_units, &held.units) {
                (rows, bytes) = (rows + held.rows, bytes + held.bytes);
                if !chosen.is_empty() && (rows > max_rows || bytes > BATCH_BYTES_MAX) {
                    break;
                }
                chosen.push(*key);
            } else {
                held_units.hold(&held.units);
            }
            if chosen.len() >= max_entries || held_units.hold_everything() || (left == 0 && visible.is_none()) {
                break;
            }
        }
        chosen
    }

    /// Part (a) behind a fence: what the entry depends on is seen by the snapshot too, so it began below the mark.
    fn is_ready_for(&self, held: &Held, fence: &Fence) -> bool {
        let flushed = held.entry.flush_gate.is_none_or(|gate| gate <= self.flushed);
        flushed && held.barrier.min(fence.mark) <= self.first_in_flight()
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    fn conflict(&self, held_units: &HeldUnits, units: &Units) -> bool {
        held_units.conflict(units)
    }

    fn remove(&mut self, sequence: Sequence) {
        let Some(order) = self.unapplied.remove(&sequence) else { return };
        let key = (order, sequence);
        let Some(held) = self.entries.remove(&key) else { return };
        self.ready.remove(&key);
        self.by_barrier.remove(&(held.barrier, key));
        if let Some(gate) = held.entry.flush_gate {
            self.by_gate.remove(&(gate, key));
        }
        self.bytes -= held.bytes;
        self.memory_bytes -= held.entry.changes.bytes();
    }

    /// The low-water mark if `batch` were applied.
    fn below(&self, batch: &BTreeSet<Sequence>, barrier: Sequence) -> Sequence {
        let waiting = self.unapplied.keys().find(|s| !batch.contains(s)).copied().unwrap_or(Sequence::MAX);
        barrier.min(waiting).min(self.first_in_flight()).max(self.restored_below)
    }
}

#[cfg(test)]
impl Inner {
    fn bound(&self) -> Sequence {
        if self.without.in_flight { Sequence::MAX } else { self.first_in_flight() }
    }

    fn conflict(&self, held_units: &HeldUnits, units: &Units) -> bool {
        !self.without.conflicts && held_units.conflict(units)
    }
}
