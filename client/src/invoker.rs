//! An invoker node: registers containers, runs what the router sends them, says how it ended. It may not run more at once
//! than a container's concurrency, nor say anything about an activation in another session than the one it came in.
//!
//! ```text
//!   dispatch ─▶ a task per activation ─▶ handler ─▶ completion, with a credit for the next
//!   stream breaks ─▶ backoff ─▶ another ─┬─ resumes the session: containers rejoin, what still runs is told when it ends
//!                                        └─ a new session: containers registered anew, what still runs is heard of no more
//! ```

use crate::connect::connect_lazy;
use crate::container::{Activation, ContainerSpec, Failure, Gone};
use crate::controller::{STABLE_AFTER, StartError, end_of, reconnects};
use crate::desk::End;
use crate::fleet::{Fleet, Run};
use crate::inlet::OpenError;
use crate::pull::{PullReceiver, PullSender, PullStream};
use bytes::Bytes;
use engine::backoff::Backoff;
use futures_util::FutureExt;
use parking_lot::Mutex;
use proto::v1;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tonic::transport::Channel;

/// How an invoker keeps in step with its router.
#[derive(Debug, Clone)]
pub struct InvokerConfig {
    /// How often each container's credits are compared with what the router believes; more than zero. Default: 10 s.
    pub audit_every: Duration,
}

impl Default for InvokerConfig {
    fn default() -> Self {
        Self { audit_every: Duration::from_secs(10) }
    }
}

/// A node's stream to a router, opened again whenever it ends. Dropping it ends the stream at once: what is in flight on it is
/// lost to its callers, though handlers that run are not stopped. [`drain`](Self::drain) loses nothing.
#[derive(Debug)]
pub struct Invoker {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Invoker {
    /// Most activations a container runs at once.
    pub const CONCURRENCY_MAX: u32 = 4096;
    /// Most containers; the router may take fewer.
    pub const CONTAINERS_MAX: usize = 100_000;

    /// Connects to the router at `endpoint` (`host:port`) as `invoker_id` (1 to 128 bytes): the node's own name, the same at each
    /// start, by which the router remembers its failures. Fails if there is no router now; later it connects again by itself, the
    /// first time within 10 ms, then ever more rarely down to once in 5 s, with full jitter.
    ///
    /// # Cancel safety
    /// Dropping it half-way leaves nothing behind.
    pub async fn connect(endpoint: &str, invoker_id: &str) -> Result<Self, StartError> {
        Ok(Self::over(connect_lazy(endpoint)?, invoker_id).await?)
    }

    /// As [`connect`](Self::connect), over a channel of one's own.
    pub async fn over(channel: Channel, invoker_id: &str) -> Result<Self, OpenError> {
        Self::over_with(channel, invoker_id, InvokerConfig::default()).await
    }

    /// As [`connect`](Self::connect), over a channel of one's own ([`connect_lazy`] makes one) and with other than the usual times.
    pub async fn over_with(channel: Channel, invoker_id: &str, config: InvokerConfig) -> Result<Self, OpenError> {
        let (sender, receiver) = PullStream::open(channel.clone(), invoker_id).await?;
        let (left, stopped) = (watch::Sender::new(0), watch::Sender::new(false));
        let shared = Arc::new(Shared { fleet: Mutex::default(), left, stopped, config });
        // Before the task runs, so that what is registered next goes out at once.
        shared.on_opened(sender, receiver.welcome());
        let task = tokio::spawn(shared.clone().run(channel, invoker_id.to_owned(), receiver)).abort_handle();
        Ok(Self { shared, task })
    }

    /// Adds a container, whose activations `handler` runs: up to `spec.concurrency` at once, each in a task of its own on the
    /// current runtime's threads. A handler that panics fails its activation as the platform's fault.
    ///
    /// The router hears of it now, or once there is a stream again.
    pub fn register<F, R>(&self, spec: ContainerSpec, handler: F) -> Result<Container, RegisterError>
    where
        F: Fn(Activation) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Bytes, Failure>> + Send + 'static,
    {
        if !(1..=Self::CONCURRENCY_MAX).contains(&spec.concurrency) {
            return Err(RegisterError::ConcurrencyOutOfRange);
        }
        let (number, gone) = self.shared.fleet.lock().add(spec, Arc::new(move |run| handler(run).boxed()))?;
        self.shared.recount();
        Ok(Container { number, gone, shared: Arc::downgrade(&self.shared) })
    }

