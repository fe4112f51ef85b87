//! Committed entries that are left in the log while the shadow is far behind: of each of them only its number is kept, in a
//! compressed set, so that a shadow that is away for hours costs no memory worth naming.
//!
//! They are read again block by block, the one first that may stand before all others. Until then a bound of their places is known:
//! nothing at or above it may be applied, since what is left may stand before it.

use crate::position::AppliedPosition;
use crate::queues::Key;
use pgshadow_model::{Lsn, Sequence};
use roaring::RoaringTreemap;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tokio::time::Instant;

/// Numbers of the log in a block.
const BLOCK: u64 = 4096;

#[derive(Default)]
pub(crate) struct Backlog {
    /// By intent.
    sequences: RoaringTreemap,
    /// Where their outcomes are: all of those that are left, and perhaps some that aren't any more.
    outcomes: RoaringTreemap,
    blocks: BTreeMap<u64, Block>,
    /// The lowest place of all blocks.
    floor: Option<Key>,
}

/// What is left and has its outcome among these numbers.
struct Block {
    /// No place of them is lower.
    first: Key,
    bytes: u64,
    since: Instant,
    /// A gate that is right for all of them (`synchronous_commit = off`).
    gate: Option<Lsn>,
}

/// A block to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    /// Numbers of the outcomes.
    pub(crate) outcomes: Vec<Sequence>,
    pub(crate) gate: Option<Lsn>,
    /// When the first of them was left.
    pub(crate) since: Instant,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// Entries that are left.
    pub(crate) fn len(&self) -> u64 {
        self.sequences.len()
    }

    /// Their bytes, roughly.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.values().map(|block| block.bytes).sum()
    }

    /// When the first block was begun.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.blocks.values().next().map(|block| block.since)
    }

    pub(crate) fn contains(&self, sequence: Sequence) -> bool {
        self.sequences.contains(sequence)
    }

    /// The lowest number that is left.
    pub(crate) fn first(&self) -> Sequence {
        self.sequences.min().unwrap_or(Sequence::MAX)
    }

    /// Whether one of these is left.
    pub(crate) fn any_of(&self, range: Range<Sequence>) -> bool {
        let outside = self.first() >= range.end || self.sequences.max().is_none_or(|max| max < range.start);
        !outside
            && self.sequences.rank(range.end - 1) > range.start.checked_sub(1).map_or(0, |n| self.sequences.rank(n))
    }

    /// Nothing that is left stands below this place.
    pub(crate) fn floor(&self) -> Option<Key> {
        self.floor
    }

    pub(crate) fn leave(&mut self, key: Key, outcome: Sequence, bytes: u64, gate: Option<Lsn>) {
        if !self.sequences.insert(key.1) {
            return;
        }
        self.outcomes.insert(outcome);
        let block = self.blocks.entry(outcome / BLOCK).or_insert(Block {
            first: key,
            bytes: 0,
            since: Instant::now(),
            gate: None,
        });
        block.first = block.first.min(key);
        block.bytes += bytes;
        block.gate = block.gate.max(gate);
        self.floor = Some(self.floor.map_or(key, |floor| floor.min(key)));
    }

    /// What is to be read next: the block that may stand before all others.
    pub(crate) fn first_block(&self) -> Option<Left> {
        let (number, block) = self.blocks.iter().min_by_key(|(_, block)| block.first)?;
        let mut outcomes = self.outcomes.iter();
        outcomes.advance_to(number * BLOCK);
        let outcomes = outcomes.take_while(|outcome| outcome / BLOCK == *number).collect();
        Some(Left { outcomes, gate: block.gate, since: block.since })
    }

    /// This one is in the book now. False if it was not left, or was forgotten since.
    pub(crate) fn take(&mut self, sequence: Sequence) -> bool {
        self.sequences.remove(sequence)
    }

    /// These outcomes were read, and what belongs to them taken.
    pub(crate) fn read(&mut self, outcomes: &[Sequence]) {
        for outcome in outcomes {
            self.outcomes.remove(*outcome);
        }
        let numbers: BTreeSet<u64> = outcomes.iter().map(|outcome| outcome / BLOCK).collect();
        for number in numbers {
            let mut left = self.outcomes.iter();
            left.advance_to(number * BLOCK);
            // more may have been left in it meanwhile
            if left.next().is_none_or(|outcome| outcome / BLOCK != number) {
                self.blocks.remove(&number);
            }
        }
        self.floor = self.blocks.values().map(|block| block.first).min();
        if self.outcomes.is_empty() {
            // of what could not be read the number isn't known
            self.sequences.clear();
        }
    }

    /// Those that are applied, or not to be.
    pub(crate) fn forget(&mut self, position: &AppliedPosition) {
        self.sequences.remove_range(..position.below);
        for range in &position.above {
            self.sequences.remove_range(range.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_model::{Epoch, Order, Xid};
    use proptest::prelude::*;

    fn key(token: u64, sequence: Sequence) -> Key {
        (Order { epoch: Epoch(1), token: Lsn(token), xid: Xid(sequence) }, sequence)
    }

    #[test]
    fn a_block_that_grows_while_it_is_read_stays() {
        let mut backlog = Backlog::default();
        backlog.leave(key(5, 1), 2, 10, None);
        let block = backlog.first_block().unwrap();
        backlog.leave(key(3, 3), 4, 10, Some(Lsn(9)));
        assert!(backlog.take(1) && !backlog.take(1));
        backlog.read(&block.outcomes);
        assert_eq!(backlog.floor(), Some(key(3, 3)));
        let block = backlog.first_block().unwrap();
        assert_eq!((block.outcomes.as_slice(), block.gate), (&[4][..], Some(Lsn(9))));
        assert!(backlog.take(3));
        backlog.read(&block.outcomes);
        assert!(backlog.is_empty() && backlog.floor().is_none() && backlog.first_block().is_none());
    }

    proptest! {
        #[test]
        fn all_that_is_left_is_read_once_and_nothing_of_it_stands_below_the_floor(
            left in prop::collection::vec((1_u64..50_000, 1_u64..1000), 1..200),
            below in 0_u64..10_000,
            ranges in prop::collection::vec((0_u64..50_000, 1_u64..50), 0..20),
        ) {
            let mut backlog = Backlog::default();
            let mut expected = BTreeMap::new();
            for (sequence, token) in left {
                expected.entry(sequence).or_insert(token);
            }
            for (sequence, token) in &expected {
                backlog.leave(key(*token, *sequence), 100_000 + sequence * 3 % 70_000, 1, None);
            }
            backlog.forget(&AppliedPosition { below, above: Vec::new() });
            expected.retain(|sequence, _| *sequence >= below);
            prop_assert_eq!(backlog.len(), expected.len() as u64);
            prop_assert_eq!(backlog.first(), expected.keys().next().copied().unwrap_or(Sequence::MAX));
            for (from, length) in ranges {
                let range = from..from + length;
                prop_assert_eq!(backlog.any_of(range.clone()), expected.range(range).next().is_some());
            }
            while let Some(block) = backlog.first_block() {
                for outcome in &block.outcomes {
                    let of: Vec<_> =
                        expected.keys().filter(|s| 100_000 + *s * 3 % 70_000 == *outcome).copied().collect();
                    for sequence in of {
                        let floor = backlog.floor().unwrap();
                        prop_assert!(key(expected[&sequence], sequence) >= floor);
                        prop_assert!(backlog.take(sequence));
                        expected.remove(&sequence);
                    }
                }
                backlog.read(&block.outcomes);
            }
            prop_assert!(expected.is_empty() && backlog.is_empty());
        }
    }
}
