//! The project's own controller: the client's desk decides, and here is what its shell does around it, by hand and in virtual time.

use crate::check::{Call, Said};
use crate::controller::Controller;
use crate::ctx::{Ctx, Event};
use crate::net::{Down, Parcel, Push, Up};
use bytes::Bytes;
use client::desk::{Desk, Effect, End, Entry};
use client::{ActionKey, Answer, BreakerPolicy, ControllerConfig, Invocation};
use engine::effect;
use engine::id::ActivationId;
use engine::outcome::{self, Outcome, Reply};
use engine::time::Timestamp;
use proto::v1;
use std::time::Duration;

/// A desk and its timer.
#[derive(Debug)]
pub(crate) struct DeskSide {
    desk: Desk<Call>,
    keys: Vec<ActionKey>,
    effects: Vec<Effect<Call>>,
}

impl DeskSide {
    /// A desk without a stream.
    pub(crate) fn new(local: u64, ctx: &mut Ctx) -> Self {
        let config = ControllerConfig {
            answer_grace: Duration::from_millis(ctx.plan.answer_grace_ms),
            breaker: ctx.plan.desk_breaker.then(BreakerPolicy::default),
            ..ControllerConfig::default()
        };
        let names = ctx.keys.iter().take(ctx.plan.actions.into());
        let keys = names.filter_map(|key| ActionKey::new(key.name.namespace(), key.name.action(), &key.revision).ok());
        let desk = Desk::new(config, ctx.dice.roll(), Timestamp::from_micros(local));
        Self { desk, keys: keys.collect(), effects: Vec::new() }
    }

    /// What names its session.
    pub(crate) fn session(&self) -> Bytes {
        self.desk.session().clone()
    }
}

impl Controller {
    /// A caller's activation goes to the desk.
    pub(crate) fn submit_to_desk(&mut self, call: Call, timeout_ms: u64, ctx: &mut Ctx) {
        let ask = &ctx.asks[call as usize];
        let (action, reply) = (ask.action, ask.reply);
        let payload = ctx.payload(call);
        let now = Timestamp::from_micros(self.clock.read(ctx.now));
        let Some(side) = &mut self.desk else { return };
        let invocation = Invocation::new(&side.keys[usize::from(action)], payload);
        let invocation = invocation.deadline(Duration::from_millis(timeout_ms));
        let invocation = if reply == Reply::Accepted { invocation.fire() } else { invocation };
        let id = side.desk.submit(now, invocation, call, &mut side.effects);
        ctx.name(call, ActivationId(id.bytes()));
        self.carry_out(ctx);
    }

    /// Something arrived for the desk.
    pub(crate) fn desk_receives(&mut self, parcel: Parcel<Down>, ctx: &mut Ctx) {
        let now = Timestamp::from_micros(self.clock.read(ctx.now));
        match parcel {
            Parcel::Frame(mut frame) => {
                let mut response = v1::PushResponse::default();
                for down in frame.drain(..) {
                    self.gather(down, &mut response, ctx);
                }
                ctx.net.reuse_down(frame);
                if let Some(side) = &mut self.desk {
                    if let Some(welcome) = response.welcome.take() {
                        side.desk.handle_opened(now, &welcome, &mut side.effects);
                        self.lines[0].welcomed = true;
                    }
                    side.desk.handle_frame(now, response, &mut side.effects);
                }
            }
            Parcel::Finish => self.desk_stream_ended(End::Over, now, ctx),
            Parcel::Broken => self.desk_stream_ended(End::Broken, now, ctx),
        }
        self.carry_out(ctx);
    }

    fn gather(&mut self, down: Down, response: &mut v1::PushResponse, ctx: &mut Ctx) {
        match down {
            Down::Welcome { session, resumed } => {
                let grace_ms = u32::try_from(ctx.plan.controller_grace_ms).unwrap_or(u32::MAX);
                let welcome = v1::Welcome { session, resumed, grace_ms, frame_entries_max: 4096, ..Default::default() };
                response.welcome = Some(welcome);
            }
            Down::Entry(effect::Entry::Answer(answer)) => {
                if let Some(call) = ctx.call(answer.id) {
                    ctx.checker.heard(call, self.index, crate::router::outcome_said(&answer.outcome));
                    self.lines[0].tries = 0;
                }
                response.answers.push(on_the_wire(answer));
            }
            Down::Entry(effect::Entry::Draining) => response.draining = true,
            Down::Entry(_) => {}
        }
    }

    fn desk_stream_ended(&mut self, end: End, now: Timestamp, ctx: &mut Ctx) {
        let line = &mut self.lines[0];
        if let Some(conn) = line.conn {
            let learns = ctx.latency();
            ctx.cut(conn, learns, 0);
        }
        // What is in no frame yet has provably not left.
        let unsent: Vec<v1::Activation> = line.out.drain(..).filter_map(unsent).collect();
        line.hang_up();
        if let Some(side) = &mut self.desk {
            side.desk.handle_ended(now, end, unsent, &mut side.effects);
        }
        self.connect_later(0, ctx);
    }

    /// The desk's timers are due.
    pub(crate) fn desk_due(&mut self, ctx: &mut Ctx) {
        let now = Timestamp::from_micros(self.clock.read(ctx.now));
        let most = ctx.plan.timers_at_once;
        if let Some(side) = &mut self.desk {
            while side.desk.advance(now, most, &mut side.effects) {}
            let next = side.desk.next_wake();
            self.wake_desk(next, ctx);
        }
        self.carry_out(ctx);
    }

