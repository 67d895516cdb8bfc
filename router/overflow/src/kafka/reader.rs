//! Reading lanes: a few consumers, each on one lane at a time, which fetch ahead of their caller. None of them commits.

use super::bundle;
use super::health::Refusal;
use super::topic;
use super::{Quiet, Shared};
use crate::{Batch, Group, Most, ReadError, Record, Span};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Message, TopicPartitionList};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// One consumer, and where it is.
pub(super) struct Reader {
    consumer: BaseConsumer<Quiet>,
    /// The lane that is assigned, and the position of the record that comes next.
    at: Option<(u16, u64)>,
    /// What is left of the message that was fetched last.
    ahead: VecDeque<(u64, Bytes)>,
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
pub(super) fn read(shared: &Shared, lane: u16, from: u64, most: Most) -> Result<Batch, ReadError> {
    let lanes = shared.config.lanes;
    if lane >= lanes {
        return Err(ReadError::NoSuchLane { lane, lanes });
    }
    let Span { first, next } = shared.lanes.span(lane);
    match shared.health.check() {
        Err(Refusal::Closed) => return Err(ReadError::Closed),
        Err(Refusal::Lost(why)) if from < next => return Err(ReadError::Gone { first: next, why }),
        Err(Refusal::Unavailable(why)) => return Err(ReadError::Unavailable(why)),
        Err(Refusal::Lost(_)) | Ok(()) => {}
    }
    // What is consumed is not read again.
    let from = from.max(first);
    if from >= next {
        return Ok(Batch { next: from, ..Batch::default() });
    }
    let mut reader = shared.readers.take(shared, lane)?;
    let found = reader.read(shared, lane, from, next, most);
    shared.readers.give_back(found.is_ok().then_some(reader));
    found.map_err(|stop| explain(shared, lane, from, stop))
}

impl Readers {
    /// The one that is on this lane, else a new one, else the one that was used longest ago.
    fn take(&self, shared: &Shared, lane: u16) -> Result<Reader, ReadError> {
        let until = Instant::now() + shared.config.timeout;
        let mut pool = self.pool.lock();
        while pool.busy >= READERS_MAX {
            if self.back.wait_until(&mut pool, until).timed_out() {
                return Err(ReadError::Unavailable(format!("{READERS_MAX} lanes are being read already")));
            }
        }
        pool.busy += 1;
        let on_it = pool.idle.iter().position(|reader| reader.at.is_some_and(|(at, _)| at == lane));
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
    Record(u64, Bytes),
    Damaged,
    /// The end, as the broker sees it.
    End,
    Nothing,
}

impl Reader {
    fn read(&mut self, shared: &Shared, lane: u16, from: u64, next: u64, most: Most) -> Result<Batch, Stop> {
        if self.at != Some((lane, from)) {
            self.go_to(shared, lane, from).map_err(Stop::Error)?;
        }
        let mut batch = Batch { next: from, ..Batch::default() };
        let until = Instant::now() + shared.config.timeout;
        let mut bytes = 0;
        while batch.next < next && batch.records.len() < most.records.max(1) {
            let patience = if batch.records.is_empty() { until } else { until.min(Instant::now() + FILL) };
            match self.found(shared, patience)? {
                Found::Record(position, _) if position < batch.next => {}
                Found::Record(position, body) => {
                    bytes += body.len();
                    if bytes > most.bytes && !batch.records.is_empty() {
                        self.ahead.push_front((position, body));
                        break;
                    }
                    batch.damaged += bundle::messages(batch.next, position);
                    batch.next = position + 1;
                    batch.records.push(Record { position, group: Group(0), body });
                }
                Found::Damaged => self.damaged = true,
                Found::End if self.damaged => {
                    batch.damaged += bundle::messages(batch.next, next);
                    batch.next = next;
                }
                Found::End => {}
                Found::Nothing if batch.records.is_empty() => return Err(Stop::TooLate),
                Found::Nothing => break,
            }
        }
        self.finish(shared, lane, &batch);
        Ok(batch)
    }

    fn finish(&mut self, shared: &Shared, lane: u16, batch: &Batch) {
        (self.at, self.used) = (Some((lane, batch.next)), Instant::now());
        self.damaged &= batch.damaged == 0;
        shared.lanes.damaged.fetch_add(batch.damaged, Ordering::Relaxed);
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
            if let Some((position, body)) = self.ahead.pop_front() {
                return Ok(Found::Record(position, body));
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

fn records(message: &impl Message) -> Option<VecDeque<(u64, Bytes)>> {
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
