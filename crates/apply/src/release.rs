//! The state behind the book: what is in flight, what waits for what, and what may go.

use crate::backlog::Backlog;
use crate::choice::Choice;
use crate::entry::{Entry, Payload};
use crate::hold::Holds;
use crate::position::{AppliedPosition, Fence};
use crate::queues::Key;
use crate::ranges::Ranges;
use crate::units::Units;
use pgshadow_model::{Change, Epoch, Lsn, Order, Sequence, Xid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::time::Instant;

/// Entries that are held at once.
const HELD_MAX: usize = 32_768;

/// A position in one life of the primary.
type Place = (Epoch, Lsn);

/// A settled entry that is not applied yet.
pub(crate) struct Held {
    pub(crate) entry: Entry,
    pub(crate) units: Units,
    pub(crate) barrier: Sequence,
    pub(crate) bytes: usize,
    pub(crate) rows: usize,
    /// It may take long: nothing else shall wait for it in the same hands.
    pub(crate) alone: bool,
    /// In a lane's hands.
    pub(crate) taken: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) memory_bytes_max: usize,
    pub(crate) memory_bytes: usize,
    pub(crate) bytes: usize,
    pub(crate) epoch: Epoch,
    pub(crate) flushed: Lsn,
    pub(crate) in_flight: BTreeSet<Sequence>,
    /// Begun as well, but nobody waits for it.
    pub(crate) in_flight_beside: BTreeSet<Sequence>,
    /// The highest place settled in this epoch.
    pub(crate) latest: Lsn,
    /// Of those in flight, the ones known to be uncommitted until someone says so, with their transaction ids.
    parked: BTreeMap<Sequence, Xid>,
    /// Of those in flight, the ones that will stand at this place or above.
    raised: BTreeMap<Sequence, Place>,
    pub(crate) entries: BTreeMap<Key, Held>,
    pub(crate) unapplied: BTreeMap<Sequence, Order>,
    /// Not taken yet, by what each waits for: something in flight; something in flight that was raised (two views of
    /// one set); the flush gate. What waits for nothing but part (b) is in `choice`.
    by_barrier: BTreeSet<(Sequence, Key)>,
    by_order: BTreeSet<Key>,
    by_raised: BTreeSet<(Sequence, Key)>,
    by_gate: BTreeSet<(Place, Key)>,
    pub(crate) choice: Choice,
    pub(crate) holds: Holds,
    /// What is left in the log for now.
    pub(crate) backlog: Backlog,
    /// So many entries are held here before others are left there.
    pub(crate) held_max: usize,
    /// Applied, at or above `below`.
    pub(crate) applied: Ranges,
    /// What the shadow said at the start.
    pub(crate) restored: Option<AppliedPosition>,
    /// All that lanes were given to write there, whether they did or not.
    pub(crate) published: AppliedPosition,
    /// In the order of settling, for the age.
    arrivals: VecDeque<(Sequence, Instant)>,
    #[cfg(test)]
    pub(crate) without: crate::order_tests::Without,
}

impl Held {
    pub(crate) fn new(entry: Entry, barrier: Sequence) -> Self {
        let bytes = usize::try_from(entry.changes.log_bytes()).unwrap_or(usize::MAX);
        let (units, rows, alone) = match &entry.changes {
            Payload::Memory { changes, .. } => {
                let alone = changes.iter().any(|change| !matches!(change, Change::Row(_) | Change::Statement(_)));
                (Units::of(changes), changes.len(), alone)
            }
            Payload::Spilled => (Units::everything(), 1, true),
            Payload::Vast(vast) => (Units::whole(vast), usize::try_from(vast.changes).unwrap_or(usize::MAX), true),
        };
        Self { entry, units, barrier, bytes, rows, alone, taken: false }
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
        Self { memory_bytes_max, held_max: HELD_MAX, ..Self::default() }
    }

    /// False if a position that has passed this sequence was written.
    pub(crate) fn begin(&mut self, sequence: Sequence) -> bool {
        self.begin_in(sequence, |state| &mut state.in_flight)
    }

    pub(crate) fn begin_beside(&mut self, sequence: Sequence) -> bool {
        self.begin_in(sequence, |state| &mut state.in_flight_beside)
    }

    fn begin_in(&mut self, sequence: Sequence, set: impl FnOnce(&mut Self) -> &mut BTreeSet<Sequence>) -> bool {
        if self.is_restored(sequence) {
            return true;
        }
        if self.published.contains(sequence) {
            return false;
        }
        set(self).insert(sequence);
        true
    }

    pub(crate) fn is_restored(&self, sequence: Sequence) -> bool {
        self.restored.as_ref().is_some_and(|r| r.contains(sequence))
    }

