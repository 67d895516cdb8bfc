//! One action's matcher: who waits, who has room, who gets what. Plain sequential code behind the single-file intake.
//!
//! ```text
//!             push, a credit is waiting                      complete
//!   (new) ──────────────────────────────────▶ in flight ───────────────▶ completed / failed
//!     │                                        ▲     │ │ │ container gone, or back without it
//!     │ push, none is      match               │     │ │ └────────────────▶ lost
//!     └──────────────▶ queued ─────────────────┘     │ │ deadline and a grace
//!                       │ ▲   returned or unsent     │ └──────────────────▶ timed out, and on its container for now
//!                       │ └──────────────────────────┘
//!                       └─ deadline ─▶ expired          (rejected: never enters)
//! ```

use crate::breaker::{Cause, Verdict};
use crate::budget::Budget;
use crate::container::{Choice, ContainerKey, Containers, Registration, Room};
use crate::effect::{Dispatch, Effect, Entry};
use crate::hub::Action;
use crate::id::{ActivationId, StreamId};
use crate::input::{Completion, Input, Push};
use crate::lanes::Lanes;
use crate::ledger::{Ledger, Whereabouts};
use crate::limits::Limits;
use crate::list::{Linked, Links, List};
use crate::mutant::{Mutant, is};
use crate::nodes::Nodes;
use crate::outcome::{Answer, Durability, Outcome, Reason, Refusal, Rejection, Reply, RunStatus, Stages};
use crate::pace::Pace;
use crate::recent::Recent;
use crate::slab::{Key, Slab};
use crate::spill::Overflowing;
use crate::sync::{AtomicU64, Ordering};
use crate::tally::{Count, Tally};
use crate::time::Timestamp;
use crate::timers::{Timer, Timers};
use crate::wheel::Armed;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// What all actions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) ledger: Ledger,
    pub(crate) recent: Recent,
    /// Ids that went out of memory lately: one that comes again is a repetition, too.
    pub(crate) stored: Recent,
    /// Where what overflows goes.
    pub(crate) lanes: Option<Lanes>,
    pub(crate) budget: Budget,
    pub(crate) timers: Timers,
    pub(crate) seed: u64,
    /// How often a random number was drawn.
    pub(crate) drawn: AtomicU64,
}

/// One matcher's turn: what it decides with and where its decisions go.
pub(crate) struct Turn<'a> {
    pub(crate) now: Timestamp,
    pub(crate) shared: &'a Shared,
    /// The action whose turn it is.
    pub(crate) action: &'a Arc<Action>,
    pub(crate) effects: &'a mut Vec<Effect>,
    pub(crate) tally: &'a mut Tally,
    /// Inputs that belong to another action; handed in there once this turn is over.
    pub(crate) elsewhere: &'a mut VecDeque<(Arc<Action>, Input)>,
}

/// Queue, containers and activations in flight of one action.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    /// Every accepted activation, queued or in flight.
    pub(crate) slots: Slab<Slot>,
    /// The queued ones, first in, first out.
    pub(crate) queue: List,
    pub(crate) queued: u64,
    queued_bytes: u64,
    /// Once there was a refusal.
    pace: Option<Box<Pace>>,
    pub(crate) containers: Containers,
    /// The breakers of nodes, once there was a strike.
    pub(crate) nodes: Option<Box<Nodes>>,
    /// Of the next activation; wraps.
    pub(crate) sequence: u32,
    /// What it has outside of memory.
    pub(crate) overflowing: Option<Box<Overflowing>>,
    /// The current revision of the action, if this is not it.
    newer: Option<Arc<Action>>,
    /// The latest time it was told.
    latest: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: ActivationId,
    pub(crate) controller: StreamId,
    pub(crate) reply: Reply,
    /// Order of admission: a returned activation finds its place by it.
    pub(crate) sequence: u32,
    pub(crate) attempt: u32,
    /// Bytes that are reserved for it on its way out of memory; 0: it is not on it. It is queued nowhere then, and not accepted yet.
    pub(crate) spilling: u32,
    pub(crate) accepted_at: Timestamp,
    pub(crate) deadline: Timestamp,
    pub(crate) place: Place,
    pub(crate) links: Links,
}

#[derive(Debug)]
pub(crate) enum Place {
    Queued {
        payload: Bytes,
        armed: Option<Armed>,
    },
    InFlight {
        container: ContainerKey,
        dispatched_at: Timestamp,
        /// It was overdue.
        answered: bool,
    },
}

/// What a container gets. It is made before the slot of a new activation is written: what is read behind that waits until it has
/// reached the cache.
struct Parcel {
    id: ActivationId,
    attempt: u32,
    deadline: Timestamp,
    payload: Bytes,
}