    /// Leaves with all containers: takes nothing more, waits until what is in hand is done and the router has heard of it, then
    /// ends the stream. Takes as long as the handlers do, and up to 10 s more with a router that keeps silent. No container
    /// can be registered afterwards.
    ///
    /// # Cancel safety
    /// Dropped half-way it goes on draining; calling it again waits for the rest.
    pub async fn drain(&self) {
        self.shared.fleet.lock().leave_all();
        self.shared.recount();
        let mut left = self.shared.left.subscribe();
        // Fails only without a sender, and that is held here.
        while timeout(LEAVE_HEARD_WITHIN, left.wait_for(|left| *left == 0)).await.is_err() {
            self.shared.give_up_on_the_router();
        }
        self.finish().await;
    }

    /// Ends the stream behind what was said on it, and waits until the router has read that far: it then ends its own side.
    async fn finish(&self) {
        let mut stopped = self.shared.stopped.subscribe();
        let finished = self.shared.fleet.lock().link.as_ref().map(PullSender::finish);
        if finished.is_some() {
            // A router that keeps silent has read it or never will.
            let _ = timeout(LEAVE_HEARD_WITHIN, stopped.wait_for(|stopped| *stopped)).await;
        }
        self.task.abort();
    }
}

impl Drop for Invoker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A registered container. Dropping this changes nothing.
#[derive(Debug)]
pub struct Container {
    number: u32,
    gone: watch::Receiver<Option<Gone>>,
    shared: Weak<Shared>,
}

impl Container {
    /// Takes nothing more; what is in hand is finished. [`gone`](Self::gone) says when.
    pub fn leave(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        if self.gone.borrow().is_none() {
            shared.fleet.lock().leave(self.number);
            shared.recount();
        }
    }

    /// Waits for its end, and says what it was.
    ///
    /// # Cancel safety
    /// May be dropped half-way.
    pub async fn gone(&self) -> Gone {
        let mut gone = self.gone.clone();
        let ended = gone.wait_for(Option::is_some).await;
        ended.ok().and_then(|gone| gone.clone()).unwrap_or(Gone::Left)
    }
}

/// Why a container was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Its concurrency is 0 or too high.
    #[error("a container runs 1 to {} activations at once", Invoker::CONCURRENCY_MAX)]
    ConcurrencyOutOfRange,
    /// There are as many as there may be.
    #[error("an invoker has at most {} containers", Invoker::CONTAINERS_MAX)]
    TooManyContainers,
    /// Too much is waiting to be sent: the router, or the way to it, is slow. Try again later.
    #[error("too much is waiting to be sent")]
    OutletFull,
    /// The invoker drains.
    #[error("the invoker drains")]
    Draining,
}

#[derive(Debug)]
struct Shared {
    /// The stream's task for a frame of work, each run for its end. Locked before an outlet, never across an await.
    fleet: Mutex<Fleet>,
    /// How many containers there are.
    left: watch::Sender<usize>,
    /// The stream has ended and there will be no other.
    stopped: watch::Sender<bool>,
    config: InvokerConfig,
}

impl Shared {
    /// Reads the stream, and opens another whenever it ends, until the invoker has drained.
    async fn run(self: Arc<Self>, channel: Channel, invoker_id: String, mut receiver: PullReceiver) {
        let mut backoff = reconnects();
        loop {
            let since = Instant::now();
            let end = self.read(&mut receiver).await;
            drop(receiver);
            let over = {
                let mut fleet = self.fleet.lock();
                fleet.on_ended(end);
                // While the session may be resumed there may be something left to tell.
                fleet.draining && (!fleet.is_parked() || fleet.places.is_empty())
            };
            self.recount();
            if over {
                self.stopped.send_replace(true);
                return;
            }
            if since.elapsed() > STABLE_AFTER {
                backoff.reset();
            }
            let (sender, opened) = self.reopen(&channel, &invoker_id, &mut backoff).await;
            receiver = opened;
            self.on_opened(sender, receiver.welcome());
            self.recount();
        }
    }

