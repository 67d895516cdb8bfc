//! The way back of one lane: what is read from it, for whom, and when it may be handed in. Pure; the reader that drives it does
//! the reading and the marking.
//!
//! ```text
//!   wants ─▶ read a batch ─▶ fetched ─ its head is wanted ─▶ mark as consumed, durably ─▶ hand in
//! ```
//!
//! A lane is handed in strictly in its order. Where actions share it, the head of it waits until its own action wants it. One that
//! nobody asks for is offered to its action: it comes from an earlier life of the router, or nobody knew that it was stored. An action
//! that overflows into another lane by now does not ask; it takes some whenever its queue is low.

use crate::effect::{Refill, Spilled, Want};
use crate::hub::Action;
use crate::id::ActionKey;
use crate::input::Refilled;
use crate::mutant::{Mutant, is};
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;

/// One lane's way back.
#[derive(Debug, Default)]
pub struct Backlog {
    /// What lies below it may be read: it is durable, and its actions were told so.
    end: u64,
    /// Where the next read begins.
    next: u64,
    /// Below it there may be records of an earlier life.
    recovered: u64,
    /// Read and not handed in.
    fetched: VecDeque<Fetched>,
    wants: Vec<Wanted>,
    /// What was offered to its action last.
    offered: Option<Offer>,
    /// Its consume mark could not be set yet.
    stuck: Option<Handover>,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies in the lane.
    pub position: u64,
    /// Whose it is.
    pub key: ActionKey,
    /// What it says.
    pub record: Spilled,
}

#[derive(Debug)]
struct Wanted {
    action: Arc<Action>,
    want: Want,
    /// What the action knows to be handed in.
    cursor: u64,
}

/// The head of the lane was offered to its action.
#[derive(Debug)]
struct Offer {
    position: u64,
    action: Arc<Action>,
    recalled: Recalled,
}

/// What an action makes of a lane that may hold something of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recalled {
    /// It overflows into that lane, and asks for what it has there.
    Here,
    /// It overflows into another one. It takes so much now; nothing: it has to be asked again.
    Elsewhere(Want),
}

impl Recalled {
    /// It has no room for any now.
    pub(crate) const NOT_NOW: Self = Self::Elsewhere(Want { records: 0, bytes: 0 });
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Nothing, until something else happens.
    Idle,
    /// Read from there on and say so with [`Backlog::fetched`] or [`Backlog::skip_to`].
    Read {
        /// The first position.
        from: u64,
        /// How much at most.
        most: Want,
    },
    /// Offer an action what it has here with [`Hub::recall`](crate::hub::Hub::recall), and say what came of it with
    /// [`Backlog::offered`].
    Recall {
        /// The action.
        key: ActionKey,
        /// Below it there may be more of it.
        end: u64,
    },
    /// Set the consume mark and, once it is durable, hand in. If that fails: [`Backlog::put_off`].
    Hand(Handover),
}

/// What may be handed in once the consume mark is durable.
#[derive(Debug, Default)]
pub struct Handover {
    /// Everything below it is consumed then.
    pub before: u64,
    /// What each action gets.
    pub refilled: Vec<(Arc<Action>, Refilled)>,
    /// Activations of an earlier life whose time is over: they are dropped.
    pub expired: u64,
    /// Activations of this life of which nobody knew that they were stored, and whose action has moved to another lane since.
    pub void: u64,
}

impl Want {
    /// A record more is had. The last of them may be as long as it likes; with no bytes left there are no records left either.
    fn take(&mut self, record: &Spilled) {
        let bytes = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.records = if self.bytes == 0 { 0 } else { self.records.saturating_sub(1) };
    }
}

impl Handover {
    /// How many activations it hands in.
    pub fn activations(&self) -> usize {
        self.refilled.iter().map(|(_, refilled)| refilled.records.len()).sum()
    }

