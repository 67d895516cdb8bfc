//! Bars by target, as SVG: the median as a bar, the least and the most as a whisker. And the one picture for a README.

use super::figures::{self, Scenario, Spread, class, title};
use super::page::CHART_STYLE;
use crate::result::RunResult;
use anyhow::Context;
use std::fmt::Write;

/// A figure in all its shapes.
pub(crate) struct Figure {
    pub(crate) of: fn(&RunResult) -> f64,
    pub(crate) show: fn(f64) -> String,
    /// Whether more is better.
    pub(crate) most_first: bool,
}

/// Round trips per second.
pub(crate) const THROUGHPUT: Figure =
    Figure { of: |run| run.achieved_per_s, show: |rate| format!("{}/s", figures::short(rate)), most_first: true };

/// Server CPU per activation.
pub(crate) const CPU: Figure =
    Figure { of: |run| run.server_cpu_us_per_activation, show: figures::time, most_first: false };

/// What controllers and workers take for it.
pub(crate) const CLIENTS_CPU: Figure =
    Figure { of: RunResult::clients_cpu_us_per_activation, show: figures::time, most_first: false };

/// The server's memory.
pub(crate) const MEMORY: Figure = Figure {
    of: |run| mebibytes(run.server_rss_bytes_max),
    show: |mib| format!("{} MiB", figures::digits(mib)),
    most_first: false,
};

#[allow(clippy::cast_precision_loss)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

const ROW: f64 = 26.0;
const LABEL: f64 = 142.0;
const VALUE: f64 = 66.0;
const WIDTH: f64 = 412.0;

/// Writing to a string cannot fail.
macro_rules! put {
    ($($arg:tt)*) => { let _ = write!($($arg)*); };
}

/// One bar for each target of a scenario, the best first.
pub(crate) fn bars(scenario: &Scenario<'_>, figure: &Figure) -> String {
    let (rows, height) = rows(scenario, figure);
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">{rows}</svg>")
}

/// The bars and how high they are together.
fn rows(scenario: &Scenario<'_>, figure: &Figure) -> (String, f64) {
    let mut spreads = scenario.spread(figure.of);
    spreads.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
    if figure.most_first {
        spreads.reverse();
    }
    let most = spreads.iter().map(|(_, spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
    let (mut svg, mut top) = (String::new(), 2.0);
    for (target, spread) in spreads {
        row(&mut svg, top, target, spread, most, figure);
        top += ROW;
    }
    (svg, top + 2.0)
}

fn row(svg: &mut String, top: f64, target: &str, spread: Spread, most: f64, figure: &Figure) {
    let long = |value: f64| (value / most).max(0.0) * (WIDTH - LABEL - VALUE);
    let (middle, bar) = (top + ROW / 2.0, long(spread.median).max(1.5));
    let (class, name) = (class(target), title(target));
    let strong = if target == "router" { " strong" } else { "" };
    put!(
        svg,
        "<g><title>{name}: {} ({} to {})</title>",
        (figure.show)(spread.median),
        (figure.show)(spread.least),
        (figure.show)(spread.most)
    );
    put!(
        svg,
        "<text class=\"name{strong}\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>",
        LABEL - 10.0,
        middle + 4.0
    );
    put!(
        svg,
        "<rect class=\"bar {class}\" x=\"{LABEL}\" y=\"{}\" width=\"{bar:.1}\" height=\"{}\" rx=\"2\"/>",
        top + 4.0,
        ROW - 8.0
    );
    let (from, to) = (LABEL + long(spread.least), LABEL + long(spread.most));
    if to - from > 1.0 {
        put!(
            svg,
            "<path class=\"whisker\" d=\"M{from:.1} {middle}H{to:.1}M{from:.1} {}v6M{to:.1} {}v6\"/>",
            middle - 3.0,
            middle - 3.0
        );
    }
    let behind = to.max(LABEL + bar) + 8.0;
    put!(
        svg,
        "<text class=\"value{strong}\" x=\"{behind:.1}\" y=\"{}\">{}</text></g>",
        middle + 4.0,
        (figure.show)(spread.median)
    );
}

/// Throughput and CPU of the closed loop with most in flight, side by side, with a style of its own: a file that stands by itself.
pub(crate) fn picture(runs: &[RunResult]) -> anyhow::Result<String> {
    let scenarios = figures::scenarios(runs);
    let closed = scenarios.iter().filter(|scenario| scenario.is_closed() && scenario.targets.len() > 1);
    let most = closed.max_by_key(|scenario| (scenario.targets.len(), scenario.any().map_or(0, |run| run.in_flight)));
    let scenario = most.context("a picture takes a closed loop over two targets or more")?;
    let ((left, height), (right, _)) = (rows(scenario, &THROUGHPUT), rows(scenario, &CPU));
    let (panel, total) = (WIDTH + 20.0, height + 84.0);
    let heading = |x: f64, text: &str| format!("<text class=\"heading\" x=\"{x}\" y=\"50\">{text}</text>");
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {total}\" width=\"{width}\" height=\"{total}\" role=\"img\">\
         <style>{CHART_STYLE}</style><rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\
         <text class=\"axis\" x=\"20\" y=\"24\">Round trip controller, server, worker and back; {}; medians, whiskers from least to most</text>\
         {}{}<g transform=\"translate(10 60)\">{left}</g><g transform=\"translate({} 60)\">{right}</g></svg>\n",
        2.0 * panel - 1.0,
        total - 1.0,
        figures::escape(&scenario.name),
        heading(20.0, "Throughput: more is better"),
        heading(panel + 20.0, "Server CPU per activation: less is better"),
        panel + 10.0,
        width = 2.0 * panel,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(target: &str, in_flight: u64, achieved_per_s: f64) -> RunResult {
        RunResult {
            target: target.to_owned(),
            scenario: "closed".to_owned(),
            in_flight,
            achieved_per_s,
            ..RunResult::default()
        }
    }

    #[test]
    fn the_best_is_first() {
        let runs = [run("nats", 64, 200.0), run("router", 64, 300.0), run("nats", 64, 100.0)];
        let scenarios = figures::scenarios(&runs);
        let svg = bars(&scenarios[0], &THROUGHPUT);
        assert!(svg.find("this router").unwrap() < svg.find("NATS core").unwrap());
        assert!(svg.contains("NATS core: 150/s (100/s to 200/s)"), "{svg}");
    }

    #[test]
    fn the_picture_takes_the_loop_with_most_in_flight() {
        let runs = [run("router", 64, 1.0), run("nats", 64, 1.0), run("router", 4096, 3.0), run("nats", 4096, 2.0)];
        assert!(picture(&runs).unwrap().contains("4096 in flight"));
        assert!(picture(&runs[..1]).unwrap_err().to_string().contains("two targets"));
    }
}
