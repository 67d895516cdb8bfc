//! The thread that reads back what overflowed: it drives each lane's [`Backlog`], which decides.

use super::handoff::{Handoff, Reads};
use super::note;
use super::record::Records;
use crate::driver::Driver;
use crate::grpc::Service;
use crate::parts::Part;
use engine::backlog::{Backlog, Fetched, Handover, Parting, Step, What};
use engine::effect::{Effect, Entry, Perform, Want};
use engine::hub::Pass;
use engine::id::{ActionKey, Group};
use engine::input::Input;
use engine::lanes::Lane;
use engine::outcome::{Answer, Durability, Outcome, Stages};
use engine::stored_time::ClockJump;
use engine::tally::Count;
use overflow::{Batch, Marks, Most, Overflow, ReadError};
use std::time::Duration;

/// How often a lane is looked at again that waits for its store, or for something of which nobody tells.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long to wait for controllers to read before more of them are told that their activations stay.
const CROWDED_INTERVAL: Duration = Duration::from_millis(2);

/// What is read or handed in at once, about 0.1 ms of a core; then whoever waits for that core comes first. The system would let a whole
/// batch of 4,096 run for 1 ms and more, and where cores are few that is what activations of other actions waited for.
const PIECE: Most = Most { records: 256, bytes: 64 << 10 };

/// Reads back until the handoff is stopped. `part` is this thread's.
pub(crate) fn run(service: &Service, handoff: &Handoff, store: &dyn Overflow, records: Records, part: &Part) {
    let pass = service.pass();
    let mut reader = Reader { service, handoff, store, records, backlogs: Vec::new(), handed_in: 0, pass };
    let mut timeout = Duration::ZERO;
    loop {
        let reads = handoff.take_reads(timeout);
        if reads.stopped || part.is_told_to_end() {
            return;
        }
        if reader.backlogs.is_empty() && store.ready() {
            reader.recover();
        }
        reader.take(reads);
        timeout = LOOK_INTERVAL;
        reader.work();
    }
}

struct Reader<'a> {
    service: &'a Service,
    handoff: &'a Handoff,
    store: &'a dyn Overflow,
    records: Records,
    /// One for each lane; none until it is known what the store holds.
    backlogs: Vec<Backlog>,
    /// Activations handed in so far.
    handed_in: u64,
    pass: Pass<Driver>,
}

