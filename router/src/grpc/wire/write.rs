//! What of the engine's answers and dispatches goes into which field.

use super::super::convert;
use bytes::BufMut;
use engine::effect::Dispatch;
use engine::outcome::{Answer, Outcome, Stages};
use prost::encoding::message;
use proto::v1;
use proto::wire::write::Entry;

/// Writes an answer as that field of a frame.
pub(crate) fn answer(field: u8, answer: &Answer, to: &mut impl BufMut) {
    let Answer { id, outcome, stages: Stages { queue_us, dispatch_us, run_us } } = answer;
    let (outcome, result): (v1::Outcome, &[u8]) = match outcome {
        Outcome::Completed(result) => (v1::Outcome::Completed, result),
        Outcome::ActionFailed(result) => (v1::Outcome::ActionFailed, result),
        Outcome::PlatformFailed(result) => (v1::Outcome::PlatformFailed, result),
        Outcome::Expired => (v1::Outcome::Expired, &[]),
        Outcome::Lost => (v1::Outcome::Lost, &[]),
        Outcome::TimedOut => (v1::Outcome::TimedOut, &[]),
        // They have more to say, and no hurry.
        Outcome::Rejected(_) | Outcome::Accepted(_) => {
            return message::encode(field.into(), &convert::answer(answer.clone()), to);
        }
    };
    let behind = [(4, *queue_us), (5, *dispatch_us), (6, *run_us)];
    Entry { first: [], id: (1, &id.0), before: [(2, outcome as u32)], payload: (3, result), behind }.write(field, to);
}

/// Writes a dispatch as that field of a frame.
pub(crate) fn dispatch(field: u8, dispatch: &Dispatch, to: &mut impl BufMut) {
    let Dispatch { container, epoch, id, time_left_ms, payload, attempt } = dispatch;
    let (first, before, behind) = ([(1, *container)], [(3, *time_left_ms)], [(5, *attempt), (6, *epoch)]);
    Entry { first, id: (2, &id.0), before, payload: (4, payload), behind }.write(field, to);
}
