//! A controller's desk: who waits for which answer. It decides; it may not send, sleep, read a clock or draw a random number.
//!
//! Time is an argument, what is to be done comes out as [effects](Effect), and one seed decides all that is drawn: so a simulator
//! can run it, and a seed replays. The low level under [`Controller`](crate::Controller), public for that alone.
//!
//! ```text
//!              submit                                     answer, or its time is over
//!   caller ───────────▶ seat: sent ──────────────────────────────────────────────────▶ caller, once; the seat is free
//!                        │   ▲ answers follow                           ▲
//!       the stream broke │   │ resumed: `outstanding`                   │ not resumed, or too late: Unreachable
//!                        ▼   │                                          │
//!                       seat: sent, without a stream ───────────────────┤  what may have left is never sent again
//!                       seat: kept, it provably never left ─────────────┘  what never left is sent on the next stream
//! ```
//!
//! Each seat has a timer from the moment it is taken until it is free, on one wheel with the time that a broken stream is waited for.
//! Whatever frees a seat answers its caller, except the caller's own going: so each caller gets exactly one answer, at its deadline
//! and [`answer_grace`](crate::ControllerConfig::answer_grace) at the latest (rounded up to the wheel's tick of 1,024 us).

use crate::action::ActionKey;
use crate::circuits::{Circuit, Circuits, Sent};
use crate::config::ControllerConfig;
use crate::declared::Declared;
use crate::id::{ActivationId, Names};
use crate::invocation::Invocation;
use crate::outcome::{Answer, Outcome, Reason, Rejection};
use bytes::{Bytes, BytesMut};
use engine::mutant::{Mutant, is};
use engine::slab::{Key, Slab};
use engine::time::Timestamp;
use engine::wheel::{Armed, Wheel};
use proto::v1;
use std::time::Duration;

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Effect<C> {
    /// Append it to the stream. If it cannot be taken, say so with [`Desk::handle_unsent`]; and unless it alone was too large, say the
    /// same of all that the same call of the desk wanted to be sent behind it, since that may depend on it.
    Send(Entry),
    /// Answer this caller. It will not be heard of again.
    Answer(C, Box<Answer>),
}

/// What a controller sends on its stream.
#[derive(Debug)]
pub enum Entry {
    /// Names an action by a number, for the activations behind it.
    Declare(Box<v1::DeclareAction>),
    /// One activation.
    Activation(v1::Activation),
    /// Ids that wait on a stream that is resumed, as many as fit into a frame of their own. Takes room in no outlet: it must be taken
    /// whatever waits there already.
    Outstanding(Vec<Bytes>),
}

/// Why an entry was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// Too much waits to be sent.
    Full,
    /// The router takes no payload as long.
    TooLarge {
        /// Most bytes it takes.
        payload_bytes_max: u32,
    },
    /// The stream has ended.
    Closed,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It broke: answers may be there for whoever resumes it.
    Broken,
    /// The router ended it: nothing more will come.
    Over,
}

/// The desk of one controller. `C` is the caller's side of an answer: whatever the answer is to be handed to.
#[derive(Debug)]
pub struct Desk<C> {
    config: ControllerConfig,
    seats: Slab<Seat<C>>,
    names: Names,
    wheel: Wheel<Timer>,
    /// When the driver means to call [`advance`](Self::advance) next.
    wake_at: Timestamp,
    /// A timer was armed for before that.
    sooner: bool,
    stream: Stream,
    /// Activations of kept seats, in the order they were submitted. Some of their seats may be free.
    kept: Vec<v1::Activation>,
    /// What the next stream says to be taken for this one's successor.
    session: Bytes,
    /// How long the router keeps the answers of a stream that broke.
    grace: Duration,
    circuits: Circuits,
    late_answers: u64,
}

/// One invocation that waits.
#[derive(Debug)]
struct Seat<C> {
    caller: C,
    key: ActionKey,
    /// None only while the seat is being taken.
    timer: Option<Armed>,
    submitted: Timestamp,
    /// The answer is worthless from then on.
    deadline: Timestamp,
    /// Of its name.
    round: u32,
    /// It certainly never left.
    kept: bool,
}

