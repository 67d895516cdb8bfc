//! What an invoker's containers are and where each one stands. Decisions only: it may not send, run or wait.
//!
//! ```text
//!   Open ── leave ──▶ Leaving ── the router's Drain ──▶ Finishing ── nothing runs, nothing is owed ──▶ gone
//!    └────────────────── the router's Drain ───────────────▲
//! ```
//! When the stream breaks and can be resumed, each stays what it is. When the session is over, an open container waits for the next
//! one; the others are finishing, since nothing more can come.

use crate::action::ActionKey;
use crate::id::ActivationId;
use crate::outcome::Rejection;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use proto::v1;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
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
    /// Of its registration in the session there is, never 0; none while the router has not been told of it.
    pub(crate) epoch: Option<NonZeroU32>,
    /// What takes room here, by the number of the run; those of earlier sessions included.
    pub(crate) runs: BTreeMap<u64, Occupant>,
    /// Ends of runs that are to be told on the session's next stream. Each takes room if its run does not.
    pub(crate) owed: BTreeMap<u64, Owed>,
    /// Granted to the router and not used, as far as this end can know.
    pub(crate) credits: u32,
    /// Dispatches since it was registered, or registered again on a resumed stream; wraps.
    pub(crate) received: u32,
    pub(crate) standing: Standing,
    /// What to say when it is gone.
    pub(crate) ending: Gone,
    pub(crate) gone: watch::Sender<Option<Gone>>,
}

/// What takes room for one activation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Occupant {
    pub(crate) id: ActivationId,
    /// In which it came.
    pub(crate) session: u64,
    /// It was handed back, and its room is kept empty for a moment.
    pub(crate) returned: bool,
}

/// The end of a run that has provably not been told.
#[derive(Debug)]
pub(crate) enum Owed {
    Completion(v1::Completion),
    Return(v1::Return),
}

impl Owed {
    pub(crate) fn id(&self) -> &Bytes {
        match self {
            Self::Completion(completion) => &completion.id,
            Self::Return(unstarted) => &unstarted.id,
        }
    }
}

/// Whether activations may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// They do.
    Open,
    /// Those dispatched before the router learnt of it: all are here once it answers with a `Drain`.
    Leaving,
    /// No more.
    Finishing,
}

impl Place {
    pub(crate) fn new(spec: ContainerSpec, handler: Arc<Handler>, serial: u64) -> Self {
        let (gone, _) = watch::channel(None);
        let (standing, ending) = (Standing::Open, Gone::Left);
        let (runs, owed) = (BTreeMap::new(), BTreeMap::new());
        Self { spec, handler, serial, epoch: None, runs, owed, credits: 0, received: 0, standing, ending, gone }
    }

    /// As it is registered, for the first time or again. What has not ended, or not told so, takes its share of the credits.
    pub(crate) fn register(&mut self, container: u32, epoch: NonZeroU32, session: u64) -> v1::Register {
        let taken = self.runs.len() + self.owed.keys().filter(|run| !self.runs.contains_key(run)).count();
        let taken = u32::try_from(taken).unwrap_or(u32::MAX);
        let open = self.standing == Standing::Open;
        self.credits = if open { self.spec.concurrency.saturating_sub(taken) } else { 0 };
        (self.received, self.epoch) = (0, Some(epoch));
        let running = self.runs.values().filter(|occupant| occupant.session == session && !occupant.returned);
        let held =
            running.map(|occupant| occupant.id.to_wire()).chain(self.owed.values().map(|owed| owed.id().clone()));
        let held = held.collect();
        let ContainerSpec { key, concurrency, warm } = self.spec.clone();
        let (credits, epoch) = (self.credits, epoch.get());
        v1::Register { container, key: Some(key.into()), concurrency, credits, warm, epoch, held }
    }

    /// On the wire.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.map_or(0, NonZeroU32::get)
    }

    /// Whether an entry that names that epoch speaks of this registration. A router that does not know of epochs names none.
    pub(crate) fn is_of(&self, epoch: u32) -> bool {
        epoch == 0 || epoch == self.epoch()
    }

    /// The credits that the end of a run makes room for.
    pub(crate) fn credits_for_one(&self) -> u32 {
        u32::from(self.standing == Standing::Open)
    }

    /// Nothing runs, nothing is owed and nothing will be.
    pub(crate) fn is_done(&self) -> bool {
        self.standing == Standing::Finishing && self.runs.is_empty() && self.owed.is_empty()
    }
}
