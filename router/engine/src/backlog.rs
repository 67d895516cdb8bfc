//! The way back of one lane: what is read from it, for whom, and when it may be handed in. Pure; the reader that drives it does
//! the reading and the marking.
//!
//! ```text
//!   an action wants more ─▶ read what it has there ─▶ mark as consumed, durably ─▶ hand in
//! ```
//!
//! Actions share a lane, and none waits for another: each has a way of its own through the lane, and reads only its
//! own records, in their order. A mark says how far each of them is: everything below `before` is consumed, and of an action that
//! is further, everything of that action below its own position.
//!
//! What an earlier life of the router left is searched once, from the front: whose it is, and where each action's way begins. Each of
//! those actions is offered what it has. An action that overflows into another lane by now does not ask; it takes some whenever its
//! queue is low.

use crate::effect::{Refill, Spilled, Want};
use crate::extents::Extent;
use crate::hub::Action;
use crate::id::{ActionKey, ActivationId, Group, StreamId};
use crate::input::Refilled;
use crate::mutant::{Mutant, is};
use crate::outcome::Reply;
use crate::time::Timestamp;
use crate::way::{Extremes, Way};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

pub use crate::way::Parting;

/// One lane's way back.
#[derive(Debug)]
pub struct Backlog {
    lane: Extremes,
    /// Everything below it is consumed, or will be with the mark that is being set.
    before: u64,
    ways: BTreeMap<Group, Way>,
    /// Actions that a mark of an earlier life names, and that have no way here so far.
    former: BTreeMap<Group, u64>,
    /// Most actions that a mark may name.
    named_max: usize,
    /// The action that was read last.
    turn: Group,
    /// The search has its turn before those who want something.
    search_first: bool,
    /// Its consume mark could not be set yet.
    stuck: Option<Handover>,
    /// The router ends: nothing is handed in any more.
    parting: bool,
}

/// A record of an action as it was read, or what is known of one that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies in the lane.
    pub position: u64,
    /// What was found there.
    pub what: What,
}

/// What was found at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A record.
    Whole(Spilled),
    /// A record that is damaged or missing; whose it was, if that is known.
    Lost(Option<Whose>),
}

/// Whose record it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose {
    /// The activation.
    pub id: ActivationId,
    /// Who asked and gets the answer.
    pub controller: StreamId,
    /// What the controller wants to hear.
    pub reply: Reply,
}

/// What an action makes of a lane that may hold something of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recalled {
    /// It overflows into that lane, and asks for what it has there.
    Here,
    /// It overflows into another one. It takes so much with the next handover, and nothing of any other lane until then.
    Elsewhere(Want),
    /// It has no room for any now, and has to be asked again.
    NotNow,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Nothing, until something else happens.
    Idle,
    /// Read from there on. Of one action: say so with [`Backlog::fetched`]. Of all: with [`Backlog::searched`].
    Read {
        /// The first position.
        from: u64,
        /// The action; None: all of them.
        only: Option<Group>,
        /// How much at most.
        most: Want,
    },
    /// Offer an action what it has here with [`Hub::recall`](crate::hub::Hub::recall), and say what came of it with
    /// [`Backlog::offered`].
    Recall {
        /// The action's group.
        group: Group,
        /// The action.
        key: ActionKey,
        /// Below it there may be more of it.
        end: u64,
    },
    /// Set the consume mark and, once it is durable, hand in. If that fails: [`Backlog::put_off`].
    Hand(Handover),
    /// The router ends, and these stay in the store: say so to their controllers.
    Part(Parting),
}

/// What may be handed in once the consume mark is durable.
#[derive(Debug, Default)]
pub struct Handover {
    /// Everything below it is consumed then.
    pub before: u64,
    /// Actions that are further, and how far: everything of each below that position is consumed then, too.
    pub named: Vec<(Group, u64)>,
    /// What each action gets.
    pub refilled: Vec<(Arc<Action>, Refilled)>,
    /// Damaged and missing records of this life, of which it is known whose they were: see
    /// [`Hub::lose_stored`](crate::hub::Hub::lose_stored).
    pub lost: Vec<Whose>,
    /// Records of this life that are missing, of which nothing is known.
    pub missing: u64,
    /// Activations of an earlier life whose time is over: they are dropped.
    pub expired: u64,
    /// Damaged records of an earlier life or of nobody, and ends of ways with something missing: they are passed over.
    pub passed: u64,
}

