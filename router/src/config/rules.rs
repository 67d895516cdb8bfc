//! What every key must be, as tables. They may not look at a value: `check` does.

use super::{GIB, KIB, MIB, NO_KAFKA, QUEUED_OVERHEAD_BYTES, TIB, WORKERS_MAX};
use std::ops::RangeInclusive;

/// What one value must be.
pub(super) enum Rule {
    /// A name that is safe in a metric's label and a file's name.
    Name,
    /// An address to listen on that only this machine reaches.
    Loopback,
    /// True or false.
    Switch,
    /// A filter for the log.
    Filter,
    /// Any text.
    Text,
    /// Any text but none.
    Given,
    /// A name that Kafka takes for a topic.
    Topic,
    /// One of these; with what a build says that does not have it.
    Choice(&'static [(&'static str, Option<&'static str>)]),
    /// A whole number within bounds, and why those if it is not plain.
    Whole(RangeInclusive<u64>, &'static str),
}

/// What the value of a key must be; none if there is no such key.
pub(super) fn rule(key: &str) -> Option<&'static Rule> {
    RULES.iter().find(|(known, _)| *known == key).map(|(_, rule)| rule)
}

/// What the value of a key must be where `overflow.store` is that one, if that is something else.
pub(super) fn rule_of_store(store: &str, key: &str) -> Option<&'static Rule> {
    OF_STORE.iter().find(|(of, known, _)| (*of, *known) == (store, key)).map(|(.., rule)| rule)
}

/// Whether it is the name of a section.
pub(super) fn is_section(key: &str) -> bool {
    RULES.iter().any(|(known, _)| known.split_once('.').is_some_and(|(section, _)| section == key))
}

/// Every key, in the example file's order, with what its value must be. Upper bounds are those of the wire's types, of
/// HTTP/2, or far above sense: they catch a slip of the unit.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("router_id", Rule::Name),
    ("listen", Rule::Loopback),
    ("admin_listen", Rule::Loopback),
    ("workers", Rule::Whole(0..=WORKERS_MAX as u64, "0 chooses half of the cores")),
    ("lookout_us_max", Rule::Whole(0..=10_000, "0 sleeps at once")),
    ("reflection", Rule::Switch),
    ("log", Rule::Filter),
    ("drain_timeout_ms", Rule::Whole(0..=HOUR_MS, "")),
    ("idle_grace_ms", Rule::Whole(1_000..=24 * HOUR_MS, "")),
    ("controller_grace_ms", Rule::Whole(0..=600_000, "answers pile up meanwhile")),
    ("invoker_grace_ms", Rule::Whole(0..=600_000, "callers wait meanwhile")),
    ("overdue_grace_ms", Rule::Whole(0..=60_000, "callers wait meanwhile")),
    ("limits.payload_bytes_max", Rule::Whole(1..=3 * MIB, "a frame must have room for it")),
    ("limits.frame_entries_max", Rule::Whole(1..=65_536, "")),
    ("limits.frame_bytes_max", Rule::Whole(ENVELOPE + 1..=64 * MIB, "")),
    ("limits.time_left_ms_max", Rule::Whole(1..=u32::MAX as u64, "it travels in 32 bits")),
    ("limits.action_queued_max", Rule::Whole(1..=100_000_000, "")),
    ("limits.action_queued_bytes_max", Rule::Whole(1..=TIB, "")),
    ("limits.tenant_queued_max", Rule::Whole(1..=100_000_000, "")),
    ("limits.tenant_queued_bytes_max", Rule::Whole(1..=TIB, "")),
    ("limits.router_queued_max", Rule::Whole(1..=100_000_000, "")),
    ("limits.router_queued_bytes_max", Rule::Whole(1..=TIB, "")),
    ("limits.actions_max", Rule::Whole(1..=100_000_000, "")),
    ("limits.containers_per_stream_max", Rule::Whole(1..=1_000_000, "")),
    ("limits.container_concurrency_max", Rule::Whole(1..=65_536, "")),
    ("limits.connections_max", Rule::Whole(1..=1_000_000, "")),
    ("limits.sessions_max", Rule::Whole(1..=1_000_000, "")),
    ("limits.recent_ids", Rule::Whole(0..=100_000_000, "")),
    ("limits.outbox_bytes_max", Rule::Whole(ENVELOPE + 1..=GIB, "")),
    ("breaker.strikes", Rule::Whole(0..=1_000, "0 switches breakers off")),
    ("breaker.window_ms", Rule::Whole(100..=HOUR_MS, "")),
    ("breaker.open_first_ms", Rule::Whole(10..=HOUR_MS, "")),
    ("breaker.open_max_ms", Rule::Whole(10..=24 * HOUR_MS, "")),
    ("breaker.probes", Rule::Whole(1..=100, "")),
    ("breaker.slow_after_ms", Rule::Whole(0..=24 * HOUR_MS, "0 is never")),
    ("overflow.store", Rule::Choice(&[("none", None), ("disk", None), ("kafka", WITHOUT_KAFKA)])),
    ("overflow.directory", Rule::Text),
    ("overflow.lanes", Rule::Whole(1..=4_096, "")),
    ("overflow.pending_bytes_max", Rule::Whole(64 * KIB..=GIB, "")),
    ("overflow.refill_records", Rule::Whole(1..=65_536, "")),
    ("overflow.refill_bytes", Rule::Whole(KIB..=64 * MIB, "")),
    ("overflow.store_bytes_max", Rule::Whole(4 * MIB..=1024 * TIB, "")),
    ("overflow.segment_bytes", Rule::Whole(64 * KIB..=16 * GIB, "")),
    ("overflow.key_file", Rule::Text),
    ("overflow.kafka_brokers", Rule::Text),
    ("overflow.kafka_topic", Rule::Text),
    ("overflow.kafka_settings_file", Rule::Text),
    ("http2.keepalive_interval_ms", Rule::Whole(100..=HOUR_MS, "")),
    ("http2.keepalive_timeout_ms", Rule::Whole(100..=600_000, "")),
    (
        "http2.max_concurrent_streams",
        Rule::Whole(
            100..=65_536,
            "clients open up to 100 before they learn of a limit, and refused ones count as resets",
        ),
    ),
    ("http2.stream_window_bytes", Rule::Whole(64 * KIB..=WINDOW_MAX, "")),
    (
        "http2.connection_window_bytes",
        Rule::Whole(8 * MIB..=WINDOW_MAX, "h2 closes a connection whose unread small frames outgrow half of it"),
    ),
    ("http2.data_frame_bytes_max", Rule::Whole(16 * KIB..=16 * MIB - 1, "")),
    ("http2.pending_accept_resets_max", Rule::Whole(1..=65_536, "")),
    ("http2.local_error_resets_max", Rule::Whole(1..=65_536, "")),
    ("http2.header_list_bytes_max", Rule::Whole(KIB..=MIB, "")),
    ("http2.write_stall_ms", Rule::Whole(1_000..=600_000, "")),
];

