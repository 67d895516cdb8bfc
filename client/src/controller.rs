//! A controller: every activation it takes is answered exactly once, whatever becomes of the router. It may not send an
//! activation twice, nor depend on anybody else for a timeout.
//!
//! ```text
//!   invoke ─▶ outstanding ─▶ outlet ═▶ router          answers ─▶ outstanding ─▶ the caller
//!                │ timer, with the caller                              stream ends ─▶ all outstanding: Unreachable
//! ```

use crate::action::ActionKey;
use crate::connect::{ConnectError, connect_lazy};
use crate::declared::Declared;
use crate::id::ActivationId;
use crate::inlet::OpenError;
use crate::outcome::{Answer, Outcome, Reason, Rejection};
use crate::outlet::AppendError;
use crate::outstanding::Outstanding;
use crate::push::{PushReceiver, PushSender, PushStream};
use bytes::Bytes;
use engine::backoff::Backoff;
use parking_lot::Mutex;
use proto::v1;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

/// Invokes actions through a router. Clones share one stream, which is opened again whenever it ends; it is given up with the
/// last clone.
#[derive(Debug, Clone)]
pub struct Controller {
    line: Arc<Line>,
}

impl Controller {
    /// Most activations that wait for their answer at a time; at it, [`Reason::OutstandingFull`].
    pub const OUTSTANDING_MAX: usize = 262_144;
    /// Most actions in use at a time before numbers change hands, which costs little.
    pub const DECLARED_MAX: usize = 10_000;
    /// How long after its timeout an activation may still be answered: time for the router's word that it never started.
    pub const ANSWER_GRACE: Duration = Duration::from_millis(100);

    /// Connects to the router at `endpoint` (`host:port`) as `controller_id` (1 to 128 bytes, unique among live controllers).
    /// Fails if there is no router now; later it connects again by itself, after 50 ms to 5 s, with full jitter.
    ///
    /// # Cancel safety
    /// Dropping it half-way leaves nothing behind.
    pub async fn connect(endpoint: &str, controller_id: &str) -> Result<Self, StartError> {
        Ok(Self::over(connect_lazy(endpoint)?, controller_id).await?)
    }

    /// As [`connect`](Self::connect), over a channel of one's own.
    pub async fn over(channel: Channel, controller_id: &str) -> Result<Self, OpenError> {
        let (sender, receiver) = PushStream::open(channel.clone(), controller_id).await?;
        let shared = Arc::new(Shared::new());
        // Before the task runs, so that what is invoked next goes out.
        shared.on_opened(sender);
        let task = tokio::spawn(shared.clone().run(channel, controller_id.to_owned(), receiver));
        Ok(Self { line: Arc::new(Line { shared, task: task.abort_handle() }) })
    }

    /// Runs the action at most once and says how it ended, within `timeout` and [`ANSWER_GRACE`](Self::ANSWER_GRACE). The
    /// router dispatches nothing at or after `timeout`: 1 ms to a day, else rejected. `payload` is opaque, at most as long as
    /// the router takes (1 MiB by default), else rejected.
    ///
    /// Without a stream to the router it answers `Unreachable` at once.
    ///
    /// # Cancel safety
    /// Nothing is sent before the first poll. Dropped after that, the answer is given up; the activation may still run.
    pub async fn invoke(&self, key: &ActionKey, payload: Bytes, timeout: Duration) -> Answer {
        self.ask(key, payload, timeout, v1::Reply::Outcome).await
    }

    /// As [`invoke`](Self::invoke), but says only whether the activation was taken: `Accepted`, or why not.
    ///
    /// # Cancel safety
    /// As for [`invoke`](Self::invoke).
    pub async fn fire(&self, key: &ActionKey, payload: Bytes, timeout: Duration) -> Answer {
        self.ask(key, payload, timeout, v1::Reply::Accepted).await
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
        self.line.shared.state.lock().outstanding.len()
    }

    /// How many answers came that nobody waited for any more. They were dropped.
    pub fn late_answers(&self) -> u64 {
        self.line.shared.late_answers.load(Ordering::Relaxed)
    }

