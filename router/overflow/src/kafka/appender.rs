//! Appends: what is handed to the producer, and what its reports make of an append as a whole.

use super::Shared;
use super::bundle::{self, Bundle};
use super::health::Refusal;
use super::reports::{self, Call, Reports};
use crate::{AppendError, Entry};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use std::collections::HashSet;
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
    let mut outcomes = check(shared, entries);
    let good = entries.iter().enumerate().filter(|(index, _)| outcomes[*index].is_ok());
    let bundles = bundle::pack(good, shared.record_bytes_max());
    let before: Vec<u64> = bundles.iter().map(|bundle| shared.lanes.span(bundle.lane).next).collect();
    let reports = producer.client().context();
    let call = reports.begin(bundles.len());
    send(shared, &producer, &call, &bundles);
    let results = reports.end(&call, shared.config.timeout + GRACE);
    for (bundle, result) in bundles.iter().zip(settle(shared, &bundles, &before, results)) {
        match result {
            Ok(offset) => bundle.positions(offset).for_each(|(index, position)| outcomes[index] = Ok(position)),
            Err(error) => bundle.entries.iter().for_each(|index| outcomes[*index] = Err(error.clone())),
        }
    }
    outcomes
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

/// Which entries may be sent; the position is still to come. One that may not ends its lane for this append: nothing may pass it.
fn check(shared: &Shared, entries: &[Entry]) -> Vec<Outcome> {
    let mut stopped = HashSet::new();
    let check = |entry: &Entry| {
        let checked = if stopped.contains(&entry.lane) { Err(behind()) } else { check_one(shared, entry) };
        if let Err(AppendError::TooLarge { .. }) = checked {
            stopped.insert(entry.lane);
        }
        checked.map(|()| 0)
    };
    entries.iter().map(check).collect()
}

fn check_one(shared: &Shared, entry: &Entry) -> Result<(), AppendError> {
    let (lanes, limit) = (shared.config.lanes, shared.record_bytes_max());
    if entry.lane >= lanes {
        return Err(AppendError::NoSuchLane { lane: entry.lane, lanes });
    }
    if entry.body.len() > limit {
        return Err(AppendError::TooLarge { bytes: entry.body.len(), limit });
    }
    Ok(())
}

/// What cannot be sent ends its lane, too.
fn send(shared: &Shared, producer: &Producer, call: &Call, bundles: &[Bundle]) {
    let mut stopped = HashSet::new();
    for (index, bundle) in bundles.iter().enumerate() {
        let sent = match stopped.contains(&bundle.lane) {
            true => Err(behind()),
            false => send_one(shared, producer, call.tag(index), bundle),
        };
        if let Err(error) = sent {
            call.settle(index, Err(error));
            stopped.insert(bundle.lane);
        }
    }
}

fn send_one(shared: &Shared, producer: &Producer, tag: usize, bundle: &Bundle) -> Result<(), AppendError> {
    let record: BaseRecord<'_, (), [u8], usize> = BaseRecord::with_opaque_to(&shared.config.topic, tag)
        .partition(i32::from(bundle.lane))
        .payload(&bundle.message);
    producer.send(record).map_err(|(error, _)| reports::refused(&error))
}

/// Takes note of what is durable. In a lane, nothing behind a failure counts as stored, though it may be.
fn settle(shared: &Shared, bundles: &[Bundle], before: &[u64], results: Vec<Outcome>) -> Vec<Outcome> {
    let mut stopped = HashSet::new();
    let settle_one = |((result, bundle), before): ((Outcome, &Bundle), &u64)| {
        match &result {
            Ok(offset) => stored(shared, bundle, *offset, *before),
            Err(AppendError::Unknown(why)) => shared.health.suspect(why),
            Err(_) => {}
        }
        if result.is_err() {
            stopped.insert(bundle.lane);
        } else if stopped.contains(&bundle.lane) {
            return Err(AppendError::Unknown(BEHIND.to_owned()));
        }
        result
    };
    results.into_iter().zip(bundles).zip(before).map(settle_one).collect()
}

/// An offset that was there before means that the log was cut back, or that this is another topic of the same name.
fn stored(shared: &Shared, bundle: &Bundle, offset: u64, before: u64) {
    if bundle::start(offset) < before {
        let (lane, topic, before) = (bundle.lane, &shared.config.topic, bundle::offset(before));
        let why =
            format!("topic {topic} was recreated or cut back: lane {lane} went to {before} and is at {offset} now");
        shared.health.lose(&why);
    } else {
        shared.lanes.appended(bundle.lane, offset, bundle.message.len());
    }
}

fn behind() -> AppendError {
    AppendError::Unavailable(BEHIND.to_owned())
}

const BEHIND: &str = "an entry before it in its lane was not stored";
/// librdkafka looks for records that are overdue once a second.
const GRACE: Duration = Duration::from_secs(3);
