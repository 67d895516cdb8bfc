//! What a seed means: how many of everything, every limit, how fast, how slow, and what goes wrong. All of it is drawn.

use crate::agenda::Instant;
use crate::clock::RATE_PPM_MAX;
use crate::dice::Dice;
use engine::breaker::Rules;
use engine::limits::{Limits, OverflowLimits};
use std::time::Duration;

/// The configuration of a world. Times are microseconds where their name says nothing else; chances are per million.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // The names say it, and this is printed as it is.
pub struct Plan {
    pub seed: u64,
    pub activations: u32,
    pub controllers: u16,
    pub nodes: u16,
    pub actions: u16,
    pub containers_per_node: u16,
    pub concurrency_max: u32,
    pub limits: Limits,
    pub outbox_bytes_max: usize,
    pub window_bytes: usize,
    pub frame_entries_max: usize,
    pub wheels: usize,
    pub timers_at_once: usize,
    pub clock_ppm_max: u64,

    pub gap_us: u64,
    pub service_us: u64,
    pub latency_us: u64,
    pub jitter_us: u64,
    pub batch_us: u64,
    pub writer_us: u64,
    pub timeout_ms_min: u64,
    pub timeout_ms_max: u64,
    pub answer_grace_ms: u64,
    pub reconnect_us: u64,
    pub payload_bytes_max: u64,

    pub only_accept: u32,
    pub action_fails: u32,
    pub platform_fails: u32,
    pub returns: u32,
    pub credit_apart: u32,
    pub churn_us: u64,
    /// A container that never answers takes that share of what it gets.
    pub never_answers: u32,
    pub lies: u32,
    pub audit_us: u64,
    /// Activations that a controller pushes twice, and those that it pushes again later.
    pub duplicates: u32,
    pub repeats: u32,
    /// Controllers that push what waits again when they are back, and do not merely ask.
    pub resubmits: bool,
    /// Controllers that have a second stream, under another name.
    pub two_lines: bool,
    /// Controllers that are the project's own: the client's desk.
    pub desks: u16,
    pub desk_breaker: bool,
    pub controller_grace_ms: u64,
    pub node_grace_ms: u64,
    /// Where what overflows goes; None: it is refused.
    pub store: Option<StorePlan>,
    /// How long a drain may take.
    pub drain_us: u64,
    /// Actions that have containers from the beginning; the others only after the faults.
    pub hosted: u16,
    pub crashes: Option<CrashLoop>,
    pub surge: Option<Surge>,
    pub faults: Vec<Fault>,
    pub heal_at: Instant,
}

/// The last node dies whenever it has got something, and comes back, for as long as things go wrong.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct CrashLoop {
    /// The longest from its first dispatch to its end.
    pub after_us: u64,
    pub away_us: u64,
    /// It comes back with the session that it had.
    pub resumes: bool,
}

/// For a while callers come so many times as often.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Surge {
    pub from: Instant,
    pub until: Instant,
    pub times: u64,
}

/// How the store of overflow behaves.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct StorePlan {
    /// Kafka; else a log on a disk.
    pub kafka: bool,
    pub record_bytes_max: usize,
    /// Records that one append takes.
    pub batch_max: usize,
    pub append_us: u64,
    pub read_us: u64,
    pub mark_us: u64,
    /// From a sync to the word of it.
    pub tell_us: u64,
    /// A store that could not be written is left alone for that long.
    pub left_alone_us: u64,
    /// How often a lane is looked at again that waits for something of which nobody tells.
    pub look_us: u64,
    /// So long before the end of a drain nothing more is read back.
    pub drain_reserve_us: u64,
    /// Actions that a consume mark may name.
    pub named_max: usize,
}

/// Something goes wrong.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Fault {
    pub at: Instant,
    pub kind: Kind,
    /// Whom it strikes: an index, taken modulo how many there are.
    pub whom: u32,
    /// How long it goes on.
    pub lasts_us: u64,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// What can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Fault {
    /// By how much a wall clock is set: a second to two days, either way.
    pub fn set_us(&self) -> i64 {
        let seconds = (i64::from(self.whom >> 1) % 172_800) + 1;
        // Small ones as often as large ones.
        let set_us = (seconds >> (self.whom >> 1 & 15)).max(1) * 1_000_000 + 1000;
        if self.whom & 1 == 0 { set_us } else { -set_us }
    }
}

