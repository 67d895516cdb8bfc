//! A controller as a stranger would write one from the proto files: its own timer for each caller, batches, duplicates, one
//! stream or two, and another whenever one ends. Back in time it asks what became of what waits, or pushes it again. The callers
//! come by themselves.

use crate::check::{Call, Said};
use crate::clock::Clock;
use crate::ctx::{Ask, Ctx, Event};
use crate::desk::DeskSide;
use crate::net::{Down, Parcel, Peer, Push, Up};
use crate::router::outcome_said;
use bytes::Bytes;
use engine::effect::Entry;
use engine::outcome::{Outcome, Reason, Reply};

/// The process.
#[derive(Debug, Default)]
pub struct Controller {
    pub(crate) index: u16,
    /// Which of its lives it is in.
    pub incarnation: u32,
    /// The desk, if it is the project's own kind.
    pub(crate) desk: Option<DeskSide>,
    is_desk: bool,
    pub(crate) clock: Clock,
    /// It runs.
    pub up: bool,
    pub(crate) lines: [Line; 2],
    used: usize,
    /// On its own clock: until when it last stood still.
    stopped_until: u64,
    /// Callers that it will still get.
    pub to_come: u32,
}

/// A stream and what it is for.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) conn: Option<u32>,
    /// What names its session.
    token: Bytes,
    /// How many sessions it had, so that a repetition goes to the one that the first copy went to.
    session: u32,
    pub(crate) welcomed: bool,
    /// It takes nothing new: the router drains, or all was said.
    closing: bool,
    pub(crate) out: Vec<Up>,
    flushing: bool,
    declared: Vec<bool>,
    /// Sent in this session, answered or not.
    sent: Vec<Call>,
    waiting: usize,
    /// Attempts to connect since it heard an answer last.
    pub(crate) tries: u32,
}

impl Controller {
    /// As before the world began.
    pub fn clear(&mut self, index: u16, clock: Clock, to_come: u32, lines: usize, is_desk: bool) {
        (self.is_desk, self.desk) = (is_desk, None);
        let lines = if is_desk { 1 } else { lines };
        (self.index, self.clock, self.to_come, self.used) = (index, clock, to_come, lines);
        (self.incarnation, self.up, self.stopped_until) = (0, false, 0);
        self.lines.iter_mut().for_each(Line::forget);
    }

    fn peer(&self, line: usize) -> Peer {
        Peer::Controller { index: self.index, line: u8::try_from(line).unwrap_or(0) }
    }

    /// The process starts.
    pub fn start(&mut self, ctx: &mut Ctx) {
        self.up = true;
        self.incarnation += 1;
        if self.is_desk {
            self.desk = Some(DeskSide::new(self.clock.read(ctx.now), ctx));
        }
        for line in 0..self.used {
            let wait = ctx.dice.below(ctx.plan.reconnect_us);
            ctx.after(wait, Event::Connect { peer: self.peer(line), incarnation: self.incarnation });
        }
    }

    /// The process dies, and its callers with it.
    pub fn die(&mut self, ctx: &mut Ctx) {
        self.up = false;
        ctx.checker.orphaned(self.index);
        for line in &mut self.lines {
            if let Some(conn) = line.conn {
                let learns = ctx.latency();
                ctx.cut(conn, learns, 0);
            }
            line.forget();
        }
        self.desk = None;
    }

    /// The process stood still until now.
    pub fn stood_still(&mut self, now: u64) {
        self.stopped_until = self.clock.read(now);
    }

    /// Tries to connect; `reachable` is the router's life, if it can be reached.
    pub fn connect(&mut self, line: u8, reachable: Option<u32>, ctx: &mut Ctx) {
        let at = usize::from(line);
        if self.lines[at].conn.is_some() {
            return;
        }
        let Some(life) = reachable else { return self.connect_later(at, ctx) };
        if let Some(desk) = &self.desk {
            self.lines[at].token = desk.session();
        }
        let conn = ctx.net.open(self.peer(at), self.incarnation, life);
        let line = &mut self.lines[at];
        line.conn = Some(conn);
        let mut frame = ctx.net.up_frame();
        frame.push(Up::Hello { session: line.token.clone() });
        ctx.send_up(conn, frame);
    }

