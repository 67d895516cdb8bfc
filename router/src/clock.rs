//! The process's one clock. Everything else is told the time.

use engine::stored_time::Moment;
use engine::time::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time since the process began.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    /// Tells boots of machines apart; 0: unknown.
    boot: u64,
}

/// What all clocks show at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The process's own.
    pub now: Timestamp,
    /// Those that another life of the router understands.
    pub moment: Moment,
}

impl Clock {
    /// Starts at zero.
    #[allow(clippy::disallowed_methods)]
    pub fn start() -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self { start: Instant::now(), boot: boot_id.map_or(0, |boot_id| boot_number(&boot_id)) }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.start.elapsed()
    }

    /// Now, by all clocks. The wall clock is read each time: it may be set while the process runs.
    #[allow(clippy::disallowed_methods)]
    pub fn read(&self) -> Reading {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Reading { now: self.now(), moment: Moment { wall_ms: millis(wall), boot: self.boot, boot_ms: boot_ms() } }
    }

    /// The same point for tokio's timers, which share the operating system's monotonic clock.
    pub fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        (self.start + Duration::from_micros(at.as_micros())).into()
    }
}

/// The number of a boot from its id, a random UUID: both halves of its 32 hexadecimal digits. 0 if it is no such id.
fn boot_number(boot_id: &str) -> u64 {
    let digits: String = boot_id.trim().chars().filter(|char| *char != '-').collect();
    let half = |range: std::ops::Range<usize>| u64::from_str_radix(digits.get(range)?, 16).ok();
    let halves = half(0..16).zip(half(16..32));
    halves.map_or(0, |(high, low)| high ^ low.rotate_left(1))
}

/// Since the machine was booted, suspension included.
fn boot_ms() -> u64 {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    millis(Duration::try_from(since).unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_the_number_of_its_id() {
        assert_eq!(boot_number("00000000-0000-0001-0000-000000000002\n"), 5);
        assert_eq!(["", "unknown"].map(boot_number), [0, 0]);
        let [one, other] = [Clock::start().read(), Clock::start().read()];
        assert_eq!(one.moment.boot, other.moment.boot, "of this machine");
        assert!(one.moment.boot_ms > 0 && one.moment.boot_ms <= other.moment.boot_ms);
    }
}
