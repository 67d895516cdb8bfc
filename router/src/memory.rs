//! Memory: how much the process may take, and how much its queues may take.
//!
//! A process that is refused memory ends at once, by SIGABRT. A process whose control group is out
//! of memory is killed. Neither end can be put off, so the limits of the configuration have to lie
//! below the limits of the process.

use crate::config::Config;
use rustix::process::{Resource, getrlimit};
use std::path::Path;

/// Warns if the queues may take more memory than the process. For the start of the process.
pub(crate) fn check(config: &Config) {
    let (needed, limit) = (needed(config), limit());
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            router_queued_bytes_max = config.limits.router_queued_bytes_max,
            "less memory may be taken than may be needed: raise the memory limit or lower limits.router_queued_bytes_max"
        );
    }
}

/// Bytes that the process may need: its queues full, the way to the store full, and the rest.
fn needed(config: &Config) -> u64 {
    let pending = match config.overflow.store.as_str() {
        "disk" | "kafka" => config.overflow.pending_bytes_max,
        _ => 0,
    };
    OF_PROCESS.saturating_add(config.limits.router_queued_bytes_max).saturating_add(pending)
}

/// Bytes that the process may take: its own limits, the limits of its control groups and the
/// memory of the machine, whichever is least.
fn limit() -> Option<u64> {
    let own = [Resource::As, Resource::Data].into_iter().filter_map(|resource| getrlimit(resource).current);
    own.chain(of_groups()).chain(of_machine()).min()
}

fn of_machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?;
    kib.trim().parse().ok().map(|kib: u64| kib << 10)
}

/// The least limit of the control group (version 2) and all groups above it. None: no group has a
/// limit, or none can be seen.
fn of_groups() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limits = Path::new(group).ancestors().filter_map(|group| {
        let file = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
        // Without a limit it says "max".
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    });
    limits.min()
}

/// A router that holds nothing, with its threads.
const OF_PROCESS: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_and_what_is_on_its_way_to_the_store_count() {
        let mut config = Config::default();
        let without = needed(&config);
        assert_eq!(without, config.limits.router_queued_bytes_max + OF_PROCESS);
        config.overflow.store = "disk".to_owned();
        assert_eq!(needed(&config), without + config.overflow.pending_bytes_max);
        config.limits.router_queued_bytes_max += 5;
        assert_eq!(needed(&config), without + config.overflow.pending_bytes_max + 5);
    }

    #[test]
    fn the_machine_has_memory_of_its_own() {
        let limit = limit().unwrap();
        assert!((16 << 20..1 << 50).contains(&limit), "{limit} B");
    }
}
