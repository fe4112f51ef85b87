//! How fast tables are read beside the application: no faster than is allowed, and slower where the application's round trips take longer for it.
//!
//! Whether they do is measured, again and again: for a second nothing is read, then it is, then it isn't again, and the one is compared with the
//! other two. So it doesn't matter what the application does, nor whether it does something else than an hour ago. Where somebody is there it begins
//! slowly.
//!
//! Round trips take longer by chance as well, twice as long and more. What is harm goes when the rate does; so of the last comparisons the line
//! through zero is taken that the rises lie about (rise against rate, by the least absolute deviations), and what it says of the present rate, less
//! what may be chance (half its standard error), is what counts. Rises by chance are as often falls, and cancel.

use pgshadow_telemetry::{Times, Watch};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, RwLock, RwLockReadGuard};
use tokio::time::Instant;

/// What may be read at once after a pause.
const BURST: f64 = 0.1;
/// A rate may change: whoever waits looks again so often.
const LOOKS_EVERY: Duration = Duration::from_millis(100);
/// What was asked of the primary before is over after this.
const SETTLES: Duration = Duration::from_millis(100);
/// Bytes a second, until it is known whether somebody is there, and how much can be read then.
const RATE_FIRST: f64 = 8.0 * 1_048_576.0;
/// For each of these bytes a second one may read at a time, where somebody is there: what runs beside one another is felt more than what follows it.
const RATE_OF_ONE: f64 = 32.0 * 1_048_576.0;
/// When that is looked at first.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// So long nothing is read.
const QUIET: Duration = Duration::from_secs(1);
/// Comparisons that are remembered.
const COMPARED: usize = 8;
/// Reading between two pauses: at first, and where no limit has been needed for several of them.
const READING: Duration = Duration::from_secs(4);
const READING_LONG: Duration = Duration::from_secs(30);
const HARMLESS: u32 = 3;
/// Round trips in a second from which on it can be said how long they take.
const TELLING: f64 = 20.0;
/// Seconds. Not felt, however much longer it is than it was.
const NOT_FELT: f64 = 50e-6;
/// Logarithm of how much longer they are if they don't end at all; from half of it on it isn't looked at for longer.
const STARVED: f64 = 1.1;
/// How many of the round trips take at most what is looked at: half of them, and most.
const HALF: f64 = 0.5;
const MOST: f64 = 0.95;
/// By how much the rate is changed at a time.
const SLOWER: f64 = 0.5;
const FASTER: f64 = 2.0;
/// The standard error of a median by the median of what lies about it, without the root of how many there are: of a normal distribution.
const ERROR_OF_MEDIAN: f64 = 1.253 * 1.483;
/// So much of it may be chance.
const CHANCE: f64 = 0.5;
/// From here no limit is needed. Bytes a second.
const RATE_FREE: f64 = 4.0 * 1_073_741_824.0;
/// It goes on, however slowly: a snapshot that is held for ever harms as well. Bytes a second.
const RATE_MIN: f64 = 1_048_576.0;

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Bytes a second.
    pub rate_max: Option<u64>,
    /// By how much the application's round trips may become longer: 0.1 is a tenth.
    pub latency_rise_max: Option<f64>,
}

/// Shared by all that read.
#[derive(Debug)]
pub struct Pace {
    limits: Limits,
    state: Mutex<State>,
    /// Held by whoever reads, and while nothing is to be read.
    gate: RwLock<()>,
    /// Somebody has read.
    over: Notify,
}

/// Held while it is read.
#[derive(Debug)]
pub struct Reading<'a> {
    _gate: RwLockReadGuard<'a, ()>,
    _place: Place<'a>,
}

/// One of those that read.
#[derive(Debug)]
struct Place<'a>(&'a Pace);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().reading -= 1;
        self.0.over.notify_one();
    }
}

#[derive(Debug)]
struct State {
    /// Bytes a second that the application leaves; `None`: no limit was found.
    left: Option<f64>,
    /// Bytes that were asked for, and that were allowed, until that moment.
    asked: f64,
    allowed: f64,
    at: Instant,
    /// How much longer round trips were, if that was found.
    rise: Option<f64>,
    /// Who waits for the rate.
    waiting: u32,
    /// Who reads.
    reading: u32,
    /// Whether anybody had to wait, since that was last looked at.
    limited: bool,
}