impl<C> Seat<C> {
    fn sent(&self) -> Sent {
        Sent { began: self.submitted, allowed: self.submitted.until(self.deadline) }
    }
}

#[derive(Debug, Clone, Copy)]
enum Timer {
    /// Nobody waits for the answer of that seat any longer.
    Answer(Key),
    /// The stream that broke was not resumed in time.
    Resume,
}

#[derive(Debug)]
enum Stream {
    /// There is one.
    Up(Up),
    /// It broke, and there may be another in its place before this timer.
    Broken(Armed),
    /// There is none, and nobody waits for one.
    Down,
}

#[derive(Debug)]
struct Up {
    declared: Declared,
    /// The router takes nothing new.
    draining: bool,
}

impl<C> Desk<C> {
    /// Most actions declared at a time before numbers change hands.
    pub const DECLARED_MAX: usize = 10_000;

    /// An empty desk without a stream. All that is drawn (ids, how long a breaker stays open) comes from `seed`, which no two desks
    /// may share.
    pub fn new(config: ControllerConfig, seed: u64, now: Timestamp) -> Self {
        Self {
            seats: Slab::new(),
            names: Names::new(seed),
            wheel: Wheel::new(now),
            wake_at: Timestamp::from_micros(u64::MAX),
            sooner: false,
            stream: Stream::Down,
            kept: Vec::new(),
            session: Bytes::new(),
            grace: Duration::ZERO,
            circuits: Circuits::new(config.breaker.clone(), seed),
            late_answers: 0,
            config,
        }
    }

    /// Takes a seat for an invocation and sends it, or answers at once why not. Its timer is armed before anything leaves.
    pub fn submit(
        &mut self,
        now: Timestamp,
        invocation: Invocation,
        caller: C,
        effects: &mut Vec<Effect<C>>,
    ) -> ActivationId {
        let allowed = self.config.time_allowed(&invocation);
        let admitted = self.admit(now, &invocation.key, allowed);
        let Invocation { key, payload, reply, .. } = invocation;
        let deadline = now + allowed;
        let seat = Seat { caller, key, timer: None, submitted: now, deadline, round: 0, kept: false };
        let at = self.seats.insert(seat);
        let (id, round) = self.names.name(at);
        if let Err(outcome) = admitted {
            let seat = self.seats.remove(at).expect("taken above");
            effects.push(Effect::Answer(seat.caller, Box::new(Answer::own(id, outcome))));
            return id;
        }
        let late = Duration::from_secs(u64::from(is(Mutant::DeskTimerLate)));
        let timer = self.arm(deadline + self.config.answer_grace + late, Timer::Answer(at));
        let seat = &mut self.seats[at];
        (seat.round, seat.timer) = (round, Some(timer));
        let (id_, reply) = (id.to_wire(), reply.into());
        let activation = v1::Activation { id: id_, payload, reply, ..Default::default() };
        self.push(now, at, activation, effects);
        id
    }

    /// The caller has gone: its seat is free, and an answer that still comes is late. None if it was answered already.
    pub fn give_up(&mut self, now: Timestamp, id: ActivationId) -> Option<C> {
        let seat = self.free(&id.bytes())?;
        self.circuits.on_ended(now, &seat.key, seat.sent(), None);
        Some(seat.caller)
    }

    /// There is a stream, whose router said `welcome`. If it goes on with the one that broke, the answers of that one follow; else no
    /// more of them come. What never left is sent now.
    pub fn handle_opened(&mut self, now: Timestamp, welcome: &v1::Welcome, effects: &mut Vec<Effect<C>>) {
        if let Stream::Broken(timer) = self.stream {
            self.wheel.cancel(timer);
        }
        self.stream = Stream::Up(Up { declared: Declared::new(Self::DECLARED_MAX), draining: false });
        self.session = welcome.session.clone();
        self.grace = Duration::from_millis(welcome.grace_ms.into()).min(self.config.resume_within);
        if welcome.resumed {
            self.state_outstanding(welcome.frame_entries_max as usize, effects);
        } else {
            self.dismiss(now, |seat| !seat.kept, effects);
        }
        self.send_kept(now, effects);
    }

