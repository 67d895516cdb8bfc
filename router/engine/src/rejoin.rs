//! What becomes of a container while its stream is broken and when its node comes back, and the comparison of credits. A part
//! of the [matcher](crate::matcher).
//!
//! ```text
//!   stream breaks ─▶ suspend ─▶ unsent (each dispatch that never left: queued again) ─▶ rejoin ─▶ what it does not hold: lost
//!                                                                                  └─▶ gone   ─▶ all it had in flight: lost
//! ```

use crate::breaker::{Cause, Verdict};
use crate::container::ContainerKey;
use crate::id::ActivationId;
use crate::input::Rejoin;
use crate::list::List;
use crate::matcher::Matcher;
use crate::mutant::{Mutant, is};
use crate::slab::Key;
use crate::tally::Count;
use crate::turn::Turn;
use bytes::Bytes;

impl Matcher {
    pub(crate) fn suspend(&mut self, key: ContainerKey) {
        self.containers.suspend(key);
    }

    /// A dispatch that provably never left: it is queued where it was, and its container has its credit back. If it was
    /// answered meanwhile, as lost with its container, it stays so.
    pub(crate) fn unsent(&mut self, on: ContainerKey, id: ActivationId, payload: Bytes, turn: &mut Turn<'_>) {
        let Some(at) = turn.shared.ledger.find(&id).filter(|at| self.is_in_flight(at, on, turn)) else { return };
        self.detach(at.slot, on);
        let answered = self.slots[at.slot].is_answered();
        // What was answered counts as late and as nothing else; its credit comes back all the same.
        turn.tally.count(if answered { Count::CreditsGranted } else { Count::Unsent });
        if !self.containers.unsent(on) {
            turn.tally.count(Count::CreditsRevoked);
        }
        if answered {
            turn.tally.count(Count::Late);
            self.forget(at.slot, turn);
        } else {
            self.undecided(on, at.slot, turn);
            if is(Mutant::UnsentDropped) {
                self.forget(at.slot, turn);
                return;
            }
            self.requeue(at.slot, payload, turn);
        }
        self.settle(turn);
    }

    pub(crate) fn rejoin(&mut self, key: ContainerKey, rejoin: Rejoin, turn: &mut Turn<'_>) {
        let Some(container) = self.containers.get(key) else { return };
        let Rejoin { credits, mut held } = rejoin;
        held.sort_unstable();
        let node = container.node.clone();
        let mut began = None;
        let mut next = container.activations.first();
        while let Some(slot) = next {
            next = List::after(&self.slots, slot);
            if held.binary_search(&self.slots[slot].id).is_err() && !is(Mutant::RejoinKeepsAll) {
                self.containers.left(key);
                // As for one that is gone: the one dispatched last.
                began = Some(self.slots[slot].dispatched_at()).filter(|_| !self.slots[slot].is_answered()).or(began);
                self.undecided(key, slot, turn);
                self.lose(slot, key, turn);
            }
        }
        if let Some(began) = began.filter(|_| !is(Mutant::ResumingForgives)) {
            self.judge_node(&node, Verdict::Strike(Cause::Failed), began, turn);
        }
        match self.containers.rejoin(key, credits) {
            Some((revoked, granted)) => {
                turn.tally.add(Count::CreditsRevoked, revoked.into());
                match granted {
                    Ok(granted) => turn.tally.add(Count::CreditsGranted, granted.into()),
                    Err(rejection) => self.refuse(key, rejection, &[], turn),
                }
            }
            // It retired meanwhile, and may not have heard of that.
            None => self.drain(key, turn),
        }
        turn.tally.count(Count::Rejoined);
        self.settle(turn);
    }

    /// An activation leaves its container, and that says nothing of either: the way there broke.
    fn undecided(&mut self, on: ContainerKey, slot: Key, turn: &mut Turn<'_>) {
        if self.is_guarded(on) && !self.slots[slot].is_answered() {
            let began = self.slots[slot].dispatched_at();
            self.judge(on, Verdict::Undecided, began, turn);
        }
    }

    pub(crate) fn audit(&mut self, key: ContainerKey, credits: u32, received: u32, turn: &mut Turn<'_>) {
        let compared = self.containers.compare(key, credits, received);
        // Both ways it ends with what the container states, so that no difference is counted twice.
        turn.tally.add(Count::CreditsPhantom, compared.phantom.into());
        turn.tally.add(Count::CreditsRevoked, compared.phantom.into());
        turn.tally.add(Count::CreditsLeaked, compared.leaked.into());
        turn.tally.add(Count::CreditsGranted, compared.leaked.into());
        turn.tally.count(Count::Audits);
        self.settle(turn);
    }
}