    async fn ask(&self, key: &ActionKey, payload: Bytes, timeout: Duration, reply: v1::Reply) -> Answer {
        // Its point in time is fixed before anything leaves, and nothing is awaited until it is armed.
        let timer = sleep(timeout.saturating_add(Self::ANSWER_GRACE));
        let shared = &*self.line.shared;
        let (id, submitted) = shared.state.lock().submit(key, payload, timeout, reply);
        let answer = match submitted {
            Ok(answer) => answer,
            Err(outcome) => return Answer::own(id, outcome),
        };
        let _seat = Seat { shared, id };
        let outcome = tokio::select! {
            biased;
            answered = answer => match answered {
                Ok(answer) => return answer,
                Err(_) => Outcome::Unreachable { maybe_sent: true },
            },
            () = timer => Outcome::TimedOut,
        };
        Answer::own(id, outcome)
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

/// What all clones of a controller hold: with it goes the stream.
#[derive(Debug)]
struct Line {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A caller's place among the outstanding; given up when the caller goes.
struct Seat<'a> {
    shared: &'a Shared,
    id: ActivationId,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        drop(self.shared.state.lock().outstanding.take(&self.id.bytes()));
    }
}

#[derive(Debug)]
struct Shared {
    /// Callers for a submission, the stream's task for a frame of answers. Locked before an outlet, never across an await.
    state: Mutex<State>,
    connected: watch::Sender<bool>,
    late_answers: AtomicU64,
}

impl Shared {
    fn new() -> Self {
        let state = State { link: None, outstanding: Outstanding::new(Controller::OUTSTANDING_MAX) };
        Self { state: Mutex::new(state), connected: watch::Sender::new(false), late_answers: AtomicU64::new(0) }
    }

    /// Reads the stream, and opens another whenever it ends.
    async fn run(self: Arc<Self>, channel: Channel, controller_id: String, mut receiver: PushReceiver) {
        let mut backoff = Backoff::default();
        loop {
            let since = Instant::now();
            self.read(&mut receiver).await;
            drop(receiver);
            self.on_ended();
            if since.elapsed() > STABLE_AFTER {
                backoff.reset();
            }
            let (sender, opened) = reopen(&channel, &controller_id, &mut backoff).await;
            receiver = opened;
            self.on_opened(sender);
        }
    }

    async fn read(&self, receiver: &mut PushReceiver) {
        loop {
            match receiver.next().await {
                Ok(Some(frame)) => self.handle_frame(frame),
                Ok(None) => return tracing::info!("the router ended the stream"),
                Err(error) => return tracing::warn!(error = &error as &dyn std::error::Error, "the stream ended"),
            }
        }
    }

    fn on_opened(&self, sender: PushSender) {
        let declared = Declared::new(Controller::DECLARED_MAX);
        self.state.lock().link = Some(Link { sender, declared, draining: false });
        self.connected.send_replace(true);
    }

    /// No answer will come any more: each caller is told now, and whether its activation can have left.
    fn on_ended(&self) {
        self.connected.send_replace(false);
        let (link, waiting) = {
            let mut state = self.state.lock();
            (state.link.take(), state.outstanding.take_all())
        };
        let unsent: HashSet<Bytes> = link.iter().flat_map(|link| link.sender.reclaim()).map(|sent| sent.id).collect();
        for (id, caller) in waiting {
            let maybe_sent = !unsent.contains(&id.bytes()[..]);
            // A caller that has gone needs no answer.
            let _ = caller.send(Answer::own(id, Outcome::Unreachable { maybe_sent }));
        }
    }

