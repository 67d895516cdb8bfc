//! What the readers of streams do: check each entry and hand it in, or refuse it.

use super::{Member, Router, number, said, session};
use crate::ctx::Ctx;
use crate::net::{Parcel, Peer, Push, Register, Up};
use engine::container::{ContainerKey, Registration};
use engine::effect::{Effect, Entry};
use engine::hub::Action;
use engine::id::{ActivationId, NodeName, StreamId};
use engine::input::{self, Completion, Input, Rejoin};
use engine::outcome::{Answer, Outcome, Reason, Refusal, Rejection, Stages};
use engine::roster::Admission;
use engine::sessions::End;
use std::sync::Arc;

impl Router {
    /// Something arrived on a connection.
    pub fn receive(&mut self, conn: u32, parcel: Parcel<Up>, ctx: &mut Ctx) {
        let at = self.at(conn);
        match (parcel, at) {
            (Parcel::Frame(frame), at) => self.read(at, conn, frame, ctx),
            (Parcel::Finish, Some(at)) => self.finished(at, ctx),
            (Parcel::Broken, Some(at)) => self.ended(at, End::Broke, ctx),
            (_, None) => {}
        }
    }

    fn read(&mut self, at: Option<usize>, conn: u32, mut frame: Vec<Up>, ctx: &mut Ctx) {
        self.begin(ctx);
        let mut at = at;
        let mut owed = 0;
        let mut outstanding = Vec::new();
        for up in frame.drain(..) {
            match (up, at) {
                (Up::Hello { session }, _) => at = self.hello(conn, &session, ctx),
                (_, None) => break,
                (Up::Outstanding(id), _) => outstanding.push(id),
                (up, Some(at)) => owed += self.take(at, up, ctx),
            }
        }
        if let Some(at) = at {
            if !outstanding.is_empty() {
                self.tell_lost(at, outstanding, ctx);
            }
            if owed > 0 && self.sessions[at].mailbox.owe(owed) {
                self.plan_write(at, ctx);
            }
        }
        ctx.net.reuse_up(frame);
        self.hub.settle(&mut self.pass);
    }

    /// Handles an entry; returns how many answers it makes due.
    fn take(&mut self, at: usize, up: Up, ctx: &mut Ctx) -> i64 {
        match up {
            Up::Hello { .. } | Up::Outstanding(_) => {}
            Up::Declare { number, action } => self.declare(at, number, action, ctx),
            Up::Push(push) => {
                self.push(at, push, ctx);
                return 1;
            }
            Up::Register(register) => self.register(at, register, ctx),
            Up::Credit { container, epoch, credits } => {
                if let Some((action, key, judged)) = self.find(at, container, epoch, ctx) {
                    ctx.checker.credited(judged, credits);
                    self.enter(&action, Input::Credit(key, credits), ctx);
                }
            }
            Up::Complete { container, epoch, id, status, result, credits } => {
                if let Some((action, key, judged)) = self.find(at, container, epoch, ctx) {
                    if let Some(call) = ctx.call(id) {
                        ctx.checker.completion_read(judged, call, said(status), credits);
                    }
                    let completion = Completion { id, status, result, run_us: 1, arrived_at: self.pass.now, credits };
                    self.enter(&action, Input::Complete(key, completion), ctx);
                }
            }
            Up::Return { container, epoch, id, payload } => {
                if let Some((action, key, judged)) = self.find(at, container, epoch, ctx) {
                    if let Some(call) = ctx.call(id) {
                        ctx.checker.return_read(judged, call);
                    }
                    self.enter(&action, Input::Return(key, id, payload), ctx);
                }
            }
            Up::Leave { container, epoch, gone } => self.leave(at, container, epoch, gone, ctx),
            Up::Rejoined => {
                for member in self.sessions[at].roster.absent() {
                    ctx.checker.gone(member.judged);
                    self.enter(&member.action, Input::Gone(member.key), ctx);
                }
            }
            Up::Audit { container, epoch, credits, received } => {
                if let Some((action, key, judged)) = self.find(at, container, epoch, ctx) {
                    ctx.checker.audited(judged, credits, received);
                    self.enter(&action, Input::Audit(key, credits, received), ctx);
                }
            }
        }
        0
    }

