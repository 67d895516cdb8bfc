//! Looks at the effects alone. It may not ask the model.

use engine::effect::{Effect, Entry};
use engine::id::{ActivationId, StreamId};
use engine::input::Push;
use engine::outcome::Outcome;
use engine::time::Timestamp;
use std::collections::BTreeMap;

/// Promises that can be checked without knowing how they are kept.
#[derive(Default)]
pub(crate) struct Audit {
    /// Pushes that wait for an answer.
    waiting: BTreeMap<(StreamId, ActivationId), u32>,
    /// Dispatches that each id has left, and its deadline, by its last push that was not refused.
    dispatches_left: BTreeMap<ActivationId, u32>,
    deadlines: BTreeMap<ActivationId, Vec<Timestamp>>,
}

impl Audit {
    pub(crate) fn pushed(&mut self, push: &Push) {
        *self.waiting.entry((push.controller, push.id)).or_default() += 1;
        *self.dispatches_left.entry(push.id).or_default() += 1;
        self.deadlines.entry(push.id).or_default().push(push.deadline);
    }

    pub(crate) fn returned(&mut self, id: ActivationId) {
        *self.dispatches_left.entry(id).or_default() += 1;
    }

    pub(crate) fn see(&mut self, effect: &Effect, now: Timestamp) {
        match effect {
            Effect::Write(_, Entry::Dispatch(dispatch)) => {
                let left = self.dispatches_left.get_mut(&dispatch.id).expect("pushed");
                *left = left.checked_sub(1).expect("dispatched once, and once more for each return");
                assert!(self.deadlines[&dispatch.id].iter().any(|deadline| *deadline > now), "dispatched in time");
            }
            Effect::Write(controller, Entry::Answer(answer)) => {
                let waiting = self.waiting.get_mut(&(*controller, answer.id)).expect("pushed");
                *waiting = waiting.checked_sub(1).expect("answered once");
                if matches!(answer.outcome, Outcome::Rejected(_)) {
                    *self.dispatches_left.get_mut(&answer.id).expect("pushed") -= 1;
                }
            }
            _ => {}
        }
    }

    pub(crate) fn end(&self) {
        assert!(self.waiting.values().all(|waiting| *waiting == 0), "every push was answered");
    }
}
