//! The process's one clock. Everything else is told the time.

use engine::time::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time since the process began.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    /// The wall clock's milliseconds at that moment.
    wall_start_ms: u64,
}

impl Clock {
    /// Starts at zero.
    #[allow(clippy::disallowed_methods)]
    pub fn start() -> Self {
        let wall_start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), wall_start_ms: u64::try_from(wall_start.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.start.elapsed()
    }

    /// A point as the wall clock names it, in milliseconds since 1970, if that has not been set since the start. Only for what another
    /// life of the router is to understand.
    pub fn wall_ms(&self, at: Timestamp) -> u64 {
        self.wall_start_ms.saturating_add(at.as_micros() / 1000)
    }

    /// The point that the wall clock names so; the start if it was before.
    pub fn of_wall_ms(&self, wall_ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(wall_ms.saturating_sub(self.wall_start_ms))
    }

    /// The same point for tokio's timers, which share the operating system's monotonic clock.
    pub fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        (self.start + Duration::from_micros(at.as_micros())).into()
    }
}