    fn handle_frame(&self, frame: v1::PushResponse) {
        let answered: Vec<_> = {
            let mut state = self.state.lock();
            frame.refusals.into_iter().for_each(|refusal| state.on_refused(refusal));
            if let Some(link) = &mut state.link {
                link.draining |= frame.draining;
            }
            frame.answers.into_iter().map(|answer| (state.outstanding.take(&answer.id), answer)).collect()
        };
        for (waiting, answer) in answered {
            // A caller that went in this moment makes its answer as late as one that went before.
            let heard = waiting.is_some_and(|(id, caller)| caller.send(Answer::read(id, answer)).is_ok());
            self.late_answers.fetch_add(u64::from(!heard), Ordering::Relaxed);
        }
    }
}

/// Tries until there is a stream, however long that takes.
async fn reopen(channel: &Channel, controller_id: &str, backoff: &mut Backoff) -> (PushSender, PushReceiver) {
    loop {
        sleep(backoff.next(rand::random())).await;
        match PushStream::open(channel.clone(), controller_id).await {
            Ok(opened) => return opened,
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no stream yet"),
        }
    }
}

#[derive(Debug)]
struct State {
    /// None while there is no stream.
    link: Option<Link>,
    /// On the stream there is: when it ends, all of them end.
    outstanding: Outstanding,
}

impl State {
    /// Sends an activation, or says what became of it already.
    fn submit(
        &mut self,
        key: &ActionKey,
        payload: Bytes,
        timeout: Duration,
        reply: v1::Reply,
    ) -> (ActivationId, Result<oneshot::Receiver<Answer>, Outcome>) {
        let id = self.outstanding.id();
        if timeout.is_zero() {
            return (id, Err(Outcome::Rejected(Rejection::known(v1::Reason::TimeLeftZero, "time_left_ms", 1))));
        }
        // Rounded down, but not to nothing; the router refuses what is too long.
        let time_left_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let reply = reply.into();
        let activation =
            v1::Activation { id: id.to_wire(), action: 0, time_left_ms, payload, reply, ..Default::default() };
        (id, self.send(id, key, activation))
    }

    fn send(
        &mut self,
        id: ActivationId,
        key: &ActionKey,
        activation: v1::Activation,
    ) -> Result<oneshot::Receiver<Answer>, Outcome> {
        let link = self.link.as_mut().ok_or(Outcome::Unreachable { maybe_sent: false })?;
        if link.draining {
            return Err(Outcome::Rejected(Rejection::known(v1::Reason::Draining, "", 0)));
        }
        let max = Controller::OUTSTANDING_MAX as u64;
        let full = || Outcome::Rejected(Rejection::full(Reason::OutstandingFull, "outstanding", max));
        let answer = self.outstanding.add(id).ok_or_else(full)?;
        if let Err(outcome) = link.send(key, activation) {
            self.outstanding.take(&id.bytes());
            return Err(outcome);
        }
        Ok(answer)
    }

    /// A declaration was refused, so its number stands for nothing: the next activation of that action declares it anew.
    fn on_refused(&mut self, refusal: v1::Refusal) {
        tracing::warn!(reason = ?refusal.reason(), number = refusal.number, "the router refused an entry");
        if let Some(link) = &mut self.link {
            link.declared.forget(refusal.number);
        }
    }
}

/// One stream.
#[derive(Debug)]
struct Link {
    sender: PushSender,
    declared: Declared,
    /// The router takes nothing new on it.
    draining: bool,
}

impl Link {
    fn send(&mut self, key: &ActionKey, activation: v1::Activation) -> Result<(), Outcome> {
        let action = self.number(key)?;
        self.sender.push(v1::Activation { action, ..activation }).map_err(not_sent)
    }

    /// The action's number, declared on the way where it has none. A number that stood for another action until now overtakes
    /// none of that one's activations: the stream sees to that.
    fn number(&mut self, key: &ActionKey) -> Result<u32, Outcome> {
        if let Some(number) = self.declared.number_of(key) {
            return Ok(number);
        }
        let number = self.declared.assign(key.clone());
        self.sender.declare(number, key.clone()).map_err(|refused| {
            self.declared.forget(number);
            not_sent(refused)
        })?;
        Ok(number)
    }
}

fn not_sent<T>(refused: AppendError<T>) -> Outcome {
    match refused {
        AppendError::Full(_) => Outcome::Rejected(Rejection::full(Reason::OutletFull, "", 0)),
        AppendError::TooLarge { payload_bytes_max, .. } => {
            let limit = payload_bytes_max.into();
            Outcome::Rejected(Rejection::known(v1::Reason::PayloadTooLarge, "payload", limit))
        }
        AppendError::Closed(_) => Outcome::Unreachable { maybe_sent: false },
    }
}

/// A stream that lasted this long was a success, and the next failure is the first.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(5);
