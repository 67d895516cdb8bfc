//! A matcher's part in overflow: what goes out when memory is full, and how it comes back in order.
//!
//! ```text
//!   in memory ── a limit is met ──▶ out: pushes go into a lane, behind one another
//!       ▲                            │   read back below a low-water mark
//!       │                            ▼ all that is durable has come back, the rest is being written
//!       └── that came back, too ── closing: pushes are queued in memory again, and wait behind what is being written
//! ```
//!
//! Closing is what lets go: while writes take time and pushes do not pause, there is never a moment with nothing being written.
//! Where a limit is met again meanwhile, what comes then goes out as the second run, behind what waits in memory.

use crate::backlog::Recalled;
use crate::effect::{Effect, Entry, Refill, Spill, Spilled, Want};
use crate::id::ActivationId;
use crate::input::{Push, Refilled, Unstored};
use crate::lanes::{self, Lane};
use crate::ledger::Whereabouts;
use crate::list::{Links, List};
use crate::matcher::{Matcher, Place, Slot, compact, is_earlier};
use crate::mutant::{Mutant, is};
use crate::outcome::{Answer, Durability, Outcome, Reason, Rejection, Reply, Stages};
use crate::slab::Key;
use crate::tally::Count;
use crate::turn::{Shared, Turn};
use bytes::Bytes;

/// What an action has outside of memory.
#[derive(Debug)]
pub(crate) struct Overflowing {
    lane: Lane,
    /// Everything of the action below it has come back.
    cursor: u64,
    /// Pushes go out.
    out: bool,
    /// What went out before the barrier, or all if there is none.
    first: Run,
    /// What went out after it.
    second: Run,
    /// From that place in the order of admission on, activations are queued behind the first run.
    barrier: Option<u32>,
    /// The first of those, and how many there are.
    blocked: Option<Key>,
    behind: u64,
    /// It was asked for more, and that did not come yet.
    wanted: bool,
    /// The revision that took over was asked to take what is queued, and has not said that it may come.
    moves: bool,
}

/// Activations that went out one after the other.
#[derive(Debug, Default)]
struct Run {
    /// Of these nothing was heard yet.
    pending: u64,
    /// The position above the last that is durable.
    end: u64,
}

impl Run {
    fn is_over(&self, cursor: u64) -> bool {
        self.pending == 0 && self.end <= cursor && !is(Mutant::NeverLetsGo)
    }
}

impl Overflowing {
    fn new(lane: Lane) -> Self {
        let (first, second) = (Run::default(), Run::default());
        let (barrier, blocked, behind) = (None, None, 0);
        Self { lane, cursor: 0, out: true, first, second, barrier, blocked, behind, wanted: false, moves: false }
    }

    fn run_of(&mut self, sequence: u32) -> &mut Run {
        match self.barrier {
            Some(barrier) if !is_earlier(sequence, barrier) => &mut self.second,
            _ => &mut self.first,
        }
    }
}

impl Matcher {
    /// Whether pushes go out of memory.
    pub(crate) fn is_out(&self) -> bool {
        self.overflowing.as_ref().is_some_and(|overflowing| overflowing.out)
    }

    /// Whether the revision that took over is to be asked to take what is queued: once, until it has said so.
    pub(crate) fn asks_to_move(&mut self) -> bool {
        self.overflowing.as_mut().is_some_and(|overflowing| !std::mem::replace(&mut overflowing.moves, true))
    }

    /// It has said so.
    pub(crate) fn may_ask_to_move(&mut self) {
        if let Some(overflowing) = &mut self.overflowing {
            overflowing.moves = false;
        }
    }

    /// Whether an activation waits for others that are outside of memory.
    pub(crate) fn is_blocked(&self, key: Key) -> bool {
        self.overflowing.as_ref().is_some_and(|overflowing| overflowing.blocked == Some(key))
    }

    /// Begins to overflow, where that can be, because of a limit that was met.
    ///
    /// # Errors
    /// Gives the refusal back where there is no overflow, or it cannot be written.
    pub(crate) fn overflow(&mut self, met: Rejection, turn: &mut Turn<'_>) -> Result<(), Rejection> {
        let Some(lanes) = turn.shared.lanes.as_ref().filter(|lanes| lanes.is_open()) else { return Err(met) };
        let begins = || {
            turn.tally.count(Count::SpillBegan);
            Box::new(Overflowing::new(lanes.take()))
        };
        self.overflowing.get_or_insert_with(begins).out = true;
        Ok(())
    }

