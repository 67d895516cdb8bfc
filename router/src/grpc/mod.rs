//! The gRPC face: the only place that knows wire types.
//!
//! ```text
//!   Push  ─ frames ─▶ push::Reader ─ inputs ─▶ hub ─ effects ─▶ driver ─▶ outbox of a Pull stream ─▶ frames::Frames
//!   Pull  ─ frames ─▶ pull::Reader ─ inputs ─▶ hub ─ effects ─▶ driver ─▶ outbox of a Push stream ─▶ frames::Frames
//! ```
//!
//! A reader never waits for anything but its own stream: it hands what it read to the hub and reads on.

mod batch;
mod convert;
mod door;
mod frames;
mod invoke;
mod pull;
mod push;
mod wire;

pub use door::Door;

use crate::clock::Clock;
use crate::config::Limits;
use crate::controllers::Controllers;
use crate::driver::{Driver, Streams};
use crate::insight::{Insight, REPORTS_MAX, Sampler};
use crate::nodes::Nodes;
use crate::outbox::Entry;
use crate::overflow::Handoff;
use bytes::Bytes;
use convert::status;
use engine::hub::{Hub, Pass};
use engine::limits::check_name;
use engine::outcome::{Reason, Rejection};
use engine::sessions::{Bounds, Token};
use engine::time::Timestamp;
use parking_lot::RwLock;
use proto::v1;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tonic::Status;
use wire::{Inbound, Incoming};

/// What the service needs, shared by all of its streams.
#[derive(Debug)]
pub struct Service {
    pub(crate) hub: Hub,
    pub(crate) streams: Arc<Streams>,
    pub(crate) clock: Clock,
    /// What overflows goes through it.
    pub(crate) handoff: Arc<Handoff>,
    limits: Limits,
    router_id: String,
    /// Nothing new is taken any more.
    draining: AtomicBool,
    /// Streams are being ended: no session begins any more.
    ending: AtomicBool,
    /// The drain's time is over: streams end whatever they are owed.
    cut: AtomicBool,
    /// Held while an Invoke hands its activation in; the drain waits for those that are at it.
    invokes: RwLock<()>,
    pub(crate) controllers: Controllers,
    pub(crate) nodes: Nodes,
    /// What was seen of the containers last, and who wants to see more.
    pub(crate) sampler: Sampler,
    /// For ids of activations that came without one: a prefix drawn at random and a count.
    id_prefix: u64,
    next_id: AtomicU64,
}

/// The service as tonic serves it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Routes(pub Arc<Service>);

/// How long sessions wait for their peers, and how many there may be.
#[derive(Debug, Clone, Copy)]
pub struct SessionBounds {
    /// For a controller; zero: it cannot come back.
    pub controller_grace: Duration,
    /// For an invoker node; zero: it cannot come back.
    pub invoker_grace: Duration,
    /// Most sessions of each kind.
    pub sessions_max: usize,
}

/// Most bytes of a controller's or invoker's name.
const PEER_ID_BYTES_MAX: usize = 128;
/// How long a stream may take to say who is there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

impl Service {
    /// A service on that hub. `random` is drawn for this life of the router.
    pub fn new(
        hub: Hub,
        clock: Clock,
        limits: Limits,
        sessions: SessionBounds,
        router_id: String,
        random: &RandomState,
    ) -> Self {
        let streams: Arc<Streams> = Arc::default();
        let outbox_bytes_max = outbox_bytes_max(&limits);
        let SessionBounds { controller_grace, invoker_grace, sessions_max } = sessions;
        let bounds = |grace, names_are_unique| Bounds { grace, sessions_max, names_are_unique };
        let (life, containers_max) = (random.hash_one("life"), limits.containers_per_stream_max);
        let controllers = Controllers::new(life, bounds(controller_grace, true), streams.clone(), outbox_bytes_max);
        let nodes = Nodes::new(life, bounds(invoker_grace, false), streams.clone(), outbox_bytes_max, containers_max);
        Self {
            hub,
            streams,
            clock,
            handoff: Arc::default(),
            limits,
            router_id,
            draining: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            invokes: RwLock::new(()),
            controllers,
            nodes,
            sampler: Sampler::default(),
            id_prefix: random.hash_one("ids"),
            next_id: AtomicU64::new(0),
        }
    }

    /// Takes nothing new from now on, and tells controllers so. On return all that was taken is in the engine.
    pub(crate) fn drain(&self) {
        // Relaxed: the locks order it for those who took them after this; those before are waited for.
        self.draining.store(true, Ordering::Relaxed);
        self.controllers.pass_by();
        drop(self.invokes.write());
        self.streams.announce(|| Entry::Draining);
    }

