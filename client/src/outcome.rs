//! How an activation ended, as its caller sees it. Closed: there is nothing else it can hear.

use crate::id::ActivationId;
use bytes::Bytes;
use engine::breaker::Cause;
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
    /// Its action failed too often of late, and [`breaker`](crate::Controller::breaker) keeps activations of it back. It never left
    /// this process: safe to retry, not before `retry_after`.
    CircuitOpen {
        /// What opened the circuit.
        cause: Cause,
        /// When another attempt may be let through.
        retry_after: Duration,
    },
    /// There is no stream to the router, or it ended before the answer came.
    Unreachable {
        /// false: it never left this process, so it is safe to retry. true: it may have arrived, so whether it ran is unknown.
        maybe_sent: bool,
    },
}

impl Outcome {
    /// Whether it certainly never started, so that another attempt runs it at most once.
    pub fn is_safe_to_retry(&self) -> bool {
        match self {
            Self::Expired | Self::CircuitOpen { .. } | Self::Unreachable { maybe_sent: false } => true,
            Self::Rejected(rejection) => !rejection.speaks_of_another_attempt(),
            _ => false,
        }
    }

    /// What a controller says to its own caller over HTTP.
    ///
    /// | outcome | status | why |
    /// |---|---|---|
    /// | `Completed` | 200 | |
    /// | `Accepted` | 202 | |
    /// | `Rejected`, for what was asked: a name, a time, a number out of its range | 400 | the same again is refused again |
    /// | `Rejected`: `ID_IN_FLIGHT`, `ID_ENDED`, `REPEATED` | 409 | an activation of that id may have run |
    /// | `Rejected`: `PAYLOAD_TOO_LARGE` | 413 | |
    /// | `Rejected`: `QUEUE_FULL`, `TENANT_FULL` | 429 | the action or its namespace has more than its containers can do |
    /// | `PlatformFailed` | 500 | as OpenWhisk says of its own errors |
    /// | `ActionFailed` | 502 | as OpenWhisk says of an action's and a developer's errors |
    /// | `Lost`, `Unreachable` if it may have been sent, `Rejected`: `OUTCOME_UNKNOWN` | 502 | it may have run |
    /// | `Expired`, `CircuitOpen`, `Unreachable` if it never left, any other `Rejected` | 503 | it never ran; with `Retry-After` |
    /// | `TimedOut` | 504 | it may have run |
    ///
    /// So 400, 413, 429 and 503 say that it never started; after 409, 500, 502 and 504 it may have. The header `Retry-After`
    /// is [`retry_after`](Self::retry_after), rounded up to seconds.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Completed(_) => 200,
            Self::Accepted(_) => 202,
            Self::PlatformFailed(_) => 500,
            Self::ActionFailed(_) | Self::Lost | Self::Unreachable { maybe_sent: true } => 502,
            Self::Expired | Self::CircuitOpen { .. } | Self::Unreachable { maybe_sent: false } => 503,
            Self::TimedOut => 504,
            Self::Rejected(rejection) => rejection.http_status(),
        }
    }

    /// Not before this long is another attempt worth it; none: it will not help, or nothing is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CircuitOpen { retry_after, .. } => Some(*retry_after),
            Self::Rejected(rejection) => rejection.retry_after,
            _ => None,
        }
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
    /// The offending field in the words of the proto files, or the configuration key of the limit; empty where there is none.
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

    /// The router drains: soon there is another stream, to it or to the one in its place.
    pub(crate) fn draining() -> Self {
        let reason = Reason::Router(v1::Reason::Draining);
        Self { reason, field: String::new(), limit: 0, retry_after: Some(DRAINED_AFTER) }
    }

    /// It was refused because of an activation with its id, which may have run.
    fn speaks_of_another_attempt(&self) -> bool {
        use v1::Reason::{IdEnded, IdInFlight, OutcomeUnknown, Repeated};
        matches!(self.reason, Reason::Router(IdInFlight | IdEnded | OutcomeUnknown | Repeated))
    }

    /// See [`Outcome::http_status`].
    fn http_status(&self) -> u16 {
        use v1::Reason as R;
        let Reason::Router(reason) = self.reason else { return 503 };
        match reason {
            R::NameEmpty | R::NameTooLong | R::NameNotUtf8 | R::IdLength | R::TimeLeftZero | R::TimeLeftTooLong => 400,
            R::ValueUnknown | R::ConcurrencyOutOfRange => 400,
            R::IdInFlight | R::IdEnded | R::Repeated => 409,
            R::PayloadTooLarge => 413,
            R::QueueFull | R::TenantFull => 429,
            R::OutcomeUnknown => 502,
            R::RouterFull
            | R::OverflowUnavailable
            | R::RecordDamaged
            | R::TooManyActions
            | R::TooManyContainers
            | R::Draining => 503,
            // Of the stream, not of what was asked: another attempt finds it set right.
            R::ActionUnknown | R::FrameTooLong | R::HelloMissing | R::ControllerConnected | R::Unspecified => 503,
            // Never said of an activation.
            R::ContainerUnknown | R::ContainerTaken | R::CreditOverflow => 503,
            R::NotDispatchedHere | R::NotInFlight | R::EpochStale => 503,
        }
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
/// What a caller is told to wait when the router drains.
const DRAINED_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: v1::Answer) -> Outcome {
        Answer::read(ActivationId::from_wire(&[7; 16]).expect("16 bytes"), answer).outcome
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

    fn rejected(reason: Reason) -> Outcome {
        Outcome::Rejected(Rejection { reason, field: String::new(), limit: 0, retry_after: None })
    }

    /// One of each, with its status.
    fn statuses() -> Vec<(Outcome, u16)> {
        let said = Bytes::new();
        let mut all = vec![
            (Outcome::Completed(said.clone()), 200),
            (Outcome::Accepted(Durability::Memory), 202),
            (Outcome::ActionFailed(said.clone()), 502),
            (Outcome::PlatformFailed(said), 500),
            (Outcome::Expired, 503),
            (Outcome::Lost, 502),
            (Outcome::TimedOut, 504),
            (Outcome::CircuitOpen { cause: Cause::TimedOut, retry_after: RETRY_AFTER }, 503),
            (Outcome::Unreachable { maybe_sent: false }, 503),
            (Outcome::Unreachable { maybe_sent: true }, 502),
        ];
        let by_router = |number: i32| Reason::from(number);
        let reasons = [
            (0, 503),
            (1, 400),
            (2, 400),
            (3, 400),
            (4, 400),
            (5, 409),
            (6, 413),
            (7, 400),
            (8, 400),
            (9, 503),
            (10, 400),
            (11, 429),
            (12, 503),
            (13, 503),
            (14, 503),
            (15, 503),
            (16, 503),
            (17, 400),
            (18, 503),
            (19, 503),
            (20, 503),
            (21, 503),
            (22, 503),
            (23, 503),
            (24, 503),
            (25, 409),
            (26, 409),
            (27, 503),
            (28, 502),
            (29, 429),
            (30, 503),
            (31, 503),
            (99, 503),
        ];
        all.extend(reasons.map(|(number, status)| (rejected(by_router(number)), status)));
        all.extend([Reason::OutstandingFull, Reason::OutletFull].map(|reason| (rejected(reason), 503)));
        all
    }

    #[test]
    fn every_outcome_has_its_http_status() {
        for (outcome, status) in statuses() {
            assert_eq!(outcome.http_status(), status, "{outcome:?}");
        }
        assert!(v1::Reason::try_from(32).is_err(), "a new reason wants a line above");
    }

    #[test]
    fn the_status_says_whether_it_is_safe_to_retry() {
        for (outcome, status) in statuses() {
            assert_eq!(outcome.is_safe_to_retry(), [400, 413, 429, 503].contains(&status), "{outcome:?}");
        }
    }

    #[test]
    fn who_is_told_to_wait_hears_how_long() {
        let open = Outcome::CircuitOpen { cause: Cause::Failed, retry_after: RETRY_AFTER };
        let draining = Outcome::Rejected(Rejection::draining());
        for (outcome, after) in [(open, Some(RETRY_AFTER)), (draining, Some(DRAINED_AFTER)), (Outcome::Lost, None)] {
            assert_eq!(outcome.retry_after(), after, "{outcome:?}");
        }
    }
}
