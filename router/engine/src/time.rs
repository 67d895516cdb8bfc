//! Time as the engine sees it: an argument, never a clock. All of it is the router's own monotonic time; none of it travels.

use std::ops::Add;
use std::time::Duration;

/// A point in time: microseconds since the process began. Fits 584,000 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The beginning of the process.
    pub const ZERO: Self = Self(0);

    /// The end of time.
    pub const NEVER: Self = Self(u64::MAX);

    /// The point that many microseconds after the beginning.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the beginning.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Microseconds since `earlier`, 0 if that is not earlier; at most `u32::MAX` (71 minutes), as stage times travel.
    pub fn micros_since(self, earlier: Self) -> u32 {
        u32::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(u32::MAX)
    }

    /// Time from now until `later`; zero if that has passed.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_micros(later.0.saturating_sub(self.0))
    }

    /// Whole milliseconds from now until `later`, as deadlines travel; 0 if that has passed.
    pub fn millis_until(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0) / 1_000
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at the end of time.
    fn add(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX)))
    }
}
