//! The page: what is on it and in which order.

use super::bars::{self, CLIENTS_CPU, CPU, Figure, MEMORY, THROUGHPUT};
use super::chart::{self, Axis, Line, Scale};
use super::figures::{self, Scenario, class, escape, short, time, title};
use crate::compare;
use crate::result::{About, RunResult};

/// The part of the style that pictures need, with all colours.
pub(crate) const CHART_STYLE: &str = include_str!("chart.css");
const PAGE_STYLE: &str = include_str!("page.css");

/// The whole page.
pub(crate) fn page(runs: &[RunResult]) -> String {
    let scenarios = figures::scenarios(runs);
    let sections = [
        head(runs),
        facts(runs),
        legend(&scenarios),
        verdicts(runs),
        section(
            "Throughput",
            "Closed loops: each answer brings the next activation. Median, whisker from least to most.",
            bar_tiles(&scenarios, &THROUGHPUT, |scenario| scenario.is_closed()),
        ),
        section(
            "Server CPU per activation",
            "Time that the server's processes spent on a processor, as the operating system counts it, over activations answered.",
            bar_tiles(&scenarios, &CPU, |_| true),
        ),
        section(
            "Clients' CPU per activation",
            "What controllers and workers take for it. They share the cores with the server, so they bound the throughput as it does.",
            bar_tiles(&scenarios, &CLIENTS_CPU, |scenario| scenario.is_closed() && has_details(scenario)),
        ),
        section(
            "Server memory",
            "Most that was resident, all processes of the server.",
            bar_tiles(&scenarios, &MEMORY, is_saturated(&scenarios)),
        ),
        section(
            "Latency curves",
            "Round trips by quantile: the further right, the rarer. Open loops count from the intended send time, so a stall is not forgotten.",
            tiles("grid-of wide", &scenarios, curves),
        ),
        section(
            "Latency against offered load",
            "Open loops: what each target makes of the same activations per second.",
            against_load(&scenarios),
        ),
        section(
            "Through the window: answers per second",
            "The first run of each target.",
            tiles("grid-of wide", &scenarios, |scenario| series(scenario, "answers/s", |sample| sample.1)),
        ),
        section(
            "Through the window: depth",
            "Activations without an answer: queued, running or on their way. The first run of each target. \
             Open loops only: a closed loop keeps it where it was told to.",
            tiles("grid-of wide", &scenarios, |scenario| match scenario.is_closed() {
                true => None,
                false => series(scenario, "waiting for an answer", |sample| sample.0),
            }),
        ),
        section("All medians", "", medians(&scenarios)),
        section("What was run", "", settings(runs)),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Activation router: load test report</title><style>{CHART_STYLE}{PAGE_STYLE}</style></head>\n<body><main>\n{}\n</main></body></html>\n",
        sections.concat()
    )
}

fn has_details(scenario: &Scenario<'_>) -> bool {
    scenario.any().is_some_and(|run| run.details.is_some())
}

/// A section, unless there is nothing to show.
fn section(heading: &str, note: &str, body: String) -> String {
    if body.is_empty() {
        return body;
    }
    let note = if note.is_empty() { String::new() } else { format!("<p class=\"note\">{note}</p>") };
    format!("<section><h2>{heading}</h2>{note}{body}</section>\n")
}

fn about(run: &RunResult) -> Option<&About> {
    run.details.as_ref().map(|details| &details.about)
}

fn head(runs: &[RunResult]) -> String {
    let mut facts: Vec<String> = Vec::new();
    if let Some(about) = runs.iter().find_map(about) {
        facts.extend([format!("commit {}", about.commit), about.machine.clone(), about.date.clone()]);
    }
    facts.push(format!("{} runs", runs.len()));
    if let Some(run) = runs.first() {
        facts.push(format!("windows of {} s", figures::digits(run.seconds)));
    }
    let facts: Vec<String> = facts.iter().map(|fact| escape(fact)).collect();
    format!(
        "<h1>Activation router: load test report</h1><p class=\"soft\">{}</p><p>The same round trip on every target: a controller submits an \
         activation, a worker gets it and answers, the controller has the answer. Generator, workers and server share the machine.</p>\n",
        facts.join(" · ")
    )
}

