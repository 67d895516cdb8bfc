//! What leaves memory and comes back, as its promises describe it: what was acknowledged as durable is there until it is marked as
//! consumed, is marked before it is handed in, is handed in once, in time, and in the end all of it has come back.

use super::books::{CallBook, Place};
use super::{Call, Checker, Invariant, Said, Seen};
use engine::outcome::Reason;
use engine::stored_time::{ClockJump, Moment};
use std::collections::BTreeMap;

/// What the judge knows of the store. It outlives the router.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// The store takes records, as the router believes.
    pub(super) open: bool,
    /// Bytes on their way into it.
    pub(super) pending: u64,
    /// Acknowledged as durable and not consumed, by lane and position.
    kept: BTreeMap<(u16, u64), Call>,
    /// What each lane is about to hand in.
    handing: BTreeMap<u16, Vec<Call>>,
    /// Consumed in this step, and to be handed in with it.
    due: Vec<Call>,
    moved: Moved,
}

/// How many activations went which way, over all lives of the router.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Into the store.
    pub stored: u64,
    /// Back in the life in which they were stored.
    pub refilled: u64,
    /// Back in a later life.
    pub recovered: u64,
    /// Consumed and never handed in, because the router died in between.
    pub lost_in_crash: u64,
    /// Hit by damage before they were consumed.
    pub damaged: u64,
}

/// What became of an activation on its way into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    /// It is durable, in that lane at that position.
    Kept(u16, u64),
    /// It is not there.
    Refused,
    /// It is longer than the store takes.
    TooLarge,
    /// Nobody knows.
    Unknown,
}

/// How long something in the store may take to come back to an action that has room. Times of the store are of a second at most.
const STARVED_US_MAX: u64 = 5_000_000;

impl Flow {
    /// Before the world began.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The router is gone.
    pub(super) fn forget_router(&mut self) {
        (self.open, self.pending) = (false, 0);
        self.due.clear();
    }
}

impl Checker {
    /// How many activations went into the store and back.
    pub fn moved(&self) -> Moved {
        self.flow.moved
    }

    /// The router believes that the store takes records, or that it does not.
    pub fn store_open(&mut self, open: bool) {
        self.note(Seen::StoreOpen { open });
        self.flow.open = open;
    }

    /// An activation leaves memory.
    pub fn spilling(&mut self, call: Call, lane: u16) {
        self.note(Seen::Spilling { call, lane });
        let (now, local) = (self.now, self.local);
        let own = self.own_bytes(call);
        let book = &mut self.calls[call as usize];
        if book.place != Place::Reading {
            let place = book.place;
            return self.fail(Invariant::I1, Some(call), format!("sent to the store while {place:?}"));
        }
        self.owing -= u32::from(book.owed.take().is_some());
        book.place = Place::Spilling;
        book.written += 1;
        (book.hit, book.noted, book.parted) = (false, false, false);
        book.wall_deadline = (now + book.deadline).saturating_sub(local);
        book.spilled_at = now;
        let (sequence, action) = (book.sequence, usize::from(book.action));
        self.reading = None;
        self.actions[action].queue.push_back((sequence, call));
        self.actions[action].out += 1;
        self.flow.pending += own;
    }

