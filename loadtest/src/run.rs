//! One run: start the parts, watch the server, put the result together. And several runs of several targets, interleaved.

use crate::book::Counts;
use crate::fleet::{self, Part, Place, Server, Target};
use crate::part::{ControllerReport, Event, InvokerReport};
use crate::plan::{Load, Plan};
use crate::result::{About, Details, RunResult, median};
use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// Runs a plan against one target, on a server of its own.
pub(crate) fn run(target: Target, plan: &Plan, workers: usize, place: Place) -> anyhow::Result<RunResult> {
    run_on(&Server::start(target, workers, place)?, target, plan, place)
}

/// Runs a plan against a server that is there.
pub(crate) fn run_on(server: &Server, target: Target, plan: &Plan, place: Place) -> anyhow::Result<RunResult> {
    watch(server, target, plan, place).map(|(result, _)| result)
}

/// As [`run_on`], with what the containers saw.
pub(crate) fn watch(
    server: &Server,
    target: Target,
    plan: &Plan,
    place: Place,
) -> anyhow::Result<(RunResult, InvokerReport)> {
    server.begin()?;
    let invokers = Part::start(place, &server.invokers(plan))?;
    await_ready(server, &invokers, plan.containers)?;
    let controllers = Part::start(place, &server.controllers(plan))?;

    let bar = progress_bar(&format!("{} {}", target.name(), plan.scenario()));
    let clients = [&controllers, &invokers];
    let cpu_us = || Cpu::of(server, &clients);
    let (mut before, mut after, mut queued) = (Cpu::default(), Cpu::default(), None);
    let report = loop {
        match controllers.event()? {
            Event::WindowBegins => before = cpu_us()?,
            Event::WindowEnds => after = cpu_us()?,
            Event::Progress(part) => {
                bar.set_position(permille(part));
                if part >= 0.5 && queued.is_none() {
                    queued = Some(server.admin.map_or(Ok(0), |admin| fleet::metric(admin, "router_queue_depth"))?);
                }
            }
            Event::Controllers(report) => break report,
            other => bail!("the controllers said {other:?}"),
        }
    };
    bar.finish_and_clear();
    let rss_max = server.rss_bytes_max()?;
    drop(controllers);
    let stored = |event: &str| match server.admin {
        Some(admin) => fleet::metric(admin, &format!("router_activations_total{{event=\"{event}\"}}")),
        None => Ok(0),
    };
    let (spilled, refilled) = (stored("spilled")?, stored("refilled")?);
    let seen = invokers.stop().into_iter().find_map(|event| match event {
        Event::Invokers(seen) => Some(seen),
        _ => None,
    });
    let seen = seen.unwrap_or_default();
    let details = details(&report, &seen, after.since(before), queued.unwrap_or(0));
    let result = result(target, plan, &report, &seen, after.since(before), rss_max);
    Ok((RunResult { spilled, refilled, details: Some(details), ..result }, seen))
}

/// CPU time in microseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Cpu {
    server: f64,
    /// Of the server's.
    kernel: f64,
    clients: f64,
}

impl Cpu {
    fn of(server: &Server, clients: &[&Part]) -> anyhow::Result<Self> {
        Ok(Self { server: server.cpu_us()?, kernel: server.kernel_cpu_us()?, clients: clients_cpu_us(clients)? })
    }

    fn since(self, before: Self) -> Self {
        let clients = self.clients - before.clients;
        Self { server: self.server - before.server, kernel: self.kernel - before.kernel, clients }
    }
}

/// Of parts that are processes; threads of this process are not told apart.
fn clients_cpu_us(parts: &[&Part]) -> anyhow::Result<f64> {
    let processes = parts.iter().map(|part| part.pid()).filter(|pid| *pid != std::process::id());
    processes.map(fleet::cpu_us).sum()
}

