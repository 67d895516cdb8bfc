//! The time that a caller gives a call with gRPC's header `grpc-timeout`.
//!
//! tonic keeps that time too, and ends such a call with CANCELLED, which means that the caller gave
//! the call up. This file ends the call a moment earlier, with the status that gRPC has for it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;

/// The moment by which a call must be answered, if its caller named a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Option<(Instant, Duration)>);

/// tonic's timer of the same call began a moment before ours and wakes the call first. Then so
/// little time left counts as none. Far above the time between the two timers, far below the times
/// that callers ask for.
const SLACK: Duration = Duration::from_millis(5);

impl Deadline {
    /// The one in the call's headers. One that cannot be read is none, as for tonic.
    pub(super) fn of<B>(call: &http::Request<B>) -> Self {
        let text = call.headers().get("grpc-timeout").and_then(|value| value.to_str().ok());
        Self(text.and_then(parse).map(|timeout| (Instant::now() + timeout, timeout)))
    }

    /// The call's answer, or DEADLINE_EXCEEDED; then the call is dropped.
    pub(super) async fn keep(
        self,
        answer: impl Future<Output = http::Response<Body>>,
    ) -> Result<http::Response<Body>, Infallible> {
        let Self(Some((deadline, timeout))) = self else { return Ok(answer.await) };
        let (mut answer, mut due) = (pin!(answer), pin!(sleep_until(deadline)));
        Ok(poll_fn(move |cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            if due.as_mut().poll(cx).is_pending() && Instant::now() + SLACK.min(timeout / 10) < deadline {
                return Poll::Pending;
            }
            Poll::Ready(Status::deadline_exceeded(format!("grpc-timeout: {timeout:?} are over")).into_http())
        })
        .await)
    }
}

/// A number of at most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn call(timeout: &str) -> http::Request<()> {
        http::Request::builder().header("grpc-timeout", timeout).body(()).unwrap()
    }

    #[test]
    fn all_units_are_known_and_nothing_else() {
        let known = [("2H", 7_200_000), ("2M", 120_000), ("2S", 2_000), ("2m", 2), ("2000u", 2), ("2000000n", 2)];
        known.iter().for_each(|(text, ms)| assert_eq!(parse(text), Some(Duration::from_millis(*ms)), "{text}"));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for text in ["", "2", "m", "2 m", "2s", "-2m", "+2m", "123456789m", "2é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_past_its_deadline_hears_so_and_others_hear_their_answer() {
        let answer = || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Status::already_exists("").into_http()
        };
        for (timeout, code) in
            [("50m", Code::DeadlineExceeded), ("1S", Code::AlreadyExists), ("?", Code::AlreadyExists)]
        {
            let response = Deadline::of(&call(timeout)).keep(answer()).await.unwrap();
            assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), code, "{timeout}");
        }
        assert_eq!(Deadline::of(&http::Request::new(())).keep(answer()).await.unwrap().status(), 200);
    }
}
