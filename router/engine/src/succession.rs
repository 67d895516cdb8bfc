//! Revisions of one action that take over from one another: what a matcher does once it is superseded, and who waits for it.
//!
//! ```text
//!   superseded ─┬─ has containers ───────────▶ drains to them; then they may go
//!               ├─ has none ─────────────────▶ what is queued moves to the newer one, at once
//!               └─ has none, and overflows ──▶ Behind: waits with what came back from the store ─▶ MoveOn: nothing is queued there
//! ```
//!
//! Without the wait all of a backlog that was made for the disk would be queued in the newer revision at once, which refuses nothing that
//! was accepted. A newer revision that is never empty lets the older ones in, a batch for each batch that has left its queue since: so
//! memory stays bounded, and what was stored does not wait until it expires.

use crate::effect::Perform;
use crate::hub::{Action, Hub, Pass};
use crate::input::{Input, Push};
use crate::matcher::{Matcher, Slot};
use crate::tally::Count;
use crate::turn::Turn;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Other revisions that a matcher has to do with.
#[derive(Debug, Default)]
pub(crate) struct Succession {
    /// The one that took over.
    newer: Option<Arc<Action>>,
    /// Earlier ones that wait until nothing is queued here, or enough has left. They are told once, so nothing points round for long.
    behind: VecDeque<Behind>,
    /// Activations that have left the queue since the first of them came; wraps.
    departed: u32,
}

/// An earlier revision that waits.
#[derive(Debug)]
struct Behind {
    older: Arc<Action>,
    /// How many had departed when it came, or when the one before it was let in.
    since: u32,
}

impl Succession {
    /// One has left the queue.
    pub(crate) fn departed(&mut self) {
        self.departed = self.departed.wrapping_add(1);
    }

    /// The next of those that wait, if a batch has departed since its turn came.
    fn next(&mut self, batch: u32) -> Option<Arc<Action>> {
        let since = self.behind.front()?.since;
        if self.departed.wrapping_sub(since) < batch {
            return None;
        }
        let next = self.behind.pop_front()?;
        if let Some(front) = self.behind.front_mut() {
            front.since = self.departed;
        }
        Some(next.older)
    }
}

impl Matcher {
    /// The revision that took over.
    pub(crate) fn newer(&self) -> Option<&Arc<Action>> {
        self.succession.as_ref()?.newer.as_ref()
    }

    pub(crate) fn supersede(&mut self, newer: Arc<Action>, turn: &mut Turn<'_>) {
        let succession = self.succession.get_or_insert_default();
        // What waited for this one waits for that now.
        let waiting = succession.behind.drain(..).map(|behind| (newer.clone(), Input::Behind(behind.older)));
        turn.elsewhere.extend(waiting);
        succession.newer = Some(newer);
        self.settle(turn);
    }

    pub(crate) fn let_wait(&mut self, older: Arc<Action>, turn: &mut Turn<'_>) {
        match self.newer() {
            Some(newer) => turn.elsewhere.push_back((newer.clone(), Input::Behind(older))),
            None => {
                let succession = self.succession.get_or_insert_default();
                let since = succession.departed;
                succession.behind.push_back(Behind { older, since });
                self.settle(turn);
            }
        }
    }

    pub(crate) fn may_move_on(&mut self, turn: &mut Turn<'_>) {
        self.may_ask_to_move();
        if let Some(newer) = self.newer().cloned()
            && self.containers.none_open()
        {
            self.move_on(&newer, turn);
        }
        // An empty queue wants more back from the store.
        self.settle(turn);
    }

    /// Once all is matched that can be.
    pub(crate) fn hand_over(&mut self, turn: &mut Turn<'_>) {
        if let Some(newer) = self.newer().cloned() {
            return self.wind_down(&newer, turn);
        }
        let batch = self.batch(turn);
        let Some(succession) = &mut self.succession else { return };
        if self.queue.is_empty() {
            turn.elsewhere.extend(succession.behind.drain(..).map(|behind| (behind.older, Input::MoveOn)));
            self.succession = None;
        } else if let Some(older) = succession.next(batch) {
            turn.elsewhere.push_back((older, Input::MoveOn));
        }
    }

    fn wind_down(&mut self, newer: &Arc<Action>, turn: &mut Turn<'_>) {
        if !self.containers.none_open() {
            if self.queue.is_empty() && self.overflowing.is_none() {
                self.dismiss(turn);
            }
        } else if self.overflowing.is_none() {
            self.move_on(newer, turn);
        } else if !self.queue.is_empty() && self.asks_to_move() {
            turn.elsewhere.push_back((newer.clone(), Input::Behind(turn.action.clone())));
        }
    }

