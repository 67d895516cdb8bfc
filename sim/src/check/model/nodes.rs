//! Nodes as the breakers of an action are to know them: by name, whatever sessions they have. What a breaker does in full is not said
//! again here, only what it cannot fail to do with a node that does nothing but die with its work.
//!
//! Of `2 n - 1` deaths within a window, `n` at least lie in one window of the breaker, wherever that begins: where `n` strikes open it,
//! it was opened, and only good probes would have closed it. Work that was underway at an earlier strike says nothing new to a breaker
//! that this strike opened, so a death with such work does not count. From then on there is one probe at a time, and after each that fails a pause
//! of at least half of `open_first`.

use super::micros;
use crate::check::books::{ContainerBook, NodeBook, Place};
use crate::check::{Call, Checker, Invariant};

impl Checker {
    fn node_of(&mut self, container: u32) -> Option<&mut NodeBook> {
        let ContainerBook { action, session, .. } = self.containers[container as usize];
        let node = self.sessions[session as usize].node?;
        Some(self.nodes.entry((node, action)).or_default())
    }

    /// Something that the breaker of its node may hold against the node, for that action.
    pub(super) fn strike_node(&mut self, container: u32) {
        let now = self.local;
        if let Some(node) = self.node_of(container) {
            node.strikes += 1;
            node.struck_at = Some(now);
        }
    }

    /// A container on it said how a run ended.
    pub(super) fn node_told(&mut self, container: u32) {
        if let Some(node) = self.node_of(container) {
            node.told = true;
        }
    }

    /// A container went with these, or came back without them. To be told before the [strike](Self::strike_node) that this is.
    pub(super) fn died(&mut self, container: u32, with: &[Call]) {
        let Some(rules) = self.limits.breaker.clone() else { return };
        let unanswered = |call: &&Call| matches!(self.calls[**call as usize].place, Place::InFlight(_));
        let lost: Vec<Call> = with.iter().filter(unanswered).copied().collect();
        let now = self.local;
        let Some(dispatched_at) = lost.iter().map(|call| self.calls[*call as usize].dispatched_at).min() else {
            return;
        };
        let Some(node) = self.node_of(container) else { return };
        let (window, first, most) = (micros(rules.window), micros(rules.open_first), micros(rules.open_max));
        if node.struck_at.is_none_or(|struck| struck < dispatched_at) {
            node.deaths.push_back(now);
        }
        while node.deaths.front().is_some_and(|death| death + window <= now) {
            node.deaths.pop_front();
        }
        if node.deaths.len() as u64 >= 2 * u64::from(rules.strikes.max(1)) - 1 {
            node.known_until = node.known_until.max((now + most).saturating_sub(window));
        }
        if node.probe.take_if(|(probe, on)| *on == container && lost.contains(probe)).is_some() {
            (node.open_until, node.known_until) = (now + first / 2, now + most);
        }
    }

    /// A strike that is about other work than the probe: the breaker of its node may be open again for it, and then the next
    /// probe goes while that one is still underway.
    pub(super) fn forget_probe(&mut self, container: u32) {
        if let Some(node) = self.node_of(container) {
            node.probe = None;
        }
    }

    /// Something is dispatched to a container.
    pub(super) fn judge_node(&mut self, now: u64, call: Call, container: u32) {
        let life = self.life;
        let Some(node) = self.node_of(container).filter(|node| !node.told && now < node.known_until) else { return };
        let (open_until, probe) = (node.open_until, node.probe.replace((call, container)));
        if now < open_until {
            self.fail(
                Invariant::I13,
                Some(call),
                "dispatched to a node that dies each time, before its breaker's time was over",
            );
        }
        // It may have come back, and be elsewhere by now.
        let there = |(probe, on): &(Call, u32)| {
            let book = &self.calls[*probe as usize];
            *probe != call && book.life == life && book.place == Place::InFlight(*on)
        };
        if let Some((probe, _)) = probe.filter(there) {
            let what = format!("dispatched to a node that dies each time, beside the probe {probe}");
            self.fail(Invariant::I13, Some(call), what);
        }
    }
}
