//! The breakers of one action by node: of all its containers on the node of that name, whatever sessions carry them. A container
//! that dies at each run and is replaced by another has no breaker that would remember; its node has. A node that dies at each
//! run and comes back has no session that would remember; its name does. Two nodes that share a name share the breaker.

use crate::breaker::{Breaker, Rules, State};
use crate::id::NodeName;
use crate::limits::NODE_BREAKERS_MAX;
use crate::time::Timestamp;

/// Those of the nodes that had a strike lately.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    /// Few, so they are looked through.
    breakers: Vec<(NodeName, Breaker)>,
}

impl Nodes {
    pub(crate) fn get_mut(&mut self, node: &NodeName) -> Option<&mut Breaker> {
        self.breakers.iter_mut().find(|(of, _)| of == node).map(|(_, breaker)| breaker)
    }

    /// The breaker of a node, made if there is room for one: see [`NODE_BREAKERS_MAX`].
    pub(crate) fn get_or_add(&mut self, node: &NodeName, now: Timestamp, rules: &Rules) -> Option<&mut Breaker> {
        if self.get_mut(node).is_none() {
            if self.breakers.len() >= NODE_BREAKERS_MAX {
                let least = self.least_known()?;
                self.breakers.swap_remove(least);
            }
            self.breakers.push((node.clone(), Breaker::new(now, rules)));
        }
        self.get_mut(node)
    }

    /// Which one to forget for another: never one that keeps work from its node.
    fn least_known(&self) -> Option<usize> {
        let all = self.breakers.iter().enumerate();
        let closed = all.filter(|(_, (_, breaker))| breaker.state() == State::Closed);
        closed.min_by_key(|(_, (_, breaker))| breaker.strikes_since()).map(|(at, _)| at)
    }

    /// Forgets those that have nothing to remember, and open ones that nobody looked at for long after their time: their
    /// nodes have no container here any more.
    pub(crate) fn forget(&mut self, now: Timestamp, rules: &Rules) {
        let abandoned = |breaker: &Breaker| breaker.until().is_some_and(|until| until + rules.open_max <= now);
        self.breakers.retain(|(_, breaker)| !breaker.is_over(now, rules) && !abandoned(breaker));
    }

    /// For a planted bug.
    pub(crate) fn remove(&mut self, node: &NodeName) {
        self.breakers.retain(|(of, _)| of != node);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.breakers.is_empty()
    }

    /// Those that are not closed.
    pub(crate) fn not_closed(&self) -> impl Iterator<Item = (&NodeName, &Breaker)> {
        let all = self.breakers.iter().map(|(node, breaker)| (node, breaker));
        all.filter(|(_, breaker)| breaker.state() != State::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::{Cause, Verdict};

    fn name(number: usize) -> NodeName {
        NodeName::new(&format!("node{number}"))
    }

    fn strike(nodes: &mut Nodes, node: usize, now: u64) -> bool {
        let (now, rules) = (Timestamp::from_micros(now), Rules::default());
        let breaker = nodes.get_or_add(&name(node), now, &rules);
        breaker.map(|breaker| breaker.ended(Verdict::Strike(Cause::Failed), now, now, 0, &rules)).is_some()
    }

    #[test]
    fn a_flood_of_names_pushes_out_the_least_known_and_no_open_one() {
        let mut nodes = Nodes::default();
        (0..3).for_each(|now| assert!(strike(&mut nodes, 0, now)));
        (3..5).for_each(|now| assert!(strike(&mut nodes, 1, now)));
        (2..10_000).for_each(|node| assert!(strike(&mut nodes, node, 10 + node as u64)));
        assert_eq!(nodes.breakers.len(), NODE_BREAKERS_MAX);
        assert_eq!(nodes.get_mut(&name(0)).unwrap().state(), State::Open);
        let kept = [1, 9_939, 9_938, 2].map(|node| nodes.get_mut(&name(node)).is_some());
        assert_eq!(kept, [true, true, true, false], "two strikes outweigh one, and new ones old ones");
    }

    #[test]
    fn while_all_are_open_there_is_no_room() {
        let mut nodes = Nodes::default();
        for node in 0..NODE_BREAKERS_MAX {
            (0..3).for_each(|now| assert!(strike(&mut nodes, node, now)));
        }
        assert!(!strike(&mut nodes, NODE_BREAKERS_MAX, 3));
        assert_eq!(nodes.not_closed().count(), NODE_BREAKERS_MAX);
    }
}
