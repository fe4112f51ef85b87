//! How fast tables are read beside the application: no faster than is allowed, and slower where the application's round trips take longer for it.
//!
//! Whether they do is measured, again and again: for a second nothing is read, then it is, then it isn't again, and the one is compared with the
//! other two. So it doesn't matter what the application does, nor whether it does something else than an hour ago. Where somebody is there it begins
//! slowly.
//!
//! What is made of that: [`crate::felt`].

use crate::felt::{Compared, LOOK, Seen, Taken};
use pgshadow_telemetry::Watch;
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
/// Bytes a second, until it is known whether somebody is there, and how much can be read then: as little as ever, since the first seconds are felt like
/// all others.
const RATE_FIRST: f64 = RATE_MIN;
/// For each of these bytes a second one may read at a time, where somebody is there: what runs beside one another is felt more than what follows it.
const RATE_OF_ONE: f64 = 32.0 * 1_048_576.0;
/// When that is looked at first.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// Reading between two pauses: at first, and where no limit has been needed for several of them.
const READING: Duration = Duration::from_secs(4);
const READING_LONG: Duration = Duration::from_secs(30);
const HARMLESS: u32 = 3;
/// Round trips in a second from which on it can be said how long they take.
const TELLING: f64 = 20.0;
/// So often there are fewer in a pause before nobody is looked after: once may be somebody who halts.
const FEW: u32 = 3;
/// By how much the rate is changed at a time.
const SLOWER: f64 = 0.5;
const FASTER: f64 = 2.0;
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
    /// What it is to be once somebody is there again; `None`: somebody is.
    lifted: Option<f64>,
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

impl Pace {
    /// With nothing read so far.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let left = limits.latency_rise_max.map(|_| RATE_FIRST);
        let state = State {
            left,
            lifted: None,
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
        let (mut before, mut absent, mut few, mut harmless) = (None, false, 0, 0);
        tokio::time::sleep(FIRST_LOOK).await;
        loop {
            // whoever gets no answer is there as well
            if before.is_none() && watch.take().count() == 0 && watch.in_flight() == 0 {
                self.lift();
                absent = true;
                tokio::time::sleep(LOOK).await;
                continue;
            }
            if std::mem::take(&mut absent) {
                self.limit();
                few = 0;
            }
            let quiet = match before.take() {
                Some(quiet) => quiet,
                None => self.pause(&mut watch).await,
            };
            if quiet.trips < TELLING {
                // it can't be said of so few, and isn't asked again and again
                few += 1;
                if few >= FEW {
                    self.lift();
                }
                tokio::time::sleep((LOOK * few).min(READING_LONG)).await;
                continue;
            }
            few = 0;
            self.limit();
            let long = if harmless >= HARMLESS { READING_LONG } else { READING };
            let (taken, rate) = self.read_on(&mut watch, quiet, long).await;
            let after = self.pause(&mut watch).await;
            if let Some(rate) = rate.filter(|_| after.trips >= TELLING) {
                compared.note(Seen { longer: taken.longer_than_both(quiet, after), rate });
                self.settle(&compared, most);
            }
            harmless = if self.lock().left.is_none() { harmless + 1 } else { 0 };
            before = Some(after);
        }
    }

    /// Nobody is there to be looked after.
    fn lift(&self) {
        let mut state = self.lock();
        if state.lifted.is_none() {
            state.lifted = Some(state.left.unwrap_or(RATE_FIRST).min(RATE_FIRST));
            state.left = None;
        }
    }

    /// Somebody is.
    fn limit(&self) {
        let mut state = self.lock();
        if let Some(left) = state.lifted.take() {
            state.left = Some(left);
        }
    }

