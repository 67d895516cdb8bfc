//! A timing wheel: timers by the tick they are due in. Arming, cancelling and coming out are O(1) each.
//!
//! It may not read a clock, and a timer never moves: there is one bucket for each tick that has timers, found by hashing, in
//! place of levels that are emptied into one another. Levels cost nothing until a slot of an upper one comes around: then a
//! million timers that were armed for one minute move at once, and all that is due meanwhile is late.
//!
//! ```text
//!   tick      1,024 us; a deadline rounds up to it, now rounds down
//!   reached ──▶ [1707] a ── b        the bucket being emptied; what is armed for the past joins it
//!               [1708] (none)
//!               [1709] c             each bucket is a list in order of arming
//!               [9012] d ── e ── f
//! ```

use crate::list::{Linked, Links, List};
use crate::slab::{Key, Slab};
use crate::time::Timestamp;
use foldhash::fast::FixedState;

/// An armed timer, to cancel it by. Recognised as stale once it has come out or was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Armed(Key);

/// Timers with something of `T` each, by when they are due.
#[derive(Debug)]
pub struct Wheel<T> {
    timers: Slab<Timer<T>>,
    /// By tick. No bucket is empty.
    buckets: Buckets,
    /// All before this tick are out.
    reached: u64,
}

/// The hasher is fixed, so a seed replays.
#[allow(clippy::disallowed_types)]
type Buckets = std::collections::HashMap<u64, List, FixedState>;

#[derive(Debug)]
struct Timer<T> {
    tick: u64,
    links: Links,
    item: T,
}