    async fn read(self: &Arc<Self>, receiver: &mut PullReceiver) -> End {
        let mut audit = interval_at(Instant::now() + self.config.audit_every, self.config.audit_every);
        audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                frame = receiver.next() => match frame {
                    Ok(Some(frame)) => self.handle_frame(frame),
                    ended => return end_of(ended.map(|_| ())),
                },
                _ = audit.tick() => self.fleet.lock().audit(),
            }
        }
    }

    /// Tries until there is a stream, however long that takes.
    async fn reopen(&self, channel: &Channel, invoker_id: &str, backoff: &mut Backoff) -> (PullSender, PullReceiver) {
        loop {
            sleep(backoff.next(rand::random())).await;
            let session = self.fleet.lock().token();
            match PullStream::resume(channel.clone(), invoker_id, session).await {
                Ok(opened) => return opened,
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no stream yet"),
            }
        }
    }

    /// Registers the containers on a new stream.
    fn on_opened(&self, sender: PullSender, welcome: &v1::Welcome) {
        self.fleet.lock().on_opened(sender, welcome);
    }

    /// It has not answered who leaves, nor come back if it was gone: nothing more is expected of it.
    fn give_up_on_the_router(&self) {
        let mut fleet = self.fleet.lock();
        if fleet.is_parked() {
            fleet.end_session();
        } else {
            fleet.assume_heard();
        }
        drop(fleet);
        self.recount();
    }

    fn handle_frame(self: &Arc<Self>, frame: v1::PullResponse) {
        let runs: Vec<_> = {
            let mut fleet = self.fleet.lock();
            let runs = frame.dispatches.into_iter().filter_map(|dispatch| fleet.start(dispatch)).collect();
            frame.refusals.into_iter().for_each(|refusal| fleet.on_refused(refusal));
            frame.drains.iter().for_each(|drain| fleet.on_drained(drain));
            runs
        };
        runs.into_iter().for_each(|run| drop(tokio::spawn(self.clone().perform(run))));
        self.recount();
    }

    /// Runs one activation to its end and reports it.
    async fn perform(self: Arc<Self>, run: Run) {
        let Run { handler, activation, .. } = &run;
        let (handler, activation) = (handler.clone(), activation.clone());
        let since = Instant::now();
        // The handler is behind an `Arc` and its future ends here: neither is seen again half-changed.
        let ended = AssertUnwindSafe(async move { handler(activation).await }).catch_unwind().await;
        let ended = ended.unwrap_or_else(|_| Err(Failure::Platform(Bytes::from_static(b"the handler panicked"))));
        let run_us = u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX);
        if ended == Err(Failure::Unstarted) {
            self.give_back(&run).await;
        } else {
            self.complete(&run, ended, run_us).await;
        }
        self.recount();
    }

    /// Holds the run's place until its completion is taken, so that no more waits to be sent than is granted.
    async fn complete(&self, run: &Run, ended: Result<Bytes, Failure>, run_us: u32) {
        let mut completion = run.completion(ended, run_us);
        loop {
            let ended = self.fleet.lock().end(run, completion);
            let Err(no_room) = ended else { return };
            completion = no_room;
            sleep(ROOM_AGAIN_AFTER).await;
        }
    }

    async fn give_back(&self, run: &Run) {
        loop {
            let given = self.fleet.lock().give_back(run);
            if given.is_ok() {
                break;
            }
            sleep(ROOM_AGAIN_AFTER).await;
        }
        // With a credit in this moment it would be the next to get it back.
        sleep(UNSTARTED_PAUSE).await;
        self.fleet.lock().free(run);
    }

    /// Says how many containers are left, after anything that may have ended one.
    fn recount(&self) {
        // Counted inside, so that of two threads the later to count is the later to say so.
        self.left.send_if_modified(|left| {
            let now = self.fleet.lock().places.len();
            std::mem::replace(left, now) != now
        });
    }
}

/// A router that has not answered a leave after this long will not.
const LEAVE_HEARD_WITHIN: Duration = Duration::from_secs(5);
/// How long a place stays empty whose activation was returned unstarted.
const UNSTARTED_PAUSE: Duration = Duration::from_millis(100);
/// When to look again whether there is room to send.
const ROOM_AGAIN_AFTER: Duration = Duration::from_millis(5);
