//! The release rule: which committed transactions may be applied now. Synchronous, no I/O.
//!
//! An entry goes once (a) nothing is in flight that began below its barrier, and (b) no entry with a lower order that
//! isn't on the shadow yet conflicts with it: one that is held, or in another lane's hands. Within one batch they go in order.

use crate::backlog::Left;
use crate::entry::Entry;
use crate::position::{AppliedPosition, Fence};
use crate::release::{Held, State};
use pgshadow_model::{Epoch, Lsn, Sequence, Xid};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often it is looked whether what is left in the log is needed.
const ROOM_LOOKS_EVERY: Duration = Duration::from_millis(100);

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
    /// Lanes that wait for a fence to be reached.
    fenced: AtomicU64,
    inner: Mutex<State>,
    work: Notify,
    work_beside: Notify,
    progress: Notify,
    room: Notify,
}

/// A lane waits for a fence as long as it lives.
pub(crate) struct Fenced(Arc<OrderBook>);

impl Drop for Fenced {
    fn drop(&mut self) {
        self.0.fenced.fetch_sub(1, Ordering::SeqCst);
    }
}

impl OrderBook {
    /// An empty book that keeps at most so many bytes of changes in memory (more is read again from the log).
    #[must_use]
    pub fn new(memory_bytes_max: usize) -> Self {
        Self {
            highest: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            fenced: AtomicU64::new(0),
            inner: Mutex::new(State::new(memory_bytes_max)),
            work: Notify::new(),
            work_beside: Notify::new(),
            progress: Notify::new(),
            room: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An intent is in flight: called before anything that may commit is sent. To be called in the order of sequences
    /// as near as can be (best where the log hands the number out).
    ///
    /// # Errors
    /// The applied position has passed this number, since it came later than higher ones that are applied already.
    /// Nothing may be sent under it: settle it in the log as aborted and write a new intent.
    pub fn begin(&self, sequence: Sequence) -> Result<(), BeganLate> {
        if !self.lock().begin(sequence) {
            return Err(BeganLate(sequence));
        }
        self.highest.fetch_max(sequence, Ordering::SeqCst);
        Ok(())
    }

    /// As [`OrderBook::begin`], for what changes no rows and takes its time (an index built concurrently): nothing waits for
    /// its outcome but the applied position.
    ///
    /// # Errors
    /// As there.
    pub fn begin_beside(&self, sequence: Sequence) -> Result<(), BeganLate> {
        if !self.lock().begin_beside(sequence) {
            return Err(BeganLate(sequence));
        }
        self.highest.fetch_max(sequence, Ordering::SeqCst);
        Ok(())
    }

    /// The highest place of a transaction that was settled in the present life of the primary.
    #[must_use]
    pub fn latest(&self) -> Lsn {
        self.lock().latest
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
        self.change(|state| state.settle(sequence, held));
        self.progress.notify_waiters();
    }

    /// As [`OrderBook::settle`], for an entry whose outcome stands in the log under this number: where many wait already it is
    /// left there until there is room. False if it was left.
    pub fn settle_or_leave(&self, barrier: Sequence, entry: Entry, outcome: Sequence) -> bool {
        let full = self.lock().is_full(entry.changes.bytes());
        if full {
            self.leave(&entry, outcome);
        } else {
            self.settle(entry.sequence, barrier, Some(entry));
        }
        !full
    }

    /// An entry whose outcome stands in the log under this number is to be read from there when its turn comes.
    pub fn leave(&self, entry: &Entry, outcome: Sequence) {
        self.highest.fetch_max(entry.sequence, Ordering::SeqCst);
        self.change(|state| state.leave(entry, outcome));
        self.progress.notify_waiters();
        self.room.notify_one();
    }

    /// Whether this intent was left in the log, and is still there.
    pub(crate) fn is_left(&self, sequence: Sequence) -> bool {
        self.lock().backlog.contains(sequence)
    }

    /// Waits until something that is left may be read.
    pub(crate) async fn wait_for_room(&self) {
        while self.next_left().is_none() {
            // looked at now and then as well: what is ready may have come to nothing
            let _ = tokio::time::timeout(ROOM_LOOKS_EVERY, self.room.notified()).await;
        }
    }

    pub(crate) fn next_left(&self) -> Option<Left> {
        self.lock().next_left()
    }

    pub(crate) fn loaded(&self, held: Vec<Held>, outcomes: &[Sequence], since: Instant) {
        self.change(|state| state.loaded(held, outcomes, since));
        self.progress.notify_waiters();
    }

    /// The outcome with this number can't be read: whatever it was, it is not waited for.
    pub(crate) fn lose_left(&self, outcome: Sequence) {
        self.change(|state| state.loaded(Vec::new(), &[outcome], Instant::now()));
        self.progress.notify_waiters();
    }

    /// Changes the state, and wakes a lane if there is something to take then. One that takes wakes the next one.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let (work, beside) = (state.has_ready(), state.has_ready_beside());
        drop(state);
        if work {
            self.work.notify_one();
        }
        if beside {
            self.work_beside.notify_one();
        }
        result
    }

    /// What is in flight under this sequence was still in progress in a snapshot taken after this position was read: it
    /// will stand there or above, so entries below need not wait for it. Keeps one blocked statement from holding all.
    pub fn raise(&self, sequence: Sequence, epoch: Epoch, lsn: Lsn) {
        self.change(|state| state.raise(sequence, (epoch, lsn)));
    }

    pub(crate) fn fenced(self: &Arc<Self>) -> Fenced {
        self.fenced.fetch_add(1, Ordering::SeqCst);
        Fenced(Arc::clone(self))
    }

    /// Whether a lane waits for a fence: then it is to be known of everything in flight whether it is still in progress
    /// ([`OrderBook::raise`]).
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::SeqCst) > 0
    }

    /// What is in flight under this sequence is a prepared transaction with this id: nobody who waits for what was committed waits
    /// for it, until `None` says that its end is on the way. It may be ordered by [`OrderBook::raise`] like any other.
    pub fn park(&self, sequence: Sequence, xid: Option<Xid>) {
        self.change(|state| state.park(sequence, xid));
        self.progress.notify_waiters();
    }

    /// The primary has flushed its WAL up to here.
    pub fn flushed(&self, lsn: Lsn) {
        self.change(|state| state.set_flushed(lsn));
    }

    /// The primary's life has changed; positions of the old one say nothing about the new one.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::SeqCst);
        self.change(|state| state.set_epoch(epoch));
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
        self.change(|state| state.take_batch(max_entries, max_rows, visible))
    }

    /// As [`OrderBook::take_batch`], for one lane among several: a few entries that have just come are left to the lane that is
    /// at work and will soon be done, since many in one transaction cost the shadow less than one in each.
    pub(crate) fn take_for_lane(&self, max_entries: usize, max_rows: usize) -> Vec<Entry> {
        self.change(|state| {
            if state.choice.is_left_to_others() {
                return Vec::new();
            }
            state.choice.taken_at = Some(Instant::now());
            state.take_batch(max_entries, max_rows, None)
        })
    }

    /// Whether entries are left that may go, to another lane or not.
    pub(crate) fn has_ready(&self) -> bool {
        self.lock().has_ready()
    }

    /// An entry that changes no rows and waits for none (an index built concurrently), to be run beside the lanes.
    pub(crate) fn take_beside(&self) -> Option<Entry> {
        self.lock().take_beside()
    }

    /// What was taken and can't be applied now is there for others again.
    pub(crate) fn give_back(&self, sequences: &[Sequence]) {
        self.change(|state| state.give_back(sequences));
    }

    /// Waits for what comes before an entry: for all that lanes have in their hands, and within `patience` for the rest.
    pub(crate) async fn wait_for_lower(&self, sequence: Sequence, patience: Duration) {
        self.wait_until(|state, _| !state.is_lower_left(sequence, true)).await;
        let all = self.wait_until(|state, _| !state.is_lower_left(sequence, false));
        let _ = tokio::time::timeout(patience, all).await;
    }

    /// Whether lanes have taken what they haven't applied yet.
    pub(crate) fn is_in_hand(&self) -> bool {
        self.lock().choice.in_hand > 0
    }

    /// These are on the shadow for good.
    pub fn applied(&self, sequences: &[Sequence]) {
        self.change(|state| state.applied(sequences, self.barrier()));
        self.progress.notify_waiters();
        self.room.notify_one();
    }

    /// What is applied.
    #[must_use]
    pub fn applied_position(&self) -> AppliedPosition {
        self.position_with(&[])
    }

    /// What will be applied once these are. Written to the shadow together with them.
    #[must_use]
    pub fn position_with(&self, batch: &[Sequence]) -> AppliedPosition {
        self.lock().position_with(batch, self.barrier())
    }

    /// What the shadow says that it holds: it is never applied again, whether it is in the book yet or not.
    pub fn restore(&self, position: &AppliedPosition) {
        self.change(|state| state.restore(position));
        let highest = position.above.last().map_or(position.below, |r| r.end).saturating_sub(1);
        self.highest.fetch_max(highest, Ordering::SeqCst);
        self.progress.notify_waiters();
    }

    /// What is settled with a number up to this is not to be applied; what is in flight still is, if it commits.
    pub(crate) fn skip(&self, last: Sequence) {
        self.change(|state| state.skip(last));
        self.progress.notify_waiters();
    }

    /// How far the shadow is behind.
    #[must_use]
    pub fn lag(&self) -> Lag {
        let mut state = self.lock();
        Lag {
            entries: state.entries.len() as u64 + state.backlog.len(),
            bytes: state.bytes as u64 + state.backlog.bytes(),
            memory_bytes: state.memory_bytes as u64,
            ms: state.oldest_ms(),
            in_flight: state.in_flight.len() as u64,
        }
    }

    /// Returns once everything that began below `mark` has its outcome.
    pub async fn wait_settled(&self, mark: Sequence) {
        self.wait_until(|state, _| state.first_in_doubt() >= mark).await;
    }

    /// Returns once everything below `mark` is applied, rolled back or had nothing to apply; what runs beside on the primary
    /// is not waited for. With [`OrderBook::barrier`] as the mark: all that was committed when it was called.
    pub async fn wait_applied(&self, mark: Sequence) {
        self.wait_until(|state, barrier| state.below_in_lanes(&BTreeSet::new(), barrier) >= mark).await;
    }

    /// Returns once at most so many entries are left.
    pub(crate) async fn wait_caught_up(&self, left: u64) {
        self.wait_until(|state, _| state.entries.len() as u64 + state.backlog.len() <= left).await;
    }

    async fn wait_until(&self, reached: impl Fn(&State, Sequence) -> bool) {
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

    /// Returns when there may be something to take.
    pub(crate) async fn wait_for_work(&self) {
        self.work.notified().await;
    }

    /// Returns when there may be something to run beside the lanes.
    pub(crate) async fn wait_for_work_beside(&self) {
        self.work_beside.notified().await;
    }

    /// Whether everything that began below `mark` is settled, and of it all that the fence contains is applied.
    pub(crate) fn reached(&self, fence: &Fence) -> bool {
        self.lock().reached(fence)
    }

    #[cfg(test)]
    pub(crate) fn set_window(&self, entries: usize) {
        self.lock().choice.window = entries;
    }

    /// So many entries are held before others are left in the log; for tests.
    pub fn set_held_max(&self, entries: usize) {
        self.lock().held_max = entries;
    }

    #[cfg(test)]
    pub(crate) fn set_without(&self, without: crate::order_tests::Without) {
        self.lock().without = without;
    }
}
