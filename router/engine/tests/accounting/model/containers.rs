//! Containers, and what they say.

use super::timers::{fair_time, had_fair_time};
use super::{Activation, Model};
use crate::node_of;
use bytes::Bytes;
use engine::breaker::{Breaker, Cause, State, Verdict};
use engine::id::ActivationId;
use engine::input::Rejoin;
use engine::outcome::RunStatus;
use engine::time::Timestamp;

#[derive(Debug, Default)]
pub(crate) struct Container {
    pub(crate) revision: usize,
    pub(crate) stream: u8,
    pub(crate) number: u32,
    pub(crate) concurrency: u32,
    pub(crate) credits: u32,
    pub(crate) warm: bool,
    pub(crate) in_flight: Vec<ActivationId>,
    pub(crate) awaiting: bool,
    pub(crate) suspended: bool,
    pub(crate) dispatched: u32,
    pub(crate) retired: bool,
    pub(crate) gone: bool,
    pub(crate) used: u64,
    /// When it is looked at, and when that was decided.
    pub(crate) watched: Option<(Timestamp, u64)>,
    pub(crate) breaker: Option<Breaker>,
    /// By its breaker, and by its node's.
    pub(crate) blocked: bool,
    pub(crate) node_blocked: bool,
}

impl Container {
    pub(super) fn takes(&self) -> bool {
        !(self.retired || self.awaiting || self.suspended || self.blocked || self.node_blocked) && self.credits > 0
    }

    fn room(&self) -> u32 {
        self.concurrency - self.credits - u32::try_from(self.in_flight.len()).expect("few")
    }
}

impl Model {
    pub(crate) fn next_number(&self) -> u32 {
        u32::try_from(self.containers.len()).expect("few") + self.refused_numbers
    }

    pub(crate) fn register(&mut self, name: u8, revision: u8, mut container: Container) -> bool {
        let known = self.revisions.iter().position(|known| (known.name, known.revision) == (name, revision));
        let Some(at) = known.or_else(|| self.add(name, revision)) else { return self.refuse_number() };
        let superseded = self.superseded.get(&name).is_some_and(|superseded| superseded.contains(&revision));
        if known.is_none() && superseded {
            self.supersede(at, self.current[&name]);
        }
        if container.credits > container.concurrency {
            return self.refuse_number();
        }
        (container.revision, container.used) = (at, self.tick());
        let node = node_of(container.stream);
        self.containers.push(container);
        self.forget_nodes(at);
        if let Some(breaker) = self.nodes.get_mut(&(at, node)) {
            breaker.look(self.now);
            self.follow(at, node);
        }
        self.settle(at);
        true
    }

    fn refuse_number(&mut self) -> bool {
        self.refused_numbers += 1;
        false
    }

    pub(crate) fn credit(&mut self, at: usize, credits: u32) {
        self.grant(at, credits);
        self.settle(self.containers[at].revision);
    }

    fn grant(&mut self, at: usize, credits: u32) {
        if self.containers[at].retired {
            return;
        }
        if credits > self.containers[at].room() {
            return self.effects.push(format!("refuse {} credit_overflow", self.containers[at].number));
        }
        self.change(at, |container| container.credits += credits);
    }

    pub(crate) fn complete(&mut self, at: usize, id: ActivationId, status: RunStatus, credits: u32) {
        let Some(ended) = self.take_in_flight(at, id) else { return };
        let Activation { push, answered, dispatched_at, .. } = self.end(id).expect("in flight");
        let clock = self.tick();
        let container = &mut self.containers[at];
        (container.warm, container.used) = (true, clock);
        let failed = status == RunStatus::PlatformFailed;
        let verdict = if failed { Verdict::Strike(Cause::Failed) } else { Verdict::Good };
        if !answered {
            self.answer(&push, &format!("{status:?}"));
            self.judge(at, verdict, dispatched_at);
        } else if !had_fair_time(&push, dispatched_at) {
            let fair_until = dispatched_at + fair_time(&push) + self.limits.overdue_grace;
            if failed {
                self.judge(at, verdict, dispatched_at);
            } else if self.now <= fair_until {
                self.judge(at, Verdict::GoodLate, dispatched_at);
            }
        }
        if credits > 0 {
            self.grant(at, credits);
        }
        self.settle(ended);
    }

    pub(crate) fn take_back(&mut self, at: usize, id: ActivationId, payload: Bytes) {
        let Some(revision) = self.take_in_flight(at, id) else { return };
        let activation = self.live.get_mut(&id).expect("in flight");
        activation.push.attempt += 1;
        activation.push.payload = payload;
        let (answered, dispatched_at) = (activation.answered, activation.dispatched_at);
        if !answered {
            self.judge(at, Verdict::Strike(Cause::Refused), dispatched_at);
        }
        self.come_back(revision, id);
    }

