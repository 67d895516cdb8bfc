//! Controllers: push activations in a closed loop, at a rate or by a trace, and keep the books. On which road they go up and answers
//! come down, `road` says: the router's or a peer's.

use super::road::{Down, Up};
use super::{ControllerReport, Event, Orders, Report};
use crate::book::{Book, Record};
use crate::plan::{Expiry, Load, Overflow, Plan, action_key};
use crate::result::Sample;
use crate::trace::{self, Arrival};
use anyhow::Context;
use bytes::Bytes;
use client::PushStream;
use parking_lot::Mutex;
use proto::v1;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Runs all controllers of a plan against a router, and reports what they saw.
pub(crate) async fn run(endpoint: &str, plan: &Plan, report: Report) -> anyhow::Result<()> {
    let mut roads = Vec::new();
    for number in 0..plan.controllers {
        let channel = client::connect(endpoint).await?;
        let (sender, receiver) = PushStream::open(channel, &format!("controller-{number}")).await?;
        for action in 0..plan.actions {
            sender.declare(action, action_key(action))?;
        }
        roads.push((sender, receiver));
    }
    drive(roads, plan, report).await
}

/// Runs the controllers of a plan, one on each road, and reports what they saw.
pub(crate) async fn drive<U: Up, D: Down>(roads: Vec<(U, D)>, plan: &Plan, report: Report) -> anyhow::Result<()> {
    let arrivals = match &plan.load {
        Load::Replay(replay) => Some(trace::arrivals(replay)?),
        Load::Closed { .. } | Load::Open { .. } | Load::Expiry(_) | Load::Overflow(_) => None,
    };
    let record = Arc::new(Mutex::new(Record::new()));
    let with_desk = |(number, (up, down))| (Controller::new(up, plan, number, record.clone()), down);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..).zip(roads).map(with_desk).unzip();
    let start = Instant::now();
    let (begins, ends) = (start + plan.warm_up(), start + plan.warm_up() + plan.window());
    let by_time = plan.count.is_none() && matches!(plan.load, Load::Closed { .. } | Load::Open { .. });
    let (begins, ends) = if by_time { (begins, ends) } else { (start, start + FOREVER) };
    let besides = matches!(plan.load, Load::Overflow(Overflow { beside: Some(_), .. }));
    for controller in senders.iter().skip(usize::from(besides)) {
        controller.desk.lock().book.measure(begins, ends);
    }

    let reading: Vec<_> = senders.iter().cloned().zip(receivers).map(|(c, r)| tokio::spawn(read(c, r))).collect();
    let windows = tokio::spawn(announce(by_time.then_some((begins, ends)), report.clone()));
    let series = by_time.then(|| tokio::spawn(sample(senders.clone(), start, begins, ends)));
    push(&senders, plan, arrivals, ends, &report).await?;
    windows.await?;
    let series = match series {
        Some(samples) => samples.await?,
        None => Vec::new(),
    };
    if !by_time {
        settle(&senders, PATIENCE).await;
    }
    let seconds = if by_time { plan.seconds } else { start.elapsed().as_secs_f64() };
    report(Event::WindowEnds);
    settle(&senders, PATIENCE).await;
    reading.iter().for_each(tokio::task::JoinHandle::abort);
    report(Event::Controllers(Box::new(ControllerReport { series, ..sum(&senders, &record.lock(), seconds) })));
    Ok(())
}

/// How long to wait for answers after the last push before they count as missing. Longer than anything here runs.
const PATIENCE: Duration = Duration::from_secs(30);
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// One activation of a schedule.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    /// When it is to be sent, from the start.
    at: Duration,
    /// None: the next in turn.
    action: Option<u32>,
    service_time: Duration,
    /// None: the plan's.
    time_left_ms: Option<u32>,
}

/// A controller and its road's sending half. Cheap to clone.
#[derive(Clone)]
struct Controller<U> {
    up: U,
    desk: Arc<Mutex<Desk>>,
    /// All controllers' own. Locked after a desk.
    record: Arc<Mutex<Record>>,
    plan: Arc<Plan>,
    payload: Bytes,
}

/// What the reading and the pushing side of a controller share.
struct Desk {
    book: Book,
    /// That answers came in.
    frames: u64,
    /// Activations still to be pushed by the reading side: a closed loop's.
    to_push: u64,
    next_action: u32,
    /// The next place in the order of each action, where containers check it.
    sequences: Vec<u64>,
}

