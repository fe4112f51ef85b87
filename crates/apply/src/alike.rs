//! Of what lanes have in hand: who looks for one among equal rows.
//!
//! A row of a table without a key is found by its values, and of equal ones any will do. What depends on one another goes in order; but an
//! entry that settled late may stand before one that a lane is at already, as neither needs the other (`OrderBook::raise`). Two
//! lanes at once would then take the same of two equal rows, and one of them find none. So such an entry waits until the other lane is
//! done.

use crate::queues::Key;
use crate::units::Units;
use std::collections::{BTreeSet, HashMap};

/// Entries in hand that look for one among equal rows.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    by_table: HashMap<u64, BTreeSet<Key>>,
    /// They may do so in any table.
    anywhere: BTreeSet<Key>,
    all: BTreeSet<Key>,
}

impl Alike {
    pub(crate) fn add(&mut self, key: Key, units: &Units) {
        if units.everything {
            self.anywhere.insert(key);
        } else if units.alike.is_empty() {
            return;
        }
        self.all.insert(key);
        for table in &units.alike {
            self.by_table.entry(*table).or_default().insert(key);
        }
    }

    pub(crate) fn remove(&mut self, key: &Key, units: &Units) {
        if !self.all.remove(key) {
            return;
        }
        self.anywhere.remove(key);
        for table in &units.alike {
            let Some(entries) = self.by_table.get_mut(table) else { continue };
            entries.remove(key);
            if entries.is_empty() {
                self.by_table.remove(table);
            }
        }
    }

    /// Who has to be done first.
    pub(crate) fn blocker(&self, units: &Units) -> Option<Key> {
        if units.everything {
            return self.all.first().copied();
        }
        let of = |table: &u64| self.by_table.get(table)?.first();
        let anywhere = || self.anywhere.first().filter(|_| !units.alike.is_empty());
        units.alike.iter().find_map(of).or_else(anywhere).copied()
    }
}
