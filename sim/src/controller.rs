//! A controller as a stranger would write one from the proto files: its own timer for each caller, batches, duplicates, and
//! another stream whenever one ends. The callers come by themselves.

use crate::check::{Call, Said};
use crate::clock::Clock;
use crate::ctx::{Ask, Ctx, Event};
use crate::mailbox::Entry;
use crate::net::{Down, Parcel, Peer, Push, Up};
use crate::router::outcome_said;
use bytes::Bytes;
use engine::outcome::{Outcome, Reply};

/// The process.
#[derive(Debug, Default)]
pub struct Controller {
    index: u16,
    /// Which of its lives it is in.
    pub incarnation: u32,
    clock: Clock,
    /// It runs.
    pub up: bool,
    line: Line,
    /// On its own clock: until when it last stood still.
    stopped_until: u64,
    /// Callers that it will still get.
    pub to_come: u32,
}

/// A stream and what it is for.
#[derive(Debug, Default)]
struct Line {
    conn: Option<u32>,
    welcomed: bool,
    draining: bool,
    out: Vec<Up>,
    flushing: bool,
    declared: Vec<bool>,
    /// Sent on this stream, answered or not.
    sent: Vec<Call>,
    waiting: usize,
}

impl Controller {
    /// As before the world began.
    pub fn clear(&mut self, index: u16, clock: Clock, to_come: u32) {
        (self.index, self.clock, self.to_come) = (index, clock, to_come);
        (self.incarnation, self.up, self.stopped_until) = (0, false, 0);
        self.line.clear();
    }

    fn peer(&self) -> Peer {
        Peer::Controller { index: self.index, line: 0 }
    }

    /// The process starts.
    pub fn start(&mut self, ctx: &mut Ctx) {
        self.up = true;
        self.incarnation += 1;
        let wait = ctx.dice.below(ctx.plan.reconnect_us);
        ctx.after(wait, Event::Connect { peer: self.peer(), incarnation: self.incarnation });
    }

    /// The process dies, and its callers with it.
    pub fn die(&mut self, ctx: &mut Ctx) {
        self.up = false;
        ctx.checker.orphaned(self.index);
        if let Some(conn) = self.line.conn {
            let learns = ctx.latency();
            ctx.cut(conn, learns, 0);
        }
        self.line.clear();
    }

    /// The process stood still until now.
    pub fn stood_still(&mut self, now: u64) {
        self.stopped_until = self.clock.read(now);
    }

    /// Tries to connect; `reachable` is the router's life, if it can be reached.
    pub fn connect(&mut self, reachable: Option<u32>, ctx: &mut Ctx) {
        if self.line.conn.is_some() {
            return;
        }
        let Some(life) = reachable else { return self.connect_later(ctx) };
        let conn = ctx.net.open(self.peer(), self.incarnation, life);
        self.line.conn = Some(conn);
        let mut frame = ctx.net.up_frame();
        frame.push(Up::Hello { session: Bytes::new() });
        ctx.send_up(conn, frame);
    }

    fn connect_later(&mut self, ctx: &mut Ctx) {
        let wait = 1 + ctx.dice.below(ctx.plan.reconnect_us * 2);
        ctx.after(wait, Event::Connect { peer: self.peer(), incarnation: self.incarnation });
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
        ctx.asks.push(Ask { action, reply, deadline, copies: 0, done: false });
        // Armed before anything leaves.
        let due = self.clock.when(answer_by);
        ctx.agenda.plan(due, Event::CallerDue { controller: self.index, incarnation: self.incarnation, call });
        self.submit(call, timeout, ctx);
    }

    fn submit(&mut self, call: Call, left_ms: u32, ctx: &mut Ctx) {
        if !self.line.welcomed {
            return self.resolve(call, Said::Unreachable(false), ctx);
        }
        if self.line.draining {
            return self.resolve(call, Said::rejected(engine::outcome::Reason::Draining), ctx);
        }
        let (action, reply) = (ctx.asks[call as usize].action, ctx.asks[call as usize].reply);
        self.declare(action);
        let (id, payload) = (ctx.id(call), ctx.payload(call));
        let push = Push { id, action: action.into(), left_ms, payload, reply, maybe_sent: false };
        self.line.out.push(Up::Push(push));
        ctx.asks[call as usize].copies += 1;
        self.line.note_sent(call, ctx);
        self.plan_flush(ctx);
    }

