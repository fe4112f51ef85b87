//! How fast tables are read beside the application: no faster than is allowed, and slower where the application's round trips take longer for it.
//!
//! Whether they do is measured, again and again: for a second nothing is read, then it is, and the two are compared. So it doesn't matter what the
//! application does, nor whether it does something else than an hour ago. Where somebody is there it begins slowly.

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
/// Pauses that are remembered.
const PAUSES: usize = 4;
/// Reading between two pauses: at first, and where it has been seen several times that it does no harm.
const READING: Duration = Duration::from_secs(4);
const READING_LONG: Duration = Duration::from_secs(30);
const HARMLESS: u32 = 3;
const STEP: Duration = Duration::from_millis(500);
/// Round trips in a second from which on it can be said how long they take.
const TELLING: u64 = 20;
/// Not felt, however much longer it is than it was.
const NOT_FELT: Duration = Duration::from_micros(50);
/// From here it isn't looked at for longer.
const SHARP: f64 = 1.0;
/// By how much it is changed. What is seen is noisy: a rate that does no harm must not sink for as many rises by chance as there are falls.
const SLOWER: f64 = 0.7;
const SLOWER_MUCH: f64 = 0.5;
const FASTER: f64 = 1.5;
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

/// What was seen while it was read.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// How much longer round trips were.
    rise: f64,
    /// Bytes a second that were read.
    rate: f64,
    /// More would have been.
    limited: bool,
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
        let mut pauses = Pauses::default();
        let mut harmless = 0;
        let (mut rest, mut alone) = (QUIET, false);
        tokio::time::sleep(FIRST_LOOK).await;
        loop {
            // whoever gets no answer is there as well
            if watch.take().count() == 0 && watch.in_flight() == 0 {
                self.lock().left = None;
                alone = true;
                tokio::time::sleep(QUIET).await;
                continue;
            }
            if std::mem::take(&mut alone) {
                self.lock().left = Some(RATE_FIRST);
            }
            let quiet = self.pause(&mut watch).await;
            if quiet.count() < TELLING {
                // it can't be said of so few, and isn't asked again and again
                self.lock().left = None;
                pauses = Pauses::default();
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(READING_LONG);
                continue;
            }
            rest = QUIET;
            pauses.note(quiet);
            let long = if harmless >= HARMLESS { READING_LONG } else { READING };
            let seen = self.read_on(&mut watch, &pauses, long).await;
            let is_free = self.settle(seen, most);
            harmless = if is_free { harmless + 1 } else { 0 };
        }
    }

    /// How long round trips take while nothing is read.
    async fn pause(&self, watch: &mut Watch) -> Times {
        let _closed = self.gate.write().await;
        tokio::time::sleep(SETTLES).await;
        watch.take();
        tokio::time::sleep(QUIET).await;
        watch.take()
    }

    /// How much longer round trips are while it is read.
    async fn read_on(&self, watch: &mut Watch, pauses: &Pauses, long: Duration) -> Seen {
        let begun = Instant::now();
        let before = {
            let mut state = self.lock();
            state.limited = state.waiting > 0;
            state.asked
        };
        let mut times = Times::default();
        let mut rise = 0.0;
        while begun.elapsed() < long {
            tokio::time::sleep(STEP).await;
            times.add(&watch.take());
            rise = pauses.rise(&times, begun.elapsed());
            if rise > SHARP {
                break;
            }
        }
        let state = self.lock();
        Seen { rise, rate: (state.asked - before) / begun.elapsed().as_secs_f64(), limited: state.limited }
    }

    /// What comes of it; whether there is no limit.
    fn settle(&self, Seen { rise, rate, limited }: Seen, most: f64) -> bool {
        let mut state = self.lock();
        // what was allowed so far was by the old rate
        let _ = self.until(&mut state, f64::MIN);
        if rise > most && rate < RATE_MIN / 2.0 && state.reading == 0 {
            // not by what is read
        } else if rise > most {
            let share = if rise > SHARP { SLOWER_MUCH } else { SLOWER };
            state.left = Some((state.left.unwrap_or(rate).min(rate) * share).max(RATE_MIN));
            state.rise = Some(rise);
        } else if let Some(left) = state.left.filter(|_| limited) {
            let faster = left * if state.rise.is_some() { FASTER } else { 2.0 };
            state.left = (faster < RATE_FREE).then_some(faster);
        }
        tracing::debug!(rise, rate, limited, left = state.left, "pace");
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

/// How long round trips take while nothing is read.
#[derive(Debug, Default)]
struct Pauses(VecDeque<Times>);

impl Pauses {
    fn note(&mut self, times: Times) {
        self.0.push_back(times);
        while self.0.len() > PAUSES {
            self.0.pop_front();
        }
    }

    /// How much longer these are: of half of them, and of 95 %. 0: not at all, or it can't be said.
    fn rise(&self, times: &Times, during: Duration) -> f64 {
        let mut quiet = Times::default();
        self.0.iter().for_each(|pause| quiet.add(pause));
        if quiet.count() < TELLING {
            return 0.0;
        }
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let (seen, expected) = {
            let each_second = quiet.count() as f64 / (self.0.len() as f64 * QUIET.as_secs_f64());
            (times.count() as f64, each_second * during.as_secs_f64())
        };
        if seen < expected / 4.0 {
            // they may all be waiting
            return SHARP * 2.0;
        }
        let longer = |share: f64| {
            let (now, then) = (times.quantile(share), quiet.quantile(share));
            if now <= then + NOT_FELT { 0.0 } else { now.as_secs_f64() / then.as_secs_f64().max(1e-6) - 1.0 }
        };
        longer(0.5).max(longer(0.95))
    }
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
        let mut pauses = Pauses::default();
        let second = Duration::from_secs(1);
        assert_eq!(pauses.rise(&times(0..100), second), 0.0, "nothing is known");
        pauses.note(times(1000..2000));
        for (now, low, high) in [
            (times(1000..2000), 0.0, 0.0),
            (times(1020..2020), 0.0, 0.0),
            (times(1300..2300), 0.15, 0.25),
            // only the slowest
            (times((1000..1900).chain(4000..4100)), 1.0, 1.2),
            (times(1000..1200), SHARP, SHARP * 2.0),
        ] {
            let rise = pauses.rise(&now, second);
            assert!(rise >= low && rise <= high, "{rise} is not in {low} to {high}");
        }
        for _ in 0..PAUSES {
            pauses.note(times(3000..4000));
        }
        assert_eq!(pauses.rise(&times(3000..4000), second), 0.0, "what was long ago doesn't count");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_follows_what_is_found() {
        let pace = limited(None);
        let left = |pace: &Pace| pace.lock().left;
        let settle = |rise, rate| pace.settle(Seen { rise, rate, limited: true }, 0.1);
        assert_eq!(left(&pace), Some(RATE_FIRST));
        assert!(!pace.settle(Seen { rise: 0.05, rate: 0.0, limited: false }, 0.1));
        assert!(!settle(0.9, 1e3));
        assert_eq!(left(&pace), Some(RATE_FIRST), "nothing has been read: nothing is known");
        pace.lock().reading = 1;
        settle(0.9, 1e3);
        assert_eq!(left(&pace), Some(RATE_MIN), "somebody is at one statement all the while");
        (pace.lock().reading, pace.lock().left, pace.lock().rise) = (0, Some(RATE_FIRST), None);
        assert!(!settle(0.05, RATE_FIRST));
        assert_eq!(left(&pace), Some(2.0 * RATE_FIRST), "no harm was seen yet");
        settle(0.2, 50e6);
        assert_eq!(left(&pace), Some(0.7 * 2.0 * RATE_FIRST));
        settle(2.0, 10e6);
        assert_eq!(left(&pace), Some(5e6));
        settle(0.0, 5e6);
        assert_eq!(left(&pace), Some(7.5e6));
        for _ in 0..40 {
            settle(0.5, 1e6);
        }
        assert_eq!(left(&pace), Some(RATE_MIN));
        let steps = (1..).find(|_| settle(0.0, 1e9));
        assert!(steps.is_some_and(|steps| steps < 40), "{steps:?}");
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
