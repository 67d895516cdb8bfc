//! The Kafka store against a real Apache Kafka that wants a login: without TLS in every build, over TLS with the feature
//! `kafka-tls`. What does not fit together has to be told by its cause, and soon. Needs what `scripts/kafka` needs.

// Helpers of tests are tests, too.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each program that shares it uses a part of it")]
mod support;

use overflow::kafka::{Config, Kafka};
use overflow::{AppendError, Entry, Most, Overflow, ReadError, Span};
use std::time::{Duration, Instant};
use support::broker::{self, Broker, eventually};
use support::topic::{contract, unique};

#[test]
fn with_a_password_it_is_a_store() {
    with_broker(|broker| contract(|name| with_password(broker, name)));
}

#[test]
fn a_wrong_password_is_told_as_such() {
    with_broker(|broker| {
        let config = with_password(broker, "password");
        refused(with(config, "sasl.password", "wrong"), "the login failed", &["Invalid username or password"]);
    });
}

#[test]
fn an_unknown_user_is_told_as_such() {
    with_broker(|broker| {
        let config = with_password(broker, "user");
        refused(with(config, "sasl.username", "nobody"), "the login failed", &["Invalid username or password"]);
    });
}

#[test]
fn a_client_without_a_login_is_told_to_look_at_its_settings() {
    with_broker(|broker| {
        let config = config(broker.servers_without_tls(), "no-login");
        refused(config, "the connection failed", &["check security.protocol"]);
    });
}

#[test]
fn a_broker_that_comes_late_is_logged_in_to() {
    with_broker(|broker| {
        broker.kill();
        let store = Kafka::open(with_password(broker, "late")).unwrap();
        eventually("the cause is told", SOON, || store.trouble().is_some_and(|why| why.contains("Connection refused")));
        broker.start();
        eventually("it comes up by itself", Duration::from_secs(60), || store.trouble().is_none());
        assert!(store.append(&[entry(0)])[0].is_ok());
    });
}

#[cfg(feature = "kafka-tls")]
mod tls {
    use super::*;

    #[test]
    fn over_tls_it_is_a_store() {
        with_broker(|broker| contract(|name| over_tls(broker, name)));
    }

    #[test]
    fn a_wrong_password_is_told_as_such() {
        with_broker(|broker| {
            let config = with(over_tls(broker, "tls-password"), "sasl.password", "wrong");
            refused(config, "the login failed", &["invalid credentials"]);
        });
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_refused() {
        with_broker(|broker| {
            let mut config = over_tls(broker, "tls-untrusted");
            config.properties.remove("ssl.ca.location").unwrap();
            refused(config, "TLS failed", &["certificate verify failed", "ssl.ca.location"]);
        });
    }

    #[test]
    fn a_certificate_of_another_host_is_refused() {
        with_broker(|broker| {
            let mut config = over_tls(broker, "tls-host");
            config.servers = config.servers.replace("127.0.0.1", "localhost");
            refused(config, "TLS failed", &["certificate verify failed"]);
        });
    }

    #[test]
    fn a_client_without_tls_is_told_to_look_at_its_settings() {
        with_broker(|broker| {
            let mut config = with_password(broker, "tls-plain");
            config.servers = broker.servers();
            refused(config, "the connection failed", &["check security.protocol"]);
        });
    }

    #[test]
    fn a_client_with_tls_is_told_that_there_may_be_none() {
        with_broker(|broker| {
            let mut config = over_tls(broker, "tls-to-plain");
            config.servers = broker.servers_without_tls();
            refused(config, "the connection failed", &["connecting to a PLAINTEXT broker listener?"]);
        });
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_named_at_once() {
        with_broker(|broker| {
            let file = broker.certificate().with_extension("missing").display().to_string();
            let error = Kafka::open(with(over_tls(broker, "tls-file"), "ssl.ca.location", &file)).unwrap_err();
            assert!(error.to_string().contains("ssl.ca.location"), "{error}");
        });
    }

    /// As `scripts/kafka` tells clients to come, which is what the README shows.
    fn over_tls(broker: &Broker, topic: &str) -> Config {
        let mut config = config(broker.servers(), topic);
        let settings = broker.client_settings();
        let pairs = settings.lines().map(|line| line.split_once('=').unwrap());
        config.properties = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        config
    }
}

/// Opens a store that cannot come up: it says so by the cause, answers every call at once, and ends soon.
fn refused(config: Config, of: &str, cause: &[&str]) {
    let store = Kafka::open(config).unwrap();
    let is_told = |why: &str| why.starts_with(of) && cause.iter().all(|part| why.contains(part));
    eventually(&format!("{of}: {cause:?}"), SOON, || store.trouble().is_some_and(|why| is_told(&why)));
    let start = Instant::now();
    assert_eq!((store.ready(), store.span(0)), (false, Span::default()));
    let append = store.append(&[entry(0)]);
    assert!(matches!(&append[..], [Err(AppendError::Unavailable(why))] if is_told(why)), "{append:?}");
    let read = store.read(0, 0, None, Most { records: 1, bytes: 1 });
    assert!(matches!(&read, Err(ReadError::Unavailable(why)) if is_told(why)), "{read:?}");
    println!("{}", append[0].clone().unwrap_err());
    store.close();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

fn with_broker(test: impl FnOnce(&mut Broker)) {
    broker::with_broker(Broker::secure, test);
}

/// Without TLS.
fn with_password(broker: &Broker, topic: &str) -> Config {
    let config = config(broker.servers_without_tls(), topic);
    let config = with(config, "security.protocol", "SASL_PLAINTEXT");
    let config = with(config, "sasl.mechanism", "PLAIN");
    with(with(config, "sasl.username", "router"), "sasl.password", "not-a-secret")
}

fn config(servers: String, topic: &str) -> Config {
    Config { lanes: 3, timeout: Duration::from_secs(3), ..Config::new(servers, unique(topic)) }
}

fn with(mut config: Config, key: &str, value: &str) -> Config {
    config.properties.insert(key.to_owned(), value.to_owned());
    config
}

fn entry(lane: u16) -> Entry {
    overflow::contract::entry(lane, "body")
}

/// A store asks for 3 s at most before it says why it has no answer; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(20);
