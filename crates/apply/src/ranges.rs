use pgshadow_model::Sequence;
use std::collections::BTreeMap;
use std::ops::Range;

/// Above this many ranges they are joined wherever that can be done, not only beside what was added.
const RANGES_MANY: usize = 256;

/// Sequences of which nothing is left to be applied, as ranges: one long wait must not make the list of all that was
/// applied since grow with every transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<Sequence, Sequence>);

impl Ranges {
    pub(crate) fn contains(&self, sequence: Sequence) -> bool {
        self.0.range(..=sequence).next_back().is_some_and(|(_, end)| sequence < *end)
    }

    /// Adds one, joined with its neighbours where nothing in the gap waits.
    pub(crate) fn insert(&mut self, sequence: Sequence, waits: impl Fn(Range<Sequence>) -> bool) {
        if self.contains(sequence) {
            return;
        }
        let (mut from, mut to) = (sequence, sequence + 1);
        let before = self.0.range(..sequence).next_back().map(|(f, t)| (*f, *t));
        if let Some((f, t)) = before.filter(|(_, t)| !waits(*t..sequence)) {
            (from, to) = (f, to.max(t));
        }
        let after = self.0.range(sequence..).next().map(|(f, t)| (*f, *t));
        if let Some((f, t)) = after.filter(|(f, _)| !waits(sequence + 1..*f)) {
            self.0.remove(&f);
            to = t;
        }
        self.0.insert(from, to);
        if self.0.len() > RANGES_MANY && self.0.len().is_power_of_two() {
            self.join(waits);
        }
    }

    fn join(&mut self, waits: impl Fn(Range<Sequence>) -> bool) {
        let mut joined: Vec<(Sequence, Sequence)> = Vec::with_capacity(self.0.len());
        for (from, to) in std::mem::take(&mut self.0) {
            match joined.last_mut() {
                Some(last) if !waits(last.1..from) => last.1 = to,
                _ => joined.push((from, to)),
            }
        }
        self.0 = joined.into_iter().collect();
    }

    /// Forgets what is below.
    pub(crate) fn cut(&mut self, below: Sequence) {
        while let Some((from, to)) = self.0.first_key_value().map(|(f, t)| (*f, *t))
            && from < below
        {
            self.0.remove(&from);
            if to > below {
                self.0.insert(below, to);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<Sequence>> + '_ {
        self.0.iter().map(|(from, to)| *from..*to)
    }
}

impl FromIterator<Range<Sequence>> for Ranges {
    fn from_iter<T: IntoIterator<Item = Range<Sequence>>>(ranges: T) -> Self {
        Self(ranges.into_iter().filter(|r| r.start < r.end).map(|r| (r.start, r.end)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn what_was_added_is_in_and_what_waits_is_not(
            waiting in prop::collection::btree_set(0_u64..600, 0..40),
            added in prop::collection::vec(0_u64..600, 0..500),
            below in 0_u64..600,
        ) {
            let mut ranges = Ranges::default();
            let added: BTreeSet<_> = added.into_iter().filter(|s| !waiting.contains(s)).collect();
            for s in added.iter().rev() {
                ranges.insert(*s, |gap| waiting.range(gap).next().is_some());
            }
            prop_assert!(added.iter().all(|s| ranges.contains(*s)));
            prop_assert!(!waiting.iter().any(|s| ranges.contains(*s)));
            prop_assert!(ranges.iter().count() <= waiting.len() + 1);
            ranges.cut(below);
            prop_assert!(added.iter().all(|s| ranges.contains(*s) == (*s >= below)));
            prop_assert_eq!(ranges.iter().collect::<Ranges>(), ranges);
        }
    }
}
