//! How fast a queue drains, and so when it is worth asking again: the hint that a refusal for want of room carries.
//!
//! What left over the last ten to twenty seconds is counted, and the hint is the time in which a tenth of what is queued leaves at
//! that pace: soon enough that a queue which drains is not found empty, and not so soon that all who wait come back at once.

use crate::limits::RETRY_AFTER_MS;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::Timestamp;
use std::time::Duration;

/// Departures from one queue.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    window: Window,
    left: u64,
}

/// Departures from queues that threads share.
#[derive(Debug)]
pub(crate) struct SharedPace {
    /// Locked by refusals only.
    window: Mutex<Window>,
    left: AtomicU64,
}

#[derive(Debug, Default)]
struct Window {
    began: Timestamp,
    /// What had left when it began.
    left: u64,
    /// The pace of the window before, in departures per second.
    before: u64,
}

/// How long a window lasts.
const WINDOW: Duration = Duration::from_secs(10);
/// The shortest and the longest hint, in milliseconds.
const HINT_MS: (u64, u64) = (1, 10_000);

impl Pace {
    /// One left.
    pub(crate) fn left(&mut self) {
        self.left = self.left.wrapping_add(1);
    }

    /// When to ask again, with that many queued.
    pub(crate) fn retry_after_ms(&mut self, queued: u64, now: Timestamp) -> u32 {
        self.window.retry_after_ms(self.left, queued, now)
    }
}

impl Default for SharedPace {
    fn default() -> Self {
        Self { window: Mutex::new(Window::default()), left: AtomicU64::new(0) }
    }
}

impl SharedPace {
    /// One left.
    pub(crate) fn left(&self) {
        // Relaxed: a count, and a hint is made of it.
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// When to ask again, with that many queued.
    pub(crate) fn retry_after_ms(&self, queued: u64, now: Timestamp) -> u32 {
        let mut window = self.window.lock();
        // Under the lock, so that it is never less than what the window has seen.
        let left = self.left.load(Ordering::Relaxed);
        window.retry_after_ms(left, queued, now)
    }
}

impl Window {
    fn retry_after_ms(&mut self, left: u64, queued: u64, now: Timestamp) -> u32 {
        let per_second = self.per_second(left, now);
        if per_second == 0 {
            return RETRY_AFTER_MS;
        }
        let (least, most) = HINT_MS;
        let hint = (queued * 100 / per_second).clamp(least, most);
        u32::try_from(hint).unwrap_or(RETRY_AFTER_MS)
    }

    fn per_second(&mut self, left: u64, now: Timestamp) -> u64 {
        let (gone, micros) = (left.wrapping_sub(self.left), u64::from(now.micros_since(self.began)));
        let current = (gone * 1_000_000).checked_div(micros).unwrap_or(0);
        if Duration::from_micros(micros) >= WINDOW {
            *self = Self { began: now, left, before: current };
        }
        // A window that has only just begun knows little.
        if current == 0 { self.before } else { current }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn the_hint_is_the_time_in_which_a_tenth_leaves() {
        let mut pace = Pace::default();
        assert_eq!(pace.retry_after_ms(1000, at(500)), RETRY_AFTER_MS, "nothing is known yet");
        (0..1000).for_each(|_| pace.left());
        assert_eq!(pace.retry_after_ms(1000, at(1000)), 100, "1,000 a second");
        assert_eq!(pace.retry_after_ms(10, at(1000)), 1);
        assert_eq!(pace.retry_after_ms(10_000_000, at(1000)), 10_000);
    }

    #[test]
    fn it_follows_the_pace_of_late() {
        let pace = SharedPace::default();
        (0..100_000).for_each(|_| pace.left());
        assert_eq!(pace.retry_after_ms(1000, at(10_000)), 10, "10,000 a second");
        assert_eq!(pace.retry_after_ms(1000, at(10_001)), 10, "a new window goes by the one before");
        (0..1000).for_each(|_| pace.left());
        assert_eq!(pace.retry_after_ms(1000, at(20_000)), 1000, "100 a second");
    }

    #[test]
    fn one_that_stands_still_says_what_is_usual() {
        let mut pace = Pace::default();
        pace.left();
        pace.retry_after_ms(10, at(20_000));
        assert_eq!(pace.retry_after_ms(10, at(40_000)), RETRY_AFTER_MS);
    }
}
