//! The end of a drain whose time is over: every caller hears something. What never started is rejected, and what is in flight counts
//! as lost, for nobody will hear how it ends. What is stored stays there: the [backlog](crate::backlog) says so. A part of the
//! matcher.

use crate::effect::Perform;
use crate::hub::{Hub, Pass};
use crate::matcher::Matcher;
use crate::outcome::{Answer, Rejection};
use crate::tally::Count;
use crate::turn::Turn;

/// How much was left when the time of a drain was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CutOff {
    /// Activations that never started.
    pub queued: u64,
    /// Activations in flight that were not answered before.
    pub in_flight: u64,
}

impl Hub {
    /// Ends everything that is held, but for what is on its way into the store: what is queued with `rejection`, what is in flight as
    /// lost. Nothing may be pushed any more. Takes a while.
    pub fn cut_off<P: Perform>(&self, rejection: Rejection, pass: &mut Pass<P>) -> CutOff {
        let mut all = CutOff::default();
        for action in self.list().into_iter().filter_map(|action| action.upgrade()) {
            let of_action = self.visit(&action, pass, |matcher, turn| matcher.cut_off(rejection, turn));
            all.queued += of_action.queued;
            all.in_flight += of_action.in_flight;
        }
        all
    }
}

impl Matcher {
    fn cut_off(&mut self, rejection: Rejection, turn: &mut Turn<'_>) -> CutOff {
        let mut ended = CutOff::default();
        while let Some(key) = self.queue.first() {
            self.dequeue(key, turn);
            let slot = self.forget(key, turn);
            turn.tally.count(Count::CutOff);
            turn.answer(slot.controller, slot.reply, Answer::rejected(slot.id, rejection));
            ended.queued += 1;
        }
        for container in self.containers.keys() {
            // Nothing that is still to come may go to it.
            self.revoke(container, turn);
            while let Some(key) = self.containers.get(container).and_then(|container| container.activations.first()) {
                ended.in_flight += u64::from(!self.slots[key].is_answered());
                self.containers.left(container);
                self.lose(key, container, turn);
            }
        }
        ended
    }
}