    /// Tells all containers that nothing more comes to them.
    fn dismiss(&mut self, turn: &mut Turn<'_>) {
        for key in self.containers.open() {
            self.revoke(key, turn);
            self.drain(key, turn);
        }
    }

    fn move_on(&mut self, newer: &Arc<Action>, turn: &mut Turn<'_>) {
        while let Some(key) = self.queue.first() {
            // It takes along that it came from the store.
            let refilled = std::mem::take(&mut self.slots[key].refilled);
            let payload = self.dequeue(key, turn);
            // Its id stays taken all the way.
            let slot = self.slots.remove(key).expect("it was just dequeued");
            let Slot { id, controller, reply, attempt, accepted_at, deadline, .. } = slot;
            let push =
                Push { id, controller, reply, attempt, accepted_at, deadline, payload, accepted: true, refilled };
            turn.tally.count(Count::Redirected);
            turn.elsewhere.push_back((newer.clone(), Input::Push(push)));
        }
    }
}

impl Hub {
    /// Works on all that was left to these actions, and then to those that took over from them, where pushes went on to. Returns all of
    /// them. On return the effects of whoever was at one of them before are performed.
    pub fn settle_successions<P: Perform>(&self, actions: &[Arc<Action>], pass: &mut Pass<P>) -> Vec<Arc<Action>> {
        let mut line = Line::default();
        for action in actions {
            line.place(action);
        }
        let mut at = 0;
        while let Some(action) = line.actions.get(at).cloned() {
            line.newer[at] = self.wait_for(&action, pass).map(|newer| line.place(&newer));
            at += 1;
        }
        // What was waited for before the one that hands on to it is waited for again.
        let ordered = line.oldest_first();
        for action in &ordered {
            self.wait_for(action, pass);
        }
        ordered
    }

    fn wait_for<P: Perform>(&self, action: &Arc<Action>, pass: &mut Pass<P>) -> Option<Arc<Action>> {
        self.visit(action, pass, |matcher, _| matcher.newer().cloned())
    }
}

/// Actions, each once, and which of them took over from which.
#[derive(Debug, Default)]
struct Line {
    actions: Vec<Arc<Action>>,
    /// The place of the one that took over.
    newer: Vec<Option<usize>>,
    places: BTreeMap<*const Action, usize>,
}

impl Line {
    /// The place of an action, a new one if it has none.
    fn place(&mut self, action: &Arc<Action>) -> usize {
        *self.places.entry(Arc::as_ptr(action)).or_insert_with(|| {
            self.actions.push(action.clone());
            self.newer.push(None);
            self.actions.len() - 1
        })
    }

    /// Each behind all that it took over from: a revision that was superseded never takes over again, so there is an end.
    fn oldest_first(&self) -> Vec<Arc<Action>> {
        let mut older = vec![0_u32; self.actions.len()];
        self.newer.iter().flatten().for_each(|newer| older[*newer] += 1);
        let mut next: Vec<usize> = (0..older.len()).filter(|place| older[*place] == 0).collect();
        let mut ordered = Vec::with_capacity(older.len());
        while let Some(place) = next.pop() {
            ordered.push(self.actions[place].clone());
            if let Some(newer) = self.newer[place] {
                older[newer] -= 1;
                if older[newer] == 0 {
                    next.push(newer);
                }
            }
        }
        ordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Effect;
    use crate::id::ActionKey;
    use crate::limits::Limits;
    use crate::time::Timestamp;

    struct Nobody;

    impl Perform for Nobody {
        fn perform(&mut self, effects: &mut Vec<Effect>) {
            effects.clear();
        }
    }

    #[test]
    fn each_revision_is_settled_once_behind_those_before_it() {
        let (hub, mut pass) = (Hub::new(Limits::default(), 7, 1, Timestamp::ZERO), Pass::new(Nobody));
        let mut declare = |revision: &str| {
            hub.declare(&ActionKey::new("tenant", "action", revision), &mut pass).expect("room for some actions")
        };
        let revisions: Vec<Arc<Action>> = ["1", "2", "3", "4"].map(&mut declare).into();
        // Those that the controller knows, the newest first.
        let known = [revisions[2].clone(), revisions[1].clone(), revisions[0].clone()];
        let settled = hub.settle_successions(&known, &mut pass);
        let same = settled.iter().zip(&revisions).all(|(one, other)| Arc::ptr_eq(one, other));
        assert!(same && settled.len() == 4, "{settled:?}");
    }
}
