//! Which containers get nothing because work fails there: their own [breakers](crate::breaker), and those of their
//! [nodes](crate::nodes) for the action. A part of the [matcher](crate::matcher).
//!
//! ```text
//!                        its own breaker        its node's
//!   completed            good                   good           an action's own failure is no strike, nor is a full queue or
//!   action failed        good                   good           an expired activation, which no container has seen
//!   platform failed      strike                 strike
//!   slower than it may   strike (slow)          undecided
//!   returned unstarted   strike (refused)       undecided
//!   overdue, fair time   strike (timed out)     undecided
//!   overdue otherwise    undecided              undecided      until it completes late: then its run is judged as above
//!   gone with work       -                      strike, one for all of it
//!   not held any more    undecided              strike, one for all of a container that rejoins without it
//!   never sent           undecided              undecided
//!   gone while tripped   -                      strike, for what the container's own breaker had opened for
//! ```
//!
//! A node is known by its name, whatever sessions and containers it has under it and whether it is there: so one that dies at
//! each run and comes back, in a new session or in one that it resumes, under other numbers or epochs, is held back.
//!
//! A container had a fair time for an activation if at least half of the time the activation came with was left when it was
//! dispatched. Under overload the queue eats the rest, and the container is not to blame for a timeout. What that means:
//!
//! - A container that hangs while overload lasts has no strikes for it. What timed out keeps its place, so the container
//!   swallows as many activations as it has places, and gets no more.
//! - One that was handed back, or never left the router, has the time left of its first arrival. So has one that comes back
//!   from the store in the life that stored it; one of an earlier life does not say what it came with, and never had a fair time.
//! - A probe that had no fair time frees its place when it times out. If it completes within what would have been fair, that
//!   is a good probe all the same: else a half-open breaker, whose single probes let the queue grow old, would keep itself open.
//! - `slow_after` runs from dispatch to completion, whatever time was left: it counts, also for a completion after the timeout.
//! - Work handed back is a strike whatever time was left: the container did not start it. Of a container that goes with
//!   nothing but work that has timed out before, nothing is learnt.
//!
//! While neither it nor a node has had a strike, a container costs a dispatch and a completion a null check each.

use crate::breaker::{Breaker, Cause, State, Verdict};
use crate::container::ContainerKey;
use crate::id::{NodeName, StreamId};
use crate::matcher::Matcher;
use crate::tally::Count;
use crate::time::Timestamp;
use crate::turn::Turn;
use crate::withheld::Because;

/// A breaker that is not closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tripped {
    pub(crate) node: NodeName,
    /// Session and number; None: of all containers of the node.
    pub(crate) container: Option<(StreamId, u32)>,
    pub(crate) state: State,
    pub(crate) cause: Cause,
    pub(crate) since: Timestamp,
}

impl Matcher {
    /// Whether a breaker has to hear how things end there.
    pub(crate) fn is_guarded(&self, key: ContainerKey) -> bool {
        self.nodes.is_some() || self.containers.get(key).is_some_and(|container| container.breaker.is_some())
    }

    /// Something that was dispatched to a container then has ended.
    #[cold]
    pub(crate) fn judge(&mut self, key: ContainerKey, verdict: Verdict, began: Timestamp, turn: &mut Turn<'_>) {
        let Some(container) = self.containers.get(key) else { return };
        let node = container.node.clone();
        self.judge_container(key, verdict, began, turn);
        let verdict = match verdict {
            Verdict::Good | Verdict::GoodLate | Verdict::Strike(Cause::Failed) => verdict,
            Verdict::Strike(_) | Verdict::Undecided => Verdict::Undecided,
        };
        self.judge_node(&node, verdict, began, turn);
    }

    fn judge_container(&mut self, key: ContainerKey, verdict: Verdict, began: Timestamp, turn: &mut Turn<'_>) {
        let Some(rules) = &turn.shared.limits.breaker else { return };
        let random = turn.shared.random(turn.now);
        let Some(container) = self.containers.get_mut(key) else { return };
        if let (None, Verdict::Strike(_)) = (&container.breaker, verdict) {
            container.breaker = Some(Box::new(Breaker::new(turn.now, rules)));
        }
        let Some(breaker) = &mut container.breaker else { return };
        let changed = breaker.ended(verdict, began, turn.now, random, rules);
        let (allows, until, cause) = (breaker.allows(), breaker.until(), breaker.cause());
        if breaker.is_over(turn.now, rules) {
            container.breaker = None;
        }
        self.containers.set(key, Because::Breaker, !allows);
        turn.count_change(changed, cause);
        if let Some(until) = until {
            self.watch(key, until, turn);
        }
    }

