//! A process and all that it started, as the operating system sees them: what they take, and their end. Servers such as RabbitMQ
//! and Kafka are scripts that start a runtime that starts helpers.

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;

/// CPU time of all processes below this one so far, in microseconds. Threads that have ended count; the kernel tells it in hundredths
/// of a second.
pub(crate) fn cpu_us_below(pid: u32) -> anyhow::Result<f64> {
    let ticks: f64 = below(pid)?.iter().map(|process| process.cpu_ticks).sum();
    Ok(ticks * tick_us())
}

fn tick_us() -> f64 {
    1e6 / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100))
}

/// CPU time that a process has spent in the kernel so far, in microseconds. The kernel samples it, a few hundred times a second.
pub(crate) fn kernel_cpu_us(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(parse(&stat).context("a line of numbers in /proc")?.kernel_ticks * tick_us())
}

/// The most memory that each process below this one had resident, added up, in bytes; since the last `forget_peaks`.
pub(crate) fn rss_bytes_max_below(pid: u32) -> anyhow::Result<u64> {
    // One that has ended meanwhile has none.
    Ok(below(pid)?.iter().map(|process| crate::fleet::memory_bytes(process.pid, "VmHWM").unwrap_or(0)).sum())
}

/// Begins the peaks anew.
pub(crate) fn forget_peaks(pid: u32) -> anyhow::Result<()> {
    for process in below(pid)? {
        // Where it is not allowed, the peak is that of all runs so far.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", process.pid), "5");
    }
    Ok(())
}

/// Ends a process and all below it, at once.
pub(crate) fn end(pid: u32) {
    let family = below(pid).unwrap_or_default();
    for pid in std::iter::once(pid).chain(family.iter().map(|process| process.pid)) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Process {
    pid: u32,
    parent: u32,
    cpu_ticks: f64,
    kernel_ticks: f64,
}

/// All processes that this one started, and those that they started.
fn below(pid: u32) -> anyhow::Result<Vec<Process>> {
    let mut by_parent: HashMap<u32, Vec<Process>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").context("/proc")?.flatten() {
        // Not a process, or one that has just ended.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(process) = parse(&stat) {
            by_parent.entry(process.parent).or_default().push(process);
        }
    }
    let mut family = by_parent.remove(&pid).unwrap_or_default();
    let mut at = 0;
    while let Some(process) = family.get(at) {
        let children = by_parent.remove(&process.pid).unwrap_or_default();
        family.extend(children);
        at += 1;
    }
    Ok(family)
}

/// A line of `/proc/PID/stat`, see proc_pid_stat(5): the second field is a name in parentheses that may contain anything.
fn parse(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(' ')?;
    let fields: Vec<&str> = rest.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    let (user_ticks, kernel_ticks) = (ticks(11)?, ticks(12)?);
    let (pid, parent) = (pid.parse().ok()?, fields.get(1)?.parse().ok()?);
    Some(Process { pid, parent, cpu_ticks: user_ticks + kernel_ticks, kernel_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_name_may_contain_anything() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 1 0 100 1000 10";
        assert_eq!(parse(stat), Some(Process { pid: 42, parent: 7, cpu_ticks: 42.0, kernel_ticks: 12.0 }));
        assert_eq!(parse("42 (short) S"), None);
    }

    #[test]
    fn grandchildren_are_found_and_ended() {
        let mut shell =
            Command::new("sh").args(["-c", "sleep 60 & echo started; wait"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut word = [0; 7];
        std::io::Read::read_exact(&mut shell.stdout.take().unwrap(), &mut word).unwrap();
        let grandchildren = below(shell.id()).unwrap();
        assert_eq!(grandchildren.len(), 1);
        assert!(below(std::process::id()).unwrap().contains(&grandchildren[0]));
        end(shell.id());
        shell.wait().unwrap();
    }
}
