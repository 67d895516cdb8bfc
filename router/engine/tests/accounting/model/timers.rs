//! Deadlines: of what is queued, and of what a container keeps silent about.

use super::Model;
use crate::TICK_US;
use engine::breaker::{Cause, Verdict};
use engine::input::Push;
use engine::outcome::Reply;
use engine::time::Timestamp;
use std::time::Duration;

impl Model {
    /// Whose timers came out, as they were armed in each tick.
    pub(crate) fn advance(&mut self) {
        let tick = |at: Timestamp| at.as_micros().div_ceil(TICK_US);
        let now = self.now.as_micros() / TICK_US;
        let queued = self.revisions.iter().flat_map(|revision| &revision.queue);
        let mut due: Vec<_> = queued.copied().filter(|id| tick(self.live[id].push.deadline) <= now).collect();
        due.sort_by_key(|id| (tick(self.live[id].push.deadline), self.live[id].armed));
        for id in due {
            if let Some(at) = self.revisions.iter().position(|revision| revision.queue.contains(&id)) {
                self.expire(at, id);
                self.settle(at);
            }
        }
        let watched = |at: &usize| self.containers[*at].watched.map(|(due, armed)| (tick(due), armed));
        let mut due: Vec<_> = (0..self.containers.len()).collect();
        due.retain(|at| watched(at).is_some_and(|(due, _)| due <= now));
        due.sort_by_key(watched);
        due.into_iter().for_each(|at| self.look(at));
    }

    /// Answers what is overdue on a container.
    fn look(&mut self, at: usize) {
        self.containers[at].watched = None;
        for id in self.containers[at].in_flight.clone() {
            let activation = self.live.get_mut(&id).expect("in flight");
            let due = activation.push.deadline + self.limits.overdue_grace;
            if activation.answered {
                continue;
            }
            if due <= self.now {
                activation.answered = true;
                let (began, fair) =
                    (activation.dispatched_at, had_fair_time(&activation.push, activation.dispatched_at));
                let (reply, controller) = (activation.push.reply, activation.push.controller);
                if reply == Reply::Outcome {
                    self.effects.push(format!("answer {id} to {controller:?} timed_out"));
                }
                let verdict = if fair { Verdict::Strike(Cause::TimedOut) } else { Verdict::Undecided };
                self.judge(at, verdict, began);
            }
        }
        let own = self.containers[at].in_flight.iter().map(|id| &self.live[id]);
        let next = own.filter(|activation| !activation.answered).map(|activation| activation.push.deadline).min();
        let overdue = next.map(|deadline| deadline + self.limits.overdue_grace);
        let tripped = self.look_at_breakers(at);
        if let Some(next) = overdue.into_iter().chain(tripped).min() {
            self.watch(at, next);
        }
        self.settle(self.containers[at].revision);
    }

    pub(super) fn watch(&mut self, at: usize, due: Timestamp) {
        let clock = self.tick();
        let watched = &mut self.containers[at].watched;
        if watched.is_none_or(|(earlier, _)| due < earlier) {
            *watched = Some((due, clock));
        }
    }
}

/// Half of what it came with.
pub(super) fn fair_time(push: &Push) -> Duration {
    push.accepted_at.until(push.deadline) / 2
}

pub(super) fn had_fair_time(push: &Push, dispatched_at: Timestamp) -> bool {
    dispatched_at.until(push.deadline) >= fair_time(push)
}
