//! Part (b): of the entries that wait for nothing in flight, those that no other one stands before.
//!
//! Who stands before whom is looked up among the first entries of the order only, so that a long queue costs no memory for it:
//! what stands before an entry comes before it in the order, so nothing that matters is left out.

use crate::alike::Alike;
use crate::entry::Entry;
use crate::position::Fence;
use crate::queues::{Key, Queues};
use crate::release::State;
use crate::units::{HeldUnits, Units};
use pgshadow_model::Sequence;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::time::Duration;
use tokio::time::Instant;

/// Payloads in one batch, unless one entry alone is larger.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Entries among which is looked up who stands before whom; more where none of these can go.
const WINDOW: usize = 8192;

/// So few entries are left to the lane that is at work, for so long.
const LEFT_MAX: usize = 32;
pub(crate) const LEFT_FOR: Duration = Duration::from_millis(10);

pub(crate) struct Choice {
    pub(crate) window: usize,
    queues: Queues,
    /// The last entry that `queues` may hold; every unapplied one up to it is there.
    last: Option<Key>,
    /// They pass part (a), and nothing is known to stand before them: for the lanes, and for what runs beside them.
    ready: BTreeSet<Key>,
    ready_beside: BTreeSet<Key>,
    /// They pass part (a), and this one stands before each of them; in both directions.
    blocked: HashMap<Sequence, Sequence>,
    waiting: HashMap<Sequence, Vec<(Key, bool)>>,
    /// When a lane last took some.
    pub(crate) taken_at: Option<Instant>,
    /// So many are in the hands of lanes.
    pub(crate) in_hand: usize,
    /// Of those, who looks for one among equal rows.
    alike: Alike,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            window: WINDOW,
            queues: Queues::default(),
            last: None,
            ready: BTreeSet::new(),
            ready_beside: BTreeSet::new(),
            blocked: HashMap::new(),
            waiting: HashMap::new(),
            taken_at: None,
            in_hand: 0,
            alike: Alike::default(),
        }
    }
}

impl Choice {
    pub(crate) fn add(&mut self, key: Key, units: &Units) {
        if self.last.is_some_and(|last| key <= last) {
            self.queues.add(key, units);
        }
    }

    /// A place in the queues that no entry has, before all of them.
    pub(crate) fn hold(&mut self, key: Key, units: &Units) {
        self.queues.add(key, units);
    }

    pub(crate) fn make_ready(&mut self, key: Key, beside: bool) {
        let ready = if beside { &mut self.ready_beside } else { &mut self.ready };
        ready.insert(key);
    }

    pub(crate) fn is_ready(&self, key: &Key) -> bool {
        self.ready.contains(key) || self.blocked.contains_key(&key.1)
    }

    /// Whether what is ready is best left to the lane that took some last.
    pub(crate) fn is_left_to_others(&self) -> bool {
        let soon = self.taken_at.is_some_and(|at| at.elapsed() < LEFT_FOR);
        self.in_hand > 0 && self.ready.len() < LEFT_MAX && soon
    }

    /// The first of those that a lane may take.
    pub(crate) fn first_ready(&self) -> Option<Key> {
        self.ready.first().copied()
    }

    pub(crate) fn unlist(&mut self, key: &Key) {
        self.ready.remove(key);
        self.ready_beside.remove(key);
        self.blocked.remove(&key.1);
    }

    pub(crate) fn remove(&mut self, key: &Key, units: &Units, taken: bool) {
        self.queues.remove(key, units);
        if taken {
            self.put_down(key, units);
        } else {
            self.free(key.1);
        }
    }

    /// A lane takes it in hand.
    fn pick_up(&mut self, key: Key, units: &Units) {
        if !units.beside {
            self.in_hand += 1;
            self.alike.add(key, units);
        }
    }

    /// A lane has it in hand no more. What waited for that is looked at again.
    pub(crate) fn put_down(&mut self, key: &Key, units: &Units) {
        if !units.beside {
            self.in_hand -= 1;
            self.alike.remove(key, units);
        }
        self.free(key.1);
    }

    /// What waited for this one is looked at again.
    fn free(&mut self, sequence: Sequence) {
        for (key, beside) in self.waiting.remove(&sequence).unwrap_or_default() {
            // it may be gone, or wait for another one by now
            if self.blocked.get(&key.1) == Some(&sequence) {
                self.blocked.remove(&key.1);
                self.make_ready(key, beside);
            }
        }
    }

    fn block(&mut self, key: Key, by: Sequence, beside: bool) {
        self.unlist(&key);
        self.blocked.insert(key.1, by);
        self.waiting.entry(by).or_default().push((key, beside));
    }
}

impl State {
    /// Whether there is something for a lane that nothing is known to stand before.
    pub(crate) fn has_ready(&self) -> bool {
        self.choice.ready.first().is_some_and(|key| !self.is_held_back(key))
    }

    /// The same for what runs beside the lanes.
    pub(crate) fn has_ready_beside(&self) -> bool {
        self.choice.ready_beside.first().is_some_and(|key| !self.is_held_back(key))
    }

    /// Lets the queues hold the first entries of the order.
    pub(crate) fn widen(&mut self) {
        self.widen_to(self.choice.window);
    }

    /// False if there was nothing to add.
    fn widen_to(&mut self, entries: usize) -> bool {
        let mut widened = false;
        while self.choice.queues.len() < entries {
            let from = self.choice.last.map_or(Bound::Unbounded, Bound::Excluded);
            let Some((key, held)) = self.entries.range((from, Bound::Unbounded)).next() else { break };
            self.choice.queues.add(*key, &held.units);
            self.choice.last = Some(*key);
            widened = true;
        }
        widened
    }