    /// Sends a new activation out of memory.
    pub(crate) fn spill(&mut self, push: Push, turn: &mut Turn<'_>) -> Result<(), Rejection> {
        let lanes = turn.shared.lanes.as_ref().expect("it overflows");
        let bytes = push.payload.len() as u64 + turn.shared.limits.queued_overhead_bytes;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        lanes.reserve(bytes.into())?;
        let admitted = self.enter(&push, Place::Queued { payload: Bytes::new(), armed: None }, turn);
        let slot = admitted.inspect_err(|_| lanes.release(bytes.into()))?;
        self.slots[slot].spilling = bytes;
        let sequence = self.slots[slot].sequence;
        let overflowing = self.overflowing.as_mut().expect("it overflows");
        overflowing.run_of(sequence).pending += 1;
        let Push { id, controller, reply, attempt, accepted_at, deadline, payload, .. } = push;
        let sequence = Some(sequence);
        // A payload of its own: what is being written must not keep the frame it came in alive.
        let payload = compact(&payload);
        let record = Spilled { id, controller, reply, attempt, sequence, accepted_at, deadline, payload };
        let (lane, action) = (overflowing.lane, turn.action.clone());
        turn.effects.push(Effect::Spill(Box::new(Spill { lane, action, slot, record })));
        Ok(())
    }

    /// What came of an activation that was sent out.
    pub(crate) fn stored(&mut self, key: Key, how: Result<u64, Unstored>, turn: &mut Turn<'_>) {
        let lanes = turn.shared.lanes.as_ref().filter(|_| self.slots.get(key).is_some_and(Slot::is_spilling));
        let Some(lanes) = lanes else { return };
        let slot = self.slots.remove(key).expect("just found");
        if how.is_ok() || !is(Mutant::PendingLeak) {
            lanes.release(slot.spilling.into());
        }
        if let Some(overflowing) = &mut self.overflowing {
            let run = overflowing.run_of(slot.sequence);
            run.pending -= 1;
            run.end = how.map_or(run.end, |position| run.end.max(position + 1));
        }
        match how {
            // Its controller came back, and it was ended while it was on its way: when it is read it is dropped.
            Ok(_) if turn.shared.recent.contains(&slot.id) => turn.is_lost(&slot, Count::Spilled),
            Ok(_) => turn.is_stored(&slot),
            Err(Unstored::Unknown) => turn.is_lost(&slot, Count::Lost),
            Err(Unstored::Refused) => turn.is_not_stored(&slot, lanes::refused()),
            Err(Unstored::TooLarge(limit)) => {
                turn.is_not_stored(&slot, Rejection::new(Reason::PayloadTooLarge, "payload", limit));
            }
        }
        self.settle(turn);
    }

    /// Takes back what was stored.
    pub(crate) fn refilled(&mut self, refilled: Refilled, turn: &mut Turn<'_>) {
        if let Some((overflowing, cursor)) = self.overflowing.as_mut().zip(refilled.cursor) {
            overflowing.wanted = false;
            overflowing.cursor = overflowing.cursor.max(cursor);
        }
        self.offered &= !refilled.offer_over;
        refilled.records.into_iter().for_each(|record| self.refill(record, turn));
        self.settle(turn);
    }

    /// There may be activations of the action in that lane that it does not know of, below `end`. If it overflows into another one it
    /// does not ask for them; else it does, and what is pushed goes behind them.
    pub(crate) fn recall(&mut self, lane: Lane, end: u64, turn: &mut Turn<'_>) {
        let Some(lanes) = &turn.shared.lanes else { return };
        let begins = || {
            lanes.occupy(lane);
            turn.tally.count(Count::SpillBegan);
            Box::new(Overflowing::new(lane))
        };
        let overflowing = self.overflowing.get_or_insert_with(begins);
        if overflowing.lane == lane {
            overflowing.first.end = overflowing.first.end.max(end);
            self.settle(turn);
        }
    }

