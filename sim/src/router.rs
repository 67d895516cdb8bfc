//! The router's process: the real engine and the real pure parts, and around them what its shell does with threads and sockets,
//! done here by hand in the same order. Readers check and hand in, effects go into mailboxes, writers make frames.

use crate::agenda::Instant;
use crate::check::{Said, Sums};
use crate::clock::Clock;
use crate::ctx::{Ctx, Event};
use crate::mailbox::{Awaiting, Entry, Mailbox, Taken};
use crate::net::{Down, Parcel, Peer, Push, Register, Up};
use bytes::Bytes;
use engine::container::{ContainerKey, Registration};
use engine::effect::{Effect, Perform};
use engine::hub::{Action, Hub, Pass};
use engine::id::StreamId;
use engine::input::{self, Completion, Input};
use engine::outcome::{Answer, Outcome, Reason, Refusal, Rejection, RunStatus};
use engine::tally::Count;
use engine::time::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;

/// The process, dead or alive.
#[derive(Debug)]
pub struct Router {
    /// It runs.
    pub up: bool,
    /// How often it came up.
    pub life: u32,
    /// Its clock.
    pub clock: Clock,
    hub: Hub,
    pass: Pass<Effects>,
    sessions: Vec<Session>,
    /// Sessions by connection.
    of_conn: Vec<u32>,
    draining: bool,
    drain_until: Instant,
    wake_at: Instant,
    /// Containers by the number the judge gave them.
    containers: Vec<(Arc<Action>, ContainerKey)>,
    effects: Vec<Effect>,
    inputs: Vec<Input>,
}

/// Gathers effects, which are carried out as soon as the engine returns.
#[derive(Debug, Default)]
struct Effects(Vec<Effect>);

impl Perform for Effects {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        self.0.append(effects);
    }
}

/// A peer as the router knows it.
#[derive(Debug)]
struct Session {
    peer: Peer,
    conn: Option<u32>,
    mailbox: Mailbox,
    /// Taken from the mailbox and not yet written.
    hands: VecDeque<Entry>,
    /// Its writer will look soon.
    writing: bool,
    actions: Vec<Option<Arc<Action>>>,
    /// By number: epoch, and the judge's number.
    containers: Vec<(u32, u32, u32)>,
    over: bool,
}

impl Router {
    /// Not there yet.
    pub fn new() -> Self {
        let hub = Hub::new(engine::limits::Limits::default(), 0, 1, Timestamp::ZERO);
        Self {
            up: false,
            life: 0,
            clock: Clock::default(),
            hub,
            pass: Pass::new(Effects::default()),
            sessions: Vec::new(),
            of_conn: Vec::new(),
            draining: false,
            drain_until: 0,
            wake_at: Instant::MAX,
            containers: Vec::new(),
            effects: Vec::new(),
            inputs: Vec::new(),
        }
    }

    /// As before the world began.
    pub fn clear(&mut self, clock: Clock) {
        self.stop();
        (self.life, self.clock) = (0, clock);
    }

    fn stop(&mut self) {
        self.up = false;
        self.sessions.clear();
        self.of_conn.clear();
        self.containers.clear();
        self.wake_at = Instant::MAX;
        self.draining = false;
    }

    /// The process comes up.
    pub fn start(&mut self, ctx: &mut Ctx) {
        self.stop();
        self.life += 1;
        self.up = true;
        let now = Timestamp::from_micros(self.clock.read(ctx.now));
        self.hub = Hub::new(ctx.plan.limits.clone(), ctx.dice.roll(), ctx.plan.wheels, now);
        self.pass = Pass::new(Effects::default());
        ctx.checker.router_began(&ctx.plan.limits);
    }

    /// The process dies, and every connection with it.
    pub fn die(&mut self, ctx: &mut Ctx) {
        ctx.checker.router_died();
        self.stop();
        for conn in 0..ctx.net.all() {
            if ctx.net.conn(conn).life == self.life {
                // A machine that is gone says nothing; a process that is gone has its kernel say it.
                let learns = if ctx.dice.one_in(4) { ctx.dice.spread(1000, 15_000_000) } else { ctx.latency() };
                let learns = if ctx.healed { ctx.latency() } else { learns };
                ctx.cut(conn, 0, learns);
            }
        }
    }