/// Waits until the server knows all containers, so that the first activations meet what the others meet.
pub(crate) fn await_ready(server: &Server, invokers: &Part, containers: u32) -> anyhow::Result<()> {
    match invokers.event_within(Duration::from_secs(60))? {
        Event::Ready => {}
        other => bail!("the invokers said {other:?}"),
    }
    match server.admin {
        Some(admin) => fleet::await_metric(admin, "router_containers", containers.into()),
        None => Ok(()),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn permille(part: f64) -> u64 {
    (part * 1000.0) as u64
}

/// On a terminal a bar, elsewhere nothing.
pub(crate) fn progress_bar(what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:24} [{bar:40}] {percent:>3}% {elapsed}").expect("a valid template");
    ProgressBar::new(1000).with_style(style.progress_chars("=> ")).with_message(what.to_owned())
}

#[allow(clippy::cast_precision_loss)]
fn result(
    target: Target,
    plan: &Plan,
    seen: &ControllerReport,
    started: &InvokerReport,
    cpu_us: Cpu,
    rss_max: u64,
) -> RunResult {
    let answered = seen.answered.max(1) as f64;
    RunResult {
        target: target.name().to_owned(),
        scenario: plan.scenario().to_owned(),
        in_flight: match plan.load {
            Load::Closed { in_flight } => in_flight.into(),
            Load::Open { .. } | Load::Replay(_) | Load::Expiry(_) | Load::Overflow(_) => seen.in_flight_max,
        },
        payload_bytes: plan.payload_bytes,
        actions: plan.actions,
        containers: plan.containers,
        seconds: seen.seconds,
        counts: Counts { duplicates: seen.counts.duplicates + started.duplicates, ..seen.counts },
        offered_per_s: seen.offered as f64 / seen.seconds,
        achieved_per_s: seen.answered as f64 / seen.seconds,
        latency_us: seen.latency,
        stages_us: seen.stages,
        server_cpu_us_per_activation: cpu_us.server / answered,
        server_rss_bytes_max: rss_max,
        spilled: 0,
        refilled: 0,
        details: None,
    }
}

#[allow(clippy::cast_precision_loss)]
fn details(seen: &ControllerReport, started: &InvokerReport, cpu_us: Cpu, queued: u64) -> Details {
    let answered = seen.answered.max(1) as f64;
    Details {
        clients_cpu_us_per_activation: cpu_us.clients / answered,
        server_kernel_cpu_us_per_activation: cpu_us.kernel / answered,
        frames_per_activation: (seen.frames + started.frames) as f64 / seen.counts.submitted.max(1) as f64,
        queued,
        curve: seen.curve.clone(),
        series: seen.series.clone(),
        about: About::default(),
    }
}

/// Runs each point in turn, a target or a plan, `repeat` times over, so that a machine that grows slower does so for all alike. The
/// results are in the order of the runs.
pub(crate) fn interleave<P>(
    points: &[P],
    repeat: usize,
    mut one: impl FnMut(&P) -> anyhow::Result<RunResult>,
) -> anyhow::Result<Vec<RunResult>> {
    let mut results = Vec::new();
    for _ in 0..repeat {
        for point in points {
            let result = one(point)?;
            println!("{}", line(&result));
            results.push(result);
        }
    }
    Ok(results)
}

/// Of interleaved runs of that many points, those of one.
pub(crate) fn of_point(results: &[RunResult], points: usize, point: usize) -> impl Iterator<Item = &RunResult> {
    results.iter().skip(point).step_by(points)
}

/// A result in one line.
pub(crate) fn line(result: &RunResult) -> String {
    let RunResult { target, scenario, achieved_per_s, latency_us: latency, .. } = result;
    format!(
        "{target:13} {scenario:15} {achieved_per_s:>9.0}/s  p50 {:>8.1} us  p99 {:>9.1} us  max {:>9.0} us  server {:>6.2} us CPU/activation, {:>4} MiB  {}",
        latency.p50,
        latency.p99,
        latency.max,
        result.server_cpu_us_per_activation,
        result.server_rss_bytes_max >> 20,
        troubles(result)
    )
}

/// What did not complete.
fn troubles(result: &RunResult) -> String {
    let Counts { completed, failed, expired, rejected, lost, unanswered, duplicates, .. } = result.counts;
    let named = [
        (failed, "failed"),
        (expired, "expired"),
        (rejected, "rejected"),
        (lost, "lost"),
        (unanswered, "UNANSWERED"),
        (duplicates, "DUPLICATES"),
    ];
    let named: Vec<String> = named.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")).collect();
    if named.is_empty() { format!("all {completed} completed") } else { named.join(", ") }
}

/// One number of a result.
type Figure = fn(&RunResult) -> f64;

/// Medians with the least and the most of each target, and the ratio of the first target's to each other's.
pub(crate) fn summary(results: &[RunResult]) -> String {
    let mut targets: Vec<&str> = Vec::new();
    for result in results {
        if !targets.contains(&result.target.as_str()) {
            targets.push(&result.target);
        }
    }
    let figures: [(&str, Figure); 4] = [
        ("achieved/s", |result| result.achieved_per_s),
        ("p50 us", |result| result.latency_us.p50),
        ("p99 us", |result| result.latency_us.p99),
        ("CPU us/activation", |result| result.server_cpu_us_per_activation),
    ];
    let mut text = String::from("median (least to most)");
    for (name, figure) in figures {
        text += &format!("\n  {name:18}");
        let of = |target: &str| results.iter().filter(move |r| r.target == target).map(figure).collect::<Vec<f64>>();
        for target in &targets {
            let values = of(target);
            let (least, most) = values.iter().fold((f64::MAX, 0_f64), |(a, b), v| (a.min(*v), b.max(*v)));
            text += &format!("  {target} {:.1} ({least:.1} to {most:.1})", median(values));
        }
        for other in targets.iter().skip(1) {
            let ratio = median(of(targets[0])) / median(of(other));
            text += &format!("  {}/{other} {ratio:.3}", targets[0]);
        }
    }
    text
}
