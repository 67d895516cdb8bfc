//! How an activation ended, as its caller sees it. Closed: there is nothing else it can hear.

use crate::id::ActivationId;
use bytes::Bytes;
use proto::v1;
use std::time::Duration;

/// What became of one activation. A caller gets exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The activation.
    pub id: ActivationId,
    /// How it ended.
    pub outcome: Outcome,
    /// How long each stage took, as the router measured; all zero where it never came that far.
    pub stages: Stages,
}

/// How an activation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The action ran and succeeded; what it returned.
    Completed(Bytes),
    /// The action ran and failed by its own doing; what it said.
    ActionFailed(Bytes),
    /// The container or its invoker failed to run it; it may say why.
    PlatformFailed(Bytes),
    /// Its time ran out before it was dispatched. It never started: safe to retry.
    Expired,
    /// It was not taken. It never started: safe to retry, not before [`Rejection::retry_after`].
    Rejected(Rejection),
    /// Its container went away after dispatch. Whether it ran is unknown; it is never dispatched again.
    Lost,
    /// It was taken, and [`fire`](crate::Controller::fire) asked for no more.
    Accepted(Durability),
    /// No answer came in time. Whether it ran is unknown.
    TimedOut,
    /// There is no stream to the router, or it ended before the answer came.
    Unreachable {
        /// false: it never left this process, so it is safe to retry. true: it may have arrived, so whether it ran is unknown.
        maybe_sent: bool,
    },
}

impl Outcome {
    /// Whether it certainly never started, so that another attempt runs it at most once.
    pub fn is_safe_to_retry(&self) -> bool {
        matches!(self, Self::Expired | Self::Rejected(_) | Self::Unreachable { maybe_sent: false })
    }
}

/// Where an accepted activation is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In the router's memory: gone if the router dies.
    Memory,
    /// On disk or in Kafka: survives the router's death until it is handed out.
    Durable,
}

/// How long an activation spent in each stage; to the microsecond, at most 71 minutes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stages {
    /// From its arrival at the router until it was dispatched, or expired.
    pub queue: Duration,
    /// The way to the container and back, without the run.
    pub dispatch: Duration,
    /// The run, as the container says.
    pub run: Duration,
}

/// Why an activation was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The reason.
    pub reason: Reason,
    /// The offending field, in the words of the proto files; empty where there is none.
    pub field: String,
    /// The bound that was met, in the unit of the field; 0 where there is none.
    pub limit: u64,
    /// Not before this long is it worth trying again; none: trying again will not help, or nothing is known.
    pub retry_after: Option<Duration>,
}

/// Why something was not taken, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// By this client: it has `limit` activations without an answer already.
    OutstandingFull,
    /// By this client: too much is waiting to be sent; the router, or the way to it, is slow.
    OutletFull,
    /// By the router, or in its words by this client where the answer is known beforehand.
    Router(v1::Reason),
    /// By the router, for a reason newer than this client.
    Unknown(i32),
}

impl Rejection {
    /// A rejection in the router's words that no waiting will change.
    pub(crate) fn known(reason: v1::Reason, field: &str, limit: u64) -> Self {
        Self { reason: Reason::Router(reason), field: field.to_owned(), limit, retry_after: None }
    }

    /// Something of this client's is full, and may have room soon.
    pub(crate) fn full(reason: Reason, field: &str, limit: u64) -> Self {
        Self { reason, field: field.to_owned(), limit, retry_after: Some(RETRY_AFTER) }
    }
}

impl Answer {
    /// An answer that did not come from the router.
    pub(crate) fn own(id: ActivationId, outcome: Outcome) -> Self {
        Self { id, outcome, stages: Stages::default() }
    }

    /// Reads the answer to `id`.
    pub(crate) fn read(id: ActivationId, answer: v1::Answer) -> Self {
        let micros = |us: u32| Duration::from_micros(us.into());
        let (queue, dispatch, run) = (micros(answer.queue_us), micros(answer.dispatch_us), micros(answer.run_us));
        Self { id, outcome: Outcome::read(answer), stages: Stages { queue, dispatch, run } }
    }
}

