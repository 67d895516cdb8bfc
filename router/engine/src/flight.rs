//! The matcher's activations in flight: completed, given back, lost with their container. What is queued is none of its business.

use crate::breaker::{Cause, Verdict};
use crate::container::ContainerKey;
use crate::effect::{Effect, Entry};
use crate::id::ActivationId;
use crate::input::Completion;
use crate::ledger::Whereabouts;
use crate::matcher::{Matcher, Place, Slot};
use crate::mutant::{Mutant, is};
use crate::outcome::{Answer, Outcome, Reason, Rejection, RunStatus, Stages};
use crate::slab::Key;
use crate::tally::Count;
use crate::time::Timestamp;
use crate::turn::Turn;
use bytes::Bytes;

impl Matcher {
    // Activations end.

    #[inline]
    pub(crate) fn complete(&mut self, container: ContainerKey, completion: Completion, turn: &mut Turn<'_>) {
        let Completion { id, status, result, run_us, credits, .. } = completion;
        let Some(slot) = self.take_in_flight(container, &id, turn) else { return };
        let granted = self.containers.completed(container, credits + u32::from(is(Mutant::CreditTwice)));
        let Place::InFlight { dispatched_at, answered, .. } = slot.place else { unreachable!("taken as in flight") };
        if answered {
            self.completed_late(container, &slot, status, turn);
        } else {
            let verdict = verdict_of_run(status, dispatched_at, turn);
            self.answer_run(&slot, dispatched_at, (status, result, run_us), turn);
            if verdict != Verdict::Good || self.is_guarded(container) {
                self.judge(container, verdict, dispatched_at, turn);
            }
        }
        self.granted(container, granted, turn);
        self.settle(turn);
    }

    /// A completion of what timed out before. Where the timeout said nothing of the container, because its time was not fair,
    /// the completion does: so a half-open breaker finds out under overload, too, that the container does well.
    #[cold]
    fn completed_late(&mut self, container: ContainerKey, slot: &Slot, status: RunStatus, turn: &mut Turn<'_>) {
        turn.tally.count(Count::Late);
        if is(Mutant::LateFreesTwice) {
            self.containers.free_place(container);
        }
        let began = slot.dispatched_at();
        let grace = turn.shared.limits.overdue_grace;
        let in_time = |fair| turn.now <= began + fair + grace;
        let verdict = match verdict_of_run(status, began, turn) {
            _ if slot.had_fair_time() => return,
            Verdict::Good if !slot.fair_time().is_some_and(in_time) => return,
            Verdict::Good => Verdict::GoodLate,
            strike => strike,
        };
        self.judge(container, verdict, began, turn);
    }

    #[inline]
    fn answer_run(
        &self,
        slot: &Slot,
        dispatched_at: Timestamp,
        (status, result, run_us): (RunStatus, Bytes, u32),
        turn: &mut Turn<'_>,
    ) {
        let stages = Stages {
            queue_us: dispatched_at.micros_since(slot.accepted_at),
            dispatch_us: turn.now.micros_since(dispatched_at).saturating_sub(run_us),
            run_us,
        };
        let (count, outcome) = match status {
            RunStatus::Succeeded => (Count::Completed, Outcome::Completed(result)),
            RunStatus::ActionFailed => (Count::ActionFailed, Outcome::ActionFailed(result)),
            RunStatus::PlatformFailed => (Count::PlatformFailed, Outcome::PlatformFailed(result)),
        };
        turn.tally.count(count);
        if is(Mutant::AnsweredTwice) {
            turn.answer(slot.controller, slot.reply, Answer { id: slot.id, outcome: outcome.clone(), stages });
        }
        if is(Mutant::FailureUnanswered) && status == RunStatus::ActionFailed {
            return;
        }
        turn.answer(slot.controller, slot.reply, Answer { id: slot.id, outcome, stages });
    }

    pub(crate) fn take_back(&mut self, container: ContainerKey, id: ActivationId, payload: Bytes, turn: &mut Turn<'_>) {
        let Some(at) = turn.shared.ledger.find(&id).filter(|at| self.is_in_flight(at, container, turn)) else {
            return self.refuse_foreign(container, &id, turn);
        };
        self.detach(at.slot, container);
        if !is(Mutant::ReturnKeepsPlace) {
            self.containers.left(container);
        }
        let slot = &mut self.slots[at.slot];
        if slot.is_answered() {
            turn.tally.count(Count::Late);
            self.forget(at.slot, turn);
        } else {
            turn.tally.count(Count::Returned);
            slot.attempt = slot.attempt.saturating_add(u32::from(!is(Mutant::AttemptNotRaised)));
            let began = slot.dispatched_at();
            self.judge(container, Verdict::Strike(Cause::Refused), began, turn);
            self.requeue(at.slot, payload, turn);
        }
        self.settle(turn);
    }

    /// Takes an activation off its container, if that is where it is; else refuses what the container said of it.
    #[inline]
    fn take_in_flight(&mut self, on: ContainerKey, id: &ActivationId, turn: &mut Turn<'_>) -> Option<Slot> {
        // Remembered as ended under the ledger's lock, before it is free: see `Shared::free_id`.
        let ends_here = |at: &Whereabouts| {
            let here = self.is_in_flight(at, on, turn);
            if here {
                turn.shared.recent.insert(id);
            }
            here
        };
        let Some(at) = turn.shared.ledger.free_if(id, ends_here) else {
            self.refuse_foreign(on, id, turn);
            return None;
        };
        self.detach(at.slot, on);
        self.slots.remove(at.slot)
    }

