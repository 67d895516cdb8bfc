//! What the writer and the reader of overflow do, who stand between the engine and the store: records go out in batches, their
//! actions are told, lanes are read back as each [`Backlog`] says, marked and handed in.

use super::Router;
use crate::check::Told;
use crate::ctx::{Ctx, Event};
use crate::store::{Batch, Body, Failure, Unread};
use engine::backlog::{Backlog, Fetched, Handover, Parting, Step, What, Whose};
use engine::effect::{Effect, Entry, Refill, Spill, Spilled, Want};
use engine::extents::Extents;
use engine::id::{ActionKey, Group, StreamId};
use engine::input::{Input, Unstored};
use engine::lanes::Lane;
use engine::mutant::{Mutant, is};
use engine::outcome::{Answer, Durability, Outcome, Reply, Stages};
use engine::stored_time::{Moment, Stamp, time_left};
use engine::tally::Count;
use std::collections::VecDeque;

/// Something that the writer or the reader does, or waits for.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Work {
    /// It is known what the store holds.
    Recover,
    /// The writer takes what waits.
    Append,
    /// The store has done with it.
    Synced,
    /// The writer tells what came of it.
    Tell,
    /// A store that could not be written is tried again.
    TryAgain,
    /// A lane takes its next step.
    Step(u16),
    /// The store has read.
    Read(u16),
    /// The store has set a consume mark.
    Marked(u16),
    /// All lanes are looked at.
    Look,
}

/// What writer and reader have in hand.
#[derive(Debug, Default)]
pub(super) struct Flow {
    waiting: VecDeque<Spill>,
    /// It is being appended, or was, with these results.
    writing: Vec<Spill>,
    results: Vec<(u16, Result<u64, Failure>)>,
    busy: bool,
    extents: Extents,
    ways: Vec<Way>,
    looking: bool,
    /// Controllers hear of what stays.
    parting: bool,
}

/// The way back of a lane.
#[derive(Debug)]
struct Way {
    backlog: Backlog,
    doing: Doing,
    /// Its next step is planned.
    planned: bool,
    /// What it is to hand in was decided before, and could not be marked.
    put_off: bool,
}

#[derive(Debug)]
enum Doing {
    Nothing,
    Reading(u64, Option<Group>, Want),
    Marking(Handover),
}

/// A store that is slow takes so many times as long.
const SLOW_TIMES: u64 = 50;
/// Handed in at once: few, so that what an action was given is mostly in several pieces.
const PIECE_RECORDS: usize = 2;

impl Router {
    /// Something that writer or reader wait for has come.
    pub fn work(&mut self, work: Work, ctx: &mut Ctx) {
        self.begin(ctx);
        match work {
            Work::Recover => self.recover(ctx),
            Work::Append => self.append(ctx),
            Work::Synced => self.synced(ctx),
            Work::Tell => self.tell(ctx),
            Work::TryAgain => self.set_open(true, ctx),
            Work::Step(lane) => self.step(lane, ctx),
            Work::Read(lane) => self.have_read(lane, ctx),
            Work::Marked(lane) => self.have_marked(lane, ctx),
            Work::Look => self.look(ctx),
        }
    }

    /// A life begins; of a broker it takes a while to learn what it holds.
    pub(super) fn open_store(&mut self, ctx: &mut Ctx) {
        self.flow = Flow::default();
        let Some(plan) = ctx.plan.store else { return };
        ctx.checker.store_open(false);
        let wait = if plan.kafka { ctx.dice.spread(1, 200_000) } else { 0 };
        self.plan_work(wait, Work::Recover, ctx);
    }

    /// A life ends, in the middle of whatever it is.
    pub(super) fn lose_store(&mut self, ctx: &mut Ctx) {
        self.flow = Flow::default();
        for (lane, before, named) in self.store.crash(&mut ctx.dice) {
            ctx.checker.marked_in_crash(lane, before, &numbered(&named, ctx));
        }
    }

    fn plan_work(&mut self, wait: u64, work: Work, ctx: &mut Ctx) {
        ctx.after(wait, Event::Overflow { life: self.life, work });
    }

    /// How long a call of the store takes this time.
    fn takes(&self, mean: u64, ctx: &mut Ctx) -> u64 {
        let times = if ctx.now < self.store.slow_until { SLOW_TIMES } else { 1 };
        1 + ctx.dice.wait(mean) * times
    }

