//! What is shown of runs: medians over the repetitions of a scenario on a target, and how numbers and targets look.

use crate::result::{RunResult, median};

/// Runs of one scenario, by target.
pub(crate) struct Scenario<'a> {
    pub(crate) name: String,
    pub(crate) targets: Vec<(String, Vec<&'a RunResult>)>,
}

/// All scenarios, in the order of their first runs.
pub(crate) fn scenarios(runs: &[RunResult]) -> Vec<Scenario<'_>> {
    let mut scenarios: Vec<Scenario<'_>> = Vec::new();
    for run in runs {
        let name = crate::compare::scenario(run);
        let at = scenarios.iter().position(|scenario| scenario.name == name).unwrap_or_else(|| {
            scenarios.push(Scenario { name, targets: Vec::new() });
            scenarios.len() - 1
        });
        let targets = &mut scenarios[at].targets;
        match targets.iter_mut().find(|(target, _)| *target == run.target) {
            Some((_, runs)) => runs.push(run),
            None => targets.push((run.target.clone(), vec![run])),
        }
    }
    scenarios
}

impl Scenario<'_> {
    /// Whether its loop is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.any().is_some_and(|run| run.scenario == "closed")
    }

    /// Any of its runs.
    pub(crate) fn any(&self) -> Option<&RunResult> {
        self.targets.first().and_then(|(_, runs)| runs.first().copied())
    }

    /// A figure of each target.
    pub(crate) fn spread(&self, figure: impl Fn(&RunResult) -> f64) -> Vec<(&str, Spread)> {
        self.targets.iter().map(|(target, runs)| (target.as_str(), Spread::of(runs, &figure))).collect()
    }
}

/// A figure over repetitions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(runs: &[&RunResult], figure: impl Fn(&RunResult) -> f64) -> Self {
        let values: Vec<f64> = runs.iter().map(|run| figure(run)).collect();
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
        Self { least, median: median(values), most }
    }
}

/// The latency curve of a target: quantiles and microseconds, each the median over runs. Without details it has five points.
pub(crate) fn curve(runs: &[&RunResult]) -> Vec<(f64, f64)> {
    let of = |run: &RunResult| -> Vec<(f64, f64)> {
        let detailed = run.details.iter().flat_map(|details| &details.curve);
        let points: Vec<_> = detailed.map(|point| (point.quantile, point.us)).collect();
        let latency = run.latency_us;
        let few =
            [(0.5, latency.p50), (0.9, latency.p90), (0.99, latency.p99), (0.999, latency.p999), (1.0, latency.max)];
        if points.is_empty() { few.to_vec() } else { points }
    };
    let curves: Vec<_> = runs.iter().map(|run| of(run)).collect();
    let points = curves.iter().map(Vec::len).min().unwrap_or(0);
    (0..points).map(|at| (curves[0][at].0, median(curves.iter().map(|curve| curve[at].1)))).collect()
}

/// Microseconds, in the unit that suits them.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if us >= 999_950.0 => format!("{} s", digits(us / 1e6)),
        us if us >= 999.5 => format!("{} ms", digits(us / 1e3)),
        us => format!("{} µs", digits(us)),
    }
}

/// A number with its thousands or millions as k or M.
pub(crate) fn short(number: f64) -> String {
    match number {
        n if n >= 999_500.0 => format!("{}M", digits(n / 1e6)),
        n if n >= 999.5 => format!("{}k", digits(n / 1e3)),
        n => digits(n),
    }
}

/// Three digits at most, no zeros behind the point.
pub(crate) fn digits(number: f64) -> String {
    let text = match number.abs() {
        n if n >= 99.95 => return format!("{number:.0}"),
        n if n >= 9.995 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A class of the style sheet for each target, so that a target has one colour everywhere.
pub(crate) fn class(target: &str) -> &'static str {
    const CLASSES: [(&str, &str); 9] = [
        ("router", "t-router"),
        ("router_without_breakers", "t-bare"),
        ("pipe", "t-pipe"),
        ("nats", "t-nats"),
        ("redis-lists", "t-lists"),
        ("redis-streams", "t-streams"),
        ("rabbitmq", "t-rabbit"),
        ("kafka", "t-kafka"),
        ("kafka-tuned", "t-tuned"),
    ];
    CLASSES.iter().find(|(name, _)| *name == target).map_or("t-other", |(_, class)| class)
}

/// How a target is called in front of people.
pub(crate) fn title(target: &str) -> String {
    match target {
        "router" => "this router".to_owned(),
        "router_without_breakers" => "router, no breakers".to_owned(),
        "pipe" => "bare pipe".to_owned(),
        "nats" => "NATS core".to_owned(),
        "redis-lists" => "Redis lists".to_owned(),
        "redis-streams" => "Redis streams".to_owned(),
        "rabbitmq" => "RabbitMQ".to_owned(),
        "kafka" => "Kafka as OpenWhisk".to_owned(),
        "kafka-tuned" => "Kafka, tuned".to_owned(),
        other => escape(other),
    }
}

/// Text as HTML and SVG take it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_at_most() {
        let shown = [0.0, 0.5, 9.999, 12.34, 100.4, 999.6, 12_345.0, 1_000_000.0].map(short);
        assert_eq!(shown, ["0", "0.5", "10", "12.3", "100", "1k", "12.3k", "1M"]);
        assert_eq!([55.0, 999.7, 1500.0, 2_000_000.0].map(time), ["55 µs", "1 ms", "1.5 ms", "2 s"]);
    }

    #[test]
    fn a_curve_is_the_median_of_curves() {
        let run = |p50| {
            let mut run = RunResult::default();
            run.latency_us.p50 = p50;
            run
        };
        let runs = [run(10.0), run(30.0), run(20.0)];
        let curve = curve(&runs.iter().collect::<Vec<_>>());
        assert_eq!((curve.len(), curve[0]), (5, (0.5, 20.0)));
    }

    #[test]
    fn nothing_from_a_file_becomes_markup() {
        assert_eq!(title("<b>\"x\"&"), "&lt;b&gt;&quot;x&quot;&amp;");
    }
}