    pub(crate) fn connect_later(&mut self, line: usize, ctx: &mut Ctx) {
        let tries = &mut self.lines[line].tries;
        *tries = (*tries + 1).min(10);
        let wait = 1 + ctx.dice.below(ctx.plan.reconnect_us << *tries);
        ctx.after(wait, Event::Connect { peer: self.peer(line), incarnation: self.incarnation });
    }

    /// A caller comes.
    pub fn arrival(&mut self, ctx: &mut Ctx) {
        let plan = &ctx.plan;
        let (min, max, grace) = (plan.timeout_ms_min, plan.timeout_ms_max, plan.answer_grace_ms);
        let (actions, only_accept) = (plan.actions, plan.only_accept);
        let timeout_ms = ctx.dice.between(min, max);
        let action = u16::try_from(ctx.dice.below(actions.into())).unwrap_or(0);
        let reply = if ctx.dice.chance(only_accept) { Reply::Accepted } else { Reply::Outcome };
        let local = self.clock.read(ctx.now);
        let deadline = local + timeout_ms * 1000;
        let answer_by = deadline + grace * 1000;
        let timeout = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
        let call = ctx.checker.submitted(self.index, action, timeout, answer_by, reply == Reply::Accepted);
        ctx.asks.push(Ask {
            action,
            reply,
            deadline,
            copies: 0,
            origin: (0, 0),
            refused: false,
            again: false,
            done: false,
        });
        if self.desk.is_some() {
            return self.submit_to_desk(call, timeout_ms, ctx);
        }
        // Armed before anything leaves.
        let due = self.clock.when(answer_by);
        ctx.agenda.plan(due, Event::CallerDue { controller: self.index, incarnation: self.incarnation, call });
        self.submit(call, ctx);
    }

    fn submit(&mut self, call: Call, ctx: &mut Ctx) {
        let at = if self.used == 2 && ctx.dice.one_in(2) { 1 } else { 0 };
        let line = &self.lines[at];
        if !line.welcomed {
            return self.resolve(call, Said::Unreachable(false), ctx);
        }
        if line.closing {
            return self.resolve(call, Said::rejected(Reason::Draining), ctx);
        }
        ctx.asks[call as usize].origin = (u8::try_from(at).unwrap_or(0), line.session);
        self.push(at, call, false, ctx);
        self.lines[at].note_sent(call, ctx);
        if ctx.dice.chance(ctx.plan.duplicates) {
            self.duplicate(at, call, ctx);
        }
        if ctx.dice.chance(ctx.plan.repeats) {
            let wait = ctx.dice.spread(1, ctx.plan.timeout_ms_max * 2000);
            ctx.after(wait, Event::Repeat { controller: self.index, incarnation: self.incarnation, call });
        }
    }

    /// Sends it a second time, on its own line or the other. Both must lead to one router: another would not know the id.
    fn duplicate(&mut self, at: usize, call: Call, ctx: &mut Ctx) {
        let mut life = |at: usize| self.lines[at].conn.map(|conn| ctx.net.conn(conn).life);
        let same = life(0) == life(1);
        let other = 1 - at;
        let at = if same && self.lines[other].welcomed && !self.lines[other].closing { other } else { at };
        self.push(at, call, false, ctx);
    }

    /// Sends again what may have been answered long since; the router's window has to know.
    pub fn repeat(&mut self, call: Call, ctx: &mut Ctx) {
        let (line, session) = ctx.asks[call as usize].origin;
        let of = &self.lines[usize::from(line)];
        if of.welcomed && !of.closing && of.session == session && !ctx.asks[call as usize].refused {
            self.push(line.into(), call, ctx.plan.resubmits, ctx);
        }
    }