    /// The action's reply to a lane that recalled it. From a lane that is not its own, the action
    /// takes one batch where its queue is low, and from one such lane at a time.
    pub(crate) fn recalled(&mut self, lane: Lane, turn: &Turn<'_>) -> Recalled {
        let (Some(overflowing), Some(lanes)) = (&self.overflowing, &turn.shared.lanes) else {
            return Recalled::NotNow;
        };
        if overflowing.lane == lane {
            return Recalled::Here;
        }
        let batch = self.batch(turn);
        let low = self.queued - overflowing.behind <= u64::from(batch / 2) || is(Mutant::ElsewhereUnbounded);
        if !low || (self.offered && !is(Mutant::LanesTogether)) {
            return Recalled::NotNow;
        }
        self.offered = true;
        Recalled::Elsewhere(Want { records: batch, bytes: lanes.limits().refill_bytes })
    }

    /// An activation was queued at the end.
    pub(crate) fn block(&mut self, key: Key) {
        if let Some(overflowing) = &mut self.overflowing
            && overflowing.barrier.is_some()
        {
            overflowing.blocked.get_or_insert(key);
            overflowing.behind += 1;
        }
    }

    /// An activation leaves the queue.
    pub(crate) fn unblock(&mut self, key: Key) {
        let Some(overflowing) = &mut self.overflowing else { return };
        if overflowing.barrier.is_some_and(|barrier| !is_earlier(self.slots[key].sequence, barrier)) {
            overflowing.behind -= 1;
        }
        if overflowing.blocked == Some(key) {
            overflowing.blocked = List::after(&self.slots, key);
        }
    }

    /// Sees what there is to do for what is outside of memory. True if activations came free by that.
    pub(crate) fn tend(&mut self, turn: &mut Turn<'_>) -> bool {
        let batch = self.batch(turn);
        let Some(overflowing) = &mut self.overflowing else { return false };
        let lanes = turn.shared.lanes.as_ref().expect("it overflows");
        let mut freed = false;
        if overflowing.barrier.is_some() && overflowing.first.is_over(overflowing.cursor) {
            (overflowing.barrier, overflowing.blocked, overflowing.behind) = (None, None, 0);
            overflowing.first = std::mem::take(&mut overflowing.second);
            freed = true;
        }
        if overflowing.barrier.is_none() && overflowing.first.is_over(overflowing.cursor) {
            if !is(Mutant::LaneNotLeft) {
                lanes.leave(overflowing.lane);
            }
            turn.tally.count(Count::SpillEnded);
            self.overflowing = None;
            return freed;
        }
        // Those behind the barrier wait for what is to come, however many they are.
        let low = self.queued - overflowing.behind <= u64::from(batch / 2);
        if low && overflowing.barrier.is_none() && overflowing.out && overflowing.first.end <= overflowing.cursor {
            (overflowing.out, overflowing.barrier) = (false, Some(self.sequence));
        }
        let unread = overflowing.first.end.max(overflowing.second.end) > overflowing.cursor;
        let low = low || overflowing.barrier.is_some() && is(Mutant::BarrierUnbounded);
        if unread && !overflowing.wanted && low && lanes.is_refilling() {
            overflowing.wanted = true;
            let want = Want { records: batch, bytes: lanes.limits().refill_bytes };
            let (lane, action, cursor) = (overflowing.lane, turn.action.clone(), overflowing.cursor);
            let refill = Refill { lane, action, want, cursor };
            turn.effects.push(Effect::Refill(Box::new(refill)));
        }
        freed
    }

    /// How many are read back at a time: few where the action may queue only few.
    pub(crate) fn batch(&self, turn: &Turn<'_>) -> u32 {
        let half = u32::try_from(turn.shared.limits.action_queued_max / 2).unwrap_or(u32::MAX);
        let most = turn.shared.lanes.as_ref().map_or(u32::MAX, |lanes| lanes.limits().refill_records);
        most.min(half).max(1)
    }