    fn recover(&mut self, ctx: &mut Ctx) {
        let Some(lanes) = self.hub.lanes() else { return };
        for lane in 0..self.store.lanes() {
            let (first, next) = self.store.span(lane);
            if first < next {
                lanes.occupy(Lane(lane));
            }
            self.flow.ways.push(Way {
                backlog: Backlog::new(first, next, self.store.named_max(), self.store.named(lane)),
                doing: Doing::Nothing,
                planned: false,
                put_off: false,
            });
        }
        self.set_open(true, ctx);
        (0..self.store.lanes()).for_each(|lane| self.plan_step(lane, ctx));
    }

    fn set_open(&mut self, open: bool, ctx: &mut Ctx) {
        if let Some(lanes) = self.hub.lanes()
            && lanes.is_open() != open
        {
            lanes.set_open(open);
            ctx.checker.store_open(open);
        }
    }

    // The writer.

    pub(super) fn spill(&mut self, spill: Spill, ctx: &mut Ctx) {
        if let Some(call) = ctx.call(spill.record.id) {
            ctx.checker.spilling(call, spill.lane.0);
        }
        self.flow.waiting.push_back(spill);
        if !std::mem::replace(&mut self.flow.busy, true) {
            self.plan_work(0, Work::Append, ctx);
        }
    }

    fn append(&mut self, ctx: &mut Ctx) {
        let Some(plan) = ctx.plan.store else { return };
        let most = plan.batch_max.min(self.flow.waiting.len());
        self.flow.writing = self.flow.waiting.drain(..most).collect();
        let (life, now, local) = (self.life, ctx.now, self.pass.now);
        let shown = self.machine.read(now, local.as_micros());
        let written = if is(Mutant::WallClockOfStart) {
            let since = self.started.0.until(local).as_millis();
            Moment { wall_ms: self.started.1.wall_ms + u64::try_from(since).unwrap_or(0), ..shown }
        } else {
            shown
        };
        let bodies: Vec<(u16, Body)> = self
            .flow
            .writing
            .iter()
            .map(|spill| {
                let record = spill.record.clone();
                let action = ctx.call(record.id).map_or(0, |call| ctx.asks[call as usize].action);
                if let Some(call) = ctx.call(record.id) {
                    ctx.checker.stamped(call, shown);
                }
                let stamp = Stamp { time_left_ms: local.millis_until(record.deadline), written };
                (spill.lane.0, Body { life, action, group: spill.action.key().group(), stamp, record })
            })
            .collect();
        let lanes: Vec<u16> = bodies.iter().map(|(lane, _)| *lane).collect();
        let results = self.store.append(now, bodies.into_iter(), &mut ctx.dice);
        self.flow.results = lanes.into_iter().zip(results).collect();
        let wait = self.takes(plan.append_us, ctx);
        if is(Mutant::AckedBeforeDurable) {
            self.tell_all(ctx);
        }
        self.plan_work(wait, Work::Synced, ctx);
    }

    fn synced(&mut self, ctx: &mut Ctx) {
        self.store.synced(ctx.now, &mut self.flow.results, &mut ctx.dice);
        let wait = ctx.plan.store.map_or(0, |plan| ctx.dice.below(plan.tell_us));
        self.plan_work(wait, Work::Tell, ctx);
    }

    fn tell(&mut self, ctx: &mut Ctx) {
        self.tell_all(ctx);
        self.flow.busy = !self.flow.waiting.is_empty();
        if self.flow.busy {
            self.plan_work(0, Work::Append, ctx);
        }
    }

    fn tell_all(&mut self, ctx: &mut Ctx) {
        let results = std::mem::take(&mut self.flow.results);
        let failed =
            |result: &Result<u64, Failure>| matches!(result, Err(failure) if !matches!(failure, Failure::TooLarge(_)));
        if results.iter().any(|(_, result)| failed(result)) {
            self.set_open(false, ctx);
            let wait = ctx.plan.store.map_or(0, |plan| plan.left_alone_us);
            self.plan_work(wait, Work::TryAgain, ctx);
        }
        for (spill, (lane, result)) in std::mem::take(&mut self.flow.writing).into_iter().zip(results) {
            if let Some(call) = ctx.call(spill.record.id) {
                ctx.checker.told(call, told(lane, result));
            }
            let result = result.map_err(unstored);
            self.flow.extents.note(Lane(lane), spill.action.key(), result);
            self.enter(&spill.action, Input::Stored(spill.slot, result), ctx);
        }
        // Only now, that its actions know of it, may it be read.
        for extent in self.flow.extents.take() {
            self.flow.ways[usize::from(extent.lane.0)].backlog.extend(&extent);
            self.plan_step(extent.lane.0, ctx);
        }
    }

