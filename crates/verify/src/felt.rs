//! How much longer the application's round trips take for what is read.
//!
//! Round trips take longer by chance as well, twice as long and more. What is harm goes when the rate does; so of the last comparisons the line
//! through zero is taken that the rises lie about (rise against rate, by the least absolute deviations), and what it says of the present rate, less
//! what may be chance (half its standard error), is what counts. Rises by chance are as often falls, and cancel.

use pgshadow_telemetry::Times;
use std::collections::VecDeque;
use std::time::Duration;

/// So long it is looked at a time: what is compared lasts as long, as of a longer time a few slow moments would count for more.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Comparisons that are remembered.
const COMPARED: usize = 8;
/// Seconds. Not felt, however much longer it is than it was.
const NOT_FELT: f64 = 50e-6;
/// Logarithm of how much longer they are if they don't end at all; from half of it on it isn't looked at for longer.
const STARVED: f64 = 1.1;
/// How many of the round trips take at most what is looked at: half of them, and most.
const HALF: f64 = 0.5;
const MOST: f64 = 0.95;
/// The standard error of a median by the median of what lies about it, without the root of how many there are: of a normal distribution.
const ERROR_OF_MEDIAN: f64 = 1.253 * 1.483;
/// So much of it may be chance.
const CHANCE: f64 = 0.5;

/// What was seen while it was read, beside two pauses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// How much longer round trips were, see [`Taken::longer_than`].
    pub(crate) longer: (f64, f64),
    /// Bytes a second that were read.
    pub(crate) rate: f64,
}

/// How long round trips took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// How many there were, in one look.
    pub(crate) trips: f64,
    /// Logarithms of the seconds that half of them, and most, took at most.
    half: f64,
    most: f64,
}

impl Taken {
    /// In one look.
    #[allow(clippy::cast_precision_loss, reason = "a look's")]
    pub(crate) fn of(times: &Times) -> Self {
        // where none has ended they take at least as long
        let time = |share| if times.count() == 0 { LOOK } else { times.quantile(share) };
        let of = |share| time(share).as_secs_f64().max(1e-6).ln();
        Self { trips: times.count() as f64, half: of(HALF), most: of(MOST) }
    }

    /// In each of some looks.
    #[allow(clippy::cast_precision_loss, reason = "a few")]
    pub(crate) fn mean(looks: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| looks.iter().map(of).sum::<f64>() / looks.len().max(1) as f64;
        Self { trips: mean(|one| one.trips), half: mean(|one| one.half), most: mean(|one| one.most) }
    }

    /// Whether there are so few that they may all be waiting.
    pub(crate) fn is_starved(self, quiet: Self) -> bool {
        self.trips < quiet.trips / 4.0
    }

    /// How much longer than in a pause, half of them and most, as logarithms; below 0: shorter.
    fn longer_than(self, quiet: Self) -> (f64, f64) {
        if self.is_starved(quiet) {
            return (STARVED, STARVED);
        }
        let longer = |now: f64, then: f64| if (now.exp() - then.exp()).abs() <= NOT_FELT { 0.0 } else { now - then };
        (longer(self.half, quiet.half), longer(self.most, quiet.most))
    }

    /// Whether they take so much longer that it needn't be looked at for longer.
    pub(crate) fn is_sharp(self, quiet: Self) -> bool {
        let (half, most) = self.longer_than(quiet);
        half.max(most) > STARVED / 2.0
    }

    /// How much longer than in the pauses before and behind: what changes by itself meanwhile doesn't count.
    pub(crate) fn longer_than_both(self, before: Self, after: Self) -> (f64, f64) {
        let (one, other) = (self.longer_than(before), self.longer_than(after));
        (f64::midpoint(one.0, other.0), f64::midpoint(one.1, other.1))
    }
}

/// What was seen last.
#[derive(Debug, Default)]
pub(crate) struct Compared(VecDeque<Seen>);

impl Compared {
    pub(crate) fn note(&mut self, seen: Seen) {
        self.0.push_back(seen);
        while self.0.len() > COMPARED {
            self.0.pop_front();
        }
    }

    /// The last of them.
    pub(crate) fn last(&self) -> Option<Seen> {
        self.0.back().copied()
    }

