//! The breakers of one action by node: of all its containers that one session of a node carries together. A container that
//! dies at each run and is replaced by another has no breaker that would remember; its node has.

use crate::breaker::{Breaker, Rules, State};
use crate::id::StreamId;
use crate::limits::NODE_BREAKERS_MAX;
use crate::time::Timestamp;

/// Those of the nodes that had a strike lately.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    /// Few, so they are looked through.
    breakers: Vec<(StreamId, Breaker)>,
}

impl Nodes {
    pub(crate) fn get_mut(&mut self, node: StreamId) -> Option<&mut Breaker> {
        self.breakers.iter_mut().find(|(of, _)| *of == node).map(|(_, breaker)| breaker)
    }

    /// The breaker of a node, made if there is room for one.
    pub(crate) fn get_or_add(&mut self, node: StreamId, now: Timestamp, rules: &Rules) -> Option<&mut Breaker> {
        if self.get_mut(node).is_none() {
            if self.breakers.len() >= NODE_BREAKERS_MAX {
                return None;
            }
            self.breakers.push((node, Breaker::new(now, rules)));
        }
        self.get_mut(node)
    }

    /// Forgets those that have nothing to remember, and open ones that nobody looked at for long after their time: their
    /// nodes have no container here any more.
    pub(crate) fn forget(&mut self, now: Timestamp, rules: &Rules) {
        let abandoned = |breaker: &Breaker| breaker.until().is_some_and(|until| until + rules.open_max <= now);
        self.breakers.retain(|(_, breaker)| !breaker.is_over(now, rules) && !abandoned(breaker));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.breakers.is_empty()
    }

    /// Those that are not closed.
    pub(crate) fn not_closed(&self) -> impl Iterator<Item = (StreamId, &Breaker)> {
        let all = self.breakers.iter().map(|(node, breaker)| (*node, breaker));
        all.filter(|(_, breaker)| breaker.state() != State::Closed)
    }
}