    // The reader.

    pub(super) fn refill(&mut self, refill: &Refill, ctx: &mut Ctx) {
        let Lane(lane) = refill.lane;
        self.flow.ways[usize::from(lane)].backlog.want(refill);
        self.plan_step(lane, ctx);
    }

    fn plan_step(&mut self, lane: u16, ctx: &mut Ctx) {
        if !std::mem::replace(&mut self.flow.ways[usize::from(lane)].planned, true) {
            self.plan_work(0, Work::Step(lane), ctx);
        }
    }

    fn step(&mut self, lane: u16, ctx: &mut Ctx) {
        let Some(plan) = ctx.plan.store else { return };
        let way = &mut self.flow.ways[usize::from(lane)];
        way.planned = false;
        if !matches!(way.doing, Doing::Nothing) {
            return;
        }
        match way.backlog.step(self.pass.now) {
            Step::Idle => {
                if way.backlog.has_recovered()
                    && let Some(lanes) = self.hub.lanes()
                {
                    lanes.leave(Lane(lane));
                }
                self.look_later(lane, ctx);
            }
            Step::Read { from, only, most } => {
                way.doing = Doing::Reading(from, only, most);
                let wait = self.takes(plan.read_us, ctx);
                self.plan_work(wait, Work::Read(lane), ctx);
            }
            Step::Recall { group, key, end } => self.recall(lane, group, &key, end, ctx),
            Step::Part(parting) => {
                self.part(parting, ctx);
                self.plan_step(lane, ctx);
            }
            Step::Hand(handover) if handover.is_news_only() => {
                self.hand_in(handover, ctx);
                self.plan_step(lane, ctx);
            }
            Step::Hand(handover) => self.hand(lane, handover, ctx),
        }
    }

    /// There is something nobody tells of, as that the time of one that waits is over.
    fn look_later(&mut self, lane: u16, ctx: &mut Ctx) {
        let (first, next) = self.store.span(lane);
        if first < next {
            self.look_once_more(ctx);
        }
    }

    fn look_once_more(&mut self, ctx: &mut Ctx) {
        if !std::mem::replace(&mut self.flow.looking, true) {
            let wait = ctx.plan.store.map_or(0, |plan| plan.look_us);
            self.plan_work(wait, Work::Look, ctx);
        }
    }

    fn look(&mut self, ctx: &mut Ctx) {
        self.flow.looking = false;
        self.flow.ways.iter_mut().for_each(|way| way.backlog.look_again());
        (0..self.store.lanes()).for_each(|lane| self.plan_step(lane, ctx));
    }

    fn have_read(&mut self, lane: u16, ctx: &mut Ctx) {
        let Doing::Reading(from, only, most) = self.take_doing(lane) else { return };
        let moved = match self.store.read(ctx.now, lane, from, only, (most.records, most.bytes)) {
            Ok(batch) => {
                let moved = batch.next > from;
                match only {
                    Some(group) => self.have_fetched(lane, group, batch, ctx),
                    None => self.have_searched(lane, batch, ctx),
                }
                moved
            }
            Err(Unread::Gone(first)) => {
                self.flow.ways[usize::from(lane)].backlog.skip_to(first);
                true
            }
            // Also for what is damaged, and so not in the span: that it can be passed over is not known before it is read.
            Err(Unread::Unavailable) => return self.look_once_more(ctx),
        };
        if moved { self.plan_step(lane, ctx) } else { self.look_later(lane, ctx) }
    }

    /// What was read of an action.
    fn have_fetched(&mut self, lane: u16, group: Group, batch: Batch, ctx: &mut Ctx) {
        let lost = |(position, Body { record, .. }): (u64, Body)| {
            let Spilled { id, controller, reply, .. } = record;
            Fetched { position, what: What::Lost(Some(Whose { id, controller, reply })) }
        };
        let mut fetched: Vec<Fetched> = batch.lost.into_iter().map(lost).collect();
        for (position, body) in batch.records {
            fetched.push(Fetched { position, what: What::Whole(self.fetched(body, ctx)) });
        }
        fetched.sort_by_key(|fetched| fetched.position);
        self.flow.ways[usize::from(lane)].backlog.fetched(group, fetched, batch.next);
    }

