//! The state behind the book: what is in flight, what waits for what, and what may go.

use crate::entry::{Entry, Payload};
use crate::position::{AppliedPosition, Fence};
use crate::ranges::Ranges;
use crate::units::{HeldUnits, Units};
use pgshadow_model::{Epoch, Lsn, Order, Sequence};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use tokio::time::Instant;

/// Payloads in one batch, unless one entry alone is larger.
const BATCH_BYTES_MAX: usize = 16 << 20;

type Key = (Order, Sequence);

/// A position in one life of the primary.
type Place = (Epoch, Lsn);

/// A settled entry that is not applied yet.
pub(crate) struct Held {
    entry: Entry,
    units: Units,
    barrier: Sequence,
    bytes: usize,
    rows: usize,
    taken: bool,
}

#[derive(Default)]
pub(crate) struct State {
    memory_bytes_max: usize,
    pub(crate) memory_bytes: usize,
    pub(crate) bytes: usize,
    epoch: Epoch,
    flushed: Lsn,
    pub(crate) in_flight: BTreeSet<Sequence>,
    /// Of those in flight, the ones that will stand at this place or above.
    raised: BTreeMap<Sequence, Place>,
    pub(crate) entries: BTreeMap<Key, Held>,
    unapplied: BTreeMap<Sequence, Order>,
    /// Not taken yet, by what each waits for: something in flight; something in flight that was raised (two views of
    /// one set); the flush gate; nothing but part (b).
    by_barrier: BTreeSet<(Sequence, Key)>,
    by_order: BTreeSet<Key>,
    by_raised: BTreeSet<(Sequence, Key)>,
    by_gate: BTreeSet<(Place, Key)>,
    ready: BTreeSet<Key>,
    /// Applied, at or above `below`.
    applied: Ranges,
    /// What the shadow said at the start, and what was last written to it.
    restored: Option<AppliedPosition>,
    published: AppliedPosition,
    /// In the order of settling, for the age.
    arrivals: VecDeque<(Sequence, Instant)>,
    #[cfg(test)]
    pub(crate) without: crate::order_tests::Without,
}

impl Held {
    pub(crate) fn new(entry: Entry, barrier: Sequence) -> Self {
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

    fn place(&self) -> Place {
        (self.entry.order.epoch, self.entry.order.token)
    }
}

impl State {
    pub(crate) fn new(memory_bytes_max: usize) -> Self {
        Self { memory_bytes_max, ..Self::default() }
    }

    /// False if a position that has passed this sequence was written.
    pub(crate) fn begin(&mut self, sequence: Sequence) -> bool {
        if self.is_restored(sequence) {
            return true;
        }
        if self.published.contains(sequence) {
            return false;
        }
        self.in_flight.insert(sequence);
        true
    }

    fn is_restored(&self, sequence: Sequence) -> bool {
        self.restored.as_ref().is_some_and(|r| r.contains(sequence))
    }

    pub(crate) fn settle(&mut self, sequence: Sequence, entry: Option<Held>) -> bool {
        self.in_flight.remove(&sequence);
        self.raised.remove(&sequence);
        if let Some(held) = entry {
            self.add(held);
        }
        self.advance()
    }