    /// What that action gets, after all it gets already.
    fn of(&mut self, action: &Arc<Action>, cursor: Option<u64>) -> &mut Refilled {
        let known = self.refilled.iter().position(|(other, _)| Arc::ptr_eq(other, action));
        let at = known.unwrap_or(self.refilled.len());
        if known.is_none() {
            self.refilled.push((action.clone(), Refilled { records: Vec::new(), cursor }));
        }
        &mut self.refilled[at].1
    }

    /// Whether nothing is consumed by it: it only tells actions how far their lane is.
    pub fn is_news_only(&self) -> bool {
        self.activations() == 0 && self.expired + self.void == 0
    }
}

/// How much is read of a lane of an earlier life, of which it is not known yet whose it is.
const RECOVERED: Want = Want { records: 256, bytes: 256 << 10 };

impl Backlog {
    /// A lane that holds records of an earlier life between these positions, or none where they are equal.
    pub fn new(first: u64, end: u64) -> Self {
        Self { end, next: first, recovered: if end > first { end } else { 0 }, ..Self::default() }
    }

    /// Everything below that position is durable, and its actions have been told.
    pub fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// An action wants what it has here.
    pub fn want(&mut self, refill: &Refill) {
        let Refill { action, want, cursor, .. } = refill;
        self.wants.retain(|other| !Arc::ptr_eq(&other.action, action));
        self.wants.push(Wanted { action: action.clone(), want: *want, cursor: *cursor });
    }

    /// What was read, and where the next read begins.
    pub fn fetched(&mut self, records: impl IntoIterator<Item = Fetched>, next: u64) {
        self.fetched.extend(records);
        self.next = self.next.max(next);
    }

    /// What lies below that position is gone.
    pub fn skip_to(&mut self, first: u64) {
        self.next = self.next.max(first);
    }

    /// The head was offered to its action.
    pub fn offered(&mut self, action: Arc<Action>, recalled: Recalled) {
        self.offered = self.fetched.front().map(|head| Offer { position: head.position, action, recalled });
    }

    /// The consume mark could not be set: the same comes with the next step.
    pub fn put_off(&mut self, handover: Handover) {
        self.stuck = Some(handover);
    }

    /// True once, when the last record of an earlier life has been handed in.
    pub fn has_recovered(&mut self) -> bool {
        let handed_in = self.next >= self.recovered && self.known_head().is_none() && self.stuck.is_none();
        let done = self.recovered > 0 && handed_in;
        if done {
            self.recovered = 0;
        }
        done
    }

    /// Whether there may be records of an earlier life.
    pub fn is_recovering(&self) -> bool {
        self.recovered > 0
    }

    /// What is to be done next.
    pub fn step(&mut self, now: Timestamp) -> Step {
        if let Some(stuck) = self.stuck.take() {
            return Step::Hand(stuck);
        }
        let mut handover = Handover::default();
        while let Some(taken) = self.take_head(now, &mut handover) {
            handover.before = taken + 1;
        }
        if !handover.is_news_only() {
            self.answered(&mut handover);
            return Step::Hand(handover);
        }
        if let Some(Fetched { position, key, .. }) = self.known_head() {
            let (position, key) = (*position, key.clone());
            let offer = self.offered.take_if(|offer| offer.position == position);
            if offer.is_some() {
                // Where there was no room it is offered again, some time later.
                self.offered = offer.filter(|offer| offer.recalled == Recalled::Here);
                return Step::Idle;
            }
            return Step::Recall { key, end: self.recovered.max(position + 1) };
        }
        if self.next < self.end && (!self.wants.is_empty() || self.next < self.recovered) {
            return Step::Read { from: self.next, most: self.most() };
        }
        self.tell_news(&mut handover);
        if handover.refilled.is_empty() { Step::Idle } else { Step::Hand(handover) }
    }

