//! What is heard of connections to brokers that fail: the cause behind an answer that does not come. It decides nothing.
//!
//! librdkafka answers every question that it cannot ask with the same "transport failure", be it a wrong password or a broker
//! that is gone. Why, it says on the side, to the context of the client: as an error, or, of a connection that the other side
//! closed, in its log only. The same thing comes again every 30 s only.

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::fmt;

/// What was heard since the last answer, while the client's events are being polled for.
#[derive(Debug, Default)]
pub(super) struct Heard {
    cause: Mutex<Option<Cause>>,
}

#[derive(Debug)]
struct Cause {
    kind: Kind,
    reason: String,
}

/// What it was that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connection,
    Tls,
    Login,
}

impl Heard {
    /// The least that has to be logged for this.
    pub(super) const LOG_LEVEL: RDKafkaLogLevel = RDKafkaLogLevel::Info;

    /// An answer came, so what was heard before is over.
    pub(super) fn forget(&self) {
        *self.cause.lock() = None;
    }

    /// Why a question was not answered, behind the cause, if one is known.
    pub(super) fn explain(&self, why: &str) -> String {
        self.cause.lock().as_ref().map_or_else(|| why.to_owned(), |cause| format!("{cause} ({why})"))
    }

    fn failed(&self, code: Option<Code>, reason: &str) {
        let kind = match code {
            // Says how many brokers are down, and not why.
            Some(Code::AllBrokersDown) => return,
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => Kind::Login,
            Some(Code::SSL) => Kind::Tls,
            _ => Kind::Connection,
        };
        *self.cause.lock() = Some(Cause { kind, reason: reason.to_owned() });
    }

    /// A connection that ends because of what else failed is no cause of its own.
    fn closed(&self, reason: &str) {
        let mut cause = self.cause.lock();
        if cause.as_ref().is_none_or(|cause| cause.kind == Kind::Connection) {
            *cause = Some(Cause { kind: Kind::Connection, reason: reason.to_owned() });
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            Kind::Connection => "the connection failed",
            Kind::Tls => "TLS failed",
            Kind::Login => "the login failed",
        };
        write!(out, "{what}: {}", self.reason)?;
        // All that a broker does which wants TLS or a login, and is not offered any.
        let closed = ["closed by peer", "reset by peer", "Broken pipe"].iter().any(|sign| self.reason.contains(sign));
        if closed { write!(out, "; if it stays so, check security.protocol") } else { Ok(()) }
    }
}

impl ClientContext for Heard {
    fn log(&self, level: RDKafkaLogLevel, of: &str, line: &str) {
        use RDKafkaLogLevel::{Info, Notice, Warning};
        // What is worse comes as an error too.
        if of == "FAIL" && matches!(level, Info | Notice | Warning) {
            // Behind the thread's name.
            self.closed(line.split_once("]: ").map_or(line, |(_, reason)| reason));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.failed(error.rdkafka_error_code(), reason);
    }
}

impl ConsumerContext for Heard {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_comes_before_what_came_of_it() {
        let heard = Heard::default();
        assert_eq!(heard.explain("no answer"), "no answer");
        heard.failed(Some(Code::Authentication), "bad password");
        heard.failed(Some(Code::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(heard.explain("no answer"), "the login failed: bad password (no answer)");
        heard.forget();
        assert_eq!(heard.explain("no answer"), "no answer");
    }

    #[test]
    fn a_closed_connection_is_a_cause_of_its_own_only_if_there_is_no_other() {
        let heard = Heard::default();
        let close = || heard.log(RDKafkaLogLevel::Info, "FAIL", "[thrd:one]: one: connection closed by peer");
        close();
        assert!(heard.explain("").starts_with("the connection failed: one: connection closed by peer; if"));
        heard.log(RDKafkaLogLevel::Info, "CONFWARN", "[thrd:app]: two");
        assert!(!heard.explain("").contains("two"));
        heard.failed(Some(Code::SSL), "no trust");
        close();
        assert_eq!(heard.explain("no answer"), "TLS failed: no trust (no answer)");
    }
}
