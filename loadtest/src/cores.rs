//! The cores of this machine, and which of them a server may run on. Only ever narrows what it was given.

use anyhow::Context;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How many this process may run on.
pub(crate) fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Keeps this thread, and those it starts from now on, to the first so many of the cores it may run on; 0: to all of them.
pub(crate) fn keep_to(cores: usize) -> anyhow::Result<()> {
    if cores == 0 {
        return Ok(());
    }
    let allowed = sched_getaffinity(None).context("cannot tell which cores there are")?;
    let mut kept = CpuSet::new();
    let first = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).take(cores);
    first.for_each(|core| kept.set(core));
    sched_setaffinity(None, &kept).context("cannot choose the cores to run on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_kept_to_so_many_cores() {
        let cores = std::thread::spawn(|| {
            keep_to(1).unwrap();
            std::thread::spawn(available).join().unwrap()
        });
        assert_eq!(cores.join().unwrap(), 1);
    }
}
