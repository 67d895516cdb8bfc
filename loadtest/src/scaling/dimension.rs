//! The dimensions along which load grows, and their points: plans that differ from the default point in one thing. Runs nothing.

use crate::cores;
use crate::plan::{Load, Plan};
use clap::ValueEnum;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dimension {
    /// Actions, taken in turn, each with containers enough.
    Actions,
    /// Containers of one action, with the same credits together.
    Containers,
    /// Controller streams, with the same in flight together.
    Controllers,
    /// Invoker nodes, with the same containers together.
    Invokers,
    /// Activations in flight: how many share a frame.
    InFlight,
    /// Activations in flight beyond the containers' credits: they wait in the queue while others pass.
    Depth,
    /// Bytes of a payload, and of a result.
    Payload,
    /// The router's workers, and the cores it may run on.
    Cores,
}

/// One place on a dimension.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) dimension: Dimension,
    /// Where on it, in words.
    pub(crate) value: String,
    pub(crate) plan: Plan,
    /// None: as the command line says.
    pub(crate) workers: Option<usize>,
    /// 0: all there are.
    pub(crate) cores: usize,
}

impl Dimension {
    /// As the command line and the result file have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Actions => "actions",
            Self::Containers => "containers",
            Self::Controllers => "controllers",
            Self::Invokers => "invokers",
            Self::InFlight => "in-flight",
            Self::Depth => "depth",
            Self::Payload => "payload",
            Self::Cores => "cores",
        }
    }

    /// All points, from the least to the most.
    pub(crate) fn points(self, seconds: f64) -> Vec<Point> {
        let base = Plan::closed(IN_FLIGHT, seconds);
        match self {
            Self::Actions => self.each(&[1, 10, 100, 1_000, 10_000], |actions| Plan {
                actions,
                containers: actions * CONTAINERS.div_ceil(actions),
                ..base.clone()
            }),
            Self::Containers => self.each(&[1, 8, 64, 512, 4096], |containers| Plan {
                containers,
                concurrency: IN_FLIGHT / containers,
                ..base.clone()
            }),
            Self::Controllers => self.each(&[1, 4, 16, 64], |controllers| Plan { controllers, ..base.clone() }),
            Self::Invokers => self.each(&[1, 4, 16], |invokers| Plan { invokers, ..base.clone() }),
            Self::InFlight => self.each(&[1, 16, 64, 256, 1024, 4096], |n| Plan::closed(n, seconds)),
            Self::Depth => self.each(&[0, 1_000, 10_000, 100_000], |depth| Plan {
                concurrency: FEW_CREDITS / CONTAINERS,
                ..Plan::closed(FEW_CREDITS + depth, seconds)
            }),
            Self::Payload => PAYLOADS.iter().map(|&bytes| self.payload(bytes, &base)).collect(),
            Self::Cores => self.on_cores(cores::available(), &base),
        }
    }

    fn each(self, values: &[u32], plan: impl Fn(u32) -> Plan) -> Vec<Point> {
        values.iter().map(|&value| self.at(value.to_string(), plan(value))).collect()
    }

    fn at(self, value: String, plan: Plan) -> Point {
        Point { dimension: self, value, plan, workers: None, cores: 0 }
    }

    /// Large ones with fewer in flight, so that what is underway stays within the windows of the streams.
    fn payload(self, payload_bytes: usize, base: &Plan) -> Point {
        let fitting = u32::try_from(UNDERWAY_BYTES / payload_bytes).unwrap_or(u32::MAX);
        let load = Load::Closed { in_flight: fitting.clamp(IN_FLIGHT_LEAST, IN_FLIGHT) };
        let value = match payload_bytes {
            bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
            bytes if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
            bytes => format!("{bytes} B"),
        };
        self.at(value, Plan { load, payload_bytes, ..base.clone() })
    }

    /// Streams enough for all workers, on actions of their own and on one that all share. Where cores are left over for the generator,
    /// once with the router kept off them.
    fn on_cores(self, available: usize, base: &Plan) -> Vec<Point> {
        let mut points = Vec::new();
        for workers in std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n <= available) {
            for cores in [0, workers].into_iter().filter(|cores| *cores < available) {
                for actions in [STREAMS, 1] {
                    let plan = Plan { actions, controllers: STREAMS, invokers: STREAMS, ..base.clone() };
                    let value = on_cores(workers, cores, actions);
                    points.push(Point { workers: Some(workers), cores, ..self.at(value, plan) });
                }
            }
        }
        points
    }
}

fn on_cores(workers: usize, cores: usize, actions: u32) -> String {
    let one_or_more = |n: usize, one: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") };
    let workers = one_or_more(workers, "worker");
    let cores = if cores == 0 { "any core".to_owned() } else { one_or_more(cores, "core") };
    format!("{workers}, {cores}, {}", one_or_more(actions as usize, "action"))
}

/// Of the default point.
const IN_FLIGHT: u32 = 4096;
const CONTAINERS: u32 = 64;
/// Of all containers, where activations are to wait in the router's queue and not before it: with more it is the router that they wait for.
const FEW_CREDITS: u32 = 256;
const PAYLOADS: [usize; 8] = [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Payload bytes in flight at a time, where payloads are large.
const UNDERWAY_BYTES: usize = 16 << 20;
/// But never fewer activations than that.
const IN_FLIGHT_LEAST: u32 = 16;
/// Controllers and nodes where workers are counted.
const STREAMS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn in_flight(plan: &Plan) -> u32 {
        match plan.load {
            Load::Closed { in_flight } => in_flight,
            _ => panic!("a closed loop"),
        }
    }

    #[test]
    fn each_dimension_passes_through_or_near_the_default_point() {
        for dimension in Dimension::value_variants() {
            assert_eq!(dimension.to_possible_value().unwrap().get_name(), dimension.name());
            for Point { plan, value, .. } in dimension.points(1.0) {
                assert!(plan.containers >= plan.actions, "{value}");
                assert!((1..=4096).contains(&plan.concurrency), "{value}");
                assert!(in_flight(&plan) >= 1, "{value}");
            }
        }
    }

    #[test]
    fn only_depth_wants_more_than_the_credits() {
        for dimension in Dimension::value_variants() {
            for Point { plan, value, .. } in dimension.points(1.0) {
                // Actions are taken in turn, and each has containers of its own.
                let credits = plan.concurrency * (plan.containers / plan.actions);
                let queues = in_flight(&plan).div_ceil(plan.actions) > credits;
                assert_eq!(queues, *dimension == Dimension::Depth && value != "0", "{} {value}", dimension.name());
            }
        }
    }

    #[test]
    fn large_payloads_have_fewer_in_flight() {
        let plans: Vec<u32> = Dimension::Payload.points(1.0).iter().map(|point| in_flight(&point.plan)).collect();
        assert_eq!(plans, [4096, 4096, 4096, 4096, 1024, 256, 64, 16]);
    }

    #[test]
    fn cores_are_those_there_are() {
        let values = |available| -> Vec<String> {
            let points = Dimension::Cores.on_cores(available, &Plan::closed(1, 1.0));
            points.into_iter().map(|point| point.value).filter(|value| value.ends_with("1 action")).collect()
        };
        assert_eq!(values(1), ["1 worker, any core, 1 action"]);
        let two = ["1 worker, any core, 1 action", "1 worker, 1 core, 1 action", "2 workers, any core, 1 action"];
        assert_eq!(values(2), two);
        assert_eq!(values(32).len(), 11);
    }
}
