//! What is set about the Kafka store, and what becomes of it in librdkafka. It opens no connection.

use super::heard::Heard;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Where the topic is and how it is used. Checked whole by [`super::Kafka::open`].
#[derive(Clone)]
pub struct Config {
    /// Brokers to ask first: `HOST:PORT`, several with commas.
    pub servers: String,
    /// The topic, for one router alone. Created if it is missing.
    pub topic: String,
    /// The consumer group whose committed offsets are the consume marks. Nobody may join it.
    pub group: String,
    /// Partitions of the topic, 1 to 1,024. A topic with another number is refused.
    pub lanes: u16,
    /// Replicas of a topic that is created, of which more than half have to have a record. None: as the broker is set up.
    pub replicas: Option<u16>,
    /// Longest body, in bytes, to 64 MiB. A topic that takes less lowers it.
    pub record_bytes_max: usize,
    /// Bytes of all that is not consumed, by estimate: see [`crate::Usage`]. Beyond it the store is full.
    pub store_bytes_max: u64,
    /// How long an append waits for its acknowledgement and any other call for its answer; 1 s to 5 min. Calls that have to
    /// find the broker first may take twice as long.
    pub timeout: Duration,
    /// Any further properties of librdkafka: TLS, SASL, compression. Those which the store's promise or bounds rest on are
    /// refused.
    pub properties: BTreeMap<String, String>,
}

impl Config {
    /// 64 lanes, 2 MiB a record, 8 GiB, 10 s, the topic's name for the group too.
    pub fn new(servers: impl Into<String>, topic: impl Into<String>) -> Self {
        let topic = topic.into();
        Self {
            servers: servers.into(),
            group: topic.clone(),
            topic,
            lanes: 64,
            replicas: None,
            record_bytes_max: 2 << 20,
            store_bytes_max: 8 << 30,
            timeout: Duration::from_secs(10),
            properties: BTreeMap::new(),
        }
    }
}

/// The values of properties may be secrets.
impl fmt::Debug for Config {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Config")
            .field("servers", &self.servers)
            .field("topic", &self.topic)
            .field("group", &self.group)
            .field("lanes", &self.lanes)
            .field("properties", &self.properties.keys())
            .finish_non_exhaustive()
    }
}

/// Why the store was not opened. That no broker answers is no reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A setting is outside of its range.
    #[error("{what}: {why}")]
    Setting {
        /// Which.
        what: &'static str,
        /// What it has to be.
        why: &'static str,
    },
    /// A property may not be set.
    #[error("Kafka property {key} may not be set: {why}")]
    Reserved {
        /// Which.
        key: String,
        /// What rests on it.
        why: &'static str,
    },
    /// A property asks for what this build does not have.
    #[error("Kafka property {key} is not possible in this build: {needs}")]
    NotBuilt {
        /// Which.
        key: String,
        /// What it takes.
        needs: &'static str,
    },
    /// librdkafka does not take a property.
    #[error("Kafka property {key}: {why}")]
    Property {
        /// Which.
        key: String,
        /// In its words.
        why: String,
    },
    /// librdkafka does not take the properties together, or cannot read a file they name.
    #[error("Kafka client: {0}")]
    Client(String),
    /// No thread could be started.
    #[error("cannot start a thread: {0}")]
    Thread(String),
}

impl From<KafkaError> for OpenError {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, why, key, _) => Self::Property { key, why },
            KafkaError::ClientCreation(why) => Self::Client(why),
            other => Self::Client(other.to_string()),
        }
    }
}

impl Config {
    /// Everything that can be known to be wrong without a broker.
    pub(super) fn check(&self) -> Result<(), OpenError> {
        for (right, what, why) in [
            (!self.servers.is_empty(), "servers", "at least one HOST:PORT"),
            (is_name(&self.topic), "topic", "1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'"),
            (is_name(&self.group), "group", "1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'"),
            ((1..=1024).contains(&self.lanes), "lanes", "1 to 1,024"),
            (self.replicas != Some(0), "replicas", "at least 1"),
            ((1..=RECORD_BYTES_MAX).contains(&self.record_bytes_max), "record_bytes_max", "1 B to 64 MiB"),
            (TIMEOUTS.contains(&self.timeout), "timeout", "1 s to 5 min"),
        ] {
            if !right {
                return Err(OpenError::Setting { what, why });
            }
        }
        self.properties.iter().try_for_each(|(key, value)| check_property(key, value))
    }