impl Handover {
    /// How many activations it hands in.
    pub fn activations(&self) -> usize {
        self.refilled.iter().map(|(_, refilled)| refilled.records.len()).sum()
    }

    /// Whether nothing is consumed by it: it only tells actions how far their way is.
    pub fn is_news_only(&self) -> bool {
        self.activations() == 0 && self.lost.is_empty() && self.missing + self.expired + self.passed == 0
    }

    fn is_empty(&self) -> bool {
        self.refilled.is_empty() && self.is_news_only()
    }

    pub(crate) fn give(&mut self, action: &Arc<Action>, cursor: Option<u64>, record: Spilled) {
        match self.of(action) {
            Some(refilled) => refilled.records.push(record),
            None => self.add(action, vec![record], cursor),
        }
    }

    /// An action that asked got all it gets for now, up to below that position. False if it got nothing.
    pub(crate) fn got(&mut self, action: &Arc<Action>, cursor: u64) -> bool {
        let Some(refilled) = self.of(action) else { return false };
        refilled.cursor = Some(cursor);
        true
    }

    pub(crate) fn tell(&mut self, action: &Arc<Action>, cursor: u64) {
        self.add(action, Vec::new(), Some(cursor));
    }

    /// An action's offer is over: it got all that it gets for now, if anything.
    pub(crate) fn end_offer(&mut self, action: &Arc<Action>) {
        if self.of(action).is_none() {
            self.add(action, Vec::new(), None);
        }
        if let Some(refilled) = self.of(action) {
            refilled.offer_over = true;
        }
    }

    pub(crate) fn lose(&mut self, whose: Option<Whose>) {
        match whose {
            Some(whose) => self.lost.push(whose),
            None => self.passed += 1,
        }
    }

    pub(crate) fn miss(&mut self, records: u64) {
        self.missing += records;
        self.passed += 1;
    }

    fn add(&mut self, action: &Arc<Action>, records: Vec<Spilled>, cursor: Option<u64>) {
        self.refilled.push((action.clone(), Refilled { records, cursor, offer_over: false }));
    }

    fn of(&mut self, action: &Arc<Action>) -> Option<&mut Refilled> {
        let mut all = self.refilled.iter_mut();
        all.find(|(other, _)| Arc::ptr_eq(other, action)).map(|(_, refilled)| refilled)
    }
}

/// How much is read at a time of what an earlier life left, before anybody asks for it.
const UNASKED: Want = Want { records: 256, bytes: 256 << 10 };
/// How many ways are known before the search for more rests.
const WAYS_MAX: usize = 65_536;

impl Backlog {
    /// A lane that holds records of an earlier life between these positions, or none where they are equal. A mark may name at most
    /// `named_max` actions; `named` are those that the last one names.
    pub fn new(first: u64, end: u64, named_max: usize, named: impl IntoIterator<Item = (Group, u64)>) -> Self {
        let recovered = if end > first { end } else { 0 };
        Self {
            lane: Extremes { end, recovered, searched: first },
            before: first,
            ways: BTreeMap::new(),
            former: named.into_iter().collect(),
            named_max,
            turn: Group(0),
            search_first: true,
            stuck: None,
            parting: false,
        }
    }

    /// Records are durable, and their actions have been told.
    pub fn extend(&mut self, extent: &Extent) {
        let lane = self.lane;
        self.way(extent.key.group(), &extent.key, 0).extend(extent, &lane);
        self.lane.end = self.lane.end.max(extent.last + 1);
    }

    /// An action wants what it has here.
    pub fn want(&mut self, refill: &Refill) {
        let Refill { action, want, cursor, .. } = refill;
        let next = self.lane.searched;
        self.way(action.key().group(), action.key(), next).want(action, *want, *cursor);
    }

