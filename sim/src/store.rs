//! A store of what overflows, in virtual time: lanes of records behind the promise of the crate `overflow`, kept as a disk log or as
//! Kafka would, and all that can become of them. It outlives the router. Whoever calls says when something has taken its time;
//! nothing here waits.

use crate::agenda::Instant;
use crate::dice::Dice;
use engine::effect::Spilled;
use engine::id::Group;
use engine::mutant::{Mutant, is};
use engine::stored_time::Stamp;
use std::collections::{BTreeMap, VecDeque};

/// The store, over all lives of the router.
#[derive(Debug, Default)]
pub struct Store {
    kafka: bool,
    record_bytes_max: usize,
    /// Actions that a mark may name.
    named_max: usize,
    lanes: Vec<Log>,
    /// Until when every call takes many times as long, fails, finds no room, or its sync fails.
    pub slow_until: Instant,
    /// Nothing can be read or written.
    pub down_until: Instant,
    /// Nothing can be appended.
    pub full_until: Instant,
    /// Nobody knows whether what is appended is durable.
    pub unsynced_until: Instant,
}

/// What is kept of an activation: to the store it is opaque.
#[derive(Debug, Clone)]
pub struct Body {
    /// The life of the router that wrote it.
    pub life: u32,
    /// The action, by number.
    pub action: u16,
    /// The same, as the store knows it.
    pub group: Group,
    /// The time it had left, and what the clocks showed, when it was written.
    pub stamp: Stamp,
    /// The activation.
    pub record: Spilled,
}

/// Why something was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It is longer than this.
    TooLarge(usize),
    /// No room.
    Full,
    /// It cannot be written now.
    Unavailable,
    /// It may have been.
    Unknown,
}

/// What a read found.
#[derive(Debug, Default)]
pub struct Batch {
    /// By position.
    pub records: Vec<(u64, Body)>,
    /// Damaged ones of which it is known whose they were.
    pub lost: Vec<(u64, Body)>,
    /// Where the next read begins.
    pub next: u64,
}

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Not now.
    Unavailable,
    /// What lies below is gone.
    Gone(u64),
}

#[derive(Debug, Default)]
struct Log {
    kafka: bool,
    records: VecDeque<Record>,
    next: u64,
    /// Everything below is consumed, durably.
    mark: u64,
    /// Of these actions, everything below these positions.
    named: BTreeMap<Group, u64>,
    /// A mark that is on its way.
    marking: Option<(u64, Vec<(Group, u64)>)>,
    /// Positions below are gone, consumed or not.
    gone: u64,
}

#[derive(Debug)]
struct Record {
    position: u64,
    state: State,
    /// It is known whose it is, should it be damaged: as long as the router lives that wrote it.
    noted: bool,
    body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not durable yet.
    Written,
    Durable,
    Damaged,
}

/// How many records lie in a segment: what is consumed is given back by whole ones.
const SEGMENT: u64 = 16;

/// A lane, its mark for all actions, and those of some.
type Durable = (u16, u64, Vec<(Group, u64)>);

impl Store {
    /// Empty.
    pub fn new(lanes: u16, kafka: bool, record_bytes_max: usize, named_max: usize) -> Self {
        let lanes = (0..lanes).map(|_| Log { kafka, ..Log::default() }).collect();
        Self { kafka, record_bytes_max, named_max, lanes, ..Self::default() }
    }

    /// Whether nothing is wrong with it.
    pub fn is_healthy(&self, now: Instant) -> bool {
        now >= self.slow_until.max(self.down_until).max(self.full_until).max(self.unsynced_until)
    }

    /// How many actions a mark may name.
    pub fn named_max(&self) -> usize {
        self.named_max
    }

    /// How many lanes.
    pub fn lanes(&self) -> u16 {
        u16::try_from(self.lanes.len()).unwrap_or(u16::MAX)
    }