    /// The process is told to stop.
    pub fn drain(&mut self, ctx: &mut Ctx) {
        if self.draining {
            return;
        }
        self.draining = true;
        self.drain_until = ctx.now + DRAIN_TIMEOUT_US;
        ctx.checker.router_drains();
        for at in 0..self.sessions.len() {
            self.fill(at, Entry::Draining, ctx);
        }
        ctx.after(DRAIN_LOOK_US, Event::DrainDue { life: self.life });
    }

    /// Looks whether the drain is over. True if the process has ended.
    pub fn look_drained(&mut self, ctx: &mut Ctx) -> bool {
        let held = self.hub.held();
        let patient = ctx.now < self.drain_until;
        if held > 0 && patient {
            ctx.after(DRAIN_LOOK_US, Event::DrainDue { life: self.life });
            return false;
        }
        for at in 0..self.sessions.len() {
            self.sessions[at].mailbox.finish();
            self.plan_write(at, ctx);
        }
        if patient && self.sessions.iter().any(|session| !session.over) {
            ctx.after(DRAIN_LOOK_US, Event::DrainDue { life: self.life });
            return false;
        }
        ctx.checker.drain_over(held, patient);
        true
    }

    // The network.

    /// Something arrived on a connection.
    pub fn receive(&mut self, conn: u32, parcel: Parcel<Up>, ctx: &mut Ctx) {
        let at = self.at(conn);
        match parcel {
            Parcel::Frame(frame) => self.read(at, conn, frame, ctx),
            Parcel::Finish => self.finished(at, ctx),
            Parcel::Broken => self.broken(at, ctx),
        }
    }

    /// The session of a connection.
    fn at(&self, conn: u32) -> Option<usize> {
        let at = *self.of_conn.get(conn as usize)? as usize;
        (self.sessions.get(at)?.conn == Some(conn)).then_some(at)
    }

    fn read(&mut self, at: Option<usize>, conn: u32, mut frame: Vec<Up>, ctx: &mut Ctx) {
        self.begin(ctx);
        let mut at = at;
        let mut owed = 0;
        for up in frame.drain(..) {
            match (up, at) {
                (Up::Hello { session }, _) => at = self.hello(conn, &session, ctx),
                (_, None) => break,
                (up, Some(at)) => owed += self.take(at, up, ctx),
            }
        }
        if let Some(at) = at.filter(|_| owed > 0)
            && self.sessions[at].mailbox.owe(owed)
        {
            self.plan_write(at, ctx);
        }
        ctx.net.reuse_up(frame);
        self.plan_wake(ctx);
    }

    /// Handles an entry; returns how many answers it makes due.
    fn take(&mut self, at: usize, up: Up, ctx: &mut Ctx) -> i64 {
        match up {
            Up::Hello { .. } | Up::Outstanding(_) | Up::Rejoined | Up::Audit { .. } => {}
            Up::Declare { number, action } => self.declare(at, number, action, ctx),
            Up::Push(push) => {
                self.push(at, push, ctx);
                return 1;
            }
            Up::Register(register) => self.register(at, register, ctx),
            Up::Credit { container, epoch, credits } => {
                if let Some(judged) = self.find(at, container, epoch, ctx) {
                    ctx.checker.credited(judged, credits);
                    self.enter_container(judged, |key| Input::Credit(key, credits), ctx);
                }
            }
            Up::Complete { container, epoch, id, status, result, credits } => {
                if let Some(judged) = self.find(at, container, epoch, ctx) {
                    if let Some(call) = ctx.call(id) {
                        ctx.checker.completion_read(judged, call, said(status), credits);
                    }
                    let completion = Completion { id, status, result, run_us: 1, credits };
                    self.enter_container(judged, |key| Input::Complete(key, completion), ctx);
                }
            }
            Up::Return { container, epoch, id, payload } => {
                if let Some(judged) = self.find(at, container, epoch, ctx) {
                    if let Some(call) = ctx.call(id) {
                        ctx.checker.return_read(judged, call);
                    }
                    self.enter_container(judged, |key| Input::Return(key, id, payload), ctx);
                }
            }
            Up::Leave { container, epoch, gone } => self.leave(at, container, epoch, gone, ctx),
        }
        0
    }