    /// What was read of an action, and where its next read begins.
    pub fn fetched(&mut self, group: Group, records: impl IntoIterator<Item = Fetched>, next: u64) {
        if let Some(way) = self.ways.get_mut(&group) {
            way.fetched(records, next);
        }
    }

    /// What the search met, by position: whose records, and where it goes on.
    pub fn searched(&mut self, records: impl IntoIterator<Item = (u64, ActionKey)>, next: u64) {
        let recovered = self.lane.recovered;
        for (position, key) in records.into_iter().filter(|(position, _)| *position < recovered) {
            self.way(key.group(), &key, position).found(position);
        }
        self.lane.searched = self.lane.searched.max(next.min(self.lane.recovered));
    }

    /// What lies below that position is gone.
    pub fn skip_to(&mut self, first: u64) {
        self.lane.searched = self.lane.searched.max(first.min(self.lane.recovered));
        self.ways.values_mut().for_each(|way| way.skip_to(first));
    }

    /// An action was offered what it has here. None: it could not be made known for now.
    pub fn offered(&mut self, group: Group, offer: Option<(Arc<Action>, Recalled)>) {
        if let Some(way) = self.ways.get_mut(&group) {
            way.offered(offer);
        }
    }

    /// Actions that had no room for what they have here are asked again. To be called now and then: nobody tells of room.
    pub fn look_again(&mut self) {
        self.ways.values_mut().for_each(Way::look_again);
    }

    /// The consume mark could not be set: the same comes with the next step.
    pub fn put_off(&mut self, handover: Handover) {
        self.stuck = Some(handover);
    }

    /// True once, when the last record of an earlier life has been handed in.
    pub fn has_recovered(&mut self) -> bool {
        let done = self.is_recovering()
            && self.lane.searched >= self.lane.recovered
            && self.stuck.is_none()
            && !self.ways.values().any(|way| way.is_recovering(&self.lane));
        if done {
            self.lane.recovered = 0;
        }
        done
    }

    /// Whether there may be records of an earlier life.
    pub fn is_recovering(&self) -> bool {
        self.lane.recovered > 0
    }

    /// The router ends: from now on nothing is handed in, and each step says what stays.
    pub fn part(&mut self) {
        self.parting = true;
    }

    /// Whether there may be activations whose controllers are to be told that they stay.
    pub fn is_to_part(&self) -> bool {
        !self.parting || self.stuck.is_some() || self.ways.values().any(Way::is_to_part)
    }

    /// What is to be done next.
    pub fn step(&mut self, now: Timestamp) -> Step {
        if self.parting {
            return self.step_parting();
        }
        if let Some(stuck) = self.stuck.take() {
            return Step::Hand(stuck);
        }
        let handover = self.hand_over(now);
        if !handover.is_empty() {
            return Step::Hand(handover);
        }
        if let Some(recall) = self.recall() {
            return recall;
        }
        // By turns, so that neither waits for ever.
        self.search_first = !self.search_first;
        let search = if self.search_first { self.search() } else { None };
        search.or_else(|| self.read()).or_else(|| self.search()).unwrap_or(Step::Idle)
    }

    fn way(&mut self, group: Group, key: &ActionKey, next: u64) -> &mut Way {
        let former = &mut self.former;
        self.ways.entry(group).or_insert_with(|| Way::new(key.clone(), next, former.remove(&group).unwrap_or(0)))
    }

    /// Everything below it is consumed, once what was taken is.
    fn base(&self) -> u64 {
        let fronts = self.ways.values().filter_map(Way::front);
        // What lies at the end or behind was read perhaps, but nobody was told of it: it is anybody's.
        fronts.fold(self.lane.end, u64::min).min(self.unsearched()).max(self.before)
    }

    /// Below it everything is known.
    fn unsearched(&self) -> u64 {
        if self.lane.searched < self.lane.recovered { self.lane.searched } else { u64::MAX }
    }

