//! A trace: how often each function of a platform was invoked in each minute, and how long its runs took.
//!
//! - [`read`](read()): a trace from two files, as published data sets give it.
//! - [`generate`](generate()): a made-up trace with the same skew and burstiness, where no file is at hand.
//! - [`place`]: the counts of a trace as single arrivals, each with its instant and service time.
//! - [`ServiceTime`]: the distribution of one function's run times.
//!
//! Nothing here sends anything or reads a clock: a trace and a seed give the same arrivals on every run.
//!
//! The file format is that of a subset of the Azure Functions trace; whoever reports a replay of it names [`ATTRIBUTION`]:
//!
//! > Azure Functions Trace 2019, (c) Microsoft, CC BY 4.0 (github.com/Azure/AzurePublicDataset). M. Shahrad et al.,
//! > 'Serverless in the Wild', USENIX ATC 2020. Subset via eth-easl/dirigent (MIT, (c) 2024 EASL); re-encoded to sparse
//! > CSV with integer ids.
//!
//! The data set is published at github.com/Azure/AzurePublicDataset; no part of it is in this repository.

mod generate;
mod placement;
mod read;
mod service_time;

pub(crate) use generate::{Shape, generate};
pub(crate) use placement::{Arrival, Placement, ServiceTimes, place};
pub(crate) use read::read;
pub(crate) use service_time::ServiceTime;

use crate::plan::Replay;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Invocations per function and minute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trace {
    /// All functions, invoked or not; [`Count::function`] is an index into them, so a filter never shortens them.
    pub(crate) functions: Vec<Function>,
    /// The cells that are not zero, by minute and then function, each pair at most once.
    pub(crate) counts: Vec<Count>,
}

/// One function of the platform.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Function {
    /// Its number in the file.
    pub(crate) id: u32,
    /// The application it belongs to.
    pub(crate) app: u32,
    /// The tenant it belongs to: its namespace in a replay.
    pub(crate) owner: u32,
    /// What invokes it.
    pub(crate) trigger: Trigger,
    /// How long its runs take, without cold starts.
    pub(crate) service_time: ServiceTime,
}

/// What invokes a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// A request from outside.
    Http,
    /// A schedule.
    Timer,
    /// A message in a queue.
    Queue,
    /// An event of a stream.
    Event,
    /// A change in a blob or table store.
    Storage,
    /// Another function that composes it.
    Orchestration,
    /// Anything else.
    Others,
}

impl Trigger {
    /// All triggers, with the word for each in the files.
    const WORDS: [(Self, &str); 7] = [
        (Self::Http, "http"),
        (Self::Timer, "timer"),
        (Self::Queue, "queue"),
        (Self::Event, "event"),
        (Self::Storage, "storage"),
        (Self::Orchestration, "orchestration"),
        (Self::Others, "others"),
    ];
}

impl FromStr for Trigger {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(trigger, _)| *trigger).ok_or(())
    }
}

/// How often one function was invoked in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    /// Minute of the trace, from 1.
    pub(crate) minute: u32,
    /// Index into [`Trace::functions`].
    pub(crate) function: u32,
    /// Invocations in that minute, at least 1.
    pub(crate) count: u32,
}

/// The trace a plan speaks of, cut to what is to be replayed.
pub(crate) fn load(replay: &Replay) -> anyhow::Result<Trace> {
    let trace = match &replay.files {
        Some((counts, functions)) => read(counts, functions)?,
        None => generate(Shape::default(), replay.seed),
    };
    let trace = match replay.minutes {
        Some((first, last)) => trace.minutes(first..=last),
        None => trace,
    };
    Ok(trace.without_top(replay.without_top))
}

/// The arrivals of the trace a plan speaks of.
pub(crate) fn arrivals(replay: &Replay) -> anyhow::Result<Vec<Arrival>> {
    let placement = if replay.clumped { Placement::Clumped } else { Placement::Uniform };
    let service_times = if replay.service_times { ServiceTimes::Trace } else { ServiceTimes::None };
    Ok(place(&load(replay)?, placement, service_times, replay.seed, replay.speed))
}

