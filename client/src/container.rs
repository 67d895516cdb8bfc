//! What an invoker's containers are and where each one stands. Decisions only: it may not send, run or wait.
//!
//! ```text
//!   Open ── leave ──▶ Leaving ── the router sends no more ──▶ Finishing ── nothing runs ──▶ gone
//!    └────────────────── the router drains it ───────────────────▲
//! ```
//! When the stream ends, an open container waits for the next one; the others are finishing, since nothing more can come.

use crate::action::ActionKey;
use crate::id::ActivationId;
use crate::outcome::Rejection;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A container as it is registered.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// What it runs.
    pub key: ActionKey,
    /// How many activations it runs at once: 1 to 4,096.
    pub concurrency: u32,
    /// Initialised already: preferred to containers that are not.
    pub warm: bool,
}

/// One activation for a container.
#[derive(Debug, Clone)]
pub struct Activation {
    /// Its id.
    pub id: ActivationId,
    /// What the controller sent, opaque.
    pub payload: Bytes,
    /// How long the answer is worth something, counted from when it came here.
    pub time_left: Duration,
    /// 1 for the first, one more for each time it was returned unstarted.
    pub attempt: u32,
}

/// Why an activation did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The action failed by its own doing; what it said.
    Action(Bytes),
    /// The container or the invoker failed to run it; why.
    Platform(Bytes),
    /// It was not started, and may be run by another container. This one gets no other in its place for 100 ms.
    Unstarted,
}

/// How a container came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// It left, or its invoker was dropped.
    Left,
    /// The router had no more use for it: a newer revision took over, or the router drains.
    Drained,
    /// The router did not register it, or no longer after the stream was opened again.
    Refused(Rejection),
}

/// Runs one activation.
pub(crate) type Handler = dyn Fn(Activation) -> BoxFuture<'static, Result<Bytes, Failure>> + Send + Sync;

/// A registered container.
pub(crate) struct Place {
    pub(crate) spec: ContainerSpec,
    pub(crate) handler: Arc<Handler>,
    /// Tells it from others that had its number before.
    pub(crate) serial: u64,
    /// Activations that run here now, those of earlier streams included.
    pub(crate) running: u32,
    pub(crate) standing: Standing,
    /// What to say when it is gone.
    pub(crate) ending: Gone,
    pub(crate) gone: watch::Sender<Option<Gone>>,
}

/// Whether activations may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// They do.
    Open,
    /// Those dispatched before the router learnt of it. All are here once it refuses the completion of this id, which it
    /// never sent.
    Leaving(ActivationId),
    /// No more.
    Finishing,
}

impl Place {
    /// As it is registered on a stream. What still runs from earlier streams takes its share of the credits.
    pub(crate) fn register(&self, container: u32) -> v1::Register {
        let credits = self.spec.concurrency.saturating_sub(self.running);
        let ContainerSpec { key, concurrency, warm } = self.spec.clone();
        v1::Register { container, key: Some(key.into()), concurrency, credits, warm, ..Default::default() }
    }

    /// The credits that the end of a run makes room for.
    pub(crate) fn credits_for_one(&self) -> u32 {
        u32::from(self.standing == Standing::Open)
    }

    /// Nothing runs and nothing will.
    pub(crate) fn is_done(&self) -> bool {
        self.standing == Standing::Finishing && self.running == 0
    }
}