    pub(crate) fn settle(&mut self, sequence: Sequence, entry: Option<Held>) {
        self.in_flight.remove(&sequence);
        self.in_flight_beside.remove(&sequence);
        self.raised.remove(&sequence);
        self.parked.remove(&sequence);
        if let Some(held) = entry {
            if held.entry.order.epoch == self.epoch {
                self.latest = self.latest.max(held.entry.order.token);
            }
            self.add(held);
        }
        self.advance();
    }

    fn add(&mut self, held: Held) {
        self.add_since(held, Instant::now());
    }

    /// `since`: when it was settled.
    pub(crate) fn add_since(&mut self, mut held: Held, since: Instant) {
        let sequence = held.entry.sequence;
        let applied = self.is_restored(sequence) || self.applied.contains(sequence);
        if applied || self.unapplied.contains_key(&sequence) {
            return;
        }
        self.unapplied.insert(sequence, held.entry.order);
        self.bytes += held.bytes;
        if self.memory_bytes + held.entry.changes.bytes() > self.memory_bytes_max {
            held.entry.changes = Payload::Spilled;
        }
        self.memory_bytes += held.entry.changes.bytes();
        self.arrivals.push_back((sequence, since));
        self.by_barrier.insert((held.barrier, held.key()));
        self.choice.add(held.key(), &held.units);
        self.entries.insert(held.key(), held);
        self.widen();
    }

    pub(crate) fn raise(&mut self, sequence: Sequence, place: Place) {
        if self.in_flight.contains(&sequence) {
            let floor = self.raised.entry(sequence).or_insert(place);
            *floor = place.max(*floor);
        }
        self.advance();
    }

    /// It is prepared: whoever waits for what was committed needn't wait for it.
    pub(crate) fn park(&mut self, sequence: Sequence, xid: Option<Xid>) {
        match xid.filter(|_| self.in_flight.contains(&sequence)) {
            Some(xid) => drop(self.parked.insert(sequence, xid)),
            None => drop(self.parked.remove(&sequence)),
        }
    }

    /// The first in flight that may have committed.
    pub(crate) fn first_in_doubt(&self) -> Sequence {
        self.in_flight.iter().find(|s| !self.parked.contains_key(s)).copied().unwrap_or(Sequence::MAX)
    }

    pub(crate) fn first_in_flight(&self) -> Sequence {
        self.in_flight.first().copied().unwrap_or(Sequence::MAX)
    }

    /// The first in flight that may still stand anywhere.
    pub(crate) fn first_unraised(&self) -> Sequence {
        self.in_flight.iter().find(|s| !self.raised.contains_key(s)).copied().unwrap_or(Sequence::MAX)
    }

    /// Below this place nothing that was raised can stand.
    fn floor(&self) -> Option<Place> {
        self.raised.values().min().copied()
    }

    /// Moves on what no longer waits for part (a) or for the flush.
    pub(crate) fn advance(&mut self) {
        let (first, unraised, floor) = (self.first_in_flight(), self.first_unraised(), self.floor());
        while let Some((barrier, key)) = self.by_barrier.first().copied()
            && (barrier <= unraised || self.is_part_a_off())
        {
            self.by_barrier.pop_first();
            if self.is_part_a_off() {
                self.pass_gate(key);
            } else {
                self.by_order.insert(key);
                self.by_raised.insert((barrier, key));
            }
        }
        while let Some((barrier, key)) = self.by_raised.first().copied()
            && barrier <= first
        {
            self.pass_raised(barrier, key);
        }
        while let Some(key) = self.by_order.first().copied()
            && floor.is_none_or(|floor| (key.0.epoch, key.0.token) < floor)
        {
            let barrier = self.entries.get(&key).map_or(0, |h| h.barrier);
            self.pass_raised(barrier, key);
        }
        while let Some((gate, key)) = self.by_gate.first().copied()
            && self.is_gate_open(gate)
        {
            self.by_gate.pop_first();
            self.make_ready(key);
        }
    }

    /// What a lane has taken and can't apply now is there for others again.
    pub(crate) fn give_back(&mut self, sequences: &[Sequence]) {
        for sequence in sequences {
            let Some(key) = self.unapplied.get(sequence).map(|order| (*order, *sequence)) else { continue };
            let Some(held) = self.entries.get_mut(&key).filter(|held| held.taken) else { continue };
            held.taken = false;
            self.choice.put_down(&key, &held.units);
            self.by_barrier.insert((held.barrier, key));
        }
        self.advance();
    }

    /// Whether an entry with a lower order than this one's is left that changes rows or may free some value; with `taken`: in
    /// a lane's hands.
    pub(crate) fn is_lower_left(&self, sequence: Sequence, taken: bool) -> bool {
        let Some(order) = self.unapplied.get(&sequence) else { return false };
        if !taken && self.is_held_back(&(*order, sequence)) {
            return true;
        }
        let lower = self.entries.range(..(*order, sequence));
        lower.into_iter().any(|(_, held)| (held.taken || !taken) && !held.units.is_added_beside())
    }