impl Linked for Slot {
    fn links(&self) -> &Links {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Slot {
    /// Whether its controller has heard of it already, though it is still in flight.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.place, Place::InFlight { answered: true, .. })
    }

    pub(crate) fn is_spilling(&self) -> bool {
        self.spilling > 0
    }

    /// When it was dispatched; it is in flight.
    pub(crate) fn dispatched_at(&self) -> Timestamp {
        let Place::InFlight { dispatched_at, .. } = self.place else { unreachable!("it is in flight") };
        dispatched_at
    }
}

impl Matcher {
    pub(crate) fn handle(&mut self, input: Input, turn: &mut Turn<'_>) {
        self.catch_up(&input, turn);
        match input {
            Input::Push(push) => self.push(push, turn),
            Input::Credit(container, credits) => self.credit(container, credits, turn),
            Input::Complete(container, completion) => self.complete(container, completion, turn),
            Input::Return(container, id, payload) => self.take_back(container, id, payload, turn),
            Input::Suspend(container) => self.suspend(container),
            Input::Unsent(container, id, payload) => self.unsent(container, id, payload, turn),
            Input::Rejoin(container, rejoin) => self.rejoin(container, rejoin, turn),
            Input::Audit(container, credits, received) => self.audit(container, credits, received, turn),
            Input::Retire(container) => self.retire(container, turn),
            Input::Gone(container) => self.gone(container, turn),
            Input::Resume(container) => self.resume(container, turn),
            Input::Expire(key) => self.deadline_has_come(key, turn),
            Input::Look(container) => self.look(container, turn),
            Input::Stored(slot, how) => self.stored(slot, how, turn),
            Input::Refilled(refilled) => self.refilled(*refilled, turn),
            Input::Recall(lane, end) => self.recall(lane, end, turn),
            Input::Supersede(newer) => self.supersede(newer, turn),
        }
    }

    pub(crate) fn register(&mut self, new: Registration, turn: &mut Turn<'_>) -> Result<ContainerKey, Rejection> {
        turn.now = self.latest.max(turn.now);
        let credits = new.credits;
        let key = self.containers.register(new)?;
        turn.tally.count(Count::ContainersRegistered);
        turn.tally.add(Count::CreditsGranted, credits.into());
        self.guard(key, turn);
        self.settle(turn);
        Ok(key)
    }

    /// A thread may be at it for others long after its pass began, and another come whose pass began earlier. Time goes on
    /// meanwhile, and pushes and completions tell how far.
    fn catch_up(&mut self, input: &Input, turn: &mut Turn<'_>) {
        let arrived = match input {
            Input::Push(push) => push.accepted_at,
            Input::Complete(_, completion) => completion.arrived_at,
            _ => Timestamp::ZERO,
        };
        self.latest = self.latest.max(turn.now).max(arrived);
        turn.now = self.latest;
    }

    /// Whether the activation in that slot is to be answered in that session; None: another one is there, or none.
    pub(crate) fn owes(&self, slot: Key, id: &ActivationId, session: StreamId) -> Option<bool> {
        let slot = self.slots.get(slot).filter(|slot| slot.id == *id)?;
        // One on its way into the store has not been acknowledged yet.
        let spilling = slot.is_spilling() && !is(Mutant::SpillingTakenForLost);
        let awaited = slot.reply == Reply::Outcome || spilling;
        Some(slot.controller == session && awaited && !slot.is_answered())
    }

    /// Since when it has had nothing to do, as far as it knows: nothing queued, nothing in flight, no containers.
    pub(crate) fn idle_since(&self) -> Option<Timestamp> {
        (self.is_quiet() && self.containers.is_empty()).then_some(self.latest)
    }

    /// Nothing queued, nothing in flight, nothing outside of memory.
    pub(crate) fn is_quiet(&self) -> bool {
        self.slots.is_empty() && self.overflowing.is_none()
    }

    // Activations come in.

    fn push(&mut self, push: Push, turn: &mut Turn<'_>) {
        if let Some(newer) = &self.newer {
            turn.tally.count(Count::Redirected);
            return turn.elsewhere.push_back((newer.clone(), Input::Push(push)));
        }
        let (controller, id) = (push.controller, push.id);
        let admitted = if push.deadline <= turn.now {
            self.too_late(&push, turn)
        } else {
            let first = self.queue.is_empty() && self.overflowing.is_none();
            let container = if first { self.choose(turn) } else { None };
            match container {
                Some(container) => self.start(push, container, turn),
                None => self.enqueue(push, turn),
            }
        };
        if let Err(rejection) = admitted {
            // A repetition is told that it is one, also where there is no room: else its controller takes it for never started.
            let known = turn.shared.known(&id).filter(|_| !is(Mutant::RepetitionTakenForNew));
            let rejection = known.unwrap_or(rejection);
            turn.reject(controller, id, rejection);
        }
    }