    /// Takes one activation back, unless its time is over or another of its id was taken meanwhile.
    fn refill(&mut self, record: Spilled, turn: &mut Turn<'_>) {
        let Spilled { id, controller, reply, attempt, sequence, accepted_at, deadline, payload } = record;
        let deadline = if is(Mutant::StoredTimeForgiven) { turn.now + accepted_at.until(deadline) } else { deadline };
        turn.came_back(sequence.is_some());
        let barrier = self.overflowing.as_ref().and_then(|overflowing| overflowing.barrier);
        let key = self.slots.insert(Slot {
            id,
            controller,
            reply,
            // One of an earlier life goes before those that wait for it, also if it is returned.
            sequence: sequence.unwrap_or(barrier.unwrap_or(self.sequence).wrapping_sub(1)),
            attempt,
            spilling: 0,
            refilled: true,
            accepted_at,
            deadline,
            place: Place::Queued { payload: payload.clone(), armed: None },
            links: Links::default(),
        });
        let at = Whereabouts { action: turn.action.number(), slot: key };
        if !turn.shared.take_stored_id(id, at) {
            self.slots.remove(key);
            turn.tally.count(Count::RefillLeft);
            return turn.tally.count(Count::Repeated);
        }
        if deadline <= turn.now {
            self.forget(key, turn);
            turn.tally.count(Count::RefillLeft);
            return turn.expired(controller, id, reply, accepted_at);
        }
        self.reserve(payload.len() as u64, true, turn).expect("an accepted activation is not refused");
        let waits = barrier.is_some_and(|barrier| !is_earlier(self.slots[key].sequence, barrier));
        let blocked = self.overflowing.as_ref().and_then(|overflowing| overflowing.blocked);
        match blocked.filter(|_| !waits && !is(Mutant::RefilledAtEnd)) {
            Some(blocked) => {
                let before = List::before(&self.slots, blocked);
                self.queue.insert_after(&mut self.slots, before, key);
            }
            None => self.queue.push_back(&mut self.slots, key),
        }
        if waits {
            self.block(key);
        }
        self.arm(key, turn);
    }
}

impl Turn<'_> {
    fn is_stored(&mut self, slot: &Slot) {
        self.tally.count(Count::Accepted);
        self.tally.count(Count::Spilled);
        self.shared.store_id(&slot.id, slot.reply);
        if slot.reply == Reply::Accepted {
            let outcome = Outcome::Accepted(Durability::Durable);
            self.effects.push(Effect::Write(
                slot.controller,
                Entry::Answer(Answer { id: slot.id, outcome, stages: Stages::default() }),
            ));
        }
    }

    /// It never started, and may come again.
    fn is_not_stored(&mut self, slot: &Slot, rejection: Rejection) {
        self.tally.count(Count::SpillRefused);
        self.shared.ledger.free(&slot.id);
        self.reject(slot.controller, slot.id, rejection);
    }

    /// If it is read one day, it is dropped: its caller has heard that it is lost. It counts as stored until then, or has ended.
    fn is_lost(&mut self, slot: &Slot, as_: Count) {
        for count in [Count::SpillUnknown, Count::Accepted, as_] {
            self.tally.count(count);
        }
        self.shared.free_id(&slot.id);
        let queue_us = self.now.micros_since(slot.accepted_at);
        let stages = Stages { queue_us, ..Stages::default() };
        // Whatever it asked for: it was not told that it was accepted.
        self.effects.push(Effect::Write(
            slot.controller,
            Entry::Answer(Answer { id: slot.id, outcome: Outcome::Lost, stages }),
        ));
    }

    fn came_back(&mut self, of_this_life: bool) {
        if of_this_life {
            return self.tally.count(Count::Refilled);
        }
        self.tally.count(Count::Recovered);
        self.tally.count(Count::Accepted);
    }
}

impl Shared {
    /// An id leaves memory with its activation. Remembered first, as in [`free_id`](Self::free_id).
    pub(crate) fn store_id(&self, id: &ActivationId, reply: Reply) {
        self.stored.insert_with(id, reply == Reply::Accepted);
        self.ledger.free(id);
    }

    /// Takes the id of an activation that comes back. False if another took it in the meantime, or it ended.
    fn take_stored_id(&self, id: ActivationId, at: Whereabouts) -> bool {
        if !self.ledger.take(id, at) {
            return false;
        }
        let ended = self.recent.contains(&id);
        if ended {
            self.ledger.free(&id);
        }
        !ended
    }
}