    /// The stream ended. `unsent`, in order, are activations that it had taken and that are in no frame yet: they have provably not
    /// left. The callers wait on if the stream can be resumed.
    pub fn handle_ended(
        &mut self,
        now: Timestamp,
        end: End,
        unsent: impl IntoIterator<Item = v1::Activation>,
        effects: &mut Vec<Effect<C>>,
    ) {
        for activation in unsent {
            if let Some(seat) = self.find(&activation.id).and_then(|at| self.seats.get_mut(at)) {
                seat.kept = true;
                self.kept.push(activation);
            }
        }
        let former = std::mem::replace(&mut self.stream, Stream::Down);
        if let Stream::Broken(timer) = former {
            self.wheel.cancel(timer);
        }
        if end == End::Broken && !self.grace.is_zero() && !self.session.is_empty() {
            self.stream = Stream::Broken(self.arm(now + self.grace, Timer::Resume));
        } else {
            self.dismiss(now, |_| true, effects);
        }
    }

    /// What the router says.
    pub fn handle_frame(&mut self, now: Timestamp, frame: v1::PushResponse, effects: &mut Vec<Effect<C>>) {
        frame.refusals.iter().for_each(|refusal| self.on_refused(now, refusal, effects));
        if let Stream::Up(up) = &mut self.stream {
            up.draining |= frame.draining;
        }
        frame.answers.into_iter().for_each(|answer| self.on_answer(now, answer, effects));
    }

    /// An entry could not be sent. An activation is answered with the reason.
    pub fn handle_unsent(&mut self, now: Timestamp, entry: Entry, why: Unsent, effects: &mut Vec<Effect<C>>) {
        match entry {
            Entry::Declare(declare) => self.forget(declare.number),
            // The stream has ended, and the next one is told them anew.
            Entry::Outstanding(_) => {}
            Entry::Activation(activation) => {
                if let Some(at) = self.find(&activation.id) {
                    self.answer(now, at, not_sent(why), effects);
                }
            }
        }
    }

    /// Answers at most `most` of those whose time is over. True if there are more: call again.
    pub fn advance(&mut self, now: Timestamp, most: usize, effects: &mut Vec<Effect<C>>) -> bool {
        let mut due = Vec::new();
        let more = self.wheel.advance(now, most, &mut due);
        for timer in due {
            match timer {
                Timer::Answer(at) => self.time_out(now, at, effects),
                Timer::Resume => {
                    self.stream = Stream::Down;
                    self.dismiss(now, |_| true, effects);
                }
            }
        }
        more
    }

    /// When to call [`advance`](Self::advance): not later, perhaps a little sooner than anything is due. None: nothing will be.
    pub fn next_wake(&mut self) -> Option<Timestamp> {
        let next = self.wheel.next_expiry();
        (self.wake_at, self.sooner) = (next.unwrap_or(Timestamp::from_micros(u64::MAX)), false);
        next
    }

    /// Whether something is due before [`next_wake`](Self::next_wake) last said: ask it again. Says so once.
    pub fn must_wake_sooner(&mut self) -> bool {
        std::mem::take(&mut self.sooner)
    }

    /// What to say in the hello of the next stream.
    pub fn session(&self) -> &Bytes {
        &self.session
    }

    /// How many callers wait.
    pub fn outstanding(&self) -> usize {
        self.seats.len()
    }

    /// How many answers came that nobody waited for any more. They were dropped.
    pub fn late_answers(&self) -> u64 {
        self.late_answers
    }

    /// Whether there is a stream.
    pub fn is_connected(&self) -> bool {
        matches!(self.stream, Stream::Up(_))
    }

    /// How the breaker of that action stands; none while it had no strikes of late.
    pub fn breaker(&self, now: Timestamp, key: &ActionKey) -> Option<Circuit> {
        self.circuits.of(now, key)
    }