impl Kind {
            /// Every kind, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

kinds! {
    /// A connection breaks; both sides hear of it soon.
    Cut = "cut",
    /// A connection breaks and the peer does not notice for a while.
    HalfOpenPeer = "half_open_peer",
    /// A connection breaks and the router does not notice for a while.
    HalfOpenRouter = "half_open_router",
    /// What a peer says is held up.
    StallUp = "stall_up",
    /// What the router says to a peer is held up.
    StallDown = "stall_down",
    /// A peer and the router do not reach each other; connections break on both sides in time.
    Partition = "partition",
    /// A peer reads slowly.
    SlowReader = "slow_reader",
    /// A node's process dies and starts again.
    CrashNode = "crash_node",
    /// A controller's process dies and starts again.
    CrashController = "crash_controller",
    /// The router's process dies and starts again, without memory.
    CrashRouter = "crash_router",
    /// A node's process stands still.
    PauseNode = "pause_node",
    /// A controller's process stands still.
    PauseController = "pause_controller",
    /// The router's process stands still.
    PauseRouter = "pause_router",
    /// A controller says that it has said all, waits for its answers, and opens another stream.
    HalfClose = "half_close",
    /// The router is told to stop, drains, and starts again.
    Drain = "drain",
    /// The store of overflow takes its time.
    StoreSlow = "store_slow",
    /// It can be neither written nor read.
    StoreDown = "store_down",
    /// It has no room.
    StoreFull = "store_full",
    /// Its syncs fail, or its delivery reports do not come.
    StoreUnsynced = "store_unsynced",
    /// Records of it are damaged, or gone.
    StoreDamaged = "store_damaged",
    /// The wall clock of the router's machine is set, back or forward.
    WallSet = "wall_set",
    /// The router's machine is booted, and the router starts again.
    Reboot = "reboot",
}

impl Kind {
    /// Those that strike the store of overflow.
    pub const OF_STORE: &'static [Self] =
        &[Self::StoreSlow, Self::StoreDown, Self::StoreFull, Self::StoreUnsynced, Self::StoreDamaged];
}

impl Plan {
    /// What that seed means, with about that many activations.
    pub fn draw(seed: u64, activations: u32) -> Self {
        let dice = &mut Dice::new(seed);
        let activations =
            u32::try_from(dice.between(u64::from(activations) / 2, u64::from(activations) * 3 / 2)).unwrap_or(1).max(1);
        let tiny = dice.one_in(4);
        let controllers = u16::try_from(dice.between(1, 4)).unwrap_or(1);
        let nodes = u16::try_from(dice.between(1, 5)).unwrap_or(1);
        let actions = u16::try_from(if dice.one_in(3) { 1 } else { dice.between(1, 6) }).unwrap_or(1);
        let gap_us = dice.spread(4, 8000);
        let duration = gap_us * u64::from(activations);
        let concurrency_max = u32::try_from(if tiny { dice.between(1, 3) } else { dice.spread(1, 64) }).unwrap_or(1);
        // From a third of the load to three times as much as there is room for.
        let places = u64::from(nodes) * 2 * u64::from(concurrency_max.div_ceil(2));
        let service_us = (gap_us * places * dice.between(10, 300) / 100).clamp(20, 500_000);
        let slow = dice.one_in(2);
        let timeout_ms_max = if slow { dice.spread(50, 30_000) } else { dice.spread(2, 500) };
        let mut plan = Self {
            seed,
            activations,
            controllers,
            nodes,
            actions,
            containers_per_node: u16::try_from(dice.between(1, 4)).unwrap_or(1),
            concurrency_max,
            limits: draw_limits(dice, tiny, activations),
            outbox_bytes_max: usize::try_from(dice.spread(200, 1 << 20)).unwrap_or(200),
            window_bytes: usize::try_from(dice.spread(200, 1 << 20)).unwrap_or(200),
            frame_entries_max: usize::try_from(dice.spread(1, 1024)).unwrap_or(1),
            wheels: usize::try_from(dice.between(1, 3)).unwrap_or(1),
            timers_at_once: usize::try_from(dice.spread(1, 256)).unwrap_or(1),
            clock_ppm_max: if dice.one_in(2) { 0 } else { RATE_PPM_MAX },
            gap_us,
            service_us,
            latency_us: dice.spread(10, 5000),
            jitter_us: dice.spread(1, 2000),
            batch_us: if dice.one_in(2) { 0 } else { dice.spread(1, 2000) },
            writer_us: if dice.one_in(2) { 0 } else { dice.spread(1, 2000) },
            timeout_ms_min: dice.spread(1, timeout_ms_max),
            timeout_ms_max,
            answer_grace_ms: dice.between(1, 100),
            reconnect_us: dice.spread(100, 100_000),
            payload_bytes_max: dice.spread(1, 600),
            only_accept: rarely(dice, 4, 200_000),
            action_fails: rarely(dice, 2, 50_000),
            platform_fails: rarely(dice, 4, 20_000),
            returns: rarely(dice, 3, 100_000),
            credit_apart: rarely(dice, 2, 500_000),
            churn_us: if dice.one_in(3) { (duration / dice.between(1, 20)).max(1000) } else { 0 },
            never_answers: rarely(dice, 5, 50_000),
            lies: rarely(dice, 4, 50_000),
            audit_us: if dice.one_in(3) { (duration / dice.between(2, 50)).max(1000) } else { 0 },
            duplicates: rarely(dice, 4, 100_000),
            repeats: rarely(dice, 4, 100_000),
            resubmits: dice.one_in(2),
            two_lines: dice.one_in(4),
            desks: if dice.one_in(2) { u16::try_from(dice.below(u64::from(controllers) + 1)).unwrap_or(0) } else { 0 },
            desk_breaker: dice.one_in(2),
            controller_grace_ms: if dice.one_in(4) { 0 } else { dice.spread(1, 20_000) },
            node_grace_ms: if dice.one_in(4) { 0 } else { dice.spread(1, 2_000) },
            store: None,
            drain_us: DRAIN_US,
            hosted: actions,
            crashes: None,
            surge: None,
            faults: Vec::new(),
            heal_at: duration * dice.between(60, 95) / 100,
        };
        if plan.only_accept > 0 {
            plan.tell_unheard_apart(dice);
        } else if dice.one_in(2) {
            plan.limits.breaker = Some(draw_rules(dice));
            plan.limits.slow_after = dice.one_in(2).then(|| Duration::from_micros(dice.spread(100, 1_000_000)));
        }
        plan.faults = plan.draw_faults(dice);
        // Behind all else and from dice of its own, so that the other half of the worlds are what they were.
        let dice = &mut dice.fork();
        if dice.one_in(2) {
            plan.overflow(tiny, dice);
        }
        plan.draw_shared(&mut Dice::new(seed ^ SHARED));
        plan.draw_own(&mut Dice::new(seed ^ OWN));
        plan.draw_scattered(&mut Dice::new(seed ^ SCATTERED));
        plan
    }

