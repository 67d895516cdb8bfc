//! What the router is held to beside its peers: ratios of medians of one call, met or missed.

use crate::fleet::Target;
use crate::result::{RunResult, median};

/// One bar: router over another, in one scenario.
struct Bar {
    what: &'static str,
    against: Target,
    load: Load,
    figure: Figure,
    bound: Bound,
}

/// Which runs count.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// That many in flight, with the usual payload.
    Closed(u64),
    /// That many a second.
    Open(f64),
    /// Payloads of that many bytes.
    Large(usize),
}

#[derive(Debug, Clone, Copy)]
enum Figure {
    Rate,
    P50,
    P99,
    Cpu,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};
use Figure::{Cpu, P50, P99, Rate};
use Load::{Closed, Large, Open};

/// In the order in which they are told.
const BARS: [Bar; 23] = [
    bar("64 in flight: throughput, router / NATS", Target::Nats, Closed(64), Rate, AtLeast(1.4)),
    bar("1,024 in flight: throughput, router / NATS", Target::Nats, Closed(1024), Rate, AtLeast(1.5)),
    bar("4,096 in flight: throughput, router / NATS", Target::Nats, Closed(4096), Rate, AtLeast(1.6)),
    bar("1 in flight: p50, router / NATS", Target::Nats, Closed(1), P50, AtMost(1.0)),
    bar("1 in flight: p99, router / NATS", Target::Nats, Closed(1), P99, AtMost(1.0)),
    bar("64 in flight: p99, router / NATS", Target::Nats, Closed(64), P99, AtMost(0.5)),
    bar("5,000/s: server CPU per activation, router / NATS", Target::Nats, Open(5000.0), Cpu, AtMost(0.8)),
    bar("4,096 in flight: server CPU per activation, router / NATS", Target::Nats, Closed(4096), Cpu, AtMost(0.7)),
    bar("1,000/s: p50, router / Kafka as OpenWhisk uses it", Target::Kafka, Open(1000.0), P50, AtMost(0.1)),
    bar("1,000/s: p99, router / Kafka as OpenWhisk uses it", Target::Kafka, Open(1000.0), P99, AtMost(0.1)),
    bar(
        "4,096 in flight: throughput, router / Kafka as OpenWhisk uses it",
        Target::Kafka,
        Closed(4096),
        Rate,
        AtLeast(10.0),
    ),
    bar(
        "1,000/s: server CPU per activation, router / Kafka as OpenWhisk uses it",
        Target::Kafka,
        Open(1000.0),
        Cpu,
        AtMost(0.1),
    ),
    bar(
        "4,096 in flight: server CPU per activation, router / Kafka as OpenWhisk uses it",
        Target::Kafka,
        Closed(4096),
        Cpu,
        AtMost(0.1),
    ),
    bar("1,024 in flight: throughput, router / Redis lists", Target::RedisLists, Closed(1024), Rate, AtLeast(5.0)),
    bar(
        "1,024 in flight: server CPU per activation, router / Redis lists",
        Target::RedisLists,
        Closed(1024),
        Cpu,
        AtMost(0.2),
    ),
    bar("1,024 in flight: throughput, router / Redis streams", Target::RedisStreams, Closed(1024), Rate, AtLeast(5.0)),
    bar(
        "1,024 in flight: server CPU per activation, router / Redis streams",
        Target::RedisStreams,
        Closed(1024),
        Cpu,
        AtMost(0.2),
    ),
    bar("1,024 in flight: throughput, router / RabbitMQ", Target::Rabbitmq, Closed(1024), Rate, AtLeast(5.0)),
    bar(
        "1,024 in flight: server CPU per activation, router / RabbitMQ",
        Target::Rabbitmq,
        Closed(1024),
        Cpu,
        AtMost(0.2),
    ),
    bar("4,096 in flight: throughput, router / pipe", Target::Pipe, Closed(4096), Rate, AtLeast(0.9)),
    bar("payloads of 64 KiB: bytes/s, router / pipe", Target::Pipe, Large(65_536), Rate, AtLeast(0.9)),
    bar("payloads of 1 MiB: bytes/s, router / pipe", Target::Pipe, Large(1_048_576), Rate, AtLeast(0.9)),
    bar(
        "moonshot: round trips/s with 4,096 in flight, router / 1,000,000",
        Target::Router,
        Closed(4096),
        Rate,
        AtLeast(1e6),
    ),
];

const fn bar(what: &'static str, against: Target, load: Load, figure: Figure, bound: Bound) -> Bar {
    Bar { what, against, load, figure, bound }
}

/// What came of one bar.
pub(crate) struct Verdict {
    pub(crate) what: &'static str,
    pub(crate) bar: String,
    pub(crate) measured: String,
    /// None if there are no runs to tell it from.
    pub(crate) met: Option<bool>,
}