impl Reader<'_> {
    /// Finds what an earlier life left. Only then may anything be written.
    fn recover(&mut self) {
        let Some(lanes) = self.service.hub.lanes() else { return };
        for lane in 0..self.store.lanes() {
            let span = self.store.span(lane);
            if span.first < span.next {
                lanes.occupy(Lane(lane));
            }
            let named = self.store.group_marks(lane).into_iter().map(|(group, to)| (Group(group.0), to));
            self.backlogs.push(Backlog::new(span.first, span.next, self.store.group_marks_max(), named));
        }
        let left = self.backlogs.iter().filter(|backlog| backlog.is_recovering()).count();
        tracing::info!(
            lanes = self.backlogs.len(),
            left,
            "overflow is open; so many lanes hold what an earlier life left"
        );
        lanes.set_open(true);
    }

    fn take(&mut self, reads: Reads) {
        for extent in reads.extents {
            if let Some(backlog) = self.backlogs.get_mut(usize::from(extent.lane.0)) {
                backlog.extend(&extent);
            }
        }
        for refill in reads.refills {
            if let Some(backlog) = self.backlogs.get_mut(usize::from(refill.lane.0)) {
                backlog.want(&refill);
            }
        }
        for backlog in &mut self.backlogs {
            backlog.look_again();
            if reads.parting {
                backlog.part();
            }
        }
    }

    /// Steps lane by lane until there is nothing to do in any.
    fn work(&mut self) {
        let mut busy: Vec<usize> = (0..self.backlogs.len()).collect();
        while !busy.is_empty() && !self.handoff.is_stopped() {
            self.service.begin(&mut self.pass);
            busy.retain(|lane| self.step(*lane));
            self.service.hub.settle(&mut self.pass);
        }
        if !self.backlogs.iter().any(Backlog::is_to_part) {
            self.handoff.has_parted();
        }
    }

    /// Takes a lane's next step. False: there is none for now.
    fn step(&mut self, at: usize) -> bool {
        let lane = u16::try_from(at).expect("lanes are counted in 16 bits");
        match self.backlogs[at].step(self.pass.now) {
            Step::Idle => {
                if self.backlogs[at].has_recovered()
                    && let Some(lanes) = self.service.hub.lanes()
                {
                    tracing::info!(lane, "what an earlier life left in overflow is back");
                    lanes.leave(Lane(lane));
                }
                false
            }
            Step::Read { from, only, most } => self.read(lane, from, only, most),
            Step::Recall { group, key, end } => self.recall(lane, group, &key, end),
            Step::Hand(handover) => self.hand(lane, handover),
            Step::Part(parting) => self.part(&parting),
        }
    }

    /// Reads so much, in pieces. False: nothing came of it.
    fn read(&mut self, lane: u16, from: u64, only: Option<Group>, most: Want) -> bool {
        let (mut records, mut bytes) = (most.records as usize, most.bytes as usize);
        let mut next = from;
        while records > 0 && bytes > 0 {
            let piece = Most { records: records.min(PIECE.records), bytes: bytes.min(PIECE.bytes) };
            let Some(read) = self.read_piece(lane, &mut next, only, piece) else { break };
            (records, bytes) = (records.saturating_sub(read.records), bytes.saturating_sub(read.bytes));
            // Not even half of it: nothing more is there, or it takes its time.
            if read.records < piece.records && read.bytes * 2 < piece.bytes {
                break;
            }
            std::thread::yield_now();
        }
        next > from
    }

    /// Reads a piece, moves `next` behind it and says how much it was. None: it cannot be read.
    fn read_piece(&mut self, lane: u16, next: &mut u64, only: Option<Group>, most: Most) -> Option<Most> {
        match self.store.read(lane, *next, only.map(|Group(group)| overflow::Group(group)), most) {
            Ok(batch) => {
                let bytes = batch.records.iter().map(|record| record.body.len()).sum();
                let read = Most { records: batch.records.len() + batch.lost.len(), bytes };
                *next = batch.next;
                match only {
                    Some(group) => self.fetched(lane, group, batch),
                    None => self.searched(lane, batch),
                }
                Some(read)
            }
            Err(ReadError::Gone { first, why }) => {
                tracing::error!(lane, first, why, "records of overflow are gone");
                self.backlogs[usize::from(lane)].skip_to(first);
                *next = first;
                Some(Most { records: 0, bytes: 0 })
            }
            Err(error) => {
                tracing::warn!(lane, %error, "a lane of overflow cannot be read for now");
                None
            }
        }
    }

    /// What was read of one action.
    fn fetched(&mut self, lane: u16, group: Group, batch: Batch) {
        let at = self.service.clock.read();
        let lost = batch.lost.iter().map(|lost| (lost.position, What::Lost(Some(note::read(&lost.note)))));
        let mut fetched: Vec<(u64, What)> = lost.collect();
        for record in batch.records {
            let what = match self.records.read(record.body, &at) {
                Ok((key, record)) if key.group() == group => What::Whole(record),
                // Whole as far as the store can tell, and no record of that action.
                _ => What::Lost(self.store.note(lane, record.position).map(|note| note::read(&note))),
            };
            fetched.push((record.position, what));
        }
        fetched.sort_by_key(|(position, _)| *position);
        let fetched = fetched.into_iter().map(|(position, what)| Fetched { position, what });
        self.backlogs[usize::from(lane)].fetched(group, fetched, batch.next);
        self.say_jumps();
    }

    /// What the search for records of an earlier life met.
    fn searched(&mut self, lane: u16, batch: Batch) {
        let at = self.service.clock.read();
        let mut found = Vec::with_capacity(batch.records.len());
        for record in batch.records {
            match self.records.read(record.body, &at) {
                Ok((key, _)) if overflow::Group(key.group().0) == record.group => found.push((record.position, key)),
                _ => tracing::error!(lane, position = record.position, "a record of overflow says nothing of use"),
            }
        }
        self.backlogs[usize::from(lane)].searched(found, batch.next);
        self.say_jumps();
    }

    fn say_jumps(&mut self) {
        for jump in self.records.take_jumps() {
            let (count, set, by) = match jump {
                ClockJump::Back(by) => (Count::ClockSetBack, "back", by),
                ClockJump::Forward(by) => (Count::ClockSetForward, "forward", by),
            };
            tracing::warn!(set, ?by, "the wall clock was set since records of overflow were written");
            self.pass.tally.count(count);
        }
    }

    fn recall(&mut self, lane: u16, group: Group, key: &ActionKey, end: u64) -> bool {
        let offered = self.service.hub.recall(key, Lane(lane), end, &mut self.pass);
        if let Err(rejection) = &offered {
            tracing::warn!(lane, %key, reason = rejection.reason.label(), "what was left in overflow has to wait");
        }
        self.backlogs[usize::from(lane)].offered(group, offered.ok());
        true
    }

    /// Marks first, durably, and hands in then: what is marked and not handed in when the router dies is lost, never run twice.
    fn hand(&mut self, lane: u16, handover: Handover) -> bool {
        if !handover.is_news_only()
            && let Err(error) = self.mark(lane, &handover)
        {
            tracing::warn!(lane, %error, "a lane of overflow cannot be marked as read for now");
            self.backlogs[usize::from(lane)].put_off(handover);
            return false;
        }
        self.handed_in += handover.activations() as u64;
        self.say_damaged(lane, &handover);
        self.pass.tally.add(Count::RecoveredExpired, handover.expired);
        self.pass.tally.add(Count::SpillDamaged, handover.missing);
        self.service.hub.lose_stored(&handover.lost, &mut self.pass);
        for (action, refilled) in handover.refilled {
            for piece in refilled.pieces(PIECE.records) {
                self.service.hub.enter(&action, &mut vec![Input::Refilled(Box::new(piece))], &mut self.pass);
                std::thread::yield_now();
            }
        }
        true
    }

    fn mark(&self, lane: u16, handover: &Handover) -> Result<(), overflow::ConsumeError> {
        let named: Vec<_> = handover.named.iter().map(|(Group(group), to)| (overflow::Group(*group), *to)).collect();
        let marks = Marks { before: handover.before, groups: &named };
        // What was handed in and has not left the queues since is lost with the router, too.
        let handed = self.handed_in + handover.activations() as u64;
        self.store.consume(lane, &marks, handed.saturating_sub(self.service.hub.totals().of(Count::RefillLeft)))
    }

    fn say_damaged(&self, lane: u16, handover: &Handover) {
        let Handover { lost, missing, .. } = handover;
        if !lost.is_empty() || *missing > 0 {
            let answered = lost.len();
            tracing::error!(lane, answered, at_least = missing, "records of overflow are damaged or missing");
        }
    }

    /// The router ends: tells controllers that their activations stay in the store.
    fn part(&mut self, parting: &Parting) -> bool {
        self.service.hub.lose_stored(&parting.lost, &mut self.pass);
        for (controller, id) in &parting.stay {
            let (outcome, stages) = (Outcome::Accepted(Durability::Durable), Stages::default());
            let answer = Entry::Answer(Answer { id: *id, outcome, stages });
            self.pass.performer.perform(&mut vec![Effect::Write(*controller, answer)]);
        }
        // Millions may stay. Whoever reads is told of all; one that does not must not cut itself off by what piles up for it.
        while self.service.streams.is_crowded() && !self.handoff.is_stopped() {
            // This thread is the reader's own: no stream is on it.
            std::thread::park_timeout(CROWDED_INTERVAL);
        }
        true
    }
}