    /// For the client that appends. `limit` is the longest message that the topic takes.
    pub(super) fn producer(&self, limit: usize) -> ClientConfig {
        let mut client = self.client();
        let timeout = self.timeout.as_millis().to_string();
        client
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("delivery.timeout.ms", &timeout)
            .set("request.timeout.ms", &timeout)
            .set("queue.buffering.max.messages", QUEUE_RECORDS.to_string())
            .set("queue.buffering.max.kbytes", (QUEUE_BYTES.max(2 * limit) / 1024).to_string())
            .set("message.max.bytes", limit.to_string())
            .set("batch.size", limit.min(BATCH_BYTES).to_string());
        client
    }

    /// For the client that keeps the marks and asks about the topic.
    pub(super) fn asker(&self) -> ClientConfig {
        let mut client = self.consumer();
        client.set_log_level(Heard::LOG_LEVEL);
        client
    }

    /// For the clients that read lanes, and the one that keeps the marks.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut client = self.client();
        let timeout = self.timeout.as_millis();
        client
            .set("group.id", &self.group)
            // What is not answered is asked again by librdkafka, twice.
            .set("socket.timeout.ms", (timeout / 3).to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("enable.partition.eof", "true")
            // How long a commit waits for the broker that keeps the group.
            .set("session.timeout.ms", timeout.to_string())
            .set("heartbeat.interval.ms", (timeout / 3).to_string())
            .set("max.poll.interval.ms", "300000")
            .set("fetch.wait.max.ms", FETCH_WAIT_MS)
            .set("fetch.queue.backoff.ms", "2")
            .set("fetch.message.max.bytes", FETCH_BYTES.to_string())
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", (AHEAD_BYTES / 1024).to_string());
        client
    }

    /// What all clients have in common.
    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        for (key, value) in PREFERRED {
            client.set(*key, *value);
        }
        for (key, value) in &self.properties {
            client.set(key, value);
        }
        client
            .set("bootstrap.servers", &self.servers)
            .set("allow.auto.create.topics", "false")
            .set("socket.timeout.ms", self.timeout.as_millis().to_string())
            // Its log lines wait in a queue, and what they say comes back as errors too, or is heard by the one that asks.
            .set_log_level(RDKafkaLogLevel::Emerg);
        client
    }
}

fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=249).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".."
}

fn check_property(key: &str, value: &str) -> Result<(), OpenError> {
    if let Some((why, _)) = RESERVED.iter().find(|(_, keys)| keys.contains(&key)) {
        return Err(OpenError::Reserved { key: key.to_owned(), why });
    }
    match needed(key, &value.to_ascii_lowercase()) {
        Some(needs) => Err(OpenError::NotBuilt { key: key.to_owned(), needs }),
        None => Ok(()),
    }
}

/// What a property needs that this build does not have.
fn needed(key: &str, value: &str) -> Option<&'static str> {
    let mechanism = matches!(key, "sasl.mechanism" | "sasl.mechanisms");
    let kerberos = key.starts_with("sasl.kerberos.") || mechanism && value == "gssapi";
    let tls = key.starts_with("ssl")
        || key.starts_with("enable.ssl")
        || key.starts_with("https.")
        || key == "security.protocol" && value.ends_with("ssl")
        || mechanism && (value.starts_with("scram") || value == "oauthbearer");
    if kerberos {
        return Some("Kerberos is not built in");
    }
    (tls && !cfg!(feature = "kafka-tls")).then_some("it takes the cargo feature kafka-tls")
}

/// What is better than librdkafka's defaults here, for whoever does not say otherwise.
const PREFERRED: &[(&str, &str)] = &[
    ("client.id", "activation-router"),
    ("linger.ms", "1"),
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
];