    pub(crate) fn unsent(&mut self, at: usize, id: ActivationId) {
        if !self.containers[at].in_flight.contains(&id) {
            return;
        }
        self.change(at, |container| {
            container.in_flight.retain(|own| *own != id);
            container.dispatched = container.dispatched.wrapping_sub(1);
            container.credits += u32::from(!container.retired);
        });
        self.undecided(at, id);
        self.come_back(self.containers[at].revision, id);
    }

    /// The revision it was in flight in, if it was.
    fn take_in_flight(&mut self, at: usize, id: ActivationId) -> Option<usize> {
        let known = self.live.contains_key(&id);
        let container = &mut self.containers[at];
        if let Some(place) = container.in_flight.iter().position(|own| *own == id) {
            container.in_flight.remove(place);
            return Some(container.revision);
        }
        if !container.gone {
            let reason = if known { "not_dispatched_here" } else { "not_in_flight" };
            self.effects.push(format!("refuse {} {reason}", container.number));
        }
        None
    }

    pub(crate) fn suspend(&mut self, at: usize) {
        self.containers[at].suspended = true;
    }

    pub(crate) fn rejoin(&mut self, at: usize, rejoin: &Rejoin) {
        let container = &mut self.containers[at];
        if container.gone {
            return;
        }
        container.dispatched = 0;
        let lost: Vec<_> = container.in_flight.extract_if(.., |id| !rejoin.held.contains(id)).collect();
        let unanswered = lost.iter().map(|id| &self.live[id]).filter(|one| !one.answered);
        let began = unanswered.map(|one| one.dispatched_at).next_back();
        for id in lost {
            self.undecided(at, id);
            self.lose(id);
        }
        if let Some(began) = began {
            let (revision, node) = (self.containers[at].revision, node_of(self.containers[at].stream));
            self.judge_node(revision, node, Verdict::Strike(Cause::Failed), began);
        }
        self.containers[at].credits = 0;
        self.change(at, |container| (container.suspended, container.awaiting) = (false, false));
        if self.containers[at].retired {
            self.effects.push(format!("drain {}", self.containers[at].number));
        } else {
            self.grant(at, rejoin.credits);
        }
        self.settle(self.containers[at].revision);
    }

    pub(crate) fn compare(&mut self, at: usize, credits: u32, received: u32) {
        let revision = self.containers[at].revision;
        let container = &self.containers[at];
        let underway = i64::from(container.dispatched.wrapping_sub(received));
        let leaked = i64::from(credits) - underway - i64::from(container.credits);
        let least = -i64::from(container.credits);
        let leaked = leaked.clamp(least, container.room().into());
        if !container.retired {
            self.change(at, |container| {
                container.credits = u32::try_from(i64::from(container.credits) + leaked).expect("never below zero");
            });
        }
        self.settle(revision);
    }

    pub(crate) fn resume(&mut self, stream: u8) {
        let containers = &self.containers;
        let awaiting: Vec<usize> = self.asked.extract_if(.., |at| containers[*at].stream == stream).collect();
        for at in awaiting {
            self.change(at, |container| container.awaiting = false);
            self.settle(self.containers[at].revision);
        }
    }

    pub(crate) fn retire(&mut self, at: usize) {
        let container = &mut self.containers[at];
        (container.retired, container.credits) = (true, 0);
        if !container.gone {
            self.effects.push(format!("drain {}", self.containers[at].number));
        }
        self.settle(self.containers[at].revision);
    }

    pub(crate) fn gone(&mut self, at: usize) {
        let container = &mut self.containers[at];
        let was_gone = std::mem::replace(&mut container.gone, true);
        (container.retired, container.credits) = (true, 0);
        let (revision, node) = (container.revision, node_of(container.stream));
        let tripped = container.breaker.as_ref().filter(|one| one.state() != State::Closed && !was_gone);
        let tripped = tripped.map(|one| (one.cause(), one.since()));
        let lost = std::mem::take(&mut container.in_flight);
        let unanswered = lost.iter().map(|id| &self.live[id]).filter(|one| !one.answered);
        let began = unanswered.map(|one| one.dispatched_at).next_back().filter(|_| !was_gone);
        lost.into_iter().for_each(|id| self.lose(id));
        if let Some((cause, began)) = began.map(|began| (Cause::Failed, began)).or(tripped) {
            self.judge_node(revision, node, Verdict::Strike(cause), began);
        }
        self.containers[at].watched = None;
        self.settle(revision);
    }

    fn lose(&mut self, id: ActivationId) {
        let Activation { push, answered, .. } = self.end(id).expect("in flight");
        if !answered {
            self.answer(&push, "lost");
        }
    }

    /// Whoever comes to take activations is the most recent.
    pub(super) fn change(&mut self, at: usize, change: impl FnOnce(&mut Container)) {
        let clock = self.tick();
        let container = &mut self.containers[at];
        let took = container.takes();
        change(container);
        if !took {
            container.used = clock;
        }
    }
}
