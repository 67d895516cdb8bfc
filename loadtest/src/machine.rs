//! What the figures were measured on, and with: facts for the reader of a report.

use crate::fleet::Target;
use crate::result::About;
use std::process::Command;

/// The circumstances of a run against the target.
pub(crate) fn about(target: Target) -> About {
    let (version, settings, promise) = match target.peer() {
        Some(peer) => (peer.version(), peer.about().settings, peer.about().promise),
        None => {
            (format!("{}, commit {}", env!("CARGO_PKG_VERSION"), commit()), own_settings(target), own_promise(target))
        }
    };
    About {
        date: said_by("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        commit: commit(),
        machine: machine(),
        version,
        settings: settings.to_owned(),
        promise: promise.to_owned(),
    }
}

fn own_settings(target: Target) -> &'static str {
    match target {
        Target::Pipe => "the router's listener, workers, frames and allocator; no queue, no table, no credits",
        _ => {
            "its defaults: a worker thread for every second core; a stream for each controller, one for each invoker node"
        }
    }
}

fn own_promise(target: Target) -> &'static str {
    match target {
        Target::Pipe => "none",
        _ => "at most once, in memory; every activation answered once, whatever dies; first in, first out; bounded",
    }
}

/// Of the working folder's repository; marked if there are changes.
pub(crate) fn commit() -> String {
    said_by("git", &["describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"])
}

/// Processor, cores, memory, kernel.
pub(crate) fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let after_colon = |line: &str| Some(line.split_once(':')?.1.trim().to_owned());
    let processor = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(after_colon);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kib: u64 = read("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    format!(
        "{}, {cores} cores shared by everything, {} GiB, Linux {}",
        processor.as_deref().unwrap_or("unknown processor"),
        (kib + (1 << 19)) >> 20,
        read("/proc/sys/kernel/osrelease").trim()
    )
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.unwrap_or_else(|| "unknown".to_owned())
}