impl<U: Up> Controller<U> {
    fn new(up: U, plan: &Plan, number: u32, record: Arc<Mutex<Record>>) -> Self {
        let at_once = match &plan.load {
            Load::Closed { in_flight } => *in_flight as usize,
            Load::Expiry(expiry) => expiry.deadlines as usize,
            Load::Open { .. } | Load::Replay(_) | Load::Overflow(_) => plan.flooded(),
        };
        let desk =
            Desk { book: Book::new(number, at_once), frames: 0, to_push: 0, next_action: 0, sequences: Vec::new() };
        let payload = Orders { service_time_us: 0, sequence: 0 }.payload(plan);
        Self { up, desk: Arc::new(Mutex::new(desk)), record, plan: Arc::new(plan.clone()), payload }
    }

    /// Pushes the next `n` activations of a closed loop, fewer if it is at its end.
    fn push_next(&self, desk: &mut Desk, n: u64, now: Instant) {
        let n = n.min(desk.to_push);
        desk.to_push -= n;
        let activations = (0..n).map(|_| self.activation(desk, &Step::default(), now));
        // Only a road that is over refuses: what is out then counts as unanswered.
        let _ = self.up.push_all(activations.collect());
    }

    fn activation(&self, desk: &mut Desk, step: &Step, sent: Instant) -> v1::Activation {
        let action = step.action.unwrap_or_else(|| {
            let next = desk.next_action;
            desk.next_action = (next + 1) % self.plan.actions;
            next
        });
        let orders = self.plan.check_starts.then(|| self.orders(desk, action, step.service_time));
        let payload = orders.unwrap_or_else(|| self.payload.clone());
        let time_left_ms = step.time_left_ms.unwrap_or(self.plan.time_left_ms);
        let id = desk.book.submit(sent, Duration::from_millis(time_left_ms.into()));
        v1::Activation { id, action, time_left_ms, payload, ..Default::default() }
    }

    fn orders(&self, desk: &mut Desk, action: u32, service_time: Duration) -> Bytes {
        if desk.sequences.is_empty() {
            desk.sequences.resize(self.plan.actions as usize, 0);
        }
        let next = &mut desk.sequences[action as usize];
        let sequence = std::mem::replace(next, *next + 1);
        Orders { service_time_us: u64::try_from(service_time.as_micros()).unwrap_or(u64::MAX), sequence }
            .payload(&self.plan)
    }
}

/// Accounts for answers; in a closed loop each brings the next activation.
async fn read<U: Up, D: Down>(controller: Controller<U>, mut down: D) {
    while let Some(answers) = down.next().await {
        let now = Instant::now();
        let desk = &mut *controller.desk.lock();
        desk.frames += 1;
        let record = &mut *controller.record.lock();
        let answered = answers.iter().filter(|answer| desk.book.answer(answer, now, record)).count();
        if desk.to_push > 0 {
            controller.push_next(desk, answered as u64, now);
        }
    }
}

/// Reports the window's beginning, and waits for its end.
async fn announce(window: Option<(Instant, Instant)>, report: Report) {
    let Some((begins, ends)) = window else { return report(Event::WindowBegins) };
    tokio::time::sleep_until(begins.into()).await;
    report(Event::WindowBegins);
    for part in 1..=PROGRESS_STEPS {
        tokio::time::sleep_until((begins + (ends - begins) * part / PROGRESS_STEPS).into()).await;
        report(Event::Progress(f64::from(part) / f64::from(PROGRESS_STEPS)));
    }
}

const PROGRESS_STEPS: u32 = 20;

/// What is out and what was answered, through the window: a look at the books every fiftieth of it, at most ten a second.
async fn sample<U: Up>(controllers: Vec<Controller<U>>, start: Instant, begins: Instant, ends: Instant) -> Vec<Sample> {
    let every = ((ends - begins) / 50).max(Duration::from_millis(100));
    let mut samples = Vec::new();
    let (mut at, mut before) = (begins, None);
    // At the end itself a closed loop may be over already.
    while at < ends {
        tokio::time::sleep_until(at.into()).await;
        let (mut out, mut answered) = (0, 0);
        for controller in &controllers {
            let counts = controller.desk.lock().book.counts;
            out += counts.unanswered;
            answered += counts.submitted - counts.unanswered;
        }
        // A busy machine wakes it late.
        let now = Instant::now();
        if let Some((then, answered_then)) = before.replace((now, answered)) {
            let rate_per_s = seconds(answered - answered_then) / (now - then).as_secs_f64();
            samples.push(Sample { at_s: (now - start).as_secs_f64(), out, rate_per_s });
        }
        at += every;
    }
    samples
}

