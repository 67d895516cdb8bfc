//! What was measured along each dimension, as a table of medians, with the lines through it.

use super::dimension::{Dimension, Point};
use super::fit::Line;
use crate::medians::{self, Column};
use crate::result::{RunResult, median};
use crate::run;

const COLUMNS: [Column; 9] = [
    medians::ACHIEVED,
    medians::SERVER_CPU,
    medians::KERNEL_CPU,
    medians::CLIENTS_CPU,
    medians::P50,
    medians::P99,
    medians::SERVER_RSS,
    medians::FRAMES,
    medians::QUEUED,
];

/// One figure of a run.
type Figure = fn(&RunResult) -> f64;

/// All tables. `results` are those of interleaved runs of the points.
pub(crate) fn tables(points: &[Point], results: &[RunResult]) -> String {
    let mut text = String::from("Medians of all repetitions (least to most).\n");
    let mut rest: &[Point] = points;
    while let Some(first) = rest.first() {
        let dimension = first.dimension;
        let before = points.len() - rest.len();
        let here = rest.iter().take_while(|point| point.dimension == dimension).count();
        let of_point = |at| run::of_point(results, points.len(), before + at).collect();
        let runs: Vec<Vec<&RunResult>> = (0..here).map(of_point).collect();
        let rows = rest.iter().zip(&runs).map(|(point, runs)| (point.value.clone(), runs.clone()));
        text += &format!("\n{}", medians::table(dimension.name(), &COLUMNS, rows));
        text += &lines(&rest[..here], &runs);
        rest = &rest[here..];
    }
    text
}

/// What the router's CPU is a line of, if of anything: a point's place on it. With the same in flight together, each stream more takes
/// entries from the frames of the others.
#[allow(clippy::cast_precision_loss)]
fn place(point: &Point, runs: &[&RunResult]) -> Option<(&'static str, f64)> {
    match point.dimension {
        Dimension::Payload => Some(("KiB of payload", point.plan.payload_bytes as f64 / 1024.0)),
        Dimension::Controllers => Some(("controller stream", point.plan.controllers.into())),
        Dimension::Invokers => Some(("invoker node", point.plan.invokers.into())),
        Dimension::InFlight => Some(("frame written", of(runs, RunResult::frames_per_activation))),
        Dimension::Actions | Dimension::Containers | Dimension::Depth | Dimension::Cores => None,
    }
}

fn of(runs: &[&RunResult], figure: Figure) -> f64 {
    median(runs.iter().map(|run| figure(run)))
}

fn lines(points: &[Point], runs: &[Vec<&RunResult>]) -> String {
    let places: Option<Vec<_>> = points.iter().zip(runs).map(|(point, runs)| place(point, runs)).collect();
    let Some(places) = places else { return String::new() };
    let line = |(name, y): (&str, Figure)| {
        let through: Vec<(f64, f64)> = places.iter().zip(runs).map(|((_, x), runs)| (*x, of(runs, y))).collect();
        let Line { at_zero, slope, off_by_max } = Line::through(&through)?;
        let (per, percent) = (places[0].0, off_by_max * 100.0);
        Some(format!("{name} = {at_zero:.2} us + {slope:.3} us for each {per}, off by {percent:.0} % at most\n"))
    };
    let fitted: String = FITTED.into_iter().filter_map(line).collect();
    if fitted.is_empty() { fitted } else { format!("\n{fitted}") }
}

/// What lines are put through.
const FITTED: [(&str, Figure); 2] = [
    ("server CPU", |run| run.server_cpu_us_per_activation),
    ("in the kernel", RunResult::server_kernel_cpu_us_per_activation),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn run(server_cpu_us_per_activation: f64) -> RunResult {
        RunResult { server_cpu_us_per_activation, ..RunResult::default() }
    }

    #[test]
    fn runs_go_to_their_points_and_medians_make_the_line() {
        let mut points = Dimension::Controllers.points(1.0);
        points.truncate(2);
        points.push(Dimension::Depth.points(1.0).remove(0));
        // With 1 controller, with 4, and of the other dimension; three repetitions, in the order in which they are run.
        let costs = [[1.0, 5.0, 7.0], [2.0, 5.0, 8.0], [9.0, 5.0, 9.0]];
        let text = tables(&points, &costs.concat().into_iter().map(run).collect::<Vec<_>>());
        assert!(text.contains("| 1 | 0 | 2.00 (1.00 to 9.00) |"), "{text}");
        assert!(
            text.contains("server CPU = 1.00 us + 1.000 us for each controller stream, off by 0 % at most"),
            "{text}"
        );
        assert!(text.contains("| depth | achieved/s |"), "{text}");
        assert!(text.contains("| 0 | 0 | 8.00 (7.00 to 9.00) |"), "{text}");
        assert_eq!(text.matches("us for each").count(), 1, "no line through a kernel's share that is not known");
    }
}
