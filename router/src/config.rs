//! The configuration: one struct, read once, checked whole before a port opens.
//!
//! Values come from, later ones winning, the defaults, a TOML file, the environment and the command line. `RULES` and
//! `ORDER` say what is allowed; all faults are found before any is reported. This file may not open a port, and
//! nothing may read the environment or the file after it.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// Everything that can be set. `activation-router.example.toml` is its manual for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The process's name in answers, logs and metrics: 1 to 64 of `A-Z a-z 0-9 . _ -`. Default `router-0`; distinct
    /// per process.
    pub router_id: String,
    /// Where controllers and invokers connect (gRPC). Default 127.0.0.1:7400; port 0 is any free one. Loopback only,
    /// since there is no TLS or identity yet.
    pub listen: SocketAddr,
    /// Where operators look (HTTP). Default 127.0.0.1:7401; port 0 is any free one. Loopback only, as above.
    pub admin_listen: SocketAddr,
    /// Threads that serve streams, up to 256. Default 0: see [`Config::workers_chosen`].
    pub workers: usize,
    /// Whether gRPC reflection is answered. Default false; on where people explore with `grpcurl`.
    pub reflection: bool,
    /// What to log, in `EnvFilter`'s syntax. Default `info`.
    pub log: String,
    /// Milliseconds a drain waits for what is in hand, up to an hour. Default 30,000; below the grace period of
    /// whatever sends SIGTERM.
    pub drain_timeout_ms: u64,
    /// Milliseconds a queue may be empty and unused before it is removed, 1 s to 1 day. Default 600,000; shorter frees
    /// memory, longer saves work for actions called now and then.
    pub idle_grace_ms: u64,
    /// Milliseconds a controller whose stream broke may take to come back for its answers, up to 10 min. Default 10,000;
    /// 0: its session ends with the stream. Longer bridges longer outages, and holds answers (up to eight times
    /// `limits.outbox_bytes_max` each) for controllers that died.
    pub controller_grace_ms: u64,
    /// Milliseconds an invoker node whose stream broke may take to come back before what it runs counts as lost, up to
    /// 10 min. Default 50: callers of a node that died hear of it within 100 ms; more bridges longer outages at their cost.
    /// 0: its containers are gone with the stream.
    pub invoker_grace_ms: u64,
    /// Milliseconds after its deadline that an activation in flight is answered as timed out, up to 1 min. Default 100: the
    /// time that an answer given at the last moment may be underway.
    pub overdue_grace_ms: u64,
    /// What one peer, one action and the whole router may hold.
    pub limits: Limits,
    /// When containers and nodes on which work fails are left alone.
    pub breaker: Breaker,
    /// Where goes what does not fit in memory.
    pub overflow: Overflow,
    /// How HTTP/2 connections behave.
    pub http2: Http2,
}

/// What one peer, one action and the whole router may hold; beyond each there is a named refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes in one payload, to 3 MiB. Default 1,054,644: OpenWhisk's 1 MiB and 6,068 B for what it wraps around it.
    pub payload_bytes_max: u32,
    /// Entries in one frame, to 65,536. Default 4,096; fewer make frames shorter and their cost per entry higher.
    pub frame_entries_max: u32,
    /// Bytes in one frame, to 64 MiB, at least `payload_bytes_max` and 64 KiB. Default 4 MiB.
    pub frame_bytes_max: u32,
    /// Milliseconds of time left an activation may arrive with; what asks for more is rejected. Default 1 day.
    pub time_left_ms_max: u32,
    /// Activations pending for one action, to 100 million. Default 1,000,000.
    pub action_queued_max: u32,
    /// Bytes pending for one action, to 1 TiB, at least `payload_bytes_max` and 256. Each activation counts as its payload and 256
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
    /// Connections open at a time, to 1 million; further ones are closed at once. Default 4,096; below the limit of
    /// open files.
    pub connections_max: usize,
    /// Sessions of controllers, and as many of invoker nodes, to 1 million; those that wait for their peers count. Default
    /// 65,536; further peers are refused.
    pub sessions_max: usize,
    /// Ids of ended activations that are remembered, to refuse repetitions, to 100 million; 0: none. 64 bytes for each 7.
    /// Default 458,752 (4 MiB): choose the highest rate times the seconds within which a controller may repeat itself.
    pub recent_ids: usize,
    /// Bytes waiting to be written on one stream, to 1 GiB, at least `frame_bytes_max`. Default 8 MiB; a peer that
    /// reads too slowly meets it.
    pub outbox_bytes_max: u64,
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

