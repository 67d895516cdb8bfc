//! What goes wrong and when, drawn from a seed: the same seed, the same plan. It may not do any of it.

use super::ledger::Seat;
use clap::ValueEnum;
use rand::RngExt;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::time::Duration;

/// Kinds of faults, as they are chosen on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// kill -9, and a new life a little later.
    Kill,
    /// SIGSTOP, and SIGCONT a little later.
    Stop,
    /// Connections are cut, with a FIN or a RST, and refused for a while.
    Cut,
    /// Nothing is read from one end of a connection.
    Stall,
    /// Little is read from one end of a connection.
    Slow,
    /// One end of a connection is gone and the other does not hear of it.
    HalfOpen,
}

/// A way through a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the process to the router.
    Up,
    /// From the router to the process.
    Down,
}

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Process,
    Router,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill(Seat),
    Stop(Seat),
    Cut { link: Seat, reset: bool },
    Stall { link: Seat, way: Way },
    Slow { link: Seat, way: Way, bytes_per_second: u32 },
    HalfOpen { link: Seat, silent: End },
}

impl Fault {
    fn seat(&self) -> Seat {
        match *self {
            Self::Kill(seat) | Self::Stop(seat) => seat,
            Self::Cut { link, .. }
            | Self::Stall { link, .. }
            | Self::Slow { link, .. }
            | Self::HalfOpen { link, .. } => link,
        }
    }
}

/// A fault, when it begins and how long it lasts, both from the plan's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_millis(), self.lasts.as_millis());
        match self.fault {
            Fault::Kill(seat) => write!(f, "at {at} ms {seat} is killed, back after {lasts} ms"),
            Fault::Stop(seat) => write!(f, "at {at} ms {seat} is stopped for {lasts} ms"),
            Fault::Cut { link, reset } => {
                let how = if reset { "RST" } else { "FIN" };
                write!(f, "at {at} ms {link} is cut off ({how}) for {lasts} ms")
            }
            Fault::Stall { link, way } => write!(f, "at {at} ms {link} is stalled {} for {lasts} ms", named(way)),
            Fault::Slow { link, way, bytes_per_second } => {
                write!(f, "at {at} ms {link} is slowed {} to {bytes_per_second} B/s for {lasts} ms", named(way))
            }
            Fault::HalfOpen { link, silent } => {
                let silent = if silent == End::Router { "router" } else { "process" };
                write!(
                    f,
                    "at {at} ms {link} is half open for {lasts} ms: the {silent} does not hear that the other end is gone"
                )
            }
        }
    }
}

fn named(way: Way) -> &'static str {
    match way {
        Way::Up => "towards the router",
        Way::Down => "from the router",
    }
}

/// Who is there to be hurt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Company {
    pub(crate) callers: u16,
    pub(crate) nodes: u16,
}

/// Faults that come together: 2 to 4, in the first half of `within`, all over at its end. Each process and each link has at most
/// one. `kinds` must not be empty.
pub(crate) fn together(seed: u64, kinds: &[Kind], company: Company, within: Duration) -> Vec<Step> {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut steps = Vec::<Step>::new();
    let many = rng.random_range(2..=4);
    for _ in 0..TRIES {
        let kind = kinds[rng.random_range(0..kinds.len())];
        let fault = draw(rng, kind, company);
        let half = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(4) / 2;
        let at = Duration::from_millis(rng.random_range(0..half));
        let lasts = Duration::from_millis(rng.random_range(half / 4..half));
        if steps.len() < many && steps.iter().all(|step| step.fault.seat() != fault.seat()) {
            steps.push(Step { at, lasts, fault });
        }
    }
    steps.sort_by_key(|step| step.at);
    steps
}

/// Draws until there are enough faults that do not meet; a company of three or more leaves no doubt.
const TRIES: usize = 64;

