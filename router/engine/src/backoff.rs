//! How long to wait before another attempt: exponential, with full jitter. Pure: the randomness is passed in, and it may not
//! sleep.

use std::time::Duration;

/// Counts failed attempts. Each may wait twice as long as the one before, up to a cap, and the wait is drawn evenly from zero
/// to that: many who lost the same router do not come back at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    failed: u32,
}

impl Backoff {
    /// Waits at most `first` after the first failure, and never more than `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, failed: 0 }
    }

    /// One more attempt failed: how long to wait before the next. `random` is any 64 bits, evenly distributed.
    pub fn next(&mut self, random: u64) -> Duration {
        let most = self.most();
        self.failed = self.failed.saturating_add(1);
        // The upper half of a 128-bit product: `most * random / 2^64`, so less than `most`.
        let nanos = (most.as_nanos() * u128::from(random)) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The longest that the next wait can be.
    pub fn most(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failed).and_then(|factor| self.first.checked_mul(factor));
        doubled.unwrap_or(self.cap).min(self.cap)
    }

    /// An attempt succeeded: the next failure is the first.
    pub fn reset(&mut self) {
        self.failed = 0;
    }
}

impl Default for Backoff {
    /// From 50 ms to 5 s, for streams: a restarted router is found at once, a dead one is asked every few seconds.
    fn default() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_longest_wait_doubles_up_to_the_cap() {
        let mut backoff = Backoff::new(10 * MS, 70 * MS);
        // Drawn from the very top: one nanosecond below the most.
        let longest = [(); 5].map(|()| backoff.next(u64::MAX) + Duration::from_nanos(1));
        assert_eq!(longest, [10 * MS, 20 * MS, 40 * MS, 70 * MS, 70 * MS]);
    }

    #[test]
    fn the_wait_is_drawn_from_zero_to_the_longest() {
        let drawn = [0, u64::MAX / 4 + 1, u64::MAX / 2 + 1].map(|random| Backoff::new(8 * MS, 8 * MS).next(random));
        assert_eq!(drawn, [Duration::ZERO, 2 * MS, 4 * MS]);
    }

    #[test]
    fn a_success_starts_over_and_no_count_overflows() {
        let mut backoff = Backoff::new(10 * MS, 70 * MS);
        for _ in 0..100 {
            backoff.next(0);
        }
        assert!(backoff.next(u64::MAX) > 69 * MS);
        backoff.failed = u32::MAX;
        assert!(backoff.next(u64::MAX) > 69 * MS);
        backoff.reset();
        assert!(backoff.next(u64::MAX) < 10 * MS);
    }
}
