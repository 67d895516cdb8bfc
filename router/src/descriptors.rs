//! File descriptors: how many the process may have open, and how many it needs.

use crate::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, and warns if that is below what the
/// configuration may need. For the start of the process.
pub(crate) fn raise(config: &Config) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Without a hard limit the kernel still has one, at least this.
    let most = maximum.unwrap_or(WITHOUT_LIMIT);
    if current.is_some_and(|current| current < most)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum })
    {
        tracing::warn!(%error, soft = current, hard = most, "the soft limit of open files cannot be raised");
    }
    let needed = needed(config);
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            connections_max = config.limits.connections_max,
            "fewer files may be open than may be needed: raise the limit of open files or lower limits.connections_max"
        );
    }
}

/// Descriptors that the process may have open at a time: connections, what the store has open, and
/// what runtimes, ports and logs take.
fn needed(config: &Config) -> u64 {
    let connections = config.limits.connections_max as u64;
    let workers = config.workers_chosen() as u64 * PER_WORKER;
    let store = match config.overflow.store.as_str() {
        "disk" => u64::from(config.overflow.lanes) * PER_LANE + OF_STORE,
        "kafka" => OF_STORE,
        _ => 0,
    };
    connections + crate::admin::CONNECTIONS_MAX as u64 + workers + store + OF_PROCESS
}

const WITHOUT_LIMIT: u64 = 1 << 20;
/// A worker's runtime: epoll, its waker, a copy of the signal pipe.
const PER_WORKER: u64 = 4;
/// The segment that is written, one that is read.
const PER_LANE: u64 = 2;
/// Directory, lock, marks; brokers.
const OF_STORE: u64 = 32;
/// Standard streams, two listeners, the main runtime, spare descriptors.
const OF_PROCESS: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_lanes_count() {
        let mut config = Config { workers: 2, ..Config::default() };
        let idle = needed(&config);
        assert!((4_096 + 64..4_096 + 256).contains(&idle), "{idle}");
        config.limits.connections_max = 5_096;
        assert_eq!(needed(&config), idle + 1_000);
        config.overflow.store = "disk".to_owned();
        config.overflow.lanes = 100;
        assert_eq!(needed(&config), idle + 1_000 + 200 + OF_STORE);
    }
}