/// What came of all bars. `payload_bytes` is the usual payload.
pub(crate) fn verdicts(results: &[RunResult], payload_bytes: usize) -> Vec<Verdict> {
    BARS.iter().map(|bar| bar.judge(results, payload_bytes)).collect()
}

/// The table of bars; those whose runs are missing are said to be.
pub(crate) fn table(results: &[RunResult], payload_bytes: usize) -> String {
    let mut text = String::from("| what | bar | measured | |\n| --- | --- | --- | --- |\n");
    for Verdict { what, bar, measured, met } in verdicts(results, payload_bytes) {
        let verdict = met.map_or("not measured", |met| if met { "met" } else { "MISSED" });
        text += &format!("| {what} | {bar} | {measured} | {verdict} |\n");
    }
    text
}

impl Bar {
    fn judge(&self, results: &[RunResult], payload_bytes: usize) -> Verdict {
        let of = |target: Target| {
            let runs = results.iter().filter(|run| run.target == target.name() && self.load.is(run, payload_bytes));
            Some(median(runs.map(|run| self.figure.of(run)))).filter(|figure| !figure.is_nan())
        };
        let (what, bar, unit) = (self.what, self.bound.words(), self.figure.unit());
        // The moonshot is a number by itself.
        let (value, measured) = match (of(Target::Router), of(self.against)) {
            (Some(router), _) if self.against == Target::Router => (router, format!("{router:.0}{unit}")),
            (Some(router), Some(other)) => {
                let decimals = if unit == "/s" { 0 } else { 1 };
                (router / other, format!("{:.3} ({router:.decimals$} / {other:.decimals$}{unit})", router / other))
            }
            _ => return Verdict { what, bar, measured: "no runs".to_owned(), met: None },
        };
        Verdict { what, bar, measured, met: Some(self.bound.holds(value)) }
    }
}

impl Load {
    fn is(self, run: &RunResult, payload_bytes: usize) -> bool {
        let usual = run.payload_bytes == payload_bytes;
        match self {
            Closed(in_flight) => usual && run.scenario == "closed" && run.in_flight == in_flight,
            Open(rate) => usual && run.scenario == "open" && (run.offered_per_s / rate - 1.0).abs() < 0.05,
            Large(bytes) => run.payload_bytes == bytes && run.scenario == "closed",
        }
    }
}

impl Figure {
    fn of(self, run: &RunResult) -> f64 {
        match self {
            Rate => run.achieved_per_s,
            P50 => run.latency_us.p50,
            P99 => run.latency_us.p99,
            Cpu => run.server_cpu_us_per_activation,
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Rate => "/s",
            P50 | P99 | Cpu => " us",
        }
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            AtLeast(bound) => value >= bound,
            AtMost(bound) => value <= bound,
        }
    }

    fn words(self) -> String {
        match self {
            AtLeast(bound) => format!("≥ {bound}"),
            AtMost(bound) => format!("≤ {bound}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(target: Target, in_flight: u64, achieved_per_s: f64) -> RunResult {
        RunResult {
            target: target.name().to_owned(),
            scenario: "closed".to_owned(),
            in_flight,
            payload_bytes: 256,
            achieved_per_s,
            ..RunResult::default()
        }
    }

    fn line(text: &str, what: &str) -> String {
        text.lines().find(|line| line.contains(what)).unwrap().to_owned()
    }

    #[test]
    fn a_bar_is_the_ratio_of_medians() {
        let mut results: Vec<RunResult> = [100.0, 300.0, 150.0].map(|rate| closed(Target::Router, 64, rate)).into();
        results.extend([90.0, 100.0, 500.0].map(|rate| closed(Target::Nats, 64, rate)));
        let text = table(&results, 256);
        assert!(line(&text, "64 in flight: throughput, router / NATS").ends_with("1.500 (150 / 100/s) | met |"));
        assert!(line(&text, "| 1,024 in flight: throughput, router / NATS").ends_with("| no runs | not measured |"));
        let other_payload = table(&results, 16);
        assert!(line(&other_payload, "64 in flight: throughput, router / NATS").ends_with("not measured |"));
    }

    #[test]
    fn a_miss_is_printed_as_one() {
        let results = [closed(Target::Router, 4096, 600_000.0), closed(Target::Pipe, 4096, 700_000.0)];
        let text = table(&results, 256);
        assert!(line(&text, "4,096 in flight: throughput, router / pipe").ends_with("MISSED |"));
        assert!(line(&text, "moonshot").ends_with("| 600000/s | MISSED |"));
    }

    #[test]
    fn open_loops_are_told_by_what_was_offered() {
        let open = |target: Target, cpu| RunResult {
            scenario: "open".to_owned(),
            offered_per_s: 4999.7,
            server_cpu_us_per_activation: cpu,
            ..closed(target, 30, 5000.0)
        };
        let text = table(&[open(Target::Router, 10.0), open(Target::Nats, 20.0)], 256);
        assert!(line(&text, "5,000/s: server CPU").ends_with("0.500 (10.0 / 20.0 us) | met |"));
    }
}