impl Outcome {
    fn read(answer: v1::Answer) -> Self {
        match answer.outcome() {
            v1::Outcome::Completed => Self::Completed(answer.result),
            v1::Outcome::ActionFailed => Self::ActionFailed(answer.result),
            v1::Outcome::PlatformFailed => Self::PlatformFailed(answer.result),
            v1::Outcome::Expired => Self::Expired,
            v1::Outcome::TimedOut => Self::TimedOut,
            v1::Outcome::Rejected => Self::Rejected((*answer.rejection.unwrap_or_default()).into()),
            v1::Outcome::Accepted => Self::Accepted(match answer.durability() {
                v1::Durability::Durable => Durability::Durable,
                v1::Durability::Memory | v1::Durability::Unspecified => Durability::Memory,
            }),
            // An outcome newer than this client says only that it ended.
            v1::Outcome::Lost | v1::Outcome::Unspecified => Self::Lost,
        }
    }
}

impl From<v1::Rejection> for Rejection {
    fn from(rejection: v1::Rejection) -> Self {
        let retry_after = Duration::from_millis(rejection.retry_after_ms.into());
        Self {
            reason: rejection.reason.into(),
            field: String::from_utf8_lossy(&rejection.field).into_owned(),
            limit: rejection.limit,
            retry_after: Some(retry_after).filter(|after| !after.is_zero()),
        }
    }
}

impl From<v1::Refusal> for Rejection {
    fn from(refusal: v1::Refusal) -> Self {
        let v1::Refusal { reason, field, limit, .. } = refusal;
        Self::from(v1::Rejection { reason, field, limit, retry_after_ms: 0 })
    }
}

impl From<i32> for Reason {
    fn from(number: i32) -> Self {
        v1::Reason::try_from(number).map_or(Self::Unknown(number), Self::Router)
    }
}

/// What a caller is told to wait when something of this client's is full.
const RETRY_AFTER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: v1::Answer) -> Outcome {
        Answer::read(ActivationId::random(), answer).outcome
    }

    #[test]
    fn every_outcome_on_the_wire_is_read() {
        let result = Bytes::from_static(b"r");
        for (number, outcome) in [
            (0, Outcome::Lost),
            (1, Outcome::Completed(result.clone())),
            (2, Outcome::ActionFailed(result.clone())),
            (3, Outcome::PlatformFailed(result.clone())),
            (4, Outcome::Expired),
            (6, Outcome::Lost),
            (7, Outcome::Accepted(Durability::Memory)),
            (99, Outcome::Lost),
        ] {
            let answer = v1::Answer { outcome: number, result: result.clone(), ..Default::default() };
            assert_eq!(read(answer), outcome, "{number}");
        }
    }

    #[test]
    fn a_rejection_keeps_its_reason_even_an_unknown_one() {
        for (number, reason) in [(11, Reason::Router(v1::Reason::QueueFull)), (99, Reason::Unknown(99))] {
            let rejection = v1::Rejection { reason: number, field: "queued".into(), limit: 7, retry_after_ms: 100 };
            let answer = v1::Answer { outcome: 5, rejection: Some(Box::new(rejection)), ..Default::default() };
            let retry_after = Some(Duration::from_millis(100));
            let expected = Rejection { reason, field: "queued".to_owned(), limit: 7, retry_after };
            assert_eq!(read(answer), Outcome::Rejected(expected));
        }
    }

    #[test]
    fn only_what_never_started_is_safe_to_retry() {
        let rejection = Rejection::known(v1::Reason::TimeLeftZero, "time_left_ms", 1);
        for safe in [Outcome::Expired, Outcome::Rejected(rejection), Outcome::Unreachable { maybe_sent: false }] {
            assert!(safe.is_safe_to_retry(), "{safe:?}");
        }
        for unsafe_ in [Outcome::Lost, Outcome::TimedOut, Outcome::Unreachable { maybe_sent: true }] {
            assert!(!unsafe_.is_safe_to_retry(), "{unsafe_:?}");
        }
    }
}