    fn push(&mut self, at: usize, call: Call, maybe_sent: bool, ctx: &mut Ctx) {
        let ask = &mut ctx.asks[call as usize];
        let left_us = ask.deadline.saturating_sub(self.clock.read(ctx.now));
        let left_ms = u32::try_from(left_us / 1000).unwrap_or(u32::MAX).max(1);
        ask.copies += 1;
        ask.again |= maybe_sent;
        let (action, reply) = (ask.action, ask.reply);
        let (id, payload) = (ctx.id(call), ctx.payload(call));
        let line = &mut self.lines[at];
        line.declare(action);
        line.out.push(Up::Push(Push { id, action: action.into(), left_ms, payload, reply, maybe_sent }));
        self.plan_flush(at, ctx);
    }

    pub(crate) fn plan_flush(&mut self, at: usize, ctx: &mut Ctx) {
        if !std::mem::replace(&mut self.lines[at].flushing, true) {
            let wait = if ctx.plan.batch_us == 0 { 0 } else { ctx.dice.below(ctx.plan.batch_us) };
            ctx.after(wait, Event::Flush { peer: self.peer(at), incarnation: self.incarnation });
        }
    }

    /// Writes what there is to say.
    pub fn flush(&mut self, line: u8, ctx: &mut Ctx) {
        let line = &mut self.lines[usize::from(line)];
        line.flushing = false;
        let Some(conn) = line.conn.filter(|_| !line.out.is_empty()) else { return };
        let mut frame = ctx.net.up_frame();
        frame.append(&mut line.out);
        ctx.send_up(conn, frame);
    }

    /// Says that it has said all, which desks never do; the answers that are owed still come.
    pub fn half_close(&mut self, ctx: &mut Ctx) {
        if self.desk.is_some() {
            return;
        }
        self.flush(0, ctx);
        let line = &mut self.lines[0];
        if let Some(conn) = line.conn.filter(|_| line.welcomed && !line.closing) {
            line.closing = true;
            line.token = Bytes::new();
            ctx.finish(conn, true);
        }
    }

    /// Something arrived.
    pub fn receive(&mut self, line: u8, conn: u32, parcel: Parcel<Down>, ctx: &mut Ctx) {
        let at = usize::from(line);
        if self.lines[at].conn != Some(conn) {
            if let Parcel::Frame(frame) = parcel {
                ctx.net.reuse_down(frame);
            }
            return;
        }
        if self.desk.is_some() {
            return self.desk_receives(parcel, ctx);
        }
        match parcel {
            Parcel::Frame(mut frame) => {
                frame.drain(..).for_each(|down| self.take(at, down, ctx));
                ctx.net.reuse_down(frame);
            }
            Parcel::Finish => self.stream_ended(at, true, ctx),
            Parcel::Broken => self.stream_ended(at, false, ctx),
        }
    }

    fn take(&mut self, at: usize, down: Down, ctx: &mut Ctx) {
        match down {
            Down::Welcome { session, resumed } => self.welcomed(at, session, resumed, ctx),
            Down::Entry(Entry::Answer(answer)) => {
                let Some(call) = ctx.call(answer.id) else { return };
                self.lines[at].tries = 0;
                let said = outcome_said(&answer.outcome);
                ctx.checker.heard(call, self.index, said);
                if let Outcome::Completed(result) | Outcome::ActionFailed(result) | Outcome::PlatformFailed(result) =
                    &answer.outcome
                    && *result != ctx.result(call)
                {
                    ctx.checker.wrong_result(call);
                }
                self.answered(call, said, ctx);
            }
            Down::Entry(Entry::Draining) => self.lines[at].closing = true,
            Down::Entry(_) => {}
        }
    }

    fn answered(&mut self, call: Call, said: Said, ctx: &mut Ctx) {
        let ask = &mut ctx.asks[call as usize];
        ask.copies = ask.copies.saturating_sub(1);
        // Of several copies one counts; that the others are refused says nothing.
        if matches!(said, Said::Rejected(_)) && ask.copies > 0 {
            return;
        }
        ask.refused = matches!(said, Said::Rejected(_));
        // A refusal for the sake of the id, and nothing else to come: it may have run.
        let about_id = [Reason::IdInFlight, Reason::IdEnded, Reason::OutcomeUnknown];
        // Who drains does not look for it.
        let unseen = ask.again && said.reason() == Some(Reason::Draining);
        let unknown = unseen || said.reason().is_some_and(|reason| about_id.contains(&reason));
        self.resolve(call, if unknown { Said::Unreachable(true) } else { said }, ctx);
    }

