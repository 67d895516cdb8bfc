//! Overload and its end, in virtual time: a container that does well gets work at once when there is less of it again.

use bytes::Bytes;
use engine::container::{Registration, Room};
use engine::effect::{Effect, Entry, Perform};
use engine::hub::{Hub, Pass};
use engine::id::{ActionKey, ActivationId, NodeName, StreamId};
use engine::input::{Completion, Input, Push};
use engine::limits::Limits;
use engine::outcome::{Reply, RunStatus};
use engine::tally::Count;
use engine::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Default)]
struct Dispatched(Vec<ActivationId>);

impl Perform for Dispatched {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        self.0.extend(effects.drain(..).filter_map(|effect| match effect {
            Effect::Write(_, Entry::Dispatch(dispatch)) => Some(dispatch.id),
            _ => None,
        }));
    }
}

const MS: Duration = Duration::from_millis(1);
const WORK: Duration = Duration::from_millis(250);

fn push(number: u128, now: Timestamp, time_left: Duration) -> Input {
    Input::Push(Push {
        id: ActivationId(number.to_be_bytes()),
        controller: StreamId(1),
        reply: Reply::Outcome,
        attempt: 1,
        accepted_at: now,
        deadline: now + time_left,
        payload: Bytes::new(),
        accepted: false,
        refilled: false,
    })
}

/// Fifty a second with 400 ms each, for a container that does twelve: those that it gets are old. After 25 s the first of those that
/// come one by one again, with 20 s each, waits for a place and no longer.
#[test]
fn the_first_after_overload_is_served_within_a_second() {
    let hub = Hub::new(Limits::default(), 7, 1, Timestamp::ZERO);
    let (key, mut pass) = (ActionKey::new("tenant", "action", ""), Pass::new(Dispatched::default()));
    let (room, node) = (Arc::new(Room::new(usize::MAX)), NodeName::new("node"));
    let new =
        Registration { stream: StreamId(2), node, number: 1, epoch: 0, concurrency: 3, credits: 3, warm: true, room };
    let (action, container) = hub.register(&key, new, &mut pass).unwrap();
    let mut running: BTreeMap<(Timestamp, ActivationId), ()> = BTreeMap::new();
    let mut served_at = None;
    let end = Timestamp::ZERO + 25_000 * MS;
    let late = ActivationId(u128::MAX.to_be_bytes());
    for ms in 0..50_000_u32 {
        pass.now = Timestamp::ZERO + ms * MS;
        while hub.advance(64, &mut pass) {}
        while let Some((&(due, id), ())) = running.first_key_value()
            && due <= pass.now
        {
            running.pop_first();
            let (status, result) = (RunStatus::Succeeded, Bytes::new());
            let completion = Completion { id, status, result, run_us: 0, arrived_at: pass.now, credits: 1 };
            hub.enter(&action, &mut vec![Input::Complete(container, completion)], &mut pass);
        }
        if pass.now < end && ms.is_multiple_of(20) {
            hub.enter(&action, &mut vec![push(ms.into(), pass.now, 400 * MS)], &mut pass);
        }
        if pass.now == end {
            hub.enter(&action, &mut vec![push(u128::MAX, pass.now, 20_000 * MS)], &mut pass);
        }
        for id in pass.performer.0.drain(..) {
            running.insert((pass.now + WORK, id), ());
            if id == late {
                served_at = Some(pass.now);
            }
        }
        if served_at.is_some() {
            break;
        }
    }
    hub.settle(&mut pass);
    let timed_out = hub.totals().of(Count::TimedOut);
    assert!(timed_out > 100, "{timed_out} timed out: it was no overload");
    assert_eq!(hub.totals().of(Count::BreakerTimedOut), 0);
    let waited = end.until(served_at.expect("it is served"));
    assert!(waited < 1000 * MS, "it waited for {waited:?}");
}
