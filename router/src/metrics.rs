//! The metrics page, in Prometheus' text format. All names of metrics are here.

use crate::grpc::Service;
use crate::listener;
use engine::audit::Audit;
use engine::breaker::{Cause, State};
use engine::outcome::Reason;
use engine::sessions::Counts;
use engine::tally::Count;
use overflow::Overflow;
use std::fmt::Write;
use std::sync::Arc;

/// Where the numbers come from.
pub(crate) struct Metrics {
    pub(crate) service: Arc<Service>,
    pub(crate) connections: Arc<listener::Counts>,
    pub(crate) store: Option<Arc<dyn Overflow>>,
}

impl Metrics {
    /// The page. Reads counters only; nothing waits for it.
    pub(crate) fn text(&self) -> String {
        let mut page = String::new();
        self.events(&mut page);
        self.sessions(&mut page);
        self.reasons(&mut page);
        self.state(&mut page);
        self.capacity(&mut page);
        self.overflow(&mut page);
        page
    }

    fn events(&self, page: &mut String) {
        let totals = self.service.hub.totals();
        head(page, "router_activations_total", "counter", "What happened to activations, containers and credits");
        for &count in Count::ALL {
            line(page, &format!("router_activations_total{{event=\"{}\"}}", count.label()), totals.of(count));
        }
        head(page, "router_answers_dropped_total", "counter", "Answers whose controller's session was over");
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

    fn sessions(&self, page: &mut String) {
        let Service { controllers, nodes, .. } = &*self.service;
        let kinds = [("controller", controllers.counts()), ("invoker", nodes.counts())];
        head(page, "router_sessions", "gauge", "Sessions by state; a parked one waits for its peer to come back");
        for (kind, (all, parked, _)) in kinds {
            for (state, n) in [("attached", all - parked), ("parked", parked)] {
                line(page, &format!("router_sessions{{kind=\"{kind}\",state=\"{state}\"}}"), n as u64);
            }
        }
        head(page, "router_sessions_total", "counter", "What happened to sessions");
        for (kind, (_, _, counts)) in kinds {
            let Counts { begun, resumed, taken_over, parked, expired } = counts;
            for (event, n) in [
                ("begun", begun),
                ("parked", parked),
                ("resumed", resumed),
                ("taken_over", taken_over),
                ("expired", expired),
            ] {
                line(page, &format!("router_sessions_total{{kind=\"{kind}\",event=\"{event}\"}}"), n);
            }
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

    /// As it was seen last.
    fn capacity(&self, page: &mut String) {
        let insight = self.service.sampler.seen();
        let Audit { containers: _, suspended, tripped, slots, in_flight, credits, retired_in_flight } = insight.audit;
        for (name, help, value) in [
            ("router_capacity_slots", "What containers that take work may run at once", slots),
            ("router_capacity_in_flight", "What they run", in_flight),
            ("router_capacity_credits", "Credits they have", credits),
            ("router_capacity_suspended", "Containers whose stream is broken", suspended),
            ("router_capacity_tripped", "Containers that breakers withhold activations from", tripped),
            ("router_capacity_retired_in_flight", "What containers run that take no more", retired_in_flight),
        ] {
            head(page, name, "gauge", help);
            line(page, name, value);
        }
        let totals = self.service.hub.totals();
        for (name, help, count) in [
            ("router_capacity_phantom_total", "Credits that only the router knew; revoked", Count::CreditsPhantom),
            ("router_capacity_leaked_total", "Credits that only the container knew; granted", Count::CreditsLeaked),
        ] {
            head(page, name, "counter", help);
            line(page, name, totals.of(count));
        }
        head(page, "router_breakers", "gauge", "Breakers that are not closed, the first thousand");
        for state in [State::Open, State::HalfOpen] {
            for cause in Cause::ALL {
                let labels = format!("state=\"{}\",cause=\"{}\"", state.label(), cause.label());
                line(page, &format!("router_breakers{{{labels}}}"), insight.count(state, cause) as u64);
            }
        }
    }

    fn overflow(&self, page: &mut String) {
        let hub = &self.service.hub;
        let (Some(store), Some(lanes)) = (&self.store, hub.lanes()) else { return };
        let usage = store.usage();
        for (name, help, value) in [
            ("router_overflow_open", "Whether what does not fit in memory can be written", lanes.is_open().into()),
            ("router_overflow_stored", "Activations of this life that are stored", hub.totals().stored()),
            ("router_overflow_lanes", "Lanes in use", lanes.in_use() as u64),
            ("router_overflow_pending_bytes", "Bytes on their way into the store", lanes.pending_bytes()),
            ("router_overflow_store_bytes", "Bytes the store takes up, as far as it knows", usage.bytes),
            (
                "router_overflow_lost_in_crash_max",
                "When it was opened: at most so many were marked as consumed and perhaps not handed out",
                usage.lost_in_crash_max,
            ),
        ] {
            head(page, name, "gauge", help);
            line(page, name, value);
        }
        head(page, "router_overflow_damaged_total", "counter", "Damaged records passed over");
        line(page, "router_overflow_damaged_total", usage.damaged);
    }

    fn state(&self, page: &mut String) {
        let hub = &self.service.hub;
        // Passes settle in any order: for a moment more may have left than came.
        let totals = hub.totals();
        let containers = totals.of(Count::ContainersRegistered).saturating_sub(totals.of(Count::ContainersLeft));
        for (name, help, value) in [
            ("router_held", "Activations queued or in flight", hub.held() as u64),
            ("router_overdue", "Of those held, answered as timed out and still in flight", hub.totals().overdue()),
            ("router_queue_depth", "Activations queued", hub.budget().queued()),
            ("router_queue_bytes", "Bytes queued, 256 for each activation among them", hub.budget().queued_bytes()),
            ("router_actions", "Actions known", hub.actions()),
            ("router_containers", "Containers registered", containers),
            ("router_streams", "Live streams and calls, parked sessions counted", self.service.streams.live() as u64),
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
