//! Reading lanes: a few consumers, each on one lane at a time, which fetch ahead of their caller. None of them commits.

use super::bundle;
use super::health::Refusal;
use super::topic;
use super::{Quiet, Shared};
use crate::{Batch, Group, Most, ReadError, Record};
use parking_lot::{Condvar, Mutex};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Message, TopicPartitionList};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

/// One consumer, and where it is.
pub(super) struct Reader {
    consumer: BaseConsumer<Quiet>,
    /// The lane that is assigned, and the position of the record that comes next.
    at: Option<(u16, u64)>,
    /// What is left of the message that was fetched last.
    ahead: VecDeque<Record>,
    /// Messages were damaged; what follows tells how many they were. Each counts as one, for how many records it had nobody knows.
    damaged: bool,
    used: Instant,
}

/// All of them: as many as are in use, and those that wait, the one used last at the end.
#[derive(Default)]
pub(super) struct Readers {
    pool: Mutex<Pool>,
    back: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Reader>,
    busy: usize,
}

/// Reads what is durable at or above `from`.
pub(super) fn read(shared: &Shared, lane: u16, from: u64, only: Option<Group>, most: Most) -> Result<Batch, ReadError> {
    let lanes = shared.config.lanes;
    if lane >= lanes {
        return Err(ReadError::NoSuchLane { lane, lanes });
    }
    let next = shared.lanes.span(lane).next;
    match shared.health.check() {
        Err(Refusal::Closed) => return Err(ReadError::Closed),
        Err(Refusal::Lost(why)) if from < next => return Err(ReadError::Gone { first: next, why }),
        Err(Refusal::Unavailable(why)) => return Err(ReadError::Unavailable(why)),
        Err(Refusal::Lost(_)) | Ok(()) => {}
    }
    let consumed = shared.lanes.lane(lane).map(|lane| lane.consumed.clone()).unwrap_or_default();
    // What is consumed is not read again.
    let from = from.max(only.map_or(consumed.before, |group| consumed.of(group)));
    if from >= next {
        return Ok(Batch { next: from, ..Batch::default() });
    }
    let mut reader = shared.readers.take(shared, lane, from)?;
    let wants = |record: &Record| {
        only.is_none_or(|only| only == record.group) && !consumed.covers(record.group, record.position)
    };
    let found = reader.read(shared, lane, from..next, most, wants);
    shared.readers.give_back(found.is_ok().then_some(reader));
    found.map_err(|stop| explain(shared, lane, from, stop))
}

impl Readers {
    /// The one that is at this position, else one that is on this lane, else a new one, else the one that was used longest ago.
    fn take(&self, shared: &Shared, lane: u16, from: u64) -> Result<Reader, ReadError> {
        let until = Instant::now() + shared.config.timeout;
        let mut pool = self.pool.lock();
        while pool.busy >= READERS_MAX {
            if self.back.wait_until(&mut pool, until).timed_out() {
                return Err(ReadError::Unavailable(format!("{READERS_MAX} lanes are being read already")));
            }
        }
        pool.busy += 1;
        let at_it = pool.idle.iter().position(|reader| reader.at == Some((lane, from)));
        let on_it = || pool.idle.iter().position(|reader| reader.at.is_some_and(|(at, _)| at == lane));
        let on_it = at_it.or_else(on_it);
        let full = pool.idle.len() + pool.busy > READERS_MAX;
        let found = on_it.or((full && !pool.idle.is_empty()).then_some(0)).map(|index| pool.idle.remove(index));
        drop(pool);
        found.map_or_else(|| self.open(shared), Ok)
    }

    fn open(&self, shared: &Shared) -> Result<Reader, ReadError> {
        match shared.config.consumer().create_with_context(Quiet) {
            Ok(consumer) => {
                Ok(Reader { consumer, at: None, ahead: VecDeque::new(), damaged: false, used: Instant::now() })
            }
            Err(error) => {
                self.give_back(None);
                Err(ReadError::Unavailable(error.to_string()))
            }
        }
    }

    fn give_back(&self, reader: Option<Reader>) {
        let mut pool = self.pool.lock();
        pool.busy -= 1;
        pool.idle.extend(reader);
        drop(pool);
        self.back.notify_one();
    }

    /// Ends those that were not used for so long, with what they fetched ahead.
    pub(super) fn clear(&self, idle: Duration) {
        let is_idle = |reader: &mut Reader| reader.used.elapsed() >= idle;
        let ended: Vec<Reader> = self.pool.lock().idle.extract_if(.., is_idle).collect();
        drop(ended);
    }
}

/// Why a read ended without a batch.
enum Stop {
    OutOfRange,
    Error(KafkaError),
    TooLate,
}

/// What the consumer came up with.
enum Found {
    Record(Record),
    Damaged,
    /// The end, as the broker sees it.
    End,
    Nothing,
}