    /// Begins no session any more; those there are may still be resumed.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Ends all streams, whatever they are owed: the drain's time is over.
    pub(crate) fn cut_streams(&self) {
        self.end();
        self.cut.store(true, Ordering::Relaxed);
        self.streams.close_all();
    }

    /// Whether streams end because the drain's time is over.
    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Ends the sessions whose grace is over.
    pub(crate) fn end_due(&self, pass: &mut Pass<Driver>) {
        let (controllers, nodes) = (self.controllers.end_due(pass.now), self.nodes.end_due(&self.hub, pass));
        if controllers + nodes > 0 {
            tracing::info!(controllers, nodes, "sessions whose peers did not come back are over");
        }
    }

    /// Looks at every container. Takes a while.
    pub(crate) fn look(&self) -> Insight {
        let mut pass = self.pass();
        self.begin(&mut pass);
        let audit = self.hub.audit(&mut pass);
        let breakers = self.hub.breakers(REPORTS_MAX, &mut pass);
        self.hub.settle(&mut pass);
        Insight { audit, breakers }
    }

    /// When the next session's grace is over.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.controllers.next_due().into_iter().chain(self.nodes.next_due()).min()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Refuses while draining.
    fn check_open(&self) -> Result<(), Rejection> {
        if self.is_draining() {
            return Err(draining());
        }
        Ok(())
    }

    /// Refuses those who come without a session when no session begins any more.
    fn check_ending(&self, token: &[u8]) -> Result<(), Rejection> {
        if self.ending.load(Ordering::Relaxed) && !self.controllers.is_of_this_life(token) {
            return Err(draining());
        }
        Ok(())
    }

    pub(crate) fn pass(&self) -> Pass<Driver> {
        Pass::new(Driver::new(self.streams.clone(), self.handoff.clone()))
    }

    /// Sets the time of a pass to now.
    pub(crate) fn begin(&self, pass: &mut Pass<Driver>) {
        pass.now = self.clock.now();
    }

    fn welcome(&self, token: Token, resumed: bool, grace: Duration) -> v1::Welcome {
        v1::Welcome {
            session: Bytes::copy_from_slice(&token.to_bytes()),
            resumed,
            grace_ms: grace.as_millis().try_into().unwrap_or(u32::MAX),
            router_id: Bytes::from(self.router_id.clone()),
            payload_bytes_max: self.limits.payload_bytes_max,
            frame_entries_max: self.limits.frame_entries_max,
            frame_bytes_max: self.limits.frame_bytes_max,
        }
    }

    fn outbox_bytes_max(&self) -> usize {
        outbox_bytes_max(&self.limits)
    }
}

fn outbox_bytes_max(limits: &Limits) -> usize {
    usize::try_from(limits.outbox_bytes_max).unwrap_or(usize::MAX)
}

/// Why nothing is taken by a router that drains.
pub(crate) fn draining() -> Rejection {
    Rejection { retry_after_ms: DRAIN_RETRY_MS, ..Rejection::new(Reason::Draining, "", 0) }
}

/// What controllers are told to wait when the router drains: about as long as a restart takes.
const DRAIN_RETRY_MS: u32 = 1000;

/// The first frame of a stream.
async fn first<M: wire::Request>(inbound: &mut Incoming<M>) -> Result<Inbound<M>, Status> {
    let missing = || status(&Rejection::new(Reason::HelloMissing, "hello", 0));
    match tokio::time::timeout(HELLO_TIMEOUT, inbound.message()).await {
        Ok(frame) => frame?.ok_or_else(missing),
        Err(_) => Err(missing()),
    }
}

/// Checks a peer's name, called `field` in refusals.
fn check_peer(field: &'static str, id: &[u8]) -> Result<(), Status> {
    check_name(field, id, 1, PEER_ID_BYTES_MAX).map(drop).map_err(|rejection| status(&rejection))
}

/// Counts the entries of a frame against what a frame may have.
struct Allowance {
    left: usize,
    limit: u32,
}

impl Allowance {
    fn new(limit: u32) -> Self {
        Self { left: limit as usize, limit }
    }

    /// Takes a list of the frame, named `field`: how many of its entries may stand, and what the others are told.
    fn take(&mut self, field: &'static str, entries: usize) -> (usize, Rejection) {
        let standing = entries.min(self.left);
        self.left -= standing;
        (standing, Rejection::new(Reason::FrameTooLong, field, self.limit.into()))
    }
}
