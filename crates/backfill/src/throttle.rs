//! So many bytes a second, and no more.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What may be read at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// Shared by all that read.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Bytes a second.
    rate: Option<u64>,
    /// When what was read so far may have been.
    due: Mutex<Instant>,
}

impl Throttle {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0), due: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes may be read.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let until = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            #[allow(clippy::cast_precision_loss, reason = "a rate")]
            let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
            *due = (*due).max(now - BURST) + takes;
            *due
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_rate() {
        let throttle = Throttle::new(Some(1_000_000));
        let from = Instant::now();
        for _ in 0..50 {
            throttle.take(100_000).await;
        }
        let took = from.elapsed();
        assert!(took >= Duration::from_millis(4_850) && took <= Duration::from_millis(5_050), "{took:?}");
        let free = Throttle::new(None);
        free.take(usize::MAX).await;
        assert_eq!(from.elapsed(), took);
    }
}
