//! A controller: every activation it takes is answered exactly once, whatever becomes of the router. It may not decide anything: that
//! is the [desk](crate::desk)'s; this carries to and fro between it, the stream, the clock and the callers.
//!
//! ```text
//!   submit ─▶ desk ─▶ outlet ═▶ router        one task reads the stream and opens another when it ends
//!   Pending ◀─ desk ◀─ inlet ◀═ router        one task sleeps until the desk has something due
//! ```

use crate::action::ActionKey;
use crate::circuits::Circuit;
use crate::config::{self, ControllerConfig};
use crate::connect::{ConnectError, connect_lazy};
use crate::desk::{Desk, Effect, End, Entry, Unsent};
use crate::id::ActivationId;
use crate::inlet::{OpenError, StreamError};
use crate::invocation::Invocation;
use crate::outcome::Answer;
use crate::pending::{Invoke, Pending};
use crate::push::{PushReceiver, PushSender, PushStream};
use bytes::Bytes;
use engine::backoff::Backoff;
use engine::time::Timestamp;
use parking_lot::Mutex;
use proto::v1;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::transport::Channel;

/// Invokes actions through a router. Clones share one stream, which is opened again whenever it ends; it is given up with the
/// last clone and the last [`Pending`].
#[derive(Debug, Clone)]
pub struct Controller {
    line: Arc<Line>,
}

impl Controller {
    /// Most activations that wait for their answer at a time, unless [`ControllerConfig`] says otherwise.
    pub const OUTSTANDING_MAX: usize = config::OUTSTANDING_MAX;
    /// Most actions in use at a time before numbers change hands, which costs little.
    pub const DECLARED_MAX: usize = Desk::<()>::DECLARED_MAX;
    /// How long after its deadline an activation may still be answered, unless [`ControllerConfig`] says otherwise.
    pub const ANSWER_GRACE: Duration = config::ANSWER_GRACE;

    /// Connects to the router at `endpoint` (`host:port`) as `controller_id` (1 to 128 bytes, unique among live controllers).
    /// Fails if there is no router now; later it connects again by itself, the first time within 10 ms, then ever more rarely down
    /// to once in 5 s, with full jitter.
    ///
    /// # Cancel safety
    /// Dropping it half-way leaves nothing behind.
    pub async fn connect(endpoint: &str, controller_id: &str) -> Result<Self, StartError> {
        Ok(Self::over(connect_lazy(endpoint)?, controller_id).await?)
    }

    /// As [`connect`](Self::connect), over a channel of one's own.
    pub async fn over(channel: Channel, controller_id: &str) -> Result<Self, OpenError> {
        Self::over_with(channel, controller_id, ControllerConfig::default()).await
    }

    /// As [`connect`](Self::connect), over a channel of one's own ([`connect_lazy`] makes one) and with other than the usual bounds.
    pub async fn over_with(channel: Channel, controller_id: &str, config: ControllerConfig) -> Result<Self, OpenError> {
        let (sender, receiver) = PushStream::open(channel.clone(), controller_id).await?;
        let shared = Arc::new(Shared::new(config));
        // Before the tasks run, so that what is invoked next goes out.
        shared.on_opened(sender, receiver.welcome());
        let reading = tokio::spawn(shared.clone().run(channel, controller_id.to_owned(), receiver)).abort_handle();
        let keeping_time = tokio::spawn(keep_time(Closing(shared.clone()))).abort_handle();
        Ok(Self { line: Arc::new(Line { shared, tasks: [reading, keeping_time] }) })
    }