/// The closed loop that most targets ran, and of those the one with most in flight.
fn saturated<'a, 'b>(scenarios: &'a [Scenario<'b>]) -> Option<&'a Scenario<'b>> {
    let closed = scenarios.iter().filter(|scenario| scenario.is_closed());
    closed.max_by_key(|scenario| (scenario.targets.len(), scenario.any().map_or(0, |run| run.in_flight)))
}

fn is_saturated<'a>(scenarios: &'a [Scenario<'_>]) -> impl Fn(&Scenario<'_>) -> bool + 'a {
    let name = saturated(scenarios).map(|scenario| scenario.name.clone());
    move |scenario| name.as_deref() == Some(&scenario.name)
}

/// How many times the others' throughput the router has.
fn facts(runs: &[RunResult]) -> String {
    let scenarios = figures::scenarios(runs);
    let Some(scenario) = saturated(&scenarios) else { return String::new() };
    let rates = scenario.spread(|run| run.achieved_per_s);
    let Some((_, router)) = rates.iter().find(|(target, _)| *target == "router") else { return String::new() };
    let mut text = fact(&format!("{}/s", short(router.median)), &format!("round trips, {}", escape(&scenario.name)));
    for (target, other) in rates.iter().filter(|(target, _)| *target != "router") {
        let times = format!("{}×", figures::digits(router.median / other.median));
        text += &fact(&times, &format!("the throughput of {} ({}/s)", title(target), short(other.median)));
    }
    format!("<div class=\"facts\">{text}</div>\n")
}

fn fact(number: &str, words: &str) -> String {
    format!("<div class=\"tile fact\"><b>{number}</b><span>{words}</span></div>")
}

