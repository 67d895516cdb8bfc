//! Sums of slots and credits, and breakers that are not closed: only a look at every container
//! finds them.
//!
//! The sampler's thread looks when an operator's page asks. It looks at most ten times a second,
//! once for all pages that ask meanwhile. So a page is at most 0.1 s old, and no thread of the data
//! path looks.

use crate::grpc::Service;
use crate::parts::Part;
use engine::audit::{Audit, Report};
use engine::breaker::{Cause, State};
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What was seen last.
#[derive(Debug, Default)]
pub struct Insight {
    /// The sums.
    pub audit: Audit,
    /// The breakers, at most [`REPORTS_MAX`].
    pub breakers: Vec<Report>,
}

/// Most breakers that are told of.
pub const REPORTS_MAX: usize = 1_000;
/// How old a page may be, and how often to look at the most.
const INTERVAL: Duration = Duration::from_millis(100);
/// After a look the sampler rests for so many times what the look took: it takes a tenth of a
/// thread at the most.
const REST_TIMES: u32 = 9;
/// How long a page waits for a look; then it shows what was seen last. Only with very many
/// containers is that so.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the thread looks whether it is to end.
const TICK: Duration = Duration::from_secs(1);

impl Insight {
    /// Breakers in that state for that cause.
    pub fn count(&self, state: State, cause: Cause) -> usize {
        self.breakers.iter().filter(|report| report.state == state && report.cause == cause).count()
    }
}

/// Between those who ask and the thread that looks.
#[derive(Debug, Default)]
pub struct Sampler {
    seen: Mutex<Insight>,
    asked: Mutex<Asked>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Asked {
    /// Those who wait for the next look: no more than the admin port has connections.
    waiting: Vec<oneshot::Sender<()>>,
    /// When the last look began.
    looked: Option<Instant>,
    stopped: bool,
}

impl Sampler {
    /// What was seen last.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Insight> {
        self.seen.lock()
    }

    /// Waits until what was seen last is no older than [`INTERVAL`], for [`PATIENCE`] at the most.
    /// Cancel safe.
    pub(crate) async fn refresh(&self) {
        let told = {
            let mut asked = self.asked.lock();
            if asked.looked.is_some_and(|at| at.elapsed() < INTERVAL) {
                return;
            }
            let (tell, told) = oneshot::channel();
            asked.waiting.push(tell);
            told
        };
        self.called.notify_one();
        let _ = tokio::time::timeout(PATIENCE, told).await;
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.asked.lock().stopped = true;
        self.called.notify_one();
    }

    /// Those who wait, once somebody does and it is `rested`. Perhaps nobody, after a while. None:
    /// it is over.
    fn take(&self, rested: Instant) -> Option<Vec<oneshot::Sender<()>>> {
        let mut asked = self.asked.lock();
        if asked.waiting.is_empty() && !asked.stopped {
            self.called.wait_for(&mut asked, TICK);
        }
        while !asked.waiting.is_empty() && !asked.stopped && Instant::now() < rested {
            self.called.wait_until(&mut asked, rested);
        }
        if asked.stopped { None } else { Some(std::mem::take(&mut asked.waiting)) }
    }
}

/// Looks for those who ask, until the sampler is stopped. `part` is this thread's.
pub(crate) fn run(service: &Service, part: &Part) {
    let sampler = &service.sampler;
    let mut rested = Instant::now();
    while let Some(waiting) = sampler.take(rested) {
        if part.is_told_to_end() {
            return;
        }
        if waiting.is_empty() {
            continue;
        }
        let began = Instant::now();
        let seen = service.look();
        *sampler.seen.lock() = seen;
        sampler.asked.lock().looked = Some(began);
        rested = began + INTERVAL.max(began.elapsed() * (1 + REST_TIMES));
        // Who does not wait any more needs no word.
        for tell in waiting {
            let _ = tell.send(());
        }
    }
}

/// Breakers that are not closed, as JSON: an array of objects.
pub(crate) fn breakers_json(service: &Service) -> String {
    let now = service.clock.now();
    let insight = service.sampler.seen();
    let rows: Vec<Row<'_>> = insight
        .breakers
        .iter()
        .map(|report| Row {
            namespace: report.action.name.namespace(),
            action: report.action.name.action(),
            revision: &report.action.revision,
            node: report.node.as_str(),
            session: report.container.map(|(session, _)| session.0),
            container: report.container.map(|(_, number)| number),
            state: report.state.label(),
            cause: report.cause.label(),
            for_ms: u64::try_from(report.since.until(now).as_millis()).unwrap_or(u64::MAX),
        })
        .collect();
    serde_json::to_string(&rows).expect("strings and numbers") + "\n"
}

#[derive(Serialize)]
struct Row<'a> {
    namespace: &'a str,
    action: &'a str,
    revision: &'a str,
    /// The invoker node's name.
    node: &'a str,
    /// The session that carries the container; null as `container` is.
    session: Option<u64>,
    /// The container's number in that session; null: all of the action's on the node.
    container: Option<u32>,
    state: &'static str,
    cause: &'static str,
    /// How long it has been in that state.
    for_ms: u64,
}