    /// What the search for records of an earlier life met.
    fn have_searched(&mut self, lane: u16, batch: Batch, ctx: &Ctx) {
        let found = batch.records.into_iter().map(|(at, body)| (at, ctx.keys[usize::from(body.action)].clone()));
        self.flow.ways[usize::from(lane)].backlog.searched(found, batch.next);
    }

    /// A record as it was read. What one of an earlier life says about times and streams means nothing any more, but for its stamp.
    fn fetched(&self, body: Body, ctx: &mut Ctx) -> Spilled {
        let Body { life, stamp, record, .. } = body;
        let call = ctx.call(record.id);
        call.into_iter().for_each(|call| ctx.checker.fetched(call));
        if life == self.life {
            return record;
        }
        let now = self.pass.now;
        let shown = self.machine.read(ctx.now, now.as_micros());
        let (left, jump) = time_left(stamp, shown);
        call.into_iter().for_each(|call| ctx.checker.recovering(call, life, shown, jump));
        let deadline = now + left;
        let (controller, reply, sequence) = (StreamId::NOBODY, Reply::Outcome, None);
        Spilled { controller, reply, sequence, accepted_at: now, deadline, ..record }
    }

    fn recall(&mut self, lane: u16, group: Group, key: &ActionKey, end: u64, ctx: &mut Ctx) {
        self.note_recalled(key, ctx);
        let offered = self.hub.recall(key, Lane(lane), end, &mut self.pass);
        self.flow.ways[usize::from(lane)].backlog.offered(group, offered.ok());
        self.plan_step(lane, ctx);
        self.carry_out(ctx);
        self.settled(ctx);
    }

    fn note_recalled(&self, key: &ActionKey, ctx: &mut Ctx) {
        if let Some(action) = (0..ctx.plan.actions).find(|action| ctx.keys[usize::from(*action)] == *key) {
            ctx.checker.recalled(action);
        }
    }

    /// Marks first; what is marked and not handed in when the router dies is lost, and never run twice.
    fn hand(&mut self, lane: u16, handover: Handover, ctx: &mut Ctx) {
        let again = std::mem::take(&mut self.flow.ways[usize::from(lane)].put_off);
        let refilled = handover.refilled.iter().flat_map(|(_, refilled)| &refilled.records);
        let calls = refilled.filter_map(|record| Some((ctx.call(record.id)?, record.sequence.is_none() && !again)));
        let calls = calls.collect();
        let lost = handover.lost.iter().filter_map(|whose| ctx.call(whose.id)).collect();
        ctx.checker.handing(lane, calls, lost);
        self.store.begin_mark(lane, handover.before, handover.named.clone());
        let handover = if is(Mutant::MarkAfterHandOut) {
            let (before, named) = (handover.before, handover.named.clone());
            self.hand_in(handover, ctx);
            Handover { before, named, ..Handover::default() }
        } else {
            handover
        };
        self.flow.ways[usize::from(lane)].doing = Doing::Marking(handover);
        let wait = ctx.plan.store.map_or(0, |plan| self.takes(plan.mark_us, ctx));
        self.plan_work(wait, Work::Marked(lane), ctx);
    }

    fn have_marked(&mut self, lane: u16, ctx: &mut Ctx) {
        let Doing::Marking(handover) = self.take_doing(lane) else { return };
        if !self.store.marked(ctx.now, lane) {
            let way = &mut self.flow.ways[usize::from(lane)];
            way.backlog.put_off(handover);
            way.put_off = true;
            return self.look_later(lane, ctx);
        }
        ctx.checker.marked(lane, handover.before, &numbered(&handover.named, ctx));
        self.hand_in(handover, ctx);
        ctx.checker.handed_over();
        self.plan_step(lane, ctx);
    }

    fn hand_in(&mut self, handover: Handover, ctx: &mut Ctx) {
        self.pass.tally.add(Count::RecoveredExpired, handover.expired);
        self.pass.tally.add(Count::SpillDamaged, handover.missing);
        ctx.checker.missing(handover.missing);
        self.hub.lose_stored(&handover.lost, &mut self.pass);
        self.carry_out(ctx);
        for (action, refilled) in handover.refilled {
            for record in &refilled.records {
                if let Some(call) = ctx.call(record.id) {
                    ctx.checker.refilled(call, record.sequence.is_none(), record.deadline.as_micros());
                }
            }
            for piece in refilled.pieces(PIECE_RECORDS) {
                self.hub.enter(&action, &mut vec![Input::Refilled(Box::new(piece))], &mut self.pass);
            }
            // Not between pieces: until the last one others may wait that nothing keeps.
            self.carry_out(ctx);
            self.settled(ctx);
        }
    }