/// What was seen while it was read, beside two pauses.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// How much longer round trips were, see [`Taken::longer_than`].
    longer: (f64, f64),
    /// Bytes a second that were read.
    rate: f64,
}

impl Pace {
    /// With nothing read so far.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let left = limits.latency_rise_max.map(|_| RATE_FIRST);
        let state = State {
            left,
            asked: 0.0,
            allowed: 0.0,
            at: Instant::now(),
            rise: None,
            waiting: 0,
            reading: 0,
            limited: false,
        };
        Self { limits, state: Mutex::new(state), gate: RwLock::new(()), over: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes a second.
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    fn rate(&self, state: &State) -> Option<f64> {
        let most = self.limits.rate_max.map(|rate| rate as f64);
        [most, state.left].into_iter().flatten().reduce(f64::min)
    }

    /// Waits until so many bytes may be read; whoever reads them in one statement holds this until it is over.
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    pub async fn take(&self, bytes: u64) -> Reading<'_> {
        let mine = {
            let mut state = self.lock();
            // up to now, by the rate up to now
            let _ = self.until(&mut state, f64::MIN);
            state.asked += bytes as f64;
            state.asked
        };
        let first = self.until(&mut self.lock(), mine);
        if let Some(mut pause) = first {
            let _waits = Waits::new(self);
            loop {
                tokio::time::sleep(pause.min(LOOKS_EVERY)).await;
                match self.until(&mut self.lock(), mine) {
                    Some(more) => pause = more,
                    None => break,
                }
            }
        }
        // a place first: whoever waits for one doesn't keep a pause waiting
        let place = self.place().await;
        Reading { _gate: self.gate.read().await, _place: place }
    }