/// Properties that are the store's own, with their other names.
const RESERVED: &[(&str, &[&str])] = &[
    (
        "it is set by the store's own settings",
        &[
            "bootstrap.servers",
            "metadata.broker.list",
            "group.id",
            "delivery.timeout.ms",
            "message.timeout.ms",
            "request.timeout.ms",
            "socket.timeout.ms",
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "max.poll.interval.ms",
            "message.max.bytes",
        ],
    ),
    (
        "what the store promises about durability and order rests on it",
        &[
            "acks",
            "request.required.acks",
            "enable.idempotence",
            "enable.gapless.guarantee",
            "transactional.id",
            "retries",
            "message.send.max.retries",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "queuing.strategy",
            "delivery.report.only.error",
            "produce.offset.report",
        ],
    ),
    (
        "what the store promises about consuming once rests on it",
        &[
            "enable.auto.commit",
            "auto.commit.enable",
            "auto.commit.interval.ms",
            "enable.auto.offset.store",
            "auto.offset.reset",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
            "group.instance.id",
            "group.protocol",
            "group.remote.assignor",
            "isolation.level",
            "check.crcs",
            "enable.partition.eof",
            "allow.auto.create.topics",
        ],
    ),
    (
        "the memory that the store takes rests on it",
        &[
            "queue.buffering.max.messages",
            "queue.buffering.max.kbytes",
            "batch.size",
            "batch.num.messages",
            "queued.min.messages",
            "queued.max.messages.kbytes",
            "fetch.wait.max.ms",
            "fetch.min.bytes",
            "fetch.max.bytes",
            "fetch.message.max.bytes",
            "max.partition.fetch.bytes",
            "fetch.queue.backoff.ms",
            "receive.message.max.bytes",
            "statistics.interval.ms",
            "log.queue",
            "log_level",
            "debug",
        ],
    ),
    ("it is not for production", &["plugin.library.paths", "test.mock.num.brokers", "test.mock.broker.rtt"]),
];

/// Largest body that a store can be set to take.
const RECORD_BYTES_MAX: usize = 64 << 20;
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// What waits for the broker at most, all lanes together. One record more than that is always taken.
const QUEUE_RECORDS: usize = 100_000;
const QUEUE_BYTES: usize = 64 << 20;
/// One request to append to one lane.
const BATCH_BYTES: usize = 1_000_000;
/// One answer to a reader, and what a reader holds ahead of its caller.
const FETCH_BYTES: usize = 1 << 20;
const AHEAD_BYTES: usize = 1 << 20;
/// How long a reader is held up by the lane it was on before, at most.
const FETCH_WAIT_MS: &str = "5";

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> Config {
        let mut config = Config::new("127.0.0.1:1", "topic");
        config.properties.insert(key.to_owned(), value.to_owned());
        config
    }

    #[test]
    fn what_the_promise_rests_on_cannot_be_set() {
        for key in ["acks", "request.required.acks", "enable.idempotence", "auto.offset.reset", "enable.auto.commit"] {
            let error = with(key, "1").check().unwrap_err();
            assert!(matches!(&error, OpenError::Reserved { key: named, .. } if named == key), "{error}");
        }
    }

    /// So that no property of ours can be set by another of its names, or left out of the list.
    #[test]
    fn every_property_the_store_sets_is_reserved() {
        let config = Config::new("127.0.0.1:1", "topic");
        for client in [config.producer(1 << 20), config.consumer()] {
            for key in client.config_map().keys() {
                let preferred = PREFERRED.iter().any(|(name, _)| name == key);
                assert!(preferred || check_property(key, "").is_err(), "{key}");
            }
        }
    }

    #[test]
    fn librdkafka_takes_all_that_the_store_sets() {
        let mut config = Config::new("127.0.0.1:1", "topic");
        for timeout in [TIMEOUTS.start(), TIMEOUTS.end()] {
            config.timeout = *timeout;
            config.producer(1 << 20).create_native_config().unwrap();
            config.consumer().create_native_config().unwrap();
        }
    }

    #[test]
    fn what_is_not_built_in_is_named() {
        let error = with("sasl.mechanisms", "GSSAPI").check().unwrap_err();
        assert!(error.to_string().contains("Kerberos"), "{error}");
        let error = with("security.protocol", "SASL_SSL").check().err();
        assert_eq!(error.is_some(), !cfg!(feature = "kafka-tls"), "{error:?}");
        assert_eq!(with("security.protocol", "sasl_plaintext").check(), Ok(()));
    }

    #[test]
    fn secrets_are_not_printed() {
        let shown = format!("{:?}", with("sasl.password", "hush"));
        assert!(shown.contains("sasl.password") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn settings_have_ranges() {
        let mut config = Config::new("127.0.0.1:1", "a topic");
        assert!(matches!(config.check(), Err(OpenError::Setting { what: "topic", .. })));
        (config.topic, config.group) = ("topic".to_owned(), "topic".to_owned());
        config.lanes = 0;
        assert!(matches!(config.check(), Err(OpenError::Setting { what: "lanes", .. })));
    }
}