    /// The router is about to tell the engine what became of it.
    pub fn told(&mut self, call: Call, told: Told) {
        self.note(Seen::Told { call, told });
        let own = self.own_bytes(call);
        let life = self.life;
        let book = &mut self.calls[call as usize];
        if book.place != Place::Spilling || book.life != life {
            return;
        }
        self.flow.pending -= own;
        let action = &mut self.actions[usize::from(book.action)];
        match told {
            Told::Kept(lane, position) => {
                book.place = Place::Stored;
                book.kept_at = Some((lane, position));
                self.flow.kept.insert((lane, position), call);
                action.kept += 1;
                self.sums.accepted += 1;
                self.flow.moved.stored += 1;
                self.sums.spilled += 1;
                // Ended while it was on its way: whoever sent it is told so, and when it is read it is dropped.
                if book.void {
                    self.sums.spill_unknown += 1;
                    book.owed = Some(Said::Lost);
                } else {
                    book.owed = book.quiet.then_some(Said::Accepted);
                }
                self.owing += u32::from(book.owed.is_some());
                return;
            }
            Told::Unknown => {
                book.place = Place::Ended;
                book.owed = Some(Said::Lost);
                self.owing += 1;
                self.sums.accepted += 1;
                self.sums.lost += 1;
                self.sums.spill_unknown += 1;
                action.hurt = true;
            }
            Told::Refused | Told::TooLarge => {
                book.place = Place::Unkept;
                book.owed = Some(Said::rejected(match told {
                    Told::TooLarge => Reason::PayloadTooLarge,
                    _ => Reason::OverflowUnavailable,
                }));
                self.owing += 1;
                self.sums.spill_refused += 1;
            }
        }
        action.out -= 1;
        let at = book.action;
        self.touch(at);
    }

    /// Damage has hit its record in the store. `noted`: it is still known whose it was.
    pub fn hit(&mut self, call: Call, noted: bool) {
        self.note(Seen::Hit { call, noted });
        let book = &mut self.calls[call as usize];
        (book.hit, book.noted) = (true, noted);
        self.flow.moved.damaged += 1;
        self.actions[usize::from(book.action)].hurt = true;
    }

    /// Its record is about to be written; that is what the clocks show, whatever the record says.
    pub fn stamped(&mut self, call: Call, shown: Moment) {
        let (now, local, life) = (self.now, self.local, self.life);
        let book = &mut self.calls[call as usize];
        book.stamps.push((life, now, book.deadline.saturating_sub(local), shown));
    }

    /// Its record of that life was read in another, when the clocks show that; the router takes them to have been set so. From now on it is
    /// worthless when true time says so within one boot, and else when the wall clock does; never later than it would be if no time
    /// had passed since it was written.
    pub fn recovering(&mut self, call: Call, life: u32, shown: Moment, jump: Option<ClockJump>) {
        let now = self.now;
        let book = &mut self.calls[call as usize];
        let stamp = book.stamps.iter().rev().find(|(of, ..)| *of == life);
        let Some(&(_, then, had_us, before)) = stamp else { return };
        let one_boot = before.boot == shown.boot;
        let by_wall_us = shown.wall_ms.saturating_sub(before.wall_ms) * 1000;
        let stored_us = if one_boot { now - then } else { by_wall_us };
        book.worthless_at = Some(now + had_us.saturating_sub(stored_us));
        // By how much the wall clock was set, as far as that can show.
        let went_us = shown.wall_ms.cast_signed().wrapping_sub(before.wall_ms.cast_signed()) * 1000;
        let should_us = if one_boot { (now - then).cast_signed() } else { 0 };
        let set_us = if one_boot { went_us - should_us } else { went_us.min(0) };
        let slack_us = 5000 + (now - then).cast_signed() / 50;
        let said_us = match jump {
            None => 0,
            Some(ClockJump::Back(by)) => -i64::try_from(by.as_micros()).unwrap_or(i64::MAX),
            Some(ClockJump::Forward(by)) => i64::try_from(by.as_micros()).unwrap_or(i64::MAX),
        };
        let silent = jump.is_none() && set_us.abs() <= 1_000_000 + slack_us;
        if !silent && (said_us - set_us).abs() > slack_us {
            let what =
                format!("the wall clock was set by {set_us} us since it was written, the router says {said_us} us");
            self.fail(Invariant::I7, Some(call), what);
        }
    }

    /// Its record was read.
    pub fn fetched(&mut self, call: Call) {
        if self.calls[call as usize].hit {
            self.fail(Invariant::I6, Some(call), "its record was damaged, and was read as if it were whole");
        }
    }

    /// An action is told that a lane holds something of it that it does not know of.
    pub fn recalled(&mut self, action: u16) {
        self.actions[usize::from(action)].hurt = true;
    }