    /// Whether it may be sent.
    fn admit(&mut self, now: Timestamp, key: &ActionKey, allowed: Duration) -> Result<(), Outcome> {
        if allowed.is_zero() {
            return Err(Outcome::Rejected(Rejection::known(v1::Reason::TimeLeftZero, "time_left_ms", 1)));
        }
        match &self.stream {
            Stream::Up(up) if up.draining => return Err(Outcome::Rejected(Rejection::draining())),
            Stream::Up(_) => {}
            Stream::Broken(_) | Stream::Down => return Err(Outcome::Unreachable { maybe_sent: false }),
        }
        if self.seats.len() >= self.config.outstanding_max {
            let limit = self.config.outstanding_max as u64;
            return Err(Outcome::Rejected(Rejection::full(Reason::OutstandingFull, "outstanding", limit)));
        }
        // Last: what it lets through must be heard of again.
        self.circuits.admit(now, key)
    }

    /// Sends the activation of a seat, and before it what its number stands for, where that is news.
    fn push(&mut self, now: Timestamp, at: Key, activation: v1::Activation, effects: &mut Vec<Effect<C>>) {
        let Stream::Up(up) = &mut self.stream else { unreachable!("seen by who calls this") };
        let seat = &self.seats[at];
        let action = up.declared.number_of(&seat.key).unwrap_or_else(|| {
            // A number that stood for another action until now overtakes none of that one's activations: the outlet sees to that.
            let number = up.declared.assign(seat.key.clone());
            let key = Some(seat.key.clone().into());
            effects.push(Effect::Send(Entry::Declare(Box::new(v1::DeclareAction { number, key }))));
            number
        });
        // Rounded down, but not to nothing; the router refuses what is too long.
        let time_left_ms = u32::try_from(now.until(seat.deadline).as_millis()).unwrap_or(u32::MAX).max(1);
        effects.push(Effect::Send(Entry::Activation(v1::Activation { action, time_left_ms, ..activation })));
    }

    /// Says which activations of the stream that broke still wait.
    fn state_outstanding(&mut self, frame_entries_max: usize, effects: &mut Vec<Effect<C>>) {
        let waiting = self.seats.iter().filter(|(_, seat)| !seat.kept);
        let mut ids = BytesMut::with_capacity(self.seats.len() * ID_BYTES);
        waiting.for_each(|(at, seat)| ids.extend_from_slice(&self.names.of(seat.round, at).bytes()));
        let mut ids = ids.freeze();
        let whole = frame_entries_max.clamp(1, OUTSTANDING_AT_ONCE);
        while !ids.is_empty() {
            let mut some = ids.split_to(ids.len().min(whole * ID_BYTES));
            let each = std::iter::from_fn(|| (!some.is_empty()).then(|| some.split_to(ID_BYTES)));
            effects.push(Effect::Send(Entry::Outstanding(each.collect())));
        }
    }

    /// Sends what never left, each with the time that it has left now.
    fn send_kept(&mut self, now: Timestamp, effects: &mut Vec<Effect<C>>) {
        for activation in std::mem::take(&mut self.kept) {
            let Some(at) = self.find(&activation.id) else { continue };
            let seat = &mut self.seats[at];
            // What has no time left stays for its timer.
            if now < seat.deadline {
                seat.kept = false;
                self.push(now, at, activation, effects);
            }
        }
    }

    fn on_answer(&mut self, now: Timestamp, answer: v1::Answer, effects: &mut Vec<Effect<C>>) {
        let Some(at) = self.find(&answer.id) else {
            self.late_answers += 1;
            if let Some(id) = ActivationId::from_wire(&answer.id) {
                self.circuits.on_late(now, &Answer::read(id, answer));
            }
            return;
        };
        let id = self.names.of(self.seats[at].round, at);
        self.settle(now, at, Answer::read(id, answer), effects);
    }