    fn hello(&mut self, conn: u32, _session: &Bytes, ctx: &mut Ctx) -> Option<usize> {
        let peer = ctx.net.conn(conn).peer;
        let before = self.sessions.iter().position(|session| session.peer == peer && !session.over);
        if let Some(before) = before {
            // It has noticed before the router did.
            self.end(before, ctx);
        }
        let at = self.sessions.len();
        let session = Session {
            peer,
            conn: Some(conn),
            mailbox: Mailbox::new(ctx.plan.outbox_bytes_max),
            hands: VecDeque::new(),
            writing: false,
            actions: Vec::new(),
            containers: Vec::new(),
            over: false,
        };
        self.sessions.push(session);
        let conns = conn as usize + 1;
        self.of_conn.resize(self.of_conn.len().max(conns), u32::MAX);
        self.of_conn[conns - 1] = number(at);
        ctx.checker.session_began(number(at));
        let mut frame = ctx.net.down_frame();
        frame.push(Down::Welcome { session: Bytes::new(), resumed: false });
        ctx.send_down(conn, frame);
        if self.draining {
            self.fill(at, Entry::Draining, ctx);
        }
        Some(at)
    }

    /// The peer says no more. A controller may still want its answers; a node that can say nothing more can complete nothing.
    fn finished(&mut self, at: Option<usize>, ctx: &mut Ctx) {
        let Some(at) = at else { return };
        if matches!(self.sessions[at].peer, Peer::Controller { .. }) {
            self.sessions[at].mailbox.finish();
            return self.plan_write(at, ctx);
        }
        self.end(at, ctx);
    }

    fn broken(&mut self, at: Option<usize>, ctx: &mut Ctx) {
        if let Some(at) = at {
            self.end(at, ctx);
        }
    }

    /// A session is over, and so is its connection: first it is closed, then all that is on its containers is lost.
    fn end(&mut self, at: usize, ctx: &mut Ctx) {
        let session = &mut self.sessions[at];
        if std::mem::replace(&mut session.over, true) {
            return;
        }
        session.mailbox.close();
        session.hands.clear();
        if let Some(conn) = session.conn.take() {
            let learns = ctx.latency();
            ctx.cut(conn, 0, learns);
        }
        ctx.checker.session_over(number(at));
        self.begin(ctx);
        for (_, _, judged) in std::mem::take(&mut self.sessions[at].containers) {
            ctx.checker.gone(judged);
            self.enter_container(judged, Input::Gone, ctx);
        }
        self.plan_wake(ctx);
    }

    // What readers do.

    fn declare(&mut self, at: usize, number: u32, action: u16, ctx: &mut Ctx) {
        let key = ctx.keys[usize::from(action)].clone();
        let declared = self.hub.declare(&key, &mut self.pass);
        self.carry_out(ctx);
        let actions = &mut self.sessions[at].actions;
        let number = number as usize;
        if actions.len() <= number {
            actions.resize(number + 1, None);
        }
        actions[number] = declared.ok();
    }

    fn push(&mut self, at: usize, push: Push, ctx: &mut Ctx) {
        let Push { id, action: action_number, left_ms, payload, reply, maybe_sent: _ } = push;
        let Some(call) = ctx.call(id) else { return };
        let now = self.pass.now;
        let action = ctx.asks[call as usize].action;
        ctx.checker.read(now.as_micros(), call, number(at), action, left_ms, payload.len() as u64);
        let found = self.sessions[at].actions.get(action_number as usize).and_then(Clone::clone);
        let checked = self.check_open().and_then(|()| {
            let found = found.ok_or(Rejection::new(Reason::ActionUnknown, "action", 0))?;
            Ok((found, self.hub.limits().check_time_left(left_ms)?))
        });
        match checked {
            Ok((found, left)) => {
                let controller = StreamId(at as u64);
                let push = input::Push {
                    id,
                    controller,
                    reply,
                    attempt: 1,
                    accepted_at: now,
                    deadline: now + left,
                    payload,
                    accepted: false,
                };
                self.enter(&found, Input::Push(push), ctx);
            }
            Err(rejection) => {
                self.pass.tally.rejected(rejection.reason);
                let answer = Answer::rejected(id, rejection);
                self.pass.performer.0.push(Effect::Answer(StreamId(at as u64), answer));
                self.carry_out(ctx);
                self.settled(ctx);
            }
        }
    }

    fn check_open(&self) -> Result<(), Rejection> {
        if self.draining { Err(Rejection::new(Reason::Draining, "", 0)) } else { Ok(()) }
    }