/// A number that must be at least another one and some more.
pub(super) struct AtLeast {
    pub(super) key: &'static str,
    pub(super) other: &'static str,
    pub(super) more: u64,
    pub(super) why: &'static str,
}

/// Numbers that must be in order.
pub(super) const ORDER: &[AtLeast] = &[
    at_least("breaker.open_max_ms", "breaker.open_first_ms", 0, "it is open for longer each time"),
    at_least(
        "limits.frame_bytes_max",
        "limits.payload_bytes_max",
        ENVELOPE,
        "a frame carries a payload and what describes it",
    ),
    at_least(
        "limits.action_queued_bytes_max",
        "limits.payload_bytes_max",
        QUEUED_OVERHEAD_BYTES,
        "an empty queue takes any payload",
    ),
    at_least("limits.tenant_queued_max", "limits.action_queued_max", 0, "a namespace holds each action's"),
    at_least("limits.tenant_queued_bytes_max", "limits.action_queued_bytes_max", 0, "a namespace holds each action's"),
    at_least("limits.router_queued_max", "limits.action_queued_max", 0, "the router holds each action's"),
    at_least("limits.router_queued_bytes_max", "limits.action_queued_bytes_max", 0, "the router holds each action's"),
    at_least(
        "overflow.pending_bytes_max",
        "limits.payload_bytes_max",
        QUEUED_OVERHEAD_BYTES,
        "any payload may overflow",
    ),
    at_least("limits.outbox_bytes_max", "limits.frame_bytes_max", 0, "an empty outbox takes any frame"),
];

const fn at_least(key: &'static str, other: &'static str, more: u64, why: &'static str) -> AtLeast {
    AtLeast { key, other, more, why }
}

/// What a key must be instead where one store is chosen. Kafka's are those of `Config::check` in router/overflow/src/kafka/config.rs,
/// which is not public and only there with the feature. What the disk's check wants depends on several keys: `check` asks it.
const OF_STORE: &[(&str, &str, Rule)] = &[
    ("disk", "overflow.directory", Rule::Given),
    ("kafka", "overflow.lanes", Rule::Whole(1..=1_024, "")),
    ("kafka", "overflow.kafka_brokers", Rule::Given),
    ("kafka", "overflow.kafka_topic", Rule::Topic),
];

const WITHOUT_KAFKA: Option<&str> = if cfg!(feature = "kafka") { None } else { Some(NO_KAFKA) };
const HOUR_MS: u64 = 3_600_000;
/// HTTP/2's largest window.
const WINDOW_MAX: u64 = (1 << 31) - 1;
/// What a frame needs besides the largest payload.
const ENVELOPE: u64 = 64 * KIB;