    /// Takes the first of what was read, if it may be handed in now. Returns where it lay.
    fn take_head(&mut self, now: Timestamp, to: &mut Handover) -> Option<u64> {
        let head = self.known_head()?;
        let of_earlier_life = head.record.sequence.is_none();
        let wanted = self.wants.iter().position(|wanted| wanted.action.key() == &head.key && wanted.want.records > 0);
        let elsewhere = self.room_elsewhere(head);
        let expired = of_earlier_life && head.record.deadline <= now && !is(Mutant::RecoveredUnfiltered);
        // One of this life that nobody knew of is not waited for.
        let full = of_earlier_life && elsewhere.is_some_and(|room| room.records == 0);
        if !expired && (full || elsewhere.is_none() && wanted.is_none()) {
            return None;
        }
        let Fetched { position, record, .. } = self.fetched.pop_front().expect("it was looked at");
        match wanted {
            _ if expired => to.expired += 1,
            _ if elsewhere.is_some() && of_earlier_life => self.give_elsewhere(record, to),
            _ if elsewhere.is_some() => to.void += 1,
            Some(at) => self.give(at, position, record, to),
            None => unreachable!("looked at above"),
        }
        Some(position)
    }

    /// What its action takes of it, if that overflows into another lane. What was said of one of an earlier life goes for those behind
    /// it, too.
    fn room_elsewhere(&self, head: &Fetched) -> Option<Want> {
        let offer = self.offered.as_ref()?;
        let is_meant = match head.record.sequence {
            None => offer.action.key() == &head.key,
            Some(_) => offer.position == head.position,
        };
        match offer.recalled {
            Recalled::Elsewhere(room) if is_meant => Some(room),
            _ => None,
        }
    }

    /// Gives a record to the action that it was offered to.
    fn give_elsewhere(&mut self, record: Spilled, to: &mut Handover) {
        let Some(Offer { action, recalled: Recalled::Elsewhere(room), .. }) = &mut self.offered else { return };
        room.take(&record);
        to.of(action, None).records.push(record);
    }

    /// Gives a record to the action that wants it.
    fn give(&mut self, at: usize, position: u64, record: Spilled, to: &mut Handover) {
        let Wanted { action, want, .. } = &mut self.wants[at];
        want.take(&record);
        let refilled = to.of(action, Some(0));
        refilled.records.push(record);
        refilled.cursor = Some(position + 1);
    }

    /// Those who got something that they asked for have had their answer. What lies behind it and was damaged is behind them, too.
    fn answered(&mut self, handover: &mut Handover) {
        let Handover { refilled, before, .. } = handover;
        let had = refilled.iter().filter(|(_, refilled)| refilled.cursor.is_some()).map(|(action, _)| action);
        self.wants.retain(|wanted| !had.clone().any(|action| Arc::ptr_eq(action, &wanted.action)));
        if self.fetched.is_empty() {
            *before = self.next;
            let cursors = refilled.iter_mut().filter_map(|(_, refilled)| refilled.cursor.as_mut());
            cursors.for_each(|cursor| *cursor = self.next);
        }
    }

    /// Everything was handed in: those who still want learn how far that is.
    fn tell_news(&mut self, to: &mut Handover) {
        let next = self.fetched.front().map_or(self.next, |head| head.position);
        self.wants.retain(|wanted| {
            let news = wanted.cursor < next;
            if news {
                to.refilled.push((wanted.action.clone(), Refilled { records: Vec::new(), cursor: Some(next) }));
            }
            !news
        });
        to.before = next;
    }

    /// The first of what was read. A read may give more than is known to be durable here: what has been written and not been told yet, or
    /// never will be. That waits, and for now is as good as not there.
    fn known_head(&self) -> Option<&Fetched> {
        self.fetched.front().filter(|head| head.position < self.end || is(Mutant::UntoldHandedIn))
    }