    fn register(&mut self, at: usize, register: Register, ctx: &mut Ctx) {
        let Register { container, epoch, action, concurrency, credits, warm, held: _ } = register;
        if self.sessions[at].containers.iter().any(|(other, ..)| *other == container) {
            return self.refuse(at, Rejection::new(Reason::ContainerTaken, "container", 0), container, ctx);
        }
        let Peer::Node { index } = self.sessions[at].peer else { return };
        let room = self.sessions[at].mailbox.room().clone();
        let new =
            Registration { stream: StreamId(at as u64), number: container, epoch, concurrency, credits, warm, room };
        let key = ctx.keys[usize::from(action)].clone();
        let fits = credits <= concurrency;
        let judged = if fits {
            Some(ctx.checker.registered(index, number(at), container, epoch, action, concurrency, credits))
        } else {
            None
        };
        match self.hub.register(&key, new, &mut self.pass) {
            Ok((action, key)) => {
                let judged = judged.unwrap_or(u32::MAX);
                self.sessions[at].containers.push((container, epoch, judged));
                self.containers.push((action, key));
                self.carry_out(ctx);
                self.settled(ctx);
            }
            Err(rejection) => {
                self.refuse(at, rejection, container, ctx);
                self.carry_out(ctx);
            }
        }
    }

    fn leave(&mut self, at: usize, container: u32, epoch: u32, gone: bool, ctx: &mut Ctx) {
        let Some(judged) = self.find(at, container, epoch, ctx) else { return };
        if gone {
            ctx.checker.gone(judged);
            self.enter_container(judged, Input::Gone, ctx);
            self.sessions[at].containers.retain(|(_, _, other)| *other != judged);
        } else {
            ctx.checker.retire_read(judged);
            self.enter_container(judged, Input::Retire, ctx);
        }
    }

    /// The container that an entry names, if that is its epoch; else the entry is refused.
    fn find(&mut self, at: usize, container: u32, epoch: u32, ctx: &mut Ctx) -> Option<u32> {
        let found = self.sessions[at].containers.iter().find(|(other, ..)| *other == container).copied();
        match found {
            Some((_, known, judged)) if known == epoch => return Some(judged),
            Some(_) => self.refuse(at, Rejection::new(Reason::EpochStale, "epoch", 0), container, ctx),
            None => self.refuse(at, Rejection::new(Reason::ContainerUnknown, "container", 0), container, ctx),
        }
        None
    }

    fn refuse(&mut self, at: usize, rejection: Rejection, container: u32, ctx: &mut Ctx) {
        self.pass.tally.refused(rejection.reason);
        let refusal = Refusal::new(rejection, container, &[]);
        self.pass.performer.0.push(Effect::Refuse(StreamId(at as u64), refusal));
        self.carry_out(ctx);
    }

    // The engine.

    fn begin(&mut self, ctx: &mut Ctx) {
        let local = self.clock.read(ctx.now);
        self.pass.now = Timestamp::from_micros(local);
        ctx.checker.router_shows(local);
    }

    fn enter_container(&mut self, judged: u32, input: impl FnOnce(ContainerKey) -> Input, ctx: &mut Ctx) {
        let (action, key) = self.containers[judged as usize].clone();
        self.enter(&action, input(key), ctx);
    }

    fn enter(&mut self, action: &Arc<Action>, input: Input, ctx: &mut Ctx) {
        self.inputs.push(input);
        let mut inputs = std::mem::take(&mut self.inputs);
        self.hub.enter(action, &mut inputs, &mut self.pass);
        self.inputs = inputs;
        self.carry_out(ctx);
        self.settled(ctx);
    }

    fn settled(&mut self, ctx: &mut Ctx) {
        let budget = self.hub.budget();
        ctx.checker.settled(self.pass.now.as_micros(), budget.queued(), budget.queued_bytes());
    }

    /// Works on the timers that are due.
    pub fn due(&mut self, ctx: &mut Ctx) {
        self.wake_at = Instant::MAX;
        self.begin(ctx);
        while self.hub.advance(ctx.plan.timers_at_once, &mut self.pass) {
            self.carry_out(ctx);
        }
        self.carry_out(ctx);
        self.settled(ctx);
        if let Some(at) = self.hub.next_wake() {
            self.wake_at(self.clock.when(at.as_micros()), ctx);
        }
        self.plan_wake(ctx);
    }

    /// The moment of the next timer, if one is sooner than what was planned.
    fn plan_wake(&mut self, _ctx: &mut Ctx) {
        self.hub.settle(&mut self.pass);
    }

