//! Effects as the model writes them.

use engine::effect::{Effect, Entry};
use engine::outcome::{Outcome, RunStatus};

/// An effect as the model writes it.
pub(crate) fn written(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Write(_, Entry::Dispatch(dispatch)) => {
            let engine::effect::Dispatch { container, epoch, id, time_left_ms, payload, attempt } = dispatch;
            assert_eq!(container, epoch, "the epoch of its registration");
            format!("dispatch {id} to {container} left {time_left_ms} attempt {attempt} {} bytes", payload.len())
        }
        Effect::Write(controller, Entry::Answer(answer)) => {
            format!("answer {} to {controller:?} {}", answer.id, ended(&answer.outcome))
        }
        Effect::Write(_, Entry::Refuse(refusal)) => {
            format!("refuse {} {}", refusal.number, refusal.rejection.reason.label())
        }
        Effect::Write(_, Entry::Drain(number, _)) => format!("drain {number}"),
        Effect::Write(_, Entry::Draining) => unreachable!("the engine never says that the router drains"),
        Effect::AwaitRoom(stream, ..) => format!("await_room {}", stream.0),
        Effect::Spill(_) | Effect::Refill(_) => unreachable!("nothing overflows here"),
        Effect::WakeAt(_) => return None,
    })
}

fn ended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed(_) => format!("{:?}", RunStatus::Succeeded),
        Outcome::ActionFailed(_) => format!("{:?}", RunStatus::ActionFailed),
        Outcome::PlatformFailed(_) => format!("{:?}", RunStatus::PlatformFailed),
        Outcome::Expired => "expired".to_owned(),
        Outcome::Lost => "lost".to_owned(),
        Outcome::TimedOut => "timed_out".to_owned(),
        Outcome::Accepted(_) => "accepted".to_owned(),
        Outcome::Rejected(rejection) => rejection.reason.label().to_owned(),
    }
}

/// Containers that drain at one moment do so in no order.
pub(crate) fn drained_by_name(mut effects: Vec<String>) -> Vec<String> {
    let drains = |effect: &String| effect.starts_with("drain");
    effects.chunk_by_mut(|a, b| drains(a) && drains(b)).for_each(<[String]>::sort);
    effects
}