    /// Waits until one more may read.
    async fn place(&self) -> Place<'_> {
        loop {
            {
                let mut state = self.lock();
                let most = state.left.map_or(f64::MAX, |left| (left / RATE_OF_ONE).max(1.0));
                if f64::from(state.reading) + 1.0 <= most {
                    state.reading += 1;
                    return Place(self);
                }
                state.limited = true;
            }
            // the rate may change as well
            let _ = tokio::time::timeout(LOOKS_EVERY, self.over.notified()).await;
        }
    }

    /// Whether the application sets the pace at present: what is asked for then is little at a time.
    #[must_use]
    pub fn is_gentle(&self) -> bool {
        self.lock().left.is_some()
    }

    /// How long it is until this byte may be read; `None`: now.
    fn until(&self, state: &mut State, byte: f64) -> Option<Duration> {
        let now = Instant::now();
        let passed = now.duration_since(state.at).as_secs_f64();
        state.at = now;
        let Some(rate) = self.rate(state) else {
            state.allowed = state.asked;
            return None;
        };
        state.allowed = (state.allowed + rate * passed).min(state.asked + rate * BURST);
        let left = byte - state.allowed;
        (left > 0.5).then(|| Duration::from_secs_f64((left / rate).clamp(0.000_01, 3600.0)))
    }

    /// Looks after the application, until it is dropped.
    pub async fn govern(&self) -> std::convert::Infallible {
        let Some(most) = self.limits.latency_rise_max else { return std::future::pending().await };
        let mut watch = Watch::begin();
        let mut compared = Compared::default();
        let mut before = None;
        let mut harmless = 0;
        let (mut rest, mut alone) = (QUIET, false);
        tokio::time::sleep(FIRST_LOOK).await;
        loop {
            // whoever gets no answer is there as well
            if before.is_none() && watch.take().count() == 0 && watch.in_flight() == 0 {
                self.lock().left = None;
                alone = true;
                tokio::time::sleep(QUIET).await;
                continue;
            }
            if std::mem::take(&mut alone) {
                self.lock().left = Some(RATE_FIRST);
                compared = Compared::default();
            }
            let Some(quiet) = before.take() else {
                let quiet = self.pause(&mut watch).await;
                if quiet.trips < TELLING {
                    // it can't be said of so few, and isn't asked again and again
                    self.lock().left = None;
                    compared = Compared::default();
                    tokio::time::sleep(rest).await;
                    rest = (rest * 2).min(READING_LONG);
                } else {
                    rest = QUIET;
                    before = Some(quiet);
                }
                continue;
            };
            let long = if harmless >= HARMLESS { READING_LONG } else { READING };
            let (taken, rate) = self.read_on(&mut watch, quiet, long).await;
            let after = self.pause(&mut watch).await;
            if after.trips < TELLING {
                continue;
            }
            let is_free = match rate {
                Some(rate) => {
                    let (from_one, from_other) = (taken.longer_than(quiet), taken.longer_than(after));
                    let longer = (f64::midpoint(from_one.0, from_other.0), f64::midpoint(from_one.1, from_other.1));
                    compared.note(Seen { longer, rate });
                    self.settle(&compared, most)
                }
                None => self.lock().left.is_none(),
            };
            harmless = if is_free { harmless + 1 } else { 0 };
            before = Some(after);
        }
    }

    /// How long round trips take while nothing is read.
    async fn pause(&self, watch: &mut Watch) -> Taken {
        let _closed = self.gate.write().await;
        tokio::time::sleep(SETTLES).await;
        watch.take();
        tokio::time::sleep(QUIET).await;
        Taken::of(&watch.take())
    }

    /// How long round trips take while it is read, and how many bytes a second that were, if any were.
    async fn read_on(&self, watch: &mut Watch, quiet: Taken, long: Duration) -> (Taken, Option<f64>) {
        let begun = Instant::now();
        let before = {
            let mut state = self.lock();
            state.limited = state.waiting > 0;
            state.asked
        };
        // as long as a pause each: of a longer time a few slow moments would count for more
        let mut seconds = Vec::new();
        let taken = loop {
            tokio::time::sleep(QUIET).await;
            seconds.push(Taken::of(&watch.take()));
            let (taken, during) = (Taken::mean(&seconds), begun.elapsed());
            let (half, most) = taken.longer_than(quiet);
            if during >= long || taken.is_starved(quiet) || (during >= READING && half.max(most) > STARVED / 2.0) {
                break taken;
            }
        };
        let state = self.lock();
        let rate = (state.asked - before) / begun.elapsed().as_secs_f64();
        // what is asked for in one statement is read for as long as that takes
        let rate = if state.reading > 0 { rate.max(RATE_MIN) } else { rate };
        (taken, (rate >= RATE_MIN / 2.0).then_some(rate))
    }

    /// What comes of it; whether there is no limit.
    fn settle(&self, compared: &Compared, most: f64) -> bool {
        let mut state = self.lock();
        // what was allowed so far was by the old rate
        let _ = self.until(&mut state, f64::MIN);
        let Some(Seen { rate, longer }) = compared.0.back().copied() else { return state.left.is_none() };
        let (felt, allowed) = (compared.felt(), most.ln_1p());
        let by = if felt > 0.0 { (allowed / felt).clamp(SLOWER, FASTER) } else { FASTER };
        if by < 1.0 {
            state.left = Some((state.left.unwrap_or(rate).min(rate) * by).max(RATE_MIN));
            state.rise = Some(felt.exp_m1());
        } else if let Some(left) = state.left.filter(|_| state.limited) {
            state.left = (left * by < RATE_FREE).then_some(left * by);
        }
        tracing::debug!(
            felt,
            half = longer.0,
            most = longer.1,
            rate,
            limited = state.limited,
            left = state.left,
            "pace"
        );
        state.left.is_none()
    }

    /// Why it isn't read faster, if that is why.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        let state = self.lock();
        let mib = |rate: f64| format!("{:.1} MiB/s are read", rate / 1_048_576.0);
        if state.waiting == 0 {
            return None;
        }
        let rate = self.rate(&state)?;
        if state.left.is_some_and(|left| left <= rate) {
            let why = state.rise.map(|rise| format!(", whose round trips took {:.0} % longer", rise * 100.0));
            return Some(format!("the application{}: {}", why.unwrap_or_default(), mib(rate)));
        }
        Some(format!("the limit, rate_max: {}", mib(rate)))
    }
}

/// Somebody who waits for the rate.
struct Waits<'a>(&'a Pace);

