//! How much time an activation has left that another life of the router stored. A record carries what the clocks showed when it
//! was written, and whoever reads it says what they show now. May not read a clock.
//!
//! ```text
//!   the same boot of the same machine   stored for as long as the boot clock ran, whatever the wall clock was set to meanwhile
//!   another boot, another machine       stored for as long as the wall clock went on; not at all if it shows an earlier time
//! ```
//!
//! So a record never has more time left than it was written with, and a wall clock that is set while the machine runs costs no
//! record its time. Across boots a wall clock that was set forward costs records the time it was set by, and one that was set
//! back gives them at most what they had.

use crate::mutant::{Mutant, is};
use std::time::Duration;

/// What the clocks show at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Tells boots of machines apart; 0: unknown, the same as no other.
    pub boot: u64,
    /// Milliseconds since that boot, those in suspension included.
    pub boot_ms: u64,
}

/// What a record says of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds it had left when it was written.
    pub time_left_ms: u64,
    /// When it was written.
    pub written: Moment,
}

/// The wall clock was set between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockJump {
    /// Back, by that much at least.
    Back(Duration),
    /// Forward, by that much. It shows within one boot only.
    Forward(Duration),
}

/// The wall clock may differ from the boot clock by as much and counts as never set: it is slewed, and read a moment apart.
const JUMP_MIN_MS: u64 = 1000;

/// The time that is left of a record now, zero if none, and how the wall clock was set in between, as far as that shows.
pub fn time_left(stamp: Stamp, now: Moment) -> (Duration, Option<ClockJump>) {
    let Stamp { time_left_ms, written } = stamp;
    let by_wall = now.wall_ms.saturating_sub(written.wall_ms);
    let wall_back = written.wall_ms.saturating_sub(now.wall_ms);
    // A boot clock that went back is none: containers may have clocks of their own under one boot's name.
    let one_boot = written.boot != 0 && written.boot == now.boot && written.boot_ms <= now.boot_ms;
    let (stored_ms, back, forward) = if one_boot && !is(Mutant::WallClockWithinBoot) {
        let by_boot = now.boot_ms - written.boot_ms;
        let back = by_boot.saturating_sub(by_wall).saturating_add(wall_back);
        (by_boot, back, by_wall.saturating_sub(by_boot))
    } else {
        (by_wall, wall_back, 0)
    };
    let jump = match () {
        () if is(Mutant::ClockJumpUncounted) => None,
        () if back > JUMP_MIN_MS => Some(ClockJump::Back(Duration::from_millis(back))),
        () if forward > JUMP_MIN_MS => Some(ClockJump::Forward(Duration::from_millis(forward))),
        () => None,
    };
    let given = if is(Mutant::SetBackGivesTime) && !one_boot { wall_back } else { 0 };
    (Duration::from_millis((time_left_ms + given).saturating_sub(stored_ms)), jump)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_MS: u64 = 86_400_000;
    const NOON: u64 = 1_800_000_000_000;

    fn moment(wall_ms: u64, boot: u64, boot_ms: u64) -> Moment {
        Moment { wall_ms, boot, boot_ms }
    }

    /// A minute left at noon, 5,000 s after boot 7; what is left at `now`, in ms.
    fn left(now: Moment) -> (u128, Option<ClockJump>) {
        let (left, jump) = time_left(Stamp { time_left_ms: 60_000, written: moment(NOON, 7, 5_000_000) }, now);
        (left.as_millis(), jump)
    }

    fn back(ms: u64) -> Option<ClockJump> {
        Some(ClockJump::Back(Duration::from_millis(ms)))
    }

    fn forward(ms: u64) -> Option<ClockJump> {
        Some(ClockJump::Forward(Duration::from_millis(ms)))
    }

    #[test]
    fn within_a_boot_the_boot_clock_counts() {
        let after = |wall_ms| left(moment(wall_ms, 7, 5_010_000));
        assert_eq!(after(NOON + 10_000), (50_000, None));
        assert_eq!(after(NOON + 10_000 + DAY_MS), (50_000, forward(DAY_MS)));
        assert_eq!(after(NOON + 10_000 - DAY_MS), (50_000, back(DAY_MS)));
        assert_eq!(after(NOON + 11_000), (50_000, None), "a second is no jump");
        assert_eq!(after(NOON + 11_001), (50_000, forward(1001)));
        assert_eq!(after(NOON + 8_999), (50_000, back(1001)));
        assert_eq!(left(moment(NOON, 7, 5_060_001)), (0, back(60_001)));
    }

    #[test]
    fn across_boots_the_wall_clock_counts_and_never_backwards() {
        for boot in [8, 0] {
            let after = |wall_ms| left(moment(wall_ms, boot, 1_000));
            assert_eq!(after(NOON + 10_000), (50_000, None));
            assert_eq!(after(NOON + DAY_MS), (0, None), "an hour or a day away: nobody knows");
            assert_eq!(after(NOON - 500), (60_000, None));
            assert_eq!(after(NOON - DAY_MS), (60_000, back(DAY_MS)));
        }
    }

    #[test]
    fn a_boot_clock_that_went_back_is_none() {
        assert_eq!(left(moment(NOON + 10_000, 7, 4_999_999)), (50_000, None));
    }

    #[test]
    fn without_the_name_of_a_boot_nothing_is_of_the_same() {
        let stamp = Stamp { time_left_ms: 60_000, written: moment(NOON, 0, 0) };
        let (left, _) = time_left(stamp, moment(NOON + 10_000, 0, 0));
        assert_eq!(left.as_millis(), 50_000);
    }

    proptest! {
        #[test]
        fn there_is_never_more_left_than_there_was(
            time_left_ms: u32,
            wall: [u64; 2],
            boots: [u8; 2],
            boot_ms: [u64; 2],
        ) {
            let at = |n: usize| moment(wall[n], (boots[n] % 3).into(), boot_ms[n]);
            let stamp = Stamp { time_left_ms: time_left_ms.into(), written: at(0) };
            let (left, _) = time_left(stamp, at(1));
            prop_assert!(left <= Duration::from_millis(time_left_ms.into()));
        }
    }
}
