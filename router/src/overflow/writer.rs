//! The thread that writes what overflows: all that waits, in one append, and tells the actions what came of it.

use super::handoff::Handoff;
use super::note;
use super::record::Records;
use crate::clock::Reading;
use crate::driver::Driver;
use crate::grpc::Service;
use crate::parts::Part;
use engine::effect::Spill;
use engine::extents::Extents;
use engine::hub::{Action, Pass};
use engine::input::{Input, Unstored};
use overflow::{AppendError, Entry, Group, Overflow};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records in one append: enough that a sync is shared by many, few enough that the first does not wait long for the last.
const RECORDS_AT_ONCE: usize = 4096;
/// From one append to the next, unless much waits, in times of what the last one took: the store, and a broker on the same cores, are at
/// work for a fifth of the time. What overflows waits for containers anyway, and the cores are wanted by others. Those that come in
/// between share a sync.
const REST_TIMES: u32 = 4;
/// The shortest and the longest rest: what comes meanwhile is acknowledged that much later.
const REST_MIN: Duration = Duration::from_millis(5);
const REST_MAX: Duration = Duration::from_millis(50);
/// How long a store that could not be written is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// Writes until the handoff is stopped and empty. `part` is this thread's.
pub(crate) fn run(service: &Service, handoff: &Handoff, store: &dyn Overflow, records: &Records, part: &Part) {
    let mut pass = service.pass();
    // Only what was closed here is opened here: at the start the reader does that, once it knows what an earlier life left.
    let mut left_alone = false;
    let mut rest = Instant::now();
    let mut extents = Extents::default();
    while let Some(spills) = handoff.take_spills(RECORDS_AT_ONCE, rest, LEFT_ALONE) {
        if part.is_told_to_end() {
            return;
        }
        if spills.is_empty() {
            left_alone = left_alone && !try_again(service, store);
            continue;
        }
        let begun = Instant::now();
        let at = service.clock.read();
        let entries: Vec<Entry> = spills.iter().map(|spill| entry(spill, records, &at)).collect();
        let results = store.append(&entries);
        drop(entries);
        rest = Instant::now() + (begun.elapsed() * REST_TIMES).clamp(REST_MIN, REST_MAX);
        let failure = results.iter().find_map(|result| result.as_ref().err().filter(|error| is_of_store(error)));
        left_alone |= look_at_health(service, failure);
        let results: Vec<Result<u64, Unstored>> =
            results.into_iter().map(|result| result.map_err(|error| unstored(&error))).collect();
        for (spill, result) in spills.iter().zip(&results) {
            extents.note(spill.lane, spill.action.key(), *result);
        }
        service.begin(&mut pass);
        tell(service, spills, results, &mut pass);
        service.hub.settle(&mut pass);
        // Only now, that its actions know of it, may it be read.
        handoff.extend(extents.take());
    }
}

fn entry(spill: &Spill, records: &Records, at: &Reading) -> Entry {
    let group = Group(spill.action.key().group().0);
    Entry { lane: spill.lane.0, group, note: note::write(&spill.record), body: records.write(spill, at) }
}

/// Tells the actions, neighbours of one together.
fn tell(service: &Service, spills: Vec<Spill>, results: Vec<Result<u64, Unstored>>, pass: &mut Pass<Driver>) {
    let mut inputs = Vec::new();
    let mut current: Option<Arc<Action>> = None;
    for (Spill { action, slot, .. }, result) in spills.into_iter().zip(results) {
        if let Some(before) = current.take_if(|current| !Arc::ptr_eq(current, &action)) {
            service.hub.enter(&before, &mut inputs, pass);
        }
        inputs.push(Input::Stored(slot, result));
        current = Some(action);
    }
    if let Some(last) = current {
        service.hub.enter(&last, &mut inputs, pass);
    }
}

/// Opens lanes that were left alone: what overflows next is the probe. False: the store is not ready.
fn try_again(service: &Service, store: &dyn Overflow) -> bool {
    let lanes = service.hub.lanes().filter(|_| store.ready());
    lanes.inspect(|lanes| lanes.set_open(true)).is_some()
}

/// Closes the lanes for a while after a failure of the store. True if it did.
fn look_at_health(service: &Service, failure: Option<&AppendError>) -> bool {
    let Some((lanes, error)) = service.hub.lanes().zip(failure) else { return false };
    tracing::warn!(%error, "overflow cannot be written; for a while what does not fit in memory is refused");
    lanes.set_open(false);
    true
}

/// Whether it speaks of the store, not of one record.
fn is_of_store(error: &AppendError) -> bool {
    !matches!(error, AppendError::TooLarge { .. } | AppendError::NoSuchLane { .. })
}

fn unstored(error: &AppendError) -> Unstored {
    match error {
        AppendError::TooLarge { limit, .. } => Unstored::TooLarge(*limit as u64),
        AppendError::Unknown(_) => Unstored::Unknown,
        AppendError::Closed | AppendError::NoSuchLane { .. } | AppendError::Full(_) | AppendError::Unavailable(_) => {
            Unstored::Refused
        }
    }
}