/// Pushes what the plan asks for; a closed loop is started here and goes on in `read`.
async fn push<U: Up>(
    controllers: &[Controller<U>],
    plan: &Plan,
    arrivals: Option<Vec<Arrival>>,
    ends: Instant,
    report: &Report,
) -> anyhow::Result<()> {
    match (&plan.load, arrivals) {
        (Load::Closed { in_flight }, _) => close_loop(controllers, plan, *in_flight, ends, report).await,
        (Load::Open { rate }, _) => {
            let count = plan.count.unwrap_or(whole((plan.warm_up_seconds + plan.seconds) * rate));
            by_schedule(controllers.to_vec(), at_rate(*rate, count), count, report.clone()).await
        }
        (Load::Replay(_), arrivals) => {
            let arrivals = arrivals.context("a replay has arrivals")?;
            let count = arrivals.len() as u64;
            let steps = arrivals.into_iter().map(|arrival| Step {
                at: arrival.at(),
                action: Some(arrival.function()),
                service_time: arrival.service_time(),
                time_left_ms: None,
            });
            by_schedule(controllers.to_vec(), steps, count, report.clone()).await
        }
        (Load::Expiry(expiry), _) => let_expire(controllers, *expiry, report).await,
        (Load::Overflow(overflow), _) => flood(controllers, plan, *overflow, report).await,
    }
}

/// Floods action 0 by the first controller, and has a steady flow to action 1 by the second where one is asked for.
async fn flood<U: Up>(
    controllers: &[Controller<U>],
    plan: &Plan,
    overflow: Overflow,
    report: &Report,
) -> anyhow::Result<()> {
    let Overflow { rate, seconds: first, then_rate, service_time_us, beside } = overflow;
    let of_flood =
        move |step: Step| Step { action: Some(0), service_time: Duration::from_micros(service_time_us), ..step };
    let (flooding, flowing) = controllers.split_first().context("a flood takes a controller")?;
    let flooded = whole(rate * first);
    let rising = at_rate(rate, flooded).map(of_flood);
    let silent: Report = Arc::new(|_| ());
    let flow = async {
        let (Some(rate), Some(controller)) = (beside, flowing.first()) else { return Ok(()) };
        let count = whole(rate * first);
        let steps = at_rate(rate, count).map(|step| Step { action: Some(1), ..step });
        by_schedule(vec![controller.clone()], steps, count, silent).await
    };
    tokio::try_join!(by_schedule(vec![flooding.clone()], rising, flooded, report.clone()), flow)?;
    let Some(then_rate) = then_rate else { return Ok(()) };
    let caught_up = Arc::new(AtomicBool::new(false));
    let told = caught_up.clone();
    let total = whole(then_rate * EBB_SECONDS_MAX);
    let ebbing = at_rate(then_rate, total).map(of_flood).take_while(move |_| !told.load(Ordering::Relaxed));
    let watch = async {
        let few = u64::from(plan.containers * plan.concurrency);
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while flooding.desk.lock().book.counts.unanswered > few {
            tick.tick().await;
        }
        caught_up.store(true, Ordering::Relaxed);
        Ok(())
    };
    tokio::try_join!(by_schedule(vec![flooding.clone()], ebbing, total, report.clone()), watch).map(drop)
}

/// How long an ebb may take.
const EBB_SECONDS_MAX: f64 = 900.0;

/// Steps at a steady rate.
fn at_rate(rate: f64, count: u64) -> impl Iterator<Item = Step> + Send + 'static {
    (0..count).map(move |n| Step { at: Duration::from_secs_f64(seconds(n) / rate), ..Step::default() })
}

/// The doomed ones by the first controller, as fast as they are taken; a steady flow by the second.
async fn let_expire<U: Up>(controllers: &[Controller<U>], expiry: Expiry, report: &Report) -> anyhow::Result<()> {
    let [doomed, flowing] = controllers else {
        anyhow::bail!("deadlines take two controllers, not {}", controllers.len())
    };
    let count = u64::from(expiry.deadlines);
    let (first, spread) = (expiry.first_seconds, expiry.spread_seconds);
    let steps = (0..count).map(move |n| {
        let at = first * ARMING_SHARE * seconds(n) / seconds(count);
        let deadline = first + spread * seconds(n) / seconds(count);
        let time_left_ms = u32::try_from(whole((deadline - at) * 1000.0)).unwrap_or(u32::MAX);
        Step { at: Duration::from_secs_f64(at), action: Some(0), time_left_ms: Some(time_left_ms), ..Step::default() }
    });
    let total = whole((first + spread) * expiry.rate);
    let flow = at_rate(expiry.rate, total).map(|step| Step { action: Some(1), ..step });
    let silent: Report = Arc::new(|_| ());
    let arming = by_schedule(vec![doomed.clone()], steps, count, silent);
    let flowing = by_schedule(vec![flowing.clone()], flow, total, report.clone());
    tokio::try_join!(arming, flowing).map(drop)
}

