//! The process's one clock. Everything else is told the time.

use engine::time::Timestamp;
use std::time::{Duration, Instant};

/// Monotonic time since the process began.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at zero.
    #[allow(clippy::disallowed_methods)]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.start.elapsed()
    }

    /// The same point for tokio's timers, which share the operating system's monotonic clock.
    pub fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        (self.start + Duration::from_micros(at.as_micros())).into()
    }
}
