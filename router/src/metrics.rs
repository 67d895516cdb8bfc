//! The metrics page, in Prometheus' text format. All names of metrics are here.

use crate::grpc::Service;
use crate::listener::Counts;
use engine::outcome::Reason;
use engine::tally::Count;
use std::fmt::Write;
use std::sync::Arc;

/// Where the numbers come from.
pub(crate) struct Metrics {
    pub(crate) service: Arc<Service>,
    pub(crate) connections: Arc<Counts>,
}

impl Metrics {
    /// The page. Reads counters only; nothing waits for it.
    pub(crate) fn text(&self) -> String {
        let mut page = String::new();
        self.events(&mut page);
        self.reasons(&mut page);
        self.state(&mut page);
        page
    }

    fn events(&self, page: &mut String) {
        let totals = self.service.hub.totals();
        head(page, "router_activations_total", "counter", "What happened to activations, containers and credits");
        for &count in Count::ALL {
            line(page, &format!("router_activations_total{{event=\"{}\"}}", count.label()), totals.of(count));
        }
        head(page, "router_answers_dropped_total", "counter", "Answers whose controller's stream was over");
        line(page, "router_answers_dropped_total", self.service.streams.answers_dropped());
        head(page, "router_connections_total", "counter", "Connections by what became of them");
        for (became, n) in [
            ("accepted", self.connections.accepted()),
            ("refused", self.connections.refused()),
            ("failed", self.connections.failed()),
        ] {
            line(page, &format!("router_connections_total{{became=\"{became}\"}}"), n);
        }
    }

    fn reasons(&self, page: &mut String) {
        let totals = self.service.hub.totals();
        head(page, "router_rejected_total", "counter", "Activations not taken, by reason");
        for &reason in Reason::ALL {
            line(page, &format!("router_rejected_total{{reason=\"{}\"}}", reason.label()), totals.rejected(reason));
        }
        head(page, "router_refused_total", "counter", "Other entries refused, by reason");
        for &reason in Reason::ALL {
            line(page, &format!("router_refused_total{{reason=\"{}\"}}", reason.label()), totals.refused(reason));
        }
    }

    fn state(&self, page: &mut String) {
        let hub = &self.service.hub;
        let containers = hub.totals().of(Count::ContainersRegistered) - hub.totals().of(Count::ContainersLeft);
        for (name, help, value) in [
            ("router_held", "Activations queued or in flight", hub.held() as u64),
            ("router_overdue", "Of those held, answered as timed out and still in flight", hub.totals().overdue()),
            ("router_queue_depth", "Activations queued", hub.budget().queued()),
            ("router_queue_bytes", "Payload bytes queued", hub.budget().queued_bytes()),
            ("router_actions", "Actions known", hub.actions()),
            ("router_containers", "Containers registered", containers),
            ("router_streams", "Live streams and calls", self.service.streams.live() as u64),
        ] {
            head(page, name, "gauge", help);
            line(page, name, value);
        }
    }
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

fn line(page: &mut String, name: &str, value: u64) {
    let _ = writeln!(page, "{name} {value}");
}