    /// How actions share a lane, and what they leave in the store, from dice of its own for the same reason.
    fn draw_shared(&mut self, dice: &mut Dice) {
        if self.store.is_some() && dice.one_in(2) {
            self.drain_us = dice.spread(1000, DRAIN_US);
        }
        if self.store.is_some() && dice.one_in(12) {
            self.share_a_lane(dice);
        }
    }

    /// One lane for all, and so much time that whoever waits for another's containers, or for another's reads, waits too long.
    fn share_a_lane(&mut self, dice: &mut Dice) {
        let (Some(overflow), Some(store)) = (&mut self.limits.overflow, &mut self.store) else { return };
        overflow.lanes = 1;
        // A long world: nobody looks at anything too often.
        store.look_us = store.look_us.max(100_000);
        self.actions = self.actions.max(2);
        self.hosted = self.actions;
        self.gap_us = dice.between(8_000_000, 25_000_000) / u64::from(self.activations);
        self.heal_at = self.gap_us * u64::from(self.activations) * dice.between(80, 95) / 100;
        // They were drawn for a shorter one.
        for often in [&mut self.churn_us, &mut self.audit_us] {
            *often = if *often > 0 { self.heal_at / dice.between(2, 20) } else { 0 };
        }
        (self.timeout_ms_min, self.timeout_ms_max) = (dice.between(5_000, 15_000), dice.between(15_000, 30_000));
        self.limits.action_queued_max = self.limits.action_queued_max.min(dice.between(1, 4));
        if dice.one_in(2) {
            self.hosted -= 1;
        } else {
            // Reading is what takes long: whoever is read first always has more to be read.
            overflow.refill_records = 1;
            // Still, all actions have their turn in far less time than the judge gives an action.
            store.read_us = (self.gap_us * dice.between(1, 4)).min(100_000);
            self.service_us = (self.gap_us / 10).max(20);
        }
    }

