//! What may happen, and under which limits, as it is drawn.

use crate::{GRACE, IDS, NAMES, STREAMS, TICK_US};
use engine::breaker::Rules;
use engine::limits::Limits;
use proptest::prelude::*;
use std::time::Duration;

/// One thing that happens. Numbers that choose among what is there wrap around.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Declare {
        name: u8,
        revision: u8,
    },
    Push {
        handle: u8,
        id: u8,
        controller: u8,
        ticks_left: u8,
        bytes: u8,
        acknowledge: bool,
    },
    /// A container of the current revision, or of any.
    Register {
        name: u8,
        revision: Option<u8>,
        stream: u8,
        concurrency: u32,
        credits: u32,
        warm: bool,
    },
    Credit {
        container: u8,
        credits: u32,
    },
    Complete {
        container: u8,
        which: Which,
        status: u8,
        credits: u32,
    },
    Return {
        container: u8,
        which: Which,
    },
    Retire {
        container: u8,
    },
    Gone {
        container: u8,
    },
    Suspend {
        container: u8,
    },
    Unsent {
        container: u8,
        which: Which,
    },
    /// Bit by bit, which of what it has in flight it holds.
    Rejoin {
        container: u8,
        credits: u32,
        held: u8,
    },
    /// It states that many credits, and that so many dispatches did not reach it.
    Compare {
        container: u8,
        credits: u32,
        missing: u32,
    },
    Full {
        stream: u8,
    },
    Room {
        stream: u8,
    },
    /// Time passes, and the timers are looked at or not.
    Pass {
        micros: u64,
        look: bool,
    },
}

/// An activation on a container: one of those it has, or any.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    Own(u8),
    Any(u8),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let which = prop_oneof![4 => any::<u8>().prop_map(Which::Own), 1 => (0..IDS).prop_map(Which::Any)];
    let container = any::<u8>();
    // Whole ticks too, to meet deadlines exactly.
    let micros = prop_oneof![0..3 * TICK_US, (0..3u64).prop_map(|ticks| ticks * TICK_US)];
    let revision = prop_oneof![4 => Just(None), 1 => (0..4u8).prop_map(Some)];
    prop_oneof![
        1 => (0..NAMES, 0..14u8).prop_map(|(name, revision)| Step::Declare { name, revision }),
        8 => (any::<u8>(), 0..IDS, 0..2u8, 0..12u8, 0..4u8, any::<bool>()).prop_map(
            |(handle, id, controller, ticks_left, bytes, acknowledge)| Step::Push {
                handle, id, controller, ticks_left, bytes, acknowledge,
            }
        ),
        2 => (0..NAMES, revision, 0..STREAMS, 1..4u32, 0..4u32, any::<bool>()).prop_map(
            |(name, revision, stream, concurrency, credits, warm)| Step::Register {
                name, revision, stream, concurrency, credits, warm,
            }
        ),
        4 => (container, 0..3u32).prop_map(|(container, credits)| Step::Credit { container, credits }),
        5 => (container, which.clone(), 0..3u8, 0..3u32).prop_map(
            |(container, which, status, credits)| Step::Complete { container, which, status, credits }
        ),
        3 => (container, which.clone()).prop_map(|(container, which)| Step::Return { container, which }),
        1 => container.prop_map(|container| Step::Suspend { container }),
        2 => (container, which).prop_map(|(container, which)| Step::Unsent { container, which }),
        2 => (container, 0..4u32, any::<u8>()).prop_map(
            |(container, credits, held)| Step::Rejoin { container, credits, held }
        ),
        2 => (container, 0..4u32, 0..3u32).prop_map(
            |(container, credits, missing)| Step::Compare { container, credits, missing }
        ),
        1 => container.prop_map(|container| Step::Retire { container }),
        1 => container.prop_map(|container| Step::Gone { container }),
        1 => (0..STREAMS).prop_map(|stream| Step::Full { stream }),
        2 => (0..STREAMS).prop_map(|stream| Step::Room { stream }),
        2 => (micros, any::<bool>()).prop_map(|(micros, look)| Step::Pass { micros, look }),
    ]
}

pub(crate) fn limits() -> impl Strategy<Value = Limits> {
    (1..4u64, 2..8u64, 1..6u64, 4..12u64, 4..24u64, 0..2usize, 0..4u64, 0..3u32).prop_map(
        |(count, bytes, all, all_bytes, actions, recent_sets, grace, probes)| Limits {
            recent_sets,
            action_queued_max: count,
            action_queued_bytes_max: bytes,
            router_queued_max: all,
            router_queued_bytes_max: all_bytes,
            actions_max: actions,
            idle_grace: GRACE,
            breaker: (probes > 0).then(|| rules(probes)),
            overdue_grace: Duration::from_micros(grace * TICK_US / 2),
            queued_overhead_bytes: 0,
            ..Limits::default()
        },
    )
}

/// Breakers that open soon, and for so short that no jitter shows: until the clock moves on.
fn rules(probes: u32) -> Rules {
    let open = Duration::from_micros(2);
    Rules { strikes: 2, window: Duration::from_micros(4 * TICK_US), open_first: open, open_max: open, probes }
}