    /// Puts entries behind one another. They are not durable before [`synced`](Self::synced).
    pub fn append(
        &mut self,
        now: Instant,
        entries: impl Iterator<Item = (u16, Body)>,
        dice: &mut Dice,
    ) -> Vec<Result<u64, Failure>> {
        let closed = match () {
            () if now < self.down_until => Some(Failure::Unavailable),
            () if now < self.full_until => Some(Failure::Full),
            () => None,
        };
        // The first failure in a lane fails all that come behind it there.
        let mut failed = vec![closed; self.lanes.len()];
        let results = entries.map(|(lane, body)| {
            let failure = &mut failed[usize::from(lane)];
            if let Some(failure) = failure {
                return Err(*failure);
            }
            if body.record.payload.len() > self.record_bytes_max {
                *failure = Some(Failure::Unavailable);
                return Err(Failure::TooLarge(self.record_bytes_max));
            }
            Ok(self.lanes[usize::from(lane)].push(body, dice))
        });
        results.collect()
    }

    /// What was appended becomes durable, unless the sync fails: then for each lane nobody knows.
    pub fn synced(&mut self, now: Instant, appended: &mut [(u16, Result<u64, Failure>)], dice: &mut Dice) {
        let fails = now < self.unsynced_until;
        let (kafka, mut again) = (self.kafka, Vec::new());
        for (at, log) in (0..).zip(&mut self.lanes) {
            if log.written().next().is_none() {
                continue;
            }
            if fails && dice.one_in(2) {
                log.lose_some(kafka, dice);
                for (_, result) in appended.iter_mut().filter(|(lane, result)| *lane == at && result.is_ok()) {
                    *result = Err(Failure::Unknown);
                }
                continue;
            }
            for record in log.written() {
                record.state = State::Durable;
                if kafka && is(Mutant::KafkaRepeats) && dice.one_in(8) {
                    again.push((at, record.body.clone()));
                }
            }
        }
        for (lane, body) in again {
            let log = &mut self.lanes[usize::from(lane)];
            log.push(body, dice);
            log.written().for_each(|record| record.state = State::Durable);
        }
    }

    /// Reads what is durable from there on.
    ///
    /// # Errors
    /// Nothing can be read, or what was asked for is gone.
    pub fn read(
        &mut self,
        now: Instant,
        lane: u16,
        from: u64,
        only: Option<Group>,
        most: (u32, u32),
    ) -> Result<Batch, Unread> {
        let log = &mut self.lanes[usize::from(lane)];
        if now < self.down_until {
            return Err(Unread::Unavailable);
        }
        if from < log.gone {
            return Err(Unread::Gone(log.gone));
        }
        Ok(log.read(from, only, most))
    }

    /// Begins to set a consume mark.
    pub fn begin_mark(&mut self, lane: u16, before: u64, named: Vec<(Group, u64)>) {
        self.lanes[usize::from(lane)].marking = Some((before, named));
    }

    /// The actions that a lane's mark names.
    pub fn named(&self, lane: u16) -> Vec<(Group, u64)> {
        self.lanes[usize::from(lane)].named.iter().map(|(group, to)| (*group, *to)).collect()
    }

    /// The consume mark is durable. False if it could not be set.
    pub fn marked(&mut self, now: Instant, lane: u16) -> bool {
        let log = &mut self.lanes[usize::from(lane)];
        let Some((before, named)) = log.marking.take() else { return false };
        if now < self.down_until {
            return false;
        }
        log.set_mark(before, &named);
        assert!(log.named.len() <= self.named_max, "{} actions are named", log.named.len());
        true
    }

    /// The router is gone. What was not durable may be there or not; returned are the marks that turned out to be durable.
    pub fn crash(&mut self, dice: &mut Dice) -> Vec<Durable> {
        let (kafka, mut marks) = (self.kafka, Vec::new());
        for (lane, log) in (0..).zip(&mut self.lanes) {
            log.lose_some(kafka, dice);
            log.records.iter_mut().for_each(|record| record.noted = false);
            if let Some((before, named)) = log.marking.take().filter(|_| dice.one_in(2)) {
                log.set_mark(before, &named);
                marks.push((lane, before, named));
            }
        }
        marks
    }