    /// The time of a seat is over: its caller hears so now, and the router may yet say what came of its activation.
    fn time_out(&mut self, now: Timestamp, at: Key, effects: &mut Vec<Effect<C>>) {
        let Some(seat) = self.seats.get(at) else { return };
        if seat.kept {
            return self.answer(now, at, Outcome::Unreachable { maybe_sent: false }, effects);
        }
        let id = self.names.of(seat.round, at);
        let Some(seat) = self.free(&id.bytes()) else { return };
        self.circuits.on_unheard(now, id, &seat.key, seat.sent());
        effects.push(Effect::Answer(seat.caller, Box::new(Answer::own(id, Outcome::TimedOut))));
    }

    /// A declaration was refused, so its number stands for nothing: the next activation of that action declares it anew. Or the router
    /// knows nothing of an activation that was asked about: no answer comes.
    fn on_refused(&mut self, now: Timestamp, refusal: &v1::Refusal, effects: &mut Vec<Effect<C>>) {
        tracing::warn!(reason = ?refusal.reason(), number = refusal.number, "the router refused an entry");
        if refusal.id.is_empty() {
            self.forget(refusal.number);
        } else if let Some(at) = self.find(&refusal.id) {
            self.answer(now, at, Outcome::Unreachable { maybe_sent: true }, effects);
        }
    }

    fn forget(&mut self, number: u32) {
        if let Stream::Up(up) = &mut self.stream {
            up.declared.forget(number);
        }
    }

    /// No more answers come for those: they hear so now, and whether their activations can have left.
    fn dismiss(&mut self, now: Timestamp, of: impl Fn(&Seat<C>) -> bool, effects: &mut Vec<Effect<C>>) {
        let dismissed: Vec<_> =
            self.seats.iter().filter(|(_, seat)| of(seat)).map(|(at, seat)| (at, seat.kept)).collect();
        for (at, kept) in dismissed {
            self.answer(now, at, Outcome::Unreachable { maybe_sent: !kept && !is(Mutant::DeskSaysNeverSent) }, effects);
        }
        if self.seats.is_empty() {
            self.kept = Vec::new();
        }
    }

    /// Answers the caller of a seat without the router.
    fn answer(&mut self, now: Timestamp, at: Key, outcome: Outcome, effects: &mut Vec<Effect<C>>) {
        let Some(seat) = self.seats.get(at) else { return };
        let id = self.names.of(seat.round, at);
        self.settle(now, at, Answer::own(id, outcome), effects);
    }

    /// Frees a seat with an answer. The only way to answer one that was taken, but for its own timer.
    fn settle(&mut self, now: Timestamp, at: Key, answer: Answer, effects: &mut Vec<Effect<C>>) {
        let Some(seat) = self.free(&answer.id.bytes()) else { return };
        debug_assert!(!self.seats.contains(at));
        self.circuits.on_ended(now, &seat.key, seat.sent(), Some(&answer));
        effects.push(Effect::Answer(seat.caller, Box::new(answer)));
    }

    /// Where the activation of that id is waited for.
    fn find(&self, id: &[u8]) -> Option<Key> {
        let (round, at) = self.names.read(id)?;
        self.seats.get(at).filter(|seat| seat.round == round).map(|_| at)
    }

    fn free(&mut self, id: &[u8]) -> Option<Seat<C>> {
        let seat = self.seats.remove(self.find(id)?)?;
        if let Some(timer) = seat.timer {
            self.wheel.cancel(timer);
        }
        Some(seat)
    }

    fn arm(&mut self, at: Timestamp, timer: Timer) -> Armed {
        self.sooner |= at < self.wake_at;
        self.wheel.arm(at, timer)
    }
}

fn not_sent(why: Unsent) -> Outcome {
    match why {
        Unsent::Full => Outcome::Rejected(Rejection::full(Reason::OutletFull, "", 0)),
        Unsent::TooLarge { payload_bytes_max } => {
            Outcome::Rejected(Rejection::known(v1::Reason::PayloadTooLarge, "payload", payload_bytes_max.into()))
        }
        Unsent::Closed => Outcome::Unreachable { maybe_sent: false },
    }
}

const ID_BYTES: usize = engine::id::ActivationId::LEN;
/// Most outstanding ids in one frame; fewer if the router says so.
const OUTSTANDING_AT_ONCE: usize = 1024;