fn legend(scenarios: &[Scenario<'_>]) -> String {
    let mut chips: Vec<String> = Vec::new();
    for (target, _) in scenarios.iter().flat_map(|scenario| &scenario.targets) {
        let chip = format!("<span class=\"chip {}\">{}</span>", class(target), title(target));
        if !chips.contains(&chip) {
            chips.push(chip);
        }
    }
    format!("<div class=\"legend\">{}</div>\n", chips.concat())
}

/// The bars of `compare`, where these runs say anything about one.
fn verdicts(runs: &[RunResult]) -> String {
    let payload_bytes = runs.first().map_or(0, |run| run.payload_bytes);
    let rows = compare::verdicts(runs, payload_bytes);
    let measured: Vec<_> = rows.iter().filter(|row| row.met.is_some()).collect();
    if measured.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = measured
        .iter()
        .map(|row| {
            let (class, verdict) = if row.met == Some(true) { ("met", "met") } else { ("missed", "MISSED") };
            format!(
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td><span class=\"verdict {class}\">{verdict}</span></td></tr>",
                escape(row.what), row.bar, escape(&row.measured)
            )
        })
        .collect();
    let head = "<tr><th>what</th><th class=\"n\">bar</th><th class=\"n\">measured</th><th></th></tr>";
    section(
        "Bars",
        "Ratios of medians. A miss is shown as one.",
        format!("<div class=\"scroll\"><table>{head}{}</table></div>", lines.concat()),
    )
}

fn tile(heading: &str, body: &str) -> String {
    format!("<div class=\"tile\"><h3>{}</h3>{body}</div>", escape(heading))
}

/// A tile for each scenario that has something to show.
fn tiles(class: &str, scenarios: &[Scenario<'_>], draw: impl Fn(&Scenario<'_>) -> Option<String>) -> String {
    let drawn = scenarios.iter().filter_map(|scenario| Some(tile(&scenario.name, &draw(scenario)?)));
    let drawn: String = drawn.collect();
    if drawn.is_empty() { drawn } else { format!("<div class=\"{class}\">{drawn}</div>") }
}

fn bar_tiles(scenarios: &[Scenario<'_>], figure: &Figure, which: impl Fn(&Scenario<'_>) -> bool) -> String {
    tiles("grid-of", scenarios, |scenario| which(scenario).then(|| bars::bars(scenario, figure)))
}

fn curves(scenario: &Scenario<'_>) -> Option<String> {
    let lines: Vec<Line> = scenario.targets.iter().map(|(target, runs)| line(target, figures::curve(runs))).collect();
    let nines: fn(f64) -> String = |quantile| match quantile {
        q if q >= 1.0 => "max".to_owned(),
        q => format!("{} %", (q * 1e6).round() / 1e4),
    };
    let values = || lines.iter().flat_map(|line| &line.points);
    let x = Axis::over(values().map(|point| point.0), "quantile", Scale::Nines, nines);
    let y = Axis::over(values().map(|point| point.1), "round trip", Scale::Log, time);
    Some(chart::lines(&x, &y, &lines))
}

fn line(target: &str, points: Vec<(f64, f64)>) -> Line {
    Line { target: target.to_owned(), dots: false, points }
}

/// Two charts over all open loops: the median and the 99th percentile.
fn against_load(scenarios: &[Scenario<'_>]) -> String {
    let drawn = [
        load_chart(scenarios, "median", |run| run.latency_us.p50),
        load_chart(scenarios, "99th percentile", |run| run.latency_us.p99),
    ];
    let tiles: String = drawn.into_iter().flatten().collect();
    if tiles.is_empty() { tiles } else { format!("<div class=\"grid-of wide\">{tiles}</div>") }
}

fn load_chart(scenarios: &[Scenario<'_>], what: &str, latency: fn(&RunResult) -> f64) -> Option<String> {
    let mut lines: Vec<Line> = Vec::new();
    for scenario in scenarios.iter().filter(|scenario| scenario.any().is_some_and(|run| run.scenario == "open")) {
        let offered = scenario.spread(|run| run.offered_per_s);
        for ((target, spread), (_, offered)) in scenario.spread(latency).into_iter().zip(offered) {
            let point = (offered.median, spread.median);
            match lines.iter_mut().find(|line| line.target == target) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { dots: true, ..line(target, vec![point]) }),
            }
        }
    }
    lines.iter_mut().for_each(|line| line.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    let values = || lines.iter().flat_map(|line| &line.points);
    values().next()?;
    let x = Axis::over(values().map(|point| point.0), "offered, activations/s", Scale::Log, short);
    let y = Axis::over(values().map(|point| point.1), "round trip", Scale::Log, time);
    Some(tile(what, &chart::lines(&x, &y, &lines)))
}

/// What there was through the window: depth and rate of each sample.
#[allow(clippy::cast_precision_loss)]
fn series(scenario: &Scenario<'_>, what: &'static str, pick: fn((f64, f64)) -> f64) -> Option<String> {
    let samples = |run: &RunResult| -> Vec<(f64, f64)> {
        let series = run.details.iter().flat_map(|details| &details.series);
        series.map(|sample| (sample.at_s, pick((sample.out as f64, sample.rate_per_s)))).collect()
    };
    let lines: Vec<Line> = scenario.targets.iter().map(|(target, runs)| line(target, samples(runs[0]))).collect();
    let values = || lines.iter().flat_map(|line| &line.points);
    values().next()?;
    let x = Axis::over(values().map(|point| point.0), "seconds", Scale::Linear, figures::digits);
    let y = Axis::over(values().map(|point| point.1), what, Scale::Linear, short);
    Some(chart::lines(&x, &y, &lines))
}

/// One column: its head, its figure, and how that is shown.
type Column = (&'static str, fn(&RunResult) -> f64, fn(f64) -> String);

fn medians(scenarios: &[Scenario<'_>]) -> String {
    let columns: [Column; 9] = [
        ("achieved", |run| run.achieved_per_s, |rate| format!("{}/s", short(rate))),
        ("p50", |run| run.latency_us.p50, time),
        ("p90", |run| run.latency_us.p90, time),
        ("p99", |run| run.latency_us.p99, time),
        ("p99.9", |run| run.latency_us.p999, time),
        ("CPU/activation", CPU.of, CPU.show),
        ("memory", MEMORY.of, MEMORY.show),
        ("unanswered", |run| precise(run.counts.unanswered), short),
        ("duplicates", |run| precise(run.counts.duplicates), short),
    ];
    let heads: String = columns.iter().map(|(head, ..)| format!("<th class=\"n\">{head}</th>")).collect();
    let mut rows = String::new();
    for scenario in scenarios {
        for (at, (target, runs)) in scenario.targets.iter().enumerate() {
            let cells: String = columns.iter().map(|(_, figure, show)| cell(runs, *figure, *show)).collect();
            let first = if at == 0 { " class=\"first\"" } else { "" };
            let name = if at == 0 { escape(&scenario.name) } else { String::new() };
            rows += &format!(
                "<tr{first}><td>{name}</td><td><span class=\"chip {}\">{}</span></td>{cells}</tr>",
                class(target),
                title(target)
            );
        }
    }
    format!("<div class=\"scroll\"><table><tr><th>scenario</th><th>target</th>{heads}</tr>{rows}</table></div>")
}

#[allow(clippy::cast_precision_loss)]
fn precise(count: u64) -> f64 {
    count as f64
}

fn cell(runs: &[&RunResult], figure: fn(&RunResult) -> f64, show: fn(f64) -> String) -> String {
    let spread = figures::Spread::of(runs, figure);
    let (least, most) = (show(spread.least), show(spread.most));
    let range = if least == most { String::new() } else { format!("<small>{least} to {most}</small>") };
    format!("<td class=\"n\">{}{range}</td>", show(spread.median))
}

/// Each target's version, settings and promise.
fn settings(runs: &[RunResult]) -> String {
    let mut rows: Vec<String> = Vec::new();
    for (target, about) in runs.iter().filter_map(|run| Some((&run.target, about(run)?))) {
        let name = format!("<span class=\"chip {}\">{}</span>", class(target), title(target));
        if rows.iter().any(|row| row.contains(&name)) {
            continue;
        }
        let cells = [&about.version, &about.promise, &about.settings].map(|text| format!("<td>{}</td>", escape(text)));
        rows.push(format!("<tr><td>{name}</td>{}</tr>", cells.concat()));
    }
    if rows.is_empty() {
        return String::new();
    }
    let head = "<tr><th>target</th><th>version</th><th>promise</th><th>settings</th></tr>";
    format!("<div class=\"scroll\"><table>{head}{}</table></div>", rows.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Details, Sample};

    fn run(target: &str, scenario: &str) -> RunResult {
        let sample = |at_s| Sample { at_s, out: 5, rate_per_s: 100.0 };
        let about = About { commit: "abc<def".to_owned(), version: format!("{target} 1.0"), ..About::default() };
        let series = vec![sample(1.0), sample(2.0)];
        let details = Details { series, about, ..Details::default() };
        RunResult {
            target: target.to_owned(),
            scenario: scenario.to_owned(),
            in_flight: 64,
            payload_bytes: 256,
            offered_per_s: 1000.0,
            achieved_per_s: 1000.0,
            details: Some(details),
            ..RunResult::default()
        }
    }

    #[test]
    fn everything_is_in_one_file() {
        let runs = [run("router", "closed"), run("nats", "closed"), run("router", "open"), run("nats", "open")];
        let page = page(&runs);
        for heading in [
            "Bars",
            "Throughput",
            "Server CPU",
            "Latency curves",
            "offered load",
            "depth",
            "All medians",
            "What was run",
        ] {
            assert!(page.contains(heading), "{heading}");
        }
        assert!(page.contains("abc&lt;def") && page.contains("nats 1.0"));
        for outside in ["http:", "https:", "<script", "url(", "@import", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn without_details_their_sections_are_left_out() {
        let page = page(&[RunResult { details: None, ..run("router", "closed") }]);
        assert!(page.contains("Latency curves") && page.contains("All medians"));
        assert!(!page.contains("Through the window") && !page.contains("What was run") && !page.contains("<h2>Bars"));
    }
}