    /// What is durable and not consumed: from there to below there.
    pub fn span(&self, lane: u16) -> (u64, u64) {
        let log = &self.lanes[usize::from(lane)];
        let mark = if is(Mutant::MarkForgotten) { 0 } else { log.mark };
        let mut left = log.records.range(log.first(mark)..);
        let first = left.find(|record| record.state == State::Durable);
        first.map_or((log.next, log.next), |first| (first.position.min(log.next), log.next))
    }

    /// Damages some records, or lets the first of a lane go, as Kafka's retention may. Returned are those that are hit, and whether
    /// it is still known whose they were.
    pub fn damage(&mut self, dice: &mut Dice) -> Vec<(Spilled, bool)> {
        let lane = dice.index(self.lanes.len());
        let (kafka, log) = (self.kafka, &mut self.lanes[lane]);
        let first = log.first(log.mark);
        let count = log.records.len() - first;
        if count == 0 {
            return Vec::new();
        }
        let many = 1 + dice.index(count.min(5));
        let goes = kafka && dice.one_in(2);
        let from = if goes { first } else { first + dice.index(count - many + 1) };
        let mut hit = Vec::new();
        for record in log.records.range_mut(from..from + many).filter(|record| record.state == State::Durable) {
            record.state = State::Damaged;
            record.noted &= !goes && !dice.one_in(3);
            hit.push((record.body.record.clone(), record.noted));
            if goes {
                log.gone = log.gone.max(record.position + 1);
            }
        }
        if is(Mutant::SegmentDeleted) {
            let segment = |record: &Record| record.position / SEGMENT;
            let deleted = segment(&log.records[from]);
            log.records.retain(|record| segment(record) != deleted || record.state == State::Written);
        }
        hit
    }
}

impl Log {
    /// Positions ascend, with gaps.
    fn push(&mut self, body: Body, dice: &mut Dice) -> u64 {
        let position = self.next + if dice.one_in(8) { dice.between(1, 3) } else { 0 };
        self.next = position + 1;
        self.records.push_back(Record { position, state: State::Written, noted: !self.kafka, body });
        position
    }

    /// What was written and not synced: the first of it may be there, of a log whose pages go out in any order anything. Of what is
    /// torn nothing is read.
    fn lose_some(&mut self, kafka: bool, dice: &mut Dice) {
        let kept = dice.index(self.written().count() + 1);
        let any_order = !kafka && dice.one_in(3);
        for (at, record) in (0..).zip(self.written()) {
            let stays = if any_order { dice.one_in(2) } else { at < kept };
            record.state = if stays { State::Durable } else { State::Damaged };
        }
    }

    fn read(&self, from: u64, only: Option<Group>, (records, bytes): (u32, u32)) -> Batch {
        let mut batch = Batch { next: from, ..Batch::default() };
        let mut taken = 0;
        for record in self.records.range(self.first(from)..) {
            let is_asked_for = only.is_none_or(|only| record.body.group == only) && !self.is_consumed(record);
            let full = batch.records.len() + batch.lost.len() >= records as usize;
            match record.state {
                State::Written => return batch,
                _ if !is_asked_for => {}
                _ if full || taken >= bytes as usize && taken > 0 => return batch,
                State::Damaged if !is(Mutant::DamagedHandedIn) => {
                    if record.noted {
                        batch.lost.push((record.position, record.body.clone()));
                    }
                }
                _ => {
                    taken += record.body.record.payload.len();
                    batch.records.push((record.position, record.body.clone()));
                }
            }
            batch.next = record.position + 1;
        }
        batch.next = batch.next.max(self.next);
        batch
    }