    pub(crate) fn is_in_flight(&self, at: &Whereabouts, on: ContainerKey, turn: &Turn<'_>) -> bool {
        let slot = self.slots.get(at.slot).filter(|_| at.action == turn.action.number());
        matches!(slot, Some(Slot { place: Place::InFlight { container, .. }, .. }) if *container == on)
    }

    /// Refuses what a container said of an activation that it does not have.
    fn refuse_foreign(&self, on: ContainerKey, id: &ActivationId, turn: &mut Turn<'_>) {
        let elsewhere = turn.shared.ledger.find(id).is_some();
        let reason = if elsewhere { Reason::NotDispatchedHere } else { Reason::NotInFlight };
        self.refuse(on, Rejection::new(reason, "id", 0), &id.0, turn);
    }

    // Containers go.

    pub(crate) fn retire(&mut self, key: ContainerKey, turn: &mut Turn<'_>) {
        if !is(Mutant::RetiredGetsWork) {
            self.revoke(key, turn);
        }
        // Each time it asks: it may not have seen the answer before. Nothing that is dispatched to it comes behind.
        self.drain(key, turn);
        self.settle(turn);
    }

    pub(crate) fn gone(&mut self, key: ContainerKey, turn: &mut Turn<'_>) {
        self.revoke(key, turn);
        let node = self.containers.get(key).map(|container| container.node.clone());
        let tripped = self.containers.get(key).and_then(|container| container.breaker.as_deref()?.tripped());
        let mut began = None;
        while let Some(slot) = self.containers.get(key).and_then(|container| container.activations.first()) {
            // The one dispatched last: if a probe is among them, it is that.
            began = Some(self.slots[slot].dispatched_at()).filter(|_| !self.slots[slot].is_answered()).or(began);
            if is(Mutant::RequeueOnGone) {
                self.detach(slot, key);
                self.requeue(slot, Bytes::new(), turn);
                continue;
            }
            self.lose(slot, key, turn);
        }
        // What a breaker of its own knew of it goes with it: its node is to remember that.
        let strike = began.map(|began| (Cause::Failed, began)).or(tripped);
        if let (Some(node), Some((cause, began))) = (&node, strike) {
            self.judge_node(node, Verdict::Strike(cause), began, turn);
        }
        self.stop_watching(key, turn);
        if self.containers.remove(key) {
            turn.tally.count(Count::ContainersLeft);
        }
        if let Some(node) = node.filter(|_| is(Mutant::DeadNodeForgotten)) {
            self.forget_node(&node);
        }
        self.settle(turn);
    }

    /// An activation in flight of which nothing more will be heard.
    pub(crate) fn lose(&mut self, key: Key, on: ContainerKey, turn: &mut Turn<'_>) {
        self.detach(key, on);
        let slot = self.forget(key, turn);
        let Place::InFlight { dispatched_at, answered, .. } = slot.place else { unreachable!("it was on a container") };
        if answered {
            return turn.tally.count(Count::LateLost);
        }
        turn.tally.count(Count::Lost);
        if is(Mutant::SilentOnGone) {
            return;
        }
        let queue_us = dispatched_at.micros_since(slot.accepted_at);
        let dispatch_us = turn.now.micros_since(dispatched_at);
        let stages = Stages { queue_us, dispatch_us, run_us: 0 };
        turn.answer(slot.controller, slot.reply, Answer { id: slot.id, outcome: Outcome::Lost, stages });
    }

    /// Tells a container that it gets nothing more.
    pub(crate) fn drain(&self, key: ContainerKey, turn: &mut Turn<'_>) {
        if let Some(container) = self.containers.get(key) {
            turn.effects.push(Effect::Write(container.stream, Entry::Drain(container.number, container.epoch)));
        }
    }

    /// Takes a container's credits away for good. True if it had not been done before.
    pub(crate) fn revoke(&mut self, key: ContainerKey, turn: &mut Turn<'_>) -> bool {
        let revoked = self.containers.retire(key);
        turn.tally.add(Count::CreditsRevoked, revoked.unwrap_or(0).into());
        revoked.is_some()
    }

    pub(crate) fn detach(&mut self, key: Key, from: ContainerKey) {
        let container = self.containers.get_mut(from).expect("it has this in flight");
        container.activations.remove(&mut self.slots, key);
    }
}

/// What a run says of its container.
#[inline]
fn verdict_of_run(status: RunStatus, dispatched_at: Timestamp, turn: &Turn<'_>) -> Verdict {
    match turn.shared.limits.slow_after {
        _ if is(Mutant::BreakerBlamesContainer) && status == RunStatus::ActionFailed => Verdict::Strike(Cause::Failed),
        _ if status == RunStatus::PlatformFailed => Verdict::Strike(Cause::Failed),
        Some(after) if dispatched_at + after < turn.now => Verdict::Strike(Cause::Slow),
        _ => Verdict::Good,
    }
}
