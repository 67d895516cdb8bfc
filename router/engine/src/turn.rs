//! A matcher's turn: what it decides with, what all actions share, and where its decisions go. It decides nothing by itself.
//!
//! What each activation comes by says `inline`, here and in the matcher's other files: without it a file is a border for the compiler,
//! and an activation takes 3 % more instructions.

use crate::budget::Budget;
use crate::effect::{Effect, Entry};
use crate::hub::Action;
use crate::id::{ActivationId, StreamId};
use crate::input::{Input, Push};
use crate::lanes::Lanes;
use crate::ledger::{Ledger, Whereabouts};
use crate::limits::Limits;
use crate::mutant::{Mutant, is};
use crate::outcome::{Answer, Durability, Outcome, Reason, Rejection, Reply, Stages};
use crate::recent::Recent;
use crate::sync::{AtomicU64, Ordering};
use crate::tally::{Count, Tally};
use crate::time::Timestamp;
use crate::timers::Timers;
use std::collections::VecDeque;
use std::sync::Arc;

/// What all actions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) ledger: Ledger,
    pub(crate) recent: Recent,
    /// Ids that went out of memory lately: one that comes again is a repetition, too. Marked: its controller only wanted to hear
    /// that it is taken.
    pub(crate) stored: Recent,
    /// Where what overflows goes.
    pub(crate) lanes: Option<Lanes>,
    pub(crate) budget: Budget,
    pub(crate) timers: Timers,
    pub(crate) seed: u64,
    /// How often a random number was drawn.
    pub(crate) drawn: AtomicU64,
}

/// One matcher's turn: what it decides with and where its decisions go.
pub(crate) struct Turn<'a> {
    pub(crate) now: Timestamp,
    pub(crate) shared: &'a Shared,
    /// The action whose turn it is.
    pub(crate) action: &'a Arc<Action>,
    pub(crate) effects: &'a mut Vec<Effect>,
    pub(crate) tally: &'a mut Tally,
    /// Inputs that belong to another action; handed in there once this turn is over.
    pub(crate) elsewhere: &'a mut VecDeque<(Arc<Action>, Input)>,
}

impl Shared {
    /// 64 bits that nobody who does not know the seed foresees; a seed replays.
    pub(crate) fn random(&self, now: Timestamp) -> u64 {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mixed = self.seed ^ now.as_micros().rotate_left(32) ^ drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The last steps of splitmix64: each bit of the result depends on all bits.
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Takes the id of a new activation, unless it is held or ended lately.
    #[inline]
    pub(crate) fn take_id(&self, id: ActivationId, at: Whereabouts) -> Result<(), Rejection> {
        if !self.ledger.take(id, at) && !is(Mutant::IdTakenTwice) {
            return Err(id_in_flight());
        }
        // After it was taken: one that ends meanwhile is remembered before it is free.
        if self.recent.contains(&id) && !is(Mutant::RecentNotAsked) {
            self.ledger.free(&id);
            return Err(id_ended());
        }
        if self.stored.contains(&id) && !is(Mutant::StoredIdFree) {
            self.ledger.free(&id);
            return Err(id_in_flight());
        }
        Ok(())
    }

    /// Why an id is not new, if it is not.
    pub(crate) fn known(&self, id: &ActivationId) -> Option<Rejection> {
        if self.ledger.find(id).is_some() {
            return Some(id_in_flight());
        }
        let stored = || self.stored.contains(id).then(id_in_flight);
        self.recent.contains(id).then(id_ended).or_else(stored)
    }

    /// Frees the id of an activation that ended. It is remembered first: in between, somebody who pushes it again would find
    /// it neither held nor ended, and it would run a second time.
    #[inline]
    pub(crate) fn free_id(&self, id: &ActivationId) {
        if !is(Mutant::LostNotRemembered) {
            self.recent.insert(id);
        }
        self.ledger.free(id);
    }
}

impl Turn<'_> {
    #[inline]
    pub(crate) fn accept(&mut self, push: &Push) {
        if push.accepted {
            return;
        }
        self.tally.count(Count::Accepted);
        if push.reply == Reply::Accepted {
            let outcome = Outcome::Accepted(Durability::Memory);
            let answer = Answer { id: push.id, outcome, stages: Stages::default() };
            self.effects.push(Effect::Write(push.controller, Entry::Answer(answer)));
        }
    }

    pub(crate) fn reject(&mut self, controller: StreamId, id: ActivationId, rejection: Rejection) {
        self.tally.rejected(rejection.reason);
        self.effects.push(Effect::Write(controller, Entry::Answer(Answer::rejected(id, rejection))));
    }

    pub(crate) fn expired(&mut self, controller: StreamId, id: ActivationId, reply: Reply, accepted_at: Timestamp) {
        self.tally.count(Count::Expired);
        let stages = Stages { queue_us: self.now.micros_since(accepted_at), ..Stages::default() };
        self.answer(controller, reply, Answer { id, outcome: Outcome::Expired, stages });
    }

    #[inline]
    pub(crate) fn answer(&mut self, controller: StreamId, reply: Reply, answer: Answer) {
        if reply == Reply::Outcome {
            self.effects.push(Effect::Write(controller, Entry::Answer(answer)));
        }
    }
}

fn id_in_flight() -> Rejection {
    Rejection::new(Reason::IdInFlight, "id", 0)
}

fn id_ended() -> Rejection {
    Rejection::new(Reason::IdEnded, "id", 0)
}
