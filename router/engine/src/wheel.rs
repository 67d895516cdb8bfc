//! A hierarchical timing wheel: arms and cancels a timer in constant time, however many there are.
//!
//! Timers come out when [`Wheel::advance`] is told a time at or past their deadline, in order of deadline. The wheel may not
//! read a clock, hand out an item early, keep what was cancelled, or work longer in one call than it was allowed to.
//!
//! ```text
//!   tick = 1,024 us, so that a shift makes one; deadlines are rounded up to it, the present down
//!
//!   due         came to its tick, to be taken
//!   level 0     |.|.|.|.|.|.|...|.|   64 slots of 1 tick                           65 ms
//!   level 1     |      .      |...|   64 slots of 64 ticks                        4.2 s
//!   level 2     64 slots of 4,096 ticks                                           4.5 min
//!   level 3     64 slots of 262,144 ticks                                         4.8 h
//!   level 4     64 slots of 16,777,216 ticks                                       13 days
//!   level 5     64 slots of 1,073,741,824 ticks                                   2.2 years
//!   far         one slot for all beyond: looked through when level 5 has gone round
//!   cascading   a slot of level 1 or above on its way down
//!
//!   tick   ... | level 5: 6 bits | level 4: 6 | level 3: 6 | level 2: 6 | level 1: 6 | level 0: 6 bits |
//! ```
//!
//! `elapsed` is the tick the wheel has come to. A timer lies on the level of the highest digit (of 6 bits) in which its tick
//! differs from `elapsed`, in the slot of that digit. So the next slot to visit is the first occupied one of the lowest
//! occupied level: two bit scans. Coming to a slot of level 0 makes its timers due; coming to one above makes it cascade,
//! each of its timers falling at least one level. A slot is visited as a whole before `elapsed` moves on, if over several
//! calls.
//!
//! Timers of one tick come out as they were armed: a timer joins the tail of its slot, a slot is emptied from its head, and
//! an earlier timer is never left on a higher level, because coming to a slot takes all of it down. To hold this in the
//! middle of a cascade too, timers armed meanwhile join the tail of the cascade.
//!
//! Each list is doubly linked through the [slab](crate::slab) that holds the timers. Its first and last timers link to the
//! list itself, so that cancelling one needs to know nothing but the timer.

use crate::slab::{Key, Slab};
use crate::time::Timestamp;

/// An armed timer: what [`Wheel::cancel`] wants. Stale once the timer came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Armed(Key);

/// Timers that carry a `T` each. See the [module](self) for its geometry.
///
/// A timer takes [`TIMER_BYTES`](Self::TIMER_BYTES), 48 for an item of 16. A new wheel owns no heap memory; a level's slots,
/// 1 KiB, are allocated when first used and kept.
#[derive(Debug)]
pub struct Wheel<T> {
    /// All timers at or before this tick are due or came out; all others are in a slot, or cascading.
    elapsed: u64,
    timers: Slab<Timer<T>>,
    /// One bit for each slot that is not empty.
    occupied: [u64; LEVELS as usize],
    levels: [Option<Box<Slots>>; LEVELS as usize],
    due: List,
    cascading: List,
    far: List,
}

impl<T> Wheel<T> {
    /// Bytes one timer takes.
    pub const TIMER_BYTES: usize = Slab::<Timer<T>>::ENTRY_BYTES;

    /// An empty wheel at `now`; allocates nothing.
    pub fn new(now: Timestamp) -> Self {
        Self {
            elapsed: tick_at(now),
            timers: Slab::new(),
            occupied: [0; LEVELS as usize],
            levels: [const { None }; LEVELS as usize],
            due: List::empty(ListId::DUE),
            cascading: List::empty(ListId::CASCADING),
            far: List::empty(ListId::FAR),
        }
    }

    /// How many timers are armed, those included that are due and did not come out yet.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether none is armed; only the levels' slots are kept then.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// Lets `item` come out at `deadline`, rounded up to the tick; by the next `advance` if that has passed.
    pub fn arm(&mut self, deadline: Timestamp, item: T) -> Armed {
        let tick = tick_from(deadline);
        let id = if self.cascading.is_empty() { self.home(tick) } else { ListId::CASCADING };
        let key = self.timers.insert(Timer { tick, previous: Link::End(id), next: Link::End(id), item });
        self.append(id, key);
        Armed(key)
    }

