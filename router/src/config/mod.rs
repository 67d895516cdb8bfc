//! The configuration: one struct, read once, checked whole before a port opens.
//!
//! Values come from, later ones winning, the defaults, a TOML file, the environment and the command line ([`Setting`]). `rules`
//! says what is allowed, `check` finds all that is not before any is reported ([`Faults`]), `toml` writes values down. Nothing
//! here may open a port or a store, and nothing may read the environment or the file after it.

mod check;
mod fault;
mod file;
mod rules;
mod sections;
mod setting;
#[cfg(test)]
mod tests;
mod toml;

pub use fault::{Fault, Faults};
pub use sections::{Breaker, Http2, Limits, Overflow};
pub use setting::Setting;

use check::checked;
use figment::Figment;
use figment::providers::Serialized;
use file::ConfigFile;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

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
    /// Microseconds a worker with nothing to do looks for more before it sleeps, while that mostly finds something; up to
    /// 10,000. Default 120: saves the time that waking takes, at the most for a core of each worker. 0: it sleeps at once.
    pub lookout_us_max: u64,
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

impl Default for Config {
    fn default() -> Self {
        Self {
            router_id: "router-0".to_owned(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7400),
            admin_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7401),
            workers: 0,
            lookout_us_max: 120,
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

impl Config {
    /// The configuration from the defaults, `file` if given, then `settings` in their order, later ones winning.
    ///
    /// # Errors
    /// Every fault found: an unreadable file, an unknown key, a value of the wrong type, out of bounds (those of the chosen store
    /// too), at odds with another, or not possible in this build. A file that cannot be read or parsed counts as one fault; the
    /// settings are still checked. The file is read once, so it may be a pipe; it must end within 5 s and 1 MiB. Files and directories
    /// that values name are not looked at.
    pub fn load(file: Option<&Path>, settings: impl IntoIterator<Item = Setting>) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let mut layers = Figment::from(Serialized::defaults(Self::default()));
        if let Some(path) = file {
            match ConfigFile::read(path) {
                Ok(file) => layers = layers.merge(file),
                Err(fault) => faults.push(fault),
            }
        }
        for setting in settings {
            match setting.fault() {
                Some(fault) => faults.push(fault),
                None => layers = layers.merge(setting),
            }
        }
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
}

const WORKERS_MAX: usize = 256;

/// What a queued activation takes up besides its payload: 230 B measured with a million of them, `loadtest bars --only backlog`.
pub(crate) const QUEUED_OVERHEAD_BYTES: u64 = 256;

/// Bytes of the longest record that overflow writes: a payload, and 4 KiB for names, numbers and the seal.
pub(crate) fn record_bytes_max(payload_bytes_max: u32) -> usize {
    payload_bytes_max as usize + 4096
}

/// What is said of `overflow.store = "kafka"` by a build that was made without it.
pub(crate) const NO_KAFKA: &str = "this build has no Kafka (feature kafka)";

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
