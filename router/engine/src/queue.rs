//! The matcher's queue: how an activation gets a place in line, within which limits, and how it leaves it. Who is dispatched to whom is
//! not decided here.

use crate::effect::Effect;
use crate::input::Push;
use crate::ledger::Whereabouts;
use crate::list::{Links, List};
use crate::matcher::{Matcher, Place, Slot, compact, is_earlier};
use crate::mutant::{Mutant, is};
use crate::outcome::{Reason, Rejection};
use crate::slab::Key;
use crate::tally::Count;
use crate::time::Timestamp;
use crate::timers::Timer;
use crate::turn::{Shared, Turn};
use bytes::Bytes;

impl Matcher {
    /// Queues a new activation, in memory if there is room.
    pub(crate) fn enqueue(&mut self, push: Push, turn: &mut Turn<'_>) -> Result<(), Rejection> {
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
    pub(crate) fn too_late(&mut self, push: &Push, turn: &mut Turn<'_>) -> Result<(), Rejection> {
        let key = self.admit(push, Place::Queued { payload: Bytes::new(), armed: None }, turn)?;
        turn.tally.add(Count::RefillLeft, push.refilled.into());
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
    #[inline]
    pub(crate) fn admit(&mut self, push: &Push, place: Place, turn: &mut Turn<'_>) -> Result<Key, Rejection> {
        let key = self.enter(push, place, turn)?;
        turn.accept(push);
        Ok(key)
    }

    /// Takes the id and gives the activation a slot.
    #[inline]
    pub(crate) fn enter(&mut self, push: &Push, place: Place, turn: &mut Turn<'_>) -> Result<Key, Rejection> {
        let key = self.slots.insert(Slot {
            id: push.id,
            controller: push.controller,
            reply: push.reply,
            sequence: self.sequence,
            attempt: push.attempt,
            spilling: 0,
            refilled: push.refilled,
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

    pub(crate) fn deadline_has_come(&mut self, key: Key, turn: &mut Turn<'_>) {
        if !matches!(self.slots.get(key), Some(Slot { place: Place::Queued { .. }, .. })) {
            return; // Dispatched or ended while the timer was on its way.
        }
        self.expire(key, turn);
        self.settle(turn);
    }

    pub(crate) fn expire(&mut self, key: Key, turn: &mut Turn<'_>) {
        let bytes = self.dequeue(key, turn).len() as u64;
        if is(Mutant::BudgetLeak) {
            turn.shared.budget.reserve_anyway(bytes);
        }
        let slot = self.forget(key, turn);
        turn.expired(slot.controller, slot.id, slot.reply, slot.accepted_at);
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
        if let Some(succession) = &mut self.succession {
            succession.departed();
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
    pub(crate) fn dequeue(&mut self, key: Key, turn: &mut Turn<'_>) -> Bytes {
        self.unblock(key);
        self.queue.remove(&mut self.slots, key);
        let slot = &mut self.slots[key];
        if std::mem::take(&mut slot.refilled) {
            turn.tally.count(Count::RefillLeft);
        }
        let Place::Queued { payload, armed } = &mut slot.place else { unreachable!("only queued ones") };
        let (payload, armed) = (std::mem::take(payload), armed.take());
        if let Some(armed) = armed {
            turn.shared.timers.cancel(turn.action.number(), armed);
        }
        self.release(payload.len() as u64, turn);
        payload
    }
}