fn draw(rng: &mut ChaCha8Rng, kind: Kind, company: Company) -> Fault {
    let link = peer(rng, company);
    let way = if rng.random() { Way::Up } else { Way::Down };
    match kind {
        Kind::Kill => Fault::Kill(anyone(rng, company)),
        Kind::Stop => Fault::Stop(anyone(rng, company)),
        Kind::Cut => Fault::Cut { link, reset: rng.random() },
        Kind::Stall => Fault::Stall { link, way },
        Kind::Slow => Fault::Slow { link, way, bytes_per_second: rng.random_range(1_000..100_000) },
        Kind::HalfOpen => Fault::HalfOpen { link, silent: if rng.random() { End::Router } else { End::Process } },
    }
}

/// The router as often as all callers together and all nodes together.
fn anyone(rng: &mut ChaCha8Rng, company: Company) -> Seat {
    if rng.random_range(0..3) == 0 { Seat::Router } else { peer(rng, company) }
}

fn peer(rng: &mut ChaCha8Rng, company: Company) -> Seat {
    if rng.random() {
        Seat::Caller(rng.random_range(0..company.callers))
    } else {
        Seat::Node(rng.random_range(0..company.nodes))
    }
}

/// Kills in an order of their own: `each` of the router, of a caller, of a node.
pub(crate) fn kills(seed: u64, each: usize, company: Company) -> Vec<Seat> {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut seats = Vec::new();
    for _ in 0..each {
        let (caller, node) = (rng.random_range(0..company.callers), rng.random_range(0..company.nodes));
        seats.extend([Seat::Router, Seat::Caller(caller), Seat::Node(node)]);
    }
    seats.shuffle(rng);
    seats
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const COMPANY: Company = Company { callers: 2, nodes: 3 };
    const WITHIN: Duration = Duration::from_secs(2);

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        for seed in 0..100 {
            let draw = || together(seed, Kind::value_variants(), COMPANY, WITHIN);
            assert_eq!(draw(), draw());
            assert_eq!(kills(seed, 5, COMPANY), kills(seed, 5, COMPANY));
        }
        assert_ne!(kills(1, 5, COMPANY), kills(2, 5, COMPANY));
    }

    #[test]
    fn faults_come_two_to_four_together_and_end_in_time() {
        let mut sizes = HashSet::new();
        for seed in 0..500 {
            let steps = together(seed, Kind::value_variants(), COMPANY, WITHIN);
            let seats: HashSet<Seat> = steps.iter().map(|step| step.fault.seat()).collect();
            assert_eq!(seats.len(), steps.len(), "seed {seed}: {steps:?}");
            assert!(steps.iter().all(|step| step.at + step.lasts < WITHIN), "seed {seed}: {steps:?}");
            sizes.insert(steps.len());
        }
        assert_eq!(sizes, HashSet::from([2, 3, 4]));
    }

    #[test]
    fn only_the_chosen_kinds_are_drawn_and_all_of_them_are() {
        for &kind in Kind::value_variants() {
            let steps: Vec<Step> = (0..50).flat_map(|seed| together(seed, &[kind], COMPANY, WITHIN)).collect();
            let alike = |fault: &Fault| match fault {
                Fault::Kill(_) => Kind::Kill,
                Fault::Stop(_) => Kind::Stop,
                Fault::Cut { .. } => Kind::Cut,
                Fault::Stall { .. } => Kind::Stall,
                Fault::Slow { .. } => Kind::Slow,
                Fault::HalfOpen { .. } => Kind::HalfOpen,
            };
            assert!(steps.iter().all(|step| alike(&step.fault) == kind), "{kind:?}");
            assert!(steps.len() >= 100, "{kind:?}");
        }
    }

    #[test]
    fn everybody_is_killed_equally_often() {
        let seats = kills(7, 20, COMPANY);
        let callers = seats.iter().filter(|seat| matches!(seat, Seat::Caller(_))).count();
        let nodes = seats.iter().filter(|seat| matches!(seat, Seat::Node(_))).count();
        assert_eq!((seats.len(), callers, nodes), (60, 20, 20));
    }
}
