//! One action's way back through a lane: what was read of it and not handed in, and who wants it. A part of the
//! [backlog](crate::backlog), which knows all ways of the lane and sets its marks.

use crate::backlog::{Fetched, Handover, Recalled, What};
use crate::effect::{Spilled, Want};
use crate::extents::Extent;
use crate::hub::Action;
use crate::id::{ActionKey, ActivationId, StreamId};
use crate::mutant::{Mutant, is};
use crate::outcome::Reply;
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a way has to know of its lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extremes {
    /// What lies below it may be handed in: it is durable, and its actions were told so.
    pub(crate) end: u64,
    /// What lies below it is of an earlier life of the router.
    pub(crate) recovered: u64,
    /// What lies below it has been searched for records of an earlier life.
    pub(crate) searched: u64,
}

/// One action's way back.
#[derive(Debug)]
pub(crate) struct Way {
    key: ActionKey,
    /// Where the next read of the action begins.
    next: u64,
    /// Above every record of the action that is known to be there.
    end: u64,
    /// Everything of the action below it is consumed, or will be with the mark that is being set.
    consumed: u64,
    /// Records of an earlier life that were found and not handed in.
    found: u64,
    /// Records of this life that the action was told of and that were not handed in.
    told: u64,
    /// Where the told ones lie. What lies between belongs to other actions, or nobody knows of it.
    extents: VecDeque<Told>,
    /// Read and not handed in.
    fetched: VecDeque<Fetched>,
    want: Option<Wanted>,
    offer: Option<Offer>,
    /// The next record may not be handed in, as the mark has no room for the action's name.
    nameless: bool,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    first: u64,
    last: u64,
    run: u64,
}

#[derive(Debug)]
struct Wanted {
    action: Arc<Action>,
    want: Want,
    /// What the action knows to be handed in.
    cursor: u64,
}

/// What came of offering the way to its action. None: the action could not be made known.
type Offer = Option<(Arc<Action>, Recalled)>;

/// Most extents of one way. Beyond, two are taken for one: then a record of which nobody knows may be handed in, and the engine drops
/// it by its id.
const EXTENTS_MAX: usize = 4096;

impl Way {
    /// Nothing of the action is known below `next`, and everything below `consumed` is consumed.
    pub(crate) fn new(key: ActionKey, next: u64, consumed: u64) -> Self {
        let (extents, fetched) = (VecDeque::new(), VecDeque::new());
        Self {
            key,
            next: next.max(consumed),
            end: 0,
            consumed,
            found: 0,
            told: 0,
            extents,
            fetched,
            want: None,
            offer: None,
            nameless: false,
        }
    }

