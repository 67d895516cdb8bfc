//! Delivery reports: which append they belong to, and what they mean to its caller. It sends nothing.

use super::health::Health;
use crate::AppendError;
use parking_lot::{Condvar, Mutex};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};
use rdkafka::{ClientContext, Message};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What became of each bundle of one append, so far.
#[derive(Debug)]
pub(super) struct Call {
    number: usize,
    outcomes: Mutex<Outcomes>,
    done: Condvar,
}

#[derive(Debug)]
struct Outcomes {
    /// Offsets.
    results: Vec<Option<Result<u64, AppendError>>>,
    missing: usize,
}

impl Call {
    /// What the producer is to carry with a bundle, so that its report finds back.
    pub(super) fn tag(&self, index: usize) -> usize {
        self.number << INDEX_BITS | index
    }

    /// The first word on a bundle stands.
    pub(super) fn settle(&self, index: usize, result: Result<u64, AppendError>) {
        let mut outcomes = self.outcomes.lock();
        if let Some(slot @ None) = outcomes.results.get_mut(index) {
            *slot = Some(result);
            outcomes.missing -= 1;
            if outcomes.missing == 0 {
                self.done.notify_all();
            }
        }
    }
}

/// All appends that wait for reports.
#[derive(Debug)]
pub(super) struct Reports {
    calls: Mutex<(usize, HashMap<usize, Arc<Call>>)>,
    health: Arc<Health>,
}

impl Reports {
    pub(super) fn new(health: Arc<Health>) -> Self {
        Self { calls: Mutex::default(), health }
    }

    /// Opens a call for so many bundles.
    pub(super) fn begin(&self, bundles: usize) -> Arc<Call> {
        let mut calls = self.calls.lock();
        calls.0 = (calls.0 + 1) & (usize::MAX >> INDEX_BITS);
        let number = calls.0;
        let outcomes = Mutex::new(Outcomes { results: vec![None; bundles], missing: bundles });
        let call = Arc::new(Call { number, outcomes, done: Condvar::new() });
        calls.1.insert(number, Arc::clone(&call));
        call
    }

    /// Until each bundle has its report, or `most` is over; librdkafka gives every record one within its own timeout.
    pub(super) fn end(&self, call: &Call, most: Duration) -> Vec<Result<u64, AppendError>> {
        let until = Instant::now() + most;
        let mut outcomes = call.outcomes.lock();
        while outcomes.missing > 0 && !call.done.wait_until(&mut outcomes, until).timed_out() {}
        let results = std::mem::take(&mut outcomes.results);
        drop(outcomes);
        self.calls.lock().1.remove(&call.number);
        let silent = || Err(AppendError::Unknown("no delivery report in time".to_owned()));
        results.into_iter().map(|result| result.unwrap_or_else(silent)).collect()
    }
}

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(Code::AllBrokersDown) {
            self.health.suspect(reason);
        }
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, tag: usize) {
        let call = self.calls.lock().1.get(&(tag >> INDEX_BITS)).cloned();
        let Some(call) = call else { return };
        let result = match report {
            Ok(message) => {
                u64::try_from(message.offset()).map_err(|_| AppendError::Unknown("no offset told".to_owned()))
            }
            Err((error, _)) => Err(refused(error)),
        };
        call.settle(tag & INDEX_MASK, result);
    }
}

/// What a failed delivery says. All that may have reached a log on any of its tries is `Unknown`.
pub(super) fn refused(error: &KafkaError) -> AppendError {
    let never_stored = [
        Code::QueueFull,
        Code::PurgeQueue,
        Code::UnknownTopic,
        Code::UnknownPartition,
        Code::MessageSizeTooLarge,
        Code::InvalidRecord,
        Code::PolicyViolation,
        Code::TopicAuthorizationFailed,
        Code::ClusterAuthorizationFailed,
    ];
    match error.rdkafka_error_code() {
        Some(code) if never_stored.contains(&code) => AppendError::Unavailable(code.to_string()),
        Some(code) => AppendError::Unknown(code.to_string()),
        None => AppendError::Unknown(error.to_string()),
    }
}

/// A tag is the call's number and, in this many bits, the bundle's index. An append has fewer bundles than that, for they
/// are all in memory.
const INDEX_BITS: u32 = usize::BITS / 2;
const INDEX_MASK: usize = usize::MAX >> INDEX_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    fn reports() -> Reports {
        Reports::new(Arc::new(Health::new()))
    }

    #[test]
    fn results_come_in_the_order_of_the_bundles() {
        let reports = reports();
        let call = reports.begin(3);
        for (index, offset) in [(2, 12), (0, 10), (1, 11)] {
            call.settle(index, Ok(offset));
        }
        assert_eq!(reports.end(&call, Duration::ZERO), [Ok(10), Ok(11), Ok(12)]);
        assert!(reports.calls.lock().1.is_empty());
    }

    #[test]
    fn the_first_word_stands_and_silence_is_unknown() {
        let reports = reports();
        let call = reports.begin(2);
        call.settle(0, Ok(1));
        call.settle(0, Err(AppendError::Closed));
        let results = reports.end(&call, Duration::ZERO);
        assert_eq!(results[0], Ok(1));
        assert!(matches!(results[1], Err(AppendError::Unknown(_))));
    }

    #[test]
    fn tags_tell_calls_and_bundles_apart() {
        let reports = reports();
        let (one, two) = (reports.begin(9), reports.begin(9));
        assert_eq!((one.tag(7) >> INDEX_BITS, one.tag(7) & INDEX_MASK), (one.number, 7));
        assert_ne!(one.tag(7), two.tag(7));
    }

    #[test]
    fn only_what_was_never_sent_is_known_not_to_be_stored() {
        let error = |code| refused(&KafkaError::MessageProduction(code));
        assert!(matches!(error(Code::QueueFull), AppendError::Unavailable(_)));
        assert!(matches!(error(Code::MessageTimedOut), AppendError::Unknown(_)));
        assert!(matches!(error(Code::PurgeInflight), AppendError::Unknown(_)));
        assert!(matches!(error(Code::NotEnoughReplicasAfterAppend), AppendError::Unknown(_)));
    }
}