    fn is_consumed(&self, record: &Record) -> bool {
        let own = self.named.get(&record.body.group).copied().unwrap_or(0);
        record.position < self.mark.max(own) && !is(Mutant::MarkForgotten)
    }

    fn set_mark(&mut self, before: u64, named: &[(Group, u64)]) {
        self.mark = self.mark.max(before);
        for (group, to) in named {
            let own = self.named.entry(*group).or_default();
            *own = (*own).max(*to);
        }
        self.named.retain(|_, own| *own > before);
        let trimmed = (self.mark / SEGMENT).saturating_sub(1) * SEGMENT;
        while self.records.front().is_some_and(|record| record.position < trimmed) {
            self.records.pop_front();
        }
    }

    /// Those that are not durable yet: the last ones.
    fn written(&mut self) -> impl Iterator<Item = &mut Record> {
        let first = self.records.partition_point(|record| record.state != State::Written);
        self.records.range_mut(first..)
    }

    /// Where those from a position on begin.
    fn first(&self, position: u64) -> usize {
        self.records.partition_point(|record| record.position < position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Machine;
    use bytes::Bytes;
    use engine::id::{ActivationId, StreamId};
    use engine::outcome::Reply;
    use engine::time::Timestamp;

    fn body() -> Body {
        let record = Spilled {
            id: ActivationId([7; 16]),
            controller: StreamId(0),
            reply: Reply::Outcome,
            attempt: 1,
            sequence: Some(0),
            accepted_at: Timestamp::ZERO,
            deadline: Timestamp::ZERO,
            payload: Bytes::from_static(b"payload"),
        };
        let stamp = Stamp { time_left_ms: 0, written: Machine::default().read(0, 0) };
        Body { life: 1, action: 0, group: Group(0), stamp, record }
    }

    fn store(kafka: bool) -> Store {
        Store::new(2, kafka, 100, 8)
    }

    fn append(store: &mut Store, many: usize, dice: &mut Dice) -> Vec<(u16, Result<u64, Failure>)> {
        let results = store.append(0, (0..many).map(|_| (1, body())), dice);
        results.into_iter().map(|result| (1, result)).collect()
    }

    #[test]
    fn what_is_synced_is_read_in_order_and_survives() {
        for kafka in [false, true] {
            let (mut store, mut dice) = (store(kafka), Dice::new(1));
            let mut appended = append(&mut store, 20, &mut dice);
            assert!(store.read(0, 1, 0, None, (9, 9)).unwrap().records.is_empty(), "not durable yet");
            store.synced(0, &mut appended, &mut dice);
            append(&mut store, 5, &mut dice);
            store.crash(&mut dice);
            let (first, next) = store.span(1);
            let batch = store.read(0, 1, first, None, (20, u32::MAX)).unwrap();
            let read: Vec<u64> = batch.records.iter().map(|(position, _)| *position).collect();
            let durable: Vec<u64> = appended.iter().filter_map(|(_, result)| result.ok()).collect();
            assert_eq!(read, durable);
            assert!(batch.next <= next);
        }
    }

    #[test]
    fn what_is_marked_is_not_in_the_span() {
        let (mut store, mut dice) = (store(false), Dice::new(2));
        let mut appended = append(&mut store, 40, &mut dice);
        store.synced(0, &mut appended, &mut dice);
        let last = appended[39].1.unwrap();
        store.begin_mark(1, last, vec![]);
        store.down_until = 5;
        assert!(!store.marked(4, 1), "it cannot be written");
        store.begin_mark(1, last, vec![]);
        assert!(store.marked(5, 1));
        assert_eq!(store.span(1), (last, last + 1));
    }

    #[test]
    fn a_lane_fails_behind_its_first_failure() {
        let (mut store, mut dice) = (store(false), Dice::new(3));
        store.record_bytes_max = 3;
        let results = append(&mut store, 2, &mut dice);
        assert_eq!(results[0].1, Err(Failure::TooLarge(3)));
        assert_eq!(results[1].1, Err(Failure::Unavailable));
    }
}
