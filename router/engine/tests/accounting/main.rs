//! Random interleavings of everything that can happen, against a model that does the same with plain lists and scans: what
//! the engine asks to be done must be the same to the letter, the counts must balance after each step, and when all have left
//! nothing may remain. `step` draws what happens, `pair` lets engine and `model` take each step and compares what `written` makes
//! of it.
//!
//! Beside the model an `audit` looks at the effects alone, so that model and engine cannot be wrong together about what
//! matters most: one answer for each push, one dispatch unless returned, none after the deadline.

mod audit;
mod model;
mod pair;
mod step;
mod written;

use engine::id::{ActionKey, ActivationId, StreamId};
use pair::Pair;
use proptest::prelude::*;
use std::time::Duration;
use step::{Step, limits, step};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_interleaving_adds_up(limits in limits(), steps in prop::collection::vec(step(), 1..200)) {
        let mut pair = Pair::new(limits);
        (0..NAMES).for_each(|name| pair.take(&Step::Declare { name, revision: 0 }));
        steps.iter().for_each(|step| pair.take(step));
        pair.end();
    }
}

fn pick(n: u8, of: usize) -> Option<usize> {
    usize::from(n).checked_rem(of)
}

fn key(name: u8, revision: u8) -> ActionKey {
    ActionKey::new("tenant", &name.to_string(), &revision.to_string())
}

fn activation(id: u8) -> ActivationId {
    ActivationId([id; ActivationId::LEN])
}

fn stream_id(stream: u8) -> StreamId {
    StreamId(stream.into())
}

/// The node of a session: one has two sessions, one has one.
fn node_of(stream: u8) -> u8 {
    stream / 2
}

const NAMES: u8 = 2;
const STREAMS: u8 = 3;
const IDS: u8 = 12;
const TICK_US: u64 = 1024;
/// Longer than any run of steps, so that the model need not forget actions.
const GRACE: Duration = Duration::from_secs(3600);