/// The part of the time before the first deadline in which deadlines are armed.
const ARMING_SHARE: f64 = 0.8;

#[allow(clippy::cast_precision_loss)]
fn seconds(n: u64) -> f64 {
    n as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(n: f64) -> u64 {
    n as u64
}

async fn close_loop<U: Up>(
    controllers: &[Controller<U>],
    plan: &Plan,
    in_flight: u32,
    ends: Instant,
    report: &Report,
) -> anyhow::Result<()> {
    let many = u64::from(plan.controllers);
    for (number, controller) in (0..many).zip(controllers) {
        let share = |of: u64| of / many + u64::from(number < of % many);
        let mut desk = controller.desk.lock();
        desk.to_push = plan.count.map_or(u64::MAX, share);
        controller.push_next(&mut desk, share(in_flight.into()), Instant::now());
    }
    let Some(count) = plan.count else {
        tokio::time::sleep_until(ends.into()).await;
        controllers.iter().for_each(|controller| controller.desk.lock().to_push = 0);
        return Ok(());
    };
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        tick.tick().await;
        let left: u64 = controllers.iter().map(|controller| controller.desk.lock().to_push).sum();
        report(Event::Progress(1.0 - seconds(left) / seconds(count)));
        if left == 0 {
            return Ok(());
        }
    }
}

/// Pushes by a schedule of offsets, from a thread of its own: tokio's timers tick in milliseconds. The offset, not the moment
/// the thread woke up, is when an activation counts as sent.
async fn by_schedule<U: Up>(
    controllers: Vec<Controller<U>>,
    schedule: impl Iterator<Item = Step> + Send + 'static,
    count: u64,
    report: Report,
) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || pace(&controllers, schedule, count, &report)).await.context("the pacer died")
}

#[allow(clippy::disallowed_methods)]
fn pace<U: Up>(controllers: &[Controller<U>], schedule: impl Iterator<Item = Step>, count: u64, report: &Report) {
    // By default Linux wakes a sleeper up to 50 us late, which would count as latency. Where it cannot be told otherwise it does.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let start = Instant::now();
    let mut schedule = schedule.peekable();
    let (mut sent, mut batches, mut reported) = (0_u64, 0_usize, Instant::now());
    while let Some(step) = schedule.peek() {
        let wait = (start + step.at).saturating_duration_since(Instant::now());
        std::thread::sleep(if wait < DENSE && batches > 0 { BREATH } else { wait });
        // All that are due go to one controller, in one batch; the next batch to the next.
        let controller = &controllers[batches % controllers.len()];
        batches += 1;
        let due = start.elapsed();
        let mut desk = controller.desk.lock();
        let mut batch = Vec::new();
        while let Some(step) = schedule.next_if(|step| step.at <= due && batch.len() < BATCH_MAX) {
            batch.push(controller.activation(&mut desk, &step, start + step.at));
        }
        drop(desk);
        sent += batch.len() as u64;
        send_all(&controller.up, batch);
        if reported.elapsed() > Duration::from_millis(100) {
            reported = Instant::now();
            report(Event::Progress(seconds(sent) / seconds(count)));
        }
    }
}

/// Sends a batch whole, and waits where the road is full. One that is over takes nothing: what is out then counts as
/// unanswered.
#[allow(clippy::disallowed_methods)]
fn send_all(up: &impl Up, mut batch: Vec<v1::Activation>) {
    loop {
        batch = up.push_all(batch);
        if batch.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Where steps are closer than this, a pacer sends what has come due once in a breath: a wake-up of five processes for each
/// activation would measure the machine's wake-ups. What is late by that counts as latency.
const DENSE: Duration = Duration::from_micros(100);
const BREATH: Duration = Duration::from_micros(500);
/// Most activations that a late pacer sends at once: well below what a sender lets wait.
const BATCH_MAX: usize = 1024;

/// Waits until every activation has its answer, but not for ever.
async fn settle<U: Up>(controllers: &[Controller<U>], patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    while Instant::now() < deadline
        && controllers.iter().any(|controller| controller.desk.lock().book.counts.unanswered > 0)
    {
        tick.tick().await;
    }
}

fn sum<U: Up>(controllers: &[Controller<U>], record: &Record, seconds: f64) -> ControllerReport {
    let mut report = ControllerReport {
        seconds,
        answered: record.answered,
        latency: record.latency(),
        lateness: record.lateness(),
        stages: record.stages(),
        curve: record.curve(),
        ..Default::default()
    };
    for controller in controllers {
        let desk = controller.desk.lock();
        report.counts.add(&desk.book.counts);
        report.frames += desk.frames;
        report.in_flight_max += desk.book.out_max;
        report.offered += desk.book.offered;
    }
    report
}