    /// While it drains: whether something that is stored is still to come back. Near the end of its time nothing is read back any
    /// more; it stays for the next life.
    pub(super) fn still_refills(&self, ctx: &Ctx) -> bool {
        let (Some(plan), Some(lanes)) = (&ctx.plan.store, self.hub.lanes()) else { return false };
        let refills = ctx.now + plan.drain_reserve_us.min(ctx.plan.drain_us / 2) < self.drain_until;
        if !refills {
            lanes.stop_refilling();
        }
        refills && self.hub.totals().stored() > 0
    }

    /// While it drains and nothing is read back any more: whether controllers have heard of all that stays.
    pub(super) fn has_parted(&mut self, ctx: &mut Ctx) -> bool {
        if ctx.plan.store.is_none() || self.hub.lanes().is_none_or(engine::lanes::Lanes::is_refilling) {
            return true;
        }
        if !std::mem::replace(&mut self.flow.parting, true) {
            self.flow.ways.iter_mut().for_each(|way| way.backlog.part());
            (0..self.flow.ways.len()).for_each(|lane| self.plan_step(u16::try_from(lane).unwrap_or(u16::MAX), ctx));
        }
        // What is being marked is neither in the store nor handed in: the router's reader says nothing before that is over.
        let is_parted = |way: &Way| matches!(way.doing, Doing::Nothing) && !way.backlog.is_to_part();
        self.spilling() == 0 && self.flow.ways.iter().all(is_parted)
    }

    /// The router ends: tells controllers that their activations stay in the store.
    fn part(&mut self, parting: Parting, ctx: &mut Ctx) {
        self.hub.lose_stored(&parting.lost, &mut self.pass);
        for (controller, id) in parting.stay {
            let (outcome, stages) = (Outcome::Accepted(Durability::Durable), Stages::default());
            let answer = Entry::Answer(Answer { id, outcome, stages });
            self.pass.performer.0.push(Effect::Write(controller, answer));
        }
        self.carry_out(ctx);
        self.settled(ctx);
    }

    fn take_doing(&mut self, lane: u16) -> Doing {
        std::mem::replace(&mut self.flow.ways[usize::from(lane)].doing, Doing::Nothing)
    }

    // For the judge.

    /// Shows that what came in is there or has ended.
    pub(super) fn show_conserved(&self, ctx: &mut Ctx) {
        let totals = self.hub.totals();
        let back = totals.of(Count::Refilled) + totals.of(Count::SpillDamaged);
        let came = totals.of(Count::Accepted) + totals.overdue() + back + self.spilling();
        let there = totals.ended() + self.hub.held() as u64 + totals.of(Count::Spilled);
        ctx.checker.conserved(came, there);
    }

    /// On their way into the store: held, and not accepted yet.
    fn spilling(&self) -> u64 {
        (self.flow.waiting.len() + self.flow.writing.len()) as u64
    }

    /// After the faults, when nobody waits any more.
    pub(super) fn show_store_rested(&self, ctx: &mut Ctx) {
        let in_use = self.hub.lanes().map_or(0, engine::lanes::Lanes::in_use);
        ctx.checker.overflow_rested(in_use, self.hub.totals().stored());
    }
}

/// The actions that a mark names, by number.
fn numbered(named: &[(Group, u64)], ctx: &Ctx) -> Vec<(u16, u64)> {
    let action = |group: Group| (0..).zip(&ctx.keys).find(|(_, key)| key.group() == group).map(|(action, _)| action);
    named.iter().filter_map(|(group, to)| Some((action(*group)?, *to))).collect()
}

fn told(lane: u16, result: Result<u64, Failure>) -> Told {
    match result {
        Ok(position) => Told::Kept(lane, position),
        Err(Failure::Unknown) => Told::Unknown,
        Err(Failure::TooLarge(_)) => Told::TooLarge,
        Err(Failure::Full | Failure::Unavailable) => Told::Refused,
    }
}

fn unstored(failure: Failure) -> Unstored {
    match failure {
        Failure::TooLarge(limit) => Unstored::TooLarge(limit as u64),
        Failure::Unknown => Unstored::Unknown,
        Failure::Full | Failure::Unavailable => Unstored::Refused,
    }
}
