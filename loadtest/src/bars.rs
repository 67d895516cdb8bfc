//! The bars this router is held to, each measured as a ratio within one call, and whether it is met. A miss is printed as one.

use crate::Common;
use crate::book::Counts;
use crate::fleet::{self, Part, Place, Role, Server, Target};
use crate::part::{ControllerReport, Event, InvokerReport};
use crate::plan::{Expiry, Load, Plan, Replay};
use crate::result::{RunResult, median};
use crate::run;
use crate::verdict::{self, Verdict};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Flags of `bars`.
#[derive(Debug, Args)]
pub(crate) struct BarsArgs {
    /// Which to measure, a comma list; all without.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Bar>,
    /// The measured window of each closed loop.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The trace's invocation counts; without files a generated trace stands in.
    #[arg(long, requires = "functions")]
    counts: Option<PathBuf>,
    /// The trace's functions.
    #[arg(long, requires = "counts")]
    functions: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// One bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bar {
    /// Throughput against the pipe's.
    Saturated,
    /// What closed breakers cost of that.
    Breakers,
    /// Latency with 1 in flight against the pipe's.
    OneInFlight,
    /// Latency with 64 in flight against the pipe's.
    SixtyFour,
    /// CPU with 10,000 actions against 1.
    ManyActions,
    /// Throughput from 1 to 96 controllers.
    Controllers,
    /// Memory of 1,000,000 queued activations, their order, and what is left of it.
    Backlog,
    /// Memory of 100,000 idle actions.
    Idle,
    /// Lateness of 1,000,000 deadlines beside a flow.
    Expiry,
    /// A trace's busiest hour in six seconds.
    Replay,
}

/// Measures the bars and prints them as a table.
pub(crate) fn bars(args: &BarsArgs) -> anyhow::Result<()> {
    let wanted = if args.only.is_empty() { Bar::value_variants() } else { &args.only };
    let mut meter = Meter { args, results: Vec::new() };
    let mut verdicts = Vec::new();
    for &bar in wanted {
        verdicts.extend(meter.measure(bar)?);
    }
    verdict::print(&verdicts);
    if let Some(path) = &args.common.json {
        crate::result::write(path, &meter.results)?;
    }
    Ok(())
}

struct Meter<'a> {
    args: &'a BarsArgs,
    results: Vec<RunResult>,
}

const BOTH: [Target; 2] = [Target::Router, Target::Pipe];