    fn wake_desk(&mut self, at: Option<Timestamp>, ctx: &mut Ctx) {
        if let Some(at) = at {
            let at = self.clock.when(at.as_micros()).max(ctx.now + 1);
            ctx.agenda.plan(at, Event::DeskDue { controller: self.index, incarnation: self.incarnation });
        }
    }

    fn carry_out(&mut self, ctx: &mut Ctx) {
        let Some(side) = &mut self.desk else { return };
        let effects = std::mem::take(&mut side.effects);
        let wake = if side.desk.must_wake_sooner() { side.desk.next_wake() } else { None };
        self.wake_desk(wake, ctx);
        for effect in effects {
            match effect {
                Effect::Send(entry) => self.append(entry, ctx),
                Effect::Answer(call, answer) => {
                    self.judge_result(call, &answer, ctx);
                    self.resolve(call, said(&answer.outcome), ctx);
                }
            }
        }
        if !self.lines[0].out.is_empty() {
            self.plan_flush(0, ctx);
        }
    }

    fn append(&mut self, entry: Entry, ctx: &Ctx) {
        let out = &mut self.lines[0].out;
        match entry {
            Entry::Declare(declare) => {
                let key = declare.key.unwrap_or_default();
                let same = |known: &&engine::id::ActionKey| known.name.action().as_bytes() == &key.action[..];
                if let Some(action) = ctx.keys.iter().position(|known| same(&known)) {
                    let action = u16::try_from(action).unwrap_or(u16::MAX);
                    out.push(Up::Declare { number: declare.number, action });
                }
            }
            Entry::Activation(activation) => out.push(Up::Push(Push {
                id: read_id(&activation.id),
                action: activation.action,
                left_ms: activation.time_left_ms,
                payload: activation.payload,
                reply: if activation.reply == v1::Reply::Accepted as i32 { Reply::Accepted } else { Reply::Outcome },
                maybe_sent: activation.maybe_sent,
            })),
            Entry::Outstanding(ids) => out.extend(ids.iter().map(|id| Up::Outstanding(read_id(id)))),
        }
    }

    fn judge_result(&self, call: Call, answer: &Answer, ctx: &mut Ctx) {
        use client::Outcome::{ActionFailed, Completed, PlatformFailed};
        if let Completed(result) | ActionFailed(result) | PlatformFailed(result) = &answer.outcome
            && *result != ctx.result(call)
        {
            ctx.checker.wrong_result(call);
        }
    }
}

fn unsent(up: Up) -> Option<v1::Activation> {
    let Up::Push(Push { id, payload, reply, .. }) = up else { return None };
    let reply = if reply == Reply::Accepted { v1::Reply::Accepted } else { v1::Reply::Outcome };
    Some(v1::Activation { id: Bytes::copy_from_slice(&id.0), payload, reply: reply.into(), ..Default::default() })
}

fn read_id(bytes: &[u8]) -> ActivationId {
    ActivationId(bytes.try_into().unwrap_or_default())
}

fn said(outcome: &client::Outcome) -> Said {
    use client::Outcome as Of;
    match outcome {
        Of::Completed(_) => Said::Completed,
        Of::ActionFailed(_) => Said::ActionFailed,
        Of::PlatformFailed(_) => Said::PlatformFailed,
        Of::Expired => Said::Expired,
        Of::Rejected(rejection) => Said::rejected(reason(rejection)),
        Of::Lost => Said::Lost,
        Of::Accepted(_) => Said::Accepted,
        Of::TimedOut => Said::TimedOut,
        Of::CircuitOpen { .. } => Said::CircuitOpen,
        Of::Unreachable { maybe_sent } => Said::Unreachable(*maybe_sent),
    }
}

/// The reason in the engine's words; the client's own are said as if the router were full.
fn reason(rejection: &client::Rejection) -> outcome::Reason {
    let client::Reason::Router(reason) = rejection.reason else { return outcome::Reason::RouterFull };
    let name = reason.as_str_name().trim_start_matches("REASON_").to_lowercase();
    let known = outcome::Reason::ALL.iter().find(|known| known.label() == name);
    known.copied().unwrap_or(outcome::Reason::RouterFull)
}

fn on_the_wire(answer: outcome::Answer) -> v1::Answer {
    let mut wire = v1::Answer { id: Bytes::copy_from_slice(&answer.id.0), ..Default::default() };
    let outcome = match answer.outcome {
        Outcome::Completed(result) => {
            wire.result = result;
            v1::Outcome::Completed
        }
        Outcome::ActionFailed(result) => {
            wire.result = result;
            v1::Outcome::ActionFailed
        }
        Outcome::PlatformFailed(result) => {
            wire.result = result;
            v1::Outcome::PlatformFailed
        }
        Outcome::Expired => v1::Outcome::Expired,
        Outcome::Lost => v1::Outcome::Lost,
        Outcome::TimedOut => v1::Outcome::TimedOut,
        Outcome::Rejected(why) => {
            let name = format!("REASON_{}", why.reason.label().to_uppercase());
            let reason = v1::Reason::from_str_name(&name).unwrap_or_default();
            wire.rejection = Some(Box::new(v1::Rejection { reason: reason.into(), ..Default::default() }));
            v1::Outcome::Rejected
        }
        Outcome::Accepted(durability) => {
            let durability = match durability {
                outcome::Durability::Memory => v1::Durability::Memory,
                outcome::Durability::Durable => v1::Durability::Durable,
            };
            wire.durability = durability.into();
            v1::Outcome::Accepted
        }
    };
    wire.outcome = outcome.into();
    wire
}
