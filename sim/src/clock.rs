//! A process's own clock: it starts anywhere and runs a little fast or slow. Deadlines are points on it; only durations travel.

use crate::agenda::Instant;
use crate::dice::Dice;
use engine::stored_time::Moment;

/// A monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    offset_us: u64,
    /// Parts per million it runs fast, or slow.
    fast_ppm: i64,
}

/// How far clocks may go wrong: 1 %.
pub const RATE_PPM_MAX: u64 = 10_000;

impl Clock {
    /// A clock that differs from true time as chance has it, by at most `ppm_max`.
    pub fn draw(dice: &mut Dice, ppm_max: u64) -> Self {
        let fast_ppm = i64::try_from(dice.below(2 * ppm_max + 1)).unwrap_or(0) - i64::try_from(ppm_max).unwrap_or(0);
        Self { offset_us: dice.below(1 << 40), fast_ppm }
    }

    /// What it shows at a moment, in microseconds.
    #[inline]
    pub fn read(&self, at: Instant) -> u64 {
        let gained = i64::try_from(at).unwrap_or(i64::MAX) * self.fast_ppm / 1_000_000;
        (self.offset_us + at).saturating_add_signed(gained)
    }

    /// The first moment at which it shows at least that.
    #[inline]
    pub fn when(&self, shown: u64) -> Instant {
        let local = i128::from(shown.saturating_sub(self.offset_us));
        let guess = local * 1_000_000 / (1_000_000 + i128::from(self.fast_ppm));
        let mut at = u64::try_from(guess).unwrap_or(u64::MAX / 2);
        while at > 0 && self.read(at - 1) >= shown {
            at -= 1;
        }
        while self.read(at) < shown {
            at += 1;
        }
        at
    }
}

/// The clocks of the router's machine that outlive the router: a wall clock that may be set to anything, and the clock of a boot.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// By how much the wall clock is ahead of true time.
    ahead_us: i64,
    boot: u64,
    /// What the machine's monotonic clock showed at its boot.
    booted_at: u64,
}

impl Default for Machine {
    /// Booted at the beginning, its wall clock right.
    fn default() -> Self {
        Self { ahead_us: 0, boot: 1, booted_at: 0 }
    }
}

impl Machine {
    /// What its clocks show at a moment at which its monotonic clock shows `local`.
    pub fn read(&self, now: Instant, local: u64) -> Moment {
        let wall_us = (EPOCH_US + now).saturating_add_signed(self.ahead_us);
        Moment { wall_ms: wall_us / 1000, boot: self.boot, boot_ms: local.saturating_sub(self.booted_at) / 1000 }
    }

    /// Its wall clock is set.
    pub fn set_wall(&mut self, by_us: i64) {
        self.ahead_us += by_us;
    }

    /// It is booted, its wall clock as it was.
    pub fn reboot(&mut self, local: u64) {
        (self.boot, self.booted_at) = (self.boot + 1, local);
    }
}

/// The wall clock at the beginning of a world, if it is right.
const EPOCH_US: u64 = 1_800_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_a_time_when_it_says_it_will_and_not_before() {
        let mut dice = Dice::new(9);
        for _ in 0..2000 {
            let clock = Clock::draw(&mut dice, RATE_PPM_MAX);
            let shown = clock.read(dice.below(1 << 36)) + dice.below(100);
            let at = clock.when(shown);
            assert!(clock.read(at) >= shown && (at == 0 || clock.read(at - 1) < shown), "{clock:?} {shown}");
        }
    }
}