    /// Hands a new activation straight to the container chosen for it.
    fn start(&mut self, mut push: Push, container: ContainerKey, turn: &mut Turn<'_>) -> Result<(), Rejection> {
        let Push { id, attempt, deadline, .. } = push;
        let parcel = Parcel { id, attempt, deadline, payload: std::mem::take(&mut push.payload) };
        let place = Place::InFlight { container, dispatched_at: turn.now, answered: false };
        let admitted = self.admit(&push, place, turn);
        let key = admitted.inspect_err(|_| self.containers.unchoose(container))?;
        turn.tally.count(Count::Matched);
        self.send(key, container, parcel, turn);
        Ok(())
    }

    /// Queues a new activation, in memory if there is room.
    fn enqueue(&mut self, push: Push, turn: &mut Turn<'_>) -> Result<(), Rejection> {
        let why = self.why_queued();
        let bytes = push.payload.len() as u64;
        if !self.is_out() || push.accepted || is(Mutant::OutGoesToMemory) {
            match self.reserve(bytes, push.accepted, turn) {
                Ok(()) => return self.queue_up(push, why, turn),
                Err(met) => self.overflow(met, turn)?,
            }
        }
        self.spill(push, turn).inspect_err(|_| {
            // With nothing on its way it overflows no more.
            self.tend(turn);
        })
    }

    /// Queues a new activation, for which room is reserved.
    fn queue_up(&mut self, push: Push, why: Count, turn: &mut Turn<'_>) -> Result<(), Rejection> {
        let bytes = push.payload.len() as u64;
        let place = Place::Queued { payload: compact(&push.payload), armed: None };
        let admitted = self.admit(&push, place, turn);
        let key = admitted.inspect_err(|_| self.release(bytes, turn))?;
        turn.tally.count(why);
        if is(Mutant::LastInFirstOut) {
            self.queue.push_front(&mut self.slots, key);
        } else {
            self.queue.push_back(&mut self.slots, key);
        }
        self.block(key);
        self.arm(key, turn);
        Ok(())
    }

    /// Ends an activation whose time ran out on its way here. A new one is taken all the same, if only for this moment: the answer
    /// says that it never started, and of several that push one id at once, to whatever action, one may hear how it ended.
    fn too_late(&mut self, push: &Push, turn: &mut Turn<'_>) -> Result<(), Rejection> {
        let key = self.admit(push, Place::Queued { payload: Bytes::new(), armed: None }, turn)?;
        let slot = self.forget(key, turn);
        turn.expired(slot.controller, slot.id, slot.reply, slot.accepted_at);
        Ok(())
    }

    fn why_queued(&self) -> Count {
        match (self.queue.is_empty(), self.containers.none_open()) {
            (false, _) => Count::BacklogFirst,
            (true, true) => Count::NoContainer,
            (true, false) if self.containers.any_tripped() => Count::BreakerOpen,
            (true, false) => Count::NoCredit,
        }
    }

    /// Takes an activation.
    fn admit(&mut self, push: &Push, place: Place, turn: &mut Turn<'_>) -> Result<Key, Rejection> {
        let key = self.enter(push, place, turn)?;
        turn.accept(push);
        Ok(key)
    }

    /// Takes the id and gives the activation a slot.
    pub(crate) fn enter(&mut self, push: &Push, place: Place, turn: &mut Turn<'_>) -> Result<Key, Rejection> {
        let key = self.slots.insert(Slot {
            id: push.id,
            controller: push.controller,
            reply: push.reply,
            sequence: self.sequence,
            attempt: push.attempt,
            spilling: 0,
            accepted_at: push.accepted_at,
            deadline: push.deadline,
            place,
            links: Links::default(),
        });
        let at = Whereabouts { action: turn.action.number(), slot: key };
        if push.accepted {
            turn.shared.ledger.moved(push.id, at);
        } else if let Err(rejection) = turn.shared.take_id(push.id, at) {
            self.slots.remove(key);
            return Err(rejection);
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(key)
    }

    // Containers have room.

    fn credit(&mut self, key: ContainerKey, credits: u32, turn: &mut Turn<'_>) {
        self.grant(key, credits, turn);
        self.settle(turn);
    }

    fn resume(&mut self, key: ContainerKey, turn: &mut Turn<'_>) {
        if !is(Mutant::RoomForgotten) {
            self.containers.resume(key);
        }
        self.settle(turn);
    }

    fn grant(&mut self, key: ContainerKey, credits: u32, turn: &mut Turn<'_>) {
        match self.containers.grant(key, credits) {
            Ok(granted) => turn.tally.add(Count::CreditsGranted, granted.into()),
            Err(rejection) => self.refuse(key, rejection, &[], turn),
        }
    }

    /// Matches what is queued with who has room, then sees whether a superseded revision is done.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>) {
        self.match_queued(turn);
        while self.overflowing.is_some() && self.tend(turn) {
            self.match_queued(turn);
        }
        if self.newer.is_some() {
            self.wind_down(turn);
        }
    }