    pub(crate) fn key(&self) -> &ActionKey {
        &self.key
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Below it nothing of the action is left; None: nothing is left at all.
    pub(crate) fn front(&self) -> Option<u64> {
        let first = self.fetched.front().map_or(self.next, |head| head.position);
        (self.is_left() || !self.fetched.is_empty()).then_some(first)
    }

    /// Whether there are records that were not handed in, as far as is known.
    pub(crate) fn is_left(&self) -> bool {
        self.found + self.told > 0
    }

    /// Whether it can be forgotten, with everything below `before` consumed.
    pub(crate) fn is_over(&self, before: u64) -> bool {
        self.front().is_none() && self.want.is_none() && self.consumed <= before
    }

    /// Whether there may be something of an earlier life.
    pub(crate) fn is_recovering(&self, lane: &Extremes) -> bool {
        self.front().is_some_and(|front| front < lane.recovered)
    }

    /// Records of this life are durable, and the action was told so.
    pub(crate) fn extend(&mut self, extent: &Extent, lane: &Extremes) {
        if self.front().is_none() {
            // All before is consumed, or nobody knows of it; but what was not searched may hold some of an earlier life.
            let searching = lane.searched < lane.recovered;
            self.next = self.next.max(if searching { lane.searched } else { extent.first });
        }
        self.told += extent.records;
        self.end = extent.last + 1;
        let Extent { first, last, run, .. } = *extent;
        let full = self.extents.len() >= EXTENTS_MAX;
        match self.extents.back_mut().filter(|before| before.run == run || full) {
            Some(before) => (before.last, before.run) = (last, run),
            None => self.extents.push_back(Told { first, last, run }),
        }
    }

    /// The search met a record of an earlier life at that position.
    pub(crate) fn found(&mut self, position: u64) {
        self.found += 1;
        self.end = self.end.max(position + 1);
    }

    pub(crate) fn fetched(&mut self, records: impl IntoIterator<Item = Fetched>, next: u64) {
        self.fetched.extend(records);
        self.next = self.next.max(next);
    }

    pub(crate) fn skip_to(&mut self, first: u64) {
        self.next = self.next.max(first);
    }

    pub(crate) fn want(&mut self, action: &Arc<Action>, want: Want, cursor: u64) {
        self.want = Some(Wanted { action: action.clone(), want, cursor });
    }

    pub(crate) fn offered(&mut self, offer: Offer) {
        self.offer = Some(offer);
    }

    /// An action that had no room is asked again.
    pub(crate) fn look_again(&mut self) {
        self.offer.take_if(|offer| matches!(offer, Some((_, Recalled::NotNow)) | None));
    }

    /// Hands in what may be, as long as it lies below `limit`. True if anything was consumed.
    pub(crate) fn take(&mut self, limit: u64, lane: &Extremes, now: Timestamp, to: &mut Handover) -> bool {
        let mut taken = None;
        while let Some(position) = self.take_head(limit, lane, now, to) {
            taken = Some(position);
        }
        let Some(taken) = taken else { return false };
        // What lies behind it and was damaged is behind it, too; what is not told of yet may be anybody's.
        let behind = if self.fetched.is_empty() { self.next.min(limit).min(lane.end) } else { taken + 1 };
        self.consumed = behind.max(taken + 1);
        if let Some(wanted) = &self.want
            && to.got(&wanted.action, self.consumed)
        {
            self.want = None;
        }
        true
    }

    /// Takes the first of what was read, if it may be handed in now. Returns where it lay.
    fn take_head(&mut self, limit: u64, lane: &Extremes, now: Timestamp, to: &mut Handover) -> Option<u64> {
        let position = self.known_head(lane)?.position;
        self.nameless = position >= limit;
        if self.nameless {
            return None;
        }
        let goes = match &self.fetched.front()?.what {
            What::Lost(_) => Goes::Lost,
            What::Whole(record) => self.whither(record, now)?,
        };
        let Fetched { what, .. } = self.fetched.pop_front()?;
        self.count_off(position, lane);
        match (what, goes) {
            (What::Lost(whose), _) => to.lose(whose.filter(|_| position >= lane.recovered)),
            (What::Whole(_), Goes::Expired) => to.expired += 1,
            (What::Whole(record), Goes::Elsewhere) => self.give_elsewhere(record, to),
            (What::Whole(record), _) => self.give(record, to),
        }
        Some(position)
    }

    /// Where a record goes, if it may be handed in now.
    fn whither(&self, record: &Spilled, now: Timestamp) -> Option<Goes> {
        let of_earlier_life = record.sequence.is_none();
        if of_earlier_life && record.deadline <= now && !is(Mutant::RecoveredUnfiltered) {
            return Some(Goes::Expired);
        }
        if self.want.as_ref().is_some_and(|wanted| wanted.want.records > 0) {
            return Some(Goes::Wanted);
        }
        let room = self.room_elsewhere().filter(|_| of_earlier_life)?;
        (room.records > 0).then_some(Goes::Elsewhere)
    }

    fn room_elsewhere(&self) -> Option<Want> {
        match self.offer.as_ref()?.as_ref()? {
            (_, Recalled::Elsewhere(room)) => Some(*room),
            (_, Recalled::Here | Recalled::NotNow) => None,
        }
    }

    /// Ends the offer, whatever came of it: an offer is for one handover. As long as it stands, the
    /// action takes no records of other lanes.
    pub(crate) fn end_offer(&mut self, to: &mut Handover) {
        let ends = |offer: &mut Offer| matches!(offer, Some((_, Recalled::Elsewhere(_))));
        if let Some(Some((action, _))) = self.offer.take_if(ends) {
            to.end_offer(&action);
        }
    }

    fn give(&mut self, record: Spilled, to: &mut Handover) {
        if let Some(Wanted { action, want, .. }) = &mut self.want {
            want.take(&record);
            to.give(action, Some(0), record);
        }
    }

    fn give_elsewhere(&mut self, record: Spilled, to: &mut Handover) {
        if let Some(Some((action, Recalled::Elsewhere(room)))) = &mut self.offer {
            room.take(&record);
            to.give(action, None, record);
        }
    }

    fn count_off(&mut self, position: u64, lane: &Extremes) {
        if position >= lane.recovered {
            self.told = self.told.saturating_sub(1);
        } else if position < lane.searched {
            self.found = self.found.saturating_sub(1);
        }
    }

    /// The first of what was read. A read may give more than is known to be durable here: what has been written and not been told yet.
    /// That waits, and for now is as good as not there. What never will be told of is dropped.
    fn known_head(&mut self, lane: &Extremes) -> Option<&Fetched> {
        while let Some(position) = self.fetched.front().map(|head| head.position)
            && position < lane.end
            && position >= lane.recovered
            && !self.is_told(position)
        {
            self.fetched.pop_front();
        }
        self.fetched.front().filter(|head| head.position < lane.end || is(Mutant::UntoldHandedIn))
    }

    fn is_told(&mut self, position: u64) -> bool {
        while self.extents.front().is_some_and(|told| told.last < position) {
            self.extents.pop_front();
        }
        self.extents.front().is_some_and(|told| told.first <= position) || is(Mutant::UntoldHandedIn)
    }

    /// Tells an action that wants more how far its way is, once there is no more. What should have been there is missing.
    pub(crate) fn tell_news(&mut self, lane: &Extremes, to: &mut Handover) {
        if self.known_head(lane).is_some() {
            return;
        }
        if self.next >= self.end && self.is_left() {
            to.miss(self.told);
            (self.told, self.found) = (0, 0);
        }
        if self.is_left() {
            return;
        }
        let is_searched = lane.searched >= lane.recovered;
        let cursor = if is_searched { lane.end } else { self.next.max(lane.searched) };
        if let Some(Wanted { action, .. }) = self.want.take_if(|wanted| wanted.cursor < cursor) {
            to.tell(&action, cursor);
            // It may let go of the lane by that: what is found later is offered again.
            self.offer = None;
        }
    }

    /// Whether its head has to be offered to its action: it is of an earlier life, and nobody asks for it. Where it lies.
    pub(crate) fn next_offer(&mut self, lane: &Extremes) -> Option<u64> {
        let asks = self.want.as_ref().is_some_and(|wanted| wanted.want.records > 0);
        let position = self.known_head(lane)?.position;
        (!asks && !self.nameless && self.offer.is_none() && position < lane.recovered).then_some(position)
    }

    /// How much is to be read for it, if anything is.
    pub(crate) fn wanted(&mut self, lane: &Extremes, unasked: Want) -> Option<Want> {
        if self.next >= self.end || !self.is_left() || self.known_head(lane).is_some() {
            return None;
        }
        if let Some(wanted) = self.want.as_ref().filter(|wanted| wanted.want.records > 0) {
            return Some(wanted.want);
        }
        (self.offer.is_none() && self.found > 0).then_some(unasked)
    }

    /// For a router that ends: takes what is there of this life, and stays in the store.
    pub(crate) fn part(&mut self, lane: &Extremes, to: &mut Parting) {
        while self.known_head(lane).is_some() {
            let Some(Fetched { position, what }) = self.fetched.pop_front() else { return };
            if position < lane.recovered {
                continue;
            }
            self.told = self.told.saturating_sub(1);
            to.add(what);
        }
    }

    /// Whether there is more of this life to be read, for a router that ends.
    pub(crate) fn is_to_part(&self) -> bool {
        self.told > 0 && self.next < self.end
    }
}

/// Where a record goes.
#[derive(Debug, Clone, Copy)]
enum Goes {
    Wanted,
    Elsewhere,
    Expired,
    Lost,
}

/// What stays in the store when the router ends, and whose it is.
#[derive(Debug, Default)]
pub struct Parting {
    /// Activations whose controllers wait to hear how they end, and have to be told that they stay.
    pub stay: Vec<(StreamId, ActivationId)>,
    /// Damaged ones.
    pub lost: Vec<crate::backlog::Whose>,
}

impl Parting {
    /// Whether there is nobody to be told.
    pub fn is_empty(&self) -> bool {
        self.stay.is_empty() && self.lost.is_empty()
    }

    pub(crate) fn add(&mut self, what: What) {
        match what {
            What::Whole(_) if is(Mutant::PartedUnsaid) => {}
            What::Whole(record) if record.reply == Reply::Outcome => self.stay.push((record.controller, record.id)),
            What::Whole(_) => {}
            What::Lost(whose) => self.lost.extend(whose),
        }
    }
}

impl Want {
    /// A record more is had. The last of them may be as long as it likes; with no bytes left there are no records left either.
    fn take(&mut self, record: &Spilled) {
        let bytes = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.records = if self.bytes == 0 { 0 } else { self.records.saturating_sub(1) };
    }
}