    fn add(&mut self, mut held: Held) {
        let sequence = held.entry.sequence;
        let applied = self.is_restored(sequence) || self.applied.contains(sequence);
        if applied || self.unapplied.contains_key(&sequence) {
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

    pub(crate) fn raise(&mut self, sequence: Sequence, place: Place) -> bool {
        if self.in_flight.contains(&sequence) {
            let floor = self.raised.entry(sequence).or_insert(place);
            *floor = place.max(*floor);
        }
        self.advance()
    }

    pub(crate) fn first_in_flight(&self) -> Sequence {
        self.in_flight.first().copied().unwrap_or(Sequence::MAX)
    }

    /// The first in flight that may still stand anywhere.
    fn first_unraised(&self) -> Sequence {
        self.in_flight.iter().find(|s| !self.raised.contains_key(s)).copied().unwrap_or(Sequence::MAX)
    }

    /// Below this place nothing that was raised can stand.
    fn floor(&self) -> Option<Place> {
        self.raised.values().min().copied()
    }

    /// Moves on what no longer waits for part (a) or for the flush; true if something became ready.
    fn advance(&mut self) -> bool {
        let (first, unraised, floor) = (self.first_in_flight(), self.first_unraised(), self.floor());
        let mut freed = false;
        while let Some((barrier, key)) = self.by_barrier.first().copied()
            && (barrier <= unraised || self.is_part_a_off())
        {
            self.by_barrier.pop_first();
            if self.is_part_a_off() {
                freed |= self.pass_gate(key);
            } else {
                self.by_order.insert(key);
                self.by_raised.insert((barrier, key));
            }
        }
        while let Some((barrier, key)) = self.by_raised.first().copied()
            && barrier <= first
        {
            freed |= self.pass_raised(barrier, key);
        }
        while let Some(key) = self.by_order.first().copied()
            && floor.is_none_or(|floor| (key.0.epoch, key.0.token) < floor)
        {
            let barrier = self.entries.get(&key).map_or(0, |h| h.barrier);
            freed |= self.pass_raised(barrier, key);
        }
        while let Some((gate, key)) = self.by_gate.first().copied()
            && self.is_gate_open(gate)
        {
            self.by_gate.pop_first();
            freed |= self.ready.insert(key);
        }
        freed
    }

    fn pass_raised(&mut self, barrier: Sequence, key: Key) -> bool {
        self.by_order.remove(&key);
        self.by_raised.remove(&(barrier, key));
        self.pass_gate(key)
    }

    fn pass_gate(&mut self, key: Key) -> bool {
        match self.entries.get(&key).and_then(Held::gate) {
            Some(gate) if !self.is_gate_open(gate) => {
                self.by_gate.insert((gate, key));
                false
            }
            _ => self.ready.insert(key),
        }
    }

    /// Flushed, or of a life that is over: then nobody knows any more, and its rows are read again.
    fn is_gate_open(&self, (epoch, lsn): Place) -> bool {
        epoch < self.epoch || (epoch == self.epoch && lsn <= self.flushed)
    }

    pub(crate) fn set_epoch(&mut self, epoch: Epoch) -> bool {
        if epoch != self.epoch {
            (self.epoch, self.flushed) = (epoch, Lsn(0));
        }
        self.advance()
    }

    pub(crate) fn set_flushed(&mut self, lsn: Lsn) -> bool {
        self.flushed = self.flushed.max(lsn);
        self.advance()
    }

    pub(crate) fn take_batch(&mut self, max_entries: usize, max_rows: usize, visible: Option<&Fence>) -> Vec<Entry> {
        let chosen = self.choose(max_entries, max_rows, visible);
        let (epoch, flushed) = (self.epoch, self.flushed);
        let mut batch = Vec::with_capacity(chosen.len());
        for key in chosen {
            self.unlist(&key);
            let Some(held) = self.entries.get_mut(&key) else { continue };
            held.taken = true;
            self.memory_bytes -= held.entry.changes.bytes();
            let changes = std::mem::replace(&mut held.entry.changes, Payload::Spilled);
            // A gate that was passed is no longer said; one that never will be is.
            let flush_gate = held.entry.flush_gate.filter(|gate| key.0.epoch < epoch || *gate > flushed);
            batch.push(Entry { changes, flush_gate, ..held.entry.clone() });
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
            let may_go = self.ready.contains(key) || visible.is_some_and(|f| self.is_ready_behind(held, f));
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
    fn is_ready_behind(&self, held: &Held, fence: &Fence) -> bool {
        let barrier = held.barrier.min(fence.mark);
        let below_floor = || self.floor().is_none_or(|floor| held.place() < floor);
        let part_a = barrier <= self.first_in_flight() || (barrier <= self.first_unraised() && below_floor());
        part_a && held.gate().is_none_or(|gate| self.is_gate_open(gate))
    }

    fn conflict(&self, held_units: &HeldUnits, units: &Units) -> bool {
        !self.is_part_b_off() && held_units.conflict(units)
    }

    fn unlist(&mut self, key: &Key) {
        let Some(held) = self.entries.get(key) else { return };
        self.ready.remove(key);
        self.by_order.remove(key);
        self.by_raised.remove(&(held.barrier, *key));
        self.by_barrier.remove(&(held.barrier, *key));
        if let Some(gate) = held.gate() {
            self.by_gate.remove(&(gate, *key));
        }
    }

    fn remove(&mut self, sequence: Sequence) {
        let Some(order) = self.unapplied.remove(&sequence) else { return };
        let key = (order, sequence);
        self.unlist(&key);
        let Some(held) = self.entries.remove(&key) else { return };
        self.bytes -= held.bytes;
        self.memory_bytes -= held.entry.changes.bytes();
    }

    pub(crate) fn applied(&mut self, batch: &[Sequence], barrier: Sequence) {
        batch.iter().for_each(|s| self.remove(*s));
        let mut applied = std::mem::take(&mut self.applied);
        batch.iter().for_each(|s| applied.insert(*s, |gap| self.waits(gap, &BTreeSet::new())));
        applied.cut(self.below(&BTreeSet::new(), barrier));
        self.applied = applied;
    }

    /// Whether anything in the range is in flight or unapplied, the batch left out.
    fn waits(&self, range: Range<Sequence>, batch: &BTreeSet<Sequence>) -> bool {
        range.start < range.end
            && (self.in_flight.range(range.clone()).next().is_some()
                || self.unapplied.range(range).any(|(s, _)| !batch.contains(s)))
    }

    /// The position once this batch is applied.
    pub(crate) fn position_with(&mut self, batch: &[Sequence], barrier: Sequence) -> AppliedPosition {
        let batch: BTreeSet<Sequence> = batch.iter().copied().collect();
        let below = self.below(&batch, barrier);
        let mut applied = self.applied.clone();
        batch.iter().for_each(|s| applied.insert(*s, |gap| self.waits(gap, &batch)));
        applied.cut(below);
        let position = AppliedPosition { below, above: applied.iter().collect() };
        self.published = position.clone();
        position
    }

    pub(crate) fn restore(&mut self, position: &AppliedPosition) -> bool {
        // What was begun before this process is known by the first one only: later sequences are all above it.
        self.restored.get_or_insert_with(|| position.clone());
        let gone: Vec<Sequence> = self.unapplied.keys().filter(|s| position.contains(**s)).copied().collect();
        gone.into_iter().for_each(|s| self.remove(s));
        self.in_flight.retain(|s| !position.contains(*s));
        self.applied = position.above.iter().cloned().collect();
        self.advance()
    }

    pub(crate) fn skip(&mut self, last: Sequence) {
        let gone: Vec<Sequence> = self.unapplied.range(..=last).map(|(s, _)| *s).collect();
        gone.into_iter().for_each(|s| self.remove(s));
    }

    /// The low-water mark if `batch` were applied.
    pub(crate) fn below(&self, batch: &BTreeSet<Sequence>, barrier: Sequence) -> Sequence {
        let waiting = self.unapplied.keys().find(|s| !batch.contains(s)).copied().unwrap_or(Sequence::MAX);
        barrier.min(waiting).min(self.first_in_flight()).max(self.restored.as_ref().map_or(0, |r| r.below))
    }

    /// Age in milliseconds of what waits longest.
    pub(crate) fn oldest_ms(&mut self) -> u64 {
        while self.arrivals.front().is_some_and(|(s, _)| !self.unapplied.contains_key(s)) {
            self.arrivals.pop_front();
        }
        let oldest = self.arrivals.front().map(|(_, at)| at.elapsed().as_millis());
        oldest.map_or(0, |ms| u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// Whether all that began below the fence's mark is settled, and of it all that the fence contains is applied.
    pub(crate) fn reached(&self, fence: &Fence) -> bool {
        let left = |(order, _): &Key| fence.snapshot.contains(order);
        self.first_in_flight() >= fence.mark && !self.entries.keys().any(left)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    fn is_part_a_off(&self) -> bool {
        false
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    fn is_part_b_off(&self) -> bool {
        false
    }

    #[cfg(test)]
    fn is_part_a_off(&self) -> bool {
        self.without.in_flight
    }

    #[cfg(test)]
    fn is_part_b_off(&self) -> bool {
        self.without.conflicts
    }
}

impl Held {
    fn gate(&self) -> Option<Place> {
        self.entry.flush_gate.map(|lsn| (self.entry.order.epoch, lsn))
    }
}