    /// Takes the item back, unless it came out or was taken back before.
    pub fn cancel(&mut self, timer: Armed) -> Option<T> {
        self.take(timer.0)
    }

    /// Moves the items whose time has come by `now` to `expired`, earliest first; true if `now` holds more work, for which to
    /// call again.
    ///
    /// Each item moved and each timer passed to a lower level is one of the `most` units of work; so a call may move nothing
    /// and still say true. A `now` before that of an earlier call counts as that one.
    pub fn advance(&mut self, now: Timestamp, most: usize, expired: &mut Vec<T>) -> bool {
        let now = tick_at(now).max(self.elapsed);
        let mut left = most;
        loop {
            self.expire(&mut left, expired);
            self.cascade(&mut left);
            if self.has_in_hand() {
                if left == 0 {
                    return true;
                }
                continue;
            }
            match self.next_visit() {
                Some(visit) if visit.tick <= now && left == 0 => return true,
                Some(visit) if visit.tick <= now => self.visit(visit),
                _ => break,
            }
        }
        self.elapsed = now;
        false
    }

    /// When to `advance` next: never late, but early up to 5 times for a timer on its way down, and once each 2.2 years for
    /// one beyond the levels. `None` if no timer is armed.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        if self.has_in_hand() {
            return Some(start_of(self.elapsed));
        }
        self.next_visit().map(|visit| start_of(visit.tick))
    }

    /// Whether the slot visited last is not done with.
    fn has_in_hand(&self) -> bool {
        !self.due.is_empty() || !self.cascading.is_empty()
    }

    fn expire(&mut self, left: &mut usize, expired: &mut Vec<T>) {
        while *left > 0
            && let Link::Timer(key) = self.due.head
        {
            expired.extend(self.take(key));
            *left -= 1;
        }
    }

    fn cascade(&mut self, left: &mut usize) {
        while *left > 0
            && let Link::Timer(key) = self.cascading.head
        {
            let Timer { tick, previous, next, .. } = self.timers[key];
            self.bypass(previous, next);
            self.append(self.home(tick), key);
            *left -= 1;
        }
    }

    /// The slot to visit next: nothing falls due before it.
    fn next_visit(&self) -> Option<Visit> {
        let Some((level, slots)) = (0..).zip(self.occupied).find(|(_, slots)| *slots != 0) else {
            let tick = ((self.elapsed >> HORIZON_BITS) + 1) << HORIZON_BITS;
            return (!self.far.is_empty()).then_some(Visit { tick, from: ListId::FAR, to: ListId::CASCADING });
        };
        let slot = slots.trailing_zeros();
        let shift = level * SLOT_BITS;
        let tick = ((self.elapsed >> shift) & !SLOT_MASK | u64::from(slot)) << shift;
        let to = if level == 0 { ListId::DUE } else { ListId::CASCADING };
        Some(Visit { tick, from: ListId::slot(level, slot), to })
    }

    /// Comes to a slot: hands its whole list over, at the cost of its two ends.
    fn visit(&mut self, Visit { tick, from, to }: Visit) {
        debug_assert!(!self.has_in_hand() && self.elapsed < tick);
        self.elapsed = tick;
        let List { head, tail } = std::mem::replace(self.list(from), List::empty(from));
        self.set_previous(head, Link::End(to));
        self.set_next(tail, Link::End(to));
        *self.list(to) = List { head, tail };
        self.note_empty(from);
    }

    /// Where a timer of this tick belongs, seen from `elapsed`.
    fn home(&self, tick: u64) -> ListId {
        if tick <= self.elapsed {
            return ListId::DUE;
        }
        let level = (tick ^ self.elapsed).ilog2() / SLOT_BITS;
        if level >= LEVELS {
            return ListId::FAR;
        }
        ListId::slot(level, ((tick >> (level * SLOT_BITS)) & SLOT_MASK) as u32)
    }

    fn append(&mut self, id: ListId, key: Key) {
        let last = self.list(id).tail;
        let timer = &mut self.timers[key];
        (timer.previous, timer.next) = (last, Link::End(id));
        self.list(id).tail = Link::Timer(key);
        match last {
            Link::Timer(last) => self.timers[last].next = Link::Timer(key),
            Link::End(_) => {
                self.list(id).head = Link::Timer(key);
                self.note_occupied(id);
            }
        }
    }

    fn take(&mut self, key: Key) -> Option<T> {
        let Timer { previous, next, item, .. } = self.timers.remove(key)?;
        self.bypass(previous, next);
        Some(item)
    }

    /// Links the two neighbours of a timer that leaves.
    fn bypass(&mut self, previous: Link, next: Link) {
        self.set_next(previous, next);
        self.set_previous(next, previous);
        if let (Link::End(id), Link::End(_)) = (previous, next) {
            self.note_empty(id);
        }
    }

    /// What comes after `link`; after a list itself comes its head.
    fn set_next(&mut self, link: Link, next: Link) {
        match link {
            Link::Timer(key) => self.timers[key].next = next,
            Link::End(id) => self.list(id).head = next,
        }
    }

    /// What comes before `link`; before a list itself comes its tail.
    fn set_previous(&mut self, link: Link, previous: Link) {
        match link {
            Link::Timer(key) => self.timers[key].previous = previous,
            Link::End(id) => self.list(id).tail = previous,
        }
    }

    fn list(&mut self, id: ListId) -> &mut List {
        match id {
            ListId::DUE => &mut self.due,
            ListId::CASCADING => &mut self.cascading,
            ListId::FAR => &mut self.far,
            _ => &mut self.levels[id.level()].get_or_insert_with(|| id.empty_slots())[id.number()],
        }
    }

    fn note_occupied(&mut self, id: ListId) {
        if let Some(slots) = self.occupied.get_mut(id.level()) {
            *slots |= 1 << id.number();
        }
    }

    fn note_empty(&mut self, id: ListId) {
        if let Some(slots) = self.occupied.get_mut(id.level()) {
            *slots &= !(1 << id.number());
        }
    }
}