    fn hand_over(&mut self, now: Timestamp) -> Handover {
        let mut to = Handover::default();
        let base = self.base();
        let further = self.ways.values().map(Way::consumed).chain(self.former.values().copied());
        let mut named = further.filter(|consumed| *consumed > base).count();
        for group in self.ways.keys().copied().collect::<Vec<_>>() {
            let is_named = self.ways[&group].consumed() > base;
            // With no room for another name, only as far as the mark for all will go.
            let has_name = is_named || named < self.named_max;
            let has_name = has_name && !is(Mutant::LaneInOrder);
            let limit = if has_name { u64::MAX } else { self.others_front(group) };
            let lane = self.lane;
            let Some(way) = self.ways.get_mut(&group) else { continue };
            if way.take(limit, &lane, now, &mut to) && has_name && !is_named {
                named += 1;
            }
            way.end_offer(&mut to);
            way.tell_news(&lane, &mut to);
        }
        if !to.is_empty() {
            self.mark(&mut to);
        }
        to
    }

    /// Below it no other action has anything left.
    fn others_front(&self, group: Group) -> u64 {
        let others = self.ways.iter().filter(|(other, _)| **other != group);
        others.filter_map(|(_, way)| way.front()).fold(self.lane.end, u64::min).min(self.unsearched())
    }

    fn mark(&mut self, to: &mut Handover) {
        self.before = self.base();
        to.before = self.before;
        self.former.retain(|_, consumed| *consumed > to.before);
        let ways = self.ways.iter().map(|(group, way)| (*group, way.consumed()));
        let further = ways.chain(self.former.iter().map(|(group, consumed)| (*group, *consumed)));
        to.named = further.filter(|(_, consumed)| *consumed > to.before).collect();
        self.ways.retain(|_, way| !way.is_over(to.before));
        if is(Mutant::OthersConsumed) {
            to.before = to.named.iter().map(|(_, consumed)| *consumed).fold(to.before, u64::max);
        }
    }

    fn recall(&mut self) -> Option<Step> {
        let lane = self.lane;
        self.ways.iter_mut().find_map(|(group, way)| {
            let position = way.next_offer(&lane)?;
            Some(Step::Recall { group: *group, key: way.key().clone(), end: lane.recovered.max(position + 1) })
        })
    }

    /// What is to be read of the next action in turn: one that always wants more does not come before the others.
    fn read(&mut self) -> Option<Step> {
        let (lane, turn) = (self.lane, self.turn);
        let mut read = |(group, way): (&Group, &mut Way)| {
            let most = way.wanted(&lane, UNASKED)?;
            Some((*group, Step::Read { from: way.next(), only: Some(*group), most }))
        };
        let behind = self.ways.range_mut((Bound::Excluded(turn), Bound::Unbounded)).find_map(&mut read);
        let (group, step) = behind.or_else(|| self.ways.range_mut(..=turn).find_map(&mut read))?;
        self.turn = if is(Mutant::ReadsUnfair) { turn } else { group };
        Some(step)
    }

    fn search(&self) -> Option<Step> {
        let searches = self.lane.searched < self.lane.recovered && self.ways.len() < WAYS_MAX;
        searches.then_some(Step::Read { from: self.lane.searched, only: None, most: UNASKED })
    }

    fn step_parting(&mut self) -> Step {
        let mut parting = Parting::default();
        // It was never handed in, and no mark covers it.
        for (_, refilled) in self.stuck.take().into_iter().flat_map(|stuck| stuck.refilled) {
            let own = refilled.records.into_iter().filter(|record| record.sequence.is_some());
            own.for_each(|record| parting.add(What::Whole(record)));
        }
        let lane = self.lane;
        self.ways.values_mut().for_each(|way| way.part(&lane, &mut parting));
        if !parting.is_empty() {
            return Step::Part(parting);
        }
        let next = self.ways.iter().find(|(_, way)| way.is_to_part());
        next.map_or(Step::Idle, |(group, way)| Step::Read { from: way.next(), only: Some(*group), most: PARTING })
    }
}

/// How much is read at a time when the router ends.
const PARTING: Want = Want { records: 4096, bytes: 1 << 20 };
