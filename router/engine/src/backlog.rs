//! The way back of one lane: what is read from it, for whom, and when it may be handed in. Pure; the reader that drives it does
//! the reading and the marking.
//!
//! ```text
//!   wants ─▶ read a batch ─▶ fetched ─ its head is wanted ─▶ mark as consumed, durably ─▶ hand in
//! ```
//!
//! A lane is handed in strictly in its order. Where actions share it, the head of it waits until its own action wants it. One that
//! nobody asks for is offered to its action once: it comes from an earlier life of the router, or nobody knew that it was stored.

use crate::effect::{Refill, Spilled, Want};
use crate::hub::Action;
use crate::id::ActionKey;
use crate::input::Refilled;
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
    /// The position of the head that was offered to its action last, and whether that overflows into this lane.
    offered: Option<(u64, bool)>,
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
    /// What is to be pushed like new ones, for nobody to be answered.
    pub pushed: Vec<(ActionKey, Spilled)>,
    /// Activations of an earlier life whose time is over: they are dropped.
    pub expired: u64,
    /// Activations of this life of which nobody knew that they were stored, and whose action has moved to another lane since.
    pub void: u64,
}

impl Handover {
    /// How many activations it hands in.
    pub fn activations(&self) -> usize {
        self.refilled.iter().map(|(_, refilled)| refilled.records.len()).sum::<usize>() + self.pushed.len()
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

    /// The head was offered to its action. `here`: it overflows into this lane now, and will ask for it.
    pub fn offered(&mut self, here: bool) {
        self.offered = self.fetched.front().map(|head| (head.position, here));
    }

    /// The consume mark could not be set: the same comes with the next step.
    pub fn put_off(&mut self, handover: Handover) {
        self.stuck = Some(handover);
    }

    /// True once, when the last record of an earlier life has been handed in.
    pub fn has_recovered(&mut self) -> bool {
        let done = self.recovered > 0 && self.next >= self.recovered && self.fetched.is_empty() && self.stuck.is_none();
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
        if let Some(Fetched { position, key, .. }) = self.fetched.front() {
            if self.was_offered(*position).is_some() {
                return Step::Idle;
            }
            return Step::Recall { key: key.clone(), end: self.recovered.max(position + 1) };
        }
        if self.next < self.end && (!self.wants.is_empty() || self.next < self.recovered) {
            return Step::Read { from: self.next, most: self.most() };
        }
        self.tell_news(&mut handover);
        if handover.refilled.is_empty() { Step::Idle } else { Step::Hand(handover) }
    }

    /// Takes the first of what was read, if it may be handed in now. Returns where it lay.
    fn take_head(&mut self, now: Timestamp, to: &mut Handover) -> Option<u64> {
        let head = self.fetched.front()?;
        let of_earlier_life = head.record.sequence.is_none();
        let wanted = self.wants.iter().position(|wanted| wanted.action.key() == &head.key && wanted.want.bytes > 0);
        let elsewhere = self.was_offered(head.position) == Some(false);
        let expired = of_earlier_life && head.record.deadline <= now;
        if !expired && !elsewhere && wanted.is_none() {
            return None;
        }
        let Fetched { position, key, record } = self.fetched.pop_front().expect("it was looked at");
        match wanted {
            _ if expired => to.expired += 1,
            _ if elsewhere && of_earlier_life => to.pushed.push((key, record)),
            _ if elsewhere => to.void += 1,
            Some(at) => self.give(at, position, record, to),
            None => unreachable!("looked at above"),
        }
        Some(position)
    }

    /// Gives a record to the action that wants it.
    fn give(&mut self, at: usize, position: u64, record: Spilled, to: &mut Handover) {
        let Wanted { action, want, .. } = &mut self.wants[at];
        let bytes = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
        want.records -= 1;
        want.bytes = if want.records == 0 { 0 } else { want.bytes.saturating_sub(bytes) };
        let known = to.refilled.iter().position(|(other, _)| Arc::ptr_eq(other, action));
        let known = known.unwrap_or_else(|| {
            to.refilled.push((action.clone(), Refilled { records: Vec::new(), cursor: 0 }));
            to.refilled.len() - 1
        });
        let refilled = &mut to.refilled[known].1;
        refilled.records.push(record);
        refilled.cursor = position + 1;
    }

    /// Those who got something have had their answer. What lies behind it and was damaged is behind them, too.
    fn answered(&mut self, handover: &mut Handover) {
        let Handover { refilled, before, .. } = handover;
        self.wants.retain(|wanted| !refilled.iter().any(|(action, _)| Arc::ptr_eq(action, &wanted.action)));
        if self.fetched.is_empty() {
            *before = self.next;
            refilled.iter_mut().for_each(|(_, refilled)| refilled.cursor = self.next);
        }
    }

    /// Everything was handed in: those who still want learn how far that is.
    fn tell_news(&mut self, to: &mut Handover) {
        let next = self.next;
        self.wants.retain(|wanted| {
            let news = wanted.cursor < next;
            if news {
                to.refilled.push((wanted.action.clone(), Refilled { records: Vec::new(), cursor: next }));
            }
            !news
        });
        to.before = next;
    }

    fn was_offered(&self, position: u64) -> Option<bool> {
        self.offered.filter(|(of, _)| *of == position).map(|(_, here)| here)
    }

    /// As much as the greediest wants.
    fn most(&self) -> Want {
        let wants = self.wants.iter().map(|wanted| wanted.want);
        wants.max_by_key(|want| want.bytes).unwrap_or(RECOVERED)
    }
}