impl Trace {
    /// Only the minutes in `range`, both ends included. They keep their numbers.
    pub(crate) fn minutes(mut self, range: RangeInclusive<u32>) -> Self {
        self.counts.retain(|cell| range.contains(&cell.minute));
        self
    }

    /// Without the `k` functions that have the most invocations here; of equal ones the first goes. Choose the minutes
    /// before: the order is that of the minutes still in the trace.
    ///
    /// One function may have more than half of all invocations, and then its queue is the whole test.
    pub(crate) fn without_top(mut self, k: usize) -> Self {
        let top: HashSet<usize> = self.ranked().into_iter().take(k).collect();
        self.counts.retain(|cell| !top.contains(&(cell.function as usize)));
        self
    }

    /// Sum of all counts.
    pub(crate) fn invocations(&self) -> u64 {
        self.counts.iter().map(|cell| u64::from(cell.count)).sum()
    }

    /// How many functions are invoked at least once.
    pub(crate) fn active_functions(&self) -> usize {
        self.invocations_by_function().into_iter().filter(|sum| *sum > 0).count()
    }

    /// Sum of counts for each of [`Trace::functions`].
    pub(crate) fn invocations_by_function(&self) -> Vec<u64> {
        let mut sums = vec![0; self.functions.len()];
        for cell in &self.counts {
            sums[cell.function as usize] += u64::from(cell.count);
        }
        sums
    }

    /// Indices of the functions, the most invoked first.
    fn ranked(&self) -> Vec<usize> {
        let sums = self.invocations_by_function();
        let mut ranked: Vec<usize> = (0..sums.len()).collect();
        ranked.sort_by_key(|index| Reverse(sums[*index]));
        ranked
    }
}

/// Must stand wherever a result from the published data set is shown. A generated trace needs none.
pub(crate) const ATTRIBUTION: &str = "Azure Functions Trace 2019, (c) Microsoft, CC BY 4.0 \
    (github.com/Azure/AzurePublicDataset). M. Shahrad et al., 'Serverless in the Wild', USENIX ATC 2020. \
    Subset via eth-easl/dirigent (MIT, (c) 2024 EASL); re-encoded to sparse CSV with integer ids.";

/// The highest minute a trace may have: one year. It keeps every offset far from overflow.
const MINUTE_MAX: u32 = 366 * 24 * 60;

/// The most invocations one function may have in one minute. A replay holds every arrival in memory, so a slipped digit
/// is refused where it is read and not met as an exhausted machine.
const COUNT_MAX: u32 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// A trace with `functions` equal functions and the cells `(minute, function, count)`.
    pub(super) fn trace(functions: u32, trigger: Trigger, cells: &[(u32, u32, u32)]) -> Trace {
        let service_time = ServiceTime::from_millis([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
        let function = |id| Function { id, app: id, owner: id, trigger, service_time: service_time.clone() };
        let count = |&(minute, function, count): &(u32, u32, u32)| Count { minute, function, count };
        Trace { functions: (0..functions).map(function).collect(), counts: cells.iter().map(count).collect() }
    }

    fn check(trace: &Trace, invocations: u64, active: usize) {
        assert_eq!((trace.invocations(), trace.active_functions()), (invocations, active));
    }

    #[test]
    fn minutes_include_both_ends() {
        let all = trace(3, Trigger::Http, &[(1, 0, 5), (2, 0, 1), (2, 1, 2), (3, 1, 7), (4, 2, 9)]);
        check(&all, 24, 3);
        check(&all.clone().minutes(2..=3), 10, 2);
        check(&all.minutes(5..=9), 0, 0);
    }

    #[test]
    fn top_functions_are_those_of_the_chosen_minutes() {
        let all = trace(3, Trigger::Http, &[(1, 0, 50), (2, 0, 1), (2, 1, 3), (2, 2, 3)]);
        check(&all.clone().without_top(0), 57, 3);
        check(&all.clone().without_top(1), 6, 2);
        let left = all.clone().minutes(2..=2).without_top(1);
        assert_eq!(left.invocations_by_function(), [1, 0, 3], "of equal functions the first goes");
        check(&all.without_top(9), 0, 0);
    }
}
