//! What is applied: the position that each lane writes to the shadow, and what the shadow says at the start.

use crate::position::AppliedPosition;
use crate::release::State;
use pgshadow_model::Sequence;
use std::collections::BTreeSet;
use std::ops::Range;

impl State {
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
                || self.in_flight_beside.range(range.clone()).next().is_some()
                || self.unapplied.range(range.clone()).any(|(s, _)| !batch.contains(s))
                || self.backlog.any_of(range))
    }

    /// The position once this batch is applied. It stays true whatever becomes of what other lanes have in hand.
    pub(crate) fn position_with(&mut self, batch: &[Sequence], barrier: Sequence) -> AppliedPosition {
        let batch: BTreeSet<Sequence> = batch.iter().copied().collect();
        let below = self.below(&batch, barrier);
        let mut applied = self.applied.clone();
        batch.iter().for_each(|s| applied.insert(*s, |gap| self.waits(gap, &batch)));
        applied.cut(below);
        let position = AppliedPosition { below, above: applied.iter().collect() };
        // Another lane's may hold what this one doesn't know of.
        self.published = std::mem::take(&mut self.published).with(&position);
        position
    }

    pub(crate) fn restore(&mut self, position: &AppliedPosition) {
        // What was begun before this process is known by the first one only: later sequences are all above it.
        self.restored.get_or_insert_with(|| position.clone());
        let gone: Vec<Sequence> = self.unapplied.keys().filter(|s| position.contains(**s)).copied().collect();
        gone.into_iter().for_each(|s| self.remove(s));
        self.backlog.forget(position);
        self.in_flight.retain(|s| !position.contains(*s));
        self.in_flight_beside.retain(|s| !position.contains(*s));
        self.applied = position.above.iter().cloned().collect();
        self.advance();
    }

    pub(crate) fn skip(&mut self, last: Sequence) {
        let gone: Vec<Sequence> = self.unapplied.range(..=last).map(|(s, _)| *s).collect();
        gone.into_iter().for_each(|s| self.remove(s));
        self.backlog.forget(&AppliedPosition { below: last + 1, above: Vec::new() });
    }

    /// The low-water mark if `batch` were applied.
    pub(crate) fn below(&self, batch: &BTreeSet<Sequence>, barrier: Sequence) -> Sequence {
        let beside = self.in_flight_beside.first().copied().unwrap_or(Sequence::MAX);
        self.below_in_lanes(batch, barrier.min(beside).min(self.first_in_flight()))
    }

    /// The same without what is in flight beside, or prepared.
    pub(crate) fn below_in_lanes(&self, batch: &BTreeSet<Sequence>, barrier: Sequence) -> Sequence {
        let waiting = self.unapplied.keys().find(|s| !batch.contains(s)).copied().unwrap_or(Sequence::MAX);
        let waiting = waiting.min(self.backlog.first());
        barrier.min(waiting).min(self.first_in_doubt()).max(self.restored.as_ref().map_or(0, |r| r.below))
    }
}
