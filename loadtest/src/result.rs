//! The result file: an array with one object per run. The schema is what other tools read: fields are never renamed.

use crate::book::Counts;
use serde::{Deserialize, Serialize};

/// One run against one target.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RunResult {
    pub(crate) target: String,
    pub(crate) scenario: String,
    /// The bound of a closed loop; the most there were at a time otherwise.
    pub(crate) in_flight: u64,
    pub(crate) payload_bytes: usize,
    pub(crate) actions: u32,
    pub(crate) containers: u32,
    /// The measured window.
    pub(crate) seconds: f64,
    /// Counted by the generator from its ids, never taken from the router. Duplicates are second answers and second starts.
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// Within the window.
    pub(crate) offered_per_s: f64,
    pub(crate) achieved_per_s: f64,
    pub(crate) latency_us: Latency,
    pub(crate) stages_us: Stages,
    /// User and system time of the server process within the window, over activations answered in it.
    pub(crate) server_cpu_us_per_activation: f64,
    pub(crate) server_rss_bytes_max: u64,
    pub(crate) spilled: u64,
    pub(crate) refilled: u64,
    /// Beyond the published schema, and only where asked for.
    #[serde(flatten)]
    pub(crate) details: Option<Details>,
}

impl RunResult {
    /// Of controllers and workers; 0 where it is not known.
    pub(crate) fn clients_cpu_us_per_activation(&self) -> f64 {
        self.details.as_ref().map_or(0.0, |details| details.clients_cpu_us_per_activation)
    }

    /// Of the server, in the kernel; 0 where it is not known.
    pub(crate) fn server_kernel_cpu_us_per_activation(&self) -> f64 {
        self.details.as_ref().map_or(0.0, |details| details.server_kernel_cpu_us_per_activation)
    }

    /// Written by the server; 0 where it is not known.
    pub(crate) fn frames_per_activation(&self) -> f64 {
        self.details.as_ref().map_or(0.0, |details| details.frames_per_activation)
    }

    /// Of a router, in the middle of the window; 0 where it is not known.
    pub(crate) fn queued(&self) -> u64 {
        self.details.as_ref().map_or(0, |details| details.queued)
    }
}

/// What a report shows beyond a run's figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Details {
    /// User and system time of controllers and workers within the window, over activations answered in it: where parts share
    /// the cores, they bound the throughput as the server does.
    pub(crate) clients_cpu_us_per_activation: f64,
    /// Of the server's CPU, what it spent in the kernel; 0 where it is not known.
    #[serde(default)]
    pub(crate) server_kernel_cpu_us_per_activation: f64,
    /// Frames that the server wrote, to controllers and to workers, over all activations of the run.
    #[serde(default)]
    pub(crate) frames_per_activation: f64,
    /// Activations that a router had queued in the middle of the window.
    #[serde(default)]
    pub(crate) queued: u64,
    /// The latency's quantiles, more of them.
    pub(crate) curve: Vec<Quantile>,
    /// Through the window.
    pub(crate) series: Vec<Sample>,
    /// Under which circumstances.
    pub(crate) about: About,
}

/// The circumstances of a run, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// UTC.
    pub(crate) date: String,
    /// Of this project.
    pub(crate) commit: String,
    /// Processor, cores, memory, kernel.
    pub(crate) machine: String,
    /// Of the server.
    pub(crate) version: String,
    /// The server's and its clients'.
    pub(crate) settings: String,
    /// What the server promises of a delivery, so set.
    pub(crate) promise: String,
}

/// One point of a latency curve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantile {
    /// From 0 to 1.
    pub(crate) quantile: f64,
    pub(crate) us: f64,
}

/// A look at the controllers' books.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since the first activation.
    pub(crate) at_s: f64,
    /// Activations without an answer: queued, running or on their way.
    pub(crate) out: u64,
    /// Answers since the look before.
    pub(crate) rate_per_s: f64,
}

/// Round trips answered within the window, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// The stages of a round trip as the router and the containers say, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Stages {
    pub(crate) queue: Stage,
    pub(crate) dispatch: Stage,
    pub(crate) run: Stage,
}

/// One stage.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Writes the result file, by the published schema.
pub(crate) fn write(path: &std::path::Path, results: &[RunResult]) -> anyhow::Result<()> {
    let results: Vec<RunResult> = results.iter().map(|result| RunResult { details: None, ..result.clone() }).collect();
    write_with_details(path, &results)
}

/// Writes the result file with what else is known: more keys than published.
pub(crate) fn write_with_details(path: &std::path::Path, results: &[impl Serialize]) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(results)?;
    std::fs::write(path, text + "\n").map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// The middle one of the values, by size; of an even number the mean of the two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_the_published_one() {
        let value = serde_json::to_value(RunResult::default()).unwrap();
        let fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "target",
            "scenario",
            "in_flight",
            "payload_bytes",
            "actions",
            "containers",
            "seconds",
            "submitted",
            "completed",
            "failed",
            "expired",
            "rejected",
            "lost",
            "unanswered",
            "duplicates",
            "offered_per_s",
            "achieved_per_s",
            "latency_us",
            "stages_us",
            "server_cpu_us_per_activation",
            "server_rss_bytes_max",
            "spilled",
            "refilled",
        ];
        expected.sort_unstable();
        assert_eq!(fields, expected);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median([]).is_nan());
    }
}