    fn wake_at(&mut self, at: Instant, ctx: &mut Ctx) {
        let at = at.max(ctx.now + 1);
        if at < self.wake_at {
            self.wake_at = at;
            ctx.agenda.plan(at, Event::RouterDue { life: self.life });
        }
    }

    /// Whether a wake-up is the one that was planned last.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.wake_at
    }

    fn carry_out(&mut self, ctx: &mut Ctx) {
        if self.pass.performer.0.is_empty() {
            return;
        }
        std::mem::swap(&mut self.effects, &mut self.pass.performer.0);
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.perform(effect, ctx);
        }
        self.effects = effects;
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Ctx) {
        let now = self.pass.now.as_micros();
        match effect {
            Effect::Dispatch(StreamId(to), dispatch) => {
                let to = usize::try_from(to).unwrap_or(usize::MAX);
                if let Some(call) = ctx.call(dispatch.id) {
                    let intact = dispatch.payload == ctx.payload(call);
                    let engine::effect::Dispatch { container, epoch, attempt, time_left_ms, .. } = dispatch;
                    ctx.checker.dispatched(now, call, number(to), container, epoch, attempt, time_left_ms, intact);
                }
                self.fill(to, Entry::Dispatch(dispatch), ctx);
            }
            Effect::Answer(StreamId(to), answer) => {
                let to = usize::try_from(to).unwrap_or(usize::MAX);
                if let Some(call) = ctx.call(answer.id) {
                    ctx.checker.answered(now, call, number(to), outcome_said(&answer.outcome));
                }
                self.fill(to, Entry::Answer(answer), ctx);
            }
            Effect::Refuse(StreamId(to), refusal) => {
                self.fill(usize::try_from(to).unwrap_or(usize::MAX), Entry::Refuse(refusal), ctx);
            }
            Effect::Drain(StreamId(to), number, epoch) => {
                self.fill(usize::try_from(to).unwrap_or(usize::MAX), Entry::Drain(number, epoch), ctx);
            }
            Effect::AwaitRoom(StreamId(to), action, key) => self.await_room(to, (action, key), ctx),
            Effect::WakeAt(at) => self.wake_at(self.clock.when(at.as_micros()), ctx),
        }
    }

    fn await_room(&mut self, to: u64, awaiting: Awaiting, ctx: &mut Ctx) {
        let to = usize::try_from(to).unwrap_or(usize::MAX);
        if let Some(judged) = self.judged(to, awaiting.1, &awaiting.0) {
            ctx.checker.awaits_room(judged);
        }
        if !self.sessions[to].over {
            self.sessions[to].mailbox.await_room(awaiting);
            self.plan_write(to, ctx);
        }
    }

    fn judged(&self, at: usize, key: ContainerKey, of: &Arc<Action>) -> Option<u32> {
        let mut containers = self.sessions[at].containers.iter().map(|(_, _, judged)| *judged);
        containers.find(|judged| {
            let (action, other) = &self.containers[*judged as usize];
            *other == key && Arc::ptr_eq(action, of)
        })
    }

    // What writers do.

    fn fill(&mut self, at: usize, entry: Entry, ctx: &mut Ctx) {
        let overfull = self.sessions[at].mailbox.fill(std::iter::once(entry), |_| ());
        if overfull {
            // Not from within: the engine may be at work on this very session.
            self.sessions[at].mailbox.close();
        }
        self.plan_write(at, ctx);
    }

    fn plan_write(&mut self, at: usize, ctx: &mut Ctx) {
        let session = &mut self.sessions[at];
        if let Some(conn) = session.conn.filter(|_| !session.writing) {
            session.writing = true;
            let wait = if ctx.plan.writer_us == 0 { 0 } else { ctx.dice.below(ctx.plan.writer_us) };
            ctx.after(wait, Event::Write { conn });
        }
    }

    /// The peer has read something: there may be room to write.
    pub fn was_read(&mut self, conn: u32, ctx: &mut Ctx) {
        let waits = |session: &Session| !session.hands.is_empty() || !session.mailbox.is_empty();
        if let Some(at) = self.at(conn).filter(|at| waits(&self.sessions[*at])) {
            self.plan_write(at, ctx);
        }
    }

    /// The writer of a connection has its turn.
    pub fn write(&mut self, conn: u32, ctx: &mut Ctx) {
        let Some(at) = self.at(conn) else { return };
        self.sessions[at].writing = false;
        self.begin(ctx);
        while ctx.net.conn(conn).down.unread < ctx.plan.window_bytes {
            if self.sessions[at].hands.is_empty() && !self.take_mail(at, ctx) {
                break;
            }
            if !self.sessions[at].hands.is_empty() {
                self.write_frame(at, conn, ctx);
            }
        }
        self.plan_wake(ctx);
    }

    /// Takes what waits. False if the writer is to wait, or its session has come to an end.
    fn take_mail(&mut self, at: usize, ctx: &mut Ctx) -> bool {
        let session = &mut self.sessions[at];
        match session.mailbox.take(&mut session.hands) {
            Taken::Nothing => false,
            Taken::Closed => {
                self.end(at, ctx);
                false
            }
            Taken::Finished => {
                if let Some(conn) = session.conn {
                    ctx.finish(conn, false);
                }
                self.end_quietly(at, ctx);
                false
            }
            Taken::Entries(awaiting) => {
                ctx.checker.taken(number(at));
                for (action, key) in awaiting {
                    if let Some(judged) = self.judged(at, key, &action) {
                        ctx.checker.room_again(judged);
                    }
                    self.enter(&action, Input::Resume(key), ctx);
                }
                true
            }
        }
    }

    /// All is said on both sides; the connection ends by itself.
    fn end_quietly(&mut self, at: usize, ctx: &mut Ctx) {
        self.sessions[at].conn = None;
        self.end(at, ctx);
    }

    fn write_frame(&mut self, at: usize, conn: u32, ctx: &mut Ctx) {
        let mut frame = ctx.net.down_frame();
        let mut bytes = 0;
        while frame.len() < ctx.plan.frame_entries_max && bytes < FRAME_BYTES_ENOUGH {
            let Some(entry) = self.sessions[at].hands.pop_front() else { break };
            bytes += entry.bytes();
            if let Entry::Dispatch(dispatch) = &entry
                && let Some(call) = ctx.call(dispatch.id)
            {
                ctx.checker.written(call, number(at));
            }
            frame.push(Down::Entry(entry));
        }
        ctx.send_down(conn, frame);
    }

    // For the judge.

    /// A quiet moment: shows the judge what the engine counts.
    pub fn show(&mut self, ctx: &mut Ctx) {
        self.hub.settle(&mut self.pass);
        let totals = self.hub.totals();
        let rejected = Reason::ALL.iter().filter(|reason| **reason != Reason::IdInFlight);
        let sums = Sums {
            accepted: totals.of(Count::Accepted),
            dispatched: totals.of(Count::Dispatched),
            completed: totals.of(Count::Completed),
            action_failed: totals.of(Count::ActionFailed),
            platform_failed: totals.of(Count::PlatformFailed),
            expired: totals.of(Count::Expired),
            lost: totals.of(Count::Lost),
            timed_out: 0,
            returned: totals.of(Count::Returned),
            rejected: rejected.map(|reason| totals.rejected(*reason)).sum(),
        };
        ctx.checker.quiet(&sums, self.hub.held());
    }

    /// After the faults, when nobody waits any more.
    pub fn show_rested(&mut self, ctx: &mut Ctx) {
        self.show(ctx);
        let waiting = |session: &Session| session.hands.len() + usize::from(!session.mailbox.is_empty());
        let mailboxes = self.sessions.iter().filter(|session| !session.over).map(waiting).sum();
        ctx.checker.rested(self.hub.held(), mailboxes);
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn said(status: RunStatus) -> Said {
    match status {
        RunStatus::Succeeded => Said::Completed,
        RunStatus::ActionFailed => Said::ActionFailed,
        RunStatus::PlatformFailed => Said::PlatformFailed,
    }
}

/// An outcome, without what it carries.
pub fn outcome_said(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::Completed(_) => Said::Completed,
        Outcome::ActionFailed(_) => Said::ActionFailed,
        Outcome::PlatformFailed(_) => Said::PlatformFailed,
        Outcome::Expired => Said::Expired,
        Outcome::Rejected(rejection) => Said::rejected(rejection.reason),
        Outcome::Lost => Said::Lost,
        Outcome::TimedOut => Said::TimedOut,
        Outcome::Accepted(_) => Said::Accepted,
    }
}

const DRAIN_TIMEOUT_US: u64 = 30_000_000;
const DRAIN_LOOK_US: u64 = 20_000;
const FRAME_BYTES_ENOUGH: usize = 64 * 1024;