    /// A lane is about to mark these as consumed and hand them in, and to answer those that are damaged. True for those of an earlier life
    /// that it decided so of right now.
    pub fn handing(&mut self, lane: u16, calls: Vec<(Call, bool)>, lost: Vec<Call>) {
        self.note(Seen::Handing { lane, many: u32::try_from(calls.len()).unwrap_or(u32::MAX) });
        for (call, recovered) in &calls {
            let (wall, slack) = self.wall(*call, *recovered);
            if *recovered && self.now > wall + slack {
                self.fail(
                    Invariant::I5,
                    Some(*call),
                    "recovered though its time was over, and it goes on to its action",
                );
            }
        }
        self.flow.handing.insert(lane, calls.into_iter().map(|(call, _)| call).collect());
        let whole = lost.iter().find(|call| !self.calls[**call as usize].hit);
        if let Some(call) = whole {
            self.fail(Invariant::I6, Some(*call), "said to be damaged, and it is whole");
        }
    }

    /// So many records are missing, and nobody knows whose.
    pub fn missing(&mut self, records: u64) {
        self.sums.spill_damaged += records;
    }

    /// A consume mark is durable: for all below `before`, and for the actions it names below their positions.
    pub fn marked(&mut self, lane: u16, before: u64, named: &[(u16, u64)]) {
        self.note(Seen::Marked { lane, before });
        let is_consumed = |at: u64, call: Call| {
            let action = self.calls[call as usize].action;
            at < before || named.iter().any(|(other, to)| *other == action && at < *to)
        };
        let rest = self.flow.kept.range((lane, 0)..=(lane, u64::MAX)).map(|(at, call)| (*at, *call));
        let consumed: Vec<((u16, u64), Call)> = rest.filter(|((_, at), call)| is_consumed(*at, *call)).collect();
        let announced = self.flow.handing.remove(&lane).unwrap_or_default();
        for (at, call) in consumed {
            self.flow.kept.remove(&at);
            let life = self.life;
            let [own, (earlier, _)] = [false, true].map(|recovered| self.wall(call, recovered));
            let (wall, slack) = (own.0.min(earlier), own.1);
            let book = &mut self.calls[call as usize];
            book.kept_at = None;
            let action = &mut self.actions[usize::from(book.action)];
            // Even if nothing comes of it: what an earlier life left may be over, and lies before what is wanted.
            action.starved_since = None;
            action.kept = action.kept.saturating_sub(u64::from(book.life == life));
            if announced.contains(&call) {
                self.flow.due.push(call);
            } else if book.hit {
                if book.life == life && book.place == Place::Stored {
                    book.place = Place::Ended;
                    self.actions[usize::from(book.action)].out -= 1;
                    // What nobody knows whose it was is counted once it is missed.
                    self.sums.spill_damaged += u64::from(book.noted);
                    if book.noted && !book.quiet && !book.void {
                        book.owed = Some(Said::rejected(Reason::RecordDamaged));
                        self.owing += 1;
                    }
                }
            } else if self.now + slack < wall || book.life == life && book.place == Place::Stored {
                self.fail(Invariant::I6, Some(call), "durable, and consumed without being handed in");
            }
        }
    }

    /// All that a lane had marked is handed in.
    pub fn handed_over(&mut self) {
        if let Some(call) = self.flow.due.pop() {
            self.fail(Invariant::I6, Some(call), "durable, consumed, and not handed in");
        }
    }

    /// A mark turned out to be durable though the router died before it knew: what it covers is lost, if it was to be handed in.
    pub fn marked_in_crash(&mut self, lane: u16, before: u64, named: &[(u16, u64)]) {
        self.marked(lane, before, named);
        self.flow.moved.lost_in_crash += self.flow.due.len() as u64;
        self.flow.due.clear();
    }

