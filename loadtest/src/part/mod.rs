//! The parts of a run: a server, invoker nodes, controllers. Each is a process that this program starts of itself, or a thread
//! with `--in-process`. A part reports events; the parent waits for them.

pub(crate) mod controller;
pub(crate) mod invoker;
pub(crate) mod pipe;
pub(crate) mod road;

use crate::book::Counts;
use crate::plan::Plan;
use crate::result::{Latency, Quantile, Sample, Stages};
use serde::{Deserialize, Serialize};

/// What a part tells the parent. On standard output a line of JSON each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// A server part listens.
    Listening {
        /// For controllers and invokers.
        address: std::net::SocketAddr,
        /// For operators, if it has such a port.
        admin: Option<std::net::SocketAddr>,
    },
    /// An invoker part has registered its containers.
    Ready,
    /// The measured window begins.
    WindowBegins,
    /// It is over.
    WindowEnds,
    /// How far a controller part is, from 0 to 1.
    Progress(f64),
    /// A controller part is done.
    Controllers(Box<ControllerReport>),
    /// An invoker part is done.
    Invokers(InvokerReport),
    /// The part failed.
    Failed(String),
}

/// What the controllers of a run saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ControllerReport {
    pub(crate) counts: Counts,
    /// With answers.
    pub(crate) frames: u64,
    pub(crate) in_flight_max: u64,
    pub(crate) seconds: f64,
    pub(crate) offered: u64,
    pub(crate) answered: u64,
    pub(crate) latency: Latency,
    /// Of expired activations: how long after their deadline the answer came.
    pub(crate) lateness: Latency,
    pub(crate) stages: Stages,
    /// The latency's quantiles, more of them.
    pub(crate) curve: Vec<Quantile>,
    /// Through the window; empty where it has no end.
    pub(crate) series: Vec<Sample>,
}

/// What the containers of a run saw.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct InvokerReport {
    pub(crate) started: u64,
    /// They came in.
    pub(crate) frames: u64,
    /// Started a second time.
    pub(crate) duplicates: u64,
    /// Started before one of the same action and controller that was pushed earlier.
    pub(crate) out_of_order: u64,
}

/// Where a part sends its events. From any thread.
pub(crate) type Report = std::sync::Arc<dyn Fn(Event) + Send + Sync>;

/// Reports as lines on standard output.
pub(crate) fn report_lines() -> Report {
    std::sync::Arc::new(|event| {
        println!("{}", serde_json::to_string(&event).expect("events are plain data"));
    })
}

/// Runs a future on a runtime of this thread alone: a part is one thread, so that parts share the cores as processes do.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}

/// What an activation's payload says to its container, in its first bytes: for how long to run, and its place in the order
/// of its controller and action.
pub(crate) struct Orders {
    pub(crate) service_time_us: u64,
    pub(crate) sequence: u64,
}

impl Orders {
    /// Bytes they take.
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn payload(&self, plan: &Plan) -> bytes::Bytes {
        let mut payload = vec![0; plan.payload_bytes.max(Self::BYTES)];
        payload[0..8].copy_from_slice(&self.service_time_us.to_be_bytes());
        payload[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        payload.into()
    }

    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let part = |at: usize| payload.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        Some(Self { service_time_us: part(0)?, sequence: part(8)? })
    }
}