    /// Runs the action at most once and says how it ended, within `timeout` and the
    /// [`answer_grace`](ControllerConfig::answer_grace). The router dispatches nothing at or after `timeout`: 1 ms to a day, else
    /// rejected. `payload` is opaque, at most as long as the router takes (1 MiB by default), else rejected.
    ///
    /// Without a stream to the router it answers `Unreachable` at once. If the stream breaks later, the answer is waited for as long
    /// as the router keeps it for whoever comes back, and then `Unreachable` as well; nothing that may have left is sent again.
    ///
    /// # Cancel safety
    /// Nothing is sent before the first poll. Dropped after that, the answer is given up; the activation may still run.
    pub fn invoke(&self, key: &ActionKey, payload: Bytes, timeout: Duration) -> Invoke<'_> {
        self.run(Invocation::new(key, payload).deadline(timeout))
    }

    /// As [`invoke`](Self::invoke), but says only whether the activation was taken: `Accepted`, or why not.
    ///
    /// # Cancel safety
    /// As for [`invoke`](Self::invoke).
    pub fn fire(&self, key: &ActionKey, payload: Bytes, timeout: Duration) -> Invoke<'_> {
        self.run(Invocation::new(key, payload).deadline(timeout).fire())
    }

    /// As [`invoke`](Self::invoke), of an invocation with all its particulars.
    ///
    /// # Cancel safety
    /// As for [`invoke`](Self::invoke).
    pub fn run(&self, invocation: Invocation) -> Invoke<'_> {
        Invoke::new(self, invocation)
    }

    /// Sends an activation now; the answer is awaited wherever and whenever the caller likes. This is the leanest way: what waits
    /// takes less than 300 bytes, its [`Pending`] included.
    pub fn submit(&self, invocation: Invocation) -> Pending {
        let (caller, answer) = oneshot::channel();
        let id = self.line.shared.submit(invocation, caller);
        Pending::new(self.line.clone(), id, answer)
    }

    /// Waits until there is a stream to the router.
    ///
    /// # Cancel safety
    /// May be dropped half-way.
    pub async fn connected(&self) {
        // Fails only without a sender, and that is held here.
        let _ = self.line.shared.connected.subscribe().wait_for(|connected| *connected).await;
    }

    /// How many activations wait for their answer.
    pub fn outstanding(&self) -> usize {
        self.line.shared.state.lock().desk.outstanding()
    }

    /// How many answers came that nobody waited for any more. They were dropped.
    pub fn late_answers(&self) -> u64 {
        let shared = &self.line.shared;
        shared.state.lock().desk.late_answers() + shared.unheard.load(Ordering::Relaxed)
    }

    /// Whether activations of that action are kept back, since when and why; none while it had no strikes of late.
    pub fn breaker(&self, key: &ActionKey) -> Option<Circuit> {
        let shared = &self.line.shared;
        shared.state.lock().desk.breaker(shared.now(), key)
    }
}