    /// How long round trips take while nothing is read.
    async fn pause(&self, watch: &mut Watch) -> Taken {
        let _closed = self.gate.write().await;
        tokio::time::sleep(SETTLES).await;
        watch.take();
        tokio::time::sleep(LOOK).await;
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
        let mut looks = Vec::new();
        let taken = loop {
            tokio::time::sleep(LOOK).await;
            looks.push(Taken::of(&watch.take()));
            let (taken, during) = (Taken::mean(&looks), begun.elapsed());
            if during >= long || taken.is_starved(quiet) || (during >= READING && taken.is_sharp(quiet)) {
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
        let Some(Seen { rate, longer }) = compared.last() else { return state.left.is_none() };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(rate_max: Option<u64>) -> Pace {
        Pace::new(Limits { rate_max, latency_rise_max: Some(0.1) })
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
        let some = 8.0 * RATE_FIRST;
        pace.lock().left = Some(some);
        assert!(!settle(-0.05, some));
        assert_eq!(left(&pace), Some(FASTER * some));
        assert!(!settle(0.08, FASTER * some));
        assert!(left(&pace).is_some_and(|left| left > 2.2 * some && left < 2.6 * some), "nearly what is allowed");
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
        let mut compared = Compared::default();
        compared.note(unlimited);
        pace.settle(&compared, 0.1);
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

    /// Round trips are counted for all that run in this process: one test at a time.
    static ROUND_TRIPS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// Reads as fast as it may, for ever.
    async fn reads(pace: &Pace) {
        loop {
            let _reading = pace.take(1_000_000).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Somebody who halts for the length of a pause, or nearly, is there all the same, and isn't read beside at full speed when it goes on.
    #[tokio::test(start_paused = true)]
    async fn whoever_halts_for_a_moment_is_not_forgotten() {
        let _one = ROUND_TRIPS.lock().await;
        for every_so_often in [None, Some(Duration::from_millis(200))] {
            let pace = limited(None);
            let from = Instant::now();
            let works = async {
                let mut trip = pgshadow_telemetry::RoundTrip::default();
                let (mut pauses, mut in_pause) = (0, false);
                while from.elapsed() < Duration::from_secs(20) {
                    let was = std::mem::replace(&mut in_pause, pace.gate.try_read().is_err());
                    pauses += u32::from(in_pause && !was);
                    let halts = in_pause && pauses == 2;
                    if !halts || every_so_often.is_some() {
                        trip.begin();
                        trip.end();
                    }
                    tokio::time::sleep(every_so_often.filter(|_| halts).unwrap_or(Duration::from_millis(10))).await;
                    assert!(pace.lock().left.is_some(), "after {:?}, {every_so_often:?}", from.elapsed());
                }
                assert!(pauses > 3, "{pauses}");
            };
            tokio::select! { () = works => {}, () = reads(&pace) => {}, never = pace.govern() => match never {} }
        }
    }

    /// Somebody who does little isn't looked after; once it does more it is, and no faster than where somebody is met first.
    #[tokio::test(start_paused = true)]
    async fn whoever_does_more_is_looked_after_again() {
        let _one = ROUND_TRIPS.lock().await;
        let pace = limited(None);
        let from = Instant::now();
        let works = async {
            let mut trip = pgshadow_telemetry::RoundTrip::default();
            let mut lifted = false;
            while from.elapsed() < Duration::from_secs(120) {
                let is_busy = from.elapsed() > Duration::from_secs(30);
                trip.begin();
                trip.end();
                lifted |= pace.lock().left.is_none();
                if is_busy && pace.lock().left.is_some_and(|left| left <= RATE_FIRST) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(if is_busy { 10 } else { 200 })).await;
            }
            assert!(lifted);
            from.elapsed()
        };
        let looked_after = tokio::select! {
            after = works => after, () = reads(&pace) => Duration::MAX, never = pace.govern() => match never {},
        };
        assert!(looked_after < Duration::from_secs(65), "{looked_after:?}");
    }

    /// Round trips that end only while nothing is read: whoever is starved isn't taken for somebody who is gone.
    #[tokio::test(start_paused = true)]
    async fn the_starved_are_seen_and_nobody_is_waited_for() {
        let _one = ROUND_TRIPS.lock().await;
        let pace = limited(None);
        let from = Instant::now();
        let mut trip = pgshadow_telemetry::RoundTrip::default();
        let (mut pauses, mut in_pause) = (0, false);
        let starved = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            while from.elapsed() < Duration::from_secs(60) {
                trip.begin();
                let was = std::mem::replace(&mut in_pause, pace.gate.try_read().is_err());
                pauses += u32::from(in_pause && !was);
                if in_pause {
                    trip.end();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                // it never is without a limit
                assert!(pace.lock().left.is_some(), "after {:?}", from.elapsed());
            }
        };
        tokio::select! { () = starved => {}, () = reads(&pace) => {}, never = pace.govern() => match never {} }
        assert_eq!(pace.lock().left, Some(RATE_MIN));
        assert!(pauses > 25, "{pauses}: nobody is starved for longer than a look");
        drop(trip);
        let alone = limited(None);
        let mut trip = pgshadow_telemetry::RoundTrip::default();
        let comes = async {
            tokio::time::sleep(2 * FIRST_LOOK).await;
            assert_eq!(alone.lock().left, None);
            trip.begin();
            tokio::time::sleep(LOOK).await;
            assert_eq!(alone.lock().left, Some(RATE_FIRST), "somebody has come");
        };
        tokio::select! { () = comes => {}, never = alone.govern() => match never {} }
    }
}
