//! Appends: what is handed to the producer, and what its reports make of an append as a whole.

use super::Shared;
use super::health::Refusal;
use super::reports::{self, Call, Reports};
use crate::{AppendError, Entry};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use std::time::Duration;

pub(super) type Producer = ThreadedProducer<Reports>;

type Outcome = Result<u64, AppendError>;

/// Sends all entries, waits for all reports.
pub(super) fn append(shared: &Shared, entries: &[Entry]) -> Vec<Outcome> {
    if entries.is_empty() {
        return Vec::new();
    }
    let producer = match producer(shared) {
        Ok(producer) => producer,
        Err(error) => return vec![Err(error); entries.len()],
    };
    let before: Vec<u64> = entries.iter().map(|entry| shared.lanes.span(entry.lane).next).collect();
    let reports = producer.client().context();
    let call = reports.begin(entries.len());
    send(shared, &producer, &call, entries);
    let results = reports.end(&call, shared.config.timeout + GRACE);
    settle(shared, entries, &before, results)
}

fn producer(shared: &Shared) -> Result<std::sync::Arc<Producer>, AppendError> {
    shared.health.check().map_err(|refusal| match refusal {
        Refusal::Closed => AppendError::Closed,
        Refusal::Unavailable(why) | Refusal::Lost(why) => AppendError::Unavailable(why),
    })?;
    let usage = shared.lanes.usage().bytes;
    if usage >= shared.config.store_bytes_max {
        return Err(AppendError::Full(format!("{usage} B of {} B", shared.config.store_bytes_max)));
    }
    shared.producer.read().clone().ok_or(AppendError::Closed)
}

/// What cannot be sent ends its lane for this append: nothing may pass it.
fn send(shared: &Shared, producer: &Producer, call: &Call, entries: &[Entry]) {
    let mut stopped = vec![false; usize::from(shared.config.lanes)];
    for (index, entry) in entries.iter().enumerate() {
        let lane = usize::from(entry.lane);
        let sent = match stopped.get(lane) {
            Some(true) => Err(behind()),
            _ => check(shared, entry).and_then(|()| send_one(shared, producer, call.tag(index), entry)),
        };
        if let Err(error) = sent {
            call.settle(index, Err(error));
            if let Some(stopped) = stopped.get_mut(lane) {
                *stopped = true;
            }
        }
    }
}

fn check(shared: &Shared, entry: &Entry) -> Result<(), AppendError> {
    let (lanes, limit) = (shared.config.lanes, shared.record_bytes_max());
    if entry.lane >= lanes {
        return Err(AppendError::NoSuchLane { lane: entry.lane, lanes });
    }
    if entry.body.len() > limit {
        return Err(AppendError::TooLarge { bytes: entry.body.len(), limit });
    }
    Ok(())
}

fn send_one(shared: &Shared, producer: &Producer, tag: usize, entry: &Entry) -> Result<(), AppendError> {
    let record: BaseRecord<'_, (), [u8], usize> =
        BaseRecord::with_opaque_to(&shared.config.topic, tag).partition(i32::from(entry.lane)).payload(&entry.body);
    producer.send(record).map_err(|(error, _)| reports::refused(&error))
}

/// Takes note of what is durable. In a lane, nothing behind a failure counts as stored, though it may be.
fn settle(shared: &Shared, entries: &[Entry], before: &[u64], results: Vec<Outcome>) -> Vec<Outcome> {
    let mut stopped = vec![false; usize::from(shared.config.lanes)];
    let settle_one = |((result, entry), before): ((Outcome, &Entry), &u64)| {
        match &result {
            Ok(position) => stored(shared, entry, *position, *before),
            Err(AppendError::Unknown(why)) => shared.health.suspect(why),
            Err(_) => {}
        }
        let Some(stopped) = stopped.get_mut(usize::from(entry.lane)) else { return result };
        let behind = *stopped && result.is_ok();
        *stopped |= result.is_err();
        if behind { Err(AppendError::Unknown(BEHIND.to_owned())) } else { result }
    };
    results.into_iter().zip(entries).zip(before).map(settle_one).collect()
}

/// A position that was there before means that the log was cut back, or that this is another topic of the same name.
fn stored(shared: &Shared, entry: &Entry, position: u64, before: u64) {
    if position < before {
        let (lane, topic) = (entry.lane, &shared.config.topic);
        let why =
            format!("topic {topic} was recreated or cut back: lane {lane} went to {before} and is at {position} now");
        shared.health.lose(&why);
    } else {
        shared.lanes.appended(entry.lane, position, entry.body.len());
    }
}

fn behind() -> AppendError {
    AppendError::Unavailable(BEHIND.to_owned())
}

const BEHIND: &str = "an entry before it in its lane was not stored";
/// librdkafka looks for records that are overdue once a second.
const GRACE: Duration = Duration::from_secs(3);
