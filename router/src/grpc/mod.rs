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
mod frames;
mod invoke;
mod pull;
mod push;

use crate::clock::Clock;
use crate::config::Limits;
use crate::driver::{Driver, Streams};
use crate::outbox::Entry;
use bytes::Bytes;
use convert::status;
use dashmap::DashMap;
use engine::hub::{Hub, Pass};
use engine::id::StreamId;
use engine::limits::check_name;
use engine::outcome::{Reason, Rejection};
use proto::v1;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// What the service needs, shared by all of its streams.
#[derive(Debug)]
pub struct Service {
    pub(crate) hub: Hub,
    pub(crate) streams: Arc<Streams>,
    pub(crate) clock: Clock,
    limits: Limits,
    router_id: String,
    /// Nothing new is taken any more.
    draining: AtomicBool,
    /// Live controllers by their ids.
    controllers: DashMap<Bytes, StreamId>,
    /// For ids of activations that came without one: a prefix drawn at random and a count.
    id_prefix: u64,
    next_id: AtomicU64,
}

/// The service as tonic serves it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Routes(pub Arc<Service>);

/// Most bytes of a controller's or invoker's name.
const PEER_ID_BYTES_MAX: usize = 128;
/// How long a stream may take to say who is there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

impl Service {
    /// A service on that hub. `id_prefix` is drawn at random.
    pub fn new(hub: Hub, clock: Clock, limits: Limits, router_id: String, id_prefix: u64) -> Self {
        Self {
            hub,
            streams: Arc::default(),
            clock,
            limits,
            router_id,
            draining: AtomicBool::new(false),
            controllers: DashMap::new(),
            id_prefix,
            next_id: AtomicU64::new(0),
        }
    }

    /// Takes nothing new from now on, and tells controllers so.
    pub(crate) fn drain(&self) {
        // Relaxed: a push that slips past is served like those before it.
        self.draining.store(true, Ordering::Relaxed);
        self.streams.announce(|| Entry::Draining);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Refuses while draining.
    fn check_open(&self) -> Result<(), Rejection> {
        if self.is_draining() {
            return Err(Rejection { retry_after_ms: DRAIN_RETRY_MS, ..Rejection::new(Reason::Draining, "", 0) });
        }
        Ok(())
    }

    pub(crate) fn pass(&self) -> Pass<Driver> {
        Pass::new(Driver::new(self.streams.clone()))
    }

    /// Sets the time of a pass to now.
    pub(crate) fn begin(&self, pass: &mut Pass<Driver>) {
        pass.now = self.clock.now();
    }

    fn welcome(&self) -> v1::Welcome {
        v1::Welcome {
            router_id: Bytes::from(self.router_id.clone()),
            payload_bytes_max: self.limits.payload_bytes_max,
            frame_entries_max: self.limits.frame_entries_max,
            frame_bytes_max: self.limits.frame_bytes_max,
            ..Default::default()
        }
    }

    fn outbox_bytes_max(&self) -> usize {
        usize::try_from(self.limits.outbox_bytes_max).unwrap_or(usize::MAX)
    }
}

/// What controllers are told to wait when the router drains: about as long as a restart takes.
const DRAIN_RETRY_MS: u32 = 1000;

#[tonic::async_trait]
impl v1::router_server::Router for Routes {
    type PushStream = push::Answers;
    type PullStream = pull::Work;

    async fn push(&self, request: Request<Streaming<v1::PushRequest>>) -> Result<Response<push::Answers>, Status> {
        push::open(self.0.clone(), request.into_inner()).await.map(Response::new)
    }

    async fn pull(&self, request: Request<Streaming<v1::PullRequest>>) -> Result<Response<pull::Work>, Status> {
        pull::open(self.0.clone(), request.into_inner()).await.map(Response::new)
    }

    async fn invoke(&self, request: Request<v1::InvokeRequest>) -> Result<Response<v1::InvokeResponse>, Status> {
        invoke::invoke(&self.0, request.into_inner()).await.map(Response::new)
    }
}

/// The first frame of a stream.
async fn first<T>(inbound: &mut Streaming<T>) -> Result<T, Status> {
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