    fn match_queued(&mut self, turn: &mut Turn<'_>) {
        while let Some(key) = self.queue.first().filter(|key| !self.is_blocked(*key)) {
            let late = if is(Mutant::DeadlineOffByOne) {
                turn.now > self.slots[key].deadline
            } else {
                turn.now >= self.slots[key].deadline
            };
            if late && !is(Mutant::DeadlineNotChecked) {
                self.expire(key, turn);
                continue;
            }
            let Some(container) = self.choose(turn) else { break };
            let payload = self.dequeue(key, turn);
            let slot = &mut self.slots[key];
            slot.place = Place::InFlight { container, dispatched_at: turn.now, answered: false };
            let Slot { id, attempt, deadline, .. } = *slot;
            self.send(key, container, Parcel { id, attempt, deadline, payload }, turn);
        }
    }

    fn choose(&mut self, turn: &mut Turn<'_>) -> Option<ContainerKey> {
        loop {
            match self.containers.choose() {
                Choice::Chosen(key) => return Some(key),
                Choice::None => return None,
                Choice::AwaitsRoom(key) => {
                    turn.tally.count(Count::AwaitedRoom);
                    let stream = self.containers.get(key).expect("just chosen").stream;
                    turn.effects.push(Effect::AwaitRoom(stream, turn.action.clone(), key));
                }
            }
        }
    }

    /// Sends an activation that is in flight from now on. It is never taken back from here; only its container can.
    fn send(&mut self, key: Key, container: ContainerKey, parcel: Parcel, turn: &mut Turn<'_>) {
        turn.tally.count(Count::Dispatched);
        let Parcel { id, attempt, deadline, payload } = parcel;
        debug_assert!(deadline > turn.now, "nothing is dispatched at or after its deadline");
        let due = deadline + turn.shared.limits.overdue_grace;
        let time_left_ms = u32::try_from(turn.now.millis_until(deadline).max(1)).unwrap_or(u32::MAX);
        let to = self.containers.get_mut(container).expect("a chosen container is registered");
        to.room.take(Room::cost(&payload));
        to.activations.push_back(&mut self.slots, key);
        let dispatch = Dispatch { container: to.number, epoch: to.epoch, id, time_left_ms, payload, attempt };
        turn.effects.push(Effect::Write(to.stream, Entry::Dispatch(dispatch)));
        if due < to.watched_at {
            self.watch(container, due, turn);
        }
        if self.is_guarded(container) {
            self.begin(container, turn);
        }
    }

    // Activations end.

    fn complete(&mut self, container: ContainerKey, completion: Completion, turn: &mut Turn<'_>) {
        let Completion { id, status, result, run_us, credits, .. } = completion;
        let Some(slot) = self.take_in_flight(container, &id, turn) else { return };
        self.containers.completed(container);
        let Place::InFlight { dispatched_at, answered, .. } = slot.place else { unreachable!("taken as in flight") };
        if answered {
            turn.tally.count(Count::Late);
            if is(Mutant::LateFreesTwice) {
                self.containers.free_place(container);
            }
        } else {
            let verdict = match turn.shared.limits.slow_after {
                _ if is(Mutant::BreakerBlamesContainer) && status == RunStatus::ActionFailed => {
                    Verdict::Strike(Cause::Failed)
                }
                _ if status == RunStatus::PlatformFailed => Verdict::Strike(Cause::Failed),
                Some(after) if dispatched_at + after < turn.now => Verdict::Strike(Cause::Slow),
                _ => Verdict::Good,
            };
            self.answer_run(&slot, dispatched_at, (status, result, run_us), turn);
            if verdict != Verdict::Good || self.is_guarded(container) {
                self.judge(container, verdict, dispatched_at, turn);
            }
        }
        let credits = credits + u32::from(is(Mutant::CreditTwice));
        if credits > 0 {
            self.grant(container, credits, turn);
        }
        self.settle(turn);
    }

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