impl Reader {
    fn read(
        &mut self,
        shared: &Shared,
        lane: u16,
        Range { start: from, end: next }: Range<u64>,
        most: Most,
        wants: impl Fn(&Record) -> bool,
    ) -> Result<Batch, Stop> {
        if self.at != Some((lane, from)) {
            self.go_to(shared, lane, from).map_err(Stop::Error)?;
        }
        let mut batch = Batch { next: from, ..Batch::default() };
        let until = Instant::now() + shared.config.timeout;
        let (mut bytes, mut passed) = (0, 0);
        while batch.next < next && batch.records.len() < most.records.max(1) && passed < PASS_BYTES_MAX {
            let patience = if batch.records.is_empty() { until } else { until.min(Instant::now() + FILL) };
            match self.found(shared, patience)? {
                Found::Record(record) if record.position < batch.next => {}
                Found::Record(record) if !wants(&record) => {
                    passed += record.body.len();
                    self.pass_to(shared, lane, record.position, &mut batch);
                    batch.next = record.position + 1;
                }
                Found::Record(record) => {
                    bytes += record.body.len();
                    if bytes > most.bytes && !batch.records.is_empty() {
                        self.ahead.push_front(record);
                        break;
                    }
                    self.pass_to(shared, lane, record.position, &mut batch);
                    batch.next = record.position + 1;
                    batch.records.push(record);
                }
                Found::Damaged => self.damaged = true,
                Found::End if self.damaged => self.pass_to(shared, lane, next, &mut batch),
                Found::End => {}
                Found::Nothing if batch.next == from => return Err(Stop::TooLate),
                Found::Nothing => break,
            }
        }
        (self.at, self.used) = (Some((lane, batch.next)), Instant::now());
        Ok(batch)
    }

    /// Nothing that can be read lies before `to`.
    fn pass_to(&mut self, shared: &Shared, lane: u16, to: u64, batch: &mut Batch) {
        self.damaged = false;
        batch.damaged += shared.lanes.count_damaged(lane, batch.next, to);
        batch.next = to;
    }

    fn go_to(&mut self, shared: &Shared, lane: u16, from: u64) -> KafkaResult<()> {
        (self.at, self.damaged) = (None, false);
        self.ahead.clear();
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&shared.config.topic, i32::from(lane), topic::offset(bundle::offset(from)))?;
        self.consumer.assign(&list)?;
        self.at = Some((lane, from));
        Ok(())
    }

    /// The next thing to know of, by `until`. What the client says of brokers and connections is passed over: it goes on by
    /// itself, or the time is over.
    fn found(&mut self, shared: &Shared, until: Instant) -> Result<Found, Stop> {
        loop {
            if let Some(record) = self.ahead.pop_front() {
                return Ok(Found::Record(record));
            }
            let left = until.saturating_duration_since(Instant::now());
            let Some(event) = self.consumer.poll(left.min(LOOK)) else {
                if left.is_zero() || shared.health.check().is_err() {
                    return Ok(Found::Nothing);
                }
                continue;
            };
            match event {
                Ok(message) => match records(&message) {
                    Some(records) => self.ahead = records,
                    None => return Ok(Found::Damaged),
                },
                Err(KafkaError::PartitionEOF(_)) => return Ok(Found::End),
                Err(error) => match error.rdkafka_error_code() {
                    Some(Code::BadMessage | Code::InvalidMessage) => return Ok(Found::Damaged),
                    Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => return Err(Stop::OutOfRange),
                    Some(code) if PASSING.contains(&code) => {}
                    _ => return Err(Stop::Error(error)),
                },
            }
        }
    }
}

fn records(message: &impl Message) -> Option<VecDeque<Record>> {
    bundle::unpack(u64::try_from(message.offset()).ok()?, message.payload()?)
}

/// Tells records that are gone from a broker that is.
fn explain(shared: &Shared, lane: u16, from: u64, stop: Stop) -> ReadError {
    let (name, from) = (&shared.config.topic, bundle::offset(from));
    let why = match stop {
        Stop::OutOfRange => match topic::edges_of(&shared.marks, &shared.config, lane, shared.config.timeout) {
            Ok((low, high)) if low > from && low <= high => {
                let why = format!("topic {name} begins at {low} in partition {lane}, and nobody consumed to there");
                return ReadError::Gone { first: bundle::start(low), why };
            }
            Ok((low, high)) => format!("partition {lane} of {name} has {low} to {high}, and {from} is out of range"),
            Err(error) => error.to_string(),
        },
        Stop::Error(error) => error.to_string(),
        Stop::TooLate => format!("nothing came of partition {lane} of {name} in time"),
    };
    shared.health.suspect(&why);
    ReadError::Unavailable(why)
}

/// Consumers at most, so lanes that can be read at the same time. Each is a few threads and what it fetches ahead.
const READERS_MAX: usize = 8;
/// A read passes over so many bytes of records that are not asked for; then it says where it is.
const PASS_BYTES_MAX: usize = 16 << 20;
/// How long a batch that has something waits for more that is known to be there.
const FILL: Duration = Duration::from_millis(20);
/// How often a waiting read looks whether the store still stands.
const LOOK: Duration = Duration::from_millis(100);
/// What a client reports while it goes on by itself.
const PASSING: [Code; 9] = [
    Code::AllBrokersDown,
    Code::BrokerTransportFailure,
    Code::Resolve,
    Code::OperationTimedOut,
    Code::TimedOutQueue,
    Code::RequestTimedOut,
    Code::NotLeaderForPartition,
    Code::LeaderNotAvailable,
    Code::WaitingForCoordinator,
];
