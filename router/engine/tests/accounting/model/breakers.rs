//! Breakers of containers, and of an action's containers on a node.

use super::{Container, Model};
use crate::node_of;
use engine::breaker::{Breaker, Cause, State, Verdict};
use engine::id::ActivationId;
use engine::time::Timestamp;

impl Model {
    /// How a run on a container ended, for its breaker and its node's.
    pub(super) fn judge(&mut self, at: usize, verdict: Verdict, began: Timestamp) {
        let Some(rules) = self.limits.breaker.clone() else { return };
        let now = self.now;
        let container = &mut self.containers[at];
        let (revision, node) = (container.revision, node_of(container.stream));
        if let Verdict::Strike(_) = verdict {
            container.breaker.get_or_insert_with(|| Breaker::new(now, &rules));
        }
        if let Some(breaker) = &mut container.breaker {
            breaker.ended(verdict, began, now, 0, &rules);
            let (allows, until) = (breaker.allows(), breaker.until());
            container.breaker.take_if(|breaker| breaker.is_over(now, &rules));
            self.change(at, |container| container.blocked = !allows);
            until.into_iter().for_each(|until| self.watch(at, until));
        }
        let verdict = match verdict {
            Verdict::Good | Verdict::GoodLate | Verdict::Strike(Cause::Failed) => verdict,
            _ => Verdict::Undecided,
        };
        self.judge_node(revision, node, verdict, began);
    }

    pub(super) fn undecided(&mut self, at: usize, id: ActivationId) {
        if !self.live[&id].answered {
            self.judge(at, Verdict::Undecided, self.live[&id].dispatched_at);
        }
    }

    pub(super) fn judge_node(&mut self, revision: usize, node: u8, verdict: Verdict, began: Timestamp) {
        let Some(rules) = self.limits.breaker.clone() else { return };
        let (now, key) = (self.now, (revision, node));
        let standing =
            |model: &Self| model.nodes.get(&key).map_or((true, State::Closed), |one| (one.allows(), one.state()));
        let before = standing(self);
        self.forget_nodes(revision);
        if let Verdict::Strike(_) = verdict {
            self.nodes.entry(key).or_insert_with(|| Breaker::new(now, &rules));
        }
        if let Some(breaker) = self.nodes.get_mut(&key) {
            breaker.ended(verdict, began, now, 0, &rules);
        }
        if before != standing(self) {
            self.follow(revision, node);
        }
    }

    /// Of that revision those that have nothing to remember, or whose nodes are gone.
    pub(super) fn forget_nodes(&mut self, revision: usize) {
        let Some(rules) = self.limits.breaker.clone() else { return };
        let now = self.now;
        self.nodes.retain(|(of, _), breaker| {
            let abandoned = breaker.until().is_some_and(|until| until + rules.open_max <= now);
            *of != revision || !breaker.is_over(now, &rules) && !abandoned
        });
    }

    /// The containers of a node take activations or do not, as its breaker says.
    pub(super) fn follow(&mut self, revision: usize, node: u8) {
        let breaker = self.nodes.get(&(revision, node));
        let (allows, until) = breaker.map_or((true, None), |one| (one.allows(), one.until()));
        let own = |one: &Container| (one.revision, node_of(one.stream), one.gone) == (revision, node, false);
        let mut all: Vec<usize> = (0..self.containers.len()).filter(|at| own(&self.containers[*at])).collect();
        // Session by session: the last one becomes the most recent.
        all.sort_by_key(|at| (self.containers[*at].stream, self.containers[*at].number));
        for at in all {
            self.change(at, |container| container.node_blocked = !allows);
            until.into_iter().for_each(|until| self.watch(at, until));
        }
    }

    /// What is dispatched may be a probe.
    pub(super) fn begin(&mut self, at: usize) {
        let now = self.now;
        let container = &mut self.containers[at];
        let (revision, node) = (container.revision, node_of(container.stream));
        if let Some(breaker) = container.breaker.as_mut().filter(|one| one.state() == State::HalfOpen) {
            assert!(breaker.begin(now), "one probe at a time");
            container.blocked = true;
        }
        if let Some(breaker) = self.nodes.get_mut(&(revision, node)).filter(|one| one.state() == State::HalfOpen) {
            assert!(breaker.begin(now), "one probe at a time");
            self.follow(revision, node);
        }
    }

    pub(super) fn look_at_breakers(&mut self, at: usize) -> Option<Timestamp> {
        let now = self.now;
        let (revision, node) = (self.containers[at].revision, node_of(self.containers[at].stream));
        let mut next = None;
        if let Some(breaker) = &mut self.containers[at].breaker {
            breaker.look(now);
            next = breaker.until();
            let blocked = !breaker.allows();
            self.change(at, |container| container.blocked = blocked);
        }
        let Some(breaker) = self.nodes.get_mut(&(revision, node)) else {
            self.change(at, |container| container.node_blocked = false);
            return next;
        };
        let due = breaker.look(now);
        next = next.into_iter().chain(breaker.until()).min();
        if due {
            self.follow(revision, node);
        }
        next
    }
}
