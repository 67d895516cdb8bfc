//! Invoker nodes with their containers. Containers send back what they get, at once or after the service time it asks for.

use super::{Event, InvokerReport, Orders, Report};
use crate::plan::{Plan, action_key};
use client::{PullReceiver, PullSender, PullStream};
use parking_lot::Mutex;
use proto::v1;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Runs all invoker nodes of a plan until `stop` resolves.
pub(crate) async fn run(
    endpoint: &str,
    plan: &Plan,
    report: Report,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let seen = Arc::new(Mutex::new(InvokerReport::default()));
    let mut nodes = tokio::task::JoinSet::new();
    for number in 0..plan.invokers {
        let channel = client::connect(endpoint).await?;
        let (sender, receiver) = PullStream::open(channel, &format!("invoker-{number}")).await?;
        register(&sender, plan, number)?;
        nodes.spawn(Node::new(plan, sender, seen.clone()).run(receiver));
    }
    report(Event::Ready);
    stop.await;
    nodes.shutdown().await;
    report(Event::Invokers(*seen.lock()));
    Ok(())
}

fn register(sender: &PullSender, plan: &Plan, node: u32) -> anyhow::Result<()> {
    for container in (0..plan.containers).filter(|container| container % plan.invokers == node) {
        let key = Some(action_key(plan.action_of(container)).into());
        let (concurrency, credits) = (plan.concurrency, plan.concurrency);
        sender.register(v1::Register { container, key, concurrency, credits, ..Default::default() })?;
    }
    Ok(())
}

/// One node.
struct Node {
    sender: PullSender,
    /// Completions that wait for their service time to pass, soonest first.
    running: BinaryHeap<Reverse<Due>>,
    check_starts: bool,
    /// By id. Copied: an id that is a part of its frame would keep all of that.
    started: HashSet<[u8; 16]>,
    /// The next sequence number of each controller and container's action.
    next: HashMap<(u32, u32), u64>,
    actions: u32,
    seen: Arc<Mutex<InvokerReport>>,
}

/// A completion and when it is due.
struct Due(Instant, v1::Completion);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl Node {
    fn new(plan: &Plan, sender: PullSender, seen: Arc<Mutex<InvokerReport>>) -> Self {
        Self {
            sender,
            running: BinaryHeap::new(),
            check_starts: plan.check_starts,
            started: HashSet::with_capacity(plan.flooded()),
            next: HashMap::new(),
            actions: plan.actions,
            seen,
        }
    }

    async fn run(mut self, mut receiver: PullReceiver) {
        loop {
            let due = self.running.peek().map(|Reverse(Due(at, _))| *at);
            let due =
                async move { if let Some(at) = due { sleep_until(at).await } else { std::future::pending().await } };
            tokio::select! {
                biased;
                frame = receiver.next() => match frame {
                    Ok(Some(frame)) => self.work(frame.dispatches),
                    Ok(None) | Err(_) => return,
                },
                () = due => self.complete_due(),
            }
        }
    }

    fn work(&mut self, dispatches: Vec<v1::Dispatch>) {
        {
            let mut seen = self.seen.lock();
            seen.frames += u64::from(!dispatches.is_empty());
            seen.started += dispatches.len() as u64;
        }
        let now = Instant::now();
        let mut completions = Vec::with_capacity(dispatches.len());
        for dispatch in dispatches {
            let orders = Orders::read(&dispatch.payload);
            if self.check_starts {
                self.check(&dispatch, orders.as_ref());
            }
            let service_time_us = orders.map_or(0, |orders| orders.service_time_us);
            let completion = completion(dispatch, service_time_us);
            if service_time_us == 0 {
                completions.push(completion);
            } else {
                self.running.push(Reverse(Due(now + Duration::from_micros(service_time_us), completion)));
            }
        }
        self.send(completions);
    }

    fn complete_due(&mut self) {
        let now = Instant::now();
        let mut completions = Vec::new();
        while self.running.peek().is_some_and(|Reverse(Due(at, _))| *at <= now) {
            completions.extend(self.running.pop().map(|Reverse(Due(_, completion))| completion));
        }
        self.send(completions);
    }

    fn send(&self, completions: Vec<v1::Completion>) {
        // Refused only when the stream is over; then the answers are the router's to give.
        let _ = self.sender.complete_all(completions);
    }

    fn check(&mut self, dispatch: &v1::Dispatch, orders: Option<&Orders>) {
        let mut seen = self.seen.lock();
        let id = dispatch.id.as_ref().try_into().unwrap_or_default();
        seen.duplicates += u64::from(!self.started.insert(id));
        let controller = dispatch.id.get(0..4).and_then(|id| id.try_into().ok()).map_or(0, u32::from_be_bytes);
        let next = self.next.entry((controller, dispatch.container % self.actions)).or_default();
        if let Some(orders) = orders {
            seen.out_of_order += u64::from(orders.sequence < *next);
            *next = orders.sequence + 1;
        }
    }
}

fn completion(dispatch: v1::Dispatch, service_time_us: u64) -> v1::Completion {
    v1::Completion {
        container: dispatch.container,
        id: dispatch.id,
        status: v1::RunStatus::Succeeded as i32,
        result: dispatch.payload,
        run_us: u32::try_from(service_time_us).unwrap_or(u32::MAX),
        credits: 1,
        ..Default::default()
    }
}