    /// What came later, from dice of its own for the same reason.
    fn draw_own(&mut self, dice: &mut Dice) {
        let hears_all = self.only_accept == 0;
        if hears_all && dice.one_in(6) {
            self.crash_again_and_again(dice);
        }
        if hears_all && dice.one_in(6) {
            self.surge(dice);
        }
        if self.store.is_some() && dice.one_in(2) {
            self.set_clocks(dice);
        }
    }

    /// Many lives of a router with little room. Each life leaves records of the same actions in
    /// another lane. From dice of its own for the same reason.
    fn draw_scattered(&mut self, dice: &mut Dice) {
        let (Some(overflow), Some(store)) = (&mut self.limits.overflow, &mut self.store) else { return };
        if self.surge.is_some() || self.only_accept > 0 || !dice.one_in(12) {
            return;
        }
        overflow.lanes = u16::try_from(dice.between(3, 8)).unwrap_or(3);
        self.actions = self.actions.min(2);
        self.hosted = self.hosted.min(self.actions);
        self.limits.action_queued_max = dice.between(1, 3);
        // Each life overflows before it has found what was left, and lanes are marked while others ask.
        self.service_us = self.service_us.max(self.gap_us * dice.between(1, 8));
        store.read_us = (self.gap_us * dice.between(1, 20)).min(100_000);
        store.look_us = (self.gap_us * dice.between(1, 8)).clamp(1000, 100_000);
        store.mark_us = store.look_us * dice.between(1, 3);
        // Records that a life leaves must not expire before the next lives.
        self.timeout_ms_max = self.timeout_ms_max.max(self.heal_at / 500);
        let lives = dice.between(3, 8);
        let life = (self.heal_at / lives).max(2);
        let crash = |number| Fault {
            at: number * life + dice.below(life),
            kind: Kind::CrashRouter,
            whom: u32::try_from(dice.below(1 << 32)).unwrap_or(0),
            lasts_us: dice.spread(1, life),
        };
        self.faults.extend((0..lives).map(crash));
    }

    fn crash_again_and_again(&mut self, dice: &mut Dice) {
        let soon = self.heal_at / 50;
        self.nodes = self.nodes.max(2);
        self.crashes = Some(CrashLoop {
            after_us: dice.spread(1, soon.max(1)),
            away_us: dice.spread(1, soon.max(1)),
            resumes: dice.one_in(3),
        });
        // Its failures are to be known soon, and for long.
        self.node_grace_ms = self.node_grace_ms.min(dice.spread(1, 50));
        let window = Duration::from_micros(self.heal_at.max(1000) * dice.between(1, 4) / 2);
        let open_first = window / u32::try_from(dice.between(2, 50)).unwrap_or(2);
        let open_max = window * u32::try_from(dice.between(2, 6)).unwrap_or(2);
        let strikes = u32::try_from(dice.between(1, 4)).unwrap_or(3);
        let probes = u32::try_from(dice.between(1, 3)).unwrap_or(2);
        self.limits.breaker = Some(Rules { strikes, window, open_first, open_max, probes });
    }