    fn welcomed(&mut self, at: usize, session: Bytes, resumed: bool, ctx: &mut Ctx) {
        let resubmits = ctx.plan.resubmits;
        let line = &mut self.lines[at];
        line.welcomed = true;
        line.token = session;
        let waiting: Vec<Call> =
            std::mem::take(&mut line.sent).into_iter().filter(|call| !ctx.asks[*call as usize].done).collect();
        if resumed {
            line.sent.clone_from(&waiting);
            let session = line.session;
            // Of those that went to the router before this one it can only be asked: this one would take them for new.
            let (again, ask): (Vec<Call>, Vec<Call>) =
                waiting.into_iter().partition(|call| resubmits && ctx.asks[*call as usize].origin.1 == session);
            if !ask.is_empty() {
                let ids: Vec<Up> = ask.iter().map(|call| Up::Outstanding(ctx.id(*call))).collect();
                self.lines[at].out.splice(0..0, ids);
                self.plan_flush(at, ctx);
            }
            again.into_iter().for_each(|call| self.push(at, call, true, ctx));
            return;
        }
        line.session += 1;
        for call in waiting {
            // The router that they went to may still live and know them; the hello said which one that was. On a stream after
            // this one nobody could tell.
            let here = ctx.asks[call as usize].origin == (u8::try_from(at).unwrap_or(0), self.lines[at].session - 1);
            if resubmits && here {
                // No answer to an earlier copy will come.
                ctx.asks[call as usize].copies = 0;
                self.push(at, call, true, ctx);
                self.lines[at].sent.push(call);
            } else {
                self.resolve(call, Said::Unreachable(true), ctx);
            }
        }
    }

    /// A caller has waited long enough.
    pub fn caller_due(&mut self, call: Call, ctx: &mut Ctx) {
        self.resolve(call, Said::TimedOut, ctx);
    }

    pub(crate) fn resolve(&mut self, call: Call, said: Said, ctx: &mut Ctx) {
        if std::mem::replace(&mut ctx.asks[call as usize].done, true) {
            return;
        }
        let local = self.clock.read(ctx.now);
        ctx.checker.resolved(call, said, local, self.stopped_until);
    }

    /// What was said and not answered waits for the next stream, unless the router ended this one: then it has said all.
    fn stream_ended(&mut self, at: usize, over: bool, ctx: &mut Ctx) {
        if let Some(conn) = self.lines[at].conn {
            let learns = ctx.latency();
            ctx.cut(conn, learns, 0);
        }
        let line = &mut self.lines[at];
        if over || line.token.is_empty() {
            line.token = Bytes::new();
            line.session += 1;
            for call in std::mem::take(&mut self.lines[at].sent) {
                self.resolve(call, Said::Unreachable(true), ctx);
            }
        }
        self.lines[at].hang_up();
        self.connect_later(at, ctx);
    }

    /// The connection it has.
    pub fn conn(&self) -> Option<u32> {
        self.lines[0].conn
    }
}

impl Line {
    /// Without a stream.
    pub(crate) fn hang_up(&mut self) {
        self.conn = None;
        (self.welcomed, self.closing, self.flushing) = (false, false, false);
        self.out.clear();
        self.declared.clear();
    }

    /// As new.
    fn forget(&mut self) {
        self.hang_up();
        self.sent.clear();
        self.token = Bytes::new();
        (self.session, self.waiting, self.tries) = (0, 0, 0);
    }

    fn declare(&mut self, action: u16) {
        let at = usize::from(action);
        if self.declared.len() <= at {
            self.declared.resize(at + 1, false);
        }
        if !std::mem::replace(&mut self.declared[at], true) {
            self.out.push(Up::Declare { number: action.into(), action });
        }
    }

    /// Remembers it, and now and then forgets those that were answered.
    fn note_sent(&mut self, call: Call, ctx: &Ctx) {
        self.sent.push(call);
        if self.sent.len() > 2 * self.waiting + 64 {
            self.sent.retain(|call| !ctx.asks[*call as usize].done);
            self.waiting = self.sent.len();
        }
    }
}