/// Where goes what does not fit in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overflow {
    /// `none`, `disk` or `kafka`. Default `none`: what does not fit is refused.
    pub store: String,
    /// The store's directory, for this process alone; made if it is not there. For `disk`. Default none.
    pub directory: String,
    /// Actions that overflow at a time without sharing a lane, to 4,096. Fixed when the store is made. Default 64.
    pub lanes: u16,
    /// Bytes on their way into the store, 64 KiB to 1 GiB, at least `limits.payload_bytes_max` and 256; beyond, activations are
    /// refused. Default 8 MiB.
    pub pending_bytes_max: u64,
    /// Activations of one action that are read back at a time, to 65,536. Default 4,096. Half as many again may be in memory
    /// beyond its limits.
    pub refill_records: u32,
    /// Payload bytes of one action that are read back at a time, 1 KiB to 64 MiB. Default 1 MiB.
    pub refill_bytes: u32,
    /// Bytes the store may take up, 4 MiB to 1 PiB; in Kafka by estimate. Default 8 GiB; beyond, activations are refused.
    pub store_bytes_max: u64,
    /// Bytes of one file, 64 KiB to 16 GiB: space is given back a file at a time. For `disk`. Default 64 MiB.
    pub segment_bytes: u64,
    /// File with the keys that records are sealed with; readable by its owner only. Default none: they are not.
    pub key_file: String,
    /// Brokers, as `host:port,host:port`. For `kafka`. Default none.
    pub kafka_brokers: String,
    /// The topic, made if it is not there, with a partition for each lane. For `kafka`. Default `activation-overflow`.
    pub kafka_topic: String,
    /// File with further settings of the Kafka client, a line `key=value` each (TLS, SASL). For `kafka`. Default none.
    pub kafka_settings_file: String,
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
    /// Milliseconds a stream may refuse to be written to before it is closed, 1 s to 10 min. Default 10,000.
    pub write_stall_ms: u64,
}

impl Config {
    /// The configuration from the defaults, `file` if given, then `settings` in their order, later ones winning.
    ///
    /// # Errors
    /// Every fault found: an unreadable file, an unknown key, a value of the wrong type, out of bounds, or at odds with
    /// another. A file that cannot be read or parsed counts as one fault; the settings are still checked.
    pub fn load(file: Option<&Path>, settings: impl IntoIterator<Item = Setting>) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let mut layers = Figment::from(Serialized::defaults(Self::default()));
        if let Some(path) = file {
            let toml = Toml::file_exact(path);
            match toml.data() {
                Ok(_) => layers = layers.merge(toml),
                Err(error) => faults.push(Fault::unreadable(path, &error)),
            }
        }
        let layers = settings.into_iter().fold(layers, Figment::merge);
        checked(&layers, faults)
    }

    /// Checks a configuration that code put together, by the same rules as [`Config::load`].
    ///
    /// # Errors
    /// Every fault found.
    pub fn validate(&self) -> Result<(), Faults> {
        checked(&Figment::from(Serialized::defaults(self)), Vec::new()).map(drop)
    }

    /// `workers`, or if that is 0 half of the cores this process may use, at least 1: the other half is for the
    /// neighbours it serves, and for its own accept loop and timers.
    pub fn workers_chosen(&self) -> usize {
        if self.workers > 0 {
            return self.workers;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (cores / 2).clamp(1, WORKERS_MAX)
    }

    /// Every key with its value as TOML, in the example file's order. [`Config::load`] reads it back to an equal value.
    pub fn to_toml(&self) -> String {
        let tree = Value::serialize(self).expect("strings, numbers and booleans always serialize");
        let mut toml = String::new();
        let mut section = "";
        for (key, _) in RULES {
            let (of, name) = key.rsplit_once('.').unwrap_or(("", key));
            if of != section {
                section = of;
                writeln!(toml, "\n[{section}]").expect("a String takes all text");
            }
            let value = tree.find_ref(key).expect("a test holds RULES to the struct's keys");
            writeln!(toml, "{name} = {}", shown(value)).expect("a String takes all text");
        }
        toml
    }
}

