//! What a run is to do: handed from the parent to its parts as JSON.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// One run against one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// What drives it.
    pub(crate) load: Load,
    /// Activations to push in all; otherwise `seconds` end it.
    pub(crate) count: Option<u64>,
    /// Length of the measured window.
    pub(crate) seconds: f64,
    /// Load before the window, not measured.
    pub(crate) warm_up_seconds: f64,
    /// Bytes of each payload, and of each result: containers send it back.
    pub(crate) payload_bytes: usize,
    /// Actions the load goes over, in turn.
    pub(crate) actions: u32,
    /// Containers; which action each runs, `action_of` says.
    pub(crate) containers: u32,
    /// Activations a container runs at once.
    pub(crate) concurrency: u32,
    /// Controller streams, each on a connection of its own.
    pub(crate) controllers: u32,
    /// Invoker nodes, each a stream on a connection of its own.
    pub(crate) invokers: u32,
    /// What activations are given.
    pub(crate) time_left_ms: u32,
    /// Whether containers remember what they started, to find what is started twice.
    pub(crate) check_starts: bool,
    /// Tells runs on one peer's server apart: its queues have the number in their names.
    pub(crate) run: u32,
}

/// What drives a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    /// That many at a time: each answer brings the next.
    Closed {
        /// Activations in flight, over all controllers.
        in_flight: u32,
    },
    /// That many a second, whatever the answers do. Latency counts from the intended send time.
    Open {
        /// Activations per second.
        rate: f64,
    },
    /// The arrivals of a trace.
    Replay(Replay),
    /// The first controller pushes activations to action 0, which has no container, and they expire one after the other;
    /// the second pushes to action 1 at a rate meanwhile.
    Expiry(Expiry),
    /// More than the containers of action 0 can run, then less until they have caught up.
    Overflow(Overflow),
}

/// A flood and its ebb.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Overflow {
    /// Activations per second at first.
    pub(crate) rate: f64,
    /// For how long.
    pub(crate) seconds: f64,
    /// Activations per second after that, until fewer are out than the containers run at once; none: the run ends there.
    pub(crate) then_rate: Option<f64>,
    /// How long each runs.
    pub(crate) service_time_us: u64,
    /// What the second controller pushes to action 1 per second during the flood. Only that is recorded then.
    pub(crate) beside: Option<f64>,
}

/// Deadlines that are let pass.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Expiry {
    /// How many, armed before the first passes.
    pub(crate) deadlines: u32,
    /// When the first passes.
    pub(crate) first_seconds: f64,
    /// The time from the first to the last, evenly filled.
    pub(crate) spread_seconds: f64,
    /// Activations per second that flow meanwhile.
    pub(crate) rate: f64,
}

/// Which trace and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Replay {
    /// Its two files; none stands for a generated trace.
    pub(crate) files: Option<(PathBuf, PathBuf)>,
    /// First and last minute, both included; none for all.
    pub(crate) minutes: Option<(u32, u32)>,
    /// How many times faster than it was.
    pub(crate) speed: f64,
    /// How many of the busiest functions to leave out.
    pub(crate) without_top: usize,
    /// Clumped or uniform within a minute.
    pub(crate) clumped: bool,
    /// Whether containers take the trace's service times.
    pub(crate) service_times: bool,
    /// Of the generated trace and the placement.
    pub(crate) seed: u64,
}

impl Plan {
    /// A closed loop over one action with 64 containers: what others vary.
    pub(crate) fn closed(in_flight: u32, seconds: f64) -> Self {
        Self {
            load: Load::Closed { in_flight },
            count: None,
            seconds,
            warm_up_seconds: (seconds / 5.0).min(2.0),
            payload_bytes: 256,
            actions: 1,
            containers: 64,
            concurrency: 64,
            controllers: 1,
            invokers: 1,
            time_left_ms: 60_000,
            check_starts: false,
            run: 0,
        }
    }

    /// The scenario's name in the result file.
    pub(crate) fn scenario(&self) -> &'static str {
        match &self.load {
            Load::Closed { .. } => "closed",
            Load::Open { .. } => "open",
            Load::Replay(Replay { clumped: true, .. }) => "replay-clumped",
            Load::Replay(Replay { clumped: false, .. }) => "replay-uniform",
            Load::Expiry(_) => "expiry",
            Load::Overflow(_) => "overflow",
        }
    }

    /// How many a flood brings, and what flows beside it: room is made for them before, for growing in the middle of a run stops a part
    /// for 30 ms. Without a flood 0.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn flooded(&self) -> usize {
        match &self.load {
            Load::Overflow(flood) => ((flood.rate + flood.beside.unwrap_or(0.0)) * flood.seconds) as usize,
            _ => 0,
        }
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_seconds)
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

impl Plan {
    /// The action that a container runs: counted from the last one down, so that with fewer containers than actions it is the
    /// first actions that have none.
    pub(crate) fn action_of(&self, container: u32) -> u32 {
        self.actions - 1 - container % self.actions
    }
}

/// The name of the load's action of that number.
pub(crate) fn action_key(number: u32) -> client::ActionKey {
    let namespace = format!("tenant-{}", number % 100);
    client::ActionKey::new(&namespace, &format!("action-{number}"), "1").expect("short names")
}
