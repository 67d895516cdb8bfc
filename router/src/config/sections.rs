//! The sections of the configuration, each with its defaults. What is said of a key here is the manual; what holds is in `rules`.

use super::{GIB, MIB};
use serde::{Deserialize, Serialize};

/// What one peer, one action and the whole router may hold; beyond each there is a named refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes in one payload, to 3 MiB. Default 1,054,644: OpenWhisk's 1 MiB and 6,068 B for what it wraps around it.
    pub payload_bytes_max: u32,
    /// Entries in one frame, to 65,536. Default 4,096; fewer make frames shorter and their cost per entry higher.
    pub frame_entries_max: u32,
    /// Bytes in one frame, to 64 MiB, at least `payload_bytes_max` + 64 KiB. Default 4 MiB.
    pub frame_bytes_max: u32,
    /// Milliseconds of time left an activation may arrive with, to 4,294,967,295 (49 days); what asks for more is rejected.
    /// Default 1 day.
    pub time_left_ms_max: u32,
    /// Activations pending for one action, to 100 million. Default 1,000,000.
    pub action_queued_max: u32,
    /// Bytes pending for one action, to 1 TiB, at least `payload_bytes_max` + 256. Each activation counts as its payload + 256
    /// bytes, here and below. Default 1 GiB.
    pub action_queued_bytes_max: u64,
    /// Activations pending for the actions of one namespace together, to 100 million, at least `action_queued_max`. Default
    /// 2,000,000.
    pub tenant_queued_max: u32,
    /// Bytes pending for them together, to 1 TiB, at least `action_queued_bytes_max`. Default 2 GiB.
    pub tenant_queued_bytes_max: u64,
    /// Activations pending in the router, to 100 million, at least `action_queued_max`. Default 2,000,000.
    pub router_queued_max: u32,
    /// Bytes pending in the router, to 1 TiB, at least `action_queued_bytes_max`. Default 2 GiB; choose half of the
    /// memory the process may use.
    pub router_queued_bytes_max: u64,
    /// Actions known at a time, to 100 million. Default 1,000,000.
    pub actions_max: u32,
    /// Containers one invoker stream may register, to 1 million. Default 100,000.
    pub containers_per_stream_max: u32,
    /// Activations one container may run at a time, to 65,536. Default 4,096.
    pub container_concurrency_max: u32,
    /// Connections open at a time, to 1 million; further ones are closed at once. Default 4,096; below the hard
    /// limit of open files.
    pub connections_max: usize,
    /// Sessions of controllers, and as many of invoker nodes, to 1 million; those that wait for their peers count. Default
    /// 65,536; further peers are refused.
    pub sessions_max: usize,
    /// Ids of ended activations that are remembered, to refuse repetitions, to 100 million; 0: none. Rounded up to 7 times a
    /// power of two; 64 bytes for each 7, and twice that with overflow on. Default 458,752 (4 MiB): choose the highest rate times
    /// the seconds within which a controller may repeat itself.
    pub recent_ids: usize,
    /// Bytes waiting to be written on one stream, to 1 GiB, at least `frame_bytes_max`. Default 8 MiB; a peer that
    /// reads too slowly meets it.
    pub outbox_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes_max: 1_054_644,
            frame_entries_max: 4_096,
            frame_bytes_max: 4 << 20,
            time_left_ms_max: 86_400_000,
            action_queued_max: 1_000_000,
            action_queued_bytes_max: GIB,
            tenant_queued_max: 2_000_000,
            tenant_queued_bytes_max: 2 * GIB,
            router_queued_max: 2_000_000,
            router_queued_bytes_max: 2 * GIB,
            actions_max: 1_000_000,
            containers_per_stream_max: 100_000,
            container_concurrency_max: 4_096,
            connections_max: 4_096,
            sessions_max: 65_536,
            recent_ids: 458_752,
            outbox_bytes_max: 8 * MIB,
        }
    }
}

/// When containers, and nodes for an action, are left alone because work fails on them. An action's own failures, full queues
/// and expired activations never count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Strikes within a window that open a breaker, if they are at least half of what ended in it; up to 1,000; 0: no
    /// breakers. Default 3; fewer than 3 trips on bad luck, more waits longer before a bad container is left alone.
    pub strikes: u32,
    /// Milliseconds a window lasts, 100 ms to 1 h. Default 10,000.
    pub window_ms: u64,
    /// Milliseconds a breaker is open at the most at first, 10 ms to 1 h; each further time twice as long. Default 1,000.
    pub open_first_ms: u64,
    /// Milliseconds it is open at the most ever, up to 1 day, at least `open_first_ms`. Default 60,000.
    pub open_max_ms: u64,
    /// Good probes that close it, 1 to 100. Default 2.
    pub probes: u32,
    /// Milliseconds from dispatch to completion above which an activation is a strike too, up to 1 day. Default 0: none is;
    /// only for platforms whose actions are known to be quick.
    pub slow_after_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { strikes: 3, window_ms: 10_000, open_first_ms: 1_000, open_max_ms: 60_000, probes: 2, slow_after_ms: 0 }
    }
}