    /// Something has ended on a node that was dispatched to it then.
    pub(crate) fn judge_node(&mut self, node: &NodeName, verdict: Verdict, began: Timestamp, turn: &mut Turn<'_>) {
        let Some(rules) = &turn.shared.limits.breaker else { return };
        let random = turn.shared.random(turn.now).rotate_left(32);
        let nodes = match (&mut self.nodes, verdict) {
            (Some(nodes), _) => nodes,
            (none, Verdict::Strike(_)) => none.insert(Box::default()),
            (None, _) => return,
        };
        let standing =
            |breaker: Option<&mut Breaker>| breaker.map_or((true, State::Closed), |one| (one.allows(), one.state()));
        let before = standing(nodes.get_mut(node));
        nodes.forget(turn.now, rules);
        let breaker = match verdict {
            Verdict::Strike(_) => nodes.get_or_add(node, turn.now, rules),
            _ => nodes.get_mut(node),
        };
        if let Some(breaker) = breaker {
            let changed = breaker.ended(verdict, began, turn.now, random, rules);
            let cause = breaker.cause();
            turn.count_change(changed, cause);
        }
        let after = standing(self.nodes.as_mut().and_then(|nodes| nodes.get_mut(node)));
        self.nodes.take_if(|nodes| nodes.is_empty());
        if before != after {
            self.follow_node(node, turn);
        }
    }

    /// Withholds activations from the containers of a node, or no longer, as its breaker says.
    fn follow_node(&mut self, node: &NodeName, turn: &mut Turn<'_>) {
        let breaker = self.nodes.as_mut().and_then(|nodes| nodes.get_mut(node));
        let (allows, until) = breaker.map_or((true, None), |breaker| (breaker.allows(), breaker.until()));
        for key in self.containers.of(node) {
            self.containers.set(key, Because::Node, !allows);
            if let Some(until) = until {
                self.watch(key, until, turn);
            }
        }
    }

    /// Something is dispatched to a container: it may be a probe.
    #[cold]
    pub(crate) fn begin(&mut self, key: ContainerKey, turn: &mut Turn<'_>) {
        let container = self.containers.get_mut(key).expect("just chosen");
        let node = &container.node.clone();
        if let Some(breaker) = container.breaker.as_mut().filter(|breaker| breaker.state() == State::HalfOpen) {
            breaker.begin(turn.now);
            turn.tally.count(Count::BreakerProbed);
            self.containers.set(key, Because::Breaker, true);
        }
        let breaker = self.nodes.as_mut().and_then(|nodes| nodes.get_mut(node));
        if let Some(breaker) = breaker.filter(|breaker| breaker.state() == State::HalfOpen) {
            breaker.begin(turn.now);
            turn.tally.count(Count::BreakerProbed);
            self.follow_node(node, turn);
        }
    }

    /// Sees whether a probe may go to a container. Returns when to look again.
    pub(crate) fn look_at_breakers(&mut self, key: ContainerKey, turn: &mut Turn<'_>) -> Option<Timestamp> {
        let container = self.containers.get_mut(key)?;
        let node = &container.node.clone();
        let mut next = None;
        if let Some(breaker) = &mut container.breaker {
            breaker.look(turn.now);
            next = breaker.until();
            let allows = breaker.allows();
            self.containers.set(key, Because::Breaker, !allows);
        }
        let Some(breaker) = self.nodes.as_mut().and_then(|nodes| nodes.get_mut(node)) else {
            // Forgotten, should nobody have looked for so long.
            self.containers.set(key, Because::Node, false);
            return next;
        };
        let due = breaker.look(turn.now);
        let until = breaker.until();
        if due {
            self.follow_node(node, turn);
        }
        next.into_iter().chain(until).min()
    }

    /// A container is new: what its node's breaker says holds for it too.
    pub(crate) fn guard(&mut self, key: ContainerKey, turn: &mut Turn<'_>) {
        let (Some(nodes), Some(rules)) = (&mut self.nodes, &turn.shared.limits.breaker) else { return };
        nodes.forget(turn.now, rules);
        let node = &self.containers.get(key).expect("just registered").node.clone();
        if let Some(breaker) = self.nodes.as_mut().and_then(|nodes| nodes.get_mut(node)) {
            breaker.look(turn.now);
            self.follow_node(node, turn);
        }
    }

    /// For a planted bug: once no container is on that node its breaker is forgotten.
    pub(crate) fn forget_node(&mut self, node: &NodeName) {
        if self.containers.of(node).is_empty() {
            self.nodes.iter_mut().for_each(|nodes| nodes.remove(node));
        }
    }

    /// Its breakers that are not closed.
    pub(crate) fn tripped(&self) -> impl Iterator<Item = Tripped> {
        let nodes = self.nodes.iter().flat_map(|nodes| nodes.not_closed());
        let nodes = nodes.map(|(node, breaker)| Tripped::new(node, None, breaker));
        self.containers.tripped().chain(nodes)
    }
}

impl Tripped {
    pub(crate) fn new(node: &NodeName, container: Option<(StreamId, u32)>, breaker: &Breaker) -> Self {
        Self { node: node.clone(), container, state: breaker.state(), cause: breaker.cause(), since: breaker.since() }
    }
}

impl Turn<'_> {
    fn count_change(&mut self, changed: Option<State>, cause: Cause) {
        match changed {
            None | Some(State::HalfOpen) => {}
            Some(State::Closed) => self.tally.count(Count::BreakerClosed),
            Some(State::Open) => self.tally.count(match cause {
                Cause::Refused => Count::BreakerRefused,
                Cause::TimedOut => Count::BreakerTimedOut,
                Cause::Failed => Count::BreakerFailed,
                Cause::Slow => Count::BreakerSlow,
            }),
        }
    }
}