    /// Far more than there is room for, with little time each, on containers that do well.
    fn surge(&mut self, dice: &mut Dice) {
        let from = dice.below(self.heal_at.max(2) / 2);
        let until = from + dice.below(self.heal_at.max(2) / 2);
        self.surge = Some(Surge { from, until, times: dice.between(3, 30) });
        (self.never_answers, self.platform_fails, self.returns) = (0, 0, 0);
        self.timeout_ms_max = (self.service_us * dice.between(2, 20) / 1000).clamp(2, self.timeout_ms_max.max(2));
        self.timeout_ms_min = self.timeout_ms_min.min(self.timeout_ms_max);
        if self.limits.breaker.is_none() {
            self.limits.breaker = Some(draw_rules(dice));
        }
    }

    /// Wall clocks that are set, routers that come back on the same boot and on others.
    fn set_clocks(&mut self, dice: &mut Dice) {
        let heal_at = self.heal_at.max(1);
        let mut kinds = vec![Kind::WallSet; usize::try_from(dice.between(1, 3)).unwrap_or(1)];
        kinds.extend((0..dice.between(1, 3)).map(|_| *dice.pick(&[Kind::CrashRouter, Kind::Reboot])));
        let fault = |kind| Fault {
            at: dice.below(heal_at),
            kind,
            whom: u32::try_from(dice.below(1 << 32)).unwrap_or(0),
            lasts_us: dice.spread(10, (heal_at / 4).clamp(100, 5_000_000)),
        };
        self.faults.extend(kinds.into_iter().map(fault));
    }

    /// Those who only want to hear that they are taken expire unheard, and the judge tells by the bytes that are queued which of them
    /// went: where all have none or one it may take one for another, and later cry wolf. That they fail breakers it does not see.
    fn tell_unheard_apart(&mut self, dice: &mut Dice) {
        self.payload_bytes_max = self.payload_bytes_max.max(256 + dice.below(256));
        (self.limits.breaker, self.limits.slow_after) = (None, None);
    }

    /// Lets the excess go to a store, and makes it likely that there is some.
    fn overflow(&mut self, tiny: bool, dice: &mut Dice) {
        let small = if tiny { 4 } else { 256 };
        if !tiny {
            let limits = &mut self.limits;
            limits.action_queued_max = limits.action_queued_max.min(dice.spread(1, 64));
            limits.router_queued_max = limits.router_queued_max.min(dice.spread(4, 1024));
        }
        self.limits.overflow = Some(OverflowLimits {
            lanes: u16::try_from(dice.between(1, 8)).unwrap_or(1),
            pending_bytes_max: if tiny { dice.spread(1, 2000) } else { dice.spread(500, 1 << 20) },
            refill_records: u32::try_from(dice.spread(1, small)).unwrap_or(1),
            refill_bytes: u32::try_from(dice.spread(1, 1 << 16)).unwrap_or(1),
        });
        // A very slow store: callers who only want to hear that they are taken hear of it late, and some controllers ask meanwhile.
        let very_slow = dice.one_in(4);
        if very_slow {
            self.resubmits &= dice.one_in(2);
            self.controller_grace_ms = self.controller_grace_ms.max(dice.spread(1, 20_000));
        }
        if self.only_accept == 0 && (very_slow || dice.one_in(4)) {
            self.only_accept = u32::try_from(dice.spread(10_000, 500_000)).unwrap_or(0);
            self.tell_unheard_apart(dice);
        }
        let slow = dice.spread(1, 100);
        let payload = usize::try_from(self.payload_bytes_max).unwrap_or(1);
        let mut time = |longest: u64| dice.spread(1, longest * slow);
        let times = [time(100), time(50), time(50), time(10)];
        // It takes more at a time, then: what is on its way is to come through before the world's end.
        let (slower, batch_min) = if very_slow { (50, 64) } else { (1, 1) };
        self.store = Some(StorePlan {
            kafka: dice.one_in(3),
            record_bytes_max: if dice.one_in(8) { dice.index(payload) } else { usize::MAX },
            batch_max: usize::try_from(dice.spread(batch_min, 4096)).unwrap_or(1),
            append_us: times[0] * slower,
            read_us: times[1],
            mark_us: times[2],
            tell_us: times[3],
            left_alone_us: dice.spread(1000, 1_000_000),
            look_us: dice.spread(1000, 250_000),
            drain_reserve_us: dice.spread(1, 30_000_000),
            // Mostly enough for all actions of a world.
            named_max: if dice.one_in(4) { 1 + dice.index(3) } else { 8 },
        });
        self.draw_store_faults(dice);
    }

