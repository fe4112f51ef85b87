//! How long the primary takes to answer the application, kept while somebody watches.

use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest time that is told apart, in microseconds.
const LONGEST: u64 = 600_000_000;
/// Digits of a time that count.
const DIGITS: u8 = 2;

static WATCHES: AtomicUsize = AtomicUsize::new(0);
static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);
static TIMES: Mutex<Option<Times>> = Mutex::new(None);

fn times() -> MutexGuard<'static, Option<Times>> {
    TIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Times, in microseconds.
#[derive(Debug, Clone)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    #[allow(clippy::expect_used, reason = "the bounds are constants")]
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("two digits of 1 to 600 million can be kept"))
    }
}

impl Times {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that this share of them, from 0 to 1, doesn't exceed; to within 1 %.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }

    /// One more.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST));
    }

    /// Those of another, besides its own.
    pub fn add(&mut self, other: &Self) {
        // same bounds: it can't fail
        let _ = self.0.add(&other.0);
    }
}

/// A round trip that has begun, if somebody watches: from a request of the client (Query, Sync, FunctionCall) to the primary's next ReadyForQuery.
#[derive(Debug, Default)]
pub struct RoundTrip(Option<Instant>);

impl RoundTrip {
    /// The client has asked.
    pub fn begin(&mut self) {
        if self.0.is_none() && WATCHES.load(Ordering::Relaxed) > 0 {
            self.0 = Some(Instant::now());
            IN_FLIGHT.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The primary is ready for the next one.
    pub fn end(&mut self) {
        if let Some(begun) = self.leave()
            && let Some(times) = times().as_mut()
        {
            times.record(begun.elapsed());
        }
    }

    fn leave(&mut self) -> Option<Instant> {
        let begun = self.0.take()?;
        IN_FLIGHT.fetch_sub(1, Ordering::Relaxed);
        Some(begun)
    }
}

/// A session that ends in the middle of one waits no more.
impl Drop for RoundTrip {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Round trips are kept as long as there is one of these.
#[derive(Debug)]
pub struct Watch {
    seen: Times,
}

impl Watch {
    /// Those from now on.
    #[must_use]
    pub fn begin() -> Self {
        WATCHES.fetch_add(1, Ordering::Relaxed);
        Self { seen: times().get_or_insert_default().clone() }
    }

    /// How many have begun, since somebody watches, and not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        IN_FLIGHT.load(Ordering::Relaxed)
    }

    /// Those since this was asked last.
    pub fn take(&mut self) -> Times {
        let now = times().clone().unwrap_or_default();
        let mut new = now.clone();
        // what was there is still there: it can't fail
        let _ = new.0.subtract(&self.seen.0);
        self.seen = now;
        new
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHES.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_sees_what_ends_while_it_looks() {
        let mut trip = RoundTrip::default();
        trip.begin();
        trip.end();
        let (mut one, mut two) = (Watch::begin(), Watch::begin());
        assert_eq!(one.take().count(), 0);
        for _ in 0..3 {
            trip.begin();
            std::thread::sleep(Duration::from_millis(2));
            trip.end();
            trip.end();
        }
        let seen = one.take();
        assert_eq!((seen.count(), one.take().count(), two.take().count()), (3, 0, 3));
        trip.begin();
        trip.begin();
        assert_eq!(one.in_flight(), 1);
        drop(trip);
        assert_eq!((one.in_flight(), one.take().count()), (0, 0), "its session has ended");
        assert!(seen.quantile(0.0) >= Duration::from_micros(1980), "{:?}", seen.quantile(0.0));
    }

    #[test]
    fn quantiles_are_within_a_percent() {
        let mut times = Times::default();
        (1..=1000).for_each(|n| times.record(Duration::from_micros(n * 10)));
        times.record(Duration::from_secs(100_000));
        for (share, wanted) in [(0.5, 5_000.0), (0.95, 9_500.0)] {
            let found = times.quantile(share).as_secs_f64() * 1e6;
            assert!((found / wanted - 1.0).abs() < 0.011, "{share}: {found}");
        }
        let mut more = Times::default();
        more.add(&times);
        assert_eq!(more.count(), 1001);
    }
}