impl<T> Linked for Timer<T> {
    fn links(&self) -> &Links {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl<T> Wheel<T> {
    /// Bytes one timer takes, for memory limits; its bucket comes on top where it is alone in its tick.
    pub const TIMER_BYTES: usize = Slab::<Timer<T>>::ENTRY_BYTES;

    /// An empty wheel; allocates nothing.
    pub fn new(now: Timestamp) -> Self {
        Self { timers: Slab::new(), buckets: Buckets::default(), reached: tick_at(now) }
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether none is armed.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// Arms a timer. It comes out in the first [`advance`](Self::advance) at or after `deadline`, rounded up to the tick; one
    /// for the past in the next.
    pub fn arm(&mut self, deadline: Timestamp, item: T) -> Armed {
        let tick = tick_from(deadline).max(self.reached);
        let key = self.timers.insert(Timer { tick, links: Links::default(), item });
        self.buckets.entry(tick).or_default().push_back(&mut self.timers, key);
        Armed(key)
    }

    /// Takes a timer off and leaves nothing of it behind, unless it has come out or was cancelled before.
    pub fn cancel(&mut self, timer: Armed) -> Option<T> {
        let tick = self.timers.get(timer.0)?.tick;
        self.take(tick, timer.0)
    }

    /// Moves at most `most` items that are due into `expired`, in order of their ticks, then of arming. True if more are due:
    /// call again. A `now` that goes back counts as the latest one.
    pub fn advance(&mut self, now: Timestamp, most: usize, expired: &mut Vec<T>) -> bool {
        let now = tick_at(now).max(self.reached);
        let mut left = most;
        while let Some(tick) = self.first_until(now) {
            self.reached = tick;
            while let Some(key) = self.buckets.get(&tick).and_then(List::first) {
                if left == 0 {
                    return true;
                }
                expired.extend(self.take(tick, key));
                left -= 1;
            }
        }
        self.reached = self.reached.max(now);
        self.give_back();
        false
    }

    /// When to call [`advance`](Self::advance): not after the first timer is due, at most 64 ticks before. None if there is
    /// no timer.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        if self.is_empty() {
            return None;
        }
        // A look at few buckets tells exactly; a look ahead does where there are many.
        let few = self.buckets.len() as u64 <= TICKS_LOOKED_AHEAD;
        let horizon = if few { u64::MAX } else { self.reached + TICKS_LOOKED_AHEAD };
        Some(start_of(self.first_until(horizon).unwrap_or(horizon)))
    }

    /// The first tick with timers, if that is at or before `last`. Looks at each tick or at each bucket, what is less.
    fn first_until(&self, last: u64) -> Option<u64> {
        let ticks = self.reached..=last;
        if last.saturating_sub(self.reached) < self.buckets.len() as u64 {
            ticks.into_iter().find(|tick| self.buckets.contains_key(tick))
        } else {
            self.buckets.keys().copied().filter(|tick| ticks.contains(tick)).min()
        }
    }

    fn take(&mut self, tick: u64, key: Key) -> Option<T> {
        let bucket = self.buckets.get_mut(&tick)?;
        bucket.remove(&mut self.timers, key);
        if bucket.is_empty() {
            self.buckets.remove(&tick);
        }
        self.timers.remove(key).map(|timer| timer.item)
    }

    /// After a flood, the memory of its buckets.
    fn give_back(&mut self) {
        if self.buckets.is_empty() && self.buckets.capacity() > BUCKETS_KEPT {
            self.buckets = Buckets::default();
        }
    }
}

/// A power of two, so that rounding is a shift: 1,024 us.
const TICK_BITS: u32 = 10;
/// Far-away timers cost a look every 65 ms.
const TICKS_LOOKED_AHEAD: u64 = 64;
const BUCKETS_KEPT: usize = 1024;

const _: () = assert!(Wheel::<[u64; 2]>::TIMER_BYTES <= 48);

/// The tick that `at` lies in.
fn tick_at(at: Timestamp) -> u64 {
    at.as_micros() >> TICK_BITS
}

/// The first tick that begins at or after `at`.
fn tick_from(at: Timestamp) -> u64 {
    at.as_micros().div_ceil(1 << TICK_BITS)
}

fn start_of(tick: u64) -> Timestamp {
    Timestamp::from_micros(tick.saturating_mul(1 << TICK_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TICK_US: u64 = 1 << TICK_BITS;

    fn at(ticks: u64) -> Timestamp {
        start_of(ticks)
    }

    impl<T> Wheel<T> {
        fn check_invariants(&self) {
            let mut seen = 0;
            for (tick, bucket) in &self.buckets {
                assert!(*tick >= self.reached && !bucket.is_empty());
                let mut next = bucket.first();
                while let Some(key) = next {
                    assert_eq!(self.timers[key].tick, *tick);
                    seen += 1;
                    next = List::after(&self.timers, key);
                }
            }
            assert_eq!(seen, self.len());
        }
    }

    /// All that is due at `now`, `most` at a time.
    fn advance_through<T>(wheel: &mut Wheel<T>, now: Timestamp, most: usize) -> Vec<T> {
        let mut expired = Vec::new();
        while wheel.advance(now, most, &mut expired) {}
        expired
    }

    #[test]
    fn comes_out_at_its_tick_and_not_before() {
        const LEVEL_5: u64 = 1 << 30;
        for (now_us, deadline_us, out_us) in [
            (0, 0, 0),
            (0, 1, TICK_US),
            (0, TICK_US, TICK_US),
            (TICK_US - 1, TICK_US, TICK_US),
            (5_000_000, 1, 5_000_000),
            (0, 63 * TICK_US, 63 * TICK_US),
            (0, 64 * TICK_US, 64 * TICK_US),
            (63 * TICK_US, 64 * TICK_US + 1, 65 * TICK_US),
            (0, (4_096 + 64 + 1) * TICK_US, (4_096 + 64 + 1) * TICK_US),
            (0, (63 * LEVEL_5 + 7) * TICK_US, (63 * LEVEL_5 + 7) * TICK_US),
            (0, (64 * LEVEL_5 + 7) * TICK_US, (64 * LEVEL_5 + 7) * TICK_US),
            (0, (200 * LEVEL_5 + 7) * TICK_US, (200 * LEVEL_5 + 7) * TICK_US),
        ] {
            for steps in [false, true] {
                let mut wheel = Wheel::new(Timestamp::from_micros(now_us));
                wheel.arm(Timestamp::from_micros(deadline_us), ());
                if out_us > now_us {
                    let early = Timestamp::from_micros(out_us - 1);
                    while steps && wheel.next_expiry().is_some_and(|next| next <= early) {
                        let next = wheel.next_expiry().unwrap();
                        assert!(advance_through(&mut wheel, next, 1).is_empty());
                    }
                    assert!(advance_through(&mut wheel, early, 1).is_empty(), "{deadline_us} is not early");
                }
                let out = Timestamp::from_micros(out_us);
                assert!(wheel.next_expiry().unwrap() <= out);
                assert_eq!(advance_through(&mut wheel, out, 1).len(), 1, "{deadline_us} is not late");
                assert_eq!((wheel.len(), wheel.next_expiry()), (0, None));
            }
        }
    }

    #[test]
    fn a_far_timer_costs_a_look_now_and_then() {
        let mut wheel = Wheel::new(at(0));
        (0..100).for_each(|n| _ = wheel.arm(at(200 + n), n));
        let mut wakes = Vec::new();
        while wheel.len() == 100 {
            wakes.push(wheel.next_expiry().unwrap());
            advance_through(&mut wheel, wakes[wakes.len() - 1], 1);
        }
        assert_eq!(wakes, [at(64), at(128), at(192), at(200)]);
    }

    #[test]
    fn same_tick_comes_out_as_armed() {
        let mut wheel = Wheel::new(at(0));
        let tick = 64 * 64 + 64;
        wheel.arm(at(tick), 0);
        wheel.arm(at(tick + 1), 4);
        advance_through(&mut wheel, at(64 * 64 - 1), 9);
        wheel.arm(at(tick), 1);
        wheel.arm(at(tick), 2);
        advance_through(&mut wheel, at(tick - 1), 1);
        wheel.arm(at(tick), 3);
        assert_eq!(advance_through(&mut wheel, at(tick + 1), 1), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_call_does_no_more_than_it_may() {
        let mut wheel = Wheel::new(at(0));
        (0..1_000).for_each(|n| _ = wheel.arm(at(100 + n % 7), n));
        let mut expired = Vec::new();
        let calls = (1..).find(|_| !wheel.advance(at(200), 10, &mut expired)).unwrap();
        assert_eq!((calls, expired.len()), (100, 1_000));
        assert!(!wheel.advance(at(200), 0, &mut expired));
        wheel.arm(at(200), 0);
        assert!(wheel.advance(at(200), 0, &mut expired), "no work allowed, some to do");
    }

    #[test]
    fn cancelled_once_and_without_a_trace() {
        let mut wheel = Wheel::new(at(0));
        let ticks = [0, 65, 65, 65, 4_096, 1 << 40];
        let armed = ticks.map(|tick| wheel.arm(at(tick), tick));
        for (timer, tick) in armed.into_iter().zip(ticks) {
            assert_eq!(wheel.cancel(timer), Some(tick));
            assert_eq!(wheel.cancel(timer), None);
            wheel.check_invariants();
        }
        assert!(wheel.is_empty() && wheel.buckets.is_empty() && wheel.next_expiry().is_none());
    }

    #[test]
    fn the_end_of_time_never_comes() {
        let mut wheel = Wheel::new(at(0));
        wheel.arm(Timestamp::from_micros(u64::MAX), ());
        wheel.reached = tick_at(Timestamp::from_micros(u64::MAX)) - 1;
        assert!(advance_through(&mut wheel, Timestamp::from_micros(u64::MAX), 1).is_empty());
    }

    #[test]
    fn time_does_not_go_back() {
        let mut wheel = Wheel::new(at(10));
        wheel.arm(at(12), 'a');
        assert!(advance_through(&mut wheel, at(5), 1).is_empty());
        assert_eq!(advance_through(&mut wheel, at(12), 1), ['a']);
        wheel.arm(at(11), 'b');
        assert_eq!(advance_through(&mut wheel, at(0), 1), ['b'], "due since an earlier call");
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// So long after the present, or before it.
        Arm {
            after_us: u64,
            past: bool,
            times: u8,
        },
        /// For the same tick as one that is armed.
        ArmLike(prop::sample::Index),
        Cancel(prop::sample::Index),
        Advance {
            by_us: u64,
            most: usize,
        },
        AdvanceThrough {
            by_us: u64,
            most: usize,
        },
        /// To when the wheel wants to be called.
        Follow {
            most: usize,
        },
    }

    /// All sizes alike, from a part of a tick to some times the horizon.
    fn micros() -> impl Strategy<Value = u64> {
        (0_u32..49, any::<u64>()).prop_map(|(bits, any)| any & ((1 << bits) - 1))
    }

    fn step() -> impl Strategy<Value = Step> {
        let most = || prop_oneof![0_usize..4, Just(50)];
        let arm = (micros(), prop::bool::weighted(0.1), 1_u8..5);
        prop_oneof![
            5 => arm.prop_map(|(after_us, past, times)| Step::Arm { after_us, past, times }),
            3 => any::<prop::sample::Index>().prop_map(Step::ArmLike),
            2 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            3 => (micros(), most()).prop_map(|(by_us, most)| Step::Advance { by_us, most }),
            1 => (micros(), 1_usize..20).prop_map(|(by_us, most)| Step::AdvanceThrough { by_us, most }),
            3 => (1_usize..20).prop_map(|most| Step::Follow { most }),
        ]
    }

    /// A wheel beside a sorted map that does the same the plain way.
    struct Pair {
        now: Timestamp,
        wheel: Wheel<u64>,
        /// By the tick to come out at, then by the order of arming.
        model: BTreeMap<(u64, u64), Armed>,
        gone: Vec<Armed>,
        born: u64,
    }

    impl Pair {
        fn new(now_us: u64) -> Self {
            let now = Timestamp::from_micros(now_us);
            Self { now, wheel: Wheel::new(now), model: BTreeMap::new(), gone: Vec::new(), born: 0 }
        }

        fn apply(&mut self, step: Step) {
            match step {
                Step::Arm { after_us, past: false, times } => self.arm(self.now.as_micros() + after_us, times),
                Step::Arm { after_us, times, .. } => self.arm(self.now.as_micros().saturating_sub(after_us), times),
                Step::ArmLike(_) | Step::Cancel(_) if self.model.is_empty() => {}
                Step::ArmLike(index) => self.arm(self.pick(index).0 * TICK_US, 1),
                Step::Cancel(index) => self.cancel(self.pick(index)),
                Step::Advance { by_us, most } => _ = self.advance(self.now.as_micros() + by_us, most),
                Step::AdvanceThrough { by_us, most } => self.advance_through(self.now.as_micros() + by_us, most),
                Step::Follow { most } => {
                    let next = self.wheel.next_expiry().unwrap_or(self.now).max(self.now);
                    self.advance_through(next.as_micros(), most);
                }
            }
            self.check();
        }

        fn arm(&mut self, deadline_us: u64, times: u8) {
            for _ in 0..times {
                let tick = deadline_us.div_ceil(TICK_US).max(self.wheel.reached);
                let armed = self.wheel.arm(Timestamp::from_micros(deadline_us), self.born);
                self.model.insert((tick, self.born), armed);
                self.born += 1;
            }
        }

        fn pick(&self, index: prop::sample::Index) -> (u64, u64) {
            *self.model.keys().nth(index.index(self.model.len())).unwrap()
        }

        fn cancel(&mut self, (tick, item): (u64, u64)) {
            let armed = self.model.remove(&(tick, item)).unwrap();
            assert_eq!(self.wheel.cancel(armed), Some(item));
            self.gone.push(armed);
        }

        fn advance(&mut self, now_us: u64, most: usize) -> bool {
            self.now = Timestamp::from_micros(now_us);
            let mut expired = Vec::new();
            let more = self.wheel.advance(self.now, most, &mut expired);
            assert!(expired.len() <= most);
            for item in expired {
                let ((tick, expected), armed) = self.model.pop_first().unwrap();
                assert_eq!(item, expected, "in order of tick, then of arming");
                assert!(tick <= now_us / TICK_US, "not early");
                self.gone.push(armed);
            }
            let late = self.model.first_key_value().is_some_and(|((tick, _), _)| *tick <= now_us / TICK_US);
            assert!(more || !late, "not late");
            assert!(more || self.wheel.next_expiry().is_none_or(|next| next > self.now), "no call for nothing");
            more
        }

        fn advance_through(&mut self, now_us: u64, most: usize) {
            let work = self.model.len();
            let calls = (1..).find(|_| !self.advance(now_us, most)).unwrap();
            assert!(calls <= work / most + 1, "each call but the last does all it may");
        }

        fn check(&mut self) {
            self.wheel.check_invariants();
            assert_eq!(self.wheel.len(), self.model.len());
            let first = self.model.first_key_value().map(|((tick, _), _)| at(*tick));
            match (self.wheel.next_expiry(), first) {
                (Some(next), Some(first)) => assert!(next <= first, "never late"),
                (next, first) => assert_eq!(next, first),
            }
            assert!(self.gone.iter().all(|armed| !self.wheel.timers.contains(armed.0)));
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(now_us in micros(), steps in prop::collection::vec(step(), 1..80)) {
            let mut pair = Pair::new(now_us);
            steps.into_iter().for_each(|step| pair.apply(step));
            pair.advance_through(pair.now.as_micros() + (1 << 50), 7);
            assert!(pair.wheel.is_empty(), "all come out in the end");
        }
    }
}