    fn draw_store_faults(&mut self, dice: &mut Dice) {
        let count = if dice.one_in(2) { 0 } else { dice.between(1, 8) };
        let mut kinds: Vec<Kind> = (0..dice.between(1, 3)).map(|_| *dice.pick(Kind::OF_STORE)).collect();
        // What is stored then is of an earlier life, or is asked for by who came back.
        kinds.push(*dice.pick(&[Kind::CrashRouter, Kind::Cut]));
        let heal_at = self.heal_at;
        self.faults.extend((0..count).map(|_| Fault {
            at: dice.below(heal_at.max(1)),
            kind: *dice.pick(&kinds),
            whom: u32::try_from(dice.below(1 << 16)).unwrap_or(0),
            lasts_us: dice.spread(10, (heal_at / 4).clamp(100, 5_000_000)),
        }));
    }

    fn draw_faults(&self, dice: &mut Dice) -> Vec<Fault> {
        let count = match dice.below(8) {
            0 => 0,
            1..=4 => dice.between(1, 4),
            5 | 6 => dice.between(4, 12),
            _ => dice.between(10, 40),
        };
        // A world has a few kinds of trouble, so that some worlds have much of one.
        let kinds: Vec<Kind> =
            (0..dice.between(1, 5)).map(|_| *dice.pick(&Kind::ALL[..Kind::StoreSlow as usize])).collect();
        (0..count)
            .map(|_| Fault {
                at: dice.below(self.heal_at.max(1)),
                kind: *dice.pick(&kinds),
                whom: u32::try_from(dice.below(1 << 16)).unwrap_or(0),
                lasts_us: dice.spread(10, (self.heal_at / 2).clamp(100, 20_000_000)),
            })
            .collect()
    }
}

/// Sets the dice of what came later apart from those of the seed.
const SHARED: u64 = 0x10ad_ed1a_9e0f_a115;
const OWN: u64 = 0x5a17_c10c_b4ea_4e25;
const SCATTERED: u64 = 0x1e4f_7a3c_95d2_60b8;

/// The longest drain, 30 s.
const DRAIN_US: u64 = 30_000_000;

fn rarely(dice: &mut Dice, one_in: u64, per_million_max: u64) -> u32 {
    if dice.one_in(one_in) { u32::try_from(dice.spread(100, per_million_max)).unwrap_or(0) } else { 0 }
}

fn draw_rules(dice: &mut Dice) -> Rules {
    let strikes = u32::try_from(dice.between(1, 6)).unwrap_or(3);
    let open_first = Duration::from_micros(dice.spread(100, 1_000_000));
    let open_max = open_first * u32::try_from(dice.between(1, 60)).unwrap_or(1);
    let probes = u32::try_from(dice.between(1, 3)).unwrap_or(2);
    Rules { strikes, window: Duration::from_micros(dice.spread(1000, 10_000_000)), open_first, open_max, probes }
}

/// One run in four has limits of one to three: they find most.
fn draw_limits(dice: &mut Dice, tiny: bool, activations: u32) -> Limits {
    let mut number = |large: u64| if tiny { dice.between(1, 3) } else { dice.spread(4, large) };
    let action_queued_max = number(10_000);
    let router_queued_max = number(10_000);
    let bytes = if tiny { 1000 } else { 100_000 };
    Limits {
        payload_bytes_max: 1 << 20,
        action_queued_max,
        action_queued_bytes_max: dice.spread(bytes / 4, bytes * 50),
        router_queued_max,
        router_queued_bytes_max: dice.spread(bytes / 4, bytes * 50),
        actions_max: 64,
        container_concurrency_max: 4096,
        idle_grace: Duration::from_millis(dice.spread(5_000, 600_000)),
        overdue_grace: Duration::from_millis(dice.between(1, 100)),
        // So many that no id is forgotten while it may come again.
        recent_sets: (activations as usize * 3).next_power_of_two(),
        breaker: None,
        slow_after: None,
        queued_overhead_bytes: 0,
        ..Limits::default()
    }
}