/// Why a controller or an invoker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint is no good.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The router could not be reached, or refused the stream.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What all clones of a controller hold, and all who wait: with it goes the stream.
#[derive(Debug)]
pub(crate) struct Line {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

impl Line {
    /// The caller of that activation has gone.
    pub(crate) fn give_up(&self, id: ActivationId) {
        let mut state = self.shared.state.lock();
        let now = self.shared.now();
        let caller = state.desk.give_up(now, id);
        drop(state);
        drop(caller);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

type Caller = oneshot::Sender<Box<Answer>>;
type Answers = Vec<(Caller, Box<Answer>)>;

#[derive(Debug)]
struct Shared {
    /// Callers for a submission, the stream's task for a frame of answers, the timers' for what is due. Locked before an outlet,
    /// never across an await.
    state: Mutex<State>,
    /// Tells the timers' task that something is due sooner than it thinks.
    sooner: Notify,
    connected: watch::Sender<bool>,
    /// Answers whose callers went in the moment they were given.
    unheard: AtomicU64,
    began: Instant,
}

#[derive(Debug)]
struct State {
    desk: Desk<Caller>,
    /// None while there is no stream.
    sender: Option<PushSender>,
    /// Kept for its room.
    effects: Vec<Effect<Caller>>,
}

impl Shared {
    fn new(config: ControllerConfig) -> Self {
        let desk = Desk::new(config, rand::random(), Timestamp::ZERO);
        let state = State { desk, sender: None, effects: Vec::new() };
        let (connected, unheard) = (watch::Sender::new(false), AtomicU64::new(0));
        Self { state: Mutex::new(state), sooner: Notify::new(), connected, unheard, began: Instant::now() }
    }

    fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.began.elapsed()
    }

    /// Lets the desk decide, carries out what it decided, and answers once the desk is free again.
    fn decide<R>(&self, decision: impl FnOnce(&mut Desk<Caller>, Timestamp, &mut Vec<Effect<Caller>>) -> R) -> R {
        let mut state = self.state.lock();
        let state_ = &mut *state;
        // Read under the lock, so that the desk sees time go on.
        let now = self.now();
        let decided = decision(&mut state_.desk, now, &mut state_.effects);
        let answers = state_.carry_out(now);
        let sooner = state_.desk.must_wake_sooner();
        drop(state);
        if sooner {
            self.sooner.notify_one();
        }
        for (caller, answer) in answers {
            // A caller that went in this moment makes its answer as late as one that went before.
            self.unheard.fetch_add(u64::from(caller.send(answer).is_err()), Ordering::Relaxed);
        }
        decided
    }

    fn submit(&self, invocation: Invocation, caller: Caller) -> ActivationId {
        self.decide(|desk, now, effects| desk.submit(now, invocation, caller, effects))
    }

    fn on_opened(&self, sender: PushSender, welcome: &v1::Welcome) {
        self.state.lock().sender = Some(sender);
        self.decide(|desk, now, effects| desk.handle_opened(now, welcome, effects));
        self.connected.send_replace(true);
    }

    fn on_ended(&self, end: End) {
        self.connected.send_replace(false);
        let sender = self.state.lock().sender.take();
        let unsent = sender.iter().flat_map(PushSender::reclaim);
        self.decide(|desk, now, effects| desk.handle_ended(now, end, unsent, effects));
    }

    /// Reads the stream, and opens another whenever it ends.
    async fn run(self: Arc<Self>, channel: Channel, controller_id: String, mut receiver: PushReceiver) {
        let mut backoff = reconnects();
        loop {
            let since = Instant::now();
            let end = self.read(&mut receiver).await;
            drop(receiver);
            self.on_ended(end);
            if since.elapsed() > STABLE_AFTER {
                backoff.reset();
            }
            let (sender, opened) = self.reopen(&channel, &controller_id, &mut backoff).await;
            receiver = opened;
            self.on_opened(sender, receiver.welcome());
        }
    }

    async fn read(&self, receiver: &mut PushReceiver) -> End {
        loop {
            match receiver.next().await {
                Ok(Some(frame)) => self.decide(|desk, now, effects| desk.handle_frame(now, frame, effects)),
                ended => return end_of(ended.map(|_| ())),
            }
        }
    }

    /// Tries until there is a stream, however long that takes.
    async fn reopen(
        &self,
        channel: &Channel,
        controller_id: &str,
        backoff: &mut Backoff,
    ) -> (PushSender, PushReceiver) {
        loop {
            sleep(backoff.next(rand::random())).await;
            let session = self.state.lock().desk.session().clone();
            match PushStream::resume(channel.clone(), controller_id, session).await {
                Ok(opened) => return opened,
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no stream yet"),
            }
        }
    }
}

impl State {
    /// Sends what is to be sent; the answers are for whoever has let go of the state.
    fn carry_out(&mut self, now: Timestamp) -> Answers {
        let mut answers = Vec::new();
        // Of what is sent together, nothing is sent behind what found no room: it may depend on it.
        let mut refused = None;
        let mut effects = std::mem::take(&mut self.effects);
        let mut consequences = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Answer(caller, answer) => answers.push((caller, answer)),
                Effect::Send(entry) => {
                    if let Err((entry, why)) = self.send(entry, refused) {
                        refused = Some(why).filter(|why| !matches!(why, Unsent::TooLarge { .. }));
                        self.desk.handle_unsent(now, entry, why, &mut consequences);
                    }
                }
            }
        }
        answers.extend(consequences.into_iter().filter_map(|effect| match effect {
            Effect::Answer(caller, answer) => Some((caller, answer)),
            // What could not be sent is not made up for by sending something else.
            Effect::Send(_) => None,
        }));
        effects.shrink_to(EFFECTS_KEPT);
        self.effects = effects;
        answers
    }

    fn send(&self, entry: Entry, refused: Option<Unsent>) -> Result<(), (Entry, Unsent)> {
        match (&self.sender, refused) {
            (_, Some(why)) => Err((entry, why)),
            (None, None) => Err((entry, Unsent::Closed)),
            (Some(sender), None) => sender.send(entry),
        }
    }
}

/// Gives answers when they are due, however the stream fares.
async fn keep_time(closing: Closing) {
    let shared = &*closing.0;
    loop {
        while shared.decide(|desk, now, effects| desk.advance(now, DUE_AT_ONCE, effects)) {}
        let next = shared.state.lock().desk.next_wake();
        let due = async {
            match next {
                Some(at) => sleep_until(shared.began + Timestamp::ZERO.until(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = shared.sooner.notified() => {}
        }
    }
}

/// Answers all who still wait when the runtime ends under them: nobody would later.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.on_ended(End::Over);
    }
}

pub(crate) fn end_of(ended: Result<(), StreamError>) -> End {
    match ended {
        Ok(()) => {
            tracing::info!("the router ended the stream");
            End::Over
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the stream ended");
            if matches!(error, StreamError::Broken(_)) { End::Broken } else { End::Over }
        }
    }
}

/// Soon at first, since a router keeps what is owed for a while only.
pub(crate) fn reconnects() -> Backoff {
    Backoff::new(Duration::from_millis(10), Duration::from_secs(5))
}

/// A stream that lasted this long was a success, and the next failure is the first: a line that flaps makes no more than one quick
/// attempt a second.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(1);
/// Timers that are handled before others get their turn.
const DUE_AT_ONCE: usize = 1024;
/// Room for this many is kept after a burst.
const EFFECTS_KEPT: usize = 1024;