#[derive(Debug)]
struct Timer<T> {
    tick: u64,
    previous: Link,
    next: Link,
    item: T,
}

/// What comes before or after a timer: another one, or the list it is the first or last of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Timer(Key),
    End(ListId),
}

#[derive(Debug)]
struct List {
    head: Link,
    tail: Link,
}

impl List {
    fn empty(id: ListId) -> Self {
        Self { head: Link::End(id), tail: Link::End(id) }
    }

    fn is_empty(&self) -> bool {
        matches!(self.head, Link::End(_))
    }
}

type Slots = [List; SLOTS as usize];

/// A slot as level * 64 + number; the lists that are not slots come after the last level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ListId(u32);

impl ListId {
    const DUE: Self = Self(LEVELS * SLOTS);
    const CASCADING: Self = Self(Self::DUE.0 + 1);
    const FAR: Self = Self(Self::DUE.0 + 2);

    fn slot(level: u32, number: u32) -> Self {
        Self(level << SLOT_BITS | number)
    }

    /// `LEVELS` for a list that is not a slot.
    fn level(self) -> usize {
        (self.0 >> SLOT_BITS) as usize
    }

    fn number(self) -> usize {
        (self.0 % SLOTS) as usize
    }

    /// The slots of its level.
    fn empty_slots(self) -> Box<Slots> {
        let mut ids = (self.0 / SLOTS * SLOTS..).map(Self);
        Box::new([(); SLOTS as usize].map(|()| List::empty(ids.next().expect("ids go on"))))
    }
}

/// The list to empty when `elapsed` comes to `tick`, and the one its timers go to.
struct Visit {
    tick: u64,
    from: ListId,
    to: ListId,
}

/// The tick a point in time lies in.
fn tick_at(now: Timestamp) -> u64 {
    now.as_micros() >> TICK_BITS
}

/// The first tick that begins at or after a deadline.
fn tick_from(deadline: Timestamp) -> u64 {
    deadline.as_micros().div_ceil(1 << TICK_BITS)
}

/// When a tick begins; the end of time for those beyond it.
fn start_of(tick: u64) -> Timestamp {
    Timestamp::from_micros(tick.saturating_mul(1 << TICK_BITS))
}

/// 1,024 microseconds.
const TICK_BITS: u32 = 10;
const LEVELS: u32 = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: u32 = 1 << SLOT_BITS;
const SLOT_MASK: u64 = SLOTS as u64 - 1;
const HORIZON_BITS: u32 = LEVELS * SLOT_BITS;

