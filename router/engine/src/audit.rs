//! What all actions together hold, found by looking at each: for invariants that no counter can show. Rare and slow; an action
//! is held only while it is looked at.

use crate::breaker::{Cause, State};
use crate::effect::Perform;
use crate::guard::Tripped;
use crate::hub::{Action, Hub, Pass};
use crate::id::{ActionKey, NodeName, StreamId};
use crate::matcher::Matcher;
use crate::time::Timestamp;
use std::sync::{Arc, Weak};

/// Sums over all containers. At a quiet moment, with no credit or dispatch underway, `credits` are the free slots:
/// `slots - in_flight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audit {
    /// Containers registered, retired ones included.
    pub containers: u64,
    /// Those whose stream is broken.
    pub suspended: u64,
    /// Those that breakers, theirs or their node's, withhold activations from.
    pub tripped: u64,
    /// What those that are not retired may run at once.
    pub slots: u64,
    /// What those run.
    pub in_flight: u64,
    /// Credits they have.
    pub credits: u64,
    /// In flight on containers that are retired.
    pub retired_in_flight: u64,
}

/// A breaker that is not closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The action.
    pub action: ActionKey,
    /// The node.
    pub node: NodeName,
    /// The session that carries the container, and the container's number there; None: the breaker is that of all the action's
    /// containers on the node.
    pub container: Option<(StreamId, u32)>,
    /// Open or half-open.
    pub state: State,
    /// What opened it.
    pub cause: Cause,
    /// Since when it has been in that state.
    pub since: Timestamp,
}

impl Hub {
    /// Looks at every container. The sums are of slightly different moments while threads are at work.
    pub fn audit<P: Perform>(&self, pass: &mut Pass<P>) -> Audit {
        let mut audit = Audit::default();
        for action in self.known() {
            self.visit(&action, pass, |matcher, _| matcher.add_to(&mut audit));
        }
        audit
    }

    /// Breakers that are not closed, at most that many of them.
    pub fn breakers<P: Perform>(&self, most: usize, pass: &mut Pass<P>) -> Vec<Report> {
        let mut reports = Vec::new();
        for action in self.known() {
            if reports.len() >= most {
                break;
            }
            let left = most - reports.len();
            let tripped = self.visit(&action, pass, |matcher, _| matcher.tripped().take(left).collect::<Vec<_>>());
            reports.extend(tripped.into_iter().map(|Tripped { node, container, state, cause, since }| Report {
                action: action.key().clone(),
                node,
                container,
                state,
                cause,
                since,
            }));
        }
        reports
    }

    /// All actions that are there when their turn comes. The list does not keep them, so that they may be forgotten meanwhile.
    fn known(&self) -> impl Iterator<Item = Arc<Action>> + use<> {
        let known: Vec<Weak<Action>> = self.list();
        known.into_iter().filter_map(|action| action.upgrade())
    }
}

impl Matcher {
    fn add_to(&self, audit: &mut Audit) {
        self.containers.iter().for_each(|container| container.add_to(audit));
    }
}