    /// The peer says no more. A controller may still want its answers; a node that can say nothing more can complete nothing.
    fn finished(&mut self, at: usize, ctx: &mut Ctx) {
        if let Peer::Node { .. } = self.sessions[at].peer {
            return self.ended(at, End::Over, ctx);
        }
        self.controllers.leaving(StreamId(at as u64), self.sessions[at].attachment);
        self.sessions[at].mailbox.finish();
        self.plan_write(at, ctx);
    }

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
        let Push { id, action: action_number, left_ms, payload, reply, maybe_sent } = push;
        let Some(call) = ctx.call(id) else { return };
        let now = self.pass.now;
        let action = ctx.asks[call as usize].action;
        ctx.checker.read(now.as_micros(), call, number(at), action, left_ms, payload.len() as u64);
        let found = self.sessions[at].actions.get(action_number as usize).and_then(Clone::clone);
        let knows_us = self.sessions[at].knows_us;
        let checked = self.check_open().and_then(|()| {
            if maybe_sent && !knows_us {
                return Err(Rejection::new(Reason::OutcomeUnknown, "maybe_sent", 0));
            }
            let found = found.ok_or(Rejection::new(Reason::ActionUnknown, "action", 0))?;
            Ok((found, self.hub.limits().check_time_left(left_ms)?))
        });
        match checked {
            Ok((found, left)) => {
                let (controller, deadline) = (StreamId(at as u64), now + left);
                let accepted_at = now;
                let push = input::Push {
                    id,
                    controller,
                    reply,
                    attempt: 1,
                    accepted_at,
                    deadline,
                    payload,
                    accepted: false,
                    refilled: false,
                };
                self.enter(&found, Input::Push(push), ctx);
            }
            Err(rejection) => {
                self.pass.tally.rejected(rejection.reason);
                let answer = Answer::rejected(id, rejection);
                self.pass.performer.0.push(Effect::Write(StreamId(at as u64), Entry::Answer(answer)));
                self.carry_out(ctx);
                self.settled(ctx);
            }
        }
    }

    fn check_open(&self) -> Result<(), Rejection> {
        if self.draining { Err(Rejection::new(Reason::Draining, "", 0)) } else { Ok(()) }
    }

    /// Answers those of which the controller will hear nothing else.
    fn tell_lost(&mut self, at: usize, mut ids: Vec<ActivationId>, ctx: &mut Ctx) {
        ids.retain(|id| self.has_not_answered(at, id));
        let earlier = std::mem::take(&mut self.sessions[at].earlier);
        let session = StreamId(at as u64);
        let mut taken = self.hub.drop_owed(&mut ids, session, &earlier, &mut self.pass);
        ids.iter().for_each(|id| self.hub.end(id));
        taken.extend(self.hub.drop_owed(&mut ids, session, &earlier, &mut self.pass));
        self.sessions[at].earlier = earlier;
        self.carry_out(ctx);
        ids.retain(|id| self.has_not_answered(at, id));
        taken.retain(|(id, _)| self.has_not_answered(at, id));
        if self.sessions[at].mailbox.is_closed() {
            // It let more pile up than it may: nothing reaches it any more, and its stream is about to end.
            return;
        }
        for id in ids {
            if let Some(call) = ctx.call(id) {
                ctx.checker.told_lost(call, number(at));
            }
            self.sessions[at].mailbox.owe(1);
            let answer = Answer { id, outcome: Outcome::Lost, stages: Stages::default() };
            self.fill(at, Entry::Answer(answer), ctx);
        }
        for (id, durability) in taken {
            if let Some(call) = ctx.call(id) {
                ctx.checker.told_accepted(call, number(at));
            }
            self.sessions[at].mailbox.owe(1);
            let answer = Answer { id, outcome: Outcome::Accepted(durability), stages: Stages::default() };
            self.fill(at, Entry::Answer(answer), ctx);
        }
    }

    /// Whether an answer is known not to be there. Where nothing is known any more nobody is told anything.
    fn has_not_answered(&self, at: usize, id: &ActivationId) -> bool {
        self.sessions[at].mailbox.has_answered(id) == Some(false)
    }

    fn register(&mut self, at: usize, register: Register, ctx: &mut Ctx) {
        let Register { container, epoch, action, concurrency, credits, warm, held } = register;
        let Peer::Node { .. } = self.sessions[at].peer else { return };
        let key = ctx.keys[usize::from(action)].clone();
        let is_same = |member: &Member| *member.action.key() == key && member.concurrency == concurrency;
        let gone = match self.sessions[at].roster.admit(container, epoch, is_same) {
            Ok(Admission::New) => None,
            Ok(Admission::Replaces(gone)) => Some(gone),
            Ok(Admission::Rejoins(member)) => {
                let (action, key, judged) = (member.action.clone(), member.key, member.judged);
                let calls: Vec<_> = held.iter().filter_map(|id| ctx.call(*id)).collect();
                ctx.checker.rejoined(judged, credits, &calls);
                return self.enter(&action, Input::Rejoin(key, Rejoin { credits, held }), ctx);
            }
            Err(rejection) => return self.refuse(at, rejection, container, ctx),
        };
        if let Some(gone) = gone {
            ctx.checker.gone(gone.judged);
            self.enter(&gone.action, Input::Gone(gone.key), ctx);
        }
        let room = self.sessions[at].mailbox.room().clone();
        let stream = StreamId(at as u64);
        let node = NodeName::new(&session::name(self.sessions[at].peer).escape_ascii().to_string());
        let new = Registration { stream, node, number: container, epoch, concurrency, credits, warm, room };
        let fits = credits <= concurrency;
        let judged = fits.then(|| ctx.checker.registered(number(at), container, epoch, action, concurrency, credits));
        match self.hub.register(&key, new, &mut self.pass) {
            Ok((action, key)) => {
                let judged = judged.unwrap_or(u32::MAX);
                self.sessions[at].roster.enter(
                    container,
                    epoch,
                    Member { action, key, concurrency, told_of_drain: false, judged },
                );
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
        let Some((action, key, judged)) = self.find(at, container, epoch, ctx) else { return };
        if gone {
            self.sessions[at].roster.remove(container);
            ctx.checker.gone(judged);
            self.enter(&action, Input::Gone(key), ctx);
        } else {
            ctx.checker.retire_read(judged);
            self.enter(&action, Input::Retire(key), ctx);
        }
    }

    /// The container that an entry names; else the entry is refused.
    fn find(
        &mut self,
        at: usize,
        container: u32,
        epoch: u32,
        ctx: &mut Ctx,
    ) -> Option<(Arc<Action>, ContainerKey, u32)> {
        match self.sessions[at].roster.find(container, epoch) {
            Ok(member) => {
                ctx.checker.named(member.judged, container, epoch);
                Some((member.action.clone(), member.key, member.judged))
            }
            Err(rejection) => {
                self.refuse(at, rejection, container, ctx);
                None
            }
        }
    }

    fn refuse(&mut self, at: usize, rejection: Rejection, container: u32, ctx: &mut Ctx) {
        self.pass.tally.refused(rejection.reason);
        let refusal = Refusal::new(rejection, container, &[]);
        self.pass.performer.0.push(Effect::Write(StreamId(at as u64), Entry::Refuse(refusal)));
        self.carry_out(ctx);
    }
}