    fn declare(&mut self, action: u16) {
        let at = usize::from(action);
        if self.line.declared.len() <= at {
            self.line.declared.resize(at + 1, false);
        }
        if !std::mem::replace(&mut self.line.declared[at], true) {
            self.line.out.push(Up::Declare { number: action.into(), action });
        }
    }

    fn plan_flush(&mut self, ctx: &mut Ctx) {
        if !std::mem::replace(&mut self.line.flushing, true) {
            let wait = if ctx.plan.batch_us == 0 { 0 } else { ctx.dice.below(ctx.plan.batch_us) };
            ctx.after(wait, Event::Flush { peer: self.peer(), incarnation: self.incarnation });
        }
    }

    /// Writes what there is to say.
    pub fn flush(&mut self, ctx: &mut Ctx) {
        self.line.flushing = false;
        let Some(conn) = self.line.conn.filter(|_| !self.line.out.is_empty()) else { return };
        let mut frame = ctx.net.up_frame();
        frame.append(&mut self.line.out);
        ctx.send_up(conn, frame);
    }

    /// Something arrived.
    pub fn receive(&mut self, conn: u32, parcel: Parcel<Down>, ctx: &mut Ctx) {
        if self.line.conn != Some(conn) {
            if let Parcel::Frame(frame) = parcel {
                ctx.net.reuse_down(frame);
            }
            return;
        }
        match parcel {
            Parcel::Frame(mut frame) => {
                frame.drain(..).for_each(|down| self.take(down, ctx));
                ctx.net.reuse_down(frame);
            }
            Parcel::Finish | Parcel::Broken => self.stream_ended(conn, ctx),
        }
    }

    fn take(&mut self, down: Down, ctx: &mut Ctx) {
        match down {
            Down::Welcome { .. } => self.line.welcomed = true,
            Down::Entry(Entry::Answer(answer)) => {
                let Some(call) = ctx.call(answer.id) else { return };
                let said = outcome_said(&answer.outcome);
                ctx.checker.heard(call, self.index, said);
                if let Outcome::Completed(result) | Outcome::ActionFailed(result) | Outcome::PlatformFailed(result) =
                    &answer.outcome
                    && *result != ctx.result(call)
                {
                    ctx.checker.wrong_result(call);
                }
                let ask = &mut ctx.asks[call as usize];
                ask.copies = ask.copies.saturating_sub(1);
                self.resolve(call, said, ctx);
            }
            Down::Entry(Entry::Draining) => self.line.draining = true,
            Down::Entry(_) => {}
        }
    }

    /// A caller has waited long enough.
    pub fn caller_due(&mut self, call: Call, ctx: &mut Ctx) {
        self.resolve(call, Said::TimedOut, ctx);
    }

    fn resolve(&mut self, call: Call, said: Said, ctx: &mut Ctx) {
        if std::mem::replace(&mut ctx.asks[call as usize].done, true) {
            return;
        }
        let local = self.clock.read(ctx.now);
        ctx.checker.resolved(call, said, local, self.stopped_until);
    }

    fn stream_ended(&mut self, conn: u32, ctx: &mut Ctx) {
        let learns = ctx.latency();
        ctx.cut(conn, learns, 0);
        for call in std::mem::take(&mut self.line.sent) {
            self.resolve(call, Said::Unreachable(true), ctx);
        }
        self.line.clear();
        self.connect_later(ctx);
    }

    /// The connection it has.
    pub fn conn(&self) -> Option<u32> {
        self.line.conn
    }

    /// How many callers wait, as it sees it.
    pub fn waiting(&self) -> usize {
        self.line.waiting
    }
}

impl Line {
    fn clear(&mut self) {
        self.conn = None;
        (self.welcomed, self.draining, self.flushing) = (false, false, false);
        self.out.clear();
        self.declared.clear();
        self.sent.clear();
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