    fn pass_raised(&mut self, barrier: Sequence, key: Key) {
        self.by_order.remove(&key);
        self.by_raised.remove(&(barrier, key));
        self.pass_gate(key);
    }

    fn pass_gate(&mut self, key: Key) {
        match self.entries.get(&key).and_then(Held::gate) {
            Some(gate) if !self.is_gate_open(gate) => {
                self.by_gate.insert((gate, key));
            }
            _ => self.make_ready(key),
        }
    }

    fn make_ready(&mut self, key: Key) {
        let beside = self.entries.get(&key).is_some_and(|held| held.units.beside);
        self.choice.make_ready(key, beside);
    }

    /// Flushed, or of a life that is over: then nobody knows any more, and its rows are read again.
    pub(crate) fn is_gate_open(&self, (epoch, lsn): Place) -> bool {
        epoch < self.epoch || (epoch == self.epoch && lsn <= self.flushed)
    }

    pub(crate) fn set_epoch(&mut self, epoch: Epoch) {
        if epoch != self.epoch {
            (self.epoch, self.flushed, self.latest) = (epoch, Lsn(0), Lsn(0));
        }
        self.advance();
    }

    pub(crate) fn set_flushed(&mut self, lsn: Lsn) {
        self.flushed = self.flushed.max(lsn);
        self.advance();
    }

    /// Part (a) behind a fence: what the entry depends on is seen by the snapshot too, so it began below the mark.
    pub(crate) fn is_ready_behind(&self, held: &Held, fence: &Fence) -> bool {
        let barrier = held.barrier.min(fence.mark);
        let below_floor = || self.floor().is_none_or(|floor| held.place() < floor);
        let part_a = barrier <= self.first_in_flight() || (barrier <= self.first_unraised() && below_floor());
        part_a && held.gate().is_none_or(|gate| self.is_gate_open(gate))
    }

    pub(crate) fn unlist(&mut self, key: &Key) {
        let Some(held) = self.entries.get(key) else { return };
        self.choice.unlist(key);
        self.by_order.remove(key);
        self.by_raised.remove(&(held.barrier, *key));
        self.by_barrier.remove(&(held.barrier, *key));
        if let Some(gate) = held.gate() {
            self.by_gate.remove(&(gate, *key));
        }
    }

    pub(crate) fn remove(&mut self, sequence: Sequence) {
        let Some(order) = self.unapplied.remove(&sequence) else { return };
        let key = (order, sequence);
        self.unlist(&key);
        let Some(held) = self.entries.remove(&key) else { return };
        self.bytes -= held.bytes;
        self.memory_bytes -= held.entry.changes.bytes();
        self.choice.remove(&key, &held.units, held.taken);
        self.widen();
    }

    /// Age in milliseconds of what waits longest.
    pub(crate) fn oldest_ms(&mut self) -> u64 {
        while self.arrivals.front().is_some_and(|(s, _)| !self.unapplied.contains_key(s)) {
            self.arrivals.pop_front();
        }
        let first = self.arrivals.front().map(|(_, at)| *at).into_iter().chain(self.backlog.since()).min();
        let oldest = first.map(|at| at.elapsed().as_millis());
        oldest.map_or(0, |ms| u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// Whether all that began below the fence's mark is settled, and of it all that the fence contains is applied.
    pub(crate) fn reached(&self, fence: &Fence) -> bool {
        // What runs beside the lanes changes no rows.
        let left = |(key, held): (&Key, &Held)| fence.snapshot.contains(&key.0) && !held.units.beside;
        // not what was still in progress behind the snapshot, be it a statement that takes long
        let in_progress = |sequence: &Sequence| {
            self.raised.get(sequence).is_some_and(|place| *place >= (fence.snapshot.epoch, fence.after))
        };
        let seen = |sequence: &Sequence| match self.parked.get(sequence) {
            // prepared when the snapshot was taken: it is not in it
            Some(xid) => fence.snapshot.contains(&Order { epoch: self.epoch, token: Lsn(0), xid: *xid }),
            None => !in_progress(sequence),
        };
        let first = self.in_flight.iter().find(|s| seen(s)).copied().unwrap_or(Sequence::MAX);
        first >= fence.mark && self.backlog.first() >= fence.mark && !self.entries.iter().any(left)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    pub(crate) fn is_floor_off(&self) -> bool {
        false
    }

    #[cfg(test)]
    pub(crate) fn is_floor_off(&self) -> bool {
        self.without.floor
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    fn is_part_a_off(&self) -> bool {
        false
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    pub(crate) fn is_part_b_off(&self) -> bool {
        false
    }

    #[cfg(test)]
    fn is_part_a_off(&self) -> bool {
        self.without.in_flight
    }

    #[cfg(test)]
    pub(crate) fn is_part_b_off(&self) -> bool {
        self.without.conflicts
    }
}

impl Held {
    pub(crate) fn gate(&self) -> Option<Place> {
        self.entry.flush_gate.map(|lsn| (self.entry.order.epoch, lsn))
    }
}