/// One key set by text from outside: a variable or a flag. The key's rule says whether the text is a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    key: String,
    text: String,
    origin: String,
}

impl Setting {
    /// What an environment variable sets, `None` if it is not one of ours.
    ///
    /// `ACTIVATION_ROUTER_LIMITS__ACTIONS_MAX` sets `limits.actions_max`. Kubernetes puts `…_SERVICE_HOST`, `…_PORT`
    /// and their like into every container next to a service named `activation-router`; those are not ours either.
    pub fn from_variable(name: &str, text: &str) -> Option<Self> {
        let key = name.strip_prefix(VARIABLE_PREFIX)?;
        if key.starts_with("SERVICE_") || key == "PORT" || key.starts_with("PORT_") {
            return None;
        }
        let key = key.to_ascii_lowercase().replace("__", ".");
        Some(Self { key, text: text.to_owned(), origin: format!("environment variable {name}") })
    }

    /// What a flag sets: `from_flag("--listen", "listen", "127.0.0.1:0")`.
    pub fn from_flag(flag: &str, key: &str, text: &str) -> Self {
        Self { key: key.to_owned(), text: text.to_owned(), origin: format!("flag {flag}") }
    }

    /// The text as its key's rule wants it; text that does not fit stays text, for the rule to refuse.
    fn value(&self) -> Value {
        match rule(&self.key) {
            Some(Rule::Whole(..)) => self.text.parse::<u64>().map_or_else(|_| self.text.clone().into(), Value::from),
            Some(Rule::Switch) => self.text.parse::<bool>().map_or_else(|_| self.text.clone().into(), Value::from),
            _ => self.text.clone().into(),
        }
    }
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let tree = figment::util::nest(&self.key, self.value());
        Ok(Map::from([(Profile::Default, tree.into_dict().unwrap_or_default())]))
    }
}

/// What is wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key with its section, `limits.actions_max`; `--config` for the file itself.
    pub key: String,
    /// The value as it was read.
    pub value: String,
    /// What it must be, and why if that is not plain.
    pub bound: String,
    /// Where it came from: built in, the file, the variable or the flag.
    pub origin: String,
}