/// Where goes what does not fit in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overflow {
    /// `none`, `disk` or `kafka`, which takes a build with the feature `kafka`. Default `none`: what does not fit is refused.
    pub store: String,
    /// The store's directory, for this process alone; made if it is not there. For `disk`, which needs it. Default none.
    pub directory: String,
    /// Actions that overflow at a time without sharing a lane, to 4,096; with `kafka` to 1,024. Fixed when the store is made.
    /// Default 64.
    pub lanes: u16,
    /// Bytes on their way into the store, 64 KiB to 1 GiB, at least `limits.payload_bytes_max` + 256; beyond, activations are
    /// refused. Default 8 MiB.
    pub pending_bytes_max: u64,
    /// Activations of one action that are read back at a time, to 65,536. Default 4,096. Half as many again may be in memory
    /// beyond its limits.
    pub refill_records: u32,
    /// Payload bytes of one action that are read back at a time, 1 KiB to 64 MiB. Default 1 MiB.
    pub refill_bytes: u32,
    /// Bytes the store may take up, 4 MiB to 1 PiB; for `disk` at least 16 KiB for each lane + `limits.payload_bytes_max` + 4,240;
    /// in Kafka by estimate. Default 8 GiB; beyond, activations are refused.
    pub store_bytes_max: u64,
    /// Bytes of one file, 64 KiB to 16 GiB: space is given back a file at a time. For `disk`. Default 64 MiB.
    pub segment_bytes: u64,
    /// File with the keys that records are sealed with; readable by its owner only. Default none: they are not.
    pub key_file: String,
    /// Brokers, as `host:port,host:port`. For `kafka`, which needs them. Default none.
    pub kafka_brokers: String,
    /// The topic, 1 to 249 of `A-Z a-z 0-9 . _ -` and neither `.` nor `..`; made if it is not there, with a partition for each lane.
    /// For `kafka`. Default `activation-overflow`.
    pub kafka_topic: String,
    /// File with further settings of the Kafka client, librdkafka's, a line `key=value` each (TLS, SASL). For `kafka`. Default none.
    pub kafka_settings_file: String,
}

impl Default for Overflow {
    fn default() -> Self {
        Self {
            store: "none".to_owned(),
            directory: String::new(),
            lanes: 64,
            pending_bytes_max: 8 * MIB,
            refill_records: 4_096,
            refill_bytes: 1 << 20,
            store_bytes_max: 8 * GIB,
            segment_bytes: 64 * MIB,
            key_file: String::new(),
            kafka_brokers: String::new(),
            kafka_topic: "activation-overflow".to_owned(),
            kafka_settings_file: String::new(),
        }
    }
}

/// How HTTP/2 connections behave. The defaults hold against hostile peers; measure before changing one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Milliseconds between pings on a connection, 100 ms to 1 h. Default 10,000; it finds peers that vanished.
    pub keepalive_interval_ms: u64,
    /// Milliseconds a ping may stay unanswered before the connection is closed, 100 ms to 10 min. Default 10,000.
    pub keepalive_timeout_ms: u64,
    /// Streams open at a time on one connection, 100 to 65,536. Default 128.
    pub max_concurrent_streams: u32,
    /// Bytes a peer may send on one stream ahead of the reader, 64 KiB to 2 GiB - 1. Default 1 MiB.
    pub stream_window_bytes: u32,
    /// Bytes a peer may send on one connection ahead of the reader, 8 MiB to 2 GiB - 1. Default 8 MiB; worst-case
    /// memory is this times `connections_max`.
    pub connection_window_bytes: u32,
    /// Bytes a peer may put into one DATA frame, 16 KiB to 16 MiB - 1. Default 128 KiB: a frame of entries, 64 KiB and little more,
    /// in one piece; a connection holds that much before anything of it is read.
    pub data_frame_bytes_max: u32,
    /// Streams a peer may have reset before the router took them up, to 65,536; beyond, its connection is closed.
    /// Default 64.
    pub pending_accept_resets_max: usize,
    /// Streams the router may have reset for a peer's faults, to 65,536; beyond, its connection is closed. Default 256:
    /// refused streams count, so stay above what an honest client overshoots by.
    pub local_error_resets_max: usize,
    /// Bytes of headers in one request, 1 KiB to 1 MiB. Default 8 KiB.
    pub header_list_bytes_max: u32,
    /// Milliseconds a stream may refuse to be written to before it is closed, 1 s to 10 min; up to a tenth more. Default
    /// 10,000.
    pub write_stall_ms: u64,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            keepalive_interval_ms: 10_000,
            keepalive_timeout_ms: 10_000,
            max_concurrent_streams: 128,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 8 << 20,
            data_frame_bytes_max: 128 << 10,
            pending_accept_resets_max: 64,
            local_error_resets_max: 256,
            header_list_bytes_max: 8_192,
            write_stall_ms: 10_000,
        }
    }
}
