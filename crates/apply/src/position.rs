use pgshadow_model::{Epoch, Lsn, Order, Sequence};
use std::collections::BTreeSet;
use std::ops::Range;

/// What the shadow holds: exactly-once is kept by it. Written to the shadow in the transaction that applies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppliedPosition {
    /// Every transaction below is applied, rolled back or had nothing to apply.
    pub below: Sequence,
    /// So is every one in these ranges above, which rise and don't touch.
    pub above: Vec<Range<Sequence>>,
}

impl AppliedPosition {
    /// Whether nothing of this transaction is left to be applied.
    #[must_use]
    pub fn contains(&self, sequence: Sequence) -> bool {
        let next = self.above.partition_point(|r| r.end <= sequence);
        sequence < self.below || self.above.get(next).is_some_and(|r| r.contains(&sequence))
    }

    /// What either of them holds.
    #[must_use]
    pub(crate) fn with(self, other: &Self) -> Self {
        let below = self.below.max(other.below);
        let mut ranges: Vec<_> = self.above.into_iter().chain(other.above.iter().cloned()).collect();
        ranges.sort_unstable_by_key(|r| r.start);
        let mut joined = Self { below, above: Vec::with_capacity(ranges.len()) };
        for range in ranges {
            let from = range.start.max(joined.below);
            match joined.above.last_mut() {
                _ if range.end <= from => {}
                // a range at the mark moves the mark
                None if from <= joined.below => joined.below = range.end,
                Some(last) if from <= last.end => last.end = last.end.max(range.end),
                _ => joined.above.push(from..range.end),
            }
        }
        joined
    }
}

/// The text of a snapshot could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot: {0:?}")]
pub struct ParseSnapshotError(pub String);

/// What a snapshot of the primary sees, by full transaction id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Life of the primary that it was taken in.
    pub epoch: Epoch,
    xmin: u64,
    xmax: u64,
    in_progress: BTreeSet<u64>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,xip,...`, the text of `txid_current_snapshot()`.
    ///
    /// # Errors
    /// The text is something else.
    pub fn parse(epoch: Epoch, text: &str) -> Result<Self, ParseSnapshotError> {
        let wrong = || ParseSnapshotError(text.to_owned());
        let number = |s: &str| s.parse::<u64>().map_err(|_| wrong());
        let mut parts = text.split(':');
        let (Some(xmin), Some(xmax), Some(list), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let in_progress = list.split(',').filter(|x| !x.is_empty()).map(number).collect::<Result<_, _>>()?;
        Ok(Self { epoch, xmin: number(xmin)?, xmax: number(xmax)?, in_progress })
    }

    /// Whether the snapshot sees this committed transaction. All of an older epoch is over, all of a newer one comes
    /// after.
    #[must_use]
    pub fn contains(&self, order: &Order) -> bool {
        match order.epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => {
                let xid = order.xid.0;
                xid < self.xmin || (xid < self.xmax && !self.in_progress.contains(&xid))
            }
        }
    }
}

/// A snapshot, with the bound of what may have been in flight when it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// What the snapshot sees.
    pub snapshot: Snapshot,
    /// [`crate::OrderBook::barrier`] read after the snapshot was taken: what it sees has begun below.
    pub mark: Sequence,
    /// A position of the primary's WAL that was read after the snapshot was taken: what was still in progress there isn't seen.
    pub after: Lsn,
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_model::{Lsn, Xid};

    fn order(epoch: u32, xid: u64) -> Order {
        Order { epoch: Epoch(epoch), token: Lsn(1), xid: Xid(xid) }
    }

    #[test]
    fn two_positions_hold_together_what_either_holds() {
        let position = |below, above: &[(u64, u64)]| AppliedPosition {
            below,
            above: above.iter().map(|(from, to)| *from..*to).collect(),
        };
        for (a, b, both) in [
            (position(0, &[]), position(0, &[]), position(0, &[])),
            (position(3, &[(5, 6)]), position(4, &[(6, 8), (9, 10)]), position(4, &[(5, 8), (9, 10)])),
            (position(3, &[(5, 9)]), position(7, &[]), position(9, &[])),
            (position(3, &[(5, 20)]), position(3, &[(6, 8), (19, 22)]), position(3, &[(5, 22)])),
            (position(9, &[]), position(2, &[(3, 5)]), position(9, &[])),
        ] {
            assert_eq!(a.clone().with(&b), both, "{a:?} {b:?}");
            assert_eq!(b.clone().with(&a), both, "{b:?} {a:?}");
        }
    }

    #[test]
    fn a_snapshot_sees_what_was_over_when_it_was_taken() {
        let s = Snapshot::parse(Epoch(2), "10:20:10,15").unwrap();
        let seen: Vec<u64> = (8..22).filter(|x| s.contains(&order(2, *x))).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 14, 16, 17, 18, 19]);
        assert!(s.contains(&order(1, 99)) && !s.contains(&order(3, 1)));
        assert!(Snapshot::parse(Epoch(1), "7:7:").unwrap().contains(&order(1, 6)));
        for wrong in ["", "1:2", "1:2:x", "a:2:", "1:2:3:4"] {
            assert!(Snapshot::parse(Epoch(1), wrong).is_err(), "{wrong}");
        }
    }
}