impl Fault {
    fn unreadable(path: &Path, error: &figment::Error) -> Self {
        let reason = error.kind.to_string().trim_end().replace('\n', "\n    ");
        let bound = format!("must be a readable TOML file: {reason}");
        Self { key: "--config".into(), value: format!("{path:?}"), bound, origin: "flag --config".into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {} [{}]", self.key, self.value, self.bound, self.origin)
    }
}

/// Why a configuration was not taken: at least one fault, in one report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// The faults, in the order of the keys.
    pub fn as_slice(&self) -> &[Fault] {
        &self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault{}:", self.0.len(), if self.0.len() == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Error for Faults {}

impl Default for Config {
    fn default() -> Self {
        Self {
            router_id: "router-0".to_owned(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7400),
            admin_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7401),
            workers: 0,
            reflection: false,
            log: "info".to_owned(),
            drain_timeout_ms: 30_000,
            idle_grace_ms: 600_000,
            controller_grace_ms: 10_000,
            invoker_grace_ms: 50,
            overdue_grace_ms: 100,
            limits: Limits::default(),
            breaker: Breaker::default(),
            overflow: Overflow::default(),
            http2: Http2::default(),
        }
    }
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

impl Default for Breaker {
    fn default() -> Self {
        Self { strikes: 3, window_ms: 10_000, open_first_ms: 1_000, open_max_ms: 60_000, probes: 2, slow_after_ms: 0 }
    }
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

/// What one value must be.
enum Rule {
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
    /// One of these.
    Choice(&'static [&'static str]),
    /// A whole number within bounds, and why those if it is not plain.
    Whole(RangeInclusive<u64>, &'static str),
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const HOUR_MS: u64 = 3_600_000;
const WORKERS_MAX: usize = 256;
/// HTTP/2's largest window.
const WINDOW_MAX: u64 = (1 << 31) - 1;
/// What a frame needs besides the largest payload.
const ENVELOPE: u64 = 64 * KIB;
/// What a queued activation takes up besides its payload: 247 B measured with a million of them, `loadtest bars --only backlog`.
pub(crate) const QUEUED_OVERHEAD_BYTES: u64 = 256;
const VARIABLE_PREFIX: &str = "ACTIVATION_ROUTER_";

/// Every key, in the example file's order, with what its value must be. Upper bounds are those of the wire's types, of
/// HTTP/2, or far above sense: they catch a slip of the unit.
const RULES: &[(&str, Rule)] = &[
    ("router_id", Rule::Name),
    ("listen", Rule::Loopback),
    ("admin_listen", Rule::Loopback),
    ("workers", Rule::Whole(0..=WORKERS_MAX as u64, "0 chooses half of the cores")),
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
    ("overflow.store", Rule::Choice(&["none", "disk", "kafka"])),
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
struct AtLeast {
    key: &'static str,
    other: &'static str,
    more: u64,
    why: &'static str,
}

const ORDER: &[AtLeast] = &[
    AtLeast {
        key: "breaker.open_max_ms",
        other: "breaker.open_first_ms",
        more: 0,
        why: "it is open for longer each time",
    },
    AtLeast {
        key: "limits.frame_bytes_max",
        other: "limits.payload_bytes_max",
        more: ENVELOPE,
        why: "a frame carries a payload and what describes it",
    },
    AtLeast {
        key: "limits.action_queued_bytes_max",
        other: "limits.payload_bytes_max",
        more: QUEUED_OVERHEAD_BYTES,
        why: "an empty queue takes any payload",
    },
    AtLeast {
        key: "limits.tenant_queued_max",
        other: "limits.action_queued_max",
        more: 0,
        why: "a namespace holds each action's",
    },
    AtLeast {
        key: "limits.tenant_queued_bytes_max",
        other: "limits.action_queued_bytes_max",
        more: 0,
        why: "a namespace holds each action's",
    },
    AtLeast {
        key: "limits.router_queued_max",
        other: "limits.action_queued_max",
        more: 0,
        why: "the router holds each action's",
    },
    AtLeast {
        key: "limits.router_queued_bytes_max",
        other: "limits.action_queued_bytes_max",
        more: 0,
        why: "the router holds each action's",
    },
    AtLeast {
        key: "overflow.pending_bytes_max",
        other: "limits.payload_bytes_max",
        more: QUEUED_OVERHEAD_BYTES,
        why: "any payload may overflow",
    },
    AtLeast {
        key: "limits.outbox_bytes_max",
        other: "limits.frame_bytes_max",
        more: 0,
        why: "an empty outbox takes any frame",
    },
];

/// Keys that a store cannot do without.
const NEEDED: &[(&str, &str)] =
    &[("disk", "overflow.directory"), ("kafka", "overflow.kafka_brokers"), ("kafka", "overflow.kafka_topic")];

/// The configuration in `layers`, or all of its faults behind those already known.
fn checked(layers: &Figment, mut faults: Vec<Fault>) -> Result<Config, Faults> {
    let tree = layers.find_value("").expect("each layer was readable when it was added");
    let leaves = leaves("", &tree);
    let fault = |key: &str, value: &Value, bound| Fault {
        key: key.to_owned(),
        value: shown(value),
        bound,
        origin: origin(layers.get_metadata(value.tag())),
    };
    let single = leaves.iter().filter_map(|(key, value)| Some(fault(key, value, breach(key, value)?)));
    faults.extend(single);
    // A value that is wrong by itself is not compared with another: one cause, one fault.
    let compared: Vec<Fault> = order_breaches(&tree)
        .filter(|(keys, _)| !faults.iter().any(|known| keys.contains(&known.key.as_str())))
        .map(|([key, _], bound)| fault(key, tree.find_ref(key).unwrap_or(&tree), bound))
        .collect();
    faults.extend(compared);
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    tree.deserialize().map_err(|error| Faults(vec![fault("", &tree, error.to_string())]))
}

/// Every value that is not a section, with its key in full, in the order of `RULES`; unknown keys last.
fn leaves(prefix: &str, tree: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, value) in tree.as_dict().into_iter().flatten() {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if is_section(&key) && value.as_dict().is_some() {
            found.extend(leaves(&key, value));
        } else {
            found.push((key, value.clone()));
        }
    }
    found.sort_by_key(|(key, _)| RULES.iter().position(|(known, _)| known == key).unwrap_or(RULES.len()));
    found
}

/// What the value must be, if it is not that already.
fn breach(key: &str, value: &Value) -> Option<String> {
    match rule(key) {
        None if is_section(key) => Some(format!("is a section, write [{key}]")),
        None => Some("there is no such key".to_owned()),
        Some(Rule::Switch) => value.to_bool().is_none().then(|| "must be true or false".to_owned()),
        Some(Rule::Whole(bounds, why)) => whole_breach(bounds, why, value),
        Some(text) => match value.as_str() {
            None => Some("must be a string".to_owned()),
            Some(value) => text_breach(text, value),
        },
    }
}

fn whole_breach(bounds: &RangeInclusive<u64>, why: &str, value: &Value) -> Option<String> {
    if whole(value).is_some_and(|value| bounds.contains(&value)) {
        return None;
    }
    let because = if why.is_empty() { String::new() } else { format!(": {why}") };
    Some(format!("must be a whole number from {} to {}{because}", bounds.start(), bounds.end()))
}

fn text_breach(rule: &Rule, text: &str) -> Option<String> {
    match rule {
        Rule::Name => name_breach(text),
        Rule::Loopback => match text.parse::<SocketAddr>() {
            Err(_) => Some("must be an IP address and a port, like 127.0.0.1:7400 or [::1]:7400".to_owned()),
            Ok(address) if address.ip().is_loopback() => None,
            Ok(_) => Some("must be a loopback address: there is no TLS or identity yet".to_owned()),
        },
        Rule::Filter => {
            let refused = EnvFilter::builder().parse(text).err()?;
            Some(format!("must be a log filter, like info or info,h2=warn: {refused}"))
        }
        Rule::Choice(choices) => (!choices.contains(&text)).then(|| format!("must be one of {}", choices.join(", "))),
        Rule::Text | Rule::Switch | Rule::Whole(..) => None,
    }
}

fn name_breach(text: &str) -> Option<String> {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(safe);
    (!fits).then(|| "must be 1 to 64 of A-Z a-z 0-9 . _ -".to_owned())
}

/// Pairs of keys at odds with each other, and what the first one must be.
fn order_breaches(tree: &Value) -> impl Iterator<Item = ([&'static str; 2], String)> {
    let number = |key| tree.find_ref(key).and_then(whole);
    let too_small = ORDER.iter().filter_map(move |AtLeast { key, other, more, why }| {
        let least = number(other)?.saturating_add(*more);
        let more = if *more > 0 { format!(" + {more}") } else { String::new() };
        (number(key)? < least).then(|| ([*key, *other], format!("must be at least {least}, {other}{more}: {why}")))
    });
    let address = |key| tree.find_ref(key)?.as_str()?.parse::<SocketAddr>().ok();
    let listen = address("listen").filter(|listen| listen.port() != 0);
    let same = listen.is_some() && listen == address("admin_listen");
    let text = |key| tree.find_ref(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let missing = NEEDED.iter().filter_map(move |(store, key)| {
        let lacks = text("overflow.store") == *store && text(key).is_empty();
        lacks.then(|| ([*key, "overflow.store"], format!("must be given where overflow.store is {store:?}")))
    });
    too_small.chain(missing).chain(same.then(|| (["admin_listen", "listen"], "must differ from listen".to_owned())))
}

fn rule(key: &str) -> Option<&'static Rule> {
    RULES.iter().find(|(known, _)| *known == key).map(|(_, rule)| rule)
}

fn is_section(key: &str) -> bool {
    RULES.iter().any(|(known, _)| known.split_once('.').is_some_and(|(section, _)| section == key))
}

fn whole(value: &Value) -> Option<u64> {
    let signed = value.to_i128();
    signed.or_else(|| value.to_u128().and_then(|number| i128::try_from(number).ok()))?.try_into().ok()
}

/// The value as TOML; what no key may be is only hinted at.
fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, one) => quoted(&one.to_string()),
        Value::Bool(_, on) => on.to_string(),
        Value::Num(_, number) => match whole(value) {
            Some(whole) => whole.to_string(),
            None => number.to_i128().map_or_else(|| value.to_f64().unwrap_or(f64::NAN).to_string(), |n| n.to_string()),
        },
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "{ … }".to_owned(),
        Value::Array(..) => "[ … ]".to_owned(),
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for one in text.chars() {
        match one {
            '"' | '\\' => quoted.extend(['\\', one]),
            control if control.is_control() => {
                write!(quoted, "\\u{:04X}", u32::from(control)).expect("a String takes all text");
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

fn origin(metadata: Option<&Metadata>) -> String {
    match metadata {
        Some(Metadata { source: Some(figment::Source::File(path)), .. }) => format!("file {}", path.display()),
        Some(Metadata { name, .. }) if name.starts_with("environment") || name.starts_with("flag") => name.to_string(),
        _ => "built in".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../activation-router.example.toml");

    fn from_toml(toml: &str) -> Result<Config, Faults> {
        checked(&Figment::from(Serialized::defaults(Config::default())).merge(Toml::string(toml)), Vec::new())
    }

    /// Checks that loading `toml` reports exactly these `key: part of the bound`, in order.
    fn check_faults(toml: &str, expected: &[(&str, &str)]) {
        let faults = from_toml(toml).expect_err(toml);
        let keys: Vec<&str> = faults.as_slice().iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, expected.iter().map(|(key, _)| *key).collect::<Vec<_>>(), "{faults}");
        for (fault, (_, bound)) in faults.as_slice().iter().zip(expected) {
            assert!(fault.bound.contains(bound), "{fault} lacks {bound:?}");
        }
    }

    fn variable(name: &str, text: &str) -> Setting {
        Setting::from_variable(name, text).expect("one of ours")
    }

    #[test]
    fn the_default_is_valid_and_reads_back_from_its_own_toml() {
        let config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(from_toml(&config.to_toml()), Ok(config));
    }

    #[test]
    fn awkward_strings_read_back_too() {
        let log = r#"info,router[push{key="a\\b"}]=debug"#.to_owned();
        let config = Config { log, ..Config::default() };
        assert_eq!(from_toml(&config.to_toml()), Ok(config));
    }

    #[test]
    fn the_rules_name_every_key() {
        let tree = Value::serialize(Config::default()).unwrap();
        let keys: Vec<String> = leaves("", &tree).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, RULES.iter().map(|(key, _)| (*key).to_owned()).collect::<Vec<_>>());
    }

    #[test]
    fn the_example_is_the_default_and_names_every_key() {
        assert_eq!(from_toml(EXAMPLE), Ok(Config::default()));
        let tree = Figment::from(Toml::string(EXAMPLE)).find_value("").unwrap();
        let keys: Vec<String> = leaves("", &tree).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, RULES.iter().map(|(key, _)| (*key).to_owned()).collect::<Vec<_>>());
    }

    #[test]
    fn bounds_fit_the_types() {
        let largest: Vec<String> = RULES
            .iter()
            .filter_map(|(key, rule)| match rule {
                Rule::Whole(bounds, _) => Some(format!("{key} = {}", bounds.end())),
                _ => None,
            })
            .collect();
        // Dotted keys stand for sections. Types too small would show as a fault of the whole, without a key.
        let largest = largest.join("\n");
        from_toml(&largest).expect("each upper bound is allowed, and together they are in order");
    }

    #[test]
    fn all_faults_come_at_once() {
        check_faults(
            "router_id = ''\nlisten = '0.0.0.0:1'\nworkers = 257\nreflection = 'yes'\nlog = 'info,h2=loud'\n\
             drain_timeout_ms = -1\nidle_grace_ms = 1.5\nqueue_max = 3\nhttp2 = 7\n\
             [limits]\npayload_bytes_max = 3145729\nactions = 1\n[limit]\nactions_max = 1\n",
            &[
                ("router_id", "1 to 64"),
                ("listen", "no TLS or identity"),
                ("workers", "from 0 to 256"),
                ("reflection", "true or false"),
                ("log", "log filter"),
                ("drain_timeout_ms", "from 0 to 3600000"),
                ("idle_grace_ms", "whole number"),
                ("limits.payload_bytes_max", "from 1 to 3145728"),
                ("http2", "is a section"),
                ("limit", "no such key"),
                ("limits.actions", "no such key"),
                ("queue_max", "no such key"),
            ],
        );
    }

    #[test]
    fn values_at_odds_are_refused() {
        check_faults(
            "[limits]\nframe_bytes_max = 1120179\naction_queued_bytes_max = 1\nrouter_queued_max = 999999\n\
             outbox_bytes_max = 1120178",
            &[
                ("limits.frame_bytes_max", "at least 1120180, limits.payload_bytes_max + 65536"),
                ("limits.action_queued_bytes_max", "at least 1054900, limits.payload_bytes_max + 256"),
                ("limits.router_queued_max", "at least 1000000"),
                ("limits.outbox_bytes_max", "at least 1120179"),
            ],
        );
        check_faults(
            "[limits]\naction_queued_bytes_max = 2147483649",
            &[
                ("limits.tenant_queued_bytes_max", "at least 2147483649"),
                ("limits.router_queued_bytes_max", "at least 2147483649"),
            ],
        );
        check_faults(
            "[http2]\nconnection_window_bytes = 8388607",
            &[("http2.connection_window_bytes", "small frames")],
        );
    }

    #[test]
    fn a_value_wrong_by_itself_is_not_compared() {
        check_faults("[limits]\npayload_bytes_max = 9000000", &[("limits.payload_bytes_max", "3145728")]);
    }

    #[test]
    fn ports_may_both_be_chosen_by_the_system_but_not_be_equal() {
        from_toml("listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'").unwrap();
        from_toml("listen = '127.0.0.1:7'\nadmin_listen = '[::1]:7'").unwrap();
        check_faults("admin_listen = '127.0.0.1:7400'", &[("admin_listen", "differ from listen")]);
        check_faults("listen = 'localhost:7400'", &[("listen", "IP address and a port")]);
    }

    #[test]
    fn later_settings_win() {
        let settings = [
            variable("ACTIVATION_ROUTER_WORKERS", "3"),
            variable("ACTIVATION_ROUTER_ROUTER_ID", "7"),
            variable("ACTIVATION_ROUTER_LIMITS__ACTIONS_MAX", "5"),
            variable("ACTIVATION_ROUTER_REFLECTION", "true"),
            Setting::from_flag("--workers", "workers", "4"),
        ];
        let config = Config::load(None, settings).unwrap();
        assert_eq!((config.workers, config.router_id.as_str(), config.reflection), (4, "7", true));
        assert_eq!(config.limits, Limits { actions_max: 5, ..Limits::default() });
    }

    #[test]
    fn a_fault_says_where_it_came_from() {
        let settings = [
            variable("ACTIVATION_ROUTER_HTTP2__WRITE_STALL_MS", "10s"),
            Setting::from_flag("--listen", "listen", "10.0.0.1:1"),
        ];
        let faults = Config::load(Some(Path::new("no-such.toml")), settings).unwrap_err();
        let report = faults.to_string();
        let expected = [
            "the configuration has 3 faults:",
            "--config = \"no-such.toml\": must be a readable TOML file",
            "listen = \"10.0.0.1:1\": must be a loopback address: there is no TLS or identity yet [flag --listen]",
            "http2.write_stall_ms = \"10s\": must be a whole number from 1000 to 600000 \
             [environment variable ACTIVATION_ROUTER_HTTP2__WRITE_STALL_MS]",
        ];
        for line in expected {
            assert!(report.contains(line), "{report}\nlacks {line}");
        }
    }

    #[test]
    fn a_fault_in_a_file_names_the_file() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let faults = Config::load(Some(&path), []).unwrap_err();
        assert!(faults.as_slice().iter().all(|fault| fault.origin.ends_with("Cargo.toml")), "{faults}");
    }

    #[test]
    fn a_file_that_is_not_toml_is_one_fault_with_its_place() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config.rs");
        let faults = Config::load(Some(&path), [Setting::from_flag("--log", "log", "a=b=c")]).unwrap_err();
        let keys: Vec<&str> = faults.as_slice().iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, ["--config", "log"]);
        assert!(faults.as_slice()[0].bound.contains("line 1, column 1"), "{faults}");
    }

    #[test]
    fn strangers_in_the_environment_are_passed_over() {
        for name in
            ["PATH", "ACTIVATION_ROUTER_SERVICE_HOST", "ACTIVATION_ROUTER_PORT_7400_TCP", "ACTIVATION_ROUTER_PORT"]
        {
            assert_eq!(Setting::from_variable(name, "x"), None, "{name}");
        }
        let faults = Config::load(None, [variable("ACTIVATION_ROUTER_LISTEN_ON", "x")]).unwrap_err();
        assert_eq!(faults.as_slice()[0].bound, "there is no such key");
    }

    #[test]
    fn workers_are_chosen_if_not_given() {
        assert!((1..=WORKERS_MAX).contains(&Config::default().workers_chosen()));
        assert_eq!(Config { workers: 3, ..Config::default() }.workers_chosen(), 3);
    }
}
