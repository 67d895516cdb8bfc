//! The thread that reads back what overflowed: it drives each lane's [`Backlog`], which decides.

use super::handoff::{Handoff, Reads};
use super::record::Records;
use crate::driver::Driver;
use crate::grpc::Service;
use engine::backlog::{Backlog, Handover, Step};
use engine::effect::Want;
use engine::hub::Pass;
use engine::id::ActionKey;
use engine::input::Input;
use engine::lanes::Lane;
use engine::tally::Count;
use overflow::{Batch, Marks, Most, Overflow, ReadError, Record};
use std::time::Duration;

/// How often a lane is looked at again that waits for its store, or for something of which nobody tells.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What is read or handed in at once, about 0.1 ms of a core; then whoever waits for that core comes first. The system would let a whole
/// batch of 4,096 run for 1 ms and more, and where cores are few that is what activations of other actions waited for.
const PIECE: Most = Most { records: 256, bytes: 64 << 10 };

/// Reads back until the handoff is stopped.
pub(crate) fn run(service: &Service, handoff: &Handoff, store: &dyn Overflow, records: Records) {
    let mut reader = Reader { service, store, records, backlogs: Vec::new(), pass: service.pass() };
    let mut timeout = Duration::ZERO;
    loop {
        let reads = handoff.take_reads(timeout);
        if reads.stopped {
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
    store: &'a dyn Overflow,
    records: Records,
    /// One for each lane; none until it is known what the store holds.
    backlogs: Vec<Backlog>,
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
            self.backlogs.push(Backlog::new(span.first, span.next));
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
        for (Lane(lane), end) in reads.extents {
            if let Some(backlog) = self.backlogs.get_mut(usize::from(lane)) {
                backlog.extend(end);
            }
        }
        for refill in reads.refills {
            if let Some(backlog) = self.backlogs.get_mut(usize::from(refill.lane.0)) {
                backlog.want(&refill);
            }
        }
    }

    /// Steps lane by lane until there is nothing to do in any.
    fn work(&mut self) {
        let mut busy: Vec<usize> = (0..self.backlogs.len()).collect();
        while !busy.is_empty() {
            self.service.begin(&mut self.pass);
            busy.retain(|lane| self.step(*lane));
            self.service.hub.settle(&mut self.pass);
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
            Step::Read { from, most } => self.read(lane, from, most),
            Step::Recall { key, end } => self.recall(lane, &key, end),
            Step::Hand(handover) => self.hand(lane, handover),
        }
    }

    /// Reads so much, in pieces. False: nothing came of it.
    fn read(&mut self, lane: u16, from: u64, most: Want) -> bool {
        let (mut records, mut bytes) = (most.records as usize, most.bytes as usize);
        let mut next = from;
        while records > 0 && bytes > 0 {
            let piece = Most { records: records.min(PIECE.records), bytes: bytes.min(PIECE.bytes) };
            let Some(read) = self.read_piece(lane, &mut next, piece) else { break };
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
    fn read_piece(&mut self, lane: u16, next: &mut u64, most: Most) -> Option<Most> {
        match self.store.read(lane, *next, None, most) {
            Ok(batch) => {
                let bytes = batch.records.iter().map(|record| record.body.len()).sum();
                let read = Most { records: batch.records.len(), bytes };
                *next = batch.next;
                self.fetched(lane, batch);
                Some(read)
            }
            Err(ReadError::Gone { first, why }) => {
                tracing::error!(lane, first, why, "records of overflow are gone");
                self.pass.tally.add(Count::SpillDamaged, 1);
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

    fn fetched(&mut self, lane: u16, batch: Batch) {
        let (mut fetched, mut damaged) = (Vec::with_capacity(batch.records.len()), batch.damaged);
        for Record { position, body, .. } in batch.records {
            match self.records.read(position, body) {
                Ok(record) => fetched.push(record),
                Err(_) => damaged += 1,
            }
        }
        if damaged > 0 {
            tracing::error!(lane, damaged, "damaged records of overflow are passed over");
            self.pass.tally.add(Count::SpillDamaged, damaged);
        }
        self.backlogs[usize::from(lane)].fetched(fetched, batch.next);
    }

    fn recall(&mut self, lane: u16, key: &ActionKey, end: u64) -> bool {
        match self.service.hub.recall(key, Lane(lane), end, &mut self.pass) {
            Ok((action, recalled)) => {
                self.backlogs[usize::from(lane)].offered(action, recalled);
                true
            }
            Err(rejection) => {
                tracing::warn!(lane, %key, reason = rejection.reason.label(), "what was left in overflow has to wait");
                false
            }
        }
    }

    /// Marks first, durably, and hands in then: what is marked and not handed in when the router dies is lost, never run twice.
    fn hand(&mut self, lane: u16, handover: Handover) -> bool {
        if !handover.is_news_only() {
            let handed = handover.activations() as u64;
            if let Err(error) = self.store.consume(lane, &Marks::up_to(handover.before), handed) {
                tracing::warn!(lane, %error, "a lane of overflow cannot be marked as read for now");
                self.backlogs[usize::from(lane)].put_off(handover);
                return false;
            }
        }
        self.pass.tally.add(Count::RecoveredExpired, handover.expired);
        for (action, refilled) in handover.refilled {
            for piece in refilled.pieces(PIECE.records) {
                self.service.hub.enter(&action, &mut vec![Input::Refilled(Box::new(piece))], &mut self.pass);
                std::thread::yield_now();
            }
        }
        true
    }
}