impl Meter<'_> {
    fn measure(&mut self, bar: Bar) -> anyhow::Result<Vec<Verdict>> {
        match bar {
            Bar::Saturated => self.saturated(),
            Bar::Breakers => self.breakers(),
            Bar::OneInFlight => self.one_in_flight(),
            Bar::SixtyFour => self.sixty_four(),
            Bar::ManyActions => self.many_actions(),
            Bar::Controllers => self.controllers(),
            Bar::Backlog => self.backlog(),
            Bar::Idle => self.idle(),
            Bar::Expiry => self.expiry(),
            Bar::Replay => self.replay(),
        }
    }

    fn closed(&self, in_flight: u32) -> Plan {
        Plan::closed(in_flight, self.args.seconds)
    }

    fn run(&self, target: Target, plan: &Plan) -> anyhow::Result<RunResult> {
        run::run(target, plan, self.args.common.workers, self.args.common.place())
    }

    /// Router and pipe in turn.
    fn both(&mut self, plan: &Plan) -> anyhow::Result<Vec<RunResult>> {
        let results = run::interleave(&BOTH, self.args.common.repeat, |&target| self.run(target, plan))?;
        println!("{}", run::summary(&results));
        self.results.extend(results.iter().cloned());
        Ok(results)
    }

    /// Each of these runs in turn; the medians of a figure.
    fn sweep(&mut self, points: &[(Target, Plan)], figure: fn(&RunResult) -> f64) -> anyhow::Result<Vec<f64>> {
        let results = run::interleave(points, self.args.common.repeat, |(target, plan)| self.run(*target, plan))?;
        let of = |point| median(run::of_point(&results, points.len(), point).map(figure));
        let medians = (0..points.len()).map(of).collect();
        self.results.extend(results);
        Ok(medians)
    }

    fn saturated(&mut self) -> anyhow::Result<Vec<Verdict>> {
        let results = self.both(&self.closed(4096))?;
        let compared = Compared::new(&results, |result| result.achieved_per_s);
        let what = "saturated (4,096 in flight): throughput, router / pipe";
        Ok(vec![compared.verdict(what, "≥ 0.85", "/s", |ratio| ratio >= 0.85)])
    }

    fn breakers(&mut self) -> anyhow::Result<Vec<Verdict>> {
        let (plan, targets) = (self.closed(4096), [Target::Router, Target::RouterWithoutBreakers]);
        let results = run::interleave(&targets, self.args.common.repeat, |&target| self.run(target, &plan))?;
        let of = |target: Target, figure: fn(&RunResult) -> f64| {
            median(results.iter().filter(|result| result.target == target.name()).map(figure))
        };
        let [with, without] = targets.map(|target| of(target, |result| result.achieved_per_s));
        let [cpu_with, cpu_without] = targets.map(|target| of(target, |result| result.server_cpu_us_per_activation));
        let ratio = with / without;
        let measured =
            format!("{ratio:.3} ({with:.0} / {without:.0}/s; server CPU {cpu_with:.2} / {cpu_without:.2} us)");
        self.results.extend(results);
        let what = "saturated: throughput with breakers closed / disabled";
        Ok(vec![Verdict { what, bar: "≥ 0.98", measured, met: ratio >= 0.98 }])
    }

    fn one_in_flight(&mut self) -> anyhow::Result<Vec<Verdict>> {
        let results = self.both(&self.closed(1))?;
        let p50 = Compared::new(&results, |result| result.latency_us.p50);
        let p99 = Compared::new(&results, |result| result.latency_us.p99);
        Ok(vec![
            p50.verdict("1 in flight: p50, router / pipe", "≤ 1.15", " us", |ratio| ratio <= 1.15),
            p99.verdict("1 in flight: p99, router / pipe", "≤ 1.3", " us", |ratio| ratio <= 1.3),
        ])
    }

    fn sixty_four(&mut self) -> anyhow::Result<Vec<Verdict>> {
        let results = self.both(&self.closed(64))?;
        let p99 = Compared::new(&results, |result| result.latency_us.p99);
        Ok(vec![p99.verdict("64 in flight: p99, router / pipe", "≤ 1.3", " us", |ratio| ratio <= 1.3)])
    }

    fn many_actions(&mut self) -> anyhow::Result<Vec<Verdict>> {
        let few = self.closed(4096);
        let many = Plan { actions: 10_000, containers: 10_000, ..few.clone() };
        let points = [many, few].map(|plan| (Target::Router, plan));
        let medians = self.sweep(&points, |result| result.server_cpu_us_per_activation)?;
        let (many, few) = (medians[0], medians[1]);
        let ratio = many / few;
        let measured = format!("{ratio:.2} ({many:.2} / {few:.2} us)");
        let what = "10,000 actions and containers against 1 and 64: router CPU per activation";
        Ok(vec![Verdict { what, bar: "≤ 1.5 times", measured, met: ratio <= 1.5 }])
    }

    /// The pipe's, too: what it loses is lost to frames that grow small, on any server.
    fn controllers(&mut self) -> anyhow::Result<Vec<Verdict>> {
        let steps = [1, 2, 4, 8, 16, 32, 64, 96];
        let of = |target| steps.map(|controllers| (target, Plan { controllers, ..self.closed(4096) }));
        let rates = self.sweep(&BOTH.map(of).concat(), |result| result.achieved_per_s)?;
        let (router, pipe) = rates.split_at(steps.len());
        let least = least_of_best(router);
        let (router_each, pipe_each) = (thousands(router), thousands(pipe));
        let measured =
            format!("{least:.2} ({router_each} for {steps:?}; the pipe {:.2}: {pipe_each})", least_of_best(pipe));
        let what = "1 controller stream to 96: throughput against the best before";
        Ok(vec![Verdict { what, bar: "≥ 0.9", measured, met: least >= 0.9 }])
    }

    #[allow(clippy::cast_precision_loss)]
    fn backlog(&mut self) -> anyhow::Result<Vec<Verdict>> {
        const QUEUED: u64 = 1_000_000;
        let (server, admin) = self.warm_router()?;
        let at_start = settled_rss(&server, u64::MAX)?;
        let load = Load::Open { rate: 200_000.0 };
        let plan = Plan { load, count: Some(QUEUED), check_starts: true, time_left_ms: 600_000, ..self.closed(1) };
        let endpoint = server.address;
        let controllers = Part::start(Place::Processes, &Role::Controllers { endpoint, plan: plan.clone() })?;
        fleet::await_metric(admin, "router_queue_depth", QUEUED)?;
        let queued = fleet::memory_bytes(server.part.pid(), "VmRSS")?;
        let invokers = Part::start(Place::Processes, &Role::Invokers { endpoint, plan: plan.clone() })?;
        let report = controllers_report(&controllers)?;
        drop(controllers);
        let seen = invokers_report(invokers);
        let enough = at_start + at_start / 10;
        let drained = settled_rss(&server, enough)?;

        let payloads = QUEUED * plan.payload_bytes as u64;
        let each = (queued as f64 - at_start as f64 - payloads as f64) / QUEUED as f64;
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        let order = format!(
            "{} of {} completed, {} out of order, {} started twice",
            report.counts.completed, QUEUED, seen.out_of_order, seen.duplicates
        );
        let in_order =
            report.counts.completed == QUEUED && seen.out_of_order + seen.duplicates + report.counts.duplicates == 0;
        Ok(vec![
            Verdict {
                what: "1,000,000 queued: memory beyond the payloads, each",
                bar: "≤ 250 B",
                measured: format!("{each:.0} B"),
                met: each <= 250.0,
            },
            Verdict { what: "then drained: order", bar: "FIFO", measured: order, met: in_order },
            Verdict {
                what: "then drained: RSS against the start",
                bar: "≤ 1.1",
                measured: format!(
                    "{:.2} ({:.1} / {:.1} MiB, {:.0} MiB at the top)",
                    drained as f64 / at_start as f64,
                    mib(drained),
                    mib(at_start),
                    mib(queued)
                ),
                met: drained <= enough,
            },
        ])
    }

    #[allow(clippy::cast_precision_loss)]
    fn idle(&mut self) -> anyhow::Result<Vec<Verdict>> {
        const ACTIONS: u32 = 100_000;
        let (server, admin) = self.warm_router()?;
        let at_start = settled_rss(&server, u64::MAX)?;
        let endpoint = server.address;
        // Each is used once, so that nothing of it is left to be made.
        let plan = Plan {
            actions: ACTIONS,
            containers: ACTIONS,
            concurrency: 1,
            count: Some(ACTIONS.into()),
            ..self.closed(1000)
        };
        let invokers = Part::start(Place::Processes, &Role::Invokers { endpoint, plan: plan.clone() })?;
        run::await_ready(&server, &invokers, ACTIONS)?;
        let controllers = Part::start(Place::Processes, &Role::Controllers { endpoint, plan })?;
        controllers_report(&controllers)?;
        drop(controllers);
        let each = |rss: u64| (rss as f64 - at_start as f64) / f64::from(ACTIONS);
        let with_containers = each(settled_rss(&server, 0)?);
        invokers_report(invokers);
        fleet::await_metric(admin, "router_containers", 0)?;
        let known = each(settled_rss(&server, 0)?);
        Ok(vec![
            Verdict {
                what: "100,000 idle actions known, each used once",
                bar: "≤ 1 KiB each",
                measured: format!("{known:.0} B each"),
                met: known <= 1024.0,
            },
            Verdict {
                what: "the same, each with an idle container",
                bar: "≤ 1 KiB each",
                measured: format!("{with_containers:.0} B each"),
                met: with_containers <= 1024.0,
            },
        ])
    }

    fn expiry(&mut self) -> anyhow::Result<Vec<Verdict>> {
        let (server, _) = self.warm_router()?;
        let expiry = Expiry { deadlines: 1_000_000, first_seconds: 10.0, spread_seconds: 20.0, rate: 50_000.0 };
        let plan = Plan {
            load: Load::Expiry(expiry),
            actions: 2,
            containers: 1,
            concurrency: 4096,
            controllers: 2,
            payload_bytes: 64,
            ..self.closed(1)
        };
        let endpoint = server.address;
        let invokers = Part::start(Place::Processes, &Role::Invokers { endpoint, plan: plan.clone() })?;
        run::await_ready(&server, &invokers, 1)?;
        let controllers = Part::start(Place::Processes, &Role::Controllers { endpoint, plan })?;
        let report = controllers_report(&controllers)?;
        let lateness = report.lateness;
        let measured = format!(
            "{:.2} ms (p50 {:.2}, max {:.1}; {} expired, {} completed at p99 {:.2} ms, {} unanswered)",
            lateness.p99 / 1000.0,
            lateness.p50 / 1000.0,
            lateness.max / 1000.0,
            report.counts.expired,
            report.counts.completed,
            report.latency.p99 / 1000.0,
            report.counts.unanswered
        );
        let met = lateness.p99 <= 5000.0 && report.counts.expired == 1_000_000 && report.counts.unanswered == 0;
        let what = "1,000,000 deadlines expire over 20 s beside 50,000/s: p99 lateness at the controller";
        Ok(vec![Verdict { what, bar: "≤ 5 ms", measured, met }])
    }

    fn replay(&mut self) -> anyhow::Result<Vec<Verdict>> {
        let mut verdicts = Vec::new();
        for (clumped, what) in [
            (false, "replay of the busiest hour at 600 times its speed, uniform"),
            (true, "replay of the busiest hour at 600 times its speed, clumped"),
        ] {
            let replay = self.busiest_hour(clumped);
            let trace = crate::trace::load(&replay)?;
            let functions = u32::try_from(trace.functions.len()).context("more functions than numbers")?;
            let plan = Plan {
                load: Load::Replay(replay),
                actions: functions,
                containers: functions * 4,
                check_starts: true,
                time_left_ms: 600_000,
                ..self.closed(1)
            };
            let results = run::interleave(&[Target::Router], 1, |&target| self.run(target, &plan))?;
            let RunResult { counts, latency_us, .. } = results[0];
            let Counts { submitted, completed, unanswered, duplicates, .. } = counts;
            let measured = format!(
                "{completed} of {submitted} completed, {unanswered} unanswered, {duplicates} duplicates; p50 {:.2} ms, p99 {:.1} ms",
                latency_us.p50 / 1000.0,
                latency_us.p99 / 1000.0
            );
            let met = completed == trace.invocations() && unanswered + duplicates == 0;
            verdicts.push(Verdict { what, bar: "unanswered 0, duplicates 0, all completed", measured, met });
            self.results.extend(results);
        }
        Ok(verdicts)
    }

    fn busiest_hour(&self, clumped: bool) -> Replay {
        let files = self.args.counts.clone().zip(self.args.functions.clone());
        let minutes = files.as_ref().map(|_| (524, 583));
        Replay { files, minutes, speed: 600.0, without_top: 0, clumped, service_times: true, seed: 1 }
    }

    /// A router that has carried load before: what it holds then is what it holds.
    fn warm_router(&self) -> anyhow::Result<(Server, std::net::SocketAddr)> {
        let server = Server::start(Target::Router, self.args.common.workers, Place::Processes)?;
        let admin = server.admin.context("a router has an admin port")?;
        let plan = Plan { count: Some(200_000), ..self.closed(4096) };
        let endpoint = server.address;
        let invokers = Part::start(Place::Processes, &Role::Invokers { endpoint, plan: plan.clone() })?;
        run::await_ready(&server, &invokers, plan.containers)?;
        let controllers = Part::start(Place::Processes, &Role::Controllers { endpoint, plan })?;
        controllers_report(&controllers)?;
        drop(controllers);
        invokers_report(invokers);
        fleet::await_metric(admin, "router_containers", 0)?;
        Ok((server, admin))
    }
}