    /// Its record comes back, with that deadline. `recovered`: it is of an earlier life.
    pub fn refilled(&mut self, call: Call, recovered: bool, deadline: u64) {
        self.note(Seen::Refilled { call, recovered });
        self.hand_in(call, recovered, deadline);
        let (life, local) = (self.life, self.local);
        let book = &mut self.calls[call as usize];
        if recovered {
            self.sums.recovered += 1;
            self.sums.accepted += 1;
            if book.life == life && book.place != Place::Outside {
                self.sums.repeated += 1;
                return;
            }
            (book.life, book.session, book.quiet, book.recovered) = (life, super::NOBODY, false, true);
            (book.attempt, book.deadline, book.owed, book.refusals_owed) = (1, deadline, None, 0);
        } else {
            self.sums.refilled += 1;
            if book.place != Place::Stored {
                self.sums.repeated += 1;
                return;
            }
            let action = &mut self.actions[usize::from(book.action)];
            (action.out, action.starved_since) = (action.out - 1, None);
            if book.void {
                book.place = Place::Ended;
                self.sums.repeated += 1;
                return;
            }
        }
        let book = &mut self.calls[call as usize];
        book.came_at = local;
        if book.quiet && book.deadline <= local {
            book.place = Place::Ended;
            self.sums.expired += 1;
            return;
        }
        book.place = Place::Queued;
        book.refilled = book.deadline > local;
        let (action, bytes) = (book.action, book.bytes);
        let of = &mut self.actions[usize::from(action)];
        // Also where it is dispatched at once, and also one of an earlier life.
        of.starved_since = None;
        of.refilled += u64::from(book.refilled);
        of.queued += 1;
        of.queued_bytes += bytes;
        self.queued += 1;
        self.queued_bytes += bytes;
        self.touch(action);
    }

    fn hand_in(&mut self, call: Call, recovered: bool, deadline: u64) {
        let (wall, slack) = self.wall(call, recovered);
        let (now, local) = (self.now, self.local);
        let due = self.flow.due.iter().position(|other| *other == call);
        due.map(|at| self.flow.due.swap_remove(at));
        let book = &mut self.calls[call as usize];
        book.handed += 1;
        let moved = &mut self.flow.moved;
        *(if recovered { &mut moved.recovered } else { &mut moved.refilled }) += 1;
        let (handed, written, own) = (book.handed, book.written, book.deadline);
        if book.kept_at.is_some() {
            self.fail(Invariant::I1, Some(call), "handed in before its consume mark was durable");
        }
        if handed > written {
            self.fail(Invariant::I1, Some(call), format!("handed in {handed} times, it was written {written} times"));
        }
        let left = deadline.saturating_sub(local);
        let agrees = if recovered { left.abs_diff(wall.saturating_sub(now)) <= slack } else { deadline == own };
        if !agrees {
            self.fail(Invariant::I5, Some(call), format!("it comes back with {left} us left"));
        }
    }

    /// What it counts for on its way into the store.
    fn own_bytes(&self, call: Call) -> u64 {
        (self.calls[call as usize].bytes + self.limits.queued_overhead_bytes).max(1)
    }

    /// True time at which it is worthless, as far as a router can know, and how far the router's clock may have gone wrong since it was written.
    fn wall(&self, call: Call, recovered: bool) -> (u64, u64) {
        let book = &self.calls[call as usize];
        let at = book.worthless_at.filter(|_| recovered).unwrap_or(book.wall_deadline);
        let since = self.now.max(at).saturating_sub(book.spilled_at);
        (at, 4000 + since / 50)
    }

    /// Whether a refusal by the store is fair.
    pub(super) fn may_refuse_overflow(&self, call: Call) -> bool {
        let Some(limits) = &self.limits.overflow else { return false };
        !self.flow.open || self.flow.pending + self.own_bytes(call) > limits.pending_bytes_max
    }

