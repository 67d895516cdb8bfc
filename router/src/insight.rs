//! What can only be found by looking at every container: sums of slots and credits, and breakers that are not closed. Looked up
//! now and then and kept, so that whoever asks waits for nobody.

use crate::grpc::Service;
use engine::audit::{Audit, Report};
use engine::breaker::{Cause, State};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

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
/// How often to look, at the most.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looking may take one part in so many of the time of a thread.
const REST_TIMES: u32 = 50;

impl Insight {
    /// Breakers in that state for that cause.
    pub fn count(&self, state: State, cause: Cause) -> usize {
        self.breakers.iter().filter(|report| report.state == state && report.cause == cause).count()
    }
}

/// Looks now and then, on a thread of its own. Never returns.
pub(crate) async fn keep(service: Arc<Service>) {
    loop {
        let began = tokio::time::Instant::now();
        let looking = service.clone();
        // Fails only when the process ends.
        let _ = tokio::task::spawn_blocking(move || looking.look()).await;
        tokio::time::sleep(INTERVAL.max(began.elapsed() * REST_TIMES)).await;
    }
}

/// Breakers that are not closed, as JSON: an array of objects.
pub(crate) fn breakers_json(service: &Service) -> String {
    let now = service.clock.now();
    let insight = service.insight.lock();
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
