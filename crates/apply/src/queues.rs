//! Who stands before whom: settled, unapplied entries by the units that they share.

use crate::units::Units;
use pgshadow_model::{Order, Sequence};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound;

/// An entry's place among others.
pub(crate) type Key = (Order, Sequence);

/// The entries of one unit, in order.
#[derive(Debug, Default)]
struct Queue {
    exclusive: BTreeSet<Key>,
    shared: BTreeSet<Key>,
}

/// The queues of all units.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    by_unit: HashMap<u64, Queue>,
    /// Entries that conflict with every other one.
    everything: BTreeSet<Key>,
    all: BTreeSet<Key>,
}

impl Queues {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn add(&mut self, key: Key, units: &Units) {
        self.all.insert(key);
        if units.everything {
            self.everything.insert(key);
        }
        for unit in &units.exclusive {
            self.by_unit.entry(*unit).or_default().exclusive.insert(key);
        }
        for unit in &units.shared {
            self.by_unit.entry(*unit).or_default().shared.insert(key);
        }
    }

    pub(crate) fn remove(&mut self, key: &Key, units: &Units) {
        if !self.all.remove(key) {
            return;
        }
        self.everything.remove(key);
        for unit in units.exclusive.iter().chain(&units.shared) {
            let Some(queue) = self.by_unit.get_mut(unit) else { continue };
            queue.exclusive.remove(key);
            queue.shared.remove(key);
            if queue.exclusive.is_empty() && queue.shared.is_empty() {
                self.by_unit.remove(unit);
            }
        }
    }

    /// An entry before this one that must be applied first; `chosen` go together with it, before it. All of `chosen` were
    /// asked about in the same way, in order.
    pub(crate) fn blocker(&self, key: &Key, units: &Units, chosen: &HashSet<Sequence>) -> Option<Key> {
        let left = |before: &&Key| !chosen.contains(&before.1);
        if units.everything {
            return self.all.range(..key).rev().find(left).copied();
        }
        let after_all = self.everything.range(..key).next_back().filter(left).copied();
        let of = |unit: &u64, exclusive| self.by_unit.get(unit)?.blocker(key, exclusive, chosen);
        after_all
            .or_else(|| units.exclusive.iter().find_map(|unit| of(unit, true)))
            .or_else(|| units.shared.iter().find_map(|unit| of(unit, false)))
    }
}

impl Queue {
    fn blocker(&self, key: &Key, exclusive: bool, chosen: &HashSet<Sequence>) -> Option<Key> {
        let left = |before: &&Key| !chosen.contains(&before.1);
        // Where the nearest exclusive one is chosen, so is everything before it.
        let nearest = self.exclusive.range(..key).next_back();
        let blocker = nearest.filter(left);
        if blocker.is_some() || !exclusive {
            return blocker.copied();
        }
        let from = nearest.map_or(Bound::Unbounded, |nearest| Bound::Excluded(*nearest));
        self.shared.range((from, Bound::Excluded(*key))).rev().find(left).copied()
    }
}
