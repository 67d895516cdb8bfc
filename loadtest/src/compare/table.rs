//! The medians of a comparison with the least and the most, one table for each scenario.

use crate::medians::{self, Column};
use crate::result::RunResult;

const COLUMNS: [Column; 8] = [
    medians::ACHIEVED,
    medians::P50,
    medians::P99,
    medians::SERVER_CPU,
    medians::CLIENTS_CPU,
    medians::SERVER_RSS,
    medians::UNANSWERED,
    medians::DUPLICATES,
];

/// All tables.
pub(crate) fn medians(results: &[RunResult]) -> String {
    let mut text = String::from("Medians of all repetitions (least to most).\n");
    for scenario in distinct(results.iter().map(scenario)) {
        let of_scenario: Vec<&RunResult> = results.iter().filter(|result| self::scenario(result) == scenario).collect();
        let rows = distinct(of_scenario.iter().map(|result| result.target.clone())).into_iter().map(|target| {
            let runs = of_scenario.iter().copied().filter(|result| result.target == target).collect();
            (target, runs)
        });
        text += &format!("\n{scenario}\n\n{}", medians::table("target", &COLUMNS, rows));
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