    pub(crate) fn take_batch(&mut self, max_entries: usize, max_rows: usize, visible: Option<&Fence>) -> Vec<Entry> {
        let chosen = match visible {
            Some(fence) => self.choose_behind(max_entries, max_rows, fence),
            None => self.choose(max_entries, max_rows),
        };
        self.take(chosen)
    }

    /// An entry that runs beside the lanes.
    pub(crate) fn take_beside(&mut self) -> Option<Entry> {
        let chosen = loop {
            let key = *self.choice.ready_beside.first().filter(|key| !self.is_held_back(key))?;
            match self.blocker(&key, &HashSet::new()) {
                Ok(Some(blocker)) => self.choice.block(key, blocker.1, true),
                Ok(None) => break key,
                Err(Unknown) => {
                    if !self.widen_to(self.choice.queues.len() + self.choice.window) {
                        return None;
                    }
                }
            }
        };
        self.take(vec![chosen]).pop()
    }

    fn take(&mut self, chosen: Vec<Key>) -> Vec<Entry> {
        let (epoch, flushed) = (self.epoch, self.flushed);
        let mut batch = Vec::with_capacity(chosen.len());
        for key in chosen {
            self.unlist(&key);
            let Some(held) = self.entries.get_mut(&key) else { continue };
            held.taken = true;
            self.choice.pick_up(key, &held.units);
            self.memory_bytes -= held.entry.changes.bytes();
            let changes = held.entry.changes.take();
            // A gate that was passed is no longer said; one that never will be is.
            let flush_gate = held.entry.flush_gate.filter(|gate| key.0.epoch < epoch || *gate > flushed);
            batch.push(Entry { changes, flush_gate, ..held.entry.clone() });
        }
        batch
    }

    /// Who stands before this entry and isn't chosen to go with it.
    fn blocker(&self, key: &Key, chosen: &HashSet<Sequence>) -> Result<Option<Key>, Unknown> {
        if self.choice.last.is_none_or(|last| *key > last) {
            return Err(Unknown);
        }
        let units = self.entries.get(key).map(|held| &held.units).filter(|_| !self.is_part_b_off());
        let before = |units| self.choice.queues.blocker(key, units, chosen);
        Ok(units.and_then(|units| before(units).or_else(|| self.choice.alike.blocker(units))))
    }

    /// Walks along what is ready, until the batch is full or nothing more can go.
    fn choose(&mut self, max_entries: usize, max_rows: usize) -> Vec<Key> {
        let (mut chosen, mut together) = (Vec::new(), HashSet::new());
        let (mut rows, mut bytes, mut from) = (0, 0, Bound::Unbounded);
        while chosen.len() < max_entries
            && let Some(key) = self.choice.ready.range((from, Bound::Unbounded)).next().copied()
            && !self.is_held_back(&key)
        {
            match self.blocker(&key, &together) {
                Ok(Some(blocker)) => self.choice.block(key, blocker.1, false),
                // Nothing waits in one lane's hands for what may take long there.
                Ok(None) if !chosen.is_empty() && self.entries.get(&key).is_some_and(|held| held.alone) => {}
                Ok(None) => {
                    let size = self.entries.get(&key).map_or((0, 0), |held| (held.rows, held.bytes));
                    (rows, bytes) = (rows + size.0, bytes + size.1);
                    if !chosen.is_empty() && (rows > max_rows || bytes > BATCH_BYTES_MAX) {
                        break;
                    }
                    chosen.push(key);
                    together.insert(key.1);
                    if self.entries.get(&key).is_some_and(|held| held.alone) {
                        break;
                    }
                    // They come later in the order, and may go with it.
                    self.choice.free(key.1);
                }
                Err(Unknown) => {
                    let used_up = chosen.len() + self.choice.in_hand >= self.choice.queues.len();
                    if !(chosen.is_empty() || used_up) || !self.widen_to(self.choice.queues.len() + self.choice.window)
                    {
                        break;
                    }
                    continue;
                }
            }
            from = Bound::Excluded(key);
        }
        chosen
    }

    /// The same behind a fence, where what the fence doesn't contain holds nothing back. Nothing is in hand then.
    fn choose_behind(&self, max_entries: usize, max_rows: usize, fence: &Fence) -> Vec<Key> {
        let (mut chosen, mut rows, mut bytes) = (Vec::new(), 0, 0);
        let mut held_units = HeldUnits::default();
        for (key, held) in &self.entries {
            if self.is_held_back(key) {
                break;
            }
            if held.taken || held.units.beside || !fence.snapshot.contains(&held.entry.order) {
                continue;
            }
            let may_go = self.choice.is_ready(key) || self.is_ready_behind(held, fence);
            if may_go && (self.is_part_b_off() || !held_units.conflict(&held.units)) {
                (rows, bytes) = (rows + held.rows, bytes + held.bytes);
                if !chosen.is_empty() && (rows > max_rows || bytes > BATCH_BYTES_MAX) {
                    break;
                }
                chosen.push(*key);
            } else {
                held_units.hold(&held.units);
            }
            if chosen.len() >= max_entries || held_units.hold_everything() {
                break;
            }
        }
        chosen
    }
}

/// Beyond what the queues hold.
struct Unknown;