/// The least that any of these is of the best before it.
fn least_of_best(rates: &[f64]) -> f64 {
    let mut best = 0.0_f64;
    rates.iter().fold(f64::MAX, |least, rate| {
        best = best.max(*rate);
        least.min(rate / best)
    })
}

fn thousands(rates: &[f64]) -> String {
    let each: Vec<String> = rates.iter().map(|rate| format!("{:.0}k", rate / 1000.0)).collect();
    each.join(", ")
}

/// RSS of a server once it is at most `enough`, or has not fallen for a while.
#[allow(clippy::disallowed_methods)]
fn settled_rss(server: &Server, enough: u64) -> anyhow::Result<u64> {
    let mut least = u64::MAX;
    for _ in 0..150 {
        std::thread::sleep(Duration::from_millis(100));
        least = least.min(fleet::memory_bytes(server.part.pid(), "VmRSS")?);
        if least <= enough && enough != u64::MAX {
            break;
        }
    }
    Ok(least)
}

fn controllers_report(controllers: &Part) -> anyhow::Result<ControllerReport> {
    loop {
        match controllers.event()? {
            Event::Controllers(report) => return Ok(*report),
            Event::WindowBegins | Event::WindowEnds | Event::Progress(_) => {}
            other => bail!("the controllers said {other:?}"),
        }
    }
}

fn invokers_report(invokers: Part) -> InvokerReport {
    let report = invokers.stop().into_iter().find_map(|event| match event {
        Event::Invokers(seen) => Some(seen),
        _ => None,
    });
    report.unwrap_or_default()
}

/// A figure of router and pipe, as medians.
struct Compared {
    router: f64,
    pipe: f64,
}

impl Compared {
    fn new(results: &[RunResult], figure: fn(&RunResult) -> f64) -> Self {
        let of = |target: Target| median(results.iter().filter(|result| result.target == target.name()).map(figure));
        Self { router: of(Target::Router), pipe: of(Target::Pipe) }
    }

    fn verdict(&self, what: &'static str, bar: &'static str, unit: &str, meets: fn(f64) -> bool) -> Verdict {
        let ratio = self.router / self.pipe;
        let measured = format!("{ratio:.2} ({:.0} / {:.0}{unit})", self.router, self.pipe);
        Verdict { what, bar, measured, met: meets(ratio) }
    }
}