    /// How much longer the application's round trips are at the last rate, as a logarithm, less what may be chance. Below 0: by chance.
    pub(crate) fn felt(&self) -> f64 {
        let half: Vec<_> = self.0.iter().map(|seen| (seen.rate, seen.longer.0)).collect();
        let most: Vec<_> = self.0.iter().map(|seen| (seen.rate, seen.longer.1)).collect();
        felt(&half).max(felt(&most))
    }
}

/// Of rates, above 0, and how much longer round trips were: see [`Compared::felt`].
#[allow(clippy::cast_precision_loss, reason = "few")]
fn felt(seen: &[(f64, f64)]) -> f64 {
    let Some((now, _)) = seen.last() else { return 0.0 };
    // of all lines through zero that from which they lie the least away, added
    let slope = weighted_median(seen.iter().map(|(rate, longer)| (longer / rate, *rate)));
    let away = weighted_median(seen.iter().map(|(rate, longer)| ((longer - slope * rate).abs(), 1.0)));
    slope * now - CHANCE * ERROR_OF_MEDIAN * away / (seen.len() as f64).sqrt()
}

/// Of values with their weights. 0: there are none.
fn weighted_median(values: impl Iterator<Item = (f64, f64)>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(|one, other| one.0.total_cmp(&other.0));
    let half = values.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let median = values.iter().find(|(_, weight)| {
        sum += weight;
        sum >= half
    });
    median.map_or(0.0, |(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(of: impl Iterator<Item = u64>) -> Times {
        let mut times = Times::default();
        of.for_each(|micros| times.record(Duration::from_micros(micros)));
        times
    }

    #[test]
    fn what_takes_longer_is_seen() {
        let quiet = Taken::of(&times(1000..2000));
        for (now, half, most) in [
            (times(1000..2000), 0.0..=0.0, 0.0..=0.0),
            (times(1020..2020), 0.0..=0.0, 0.0..=0.0),
            (times(1300..2300), 0.15..=0.2, 0.1..=0.2),
            (times(700..1700), -0.25..=-0.2, -0.2..=-0.1),
            // only the slowest
            (times((1000..1900).chain(4000..4100)), 0.0..=0.0, 0.7..=0.8),
            (times(1000..1200), STARVED..=STARVED, STARVED..=STARVED),
            (Times::default(), STARVED..=STARVED, STARVED..=STARVED),
        ] {
            let found = Taken::of(&now).longer_than(quiet);
            assert!(half.contains(&found.0) && most.contains(&found.1), "{found:?} is not in {half:?}, {most:?}");
        }
        // one slow second of four
        let slow = Taken::of(&times(2000..4000));
        let (half, _) = Taken::mean(&[quiet, quiet, slow, quiet]).longer_than(quiet);
        assert!(half > 0.15 && half < 0.2, "{half}");
        let (half, _) = Taken::mean(&[quiet, quiet, Taken::of(&Times::default()), quiet]).longer_than(quiet);
        assert!(half > 1.0, "nobody got an answer in one of them: {half}");
        // slower and slower, without anything being read
        let between = Taken::of(&times(1500..3000));
        let (half, most) = between.longer_than_both(quiet, Taken::of(&times(2250..4500)));
        assert!(half.abs() < 0.03 && most.abs() < 0.03, "{half}, {most}");
    }

    #[test]
    fn half_of_the_weight_lies_to_either_side() {
        for (values, expected) in [
            (vec![], 0.0),
            (vec![(7.0, 1.0)], 7.0),
            (vec![(9.0, 1.0), (-1.0, 1.0), (2.0, 1.0)], 2.0),
            (vec![(9.0, 3.0), (-1.0, 1.0), (2.0, 1.0)], 9.0),
        ] {
            assert!((weighted_median(values.into_iter()) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn what_may_be_chance_is_not_felt() {
        assert!((felt(&[(10.0, 0.5)]) - 0.5).abs() < 1e-9);
        let harm = [(10.0, 0.2), (20.0, 0.4), (5.0, 0.1), (10.0, 0.2)];
        assert!((felt(&harm) - 0.2).abs() < 1e-9, "it goes when the rate does");
        assert!(felt(&[(10.0, 0.0), (10.0, 0.9), (10.0, 0.1), (10.0, 0.0), (10.0, 0.8)]) < 0.1);
        assert!(felt(&[(10.0, -0.5), (10.0, 0.5), (10.0, -0.2), (10.0, 0.2), (10.0, -0.1)]) < 0.0);
    }
}
