//! Activations whose containers say nothing of them in time: answered, though still in flight. A part of the
//! [matcher](crate::matcher).
//!
//! Each container has one timer, its watch, at the earliest deadline of what it has in flight plus a grace. It is armed when
//! something is dispatched to it that is due before the watch is; whatever else happens leaves it armed, so a busy container
//! with long deadlines pays a comparison for each dispatch. When it comes out it may find nothing.
//!
//! ```text
//!   in flight ─▶ deadline + grace ─▶ answered, still in flight ─▶ its container completes or returns it: counted as late
//!                                          (its id stays taken)  └▶ its container goes: counted as late and lost
//! ```

use crate::breaker::{Cause, Verdict};
use crate::container::ContainerKey;
use crate::effect::Effect;
use crate::list::List;
use crate::matcher::{Matcher, Place};
use crate::mutant::{Mutant, is};
use crate::outcome::{Answer, Outcome, Stages};
use crate::slab::Key;
use crate::tally::Count;
use crate::time::Timestamp;
use crate::turn::Turn;

impl Matcher {
    /// Sees to it that the container is looked at at that point, if not before.
    pub(crate) fn watch(&mut self, key: ContainerKey, at: Timestamp, turn: &mut Turn<'_>) {
        let container = self.containers.get_mut(key).expect("whoever is watched is registered");
        if container.watched_at <= at {
            return;
        }
        let timers = &turn.shared.timers;
        if let Some(later) = container.watch.take() {
            timers.cancel_watch(turn.action.number(), later);
        }
        let (armed, sooner) = timers.arm_watch(turn.action, at, key);
        (container.watched_at, container.watch) = (at, Some(armed));
        if sooner {
            turn.effects.push(Effect::WakeAt(at));
        }
    }

    /// Nothing will have to be looked at.
    pub(crate) fn stop_watching(&mut self, key: ContainerKey, turn: &Turn<'_>) {
        if let Some(watch) = self.containers.get_mut(key).and_then(|container| container.watch.take()) {
            turn.shared.timers.cancel_watch(turn.action.number(), watch);
        }
    }

    /// The watch of a container came out.
    pub(crate) fn look(&mut self, key: ContainerKey, turn: &mut Turn<'_>) {
        let Some(container) = self.containers.get_mut(key).filter(|container| container.watched_at <= turn.now) else {
            return; // It left, or was watched anew while the timer was on its way.
        };
        (container.watched_at, container.watch) = (Timestamp::NEVER, None);
        let overdue = self.time_out(key, turn).filter(|_| !is(Mutant::WatchedOnce));
        let tripped = self.look_at_breakers(key, turn);
        if let Some(next) = overdue.into_iter().chain(tripped).min() {
            self.watch(key, next, turn);
        }
        self.settle(turn);
    }

    /// Answers what is overdue there. Returns when the next one is.
    fn time_out(&mut self, on: ContainerKey, turn: &mut Turn<'_>) -> Option<Timestamp> {
        let grace = turn.shared.limits.overdue_grace;
        let mut earliest = None;
        let mut next = self.containers.get(on).and_then(|container| container.activations.first());
        while let Some(key) = next {
            next = List::after(&self.slots, key);
            let slot = &self.slots[key];
            let due = slot.deadline + grace;
            if slot.is_answered() {
                continue;
            }
            if due <= turn.now {
                let (began, fair) = (slot.dispatched_at(), slot.had_fair_time());
                self.answer_overdue(key, turn);
                let verdict = if fair { Verdict::Strike(Cause::TimedOut) } else { Verdict::Undecided };
                self.judge(on, verdict, began, turn);
            } else {
                earliest = Some(earliest.map_or(due, |earliest: Timestamp| earliest.min(due)));
            }
        }
        earliest
    }

    fn answer_overdue(&mut self, key: Key, turn: &mut Turn<'_>) {
        let slot = &mut self.slots[key];
        let Place::InFlight { dispatched_at, answered, .. } = &mut slot.place else { unreachable!("it is in flight") };
        *answered = true;
        turn.tally.count(Count::TimedOut);
        let stages = Stages {
            queue_us: dispatched_at.micros_since(slot.accepted_at),
            dispatch_us: turn.now.micros_since(*dispatched_at),
            run_us: 0,
        };
        turn.answer(slot.controller, slot.reply, Answer { id: slot.id, outcome: Outcome::TimedOut, stages });
    }
}