    /// An action that has room and something in the store gets it within a time that does not depend on other actions.
    fn judge_starved(&mut self, healthy: bool) {
        let (local, open) = (self.local, self.flow.open && healthy && !self.draining);
        let mut starved = None;
        for at in 0..self.actions.len() {
            if !open || !self.could_take(at) {
                self.actions[at].starved_since = None;
                continue;
            }
            let since = *self.actions[at].starved_since.get_or_insert(local);
            starved = starved.or((local.saturating_sub(since) > STARVED_US_MAX).then_some((at, local - since)));
        }
        if let Some((action, for_us)) = starved {
            let what = format!("action {action} has room and something in the store, and got nothing for {for_us} us");
            self.fail(Invariant::I8, None, what);
        }
    }

    /// Whether an action has something in the store and a container that is free and that no breaker may hold back.
    fn could_take(&self, at: usize) -> bool {
        let action = &self.actions[at];
        let has_room = |number: &u32| {
            let container = &self.containers[*number as usize];
            let takes = container.open && !container.gone && !container.suspended && !container.awaiting;
            takes && container.credits > 0 && container.strikes == 0 && !self.is_struck(*number)
        };
        !action.hurt && action.kept > 0 && action.queued == 0 && action.containers.iter().any(has_room)
    }

    /// After each input: what the engine says is on its way into the store. `healthy`: nothing is wrong with the store.
    pub fn overflow_settled(&mut self, pending: u64, healthy: bool) {
        self.judge_starved(healthy);
        let here = self.flow.pending;
        if pending != here {
            let what = format!("{pending} B are said to be on their way into the store, there are {here} B");
            self.fail(Invariant::I7, None, what);
        }
        if self.limits.overflow.as_ref().is_some_and(|limits| here > limits.pending_bytes_max) {
            self.fail(Invariant::I4, None, format!("{here} B are on their way into the store"));
        }
        let Some(limits) = &self.limits.overflow else { return };
        // What is asked for at a time, and what there may be for it to be asked.
        let batch = self.limits.action_queued_max.min(2 * u64::from(limits.refill_records)) / 2;
        let most = batch.max(1) + batch.max(1) / 2;
        // Those of an earlier life may come from another lane, too.
        let most = |hurt: bool| if hurt { most + batch.max(1) } else { most };
        let over = (0..).zip(&self.actions).filter(|(_, action)| action.refilled > most(action.hurt));
        let mut surely = over.map(|(at, action)| (self.surely_refilled(at), most(action.hurt)));
        if let Some((surely, most)) = surely.find(|(surely, most)| surely > most) {
            let what = format!("{surely} that came from the store are queued, {most} may be");
            self.fail(Invariant::I4, None, what);
        }
    }

    /// How many of an action that came from the store are queued, whoever expired unheard: of two of one size in two actions it is not
    /// told which did.
    #[cold]
    fn surely_refilled(&self, action: usize) -> u64 {
        let (life, local) = (self.life, self.local);
        let of_action = |book: &&CallBook| book.life == life && book.refilled && usize::from(book.action) == action;
        let sure = |book: &&CallBook| !book.quiet || book.deadline > local;
        self.calls.iter().filter(of_action).filter(sure).count() as u64
    }

    /// A quiet moment: activations come in, and are here or have left.
    pub fn conserved(&mut self, came: u64, there: u64) {
        if came != there {
            self.fail(Invariant::I7, None, format!("{came} came in, {there} are there or have ended"));
        }
    }

    /// After the faults, when nobody waits any more: the store is empty but for what was damaged. `stored` is how many the router
    /// says there are.
    pub fn overflow_rested(&mut self, lanes_in_use: usize, stored: u64) {
        if stored != 0 {
            self.fail(Invariant::I7, None, format!("{stored} are said to be stored, none is"));
        }
        let left = self.flow.kept.values().find(|call| !self.calls[**call as usize].hit);
        if let Some(call) = left.copied() {
            self.fail(Invariant::I6, Some(call), "durable, and it never came back");
        }
        if lanes_in_use != 0 {
            self.fail(Invariant::I12, None, format!("{lanes_in_use} lanes are still in use"));
        }
    }
}
