//! What an activation costs, and how that grows: one dimension at a time, the others at the default point. `dimension` says which points
//! there are, `fit` puts lines through what they cost, `table` prints both. Nothing is judged here but that everything was answered once.
//!
//! A repetition goes over all points of all dimensions, each with a router of its own, so that a machine that grows slower does so for
//! all alike.

mod dimension;
mod fit;
mod table;

use crate::Common;
use crate::fleet::{Server, Target};
use crate::machine;
use crate::result::{self, RunResult};
use crate::run;
use anyhow::ensure;
use clap::{Args, ValueEnum};
use dimension::{Dimension, Point};
use serde::Serialize;

/// Flags of `scaling`.
#[derive(Debug, Args)]
pub(crate) struct ScalingArgs {
    /// Which dimensions to go along, a comma list; all without.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Dimension>,
    /// The measured window of each run; a warm-up of a fifth of it, at most 2 s, comes before.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The first and the last point of each dimension only: shows that it works.
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    common: Common,
}

/// Measures, and prints a table for each dimension. Fails if anything was not answered exactly once.
pub(crate) fn scaling(args: &ScalingArgs) -> anyhow::Result<()> {
    ensure!(args.common.repeat > 0, "--repeat must be at least 1");
    ensure!(args.seconds > 0.0 && args.seconds <= 3600.0, "--seconds must be above 0, at most 3600");
    let points = args.points();
    println!("commit {}, {}\n", machine::commit(), machine::machine());
    let results = run::interleave(&points, args.common.repeat, |point| args.run(point))?;
    println!("\n{}", table::tables(&points, &results));
    if let Some(path) = &args.common.json {
        result::write_with_details(path, &records(&points, &results))?;
    }
    let missed = results.iter().filter(|result| !whole(result)).count();
    ensure!(missed == 0, "in {missed} of {} runs something was not completed exactly once", results.len());
    Ok(())
}

impl ScalingArgs {
    fn points(&self) -> Vec<Point> {
        let wanted = if self.only.is_empty() { Dimension::value_variants() } else { &self.only };
        let of = |dimension: &Dimension| {
            let points = dimension.points(self.seconds);
            let last = points.len() - 1;
            points.into_iter().enumerate().filter(move |(at, _)| !self.short || *at == 0 || *at == last)
        };
        wanted.iter().flat_map(of).map(|(_, point)| point).collect()
    }

    fn run(&self, point: &Point) -> anyhow::Result<RunResult> {
        let workers = point.workers.unwrap_or(self.common.workers);
        let server = Server::start_on(Target::Router, workers, point.cores, self.common.place())?;
        let mut result = run::run_on(&server, Target::Router, &point.plan, self.common.place())?;
        print!("{:11} {:32} ", point.dimension.name(), point.value);
        if let Some(details) = &mut result.details {
            details.about = machine::about(Target::Router);
        }
        Ok(result)
    }
}

/// Whether all of a run's activations were completed, each once.
fn whole(result: &RunResult) -> bool {
    let counts = &result.counts;
    counts.completed == counts.submitted && counts.unanswered + counts.duplicates == 0
}

/// A run in the result file: two keys more than others have.
#[derive(Debug, Serialize)]
struct Record<'a> {
    dimension: &'static str,
    value: &'a str,
    #[serde(flatten)]
    result: &'a RunResult,
}

fn records<'a>(points: &'a [Point], results: &'a [RunResult]) -> Vec<Record<'a>> {
    let of = |(point, result): (&'a Point, &'a RunResult)| Record {
        dimension: point.dimension.name(),
        value: &point.value,
        result,
    };
    points.iter().cycle().zip(results).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Counts;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: ScalingArgs,
    }

    fn points(flags: &str) -> Vec<String> {
        let cli = Cli::parse_from(std::iter::once("scaling").chain(flags.split_whitespace()));
        cli.args.points().iter().map(|point| format!("{} {}", point.dimension.name(), point.value)).collect()
    }

    #[test]
    fn dimensions_are_chosen() {
        let payloads = "64 B, 256 B, 1 KiB, 4 KiB, 16 KiB, 64 KiB, 256 KiB, 1 MiB";
        let expected: Vec<String> = payloads.split(", ").map(|bytes| format!("payload {bytes}")).collect();
        assert_eq!(points("--only payload"), expected);
        let short = ["payload 64 B", "payload 1 MiB", "depth 0", "depth 100000"];
        assert_eq!(points("--short --only payload,depth"), short);
        assert!(points("").len() >= 36);
    }

    #[test]
    fn a_run_is_whole_if_each_was_completed_once() {
        let run = |counts| whole(&RunResult { counts, ..RunResult::default() });
        assert!(run(Counts { submitted: 3, completed: 3, ..Counts::default() }));
        assert!(!run(Counts { submitted: 3, completed: 2, unanswered: 1, ..Counts::default() }));
        assert!(!run(Counts { submitted: 3, completed: 2, lost: 1, ..Counts::default() }));
        assert!(!run(Counts { submitted: 3, completed: 3, duplicates: 1, ..Counts::default() }));
    }
}
