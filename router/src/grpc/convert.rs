//! Between the engine's words and the wire's: outcomes, reasons, entries. Decides nothing.

use bytes::Bytes;
use engine::outcome::{Answer, Durability, Outcome, Reason, Refusal, Rejection, Reply, RunStatus, Stages};
use proto::v1;
use tonic::{Code, Status};

pub(super) fn reply(reply: i32) -> Result<Reply, Rejection> {
    match v1::Reply::try_from(reply) {
        Ok(v1::Reply::Outcome) => Ok(Reply::Outcome),
        Ok(v1::Reply::Accepted) => Ok(Reply::Accepted),
        Err(_) => Err(Rejection::new(Reason::ValueUnknown, "reply", v1::Reply::Accepted as u64)),
    }
}

pub(super) fn run_status(status: i32) -> Result<RunStatus, Rejection> {
    match v1::RunStatus::try_from(status) {
        Ok(v1::RunStatus::Succeeded) => Ok(RunStatus::Succeeded),
        Ok(v1::RunStatus::ActionFailed) => Ok(RunStatus::ActionFailed),
        Ok(v1::RunStatus::PlatformFailed) => Ok(RunStatus::PlatformFailed),
        Err(_) => Err(Rejection::new(Reason::ValueUnknown, "status", v1::RunStatus::PlatformFailed as u64)),
    }
}

pub(super) fn answer(answer: Answer) -> v1::Answer {
    let Answer { id, outcome, stages: Stages { queue_us, dispatch_us, run_us } } = answer;
    let id = Bytes::copy_from_slice(&id.0);
    let mut wire = v1::Answer { id, queue_us, dispatch_us, run_us, ..Default::default() };
    let outcome = match outcome {
        Outcome::Completed(result) => {
            wire.result = result;
            v1::Outcome::Completed
        }
        Outcome::ActionFailed(result) => {
            wire.result = result;
            v1::Outcome::ActionFailed
        }
        Outcome::PlatformFailed(result) => {
            wire.result = result;
            v1::Outcome::PlatformFailed
        }
        Outcome::Expired => v1::Outcome::Expired,
        Outcome::Lost => v1::Outcome::Lost,
        Outcome::TimedOut => v1::Outcome::TimedOut,
        Outcome::Rejected(why) => {
            wire.rejection = Some(Box::new(rejection(why)));
            v1::Outcome::Rejected
        }
        Outcome::Accepted(durability) => {
            wire.durability = match durability {
                Durability::Memory => v1::Durability::Memory,
                Durability::Durable => v1::Durability::Durable,
            } as i32;
            v1::Outcome::Accepted
        }
    };
    wire.outcome = outcome as i32;
    wire
}

pub(super) fn refusal(refusal: Refusal) -> v1::Refusal {
    let Refusal { rejection, number, id } = refusal;
    let field = Bytes::from_static(rejection.field.as_bytes());
    v1::Refusal { reason: reason(rejection.reason) as i32, field, limit: rejection.limit, number, id }
}

/// The status that ends a call for that reason. Its message names the field and the limit.
pub(super) fn status(rejection: &Rejection) -> Status {
    let Rejection { reason, field, limit, .. } = *rejection;
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    let limit = if limit == 0 { String::new() } else { format!(" (limit {limit})") };
    Status::new(code(reason), format!("{field}{}{limit}", reason.label()))
}

fn rejection(rejection: Rejection) -> v1::Rejection {
    let Rejection { reason: why, field, limit, retry_after_ms } = rejection;
    v1::Rejection { reason: reason(why) as i32, field: Bytes::from_static(field.as_bytes()), limit, retry_after_ms }
}

fn code(reason: Reason) -> Code {
    match reason {
        Reason::IdInFlight
        | Reason::IdEnded
        | Reason::ContainerTaken
        | Reason::ControllerConnected
        | Reason::Repeated => Code::AlreadyExists,
        Reason::QueueFull
        | Reason::TenantFull
        | Reason::RouterFull
        | Reason::OverflowUnavailable
        | Reason::TooManyActions
        | Reason::TooManyContainers => Code::ResourceExhausted,
        Reason::ActionUnknown | Reason::ContainerUnknown | Reason::NotInFlight => Code::NotFound,
        Reason::NotDispatchedHere => Code::FailedPrecondition,
        Reason::EpochStale | Reason::OutcomeUnknown => Code::Aborted,
        Reason::Draining => Code::Unavailable,
        Reason::RecordDamaged => Code::DataLoss,
        Reason::NameEmpty
        | Reason::NameTooLong
        | Reason::NameNotUtf8
        | Reason::IdLength
        | Reason::PayloadTooLarge
        | Reason::TimeLeftZero
        | Reason::TimeLeftTooLong
        | Reason::ValueUnknown
        | Reason::ConcurrencyOutOfRange
        | Reason::CreditOverflow
        | Reason::FrameTooLong
        | Reason::HelloMissing => Code::InvalidArgument,
    }
}

fn reason(reason: Reason) -> v1::Reason {
    match reason {
        Reason::NameEmpty => v1::Reason::NameEmpty,
        Reason::NameTooLong => v1::Reason::NameTooLong,
        Reason::NameNotUtf8 => v1::Reason::NameNotUtf8,
        Reason::IdLength => v1::Reason::IdLength,
        Reason::IdInFlight => v1::Reason::IdInFlight,
        Reason::PayloadTooLarge => v1::Reason::PayloadTooLarge,
        Reason::TimeLeftZero => v1::Reason::TimeLeftZero,
        Reason::TimeLeftTooLong => v1::Reason::TimeLeftTooLong,
        Reason::ActionUnknown => v1::Reason::ActionUnknown,
        Reason::ValueUnknown => v1::Reason::ValueUnknown,
        Reason::QueueFull => v1::Reason::QueueFull,
        Reason::TenantFull => v1::Reason::TenantFull,
        Reason::RouterFull => v1::Reason::RouterFull,
        Reason::TooManyActions => v1::Reason::TooManyActions,
        Reason::TooManyContainers => v1::Reason::TooManyContainers,
        Reason::ContainerUnknown => v1::Reason::ContainerUnknown,
        Reason::ContainerTaken => v1::Reason::ContainerTaken,
        Reason::ConcurrencyOutOfRange => v1::Reason::ConcurrencyOutOfRange,
        Reason::CreditOverflow => v1::Reason::CreditOverflow,
        Reason::NotDispatchedHere => v1::Reason::NotDispatchedHere,
        Reason::NotInFlight => v1::Reason::NotInFlight,
        Reason::FrameTooLong => v1::Reason::FrameTooLong,
        Reason::Draining => v1::Reason::Draining,
        Reason::HelloMissing => v1::Reason::HelloMissing,
        Reason::ControllerConnected => v1::Reason::ControllerConnected,
        Reason::Repeated => v1::Reason::Repeated,
        Reason::IdEnded => v1::Reason::IdEnded,
        Reason::EpochStale => v1::Reason::EpochStale,
        Reason::OutcomeUnknown => v1::Reason::OutcomeUnknown,
        Reason::OverflowUnavailable => v1::Reason::OverflowUnavailable,
        Reason::RecordDamaged => v1::Reason::RecordDamaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_reads_the_same_in_the_engine_and_on_the_wire() {
        for &each in Reason::ALL {
            let wire = reason(each).as_str_name().to_lowercase();
            assert_eq!(wire, format!("reason_{}", each.label()));
        }
    }

    #[test]
    fn a_status_names_field_and_limit() {
        let status = status(&Rejection::new(Reason::NameTooLong, "key.action", 256));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "key.action: name_too_long (limit 256)");
    }
}