impl<'a> Waits<'a> {
    fn new(pace: &'a Pace) -> Self {
        let mut state = pace.lock();
        state.waiting += 1;
        state.limited = true;
        drop(state);
        Self(pace)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// How long round trips took.
#[derive(Debug, Clone, Copy)]
struct Taken {
    /// How many there were, in a second.
    trips: f64,
    /// Logarithms of the seconds that half of them, and most, took at most.
    half: f64,
    most: f64,
}

impl Taken {
    /// In a second.
    #[allow(clippy::cast_precision_loss, reason = "a second's")]
    fn of(times: &Times) -> Self {
        // where none has ended they take at least as long
        let time = |share| if times.count() == 0 { QUIET } else { times.quantile(share) };
        let of = |share| time(share).as_secs_f64().max(1e-6).ln();
        Self { trips: times.count() as f64, half: of(HALF), most: of(MOST) }
    }

    /// In each of some seconds.
    #[allow(clippy::cast_precision_loss, reason = "a few")]
    fn mean(seconds: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| seconds.iter().map(of).sum::<f64>() / seconds.len().max(1) as f64;
        Self { trips: mean(|one| one.trips), half: mean(|one| one.half), most: mean(|one| one.most) }
    }

    /// Whether there are so few that they may all be waiting.
    fn is_starved(self, quiet: Self) -> bool {
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
}

/// What was seen last.
#[derive(Debug, Default)]
struct Compared(VecDeque<Seen>);

impl Compared {
    fn note(&mut self, seen: Seen) {
        self.0.push_back(seen);
        while self.0.len() > COMPARED {
            self.0.pop_front();
        }
    }

    /// How much longer the application's round trips are at the last rate, as a logarithm, less what may be chance. Below 0: by chance.
    fn felt(&self) -> f64 {
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

    fn limited(rate_max: Option<u64>) -> Pace {
        Pace::new(Limits { rate_max, latency_rise_max: Some(0.1) })
    }

    fn times(of: impl Iterator<Item = u64>) -> Times {
        let mut times = Times::default();
        of.for_each(|micros| times.record(Duration::from_micros(micros)));
        times
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_rate() {
        let pace = limited(Some(1_000_000));
        let from = Instant::now();
        for _ in 0..50 {
            drop(pace.take(100_000).await);
        }
        let took = from.elapsed();
        assert!(took >= Duration::from_millis(4_850) && took <= Duration::from_millis(5_050), "{took:?}");
        drop(Pace::new(Limits::default()).take(u64::MAX).await);
        assert_eq!(from.elapsed(), took);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_profits_from_a_higher_rate_and_says_what_it_waits_for() {
        let pace = limited(Some(1_000_000));
        (pace.lock().left, pace.lock().rise) = (Some(1000.0), Some(0.2));
        let from = Instant::now();
        let reading = pace.take(1_000_000);
        let faster = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let why = pace.waits_for().unwrap();
            assert!(why.starts_with("the application, whose round trips"), "{why}");
            pace.lock().left = None;
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(pace.waits_for().as_deref(), Some("the limit, rate_max: 1.0 MiB/s are read"));
        };
        let (guard, ()) = tokio::join!(reading, faster);
        drop(guard);
        let took = from.elapsed();
        assert!(took >= Duration::from_secs(5) && took < Duration::from_millis(6_300), "{took:?}");
        assert_eq!(pace.waits_for(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn where_somebody_is_there_few_read_at_once() {
        let pace = limited(None);
        let mut held = Vec::new();
        for (left, most) in
            [(Some(RATE_MIN), 1), (Some(2.5 * RATE_OF_ONE), 2), (Some(5.0 * RATE_OF_ONE), 5), (None, 20)]
        {
            pace.lock().left = left;
            held.clear();
            while held.len() < 20 {
                let Ok(reading) = tokio::time::timeout(Duration::from_secs(60), pace.take(1)).await else { break };
                held.push(reading);
            }
            assert_eq!(held.len(), most, "at {left:?}");
        }
        pace.lock().left = Some(RATE_MIN);
        let over = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            held.clear();
        };
        let from = Instant::now();
        let (_reading, ()) = tokio::join!(pace.take(1), over);
        assert_eq!(from.elapsed(), Duration::from_millis(10));
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

    #[tokio::test(start_paused = true)]
    async fn the_rate_follows_what_is_found() {
        let pace = limited(None);
        let left = |pace: &Pace| pace.lock().left;
        let settle = |longer, rate| {
            pace.lock().limited = true;
            let mut compared = Compared::default();
            compared.note(Seen { longer: (0.0, longer), rate });
            pace.settle(&compared, 0.1)
        };
        assert_eq!(left(&pace), Some(RATE_FIRST));
        assert!(!pace.settle(&Compared::default(), 0.1));
        assert_eq!(left(&pace), Some(RATE_FIRST), "nothing has been read: nothing is known");
        assert!(!settle(-0.05, RATE_FIRST));
        assert_eq!(left(&pace), Some(FASTER * RATE_FIRST));
        assert!(!settle(0.08, FASTER * RATE_FIRST));
        assert!(
            left(&pace).is_some_and(|left| left > 2.2 * RATE_FIRST && left < 2.6 * RATE_FIRST),
            "nearly what is allowed"
        );
        settle(0.12, 50e6);
        assert!(left(&pace).is_some_and(|left| left > 13e6 && left < 17e6), "by what is allowed: {:?}", left(&pace));
        settle(2.0, 10e6);
        assert_eq!(left(&pace), Some(SLOWER * 10e6));
        settle(-2.0, 5e6);
        assert_eq!(left(&pace), Some(FASTER * SLOWER * 10e6));
        for _ in 0..40 {
            settle(0.5, 1e6);
        }
        assert_eq!(left(&pace), Some(RATE_MIN));
        let steps = (1..).find(|_| settle(0.0, 1e9));
        assert!(steps.is_some_and(|steps| steps < 40), "{steps:?}");
        let unlimited = Seen { longer: (0.3, 0.0), rate: 80e6 };
        pace.settle(&Compared(VecDeque::from([unlimited])), 0.1);
        assert!(left(&pace).is_some_and(|left| left < 80e6), "it is needed again");
    }

    /// Round trips that take twice as long, or half, by chance, and longer for what is read.
    #[tokio::test(start_paused = true)]
    async fn chance_neither_sinks_the_rate_nor_hides_harm() {
        use proptest::prelude::RngExt;
        use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
        let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        // the sum of some that are as often above as below
        let mut chance = || (0..4).map(|_| f64::from(runner.rng().random_range(-500..=500)) / 1000.0).sum::<f64>();
        for (harm_of_mib, low, high) in
            [(0.0, 200.0, f64::MAX), (0.002, 20.0, 90.0), (0.01, 4.0, 18.0), (0.05, 1.0, 4.0)]
        {
            let pace = limited(None);
            let mut compared = Compared::default();
            let mut rates = Vec::new();
            for _ in 0..400 {
                let rate = pace.lock().left.unwrap_or(RATE_FREE);
                rates.push(rate / 1_048_576.0);
                let harm = rate / 1_048_576.0 * harm_of_mib;
                let longer = (harm + chance(), harm + chance());
                compared.note(Seen { longer, rate });
                pace.lock().limited = true;
                pace.settle(&compared, 0.1);
            }
            rates.sort_by(f64::total_cmp);
            let median = rates[rates.len() / 2];
            assert!(median >= low && median <= high, "{harm_of_mib}: {median} MiB/s");
        }
    }

    /// Round trips that end only while nothing is read: whoever is starved isn't taken for somebody who is gone.
    #[tokio::test(start_paused = true)]
    async fn the_starved_are_seen_and_nobody_is_waited_for() {
        let pace = limited(None);
        let from = Instant::now();
        let mut trip = pgshadow_telemetry::RoundTrip::default();
        let starved = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            while from.elapsed() < Duration::from_secs(60) {
                trip.begin();
                if pace.gate.try_read().is_err() {
                    trip.end();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                // it never is without a limit
                assert!(pace.lock().left.is_some(), "after {:?}", from.elapsed());
            }
        };
        let reader = async {
            loop {
                let _reading = pace.take(1_000_000).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! { () = starved => {}, () = reader => {}, never = pace.govern() => match never {} }
        assert_eq!(pace.lock().left, Some(RATE_MIN));
        drop(trip);
        let alone = limited(None);
        let mut trip = pgshadow_telemetry::RoundTrip::default();
        let comes = async {
            tokio::time::sleep(2 * FIRST_LOOK).await;
            assert_eq!(alone.lock().left, None);
            trip.begin();
            tokio::time::sleep(QUIET).await;
            assert_eq!(alone.lock().left, Some(RATE_FIRST), "somebody has come");
        };
        tokio::select! { () = comes => {}, never = alone.govern() => match never {} }
    }
}
