//! The medians of a comparison with the least and the most, one table for each scenario.

use crate::result::{RunResult, median};

/// One column: its head, its figure, its decimals.
type Column = (&'static str, fn(&RunResult) -> f64, usize);

#[allow(clippy::cast_precision_loss)]
const COLUMNS: [Column; 8] = [
    ("achieved/s", |result| result.achieved_per_s, 0),
    ("p50 us", |result| result.latency_us.p50, 0),
    ("p99 us", |result| result.latency_us.p99, 0),
    ("server CPU us/activation", |result| result.server_cpu_us_per_activation, 2),
    ("clients' CPU us/activation", RunResult::clients_cpu_us_per_activation, 2),
    ("server RSS MiB, most", |result| result.server_rss_bytes_max as f64 / f64::from(1 << 20), 0),
    ("unanswered", |result| result.counts.unanswered as f64, 0),
    ("duplicates", |result| result.counts.duplicates as f64, 0),
];

/// All tables.
pub(crate) fn medians(results: &[RunResult]) -> String {
    let mut text = String::from("Medians of all repetitions (least to most).\n");
    for scenario in distinct(results.iter().map(scenario)) {
        let heads: Vec<&str> = COLUMNS.iter().map(|column| column.0).collect();
        text +=
            &format!("\n{scenario}\n\n| target | {} |\n|{}\n", heads.join(" | "), " --- |".repeat(COLUMNS.len() + 1));
        let of_scenario: Vec<&RunResult> = results.iter().filter(|result| self::scenario(result) == scenario).collect();
        for target in distinct(of_scenario.iter().map(|result| result.target.clone())) {
            let runs: Vec<&RunResult> = of_scenario.iter().copied().filter(|result| result.target == target).collect();
            let cells: Vec<String> = COLUMNS.iter().map(|column| cell(column, &runs)).collect();
            text += &format!("| {target} | {} |\n", cells.join(" | "));
        }
    }
    text
}

/// What tells runs of one scenario from those of others.
pub(crate) fn scenario(result: &RunResult) -> String {
    let bytes = result.payload_bytes;
    match result.scenario.as_str() {
        "closed" => format!("{} in flight, {bytes} B", result.in_flight),
        scenario => format!("{scenario} loop at {:.0}/s, {bytes} B", rounded(result.offered_per_s)),
    }
}

/// To two digits: a window holds one intended time more or less.
fn rounded(rate: f64) -> f64 {
    let unit = 10_f64.powf(rate.max(1.0).log10().floor() - 1.0);
    (rate / unit).round() * unit
}

fn cell((_, figure, decimals): &Column, runs: &[&RunResult]) -> String {
    let values: Vec<f64> = runs.iter().map(|run| figure(run)).collect();
    let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    let middle = median(values);
    if format!("{least:.decimals$}") == format!("{most:.decimals$}") {
        return format!("{middle:.decimals$}");
    }
    format!("{middle:.decimals$} ({least:.decimals$} to {most:.decimals$})")
}

/// Each once, in the order of their first appearance.
fn distinct(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for each in all {
        if !seen.contains(&each) {
            seen.push(each);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_scenario_and_target_share_a_line() {
        let run = |target: &str, achieved_per_s, offered_per_s| RunResult {
            target: target.to_owned(),
            scenario: "open".to_owned(),
            payload_bytes: 256,
            achieved_per_s,
            offered_per_s,
            ..RunResult::default()
        };
        let text = medians(&[run("router", 990.0, 999.7), run("nats", 900.0, 1000.3), run("router", 1010.0, 1000.0)]);
        assert!(text.contains("open loop at 1000/s, 256 B"), "{text}");
        assert!(text.contains("| router | 1000 (990 to 1010) | 0 |"), "{text}");
        assert!(text.contains("| nats | 900 | 0 |"), "{text}");
        assert_eq!(text.matches("| target |").count(), 1);
    }

    #[test]
    fn rates_are_rounded_to_two_digits() {
        assert!((rounded(20_012.3) - 20_000.0).abs() < 1e-6);
        assert!((rounded(0.0) - 0.0).abs() < 1e-6);
    }
}
