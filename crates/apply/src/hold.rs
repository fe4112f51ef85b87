//! Tables that nothing may be applied to for a while, since they are loaded from a snapshot: in the queues a hold stands before every
//! entry, like one that changes its tables as a whole.

use crate::order::OrderBook;
use crate::queues::Key;
use crate::release::State;
use crate::units::Units;
use pgshadow_model::{Epoch, Lsn, Order, QualifiedName, Sequence, Xid};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a hold keeps entries from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldOf {
    /// All that there is.
    Everything,
    /// Definitions of any table, and what comes behind them.
    Definitions,
    /// These tables. `relatives`: rows of others may reach them (foreign keys, partitions, inheritance).
    Tables {
        /// By name.
        tables: Vec<QualifiedName>,
        /// Also hold all tables of which that may be so.
        relatives: bool,
    },
}

/// The holds of a book, by the numbers that they have in its queues: no entry has one that high.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    lasting: BTreeMap<Sequence, Units>,
    taken: u64,
}

/// Keeps entries from being applied until it is dropped.
pub struct Hold {
    book: Arc<OrderBook>,
    number: Sequence,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.book.change(|state| state.let_go(self.number));
    }
}

fn key(number: Sequence) -> Key {
    (Order { epoch: Epoch(0), token: Lsn(0), xid: Xid(0) }, number)
}

impl State {
    fn hold(&mut self, units: Units) -> Sequence {
        self.holds.taken += 1;
        let number = Sequence::MAX - self.holds.taken;
        self.choice.hold(key(number), &units);
        self.holds.lasting.insert(number, units);
        number
    }

    fn let_go(&mut self, number: Sequence) {
        if let Some(units) = self.holds.lasting.remove(&number) {
            self.choice.remove(&key(number), &units, false);
        }
    }

    pub(crate) fn is_holding(&self) -> bool {
        !self.holds.lasting.is_empty()
    }
}

impl OrderBook {
    /// Keeps entries that aren't in a lane's hands yet from being applied.
    pub fn hold(self: &Arc<Self>, held: &HoldOf) -> Hold {
        let number = self.change(|state| state.hold(Units::of_hold(held)));
        Hold { book: Arc::clone(self), number }
    }

    /// Whether something is held.
    pub(crate) fn is_holding(&self) -> bool {
        self.lock().is_holding()
    }
}