    /// As much as the greediest wants.
    fn most(&self) -> Want {
        let wants = self.wants.iter().map(|wanted| wanted.want);
        wants.max_by_key(|want| want.bytes).unwrap_or(RECOVERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Hub, Pass};
    use crate::id::{ActivationId, StreamId};
    use crate::limits::Limits;
    use crate::outcome::Reply;
    use bytes::Bytes;
    use std::time::Duration;

    fn action() -> Arc<Action> {
        impl crate::effect::Perform for Nobody {
            fn perform(&mut self, effects: &mut Vec<crate::effect::Effect>) {
                effects.clear();
            }
        }
        struct Nobody;
        let (hub, mut pass) = (Hub::new(Limits::default(), 7, 1, Timestamp::ZERO), Pass::new(Nobody));
        hub.declare(&ActionKey::new("tenant", "action", ""), &mut pass).unwrap()
    }

    fn fetched(position: u64, sequence: Option<u32>) -> Fetched {
        let (accepted_at, deadline) = (Timestamp::ZERO, Timestamp::ZERO + Duration::from_secs(1));
        let (id, controller, reply, payload) = (ActivationId([1; 16]), StreamId(1), Reply::Outcome, Bytes::new());
        let record = Spilled { id, controller, reply, attempt: 1, sequence, accepted_at, deadline, payload };
        Fetched { position, key: ActionKey::new("tenant", "action", ""), record }
    }

    #[test]
    fn what_its_action_was_not_told_of_waits() {
        let mut backlog = Backlog::new(0, 1);
        // The writer was quicker than its word of it: a second record is there.
        backlog.fetched([fetched(0, None), fetched(1, Some(7))], 2);
        assert!(matches!(backlog.step(Timestamp::ZERO), Step::Recall { end: 1, .. }));
        backlog.offered(action(), Recalled::Elsewhere(Want { records: 9, bytes: 9 }));
        let Step::Hand(handover) = backlog.step(Timestamp::ZERO) else { panic!("the first may go") };
        assert_eq!((handover.before, handover.activations()), (1, 1));
        assert!(matches!(backlog.step(Timestamp::ZERO), Step::Idle));
        backlog.offered = None;
        backlog.extend(2);
        assert!(matches!(backlog.step(Timestamp::ZERO), Step::Recall { end: 2, .. }));
    }
    #[test]
    fn one_that_overflows_elsewhere_gets_what_it_has_room_for() {
        let mut backlog = Backlog::new(0, 3);
        backlog.fetched((0..3).map(|position| fetched(position, None)), 3);
        assert!(matches!(backlog.step(Timestamp::ZERO), Step::Recall { .. }));
        let action = action();
        backlog.offered(action.clone(), Recalled::NOT_NOW);
        assert!(matches!(backlog.step(Timestamp::ZERO), Step::Idle), "it waits");
        assert!(matches!(backlog.step(Timestamp::ZERO), Step::Recall { .. }), "and is offered again");
        backlog.offered(action, Recalled::Elsewhere(Want { records: 2, bytes: 9 }));
        let Step::Hand(handover) = backlog.step(Timestamp::ZERO) else { panic!("two may go") };
        assert_eq!((handover.before, handover.activations()), (2, 2));
        assert_eq!(handover.refilled[0].1.cursor, None, "it did not ask");
        assert!(matches!(backlog.step(Timestamp::ZERO), Step::Recall { .. }));
    }
    #[test]
    fn what_nobody_was_told_of_holds_nothing_up() {
        let mut backlog = Backlog::new(0, 2);
        let (action, lane) = (action(), crate::lanes::Lane(0));
        let want = Want { records: 9, bytes: 9 };
        backlog.want(&Refill { lane, action: action.clone(), want, cursor: 0 });
        // The second is damaged, the third was written and never told of.
        backlog.fetched([fetched(0, None), fetched(2, Some(7))], 3);
        let Step::Hand(handover) = backlog.step(Timestamp::ZERO) else { panic!("the first may go") };
        assert_eq!(handover.before, 1);
        backlog.want(&Refill { lane, action, want, cursor: 1 });
        let Step::Hand(news) = backlog.step(Timestamp::ZERO) else { panic!("nothing else is to come") };
        assert!(news.is_news_only());
        assert_eq!(news.refilled[0].1.cursor, Some(2));
        assert!(backlog.has_recovered());
    }
}