    fn deadline_has_come(&mut self, key: Key, turn: &mut Turn<'_>) {
        if !matches!(self.slots.get(key), Some(Slot { place: Place::Queued { .. }, .. })) {
            return; // Dispatched or ended while the timer was on its way.
        }
        self.expire(key, turn);
        self.settle(turn);
    }

    fn expire(&mut self, key: Key, turn: &mut Turn<'_>) {
        let bytes = self.dequeue(key, turn).len() as u64;
        if is(Mutant::BudgetLeak) {
            turn.shared.budget.reserve_anyway(bytes);
        }
        let slot = self.forget(key, turn);
        turn.expired(slot.controller, slot.id, slot.reply, slot.accepted_at);
    }

    fn take_back(&mut self, container: ContainerKey, id: ActivationId, payload: Bytes, turn: &mut Turn<'_>) {
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

    /// Puts an activation that comes back where it was in the order of admission. It keeps its slot, and so its id.
    pub(crate) fn requeue(&mut self, key: Key, payload: Bytes, turn: &mut Turn<'_>) {
        self.reserve(payload.len() as u64, true, turn).expect("an accepted activation is not refused");
        let slot = &mut self.slots[key];
        slot.place = Place::Queued { payload: compact(&payload), armed: None };
        let sequence = slot.sequence;
        let mut before = None;
        let mut next = self.queue.first();
        // Only past others that came back: all else was admitted later.
        while let Some(key) = next.filter(|&key| is_earlier(self.slots[key].sequence, sequence)) {
            before = Some(key);
            next = List::after(&self.slots, key);
        }
        if is(Mutant::RequeueAtEnd) {
            self.queue.push_back(&mut self.slots, key);
        } else {
            self.queue.insert_after(&mut self.slots, before, key);
        }
        self.arm(key, turn);
    }

    // Containers go.

    fn retire(&mut self, key: ContainerKey, turn: &mut Turn<'_>) {
        if !is(Mutant::RetiredGetsWork) {
            self.revoke(key, turn);
        }
        // Each time it asks: it may not have seen the answer before. Nothing that is dispatched to it comes behind.
        self.drain(key, turn);
        self.settle(turn);
    }

    fn gone(&mut self, key: ContainerKey, turn: &mut Turn<'_>) {
        self.revoke(key, turn);
        let node = self.containers.get(key).map(|container| container.stream);
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
        if let (Some(node), Some(began)) = (node, began) {
            self.judge_node(node, Verdict::Strike(Cause::Failed), began, turn);
        }
        self.stop_watching(key, turn);
        if self.containers.remove(key) {
            turn.tally.count(Count::ContainersLeft);
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
    fn revoke(&mut self, key: ContainerKey, turn: &mut Turn<'_>) -> bool {
        let revoked = self.containers.retire(key);
        turn.tally.add(Count::CreditsRevoked, revoked.unwrap_or(0).into());
        revoked.is_some()
    }

    // A newer revision takes over.

    fn supersede(&mut self, newer: Arc<Action>, turn: &mut Turn<'_>) {
        self.newer = Some(newer);
        self.settle(turn);
    }

    /// A superseded revision drains to its containers. Without containers, what is queued moves to the current one; without
    /// anything queued, the containers may go.
    fn wind_down(&mut self, turn: &mut Turn<'_>) {
        if self.queue.is_empty() && self.overflowing.is_none() {
            for key in self.containers.open() {
                self.revoke(key, turn);
                self.drain(key, turn);
            }
        } else if self.containers.none_open() {
            self.move_on(turn);
        }
    }

    fn move_on(&mut self, turn: &mut Turn<'_>) {
        let newer = self.newer.clone().expect("only a superseded revision moves on");
        while let Some(key) = self.queue.first() {
            let payload = self.dequeue(key, turn);
            // Its id stays taken all the way.
            let slot = self.slots.remove(key).expect("it was just dequeued");
            let Slot { id, controller, reply, attempt, accepted_at, deadline, .. } = slot;
            let push = Push { id, controller, reply, attempt, accepted_at, deadline, payload, accepted: true };
            turn.tally.count(Count::Redirected);
            turn.elsewhere.push_back((newer.clone(), Input::Push(push)));
        }
    }

    // Accounting.

    /// Reserves room in the queue; an activation that was accepted before is never refused.
    pub(crate) fn reserve(&mut self, bytes: u64, accepted: bool, turn: &Turn<'_>) -> Result<(), Rejection> {
        let Shared { limits, budget, .. } = turn.shared;
        let tenant = turn.action.tenant();
        let bytes = bytes + limits.queued_overhead_bytes;
        if accepted {
            budget.reserve_anyway(bytes);
            tenant.reserve_anyway(bytes);
        } else {
            if self.queued >= limits.action_queued_max + u64::from(is(Mutant::CountOffByOne)) {
                return Err(self.full("action_queued_max", limits.action_queued_max, turn.now));
            }
            let own = if is(Mutant::BytesNotCounted) { 0 } else { bytes };
            if self.queued_bytes + own > limits.action_queued_bytes_max {
                return Err(self.full("action_queued_bytes_max", limits.action_queued_bytes_max, turn.now));
            }
            tenant.reserve(bytes, turn.now)?;
            budget.reserve(bytes, turn.now).inspect_err(|_| tenant.take_back(bytes))?;
        }
        self.queued += 1;
        self.queued_bytes += bytes;
        Ok(())
    }

    fn release(&mut self, bytes: u64, turn: &Turn<'_>) {
        let bytes = bytes + turn.shared.limits.queued_overhead_bytes;
        self.queued -= 1;
        self.queued_bytes -= bytes;
        if let Some(pace) = &mut self.pace {
            pace.left();
        }
        turn.action.tenant().release(bytes);
        turn.shared.budget.release(bytes);
    }

    fn full(&mut self, field: &'static str, limit: u64, now: Timestamp) -> Rejection {
        let retry_after_ms = self.pace.get_or_insert_default().retry_after_ms(self.queued, now);
        Rejection { retry_after_ms, ..Rejection::new(Reason::QueueFull, field, limit) }
    }

    /// Arms the deadline of a queued activation.
    pub(crate) fn arm(&mut self, key: Key, turn: &mut Turn<'_>) {
        let mut deadline = self.slots[key].deadline;
        if is(Mutant::TimerEarly) {
            deadline = turn.now + turn.now.until(deadline) / 2;
        } else if is(Mutant::TimerLate) {
            deadline = deadline + std::time::Duration::from_millis(20);
        }
        let timer = Timer::Deadline(turn.action.clone(), key);
        let (timer, sooner) = turn.shared.timers.arm(turn.action.number(), deadline, timer);
        if let Place::Queued { armed, .. } = &mut self.slots[key].place {
            *armed = Some(timer);
        }
        if sooner {
            turn.effects.push(Effect::WakeAt(deadline));
        }
    }

    /// Takes an activation out of the queue: its timer, its place, its bytes. Its slot stays.
    fn dequeue(&mut self, key: Key, turn: &mut Turn<'_>) -> Bytes {
        self.unblock(key);
        self.queue.remove(&mut self.slots, key);
        let Place::Queued { payload, armed } = &mut self.slots[key].place else { unreachable!("only queued ones") };
        let (payload, armed) = (std::mem::take(payload), armed.take());
        if let Some(armed) = armed {
            turn.shared.timers.cancel(turn.action.number(), armed);
        }
        self.release(payload.len() as u64, turn);
        payload
    }

    /// Takes an activation off its container, if that is where it is; else refuses what the container said of it.
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

    pub(crate) fn detach(&mut self, key: Key, from: ContainerKey) {
        let container = self.containers.get_mut(from).expect("it has this in flight");
        container.activations.remove(&mut self.slots, key);
    }

    /// Frees a slot and its id.
    pub(crate) fn forget(&mut self, key: Key, turn: &Turn<'_>) -> Slot {
        let slot = self.slots.remove(key).expect("the key was just looked up");
        turn.shared.free_id(&slot.id);
        slot
    }

    pub(crate) fn refuse(&self, key: ContainerKey, rejection: Rejection, id: &[u8], turn: &mut Turn<'_>) {
        turn.tally.refused(rejection.reason);
        if let Some(container) = self.containers.get(key) {
            let refusal = Refusal::new(rejection, container.number, id);
            turn.effects.push(Effect::Write(container.stream, Entry::Refuse(refusal)));
        }
    }
}

impl Shared {
    /// 64 bits that nobody who does not know the seed foresees; a seed replays.
    pub(crate) fn random(&self, now: Timestamp) -> u64 {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mixed = self.seed ^ now.as_micros().rotate_left(32) ^ drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The last steps of splitmix64: each bit of the result depends on all bits.
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Takes the id of a new activation, unless it is held or ended lately.
    pub(crate) fn take_id(&self, id: ActivationId, at: Whereabouts) -> Result<(), Rejection> {
        if !self.ledger.take(id, at) && !is(Mutant::IdTakenTwice) {
            return Err(id_in_flight());
        }
        // After it was taken: one that ends meanwhile is remembered before it is free.
        if self.recent.contains(&id) && !is(Mutant::RecentNotAsked) {
            self.ledger.free(&id);
            return Err(id_ended());
        }
        if self.stored.contains(&id) && !is(Mutant::StoredIdFree) {
            self.ledger.free(&id);
            return Err(id_in_flight());
        }
        Ok(())
    }

    /// Why an id is not new, if it is not.
    fn known(&self, id: &ActivationId) -> Option<Rejection> {
        if self.ledger.find(id).is_some() {
            return Some(id_in_flight());
        }
        let stored = || self.stored.contains(id).then(id_in_flight);
        self.recent.contains(id).then(id_ended).or_else(stored)
    }

    /// Frees the id of an activation that ended. It is remembered first: in between, somebody who pushes it again would find
    /// it neither held nor ended, and it would run a second time.
    pub(crate) fn free_id(&self, id: &ActivationId) {
        if !is(Mutant::LostNotRemembered) {
            self.recent.insert(id);
        }
        self.ledger.free(id);
    }
}

impl Turn<'_> {
    fn accept(&mut self, push: &Push) {
        if push.accepted {
            return;
        }
        self.tally.count(Count::Accepted);
        if push.reply == Reply::Accepted {
            let outcome = Outcome::Accepted(Durability::Memory);
            let answer = Answer { id: push.id, outcome, stages: Stages::default() };
            self.effects.push(Effect::Write(push.controller, Entry::Answer(answer)));
        }
    }

    pub(crate) fn reject(&mut self, controller: StreamId, id: ActivationId, rejection: Rejection) {
        self.tally.rejected(rejection.reason);
        self.effects.push(Effect::Write(controller, Entry::Answer(Answer::rejected(id, rejection))));
    }

    pub(crate) fn expired(&mut self, controller: StreamId, id: ActivationId, reply: Reply, accepted_at: Timestamp) {
        self.tally.count(Count::Expired);
        let stages = Stages { queue_us: self.now.micros_since(accepted_at), ..Stages::default() };
        self.answer(controller, reply, Answer { id, outcome: Outcome::Expired, stages });
    }

    pub(crate) fn answer(&mut self, controller: StreamId, reply: Reply, answer: Answer) {
        if reply == Reply::Outcome {
            self.effects.push(Effect::Write(controller, Entry::Answer(answer)));
        }
    }
}

/// A payload of its own: one that waits must not keep the frame it came in alive, or more is held than is counted.
pub(crate) fn compact(payload: &Bytes) -> Bytes {
    Bytes::copy_from_slice(payload)
}

/// Whether sequence number `a` was given before `b`, across the wrap-around: they are never 2^31 apart.
pub(crate) fn is_earlier(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

fn id_in_flight() -> Rejection {
    Rejection::new(Reason::IdInFlight, "id", 0)
}

fn id_ended() -> Rejection {
    Rejection::new(Reason::IdEnded, "id", 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Perform;
    use crate::hub::{Hub, Pass};
    use crate::id::ActionKey;
    use crate::input::Rejoin;
    use crate::tables;
    use std::time::Duration;

    #[test]
    fn sizes() {
        let bytes = (Slab::<Slot>::ENTRY_BYTES, Containers::CONTAINER_BYTES, size_of::<Matcher>(), size_of::<Input>());
        assert_eq!(bytes, (120, 112, 216, 88), "a slot, a container, a matcher, an input");
    }

    #[derive(Debug, Default)]
    struct Recorder(Vec<Effect>);

    impl Perform for Recorder {
        fn perform(&mut self, effects: &mut Vec<Effect>) {
            self.0.append(effects);
        }
    }

    const ID: ActivationId = ActivationId([1; ActivationId::LEN]);
    const TIME_LEFT: Duration = Duration::from_millis(100);
    const STATES: [&str; 5] = ["new", "queued", "in flight", "timed out", "ended"];
    const EVENTS: [&str; 14] = [
        "push",
        "push, too late",
        "credit",
        "complete",
        "complete, failed",
        "return",
        "unsent",
        "suspend",
        "rejoin with it",
        "rejoin without",
        "retire",
        "gone",
        "deadline",
        "deadline and grace",
    ];

    /// One action, one container with room for one, one activation.
    struct World {
        hub: Hub,
        pass: Pass<Recorder>,
        action: Arc<Action>,
        container: ContainerKey,
    }

    impl World {
        fn new() -> Self {
            let hub = Hub::new(Limits { recent_ids: 1, breaker: None, ..Limits::default() }, 7, 1, Timestamp::ZERO);
            let (key, mut pass) = (ActionKey::new("tenant", "action", ""), Pass::new(Recorder::default()));
            let room = Arc::new(Room::new(usize::MAX));
            let stream = StreamId(2);
            let new = Registration { stream, number: 1, epoch: 0, concurrency: 1, credits: 0, warm: true, room };
            let (action, container) = hub.register(&key, new, &mut pass).unwrap();
            Self { hub, pass, action, container }
        }

        fn at(state: &str) -> Self {
            let mut world = Self::new();
            let way: &[&str] = match state {
                "new" => &[],
                "queued" => &["push"],
                "in flight" => &["push", "credit"],
                "timed out" => &["push", "credit", "deadline and grace"],
                _ => &["push", "credit", "complete"],
            };
            way.iter().for_each(|event| world.take(event));
            world.pass.performer.0.clear();
            assert_eq!(world.state(), state);
            world
        }

        fn take(&mut self, event: &str) {
            let (on, now) = (self.container, self.pass.now);
            let push = |deadline| {
                let (payload, reply) = (Bytes::from_static(b"payload"), Reply::Outcome);
                let controller = StreamId(1);
                Input::Push(Push {
                    id: ID,
                    controller,
                    reply,
                    attempt: 1,
                    accepted_at: now,
                    deadline,
                    payload,
                    accepted: false,
                })
            };
            let complete = |status| {
                let arrived_at = Timestamp::ZERO;
                Input::Complete(
                    on,
                    Completion { id: ID, status, result: Bytes::new(), run_us: 0, arrived_at, credits: 0 },
                )
            };
            let input = match event {
                "push" => push(now + TIME_LEFT),
                "push, too late" => push(now),
                "credit" => Input::Credit(on, 1),
                "complete" => complete(RunStatus::Succeeded),
                "complete, failed" => complete(RunStatus::PlatformFailed),
                "return" => Input::Return(on, ID, Bytes::new()),
                "unsent" => Input::Unsent(on, ID, Bytes::new()),
                "suspend" => Input::Suspend(on),
                "rejoin with it" => Input::Rejoin(on, Rejoin { credits: 0, held: vec![ID] }),
                "rejoin without" => Input::Rejoin(on, Rejoin { credits: 0, held: Vec::new() }),
                "retire" => Input::Retire(on),
                "gone" => Input::Gone(on),
                "deadline" => return self.let_pass(TIME_LEFT),
                _ => return self.let_pass(TIME_LEFT + self.hub.limits().overdue_grace),
            };
            self.hub.enter(&self.action, &mut vec![input], &mut self.pass);
        }

        fn let_pass(&mut self, time: Duration) {
            // A tick more: the wheel rounds up.
            self.pass.now = self.pass.now + time + Duration::from_millis(2);
            while self.hub.advance(1, &mut self.pass) {}
        }

        fn state(&mut self) -> &'static str {
            self.hub.settle(&mut self.pass);
            let (totals, held) = (self.hub.totals(), self.hub.held());
            assert_eq!(totals.of(Count::Accepted) + totals.overdue(), totals.ended() + held as u64);
            match (held, self.hub.budget().queued(), totals.overdue()) {
                (0, 0, 0) if totals.of(Count::Accepted) == 0 => "new",
                (0, 0, 0) => "ended",
                (1, 1, 0) => "queued",
                (1, 0, 0) => "in flight",
                (1, 0, 1) => "timed out",
                other => unreachable!("no such state: {other:?}"),
            }
        }
    }

    #[test]
    fn every_transition_of_an_activation_is_as_written() {
        let mut table = String::new();
        for (state, event) in STATES.iter().flat_map(|state| EVENTS.iter().map(move |event| (state, event))) {
            let mut world = World::at(state);
            world.take(event);
            let to = world.state();
            let said = world.pass.performer.0.iter().filter_map(|effect| match effect {
                Effect::Write(_, Entry::Dispatch(dispatch)) => Some(format!("dispatch, attempt {}", dispatch.attempt)),
                Effect::Write(_, Entry::Answer(answer)) => Some(match answer.outcome {
                    Outcome::Rejected(rejection) => format!("rejected {}", rejection.reason.label()),
                    ref outcome => format!("{outcome:?}"),
                }),
                Effect::Write(_, Entry::Refuse(refusal)) => {
                    Some(format!("refused {}", refusal.rejection.reason.label()))
                }
                Effect::Write(_, Entry::Drain(..)) => Some("drain".to_owned()),
                Effect::Write(_, Entry::Draining) => unreachable!("the engine never says that the router drains"),
                Effect::AwaitRoom(..) | Effect::Spill(_) | Effect::Refill(_) | Effect::WakeAt(_) => None,
            });
            let said = said.collect::<Vec<_>>().join(", ");
            table += format!("{state:10} {event:20} -> {to:10} {said}").trim_end();
            table.push('\n');
        }
        tables::check("activation.txt", &table);
    }
}