const _: () = assert!(size_of::<Link>() == 8);
const _: () = assert!(Wheel::<[u64; 2]>::TIMER_BYTES == 48);

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
        /// The keys of a list, read forwards; its links backwards agree.
        fn walk(&mut self, id: ListId) -> Vec<Key> {
            let (mut keys, mut before, mut link) = (Vec::new(), Link::End(id), self.list(id).head);
            while let Link::Timer(key) = link {
                assert_eq!(self.timers[key].previous, before);
                keys.push(key);
                (before, link) = (link, self.timers[key].next);
            }
            assert_eq!((link, self.list(id).tail), (Link::End(id), before));
            keys
        }

        fn check_invariants(&mut self) {
            let mut seen = self.walk(ListId::DUE).len() + self.walk(ListId::CASCADING).len();
            for id in (0..LEVELS * SLOTS).map(ListId).chain([ListId::FAR]) {
                let keys = self.walk(id);
                let bit = self.occupied.get(id.level()).map(|slots| slots >> id.number() & 1 == 1);
                assert!(bit.is_none_or(|bit| bit != keys.is_empty()), "{id:?} is marked as it is");
                assert!(keys.iter().all(|key| self.home(self.timers[*key].tick) == id), "all of {id:?} belong there");
                seen += keys.len();
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
    fn next_expiry_names_the_way_down() {
        let mut wheel = Wheel::new(at(0));
        wheel.arm(at(2 * 4_096 + 3 * 64 + 4), ());
        let mut wakes = Vec::new();
        while let Some(next) = wheel.next_expiry() {
            wakes.push(next);
            advance_through(&mut wheel, next, 1);
        }
        assert_eq!(wakes, [at(2 * 4_096), at(2 * 4_096 + 3 * 64), at(2 * 4_096 + 3 * 64 + 4)]);
    }

    #[test]
    fn same_tick_comes_out_as_armed() {
        let mut wheel = Wheel::new(at(0));
        let tick = 64 * 64 + 64;
        wheel.arm(at(tick), 0);
        wheel.arm(at(tick + 1), 4);
        advance_through(&mut wheel, at(64 * 64 - 1), 9);
        wheel.arm(at(tick), 1);
        assert!(wheel.advance(at(64 * 64), 1, &mut Vec::new()), "in the middle of a cascade");
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
        assert_eq!((calls, expired.len()), (200, 1_000), "1,000 fell a level, 1,000 came out");
        assert!(!wheel.advance(at(200), 0, &mut expired));
        wheel.arm(at(200), 0);
        assert!(wheel.advance(at(200), 0, &mut expired), "no work allowed, some to do");
    }

    #[test]
    fn cancelled_in_each_list() {
        // Due, cascading, in a slot and far: a timer leaves all of them alike, and once.
        let mut wheel = Wheel::new(at(0));
        let ticks = [64, 65, 66, 80, 4_096, 1 << 40];
        let armed = ticks.map(|tick| wheel.arm(at(tick), tick));
        assert!(wheel.advance(at(64), 1, &mut Vec::new()));
        assert_eq!((wheel.walk(ListId::DUE).len(), wheel.walk(ListId::CASCADING).len()), (1, 3));
        for (timer, tick) in armed.into_iter().zip(ticks) {
            assert_eq!(wheel.cancel(timer), Some(tick));
            assert_eq!(wheel.cancel(timer), None);
            wheel.check_invariants();
        }
        assert!(wheel.is_empty() && wheel.next_expiry().is_none());
    }

    #[test]
    fn the_end_of_time_never_comes() {
        let mut wheel = Wheel::new(at(0));
        wheel.arm(Timestamp::from_micros(u64::MAX), ());
        wheel.elapsed = tick_at(Timestamp::from_micros(u64::MAX)) - 1;
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
                let tick = deadline_us.div_ceil(TICK_US).max(self.wheel.elapsed);
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
            // A timer falls 6 times, once more for each time around the horizon, and comes out.
            let rounds = (now_us / TICK_US - self.wheel.elapsed) >> HORIZON_BITS;
            let work = self.model.len() * (8 + usize::try_from(rounds).unwrap());
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
